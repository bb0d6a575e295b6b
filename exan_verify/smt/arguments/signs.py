"""Signs of loss vectors contradict every T that the gradient allows (cross_entropy, bce; docs/theory.md CB4).

Let the T of a cube's regions be ``T_0 + N z``, N rational. In a region whose samples all have the same sign
in class c, row c of T is a positive combination of the samples' ``[x ; 1]`` up to that sign, so that it has
the same sign on every affine function that is >= 0 on the region. A combination of these inequalities with
multipliers >= 0 in which z cancels and the constant is negative refutes the cube.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from operator import itemgetter
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact import linalg
from exan_verify.exact.lp import Program, Status, solve
from exan_verify.exact.regions import Region
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.question.posed import Vector
from exan_verify.smt.question.transcendental import PRECISION, middle

BITS = 200
"""Bounds are rounded to so many binary places for the linear program, within what the balls (256 bits) know;
what it finds is checked on the balls themselves."""


def signs_contradict(
    regions: Sequence[Region],
    kernel: Array,
    totals: Sequence[Array],
    labels: Sequence[Sequence[Vector]],
    domain: Sequence[tuple[Fraction, Fraction]] | None,
    *,
    has_bias: bool,
) -> bool:
    """Whether no z makes ``T_0 + kernel z`` fit the signs.

    ``totals``: T_0 per region as balls; ``labels``: of the samples that the cube has in each region.
    """
    width = totals[0].size
    rows: list[list[Fraction]] = []
    bounds = []
    for place, found in groupby(_inequalities(regions, totals, labels, domain, has_bias), itemgetter(0)):
        functionals = np.array([functional for _, functional in found])
        block = kernel[place * width : (place + 1) * width]
        rows += (-linalg.multiply(functionals, block)).tolist()
        bounds += [_combined(functional, list(totals[place].reshape(-1))) for functional in functionals]
    if not rows:
        return False
    with flint.ctx.workprec(PRECISION):
        rounded = [Fraction(round(middle(b) * 2**BITS), 2**BITS) for b in bounds]
        answer = solve(Program.of([0] * kernel.shape[1], rows=rows, bounds=rounded))
        if answer.status is not Status.INFEASIBLE or answer.multipliers is None:
            return False
        return _refutes(answer.multipliers, rows, bounds)


def _refutes(
    multipliers: Sequence[Fraction], rows: Sequence[Sequence[Fraction]], bounds: Sequence[Any]
) -> bool:
    """``sum y (row z) <= sum y bound`` with y >= 0, no z left and a negative right side."""
    if any(y < 0 for y in multipliers):
        return False
    columns = zip(*rows, strict=True)
    if any(sum((y * v for y, v in zip(multipliers, column, strict=True)), Fraction(0)) for column in columns):
        return False
    total = sum((to_ball(y) * b for y, b in zip(multipliers, bounds, strict=True) if y), flint.arb(0))
    return bool(total < 0)


def _inequalities(
    regions: Sequence[Region],
    totals: Sequence[Array],
    labels: Sequence[Sequence[Vector]],
    domain: Sequence[tuple[Fraction, Fraction]] | None,
    has_bias: bool,
) -> Iterator[tuple[int, Array]]:
    """``functional . T >= 0``, region by region."""
    for place, (region, total, letters) in enumerate(zip(regions, totals, labels, strict=True)):
        classes = len(region.logits)
        for c in range(classes):
            signs = {-1 if y[c] else 1 for y in letters}
            if len(signs) == 1:
                (sign,) = signs
                for a in _nonnegative(region, domain, has_bias):
                    yield place, _on_class(c, sign, a, total.shape, classes).reshape(-1)


def _on_class(c: int, sign: int, a: Array, shape: tuple[int, ...], classes: int) -> Array:
    """sign T_c a; the last class of cross_entropy is minus the sum of the others."""
    out = np.full(shape, Fraction(0), dtype=object)
    if shape[0] < classes and c == classes - 1:
        out[:] = -sign * a
    else:
        out[c] = sign * a
    return out


def _nonnegative(
    region: Region, domain: Sequence[tuple[Fraction, Fraction]] | None, has_bias: bool
) -> Iterator[Array]:
    """Affine functions that are >= 0 on the region (linear ones without biases)."""
    size = region.logits.shape[1] - (not has_bias)
    for row, on in zip(region.states, region.active, strict=True):
        yield (row if on else -row)[:size]
    if not has_bias:
        return
    unit = np.full(size, Fraction(0), dtype=object)
    unit[-1] = Fraction(1)
    yield unit
    for k, (low, high) in enumerate(domain or ()):
        below, above = -low * unit, high * unit
        below[k] += 1
        above[k] -= 1
        yield below
        yield above


def _combined(row: Array, values: Sequence[Any]) -> Any:
    with flint.ctx.workprec(PRECISION):
        return sum((to_ball(c) * v for c, v in zip(row, values, strict=True) if c), flint.arb(0))
