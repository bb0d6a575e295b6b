(******************************************************************************)
(* Labels, and batches of one sample, on concrete networks.                   *)
(*                                                                            *)
(*   A   1-3-1 (instances.v): the output layer tells the loss vectors; its    *)
(*       first sample as a batch of its own                                   *)
(*   B   2-3-9-2 (instances.v): the backward map from the logits to the       *)
(*       second hidden layer is injective for each sample; its first sample   *)
(*   E   2-7-2 (instances.v): the sample alone in its group, with its label   *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact downward groups labels compute instances instances_layer.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation sample := (sample R).
Local Notation batch_of := (batch_of R).
Local Notation NA := (NA R).
Local Notation xA := (xA R).
Local Notation yA := (yA R).
Local Notation NB := (NB R).
Local Notation xB := (xB R).
Local Notation yB := (yB R).
Local Notation topB := (topB R).
Local Notation NE := (NE R).
Local Notation xE := (xE R).
Local Notation yE := (yE R).

(* The rank of a matrix with a left inverse. *)
Lemma rank_left n r (D : 'M[R]_(n, r)) L : L *m D = 1%:M -> \rank D = r.
Proof. by move=> LD; rewrite -[D]mulmx1; apply: rank_product LD _; apply: mulmx1. Qed.

(* A: [H_1 1] has rank 2, so both loss vectors follow from the inputs.        *)
Lemma rank_featuresA : \rank (lift1 (fun m : 'I_2 => act NA (xA m))) = 2%N.
Proof.
rewrite (lift1_samples (actA R)) -[mxf _ _ _]mul1mx.
apply: (rank_product (L := 1%:M) (T := mxf 4 2 (tab [:: [:: 1; 0]; [:: 0; 1]; [:: 0; 0]; [:: 0; 0]]))).
  by rewrite mulmx1.
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

Theorem A_output_rank (x' : 'I_2 -> 'cV[R]_1) g' (s : 'S_2) : (forall m, x' m = xA (s m)) ->
  gsum NA x' g' = bgrad (mse_lv 1) NA xA yA -> forall m, g' m = sample 1 gA (s m).
Proof.
move=> xs E m; rewrite -lossA.
exact: (@output_rank _ 1 1 [::] 3 NA _ _ _ _ _ s xs rank_featuresA E).
Qed.

Theorem A_output_rank_batch (x' : 'I_2 -> 'cV[R]_1) y' (s : 'S_2) : (forall m, x' m = xA (s m)) ->
  bgrad (mse_lv 1) NA x' y' = bgrad (mse_lv 1) NA xA yA -> same_batch xA x' yA y'.
Proof.
move=> xs; apply: (@output_rank_batch _ 1 _ 1 [::] 3 NA (fun _ => True) _ _ _ _ _ s xs rank_featuresA) => //.
by move=> m l _ /mse_lv_inj.
Qed.

(* Its first sample alone: x = 1, with delta (2, 0, 2).                       *)
Theorem A_single (x' : 'I_1 -> 'cV[R]_1) g' :
  gsum NA x' g' = bgrad (mse_lv 1) NA (@batch_of 1 XA 1) (@batch_of 1 YA 1) ->
  forall m : 'I_1, x' m = sample 1 XA m /\ delta1 NA (x' m) (g' m) = sample 3 DA m.
Proof.
have xE (m : 'I_1) : @batch_of 1 XA 1 m = sample 1 XA m by [].
have gE (m : 'I_1) : lossvecs (mse_lv 1) NA (@batch_of 1 XA 1) (@batch_of 1 YA 1) m = sample 1 gA m.
  by rewrite (@lossvecs_mse R 1 2 0 0 WA bA UA cA XA YA) //; apply: eq_sample; vm_compute.
have DE : Delta1 NA (@batch_of 1 XA 1) (lossvecs (mse_lv 1) NA (@batch_of 1 XA 1) (@batch_of 1 YA 1)) = mxf 3 1 DA.
  by rewrite (Delta1_samples _ _ _ _ _ xE gE); apply: eq_mxf; vm_compute.
move=> E m; have [|-> ->] := single _ E m; last first.
  by split=> //; have := congr1 (col m) DE; rewrite colsE => ->; apply/colP => j; rewrite !mxE.
rewrite gradmxE DE (lift1_samples xE).
apply: (rank_product (L := mxf 1 3 LA) (T := mxf 2 1 (tab [:: [:: 1]; [:: 0]]))).
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

(* B: rows of the weights of two active neurons are independent for each      *)
(* sample, so no change of a label hides from the second hidden layer.        *)
Definition backB (m : nat) : table := fun j k => if 0 < preact 3 WB bB HB j m then UB k j else 0.
Definition LbackB (m : nat) : table := fun i j =>
  tab [:: [:: 0; 0; 0; 0; 0; 0; 0; 1; 0]; if (m < 2)%N then [:: 0; 2] else [:: 0; 0; 0; 0; 0; 1]] i j / 2%:R.

Lemma backwardB (m : 'I_3) : backward topB (act NB (xB m)) = mxf 9 2 (backB m).
Proof.
rewrite -[act NB (xB m)]/(hB R m) hB_sample /backward /= z_sample active_sample mulmx1.
by apply/matrixP => j k; rewrite dmaskE !mxE /backB; case: ifP => _; rewrite ?rmorph0.
Qed.

Lemma left_backB (m : 'I_3) : mxf 2 9 (LbackB m) *m backward topB (act NB (xB m)) = 1%:M.
Proof.
have ok : all (fun m => eqf 2 2 (mulf 9 (LbackB m) (backB m)) onef) (iota 0 3) by vm_compute.
by rewrite backwardB mul_mxf -one_mxf; apply: eq_mxf; apply: (allP ok); rewrite mem_iota ltn_ord.
Qed.

Theorem B_backward_rank (m : 'I_3) : label_told (mse_lv 1) NB (fun _ => True) (xB m) (yB m).
Proof. by apply: backward_rank; [exact: rank_left (left_backB m) | move=> l _ /mse_lv_inj]. Qed.

Theorem B_backward_map (m : 'I_3) : label_told (mse_lv 1) NB (fun _ => True) (xB m) (yB m).
Proof.
apply: backward_map => l _; apply: contra_neq => B0.
have := congr1 (mulmx (mxf 2 9 (LbackB m))) B0; rewrite mulmxA left_backB mul1mx mulmx0.
by move/eqP; rewrite subr_eq0 => /eqP/mse_lv_inj.
Qed.

(* Its first sample alone: the second layer gives the first layer's output,   *)
(* and the first layer the input.                                             *)
Definition oneB (_ : 'I_1) : 'cV[R]_2 := xB ord0.
Definition goneB (_ : 'I_1) : 'cV[R]_2 := lossvecs (mse_lv 1) NB xB yB ord0.

Theorem B_single_inputs (x' : 'I_1 -> 'cV[R]_2) g' : gsum NB x' g' = gsum NB oneB goneB ->
  forall m, x' m = sample 2 XB 0.
Proof.
move=> E; apply: (@single_inputs R 2 2 [::] 3 [:: 9]%N NB oneB x' goneB g') E; last first.
  have dE : delta1 NB (xB ord0) (lossvecs (mse_lv 1) NB xB yB ord0) = sample 3 D1B 0.
    have := congr1 (col ord0) (Delta1_B R); rewrite colsE => ->.
    by apply/colP => j; rewrite !mxE.
  have DE : Delta1 NB oneB goneB = mxf 3 1 D1B.
    by rewrite -cols_sample; apply: eq_cols => m; rewrite (ord1 m); apply: dE.
  apply: etrans (congr1 (@mxrank _ _ _) DE) _; apply: (@rank_left _ _ _ (mxf 1 3 (fun _ j => tab [:: [:: 0; 0; 1]] 0%N j / 16%:R))).
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
pose h (m : 'I_1) := sample 3 HB m.
have hE : lift1 (fun m => hid (ws1 := [::]) NB (oneB m)) = lift1 h.
  by congr (row_mx _ _); congr trmx; apply: eq_cols => m; rewrite (ord1 m); apply: hB_sample.
have DE : Delta1 topB (fun m => hid (ws1 := [::]) NB (oneB m)) goneB = mxf 9 1 DB.
  by rewrite -cols_sample; apply: eq_cols => m; rewrite (ord1 m); apply: (deltaB R ord0).
rewrite gradmxE; apply: etrans (congr1 (@mxrank _ _ _) (congr2 (@mulmx _ _ _ _) DE hE)) _.
rewrite (@lift1_samples R 3 1 HB) //; apply: (rank_product (L := mxf 1 9 (fun _ j => if j == 0%N then 6%:R^-1 else 0))
  (T := mxf 4 1 (tab [:: [:: 1]; [:: 0]; [:: 0]; [:: 0]]))).
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

(* E: the sample alone in its group is in every batch of three samples with   *)
(* this gradient, with its label.                                             *)
Theorem E_sample (x' : 'I_3 -> 'cV[R]_2) y' : bgrad (mse_lv 1) NE x' y' = bgrad (mse_lv 1) NE xE yE ->
  exists m, x' m = xE ord_max /\ y' m = yE ord_max.
Proof.
have gE m : lossvecs (mse_lv 1) NE xE yE m = sample 2 (msef (logitf 2 7 WE bE UE cE XE) YE) m.
  exact: lossvecs_mse.
have [_ rA rR] := layer_facts checksE (fun m => erefl (xE m)) gE.
apply: (@C2_sample _ _ _ _ _ _ NE (fun _ => True) 3 2 (fun _ => True) 1%:M _ grE) => //.
- exact: shareE.
- exact: confined_plain.
- by apply: leq_trans rR; rewrite card_pairsE card_mono.
- exact: aloneE.
- by move=> l _ /mse_lv_inj.
Qed.

End Instances.
