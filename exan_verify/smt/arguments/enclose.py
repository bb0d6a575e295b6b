"""Branch and prune over boxes that may be unbounded: an overdetermined system has no unknown zero.

A group of samples has inputs ``[x_m ; 1] = B [1 ; a_m]`` with unknown coordinates a_m (docs/theory.md,
appendix C). Its equations are ``sum_m sum_ck C[e, m, c, k] g_mc [1 ; a_m]_k = t_e`` with rational C, its
conditions are affine in one sample's coordinates. The logits are affine in a_m, so that every difference of
logits has an exact range over a box, also an unbounded one, where softmax and sigmoid stay between their
limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.question.transcendental import PRECISION, unit_rows

Side = tuple[Fraction | None, Fraction | None]
"""An interval; None stands for minus infinity on the left and plus infinity on the right."""
Box = tuple[Side, ...]
Ends = tuple[Any, Any]
"""An interval with ``flint.arb`` ends, or infinite ones as floats."""

INFINITE = float("inf")
FARTHEST = Fraction(2**40)
"""Boxes this far out, or smaller than one over it, are not cut any more: what is left there is a solution in
the limit, or one that is not known."""


@dataclass(frozen=True, kw_only=True)
class System:
    """The unknown samples of a group: their coordinates a_m, n of them each.

    ``logits``: per sample (K, n + 1), on ``[1 ; a]``; ``labels``: per sample K numbers; ``conditions``: per
    sample ``(row, strict)`` with ``row [1 ; a] >= 0`` (``> 0``); ``weights`` (equations, M, K, n + 1) with
    Fractions and balls ``right``; ``known``: the points (M n numbers) that solve the equations. ``alone``:
    per sample equations ``sum_c g_c (rows_c [1 ; a]) = right`` that it satisfies by itself, rows (K or fewer,
    n + 1) of balls.
    """

    loss: Loss
    logits: tuple[Array, ...]
    labels: tuple[tuple[Fraction, ...], ...]
    conditions: tuple[tuple[tuple[Array, bool], ...], ...]
    weights: Array
    right: tuple[Any, ...]
    known: tuple[tuple[Fraction, ...], ...]
    alone: tuple[tuple[tuple[Array, int], ...], ...] = ()
    seen: dict[tuple[int, Box], list[Ends] | None] = field(default_factory=dict)

    @property
    def coordinates(self) -> int:
        """n."""
        return int(self.logits[0].shape[1]) - 1

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.logits)

    def free(self, box: Box) -> bool:
        """Whether no solution lies in the box: some sample has none of its own in its part of it, or some
        equation holds nowhere, by the range of each of its terms.
        """
        shares = []
        for m in range(self.size):
            key = m, self._part(box, m)
            if key not in self.seen:  # many boxes have the same part
                self.seen[key] = self._shares(*key)
            share = self.seen[key]
            if share is None:
                return True
            shares.append(share)
        for e, right in enumerate(self.right):
            low: Any = -right
            high: Any = -right
            for share in shares:
                low, high = _plus(low, share[e][0]), _plus(high, share[e][1])
            if low > 0 or high < 0:
                return True
        return False

    def _shares(self, m: int, part: Box) -> list[Ends] | None:
        """Bounds of what sample m adds to each equation; None where it violates a condition or an equation of
        its own all over its part.
        """
        for row, strict in self.conditions[m]:
            top = _range(row, part)[1]
            if top is not None and (top <= 0 if strict else top < 0):
                return None
        vector = self._vector_range(m, part)
        if self._away_alone(m, part, vector):
            return None
        found: list[Ends] = []
        for weights in self.weights[:, m]:
            low: Any = flint.arb(0)
            high: Any = flint.arb(0)
            for c, (row, bounds) in enumerate(zip(weights, vector, strict=True)):
                if not row.any():
                    continue
                below, above = _times(bounds, _range(row, part))
                if self.loss is not Loss.MSE and any(isinstance(v, float) for v in (below, above)):
                    fading = self._fading(m, c, row, part)
                    if fading is not None:
                        below, above = -fading, fading
                low, high = _plus(low, below), _plus(high, above)
            found.append((low, high))
        return found

    def _away_alone(self, m: int, part: Box, vector: list[Ends]) -> bool:
        """Whether sample m satisfies one of its own equations nowhere in its part, if that is bounded."""
        if not self.alone or any(v is None for side in part for v in side):
            return False
        whole = [low.union(high) for low, high in vector]
        a = [flint.arb(1), *(_hull(lo, hi) for lo, hi in _bounded(part))]
        for rows, right in self.alone[m]:
            value = sum((g * _dot(row, a) for g, row in zip(whole, rows, strict=False)), flint.arb(0))
            if not (value - right).contains(0):
                return True
        return False

    def mean_value_away(self, box: Box) -> bool:
        """Whether the mean value form, raw or preconditioned, misses zero over a bounded box."""
        centre = [(lo + hi) / 2 for lo, hi in _bounded(box)]
        steps = [_hull(lo - c, hi - c) for (lo, hi), c in zip(_bounded(box), centre, strict=True)]
        found, _ = self._smooth(tuple(to_ball(c) for c in centre))
        values = [v - r for v, r in zip(found, self.right, strict=True)]
        slopes = self._slopes(box)
        if not all(s.is_finite() for row in slopes for s in row):
            return False
        if any(not (v + _dot(row, steps)).contains(0) for v, row in zip(values, slopes, strict=True)):
            return True
        for weights in _pseudo_inverse(slopes):
            change = [_dot(weights, column) for column in zip(*slopes, strict=True)]
            if not (_dot(weights, values) + _dot(change, steps)).contains(0):
                return True
        return False

    def injective(self, box: Box) -> bool:
        """Whether ``|I - C J| < 1`` over a bounded box for some matrix C: then it has at most one zero."""
        slopes = self._slopes(box)
        if not all(s.is_finite() for row in slopes for s in row):
            return False
        for i, weights in enumerate(_pseudo_inverse(slopes)):
            columns = zip(*slopes, strict=True)
            distance = sum((abs(_dot(weights, c) - int(i == j)) for j, c in enumerate(columns)), flint.arb(0))
            if not distance < 1:
                return False
        return True

    def _slopes(self, box: Box) -> list[list[Any]]:
        _, slopes = self._smooth(tuple(_hull(lo, hi) for lo, hi in _bounded(box)))
        return slopes

    def _part(self, box: tuple[Any, ...], m: int) -> tuple[Any, ...]:
        return box[m * self.coordinates : (m + 1) * self.coordinates]

    def _vector_range(self, m: int, part: Box) -> list[Ends]:
        """Bounds of every entry of the loss vector."""
        logits, labels = self.logits[m], self.labels[m]
        if self.loss is Loss.MSE:
            return [_ends(_range(2 * row, part), -2 * y) for row, y in zip(logits, labels, strict=True)]
        found = []
        for c, y in enumerate(labels):
            others = [0 * logits[c]] if self.loss is Loss.BCE else np.delete(logits, c, axis=0)
            ranges = [_range(row - logits[c], part) for row in others]
            least = _sum([_exponential(low) for low, _ in ranges], 1)
            most = _sum([_exponential(high, top=True) for _, high in ranges], 1)
            found.append((_odds(most, y), _odds(least, y)))
        return found

    def _fading(self, m: int, c: int, row: Array, part: Box) -> Any:
        """A bound of ``|g_c row [1 ; a]|`` over an unbounded box in which the loss vector's entry fades, or
        None.

        |g_c| is at most a sum of exp(-mu) with mu affine in a (:meth:`_decays`). From the corner of the box
        where mu is least, with steps t_k >= 0 along its sides, ``mu = low + sum rates_k t_k``. Where every
        rate along an unbounded side on which ``row`` grows is positive, ``t e^(-rate t) <= 1 / (e rate)``
        and the other factors are at most 1, so that the product is at most ``e^-low (size + sum growth_k /
        (e rate_k))``.
        """
        total: Any = flint.arb(0)
        for mu in self._decays(m, c):
            low = _range(mu, part)[0]
            if low is None:
                return None
            size, grown = abs(row[0]), Fraction(0)
            for growth, rate, (lo, hi) in zip(row[1:], mu[1:], part, strict=True):
                if lo is not None and hi is not None:
                    size += abs(growth) * max(abs(lo), abs(hi))
                elif growth:
                    if not rate or (lo is None and hi is None):
                        return None
                    end = hi if lo is None else lo
                    assert end is not None
                    size += abs(growth * end)
                    grown += abs(growth / rate)
            total += (-to_ball(low)).exp() * (to_ball(size) + to_ball(grown) / flint.arb(1).exp())
        return total

    def _decays(self, m: int, c: int) -> list[Array]:
        """Affine mu with ``|g_c| <= sum exp(-mu)``: sigmoid(-t) <= e^-t for the margin t; softmax likewise,
        by the label's margins for its own entry, ``p_c <= e^(f_c - f_y)`` for the others. None are known for
        mse.
        """
        logits, labels = self.logits[m], self.labels[m]
        if self.loss is Loss.BCE:
            return [logits[c] if labels[c] else -logits[c]]
        own = next(k for k, y in enumerate(labels) if y)
        if c != own:
            return [logits[own] - logits[c]]
        return [logits[own] - row for k, row in enumerate(logits) if k != own]

    def _smooth(self, point: tuple[Any, ...]) -> tuple[list[Any], list[list[Any]]]:
        """The left sides and their derivatives over balls."""
        values = [flint.arb(0)] * len(self.weights)
        slopes: list[list[Any]] = [[] for _ in self.weights]
        for m in range(self.size):
            a = [flint.arb(1), *self._part(point, m)]
            vector, gains = _vector(self.loss, self.logits[m], self.labels[m], a)
            for e, weights in enumerate(self.weights[:, m]):
                rates = [_dot_rational(row, a) for row in weights]
                values[e] = values[e] + _dot(rates, vector)
                for k in range(self.coordinates):
                    direct = sum(
                        (to_ball(row[k + 1]) * g for row, g in zip(weights, vector, strict=True)),
                        flint.arb(0),
                    )
                    slopes[e].append(direct + _dot(rates, [gain[k] for gain in gains]))
        return values, slopes


def only_known_zeros(system: System, box: Box, limit: int) -> bool:
    """Whether every solution of the equations and conditions in the box is one of the known points, shown
    with at most ``limit`` boxes.
    """
    stack = [box]
    with flint.ctx.workprec(PRECISION):
        while stack:
            poll()
            limit -= 1
            if limit < 0:
                return False
            current = stack.pop()
            inside = [p for p in system.known if _contains(current, p)]
            if not inside and system.free(current):
                continue
            if all(lo is not None and hi is not None for lo, hi in current):
                if len(inside) == 1 and system.injective(current):
                    continue
                if not inside and system.mean_value_away(current):
                    continue
            if _hopeless(current):
                return False
            stack += _halves(current)
    return True


def _hopeless(box: Box) -> bool:
    """Too far out, or too small: there may be a solution in the limit, or one that is not known."""
    if any(abs(v) > FARTHEST for side in box for v in side if v is not None):
        return True
    return all(lo is not None and hi is not None and (hi - lo) * FARTHEST < 1 for lo, hi in box)


def _halves(box: Box) -> list[Box]:
    axis = max(range(len(box)), key=lambda k: _width(box[k]))
    low, high = box[axis]
    if low is None and high is None:
        middle = Fraction(0)
    elif low is None:
        assert high is not None
        middle = min(2 * high, high - 1) if high < 0 else Fraction(-1)
    elif high is None:
        middle = max(2 * low, low + 1) if low > 0 else Fraction(1)
    else:
        middle = (low + high) / 2
    return [(*box[:axis], half, *box[axis + 1 :]) for half in ((low, middle), (middle, high))]


def _width(side: Side) -> float:
    """How urgent it is to cut a side: unbounded ones first, those that reach least far."""
    low, high = side
    if low is None and high is None:
        return float("inf")
    if low is None or high is None:
        end = high if low is None else low
        assert end is not None
        return 1e6 / (1 + abs(float(end)))
    return float(high - low)


def _contains(box: Box, point: Sequence[Fraction]) -> bool:
    return all(
        (lo is None or lo <= v) and (hi is None or v <= hi) for v, (lo, hi) in zip(point, box, strict=True)
    )


def _bounded(box: Box) -> list[tuple[Fraction, Fraction]]:
    found = []
    for lo, hi in box:
        assert lo is not None
        assert hi is not None
        found.append((lo, hi))
    return found


def _range(row: Array, part: Box) -> Side:
    """The exact range of ``row [1 ; a]`` over a box."""
    low: Fraction | None = row[0]
    high: Fraction | None = row[0]
    for rate, (lo, hi) in zip(row[1:], part, strict=True):
        if rate:
            first, last = (lo, hi) if rate > 0 else (hi, lo)
            low = None if low is None or first is None else low + rate * first
            high = None if high is None or last is None else high + rate * last
    return low, high


def _exponential(value: Fraction | None, *, top: bool = False) -> Any:
    """exp of one end of a range; None for plus infinity."""
    if value is None:
        return None if top else flint.arb(0)
    return to_ball(value).exp()


def _odds(total: Any, label: Fraction) -> Any:
    """1 / total - label; None is an infinite total."""
    return (flint.arb(0) if total is None else 1 / total) - to_ball(label)


def _sum(values: Sequence[Any], start: int) -> Any:
    """The sum of ends, None if one of them is infinite."""
    return None if any(v is None for v in values) else sum(values, flint.arb(start))


def _ends(side: Side, shift: Fraction) -> Ends:
    low, high = side
    return (
        -INFINITE if low is None else to_ball(low + shift),
        INFINITE if high is None else to_ball(high + shift),
    )


def _plus(left: Any, right: Any) -> Any:
    """The sum of two lower, or of two upper ends."""
    return next((v for v in (left, right) if isinstance(v, float)), None) or left + right


def _times(left: Ends, right: Side) -> Ends:
    """Bounds of the product of two intervals."""
    products = [_product(a, b) for a in left for b in _ends(right, Fraction(0))]
    if any(v is None for v in products):
        return -INFINITE, INFINITE
    finite = [v for v in products if not isinstance(v, float)]
    low: Any = -INFINITE if -INFINITE in products or not finite else finite[0]
    high: Any = INFINITE if INFINITE in products or not finite else finite[0]
    for value in finite[1:]:
        low = low if isinstance(low, float) else low.min(value)
        high = high if isinstance(high, float) else high.max(value)
    return low, high


def _product(a: Any, b: Any) -> Any:
    """The product of two ends, None when its sign is not known; a zero end makes the corner zero."""
    infinite = [isinstance(v, float) for v in (a, b)]
    if not any(infinite):
        return a * b
    if any(not endless and v.is_zero() for v, endless in zip((a, b), infinite, strict=True)):
        return flint.arb(0)
    sign = _sign(a) * _sign(b)
    return INFINITE * sign if sign else None


def _sign(value: Any) -> int:
    return 1 if value > 0 else -1 if value < 0 else 0


def _vector(
    loss: Loss, logits: Array, labels: Sequence[Fraction], a: Sequence[Any]
) -> tuple[list[Any], list[list[Any]]]:
    """The loss vector over balls, and its derivatives by the coordinates."""
    slopes = [[to_ball(v) for v in row[1:]] for row in logits]
    if loss is Loss.MSE:
        values = [2 * (_dot_rational(row, a) - to_ball(y)) for row, y in zip(logits, labels, strict=True)]
        return values, [[2 * s for s in row] for row in slopes]
    if loss is Loss.BCE:
        chances = [1 / (1 + (-_dot_rational(row, a)).exp()) for row in logits]
        gains = [[p * (1 - p) * s for s in row] for p, row in zip(chances, slopes, strict=True)]
    else:
        chances = [
            1 / sum((_dot_rational(other - row, a).exp() for other in logits), flint.arb(0)) for row in logits
        ]
        means = [_dot(chances, column) for column in zip(*slopes, strict=True)]
        gains = [
            [p * (s - mean) for s, mean in zip(row, means, strict=True)]
            for p, row in zip(chances, slopes, strict=True)
        ]
    return [p - to_ball(y) for p, y in zip(chances, labels, strict=True)], gains


def _pseudo_inverse(rows: list[list[Any]]) -> list[list[Any]]:
    """The pseudo-inverse of the midpoints, rows scaled: any matrix would be right, this one is good."""
    middle, scales = unit_rows(rows)
    return [
        [flint.arb(float(v)) / size for v, size in zip(row, scales, strict=True)]
        for row in np.linalg.pinv(middle)
    ]


def _hull(low: Fraction, high: Fraction) -> Any:
    return to_ball(low).union(to_ball(high))


def _dot(left: Any, right: Any) -> Any:
    return sum((x * y for x, y in zip(left, right, strict=True)), flint.arb(0))


def _dot_rational(row: Any, a: Sequence[Any]) -> Any:
    return sum((to_ball(x) * y for x, y in zip(row, a, strict=True) if x), flint.arb(0))
