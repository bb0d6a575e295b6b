"""The batch around which a radius is proved, found in floating point (C3, then Newton steps of T3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exan_verify.core.network import Array, to_fraction
from exan_verify.core.question import Loss
from exan_verify.decide.tolerance.candidates import candidates
from exan_verify.decide.tolerance.problem import NotShownError, Problem
from exan_verify.exact.balls import Floats

_STEPS = 5
"""Newton steps at most; two or three reach rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """Inputs (M, d) as float64, and target vectors (M, K) of zeros and ones."""

    inputs: Floats
    targets: Array


def numerical_rank(problem: Problem) -> int:
    """How many singular values of [dW_1 | db_1] stand above the noise of the tolerance: a guess of M."""
    matrix = problem.floats(1)
    noise = float(problem.tolerance) * (np.sqrt(matrix.shape[0]) + np.sqrt(matrix.shape[1]))
    return int(np.count_nonzero(np.linalg.svd(matrix, compute_uv=False) > noise))


def find(problem: Problem) -> list[Centre]:
    """Batches whose gradient is near the given one, best first: the one that the equations give; before it
    the nearest to it in the domain where it is outside. Raises :class:`NotShownError` where none was found.
    """
    matrix, samples = problem.floats(1), problem.samples
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    if samples > len(values) or not values[samples - 1] > float(problem.tolerance):
        raise NotShownError(
            f"the gradient of layer 1 does not show {samples} samples above the tolerance: another batch "
            "size fits, or samples are duplicates, dead or without a loss"
        )
    outgoing = outgoing_floats(problem)
    noise = max(2.0**-44, float(problem.tolerance) / float(values[samples - 1]))
    chosen = candidates(left[:, :samples], outgoing, noise, np.random.default_rng(problem.setting.seed))
    deltas = np.stack([c.delta for c in chosen], axis=1)
    extended = np.linalg.pinv(deltas) @ matrix
    scales = extended[:, -1]
    if not np.all(np.abs(scales) > 1e-12 * np.abs(extended).max()):
        raise NotShownError("the bias column does not fit the deltas found: another batch size fits")
    inputs = refined(problem, extended[:, :-1] / scales[:, None], outgoing)
    places = [inputs]
    if problem.setting.question.domain is not None:
        low, high = problem.setting.question.domain.bounds(inputs.shape[1])
        moved = np.clip(inputs, _inside(low, 1), _inside(high, -1))
        places = [inputs] if np.array_equal(moved, inputs) else [moved, inputs]
    following = np.stack([c.following * s for c, s in zip(chosen, scales, strict=True)], axis=1)
    vectors = basis_floats(problem) @ following if problem.network.depth == 2 else None
    return [Centre(inputs=place, targets=_targets(problem, place, vectors)) for place in places]


def basis_floats(problem: Problem) -> Floats:
    """A basis (n_2, K') of the possible next deltas."""
    size = problem.network.widths[2]
    if problem.parametrisation == "zero_sum":
        return np.concatenate([np.eye(size - 1), -np.ones((1, size - 1))])
    if problem.parametrisation == "full":
        return np.eye(size)
    left: Floats = np.linalg.svd(problem.floats(2), full_matrices=False)[0]
    return left[:, : problem.samples]


def outgoing_floats(problem: Problem) -> Floats:
    """The rows w_j . basis (n_1, K')."""
    product: Floats = problem.weight(2).T @ basis_floats(problem)
    return product


def refined(problem: Problem, inputs: Floats, outgoing: Floats) -> Floats:
    """Newton steps on the lifted equations: the mixing Z of T4 that is left, to first order, is undone."""
    matrix, samples = problem.floats(1), problem.samples
    features = with_ones(inputs)
    left: Floats | None = None
    before = np.inf
    for _ in range(_STEPS):
        problem.spend(matrix.size * samples)
        block = matrix @ right_inverse_floats(features)
        active = features[:, :-1] @ problem.weight(1).T + problem.offset(1) > 0
        points = fitted(block, outgoing, active.T)
        rows, residuals = equations_floats(block, outgoing, points)
        if left is None:
            left = scaled_pseudo_inverse(rows)
        mixing = _mixing(left @ residuals, samples)
        size = float(np.abs(mixing).max())
        if not size < before / 2:
            break
        before = size
        features = np.linalg.solve(np.eye(samples) + mixing, np.linalg.pinv(block) @ matrix)
        features[:, -1] = 1.0
    return np.ascontiguousarray(features[:, :-1])


def right_inverse_floats(features: Floats) -> Floats:
    """P with ``features @ P`` about I and rows that add up to about e_last (T1)."""
    found: Floats = np.linalg.pinv(features)
    target = np.zeros(len(found))
    target[-1] = 1.0
    found[:, -1] += target - found.sum(axis=1)
    return found


def fitted(block: Floats, outgoing: Floats, active: Array) -> Floats:
    """Coordinates (M, K') of the next deltas: least squares over each sample's active neurons."""
    return np.array(
        [
            np.linalg.lstsq(outgoing[active[:, m]], block[active[:, m], m], rcond=None)[0]
            for m in range(block.shape[1])
        ]
    )


def equations_floats(block: Floats, outgoing: Floats, points: Floats) -> tuple[Floats, Floats]:
    """T2 in floating point: coefficients (n, U) and residuals (n, M)."""
    first, second = np.triu_indices(block.shape[1], 1)
    squares = 2 * block[:, first] * block[:, second]
    products = -(block[:, :, None] * outgoing[:, None, :]).reshape(len(block), -1)
    return np.concatenate([squares, products], axis=1), block * (block - outgoing @ points.T)


def scaled_pseudo_inverse(matrix: Floats) -> Floats:
    """The pseudo-inverse, computed with columns of unit length."""
    lengths = np.linalg.norm(matrix, axis=0)
    if not np.all(lengths > 0):
        raise NotShownError("an unknown occurs in no equation: a sample or a logit has no weight in layer 1")
    found: Floats = np.linalg.pinv(matrix / lengths, rcond=2.0**-50) / lengths[:, None]
    return found


def with_ones(inputs: Floats) -> Floats:
    """``[X 1]``."""
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)


def _mixing(solved: Floats, samples: int) -> Floats:
    """Z with Z_ba = -(L t_a)_ab and rows that add up to zero."""
    mixing = np.zeros((samples, samples))
    for k, (a, b) in enumerate(zip(*np.triu_indices(samples, 1), strict=True)):
        mixing[b, a], mixing[a, b] = -solved[k, a], -solved[k, b]
    return mixing - np.diag(mixing.sum(axis=1))


def _targets(problem: Problem, inputs: Floats, vectors: Floats | None) -> Array:
    """Labels from logits and loss vectors; where u is not known, the output layer gives the loss vectors."""
    depth = problem.network.depth
    hidden: Floats = inputs
    for layer in range(1, depth):
        hidden = np.maximum(hidden @ problem.weight(layer).T + problem.offset(layer), 0)
    logits = (hidden @ problem.weight(depth).T + problem.offset(depth)).T
    if vectors is None:
        vectors = problem.floats(depth) @ np.linalg.pinv(with_ones(hidden))
    scaled = vectors * problem.divisor
    loss = problem.setting.question.loss
    if loss is Loss.MSE:
        values: Floats = logits - scaled / 2
    elif loss is Loss.HINGE:
        values = -scaled
    elif loss is Loss.BCE:
        values = np.exp(-np.logaddexp(0, -logits)) - scaled
    else:
        values = np.exp(logits - np.logaddexp.reduce(logits, axis=0)) - scaled
    if loss is Loss.BCE or len(values) == 1:
        targets: Array = (values.T > 0.5).astype(np.int64)
    else:
        targets = np.eye(len(values), dtype=np.int64)[values.argmax(axis=0)]
    return targets


def _inside(bounds: Array, direction: int) -> Floats:
    """float64 numbers that are not outside an exact bound."""
    out = np.empty(len(bounds))
    for k, value in enumerate(bounds):
        exact = to_fraction(value)
        guess = float(exact)
        outside = to_fraction(guess) < exact if direction > 0 else to_fraction(guess) > exact
        out[k] = np.nextafter(guess, direction * np.inf) if outside else guess
    return out
