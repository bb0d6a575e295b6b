(******************************************************************************)
(* From one hidden layer to the whole batch: docs/theory.md, 3.4.             *)
(*                                                                            *)
(*   lower_full N x g   every Delta_k up to the hidden layer of width p has   *)
(*                      full column rank                                      *)
(*   downward           what is determined there is determined at the input   *)
(*   downward_upto      the same up to the order of the samples               *)
(*   C1_batch           C1 at layer i gives the batch, up to its order        *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Downward.

Variable R : realFieldType.

Lemma down_step d n ws K (N : params R d (n :: ws) K) M (x x' : 'I_M -> 'cV[R]_d) g g' :
  gsum N x' g' = gsum N x g -> \rank (Delta1 N x g) = M ->
  (forall m, act N (x' m) = act N (x m)) ->
  (forall m, delta2 N (x' m) (g' m) = delta2 N (x m) (g m)) ->
  forall m, x' m = x m /\ delta1 N (x' m) (g' m) = delta1 N (x m) (g m).
Proof.
move=> E rD eh ed.
have ed1 m : delta1 N (x' m) (g' m) = delta1 N (x m) (g m).
  have := ed m; rewrite /delta2 /= => ->; rewrite -active_relu -/(act N (x' m)) eh.
  by rewrite /act active_relu.
have eD : Delta1 N x' g' = Delta1 N x g by apply: eq_cols.
have := congr1 (@w1 _ _ _ _) E; rewrite !w1_gsum eD => /(full_column_rank rD).
by move/trmx_inj/cols_inj => ex m; split.
Qed.

Fixpoint lower_full d ws1 p ws2 K M :
    params R d (ws1 ++ p :: ws2) K -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_K) -> Prop :=
  match ws1 return params R d (ws1 ++ p :: ws2) K -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_K) -> Prop with
  | [::] => fun N x g => \rank (Delta1 N x g) = M
  | n :: ws1' => fun N x g =>
      \rank (Delta1 N x g) = M /\ lower_full N.2 (fun m => act N (x m)) g
  end.

Theorem downward d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) M
    (x x' : 'I_M -> 'cV[R]_d) g g' :
  gsum N x' g' = gsum N x g -> lower_full N x g ->
  (forall m, hid N (x' m) = hid N (x m)) ->
  (forall m, delta1 (topp N) (hid N (x' m)) (g' m) = delta1 (topp N) (hid N (x m)) (g m)) ->
  forall m, x' m = x m /\ delta1 N (x' m) (g' m) = delta1 N (x m) (g m).
Proof.
elim: ws1 d N x x' => [|n ws1 IH] d N x x' E /=; first exact: down_step.
case=> rD lf eh ed.
have E2 : gsum N.2 (fun m => act N (x' m)) g' = gsum N.2 (fun m => act N (x m)) g.
  by rewrite -!gsum_tail E.
have {}IH := IH _ _ _ _ E2 lf eh ed.
by apply: down_step => // m; case: (IH m).
Qed.

(* The order of the samples does not matter. *)
Lemma gsum_perm d ws K (N : params R d ws K) M (x : 'I_M -> 'cV[R]_d) g (s : 'S_M) :
  gsum N (fun m => x (s m)) (fun m => g (s m)) = gsum N x g.
Proof. by rewrite /gsum [RHS](reindex_inj (@perm_inj _ s)). Qed.

Lemma rank_Delta1_perm d ws K (N : params R d ws K) M (x : 'I_M -> 'cV[R]_d) g (s : 'S_M) :
  \rank (Delta1 N (fun m => x (s m)) (fun m => g (s m))) = \rank (Delta1 N x g).
Proof.
have -> : Delta1 N (fun m => x (s m)) (fun m => g (s m)) = col_perm s (Delta1 N x g).
  by apply/matrixP => i m; rewrite !mxE.
by rewrite col_permE mxrankMfree // row_free_unit unitmx_perm.
Qed.

Lemma lower_full_perm d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) M
    (x : 'I_M -> 'cV[R]_d) g (s : 'S_M) :
  lower_full N x g -> lower_full N (fun m => x (s m)) (fun m => g (s m)).
Proof.
elim: ws1 d N x => [|n ws1 IH] d N x /=.
  exact: etrans (@rank_Delta1_perm _ (p :: ws2) _ N _ x g s).
case=> rD lf; split; last exact: (IH _ N.2 (fun m => act N (x m)) lf).
exact: etrans (@rank_Delta1_perm _ (n :: (ws1 ++ p :: ws2)) _ N _ x g s) rD.
Qed.

Theorem downward_upto d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) M
    (x x' : 'I_M -> 'cV[R]_d) g g' (s : 'S_M) :
  gsum N x' g' = gsum N x g -> lower_full N x g ->
  (forall m, hid N (x' m) = hid N (x (s m))) ->
  (forall m, delta1 (topp N) (hid N (x' m)) (g' m) = delta1 (topp N) (hid N (x (s m))) (g (s m))) ->
  forall m, x' m = x (s m).
Proof.
move=> E lf eh ed m; have Es : gsum N x' g' = gsum N (fun m => x (s m)) (fun m => g (s m)).
  by rewrite gsum_perm.
by case: (downward Es (lower_full_perm s lf) eh ed m).
Qed.

End Downward.

Section Batch.

Variables (R : realFieldType) (K : nat) (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K).

(* adm: which labels are admitted; G: loss vectors that they can give. *)
Implicit Types (adm G : 'cV[R]_K -> Prop).

(* Labels: no other admitted label of a sample gives the same delta_{i+1}. At *)
(* the last hidden layer this is the loss vector itself.                      *)
Definition label_told d n ws (N : params R d (n :: ws) K) adm (x : 'cV[R]_d) (y : 'cV[R]_K) : Prop :=
  forall y', adm y' ->
    delta2 N x (lv (fwd N x) y') = delta2 N x (lv (fwd N x) y) -> y' = y.

Definition labels_told d n ws (N : params R d (n :: ws) K) adm M
    (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) : Prop :=
  forall m, label_told N adm (x m) (y m).

Definition same_batch d M (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) : Prop :=
  exists s : 'S_M, forall m, x' m = x (s m) /\ y' m = y (s m).

(* C1 at the first hidden layer. *)
Theorem C1_batch_first d n ws (N : params R d (n :: ws) K) adm M k G
    (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) :
  let g := lossvecs lv N x y in
  (forall f l, adm l -> G (lv f l)) -> confined N G C x g ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono M k| - M <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  labels_told N adm x y ->
  (forall m, adm (y m)) -> (forall m, adm (y' m)) ->
  bgrad lv N x' y' = bgrad lv N x y -> same_batch x x' y y'.
Proof.
move=> g admG conf rA rR told ay ay' E.
have [||s st] := C1 conf rA rR _ _ E.
- by move=> m; apply: admG.
- by move=> m; apply: admG.
exists s => m; have [ex _ ed] := st m; split=> //; apply: told => //.
by move: ed; rewrite /g /lossvecs ex.
Qed.

(* C1 at a higher hidden layer, whose input is the hidden layer of width p. *)
Theorem C1_batch d ws1 p n ws2 (N : params R d (ws1 ++ p :: n :: ws2) K) adm M k G
    (C : 'M[R]_(head K ws2, k)) (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) :
  let g := lossvecs lv N x y in
  let T : params R p (n :: ws2) K := topp N in
  let h m := hid N (x m) in
  (forall f l, adm l -> G (lv f l)) -> confined T G C h g ->
  \rank (gradmx (gsum T h g)) = M ->
  (#|mono M k| - M <= \rank (lifted (Delta1 T h g) ((w1 T.2)^T *m C)))%N ->
  lower_full N x g -> labels_told T adm h y ->
  (forall m, adm (y m)) -> (forall m, adm (y' m)) ->
  bgrad lv N x' y' = bgrad lv N x y -> same_batch x x' y y'.
Proof.
move=> g T h admG conf rA rR lf told ay ay' E.
pose g' := lossvecs lv N x' y'; pose h' m := hid N (x' m).
have ET : gsum T h' g' = gsum T h g by rewrite -!gsum_topp; congr (topp _).
have [||s st] := C1 conf rA rR _ _ ET.
- by move=> m; apply: admG.
- by move=> m; apply: admG.
have xs : forall m, x' m = x (s m) by apply: downward_upto E lf _ _ => m; case: (st m).
exists s => m; split=> //; apply: told => //.
have [eh _ ed] := st m; move: ed; rewrite /g' /g /lossvecs eh !fwd_topp -/T.
by rewrite -/(h (s m)) -eh.
Qed.

End Batch.
