(******************************************************************************)
(* The theorems of single files: AMBIGUOUS, a second batch with the same      *)
(* gradient. Both batches and both gradients are computed on integers, over   *)
(* common denominators.                                                       *)
(*                                                                            *)
(*   products        sums over the samples of delta_j h_k, and of delta_j     *)
(*   same_gradient   these agree at every layer                               *)
(*   ambiguous_mse, ambiguous_hinge   the gradient is the same, and no order  *)
(*                   of the samples makes the batches equal                   *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra all_fingroup ssrZ.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network exact downward residues tensors layers certificates claims.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

Definition columns_of (n : nat) (A : integers) : integers :=
  [seq [seq nth Z0 a j | a <- A] | j <- iota 0 n].

Definition products (n d : nat) (ds xs : integers) : integers :=
  let hs := columns_of d xs in
  [seq foldr Z.add Z0 dj :: [seq dotz dj hk | hk <- hs] | dj <- columns_of n ds].

Definition all_integer_deltas (As : seq affine) (zs : seq integers) (gs : integers) : seq integers :=
  let Ws := above As in [seq backz Ws zg.1 zg.2 | zg <- zip zs gs].

Fixpoint same_gradient (d : nat) (ws : seq nat) (K : nat) (xs : integers) (zs ds : seq integers)
    (xs' : integers) (zs' ds' : seq integers) : bool :=
  (products (head K ws) d [seq head [::] dm | dm <- ds] xs ==
   products (head K ws) d [seq head [::] dm | dm <- ds'] xs') &&
  (if ws is n :: ws' then
     same_gradient n ws' K
       [seq rect (head [::] z) | z <- zs] [seq behead z | z <- zs] [seq behead dm | dm <- ds]
       [seq rect (head [::] z) | z <- zs'] [seq behead z | z <- zs'] [seq behead dm | dm <- ds']
   else true).

Section Second.

Variables (R : realFieldType) (K M : nat).

Lemma sum_nth (v : seq Z) n : size v = n -> er R (foldr Z.add Z0 v) = \sum_(m < n) er R (nth Z0 v m).
Proof.
elim: v n => [|a v IH] [|n] //=; first by rewrite big_ord0 => _; exact: er0.
by case=> sv; rewrite big_ord_recl erD (IH n).
Qed.

Lemma products_at n d ds xs (j : 'I_n) : size ds = M.+1 -> size xs = M.+1 ->
  let row := nth [::] (products n d ds xs) j in
  er R (nth Z0 row 0) = \sum_(m < M.+1) er R (nth Z0 (nth [::] ds m) j) /\
  forall k : 'I_d, er R (nth Z0 row k.+1) =
    \sum_(m < M.+1) er R (nth Z0 (nth [::] ds m) j) * er R (nth Z0 (nth [::] xs m) k).
Proof.
move=> sds sxs row; have -> : row = foldr Z.add Z0 [seq nth Z0 a j | a <- ds] ::
    [seq dotz [seq nth Z0 a j | a <- ds] hk | hk <- columns_of d xs].
  rewrite /row /products (nth_map [::]) ?size_map ?size_iota //.
  by rewrite (nth_map 0%N) ?size_iota // nth_iota.
split=> /=.
  rewrite (@sum_nth _ M.+1) ?size_map //; apply: eq_bigr => m _.
  by rewrite (nth_map [::]) ?sds.
move=> k; rewrite (nth_map [::]) ?size_map ?size_iota //.
rewrite (nth_map 0%N) ?size_iota // nth_iota // add0n.
rewrite (dotzE R (n := M.+1)) ?size_map //; apply: eq_bigr => m _.
by rewrite (nth_map [::]) ?sds // (nth_map [::]) ?sxs.
Qed.

Lemma params_eq d ws (G G' : params R d ws K) : w1 G = w1 G' -> b1 G = b1 G' ->
  (match ws return params R d ws K -> params R d ws K -> Prop with
   | [::] => fun _ _ => True
   | n :: ws' => fun G G' => G.2 = G'.2
   end G G') -> G = G'.
Proof.
case: ws G G' => [|n ws] /=; first by case=> a b [a' b'] /= -> ->.
by case=> -[a b] c [[a' b'] c'] /= -> -> ->.
Qed.

Variable c : R.

Lemma all_integer_deltasE As xs gs m : (m < size xs)%N -> size gs = size xs ->
  nth [::] (all_integer_deltas As (all_states As xs) gs) m =
  backz (above As) (states As (nth [::] xs m)) (nth [::] gs m).
Proof.
move=> lt_m sgs; rewrite (nth_map ([::], [::])) ?size_zip ?size_map ?sgs ?minnn //.
by rewrite nth_zip ?size_map ?sgs //= (nth_map [::]).
Qed.

Lemma size_integer_deltas As xs gs : size gs = size xs ->
  size (all_integer_deltas As (all_states As xs) gs) = size xs.
Proof. by move=> sgs; rewrite size_map size_zip size_map sgs minnn. Qed.

Record fits d (xs gs : integers) : Prop := Fits {
  fits_xs : size xs = M.+1; fits_gs : size gs = M.+1;
  fits_x : forall m : 'I_M.+1, size (nth [::] xs m) = d;
  fits_g : forall m : 'I_M.+1, size (nth [::] gs m) = K }.

Local Notation batch d D xs := (fun m : 'I_M.+1 => vec R d D (nth [::] xs m)).
Local Notation vectors gs := (fun m : 'I_M.+1 => c *: ivec R K (nth [::] gs m)).

(* The first layer's part of the gradient. *)
Lemma first_part d ws D T xs gs : affines_ok ws D T -> fits d xs gs ->
  let As := affines d ws K D T in
  let ds := [seq head [::] dm | dm <- all_integer_deltas As (all_states As xs) gs] in
  let P := products (head K ws) d ds xs in
  let G := gsum (net R d ws K T) (batch d D xs) (vectors gs) in
  w1 G = \matrix_(j, k) (c * lacking R ws T * er R (nth Z0 (nth [::] P j) k.+1) / er R D) /\
  b1 G = \col_j (c * lacking R ws T * er R (nth Z0 (nth [::] P j) 0)).
Proof.
move=> ok [sxs sgs sx sg] As ds P G.
have sds : size ds = M.+1 by rewrite size_map size_integer_deltas ?sxs ?sgs.
have DE : Delta1 (net R d ws K T) (batch d D xs) (vectors gs) =
    \matrix_(j, m) (c * lacking R ws T * er R (nth Z0 (nth [::] ds m) j)).
  apply/matrixP => j m; rewrite [LHS]mxE (delta1_netz c ok (sx m) (sg m)) !mxE.
  by rewrite /ds (nth_map [::]) ?size_integer_deltas ?sxs ?sgs // all_integer_deltasE ?sxs ?sgs.
split.
  rewrite w1_gsum DE; apply/matrixP => j k; rewrite !mxE.
  rewrite ((products_at d j sds sxs).2 k) mulr_sumr mulr_suml; apply: eq_bigr => m _.
  by rewrite !mxE !mulrA.
rewrite b1_gsum DE; apply/colP => j; rewrite !mxE (products_at d j sds sxs).1 mulr_sumr.
by apply: eq_bigr => m _; rewrite !mxE mulr1.
Qed.

Lemma same_gradientP d ws D T xs gs xs' gs' : let As := affines d ws K D T in
  affines_ok ws D T -> fits d xs gs -> fits d xs' gs' ->
  same_gradient d ws K xs (all_states As xs) (all_integer_deltas As (all_states As xs) gs)
    xs' (all_states As xs') (all_integer_deltas As (all_states As xs') gs') ->
  gsum (net R d ws K T) (batch d D xs) (vectors gs) = gsum (net R d ws K T) (batch d D xs') (vectors gs').
Proof.
elim: ws d D T xs xs' => [|n ws IH] d D T xs xs' As ok fit fit' /= /andP[/eqP same rest].
  have [w b] := first_part ok fit; have [w' b'] := first_part ok fit'.
  by apply: (@params_eq d [::]) => //; rewrite ?w ?w' ?b ?b' -/As same.
have [w b] := first_part ok fit; have [w' b'] := first_part ok fit'.
apply: (@params_eq d (n :: ws)); [by rewrite w w' -/As same | by rewrite b b' -/As same | cbv beta iota].
have [okA ok2] := andP ok; have [sxs sgs sx sg] := fit; have [sxs' sgs' sx' sg'] := fit'.
have next ys hs : fits d ys hs -> let As2 := affines n ws K (out (affine_of n d D (first T))) (behead T) in
  let ys2 := [seq rect (head [::] z) | z <- all_states As ys] in
  [/\ fits n ys2 hs, (gsum (net R d (n :: ws) K T) (batch d D ys) (vectors hs)).2 =
        gsum (net R n ws K (behead T)) (batch n (out (affine_of n d D (first T))) ys2) (vectors hs),
      [seq behead z | z <- all_states As ys] = all_states As2 ys2 &
      [seq behead dm | dm <- all_integer_deltas As (all_states As ys) hs] =
        all_integer_deltas As2 (all_states As2 ys2) hs].
  case=> sys shs sy sh As2 ys2.
  have ys2E (m : 'I_M.+1) : nth [::] ys2 m = rect (apply (affine_of n d D (first T)) (nth [::] ys m)).
    by rewrite (nth_map [::]) ?size_map ?sys // (nth_map [::]) ?sys.
  have sys2 : size ys2 = M.+1 by rewrite !size_map.
  split.
  - by split=> // m; rewrite ys2E size_rect size_apply.
  - rewrite gsum_tail; apply: eq_bigr => m _; congr (grad _ _ _).
    by rewrite /= (applyE R okA (sy m)) relu_vec ?(out_gt0 okA) ?size_apply // ys2E.
  - by rewrite /ys2 /all_states -!map_comp; apply: eq_map.
  apply: (@eq_from_nth _ [::]); first by rewrite size_map !size_integer_deltas ?sys ?sys2.
  move=> m; rewrite size_map size_integer_deltas ?sys ?shs // => lt_m.
  rewrite (nth_map [::]) ?size_integer_deltas ?sys ?shs // !all_integer_deltasE ?sys ?sys2 ?shs //.
  rewrite (ys2E (Ordinal lt_m)) /As /= -/As2.
  have := affinesE n ws K (out (affine_of n d D (first T))) (behead T).
  by rewrite -/As2; set As3 := behead As2 => ->.
have [fit2 e0 e1 e2] := next _ _ fit; have [fit2' e0' e1' e2'] := next _ _ fit'.
apply: etrans e0 _; apply: etrans _ (esym e0').
by apply: IH => //; rewrite -e2 -e2' -e1 -e1'.
Qed.

(* No order of the samples makes two batches with different lists equal. *)
Lemma not_same (A B : eqType) d (f : A -> 'cV[R]_d) (g : B -> 'cV[R]_K) (xs xs' : seq A) (ys ys' : seq B) a b :
  size xs = M.+1 -> size xs' = M.+1 -> size ys = M.+1 -> size ys' = M.+1 ->
  {in xs & xs', forall u v, f u = f v -> u = v} -> {in ys & ys', forall u v, g u = g v -> u = v} ->
  ~~ perm_eq (zip xs' ys') (zip xs ys) ->
  ~ same_batch (fun m : 'I_M.+1 => f (nth a xs m)) (fun m => f (nth a xs' m))
      (fun m => g (nth b ys m)) (fun m => g (nth b ys' m)).
Proof.
move=> sx sx' sy sy' fI gI /negP differ [s st]; apply: differ.
pose h (m : 'I_M.+1) := (nth a xs m, nth b ys m).
have E : zip xs ys = [seq h m | m <- enum 'I_M.+1].
  apply: (@eq_from_nth _ (a, b)); first by rewrite size_map size_enum_ord size_zip sx sy minnn.
  move=> i; rewrite size_zip sx sy minnn => lt_i.
  rewrite nth_zip ?sx ?sy // (nth_map ord0) ?size_enum_ord // /h.
  by rewrite nth_enum_ord.
have E' : zip xs' ys' = [seq h (s m) | m <- enum 'I_M.+1].
  apply: (@eq_from_nth _ (a, b)); first by rewrite size_map size_enum_ord size_zip sx' sy' minnn.
  move=> i; rewrite size_zip sx' sy' minnn => lt_i.
  rewrite nth_zip ?sx' ?sy' // (nth_map ord0) ?size_enum_ord // /h.
  set m := nth ord0 _ _; have mi : m = i :> nat by rewrite /m nth_enum_ord.
  have [ex ey] := st m; rewrite -mi; congr (_, _); apply: esym.
    by apply: fI (esym ex); rewrite mem_nth ?sx ?sx'.
  by apply: gI (esym ey); rewrite mem_nth ?sy ?sy'.
rewrite E E' (map_comp h s); apply: perm_map; apply: uniq_perm.
- by rewrite map_inj_uniq ?enum_uniq //; exact: perm_inj.
- exact: enum_uniq.
move=> m; rewrite mem_enum; apply/mapP; exists ((s^-1)%g m); first by rewrite mem_enum.
by rewrite permKV.
Qed.

End Second.

Section Ambiguous.

Variables (R : realFieldType) (d : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor)).

Lemma vec_inj n D u v : Z.ltb Z0 D -> size u = n -> size v = n -> vec R n D u = vec R n D v -> u = v.
Proof.
rewrite -(er_gt0 R) => /lt0r_neq0 D0 su sv /colP E; apply: (@eq_from_nth _ Z0); first by rewrite su sv.
move=> i; rewrite su => lt_i; have := E (Ordinal lt_i); rewrite !mxE /=.
by move/(mulIf (invr_neq0 D0))/er_inj.
Qed.

(* Lists of integers, M + 1 of length n. *)
Definition rows_ok (n : nat) (xs : integers) : bool := (size xs == M.+1) && all (fun x => size x == n) xs.

Lemma rows_okP n xs : rows_ok n xs -> size xs = M.+1 /\ forall m : 'I_M.+1, size (nth [::] xs m) = n.
Proof.
by case/andP=> /eqP s /(all_nthP [::]) ok; split=> // m; apply/eqP/ok; rewrite s.
Qed.

Lemma rows_inj n D xs xs' : Z.ltb Z0 D -> rows_ok n xs -> rows_ok n xs' ->
  {in xs & xs', forall u v, vec R n D u = vec R n D v -> u = v}.
Proof.
by move=> D0 /andP[_ /allP sx] /andP[_ /allP sx'] u v /sx/eqP su /sx'/eqP sv; apply: vec_inj.
Qed.

(* A tensor's rows over a multiple E of its denominator. *)
Definition over (n : nat) (E : Z) (t : tensor) : integers :=
  let k := Z.div E (denominator t) in [seq [seq Z.mul k v | v <- row] | row <- table M.+1 n t].

Definition multiple (E : Z) (t : tensor) : bool :=
  Z.ltb Z0 E && Z.eqb (Z.mul (Z.div E (denominator t)) (denominator t)) E.

Lemma over_ok n E t : rows_ok n (over n E t).
Proof.
apply/andP; split; first by rewrite size_map (table_shaped M.+1 n t).1.
apply/(all_nthP [::]) => i; rewrite size_map (table_shaped M.+1 n t).1 => lt_i.
by rewrite (nth_map [::]) ?(table_shaped M.+1 n t).1 // size_map (table_shaped M.+1 n t).2.
Qed.

Lemma overE n E t (m : 'I_M.+1) : multiple E t -> colt R n t m = vec R n E (nth [::] (over n E t) m).
Proof.
case/andP=> E0 /Z.eqb_eq kE; set k := Z.div E (denominator t) in kE.
have : er R E != 0 by move: E0; rewrite -(er_gt0 R) => /lt0r_neq0.
rewrite -{1}kE erM mulf_eq0 negb_or => /andP[k0 t0].
have [s sm] := table_shaped M.+1 n t; apply/colP => i; rewrite !mxE.
rewrite /over (nth_map [::]) ?s // (nth_map Z0) ?sm // -/k -/(at2 (table M.+1 n t) m i) tableE //.
by rewrite -{1}kE !erM -mulf_div divff // mul1r.
Qed.

Section Batch.

Variables (D : Z) (xs : integers).
Let As := affines d ws K D T.
Let F := last D (map out As).
Let zs := all_states As xs.
Let N := net R d ws K T.
Let x (m : 'I_M.+1) := vec R d D (nth [::] xs m).

Hypothesis ok : affines_ok ws D T.
Hypothesis okx : rows_ok d xs.

Lemma logits_at (m : 'I_M.+1) : fwd N (x m) = vec R K F (last [::] (nth [::] zs m)).
Proof.
have [sxs sx] := rows_okP okx.
rewrite /x (@fwd_net R d ws K D T _ ok (sx m)) -/As -/F /zs /all_states (nth_map [::]) ?sxs //.
by congr (vec _ _ _ _); rewrite /As affinesE /=; case: (behead _).
Qed.

Lemma size_logits_at (m : 'I_M.+1) : size (last [::] (nth [::] zs m)) = K.
Proof.
have [sxs sx] := rows_okP okx.
rewrite /zs /all_states (nth_map [::]) ?sxs // -(size_logits d ws K D T (nth [::] xs m)) -/As.
by rewrite /As affinesE /=; case: (behead _).
Qed.

Lemma size_zs_at : size zs = M.+1.
Proof. by rewrite /zs /all_states size_map (rows_okP okx).1. Qed.

Definition mse_vectors_at (E : Z) (ys : integers) : integers :=
  [seq mse_vectors F E (last [::] zy.1) zy.2 | zy <- zip zs ys].

Lemma mse_at (r : R) E ys : r != 0 -> Z.ltb Z0 E -> rows_ok K ys ->
  loss_vectors_known (mse_lv r) N x (fun m : 'I_M.+1 => vec R K E (nth [::] ys m)) (mse_vectors_at E ys)
    (r * 2%:R / (er R F * er R E)).
Proof.
move=> r0 E0 oky; have [sys sy] := rows_okP oky; have szs := size_zs_at.
have F0 : er R F != 0 by have := @last_out_gt0 d ws K D T ok; rewrite -(er_gt0 R) => /lt0r_neq0.
have e0 : er R E != 0 by move: E0; rewrite -(er_gt0 R) => /lt0r_neq0.
have vE (m : 'I_M.+1) : nth [::] (mse_vectors_at E ys) m = mse_vectors F E (last [::] (nth [::] zs m)) (nth [::] ys m).
  by rewrite (nth_map ([::], [::])) ?size_zip ?szs ?sys ?minnn // nth_zip ?szs ?sys.
split=> [||m|m].
- by rewrite !mulf_neq0 ?pnatr_eq0 // invr_neq0 // mulf_neq0.
- by rewrite size_map size_zip szs sys minnn.
- by rewrite vE size_map size_zip size_logits_at sy minnn.
rewrite /lossvecs logits_at vE; apply/colP => k; rewrite !mxE.
rewrite /mse_vectors (nth_map (Z0, Z0)) ?size_zip ?size_logits_at ?sy ?minnn //.
rewrite nth_zip ?size_logits_at ?sy //= erB !erM.
have arr (a b u v t : R) : u != 0 -> v != 0 -> t * (2%:R * (a / u - b / v)) = t * 2%:R / (u * v) * (v * a - u * b).
  by move=> u0 v0; field; rewrite ?u0 ?v0.
exact: arr.
Qed.

Lemma hinge_at (r : R) labels : r != 0 -> size labels = M.+1 -> all (fun c => c < K)%N labels ->
  loss_vectors_known (hinge_lv r) N x (fun m : 'I_M.+1 => class R K (nth 0%N labels m))
    (hinge_vectors_of K labels F zs) r.
Proof.
move=> r0 sl /(all_nthP 0%N) lt_K; have szs := size_zs_at.
split=> // [|m|m].
- by rewrite size_map size_zip szs sl minnn.
- rewrite (nth_map ([::], 0%N)) ?size_zip ?szs ?sl ?minnn //; exact: size_hinge_vector.
rewrite /lossvecs logits_at hinge_vectorE //; last by apply: lt_K; rewrite sl.
  by rewrite (nth_map ([::], 0%N)) ?size_zip ?szs ?sl ?minnn // nth_zip ?szs ?sl.
exact: last_out_gt0.
Qed.

End Batch.

(* The same for every loss: equal gradients from equal sums on integers. *)
Lemma same_bgrad (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K) D xs xs' (y y' : 'I_M.+1 -> 'cV[R]_K) gs gs' (c : R) :
  let As := affines d ws K D T in
  let N := net R d ws K T in
  let x (m : 'I_M.+1) := vec R d D (nth [::] xs m) in
  let x' (m : 'I_M.+1) := vec R d D (nth [::] xs' m) in
  affines_ok ws D T -> rows_ok d xs -> rows_ok d xs' ->
  loss_vectors_known lv N x y gs c -> loss_vectors_known lv N x' y' gs' c ->
  same_gradient d ws K xs (all_states As xs) (all_integer_deltas As (all_states As xs) gs)
    xs' (all_states As xs') (all_integer_deltas As (all_states As xs') gs') ->
  bgrad lv N x' y' = bgrad lv N x y.
Proof.
move=> As N x x' ok /rows_okP[sxs sx] /rows_okP[sxs' sx'] [_ sgs sg gE] [_ sgs' sg' gE'] same.
have fit : fits K M d xs gs by [].
have fit' : fits K M d xs' gs' by [].
have E := same_gradientP c ok fit fit' same.
apply: etrans (etrans _ (esym E)) _; apply: eq_bigr => m _; first by rewrite gE'.
by rewrite gE.
Qed.

(* D and E: the second batch's denominators, multiples of the first one's. *)
Definition ambiguous_mse_ok (X Y : tensor) (D E : Z) (xs' ys' : integers) : bool :=
  let As := affines d ws K D T in
  let xs := over d D X in let ys := over K E Y in
  let zs := all_states As xs in let zs' := all_states As xs' in
  let F := last D (map out As) in
  let ds := all_integer_deltas As zs [seq mse_vectors F E (last [::] zy.1) zy.2 | zy <- zip zs ys] in
  let ds' := all_integer_deltas As zs' [seq mse_vectors F E (last [::] zy.1) zy.2 | zy <- zip zs' ys'] in
  [&& affines_ok ws D T, multiple D X && multiple E Y, rows_ok d xs', rows_ok K ys',
      same_gradient d ws K xs zs ds xs' zs' ds' & ~~ perm_eq (zip xs' ys') (zip xs ys)].

Theorem ambiguous_mse (r : R) X Y D E xs' ys' : r != 0 -> ambiguous_mse_ok X Y D E xs' ys' ->
  let N := net R d ws K T in
  let x (m : 'I_M.+1) := colt R d X m in let y (m : 'I_M.+1) := colt R K Y m in
  let x' (m : 'I_M.+1) := vec R d D (nth [::] xs' m) in let y' (m : 'I_M.+1) := vec R K E (nth [::] ys' m) in
  bgrad (mse_lv r) N x' y' = bgrad (mse_lv r) N x y /\ ~ same_batch x x' y y'.
Proof.
move=> r0 /and5P[ok /andP[mX mY] okx' oky' /andP[same differ]] N x y x' y'.
have [D0 E0] := (proj1 (andP mX), proj1 (andP mY)).
have okx := over_ok d D X; have oky := over_ok K E Y.
have known := mse_at ok okx r0 E0 oky; have known' := mse_at ok okx' r0 E0 oky'.
split.
  apply: etrans (same_bgrad ok okx okx' known known' same) _; apply: eq_bigr => m _.
  by rewrite /lossvecs /x /y (overE d m mX) (overE K m mY).
case=> s st; apply: (@not_same R K M _ _ d (vec R d D) (vec R K E)
  (over d D X) xs' (over K E Y) ys' [::] [::]) differ _.
- exact: (rows_okP okx).1.
- exact: (rows_okP okx').1.
- exact: (rows_okP oky).1.
- exact: (rows_okP oky').1.
- exact: rows_inj.
- exact: rows_inj.
by exists s => m; have [ex ey] := st m; rewrite -(overE d (s m) mX) -(overE K (s m) mY).
Qed.

Definition ambiguous_hinge_ok (X : tensor) (labels : seq nat) (D : Z) (xs' : integers) (labels' : seq nat) : bool :=
  let As := affines d ws K D T in
  let xs := over d D X in
  let zs := all_states As xs in let zs' := all_states As xs' in
  let F := last D (map out As) in
  let ds := all_integer_deltas As zs (hinge_vectors_of K labels F zs) in
  let ds' := all_integer_deltas As zs' (hinge_vectors_of K labels' F zs') in
  [&& affines_ok ws D T, multiple D X && rows_ok d xs', (size labels == M.+1) && all (fun c => c < K)%N labels,
      (size labels' == M.+1) && all (fun c => c < K)%N labels',
      same_gradient d ws K xs zs ds xs' zs' ds' & ~~ perm_eq (zip xs' labels') (zip xs labels)].

Theorem ambiguous_hinge (r : R) X labels D xs' labels' : r != 0 -> ambiguous_hinge_ok X labels D xs' labels' ->
  let N := net R d ws K T in
  let x (m : 'I_M.+1) := colt R d X m in let y (m : 'I_M.+1) := class R K (nth 0%N labels m) in
  let x' (m : 'I_M.+1) := vec R d D (nth [::] xs' m) in let y' (m : 'I_M.+1) := class R K (nth 0%N labels' m) in
  bgrad (hinge_lv r) N x' y' = bgrad (hinge_lv r) N x y /\ ~ same_batch x x' y y'.
Proof.
move=> r0 /and5P[ok /andP[mX okx'] /andP[/eqP sl lt_K] /andP[/eqP sl' lt_K'] /andP[same differ]] N x y x' y'.
have D0 := proj1 (andP mX); have okx := over_ok d D X.
have known := hinge_at ok okx r0 sl lt_K; have known' := hinge_at ok okx' r0 sl' lt_K'.
split.
  apply: etrans (same_bgrad ok okx okx' known known' same) _; apply: eq_bigr => m _.
  by rewrite /lossvecs /x (overE d m mX).
case=> s st; apply: (@not_same R K M _ _ d (vec R d D) (class R K)
  (over d D X) xs' labels labels' [::] 0%N) differ _ => //.
- exact: (rows_okP okx).1.
- exact: (rows_okP okx').1.
- exact: rows_inj.
- move=> a b /(allP lt_K) aK _ /colP/(_ (Ordinal aK)); rewrite !mxE /= eqxx.
  by case: (eqVneq a b) => // _ /eqP; rewrite oner_eq0.
by exists s => m; have [ex ey] := st m; rewrite -(overE d (s m) mX).
Qed.

End Ambiguous.
