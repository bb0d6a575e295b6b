(******************************************************************************)
(* Parts of a gradient on concrete networks with rational numbers.            *)
(*                                                                            *)
(*   J   3-2-1, three samples (instances_secure.v): of dW_1 the first row     *)
(*       alone is sent; a family of batches of dimension 2 has that release   *)
(*   T   a first layer V B^T with B = (1, 0, 2)^T: inputs move along          *)
(*       (2, 0, -1)^T in every round, whatever the server sends               *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg network exact compute instances instances_secure narrow release.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation NJ := (NJ R).
Local Notation xJ := (xJ R).
Local Notation yJ := (yJ R).

(* J: C selects the first row.                                                *)
Definition CJ : 'M[R]_(1, 2) := mxf 1 2 (tab [:: [:: 1; 0]]).
Local Notation EJ := (CJ *m Delta1 NJ xJ (lossvecs (mse_lv 1) NJ xJ yJ)).

Theorem J_release (Z : 'M[R]_(\rank (kermx EJ^T), \rank (kermx NJ.1.1^T))) :
  let A := @motion R 3 2 [::] 1 NJ 3 1 EJ Z in
  release CJ (bgrad (mse_lv 1) NJ (fun m => xJ m + (row m A)^T) yJ) = release CJ (bgrad (mse_lv 1) NJ xJ yJ).
Proof.
move=> A; have [AW EA] := @motion_moves R 3 2 [::] 1 NJ 3 1 EJ Z; rewrite -/A in AW EA.
exact: (proj2 (@narrow_release R 3 2 [::] 1 NJ (mse_lv 1) 1 CJ 3 xJ yJ A AW EA)).
Qed.

Theorem J_motions : linear (@motion R 3 2 [::] 1 NJ 3 1 EJ) /\ injective (@motion R 3 2 [::] 1 NJ 3 1 EJ) /\
  (2 <= \rank (kermx EJ^T))%N /\ (1 <= \rank (kermx NJ.1.1^T))%N.
Proof.
have [inj [rE rW]] := @motion_free R 3 2 [::] 1 NJ 3 1 EJ.
split; first exact (@motion_linear R 3 2 [::] 1 NJ 3 1 EJ).
split; first exact inj.
split; first by rewrite rE; apply: (@leq_trans (3 - 1)) => //; apply: leq_sub2l; apply: rank_leq_row.
by rewrite rW; apply: (@leq_trans (3 - 2)) => //; apply: leq_sub2l; apply: rank_leq_row.
Qed.

(* T: any parameters V, loss and number of rounds.                            *)
Definition BT : 'M[R]_(3, 1) := mxf 3 1 (tab [:: [:: 1]; [:: 0]; [:: 2]]).
Definition vT : 'cV[R]_3 := mxf 3 1 (tab [:: [:: 2]; [:: 0]; [:: -1]]).

Lemma unseen_T (x : 'cV[R]_3) s : BT^T *m (x + s *: vT) = BT^T *m x.
Proof.
have BV : BT^T *m vT = 0 by rewrite tr_mxf mul_mxf -zero_mxf; apply: eq_mxf; vm_compute.
by rewrite mulmxDr -scalemxAr BV scaler0 addr0.
Qed.

Variables (n K : nat) (ws : seq nat) (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K) (M : nat).

Theorem T_gradient (V : params R 1 (n :: ws) K) (x : 'I_M -> 'cV[R]_3) y (s : 'I_M -> R) :
  sent BT (bgrad lv (stored BT V) (fun m => x m + s m *: vT) y) = sent BT (bgrad lv (stored BT V) x y).
Proof.
rewrite !projected_gradient /bgrad; apply: eq_bigr => m _.
by rewrite /lossvecs unseen_T.
Qed.

Theorem T_transcript server (x : nat -> 'I_M -> 'cV[R]_3) y (s : nat -> 'I_M -> R) :
  @transcript R 3 1 n ws K BT lv server M (fun k m => x k m + s k m *: vT) y =1
  @transcript R 3 1 n ws K BT lv server M x y.
Proof. by apply: projected_transcript => k m; exact: unseen_T. Qed.

End Instances.
