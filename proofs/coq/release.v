(******************************************************************************)
(* What leaves the device is a part of the gradient only.                     *)
(*                                                                            *)
(*   release C G       C dW_1 and everything else of the gradient G           *)
(*   narrow_release    inputs may move in the kernel of W_1 as long as C dW_1 *)
(*                     stays: nothing sent changes, nor any pre-activation    *)
(*   motion            A = U Z V: the motions that are found in this way, a   *)
(*                     linear family of dimension (M - r)(d - rank W_1)       *)
(*   stored, sent      the first layer W_1 = V B^T is held as V, and dV is    *)
(*                     sent for it                                            *)
(*   projected_gradient    dV is the gradient of the network on the B^T x     *)
(*   projected_transcript  whatever the server asks for next, all that it     *)
(*                     ever receives is a function of the B^T x and labels    *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg network narrow.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section NarrowRelease.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variable N : params R d (n :: ws) K.
Variable lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K.

(* C selects rows of dW_1, or combines them; C = 1 is the whole gradient.     *)
Definition release q (C : 'M[R]_(q, n)) (G : params R d (n :: ws) K) :
    'M[R]_(q, d) * 'cV[R]_n * params R n ws K :=
  (C *m G.1.1, G.1.2, G.2).

Lemma unseen_add (x a : 'cV[R]_d) : N.1.1 *m a = 0 ->
  N.1.1 *m (x + a) + N.1.2 = N.1.1 *m x + N.1.2.
Proof. by move=> a0; rewrite mulmxDr a0 addr0. Qed.

(* Row m of A is the motion of sample m: A W_1^T = 0 and C Delta_1 A = 0.     *)
Theorem narrow_release q (C : 'M[R]_(q, n)) M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K)
    (A : 'M[R]_(M, d)) :
  A *m N.1.1^T = 0 -> C *m Delta1 N x (lossvecs lv N x y) *m A = 0 ->
  let x' m := x m + (row m A)^T in
  (forall m, N.1.1 *m x' m + N.1.2 = N.1.1 *m x m + N.1.2) /\
  release C (bgrad lv N x' y) = release C (bgrad lv N x y).
Proof.
move=> AW CDA x'.
have pre m : N.1.1 *m x' m + N.1.2 = N.1.1 *m x m + N.1.2.
  apply: unseen_add; apply: trmx_inj; rewrite trmx_mul trmxK trmx0.
  by rewrite -row_mul AW row0.
split=> //; have gE : lossvecs lv N x' y =1 lossvecs lv N x y.
  by move=> m; rewrite /lossvecs /= pre.
have DE : Delta1 N x' (lossvecs lv N x' y) = Delta1 N x (lossvecs lv N x y).
  by apply: eq_cols => m; rewrite gE /= pre.
have xE : (cols x')^T = (cols x)^T + A by apply/matrixP => m i; rewrite !mxE.
have W u h : (gsum N u h).1.1 = Delta1 N u h *m (cols u)^T := w1_gsum N u h.
have b u h : (gsum N u h).1.2 = Delta1 N u h *m const_mx 1 := b1_gsum N u h.
rewrite /release /bgrad !W !b !gsum_tail DE xE mulmxDr mulmxDr !mulmxA CDA addr0.
by congr (_, _, _); apply: eq_bigr => m _; rewrite gE pre.
Qed.

(* Such motions: U spans the left kernel of (C Delta_1)^T, V that of W_1^T.   *)
Definition motion M q (E : 'M[R]_(q, M)) (Z : 'M[R]_(\rank (kermx E^T), \rank (kermx N.1.1^T))) :
    'M[R]_(M, d) :=
  (row_base (kermx E^T))^T *m Z *m row_base (kermx N.1.1^T).

Lemma motion_linear M q (E : 'M[R]_(q, M)) : linear (@motion M q E).
Proof. by move=> c Z Z'; rewrite /motion mulmxDr -scalemxAr mulmxDl -scalemxAl. Qed.

Lemma row_base_ker p r (F : 'M[R]_(p, r)) : row_base (kermx F) *m F = 0.
Proof. by apply/sub_kermxP; rewrite eq_row_base. Qed.

Theorem motion_moves M q (E : 'M[R]_(q, M)) Z :
  @motion M q E Z *m N.1.1^T = 0 /\ E *m @motion M q E Z = 0.
Proof.
split; first by rewrite -[LHS]mulmxA (row_base_ker N.1.1^T) mulmx0.
have E0 : E *m (row_base (kermx E^T))^T = 0.
  by apply: trmx_inj; rewrite trmx_mul trmxK row_base_ker trmx0.
by rewrite /motion !mulmxA E0 !mul0mx.
Qed.

(* Free in (M - r)(d - rank W_1) entries of Z, r the rank of C Delta_1.       *)
Theorem motion_free M q (E : 'M[R]_(q, M)) :
  injective (@motion M q E) /\
  \rank (kermx E^T) = (M - \rank E)%N /\ \rank (kermx N.1.1^T) = (d - \rank N.1.1)%N.
Proof.
split; last by rewrite !mxrank_ker !mxrank_tr.
have [U HU] := right_inverse (eqP (row_base_free (kermx E^T))).
have [V HV] := right_inverse (eqP (row_base_free (kermx N.1.1^T))).
apply: (can_inj (g := fun A => U^T *m A *m V)) => Z.
rewrite /motion; move: (row_base _) HU (row_base _) HV => F HU G HV.
by rewrite !mulmxA -trmx_mul HU trmx1 mul1mx -mulmxA HV mulmx1.
Qed.

End NarrowRelease.

Section Projected.

Variables (R : realFieldType) (d r n : nat) (ws : seq nat) (K : nat) (B : 'M[R]_(d, r)).
Variable lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K.

(* B is public and does not depend on the data. The first layer enters the    *)
(* network as V B^T; by the chain rule its gradient by V is dW_1 B.           *)
Definition stored (V : params R r (n :: ws) K) : params R d (n :: ws) K :=
  ((V.1.1 *m B^T, V.1.2), V.2).

Definition sent (G : params R d (n :: ws) K) : params R r (n :: ws) K :=
  ((G.1.1 *m B, G.1.2), G.2).

Lemma sentD G G' : sent (G + G') = sent G + sent G'.
Proof. by rewrite /sent /= mulmxDl. Qed.

Lemma sent0 : sent 0 = 0.
Proof. by rewrite /sent /= mul0mx. Qed.

Lemma sent_grad V x g : sent (grad (stored V) x g) = grad V (B^T *m x) g.
Proof.
rewrite /sent /= -[V.1.1 *m B^T *m x]mulmxA; congr (_, _, _).
rewrite trmx_mul trmxK; exact: esym (mulmxA _ _ _).
Qed.

Lemma stored_fwd V x : fwd (stored V) x = fwd V (B^T *m x).
Proof. by rewrite /= -[V.1.1 *m B^T *m x]mulmxA. Qed.

Theorem projected_gradient V M (x : 'I_M -> 'cV[R]_d) y :
  sent (bgrad lv (stored V) x y) = bgrad lv V (fun m => B^T *m x m) y.
Proof.
rewrite /bgrad /gsum (big_morph sent sentD sent0); apply: eq_bigr => m _.
by rewrite sent_grad /lossvecs stored_fwd.
Qed.

(* The server sends the next parameters after what it has received, newest    *)
(* first; round k is answered with batch x k, y k.                            *)
Fixpoint transcript (server : seq (params R r (n :: ws) K) -> params R r (n :: ws) K) M
    (x : nat -> 'I_M -> 'cV[R]_d) (y : nat -> 'I_M -> 'cV[R]_K) k : seq (params R r (n :: ws) K) :=
  if k is k'.+1 then
    let received := transcript server x y k' in
    sent (bgrad lv (stored (server received)) (x k') (y k')) :: received
  else [::].

Theorem projected_transcript server M (x x' : nat -> 'I_M -> 'cV[R]_d) y :
  (forall k m, B^T *m x' k m = B^T *m x k m) -> transcript server x' y =1 transcript server x y.
Proof.
move=> same; elim=> //= k IH; rewrite IH !projected_gradient; congr (_ :: _).
by apply: eq_bigr => m _; rewrite /lossvecs same.
Qed.

End Projected.
