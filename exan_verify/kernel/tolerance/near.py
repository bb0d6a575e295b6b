"""The batches near a rounded gradient; T7: the centre's own is within the tolerance, so they exist; T8: no
batch around the centre is near, so none exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.network import Array, Batch, Gradient, ReluNetwork, to_fraction
from exan_verify.core.question import Loss, Question
from exan_verify.exact.backprop import Forward, forward
from exan_verify.exact.balls import (
    PRECISION,
    BallMatrix,
    Floats,
    ball_matrix,
    constant_interval,
    inner_interval,
)
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import loss_vectors_ball, probabilities, to_ball
from exan_verify.kernel.given import require
from exan_verify.kernel.tolerance.bounds import Factor, factor

Layer = tuple[Array, Array]
Vector = list[Any]
"""Balls."""


@dataclass(frozen=True, kw_only=True)
class Near:
    """The batches asked about: those whose gradient differs from ``layers`` by at most ``tolerance``.

    ``centre`` is the certificate's batch.
    """

    network: ReluNetwork
    question: Question
    layers: PerLayer[Layer]
    tolerance: Fraction
    centre: Batch

    @property
    def samples(self) -> int:
        """M."""
        return self.centre.size

    @property
    def divisor(self) -> int:
        """What the loss is divided by."""
        return self.question.divisor(self.samples, self.network.classes)

    @cached_property
    def passed(self) -> Forward:
        """The exact forward pass of the centre."""
        return forward(self.network, self.centre)

    def gradient(self, layer: int) -> BallMatrix:
        """[dW | db] of affine layer ``layer`` (from 1) of every near batch."""
        weight, bias = self.layers.at(layer)
        exact = np.concatenate([weight, bias.reshape(-1, 1)], axis=1)
        return ball_matrix(exact) + constant_interval(exact.shape, self.tolerance)

    def features(self, layer: int) -> Floats:
        """``[H_{layer-1} 1]`` of the centre in float64, (M, n + 1); exact for layer 1."""
        if layer == 1:
            hidden = np.asarray(self.centre.inputs, dtype=np.float64)
        else:
            hidden = self.passed.features(layer).fractions().astype(np.float64).T
        return np.concatenate([hidden, np.ones((self.samples, 1))], axis=1)

    def factor(self, layer: int) -> Factor:
        """T1 at affine layer ``layer``."""
        return factor(self.gradient(layer), self.features(layer), f"[dW_{layer} | db_{layer}]")


def check_near(near: Near, given: Gradient) -> None:
    """Reject unless every entry of the centre's gradient is proved to be within the tolerance."""
    network, batch, passed = near.network, near.centre, near.passed
    loss = near.question.loss
    delta = loss_vectors_ball(loss, passed.logits, batch.labels, near.divisor, PRECISION)
    ones = ball_matrix(np.ones((batch.size, 1)))
    layers = given.for_network(network)
    for i in range(network.depth - 1, -1, -1):
        weight, bias = layers[i]
        inputs = batch.inputs if i == 0 else passed.hidden[i].fractions().T
        parts = [(weight, delta * ball_matrix(inputs))]
        if bias is not None:
            parts.append((bias.reshape(-1, 1), delta * ones))
        for array, own in parts:
            slack = inner_interval(array.shape, near.tolerance)
            require(
                slack.contains(own - ball_matrix(array)),
                f"the batch's gradient is not within the tolerance of the given one in layer {i + 1}",
            )
        if i:
            delta = _masked(ball_matrix(network.layers[i].weight.T) * delta, passed.pattern(i))


def check_far(near: Near, radii: Sequence[float]) -> None:
    """T8: reject unless no batch with the centre's labels and inputs within ``radii`` (M,) of it is near.

    Sample by sample, an interval holds every feature, slope and delta of all these batches; the sums over the
    samples then hold their gradients, and one entry is shown to be further than the tolerance from the given.
    """
    domain, network = near.question.domain, near.network
    samples = [
        [to_ball(to_fraction(x)) + flint.arb(0, radius) for x in row]
        for row, radius in zip(near.centre.inputs, radii, strict=True)
    ]
    if domain is not None:
        low, high = domain.bounds(network.widths[0])
        bounds = [(to_ball(to_fraction(a)), to_ball(to_fraction(b))) for a, b in zip(low, high, strict=True)]
        if any(x < a or x > b for row in samples for x, (a, b) in zip(row, bounds, strict=True)):
            return
    passed = [_interval_pass(network, row) for row in samples]
    deltas = [
        flint.arb_mat([[g] for g in _interval_loss_vector(near, m, logits)])
        for m, (_, logits) in enumerate(passed)
    ]
    tolerance = to_ball(near.tolerance).abs_upper()
    for layer in range(network.depth, 0, -1):
        weight, bias = near.layers.at(layer)
        difference = -ball_matrix(np.concatenate([weight, bias.reshape(-1, 1)], axis=1))
        for delta, (features, _) in zip(deltas, passed, strict=True):
            difference += delta * flint.arb_mat([[*features.at(layer), flint.arb(1)]])
        if any(entry.abs_lower() > tolerance for entry in difference.entries()):
            return
        if layer > 1:
            transposed = ball_matrix(network.layer(layer).weight.T)
            deltas = [
                flint.arb_mat(
                    [
                        [_step(h, flint.arb(0)) * d]
                        for h, d in zip(signs, (transposed * delta).entries(), strict=True)
                    ]
                )
                for delta, signs in zip(
                    deltas, (_pre_activations(network, layer - 1, f) for f, _ in passed), strict=True
                )
            ]
    require(False, "a batch around the certificate's is not shown to be further than the tolerance")


def _interval_pass(network: ReluNetwork, inputs: Vector) -> tuple[PerLayer[Vector], Vector]:
    """Enclosures of h_0 .. h_{L-1} and of the logits over a box of inputs."""
    features = PerLayer([inputs])
    for layer in range(1, network.depth):
        following = [z.max(flint.arb(0)) for z in _pre_activations(network, layer, features)]
        features = PerLayer((*features, following))
    return features, _pre_activations(network, network.depth, features)


def _pre_activations(network: ReluNetwork, layer: int, features: PerLayer[Vector]) -> Vector:
    """z_layer over the box whose features are enclosed."""
    affine = network.layer(layer)
    assert affine.bias is not None
    column = flint.arb_mat([[h] for h in features.at(layer)])
    z: Vector = (ball_matrix(affine.weight) * column + ball_matrix(affine.bias.reshape(-1, 1))).entries()
    return z


def _step(value: Any, threshold: Any) -> Any:
    """1 where ``value > threshold``, 0 where it is not, and a ball around both where that is open."""
    if value > threshold:
        return flint.arb(1)
    return flint.arb(0) if value <= threshold else flint.arb(0.5, 0.5)


def _interval_loss_vector(near: Near, m: int, logits: Vector) -> Vector:
    """The loss vector of sample m under the centre's label, over all logits that are enclosed."""
    loss, classes = near.question.loss, len(logits)
    label = near.centre.labels[m]
    if loss is Loss.HINGE:
        y = int(label)
        # multi_margin_loss: each c != y with 1 - f_y + f_c > 0 adds 1/K at c and takes it at y
        violated = [flint.arb(0) if c == y else _step(1 + f, logits[y]) for c, f in enumerate(logits)]
        violated[y] = -sum(violated, flint.arb(0))
        return [v / (classes * near.divisor) for v in violated]
    if near.centre.labels.ndim == 1:
        target = [int(c == int(label)) for c in range(classes)]
    else:
        target = [int(v) for v in label]
    if loss is Loss.MSE:
        return [2 * (f - y) / near.divisor for f, y in zip(logits, target, strict=True)]
    return [(p - y) / near.divisor for p, y in zip(probabilities(loss, logits), target, strict=True)]


def _masked(matrix: BallMatrix, keep: Mask) -> BallMatrix:
    rows, cols = keep.shape
    entries = [matrix[j, m] if keep[j, m] else 0 for j in range(rows) for m in range(cols)]
    return flint.arb_mat(rows, cols, entries)
