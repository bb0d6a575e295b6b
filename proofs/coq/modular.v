(******************************************************************************)
(* A rank found modulo p is a proof over the reals: docs/theory.md, 3.6.      *)
(*                                                                            *)
(* A is the ring in which the entries live (integers, rationals without p in  *)
(* their denominators, or the ring of fractions in T whose denominators do    *)
(* not vanish at the random point); phi reduces it, iota embeds it.           *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory.
Local Open Scope ring_scope.

Lemma rank_mxsub (F : fieldType) m n r s (f : 'I_r -> 'I_m) (g : 'I_s -> 'I_n) (B : 'M[F]_(m, n)) :
  (\rank (mxsub f g B) <= \rank B)%N.
Proof.
have -> : mxsub f g B = rowsub f (rowsub g B^T)^T by apply/matrixP => i j; rewrite !mxE.
apply: leq_trans (mxrankS (rowsub_sub _ _)) _; rewrite mxrank_tr.
by rewrite -[X in (_ <= X)%N]mxrank_tr; apply: mxrankS (rowsub_sub _ _).
Qed.

Section Reduction.

Variables (A : comRingType) (k F : fieldType).
Variables (phi : {rmorphism A -> k}) (iota : {rmorphism A -> F}).

Theorem rank_mod m n (B : 'M[A]_(m, n)) :
  injective iota -> (\rank (map_mx phi B) <= \rank (map_mx iota B))%N.
Proof.
move=> inj; set Bp := map_mx phi B; pose f := maxrankfun Bp.
have fullT : row_full (rowsub f Bp)^T.
  by rewrite /row_full mxrank_tr; apply: maxrowsub_free.
pose g := fullrankfun fullT; have := fullrowsub_unit fullT; rewrite -/g.
have -> : rowsub g (rowsub f Bp)^T = (map_mx phi (mxsub f g B))^T.
  by apply/matrixP => i j; rewrite !mxE.
rewrite unitmx_tr unitmxE det_map_mx unitfE => det_p.
have det_F : \det (map_mx iota (mxsub f g B)) != 0.
  rewrite det_map_mx; apply: contraNneq det_p => /eqP.
  by rewrite -(rmorph0 iota) (inj_eq inj) => /eqP ->; rewrite rmorph0.
have : row_free (map_mx iota (mxsub f g B)) by rewrite row_free_unit unitmxE unitfE.
by rewrite map_mxsub /row_free => /eqP {1}<-; apply: rank_mxsub.
Qed.

Corollary rank_mod_ge m n (B : 'M[A]_(m, n)) r :
  injective iota -> (r <= \rank (map_mx phi B))%N -> (r <= \rank (map_mx iota B))%N.
Proof. by move=> inj rB; apply: leq_trans rB (rank_mod _ inj). Qed.

End Reduction.
