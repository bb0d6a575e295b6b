"""S2: shears that no logit sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.softmax import loss_vectors
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.exclusive_layers import Layered
from exan_verify.theorems.support.laboratory import (
    Pair,
    drawn,
    exact,
    in_region,
    integer_network,
    noticing_nudge,
    one_hot,
    region_points,
    same_gradient,
    same_samples,
    spoiled,
)
from exan_verify.theorems.support.shorthands import by_instances, coq, kernel

SHAPES = (
    (Loss.MSE, (3, 4, 1), 2),
    (Loss.MSE, (4, 5, 2), 3),
    (Loss.MSE, (3, 3, 4, 1), 2),
    (Loss.HINGE, (2, 4, 2), 2),
    (Loss.HINGE, (2, 4, 3), 3),
)
"""(loss, widths, samples): more samples than dimensions of loss vectors."""


def sheared(seed: int) -> Iterator[Pair]:
    """Samples of one region with dependent loss vectors, against x_m + t alpha_m v with an unseen v."""
    return drawn("S2", seed, _draw)


def _draw(rng: Random) -> Pair | None:
    loss, widths, size = rng.choice(SHAPES)
    network = integer_network(rng, widths)
    inputs = region_points(rng, network, size)
    if inputs is None:
        return None
    chosen = [rng.randrange(max(2, network.classes)) for _ in range(size)]
    labels = np.array(chosen) if loss is Loss.HINGE else one_hot(network.classes, chosen)
    first = Batch.of(inputs, labels, network=network, loss=loss, labels=Labels.ONE_HOT)
    before = loss_vectors(loss, forward(network, first).logits, first.labels, 1)
    alphas, unseen = nullspace(before), _unseen(network, inputs, loss)
    if not unseen.shape[1] or not alphas.shape[1]:
        return None
    step = np.outer(alphas[:, 0], unseen[:, rng.randrange(unseen.shape[1])])
    largest = max((abs(v) for v in step.reshape(-1)), default=Fraction(0))
    if largest == 0:
        return None
    second = replace(first, inputs=inputs + step / largest / 4096)
    pair = Pair(network=network, first=first, second=second, loss=loss)
    after = loss_vectors(loss, forward(network, second).logits, second.labels, 1)
    inside = in_region(network, np.concatenate([inputs, second.inputs]))
    return noticing_nudge(pair) if inside and bool((before == after).all()) else None


def _unseen(network: ReluNetwork, inputs: Array, loss: Loss) -> Array:
    """Directions (d, k) that the logits do not see in the region; for hinge all directions."""
    size = network.widths[0]
    ends = np.concatenate([inputs[:1], inputs[:1] + np.eye(size, dtype=int) * Fraction(1, 2**20)])
    if loss is Loss.HINGE:
        return exact(np.eye(size, dtype=int))
    logits = forward(network, Batch(inputs=exact(ends), labels=ends)).logits
    return nullspace(logits[:, 1:] - logits[:, :1])


def same_gradient_elsewhere(pair: Pair) -> bool:
    """One gradient, over Q, and not the same samples."""
    return same_gradient(pair) and not same_samples(pair)


def crowded(seed: int) -> Iterator[Layered]:
    """As many samples of one region as cross_entropy has classes (bce: one more than logits), d > rank."""
    return drawn("S2 counting", seed, _draw_crowded)


def _draw_crowded(rng: Random) -> Layered | None:
    loss, classes, size = rng.choice(
        ((Loss.CROSS_ENTROPY, 2, 2), (Loss.CROSS_ENTROPY, 3, 3), (Loss.BCE, 1, 2))
    )
    network = integer_network(rng, (3 + classes, 4, classes), top=2)
    inputs = region_points(rng, network, size)
    if inputs is None:
        return None
    chosen = [rng.randrange(max(2, classes)) for _ in range(size)]
    labels = np.array(chosen) if loss is Loss.CROSS_ENTROPY else exact([[c] for c in chosen])
    batch = Batch.of(inputs, labels, network=network, loss=loss, labels=Labels.ONE_HOT)
    layer = Layered(network=network, batch=batch, question=Question(loss=loss))
    return None if kernel_accepts_ambiguous(first_alone(layer)) else layer


def kernel_accepts_ambiguous(layer: Layered) -> bool:
    """The engine's certificate says AMBIGUOUS and the kernel accepts it."""
    outcome = kernel_outcome(layer.network, layer.batch, layer.question, engine="families")
    return outcome is Outcome.AMBIGUOUS


def first_alone(layer: Layered) -> Layered:
    """The first sample alone: one sample has no dependent loss vectors."""
    return replace(layer, batch=layer.batch.select([0]))


STATEMENTS = (
    Statement(
        name="s2",
        group="S2",
        title="Shears that no logit sees keep the gradient",
        source="docs/theory.md section 4, S2",
        reading="Let samples S share a region, their loss vectors be dependent (sum alpha_m g^m = 0, alpha "
        "!= 0) and a direction v leave the loss vectors alone: A v = 0 for mse and bce, A v constant for "
        "cross_entropy, anything for hinge while its margins keep their strict sign. Then moving each x_m by "
        "t alpha_m v keeps the gradient while the samples stay in the region.",
        quantifiers="all depths, widths, |S|, losses whose loss vectors do not see A v",
        hypotheses=(
            "all samples of S lie in one region, and so do the moved ones",
            "sum alpha_m g^m = 0 with alpha != 0 (|S| >= K for cross_entropy, |S| > K otherwise, by "
            "counting)",
            "v != 0 changes no loss vector (d larger than the rank of A modulo invariant directions)",
        ),
        conclusion="The moved batch has the same gradient; with no pre-activation zero a whole segment of "
        "them.",
        latex=r"\sum_m\alpha_mg^m=0,\ g(f+tAv,y)=g(f,y)\ \Longrightarrow\ "
        r"\nabla\big((x_m+t\alpha_mv)_m\big)=\nabla\big((x_m)_m\big)",
        standing=Standing.PROVED,
        grounds=(
            coq("shared.v: S2, S2_same_logits", "the shear keeps the gradient inside the region"),
            coq("orbits.v: S2_alpha_sum_zero, S2_alpha_many, S2_v", "alpha and v exist by counting"),
            kernel(
                "this check", "cross_entropy and bce: certificates by counting, where alpha is irrational"
            ),
        ),
        checks=(
            by_instances(
                "shears",
                "solves for alpha and v over Q (mse, hinge), moves the samples and compares the gradients",
                instances=sheared,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=25,
                said="sheared batches have the same gradient",
            ),
            by_instances(
                "counting",
                "certifies crowded regions under cross_entropy and bce and gives the certificate to the "
                "kernel",
                instances=crowded,
                conclusion=kernel_accepts_ambiguous,
                spoiled=first_alone,
                count=12,
                said="crowded regions are AMBIGUOUS for the kernel",
            ),
        ),
        remark="So under softmax with K = 2, or with one logit, two samples of one region have second "
        "batches when no pre-activation is zero and the input dimension is larger than what the logits see "
        "there. With a zero it can fail (p2-zero-pre-activation).",
    ),
)
