"""The rational solutions of a small system of quadrics with finitely many solutions.

Let Z span the null space of the Macaulay matrix of degree D. When its rows for the monomials of degree D - 1
have the same rank as Z (a flat extension), every solution w, over any extension field, has its evaluation
vector Z c with c a common eigenvector of the multiplication matrices, whose eigenvalues are the coordinates
of w. A random rational combination of them separates the solutions; its rational eigenvalues give the
rational ones. These are candidates only: :func:`exan_verify.decide.residual.macaulay.settled_at` concludes.
"""

from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.decide.residual.macaulay import columns_at, null_vectors
from exan_verify.decide.residual.quadratic import Quadrics
from exan_verify.exact.linalg import (
    characteristic_polynomial,
    multiply,
    nullspace,
    pivots,
    rational_roots,
    solve,
)

MAX_EXACT_COLUMNS = 56
"""Largest Macaulay matrix whose null space is computed over Q."""


def rational_points(system: Quadrics, seed: int) -> list[tuple[Fraction, ...]]:
    """Rational solutions found, each verified exactly; perhaps not all."""
    degree = 2
    while columns_at(system.variables, degree) <= MAX_EXACT_COLUMNS:
        operators = _multiplication(system, degree)
        if operators is not None:
            return [p for p in _eigenpoints(operators, seed) if system.holds(p)]
        degree += 1
    return []


def _multiplication(system: Quadrics, degree: int) -> list[Array] | None:
    """Multiplication by each variable on the null space, or None when it is not flat at this degree."""
    columns, null = null_vectors(system, degree)
    size = null.shape[1]
    if size == 0:
        return []
    low = [m for m in columns if m[0] == 0]
    below = null[[columns[m] for m in low]]
    chosen = pivots(below.T)
    if len(chosen) < size:
        return None
    base = [low[k] for k in chosen]
    square = null[[columns[m] for m in base]]
    operators = []
    for j in range(1, system.variables + 1):
        shifted = null[[columns[tuple(sorted((*m[1:], j)))] for m in base]]
        operator = solve(square, shifted)
        if operator is None:
            return None
        operators.append(operator)
    return operators


def _eigenpoints(operators: list[Array], seed: int) -> list[tuple[Fraction, ...]]:
    if not operators:
        return []
    rng = Random(f"points/{seed}")
    mixed = sum((op * Fraction(rng.randint(1, 97)) for op in operators[1:]), operators[0])
    found = []
    for root, _ in rational_roots(characteristic_polynomial(mixed)):
        space = nullspace(_minus(mixed, root))
        if space.shape[1] == 1:
            found.append(tuple(_eigenvalue(operator, space) for operator in operators))
    return found


def _minus(matrix: Array, root: Fraction) -> Array:
    out = matrix.copy()
    for k in range(len(out)):
        out[k, k] -= root
    return out


def _eigenvalue(operator: Array, vector: Array) -> Fraction:
    """The Rayleigh quotient of an eigenvector."""
    image = multiply(operator, vector)
    place = next(k for k in range(len(vector)) if vector[k, 0] != 0)
    value: Fraction = image[place, 0] / vector[place, 0]
    return value


def as_matrix(rows: tuple[tuple[Fraction, ...], ...]) -> Array:
    """Nested Fractions as an object array (rows, cols)."""
    out = np.empty((len(rows), len(rows[0])), dtype=object)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            out[i, j] = value
    return out
