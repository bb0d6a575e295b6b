"""A region with few samples has a T of low rank: its minors, linear in products (docs/theory.md CB3).

Let the T of a cube's regions be ``T_0 + N z``. A region with one sample has T of rank one at most, so all 2
x 2 minors vanish: equations of degree two in z. If their coefficients of 1, z_i, z_i z_j have independent
columns, no z solves them; if T_0 is of rank one already and those of z_i, z_i z_j have, z = 0 alone does.
Combinations of the minors in which all z_i z_j cancel (their coefficients are rational) are linear in z, and
show the same by 1 and z_i alone: three classes and three features have fewer minors than products.
Without z, a minor of size s + 1 that is not zero refutes s samples.

One region sees z only through its block of N: with P the block's pivots, z = e_P u + v, v in the block's
kernel, the minors of the region are equations in u alone. Where they leave u = 0, z lies in that kernel, and
the other regions have fewer unknowns left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import flint
import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array
from exan_verify.exact import linalg
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.question.transcendental import PRECISION, unit_rows

MAX_PARAMETERS = 9
"""Unknowns z of T_0 + N z: 55 monomials at this size, and a determinant of balls of that order."""


def low_rank_contradicts(totals: Sequence[Array], kernel: Array, counts: Sequence[int]) -> bool:
    """Whether no z fits the ranks, by one region alone or by those with one sample together.

    ``totals``: T_0 per region as balls; ``kernel`` (entries of all T, unknowns); ``counts``: samples per
    region.
    """
    with flint.ctx.workprec(PRECISION):
        for place, (total, count) in enumerate(zip(totals, counts, strict=True)):
            moves = _seen(kernel, place, total)
            if not moves.shape[1]:
                if _rank_above(total, count):
                    return True
            elif count == 1 and _forced([total], moves, [1], known=False):
                return True
        return bool(kernel.shape[1]) and _forced(totals, kernel, counts, known=False)


def left_by_ranks(totals: Sequence[Array], kernel: Array, counts: Sequence[int]) -> Array:
    """The part (entries of all T, unknowns left) of ``kernel`` that the ranks do not force to be zero, where
    T_0 fits them: every z that does has ``kernel z`` in its column space.
    """
    with flint.ctx.workprec(PRECISION):
        tried: set[tuple[int, int]] = set()
        while kernel.shape[1]:
            for place, (total, count) in enumerate(zip(totals, counts, strict=True)):
                key = place, kernel.shape[1]
                if count != 1 or key in tried:
                    continue
                tried.add(key)
                moves = _seen(kernel, place, total)
                if moves.shape[1] and _forced([total], moves, [1], known=True):
                    kernel = linalg.multiply(kernel, linalg.nullspace(_block(kernel, place, total)))
                    break
            else:
                return kernel[:, :0] if _forced(totals, kernel, counts, known=True) else kernel
    return kernel


def _block(kernel: Array, place: int, total: Array) -> Array:
    return kernel[place * total.size : (place + 1) * total.size]


def _seen(kernel: Array, place: int, total: Array) -> Array:
    """The columns of a region's block by which it sees z: independent ones, as many as its rank."""
    block = _block(kernel, place, total)
    return block[:, linalg.pivots(block)] if block.size else block


def _forced(totals: Sequence[Array], kernel: Array, counts: Sequence[int], *, known: bool) -> bool:
    """Whether the minors leave no z; with ``known``, where T_0 fits them, none but 0."""
    parameters = kernel.shape[1]
    if parameters > MAX_PARAMETERS:
        return False
    minors = list(_quadratics(totals, kernel, counts))
    if not minors:
        return False
    affine = [row[known:] for row, _ in minors]
    needed = range(parameters) if known else range(1)  # the constants, without which z = 0 is a solution
    if any(all(row[k].is_zero() for row in affine) for k in needed):
        return False
    squares = np.array([square for _, square in minors], dtype=object).reshape(len(minors), -1)
    rows = [[*row, *map(to_ball, square)] for row, square in zip(affine, squares, strict=True)]
    if independent_columns(_without_zero_columns(rows)):
        return True
    # combinations in which the products cancel, which is exact, are linear in z
    combinations_of = linalg.nullspace(squares.T).T if squares.any() else linalg.identity(len(minors))
    forms = [[combination(y, column) for column in zip(*affine, strict=True)] for y in combinations_of]
    if not known and any(all(v.is_zero() for v in rest) and not c.contains(0) for c, *rest in forms):
        return True
    return bool(forms) and independent_columns(_without_zero_columns(forms, kept=needed))


def combination(weights: Array, values: Sequence[Any]) -> Any:
    """A rational combination of balls."""
    return sum((to_ball(w) * v for w, v in zip(weights, values, strict=True) if w), flint.arb(0))


def _rank_above(total: Array, count: int) -> bool:
    """Whether some minor of size count + 1 is certainly not zero."""
    size = count + 1
    for chosen in combinations(range(total.shape[0]), size):
        poll()
        for columns in combinations(range(total.shape[1]), size):
            minor: Any = flint.arb_mat(size, size, [total[i, k] for i in chosen for k in columns]).det()
            if not minor.contains(0):
                return True
    return False


def _quadratics(
    totals: Sequence[Array], kernel: Array, counts: Sequence[int]
) -> Iterator[tuple[list[Any], list[Fraction]]]:
    """Coefficients of 1 and z_i, and of z_i z_j, in the 2 x 2 minors of the regions with one sample."""
    width = totals[0].size
    for place, (total, count) in enumerate(zip(totals, counts, strict=True)):
        if count != 1:
            continue
        moves = kernel[place * width : (place + 1) * width].reshape(*total.shape, -1)
        for i, j in combinations(range(total.shape[0]), 2):
            poll()
            for k, n in combinations(range(total.shape[1]), 2):
                (left, square), (right, other) = (
                    _product((total[i, k], moves[i, k]), (total[j, n], moves[j, n])),
                    _product((total[i, n], moves[i, n]), (total[j, k], moves[j, k])),
                )
                yield (
                    [p - q for p, q in zip(left, right, strict=True)],
                    [p - q for p, q in zip(square, other, strict=True)],
                )


def _without_zero_columns(rows: list[list[Any]], kept: Iterable[int] = ()) -> list[list[Any]]:
    """Products that occur in no minor are left out, but for the columns ``kept``."""
    needed = set(kept)
    columns = range(len(rows[0]) if rows else 0)
    chosen = [k for k in columns if k in needed or not all(row[k].is_zero() for row in rows)]
    return [[row[k] for k in chosen] for row in rows]


def _product(left: tuple[Any, Array], right: tuple[Any, Array]) -> tuple[list[Any], list[Fraction]]:
    (a, u), (b, v) = left, right
    linear = [a * to_ball(q) + b * to_ball(p) for p, q in zip(u, v, strict=True)]
    size = range(len(u))
    square = [u[i] * v[j] + (u[j] * v[i] if i != j else 0) for i in size for j in range(i + 1)]
    return [a * b, *linear], square


def independent_columns(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the columns of a matrix of balls are certainly independent."""
    if not rows or len(rows) < len(rows[0]):
        return False
    width = len(rows[0])
    rest, _ = unit_rows(rows)
    if not np.isfinite(rest).all():
        return False
    chosen: list[int] = []
    for _ in range(width):
        norms = (rest**2).sum(axis=1)
        norms[chosen] = -1
        chosen.append(int(norms.argmax()))
        unit = rest[chosen[-1]] / max(np.sqrt(norms[chosen[-1]]), 1e-290)
        rest = rest - np.outer(rest @ unit, unit)
    determinant: Any = flint.arb_mat(width, width, [v for k in chosen for v in rows[k]]).det()
    return not determinant.contains(0)
