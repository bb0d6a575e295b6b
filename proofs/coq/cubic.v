(* Lifting of degree three (docs/theory.md, Appendix L3), all groups of one:  *)
(* a null space of dimension M leaves the true candidates only.               *)
From mathcomp Require Import all_ssreflect all_fingroup all_algebra.
From Exan Require Import linalg network lifting exact.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GroupScope GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Cubic.

Variables (F : fieldType) (n M k : nat).
Implicit Types (v : 'I_(M + k) -> F).

Notation N := (M + k)%N.

(* Monomials of degree three that some q_a divides: sorted triples of the     *)
(* unknowns, q before u, whose first one is a q.                              *)
Definition by_index : rel 'I_N := fun a b => (a <= b)%N.

Definition divisible (t : 3.-tuple 'I_N) : bool :=
  sorted by_index t && (tnth t ord0 < M)%N.

Definition mono3 : finType := [finType of {t : 3.-tuple 'I_N | divisible t}].

Definition ev3 v (t : 3.-tuple 'I_N) : F := \prod_(x <- t) v x.

Definition sorted3 (a b c : 'I_N) : 3.-tuple 'I_N := sort_tuple by_index [tuple a; b; c].

Lemma ev3_sorted v a b c : ev3 v (sorted3 a b c) = v a * v b * v c.
Proof.
rewrite /ev3 (perm_big [:: a; b; c]) /=; last by rewrite perm_sort.
by rewrite !big_cons big_nil mulr1 mulrA.
Qed.

Lemma by_index_total : total by_index.
Proof. by move=> a b; apply: leq_total. Qed.

Lemma by_index_trans : transitive by_index.
Proof. by move=> a b c; apply: leq_trans. Qed.

Lemma divisible_sorted3 (a b c : 'I_N) : (a < M)%N -> divisible (sorted3 a b c).
Proof.
move=> aM; rewrite /divisible sort_sorted /=; last exact: by_index_total.
have : sorted by_index (sorted3 a b c) by apply: sort_sorted; apply: by_index_total.
have : a \in (sorted3 a b c : seq _) by rewrite mem_sort mem_head.
case: (sorted3 a b c) => -[|x s] //= s3; rewrite (tnth_nth a) /= inE.
case/predU1P => [<- //|as_ path_s]; apply: leq_ltn_trans aM.
by have /allP/(_ a as_) := order_path_min by_index_trans path_s.
Qed.

(* Coefficients of x_i (A_j . v)(B_j . v), A_j and B_j rows over all unknowns. *)
Definition coef3 (A B : 'M[F]_(n, N)) (ji : 'I_n * 'I_N) (t : mono3) : F :=
  \sum_a \sum_b (A ji.1 a * B ji.1 b) *+ (sorted3 a b ji.2 == val t).

Lemma ev3_coef (A B : 'M[F]_(n, N)) v (j : 'I_n) (i : 'I_N) : (forall a : 'I_N, (M <= a)%N -> A j a = 0) ->
  \sum_(t : mono3) ev3 v (val t) * coef3 A B (j, i) t =
  (\sum_a A j a * v a) * (\sum_b B j b * v b) * v i.
Proof.
move=> A0; rewrite /coef3 /=.
under eq_bigr do rewrite mulr_sumr; rewrite exchange_big mulr_suml mulr_suml /=.
apply: eq_bigr => a _.
under eq_bigr do rewrite mulr_sumr; rewrite exchange_big mulr_sumr mulr_suml /=.
apply: eq_bigr => b _; case: (leqP M a) => aM.
  by rewrite A0 // !mul0r big1 // => t _; rewrite ?mul0r mul0rn mulr0.
rewrite (bigD1 (Sub _ (divisible_sorted3 b i aM) : mono3)) //= eqxx ev3_sorted.
rewrite big1 ?addr0 => [|t /negPf nt].
  by rewrite mulr1n mulrC [LHS]mulrA mulrACA.
by rewrite -[_ == val t]/(val (Sub _ (divisible_sorted3 b i aM) : mono3) == val t) val_eqE eq_sym nt mulr0.
Qed.

(* The system of degree three of B (Delta in any basis) and V (rows w_j C).   *)
Section Candidates.

Variables (B : 'M[F]_(n, M)) (V : 'M[F]_(n, k)) (P0 : 'M[F]_(k, M)).

Definition both (q : 'cV[F]_M) (p : 'cV[F]_k) : 'I_N -> F := fun x => col_mx q p x 0.

Lemma both_q q p a : both q p (lshift k a) = q a 0.
Proof. by rewrite /both col_mxEu. Qed.

Lemma both_u q p c : both q p (rshift M c) = p c 0.
Proof. by rewrite /both col_mxEd. Qed.

Definition cubic_coef : 'I_#|{: 'I_n * 'I_N}| -> mono3 -> F :=
  fun r => coef3 (row_mx B 0) (row_mx B (- V)) (enum_val r).

Definition cubic := coefmx cubic_coef.

Definition evq q p (t : mono3) : F := ev3 (both q p) (val t).

Lemma cand_cubic q p : cand B V q p -> solves cubic_coef (evq q p).
Proof.
move=> c r; rewrite /cubic_coef; case: (enum_val r) => j i.
rewrite ev3_coef => [|a Ma]; last first.
  by rewrite -[a]splitK /unsplit; case: splitP Ma => [b ->|b _ _]; rewrite ?row_mxEr ?mxE // leqNgt ltn_ord.
have E (C : 'M[F]_(n, N)) : \sum_a C j a * both q p a = (C *m col_mx q p) j 0 by rewrite mxE.
rewrite !E !mul_row_col mul0mx addr0 mulNmx !mxE.
have := c j; rewrite !mxE; case=> ->; first by rewrite !mul0r.
by rewrite subrr mulr0 mul0r.
Qed.

Lemma evq_sorted q p (a b c : 'I_N) (aM : (a < M)%N) :
  evq q p (Sub _ (divisible_sorted3 b c aM)) = both q p a * both q p b * both q p c.
Proof. by rewrite /evq SubK ev3_sorted. Qed.

Hypothesis true_samples : forall m, cand B V (delta_mx m 0) (col m P0).

Theorem L3_candidates (q : 'cV[F]_M) (p : 'cV[F]_k) :
  (#|mono3| - M <= \rank cubic)%N -> q != 0 -> cand B V q p ->
  exists m c, [/\ c != 0, q = c *: delta_mx m 0 & p = c *: col m P0].
Proof.
move=> rk q0 c_qp.
pose sol (m : 'I_M) := evq (delta_mx m 0) (col m P0).
have lM (a : 'I_M) : (lshift k a < M)%N by rewrite /= ltn_ord.
have unit (m a : 'I_M) : both (delta_mx m 0) (col m P0) (lshift k a) = (a == m)%:R.
  by rewrite both_q mxE eqxx andbT.
have ind : independent sol.
  move=> c c0 m; have := c0 (Sub _ (divisible_sorted3 (lshift k m) (lshift k m) (lM m))).
  rewrite (bigD1 m) //= big1 => [|m' mm']; rewrite /sol evq_sorted !unit ?eqxx.
    by rewrite addr0 !mulr1.
  by rewrite eq_sym (negPf mm') !mul0r mulr0.
have card_le : (#|mono3| <= \rank cubic + #|'I_M|)%N by rewrite card_ord addnC -leq_subLR.
have [c /= Ec] := kernel_span card_le (fun m => cand_cubic (true_samples m)) ind (cand_cubic c_qp).
have E (a : 'I_M) (b d : 'I_N) : both q p (lshift k a) * both q p b * both q p d =
    c a * (both (delta_mx a 0) (col a P0) b * both (delta_mx a 0) (col a P0) d).
  have := Ec (Sub _ (divisible_sorted3 b d (lM a))); rewrite evq_sorted => ->.
  rewrite (bigD1 a) //= big1 => [|m ma]; rewrite /sol evq_sorted unit.
    by rewrite eqxx mul1r addr0.
  by rewrite eq_sym (negPf ma) !mul0r mulr0.
have [m qm] : exists m, q m 0 != 0.
  apply/existsP; apply: contraNT q0; rewrite negb_exists => /forallP z.
  by apply/eqP/colP => m; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK z.
have q2 : q m 0 * q m 0 != 0 by rewrite mulf_neq0.
have cE : c m = q m 0 * q m 0 * q m 0.
  by have := E m (lshift k m) (lshift k m); rewrite !unit !both_q eqxx !mulr1.
exists m, (q m 0); split=> //; apply/colP => a.
  rewrite !mxE andbT; have [-> |am] := eqVneq a m; first by rewrite mulr1.
  have := E m (lshift k m) (lshift k a); rewrite !unit !both_q eqxx (negPf am) !mulr0 => /eqP.
  by rewrite mulf_eq0 (negPf q2) => /eqP.
have := E m (lshift k m) (rshift M a); rewrite !unit !both_q !both_u eqxx mul1r cE !mxE -mulrA.
by rewrite -!mulrA => /(mulfI qm)/(mulfI qm).
Qed.

End Candidates.

End Cubic.

(* Appendix L3 for networks, samples of pairwise different candidates: C1 with *)
(* the rank of the system of degree three.      *)
Section OneLayer.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variable N : params R d (n :: ws) K.

Theorem L3_core M k (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K)
    (p p' : 'I_M -> 'cV[R]_k) :
  (forall m, delta2 N (x m) (g m) = C *m p m) ->
  (forall m, delta2 N (x' m) (g' m) = C *m p' m) ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono3 M k| - M <= \rank (cubic (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  gsum N x' g' = gsum N x g ->
  exists s : 'S_M, state_same_upto N x x' g g' s.
Proof.
move=> u u' rA rR E; have [P [Q [PQ QP Q1 D' X']]] := factorisations rA E.
set B := Delta1 N x g in rR D' *; set V := (w1 N.2)^T *m C in rR *.
have candP (y : 'I_M -> 'cV[R]_d) h z (T : 'M[R]_M) m :
    delta2 N (y m) (h m) = C *m z m -> Delta1 N y h = B *m T -> cand B V (col m T) (z m).
  move=> uy Dy j; rewrite -mulmxA -uy.
  have -> : (B *m col m T) j 0 = delta1 N (y m) (h m) j 0.
    by rewrite colE mulmxA -colE -Dy !mxE.
  exact: inactive_or_active.
have true_cand m : cand B V (delta_mx m 0) (col m (cols p)).
  rewrite [col m (cols p)]colsE -[delta_mx m 0]mul1mx -colE.
  by apply: candP (u m) _; rewrite mulmx1.
suff each m : exists a c, col m P = c *: delta_mx a 0 /\ delta2 N (x' m) (g' m) = c *: delta2 N (x a) (g a).
  by have [s st] := same_upto PQ Q1 D' X' each; exists s.
have c_m := candP _ _ _ _ m (u' m) D'.
have [a [c [_ qE pE]]] := L3_candidates true_cand rR (col_unit_neq0 m (unit_from_inverses PQ)) c_m.
by exists a, c; rewrite qE u' pE colsE u scalemxAr.
Qed.

Theorem L3 M k G (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) :
  confined N G C x g ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono3 M k| - M <= \rank (cubic (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  (forall m, G (g m)) -> (forall m, G (g' m)) ->
  gsum N x' g' = gsum N x g -> exists s : 'S_M, state_same_upto N x x' g g' s.
Proof.
move=> conf rA rR Gg Gg' E.
have /fin_all_exists[p u] := conf _ _ Gg erefl.
have /fin_all_exists[p' u'] := conf _ _ Gg' E.
exact: L3_core u u' rA rR E.
Qed.

End OneLayer.
