(******************************************************************************)
(* The published insecure side, with the hypothesis that makes it true        *)
(* (docs/theory.md, P1). The secure side for two samples (P2) is in pairs.v.  *)
(*                                                                            *)
(*   live N x g j m    j is exclusive to m and its delta is not zero          *)
(*   apart a b         the live exclusive neurons of a and b admit no next    *)
(*                     delta that mixes a and b                               *)
(*   apart_combination one combination of the equations is enough for it      *)
(*   apart_span        so are outgoing weights that span, for each sample, if *)
(*                     the next deltas are not parallel                       *)
(*   P1_layer          one layer is determined                                *)
(*   P1_batch_first    and so is the batch, labels included                   *)
(*   P1_batch          the same for deeper networks, by one live exclusive    *)
(*                     neuron per sample in every hidden layer below          *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network exclusive lifting exact downward labels.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Live.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variables (N : params R d (n :: ws) K) (M : nat).
Variables (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K).

Definition live (j : 'I_n) (m : 'I_M) : Prop :=
  exclusive N x j m /\ delta1 N (x m) (g m) j 0 != 0.

Lemma live_delta j m m' : exclusive N x j m -> m' != m -> delta1 N (x m') (g m') j 0 = 0.
Proof. by move=> ex mm'; apply: inactive_delta; rewrite ex. Qed.

(* Some live neuron for each sample: Delta has full column rank. *)
Lemma live_rank : (forall m, exists j, live j m) -> \rank (Delta1 N x g) = M.
Proof.
move=> liv; apply/eqP; rewrite -mxrank_tr; apply/inj_row_free => v vD.
apply/rowP => m; have [j [ex dn0]] := liv m; rewrite [RHS]mxE.
have DE m' : Delta1 N x g j m' = delta1 N (x m') (g m') j 0 by rewrite mxE.
have /rowP/(_ j) := vD; rewrite mxE [RHS]mxE (bigD1 m) //= big1 => [|m' mm'].
  by rewrite mxE DE addr0 => /eqP; rewrite mulf_eq0 (negPf dn0) orbF => /eqP.
by rewrite [X in _ * X]mxE DE (live_delta ex mm') mulr0.
Qed.

(* And so have the features of the layer. *)
Lemma exclusive_features : (forall m, exists j, exclusive N x j m) ->
  \rank (lift1 (fun m => act N (x m))) = M.
Proof.
move=> exs; apply/eqP/inj_row_free => v.
rewrite /lift1 mul_mx_row => /eqP; rewrite -[0](@row_mx0 _ 1) => /eqP/eq_row_mx[vH _].
apply/rowP => m; have [j ex] := exs m; rewrite [RHS]mxE.
have aE m' : act N (x m') j 0 = if is_active N x j m' then (N.1.1 *m x m' + N.1.2) j 0 else 0.
  by rewrite /act relu_mask dmaskE [X in if X then _ else _]mxE.
have /rowP/(_ j) := vH; rewrite mxE [RHS]mxE (bigD1 m) //= big1 => [|m' mm'].
  rewrite [X in _ * X]mxE [X in _ * X]mxE aE ex eqxx addr0 => /eqP; rewrite mulf_eq0.
  by have := ex m; rewrite eqxx /is_active => /gt_eqF ->; rewrite orbF => /eqP.
by rewrite [X in _ * X]mxE [X in _ * X]mxE aE ex (negPf mm') mulr0.
Qed.

End Live.

Section Apart.

Variables (R : realFieldType) (d n : nat) (ws : seq nat) (K : nat).
Variables (N : params R d (n :: ws) K) (M k : nat) (C : 'M[R]_(head K ws, k)).
Variables (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K).

Let V : 'M[R]_(n, k) := (w1 N.2)^T *m C.
Let D : 'M[R]_(n, M) := Delta1 N x g.

Lemma live_D j m m' : live N x g j m -> m' != m -> D j m' = 0.
Proof. by case=> ex _ mm'; rewrite mxE (live_delta g ex mm'). Qed.

(* p: coordinates of a next delta; s and t: its shares of a and b. *)
Definition apart (a b : 'I_M) : Prop := forall (p : 'cV[R]_k) (s t : R),
  (forall j, live N x g j a -> (V *m p) j 0 = s * D j a) ->
  (forall j, live N x g j b -> (V *m p) j 0 = t * D j b) -> s * t = 0.

(* One combination of the equations is enough (and there is one whenever the  *)
(* rank of the equations exceeds that of the outgoing weights by two).        *)
Lemma apart_combination (a b : 'I_M) (l : 'rV[R]_n) : a != b ->
  (forall j, l 0 j != 0 -> live N x g j a \/ live N x g j b) ->
  l *m V = 0 -> (l *m D) 0 a != 0 -> (l *m D) 0 b = 0 -> apart a b.
Proof.
move=> ab supp lV la lb p s t pa pb.
have : (l *m V *m p) 0 0 = s * (l *m D) 0 a + t * (l *m D) 0 b.
  rewrite -mulmxA ![(l *m _) 0 _]mxE !mulr_sumr -big_split /=; apply: eq_bigr => j _.
  have [->|/supp[lj|lj]] := eqVneq (l 0 j) 0; first by rewrite !mul0r !mulr0 addr0.
    have z : D j b = 0 by apply: (live_D lj); rewrite eq_sym.
    by rewrite pa // z !mulr0 addr0 mulrCA.
  by rewrite pb // (live_D lj ab) !mulr0 add0r mulrCA.
rewrite lV mul0mx mxE lb mulr0 addr0 => /esym/eqP; rewrite mulf_eq0 (negPf la) orbF => /eqP ->.
by rewrite mul0r.
Qed.

(* Outgoing weights that span for each of the two samples.                    *)
Lemma apart_span (a b : 'I_M) (La Lb : 'M[R]_(k, n)) (pa pb : 'cV[R]_k) :
  delta2 N (x a) (g a) = C *m pa -> delta2 N (x b) (g b) = C *m pb ->
  (forall i j, La i j != 0 -> live N x g j a) -> La *m V = 1%:M ->
  (forall i j, Lb i j != 0 -> live N x g j b) -> Lb *m V = 1%:M ->
  (forall s t, s *: pa = t *: pb -> s * t = 0) -> apart a b.
Proof.
move=> ea eb sa LaV sb LbV par p s t ha hb; apply: par.
have span (m : 'I_M) (L : 'M[R]_(k, n)) (q : 'cV[R]_k) (r : R) :
    delta2 N (x m) (g m) = C *m q -> (forall i j, L i j != 0 -> live N x g j m) -> L *m V = 1%:M ->
    (forall j, live N x g j m -> (V *m p) j 0 = r * D j m) -> p = r *: q.
  move=> e sL LV h; rewrite -[p]mul1mx -[q]mul1mx -LV scalemxAr -(mulmxA L V p) -(mulmxA L V (r *: q)); apply/colP => i.
  rewrite [LHS]mxE [RHS]mxE; apply: eq_bigr => j _.
  have [->|/sL lj] := eqVneq (L i j) 0; first by rewrite !mul0r.
  congr (_ * _); rewrite h // -scalemxAr [RHS]mxE; congr (_ * _).
  rewrite /V -mulmxA -e mxE /= dmaskE [X in if X then _ else _]mxE.
  by have := (proj1 lj) m; rewrite eqxx /is_active => ->.
by rewrite -(span _ _ _ _ ea sa LaV ha) -(span _ _ _ _ eb sb LbV hb).
Qed.

Theorem P1_layer (G : 'cV[R]_K -> Prop) (x' : 'I_M -> 'cV[R]_d) (g' : 'I_M -> 'cV[R]_K) :
  confined N G C x g -> (forall a b, a != b -> apart a b) ->
  \rank (gradmx (gsum N x g)) = M -> (forall m, G (g' m)) -> gsum N x' g' = gsum N x g ->
  exists s : 'S_M, forall m, x' m = x (s m) /\
    delta1 N (x' m) (g' m) = delta1 N (x (s m)) (g (s m)).
Proof.
move=> conf ap rA Gg' E; have [P [Q [PQ QP Q1 D' X']]] := factorisations rA E.
have uP := unit_from_inverses PQ.
have D'E j m : delta1 N (x' m) (g' m) j 0 = (D *m P) j m by rewrite /D -D' [RHS]mxE.
have share m a j p : delta2 N (x' m) (g' m) = C *m p -> P a m != 0 -> live N x g j a ->
    (V *m p) j 0 = P a m * D j a.
  move=> e Pam lj; have one : (D *m P) j m = P a m * D j a.
    rewrite mxE (bigD1 a) //= big1 ?addr0 1?mulrC // => b ba.
    by rewrite (live_D lj ba) mul0r.
  have Dn0 : D j a != 0 by rewrite mxE; case: lj.
  have [z|] := inactive_or_active N (x' m) (g' m) j; last first.
    by rewrite e D'E one mulmxA.
  by have := D'E j m; rewrite z one => /esym/eqP; rewrite mulf_eq0 (negPf Pam) (negPf Dn0).
have /fin_all_exists[f sol] m : exists a, forall b, b != a -> P b m = 0.
  have [a Pa] : exists a, P a m != 0.
    apply/existsP; apply: contraNT (col_unit_neq0 m uP); rewrite negb_exists => /forallP z.
    by apply/eqP/colP => b; rewrite !mxE; apply/eqP; rewrite -[_ == _]negbK z.
  exists a => b ba; apply/eqP; apply: contraT => Pb.
  have [p e] := conf _ _ Gg' E m.
  have := ap b a ba p _ _ (fun j => share m b j p e Pb) (fun j => share m a j p e Pa).
  by move/eqP; rewrite mulf_eq0 (negPf Pa) (negPf Pb).
have Pcol m : col m P = P (f m) m *: delta_mx (f m) 0.
  apply/colP => b; rewrite !mxE andbT; have [->|bf] := eqVneq b (f m); first by rewrite mulr1.
  by rewrite sol // mulr0.
have [s_inj c1] := monomial_permutation PQ Q1 Pcol.
have Pij i j : P i j = (i == f j)%:R.
  by have [->|ij] := eqVneq i (f j); [rewrite c1 | rewrite sol].
exists (perm s_inj) => m; rewrite permE; split.
  have xE : (cols x)^T = P *m (cols x')^T by rewrite X' mulmxA PQ mul1mx.
  apply/colP => i; have /matrixP/(_ (f m) i) := xE.
  rewrite mxE [RHS]mxE (bigD1 m) //= big1 => [|j jm]; rewrite Pij.
    by rewrite eqxx mul1r addr0 !mxE.
  by rewrite (inj_eq s_inj) eq_sym (negPf jm) mul0r.
apply/colP => j; rewrite D'E mxE (bigD1 (f m)) //= big1 => [|b bf]; rewrite Pij.
  by rewrite eqxx mulr1 addr0 mxE.
by rewrite (negPf bf) mulr0.
Qed.

End Apart.

(* The published condition on the hidden layers below.                        *)
Section Below.

Variable R : realFieldType.

Fixpoint live_below d ws1 p ws2 K M :
    params R d (ws1 ++ p :: ws2) K -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_K) -> Prop :=
  match ws1 return params R d (ws1 ++ p :: ws2) K -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_K) -> Prop with
  | [::] => fun N x g => forall m, exists j, live N x g j m
  | n :: ws1' => fun N x g =>
      (forall m, exists j, live N x g j m) /\ live_below N.2 (fun m => act N (x m)) g
  end.

Lemma live_lower d ws1 p ws2 K M (N : params R d (ws1 ++ p :: ws2) K)
    (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) : live_below N x g -> lower_full N x g.
Proof.
elim: ws1 d N x => [|n ws1 IH] d N x /=; first exact: live_rank.
by case=> /live_rank rD /IH.
Qed.

End Below.

Section Batch.

Variables (R : realFieldType) (K : nat) (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K).
Implicit Types (adm G : 'cV[R]_K -> Prop).

(* The loss vector tells an admitted label, the logits being known. *)
Definition vector_tells_label adm : Prop :=
  forall f l l', adm l -> adm l' -> lv f l' = lv f l -> l' = l.

(* One hidden layer.                                                          *)
Theorem P1_batch_first d n (N : params R d [:: n] K) adm M k G
    (C : 'M[R]_(K, k)) (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) :
  let g := lossvecs lv N x y in
  (forall f l, adm l -> G (lv f l)) -> confined N G C x g ->
  \rank (gradmx (gsum N x g)) = M ->
  (forall m, exists j, exclusive N x j m) -> (forall a b, a != b -> apart N C x g a b) ->
  vector_tells_label adm -> (forall m, adm (y m)) -> (forall m, adm (y' m)) ->
  bgrad lv N x' y' = bgrad lv N x y -> same_batch x x' y y'.
Proof.
move=> g admG conf rA exs ap told ay ay' E.
have [|s st] := P1_layer conf ap rA _ E; first by move=> m; apply: admG.
exists s => m; have [ex _] := st m; split=> //.
pose T2 : params R n [::] K := N.2.
have E2 : gsum T2 (fun m => act N (x' m)) (lossvecs lv N x' y') =
    gsum T2 (fun m => act N (x m)) g.
  by rewrite -!(@gsum_tail _ d n [::] K N); congr (_.2).
have hE m' : act N (x' m') = act N (x (s m')) by case: (st m') => ->.
have := output_vectors (exclusive_features exs) hE E2 m.
by rewrite /g /lossvecs ex; apply: told.
Qed.

(* Any number of hidden layers; n is the width of the last one.               *)
Theorem P1_batch d ws1 p n (N : params R d (ws1 ++ [:: p; n]) K) adm M k G
    (C : 'M[R]_(K, k)) (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) :
  let g := lossvecs lv N x y in
  let T : params R p [:: n] K := topp N in
  let h m := hid N (x m) in
  (forall f l, adm l -> G (lv f l)) -> confined T G C h g ->
  \rank (gradmx (gsum T h g)) = M ->
  (forall m, exists j, exclusive T h j m) -> (forall a b, a != b -> apart T C h g a b) ->
  live_below N x g ->
  vector_tells_label adm -> (forall m, adm (y m)) -> (forall m, adm (y' m)) ->
  bgrad lv N x' y' = bgrad lv N x y -> same_batch x x' y y'.
Proof.
move=> g T h admG conf rA exs ap /live_lower lf told ay ay' E.
pose g' := lossvecs lv N x' y'; pose h' m := hid N (x' m).
have ET : gsum T h' g' = gsum T h g by rewrite -!gsum_topp; congr (topp _).
have [|s st] := P1_layer conf ap rA _ ET; first by move=> m; apply: admG.
have xs : forall m, x' m = x (s m) by apply: downward_upto E lf _ _ => m; case: (st m).
exists s => m; split=> //.
pose T2 : params R n [::] K := T.2.
have E2 : gsum T2 (fun m => act T (h' m)) g' = gsum T2 (fun m => act T (h m)) g.
  by rewrite -!(@gsum_tail _ p n [::] K T) ET.
have hE m' : act T (h' m') = act T (h (s m')) by case: (st m') => ->.
have := output_vectors (exclusive_features exs) hE E2 m.
by rewrite /g' /g /lossvecs xs; apply: told.
Qed.

End Batch.
