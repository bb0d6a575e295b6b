(******************************************************************************)
(* Scales and peeling: docs/theory.md, section 2, E3 and E4.                  *)
(*                                                                            *)
(*   tells nz S j m   neuron j has a non-zero delta for m and for no other    *)
(*                    member of S                                             *)
(*   stopping nz S    S is not empty and no neuron tells a member of it apart *)
(*   peels nz S s     s is an order in which S can be peeled off completely   *)
(*   leaves S s T     s can be peeled off S and leaves T                      *)
(*   reads G s        along s every input is read off what is left of the     *)
(*                    gradient G, and nothing is left at the end              *)
(*   E3               scales from the bias gradient of the last layer         *)
(*   E4_stopping      peeling reads everything iff there is no stopping set   *)
(*   E4_stops         where it stops: at the union of all stopping sets       *)
(*   E4_reads         what peeling reads is exact                             *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg network exclusive.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Combinatorics.

Variables (n M : nat) (nz : 'I_n -> 'I_M -> bool).
Implicit Types (S T : {set 'I_M}) (s : seq 'I_M).

Definition tells S j m : bool :=
  [&& m \in S, nz j m & [forall m' in S, nz j m' ==> (m' == m)]].

Definition stopping S : bool := (S != set0) && ~~ [exists j, exists m, tells S j m].

Fixpoint peels S s : bool :=
  if s is m :: s' then [exists j, tells S j m] && peels (S :\ m) s' else S == set0.

Lemma tells_sub S T j m : S \subset T -> m \in S -> tells T j m -> tells S j m.
Proof.
move=> ST mS /and3P[_ nzm /forallP only]; apply/and3P; split=> //.
by apply/forallP => m'; apply/implyP => m'S; apply: (implyP (only m')); apply: subsetP m'S.
Qed.

Lemma peels_no_stopping S T s : peels T s -> S \subset T -> ~~ stopping S.
Proof.
elim: s T => [|m s IH] T /= => [/eqP ->|/andP[/existsP[j tj] rest] ST].
  by rewrite subset0 => /eqP ->; rewrite /stopping eqxx.
have [mS|mS] := boolP (m \in S); last first.
  by apply: IH rest _; rewrite subsetD1 ST mS.
rewrite negb_and negbK; apply/orP; right; rewrite negbK.
by apply/existsP; exists j; apply/existsP; exists m; apply: tells_sub tj.
Qed.

Lemma no_stopping_peels T : (forall S, S \subset T -> ~~ stopping S) -> exists s, peels T s.
Proof.
elim: {T}_.+1 {-2}T (ltnSn #|T|) => // k IH T Tk free.
have [->|T0] := eqVneq T set0; first by exists [::]; rewrite /= eqxx.
have := free T (subxx _); rewrite /stopping T0 /= negbK => /existsP[j /existsP[m tm]].
have mT : m \in T by case/and3P: tm.
have [|S ST|s ps] := IH (T :\ m).
- by rewrite (cardsD1 m T) mT in Tk.
- by apply: free; apply: subset_trans ST (subD1set _ _).
by exists (m :: s); rewrite /= ps andbT; apply/existsP; exists j.
Qed.

Theorem E4_stopping : (exists s, peels setT s) <-> (forall S, ~~ stopping S).
Proof.
split=> [[s ps] S|free]; first exact: peels_no_stopping ps (subsetT _).
by apply: no_stopping_peels => S _; apply: free.
Qed.

(* Peeling never has to choose well: whatever was peeled first, the rest of a *)
(* batch without stopping sets can still be peeled.                           *)
Theorem E4_any_order T : (forall S, ~~ stopping S) -> exists s, peels T s.
Proof. by move=> free; apply: no_stopping_peels. Qed.

Fixpoint leaves S s T : bool :=
  if s is m :: s' then [exists j, tells S j m] && leaves (S :\ m) s' T else S == T.

Lemma leaves_stopping S U T s : leaves U s T -> S \subset U -> stopping S -> S \subset T.
Proof.
elim: s U => [|m s IH] U /= => [/eqP <- //|/andP[/existsP[j tj] rest] SU stop].
apply: (IH _ rest _ stop); rewrite subsetD1 SU /=.
apply: contraL stop => mS; rewrite negb_and !negbK; apply/orP; right.
by apply/existsP; exists j; apply/existsP; exists m; apply: tells_sub tj.
Qed.

(* Whatever the order: when no neuron tells one of the rest apart any more,   *)
(* the rest is the union of all stopping sets, itself one unless it is empty. *)
Theorem E4_stops s T : leaves setT s T -> ~~ [exists j, exists m, tells T j m] ->
  T = \bigcup_(S | stopping S) S.
Proof.
move=> ls none; apply/eqP; rewrite eqEsubset; apply/andP; split.
  have [->|T0] := eqVneq T set0; first exact: sub0set.
  by apply: (bigcup_sup T) => //; rewrite /stopping T0.
by apply/bigcupsP => S; apply: leaves_stopping ls (subsetT _).
Qed.

End Combinatorics.

Section Reading.

Variables (R : realFieldType) (d : nat) (ws : seq nat) (K : nat) (N : params R d ws K) (M : nat).
Variables (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K).
Implicit Types (S : {set 'I_M}).

Definition nzdelta (j : 'I_(head K ws)) (m : 'I_M) : bool := delta1 N (x m) (g m) j 0 != 0.

Definition left S : params R d ws K := \sum_(m in S) grad N (x m) (g m).

Lemma left_row S j m : tells nzdelta S j m ->
  b1 (left S) j 0 = delta1 N (x m) (g m) j 0 /\
  forall i, w1 (left S) j i = delta1 N (x m) (g m) j 0 * x m i 0.
Proof.
case/and3P => mS nzm /forallP only.
have zero m' : m' \in S -> m' != m -> delta1 N (x m') (g m') j 0 = 0.
  by move=> m'S mm'; apply/eqP; have := implyP (only m') m'S; rewrite (negPf mm') implybF negbK.
rewrite /left b1_sum w1_sum; split=> [|i]; rewrite summxE (bigD1 m) //= big1 ?addr0.
- by rewrite b1_grad.
- by move=> m' /andP[m'S mm']; rewrite b1_grad zero.
- by rewrite w1_grad !mxE big_ord1 mxE.
- by move=> m' /andP[m'S mm']; rewrite w1_grad !mxE big_ord1 zero ?mul0r.
Qed.

Fixpoint reads (G : params R d ws K) (s : seq 'I_M) : Prop :=
  if s is m :: s' then
    (exists2 j, b1 G j 0 != 0 & forall i, w1 G j i / b1 G j 0 = x m i 0) /\
    reads (G - grad N (x m) (g m)) s'
  else G = 0.

Lemma reads_left S s : peels nzdelta S s -> reads (left S) s.
Proof.
elim: s S => [|m s IH] S /= => [/eqP ->|/andP[/existsP[j tj] rest]].
  by rewrite /left big_set0.
have [bE wE] := left_row tj; have nzm : delta1 N (x m) (g m) j 0 != 0 by case/and3P: tj.
split; first by exists j => [|i]; rewrite bE // wE mulrAC divff ?mul1r.
have -> : left S - grad N (x m) (g m) = left (S :\ m) by
  rewrite /left (big_setD1 m) /=; [rewrite addrC addKr | case/and3P: tj].
exact: IH rest.
Qed.

Theorem E4_reads : (forall S, ~~ stopping nzdelta S) -> exists2 s, reads (gsum N x g) s &
  peels nzdelta setT s.
Proof.
move=> /E4_stopping[s ps]; exists s => //.
have -> : gsum N x g = left setT by rewrite /left /gsum; apply: eq_bigl => m; rewrite inE.
exact: reads_left.
Qed.

End Reading.

(* E3: N is the last affine layer; of a deeper network it is topp (gsum_topp).*)
Theorem E3 (R : realFieldType) d K (N : params R d [::] K) M (x : 'I_M -> 'cV[R]_d)
    (u : 'I_M -> 'cV[R]_K) (s s' : 'I_M -> R) :
  \rank (cols u) = M ->
  b1 (gsum N x (fun m => s m *: u m)) = \sum_m s' m *: u m -> s' =1 s.
Proof.
move=> ru E; pose c t : 'cV[R]_M := \col_m t m.
have sumE t : \sum_m t m *: u m = cols u *m c t.
  by apply/colP => i; rewrite summxE !mxE; apply: eq_bigr => m _; rewrite !mxE mulrC.
move: E; rewrite b1_gsum cols_sum /= !sumE => /(full_column_rank ru) E m.
by have /colP/(_ m) := E; rewrite !mxE.
Qed.
