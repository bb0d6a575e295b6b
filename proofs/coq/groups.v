(******************************************************************************)
(* The structure theorem of docs/theory.md, 3.2: samples in groups that share *)
(* the layer's pattern (C2).                                                  *)
(*                                                                            *)
(*   pairs gr        pairs of samples of one group: sum of s_k^2 of them      *)
(*   C2_candidates   every candidate lies in the span of one group            *)
(*   C2_column       so does a column of Q^-1, and the next delta with it     *)
(*   C2              another batch differs by a block-diagonal matrix, and    *)
(*                   the samples alone in their group are determined          *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting exact.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Pairs.

Variables (M : nat) (I : finType) (gr : 'I_M -> I).

Definition pairs : finType := [finType of {ab : 'I_M * 'I_M | gr ab.1 == gr ab.2}].

Lemma card_pairs : #|pairs| = (\sum_i #|[set m | gr m == i]| ^ 2)%N.
Proof.
rewrite card_sig -sum1_card; under eq_bigl do rewrite inE.
rewrite -(pair_big_dep xpredT (fun a b : 'I_M => gr a == gr b) (fun _ _ => 1%N)) /=.
rewrite (partition_big gr xpredT) //=; apply: eq_bigr => i _.
rewrite expnS expn1 -sum_nat_const; under [RHS]eq_bigl do rewrite inE.
apply: eq_bigr => a /eqP <-; rewrite sum1dep_card.
by apply: eq_card => b; rewrite !inE eq_sym.
Qed.

End Pairs.

Section Candidates.

Variables (F : fieldType) (n M k : nat) (I : finType) (gr : 'I_M -> I).
Variables (B : 'M[F]_(n, M)) (V : 'M[F]_(n, k)) (P0 : 'M[F]_(k, M)).
Variable on : 'I_n -> 'I_M -> bool.

Hypothesis two_neq0 : 2%:R != 0 :> F.
Hypothesis BE : forall j m, B j m = if on j m then (V *m P0) j m else 0.
Hypothesis shared : forall j a b, gr a = gr b -> on j a = on j b.
Hypothesis inside : forall (c : 'I_M -> F) i,
  (forall m, gr m != i -> c m = 0) -> P0 *m (\col_m c m) = 0 -> forall m, c m = 0.

(* The solutions that the groups explain: t is block diagonal. *)
Definition block (c : pairs gr -> F) : 'M[F]_M :=
  \matrix_(a, b) \sum_(ab : pairs gr | val ab == (a, b)) c ab.

Definition explained (t : 'M[F]_M) : mono M k -> F :=
  leval (t + t^T) (2%:R *: (t *m P0^T)).

Definition elementary (ab : pairs gr) : 'M[F]_M := delta_mx (val ab).1 (val ab).2.

Lemma block_off (c : pairs gr -> F) a b : gr a != gr b -> block c a b = 0.
Proof.
move=> ab; rewrite mxE big1 // => -[[a' b'] /= g] /eqP[ea eb].
by rewrite -ea -eb (eqP g) eqxx in ab.
Qed.

Lemma block_on (c : pairs gr -> F) (ab : pairs gr) : block c (val ab).1 (val ab).2 = c ab.
Proof.
by rewrite mxE (big_pred1 ab) // => ab' /=; rewrite -surjective_pairing (inj_eq val_inj).
Qed.

Lemma blockE (c : pairs gr -> F) : block c = \sum_ab c ab *: elementary ab.
Proof.
apply/matrixP => a b; rewrite mxE summxE big_mkcond; apply: eq_bigr => ab _.
rewrite !mxE; case: ab => -[a' b'] g /=; rewrite xpair_eqE.
by rewrite [a' == a]eq_sym [b' == b]eq_sym; case: andP => _; rewrite ?mulr1 ?mulr0.
Qed.

Lemma explained_sum (c : pairs gr -> F) u :
  \sum_ab c ab * explained (elementary ab) u = explained (block c) u.
Proof.
rewrite /explained blockE; case: u => [[[a b] ab]|[a b]] /=.
  rewrite linear_sum -big_split summxE; apply: eq_bigr => cd _.
  by rewrite !mxE mulrDr.
rewrite mulmx_suml scaler_sumr summxE; apply: eq_bigr => cd _.
by rewrite -scalemxAl !mxE mulrCA.
Qed.

Lemma explained_solves (ab : pairs gr) : solves (lcoef B V) (explained (elementary ab)).
Proof.
move=> j; rewrite leval_coef; last by rewrite linearD /= trmxK addrC.
case: ab => -[a b] gab; have /eqP g := gab; rewrite /= in g; rewrite /elementary /=.
have entry (A A' : 'M[F]_(n, M)) : (A *m delta_mx a b *m A'^T) j j = A j a * A' j b.
  by rewrite -(mul_delta_mx (0 : 'I_1)) mulmxA -colE -mulmxA -rowE mxE big_ord1 !mxE.
rewrite mulmxDr mulmxDl mxE trmx_delta entry.
have -> : (B *m delta_mx b a *m B^T) j j = B j a * B j b.
  by rewrite -(mul_delta_mx (0 : 'I_1)) mulmxA -colE -mulmxA -rowE mxE big_ord1 !mxE mulrC.
rewrite -scalemxAr -scalemxAl mxE -!mulmxA -trmx_mul mulmxA entry.
rewrite -mulr2n -mulr_natl -mulrBr -mulrBr BE [B j b]BE (shared j g).
by case: (on j b); rewrite ?subrr ?mul0r !mulr0.
Qed.

Lemma explained_independent : independent (fun ab : pairs gr => explained (elementary ab)).
Proof.
move=> c c0; pose t := block c.
have E0 : explained t =1 leval 0 0.
  by move=> u; rewrite -explained_sum c0; case: u => [[[a b] ab]|[a b]] /=; rewrite mxE.
have sym : (t + t^T)^T = t + t^T by rewrite linearD /= trmxK addrC.
have [_ /eqP] := leval_inj sym (trmx0 _ _ _) E0.
rewrite scaler_eq0 (negPf two_neq0) /= => /eqP tP ab.
rewrite -[c ab]block_on -/t; set a := (val ab).1.
apply: (inside (i := gr a) (c := fun b => t a b)) => [b|]; first by rewrite eq_sym; apply: block_off.
apply/colP => i; have /matrixP/(_ a i) := tP; rewrite !mxE; apply: etrans.
by apply: eq_bigr => b _; rewrite !mxE mulrC.
Qed.

(* C2: every candidate is one of the group's own. *)
Theorem C2_candidates (q : 'cV[F]_M) (p : 'cV[F]_k) :
  (#|mono M k| - #|pairs gr| <= \rank (lifted B V))%N ->
  q != 0 -> cand B V q p ->
  exists m, [/\ q m 0 != 0, forall a, gr a != gr m -> q a 0 = 0 & p = P0 *m q].
Proof.
move=> rk q0 c_qp.
have card_le : (#|mono M k| <= \rank (lifted B V) + #|pairs gr|)%N.
  by rewrite addnC -leq_subLR.
have [c Ec] := kernel_span card_le explained_solves explained_independent (cand_solves c_qp).
pose t := block c; have Et u : leval (q *m q^T) (q *m p^T) u = explained t u.
  by rewrite Ec explained_sum.
have t_off a b : gr a != gr b -> t a b = 0 by apply: block_off.
clearbody t; have sym : (t + t^T)^T = t + t^T by rewrite linearD /= trmxK addrC.
have symq : (q *m q^T)^T = q *m q^T by rewrite trmx_mul trmxK.
have [qq qp] := leval_inj symq sym Et.
have qqE a b : q a 0 * q b 0 = t a b + t b a.
  by have /matrixP/(_ a b) := qq; rewrite !mxE big_ord1 mxE.
have [m qm] : exists m, q m 0 != 0.
  apply/existsP; apply: contraNT q0; rewrite negb_exists => /forallP all0.
  by apply/eqP/colP => a; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
have q_off a : gr a != gr m -> q a 0 = 0.
  move=> am; have ma : gr m != gr a by rewrite eq_sym.
  have /eqP := qqE a m; rewrite (t_off _ _ am) (t_off _ _ ma) addr0.
  by rewrite mulf_eq0 (negPf qm) orbF => /eqP.
pose s b := 2%:R * t m b / q m 0.
have pE : p = P0 *m \col_b s b.
  apply/colP => i; have /matrixP/(_ m i) := qp; rewrite !mxE big_ord1 mxE => qpE.
  apply: (mulfI qm); rewrite qpE !mulr_sumr; apply: eq_bigr => b _; rewrite !mxE /s.
  have arr (u v w : F) : w != 0 -> 2%:R * (u * v) = w * (v * (2%:R * u / w)).
    by move=> w0; field.
  exact: arr.
have s_off b : gr b != gr m -> s b = 0.
  by rewrite eq_sym => bm; rewrite /s t_off // mulr0 mul0r.
have row a b : gr a = gr m -> q a 0 * s b = 2%:R * t a b.
  move=> am; apply/eqP; rewrite -subr_eq0; apply/eqP.
  apply: (inside (i := gr m) (c := fun b => q a 0 * s b - 2%:R * t a b)) => [{}b bm|].
    by rewrite s_off // t_off ?mulr0 ?subrr // am eq_sym.
  apply/colP => i; have /matrixP/(_ a i) := qp; rewrite pE !mxE big_ord1 !mxE => /eqP.
  rewrite -subr_eq0 => /eqP; apply: etrans; rewrite !mulr_sumr -sumrB.
  have arr (u v w z : F) : u * (v * w - 2%:R * z) = v * (u * w) - 2%:R * (z * u) by ring.
  by apply: eq_bigr => l _; rewrite !mxE arr.
have sm : s m = q m 0.
  by apply: (mulfI qm); rewrite row // qqE mulr_natl mulr2n.
exists m; split=> //; rewrite pE; congr (_ *m _); apply/colP => b; rewrite mxE.
have [bm|bm] := eqVneq (gr b) (gr m); last by rewrite s_off // q_off.
apply: (mulfI qm); apply: (addIr (q b 0 * q m 0)).
have Eb : q b 0 * q m 0 = 2%:R * t b m by rewrite -sm row.
by rewrite row // [in LHS]Eb -mulrDr -qqE mulr_natl mulr2n [in RHS](mulrC (q b 0)).
Qed.

End Candidates.

(* An invertible matrix has a transversal of non-zero entries. *)
Lemma transversal (F : fieldType) M (P : 'M[F]_M) :
  P \in unitmx -> exists s : 'S_M, forall m, P (s m) m != 0.
Proof.
rewrite -unitmx_tr unitmxE unitfE /determinant => det0.
have [s] : exists s : 'S_M, (-1) ^+ s * \prod_i P^T i (s i) != 0.
  apply/existsP; apply: contraNT det0; rewrite negb_exists => /forallP all0.
  by rewrite big1 // => s _; apply/eqP; rewrite -[_ == _]negbK all0.
rewrite mulf_eq0 signr_eq0 /= => /prodf_neq0 sn0; exists s => m.
by have := sn0 m isT; rewrite mxE.
Qed.

Section Structure.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variable N : params R d (n :: ws) K.
Variables (M : nat) (I : finType) (gr : 'I_M -> I).

(* Samples of one group share the pattern of the layer. *)
Definition groups_share (x : 'I_M -> 'cV[R]_d) : Prop :=
  forall a b, gr a = gr b -> active (N.1.1 *m x a + N.1.2) = active (N.1.1 *m x b + N.1.2).

Definition alone (m : 'I_M) : Prop := forall a, gr a = gr m -> a = m.

(* What is known of another batch: block diagonal up to the order s. *)
Record same_structure (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K)
    (s : 'S_M) (P : 'M[R]_M) : Prop := SameStructure {
  block_diagonal : forall a m, gr a != gr (s m) -> P a m = 0;
  bias_kept : P *m const_mx 1 = const_mx 1 :> 'cV_M;
  inputs_mixed : (cols x)^T = P *m (cols x')^T;
  deltas_mixed : Delta1 N x' g' = Delta1 N x g *m P;
  next_deltas_mixed : cols (fun m => delta2 N (x' m) (g' m)) =
                      cols (fun m => delta2 N (x m) (g m)) *m P;
  singletons_kept : forall m, alone (s m) ->
    [/\ x' m = x (s m), delta1 N (x' m) (g' m) = delta1 N (x (s m)) (g (s m)) &
        delta2 N (x' m) (g' m) = delta2 N (x (s m)) (g (s m))]
}.

(* A sample whose delta_1 is a combination of the batch's mixes one group: so *)
(* does its next delta.                                                       *)
Lemma C2_column k (C : 'M[R]_(head K ws, k)) (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K)
    (p : 'I_M -> 'cV[R]_k) x0 g0 p0 (q : 'cV[R]_M) :
  groups_share x -> (forall m, delta2 N (x m) (g m) = C *m p m) ->
  \rank (Delta1 N x g) = M ->
  (#|mono M k| - #|pairs gr| <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  delta2 N x0 g0 = C *m p0 -> delta1 N x0 g0 = Delta1 N x g *m q -> q != 0 ->
  exists m, [/\ q m 0 != 0, forall a, gr a != gr m -> q a 0 = 0 &
    delta2 N x0 g0 = cols (fun m => delta2 N (x m) (g m)) *m q].
Proof.
move=> share u rD rR u0 mixed q0.
set B := Delta1 N x g in rD rR mixed *; set V := (w1 N.2)^T *m C in rR *.
pose on (j : 'I_n) m := active (N.1.1 *m x m + N.1.2) j 0.
have BE j m : B j m = if on j m then (V *m cols p) j m else 0.
  rewrite /B [Delta1 _ _ _ _ _]mxE /= dmaskE -/(on j m); case: (on j m) => //.
  by rewrite -[delta1 N.2 _ _]/(delta2 N (x m) (g m)) u mulmxA -/V cols_mul [RHS]mxE.
have on_share j a b : gr a = gr b -> on j a = on j b by rewrite /on => /share ->.
have [L LB] := left_inverse rD.
have inside (c : 'I_M -> R) i : (forall m, gr m != i -> c m = 0) ->
    cols p *m (\col_m c m) = 0 -> forall m, c m = 0.
  move=> off pc; suff Bc : B *m (\col_m c m) = 0.
    move=> m; have := congr1 (mulmx L) Bc; rewrite mulmxA LB mul1mx mulmx0.
    by move/colP/(_ m); rewrite !mxE.
  have [m0 /eqP m0i|none] := pickP (fun m => gr m == i); last first.
    by rewrite (_ : \col_m c m = 0) ?mulmx0 //; apply/colP => m; rewrite !mxE off ?none.
  apply/colP => j; rewrite mxE [RHS]mxE.
  transitivity ((on j m0)%:R * (V *m cols p *m \col_m c m) j 0); last first.
    by rewrite -mulmxA pc mulmx0 mxE mulr0.
  rewrite mxE mulr_sumr; apply: eq_bigr => m _; rewrite [(\col_m c m) m 0]mxE.
  have [mi|mi] := eqVneq (gr m) i; last by rewrite off // !mulr0.
  by rewrite BE (on_share j m m0) ?m0i //; case: (on j m0); rewrite ?mul1r ?mul0r.
have two0 : 2%:R != 0 :> R by rewrite pnatr_eq0.
have c_q : cand B V q p0.
  by move=> j; rewrite -mulmxA -u0 -mixed; exact: inactive_or_active.
have [m [qm off pE]] := C2_candidates two0 BE on_share inside rR q0 c_q.
exists m; split=> //; rewrite u0 pE mulmxA; congr (_ *m _).
by rewrite cols_mul; apply: eq_cols => a; rewrite u.
Qed.

(* Where every column of Q^-1 mixes one group. *)
Lemma structured (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) :
  \rank (gradmx (gsum N x g)) = M -> gsum N x' g' = gsum N x g ->
  (forall m (q : 'cV[R]_M), delta1 N (x' m) (g' m) = Delta1 N x g *m q -> q != 0 ->
    exists m0, [/\ q m0 0 != 0, forall a, gr a != gr m0 -> q a 0 = 0 &
      delta2 N (x' m) (g' m) = cols (fun m => delta2 N (x m) (g m)) *m q]) ->
  exists (s : 'S_M) (P : 'M[R]_M), P \in unitmx /\ same_structure x x' g g' s P.
Proof.
move=> rA E column; have [P [Q [PQ QP Q1 D' X']]] := factorisations rA E.
have uP := unit_from_inverses PQ.
have Bm (y : 'I_M -> 'cV[R]_d) h j m : Delta1 N y h j m = delta1 N (y m) (h m) j 0.
  by rewrite mxE.
have struct m : exists m0, [/\ col m P m0 0 != 0, forall a, gr a != gr m0 -> col m P a 0 = 0 &
    delta2 N (x' m) (g' m) = cols (fun m => delta2 N (x m) (g m)) *m col m P].
  apply: column (col_unit_neq0 m uP).
  by rewrite colE mulmxA -colE -D'; apply/colP => j; rewrite [RHS]mxE Bm.
have P1 : P *m const_mx 1 = const_mx 1 :> 'cV_M by rewrite -{1}Q1 mulmxA PQ mul1mx.
have XP : (cols x)^T = P *m (cols x')^T by rewrite X' mulmxA PQ mul1mx.
have [s sn0] := transversal uP.
have blk a m : gr a != gr (s m) -> P a m = 0.
  have [m0 [_ off _]] := struct m => am; have := off a; rewrite mxE; apply.
  apply: contra_neq am => ->; apply/eqP; apply: contraT; rewrite eq_sym => sm.
  by have := sn0 m; have := off (s m); rewrite mxE => -> //; rewrite ?eqxx // eq_sym.
have nd : cols (fun m => delta2 N (x' m) (g' m)) = cols (fun m => delta2 N (x m) (g m)) *m P.
  apply/matrixP => i m; rewrite mxE; have [m0 [_ _ ->]] := struct m.
  by rewrite colE mulmxA -colE mxE.
exists s, P; split=> //; split=> // m al.
have only a : a != s m -> P a m = 0.
  by move=> am; apply: blk; apply: contra_neq am => /al.
have only' m' : m' != m -> P (s m) m' = 0.
  move=> mm'; apply: blk; rewrite eq_sym; apply: contra_neq mm' => /al.
  exact: perm_inj.
have one : P (s m) m = 1.
  have /colP/(_ (s m)) := P1; rewrite !mxE (bigD1 m) //= big1 => [|m' mm'].
    by rewrite mxE mulr1 addr0.
  by rewrite only' // mul0r.
have colP_m r (A : 'M[R]_(r, M)) i : (A *m P) i m = A i (s m).
  rewrite mxE (bigD1 (s m)) //= one mulr1 big1 ?addr0 // => a am.
  by rewrite only // mulr0.
split.
- apply/colP => i; have /matrixP/(_ (s m) i) := XP; rewrite !mxE (bigD1 m) //= one.
  rewrite big1 => [|m' mm']; last by rewrite only' // mul0r.
  by rewrite mul1r addr0 !mxE => ->.
- by apply/colP => j; have /matrixP/(_ j m) := D'; rewrite colP_m !Bm.
- by apply/colP => j; have /matrixP/(_ j m) := nd; rewrite colP_m !mxE.
Qed.

Theorem C2 k G (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) :
  groups_share x -> confined N G C x g ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono M k| - #|pairs gr| <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  (forall m, G (g m)) -> (forall m, G (g' m)) ->
  gsum N x' g' = gsum N x g ->
  exists (s : 'S_M) (P : 'M[R]_M), P \in unitmx /\ same_structure x x' g g' s P.
Proof.
move=> share conf rA rR Gg Gg' E.
have /fin_all_exists[p u] := conf _ _ Gg erefl.
have /fin_all_exists[p' u'] := conf _ _ Gg' E.
have rD : \rank (Delta1 N x g) = M by move: rA; rewrite gradmxE => /rank_factors[].
apply: structured rA E _ => m q; exact: (C2_column share u rD rR (u' m)).
Qed.

End Structure.
