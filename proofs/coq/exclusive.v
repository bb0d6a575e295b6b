(******************************************************************************)
(* Exclusively activated neurons: docs/theory.md, section 2.                  *)
(*                                                                            *)
(*   exclusive N x j m   neuron j of the first hidden layer is active for m   *)
(*                       and for no other sample                              *)
(*   E1, E1_layer        its row of the gradient gives the layer's input      *)
(*   E2                  its column of dW_L is a positive multiple of g_m     *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import network.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Exclusive.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variables (N : params R d (n :: ws) K) (M : nat).
Variables (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K).

Definition is_active (j : 'I_n) (m : 'I_M) : bool := 0 < (N.1.1 *m x m + N.1.2) j 0.

Definition exclusive (j : 'I_n) (m : 'I_M) : Prop := forall m', is_active j m' = (m' == m).

Lemma inactive_delta j m : ~~ is_active j m -> delta1 N (x m) (g m) j 0 = 0.
Proof. by move=> /negPf inact; rewrite /= dmaskE mxE; move: inact; rewrite /is_active => ->. Qed.

(* Only m's delta is needed to be non-zero: the E4 reading of "active". *)
Lemma single_row (j : 'I_n) (m : 'I_M) :
  (forall m', m' != m -> delta1 N (x m') (g m') j 0 = 0) ->
  (forall i, w1 (gsum N x g) j i = delta1 N (x m) (g m) j 0 * x m i 0) /\
  b1 (gsum N x g) j 0 = delta1 N (x m) (g m) j 0.
Proof.
move=> others; rewrite w1_gsum b1_gsum.
have DE m' : Delta1 N x g j m' = delta1 N (x m') (g m') j 0 by rewrite mxE.
have one r (A : 'M[R]_(M, r)) i :
    (Delta1 N x g *m A) j i = delta1 N (x m) (g m) j 0 * A m i.
  rewrite mxE (bigD1 m) //= big1 ?addr0 ?DE // => m' mm'.
  by rewrite DE others ?mul0r.
by split=> [i|]; rewrite one ![in X in _ * X]mxE ?mulr1.
Qed.

(* E1: the row of an exclusive neuron, divided by its bias entry, is the input. *)
Theorem E1 (j : 'I_n) (m : 'I_M) :
  exclusive j m -> delta1 N (x m) (g m) j 0 != 0 ->
  forall i, w1 (gsum N x g) j i / b1 (gsum N x g) j 0 = x m i 0.
Proof.
move=> ex dn0 i; have [|-> ->] := @single_row j m; last by rewrite mulrAC divff ?mul1r.
by move=> m' mm'; apply: inactive_delta; rewrite ex.
Qed.

End Exclusive.

(* E1 in any hidden layer: its input is the output of the hidden layer below. *)
Theorem E1_layer (R : realFieldType) d ws1 p n ws2 K (N : params R d (ws1 ++ p :: n :: ws2) K) M
    (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) (j : 'I_n) (m : 'I_M) :
  let T : params R p (n :: ws2) K := topp N in
  let G : params R p (n :: ws2) K := topp (gsum N x g) in
  exclusive T (fun m => hid N (x m)) j m -> delta1 T (hid N (x m)) (g m) j 0 != 0 ->
  forall i, w1 G j i / b1 G j 0 = hid N (x m) i 0.
Proof. by move=> T G ex dn0 i; rewrite /G gsum_topp; apply: E1. Qed.

(* E2: N has a single hidden layer, or is the top of a deeper network. *)
Theorem E2 (R : realFieldType) d n K (N : params R d [:: n] K) M
    (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) (j : 'I_n) (m : 'I_M) :
  exclusive N x j m ->
  exists2 c : R, 0 < c & col j (gsum N x g).2.1 = c *: g m.
Proof.
move=> ex; exists ((N.1.1 *m x m + N.1.2) j 0).
  by have := ex m; rewrite eqxx /is_active.
have -> : (gsum N x g).2.1 = @cols _ K M g *m (cols (fun m => relu (N.1.1 *m x m + N.1.2)))^T.
  exact: etrans (congr1 (@w1 _ n [::] K) (gsum_tail N x g)) (w1_gsum _ _ _).
apply/colP => i; rewrite !mxE (bigD1 m) //= big1.
  rewrite addr0 !mxE mulrC; congr (_ * _); have := ex m; rewrite eqxx /is_active !mxE.
  by move/ltW/max_idPl.
move=> m' mm'; have := ex m'; rewrite (negPf mm') /is_active !mxE => /negbT.
by rewrite -leNgt => /max_idPr ->; rewrite mulr0.
Qed.
