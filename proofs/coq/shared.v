(******************************************************************************)
(* Samples that share a region (docs/theory.md, section 4): S0, S1, S2.       *)
(*                                                                            *)
(*   aug x          the column [x; 1]                                         *)
(*   moment x g     T(S) = sum_m g_m [x_m; 1]^T                               *)
(*   region N a     the linear map that takes T(S) to the gradient            *)
(*   stabiliser Y O O is orthogonal, keeps the all-ones row and the labels    *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import network.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section MasterLemma.

Variable R : comRingType.

(* The layer's input is B t and the constant 1 is o t, for t the column [x; 1]. *)
Fixpoint image d ws K e :
    params R d ws K -> pat ws -> 'M[R]_(d, e) -> 'rV[R]_e -> 'M[R]_(K, e) -> params R d ws K :=
  match ws return params R d ws K -> pat ws -> 'M[R]_(d, e) -> 'rV[R]_e -> 'M[R]_(K, e) ->
    params R d ws K
  with
  | [::] => fun _ _ B o T => (T *m B^T, T *m o^T)
  | n :: ws' => fun N a B o T =>
      let C := delta1p N a T in
      ((C *m B^T, C *m o^T), image N.2 a.2 (dmask R a.1 *m (N.1.1 *m B + N.1.2 *m o)) o T)
  end.

Lemma image_linear d ws K e (N : params R d ws K) a B o : linear (@image d ws K e N a B o).
Proof.
elim: ws d N a B => [|n ws IH] d N a B c T T' /=.
  by rewrite !mulmxDl -!scalemxAl.
by rewrite IH (delta1p_linear N.2) !linearP /= !mulmxDl -!scalemxAl.
Qed.

Lemma image_outer d ws K e (N : params R d ws K) a B o (t : 'cV[R]_e) (g : 'cV[R]_K) :
  o *m t = 1%:M -> gradp N a (B *m t) g = image N a B o (g *m t^T).
Proof.
move=> ot; elim: ws d N a B => [|n ws IH] d N a B /=.
  by rewrite -!mulmxA -!trmx_mul ot trmx1 mulmx1.
have E : dmask R a.1 *m (N.1.1 *m (B *m t) + N.1.2) =
    dmask R a.1 *m (N.1.1 *m B + N.1.2 *m o) *m t.
  by rewrite -mulmxA mulmxDl -!mulmxA ot mulmx1.
rewrite E IH; rewrite delta1p_mulr; congr (_, _, _); rewrite !mulmxA -!(mulmxA _ t^T) -!trmx_mul //.
by rewrite ot trmx1 mulmx1.
Qed.

Definition aug d (x : 'cV[R]_d) : 'cV[R]_(d + 1) := col_mx x 1%:M.

Definition region d ws K (N : params R d ws K) (a : pat ws) (T : 'M[R]_(K, d + 1)) :
  params R d ws K := image N a (row_mx 1%:M 0) (row_mx 0 1%:M) T.

Definition moment d K M (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) : 'M[R]_(K, d + 1) :=
  \sum_m g m *m (aug (x m))^T.

Lemma region_linear d ws K (N : params R d ws K) a : linear (region N a).
Proof. exact: image_linear. Qed.

Lemma region_sum d ws K (N : params R d ws K) a M (T : 'I_M -> 'M[R]_(K, d + 1)) :
  region N a (\sum_m T m) = \sum_m region N a (T m).
Proof. exact: (linear_sum (Linear (region_linear N a))). Qed.

Lemma region_outer d ws K (N : params R d ws K) a x g :
  gradp N a x g = region N a (g *m (aug x)^T).
Proof.
rewrite /region -(image_outer N a (row_mx 1%:M 0) (o := row_mx 0 1%:M)) /aug.
  by rewrite mul_row_col mul1mx mul0mx addr0.
by rewrite mul_row_col mulmx1 mul0mx add0r.
Qed.

End MasterLemma.

Section Shared.

Variable R : realFieldType.
Variables (d : nat) (ws : seq nat) (K : nat) (N : params R d ws K) (a : pat ws).

(* S0: the gradient of samples of one region is a fixed linear image of T(S). *)
Theorem S0 M (x : 'I_M -> 'cV[R]_d) g :
  (forall m, pattern N (x m) = a) -> gsum N x g = region N a (moment x g).
Proof.
move=> in_a; rewrite /moment region_sum.
by apply: eq_bigr => m _; rewrite grad_gradp in_a region_outer.
Qed.

Corollary S0_same_moment M M' (x : 'I_M -> 'cV[R]_d) g (x' : 'I_M' -> 'cV[R]_d) g' :
  (forall m, pattern N (x m) = a) -> (forall m, pattern N (x' m) = a) ->
  moment x g = moment x' g' -> gsum N x g = gsum N x' g'.
Proof. by move=> xa x'a T; rewrite !S0 // T. Qed.

(* The group may be part of a batch: z are the other samples. *)
Definition join (V : Type) s t (u : 'I_s -> V) (v : 'I_t -> V) (m : 'I_(s + t)) : V :=
  match split m with inl i => u i | inr j => v j end.

Lemma gsum_join s t (x : 'I_s -> 'cV[R]_d) g (z : 'I_t -> 'cV[R]_d) gz :
  gsum N (join x z) (join g gz) = gsum N x g + gsum N z gz.
Proof.
rewrite /gsum big_split_ord /=; congr (_ + _); apply: eq_bigr => i _; rewrite /join.
  by rewrite (unsplitK (inl i)).
by rewrite (unsplitK (inr i)).
Qed.

Corollary S0_in_batch s t (x x' : 'I_s -> 'cV[R]_d) g g' (z : 'I_t -> 'cV[R]_d) gz :
  (forall m, pattern N (x m) = a) -> (forall m, pattern N (x' m) = a) ->
  moment x g = moment x' g' ->
  gsum N (join x z) (join g gz) = gsum N (join x' z) (join g' gz).
Proof. by move=> xa x'a T; rewrite !gsum_join (S0_same_moment xa x'a T). Qed.

Lemma moment_cols M (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) :
  moment x g = cols g *m (cols (fun m => aug (x m)))^T.
Proof. by rewrite cols_outer. Qed.

(* S1: the squared error. *)
Definition stabiliser M (Y : 'M[R]_(K, M)) (O : 'M[R]_M) : Prop :=
  [/\ O *m O^T = 1%:M, const_mx 1 *m O = const_mx 1 :> 'rV[R]_M & Y *m O = Y].

Definition moved M (x : 'I_M -> 'cV[R]_d) (O : 'M[R]_M) (m : 'I_M) : 'cV[R]_d :=
  cols x *m col m O.

Lemma cols_moved M (x : 'I_M -> 'cV[R]_d) O : cols (moved x O) = cols x *m O.
Proof.
by apply/matrixP => i m; rewrite !mxE; apply: eq_bigr => j _; rewrite !mxE.
Qed.

Lemma cols_aug M (x : 'I_M -> 'cV[R]_d) :
  cols (fun m => aug (x m)) = col_mx (cols x) (const_mx 1).
Proof.
apply/matrixP => i m; rewrite !mxE; case: splitP => j _; rewrite !mxE //.
by rewrite (ord1 j).
Qed.

Lemma fwd_aug x : pattern N x = a -> fwd N x = row_mx (slope N a) (fwdp N a 0) *m aug x.
Proof. by move=> xa; rewrite fwd_fwdp xa fwdp_affine mul_row_col mulmx1. Qed.

Theorem S1 M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) (O : 'M[R]_M) (c : R) :
  stabiliser (cols y) O ->
  (forall m, pattern N (x m) = a) -> (forall m, pattern N (moved x O m) = a) ->
  bgrad (mse_lv c) N (moved x O) y = bgrad (mse_lv c) N x y.
Proof.
move=> [OO O1 OY] xa x'a; apply: S0_same_moment => //.
pose F := row_mx (slope N a) (fwdp N a 0).
have lossE u : (forall m, pattern N (u m) = a) ->
    cols (lossvecs (mse_lv c) N u y) = c *: (2%:R *: (F *m cols (fun m => aug (u m)) - cols y)).
  move=> ua; rewrite cols_mul; apply/matrixP => i m.
  by rewrite !mxE fwd_aug // !mxE.
have augE : cols (fun m => aug (moved x O m)) = cols (fun m => aug (x m)) *m O.
  by rewrite !cols_aug mul_col_mx cols_moved O1.
rewrite !moment_cols !lossE // augE -{1}OY mulmxA -mulmxBl trmx_mul.
by rewrite -!scalemxAl -!mulmxA (mulmxA O) OO mul1mx.
Qed.

(* S2: shears that keep the loss vectors. *)
Definition sheared M (x : 'I_M -> 'cV[R]_d) (alpha : 'I_M -> R) (v : 'cV[R]_d) (t : R) (m : 'I_M) :=
  x m + (t * alpha m) *: v.

Theorem S2 M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) lv (alpha : 'I_M -> R) v t :
  (forall f l s, lv (f + s *: (slope N a *m v)) l = lv f l) ->
  \sum_m alpha m *: lossvecs lv N x y m = 0 ->
  (forall m, pattern N (x m) = a) -> (forall m, pattern N (sheared x alpha v t m) = a) ->
  bgrad lv N (sheared x alpha v t) y = bgrad lv N x y.
Proof.
move=> inv bal xa x'a; apply: S0_same_moment => //.
have lossE m : lossvecs lv N (sheared x alpha v t) y m = lossvecs lv N x y m.
  rewrite /lossvecs !fwd_fwdp x'a xa fwdp_affine [in RHS]fwdp_affine.
  by rewrite mulmxDr -scalemxAr addrAC inv.
have augE m : aug (sheared x alpha v t m) = aug (x m) + (t * alpha m) *: col_mx v 0.
  by rewrite scale_col_mx add_col_mx scaler0 addr0.
rewrite /moment; under eq_bigr do rewrite lossE augE linearD linearZ /= mulmxDr -scalemxAr.
rewrite big_split /= -[RHS]addr0; congr (_ + _).
under eq_bigr do rewrite -scalerA scalemxAl.
by rewrite -scaler_sumr -mulmx_suml bal mul0mx scaler0.
Qed.

(* A direction that leaves all logits of the region alone serves every loss. *)
Corollary S2_same_logits M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) lv (alpha : 'I_M -> R) v t :
  slope N a *m v = 0 -> \sum_m alpha m *: lossvecs lv N x y m = 0 ->
  (forall m, pattern N (x m) = a) -> (forall m, pattern N (sheared x alpha v t m) = a) ->
  bgrad lv N (sheared x alpha v t) y = bgrad lv N x y.
Proof. by move=> v0; apply: S2 => f l s; rewrite v0 scaler0 addr0. Qed.

End Shared.
