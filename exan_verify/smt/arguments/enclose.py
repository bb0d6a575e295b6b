"""Branch and prune over boxes that may be unbounded: an overdetermined system has no unknown zero.

A group of samples has inputs ``[x_m ; 1] = B [1 ; a_m]`` with unknown coordinates a_m (docs/theory.md,
appendix C). Its equations are ``sum_m sum_ck C[e, m, c, k] g_mc [1 ; a_m]_k = t_e`` with rational C, its
conditions are affine in one sample's coordinates. The logits are affine in a_m, so that every difference of
logits has an exact range over a box, also an unbounded one, where softmax and sigmoid stay between their
limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import flint
import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.question.transcendental import PRECISION, unit_rows

Rational = Any
"""A ``flint.fmpq``: ten times as fast as a Fraction, and most of the work is with exact ranges."""
Side = tuple[Rational | None, Rational | None]
"""An interval; None stands for minus infinity on the left and plus infinity on the right."""
Box = tuple[Side, ...]
Row = tuple[Rational, ...]
"""A functional of ``[1 ; a]``."""
Place = tuple[int, int, int]
"""A sample, a class, a coordinate (0: the constant)."""
Ends = tuple[Any, Any]
"""An interval with ``flint.arb`` ends, or infinite ones as floats."""

INFINITE = float("inf")
FARTHEST = flint.fmpq(2**40)
"""Boxes this far out, or smaller than one over it, are not cut any more: what is left there is a solution in
the limit, or one that is not known."""

NARROW = 2**20
"""Boxes smaller than one over it may be spared, for more equations to refute."""

MAX_SPARED = 8


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one sample over its part of a box: every entry g_c of its loss vector; where the part is unbounded
    also the products ``g_c [1 ; a]_k``, and the places (c, k) of those that are not bounded.
    """

    vector: list[Ends]
    products: list[list[Ends]]
    unbounded: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class System:
    """The unknown samples of a group: their coordinates a_m, n of them each.

    ``logits``: per sample (K, n + 1), on ``[1 ; a]``; ``labels``: per sample K numbers; ``conditions``: per
    sample ``(row, strict)`` with ``row [1 ; a] >= 0`` (``> 0``); ``weights`` (equations, M, K, n + 1) with
    Fractions and balls ``right``; ``known``: the points (M n numbers) that solve the equations. ``alone``:
    per sample equations ``sum_c g_c (rows_c [1 ; a]) = right`` that it satisfies by itself, rows (K or fewer,
    n + 1) of balls. ``cones``: names of the samples' coordinates, for systems that share what is known of
    them (``bounds``, ``seen``).
    """

    loss: Loss
    logits: tuple[Array, ...]
    labels: tuple[tuple[Fraction, ...], ...]
    conditions: tuple[tuple[tuple[Array, bool], ...], ...]
    weights: Array
    right: tuple[Any, ...]
    known: tuple[tuple[Fraction, ...], ...]
    alone: tuple[tuple[tuple[Array, int], ...], ...] = ()
    cones: tuple[int, ...] = ()
    bounds: dict[tuple[int, int, Box], Bounds] = field(default_factory=dict)
    seen: dict[tuple[int, int, Box], list[Ends] | None] = field(default_factory=dict)
    tied: dict[frozenset[Place], System | None] = field(default_factory=dict)

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
        equation holds nowhere, by the range of each of its terms; if need be, a combination of equations in
        which nothing unbounded is left.
        """
        shares = []
        for m in range(self.size):
            key = self._key(m, part := self._part(box, m))
            if key not in self.seen:  # many boxes have the same part
                self.seen[key] = self._shares(m, part)
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
        return self._free_of_unbounded(box)

    def possible(self, m: int, part: Box) -> bool:
        """Whether sample m may lie in a part, by its conditions and the equations of its own."""
        key = self._key(m, part)
        if key not in self.seen:
            with flint.ctx.workprec(PRECISION):
                self.seen[key] = self._shares(m, part)
        return self.seen[key] is not None

    def _free_of_unbounded(self, box: Box) -> bool:
        """The same by combinations of the equations that leave out every product ``g_c a_k`` that is not
        bounded over the box: their terms are, and they may be far from zero.
        """
        places = frozenset(
            (m, *place) for m in range(self.size) for place in self._bounds(m, self._part(box, m)).unbounded
        )
        if not places:
            return False
        if places not in self.tied:
            self.tied[places] = self._combined(places)
        combined = self.tied[places]
        return combined is not None and combined.free(box)

    def _combined(self, places: frozenset[Place]) -> System | None:
        """All combinations of the equations without these products; None where there are none."""
        columns = np.array([self.weights[:, m, c, k] for m, c, k in sorted(places)])
        kernel = linalg.nullspace(columns)
        if not kernel.shape[1] or not columns.any():
            return None
        flat = linalg.multiply(kernel.T, self.weights.reshape(len(self.weights), -1))
        right = tuple(
            sum((to_ball(y) * v for y, v in zip(column, self.right, strict=True) if y), flint.arb(0))
            for column in kernel.T
        )
        weights = flat.reshape(len(right), *self.weights.shape[1:])
        return replace(self, weights=weights, right=right, alone=(), seen={}, tied={})

    def _key(self, m: int, part: Box) -> tuple[int, int, Box]:
        return m, self.cones[m] if self.cones else 0, part

    def _bounds(self, m: int, part: Box) -> Bounds:
        key = self._key(m, part)
        if key not in self.bounds:
            vector = self._vector_range(m, part)
            products: list[list[Ends]] = []
            if any(v is None for side in part for v in side):
                units = [_row(row) for row in linalg.identity(self.coordinates + 1)]
                products = [[self._term(m, c, u, part, g) for u in units] for c, g in enumerate(vector)]
            unbounded = tuple(
                (c, k)
                for c, row in enumerate(products)
                for k, ends in enumerate(row)
                if any(isinstance(v, float) for v in ends)
            )
            self.bounds[key] = Bounds(vector, products, unbounded)
        return self.bounds[key]

    def _shares(self, m: int, part: Box) -> list[Ends] | None:
        """Bounds of what sample m adds to each equation; None where it violates a condition or an equation of
        its own all over its part.
        """
        for row, strict in self._conditions[m]:
            top = _range(row, part)[1]
            if top is not None and (top <= 0 if strict else top < 0):
                return None
        if self._away_alone(m, part):
            return None
        vector = self._bounds(m, part).vector
        return [self._share(m, part, vector, weights) for weights in self._rows[m]]

    def _share(self, m: int, part: Box, vector: list[Ends], weights: list[Row]) -> Ends:
        """Bounds of ``sum_c g_c (weights_c [1 ; a])``. Over an unbounded part of cross_entropy, whose g sum
        to zero, also of ``sum_c g_c ((weights_c - weights_r) [1 ; a])`` for every class r: what one of them
        leaves unbounded another may not.
        """
        choices = [weights]
        if self.loss is Loss.CROSS_ENTROPY and any(v is None for side in part for v in side):
            choices += [[_less(row, away) for row in weights] for away in weights if any(away)]
        best: Ends = (-INFINITE, INFINITE)
        for rows in choices:
            low: Any = flint.arb(0)
            high: Any = flint.arb(0)
            for c, (row, bounds) in enumerate(zip(rows, vector, strict=True)):
                if any(row):
                    below, above = self._term(m, c, row, part, bounds)
                    low, high = _plus(low, below), _plus(high, above)
            best = _met(best, (low, high))
        return best

    def _term(self, m: int, c: int, row: Row, part: Box, bounds: Ends) -> Ends:
        """Bounds of ``g_c row [1 ; a]`` over a part, g_c within ``bounds``."""
        below, above = _times(bounds, _range(row, part))
        if self.loss is not Loss.MSE and any(isinstance(v, float) for v in (below, above)):
            for decays in self._decays[m][c]:
                fading = self._fading(decays, row, part)
                if fading is not None:
                    below, above = _met((below, above), (-fading, fading))
        return below, above

    def _away_alone(self, m: int, part: Box) -> bool:
        """Whether sample m satisfies one of its own equations nowhere in its part."""
        if not self.alone:
            return False
        vector = self._bounds(m, part).vector
        whole = [low.union(high) for low, high in vector if not isinstance(low, float)]
        if len(whole) < len(vector):  # mse, unbounded
            return False
        if all(v is not None for side in part for v in side):
            a = [flint.arb(1), *(_hull(lo, hi) for lo, hi in _bounded(part))]
            return any(
                not (
                    sum((g * _dot(r, a) for g, r in zip(whole, rows, strict=False)), -flint.arb(right))
                ).contains(0)
                for rows, right in self.alone[m]
            )
        products = self._bounds(m, part).products
        for rows, right in self.alone[m]:
            low: Any = -flint.arb(right)
            high: Any = -flint.arb(right)
            for row, ends in zip(rows, products, strict=False):
                for weight, (below, above) in zip(row, ends, strict=True):
                    if not weight.is_zero():
                        least, most = _scaled(weight, below, above)
                        low, high = _plus(low, least), _plus(high, most)
            if low > 0 or high < 0:
                return True
        return False

    def mean_value_away(self, box: Box) -> bool:
        """Whether the mean value form, raw or preconditioned, misses zero over a bounded box."""
        centre = [(lo + hi) / 2 for lo, hi in _bounded(box)]
        steps = _column([_hull(lo - c, hi - c) for (lo, hi), c in zip(_bounded(box), centre, strict=True)])
        values = self._smooth(tuple(flint.arb(c) for c in centre))[0] - _column(self.right)
        slopes = self._slopes(box)
        if not all(s.is_finite() for s in slopes.entries()):
            return False
        if not all(v.contains(0) for v in (values + slopes * steps).entries()):
            return True
        inverse = _pseudo_inverse(slopes)
        return not all(v.contains(0) for v in (inverse * values + inverse * slopes * steps).entries())

    def injective(self, box: Box) -> bool:
        """Whether ``|I - C J| < 1`` over a bounded box for some matrix C: then it has at most one zero."""
        slopes = self._slopes(box)
        if not all(s.is_finite() for s in slopes.entries()):
            return False
        change = _pseudo_inverse(slopes) * slopes
        size = slopes.ncols()
        return all(
            sum((abs(change[i, j] - int(i == j)) for j in range(size)), flint.arb(0)) < 1 for i in range(size)
        )

    def _slopes(self, box: Box) -> Any:
        _, slopes = self._smooth(tuple(_hull(lo, hi) for lo, hi in _bounded(box)))
        return slopes

    def _part(self, box: tuple[Any, ...], m: int) -> tuple[Any, ...]:
        return box[m * self.coordinates : (m + 1) * self.coordinates]

    def _vector_range(self, m: int, part: Box) -> list[Ends]:
        """Bounds of every entry of the loss vector."""
        labels = self.labels[m]
        if self.loss is Loss.MSE:
            return [
                _ends(_range(_row(2 * row), part), _rational(-2 * y))
                for row, y in zip(self.logits[m], labels, strict=True)
            ]
        found = []
        for rows, y in zip(self._differences[m], labels, strict=True):
            ranges = [_range(row, part) for row in rows]
            least = _sum([_exponential(low) for low, _ in ranges], 1)
            most = _sum([_exponential(high, top=True) for _, high in ranges], 1)
            found.append((_odds(most, y), _odds(least, y)))
        return found

    @cached_property
    def _differences(self) -> list[list[list[Row]]]:
        """Per sample and class c what the other logits are above f_c (bce: 0 is the other one)."""
        return [
            [
                [_row(-row)]
                if self.loss is Loss.BCE
                else [_row(v) for v in np.delete(logits, c, axis=0) - row]
                for c, row in enumerate(logits)
            ]
            for logits in self.logits
        ]

    @cached_property
    def _conditions(self) -> list[list[tuple[Row, bool]]]:
        return [[(_row(row), strict) for row, strict in rows] for rows in self.conditions]

    @cached_property
    def _rows(self) -> list[list[list[Row]]]:
        """The weights by sample, equation and class."""
        return [[[_row(row) for row in rows] for rows in self.weights[:, m]] for m in range(self.size)]

    def _fading(self, decays: list[Row], row: Row, part: Box) -> Any:
        """A bound of ``|g_c row [1 ; a]|`` over an unbounded box in which the loss vector's entry fades, or
        None.

        |g_c| is at most the sum of exp(-mu), mu in ``decays`` affine in a. From the corner of the box
        where mu is least, with steps t_k >= 0 along its sides, ``mu = low + sum rates_k t_k``. Where every
        rate along an unbounded side on which ``row`` grows is positive, ``t e^(-rate t) <= 1 / (e rate)``
        and the other factors are at most 1, so that the product is at most ``e^-low (size + sum growth_k /
        (e rate_k))``.
        """
        total: Any = flint.arb(0)
        for mu in decays:
            low = _range(mu, part)[0]
            if low is None:
                return None
            size, grown = abs(row[0]), flint.fmpq(0)
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
            total += (-flint.arb(low)).exp() * (flint.arb(size) + flint.arb(grown) / flint.arb(1).exp())
        return total

    def margins(self, m: int) -> list[Array]:
        """Affine in the coordinates: every logit's margin for bce, the label's margins for cross_entropy."""
        logits, labels = self.logits[m], self.labels[m]
        if self.loss is Loss.BCE:
            return [row if y else -row for row, y in zip(logits, labels, strict=True)]
        own = self._own(m)
        return [logits[own] - row for k, row in enumerate(logits) if k != own]

    @cached_property
    def _decays(self) -> list[list[list[list[Row]]]]:
        """Per sample and class sums of exp(-mu), mu affine, that bound ``|g_c|`` each: sigmoid(-t) <= e^-t
        for the margin t; for softmax likewise, by the label's margins for its own entry, and by
        ``p_c <= e^(f_c - f_k)`` with any k for the others.
        """
        found = []
        for m, differences in enumerate(self._differences):
            margins = [_row(mu) for mu in self.margins(m)]
            if self.loss is Loss.BCE:
                found.append([[[mu]] for mu in margins])
            else:
                own = self._own(m)
                found.append(
                    [[margins] if c == own else [[r] for r in rows] for c, rows in enumerate(differences)]
                )
        return found

    def _own(self, m: int) -> int:
        """The class of a one-hot label."""
        return next(k for k, y in enumerate(self.labels[m]) if y)

    def _smooth(self, point: tuple[Any, ...]) -> tuple[Any, Any]:
        """The left sides (equations, 1) and their derivatives (equations, M n) over balls."""
        equations, size = len(self.weights), self.coordinates
        values, parts = flint.arb_mat(equations, 1), []
        for m, (weights, directions) in enumerate(self._matrices):
            a = [flint.arb(1), *self._part(point, m)]
            vector, gains = _vector(self.loss, self.logits[m], self.labels[m], a)
            g = _column(vector)
            # sum_c g_c (w_c [1 ; a]), and its slopes sum_c (g_c w_ck + dg_c/da_k (w_c [1 ; a]))
            rates = flint.arb_mat(equations, len(vector), (weights * _column(a)).entries())
            values = values + rates * g
            direct = flint.arb_mat(equations, size, (directions * g).entries())
            parts.append((direct + rates * flint.arb_mat(gains)).tolist())
        return values, flint.arb_mat([[v for row in rows for v in row] for rows in zip(*parts, strict=True)])

    @cached_property
    def _matrices(self) -> list[tuple[Any, Any]]:
        """Per sample its weights as balls: by (equation, class) on [1 ; a], (equation, coordinate) on g."""
        found = []
        for m in range(self.size):
            weights = self.weights[:, m]
            by_class = weights.reshape(-1, weights.shape[2])
            by_coordinate = weights[:, :, 1:].transpose(0, 2, 1).reshape(-1, weights.shape[1])
            found.append(
                tuple(
                    flint.arb_mat([[to_ball(v) for v in row] for row in rows])
                    for rows in (by_class, by_coordinate)
                )
            )
        return [(one, other) for one, other in found]


def only_known_zeros(system: System, box: Box, limit: int) -> bool:
    """Whether every solution of the equations and conditions in the box is one of the known points, shown
    with at most ``limit`` boxes.
    """
    return boxes_left(system, box, limit) >= 0


def boxes_left(system: System, box: Box, limit: int, spared: list[Box] | None = None) -> int:
    """The same; how many of the boxes are left, less than 0 where it is not shown. A few small boxes without
    a known point that may hold a solution go to ``spared``, where there is such a list.
    """
    stack = [_exact(box)]
    known = [tuple(map(_rational, p)) for p in system.known]
    with flint.ctx.workprec(PRECISION):
        while stack:
            poll()
            limit -= 1
            if limit < 0:
                return limit
            current = stack.pop()
            inside = [p for p in known if _contains(current, p)]
            if not inside and system.free(current):
                continue
            if all(lo is not None and hi is not None for lo, hi in current):
                if len(inside) == 1 and system.injective(current):
                    continue
                if not inside and system.mean_value_away(current):
                    continue
                if spared is not None and not inside and _narrow(current):
                    spared.append(current)
                    if len(spared) > MAX_SPARED:
                        return -1
                    continue
            if _hopeless(current):
                return -1
            stack += _halves(current)
    return limit


def _narrow(box: Box) -> bool:
    return all(lo is not None and hi is not None and (hi - lo) * NARROW < 1 for lo, hi in box)


def _hopeless(box: Box) -> bool:
    """Too far out, or too small: there may be a solution in the limit, or one that is not known."""
    if any(abs(v) > FARTHEST for side in box for v in side if v is not None):
        return True
    return all(lo is not None and hi is not None and (hi - lo) * FARTHEST < 1 for lo, hi in box)


def _halves(box: Box) -> list[Box]:
    axis = max(range(len(box)), key=lambda k: _width(box[k]))
    low, high = box[axis]
    if low is None and high is None:
        middle = flint.fmpq(0)
    elif low is None:
        assert high is not None
        middle = min(2 * high, high - 1) if high < 0 else flint.fmpq(-1)
    elif high is None:
        middle = max(2 * low, low + 1) if low > 0 else flint.fmpq(1)
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


def _contains(box: Box, point: Sequence[Rational]) -> bool:
    return all(
        (lo is None or lo <= v) and (hi is None or v <= hi) for v, (lo, hi) in zip(point, box, strict=True)
    )


def _bounded(box: Box) -> list[tuple[Rational, Rational]]:
    found = []
    for lo, hi in box:
        assert lo is not None
        assert hi is not None
        found.append((lo, hi))
    return found


def _row(values: Array) -> Row:
    return tuple(_rational(v) for v in values)


def _rational(value: Fraction | Rational) -> Rational:
    return value if isinstance(value, flint.fmpq) else flint.fmpq(value.numerator, value.denominator)


def _exact(box: Sequence[tuple[Any, Any]]) -> Box:
    return tuple(
        (None if lo is None else _rational(lo), None if hi is None else _rational(hi)) for lo, hi in box
    )


def _less(row: Row, other: Row) -> Row:
    return tuple(a - b for a, b in zip(row, other, strict=True))


def _range(row: Row, part: Box) -> Side:
    """The exact range of ``row [1 ; a]`` over a box."""
    low = high = row[0]
    for rate, (lo, hi) in zip(row[1:], part, strict=True):
        if rate:
            first, last = (lo, hi) if rate > 0 else (hi, lo)
            low = None if low is None or first is None else low + rate * first
            high = None if high is None or last is None else high + rate * last
    return low, high


def _exponential(value: Rational | None, *, top: bool = False) -> Any:
    """exp of one end of a range; None for plus infinity."""
    if value is None:
        return None if top else flint.arb(0)
    return flint.arb(value).exp()


def _odds(total: Any, label: Fraction) -> Any:
    """1 / total - label; None is an infinite total."""
    return (flint.arb(0) if total is None else 1 / total) - to_ball(label)


def _sum(values: Sequence[Any], start: int) -> Any:
    """The sum of ends, None if one of them is infinite."""
    return None if any(v is None for v in values) else sum(values, flint.arb(start))


def _ends(side: Side, shift: Rational) -> Ends:
    low, high = side
    return (
        -INFINITE if low is None else flint.arb(low + shift),
        INFINITE if high is None else flint.arb(high + shift),
    )


def _plus(left: Any, right: Any) -> Any:
    """The sum of two lower, or of two upper ends."""
    return next((v for v in (left, right) if isinstance(v, float)), None) or left + right


def _times(left: Ends, right: Side) -> Ends:
    """Bounds of the product of two intervals."""
    products = [_product(a, b) for a in left for b in _ends(right, flint.fmpq(0))]
    if any(v is None for v in products):
        return -INFINITE, INFINITE
    finite = [v for v in products if not isinstance(v, float)]
    low: Any = -INFINITE if -INFINITE in products or not finite else finite[0]
    high: Any = INFINITE if INFINITE in products or not finite else finite[0]
    for value in finite[1:]:
        low = low if isinstance(low, float) else low.min(value)
        high = high if isinstance(high, float) else high.max(value)
    return low, high


def _met(one: Ends, other: Ends) -> Ends:
    """Where two intervals around the same numbers meet."""
    low, high = (
        a if isinstance(b, float) else b if isinstance(a, float) else a.max(b) if k == 0 else a.min(b)
        for k, (a, b) in enumerate(zip(one, other, strict=True))
    )
    return low, high


def _scaled(weight: Any, low: Any, high: Any) -> Ends:
    """Bounds of a ball times an interval."""
    if weight.contains(0) and any(isinstance(v, float) for v in (low, high)):
        return -INFINITE, INFINITE
    ends = [_product(weight, v) for v in (low, high)]
    if any(isinstance(v, float) for v in ends):
        return (ends[0], ends[1]) if weight > 0 else (ends[1], ends[0])
    return ends[0].min(ends[1]), ends[0].max(ends[1])


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


def _pseudo_inverse(slopes: Any) -> Any:
    """The pseudo-inverse of the midpoints, rows scaled: any matrix would be right, this one is good."""
    middle, scales = unit_rows(slopes.tolist())
    return flint.arb_mat(
        [
            [flint.arb(float(v)) / size for v, size in zip(row, scales, strict=True)]
            for row in np.linalg.pinv(middle)
        ]
    )


def _column(values: Sequence[Any]) -> Any:
    return flint.arb_mat(len(values), 1, list(values))


def _hull(low: Rational, high: Rational) -> Any:
    return flint.arb(low).union(flint.arb(high))


def _dot(left: Any, right: Any) -> Any:
    return sum((x * y for x, y in zip(left, right, strict=True)), flint.arb(0))


def _dot_rational(row: Any, a: Sequence[Any]) -> Any:
    return sum((to_ball(x) * y for x, y in zip(row, a, strict=True) if x), flint.arb(0))
