(******************************************************************************)
(* Groups that are told apart one layer further up: docs/theory.md, 6.4,      *)
(* step 11, chains of any length.                                             *)
(*                                                                            *)
(*   region N x      the pattern of the first hidden layer at x               *)
(*   divides N x g f the lifted system of the samples f 0, f 1, ... has C2's  *)
(*                   rank, or that of degree three, with groups by patterns   *)
(*   isolates N x g f   dividing groups layer by layer leaves each of these   *)
(*                   samples alone                                            *)
(*   C2_splits       a batch that is divided until all are alone is           *)
(*                   determined at the layer, as by C1                        *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network lifting exact groups triples.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Splits.

(* G: the loss vectors that labels can give.                                  *)
Variables (R : realFieldType) (K M : nat) (G : 'cV[R]_K -> Prop).

Definition region d n ws (N : params R d (n :: ws) K) (x : 'cV[R]_d) : 'cV[bool]_n :=
  active (N.1.1 *m x + N.1.2).

Definition divides d n ws (N : params R d (n :: ws) K) (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K)
    r (f : 'I_r -> 'I_M) : Prop :=
  let xf i := x (f i) in
  let gf i := g (f i) in
  exists k (C : 'M[R]_(head K ws, k)), [/\ confined N G C x g, \rank (Delta1 N xf gf) = r &
    group_rank (fun i => region N (xf i)) (Delta1 N xf gf) ((w1 N.2)^T *m C)].

Inductive isolates : forall d ws, params R d ws K -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_K) ->
    forall r, ('I_r -> 'I_M) -> Prop :=
| Isolated d ws (N : params R d ws K) x g (f : 'I_1 -> 'I_M) : isolates N x g f
| Divided d n ws (N : params R d (n :: ws) K) x g r (f : 'I_r -> 'I_M)
    (s : 'I_r -> nat) (group : forall i, 'I_(s i) -> 'I_M) :
    divides N x g f ->
    (forall i j, region N (x (f j)) = region N (x (f i)) -> exists l, group i l = f j) ->
    (forall i, isolates N.2 (fun m => act N (x m)) g (@group i)) ->
    isolates N x g f.

(* A sample of another batch that mixes some of the batch, and its next delta *)
(* with it, mixes those of one pattern.                                       *)
Lemma divided_column d n ws (N : params R d (n :: ws) K) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K)
    r (f : 'I_r -> 'I_M) m (q : 'cV[R]_M) :
  divides N x g f -> (forall m, G (g m)) -> (forall m, G (g' m)) -> gsum N x' g' = gsum N x g ->
  q != 0 -> (forall a, (forall l, f l != a) -> q a 0 = 0) ->
  delta1 N (x' m) (g' m) = Delta1 N x g *m q ->
  exists i, (forall a, (forall l, region N (x (f l)) = region N (x (f i)) -> f l != a) -> q a 0 = 0) /\
    delta2 N (x' m) (g' m) = cols (fun m => delta2 N (x m) (g m)) *m q.
Proof.
move=> [k [C [conf rD rR]]] Gg Gg' E q0 off mixed.
have [p' u'] := conf _ _ Gg' E m.
have /fin_all_exists[p u] i : exists p, delta2 N (x (f i)) (g (f i)) = C *m p by exact: conf Gg erefl (f i).
have f_inj : injective f.
  move=> i j fij; set D := Delta1 _ _ _ in rD.
  have : D *m delta_mx i 0 = D *m delta_mx j 0 :> 'cV_n.
    by rewrite -!colE; apply/colP => a; rewrite !mxE fij.
  move/(full_column_rank rD)/colP/(_ i)/eqP; rewrite !mxE !eqxx andbT /=.
  by have [->|_] := eqVneq i j; rewrite ?oner_eq0.
pose qf : 'cV[R]_r := \col_i q (f i) 0.
have onto n' (A : 'I_M -> 'cV[R]_n') : cols A *m q = cols (fun i => A (f i)) *m qf.
  apply/colP => j; rewrite !mxE (bigID (fun a => [exists l, f l == a])) /= [X in _ + X]big1 => [|a].
    rewrite addr0 (eq_bigr (fun a => A a j 0 * q a 0)) => [|a _]; last by rewrite mxE.
    rewrite (eq_bigl (mem (f @: setT))) => [|a]; last first.
      apply/existsP/imsetP => [[l /eqP <-]|[l _ ->]]; last by exists l.
      by exists l; rewrite ?inE.
    rewrite (big_imset _ (in2W f_inj)) /= big_set /=.
    by apply: eq_bigr => l _; rewrite !mxE.
  by rewrite negb_exists => /forallP fa; rewrite off ?mulr0.
have [|||i [_ qi d2]] := @group_column _ _ _ _ _ N r _ (fun i => region N (x (f i))) k C (fun i => x (f i))
    (fun i => g (f i)) p (x' m) (g' m) p' qf _ u rD rR u'.
- by [].
- by rewrite mixed; exact: onto.
- apply: contra_neq q0 => /colP qf0; apply/colP => a; rewrite [RHS]mxE.
  have [/existsP[l /eqP <-]|] := boolP [exists l, f l == a]; first by have := qf0 l; rewrite !mxE.
  by rewrite negb_exists => /forallP; apply: off.
exists i; split=> [a none|]; last by rewrite d2 onto.
have [/existsP[l /eqP fl]|] := boolP [exists l, f l == a]; last first.
  by rewrite negb_exists => /forallP; apply: off.
rewrite -fl; have := qi l; rewrite mxE; apply; apply/eqP => same.
by have := none l same; rewrite fl eqxx.
Qed.

Lemma isolated_column d ws (N : params R d ws K) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K)
    r (f : 'I_r -> 'I_M) m (q : 'cV[R]_M) :
  isolates N x g f -> (forall m, G (g m)) -> (forall m, G (g' m)) -> gsum N x' g' = gsum N x g ->
  (forall a, (forall l, f l != a) -> q a 0 = 0) -> q != 0 ->
  delta1 N (x' m) (g' m) = Delta1 N x g *m q -> exists a c, q = c *: delta_mx a 0.
Proof.
move=> iso Gg Gg'; elim: iso x' q Gg => [{}d {}ws {}N {}x {}g {}f|{}d n {}ws {}N {}x {}g {}r {}f s group div sub _ IH] x' q Gg E off q0 mixed.
  exists (f 0), (q (f 0) 0); apply/colP => a; rewrite !mxE andbT.
  by have [->|ne] := eqVneq a (f 0); rewrite ?mulr1 // mulr0 off // => l; rewrite ord1 eq_sym.
have [i [qi d2]] := divided_column div Gg Gg' E q0 off mixed.
apply: (IH i (fun m => act N (x' m)) q) => //; first by rewrite -!gsum_tail E.
move=> a none; apply: qi => l /sub[l' <-]; exact: none.
Qed.

(* f lists the whole batch.                                                   *)
Theorem C2_splits d n ws (N : params R d (n :: ws) K) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K)
    r (f : 'I_r -> 'I_M) (s : 'I_r -> nat) (group : forall i, 'I_(s i) -> 'I_M) :
  \rank (gradmx (gsum N x g)) = M -> (forall m, exists l, f l = m) -> divides N x g f ->
  (forall i j, region N (x (f j)) = region N (x (f i)) -> exists l, group i l = f j) ->
  (forall i, isolates N.2 (fun m => act N (x m)) g (@group i)) ->
  (forall m, G (g m)) -> (forall m, G (g' m)) -> gsum N x' g' = gsum N x g ->
  exists s : 'S_M, state_same_upto N x x' g g' s.
Proof.
move=> rA onto div sub iso Gg Gg' E; have [P [Q [PQ QP Q1 D' X']]] := factorisations rA E.
have uP := unit_from_inverses PQ.
have mixed m : delta1 N (x' m) (g' m) = Delta1 N x g *m col m P.
  rewrite colE mulmxA -D' -colE; apply/colP => j; by rewrite !mxE.
have known m : delta2 N (x' m) (g' m) = cols (fun m => delta2 N (x m) (g m)) *m col m P /\
    exists a c, col m P = c *: delta_mx a 0.
  have [|i [qi d2]] := divided_column div Gg Gg' E (col_unit_neq0 m uP) _ (mixed m).
    by move=> a; have [l <-] := onto a => /(_ l); rewrite eqxx.
  split=> //; apply: (isolated_column (iso i) Gg Gg' (x' := fun m => act N (x' m)) (m := m)) => //.
  - by rewrite -!gsum_tail E.
  - move=> a none; apply: qi => l /sub[l' <-]; exact: none.
  exact: col_unit_neq0.
suff each m : exists a c, col m P = c *: delta_mx a 0 /\ delta2 N (x' m) (g' m) = c *: delta2 N (x a) (g a).
  by have [t st] := same_upto PQ Q1 D' X' each; exists t.
have [d2 [a [c Pm]]] := known m.
by exists a, c; rewrite d2 Pm -scalemxAr -colE colsE.
Qed.

End Splits.
