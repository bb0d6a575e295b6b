"""S0: of samples that share a region, the gradient sees one matrix only."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Loss
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import multiply, solve
from exan_verify.exact.softmax import loss_vectors, mse_targets
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import (
    Pair,
    drawn,
    exact,
    integer_network,
    integers,
    mse_batch,
    noticing_nudge,
    region_points,
    same_gradient,
    same_samples,
    spoiled,
)
from exan_verify.theorems.support.shorthands import by_instances, coq

WIDTHS = ((2, 4, 3), (1, 3, 2), (3, 4, 4, 2))


def same_moments(seed: int) -> Iterator[Pair]:
    """Two samples of one region against three with the same T(S), beside a third sample elsewhere."""
    return drawn("S0", seed, _draw)


def _draw(rng: Random) -> Pair | None:
    network = integer_network(rng, rng.choice(WIDTHS))
    two = region_points(rng, network, 2)
    if two is None:
        return None
    beside = integers(rng, 1, network.widths[0])
    labels = integers(rng, 3, network.classes)
    first = mse_batch(network, np.concatenate([two, beside]), labels)
    places = sorted(Fraction(v, 16) for v in rng.sample(range(1, 16), 3))
    three = exact([two[0] + (two[1] - two[0]) * s for s in places])
    targets = _targets(network, first, two, three)
    second = mse_batch(network, np.concatenate([three, beside]), np.concatenate([targets, labels[2:]]))
    return noticing_nudge(Pair(network=network, first=first, second=second))


def _targets(network: ReluNetwork, first: Batch, two: Array, three: Array) -> Array:
    """Targets of three points with sum g' [x' 1] = sum g [x 1]: g' = g L where [X 1] = L [X' 1].

    Each of the two is an affine combination of two of the three (all five lie on one line).
    """
    line = np.concatenate([three, exact([[1], [1], [1]])], axis=1)
    rows = []
    for point, pair in ((two[0], (0, 1)), (two[1], (1, 2))):
        weights = solve(line[list(pair)].T.copy(), exact([[*point, 1]]).T.copy())
        assert weights is not None
        row = exact([0, 0, 0])
        row[list(pair)] = weights[:, 0]
        rows.append(row)
    vectors = loss_vectors(Loss.MSE, forward(network, first).logits, first.labels, 1)[:, :2]
    moved = multiply(vectors, np.array(rows))
    logits = forward(network, Batch(inputs=three, labels=three)).logits
    return mse_targets(logits, moved, 1).T


def same_gradient_elsewhere(pair: Pair) -> bool:
    """The whole gradient (sum over samples) is the same, at every layer, and the batches are not."""
    return same_gradient(pair) and not same_samples(pair)


STATEMENTS = (
    Statement(
        name="s0",
        group="S0",
        title="Of samples that share a region, the gradient sees one matrix only",
        source="docs/theory.md section 4, S0 (the master lemma)",
        reading="Let samples S share their pattern in every hidden layer. Their whole gradient is a fixed "
        "linear image of T(S) = sum g^m [x_m ; 1]^T. Replacing S by any samples of that region, in any "
        "number, with the same T(S) keeps the gradient (sum over the samples), also inside a batch.",
        quantifiers="all depths, widths, numbers of samples, loss vectors; any commutative ring",
        hypotheses=(
            "all samples of S and of S' lie in one region",
            "sum over S of g^m [x_m ; 1]^T equals the same sum over S'",
        ),
        conclusion="S and S' have the same gradient in every layer, alone and as part of any batch.",
        latex=r"T(S)=\sum_{m\in S}g^m[x_m;1]^{\mathsf T}:\qquad T(S)=T(S')\ \Longrightarrow\ "
        r"\nabla(S\cup R)=\nabla(S'\cup R)",
        standing=Standing.PROVED,
        grounds=(
            coq("shared.v: S0", "the gradient is a linear image of the moment"),
            coq("shared.v: S0_same_moment, S0_in_batch", "equal moments, equal gradients; also in a batch"),
        ),
        checks=(
            by_instances(
                "three-for-two",
                "replaces two samples of a region by three with the same T(S), beside another sample, and "
                "compares the gradients of all layers over Q",
                instances=same_moments,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=25,
                said="batches with equal T(S) have equal gradients",
            ),
        ),
        remark="Conversely nothing: equal gradients do not need equal T(S) (another batch may use other "
        "regions).",
    ),
)
