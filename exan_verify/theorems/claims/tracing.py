"""Numbers that remember how they came about: one run of a predicate stands for every point of a region.

A traced number is a rational value together with the rational function of the unknowns that gave it. Each
comparison that a program makes is recorded on the *path*, with the answer it had at the current point. The
same program gives the same answers at every point that satisfies the path's conditions, so one run covers all
of them; a solver is asked for points where the last answer differs (concolic execution; K. Sen, D. Marinov,
G. Agha, "CUTE: a concolic unit testing engine for C", 2005).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.network import to_fraction
from exan_verify.smt.question.terms import (
    FALSE,
    TRUE,
    Atom,
    Formula,
    Junction,
    Poly,
    conj,
    equal,
    less,
    negate,
)

Number = int | Fraction
ONE = Poly.constant(1)


@dataclass(slots=True)
class Path:
    """The answers that comparisons gave along one run, in order and without repetition.

    ``opaque``: the program looked at a value in a way that no condition describes, so that the run stands
    for its point alone; the text says how.
    """

    conditions: list[Formula] = field(default_factory=list)
    opaque: str = ""
    _known: set[str] = field(default_factory=set)

    def decide(self, formula: Formula, answer: bool) -> bool:
        """Record that ``formula`` has this answer at the current point; gives the answer back."""
        if formula in (TRUE, FALSE):
            return answer
        taken = formula if answer else negate(formula)
        key = repr(taken)
        if key not in self._known:
            self._known.add(key)
            self.conditions.append(taken)
        return answer

    def look(self, how: str) -> None:
        """Mark the run as standing for its point alone."""
        self.opaque = self.opaque or how


class Traced:
    """A rational number that is known as ``above / below``, polynomials in the unknowns with below > 0.

    Comparisons answer for the current value and are recorded. Anything that would lose the polynomials (a
    hash, a float) marks the path as opaque.
    """

    __slots__ = ("above", "below", "path", "value")

    def __init__(self, value: Fraction, above: Poly, below: Poly, path: Path) -> None:
        self.value = value
        self.above = above
        self.below = below
        self.path = path

    # ---- arithmetic

    def __add__(self, other: Any) -> Traced:
        right = self._lift(other)
        if right is None:
            return NotImplemented
        if self.below == right.below:
            return self._made(self.value + right.value, self.above + right.above, self.below)
        above = self.above * right.below + right.above * self.below
        return self._made(self.value + right.value, above, self.below * right.below)

    __radd__ = __add__

    def __neg__(self) -> Traced:
        return self._made(-self.value, -self.above, self.below)

    def __sub__(self, other: Any) -> Traced:
        right = self._lift(other)
        if right is None:
            return NotImplemented
        found: Traced = self + -right
        return found

    def __rsub__(self, other: Any) -> Traced:
        difference: Traced = -self + other
        return difference

    def __mul__(self, other: Any) -> Traced:
        right = self._lift(other)
        if right is None:
            return NotImplemented
        return self._made(self.value * right.value, self.above * right.above, self.below * right.below)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Traced:
        right = self._lift(other)
        if right is None:
            return NotImplemented
        if right == 0:
            raise ZeroDivisionError("division by zero")
        sign = -1 if right < 0 else 1  # recorded, so that denominators are positive all along the path
        above, below = self.above * right.below * sign, self.below * right.above * sign
        return self._made(self.value / right.value, above, below)

    def __rtruediv__(self, other: Any) -> Traced:
        left = self._lift(other)
        if left is None:
            return NotImplemented
        found: Traced = left / self
        return found

    def __pow__(self, power: int) -> Traced:
        found = self._made(Fraction(1), ONE, ONE)
        for _ in range(abs(power)):
            found = found * self
        return found if power >= 0 else 1 / found

    def __abs__(self) -> Traced:
        return -self if self < 0 else self

    def __pos__(self) -> Traced:
        return self

    # ---- comparisons

    def __eq__(self, other: object) -> bool:
        right = self._lift(other)
        if right is None:
            return False
        formula = equal(self.above * right.below, right.above * self.below)
        return self.path.decide(formula, self.value == right.value)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        right = self._lift(other)
        return NotImplemented if right is None else self._less(right)

    def __gt__(self, other: Any) -> bool:
        right = self._lift(other)
        return NotImplemented if right is None else right._less(self)

    def __le__(self, other: Any) -> bool:
        right = self._lift(other)
        return NotImplemented if right is None else not right._less(self)

    def __ge__(self, other: Any) -> bool:
        right = self._lift(other)
        return NotImplemented if right is None else not self._less(right)

    def __bool__(self) -> bool:
        return self != 0

    # ---- where the polynomials are lost

    def __hash__(self) -> int:
        self.path.look("a number was hashed (put into a set, a dict or a Counter)")
        return hash(self.value)

    def exact(self) -> Fraction:
        """The value at the current point."""
        self.path.look("the value itself was looked at")
        return self.value

    def __float__(self) -> float:
        self.path.look("a number was rounded to a float")
        return float(self.value)

    def __int__(self) -> int:
        self.path.look("a number was rounded to an integer")
        return int(self.value)

    def __repr__(self) -> str:
        return repr(self.value)

    # ---- helpers

    def equation(self, other: Traced | Number) -> Formula:
        """``self = other`` as a formula, without recording it."""
        right = self._lift(other)
        assert right is not None
        return equal(self.above * right.below, right.above * self.below)

    def _less(self, right: Traced) -> bool:
        formula = less(self.above * right.below, right.above * self.below)
        return self.path.decide(formula, self.value < right.value)

    def _made(self, value: Fraction, above: Poly, below: Poly) -> Traced:
        return Traced(value, above, below, self.path)

    def _lift(self, other: object) -> Traced | None:
        if isinstance(other, Traced):
            return other
        if isinstance(other, (int, float, Fraction, np.number)):
            exact = to_fraction(other)
            return Traced(exact, Poly.constant(exact), ONE, self.path)
        return None


def unknown(name: str, value: Fraction, path: Path) -> Traced:
    """An unknown with its value at the current point."""
    return Traced(value, Poly.variable(name), ONE, path)


def holds(formula: Formula, point: Mapping[str, Fraction]) -> bool:
    """Whether a formula of polynomials holds at a rational point, exactly."""
    if isinstance(formula, Junction):
        found = (holds(part, point) for part in formula.parts)
        return all(found) if formula.kind == "and" else any(found)
    assert isinstance(formula, Atom)
    value = formula.poly.at(point)
    tests = {"=": value == 0, "distinct": value != 0, "<": value < 0, "<=": value <= 0}
    return tests[formula.relation]


def all_hold(formulas: Sequence[Formula], point: Mapping[str, Fraction]) -> bool:
    """Whether all of them hold at a rational point."""
    return holds(conj(formulas), point)
