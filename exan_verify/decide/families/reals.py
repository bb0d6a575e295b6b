"""How far a shear with real coefficients reaches: a proved lower bound from balls (docs/theory.md S2).

One real alpha with ``sum alpha_m g^m = 0`` is enclosed: all but u coefficients are chosen, the others solve a
linear system in balls. Every bound below holds for each alpha in the enclosure, so for the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, islice
from random import Random
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.decide.motion import Block, below, conditions, sample_limit
from exan_verify.decide.second_batch import Radii, farthest_feature
from exan_verify.exact.softmax import loss_vectors_ball, to_ball

_PRECISION = 256
_BASES_TRIED = 20

_FAR = 4096
_LEAST = Fraction(1, 2**_FAR)

Interval = tuple[Fraction, Fraction]


def reach_of_shear(
    context: Context, group: Sequence[int], v: Array, alpha: Sequence[Interval], free: frozenset[int]
) -> Radii:
    """Per sample, a proved lower bound of its distance to the batch at the end of a segment along v.

    ``alpha`` encloses one real coefficient per sample of the group.
    """
    nothing: Radii = (Fraction(0),) * context.samples
    blocks = conditions(context, group, np.array([v] * len(group), dtype=object))
    limits = [_limit(blocks, column, a) for column, a in enumerate(alpha)]
    bounded = [limit for limit in limits if limit is not None]
    if not bounded:
        surely = {m for m, (low, high) in zip(group, alpha, strict=True) if low > 0 or high < 0}
        return tuple(None if m in surely and m in free else Fraction(0) for m in range(context.samples))
    if min(bounded) <= 0:
        return nothing
    step = below(min(bounded))
    moved = {m: _times(a, step) for m, a in zip(group, alpha, strict=True)}
    return tuple(
        _distance(context, m, moved, v) if m in free else Fraction(0) for m in range(context.samples)
    )


def enclosed_coefficients(context: Context, group: Sequence[int]) -> list[Interval] | None:
    """Rational enclosures of one real null vector of the group's loss vectors, or None."""
    loss, chosen = context.question.loss, list(group)
    rows = context.network.classes - (loss is Loss.CROSS_ENTROPY)
    with flint.ctx.workprec(_PRECISION):
        balls = loss_vectors_ball(
            loss, context.passed.logits[:, chosen], context.batch.labels[chosen], 1, _PRECISION
        )
        rng = Random(f"reals/{context.setting.seed}")
        size = min(rows, len(chosen) - 1)
        for basis in islice(combinations(range(len(chosen)), size), _BASES_TRIED):
            rest = [k for k in range(len(chosen)) if k not in basis]
            weights = {k: Fraction(rng.randint(8, 16) * rng.choice((-1, 1)), 16) for k in rest}
            solved = _solve(balls, rows, basis, weights) if size == rows else None
            found = [span for span in map(_enclosure, solved or ()) if span is not None]
            if solved is not None and len(found) == size:
                return [
                    (weights[k], weights[k]) if k in weights else found[basis.index(k)]
                    for k in range(len(chosen))
                ]
    return None


def _solve(balls: Any, rows: int, basis: tuple[int, ...], weights: dict[int, Fraction]) -> list[Any] | None:
    """Coefficients on the basis that cancel the chosen ones; None when the system may be singular."""
    matrix = flint.arb_mat(rows, rows, [balls[r, k] for r in range(rows) for k in basis])
    right = flint.arb_mat(
        rows,
        1,
        [-sum((balls[r, k] * to_ball(w) for k, w in weights.items()), flint.arb(0)) for r in range(rows)],
    )
    try:
        found = matrix.solve(right)
    except ZeroDivisionError:
        return None
    return [found[r, 0] for r in range(rows)]


def _enclosure(ball: Any) -> Interval | None:
    """Rational ends of a ball, or None beyond 2^_FAR. Loss vectors of large logits are numbers like e^-10^9,
    whose digits nobody can write down: what is below 2^-_FAR lies between zero and that.
    """
    if not ball.abs_upper() < flint.arb(2) ** _FAR:
        return None
    middle, radius = ball.mid(), ball.rad()
    low, high = _rational(middle) - _above(radius), _rational(middle) + _above(radius)
    return (low - _LEAST, high + _LEAST) if abs(middle) < flint.arb(2) ** -_FAR else (low, high)


def _above(radius: Any) -> Fraction:
    return _rational(radius) or (_LEAST if radius > 0 else Fraction(0))


def _rational(exact: Any) -> Fraction:
    """The number itself; zero where it is smaller than 2^-_FAR."""
    mantissa, exponent = (int(part) for part in exact.man_exp())
    if exponent + mantissa.bit_length() < -_FAR:
        return Fraction(0)
    return Fraction(mantissa) * Fraction(2) ** exponent


def _limit(blocks: Sequence[Block], column: int, alpha: Interval) -> Fraction | None:
    """A step up to which a sample keeps its conditions for every coefficient in the enclosure."""
    found = []
    for sign, speed in ((1, alpha[1]), (-1, -alpha[0])):
        limit = sample_limit(blocks, column, sign) if speed > 0 else None
        if limit is not None:
            found.append(limit / speed)
    return min(found, default=None)


def _times(alpha: Interval, step: Fraction) -> Interval:
    return alpha[0] * step, alpha[1] * step


def _distance(context: Context, m: int, moved: dict[int, Interval], v: Array) -> Fraction:
    """A lower bound of the least L-infinity distance from x_m to a moved sample, whatever alpha is in its
    enclosure: on the features that move, and the one where the samples are farthest apart.
    """
    support = [int(k) for k in np.flatnonzero(v != 0)]
    return min(
        max(_apart(context.batch.x[m][k] - context.batch.x[j][k], v[k], span) for k in used)
        for j, span in moved.items()
        for used in [[*support, farthest_feature(context.batch, m, context.batch, j)]]
    )


def _apart(gap: Fraction, rate: Fraction, span: Interval) -> Fraction:
    """The least ``|gap - rate s|`` over s in the interval."""
    ends = (gap - rate * span[0], gap - rate * span[1])
    if min(ends) <= 0 <= max(ends):
        return Fraction(0)
    return min(map(abs, ends))
