(******************************************************************************)
(* The system of degree three by computation: docs/theory.md, Appendix L3.    *)
(*                                                                            *)
(*   coefr, coefp    the coefficient of a monomial in x_i e_j, in a ring and  *)
(*                   in residues; P and Q are the two factors of e_j          *)
(*   codes3          all monomials as sorted triples of unknowns              *)
(*   rank_cubic_ok   a minor with an inverse gives the rank of L3             *)
(******************************************************************************)
From Coq Require Import ZArith Uint63.
From mathcomp Require Import all_ssreflect all_algebra ssrZ.
From Exan Require Import linalg lifting cubic modular residues.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.

(* Columns times non-zero factors keep the rank. *)
Lemma rank_scaled (F : fieldType) m n (t : 'I_n -> F) (B : 'I_m -> 'I_n -> F) : (forall j, t j != 0) ->
  \rank (\matrix_(i, j) (t j * B i j)) = \rank (\matrix_(i, j) B i j).
Proof.
move=> t0; have -> : \matrix_(i, j) (t j * B i j) = (\matrix_(i, j) B i j) *m diag_mx (\row_j t j).
  by apply/matrixP => i j; rewrite mul_mx_diag !mxE mulrC.
rewrite mxrankMfree // row_free_unit unitmxE det_diag unitfE prodf_seq_neq0.
by apply/allP => j _; rewrite mxE t0.
Qed.

Lemma rank_scaled_rows (F : fieldType) m n (t : 'I_m -> F) (B : 'I_m -> 'I_n -> F) : (forall i, t i != 0) ->
  \rank (\matrix_(i, j) (t i * B i j)) = \rank (\matrix_(i, j) B i j).
Proof.
move=> t0; rewrite -mxrank_tr -[RHS]mxrank_tr.
have -> : (\matrix_(i, j) (t i * B i j))^T = \matrix_(j, i) (t i * B i j) by apply/matrixP => i j; rewrite !mxE.
by rewrite (rank_scaled (fun j i => B i j) t0); congr mxrank; apply/matrixP => i j; rewrite !mxE.
Qed.

Notation triple := (nat * nat * nat)%type.

Definition coefr (A : ringType) (P Q : nat -> A) (i : nat) (t : triple) : A :=
  let: (x, y, z) := t in
  let two u v := P u * Q v + (if u == v then 0 else P v * Q u) in
  if i == x then two y z else if i == y then two x z else if i == z then two x y else 0.

Definition coefp (p : word) (P Q : seq word) (i : nat) (t : triple) : word :=
  let: (x, y, z) := t in
  let at_ (s : seq word) u := nth 0%uint63 s u in
  let two u v := fma p (at_ P u) (at_ Q v) (if u == v then 0%uint63 else fma p (at_ P v) (at_ Q u) 0%uint63) in
  if i == x then two y z else if i == y then two x z else if i == z then two x y else 0%uint63.

Section Pairs.

Variables (F : fieldType) (N : nat).

Lemma perm_two (T : eqType) (a b u v : T) :
  perm_eq [:: a; b] [:: u; v] = ((a == u) && (b == v)) || ((a == v) && (b == u)).
Proof.
have one (c d : T) : perm_eq [:: c] [:: d] = (c == d).
  by apply/idP/eqP => [/perm_small_eq -/(_ isT) [] | ->].
have swap : perm_eq [:: a; b] [:: u; v] = perm_eq [:: a; b] [:: v; u].
  by have /permPr -> // : perm_eq [:: u; v] [:: v; u]; rewrite (perm_catC [:: u] [:: v]).
have [-> /=|au] := eqVneq a u.
  rewrite perm_cons one ?eqxx; have [//|bv] := eqVneq b v.
  by apply/esym/negP => /andP[/eqP uv /eqP bu]; rewrite bu uv eqxx in bv.
rewrite /= swap; have [-> /=|av] := eqVneq a v; first by rewrite perm_cons one.
by apply/negP => /perm_mem/(_ a); rewrite !inE eqxx (negPf au) (negPf av).
Qed.

Lemma sum_one (f : 'I_N -> 'I_N -> F) u v : \sum_a \sum_b f a b *+ ((a == u) && (b == v)) = f u v.
Proof.
rewrite (bigD1 u) //= (bigD1 v) //= !eqxx mulr1n big1 => [|b /negPf ->]; last by rewrite mulr0n.
rewrite addr0 big1 ?addr0 // => a /negPf au; rewrite big1 // => b _.
by rewrite au mulr0n.
Qed.

Lemma sum_two (f : 'I_N -> 'I_N -> F) u v :
  \sum_a \sum_b f a b *+ perm_eq [:: a; b] [:: u; v] = f u v + (if u == v then 0 else f v u).
Proof.
under eq_bigr => a _ do under eq_bigr => b _ do rewrite perm_two.
have [<-|uv] := eqVneq u v.
  by under eq_bigr => a _ do under eq_bigr => b _ do rewrite orbb; rewrite sum_one addr0.
rewrite -[f u v]sum_one -[f v u]sum_one -big_split; apply: eq_bigr => a _.
rewrite -big_split; apply: eq_bigr => b _ /=; rewrite -mulrnDr; congr (_ *+ _).
have [->|//] := eqVneq a u; rewrite (negPf uv) /=.
by case: (b == v).
Qed.

End Pairs.

Section Coefficients.

Variables (R : realFieldType) (n m k : nat).
Variables (p : word) (p_ok : modulus_ok p).
Variables (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R}).
Hypothesis iota_inj : injective iota.

Notation N := (m.+1 + k)%N.

Definition triple_ok (t : triple) : bool := let: (x, y, z) := t in [&& x <= y, y <= z, z < N & x < m.+1]%N.

Lemma coef3_ring (S : nat -> R) (P Q : nat -> nat -> A) (Am Bm : 'M[R]_(n, N)) (j : 'I_n) (i : 'I_N)
    (t : mono3 m.+1 k) (x y z : 'I_N) : (forall a, S a != 0) -> val t = [tuple x; y; z] ->
  (forall a : 'I_N, Am j a = S a * iota (P j a)) -> (forall a : 'I_N, Bm j a = S a * iota (Q j a)) ->
  coef3 Am Bm (j, i) t = (S x * S y * S z) * ((S i)^-1 * iota (coefr (P j) (Q j) i (x : nat, y : nat, z : nat))).
Proof.
move=> S0 tE AmE BmE; rewrite /coef3 /=.
have sorted_t : sorted (@by_index m.+1 k) [:: x; y; z].
  by have := valP t; rewrite /divisible tE => /andP[].
have permE a b : (sorted3 a b i == val t) = perm_eq [:: a; b; i] [:: x; y; z].
  rewrite -val_eqE tE /= -[X in _ == X](sorted_sort (@by_index_trans m.+1 k) sorted_t).
  apply/eqP/idP => [/perm_sortP|E].
    by apply; [exact: by_index_total | exact: by_index_trans | move=> u v /anti_leq/val_inj].
  by apply/perm_sortP; rewrite // ?E; [exact: by_index_total | exact: by_index_trans | move=> u v /anti_leq/val_inj].
have front a b : perm_eq [:: a; b; i] [:: x; y; z] = perm_eq [:: i; a; b] [:: x; y; z].
  by have /permPl -> // : perm_eq [:: a; b; i] [:: i; a; b]; rewrite (perm_catC [:: a; b] [:: i]).
under eq_bigr => a _ do under eq_bigr => b _ do rewrite permE front AmE BmE.
have two (u v : 'I_N) : \sum_(a < N) \sum_(b < N) (S a * iota (P j a) * (S b * iota (Q j b))) *+ perm_eq [:: a; b] [:: u; v] =
    S u * S v * iota (P j u * Q j v + (if u == v :> nat then 0 else P j v * Q j u)).
  rewrite sum_two rmorphD rmorphM mulrDr val_eqE mulrACA; congr (_ + _).
  case: (u == v); first by rewrite rmorph0 mulr0.
  by rewrite rmorphM mulrACA [S v * S u]mulrC.
have cancel (s c e : R) : s != 0 -> s * c * (s^-1 * e) = c * e.
  by move=> s0; rewrite mulrACA mulfV // mul1r.
rewrite /coefr !val_eqE; have [->|ix] := eqVneq i x.
  under eq_bigr => a _ do under eq_bigr => b _ do rewrite perm_cons.
  by rewrite two -[S x * S y * S z]mulrA cancel.
have [->|iy] := eqVneq i y.
  have swap a b : perm_eq [:: y; a; b] [:: x; y; z] = perm_eq [:: a; b] [:: x; z].
    by rewrite -[RHS](perm_cons y); have /permPr -> // : perm_eq [:: x; y; z] [:: y; x; z]; rewrite (perm_catCA [:: x] [:: y] [:: z]).
  under eq_bigr => a _ do under eq_bigr => b _ do rewrite swap.
  by rewrite two [S x * S y]mulrC -[S y * S x * S z]mulrA cancel.
have [->|iz] := eqVneq i z.
  have swap a b : perm_eq [:: z; a; b] [:: x; y; z] = perm_eq [:: a; b] [:: x; y].
    by rewrite -[RHS](perm_cons z); have /permPr -> // : perm_eq [:: x; y; z] [:: z; x; y]; rewrite (perm_catC [:: x; y] [:: z]).
  under eq_bigr => a _ do under eq_bigr => b _ do rewrite swap.
  by rewrite two [S x * S y * S z]mulrC cancel.
rewrite rmorph0 !mulr0 big1 // => a _; rewrite big1 // => b _.
case: (boolP (perm_eq _ _)) => // /perm_mem/(_ i); rewrite !inE eqxx (negPf ix) (negPf iy) (negPf iz).
by [].
Qed.

Lemma coefpE (P Q : nat -> A) (u v : seq word) (i : nat) t : triple_ok t ->
  (forall a, (a < N)%N -> small p (nth 0%uint63 u a) /\ eu p (nth 0%uint63 u a) = phi (P a)) ->
  (forall a, (a < N)%N -> small p (nth 0%uint63 v a) /\ eu p (nth 0%uint63 v a) = phi (Q a)) ->
  eu p (coefp p u v i t) = phi (coefr P Q i t).
Proof.
case: t => -[x y] z /and4P[xy yz zN _] uE vE.
have yN := leq_ltn_trans yz zN; have xN := leq_ltn_trans xy yN.
have two b c : (b < N)%N -> (c < N)%N ->
    eu p (fma p (nth 0%uint63 u b) (nth 0%uint63 v c)
      (if b == c then 0%uint63 else fma p (nth 0%uint63 u c) (nth 0%uint63 v b) 0)) =
    phi (P b * Q c + (if b == c then 0 else P c * Q b)).
  move=> bN cN; have [sb bE] := uE b bN; have [sc cE] := vE c cN; have [sc' cE'] := uE c cN; have [sb' bE'] := vE b bN.
  rewrite rmorphD rmorphM fmaE //; last by case: ifP; rewrite ?small0 ?fma_small.
  by rewrite bE cE; case: (b == c); rewrite ?eu0 ?rmorph0 // fmaE ?small0 // eu0 addr0 rmorphM cE' bE'.
rewrite /coefp /coefr; case: (i == x); first exact: two.
case: (i == y); first exact: two.
by case: (i == z); [exact: two | rewrite eu0 rmorph0].
Qed.

End Coefficients.

Section Rank.

Variables (R : realFieldType) (n m k : nat).
Variables (p : word) (p_ok : modulus_ok p).
Variables (A : comRingType) (phi : {rmorphism A -> 'Z_(Z.to_nat (to_Z p))}) (iota : {rmorphism A -> R}).
Hypothesis iota_inj : injective iota.

Notation N := (m.+1 + k)%N.

(* All monomials, and those but at the positions dropped. *)
Definition codes3 : seq triple :=
  [seq (xy.1, xy.2, z) | xy <- [seq (x, y) | x <- seq.iota 0 m.+1, y <- seq.iota x (N - x)], z <- seq.iota xy.2 (N - xy.2)].

Definition codes3_but (dropped : seq nat) : seq triple :=
  let all := codes3 in [seq it.2 | it <- zip (seq.iota 0 (size all)) all & it.1 \notin dropped].

Definition triple_of (t : mono3 m.+1 k) : triple :=
  let s := map (@nat_of_ord N) (tval (val t)) in (nth 0%N s 0, nth 0%N s 1, nth 0%N s 2).

Lemma mono3E (t : mono3 m.+1 k) : exists x y z : 'I_N, val t = [tuple x; y; z].
Proof.
case: t => -[[|x [|y [|z [|]]]] // s] d; exists x, y, z.
by apply: val_inj.
Qed.

Lemma triple_of_ok t : triple_ok m k (triple_of t).
Proof.
have [x [y [z tE]]] := mono3E t; have := valP t; rewrite /divisible /triple_of tE /= /by_index.
by case/andP=> /and3P[-> -> _] ->; rewrite ltn_ord.
Qed.

Lemma mem_codes3 t : triple_ok m k t -> t \in codes3.
Proof.
case: t => -[x y] z /and4P[xy yz zN xm]; have yN := leq_ltn_trans yz zN.
rewrite /codes3; apply/allpairsPdep; exists (x, y), z; split=> //; last by rewrite mem_iota [(x, y).2]/= yz subnKC // ltnW.
by apply/allpairsPdep; exists x, y; rewrite !mem_iota xy subnKC // ltnW // (leq_ltn_trans xy).
Qed.

Lemma card_mono3 : (#|mono3 m.+1 k| <= size codes3)%N.
Proof.
rewrite cardE -(size_map triple_of); apply: uniq_leq_size => [|t /mapP[u _ ->]]; last exact/mem_codes3/triple_of_ok.
rewrite map_inj_uniq ?enum_uniq // => t t'.
have [x [y [z tE]]] := mono3E t; have [x' [y' [z' tE']]] := mono3E t'.
rewrite /triple_of tE tE' /= => -[/val_inj ex /val_inj ey /val_inj ez].
by apply: val_inj; rewrite tE tE' ex ey ez.
Qed.

Let o : 'I_N := lshift k ord0.
Let o_lt : (o < m.+1)%N. Proof. by []. Qed.

Definition monomial3 (t : triple) : mono3 m.+1 k :=
  let: (x, y, z) := t in
  insubd (Sub _ (divisible_sorted3 o o o_lt)) [tuple insubd o x; insubd o y; insubd o z].

Lemma monomial3E x y z : triple_ok m k (x, y, z) ->
  val (monomial3 (x, y, z)) = [tuple insubd o x; insubd o y; insubd o z] /\
  [/\ (insubd o x : nat) = x, (insubd o y : nat) = y & (insubd o z : nat) = z].
Proof.
case/and4P=> xy yz zN xm; have yN := leq_ltn_trans yz zN; have xN := leq_ltn_trans xy yN.
have E w : (w < N)%N -> (insubd o w : nat) = w by move=> wN; rewrite val_insubd wN.
split; last by rewrite !E.
by rewrite val_insubd /divisible /= /by_index !E // xy yz xm.
Qed.

(* free: the dimension that the null space may have. *)
Definition cubic_ok (free : nat) (neurons equations : seq nat) (codes : seq triple) (u v : seq (seq word)) (inv : ints) : bool :=
  [&& all (fun j => j < n)%N neurons, all (fun i => i < N)%N equations && (size equations == size neurons),
      all (triple_ok m k) codes && (size codes == size neurons), (size codes3 <= size neurons + free)%N &
      inverse_ok p (size neurons)
        [seq [seq coefp p iuv.2.1 iuv.2.2 iuv.1 t | t <- codes] | iuv <- zip equations (zip u v)] inv].

Lemma rank_cubic_ok (S : nat -> R) (P Q : nat -> nat -> A) free neurons equations codes u v inv :
  (forall a, S a != 0) -> cubic_ok free neurons equations codes u v inv ->
  size u = size neurons -> size v = size neurons ->
  (forall i, (i < size neurons)%N -> let j := nth 0%N neurons i in
    (forall a, (a < N)%N -> small p (entry u i a) /\ eu p (entry u i a) = phi (P j a)) /\
    (forall a, (a < N)%N -> small p (entry v i a) /\ eu p (entry v i a) = phi (Q j a))) ->
  forall (B : 'M[R]_(n, m.+1)) (V : 'M[R]_(n, k)),
  (forall (j : 'I_n) (a : 'I_N), row_mx B (0 : 'M_(n, k)) j a = S a * iota (P j a)) ->
  (forall (j : 'I_n) (a : 'I_N), row_mx B (- V) j a = S a * iota (Q j a)) ->
  (#|mono3 m.+1 k| - free <= \rank (cubic B V))%N.
Proof.
move=> S0 /and5P[/allP lt_n /andP[/allP lt_N /eqP se] /andP[/allP okc /eqP sc] enough inv_ok] su sv uvE B V BE VE.
set r := size neurons in se sc enough inv_ok su sv uvE.
apply: (@leq_trans r); first by rewrite leq_subLR addnC (leq_trans card_mono3).
have [->|r_gt0] := posnP r; first by [].
have n_gt0 : (0 < n)%N by apply: leq_ltn_trans (lt_n (nth 0%N neurons 0) _); rewrite ?mem_nth.
pose fj (i : 'I_r) : 'I_n := insubd (Ordinal n_gt0) (nth 0%N neurons i).
have fjE i : (fj i : nat) = nth 0%N neurons i by rewrite val_insubd lt_n // mem_nth.
pose fi (i : 'I_r) : 'I_N := insubd o (nth 0%N equations i).
have fiE i : (fi i : nat) = nth 0%N equations i by rewrite val_insubd lt_N // mem_nth ?se.
pose t0 : triple := (0%N, 0%N, 0%N); pose g (i : 'I_r) := nth t0 codes i.
have okg i : triple_ok m k (g i) by apply: okc; rewrite mem_nth ?sc.
apply: leq_trans (rank_mxsub (fun i => enum_rank (fj i, fi i)) (fun i => enum_rank (monomial3 (g i))) (cubic B V)).
pose factor (t : triple) : R := let: (x, y, z) := t in S x * S y * S z.
have -> : mxsub (fun i => enum_rank (fj i, fi i)) (fun i => enum_rank (monomial3 (g i))) (cubic B V) =
    \matrix_(i < r, l < r) (factor (g l) * ((S (fi i))^-1 * iota (coefr (P (fj i)) (Q (fj i)) (fi i) (g l)))).
  apply/matrixP => i l; rewrite !mxE /cubic_coef !enum_rankK.
  have := okg l; case: (g l) => -[x y] z ok; have [tE [ex ey ez]] := monomial3E ok.
  by rewrite (coef3_ring (fi i) S0 tE (BE (fj i)) (VE (fj i))) ex ey ez.
rewrite (rank_scaled (t := fun l => factor (g l))
  (fun i l => (S (fi i))^-1 * iota (coefr (P (fj i)) (Q (fj i)) (fi i) (g l)))); last first.
  by move=> l; case: (g l) => -[x y] z; rewrite !mulf_neq0.
rewrite (rank_scaled_rows (t := fun i => (S (fi i))^-1)
  (fun i l => iota (coefr (P (fj i)) (Q (fj i)) (fi i) (g l)))); last by move=> i; rewrite invr_neq0.
apply: (minor_rank p_ok (phi := phi) iota_inj (E := fun i l => coefr (P (fj i)) (Q (fj i)) (fi i) (g l)) (f := id) (g := id) inv_ok) => i l.
have suv : size (zip u v) = r by rewrite size_zip su sv minnn.
have siuv : size (zip equations (zip u v)) = r by rewrite size_zip se suv minnn.
rewrite /entry (nth_map (0%N, ([::], [::]))) ?siuv // (nth_map t0) ?sc // nth_zip ?se ?suv // nth_zip ?su ?sv //=.
rewrite fiE fjE; have [uE vE] := uvE i (ltn_ord i).
exact: (@coefpE m k p p_ok A phi (P (nth 0%N neurons i)) (Q (nth 0%N neurons i)) _ _ _ _ (okg l) uE vE).
Qed.

End Rank.
