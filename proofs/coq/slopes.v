(******************************************************************************)
(* Activations of two slopes, z for z > 0 and s z else (LeakyReLU, PReLU):    *)
(* docs/theory.md, 3.7, PL1. s = 0 is ReLU.                                   *)
(*                                                                            *)
(*   cand2 B V s q p  every neuron j has (B q)_j = (V p)_j or s_j (V p)_j     *)
(*   mono2 M k       the lifted unknowns, with p_c p_d beside those of C1     *)
(*   lifted2 B V s   their equations, one row per neuron                      *)
(*   PL1_candidates  if their rank is U - M, every candidate is a multiple of *)
(*                   a known solution                                         *)
(*   slopes R ws     slopes of all hidden neurons                             *)
(*   fwds, dels, grads   forward pass, delta_1, a sample's gradient           *)
(*   PL1             one layer: inputs, deltas and next deltas are determined *)
(*   PL1_batch       the batch, labels included, from any layer, where the    *)
(*                   layers below have no negative slopes                     *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From mathcomp.algebra_tactics Require Import ring.
From Exan Require Import linalg network lifting exact downward.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Lifting.

Variables (F : fieldType) (n M k : nat).
Variables (B : 'M[F]_(n, M)) (V : 'M[F]_(n, k)) (s : 'cV[F]_n).
Implicit Types (q : 'cV[F]_M) (p : 'cV[F]_k).

Definition cand2 q p : Prop :=
  forall j, (B *m q) j 0 = (V *m p) j 0 \/ (B *m q) j 0 = s j 0 * (V *m p) j 0.

Definition pairs2 : finType := [finType of {cd : 'I_k * 'I_k | (cd.1 <= cd.2)%N}].
Definition mono2 : finType := [finType of mono M k + pairs2].

(* Coefficients of ((B q)_j - (V p)_j) ((B q)_j - s_j (V p)_j).               *)
Definition scoef (j : 'I_n) (t : mono2) : F :=
  match t with
  | inl (inl ab) => let: (a, b) := val ab in (B j a * B j b) *+ (if a == b then 1%N else 2%N)
  | inl (inr (a, c)) => - ((1 + s j 0) * (B j a * V j c))
  | inr cd => let: (c, d) := val cd in (s j 0 * (V j c * V j d)) *+ (if c == d then 1%N else 2%N)
  end.

Definition lifted2 : 'M[F]_(n, #|mono2|) := coefmx scoef.

(* (S, T, W) as a vector of lifted unknowns; S and W are meant to be symmetric. *)
Definition seval (S : 'M[F]_M) (T : 'M[F]_(M, k)) (W : 'M[F]_k) (t : mono2) : F :=
  match t with
  | inl u => leval S T u
  | inr cd => let: (c, d) := val cd in W c d
  end.

Lemma seval_coef S T W j : S^T = S -> W^T = W ->
  \sum_t seval S T W t * scoef j t =
  (B *m S *m B^T) j j - (1 + s j 0) * (B *m T *m V^T) j j + s j 0 * (V *m W *m V^T) j j.
Proof.
move=> sS sW; rewrite big_sumType /=; congr (_ + _).
  rewrite big_sumType /=; congr (_ + _).
    transitivity (\sum_a \sum_b B j a * S a b * B j b); last first.
      rewrite mxE exchange_big; apply: eq_bigr => b _ /=; rewrite !mxE mulr_suml.
      by apply: eq_bigr => a _; rewrite mulrC.
    rewrite sum_symmetric => [|a b]; last first.
      by rewrite -[in S a b]sS mxE mulrC mulrA [in RHS]mulrAC mulrC.
    by apply: eq_bigr => -[[a b] ab] _ /=; rewrite mulrnAr mulrCA mulrA.
  transitivity (- ((1 + s j 0) * \sum_a \sum_c B j a * T a c * V j c)).
    rewrite pair_bigA /= mulr_sumr -sumrN; apply: eq_bigr => -[a c] _ /=; ring.
  congr (- (_ * _)); rewrite exchange_big mxE; apply: eq_bigr => c _ /=.
  by rewrite !mxE mulr_suml.
transitivity (s j 0 * \sum_c \sum_d V j c * W c d * V j d); last first.
  congr (_ * _); rewrite mxE exchange_big; apply: eq_bigr => d _ /=; rewrite !mxE mulr_suml.
  by apply: eq_bigr => c _; rewrite mulrC.
rewrite sum_symmetric => [|c d]; last first.
  by rewrite -[in W c d]sW mxE mulrC mulrA [in RHS]mulrAC mulrC.
rewrite mulr_sumr; apply: eq_bigr => -[[c d] cd] _ /=; rewrite mulrnAr -!mulrnAr.
by rewrite !mulrnAr; congr (_ *+ _); ring.
Qed.

Lemma cand2_solves q p : cand2 q p -> solves scoef (seval (q *m q^T) (q *m p^T) (p *m p^T)).
Proof.
move=> c j; rewrite seval_coef ?trmx_mul ?trmxK //.
have E r r' (A : 'M[F]_(n, r)) (A' : 'M[F]_(n, r')) (u : 'cV[F]_r) (v : 'cV[F]_r') :
    (A *m (u *m v^T) *m A'^T) j j = (A *m u) j 0 * (A' *m v) j 0.
  by rewrite mulmxA -(mulmxA (A *m u)) -trmx_mul mxE big_ord1 [in X in _ * X]mxE.
by rewrite !E; case: (c j) => ->; ring.
Qed.

(* PL1: as C1. Of a combination of known solutions the parts that C1 has are  *)
(* enough; the products p_c p_d are not looked at.                            *)
Theorem PL1_candidates (Q0 : 'M[F]_M) (P0 : 'M[F]_(k, M)) :
  Q0 \in unitmx -> (forall m, cand2 (col m Q0) (col m P0)) ->
  (#|mono2| - M <= \rank lifted2)%N ->
  forall q p, q != 0 -> cand2 q p ->
  exists m c, [/\ c != 0, q = c *: col m Q0 & p = c *: col m P0].
Proof.
move=> uQ known rk q p q0 c_qp.
pose sol (m : 'I_M) := seval (col m Q0 *m (col m Q0)^T) (col m Q0 *m (col m P0)^T) (col m P0 *m (col m P0)^T).
have card_le : (#|mono2| <= \rank lifted2 + #|'I_M|)%N by rewrite card_ord addnC -leq_subLR.
have ind : independent sol.
  by move=> c c0; apply: (known_independent (P0 := P0) uQ) => t; exact: (c0 (inl t)).
have [c Ec] := kernel_span card_le (sol := sol) (fun m => cand2_solves (known m)) ind (cand2_solves c_qp).
by apply: (known_multiple uQ q0 (c := c)) => t; exact: (Ec (inl t)).
Qed.

End Lifting.

(* Networks with slopes: those of each hidden layer, one for each neuron.     *)
Fixpoint slopes (R : ringType) (ws : seq nat) : Type :=
  if ws is n :: ws' then ('cV[R]_n * slopes R ws')%type else unit.

Arguments slopes R ws%N.

Section Networks.

Variable R : realFieldType.

Definition phi n (s z : 'cV[R]_n) : 'cV[R]_n := \col_i (if 0 < z i 0 then z i 0 else s i 0 * z i 0).

(* The derivative at z, a diagonal matrix; at zero the slope below.           *)
Definition dphi n (s z : 'cV[R]_n) : 'M[R]_n := diag_mx (\row_i (if 0 < z i 0 then 1 else s i 0)).

Lemma dphiE n (s z u : 'cV[R]_n) j : (dphi s z *m u) j 0 = (if 0 < z j 0 then 1 else s j 0) * u j 0.
Proof. by rewrite /dphi mul_diag_mx !mxE. Qed.

(* Without negative slopes the value shows the derivative.                    *)
Lemma dphi_shown n (s z z' : 'cV[R]_n) : (forall i, 0 <= s i 0) -> phi s z = phi s z' -> dphi s z = dphi s z'.
Proof.
move=> s0 /colP E; congr diag_mx; apply/rowP => i; rewrite !mxE.
have on (y : 'cV[R]_n) : (0 < y i 0) = (0 < phi s y i 0).
  rewrite mxE; case: (ltP 0 (y i 0)) => [->//|y0]; apply/esym/negbTE; rewrite -leNgt.
  exact: mulr_ge0_le0.
by rewrite (on z) (on z') E.
Qed.

Fixpoint fwds d ws K : params R d ws K -> slopes R ws -> 'cV[R]_d -> 'cV[R]_K :=
  match ws return params R d ws K -> slopes R ws -> 'cV[R]_d -> 'cV[R]_K with
  | [::] => fun N _ x => N.1 *m x + N.2
  | n :: ws' => fun N s x => fwds N.2 s.2 (phi s.1 (N.1.1 *m x + N.1.2))
  end.

Fixpoint dels d ws K : params R d ws K -> slopes R ws -> 'cV[R]_d -> 'cV[R]_K -> 'cV[R]_(head K ws) :=
  match ws return params R d ws K -> slopes R ws -> 'cV[R]_d -> 'cV[R]_K -> 'cV[R]_(head K ws) with
  | [::] => fun _ _ _ g => g
  | n :: ws' => fun N s x g =>
      let z := N.1.1 *m x + N.1.2 in
      dphi s.1 z *m ((w1 N.2)^T *m dels N.2 s.2 (phi s.1 z) g)
  end.

Fixpoint grads d ws K : params R d ws K -> slopes R ws -> 'cV[R]_d -> 'cV[R]_K -> params R d ws K :=
  match ws return params R d ws K -> slopes R ws -> 'cV[R]_d -> 'cV[R]_K -> params R d ws K with
  | [::] => fun _ _ x g => (g *m x^T, g)
  | n :: ws' => fun N s x g =>
      let delta := dels N s x g in
      ((delta *m x^T, delta), grads N.2 s.2 (phi s.1 (N.1.1 *m x + N.1.2)) g)
  end.

Definition gsums d ws K (N : params R d ws K) (s : slopes R ws) M (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) :
  params R d ws K := \sum_m grads N s (x m) (g m).

Definition bgrads d ws K (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K) (N : params R d ws K) (s : slopes R ws)
  M (x : 'I_M -> 'cV[R]_d) (y : 'I_M -> 'cV[R]_K) : params R d ws K :=
  gsums N s x (fun m => lv (fwds N s (x m)) (y m)).

Definition Dels d ws K (N : params R d ws K) (s : slopes R ws) M (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) :
  'M[R]_(head K ws, M) := cols (fun m => dels N s (x m) (g m)).

Lemma gradmx_gsums d ws K (N : params R d ws K) s M (x : 'I_M -> 'cV[R]_d) g :
  gradmx (gsums N s x g) = Dels N s x g *m lift1 x.
Proof.
rewrite /gradmx /lift1 mul_mx_row; congr row_mx.
  by rewrite /gsums w1_sum cols_outer; apply: eq_bigr => m _; case: ws N s.
by rewrite /gsums b1_sum cols_sum; apply: eq_bigr => m _; case: ws N s.
Qed.

(* With slopes 0 everywhere this is the network of network.v.                 *)
Fixpoint no_slopes ws : slopes R ws :=
  match ws return slopes R ws with [::] => tt | n :: ws' => (0, no_slopes ws') end.

Lemma grads_relu d ws K (N : params R d ws K) x g : grads N (no_slopes ws) x g = grad N x g /\
  dels N (no_slopes ws) x g = delta1 N x g /\ fwds N (no_slopes ws) x = fwd N x.
Proof.
elim: ws d N x => [|n ws IH] d N x //=.
set z := _ *m x + _; clearbody z; have -> : phi 0 z = relu z.
  by apply/colP => i; rewrite !mxE mul0r; case: (ltP 0 (z i 0)).
have -> : dphi 0 z = dmask R (active z) by congr diag_mx; apply/rowP => i; rewrite !mxE; case: (0 < _).
by have [-> [-> ->]] := IH _ N.2 (relu z).
Qed.

Section OneLayer.

Variables (d n : nat) (ws : seq nat) (K : nat).
Variables (N : params R d (n :: ws) K) (s : slopes R (n :: ws)).

Definition acts (x : 'cV[R]_d) : 'cV[R]_n := phi s.1 (N.1.1 *m x + N.1.2).
Definition dels2 (x : 'cV[R]_d) (g : 'cV[R]_K) := dels N.2 s.2 (acts x) g.

Lemma gsums_tail M (x : 'I_M -> 'cV[R]_d) g : (gsums N s x g).2 = gsums N.2 s.2 (fun m => acts (x m)) g.
Proof. by rewrite /gsums snd_sum. Qed.

(* u = C p for the next deltas of every batch with this gradient.             *)
Definition confined2 M k (G : 'cV[R]_K -> Prop) (C : 'M[R]_(head K ws, k))
    (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) : Prop :=
  forall (x' : 'I_M -> 'cV[R]_d) g', (forall m, G (g' m)) -> gsums N s x' g' = gsums N s x g ->
  forall m, exists p, dels2 (x' m) (g' m) = C *m p.

Lemma confined2_plain M G (x : 'I_M -> 'cV[R]_d) g : confined2 G 1%:M x g.
Proof. by move=> x' g' _ _ m; exists (dels2 (x' m) (g' m)); rewrite mul1mx. Qed.

Theorem PL1 M k G (C : 'M[R]_(head K ws, k)) (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) :
  confined2 G C x g ->
  \rank (gradmx (gsums N s x g)) = M ->
  (#|mono2 M k| - M <= \rank (lifted2 (Dels N s x g) ((w1 N.2)^T *m C) s.1))%N ->
  (forall m, G (g m)) -> (forall m, G (g' m)) ->
  gsums N s x' g' = gsums N s x g -> exists t : 'S_M, forall m,
  [/\ x' m = x (t m), dels N s (x' m) (g' m) = dels N s (x (t m)) (g (t m)) &
      dels2 (x' m) (g' m) = dels2 (x (t m)) (g (t m))].
Proof.
move=> conf rA rR Gg Gg' E.
have /fin_all_exists[p u] := conf _ _ Gg erefl.
have /fin_all_exists[p' u'] := conf _ _ Gg' E.
have := congr1 (@gradmx _ _ _ _) E; rewrite gradmx_gsums in rA; rewrite !gradmx_gsums => E1.
have [P [Q [PQ QP D' /eqP]]] := two_factorisations rA E1.
rewrite /lift1 mul_mx_row => /eqP/eq_row_mx[X' one].
set B := Dels N s x g in rR D' *; set V := (w1 N.2)^T *m C in rR *.
have candP (y : 'I_M -> 'cV[R]_d) h z (T : 'M[R]_M) m :
    dels2 (y m) (h m) = C *m z m -> Dels N s y h = B *m T -> cand2 B V s.1 (col m T) (z m).
  move=> uy Dy j; rewrite -mulmxA -uy.
  have -> : (B *m col m T) j 0 = dels N s (y m) (h m) j 0.
    by rewrite colE mulmxA -colE -Dy !mxE.
  by rewrite /= dphiE -/(acts _) -/(dels2 _ _); case: ifP => _; [left; rewrite mul1r | right].
have true_cand m : cand2 B V s.1 (col m 1%:M) (col m (cols p)).
  by rewrite [col m (cols p)]colsE; apply: candP (u m) _; rewrite mulmx1.
suff each m : exists a c, col m P = c *: delta_mx a 0 /\ dels2 (x' m) (g' m) = c *: dels2 (x a) (g a).
  by have [t st] := same_upto PQ (esym one) D' X' each; exists t.
have c_m := candP _ _ _ _ m (u' m) D'.
have [a [c [_ qE pE]]] :=
  PL1_candidates (@unitmx1 _ _) true_cand rR (col_unit_neq0 m (unit_from_inverses PQ)) c_m.
by exists a, c; rewrite qE u' pE colsE colE mul1mx u scalemxAr.
Qed.

End OneLayer.

(* 3.4 with slopes: below the layer, as far as none is negative.              *)
Definition no_negative n (s : 'cV[R]_n) : Prop := forall i, 0 <= s i 0.

Lemma down_slopes d n ws K (N : params R d (n :: ws) K) (s : slopes R (n :: ws)) M
    (x x' : 'I_M -> 'cV[R]_d) (g g' : 'I_M -> 'cV[R]_K) :
  gsums N s x' g' = gsums N s x g -> \rank (Dels N s x g) = M -> no_negative s.1 ->
  (forall m, acts N s (x' m) = acts N s (x m)) ->
  (forall m, dels2 N s (x' m) (g' m) = dels2 N s (x m) (g m)) ->
  forall m, x' m = x m /\ dels N s (x' m) (g' m) = dels N s (x m) (g m).
Proof.
move=> E rD s0 eh ed.
have ed1 m : dels N s (x' m) (g' m) = dels N s (x m) (g m).
  rewrite /= -!/(acts _ _ _) -!/(dels2 _ _ _ _) ed; congr (_ *m _).
  exact: (dphi_shown s0 (eh m)).
have eD : Dels N s x' g' = Dels N s x g by apply: eq_cols.
have := congr1 (@gradmx _ _ _ _) E; rewrite !gradmx_gsums eD => /(full_column_rank rD)/eq_row_mx[+ _].
by move/trmx_inj/cols_inj => ex m; split.
Qed.

Fixpoint top_slopes ws1 p ws2 : slopes R (ws1 ++ p :: ws2) -> slopes R ws2 :=
  match ws1 return slopes R (ws1 ++ p :: ws2) -> slopes R ws2 with
  | [::] => fun s => s.2
  | n :: ws1' => fun s => top_slopes s.2
  end.

Fixpoint hids d ws1 p ws2 K : params R d (ws1 ++ p :: ws2) K -> slopes R (ws1 ++ p :: ws2) -> 'cV[R]_d -> 'cV[R]_p :=
  match ws1 return params R d (ws1 ++ p :: ws2) K -> slopes R (ws1 ++ p :: ws2) -> 'cV[R]_d -> 'cV[R]_p with
  | [::] => fun N s x => acts N s x
  | n :: ws1' => fun N s x => hids (p := p) (N : params R d (n :: ws1' ++ p :: ws2) K).2 s.2 (acts N s x)
  end.

Fixpoint lower_slopes d ws1 p ws2 K M :
    params R d (ws1 ++ p :: ws2) K -> slopes R (ws1 ++ p :: ws2) -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_K) -> Prop :=
  match ws1 return params R d (ws1 ++ p :: ws2) K -> slopes R (ws1 ++ p :: ws2) ->
      ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_K) -> Prop with
  | [::] => fun N s x g => \rank (Dels N s x g) = M /\ no_negative s.1
  | n :: ws1' => fun N s x g => (\rank (Dels N s x g) = M /\ no_negative s.1) /\
      lower_slopes (p := p) (N : params R d (n :: ws1' ++ p :: ws2) K).2 s.2 (fun m => acts N s (x m)) g
  end.

Lemma fwds_top d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) s x :
  fwds N s x = fwds (topp N) (top_slopes s) (hids N s x).
Proof. by elim: ws1 d N s x => [|n ws1 IH] d N s x //=; rewrite IH. Qed.

Lemma gsums_top d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) s M (x : 'I_M -> 'cV[R]_d) g :
  topp (gsums N s x g) = gsums (topp N) (top_slopes s) (fun m => hids N s (x m)) g.
Proof.
rewrite /gsums topp_sum; apply: eq_bigr => m _.
by elim: ws1 d N s x => [|n ws1 IH] d N s x //=; rewrite (IH _ N.2 s.2 (fun m => acts N s (x m))).
Qed.

Lemma downward_slopes d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) s M (x x' : 'I_M -> 'cV[R]_d) g g' :
  gsums N s x' g' = gsums N s x g -> lower_slopes N s x g ->
  (forall m, hids N s (x' m) = hids N s (x m)) ->
  (forall m, dels (topp N) (top_slopes s) (hids N s (x' m)) (g' m) =
             dels (topp N) (top_slopes s) (hids N s (x m)) (g m)) ->
  forall m, x' m = x m /\ dels N s (x' m) (g' m) = dels N s (x m) (g m).
Proof.
elim: ws1 d N s x x' => [|n ws1 IH] d N s x x' E /=.
  by case=> rD s0 eh ed; apply: down_slopes.
case=> -[rD s0] lf eh ed.
have E2 : gsums N.2 s.2 (fun m => acts N s (x' m)) g' = gsums N.2 s.2 (fun m => acts N s (x m)) g.
  by rewrite -!gsums_tail E.
have {}IH := IH _ _ _ _ _ E2 lf eh ed.
by apply: down_slopes => // m; case: (IH m).
Qed.

Lemma lower_slopes_perm d ws1 p ws2 K (N : params R d (ws1 ++ p :: ws2) K) s M (x : 'I_M -> 'cV[R]_d) g (t : 'S_M) :
  lower_slopes N s x g -> lower_slopes N s (fun m => x (t m)) (fun m => g (t m)).
Proof.
have rank_perm d' ws K' (N' : params R d' ws K') s' (y : 'I_M -> 'cV[R]_d') h :
    \rank (Dels N' s' (fun m => y (t m)) (fun m => h (t m))) = \rank (Dels N' s' y h).
  have -> : Dels N' s' (fun m => y (t m)) (fun m => h (t m)) = col_perm t (Dels N' s' y h).
    by apply/matrixP => i m; rewrite !mxE.
  by rewrite col_permE mxrankMfree // row_free_unit unitmx_perm.
elim: ws1 d N s x => [|n ws1 IH] d N s x /=.
  by case=> rD s0; split=> //; exact: etrans (@rank_perm d (p :: ws2) K N s x g) rD.
case=> -[rD s0] lf; split; last exact: (IH _ N.2 s.2 (fun m => acts N s (x m)) lf).
by split=> //; exact: etrans (@rank_perm d (n :: (ws1 ++ p :: ws2)) K N s x g) rD.
Qed.

Section Batch.

Variables (K : nat) (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K).
Implicit Types (adm G : 'cV[R]_K -> Prop).

(* No other admitted label of a sample gives the same next delta.             *)
Definition told2 d n ws (N : params R d (n :: ws) K) s adm (x : 'cV[R]_d) (y : 'cV[R]_K) : Prop :=
  forall y', adm y' -> dels2 N s x (lv (fwds N s x) y') = dels2 N s x (lv (fwds N s x) y) -> y' = y.

Theorem PL1_batch_first d n ws (N : params R d (n :: ws) K) s adm M k G (C : 'M[R]_(head K ws, k))
    (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) :
  let g m := lv (fwds N s (x m)) (y m) in
  (forall f l, adm l -> G (lv f l)) -> confined2 N s G C x g ->
  \rank (gradmx (gsums N s x g)) = M ->
  (#|mono2 M k| - M <= \rank (lifted2 (Dels N s x g) ((w1 N.2)^T *m C) s.1))%N ->
  (forall m, told2 N s adm (x m) (y m)) -> (forall m, adm (y m)) -> (forall m, adm (y' m)) ->
  bgrads lv N s x' y' = bgrads lv N s x y -> same_batch x x' y y'.
Proof.
move=> g admG conf rA rR told ay ay' E.
have [||t st] := PL1 conf rA rR _ _ E; try by move=> m; apply: admG.
exists t => m; have [ex _ ed] := st m; split=> //; apply: told => //.
by move: ed; rewrite /g ex.
Qed.

(* At a higher layer, whose input is the hidden layer of width p.             *)
Theorem PL1_batch d ws1 p n ws2 (N : params R d (ws1 ++ p :: n :: ws2) K) s adm M k G
    (C : 'M[R]_(head K ws2, k)) (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) :
  let g m := lv (fwds N s (x m)) (y m) in
  let T : params R p (n :: ws2) K := topp N in
  let u : slopes R (n :: ws2) := top_slopes s in
  let h m := hids N s (x m) in
  (forall f l, adm l -> G (lv f l)) -> confined2 T u G C h g ->
  \rank (gradmx (gsums T u h g)) = M ->
  (#|mono2 M k| - M <= \rank (lifted2 (Dels T u h g) ((w1 T.2)^T *m C) u.1))%N ->
  lower_slopes N s x g -> (forall m, told2 T u adm (h m) (y m)) ->
  (forall m, adm (y m)) -> (forall m, adm (y' m)) ->
  bgrads lv N s x' y' = bgrads lv N s x y -> same_batch x x' y y'.
Proof.
move=> g T u h admG conf rA rR lf told ay ay' E.
pose g' m := lv (fwds N s (x' m)) (y' m); pose h' m := hids N s (x' m).
have ET : gsums T u h' g' = gsums T u h g by rewrite -!gsums_top; congr (topp _).
have [||t st] := PL1 conf rA rR _ _ ET; try by move=> m; apply: admG.
have Es : gsums N s x' g' = gsums N s (fun m => x (t m)) (fun m => g (t m)).
  by rewrite -[LHS]/(bgrads lv N s x' y') E /bgrads /gsums [LHS](reindex_inj (@perm_inj _ t)).
have xs m : x' m = x (t m).
  by case: (downward_slopes Es (lower_slopes_perm t lf) _ _ m) => // m'; case: (st m').
exists t => m; split=> //; apply: told => //.
have [eh _ ed] := st m; move: ed; rewrite eh /g' /g !fwds_top -/T -/u.
by rewrite -/(h (t m)) -/(h' m) eh.
Qed.

End Batch.

End Networks.
