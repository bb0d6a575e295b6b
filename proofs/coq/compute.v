(******************************************************************************)
(* Concrete matrices by computation, for the instances. Their entries are     *)
(* rational numbers, computed with as such and read in any ordered field R:   *)
(* competitors of a concrete batch may then have any entries in R.            *)
(*                                                                            *)
(*   mxf m n f       the m x n matrix over R with entries f i j, f a table of *)
(*                   rational numbers                                         *)
(*   sample n X m    its column m, a sample                                   *)
(*   one_hidden      a network with one hidden layer given in this way        *)
(*   minor_rank      a rank bound from an explicit invertible minor           *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import linalg network lifting modular.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Notation table := (nat -> nat -> rat).

(* Integer tables, row by row. *)
Definition tab (rows : seq (seq int)) : table := fun i j => (nth 0 (nth [::] rows i) j)%:Q.

Definition sumf (p : nat) (F : nat -> rat) : rat := foldr (fun k s => F k + s) 0 (iota 0 p).
Definition mulf (p : nat) (f g : table) : table := fun i j => sumf p (fun k => f i k * g k j).
Definition onef : table := fun i j => if i == j then 1 else 0.

Lemma sumfE p F : sumf p F = \sum_(k < p) F k.
Proof.
rewrite -(big_mkord xpredT F) /index_iota subn0 /sumf.
by elim: (iota 0 p) => [|k s IH] /=; rewrite ?big_nil // big_cons IH.
Qed.

Definition eqf (m n : nat) (f g : table) : bool :=
  all (fun i => all (fun j => f i j == g i j) (iota 0 n)) (iota 0 m).

Lemma eqf_at m n f g (i : 'I_m) (j : 'I_n) : eqf m n f g -> f i j = g i j.
Proof.
move=> /allP/(_ (val i)); rewrite mem_iota ltn_ord => /(_ isT)/allP/(_ (val j)).
by rewrite mem_iota ltn_ord => /(_ isT)/eqP.
Qed.

Section Matrices.

Variable R : realFieldType.

Definition mxf m n (f : table) : 'M[R]_(m, n) := \matrix_(i, j) ratr (f i j).

Lemma mul_mxf m p n f g : mxf m p f *m mxf p n g = mxf m n (mulf p f g).
Proof.
apply/matrixP => i j; rewrite !mxE /mulf sumfE rmorph_sum.
by apply: eq_bigr => k _; rewrite !mxE rmorphM.
Qed.

Lemma tr_mxf m n f : (mxf m n f)^T = mxf n m (fun i j => f j i).
Proof. by apply/matrixP => i j; rewrite !mxE. Qed.

Lemma one_mxf n : mxf n n onef = 1%:M.
Proof.
apply/matrixP => i j; rewrite !mxE /onef -[val i == val j]/(i == j).
by case: (i == j); rewrite (rmorph1, rmorph0).
Qed.

Lemma eq_mxf m n f g : eqf m n f g -> mxf m n f = mxf m n g.
Proof. by move=> E; apply/matrixP => i j; rewrite !mxE (eqf_at i j E). Qed.

Lemma ones_mxf m n : mxf m n (fun _ _ => 1) = const_mx 1.
Proof. by apply/matrixP => i j; rewrite !mxE rmorph1. Qed.

Lemma zero_mxf m n : mxf m n (fun _ _ => 0) = 0.
Proof. by apply/matrixP => i j; rewrite !mxE rmorph0. Qed.

Lemma rank_product n M p (D : 'M[R]_(n, M)) (H : 'M[R]_(M, p)) L T :
  L *m D = 1%:M -> H *m T = 1%:M -> \rank (D *m H) = M.
Proof.
move=> LD HT; have /eqP rH : row_free H by apply/row_freeP; exists T.
rewrite mxrankMfree; last exact/eqP.
by apply/eqP; apply/row_fullP; exists L.
Qed.

Lemma minor_rank m n r (A : 'M[R]_(m, n)) (f : 'I_r -> 'I_m) (g : 'I_r -> 'I_n) T :
  mxsub f g A *m T = 1%:M -> (r <= \rank A)%N.
Proof.
move=> E; apply: leq_trans (rank_mxsub f g A).
suff /eqP -> : row_free (mxsub f g A) by [].
by apply/row_freeP; exists T.
Qed.

(* Samples (columns) given by a table. *)
Definition sample n (X : table) (m : nat) : 'cV[R]_n := mxf n 1 (fun i _ => X i m).

Lemma cols_sample n M X : cols (fun m : 'I_M => sample n X m) = mxf n M X.
Proof. by apply/matrixP => i m; rewrite !mxE. Qed.

Lemma eq_sample n M f g (m : 'I_M) : eqf n M f g -> sample n f m = sample n g m.
Proof.
by move=> E; apply/colP => i; rewrite !mxE (eqf_at i m E).
Qed.

Lemma active_sample n X m : active (sample n X m) = \col_i (0 < X i m).
Proof. by apply/colP => i; rewrite !mxE ltr0q. Qed.

Section OneHidden.

Variables (d n K : nat) (W b U c : table).

Definition one_hidden : params R d [:: n] K :=
  ((mxf n d W, mxf n 1 b), (mxf K n U, mxf K 1 c)).

Definition preact (X : table) : table := fun j m => mulf d W X j m + b j 0%N.
Definition hiddenf (X : table) : table := fun j m =>
  if 0 < preact X j m then preact X j m else 0.
Definition logitf (X : table) : table := fun k m => mulf n U (hiddenf X) k m + c k 0%N.
Definition deltaf (X G : table) : table := fun j m =>
  if 0 < preact X j m then sumf K (fun k => U k j * G k m) else 0.

Lemma z_sample X m : mxf n d W *m sample d X m + mxf n 1 b = sample n (preact X) m.
Proof.
by rewrite mul_mxf; apply/colP => j; rewrite !mxE rmorphD.
Qed.

Lemma act_sample X m : relu (sample n (preact X) m) = sample n (hiddenf X) m.
Proof.
rewrite relu_mask active_sample; apply/colP => j; rewrite dmaskE !mxE /hiddenf.
by case: ifP => _; rewrite ?rmorph0.
Qed.

Lemma fwd_sample X m : fwd one_hidden (sample d X m) = sample K (logitf X) m.
Proof.
rewrite /= z_sample act_sample mul_mxf; apply/colP => k.
by rewrite !mxE rmorphD.
Qed.

Lemma delta1_sample X G m :
  delta1 one_hidden (sample d X m) (sample K G m) = sample n (deltaf X G) m.
Proof.
rewrite /= z_sample active_sample; apply/colP => j; rewrite dmaskE tr_mxf mul_mxf !mxE /deltaf.
by case: ifP => _; rewrite ?rmorph0.
Qed.

Lemma Delta1_samples M X G (x : 'I_M -> 'cV[R]_d) (g : 'I_M -> 'cV[R]_K) :
  (forall m, x m = sample d X m) -> (forall m, g m = sample K G m) ->
  Delta1 one_hidden x g = mxf n M (deltaf X G).
Proof.
move=> xE gE; rewrite -cols_sample; apply: eq_cols => m.
by rewrite xE gE; apply: delta1_sample.
Qed.

End OneHidden.

(* Squared error, reduction sum. *)
Definition msef (F Y : table) : table := fun k m => 2%:R * (F k m - Y k m).

Lemma mse_sample K F Y m :
  mse_lv 1 (sample K F m) (sample K Y m) = sample K (msef F Y) m.
Proof. by apply/colP => k; rewrite !mxE mul1r rmorphM rmorphB rmorph_nat. Qed.

(* A lifted unknown by its code: (true, a, b) is q_a q_b, (false, a, c) is q_a p_c. *)
Definition unknown M k (t : bool * nat * nat) : mono M.+1 k.+1 :=
  let: (quad, a, b) := t in
  if quad then inl (insubd (exist _ (ord0, ord0) (leqnn 0)) (inord a, inord b))
  else inr (inord a, inord b).

Definition codef (B V : table) (j : nat) (t : bool * nat * nat) : rat :=
  let: (quad, a, b) := t in
  if quad then (B j a * B j b) *+ (if a == b then 1%N else 2%N) else - (B j a * V j b).

Definition code_ok M k (t : bool * nat * nat) : bool :=
  let: (quad, a, b) := t in if quad then (a <= b <= M)%N else (a <= M)%N && (b <= k)%N.

Lemma lcoef_code n M k B V (j : 'I_n) t : code_ok M k t ->
  lcoef (mxf n M.+1 B) (mxf n k.+1 V) j (unknown M k t) = ratr (codef B V j t).
Proof.
case: t => [[[] a] b] /= => [/andP[ab bM]|/andP[aM bk]].
  have aM := leq_trans ab bM; rewrite val_insubd /= !inordK // ab.
  by rewrite -val_eqE /= !inordK // !mxE !inordK // rmorphMn rmorphM.
by rewrite !mxE !inordK // rmorphN rmorphM.
Qed.

Lemma lifted_rank n M k r B V (rows : seq nat) (codes : seq (bool * nat * nat)) (inv : table) :
  size rows = r -> size codes = r -> all (code_ok M k) codes -> all (fun j => j < n.+1)%N rows ->
  eqf r r (mulf r (fun i j => codef B V (nth 0%N rows i) (nth (true, 0%N, 0%N) codes j)) inv) onef ->
  (r <= \rank (lifted (mxf n.+1 M.+1 B) (mxf n.+1 k.+1 V)))%N.
Proof.
move=> sr sc okc okr E.
apply: (@minor_rank _ _ _ _ (fun i : 'I_r => inord (nth 0%N rows i))
  (fun i : 'I_r => enum_rank (unknown M k (nth (true, 0%N, 0%N) codes i))) (mxf r r inv)).
rewrite -one_mxf -(eq_mxf E) -mul_mxf; congr (_ *m _); apply/matrixP => i j.
rewrite !mxE enum_rankK lcoef_code; last by apply: (allP okc); rewrite mem_nth ?sc.
by rewrite inordK //; apply: (allP okr); rewrite mem_nth ?sr.
Qed.

(* The true candidates: the columns of the identity and of P. *)
Lemma known_cand n M k B V P :
  all (fun j => all (fun m => (B j m == 0) || (B j m == mulf k V P j m)) (iota 0 M)) (iota 0 n) ->
  forall m : 'I_M, cand (mxf n M B) (mxf n k V) (delta_mx m 0) (col m (mxf k M P)).
Proof.
move=> /allP ok m j; have /allP/(_ (val m)) := ok (val j) (eq_ind_r is_true (ltn_ord j) (mem_iota 0 n j)).
rewrite mem_iota ltn_ord => /(_ isT) okm; rewrite (colE m (mxf k M P)) mulmxA -!colE mul_mxf !mxE.
by case/orP: okm => /eqP ->; [left; apply: rmorph0 | right].
Qed.

End Matrices.

Arguments mul_mxf {R}.
Arguments tr_mxf {R}.
Arguments one_mxf {R}.
Arguments ones_mxf {R}.
Arguments zero_mxf {R}.
Arguments eq_mxf {R m n f g}.
Arguments cols_sample {R}.
Arguments eq_sample {R n M f g}.
Arguments z_sample {R}.
Arguments act_sample {R}.
Arguments fwd_sample {R}.
Arguments delta1_sample {R}.
Arguments mse_sample {R}.
Arguments lifted_rank {R n M k r B V rows codes inv}.
Arguments known_cand {R n M k B V P}.
