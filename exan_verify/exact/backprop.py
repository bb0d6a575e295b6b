"""Exact forward pass, activation patterns and gradients (docs/theory.md section 1), over Q and mod p.

The forward pass is exact integer arithmetic throughout, so the signs of the pre-activations are known
without any error analysis. Backward, values are exact rationals (mse, hinge), residues under T -> t (every
loss), or real balls (every loss, small networks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import PerLayer, fractions
from exan_verify.core.network import Activation, Array, Batch, Gradient, Linear, Network
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.linalg import multiply
from exan_verify.exact.modular import PRIME, Residues, add_mod, multiply_mod
from exan_verify.exact.rational import Mask, RationalMatrix, product, product_mod, residue_product
from exan_verify.exact.softmax import loss_vectors, loss_vectors_ball, loss_vectors_mod, to_ball


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The exact forward pass of a batch of M samples.

    ``hidden[i]`` is H_i^T (n_i, M) for i = 0 .. L-1 (``hidden[0]`` the inputs), ``pattern(i)`` (n_i, M)
    tells which neurons of hidden layer i are active (of ReLU z > 0, of others those whose derivative is 1),
    ``zero(i)`` where z is at an end of that, exactly; ``logits`` (K, M) are Fractions. ``activations``: those
    of the network, None for ReLU.
    """

    hidden: PerLayer[RationalMatrix]
    patterns: PerLayer[Mask]
    zeros: PerLayer[Mask]
    logits: Array
    activations: PerLayer[Activation | None]

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

    def live(self, layer: int) -> Mask:
        """Where the activation's derivative at hidden layer ``layer`` (1-based) is not zero, (n, M)."""
        activation, active = self.activations.at(layer), self.pattern(layer)
        if activation is None or not activation.sloped:
            return active
        found: Mask = active | (activation.slope != 0)[:, None]
        return found

    def derivative(self, layer: int, values: RationalMatrix) -> RationalMatrix:
        """``values`` (n, M) times the activation's derivative at hidden layer ``layer`` (1-based)."""
        activation, active = self.activations.at(layer), self.pattern(layer)
        if activation is None or not activation.sloped:
            return values.masked(active)
        return values.times(RationalMatrix.of(_slopes(activation, active)))

    def derivative_mod(
        self, layer: int, values: Residues, prime: int = PRIME, sample: int | None = None
    ) -> Residues:
        """The same mod p; with ``sample``, that sample's derivative for each column of ``values`` (n, k)."""
        activation, active = self.activations.at(layer), self.pattern(layer)
        if sample is not None:
            active = active[:, [sample]]
        if activation is None or not activation.sloped:
            return values * active
        return multiply_mod(values, RationalMatrix.of(_slopes(activation, active)).residues(prime), prime)

    def zero(self, layer: int) -> Mask:
        """Where pre-activations of hidden layer ``layer`` (1-based) are zero, (n, M)."""
        return self.zeros.at(layer)


def forward(network: Network, batch: Batch) -> Forward:
    """Run the exact forward pass."""
    hidden = [RationalMatrix.of(batch.inputs.T)]
    patterns, zeros = [], []
    activations = PerLayer(network.activation(k) for k in range(1, network.depth))
    for layer, activation in zip(network.layers[:-1], activations, strict=True):
        z = affine(layer, hidden[-1])
        values, active, at_end = activated(activation, z)
        patterns.append(active)
        zeros.append(at_end)
        hidden.append(values)
    return Forward(
        hidden=PerLayer(hidden),
        patterns=PerLayer(patterns),
        zeros=PerLayer(zeros),
        logits=affine(network.layers[-1], hidden[-1]).fractions(),
        activations=activations,
    )


def activated(activation: Activation | None, z: RationalMatrix) -> tuple[RationalMatrix, Mask, Mask]:
    """An activation's values at pre-activations (n, M), where its derivative is 1, and where z is at an end
    of that.
    """
    if activation is None:
        active = z.positive()
        return z.masked(active), active, ~z.nonzero()
    low, high = activation.low, activation.high
    above = z.plus_column(_everywhere(-low, z.shape[0]))
    active, at_end = above.positive(), ~above.nonzero()
    if activation.sloped:  # then low = 0
        return z.times(RationalMatrix.of(_slopes(activation, active))), active, at_end
    outside = np.full(active.shape, low, dtype=object)
    outside[active] = Fraction(0)
    if high is not None:
        beyond = z.plus_column(_everywhere(-high, z.shape[0]))
        at_end |= ~beyond.nonzero()
        capped = beyond.positive() | ~beyond.nonzero()
        active = active & ~capped
        outside[capped] = high
    return z.masked(active).plus_column(RationalMatrix.of(outside)), active, at_end


def _everywhere(value: Fraction, rows: int) -> RationalMatrix:
    return RationalMatrix.of(np.full((rows, 1), value, dtype=object))


def _slopes(activation: Activation, active: Mask) -> Array:
    """The derivative of a sloped activation, (n, M)."""
    found: Array = np.repeat(activation.slope[:, None], active.shape[1], axis=1)
    found[active] = Fraction(1) if found.dtype == object else 1
    return found


def affine(layer: Linear, inputs: RationalMatrix) -> RationalMatrix:
    """``weight @ inputs + bias`` for inputs (n_in, M)."""
    z = product(layer.weight, inputs)
    return z if layer.bias is None else z.plus_column(RationalMatrix.of(layer.bias.reshape(-1, 1)))


def jacobians(network: Network, passed: Forward, sample: int) -> PerLayer[Array]:
    """``dz_i / dx`` of one sample for every layer (the last: the logits), each (n_i, d), by flint."""
    current = RationalMatrix.of(network.layers[0].weight).fractions()
    found = [current]
    for k, layer in enumerate(network.layers[1:], 1):
        activation, active = passed.activations.at(k), passed.pattern(k)[:, [sample]]
        kept = current * active.astype(int)
        if activation is not None and activation.sloped:
            kept = current * fractions(_slopes(activation, active))
        current = multiply(RationalMatrix.of(layer.weight).fractions(), kept)
        found.append(current)
    return PerLayer(found)


def backward_mod(
    network: Network, passed: Forward, loss_residues: Residues, prime: int = PRIME
) -> PerLayer[Residues]:
    """``Delta_1 .. Delta_L`` mod p, each (n_i, M), from the loss vectors' residues (K, M)."""
    deltas = [loss_residues]
    for k in range(network.depth - 1, 0, -1):
        back = product_mod(network.layers[k].weight.T, deltas[-1], prime)
        deltas.append(passed.derivative_mod(k, back, prime))
    return PerLayer(deltas[::-1])


def backward(network: Network, passed: Forward, vectors: Array) -> PerLayer[RationalMatrix]:
    """``Delta_1 .. Delta_L`` over Q from rational loss vectors (K, M)."""
    deltas = [RationalMatrix.of(vectors)]
    for k in range(network.depth - 1, 0, -1):
        deltas.append(passed.derivative(k, product(network.layers[k].weight.T, deltas[-1])))
    return PerLayer(deltas[::-1])


def slope_contributions(
    network: Network, passed: Forward, deltas: PerLayer[RationalMatrix]
) -> Iterator[tuple[Activation, RationalMatrix]]:
    """For each layer of trained slopes ``sum_m (W^T delta)_jm z_jm`` over the samples for which neuron j is
    not active, (n, 1): the derivative of the loss by the slope of each neuron (PReLU).
    """
    for k, activation in network.trained_slopes():
        back = product(network.layer(k + 1).weight.T, deltas.at(k + 1))
        z = affine(network.layer(k), passed.features(k))
        yield activation, back.masked(~passed.pattern(k)).times(z).row_sums()


def backward_ball(network: Network, passed: Forward, vectors: Any) -> PerLayer[Any]:
    """``Delta_1 .. Delta_L`` as real balls, each an ``arb_mat`` (n_i, M), from loss vectors (K, M) that are;
    at the working precision.
    """
    deltas = [vectors]
    for k in range(network.depth - 1, 0, -1):
        deltas.append(_mask_balls(_balls(network.layers[k].weight.T) * deltas[-1], passed, k))
    return PerLayer(deltas[::-1])


def gradient(network: Network, batch: Batch, loss: Loss, reduction: Reduction) -> Gradient:
    """The exact gradient for a rational loss (mse, hinge), as Fractions under the parameters' names, those of
    trained slopes included.
    """
    passed = forward(network, batch)
    divisor = loss.divisor(reduction, batch.size, network.classes)
    deltas = backward(network, passed, loss_vectors(loss, passed.logits, batch.labels, divisor))
    tensors: dict[str, Array] = {}
    for layer, delta, features in zip(network.layers, deltas, passed.hidden, strict=True):
        names = [name for name, _ in layer.parameters()]
        tensors[names[0]] = product(delta, features.T).fractions()
        if layer.bias is not None:
            tensors[names[1]] = delta.row_sums().fractions()[:, 0]
    for activation, rows in slope_contributions(network, passed, deltas):
        own = rows.fractions()[:, 0]
        tensors[activation.parameter] = np.array([own.sum()], dtype=object) if activation.shared else own
    return Gradient(tensors=tensors, rational=True)


def gradient_mod(network: Network, batch: Batch, loss: Loss, reduction: Reduction, t: int) -> list[Residues]:
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
    network: Network, batch: Batch, loss: Loss, reduction: Reduction, precision: int = 128
) -> dict[str, Any]:
    """The gradient of any loss as real balls: one ``arb_mat`` per parameter name (biases and slopes (n, 1)).

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
        for k, activation in network.trained_slopes():
            z, off = affine(network.layer(k), passed.features(k)).fractions(), ~passed.pattern(k)
            back = _balls(network.layer(k + 1).weight.T) * deltas.at(k + 1)
            rows = [
                sum((back[j, m] * to_ball(z[j, m]) for m in np.flatnonzero(off[j])), flint.arb(0))
                for j in range(len(z))
            ]
            rows = [sum(rows, flint.arb(0))] if activation.shared else rows
            out[activation.parameter] = flint.arb_mat(len(rows), 1, rows)
    return out


def _balls(array: Array) -> Any:
    exact = RationalMatrix.of(np.ascontiguousarray(array)).fractions() if array.dtype != object else array
    return flint.arb_mat(*exact.shape, [to_ball(v) for v in exact.reshape(-1)])


def _mask_balls(matrix: Any, passed: Forward, layer: int) -> Any:
    activation, active = passed.activations.at(layer), passed.pattern(layer)
    rows, cols = active.shape
    if activation is not None and activation.sloped:
        factors = fractions(_slopes(activation, active))
        entries = [matrix[i, k] * to_ball(factors[i, k]) for i in range(rows) for k in range(cols)]
    else:
        entries = [matrix[i, k] if active[i, k] else 0 for i in range(rows) for k in range(cols)]
    return flint.arb_mat(rows, cols, entries)
