"""The batches near a rounded gradient; and T7: the centre's own is within the tolerance, so they exist."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import flint
import numpy as np

from exan_verify.core.network import Array, Batch, Gradient, ReluNetwork
from exan_verify.core.question import Question
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
from exan_verify.exact.softmax import loss_vectors_ball
from exan_verify.kernel.given import require
from exan_verify.kernel.tolerance.bounds import Factor, factor

Layer = tuple[Array, Array]


@dataclass(frozen=True, kw_only=True)
class Near:
    """The batches asked about: those whose gradient differs from ``layers`` by at most ``tolerance``.

    ``centre`` is the certificate's batch.
    """

    network: ReluNetwork
    question: Question
    layers: tuple[Layer, ...]
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
        weight, bias = self.layers[layer - 1]
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


def _masked(matrix: BallMatrix, keep: Mask) -> BallMatrix:
    rows, cols = keep.shape
    entries = [matrix[j, m] if keep[j, m] else 0 for j in range(rows) for m in range(cols)]
    return flint.arb_mat(rows, cols, entries)
