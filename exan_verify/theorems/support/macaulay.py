"""Evaluation vectors and Macaulay matrices of polynomials given by exponents (docs/theory.md C4).

Written for the statements, apart from the engine's and the kernel's code, so that the three can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact.linalg import rank, rank_mod
from exan_verify.exact.modular import PRIME

Monomial = tuple[int, ...]
"""Exponents, one per unknown."""


@cache
def monomials(variables: int, degree: int) -> tuple[Monomial, ...]:
    """All monomials of degree at most ``degree``."""
    if variables == 0:
        return ((),)
    return tuple(m for m in product(range(degree + 1), repeat=variables) if sum(m) <= degree)


def value(monomial: Monomial, point: Sequence[Fraction]) -> Fraction:
    """The monomial at a point."""
    out = Fraction(1)
    for exponent, x in zip(monomial, point, strict=True):
        out *= x**exponent
    return out


def evaluation_rank(points: Sequence[Sequence[Fraction]], degree: int) -> int:
    """Rank over Q of the points' vectors of monomials of degree at most ``degree``."""
    if not points or degree < 0:
        return 0
    columns = monomials(len(points[0]), degree)
    return rank(np.array([[value(m, point) for m in columns] for point in points], dtype=object))


def macaulay_rank(equations: Sequence[Mapping[Monomial, Fraction]], variables: int, degree: int) -> int:
    """Rank mod p of all multiples of the equations up to ``degree``."""
    place = {m: k for k, m in enumerate(monomials(variables, degree))}
    rows: list[Array] = []
    for equation in equations:
        own = max((sum(m) for m in equation), default=0)
        reduced = {m: v.numerator * pow(v.denominator, -1, PRIME) % PRIME for m, v in equation.items()}
        for factor in monomials(variables, degree - own):
            row = np.zeros(len(place), dtype=np.uint64)
            for m, v in reduced.items():
                row[place[tuple(a + b for a, b in zip(m, factor, strict=True))]] = v
            rows.append(row)
    return rank_mod(np.array(rows, dtype=np.uint64).reshape(len(rows), len(place)))
