(******************************************************************************)
(* Two slopes on a concrete network.                                          *)
(*                                                                            *)
(*   X   1-4-1, slope 1/2, x = 1 and -1, a neuron for each pair of states     *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting exact downward modular slopes compute instances.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

(* The columns of C1 are columns of PL1, with the weights times 1 + s.        *)
Lemma rank_lifted2 (F : fieldType) n M k (B : 'M[F]_(n, M)) (V : 'M[F]_(n, k)) (s : 'cV[F]_n) :
  (\rank (lifted B (\matrix_(j, c) ((1 + s j 0) * V j c)%R)) <= \rank (lifted2 B V s))%N.
Proof.
apply: leq_trans (rank_mxsub id (fun i : 'I_#|mono M k| => enum_rank (inl (enum_val i) : mono2 M k)) _).
rewrite (_ : mxsub _ _ _ = lifted B (\matrix_(j, c) ((1 + s j 0) * V j c))) //.
apply/matrixP => j i; rewrite !mxE enum_rankK /=; case: (enum_val i) => [[[a b] ab] //|[a c]] /=.
by rewrite !mxE; congr (- _); ring.
Qed.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation sample := (sample R).
Local Notation batch_of := (batch_of R).


Definition half : rat := 1 / 2%:R.
Definition W1X := tab [:: [:: 0]; [:: 1]; [:: -1]; [:: 0]].
Definition b1X := tab [:: [:: 1]; [:: 0]; [:: 0]; [:: -1]].
Definition W2X := tab [:: [:: 1; 1; 2; 1]].
Definition zeroX : table := fun _ _ => 0.
Definition XX := tab [:: [:: 1; -1]].
Definition YX := tab [:: [:: 0; 0]].
Definition NX : params R 1 [:: 4]%N 1 := one_hidden R 1 4 1 W1X b1X W2X zeroX.
Definition sX : slopes R [:: 4]%N := (const_mx (ratr half), tt).
Definition xX : 'I_2 -> 'cV[R]_1 := batch_of 1 XX.
Definition yX : 'I_2 -> 'cV[R]_1 := batch_of 1 YX.
Definition gX (m : 'I_2) := mse_lv 1 (fwds NX sX (xX m)) (yX m).

(* Features, loss vectors, deltas. *)
Definition hidX : table := fun j m =>
  if 0 < preact 1 W1X b1X XX j m then preact 1 W1X b1X XX j m else half * preact 1 W1X b1X XX j m.
Definition outX : table := mulf 4 W2X hidX.
Definition dX : table := fun j m => if 0 < preact 1 W1X b1X XX j m then 1 else half.
Definition DX : table := fun j m => dX j m * mulf 1 (fun i k => W2X k i) (msef outX YX) j m.

Lemma phiX m : phi sX.1 (sample 4 (preact 1 W1X b1X XX) m) = sample 4 hidX m.
Proof.
rewrite /sX /=; apply/colP => j; rewrite !mxE ltr0q /hidX.
by case: (0 < preact 1 W1X b1X XX j m); rewrite // [RHS]rmorphM.
Qed.

Lemma gXE m : gX m = sample 1 (msef outX YX) m.
Proof.
rewrite /gX /= z_sample phiX mul_mxf -mse_sample; congr (mse_lv _ _ _).
by rewrite zero_mxf addr0.
Qed.

Lemma DelsX : Dels NX sX xX gX = mxf 4 2 DX.
Proof.
apply/matrixP => j m; rewrite [LHS]mxE /= z_sample dphiE gXE tr_mxf mul_mxf !mxE ltr0q.
rewrite [RHS]rmorphM; congr (_ * _); rewrite /dX.
by case: (0 < preact 1 W1X b1X XX j m); rewrite /= ?rmorph1.
Qed.

Definition LX := tabq [:: [:: (-1, 1); (2, 1)]; [:: (1, 2); (-1, 2)]].
Definition TX := tabq [:: [:: (1, 2); (-1, 2)]; [:: (1, 2); (1, 2)]].
Definition V2X : table := fun j k => (1 + half) * W2X k j.
Definition codesX := [:: (true, 0, 0); (true, 0, 1); (true, 1, 1); (false, 0, 0)]%N.
Definition invX := tabq [:: [:: (-2, 3); (8, 3); (1, 3); (-16, 3)];
  [:: (1, 2); (-1, 2); (-1, 8); (1, 2)];
  [:: (-1, 12); (1, 12); (1, 24); (-1, 6)];
  [:: (2, 3); (0, 1); (0, 1); (-8, 3)]].

Lemma card_mono2X : (#|mono2 2 1| <= 6)%N.
Proof.
rewrite card_sum card_mono -[6%N]/(5 + 1)%N leq_add2l card_sig.
by apply: leq_trans (max_card _) _; rewrite card_prod !card_ord.
Qed.

(* No other batch of two samples, with any real labels. *)
Theorem X_unique x' y' : bgrads (mse_lv 1) NX sX x' y' = bgrads (mse_lv 1) NX sX xX yX -> same_batch xX x' yX y'.
Proof.
apply: (@PL1_batch_first _ 1 (mse_lv 1) 1 4 [::] NX sX (fun _ => True) 2 1 (fun _ => True) 1%:M) => //.
- exact: confined2_plain.
- rewrite gradmx_gsums DelsX (@lift1_samples _ 1 2 XX) //.
  apply: (@rank_product _ _ _ _ _ _ (mxf 2 4 LX) (mxf 2 2 TX)).
    by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
- apply: leq_trans (leq_sub2r 2 card_mono2X) _; apply: leq_trans (rank_lifted2 _ _ _).
  rewrite (_ : \matrix_(j, c) _ = mxf 4 1 V2X); last first.
    apply/matrixP => j c; rewrite mulmx1 !mxE /V2X [RHS]rmorphM; congr (_ * _).
    by rewrite rmorphD rmorph1.
  rewrite DelsX.
  by apply: (@lifted_rank _ 3 1 0 4 DX V2X (iota 0 4) codesX invX); vm_compute.
by move=> m l _ /mse_lv_inj.
Qed.

End Instances.
