"""How far around a known solution a polynomial system has no other one, in exact arithmetic.

With F(u) = 0 and F of degree 2, F(u + h) = J h + B(h, h) exactly. For any L another solution u + h satisfies
h = (I - L J) h - L B(h, h), hence |h| <= eps |h| + beta |h|^2 in the maximum norm, where eps bounds I - L J
and beta the coefficient sums of L B. So h = 0 or |h| >= (1 - eps) / beta (the argument of Newton and
Kantorovich, without its constants because the system is quadratic). Higher terms are bounded likewise on the
cube |h| < 1. L is a pseudo-inverse in floating point, whose short numbers keep this fast; an exact one where
J is small and that one is not good enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact import linalg
from exan_verify.smt.question.terms import Poly, total


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
    tails = [Poly({m: c for m, c in s.terms.items() if len(m) > 1}) for s in moved]
    for left in left_inverses(jacobian):
        defect = linalg.multiply(left, jacobian) - linalg.identity(len(names))
        slack = 1 - max((sum(map(abs, row), Fraction(0)) for row in defect), default=Fraction(0))
        if slack > 0:
            beta = max(
                (sum(map(abs, combined.terms.values()), Fraction(0)) for combined in _combine(left, tails)),
                default=Fraction(0),
            )
            if not beta:
                return EVERYWHERE
            reach = min(slack / beta, EVERYWHERE / 2)
            return reach if all(t.degree <= 2 for t in tails) else min(reach, Fraction(1))
    return None


EVERYWHERE = Fraction(2**64)
"""Stands for an infinite radius: no other solution at all (a radius this large is treated as such only when
it is returned here, and smaller ones are never rounded up to it)."""


MAX_EXACT = 12
"""Columns of the largest matrix that is inverted over Q: a second at this size."""


def left_inverses(matrix: Array) -> Iterator[Array]:
    """Candidates L for L @ matrix = I: the pseudo-inverse in floating point, then (J^T J)^-1 J^T over Q if
    that exists and the matrix is small.
    """
    # rows to unit size: floats hold neither very large nor very small numbers
    sizes = [max(map(abs, row), default=Fraction(0)) or Fraction(1) for row in matrix]
    scaled = np.array([[float(v / size) for v in row] for row, size in zip(matrix, sizes, strict=True)])
    with suppress(np.linalg.LinAlgError):
        inverse = np.linalg.pinv(scaled.reshape(matrix.shape))
        exact = [[Fraction(float(v)) / size for v, size in zip(row, sizes, strict=True)] for row in inverse]
        yield np.array(exact, dtype=object).reshape(matrix.shape[::-1])
    if matrix.shape[1] <= MAX_EXACT:
        gram = linalg.multiply(matrix.T, matrix)
        left = linalg.solve(gram, matrix.T)
        if left is not None:
            yield left


def _combine(left: Array, polynomials: Sequence[Poly]) -> list[Poly]:
    return [total(p * c for c, p in zip(row, polynomials, strict=True) if c) for row in left]


def shifted(polynomial: Poly, origin: Mapping[str, Fraction]) -> Poly:
    """The polynomial in the displacement from ``origin``, under the same names."""
    moved = {n: Poly.variable(n) + v for n, v in origin.items()}
    return polynomial.evaluate(moved, Poly.constant)
