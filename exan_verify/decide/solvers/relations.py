"""Roots that lie in the field of an earlier root, as polynomials in it: found by LLL, proved exactly.

Sums of conjugates reduce to nothing only when they are written in one root (docs/theory.md CB10). A
relation ``c s = a_0 + a_1 r + ...`` is guessed by lattice reduction (Lenstra, Lenstra and Lovasz, 1982) and
accepted when the other root's polynomial vanishes at it and its value lies in the other root's interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import flint

from exan_verify.exact.algebraic import Element, Field, Root, UndecidedSignError

BITS = 240


def in_field(first: Root, other: Root) -> Element | None:
    """``other`` as a polynomial in ``first``, keys ``(power,)``; None where none is found.

    ``other`` must be the only root of its polynomial in its interval.
    """
    degree = len(first.polynomial) - 1
    coefficients = _relation(_middle(first), _middle(other), degree)
    if coefficients is None:
        return None
    field = Field((first,))
    guess: Element = {(k,): c for k, c in enumerate(coefficients) if c}
    value: Element = {}
    for c in other.polynomial[::-1]:
        value = field.plus(field.times(value, guess), field.constant(Fraction(c)))
    if value:
        return None
    try:
        low = field.sign(field.plus(guess, field.constant(other.low), Fraction(-1)))
        high = field.sign(field.plus(guess, field.constant(other.high), Fraction(-1)))
    except UndecidedSignError:
        return None
    return guess if low >= 0 >= high else None


def _relation(value: Fraction, target: Fraction, degree: int) -> Sequence[Fraction] | None:
    """Rationals a_k with ``target = sum a_k value^k``, nearly."""
    numbers = [value**k for k in range(degree)] + [target]
    size = degree + 1
    rows = [
        [int(i == j) for j in range(size)] + [round(number * 2**BITS)] for i, number in enumerate(numbers)
    ]
    shortest = flint.fmpz_mat(rows).lll()
    found = [int(shortest[0, j]) for j in range(size)]
    if not found[-1]:
        return None
    return [Fraction(-c, found[-1]) for c in found[:-1]]


def _middle(root: Root) -> Fraction:
    copy = Root(root.polynomial, root.low, root.high)
    copy.refine(BITS + 20)
    return (copy.low + copy.high) / 2
