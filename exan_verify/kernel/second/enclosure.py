"""A second batch that no rational numbers describe, proved to exist in a box (docs/theory.md, appendix C).

The unknown batch lies in a box in which every sample keeps its region, so that the gradient is a fixed
rational combination of the products ``g_mc [x_m ; 1]_k``. A set of entries that are independent as such
combinations, of the unknown batch and of the given one together, is equivalent to all entries. With as many
of them as coordinates that vary, Krawczyk's test (R. Krawczyk, 1969) proves a common zero in the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.exact.backprop import Forward, forward
from exan_verify.exact.regions import Pattern, Region, region_of
from exan_verify.exact.softmax import loss_vectors, loss_vectors_ball, to_ball
from exan_verify.kernel.probabilities import Probabilities
from exan_verify.kernel.second.cancellation import symbolic_loss_vectors

PRECISION = 256

Coordinate = tuple[int, int]
"""Sample and feature."""


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """A box around the inputs of ``centre``: coordinates in ``free`` vary by ``radius``, the others are
    exact.

    ``given`` is the batch whose gradient the batch in the box shall have.
    """

    network: ReluNetwork
    loss: Loss
    given: Batch
    centre: Batch
    radius: Fraction
    free: tuple[Coordinate, ...]

    def apart(self) -> Enclosure:
        """Without the samples that both batches have: one of the box with nothing that varies, and an equal
        one of the given batch for each, contribute the same and cancel.
        """
        given, centre = (list(zip(b.x, b.y, strict=True)) for b in (self.given, self.centre))
        varying = {m for m, _ in self.free}
        left = list(range(len(given)))
        kept = []
        for n, sample in enumerate(centre):
            same = [] if n in varying else [m for m in left if given[m] == sample]
            if same:
                left.remove(same[0])
            else:
                kept.append(n)
        return replace(
            self,
            given=self.given.select(left),
            centre=self.centre.select(kept),
            free=tuple((kept.index(m), k) for m, k in self.free),
        )

    def proved(self) -> bool:
        """Whether the box lies in one region per sample and holds inputs with the given gradient."""
        if self.loss is Loss.HINGE or len(self.rows) != len(self.free) or not self.keeps_regions():
            return False
        with flint.ctx.workprec(PRECISION):
            return self._krawczyk()

    def sides(self, m: int) -> list[tuple[Fraction, Fraction]]:
        """The interval of every input of sample m."""
        reach = [self.radius if (m, k) in self.free else Fraction(0) for k in range(self._features)]
        return [(v - r, v + r) for v, r in zip(self.centre.x[m], reach, strict=True)]

    def lacks(self, m: int) -> bool:
        """Whether sample m of the given batch differs from every sample in the box."""
        x, y = self.given.x[m], self.given.y[m]
        return all(
            y != self.centre.y[n]
            or any(not low <= v <= high for v, (low, high) in zip(x, self.sides(n), strict=True))
            for n in range(self.centre.size)
        )

    def keeps_regions(self) -> bool:
        """Whether every pre-activation keeps its sign all over the box: > 0, or <= 0."""
        for m, region in enumerate(self.regions):
            sides = self.sides(m)
            for row, on in zip(region.states, region.active, strict=True):
                low, high = _range(row, sides)
                if (on and low <= 0) or (not on and high > 0):
                    return False
        return True

    @cached_property
    def regions(self) -> list[Region]:
        """The regions of the centre's samples."""
        return _regions(self.network, forward(self.network, self.centre), self._zero_sum)

    @cached_property
    def rows(self) -> list[int]:
        """A largest set of entries of the gradient that are independent, both batches' products together."""
        both = np.concatenate([*self._products(), *self._given_products()], axis=1)
        return linalg.pivots(both.T)

    @property
    def _zero_sum(self) -> bool:
        return self.loss is Loss.CROSS_ENTROPY

    @property
    def _features(self) -> int:
        return int(self.centre.inputs.shape[1])

    @property
    def _seen(self) -> int:
        return self.network.classes - self._zero_sum

    def _products(self) -> list[Array]:
        """Columns: products of the unknown batch; for mse, whose g is affine in x, monomials of x."""
        if self.loss is not Loss.MSE:
            return [region.system for region in self.regions]
        found = []
        for region, label in zip(self.regions, self.centre.labels, strict=True):
            maps = region.logits.copy()
            maps[:, -1] -= np.array([to_fraction(v) for v in label], dtype=object)
            size = self._features + self.network.has_bias
            units = np.eye(self._features + 1, dtype=int)
            columns = [
                np.outer(maps @ (units[i] * Fraction(1)), units[j][:size])
                + (np.outer(maps @ (units[j] * Fraction(1)), units[i][:size]) if i != j else 0)
                for j in range(len(units))
                for i in range(j + 1)
            ]
            flat = np.array([c.reshape(-1) for c in columns], dtype=object)
            found.append(linalg.multiply(region.system, flat.T))
        return found

    def _given_products(self) -> list[Array]:
        """Columns: the given gradient, one for each real symbol in its loss vectors."""
        passed = forward(self.network, self.given)
        if self.loss is Loss.MSE:
            tables = [loss_vectors(self.loss, passed.logits, self.given.labels, 1)]
        else:
            tables = list(symbolic_loss_vectors(self.loss, passed.logits, self.given.labels).values())
        regions = _regions(self.network, passed, self._zero_sum)
        out = []
        for table in tables:
            column = np.full((regions[0].system.shape[0], 1), Fraction(0), dtype=object)
            for m, region in enumerate(regions):
                total = np.outer(table[: self._seen, m], self._extended(self.given, m))
                column = column + linalg.multiply(region.system, total.reshape(-1, 1))
            out.append(column)
        return out

    def _extended(self, batch: Batch, m: int) -> Array:
        ones = [Fraction(1)] if self.network.has_bias else []
        return np.array([*batch.x[m], *ones], dtype=object)

    @cached_property
    def _right(self) -> list[Any]:
        """The chosen entries of the given gradient (reduction sum)."""
        passed = forward(self.network, self.given)
        regions = _regions(self.network, passed, self._zero_sum)
        vectors = loss_vectors_ball(self.loss, passed.logits, self.given.labels, 1, PRECISION)
        out = [flint.arb(0)] * len(self.rows)
        for m, region in enumerate(regions):
            products = [
                vectors[c, m] * to_ball(v) for c in range(self._seen) for v in self._extended(self.given, m)
            ]
            for e, row in enumerate(self.rows):
                out[e] = out[e] + _dot(region.system[row], products)
        return out

    def _values(self, point: Sequence[Sequence[Any]]) -> tuple[list[Any], list[list[Any]]]:
        """Left minus right sides and their derivatives by the free coordinates, over balls."""
        values = [-v for v in self._right]
        slopes = [[flint.arb(0)] * len(self.free) for _ in self.rows]
        for m, region in enumerate(self.regions):
            x = [*point[m], flint.arb(1)]
            vector, gains = self._loss_vector(m, point[m])
            kept = x if self.network.has_bias else x[:-1]
            products = [g * v for g in vector[: self._seen] for v in kept]
            changes = {
                place: [
                    gain[k] * v + (g if i == k else 0)
                    for g, gain in zip(vector[: self._seen], gains, strict=False)
                    for i, v in enumerate(kept)
                ]
                for place, (n, k) in enumerate(self.free)
                if n == m
            }
            for e, row in enumerate(self.rows):
                values[e] = values[e] + _dot(region.system[row], products)
                for place, change in changes.items():
                    slopes[e][place] = slopes[e][place] + _dot(region.system[row], change)
        return values, slopes

    @cached_property
    def _probabilities(self) -> list[Probabilities]:
        return [Probabilities(loss=self.loss, maps=region.logits) for region in self.regions]

    def _loss_vector(self, m: int, x: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
        """Sample m's loss vector (reduction sum) at balls x, and its derivatives by x."""
        label = self.centre.labels[m]
        if self.loss is Loss.MSE:
            maps = self.regions[m].logits
            logits = [_dot(row, [*x, flint.arb(1)]) for row in maps]
            values = [2 * (f - to_ball(to_fraction(y))) for f, y in zip(logits, label, strict=True)]
            return values, [[2 * to_ball(v) for v in row[:-1]] for row in maps]
        chances, gains = self._probabilities[m].at(list(x))
        bce = self.loss is Loss.BCE
        targets = [int(v) for v in label] if bce else [int(c == int(label)) for c in range(len(chances))]
        return [p - t for p, t in zip(chances, targets, strict=True)], gains

    def _krawczyk(self) -> bool:
        """Whether ``y - C F(y) + (I - C F'(X)) (X - y)`` lies inside X = y +- radius."""
        centre = [[to_ball(v) for v in row] for row in self.centre.x]
        box = [[_hull(*side) for side in self.sides(m)] for m in range(self.centre.size)]
        values, middle = self._values(centre)
        _, wide = self._values(box)
        inverse = _approximate_inverse(middle)
        if inverse is None:
            return False
        move = _hull(-self.radius, self.radius)
        for i, weights in enumerate(inverse):
            moved = -_sum(weights, values)
            for k in range(len(self.free)):
                moved += (int(i == k) - _sum(weights, [row[k] for row in wide])) * move
            if not abs(moved) < to_ball(self.radius):
                return False
        return True


def _regions(network: ReluNetwork, passed: Forward, zero_sum: bool) -> list[Region]:
    patterns: list[Pattern] = [
        tuple(tuple(bool(v) for v in layer[:, m]) for layer in passed.patterns) for m in range(passed.samples)
    ]
    made = {p: region_of(network, p, zero_sum=zero_sum) for p in dict.fromkeys(patterns)}
    return [made[p] for p in patterns]


def _approximate_inverse(rows: Sequence[Sequence[Any]]) -> list[list[Any]] | None:
    """Of the midpoints, rows and columns scaled: any matrix would be right, this one is good."""
    middle = np.array([[float(v.mid()) for v in row] for row in rows]).reshape(len(rows), len(rows))
    scale = np.maximum(np.abs(middle).max(axis=1, initial=0.0), 1e-290)
    try:
        inverse = np.linalg.inv(middle / scale[:, None]) / scale[None, :]
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(inverse).all():
        return None
    return [[flint.arb(float(v)) for v in row] for row in inverse]


def _range(row: Array, sides: Sequence[tuple[Fraction, Fraction]]) -> tuple[Fraction, Fraction]:
    """The range of ``row [x ; 1]`` over a box."""
    low = high = row[-1]
    for rate, (lo, hi) in zip(row[:-1], sides, strict=True):
        low += rate * (lo if rate > 0 else hi)
        high += rate * (hi if rate > 0 else lo)
    return low, high


def _hull(low: Fraction, high: Fraction) -> Any:
    return to_ball(low).union(to_ball(high))


def _dot(row: Any, values: Sequence[Any]) -> Any:
    return sum((to_ball(c) * v for c, v in zip(row, values, strict=True) if c), flint.arb(0))


def _sum(left: Sequence[Any], right: Sequence[Any]) -> Any:
    return sum((a * b for a, b in zip(left, right, strict=True)), flint.arb(0))
