(******************************************************************************)
(* The backward recursion computes the derivative.                            *)
(*                                                                            *)
(*   gradp_derivative       on a region, the logits are polynomials in the    *)
(*                          step t along any direction dN, and <g, f'(0)> is  *)
(*                          <gradp, dN>                                       *)
(*   near P                 P t holds for all small t                         *)
(*   generic N x            no pre-activation is zero                         *)
(*   gradient_is_derivative <g, f'(0)> = <grad N x g, dN> for the network     *)
(*   mse_gradient           the batch gradient is the derivative of the       *)
(*                          batch's squared error                             *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import network.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Polynomials.

Variable R : comRingType.

Definition evalmx m n (t : R) (A : 'M[{poly R}]_(m, n)) : 'M[R]_(m, n) := map_mx (horner^~ t) A.
Definition derivmx0 m n (A : 'M[{poly R}]_(m, n)) : 'M[R]_(m, n) :=
  map_mx (fun p => p^`().[0]) A.

Lemma deriv_sum (I : finType) (F : I -> {poly R}) : (\sum_i F i)^`() = \sum_i (F i)^`().
Proof. exact: raddf_sum. Qed.

Definition affine n d (W dW : 'M[R]_(n, d)) (b db : 'cV[R]_n) (px : 'cV[{poly R}]_d) :=
  \col_i (\sum_j ((W i j)%:P + 'X * (dW i j)%:P) * px j 0 + ((b i 0)%:P + 'X * (db i 0)%:P)).

Lemma eval_affine n d (W dW : 'M[R]_(n, d)) b db px t :
  evalmx t (affine W dW b db px) = (W + t *: dW) *m evalmx t px + (b + t *: db).
Proof.
apply/colP => i; rewrite !mxE hornerD horner_sum; congr (_ + _); last by rewrite !hornerE.
by apply: eq_bigr => j _; rewrite !mxE !hornerE.
Qed.

Lemma deriv_affine n d (W dW : 'M[R]_(n, d)) b db px :
  derivmx0 (affine W dW b db px) = W *m derivmx0 px + dW *m evalmx 0 px + db.
Proof.
apply/colP => i; rewrite !mxE derivD hornerD deriv_sum horner_sum; congr (_ + _).
  rewrite -big_split; apply: eq_bigr => j _; rewrite !mxE !derivE !hornerE /=.
  by rewrite addrC.
by rewrite !derivE !hornerE.
Qed.

Lemma eval_mask n (a : 'cV[bool]_n) (z : 'cV[{poly R}]_n) t :
  evalmx t (dmask [ringType of {poly R}] a *m z) = dmask R a *m evalmx t z.
Proof. by apply/colP => i; rewrite mxE !dmaskE mxE; case: ifP => _; rewrite ?horner0. Qed.

Lemma deriv_mask n (a : 'cV[bool]_n) (z : 'cV[{poly R}]_n) :
  derivmx0 (dmask [ringType of {poly R}] a *m z) = dmask R a *m derivmx0 z.
Proof. by apply/colP => i; rewrite mxE !dmaskE mxE; case: ifP => _; rewrite ?derivC ?horner0. Qed.

Lemma mdot_mull m n p (A : 'M[R]_(m, p)) (B : 'M[R]_(m, n)) C :
  mdot A (B *m C) = mdot (B^T *m A) C.
Proof. by rewrite /mdot trmx_mul trmxK mulmxA. Qed.

Lemma mdot_mulr m n p (A : 'M[R]_(m, p)) (B : 'M[R]_(m, n)) C :
  mdot A (B *m C) = mdot (A *m C^T) B.
Proof. by rewrite /mdot trmx_mul trmxK mulmxA mxtrace_mulC mulmxA. Qed.

Lemma mdotDr m n (A B C : 'M[R]_(m, n)) : mdot A (B + C) = mdot A B + mdot A C.
Proof. by rewrite /mdot mulmxDr mxtraceD. Qed.

Theorem gradp_derivative d ws K (N dN : params R d ws K) a (px : 'cV[{poly R}]_d) :
  exists p : 'cV[{poly R}]_K,
    (forall t, evalmx t p = fwdp (N + t *: dN) a (evalmx t px)) /\
    (forall g, mdot g (derivmx0 p) =
       dotp (gradp N a (evalmx 0 px) g) dN + mdot ((slope N a)^T *m g) (derivmx0 px)).
Proof.
elim: ws d N dN a px => [|n ws IH] d N dN a px.
  exists (affine N.1 dN.1 N.2 dN.2 px); split=> [t|g]; first by rewrite eval_affine.
  rewrite deriv_affine !mdotDr mdot_mull (mdot_mulr _ dN.1) /=.
  by ring.
pose z := affine N.1.1 dN.1.1 N.1.2 dN.1.2 px.
pose px1 := dmask [ringType of {poly R}] a.1 *m z.
have [p [pE pD]] := IH _ N.2 dN.2 a.2 px1; exists p; split=> [t|g] /=.
  by rewrite pE /px1 eval_mask eval_affine.
rewrite pD /px1 eval_mask eval_affine !scale0r !addr0 deriv_mask deriv_affine slope_delta.
set delta := dmask R a.1 *m ((w1 N.2)^T *m _); rewrite mdot_mull tr_dmask -/delta !mdotDr.
rewrite mdot_mull (mdot_mulr _ dN.1.1) !trmx_mul -!mulmxA slope_delta tr_dmask -/delta.
have arr (u v w s : R) : u + (v + w + s) = w + s + u + v by ring.
exact: arr.
Qed.

End Polynomials.

Section Near.

Variable R : realFieldType.
Implicit Types (P Q : R -> Prop) (p q : {poly R}).

Definition near P : Prop := exists2 e : R, 0 < e & forall t, `|t| < e -> P t.

Lemma near_and P Q : near P -> near Q -> near (fun t => P t /\ Q t).
Proof.
move=> [e e0 Pe] [e' e'0 Qe']; exists (Num.min e e'); first by rewrite lt_minr e0.
by move=> t; rewrite lt_minr => /andP[te te']; split; [apply: Pe | apply: Qe'].
Qed.

Lemma near_sub P Q : (forall t, P t -> Q t) -> near P -> near Q.
Proof. by move=> PQ [e e0 Pe]; exists e => // t /Pe/PQ. Qed.

Lemma near_all (I : finType) (P : I -> R -> Prop) :
  (forall i, near (P i)) -> near (fun t => forall i, P i t).
Proof.
move=> nP; suff: near (fun t => forall i, i \in enum I -> P i t).
  by apply: near_sub => t Pt i; apply: Pt; rewrite mem_enum.
elim: (enum I) => [|i s IHs]; first by exists 1 => [|t _ i]; [exact: ltr01 | rewrite in_nil].
have := near_and (nP i) IHs; apply: near_sub => t [Pi Ps] j.
by rewrite inE => /orP[/eqP->|/Ps].
Qed.

Lemma horner_bounded p : exists B, forall t, `|t| <= 1 -> `|p.[t]| <= B.
Proof.
elim/poly_ind: p => [|p c [B pB]]; first by exists 0 => t _; rewrite horner0 normr0.
exists (B + `|c|) => t t1; rewrite !hornerE (le_trans (ler_norm_add _ _)) ?ler_add2r //.
by rewrite normrM (le_trans _ (pB t t1)) // ler_pimulr.
Qed.

Lemma sign_near p : p.[0] != 0 -> near (fun t => (0 < p.[t]) = (0 < p.[0])).
Proof.
elim/poly_ind: p => [|q c _]; first by rewrite horner0 eqxx.
rewrite !hornerE => c0; have [B qB] := horner_bounded q.
have B1 : 0 < `|B| + 1 by rewrite ltr_paddl.
exists (Num.min 1 (`|c| / (`|B| + 1))).
  by rewrite lt_minr ltr01 divr_gt0 ?normr_gt0.
move=> t; rewrite lt_minr => /andP[/ltW t1 tc]; rewrite !hornerE.
have small : `|q.[t] * t| < `|c|.
  rewrite ltr_pdivl_mulr // in tc; apply: le_lt_trans tc.
  rewrite normrM mulrC ler_wpmul2l // (le_trans (qB t t1)) // (le_trans (ler_norm B)) //.
  by rewrite ler_addl.
case: (ltgtP 0 c) c0 small => [c_gt0|c_lt0|<-] _; last by rewrite normr0 ltNge normr_ge0.
  by rewrite (gtr0_norm c_gt0) ltr_norml => /andP[lo _]; rewrite -(ltr_add2r c) addNr in lo.
rewrite (ltr0_norm c_lt0) ltr_norml opprK => /andP[_ hi]; apply/negbTE.
by rewrite -leNgt ltW // -(ltr_add2r (- c)) addrK sub0r.
Qed.

(* No pre-activation of x is zero. *)
Fixpoint generic d ws K : params R d ws K -> 'cV[R]_d -> Prop :=
  match ws return params R d ws K -> 'cV[R]_d -> Prop with
  | [::] => fun _ _ => True
  | n :: ws' => fun N x =>
      let z := N.1.1 *m x + N.1.2 in (forall i, z i 0 != 0) /\ generic N.2 (relu z)
  end.

(* The same under a change of the input alone. *)
Lemma finite_gap (I : finType) (v : I -> R) : (forall i, 0 < v i) ->
  exists2 e, 0 < e & forall i, e <= v i.
Proof.
move=> v0; suff [e e0 le]: exists2 e, 0 < e & forall i, i \in enum I -> e <= v i.
  by exists e => // i; apply: le; rewrite mem_enum.
elim: (enum I) => [|i s [e e0 le]]; first by exists 1; first exact: ltr01.
exists (Num.min (v i) e) => [|j]; first by rewrite lt_minr v0.
rewrite inE => /orP[/eqP->|/le ej]; first by rewrite le_minl lexx.
by rewrite le_minl ej orbT.
Qed.

Lemma mulmx_small n d (W : 'M[R]_(n, d)) (e : R) : 0 < e ->
  exists2 e', 0 < e' & forall m (A : 'M[R]_(d, m)), (forall i j, `|A i j| < e') ->
    forall i j, `|(W *m A) i j| < e.
Proof.
move=> e0; pose B := 1 + \sum_i \sum_j `|W i j|.
have sum0 i : 0 <= \sum_j `|W i j| by apply: sumr_ge0.
have B0 : 0 < B by rewrite ltr_paddr ?ltr01 ?sumr_ge0.
exists (e / B) => [|p A As i j]; first exact: divr_gt0.
have rowB : \sum_l `|W i l| < B.
  rewrite /B (bigD1 i) //= addrCA ltr_addl ltr_paddr ?ltr01 //.
  by apply: sumr_ge0.
rewrite mxE (le_lt_trans (ler_norm_sum _ _ _)) //.
have -> : e = (e / B) * B by rewrite divfK // gt_eqF.
apply: le_lt_trans (_ : (e / B) * (\sum_l `|W i l|) < _); last by rewrite ltr_pmul2l ?divr_gt0.
rewrite mulr_sumr; apply: ler_sum => l _; rewrite normrM mulrC.
by apply: ler_wpmul2r; rewrite ?normr_ge0 // ltW.
Qed.

Lemma pattern_open d ws K (N : params R d ws K) x :
  generic N x ->
  exists2 e, 0 < e & forall x' : 'cV[R]_d, (forall i, `|x' i 0 - x i 0| < e) -> pattern N x' = pattern N x.
Proof.
elim: ws d N x => [|n ws IH] d N x /=; first by exists 1; first exact: ltr01.
set z := _ + _; case=> zn0 /IH[e2 e20 pat2].
have [|e1 e10 le1] := @finite_gap _ (fun i => `|z i 0|).
  by move=> i; rewrite normr_gt0.
have e0 : 0 < Num.min e1 e2 by rewrite lt_minr e10.
have [e' e'0 small] := mulmx_small N.1.1 e0; exists e' => // x' close.
set z' := N.1.1 *m x' + N.1.2.
have zz i : `|z' i 0 - z i 0| < Num.min e1 e2.
  have -> : z' i 0 - z i 0 = (N.1.1 *m (x' - x)) i 0.
    by rewrite mulmxBr !mxE opprD addrACA subrr addr0.
  by apply: small => a b; rewrite (ord1 b) !mxE.
have same : active z' = active z.
  apply/colP => i; rewrite [LHS]mxE [RHS]mxE.
  have := zz i; rewrite lt_minr => /andP[zi _]; have {zi} := lt_le_trans zi (le1 i).
  have := zn0 i; move: (z i 0) (z' i 0) => u u' u0.
  case: (ltgtP 0 u) u0 => [u_gt0|u_lt0|<-] //= _.
    by rewrite (gtr0_norm u_gt0) ltr_norml => /andP[+ _]; rewrite ltr_subr_addr addNr => ->.
  rewrite (ltr0_norm u_lt0) ltr_norml => /andP[_]; rewrite ltr_sub_addr addNr => u'0.
  by rewrite ltNge ltW.
rewrite same; congr (_, _); apply: pat2 => i.
have := zz i; rewrite lt_minr => /andP[_]; apply: le_lt_trans.
rewrite !relu_mask same !dmaskE; case: ifP => // _.
by rewrite subrr normr0.
Qed.

Lemma pattern_near d ws K (N dN : params R d ws K) (px : 'cV[{poly R}]_d) :
  generic N (evalmx 0 px) ->
  near (fun t => pattern (N + t *: dN) (evalmx t px) = pattern N (evalmx 0 px)).
Proof.
elim: ws d N dN px => [|n ws IH] d N dN px /=; first by exists 1; first exact: ltr01.
pose z := affine N.1.1 dN.1.1 N.1.2 dN.1.2 px.
have z0 : evalmx 0 z = N.1.1 *m evalmx 0 px + N.1.2.
  by rewrite eval_affine !scale0r !addr0.
case=> zn0 gen2; pose a := active (evalmx 0 z).
have act_near : near (fun t => active (evalmx t z) = a).
  have nz i : near (fun t => (0 < (z i 0).[t]) = (0 < (z i 0).[0])).
    by apply: sign_near; have := zn0 i; rewrite -z0 mxE.
  have Ez t i : active (evalmx t z) i 0 = (0 < (z i 0).[t]).
    by rewrite mxE [evalmx t z i 0]mxE.
  by have := near_all nz; apply: near_sub => t Et; apply/colP => i; rewrite /a !Ez.
have rel t : active (evalmx t z) = a ->
    relu (evalmx t z) = evalmx t (dmask [ringType of {poly R}] a *m z).
  by move=> ta; rewrite relu_mask ta eval_mask.
have := IH _ N.2 dN.2 (dmask [ringType of {poly R}] a *m z).
rewrite -rel // z0 => /(_ gen2); have := act_near; move=> n1 n2.
have := near_and n1 n2; apply: near_sub => t [ta t2].
rewrite -eval_affine -/z ta /a z0; congr (_, _).
by rewrite rel.
Qed.

Theorem gradient_is_derivative d ws K (N dN : params R d ws K) x :
  generic N x ->
  exists p : 'cV[{poly R}]_K,
    [/\ forall g, mdot g (derivmx0 p) = dotp (grad N x g) dN, evalmx 0 p = fwd N x &
      near (fun t => evalmx t p = fwd (N + t *: dN) x)].
Proof.
move=> gen; pose px : 'cV[{poly R}]_d := map_mx polyC x.
have pxE t : evalmx t px = x by apply/colP => i; rewrite !mxE hornerC.
have pxD : derivmx0 px = 0 by apply/colP => i; rewrite !mxE derivC horner0.
have [p [pE pD]] := gradp_derivative N dN (pattern N x) px.
exists p; split=> [g||].
- by rewrite pD pxE pxD grad_gradp /mdot mulmx0 mxtrace0 addr0.
- by rewrite pE scale0r addr0 pxE -fwd_fwdp.
have := @pattern_near _ _ _ N dN px; rewrite pxE => /(_ gen).
by apply: near_sub => t; rewrite pE !pxE fwd_fwdp => ->.
Qed.

Definition sq_error K (f y : 'cV[R]_K) : R := \sum_k (f k 0 - y k 0) ^+ 2.

(* The batch gradient of the squared error (reduction sum) is its derivative. *)
Theorem mse_gradient d ws K (N dN : params R d ws K) M (x : 'I_M -> 'cV[R]_d) y :
  (forall m, generic N (x m)) ->
  exists q : {poly R},
    q^`().[0] = dotp (bgrad (@mse_lv R K 1) N x y) dN /\
    near (fun t => q.[t] = \sum_m sq_error (fwd (N + t *: dN) (x m)) (y m)).
Proof.
move=> gen; have /fin_all_exists[p pP] m := gradient_is_derivative dN (gen m).
pose q m := \sum_k (p m k 0 - (y m k 0)%:P) ^+ 2.
have dotp_sum (I : finType) (F : I -> params R d ws K) :
    dotp (\sum_i F i) dN = \sum_i dotp (F i) dN.
  have dot0 e vs (D : params R e vs K) : dotp 0 D = 0.
    elim: vs e D => [|n vs IH] e D /=; rewrite /mdot !trmx0 !mul0mx !mxtrace0 ?IH !addr0 //.
  have dotD e vs (A B D : params R e vs K) : dotp (A + B) D = dotp A D + dotp B D.
    elim: vs e A B D => [|n vs IH] e A B D /=;
      rewrite ?IH /mdot !linearD /= !mulmxDl !mxtraceD.
      by rewrite addrACA.
    by rewrite [X in X + _ = _]addrACA [LHS]addrACA.
  by elim/big_rec2: _ => [|i ? ? _ <-]; rewrite ?dot0 ?dotD.
exists (\sum_m q m); split.
  rewrite deriv_sum horner_sum /bgrad /gsum dotp_sum; apply: eq_bigr => m _.
  have [pD p0 _] := pP m; rewrite -pD deriv_sum horner_sum mdotE big_ord1.
  apply: eq_bigr => k _; rewrite !derivE /lossvecs -p0 !mxE !hornerE.
  have arr (u v : R) : (u - 0) * v + v * (u - 0) = 2%:R * v * u by ring.
  exact: arr.
have nearP m : near (fun t => evalmx t (p m) = fwd (N + t *: dN) (x m)) by case: (pP m).
have := near_all nearP; apply: near_sub => t Et.
rewrite horner_sum; apply: eq_bigr => m _; rewrite horner_sum; apply: eq_bigr => k _.
by rewrite -Et !mxE !hornerE.
Qed.

End Near.
