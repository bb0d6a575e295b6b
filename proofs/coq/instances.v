(******************************************************************************)
(* The theorems on concrete networks with rational numbers.                   *)
(*                                                                            *)
(*   A   1-3-1, two samples: E1, factorisations, derivative, C1_batch_first   *)
(*   B   2-3-9-2, three samples and no exclusive neuron: C1_batch at layer 2  *)
(*   C   1-1-2, four samples of one region, classes (2, 2): S1_ambiguous      *)
(*   D   2-1-1, two samples of one region: S2                                 *)
(*   E   2-7-2, groups of two and one: C2                                     *)
(*   F   x^2 = 1: C4                                                          *)
(*   G   a rank modulo 7: rank_mod                                            *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network derivative shared orbits exclusive lifting exact downward.
From Exan Require Import groups systems modular compute.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Definition tabq (rows : seq (seq (int * int))) : table := fun i j =>
  let p := nth (0, 1) (nth [::] rows i) j in p.1%:Q / p.2%:Q.

Definition batch_of n (X : table) M (m : 'I_M) : 'cV[rat]_n := sample n X m.
Arguments batch_of n X {M} m.

Definition liftf d (X : table) : table := fun m i => if (i < d)%N then X i m else 1.

Lemma lift1_samples d M X : lift1 (@batch_of d X M) = mxf M (d + 1) (liftf d X).
Proof.
apply/matrixP => m i; rewrite !mxE /liftf; case: splitP => j ij; rewrite !mxE //.
by rewrite ij.
Qed.

Lemma mse_lv_inj K (f y y' : 'cV[rat]_K) : mse_lv 1 f y' = mse_lv 1 f y -> y' = y.
Proof. by rewrite /mse_lv !scale1r => /(scalerI (_ : 2%:R != 0))/addrI/oppr_inj ->. Qed.

(* C1 on one hidden layer and the squared error, as a list of computations.   *)
Section Certificate.

Variables (d n K M : nat) (W b U c X Y D : table).
Variables (L T inv : table) (rows : seq nat) (codes : seq (bool * nat * nat)).

Let N := one_hidden d n.+1 K.+1 W b U c.
Let F := logitf d n.+1 W b U c X.
Let r := size rows.

Definition layer_checks : bool :=
  [&& eqf n.+1 M.+1 (deltaf d K.+1 W b U X (msef F Y)) D,
      eqf M.+1 M.+1 (mulf n.+1 L D) onef, eqf M.+1 M.+1 (mulf (d + 1) (liftf d X) T) onef,
      all (fun j => j < n.+1)%N rows, size codes == r & all (code_ok M K) codes] &&
  eqf r r (mulf r (fun i j => codef D (fun i j => U j i) (nth 0%N rows i)
                                  (nth (true, 0%N, 0%N) codes j)) inv) onef.

Lemma lossvecs_mse (x : 'I_M.+1 -> 'cV[rat]_d) y m : x m = sample d X m -> y m = sample K.+1 Y m ->
  lossvecs (mse_lv 1) N x y m = sample K.+1 (msef F Y) m.
Proof. by rewrite /lossvecs => -> ->; rewrite fwd_sample mse_sample. Qed.

Lemma layer_facts (g : 'I_M.+1 -> 'cV[rat]_K.+1) :
  layer_checks -> (forall m, g m = sample K.+1 (msef F Y) m) ->
  [/\ Delta1 N (@batch_of d X M.+1) g = mxf n.+1 M.+1 D,
      \rank (gradmx (gsum N (@batch_of d X M.+1) g)) = M.+1 &
      (r <= \rank (lifted (Delta1 N (@batch_of d X M.+1) g) ((mxf K.+1 n.+1 U)^T *m 1%:M)))%N].
Proof.
case/andP => /andP[cD /and5P[cL cT ok_rows /eqP sz ok_codes]] cR gE.
have DE : Delta1 N (@batch_of d X M.+1) g = mxf n.+1 M.+1 D.
  by rewrite (Delta1_samples _ _ _ _ _ (X := X) (G := msef F Y)) //; apply: eq_mxf.
split=> //.
  rewrite gradmxE DE lift1_samples; apply: (@rank_product _ _ _ _ _ (mxf _ _ L) (mxf _ _ T)).
    by rewrite mul_mxf (eq_mxf cL) one_mxf.
  by rewrite mul_mxf (eq_mxf cT) one_mxf.
rewrite DE mulmx1 tr_mxf; exact: lifted_rank cR.
Qed.

Theorem unique_by_computation x' y' :
  layer_checks -> (#|mono M.+1 K.+1| <= r + M.+1)%N ->
  bgrad (mse_lv 1) N x' y' = bgrad (mse_lv 1) N (@batch_of d X M.+1) (@batch_of K.+1 Y M.+1) ->
  same_batch (@batch_of d X M.+1) x' (@batch_of K.+1 Y M.+1) y'.
Proof.
move=> ok cU; set x := @batch_of d X M.+1; set y := @batch_of K.+1 Y M.+1.
have [_ rA rR] := layer_facts ok (fun m => lossvecs_mse (erefl : x m = _) (erefl : y m = _)).
apply: (C1_batch_first (adm := fun _ => True) (G := fun _ => True) (C := 1%:M)) => //.
- exact: confined_plain.
- by apply: leq_trans rR; rewrite leq_subLR addnC.
- by move=> m l _ /mse_lv_inj.
Qed.

End Certificate.

(* A: neurons 0 and 1 are exclusive, neuron 2 is shared. *)
Definition WA := tab [:: [:: 1]; [:: -1]; [:: 0]].
Definition bA := tab [:: [:: 0]; [:: 0]; [:: 1]].
Definition UA := tab [:: [:: 1; 1; 1]].
Definition cA := tab [:: [:: 0]].
Definition XA := tab [:: [:: 1; -1]].
Definition YA := tab [:: [:: 1; 0]].
Definition NA := one_hidden 1 3 1 WA bA UA cA.
Definition xA : 'I_2 -> 'cV[rat]_1 := batch_of 1 XA.
Definition yA : 'I_2 -> 'cV[rat]_1 := batch_of 1 YA.

Definition DA := tab [:: [:: 2; 0]; [:: 0; 4]; [:: 2; 4]].
Definition LA := tabq [:: [:: (1, 2); (0, 1); (0, 1)]; [:: (0, 1); (1, 4); (0, 1)]].
Definition TA := tabq [:: [:: (1, 2); (-1, 2)]; [:: (1, 2); (1, 2)]].
Definition rowsA := [:: 0; 1; 2]%N.
Definition codesA := [:: (true, 0, 0); (true, 0, 1); (true, 1, 1)]%N.
Definition invA := tabq [:: [:: (1, 4); (0, 1); (0, 1)];
    [:: (-1, 16); (-1, 16); (1, 16)];
    [:: (0, 1); (1, 16); (0, 1)]].

Lemma checksA : layer_checks 1 2 0 1 WA bA UA cA XA YA DA LA TA invA rowsA codesA.
Proof. by vm_compute. Qed.

(* No other batch of two samples with any real labels has this gradient. *)
Theorem A_unique x' y' : bgrad (mse_lv 1) NA x' y' = bgrad (mse_lv 1) NA xA yA ->
  same_batch xA x' yA y'.
Proof. by apply: unique_by_computation checksA _; rewrite card_mono. Qed.
