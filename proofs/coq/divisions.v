(******************************************************************************)
(* Groups of samples that share patterns, told apart layer by layer: the      *)
(* conditions of splits.v by computation (docs/theory.md, 6.4, step 11).      *)
(*                                                                            *)
(*   signs, mates    a sample's pattern in a layer, the samples of a group    *)
(*                   that share it                                            *)
(*   division        unknowns and minors of a group's lifted system           *)
(*   divided         the rank of C2 for a group's columns, or of degree three *)
(*   isolated_ok     divisions of all groups, layer by layer, leave all       *)
(*                   samples alone                                            *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra all_fingroup ssrZ.
From Exan Require Import linalg network lifting exact groups cubic triples splits modular residues tensors layers.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

(* A group's system: rank of its deltas, unknowns above, a minor of R.        *)
Record division := Division { group_minor : minor; group_unknowns : unknowns;
  group_neurons : seq nat; group_equations : seq nat; group_dropped : seq nat; group_inverse : ints }.

Section Computed.

Variables (p : word) (K M : nat).

(* zs: pre-activations from this layer up. *)
Definition signs (zs : seq integers) (m : nat) : seq bool :=
  [seq Z.ltb Z0 v | v <- head [::] (nth [::] zs m)].

Definition mates (zs : seq integers) (group : seq nat) (m : nat) : seq nat :=
  [seq a <- group | signs zs a == signs zs m].

Definition together (zs : seq integers) (group : seq nat) (i j : nat) : bool :=
  signs zs (nth 0%N group i) == signs zs (nth 0%N group j).

Definition triples_in (r : nat) (same : nat -> nat -> bool) : nat :=
  sumn [seq sumn [seq (if (i <= j)%N && same i j then count (fun l => (j <= l)%N && same j l) (iota 0 r) else 0%N)
    | j <- iota 0 r] | i <- iota 0 r].

Definition divided (n : nat) (ws : seq nat) (As : seq affine) (zs : seq integers) (ds : seq ints)
    (group : seq nat) (E : division) : bool :=
  let Dp := [seq head [::] (nth [::] ds m) | m <- group] in
  let u := group_unknowns E in
  let r := (size group).-1 in
  [&& has_rank p r.+1 n Dp (group_minor E), ~~ alone u, choice_ok p n ws K M As zs ds u &
      system_ok p n r Dp (next_columns ws K M u)
        (sumn [seq size (mates zs group m) | m <- group]) (triples_in (size group) (together zs group))
        (next_weights p n ws K As ds u) (group_neurons E) (group_equations E) (group_dropped E) (group_inverse E)].

(* The groups that are left, each once. *)
Definition undivided (zs : seq integers) (groups : seq (seq nat)) : seq (seq nat) :=
  [seq c <- flatten [seq undup [seq mates zs group m | m <- group] | group <- groups] | (1 < size c)%N].

(* levels: for this layer and those above it, a division for each group.      *)
Fixpoint isolated_ok (n : nat) (ws : seq nat) (As : seq affine) (zs : seq integers) (ds : seq ints)
    (groups : seq (seq nat)) (levels : seq (seq division)) {struct levels} : bool :=
  if levels is Es :: levels' then
    let left := undivided zs groups in
    [&& size Es == size groups, all (fun cE => divided n ws As zs ds cE.1 cE.2) (zip groups Es) &
        if ws is n' :: ws' then
          isolated_ok n' ws' (behead As) [seq behead z | z <- zs] [seq behead dm | dm <- ds] left levels'
        else nilp left]
  else nilp groups.

End Computed.

Lemma mem_mates zs group m a : (a \in mates zs group m) = (signs zs a == signs zs m) && (a \in group).
Proof. by rewrite mem_filter. Qed.

Definition everyone (M : nat) : seq nat := iota 0 M.+1.

(* Members of a group as indices of samples. *)
Definition sample_of M (group : seq nat) (i : 'I_(size group)) : 'I_M.+1 := inord (nth 0%N group i).

Lemma sum_iota r (F : nat -> nat) : sumn [seq F i | i <- iota 0 r] = (\sum_(i < r) F i)%N.
Proof. by rewrite sumnE big_map -(big_mkord xpredT F) /index_iota subn0. Qed.

Section Divided.

Variables (R : realFieldType) (p : word) (p_ok : modulus_ok p).
Variables (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R}).
Variables (K M : nat) (gs : seq (seq A)) (us : ints) (c : nat -> R).
Hypothesis iota_inj : injective iota.
Hypothesis sus : size us = M.+1.
Hypothesis ug : forall m : 'I_M.+1, reduced 0 phi K (nth [::] us m) (nth [::] gs m).
Hypothesis c0 : forall m, c m != 0.
Variable G : 'cV[R]_K -> Prop.

Let g (m : 'I_M.+1) := c m *: rvec iota K (nth [::] gs m).

(* Which loss vectors other batches have. *)
Definition fits (u : unknowns) : Prop := plain u \/ forall h, G h -> \sum_i h i 0 = 0.

Definition members_ok (group : seq nat) : bool := (0 < size group)%N && all (fun m => m < M.+1)%N group.

Section OneLayer.

Variables (d n : nat) (ws : seq nat) (D : Z) (T : seq (tensor * tensor)) (xs : integers).
Variable x : 'I_M.+1 -> 'cV[R]_d.

Let As := affines d (n :: ws) K D T.
Let N := net R d (n :: ws) K T.
Let zs := all_states As xs.
Let ds := all_deltas p As zs us.

Hypothesis ok : affines_ok (n :: ws) D T.
Hypothesis sxs : size xs = M.+1.
Hypothesis sx : forall m : 'I_M.+1, size (nth [::] xs m) = d.
Hypothesis xE : forall m : 'I_M.+1, x m = vec R d D (nth [::] xs m).

Lemma region_signs (a b : 'I_M.+1) : (region N (x a) == region N (x b)) = (signs zs a == signs zs b).
Proof.
have okA : affine_ok D (first T) by case/andP: ok.
have zE (m : 'I_M.+1) : head [::] (nth [::] zs m) = apply (affine_of n d D (first T)) (nth [::] xs m).
  by rewrite (nth_map [::]) ?sxs.
have ss (m : 'I_M.+1) : size (signs zs m) = n by rewrite size_map zE size_apply.
have rE (m : 'I_M.+1) (i : 'I_n) : region N (x m) i 0 = nth false (signs zs m) i.
  rewrite /signs (nth_map Z0) ?zE ?size_apply // /region xE /N /= (applyE R okA (sx m)).
  by rewrite active_vec ?(out_gt0 okA).
apply/eqP/eqP => [E|E]; last by apply/colP => i; rewrite !rE E.
apply: (@eq_from_nth _ false); rewrite !ss // => i lt_i.
by rewrite -(rE a (Ordinal lt_i)) -(rE b (Ordinal lt_i)) E.
Qed.

Let f group i := @sample_of M group i.

Lemma fE group (i : 'I_(size group)) : members_ok group -> f i = nth 0%N group i :> nat.
Proof. by case/andP=> _ /(all_nthP 0%N) ok_g; rewrite /f /sample_of inordK ?ok_g. Qed.

Lemma free_pairs group : members_ok group ->
  sumn [seq size (mates zs group m) | m <- group] = #|pairs (fun i => region N (x (@f group i)))|.
Proof.
move=> okg; rewrite card_sig -sum1_card; under [RHS]eq_bigl do rewrite inE.
rewrite -(pair_big_dep xpredT (fun a b : 'I_(size group) => region N (x (f a)) == region N (x (f b))) (fun _ _ => 1%N)) /=.
rewrite sumnE big_map (big_nth 0%N) big_mkord; apply: eq_bigr => i _.
rewrite /mates size_filter -sum1_count (big_nth 0%N) big_mkord.
by apply: eq_bigl => j; rewrite region_signs !fE // eq_sym.
Qed.

Lemma free_triples group : members_ok group ->
  triples_in (size group) (together zs group) = #|triples (fun i => region N (x (@f group i)))|.
Proof.
move=> okg; rewrite card_sig -sum1_card big_mkcond /=; set P := ordered _.
rewrite -(pair_bigA _ (fun ab c => if P (ab, c) then 1%N else 0%N)) /=.
rewrite -(pair_bigA _ (fun a b => \sum_c if P (a, b, c) then 1 else 0)%N) /= /triples_in sum_iota.
have same (a b : 'I_(size group)) : (region N (x (f a)) == region N (x (f b))) = together zs group a b.
  by rewrite region_signs /together !fE.
apply: eq_bigr => i _; rewrite sum_iota; apply: eq_bigr => j _; rewrite /P /ordered /=.
case: ifP => [/andP[ij sij]|no]; last first.
  rewrite big1 // => l _; rewrite same; case: ifP => // /and4P[ij _ sij _].
  by rewrite ij sij in no.
rewrite -sumn_count sum_iota; apply: eq_bigr => l _.
by rewrite ij !same sij /=; case: (_ && _).
Qed.

Lemma divides_ok group E : members_ok group -> divided p K M n ws As zs ds group E ->
  fits (group_unknowns E) -> divides G N x g (@f group).
Proof.
case: group => // m0 group okg /and4P[okD nal okC okS] fit.
have [C [conf [t [V [t0 sV redV VE]]]]] := unknowns_known p_ok iota_inj ok sxs sus sx ug c0 okC nal fit.
set r := size group; pose ms := m0 :: group.
pose xg := [seq nth [::] xs m | m <- ms]; pose gg := [seq nth [::] gs m | m <- ms].
pose cg (i : nat) := c (nth 0%N ms i).
have lt_m (i : 'I_r.+1) : (nth 0%N ms i < M.+1)%N by rewrite -(@fE (m0 :: group) i okg).
have xgE (i : 'I_r.+1) : nth [::] xg i = nth [::] xs (f (i : 'I_(size ms))).
  by rewrite (nth_map 0%N) // fE.
have ggE (i : 'I_r.+1) : nth [::] gg i = nth [::] gs (f (i : 'I_(size ms))).
  by rewrite (nth_map 0%N) // fE.
have sxg (i : 'I_r.+1) : size (nth [::] xg i) = d by rewrite xgE.
have sgg (i : 'I_r.+1) : size (nth [::] gg i) = K by rewrite ggE; case: (ug (f (i : 'I_(size ms)))).
have red (i : 'I_r.+1) : reduced 0 phi n (nth [::] [seq head [::] (nth [::] ds m) | m <- ms] i)
    (delta_r d n ws K D T xg gg i).
  rewrite (nth_map 0%N) // /delta_r xgE ggE.
  have e : head [::] (nth [::] ds (nth 0%N ms i)) = nth [::] [seq head [::] dm | dm <- ds] (f (i : 'I_(size ms))).
    by rewrite fE // (nth_map [::]) // size_all_deltas ?sxs ?sus.
  rewrite e; exact: (Dp_reduced p_ok d n ws D T sxs sus ug).
have DE : Delta1 N (fun i => x (@f ms i)) (fun i => g (@f ms i)) =
    Delta1 N (fun i : 'I_r.+1 => vec R d D (nth [::] xg i)) (fun i => cg i *: rvec iota K (nth [::] gg i)).
  by apply: eq_cols => i; rewrite xE /g xgE ggE /cg -fE.
have cg0 i : cg i != 0 by exact: c0.
exists (next_columns ws K M (group_unknowns E)), C; split.
- move=> x' g' Gg' same; apply: conf => //; rewrite same.
  by apply: eq_bigr => m _; rewrite xE.
- rewrite DE; exact: (rank_Delta1 p_ok iota_inj ok sxg sgg cg0 red okD).
rewrite /group_rank DE -free_pairs // -free_triples //.
by apply: (rank_system p_ok iota_inj ok sxg sgg cg0 red t0 _ sV redV VE okS); rewrite size_map.
Qed.

(* A group's mates are the samples of its pattern. *)
Lemma mates_region group (i j : 'I_(size group)) : members_ok group ->
  region N (x (f j)) = region N (x (f i)) ->
  exists l, @f (mates zs group (nth 0%N group i)) l = f j.
Proof.
move=> okg /eqP; rewrite region_signs !fE // => same.
have jm : nth 0%N group j \in mates zs group (nth 0%N group i) by rewrite mem_mates same mem_nth.
have lt_j : (index (nth 0%N group j) (mates zs group (nth 0%N group i)) <
             size (mates zs group (nth 0%N group i)))%N by rewrite index_mem.
by exists (Ordinal lt_j); rewrite /f /sample_of /= nth_index.
Qed.

Lemma members_mates group i : (i < size group)%N -> members_ok group -> members_ok (mates zs group (nth 0%N group i)).
Proof.
move=> lt_i /andP[_ /allP okg]; apply/andP; split; last by apply/allP => a; rewrite mem_mates => /andP[_ /okg].
have : nth 0%N group i \in mates zs group (nth 0%N group i) by rewrite mem_mates eqxx mem_nth.
by case: (mates _ _ _).
Qed.

(* The network above the layer. *)
Let xs2 := [seq rect (head [::] z) | z <- zs].
Let D2 := out (affine_of n d D (first T)).

Lemma above_ok : [/\ size xs2 = M.+1, forall m : 'I_M.+1, size (nth [::] xs2 m) = n &
  forall m : 'I_M.+1, act N (x m) = vec R n D2 (nth [::] xs2 m)].
Proof.
have okA : affine_ok D (first T) by case/andP: ok.
have xs2E (m : 'I_M.+1) : nth [::] xs2 m = rect (apply (affine_of n d D (first T)) (nth [::] xs m)).
  by rewrite (nth_map [::]) ?size_map ?sxs // (nth_map [::]) ?sxs.
split=> [|m|m]; first by rewrite !size_map.
  by rewrite xs2E size_rect size_apply.
by rewrite xE /act /N /= (applyE R okA (sx m)) relu_vec ?(out_gt0 okA) ?size_apply // xs2E.
Qed.

Lemma states_above : [seq behead z | z <- zs] = all_states (behead As) xs2.
Proof. by rewrite /xs2 /zs /all_states -!map_comp; apply: eq_map. Qed.

Lemma deltas_above : [seq behead dm | dm <- ds] = all_deltas p (behead As) [seq behead z | z <- zs] us.
Proof.
have [sxs2 _ _] := above_ok; rewrite states_above.
apply: (@eq_from_nth _ [::]); first by rewrite size_map !size_all_deltas ?sxs ?sxs2.
move=> m; rewrite size_map size_all_deltas ?sxs ?sus // => lt_m.
rewrite (nth_map [::]) ?size_all_deltas ?sxs ?sus // !all_deltasE ?sxs ?sxs2 ?sus //.
rewrite (nth_map [::]) ?size_map ?sxs // (nth_map [::]) ?sxs //= /As /=.
by have := affinesE n ws K D2 (behead T); rewrite -/D2; set As3 := behead (affines n _ _ _ _) => ->.
Qed.

Lemma mates_left groups group (i : 'I_(size group)) : group \in groups ->
  (1 < size (mates zs group (nth 0%N group i)))%N ->
  mates zs group (nth 0%N group i) \in undivided zs groups.
Proof.
move=> in_groups big; rewrite mem_filter big; apply/flattenP.
exists (undup [seq mates zs group m | m <- group]); first exact: map_f.
by rewrite mem_undup map_f // mem_nth.
Qed.

End OneLayer.

(* A group of one sample. *)
Lemma isolated_alone d ws (N : params R d ws K) x group : members_ok group -> (size group <= 1)%N ->
  isolates G N x g (@sample_of M group).
Proof. by case: group => [|m [|? ?]] //= _ _; exact: Isolated. Qed.

Definition all_fit (levels : seq (seq division)) : Prop :=
  all (fun E => plain (group_unknowns E)) (flatten levels) \/ forall h, G h -> \sum_i h i 0 = 0.

(* A group of the layer with its division, and what the rest of the levels    *)
(* gives for the groups that are left.                                        *)
Lemma divided_isolates d n ws D T xs (x : 'I_M.+1 -> 'cV[R]_d) groups group E :
  let As := affines d (n :: ws) K D T in
  let zs := all_states As xs in
  let N := net R d (n :: ws) K T in
  affines_ok (n :: ws) D T -> size xs = M.+1 -> (forall m : 'I_M.+1, size (nth [::] xs m) = d) ->
  (forall m : 'I_M.+1, x m = vec R d D (nth [::] xs m)) ->
  members_ok group -> group \in groups -> fits (group_unknowns E) ->
  divided p K M n ws As zs (all_deltas p As zs us) group E ->
  (forall c, c \in undivided zs groups -> isolates G N.2 (fun m => act N (x m)) g (@sample_of M c)) ->
  let mates_of (i : 'I_(size group)) := @sample_of M (mates zs group (nth 0%N group i)) in
  [/\ divides G N x g (@sample_of M group),
      forall i j : 'I_(size group), region N (x (sample_of M j)) = region N (x (sample_of M i)) ->
        exists l, mates_of i l = sample_of M j &
      forall i, isolates G N.2 (fun m => act N (x m)) g (mates_of i)].
Proof.
move=> As zs N ok sxs sx xE okg in_g fit okE up mates_of; split.
- exact: (divides_ok ok sxs sx xE okg okE fit).
- by move=> i j; exact: (mates_region ok sxs sx xE).
move=> i; have okm : members_ok (mates zs group (nth 0%N group i)) by exact: members_mates.
rewrite /mates_of; have [small|big] := leqP (size (mates zs group (nth 0%N group i))) 1.
  exact: isolated_alone.
by apply: up; exact: mates_left.
Qed.

Definition isolating (levels : seq (seq division)) : Prop := forall d n ws D T xs (x : 'I_M.+1 -> 'cV[R]_d) groups,
  let As := affines d (n :: ws) K D T in
  let zs := all_states As xs in
  affines_ok (n :: ws) D T -> size xs = M.+1 -> (forall m : 'I_M.+1, size (nth [::] xs m) = d) ->
  (forall m : 'I_M.+1, x m = vec R d D (nth [::] xs m)) ->
  all members_ok groups -> all_fit levels ->
  isolated_ok p K M n ws As zs (all_deltas p As zs us) groups levels ->
  forall group, group \in groups -> isolates G (net R d (n :: ws) K T) x g (@sample_of M group).

(* The levels above the layer. *)
Lemma isolates_above levels d n ws D T xs (x : 'I_M.+1 -> 'cV[R]_d) groups :
  let As := affines d (n :: ws) K D T in
  let zs := all_states As xs in
  let ds := all_deltas p As zs us in
  isolating levels ->
  affines_ok (n :: ws) D T -> size xs = M.+1 -> (forall m : 'I_M.+1, size (nth [::] xs m) = d) ->
  (forall m : 'I_M.+1, x m = vec R d D (nth [::] xs m)) ->
  all members_ok groups -> all_fit levels ->
  (if ws is n' :: ws' then
     isolated_ok p K M n' ws' (behead As) [seq behead z | z <- zs] [seq behead dm | dm <- ds] (undivided zs groups) levels
   else nilp (undivided zs groups)) ->
  forall left, left \in undivided zs groups ->
  isolates G (net R n ws K (behead T)) (fun m => act (net R d (n :: ws) K T) (x m)) g (@sample_of M left).
Proof.
move=> As zs ds IH ok sxs sx xE okg fit rest left.
have [sxs2 sx2 actE] := above_ok ok sxs sx xE.
have zsE := states_above d n ws D T xs.
have dsE := deltas_above ok sxs sx xE.
case: ws @As @zs @ds ok rest sxs2 sx2 actE zsE dsE => [|n' ws] As zs ds ok rest sxs2 sx2 actE zsE dsE.
  by move: rest => /= /nilP ->.
rewrite /ds dsE zsE in rest.
apply: (IH n n' ws _ (behead T) _ _ _ _ sxs2 sx2 actE _ fit rest).
  by case/andP: ok.
apply/allP => c'; rewrite mem_filter => /andP[_ /flattenP[cs /mapP[gr' in_gr' ->]]].
rewrite mem_undup => /mapP[m in_m ->].
by rewrite -(nth_index 0%N in_m) members_mates ?index_mem // (allP okg).
Qed.

Lemma isolates_ok levels : isolating levels.
Proof.
elim: levels => [|Es levels IH] d n ws D T xs x groups As zs ok sxs sx xE okg fit.
  by move=> /= /nilP -> group.
case/and3P=> /eqP sE okE rest group in_g.
have [E okEg fitE] : exists2 E, divided p K M n ws As zs (all_deltas p As zs us) group E & fits (group_unknowns E).
  have lt_i : (index group groups < size groups)%N by rewrite index_mem.
  case: Es sE okE fit {rest} => [|E0 Es] sE; first by rewrite -sE in lt_i.
  move=> /(all_nthP ([::], E0))/(_ (index group groups)) okE fit.
  rewrite size_zip -sE minnn sE in okE; have := okE lt_i; rewrite nth_zip // nth_index // => ok_i.
  exists (nth E0 (E0 :: Es) (index group groups)) => //.
  case: fit => [pl|sum0]; [left | by right].
  move: pl; rewrite all_cat => /andP[/(all_nthP E0)/(_ (index group groups)) pl _].
  by apply: pl; rewrite sE.
have fit' : all_fit levels by case: fit => [|sum0]; [rewrite /all_fit all_cat => /andP[_]; left | right].
have up := isolates_above IH ok sxs sx xE okg fit' rest.
have [div sub iso] := divided_isolates ok sxs sx xE (allP okg _ in_g) in_g fitE okEg up.
exact: Divided div sub iso.
Qed.

End Divided.
