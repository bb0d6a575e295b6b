(******************************************************************************)
(* Lifting of degree three on a concrete network with rational numbers.       *)
(*                                                                            *)
(*   L   2-4-1, three samples, one neuron for each pair and one for all:      *)
(*       no exclusive neuron, and four neurons where C1 needs six             *)
(******************************************************************************)
From mathcomp Require Import all_ssreflect all_algebra all_fingroup.
From Exan Require Import linalg network exclusive lifting exact cubic compute instances.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Instances.

Variable R : realFieldType.

Local Notation mxf := (mxf R).
Local Notation sample := (sample R).
Local Notation one_hidden := (one_hidden R).

(* Monomials as sorted triples of numbers; M.+1 unknowns q and k unknowns u.  *)
Section Codes.

Variables (n M k : nat).

Notation N := (M.+1 + k)%N.

Definition triple (t : seq nat) : bool :=
  if t is [:: a; b; c] then [&& a <= M, a <= b, b <= c & c < N]%N else false.

Definition triples : seq (seq nat) :=
  let pairs := [seq [:: b; c] | b <- iota 0 N, c <- iota 0 N] in
  [seq t <- [seq a :: t | a <- iota 0 N, t <- pairs] | triple t].

Definition code (t : 3.-tuple 'I_N) : seq nat := [seq val i | i <- t].

Lemma code_inj : injective code.
Proof. by move=> s t /(inj_map val_inj)/val_inj. Qed.

Lemma code_sorted3 (a b c : 'I_N) : code (sorted3 a b c) = sort leq [:: val a; val b; val c].
Proof. by rewrite -[[:: _; _; _]]/(map val [:: a; b; c]) sort_map. Qed.

Lemma code_triple (t : mono3 M.+1 k) : code (val t) \in triples.
Proof.
case: t => -[[|a [|b [|c [|? ?]]]] //= size_t] div_t; rewrite /code /= mem_filter.
apply/andP; split.
  case/andP: div_t => /and3P[ab bc _]; rewrite (tnth_nth a) /= => aM.
  by rewrite -ltnS aM [(a <= b)%N]ab [(b <= c)%N]bc ltn_ord.
apply/allpairsP; exists (val a, [:: val b; val c]); rewrite mem_iota ltn_ord; split=> //.
by apply/allpairsP; exists (val b, val c); rewrite !mem_iota !ltn_ord.
Qed.

Lemma card_mono3 : (#|mono3 M.+1 k| <= size triples)%N.
Proof.
have inj : injective (fun t : mono3 M.+1 k => code (val t)) by move=> s t /code_inj/val_inj.
rewrite cardE -(size_map (fun t : mono3 M.+1 k => code (val t))); apply: uniq_leq_size.
  by rewrite map_inj_uniq ?enum_uniq.
by move=> ? /mapP[t _ ->]; apply: code_triple.
Qed.

(* The monomial of a code, and its coefficients. *)
Definition index (t : seq nat) (i : nat) : 'I_N := @inord (M + k) (nth 0%N t i).

Definition monomial (t : seq nat) : mono3 M.+1 k :=
  insubd (Sub _ (@divisible_sorted3 M.+1 k ord0 ord0 ord0 isT) : mono3 M.+1 k)
    (sorted3 (index t 0) (index t 1) (index t 2)).

Lemma code_monomial t : triple t -> code (val (monomial t)) = t.
Proof.
case: t => [|a [|b [|c [|? ?]]]] //= /and4P[aM ab bc cN].
have bN := leq_ltn_trans bc cN; have aN := leq_ltn_trans ab bN.
rewrite insubdK; last by apply: divisible_sorted3; rewrite /index /= inordK.
rewrite code_sorted3 /index /= !inordK //; apply: sorted_sort; first exact: leq_trans.
by rewrite /= ab bc.
Qed.

Definition cubef (A B : table) (j i : nat) (t : seq nat) : rat :=
  sumf N (fun a => sumf N (fun b => if sort leq [:: a; b; i] == t then A j a * B j b else 0)).

Lemma coef3_code p A B (j : 'I_p) (i : 'I_N) t : triple t ->
  coef3 (mxf p N A) (mxf p N B) (j, i) (monomial t) = ratr (cubef A B j i t).
Proof.
move=> ok; rewrite /coef3 /cubef sumfE rmorph_sum; apply: eq_bigr => a _.
rewrite sumfE rmorph_sum; apply: eq_bigr => b _.
rewrite !mxE /= -(inj_eq code_inj) code_sorted3 code_monomial //.
by case: eqP => _; rewrite ?rmorphM ?rmorph0.
Qed.

(* The system of B and V, tabulated, and its rank by an explicit minor.       *)
Variables (B V : table) (rows : seq (nat * nat)) (codes : seq (seq nat)).

Definition leftf : table := fun j a => if (a <= M)%N then B j a else 0.
Definition rightf : table := fun j a => if (a <= M)%N then B j a else - V j (a - M.+1)%N.
Definition entry : table := fun r t =>
  let: (j, i) := nth (0, 0)%N rows r in cubef leftf rightf j i (nth [::] codes t).

Lemma leftE : row_mx (mxf n.+1 M.+1 B) 0 = mxf n.+1 N leftf.
Proof.
apply/matrixP => j a; rewrite !mxE /leftf; case: splitP => b ab; rewrite !mxE ab.
  by rewrite -ltnS ltn_ord.
by rewrite leqNgt ltnS leq_addr rmorph0.
Qed.

Lemma rightE : row_mx (mxf n.+1 M.+1 B) (- mxf n.+1 k V) = mxf n.+1 N rightf.
Proof.
apply/matrixP => j a; rewrite !mxE /rightf; case: splitP => b ab; rewrite !mxE ab.
  by rewrite -ltnS ltn_ord.
by rewrite leqNgt ltnS leq_addr addKn rmorphN.
Qed.

Lemma cubic_rank r tabulated inv :
  size rows = r -> size codes = r -> all triple codes ->
  all (fun ji => (ji.1 <= n) && (ji.2 < N))%N rows ->
  eqf r r entry tabulated -> eqf r r (mulf r tabulated inv) onef ->
  (r <= \rank (cubic (mxf n.+1 M.+1 B) (mxf n.+1 k V)))%N.
Proof.
move=> sr sc okc okr tab E.
pose row i : 'I_n.+1 * 'I_N := (inord (nth (0, 0)%N rows i).1, @inord (M + k) (nth (0, 0)%N rows i).2).
apply: (@minor_rank _ _ _ _ _ (fun i : 'I_r => enum_rank (row i))
  (fun i : 'I_r => enum_rank (monomial (nth [::] codes i))) (mxf r r inv)).
rewrite -one_mxf -(eq_mxf E) -mul_mxf -(eq_mxf tab); congr (_ *m _); apply/matrixP => i t.
rewrite !mxE /cubic_coef !enum_rankK leftE rightE coef3_code; last by apply: (allP okc); rewrite mem_nth ?sc.
have : nth (0, 0)%N rows i \in rows by rewrite mem_nth ?sr.
rewrite /entry; case: (nth _ rows i) => j a /(allP okr)/andP[/= jn aN].
by rewrite !inordK.
Qed.

End Codes.

(* L: samples 0, e_1, e_2; neurons 0, 1, 2 serve two of them each, neuron 3   *)
(* serves all. C1 would need U - M = 6 neurons.                               *)
Definition WL := tab [:: [:: 0; -2]; [:: -2; 0]; [:: 2; 2]; [:: 0; 0]].
Definition bL := tab [:: [:: 1]; [:: 1]; [:: -1]; [:: 1]].
Definition UL := tab [:: [:: 1; 1; 1; 1]].
Definition cL := tab [:: [:: 0]].
Definition XL := tab [:: [:: 0; 1; 0]; [:: 0; 0; 1]].
Definition YL := tab [:: [:: 1; 2; 4]].
Definition NL := one_hidden 2 4 1 WL bL UL cL.
Definition xL (m : 'I_3) : 'cV[R]_2 := sample 2 XL m.
Definition yL (m : 'I_3) : 'cV[R]_1 := sample 1 YL m.
Definition GL := msef (logitf 2 4 WL bL UL cL XL) YL.
Definition DL := tab [:: [:: 4; 2; 0]; [:: 4; 0; -2]; [:: 0; 2; -2]; [:: 4; 2; -2]].

(* All sixteen equations at sixteen of the nineteen monomials.                *)
Definition rowsL : seq (nat * nat) := [seq (j, i) | j <- iota 0 4, i <- iota 0 4].
Definition codesL : seq (seq nat) := [::
  [:: 0; 0; 0]; [:: 0; 0; 1]; [:: 0; 0; 2]; [:: 0; 0; 3]; [:: 0; 1; 1]; [:: 0; 1; 2];
  [:: 0; 1; 3]; [:: 0; 2; 2]; [:: 0; 2; 3]; [:: 1; 1; 1]; [:: 1; 1; 2]; [:: 1; 1; 3];
  [:: 1; 2; 2]; [:: 1; 2; 3]; [:: 2; 2; 2]; [:: 2; 2; 3]]%N.
Definition minorL := tab [::
    [:: 16; 16; 0; -4; 4; 0; -2; 0; 0; 0; 0; 0; 0; 0; 0; 0];
    [:: 0; 16; 0; 0; 16; 0; -4; 0; 0; 4; 0; -2; 0; 0; 0; 0];
    [:: 0; 0; 16; 0; 0; 16; 0; 0; -4; 0; 4; 0; 0; -2; 0; 0];
    [:: 0; 0; 0; 16; 0; 0; 16; 0; 0; 0; 0; 4; 0; 0; 0; 0];
    [:: 16; 0; -16; -4; 0; 0; 0; 4; 2; 0; 0; 0; 0; 0; 0; 0];
    [:: 0; 16; 0; 0; 0; -16; -4; 0; 0; 0; 0; 0; 4; 2; 0; 0];
    [:: 0; 0; 16; 0; 0; 0; 0; -16; -4; 0; 0; 0; 0; 0; 4; 2];
    [:: 0; 0; 0; 16; 0; 0; 0; 0; -16; 0; 0; 0; 0; 0; 0; 4];
    [:: 0; 0; 0; 0; 4; -8; -2; 4; 2; 0; 0; 0; 0; 0; 0; 0];
    [:: 0; 0; 0; 0; 0; 0; 0; 0; 0; 4; -8; -2; 4; 2; 0; 0];
    [:: 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 4; 0; -8; -2; 4; 2];
    [:: 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 4; 0; -8; 0; 4];
    [:: 16; 16; -16; -4; 4; -8; -2; 4; 2; 0; 0; 0; 0; 0; 0; 0];
    [:: 0; 16; 0; 0; 16; -16; -4; 0; 0; 4; -8; -2; 4; 2; 0; 0];
    [:: 0; 0; 16; 0; 0; 16; 0; -16; -4; 0; 4; 0; -8; -2; 4; 2];
    [:: 0; 0; 0; 16; 0; 0; 16; 0; -16; 0; 0; 4; 0; -8; 0; 4]].
Definition inverseL : table :=
  let scaled := tab [::
    [:: 0; 0; 0; 0; 0; 0; 0; 0; 36; 12; -12; -3; 12; -12; 12; 3];
    [:: 4; 2; 0; 1; -20; -6; 4; 1; -12; 2; 4; 1; 16; -4; -8; -2];
    [:: 20; 4; -6; -1; -4; 0; 2; -1; 12; 4; 2; -1; -16; -8; -4; 2];
    [:: -64; -8; 24; 8; -64; -24; 8; 8; 96; 40; -40; -4; 128; -32; 32; -4];
    [:: 8; 4; 0; 2; 8; -12; 8; 2; -24; -20; 8; 2; -16; 16; -16; -4];
    [:: -8; -4; 12; 4; -8; -12; 4; 4; -24; -4; 4; 4; 16; 8; -8; -8];
    [:: 80; 40; -48; -4; -16; -24; 32; -4; -48; -8; 32; -4; -64; -32; -64; 8];
    [:: 8; -8; 12; 2; 8; 0; -4; 2; -24; -8; 20; 2; -16; 16; -16; -4];
    [:: 16; 32; -24; 4; -80; -48; 40; 4; 48; 32; -8; 4; 64; -64; -32; -8];
    [:: 0; 0; 0; 0; 192; 144; -96; -24; 0; 0; 0; 0; -192; 48; 96; 24];
    [:: 32; 40; -24; -4; 32; 24; 8; -4; 0; -8; 8; -4; -64; -32; -16; 8];
    [:: -64; -128; 96; 32; 320; 192; -160; -16; -192; -128; 32; 32; -256; 256; 128; -16];
    [:: -32; 8; 24; 4; -32; -24; 40; 4; 0; 8; -8; 4; 64; -16; -32; -8];
    [:: 128; 16; -48; 8; 128; 48; -16; 8; -192; -80; 80; 8; -256; 64; -64; -16];
    [:: -192; -96; 144; 24; 0; 0; 0; 0; 0; 0; 0; 0; 192; 96; 48; -24];
    [:: 320; 160; -192; -16; -64; -96; 128; 32; -192; -32; 128; 32; -256; -128; -256; -16]] in
  fun i j => scaled i j / 192%:R.

Lemma DL_ok : eqf 4 3 (deltaf 2 1 WL bL UL XL GL) DL.
Proof. by vm_compute. Qed.

Lemma rankL : (16 <= \rank (cubic (mxf 4 3 DL) (mxf 4 1 (fun j i => UL i j))))%N.
Proof. by apply: (@cubic_rank 3 2 1 DL _ rowsL codesL 16 minorL inverseL); vm_compute. Qed.

Theorem L_unique (x' : 'I_3 -> 'cV[R]_2) g' :
  gsum NL x' g' = bgrad (mse_lv 1) NL xL yL ->
  exists s : 'S_3, state_same_upto NL xL x' (lossvecs (mse_lv 1) NL xL yL) g' s.
Proof.
have gE m : lossvecs (mse_lv 1) NL xL yL m = sample 1 GL m by rewrite /lossvecs fwd_sample mse_sample.
have DE : Delta1 NL xL (lossvecs (mse_lv 1) NL xL yL) = mxf 4 3 DL.
  by rewrite (Delta1_samples _ _ _ _ _ (fun m => erefl) gE); apply: eq_mxf DL_ok.
apply: (@L3 _ _ _ _ _ NL 3 1 (fun _ => True) 1%:M) => //.
- exact: confined_plain.
- rewrite gradmxE DE.
  have -> : lift1 xL = mxf 3 3 (fun m i => if (i < 2)%N then XL i m else 1).
    apply/matrixP => m i; rewrite !mxE; case: splitP => j ij; rewrite !mxE.
      by rewrite ij ltn_ord.
    by rewrite ij ltnNge leq_addr rmorph1.
  apply: (@rank_product _ _ _ _ _ _
    (mxf 3 4 (fun i j => tab [:: [:: 1; 1; -1; 0]; [:: 2; -2; 2; 0]; [:: 2; -2; -2; 0]] i j / 8%:R))
    (mxf 3 3 (tab [:: [:: -1; 1; 0]; [:: -1; 0; 1]; [:: 1; 0; 0]]))).
    by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
  by rewrite mul_mxf -one_mxf; apply: eq_mxf; vm_compute.
- rewrite DE mulmx1 tr_mxf; apply: leq_trans rankL.
  by rewrite leq_subLR; apply: leq_trans (card_mono3 2 1) _; vm_compute.
Qed.

(* The loss vectors 4, 2 and -2: every candidate is a multiple of a true one. *)
Definition vectorsL := tab [:: [:: 4; 2; -2]].

Theorem L_candidates (q : 'cV[R]_3) (p : 'cV[R]_1) :
  q != 0 -> cand (mxf 4 3 DL) (mxf 4 1 (fun j i => UL i j)) q p ->
  exists (m : 'I_3) (c : R), [/\ c != 0, q = c *: delta_mx m 0 & p = c *: sample 1 vectorsL m].
Proof.
have gE (m : 'I_3) : col m (mxf 1 3 vectorsL) = sample 1 vectorsL m by apply/colP => i; rewrite !mxE.
have known : forall m : 'I_3, cand (mxf 4 3 DL) (mxf 4 1 (fun j i => UL i j)) (delta_mx m 0)
    (col m (mxf 1 3 vectorsL)) by apply: known_cand; vm_compute.
move=> q0 c_qp; have [|m [c [c0 qE pE]]] := L3_candidates known _ q0 c_qp.
  by apply: leq_trans rankL; rewrite leq_subLR; apply: leq_trans (card_mono3 2 1) _; vm_compute.
by exists m, c; rewrite -gE.
Qed.

Theorem L_no_exclusive (j : 'I_4) (m : 'I_3) : ~ exclusive NL xL j m.
Proof.
move/(@exclusiveP R 2 3 0 2 WL bL UL cL XL xL j m (fun m => erefl)).
have : eqf 4 3 (fun j m => if exclusivef 2 2 WL bL XL j m then 1 else 0) (fun _ _ => 0) by vm_compute.
by move/(eqf_at j m); case: (exclusivef _ _ _ _ _ _ _).
Qed.

(* C1 cannot say it: it asks for the rank 6 of a matrix with four rows.       *)
Theorem L_beyond_C1 :
  (\rank (lifted (mxf 4 3 DL) (mxf 4 1 (fun j i => UL i j))) < #|mono 3 1| - 3)%N.
Proof. by apply: leq_ltn_trans (rank_leq_row _) _; rewrite card_mono. Qed.

End Instances.
