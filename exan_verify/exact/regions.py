"""Regions of a network: joint patterns of the hidden layers, on which everything is affine (docs/theory.md
S0).

A region's samples enter the gradient only through ``T = sum g [x ; 1]^T`` (without biases ``sum g x^T``), and
linearly: ``G = sum over the regions of L_region(T)``. The maps are rational, whatever the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Array, Linear, ReluNetwork
from exan_verify.exact import linalg
from exan_verify.exact.linalg import identity

Pattern = tuple[tuple[bool, ...], ...]
"""One tuple of states per hidden layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A region's affine maps on ``[x ; 1]``, as Fractions.

    ``logits`` (K, d + 1); ``states`` (neurons, d + 1): all pre-activations of hidden layers; ``active``
    their states; ``system`` (entries of the gradient, entries of T): the matrix of L, T taken row by row, for
    cross_entropy and hinge without its last row, which is minus the sum of the others.
    """

    logits: Array
    states: Array
    active: tuple[bool, ...]
    system: Array


def region_of(network: ReluNetwork, pattern: Pattern, *, zero_sum: bool) -> Region:
    """The maps of one joint pattern; ``zero_sum``: loss vectors sum to zero."""
    features = [identity(network.widths[0] + 1)]
    states = []
    for layer, bits in zip(network.layers[:-1], pattern, strict=True):
        z = _affine(layer, features[-1])
        states.append(z[:-1])
        features.append(_masked(z, (*bits, True)))
    back = identity(network.classes)
    if zero_sum:
        back = back[:, :-1] - back[:, -1:]
    blocks = []
    for layer, known, below in zip(network.layers[::-1], features[::-1], (*pattern[::-1], None), strict=True):
        blocks.append(_kron(back, known if network.has_bias else known[:-1, :-1]))
        if below is not None:
            back = _masked(linalg.multiply(fractions(layer.weight).T, back), below)
    return Region(
        logits=_affine(network.layers[-1], features[-1])[:-1],
        states=np.concatenate(states) if states else np.empty((0, network.widths[0] + 1), dtype=object),
        active=tuple(bit for bits in pattern for bit in bits),
        system=np.concatenate(blocks[::-1]),
    )


def _affine(layer: Linear, features: Array) -> Array:
    """``[W h + b ; 1]`` as functionals of ``[x ; 1]``, for ``features`` of ``[h ; 1]``."""
    rows, cols = layer.shape
    extended = np.full((rows + 1, cols + 1), Fraction(0), dtype=object)
    extended[:rows, :cols] = fractions(layer.weight)
    if layer.bias is not None:
        extended[:rows, cols] = fractions(layer.bias)
    extended[rows, cols] = Fraction(1)
    return linalg.multiply(extended, features)


def _kron(left: Array, right: Array) -> Array:
    """The Kronecker product of Fractions, of which many are 0 or 1 and take no multiplication."""
    out = np.full((len(left), len(right), left.shape[1], right.shape[1]), Fraction(0), dtype=object)
    there = right != 0
    values = right[there]
    for i, k in np.argwhere(left != 0):
        out[i, :, k][there] = values if left[i, k] == 1 else left[i, k] * values
    return out.reshape(len(left) * len(right), left.shape[1] * right.shape[1])


def _masked(rows: Array, keep: Sequence[bool]) -> Array:
    out = rows.copy()
    out[~np.array(keep, dtype=bool)] = Fraction(0)
    return out
