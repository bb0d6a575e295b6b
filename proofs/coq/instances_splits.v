(******************************************************************************)
(* Groups that a layer above tells apart, on a concrete network.              *)
(*                                                                            *)
(*   W   1-5-3-1, x = 1 and 2 in one region of the first hidden layer: C1     *)
(*       fails there, and the second hidden layer tells them apart            *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact downward groups splits labels compute instances.
From Exan Require Import instances_deep.

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

Definition W1W := tab [:: [:: 1]; [:: -1]; [:: 2]; [:: 1]; [:: -1]].
Definition b1W := tab [:: [:: 0]; [:: 3]; [:: -1]; [:: 1]; [:: 4]].
Definition W2W := tab [:: [:: 0; -2; 0; 1; 1]; [:: -1; -1; -1; 0; 2]; [:: -1; -1; 2; 1; -2]].
Definition b2W := tab [:: [:: 0]; [:: 1]; [:: 2]].
Definition W3W := tab [:: [:: -1; 1; 1]].
Definition zeroW : table := fun _ _ => 0.
Definition XW := tab [:: [:: 1; 2]].
Definition YW := tab [:: [:: 0; 0]].
Definition topW := one_hidden 5 3 1 W2W b2W W3W zeroW.
Definition NW : params R 1 [:: 5; 3]%N 1 := below 1 W1W b1W topW.
Definition xW : 'I_2 -> 'cV[R]_1 := batch_of 1 XW.
Definition yW : 'I_2 -> 'cV[R]_1 := batch_of 1 YW.
Definition gW := lossvecs (mse_lv 1) NW xW yW.

(* Features and deltas. *)
Definition HW := tab [:: [:: 1; 2]; [:: 2; 1]; [:: 1; 3]; [:: 2; 3]; [:: 3; 2]].
Definition GW := tab [:: [:: 4; 2]].
Definition D2W := tab [:: [:: -4; -2]; [:: 4; 0]; [:: 0; 2]].
Definition D1W := tab [:: [:: -4; -2]; [:: 4; 2]; [:: -4; 4]; [:: -4; 0]; [:: 4; -6]].

Lemma firstW (m : 'I_2) : sample 5 (hiddenf 1 W1W b1W XW) m = sample 5 HW m.
Proof. by apply: eq_sample; vm_compute. Qed.

Lemma actW m : act NW (xW m) = sample 5 HW m.
Proof. by rewrite act_below firstW. Qed.

Lemma gWE m : gW m = sample 1 GW m.
Proof.
have -> : gW m = mse_lv 1 (fwd topW (act NW (xW m))) (sample 1 YW m) by [].
by rewrite actW fwd_sample mse_sample; apply: eq_sample; vm_compute.
Qed.

Lemma delta2W (m : 'I_2) : delta1 topW (sample 5 HW m) (gW m) = sample 3 D2W m.
Proof. by rewrite gWE delta1_sample; apply: eq_sample; vm_compute. Qed.

Lemma delta1W m : delta1 NW (xW m) (gW m) = sample 5 D1W m.
Proof.
rewrite (@delta1_below _ _ _ _ _ _ _ topW W2W XW D2W) //; first by apply: eq_sample; vm_compute.
by rewrite firstW delta2W.
Qed.

Lemma Delta1_W : Delta1 NW xW gW = mxf 5 2 D1W.
Proof. by rewrite -cols_sample; apply: eq_cols => m; exact: delta1W. Qed.

Lemma Delta2_W : Delta1 topW (fun m => act NW (xW m)) gW = mxf 3 2 D2W.
Proof. by rewrite -cols_sample; apply: eq_cols => m; rewrite actW delta2W. Qed.

Definition L1W := tabq [:: [:: (-1, 6); (0, 1); (-1, 12); (0, 1); (0, 1)]; [:: (-1, 6); (0, 1); (1, 6); (0, 1); (0, 1)]].
Definition L2W := tabq [:: [:: (0, 1); (1, 4); (0, 1)]; [:: (-1, 2); (-1, 2); (0, 1)]].
Definition T1W := tab [:: [:: -1; 1]; [:: 2; -1]].

Lemma rank_below n (D L : table) : eqf 2 2 (mulf n L D) onef -> \rank (mxf n 2 D) = 2%N.
Proof.
move=> LD; rewrite -[mxf n 2 D]mulmx1; apply: (@rank_product _ _ _ _ _ _ (mxf 2 n L) 1%:M); last exact: mulmx1.
by rewrite mul_mxf -one_mxf; apply: eq_mxf.
Qed.

Lemma rankW : \rank (gradmx (gsum NW xW gW)) = 2%N.
Proof.
rewrite gradmxE Delta1_W (@lift1_samples _ 1 2 XW) //.
apply: (@rank_product _ _ _ _ _ _ (mxf 2 5 L1W) (mxf 2 2 T1W)).
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

Definition codes1W := [:: (true, 0, 0); (true, 0, 1); (true, 1, 1); (false, 0, 0); (false, 1, 0)]%N.
Definition inv1W := tabq [:: [:: (1, 64); (-3, 64); (-1, 16); (1, 8); (1, 32)];
  [:: (13, 384); (3, 128); (1, 48); (-1, 16); (-1, 64)];
  [:: (5, 96); (3, 32); (1, 6); (-1, 4); (-1, 16)];
  [:: (-1, 16); (3, 16); (1, 4); (-1, 4); (-1, 8)];
  [:: (-1, 8); (-1, 8); (-1, 2); (1, 2); (1, 4)]].
Definition codes2W := [:: (true, 0, 0); (true, 0, 1); (true, 1, 1)]%N.
Definition inv2W := tabq [:: [:: (0, 1); (1, 16); (0, 1)]; [:: (1, 16); (-1, 16); (-1, 16)]; [:: (0, 1); (0, 1); (1, 4)]].

(* At least so many pairs share their group as there are samples. *)
Lemma pairs_ge M (I : finType) (gr : 'I_M -> I) : (M <= #|pairs gr|)%N.
Proof.
pose own (m : 'I_M) : pairs gr := Sub (m, m) (eqxx (gr m)).
have inj : injective own by move=> a b /(congr1 val)[].
by have := leq_card _ inj; rewrite card_ord.
Qed.

Lemma all_on (a b : 'I_2) : region NW (xW a) = region NW (xW b).
Proof.
rewrite /region [NW.1.1]/= [NW.1.2]/= !z_sample !active_sample; apply/colP => j; rewrite !mxE.
have on : eqf 5 2 (fun j m => if 0 < preact 1 W1W b1W XW j m then 1 else 0) (fun _ _ => 1) by vm_compute.
have := eqf_at j a on; have := eqf_at j b on.
by do 2!case: (0 < _).
Qed.

Lemma apart_above (a b : 'I_2) : region topW (act NW (xW a)) = region topW (act NW (xW b)) -> a = b.
Proof.
have second (m : 'I_2) : (0 < preact 5 W2W b2W HW 1 m) = (m == 0%N :> nat).
  by case: m => [[|[|m]] lt_m] //; vm_compute.
rewrite !actW /region !z_sample !active_sample => /colP/(_ (inord 1)); rewrite !mxE inordK // !second.
by case: a b => [[|[|a]] lt_a] [[|[|b]] lt_b] // _; apply: val_inj.
Qed.

Lemma split_first : divides (fun _ => True) NW xW gW (id : 'I_2 -> 'I_2).
Proof.
exists 3%N, 1%:M; split; first exact: confined_plain.
  by rewrite Delta1_W; apply: (@rank_below _ _ L1W); vm_compute.
left; have -> : #|pairs (fun i : 'I_2 => region NW (xW (id i)))| = 4%N.
  rewrite card_sig (eq_card (B := predT)) ?card_prod ?card_ord // => -[a b].
  by rewrite !inE /= (all_on a b) eqxx.
apply: (@leq_trans 5); first by rewrite card_mono.
rewrite mulmx1 Delta1_W -[w1 _]/(mxf 3 5 W2W) tr_mxf.
by apply: (@lifted_rank _ 4 1 2 5 D1W (fun j k => W2W k j) (iota 0 5) codes1W inv1W); vm_compute.
Qed.

Lemma split_second : divides (fun _ => True) topW (fun m => act NW (xW m)) gW (id : 'I_2 -> 'I_2).
Proof.
exists 1%N, 1%:M; split; first exact: confined_plain.
  by rewrite Delta2_W; apply: (@rank_below _ _ L2W); vm_compute.
left; apply: (@leq_trans 3); first by rewrite card_mono leq_subLR -[X in (X <= _)%N]/(2 + 3)%N leq_add2r pairs_ge.
rewrite mulmx1 Delta2_W -[w1 _]/(mxf 1 3 W3W) tr_mxf.
by apply: (@lifted_rank _ 2 1 0 3 D2W (fun j k => W3W k j) (iota 0 3) codes2W inv2W); vm_compute.
Qed.

(* Any two inputs and loss vectors with this gradient. *)
Theorem W_splits (x' : 'I_2 -> 'cV[R]_1) g' : gsum NW x' g' = gsum NW xW gW ->
  exists s : 'S_2, state_same_upto NW xW x' gW g' s.
Proof.
apply: (@C2_splits _ _ _ (fun _ => True) _ _ _ NW xW x' gW g' 2 id (fun _ => 2%N) (fun _ => id)) => //.
- exact: rankW.
- by move=> m; exists m.
- exact: split_first.
- by move=> i j _; exists j.
move=> _; apply: (Divided (s := fun _ => 1%N) (group := fun i _ => i) split_second) => [i j|i].
  by move/apart_above => <-; exists 0.
exact: Isolated.
Qed.

Definition T2W := tabq [:: [:: (0, 1); (1, 3)]; [:: (1, 3); (-1, 9)]; [:: (0, 1); (0, 1)]; [:: (0, 1); (0, 1)]].
Definition H2W := tab [:: [:: 1; 3]; [:: 3; 0]; [:: 0; 4]].

(* No other batch of two samples, with any real labels.                       *)
Theorem W_unique x' y' : bgrad (mse_lv 1) NW x' y' = bgrad (mse_lv 1) NW xW yW -> same_batch xW x' yW y'.
Proof.
move=> same; have [s st] := W_splits same.
apply: (@output_rank_batch _ 1 (mse_lv 1) 1 [:: 5]%N 3 NW (fun _ => True) 2 xW x' yW y' s) => //.
- by move=> m; case: (st m).
- have hE m : @hid _ 1 [:: 5]%N 3 [::] 1 NW (xW m) = sample 3 H2W m.
    rewrite -[hid _ _]/(act topW (act NW (xW m))) actW /act z_sample act_sample.
    by apply: eq_sample; vm_compute.
  rewrite (lift1_samples hE) -[mxf _ _ _]mul1mx.
  apply: (@rank_product _ _ _ _ _ _ 1%:M (mxf 4 2 T2W)); first exact: mulmx1.
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
by move=> m l _ /mse_lv_inj.
Qed.

End Instances.
