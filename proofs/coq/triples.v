(******************************************************************************)
(* Lifting of degree three for samples in groups that share the layer's       *)
(* pattern: docs/theory.md, Appendix L3.                                      *)
(*                                                                            *)
(*   triples gr      sorted triples of samples of one group                   *)
(*   card_triples    there are sum of binom(s_k + 2, 3) of them               *)
(*   L3_group_candidates   every candidate lies in the span of one group      *)
(*   L3_column       so does a column of Q^-1, and the next delta with it     *)
(*   L3_groups       C2's conclusion: block diagonal, the samples alone in    *)
(*                   their group are determined                               *)
(*   group_rank, group_column   the same by degree two or by degree three     *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting cubic exact groups.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

(* The k-th element of a set has k elements up to it.                         *)
Lemma sum_ranks M (S : {set 'I_M}) (F : nat -> nat) :
  (\sum_(b in S) F #|[set a in S | (a <= b)%N]| = \sum_(k < #|S|) F k.+1)%N.
Proof.
move: {2}#|S| (erefl #|S|) => n; elim: n S => [|n IH] S sS.
  by rewrite sS (cards0_eq sS) big_set0 big_ord0.
have /card_gt0P[b0 b0S] : (0 < #|S|)%N by rewrite sS.
case: (arg_maxnP (fun b : 'I_M => b : nat) b0S) => c inS cmax; have cS : c \in S := inS.
have sS' : #|S :\ c| = n by move: sS; rewrite (cardsD1 c) cS add1n => -[].
have IHS := IH _ sS'; rewrite sS' in IHS.
rewrite (bigD1 c cS) /= sS big_ord_recr /= addnC -IHS; congr (_ + F _)%N.
  apply: eq_big => [b|b /andP[bS bc]]; first by rewrite in_setD1 andbC.
  congr F; apply: eq_card => a; rewrite !inE; have [->|//] := eqVneq a c.
  have le_bc : (b <= c)%N := cmax b bS.
  by rewrite leqNgt ltn_neqAle le_bc andbT val_eqE bc andbF.
rewrite -sS; apply: eq_card => a; rewrite !inE; case aS: (a \in S) => //=; exact: (cmax a aS).
Qed.

Lemma sum_ranks2 n : (\sum_(k < n) k.+1 = 'C(n.+1, 2))%N.
Proof. by elim: n => [|n IH]; rewrite ?big_ord0 // big_ord_recr /= IH [RHS]binS bin1. Qed.

Lemma sum_ranks3 n : (\sum_(k < n) 'C(k.+2, 2) = 'C(n.+2, 3))%N.
Proof. by elim: n => [|n IH]; rewrite ?big_ord0 // big_ord_recr /= IH [RHS]binS. Qed.

Section Triples.

Variables (M : nat) (I : finType) (gr : 'I_M -> I).

Definition ordered (t : 'I_M * 'I_M * 'I_M) : bool :=
  [&& (t.1.1 <= t.1.2)%N, (t.1.2 <= t.2)%N, gr t.1.1 == gr t.1.2 & gr t.1.2 == gr t.2].

Definition triples : finType := [finType of {t : 'I_M * 'I_M * 'I_M | ordered t}].

Lemma card_triples : #|triples| = (\sum_i 'C(#|[set m | gr m == i]| + 2, 3))%N.
Proof.
rewrite card_sig -sum1_card (partition_big (fun t => gr t.2) xpredT) //=; apply: eq_bigr => i _.
set S := [set m | gr m == i]; rewrite addn2 -sum_ranks3 -(sum_ranks S (fun k => 'C(k.+1, 2))).
rewrite (eq_bigl (fun t : 'I_M * 'I_M * 'I_M => [&& t.2 \in S, (t.1.2 \in S) && (t.1.2 <= t.2)%N &
    (t.1.1 \in S) && (t.1.1 <= t.1.2)%N])); last first.
  case=> -[a b] c; rewrite /ordered !inE /=; have [ci|_] := eqVneq (gr c) i; last by rewrite andbF.
  rewrite ci; have [->|_] := eqVneq (gr b) i; last by rewrite !andbF.
  by case: (a <= b)%N; case: (b <= c)%N; case: (gr a == i).
rewrite big_mkcond /= -(pair_bigA _ (fun ab c => if [&& c \in S, (ab.2 \in S) && (ab.2 <= c)%N & (ab.1 \in S) && (ab.1 <= ab.2)%N] then 1%N else 0%N)) /=.
rewrite exchange_big /= [RHS]big_mkcond; apply: eq_bigr => c _.
rewrite -(pair_bigA _ (fun a b => if [&& c \in S, (b \in S) && (b <= c)%N & (a \in S) && (a <= b)%N] then 1 else 0)%N) /=.
case: ifP => cS /=; last by rewrite big1 // => a _; rewrite big1.
rewrite exchange_big /= -sum_ranks2 -(sum_ranks [set a in S | (a <= c)%N] id) [RHS]big_mkcond /=; apply: eq_bigr => b _.
have -> : (b \in [set a in S | (a <= c)%N]) = (b \in S) && (b <= c)%N by rewrite in_set.
case: ifP => bS /=; last by rewrite big1.
rewrite -big_mkcond sum1dep_card; apply: eq_card => a; rewrite !in_set.
case: (gr a == i) => //=; case ab: (a <= b)%N; rewrite ?andbF //=.
by case/andP: bS => _ bc; rewrite (leq_trans ab bc).
Qed.

End Triples.

(* In how many of their orders three indices are three others.                *)
Definition matches (T : eqType) (a b c x y z : T) : nat :=
  ([&& a == x, b == y & c == z] + [&& a == x, c == y & b == z] + [&& b == x, a == y & c == z] +
   [&& b == x, c == y & a == z] + [&& c == x, a == y & b == z] + [&& c == x, b == y & a == z])%N.

Lemma matches_sorted (a b c x y z : nat) : (a <= b <= c)%N -> (x <= y <= z)%N ->
  (0 < matches a b c x y z)%N = [&& a == x, b == y & c == z].
Proof.
move=> /andP[ab bc] /andP[xy yz]; case E: [&& a == x, b == y & c == z]; rewrite /matches E; first by [].
have no (u v w : nat) : [&& u == x, v == y & w == z] -> perm_eq [:: u; v; w] [:: a; b; c] -> false.
  move=> /and3P[/eqP -> /eqP -> /eqP ->] /perm_sortP s; rewrite -E.
  have sorted_eq : sort leq [:: x; y; z] = sort leq [:: a; b; c].
    by apply: s => [u1 v1|u1 v1 w1|u1 v1]; [exact: leq_total | exact: leq_trans | exact: anti_leq].
  move: sorted_eq; rewrite !sorted_sort /= ?ab ?bc ?xy ?yz //; try exact: leq_trans.
  by move=> [-> -> ->]; rewrite !eqxx.
have zero (u v w : nat) : perm_eq [:: u; v; w] [:: a; b; c] -> [&& u == x, v == y & w == z] = false.
  by move=> uvw; apply/negP => /no/(_ uvw).
have p1 : perm_eq [:: a; c; b] [:: a; b; c] by rewrite perm_cons (perm_catC [:: c] [:: b]).
have p2 : perm_eq [:: b; a; c] [:: a; b; c] by rewrite (perm_catCA [:: b] [:: a] [:: c]).
have p3 : perm_eq [:: b; c; a] [:: a; b; c] by rewrite (perm_catC [:: b; c] [:: a]).
have p4 : perm_eq [:: c; a; b] [:: a; b; c] by rewrite (perm_catC [:: c] [:: a; b]).
have p5 : perm_eq [:: c; b; a] [:: a; b; c].
  by apply: perm_trans p4; rewrite perm_cons (perm_catC [:: b] [:: a]).
by rewrite !zero.
Qed.

Section Candidates.

Variables (R : realFieldType) (n M k : nat) (I : finType) (gr : 'I_M -> I).
Variables (B : 'M[R]_(n, M)) (V : 'M[R]_(n, k)) (P0 : 'M[R]_(k, M)).
Variable on : 'I_n -> 'I_M -> bool.

Hypothesis BE : forall j m, B j m = if on j m then (V *m P0) j m else 0.
Hypothesis shared : forall j a b, gr a = gr b -> on j a = on j b.

(* Everything in the span of a group is a candidate. *)
Lemma group_cand (q : 'cV[R]_M) i : (forall a, gr a != i -> q a 0 = 0) -> cand B V q (P0 *m q).
Proof.
move=> off j; rewrite mulmxA; have [m /eqP mi|none] := pickP (fun m => gr m == i); last first.
  left; rewrite mxE big1 // => a _; rewrite [q a 0]off ?mulr0 //.
  by rewrite none.
have entry a : B j a * q a 0 = if on j m then (V *m P0) j a * q a 0 else 0.
  have [ai|ai] := eqVneq (gr a) i; last by rewrite off // !mulr0 if_same.
  by rewrite BE (shared j (b := m)) ?ai //; case: ifP => // _; rewrite mul0r.
case E : (on j m) entry => entry; [right | left]; rewrite [LHS]mxE.
  by rewrite [RHS]mxE; apply: eq_bigr => a _; exact: entry.
by rewrite big1.
Qed.

Let cub (q : 'cV[R]_M) : mono3 M k -> R := evq q (P0 *m q).
Let e (m : 'I_M) : 'cV[R]_M := delta_mx m 0.

(* The polarised cube of three samples.                                       *)
Definition mixed3 (t : triples gr) (u : mono3 M k) : R :=
  let: (a, b, c) := val t in
  cub (e a + e b + e c) u - cub (e a + e b) u - cub (e a + e c) u - cub (e b + e c) u +
  cub (e a) u + cub (e b) u + cub (e c) u.

Lemma solvesD (T : finType) r (c : 'I_r -> T -> R) u v : solves c u -> solves c v -> solves c (fun t => u t + v t).
Proof.
by move=> su sv j; under eq_bigr => t _ do rewrite mulrDl; rewrite big_split /= su sv addr0.
Qed.

Lemma solvesN (T : finType) r (c : 'I_r -> T -> R) u : solves c u -> solves c (fun t => - u t).
Proof. by move=> su j; under eq_bigr => t _ do rewrite mulNr; rewrite sumrN su oppr0. Qed.

Lemma mixed3_solves t : solves (cubic_coef B V) (mixed3 t).
Proof.
rewrite /mixed3; case: t => -[[a b] c] /= /and4P[_ _ /eqP ab /eqP bc].
pose ins (q : 'cV[R]_M) := forall m, gr m != gr a -> q m 0 = 0.
have at_ q : ins q -> solves (cubic_coef B V) (cub q).
  by move=> off; apply: cand_cubic; apply: group_cand off.
have one x : gr x = gr a -> ins (e x).
  by move=> xa m ma; rewrite mxE andbT; case: eqVneq => // E; rewrite E xa eqxx in ma.
have add v w : ins v -> ins w -> ins (v + w).
  by move=> iv iw m ma; rewrite mxE iv ?iw ?addr0.
have ia : ins (e a) by exact: one.
have ib : ins (e b) by apply: one; rewrite ab.
have ic : ins (e c) by apply: one; rewrite ab bc.
have iab := add _ _ ia ib.
have sa := at_ _ ia; have sb := at_ _ ib; have sc := at_ _ ic; have sab := at_ _ iab.
have sac := at_ _ (add _ _ ia ic); have sbc := at_ _ (add _ _ ib ic); have sabc := at_ _ (add _ _ iab ic).
exact: solvesD (solvesD (solvesD (solvesD (solvesD (solvesD sabc (solvesN sab)) (solvesN sac)) (solvesN sbc)) sa) sb) sc.
Qed.

(* On products of three unknowns of q. *)
Definition qqq (x y z : 'I_M) : mono3 M k :=
  Sub _ (divisible_sorted3 (a := lshift k x) (lshift k y) (lshift k z) (ltn_ord x)).

Lemma evq_qqq (q : 'cV[R]_M) p x y z : evq q p (qqq x y z) = q x 0 * q y 0 * q z 0.
Proof. by rewrite evq_sorted !both_q. Qed.

Lemma mixed3_qqq t x y z : let: (a, b, c) := val t in mixed3 t (qqq x y z) = (matches a b c x y z)%:R.
Proof.
rewrite /mixed3; case: t => -[[a b] c] /= _; rewrite /cub !evq_qqq !mxE eqxx !andbT.
rewrite /matches !natrD.
have and3 (s t u : bool) : ([&& s, t & u])%:R = s%:R * t%:R * u%:R :> R.
  by case: s t u => [] [] []; rewrite /= ?mulr0 ?mul0r ?mulr1.
rewrite !and3 !(eq_sym x) !(eq_sym y) !(eq_sym z).
by move: (a == x)%:R (a == y)%:R (a == z)%:R (b == x)%:R (b == y)%:R (b == z)%:R (c == x)%:R (c == y)%:R (c == z)%:R => *; ring.
Qed.

Lemma mixed3_independent (c : triples gr -> R) :
  (forall x y z, \sum_t c t * mixed3 t (qqq x y z) = 0) -> forall t, c t = 0.
Proof.
move=> c0 t; case E : (val t) => [[a b] d]; have /and4P[ab bd _ _] : ordered gr (a, b, d) by rewrite -E (valP t).
have := c0 a b d; rewrite (bigD1 t) //= big1 ?addr0 => [|u ut].
  have := mixed3_qqq t a b d; rewrite E => -> /eqP.
  rewrite mulf_eq0 pnatr_eq0 => /orP[/eqP //|]; rewrite /matches !eqxx; by [].
case E' : (val u) => [[a' b'] d']; have /and4P[ab' bd' _ _] : ordered gr (a', b', d') by rewrite -E' (valP u).
have := mixed3_qqq u a b d; rewrite E' => ->; apply/eqP; rewrite mulf_eq0 pnatr_eq0 -leqn0 leqNgt.
apply/orP; right; have -> : matches a' b' d' a b d = matches (a' : nat) b' d' a b d by [].
rewrite matches_sorted ?ab ?ab' //; apply: contra ut => /and3P[/eqP ea /eqP eb /eqP ed].
by rewrite -val_eqE E E' (val_inj ea) (val_inj eb) (val_inj ed).
Qed.

Theorem L3_group_candidates (q : 'cV[R]_M) (p : 'cV[R]_k) :
  (#|mono3 M k| - #|triples gr| <= \rank (cubic B V))%N -> q != 0 -> cand B V q p ->
  exists m, [/\ q m 0 != 0, forall a, gr a != gr m -> q a 0 = 0 & p = P0 *m q].
Proof.
move=> rk q0 c_qp.
have card_le : (#|mono3 M k| <= \rank (cubic B V) + #|triples gr|)%N by rewrite addnC -leq_subLR.
have span q1 p1 : cand B V q1 p1 -> exists c, forall u, evq q1 p1 u = \sum_t c t * mixed3 t u.
  move=> c1; apply: (kernel_span card_le mixed3_solves) (cand_cubic c1) => c c0.
  by apply: mixed3_independent => x y z; exact: c0.
have [c Ec] := span _ _ c_qp.
have [m qm] : exists m, q m 0 != 0.
  apply/existsP; apply: contraNT q0; rewrite negb_exists => /forallP all0.
  by apply/eqP/colP => a; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
have off a : gr a != gr m -> q a 0 = 0.
  move=> am; have := Ec (qqq m m a); rewrite evq_qqq big1 => [/eqP|t _].
    by rewrite !mulf_eq0 (negPf qm) => /eqP.
  case E : (val t) => [[x y] z]; have /and4P[_ _ /eqP xy /eqP yz] : ordered gr (x, y, z) by rewrite -E (valP t).
  have := mixed3_qqq t m m a; rewrite E => ->; rewrite (_ : matches _ _ _ _ _ _ = 0%N) ?mulr0 //.
  have no (u v w : 'I_M) : gr u = gr w -> [&& u == m, v == m & w == a] = false.
    by move=> uw; apply/negP => /and3P[/eqP um _ /eqP wa]; move: am; rewrite -um -wa uw eqxx.
  by rewrite /matches !no ?xy ?yz.
have [c' Ec'] := span _ _ (group_cand off).
have same : forall t, c t - c' t = 0.
  apply: mixed3_independent => x y z.
  under eq_bigr => t _ do rewrite mulrBl.
  by rewrite sumrB -Ec -Ec' !evq_qqq subrr.
exists m; split=> //; apply/colP => l.
have mM : (lshift k m < M)%N by rewrite /= ltn_ord.
have := Ec (Sub _ (divisible_sorted3 (lshift k m) (rshift M l) mM)).
rewrite (eq_bigr (fun t => c' t * mixed3 t (Sub _ (divisible_sorted3 (lshift k m) (rshift M l) mM)))) => [|t _].
  rewrite -Ec' !evq_sorted !both_q !both_u => /(mulfI _); apply; by rewrite mulf_neq0.
by have /eqP := same t; rewrite subr_eq0 => /eqP ->.
Qed.

End Candidates.

(* A sample whose delta_1 is a combination of the batch's mixes one group: so *)
(* does its next delta.                                                       *)
Lemma L3_column (R : realFieldType) d n ws K (N : params R d (n :: ws) K) M (I : finType) (gr : 'I_M -> I)
    k (C : 'M[R]_(head K ws, k)) (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K)
    (p : 'I_M -> 'cV[R]_k) x0 g0 p0 (q : 'cV[R]_M) :
  groups_share N gr x -> (forall m, delta2 N (x m) (g m) = C *m p m) ->
  (#|mono3 M k| - #|triples gr| <= \rank (cubic (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  delta2 N x0 g0 = C *m p0 -> delta1 N x0 g0 = Delta1 N x g *m q -> q != 0 ->
  exists m, [/\ q m 0 != 0, forall a, gr a != gr m -> q a 0 = 0 &
    delta2 N x0 g0 = cols (fun m => delta2 N (x m) (g m)) *m q].
Proof.
move=> share u rR u0 mixed q0.
set B := Delta1 N x g in rR mixed *; set V := (w1 N.2)^T *m C in rR *.
pose on (j : 'I_n) m := active (N.1.1 *m x m + N.1.2) j 0.
have BE j m : B j m = if on j m then (V *m cols p) j m else 0.
  rewrite /B [Delta1 _ _ _ _ _]mxE /= dmaskE -/(on j m); case: (on j m) => //.
  by rewrite -[delta1 N.2 _ _]/(delta2 N (x m) (g m)) u mulmxA -/V cols_mul [RHS]mxE.
have on_share j a b : gr a = gr b -> on j a = on j b by rewrite /on => /share ->.
have c_q : cand B V q p0.
  by move=> j; rewrite -mulmxA -u0 -mixed; exact: inactive_or_active.
have [m [qm off pE]] := L3_group_candidates BE on_share rR q0 c_q.
exists m; split=> //; rewrite u0 pE mulmxA; congr (_ *m _).
by rewrite cols_mul; apply: eq_cols => a; rewrite u.
Qed.

(* C2 with the rank of degree three. *)
Theorem L3_groups (R : realFieldType) d n ws K (N : params R d (n :: ws) K) M (I : finType) (gr : 'I_M -> I)
    k G (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) :
  groups_share N gr x -> confined N G C x g ->
  \rank (gradmx (gsum N x g)) = M ->
  (#|mono3 M k| - #|triples gr| <= \rank (cubic (Delta1 N x g) ((w1 N.2)^T *m C)))%N ->
  (forall m, G (g m)) -> (forall m, G (g' m)) ->
  gsum N x' g' = gsum N x g ->
  exists (s : 'S_M) (P : 'M[R]_M), P \in unitmx /\ same_structure N gr x x' g g' s P.
Proof.
move=> share conf rA rR Gg Gg' E.
have /fin_all_exists[p u] := conf _ _ Gg erefl.
have /fin_all_exists[p' u'] := conf _ _ Gg' E.
apply: structured rA E _ => m q; exact: (L3_column share u rR (u' m)).
Qed.

(* The rank of degree two or of degree three that leaves the groups.          *)
Definition group_rank (F : fieldType) n M k (I : finType) (gr : 'I_M -> I) (B : 'M[F]_(n, M)) (V : 'M[F]_(n, k)) : Prop :=
  (#|mono M k| - #|pairs gr| <= \rank (lifted B V))%N \/ (#|mono3 M k| - #|triples gr| <= \rank (cubic B V))%N.

Lemma group_column (R : realFieldType) d n ws K (N : params R d (n :: ws) K) M (I : finType) (gr : 'I_M -> I)
    k (C : 'M[R]_(head K ws, k)) (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K)
    (p : 'I_M -> 'cV[R]_k) x0 g0 p0 (q : 'cV[R]_M) :
  groups_share N gr x -> (forall m, delta2 N (x m) (g m) = C *m p m) ->
  \rank (Delta1 N x g) = M -> group_rank gr (Delta1 N x g) ((w1 N.2)^T *m C) ->
  delta2 N x0 g0 = C *m p0 -> delta1 N x0 g0 = Delta1 N x g *m q -> q != 0 ->
  exists m, [/\ q m 0 != 0, forall a, gr a != gr m -> q a 0 = 0 &
    delta2 N x0 g0 = cols (fun m => delta2 N (x m) (g m)) *m q].
Proof.
move=> share u rD [] rR u0; first exact: C2_column share u rD rR u0.
exact: L3_column share u rR u0.
Qed.
