"""Branch and prune over a box: every zero of an overdetermined smooth system is one of the known ones.

A box is dropped when a component, or a preconditioned mean value form, is away from zero; it is done when it
holds one known zero and the preconditioned Jacobian is within distance one of the identity over the whole
box, so that the map is injective there. Anything else is cut in two. The tree is written down in preorder:
a digit cuts that axis in the middle, ``x`` drops, ``k`` is done (docs/theory.md, appendix).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.network import Array
from exan_verify.decide.residual.balls import PRECISION, Balls
from exan_verify.exact.softmax import to_ball

System = Callable[[Balls], tuple[Balls, list[Balls]]]
Box = tuple[tuple[Fraction, Fraction], ...]
Point = tuple[Fraction, ...]

MARGIN = 1.02
"""Tests are passed with this margin, so that a checker with other rounding passes them too."""

LETTERS = "0123456789"


def cover(system: System, box: Box, known: list[Point], budget: Budget, limit: int) -> str | None:
    """The tree, or None when ``limit`` boxes or the budget did not suffice."""
    out: list[str] = []
    stack = [box]
    with flint.ctx.workprec(PRECISION):
        while stack:
            current = stack.pop()
            limit -= 1
            budget.spend(2000 * len(box))
            if limit < 0 or budget.exhausted:
                return None
            word, axis = _judge(system, current, [p for p in known if _inside(p, current)])
            if word is None:
                return None
            out.append(word)
            if axis is not None:
                stack += _halves(current, axis)[::-1]
    return "".join(out)


def _judge(system: System, box: Box, known: list[Point]) -> tuple[str | None, int | None]:
    """The letter for a box, and the axis to cut; no letter for a point that is not decided."""
    centre = [(lo + hi) / 2 for lo, hi in box]
    values, jacobian = system([_ball(lo, hi) for lo, hi in box])
    if not known and any(_away(v) for v in values):
        return "x", None
    if not box:
        return ("k", None) if known else (None, None)
    if len(known) < 2 and all(v.is_finite() for row in jacobian for v in row):
        inverse = _preconditioner(jacobian)
        product = [[_dot(row, column) for column in zip(*jacobian, strict=True)] for row in inverse]
        if known and _contracts(product):
            return "k", None
        if not known and _mean_value_away(system, centre, box, inverse, jacobian, product):
            return "x", None
    axis = int(np.argmax([float(hi - lo) for lo, hi in box]))
    return LETTERS[axis], axis


def _mean_value_away(
    system: System,
    centre: list[Fraction],
    box: Box,
    inverse: list[Balls],
    jacobian: list[Balls],
    product: list[Balls],
) -> bool:
    """Whether 0 is outside ``f(c) + J(box) (box - c)``, raw or preconditioned."""
    values, _ = system([to_ball(v) for v in centre])
    steps = [_ball(lo - c, hi - c) for (lo, hi), c in zip(box, centre, strict=True)]
    if any(_away(v + _dot(row, steps)) for v, row in zip(values, jacobian, strict=True)):
        return True
    return any(
        _away(_dot(row, values) + _dot(changes, steps)) for row, changes in zip(inverse, product, strict=True)
    )


def _preconditioner(jacobian: list[Balls]) -> list[Balls]:
    """The pseudo-inverse of the midpoints, exactly as floats: any matrix would be right, this one is good."""
    middle: Array = np.array([[float(v.mid()) for v in row] for row in jacobian])
    return [[flint.arb(float(v)) for v in row] for row in np.linalg.pinv(middle)]


def _contracts(product: list[Balls]) -> bool:
    """Row sums of ``|I - C J|`` below one."""
    for i, row in enumerate(product):
        total = flint.arb(0)
        for j, value in enumerate(row):
            total += abs(value - int(i == j))
        if not total * MARGIN < 1:
            return False
    return True


def _away(value: Any) -> bool:
    """Whether the ball misses zero, with a margin."""
    return bool(abs(value.mid()) > value.rad() * MARGIN)


def _inside(point: Point, box: Box) -> bool:
    return all(lo <= v <= hi for v, (lo, hi) in zip(point, box, strict=True))


def _halves(box: Box, axis: int) -> list[Box]:
    lo, hi = box[axis]
    middle = (lo + hi) / 2
    return [(*box[:axis], part, *box[axis + 1 :]) for part in ((lo, middle), (middle, hi))]


def _ball(lo: Fraction, hi: Fraction) -> Any:
    return to_ball(lo).union(to_ball(hi))


def _dot(left: Any, right: Any) -> Any:
    return sum((x * y for x, y in zip(left, right, strict=True)), flint.arb(0))
