(******************************************************************************)
(* The theorems of single files: UNIQUE for one network and one batch.        *)
(*                                                                            *)
(*   hinge_lv        loss vector of the margin loss (docs/theory.md, 1), for  *)
(*                   labels as unit vectors                                   *)
(*   unique_mse_ok, unique_mse            by the first hidden layer           *)
(*   unique_mse_deep_ok, unique_mse_deep  by a higher one                     *)
(*   unique_hinge_ok, unique_hinge, unique_hinge_deep_ok, unique_hinge_deep   *)
(*                   the same for the margin loss and classes as labels       *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra ssrZ.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network exact downward labels residues tensors layers certificates.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

Lemma last_out_gt0 d ws K D T : affines_ok ws D T -> Z.ltb Z0 (last D (map out (affines d ws K D T))).
Proof.
elim: ws d D T => [|n ws IH] d D T /=; first by rewrite andbT; exact: (@out_gt0 K d).
by case/andP=> _ /(IH n); case: ws {IH}.
Qed.

Section Squared.

Definition mse_vectors (F Y : Z) (f y : seq Z) : seq Z :=
  [seq Z.sub (Z.mul Y fy.1) (Z.mul F fy.2) | fy <- zip f y].

Definition mse_vectors_of (K M : nat) (Y : tensor) (F : Z) (zs : seq integers) : integers :=
  [seq mse_vectors F (denominator Y) (last [::] zy.1) zy.2 | zy <- zip zs (table M.+1 K Y)].

Variable R : realFieldType.

Lemma mse_vectorsE K M (r : R) F Y f m : (m < M)%N ->
  Z.ltb Z0 F -> Z.ltb Z0 (denominator Y) -> size f = K ->
  let y := nth [::] (table M K Y) m in
  mse_lv r (vec R K F f) (colt R K Y m) =
    (r * 2%:R / (er R F * er R (denominator Y))) *: ivec R K (mse_vectors F (denominator Y) f y) /\
  size (mse_vectors F (denominator Y) f y) = K.
Proof.
move=> lt_m; rewrite -!(er_gt0 R) => /lt0r_neq0 F0 /lt0r_neq0 Y0 sf /=.
have sy := (table_shaped M K Y).2 m lt_m.
split; last by rewrite size_map size_zip sf sy minnn.
apply/colP => k; rewrite !mxE /mse_vectors (nth_map (Z0, Z0)) ?size_zip ?sf ?sy ?minnn //.
rewrite nth_zip ?sf ?sy //= -/(at2 (table M K Y) m k) (tableE Y lt_m (ltn_ord k)) erB !erM.
have arr (a b u v t : R) : u != 0 -> v != 0 -> t * (2%:R * (a / u - b / v)) = t * 2%:R / (u * v) * (v * a - u * b).
  by move=> u0 v0; field; rewrite ?u0 ?v0.
exact: arr.
Qed.

Lemma mse_lv_inj K (r : R) (f y y' : 'cV[R]_K) : r != 0 -> mse_lv r f y' = mse_lv r f y -> y' = y.
Proof.
move=> r0 /(scalerI r0); have two : 2%:R != 0 :> R by rewrite pnatr_eq0.
by move=> /(scalerI two)/addrI/oppr_inj.
Qed.

Lemma mse_known d ws K M T X Y (r : R) : let As := affines d ws K (denominator X) T in
  let F := last (denominator X) (map out As) in
  r != 0 -> affines_ok ws (denominator X) T -> Z.ltb Z0 (denominator Y) ->
  loss_vectors_known (mse_lv r) (net R d ws K T) (fun m : 'I_M.+1 => colt R d X m) (fun m => colt R K Y m)
    (mse_vectors_of K M Y F (all_states As (table M.+1 d X))) (r * 2%:R / (er R F * er R (denominator Y))).
Proof.
move=> As F r0 ok Y0; have F0 : Z.ltb Z0 F by exact: last_out_gt0.
have sxs : size (table M.+1 d X) = M.+1 := (table_shaped M.+1 d X).1.
have lossE (m : 'I_M.+1) : mse_lv r (fwd (net R d ws K T) (colt R d X m)) (colt R K Y m) =
    (r * 2%:R / (er R F * er R (denominator Y))) *:
      ivec R K (nth [::] (mse_vectors_of K M Y F (all_states As (table M.+1 d X))) m) /\
    size (nth [::] (mse_vectors_of K M Y F (all_states As (table M.+1 d X))) m) = K.
  have sx : size (nth [::] (table M.+1 d X) m) = d by exact: (table_shaped M.+1 d X).2.
  rewrite (samples_vec R d X (ltn_ord m)) (@fwd_net R d ws K (denominator X) T _ ok sx) -/As -/F.
  have -> : nth [::] (mse_vectors_of K M Y F (all_states As (table M.+1 d X))) m =
      mse_vectors F (denominator Y) (last (nth [::] (table M.+1 d X) m) (states As (nth [::] (table M.+1 d X) m)))
        (nth [::] (table M.+1 K Y) m).
    rewrite (nth_map ([::], [::])) ?size_zip ?size_map ?size_iota ?minnn //.
    rewrite nth_zip ?size_map ?size_iota // (nth_map [::]) ?sxs //.
    by congr mse_vectors; rewrite /As affinesE /=; case: (behead _).
  by apply: mse_vectorsE => //; exact: size_logits.
split=> [||m|m]; last exact: (lossE m).1.
- rewrite !mulf_neq0 ?pnatr_eq0 // invr_neq0 // mulf_neq0 //.
    by move: F0; rewrite -(er_gt0 R) => /lt0r_neq0.
  by move: Y0; rewrite -(er_gt0 R) => /lt0r_neq0.
- by rewrite !size_map size_zip !size_map !size_iota minnn.
exact: (lossE m).2.
Qed.

Definition unique_mse_ok (p : word) (d n : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor)) (X Y : tensor)
    (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let xs := table M.+1 d X in
  let As := affines d (n :: ws) K D T in
  let zs := all_states As xs in
  let gs := mse_vectors_of K M Y (last D (map out As)) zs in
  [&& Z.ltb Z0 (denominator Y), all_plain E & first_ok K M p d n ws T D As (residues p gs) xs zs E L].

Theorem unique_mse (r : R) p d n ws K M T X Y E L : r != 0 -> unique_mse_ok p d n ws K M T X Y E L ->
  let N := net R d (n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := colt R K Y m in
  forall x' y', bgrad (mse_lv r) N x' y' = bgrad (mse_lv r) N x y -> same_batch x x' y y'.
Proof.
move=> r0 /and3P[Y0 pl ok] N x y x' y' same; have [p_ok ok1 _ _] := and4P ok.
have known := @mse_known d (n :: ws) K M T X Y r r0 ok1 Y0.
apply: (unique_first (adm := fun _ => True) ok (known_reduced p_ok known)) => //; first by left.
by move=> m l _; apply: mse_lv_inj.
Qed.

Definition unique_mse_deep_ok (p : word) (d : nat) (ws1 : seq nat) (q n : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor))
    (X Y : tensor) (lower : seq minor) (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let As := affines d (ws1 ++ q :: n :: ws) K D T in
  let xs := table M.+1 d X in
  let zs := all_states As xs in
  let gs := mse_vectors_of K M Y (last D (map out As)) zs in
  [&& Z.ltb Z0 (denominator Y), all_plain E & upper_ok K M p d ws1 q n ws T D As (residues p gs) xs zs lower E L].

Theorem unique_mse_deep (r : R) p d ws1 q n ws K M T X Y lower E L :
  r != 0 -> unique_mse_deep_ok p d ws1 q n ws K M T X Y lower E L ->
  let N := net R d (ws1 ++ q :: n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := colt R K Y m in
  forall x' y', bgrad (mse_lv r) N x' y' = bgrad (mse_lv r) N x y -> same_batch x x' y y'.
Proof.
move=> r0 /and3P[Y0 pl ok] N x y x' y' same.
have [p_ok ok1 _ _] := and4P ok.
have known := @mse_known d (ws1 ++ q :: n :: ws) K M T X Y r r0 ok1 Y0.
apply: (unique_upper (adm := fun _ => True) ok (known_reduced p_ok known)) => //; first by left.
by move=> m l _; apply: mse_lv_inj.
Qed.

End Squared.

(* The margin loss: each class c other than the label y with                  *)
(* 1 - f_y + f_c > 0 adds r to entry c and takes it from entry y.             *)
Section Margin.

Variable R : realFieldType.

Definition class K (c : nat) : 'cV[R]_K := \col_k (k == c :> nat)%:R.

Definition violated K (f y : 'cV[R]_K) (k : 'I_K) : bool :=
  (y k 0 == 0) && (0 < 1 - (y^T *m f) 0 0 + f k 0).

Definition hinge_lv K (r : R) (f y : 'cV[R]_K) : 'cV[R]_K :=
  r *: \col_k ((violated f y k)%:R - (\sum_j (violated f y j)%:R) * y k 0).

Definition is_class K (y : 'cV[R]_K) : Prop := exists2 c, (c < K)%N & y = class K c.

Definition violates (F : Z) (f : seq Z) (c k : nat) : bool :=
  (k != c) && Z.ltb Z0 (Z.add (Z.sub F (nth Z0 f c)) (nth Z0 f k)).

Definition hinge_vector (K : nat) (F : Z) (f : seq Z) (c : nat) : seq Z :=
  let n := Z.of_nat (count (violates F f c) (iota 0 K)) in
  [seq if k == c then Z.opp n else if violates F f c k then Z.pos xH else Z0 | k <- iota 0 K].

Lemma er_of_nat (S : ringType) n : er S (Z.of_nat n) = n%:R.
Proof.
elim: n => [|n IH]; first exact: er0.
by rewrite Nat2Z.inj_succ -Z.add_1_r erD er1 IH -(natrD _ n 1) addn1.
Qed.

Lemma class_dot K c (f : 'cV[R]_K) (lt_c : (c < K)%N) : ((class K c)^T *m f) 0 0 = f (Ordinal lt_c) 0.
Proof.
rewrite mxE -(sum_at (fun k => f k 0) (Ordinal lt_c)); apply: eq_bigr => k _.
by rewrite !mxE mulrC.
Qed.

Lemma sum_count K (P : pred nat) : \sum_(k < K) (P k)%:R = (count P (iota 0 K))%:R :> R.
Proof.
rewrite -(big_mkord xpredT (fun k => (P k)%:R)) /index_iota subn0.
by elim: (iota 0 K) => [|k l IH] /=; rewrite ?big_nil // big_cons IH natrD.
Qed.

Lemma violatedE K F f c (k : 'I_K) : Z.ltb Z0 F -> (c < K)%N ->
  violated (vec R K F f) (class K c) k = violates F f c k.
Proof.
rewrite -(er_gt0 R) => F0 lt_c; rewrite /violated /violates (class_dot _ lt_c) !mxE /= pnatr_eq0 eqb0.
congr (_ && _); rewrite -(er_gt0 R) erD erB.
have -> : 1 - er R (nth Z0 f c) / er R F + er R (nth Z0 f k) / er R F =
    (er R F - er R (nth Z0 f c) + er R (nth Z0 f k)) / er R F.
  by rewrite mulrDl mulrBl divff // lt0r_neq0.
by rewrite pmulr_lgt0 // invr_gt0.
Qed.

Lemma size_hinge_vector K F f c : size (hinge_vector K F f c) = K.
Proof. by rewrite size_map size_iota. Qed.

Lemma hinge_vectorE K r F f c : Z.ltb Z0 F -> (c < K)%N ->
  hinge_lv r (vec R K F f) (class K c) = r *: ivec R K (hinge_vector K F f c).
Proof.
move=> F0 lt_c; congr (r *: _); apply/colP => k; rewrite !mxE violatedE //.
under eq_bigr => j _ do rewrite violatedE //.
rewrite sum_count (nth_map 0%N) ?size_iota // nth_iota // add0n.
case: eqP => [kc|_]; last by rewrite mulr0 subr0; case: violates; rewrite ?er1 ?er0.
by rewrite {1}/violates kc eqxx /= sub0r mulr1 erN er_of_nat.
Qed.

Lemma hinge_sum K r (f y : 'cV[R]_K) : is_class y -> \sum_i hinge_lv r f y i 0 = 0.
Proof.
case=> c lt_c ->; set v := fun k => (violated f (class K c) k)%:R : R.
have -> : \sum_i hinge_lv r f (class K c) i 0 = \sum_i (r * (v i - (\sum_j v j) * (class K c) i 0)).
  by apply: eq_bigr => i _; rewrite !mxE.
rewrite -mulr_sumr sumrB -mulr_sumr.
have -> : \sum_i class K c i 0 = 1.
  rewrite -[RHS](sum_at (fun _ => 1) (Ordinal lt_c)); apply: eq_bigr => i _.
  by rewrite mxE mul1r.
by rewrite mulr1 subrr mulr0.
Qed.

Lemma ivec_inj K u v : size u = K -> size v = K -> ivec R K u = ivec R K v -> u = v.
Proof.
move=> su sv /colP E; apply: (@eq_from_nth _ Z0); first by rewrite su sv.
move=> i; rewrite su => iK; have := E (Ordinal iK); rewrite !mxE /=.
exact: er_inj.
Qed.

(* No other class gives the sample's loss vector. *)
Definition class_told (K : nat) (F : Z) (f : seq Z) (c : nat) : bool :=
  let g := hinge_vector K F f c in
  (c < K)%N && all (fun c' => (c' == c) || (hinge_vector K F f c' != g)) (iota 0 K).

Lemma class_toldP K r F f c : r != 0 -> Z.ltb Z0 F -> class_told K F f c ->
  forall y', is_class y' -> hinge_lv r (vec R K F f) y' = hinge_lv r (vec R K F f) (class K c) -> y' = class K c.
Proof.
move=> r0 F0 /andP[lt_c /allP told] y' [c' lt_c' ->]; rewrite !hinge_vectorE // => /(scalerI r0).
move/(ivec_inj (size_hinge_vector _ _ _ _) (size_hinge_vector _ _ _ _)) => E.
by have := told c'; rewrite mem_iota add0n lt_c' E eqxx orbF => /(_ isT)/eqP ->.
Qed.

Definition hinge_vectors_of (K : nat) (labels : seq nat) (F : Z) (zs : seq integers) : integers :=
  [seq hinge_vector K F (last [::] zc.1) zc.2 | zc <- zip zs labels].

Definition classes_ok (K M : nat) (labels : seq nat) (F : Z) (zs : seq integers) : bool :=
  (size labels == M.+1) && all (fun zc => class_told K F (last [::] zc.1) zc.2) (zip zs labels).

Section Known.

Variables (d : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor)) (X : tensor) (labels : seq nat) (r : R).
Let As := affines d ws K (denominator X) T.
Let F := last (denominator X) (map out As).
Let zs := all_states As (table M.+1 d X).
Let N := net R d ws K T.
Let x (m : 'I_M.+1) := colt R d X m.
Let y (m : 'I_M.+1) := class K (nth 0%N labels m).

Hypothesis r0 : r != 0.
Hypothesis ok : affines_ok ws (denominator X) T.
Hypothesis sl : size labels = M.+1.

Lemma size_zs : size zs = M.+1.
Proof. by rewrite /zs /all_states size_map (table_shaped M.+1 d X).1. Qed.

Lemma logitsE (m : 'I_M.+1) : fwd N (x m) = vec R K F (last [::] (nth [::] zs m)).
Proof.
have sx : size (nth [::] (table M.+1 d X) m) = d by exact: (table_shaped M.+1 d X).2.
rewrite /x (samples_vec R d X (ltn_ord m)) (@fwd_net R d ws K (denominator X) T _ ok sx) -/As -/F.
rewrite /zs /all_states (nth_map [::]) ?(table_shaped M.+1 d X).1 //.
by congr (vec _ _ _ _); rewrite /As affinesE /=; case: (behead _).
Qed.

Lemma hinge_loss : all (fun c => c < K)%N labels ->
  loss_vectors_known (hinge_lv r) N x y (hinge_vectors_of K labels F zs) r.
Proof.
move=> /(all_nthP 0%N) lt_K; have szs := size_zs.
split=> // [|m|m].
- by rewrite size_map size_zip szs sl minnn.
- rewrite (nth_map ([::], 0%N)) ?size_zip ?szs ?sl ?minnn //; exact: size_hinge_vector.
rewrite /lossvecs logitsE hinge_vectorE //; last by apply: lt_K; rewrite sl.
  by rewrite (nth_map ([::], 0%N)) ?size_zip ?szs ?sl ?minnn // nth_zip ?szs ?sl.
exact: last_out_gt0.
Qed.

Lemma hinge_told : classes_ok K M labels F zs ->
  [/\ all (fun c => c < K)%N labels, forall m, is_class (y m) &
      forall m, vector_told (hinge_lv r) N (@is_class K) (x m) (y m)].
Proof.
case/andP=> _ /(all_nthP ([::], 0%N)) told; have szs := size_zs.
have toldm i : (i < M.+1)%N -> class_told K F (last [::] (nth [::] zs i)) (nth 0%N labels i).
  by move=> lt_i; have := told i; rewrite size_zip szs sl minnn lt_i nth_zip ?szs ?sl // => /(_ isT).
split=> [|m|m y'].
- by apply/(all_nthP 0%N) => i; rewrite sl => lt_i; case/andP: (toldm i lt_i).
- by exists (nth 0%N labels m) => //; case/andP: (toldm m (ltn_ord m)).
rewrite logitsE; apply: (class_toldP r0 _ (toldm m (ltn_ord m))); exact: last_out_gt0.
Qed.

End Known.

Definition unique_hinge_ok (p : word) (d n : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor)) (X : tensor)
    (labels : seq nat) (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let xs := table M.+1 d X in
  let As := affines d (n :: ws) K D T in
  let F := last D (map out As) in
  let zs := all_states As xs in
  classes_ok K M labels F zs && first_ok K M p d n ws T D As (residues p (hinge_vectors_of K labels F zs)) xs zs E L.

Theorem unique_hinge (r : R) p d n ws K M T X labels E L : r != 0 -> unique_hinge_ok p d n ws K M T X labels E L ->
  let N := net R d (n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := class K (nth 0%N labels m) in
  forall x' y', (forall m, is_class (y' m)) -> bgrad (hinge_lv r) N x' y' = bgrad (hinge_lv r) N x y ->
  same_batch x x' y y'.
Proof.
move=> r0 /andP[okl ok] N x y x' y'; have [p_ok ok1 _ _] := and4P ok.
have sl : size labels = M.+1 by case/andP: okl => /eqP.
have [lt_K cl told] := @hinge_told d (n :: ws) K M T X labels r r0 ok1 sl okl.
have known := @hinge_loss d (n :: ws) K M T X labels r r0 ok1 sl lt_K.
by apply: (unique_first ok (known_reduced p_ok known)) => //; right => f l; exact: hinge_sum.
Qed.

Definition unique_hinge_deep_ok (p : word) (d : nat) (ws1 : seq nat) (q n : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor))
    (X : tensor) (labels : seq nat) (lower : seq minor) (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let As := affines d (ws1 ++ q :: n :: ws) K D T in
  let F := last D (map out As) in
  let xs := table M.+1 d X in
  let zs := all_states As xs in
  classes_ok K M labels F zs &&
  upper_ok K M p d ws1 q n ws T D As (residues p (hinge_vectors_of K labels F zs)) xs zs lower E L.

Theorem unique_hinge_deep (r : R) p d ws1 q n ws K M T X labels lower E L :
  r != 0 -> unique_hinge_deep_ok p d ws1 q n ws K M T X labels lower E L ->
  let N := net R d (ws1 ++ q :: n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := class K (nth 0%N labels m) in
  forall x' y', (forall m, is_class (y' m)) -> bgrad (hinge_lv r) N x' y' = bgrad (hinge_lv r) N x y ->
  same_batch x x' y y'.
Proof.
move=> r0 /andP[okl ok] N x y x' y'.
have [p_ok ok1 _ _] := and4P ok.
have sl : size labels = M.+1 by case/andP: okl => /eqP.
have [lt_K cl told] := @hinge_told d (ws1 ++ q :: n :: ws) K M T X labels r r0 ok1 sl okl.
have known := @hinge_loss d (ws1 ++ q :: n :: ws) K M T X labels r r0 ok1 sl lt_K.
by apply: (unique_upper ok (known_reduced p_ok known)) => //; right => f l; exact: hinge_sum.
Qed.

End Margin.
