"""T7: the centre's own gradient is within the tolerance, so the batches spoken of exist."""

from __future__ import annotations

from fractions import Fraction

import flint
import numpy as np

from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.exact.backprop import forward
from exan_verify.exact.balls import PRECISION, BallMatrix, ball_matrix, inner_interval
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import loss_vectors_ball
from exan_verify.kernel.given import require


def check_near(
    network: ReluNetwork, batch: Batch, question: Question, given: Gradient, tolerance: Fraction
) -> None:
    """Reject unless every entry of the batch's gradient is proved to be within ``tolerance`` of ``given``."""
    passed = forward(network, batch)
    divisor = question.divisor(batch.size, network.classes)
    delta = loss_vectors_ball(question.loss, passed.logits, batch.labels, divisor, PRECISION)
    ones = ball_matrix(np.ones((batch.size, 1)))
    layers = given.for_network(network)
    for i in range(network.depth - 1, -1, -1):
        weight, bias = layers[i]
        inputs = batch.inputs if i == 0 else passed.hidden[i].fractions().T
        parts = [(weight, delta * ball_matrix(inputs))]
        if bias is not None:
            parts.append((bias.reshape(-1, 1), delta * ones))
        for array, own in parts:
            slack = inner_interval(array.shape, tolerance)
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
