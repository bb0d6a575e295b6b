"""Rebuilds the batch of a gradient certificate and verifies that it has that gradient (3.4, 3.5).

The mixing matrix says ``Delta_i = A[:, columns] P`` at one layer. Whether P is right needs no argument: the
batch that follows from it is accepted only if its own exact gradient is the given one.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.certificate import Mixing, rational
from exan_verify.core.network import Array, Batch, Gradient, ReluNetwork, to_fraction
from exan_verify.core.question import Loss, Question
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import affine, gradient
from exan_verify.exact.linalg import multiply, solve
from exan_verify.exact.rational import RationalMatrix, product

LEAST_BITS = 1024
LONGER = 16
"""A delta may have this many bits, and this many times the bits of the gradient's longest entry."""


def rebuilt_batch(
    mixing: Mixing, network: ReluNetwork, given: Gradient, question: Question
) -> tuple[Array, Array]:
    """Inputs (M, d) and targets (M, K) with exactly the gradient ``given``.

    Raises :class:`CertificateRejected` when a step fails or the gradients differ.
    """
    if not question.loss.rational or not network.has_bias:
        raise CertificateRejected("gradient certificates are for mse and hinge, and networks with biases")
    layers = PerLayer(_extended(*layer) for layer in given.for_network(network))
    inputs = _inputs(mixing, network, layers, question.samples)
    hidden, logits = _outputs(network, inputs)
    vectors = _solved(hidden.T, layers[-1].T, "the loss vectors are not determined").T
    targets = _labels(vectors, logits, question)
    batch = Batch(inputs=inputs, labels=targets)
    again = gradient(network, batch, question.loss, question.reduction)
    for name, array in again.tensors.items():
        if np.any(array != given.tensors[name]):
            raise CertificateRejected(f"the rebuilt batch has another gradient in {name!r}")
    return inputs, targets


def _labels(vectors: Array, logits: Array, question: Question) -> Array:
    """Labels from the loss vectors (K, M); whether they are right shows when the gradient is compared."""
    if question.loss is Loss.HINGE:
        return np.array([min(range(len(column)), key=column.__getitem__) for column in vectors.T])
    divisor = question.divisor(question.samples, len(logits))
    targets: Array = (logits - vectors * Fraction(divisor, 2)).T
    return targets


def _inputs(mixing: Mixing, network: ReluNetwork, layers: PerLayer[Array], samples: int) -> Array:
    square = len(mixing.matrix) == samples and all(len(row) == samples for row in mixing.matrix)
    if not 1 <= mixing.layer < network.depth or not square:
        raise CertificateRejected("the mixing matrix does not fit the layer or the batch size")
    block = layers.at(mixing.layer)
    if len(mixing.columns) != samples or not all(0 <= c < block.shape[1] for c in mixing.columns):
        raise CertificateRejected("the mixing columns do not fit the gradient")
    matrix = np.array([[rational(v) for v in row] for row in mixing.matrix], dtype=object)
    delta = multiply(block[:, list(mixing.columns)], matrix)
    _require_short(delta, block)
    for i in range(mixing.layer, 0, -1):
        features = _solved(delta, layers.at(i)[:, :-1], f"Delta_{i} does not determine H_{i - 1}")
        if i == 1:
            return features
        active = np.array([[value > 0 for value in row] for row in features]).T
        back = product(network.layer(i).weight.T, RationalMatrix.of(delta))
        delta = back.masked(active).fractions()
    raise CertificateRejected("the mixing layer is out of range")


def _require_short(delta: Array, block: Array) -> None:
    """Deltas are about as long as the gradient's numbers, whose factors they are; with others nothing is
    solved.
    """
    own, given = (max(_bits(v) for v in array.reshape(-1)) for array in (delta, block))
    if own > LEAST_BITS + LONGER * given:
        raise CertificateRejected(f"the mixing gives deltas of {own} bits, the gradient has at most {given}")


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _outputs(network: ReluNetwork, inputs: Array) -> tuple[Array, Any]:
    """``[H_{L-1} 1]`` (M, n + 1), and the logits (K, M)."""
    hidden = RationalMatrix.of(inputs.T)
    for layer in network.layers[:-1]:
        z = affine(layer, hidden)
        hidden = z.masked(z.positive())
    ones = np.full((1, inputs.shape[0]), Fraction(1))
    return np.concatenate([hidden.fractions(), ones]).T, affine(network.layers[-1], hidden).fractions()


def _solved(matrix: Array, right: Array, problem: str) -> Array:
    found = solve(matrix, right)
    if found is None:
        raise CertificateRejected(problem)
    return found


def _extended(weight: Array, bias: Array | None) -> Array:
    if bias is None:
        raise CertificateRejected("the gradient has no bias part")
    joined = np.concatenate([weight.astype(object), bias.astype(object).reshape(-1, 1)], axis=1)
    out = np.empty(joined.shape, dtype=object)
    for index, value in np.ndenumerate(joined):
        out[index] = to_fraction(value)
    return out
