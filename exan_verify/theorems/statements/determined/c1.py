"""C1: one rank determines a layer, and what it does not say about the layers below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from random import Random

from exan_verify.core.network import Batch, Network, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.linalg import rank
from exan_verify.theorems.certified import kernel_outcome, verdict_on
from exan_verify.theorems.statement import (
    Example,
    Result,
    Standing,
    Statement,
)
from exan_verify.theorems.support.example_check import all_met
from exan_verify.theorems.support.exclusive_layers import Layered
from exan_verify.theorems.support.label_ties import full_below, labels_not_told, labels_told, lifts_at
from exan_verify.theorems.support.laboratory import (
    Pair,
    deltas,
    drawn,
    exact,
    factorises,
    integer_network,
    integers,
    one_hot,
    same_gradient,
    same_samples,
)
from exan_verify.theorems.support.layer_equations import Layer, random_layer, random_patterns
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, coq, kernel

SIZES = ((2, 1, 4), (2, 2, 6), (3, 1, 7), (2, 3, 8))
"""(M, K', n)."""


def full_rank_layers(seed: int) -> Iterator[Layer]:
    """Layers with rank R = U - M."""
    return drawn("C1", seed, _draw_layer)


def _draw_layer(rng: Random) -> Layer | None:
    samples, extra, neurons = rng.choice(SIZES)
    layer = random_layer(rng, random_patterns(rng, neurons, samples), extra, top=9)
    return layer if layer.rank() == layer.unknowns - samples else None


def only_true_candidates(layer: Layer) -> bool:
    """Over all 2^n states of the neurons, every candidate (q, u) with q != 0 is a multiple of a true one."""
    alone = tuple((m,) for m in range(layer.samples))
    return all(layer.explains(basis, alone) for basis in layer.branches())


def one_pattern(layer: Layer) -> Layer:
    """The same layer with every neuron active for every sample."""
    return replace(layer, patterns=layer.patterns * 0 + 1)


def unique_by_lifting(seed: int) -> Iterator[Layered]:
    """Small networks and batches that C1 at the only hidden layer certifies; the kernel has checked it."""
    return drawn("C1 networks", seed, _draw_unique)


def _draw_unique(rng: Random) -> Layered | None:
    network = integer_network(rng, rng.choice(((1, 5, 1), (2, 5, 1), (1, 6, 2))))
    inputs = integers(rng, 2, network.widths[0], 4)
    labels = one_hot(network.classes, [rng.randint(0, 1), rng.randint(0, 1)])
    batch = Batch.of(inputs, labels, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    layer = Layered(network=network, batch=batch)
    outcome = kernel_outcome(network, batch, layer.question, engine="lifting")
    return layer if outcome is Outcome.UNIQUE else None


def solvers_find_no_other(layer: Layered) -> bool:
    """The solvers, from the plain question with nothing of lifting in it, find no second batch."""
    verdict = verdict_on(layer.network, layer.batch, layer.question, engine="smt", budget=20)
    return verdict.outcome is Outcome.UNIQUE


def ambiguous_instead(_layer: Layered) -> Layered:
    """A batch that has a second one: S5's two samples of one region with parallel differences."""
    network = ReluNetwork.from_arrays(
        [[[1], [-1]], [[Fraction(1, 3), Fraction(-1, 3)]]], [[1, 2], [Fraction(1, 5)]]
    )
    batch = Batch.of([[0], [1]], [[0], [1]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Layered(network=network, batch=batch)


def dead_below() -> Example:
    """1-1-1-1: C1 holds at layer 2, and the only sample is dead at layer 1, so that it moves (S3)."""
    network = ReluNetwork.from_arrays([[[1]], [[1]], [[1]]], [[0], [1], [0]])
    first, second = (
        Batch.of([[x]], [[0]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT) for x in (-1, -2)
    )
    return Example(
        network=network,
        batch=first,
        second=second,
        question=Question(loss=Loss.MSE),
        outcome=Outcome.AMBIGUOUS,
        shown=passes_at_layer_two,
        note="rank A_2 = 1 by the bias and R has rank U - M = 1; Delta_1 = 0, and x may be any negative "
        "number.",
    )


def upper_layer_alone() -> Example:
    """2-1-3-1: C1 holds at layer 2 and the batch is AMBIGUOUS in X, no sample dead."""
    network = ReluNetwork.from_arrays([[[1, 2]], [[1], [2], [-2]], [[1, 1, 1]]], [[1], [0, -9, 9], [0]])
    first = Batch.of([[1, 1], [2, 1]], [[0], [1]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    lower = deltas(network, first)[0]
    moved = exact(first.inputs)
    for m, other, sign in ((0, 1, 1), (1, 0, -1)):
        moved[m] += exact([2, -1]) * lower[0, other] * sign
    second = Batch.of(moved, first.labels, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Example(
        network=network,
        batch=first,
        second=second,
        question=Question(loss=Loss.MSE),
        outcome=Outcome.AMBIGUOUS,
        shown=passes_at_layer_two,
        note="C1's rank condition holds at layer 2, so H_1, Delta_2 and the loss vectors are determined; "
        "Delta_1 has rank 1 of the 2 that 3.4 needs, and the inputs move along ker W_1.",
    )


def layer_two_passes(network: Network, batch: Batch) -> bool:
    """rank [dW_2 | db_2] = M and rank R = U - M at layer 2, which ReLU follows, over Q."""
    delta = deltas(network, batch)
    layer = Layer(
        patterns=exact((delta[1] != 0).astype(int)),
        outgoing=exact(network.layers[2].weight.T),
        following=delta[2],
    )
    pair = Pair(network=network, first=batch, second=batch)
    assert bool((layer.delta == delta[1]).all())
    return factorises(pair, 2) and layer.rank() == layer.unknowns - batch.size


def passes_and_fails(pair: Pair) -> bool:
    """C1 passes at layer 2, Delta_1 lacks rank M, and the second batch is another with the same gradient."""
    short = rank(deltas(pair.network, pair.first)[0]) < pair.first.size
    other = same_gradient(pair) and not same_samples(pair)
    return short and other and layer_two_passes(pair.network, pair.first)


def moved_on(pair: Pair) -> Pair:
    """The pair with its second batch moved to where the first sample is alive and the gradient another."""
    inputs = exact(pair.second.inputs)
    inputs[0] = inputs[0] + 5
    return replace(pair, second=replace(pair.second, inputs=inputs))


def passes_at_layer_two(example: Example) -> Result:
    """:func:`passes_and_fails` at an example."""
    assert example.second is not None
    pair = Pair(network=example.network, first=example.batch, second=example.second)
    return all_met({"C1's ranks at layer 2, rank Delta_1 < M, another batch": passes_and_fails(pair)})


def _warning(_seed: int) -> Iterator[Pair]:
    for example in (dead_below(), upper_layer_alone()):
        assert example.second is not None
        yield Pair(network=example.network, first=example.batch, second=example.second)


def labels_are_lost(pair: Pair) -> bool:
    """C1 holds at layer 1, a label is not told, and the second batch is another with the same gradient."""
    assert isinstance(pair.network, ReluNetwork)
    first = Layered(network=pair.network, batch=pair.first)
    other = same_gradient(pair) and not same_samples(pair)
    return other and lifts_at(first, 1) and full_below(first, 1) and not labels_told(first, 1)


def lost_at_layer_one(example: Example) -> Result:
    """:func:`labels_are_lost` at an example."""
    assert example.second is not None
    pair = Pair(network=example.network, first=example.batch, second=example.second)
    found = {"C1's ranks at layer 1, a label that is not told, another batch": labels_are_lost(pair)}
    return all_met(found)


def exchanged_labels() -> Example:
    """The stored batch whose labels are not told, with what is to be seen at it."""
    return replace(labels_not_told(), shown=lost_at_layer_one)


def _ties(_seed: int) -> Iterator[Pair]:
    example = exchanged_labels()
    assert example.second is not None
    yield Pair(network=example.network, first=example.batch, second=example.second)


STATEMENTS = (
    Statement(
        name="c1",
        group="C1",
        title="One layer in polynomial time: a rank replaces the search",
        source="docs/theory.md 3.2, C1",
        reading="Write each neuron's two possible equations as their product, linear in the products of "
        "unknowns. If that linear system R has the largest rank it can have, U - M, then the layer's inputs, "
        "its deltas and the next deltas are those of the given batch, up to the order of the samples. No "
        "exclusive neuron is needed. With full column rank of the deltas of every lower layer (3.4), and "
        "labels that can be told apart, the batch is UNIQUE.",
        quantifiers="all depths, widths, layers, M, K', loss vectors; any ordered field",
        hypotheses=(
            "the network has biases and rank [dW_i | db_i] = M at a hidden layer i",
            "u is written in K' unknowns that cover what any batch can have there (confined)",
            "rank R = U - M, with U = M(M+1)/2 + M K'",
            "for the whole batch: rank Delta_k = M for every k < i, and no two admitted labels of a sample "
            "give the same delta_{i+1}",
        ),
        conclusion="Every batch of M samples with this gradient has the same (h_{i-1}, delta_i, delta_{i+1}) "
        "up to order; with the last hypothesis the batch is UNIQUE.",
        latex=r"\operatorname{rank}A_i=M,\ \operatorname{rank}R=\tbinom{M+1}{2}+MK'-M \;\Longrightarrow\; "
        r"Q\in S_M;\qquad \operatorname{rank}\Delta_k=M\ (k<i)\ \Longrightarrow\ \text{UNIQUE}",
        standing=Standing.PROVED,
        grounds=(
            coq(
                "lifting.v: C1_candidates",
                "rank R >= U - M: every candidate (q, u) with q != 0 is a multiple of a true one",
            ),
            coq(
                "exact.v: C1",
                "the layer is determined up to one order of the samples",
            ),
            coq(
                "exact.v: confined_plain, confined_next_layer, confined_sum_zero",
                "what K' may be: the next width, min(K', M), K - 1 for loss vectors that sum to zero",
            ),
            coq(
                "downward.v: C1_batch_first, C1_batch",
                "with the lower ranks and labels told apart, the whole batch is the only one",
            ),
        ),
        checks=(
            by_instances(
                "all-states",
                "takes layers of rank U - M and solves (*) over Q for all 2^n states of the neurons: every "
                "solution with q != 0 must be a multiple of a true sample's",
                instances=full_rank_layers,
                conclusion=only_true_candidates,
                spoiled=one_pattern,
                count=12,
                said="layers of full lifted rank have only the true candidates",
            ),
            by_instances(
                "against-solvers",
                "asks the solvers, whose encoding knows nothing of lifting, for a second batch of networks "
                "that C1 calls UNIQUE",
                instances=unique_by_lifting,
                conclusion=solvers_find_no_other,
                spoiled=ambiguous_instead,
                count=6,
                said="batches certified by C1 have no second batch for the solvers",
            ),
        ),
        remark="A missing rank says nothing about the batch: it is a limit of the method.",
    ),
    Statement(
        name="c1-upper-layer-alone",
        group="C1",
        title="The rank condition at a layer above the first, without the ranks below",
        source="docs/theory.md 3.2, C1 (the warning in brackets)",
        reading="C1's rank condition at any one hidden layer makes the batch UNIQUE.",
        quantifiers="all networks with at least two hidden layers",
        hypotheses=(
            "rank [dW_i | db_i] = M and rank R = U - M at one hidden layer i >= 2",
            "nothing is asked of the layers below",
        ),
        conclusion="The batch is UNIQUE.",
        latex=r"\exists\,i\ge 2:\ \operatorname{rank}A_i=M,\ \operatorname{rank}R=U-M\ "
        r"\not\Longrightarrow\ \text{UNIQUE}",
        standing=Standing.REFUTED,
        grounds=(
            kernel(
                "c1-upper-layer-alone: its example",
                "a 1-1-1-1 network, one sample, dead at layer 1: C1 passes at layer 2",
                REFUTES,
            ),
            kernel(
                "c1.py: upper_layer_alone",
                "a 2-1-3-1 network, two samples, none dead, mse, labels 0 and 1: C1 passes at layer 2, and a "
                "second batch has the same gradient",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "warning",
                "computes over Q that the rank condition holds at layer 2, that Delta_1 has rank below M, "
                "and that another batch has the same gradient",
                instances=_warning,
                conclusion=passes_and_fails,
                spoiled=moved_on,
                count=2,
                said="counterexamples replayed",
                direction=REFUTES,
            ),
        ),
        example=dead_below,
        smallest="One sample and one neuron per layer: none is smaller. With two samples and none dead "
        "2-1-3-1 is the least: K' = 1 needs three neurons, and d = 1 leaves W_1 no kernel.",
        remark="What C1 does determine stays determined: H_1, Delta_2 and the loss vectors are the same in "
        "both batches. S3 is the reason behind the smallest example, `narrow-first-layer` behind 2-1-3-1.",
    ),
    Statement(
        name="c1-labels-not-told",
        group="C1",
        title="The rank condition at layer 1, labels not told",
        source="docs/theory.md 3.4 (labels)",
        reading="C1's rank condition at layer 1, below which nothing is left to determine, makes the batch "
        "UNIQUE, whatever the output layers do to the labels.",
        quantifiers="all networks with at least two hidden layers",
        hypotheses=(
            "rank [dW_1 | db_1] = M and rank R = U - M at layer 1",
            "two one-hot labels may give the same delta_2",
        ),
        conclusion="The batch is UNIQUE.",
        latex=r"\operatorname{rank}A_1=M,\ \operatorname{rank}R=U-M\text{ at layer }1\ "
        r"\not\Longrightarrow\ \text{UNIQUE}",
        standing=Standing.REFUTED,
        grounds=(
            kernel(
                "c1-labels-not-told: its example",
                "a 1-3-1-2 network, two samples, mse, one-hot: the same inputs with exchanged labels have "
                "the same gradient",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "ties",
                "computes over Q that C1 holds at layer 1, that another label gives the same delta_2, and "
                "that another batch has the same gradient",
                instances=_ties,
                conclusion=labels_are_lost,
                spoiled=moved_on,
                count=1,
                said="counterexamples replayed",
                direction=REFUTES,
            ),
        ),
        example=exchanged_labels,
        smallest="One sample's inputs and db_L tell its label. For two samples K' = 1 needs three neurons, "
        "and under one logit a delta_2 that is not zero tells the loss vector: 1-3-1-2 is the least.",
        remark="The inputs stay determined; with labels known up to order the assignment is lost all the "
        "same. With one hidden layer delta_2 is the loss vector, which tells the label under cross_entropy, "
        "bce and mse.",
    ),
)
