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

Lemma lift1_samples d M X (x : 'I_M -> 'cV[rat]_d) :
  (forall m, x m = sample d X m) -> lift1 x = mxf M (d + 1) (liftf d X).
Proof.
move=> xE; apply/matrixP => m i; rewrite !mxE /liftf; case: splitP => j ij; rewrite !mxE //.
by rewrite xE mxE ij.
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

Lemma layer_facts (x : 'I_M.+1 -> 'cV[rat]_d) (g : 'I_M.+1 -> 'cV[rat]_K.+1) :
  layer_checks -> (forall m, x m = sample d X m) -> (forall m, g m = sample K.+1 (msef F Y) m) ->
  [/\ Delta1 N x g = mxf n.+1 M.+1 D, \rank (gradmx (gsum N x g)) = M.+1 &
      (r <= \rank (lifted (Delta1 N x g) ((mxf K.+1 n.+1 U)^T *m 1%:M)))%N].
Proof.
case/andP => /andP[cD /and5P[cL cT ok_rows /eqP sz ok_codes]] cR xE gE.
have DE : Delta1 N x g = mxf n.+1 M.+1 D.
  by rewrite (Delta1_samples _ _ _ _ _ xE gE); apply: eq_mxf.
split=> //.
  rewrite gradmxE DE (lift1_samples xE).
  apply: (@rank_product _ _ _ _ _ (mxf _ _ L) (mxf _ _ T)).
    by rewrite mul_mxf (eq_mxf cL) one_mxf.
  by rewrite mul_mxf (eq_mxf cT) one_mxf.
by rewrite DE mulmx1 tr_mxf; apply: lifted_rank cR.
Qed.

(* Exclusive neurons and non-zero pre-activations, by computation. *)
Lemma is_active_sample (x : 'I_M.+1 -> 'cV[rat]_d) j m : (forall m, x m = sample d X m) ->
  is_active N x j m = (0 < preact d W b X j m).
Proof. by move=> xE; rewrite /is_active xE z_sample mxE. Qed.

Definition exclusivef (j m : nat) : bool :=
  all (fun m' => (0 < preact d W b X j m') == (m' == m)) (iota 0 M.+1).

Lemma exclusiveP (x : 'I_M.+1 -> 'cV[rat]_d) (j : 'I_n.+1) (m : 'I_M.+1) :
  (forall m, x m = sample d X m) -> exclusive N x j m <-> exclusivef j m.
Proof.
move=> xE; split=> [ex|/allP ex m']; last first.
  by rewrite is_active_sample //; apply/eqP/ex; rewrite mem_iota /= add0n.
apply/allP => m'; rewrite mem_iota /= add0n => m'M; apply/eqP.
by have := ex (Ordinal m'M); rewrite is_active_sample.
Qed.

Definition genericf : bool :=
  all (fun j => all (fun m => preact d W b X j m != 0) (iota 0 M.+1)) (iota 0 n.+1).

Lemma genericP (m : 'I_M.+1) : genericf -> generic N (sample d X m).
Proof.
move=> /allP gen; split=> // j; rewrite z_sample mxE.
have /allP/(_ (val m)) := gen (val j) (eq_ind_r is_true (ltn_ord j) (mem_iota 0 n.+1 j)).
by rewrite mem_iota /= add0n; apply; apply: ltn_ord.
Qed.

Theorem unique_by_computation x' y' :
  layer_checks -> (#|mono M.+1 K.+1| <= r + M.+1)%N ->
  bgrad (mse_lv 1) N x' y' = bgrad (mse_lv 1) N (@batch_of d X M.+1) (@batch_of K.+1 Y M.+1) ->
  same_batch (@batch_of d X M.+1) x' (@batch_of K.+1 Y M.+1) y'.
Proof.
move=> ok cU; set x := @batch_of d X M.+1; set y := @batch_of K.+1 Y M.+1.
have xE m : x m = sample d X m by [].
have yE m : y m = sample K.+1 Y m by [].
have [_ rA rR] := layer_facts ok xE (fun m => lossvecs_mse (xE m) (yE m)).
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

Theorem A_E1 i : w1 (bgrad (mse_lv 1) NA xA yA) ord0 i / b1 (bgrad (mse_lv 1) NA xA yA) ord0 0 =
  xA ord0 i 0.
Proof.
apply: E1; first by apply/(@exclusiveP 1 2 0 1 WA bA UA cA XA) => //; vm_compute.
by rewrite (@lossvecs_mse 1 2 0 1 WA bA UA cA XA YA) // delta1_sample mxE; vm_compute.
Qed.

Theorem A_factorisations (x' : 'I_2 -> 'cV[rat]_1) g' :
  gsum NA x' g' = bgrad (mse_lv 1) NA xA yA ->
  exists P Q : 'M[rat]_2,
    [/\ P *m Q = 1%:M, Q *m P = 1%:M, Q *m const_mx 1 = const_mx 1 :> 'cV_2,
        Delta1 NA x' g' = Delta1 NA xA (lossvecs (mse_lv 1) NA xA yA) *m P &
        (cols x')^T = Q *m (cols xA)^T].
Proof.
apply: factorisations; have xE m : xA m = sample 1 XA m by [].
have gE m : lossvecs (mse_lv 1) NA xA yA m = sample 1 (msef (logitf 1 3 WA bA UA cA XA) YA) m.
  exact: lossvecs_mse.
by have [_ rA _] := layer_facts checksA xE gE.
Qed.

Theorem A_derivative dN : exists q : {poly rat},
  q^`().[0] = dotp (bgrad (mse_lv 1) NA xA yA) dN /\
  near (fun t => q.[t] = \sum_m sq_error (fwd (NA + t *: dN) (xA m)) (yA m)).
Proof. by apply: mse_gradient => m; apply: genericP; vm_compute. Qed.
