(******************************************************************************)
(* Shared weights on a concrete network.                                      *)
(*                                                                            *)
(*   Y   a convolution of two taps on three pixels below a linear head, one   *)
(*       sample: its two active outputs leave a line free, which the weight   *)
(*       gradient does not                                                    *)
(*   AA  a sum of two branches on one number, and two taps on two pixels      *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting exact downward convolutions compute instances.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.
Variable R : realFieldType.

(* Outputs w_0 x_0 + w_1 x_1 and w_0 x_1 + w_1 x_2, w = (1, -1), x = (2, 1, 0). *)
Definition tapY (e : 'I_2) : 'M[R]_(2, 3) := \matrix_(i, j) (j == (i + e)%N :> nat)%:R.
Definition stageY : stage R 3 2 2 := ((tapY, \col_e (if e == 0 then 1 else -1)), 0).
Definition CY : stages R 3 [:: (2, 2)%N] := (stageY, tt).
Definition NY : params R 2 [::] 1 := (const_mx 1, 0).
Definition xY : 'I_1 -> 'cV[R]_3 := fun _ => \col_j (2%:R - (j : nat)%:R).
Definition yY : 'I_1 -> 'cV[R]_1 := fun _ => const_mx 1.

Lemma mapY (v : 'cV[R]_3) : stage_map stageY *m v = \col_i (v (inord i) 0 - v (inord i.+1) 0).
Proof.
apply/colP => i; rewrite /stage_map !big_ord_recl big_ord0 addr0 mulmxDl -!scalemxAl !mxE.
rewrite !big_ord_recl !big_ord0 !mxE.
case: i => [[|[|i]] lt_i] //=; rewrite ?(mul0r, mul1r, addr0, add0r, mulN1r);
  by congr (v _ _ - v _ _); apply: val_inj; rewrite /= inordK.
Qed.

Lemma actY m : stage_map stageY *m xY m + 0 = const_mx 1.
Proof.
rewrite addr0 mapY; apply/colP => i; rewrite !mxE.
by case: i => [[|[|i]] lt_i] //; rewrite !inordK //=; ring.
Qed.

Lemma featuresY m : features CY (xY m) = const_mx 1.
Proof.
rewrite /= /sact actY; apply/colP => i; rewrite !mxE.
by apply/max_idPl; rewrite ler01.
Qed.

Lemma fwdY m : fwd NY (features CY (xY m)) = const_mx 2%:R.
Proof.
rewrite featuresY /= addr0; apply/colP => i; rewrite !mxE.
by rewrite !big_ord_recl big_ord0 !mxE addr0 mulr1.
Qed.

Lemma vectorY m : mse_lv 1 (fwd NY (features CY (xY m))) (yY m) = const_mx 2%:R.
Proof.
by rewrite fwdY; apply/colP => i; rewrite !mxE mul1r -[2%:R - 1]/(2%:R - 1%:R) -natrB // mulr1.
Qed.

Lemma deltaY m : sdelta stageY (xY m) (head_gradient CY NY (mse_lv 1) (xY m) (yY m)) = const_mx 2%:R.
Proof.
rewrite /sdelta actY /head_gradient [delta1 _ _ _]/= vectorY; apply/colP => j.
by rewrite dmaskE !mxE ltr01 big_ord1 !mxE mul1r.
Qed.

(* Both outputs are active: they leave equal entries free, and the weight     *)
(* gradient, 4 times such an entry, tells it.                                 *)
Lemma determinedY : determined CY xY (fun m => head_gradient CY NY (mse_lv 1) (xY m) (yY m)).
Proof.
split=> // v on eg m; have -> : m = ord0 by exact: ord1.
have two (i : 'I_2) : v ord0 (inord i) 0 = v ord0 (inord i.+1) 0.
  apply/eqP; rewrite -subr_eq0; apply/eqP.
  have := on ord0 i; rewrite [stageY.2]/= actY mapY !mxE ltr01; exact.
have := congr1 (fun z : 'cV_2 => z 0 0) eg; rewrite big_ord1 /= mxE.
rewrite deltaY !mxE !big_ord_recl big_ord0 !mxE !big_ord_recl !big_ord0 !mxE /=.
have e0 : ord0 = inord 0 :> 'I_3 by apply: val_inj; rewrite /= inordK.
have e1 : lift ord0 ord0 = inord 1 :> 'I_3 by apply: val_inj; rewrite /= inordK.
move: (two ord0) (two ord_max) => /= t0 t1; rewrite !(mul0r, mul1r, addr0, add0r) e1 e0 -t0 -mulrDl -natrD.
move=> /eqP; rewrite mulf_eq0 pnatr_eq0 /= => /eqP a0.
apply/colP => j; rewrite [RHS]mxE; case: j => [[|[|[|j]]] lt_j] //.
- by rewrite (_ : Ordinal lt_j = inord 0) //; apply: val_inj; rewrite /= inordK.
- by rewrite (_ : Ordinal lt_j = inord 1) -?t0 //; apply: val_inj; rewrite /= inordK.
by rewrite (_ : Ordinal lt_j = inord 2) -?t1 -?t0 //; apply: val_inj; rewrite /= inordK.
Qed.

(* No other batch of one sample, with any real label.                         *)
Theorem Y_unique (x' : 'I_1 -> 'cV[R]_3) (y' : 'I_1 -> 'cV[R]_1) :
  bgrad (mse_lv 1) NY (fun m => features CY (x' m)) y' = bgrad (mse_lv 1) NY (fun m => features CY (xY m)) yY ->
  same_gradients CY xY x' (fun m => head_gradient CY NY (mse_lv 1) (xY m) (yY m))
    (fun m => head_gradient CY NY (mse_lv 1) (x' m) (y' m)) -> same_batch xY x' yY y'.
Proof.
move=> E eg.
refine (@CV1 R 3 [:: (2, 2)%N] CY [::] 1 NY (mse_lv 1) (fun _ => True) 1 xY x' yY y' _ determinedY (fun _ => I) E eg).
move=> f l _.
rewrite /bgrad /gsum !big_ord1 /lossvecs vectorY => -[] + eg2; rewrite eg2 => ef.
exists 1%g => m; rewrite perm1 (ord1 m).
have eF : f ord0 = features CY (xY ord0).
  apply/trmx_inj/rowP => i; have /matrixP/(_ 0 i) := ef; rewrite !mxE !big_ord1 !mxE.
  by move/mulfI; apply; rewrite pnatr_eq0.
split=> //; move: eg2; rewrite eF -(vectorY ord0) => /mse_lv_inj ->; congr (yY _).
Qed.
(* relu (u + x), u = relu x, on one number: both branches have weight 1.      *)
Definition stageAA : stage R 1 1 1 := ((fun _ => 1%:M, const_mx 1), 0).
Definition CAA : stages R 1 [:: (1, 1)%N] := (stageAA, tt).
Definition oneAA : 'I_1 -> 'cV[R]_1 := fun _ => const_mx 1.

Lemma mapAA : stage_map stageAA = 1%:M.
Proof. by rewrite /stage_map big_ord1 mxE scale1r. Qed.

Lemma gradientAA (v delta : 'cV[R]_1) : weight_gradient stageAA v delta = const_mx (delta 0 0 * v 0 0).
Proof. by apply/colP => i; rewrite !mxE big_ord1 mul1mx !mxE. Qed.

Lemma actAA m : stage_map stageAA *m oneAA m + stageAA.2 = const_mx 1.
Proof. by rewrite mapAA mul1mx addr0. Qed.

Lemma addedAA m : added CAA stageAA 1%:M (oneAA m) = const_mx 2%:R.
Proof.
rewrite /added /= /sact actAA mapAA !mul1mx addr0; apply/colP => i; rewrite !mxE.
by rewrite (max_idPl ler01) -mulr2n.
Qed.

Lemma deltaAA m : dmask R (active (added CAA stageAA 1%:M (oneAA m))) *m oneAA m = const_mx 1.
Proof. by rewrite addedAA; apply/colP => i; rewrite dmaskE !mxE ltr0n. Qed.

Lemma aloneAA (v : 'I_1 -> 'cV[R]_1) :
  \sum_m weight_gradient stageAA (v m) (dmask R (active (added CAA stageAA 1%:M (oneAA m))) *m oneAA m) = 0 ->
  forall m, v m = 0.
Proof.
rewrite big_ord1 deltaAA gradientAA mxE mul1r => /colP/(_ 0); rewrite !mxE => v0 m.
by apply/colP => i; rewrite (ord1 m) (ord1 i) v0 mxE.
Qed.

(* No other input has this sum and these weight gradients.                    *)
Theorem AA_sum (x' w' : 'I_1 -> 'cV[R]_1) :
  let delta y v m := dmask R (active (added CAA stageAA 1%:M (y m))) *m v m in
  (forall m, relu (added CAA stageAA 1%:M (x' m)) = relu (added CAA stageAA 1%:M (oneAA m))) ->
  (forall m, w' m = oneAA m) ->
  \sum_m weight_gradient stageAA (features CAA (x' m)) (delta x' w' m) =
    \sum_m weight_gradient stageAA (features CAA (oneAA m)) (delta oneAA oneAA m) ->
  same_gradients CAA oneAA x' (fun m => (stage_map stageAA)^T *m delta oneAA oneAA m)
    (fun m => (stage_map stageAA)^T *m delta x' w' m) ->
  forall m, x' m = oneAA m.
Proof.
move=> delta eh ew eg rest; apply: (CV1_sum eh ew eg aloneAA rest); split=> // v on _ m.
apply/colP => i; have := on m i; rewrite actAA mapAA mul1mx !mxE ltr01; exact.
Qed.

Theorem AA_shortcut (x' w' : 'I_1 -> 'cV[R]_1) :
  let delta y v m := dmask R (active (added CAA stageAA (stage_map stageAA) (y m))) *m v m in
  (forall m, relu (added CAA stageAA (stage_map stageAA) (x' m)) =
    relu (added CAA stageAA (stage_map stageAA) (oneAA m))) ->
  (forall m, w' m = oneAA m) ->
  \sum_m weight_gradient stageAA (x' m) (delta x' w' m) =
    \sum_m weight_gradient stageAA (oneAA m) (delta oneAA oneAA m) ->
  forall m, x' m = oneAA m.
Proof.
move=> delta eh ew eg; apply: (CV1_shortcut eh ew eg) => v.
by rewrite /= mapAA; exact: aloneAA.
Qed.

(* Two taps on two pixels, one position.                                      *)
Theorem AA_taps (w : 'I_1 * 'I_1 * 'I_2 -> R) (b : 'I_1 * 'I_1 -> R) (x : 'I_1 * 'I_2 -> R) (delta : 'I_1 * 'I_1 -> R) t :
  let A := convolution (fun t (_ : 'I_1) => Some t) w b in
  (stage_map A *m coordinates x) (enum_rank (ord0, ord0)) 0 =
    w (ord0, ord0, ord0) * x (ord0, ord0) + w (ord0, ord0, ord_max) * x (ord0, ord_max) /\
  weight_gradient A (coordinates x) (coordinates delta) (enum_rank (ord0, ord0, t)) 0 =
    delta (ord0, ord0) * x (ord0, t).
Proof.
split; last by rewrite convolution_gradient big_ord1.
rewrite convolutionE big_ord1 !big_ord_recl big_ord0 addr0 /taken.
by congr (_ + w (_, _, _) * x (_, _)); apply: val_inj.
Qed.

End Instances.
