"""Which directions are not blocked: the cone ``{y : F y <= 0}`` in exact arithmetic.

A zero pre-activation may only fall, a pixel on a face of the box may only move inwards, a satisfied hinge
margin that is tied may only stay satisfied: each is one row of F. The cone is {0} or unbounded; its relative
interior moves everything that can move at all (docs/theory.md section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact.linalg import identity, multiply, nullspace
from exan_verify.exact.lp import Program, Status, solve


@dataclass(frozen=True, slots=True, kw_only=True)
class Cone:
    """``span`` (l, q): basis of the cone's linear span; ``inner`` (l,): a generic point of its relative
    interior (zero only when the cone is {0}).
    """

    span: Array
    inner: Array

    @property
    def dimension(self) -> int:
        """q, the dimension of the cone."""
        return int(self.span.shape[1])


def cone(functionals: Array, size: int, seed: int = 0) -> Cone:
    """The cone of y in Q^size with ``functionals @ y <= 0``; ``functionals`` (rows, size)."""
    rows = [row for row in functionals if row.any()]
    points: list[Array] = []
    implicit = []
    for row in rows:
        if any(row @ point < 0 for point in points):
            continue
        point = _descending(rows, row)
        if point is None:
            implicit.append(row)
        else:
            points.append(point)
    span = nullspace(np.array(implicit, dtype=object)) if implicit else identity(size)
    return Cone(span=span, inner=_generic(rows, implicit, points, span, seed))


def _descending(rows: list[Array], row: Array) -> Array | None:
    """A point of the cone at which ``row`` is negative, by an exact LP, or None when there is none."""
    program = Program.of(
        [-v for v in row],
        rows=[list(r) for r in (*rows, -row)],
        bounds=[0] * len(rows) + [1],
    )
    solution = solve(program)
    if solution.status is not Status.OPTIMAL or not solution.value or solution.point is None:
        return None
    return np.array(solution.point, dtype=object)


def _generic(rows: list[Array], implicit: list[Array], points: list[Array], span: Array, seed: int) -> Array:
    """The sum of the points, plus a random combination of the span too small to leave the cone."""
    size = span.shape[0]
    rng = Random(f"cone/{seed}")
    inner = np.full(size, Fraction(0), dtype=object)
    for point in points:
        inner = inner + point
    if not span.shape[1]:
        return inner
    weights = [[Fraction(rng.randint(1, 97) * rng.choice((-1, 1)))] for _ in range(span.shape[1])]
    wiggle = multiply(span, np.array(weights, dtype=object))[:, 0]
    if not points:
        return wiggle
    strict = [(row @ inner, row @ wiggle) for row in rows if not any(row is r for r in implicit)]
    room = min((-here / rate for here, rate in strict if rate > 0), default=Fraction(2))
    moved: Array = inner + wiggle * (min(room, Fraction(2)) / 2)
    return moved
