(******************************************************************************)
(* The published insecure side on a concrete network with rational numbers.   *)
(*                                                                            *)
(*   P   1-4-2, x = 1 and -1, two exclusive neurons each, whose outgoing      *)
(*       weights are the unit vectors: E2, both ways to be apart, P1          *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network exclusive lifting exact downward published compute instances.

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

Definition WP := tab [:: [:: 1]; [:: 2]; [:: -1]; [:: -2]].
Definition bP := tab [:: [:: 0]; [:: 0]; [:: 0]; [:: 0]].
Definition UP := tab [:: [:: 1; 0; 1; 0]; [:: 0; 1; 0; 1]].
Definition cP := tab [:: [:: 0]; [:: 0]].
Definition XP := tab [:: [:: 1; -1]].
Definition YP := tab [:: [:: 0; 2]; [:: 0; 0]].
Definition GP := msef (logitf 1 4 WP bP UP cP XP) YP.
Definition DP := deltaf 1 2 WP bP UP XP GP.
Definition NP := one_hidden 1 4 2 WP bP UP cP.
Definition xP (m : 'I_2) : 'cV[R]_1 := sample 1 XP m.
Definition yP (m : 'I_2) : 'cV[R]_2 := sample 2 YP m.

Lemma gP m : lossvecs (mse_lv 1) NP xP yP m = sample 2 GP m.
Proof. by rewrite /lossvecs fwd_sample mse_sample. Qed.

(* The loss vectors and the deltas, in numbers. *)
Definition vectorsP := tab [:: [:: 2; -2]; [:: 4; 4]].

Definition deltasP := tab [:: [:: 2; 0]; [:: 4; 0]; [:: 0; -2]; [:: 0; 4]].

Lemma vectorsP_ok : eqf 2 2 GP vectorsP.
Proof. by vm_compute. Qed.

Lemma deltasP_ok : eqf 4 2 DP deltasP.
Proof. by vm_compute. Qed.

Lemma two_cases (m : 'I_2) : m = 0 \/ m = 1.
Proof. by case: m => [[|[|//]] p]; [left | right]; apply: val_inj. Qed.

Definition owner (j : nat) : nat := j %/ 2.

Definition live_ok := all (fun j => (DP j (owner j) != 0) &&
  all (fun m => (0 < preact 1 WP bP XP j m) == (m == owner j)) (iota 0 2)) (iota 0 4).

Lemma live_okP : live_ok.
Proof. by vm_compute. Qed.

Lemma live_P (j : 'I_4) (m : 'I_2) : owner j = m ->
  live NP xP (lossvecs (mse_lv 1) NP xP yP) j m.
Proof.
move=> jm; have /allP/(_ (val j)) := live_okP.
rewrite mem_iota ltn_ord => /(_ isT)/andP[dn0 /allP act]; split; last first.
  by rewrite gP delta1_sample mxE -jm fmorph_eq0.
move=> m'; rewrite /is_active z_sample mxE ltr0q; have := act (val m').
by rewrite mem_iota ltn_ord => /(_ isT)/eqP ->; rewrite jm.
Qed.

Definition LP (a : nat) : table := fun i j => if j == (2 * a + i)%N then 1 else 0.

Lemma LP_live (a : 'I_2) i j : mxf 2 4 (LP a) i j != 0 ->
  live NP xP (lossvecs (mse_lv 1) NP xP yP) j a.
Proof.
rewrite mxE /LP; case: ifP => [/eqP ja _|]; last by rewrite rmorph0 eqxx.
by apply: live_P; rewrite /owner ja mulnC divnMDl // divn_small ?addn0.
Qed.

Lemma LP_one (a : 'I_2) : mxf 2 4 (LP a) *m ((mxf 2 4 UP)^T *m 1%:M) = 1%:M.
Proof.
rewrite mulmx1 tr_mxf mul_mxf -one_mxf; apply: eq_mxf.
by case: (two_cases a) => ->; vm_compute.
Qed.

Lemma cross (s t a0 a1 b0 b1 : R) :
  s * a0 = t * b0 -> s * a1 = t * b1 -> a0 * b1 - a1 * b0 != 0 -> s * t = 0.
Proof.
move=> e0 e1 det; have : s * (a0 * b1 - a1 * b0) = 0.
  by rewrite mulrBr !mulrA e0 e1 -!mulrA [b1 * b0]mulrC subrr.
by move/eqP; rewrite mulf_eq0 (negPf det) orbF => /eqP ->; rewrite mul0r.
Qed.

Definition det_ok := all (fun a => all (fun b => (a == b) ||
  (GP 0%N a * GP 1%N b - GP 1%N a * GP 0%N b != 0)) (iota 0 2)) (iota 0 2).

Lemma det_okP : det_ok.
Proof. by vm_compute. Qed.

Lemma vectors_apart (a b : 'I_2) : a != b ->
  forall s t : R, s *: sample 2 GP a = t *: sample 2 GP b -> s * t = 0.
Proof.
move=> ab s t /colP E; have /allP/(_ (val a)) := det_okP.
rewrite mem_iota ltn_ord => /(_ isT)/allP/(_ (val b)).
rewrite mem_iota ltn_ord val_eqE (negPf ab) => /(_ isT).
rewrite -(fmorph_eq0 (ratr_rmorphism R)) rmorphB !rmorphM /=; apply: cross.
  by have := E ord0; rewrite !mxE !rmorphM.
by have := E ord_max; rewrite !mxE !rmorphM.
Qed.

Lemma rankP : \rank (gradmx (gsum NP xP (lossvecs (mse_lv 1) NP xP yP))) = 2%N.
Proof.
rewrite gradmxE (Delta1_samples _ _ _ _ _ (fun m => erefl) gP).
have -> : lift1 xP = mxf 2 2 (fun m i => if (i < 1)%N then XP i m else 1).
  apply/matrixP => m i; rewrite !mxE; case: splitP => j ij; rewrite !mxE.
    by rewrite ij ltn_ord.
  by rewrite ij ltnNge leq_addr rmorph1.
apply: (@rank_product _ _ _ _ _ _
  (mxf 2 4 (fun i j => nth 0 (nth [::] [:: [:: 2%:R^-1; 0; 0; 0]; [:: 0; 0; - 2%:R^-1; 0]] i) j))
  (mxf 2 2 (fun i j => nth 0 (nth [::] [:: [:: 2%:R^-1; - 2%:R^-1]; [:: 2%:R^-1; 2%:R^-1]] i) j))).
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

(* No next delta mixes the two samples: the weights of each one's neurons     *)
(* span, and the loss vectors (2, 4) and (-2, 4) are not parallel.            *)
Theorem P_apart_span (a b : 'I_2) : a != b ->
  apart NP 1%:M xP (lossvecs (mse_lv 1) NP xP yP) a b.
Proof.
move=> ab; apply: (@apart_span _ _ _ _ _ _ _ _ _ _ _ _ _ (mxf 2 4 (LP a)) (mxf 2 4 (LP b))
  (sample 2 GP a) (sample 2 GP b)); rewrite ?mul1mx /delta2 /= ?gP //.
- exact: LP_live.
- exact: LP_one.
- exact: LP_live.
- exact: LP_one.
- exact: vectors_apart.
Qed.

(* The same from one combination of the four neurons' equations: in it their  *)
(* outgoing weights cancel, and sample 1 has no share, but sample 0 has 8.    *)
Definition combP := tab [:: [:: 2; 1; -2; -1]].

Theorem P_apart_combination : apart NP 1%:M xP (lossvecs (mse_lv 1) NP xP yP) 0 1.
Proof.
have DE : Delta1 NP xP (lossvecs (mse_lv 1) NP xP yP) = mxf 4 2 DP.
  exact: Delta1_samples (fun m => erefl) gP.
apply: (@apart_combination _ _ _ _ _ _ _ _ _ _ _ 0 1 (mxf 1 4 combP)) => // [j _|||].
- have j2 : (owner j < 2)%N by rewrite /owner ltn_divLR // ltn_ord.
  by case: (two_cases (Ordinal j2)) => m; [left | right]; apply: live_P; rewrite -m.
- by rewrite mulmx1 tr_mxf mul_mxf -zero_mxf; apply: eq_mxf; vm_compute.
- by rewrite DE mul_mxf mxE fmorph_eq0; vm_compute.
- by rewrite DE mul_mxf mxE; apply/eqP; rewrite fmorph_eq0; vm_compute.
Qed.

(* E2: every column of the last layer's dW is a positive multiple of its      *)
(* owner's loss vector.                                                       *)
Theorem P_E2 (j : 'I_4) (m : 'I_2) : owner j = m ->
  exists2 c : R, 0 < c & col j (bgrad (mse_lv 1) NP xP yP).2.1 = c *: sample 2 vectorsP m.
Proof.
move=> /live_P[ex _]; have [c c0 E] := E2 (lossvecs (mse_lv 1) NP xP yP) ex.
by exists c => //; rewrite -(eq_sample _ vectorsP_ok) -gP.
Qed.

(* Any inputs and any loss vectors with this gradient have P's layer.         *)
Theorem P_layer (x' : 'I_2 -> 'cV[R]_1) g' : gsum NP x' g' = bgrad (mse_lv 1) NP xP yP ->
  exists s : 'S_2, forall m, x' m = xP (s m) /\ delta1 NP (x' m) (g' m) = sample 4 deltasP (s m).
Proof.
move=> E; have [|||s st] := @P1_layer _ _ _ _ _ NP _ _ 1%:M xP _ (fun _ => True) x' g' _ _ rankP _ E => //.
- exact: confined_plain.
- exact: P_apart_span.
by exists s => m; have [ex ->] := st m; split=> //; rewrite gP delta1_sample; apply: eq_sample deltasP_ok.
Qed.

Theorem P_unique x' y' : bgrad (mse_lv 1) NP x' y' = bgrad (mse_lv 1) NP xP yP ->
  same_batch xP x' yP y'.
Proof.
apply: (P1_batch_first (adm := fun _ => True) (G := fun _ => True) (C := 1%:M)) => //.
- exact: confined_plain.
- exact: rankP.
- move=> m; exists (inord (2 * m)); case: (@live_P (inord (2 * m)) m) => //.
  by rewrite /owner inordK; case: (two_cases m) => ->.
- exact: P_apart_span.
- by move=> f l l' _ _; apply: mse_lv_inj.
Qed.

End Instances.
