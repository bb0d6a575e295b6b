"""Exact linear algebra, thin over python-flint: ranks, null spaces and solutions over F_p and Q."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import lcm
from typing import Any, TypeVar

import flint
import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array, to_fraction
from exan_verify.exact.apart import apart
from exan_verify.exact.modular import PRIME, Residues

_LONG = 1.0
"""Seconds that one elimination may take in this process, where nothing can interrupt it."""


_FEW = 64
"""Entries whose length is not looked at."""

_Answer = TypeVar("_Answer")


def identity(size: int) -> Array:
    """The identity matrix (size, size) of Fractions."""
    out = np.full((size, size), Fraction(0), dtype=object)
    np.fill_diagonal(out, Fraction(1))
    return out


def rank_mod(matrix: Residues) -> int:
    """Rank over F_p of residues (rows, cols): a proved lower bound of the rank over the reals."""
    return _called(rank_seconds(*matrix.shape), _rank_mod, matrix)


def rank_seconds(rows: int, cols: int) -> float:
    """About how long :func:`rank_mod` takes: to read the entries, and to eliminate."""
    return rows * cols * (6e-7 + 4e-10 * min(rows, cols))


def _rank_mod(matrix: Residues) -> int:
    rows, cols = matrix.shape
    if rows == 0 or cols == 0:
        return 0
    return int(flint.nmod_mat(rows, cols, matrix.reshape(-1).tolist(), PRIME).rank())


def nullspace_mod(matrix: Residues) -> Residues:
    """Basis of the right null space over F_p of residues (rows, cols), one column (cols,) per vector."""
    return _called(rank_seconds(*matrix.shape), _nullspace_mod, matrix)


def _nullspace_mod(matrix: Residues) -> Residues:
    rows, cols = matrix.shape
    basis, nullity = flint.nmod_mat(rows, cols, matrix.reshape(-1).tolist(), PRIME).nullspace()
    found = np.array([int(v) for v in basis.entries()], dtype=np.uint64).reshape(cols, -1)
    return found[:, :nullity]


def rank(matrix: Array) -> int:
    """Rank over Q of a rational matrix (rows, cols)."""
    return _called(_elimination(matrix), _rank, matrix)


def _rank(matrix: Array) -> int:
    return int(_integer_matrix(matrix).rank())


def pivots(matrix: Array) -> list[int]:
    """Indices of the first maximal set of independent columns of a rational matrix."""
    return _called(_elimination(matrix), _pivots, matrix)


def _pivots(matrix: Array) -> list[int]:
    reduced, _, found = _integer_matrix(matrix).rref()
    columns, row = [], 0
    for col in range(matrix.shape[1]):
        if row < found and reduced[row, col] != 0:
            columns.append(col)
            row += 1
    return columns


def nullspace(matrix: Array) -> Array:
    """Basis (cols, dim) of the right null space of a rational matrix (rows, cols), as Fractions."""
    return _called(_elimination(matrix), _nullspace, matrix)


def _nullspace(matrix: Array) -> Array:
    basis, nullity = _integer_matrix(matrix).nullspace()
    cols = matrix.shape[1]
    out = np.empty((cols, nullity), dtype=object)
    for i in range(cols):
        for k in range(nullity):
            out[i, k] = Fraction(int(basis[i, k]))
    return out


def solve(matrix: Array, right: Array) -> Array | None:
    """The unique X with ``matrix @ X = right`` over Q, or None.

    ``matrix`` (rows, k) must have full column rank; None when it has not, or when no solution exists.
    """
    k = matrix.shape[1]
    return _called(1e-9 * k**3 * max(8, right.shape[1]) * _bits(matrix), _solve, matrix, right)


def _solve(matrix: Array, right: Array) -> Array | None:
    rows, k = matrix.shape
    chosen = _independent_rows(matrix)
    if len(chosen) < k:
        return None
    square = _rational_matrix(matrix[chosen])
    solution = square.solve(_rational_matrix(right[chosen]))
    if rows > k and _rational_matrix(matrix) * solution != _rational_matrix(right):
        return None
    return _from_flint(solution)


def _independent_rows(matrix: Array) -> list[int]:
    """A maximal set of independent rows: independent mod p where that is enough, else over Q, which has long
    numbers on the way.
    """
    rows, k = matrix.shape
    reduced, found = flint.nmod_mat(_integer_matrix(matrix.T), PRIME).rref()
    if found < k:
        return pivots(matrix.T)
    chosen: list[int] = []
    for column in range(rows):
        if len(chosen) < k and int(reduced[len(chosen), column]) != 0:
            chosen.append(column)
    return chosen


def multiply(left: Array, right: Array) -> Array:
    """The product of rational matrices (rows, k) and (k, cols) as Fractions."""
    seconds = 2e-8 * left.size * right.shape[1] + 3e-6 * (left.size + right.size)
    return _called(seconds, _multiply, left, right)


def _multiply(left: Array, right: Array) -> Array:
    return _from_flint(_rational_matrix(left) * _rational_matrix(right))


def rational_roots(coefficients: Sequence[Fraction]) -> list[tuple[Fraction, int]]:
    """Rational roots with multiplicities of a polynomial; ``coefficients`` from the constant term up."""
    polynomial = flint.fmpq_poly([flint.fmpq(c.numerator, c.denominator) for c in coefficients])
    numerator = polynomial.numer()
    roots = []
    for factor, multiplicity in numerator.factor()[1]:
        if factor.degree() == 1:
            roots.append((Fraction(-int(factor[0]), int(factor[1])), int(multiplicity)))
    return roots


def characteristic_polynomial(matrix: Array) -> list[Fraction]:
    """Coefficients, constant term first, of the characteristic polynomial of a square rational matrix."""
    polynomial = _rational_matrix(matrix).charpoly()
    return [_to_fraction(polynomial[k]) for k in range(matrix.shape[0] + 1)]


def _called(seconds: float, function: Callable[..., _Answer], *arguments: Array) -> _Answer:
    """Here, or apart where ``seconds`` is long: an estimate by counting, the same on every machine."""
    poll()
    return apart(function, *arguments) if seconds > _LONG else function(*arguments)


def _elimination(matrix: Array) -> float:
    """About how many seconds an elimination over Q takes."""
    return 1e-9 * float(matrix.size * min(matrix.shape) * _bits(matrix))


def _bits(matrix: Array) -> int:
    """About how long the entries are."""
    if matrix.dtype != object or matrix.size < _FEW:
        return 64
    return max(n.bit_length() for ratio in _ratios(matrix.reshape(-1)) for n in ratio)


def _ratios(values: Array) -> Iterator[tuple[int, int]]:
    """Numerator and denominator of exact numbers (n,)."""
    for v in values.tolist():
        yield (v if isinstance(v, (Fraction, int, float)) else to_fraction(v)).as_integer_ratio()


def _integer_matrix(matrix: Array) -> Any:
    """Each row scaled to integers; rank, row space and null space do not change."""
    rows: list[int] = []
    for row in matrix:
        ratios = list(_ratios(row))
        scale = lcm(1, *{denominator for _, denominator in ratios})
        rows.extend(numerator * (scale // denominator) for numerator, denominator in ratios)
    return flint.fmpz_mat(*matrix.shape, rows)


def _rational_matrix(matrix: Array) -> Any:
    entries = [flint.fmpq(*ratio) for ratio in _ratios(matrix.reshape(-1))]
    return flint.fmpq_mat(*matrix.shape, entries)


def _from_flint(matrix: Any) -> Array:
    out = np.empty((matrix.nrows(), matrix.ncols()), dtype=object)
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[i, k] = _to_fraction(matrix[i, k])
    return out


def _to_fraction(value: Any) -> Fraction:
    return Fraction(int(value.p), int(value.q))
