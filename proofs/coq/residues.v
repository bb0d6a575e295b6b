(******************************************************************************)
(* Ranks of matrices from residues in Coq's machine integers.                 *)
(*                                                                            *)
(*   er S z          the integer z in the ring S                              *)
(*   modulus_ok p    1 < p < 2^31: products of residues do not overflow       *)
(*   eu p a          the machine integer a in Z/p                             *)
(*   fma p u r a     u r + a mod p                                            *)
(*   dotm p a u v    a + u_0 v_0 + u_1 v_1 + ... mod p                        *)
(*   inverse_ok      the rows of A and of B, residues mod p, have products    *)
(*                   1 with each other's like and 0 else: A B^T = 1           *)
(*   minor_columns   a minor of full size with such a B gives the rank over   *)
(*                   every ordered field that contains the ring of the        *)
(*                   entries; p need not be a prime                           *)
(******************************************************************************)
From Coq Require Import ZArith Uint63 Lia.
From mathcomp Require Import all_ssreflect all_algebra ssrZ.
From Exan Require Import linalg modular.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

Section Integers.

Definition er (S : ringType) (z : Z) : S := (int_of_Z z)%:~R.
Arguments er S z : simpl never.

Lemma er_is_morphism (S : ringType) : rmorphism (@er S).
Proof.
split; first by move=> a b; rewrite /er rmorphB /= rmorphB.
by split; [move=> a b; rewrite /er rmorphM /= rmorphM | rewrite /er rmorph1].
Qed.

Canonical er_additive (S : ringType) := Additive (er_is_morphism S).
Canonical er_rmorphism (S : ringType) := RMorphism (er_is_morphism S).

Lemma er0 (S : ringType) : er S Z0 = 0. Proof. exact: rmorph0. Qed.
Lemma er1 (S : ringType) : er S (Z.pos xH) = 1. Proof. exact: rmorph1. Qed.
Lemma erD (S : ringType) a b : er S (Z.add a b) = er S a + er S b. Proof. exact: rmorphD. Qed.
Lemma erB (S : ringType) a b : er S (Z.sub a b) = er S a - er S b. Proof. exact: rmorphB. Qed.
Lemma erN (S : ringType) a : er S (Z.opp a) = - er S a. Proof. exact: rmorphN. Qed.
Lemma erM (S : ringType) a b : er S (Z.mul a b) = er S a * er S b. Proof. exact: rmorphM. Qed.

(* Every ring morphism keeps integers, and the integers are their own image. *)
Lemma er_morph (S S' : ringType) (f : {rmorphism S -> S'}) z : f (er S z) = er S' z.
Proof. exact: rmorph_int. Qed.

Lemma er_Z z : er [ringType of Z] z = z.
Proof. by rewrite /er -(rmorph_int ZInstances.Z_of_int_rmorphism) intz; exact: int_of_ZK. Qed.

Lemma er_gt0 (R : realFieldType) z : (0 < er R z) = Z.ltb Z0 z.
Proof.
rewrite /er ltr0z; case: z => [|q|q] //=.
by have /ssrnat.ltP := Pos2Nat.is_pos q; case: (Pos.to_nat q).
Qed.

Lemma er_inj (R : realFieldType) : injective (er R).
Proof. by move=> a b /intr_inj /(can_inj int_of_ZK). Qed.

Lemma er_neq0 (R : realFieldType) z : (er R z != 0) = ~~ Z.eqb z Z0.
Proof. by rewrite -(er0 R) (inj_eq (@er_inj R)). Qed.

End Integers.

Notation word := PrimInt63.int.
Notation ints := (seq (seq word)).
Definition entry (A : ints) (i j : nat) : word := nth 0%uint63 (nth [::] A i) j.

Section Modulus.

Variable p : word.

Definition modulus_ok : bool := (1 <? p)%uint63 && (p <? 2147483648)%uint63.

Let q := to_Z p.
Let S := [comUnitRingType of 'Z_(Z.to_nat q)].

Definition eu (a : word) : 'Z_(Z.to_nat q) := er [ringType of 'Z_(Z.to_nat q)] (to_Z a).

Definition small (a : word) : bool := (a <? p)%uint63.

Definition fma (u r a : word) : word := ((u * r + a) mod p)%uint63.

Fixpoint dotm (a : word) (u v : seq word) : word :=
  match u, v with x :: u', y :: v' => dotm (fma x y a) u' v' | _, _ => a end.

Definition residue (z : Z) : word := of_Z (Z.modulo z q).

Hypothesis p_ok : modulus_ok.

Lemma q_bounds : (1 < q < 2147483648)%BZ.
Proof. by case/andP: p_ok => /ltb_spec p1 /ltb_spec p2; split. Qed.

Lemma q_0 : er S q = 0.
Proof.
have := q_bounds; rewrite /er => -[q1 _].
have -> : int_of_Z q = Z.to_nat q :> int.
  by rewrite /q in q1 *; case: (to_Z p) q1 => [|r|r] //= _; congr (Posz _).
rewrite -pmulrn; apply: char_Zp; apply/ssrnat.ltP.
by change 1%N with (Z.to_nat 1); apply/Z2Nat.inj_lt => //; lia.
Qed.

Lemma er_mod z : er S (Z.modulo z q) = er S z.
Proof.
rewrite [in RHS](Z_div_mod_eq_full z q) erD erM q_0 mul0r add0r //.
Qed.

Lemma smallP a : small a -> (0 <= to_Z a < q)%BZ.
Proof. by move/ltb_spec => lt; have [? _] := to_Z_bounded a. Qed.

Lemma small_mod a : small (a mod p).
Proof.
apply/ltb_spec; rewrite mod_spec; have := q_bounds; rewrite /q => b.
by have := Z.mod_pos_bound (to_Z a) (to_Z p); lia.
Qed.

Lemma small0 : small 0.
Proof. by apply/ltb_spec; have := q_bounds; rewrite /q to_Z_0; lia. Qed.

Lemma fma_small u r a : small (fma u r a).
Proof. exact: small_mod. Qed.

Lemma fmaE u r a : small u -> small r -> small a -> eu (fma u r a) = eu u * eu r + eu a.
Proof.
move=> /smallP su /smallP sr /smallP sa; have qb := q_bounds.
rewrite /eu /fma mod_spec er_mod add_spec mul_spec -erM -erD.
have mb : (0 <= to_Z u * to_Z r <= 2147483647 * 2147483647)%BZ by nia.
have wBE : wB = 9223372036854775808%BZ by [].
rewrite (Z.mod_small (to_Z u * to_Z r)); last by rewrite wBE; lia.
by rewrite Z.mod_small //; rewrite wBE; lia.
Qed.

Lemma eu0 : eu 0 = 0. Proof. by rewrite /eu to_Z_0 er0. Qed.
Lemma eu1 : eu 1 = 1. Proof. by rewrite /eu to_Z_1 er1. Qed.

Lemma residueE z : eu (residue z) = er _ z.
Proof.
rewrite /eu /residue of_Z_spec Z.mod_small; first exact: er_mod.
have := q_bounds => qb; have := Z.mod_pos_bound z q.
have wBE : wB = 9223372036854775808%BZ by [].
by rewrite wBE; lia.
Qed.

Lemma residue_small z : small (residue z).
Proof.
have qb := q_bounds; have zb := Z.mod_pos_bound z q.
have wBE : wB = 9223372036854775808%BZ by [].
apply/ltb_spec; rewrite /residue of_Z_spec Z.mod_small -/q; lia.
Qed.

Lemma dotmE a u v : all small u -> all small v -> small a -> size u = size v ->
  eu (dotm a u v) = eu a + \sum_(k < size u) eu (nth 0%uint63 u k) * eu (nth 0%uint63 v k).
Proof.
elim: u v a => [|x u IH] [|y v] a //=; first by rewrite big_ord0 addr0.
move=> /andP[sx su] /andP[sy sv] sa [suv]; rewrite IH ?fma_small // fmaE // big_ord_recl /=.
by rewrite addrCA addrA.
Qed.

(* A B^T = 1 *)
Definition square (r : nat) (A : ints) : bool :=
  (size A == r) && all (fun a => (size a == r) && all small a) A.

Definition inverse_ok (r : nat) (A B : ints) : bool :=
  [&& square r A, square r B & all (fun ia => all (fun jb =>
    (dotm 0 ia.2 jb.2 =? (if ia.1 == jb.1 then 1 else 0))%uint63)
      (zip (iota 0 r) B)) (zip (iota 0 r) A)].

Lemma square_row r A (i : 'I_r) : square r A -> size (nth [::] A i) = r /\ all small (nth [::] A i).
Proof. by case/andP=> /eqP sA /(all_nthP [::])/(_ i); rewrite sA => /(_ (ltn_ord i))/andP[/eqP]. Qed.

Lemma all_zip_iota r (P : nat -> seq word -> bool) (A : ints) : size A = r ->
  all (fun ia => P ia.1 ia.2) (zip (iota 0 r) A) -> forall i : 'I_r, P i (nth [::] A i).
Proof.
move=> sA /(all_nthP (0%N, [::])) ok i; have := ok i.
by rewrite size_zip size_iota sA minnn ltn_ord nth_zip ?size_iota // nth_iota // => ->.
Qed.

Lemma inverse_okP r A B : inverse_ok r A B ->
  forall i j : 'I_r, \sum_(k < r) eu (entry A i k) * eu (entry B j k) = (i == j)%:R.
Proof.
case/and3P=> okA okB ok i j; have [sA uA] := square_row i okA; have [sB uB] := square_row j okB.
pose P i a j b := (dotm 0 a b =? (if i == j :> nat then 1 else 0))%uint63.
have ok_i := @all_zip_iota r (fun i a => all (fun jb => P i a jb.1 jb.2) (zip (iota 0 r) B)) A
  (eqP (proj1 (andP okA))) ok i.
have /eqb_spec E := all_zip_iota (eqP (proj1 (andP okB))) ok_i j.
have := dotmE uA uB small0 (etrans sA (esym sB)); rewrite E eu0 add0r sA => <-.
by rewrite -[val i == val j]/(i == j); case: (i == j); rewrite ?eu0 ?eu1.
Qed.

(* Ranks over R of entries in a ring A that R contains and that has a map to  *)
(* Z/p: the integers, or the polynomials in a transcendental number.          *)
Variables (R : realFieldType) (A : comRingType).
Variables (phi : {rmorphism A -> 'Z_(Z.to_nat q)}) (iota : {rmorphism A -> R}).
Hypothesis iota_inj : injective iota.

Lemma minor_rank r m n (E : 'I_m -> 'I_n -> A) (f : 'I_r -> 'I_m) (g : 'I_r -> 'I_n) (Ep B : ints) :
  inverse_ok r Ep B -> (forall i k : 'I_r, eu (entry Ep i k) = phi (E (f i) (g k))) ->
  (r <= \rank (\matrix_(i, j) iota (E i j)))%N.
Proof.
move=> /inverse_okP inv EpE; apply: leq_trans (rank_mxsub f g _).
set C : 'M[A]_r := \matrix_(i, j) E (f i) (g j).
have CE : mxsub f g (\matrix_(i, j) iota (E i j)) = map_mx iota C by apply/matrixP => i j; rewrite !mxE.
suff dC : \det C != 0.
  rewrite CE; suff : row_free (map_mx iota C) by rewrite /row_free => /eqP ->.
  by rewrite row_free_unit unitmxE det_map_mx unitfE -(rmorph0 iota) (inj_eq iota_inj).
have E1 : map_mx phi C *m (\matrix_(k, j) eu (entry B j k)) = 1%:M :> 'M[S]_r.
  apply/matrixP => i j; rewrite !mxE -inv.
  by apply: eq_bigr => k _; rewrite !mxE EpE.
apply/eqP => d0; have := congr1 determinant E1.
rewrite det_mulmx (det_map_mx phi) d0 rmorph0 mul0r det1 => /eqP.
by rewrite eq_sym oner_eq0.
Qed.

(* Row i of Ep is the residues of row i of an r x n matrix over A. *)
Definition minor_ok (r n : nat) (Ep : ints) (columns : seq nat) (B : ints) : bool :=
  [&& all (fun j => j < n)%N columns, size columns == r &
      inverse_ok r [seq [seq nth 0%uint63 a j | j <- columns] | a <- Ep] B].

Lemma minor_columns r n (E : 'I_r -> 'I_n -> A) Ep columns B :
  minor_ok r n Ep columns B -> (forall (i : 'I_r) (j : 'I_n), eu (entry Ep i j) = phi (E i j)) ->
  (r <= \rank (\matrix_(i, j) iota (E i j)))%N.
Proof.
case/and3P=> /allP lt_n /eqP sc inv EpE.
have [r0|r_gt0] := posnP r; first by apply: (@leq_trans 0); rewrite ?r0.
have n_gt0 : (0 < n)%N by apply: leq_ltn_trans (lt_n (nth 0%N columns 0) _); rewrite ?mem_nth ?sc.
pose g (k : 'I_r) : 'I_n := insubd (Ordinal n_gt0) (nth 0%N columns k).
have gE k : (g k : nat) = nth 0%N columns k by rewrite val_insubd lt_n // mem_nth ?sc.
apply: (minor_rank (f := id) (g := g) inv) => i k.
have sE : size Ep = r by case/and3P: inv => /andP[/eqP]; rewrite size_map.
rewrite /entry (nth_map [::]) ?sE // (nth_map 0%N) ?sc // -gE.
exact: EpE.
Qed.

End Modulus.
