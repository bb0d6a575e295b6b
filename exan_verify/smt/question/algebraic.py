"""Exact real algebraic numbers for models: signs and zero tests of polynomials at algebraic points.

A point has generators a_1, a_2, ..., each the only root of an irreducible polynomial in an interval. An
element is a polynomial in them (:class:`exan_verify.smt.question.terms.Poly`). Its sign is read from balls as
soon as they exclude zero. That it *is* zero is proved by a separation bound: multiplication by the element on
Q[t_1, ..] / (m_1(t_1), ..) is a rational matrix of which the element's value is an eigenvalue, so the value
is a root of its characteristic polynomial, and a root closer to zero than every non-zero root is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from typing import Any

import flint

from exan_verify.errors import RangeError
from exan_verify.smt.question.terms import Monomial, Poly

MAX_DEGREE = 64
"""Largest dimension of the algebra of a point: beyond, zero tests are too slow to be worth it."""


@dataclass(frozen=True, slots=True)
class Root:
    """The only root of ``polynomial`` (integer coefficients, constant term first, irreducible over Q) in the
    closed interval [low, high]; the polynomial has degree at least 2, so the ends are no roots.
    """

    polynomial: tuple[int, ...]
    low: Fraction
    high: Fraction

    @classmethod
    def of(cls, coefficients: Sequence[Fraction], low: Fraction, high: Fraction) -> Root | Fraction:
        """The root of any polynomial that has exactly one root in [low, high]; rational where it is.

        Raises :class:`ValueError` when the interval does not isolate a root.
        """
        import sympy  # slow to load: only where an algebraic number comes up

        t = sympy.Symbol("t")
        whole = sympy.Poly([sympy.Rational(c.numerator, c.denominator) for c in coefficients[::-1]], t)
        ends = (
            sympy.Rational(low.numerator, low.denominator),
            sympy.Rational(high.numerator, high.denominator),
        )
        inside = [f for f, _ in whole.factor_list()[1] if f.count_roots(*ends)]
        if len(inside) != 1 or inside[0].count_roots(*ends) != 1:
            raise ValueError(f"the interval [{low}, {high}] does not isolate a root of {coefficients}")
        found = [int(c) for c in inside[0].clear_denoms()[1].primitive()[1].all_coeffs()[::-1]]
        if len(found) == 2:
            return Fraction(-found[0], found[1])
        return cls(tuple(found), low, high)

    def refined(self, bits: int) -> Root:
        """The same root in an interval of width at most 2^-bits (bisection with exact signs)."""
        low, high = self.low, self.high
        sign_low = self._sign(low)
        while (high - low) * (1 << bits) > 1:
            middle = (low + high) / 2
            if self._sign(middle) == sign_low:
                low = middle
            else:
                high = middle
        return Root(self.polynomial, low, high)

    def _sign(self, at: Fraction) -> int:
        value = Fraction(0)
        for c in self.polynomial[::-1]:
            value = value * at + c
        return (value > 0) - (value < 0)


@dataclass(slots=True)
class Point:
    """Named generators, and exact tests on polynomials in them (constants need no generator)."""

    roots: dict[str, Root] = field(default_factory=dict)
    _bits: int = 64

    @property
    def rational(self) -> bool:
        """Whether there are no generators."""
        return not self.roots

    def sign(self, element: Poly) -> int:
        """-1, 0 or 1, exactly. Raises :class:`RangeError` when the algebra is too large to test zero."""
        if element.is_constant:
            return (element.value > 0) - (element.value < 0)
        bound: Fraction | None = None
        while True:
            ball = self.ball(element)
            if not ball.contains(0):
                return 1 if ball > 0 else -1
            if bound is None:
                bound = self._separation(element)
            if bound is None or ball.abs_upper() < flint.arb(flint.fmpq(bound.numerator, bound.denominator)):
                return 0
            self._bits *= 2

    def ball(self, element: Poly) -> Any:
        """A real ball (``flint.arb``) that contains the value, at the current precision."""
        self.roots = {name: root.refined(self._bits) for name, root in self.roots.items()}
        with flint.ctx.workprec(2 * self._bits):
            values = {n: _interval(r.low, r.high) for n, r in self.roots.items()}
            return element.evaluate(values, lambda q: flint.arb(flint.fmpq(q.numerator, q.denominator)))

    def _separation(self, element: Poly) -> Fraction | None:
        """A positive lower bound for |value| unless the value is zero; None when it is surely zero."""
        used = {n: r for n, r in self.roots.items() if n in element.variables()}
        size = 1
        for root in used.values():
            size *= len(root.polynomial) - 1
        if size > MAX_DEGREE:
            raise RangeError(f"algebraic numbers of joint degree {size}, more than {MAX_DEGREE}")
        polynomial = _multiplication(element, used).charpoly()
        coefficients = [Fraction(int(c.p), int(c.q)) for c in polynomial.coeffs()]
        tail = [c for k, c in enumerate(coefficients) if any(coefficients[: k + 1])]
        if len(tail) == 1:
            return None
        # Cauchy's bound for the reversed polynomial
        return abs(tail[0]) / (abs(tail[0]) + max(abs(c) for c in tail[1:]))


def _interval(low: Fraction, high: Fraction) -> Any:
    ends = [flint.arb(flint.fmpq(v.numerator, v.denominator)) for v in (low, high)]
    return ends[0].union(ends[1])


def _multiplication(element: Poly, roots: Mapping[str, Root]) -> Any:
    """The matrix of multiplication by ``element`` on the tensor product of the generators' fields."""
    order = sorted(roots)
    basis = [
        tuple(name for name, k in zip(order, powers, strict=True) for _ in range(k))
        for powers in product(*(range(len(roots[n].polynomial) - 1) for n in order))
    ]
    position = {m: k for k, m in enumerate(basis)}
    rows = []
    for monomial in basis:
        image = _reduce(element * Poly({monomial: Fraction(1)}), roots)
        row = [flint.fmpq(0)] * len(basis)
        for m, c in image.terms.items():
            row[position[m]] = flint.fmpq(c.numerator, c.denominator)
        rows.append(row)
    return flint.fmpq_mat(rows)


def _reduce(element: Poly, roots: Mapping[str, Root]) -> Poly:
    """Rewrite a^n by a's polynomial of degree n until no such power is left."""
    while True:
        found = _excess(element, roots)
        if found is None:
            return element
        monomial, name = found
        polynomial = roots[name].polynomial
        n = len(polynomial) - 1
        rest = list(monomial)
        for _ in range(n):
            rest.remove(name)
        factor = element.terms[monomial]
        lower = Poly(
            {
                tuple(sorted([*rest, *[name] * k])): Fraction(-c, polynomial[n]) * factor
                for k, c in enumerate(polynomial[:n])
                if c
            }
        )
        element = element + Poly({monomial: -factor}) + lower


def _excess(element: Poly, roots: Mapping[str, Root]) -> tuple[Monomial, str] | None:
    for monomial in element.terms:
        for name, root in roots.items():
            if monomial.count(name) >= len(root.polynomial) - 1:
                return monomial, name
    return None
