(* A first hidden layer narrower than the batch and the input: a whole line   *)
(* of batches has one gradient, for every loss (docs/theory.md section 4).    *)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg network shared orbits.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Narrow.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variable N : params R d (n :: ws) K.
Variable lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K.

(* Nothing in the network sees a motion along the kernel of W_1. *)
Lemma unseen_pre (x v : 'cV[R]_d) s : N.1.1 *m v = 0 ->
  N.1.1 *m (x + s *: v) + N.1.2 = N.1.1 *m x + N.1.2.
Proof. by move=> v0; rewrite mulmxDr -scalemxAr v0 scaler0 addr0. Qed.

Lemma unseen_fwd (x v : 'cV[R]_d) s : N.1.1 *m v = 0 -> fwd N (x + s *: v) = fwd N x.
Proof. by move=> v0; rewrite /= unseen_pre. Qed.

Lemma unseen_delta (x v : 'cV[R]_d) s g : N.1.1 *m v = 0 ->
  delta1 N (x + s *: v) g = delta1 N x g.
Proof. by move=> v0; rewrite /= unseen_pre. Qed.

Lemma unseen_tail (x v : 'cV[R]_d) s g : N.1.1 *m v = 0 ->
  (grad N (x + s *: v) g).2 = (grad N x g).2.
Proof. by move=> v0; rewrite /= unseen_pre. Qed.

(* The line x_m + t alpha_m v, with W_1 v = 0 and Delta_1 alpha = 0. *)
Theorem narrow_line M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) (alpha : 'I_M -> R) v t :
  N.1.1 *m v = 0 ->
  \sum_m alpha m *: delta1 N (x m) (lossvecs lv N x y m) = 0 ->
  bgrad lv N (sheared x alpha v t) y = bgrad lv N x y.
Proof.
move=> v0 alpha0; rewrite /bgrad /gsum.
have gE m : lossvecs lv N (sheared x alpha v t) y m = lossvecs lv N x y m.
  by rewrite /lossvecs unseen_fwd.
pose E m := (((t * alpha m) *: (delta1 N (x m) (lossvecs lv N x y m) *m v^T), 0), 0) : params R d (n :: ws) K.
have step m : grad N (sheared x alpha v t m) (lossvecs lv N (sheared x alpha v t) y m) =
    grad N (x m) (lossvecs lv N x y m) + E m.
  rewrite gE /sheared.
  have -> : forall z, grad N z (lossvecs lv N x y m) =
      ((delta1 N z (lossvecs lv N x y m) *m z^T, delta1 N z (lossvecs lv N x y m)),
       (grad N z (lossvecs lv N x y m)).2) by [].
  rewrite unseen_delta // unseen_tail // /E.
  congr (_, _, _); rewrite ?addr0 //.
  by rewrite linearD /= linearZ /= mulmxDr -scalemxAr.
rewrite (eq_bigr _ (fun m _ => step m)) big_split /= -[RHS]addr0; congr (_ + _).
have -> : \sum_m E m = (((t *: ((\sum_m alpha m *: delta1 N (x m) (lossvecs lv N x y m)) *m v^T), 0), 0)
    : params R d (n :: ws) K).
  rewrite /E; elim/big_rec2: _ => [|m S T _ ->].
    by rewrite mul0mx scaler0.
  by rewrite mulmxDl -scalemxAl scalerDr scalerA; congr (_, _, _); rewrite addr0.
by rewrite alpha0 mul0mx scaler0.
Qed.

(* n_1 < min(d, M): such alpha and v exist; the batches of the line are all   *)
(* different in some sample.                                                  *)
Theorem narrow_ambiguous M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) :
  (n < d)%N -> (n < M)%N ->
  exists (X : R -> 'I_M -> 'cV[R]_d) (m : 'I_M),
    [/\ X 0 =1 x, forall t, bgrad lv N (X t) y = bgrad lv N x y &
        injective (fun t => X t m)].
Proof.
move=> nd nM.
have [v v0 Wv] := short_rank_kernel (leq_ltn_trans (rank_leq_row N.1.1) nd).
pose g := lossvecs lv N x y.
have [alpha [m am] ag] := S2_alpha_many (fun m => delta1 N (x m) (g m)) nM.
exists (sheared x alpha v), m; split=> [k|t|s t /addrI/eqP].
- by rewrite /sheared mul0r scale0r addr0.
- exact: narrow_line.
rewrite -subr_eq0 -scalerBl scaler_eq0 (negPf v0) orbF -mulrBl mulf_eq0 (negPf am) orbF subr_eq0.
by move/eqP.
Qed.

End Narrow.
