(******************************************************************************)
(* From inputs to labels: docs/theory.md, 6.4, step 10, and one sample.       *)
(*                                                                            *)
(*   output_rank        known inputs, and features of rank M at the last      *)
(*                      hidden layer: the loss vectors are known              *)
(*   output_rank_batch  so are labels that the loss vector tells              *)
(*   backward N x       the map from a sample's loss vector to its delta_1    *)
(*   backward_map       a label is told at a layer when that map, there, does *)
(*                      not send the change of the loss vector to zero        *)
(*   backward_rank      all labels are when it is injective                   *)
(*   single             one sample: the layer's input and delta are known     *)
(*   single_inputs      and so is the network's input below it                *)
(*   C2_sample          a sample alone in its group is, with its label, in    *)
(*                      every batch with this gradient                        *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact downward groups.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Output.

Variables (R : realFieldType) (K : nat).

(* Equal features of full row rank: equal loss vectors. *)
Lemma output_vectors n (N : params R n [::] K) M (h h' : 'I_M -> 'cV[R]_n) g g' (s : 'S_M) :
  \rank (lift1 h) = M -> (forall m, h' m = h (s m)) -> gsum N h' g' = gsum N h g ->
  forall m, g' m = g (s m).
Proof.
move=> rH hE E; have E' : gsum N h' g' = gsum N (fun m => h (s m)) (fun m => g (s m)).
  by rewrite gsum_perm.
have LE : lift1 h' = lift1 (fun m => h (s m)) by congr row_mx; congr trmx; apply: eq_cols.
have rL : row_free (lift1 h').
  have -> : lift1 h' = row_perm s (lift1 h).
    rewrite LE; apply/matrixP => i j; rewrite !mxE; case: splitP => j' _; by rewrite !mxE.
  rewrite /row_free row_permE eqmxMfull ?rH // row_full_unit; exact: unitmx_perm.
have := congr1 (@gradmx _ _ _ _) E'; rewrite !gradmxE -LE => /(row_free_inj rL).
by move/cols_inj.
Qed.

(* The last hidden layer has width p: dW_L = G H_{L-1} and db_L = G 1 have    *)
(* one solution G.                                                            *)
Theorem output_rank d ws1 p (N : params R d (ws1 ++ [:: p]) K) M (x x' : 'I_M -> 'cV[R]_d)
    g g' (s : 'S_M) :
  (forall m, x' m = x (s m)) -> \rank (lift1 (fun m => hid N (x m))) = M ->
  gsum N x' g' = gsum N x g -> forall m, g' m = g (s m).
Proof.
move=> xs rH E; pose T : params R p [::] K := topp N.
have ET : gsum T (fun m => hid N (x' m)) g' = gsum T (fun m => hid N (x m)) g.
  by rewrite -!gsum_topp E.
by apply: output_vectors rH _ ET => m; rewrite xs.
Qed.

Variable lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K.
Implicit Type adm : 'cV[R]_K -> Prop.

(* The loss vector at a sample's logits tells its label. *)
Definition vector_told d ws (N : params R d ws K) adm (x : 'cV[R]_d) (y : 'cV[R]_K) : Prop :=
  forall y', adm y' -> lv (fwd N x) y' = lv (fwd N x) y -> y' = y.

Corollary output_rank_batch d ws1 p (N : params R d (ws1 ++ [:: p]) K) adm M
    (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) (s : 'S_M) :
  (forall m, x' m = x (s m)) -> \rank (lift1 (fun m => hid N (x m))) = M ->
  (forall m, vector_told N adm (x m) (y m)) -> (forall m, adm (y' m)) ->
  bgrad lv N x' y' = bgrad lv N x y -> same_batch x x' y y'.
Proof.
move=> xs rH told ay' E; exists s => m; split=> //; apply: told => //.
by rewrite -xs; have := output_rank xs rH E m; rewrite /lossvecs -xs.
Qed.

(* The backward map of the sample's region, W^T and D in turn: linear in the  *)
(* loss vector.                                                               *)
Definition backward d ws (N : params R d ws K) (x : 'cV[R]_d) : 'M[R]_(head K ws, K) :=
  delta1p N (pattern N x) 1%:M.

Lemma backwardE d ws (N : params R d ws K) x g : delta1 N x g = backward N x *m g.
Proof. by rewrite delta1_delta1p -delta1p_mulr mul1mx. Qed.

(* delta_{i+1} is known from layer i.                                         *)
Theorem backward_map d n ws (N : params R d (n :: ws) K) adm (x : 'cV[R]_d) (y : 'cV[R]_K) :
  (forall y', adm y' -> y' != y ->
     backward N.2 (act N x) *m (lv (fwd N x) y' - lv (fwd N x) y) != 0) ->
  label_told lv N adm x y.
Proof.
move=> seen y' ay'; rewrite /delta2 !backwardE => E; apply/eqP; apply: contraT => /(seen _ ay').
by rewrite mulmxBr E subrr eqxx.
Qed.

Theorem backward_rank d n ws (N : params R d (n :: ws) K) adm (x : 'cV[R]_d) (y : 'cV[R]_K) :
  \rank (backward N.2 (act N x)) = K -> vector_told N adm x y -> label_told lv N adm x y.
Proof.
by move=> rB told y' ay'; rewrite /delta2 !backwardE => /(full_column_rank rB)/(told _ ay').
Qed.

End Output.

(* One sample: Q is a number, and Q 1 = 1. Nothing is said of delta_{i+1}.    *)
Section Single.

Variables (R : realFieldType) (K : nat).

Theorem single d ws (N : params R d ws K) (x x' : 'I_1 -> 'cV[R]_d) g g' :
  \rank (gradmx (gsum N x g)) = 1%N -> gsum N x' g' = gsum N x g ->
  forall m, x' m = x m /\ delta1 N (x' m) (g' m) = delta1 N (x m) (g m).
Proof.
move=> rA E m; have [P [Q [PQ _ Q1 D' X']]] := factorisations rA E.
have QE : Q = 1%:M.
  apply/matrixP => i j; have /colP/(_ i) := Q1; rewrite !mxE big_ord1 !mxE mulr1 !ord1 => ->.
  by rewrite eqxx.
have PE : P = 1%:M by rewrite -PQ QE mulmx1.
split; first by move: X'; rewrite QE mul1mx => /trmx_inj/cols_inj.
by move: D'; rewrite PE mulmx1 => /cols_inj.
Qed.

(* The same at the layer above the hidden layer of width p, and down from it. *)
Theorem single_inputs d ws1 p ws2 (N : params R d (ws1 ++ p :: ws2) K) (x x' : 'I_1 -> 'cV[R]_d) g g' :
  \rank (gradmx (gsum (topp N) (fun m => hid N (x m)) g)) = 1%N -> lower_full N x g ->
  gsum N x' g' = gsum N x g -> forall m, x' m = x m.
Proof.
move=> rA lf E; have ET : gsum (topp N) (fun m => hid N (x' m)) g' = gsum (topp N) (fun m => hid N (x m)) g.
  by rewrite -!gsum_topp E.
have st := single rA ET; have eh m := (st m).1; have ed m := (st m).2.
by move=> m; case: (downward E lf eh ed m).
Qed.

End Single.

(* C2 at the first hidden layer, one sample alone in its group.               *)
Section Sample.

Variables (R : realFieldType) (K : nat) (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K).
Implicit Types (adm G : 'cV[R]_K -> Prop).

Theorem C2_sample d n ws (N : params R d (n :: ws) K) adm M k G (C : 'M[R]_(head K ws, k))
    (I : finType) (gr : 'I_M -> I) (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) m :
  let g := lossvecs lv N x y in
  (forall f l, adm l -> G (lv f l)) -> groups_share N gr x -> confined N G C x g ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono M k| - #|pairs gr| <= \rank (lifted (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  alone gr m -> label_told lv N adm (x m) (y m) ->
  (forall m, adm (y m)) -> (forall m, adm (y' m)) ->
  bgrad lv N x' y' = bgrad lv N x y -> exists m', x' m' = x m /\ y' m' = y m.
Proof.
move=> g admG share conf rA rR al told ay ay' E.
have [||s [P [_ st]]] := C2 share conf rA rR _ _ E.
- by move=> i; apply: admG.
- by move=> i; apply: admG.
have sm : s ((s^-1)%g m) = m by rewrite permKV.
have [|ex _ ed] := singletons_kept st (m := (s^-1)%g m); first by rewrite sm.
rewrite sm in ex ed; exists ((s^-1)%g m); split=> //; apply: told => //.
by move: ed; rewrite /g /lossvecs ex.
Qed.

End Sample.
