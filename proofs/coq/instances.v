(******************************************************************************)
(* The theorems on concrete networks with rational numbers. What is said of   *)
(* other batches holds over every ordered field R.                            *)
(*                                                                            *)
(*   A   1-3-1, two samples: E1, factorisations, derivative, C1_batch_first   *)
(*   B   2-3-9-2, three samples and no exclusive neuron: C1_batch at layer 2  *)
(*   E   2-7-2, groups of two and one: C2                                     *)
(* C and D: instances_ambiguous.v; F and G: instances_algebra.v.              *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network derivative exclusive lifting exact downward groups compute.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Definition tabq (rows : seq (seq (int * int))) : table := fun i j =>
  let p := nth (0, 1) (nth [::] rows i) j in p.1%:Q / p.2%:Q.

Definition liftf d (X : table) : table := fun m i => if (i < d)%N then X i m else 1.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation sample := (sample R).
Local Notation one_hidden := (one_hidden R).

Definition batch_of n (X : table) M (m : 'I_M) : 'cV[R]_n := sample n X m.
Arguments batch_of n X {M} m.

Lemma lift1_samples d M X (x : 'I_M -> 'cV[R]_d) :
  (forall m, x m = sample d X m) -> lift1 x = mxf M (d + 1) (liftf d X).
Proof.
move=> xE; apply/matrixP => m i; rewrite !mxE /liftf; case: splitP => j ij; rewrite !mxE ?rmorph1 //.
by rewrite xE mxE ij.
Qed.

Lemma mse_lv_inj K (f y y' : 'cV[R]_K) : mse_lv 1 f y' = mse_lv 1 f y -> y' = y.
Proof.
have two : 2%:R != 0 :> R by rewrite pnatr_eq0.
by rewrite /mse_lv !scale1r => /(scalerI two)/addrI/oppr_inj.
Qed.

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

Lemma lossvecs_mse (x : 'I_M.+1 -> 'cV[R]_d) y m : x m = sample d X m -> y m = sample K.+1 Y m ->
  lossvecs (mse_lv 1) N x y m = sample K.+1 (msef F Y) m.
Proof. by rewrite /lossvecs => -> ->; rewrite fwd_sample mse_sample. Qed.

Lemma layer_facts (x : 'I_M.+1 -> 'cV[R]_d) (g : 'I_M.+1 -> 'cV[R]_K.+1) :
  layer_checks -> (forall m, x m = sample d X m) -> (forall m, g m = sample K.+1 (msef F Y) m) ->
  [/\ Delta1 N x g = mxf n.+1 M.+1 D, \rank (gradmx (gsum N x g)) = M.+1 &
      (r <= \rank (lifted (Delta1 N x g) ((mxf K.+1 n.+1 U)^T *m 1%:M)))%N].
Proof.
case/andP => /andP[cD /and5P[cL cT ok_rows /eqP sz ok_codes]] cR xE gE.
have DE : Delta1 N x g = mxf n.+1 M.+1 D.
  by rewrite (Delta1_samples _ _ _ _ _ xE gE); apply: eq_mxf.
split=> //.
  rewrite gradmxE DE (lift1_samples xE).
  apply: (@rank_product _ _ _ _ _ _ (mxf _ _ L) (mxf _ _ T)).
    by rewrite mul_mxf (eq_mxf cL) one_mxf.
  by rewrite mul_mxf (eq_mxf cT) one_mxf.
by rewrite DE mulmx1 tr_mxf; apply: lifted_rank cR.
Qed.

(* Exclusive neurons and non-zero pre-activations, by computation. *)
Lemma is_active_sample (x : 'I_M.+1 -> 'cV[R]_d) j m : (forall m, x m = sample d X m) ->
  is_active N x j m = (0 < preact d W b X j m).
Proof. by move=> xE; rewrite /is_active xE z_sample mxE ltr0q. Qed.

Definition exclusivef (j m : nat) : bool :=
  all (fun m' => (0 < preact d W b X j m') == (m' == m)) (iota 0 M.+1).

Lemma exclusiveP (x : 'I_M.+1 -> 'cV[R]_d) (j : 'I_n.+1) (m : 'I_M.+1) :
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
move=> /allP gen; split=> // j; rewrite z_sample mxE fmorph_eq0.
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
Definition xA : 'I_2 -> 'cV[R]_1 := batch_of 1 XA.
Definition yA : 'I_2 -> 'cV[R]_1 := batch_of 1 YA.

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
by rewrite (@lossvecs_mse 1 2 0 1 WA bA UA cA XA YA) // delta1_sample mxE fmorph_eq0; vm_compute.
Qed.

Theorem A_factorisations (x' : 'I_2 -> 'cV[R]_1) g' :
  gsum NA x' g' = bgrad (mse_lv 1) NA xA yA ->
  exists P Q : 'M[R]_2,
    [/\ P *m Q = 1%:M, Q *m P = 1%:M, Q *m const_mx 1 = const_mx 1 :> 'cV_2,
        Delta1 NA x' g' = Delta1 NA xA (lossvecs (mse_lv 1) NA xA yA) *m P &
        (cols x')^T = Q *m (cols xA)^T].
Proof.
apply: factorisations; have xE m : xA m = sample 1 XA m by [].
have gE m : lossvecs (mse_lv 1) NA xA yA m = sample 1 (msef (logitf 1 3 WA bA UA cA XA) YA) m.
  exact: lossvecs_mse.
by have [_ rA _] := layer_facts checksA xE gE.
Qed.

Theorem A_factorisations_unique (x' : 'I_2 -> 'cV[R]_1) g' (P P1 Q Q1 : 'M[R]_2) :
  let D := Delta1 NA xA (lossvecs (mse_lv 1) NA xA yA) in
  Delta1 NA x' g' = D *m P -> Delta1 NA x' g' = D *m P1 ->
  lift1 x' = Q *m lift1 xA -> lift1 x' = Q1 *m lift1 xA -> P = P1 /\ Q = Q1.
Proof.
apply: factorisations_unique; have xE m : xA m = sample 1 XA m by [].
have gE m : lossvecs (mse_lv 1) NA xA yA m = sample 1 (msef (logitf 1 3 WA bA UA cA XA) YA) m.
  exact: lossvecs_mse.
by have [_ rA _] := layer_facts checksA xE gE.
Qed.

Theorem A_derivative dN : exists q : {poly R},
  q^`().[0] = dotp (bgrad (mse_lv 1) NA xA yA) dN /\
  near (fun t => q.[t] = \sum_m sq_error (fwd (NA + t *: dN) (xA m)) (yA m)).
Proof. by apply: mse_gradient => m; apply: genericP; vm_compute. Qed.

(* B: two hidden layers; C1 at the second one. Every neuron serves at least   *)
(* two samples, so that no sample has an exclusive neuron in any layer.       *)
Definition W1B := tab [:: [:: 1; 0]; [:: 0; 1]; [:: 1; 1]].
Definition b1B := tab [:: [:: 1]; [:: 1]; [:: 1]].
Definition WB := tab [:: [:: 0; -2; 0]; [:: 2; 0; -2]; [:: 0; -2; 0]; [:: -2; 0; 0]; [:: 0; 2; -2];
  [:: 2; 2; 0]; [:: 0; 0; 2]; [:: 1; 0; 0]; [:: 0; 1; 0]].
Definition bB := tab [:: [:: 3]; [:: 1]; [:: 3]; [:: 3]; [:: 1]; [:: -5]; [:: -3]; [:: 0]; [:: 0]].
Definition UB := tab [:: [:: -2; 0; -2; 0; 2; 0; 2; 2; -1]; [:: 1; 1; -2; -2; -1; 2; -2; 0; 2]].
Definition cB := tab [:: [:: 0]; [:: 0]].
Definition XB := tab [:: [:: 0; 1; 0]; [:: 0; 0; 1]].
Definition HB := tab [:: [:: 1; 2; 1]; [:: 1; 1; 2]; [:: 1; 2; 2]].
Definition YB := tab [:: [:: 1; 0; 1]; [:: 0; 1; 0]].

Definition topB := one_hidden 3 9 2 WB bB UB cB.
Definition NB : params R 2 [:: 3; 9]%N 2 :=
  ((mxf 3 2 W1B, mxf 3 1 b1B), topB).
Definition xB : 'I_3 -> 'cV[R]_2 := batch_of 2 XB.
Definition yB : 'I_3 -> 'cV[R]_2 := batch_of 2 YB.
Definition hB (m : 'I_3) : 'cV[R]_3 := relu (NB.1.1 *m xB m + NB.1.2).

Definition DB := tab [:: [:: 6; -2; 0]; [:: -2; 2; 0]; [:: 12; -8; 0]; [:: 4; 0; -4]; [:: -6; 0; 10];
  [:: 0; 4; 4]; [:: 0; 0; 8]; [:: -8; 4; 12]; [:: 0; 2; -2]].
Definition D1B := tab [:: [:: -20; 16; 28]; [:: -48; 30; 26]; [:: 16; -4; -4]].
Definition L1B := tabq [:: [:: (1, 260); (3, 260); (53, 520)];
    [:: (-7, 130); (23, 260); (103, 520)];
    [:: (9, 130); (-11, 260); (-21, 520)]].
Definition LB := tabq [:: [:: (1, 4); (1, 4)]; [:: (1, 4); (3, 4)]; [:: (1, 4); (1, 4); (0, 1); (-1, 4)]].
Definition TB := tab [:: [:: -1; 1; 0]; [:: -1; 0; 1]; [:: 0; 0; 0]; [:: 3; -1; -1]].
Definition rowsB := iota 0 9.
Definition codesB := [:: (true, 0, 0); (true, 0, 1); (true, 0, 2); (true, 1, 1); (true, 1, 2);
  (true, 2, 2); (false, 0, 0); (false, 1, 0); (false, 2, 0)]%N.
Definition invB := tabq [::
    [:: (-7, 72); (-47, 24); (11, 144); (5, 32); (-1, 8); (0, 1); (0, 1); (5, 96); (5, 8)];
    [:: (-1, 9); (-5, 3); (5, 72); (5, 64); (-1, 16); (1, 32); (-1, 64); (5, 192); (7, 16)];
    [:: (5, 144); (13, 48); (-1, 72); (0, 1); (0, 1); (0, 1); (1, 64); (-1, 192); (-1, 16)];
    [:: (-1, 8); (-9, 8); (1, 16); (0, 1); (0, 1); (1, 16); (-1, 32); (0, 1); (1, 4)];
    [:: (-1, 48); (-11, 16); (1, 48); (3, 64); (-1, 16); (0, 1); (0, 1); (1, 32); (1, 4)];
    [:: (1, 6); (5, 2); (-5, 48); (-3, 32); (1, 8); (0, 1); (1, 32); (-1, 16); (-3, 4)];
    [:: (13, 36); (53, 12); (-7, 36); (-5, 16); (1, 4); (0, 1); (0, 1); (-5, 48); (-5, 4)];
    [:: (1, 2); (9, 2); (-1, 4); (0, 1); (0, 1); (-1, 8); (1, 16); (0, 1); (-1, 2)];
    [:: (2, 3); (10, 1); (-5, 12); (-3, 8); (1, 2); (0, 1); (1, 16); (-1, 4); (-3, 1)]].

Lemma checksB : layer_checks 3 8 1 2 WB bB UB cB HB YB DB LB TB invB rowsB codesB.
Proof. by vm_compute. Qed.

Lemma hB_sample m : hB m = sample 3 HB m.
Proof.
rewrite /hB [NB.1.1]/= [NB.1.2]/= z_sample act_sample.
by apply: eq_sample; vm_compute.
Qed.

Lemma gB_sample m :
  lossvecs (mse_lv 1) NB xB yB m = sample 2 (msef (logitf 3 9 WB bB UB cB HB) YB) m.
Proof.
rewrite /lossvecs -[fwd NB _]/(fwd (one_hidden 3 9 2 WB bB UB cB) (hB m)) hB_sample.
by rewrite fwd_sample mse_sample.
Qed.

Lemma factsB : [/\ Delta1 topB hB (lossvecs (mse_lv 1) NB xB yB) = mxf 9 3 DB,
  \rank (gradmx (gsum topB hB (lossvecs (mse_lv 1) NB xB yB))) = 3%N &
  (9 <= \rank (lifted (Delta1 topB hB (lossvecs (mse_lv 1) NB xB yB)) ((mxf 2 9 UB)^T *m 1%:M)))%N].
Proof. exact: layer_facts checksB hB_sample gB_sample. Qed.

Lemma deltaB m : delta1 topB (hB m) (lossvecs (mse_lv 1) NB xB yB m) = sample 9 DB m.
Proof.
have [DE _ _] := factsB; have := congr1 (col m) DE; rewrite colsE => ->.
by apply/colP => j; rewrite !mxE.
Qed.

Lemma Delta1_B : Delta1 NB xB (lossvecs (mse_lv 1) NB xB yB) = mxf 3 3 D1B.
Proof.
pose D1f : table := fun p m =>
  if 0 < preact 2 W1B b1B XB p m then mulf 9 (fun i j => WB j i) DB p m else 0.
transitivity (mxf 3 3 D1f); last by apply: eq_mxf; vm_compute.
apply/matrixP => i m; rewrite mxE.
transitivity ((dmask _ (active (sample 3 (preact 2 W1B b1B XB) m)) *m
  ((mxf 9 3 WB)^T *m sample 9 DB m)) i 0).
  by rewrite -deltaB -z_sample.
rewrite active_sample dmaskE tr_mxf mul_mxf !mxE /D1f.
by case: ifP => _; rewrite ?rmorph0.
Qed.

Lemma rank_Delta1_B : \rank (Delta1 NB xB (lossvecs (mse_lv 1) NB xB yB)) = 3%N.
Proof.
apply: etrans (congr1 (@mxrank _ _ _) Delta1_B) _.
rewrite -[mxf _ _ _]mulmx1; apply: (@rank_product _ _ _ _ _ _ (mxf _ _ L1B) 1%:M); last exact: mulmx1.
by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
Qed.

Theorem B_unique x' y' : bgrad (mse_lv 1) NB x' y' = bgrad (mse_lv 1) NB xB yB ->
  same_batch xB x' yB y'.
Proof.
have [_ rA rR] := factsB.
apply: (@C1_batch _ _ _ 2 [::] 3 9 [::] NB (fun _ => True) 3 2 (fun _ => True) 1%:M) => //.
- exact: confined_plain.
- by apply: leq_trans rR; rewrite card_mono.
- exact: rank_Delta1_B.
- by move=> m l _ /mse_lv_inj.
Qed.

Theorem B_no_exclusive_neuron :
  (forall j m, ~ exclusive NB xB j m) /\ (forall j m, ~ exclusive topB hB j m).
Proof.
split=> j m.
  have act m' : is_active NB xB j m' = (0 < preact 2 W1B b1B XB j m').
    by rewrite /is_active -[NB.1.1]/(mxf 3 2 W1B) -[NB.1.2]/(mxf 3 1 b1B) z_sample mxE ltr0q.
  suff [m' [mm' am']] : exists m' : 'I_3, m' != m /\ 0 < preact 2 W1B b1B XB j m'.
    by move=> /(_ m'); rewrite act am' (negPf mm').
  have all_on : eqf 3 3 (fun j m => if 0 < preact 2 W1B b1B XB j m then 1 else 0) (fun _ _ => 1).
    by vm_compute.
  have on (m' : 'I_3) : 0 < preact 2 W1B b1B XB j m'.
    by have := eqf_at j m' all_on; case: (0 < _).
  have [->|m0] := eqVneq m ord0; first by exists ord_max; split.
  by exists ord0; rewrite eq_sym.
move/(@exclusiveP 3 8 1 2 WB bB UB cB HB hB j m hB_sample).
have : eqf 9 3 (fun j m => if exclusivef 3 2 WB bB HB j m then 1 else 0) (fun _ _ => 0) by vm_compute.
by move/(eqf_at j m); case: (exclusivef _ _ _ _ _ _ _).
Qed.

(* E: samples 0 and 1 share the pattern, sample 2 is alone in its group. *)
Definition WE := tab [:: [:: 0; -2]; [:: 1; -3]; [:: 0; -2]; [:: 0; 2]; [:: 0; 2]; [:: 0; 0]; [:: 0; 0]].
Definition bE := tab [:: [:: 1]; [:: 1]; [:: 1]; [:: -1]; [:: -1]; [:: 1]; [:: 1]].
Definition UE := tab [:: [:: -1; -1; 0; -1; -1; 2; 2]; [:: -2; 2; -1; 1; -2; 0; 1]].
Definition cE := tab [:: [:: 0]; [:: 0]].
Definition XE := tab [:: [:: 0; 1; 0]; [:: 0; 0; 1]].
Definition YE := tab [:: [:: 1; 0; 1]; [:: 0; 1; 0]].
Definition NE := one_hidden 2 7 2 WE bE UE cE.
Definition xE : 'I_3 -> 'cV[R]_2 := batch_of 2 XE.
Definition yE : 'I_3 -> 'cV[R]_2 := batch_of 2 YE.
Definition grE (m : 'I_3) : bool := (m < 2)%N.

Definition DE := tab [:: [:: -2; -6; 0]; [:: -2; 2; 0]; [:: 0; -2; 0]; [:: 0; 0; -2]; [:: 0; 0; -2];
  [:: 4; 4; 4]; [:: 4; 6; 4]].
Definition LE := tabq [:: [:: (-1, 8); (-3, 8)]; [:: (-1, 8); (1, 8)];
  [:: (0, 1); (0, 1); (0, 1); (-1, 2)]].
Definition TE := tab [:: [:: -1; 1; 0]; [:: -1; 0; 1]; [:: 1; 0; 0]].
Definition rowsE := iota 0 7.
Definition codesE := [:: (true, 0, 0); (true, 0, 1); (true, 0, 2); (true, 1, 1); (true, 1, 2);
  (true, 2, 2); (false, 2, 1)]%N.
Definition invE := tabq [:: [:: (1, 16); (3, 16); (-3, 4); (0, 1); (0, 1); (0, 1); (0, 1)];
    [:: (1, 32); (-1, 32); (-1, 4); (0, 1); (0, 1); (0, 1); (0, 1)];
    [:: (-1, 32); (-3, 32); (9, 16); (-1, 8); (0, 1); (3, 32); (-1, 16)];
    [:: (0, 1); (0, 1); (1, 4); (0, 1); (0, 1); (0, 1); (0, 1)];
    [:: (-1, 32); (1, 32); (-1, 16); (1, 24); (-1, 24); (-1, 16); (1, 16)];
    [:: (0, 1); (0, 1); (0, 1); (1, 6); (1, 12); (0, 1); (0, 1)];
    [:: (0, 1); (0, 1); (0, 1); (1, 6); (-1, 6); (0, 1); (0, 1)]].

Lemma checksE : layer_checks 2 6 1 2 WE bE UE cE XE YE DE LE TE invE rowsE codesE.
Proof. by vm_compute. Qed.

Lemma card_pairsE : #|pairs grE| = 5%N.
Proof.
have E b : #|[set m | grE m == b]| = if b then 2%N else 1%N.
  by case: b; rewrite -sum1dep_card big_mkcond !big_ord_recl big_ord0.
by rewrite card_pairs big_bool !E.
Qed.

Lemma shareE : groups_share NE grE xE.
Proof.
move=> a b ab; rewrite !z_sample !active_sample; apply/colP => j; rewrite !mxE.
have same : eqf 7 2 (fun j m => if 0 < preact 2 WE bE XE j m then 1 else 0)
    (fun j _ => if 0 < preact 2 WE bE XE j 0%N then 1 else 0) by vm_compute.
have on01 (m : 'I_3) : grE m -> (0 < preact 2 WE bE XE j m) = (0 < preact 2 WE bE XE j 0%N).
  by move=> lt_m; have := eqf_at j (Ordinal lt_m) same => /=; do 2!case: (0 < _).
have [ga|ga] := boolP (grE a); first by rewrite !on01 // -ab.
have gb : ~~ grE b by rewrite -ab.
suff -> : a = b by [].
apply: val_inj; have two (m : 'I_3) : ~~ grE m -> val m = 2%N.
  by rewrite /grE -leqNgt => le_m; apply/eqP; rewrite eqn_leq le_m -ltnS ltn_ord.
by rewrite !two.
Qed.

Lemma aloneE : alone grE ord_max.
Proof. by move=> a e; apply: val_inj; move: e; case: a => [[|[|[|a]]] lt_a]. Qed.

Theorem E_structure (x' : 'I_3 -> 'cV[R]_2) g' :
  gsum NE x' g' = bgrad (mse_lv 1) NE xE yE ->
  exists (s : 'S_3) (P : 'M[R]_3), P \in unitmx /\
    same_structure NE grE xE x' (lossvecs (mse_lv 1) NE xE yE) g' s P.
Proof.
have gE m : lossvecs (mse_lv 1) NE xE yE m = sample 2 (msef (logitf 2 7 WE bE UE cE XE) YE) m.
  exact: lossvecs_mse.
have xEE m : xE m = sample 2 XE m by [].
have [_ rA rR] := layer_facts checksE xEE gE.
apply: (@C2 _ _ _ _ _ NE _ _ grE 2 (fun _ => True) 1%:M) => //.
- exact: shareE.
- exact: confined_plain.
- by apply: leq_trans rR; rewrite card_pairsE card_mono.
Qed.

(* The sample that is alone is in every batch with this gradient. *)
Corollary E_singleton (x' : 'I_3 -> 'cV[R]_2) g' :
  gsum NE x' g' = bgrad (mse_lv 1) NE xE yE -> exists m, x' m = xE ord_max.
Proof.
case/E_structure => s [P [_ st]]; exists ((s^-1)%g ord_max).
have al : alone grE (s ((s^-1)%g ord_max)) by rewrite permKV; apply: aloneE.
by have [ex _ _] := singletons_kept st al; rewrite ex permKV.
Qed.

End Instances.

Arguments batch_of R n X {M} m.
