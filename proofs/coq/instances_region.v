(******************************************************************************)
(* Gradients and derivatives on concrete networks with rational numbers.      *)
(*                                                                            *)
(*   B   2-3-9-2 (instances.v): both layers' gradients as Delta H and Delta 1 *)
(*   H   1-2-1-1, f(x) = max(1 - |x|, 0) (instances_secure.v): on (0, 1) it   *)
(*       is the affine map 1 - x, with the gradients and derivatives of one   *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import network derivative exact compute instances instances_secure.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation NB := (NB R).
Local Notation xB := (xB R).
Local Notation yB := (yB R).
Local Notation topB := (topB R).
Local Notation hB := (hB R).
Local Notation NH := (NH R).
Local Notation point := (@point R).

(* B: [dW | db] of both layers; X has the columns 0, e_1, e_2.                *)
Definition GB := bgrad (mse_lv 1) NB xB yB.
Definition dW1B := tab [:: [:: 16; 28]; [:: 30; 26]; [:: -4; -4]].
Definition db1B := tab [:: [:: 24]; [:: 8]; [:: 8]].
Definition dW2B := tab [:: [:: 2; 4; 2]; [:: 2; 0; 2]; [:: -4; 4; -4]; [:: 0; -4; -4]; [:: 4; 14; 14];
  [:: 12; 12; 16]; [:: 8; 16; 16]; [:: 12; 20; 24]; [:: 2; -2; 0]].
Definition db2B := tab [:: [:: 4]; [:: 0]; [:: 4]; [:: 0]; [:: 4]; [:: 8]; [:: 8]; [:: 8]; [:: 0]].

Theorem B_first_layer : w1 GB = mxf 3 2 dW1B /\ b1 GB = mxf 3 1 db1B.
Proof.
rewrite /GB /bgrad w1_gsum b1_gsum Delta1_B -ones_mxf cols_sample tr_mxf !mul_mxf.
by split; apply: eq_mxf; vm_compute.
Qed.

Theorem B_second_layer : let G2 := @topp _ 2 [::] 3 [:: 9]%N 2 GB in
  w1 G2 = mxf 9 3 dW2B /\ b1 G2 = mxf 9 1 db2B.
Proof.
have [DE _ _] := factsB R; have hE : cols hB = mxf 3 3 HB by rewrite (eq_cols (hB_sample R)) cols_sample.
move=> G2; have -> : G2 = gsum topB hB (lossvecs (mse_lv 1) NB xB yB).
  exact: (@gsum_topp _ 2 [::] 3 [:: 9]%N 2 NB).
rewrite w1_gsum b1_gsum DE hE -ones_mxf tr_mxf !mul_mxf.
by split; apply: eq_mxf; vm_compute.
Qed.

(* H on (0, 1): neuron 0 of the first layer and the one of the second.        *)
Definition aH : pat [:: 2; 1]%N := (\col_j (j == 0), (const_mx true, tt)).

Lemma patternH t : 0 < t -> t < 1 -> pattern NH (point t) = aH.
Proof.
move=> t0 t1; congr (_, (_, _)).
  apply/colP => -[[|[|j]] lt_j] //; rewrite !mxE big_ord1 !mxE /tab /= rmorph0 addr0.
    by rewrite rmorph1 mul1r t0.
  by rewrite rmorphN1 mulN1r oppr_gt0 ltNge ltW.
rewrite -active_relu; apply/colP => j; rewrite [RHS]mxE [LHS]mxE.
have -> : relu (mxf 1 2 (tab [:: [:: -1; -1]]) *m relu (NH.1.1 *m point t + NH.1.2) +
  mxf 1 1 (tab [:: [:: 1]])) = point (Num.max (1 - `|t|) 0) by apply: hidH.
by rewrite mxE lt_maxr subr_gt0 ger0_norm ?t1 // ltW.
Qed.

Lemma maskH : dmask R aH.1 = mxf 2 2 (tab [:: [:: 1; 0]; [:: 0; 0]]).
Proof. by apply/matrixP => -[[|[|i]] lt_i] // [[|[|j]] lt_j] //; rewrite !mxE (rmorph1, rmorph0). Qed.

Lemma mask1 : dmask R (const_mx true : 'cV_1) = mxf 1 1 (tab [:: [:: 1]]).
Proof. by apply/matrixP => i j; rewrite !mxE (ord1 i) (ord1 j) rmorph1. Qed.

Lemma constE (s : int) : const_mx s%:~R = mxf 1 1 (tab [:: [:: s]]).
Proof. by apply/matrixP => i j; rewrite !mxE (ord1 i) (ord1 j) ratr_int. Qed.

Lemma slopeH : slope NH aH = const_mx (-1).
Proof.
rewrite /= maskH mask1 (constE (-1)) !mul_mxf.
by apply: eq_mxf; vm_compute.
Qed.

Lemma offsetH : fwdp NH aH 0 = const_mx 1.
Proof.
have add m f g : mxf m 1 f + mxf m 1 g = mxf m 1 (fun i j => f i j + g i j) :> 'cV[R]_m.
  by apply/matrixP => i j; rewrite !mxE rmorphD.
rewrite /= maskH mask1 (constE 1) mulmx0 add0r !(mul_mxf, add).
by apply: eq_mxf; vm_compute.
Qed.

Theorem H_affine t : 0 < t -> t < 1 ->
  fwd NH (point t) = fwdp NH aH (point t) /\ fwdp NH aH (point t) = const_mx (-1) *m point t + const_mx 1.
Proof. by move=> t0 t1; rewrite fwd_fwdp patternH // -slopeH -offsetH; split=> //; apply: fwdp_affine. Qed.

Lemma delta1pH : delta1p NH aH (const_mx 1 : 'cV_1) = mxf 2 1 (tab [:: [:: -1]; [:: 0]]).
Proof.
rewrite /= maskH mask1 (constE 1) !tr_mxf !mul_mxf.
by apply: eq_mxf; vm_compute.
Qed.

Theorem H_gradient t : 0 < t -> t < 1 ->
  let G := grad NH (point t) (const_mx 1) in
  b1 G = mxf 2 1 (tab [:: [:: -1]; [:: 0]]) /\ w1 G = t *: mxf 2 1 (tab [:: [:: -1]; [:: 0]]).
Proof.
move=> t0 t1 G; set D := mxf 2 1 _; have E : G = ((D *m (point t)^T, D), G.2).
  by rewrite /G grad_gradp patternH // -[D]delta1pH.
have tD : D *m (point t)^T = t *: D.
  by apply/matrixP => i j; rewrite !mxE big_ord1 !mxE mulrC (ord1 j).
by rewrite E -tD.
Qed.

(* The first bias grows: along dH the logit of 1/2 falls at the rate 1.       *)
Definition dH : params R 1 [:: 2; 1]%N 1 :=
  ((0, mxf 2 1 (tab [:: [:: 1]; [:: 0]])), 0).
Local Notation half := (2%:R^-1 : R).

Lemma mdot0 m n (A : 'M[R]_(m, n)) : mdot A 0 = 0.
Proof. by rewrite /mdot mulmx0 mxtrace0. Qed.

Lemma mdot1 (A : 'cV[R]_1) : mdot (const_mx 1) A = A 0 0.
Proof. by rewrite mdotE !big_ord1 mxE mul1r. Qed.

Lemma dotpH : dotp (gradp NH aH (point half) (const_mx 1)) dH = -1.
Proof.
rewrite [LHS]/= !mdot0 add0r !addr0.
rewrite -[X in mdot X _]/(delta1p NH aH (const_mx 1 : 'cV_1)) delta1pH /mdot tr_mxf mul_mxf.
by rewrite /mxtrace big_ord1 mxE -(rmorphN1 (ratr_rmorphism R)); congr ratr; apply/eqP; vm_compute.
Qed.

Lemma half_gt0 : 0 < half.
Proof. by rewrite invr_gt0 ltr0n. Qed.

Lemma half_lt1 : half < 1.
Proof. by rewrite invf_lt1 ?ltr0n // ltr1n. Qed.

Lemma patternH_half : pattern NH (point half) = aH.
Proof. exact: patternH half_gt0 half_lt1. Qed.

Lemma genericH : generic NH (point half).
Proof.
have z t : 0 < t -> t < 1 -> generic NH (point t).
  move=> t0 t1; have act := patternH t0 t1; split.
    case=> [[|[|j]] lt_j] //; rewrite !mxE big_ord1 !mxE /tab /= rmorph0 addr0.
      by rewrite rmorph1 mul1r gt_eqF.
    by rewrite rmorphN1 mulN1r oppr_eq0 gt_eqF.
  split=> // j; have /colP/(_ j) := congr1 (fun p => p.2.1) act.
  by rewrite mxE [RHS]mxE => /gt_eqF ->.
exact: z half_gt0 half_lt1.
Qed.

Theorem H_derivative : exists p : 'cV[{poly R}]_1,
  [/\ derivmx0 p = const_mx (-1), evalmx 0 p = point half &
      near (fun t => evalmx t p = fwd (NH + t *: dH) (point half))].
Proof.
have [p [pD p0 pN]] := gradient_is_derivative dH genericH; exists p; split=> //.
  apply/colP => i; rewrite (ord1 i) [RHS]mxE -mdot1 pD grad_gradp patternH_half.
  exact: dotpH.
by rewrite p0 fwdH gtr0_norm ?half_gt0 // half_left max_l // ltW ?half_gt0.
Qed.

(* And at the rate 2 when the input grows as well.                            *)
Theorem H_region_derivative : exists p : 'cV[{poly R}]_1,
  derivmx0 p = const_mx (-2%:R) /\
  forall t, evalmx t p = fwdp (NH + t *: dH) aH (point (half + t)).
Proof.
pose px : 'cV[{poly R}]_1 := const_mx (half%:P + 'X).
have at_t t : evalmx t px = point (half + t) by apply/colP => i; rewrite !mxE !hornerE.
have [p [pE pD]] := gradp_derivative NH dH aH px; exists p; split=> [|t]; last by rewrite pE at_t.
apply/colP => i; rewrite (ord1 i) [RHS]mxE -mdot1 pD at_t addr0 dotpH slopeH.
have -> : mdot ((const_mx (-1) : 'M_1)^T *m const_mx 1) (derivmx0 px) = -1.
  by rewrite mdotE !big_ord1 !mxE big_ord1 !mxE mulr1 derivD derivC derivX add0r hornerC mulr1.
by rewrite -opprD -(natrD _ 1 1).
Qed.

(* Every input close enough to 1/2 has its pattern.                           *)
Theorem H_open : exists2 e : R, 0 < e & forall t, `|t - half| < e -> pattern NH (point t) = aH.
Proof.
have [e e0 open] := pattern_open genericH; exists e => // t te.
by rewrite open ?patternH_half // => i; rewrite !mxE.
Qed.

End Instances.
