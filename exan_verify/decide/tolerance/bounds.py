"""T4 to T7 of Appendix T with balls: permutation, radius, labels, and whether the centre is near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.tolerance.centre import Centre, basis_floats, fitted, with_ones
from exan_verify.decide.tolerance.lifted import Block, Spread, block, right_inverse, spread
from exan_verify.decide.tolerance.problem import NotShownError, Problem
from exan_verify.exact.backprop import Forward, forward
from exan_verify.exact.balls import (
    BallMatrix,
    Floats,
    ball_matrix,
    interval_matrix,
    midpoints,
    upper,
    upper_float,
)
from exan_verify.exact.softmax import probabilities

_CHUNK = 256
_SETTLING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Per sample of the centre, a bound on the distance of its counterpart in every near batch."""

    batch: Batch
    radius: tuple[float, ...]


def show(problem: Problem, centre: Centre, batch: Batch) -> Shown:
    """Prove a radius around ``centre``, whose batch is ``batch``; raises :class:`NotShownError` with the step
    that fails.
    """
    passed = forward(problem.network, batch)
    features = with_ones(centre.inputs)
    first = block(problem, 1, features)
    basis = _basis(problem, passed)
    outgoing = ball_matrix(problem.network.layers[1].weight.T) * basis
    points = fitted(midpoints(first.product), midpoints(outgoing), passed.patterns[0])
    found = spread(problem, first.product, outgoing, points)
    deltas = basis * (ball_matrix(points.T) + interval_matrix(found.following.T))
    sizes, scales = _factors(found, _largest_factors(problem, deltas))
    moved = _moved(first, found.columns, sizes, features)
    vectors = None
    if problem.network.depth == 2:
        around_one = flint.arb_mat(
            [
                [1 + flint.arb(0, scales[a]) if a == b else 0 for b in range(problem.samples)]
                for a in range(problem.samples)
            ]
        )
        vectors = deltas * around_one
    _told(problem, centre, passed, moved, vectors)
    return Shown(batch=batch, radius=tuple(float(v) for v in moved.max(axis=1)))


def batch_of(problem: Problem, centre: Centre) -> Batch:
    """The centre as a batch of the question."""
    loss = problem.setting.question.loss
    labels = centre.targets.argmax(axis=1) if loss.class_labels else centre.targets
    return Batch.of(centre.inputs, labels, network=problem.network, loss=loss, labels=Labels.ONE_HOT)


def _basis(problem: Problem, passed: Forward) -> BallMatrix:
    if problem.parametrisation != "column_space":
        return ball_matrix(basis_floats(problem))
    features = with_ones(passed.hidden[1].fractions().astype(np.float64).T)
    return block(problem, 2, features).product


def _largest_factors(problem: Problem, deltas: BallMatrix) -> list[Any]:
    """T4: |s| of a column near e_a, from what the loss allows delta'_2 to be."""
    limits = _limits(problem).entries()
    found = []
    for a in range(problem.samples):
        best = None
        for c, limit in enumerate(limits):
            least = deltas[c, a].abs_lower()
            if least > 0 and (best is None or limit / least < best):
                best = (limit / least).abs_upper()
        if best is None:
            raise NotShownError(f"the next delta of sample {a} is not shown to be different from zero")
        found.append(best)
    return found


def _limits(problem: Problem) -> BallMatrix:
    """Upper bounds (n_2, 1) of |delta'_2| in every near batch: |g'| entry by entry, then |W|^T downwards."""
    network, total = problem.network, flint.arb(problem.divisor)
    largest = 1 / total
    if problem.setting.question.loss is Loss.MSE:
        # sum g'.f' = tr(dW' W^T + db' b^T) bounds sum (|g'_k| - 1/N)^2
        last = network.layers[-1]
        assert last.bias is not None
        extended = ball_matrix(np.concatenate([last.weight, last.bias.reshape(-1, 1)], axis=1))
        trace = (problem.balls(network.depth) * extended.transpose()).trace()
        inside = 2 / total * (trace.abs_upper() + problem.samples / (2 * total))
        largest = largest + inside.sqrt().abs_upper()
    limits = flint.arb_mat([[largest]] * network.classes)
    for layer in reversed(network.layers[2:]):
        limits = ball_matrix(np.abs(layer.weight.T)) * limits
    return limits


def _factors(found: Spread, largest: list[Any]) -> tuple[list[Any], Floats]:
    """T4: T^-1 is near a permutation, and bounds of |s_a| and of |s_a - 1|."""
    samples = len(largest)
    columns = ball_matrix(found.columns)
    for b in range(samples):
        for a in range(samples):
            reach = samples * largest[a] * columns[a, b]
            if a != b and not reach < 1:
                raise NotShownError(
                    f"samples {a} and {b} are not shown to be different samples of every near batch ("
                    f"{upper_float(reach):.2g}, which must be below 1)"
                )
    sizes = flint.arb_mat([largest])
    scales = np.zeros(samples)
    for _ in range(_SETTLING):
        scales = upper(sizes * columns)[0]
        pairs = zip(scales, sizes.entries(), strict=True)
        sizes = flint.arb_mat([[(1 + flint.arb(v)).abs_upper().min(s) for v, s in pairs]])
    return sizes.entries(), scales


def _moved(first: Block, columns: Floats, sizes: list[Any], features: Floats) -> Floats:
    """T5: bounds (M, d) of |X' - X|."""
    samples, count = features.shape
    rows = first.left * first.gradient
    exact = ball_matrix(features)
    base: Floats = np.zeros((samples, count))
    for start in range(0, count, _CHUNK):
        part = slice(start, min(count, start + _CHUNK))
        base[:, part] = upper(
            rows * (ball_matrix(np.eye(count)[:, part]) - first.right * ball_matrix(features[:, part]))
        )
    base = _fixed_point(base, ball_matrix(first.excess))
    scaled = ball_matrix(columns.T) * flint.arb_mat(
        [[sizes[a] if a == b else 0 for b in range(samples)] for a in range(samples)]
    )
    entries = upper(scaled)
    for m in range(samples):
        shifted = exact - ball_matrix(np.repeat(features[m : m + 1], samples, axis=0))
        base[m] = upper(ball_matrix(base[m : m + 1]) + interval_matrix(entries[m : m + 1]) * shifted)[0]
    return _fixed_point(base, 2 * scaled)[:, :-1]


def _fixed_point(base: Floats, operator: BallMatrix) -> Floats:
    """D from ``D <= base + operator D``, all entries at least 0: (I - operator) D <= base."""
    samples = len(base)
    sums = operator * ball_matrix(np.ones((samples, 1)))
    norm = flint.arb(max(upper_float(v) for v in sums.entries()))
    if not norm < 1:
        raise NotShownError(f"samples are mixed too much ({float(norm):.2g}, which must be below 1)")
    top = ball_matrix(base.max(axis=0, keepdims=True)) * (1 / (1 - norm))
    return upper(ball_matrix(base) + sums * top)


def _told(
    problem: Problem, centre: Centre, passed: Forward, moved: Floats, vectors: BallMatrix | None
) -> None:
    """T6: only the centre's labels fit the inputs and loss vectors of near batches."""
    hidden = ball_matrix(moved.T)
    for layer in problem.network.layers[:-1]:
        hidden = ball_matrix(np.abs(layer.weight)) * hidden
    if vectors is None:
        vectors = _loss_vectors(problem, passed, upper(hidden))
    last = ball_matrix(np.abs(problem.network.layers[-1].weight)) * hidden
    logits = ball_matrix(passed.logits) + interval_matrix(upper(last))
    scaled = vectors * flint.arb(problem.divisor)
    for m, target in enumerate(centre.targets):
        column = [[matrix[c, m] for c in range(len(target))] for matrix in (logits, scaled)]
        values = _values(problem.setting.question.loss, *column)
        single = problem.setting.question.loss is not Loss.BCE and len(target) > 1
        entries = [int(target.argmax())] if single else range(len(target))
        if not all(values[c] > 0 if target[c] else values[c] < 1 for c in entries):
            raise NotShownError(f"the label of sample {m} is not shown: the radius is too large to tell")


def _values(loss: Loss, logits: list[Any], scaled: list[Any]) -> list[Any]:
    """Enclosures of a near batch's target vector (hinge: negative loss vector, positive at the label)."""
    if loss is Loss.HINGE:
        return [-g for g in scaled]
    if loss is Loss.MSE:
        return [f - g / 2 for f, g in zip(logits, scaled, strict=True)]
    return [p - g for p, g in zip(probabilities(loss, logits), scaled, strict=True)]


def _loss_vectors(problem: Problem, passed: Forward, moved: Floats) -> BallMatrix:
    """G' from A'_L P = G' [H'_{L-1} 1] P for any P."""
    depth = problem.network.depth
    features = with_ones(passed.features(depth).fractions().astype(np.float64).T)
    right = right_inverse(features)
    slack = moved.T + np.abs(features[:, :-1]) * 2.0**-50  # the rounding of the features to float64
    mixed = (ball_matrix(features) + interval_matrix(np.pad(slack, ((0, 0), (0, 1))))) * right
    try:
        inverse = mixed.inv()
    except ZeroDivisionError:
        raise NotShownError(
            f"the labels are not shown: the features of layer {depth - 1} may come too close to dependent "
            "within the radius"
        ) from None
    return problem.balls(depth) * right * inverse
