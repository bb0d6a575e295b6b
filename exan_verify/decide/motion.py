"""How everything moves along a straight line inside a region: exact slopes, and how far the line may go.

Inside one activation pattern the network is affine, so pre-activations, logits and margins are affine in
the step t. Active neurons and violated margins are open conditions, inactive neurons, satisfied margins and
the box are closed ones (docs/theory.md section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.exact.backprop import affine
from exan_verify.exact.rational import Mask, RationalMatrix, product


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Conditions ``value + t slope > 0`` (where ``strict``) or ``>= 0``, one column per sample.

    ``value = values / value_unit`` and ``slope = slopes / slope_unit``, so that ratios can be compared on
    integers.
    """

    values: Array
    slopes: Array
    strict: Mask
    value_unit: int = 1
    slope_unit: int = 1

    def stop(self, column: int, sign: int = 1) -> Fraction | None:
        """How far the sample may go along ``sign`` times the direction."""
        stop = _first_stop(self.values[:, column], self.slopes[:, column] * sign)
        return None if stop is None else stop * Fraction(self.slope_unit, self.value_unit)


def conditions(context: Context, samples: Sequence[int], steps: Array) -> list[Block]:
    """The conditions that keep ``samples`` in their regions, in the domain and with the same hinge margins
    while they move along ``steps`` (|samples|, d).
    """
    chosen = list(samples)
    blocks = []
    moving = RationalMatrix.of(np.ascontiguousarray(steps.T))
    here = RationalMatrix.of(np.ascontiguousarray(context.batch.inputs[chosen].T))
    for layer, pattern in zip(context.network.layers[:-1], context.passed.patterns, strict=True):
        active = pattern[:, chosen]
        moving, here = product(layer.weight, moving), affine(layer, here)
        sign = np.where(active, 1, -1)
        blocks.append(Block(values=here.fractions() * sign, slopes=moving.fractions() * sign, strict=active))
        moving, here = moving.masked(active), here.masked(active)
    if context.question.loss is Loss.HINGE:
        slopes = product(context.network.layers[-1].weight, moving).fractions()
        blocks.append(_margins(context, chosen, slopes))
    return blocks + _box(context, chosen, steps)


def step_limit(blocks: Sequence[Block]) -> Fraction | None:
    """The supremum of t >= 0 at which all conditions hold, or None when there is none."""
    found = (sample_limit(blocks, column) for column in range(blocks[0].values.shape[1] if blocks else 0))
    return min((limit for limit in found if limit is not None), default=None)


def sample_limit(blocks: Sequence[Block], column: int, sign: int = 1) -> Fraction | None:
    """The same for one sample, along ``sign`` times its direction."""
    found = (block.stop(column, sign) for block in blocks)
    return min((limit for limit in found if limit is not None), default=None)


def _first_stop(values: Array, slopes: Array) -> Fraction | None:
    """The least ``-value / slope`` over the falling conditions, compared by cross-multiplication."""
    best: tuple[Any, Any] | None = None
    for value, slope in zip(values, slopes, strict=True):
        if slope < 0 and (best is None or value * best[1] < best[0] * -slope):
            best = (value, -slope)
    return None if best is None else Fraction(best[0]) / Fraction(best[1])


def below(limit: Fraction) -> Fraction:
    """A short dyadic number in (0.99 limit, limit), for ``limit`` > 0."""
    shift = 8 - (limit.numerator.bit_length() - limit.denominator.bit_length())
    scaled = limit * (Fraction(2) ** shift)
    whole = -(-scaled.numerator // scaled.denominator) - 1
    return Fraction(whole) / Fraction(2) ** shift


def scaled(columns: Array) -> Array:
    """Each column of (n, k) times a power of two that brings its largest entry near 1."""
    out = columns.copy()
    for k in range(columns.shape[1]):
        top = max((abs(v) for v in columns[:, k]), default=Fraction(0))
        if top:
            out[:, k] = out[:, k] * Fraction(2) ** (top.denominator.bit_length() - top.numerator.bit_length())
    return out


def margins(logits: Array, label: int) -> Array:
    """``1 - f_y + f_c`` (K,) for the classes c of one sample; the own class's entry is 1, never tied."""
    found: Array = 1 - logits[label] + logits
    return found


def masked(rows: Array, keep: Mask) -> Array:
    """The rows of (n, k) where ``keep`` (n,), zeros elsewhere."""
    found: Array = rows * keep.astype(int)[:, None]
    return found


def _margins(context: Context, samples: list[int], slopes: Array) -> Block:
    values, rates = [], []
    for column, m in enumerate(samples):
        label = int(context.batch.labels[m])
        own = margins(context.passed.logits[:, m], label)
        sign = np.where(own > 0, 1, -1)
        values.append(own * sign)
        rates.append((slopes[:, column] - slopes[label, column]) * sign)
    stacked = np.array(values, dtype=object).T
    return Block(values=stacked, slopes=np.array(rates, dtype=object).T, strict=stacked > 0)


def _box(context: Context, samples: list[int], steps: Array) -> list[Block]:
    if context.question.domain is None:
        return []
    lo, hi = context.question.domain.bounds(context.batch.inputs.shape[1])
    x, rates = fractions(context.batch.inputs[samples]).T, steps.T
    closed = np.zeros(x.shape, dtype=bool)
    return [
        Block(values=x - fractions(lo)[:, None], slopes=rates, strict=closed),
        Block(values=fractions(hi)[:, None] - x, slopes=-rates, strict=closed),
    ]
