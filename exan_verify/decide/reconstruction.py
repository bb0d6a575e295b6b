"""Gradient given: the batch from an exact gradient (docs/theory.md 3.5), for mse.

Nothing in lifting needs the true Delta, only a basis C of the column space of A = [dW_i | db_i]: Delta = C P
with an unknown invertible P. When dim null(R) = M the null space is spanned by the M samples' lifted
solutions, all rational; the eigenvectors of S_a S_b^-1, for two combinations of the q q^T blocks, are the
columns of P up to scale, and the bias column fixes the scale (C3, over Q). This file only finds a batch: the
caller checks its exact gradient, and uniqueness is decided from the batch itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.certificate import Mixing
from exan_verify.exact.backprop import affine
from exan_verify.exact.linalg import (
    characteristic_polynomial,
    multiply,
    nullspace,
    pivots,
    rational_roots,
    solve,
)
from exan_verify.exact.rational import RationalMatrix, product
from exan_verify.exact.softmax import mse_targets
from exan_verify.network import Array, Batch, Loss, Reduction, ReluNetwork, to_fraction

LayerGradient = tuple[Array, Array | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A candidate batch and how Delta of ``mixing.layer`` is mixed from columns of the gradient."""

    batch: Batch
    mixing: Mixing


class NotFoundError(Exception):
    """Why no batch was found at this layer; the text becomes part of a reason."""


def rebuild(
    network: ReluNetwork, gradient: Sequence[LayerGradient], reduction: Reduction, samples: int, layer: int
) -> Found:
    """A batch of ``samples`` samples whose gradient may be ``gradient``, from lifting at ``layer``.

    Raises :class:`NotFoundError` with the reason when the layer does not give one.
    """
    full = with_bias(gradient[layer - 1])
    columns = pivots(full)
    if len(columns) != samples:
        raise NotFoundError(f"rank [dW_{layer} | db_{layer}] is {len(columns)}, the batch size {samples}")
    basis = full[:, columns]
    null = _null_basis(network, gradient, layer, basis)
    if null.shape[1] != samples:
        raise NotFoundError(f"dim null(R) is {null.shape[1]} at layer {layer}, not the batch size {samples}")
    mixing = _scaled(_directions(null, samples), basis, full[:, -1])
    record = Mixing(
        layer=layer, columns=tuple(columns), matrix=tuple(tuple(str(v) for v in row) for row in mixing)
    )
    return Found(batch=from_mixing(network, gradient, reduction, record, mixing), mixing=record)


def from_mixing(
    network: ReluNetwork,
    gradient: Sequence[LayerGradient],
    reduction: Reduction,
    mixing: Mixing,
    matrix: Array,
) -> Batch:
    """The batch with ``Delta_layer = A[:, columns] @ matrix``, down to X and up to the labels (3.4)."""
    delta = multiply(with_bias(gradient[mixing.layer - 1])[:, list(mixing.columns)], matrix)
    features = _features(delta, gradient[mixing.layer - 1][0], mixing.layer)
    for k in range(mixing.layer - 1, 0, -1):
        active = np.vectorize(lambda v: v > 0, otypes=[bool])(features).T
        delta = product(network.layers[k].weight.T, RationalMatrix.of(delta)).masked(active).fractions()
        features = _features(delta, gradient[k - 1][0], k)
    return Batch(inputs=features, labels=_targets(network, gradient, reduction, features))


def with_bias(layer: LayerGradient) -> Array:
    """``[dW | db]`` as Fractions."""
    weight, bias = layer
    if bias is None:
        raise NotFoundError("the network has no biases")
    return _fractions(np.concatenate([weight.astype(object), bias.astype(object).reshape(-1, 1)], axis=1))


def _features(delta: Array, weight_gradient: Array, layer: int) -> Array:
    """The unique H with ``delta @ H = dW``."""
    found = solve(delta, _fractions(weight_gradient))
    if found is None:
        raise NotFoundError(f"Delta_{layer} has not full column rank or does not fit dW_{layer}")
    return found


def _targets(
    network: ReluNetwork, gradient: Sequence[LayerGradient], reduction: Reduction, inputs: Array
) -> Array:
    """Targets from the loss vectors: ``[dW_L | db_L] = G [H_{L-1} 1]`` gives G, and mse gives y from f."""
    hidden = RationalMatrix.of(inputs.T)
    for layer in network.layers[:-1]:
        z = affine(layer, hidden)
        hidden = z.masked(z.positive())
    extended = np.concatenate([hidden.fractions(), np.full((1, inputs.shape[0]), Fraction(1))])
    vectors = solve(extended, with_bias(gradient[-1]).T)
    if vectors is None:
        raise NotFoundError("rank [H_{L-1} 1] is below the batch size, so the loss vectors stay open")
    logits = affine(network.layers[-1], hidden).fractions()
    divisor = Loss.MSE.divisor(reduction, inputs.shape[0], network.classes)
    return mse_targets(logits, vectors.T, divisor).T


def _null_basis(network: ReluNetwork, gradient: Sequence[LayerGradient], layer: int, basis: Array) -> Array:
    """Null space of R over Q, built from the basis of the column space; columns are null vectors."""
    samples = basis.shape[1]
    outgoing = _fractions(network.layers[layer].weight.T)
    if outgoing.shape[1] > samples:
        following = with_bias(gradient[layer])
        columns = pivots(following)
        if len(columns) == samples:
            outgoing = multiply(outgoing, following[:, columns])
    rows = []
    for c, w in zip(basis, outgoing, strict=True):
        if any(c):
            squares = [c[a] * c[b] * (1 if a == b else 2) for a in range(samples) for b in range(a, samples)]
            rows.append(squares + [-c[a] * v for a in range(samples) for v in w])
    return nullspace(np.array(rows, dtype=object))


def _directions(null: Array, samples: int) -> Array:
    """Columns q_m up to scale: eigenvectors of S_a S_b^-1 for combinations of the q q^T blocks."""
    blocks = [_symmetric(null[:, k], samples) for k in range(null.shape[1])]
    for attempt in range(1, 6):
        first = _combine(blocks, [attempt + 7 * k + k * k for k in range(len(blocks))])
        second = _combine(blocks, [3 + (attempt * k) % 5 + k for k in range(len(blocks))])
        pencil = solve(second, first)
        if pencil is None:
            continue
        # solve gives S_b^-1 S_a; its transpose S_a S_b^-1 has the eigenvectors q_m
        roots = rational_roots(characteristic_polynomial(pencil.T))
        if len(roots) == samples:
            return np.concatenate([_eigenvector(pencil.T, root) for root, _ in roots], axis=1)
    raise NotFoundError("the lifted solutions do not separate into rational samples")


def _scaled(directions: Array, basis: Array, bias: Array) -> Array:
    """Columns scaled so that ``basis @ P @ 1 = db`` (the bias column)."""
    scales = solve(multiply(basis, directions), bias.reshape(-1, 1))
    if scales is None or not all(scales[:, 0]):
        raise NotFoundError("the bias column does not fit the directions found")
    return _fractions(directions * scales[:, 0])


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


def _fractions(array: Array) -> Array:
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = to_fraction(value)
    return out
