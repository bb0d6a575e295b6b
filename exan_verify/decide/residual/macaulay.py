"""All solutions of a small system of quadrics from one rank over F_p (docs/theory.md C4).

The rows of the Macaulay matrix of degree D are the equations times all monomials of degree D - 2, in
homogenised form; its columns are the monomials of degree D. With k known solutions whose evaluation vectors
on the monomials of degree D - 1 are independent, rank (columns - k) over F_p leaves no other solution, in
any extension field.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations_with_replacement
from math import comb

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.decide.residual.quadratic import Quadrics
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.modular import PRIME, inverse

Monomial = tuple[int, ...]
Point = tuple[int, ...]

MAX_COLUMNS = 1500
"""Largest Macaulay matrix tried: about a second of modular elimination."""

MAX_DEGREE = 7


def columns_at(variables: int, degree: int) -> int:
    """Number of monomials of degree at most ``degree``."""
    return comb(variables + degree, degree)


def settled_at(system: Quadrics, points: Sequence[tuple[Fraction, ...]], degree: int) -> bool:
    """Whether the rank at ``degree`` shows that ``points`` are all solutions."""
    residues = [_point_mod(point) for point in points]
    if not _independent(residues, system.variables, degree - 1):
        return False
    return rank_at(system, degree) == columns_at(system.variables, degree) - len(points)


def rank_at(system: Quadrics, degree: int) -> int:
    """Rank over F_p of the Macaulay matrix of that degree."""
    columns, rows = _sparse(system, degree)
    if not rows:
        return 0
    entries = [0] * (len(rows) * len(columns))
    for i, row in enumerate(rows):
        for monomial, value in row.items():
            entries[i * len(columns) + columns[monomial]] = value
    return int(flint.nmod_mat(len(rows), len(columns), entries, PRIME).rank())


def null_vectors(system: Quadrics, degree: int) -> tuple[dict[Monomial, int], Array]:
    """Null space over Q of the Macaulay matrix: the columns' places, and a basis (columns, dim)."""
    columns = {m: k for k, m in enumerate(_monomials(system.variables, degree))}
    rows = []
    for multiplier in _monomials(system.variables, degree - 2):
        for equation in system.equations:
            row = np.full(len(columns), 0, dtype=object)
            for pair, value in equation.items():
                row[columns[tuple(sorted(pair + multiplier))]] = value
            rows.append(row)
    matrix = np.array(rows, dtype=object) if rows else np.zeros((0, len(columns)), dtype=object)
    return columns, nullspace(matrix)


def _sparse(system: Quadrics, degree: int) -> tuple[dict[Monomial, int], list[dict[Monomial, int]]]:
    columns = {m: k for k, m in enumerate(_monomials(system.variables, degree))}
    reduced = [
        {pair: v.numerator * inverse(v.denominator) % PRIME for pair, v in equation.items()}
        for equation in system.equations
    ]
    rows = [
        {tuple(sorted(pair + multiplier)): value for pair, value in equation.items()}
        for multiplier in _monomials(system.variables, degree - 2)
        for equation in reduced
    ]
    return columns, rows


def _monomials(variables: int, degree: int) -> list[Monomial]:
    """Products of ``degree`` of the variables 0 .. n, variable 0 being 1."""
    return list(combinations_with_replacement(range(variables + 1), degree))


def _independent(points: list[Point], variables: int, degree: int) -> bool:
    if not points:
        return True
    monomials = _monomials(variables, degree)
    rows = []
    for point in points:
        for monomial in monomials:
            value = 1
            for index in monomial:
                value = value * point[index] % PRIME
            rows.append(value)
    return int(flint.nmod_mat(len(points), len(monomials), rows, PRIME).rank()) == len(points)


def _point_mod(point: tuple[Fraction, ...]) -> Point:
    return (1, *(v.numerator * inverse(v.denominator) % PRIME for v in point))
