"""T7 to T9 of Appendix T: whether a batch is known to be near, or it is shown that none is."""

from __future__ import annotations

from typing import Any

import flint
import numpy as np

from exan_verify.core.certificate import RankBound
from exan_verify.core.network import Batch, to_fraction
from exan_verify.core.question import Loss
from exan_verify.decide.tolerance.problem import Problem
from exan_verify.exact.backprop import gradient_ball
from exan_verify.exact.balls import (
    BallMatrix,
    ball_matrix,
    identity,
    inner_interval,
    interval_matrix,
    upper,
)
from exan_verify.exact.softmax import probabilities, to_ball

_EITHER = flint.arb(0.5, 0.5)
"""A ball around 0 and 1: a slope, or a violated margin, that the radius leaves open."""


def replayed(problem: Problem, batch: Batch) -> tuple[bool, float]:
    """T7: whether ``batch`` is proved to be a near batch, and an upper bound of the largest entry of its
    gradient's difference from the given one.
    """
    question = problem.setting.question
    realised = question.domain is None or question.domain.contains(batch)
    own = gradient_ball(problem.network, batch, question.loss, question.reduction)
    distance = 0.0
    for name, balls in own.items():
        array = problem.gradient.tensors[name]
        array = array.reshape(-1, 1) if array.ndim == 1 else array
        apart = balls - ball_matrix(array)
        distance = max(distance, float(upper(apart).max()))
        realised = realised and bool(inner_interval(array.shape, problem.tolerance).contains(apart))
    return realised, distance


def none_in_radius(problem: Problem, batch: Batch, radius: tuple[float, ...]) -> bool:
    """T8: no batch with inputs within ``radius`` (M,) of ``batch`` and its labels is a near batch."""
    network, question = problem.network, problem.setting.question
    around = interval_matrix(np.repeat(np.array(radius)[None, :], network.widths[0], axis=0))
    hidden = [ball_matrix(batch.inputs.T) + around]
    if question.domain is not None:
        low, high = question.domain.bounds(network.widths[0])
        for k in range(network.widths[0]):
            least, most = to_ball(to_fraction(low[k])), to_ball(to_fraction(high[k]))
            if any(hidden[0][k, m] < least or hidden[0][k, m] > most for m in range(batch.size)):
                return True
    slopes: list[list[Any]] = []
    for layer in network.layers:
        assert layer.bias is not None
        ones = ball_matrix(np.ones((1, batch.size)))
        z = ball_matrix(layer.weight) * hidden[-1] + ball_matrix(layer.bias.reshape(-1, 1)) * ones
        values = z.entries()
        # torch's slope at 0 is 0
        slopes.append([flint.arb(1) if v > 0 else flint.arb(0) if v <= 0 else _EITHER for v in values])
        hidden.append(z if len(hidden) == network.depth else _relu(z))
    delta = _loss_vectors(problem, batch, hidden.pop())
    slopes.pop()  # the logits'
    for i in range(network.depth, 0, -1):
        weight = delta * hidden.pop().transpose()
        bias = delta * ball_matrix(np.ones((batch.size, 1)))
        rows = zip(weight.table(), bias.entries(), strict=True)
        width, below = network.layer(i).shape
        own = flint.arb_mat(width, below + 1, [v for row, last in rows for v in (*row, last)])
        limit = to_ball(problem.tolerance).abs_upper()
        if any(v.abs_lower() > limit for v in (own - ball_matrix(problem.layers.at(i))).entries()):
            return True
        if i > 1:
            down = (ball_matrix(network.layer(i).weight.T) * delta).entries()
            kept = [v * slope for v, slope in zip(down, slopes.pop(), strict=True)]
            delta = flint.arb_mat(below, batch.size, kept)
    return False


def _relu(z: BallMatrix) -> BallMatrix:
    """The hull of max(0, v) entry by entry."""
    clipped = [v if v > 0 else v.max(flint.arb(0)) for v in z.entries()]
    return flint.arb_mat(z.nrows(), z.ncols(), clipped)


def _loss_vectors(problem: Problem, batch: Batch, logits: BallMatrix) -> BallMatrix:
    """The loss vectors (K, M) of all logits in ``logits``, under the labels of ``batch``."""
    loss, classes, divisor = problem.setting.question.loss, logits.nrows(), flint.arb(problem.divisor)
    columns = []
    for m in range(batch.size):
        column = [logits[c, m] for c in range(classes)]
        label = batch.labels[m]
        if loss is Loss.HINGE:
            own = int(label)
            margins = [1 - column[own] + v for v in column]
            hit = [flint.arb(1) if v > 0 else flint.arb(0) if v <= 0 else _EITHER for v in margins]
            hit[own] = flint.arb(0)
            hit[own] = -sum(hit, flint.arb(0))
            columns.append([v / (classes * divisor) for v in hit])
            continue
        target = (
            [int(c == int(label)) for c in range(classes)] if loss.class_labels else [int(v) for v in label]
        )
        values = column if loss is Loss.MSE else probabilities(loss, column)
        factor = 2 if loss is Loss.MSE else 1
        columns.append([factor * (v - y) / divisor for v, y in zip(values, target, strict=True)])
    return flint.arb_mat(classes, batch.size, [column[c] for c in range(classes) for column in columns])


def rank_bound(problem: Problem) -> RankBound | None:
    """T9: a layer whose [dW | db] has rank above M in every gradient within the tolerance, or None."""
    rank = problem.samples + 1
    for layer in range(1, problem.network.depth + 1):
        matrix = problem.floats(layer)
        if min(matrix.shape) < rank or not np.all(np.isfinite(matrix)):
            continue
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        noise = float(problem.tolerance) * sum(np.sqrt(matrix.shape))
        if not values[rank - 1] > noise:
            continue
        problem.spend(matrix.size * rank)
        # any N and P do: where |N A' P - I| < 1 in the row-sum norm, N A' P is invertible
        block = problem.balls(layer) * ball_matrix(right[:rank].T / values[:rank])
        excess = upper(ball_matrix(left[:, :rank].T) * block - identity(rank))
        if float(excess.sum(axis=1).max()) < 0.99:
            return RankBound(prime=0, layer=layer, rank=rank)
    return None
