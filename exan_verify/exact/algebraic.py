"""Exact arithmetic with real algebraic numbers, each a root of an integer polynomial in a rational interval.

An element is a polynomial in the generators, reduced by their polynomials: a reduced element without terms is
zero, whatever the polynomials' factors. Signs of the others are read from balls; an element that is zero
without reducing to nothing has no sign, and :class:`UndecidedSignError` says so (docs/theory.md, appendix C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import flint

from exan_verify.exact.softmax import to_ball

MOST_BITS = 4096
MAX_DEGREE = 64

Powers = tuple[int, ...]
Element = Mapping[Powers, Fraction]
"""Coefficients by the powers of the generators; zero is the empty mapping."""
Row = list[Element]


class UndecidedSignError(ArithmeticError):
    """A sign could not be told at the highest precision."""


@dataclass(slots=True)
class Root:
    """A root of ``polynomial`` (integers, constant term first, degree n) between ``low`` and ``high``, at
    which the polynomial has opposite signs. Refinement by bisection follows one and the same root.
    """

    polynomial: tuple[int, ...]
    low: Fraction
    high: Fraction

    def changes_sign(self) -> bool:
        """Whether the interval holds a root by the intermediate value theorem."""
        return self.low < self.high and self._sign(self.low) * self._sign(self.high) < 0

    def refine(self, bits: int) -> None:
        """Halve the interval until its width is at most 2^-bits."""
        left = self._sign(self.low)
        while (self.high - self.low) * (1 << bits) > 1:
            middle = (self.low + self.high) / 2
            sign = self._sign(middle)
            if sign == 0:
                self.low = self.high = middle
            elif sign == left:
                self.low = middle
            else:
                self.high = middle

    def _sign(self, at: Fraction) -> int:
        # a ball tells the sign but at a rational root; exact values have the degree times as many bits
        with flint.ctx.workprec(2 * (at.numerator.bit_length() + at.denominator.bit_length()) + 128):
            place, ball = to_ball(at), flint.arb(0)
            for c in self.polynomial[::-1]:
                ball = ball * place + c
            if not ball.contains(0):
                return 1 if ball > 0 else -1
        value = flint.fmpz_poly(list(self.polynomial))(flint.fmpq(at.numerator, at.denominator))
        return int(value > 0) - int(value < 0)


@dataclass(slots=True)
class Field:
    """Reduced polynomials in a few roots."""

    roots: tuple[Root, ...]
    _bits: int = field(default=64)

    def valid(self) -> bool:
        """Whether every generator is a root that exists, of degree two or more, and all is of moderate
        size.
        """
        size = 1
        for root in self.roots:
            if len(root.polynomial) < 3 or not root.polynomial[-1] or not root.changes_sign():
                return False
            size *= len(root.polynomial) - 1
        return size <= MAX_DEGREE

    def constant(self, value: Fraction) -> Element:
        """A rational number."""
        return {(0,) * len(self.roots): value} if value else {}

    def plus(self, left: Element, right: Element, factor: Fraction = Fraction(1)) -> Element:
        """``left + factor * right``."""
        out = dict(left)
        for powers, c in right.items():
            total = out.get(powers, Fraction(0)) + factor * c
            if total:
                out[powers] = total
            else:
                out.pop(powers, None)
        return out

    def times(self, left: Element, right: Element) -> Element:
        """The reduced product."""
        out: dict[Powers, Fraction] = {}
        for a, u in left.items():
            for b, v in right.items():
                key = tuple(i + j for i, j in zip(a, b, strict=True))
                out[key] = out.get(key, Fraction(0)) + u * v
        return self.reduced(out)

    def reduced(self, element: Element) -> Element:
        """No power of a generator as high as its degree is left."""
        out = {p: c for p, c in element.items() if c}
        for i, root in enumerate(self.roots):
            degree = len(root.polynomial) - 1
            while True:
                high = max((p for p in out if p[i] >= degree), key=lambda p: p[i], default=None)
                if high is None:
                    break
                factor = out.pop(high) / root.polynomial[-1]
                for k, c in enumerate(root.polynomial[:-1]):
                    lower = (*high[:i], high[i] - degree + k, *high[i + 1 :])
                    total = out.get(lower, Fraction(0)) - factor * c
                    if total:
                        out[lower] = total
                    else:
                        out.pop(lower, None)
        return out

    def sign(self, element: Element) -> int:
        """-1, 0 or 1 of a reduced element; raises :class:`UndecidedSignError`."""
        if not element:
            return 0
        if not self.roots:
            (value,) = element.values()
            return 1 if value > 0 else -1
        while True:
            with flint.ctx.workprec(2 * self._bits):
                ball = self._ball(element)
                if not ball.contains(0):
                    return 1 if ball > 0 else -1
            if self._bits >= MOST_BITS:
                raise UndecidedSignError(f"an algebraic number is within 2^-{MOST_BITS} of zero")
            self._bits *= 2

    def _ball(self, element: Element) -> Any:
        values = []
        for root in self.roots:
            root.refine(self._bits)
            values.append(to_ball(root.low).union(to_ball(root.high)))
        total = flint.arb(0)
        for powers, c in element.items():
            term = to_ball(c)
            for value, power in zip(values, powers, strict=True):
                term *= value**power
            total += term
        return total
