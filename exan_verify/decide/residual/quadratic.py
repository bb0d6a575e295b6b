"""The mse system of a rest (docs/theory.md S5): ``Q^T (Q F - Y') = F - Y`` with ``Q 1 = 1``.

Three kinds of linear consequences are solved exactly over Q before anything else. Summed over the rows (with
biases): ``1^T (Q F - Y') = 1^T (F - Y)``. Since ``F^T Q^T Q F`` is symmetric, ``F^T Q^T Y' - Y'^T Q F``
equals ``F^T Y - Y^T F``. And whatever combinations of the quadrics that remain have no quadratic part, again
and again. The free variables are entries of Q, so points of the system and matrices Q translate into each
other by reading entries. What is left are quadrics in the free variables, homogenised with variable 0 = 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import flint
import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Array, to_fraction

ONE = Fraction(1)
ZERO = Fraction(0)

Equation = dict[tuple[int, int], Fraction]


@dataclass(frozen=True, kw_only=True)
class Quadrics:
    """Quadrics in ``variables`` unknowns, homogenised.

    ``forms`` (r, r, n + 1): entry (m, k) of Q as an affine form, constant first. ``free``: the entries of Q
    that are the unknowns. ``equations``: symmetric bilinear coefficients {(i, j): value}, i <= j.
    """

    forms: Array
    free: tuple[tuple[int, int], ...]
    equations: tuple[Equation, ...]

    @property
    def variables(self) -> int:
        """n."""
        return len(self.free)

    def point(self, matrix: Array) -> tuple[Fraction, ...]:
        """The unknowns of a matrix Q (r, r) that satisfies the linear equations."""
        return tuple(to_fraction(matrix[place]) for place in self.free)

    def matrix(self, point: tuple[Fraction, ...]) -> Array:
        """Q (r, r) of a point."""
        found: Array = self.forms @ np.array([ONE, *point], dtype=object)
        return found

    def holds(self, point: tuple[Fraction, ...]) -> bool:
        """Whether the point satisfies every quadric, exactly."""
        x = (ONE, *point)
        return all(
            sum((c * x[i] * x[j] for (i, j), c in equation.items()), ZERO) == 0 for equation in self.equations
        )


def quadrics(logits: Array, own: Array, labels: Array, *, affine: bool) -> Quadrics | None:
    """The system for F = ``logits`` (r, K), Y = ``own`` and Y' = ``labels``; None when the linear part has no
    solution. ``affine``: the network has biases.
    """
    size = len(logits)
    own, labels = fractions(own), fractions(labels)
    rows = [*(_affine_rows(logits, own, labels) if affine else ()), *_symmetry_rows(logits, own, labels)]
    while True:
        found = _solved(rows, size)
        if found is None:
            return None
        forms, free = found
        equations = _equations(forms, logits, own, labels)
        falls = _linear_combinations(equations, len(free))
        if not falls:
            return Quadrics(forms=forms, free=free, equations=tuple(equations))
        rows += [_on_entries(fall, free, size) for fall in falls]


def _equations(forms: Array, logits: Array, own: Array, labels: Array) -> list[Equation]:
    """The quadrics on the free variables."""
    moved = np.tensordot(forms, logits, axes=([1], [0]))  # (r, n + 1, K): row m of Q F as affine forms
    equations = []
    for c in range(logits.shape[1]):
        rows = moved[:, :, c].copy()
        rows[:, 0] -= labels[:, c]
        equations += [_equation(forms[:, a], rows, logits[a, c] - own[a, c]) for a in range(len(logits))]
    return [equation for equation in equations if equation]


def _equation(left: Array, right: Array, constant: Fraction) -> Equation:
    """``sum_m left_m(t) right_m(t) - constant``."""
    table = left.T @ right
    out: Equation = {}
    for i in range(len(table)):
        for j in range(i, len(table)):
            value = table[i, j] if i == j else table[i, j] + table[j, i]
            if (i, j) == (0, 0):
                value -= constant
            if value:
                out[i, j] = value
    return out


def _linear_combinations(equations: list[Equation], variables: int) -> list[list[Fraction]]:
    """A basis of the combinations without a quadratic part, as affine forms (constant first)."""
    pairs = [(i, j) for i in range(1, variables + 1) for j in range(i, variables + 1)]
    columns = {pair: k for k, pair in enumerate([*pairs, *((0, j) for j in range(1, variables + 1)), (0, 0)])}
    reduced, rank = _rref([[e.get(pair, ZERO) for pair in columns] for e in equations], len(columns))
    found = []
    for i in range(rank):
        if all(reduced[i, k] == 0 for k in range(len(pairs))):
            tail = [_fraction(reduced[i, k]) for k in range(len(pairs), len(columns))]
            found.append([tail[-1], *tail[:-1]])
    return found


def _on_entries(form: list[Fraction], free: tuple[tuple[int, int], ...], size: int) -> list[Fraction]:
    """An affine form in the free variables, ``form = 0``, as a row over all entries of Q."""
    row = [ZERO] * (size * size + 1)
    for (m, k), value in zip(free, form[1:], strict=True):
        row[m * size + k] = value
    row[-1] = -form[0]
    return row


def _affine_rows(logits: Array, own: Array, labels: Array) -> Iterable[list[Fraction]]:
    """Rows of Q sum to 1, and 1^T Q F = 1^T (F - Y + Y')."""
    size, classes = logits.shape
    for m in range(size):
        row = [ZERO] * (size * size)
        row[m * size : (m + 1) * size] = [ONE] * size
        yield [*row, ONE]
    for c in range(classes):
        column = list(logits[:, c])
        yield [*(column * size), sum([*column, *labels[:, c], *-own[:, c]], ZERO)]


def _symmetry_rows(logits: Array, own: Array, labels: Array) -> Iterable[list[Fraction]]:
    """``Y'_a^T Q F_b - Y'_b^T Q F_a = Y_a^T F_b - Y_b^T F_a`` for columns a < b."""
    for a in range(logits.shape[1]):
        for b in range(a + 1, logits.shape[1]):
            table = np.outer(labels[:, a], logits[:, b]) - np.outer(labels[:, b], logits[:, a])
            if np.any(table != 0):
                yield [*table.reshape(-1), own[:, a] @ logits[:, b] - own[:, b] @ logits[:, a]]


def _solved(rows: list[list[Fraction]], size: int) -> tuple[Array, tuple[tuple[int, int], ...]] | None:
    unknowns = size * size
    reduced, rank = _rref(rows, unknowns + 1)
    pivots = [next(j for j in range(unknowns + 1) if reduced[i, j] != 0) for i in range(rank)]
    if unknowns in pivots:
        return None
    free = [j for j in range(unknowns) if j not in pivots]
    forms = np.full((unknowns, len(free) + 1), ZERO, dtype=object)
    for t, j in enumerate(free):
        forms[j, t + 1] = ONE
    for i, j in enumerate(pivots):
        forms[j, 0] = _fraction(reduced[i, unknowns])
        for t, k in enumerate(free):
            forms[j, t + 1] = -_fraction(reduced[i, k])
    return forms.reshape(size, size, -1), tuple(divmod(j, size) for j in free)


def _rref(rows: list[list[Fraction]], columns: int) -> tuple[flint.fmpq_mat, int]:
    flat = [flint.fmpq(v.numerator, v.denominator) for row in rows for v in row]
    reduced, rank = flint.fmpq_mat(len(rows), columns, flat).rref()
    return reduced, int(rank)


def _fraction(value: flint.fmpq) -> Fraction:
    return Fraction(int(value.p), int(value.q))
