(******************************************************************************)
(* Second batches exist: docs/theory.md, section 4.                           *)
(*                                                                            *)
(*   ones_labels Y      the matrix [1; Y], whose rank is r                    *)
(*   reflection         |S| - r >= 1: a non-trivial stabiliser, S1            *)
(*   cayley S t         (1 - tS)(1 + tS)^-1, orthogonal when S is skew        *)
(*   stabiliser_family  |S| - r >= 2: a family of them through the identity   *)
(*   S1_ambiguous       the batch then has a second one with its gradient     *)
(*   S2_alpha, S2_v     S2's coefficients and direction exist, by counting    *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network derivative shared.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Stabilisers.

Variables (R : realFieldType) (K M : nat) (Y : 'M[R]_(K, M)).

Definition ones_labels : 'M[R]_(1 + K, M) := col_mx (const_mx 1) Y.

Lemma stabiliserE (O : 'M[R]_M) :
  O *m O^T = 1%:M -> ones_labels *m O = ones_labels -> stabiliser Y O.
Proof. by rewrite /ones_labels mul_col_mx => OO /eq_col_mx[]. Qed.

Lemma square_gt0 (v : 'cV[R]_M) : v != 0 -> 0 < (v^T *m v) 0 0.
Proof.
move=> v0; rewrite lt_neqAle eq_sym mxE; apply/andP; split; last first.
  by apply: sumr_ge0 => i _; rewrite mxE -expr2 sqr_ge0.
apply: contraNneq v0 => s0; apply/eqP/colP => i; rewrite [RHS]mxE.
have /eqP := s0; rewrite psumr_eq0 => [/allP/(_ i)|j _]; last by rewrite mxE -expr2 sqr_ge0.
by rewrite mem_index_enum mxE mulf_eq0 orbb => /(_ isT)/eqP.
Qed.

Theorem reflection : (\rank ones_labels < M)%N ->
  exists O : 'M[R]_M, [/\ stabiliser Y O, O^T = O & O != 1%:M].
Proof.
case/short_rank_kernel => v v0 Lv; have vv := square_gt0 v0.
set c := (v^T *m v) 0 0 in vv; have c0 : c != 0 by rewrite gt_eqF.
have vvE : v^T *m v = c%:M by rewrite [LHS]mx11_scalar.
pose H := (2%:R / c) *: (v *m v^T).
have HT : H^T = H by rewrite /H linearZ /= trmx_mul trmxK.
have HH : H *m H = 2%:R *: H.
  rewrite /H -scalemxAl -scalemxAr -mulmxA (mulmxA v^T) vvE mul_scalar_mx.
  by rewrite -scalemxAr !scalerA -!mulrA mulVf // mulr1 [_ * 2%:R]mulrC.
exists (1%:M - H); split.
- apply: stabiliserE.
    rewrite linearB /= trmx1 HT mulmxBl mul1mx mulmxBr mulmx1 HH scaler_nat mulr2n.
    by rewrite opprB addrK subrK.
  by rewrite mulmxBr mulmx1 /H -scalemxAr mulmxA Lv mul0mx scaler0 subr0.
- by rewrite linearB /= trmx1 HT.
rewrite -subr_eq0 addrC addKr oppr_eq0; apply: contraTneq isT => H0.
have : H *m v = 0 by rewrite H0 mul0mx.
rewrite /H -scalemxAl -mulmxA vvE mul_mx_scalar scalerA divfK // => /eqP.
by rewrite scaler_eq0 pnatr_eq0 (negPf v0).
Qed.

Variable S : 'M[R]_M.
Hypothesis skew : S^T = - S.

Lemma skew_form (w : 'rV[R]_M) : w *m S *m w^T = 0.
Proof.
set u := _ *m w^T; have uT : u^T = - u.
  by rewrite /u !trmx_mul trmxK skew mulNmx mulmxN mulmxA.
apply/matrixP => i j; rewrite (ord1 i) (ord1 j) [RHS]mxE.
have /matrixP/(_ 0 0) := uT; rewrite [LHS]mxE [RHS]mxE => /eqP.
by rewrite -addr_eq0 -mulr2n mulrn_eq0 /= => /eqP.
Qed.

Lemma skew_unit t : 1%:M + t *: S \in unitmx.
Proof.
rewrite -row_free_unit -kermx_eq0; apply/rowV0P => w /sub_kermxP w0.
apply: trmx_inj; rewrite trmx0; apply/eqP; apply: contraT => /square_gt0.
have : w *m (1%:M + t *: S) *m w^T = 0 by rewrite w0 mul0mx.
rewrite mulmxDr mulmx1 mulmxDl -scalemxAr -scalemxAl skew_form scaler0 addr0 trmxK => ->.
by rewrite mxE ltxx.
Qed.

Definition cayley t : 'M[R]_M := (1%:M - t *: S) *m invmx (1%:M + t *: S).

Lemma cayleyK t : cayley t *m (1%:M + t *: S) = 1%:M - t *: S.
Proof. by rewrite mulmxKV // skew_unit. Qed.

Lemma minus_unit t : 1%:M - t *: S \in unitmx.
Proof. by rewrite -scaleNr skew_unit. Qed.

Lemma commute t : (1%:M - t *: S) *m (1%:M + t *: S) = (1%:M + t *: S) *m (1%:M - t *: S).
Proof. by rewrite !mulmxDl !mulmxDr !mulmx1 !mul1mx !mulNmx !mulmxN addrACA [t *: S + _]addrC -addrACA. Qed.

Lemma cayley_orthogonal t : cayley t *m (cayley t)^T = 1%:M.
Proof.
apply: mulmx1C; rewrite trmx_mul trmx_inv linearD linearB /= trmx1 linearZ /= skew scalerN opprK.
rewrite mulmxA -(mulmxA (invmx _)) -commute mulmxA mulVmx ?minus_unit // mul1mx.
by rewrite mulmxV // skew_unit.
Qed.

Lemma cayley_stabilises t : ones_labels *m S = 0 -> stabiliser Y (cayley t).
Proof.
move=> LS; apply: stabiliserE; first exact: cayley_orthogonal.
have LP : ones_labels *m (1%:M + t *: S) = ones_labels.
  by rewrite mulmxDr mulmx1 -scalemxAr LS scaler0 addr0.
rewrite /cayley mulmxA mulmxBr mulmx1 -scalemxAr LS scaler0 subr0 -{1}LP.
by rewrite mulmxK // skew_unit.
Qed.

Lemma cayley0 : cayley 0 = 1%:M.
Proof. by rewrite /cayley scale0r subr0 addr0 invmx1 mulmx1. Qed.

(* The motion, with a factor that is bounded because rows have norm 1. *)
Lemma cayley_motion t : cayley t - 1%:M = - t *: (S *m (1%:M + cayley t)).
Proof.
have uP := skew_unit t; apply: (can_inj (mulmxK uP)).
rewrite mulmxBl cayleyK mul1mx -scalemxAl -mulmxA mulmxDl mul1mx cayleyK.
rewrite [X in S *m X](_ : _ = 2%:R *: 1%:M); last first.
  by rewrite addrACA subrr addr0 scaler_nat mulr2n.
rewrite opprD addrACA subrr add0r -scalemxAr mulmx1 scalerA mulNr mulr_natr.
by rewrite scaleNr mulr2n scalerDl opprD.
Qed.

Lemma one_plus_cayley_unit t : 1%:M + cayley t \in unitmx.
Proof.
have : (1%:M + cayley t) *m (2%:R^-1 *: (1%:M + t *: S)) = 1%:M.
  rewrite -scalemxAr mulmxDl mul1mx cayleyK addrACA subrr addr0 -mulr2n -scaler_nat.
  by rewrite scalerA mulVf ?scale1r // pnatr_eq0.
by case/mulmx1_unit.
Qed.

Lemma cayley_entry t i j : `|cayley t i j| <= 1.
Proof.
move: (cayley t) (cayley_orthogonal t) => O /matrixP/(_ i i).
rewrite !mxE eqxx mulr1n => row1; rewrite -(ler_pexpn2r (_ : 0 < 2)%N) ?nnegrE //.
rewrite expr1n -normrX ger0_norm ?sqr_ge0 // -row1 (bigD1 j) //= mxE -expr2 ler_addl.
by apply: sumr_ge0 => l _; rewrite mxE -expr2 sqr_ge0.
Qed.

End Stabilisers.

Section Ambiguity.

Variables (R : realFieldType) (K M : nat) (Y : 'M[R]_(K, M)).
Hypothesis rank2 : (\rank (ones_labels Y) + 2 <= M)%N.

(* (I - P) X != 0: the rows of X are not all combinations of 1 and the labels. *)
Lemma moving_skew d (X : 'M[R]_(d, M)) : ~~ (X <= ones_labels Y)%MS ->
  exists S : 'M[R]_M, [/\ S^T = - S, ones_labels Y *m S = 0 & X *m S != 0].
Proof.
set L := ones_labels Y; set Q := cokermx L; rewrite submxE -/Q => XQ.
have LQ (i : 'I_M) : L *m (row i Q^T)^T = 0.
  by rewrite -tr_col trmxK colE mulmxA mulmx_coker mul0mx.
have [i0 Xa] : exists i0, X *m (row i0 Q^T)^T != 0.
  apply/existsP; apply: contraNT XQ; rewrite negb_exists => /forallP all0.
  apply/eqP/matrixP => i j; have := all0 j; rewrite negbK => /eqP/colP/(_ i).
  by rewrite -tr_col trmxK colE mulmxA -colE !mxE.
set a := row i0 Q^T in Xa.
have [i1 ba] : exists i1, ~~ (row i1 Q^T <= a)%MS.
  apply/row_subPn; apply: contraTN rank2 => /mxrankS; rewrite mxrank_tr mxrank_coker => le1.
  by rewrite -ltnNge addn2 ltnS -addn1 -leq_subLR (leq_trans le1) // rank_leq_row.
set b := row i1 Q^T in ba; exists (a^T *m b - b^T *m a); split.
- by rewrite linearB /= !trmx_mul !trmxK opprB.
- by rewrite mulmxBr !mulmxA !LQ !mul0mx subr0.
apply: contraNneq ba => XS; have [i Xai] : exists i, (X *m a^T) i 0 != 0.
  apply/existsP; apply: contraNT Xa; rewrite negb_exists => /forallP all0.
  by apply/eqP/colP => i; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
have /(congr1 (row i)) rE : X *m a^T *m b = X *m b^T *m a.
  by apply/eqP; rewrite -subr_eq0 -!mulmxA -mulmxBr XS.
rewrite (row_mul _ (X *m a^T)) (row_mul _ (X *m b^T)) in rE.
have one (A : 'M[R]_(d, 1)) (w : 'rV[R]_M) : row i A *m w = A i 0 *: w.
  by rewrite [row i A]mx11_scalar mul_scalar_mx mxE.
rewrite !one in rE; rewrite -[b](scalerK Xai) rE.
by rewrite scalemx_sub // scalemx_sub.
Qed.

(* A one-parameter family of stabilisers through the identity. *)
Theorem stabiliser_family : exists O : R -> 'M[R]_M,
  [/\ O 0 = 1%:M, forall t, stabiliser Y (O t) & injective O].
Proof.
have one_out : ~~ ((1%:M : 'M[R]_M) <= ones_labels Y)%MS.
  apply: contraTN rank2 => /mxrankS; rewrite mxrank1 => le; rewrite -ltnNge addn2.
  exact: ltnW.
have [S [skew LS]] := moving_skew one_out; rewrite mul1mx => S0.
exists (cayley S); split=> [|t|t s E]; first exact: cayley0.
  exact: cayley_stabilises.
apply/eqP; rewrite -subr_eq0; apply: contraNT S0 => ts.
have D : (t - s) *: (cayley S t *m S) = - ((t - s) *: S).
  have := cayleyK skew s; rewrite -E; have := cayleyK skew t.
  rewrite !mulmxDr !mulmx1 -!scalemxAr => /(canRL (addKr _)) Et /(canRL (addKr _)) Es.
  rewrite !scalerBl Et Es [in LHS]opprD addrACA subrr add0r !opprB.
  by rewrite [LHS]addrC addrA subrK.
have /eqP : (t - s) *: ((1%:M + cayley S t) *m S) = 0.
  by rewrite mulmxDl mul1mx scalerDr D subrr.
rewrite scaler_eq0 (negPf ts) /= => /eqP CS.
by rewrite -[S](mulKmx (one_plus_cayley_unit skew t)) CS mulmx0.
Qed.

End Ambiguity.

Section SecondBatch.

Variables (R : realFieldType) (d : nat) (ws : seq nat) (K : nat) (N : params R d ws K) (a : pat ws).

(* S1: a whole family of second batches, none of them the same up to order.   *)
Theorem S1_ambiguous M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) (c : R) :
  (forall m, pattern N (x m) = a) -> (forall m, generic N (x m)) ->
  (\rank (ones_labels (cols y)) + 2 <= M)%N -> ~~ (cols x <= ones_labels (cols y))%MS ->
  exists2 e : R, 0 < e & forall t : R, t != 0 -> `|t| < e ->
    exists x' : 'I_M -> 'cV[R]_d,
      [/\ bgrad (mse_lv c) N x' y = bgrad (mse_lv c) N x y,
          forall m, pattern N (x' m) = a &
          forall s : 'S_M, ~ (forall m, x' m = x (s m))].
Proof.
move=> xa gen r2 moving; have [S [skew LS XS]] := moving_skew r2 moving.
pose x' t := moved x (cayley S t).
pose B := \sum_i \sum_j `|(cols x *m S) i j|.
have B0 : 0 <= B by apply: sumr_ge0 => i _; apply: sumr_ge0.
have diffE t m i : x' t m i 0 - x m i 0 = ((cols x *m S *m (1%:M + cayley S t)) i m) * - t.
  have := congr1 (fun A => (cols x *m A) i m) (cayley_motion skew t).
  rewrite mulmxBr mulmx1 -cols_moved -scalemxAr mulmxA !mxE => ->.
  by rewrite mulrC.
have bound t m i : `|x' t m i 0 - x m i 0| <= (B * 2%:R) * `|t|.
  rewrite diffE normrM normrN ler_wpmul2r // mxE (le_trans (ler_norm_sum _ _ _)) //.
  have -> : B * 2%:R = \sum_i \sum_j `|(cols x *m S) i j| * 2%:R.
    by rewrite mulr_suml; apply: eq_bigr => l _; rewrite mulr_suml.
  rewrite (bigD1 i) //= ler_paddr ?sumr_ge0 // => [l _|].
    by apply: sumr_ge0 => j _; rewrite mulr_ge0.
  apply: ler_sum => j _; rewrite normrM ler_wpmul2l // mxE (le_trans (ler_norm_add _ _)) //.
  rewrite [2%:R]mulr2n ler_add ?cayley_entry // mxE.
  by case: (j == m); rewrite ?normr1 ?normr0.
have close e : 0 < e -> near (fun t => forall m i, `|x' t m i 0 - x m i 0| < e).
  move=> e0; exists (e / (B * 2%:R + 1)).
    by rewrite divr_gt0 // ltr_paddl ?mulr_ge0.
  move=> t; rewrite ltr_pdivl_mulr ?ltr_paddl ?mulr_ge0 // => te m i.
  apply: le_lt_trans (bound t m i) _; apply: le_lt_trans te.
  by rewrite mulrC ler_wpmul2l // ler_addl.
have keep : near (fun t => forall m, pattern N (x' t m) = a).
  apply: near_all => m; have [e e0 open] := pattern_open (gen m).
  by have := close e e0; apply: near_sub => t Ct; rewrite -(xa m); apply: open.
have differ : near (fun t => forall s : 'S_M, t != 0 -> ~ (forall m, x' t m = x (s m))).
  apply: near_all => s.
  have [/forallP same|/forallPn[m]] := boolP [forall m, x (s m) == x m].
    exists 1 => [|t _ t0 E]; first exact: ltr01.
    case/eqP: XS; rewrite -[_ *m S](mulmxK (one_plus_cayley_unit skew t)).
    have -> : cols x *m S *m (1%:M + cayley S t) = 0; last by rewrite mul0mx.
    apply/matrixP => i m; have := diffE t m i; rewrite E (eqP (same m)) subrr => /esym/eqP.
    by rewrite mulf_eq0 oppr_eq0 (negPf t0) orbF => /eqP ->; rewrite mxE.
  rewrite -subr_eq0 => /eqP sm; have [i xi] : exists i, (x (s m) - x m) i 0 != 0.
    apply/existsP; apply: contra_notT sm; rewrite negb_exists => /forallP all0.
    by apply/colP => i; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
  have := close _ (_ : 0 < `|(x (s m) - x m) i 0|); rewrite normr_gt0 => /(_ xi).
  apply: near_sub => t Ct _ E; have := Ct m i.
  by rewrite E [X in _ < `|X|]mxE [X in _ < `|_ + X|]mxE ltxx.
have [e e0 both] := near_and keep differ; exists e => // t t0 te.
have [x'a x's] := both t te; exists (x' t); split=> // [|s]; last exact: x's.
by apply: S1 => //; apply: cayley_stabilises.
Qed.

(* S2, cross-entropy: loss vectors that sum to zero are dependent for M >= K. *)
Lemma S2_alpha_sum_zero k M (g : 'I_M -> 'cV[R]_k) :
  (k <= M)%N -> (0 < M)%N -> (forall m, \sum_i g m i 0 = 0) ->
  exists2 alpha : 'I_M -> R, (exists m, alpha m != 0) & \sum_m alpha m *: g m = 0.
Proof.
move=> kM M0 sum0; have rk : (\rank (cols g) < M)%N.
  case: k g kM sum0 => [|k] g kM sum0; first by rewrite (leq_ltn_trans (rank_leq_row _)).
  apply: leq_trans kM; rewrite ltn_neqAle rank_leq_row andbT.
  apply/negP => /row_freeP[D gD]; have : const_mx 1 *m (cols g *m D) = 0 :> 'rV_k.+1.
    rewrite mulmxA (_ : const_mx 1 *m _ = 0) ?mul0mx //; apply/rowP => m.
    by rewrite !mxE -[RHS](sum0 m); apply: eq_bigr => i _; rewrite !mxE mul1r.
  rewrite gD mulmx1 => /rowP/(_ 0); rewrite !mxE => /eqP; exact/negP/oner_neq0.
have [v v0 gv] := short_rank_kernel rk; exists (fun m => v m 0).
  apply/existsP; apply: contraNT v0; rewrite negb_exists => /forallP all0.
  by apply/eqP/colP => m; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
apply/colP => i; have /colP/(_ i) := gv; rewrite !mxE summxE; apply: etrans.
by apply: eq_bigr => m _; rewrite !mxE mulrC.
Qed.

(* More samples than logits. *)
Lemma S2_alpha_many k M (g : 'I_M -> 'cV[R]_k) : (k < M)%N ->
  exists2 alpha : 'I_M -> R, (exists m, alpha m != 0) & \sum_m alpha m *: g m = 0.
Proof.
move=> kM; have [v v0 gv] := short_rank_kernel (leq_ltn_trans (rank_leq_row (cols g)) kM).
exists (fun m => v m 0).
  apply/existsP; apply: contraNT v0; rewrite negb_exists => /forallP all0.
  by apply/eqP/colP => m; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
apply/colP => i; have /colP/(_ i) := gv; rewrite !mxE summxE; apply: etrans.
by apply: eq_bigr => m _; rewrite !mxE mulrC.
Qed.

(* Q has the loss's invariant directions in its kernel: 1 for MSE and BCE. *)
Lemma S2_v q (Q : 'M[R]_(q, K)) : (\rank (Q *m slope N a) < d)%N ->
  exists2 v : 'cV[R]_d, v != 0 & Q *m (slope N a *m v) = 0.
Proof. by move/short_rank_kernel => [v v0 E]; exists v; rewrite // mulmxA. Qed.

End SecondBatch.
