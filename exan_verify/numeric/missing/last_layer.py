"""What the last Linear layer gives away on its own: at the end of a ResNet, or where the rest is not given.

dW = Delta H and db = Delta 1 determine Delta and H only up to Delta Q^-1, Q H with Q 1 = 1 (docs/theory.md
3.1): there is no hidden layer, whose activation patterns would pin down Q. What is invariant under Q is
reported: the rank, the span of the loss vectors, the span of the features. One sample alone has Q = 1.
"""

from __future__ import annotations

import math

import torch

from exan_verify.core.question import Loss
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import LastLayer
from exan_verify.numeric.problem.spectrum import column_space

_SAFETY = 8.0
"""Between the noise seen in the singular values and the smallest negative entry that counts as one."""


def last_layer(problem: Problem, *, rectified: bool) -> LastLayer:
    """Rank, spans and certainly present classes of a problem of one layer; ``rectified``: the features cannot
    be negative."""
    layer = problem.layers[0]
    space = column_space(
        layer,
        unit_roundoff=problem.unit_roundoff,
        most=min(layer.shape[0], layer.shape[1]),
        generator=problem.generator(),
    )
    rows, _ = torch.linalg.qr(space.rows.T)
    present: tuple[int, ...] = ()
    # a smoothed label takes more than it gives wherever the probability is small, and so may any soft one
    hard = problem.question.loss is Loss.CROSS_ENTROPY and problem.classified and not problem.smoothing
    if hard and problem.scale is not None:
        # sum_m g_c^m h^m is negative somewhere only if some g_c^m is: at that sample c is the label
        level = -_SAFETY * space.noise
        matrix = layer.augmented() if rectified else layer.d_bias[:, None]
        matrix = math.copysign(1.0, problem.scale) * matrix
        present = tuple(torch.nonzero((matrix < level).any(dim=1))[:, 0].tolist())
    return LastLayer(
        rank=space.rank, loss_span=space.basis, feature_span=rows[:, : space.rank].T, present=present
    )
