(******************************************************************************)
(* Layers with shared weights below a fully connected head, as convolutions   *)
(* with any padding and stride: docs/theory.md, section 10, CV1.              *)
(*                                                                            *)
(*   stages d es     a chain of stages on d coordinates; es lists for each    *)
(*                   the numbers of weights and of outputs. A stage's matrix  *)
(*                   is a linear map of its weights: sum_e w_e E_e            *)
(*   stage_map C     the matrix of the first stage                            *)
(*   features C x    the output of the last stage                             *)
(*   sdelta C x u    the first stage's delta, when u is the gradient of the   *)
(*                   loss by the features                                     *)
(*   sgrads C x u    weight gradients, stage by stage: delta^T E_e h          *)
(*   determined C x u   the homogeneous system of each stage has only the     *)
(*                   solution zero                                            *)
(*   CV1_step        equal outputs and deltas of a stage: equal inputs        *)
(*   CV1             what the head determines is determined down to the       *)
(*                   pictures                                                 *)
(*   added C A S x   relu of it is a sum of branches: A on the features of    *)
(*                   the inner branch C, and S on x itself                    *)
(*   CV1_sum         equal sums and deltas, where the weight gradient of A    *)
(*                   alone tells what it takes: equal inputs                  *)
(*   CV1_shortcut    the same where the weight gradient of S tells the inputs *)
(*   convolution w b the stage that a convolution is: its weights' matrices   *)
(*                   have a one where a tap takes a pixel                     *)
(*   convolutionE, convolution_gradient   its outputs and its weight gradient *)
(*                   are sums over taps, or positions                         *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network exact downward.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Notation shapes := (seq (nat * nat)).

Section Stages.

Variable R : realFieldType.

(* E_e, the weights and the biases on all outputs.                            *)
Definition stage d (e n : nat) : Type := ((('I_e -> 'M[R]_(n, d)) * 'cV[R]_e) * 'cV[R]_n)%type.

Fixpoint stages d (es : shapes) : Type :=
  if es is (e, n) :: es' then (stage d e n * stages n es')%type else unit.

Fixpoint width d (es : shapes) : nat := if es is (_, n) :: es' then width n es' else d.

Definition stage_map d e n (A : stage d e n) : 'M[R]_(n, d) := \sum_i A.1.2 i 0 *: A.1.1 i.

Definition sact d e n (A : stage d e n) (x : 'cV[R]_d) : 'cV[R]_n := relu (stage_map A *m x + A.2).

Fixpoint features d (es : shapes) : stages d es -> 'cV[R]_d -> 'cV[R]_(width d es) :=
  match es return stages d es -> 'cV[R]_d -> 'cV[R]_(width d es) with
  | [::] => fun _ x => x
  | (e, n) :: es' => fun C x => features C.2 (sact C.1 x)
  end.

(* The gradient by the stage's input; at a stage, delta = D (that above).     *)
Definition sdelta d e n (A : stage d e n) (x : 'cV[R]_d) (u : 'cV[R]_n) : 'cV[R]_n :=
  dmask R (active (stage_map A *m x + A.2)) *m u.

Fixpoint input_gradient d (es : shapes) : stages d es -> 'cV[R]_d -> 'cV[R]_(width d es) -> 'cV[R]_d :=
  match es return stages d es -> 'cV[R]_d -> 'cV[R]_(width d es) -> 'cV[R]_d with
  | [::] => fun _ _ u => u
  | (e, n) :: es' => fun C x u =>
      (stage_map C.1)^T *m sdelta C.1 x (input_gradient C.2 (sact C.1 x) u)
  end.

(* The derivative by the weight e is that of the stage's matrix, E_e.         *)
Definition weight_gradient d e n (A : stage d e n) (x : 'cV[R]_d) (delta : 'cV[R]_n) : 'cV[R]_e :=
  \col_i (delta^T *m (A.1.1 i *m x)) 0 0.

Fixpoint same_gradients d (es : shapes) M : stages d es -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_d) ->
    ('I_M -> 'cV[R]_(width d es)) -> ('I_M -> 'cV[R]_(width d es)) -> Prop :=
  match es return stages d es -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_d) ->
      ('I_M -> 'cV[R]_(width d es)) -> ('I_M -> 'cV[R]_(width d es)) -> Prop with
  | [::] => fun _ _ _ _ _ => True
  | (e, n) :: es' => fun C x x' u u' =>
      let delta y v m := sdelta C.1 (y m) (input_gradient C.2 (sact C.1 (y m)) (v m)) in
      \sum_m weight_gradient C.1 (x' m) (delta x' u' m) = \sum_m weight_gradient C.1 (x m) (delta x u m) /\
      same_gradients C.2 (fun m => sact C.1 (x m)) (fun m => sact C.1 (x' m)) u u'
  end.

(* The homogeneous system of a stage in v_1, ..., v_M: active outputs, and    *)
(* the weight gradients.                                                      *)
Definition full d e n (A : stage d e n) M (x : 'I_M -> 'cV[R]_d) (delta : 'I_M -> 'cV[R]_n) : Prop :=
  forall v : 'I_M -> 'cV[R]_d,
  (forall m j, active (stage_map A *m x m + A.2) j 0 -> (stage_map A *m v m) j 0 = 0) ->
  \sum_m weight_gradient A (v m) (delta m) = 0 -> forall m, v m = 0.

Fixpoint determined d (es : shapes) M : stages d es -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_(width d es)) -> Prop :=
  match es return stages d es -> ('I_M -> 'cV[R]_d) -> ('I_M -> 'cV[R]_(width d es)) -> Prop with
  | [::] => fun _ _ _ => True
  | (e, n) :: es' => fun C x u =>
      full C.1 x (fun m => sdelta C.1 (x m) (input_gradient C.2 (sact C.1 (x m)) (u m))) /\
      determined C.2 (fun m => sact C.1 (x m)) u
  end.

Lemma weight_gradientB d e n (A : stage d e n) x x' delta :
  weight_gradient A (x' - x) delta = weight_gradient A x' delta - weight_gradient A x delta.
Proof. by apply/colP => i; rewrite [LHS]mxE !mulmxBr !mxE. Qed.

(* down_step with more rows: the bias gradients are not used.                 *)
Lemma CV1_step d e n (A : stage d e n) M (x x' : 'I_M -> 'cV[R]_d) (w w' : 'I_M -> 'cV[R]_n) :
  let delta y v m := sdelta A (y m) (v m) in
  (forall m, sact A (x' m) = sact A (x m)) -> (forall m, w' m = w m) ->
  \sum_m weight_gradient A (x' m) (delta x' w' m) = \sum_m weight_gradient A (x m) (delta x w m) ->
  full A x (delta x w) -> forall m, x' m = x m.
Proof.
move=> delta eh ew eg rk m.
have pat i : active (stage_map A *m x' i + A.2) = active (stage_map A *m x i + A.2).
  by rewrite -active_relu -/(sact A _) eh /sact active_relu.
have ed i : delta x' w' i = delta x w i by rewrite /delta /sdelta pat ew.
apply/eqP; rewrite -subr_eq0; apply/eqP; apply: (rk (fun m => x' m - x m)) => [i j on|].
  have := congr1 (fun z : 'cV_n => z j 0) (eh i); rewrite /sact !relu_mask !dmaskE pat on => E.
  have {}E : (stage_map A *m x' i) j 0 = (stage_map A *m x i) j 0.
    by move: E; rewrite [LHS]mxE [RHS]mxE => /addIr.
  by rewrite mulmxBr [LHS]mxE E [X in _ + X]mxE subrr.
rewrite (eq_bigr (fun i => weight_gradient A (x' i) (delta x w i) - weight_gradient A (x i) (delta x w i))) => [|i _].
  rewrite sumrB -eg; apply/eqP; rewrite subr_eq0; apply/eqP.
  by apply: eq_bigr => i _; rewrite ed.
exact: weight_gradientB.
Qed.

Theorem CV1_down d es (C : stages d es) M (x x' : 'I_M -> 'cV[R]_d) (u u' : 'I_M -> 'cV[R]_(width d es)) :
  (forall m, features C (x' m) = features C (x m)) -> (forall m, u' m = u m) ->
  same_gradients C x x' u u' -> determined C x u -> forall m, x' m = x m.
Proof.
elim: es d C x x' u u' => [|[e n] es IH] d C x x' u u' ef eu //= [eg rest] [rk det].
have ea := IH _ _ _ _ _ _ ef eu rest det.
by apply: (CV1_step ea _ eg rk) => m; rewrite ea eu.
Qed.

(* The order of the samples. *)
Lemma same_gradients_perm d es (C : stages d es) M (x x' : 'I_M -> 'cV[R]_d) u u' (s : 'S_M) :
  same_gradients C x x' u u' -> same_gradients C (fun m => x (s m)) x' (fun m => u (s m)) u'.
Proof.
elim: es d C x x' u u' => [|[e n] es IH] d C x x' u u' //= [eg rest]; split; last exact: IH rest.
by rewrite eg [LHS](reindex_inj (@perm_inj _ s)).
Qed.

Lemma full_perm d e n (A : stage d e n) M (x : 'I_M -> 'cV[R]_d) delta (s : 'S_M) :
  full A x delta -> full A (fun m => x (s m)) (fun m => delta (s m)).
Proof.
move=> rk v on eg m; rewrite -(permK s m).
apply: (rk (fun i => v ((s^-1)%g i))) => [i j|].
  by have := on ((s^-1)%g i) j; rewrite permKV.
by rewrite (reindex_inj (@perm_inj _ s)) -[RHS]eg; apply: eq_bigr => i _; rewrite permK.
Qed.

Lemma determined_perm d es (C : stages d es) M (x : 'I_M -> 'cV[R]_d) u (s : 'S_M) :
  determined C x u -> determined C (fun m => x (s m)) (fun m => u (s m)).
Proof.
elim: es d C x u => [|[e n] es IH] d C x u //= [rk det]; split; last exact: (IH _ _ (fun m => sact C.1 (x m))).
exact: (full_perm (s := s) rk).
Qed.

(* The head on the features; its part of the gradient alone determines these  *)
(* and the labels (H1).                                                       *)
Variables (d : nat) (es : shapes) (C : stages d es) (ws : seq nat) (K : nat).
Variables (N : params R (width d es) ws K) (lv : 'cV[R]_K -> 'cV[R]_K -> 'cV[R]_K).

Definition head_gradient (x : 'cV[R]_d) (y : 'cV[R]_K) : 'cV[R]_(width d es) :=
  (w1 N)^T *m delta1 N (features C x) (lv (fwd N (features C x)) y).

Theorem CV1 (adm : 'cV[R]_K -> Prop) M (x x' : 'I_M -> 'cV[R]_d) (y y' : 'I_M -> 'cV[R]_K) :
  let h m := features C (x m) in
  let h' m := features C (x' m) in
  let u m := head_gradient (x m) (y m) in
  let u' m := head_gradient (x' m) (y' m) in
  (forall f l, (forall m, adm (l m)) -> bgrad lv N f l = bgrad lv N h y -> same_batch h f y l) ->
  determined C x u -> (forall m, adm (y' m)) ->
  bgrad lv N h' y' = bgrad lv N h y -> same_gradients C x x' u u' -> same_batch x x' y y'.
Proof.
move=> h h' u u' H1 det ay' E eg; have [s st] := H1 h' y' ay' E.
exists s => m; split; last by case: (st m).
apply: (CV1_down (u := fun m => u (s m)) (u' := u') (x := fun m => x (s m))) => [i|i||].
- exact: (st i).1.
- by have [ef ey] := st i; rewrite /h' /h in ef; rewrite /u' /u /head_gradient ef ey.
- exact: same_gradients_perm.
exact: determined_perm.
Qed.

End Stages.

Section Sums.
Variable R : realFieldType.

(* relu (A u + c + S x), u the features of the inner branch C at x.           *)
Definition added d es e n (C : stages R d es) (A : stage R (width d es) e n) (S : 'M[R]_(n, d)) (x : 'cV[R]_d) : 'cV[R]_n :=
  stage_map A *m features C x + A.2 + S *m x.

Theorem CV1_sum d es e n (C : stages R d es) (A : stage R (width d es) e n) (S : 'M[R]_(n, d)) M
    (x x' : 'I_M -> 'cV[R]_d) (w w' : 'I_M -> 'cV[R]_n) :
  let delta y v m := dmask R (active (added C A S (y m))) *m v m in
  let u m := (stage_map A)^T *m delta x w m in
  let u' m := (stage_map A)^T *m delta x' w' m in
  (forall m, relu (added C A S (x' m)) = relu (added C A S (x m))) -> (forall m, w' m = w m) ->
  \sum_m weight_gradient A (features C (x' m)) (delta x' w' m) =
    \sum_m weight_gradient A (features C (x m)) (delta x w m) ->
  (forall v, \sum_m weight_gradient A (v m) (delta x w m) = 0 -> forall m, v m = 0) ->
  same_gradients C x x' u u' -> determined C x u -> forall m, x' m = x m.
Proof.
move=> delta u u' eh ew eg alone rest det.
have pat i : active (added C A S (x' i)) = active (added C A S (x i)).
  by rewrite -active_relu eh active_relu.
have ed i : delta x' w' i = delta x w i by rewrite /delta pat ew.
have ef m : features C (x' m) = features C (x m).
  apply/eqP; rewrite -subr_eq0; apply/eqP.
  apply: (alone (fun m => features C (x' m) - features C (x m))).
  rewrite (eq_bigr (fun i => weight_gradient A (features C (x' i)) (delta x w i) -
                             weight_gradient A (features C (x i)) (delta x w i))) => [|i _].
    rewrite sumrB -eg; apply/eqP; rewrite subr_eq0; apply/eqP.
    by apply: eq_bigr => i _; rewrite ed.
  exact: weight_gradientB.
by apply: (CV1_down ef _ rest det) => m; rewrite /u' /u ed.
Qed.

(* Where the shortcut is a convolution, its weight gradient may tell x alone. *)
Theorem CV1_shortcut d es e n e' (C : stages R d es) (A : stage R (width d es) e n) (S : stage R d e' n) M
    (x x' : 'I_M -> 'cV[R]_d) (w w' : 'I_M -> 'cV[R]_n) :
  let delta y v m := dmask R (active (added C A (stage_map S) (y m))) *m v m in
  (forall m, relu (added C A (stage_map S) (x' m)) = relu (added C A (stage_map S) (x m))) ->
  (forall m, w' m = w m) ->
  \sum_m weight_gradient S (x' m) (delta x' w' m) = \sum_m weight_gradient S (x m) (delta x w m) ->
  (forall v, \sum_m weight_gradient S (v m) (delta x w m) = 0 -> forall m, v m = 0) ->
  forall m, x' m = x m.
Proof.
move=> delta eh ew eg alone m.
have ed i : delta x' w' i = delta x w i.
  by rewrite /delta ew -active_relu eh active_relu.
apply/eqP; rewrite -subr_eq0; apply/eqP; apply: (alone (fun m => x' m - x m)).
rewrite (eq_bigr (fun i => weight_gradient S (x' i) (delta x w i) - weight_gradient S (x i) (delta x w i))) => [|i _].
  rewrite sumrB -eg; apply/eqP; rewrite subr_eq0; apply/eqP.
  by apply: eq_bigr => i _; rewrite ed.
exact: weight_gradientB.
Qed.

(* A convolution: outputs (o, p), entries (c, q) of what it takes, weights    *)
(* (o, c, t); at_ t p is the pixel that tap t takes at position p, none where *)
(* it takes padding. Coordinates are the numbers of the pairs and triples.    *)
Section Convolution.
Variables (outs ins taps positions pixels : finType).
Variable at_ : taps -> positions -> option pixels.

Definition coordinates (T : finType) (f : T -> R) : 'cV[R]_#|T| := \col_i f (enum_val i).

Definition tap_matrix (i : 'I_#|{: outs * ins * taps}|) :
    'M[R]_(#|{: outs * positions}|, #|{: ins * pixels}|) :=
  \matrix_(r, s) (((enum_val r).1 == (enum_val i).1.1) && ((enum_val s).1 == (enum_val i).1.2) &&
                  (at_ (enum_val i).2 (enum_val r).2 == Some (enum_val s).2))%:R.

Definition convolution (w : outs * ins * taps -> R) (b : outs * positions -> R) :
    stage R #|{: ins * pixels}| #|{: outs * ins * taps}| #|{: outs * positions}| :=
  ((tap_matrix, coordinates w), coordinates b).

(* What tap t takes of channel c at position p. *)
Definition taken (x : ins * pixels -> R) c t p := if at_ t p is Some q then x (c, q) else 0.

Lemma sum_ranks (T : finType) (f : 'I_#|T| -> R) : \sum_i f i = \sum_(s : T) f (enum_rank s).
Proof. by rewrite (reindex (@enum_rank T)) //; exists enum_val => i _; rewrite ?enum_rankK ?enum_valK. Qed.

Lemma tap_taken i (x : ins * pixels -> R) r :
  (tap_matrix i *m coordinates x) r 0 =
    ((enum_val r).1 == (enum_val i).1.1)%:R * taken x (enum_val i).1.2 (enum_val i).2 (enum_val r).2.
Proof.
rewrite mxE sum_ranks /taken; under eq_bigr => s _ do rewrite !mxE enum_rankK.
case: (enum_val i) (enum_val r) => [[o c] t] [o' p] /=.
case: (at_ t p) => [q|]; last by rewrite mulr0 big1 // => s _; rewrite andbF mul0r.
rewrite (bigD1 (c, q)) //= big1 => [|[c' q'] ne]; last first.
  rewrite (_ : _ && _ && _ = false) ?mul0r //; apply/negP => /andP[/andP[_ /eqP ec] /eqP[eq]].
  by case/negP: ne; rewrite -ec eq.
by rewrite !eqxx !andbT addr0.
Qed.

(* A convolution's matrix is the sum over its taps, and so is its weight      *)
(* gradient: what the kernel computes.                                        *)
Lemma convolutionE w b (x : ins * pixels -> R) o p :
  (stage_map (convolution w b) *m coordinates x) (enum_rank (o, p)) 0 =
    \sum_c \sum_t w (o, c, t) * taken x c t p.
Proof.
rewrite /stage_map mulmx_suml summxE sum_ranks.
under eq_bigr => i _ do rewrite -scalemxAl mxE tap_taken mxE !enum_rankK /=.
pose term o' c t := w (o', c, t) * ((o == o')%:R * taken x c t p).
rewrite (eq_bigr (fun i => term i.1.1 i.1.2 i.2)) => [|[[o' c] t] _] //.
rewrite -(pair_bigA _ (fun oc t => term oc.1 oc.2 t)) -(pair_bigA _ (fun o' c => \sum_t term o' c t)) /= /term.
rewrite (bigD1 o) //= [X in _ + X]big1 => [|o' ne].
  by rewrite addr0; apply: eq_bigr => c _; apply: eq_bigr => t _; rewrite eqxx mul1r.
by rewrite big1 // => c _; rewrite big1 // => t _; rewrite eq_sym (negPf ne) mul0r mulr0.
Qed.

Lemma convolution_gradient w b (x : ins * pixels -> R) (delta : outs * positions -> R) o c t :
  weight_gradient (convolution w b) (coordinates x) (coordinates delta) (enum_rank (o, c, t)) 0 =
    \sum_p delta (o, p) * taken x c t p.
Proof.
rewrite mxE mxE sum_ranks.
under eq_bigr => r _ do rewrite tap_taken !mxE !enum_rankK /=.
pose term o' p := delta (o', p) * ((o' == o)%:R * taken x c t p).
rewrite (eq_bigr (fun r => term r.1 r.2)) => [|[o' p] _] //; rewrite -(pair_bigA _ term) /= /term.
rewrite (bigD1 o) //= [X in _ + X]big1 => [|o' ne].
  by rewrite addr0; apply: eq_bigr => p _; rewrite eqxx mul1r.
by rewrite big1 // => p _; rewrite (negPf ne) mul0r mulr0.
Qed.

End Convolution.
End Sums.
