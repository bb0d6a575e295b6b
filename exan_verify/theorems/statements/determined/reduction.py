"""3.1: two batches with one gradient differ by one matrix Q with Q 1 = 1."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from random import Random

from exan_verify.exact.linalg import multiply
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import (
    Pair,
    connecting,
    delta,
    drawn,
    factorises,
    integer_network,
    integers,
    mse_batch,
    real_second,
    region_points,
    spoiled,
)
from exan_verify.theorems.support.shorthands import by_instances, coq

WIDTHS = ((2, 4, 3), (3, 5, 2), (3, 4, 4, 3))


def pairs(seed: int) -> Iterator[Pair]:
    """Second batches of two or three samples of one region with real labels (F5), rank A = M at layer 1."""
    return drawn("3.1", seed, _draw)


def connected_by_one_matrix(pair: Pair) -> bool:
    """At every hidden layer with rank A = M: H' = Q H, Delta' Q = Delta and Q 1 = 1 for one Q, over Q."""
    layers = [k for k in range(1, pair.network.depth) if factorises(pair, k)]
    return bool(layers) and all(_connected(pair, layer) for layer in layers)


def _connected(pair: Pair, layer: int) -> bool:
    mixing = connecting(pair, layer)
    if mixing is None or any(sum(row) != 1 for row in mixing):
        return False
    before, after = (delta(pair.network, b, layer) for b in (pair.first, pair.second))
    return bool((multiply(after, mixing) == before).all())


def _draw(rng: Random) -> Pair | None:
    network = integer_network(rng, rng.choice(WIDTHS))
    size = rng.choice((2, 3)) if network.widths[0] > 2 else 2
    inputs = region_points(rng, network, size)
    if inputs is None:
        return None
    first = mse_batch(network, inputs, integers(rng, size, network.classes))
    step = Fraction(-rng.randint(1, 7), 8)
    pair = Pair(
        network=network,
        first=first,
        second=real_second(network, first, range(size), step),
        members=tuple(range(size)),
    )
    return pair if factorises(pair, 1) else None


STATEMENTS = (
    Statement(
        name="reduction",
        group="3.1",
        title="Two batches with one gradient differ by one matrix",
        source="docs/theory.md 3.1",
        reading="If the gradient of one hidden layer, weights and bias side by side, has rank M, then in any "
        "other batch of M samples with the same gradient that layer's inputs and deltas are those of the "
        "first batch, mixed by exactly one invertible M x M matrix whose rows sum to one. The input "
        "dimension is gone from the question.",
        quantifiers="all depths, widths, layers, M, loss vectors",
        hypotheses=(
            "the network has biases",
            "rank [dW_i | db_i] = M at a hidden layer i",
            "both batches have M samples and the same gradient of layer i",
        ),
        conclusion="There is exactly one invertible Q with H'_{i-1} = Q H_{i-1}, Delta'_i = Delta_i Q^{-1}, "
        "Q 1 = 1.",
        latex=r"\operatorname{rank}[\,\mathrm dW_i\mid \mathrm db_i\,]=M \;\Longrightarrow\; \exists!\,Q\in"
        r"\mathrm{GL}_M(\mathbb R):\ H'_{i-1}=QH_{i-1},\ \Delta'_i=\Delta_iQ^{-1},\ Q\mathbf 1=\mathbf 1",
        standing=Standing.PROVED,
        grounds=(
            coq(
                "linalg.v: two_factorisations",
                "two factorisations of a rank-M product through dimension M differ by an invertible matrix",
            ),
            coq(
                "exact.v: factorisations",
                "the statement for networks, at the first hidden layer; gsum_topp makes it every layer",
            ),
            coq(
                "exact.v: factorisations_unique",
                "there is one such Q only, and one Q^{-1}",
            ),
        ),
        checks=(
            by_instances(
                "one-matrix",
                "solves [H' 1] = Q [H 1] over Q for second batches with real labels (F5) at every hidden "
                "layer of rank M, and compares Delta' Q with Delta and Q 1 with 1",
                instances=pairs,
                conclusion=connected_by_one_matrix,
                spoiled=spoiled,
                count=25,
                said="second batches with rank A = M are connected by one Q",
            ),
        ),
        remark="Nothing is said when the rank is below M: dead, duplicate and zero-loss samples make it so.",
    ),
)
