(******************************************************************************)
(* What a gradient determines at one hidden layer: docs/theory.md, 3.1, 3.2.  *)
(*                                                                            *)
(*   gradmx G            [dW_1 | db_1]                                        *)
(*   factorisations      3.1: another batch has Delta' = Delta P, H' = Q H    *)
(*   factorisations_unique   for one P and one Q only                         *)
(*   same_upto       if P mixes nothing, the batches are equal up to order    *)
(*   act N x, delta2     the second layer's input and its delta               *)
(*   state_same_upto s   equal inputs, delta_1 and delta_2 up to the order s  *)
(*   confined G C x g    the next deltas of batches with this gradient lie in *)
(*                       the column space of C (u = C p, K' columns)          *)
(*   C1                  one rank determines them                             *)
(* Any hidden layer is the first one of the network topp N (network.v).       *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Factorisation.

Variables (R : realFieldType) (d : nat) (ws : seq nat) (K : nat) (N : params R d ws K).

Definition gradmx (G : params R d ws K) : 'M[R]_(head K ws, d + 1) := row_mx (w1 G) (b1 G).

Definition lift1 M (x : 'I_M -> 'cV[R]_d) : 'M[R]_(M, d + 1) := row_mx (cols x)^T (const_mx 1).

Lemma gradmxE M (x : 'I_M -> 'cV[R]_d) g :
  gradmx (gsum N x g) = Delta1 N x g *m lift1 x.
Proof. by rewrite /gradmx w1_gsum b1_gsum mul_mx_row. Qed.

(* Rank at least M is rank M: what a rank modulo p gives is enough. *)
Lemma rank_gradmx M (x : 'I_M -> 'cV[R]_d) g :
  (M <= \rank (gradmx (gsum N x g)))%N -> \rank (gradmx (gsum N x g)) = M.
Proof. by move=> rA; apply/eqP; rewrite eqn_leq rA gradmxE mulmx_max_rank. Qed.

(* 3.1; P is the inverse of Q, and the bias column gives Q 1 = 1. *)
Theorem factorisations M (x x' : 'I_M -> 'cV[R]_d) g g' :
  \rank (gradmx (gsum N x g)) = M -> gsum N x' g' = gsum N x g ->
  exists P Q : 'M[R]_M,
    [/\ P *m Q = 1%:M, Q *m P = 1%:M, Q *m const_mx 1 = const_mx 1 :> 'cV_M,
        Delta1 N x' g' = Delta1 N x g *m P & (cols x')^T = Q *m (cols x)^T].
Proof.
rewrite gradmxE => rA /(congr1 gradmx); rewrite !gradmxE => E.
have [P [Q [PQ QP D' /eqP]]] := two_factorisations rA E.
by rewrite /lift1 mul_mx_row => /eqP/eq_row_mx[-> one]; exists P, Q.
Qed.

(* Delta and [H 1] have rank M, so the batches fix P and Q. *)
Theorem factorisations_unique M (x x' : 'I_M -> 'cV[R]_d) g g' (P P1 Q Q1 : 'M[R]_M) :
  \rank (gradmx (gsum N x g)) = M ->
  Delta1 N x' g' = Delta1 N x g *m P -> Delta1 N x' g' = Delta1 N x g *m P1 ->
  lift1 x' = Q *m lift1 x -> lift1 x' = Q1 *m lift1 x -> P = P1 /\ Q = Q1.
Proof.
rewrite gradmxE => /rank_factors[rD rH] -> EP -> EQ; split; first exact: full_column_rank rD EP.
by have [L HL] := right_inverse rH; rewrite -[Q]mulmx1 -HL mulmxA EQ -mulmxA HL mulmx1.
Qed.

(* Whatever another batch does, its deltas lie in the column space of Delta. *)
Corollary delta_in_column_space M (x x' : 'I_M -> 'cV[R]_d) g g' :
  \rank (gradmx (gsum N x g)) = M -> gsum N x' g' = gsum N x g ->
  exists P : 'M[R]_M, Delta1 N x' g' = Delta1 N x g *m P.
Proof. by move=> rA E; have [P [Q [_ _ _ D' _]]] := factorisations rA E; exists P. Qed.

End Factorisation.

(* Two factorisations of one matrix, whose P mixes nothing. *)
Section Order.

Variable R : realFieldType.

(* Multiples of the columns of a permuted identity, with Q 1 = 1: a permutation. *)
Lemma monomial_permutation M (P Q : 'M[R]_M) (s : 'I_M -> 'I_M) (c : 'I_M -> R) :
  P *m Q = 1%:M -> Q *m const_mx 1 = const_mx 1 :> 'cV_M ->
  (forall m, col m P = c m *: delta_mx (s m) 0) ->
  injective s /\ (forall m, c m = 1).
Proof.
move=> PQ Q1 Pcol.
have P1 : P *m const_mx 1 = const_mx 1 :> 'cV_M by rewrite -{1}Q1 mulmxA PQ mul1mx.
have uP := unit_from_inverses PQ.
have cn0 m : c m != 0.
  by apply: contraTneq (col_unit_neq0 m uP) => c0; rewrite Pcol c0 scale0r eqxx.
have sinj : injective s.
  move=> m m' e; apply/eqP; apply: contraT => mm'.
  have : invmx P *m (c m' *: col m P - c m *: col m' P) = 0.
    by rewrite !Pcol e !scalerA mulrC subrr mulmx0.
  rewrite mulmxBr -!scalemxAr !colE !mulmxA mulVmx // !mul1mx.
  move/colP/(_ m)/eqP; rewrite !mxE !eqxx (negPf mm') /= mulr1 mulr0 subr0.
  by rewrite (negPf (cn0 m')).
split=> // m; have /colP/(_ (s m)) := P1; rewrite !mxE => <-.
rewrite (bigD1 m) //= big1 ?addr0 => [|m' mm']; rewrite mxE mulr1.
  by have /colP/(_ (s m)) := Pcol m; rewrite !mxE !eqxx /= mulr1 => ->.
have /colP/(_ (s m)) := Pcol m'; rewrite !mxE (inj_eq sinj) eq_sym (negPf mm') /= => ->.
by rewrite mulr0.
Qed.

Lemma same_upto n d k M (D D' : 'I_M -> 'cV[R]_n) (x x' : 'I_M -> 'cV[R]_d) (u u' : 'I_M -> 'cV[R]_k)
    (P Q : 'M[R]_M) :
  P *m Q = 1%:M -> Q *m const_mx 1 = const_mx 1 :> 'cV_M ->
  cols D' = cols D *m P -> (cols x')^T = Q *m (cols x)^T ->
  (forall m, exists a c, col m P = c *: delta_mx a 0 /\ u' m = c *: u a) ->
  exists s : 'S_M, forall m, [/\ x' m = x (s m), D' m = D (s m) & u' m = u (s m)].
Proof.
move=> PQ Q1 D'E X' each.
have /fin_all_exists[f sol] m : exists f : 'I_M * R, col m P = f.2 *: delta_mx f.1 0 /\ u' m = f.2 *: u f.1.
  by have [a [c E]] := each m; exists (a, c).
have [s_inj c1] := monomial_permutation PQ Q1 (fun m => proj1 (sol m)).
have Pcol m : col m P = delta_mx (f m).1 0 by rewrite (sol m).1 c1 scale1r.
exists (perm s_inj) => m; rewrite permE; split.
- have Pij i j : P i j = (i == (f j).1)%:R.
    by have /colP/(_ i) := Pcol j; rewrite !mxE andbT.
  have xE : (cols x)^T = P *m (cols x')^T by rewrite X' mulmxA PQ mul1mx.
  apply/colP => i; have /matrixP/(_ (f m).1 i) := xE.
  rewrite !mxE (bigD1 m) //= big1 => [|j jm]; rewrite Pij !mxE.
    by rewrite eqxx mul1r addr0.
  by rewrite (inj_eq s_inj) eq_sym (negPf jm) mul0r.
- by rewrite -[LHS]colsE D'E colE -mulmxA -colE Pcol -colE colsE.
by rewrite (sol m).2 c1 scale1r.
Qed.

End Order.

Section OneLayer.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variable N : params R d (n :: ws) K.

Definition act (x : 'cV[R]_d) : 'cV[R]_n := relu (N.1.1 *m x + N.1.2).

Definition delta2 (x : 'cV[R]_d) (g : 'cV[R]_K) := delta1 N.2 (act x) g.

(* The two equations of 3.1: inactive, delta_j = 0, or active,                *)
(* delta_j = w_j . delta_{i+1}.                                               *)
Lemma inactive_or_active x g j :
  delta1 N x g j 0 = 0 \/ delta1 N x g j 0 = ((w1 N.2)^T *m delta2 x g) j 0.
Proof. by rewrite /= dmaskE; case: ifP => _; [right | left]. Qed.

Definition state_same_upto M (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) (s : 'S_M) :=
  forall m, [/\ x' m = x (s m), delta1 N (x' m) (g' m) = delta1 N (x (s m)) (g (s m)) &
    delta2 (x' m) (g' m) = delta2 (x (s m)) (g (s m))].

(* The next deltas of both batches lie in the column space of C.              *)
Theorem C1_core M k (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K)
    (p p' : 'I_M -> 'cV[R]_k) :
  (forall m, delta2 (x m) (g m) = C *m p m) ->
  (forall m, delta2 (x' m) (g' m) = C *m p' m) ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono M k| - M <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  gsum N x' g' = gsum N x g ->
  exists s : 'S_M, state_same_upto x x' g g' s.
Proof.
move=> u u' rA rR E; have [P [Q [PQ QP Q1 D' X']]] := factorisations rA E.
set B := Delta1 N x g in rR D' *; set V := (w1 N.2)^T *m C in rR *.
have candP (y : 'I_M -> 'cV[R]_d) h z (T : 'M[R]_M) m :
    delta2 (y m) (h m) = C *m z m -> Delta1 N y h = B *m T -> cand B V (col m T) (z m).
  move=> uy Dy j; rewrite -mulmxA -uy.
  have -> : (B *m col m T) j 0 = delta1 N (y m) (h m) j 0.
    by rewrite colE mulmxA -colE -Dy !mxE.
  exact: inactive_or_active.
have true_cand m : cand B V (col m 1%:M) (col m (cols p)).
  by rewrite [col m (cols p)]colsE; apply: candP (u m) _; rewrite mulmx1.
suff each m : exists a c, col m P = c *: delta_mx a 0 /\ delta2 (x' m) (g' m) = c *: delta2 (x a) (g a).
  by have [s st] := same_upto PQ Q1 D' X' each; exists s.
have c_m := candP _ _ _ _ m (u' m) D'.
have [a [c [_ qE pE]]] :=
  C1_candidates (@unitmx1 _ _) true_cand rR (col_unit_neq0 m (unit_from_inverses PQ)) c_m.
by exists a, c; rewrite qE u' pE colsE colE mul1mx u scalemxAr.
Qed.

(* G: which loss vectors are admitted. C confines the next deltas of every    *)
(* batch with the same gradient; three ways to know it follow.                *)
Definition confined M k (G : 'cV[R]_K -> Prop) (C : 'M[R]_(head K ws, k))
    (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) : Prop :=
  forall (x' : 'I_M -> 'cV[R]_d) g', (forall m, G (g' m)) -> gsum N x' g' = gsum N x g ->
  forall m, exists p, delta2 (x' m) (g' m) = C *m p.

Theorem C1 M k G (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) :
  confined G C x g ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono M k| - M <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  (forall m, G (g m)) -> (forall m, G (g' m)) ->
  gsum N x' g' = gsum N x g -> exists s : 'S_M, state_same_upto x x' g g' s.
Proof.
move=> conf rA rR Gg Gg' E.
have /fin_all_exists[p u] := conf _ _ Gg erefl.
have /fin_all_exists[p' u'] := conf _ _ Gg' E.
exact: C1_core u u' rA rR E.
Qed.

(* Always: the next delta itself, K' = n_{i+1}. *)
Lemma confined_plain M G (x : 'I_M -> 'cV[R]_d) g : confined G 1%:M x g.
Proof. by move=> x' g' _ _ m; exists (delta2 (x' m) (g' m)); rewrite mul1mx. Qed.

(* K' = min(K', M): C spans the columns of the next layer's gradient, which   *)
(* has rank M as well.                                                        *)
Lemma confined_next_layer M k G (C : 'M[R]_(head K ws, k)) (x : 'I_M -> 'cV[R]_d) g :
  \rank (gradmx (gsum N x g).2) = M -> ((gradmx (gsum N x g).2)^T <= C^T)%MS ->
  confined G C x g.
Proof.
move=> rA2 /submxP[T TE] y h _ Ey m.
have A2 : Delta1 N.2 (fun m => act (y m)) h *m lift1 (fun m => act (y m)) =
    gradmx (gsum N x g).2 by rewrite -gradmxE -gsum_tail Ey.
have [L HL] : exists L, lift1 (fun m => act (y m)) *m L = 1%:M.
  by apply: right_inverse; apply: (proj2 (rank_factors (etrans (congr1 (@mxrank _ _ _) A2) rA2))).
exists (col m (T^T *m L)).
have -> : delta2 (y m) (h m) = col m (Delta1 N.2 (fun m => act (y m)) h).
  by rewrite [RHS]colsE.
rewrite -[Delta1 _ _ _]mulmx1 -HL mulmxA A2 -[gradmx _]trmxK TE trmx_mul trmxK.
by rewrite !colE !mulmxA.
Qed.

End OneLayer.

(* Cross-entropy at the last hidden layer: the entries of a loss vector sum   *)
(* to zero, so that K' = K - 1.                                               *)
Section CrossEntropy.

Variables (R : realFieldType) (d n k : nat) (N : params R d [:: n] (k + 1)).

Definition sum_zero (g : 'cV[R]_(k + 1)) : Prop := \sum_i g i 0 = 0.

Definition zero_sum_basis : 'M[R]_(k + 1, k) := col_mx 1%:M (const_mx (-1)).

Lemma confined_sum_zero M (x : 'I_M -> 'cV[R]_d) g : confined N sum_zero zero_sum_basis x g.
Proof.
move=> x' g' Gg' _ m; exists (usubmx (g' m)); rewrite /delta2 /= mul_col_mx mul1mx.
rewrite -[LHS]vsubmxK; congr (col_mx _ _); apply/colP => i; rewrite (ord1 i) !mxE.
have := Gg' m; rewrite /sum_zero big_split_ord /= big_ord1 => /eqP.
rewrite addrC addr_eq0 => /eqP ->; rewrite -sumrN; apply: eq_bigr => j _.
by rewrite !mxE mulN1r.
Qed.

End CrossEntropy.
