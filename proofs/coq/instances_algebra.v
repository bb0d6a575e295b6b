(******************************************************************************)
(* Instances of the algebra.                                                  *)
(*                                                                            *)
(*   F   x^2 = 1: C4                                                          *)
(*   G   ranks modulo 7: rank_mod                                             *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import systems modular.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

(* F: the equation x^2 = 1 has no solution but 1 and -1, in any extension of Q. *)
Lemma monom1_bound D (i : 'I_D.+1) : (\sum_(j < 1) (i : nat) <= D)%N.
Proof. by rewrite big_ord1 -ltnS. Qed.

Definition power D (i : 'I_D.+1) : monom 1 D := mk_monom (monom1_bound i).

Lemma power_bij D : bijective (@power D).
Proof.
exists (fun m : monom 1 D => val m ord0) => [i|m]; first by rewrite /= ffunE; apply: val_inj.
apply: val_inj; apply/ffunP => i; rewrite (ord1 i) /= ffunE.
exact: val_inj.
Qed.

Lemma ev_power (A : comRingType) D (x : 'I_1 -> A) i : ev x (@power D i) = x ord0 ^+ i.
Proof. by rewrite ev_mk big_ord1. Qed.

Definition degF (j : 'I_1) : nat := 2.
Definition eqnF (j : 'I_1) : pol [fieldType of rat] 1 (degF j) := fun m =>
  if val m ord0 == 2%N :> nat then 1 else if val m ord0 == 0%N :> nat then -1 else 0.
Definition knownF (i : 'I_2) (_ : 'I_1) : rat := if i == ord0 then 1 else -1.

Lemma eqnFE (A : comRingType) (f : {rmorphism rat -> A}) j x :
  poly_at f (@eqnF j) x = x ord0 ^+ 2 - 1.
Proof.
rewrite /poly_at (reindex (@power 2)) /=; last exact: onW_bij (power_bij 2).
rewrite !big_ord_recl big_ord0 !ev_power /eqnF /= !ffunE /= !rmorph0 rmorphN !rmorph1.
by rewrite expr0 mulN1r mul0r !mul1r !addr0 add0r addrC.
Qed.

Theorem F_all_solutions (E : fieldType) (f : {rmorphism rat -> E}) (x : E) :
  x ^+ 2 = 1 -> x = 1 \/ x = -1.
Proof.
move=> x2; have degle j : (degF j <= 2)%N by [].
have [|i j|c c0 i|j|i Ei] := @C4 _ 1 1 2 1 degF degle eqnF knownF E f _ _ _ (fun _ => x).
- have card3 : #|monom 1 2| = 3%N by rewrite -(bij_eq_card (power_bij 2)) card_ord.
  apply: (@leq_trans 3); first by rewrite card3.
  rewrite addn2 !ltnS lt0n mxrank_eq0.
  apply/eqP => mac0; pose t : multiples 1 1 degF := existT _ (ord0 : 'I_1) (mone 1 0).
  have t0 m : multiple degle eqnF t m = 0.
    have /matrixP/(_ (enum_rank t) (enum_rank m)) := mac0.
    by rewrite !mxE !enum_rankK.
  have := poly_at_multiple degle eqnF [rmorphism of @idfun rat] t (fun _ => 2%:R).
  rewrite /poly_at big1 => [|m _]; last by rewrite t0 mul0r.
  by rewrite -/(poly_at _ _ _) (eqnFE [rmorphism of @idfun rat]) ev_mone.
- rewrite (eqnFE [rmorphism of @idfun rat]) /knownF.
  by case: (i == ord0); rewrite ?expr1n ?sqrrN ?expr1n subrr.
- have := c0 (power (inord 1)); have := c0 (power (inord 0)).
  rewrite !big_ord_recl !big_ord0 !ev_power !inordK // !expr0 !expr1 /knownF /= !mulr1 !addr0.
  rewrite mulrN1 => /eqP; rewrite addr_eq0 => /eqP E0 /eqP.
  rewrite E0 -opprD oppr_eq0 -mulr2n mulrn_eq0 /= => /eqP c1; rewrite c1 oppr0 in E0.
  case: i => [[|[|i]] lt_i] //.
  + by rewrite -E0; congr (c _); apply: val_inj.
  by rewrite -c1; congr (c _); apply: val_inj.
- by rewrite eqnFE x2 subrr.
have := Ei ord0; rewrite /= /knownF; case: (i == ord0) => ->; [left | right].
  exact: rmorph1.
by rewrite rmorphN rmorph1.
Qed.

(* G: a rank over F_7 bounds the rank over Q. *)
Definition BG : 'M[int]_2 := \matrix_(i, j) nth 0 (nth [::] [:: [:: 1; 2]; [:: 3; 4]] i) j.

Theorem G_rank : (2 <= \rank (map_mx (intmul 1 : int -> rat) BG))%N.
Proof.
apply: (@rank_mod_ge _ [fieldType of 'F_7] _ [rmorphism of intmul 1] [rmorphism of intmul 1]).
  exact: intr_inj.
pose TG : 'M['F_7]_2 := \matrix_(i, j) nth 0 (nth [::] [:: [:: -2%:R; 1]; [:: 5%:R; 3%:R]] i) j.
have : map_mx (intmul 1) BG *m TG = 1%:M.
  apply/matrixP => i j; rewrite !mxE !big_ord_recl big_ord0 !mxE.
  by case: i j => [[|[|i]] lt_i] [[|[|j]] lt_j] //; apply/eqP; vm_compute.
by case/mulmx1_unit => uB _; rewrite (mxrank_unit uB).
Qed.

(* Modulo 7 a rank can fall, and does here from 2 to 1, but never rise.       *)
Definition BG7 : 'M[int]_2 := \matrix_(i, j) nth 0 (nth [::] [:: [:: 1; 2]; [:: 3; -1]] i) j.

Theorem G_rank_mod :
  (\rank (map_mx (intmul 1 : int -> 'F_7) BG7) <= \rank (map_mx (intmul 1 : int -> rat) BG7))%N.
Proof. by apply: (@rank_mod _ _ _ [rmorphism of intmul 1] [rmorphism of intmul 1]); apply: intr_inj. Qed.

Theorem G_rank_falls :
  (\rank (map_mx (intmul 1 : int -> 'F_7) BG7) < \rank (map_mx (intmul 1 : int -> rat) BG7))%N.
Proof.
pose T : 'M[rat]_2 := \matrix_(i, j) (nth 0 (nth [::] [:: [:: 1; 2]; [:: 3; -1]] i) j / 7%:R).
have /mulmx1_unit[/mxrank_unit -> _] : map_mx (intmul 1 : int -> rat) BG7 *m T = 1%:M.
  apply/matrixP => i j; rewrite !mxE !big_ord_recl big_ord0 !mxE.
  by case: i j => [[|[|i]] lt_i] [[|[|j]] lt_j] //; apply/eqP; vm_compute.
rewrite ltn_neqAle rank_leq_row andbT; apply/negP => /row_freeP[B AB].
pose v : 'rV['F_7]_2 := \row_j nth 0 [:: -3%:R; 1] j.
have : v *m map_mx (intmul 1) BG7 *m B = 0.
  rewrite (_ : v *m _ = 0) ?mul0mx //; apply/rowP => j; rewrite !mxE !big_ord_recl big_ord0 !mxE.
  by case: j => [[|[|j]] lt_j] //; apply/eqP; vm_compute.
by rewrite -mulmxA AB mulmx1 => /rowP/(_ ord_max); rewrite !mxE => /eqP; vm_compute.
Qed.
