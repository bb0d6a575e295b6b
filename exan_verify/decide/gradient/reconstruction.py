"""Gradient given: the batch from an exact gradient, or the proof that there is none (docs/theory.md 3.5).

Nothing in lifting needs the true Delta, only a basis C of the column space of A = [dW_i | db_i]: Delta = C P
with an unknown invertible P, for every batch of size M = rank A. When dim null(R) = M and M independent
columns p_m with their u_m solve the lifted system, every batch has these columns up to scale (C1), and the
bias column fixes the scale. So the batch is *forced*, layer by layer: either it follows, and has the given
gradient or not, or a step contradicts the gradient. The p_m are eigenvectors of S_a S_b^-1, for two
combinations of the q q^T blocks of the null space (C3, over Q).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import PerLayer, fractions
from exan_verify.core.certificate import Forced, Mixing
from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.backprop import affine
from exan_verify.exact.linalg import (
    characteristic_polynomial,
    multiply,
    nullspace,
    pivots,
    rank,
    rational_roots,
    solve,
)
from exan_verify.exact.rational import RationalMatrix, product
from exan_verify.exact.softmax import mse_targets

LayerGradient = tuple[Array, Array | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A forced batch, how Delta of ``mixing.layer`` is mixed from columns of the gradient, and why forced."""

    batch: Batch
    mixing: Mixing
    forced: Forced


class NotFoundError(Exception):
    """Why no batch was found at this layer; the text becomes part of a reason."""


class ImpossibleError(NotFoundError):
    """A contradiction: no batch of this size has this gradient. ``forced`` is the evidence."""

    def __init__(self, reason: str, forced: Forced | None = None) -> None:
        super().__init__(reason)
        self.forced = forced


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be rebuilt: a gradient of ``samples`` samples under a rational loss."""

    network: ReluNetwork
    gradient: PerLayer[LayerGradient]
    loss: Loss
    reduction: Reduction
    samples: int


def rebuild(task: Task, layer: int) -> Found:
    """The batch that the gradient forces, from lifting at ``layer``.

    Raises :class:`ImpossibleError` on a contradiction, :class:`NotFoundError` when the layer does not
    force anything.
    """
    full = with_bias(task.gradient.at(layer))
    columns = pivots(full)
    if len(columns) != task.samples:
        raise NotFoundError(
            f"the gradient of layer {layer} has rank {len(columns)}, the batch size is {task.samples}"
        )
    basis = full[:, columns]
    null, width = _null_basis(task, layer, basis)
    if null.shape[1] > task.samples:
        raise NotFoundError(
            f"the equations there leave {null.shape[1]} directions for {task.samples} samples"
        )
    if null.shape[1] < task.samples:
        few = Forced(layer=layer, columns=tuple(columns), matrix=(), following=())
        raise ImpossibleError(
            f"the equations of layer {layer} leave {null.shape[1]} directions, {task.samples} samples need "
            "one each",
            few,
        )
    directions, following = _directions(null, task.samples, width)
    forced = Forced(
        layer=layer, columns=tuple(columns), matrix=_texts(directions), following=_texts(following)
    )
    try:
        mixing = _scaled(directions, basis, full[:, -1])
        record = Mixing(layer=layer, columns=tuple(columns), matrix=_texts(mixing))
        return Found(batch=_from_mixing(task, record, mixing), mixing=record, forced=forced)
    except ImpossibleError as error:
        raise ImpossibleError(f"layer {layer}: {error}", forced) from None


def with_bias(layer: LayerGradient) -> Array:
    """``[dW | db]`` (n_out, n_in + 1) as Fractions."""
    weight, bias = layer
    if bias is None:
        raise NotFoundError("the network has no biases")
    return fractions(np.concatenate([weight.astype(object), bias.astype(object).reshape(-1, 1)], axis=1))


def _from_mixing(task: Task, mixing: Mixing, matrix: Array) -> Batch:
    """The batch with ``Delta_layer = A[:, columns] @ matrix``, down to X and up to the labels (3.4)."""
    delta = multiply(with_bias(task.gradient.at(mixing.layer))[:, list(mixing.columns)], matrix)
    features = _features(delta, task.gradient.at(mixing.layer), mixing.layer)
    for k in range(mixing.layer - 1, 0, -1):
        active = np.vectorize(lambda v: v > 0, otypes=[bool])(features).T
        if np.any(features < 0):
            raise ImpossibleError(f"a feature of layer {k} would be negative")
        delta = product(task.network.layers[k].weight.T, RationalMatrix.of(delta)).masked(active).fractions()
        features = _features(delta, task.gradient.at(k), k)
    return Batch(inputs=features, labels=_targets(task, features))


def _features(delta: Array, gradient: LayerGradient, layer: int) -> Array:
    """The unique H with ``delta @ [H 1] = [dW | db]``."""
    given = with_bias(gradient)
    found = solve(delta, given)
    if found is not None and np.all(found[:, -1] == 1):
        return found[:, :-1]
    if rank(delta) < delta.shape[1]:
        raise NotFoundError(f"the deltas of layer {layer} are dependent")
    raise ImpossibleError(f"no features of layer {layer - 1} fit the gradient of layer {layer}")


def _targets(task: Task, inputs: Array) -> Array:
    """Labels from the loss vectors: ``[dW_L | db_L] = G [H_{L-1} 1]`` gives G."""
    hidden = RationalMatrix.of(inputs.T)
    for layer in task.network.layers[:-1]:
        z = affine(layer, hidden)
        hidden = z.masked(z.positive())
    extended = np.concatenate([hidden.fractions(), np.full((1, inputs.shape[0]), Fraction(1))]).T
    vectors = solve(extended.T, with_bias(task.gradient[-1]).T)
    if vectors is None and rank(extended) < task.samples:
        raise NotFoundError(
            "the features of the last hidden layer are dependent, so the loss vectors stay open"
        )
    if vectors is None:
        raise ImpossibleError("no loss vectors fit the gradient of the last layer")
    if task.loss is Loss.HINGE:
        return _hinge_labels(vectors)
    divisor = task.loss.divisor(task.reduction, task.samples, task.network.classes)
    return mse_targets(affine(task.network.layers[-1], hidden).fractions(), vectors.T, divisor).T


def _hinge_labels(vectors: Array) -> Array:
    """The one negative entry of a non-zero hinge loss vector is the label; ``vectors`` (M, K)."""
    labels = []
    for row in vectors:
        negative = [k for k, value in enumerate(row) if value < 0]
        if len(negative) != 1:
            raise ImpossibleError("a loss vector is none that multi_margin_loss has")
        labels.append(negative[0])
    return np.array(labels, dtype=np.int64)


def _null_basis(task: Task, layer: int, basis: Array) -> tuple[Array, int]:
    """Null space of R over Q from a basis of the column space, one null vector per column, and the number
    of unknowns of u.
    """
    samples = basis.shape[1]
    outgoing = fractions(task.network.layers[layer].weight.T)
    if outgoing.shape[1] > samples:
        following = with_bias(task.gradient[layer])
        columns = pivots(following)
        if len(columns) == samples:
            outgoing = multiply(outgoing, following[:, columns])
    rows = []
    for c, w in zip(basis, outgoing, strict=True):
        if any(c):
            squares = [c[a] * c[b] * (1 if a == b else 2) for a in range(samples) for b in range(a, samples)]
            rows.append(squares + [-c[a] * v for a in range(samples) for v in w])
    return nullspace(np.array(rows, dtype=object)), outgoing.shape[1]


def _directions(null: Array, samples: int, width: int) -> tuple[Array, Array]:
    """Columns p_m up to scale, and rows u_m with (p_m p_m^T, p_m u_m^T) in the null space."""
    blocks = [_symmetric(null[:, k], samples) for k in range(samples)]
    mixed = [null[-samples * width :, k].reshape(samples, width) for k in range(samples)]
    for attempt in range(1, 6):
        weights = [attempt + 7 * k + k * k for k in range(samples)]
        first = _combine(blocks, weights)
        second = _combine(blocks, [3 + (attempt * k) % 5 + k for k in range(samples)])
        pencil = solve(second, first)
        if pencil is None:
            continue
        # solve gives S_b^-1 S_a; its transpose S_a S_b^-1 has the eigenvectors p_m
        roots = rational_roots(characteristic_polynomial(pencil.T))
        if len(roots) == samples:
            found = np.concatenate([_eigenvector(pencil.T, root) for root, _ in roots], axis=1)
            following = _following(found, first, _combine(mixed, weights))
            if following is not None:
                return found, following
    raise NotFoundError("the lifted solutions do not separate into rational samples")


def _following(directions: Array, squares: Array, mixed: Array) -> Array | None:
    """u_m from ``sum a_m p_m p_m^T`` and ``sum a_m p_m u_m^T`` with the same a; None when some a is 0."""
    left = solve(directions, squares)
    scaled = solve(directions, mixed)
    if left is None or scaled is None:
        return None
    diagonal = solve(directions, left.T)
    if diagonal is None or not all(diagonal[m, m] for m in range(len(diagonal))):
        return None
    return np.array([scaled[m] / diagonal[m, m] for m in range(len(diagonal))], dtype=object)


def _scaled(directions: Array, basis: Array, bias: Array) -> Array:
    """Columns scaled so that ``basis @ P @ 1 = db`` (the bias column)."""
    scales = solve(multiply(basis, directions), bias.reshape(-1, 1))
    if scales is None or not all(scales[:, 0]):
        raise ImpossibleError("the bias column does not fit the forced directions")
    return fractions(directions * scales[:, 0])


def _symmetric(vector: Array, samples: int) -> Array:
    out = np.empty((samples, samples), dtype=object)
    k = 0
    for a in range(samples):
        for b in range(a, samples):
            out[a, b] = out[b, a] = vector[k]
            k += 1
    return out


def _combine(blocks: list[Array], weights: list[int]) -> Array:
    total: Array = blocks[0] * Fraction(weights[0])
    for block, weight in zip(blocks[1:], weights[1:], strict=True):
        total = total + block * Fraction(weight)
    return total


def _eigenvector(matrix: Array, root: Fraction) -> Array:
    shifted = matrix.copy()
    for k in range(matrix.shape[0]):
        shifted[k, k] = shifted[k, k] - root
    vector: Array = nullspace(shifted)[:, :1]
    return vector


def _texts(matrix: Array) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(str(v) for v in row) for row in matrix)
