(******************************************************************************)
(* Networks and batches with exact binary numbers, their states and deltas by *)
(* computation: over the integers, and modulo a machine integer p.            *)
(*                                                                            *)
(*   tensor          rows of words, one word a number: a sign bit, then       *)
(*                   shift_bits bits of a shift, then a mantissa; the number  *)
(*                   is +- mantissa 2^shift / denominator                     *)
(*   number t i j    the numerator in row i, column j                         *)
(*   mxt m n t       the m x n matrix of these numbers in an ordered field    *)
(*   colt n t i      row i as a column: a sample, its target, a bias          *)
(*   net d ws K T    the network with weights and biases T, first layer first *)
(*   vec n D l       the column of the integers l divided by D                *)
(*   affines, states a layer on integers, all pre-activations of a sample     *)
(*   backs           deltas of a sample, the first layer's first, up to a     *)
(*                   factor, from a loss vector in a ring A: the integers, or *)
(*                   polynomials in a transcendental number                   *)
(*   reduced         machine integers are the residues of elements of A       *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra ssrZ.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network exact residues.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

Notation integers := (seq (seq Z)).

Record tensor := Tensor { shift_bits : word; denominator : Z; words : array (array word) }.

Definition of_nat (i : nat) : word := of_Z (Z.of_nat i).

Definition decode (e w : word) : Z :=
  let m := Z.shiftl (to_Z (PrimInt63.lsr w (e + 1)%uint63)) (to_Z (PrimInt63.land (PrimInt63.lsr w 1) (PrimInt63.lsl 1 e - 1)%uint63)) in
  if is_even w then m else Z.opp m.

Definition number (t : tensor) (i j : nat) : Z :=
  decode (shift_bits t) (get (get (words t) (of_nat i)) (of_nat j)).

Definition no_tensor := Tensor 0 (Z.pos xH) (make 0 (make 0 0))%uint63.
Notation first T := (head (no_tensor, no_tensor) T).

Section Meaning.

Variable R : realFieldType.

Definition mxt m n (t : tensor) : 'M[R]_(m, n) :=
  \matrix_(i, j) (er R (number t i j) / er R (denominator t)).

Definition colt n (t : tensor) (i : nat) : 'cV[R]_n :=
  \col_j (er R (number t i j) / er R (denominator t)).

Fixpoint net (d : nat) (ws : seq nat) (K : nat) (T : seq (tensor * tensor)) : params R d ws K :=
  match ws return params R d ws K with
  | [::] => (mxt K d (first T).1, colt K (first T).2 0)
  | n :: ws' => ((mxt n d (first T).1, colt n (first T).2 0), net n ws' K (behead T))
  end.

Definition vec n (D : Z) (l : seq Z) : 'cV[R]_n := \col_i (er R (nth Z0 l i) / er R D).

End Meaning.

Arguments mxt R m%N n%N.
Arguments colt R n%N t i%N.
Arguments net R d%N ws%N K%N.
Arguments vec R n%N.

(* m rows of n words as lists. *)
Definition rows_of (m n : nat) (a : array (array word)) : ints :=
  let js := map of_nat (iota 0 n) in
  [seq (let row := get a i in [seq get row j | j <- js]) | i <- map of_nat (iota 0 m)].

(* The numbers as lists. *)
Definition at2 (A : integers) (i j : nat) : Z := nth Z0 (nth [::] A i) j.

Definition table (m n : nat) (t : tensor) : integers :=
  let js := map of_nat (iota 0 n) in
  [seq (let row := get (words t) i in [seq decode (shift_bits t) (get row j) | j <- js])
  | i <- map of_nat (iota 0 m)].

Local Opaque of_nat decode.

Lemma nth_indices (T : Type) (x0 : T) (f : word -> T) n k :
  (k < n)%N -> nth x0 (map f (map of_nat (iota 0 n))) k = f (of_nat k).
Proof.
move=> lt_k; rewrite -map_comp (nth_map 0%N x0 (f \o of_nat)) ?size_iota //.
by rewrite nth_iota.
Qed.

Lemma tableE m n t i j : (i < m)%N -> (j < n)%N -> at2 (table m n t) i j = number t i j.
Proof. by move=> im jn; rewrite /at2 /table nth_indices // nth_indices. Qed.

Definition shaped (m n : nat) (A : integers) : Prop :=
  size A = m /\ forall i, (i < m)%N -> size (nth [::] A i) = n.

Lemma table_shaped m n t : shaped m n (table m n t).
Proof.
split=> [|i im]; first by rewrite !size_map size_iota.
by rewrite /table nth_indices // !size_map size_iota.
Qed.

Lemma shapedS m n r A : shaped m.+1 n (r :: A) -> size r = n /\ shaped m n A.
Proof.
by case=> /eqP; rewrite eqSS => /eqP sA ok; split; [exact: (ok 0%N) | split=> // i im; exact: (ok i.+1)].
Qed.

Fixpoint dotz (u v : seq Z) : Z :=
  match u, v with x :: u', y :: v' => Z.add (Z.mul x y) (dotz u' v') | _, _ => Z0 end.

Lemma dotzE (S : ringType) n u v : size u = n -> size v = n ->
  er S (dotz u v) = \sum_(k < n) er S (nth Z0 u k) * er S (nth Z0 v k).
Proof.
elim: u v n => [|x u IH] [|y v] [|n] //=; first by rewrite big_ord0 => _ _; apply: er0.
by move=> [su] [sv]; rewrite big_ord_recl erD erM (IH _ n).
Qed.

(* One affine layer on integers: inputs over D, results over out. *)
Record affine := Affine { weight : integers; bias : seq Z; by_weight : Z; by_bias : Z; out : Z }.

(* The factors of W x and of b, and the common denominator. *)
Definition scales (D : Z) (T : tensor * tensor) : Z * Z * Z :=
  let e := Z.mul (denominator T.1) D in
  let g := Z.gcd e (denominator T.2) in
  let k := Z.div (denominator T.2) g in
  (k, Z.div e g, Z.mul e k).

Definition affine_of (m d : nat) (D : Z) (T : tensor * tensor) : affine :=
  let s := scales D T in
  Affine (table m d T.1) (head [::] (table 1 m T.2)) s.1.1 s.1.2 s.2.

Definition affine_ok (D : Z) (T : tensor * tensor) : bool :=
  let s := scales D T in
  [&& Z.ltb Z0 D, Z.ltb Z0 (denominator T.1), Z.ltb Z0 (denominator T.2), Z.ltb Z0 s.2 &
      Z.eqb (Z.mul s.1.2 (denominator T.2)) s.2].

Definition apply (A : affine) (x : seq Z) : seq Z :=
  [seq Z.add (Z.mul (by_weight A) (dotz wb.1 x)) (Z.mul (by_bias A) wb.2) | wb <- zip (weight A) (bias A)].

Definition rect (z : seq Z) : seq Z := [seq Z.max Z0 v | v <- z].

Fixpoint affines (d : nat) (ws : seq nat) (K : nat) (D : Z) (T : seq (tensor * tensor)) : seq affine :=
  match ws with
  | [::] => [:: affine_of K d D (first T)]
  | n :: ws' => let A := affine_of n d D (first T) in A :: affines n ws' K (out A) (behead T)
  end.

Fixpoint affines_ok (ws : seq nat) (D : Z) (T : seq (tensor * tensor)) : bool :=
  affine_ok D (first T) && (if ws is _ :: ws' then affines_ok ws' (scales D (first T)).2 (behead T) else true).

(* All pre-activations of a sample, the logits last. *)
Fixpoint states (As : seq affine) (x : seq Z) : seq (seq Z) :=
  match As with [::] => [::] | A :: As' => let z := apply A x in z :: states As' (rect z) end.

Lemma size_apply m d D T x : size (apply (affine_of m d D T) x) = m.
Proof.
rewrite size_map size_zip /= (table_shaped m d T.1).1.
by rewrite !size_map size_iota minnn.
Qed.

Lemma size_rect z : size (rect z) = size z. Proof. exact: size_map. Qed.

Section Exact.

Variable R : realFieldType.

Local Notation mxt := (mxt R).
Local Notation colt := (colt R).
Local Notation net := (net R).
Local Notation vec := (vec R).

Lemma applyE m d D T x : affine_ok D T -> size x = d ->
  mxt m d T.1 *m vec d D x + colt m T.2 0 =
  vec m (out (affine_of m d D T)) (apply (affine_of m d D T) x).
Proof.
case/and5P => D0 E0 B0 O0 /Z.eqb_eq outE sx; apply/colP => i.
rewrite !mxE /apply (nth_map ([::], Z0)); last first.
  by rewrite size_zip /= (table_shaped m d T.1).1 !size_map size_iota minnn.
rewrite nth_zip /=; last by rewrite (table_shaped m d T.1).1 !size_map size_iota.
have [_ sr] := table_shaped m d T.1.
move: O0 outE; rewrite /scales /=; set sw := Z.div (denominator T.2) _; set sb := Z.div (Z.mul _ _) _ => O0 outE.
have biasE : nth Z0 [seq decode (shift_bits T.2) (get (get (words T.2) (of_nat 0)) j) | j <- [seq of_nat i | i <- iota 0 m]] i = number T.2 0 i.
  exact: (@tableE 1 m T.2 0 i).
rewrite biasE erD !erM (dotzE R (sr i (ltn_ord i)) sx).
move: D0 E0 B0 O0; rewrite -!(er_gt0 R) => /lt0r_neq0 D0 /lt0r_neq0 E0 /lt0r_neq0 B0.
rewrite !erM => /lt0r_neq0; rewrite !mulf_eq0 !negb_or => /andP[_ sw0].
have outB : er R (denominator T.1) * er R D * er R sw = er R sb * er R (denominator T.2).
  by rewrite -!erM -outE.
have sb0 : er R sb != 0.
  by apply: contraTneq isT => s0; move: outB => /eqP; rewrite s0 mul0r !mulf_eq0 (negPf D0) (negPf E0) (negPf sw0).
rewrite mulrDl; congr (_ + _); last by rewrite outB -mulf_div divff // mul1r.
rewrite [_ * er R sw]mulrC -mulf_div divff // mul1r mulr_suml; apply: eq_bigr => k _.
by rewrite !mxE -mulf_div -(tableE T.1 (ltn_ord i) (ltn_ord k)).
Qed.

Arguments applyE {m d D T x}.

Lemma relu_vec n D z : Z.ltb Z0 D -> size z = n -> relu (vec n D z) = vec n D (rect z).
Proof.
rewrite -(er_gt0 R) => D0 sz; apply/colP => i; rewrite !mxE (nth_map Z0) ?sz //.
have := er_gt0 R (nth Z0 z i); rewrite -(pmulr_lgt0 _ (_ : 0 < (er R D)^-1)) ?invr_gt0 //.
case: Z.ltb_spec => [/Z.lt_le_incl/Z.max_r -> pos | /Z.max_l -> pos].
  by apply/max_idPl/ltW.
by rewrite er0 mul0r; apply/max_idPr; rewrite leNgt pos.
Qed.

Lemma active_vec n D z : Z.ltb Z0 D -> forall i : 'I_n, active (vec n D z) i 0 = Z.ltb Z0 (nth Z0 z i).
Proof. by rewrite -(er_gt0 R) => D0 i; rewrite !mxE pmulr_lgt0 ?invr_gt0 // er_gt0. Qed.

Lemma out_gt0 m d D T : affine_ok D T -> Z.ltb Z0 (out (affine_of m d D T)).
Proof. by case/and5P. Qed.
Arguments out_gt0 {m d D T}.

(* The input's denominator and those of all layers. *)
Definition outs (D : Z) (As : seq affine) : seq Z := D :: map out As.

Lemma fwd_net d ws K D T x : affines_ok ws D T -> size x = d ->
  fwd (net d ws K T) (vec d D x) =
  vec K (last D (map out (affines d ws K D T))) (last x (states (affines d ws K D T) x)).
Proof.
elim: ws d D T x => [|n ws IH] d D T x /=; first by rewrite andbT; exact: applyE.
case/andP=> okA ok sx; rewrite (applyE okA sx) relu_vec ?(out_gt0 okA) ?size_apply //.
rewrite (IH _ _ _ _ ok) ?size_rect ?size_apply //.
by case: ws {IH ok}.
Qed.

Lemma size_logits d ws K D T x : size (last x (states (affines d ws K D T) x)) = K.
Proof.
elim: ws d D T x => [|n ws IH] d D T x; first exact: size_apply.
rewrite [affines _ _ _ _ _]/= [states _ _]/= /=; set As := affines n ws K _ _.
by rewrite -(IH n (out (affine_of n d D (first T))) (behead T) (rect (apply (affine_of n d D (first T)) x))); case: ws @As {IH}.
Qed.

Lemma size_states As x : size (states As x) = size As.
Proof. by elim: As x => [|A As IH] x //=; rewrite IH. Qed.

Lemma topp_net d ws1 p ws2 K T :
  topp (net d (ws1 ++ p :: ws2) K T) = net p ws2 K (drop (size ws1).+1 T).
Proof.
elim: ws1 d T => [|n ws1 IH] d T /=; first by case: T => [|t T] //=; rewrite ?drop0.
by rewrite IH; case: T.
Qed.

(* The hidden layer of width p: its denominator, a sample's output there. *)
Definition out_at (d : nat) ws1 p ws2 K D T : Z :=
  out (nth (Affine [::] [::] Z0 Z0 Z0) (affines d (ws1 ++ p :: ws2) K D T) (size ws1)).

Lemma hid_net d ws1 p ws2 K D T x : affines_ok (ws1 ++ p :: ws2) D T -> size x = d ->
  let z := nth [::] (states (affines d (ws1 ++ p :: ws2) K D T) x) (size ws1) in
  hid (net d (ws1 ++ p :: ws2) K T) (vec d D x) = vec p (out_at d ws1 p ws2 K D T) (rect z) /\ size z = p.
Proof.
elim: ws1 d D T x => [|n ws1 IH] d D T x /=; case/andP=> okA ok sx; rewrite (applyE okA sx).
  by rewrite relu_vec ?(out_gt0 okA) ?size_apply.
rewrite relu_vec ?(out_gt0 okA) ?size_apply //.
by apply: IH; rewrite ?size_rect ?size_apply.
Qed.

End Exact.

Arguments applyE R {m d D T x}.
Arguments out_gt0 {m d D T}.

(* Deltas, in a ring and on residues: W^T g, then the neurons that are off.   *)
Section Back.

Variables (T U : Type) (zero : T) (fma : T -> U -> T -> T).

Definition axpy (u : T) (r : seq U) (a : seq T) : seq T := [seq fma u ra.1 ra.2 | ra <- zip r a].

Definition pull (W : seq (seq U)) (g : seq T) (n : nat) : seq T :=
  foldr (fun rg a => axpy rg.2 rg.1 a) (nseq n zero) (zip W g).

Definition switch (z : seq Z) (u : seq T) : seq T :=
  [seq if Z.ltb Z0 zu.1 then zu.2 else zero | zu <- zip z u].

(* Ws: the weights of the layers from the second on. *)
Fixpoint backs (Ws : seq (seq (seq U))) (zs : seq (seq Z)) (g : seq T) : seq (seq T) :=
  match Ws, zs with
  | W :: Ws', z :: zs' =>
      let ds := backs Ws' zs' g in switch z (pull W (head [::] ds) (size z)) :: ds
  | _, _ => [:: g]
  end.

End Back.

Definition fmar (A : ringType) (u : A) (r : Z) (a : A) : A := u * er A r + a.
Notation pullr A := (pull (GRing.zero A) (@fmar A)).
Notation backr A := (backs (GRing.zero A) (@fmar A)).
Notation pullp p := (pull 0%uint63 (fma p)).
Notation backp p := (backs 0%uint63 (fma p)).

(* On integers, by their own operations. *)
Definition fmaz (u r a : Z) : Z := Z.add (Z.mul u r) a.
Notation backz := (backs Z0 fmaz).

Lemma backzE Ws zs g : backz Ws zs g = backr [ringType of Z] Ws zs g.
Proof.
elim: Ws zs => [|W Ws IH] [|z zs] //=; rewrite IH; congr (switch _ _ _ :: _).
rewrite /pull; elim: (zip _ _) => //= -[r u] rs ->; rewrite /axpy; apply: eq_map => -[w a].
by rewrite /fmaz /fmar er_Z.
Qed.

Section Pulls.

Variable A : comRingType.

Lemma size_pullr W (g : seq A) n : (forall r, r \in W -> size r = n) -> size (pullr A W g n) = n.
Proof.
elim: W g => [|r W IH] [|a g] sW; rewrite /pull /= ?size_nseq // size_map size_zip.
by rewrite sW ?mem_head // IH ?minnn // => r' r'W; apply: sW; rewrite inE r'W orbT.
Qed.

Lemma pullrE (S : comRingType) (f : {rmorphism A -> S}) m n W (g : seq A) :
  shaped m n W -> size g = m -> forall j, (j < n)%N ->
  f (nth 0 (pullr A W g n) j) = \sum_(k < m) er S (at2 W k j) * f (nth 0 g k).
Proof.
elim: W g m => [|r W IH] [|a g] [|m] // shW sg j jn; try by case: shW.
  by rewrite big_ord0 nth_nseq jn rmorph0.
have [sr {}shW] := shapedS shW; case: sg => sg.
have sP : size (pullr A W g n) = n.
  by apply: size_pullr => r' /(nthP [::])[i]; rewrite shW.1 => im <-; exact: shW.2.
rewrite big_ord_recl /pull /= (nth_map (Z0, 0)) ?size_zip ?sr ?sP ?minnn //.
rewrite nth_zip ?sr ?sP // /fmar rmorphD rmorphM er_morph -(IH g m) //; by rewrite mulrC.
Qed.

End Pulls.

(* The weights that deltas pass. *)
Notation above As := [seq weight A | A <- behead As].

Section Residues.

Variable p : word.
Hypothesis p_ok : modulus_ok p.

Local Notation Zp := ('Z_(Z.to_nat (to_Z p))).

Definition residues (W : integers) : ints := [seq [seq residue p z | z <- w] | w <- W].

(* u: residues of the n elements v, by a map to Z/p *)
Definition reduced (U : Type) (u0 : U) (f : U -> Zp) n (u : seq word) (v : seq U) : Prop :=
  [/\ size u = n, size v = n, all (small p) u &
      forall j, (j < n)%N -> eu p (nth 0%uint63 u j) = f (nth u0 v j)].

Local Notation reducedz := (reduced Z0 (er [ringType of Zp])).

Lemma reduced_residue v : reducedz (size v) [seq residue p z | z <- v] v.
Proof.
split=> [|||j jn]; rewrite ?size_map //.
  by apply/(all_nthP 0%uint63) => i; rewrite size_map => iv; rewrite (nth_map Z0) // residue_small.
by rewrite (nth_map Z0) // residueE.
Qed.

Lemma reduced_zip (U V W : Type) u0 v0 w0 (fu : U -> Zp) (fv : V -> Zp) (fw : W -> Zp)
    n (f : word -> word -> word) (h : U -> V -> W) u v u' v' :
  (forall a b z w, small p a -> small p b -> eu p a = fu z -> eu p b = fv w ->
     small p (f a b) /\ eu p (f a b) = fw (h z w)) ->
  reduced u0 fu n u v -> reduced v0 fv n u' v' ->
  reduced w0 fw n [seq f ab.1 ab.2 | ab <- zip u u'] [seq h zw.1 zw.2 | zw <- zip v v'].
Proof.
move=> fE [su sv uu E] [su' sv' uu' E']; have szu : size (zip u u') = n by rewrite size_zip su su' minnn.
have szv : size (zip v v') = n by rewrite size_zip sv sv' minnn.
have at_j j : (j < n)%N -> small p (f (nth 0%uint63 u j) (nth 0%uint63 u' j)) /\
    eu p (f (nth 0%uint63 u j) (nth 0%uint63 u' j)) = fw (h (nth u0 v j) (nth v0 v' j)).
  move=> jn; apply: fE; rewrite ?E ?E' //.
    by apply: (all_nthP 0%uint63 uu); rewrite su.
  by apply: (all_nthP 0%uint63 uu'); rewrite su'.
split; rewrite ?size_map //.
  apply/(all_nthP 0%uint63) => j; rewrite size_map szu => jn.
  by rewrite (nth_map (0%uint63, 0%uint63)) ?szu // nth_zip ?su ?su' //; exact: (at_j j jn).1.
move=> j jn; rewrite (nth_map (0%uint63, 0%uint63)) ?szu // (nth_map (u0, v0)) ?szv //.
by rewrite !nth_zip ?su ?su' ?sv ?sv' //; exact: (at_j j jn).2.
Qed.

Section Ring.

Variables (A : comRingType) (phi : {rmorphism A -> Zp}).
Local Notation reducedr := (reduced 0 phi).

(* Integers as elements of A. *)
Lemma reduced_er n u v : reducedz n u v -> reducedr n u [seq er A z | z <- v].
Proof.
case=> su sv uu E; split; rewrite ?size_map // => j jn.
by rewrite (nth_map Z0) ?sv // er_morph E.
Qed.

Lemma reduced_axpy n u (z : A) r rz a az : small p u -> eu p u = phi z ->
  reducedz n r rz -> reducedr n a az -> reducedr n (axpy (fma p) u r a) (axpy (@fmar A) z rz az).
Proof.
move=> su uE rr ra; apply: (@reduced_zip Z A A Z0 0 0 (er [ringType of Zp]) phi phi n (fma p u) (fmar z)) rr ra => b c w v sb sc bE cE.
by rewrite fma_small // fmaE // uE bE cE /fmar rmorphD rmorphM er_morph.
Qed.

Lemma reduced0 n : reducedr n (nseq n 0%uint63) (nseq n 0).
Proof.
split=> [|||j jn]; rewrite ?size_nseq //; last by rewrite !nth_nseq jn eu0 rmorph0.
by apply/(all_nthP 0%uint63) => i; rewrite size_nseq nth_nseq => ->; exact: small0.
Qed.

Lemma reduced_pull m n W g gz : shaped m n W -> reducedr m g gz ->
  reducedr n (pullp p (residues W) g n) (pullr A W gz n).
Proof.
elim: W g gz m => [|r W IH] g gz m shW [sg sgz ug gE].
  by rewrite /pull; case: g {sg ug gE} => [|? ?]; case: gz {sgz} => [|? ?]; exact: reduced0.
case: m shW sg sgz gE => [|m] shW; first by case: shW.
have [sr {}shW] := shapedS shW.
case: g ug => [|u g] // /andP[su ug] [sg]; case: gz => [|z gz] // [sgz] gE.
apply: reduced_axpy => //; first exact: (gE 0%N isT).
  by rewrite -sr; exact: reduced_residue.
by apply: IH shW _; split=> // j jm; exact: (gE j.+1 jm).
Qed.

Lemma reduced_switch n z u v : size z = n -> reducedr n u v ->
  reducedr n (switch 0%uint63 z u) (switch 0 z v).
Proof.
move=> sz [su sv uu E].
split=> [|||j jn]; rewrite ?size_map ?size_zip ?sz ?su ?sv ?minnn //.
  apply/(all_nthP 0%uint63) => j; rewrite size_map size_zip sz su minnn => jn.
  rewrite (nth_map (Z0, 0%uint63)) ?size_zip ?sz ?su ?minnn // nth_zip ?sz ?su //=.
  by case: Z.ltb; [apply: (all_nthP 0%uint63 uu); rewrite su | exact: small0].
rewrite (nth_map (Z0, 0%uint63)) ?size_zip ?sz ?su ?minnn // (nth_map (Z0, 0)) ?size_zip ?sz ?sv ?minnn //.
rewrite !nth_zip ?sz ?su ?sv //=; case: Z.ltb; first exact: E.
by rewrite eu0 rmorph0.
Qed.

Lemma reduced_back d ws K D T x u g : reducedr K u g ->
  let As := affines d ws K D T in
  reducedr (head K ws) (head [::] (backp p [seq residues W | W <- above As] (states As x) u))
    (head [::] (backr A (above As) (states As x) g)).
Proof.
elim: ws d D T x => [|n ws IH] d D T x ug //=.
set z := apply _ x; have sz : size z = n by rewrite size_apply.
have := IH n (out (affine_of n d D (first T))) (behead T) (rect z) ug.
set As := affines n ws K _ _ => /=; set zs := states As _ => red.
have : exists W As', As = W :: As' /\ shaped (head K ws) n (weight W).
  by case: ws @As @zs {IH red} => [|n' ws] As zs; (do 2 eexists); split; (reflexivity || exact: table_shaped).
case=> W [As' [AsE shW]]; rewrite AsE /= in red *; rewrite sz.
by apply: reduced_switch => //; apply: reduced_pull shW _; exact: red.
Qed.

End Ring.

End Residues.

Section Deltas.

Variables (R : realFieldType) (A : comRingType) (iota : {rmorphism A -> R}).

Local Notation net := (net R).
Local Notation vec := (vec R).

(* A loss vector, up to a factor. *)
Definition rvec n (l : seq A) : 'cV[R]_n := \col_i iota (nth 0 l i).

(* The factor that integer deltas lack. *)
Fixpoint lacking (ws : seq nat) (T : seq (tensor * tensor)) : R :=
  if ws is _ :: ws' then lacking ws' (behead T) / er R (denominator (first (behead T)).1) else 1.

Lemma w1_net d ws K T : w1 (net d ws K T) = mxt R (head K ws) d (first T).1.
Proof. by case: ws. Qed.

Lemma affinesE d ws K D T :
  affines d ws K D T = affine_of (head K ws) d D (first T) :: behead (affines d ws K D T).
Proof. by case: ws. Qed.

Lemma denominator_neq0 ws D T : affines_ok ws D T -> er R (denominator (first T).1) != 0.
Proof.
by case: ws => [|n ws] /andP[/and5P[_]]; rewrite -(er_gt0 R) => /lt0r_neq0.
Qed.

Lemma size_back d ws K D T x g : size g = K -> let As := affines d ws K D T in
  size (head [::] (backr A (above As) (states As x) g)) = head K ws.
Proof.
elim: ws d D T x => [|n ws IH] d D T x sg //=; set z := apply _ x.
have sz : size z = n by rewrite size_apply.
have := IH n (out (affine_of n d D (first T))) (behead T) (rect z) sg.
rewrite /= -/(affine_of n d D (first T)) [affines n ws K _ _]affinesE /= => sd; rewrite size_map size_zip sz size_pullr ?minnn // => r.
by move=> /(nthP [::])[i]; rewrite (table_shaped _ _ _).1 => im <-; exact: (table_shaped _ _ _).2.
Qed.

Lemma delta1_net d ws K D T x c g : affines_ok ws D T -> size x = d -> size g = K ->
  let As := affines d ws K D T in
  delta1 (net d ws K T) (vec d D x) (c *: rvec K g) =
  (c * lacking ws T) *: rvec (head K ws) (head [::] (backr A (above As) (states As x) g)).
Proof.
elim: ws d D T x => [|n ws IH] d D T x /=; first by rewrite mulr1.
case/andP=> okA ok sx sg; have o0 : Z.ltb Z0 (out (affine_of n d D (first T))) := out_gt0 okA.
rewrite (applyE R okA sx) relu_vec ?o0 ?size_apply //.
set z := apply _ x; have sz : size z = n by rewrite size_apply.
rewrite (IH _ _ _ _ ok) ?size_rect // w1_net.
have := size_back n ws (out (affine_of n d D (first T))) (behead T) (rect z) sg.
have := affinesE n ws K (out (affine_of n d D (first T))) (behead T).
set As := affines n ws K _ _; set As' := behead As; move=> AsE; rewrite AsE /=.
set ds := head [::] _ => sd.
set W := (first (behead T)).1; have E0 := denominator_neq0 ok.
apply/colP => j; rewrite dmaskE active_vec; last exact: o0.
rewrite !mxE.
have shW := table_shaped (head K ws) n W.
have sP : size (pullr A (table (head K ws) n W) ds n) = n.
  by apply: size_pullr => r /(nthP [::])[i]; rewrite shW.1 => im <-; exact: shW.2.
rewrite /switch (nth_map (Z0, 0)) ?size_zip ?sz ?sP ?minnn // nth_zip ?sz ?sP //=.
case: Z.ltb; last by rewrite rmorph0 mulr0.
rewrite (pullrE iota shW sd (ltn_ord j)) mulr_sumr; apply: eq_bigr => k _.
rewrite !mxE (tableE W (ltn_ord k) (ltn_ord j)).
by move: (er R _) (er R _)^-1 (iota _) (lacking _ _) => a i b l; ring.
Qed.

Lemma lacking_neq0 ws D T : affines_ok ws D T -> lacking ws T != 0.
Proof.
elim: ws D T => [|n ws IH] D T /=; first by rewrite oner_eq0.
case/andP=> _ ok; rewrite mulf_neq0 ?(IH _ _ ok) // invr_neq0 //.
exact: denominator_neq0 ok.
Qed.

End Deltas.

(* The same for integers. *)
Notation ivec R := (rvec (er_rmorphism R)).

Lemma delta1_netz (R : realFieldType) d ws K D T x c g : affines_ok ws D T -> size x = d -> size g = K ->
  let As := affines d ws K D T in
  delta1 (net R d ws K T) (vec R d D x) (c *: ivec R K g) =
  (c * lacking R ws T) *: ivec R (head K ws) (head [::] (backz (above As) (states As x) g)).
Proof. by move=> ok sx sg As; rewrite backzE; exact: delta1_net. Qed.
