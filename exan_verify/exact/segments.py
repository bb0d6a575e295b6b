"""Slopes of everything inside a region along one input direction, exactly (docs/theory.md S2)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.network import Array, ReluNetwork, to_fraction
from exan_verify.core.question import Loss
from exan_verify.exact.backprop import Forward
from exan_verify.exact.rational import RationalMatrix, product


@dataclass(frozen=True, slots=True, kw_only=True)
class Slopes:
    """``hidden[i-1]`` (n_i,): slopes of the pre-activations of hidden layer i; ``logits`` (K,). Fractions."""

    hidden: tuple[Array, ...]
    logits: Array


def slopes(network: ReluNetwork, passed: Forward, sample: int, direction: Array) -> Slopes:
    """How the pre-activations and logits of a sample's region change along ``direction`` (d,)."""
    current = RationalMatrix.of(direction.reshape(-1, 1))
    hidden = []
    for layer, pattern in zip(network.layers[:-1], passed.patterns, strict=True):
        rates = product(layer.weight, current)
        hidden.append(rates.fractions()[:, 0])
        current = rates.masked(pattern[:, [sample]])
    return Slopes(hidden=tuple(hidden), logits=product(network.layers[-1].weight, current).fractions()[:, 0])


def keeps_loss_vector(loss: Loss, rates: Array) -> bool:
    """Whether logits that change with these slopes leave softmax or sigmoid, and so the loss vector."""
    if loss is Loss.CROSS_ENTROPY:
        return all(rate == rates[0] for rate in rates)
    return not np.any(rates != Fraction(0))


def distinct_loss_vectors(loss: Loss, logits: Array, labels: Array) -> int:
    """An upper bound of how many loss vectors differ: equal logits (up to a shift for cross_entropy) with
    equal labels have equal ones.
    """
    keys = set()
    for m in range(logits.shape[1]):
        shift = logits[-1, m] if loss is Loss.CROSS_ENTROPY else Fraction(0)
        own = np.atleast_1d(labels[m])
        keys.add((tuple(f - shift for f in logits[:, m]), tuple(map(to_fraction, own))))
    return len(keys)
