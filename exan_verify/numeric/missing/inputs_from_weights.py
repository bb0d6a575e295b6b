"""From hidden features down to the inputs by the weights alone, where no gradient below is given.

A neuron with h_j > 0 says w_j . h_below + b_j = h_j; one with h_j = 0 says only that the left side is not
positive. (With other activations a neuron says so where its value has one pre-activation: everywhere with a
positive slope, strictly between two ends, not where a negative slope gives two one value.) Where the rows of
these neurons have full column rank the features below are the one solution, layer by layer down to the input;
otherwise all points of an affine space, cut by inequalities, give the same
features, and the gradient above says nothing about which it was (docs/theory.md, Appendix G).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.problem.problem import LayerGradient

_RANK_TOLERANCE = 1e-9
"""Singular values of the active rows below this relative size count as zero."""

_SAFETY = 4.0
"""Between the estimate of rounding and what a solve may see."""

_ROUNDING = 2.0**-53


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Below:
    """What the features of one sample determine below: its input ``x`` (d,) with the L-infinity
    ``error_bound``, or None with the ``reason``."""

    x: Tensor | None
    error_bound: float
    reason: str


def inputs_below(
    layers: Sequence[LayerGradient], features: Float[Tensor, "m n"], bounds: Sequence[float]
) -> list[Below]:
    """Per row of ``features``, known to within ``bounds`` (L-infinity), what it determines below ``layers``,
    which lead from the input to it, first to last."""
    return [_down(layers, row, bound) for row, bound in zip(features, bounds, strict=True)]


def _down(layers: Sequence[LayerGradient], h: Float[Tensor, " n"], error: float) -> Below:
    for place in range(len(layers) - 1, -1, -1):
        found = _solve(layers[place], h, error, place + 1)
        if found.x is None:
            return found
        h, error = found.x, found.error_bound
    return Below(x=h, error_bound=error, reason="")


def _solve(layer: LayerGradient, h: Float[Tensor, " n"], error: float, number: int) -> Below:
    """What ``h = phi(W below + b)`` says of what is below, by the entries that tell what phi was taken of."""
    activation = layer.activation
    if activation.nonnegative and float(h.min()) < -error:
        return _open(f"features of hidden layer {number} are negative, which no input gives")
    pre, errors, active = activation.inverse(h, error)
    count, unknowns = int(active.sum()), layer.shape[1]
    which = "active" if activation.relu else "telling"
    what = "the input" if number == 1 else f"hidden layer {number - 1}"
    if count < unknowns:
        return _open(
            f"{count} {which} neurons of hidden layer {number} do not determine {unknowns} entries of {what}"
        )
    weight, bias = layer.weight[active].double(), layer.bias[active]
    u, values, vt = torch.linalg.svd(weight, full_matrices=False)
    if float(values[-1]) <= _RANK_TOLERANCE * float(values[0]):
        rank = int((values > _RANK_TOLERANCE * values[0]).sum())
        return _open(
            f"the {which} neurons of hidden layer {number} have weights of rank {rank}, which does not "
            f"determine {unknowns} entries of {what}"
        )
    inverse = (vt.T / values) @ u.T
    given = pre[active] - bias
    below = inverse @ given
    own = _ROUNDING * float(weight.abs().sum(dim=1).max()) * (1 + float(below.abs().max()))
    largest = float(inverse.abs().sum(dim=1).max())
    bound = _SAFETY * largest * (float(errors[active].max()) + own + _ROUNDING * float(given.abs().max()))
    z = layer.forward(below[None])[0]
    # an entry of h is phi of one of z, which moves with what is below
    slack = error + activation.steepest * bound * layer.weight.double().abs().sum(dim=1)
    if bool(((activation.values(z) - h).abs() > slack).any()):
        return _open(f"no values of {what} give the features of hidden layer {number}")
    return Below(x=below, error_bound=bound, reason="")


def _open(reason: str) -> Below:
    return Below(x=None, error_bound=torch.inf, reason=reason)
