"""How far around a known solution a polynomial system has no other one, in exact arithmetic.

With F(u) = 0 and F of degree 2, F(u + h) = J h + B(h, h) exactly. If L J = I then another solution u + h
satisfies h = -L B(h, h), hence |h| <= beta |h|^2 in the maximum norm, where beta bounds the coefficient
sums of L B. So h = 0 or |h| >= 1 / beta (the argument of Newton and Kantorovich, without its constants
because the system is quadratic). Higher terms are bounded likewise on the cube |h| < 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from exan_verify.exact import linalg
from exan_verify.network import Array
from exan_verify.smt.terms import Poly, total


def isolation(equations: Sequence[Poly], solution: Mapping[str, Fraction]) -> Fraction | None:
    """Half width r of an open cube around ``solution`` without another solution; None when the Jacobian has
    not full column rank; :data:`EVERYWHERE` for a linear system of full rank.

    Raises ``ValueError`` when ``solution`` does not solve the equations.
    """
    if any(e.at(solution) for e in equations):
        raise ValueError("the point to isolate does not solve the equations")
    names = sorted(solution)
    moved = [shifted(e, solution) for e in equations]
    jacobian = np.array(
        [[s.terms.get((n,), Fraction(0)) for n in names] for s in moved], dtype=object
    ).reshape(len(moved), len(names))
    left = left_inverse(jacobian)
    if left is None:
        return None
    tails = [Poly({m: c for m, c in s.terms.items() if len(m) > 1}) for s in moved]
    beta = max(
        (sum(map(abs, combined.terms.values()), Fraction(0)) for combined in _combine(left, tails)),
        default=Fraction(0),
    )
    if not beta:
        return EVERYWHERE
    reach = min(1 / beta, EVERYWHERE / 2)
    quadratic = all(t.degree <= 2 for t in tails)
    return reach if quadratic else min(reach, Fraction(1))


EVERYWHERE = Fraction(2**64)
"""Stands for an infinite radius: no other solution at all (a radius this large is treated as such only when
it is returned here, and smaller ones are never rounded up to it)."""


def left_inverse(matrix: Array) -> Array | None:
    """L with L @ matrix = I over Q, that of least row norms, (J^T J)^-1 J^T; None if there is none."""
    gram = linalg.multiply(matrix.T, matrix)
    return linalg.solve(gram, matrix.T)


def _combine(left: Array, polynomials: Sequence[Poly]) -> list[Poly]:
    return [total(p * c for c, p in zip(row, polynomials, strict=True) if c) for row in left]


def shifted(polynomial: Poly, origin: Mapping[str, Fraction]) -> Poly:
    """The polynomial in the displacement from ``origin``, under the same names."""
    moved = {n: Poly.variable(n) + v for n, v in origin.items()}
    return polynomial.evaluate(moved, Poly.constant)
