(******************************************************************************)
(* What protects a batch, on concrete networks with rational numbers.         *)
(*                                                                            *)
(*   H   1-2-1-1, f(x) = max(1 - |x|, 0): dead and silent samples, S3         *)
(*   J   3-2-1, three samples of three patterns: narrow first layer           *)
(*   Q   2-2-1, two samples of one pattern: P2_two                            *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network derivative shared exclusive dead narrow pairs compute.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation sample := (sample R).
Local Notation one_hidden := (one_hidden R).

(* H: the second hidden layer is dead for |x| >= 1, on both sides of zero,    *)
(* where the patterns of the first one differ.                                *)
Definition topH := one_hidden 2 1 1 (tab [:: [:: -1; -1]]) (tab [:: [:: 1]])
  (tab [:: [:: 1]]) (tab [:: [:: 0]]).
Definition NH : params R 1 ([:: 2] ++ [:: 1])%N 1 :=
  ((mxf 2 1 (tab [:: [:: 1]; [:: -1]]), mxf 2 1 (tab [:: [:: 0]; [:: 0]])), topH).

Definition point (t : R) : 'cV[R]_1 := const_mx t.
Definition pairH (s t : R) (m : 'I_2) : 'cV[R]_1 := point (if m == 0 then s else t).

Lemma hidH t : hid (ws1 := [:: 2%N]) NH (point t) = point (Num.max (1 - `|t|) 0).
Proof.
apply/colP => j; rewrite !mxE (ord1 j) !big_ord_recl big_ord0 !mxE !big_ord_recl !big_ord0 !mxE /tab /=.
rewrite rmorph0 !rmorph1 !rmorphN1 !mulN1r !mul1r !addr0 addrC -opprD; congr (Num.max (_ - _) _).
case: (ler0P t) => [t0|/ltW t0]; first by rewrite max_l ?oppr_ge0 ?add0r ?addr0.
by rewrite max_r ?oppr_le0 ?add0r ?addr0.
Qed.

Lemma fwdH t : fwd NH (point t) = point (Num.max (1 - `|t|) 0).
Proof.
rewrite -[fwd NH _]/(_ *m hid (ws1 := [:: 2%N]) NH (point t) + _) hidH.
by apply/colP => j; rewrite !mxE big_ord1 !mxE /tab /= (ord1 j) /= rmorph0 rmorph1 mul1r addr0.
Qed.

Lemma dead_at t : 1 <= `|t| -> hid (ws1 := [:: 2%N]) NH (point t) = 0.
Proof. by move=> t1; rewrite hidH max_r ?subr_le0. Qed.

Theorem H_dead s t g : 1 <= `|s| -> 1 <= `|t| ->
  fwd NH (point t) = fwd NH (point s) /\ grad NH (point t) g = grad NH (point s) g.
Proof. by move=> /dead_at s1 /dead_at t1; apply: (S3_dead (ws1 := [:: 2%N])). Qed.

(* Beside the sample 1/2, the sample 2 may be anything outside (-1, 1),       *)
(* for every loss and all labels.                                             *)
Theorem H_batch lv t y : 1 <= `|t| ->
  bgrad lv NH (pairH 2%:R^-1 t) y = bgrad lv NH (pairH 2%:R^-1 2%:R) y.
Proof.
move=> t1; apply: (S3_batch (ws1 := [:: 2%N])) => m; rewrite /pairH; case: ifP => _; first by left.
by right; split; apply: dead_at => //; rewrite normr_nat ler1n.
Qed.

(* Another batch indeed, and the layer does see the sample 1/2. *)
Theorem H_other : (forall s : 'S_2, ~ (forall m, pairH 2%:R^-1 (-3%:R) m = pairH 2%:R^-1 2%:R (s m))) /\
  hid (ws1 := [:: 2%N]) NH (point 2%:R^-1) != 0.
Proof.
split=> [s /(_ 1)/colP/(_ 0)|]; last first.
  rewrite hidH; apply/eqP => /colP/(_ 0); rewrite !mxE => /eqP.
  by rewrite gt_eqF // lt_maxr subr_gt0 ger0_norm ?invr_ge0 ?ler0n // invf_lt1 ?ltr0n // ltr1n.
rewrite !mxE /= => /eqP; rewrite lt_eqF //; apply: (@lt_trans _ _ 0); first by rewrite oppr_lt0 ltr0n.
by case: ifP => _; rewrite ?invr_gt0 ltr0n.
Qed.

(* The labels 0 and 1/2: the sample 1/2 is silent, and so is -1/2. *)
Definition yH (m : 'I_2) : 'cV[R]_1 := point (if m == 0 then 0 else 2%:R^-1).

Lemma half_left : 1 - 2%:R^-1 = 2%:R^-1 :> R.
Proof. by rewrite {1}(splitr 1) mul1r addrK. Qed.

Theorem H_silent_sample s : 1 - `|s| = 2%:R^-1 ->
  grad NH (point s) (mse_lv 1 (fwd NH (point s)) (point 2%:R^-1)) = 0.
Proof.
move=> sE; rewrite fwdH sE max_l ?invr_ge0 ?ler0n // /mse_lv subrr !scaler0.
exact: S3_silent.
Qed.

Lemma second_silent (N : params R 1 [:: 2; 1]%N 1) lv (x y : 'I_2 -> 'cV[R]_1) :
  lv (fwd N (x 1)) (y 1) = 0 -> bgrad lv N x y = grad N (x 0) (lv (fwd N (x 0)) (y 0)).
Proof.
move=> silent; rewrite /bgrad /gsum big_ord_recl big_ord1 /lossvecs.
have -> : lift ord0 ord0 = 1 :> 'I_2 by apply: val_inj.
by rewrite silent S3_silent addr0.
Qed.

Lemma silentH s : 1 - `|s| = 2%:R^-1 ->
  bgrad (mse_lv 1) NH (pairH 0 s) yH = grad NH (point 0) (mse_lv 1 (fwd NH (point 0)) (yH 0)).
Proof.
move=> sE; have silent : mse_lv 1 (fwd NH (pairH 0 s 1)) (yH 1) = 0.
  rewrite -[pairH 0 s 1]/(point s) -[yH 1]/(point 2%:R^-1) fwdH sE max_l ?invr_ge0 ?ler0n //.
  by rewrite /mse_lv subrr !scaler0.
by rewrite (second_silent silent) /pairH eqxx.
Qed.

Theorem H_silent : bgrad (mse_lv 1) NH (pairH 0 (- 2%:R^-1)) yH = bgrad (mse_lv 1) NH (pairH 0 2%:R^-1) yH.
Proof.
by rewrite !silentH // ?normrN ger0_norm ?invr_ge0 ?ler0n ?half_left.
Qed.

(* J: no two samples share a pattern; along the third input nothing is seen.  *)
Definition WJ := tab [:: [:: 1; 0; 0]; [:: 0; 1; 0]].
Definition bJ := tab [:: [:: 0]; [:: 0]].
Definition UJ := tab [:: [:: 1; 1]].
Definition cJ := tab [:: [:: 0]].
Definition XJ := tab [:: [:: 1; -1; 1]; [:: -1; 1; 1]; [:: 5; 6; 7]].
Definition YJ := tab [:: [:: 0; 0; 0]].
Definition NJ := one_hidden 3 2 1 WJ bJ UJ cJ.
Definition xJ (m : 'I_3) : 'cV[R]_3 := sample 3 XJ m.
Definition yJ (m : 'I_3) : 'cV[R]_1 := sample 1 YJ m.
Definition vJ : 'cV[R]_3 := mxf 3 1 (tab [:: [:: 0]; [:: 0]; [:: 1]]).
Definition alphaJ (m : 'I_3) : R := ratr (tab [:: [:: 2; 2; -1]] 0%N m).

Lemma gJ m : lossvecs (mse_lv 1) NJ xJ yJ m = sample 1 (msef (logitf 3 2 WJ bJ UJ cJ XJ) YJ) m.
Proof. by rewrite /lossvecs fwd_sample mse_sample. Qed.

Theorem J_line t :
  bgrad (mse_lv 1) NJ (sheared xJ alphaJ vJ t) yJ = bgrad (mse_lv 1) NJ xJ yJ.
Proof.
apply: narrow_line.
  by rewrite mul_mxf -zero_mxf; apply: eq_mxf; vm_compute.
under eq_bigr do rewrite gJ delta1_sample.
rewrite !big_ord_recl big_ord0; apply/colP => j; rewrite !mxE /alphaJ.
by case: j => [[|[|j]] lt_j] //;
  rewrite addr0 -!rmorphM -!rmorphD; apply/eqP; rewrite fmorph_eq0; vm_compute.
Qed.

Theorem J_ambiguous : exists (X : R -> 'I_3 -> 'cV[R]_3) (m : 'I_3),
  [/\ X 0 =1 xJ, forall t, bgrad (mse_lv 1) NJ (X t) yJ = bgrad (mse_lv 1) NJ xJ yJ &
      injective (fun t => X t m)].
Proof. exact: narrow_ambiguous. Qed.

(* Q: two inputs, one logit, both neurons active for both samples. *)
Definition WQ := tab [:: [:: 1; 0]; [:: 0; 1]].
Definition bQ := tab [:: [:: 0]; [:: 0]].
Definition UQ := tab [:: [:: 1; 1]].
Definition cQ := tab [:: [:: 0]].
Definition XQ := tab [:: [:: 1; 2]; [:: 1; 3]].
Definition YQ := tab [:: [:: 0; 1]].
Definition NQ := one_hidden 2 2 1 WQ bQ UQ cQ.
Definition xQ (m : 'I_2) : 'cV[R]_2 := sample 2 XQ m.
Definition yQ (m : 'I_2) : 'cV[R]_1 := sample 1 YQ m.

Lemma positiveQ (j m : 'I_2) : 0 < preact 2 WQ bQ XQ j m.
Proof.
have on : eqf 2 2 (fun j m => if 0 < preact 2 WQ bQ XQ j m then 1 else 0) (fun _ _ => 1).
  by vm_compute.
by have := eqf_at j m on; case: (0 < _).
Qed.

Theorem Q_ambiguous lv : exists2 e : R, 0 < e & forall t : R, t != 0 -> `|t| < e ->
  exists x' : 'I_2 -> 'cV[R]_2,
    bgrad lv NQ x' yQ = bgrad lv NQ xQ yQ /\ forall s : 'S_2, ~ (forall m, x' m = xQ (s m)).
Proof.
apply: P2_two => // [|m].
  split=> // j m ex; have on m' : is_active NQ xQ j m' by rewrite /is_active z_sample mxE ltr0q positiveQ.
  by have := ex 0; have := ex 1; rewrite !on; case: (two_cases m) => ->.
by split=> // j; rewrite z_sample mxE fmorph_eq0 gt_eqF ?positiveQ.
Qed.

End Instances.
