(******************************************************************************)
(* Three hidden layers, on a concrete network with rational numbers.          *)
(*                                                                            *)
(*   Z   1-2-2-4-2, x = 1 and -1: one exclusive neuron for each sample in the *)
(*       first two hidden layers, two in the third, whose outgoing weights    *)
(*       are the unit vectors: E1 in the third layer, P1 through all of them  *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network exclusive lifting exact downward published compute instances.
From Exan Require Import instances_published.

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

(* A layer below a network whose deltas are known. *)
Section LayerBelow.

Variables (d n : nat) (ws : seq nat) (K : nat) (W b : table) (N : params R n ws K).

Definition below : params R d (n :: ws) K := ((mxf n d W, mxf n 1 b), N).

Lemma act_below X m : act below (sample d X m) = sample n (hiddenf d W b X) m.
Proof. by rewrite /act [below.1.1]/= [below.1.2]/= z_sample act_sample. Qed.

Definition deltaf_below (V X D : table) : table := fun j m =>
  if 0 < preact d W b X j m then mulf (head K ws) (fun i k => V k i) D j m else 0.

Lemma delta1_below (V X D : table) m g : w1 N = mxf (head K ws) n V ->
  delta1 N (sample n (hiddenf d W b X) m) g = sample (head K ws) D m ->
  delta1 below (sample d X m) g = sample n (deltaf_below V X D) m.
Proof.
move=> wE dE; rewrite /= z_sample act_sample dE wE active_sample; apply/colP => j.
by rewrite dmaskE tr_mxf mul_mxf !mxE /deltaf_below; case: ifP => _; rewrite ?rmorph0.
Qed.

(* Exclusive neurons with a delta that is not zero, by computation. *)
Lemma live_table M (X D : table) (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) (j : 'I_n) (m : 'I_M) :
  (forall m, x m = sample d X m) -> delta1 below (x m) (g m) = sample n D m ->
  D j m != 0 -> all (fun k => (0 < preact d W b X j k) == (k == m)) (iota 0 M) ->
  live below x g j m.
Proof.
move=> xE dE Dn0 /allP ex; split=> [k|]; last by rewrite dE mxE fmorph_eq0.
rewrite /is_active xE z_sample mxE ltr0q; apply/eqP.
by have := ex (val k); rewrite mem_iota ltn_ord; apply.
Qed.

End LayerBelow.

Definition W1Z := tab [:: [:: 1]; [:: -1]].
Definition W2Z := tab [:: [:: 1; -1]; [:: -1; 1]].
Definition W3Z := tab [:: [:: 1; -1]; [:: 2; -1]; [:: -1; 1]; [:: -1; 2]].
Definition zeroZ : table := fun _ _ => 0.
Definition topZ := one_hidden 2 4 2 W3Z zeroZ UP cP.
Definition midZ := below 2 W2Z zeroZ topZ.
Definition NZ : params R 1 ([:: 2] ++ [:: 2; 4])%N 2 := below 1 W1Z zeroZ midZ.
Definition xZ : 'I_2 -> 'cV[R]_1 := batch_of 1 XP.
Definition yZ : 'I_2 -> 'cV[R]_2 := batch_of 2 YP.
Definition gZ := lossvecs (mse_lv 1) NZ xZ yZ.
Definition hZ (m : 'I_2) := @hid _ 1 [:: 2]%N 2 [:: 4]%N 2 NZ (xZ m).

(* Both lower layers' outputs are the unit vectors; the deltas, from above.   *)
Definition HZ := tab [:: [:: 1; 0]; [:: 0; 1]].
Definition D3Z := deltasP.
Definition D2Z := tab [:: [:: 10; 0]; [:: 0; 6]].
Definition D1Z := tab [:: [:: 10; 0]; [:: 0; 6]].

Lemma first_act (m : 'I_2) : sample 2 (hiddenf 1 W1Z zeroZ XP) m = sample 2 HZ m.
Proof. by apply: eq_sample; vm_compute. Qed.

Lemma second_act (m : 'I_2) : sample 2 (hiddenf 2 W2Z zeroZ HZ) m = sample 2 HZ m.
Proof. by apply: eq_sample; vm_compute. Qed.

Lemma actZ m : act NZ (xZ m) = sample 2 HZ m.
Proof. by rewrite act_below first_act. Qed.

Lemma hZE m : hZ m = sample 2 HZ m.
Proof. by rewrite -[hZ m]/(act midZ (act NZ (xZ m))) actZ act_below second_act. Qed.

Lemma gZE m : gZ m = sample 2 vectorsP m.
Proof.
have -> : gZ m = mse_lv 1 (fwd topZ (hZ m)) (sample 2 YP m) by [].
by rewrite hZE fwd_sample mse_sample; apply: eq_sample; vm_compute.
Qed.

Lemma delta3 (m : 'I_2) : delta1 topZ (sample 2 HZ m) (gZ m) = sample 4 D3Z m.
Proof. by rewrite gZE delta1_sample; apply: eq_sample; vm_compute. Qed.

Lemma delta2Z (m : 'I_2) : delta1 midZ (sample 2 HZ m) (gZ m) = sample 2 D2Z m.
Proof.
rewrite (@delta1_below _ _ _ _ _ _ topZ W3Z HZ D3Z) // ?second_act ?delta3 //.
by apply: eq_sample; vm_compute.
Qed.

Lemma delta1Z m : delta1 NZ (xZ m) (gZ m) = sample 2 D1Z m.
Proof.
rewrite (@delta1_below _ _ _ _ _ _ midZ W2Z XP D2Z) // ?first_act ?delta2Z //.
by apply: eq_sample; vm_compute.
Qed.

Lemma live_first (m : 'I_2) : live NZ xZ gZ m m.
Proof.
by apply: (live_table (X := XP) (D := D1Z)) => //; [exact: delta1Z | |]; case: (two_cases m) => ->; vm_compute.
Qed.

Lemma live_second (m : 'I_2) : live midZ (fun m => act NZ (xZ m)) gZ m m.
Proof.
apply: (live_table (X := HZ) (D := D2Z)) => [k|||]; first exact: actZ.
  by rewrite actZ delta2Z.
all: by case: (two_cases m) => ->; vm_compute.
Qed.

Lemma live_third (j : 'I_4) (m : 'I_2) : owner j = m -> live topZ hZ gZ j m.
Proof.
have ok : all (fun j => (D3Z j (owner j) != 0) &&
    all (fun k => (0 < preact 2 W3Z zeroZ HZ j k) == (k == owner j)) (iota 0 2)) (iota 0 4).
  by vm_compute.
move=> jm; have /allP/(_ (val j)) := ok; rewrite mem_iota ltn_ord jm => /(_ isT)/andP[Dn0 ex].
apply: (@live_table 2 4 [::] 2 W3Z zeroZ topZ.2 _ HZ D3Z) => //; first exact: hZE.
by rewrite hZE; apply: delta3.
Qed.

(* E1 in the third hidden layer: the rows of its four neurons, divided by     *)
(* their bias entries, are the outputs (1, 0) and (0, 1) of the second.       *)
Theorem Z_E1_layer (j : 'I_4) (m : 'I_2) : owner j = m ->
  let G : params R 2 [:: 4%N] 2 :=
    @topp _ 1 [:: 2]%N 2 [:: 4]%N 2 (bgrad (mse_lv 1) NZ xZ yZ) in
  forall i, w1 G j i / b1 G j 0 = ratr (HZ i m).
Proof.
move=> /live_third[ex dn0] G i.
have -> : ratr (HZ i m) = hZ m i 0 by rewrite hZE mxE.
exact: (@E1_layer _ 1 [:: 2]%N 2 4 [::] 2 NZ _ xZ gZ j m ex dn0).
Qed.

Lemma LP_liveZ (a : 'I_2) i j : mxf 2 4 (LP a) i j != 0 -> live topZ hZ gZ j a.
Proof.
rewrite mxE /LP; case: ifP => [/eqP ja _|]; last by rewrite rmorph0 eqxx.
by apply: live_third; rewrite /owner ja mulnC divnMDl // divn_small ?addn0.
Qed.

Lemma vectorsE (m : 'I_2) : sample 2 vectorsP m = sample 2 GP m.
Proof. by rewrite (eq_sample _ vectorsP_ok). Qed.

Lemma apartZ (a b : 'I_2) : a != b -> apart topZ 1%:M hZ gZ a b.
Proof.
move=> ab; apply: (@apart_span _ _ _ _ _ _ _ _ _ _ _ _ _ (mxf 2 4 (LP a)) (mxf 2 4 (LP b))
  (sample 2 GP a) (sample 2 GP b)); rewrite ?mul1mx /delta2 /= ?gZE ?vectorsE //.
- exact: LP_liveZ.
- exact: LP_one.
- exact: LP_liveZ.
- exact: LP_one.
- exact: vectors_apart.
Qed.

Lemma rankZ : \rank (gradmx (gsum topZ hZ gZ)) = 2%N.
Proof.
have DE : Delta1 topZ hZ gZ = mxf 4 2 D3Z.
  by rewrite -cols_sample; apply: eq_cols => m; rewrite hZE delta3.
rewrite gradmxE DE (lift1_samples hZE).
apply: (@rank_product _ _ _ _ _ _
  (mxf 2 4 (fun i j => tab [:: [:: 1; 0; 0; 0]; [:: 0; 0; -1; 0]] i j / 2%:R))
  (mxf 3 2 (tab [:: [:: 1; 0]; [:: 0; 1]; [:: 0; 0]]))).
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

(* No other batch of two samples, with any real labels: the third hidden      *)
(* layer is determined, and two steps down give the inputs.                   *)
Theorem Z_unique x' y' : bgrad (mse_lv 1) NZ x' y' = bgrad (mse_lv 1) NZ xZ yZ ->
  same_batch xZ x' yZ y'.
Proof.
apply: (@P1_batch _ 2 (mse_lv 1) 1 [:: 2]%N 2 4 NZ (fun _ => True) 2 2 (fun _ => True) 1%:M) => //.
- exact: confined_plain.
- exact: rankZ.
- move=> m; exists (inord (2 * m)); case: (@live_third (inord (2 * m)) m) => //.
  by rewrite /owner inordK; case: (two_cases m) => ->.
- exact: apartZ.
- by split=> m; exists m; [apply: live_first | apply: live_second].
- by move=> f l l' _ _ /mse_lv_inj.
Qed.

End Instances.
