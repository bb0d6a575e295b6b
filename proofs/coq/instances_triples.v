(******************************************************************************)
(* Lifting of degree three for samples that share a pattern, on a concrete    *)
(* network.                                                                   *)
(*                                                                            *)
(*   U   1-3-2, x = 1 and 2 in one region: three neurons, twelve equations in *)
(*       sixteen monomials, and the four that one group of two must leave     *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact groups cubic compute instances instances_cubic triples.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation one_hidden := (one_hidden R).
Local Notation batch_of := (batch_of R).
Local Notation sample := (sample R).

(* Both samples are active for all neurons; their loss vectors are the unit   *)
(* vectors.                                                                   *)
Definition W1U := tab [:: [:: 1]; [:: 1]; [:: 1]].
Definition b1U := tab [:: [:: 0]; [:: 1]; [:: 2]].
Definition W2U := tab [:: [:: 1; 0; 1]; [:: 0; 1; 1]].
Definition b2U := tab [:: [:: 0]; [:: 0]].
Definition XU := tab [:: [:: 1; 2]].
Definition GU := tab [:: [:: 1; 0]; [:: 0; 1]].
Definition NU := one_hidden 1 3 2 W1U b1U W2U b2U.
Definition xU : 'I_2 -> 'cV[R]_1 := batch_of 1 XU.
Definition gU : 'I_2 -> 'cV[R]_2 := batch_of 2 GU.
Definition grU (m : 'I_2) : unit := tt.

Definition DU := tab [:: [:: 1; 0]; [:: 0; 1]; [:: 1; 1]].

Lemma Delta1_U : Delta1 NU xU gU = mxf 3 2 DU.
Proof. by rewrite (@Delta1_samples R 1 3 2 W1U b1U W2U b2U 2 XU GU) //; apply: eq_mxf; vm_compute. Qed.

Definition rowsU : seq (nat * nat) := [seq (j, i) | j <- iota 0 3, i <- iota 0 4].
Definition codesU : seq (seq nat) := [::
  [:: 0; 0; 2]; [:: 0; 0; 3]; [:: 0; 1; 2]; [:: 0; 1; 3]; [:: 0; 2; 2]; [:: 0; 2; 3];
  [:: 0; 3; 3]; [:: 1; 1; 2]; [:: 1; 1; 3]; [:: 1; 2; 2]; [:: 1; 2; 3]; [:: 1; 3; 3]]%N.
Definition minorU := tab [::
  [:: -1; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0]; [:: 0; 0; -1; 0; 0; 0; 0; 0; 0; 0; 0; 0];
  [:: 1; 0; 0; 0; -1; 0; 0; 0; 0; 0; 0; 0]; [:: 0; 1; 0; 0; 0; -1; 0; 0; 0; 0; 0; 0];
  [:: 0; 0; 0; -1; 0; 0; 0; 0; 0; 0; 0; 0]; [:: 0; 0; 0; 0; 0; 0; 0; 0; -1; 0; 0; 0];
  [:: 0; 0; 0; 0; 0; 0; 0; 1; 0; 0; -1; 0]; [:: 0; 0; 0; 0; 0; 0; 0; 0; 1; 0; 0; -1];
  [:: -1; -1; -1; -1; 0; 0; 0; 0; 0; 0; 0; 0]; [:: 0; 0; -1; -1; 0; 0; 0; -1; -1; 0; 0; 0];
  [:: 1; 0; 2; 0; -1; -1; 0; 1; 0; -1; -1; 0]; [:: 0; 1; 0; 2; 0; -1; -1; 0; 1; 0; -1; -1]].
Definition inverseU := tab [::
  [:: -1; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0]; [:: 1; 1; 0; 0; 1; 0; 0; 0; -1; 0; 0; 0];
  [:: 0; -1; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0]; [:: 0; 0; 0; 0; -1; 0; 0; 0; 0; 0; 0; 0];
  [:: -1; 0; -1; 0; 0; 0; 0; 0; 0; 0; 0; 0]; [:: 1; 1; 0; -1; 1; 0; 0; 0; -1; 0; 0; 0];
  [:: 0; -1; 0; 1; -3; -1; 1; 1; 0; 1; 0; -1]; [:: 0; 1; 0; 0; 1; 1; 0; 0; 0; -1; 0; 0];
  [:: 0; 0; 0; 0; 0; -1; 0; 0; 0; 0; 0; 0]; [:: -1; -3; 1; 1; -1; 0; 1; 0; 1; 0; -1; 0];
  [:: 0; 1; 0; 0; 1; 1; -1; 0; 0; -1; 0; 0]; [:: 0; 0; 0; 0; 0; -1; 0; -1; 0; 0; 0; 0]].

Lemma rankU : (12 <= \rank (cubic (mxf 3 2 DU) (mxf 3 2 DU)))%N.
Proof. by apply: (@cubic_rank R 2 1 2 DU DU rowsU codesU 12 minorU inverseU); vm_compute. Qed.

Theorem U_count : #|triples grU| = 4%N.
Proof.
rewrite card_triples (big_pred1 tt) => [|[]] //.
by rewrite (_ : [set m | _] = setT) ?cardsT ?card_ord //; apply/setP => m; rewrite !inE.
Qed.

Lemma enoughU : (#|mono3 2 2| - #|triples grU| <= \rank (cubic (mxf 3 2 DU) (mxf 3 2 DU)))%N.
Proof.
rewrite U_count; apply: leq_trans rankU; rewrite leq_subLR.
by apply: leq_trans (instances_cubic.card_mono3 1 2) _; vm_compute.
Qed.

Lemma BU (j : 'I_3) (m : 'I_2) : mxf 3 2 DU j m = if true then (mxf 3 2 DU *m 1%:M) j m else 0.
Proof. by rewrite mulmx1. Qed.

(* The four cubes of the group solve all equations, independently.            *)
Theorem U_solves (t : triples grU) : solves (cubic_coef (mxf 3 2 DU) (mxf 3 2 DU)) (mixed3 1%:M t).
Proof. exact: (mixed3_solves (on := fun _ _ => true) BU). Qed.

Theorem U_independent (c : triples grU -> R) :
  (forall x y z, \sum_t c t * mixed3 (1%:M : 'M[R]_2) t (qqq 2 x y z) = 0) -> forall t, c t = 0.
Proof. exact: mixed3_independent. Qed.

(* Every candidate has q = p: it lies in the span of the two samples.         *)
Theorem U_candidates (q p : 'cV[R]_2) : q != 0 -> cand (mxf 3 2 DU) (mxf 3 2 DU) q p -> p = q.
Proof.
move=> q0 c_qp; have [//|m [_ _ ->]] := L3_group_candidates (on := fun _ _ => true) BU _ enoughU q0 c_qp.
by rewrite mul1mx.
Qed.

(* Any other batch mixes the two by one invertible matrix.                    *)
Theorem U_structure (x' : 'I_2 -> 'cV[R]_1) g' : gsum NU x' g' = gsum NU xU gU ->
  exists (s : 'S_2) (P : 'M[R]_2), P \in unitmx /\ same_structure NU grU xU x' gU g' s P.
Proof.
apply: (@L3_groups R 1 3 [::] 2 NU 2 _ grU 2 (fun _ => True) 1%:M) => //.
- move=> a b _; rewrite /xU /batch_of [NU.1.1]/= [NU.1.2]/= !z_sample !active_sample; apply/colP => j; rewrite !mxE.
  have on : eqf 3 2 (fun j m => if 0 < preact 1 W1U b1U XU j m then 1 else 0) (fun _ _ => 1) by vm_compute.
  have := eqf_at j a on; have := eqf_at j b on.
  by do 2!case: (0 < _).
- exact: confined_plain.
- rewrite gradmxE Delta1_U (@lift1_samples _ 1 2 XU) //.
  apply: (@rank_product _ _ _ _ _ _ (mxf 2 3 (tab [:: [:: 1; 0; 0]; [:: 0; 1; 0]])) (mxf 2 2 (tab [:: [:: -1; 1]; [:: 2; -1]]))).
    by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
rewrite Delta1_U mulmx1 -[w1 _]/(mxf 2 3 W2U) tr_mxf.
have -> : mxf 3 2 (fun i j => W2U j i) = mxf 3 2 DU by apply: eq_mxf; vm_compute.
exact: enoughU.
Qed.

End Instances.
