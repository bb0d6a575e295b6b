(******************************************************************************)
(* Second batches on concrete networks with rational numbers.                 *)
(*                                                                            *)
(*   C   1-1-2, four samples of one region, classes (2, 2): S1_ambiguous      *)
(*   D   2-1-1, two samples of one region: S2                                 *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network derivative shared orbits compute instances.

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

(* C: four samples of one region, two of each class. *)
Definition WC := tab [:: [:: 1]].
Definition bC := tab [:: [:: 10]].
Definition UC := tab [:: [:: 1]; [:: -1]].
Definition cC := tab [:: [:: 0]; [:: 0]].
Definition XC := tab [:: [:: 1; 2; 3; 5]].
Definition YC := tab [:: [:: 1; 1; 0; 0]; [:: 0; 0; 1; 1]].
Definition NC := one_hidden 1 1 2 WC bC UC cC.
Definition xC : 'I_4 -> 'cV[R]_1 := batch_of 1 XC.
Definition yC : 'I_4 -> 'cV[R]_2 := batch_of 2 YC.

Lemma patternC m : pattern NC (xC m) = (const_mx true, tt).
Proof.
congr (_, _); apply/colP => j; rewrite z_sample active_sample !mxE.
have on : eqf 1 4 (fun j m => if 0 < preact 1 WC bC XC j m then 1 else 0) (fun _ _ => 1).
  by vm_compute.
by have := eqf_at j m on; case: (0 < _).
Qed.

Lemma rank_labelsC : (\rank (ones_labels (cols yC)) + 2 <= 4)%N.
Proof.
have ones : const_mx 1 = const_mx 1 *m cols yC :> 'rV[R]_4.
  by rewrite cols_sample -!ones_mxf mul_mxf; apply: eq_mxf; vm_compute.
rewrite (@leq_add2r 2 _ 2) /ones_labels {1}ones.
rewrite -[X in col_mx _ X]mul1mx -mul_col_mx.
exact: leq_trans (mxrankM_maxr _ _) (rank_leq_row _).
Qed.

Theorem C_ambiguous : exists2 e : R, 0 < e & forall t : R, t != 0 -> `|t| < e ->
  exists x' : 'I_4 -> 'cV[R]_1,
    [/\ bgrad (mse_lv 1) NC x' yC = bgrad (mse_lv 1) NC xC yC,
        forall m, pattern NC (x' m) = (const_mx true, tt) &
        forall s : 'S_4, ~ (forall m, x' m = xC (s m))].
Proof.
apply: S1_ambiguous => [|m||].
- exact: patternC.
- by apply: (@genericP R 1 0 1 3 WC bC UC cC XC); vm_compute.
- exact: rank_labelsC.
apply/negP => /submxP[D xE].
have /matrixP/(_ 0 (inord 0)) := xE; have /matrixP/(_ 0 (inord 1)) := xE.
have -> : (D *m ones_labels (cols yC)) 0 (inord 1) = (D *m ones_labels (cols yC)) 0 (inord 0).
  rewrite /ones_labels !mxE; apply: eq_bigr => i _; congr (_ * _).
  rewrite !mxE; case: splitP => j _; rewrite !mxE // !inordK //.
  by case: j => [[|[|j]] lt_j].
by move=> <-; rewrite cols_sample !mxE !inordK // => /eqP; rewrite (inj_eq (fmorph_inj _)); vm_compute.
Qed.

(* D: a shear along the second input, which no logit sees; any size t. *)
Definition WD := tab [:: [:: 1; 0]].
Definition bD := tab [:: [:: 10]].
Definition UD := tab [:: [:: 1]].
Definition cD := tab [:: [:: 0]].
Definition XD := tab [:: [:: 0; 1]; [:: 0; 0]].
Definition YD := tab [:: [:: 9; 12]].
Definition ND := one_hidden 2 1 1 WD bD UD cD.
Definition xD : 'I_2 -> 'cV[R]_2 := batch_of 2 XD.
Definition yD : 'I_2 -> 'cV[R]_1 := batch_of 1 YD.
Definition vD : 'cV[R]_2 := mxf 2 1 (tab [:: [:: 0]; [:: 1]]).

Lemma WvD : mxf 1 2 WD *m vD = 0.
Proof.
by rewrite mul_mxf -zero_mxf; apply: eq_mxf; vm_compute.
Qed.

Lemma patternD m t : pattern ND (sheared xD (fun _ => 1) vD t m) = (const_mx true, tt).
Proof.
congr (_, _); rewrite /sheared -[ND.1.1]/(mxf 1 2 WD) mulmxDr -scalemxAr WvD scaler0 addr0.
apply/colP => j; rewrite z_sample active_sample !mxE.
have on : eqf 1 2 (fun j m => if 0 < preact 2 WD bD XD j m then 1 else 0) (fun _ _ => 1).
  by vm_compute.
by have := eqf_at j m on; case: (0 < _).
Qed.

Theorem D_ambiguous t :
  bgrad (mse_lv 1) ND (sheared xD (fun _ => 1) vD t) yD = bgrad (mse_lv 1) ND xD yD.
Proof.
apply: (@S2_same_logits _ _ _ _ ND (const_mx true, tt)) => [||m|m].
- by rewrite /= -!mulmxA WvD !mulmx0.
- rewrite big_ord_recl big_ord1 !scale1r.
  rewrite !(@lossvecs_mse R 2 0 0 1 WD bD UD cD XD YD) //.
  by apply/colP => i; rewrite !mxE -rmorphD (ord1 i); apply/eqP; rewrite fmorph_eq0; vm_compute.
- by have := patternD m 0; rewrite /sheared mul0r scale0r addr0.
exact: patternD.
Qed.

End Instances.
