(******************************************************************************)
(* Linear algebra over a field, free of networks.                             *)
(*                                                                            *)
(*   two_factorisations   docs/theory.md, 3.1                                 *)
(*   full_column_rank     the step of docs/theory.md, 3.4                     *)
(*   coefmx c             the matrix of the linear equations c j in unknowns  *)
(*                        indexed by a finite type                            *)
(*   kernel_span          a null space of known dimension is spanned by as    *)
(*                        many independent known solutions                    *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory.
Local Open Scope ring_scope.

Section Factorisations.

Variable F : fieldType.

Lemma left_inverse n M (D : 'M[F]_(n, M)) : \rank D = M -> exists L, L *m D = 1%:M.
Proof. by move=> rD; apply/row_fullP; rewrite /row_full rD. Qed.

Lemma right_inverse M p (H : 'M[F]_(M, p)) : \rank H = M -> exists L, H *m L = 1%:M.
Proof. by move=> rH; apply/row_freeP; rewrite /row_free rH. Qed.

Lemma rank_factors n M p (D : 'M[F]_(n, M)) (H : 'M[F]_(M, p)) :
  \rank (D *m H) = M -> \rank D = M /\ \rank H = M.
Proof.
move=> rA; split; apply/eqP; rewrite eqn_leq.
  by rewrite rank_leq_col -[X in (X <= _)%N]rA mxrankM_maxl.
by rewrite rank_leq_row -[X in (X <= _)%N]rA mxrankM_maxr.
Qed.

Lemma two_factorisations n M p (D D' : 'M[F]_(n, M)) (H H' : 'M[F]_(M, p)) :
  \rank (D *m H) = M -> D' *m H' = D *m H ->
  exists P Q, [/\ P *m Q = 1%:M, Q *m P = 1%:M, D' = D *m P & H' = Q *m H].
Proof.
move=> rA E; have rA' := rA; rewrite -E in rA'.
have [rD rH] := rank_factors rA; have [rD' rH'] := rank_factors rA'.
have [L LD] := left_inverse rD; have [L' LD'] := left_inverse rD'.
have [B HB] := right_inverse rH; have [B' HB'] := right_inverse rH'.
have HQ : H' = L' *m D *m H by rewrite -mulmxA -E mulmxA LD' mul1mx.
have HP : H = L *m D' *m H' by rewrite -mulmxA E mulmxA LD mul1mx.
have PQ : (L *m D') *m (L' *m D) = 1%:M.
  by rewrite -[LHS]mulmx1 -HB mulmxA -[_ *m _ *m H]mulmxA -HQ -HP HB.
exists (L *m D'), (L' *m D); split=> //; first exact: mulmx1C.
by rewrite -[LHS]mulmx1 -HB' mulmxA E {1}HP -!mulmxA HB' !mulmx1.
Qed.

Lemma full_column_rank n M p (D : 'M[F]_(n, M)) (H H' : 'M[F]_(M, p)) :
  \rank D = M -> D *m H = D *m H' -> H = H'.
Proof.
move=> /left_inverse[L LD] E.
by rewrite -[H]mul1mx -LD -mulmxA E mulmxA LD mul1mx.
Qed.

Lemma unit_from_inverses n (P Q : 'M[F]_n) : P *m Q = 1%:M -> P \in unitmx.
Proof. by case/mulmx1_unit. Qed.

(* A column with no zero in an invertible matrix does not exist. *)
Lemma col_unit_neq0 n (P : 'M[F]_n) m : P \in unitmx -> col m P != 0.
Proof.
move=> uP; apply: contraTneq isT => P0.
have : invmx P *m col m P = 0 by rewrite P0 mulmx0.
rewrite colE mulmxA mulVmx // mul1mx => /colP/(_ m)/eqP; rewrite !mxE !eqxx /=.
by rewrite oner_eq0.
Qed.

(* More columns than rows, or a kernel of known size. *)
Lemma short_rank_kernel n M (A : 'M[F]_(n, M)) :
  (\rank A < M)%N -> exists2 v : 'cV_M, v != 0 & A *m v = 0.
Proof.
move=> rA; have : kermx A^T != 0.
  by rewrite -mxrank_eq0 mxrank_ker mxrank_tr -lt0n subn_gt0.
case/rowV0Pn=> v /sub_kermxP v0 vn; exists v^T; first by rewrite -trmx0 (inj_eq trmx_inj).
by apply: trmx_inj; rewrite trmx_mul trmxK v0 trmx0.
Qed.

End Factorisations.

Lemma sum_enum_val (V : zmodType) (T : finType) (f : T -> V) :
  \sum_(i < #|T|) f (enum_val i) = \sum_t f t.
Proof. by rewrite -(big_enum_val (A := T)). Qed.

Section Kernels.

Variables (F : fieldType) (n : nat) (T S : finType).
Variables (coef : 'I_n -> T -> F) (sol : S -> T -> F).

Definition coefmx : 'M[F]_(n, #|T|) := \matrix_(j, i) coef j (enum_val i).

Definition solmx : 'M[F]_(#|S|, #|T|) := \matrix_(s, i) sol (enum_val s) (enum_val i).

Definition solves (v : T -> F) := forall j, \sum_t v t * coef j t = 0.

Definition independent := forall c : S -> F,
  (forall t, \sum_s c s * sol s t = 0) -> forall s, c s = 0.

Lemma solves_ker (v : T -> F) : solves v -> (\row_i v (enum_val i)) *m coefmx^T = 0.
Proof.
move=> sv; apply/rowP => j; rewrite !mxE -[RHS](sv j) -[RHS]sum_enum_val.
by apply: eq_bigr => i _; rewrite !mxE.
Qed.

Lemma solmx_free : independent -> row_free solmx.
Proof.
move=> ind; rewrite -kermx_eq0; apply/rowV0P => c /sub_kermxP c0.
pose c' s := c 0 (enum_rank s); have /ind c'0 : forall t, \sum_s c' s * sol s t = 0.
  move=> t; have /rowP/(_ (enum_rank t)) := c0; rewrite !mxE => E.
  apply: etrans E; rewrite -[LHS]sum_enum_val.
  by apply: eq_bigr => i _; rewrite /c' !mxE enum_valK enum_rankK.
by apply/rowP => i; rewrite mxE -[i]enum_valK; apply: c'0.
Qed.

Lemma free_independent : row_free solmx -> independent.
Proof.
move=> /row_freeP[B solB] c c0 s.
have : (\row_i c (enum_val i)) *m solmx = 0.
  apply/rowP => t; rewrite !mxE -[RHS](c0 (enum_val t)) -[RHS]sum_enum_val.
  by apply: eq_bigr => i _; rewrite !mxE.
move/(congr1 (mulmx^~ B)); rewrite -mulmxA solB mulmx1 mul0mx => /rowP/(_ (enum_rank s)).
by rewrite !mxE enum_rankK.
Qed.

Lemma kernel_span :
  (#|T| <= \rank coefmx + #|S|)%N -> (forall s, solves (sol s)) -> independent ->
  forall v, solves v -> exists c : S -> F, forall t, v t = \sum_s c s * sol s t.
Proof.
move=> rk allsol ind v sv.
have sub : (solmx <= kermx coefmx^T)%MS.
  apply/row_subP => s; apply/sub_kermxP; rewrite -(solves_ker (allsol (enum_val s))).
  by congr (_ *m _); apply/rowP => i; rewrite !mxE.
have span : (kermx coefmx^T <= solmx)%MS.
  rewrite -(mxrank_leqif_sup sub).2 eqn_leq mxrankS //=.
  by rewrite mxrank_ker mxrank_tr (eqP (solmx_free ind)) leq_subLR.
have /submxP[c /rowP Ec] : ((\row_i v (enum_val i)) <= solmx)%MS.
  by apply: submx_trans span; apply/sub_kermxP; apply: solves_ker.
exists (fun s => c 0 (enum_rank s)) => t; have := Ec (enum_rank t).
rewrite !mxE enum_rankK => ->; rewrite -[RHS]sum_enum_val.
by apply: eq_bigr => i _; rewrite !mxE enum_valK enum_rankK.
Qed.

End Kernels.
