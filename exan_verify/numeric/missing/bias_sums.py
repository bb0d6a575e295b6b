"""Bias gradients of layers without a weight gradient, as tests: db_k is the sum of the samples' deltas.

A sum over the batch separates no samples, so nothing is recovered from it; but a whole batch that was
recovered further up, and does not give it, is not the one that was asked for.
"""

from __future__ import annotations

import math
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.problem.passes import backward, forward, rounding, weight_gains
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Attack, divided_loss_vectors

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""


def missed_bias(problem: Problem, start: int, found: Attack, error: Float[Tensor, " M"]) -> bool:
    """Whether db of layer ``start`` - 1 (from 0) is given and not that of the batch ``found`` by its inputs
    to layer ``start``, known to within ``error`` (L-infinity), at the factors found."""
    layer = problem.layers[start - 1]
    above, h = replace(problem, layers=problem.layers[start:], scale=found.scale), found.x
    divisor, trace, gains = above.divisor(found.batch_size), forward(above, h), weight_gains(above)
    g = divided_loss_vectors(
        problem, trace.logits, found.y, found.status, scale=found.scale, batch_size=found.batch_size
    )
    if not layer.bias_given or g is None:
        return False
    deltas = backward(above, trace, g)
    moved = rounding(
        above,
        trace,
        deltas,
        gains=gains,
        input_error=error * math.sqrt(h.shape[1]),
        unit=problem.unit_roundoff,
        divisor=divisor,
    )
    carried = above.layers[0].backward(deltas[0])
    derivative, sure = layer.activation.derivative_by_value(h, error[:, None])
    missed = (layer.d_bias - (carried * derivative).sum(dim=0)).abs()
    if layer.bias_rows is not None:
        missed = missed * layer.bias_rows
    # a feature that may be zero or not leaves its neuron's delta open
    missed = (missed - layer.activation.steepest * (carried.abs() * ~sure).sum(dim=0)).clamp(min=0)
    level = gains[0][1] * moved.deltas[0].norm() + problem.unit_roundoff * carried.norm()
    return not float(missed.norm()) <= _TOLERANCE * float(level)
