"""UNIQUE up to a radius: all batches with a gradient near the given one (docs/theory.md, Appendix T).

The certificate names a batch, a radius for each of its samples, and how next deltas are parametrised.
Everything else is recomputed: the bounds T1 to T5 (:mod:`exan_verify.kernel.tolerance.bounds`), the labels
(T6, :mod:`exan_verify.kernel.tolerance.labels`), and that the batch's own gradient is near (T7): without it
the radius says that there is at most one batch, up to the radius, which is no UNIQUE. The same evidence shows
UNREALISABLE where no batch within the radii is near (T8); a rank above the batch size (T9) needs no batch.
"""

from __future__ import annotations

from fractions import Fraction
from math import isfinite
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.certificate import Claim, RankBound, Tolerance
from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.exact.balls import (
    BallMatrix,
    Floats,
    ball_matrix,
    constant_interval,
    identity,
    interval_matrix,
    midpoints,
    upper,
    upper_float,
    working_precision,
)
from exan_verify.kernel.given import require
from exan_verify.kernel.tolerance.bounds import Deviations, Factor, deviations, distances, mixing
from exan_verify.kernel.tolerance.labels import check_labels
from exan_verify.kernel.tolerance.near import Near, check_far, check_near


def claim(
    evidence: Tolerance, stated: Claim, question: Question, network: ReluNetwork, given: Gradient
) -> Claim:
    """The claim that ``evidence`` shows, which is ``stated`` with every radius verified.

    Raises :class:`exan_verify.errors.CertificateRejected` with the step that fails.
    """
    near = _near(evidence, question, network, given)
    with working_precision():
        bounds = _bounds(near, evidence)
        if stated.outcome is Outcome.UNREALISABLE:
            check_far(near, bounds)
            return Claim(question=stated.question, outcome=Outcome.UNREALISABLE, samples=())
        require(
            stated.radius is not None and len(stated.radius) == near.samples,
            "a claim with a tolerance states a radius for each sample",
        )
        for m, (radius, proved) in enumerate(zip(stated.radius or (), bounds, strict=True)):
            require(
                isfinite(radius) and proved <= radius,
                f"sample {m}: the radius {radius:g} is stated, {proved:g} is what the evidence shows",
            )
        require(
            stated.realised is True,
            "no batch is claimed to be within the tolerance, so the radius shows that there is at most one "
            "such batch up to the radius, and not UNIQUE",
        )
        require(
            question.domain is None or question.domain.contains(near.centre),
            "the batch lies outside the domain, so it is no batch that was asked about",
        )
        check_near(near, given)
    return Claim(
        question=stated.question,
        outcome=Outcome.UNIQUE,
        samples=(SampleStatus.UNKNOWN,) * near.samples,
        radius=stated.radius,
        realised=True,
    )


def check_rank_within(evidence: RankBound, question: Question, network: ReluNetwork, given: Gradient) -> None:
    """T9: every gradient within the tolerance has rank [dW | db] >= ``evidence.rank``, above the batch size.

    With V the first right singular vectors over their values, and U' the left ones, both as floats give them:
    |U' A' V - I| < 1 for every such A' makes U' A' V invertible.
    """
    tolerance = question.tolerance or Fraction(0)
    require(tolerance > 0, "a tolerance is positive")
    require(evidence.prime == evidence.point == 0, "with a tolerance a rank is shown with balls, in no field")
    require(1 <= evidence.layer <= network.depth, f"there is no layer {evidence.layer}")
    require(evidence.rank > question.samples, f"rank {evidence.rank} needs no more than that many samples")
    weight, bias = given.for_network(network).at(evidence.layer)
    exact = weight if bias is None else np.concatenate([weight, bias.reshape(-1, 1)], axis=1)
    rank = evidence.rank
    require(rank <= min(exact.shape), f"rank {rank} is more than the shape of layer {evidence.layer} has")
    guess = exact.astype(np.float64)
    require(bool(np.all(np.isfinite(guess))), "the gradient's entries are beyond the range of float64")
    left, sizes, right = np.linalg.svd(guess, full_matrices=False)
    require(bool(sizes[rank - 1] > 0), f"rank {rank} of layer {evidence.layer} is not shown")
    with working_precision():
        scaled = ball_matrix((right[:rank] / sizes[:rank, None]).T)
        every = ball_matrix(exact) + constant_interval(exact.shape, tolerance)
        defect = upper(ball_matrix(left.T[:rank]) * every * scaled - identity(rank))
        sums = ball_matrix(defect) * ball_matrix(np.ones((rank, 1)))
        require(
            all(bool(total < 1) for total in sums.entries()),
            f"rank {rank} of layer {evidence.layer} is not shown for every gradient within the tolerance",
        )


def _near(evidence: Tolerance, question: Question, network: ReluNetwork, given: Gradient) -> Near:
    tolerance = question.tolerance or Fraction(0)
    require(tolerance > 0, "a tolerance is positive")
    require(question.labels is Labels.ONE_HOT, "a radius is shown for one_hot labels only")
    require(network.has_bias and network.depth >= 2, "a radius needs biases and a hidden layer")
    size, features = question.samples, network.widths[0]
    require(
        len(evidence.inputs) == len(evidence.labels) == size >= 1
        and all(len(row) == features for row in evidence.inputs)
        and all(len(row) == network.classes for row in evidence.labels),
        "the batch of the certificate has another shape than the question and the network",
    )
    x = np.array(evidence.inputs, dtype=np.float64)
    require(bool(np.all(np.isfinite(x))), "the batch of the certificate has entries that are not finite")
    layers = [(weight, bias) for weight, bias in given.for_network(network) if bias is not None]
    return Near(
        network=network,
        question=question,
        layers=PerLayer(layers),
        tolerance=tolerance,
        centre=Batch.of(
            x, _labels(evidence, question.loss), network=network, loss=question.loss, labels=Labels.ONE_HOT
        ),
    )


def _labels(evidence: Tolerance, loss: Loss) -> Any:
    vectors = np.array(evidence.labels, dtype=np.int64)
    if not loss.class_labels:
        return vectors
    hot = bool(np.all((vectors == 0) | (vectors == 1)) and np.all(vectors.sum(axis=1) == 1))
    require(hot, "the labels of the certificate are not classes")
    return vectors.argmax(axis=1)


def _bounds(near: Near, evidence: Tolerance) -> list[float]:
    """T1 to T6: per sample, a bound of the distance to its counterpart in every near batch."""
    first = near.factor(1)
    basis, outgoing = _following(near, evidence)
    points = _points(near, first, outgoing)
    found = deviations(first.block, outgoing, points)
    deltas = _deltas(basis, points, found)
    mixed = mixing(found, _sizes(near, deltas))
    moved = distances(first, mixed, near.features(1))[:, :-1]
    scales = interval_matrix(mixed.scales.reshape(1, -1))
    known = _scaled(deltas, scales) if near.network.depth == 2 else None
    check_labels(near, moved, known)
    return [float(v) for v in moved.max(axis=1)]


def _following(near: Near, evidence: Tolerance) -> tuple[BallMatrix, BallMatrix]:
    """T2: a basis (n_2, K') of the next deltas of every near batch, and the rows w_j . basis (n_1, K')."""
    network, kind = near.network, evidence.parametrisation
    size = network.widths[2]
    if kind == "column_space":
        require(network.depth > 2, "the column space of the last layer is not used")
        basis = near.factor(2).block
    elif kind == "zero_sum":
        zero = near.question.loss.zero_sum and network.depth == 2
        require(zero and size >= 2, "these next deltas need not add up to zero")
        basis = ball_matrix(np.concatenate([np.eye(size - 1), -np.ones((1, size - 1))]))
    else:
        require(kind == "full", "this parametrisation has no meaning here")
        basis = ball_matrix(np.eye(size))
    return basis, ball_matrix(network.layers[1].weight.T) * basis


def _points(near: Near, first: Factor, outgoing: BallMatrix) -> Floats:
    """Guesses (M, K') of the next deltas' coordinates: least squares on each sample's active neurons."""
    block, rows = midpoints(first.block), midpoints(outgoing)
    pattern = near.passed.patterns[0]
    return np.array(
        [
            np.linalg.lstsq(rows[pattern[:, m]], block[pattern[:, m], m], rcond=None)[0]
            for m in range(near.samples)
        ]
    )


def _deltas(basis: BallMatrix, points: Floats, found: Deviations) -> BallMatrix:
    """T3: column a encloses delta'_2 / s of every column of T^-1 that is near e_a; (n_2, M)."""
    return basis * (ball_matrix(points.T) + interval_matrix(found.following.T))


def _sizes(near: Near, deltas: BallMatrix) -> Floats:
    """T4: |s| <= bound of |delta'_2| / |delta'_2 / s|, in the entry where that is least."""
    limits = next_delta_bounds(near)
    sizes = []
    for a in range(near.samples):
        ratios = [
            upper_float(limits[c] / deltas[c, a].abs_lower())
            for c in range(deltas.nrows())
            if deltas[c, a].abs_lower() > 0
        ]
        require(bool(ratios), f"the next delta of sample {a} is not shown to be different from zero")
        sizes.append(min(ratios))
    return np.array(sizes)


def next_delta_bounds(near: Near) -> list[Any]:
    """T4: bounds of the entries of delta'_2 (n_2) in every near batch, from the loss alone."""
    network, divisor = near.network, flint.arb(near.divisor)
    size = 1 / divisor
    if near.question.loss is Loss.MSE:
        last = network.layers[-1]
        assert last.bias is not None
        extended = ball_matrix(np.concatenate([last.weight, last.bias.reshape(-1, 1)], axis=1))
        trace = (near.gradient(network.depth) * extended.transpose()).trace().abs_upper()
        size += (2 / divisor * (trace + flint.arb(near.samples) / (2 * divisor))).sqrt()
    bounds = flint.arb_mat(network.classes, 1, [size] * network.classes)
    for layer in network.layers[:1:-1]:
        bounds = ball_matrix(np.abs(layer.weight).T) * bounds
    return [bound.abs_upper() for bound in bounds.entries()]


def _scaled(deltas: BallMatrix, scales: BallMatrix) -> BallMatrix:
    """Column a times s_a, ``|s_a - 1| <= scales[a]``."""
    rows, cols = deltas.nrows(), deltas.ncols()
    entries = [deltas[c, a] * (1 + scales[0, a]) for c in range(rows) for a in range(cols)]
    return flint.arb_mat(rows, cols, entries)
