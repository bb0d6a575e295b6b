(******************************************************************************)
(* C1 with fewer unknowns than next deltas have entries (K' < n_{i+1}), on    *)
(* concrete networks with rational numbers.                                   *)
(*                                                                            *)
(*   K   1-5-3, two samples: the next layer's gradient confines them to its   *)
(*       two columns; five neurons, where K' = 3 needs seven                  *)
(*   O   1-3-2, two samples, loss vectors that sum to zero: three neurons,    *)
(*       where K' = 2 needs five                                              *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact downward pairs compute instances instances_layer
  instances_shared.

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
Local Notation batch_of := (batch_of R).
Local Notation xA := (xA R).
Local Notation lvV := (@lvV R).

(* K: neurons 0 and 1 are exclusive to sample 0, 2 and 3 to sample 1, and     *)
(* neuron 4 is shared.                                                        *)
Definition WK := tab [:: [:: 1]; [:: 2]; [:: -1]; [:: -2]; [:: 0]].
Definition bK := tab [:: [:: 0]; [:: 0]; [:: 0]; [:: 0]; [:: 1]].
Definition UK := tab [:: [:: 1; 0; 0; -1; 1]; [:: 1; 0; 0; 0; 0]; [:: 1; -1; 1; -1; 0]].
Definition cK := tab [:: [:: 0]; [:: 0]; [:: 0]].
Definition XK := tab [:: [:: 1; -1]].
Definition YK := tab [:: [:: 1; 0]; [:: 0; 1]; [:: 0; 0]].
Definition NK := one_hidden 1 5 3 WK bK UK cK.
Definition xK : 'I_2 -> 'cV[R]_1 := batch_of 1 XK.
Definition yK : 'I_2 -> 'cV[R]_3 := batch_of 3 YK.

Definition GK := tab [:: [:: 2; -2]; [:: 2; -2]; [:: -2; -2]].
Definition HK := tab [:: [:: 1; 0]; [:: 2; 0]; [:: 0; 1]; [:: 0; 2]; [:: 1; 1]].
Definition DK := tab [:: [:: 2; 0]; [:: 2; 0]; [:: 0; -2]; [:: 0; 4]; [:: 2; -2]].
Definition VK := tab [:: [:: 2; -6]; [:: 2; 2]; [:: -2; -2]; [:: 0; 4]; [:: 2; -2]].
Definition rowsK := iota 0 5.
Definition codesK := [:: (true, 0, 0); (true, 0, 1); (true, 1, 1); (false, 0, 1); (false, 1, 0)]%N.
Definition invK : table := fun i j => tab [:: [:: 1; 3; 0; 0; 0]; [:: 1; 1; -2; 1; -2]; [:: 0; 0; 0; 1; 0];
  [:: 1; -1; 0; 0; 0]; [:: 0; 0; -4; 1; 0]] i j / 16%:R.

Definition gK := lossvecs (mse_lv 1) NK xK yK.

Lemma lossK m : gK m = sample 3 GK m.
Proof. by rewrite /gK (@lossvecs_mse R 1 4 2 1 WK bK UK cK XK YK) //; apply: eq_sample; vm_compute. Qed.

Lemma actK m : act NK (xK m) = sample 5 HK m.
Proof. by rewrite /act [NK.1]/= z_sample act_sample; apply: eq_sample; vm_compute. Qed.

Lemma DeltaK : Delta1 NK xK gK = mxf 5 2 DK.
Proof.
by rewrite (Delta1_samples _ _ _ _ _ (fun m => erefl (xK m)) lossK); apply: eq_mxf; vm_compute.
Qed.

(* The next layer's gradient, and its rank 2: the columns of GK confine.      *)
Lemma nextK : @gradmx _ 5 [::] 3 (gsum NK xK gK).2 = mxf 3 2 GK *m mxf 2 6 (liftf 5 HK).
Proof.
rewrite (@gsum_tail _ 1 5 [::] 3 NK) gradmxE; congr (_ *m _); last exact: lift1_samples actK.
by rewrite -[LHS]/(cols gK) (eq_cols lossK) cols_sample.
Qed.

Lemma left_inverseK :
  mxf 2 3 (fun i j => tab [:: [:: 2; 0; -2]; [:: -2; 0; -2]] i j / 8%:R) *m mxf 3 2 GK = 1%:M.
Proof. by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute. Qed.

Theorem K_confined : confined NK (fun _ => True) (mxf 3 2 GK) xK gK.
Proof.
apply: confined_next_layer; last by rewrite nextK trmx_mul submxMl.
rewrite nextK; apply: (rank_product (T := mxf 6 2 (tab [:: [:: 1; 0]; [:: 0; 0]; [:: 0; 1];
  [:: 0; 0]; [:: 0; 0]; [:: 0; 0]])) left_inverseK).
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

Theorem K_unique x' y' : bgrad (mse_lv 1) NK x' y' = bgrad (mse_lv 1) NK xK yK ->
  same_batch xK x' yK y'.
Proof.
apply: (C1_batch_first (lv := mse_lv 1) (y := yK) (adm := fun _ => True) _ K_confined) => //.
- rewrite gradmxE [Delta1 _ _ _]DeltaK (@lift1_samples R 1 2 XK) //.
  apply: (@rank_product _ _ _ _ _ _
    (mxf 2 5 (fun i j => tab [:: [:: 1; 0; 0; 0; 0]; [:: 0; 0; -1; 0; 0]] i j / 2%:R))
    (mxf 2 2 (fun i j => tab [:: [:: 1; -1]; [:: 1; 1]] i j / 2%:R))).
    by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
- have r5 : (5 <= \rank (lifted (mxf 5 2 DK) (mxf 5 2 VK)))%N.
    by apply: (@lifted_rank R 4 1 1 5 DK VK rowsK codesK invK); vm_compute.
  rewrite [Delta1 _ _ _]DeltaK [w1 _]/(mxf 3 5 UK) tr_mxf mul_mxf.
  rewrite (_ : mxf 5 2 (mulf 3 _ GK) = mxf 5 2 VK); last by apply: eq_mxf; vm_compute.
  by apply: leq_trans r5; rewrite card_mono.
- by move=> m l _ /mse_lv_inj.
Qed.

(* Without the confinement C1 asks for the rank 7 of a matrix with five rows. *)
Theorem K_beyond_plain :
  (\rank (lifted (Delta1 NK xK gK) ((mxf 3 5 UK)^T *m 1%:M)) < #|mono 2 3| - 2)%N.
Proof. by apply: leq_ltn_trans (rank_leq_row _) _; rewrite card_mono. Qed.

(* O: A with a second logit, which is always 0, and V's loss: the squared     *)
(* error of the difference of the logits.                                     *)
Definition UO := tab [:: [:: 1; 1; 1]; [:: 0; 0; 0]].
Definition cO := tab [:: [:: 0]; [:: 0]].
Definition YO := tab [:: [:: 0; -2]; [:: 0; 0]].
Definition NO : params R 1 [:: 3%N] (1 + 1) := one_hidden 1 3 2 WA bA UO cO.
Definition yO : 'I_2 -> 'cV[R]_(1 + 1) := batch_of 2 YO.
Definition gO := lossvecs (lvV : 'cV_(1 + 1) -> 'cV_(1 + 1) -> 'cV_(1 + 1)) NO xA yO.
Definition GO := tab [:: [:: 2; 4]; [:: -2; -4]].

Lemma lossO m : gO m = sample 2 GO m.
Proof.
rewrite /gO /lossvecs /lvV [fwd _ _](fwd_sample 1 3 2 WA bA UO cO XA m); apply/colP => k.
rewrite !mxE -!rmorphB -rmorphM; congr ratr.
by case: m k => [[|[|m]] lt_m] // [[|[|k]] lt_k] //; apply/eqP; vm_compute.
Qed.

Lemma DeltaO : Delta1 NO xA gO = mxf 3 2 DA.
Proof.
transitivity (mxf 3 2 (deltaf 1 2 WA bA UO XA GO)); last by apply: eq_mxf; vm_compute.
exact: (@Delta1_samples R 1 3 2 WA bA UO cO 2 XA GO xA gO (fun m => erefl) lossO).
Qed.

Lemma sum_zeroO f l : sum_zero (lvV f l : 'cV_(1 + 1)).
Proof. by rewrite /sum_zero big_ord_recl big_ord1 !mxE -mulrDr rmorph1 rmorphN1 subrr mulr0. Qed.

Theorem O_confined : confined NO (@sum_zero _ 1) (@zero_sum_basis _ 1) xA gO.
Proof. exact: confined_sum_zero. Qed.

(* No other batch with any targets for the difference.                        *)
Theorem O_unique x' (y' : 'I_2 -> 'cV[R]_2) : (forall m, y' m 1 0 = 0) ->
  bgrad lvV NO x' y' = bgrad lvV NO xA yO -> same_batch xA x' yO y'.
Proof.
have yO1 m : yO m 1 0 = 0 by rewrite !mxE; case: m => [[|[|m]] lt_m] //; apply: rmorph0.
apply: (C1_batch_first (adm := fun y => y 1 0 = 0) (G := @sum_zero _ 1) _ O_confined) => // [f l _|||m l l1].
- exact: sum_zeroO.
- rewrite gradmxE [Delta1 _ _ _]DeltaO (@lift1_samples R 1 2 XA) //.
  by apply: rank_product (left_inverseA R) _; rewrite (_ : mxf 2 (1 + 1) _ = mxf 2 2 HA);
    [apply: right_inverseA | apply: (@eq_mxf R 2 2); vm_compute].
- rewrite [Delta1 _ _ _]DeltaO [w1 _]/(mxf 2 3 UO).
  have -> : (mxf 2 3 UO)^T *m zero_sum_basis _ 1 = mxf 3 1 VA.
    have -> : zero_sum_basis R 1 = mxf 2 1 (tab [:: [:: 1]; [:: -1]]).
      apply/matrixP => i j; rewrite (ord1 j) !mxE.
      by case: splitP => k; rewrite (ord1 k) !mxE => ->; rewrite (rmorph1, rmorphN1).
    by rewrite tr_mxf mul_mxf; apply: eq_mxf; vm_compute.
  apply: (@leq_trans 3); first by rewrite card_mono.
  by apply: (@lifted_rank R 2 1 0 3 DA VA rowsA codesA invA); vm_compute.
move=> E; have /colP/(_ 0) : lvV (fwd NO (xA m)) l = lvV (fwd NO (xA m)) (yO m) by apply: E.
rewrite !mxE /= rmorph1 !mulr1 => /addrI/oppr_inj e0; apply/colP => k.
by have [->|->] := two_cases k; rewrite ?l1 ?yO1 // e0 mxE.
Qed.

(* Without it C1 asks for the rank 5 of a matrix with three rows.             *)
Theorem O_beyond_plain :
  (\rank (lifted (Delta1 NO xA gO) ((mxf 2 3 UO)^T *m 1%:M)) < #|mono 2 2| - 2)%N.
Proof. by apply: leq_ltn_trans (rank_leq_row _) _; rewrite card_mono. Qed.

End Instances.
