"""Further readings of P1 and P2: known patterns, a fixed batch, single samples, almost all and some cases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exact.linalg import rank, solve
from exan_verify.exclusivity import exan_counts
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Example, Result, Standing, Statement
from exan_verify.theorems.statements.published import p1, p2
from exan_verify.theorems.support import p1_checks, p2_checks
from exan_verify.theorems.support.counterexamples import (
    pairs_of_neurons,
    sample_beside_a_dead_one,
    shared_by_an_exclusive_one,
)
from exan_verify.theorems.support.example_check import all_met, by_example
from exan_verify.theorems.support.exclusive_layers import Layered, drawn_layer, exclusive_table, live
from exan_verify.theorems.support.label_ties import labels_not_told, lifts_at
from exan_verify.theorems.support.laboratory import (
    Pair,
    deltas,
    drawn,
    exact,
    integer_network,
    integers,
    one_hot,
    region_points,
    same_gradient,
    same_samples,
)
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, coq, kernel, refuted, written

_p1 = partial(refuted, group="P1", source=p1.SOURCE, published=p1.PUBLISHED)
_p2 = partial(refuted, group="P2", source=p2.SOURCE, published=p2.PUBLISHED)


# P1 with known patterns


def exclusive_layers(seed: int) -> Iterator[Layered]:
    """Two or three samples with two live ExANs each, any number of logits, shared neurons."""

    def draw(rng: Random) -> Layered | None:
        counts = (2,) * rng.randint(2, 3)
        return drawn_layer(rng, counts, rng.randint(1, 3), rng.randint(0, 2))

    return drawn("P1 known patterns", seed, draw)


def read_off(layer: Layered) -> bool:
    """The batch follows from its gradient and its table of patterns alone, step by step, over Q."""
    network, batch = layer.network, layer.batch
    pattern = forward(network, batch).pattern(1)
    first, last = gradient(network, batch, Loss.MSE, Reduction.SUM).for_network(network)
    weights, biases = exact(first[0]), exact(first[1])
    inputs = np.empty(batch.inputs.shape, dtype=object)
    for m in range(batch.size):
        alone = np.flatnonzero(pattern[:, m] & (pattern.sum(axis=1) == 1))
        told = [j for j in alone if biases[j] != 0]
        if not told:
            return False
        inputs[m] = weights[told[0]] / biases[told[0]]
    here = forward(network, Batch(inputs=inputs, labels=batch.labels))
    features = np.concatenate([here.hidden[-1].fractions(), exact(np.ones((1, batch.size), dtype=int))])
    found = np.concatenate([exact(last[0]), exact(last[1]).reshape(-1, 1)], axis=1)
    vectors = solve(features, found.T)
    if vectors is None:
        return False
    targets = here.logits.T - vectors / 2
    own = exact(batch.inputs), exact(batch.labels)
    return bool(np.all(inputs == own[0]) and np.all(targets == own[1]))


def same_first_patterns(example: Example) -> Result:
    """Both batches have a live ExAN per sample in layer 1 and the same patterns there, and one gradient."""
    network, second = example.network, example.second
    assert second is not None
    batches = example.batch, second
    pair = Pair(network=network, first=example.batch, second=second)
    patterns = [forward(network, b).pattern(1) for b in batches]
    alone = [p & (p.sum(axis=1, keepdims=True) == 1) for p in patterns]
    found = [deltas(network, b)[0] != 0 for b in batches]
    exclusive = all((a & d).any(axis=0).all() for a, d in zip(alone, found, strict=True))
    return all_met(
        {
            "a live exclusive neuron per sample in layer 1": bool(exclusive),
            "the same patterns of layer 1": bool(np.array_equal(patterns[0], patterns[1])),
            "same gradient": same_gradient(pair),
            "another batch": not same_samples(pair),
        }
    )


# P1 for a fixed batch


def weights_for_a_batch(seed: int) -> Iterator[Layered]:
    """Networks with as many ExANs as P.3 asks for, all at one batch that the seed draws."""
    rng = Random(f"P1 fixed batch/{seed}")
    counts, classes = (3, 3, 2), 3
    points = integers(rng, 3, 2, 9)
    while rank(_extended(points)) < 3:
        points = integers(rng, 3, 2, 9)
    targets = one_hot(classes, [rng.randrange(classes) for _ in counts])

    def draw(rng: Random) -> Layered | None:
        table = exclusive_table(rng, counts, 1, 50)
        first = solve(_extended(points), table.T)
        assert first is not None
        network = ReluNetwork.from_arrays(
            [first[:2].T, integers(rng, classes, len(table), 50)], [first[2], integers(rng, 1, classes)[0]]
        )
        batch = Batch.of(points, targets, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
        layer = Layered(network=network, batch=batch)
        return layer if p1_checks.counted_enough(layer) else None

    return drawn("P1 fixed batch", seed, draw)


def _extended(points: Array) -> Array:
    return np.concatenate([points, exact(np.ones((len(points), 1), dtype=int))], axis=1)


# P1 and P2 of one sample


def exclusive_and_missing(example: Example) -> Result:
    """Sample 0 has two live ExANs, no pre-activation is zero, and the second batch lacks the sample."""
    network, second = example.relu, example.second
    assert second is not None
    pair = Pair(network=network, first=example.batch, second=second)
    zeros = [z for b in (example.batch, second) for z in forward(network, b).zeros]
    own = example.batch.x[0], example.batch.y[0]
    return all_met(
        {
            "two live exclusive neurons of sample 0": (
                len(live(Layered(network=network, batch=example.batch))[0]) >= 2
            ),
            "no zero pre-activation": not any(bool(z.any()) for z in zeros),
            "same gradient": same_gradient(pair),
            "the second batch lacks the sample": own not in list(zip(second.x, second.y, strict=True)),
        }
    )


def shared_and_determined(example: Example) -> Result:
    """Sample 1 has no ExAN in any layer, no pre-activation is zero, and the kernel says UNIQUE."""
    passed = forward(example.network, example.batch)
    return all_met(
        {
            "no exclusive neuron of sample 1": not any(exan_counts(p)[1] for p in passed.patterns),
            "no zero pre-activation": not any(bool(z.any()) for z in passed.zeros),
            "kernel says UNIQUE": kernel_outcome(example.network, example.batch, example.question)
            is Outcome.UNIQUE,
        }
    )


# P2 for almost all weights, and for some batch


def open_and_unique(example: Example) -> Result:
    """No ExAN, no pre-activation zero, and C1's rank at layer 1: conditions that hold near the weights."""
    layer = Layered(network=example.relu, batch=example.batch)
    passed = forward(example.network, example.batch)
    return all_met(
        {
            "no exclusive neuron": not any(any(exan_counts(p)) for p in passed.patterns),
            "no zero pre-activation": not any(bool(z.any()) for z in passed.zeros),
            "rank A = M and rank R = U - M": lifts_at(layer, 1),
            "kernel says UNIQUE by lifting": kernel_outcome(
                example.network, example.batch, example.question, engine="lifting"
            )
            is Outcome.UNIQUE,
        }
    )


def three_of_a_region(seed: int) -> Iterator[Layered]:
    """Any network, three samples of one of its regions with one label (mse)."""

    def draw(rng: Random) -> Layered | None:
        widths = rng.choice(((1, 2, 2), (2, 3, 2), (2, 4, 1), (3, 3, 3), (2, 3, 3, 2)))
        network = integer_network(rng, widths, biases=rng.random() < 0.7)
        points = region_points(rng, network, 3)
        if points is None:
            return None
        targets = one_hot(network.classes, [rng.randrange(2)] * 3)
        batch = Batch.of(points, targets, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
        return Layered(network=network, batch=batch)

    return drawn("P2 exists", seed, draw)


def shared_and_ambiguous(layer: Layered) -> bool:
    """No ExAN in any layer, and the kernel accepts AMBIGUOUS."""
    exclusive = any(any(exan_counts(p)) for p in forward(layer.network, layer.batch).patterns)
    return not exclusive and p2_checks.kernel_says_ambiguous(layer)


STATEMENTS = (
    Statement(
        name="p1-known-patterns",
        group="P1",
        title="The published condition where the patterns of the first layer are known",
        source="docs/theory.md Appendix P, P.9",
        published=p1.PUBLISHED,
        reading="Among batches with the same patterns in the first hidden layer, up to order, one with live "
        "ExANs as published is the only one: what an exclusive neuron is in the other batch is what P1 does "
        "not know.",
        quantifiers="all depths, widths, M, K, losses whose vector tells the label; any labels",
        hypotheses=(
            p1.BIASES,
            "every sample has an ExAN with non-zero delta in the first hidden layer",
            "every sample has an ExAN in the last hidden layer",
            "the patterns of the first hidden layer are known up to order",
        ),
        conclusion="No other batch with these patterns of the first layer has the gradient.",
        latex=r"P_1(B')=P_1(B),\ \nabla(B')=\nabla(B)\ \Longrightarrow\ B'=B",
        standing=Standing.PROVED,
        grounds=(
            coq("exclusive.v: E1", "the row of an exclusive neuron is its sample, in either batch"),
            written("Appendix P, P.9", "the labels, by the rank of the last features"),
        ),
        checks=(
            by_instances(
                "read off",
                "computes inputs and labels from the gradient and the table of patterns alone, over Q",
                instances=exclusive_layers,
                conclusion=read_off,
                spoiled=p1_checks.doubled,
                count=12,
                said="batches follow from gradient and patterns",
            ),
        ),
        remark="No rank condition is needed. Without the ExANs of the last layer the labels may be open "
        "(p1-known-patterns-labels).",
    ),
    _p1(
        name="p1-known-patterns-labels",
        title="Known patterns, exclusive neurons in the first layer alone",
        reading="The same with exclusive neurons in the first hidden layer alone: the inputs follow, and the "
        "labels as well.",
        hypotheses=(
            p1.BIASES,
            "every sample has an ExAN with non-zero delta in the first hidden layer",
            "the patterns of the first hidden layer are known up to order",
        ),
        conclusion="No other batch with these patterns of the first layer has the gradient.",
        latex=r"E[1,m]\ge1\ \forall m,\ P_1(B')=P_1(B),\ \nabla(B')=\nabla(B)\ \Longrightarrow\ B'=B",
        grounds=(kernel("label_ties.py: labels_not_told", "1-3-1-2, two samples exchange labels", REFUTES),),
        checks=(
            by_example(
                "exchanged labels",
                "recomputes exclusive neurons, patterns of both batches and both gradients, over Q",
                example=labels_not_told,
                judge=same_first_patterns,
            ),
        ),
        example=lambda: replace(labels_not_told(), shown=same_first_patterns),
        smallest="With one hidden layer it is the last one, and the labels follow; two samples with an ExAN "
        "each need two neurons. Smallest known.",
        remark="The inputs are determined all the same (E1 in both batches).",
    ),
    Statement(
        name="p1-per-batch",
        group="P1",
        title="How many exclusive neurons are enough for one batch, but for exceptional weights",
        source="docs/theory.md Appendix P, P.3 and P.9",
        reading="p1-generic with the batch fixed: whatever the batch is, the weights at which it has these "
        "patterns and is not UNIQUE are exceptions.",
        quantifiers="all depths, widths, M, K, every batch of different samples; " + p1.GENERIC,
        hypotheses=(
            p1.BIASES,
            "one hidden layer: affinely independent inputs",
            "every sample has one ExAN in every hidden layer and e_m >= 2 in the last",
            "min(e_a, K') + min(e_b, K') >= K' + 2 for every pair",
        ),
        conclusion="For generic parameters with these patterns the batch is UNIQUE.",
        latex=r"\forall B:\ e_m\ge2,\ \min(e_a,K')+\min(e_b,K')\ge K'+2\ \Longrightarrow\ B\text{ unique for "
        r"generic }\theta",
        standing=Standing.PROVED,
        grounds=(
            coq("published.v: P1_batch_first, P1_batch", "the rank condition implies UNIQUE"),
            written("Appendix P, P.9", "the point of P.3 does not depend on the inputs"),
        ),
        checks=(
            by_instances(
                "one batch",
                "draws weights for one batch, with as many ExANs as the count asks for; the kernel rechecks",
                instances=weights_for_a_batch,
                conclusion=p1_checks.kernel_says_unique,
                spoiled=p1_checks.counterexample_instead,
                count=6,
                said="networks at one batch",
            ),
        ),
        remark="The counterexamples of p1-published are exceptions for their own batch, too.",
    ),
    _p1(
        name="p1-sample",
        title="Enough exclusive neurons of one sample determine that sample",
        reading="A sample with two live ExANs in the last hidden layer and one in every other is in every "
        "batch with this gradient, whatever the other samples are.",
        hypotheses=(
            p1.BIASES,
            "the sample has two ExANs with non-zero delta in the last hidden layer and one in every other",
            p2.STRICT,
        ),
        conclusion="The sample is in every batch with this gradient.",
        latex=r"E[L-1,m]\ge2,\ E[i,m]\ge1\ (i<L-1),\ \nabla(B')=\nabla(B)\ \Longrightarrow\ (x_m,y_m)\in B'",
        grounds=(
            kernel("counterexamples.py: sample_beside_a_dead_one", "1-2-1, M = 2, mse", REFUTES),
            kernel("counterexamples.py: published_insecure_smallest", "2-8-1: every sample is so", REFUTES),
        ),
        checks=(
            by_example(
                "1-2-1",
                "recomputes the exclusive neurons and both gradients; the second batch lacks the sample",
                example=sample_beside_a_dead_one,
                judge=exclusive_and_missing,
            ),
        ),
        example=lambda: replace(sample_beside_a_dead_one(), shown=exclusive_and_missing),
        smallest="Two ExANs are two neurons, and one sample alone is UNIQUE: 1-2-1 with M = 2.",
        remark="The other sample is dead, and lends the second batch its place. Where rank [dW | db] = M "
        "excludes that, two samples, one hidden layer and one logit keep the sample (P.9); four samples do "
        "not (p1-published).",
    ),
    _p2(
        name="p2-sample",
        title="No exclusive neuron of one sample",
        reading="A sample without an ExAN in any layer is missing in another batch with the same gradient, "
        "whatever the other samples are.",
        hypotheses=("the sample has no ExAN in any hidden layer", p2.STRICT, "unknown one-hot labels"),
        conclusion="Another batch with this gradient lacks the sample.",
        latex=r"E[\cdot,m]=0\ \Longrightarrow\ \exists B':\ \nabla(B')=\nabla(B),\ (x_m,y_m)\notin B'",
        grounds=(
            kernel("counterexamples.py: shared_by_an_exclusive_one", "1-2-1, M = 2, mse", REFUTES),
            kernel("counterexamples.py: one_logit_shared_neuron", "1-1-1: neither sample has one", REFUTES),
        ),
        checks=(
            by_example(
                "1-2-1",
                "recomputes the exclusivity, certifies the batch and gives the certificate to the kernel",
                example=shared_by_an_exclusive_one,
                judge=shared_and_determined,
            ),
        ),
        example=lambda: replace(shared_by_an_exclusive_one(), shown=shared_and_determined),
        smallest="Where another sample has an ExAN and shares a neuron, two neurons are needed: 1-2-1 with "
        "M = 2 is the least. Where nobody has one, 1-1-1 is (p2-any-layer).",
        remark="The sample with the exclusive neuron is peeled first, and this one is alone then (E4).",
    ),
    _p2(
        name="p2-generic",
        title="No exclusive neuron in any layer, for almost all weights",
        reading="For all weights with the given patterns but exceptional ones the batch is not UNIQUE.",
        hypotheses=("no ExAN in any hidden layer", p2.STRICT, "weights outside a set of measure zero"),
        conclusion="The batch is not UNIQUE.",
        latex=r"E=0\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)\text{ for generic }\theta",
        grounds=(
            kernel("counterexamples.py: pairs_of_neurons", "2-9-2, M = 3, by the rank of C1", REFUTES),
            written("Appendix P, P.9", "ranks and strict patterns hold near the weights as well", REFUTES),
        ),
        checks=(
            by_example(
                "2-9-2",
                "recomputes the patterns and C1's ranks over Q; the kernel checks a certificate by lifting",
                example=pairs_of_neurons,
                judge=open_and_unique,
            ),
        ),
        example=pairs_of_neurons,
        smallest="Two samples without an ExAN share every pattern, which leaves C1's rank short by two. With "
        "three there are four patterns, each of which adds K' (K' + 1) / 2 to the rank at most: one logit is "
        "too few, and two logits need nine neurons. Smallest known; other arguments are not open conditions.",
        remark="Generic weights are UNIQUE there as well: the rank is U - M outside the zeros of a minor.",
    ),
    Statement(
        name="p2-exists",
        group="P2",
        title="Some batches without exclusive neurons are not UNIQUE, in every network",
        source="docs/theory.md section 4, S1 and Appendix P, P.9",
        published=p2.PUBLISHED,
        reading="Every network has, under mse and for every M >= 3, batches of M different samples without "
        "an ExAN in any layer that have a family of second batches, with the same labels.",
        quantifiers="all depths, widths, weights, with and without biases, M >= 3",
        hypotheses=("mse", "M >= 3"),
        conclusion="Some batch of M samples without ExANs is AMBIGUOUS.",
        latex=r"\forall\theta\ \forall M\ge3\ \exists B:\ E(B)=0,\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        standing=Standing.PROVED,
        grounds=(
            coq("orbits.v: S1_ambiguous", "samples of one region with fewer than M - 1 labels turn freely"),
            written("Appendix P, P.9", "a region with inner points exists"),
        ),
        checks=(
            by_instances(
                "one region",
                "certifies three samples of a region with one label and gives the certificates to the kernel",
                instances=three_of_a_region,
                conclusion=shared_and_ambiguous,
                spoiled=p2_checks.told_apart,
                count=10,
                said="batches of one region",
            ),
        ),
        remark="This is all that is left of the published sentence for every network: that it can be so, "
        "not that it is.",
    ),
)
