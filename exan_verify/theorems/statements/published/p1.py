"""P1, the published insecure side: refuted as it stands, what breaks it, and what makes it true."""

from __future__ import annotations

from functools import partial

from exan_verify.theorems.statement import Check, Standing, Statement
from exan_verify.theorems.support import label_ties, p1_checks
from exan_verify.theorems.support.counterexamples import (
    no_biases,
    published_insecure,
    published_insecure_smallest,
    two_samples_at_zero,
    vanishing_delta,
    vanishing_delta_beside_another,
)
from exan_verify.theorems.support.example_check import by_example
from exan_verify.theorems.support.shorthands import (
    NEITHER,
    REFUTES,
    by_instances,
    coq,
    kernel,
    refuted,
    solver,
    symbolic,
    written,
)
from exan_verify.theorems.support.two_classes import (
    affinely_independent,
    breaks_two_classes,
    four_break_two_classes,
    published_two_classes,
)

SOURCE = "the security boundary of arXiv 2010.13356 as we read it; docs/theory.md section 2, P1"
PUBLISHED = (
    "A batch in which every sample has at least two exclusively activated neurons in the last ReLU layer and "
    "at least one in every other ReLU layer can be reconstructed uniquely from the gradient."
)
TWO_IN_THE_LAST = "every sample has two ExANs in the last hidden layer and one in every other"
BIASES = "the network has biases"
LIVE_ONE = "every sample has an ExAN with non-zero delta in every hidden layer"
FULL_RANK = "rank [dW | db] = M at the last hidden layer (one hidden layer: affinely independent inputs)"
GENERIC = (
    "the exceptions are the zeros of a polynomial (mse) or analytic function (cross_entropy, bce), not zero"
)

_refuted = partial(refuted, group="P1", source=SOURCE, published=PUBLISHED, conclusion="The batch is UNIQUE.")
"""A reading of P1 that another batch with the same gradient contradicts."""

STATEMENTS = (
    _refuted(
        name="p1-published",
        title="Enough exclusive neurons imply uniqueness",
        reading="Two ExANs per sample in the last hidden layer and one in every other imply UNIQUE: no other "
        "batch of this size, with labels of the loss's kind, has this gradient.",
        hypotheses=(TWO_IN_THE_LAST, "biases, non-zero deltas and non-zero pre-activations: all granted"),
        latex=r"\big(\forall m:\ E[L-1,m]\ge2,\ E[i,m]\ge1\ (i<L-1)\big)\ \Longrightarrow\ "
        r"\big(\nabla(B')=\nabla(B)\Rightarrow B'=B\big)",
        grounds=(
            kernel(
                "counterexamples.py: published_insecure_smallest",
                "2-8-1, M = 4, mse, known labels even",
                REFUTES,
            ),
            kernel(
                "counterexamples.py: published_insecure", "3-9-1, M = 4, affinely independent inputs", REFUTES
            ),
            written(
                "Appendix P, P.5",
                "for one hidden layer and one logit no counterexample has fewer inputs, neurons or samples",
                NEITHER,
            ),
        ),
        checks=(
            p1_checks.broken("2-8-1", published_insecure_smallest),
            p1_checks.broken("3-9-1", published_insecure),
            by_example(
                "all second batches",
                "lists every second batch of the 3-9-1 counterexample (1365 candidate mixings) exactly",
                example=published_insecure,
                judge=p1_checks.only_two_batches,
            ),
        ),
        example=published_insecure_smallest,
        smallest="With one hidden layer and one logit none has fewer inputs, neurons or samples than 2-8-1 "
        "with M = 4 (P.5); with more layers or logits it is the smallest known.",
        remark="What fails is exceptional for one logit (p1-generic-one-logit) and excluded by a rank "
        "(p1-apart). E1 to E4 are not touched: the attack works, and another batch fits as well.",
    ),
    _refuted(
        name="p1-softmax-two-classes",
        title="The published condition under softmax with two classes",
        reading="The same under cross_entropy with K = 2, where all loss vectors are multiples of (1, -1).",
        hypotheses=(
            TWO_IN_THE_LAST,
            "cross_entropy, K = 2",
            "biases, non-zero deltas and non-zero pre-activations: all granted",
        ),
        latex=r"K=2,\ E[L-1,m]\ge2\ \forall m\ \Longrightarrow\ "
        r"\big(\nabla_{\mathrm{CE}}(B')=\nabla_{\mathrm{CE}}(B)\Rightarrow B'=B\big)",
        grounds=(
            kernel(
                "two_classes.py: published_two_classes",
                "3-12-2, M = 6, equal margins, known labels even",
                REFUTES,
            ),
            kernel(
                "two_classes.py: affinely_independent",
                "5-12-2, M = 6, affinely independent inputs",
                REFUTES,
            ),
            symbolic("its check `four samples`", "M = 4 with real output weights", REFUTES),
            written("Appendix P, P.5", "why equal margins let loss vectors mix", NEITHER),
        ),
        checks=(
            *(
                by_example(
                    name,
                    "recomputes the published condition, deltas and pre-activations; the kernel compares the "
                    "gradients symbol by symbol",
                    example=example,
                    judge=breaks_two_classes,
                )
                for name, example in (("3-12-2", published_two_classes), ("5-12-2", affinely_independent))
            ),
            Check(
                name="four samples",
                what="shows over Q and by balls that two batches of four samples agree for some real output "
                "weights",
                run=four_break_two_classes,
                direction=REFUTES,
            ),
        ),
        example=published_two_classes,
        smallest="Smallest known in rational numbers. With one hidden layer none has fewer than four "
        "samples, two inputs or eight neurons (P.5).",
        remark="Up to three samples it is true (p1-one-logit). With four it fails for real output weights; "
        "with rational weights and margins a search of all mixings of four and of five samples found none. "
        "Such batches are exceptions (p1-generic-one-logit). The one-logit network with f = f_0 - f_1 "
        "refutes P1 under bce in the same way.",
    ),
    _refuted(
        name="p1-vanishing-delta",
        title="The published condition where deltas may vanish",
        reading="The condition counts active neurons; a sample's exclusive neurons may carry no gradient at "
        "all.",
        hypotheses=(TWO_IN_THE_LAST, "deltas may be zero"),
        latex=r"E[L-1,m]\ge2\ \forall m,\quad\delta_{L-1}^m[j]=0\text{ allowed}\ \Longrightarrow\ B\text{ "
        r"unique}",
        grounds=(
            kernel(
                "counterexamples.py: vanishing_delta", "1-2-1, M = 1: the sample is fitted exactly", REFUTES
            ),
            kernel(
                "counterexamples.py: vanishing_delta_beside_another",
                "1-4-1, M = 2: one sample is fitted exactly, the other is not",
                REFUTES,
            ),
        ),
        checks=(
            p1_checks.broken("1-2-1", vanishing_delta, live_deltas=False),
            p1_checks.broken("1-4-1", vanishing_delta_beside_another, live_deltas=False),
        ),
        example=vanishing_delta,
        smallest="Two ExANs are two neurons: one sample in 1-2-1 is the least.",
        remark="One sample alone has the zero gradient; beside another one it has the same freedom.",
    ),
    _refuted(
        name="p1-no-biases",
        title="The published condition without biases",
        reading="The same for networks whose layers have no biases.",
        hypotheses=(TWO_IN_THE_LAST, "no biases"),
        latex=r"b_i=0\text{ not trained},\ E[L-1,m]\ge2\ \Longrightarrow\ B\text{ unique}",
        grounds=(kernel("counterexamples.py: no_biases", "1-2-1, one sample and its double", REFUTES),),
        checks=(p1_checks.broken("1-2-1", no_biases, biases=False),),
        example=no_biases,
        smallest="Two ExANs are two neurons: one sample in 1-2-1 is the least.",
        remark="docs/theory.md section 8 says exactly when a sample has a twin.",
    ),
    _refuted(
        name="p1-zero-pre-activation",
        title="The published condition for two samples, at zero pre-activations",
        reading="The same for two samples, where an exclusive neuron may stand at exactly zero for the other "
        "sample.",
        hypotheses=(TWO_IN_THE_LAST, "M = 2", "pre-activations may be zero"),
        latex=r"M=2,\ E[L-1,m]\ge2,\ z_{L-1}^{m'}[j]=0\text{ allowed}\ \Longrightarrow\ B\text{ unique}",
        grounds=(
            kernel("counterexamples.py: two_samples_at_zero", "1-4-2, M = 2, deltas not zero", REFUTES),
        ),
        checks=(p1_checks.broken("1-4-2", two_samples_at_zero, strict=False),),
        example=two_samples_at_zero,
        smallest="Two samples with two ExANs each need four neurons, and with one logit the zeros do no harm "
        "(p1-two-samples): 1-4-2 is the least.",
        remark="Without the zeros it is true (p1-two-samples).",
    ),
    Statement(
        name="p1-two-samples",
        group="P1",
        title="Two samples: one live exclusive neuron each in every layer, one of them strict, is enough",
        source="docs/theory.md Appendix P, P.4",
        reading="For M = 2 and with biases one ExAN with non-zero delta per sample and hidden layer implies "
        "UNIQUE, if one of those in the last hidden layer has a negative, not zero, pre-activation at the "
        "other sample (for one logit, or softmax with K = 2, even that is not needed).",
        quantifiers="all depths, widths, K, losses whose vector tells the label; any labels, real ones too",
        hypotheses=(
            BIASES,
            "M = 2",
            LIVE_ONE,
            "one of the last layer's is strictly inactive for the other sample (K' > 1)",
        ),
        conclusion="The batch is UNIQUE.",
        latex=r"M=2,\ \forall i,m\ \exists j:\ z_i^m[j]>0\ge z_i^{m'}[j],\ \delta_i^m[j]\neq0,\text{ one }<0"
        r"\ \Longrightarrow\ B\text{ unique}",
        standing=Standing.PROVED,
        grounds=(
            written("Appendix P, P.4", "by cases of the two columns of Q^-1 and the last bias gradient"),
            solver("proofs/bounded/p1-two-samples-one-logit.smt2", "1-2-1, mse, real targets, all weights"),
        ),
        checks=(
            by_instances(
                "two samples",
                "certifies random pairs with exclusive neurons and gives the certificates to the kernel",
                instances=p1_checks.pairs_of_samples,
                conclusion=p1_checks.kernel_says_unique,
                spoiled=p1_checks.counterexample_instead,
                count=10,
                said="pairs with live exclusive neurons",
            ),
        ),
        remark="Without biases it fails: 1-4-1, weights (1, 1, -1, -1) and (1, 1, 1, 1), x = 1/6, -1 against "
        "1/3, -1, labels 1, 0, mse (p1-no-biases).",
    ),
    Statement(
        name="p1-one-logit",
        group="P1",
        title="One logit and at most three samples: one live exclusive neuron each is enough",
        source="docs/theory.md Appendix P, P.5",
        reading="For K' = 1 (one logit, or softmax with K = 2) a second batch belongs to an invertible 0/1 "
        "matrix B with g = B g'; up to M = 3 the signs of pre-activations and the last bias gradient leave "
        "permutations only.",
        quantifiers="all depths, widths, losses whose vector tells the label, any labels; M <= 3",
        hypotheses=(BIASES, "one logit, or cross_entropy with K = 2", "M <= 3", LIVE_ONE, FULL_RANK),
        conclusion="The batch is UNIQUE.",
        latex=r"K'=1,\ M\le3,\ \operatorname{rank}[dW_{L-1}\,|\,db_{L-1}]=M,\ \text{live ExANs}"
        r"\ \Longrightarrow\ B\text{ unique}",
        standing=Standing.PROVED,
        grounds=(
            written("Appendix P, P.5", "reduction to 0/1 matrices, free of dimensions"),
            symbolic("this check", "seven classes of 0/1 matrices times signs, each an exact linear program"),
        ),
        checks=(
            Check(
                name="all mixings",
                what="refutes every class of 0/1 mixings by linear programs with Farkas proofs",
                run=p1_checks.small,
            ),
            by_instances(
                "three samples",
                "lists all candidate second batches of random batches, real targets included, exactly",
                instances=p1_checks.one_logit_layers,
                conclusion=p1_checks.no_second_batch,
                spoiled=p1_checks.counterexample_instead,
                count=2,
                said="batches of three samples",
            ),
        ),
        remark="M = 4 is the first size with a counterexample (mse): with three samples on a line the middle "
        "one has no ExAN, so the rank is not a restriction for one hidden layer.",
    ),
    Statement(
        name="p1-apart",
        group="P1",
        title="Exclusive neurons imply uniqueness under a rank condition on pairs of samples",
        source="docs/theory.md Appendix P, P.2",
        reading="Let W_a be the rows w_j of the live ExANs of sample a in the last hidden layer, in "
        "coordinates of the K'-dimensional space that confines loss vectors, and delta_a their deltas. If "
        "for every pair rank [[W_a, delta_a, 0], [W_b, 0, delta_b]] = rank [W_a; W_b] + 2, no sample of "
        "another batch mixes two samples. Equivalently the loss vectors of a and b, as functions on the "
        "intersection of the spans of W_a and W_b, are independent.",
        quantifiers="all depths, widths, M, K, losses whose vector tells the label; any labels, real ones "
        "too",
        hypotheses=(BIASES, LIVE_ONE, FULL_RANK, "the rank condition for every pair of samples"),
        conclusion="The batch is UNIQUE.",
        latex=r"\forall a\neq b:\ "
        r"\operatorname{rank}\begin{bmatrix}W_a&\delta_a&0\\W_b&0&\delta_b\end{bmatrix}"
        r"=\operatorname{rank}\begin{bmatrix}W_a\\W_b\end{bmatrix}+2\ \Longrightarrow\ B\text{ unique}",
        standing=Standing.PROVED,
        grounds=(
            coq("published.v: P1_layer", "the layer's inputs and deltas are determined up to order"),
            coq(
                "published.v: P1_batch_first, P1_batch", "the whole batch with its labels, one or more layers"
            ),
            coq("published.v: apart_combination, apart_span", "how the condition on a pair is shown"),
            coq(
                "instances_published.v: P_unique",
                "a 1-4-2 network with two ExANs per sample, any real labels",
            ),
            written("Appendix P, P.2", "the rank gives the combination that apart_combination asks for"),
        ),
        checks=(
            by_instances(
                "rank and kernel",
                "certifies random layers that meet the rank condition and gives the certificates to the "
                "kernel",
                instances=p1_checks.apart_layers,
                conclusion=p1_checks.apart_and_unique,
                spoiled=p1_checks.doubled,
                count=20,
                said="layers that meet the rank condition",
            ),
            Check(
                name="counterexamples",
                what="computes the rank condition at every counterexample of P1: it must fail",
                run=p1_checks.fails_where_it_must,
            ),
        ),
        remark="For K' = 2 (softmax with three classes, mse with two logits) two ExANs with independent "
        "outgoing weights and loss vectors that are not parallel suffice: there the published number is "
        "right.",
    ),
    Statement(
        name="p1-generic",
        group="P1",
        title="How many exclusive neurons are enough, but for exceptional weights",
        source="docs/theory.md Appendix P, P.3",
        reading="With e_m live ExANs of sample m in the last hidden layer, the rank condition holds for all "
        "parameters and inputs with the given patterns but exceptional ones, as soon as every e_m >= 2 and "
        "min(e_a, K') + min(e_b, K') >= K' + 2 for all pairs; K' = K - 1 for cross_entropy, K for mse and "
        "bce. About K'/2 + 1 per sample; two only for K' = 2.",
        quantifiers="all depths, widths, M (one hidden layer: M <= d + 1), K; " + GENERIC,
        hypotheses=(
            BIASES,
            "every sample has one ExAN in every hidden layer and e_m >= 2 in the last",
            "min(e_a, K') + min(e_b, K') >= K' + 2 for every pair",
        ),
        conclusion="For generic parameters and inputs with these patterns the batch is UNIQUE.",
        latex=r"e_m\ge2,\ \min(e_a,K')+\min(e_b,K')\ge K'+2\ \Longrightarrow\ B\text{ unique for generic }"
        r"(\theta,X)",
        standing=Standing.PROVED,
        grounds=(
            coq("published.v: P1_batch_first, P1_batch", "the rank condition implies UNIQUE"),
            written(
                "Appendix P, P.3", "a point for every size at which the conditions hold, hence generically"
            ),
        ),
        checks=(
            Check(
                name="sizes",
                what="computes the rank condition at a random point for all K', e_a, e_b up to 6",
                run=p1_checks.count_decides,
            ),
            by_instances(
                "networks",
                "certifies random layers with as many ExANs as the count asks for; the kernel rechecks",
                instances=p1_checks.counted_layers,
                conclusion=p1_checks.kernel_says_unique,
                spoiled=p1_checks.counterexample_instead,
                count=8,
                said="layers with enough ExANs are UNIQUE",
            ),
        ),
    ),
    Statement(
        name="p1-generic-one-logit",
        group="P1",
        title="One logit or two classes, labels from a finite set: exclusive neurons fail for exceptional "
        "batches only",
        source="docs/theory.md Appendix P, P.5",
        reading="For K' = 1 and labels from a finite set one live ExAN per sample and hidden layer implies "
        "UNIQUE for all parameters and inputs with the given patterns outside a set of measure zero. Under "
        "mse with real labels it fails on an open set.",
        quantifiers="all depths, widths, M (one hidden layer: M <= d + 1); " + GENERIC,
        hypotheses=(
            BIASES,
            "one logit, mse or bce, 0/1 or known labels; or cross_entropy with K = 2",
            LIVE_ONE,
            FULL_RANK,
        ),
        conclusion="For generic parameters and inputs with these patterns the batch is UNIQUE.",
        latex=r"K'=1,\ y_m\in\{0,1\},\ \text{live ExANs}\ \Longrightarrow\ B\text{ unique for generic "
        r"}(\theta,X)",
        standing=Standing.PROVED,
        grounds=(
            written(
                "Appendix P, P.5", "negative pre-activations of ExANs move the second batch's logits only"
            ),
        ),
        checks=(
            by_instances(
                "four samples",
                "lists all candidate second batches of random batches of four samples, exactly",
                instances=p1_checks.four_samples,
                conclusion=p1_checks.nothing_for_finite_labels,
                spoiled=p1_checks.counterexample_instead,
                count=2,
                said="random batches of four samples",
            ),
        ),
        remark="The stored counterexamples are such exceptions. Whether generic uniqueness holds with two "
        "ExANs per sample for every K is open; K' = 2 is p1-generic.",
    ),
    Statement(
        name="p1-two-classes",
        group="P1",
        title="Softmax with two classes: exclusive neurons never separate samples by ratios",
        source=SOURCE,
        published=PUBLISHED,
        reading="For K' = 1 (one logit, or softmax with K = 2) all loss vectors are parallel: columns of "
        "dW_L cannot be grouped (e2-two-classes), and the rank condition of p1-apart never holds.",
        quantifiers="all depths, widths, M >= 2, numbers of ExANs",
        hypotheses=("K' = 1",),
        conclusion="No two samples meet the rank condition.",
        latex=r"K'=1\ \Longrightarrow\ "
        r"\operatorname{rank}\begin{bmatrix}W_a&\delta_a&0\\W_b&0&\delta_b\end{bmatrix}"
        r"\le\operatorname{rank}\begin{bmatrix}W_a\\W_b\end{bmatrix}+1",
        standing=Standing.PROVED,
        grounds=(written("Appendix P, P.2", "delta_a = g_a W_a: the columns span two dimensions at most"),),
        checks=(
            Check(
                name="one dimension",
                what="computes the rank condition for random layers with K' = 1, and with K' = 2 for "
                "comparison",
                run=p1_checks.two_classes,
            ),
        ),
        remark="The grouping fails, uniqueness need not: with biases two or three samples with a live ExAN "
        "each in every hidden layer are UNIQUE (p1-two-samples, p1-one-logit). In general it fails too: "
        "p1-softmax-two-classes.",
    ),
    Statement(
        name="p1-lifting",
        group="P1",
        title="For a batch at hand one rank of the lifted equations is enough",
        source="docs/theory.md section 3.2, C1",
        reading="C1 at one hidden layer i, the ranks of 3.4 below it and labels that are told imply UNIQUE. "
        "Exclusive neurons are one way to the rank; shared neurons supply equations just as well.",
        quantifiers="all depths, widths, M, K, layers, losses",
        hypotheses=(
            BIASES,
            "rank [dW_i | db_i] = M at hidden layer i",
            "u is written in K' unknowns that cover what any batch can have there (confined)",
            "rank R = U - M, with U = M(M+1)/2 + M K'",
            "rank Delta_k = M for k < i",
            "labels told: no two admitted labels of a sample give the same delta_{i+1}",
        ),
        conclusion="The batch is UNIQUE.",
        latex=r"\operatorname{rank}A_i=M,\ \operatorname{rank}R=U-M,\ \operatorname{rank}\Delta_k=M\ (k<i),\ "
        r"\text{labels told}\ \Longrightarrow\ B\text{ unique}",
        standing=Standing.PROVED,
        grounds=(coq("downward.v: C1_batch_first, C1_batch", "C1 with the step of 3.4 and labels told"),),
        checks=(
            by_instances(
                "lifted",
                "certifies one-logit layers by lifting alone; the kernel accepts; p1-apart's condition fails",
                instances=p1_checks.lifted_layers,
                conclusion=p1_checks.lifting_rank_known,
                spoiled=p1_checks.doubled,
                count=10,
                said="one-logit layers with shared neurons",
            ),
            by_instances(
                "all hypotheses",
                "computes every hypothesis over Q at networks of one and two hidden layers and one to three "
                "logits, and asks the kernel; where only the labels are not told, it must not say UNIQUE",
                instances=label_ties.told_by_lifting,
                conclusion=p1_checks.kernel_says_unique,
                spoiled=label_ties.ties_instead,
                count=12,
                said="batches with all hypotheses of C1",
            ),
        ),
        remark="Without the labels it fails (c1-labels-not-told). Where every sample has an ExAN in the last "
        "hidden layer, [H_{L-1} 1] has rank M, dW_L and db_L give the loss vectors, and those the labels "
        "(3.4).",
    ),
)
