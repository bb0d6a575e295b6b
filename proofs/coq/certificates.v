(******************************************************************************)
(* Certificates of UNIQUE, checked by computation: lifting of degree two or   *)
(* three at a hidden layer of a network with exact binary numbers             *)
(* (docs/theory.md, 3.1 to 3.6, 6.4 and Appendix L3).                         *)
(*                                                                            *)
(*   argument_ok     ranks of the deltas, of [H 1] and of R at the layer, and *)
(*                   divisions of groups above it                             *)
(*   settled_by      what these give: C1, L3, C2 with splits, or single for   *)
(*                   one sample                                               *)
(*   unique_first    UNIQUE by the first hidden layer                         *)
(*   unique_upper    UNIQUE by a higher one                                   *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra all_fingroup ssrZ.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting cubic exact downward labels splits modular residues cubes tensors layers divisions.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

(* What a file brings along. splits: where samples share patterns, for each   *)
(* layer from the next one up a division of each group that is left.          *)
Record argument := Argument {
  choice : unknowns; deltas_minor : minor; inputs_minor : minor;
  neurons : seq nat; equations : seq nat; dropped : seq nat; system_inverse : ints;
  splits : seq (seq division) }.

(* The layer's own system, as that of the group of all samples.               *)
Definition whole (E : argument) : division :=
  Division (deltas_minor E) (choice E) (neurons E) (equations E) (dropped E) (system_inverse E).

Definition all_plain (E : argument) : bool :=
  plain (choice E) && all (fun E' => plain (group_unknowns E')) (flatten (splits E)).

Section Arguments.

Variables (p : word) (d n : nat) (ws : seq nat) (K : nat) (D : Z) (M : nat).
Variables (As : seq affine) (xs : integers) (zs : seq integers) (ds : seq ints).

Definition argument_ok (E : argument) : bool :=
  let Dp := [seq head [::] dm | dm <- ds] in
  [&& has_rank p M.+1 n Dp (deltas_minor E),
      has_rank p M.+1 (d + 1) (lifts p D xs) (inputs_minor E) &
      if nilp (splits E) then
        choice_ok p n ws K M As zs ds (choice E) &&
        (alone (choice E) ||
          system_ok p n M Dp (next_columns ws K M (choice E)) M.+1 M.+1 (next_weights p n ws K As ds (choice E))
            (neurons E) (equations E) (dropped E) (system_inverse E))
      else isolated_ok p K M n ws As zs ds [:: everyone M] ([:: whole E] :: splits E)].

End Arguments.

Section Settled.

Variables (R : realFieldType) (p : word) (p_ok : modulus_ok p).
Variables (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R}).
Variables (d n : nat) (ws : seq nat) (K : nat) (D : Z) (T : seq (tensor * tensor)).
Variables (M : nat) (xs : integers) (gs : seq (seq A)) (us : ints) (c : nat -> R).

Let As := affines d (n :: ws) K D T.
Let N := net R d (n :: ws) K T.
Let x (m : 'I_M.+1) := vec R d D (nth [::] xs m).
Let g (m : 'I_M.+1) := c m *: rvec iota K (nth [::] gs m).
Let zs := all_states As xs.
Let ds := all_deltas p As zs us.

Hypothesis iota_inj : injective iota.
Hypothesis ok : affines_ok (n :: ws) D T.
Hypothesis sxs : size xs = M.+1.
Hypothesis sus : size us = M.+1.
Hypothesis sx : forall m : 'I_M.+1, size (nth [::] xs m) = d.
Hypothesis ug : forall m : 'I_M.+1, reduced 0 phi K (nth [::] us m) (nth [::] gs m).
Hypothesis c0 : forall m, c m != 0.

Let sg (m : 'I_M.+1) : size (nth [::] gs m) = K. Proof. by case: (ug m). Qed.

(* Equal inputs and deltas up to the order s, and next deltas but for Alone.  *)
Definition found (u : unknowns) (x' : 'I_M.+1 -> 'cV[R]_d) (g' : 'I_M.+1 -> 'cV[R]_K) (s : 'S_M.+1) : Prop :=
  forall m, [/\ x' m = x (s m), delta1 N (x' m) (g' m) = delta1 N (x (s m)) (g (s m)) &
    ~~ alone u -> delta2 N (x' m) (g' m) = delta2 N (x (s m)) (g (s m))].

Definition settled (u : unknowns) (G : 'cV[R]_K -> Prop) : Prop :=
  forall x' g', (forall m, G (g' m)) -> gsum N x' g' = gsum N x g -> exists s, found u x' g' s.

Lemma settled_by E (G : 'cV[R]_K -> Prop) : argument_ok p d n ws K D M As xs zs ds E ->
  (forall m, G (g m)) -> (all_plain E \/ forall h, G h -> \sum_i h i 0 = 0) -> settled (choice E) G.
Proof.
case/and3P=> okD okX ok_system Gg Gsum x' g' Gg' same.
have Dp_ok := Dp_reduced p_ok d n ws D T sxs sus ug.
have rA := rank_first p_ok iota_inj ok sx sg c0 Dp_ok sxs okD okX.
have Gchoice : fits G (choice E) by case: Gsum => [/andP[pl _]|]; [left | right].
case: ifP ok_system => [_ /andP[okC okS]|_ okI].
  have [al|nal] := boolP (alone (choice E)).
    have M0 : M = 0%N by move: al okC; case: (choice E) => // _ /eqP.
    by have [s st] := alone_settled M0 rA same; exists s => m; rewrite /found al; case: (st m).
  rewrite (negPf nal) /= in okS.
  have [C [conf [t [V [t0 sV redV VE]]]]] := unknowns_known p_ok iota_inj ok sxs sus sx ug c0 okC nal Gchoice.
  have sDp : size [seq head [::] dm | dm <- ds] = M.+1 by rewrite size_map size_all_deltas ?sxs ?sus.
  have := rank_system p_ok iota_inj ok sx sg c0 Dp_ok t0 sDp sV redV VE okS.
  by case=> rR; [have [s st] := C1 conf rA rR Gg Gg' same | have [s st] := L3 conf rA rR Gg Gg' same];
    exists s => m; case: (st m).
case/and3P: okI => _ /andP[okE _] rest.
have okg : members_ok M (everyone M).
  by rewrite /members_ok size_iota; apply/allP => m; rewrite mem_iota.
have fit : all_fit G (splits E).
  by case: Gsum => [/andP[_]|sum0]; [left | right].
have okgs : all (members_ok M) [:: everyone M] by rewrite /= okg.
have up := isolates_above sus (isolates_ok (p := p) p_ok iota_inj sus ug c0 (levels := splits E)) ok sxs sx
  (fun m => erefl (x m)) okgs fit rest.
have [div sub iso] := divided_isolates (E := whole E) p_ok iota_inj sus ug c0 ok sxs sx (fun m => erefl (x m)) okg
  (mem_head _ _) Gchoice okE up.
have onto (m : 'I_M.+1) : exists l, @sample_of M (everyone M) l = m.
  have lt_m : (m < size (everyone M))%N by rewrite size_iota.
  by exists (Ordinal lt_m); apply: val_inj; rewrite /= /sample_of /everyone nth_iota ?add0n /= ?inordK.
have [s st] := C2_splits rA onto div sub iso Gg Gg' same.
by exists s => m; case: (st m).
Qed.

End Settled.

(* The layers from the hidden layer of width q on, as a network of their own. *)
Lemma states_drop As x i : (i < size As)%N ->
  states (drop i.+1 As) (rect (nth [::] (states As x) i)) = drop i.+1 (states As x).
Proof. by elim: As x i => [|A As IH] x [|i] //= lt_i; [rewrite !drop0 | exact: IH]. Qed.

Lemma backs_drop (T U : Type) (zero : T) (fma : T -> U -> T -> T) Ws zs g i : (i <= size Ws)%N -> (size Ws <= size zs)%N ->
  drop i (backs zero fma Ws zs g) = backs zero fma (drop i Ws) (drop i zs) g.
Proof. by elim: Ws zs i => [|W Ws IH] [|z zs] [|i] //= lt_i le_s; rewrite IH. Qed.

Lemma affines_drop d ws1 q ws K D T :
  drop (size ws1).+1 (affines d (ws1 ++ q :: ws) K D T) =
  affines q ws K (out_at d ws1 q ws K D T) (drop (size ws1).+1 T).
Proof.
rewrite /out_at; elim: ws1 d D T => [|n ws1 IH] d D T /=.
  by rewrite drop0; case: T => [|t T] /=; rewrite ?drop0.
by rewrite IH; case: T.
Qed.

Lemma affines_ok_drop d ws1 q ws K D T : affines_ok (ws1 ++ q :: ws) D T ->
  affines_ok ws (out_at d ws1 q ws K D T) (drop (size ws1).+1 T).
Proof.
rewrite /out_at; elim: ws1 d D T => [|n ws1 IH] d D T /= /andP[_ ok].
  by case: T ok => [|t T] /=; rewrite ?drop0.
by case: T ok => [|t T] ok; exact: (IH n _ _ ok).
Qed.

Lemma size_affines d ws K D T : size (affines d ws K D T) = (size ws).+1.
Proof. by elim: ws d D T => [|n ws IH] d D T //=; rewrite IH. Qed.

Lemma size_above d ws K D T : size (above (affines d ws K D T)) = size ws.
Proof. by rewrite size_map size_behead size_affines. Qed.

Section Below.

Variables (R : realFieldType) (p : word) (p_ok : modulus_ok p).
Variables (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R}).
Variables (K M : nat) (gs : seq (seq A)) (us : ints) (c : nat -> R).
Hypothesis iota_inj : injective iota.
Hypothesis sus : size us = M.+1.
Hypothesis ug : forall m : 'I_M.+1, reduced 0 phi K (nth [::] us m) (nth [::] gs m).
Hypothesis c0 : forall m, c m != 0.

Let sg (m : 'I_M.+1) : size (nth [::] gs m) = K. Proof. by case: (ug m). Qed.
Let g (m : 'I_M.+1) := c m *: rvec iota K (nth [::] gs m).

(* Minors of the deltas of the layers of widths ws, the first layer first. *)
Fixpoint lower_ok (ws : seq nat) (ds : seq ints) (lower : seq minor) : bool :=
  match ws, lower with
  | n :: ws', B :: lower' =>
      has_rank p M.+1 n [seq head [::] dm | dm <- ds] B && lower_ok ws' [seq behead dm | dm <- ds] lower'
  | [::], _ => true
  | _, _ => false
  end.

Lemma lower_full_ext d ws1 q ws (N : params R d (ws1 ++ q :: ws) K) (x x' : 'I_M.+1 -> 'cV[R]_d) :
  x =1 x' -> lower_full N x g -> lower_full N x' g.
Proof.
elim: ws1 d N x x' => [|n ws1 IH] d N x x' xE /=.
  by have -> : Delta1 N x' g = Delta1 N x g by apply: eq_cols => m; rewrite xE.
case=> rD lf; split; first by have -> : Delta1 N x' g = Delta1 N x g by apply: eq_cols => m; rewrite xE.
by apply: IH lf => m; rewrite xE.
Qed.

Lemma lower_full_net d ws1 q ws D T xs lower : let As := affines d (ws1 ++ q :: ws) K D T in
  affines_ok (ws1 ++ q :: ws) D T -> size xs = M.+1 -> (forall m : 'I_M.+1, size (nth [::] xs m) = d) ->
  lower_ok (ws1 ++ [:: q]) (all_deltas p As (all_states As xs) us) lower ->
  lower_full (net R d (ws1 ++ q :: ws) K T) (fun m => vec R d D (nth [::] xs m)) g.
Proof.
elim: ws1 d D T xs lower => [|n ws1 IH] d D T xs [|B lower] As //= ok sxs sx /andP[okB ok'].
  exact: (rank_Delta1 p_ok iota_inj ok sx sg c0 (Dp_reduced p_ok d q ws D T sxs sus ug) okB).
split.
  exact: (rank_Delta1 p_ok iota_inj ok sx sg c0 (Dp_reduced p_ok d n (ws1 ++ q :: ws) D T sxs sus ug) okB).
have [okA ok2] := andP ok.
pose xs2 := [seq rect (head [::] z) | z <- all_states As xs].
have sxs2 : size xs2 = M.+1 by rewrite !size_map.
have xs2E (m : 'I_M.+1) : nth [::] xs2 m = rect (apply (affine_of n d D (first T)) (nth [::] xs m)).
  by rewrite (nth_map [::]) ?size_map ?sxs // (nth_map [::]) ?sxs.
apply: lower_full_ext (IH n (out (affine_of n d D (first T))) (behead T) xs2 lower ok2 sxs2 _ _) => [m|m|].
- by rewrite /act /= (applyE R okA (sx m)) relu_vec ?(out_gt0 okA) ?size_apply // xs2E.
- by rewrite xs2E size_rect size_apply.
congr (lower_ok _ _ _): ok'; set As2 := affines n (ws1 ++ q :: ws) K _ _.
apply: (@eq_from_nth _ [::]); first by rewrite size_map !size_all_deltas ?sxs ?sxs2.
move=> m; rewrite size_map size_all_deltas ?sxs ?sus // => lt_m.
rewrite (nth_map [::]) ?size_all_deltas ?sxs ?sus // !all_deltasE ?sxs ?sxs2 ?sus //.
rewrite (xs2E (Ordinal lt_m)) /As /= -/As2.
have := affinesE n (ws1 ++ q :: ws) K (out (affine_of n d D (first T))) (behead T).
by rewrite -/As2; set As3 := behead As2 => ->.
Qed.

(* The features below the output layer: the inputs xs where it is the only    *)
(* layer.                                                                     *)
Fixpoint output_ok (d : nat) (ws : seq nat) (D : Z) (As : seq affine) (xs : integers) (zs : seq integers)
    (B : minor) : bool :=
  match ws, As with
  | n :: ws', A :: As' =>
      output_ok n ws' (out A) As' [seq rect (head [::] z) | z <- zs] [seq behead z | z <- zs] B
  | _, _ => has_rank p M.+1 (d + 1) (lifts p D xs) B
  end.

Lemma vectors_known d ws D T xs B (x' : 'I_M.+1 -> 'cV[R]_d) g' (s : 'S_M.+1) : let As := affines d ws K D T in
  affines_ok ws D T -> size xs = M.+1 -> (forall m : 'I_M.+1, size (nth [::] xs m) = d) ->
  output_ok d ws D As xs (all_states As xs) B ->
  let N := net R d ws K T in
  let x (m : 'I_M.+1) := vec R d D (nth [::] xs m) in
  (forall m, x' m = x (s m)) -> gsum N x' g' = gsum N x g -> forall m, g' m = g (s m).
Proof.
elim: ws d D T xs x' => [|n ws IH] d D T xs x' As /= /andP[okA ok] sxs sx okB xE same.
  apply: output_vectors _ xE same; apply: (rank_lifts p_ok _ sxs sx okB).
  by case/and5P: okA; rewrite -(er_gt0 R) => /lt0r_neq0.
set As2 := affines n ws K _ _ in As okB *.
pose xs2 := [seq rect (apply (affine_of n d D (first T)) x) | x <- xs].
have sxs2 : size xs2 = M.+1 by rewrite size_map.
have xs2E (m : 'I_M.+1) : nth [::] xs2 m = rect (apply (affine_of n d D (first T)) (nth [::] xs m)).
  by rewrite (nth_map [::]) ?sxs.
have actE (m : 'I_M.+1) : act (net R d (n :: ws) K T) (vec R d D (nth [::] xs m)) =
    vec R n (out (affine_of n d D (first T))) (nth [::] xs2 m).
  by rewrite /act /= (applyE R okA (sx m)) relu_vec ?(out_gt0 okA) ?size_apply // xs2E.
apply: (IH n (out (affine_of n d D (first T))) (behead T) xs2 (fun m => act (net R d (n :: ws) K T) (x' m))) => //.
- by move=> m; rewrite xs2E size_rect size_apply.
- have e1 : [seq rect (head [::] z) | z <- all_states As xs] = xs2.
    by rewrite /all_states -map_comp; apply: eq_map.
  have e2 : [seq behead z | z <- all_states As xs] = all_states As2 xs2.
    by rewrite /all_states /xs2 -!map_comp; apply: eq_map.
  by rewrite -e2 -e1.
- by move=> m; rewrite xE actE.
have := gsum_tail (net R d (n :: ws) K T) x' g'; rewrite same gsum_tail => <-.
by apply: eq_bigr => m _; congr (grad _ _ _); exact: actE.
Qed.

End Below.

Section Claims.

Variables (R : realFieldType) (K M : nat) (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K).
Variable adm : 'cV[R]_K -> Prop.

Lemma samples_vec d X m : (m < M.+1)%N ->
  colt R d X m = vec R d (denominator X) (nth [::] (table M.+1 d X) m).
Proof. by move=> lt_m; apply/colP => i; rewrite !mxE -(tableE X lt_m (ltn_ord i)). Qed.

(* Loss vectors as integers, up to one factor. *)
Definition loss_vectors_known d ws (N : params R d ws K) (x : 'I_M.+1 -> 'cV[R]_d) (y : 'I_M.+1 -> 'cV[R]_K)
    (gs : integers) (c : R) : Prop :=
  [/\ c != 0, size gs = M.+1, forall m : 'I_M.+1, size (nth [::] gs m) = K &
      forall m, lossvecs lv N x y m = c *: ivec R K (nth [::] gs m)].

(* Loss vectors in a ring A that R contains, up to a factor for each sample,  *)
(* and their residues us.                                                     *)
Inductive loss_vectors_reduced (p : word) (us : ints) d ws (N : params R d ws K)
    (x : 'I_M.+1 -> 'cV[R]_d) (y : 'I_M.+1 -> 'cV[R]_K) : Prop :=
  Reduced (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R})
    (gs : seq (seq A)) (c : nat -> R) of
    injective iota & (forall m, c m != 0) & size us = M.+1 &
    (forall m : 'I_M.+1, reduced 0 phi K (nth [::] us m) (nth [::] gs m)) &
    (forall m : 'I_M.+1, lossvecs lv N x y m = c m *: rvec iota K (nth [::] gs m)).

Lemma known_reduced (p : word) d ws (N : params R d ws K) x y gs c : modulus_ok p ->
  loss_vectors_known N x y gs c -> loss_vectors_reduced p (residues p gs) N x y.
Proof.
move=> p_ok [c0 sgs sg gE].
apply: (@Reduced p (residues p gs) d ws N x y [comRingType of Z] (er_rmorphism _) (er_rmorphism R) gs (fun=> c)) => //.
- exact: er_inj.
- by rewrite size_map.
move=> m; rewrite (nth_map [::]) ?sgs //.
by have := reduced_residue p_ok (nth [::] gs m); rewrite sg.
Qed.

Definition sums_fit (E : argument) : Prop :=
  all_plain E \/ forall f l, adm l -> \sum_i lv f l i 0 = 0.

(* us: the loss vectors modulo p. *)
Definition first_ok (p : word) d n ws T D (As : seq affine) (us : ints) (xs : integers) (zs : seq integers)
    (E : argument) (L : labels_by) : bool :=
  [&& modulus_ok p, affines_ok (n :: ws) D T,
      (if L is OutputRank B then output_ok p M d (n :: ws) D As xs zs B else told_at_layer p ws K As zs (choice E) L) &
      argument_ok p d n ws K D M As xs zs (all_deltas p As zs us) E].

Theorem unique_first p d n ws T X E L us (y : 'I_M.+1 -> 'cV[R]_K) :
  let N := net R d (n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let xs := table M.+1 d X in
  let As := affines d (n :: ws) K (denominator X) T in
  first_ok p d n ws T (denominator X) As us xs (all_states As xs) E L ->
  loss_vectors_reduced p us N x y -> sums_fit E ->
  (forall m, adm (y m)) -> (forall m, vector_told lv N adm (x m) (y m)) ->
  forall x' y', (forall m, adm (y' m)) -> bgrad lv N x' y' = bgrad lv N x y -> same_batch x x' y y'.
Proof.
move=> N x xs As /and4P[p_ok ok okL okE] [A phi iota gs c iota_inj c0 sus ug gE] fit ay told x' y' ay' same.
have sxs : size xs = M.+1 := (table_shaped M.+1 d X).1.
have sx (m : 'I_M.+1) : size (nth [::] xs m) = d by exact: (table_shaped M.+1 d X).2.
pose G h := exists2 l, adm l & exists f, h = lv f l.
have Gg (m : 'I_M.+1) : G (c m *: rvec iota K (nth [::] gs m)).
  by rewrite -(gE m) /lossvecs; exists (y m) => //; exists (fwd N (x m)).
have Gsum : all_plain E \/ forall h, G h -> \sum_i h i 0 = 0.
  by case: fit => [pl|sum0]; [left | right => h [l al [f ->]]; exact: sum0].
have same' : gsum N x' (lossvecs lv N x' y') =
    gsum N (fun m : 'I_M.+1 => vec R d (denominator X) (nth [::] xs m)) (fun m : 'I_M.+1 => c m *: rvec iota K (nth [::] gs m)).
  rewrite -[LHS]/(bgrad lv N x' y') same; apply: eq_bigr => m _.
  by rewrite gE /x (samples_vec d X (ltn_ord m)).
have [|s st] := settled_by p_ok iota_inj ok sxs sus sx ug c0 okE Gg Gsum _ same'.
  by move=> m; exists (y' m) => //; exists (fwd N (x' m)).
have xs_known m : x' m = x (s m) by have [-> _ _] := st m; rewrite -samples_vec.
exists s => m; split=> //; apply: told => //; apply: etrans _ (esym (gE (s m))).
have -> : lv (fwd N (x (s m))) (y' m) = lossvecs lv N x' y' m by rewrite /lossvecs xs_known.
have here : told_at_layer p ws K As (all_states As xs) (choice E) L -> lossvecs lv N x' y' m = c (s m) *: rvec iota K (nth [::] gs (s m)).
  move=> okT; apply: (vectors_at_layer p_ok ok sxs sx (g1 := fun m => c m *: rvec iota K (nth [::] gs m)) okT) => m'.
  by have [-> _ ed] := st m'.
case: L okL here => [okT|B okB _|Bs okT]; try by apply.
apply: (vectors_known p_ok ok sxs sx okB (x' := x') (s := s)) same' _ => m'.
by rewrite xs_known /x samples_vec.
Qed.

Definition upper_ok (p : word) d ws1 q n ws T D (As : seq affine) (us : ints) (xs : integers) (zs : seq integers)
    (lower : seq minor) (E : argument) (L : labels_by) : bool :=
  let i := (size ws1).+1 in
  let ds := all_deltas p As zs us in
  [&& modulus_ok p, affines_ok (ws1 ++ q :: n :: ws) D T, lower_ok p M (ws1 ++ [:: q]) ds lower &
      argument_ok p q n ws K (out (nth (Affine [::] [::] Z0 Z0 Z0) As (size ws1))) M (drop i As)
        [seq rect (nth [::] z (size ws1)) | z <- zs] [seq drop i z | z <- zs] [seq drop i dm | dm <- ds] E &&
      (if L is OutputRank B then output_ok p M d (ws1 ++ q :: n :: ws) D As xs zs B
       else told_at_layer p ws K (drop i As) [seq drop i z | z <- zs] (choice E) L)].

Theorem unique_upper p d ws1 q n ws T X lower E L us (y : 'I_M.+1 -> 'cV[R]_K) :
  let N := net R d (ws1 ++ q :: n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let As := affines d (ws1 ++ q :: n :: ws) K (denominator X) T in
  upper_ok p d ws1 q n ws T (denominator X) As us (table M.+1 d X) (all_states As (table M.+1 d X)) lower E L ->
  loss_vectors_reduced p us N x y -> sums_fit E ->
  (forall m, adm (y m)) -> (forall m, vector_told lv N adm (x m) (y m)) ->
  forall x' y', (forall m, adm (y' m)) -> bgrad lv N x' y' = bgrad lv N x y -> same_batch x x' y y'.
Proof.
move=> N x; set xs := table M.+1 d X; set D := denominator X; set wl := ws1 ++ q :: n :: ws.
set i := (size ws1).+1 => As; set zs := all_states As xs.
case/and4P=> p_ok ok okl /andP[okE okL] [A phi iota gs c iota_inj c0 sus ug gE] fit ay told x' y' ay' same.
have sxs : size xs = M.+1 := (table_shaped M.+1 d X).1.
have sx (m : 'I_M.+1) : size (nth [::] xs m) = d by exact: (table_shaped M.+1 d X).2.
pose g (m : 'I_M.+1) := c m *: rvec iota K (nth [::] gs m).
pose G h := exists2 l, adm l & exists f, h = lv f l.
have Gg (m : 'I_M.+1) : G (g m) by rewrite /g -(gE m) /lossvecs; exists (y m) => //; exists (fwd N (x m)).
have Gsum : all_plain E \/ forall h, G h -> \sum_i h i 0 = 0.
  by case: fit => [pl|sum0]; [left | right => h [l al [f ->]]; exact: sum0].
pose g' := lossvecs lv N x' y'.
have same' : gsum N x' g' = gsum N x g.
  by rewrite -[LHS]/(bgrad lv N x' y') same; apply: eq_bigr => m _; rewrite gE.
have xE (m : 'I_M.+1) : x m = vec R d D (nth [::] xs m) by exact: samples_vec.
have lf : lower_full N x g.
  apply: lower_full_ext (lower_full_net p_ok iota_inj sus ug c0 ok sxs sx okl) => m.
  by rewrite xE.
pose Q := out_at d ws1 q (n :: ws) K D T; pose hs := [seq rect (nth [::] z (size ws1)) | z <- zs].
rewrite -/zs -/i -/As -/hs -/Q in okE.
have shs : size hs = M.+1 by rewrite /hs size_map /zs /all_states size_map.
have hsE (m : 'I_M.+1) : nth [::] hs m = rect (nth [::] (states As (nth [::] xs m)) (size ws1)).
  rewrite /hs (nth_map [::]); last by rewrite /zs /all_states size_map sxs.
  by rewrite /zs /all_states (nth_map [::]) ?sxs.
have hidE (m : 'I_M.+1) : hid N (x m) = vec R q Q (nth [::] hs m) /\ size (nth [::] hs m) = q.
  by rewrite xE hsE size_rect; have [] := @hid_net R d ws1 q (n :: ws) K D T _ ok (sx m).
have lt_i : (size ws1 < size As)%N by rewrite size_affines size_cat /= addnS ltnS leqW // leq_addr.
have zsE : [seq drop i z | z <- zs] = all_states (drop i As) hs.
  by rewrite /hs /zs /all_states -!map_comp; apply: eq_map => z /=; rewrite states_drop.
have dsE : [seq drop i dm | dm <- all_deltas p As zs us] = all_deltas p (drop i As) (all_states (drop i As) hs) us.
  apply: (@eq_from_nth _ [::]); first by rewrite size_map !size_all_deltas ?sxs ?shs.
  move=> m; rewrite size_map size_all_deltas ?sxs ?sus // => lt_m.
  rewrite (nth_map [::]) ?size_all_deltas ?sxs ?sus // !all_deltasE ?sxs ?shs ?sus //.
  rewrite (hsE (Ordinal lt_m)) backs_drop ?size_map ?size_states ?size_behead; last 2 first.
  - by rewrite size_affines size_cat /= addnS ltnS leq_addr.
  - by rewrite leq_pred.
  by rewrite states_drop // -!map_drop -!drop1 !drop_drop addnC.
have ok' : affines_ok (n :: ws) Q (drop i T) by exact: affines_ok_drop.
rewrite zsE dsE /As affines_drop -/Q in okE.
have ET : gsum (net R q (n :: ws) K (drop i T)) (fun m => hid N (x' m)) g' =
    gsum (net R q (n :: ws) K (drop i T)) (fun m => vec R q Q (nth [::] hs m)) g.
  rewrite -[in LHS](topp_net R d ws1 q (n :: ws) K T) -gsum_topp same' gsum_topp (topp_net R d ws1 q (n :: ws) K T).
  by apply: eq_bigr => m _; rewrite (hidE m).1.
have [|s st] := settled_by p_ok iota_inj ok' shs sus (fun m => (hidE m).2) ug c0 okE Gg Gsum _ ET.
  by move=> m; exists (y' m) => //; exists (fwd N (x' m)).
have xs_known : forall m, x' m = x (s m).
  apply: (downward_upto same' lf) => m; have [eh ed _] := st m; first by rewrite eh (hidE (s m)).1.
  by rewrite (topp_net R d ws1 q (n :: ws) K T) ed (hidE (s m)).1.
exists s => m; split=> //; apply: told => //; apply: etrans _ (esym (gE (s m))).
have -> : lv (fwd N (x (s m))) (y' m) = g' m by rewrite /g' /lossvecs xs_known.
have here : told_at_layer p ws K (drop i As) [seq drop i z | z <- zs] (choice E) L -> g' m = g (s m).
  rewrite zsE /As affines_drop -/Q => okT.
  apply: (vectors_at_layer p_ok ok' shs (fun m => (hidE m).2) (x' := fun m => hid N (x' m)) (g1 := g) okT) => m'.
  by have [-> _ ed] := st m'.
case: L okL here => [okT|B okB _|Bs okT]; try by apply.
apply: (vectors_known p_ok ok sxs sx okB (x' := x') (s := s)) _ m => [m'|].
  by rewrite xs_known xE.
by rewrite same'; apply: eq_bigr => m' _; rewrite xE.
Qed.

End Claims.
