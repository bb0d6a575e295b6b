(******************************************************************************)
(* Two samples without exclusive neurons and one logit: docs/theory.md, P2.   *)
(*                                                                            *)
(*   no_exclusive N x   no neuron of any hidden layer is exclusive            *)
(*   shared_pattern     two such samples have one pattern                     *)
(*   P2_two             with two or more inputs and no pre-activation zero,   *)
(*                      second batches exist arbitrarily close, for any loss  *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network derivative shared exclusive exact orbits.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section TwoSamples.

Variable R : realFieldType.

Fixpoint no_exclusive d ws K M : params R d ws K -> ('I_M -> 'cV[R]_d) -> Prop :=
  match ws return params R d ws K -> ('I_M -> 'cV[R]_d) -> Prop with
  | [::] => fun _ _ => True
  | n :: ws' => fun N x =>
      (forall (j : 'I_n) m, ~ exclusive N x j m) /\ no_exclusive N.2 (fun m => act N (x m))
  end.

Lemma two_cases (m : 'I_2) : m = 0 \/ m = 1.
Proof. by case: m => [[|[|//]] p]; [left | right]; apply: val_inj. Qed.

Lemma shared_pattern d ws K (N : params R d ws K) (x : 'I_2 -> 'cV[R]_d) :
  no_exclusive N x -> forall m, pattern N (x m) = pattern N (x 0).
Proof.
elim: ws d N x => [|n ws IH] d N x //= [none rest] m.
have -> : pattern N.2 (relu (N.1.1 *m x m + N.1.2)) = pattern N.2 (relu (N.1.1 *m x 0 + N.1.2)).
  exact: IH rest m.
congr pair; apply/colP => j; rewrite ![active _ _ _]mxE.
have [->//|->] := two_cases m.
case a0: (0 < (N.1.1 *m x 0 + N.1.2) j 0); case a1: (0 < (N.1.1 *m x 1 + N.1.2) j 0) => //.
  by case: (none j 0) => m'; rewrite /is_active; case: (two_cases m') => ->; rewrite ?a0 ?a1.
by case: (none j 1) => m'; rewrite /is_active; case: (two_cases m') => ->; rewrite ?a0 ?a1.
Qed.

Theorem P2_two d ws (N : params R d ws 1) lv (x : 'I_2 -> 'cV[R]_d) (l : 'I_2 -> 'cV[R]_1) :
  (1 < d)%N -> no_exclusive N x -> (forall m, generic N (x m)) ->
  exists2 e : R, 0 < e & forall t : R, t != 0 -> `|t| < e ->
    exists x' : 'I_2 -> 'cV[R]_d,
      bgrad lv N x' l = bgrad lv N x l /\ forall s : 'S_2, ~ (forall m, x' m = x (s m)).
Proof.
move=> d2 /shared_pattern xa gen; set a := pattern N (x 0) in xa.
have [v v0 Av] : exists2 v : 'cV[R]_d, v != 0 & slope N a *m v = 0.
  have [|v v0 E] := @S2_v R d ws 1 N a _ 1%:M; last by exists v; rewrite // -[slope _ _]mul1mx -mulmxA.
  by rewrite mul1mx (leq_ltn_trans (rank_leq_row _)).
have [alpha [m0 am0] bal] := @S2_alpha_many R _ _ (lossvecs lv N x l) (ltnSn 1).
pose x' t := sheared x alpha v t.
have [i0 vi0] : exists i, v i 0 != 0.
  apply/existsP; apply: contraNT v0; rewrite negb_exists => /forallP all0.
  by apply/eqP/colP => i; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
pose B := \sum_m \sum_i `|alpha m * v i 0|.
have B0 : 0 <= B by apply: sumr_ge0 => m _; apply: sumr_ge0.
have diffE t m i : x' t m i 0 - x m i 0 = t * (alpha m * v i 0).
  by rewrite /x' /sheared !mxE addrAC subrr add0r mulrA.
have bound t m i : `|x' t m i 0 - x m i 0| <= B * `|t|.
  rewrite diffE normrM mulrC ler_wpmul2r // /B (bigD1 m) //= ler_paddr ?sumr_ge0 // => [m' _|].
    by apply: sumr_ge0.
  by rewrite (bigD1 i) //= ler_paddr ?sumr_ge0.
have close e : 0 < e -> near (fun t => forall m i, `|x' t m i 0 - x m i 0| < e).
  move=> e0; exists (e / (B + 1)); first by rewrite divr_gt0 // ltr_paddl.
  move=> t; rewrite ltr_pdivl_mulr ?ltr_paddl // => te m i.
  apply: le_lt_trans (bound t m i) _; apply: le_lt_trans te.
  by rewrite mulrC ler_wpmul2l // ler_addl.
have keep : near (fun t => forall m, pattern N (x' t m) = a).
  apply: near_all => m; have [e e0 open] := pattern_open (gen m).
  by have := close e e0; apply: near_sub => t Ct; rewrite -(xa m); apply: open.
have differ : near (fun t => forall s : 'S_2, t != 0 -> ~ (forall m, x' t m = x (s m))).
  apply: near_all => s.
  have [/forallP same|/forallPn[m]] := boolP [forall m, x (s m) == x m].
    exists 1 => [|t _ t0 E]; first exact: ltr01.
    have := diffE t m0 i0; rewrite E (eqP (same m0)) subrr => /esym/eqP.
    by rewrite !mulf_eq0 (negPf t0) (negPf am0) (negPf vi0).
  rewrite -subr_eq0 => /eqP sm; have [i xi] : exists i, (x (s m) - x m) i 0 != 0.
    apply/existsP; apply: contra_notT sm; rewrite negb_exists => /forallP all0.
    by apply/colP => i; rewrite [RHS]mxE; apply/eqP; rewrite -[_ == _]negbK all0.
  have := close _ (_ : 0 < `|(x (s m) - x m) i 0|); rewrite normr_gt0 => /(_ xi).
  apply: near_sub => t Ct _ E; have := Ct m i.
  by rewrite E [X in _ < `|X|]mxE [X in _ < `|_ + X|]mxE ltxx.
have [e e0 both] := near_and keep differ; exists e => // t t0 te.
have [x'a x's] := both t te; exists (x' t); split=> [|s]; last exact: x's.
exact: S2_same_logits Av bal xa x'a.
Qed.

End TwoSamples.
