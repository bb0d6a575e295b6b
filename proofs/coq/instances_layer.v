(******************************************************************************)
(* One layer's linear algebra, on the matrices of concrete networks.          *)
(*                                                                            *)
(*   A   1-3-1 (instances.v): factorisations, candidates, C1, the step down   *)
(*   B   2-3-9-2: from the second hidden layer to the inputs                  *)
(*   E   2-7-2, samples 0 and 1 of one pattern: candidates of groups          *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact downward groups compute instances.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation sample := (sample R).
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

(* A: the layer's gradient [dW | db] is DA *m HA, of rank 2.                  *)
Definition HA := tab [:: [:: 1; 1]; [:: -1; 1]].
Definition DHA := tab [:: [:: 2; 2]; [:: -4; 4]; [:: -2; 6]].
Definition gA := tab [:: [:: 2; 4]].
Definition VA : table := fun _ _ => 1.

Lemma left_inverseA : mxf 2 3 LA *m mxf 3 2 DA = 1%:M.
Proof. by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute. Qed.

Lemma right_inverseA : mxf 2 2 HA *m mxf 2 2 TA = 1%:M.
Proof. by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute. Qed.

Lemma productA : mxf 3 2 DA *m mxf 2 2 HA = mxf 3 2 DHA.
Proof. by rewrite mul_mxf; apply: eq_mxf; vm_compute. Qed.

Theorem A_two_factorisations (D' : 'M[R]_(3, 2)) (H' : 'M[R]_2) : D' *m H' = mxf 3 2 DHA ->
  exists P Q, [/\ P *m Q = 1%:M, Q *m P = 1%:M, D' = mxf 3 2 DA *m P & H' = Q *m mxf 2 2 HA].
Proof.
rewrite -productA; apply: two_factorisations.
exact: rank_product left_inverseA right_inverseA.
Qed.

(* Once the deltas are known, the inputs are.                                 *)
Theorem A_inputs (H : 'M[R]_2) : mxf 3 2 DA *m H = mxf 3 2 DHA -> H = mxf 2 2 HA.
Proof.
rewrite -productA; apply: full_column_rank.
rewrite -[mxf 3 2 DA]mulmx1; apply: rank_product left_inverseA _; exact: mulmx1.
Qed.

(* Three neurons leave no candidates (q, p) but multiples of the true ones,   *)
(* (e_0, 2) and (e_1, 4).                                                     *)
Theorem A_candidates (q : 'cV[R]_2) (p : 'cV[R]_1) :
  q != 0 -> cand (mxf 3 2 DA) (mxf 3 1 VA) q p ->
  exists (m : 'I_2) (c : R), [/\ c != 0, q = c *: delta_mx m 0 & p = c *: sample 1 gA m].
Proof.
have colA (m : 'I_2) : col m 1%:M = delta_mx m 0 :> 'cV[R]_2 by rewrite colE mul1mx.
have gE (m : 'I_2) : col m (mxf 1 2 gA) = sample 1 gA m by apply/colP => i; rewrite !mxE.
have known (m : 'I_2) : cand (mxf 3 2 DA) (mxf 3 1 VA) (col m 1%:M) (col m (mxf 1 2 gA)).
  by rewrite colA; apply: known_cand; vm_compute.
have rk : (#|mono 2 1| - 2 <= \rank (lifted (mxf 3 2 DA) (mxf 3 1 VA)))%N.
  apply: (@leq_trans 3); first by rewrite card_mono.
  by apply: (@lifted_rank R 2 1 0 3 DA VA rowsA codesA invA); vm_compute.
move=> q0 c_qp; have [m [c [c0]]] := C1_candidates (@unitmx1 _ _) known rk q0 c_qp.
by rewrite colA gE; exists m, c.
Qed.

(* Any inputs and any loss vectors with A's gradient have A's layer.          *)
Lemma lossA m : lossvecs (mse_lv 1) NA xA yA m = sample 1 gA m.
Proof. by rewrite (@lossvecs_mse R 1 2 0 1 WA bA UA cA XA YA) //; apply: eq_sample; vm_compute. Qed.

Lemma factsA : [/\ Delta1 NA xA (lossvecs (mse_lv 1) NA xA yA) = mxf 3 2 DA,
  \rank (gradmx (gsum NA xA (lossvecs (mse_lv 1) NA xA yA))) = 2%N &
  (3 <= \rank (lifted (Delta1 NA xA (lossvecs (mse_lv 1) NA xA yA)) ((mxf 1 3 UA)^T *m 1%:M)))%N].
Proof. by apply: layer_facts checksA _ _ => // m; apply: lossvecs_mse. Qed.

Theorem A_C1 (x' : 'I_2 -> 'cV[R]_1) g' : gsum NA x' g' = bgrad (mse_lv 1) NA xA yA ->
  exists s : 'S_2, state_same_upto NA xA x' (lossvecs (mse_lv 1) NA xA yA) g' s.
Proof.
have [_ rA rR] := factsA.
apply: (@C1 _ _ _ _ _ NA _ _ (fun _ => True) 1%:M) => //; first exact: confined_plain.
by apply: leq_trans rR; rewrite card_mono.
Qed.

(* Features (1, 0, 1) and (0, 1, 1) and loss vectors 2 and 4: the inputs.     *)
Definition featuresA := tab [:: [:: 1; 0]; [:: 0; 1]; [:: 1; 1]].

Lemma actA m : act NA (xA m) = sample 3 featuresA m.
Proof. by rewrite /act [NA.1]/= z_sample act_sample; apply: eq_sample; vm_compute. Qed.

Theorem A_down_step (x' : 'I_2 -> 'cV[R]_1) g' : gsum NA x' g' = bgrad (mse_lv 1) NA xA yA ->
  (forall m, act NA (x' m) = sample 3 featuresA m) -> (forall m, g' m = sample 1 gA m) ->
  forall m, x' m = sample 1 XA m /\ delta1 NA (x' m) (g' m) = sample 3 DA m.
Proof.
move=> E ha hg m; have [DE _ _] := factsA.
have dE k : delta1 NA (xA k) (lossvecs (mse_lv 1) NA xA yA k) = sample 3 DA k.
  have := congr1 (col k) DE; rewrite colsE => ->.
  by apply/colP => j; rewrite !mxE.
have rD : \rank (Delta1 NA xA (lossvecs (mse_lv 1) NA xA yA)) = 2%N.
  by rewrite DE -[mxf 3 2 DA]mulmx1; apply: rank_product left_inverseA _; apply: mulmx1.
have [k|k|ex ed] := down_step E rD _ _ m; first by rewrite ha actA.
- by rewrite /delta2 /= hg lossA.
by rewrite ed dE ex.
Qed.

(* B: what the second hidden layer gets and sends back fixes the inputs.      *)
Theorem B_downward (x' : 'I_3 -> 'cV[R]_2) g' : gsum NB x' g' = bgrad (mse_lv 1) NB xB yB ->
  (forall m : 'I_3, @hid _ 2 [::] 3 [:: 9]%N 2 NB (x' m) = sample 3 HB m) ->
  (forall m : 'I_3, delta1 topB (sample 3 HB m) (g' m) = sample 9 DB m) ->
  forall m : 'I_3, x' m = sample 2 XB m /\ delta1 NB (x' m) (g' m) = sample 3 D1B m.
Proof.
move=> E eh ed m; have dE : delta1 NB (xB m) (lossvecs (mse_lv 1) NB xB yB m) = sample 3 D1B m.
  have := congr1 (col m) (Delta1_B R); rewrite colsE => ->.
  by apply/colP => j; rewrite !mxE.
rewrite -dE; apply: (@downward _ 2 [::] 3 [:: 9]%N 2 NB _ xB) => // [|k|k].
- exact: rank_Delta1_B.
- by rewrite eh -hB_sample.
by rewrite eh ed -deltaB.
Qed.

(* E: the matrices of the layer; two groups, {0, 1} and {2}.                  *)
Definition VE : table := fun j k => UE k j.
Definition PE := tab [:: [:: 2; 2; 2]; [:: 0; 2; 0]].
Definition onE (j : 'I_7) (m : 'I_3) : bool := 0 < preact 2 WE bE XE j m.

Lemma lossE m : lossvecs (mse_lv 1) NE xE yE m = sample 2 PE m.
Proof. by rewrite (@lossvecs_mse R 2 6 1 2 WE bE UE cE XE YE) //; apply: eq_sample; vm_compute. Qed.

Lemma BE_E j m : mxf 7 3 DE j m = if onE j m then (mxf 7 2 VE *m mxf 2 3 PE) j m else 0.
Proof.
have ok : eqf 7 3 DE (fun j m => if 0 < preact 2 WE bE XE j m then mulf 2 VE PE j m else 0).
  by vm_compute.
by rewrite (eq_mxf ok) mul_mxf !mxE /onE; case: ifP => _; rewrite ?rmorph0.
Qed.

Lemma sharedE j a b : grE a = grE b -> onE j a = onE j b.
Proof.
have ok : all (fun j => all (fun a => all (fun b => ((a < 2)%N == (b < 2)%N) ==>
  ((0 < preact 2 WE bE XE j a) == (0 < preact 2 WE bE XE j b))) (iota 0 3)) (iota 0 3)) (iota 0 7).
  by vm_compute.
move=> ab; have /allP/(_ (val j)) := ok; rewrite mem_iota ltn_ord => /(_ isT)/allP/(_ (val a)).
rewrite mem_iota ltn_ord => /(_ isT)/allP/(_ (val b)); rewrite mem_iota ltn_ord => /(_ isT).
by move: ab; rewrite /grE /onE => ->; rewrite eqxx => /eqP.
Qed.

Lemma insideE (c : 'I_3 -> R) i : (forall m, grE m != i -> c m = 0) ->
  mxf 2 3 PE *m (\col_m c m) = 0 -> forall m, c m = 0.
Proof.
move=> off /colP E; have row (k : 'I_2) :
    ratr (PE k 0%N) * c ord0 + ratr (PE k 1%N) * c (inord 1) + ratr (PE k 2) * c ord_max = 0.
  have := E k; rewrite !mxE !big_ord_recl big_ord0 !mxE addr0 addrA => <-.
  by congr (_ + _ * c _ + _ * c _); apply: val_inj; rewrite /= ?inordK.
have two (a : R) : ratr 2%:Q * a = 0 -> a = 0 by move/eqP; rewrite mulf_eq0 fmorph_eq0 => /orP[] /eqP.
have e0 := row ord0; have e1 := row ord_max; move: e0 e1; rewrite /PE /tab /= rmorph0 !mul0r add0r addr0.
have val_cases (m : 'I_3) : [\/ m = ord0, m = inord 1 | m = ord_max].
  by case: m => [[|[|[|m]]] lt_m] //; [apply: Or31 | apply: Or32 | apply: Or33]; apply: val_inj;
    rewrite /= ?inordK.
case: i off => off e0 e1.
  have c2 := off ord_max isT; have c1 := two _ e1; rewrite c1 c2 !mulr0 !addr0 in e0.
  by move=> m; case: (val_cases m) => ->; rewrite ?c1 ?c2 ?(two _ e0).
have c0 := off ord0 isT; have c1 : c (inord 1) = 0 by apply: off; rewrite /grE inordK.
rewrite c0 c1 !mulr0 !add0r in e0.
by move=> m; case: (val_cases m) => ->; rewrite ?c0 ?c1 ?(two _ e0).
Qed.

Lemma rankE : (7 <= \rank (lifted (mxf 7 3 DE) (mxf 7 2 VE)))%N.
Proof. by apply: (@lifted_rank R 6 2 1 7 DE VE rowsE codesE invE); vm_compute. Qed.

(* A candidate is a combination of one group's samples.                       *)
Theorem E_candidates (q : 'cV[R]_3) (p : 'cV[R]_2) :
  q != 0 -> cand (mxf 7 3 DE) (mxf 7 2 VE) q p ->
  exists m, [/\ q m 0 != 0, forall a, grE a != grE m -> q a 0 = 0 & p = mxf 2 3 PE *m q].
Proof.
apply: (C2_candidates _ BE_E sharedE insideE) => //; first by rewrite pnatr_eq0.
by apply: leq_trans rankE; rewrite card_mono card_pairsE.
Qed.

(* The five solutions of the lifted equations that the groups explain: for    *)
(* the pairs (0, 0), (0, 1), (1, 0), (1, 1) and (2, 2).                       *)
Theorem E_explained (ab : pairs grE) :
  solves (lcoef (mxf 7 3 DE) (mxf 7 2 VE)) (explained (mxf 2 3 PE) (elementary [fieldType of R] ab)).
Proof. exact: explained_solves BE_E sharedE ab. Qed.

Theorem E_independent :
  independent (fun ab : pairs grE => explained (mxf 2 3 PE) (elementary [fieldType of R] ab)).
Proof. by apply: explained_independent insideE; rewrite pnatr_eq0. Qed.

End Instances.
