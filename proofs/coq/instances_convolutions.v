(******************************************************************************)
(* Shared weights on a concrete network.                                      *)
(*                                                                            *)
(*   Y   a convolution of two taps on three pixels below a linear head, one   *)
(*       sample: its two active outputs leave a line free, which the weight   *)
(*       gradient does not                                                    *)
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
End Instances.
