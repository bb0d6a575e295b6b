"""What the last Linear layer gives away on its own: at the end of a ResNet, or where the rest is not given.

dW = Delta H and db = Delta 1 determine Delta and H only up to Delta Q^-1, Q H with Q 1 = 1 (docs/theory.md
3.1): there is no hidden layer, whose activation patterns would pin down Q. What is invariant under Q is
reported: the rank, the span of the loss vectors, the span of the features. One sample alone has Q = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.problem.problem import LayerGradient
from exan_verify.numeric.problem.records import LastLayer
from exan_verify.numeric.problem.spectrum import column_space

_SAFETY = 8.0
"""Between the noise seen in the singular values and the smallest negative entry that counts as one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleSample:
    """A batch of one: ``features`` (1, n) with their error, and the divided loss vector (1, K)."""

    features: Tensor
    error: Tensor
    vector: Tensor


def last_layer(
    layer: LayerGradient, *, loss: Loss, unit_roundoff: float, rectified: bool, seed: int
) -> LastLayer:
    """Rank, spans and certainly present classes; ``rectified``: the features cannot be negative."""
    space = column_space(
        layer,
        unit_roundoff=unit_roundoff,
        most=min(layer.shape[0], layer.shape[1]),
        generator=torch.Generator().manual_seed(seed),
    )
    rows, _ = torch.linalg.qr(space.rows.T)
    present: tuple[int, ...] = ()
    if loss is Loss.CROSS_ENTROPY:
        # sum_m g_c^m h^m is negative somewhere only if some g_c^m is: at that sample c is the label
        level = -_SAFETY * space.noise
        matrix = layer.augmented() if rectified else layer.d_bias[:, None]
        present = tuple(torch.nonzero((matrix < level).any(dim=1))[:, 0].tolist())
    return LastLayer(
        rank=space.rank, loss_span=space.basis, feature_span=rows[:, : space.rank].T, present=present
    )


def single_sample(layer: LayerGradient, unit_roundoff: float) -> SingleSample:
    """Features and loss vector of a batch of one sample: dW = g h^T, db = g."""
    strongest = int(layer.d_bias.abs().argmax())
    g = layer.d_bias[strongest]
    features = layer.d_weight[strongest].double() / g
    error = 4 * unit_roundoff * (1 + features.abs().amax())
    return SingleSample(features=features[None], error=error[None], vector=layer.d_bias[None])
