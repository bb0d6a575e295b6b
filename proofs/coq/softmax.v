(******************************************************************************)
(* The theorems of single files: UNIQUE under cross-entropy and bce.          *)
(*                                                                            *)
(* Logits are integers over one denominator F. With T = exp (1 / F) their     *)
(* exponentials are powers of T, so a sample's loss vector times the          *)
(* denominators of softmax, which are not zero, lies in Z[T] (docs/theory.md, *)
(* 3.6). If no integer polynomial but zero vanishes at e = exp 1, none does   *)
(* at T, and Z[T] is the ring of polynomials: a minor that has an inverse     *)
(* modulo p at a point T -> t is not zero. That e is transcendental (Hermite) *)
(* is the one hypothesis of these theorems.                                   *)
(*                                                                            *)
(*   exponential R    a map that turns sums into products, positive: exp      *)
(*   transcendental x no integer polynomial but zero vanishes at x            *)
(*   softmax, sigmoid, ce_lv, bce_lv   loss vectors (docs/theory.md, 1)       *)
(*   unique_cross_entropy_ok, unique_cross_entropy      by the first hidden   *)
(*                    layer, and _deep by a higher one                        *)
(*   unique_bce_ok, unique_bce, unique_bce_deep_ok, unique_bce_deep           *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 PArray Lia.
From mathcomp Require Import all_ssreflect all_algebra ssrZ.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network exact downward labels residues tensors layers certificates claims.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

Section Transcendental.

Variable R : realFieldType.

Definition transcendental (x : R) : Prop := forall f : {poly int}, f != 0 -> (map_poly intr f).[x] != 0.

Lemma transcendental_root (x : R) n : transcendental (x ^+ n) -> transcendental x.
Proof.
move=> tx f f0; apply/negP => fx.
have ax : algebraicOver (ratr : rat -> R) x.
  exists (map_poly intr f); first by rewrite map_poly_eq0_id0 ?intr_eq0 ?lead_coef_eq0.
  rewrite /root -map_poly_comp; congr (_ == 0): fx; congr (_.[_]).
  by apply: eq_map_poly => a /=; rewrite ratr_int.
have /= [q q0 qx] : algebraicOver (ratr : rat -> R) (x ^+ n).
  elim: n {tx} => [|n IH]; first by rewrite expr0; exact: algebraic1.
  by rewrite exprS; exact: algebraic_mul.
have [g [a a0 qE]] := rat_poly_scale q.
have g0 : g != 0 by apply: contraNneq q0 => g0; rewrite qE g0 rmorph0 scaler0.
case/negP: (tx g g0); move: qx; rewrite /root qE map_polyZ hornerZ mulf_eq0 fmorph_eq0 invr_eq0 intr_eq0.
rewrite (negPf a0) /= -map_poly_comp => /eqP gx; rewrite -[X in _ == X]gx; apply/eqP; congr (_.[_]).
by apply: eq_map_poly => b /=; rewrite ratr_int.
Qed.

(* The value at a point. *)
Definition ev (S : comRingType) (t : S) : {rmorphism {poly int} -> S} :=
  [rmorphism of horner_morph (fun x : int => mulrC t x%:~R)].

Lemma evX (S : comRingType) (t : S) : ev t 'X = t. Proof. exact: horner_morphX. Qed.

Lemma ev_inj x : transcendental x -> injective (ev x).
Proof. by move=> tx; apply: raddf_inj => f f0; apply: contraTeq isT => /tx; rewrite -[_.[x]]/(ev x f) f0 eqxx. Qed.

End Transcendental.

(* Powers and sums modulo p. *)
Section Powers.

Variables (p : word) (p_ok : modulus_ok p) (t : word).

Fixpoint power_pos (n : positive) : word :=
  match n with
  | xH => t
  | xO n' => let u := power_pos n' in fma p u u 0
  | xI n' => let u := power_pos n' in fma p (fma p u u 0) t 0
  end.

Definition power (z : Z) : word := if z is Z.pos n then power_pos n else 1%uint63.

Definition addm (u v : word) : word := fma p u 1 v.
Definition mulm (u v : word) : word := fma p u v 0.

Lemma small1 : small p 1.
Proof. by apply/ltb_spec; have := q_bounds p_ok; rewrite to_Z_1; lia. Qed.

Lemma addmE u v : small p u -> small p v -> eu p (addm u v) = eu p u + eu p v.
Proof. by move=> su sv; rewrite fmaE ?small1 // eu1 mulr1. Qed.

Lemma mulmE u v : small p u -> small p v -> eu p (mulm u v) = eu p u * eu p v.
Proof. by move=> su sv; rewrite fmaE ?small0 // eu0 addr0. Qed.

Hypothesis st : small p t.

Lemma power_posE n : small p (power_pos n) /\ eu p (power_pos n) = eu p t ^+ Pos.to_nat n.
Proof.
elim: n => [n [su E]|n [su E]|] /=; last by rewrite expr1.
  rewrite fma_small //; split=> //; rewrite !fmaE ?small0 ?fma_small // eu0 !addr0 E.
  by rewrite Pos2Nat.inj_xI multE mul2n -addnn exprSr exprD.
rewrite fma_small //; split=> //; rewrite fmaE ?small0 // eu0 addr0 E.
by rewrite Pos2Nat.inj_xO multE mul2n -addnn exprD.
Qed.

Lemma power_small z : small p (power z).
Proof. by case: z => [|n|n]; rewrite ?small1 //; case: (power_posE n). Qed.

Lemma powerE z : eu p (power z) = eu p t ^+ Z.to_nat z.
Proof. by case: z => [|n|n]; rewrite ?eu1 ?expr0 //; case: (power_posE n). Qed.

Lemma sum_words us : all (small p) us ->
  small p (foldr addm 0%uint63 us) /\ eu p (foldr addm 0%uint63 us) = \sum_(u <- us) eu p u.
Proof.
elim: us => [|u us IH] /=; first by rewrite big_nil small0 // eu0.
case/andP=> su /IH[sa E]; rewrite /addm fma_small //; split=> //.
by rewrite addmE // E big_cons.
Qed.

End Powers.

Section Exponential.

Variable R : realFieldType.

Record exponential : Type := Exponential {
  exp_of :> R -> R;
  expD : forall a b, exp_of (a + b) = exp_of a * exp_of b;
  exp_gt0 : forall a, 0 < exp_of a }.

Variable exp : exponential.

Lemma exp_neq0 a : exp a != 0. Proof. exact/lt0r_neq0/exp_gt0. Qed.

Lemma exp0 : exp 0 = 1.
Proof. by apply: (mulIf (exp_neq0 0)); rewrite -expD addr0 mul1r. Qed.

Lemma exp_mul a n : exp (n%:R * a) = exp a ^+ n.
Proof.
by elim: n => [|n IH]; rewrite ?mul0r ?exp0 // -add1n natrD mulrDl mul1r expD IH exprS.
Qed.

Variable F : Z.
Hypothesis F0 : Z.ltb Z0 F.

Let F_neq0 : er R F != 0. Proof. by move: F0; rewrite -(er_gt0 R) => /lt0r_neq0. Qed.

(* T = e ^ (1 / F) *)
Definition root_of_e : R := exp (er R F)^-1.

Lemma er_to_nat z : Z.le Z0 z -> er R z = (Z.to_nat z)%:R.
Proof. by move=> z0; rewrite -er_of_nat Z2Nat.id. Qed.

Lemma exp_nat z : Z.le Z0 z -> exp (er R z / er R F) = root_of_e ^+ Z.to_nat z.
Proof. by move=> z0; rewrite er_to_nat // exp_mul. Qed.

Lemma exp_over m z : Z.le m z ->
  exp (er R z / er R F) = exp (er R m / er R F) * root_of_e ^+ Z.to_nat (Z.sub z m).
Proof.
move=> mz; rewrite -exp_nat; last by lia.
by rewrite -expD -mulrDl -erD; congr (exp (er R _ / _)); lia.
Qed.

Lemma root_of_e_transcendental : transcendental (exp 1) -> transcendental root_of_e.
Proof.
move=> te; apply: (@transcendental_root _ _ (Z.to_nat F)); rewrite -exp_nat.
  by rewrite divff.
by move/Z.ltb_lt: F0; lia.
Qed.

Lemma root_of_e_gt0 : 0 < root_of_e. Proof. exact: exp_gt0. Qed.

Definition softmax K (f : 'cV[R]_K) : 'cV[R]_K := \col_k (exp (f k 0) / \sum_j exp (f j 0)).
Definition ce_lv K (r : R) (f y : 'cV[R]_K) : 'cV[R]_K := r *: (softmax f - y).

Definition sigmoid K (f : 'cV[R]_K) : 'cV[R]_K := \col_k (exp (f k 0) / (1 + exp (f k 0))).
Definition bce_lv K (r : R) (f y : 'cV[R]_K) : 'cV[R]_K := r *: (sigmoid f - y).

Definition sums_to_one K (y : 'cV[R]_K) : Prop := \sum_k y k 0 = 1.

End Exponential.

(* One sample's logits l, integers over F. *)
Section Sample.

Variables (p : word) (p_ok : modulus_ok p) (t : word) (K : nat).

Notation Zp := ('Z_(Z.to_nat (to_Z p))).

(* Exponents from 0 up: softmax stays when all logits move alike. *)
Definition exponents (l : seq Z) : seq Z := let m := foldr Z.min Z0 l in [seq Z.sub z m | z <- l].

(* T^a_k - [k = c] (sum of all T^a_j): softmax minus the class c, times the sum. *)
Definition ce_words (l : seq Z) (c : nat) : seq word :=
  let us := [seq power p t z | z <- exponents l] in
  let all := mulm p (residue p (Z.neg xH)) (foldr (addm p) 0%uint63 us) in
  [seq if ku.1 == c then addm p all ku.2 else ku.2 | ku <- zip (iota 0 K) us].

Definition monomial_X (z : Z) : {poly int} := 'X^(Z.to_nat z).

Definition ce_polys (l : seq Z) (c : nat) : seq {poly int} :=
  let es := map monomial_X (exponents l) in
  [seq ke.2 - (if ke.1 == c then \sum_(e <- es) e else 0) | ke <- zip (iota 0 K) es].

Hypothesis st : small p t.

Let phi := ev (eu p t : Zp).

Lemma phi_monomial z : phi (monomial_X z) = eu p (power p t z).
Proof. by rewrite rmorphX evX powerE. Qed.

Lemma size_exponents l : size (exponents l) = size l. Proof. exact: size_map. Qed.

Lemma nth_zip_iota (T : Type) (x0 : T) (s : seq T) k : size s = K -> (k < K)%N ->
  nth (0%N, x0) (zip (iota 0 K) s) k = (k, nth x0 s k).
Proof. by move=> sK kK; rewrite nth_zip ?size_iota // nth_iota. Qed.

Lemma size_zip_iota (T : Type) (s : seq T) : size s = K -> size (zip (iota 0 K) s) = K.
Proof. by move=> sK; rewrite size_zip size_iota sK minnn. Qed.

Lemma ce_reduced l c : size l = K -> reduced 0 phi K (ce_words l c) (ce_polys l c).
Proof.
move=> sl; set us := [seq power p t z | z <- exponents l].
have su : size us = K by rewrite size_map size_exponents.
have uu : all (small p) us by rewrite all_map; apply/allP => z _; exact: power_small.
have se : size (map monomial_X (exponents l)) = K by rewrite size_map size_exponents.
have [s1 sE] := sum_words p_ok uu.
have sN : small p (residue p (Z.neg xH)) by exact: residue_small.
have E k : (k < K)%N -> let u := nth 0%uint63 (ce_words l c) k in
    small p u /\ eu p u = phi (nth 0 (ce_polys l c) k).
  move=> kK; rewrite /ce_words /ce_polys -/us (nth_map (0%N, 0%uint63)) ?size_zip_iota //.
  rewrite (nth_map (0%N, 0)) ?size_zip_iota // !nth_zip_iota //= rmorphB.
  rewrite (nth_map Z0) ?size_exponents ?sl // phi_monomial.
  have uk : nth 0%uint63 us k = power p t (nth Z0 (exponents l) k) by rewrite (nth_map Z0) ?size_exponents ?sl.
  have sk := power_small p_ok st (nth Z0 (exponents l) k).
  rewrite uk; case: (k == c); last by rewrite rmorph0 subr0.
  rewrite fma_small //; split=> //; rewrite addmE ?fma_small // mulmE // residueE // erN1 mulN1r sE addrC.
  congr (_ - _); by rewrite rmorph_sum !big_map; apply: eq_bigr => z _; rewrite phi_monomial.
split=> [|||k kK]; rewrite ?size_map ?size_zip_iota //; last by case: (E k kK).
by apply/(all_nthP 0%uint63) => k; rewrite size_map size_zip_iota // => kK; case: (E k kK).
Qed.

(* For bce: sigmoid is e / q with e = T^max(a, 0) and q = T^max(-a, 0) + e; a *)
(* loss vector times all q.                                                   *)
Definition e_word (z : Z) : word := power p t (Z.max Z0 z).
Definition q_word (z : Z) : word := addm p (power p t (Z.max Z0 (Z.opp z))) (e_word z).
Definition e_poly (z : Z) : {poly int} := monomial_X (Z.max Z0 z).
Definition q_poly (z : Z) : {poly int} := monomial_X (Z.max Z0 (Z.opp z)) + e_poly z.

Definition bce_words (E : Z) (l y : seq Z) : seq word :=
  let m1 := residue p (Z.neg xH) in
  let w := residue p E in
  let jqs := [seq (jz.1, q_word jz.2) | jz <- zip (iota 0 K) l] in
  [seq mulm p
    (addm p (mulm p w (e_word kzy.1.2)) (mulm p m1 (mulm p (residue p kzy.2) (q_word kzy.1.2))))
    (foldr (fun jq a => if jq.1 == kzy.1.1 then a else mulm p jq.2 a) 1%uint63 jqs)
  | kzy <- zip (zip (iota 0 K) l) y].

Definition bce_polys (E : Z) (l y : seq Z) : seq {poly int} :=
  [seq (er _ E * e_poly kzy.1.2 - er _ kzy.2 * q_poly kzy.1.2) *
    \prod_(jz <- zip (iota 0 K) l | jz.1 != kzy.1.1) q_poly jz.2 | kzy <- zip (zip (iota 0 K) l) y].

Lemma e_wordE z : small p (e_word z) /\ eu p (e_word z) = phi (e_poly z).
Proof. by rewrite phi_monomial; split=> //; exact: power_small. Qed.

Lemma q_wordE z : small p (q_word z) /\ eu p (q_word z) = phi (q_poly z).
Proof.
have [se eE] := e_wordE z; rewrite /q_word /addm fma_small //; split=> //.
by rewrite -/(addm p _ _) addmE ?power_small // eE /q_poly rmorphD !phi_monomial.
Qed.

Lemma others_word k (jz : seq (nat * Z)) : let u := foldr (fun jq a => if jq.1 == k then a else mulm p jq.2 a)
    1%uint63 [seq (jz.1, q_word jz.2) | jz <- jz] in
  small p u /\ eu p u = phi (\prod_(jz <- jz | jz.1 != k) q_poly jz.2).
Proof.
elim: jz => [|[j z] jz [su E]] /=; first by rewrite big_nil rmorph1 small1 // eu1.
rewrite big_cons /=; case: (j == k) => //=; have [sq qE] := q_wordE z.
by rewrite fma_small //; split=> //; rewrite mulmE // qE E rmorphM.
Qed.

Lemma bce_reduced E l y : size l = K -> size y = K -> reduced 0 phi K (bce_words E l y) (bce_polys E l y).
Proof.
move=> sl sy; set kl := zip (iota 0 K) l; have skl : size kl = K by exact: size_zip_iota.
have sN : small p (residue p (Z.neg xH)) by exact: residue_small.
have szip : size (zip kl y) = K by rewrite size_zip skl sy minnn.
have at_k k : (k < K)%N -> let u := nth 0%uint63 (bce_words E l y) k in
    small p u /\ eu p u = phi (nth 0 (bce_polys E l y) k).
  move=> kK; rewrite /bce_words /bce_polys -/kl (nth_map (0%N, Z0, Z0)) ?szip // (nth_map (0%N, Z0, Z0)) ?szip //.
  case: (nth _ _ k) => -[j z] v /=; have [se eE] := e_wordE z; have [sq qE] := q_wordE z.
  have [so oE] := others_word j kl; have sr w : small p (residue p w) by exact: residue_small.
  rewrite fma_small //; split=> //; rewrite mulmE ?fma_small // oE addmE ?fma_small // !mulmE ?fma_small //.
  by rewrite !residueE // eE qE rmorphM rmorphB !rmorphM !er_morph erN1 mulN1r.
split=> [|||k kK]; rewrite ?size_map ?szip //; last by case: (at_k k kK).
by apply/(all_nthP 0%uint63) => k; rewrite size_map szip // => kK; case: (at_k k kK).
Qed.

End Sample.

(* Loss vectors over the reals are these, up to a factor. *)
Section Vectors.

Variables (R : realFieldType) (exp : exponential R) (F : Z).
Hypothesis F0 : Z.ltb Z0 F.
Variable K : nat.

Let T := root_of_e exp F.
Let iota := ev T.

Lemma monomial_gt0 z : 0 < iota (monomial_X z).
Proof. by rewrite rmorphX evX exprn_gt0 // root_of_e_gt0. Qed.

Lemma least_le l z : z \in l -> Z.le (foldr Z.min Z0 l) z.
Proof.
elim: l => [|a l IH] //; rewrite inE => /orP[/eqP ->|/IH le] /=; first exact: Z.le_min_l.
exact: Z.le_trans (Z.le_min_r _ _) le.
Qed.

Definition ce_total (l : seq Z) : R := \sum_(k < K) iota (monomial_X (nth Z0 (exponents l) k)).

Lemma ce_total_gt0 l : (0 < K)%N -> 0 < ce_total l.
Proof.
rewrite /ce_total; case: K => // k _; rewrite big_ord_recl ltr_paddr ?monomial_gt0 //.
by apply: sumr_ge0 => i _; rewrite ltW ?monomial_gt0.
Qed.

Lemma ce_vector (r : R) l c : size l = K -> (c < K)%N ->
  ce_lv exp r (vec R K F l) (class R K c) = (r / ce_total l) *: rvec iota K (ce_polys K l c).
Proof.
move=> sl cK; have K0 : (0 < K)%N by apply: leq_ltn_trans cK.
set m := foldr Z.min Z0 l; set u := exp (er R m / er R F); have u0 : u != 0 by exact: exp_neq0.
have total0 := lt0r_neq0 (ce_total_gt0 l K0).
have eE k : (k < K)%N -> exp (er R (nth Z0 l k) / er R F) = u * iota (monomial_X (nth Z0 (exponents l) k)).
  move=> kK; have le_m : Z.le m (nth Z0 l k) by apply: least_le; rewrite mem_nth ?sl.
  by rewrite (exp_over exp F0 le_m) rmorphX evX (nth_map Z0) ?sl.
have sumE : \sum_j exp ((vec R K F l) j 0) = u * ce_total l.
  by rewrite /ce_total mulr_sumr; apply: eq_bigr => j _; rewrite mxE eE.
rewrite /ce_lv -scalerA; congr (_ *: _); apply/colP => k; rewrite !mxE sumE eE // -mulf_div divff // mul1r.
have se : size (map monomial_X (exponents l)) = K by rewrite size_map size_exponents.
rewrite (nth_map (0%N, 0)) ?size_zip_iota // nth_zip_iota //= rmorphB (nth_map Z0) ?size_exponents ?sl //.
rewrite mulrBr [in RHS]mulrC; congr (_ - _).
have allE : iota (\sum_(e <- map monomial_X (exponents l)) e) = ce_total l.
  rewrite rmorph_sum (big_nth 0) se big_mkord /ce_total; apply: eq_bigr => j _.
  by rewrite (nth_map Z0) ?size_exponents ?sl.
by case: eqP => _; rewrite ?allE ?mulVf // rmorph0 mulr0.
Qed.

Lemma big_zip_iota (P : pred nat) (f : Z -> R) l : size l = K ->
  \prod_(jz <- zip (seq.iota 0 K) l | P jz.1) f jz.2 = \prod_(j < K | P j) f (nth Z0 l j).
Proof.
move=> sl; rewrite (big_nth (0%N, Z0)) size_zip_iota // big_mkord.
by apply: eq_big => [j|j _]; rewrite nth_zip_iota.
Qed.

Lemma q_gt0 z : 0 < iota (q_poly z).
Proof. by rewrite /q_poly rmorphD addr_gt0 ?monomial_gt0. Qed.

Lemma sigmoidE z : exp (er R z / er R F) / (1 + exp (er R z / er R F)) = iota (e_poly z) / iota (q_poly z).
Proof.
set a := exp _; set e := iota (e_poly z); set b := iota (monomial_X (Z.max Z0 (Z.opp z))).
have b0 : b != 0 by rewrite lt0r_neq0 ?monomial_gt0.
suff abE : b * a = e.
  have -> : iota (q_poly z) = b * (1 + a) by rewrite /q_poly rmorphD mulrDr mulr1 abE.
  by rewrite -abE -mulf_div divff // mul1r.
have nE w : Z.le Z0 w -> iota (monomial_X w) = exp (er R w / er R F).
  by move=> w0; rewrite rmorphX evX exp_nat.
rewrite /a /b /e /e_poly !nE; try exact: Z.le_max_l.
by rewrite -expD -mulrDl -erD; congr (exp (er R _ / _)); lia.
Qed.

Definition bce_total (E : Z) (l : seq Z) : R := er R E * \prod_(k < K) iota (q_poly (nth Z0 l k)).

Lemma bce_total_neq0 E l : Z.ltb Z0 E -> bce_total E l != 0.
Proof.
rewrite -(er_gt0 R) => /lt0r_neq0 E0; rewrite mulf_neq0 // prodf_seq_neq0.
by apply/allP => k _; rewrite lt0r_neq0 ?q_gt0.
Qed.

Lemma bce_vector (r : R) E l y : size l = K -> size y = K -> Z.ltb Z0 E ->
  bce_lv exp r (vec R K F l) (vec R K E y) = (r / bce_total E l) *: rvec iota K (bce_polys K E l y).
Proof.
move=> sl sy E0; have := E0; rewrite -(er_gt0 R) => /lt0r_neq0 E1.
rewrite /bce_lv -scalerA; congr (_ *: _); apply/colP => k; rewrite !mxE sigmoidE.
have skl : size (zip (seq.iota 0 K) l) = K by exact: size_zip_iota.
rewrite (nth_map (0%N, Z0, Z0)); last by rewrite size_zip skl sy minnn.
rewrite nth_zip; last by rewrite skl sy.
rewrite nth_zip_iota //=.
rewrite !rmorphM rmorphB !rmorphM !er_morph rmorph_prod.
have -> : \prod_(jz <- zip (seq.iota 0 K) l | jz.1 != k) iota (q_poly jz.2) =
    \prod_(j < K | val j != val k) iota (q_poly (nth Z0 l j)).
  exact: (big_zip_iota (fun j => j != k) (fun z => iota (q_poly z)) sl).
rewrite /bce_total (bigD1 k) //=; set z := nth Z0 l k; set v := er R (nth Z0 y k).
have -> : \prod_(j < K | val j != val k) iota (q_poly (nth Z0 l j)) = \prod_(j < K | j != k) iota (q_poly (nth Z0 l j)).
  by apply: eq_bigl => j; rewrite val_eqE.
have arr (o q e w u : R) : o != 0 -> q != 0 -> w != 0 -> e / q - u / w = (w * (q * o))^-1 * ((w * e - u * q) * o).
  by move=> o0 q0 w0; field; rewrite o0 q0 w0.
apply: arr => //; last by rewrite lt0r_neq0 ?q_gt0.
by rewrite prodf_seq_neq0; apply/allP => j _; rewrite lt0r_neq0 ?q_gt0 ?implybT.
Qed.

End Vectors.

Section Known.

Variables (R : realFieldType) (exp : exponential R) (p t : word) (d : nat) (ws : seq nat) (K M : nat).
Variables (T : seq (tensor * tensor)) (X : tensor).
Let As := affines d ws K (denominator X) T.
Let F := last (denominator X) (map out As).
Let zs := all_states As (table M.+1 d X).
Let N := net R d ws K T.
Let x (m : 'I_M.+1) := colt R d X m.

Hypothesis te : transcendental (exp 1).
Hypothesis p_ok : modulus_ok p.
Hypothesis st : small p t.
Hypothesis ok : affines_ok ws (denominator X) T.

Let F0 : Z.ltb Z0 F. Proof. exact: last_out_gt0. Qed.

Lemma logits_size (m : 'I_M.+1) : size (last [::] (nth [::] zs m)) = K.
Proof.
rewrite /zs /all_states (nth_map [::]) ?(table_shaped M.+1 d X).1 //.
rewrite -(size_logits d ws K (denominator X) T (nth [::] (table M.+1 d X) m)) -/As.
by rewrite /As affinesE /=; case: (behead _).
Qed.

Definition ce_words_of (labels : seq nat) (zs : seq integers) : ints :=
  [seq ce_words p t K (last [::] zc.1) zc.2 | zc <- zip zs labels].

Definition classes_in (labels : seq nat) : bool := (size labels == M.+1) && all (fun c => c < K)%N labels.

Lemma ce_known (r : R) labels : r != 0 -> classes_in labels ->
  loss_vectors_reduced (ce_lv exp r) p (ce_words_of labels zs) N x
    (fun m => class R K (nth 0%N labels m)).
Proof.
move=> r0 /andP[/eqP sl /(all_nthP 0%N) lt_K]; have szs := size_zs d ws K M T X.
pose l m := last [::] (nth [::] zs m).
pose gs := [seq ce_polys K (last [::] zc.1) zc.2 | zc <- zip zs labels].
have at_m (S : Type) (s0 : S) (f : integers * nat -> S) (m : 'I_M.+1) :
    nth s0 [seq f zc | zc <- zip zs labels] m = f (nth [::] zs m, nth 0%N labels m).
  by rewrite (nth_map ([::], 0%N)) ?size_zip ?szs ?sl ?minnn // nth_zip ?szs ?sl.
have K0 : (0 < K)%N by apply: leq_ltn_trans (lt_K 0%N _); rewrite ?sl.
apply: (@Reduced R K M (ce_lv exp r) p (ce_words_of labels zs) d ws N x _ [comRingType of {poly int}]
  (ev (eu p t)) (ev (root_of_e exp F)) gs (fun m => r / ce_total exp F K (l m))).
- exact/ev_inj/root_of_e_transcendental.
- by move=> m; rewrite mulf_neq0 // invr_neq0 // lt0r_neq0 // ce_total_gt0.
- by rewrite size_map size_zip szs sl minnn.
- by move=> m; rewrite !at_m; apply: ce_reduced => //; exact: logits_size.
move=> m; rewrite at_m /lossvecs (@logitsE R d ws K M T X ok m); apply: ce_vector => //; first exact: logits_size.
by apply: lt_K; rewrite sl.
Qed.

Lemma sums_class c : (c < K)%N -> sums_to_one (class R K c).
Proof.
move=> lt_c; rewrite /sums_to_one -[RHS](sum_at (fun _ => 1) (Ordinal lt_c)); apply: eq_bigr => k _.
by rewrite mxE mul1r.
Qed.

Lemma ce_sums (r : R) (f y : 'cV[R]_K) : sums_to_one y -> \sum_i ce_lv exp r f y i 0 = 0.
Proof.
move=> y1; under eq_bigr => i _ do rewrite !mxE.
rewrite -mulr_sumr sumrB y1 -mulr_suml divff ?subrr ?mulr0 //.
have K0 : (0 < K)%N.
  case: K y y1 => // y'; rewrite /sums_to_one big_ord0 => /eqP.
  by rewrite eq_sym oner_eq0.
case: K K0 f => // k _ f; rewrite lt0r_neq0 // big_ord_recl ltr_paddr ?exp_gt0 //.
by apply: sumr_ge0 => i _; rewrite ltW ?exp_gt0.
Qed.

Lemma ce_lv_inj (r : R) (f y y' : 'cV[R]_K) : r != 0 -> ce_lv exp r f y' = ce_lv exp r f y -> y' = y.
Proof. by move=> r0 /(scalerI r0)/addrI/oppr_inj. Qed.

Definition bce_words_of (Y : tensor) (zs : seq integers) : ints :=
  [seq bce_words p t K (denominator Y) (last [::] zy.1) zy.2 | zy <- zip zs (table M.+1 K Y)].

Lemma bce_known (r : R) Y : r != 0 -> Z.ltb Z0 (denominator Y) ->
  loss_vectors_reduced (bce_lv exp r) p (bce_words_of Y zs) N x (fun m : 'I_M.+1 => colt R K Y m).
Proof.
move=> r0 Y0; have szs := size_zs d ws K M T X; have [sY sy] := table_shaped M.+1 K Y.
pose l m := last [::] (nth [::] zs m).
pose gs := [seq bce_polys K (denominator Y) (last [::] zy.1) zy.2 | zy <- zip zs (table M.+1 K Y)].
have at_m (S : Type) (s0 : S) (f : integers * seq Z -> S) (m : 'I_M.+1) :
    nth s0 [seq f zy | zy <- zip zs (table M.+1 K Y)] m = f (nth [::] zs m, nth [::] (table M.+1 K Y) m).
  by rewrite (nth_map ([::], [::])) ?size_zip ?szs ?sY ?minnn // nth_zip ?szs ?sY.
apply: (@Reduced R K M (bce_lv exp r) p (bce_words_of Y zs) d ws N x _ [comRingType of {poly int}]
  (ev (eu p t)) (ev (root_of_e exp F)) gs (fun m => r / bce_total exp F K (denominator Y) (l m))).
- exact/ev_inj/root_of_e_transcendental.
- by move=> m; rewrite mulf_neq0 // invr_neq0 // bce_total_neq0.
- by rewrite size_map size_zip szs sY minnn.
- by move=> m; rewrite !at_m; apply: bce_reduced => //; [exact: logits_size | exact: sy].
move=> m; rewrite at_m /lossvecs (@logitsE R d ws K M T X ok m) (samples_vec R K Y (ltn_ord m)).
by apply: bce_vector => //; [exact: logits_size | exact: sy].
Qed.

Lemma bce_lv_inj (r : R) (f y y' : 'cV[R]_K) : r != 0 -> bce_lv exp r f y' = bce_lv exp r f y -> y' = y.
Proof. by move=> r0 /(scalerI r0)/addrI/oppr_inj. Qed.

End Known.

Definition unique_cross_entropy_ok (p t : word) (d n : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor))
    (X : tensor) (labels : seq nat) (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let xs := table M.+1 d X in
  let As := affines d (n :: ws) K D T in
  let zs := all_states As xs in
  [&& small p t, classes_in K M labels & first_ok K M p d n ws T D As (ce_words_of p t K labels zs) xs zs E L].

Definition unique_cross_entropy_deep_ok (p t : word) (d : nat) (ws1 : seq nat) (q n : nat) (ws : seq nat) (K M : nat)
    (T : seq (tensor * tensor)) (X : tensor) (labels : seq nat) (lower : seq minor) (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let As := affines d (ws1 ++ q :: n :: ws) K D T in
  let xs := table M.+1 d X in
  let zs := all_states As xs in
  [&& small p t, classes_in K M labels &
      upper_ok K M p d ws1 q n ws T D As (ce_words_of p t K labels zs) xs zs lower E L].

Definition unique_bce_ok (p t : word) (d n : nat) (ws : seq nat) (K M : nat) (T : seq (tensor * tensor))
    (X Y : tensor) (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let xs := table M.+1 d X in
  let As := affines d (n :: ws) K D T in
  let zs := all_states As xs in
  [&& small p t, Z.ltb Z0 (denominator Y), all_plain E &
      first_ok K M p d n ws T D As (bce_words_of p t K M Y zs) xs zs E L].

Definition unique_bce_deep_ok (p t : word) (d : nat) (ws1 : seq nat) (q n : nat) (ws : seq nat) (K M : nat)
    (T : seq (tensor * tensor)) (X Y : tensor) (lower : seq minor) (E : argument) (L : labels_by) : bool :=
  let D := denominator X in
  let As := affines d (ws1 ++ q :: n :: ws) K D T in
  let xs := table M.+1 d X in
  let zs := all_states As xs in
  [&& small p t, Z.ltb Z0 (denominator Y), all_plain E &
      upper_ok K M p d ws1 q n ws T D As (bce_words_of p t K M Y zs) xs zs lower E L].

Section Theorems.

Variables (R : realFieldType) (exp : exponential R) (r : R) (p t : word).
Hypothesis e_transcendental : transcendental (exp 1).
Hypothesis r0 : r != 0.

(* Other batches: any inputs, any targets that sum to one. *)
Theorem unique_cross_entropy d n ws K M T X labels E L : unique_cross_entropy_ok p t d n ws K M T X labels E L ->
  let N := net R d (n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := class R K (nth 0%N labels m) in
  forall x' y', (forall m, sums_to_one (y' m)) -> bgrad (ce_lv exp r) N x' y' = bgrad (ce_lv exp r) N x y ->
  same_batch x x' y y'.
Proof.
case/and3P=> st okl ok N x y x' y'; have [p_ok ok1 _ _] := and4P ok.
have known := @ce_known R exp p t d (n :: ws) K M T X e_transcendental p_ok st ok1 r labels r0 okl.
apply: (unique_first ok known); first by right => f l; exact: ce_sums.
  by move=> m; apply: sums_class; case/andP: okl => /eqP sl /(all_nthP 0%N); apply; rewrite sl.
by move=> m l _; exact: ce_lv_inj.
Qed.

Theorem unique_cross_entropy_deep d ws1 q n ws K M T X labels lower E L :
  unique_cross_entropy_deep_ok p t d ws1 q n ws K M T X labels lower E L ->
  let N := net R d (ws1 ++ q :: n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := class R K (nth 0%N labels m) in
  forall x' y', (forall m, sums_to_one (y' m)) -> bgrad (ce_lv exp r) N x' y' = bgrad (ce_lv exp r) N x y ->
  same_batch x x' y y'.
Proof.
case/and3P=> st okl ok N x y x' y'; have [p_ok ok1 _ _] := and4P ok.
have known := @ce_known R exp p t d (ws1 ++ q :: n :: ws) K M T X e_transcendental p_ok st ok1 r labels r0 okl.
apply: (unique_upper ok known); first by right => f l; exact: ce_sums.
  by move=> m; apply: sums_class; case/andP: okl => /eqP sl /(all_nthP 0%N); apply; rewrite sl.
by move=> m l _; exact: ce_lv_inj.
Qed.

(* Other batches: any inputs, any targets. *)
Theorem unique_bce d n ws K M T X Y E L : unique_bce_ok p t d n ws K M T X Y E L ->
  let N := net R d (n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := colt R K Y m in
  forall x' y', bgrad (bce_lv exp r) N x' y' = bgrad (bce_lv exp r) N x y -> same_batch x x' y y'.
Proof.
case/and4P=> st Y0 pl ok N x y x' y' same; have [p_ok ok1 _ _] := and4P ok.
have known := @bce_known R exp p t d (n :: ws) K M T X e_transcendental p_ok st ok1 r Y r0 Y0.
apply: (unique_first (adm := fun _ => True) ok known) => //; first by left.
by move=> m l _; exact: bce_lv_inj.
Qed.

Theorem unique_bce_deep d ws1 q n ws K M T X Y lower E L :
  unique_bce_deep_ok p t d ws1 q n ws K M T X Y lower E L ->
  let N := net R d (ws1 ++ q :: n :: ws) K T in
  let x (m : 'I_M.+1) := colt R d X m in
  let y (m : 'I_M.+1) := colt R K Y m in
  forall x' y', bgrad (bce_lv exp r) N x' y' = bgrad (bce_lv exp r) N x y -> same_batch x x' y y'.
Proof.
case/and4P=> st Y0 pl ok N x y x' y' same; have [p_ok ok1 _ _] := and4P ok.
have known := @bce_known R exp p t d (ws1 ++ q :: n :: ws) K M T X e_transcendental p_ok st ok1 r Y r0 Y0.
apply: (unique_upper (adm := fun _ => True) ok known) => //; first by left.
by move=> m l _; exact: bce_lv_inj.
Qed.

End Theorems.
