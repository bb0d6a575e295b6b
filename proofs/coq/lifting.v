(******************************************************************************)
(* The quadratic lifting of docs/theory.md, 3.2, free of networks: C1.        *)
(*                                                                            *)
(*   cand B V q p    every neuron j is inactive, (B q)_j = 0, or active,      *)
(*                   (B q)_j = (V p)_j: the two equations of 3.1 with u = C p *)
(*                   and V = W_{i+1}^T C                                      *)
(*   mono M k        the lifted unknowns q_a q_b (a <= b) and q_a p_c         *)
(*   lifted B V      the matrix R: one row per neuron, one column per unknown *)
(*   known_multiple  a candidate whose lift is a combination of known ones'   *)
(*                   is a multiple of one of these                            *)
(*   C1_candidates   if rank R >= U - M, every candidate is a multiple of one  *)
(*                   of the M known solutions                                 *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory.
Local Open Scope ring_scope.

Definition mono (M k : nat) : finType :=
  [finType of {ab : 'I_M * 'I_M | (ab.1 <= ab.2)%N} + 'I_M * 'I_k].

(* U = M (M + 1) / 2 + M K' *)
Lemma card_mono M k : #|mono M k| = ((M * M.+1)./2 + M * k)%N.
Proof.
rewrite card_sum card_prod !card_ord card_sig; congr (_ + _)%N.
rewrite -sum1_card; under eq_bigl do rewrite inE.
rewrite -(pair_big_dep xpredT (fun a b : 'I_M => (a <= b)%N) (fun _ _ => 1%N)) /=.
rewrite (exchange_big_dep xpredT) //=.
rewrite -[M in RHS]/(M.+1.-1) mulnC -bin2 -triangular_sum big_nat_recl //= add0n big_mkord.
apply: eq_bigr => b _; rewrite sum1dep_card.
rewrite (_ : [set a : 'I_M | _] = [set widen_ord (ltn_ord b) i | i in 'I_b.+1]).
  by rewrite card_imset ?card_ord //; move=> i i' /(congr1 val)/= /val_inj.
apply/setP => a; rewrite inE; apply/idP/imsetP => [ab|[i _ ->]] /=; last by rewrite -ltnS.
by exists (inord a); rewrite // ; apply: val_inj; rewrite /= inordK.
Qed.

Section Lifting.

Variables (F : fieldType) (n M k : nat).
Implicit Types (B : 'M[F]_(n, M)) (V : 'M[F]_(n, k)).
Implicit Types (q : 'cV[F]_M) (p : 'cV[F]_k) (S : 'M[F]_M) (T : 'M[F]_(M, k)).

Definition cand B V q p : Prop :=
  forall j, (B *m q) j 0 = 0 \/ (B *m q) j 0 = (V *m p) j 0.

(* Coefficients of (B q)_j ((B q)_j - (V p)_j) in the lifted unknowns. *)
Definition lcoef B V (j : 'I_n) (t : mono M k) : F :=
  match t with
  | inl ab => let: (a, b) := val ab in (B j a * B j b) *+ (if a == b then 1%N else 2%N)
  | inr (a, c) => - (B j a * V j c)
  end.

Definition lifted B V : 'M[F]_(n, #|mono M k|) := coefmx (lcoef B V).

(* A pair (S, T) as a vector of lifted unknowns; S is meant to be symmetric. *)
Definition leval S T (t : mono M k) : F :=
  match t with
  | inl ab => let: (a, b) := val ab in S a b
  | inr (a, c) => T a c
  end.

Lemma leval_inj S S' T T' :
  S^T = S -> S'^T = S' -> leval S T =1 leval S' T' -> S = S' /\ T = T'.
Proof.
move=> sS sS' E; split; apply/matrixP => a b; last exact: (E (inr (a, b))).
wlog ab : a b / (a <= b)%N.
  case/orP: (leq_total a b) => ab; first by apply.
  by move/(_ b a ab) => Eba; rewrite -sS -sS' !mxE.
by have := E (inl (exist _ (a, b) ab)).
Qed.

Lemma sum_symmetric (f : 'I_M -> 'I_M -> F) : (forall a b, f a b = f b a) ->
  \sum_a \sum_b f a b =
  \sum_(ab : {ab : 'I_M * 'I_M | (ab.1 <= ab.2)%N})
    let: (a, b) := val ab in f a b *+ (if a == b then 1%N else 2%N).
Proof.
move=> sf; pose h (ab : 'I_M * 'I_M) := f ab.1 ab.2 *+ (if ab.1 == ab.2 then 1%N else 2%N).
rewrite [RHS](eq_bigr (fun ab => h (val ab))); last by case=> -[a b] ab _.
have <- : \sum_(ab : 'I_M * 'I_M | (ab.1 <= ab.2)%N) h ab =
    \sum_(ab : {ab : 'I_M * 'I_M | (ab.1 <= ab.2)%N}) h (val ab).
  pose sub := [subType of {ab : 'I_M * 'I_M | (ab.1 <= ab.2)%N}].
  rewrite (reindex_omap (val : sub -> _) insub) => [|ab le_ab]; last by rewrite /= insubT.
  by apply: eq_bigl => ab; rewrite valK (valP ab) eqxx.
rewrite pair_bigA /= (bigID (fun ab : 'I_M * 'I_M => (ab.1 <= ab.2)%N)) /=.
have swapK : involutive (fun ab : 'I_M * 'I_M => (ab.2, ab.1)) by case.
rewrite [X in _ + X](reindex_inj (can_inj swapK)) /=.
under [X in _ = X]eq_bigr => ab _.
  rewrite (_ : h ab = f ab.1 ab.2 + if ab.1 != ab.2 then f ab.2 ab.1 else 0); last first.
    by rewrite /h; case: eqP => _ /=; rewrite ?addr0 // mulr2n [in X in _ = _ + X]sf.
over.
rewrite big_split /= -big_mkcondr /=; congr (_ + _); apply: eq_bigl => ab.
by rewrite -ltnNge ltn_neqAle andbC.
Qed.

Lemma leval_coef B V S T j : S^T = S ->
  \sum_t leval S T t * lcoef B V j t = (B *m S *m B^T) j j - (B *m T *m V^T) j j.
Proof.
move=> sS; rewrite big_sumType /=; congr (_ + _).
  transitivity (\sum_a \sum_b B j a * S a b * B j b); last first.
    rewrite mxE exchange_big; apply: eq_bigr => b _ /=; rewrite !mxE mulr_suml.
    by apply: eq_bigr => a _; rewrite mulrC.
  rewrite sum_symmetric => [|a b]; last first.
    by rewrite -[in S a b]sS mxE mulrC mulrA [in RHS]mulrAC mulrC.
  by apply: eq_bigr => -[[a b] ab] _ /=; rewrite mulrnAr mulrCA mulrA.
transitivity (- \sum_a \sum_c B j a * T a c * V j c).
  rewrite pair_bigA /= -sumrN; apply: eq_bigr => -[a c] _ /=.
  by rewrite mulrN mulrCA mulrA.
congr (- _); rewrite exchange_big mxE; apply: eq_bigr => c _ /=.
by rewrite !mxE mulr_suml.
Qed.

(* A candidate solves the lifted linear equations. *)
Lemma cand_solves B V q p : cand B V q p ->
  solves (lcoef B V) (leval (q *m q^T) (q *m p^T)).
Proof.
move=> c j; rewrite leval_coef; last by rewrite trmx_mul trmxK.
have E r (A : 'M[F]_(n, r)) (v : 'cV[F]_r) :
    (B *m (q *m v^T) *m A^T) j j = (B *m q) j 0 * (A *m v) j 0.
  by rewrite mulmxA -(mulmxA (B *m q)) -trmx_mul mxE big_ord1 [in X in _ * X]mxE.
by rewrite !E; case: (c j) => ->; rewrite ?mul0r ?mulr0 subrr.
Qed.

(* Known solutions, the columns of Q0 and P0: their lifts are independent, and *)
(* what is a combination of them as a vector is a multiple of one of them.    *)
Section Known.

Variables (Q0 : 'M[F]_M) (P0 : 'M[F]_(k, M)).
Hypothesis uQ : Q0 \in unitmx.

Definition known_lift (m : 'I_M) : mono M k -> F := leval (col m Q0 *m (col m Q0)^T) (col m Q0 *m (col m P0)^T).

Let D (c : 'I_M -> F) := diag_mx (\row_m c m).

Lemma known_sum (c : 'I_M -> F) t :
  \sum_m c m * known_lift m t = leval (Q0 *m D c *m Q0^T) (Q0 *m D c *m P0^T) t.
Proof.
have E r s (A : 'M[F]_(r, M)) (B' : 'M[F]_(s, M)) a b :
    \sum_m c m * (col m A *m (col m B')^T) a b = (A *m D c *m B'^T) a b.
  rewrite mxE; apply: eq_bigr => m _; rewrite mul_mx_diag !mxE big_ord1 !mxE.
  by rewrite mulrCA mulrA.
by case: t => [[[a b] ab]|[a b]] /=; rewrite E.
Qed.

Lemma known_symmetric c : (Q0 *m D c *m Q0^T)^T = Q0 *m D c *m Q0^T.
Proof. by rewrite !trmx_mul trmxK tr_diag_mx mulmxA. Qed.

Lemma known_independent : independent known_lift.
Proof.
move=> c c0 m.
have E0 : leval (Q0 *m D c *m Q0^T) (Q0 *m D c *m P0^T) =1 leval 0 0.
  by move=> t; rewrite -known_sum c0; case: t => [[[a b] ab]|[a b]] /=; rewrite mxE.
have [S0 _] := leval_inj (known_symmetric c) (trmx0 _ _ _) E0.
have /(congr1 (fun A => invmx Q0 *m A *m invmx Q0^T)) := S0.
rewrite mulmx0 mul0mx !mulmxA mulVmx // mul1mx mulmxK ?unitmx_tr //.
by move/matrixP/(_ m m); rewrite !mxE eqxx.
Qed.

Lemma known_multiple (c : 'I_M -> F) q p : q != 0 ->
  (forall t, leval (q *m q^T) (q *m p^T) t = \sum_m c m * known_lift m t) ->
  exists m c, [/\ c != 0, q = c *: col m Q0 & p = c *: col m P0].
Proof.
move=> q0 Ec.
have [|Eq Ep] := leval_inj _ (known_symmetric c) (fun t => etrans (Ec t) (known_sum c t)).
  by rewrite trmx_mul trmxK.
pose r := invmx Q0 *m q; have qE : q = Q0 *m r by rewrite mulKVmx.
have rr : r *m r^T = D c.
  rewrite /r trmx_mul mulmxA -(mulmxA _ q) Eq !mulmxA mulVmx // mul1mx trmx_inv.
  by rewrite mulmxK ?unitmx_tr.
have rp : r *m p^T = D c *m P0^T.
  by rewrite /r -mulmxA Ep !mulmxA mulVmx // mul1mx.
clearbody r; have [m rm] : exists m, r m 0 != 0.
  apply/existsP; apply: contraNT q0; rewrite negb_exists => /forallP r0.
  rewrite qE (_ : r = 0) ?mulmx0 //; apply/colP => m; rewrite [RHS]mxE.
  by apply/eqP; rewrite -[_ == _]negbK r0.
have rE : r = r m 0 *: delta_mx m 0.
  apply/colP => a; rewrite !mxE eqxx andbT; have [->|am] := eqVneq a m.
    by rewrite mulr1.
  have /matrixP/(_ a m) := rr; rewrite !mxE big_ord1 !mxE (negPf am) mulr0n => /eqP.
  by rewrite mulf_eq0 (negPf rm) orbF mulr0 => /eqP.
have cE : c m = r m 0 * r m 0.
  by have /matrixP/(_ m m) := rr; rewrite !mxE big_ord1 !mxE eqxx mulr1n.
exists m, (r m 0); split=> //; first by rewrite {1}qE {1}rE -scalemxAr -colE.
apply/colP => i; have /matrixP/(_ m i) := rp.
by rewrite mul_diag_mx !mxE big_ord1 !mxE cE -mulrA => /(mulfI rm).
Qed.

End Known.

(* C1: one rank replaces all search. The known solutions are the columns of   *)
(* Q0 and P0, in the coordinates of any basis B of the column space.          *)
Theorem C1_candidates B V (Q0 : 'M[F]_M) (P0 : 'M[F]_(k, M)) :
  Q0 \in unitmx -> (forall m, cand B V (col m Q0) (col m P0)) ->
  (#|mono M k| - M <= \rank (lifted B V))%N ->
  forall q p, q != 0 -> cand B V q p ->
  exists m c, [/\ c != 0, q = c *: col m Q0 & p = c *: col m P0].
Proof.
move=> uQ known rk q p q0 c_qp.
have card_le : (#|mono M k| <= \rank (lifted B V) + #|'I_M|)%N.
  by rewrite card_ord addnC -leq_subLR.
have [c Ec] := kernel_span card_le (sol := known_lift Q0 P0) (fun m => cand_solves (known m))
  (known_independent (P0 := P0) uQ) (cand_solves c_qp).
exact: (known_multiple uQ q0 Ec).
Qed.

End Lifting.
