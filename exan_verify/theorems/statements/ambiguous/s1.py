"""S1: under mse, samples of one region can be turned by every rotation that fixes their labels."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.linalg import identity, multiply, nullspace, solve
from exan_verify.theorems.statement import Example, Result, Standing, Statement
from exan_verify.theorems.support.counterexamples import one_logit_shared_neuron
from exan_verify.theorems.support.example_check import all_met
from exan_verify.theorems.support.laboratory import (
    Pair,
    drawn,
    exact,
    in_region,
    integer_network,
    mse_batch,
    noticing_nudge,
    one_hot,
    region_points,
    same_gradient,
    same_samples,
    spoiled,
)
from exan_verify.theorems.support.p2_checks import refuted as p2_refuted
from exan_verify.theorems.support.shorthands import NEITHER, REFUTES, by_instances, coq, kernel, written

WIDTHS = ((2, 4, 2), (3, 4, 2), (2, 3, 3, 2), (2, 4, 1))


def turned(seed: int) -> Iterator[Pair]:
    """Four samples of one region, two of each class, against their image under a small rotation."""
    return drawn("S1", seed, _draw_turned)


def _draw_turned(rng: Random) -> Pair | None:
    network = integer_network(rng, rng.choice(WIDTHS))
    inputs = region_points(rng, network, 4)
    if inputs is None:
        return None
    labels = one_hot(network.classes, (0, 0, 1, 1))
    rotation = cayley(_complement(labels), Fraction(1, rng.randint(8, 40)))
    return _pair(network, inputs, labels, multiply(rotation, inputs))


def reflected(seed: int) -> Iterator[Pair]:
    """Three samples of one region with real labels of one logit, |S| - r = 1, against their mirror image."""
    return drawn("S1 reflections", seed, _draw_reflected)


def _draw_reflected(rng: Random) -> Pair | None:
    network = integer_network(rng, (2, 3, 1))
    inputs = region_points(rng, network, 3, spread=256)
    labels = exact([[rng.randint(-3, 3)] for _ in range(3)])
    rest = _complement(labels)
    if inputs is None or rest.shape[1] != 1:
        return None
    mirror = identity(3) - multiply(rest, rest.T.copy()) * (2 / (rest[:, 0] @ rest[:, 0]))
    return _pair(network, inputs, labels, multiply(mirror, inputs))


def _pair(network: ReluNetwork, inputs: Array, labels: Array, moved: Array) -> Pair | None:
    if not in_region(network, np.concatenate([inputs, moved])):
        return None
    first, second = (mse_batch(network, x, labels) for x in (inputs, moved))
    pair = Pair(network=network, first=first, second=second)
    return None if same_samples(pair) else noticing_nudge(pair)


def _complement(labels: Array) -> Array:
    """A basis (M, M - r) of the vectors orthogonal to 1 and to every column of the labels."""
    ones = exact(np.ones((len(labels), 1), dtype=int))
    fixed: Array = np.concatenate([ones, labels], axis=1).T.copy()
    return nullspace(fixed)


def cayley(basis: Array, size: Fraction) -> Array:
    """The orthogonal ``(I - N)(I + N)^-1`` (M, M) with N = E K E^T, E (M, k) the basis, K a skew matrix of
    entries ``size``.
    """
    count = basis.shape[1]
    skew = exact([[(b > a) - (b < a) for b in range(count)] for a in range(count)]) * size
    turn = multiply(multiply(basis, skew), basis.T.copy())
    one = identity(len(turn))
    back = solve(one + turn, one)
    assert back is not None
    rotation: Array = multiply(one - turn, back)
    return rotation


def same_gradient_elsewhere(pair: Pair) -> bool:
    """One gradient, over Q; the same labels; not the same samples."""
    return same_gradient(pair) and not same_samples(pair) and pair.first.y == pair.second.y


def one_dimension_left() -> Example:
    """Two samples of one class in one region, two logits: |S| - r = 1, and UNIQUE. 1-1-2."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [2]]], [[1], [0, 0]])
    batch = Batch.of([[0], [1]], [0, 0], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Example(
        network=network,
        batch=batch,
        question=Question(loss=Loss.MSE),
        outcome=Outcome.UNIQUE,
        shown=one_dimension,
        note="The only orthogonal matrix that fixes 1 and Y, besides the identity, exchanges the two "
        "samples.",
    )


def one_dimension(example: Example) -> Result:
    """One region, and |S| - rank [1, Y] = 1."""
    return all_met(
        {
            "one region, no pre-activation zero": in_region(example.relu, example.batch.inputs),
            "|S| - r = 1": _complement(exact(example.batch.labels)).shape[1] == 1,
        }
    )


def _equal_labels(seed: int) -> Iterator[Array]:
    rng = Random(f"S1 permutations/{seed}")
    for classes in (2, 3, 4):
        for _ in range(3):
            chosen = [*range(classes), rng.randrange(classes)]
            yield one_hot(classes, chosen)


def reflection_is_a_permutation(labels: Array) -> bool:
    """With every class once and one class twice, the reflection that fixes 1 and Y (M, K) exchanges two
    samples.
    """
    rest = _complement(labels)
    if rest.shape[1] != 1:
        return False
    mirror = identity(len(labels)) - multiply(rest, rest.T.copy()) * (2 / (rest[:, 0] @ rest[:, 0]))
    return all(sorted(row)[:-1] == [0] * (len(row) - 1) and max(row) == 1 for row in mirror)


def real_labels(_labels: Array) -> Array:
    """Labels (3, 1) that are not one-hot, with the same |S| - r = 1."""
    return exact([[k * k] for k in range(3)])


STATEMENTS = (
    Statement(
        name="s1",
        group="S1",
        title="Under mse, samples of one region turn freely about their labels",
        source="docs/theory.md section 4, S1",
        reading="Let samples S share a region and the loss be mse. For every orthogonal O that fixes the "
        "vector of ones and the labels (O 1 = 1, O Y = Y), X' = O X has the same gradient while it stays in "
        "the region. With r = rank [1, Y]: when |S| - r >= 2, no pre-activation is zero and the inputs are "
        "not all combinations of 1 and the labels, a continuous family of second batches starts at the "
        "batch itself.",
        quantifiers="all depths, widths, |S|, K, labels (known ones too)",
        hypotheses=(
            "all samples of S lie in one region, and so do the turned ones",
            "the loss is mse",
            "for the family: |S| - rank [1, Y] >= 2, (I - P) X != 0, pre-activations not zero",
        ),
        conclusion="X and O X have the same gradient; arbitrarily small turns give batches that are no "
        "permutation of X: AMBIGUOUS.",
        latex=r"OO^{\mathsf T}=I,\ O\mathbf 1=\mathbf 1,\ OY=Y\ \Longrightarrow\ \nabla(OX,Y)=\nabla(X,Y);"
        r"\qquad |S|-r\ge 2,\ (I-P)X\ne0\ \Longrightarrow\ \text{AMBIGUOUS}",
        standing=Standing.PROVED,
        grounds=(
            coq("shared.v: S1", "every such O keeps the gradient inside the region"),
            coq(
                "orbits.v: reflection, stabiliser_family",
                "such O exist by counting, a family for |S| - r >= 2",
            ),
            coq("orbits.v: S1_ambiguous", "second batches, arbitrarily close, no permutation of the first"),
            written("section 4, S1; F4", "the family's dimension (|S| - r)(|S| - r - 1) / 2"),
        ),
        checks=(
            by_instances(
                "rotations",
                "turns four samples of one region (two per class) by a rational Cayley transform and "
                "compares the gradients over Q",
                instances=turned,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=20,
                said="turned batches have the same gradient",
            ),
        ),
        remark="How far a turn reaches before a sample leaves the region is another question (ambiguity "
        "radius).",
    ),
    Statement(
        name="s1-one-dimension",
        group="S1",
        title="One dimension of freedom is a reflection, not always a second batch",
        source="docs/theory.md section 4, S1",
        reading="|S| - r = 1 is enough for a second batch by S1.",
        quantifiers="all networks, mse, samples of one region",
        hypotheses=("all samples of S lie in one region", "|S| - rank [1, Y] = 1", "the loss is mse"),
        conclusion="The batch is AMBIGUOUS.",
        latex=r"|S|-\operatorname{rank}[\mathbf 1,Y]=1\ \not\Longrightarrow\ \text{AMBIGUOUS}",
        standing=Standing.REFUTED,
        grounds=(
            kernel(
                "s1-one-dimension: its example", "1-1-2, two samples of one class and region: UNIQUE", REFUTES
            ),
            written(
                "section 4, S1",
                "one-hot labels: one class has two samples, and the reflection swaps them",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "one-hot",
                "computes the reflection for one-hot labels with one class twice: it must be a permutation",
                instances=_equal_labels,
                conclusion=reflection_is_a_permutation,
                spoiled=real_labels,
                count=9,
                said="reflections that fix one-hot labels exchange two samples",
                direction=REFUTES,
            ),
            p2_refuted("1-1-1", one_logit_shared_neuron, "every"),
            by_instances(
                "real",
                "reflects three samples with real labels of one logit: there it is a second batch, with the "
                "same labels",
                instances=reflected,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=10,
                said="reflected batches with real labels have the same gradient",
                direction=NEITHER,
            ),
        ),
        example=one_dimension_left,
        smallest="1-1-1 with both labels 0 is smaller by a logit; "
        "|S| - r = 1 needs two samples, so that nothing is smaller.",
        remark="For labels that are real numbers the reflection is in general a genuine second batch, even "
        "with known labels.",
    ),
)
