(******************************************************************************)
(* Certificates of UNIQUE, checked by computation: lifting of degree two at a *)
(* hidden layer of a network with exact binary numbers (docs/theory.md, 3.1   *)
(* to 3.6). Ranks are those of minors modulo a machine integer.               *)
(*                                                                            *)
(*   monomials M k dropped   the lifted unknowns but those at the positions   *)
(*                   dropped                                                  *)
(*   minor           columns, and the transposed inverse of the minor there   *)
(*   argument_ok     ranks of the deltas, of [H 1] and of R at the layer      *)
(*   settled_by      what these give: C1, without the search for ranks        *)
(*   unique_mse      UNIQUE for one hidden layer and the squared error        *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra all_fingroup ssrZ.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting exact downward labels modular residues tensors.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

(* (true, a, b) is q_a q_b, (false, a, c) is q_a p_c. *)
Notation code := (bool * nat * nat)%type.

Definition monomial M k (t : code) : mono M.+1 k :=
  let: (quad, a, b) := t in
  if quad then inl (insubd (exist _ (ord0, ord0) (leqnn 0)) (inord a, inord b))
  else if insub b is Some c then inr (inord a, c) else inl (exist _ (ord0, ord0) (leqnn 0)).

Definition code_ok M k (t : code) : bool :=
  let: (quad, a, b) := t in if quad then (a <= b <= M)%N else (a <= M)%N && (b < k)%N.

Definition monomials (M k : nat) (dropped : seq nat) : seq code :=
  let quads := flatten [seq [seq (true, a, b) | b <- iota a (M.+1 - a)] | a <- iota 0 M.+1] in
  let mixed := flatten [seq [seq (false, a, c) | c <- iota 0 k] | a <- iota 0 M.+1] in
  let all := quads ++ mixed in
  [seq it.2 | it <- zip (iota 0 (size all)) all & it.1 \notin dropped].

(* Coefficients of R in integers, and in residues: B is M x n, V is k x n. *)
Definition codez (B V : nat -> nat -> Z) (j : nat) (t : code) : Z :=
  let: (quad, a, b) := t in
  if quad then Z.mul (if a == b then Z.pos xH else Z.pos (xO xH)) (Z.mul (B a j) (B b j))
  else Z.opp (Z.mul (B a j) (V b j)).

Definition codep (p : word) (B V : seq word) (t : code) : word :=
  let: (quad, a, b) := t in
  let u := nth 0%uint63 B a in
  if quad then
    let v := nth 0%uint63 B b in
    if a == b then fma p u v 0 else fma p u v (fma p u v 0)
  else fma p (fma p (residue p (Z.neg xH)) u 0) (nth 0%uint63 V b) 0.

Lemma er2 (S : ringType) : er S (Z.pos (xO xH)) = 2%:R. Proof. by []. Qed.
Lemma erN1 (S : ringType) : er S (Z.neg xH) = -1. Proof. exact: (erN S (Z.pos xH)). Qed.

Section Lifted.

Variables (R : realFieldType) (n M k : nat).

Lemma lcoef_code (s : R) (B V : nat -> nat -> Z) (j : 'I_n) t : code_ok M k t ->
  lcoef (\matrix_(i < n, m < M.+1) (s * er R (B m i))) (\matrix_(i < n, c < k) (s * er R (V c i))) j
    (monomial M k t) = s * s * er R (codez B V j t).
Proof.
case: t => [[[] a] b] /=.
  case/andP=> ab bM; have aM := leq_trans ab bM; rewrite val_insubd /= !inordK // ab.
  rewrite -val_eqE /= !inordK // !mxE !inordK // !erM mulrACA.
  by case: eqP => _; rewrite ?er1 ?er2 ?mul1r ?mulr1n // mulr_natl mulrnAr.
case/andP=> aM bk; rewrite insubT /= !mxE !inordK //.
by rewrite erN erM mulrACA mulrN.
Qed.

Variables (p : word) (p_ok : modulus_ok p).

Lemma codepE (B V : nat -> nat -> Z) (j : nat) (u v : seq word) t : code_ok M k t ->
  (forall a, (a <= M)%N -> small p (nth 0%uint63 u a) /\ eu p (nth 0%uint63 u a) = er _ (B a j)) ->
  (forall c, (c < k)%N -> small p (nth 0%uint63 v c) /\ eu p (nth 0%uint63 v c) = er _ (V c j)) ->
  eu p (codep p u v t) = er _ (codez B V j t).
Proof.
case: t => [[[] a] b] /= ok uE vE.
  have [ab bM] := andP ok; have [sa aE] := uE a (leq_trans ab bM); have [sb bE] := uE b bM.
  case: eqP => _; rewrite !fmaE ?small0 ?fma_small // eu0 addr0 aE bE !erM ?er1 ?mul1r //.
  by rewrite er2 mulr_natl mulr2n.
have [aM bk] := andP ok; have [sa aE] := uE a aM; have [sb bE] := vE b bk.
rewrite !fmaE ?small0 ?fma_small ?residue_small // eu0 !addr0 aE bE residueE // erN erM.
by rewrite erN1 mulN1r mulNr.
Qed.

Definition lifted_ok (neurons : seq nat) (codes : seq code) (u v : seq (seq word)) (inv : ints) : bool :=
  [&& all (fun j => j < n)%N neurons, all (code_ok M k) codes, size codes == size neurons,
      ((M.+1 * M.+2)./2 + M.+1 * k <= size neurons + M.+1)%N &
      inverse_ok p (size neurons)
        [seq [seq codep p uv.1 uv.2 t | t <- codes] | uv <- zip u v] inv].

(* u, v: for each of the neurons its deltas, and its entries of V. *)
Lemma rank_lifted_ok (s : R) (B V : nat -> nat -> Z) neurons codes u v inv :
  s != 0 -> lifted_ok neurons codes u v inv ->
  size u = size neurons -> size v = size neurons ->
  (forall i, (i < size neurons)%N -> let j := nth 0%N neurons i in
    (forall a, (a <= M)%N -> small p (entry u i a) /\ eu p (entry u i a) = er _ (B a j)) /\
    (forall c, (c < k)%N -> small p (entry v i c) /\ eu p (entry v i c) = er _ (V c j))) ->
  forall A, A = lifted (\matrix_(i < n, m < M.+1) (s * er R (B m i)))
                       (\matrix_(i < n, c < k) (s * er R (V c i))) ->
  (#|mono M.+1 k| - M.+1 <= \rank A)%N.
Proof.
move=> s0 /and5P[/allP lt_n /allP okc /eqP sc enough inv_ok] su sv uvE A AE.
set r := size neurons in sc enough inv_ok su sv uvE.
apply: (@leq_trans r); first by rewrite leq_subLR addnC card_mono.
have [->|r_gt0] := posnP r; first by [].
have n_gt0 : (0 < n)%N by apply: leq_ltn_trans (lt_n (nth 0%N neurons 0) _); rewrite ?mem_nth.
pose f (i : 'I_r) : 'I_n := insubd (Ordinal n_gt0) (nth 0%N neurons i).
have fE i : (f i : nat) = nth 0%N neurons i by rewrite val_insubd lt_n // mem_nth.
pose t0 : code := (true, 0%N, 0%N); pose g (i : 'I_r) := nth t0 codes i.
have okg i : code_ok M k (g i) by apply: okc; rewrite mem_nth ?sc.
apply: leq_trans (rank_mxsub f (fun i => enum_rank (monomial M k (g i))) A).
have -> : mxsub f (fun i => enum_rank (monomial M k (g i))) A =
    (s * s) *: \matrix_(i < r, l < r) er R (codez B V (f i) (g l)).
  by rewrite AE; apply/matrixP => i l; rewrite !mxE enum_rankK lcoef_code.
rewrite mxrank_scale_nz ?mulf_neq0 //.
apply: (@minor_rank p p_ok R r r r (fun i l => codez B V (f i) (g l)) id id _ _ inv_ok) => i l.
have szuv : size (zip u v) = r by rewrite size_zip su sv minnn.
rewrite /entry (nth_map ([::], [::])) ?szuv // (nth_map t0) ?sc // nth_zip ?su ?sv //=.
rewrite fE; have [uE vE] := uvE i (ltn_ord i).
by apply: codepE => //; exact: okg.
Qed.

End Lifted.

(* Columns of a matrix, and the transposed inverse of the minor there. *)
Record minor := Minor { columns : seq nat; inverse : ints }.

Definition has_rank p r n (A : ints) (B : minor) : bool := minor_ok p r n A (columns B) (inverse B).

(* What is computed of the samples: pre-activations, and deltas from the first *)
(* layer up, modulo p.                                                         *)
Definition all_states (As : seq affine) (xs : integers) : seq integers := [seq states As x | x <- xs].

Definition all_deltas p (As : seq affine) (zs : seq integers) (gs : integers) : seq ints :=
  let Ws := [seq residues p W | W <- above As] in
  [seq backp p Ws zg.1 [seq residue p v | v <- zg.2] | zg <- zip zs gs].

(* [x 1], times the denominator D. *)
Definition lifts p (D : Z) (xs : integers) : ints := [seq [seq residue p v | v <- rcons x D] | x <- xs].

Lemma rank_lifts (R : realFieldType) p (p_ok : modulus_ok p) d D M xs B :
  er R D != 0 -> size xs = M.+1 -> (forall m : 'I_M.+1, size (nth [::] xs m) = d) ->
  has_rank p M.+1 (d + 1) (lifts p D xs) B ->
  \rank (lift1 (fun m : 'I_M.+1 => vec R d D (nth [::] xs m))) = M.+1.
Proof.
move=> D0 sxs sx okB; apply/eqP; rewrite eqn_leq rank_leq_row; set L := lift1 _.
have -> : L = (er R D)^-1 *: \matrix_(m < M.+1, i < d + 1) er R (nth Z0 (rcons (nth [::] xs m) D) i).
  apply/matrixP => m i; rewrite [LHS]mxE [RHS]mxE [in RHS]mxE nth_rcons sx; case: splitP => j ij.
    by rewrite !mxE ij mulrC.
  by rewrite !mxE ij ord1 addn0 eqxx mulVf.
rewrite mxrank_scale_nz ?invr_neq0 //.
apply: (minor_columns p_ok R okB) => m i; rewrite /entry /lifts (nth_map [::]) ?sxs // (nth_map Z0).
  by rewrite residueE.
by rewrite size_rcons sx -[d.+1]addn1; apply: ltn_ord.
Qed.

Section Layer.

Variables (R : realFieldType) (p : word) (p_ok : modulus_ok p).
Variables (d n : nat) (ws : seq nat) (K : nat) (D : Z) (T : seq (tensor * tensor)).
Variables (M : nat) (xs gs : integers) (c : R).

Let As := affines d (n :: ws) K D T.
Let N := net R d (n :: ws) K T.
Let x (m : 'I_M.+1) := vec R d D (nth [::] xs m).
Let g (m : 'I_M.+1) := c *: ivec R K (nth [::] gs m).

Hypothesis ok : affines_ok d (n :: ws) K D T.
Hypothesis sx : forall m : 'I_M.+1, size (nth [::] xs m) = d.
Hypothesis sg : forall m : 'I_M.+1, size (nth [::] gs m) = K.
Hypothesis c0 : c != 0.

Definition delta_z (m : nat) : seq Z :=
  head [::] (backz (above As) (states As (nth [::] xs m)) (nth [::] gs m)).

Let s := c * lacking R (n :: ws) T.

Lemma s_neq0 : s != 0.
Proof. by rewrite mulf_neq0 // (lacking_neq0 R ok). Qed.

Lemma Delta1_net : Delta1 N x g = \matrix_(j < n, m < M.+1) (s * er R (nth Z0 (delta_z m) j)).
Proof. by apply/matrixP => j m; rewrite [LHS]mxE /N /x /g (delta1_net c ok (sx m) (sg m)) !mxE. Qed.

Variable Dp : ints.
Hypothesis Dp_ok : forall m : 'I_M.+1, reduced p n (nth [::] Dp m) (delta_z m).

Lemma rank_Delta1 B : has_rank p M.+1 n Dp B -> \rank (Delta1 N x g) = M.+1.
Proof.
move=> okB; apply/eqP; rewrite eqn_leq rank_leq_col Delta1_net.
have -> : \matrix_(j < n, m < M.+1) (s * er R (nth Z0 (delta_z m) j)) =
    s *: (\matrix_(m < M.+1, j < n) er R (nth Z0 (delta_z m) j))^T by apply/matrixP => j m; rewrite !mxE.
rewrite mxrank_scale_nz ?s_neq0 // mxrank_tr.
by apply: (minor_columns p_ok R okB) => m j; case: (Dp_ok m) => _ _ _; apply.
Qed.

Lemma D_neq0 : er R D != 0.
Proof. by case/andP: ok => /and5P[]; rewrite -(er_gt0 R) => /lt0r_neq0. Qed.

Lemma rank_first B B' : size xs = M.+1 -> has_rank p M.+1 n Dp B -> has_rank p M.+1 (d + 1) (lifts p D xs) B' ->
  \rank (gradmx (gsum N x g)) = M.+1.
Proof.
move=> sxs okB okB'; rewrite gradmxE mxrankMfree; first exact: rank_Delta1 okB.
by rewrite /row_free (rank_lifts p_ok D_neq0 sxs sx okB').
Qed.

(* R, its rows for the neurons: V is k x n, Vp modulo p. *)
Definition system_ok (k : nat) (Vp : ints) (neurons dropped : seq nat) (inv : ints) : bool :=
  lifted_ok n M k p neurons (monomials M k dropped)
    [seq [seq nth 0%uint63 dl j | dl <- Dp] | j <- neurons]
    [seq [seq nth 0%uint63 w j | w <- Vp] | j <- neurons] inv.

Lemma rank_system k (C : 'M[R]_(head K ws, k)) (V : nat -> seq Z) Vp neurons dropped inv :
  size Dp = M.+1 -> size Vp = k -> (forall i, (i < k)%N -> reduced p n (nth [::] Vp i) (V i)) ->
  (w1 N.2)^T *m C = \matrix_(j < n, i < k) (s * er R (nth Z0 (V i) j)) ->
  system_ok k Vp neurons dropped inv ->
  (#|mono M.+1 k| - M.+1 <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N.
Proof.
move=> sD sV redV VE okL.
apply: (rank_lifted_ok p_ok (s := s) (B := fun m j => nth Z0 (delta_z m) j)
  (V := fun i j => nth Z0 (V i) j) s_neq0 okL); rewrite ?size_map //.
  move=> i lt_i; have /and5P[/allP lt_n _ _ _ _] := okL.
  have jn : (nth 0%N neurons i < n)%N by rewrite lt_n // mem_nth.
  split=> [a aM|e ek]; rewrite /entry (nth_map 0%N) // (nth_map [::]) ?sD ?sV //.
    have [sz _ /(all_nthP 0%uint63) sm E] := Dp_ok (Ordinal (aM : (a < M.+1)%N)).
    by split; [apply: sm; rewrite sz | exact: E].
  have [sz _ /(all_nthP 0%uint63) sm E] := redV e ek.
  by split; [apply: sm; rewrite sz | exact: E].
by rewrite Delta1_net VE.
Qed.

End Layer.

(* Which unknowns the next deltas have: all entries; all but the last, where  *)
(* they sum to zero; coordinates in the next layer's deltas, with minors for  *)
(* the ranks of these and of [H 1].                                           *)
Inductive unknowns := AllEntries | SumZero | NextDeltas of minor & minor.

Definition plain (u : unknowns) : bool := if u is SumZero then false else true.

Record argument := Argument {
  choice : unknowns; deltas_minor : minor; inputs_minor : minor;
  neurons : seq nat; dropped : seq nat; system_inverse : ints }.

Section FirstLayer.

Variables (p : word) (d n : nat) (ws : seq nat) (K : nat) (D : Z) (M : nat).
Variables (As : seq affine) (xs : integers) (zs : seq integers) (ds : seq ints).

Definition next_columns (u : unknowns) : nat :=
  match u with AllEntries => head K ws | SumZero => (head K ws).-1 | NextDeltas _ _ => M.+1 end.

Definition next_weights (u : unknowns) : ints :=
  let W := residues p (head [::] (above As)) in
  match u with
  | AllEntries => W
  | SumZero => let w := last [::] W in
      [seq [seq fma p (residue p (Z.neg xH)) ab.1 ab.2 | ab <- zip w v] | v <- take (head K ws).-1 W]
  | NextDeltas _ _ => [seq pullp p W (nth [::] dm 1) n | dm <- ds]
  end.

Definition choice_ok (u : unknowns) : bool :=
  match u with
  | AllEntries => true
  | SumZero => nilp ws && (0 < K)%N
  | NextDeltas B B' =>
      has_rank p M.+1 (head K ws) [seq nth [::] dm 1 | dm <- ds] B &&
      has_rank p M.+1 (n + 1) (lifts p (out (head (Affine [::] [::] Z0 Z0 Z0) As)) [seq rect (head [::] z) | z <- zs]) B'
  end.

Definition argument_ok (E : argument) : bool :=
  let Dp := [seq head [::] dm | dm <- ds] in
  [&& has_rank p M.+1 n Dp (deltas_minor E),
      has_rank p M.+1 (d + 1) (lifts p D xs) (inputs_minor E),
      choice_ok (choice E) &
      system_ok p n M Dp (next_columns (choice E)) (next_weights (choice E))
        (neurons E) (dropped E) (system_inverse E)].

End FirstLayer.

Lemma all_deltasE p As xs gs m : (m < size xs)%N -> size gs = size xs ->
  nth [::] (all_deltas p As (all_states As xs) gs) m =
  backp p [seq residues p W | W <- above As] (states As (nth [::] xs m)) [seq residue p v | v <- nth [::] gs m].
Proof.
move=> lt_m sgs; rewrite (nth_map ([::], [::])) ?size_zip ?size_map ?sgs ?minnn //.
by rewrite nth_zip ?size_map ?sgs //= (nth_map [::]).
Qed.

Lemma size_all_deltas p As xs gs : size gs = size xs ->
  size (all_deltas p As (all_states As xs) gs) = size xs.
Proof. by move=> sgs; rewrite size_map size_zip size_map sgs minnn. Qed.

Section Settled.

Variables (R : realFieldType) (p : word) (p_ok : modulus_ok p).
Variables (d n : nat) (ws : seq nat) (K : nat) (D : Z) (T : seq (tensor * tensor)).
Variables (M : nat) (xs gs : integers) (c : R).

Let As := affines d (n :: ws) K D T.
Let N := net R d (n :: ws) K T.
Let x (m : 'I_M.+1) := vec R d D (nth [::] xs m).
Let g (m : 'I_M.+1) := c *: ivec R K (nth [::] gs m).
Let zs := all_states As xs.
Let ds := all_deltas p As zs gs.

Hypothesis ok : affines_ok d (n :: ws) K D T.
Hypothesis sxs : size xs = M.+1.
Hypothesis sgs : size gs = M.+1.
Hypothesis sx : forall m : 'I_M.+1, size (nth [::] xs m) = d.
Hypothesis sg : forall m : 'I_M.+1, size (nth [::] gs m) = K.
Hypothesis c0 : c != 0.

Let Dp := [seq head [::] dm | dm <- ds].

Lemma Dp_reduced (m : 'I_M.+1) : reduced p n (nth [::] Dp m) (delta_z d n ws K D T xs gs m).
Proof.
rewrite (nth_map [::]) ?size_all_deltas ?sxs ?sgs // all_deltasE ?sxs ?sgs //.
exact: (reduced_back p_ok d (n :: ws) D T _ (sg m)).
Qed.

(* The layers above the first. *)
Let As' := affines n ws K (out (affine_of n d D (first T))) (behead T).
Let x2 (m : 'I_M.+1) := rect (head [::] (states As (nth [::] xs m))).
Let d2 (m : nat) := head [::] (backz (above As') (states As' (rect (head [::] (states As (nth [::] xs m))))) (nth [::] gs m)).

Lemma d2_reduced (m : 'I_M.+1) : reduced p (head K ws) (nth [::] (nth [::] ds m) 1) (d2 m).
Proof.
rewrite all_deltasE ?sxs ?sgs //.
have := reduced_back p_ok n ws (out (affine_of n d D (first T))) (behead T)
  (rect (head [::] (states As (nth [::] xs m)))) (sg m).
rewrite /d2 /As /= -/As'; have := affinesE n ws K (out (affine_of n d D (first T))) (behead T).
by rewrite -/As'; set As2 := behead As'; move=> ->.
Qed.

Definition settled (G : 'cV[R]_K -> Prop) : Prop :=
  forall x' g', (forall m, G (g' m)) -> gsum N x' g' = gsum N x g ->
  exists s : 'S_M.+1, state_same_upto N x x' g g' s.

Lemma W2_rows : head [::] (above As) = table (head K ws) n (first (behead T)).1.
Proof. by rewrite /As /= affinesE. Qed.

Lemma reduced_row i : (i < head K ws)%N ->
  reduced p n (nth [::] (residues p (head [::] (above As))) i)
    (nth [::] (table (head K ws) n (first (behead T)).1) i).
Proof.
move=> lt_i; have shW := table_shaped (head K ws) n (first (behead T)).1.
rewrite W2_rows (nth_map [::]) ?shW.1 // -{1}(shW.2 i lt_i); exact: reduced_residue.
Qed.

Lemma delta2_net (m : 'I_M.+1) : delta2 N (x m) (g m) = (c * lacking R ws (behead T)) *: ivec R (head K ws) (d2 m).
Proof.
have okA : affine_ok D (first T) (affine_of n d D (first T)) by case/andP: ok.
have ok' : affines_ok n ws K (out (affine_of n d D (first T))) (behead T) by case/andP: ok.
rewrite /delta2 /act /= (applyE R okA (sx m)) relu_vec ?(out_gt0 okA) ?size_apply //.
by rewrite (delta1_net c ok') ?size_rect ?size_apply.
Qed.

Lemma settled_by E : argument_ok p d n ws K D M As xs zs ds E ->
  plain (choice E) -> settled (fun _ => True).
Proof.
case/and4P=> okD okX okC okS pl x' g' _ same.
have rA := rank_first p_ok ok sx sg c0 Dp_reduced sxs okD okX.
pose s := c * lacking R (n :: ws) T.
have E0 : er R (denominator (first (behead T)).1) != 0.
  by case/andP: ok => _; apply: denominator_neq0.
have sDp : size Dp = M.+1 by rewrite size_map size_all_deltas ?sxs ?sgs.
suff [k [C [conf rR]]] : exists k, exists C : 'M[R]_(head K ws, k), confined N (fun _ => True) C x g /\
    (#|mono M.+1 k| - M.+1 <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N.
  by apply: C1 conf rA rR _ _ same.
case: (choice E) okC okS pl => [_ okS _|//|B B' /andP[okB okB'] okS _].
  exists (head K ws), ((s * er R (denominator (first (behead T)).1)) *: 1%:M); split.
    move=> y h _ _ m; exists ((s * er R (denominator (first (behead T)).1))^-1 *: delta2 N (y m) (h m)).
    by rewrite -scalemxAr -scalemxAl mul1mx scalerA mulVf ?scale1r // mulf_neq0 ?(s_neq0 ok c0).
  apply: (rank_system p_ok ok sx sg c0 Dp_reduced sDp _ _ _ okS (V := nth [::] (table (head K ws) n (first (behead T)).1))).
  - by rewrite /next_weights W2_rows size_map (table_shaped _ _ _).1.
  - exact: reduced_row.
  rewrite -scalemxAr mulmx1 w1_net; apply/matrixP => j i; rewrite !mxE.
  rewrite -(tableE (first (behead T)).1 (ltn_ord i) (ltn_ord j)).
  have cancel (t e a : R) : e != 0 -> t * e * (a / e) = t * a by move=> e0; field.
  exact: cancel.
have x2E (m : 'I_M.+1) : act N (x m) = vec R n (out (affine_of n d D (first T))) (x2 m).
  have okA : affine_ok D (first T) (affine_of n d D (first T)) by case/andP: ok.
  by rewrite /act /= (applyE R okA (sx m)) relu_vec ?(out_gt0 okA) ?size_apply.
have ok' : affines_ok n ws K (out (affine_of n d D (first T))) (behead T) by case/andP: ok.
pose s2 := c * lacking R ws (behead T); have s20 : s2 != 0 by rewrite mulf_neq0 // (lacking_neq0 R ok').
pose D2 := Delta1 N.2 (fun m => act N (x m)) g.
have D2E : D2 = \matrix_(i < head K ws, m < M.+1) (s2 * er R (nth Z0 (d2 m) i)).
  by apply/matrixP => i m; rewrite [LHS]mxE -/(delta2 N (x m) (g m)) delta2_net !mxE.
have rD2 : \rank D2 = M.+1.
  apply/eqP; rewrite eqn_leq rank_leq_col D2E.
  have -> : \matrix_(i < head K ws, m < M.+1) (s2 * er R (nth Z0 (d2 m) i)) =
      s2 *: (\matrix_(m < M.+1, i < head K ws) er R (nth Z0 (d2 m) i))^T by apply/matrixP => j m; rewrite !mxE.
  rewrite mxrank_scale_nz // mxrank_tr.
  apply: (minor_columns p_ok R okB) => m i; case: (d2_reduced m) => _ _ _ E2.
  by rewrite /entry (nth_map [::]) ?size_all_deltas ?sxs ?sgs // E2.
have rH : \rank (lift1 (fun m => act N (x m))) = M.+1.
  have -> : lift1 (fun m => act N (x m)) = lift1 (fun m : 'I_M.+1 => vec R n (out (affine_of n d D (first T)))
      (nth [::] [seq rect (head [::] z) | z <- zs] m)).
    by congr row_mx; congr trmx; apply: eq_cols => m; rewrite x2E (nth_map [::]) ?size_map ?sxs // (nth_map [::]) ?sxs.
  apply: (rank_lifts p_ok _ _ _ okB') => [|| m]; rewrite ?size_map //.
    by case/andP: ok => /out_gt0; rewrite -(er_gt0 R) => /lt0r_neq0.
  by rewrite (nth_map [::]) ?size_map ?sxs // (nth_map [::]) ?sxs // ?size_rect size_apply.
exists M.+1, D2; split.
  apply: confined_next_layer; rewrite gsum_tail gradmxE.
    by rewrite mxrankMfree // /row_free rH.
  by rewrite trmx_mul submxMl.
apply: (rank_system p_ok ok sx sg c0 Dp_reduced sDp _ _ _ okS (V := fun m => pullz (table (head K ws) n (first (behead T)).1) (d2 m) n)).
- by rewrite size_map size_all_deltas ?sxs ?sgs.
- move=> m lt_m; rewrite (nth_map [::]) ?size_all_deltas ?sxs ?sgs // W2_rows.
  apply: (reduced_pull p_ok (table_shaped _ _ _)); exact: (d2_reduced (Ordinal lt_m)).
rewrite w1_net D2E; apply/matrixP => j m; rewrite !mxE.
rewrite (pullzE R (table_shaped _ _ _)) ?mulr_sumr //; last by case: (d2_reduced m).
apply: eq_bigr => i _; rewrite !mxE (tableE _ (ltn_ord i) (ltn_ord j)) /s2 /s /=.
by move: (er R _) (er R _)^-1 (er R (nth _ _ _)) (lacking _ _ _) => a i' b l; ring.
Qed.

End Settled.

(* Squared error: loss vectors (f / F - y / Y) up to a factor. *)
Definition mse_vectors (F Y : Z) (f y : seq Z) : seq Z :=
  [seq Z.sub (Z.mul Y fy.1) (Z.mul F fy.2) | fy <- zip f y].

Lemma mse_vectorsE (R : realFieldType) K M (r : R) F Y f m : (m < M)%N ->
  Z.ltb Z0 F -> Z.ltb Z0 (denominator Y) -> size f = K ->
  let y := nth [::] (table M K Y) m in
  mse_lv r (vec R K F f) (colt R K Y m) =
    (r * 2%:R / (er R F * er R (denominator Y))) *: ivec R K (mse_vectors F (denominator Y) f y) /\
  size (mse_vectors F (denominator Y) f y) = K.
Proof.
move=> lt_m; rewrite -!(er_gt0 R) => /lt0r_neq0 F0 /lt0r_neq0 Y0 sf /=.
have sy := (table_shaped M K Y).2 m lt_m.
split; last by rewrite size_map size_zip sf sy minnn.
apply/colP => k; rewrite !mxE /mse_vectors (nth_map (Z0, Z0)) ?size_zip ?sf ?sy ?minnn //.
rewrite nth_zip ?sf ?sy //= -/(at2 (table M K Y) m k) (tableE Y lt_m (ltn_ord k)) erB !erM.
have arr (a b u v t : R) : u != 0 -> v != 0 -> t * (2%:R * (a / u - b / v)) = t * 2%:R / (u * v) * (v * a - u * b).
  by move=> u0 v0; field; rewrite ?u0 ?v0.
exact: arr.
Qed.

Lemma mse_lv_inj (R : realFieldType) K (r : R) (f y y' : 'cV[R]_K) :
  r != 0 -> mse_lv r f y' = mse_lv r f y -> y' = y.
Proof.
move=> r0 /(scalerI r0); have two : 2%:R != 0 :> R by rewrite pnatr_eq0.
by move=> /(scalerI two)/addrI/oppr_inj.
Qed.

(* All that is computed of one hidden layer and the squared error. *)
Definition unique_mse_ok (p : word) (d n K M : nat) (T : seq (tensor * tensor)) (X Y : tensor) (E : argument) : bool :=
  let D := denominator X in
  let xs := table M.+1 d X in
  let As := affines d [:: n] K D T in
  let zs := all_states As xs in
  let F := last D (map out As) in
  let gs := [seq mse_vectors F (denominator Y) (last [::] zy.1) zy.2 | zy <- zip zs (table M.+1 K Y)] in
  let ds := all_deltas p As zs gs in
  [&& modulus_ok p, affines_ok d [:: n] K D T, Z.ltb Z0 (denominator Y),
      plain (choice E) & argument_ok p d n [::] K D M As xs zs ds E].

Section Unique.

Variables (R : realFieldType) (d n K M : nat) (T : seq (tensor * tensor)) (X Y : tensor).
Let N := net R d [:: n] K T.
Let x (m : 'I_M.+1) := colt R d X m.
Let y (m : 'I_M.+1) := colt R K Y m.

Lemma samples_vec m : (m < M.+1)%N -> colt R d X m = vec R d (denominator X) (nth [::] (table M.+1 d X) m).
Proof.
by move=> lt_m; apply/colP => i; rewrite !mxE -(tableE X lt_m (ltn_ord i)).
Qed.

Theorem unique_mse (r : R) p E : r != 0 -> unique_mse_ok p d n K M T X Y E ->
  forall x' y', bgrad (mse_lv r) N x' y' = bgrad (mse_lv r) N x y -> same_batch x x' y y'.
Proof.
move=> r0 /and5P[p_ok ok Y0 pl okE] x' y' same.
set D := denominator X in ok okE; set xs := table M.+1 d X in okE; set As := affines d [:: n] K D T in okE.
set zs := all_states As xs in okE; set F := last D (map out As) in okE; set gs := [seq _ | _ <- _] in okE.
have sxs : size xs = M.+1 := (table_shaped M.+1 d X).1.
have sgs : size gs = M.+1 by rewrite !size_map size_zip !size_map !size_iota minnn.
have sx (m : 'I_M.+1) : size (nth [::] xs m) = d by exact: (table_shaped M.+1 d X).2.
have F0 : Z.ltb Z0 F by case/andP: ok => _ ok2; exact: (out_gt0 ok2).
have D0 : er R D != 0 by case/andP: ok => /and5P[]; rewrite -(er_gt0 R) => /lt0r_neq0.
pose c := r * 2%:R / (er R F * er R (denominator Y)).
have c0 : c != 0.
  rewrite !mulf_neq0 ?pnatr_eq0 // invr_neq0 // mulf_neq0 //.
    by move: F0; rewrite -(er_gt0 R) => /lt0r_neq0.
  by move: Y0; rewrite -(er_gt0 R) => /lt0r_neq0.
have lossE (m : 'I_M.+1) : mse_lv r (fwd N (x m)) (y m) = c *: ivec R K (nth [::] gs m) /\ size (nth [::] gs m) = K.
  rewrite /x (samples_vec (ltn_ord m)) (fwd_net R ok (sx m)) -/As -/F.
  have -> : nth [::] gs m = mse_vectors F (denominator Y) (last (nth [::] xs m) (states As (nth [::] xs m)))
      (nth [::] (table M.+1 K Y) m).
    rewrite (nth_map ([::], [::])) ?size_zip ?size_map ?size_iota ?minnn //.
    by rewrite nth_zip ?size_map ?size_iota // (nth_map [::]) ?sxs.
  apply: mse_vectorsE => //; exact: size_apply.
have sg m := (lossE m).2.
have same' : gsum N x' (lossvecs (mse_lv r) N x' y') =
    gsum N (fun m : 'I_M.+1 => vec R d D (nth [::] xs m)) (fun m : 'I_M.+1 => c *: ivec R K (nth [::] gs m)).
  rewrite -[LHS]/(bgrad (mse_lv r) N x' y') same; apply: eq_bigr => m _.
  by rewrite /lossvecs (lossE m).1 /x (samples_vec (ltn_ord m)).
have [s same_st] := settled_by p_ok ok sxs sgs sx sg c0 okE pl (fun _ => I) same'.
exists s => m; have [ex _ ed] := same_st m; rewrite -samples_vec // in ex; split=> //.
apply: (mse_lv_inj (f := fwd N (x (s m))) r0); rewrite (lossE (s m)).1.
by move: ed; rewrite /delta2 /= /lossvecs ex -/N -/(x (s m)).
Qed.

End Unique.
