(******************************************************************************)
(* Scales and peeling on concrete networks with rational numbers.             *)
(*                                                                            *)
(*   R   1-3-1, a staircase: neuron j is active for the samples j, j+1, ...,  *)
(*       so that the last one alone has an exclusive neuron: E4               *)
(*   S   1-2-2, two samples that share both neurons: a stopping set; E3 fixes *)
(*       the scales all the same                                              *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg network exclusive peeling compute.

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

(* Deltas that are not zero, by computation. *)
Lemma nzdelta_table d n K M (W b U c X G : table) (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K)
    (t : nat -> nat -> bool) :
  (forall m, x m = sample d X m) -> (forall m, g m = sample K G m) ->
  all (fun j => all (fun m => (deltaf d K W b U X G j m != 0) == t j m) (iota 0 M)) (iota 0 n) ->
  forall (j : 'I_n) (m : 'I_M), nzdelta (one_hidden d n K W b U c) x g j m = t j m.
Proof.
move=> xE gE /allP ok j m.
have /allP/(_ (val m)) := ok (val j) (eq_ind_r is_true (ltn_ord j) (mem_iota 0 n j)).
by rewrite /nzdelta xE gE delta1_sample mxE fmorph_eq0 mem_iota ltn_ord => /(_ isT)/eqP.
Qed.

(* R: thresholds 0, 2 and 4, samples 1, 3 and 5. *)
Definition WR := tab [:: [:: 1]; [:: 1]; [:: 1]].
Definition bR := tab [:: [:: 0]; [:: -2]; [:: -4]].
Definition UR := tab [:: [:: 1; 1; 1]].
Definition cR := tab [:: [:: 0]].
Definition XR := tab [:: [:: 1; 3; 5]].
Definition YR := tab [:: [:: 0; 0; 0]].
Definition GR := msef (logitf 1 3 WR bR UR cR XR) YR.
Definition NR := one_hidden 1 3 1 WR bR UR cR.
Definition xR (m : 'I_3) : 'cV[R]_1 := sample 1 XR m.
Definition yR (m : 'I_3) : 'cV[R]_1 := sample 1 YR m.
Definition gR := lossvecs (mse_lv 1) NR xR yR.

Lemma nzR (j m : 'I_3) : nzdelta NR xR gR j m = (j <= m)%N.
Proof.
apply: (@nzdelta_table _ _ _ _ WR bR UR cR XR GR _ _ (fun j m => j <= m)%N) => [//|k|]; last by vm_compute.
by rewrite /gR /lossvecs fwd_sample mse_sample.
Qed.

Definition sR (k : nat) : 'I_3 := inord k.

Lemma orderR (m : 'I_3) : m = sR (val m).
Proof. by rewrite /sR inord_val. Qed.

Lemma tellsR (S : {set 'I_3}) (m : 'I_3) : m \in S -> (forall m', m' \in S -> (m' <= m)%N) ->
  [exists j, tells (nzdelta NR xR gR) S j m].
Proof.
move=> mS last; apply/existsP; exists m; apply/and3P; split; rewrite ?nzR //.
apply/forallP => m'; apply/implyP => /last m'm; rewrite nzR; apply/implyP => mm'.
by rewrite -val_eqE eqn_leq m'm.
Qed.

(* From the last step of the stairs to the first one. *)
Theorem R_peels : peels (nzdelta NR xR gR) setT [:: sR 2; sR 1; sR 0].
Proof.
have val_s k : (k < 3)%N -> val (sR k) = k by move=> k3; rewrite /= inordK.
have above k (S : {set 'I_3}) : (k < 3)%N -> sR k \in S -> (forall m : 'I_3, m \in S -> (m <= k)%N) ->
    [exists j, tells (nzdelta NR xR gR) S j (sR k)].
  by move=> k3 kS last; apply: tellsR => // m /last; rewrite -{1}(val_s k k3).
rewrite /= !above //; first by apply/eqP/setP => m; rewrite !inE -!val_eqE !val_s //;
  case: m => [[|[|[|m]]] lt_m].
- by rewrite !inE -!val_eqE !val_s.
- by move=> m; rewrite !inE -!val_eqE !val_s //; case: m => [[|[|[|m]]] lt_m].
- by rewrite !inE -!val_eqE !val_s.
- by move=> m; rewrite !inE -!val_eqE !val_s //; case: m => [[|[|[|m]]] lt_m].
- by move=> m _; rewrite -ltnS ltn_ord.
Qed.

Theorem R_no_stopping S : ~~ stopping (nzdelta NR xR gR) S.
Proof. by apply: (iffLR (E4_stopping _)); exists [:: sR 2; sR 1; sR 0]; apply: R_peels. Qed.

Theorem R_any_order T : exists s, peels (nzdelta NR xR gR) T s.
Proof. by apply: E4_any_order; apply: R_no_stopping. Qed.

Theorem R_reads : exists2 s, reads NR xR gR (bgrad (mse_lv 1) NR xR yR) s &
  peels (nzdelta NR xR gR) setT s.
Proof. by apply: E4_reads; apply: R_no_stopping. Qed.

(* S: neither neuron tells the two samples apart, so nothing can be peeled.   *)
Definition WS := tab [:: [:: 1]; [:: 1]].
Definition bS := tab [:: [:: 0]; [:: 1]].
Definition US := tab [:: [:: 1; 0]; [:: 0; 1]].
Definition cS := tab [:: [:: 0]; [:: 0]].
Definition XS := tab [:: [:: 1; 2]].
Definition YS := tab [:: [:: 0; 1]; [:: 1; 0]].
Definition GS := msef (logitf 1 2 WS bS US cS XS) YS.
Definition NS : params R 1 ([::] ++ [:: 2])%N 2 := one_hidden 1 2 2 WS bS US cS.
Definition xS (m : 'I_2) : 'cV[R]_1 := sample 1 XS m.
Definition yS (m : 'I_2) : 'cV[R]_2 := sample 2 YS m.
Definition gS := lossvecs (mse_lv 1) NS xS yS.

Lemma gSE m : gS m = sample 2 GS m.
Proof. by rewrite /gS /lossvecs fwd_sample mse_sample. Qed.

Lemma nzS (j m : 'I_2) : nzdelta NS xS gS j m.
Proof. by rewrite (@nzdelta_table _ _ _ _ WS bS US cS XS GS _ _ (fun _ _ => true) _ gSE). Qed.

Lemma none_told : ~~ [exists j, exists m, tells (nzdelta NS xS gS) setT j m].
Proof.
apply/existsP => -[j /existsP[m /and3P[_ _ /forallP only]]].
have := only 0; have := only 1; rewrite !inE !nzS /= => /eqP <-; by [].
Qed.

(* Peeling stops at once, at the union of all stopping sets. *)
Theorem S_stops : setT = \bigcup_(S | stopping (nzdelta NS xS gS) S) S.
Proof. by apply: (@E4_stops _ _ _ [::]) none_told; rewrite /= eqxx. Qed.

Theorem S_not_peeled s : ~~ peels (nzdelta NS xS gS) setT s.
Proof.
apply/negP => ps; suff stop : stopping (nzdelta NS xS gS) setT.
  by have /(_ setT) := iffLR (E4_stopping _) (ex_intro _ s ps); rewrite stop.
by apply/andP; split; [apply/set0Pn; exists 0 | apply: none_told].
Qed.

(* The directions of the loss vectors; the last bias gradient has their scales. *)
Definition uS (m : 'I_2) : 'cV[R]_2 := sample 2 (tab [:: [:: 1; 2]; [:: 1; 6]]) m.
Definition scaleS (m : 'I_2) : R := ratr (tab [:: [:: 2; 1]] 0%N m).

Lemma scaled m : gS m = scaleS m *: uS m.
Proof.
rewrite gSE; apply/colP => k; rewrite !mxE -rmorphM; congr ratr.
by case: m k => [[|[|m]] lt_m] [[|[|k]] lt_k] //; apply/eqP; vm_compute.
Qed.

Theorem S_scales s : (bgrad (mse_lv 1) NS xS yS).2.2 = \sum_m s m *: uS m -> s =1 scaleS.
Proof.
rewrite /bgrad (@gsum_tail _ 1 2 [::] 2 NS) => E; apply: (E3 (N := NS.2) (u := uS)).
  rewrite cols_sample; suff /mulmx1_unit[/mxrank_unit] :
    mxf 2 2 (tab [:: [:: 1; 2]; [:: 1; 6]]) *m
    mxf 2 2 (fun i j => (nth 0 (nth [::] [:: [:: 6; -2]; [:: -1; 1]] i) j)%:Q / 4%:R) = 1%:M by [].
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
rewrite -E /=; congr _.2; apply: eq_bigr => m _.
by rewrite -scaled.
Qed.

End Instances.
