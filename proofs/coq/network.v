(******************************************************************************)
(* Fully connected ReLU networks of any depth and widths, their forward pass, *)
(* activation patterns and gradients, as in docs/theory.md, section 1.        *)
(*                                                                            *)
(*   params R d ws K   parameters of a network with d inputs, hidden widths   *)
(*                     ws and K outputs. A gradient has the same type, which  *)
(*                     is a left module: gradients are added with +.          *)
(*   w1 N, b1 N        weight and bias of the first layer of N                *)
(*   fwd N x           the logits f at the input x (a column)                 *)
(*   pattern N x       which hidden neurons are active (z > 0)                *)
(*   delta1 N x g      delta_1, by delta_i = D_i W_{i+1}^T delta_{i+1} and    *)
(*                     delta_L = g, the loss vector                           *)
(*   grad N x g        contribution of one sample: delta_i h_{i-1}^T, delta_i *)
(*   gsum N x g        the sum over the samples x m with loss vectors g m     *)
(*   bgrad lv N x y    the batch gradient; lv f y is the loss vector          *)
(*   topp, hid         the layers above a hidden layer, and its output: what  *)
(*                     is proved of the first layer holds of every layer      *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Fixpoint params (R : ringType) (d : nat) (ws : seq nat) (K : nat) : lmodType R :=
  if ws is n :: ws'
  then [lmodType R of ('M[R]_(n, d) * 'cV[R]_n) * params R n ws' K]
  else [lmodType R of 'M[R]_(K, d) * 'cV[R]_K].

Arguments params R d%N ws%N K%N.

(* Activation patterns: one column of booleans per hidden layer. *)
Fixpoint pat (ws : seq nat) : eqType :=
  if ws is n :: ws' then [eqType of 'cV[bool]_n * pat ws'] else [eqType of unit].

Arguments pat ws%N.

Section Layers.

Variable R : ringType.
Implicit Types (d K : nat) (ws : seq nat).

Definition w1 d ws K : params R d ws K -> 'M[R]_(head K ws, d) :=
  match ws with
  | [::] => fun N => N.1
  | _ :: _ => fun N => N.1.1
  end.

Definition b1 d ws K : params R d ws K -> 'cV[R]_(head K ws) :=
  match ws with
  | [::] => fun N => N.2
  | _ :: _ => fun N => N.1.2
  end.

(* D, the diagonal 0/1 matrix of the active neurons *)
Definition dmask n (a : 'cV[bool]_n) : 'M[R]_n := diag_mx (\row_i (a i 0)%:R).

Lemma dmaskE n p (a : 'cV[bool]_n) (A : 'M[R]_(n, p)) i j :
  (dmask a *m A) i j = if a i 0 then A i j else 0.
Proof.
rewrite /dmask mul_diag_mx !mxE.
by case: (a i 0); rewrite ?mul1r ?mul0r.
Qed.

Lemma tr_dmask n (a : 'cV[bool]_n) : (dmask a)^T = dmask a.
Proof. exact: tr_diag_mx. Qed.

Lemma w1D d ws K (N N' : params R d ws K) : w1 (N + N') = w1 N + w1 N'.
Proof. by case: ws N N'. Qed.

Lemma b1D d ws K (N N' : params R d ws K) : b1 (N + N') = b1 N + b1 N'.
Proof. by case: ws N N'. Qed.

Lemma w1_0 d ws K : w1 (0 : params R d ws K) = 0.
Proof. by case: ws. Qed.

Lemma b1_0 d ws K : b1 (0 : params R d ws K) = 0.
Proof. by case: ws. Qed.

Lemma w1_sum d ws K (I : finType) (P : pred I) (F : I -> params R d ws K) :
  w1 (\sum_(i | P i) F i) = \sum_(i | P i) w1 (F i).
Proof. by elim/big_rec2: _ => [|i ? ? _ <-]; rewrite ?w1_0 // w1D. Qed.

Lemma b1_sum d ws K (I : finType) (P : pred I) (F : I -> params R d ws K) :
  b1 (\sum_(i | P i) F i) = \sum_(i | P i) b1 (F i).
Proof. by elim/big_rec2: _ => [|i ? ? _ <-]; rewrite ?b1_0 // b1D. Qed.

Lemma snd_sum (V W : zmodType) (I : finType) (P : pred I) (F : I -> V * W) :
  (\sum_(i | P i) F i).2 = \sum_(i | P i) (F i).2.
Proof. by elim/big_rec2: _ => [|i ? ? _ <-]. Qed.

(* The inner product of two parameter vectors. *)
Definition mdot n p (A B : 'M[R]_(n, p)) : R := \tr (A^T *m B).

Lemma mdotE n p (A B : 'M[R]_(n, p)) : mdot A B = \sum_j \sum_i A i j * B i j.
Proof.
by apply: eq_bigr => j _; rewrite mxE; apply: eq_bigr => i _; rewrite mxE.
Qed.

Fixpoint dotp d ws K : params R d ws K -> params R d ws K -> R :=
  match ws return params R d ws K -> params R d ws K -> R with
  | [::] => fun N P => mdot N.1 P.1 + mdot N.2 P.2
  | n :: ws' => fun N P => mdot N.1.1 P.1.1 + mdot N.1.2 P.1.2 + dotp N.2 P.2
  end.

(* The layers above the hidden layer of width p. *)
Fixpoint topp d ws1 p ws2 K : params R d (ws1 ++ p :: ws2) K -> params R p ws2 K :=
  match ws1 return params R d (ws1 ++ p :: ws2) K -> params R p ws2 K with
  | [::] => fun N => N.2
  | n :: ws1' => fun N => topp N.2
  end.

Lemma toppD d ws1 p ws2 K (N N' : params R d (ws1 ++ p :: ws2) K) :
  topp (N + N') = topp N + topp N'.
Proof. by elim: ws1 d N N' => [|n ws1 IH] d N N' //=; rewrite IH. Qed.

Lemma topp0 d ws1 p ws2 K : topp (0 : params R d (ws1 ++ p :: ws2) K) = 0.
Proof. by elim: ws1 d => [|n ws1 IH] d //=. Qed.

Lemma topp_sum d ws1 p ws2 K (I : finType) (P : pred I)
  (F : I -> params R d (ws1 ++ p :: ws2) K) :
  topp (\sum_(i | P i) F i) = \sum_(i | P i) topp (F i).
Proof. by elim/big_rec2: _ => [|i ? ? _ <-]; rewrite ?topp0 // toppD. Qed.

End Layers.

(* The network of one region: the activations are frozen to a pattern. *)
Section Masked.

Variable R : comRingType.
Implicit Types (d K : nat) (ws : seq nat).

Fixpoint fwdp d ws K : params R d ws K -> pat ws -> 'cV[R]_d -> 'cV[R]_K :=
  match ws return params R d ws K -> pat ws -> 'cV[R]_d -> 'cV[R]_K with
  | [::] => fun N _ x => N.1 *m x + N.2
  | n :: ws' => fun N a x => fwdp N.2 a.2 (dmask R a.1 *m (N.1.1 *m x + N.1.2))
  end.

(* for p loss vectors of the region at once *)
Fixpoint delta1p d ws K p : params R d ws K -> pat ws -> 'M[R]_(K, p) -> 'M[R]_(head K ws, p) :=
  match ws return params R d ws K -> pat ws -> 'M[R]_(K, p) -> 'M[R]_(head K ws, p) with
  | [::] => fun _ _ g => g
  | n :: ws' => fun N a g => dmask R a.1 *m ((w1 N.2)^T *m delta1p N.2 a.2 g)
  end.

Fixpoint gradp d ws K : params R d ws K -> pat ws -> 'cV[R]_d -> 'cV[R]_K -> params R d ws K :=
  match ws return params R d ws K -> pat ws -> 'cV[R]_d -> 'cV[R]_K -> params R d ws K with
  | [::] => fun _ _ x g => (g *m x^T, g)
  | n :: ws' => fun N a x g =>
      let delta := delta1p N a g in
      ((delta *m x^T, delta), gradp N.2 a.2 (dmask R a.1 *m (N.1.1 *m x + N.1.2)) g)
  end.

(* On one region the logits are an affine function of the input. *)
Fixpoint slope d ws K : params R d ws K -> pat ws -> 'M[R]_(K, d) :=
  match ws return params R d ws K -> pat ws -> 'M[R]_(K, d) with
  | [::] => fun N _ => N.1
  | n :: ws' => fun N a => slope N.2 a.2 *m (dmask R a.1 *m N.1.1)
  end.

Lemma fwdp_affine d ws K (N : params R d ws K) a x :
  fwdp N a x = slope N a *m x + fwdp N a 0.
Proof.
elim: ws d N a x => [|n ws IH] d N a x /=; first by rewrite mulmx0 add0r.
rewrite IH [X in _ = _ + X]IH mulmx0 add0r !mulmxDr !mulmxA !addrA.
by rewrite -!mulmxA.
Qed.

Lemma delta1p_mulr d ws K p q (N : params R d ws K) a (T : 'M[R]_(K, p)) (B : 'M[R]_(p, q)) :
  delta1p N a (T *m B) = delta1p N a T *m B.
Proof. by elim: ws d N a => [|n ws IH] d N a //=; rewrite IH !mulmxA. Qed.

Lemma delta1p_linear d ws K p (N : params R d ws K) a :
  linear (@delta1p d ws K p N a).
Proof.
elim: ws d N a => [|n ws IH] d N a c T T' //=.
by rewrite IH linearP /= linearP.
Qed.

Lemma slope_delta d ws K (N : params R d ws K) a (g : 'cV[R]_K) :
  (slope N a)^T *m g = (w1 N)^T *m delta1p N a g.
Proof.
elim: ws d N a => [|n ws IH] d N a //=.
by rewrite !trmx_mul -!mulmxA IH tr_dmask.
Qed.

End Masked.

Section Relu.

Variable R : realFieldType.
Implicit Types (d K n p : nat) (ws : seq nat).

Definition relu n (z : 'cV[R]_n) : 'cV[R]_n := \col_i Num.max (z i 0) 0.
Definition active n (z : 'cV[R]_n) : 'cV[bool]_n := \col_i (0 < z i 0).

Fixpoint fwd d ws K : params R d ws K -> 'cV[R]_d -> 'cV[R]_K :=
  match ws return params R d ws K -> 'cV[R]_d -> 'cV[R]_K with
  | [::] => fun N x => N.1 *m x + N.2
  | n :: ws' => fun N x => fwd N.2 (relu (N.1.1 *m x + N.1.2))
  end.

Fixpoint pattern d ws K : params R d ws K -> 'cV[R]_d -> pat ws :=
  match ws return params R d ws K -> 'cV[R]_d -> pat ws with
  | [::] => fun _ _ => tt
  | n :: ws' => fun N x =>
      let z := N.1.1 *m x + N.1.2 in (active z, pattern N.2 (relu z))
  end.

Fixpoint delta1 d ws K : params R d ws K -> 'cV[R]_d -> 'cV[R]_K -> 'cV[R]_(head K ws) :=
  match ws return params R d ws K -> 'cV[R]_d -> 'cV[R]_K -> 'cV[R]_(head K ws) with
  | [::] => fun _ _ g => g
  | n :: ws' => fun N x g =>
      let z := N.1.1 *m x + N.1.2 in
      dmask R (active z) *m ((w1 N.2)^T *m delta1 N.2 (relu z) g)
  end.

Fixpoint grad d ws K : params R d ws K -> 'cV[R]_d -> 'cV[R]_K -> params R d ws K :=
  match ws return params R d ws K -> 'cV[R]_d -> 'cV[R]_K -> params R d ws K with
  | [::] => fun _ x g => (g *m x^T, g)
  | n :: ws' => fun N x g =>
      let delta := delta1 N x g in
      ((delta *m x^T, delta), grad N.2 (relu (N.1.1 *m x + N.1.2)) g)
  end.

(* Output of the hidden layer of width p. *)
Fixpoint hid d ws1 p ws2 K : params R d (ws1 ++ p :: ws2) K -> 'cV[R]_d -> 'cV[R]_p :=
  match ws1 return params R d (ws1 ++ p :: ws2) K -> 'cV[R]_d -> 'cV[R]_p with
  | [::] => fun N x => relu (N.1.1 *m x + N.1.2)
  | n :: ws1' => fun N x => hid N.2 (relu (N.1.1 *m x + N.1.2))
  end.

Definition gsum d ws K (N : params R d ws K) M (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) :
  params R d ws K := \sum_m grad N (x m) (g m).

Definition lossvecs d ws K (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K) (N : params R d ws K)
  M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) (m : 'I_M) : 'cV[R]_K :=
  lv (fwd N (x m)) (y m).

Definition bgrad d ws K (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K) (N : params R d ws K)
  M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) : params R d ws K :=
  gsum N x (lossvecs lv N x y).

(* Loss vector of the squared error, up to the factor c of the reduction. *)
Definition mse_lv K (c : R) (f y : 'cV[R]_K) : 'cV[R]_K := c *: (2%:R *: (f - y)).

(* Columns gathered into a matrix: Delta_i and the transpose of H_i. *)
Definition cols n M (v : 'I_M -> 'cV[R]_n) : 'M[R]_(n, M) := \matrix_(i, m) v m i 0.

Lemma colsE n M (v : 'I_M -> 'cV[R]_n) m : col m (cols v) = v m.
Proof. by apply/colP => i; rewrite !mxE. Qed.

Lemma cols_inj n M (v v' : 'I_M -> 'cV[R]_n) : cols v = cols v' -> v =1 v'.
Proof. by move=> e m; rewrite -colsE e colsE. Qed.

Lemma eq_cols n M (v v' : 'I_M -> 'cV[R]_n) : v =1 v' -> cols v = cols v'.
Proof. by move=> e; apply/matrixP => i m; rewrite !mxE e. Qed.

Lemma cols_mul p n M (A : 'M[R]_(p, n)) (v : 'I_M -> 'cV[R]_n) :
  A *m cols v = cols (fun m => A *m v m).
Proof.
apply/matrixP => i m; rewrite !mxE.
by apply: eq_bigr => k _; rewrite !mxE.
Qed.

Lemma cols_outer n p M (u : 'I_M -> 'cV[R]_n) (v : 'I_M -> 'cV[R]_p) :
  cols u *m (cols v)^T = \sum_m u m *m (v m)^T.
Proof.
apply/matrixP => i j; rewrite !mxE summxE; apply: eq_bigr => m _.
by rewrite !mxE big_ord1 !mxE.
Qed.

Lemma cols_sum n M (u : 'I_M -> 'cV[R]_n) : cols u *m const_mx 1 = \sum_m u m.
Proof.
apply/matrixP => i j; rewrite !mxE summxE; apply: eq_bigr => m _.
by rewrite !mxE mulr1 (ord1 j).
Qed.

Lemma relu_mask n (z : 'cV[R]_n) : relu z = dmask R (active z) *m z.
Proof.
apply/colP => i; rewrite dmaskE !mxE.
by case: (ltP 0 (z i 0)).
Qed.

Lemma active_relu n (z : 'cV[R]_n) : active (relu z) = active z.
Proof.
by apply/colP => i; rewrite !mxE; case: (ltP 0 (z i 0)) => // _; rewrite ltxx.
Qed.

(* The region's network agrees with the network on the region. *)
Lemma fwd_fwdp d ws K (N : params R d ws K) x : fwd N x = fwdp N (pattern N x) x.
Proof. by elim: ws d N x => [|n ws IH] d N x //=; rewrite IH -relu_mask. Qed.

Lemma delta1_delta1p d ws K (N : params R d ws K) x g :
  delta1 N x g = delta1p N (pattern N x) g.
Proof. by elim: ws d N x => [|n ws IH] d N x //=; rewrite IH. Qed.

Lemma grad_gradp d ws K (N : params R d ws K) x g : grad N x g = gradp N (pattern N x) x g.
Proof.
elim: ws d N x => [|n ws IH] d N x //=.
by rewrite IH -relu_mask delta1_delta1p.
Qed.

Lemma w1_grad d ws K (N : params R d ws K) x g : w1 (grad N x g) = delta1 N x g *m x^T.
Proof. by case: ws N. Qed.

Lemma b1_grad d ws K (N : params R d ws K) x g : b1 (grad N x g) = delta1 N x g.
Proof. by case: ws N. Qed.

(* dW_1 = Delta_1 H_0 and db_1 = Delta_1 1 *)
Definition Delta1 d ws K (N : params R d ws K) M (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) :
  'M[R]_(head K ws, M) := cols (fun m => delta1 N (x m) (g m)).

Lemma w1_gsum d ws K (N : params R d ws K) M (x : 'I_M -> 'cV[R]_d) g :
  w1 (gsum N x g) = Delta1 N x g *m (cols x)^T.
Proof.
rewrite /gsum w1_sum cols_outer; apply: eq_bigr => m _; exact: w1_grad.
Qed.

Lemma b1_gsum d ws K (N : params R d ws K) M (x : 'I_M -> 'cV[R]_d) g :
  b1 (gsum N x g) = Delta1 N x g *m const_mx 1.
Proof.
rewrite /gsum b1_sum cols_sum; apply: eq_bigr => m _; exact: b1_grad.
Qed.

(* The same at every layer: the layers above a hidden layer form a network    *)
(* whose input is that layer's output, with the same loss vectors.            *)
Lemma fwd_topp d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) x :
  fwd N x = fwd (topp N) (hid N x).
Proof. by elim: ws1 d N x => [|n ws1 IH] d N x //=; rewrite IH. Qed.

Lemma grad_topp d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) x g :
  topp (grad N x g) = grad (topp N) (hid N x) g.
Proof. by elim: ws1 d N x => [|n ws1 IH] d N x //=; rewrite IH. Qed.

Lemma gsum_topp d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) M (x : 'I_M -> 'cV[R]_d) g :
  topp (gsum N x g) = gsum (topp N) (fun m => hid N (x m)) g.
Proof. by rewrite /gsum topp_sum; apply: eq_bigr => m _; rewrite grad_topp. Qed.

Lemma gsum_tail d n ws K (N : params R d (n :: ws) K) M (x : 'I_M -> 'cV[R]_d) g :
  (gsum N x g).2 = gsum N.2 (fun m => relu (N.1.1 *m x m + N.1.2)) g.
Proof. by rewrite /gsum snd_sum. Qed.

End Relu.
