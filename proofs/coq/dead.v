(* S3: a sample that is dead at a hidden layer may be replaced by any other    *)
(* that is dead there, whatever the patterns below do (docs/theory.md F6); and *)
(* a silent one contributes nothing.                                           *)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg network.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.Theory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Dead.

Variables (R : realFieldType) (K : nat).

(* The output of a layer is zero exactly when no neuron of it is active. *)
Lemma relu0_inactive n (z : 'cV[R]_n) : relu z = 0 <-> forall j, z j 0 <= 0.
Proof.
split=> [/colP z0 j | z0].
  by have := z0 j; rewrite !mxE => /max_idPr.
by apply/colP => j; rewrite !mxE; apply/max_idPr.
Qed.

Lemma inactive_mask n (z : 'cV[R]_n) : relu z = 0 -> dmask R (active z) = 0.
Proof.
move/relu0_inactive => z0; apply/matrixP => i j.
by rewrite !mxE ltNge z0 mul0rn.
Qed.

(* All deltas at and below the dead layer are zero. *)
Lemma dead_delta d ws1 p ws2 (N : params R d (ws1 ++ p :: ws2) K) x g :
  hid N x = 0 -> delta1 N x g = 0.
Proof.
elim: ws1 d N x => [|n ws1 IH] d N x /= xd; first by rewrite inactive_mask // mul0mx.
by rewrite IH // !mulmx0.
Qed.

Theorem S3_dead d ws1 p ws2 (N : params R d (ws1 ++ p :: ws2) K) x x' g :
  hid N x = 0 -> hid N x' = 0 -> fwd N x' = fwd N x /\ grad N x' g = grad N x g.
Proof.
move=> xd xd'; split; first by rewrite !fwd_topp xd xd'.
elim: ws1 d N x x' xd xd' => [|n ws1 IH] d N x x' xd xd'.
  have := dead_delta (ws1 := [::]) (N := N) g xd; have := dead_delta (ws1 := [::]) (N := N) g xd'.
  move: xd xd' => /= -> -> D' D; rewrite D D'; congr (_, _).
  by rewrite !mul0mx.
have D := dead_delta (ws1 := n :: ws1) (N := N) g xd.
have D' := dead_delta (ws1 := n :: ws1) (N := N) g xd'.
have E z : grad N z g = ((delta1 N z g *m z^T, delta1 N z g), grad N.2 (relu (N.1.1 *m z + N.1.2)) g) by [].
rewrite !{}E D D' !mul0mx; congr (_, _); exact: IH.
Qed.

(* A whole batch: dead samples are replaced, labels stay. *)
Theorem S3_batch d ws1 p ws2 (N : params R d (ws1 ++ p :: ws2) K) lv M
    (x x' : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) :
  (forall m, x' m = x m \/ hid N (x m) = 0 /\ hid N (x' m) = 0) ->
  bgrad lv N x' y = bgrad lv N x y.
Proof.
move=> moved; apply: eq_bigr => m _; rewrite /lossvecs.
case: (moved m) => [-> //|[xd xd']].
by have [-> ->] := S3_dead (lv (fwd N (x m)) (y m)) xd xd'.
Qed.

(* A sample with loss vector zero contributes nothing. *)
Lemma delta1_0 d ws (N : params R d ws K) x : delta1 N x 0 = 0.
Proof. by elim: ws d N x => [|n ws IH] d N x //=; rewrite IH !mulmx0. Qed.

Theorem S3_silent d ws (N : params R d ws K) x : grad N x 0 = 0.
Proof.
elim: ws d N x => [|n ws IH] d N x /=; first by rewrite mul0mx.
by rewrite IH delta1_0 !mulmx0 mul0mx.
Qed.

End Dead.
