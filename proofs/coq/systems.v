(******************************************************************************)
(* Small polynomial systems with known solutions: docs/theory.md, C4.         *)
(*                                                                            *)
(*   monom r D        exponents of r unknowns, each at most D                 *)
(*   ev x m           the monomial m at the point x                           *)
(*   poly_at          a polynomial is given by its coefficients               *)
(*   C4               if all multiples up to degree D of the equations have   *)
(*                    rank (number of monomials) - k, the k known solutions   *)
(*                    are all, in the field and in every extension            *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory.
Local Open Scope ring_scope.

Section Monomials.

Variable r : nat.

(* Monomials of degree at most D. *)
Definition mdeg D (m : {ffun 'I_r -> 'I_D.+1}) : nat := \sum_i m i.
Definition monom D : finType := [finType of {m : {ffun 'I_r -> 'I_D.+1} | (mdeg m <= D)%N}].

Definition ev (A : comRingType) D (x : 'I_r -> A) (m : monom D) : A :=
  \prod_i x i ^+ (val m i).

Lemma exp_bound D (e : 'I_r -> nat) i : (\sum_i e i <= D)%N -> (e i < D.+1)%N.
Proof. by move=> eD; rewrite ltnS (leq_trans _ eD) // (bigD1 i) //= leq_addr. Qed.

Definition mk_monom D (e : 'I_r -> nat) (eD : (\sum_i e i <= D)%N) : monom D.
Proof.
exists [ffun i => Ordinal (exp_bound i eD)].
by rewrite /mdeg; under eq_bigr do rewrite ffunE.
Defined.

Lemma ev_mk (A : comRingType) D (x : 'I_r -> A) e (eD : (\sum_i e i <= D)%N) :
  ev x (mk_monom eD) = \prod_i x i ^+ e i.
Proof. by apply: eq_bigr => i _; rewrite /= ffunE. Qed.

(* The products that C4 needs: 1, x_s m and m m'. *)
Definition mone D : monom D.
Proof. by apply: (@mk_monom D (fun _ => 0%N)); rewrite big1. Defined.

Lemma ev_mone (A : comRingType) D (x : 'I_r -> A) : ev x (mone D) = 1.
Proof. by rewrite ev_mk big1 // => i _; rewrite expr0. Qed.

Definition mtimes D (s : 'I_r) (m : monom D) : monom D.+1.
Proof.
apply: (@mk_monom D.+1 (fun i => val m i + (i == s))%N).
rewrite big_split /= (bigD1 s) //= [X in (_ + X)%N](bigD1 s) //= eqxx.
rewrite [X in (_ + (_ + X))%N]big1 => [|i /negPf -> //].
have := valP m; rewrite /mdeg (bigD1 s) //= => mD.
by rewrite addn0 addn1 ltnS.
Defined.

Lemma ev_mtimes (A : comRingType) D (x : 'I_r -> A) s (m : monom D) :
  ev x (mtimes s m) = x s * ev x m.
Proof.
rewrite ev_mk /ev (eq_bigr (fun i => x i ^+ (val m i) * x i ^+ (i == s))); last first.
  by move=> i _; rewrite exprD.
rewrite big_split /= [X in _ * X](bigD1 s) //= eqxx expr1 [X in _ * (_ * X)]big1.
  by rewrite mulr1 mulrC.
by move=> i /negPf ->; rewrite expr0.
Qed.

Definition membed D (m : monom D) : monom D.+1.
Proof. by apply: (@mk_monom D.+1 (fun i => val m i)); apply: leqW; apply: (valP m). Defined.

Lemma ev_membed (A : comRingType) D (x : 'I_r -> A) (m : monom D) : ev x (membed m) = ev x m.
Proof. exact: ev_mk. Qed.

Section Product.

Variables (D1 D2 D : nat) (le_D : (D1 + D2 <= D)%N) (m : monom D1) (m' : monom D2).

Lemma mmul_bound : (\sum_i (val m i + val m' i) <= D)%N.
Proof.
by apply: leq_trans le_D; rewrite big_split leq_add //; [apply: (valP m) | apply: (valP m')].
Qed.

Definition mmul : monom D := mk_monom mmul_bound.

Lemma ev_mmul (A : comRingType) (x : 'I_r -> A) : ev x mmul = ev x m * ev x m'.
Proof.
by rewrite ev_mk -big_split; apply: eq_bigr => i _; rewrite exprD.
Qed.

End Product.

End Monomials.

Section Principle.

Variables (F : fieldType) (E : fieldType) (f : {rmorphism F -> E}) (r e k : nat).

(* A polynomial of degree at most D: its coefficients. *)
Definition pol D := monom r D -> F.

Definition poly_at (A : comRingType) (h : F -> A) D (c : pol D) (x : 'I_r -> A) : A :=
  \sum_m h (c m) * ev x m.

Variable D : nat.

Section Core.

(* Linear combinations of monomials of degree at most D + 1 that must vanish. *)
Variables (row : 'I_e -> pol D.+1) (known : 'I_k -> 'I_r -> F).

Definition evaluation_independent := independent (fun i => @ev r F D (known i)).

Lemma C4_core :
  (#|monom r D.+1| <= \rank (coefmx row) + k)%N ->
  (forall i j, poly_at id (row j) (known i) = 0) -> evaluation_independent ->
  forall x : 'I_r -> E, (forall j, poly_at f (row j) x = 0) -> exists i, x =1 f \o known i.
Proof.
move=> rk sols ind x xv.
pose crow j m := f (row j m); pose fk i s := f (known i s).
have ev_f n (i : 'I_k) (m : monom r n) : ev (fk i) m = f (ev (known i) m).
  by rewrite rmorph_prod; apply: eq_bigr => s _; rewrite rmorphX.
have rkE : (#|monom r D.+1| <= \rank (coefmx crow) + #|'I_k|)%N.
  have -> : coefmx crow = map_mx f (coefmx row) by apply/matrixP => i j; rewrite !mxE.
  by rewrite mxrank_map card_ord.
have indE : independent (fun i => @ev r E D (fk i)).
  apply: free_independent.
  have -> : solmx (fun i => @ev r E D (fk i)) = map_mx f (solmx (fun i => @ev r F D (known i))).
    by apply/matrixP => i j; rewrite !mxE ev_f.
  by rewrite row_free_map; apply: solmx_free.
have solsE i : solves crow (@ev r E D.+1 (fk i)).
  move=> j; have := congr1 f (sols i j); rewrite rmorph0 /poly_at rmorph_sum; apply: etrans.
  by apply: eq_bigr => m _; rewrite rmorphM ev_f mulrC.
have xE : solves crow (ev x).
  by move=> j; apply: etrans (xv j); apply: eq_bigr => m _; rewrite mulrC.
have indE' : independent (fun i => @ev r E D.+1 (fk i)).
  move=> c c0; apply: indE => m; have := c0 (membed m).
  by under eq_bigr do rewrite ev_membed.
have [c cE] := kernel_span rkE solsE indE' xE.
have zero s i : c i * (x s - fk i s) = 0.
  apply: (indE (fun i => c i * (x s - fk i s))) => m.
  rewrite -[RHS](subrr (ev x (mtimes s m))) {2}cE ev_mtimes.
  have -> : ev x m = \sum_l c l * ev (fk l) m.
    by rewrite -ev_membed cE; apply: eq_bigr => l _; rewrite ev_membed.
  rewrite mulr_sumr -sumrB; apply: eq_bigr => l _.
  by rewrite ev_mtimes mulrBr mulrBl !mulrA (mulrC (c l) (x s)).
have [i ci] : exists i, c i != 0.
  apply/existsP; apply: contraT; rewrite negb_exists => /forallP c0.
  have := cE (mone r D.+1); rewrite ev_mone big1 => [/eqP|i _]; first by rewrite oner_eq0.
  by have := c0 i; rewrite negbK => /eqP ->; rewrite mul0r.
exists i => s; have /eqP := zero s i.
by rewrite mulf_eq0 (negPf ci) subr_eq0 => /eqP.
Qed.

End Core.

End Principle.

(* The system: equations of degree at most deg j, and all their multiples by  *)
(* monomials, up to degree D + 1.                                             *)
Section Systems.

Variables (F : fieldType) (r q k D : nat) (deg : 'I_q -> nat).
Hypothesis deg_le : forall j, (deg j <= D.+1)%N.
Variables (eqn : forall j, pol F r (deg j)) (known : 'I_k -> 'I_r -> F).

Definition multiples : finType := [finType of {j : 'I_q & monom r (D.+1 - deg j)}].

Lemma multiple_deg j : (deg j + (D.+1 - deg j) <= D.+1)%N.
Proof. by rewrite subnKC. Qed.

Definition multiple (t : multiples) : pol F r D.+1 := fun m =>
  \sum_(m' : monom r (deg (tag t))) eqn m' *+ (mmul (multiple_deg (tag t)) m' (tagged t) == m).

Lemma poly_at_multiple (A : comRingType) (f : {rmorphism F -> A}) (t : multiples) (x : 'I_r -> A) :
  poly_at f (multiple t) x = poly_at f (@eqn (tag t)) x * ev x (tagged t).
Proof.
rewrite /poly_at mulr_suml; under eq_bigr do rewrite rmorph_sum mulr_suml.
rewrite exchange_big; apply: eq_bigr => m' _ /=.
rewrite (bigD1 (mmul (multiple_deg (tag t)) m' (tagged t))) //= eqxx big1 => [|m /negPf mm].
  by rewrite addr0 ev_mmul mulrA.
by rewrite eq_sym mm rmorph0 mul0r.
Qed.

Definition macaulay := coefmx (fun j : 'I_#|multiples| => multiple (enum_val j)).

Theorem C4 (E : fieldType) (f : {rmorphism F -> E}) :
  (#|monom r D.+1| <= \rank macaulay + k)%N ->
  (forall i j, poly_at id (@eqn j) (known i) = 0) ->
  evaluation_independent D known ->
  forall x : 'I_r -> E, (forall j, poly_at f (@eqn j) x = 0) -> exists i, x =1 f \o known i.
Proof.
move=> rk sols ind x xv; apply: (C4_core (f := f) rk) => // [i|] j.
  by rewrite (poly_at_multiple [rmorphism of @idfun F]) sols mul0r.
by rewrite poly_at_multiple xv mul0r.
Qed.

End Systems.
