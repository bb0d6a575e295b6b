"""Exact forward pass, activation patterns and gradients (docs/theory.md section 1), over Q and mod p.

The forward pass is exact integer arithmetic throughout, so the signs of the pre-activations are known
without any error analysis. Backward, values are exact rationals (mse, hinge), residues under T -> t (every
loss), or real balls (every loss, small networks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.network import Array, Batch, Gradient, Linear, ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.linalg import multiply
from exan_verify.exact.modular import PRIME, Residues, add_mod
from exan_verify.exact.rational import Mask, RationalMatrix, product, product_mod, residue_product
from exan_verify.exact.softmax import loss_vectors, loss_vectors_ball, loss_vectors_mod, to_ball


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The exact forward pass of a batch of M samples.

    ``hidden[i]`` is H_i^T (n_i, M) for i = 0 .. L-1 (``hidden[0]`` the inputs), ``pattern(i)`` (n_i, M)
    tells which neurons of hidden layer i are active (z > 0), ``zero(i)`` where z = 0 exactly;
    ``logits`` (K, M) are Fractions.
    """

    hidden: PerLayer[RationalMatrix]
    patterns: PerLayer[Mask]
    zeros: PerLayer[Mask]
    logits: Array

    @property
    def samples(self) -> int:
        """M."""
        return int(self.logits.shape[1])

    def features(self, layer: int) -> RationalMatrix:
        """``H_{layer-1}^T``, the inputs (n_{layer-1}, M) of affine layer ``layer`` (1-based)."""
        return self.hidden.at(layer)

    def pattern(self, layer: int) -> Mask:
        """Which neurons of hidden layer ``layer`` (1-based) are active, (n, M)."""
        return self.patterns.at(layer)

    def zero(self, layer: int) -> Mask:
        """Where pre-activations of hidden layer ``layer`` (1-based) are zero, (n, M)."""
        return self.zeros.at(layer)


def forward(network: ReluNetwork, batch: Batch) -> Forward:
    """Run the exact forward pass."""
    hidden = [RationalMatrix.of(batch.inputs.T)]
    patterns, zeros = [], []
    for layer in network.layers[:-1]:
        z = affine(layer, hidden[-1])
        active = z.positive()
        patterns.append(active)
        zeros.append(~z.nonzero())
        hidden.append(z.masked(active))
    return Forward(
        hidden=PerLayer(hidden),
        patterns=PerLayer(patterns),
        zeros=PerLayer(zeros),
        logits=affine(network.layers[-1], hidden[-1]).fractions(),
    )


def affine(layer: Linear, inputs: RationalMatrix) -> RationalMatrix:
    """``weight @ inputs + bias`` for inputs (n_in, M)."""
    z = product(layer.weight, inputs)
    return z if layer.bias is None else z.plus_column(RationalMatrix.of(layer.bias.reshape(-1, 1)))


def jacobians(network: ReluNetwork, passed: Forward, sample: int) -> PerLayer[Array]:
    """``dz_i / dx`` of one sample for every layer (the last: the logits), each (n_i, d), by flint."""
    current = RationalMatrix.of(network.layers[0].weight).fractions()
    found = [current]
    for layer, pattern in zip(network.layers[1:], passed.patterns, strict=True):
        kept = current * pattern[:, sample].astype(int)[:, None]
        current = multiply(RationalMatrix.of(layer.weight).fractions(), kept)
        found.append(current)
    return PerLayer(found)


def backward_mod(
    network: ReluNetwork, passed: Forward, loss_residues: Residues, prime: int = PRIME
) -> PerLayer[Residues]:
    """``Delta_1 .. Delta_L`` mod p, each (n_i, M), from the loss vectors' residues (K, M)."""
    deltas = [loss_residues]
    for layer, pattern in zip(network.layers[:0:-1], passed.patterns[::-1], strict=True):
        deltas.append(product_mod(layer.weight.T, deltas[-1], prime) * pattern)
    return PerLayer(deltas[::-1])


def backward(network: ReluNetwork, passed: Forward, vectors: Array) -> PerLayer[RationalMatrix]:
    """``Delta_1 .. Delta_L`` over Q from rational loss vectors (K, M)."""
    deltas = [RationalMatrix.of(vectors)]
    for layer, pattern in zip(network.layers[:0:-1], passed.patterns[::-1], strict=True):
        deltas.append(product(layer.weight.T, deltas[-1]).masked(pattern))
    return PerLayer(deltas[::-1])


def backward_ball(network: ReluNetwork, passed: Forward, vectors: Any) -> PerLayer[Any]:
    """``Delta_1 .. Delta_L`` as real balls, each an ``arb_mat`` (n_i, M), from loss vectors (K, M) that are;
    at the working precision.
    """
    deltas = [vectors]
    for layer, pattern in zip(network.layers[:0:-1], passed.patterns[::-1], strict=True):
        deltas.append(_mask_balls(_balls(layer.weight.T) * deltas[-1], pattern))
    return PerLayer(deltas[::-1])


def gradient(network: ReluNetwork, batch: Batch, loss: Loss, reduction: Reduction) -> Gradient:
    """The exact gradient for a rational loss (mse, hinge), as Fractions under the parameters' names."""
    passed = forward(network, batch)
    divisor = loss.divisor(reduction, batch.size, network.classes)
    deltas = backward(network, passed, loss_vectors(loss, passed.logits, batch.labels, divisor))
    tensors: dict[str, Array] = {}
    for layer, delta, features in zip(network.layers, deltas, passed.hidden, strict=True):
        names = [name for name, _ in layer.parameters()]
        tensors[names[0]] = product(delta, features.T).fractions()
        if layer.bias is not None:
            tensors[names[1]] = delta.row_sums().fractions()[:, 0]
    return Gradient(tensors=tensors, rational=True)


def gradient_mod(
    network: ReluNetwork, batch: Batch, loss: Loss, reduction: Reduction, t: int
) -> list[Residues]:
    """The gradient mod p under T -> t, one residue array per parameter, in the network's order."""
    passed = forward(network, batch)
    divisor = loss.divisor(reduction, batch.size, network.classes)
    deltas = backward_mod(network, passed, loss_vectors_mod(loss, passed.logits, batch.labels, divisor, t))
    parts: list[Residues] = []
    for layer, delta, features in zip(network.layers, deltas, passed.hidden, strict=True):
        parts.append(residue_product(delta, features.T.residues()))
        if layer.bias is not None:
            total = delta[:, 0]
            for m in range(1, delta.shape[1]):
                total = add_mod(total, delta[:, m])
            parts.append(total)
    return parts


def gradient_ball(
    network: ReluNetwork, batch: Batch, loss: Loss, reduction: Reduction, precision: int = 128
) -> dict[str, Any]:
    """The gradient of any loss as real balls: one ``arb_mat`` per parameter name (biases (n, 1)).

    Meant for small networks: every weight becomes a ball.
    """
    passed = forward(network, batch)
    divisor = loss.divisor(reduction, batch.size, network.classes)
    with flint.ctx.workprec(precision):
        vectors = loss_vectors_ball(loss, passed.logits, batch.labels, divisor, precision)
        deltas = backward_ball(network, passed, vectors)
        out: dict[str, Any] = {}
        for layer, delta, features in zip(network.layers, deltas, passed.hidden, strict=True):
            names = [name for name, _ in layer.parameters()]
            out[names[0]] = delta * _balls(features.T.fractions())
            if layer.bias is not None:
                out[names[1]] = delta * flint.arb_mat(batch.size, 1, [1] * batch.size)
    return {name: out[name] for name, _ in network.parameters()}


def _balls(array: Array) -> Any:
    exact = RationalMatrix.of(np.ascontiguousarray(array)).fractions() if array.dtype != object else array
    return flint.arb_mat(*exact.shape, [to_ball(v) for v in exact.reshape(-1)])


def _mask_balls(matrix: Any, keep: Mask) -> Any:
    rows, cols = keep.shape
    entries = [matrix[i, k] if keep[i, k] else 0 for i in range(rows) for k in range(cols)]
    return flint.arb_mat(rows, cols, entries)
