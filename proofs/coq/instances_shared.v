(******************************************************************************)
(* Samples that share a region, on concrete networks with rational numbers.   *)
(*                                                                            *)
(*   C   1-1-2, four samples of one region (instances_ambiguous.v): S0, S1    *)
(*       and the stabilisers                                                  *)
(*   V   2-2-2, two samples of one region, a loss that sees the difference of *)
(*       the logits only: S2 along a direction in which the logits move       *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network exact shared orbits compute instances instances_ambiguous.

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
Local Notation NC := (NC R).
Local Notation xC := (xC R).
Local Notation yC := (yC R).
Local Notation ND := (ND R).
Local Notation xD := (xD R).

Section Tables.

Variables (d n K M : nat) (W b U c X : table).

Lemma pattern_on (m : 'I_M) :
  all (fun j => all (fun m => 0 < preact d W b X j m) (iota 0 M)) (iota 0 n) ->
  pattern (one_hidden d n K W b U c) (sample d X m) = (const_mx true, tt).
Proof.
move=> /allP on; congr (_, _); apply/colP => j; rewrite z_sample active_sample !mxE.
have /allP/(_ (val m)) := on (val j) (eq_ind_r is_true (ltn_ord j) (mem_iota 0 n j)).
by rewrite mem_iota ltn_ord; apply.
Qed.

Lemma moment_samples G (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) :
  (forall m, x m = sample d X m) -> (forall m, g m = sample K G m) ->
  moment x g = mxf K (d + 1) (mulf M G (liftf d X)).
Proof.
move=> xE gE; rewrite moment_cols cols_aug tr_col_mx trmx_const -/(lift1 x) (lift1_samples xE).
by rewrite (eq_cols gE) cols_sample mul_mxf.
Qed.

End Tables.

(* C: the gradient of the four samples is the region's image of one matrix.   *)
Definition GC := tab [:: [:: 20; 22; 26; 30]; [:: -22; -24; -28; -32]].
Definition gC : 'I_4 -> 'cV[R]_2 := batch_of 2 GC.
Definition onC : pat [:: 1%N] := (const_mx true, tt).
Definition momentC := tab [:: [:: 292; 98]; [:: -314; -106]].

Lemma lossC m : lossvecs (mse_lv 1) NC xC yC m = gC m.
Proof. by rewrite (@lossvecs_mse R 1 0 1 3 WC bC UC cC XC YC) //; apply: eq_sample; vm_compute. Qed.

Lemma bgradC : bgrad (mse_lv 1) NC xC yC = gsum NC xC gC.
Proof. by apply: eq_bigr => m _; rewrite lossC. Qed.

Lemma momentCE : moment xC gC = mxf 2 2 momentC.
Proof.
rewrite (@moment_samples 1 2 4 XC GC) //.
by apply: (@eq_mxf R 2 2); vm_compute.
Qed.

Theorem C_S0 : bgrad (mse_lv 1) NC xC yC = region NC onC (mxf 2 2 momentC).
Proof. by rewrite bgradC -momentCE; apply: S0 => m; apply: patternC. Qed.

(* Two samples have the gradient of the four: not even their number is seen.  *)
Definition XC2 := tab [:: [:: 0; 1]].
Definition GC2 := tab [:: [:: -194; 292]; [:: 208; -314]].

Theorem C_same_moment :
  gsum NC (@batch_of 1 XC2 2) (@batch_of 2 GC2 2) = bgrad (mse_lv 1) NC xC yC.
Proof.
rewrite bgradC; apply: (@S0_same_moment _ _ _ _ NC onC) => [m|m|].
- by apply: pattern_on; vm_compute.
- exact: patternC.
rewrite momentCE (@moment_samples 1 2 2 XC2 GC2) //.
by apply: (@eq_mxf R 2 2); vm_compute.
Qed.

(* Four other inputs with the same loss vectors, beside any other samples.    *)
Definition XC4 := tab [:: [:: -1; 4; 4; 4]].

Theorem C_in_batch t (z : 'I_t -> 'cV[R]_1) gz :
  gsum NC (join xC z) (join gC gz) = gsum NC (join (@batch_of 1 XC4 4) z) (join gC gz).
Proof.
apply: (@S0_in_batch _ _ _ _ NC onC) => [m|m|].
- exact: patternC.
- by apply: pattern_on; vm_compute.
rewrite momentCE (@moment_samples 1 2 4 XC4 GC) //.
by apply: (@eq_mxf R 2 2); vm_compute.
Qed.

(* An orthogonal matrix that keeps 1 and the labels: a second batch, with the *)
(* same labels, that is no permutation of the first.                          *)
Definition OC : table := fun i j => tab [:: [:: 9; 1; 3; -3]; [:: 1; 9; -3; 3]; [:: -3; 3; 9; 1];
  [:: 3; -3; 1; 9]] i j / 10%:R.
Definition XC' : table := fun i m => tab [:: [:: 17; 13; 29; 51]] i m / 10%:R.
Definition xC' : 'I_4 -> 'cV[R]_1 := batch_of 1 XC'.

Lemma stabiliserC : stabiliser (cols yC) (mxf 4 4 OC).
Proof.
split; first by rewrite tr_mxf mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
  by rewrite -ones_mxf mul_mxf; apply: eq_mxf; vm_compute.
by rewrite cols_sample mul_mxf; apply: eq_mxf; vm_compute.
Qed.

Lemma movedC m : moved xC (mxf 4 4 OC) m = xC' m.
Proof.
have E : cols (moved xC (mxf 4 4 OC)) = cols xC'.
  by rewrite cols_moved !cols_sample mul_mxf; apply: eq_mxf; vm_compute.
exact: cols_inj E m.
Qed.

Theorem C_S1 : bgrad (mse_lv 1) NC xC' yC = bgrad (mse_lv 1) NC xC yC.
Proof.
have <- : bgrad (mse_lv 1) NC (moved xC (mxf 4 4 OC)) yC = bgrad (mse_lv 1) NC xC' yC.
  by apply: eq_bigr => m _; rewrite /lossvecs movedC.
apply: (@S1 _ _ _ _ NC onC) => [|m|m]; [exact: stabiliserC | exact: patternC |].
by rewrite movedC; apply: pattern_on; vm_compute.
Qed.

Theorem C_S1_other (s : 'S_4) : ~ (forall m, xC' m = xC (s m)).
Proof.
move/(_ ord0)/colP/(_ ord0); rewrite !mxE => /fmorph_inj E.
have : all (fun m => XC' 0 0 != XC 0 m) (iota 0 4) by vm_compute.
by move/allP/(_ (val (s ord0))); rewrite mem_iota ltn_ord E eqxx => /(_ isT).
Qed.

Theorem C_reflection : exists O : 'M[R]_4, [/\ stabiliser (cols yC) O, O^T = O & O != 1%:M].
Proof. by apply: reflection; apply: leq_trans (rank_labelsC R); rewrite -[X in (X <= _)%N]addn1 leq_add2l. Qed.

Theorem C_family : exists O : R -> 'M[R]_4,
  [/\ O 0 = 1%:M, forall t, stabiliser (cols yC) (O t) & injective O].
Proof. exact: stabiliser_family (rank_labelsC R). Qed.

(* V: the loss is the squared error of f_0 - f_1; a shear along the second    *)
(* input adds the same number to both logits.                                 *)
Definition WV := tab [:: [:: 1; 0]; [:: 0; 1]].
Definition bV := tab [:: [:: 10]; [:: 10]].
Definition UV := tab [:: [:: 1; 1]; [:: 0; 1]].
Definition cV0 := tab [:: [:: 0]; [:: 0]].
Definition XV := tab [:: [:: 0; 1]; [:: 0; 0]].
Definition YV := tab [:: [:: 9; 12]; [:: 0; 0]].
Definition NV := one_hidden 2 2 2 WV bV UV cV0.
Definition xV : 'I_2 -> 'cV[R]_2 := batch_of 2 XV.
Definition yV : 'I_2 -> 'cV[R]_2 := batch_of 2 YV.
Definition vV : 'cV[R]_2 := mxf 2 1 (tab [:: [:: 0]; [:: 1]]).
Definition onV : pat [:: 2%N] := (const_mx true, tt).
Definition marginV : table := fun _ k => if k == 0%N then 1 else -1.

Definition lvV (f l : 'cV[R]_2) : 'cV[R]_2 :=
  (f 0 0 - f 1 0 - l 0 0) *: mxf 2 1 (fun k _ => marginV 0 k).

Lemma slopeV : slope NV onV = mxf 2 2 UV.
Proof.
have one : dmask R (const_mx true : 'cV_2) = mxf 2 2 onef.
  by rewrite one_mxf; apply/matrixP => i j; rewrite !mxE.
by rewrite /= one !mul_mxf; apply: eq_mxf; vm_compute.
Qed.

Lemma slope_vV : slope NV onV *m vV = const_mx 1.
Proof. by rewrite slopeV mul_mxf -ones_mxf; apply: eq_mxf; vm_compute. Qed.

Lemma patternV t m : -10%:R < t -> pattern NV (sheared xV (fun _ => 1) vV t m) = onV.
Proof.
move=> t10; have E : mxf 2 2 WV *m sheared xV (fun _ => 1) vV t m + mxf 2 1 bV =
    sample 2 (preact 2 WV bV XV) m + t *: mxf 2 1 (mulf 2 WV (tab [:: [:: 0]; [:: 1]])).
  by rewrite -z_sample -mul_mxf /sheared mulmxDr -scalemxAr mulr1 addrAC.
congr (_, _); rewrite E; apply/colP => -[[|[|j]] lt_j] //; rewrite !mxE.
  have -> : mulf 2 WV (tab [:: [:: 0]; [:: 1]]) 0 0 = 0 by apply/eqP; vm_compute.
  by rewrite rmorph0 mulr0 addr0 ltr0q; case: m {E} => [[|[|m]] lt_m] //; vm_compute.
have -> : mulf 2 WV (tab [:: [:: 0]; [:: 1]]) 1 0 = 1 by apply/eqP; vm_compute.
have -> : preact 2 WV bV XV 1 m = 10%:R by case: m {E} => [[|[|m]] lt_m] //; apply/eqP; vm_compute.
by rewrite rmorph1 mulr1 ratr_nat -ltr_subl_addl sub0r.
Qed.

Lemma patternV0 m : pattern NV (xV m) = onV.
Proof.
have t10 : -10%:R < 0 :> R by rewrite oppr_lt0 ltr0n.
by have := patternV m t10; rewrite /sheared mul0r scale0r addr0.
Qed.

Lemma invariantV f l s : lvV (f + s *: (slope NV onV *m vV)) l = lvV f l.
Proof.
rewrite slope_vV /lvV !mxE; congr (_ *: _); congr (_ - _).
by rewrite opprD addrACA subrr addr0.
Qed.

Lemma residualV m :
  lossvecs lvV NV xV yV m = ratr (if val m == 0%N then 1 else -1) *: mxf 2 1 (fun k _ => marginV 0 k).
Proof.
rewrite /lossvecs /lvV fwd_sample !mxE -!rmorphB; congr (ratr _ *: _).
by case: m => [[|[|m]] lt_m] //; apply/eqP; vm_compute.
Qed.

Theorem V_shear t : -10%:R < t ->
  bgrad lvV NV (sheared xV (fun _ => 1) vV t) yV = bgrad lvV NV xV yV.
Proof.
move=> t10; apply: (@S2 _ _ _ _ NV onV) => [||m|m].
- exact: invariantV.
- by rewrite big_ord_recl big_ord1 !scale1r !residualV -scalerDl rmorph1 rmorphN1 subrr scale0r.
- exact: patternV0.
exact: patternV.
Qed.

Theorem V_logits_move t m : -10%:R < t ->
  fwd NV (sheared xV (fun _ => 1) vV t m) = fwd NV (xV m) + const_mx t.
Proof.
move=> t10.
rewrite !fwd_fwdp patternV // patternV0 fwdp_affine [in RHS]fwdp_affine mulmxDr mulr1 -scalemxAr slope_vV.
by rewrite addrAC; congr (_ + _); apply/colP => k; rewrite !mxE mulr1.
Qed.

(* Coefficients for any labels, because the loss vectors sum to zero; and a   *)
(* direction that the difference of the logits does not see.                  *)
Theorem V_alpha y : exists2 alpha : 'I_2 -> R, (exists m, alpha m != 0) &
  \sum_m alpha m *: lossvecs lvV NV xV y m = 0.
Proof.
apply: S2_alpha_sum_zero => // m.
by rewrite big_ord_recl big_ord1 !mxE -mulrDr rmorph1 rmorphN1 subrr mulr0.
Qed.

Theorem V_direction :
  exists2 v : 'cV[R]_2, v != 0 & mxf 1 2 marginV *m (slope NV onV *m v) = 0.
Proof. by apply: S2_v; rewrite (leq_ltn_trans (rank_leq_row _)). Qed.

(* D has one logit and two samples: coefficients for every loss.              *)
Theorem D_alpha lv y : exists2 alpha : 'I_2 -> R, (exists m, alpha m != 0) &
  \sum_m alpha m *: lossvecs lv ND xD y m = 0.
Proof. exact: S2_alpha_many. Qed.

End Instances.
