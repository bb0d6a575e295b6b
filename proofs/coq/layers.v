(******************************************************************************)
(* One hidden layer of a batch, checked by computation: ranks of its deltas,  *)
(* inputs and lifted systems by minors modulo a machine integer               *)
(* (docs/theory.md, 3.1 to 3.6 and Appendix L3).                              *)
(*                                                                            *)
(*   monomials M k dropped   the lifted unknowns but those at the positions   *)
(*                   dropped                                                  *)
(*   minor           columns, and the transposed inverse of the minor there   *)
(*   quadratic_ok, system_ok   the rank of R, or of the system of degree      *)
(*                   three, for columns of deltas modulo p                    *)
(*   unknowns        what the next deltas are written in                      *)
(*   unknowns_known  these cover what any batch with this gradient has        *)
(*   rank_backward   labels that the next delta tells                         *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra all_fingroup ssrZ.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting cubic exact downward labels modular residues cubes tensors.

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

(* Coefficients of R in a ring, and in residues: B is M x n, V is k x n.      *)
Definition coder (A : ringType) (B V : nat -> nat -> A) (j : nat) (t : code) : A :=
  let: (quad, a, b) := t in
  if quad then (if a == b then 1 else 2%:R) * (B a j * B b j) else - (B a j * V b j).

Definition codep (p : word) (B V : seq word) (t : code) : word :=
  let: (quad, a, b) := t in
  let u := nth 0%uint63 B a in
  if quad then
    let v := nth 0%uint63 B b in
    if a == b then fma p u v 0 else fma p u v (fma p u v 0)
  else fma p (fma p (residue p (Z.neg xH)) u 0) (nth 0%uint63 V b) 0.

Lemma erN1 (S : ringType) : er S (Z.neg xH) = -1. Proof. exact: (erN S (Z.pos xH)). Qed.

Section Lifted.

Variables (R : realFieldType) (n M k : nat).
Variables (p : word) (p_ok : modulus_ok p).
Variables (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R}).
Hypothesis iota_inj : injective iota.

(* s and t: the factors of the columns of B and of V. *)
Definition code_factor (s t : nat -> R) (cd : code) : R := let: (quad, a, b) := cd in s a * (if quad then s b else t b).

Lemma lcoef_code (s t : nat -> R) (B V : nat -> nat -> A) (j : 'I_n) cd : code_ok M k cd ->
  lcoef (\matrix_(i < n, m < M.+1) (s m * iota (B m i))) (\matrix_(i < n, c < k) (t c * iota (V c i))) j
    (monomial M k cd) = code_factor s t cd * iota (coder B V j cd).
Proof.
case: cd => [[[] a] b] /=.
  case/andP=> ab bM; have aM := leq_trans ab bM; rewrite val_insubd /= !inordK // ab.
  rewrite -val_eqE /= !inordK // !mxE !inordK // !rmorphM mulrACA.
  by case: eqP => _; rewrite ?rmorph1 ?rmorph_nat ?mul1r ?mulr1n // mulr_natl mulrnAr.
case/andP=> aM bk; rewrite insubT /= !mxE !inordK //.
by rewrite rmorphN rmorphM mulrACA mulrN.
Qed.

Lemma codepE (B V : nat -> nat -> A) (j : nat) (u v : seq word) cd : code_ok M k cd ->
  (forall a, (a <= M)%N -> small p (nth 0%uint63 u a) /\ eu p (nth 0%uint63 u a) = phi (B a j)) ->
  (forall c, (c < k)%N -> small p (nth 0%uint63 v c) /\ eu p (nth 0%uint63 v c) = phi (V c j)) ->
  eu p (codep p u v cd) = phi (coder B V j cd).
Proof.
case: cd => [[[] a] b] /= ok uE vE.
  have [ab bM] := andP ok; have [sa aE] := uE a (leq_trans ab bM); have [sb bE] := uE b bM.
  case: eqP => _; rewrite !fmaE ?small0 ?fma_small // eu0 addr0 aE bE !rmorphM ?rmorph1 ?mul1r //.
  by rewrite rmorph_nat mulr_natl mulr2n.
have [aM bk] := andP ok; have [sa aE] := uE a aM; have [sb bE] := vE b bk.
rewrite !fmaE ?small0 ?fma_small ?residue_small // eu0 !addr0 aE bE residueE // rmorphN rmorphM.
by rewrite erN1 mulN1r mulNr.
Qed.

(* free: the dimension that the null space may have. *)
Definition lifted_ok (free : nat) (neurons : seq nat) (codes : seq code) (u v : seq (seq word)) (inv : ints) : bool :=
  [&& all (fun j => j < n)%N neurons, all (code_ok M k) codes, size codes == size neurons,
      ((M.+1 * M.+2)./2 + M.+1 * k <= size neurons + free)%N &
      inverse_ok p (size neurons)
        [seq [seq codep p uv.1 uv.2 t | t <- codes] | uv <- zip u v] inv].

(* u, v: for each of the neurons its deltas, and its entries of V. *)
Lemma rank_lifted_ok (s t : nat -> R) (B V : nat -> nat -> A) free neurons codes u v inv :
  (forall i, s i != 0) -> (forall i, t i != 0) -> lifted_ok free neurons codes u v inv ->
  size u = size neurons -> size v = size neurons ->
  (forall i, (i < size neurons)%N -> let j := nth 0%N neurons i in
    (forall a, (a <= M)%N -> small p (entry u i a) /\ eu p (entry u i a) = phi (B a j)) /\
    (forall c, (c < k)%N -> small p (entry v i c) /\ eu p (entry v i c) = phi (V c j))) ->
  forall E, E = lifted (\matrix_(i < n, m < M.+1) (s m * iota (B m i)))
                       (\matrix_(i < n, c < k) (t c * iota (V c i))) ->
  (#|mono M.+1 k| - free <= \rank E)%N.
Proof.
move=> s0 t0 /and5P[/allP lt_n /allP okc /eqP sc enough inv_ok] su sv uvE E EE.
set r := size neurons in sc enough inv_ok su sv uvE.
apply: (@leq_trans r); first by rewrite leq_subLR addnC card_mono.
have [->|r_gt0] := posnP r; first by [].
have n_gt0 : (0 < n)%N by apply: leq_ltn_trans (lt_n (nth 0%N neurons 0) _); rewrite ?mem_nth.
pose f (i : 'I_r) : 'I_n := insubd (Ordinal n_gt0) (nth 0%N neurons i).
have fE i : (f i : nat) = nth 0%N neurons i by rewrite val_insubd lt_n // mem_nth.
pose cd0 : code := (true, 0%N, 0%N); pose g (i : 'I_r) := nth cd0 codes i.
have okg i : code_ok M k (g i) by apply: okc; rewrite mem_nth ?sc.
apply: leq_trans (rank_mxsub f (fun i => enum_rank (monomial M k (g i))) E).
have -> : mxsub f (fun i => enum_rank (monomial M k (g i))) E =
    \matrix_(i < r, l < r) (code_factor s t (g l) * iota (coder B V (f i) (g l))).
  by rewrite EE; apply/matrixP => i l; rewrite !mxE enum_rankK lcoef_code.
rewrite rank_scaled; last by move=> l; case: (g l) => [[[] a] b] /=; rewrite mulf_neq0.
apply: (minor_rank p_ok iota_inj (E := fun i l => coder B V (f i) (g l)) (f := id) (g := id) inv_ok) => i l.
have szuv : size (zip u v) = r by rewrite size_zip su sv minnn.
rewrite /entry (nth_map ([::], [::])) ?szuv // (nth_map cd0) ?sc // nth_zip ?su ?sv //=.
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

(* us: the loss vectors up to a factor of each sample, modulo p. *)
Definition all_deltas p (As : seq affine) (zs : seq integers) (us : ints) : seq ints :=
  let Ws := [seq residues p W | W <- above As] in [seq backp p Ws zu.1 zu.2 | zu <- zip zs us].

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
apply: (minor_columns p_ok (phi := er_rmorphism _) (iota := er_rmorphism R) (@er_inj R) okB) => m i.
rewrite /entry /lifts (nth_map [::]) ?sxs // (nth_map Z0).
  by rewrite residueE.
by rewrite size_rcons sx -[d.+1]addn1; apply: ltn_ord.
Qed.

Section Layer.

Variables (R : realFieldType) (p : word) (p_ok : modulus_ok p).
Variables (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R}).
Variables (d n : nat) (ws : seq nat) (K : nat) (D : Z) (T : seq (tensor * tensor)).
Variables (M : nat) (xs : integers) (gs : seq (seq A)) (c : nat -> R).

Let As := affines d (n :: ws) K D T.
Let N := net R d (n :: ws) K T.
Let x (m : 'I_M.+1) := vec R d D (nth [::] xs m).
Let g (m : 'I_M.+1) := c m *: rvec iota K (nth [::] gs m).

Hypothesis iota_inj : injective iota.
Hypothesis ok : affines_ok (n :: ws) D T.
Hypothesis sx : forall m : 'I_M.+1, size (nth [::] xs m) = d.
Hypothesis sg : forall m : 'I_M.+1, size (nth [::] gs m) = K.
Hypothesis c0 : forall m, c m != 0.

Definition delta_r (m : nat) : seq A :=
  head [::] (backr A (above As) (states As (nth [::] xs m)) (nth [::] gs m)).

Let s m := c m * lacking R (n :: ws) T.

Lemma s_neq0 m : s m != 0.
Proof. by rewrite mulf_neq0 // (lacking_neq0 R ok). Qed.

Lemma Delta1_net : Delta1 N x g = \matrix_(j < n, m < M.+1) (s m * iota (nth 0 (delta_r m) j)).
Proof. by apply/matrixP => j m; rewrite [LHS]mxE /N /x /g (delta1_net iota (c m) ok (sx m) (sg m)) !mxE. Qed.

Variable Dp : ints.
Hypothesis Dp_ok : forall m : 'I_M.+1, reduced 0 phi n (nth [::] Dp m) (delta_r m).

Lemma rank_Delta1 B : has_rank p M.+1 n Dp B -> \rank (Delta1 N x g) = M.+1.
Proof.
move=> okB; apply/eqP; rewrite eqn_leq rank_leq_col Delta1_net.
rewrite (rank_scaled (t := fun m : 'I_M.+1 => s m) (fun j m => iota (nth 0 (delta_r m) j))) => [|m]; last exact: s_neq0.
have -> : \matrix_(j < n, m < M.+1) iota (nth 0 (delta_r m) j) =
    (\matrix_(m < M.+1, j < n) iota (nth 0 (delta_r m) j))^T by apply/matrixP => j m; rewrite !mxE.
rewrite mxrank_tr; apply: (minor_columns p_ok iota_inj okB) => m j.
by case: (Dp_ok m) => _ _ _; apply.
Qed.

Lemma D_neq0 : er R D != 0.
Proof. by case/andP: ok => /and5P[]; rewrite -(er_gt0 R) => /lt0r_neq0. Qed.

Lemma rank_first B B' : size xs = M.+1 -> has_rank p M.+1 n Dp B -> has_rank p M.+1 (d + 1) (lifts p D xs) B' ->
  \rank (gradmx (gsum N x g)) = M.+1.
Proof.
move=> sxs okB okB'; rewrite gradmxE mxrankMfree; first exact: rank_Delta1 okB.
by rewrite /row_free (rank_lifts p_ok D_neq0 sxs sx okB').
Qed.

(* R, its rows for the neurons: V is k x n, Vp modulo p. With equations, the  *)
(* system of degree three, its rows these multiples of the neurons' products. *)
Definition chosen (A : ints) (neurons : seq nat) : ints := [seq [seq nth 0%uint63 r j | r <- A] | j <- neurons].

Definition quadratic_ok (k free : nat) (Vp : ints) (neurons dropped : seq nat) (inv : ints) : bool :=
  lifted_ok n M k p free neurons (monomials M k dropped) (chosen Dp neurons) (chosen Vp neurons) inv.

Definition system_ok (k free free3 : nat) (Vp : ints) (neurons equations dropped : seq nat) (inv : ints) : bool :=
  let B := chosen Dp neurons in
  let V := chosen Vp neurons in
  if nilp equations then quadratic_ok k free Vp neurons dropped inv
  else cubic_ok n M k p free3 neurons equations (codes3_but M k dropped)
    [seq b ++ nseq k 0%uint63 | b <- B]
    [seq bv.1 ++ [seq fma p (residue p (Z.neg xH)) w 0 | w <- bv.2] | bv <- zip B V] inv.

(* free, free3: the dimensions that the null spaces may have. *)
Definition enough k (free free3 : nat) (B : 'M[R]_(n, M.+1)) (V : 'M[R]_(n, k)) : Prop :=
  (#|mono M.+1 k| - free <= \rank (lifted B V))%N \/ (#|mono3 M.+1 k| - free3 <= \rank (cubic B V))%N.

Lemma rank_quadratic k (C : 'M[R]_(head K ws, k)) (t : nat -> R) (V : nat -> seq A) Vp free neurons dropped inv :
  (forall i, t i != 0) ->
  size Dp = M.+1 -> size Vp = k -> (forall i, (i < k)%N -> reduced 0 phi n (nth [::] Vp i) (V i)) ->
  (w1 N.2)^T *m C = \matrix_(j < n, i < k) (t i * iota (nth 0 (V i) j)) ->
  quadratic_ok k free Vp neurons dropped inv ->
  (#|mono M.+1 k| - free <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N.
Proof.
move=> t0 sD sV redV VE okL.
apply: (rank_lifted_ok p_ok iota_inj (s := s) (t := t) (B := fun m j => nth 0 (delta_r m) j)
  (V := fun i j => nth 0 (V i) j) s_neq0 t0 okL); rewrite ?size_map //.
  move=> i lt_i; have /and5P[/allP lt_n _ _ _ _] := okL.
  have jn : (nth 0%N neurons i < n)%N by rewrite lt_n // mem_nth.
  split=> [a aM|e ek]; rewrite /entry /chosen (nth_map 0%N) // (nth_map [::]) ?sD ?sV //.
    have [sz _ /(all_nthP 0%uint63) sm E] := Dp_ok (Ordinal (aM : (a < M.+1)%N)).
    by split; [apply: sm; rewrite sz | exact: E].
  have [sz _ /(all_nthP 0%uint63) sm E] := redV e ek.
  by split; [apply: sm; rewrite sz | exact: E].
by rewrite Delta1_net VE.
Qed.

Lemma rank_system k (C : 'M[R]_(head K ws, k)) (t : nat -> R) (V : nat -> seq A) Vp free free3 neurons equations dropped inv :
  (forall i, t i != 0) ->
  size Dp = M.+1 -> size Vp = k -> (forall i, (i < k)%N -> reduced 0 phi n (nth [::] Vp i) (V i)) ->
  (w1 N.2)^T *m C = \matrix_(j < n, i < k) (t i * iota (nth 0 (V i) j)) ->
  system_ok k free free3 Vp neurons equations dropped inv ->
  enough free free3 (Delta1 N x g) ((w1 N.2)^T *m C).
Proof.
move=> t0 sD sV redV VE; rewrite /system_ok; case: ifP => _ okL.
  by left; exact: (rank_quadratic t0 sD sV redV VE okL).
right; rewrite VE Delta1_net.
pose S a := if (a < M.+1)%N then s a else t (a - M.+1)%N.
pose P j a := if (a < M.+1)%N then nth 0 (delta_r a) j else 0 : A.
pose Q j a := if (a < M.+1)%N then nth 0 (delta_r a) j else - nth 0 (V (a - M.+1)%N) j : A.
have S0 a : S a != 0 by rewrite /S; case: ifP; rewrite ?s_neq0.
apply: (rank_cubic_ok p_ok iota_inj (S := S) (P := P) (Q := Q) S0 okL); rewrite ?size_map ?size_zip ?size_map ?minnn //.
- move=> i lt_i; have /and5P[/allP lt_n _ _ _ _] := okL.
  have jn : (nth 0%N neurons i < n)%N by rewrite lt_n // mem_nth.
  have atB a : (a < M.+1)%N -> small p (nth 0%uint63 (nth [::] Dp a) (nth 0%N neurons i)) /\
      eu p (nth 0%uint63 (nth [::] Dp a) (nth 0%N neurons i)) = phi (nth 0 (delta_r a) (nth 0%N neurons i)).
    move=> aM; have [sz _ /(all_nthP 0%uint63) sm E] := Dp_ok (Ordinal aM).
    by split; [apply: sm; rewrite sz | exact: E].
  split=> a aN; rewrite /entry /P /Q.
    rewrite (nth_map [::]) ?size_map // (nth_map 0%N) // nth_cat size_map sD.
    case: ifP => [aM|_]; first by rewrite (nth_map [::]) ?sD //; exact: atB.
    by rewrite nth_nseq if_same small0 // eu0 rmorph0.
  rewrite (nth_map ([::], [::])) ?size_zip ?size_map ?minnn // nth_zip ?size_map //.
  rewrite !(nth_map 0%N) // nth_cat size_map sD.
  case: ifP => [aM|/negbT]; first by rewrite (nth_map [::]) ?sD //; exact: atB.
  rewrite -leqNgt => Ma; have ak : (a - M.+1 < k)%N by rewrite ltn_subLR.
  rewrite -map_comp (nth_map [::]) ?sV //=.
  have [sz _ /(all_nthP 0%uint63) sm E] := redV _ ak.
  rewrite fma_small //; split=> //; rewrite fmaE ?small0 ?residue_small //; last by apply: sm; rewrite sz.
  by rewrite eu0 addr0 residueE // erN1 mulN1r rmorphN E.
- move=> j a; rewrite mxE /S /P; case: splitP => b ->; rewrite !mxE //.
  by rewrite rmorph0 mulr0.
move=> j a; rewrite mxE /S /Q; case: splitP => b ->; rewrite !mxE //.
by rewrite addKn rmorphN mulrN.
Qed.

End Layer.

(* Which unknowns the next deltas have: all entries; all but the last, where  *)
(* they sum to zero; coordinates in the next layer's deltas, with minors for  *)
(* the ranks of these and of [H 1]. One sample alone needs none.              *)
Inductive unknowns := AllEntries | SumZero | NextDeltas of minor & minor | Alone.

Definition plain (u : unknowns) : bool := if u is SumZero then false else true.
Definition alone (u : unknowns) : bool := if u is Alone then true else false.

(* How labels are told: by the loss vectors, known at the last hidden layer;  *)
(* by the output layer's gradient, with a minor of the features below it; by  *)
(* the next delta, with a minor of each sample's map from loss vectors to it. *)
Inductive labels_by := LossVectors | OutputRank of minor | BackwardRank of seq minor.

Section FirstLayer.

Variables (p : word) (d n : nat) (ws : seq nat) (K : nat) (D : Z) (M : nat).
Variables (As : seq affine) (xs : integers) (zs : seq integers) (ds : seq ints).

Definition next_columns (u : unknowns) : nat :=
  match u with AllEntries => head K ws | SumZero => (head K ws).-1 | NextDeltas _ _ => M.+1 | Alone => 0%N end.

Definition next_weights (u : unknowns) : ints :=
  let W := residues p (head [::] (above As)) in
  match u with
  | AllEntries => W
  | SumZero => let w := last [::] W in
      [seq [seq fma p (residue p (Z.neg xH)) ab.1 ab.2 | ab <- zip w v] | v <- take (head K ws).-1 W]
  | NextDeltas _ _ => [seq pullp p W (nth [::] dm 1) n | dm <- ds]
  | Alone => [::]
  end.

Definition choice_ok (u : unknowns) : bool :=
  match u with
  | AllEntries => true
  | SumZero => nilp ws && (0 < K)%N
  | NextDeltas B B' =>
      has_rank p M.+1 (head K ws) [seq nth [::] dm 1 | dm <- ds] B &&
      has_rank p M.+1 (n + 1) (lifts p (out (head (Affine [::] [::] Z0 Z0 Z0) As)) [seq rect (head [::] z) | z <- zs]) B'
  | Alone => M == 0%N
  end.

(* The unit vectors of the logits, and for each sample the rank of its map    *)
(* from loss vectors to the next delta.                                       *)
Definition unit_z (k : nat) : seq Z := [seq if j == k then Z.pos xH else Z0 | j <- iota 0 K].

Definition backward_words (z : integers) : ints :=
  let Ws := [seq residues p W | W <- above (behead As)] in
  [seq head [::] (backp p Ws (behead z) [seq residue p v | v <- unit_z k]) | k <- iota 0 K].

Definition backward_ok (Bs : seq minor) : bool :=
  (size Bs == size zs) && all (fun zB => has_rank p K (head K ws) (backward_words zB.1) zB.2) (zip zs Bs).

Definition told_at_layer (u : unknowns) (L : labels_by) : bool :=
  ~~ alone u && match L with LossVectors => nilp ws | BackwardRank Bs => backward_ok Bs | OutputRank _ => false end.

End FirstLayer.

Lemma all_deltasE p As xs us m : (m < size xs)%N -> size us = size xs ->
  nth [::] (all_deltas p As (all_states As xs) us) m =
  backp p [seq residues p W | W <- above As] (states As (nth [::] xs m)) (nth [::] us m).
Proof.
move=> lt_m sus; rewrite (nth_map ([::], [::])) ?size_zip ?size_map ?sus ?minnn //.
by rewrite nth_zip ?size_map ?sus //= (nth_map [::]).
Qed.

Lemma size_all_deltas p As xs us : size us = size xs ->
  size (all_deltas p As (all_states As xs) us) = size xs.
Proof. by move=> sus; rewrite size_map size_zip size_map sus minnn. Qed.

(* Columns that sum to zero have one coordinate less. *)
Section ZeroSums.

Variable R : realFieldType.

Definition zero_sums k : 'M[R]_(k, k.-1) :=
  \matrix_(i, j) ((i == j :> nat)%:R - (i == k.-1 :> nat)%:R).

Lemma sum_at k (f : 'I_k -> R) (j : 'I_k) : \sum_i f i * (i == j :> nat)%:R = f j.
Proof.
rewrite (bigD1 j) //= eqxx mulr1 big1 ?addr0 // => i ij.
by rewrite val_eqE (negPf ij) mulr0.
Qed.

Lemma zero_sumsP k (u : 'cV[R]_k) : \sum_i u i 0 = 0 -> exists p, u = zero_sums k *m p.
Proof.
case: k u => [|k] u; first by exists 0; apply/colP => -[].
rewrite big_ord_recr /= => sum0; exists (\col_(j < k) u (widen_ord (leqnSn k) j) 0).
apply/colP => i; rewrite mxE.
under eq_bigr => j _ do rewrite !mxE mulrBl.
rewrite sumrB -mulr_sumr; have [j ij|->] := unliftP ord_max i; last first.
  rewrite /= eqxx mul1r big1 ?sub0r; last by move=> j _; rewrite gtn_eqF ?ltn_ord ?mul0r.
  by apply/eqP; rewrite -addr_eq0 addrC; apply/eqP.
have iE : i = j :> nat by rewrite ij lift_max.
rewrite iE ltn_eqF ?ltn_ord // mul0r subr0.
under eq_bigr => l _ do rewrite mulrC eq_sym.
rewrite (sum_at (fun l => u (widen_ord (leqnSn k) l) 0)); congr (u _ _).
by apply: val_inj.
Qed.

Lemma sum_delta2 d n ws K (N : params R d (n :: ws) K) x g :
  ws = [::] -> \sum_i delta2 N x g i 0 = \sum_i g i 0.
Proof. by move=> ws0; move: N; rewrite ws0. Qed.

End ZeroSums.

Lemma alone_settled (R : realFieldType) d ws K (N : params R d ws K) M (x x' : 'I_M.+1 -> 'cV[R]_d) g g' :
  M = 0%N -> \rank (gradmx (gsum N x g)) = M.+1 -> gsum N x' g' = gsum N x g -> exists s : 'S_M.+1,
  forall m, x' m = x (s m) /\ delta1 N (x' m) (g' m) = delta1 N (x (s m)) (g (s m)).
Proof. by case: M x x' g g' => // x x' g g' _ rA E; exists 1%g => m; rewrite perm1; exact: single rA E m. Qed.

(* Above the last hidden layer, the next delta is the loss vector. *)
Lemma delta2_last (R : realFieldType) d n ws K (N : params R d (n :: ws) K) x g y h :
  ws = [::] -> delta2 N x g = delta2 N y h -> g = h.
Proof. by move=> ws0; move: N; rewrite ws0. Qed.

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

Let Dp := [seq head [::] dm | dm <- ds].

Lemma Dp_reduced (m : 'I_M.+1) : reduced 0 phi n (nth [::] Dp m) (delta_r d n ws K D T xs gs m).
Proof.
rewrite (nth_map [::]) ?size_all_deltas ?sxs ?sus // all_deltasE ?sxs ?sus //.
exact: (reduced_back p_ok d (n :: ws) D T _ (ug m)).
Qed.

(* The layers above the first. *)
Let As' := affines n ws K (out (affine_of n d D (first T))) (behead T).
Let x2 (m : 'I_M.+1) := rect (head [::] (states As (nth [::] xs m))).
Let d2 (m : nat) := head [::] (backr A (above As') (states As' (rect (head [::] (states As (nth [::] xs m))))) (nth [::] gs m)).

Lemma d2_reduced (m : 'I_M.+1) : reduced 0 phi (head K ws) (nth [::] (nth [::] ds m) 1) (d2 m).
Proof.
rewrite all_deltasE ?sxs ?sus //.
have := reduced_back p_ok n ws (out (affine_of n d D (first T))) (behead T)
  (rect (head [::] (states As (nth [::] xs m)))) (ug m).
rewrite /d2 /As /= -/As'; have := affinesE n ws K (out (affine_of n d D (first T))) (behead T).
by rewrite -/As'; set As2 := behead As'; move=> ->.
Qed.

Lemma W2_rows : head [::] (above As) = table (head K ws) n (first (behead T)).1.
Proof. by rewrite /As /= affinesE. Qed.

Lemma reduced_row i : (i < head K ws)%N ->
  reduced Z0 (er [ringType of 'Z_(Z.to_nat (to_Z p))]) n (nth [::] (residues p (head [::] (above As))) i)
    (nth [::] (table (head K ws) n (first (behead T)).1) i).
Proof.
move=> lt_i; have shW := table_shaped (head K ws) n (first (behead T)).1.
rewrite W2_rows (nth_map [::]) ?shW.1 // -{1}(shW.2 i lt_i); exact: reduced_residue.
Qed.

Lemma delta2_net (m : 'I_M.+1) : delta2 N (x m) (g m) = (c m * lacking R ws (behead T)) *: rvec iota (head K ws) (d2 m).
Proof.
have okA : affine_ok D (first T) by case/andP: ok.
have ok' : affines_ok ws (out (affine_of n d D (first T))) (behead T) by case/andP: ok.
rewrite /delta2 /act /= (applyE R okA (sx m)) relu_vec ?(out_gt0 okA) ?size_apply //.
by rewrite (delta1_net iota (c m) ok') ?size_rect ?size_apply.
Qed.

Lemma x2E (m : 'I_M.+1) : act N (x m) = vec R n (out (affine_of n d D (first T))) (x2 m).
Proof.
have okA : affine_ok D (first T) by case/andP: ok.
by rewrite /act /= (applyE R okA (sx m)) relu_vec ?(out_gt0 okA) ?size_apply.
Qed.

(* The choice of unknowns covers the next deltas of every batch with this     *)
(* gradient, and next_weights are the residues of the weights on them.        *)
Lemma unknowns_known u (G : 'cV[R]_K -> Prop) : choice_ok p n ws K M As zs ds u -> ~~ alone u ->
  (plain u \/ forall h, G h -> \sum_i h i 0 = 0) ->
  let k := next_columns ws K M u in
  exists C : 'M[R]_(head K ws, k), confined N G C x g /\ exists (t : nat -> R) (V : nat -> seq A),
    [/\ forall i, t i != 0, size (next_weights p n ws K As ds u) = k,
        forall i, (i < k)%N -> reduced 0 phi n (nth [::] (next_weights p n ws K As ds u) i) (V i) &
        (w1 N.2)^T *m C = \matrix_(j < n, i < k) (t i * iota (nth 0 (V i) j))].
Proof.
move=> okC nal Gsum /=.
set W := table (head K ws) n (first (behead T)).1; have shW : shaped (head K ws) n W := table_shaped _ _ _.
pose e := er R (denominator (first (behead T)).1).
have e0 : e != 0 by case/andP: ok => _; apply: denominator_neq0.
have one0 (i : nat) : 1 != 0 :> R by rewrite oner_eq0.
case: u nal okC Gsum => [_ _ _|_ /andP[/nilP ws0 K0] [//|Gsum]|B B' _ /andP[okB okB'] _|//]; rewrite /next_columns.
  exists (e *: 1%:M); split.
    move=> y h _ _ m; exists (e^-1 *: delta2 N (y m) (h m)).
    by rewrite -scalemxAr -scalemxAl mul1mx scalerA mulVf ?scale1r.
  exists (fun=> 1), (fun i => [seq er A z | z <- nth [::] W i]); split=> //.
  - by rewrite /next_weights W2_rows size_map shW.1.
  - by move=> i lt_i; apply: reduced_er; apply: reduced_row.
  rewrite -scalemxAr mulmx1 w1_net; apply/matrixP => j i; rewrite !mxE.
  rewrite -(tableE (first (behead T)).1 (ltn_ord i) (ltn_ord j)) mul1r (nth_map Z0) ?shW.2 // er_morph.
  by rewrite mulrC divfK.
  set k := head K ws; have k0 : (0 < k)%N by rewrite /k ws0.
  exists (e *: zero_sums R k); split.
    move=> y h Gh _ m; have [|q qE] := @zero_sumsP R k (delta2 N (y m) (h m)).
      by rewrite sum_delta2 // Gsum.
    by exists (e^-1 *: q); rewrite -scalemxAr -scalemxAl scalerA mulVf ?scale1r.
  pose V c' := [seq Z.sub zw.2 zw.1 | zw <- zip (nth [::] W k.-1) (nth [::] W c')].
  have lt_last : (k.-1 < k)%N by rewrite prednK.
  have sV c' : (c' < k)%N -> size (V c') = n by move=> lt_c; rewrite size_map size_zip !shW.2 ?minnn.
  exists (fun=> 1), (fun i => [seq er A z | z <- V i]); split=> //.
  - rewrite /next_weights W2_rows !size_map size_take size_map shW.1.
    by rewrite -/k lt_last.
  - move=> i lt_i; have ik : (i < k)%N := leq_trans lt_i (leq_pred k); apply: reduced_er.
    rewrite /next_weights -/k (nth_map [::]) ?nth_take //; last first.
      by rewrite size_take size_map W2_rows shW.1 lt_last.
    have -> : last [::] (residues p (head [::] (above As))) = nth [::] (residues p (head [::] (above As))) k.-1.
      by rewrite -nth_last size_map W2_rows shW.1.
    apply: (@reduced_zip p _ _ _ Z0 Z0 Z0 (er _) (er _) (er _) n (fma p (residue p (Z.neg xH))) (fun z w => Z.sub w z)).
    + move=> a b z w sa sb aE bE; rewrite fma_small // fmaE // ?residue_small // residueE // aE bE.
      by rewrite erN1 mulN1r erB addrC.
    + exact: reduced_row.
    exact: reduced_row.
  rewrite -scalemxAr w1_net; apply/matrixP => j c'; rewrite !mxE.
  have lt_c : (c' < k)%N := leq_trans (ltn_ord c') (leq_pred k).
  under eq_bigr => i _ do rewrite !mxE mulrBr.
  rewrite sumrB.
  rewrite (sum_at (fun i : 'I_k => er R (number (first (behead T)).1 i j) / e) (Ordinal lt_c)).
  rewrite (sum_at (fun i : 'I_k => er R (number (first (behead T)).1 i j) / e) (Ordinal lt_last)).
  rewrite -mulrBl mulrC divfK // mul1r (nth_map Z0) ?sV // er_morph /V (nth_map (Z0, Z0)) ?size_zip ?shW.2 // ?minnn //.
  rewrite nth_zip ?shW.2 //= erB; congr (_ - _); congr (er R _).
    exact: (esym (tableE _ lt_c (ltn_ord j))).
  exact: (esym (tableE _ lt_last (ltn_ord j))).
have ok' : affines_ok ws (out (affine_of n d D (first T))) (behead T) by case/andP: ok.
pose s2 m := c m * lacking R ws (behead T).
have s20 m : s2 m != 0 by rewrite mulf_neq0 // (lacking_neq0 R ok').
pose D2 := Delta1 N.2 (fun m => act N (x m)) g.
have D2E : D2 = \matrix_(i < head K ws, m < M.+1) (s2 m * iota (nth 0 (d2 m) i)).
  by apply/matrixP => i m; rewrite [LHS]mxE -/(delta2 N (x m) (g m)) delta2_net !mxE.
have rD2 : \rank D2 = M.+1.
  apply/eqP; rewrite eqn_leq rank_leq_col D2E.
  rewrite (rank_scaled (t := fun m : 'I_M.+1 => s2 m) (fun i m => iota (nth 0 (d2 m) i))) //.
  have -> : \matrix_(i < head K ws, m < M.+1) iota (nth 0 (d2 m) i) =
      (\matrix_(m < M.+1, i < head K ws) iota (nth 0 (d2 m) i))^T by apply/matrixP => j m; rewrite !mxE.
  rewrite mxrank_tr; apply: (minor_columns p_ok iota_inj okB) => m i; case: (d2_reduced m) => _ _ _ E2.
  by rewrite /entry (nth_map [::]) ?size_all_deltas ?sxs ?sus // E2.
have rH : \rank (lift1 (fun m => act N (x m))) = M.+1.
  have -> : lift1 (fun m => act N (x m)) = lift1 (fun m : 'I_M.+1 => vec R n (out (affine_of n d D (first T)))
      (nth [::] [seq rect (head [::] z) | z <- zs] m)).
    by congr row_mx; congr trmx; apply: eq_cols => m; rewrite x2E (nth_map [::]) ?size_map ?sxs // (nth_map [::]) ?sxs.
  apply: (rank_lifts p_ok _ _ _ okB') => [|| m]; rewrite ?size_map //.
    by case/andP: ok => okA _; have := @out_gt0 n d _ _ okA; rewrite -(er_gt0 R) => /lt0r_neq0.
  by rewrite (nth_map [::]) ?size_map ?sxs // (nth_map [::]) ?sxs // ?size_rect size_apply.
exists D2; split.
  apply: confined_next_layer; rewrite gsum_tail gradmxE.
    by rewrite mxrankMfree // /row_free rH.
  by rewrite trmx_mul submxMl.
exists (fun m => c m * lacking R (n :: ws) T), (fun m => pullr A W (d2 m) n).
split; first exact: (s_neq0 ok c0).
- by rewrite size_map size_all_deltas ?sxs ?sus.
- move=> m lt_m; rewrite (nth_map [::]) ?size_all_deltas ?sxs ?sus // W2_rows.
  apply: (reduced_pull p_ok shW); exact: (d2_reduced (Ordinal lt_m)).
rewrite w1_net D2E; apply/matrixP => j m; rewrite !mxE.
rewrite (pullrE iota shW) ?mulr_sumr //; last by case: (d2_reduced m).
apply: eq_bigr => i _; rewrite !mxE (tableE _ (ltn_ord i) (ltn_ord j)) /s2 /=.
by move: (er R _) (er R _)^-1 (iota _) (lacking _ _ _) => a i' b l; ring.
Qed.

(* The map from loss vectors to the next delta has rank K: labels by it.      *)
Lemma unit_zE k : (k < K)%N -> size (unit_z K k) = K /\ ivec R K (unit_z K k) = \col_j (j == k :> nat)%:R.
Proof.
move=> kK; split; first by rewrite size_map size_iota.
apply/colP => j; rewrite !mxE (nth_map 0%N) ?size_iota // nth_iota // add0n.
by case: eqP => _; rewrite /= ?er1 ?er0.
Qed.

Lemma rank_backward Bs (m : 'I_M.+1) : backward_ok p ws K As zs Bs -> \rank (backward N.2 (act N (x m))) = K.
Proof.
case/andP=> /eqP sB /(all_nthP ([::], Minor [::] [::])) okB; apply/eqP; rewrite eqn_leq rank_leq_col.
have szs : size zs = M.+1 by rewrite size_map sxs.
have := okB m; rewrite size_zip sB szs minnn ltn_ord nth_zip ?sB //= => /(_ isT) {}okB.
have ok' : affines_ok ws (out (affine_of n d D (first T))) (behead T) by case/andP: ok.
pose b k := head [::] (backr [comRingType of Z] (above As') (states As' (x2 m)) (unit_z K k)).
pose l := lacking R ws (behead T); have l0 : l != 0 := lacking_neq0 R ok'.
have bE : backward N.2 (act N (x m)) = \matrix_(j < head K ws, k < K) (l * er R (nth Z0 (b k) j)).
  apply/matrixP => j k; have [su uE] := unit_zE (ltn_ord k).
  have -> : backward N.2 (act N (x m)) j k = (backward N.2 (act N (x m)) *m (1 *: ivec R K (unit_z K k))) j 0.
    rewrite scale1r uE !mxE; under eq_bigr => i _ do rewrite mxE.
    by rewrite (sum_at (fun i => backward N.2 (act N (x m)) j i) k).
  rewrite -backwardE x2E (delta1_net (er_rmorphism R) 1 ok') ?size_rect ?size_apply //.
  by rewrite !mxE mul1r.
rewrite bE -mxrank_tr.
have -> : (\matrix_(j < head K ws, k < K) (l * er R (nth Z0 (b k) j)))^T =
    l *: \matrix_(k < K, j < head K ws) er R (nth Z0 (b k) j) by apply/matrixP => k j; rewrite !mxE.
rewrite mxrank_scale_nz //.
apply: (minor_columns p_ok (phi := er_rmorphism _) (iota := er_rmorphism R) (@er_inj R) okB) => k j.
have red : reduced Z0 (er_rmorphism [comRingType of 'Z_(Z.to_nat (to_Z p))]) K
    [seq residue p v | v <- unit_z K k] (unit_z K k).
  by have := reduced_residue p_ok (unit_z K k); rewrite (unit_zE (ltn_ord k)).1.
have := reduced_back (A := [comRingType of Z]) p_ok n ws (out (affine_of n d D (first T))) (behead T) (x2 m) red.
case=> _ _ _ /(_ j (ltn_ord j)) E; apply: etrans E; congr (eu p _).
by rewrite /entry (nth_map 0%N) ?size_iota // nth_iota // add0n (nth_map [::]) ?sxs.
Qed.

Lemma vectors_at_layer u L x' g1 (g' : 'I_M.+1 -> 'cV[R]_K) (s : 'S_M.+1) : told_at_layer p ws K As zs u L ->
  (forall m, x' m = x (s m) /\ (~~ alone u -> delta2 N (x' m) (g' m) = delta2 N (x (s m)) (g1 (s m)))) ->
  forall m, g' m = g1 (s m).
Proof.
case/andP=> nal okL st m; have [ex /(_ nal)] := st m; case: L okL => [/nilP ws0|//|Bs okB].
  exact: delta2_last.
by rewrite ex /delta2 !backwardE; apply: full_column_rank; exact: rank_backward okB.
Qed.

End Settled.

