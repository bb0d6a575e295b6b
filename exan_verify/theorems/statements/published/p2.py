"""P2, the published secure side, in every reading of docs/theory.md section 4."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from exan_verify.core.question import Labels
from exan_verify.theorems.statement import Check, Example, Standing, Statement
from exan_verify.theorems.support import p2_checks
from exan_verify.theorems.support.counterexamples import (
    dead_at_a_point,
    exclusive_above,
    exclusive_below,
    one_logit_shared_neuron,
    one_shared_neuron,
    pairs_of_three,
    shared_softmax,
    shared_three_classes,
    six_shared_neurons,
    zero_pre_activation,
    zero_pre_activation_three_neurons,
)
from exan_verify.theorems.support.shorthands import (
    NEITHER,
    REFUTES,
    by_instances,
    coq,
    kernel,
    refuted,
    solver,
    written,
)

SOURCE = "the security boundary of arXiv 2010.13356 as we read it; docs/theory.md section 4, P2"
PUBLISHED = (
    "A batch whose samples have no exclusively activated neurons cannot be reconstructed uniquely from the "
    "gradient."
)
STRICT = "no pre-activation is zero"
ONE_LOGIT_LESS = (
    "1-1-1 with M = 2 and both labels 0 is smaller by a logit and has a certificate too; nothing is smaller, "
    "because one sample without an ExAN is dead and moves (S3)."
)
SOFTMAX_SMALLER = (
    "Smallest known; of the batches of two samples tried in 1-1-2 and 1-1-3 no engine says UNIQUE. One "
    "sample without an ExAN is dead and moves (S3)."
)
REAL_SMALLER = (
    "With one hidden layer none has fewer samples (s5-real-labels). With two hidden layers {size} and M = 2 "
    "is one as well; one sample without an ExAN is dead and moves (S3)."
)


def _known() -> Example:
    return one_shared_neuron(Labels.KNOWN)


def _known_one_logit() -> Example:
    return one_logit_shared_neuron(Labels.KNOWN)


def _real() -> Example:
    return pairs_of_three(Labels.REAL)


def _known_softmax() -> Example:
    found = shared_softmax()
    return replace(found, question=replace(found.question, labels=Labels.KNOWN))


_refuted = partial(
    refuted,
    group="P2",
    source=SOURCE,
    published=PUBLISHED,
    conclusion="The batch is not UNIQUE.",
    smallest=ONE_LOGIT_LESS,
)
"""A reading of P2 that a batch without exclusive neurons contradicts by being UNIQUE."""


def _one_layer(place: str, symbol: str, kind: str) -> Statement:
    """The readings that forbid ExANs in the first or the last hidden layer only, for other kinds of labels.

    What refutes the reading of all layers refutes these: its hypothesis is the stronger one.
    """
    known = kind == "known"
    example, size = (_known, "1-1-2") if known else (_real, "2-3-1")
    two, lower = (exclusive_below, "1-3-1-1") if place == "last" else (exclusive_above, "1-2-3-1")
    beside = (
        p2_checks.refuted("1-1-1", _known_one_logit, place) if known else p2_checks.refuted(lower, two, place)
    )
    return _refuted(
        name=f"p2-{place}-layer-{kind}",
        title=f"No exclusive neuron in the {place} ReLU layer, "
        + ("labels known up to order" if known else "arbitrary real targets"),
        reading=f"If no neuron of the {place} hidden layer is exclusive, another batch "
        + ("with the same labels up to order" if known else "with real targets")
        + " has the same gradient.",
        hypotheses=(
            f"no ExAN in the {place} hidden layer",
            STRICT,
            "labels known up to order" if known else "mse with arbitrary real targets",
        ),
        latex=rf"E[{symbol},\cdot]=0,\ "
        + (r"\{y'_m\}=\{y_m\}" if known else r"y'_m\in\mathbb{R}^K")
        + r"\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        grounds=(
            kernel(
                f"counterexamples.py: {'one_shared_neuron' if known else 'pairs_of_three'}",
                f"{size}, {'M = 2' if known else 'M = 3'}: its only hidden layer is first and last",
                REFUTES,
            ),
        ),
        example=example,
        checks=(p2_checks.refuted(size, example, place), beside),
        remark=f"Its batch refutes the reading of all layers as well (p2-{kind}-labels).",
        smallest=ONE_LOGIT_LESS if known else REAL_SMALLER.format(size=lower),
    )


STATEMENTS = (
    _refuted(
        name="p2-last-layer",
        title="No exclusive neuron in the last ReLU layer",
        reading="If no neuron of the last hidden layer is exclusive, another batch with one-hot labels has "
        "the same gradient.",
        hypotheses=("no ExAN in the last hidden layer", STRICT, "unknown one-hot labels"),
        latex=r"E[L-1,\cdot]=0\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        grounds=(
            kernel(
                "counterexamples.py: one_shared_neuron",
                "1-1-2, M = 2, mse; also refutes the other layers",
                REFUTES,
            ),
        ),
        example=one_shared_neuron,
        checks=(
            p2_checks.refuted("1-1-2", one_shared_neuron, "last"),
            p2_checks.refuted("1-1-1", one_logit_shared_neuron, "every"),
        ),
        remark="Its only hidden layer is the first and the last.",
    ),
    _refuted(
        name="p2-first-layer",
        title="No exclusive neuron in the first ReLU layer",
        reading="If no neuron of the first hidden layer is exclusive, another batch with one-hot labels has "
        "the same gradient.",
        hypotheses=("no ExAN in the first hidden layer", STRICT, "unknown one-hot labels"),
        latex=r"E[1,\cdot]=0\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        grounds=(
            kernel(
                "counterexamples.py: one_shared_neuron",
                "1-1-2: its only hidden layer is first and last",
                REFUTES,
            ),
        ),
        example=one_shared_neuron,
        checks=(
            p2_checks.refuted("1-1-2", one_shared_neuron, "first"),
            p2_checks.refuted("1-1-1", one_logit_shared_neuron, "every"),
        ),
        remark="Peeling (E4) already contradicts this reading in spirit: a sample without ExAN may be "
        "peeled.",
    ),
    *(
        _one_layer(place, symbol, kind)
        for place, symbol in (("last", "L-1"), ("first", "1"))
        for kind in ("known", "real")
    ),
    _refuted(
        name="p2-any-layer",
        title="No exclusive neuron in any layer",
        reading="If no neuron of any hidden layer is exclusive, another batch with one-hot labels has the "
        "same gradient.",
        hypotheses=("no ExAN in any hidden layer", STRICT, "unknown one-hot labels"),
        latex=r"E=0\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        grounds=(
            kernel(
                "counterexamples.py: one_shared_neuron, shared_three_classes",
                "1-1-2 and 1-1-3, M = 2, mse",
                REFUTES,
            ),
        ),
        example=one_shared_neuron,
        checks=(
            p2_checks.refuted("1-1-2", one_shared_neuron, "every"),
            p2_checks.refuted("1-1-3", shared_three_classes, "every"),
            p2_checks.refuted("1-1-1", one_logit_shared_neuron, "every"),
        ),
        remark="Even samples of one region are UNIQUE as a rule when there are two logits or more and labels "
        "are one-hot (S5).",
    ),
    _refuted(
        name="p2-known-labels",
        title="No exclusive neuron, labels known up to order",
        reading="The same when the labels are known, so that fewer batches compete.",
        hypotheses=("no ExAN in any hidden layer", STRICT, "labels known up to order"),
        latex=r"E=0,\ \{y'_m\}=\{y_m\}\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        grounds=(kernel("counterexamples.py: one_shared_neuron", "1-1-2, M = 2, known labels", REFUTES),),
        example=_known,
        checks=(
            p2_checks.refuted("1-1-2", _known, "every"),
            p2_checks.refuted("1-1-1", _known_one_logit, "every"),
        ),
        remark="The weakest form of the claim's negation; p2-real-labels is the strongest.",
    ),
    _refuted(
        name="p2-real-labels",
        title="No exclusive neuron, arbitrary real targets",
        reading="The same when targets may be any real vectors, so that the most batches compete.",
        hypotheses=("no ExAN in any hidden layer", STRICT, "mse with arbitrary real targets"),
        latex=r"E=0,\ y'_m\in\mathbb{R}^K\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        grounds=(
            kernel(
                "counterexamples.py: pairs_of_three",
                "2-3-1, M = 3, one logit: each neuron misses one sample",
                REFUTES,
            ),
        ),
        example=_real,
        checks=(p2_checks.refuted("2-3-1", _real, "every"),),
        remark="Two samples do not suffice (p2-two-real). Coq's instance B (2-3-9-2) is a second one, in two "
        "layers.",
        smallest="Smallest known. Two samples of one region are AMBIGUOUS (s5-real-labels), so M = 3 is the "
        "least.",
    ),
    _refuted(
        name="p2-cross-entropy",
        title="No exclusive neuron, softmax cross_entropy",
        reading="The same under cross_entropy, at two samples and at sixteen.",
        hypotheses=("no ExAN in any hidden layer", STRICT, "cross_entropy, unknown one-hot labels"),
        latex=r"E=0\ \Longrightarrow\ \exists B'\neq B:\ \nabla_{\mathrm{CE}}(B')=\nabla_{\mathrm{CE}}(B)",
        grounds=(
            kernel(
                "counterexamples.py: shared_softmax; this check",
                "1-2-3, M = 2; 60-381-10, M = 16 by lifting",
                REFUTES,
            ),
        ),
        example=shared_softmax,
        checks=(
            p2_checks.refuted("1-2-3", shared_softmax, "every"),
            Check(
                name="sixteen samples",
                what="certifies batches of 16 without an exclusive neuron by C1's rank; the kernel rechecks",
                run=p2_checks.crowd_is_unique,
                direction=REFUTES,
            ),
        ),
        remark="At 784-512-10 batches of 16 and 22 drawn at random have no ExAN and are UNIQUE (section "
        "3.2). Real targets are no labels of cross_entropy.",
        smallest=SOFTMAX_SMALLER,
    ),
    _refuted(
        name="p2-cross-entropy-known",
        title="No exclusive neuron, softmax cross_entropy, labels known up to order",
        reading="The same under cross_entropy when the labels are known, so that fewer batches compete.",
        hypotheses=("no ExAN in any hidden layer", STRICT, "cross_entropy, labels known up to order"),
        latex=r"E=0,\ \{y'_m\}=\{y_m\}\ \Longrightarrow\ \exists B'\neq B:\ "
        r"\nabla_{\mathrm{CE}}(B')=\nabla_{\mathrm{CE}}(B)",
        grounds=(kernel("counterexamples.py: shared_softmax", "1-2-3, M = 2, known labels", REFUTES),),
        example=_known_softmax,
        checks=(p2_checks.refuted("1-2-3", _known_softmax, "every"),),
        remark="It follows from p2-cross-entropy: a batch that is UNIQUE among all labels is so among fewer.",
        smallest=SOFTMAX_SMALLER,
    ),
    _refuted(
        name="p2-zero-pre-activation",
        title="No exclusive neuron, two samples, one logit, zero pre-activations allowed",
        reading="p2-two-samples without its hypothesis that no pre-activation is zero.",
        hypotheses=("M = 2", "K = 1", "d >= 2", "no ExAN in any hidden layer"),
        latex=r"K=1,\ E=0,\ z_i^m[j]=0\text{ allowed}\ \Longrightarrow\ \exists B'\neq B:\ "
        r"\nabla(B')=\nabla(B)",
        grounds=(
            kernel(
                "counterexamples.py: zero_pre_activation", "2-2-1, M = 2, every label and region", REFUTES
            ),
            solver(
                "p2-zero-pre-activation.smt2",
                "2-2-1, M = 2: no second batch in any activation pattern",
                REFUTES,
            ),
            solver("p2-dead-at-a-point.smt2", "1-2-1, M = 1, outside the reading: one dead sample", NEITHER),
        ),
        checks=(
            p2_checks.refuted("2-2-1", zero_pre_activation, "every", strict=False),
            p2_checks.solved("2-3-1", zero_pre_activation_three_neurons),
            replace(p2_checks.solved("1-2-1", dead_at_a_point), direction=NEITHER),
        ),
        example=zero_pre_activation,
        smallest="With d >= 2 and M = 2 one neuron in the first layer is too narrow (narrow-first-layer): "
        "2-2-1 is the least.",
        remark="Neurons at zero bound the region from the side that the shear needs. With one sample, which "
        "is outside this reading, 1-2-1 does the same: a dead sample at the only point where both neurons "
        "are silent.",
    ),
    Statement(
        name="p2-two-samples",
        group="P2",
        title="No exclusive neuron, two samples, one logit: true",
        source="docs/theory.md section 4, P2 and Appendix P, P.8",
        reading="Two samples without an ExAN in any layer share every pattern; with one logit, d >= 2 inputs "
        "and no zero pre-activation, second batches exist arbitrarily close, with the same labels.",
        quantifiers="all depths, widths, d >= 2, every loss of one logit",
        hypotheses=("M = 2", "K = 1", "d >= 2", "no ExAN in any hidden layer", STRICT),
        conclusion="The batch is AMBIGUOUS: a segment of batches has its gradient.",
        latex=r"M=2,\ K=1,\ d\ge2,\ E=0,\ z\neq0\ \Longrightarrow\ \exists B'\neq B\text{ near }B:\ "
        r"\nabla(B')=\nabla(B)",
        standing=Standing.PROVED,
        grounds=(coq("pairs.v: P2_two", "for every function that gives the loss vector"),),
        checks=(
            by_instances(
                "pairs",
                "certifies random pairs of one region as AMBIGUOUS and gives the certificates to the kernel",
                instances=p2_checks.shared_pairs,
                conclusion=p2_checks.kernel_says_ambiguous,
                spoiled=p2_checks.told_apart,
                count=15,
                said="pairs of one region",
            ),
        ),
        remark="With these hypotheses true as it stands. With d = 1 it is false (1-1-1).",
    ),
    Statement(
        name="p2-two-real",
        group="P2",
        title="No exclusive neuron, two samples, real targets: true",
        source="docs/theory.md Appendix F, F5",
        reading="Two samples with different inputs and without an ExAN in any layer share every pattern; "
        "moving both towards their mean and solving for the targets gives second batches.",
        quantifiers="all depths, widths, d, K; mse with real targets",
        hypotheses=("M = 2, different inputs", "no ExAN in any hidden layer", "arbitrary real targets"),
        conclusion="The batch is AMBIGUOUS.",
        latex=r"M=2,\ x_1\neq x_2,\ E=0,\ y'\in\mathbb{R}^K\ \Longrightarrow\ \exists B'\neq B:\ "
        r"\nabla(B')=\nabla(B)",
        standing=Standing.PROVED,
        grounds=(
            written("Appendix F, F5", "regions are convex, so zero pre-activations do no harm"),
            kernel("this check", "second batches with solved targets at random instances"),
        ),
        checks=(
            by_instances(
                "pairs",
                "certifies random pairs of one region with real targets; the kernel rechecks",
                instances=p2_checks.real_pairs,
                conclusion=p2_checks.kernel_says_ambiguous_real,
                spoiled=p2_checks.told_apart,
                count=15,
                said="pairs of one region",
            ),
        ),
    ),
    Statement(
        name="p2-factorisation",
        group="P2",
        title="dW_L and db_L alone never determine loss vectors and features",
        source="docs/theory.md Appendix P, P.7",
        published=PUBLISHED,
        reading="The claim read about the last layer's gradient only: without ExANs in the last ReLU layer, "
        "dW_L = G H and db_L = G 1 have another solution with admissible loss vectors and H >= 0.",
        quantifiers="all K >= 2, n, M >= 2, with or without ExANs; cross_entropy, and losses with free "
        "vectors; labels one-hot, known up to order or real",
        hypotheses=(
            "M >= 2 different samples (g_m, h_m)",
            "admissible loss vectors: softmax minus the unit vector of the label, the same label for the "
            "new vector (so the labels may even be known); under mse any vector",
        ),
        conclusion="Another pair (G', H') with G' H' = dW_L, G' 1 = db_L, H' >= 0 exists.",
        latex=r"R=(1-\varepsilon)I+\tfrac\varepsilon MJ:\quad(GR^{-1})(RH)=GH,\ GR^{-1}1=G1,\ RH\ge0",
        standing=Standing.PROVED,
        grounds=(
            written("Appendix P, P.7", "R is near the identity, R 1 = 1 and R >= 0; signs, so labels, stay"),
        ),
        checks=(
            by_instances(
                "factors",
                "mixes exact softmax loss vectors and features and compares all products, over Q",
                instances=p2_checks.factorisations,
                conclusion=p2_checks.another_admissible,
                spoiled=p2_checks.permuted,
                count=40,
                said="factorisations",
            ),
        ),
        remark="True and empty: it holds with exclusive neurons just as well, so this reading says nothing "
        "about them. It ignores that logits are a function of the features.",
    ),
    refuted(
        name="p2-factorisation-support",
        group="P2",
        title="dW_L and db_L alone, when it is known which features are zero",
        source="docs/theory.md Appendix P, P.7",
        published=PUBLISHED,
        reading="Without ExANs in the last ReLU layer, dW_L = G H and db_L = G 1 have another solution whose "
        "features vanish where H does.",
        quantifiers="some features (refuted)",
        hypotheses=("no ExAN in the last hidden layer", "the zeros of H are known", "rank G = M"),
        conclusion="Another pair (G', H') with the zeros of H exists.",
        latex=r"(GR^{-1})(RH)=GH,\ R1=1,\ H_{mj}=0\Rightarrow(RH)_{mj}=0\ \text{ has a solution }R\neq I",
        grounds=(
            written(
                "Appendix P, P.7",
                "two independent neurons for each pair of three samples leave R = I",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "supports",
                "solves the linear system for R over Q: the identity alone; with one neuron less it is not",
                instances=p2_checks.supported_layers,
                conclusion=p2_checks.support_determines_features,
                spoiled=p2_checks.one_neuron_less,
                count=25,
                said="layers of six shared neurons",
                direction=REFUTES,
            ),
        ),
        example=lambda: replace(six_shared_neurons(), shown=p2_checks.support_shown),
        smallest="With M = 2 a neuron that is not exclusive has no zero that tells samples apart. With M = 3 "
        "each row of R needs two neurons that are zero there, which are those of one pair, and rank G = 3 "
        "needs K >= 3 and d >= 2: 2-6-3 is the least.",
    ),
)
