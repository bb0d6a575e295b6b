"""Ranks over small prime fields on float64 BLAS, exactly (docs/theory.md 6.3).

A residue mod p is an integer of size at most H = 2^22 - 6 in a float64, p one of :data:`PRIMES`, all odd
and at most 2^23 - 15. Nothing here rounds:

 * A product of two residues is an integer below 2^44. With at most 512 terms, every sum of some of the
   terms of an entry of ``A @ B`` is an integer of size at most 512 H^2 = 2^53 - 12 * 2^31 + 18432, so
   float64 holds it. In whatever order a matrix product sums them, with fused multiply-adds or without,
   blocked, vectorised or in threads, it only ever forms such sums: exact, every one. ``C - A @ B`` is at
   most 512 H^2 + H, still below 2^53.
 * :func:`centre` brings integers x up to that size back. The quotient x / p is below 2^30.001 and computed
   by two roundings, so it is off by less than 2^-21.99, and m = rint of it by less than 1/2 + 2^-21.99.
   Then |x - m p| < p/2 + 2.1, which for an integer means at most (p + 3) / 2 <= H, and |m p| <= |x| + H <
   2^53: the product and the difference are exact.
 * H < p, so a residue is zero mod p only where its float is 0.

A rank over F_p is a lower bound of the rank over the reals, whatever p (docs/theory.md 3.6). One that is
short proves nothing: with primes as small as these it is short by accident once in some 10^7 times, and
worth another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import poll
from exan_verify.exact.modular import Residues

PRIMES = (8388593, 8388587)
"""The largest primes below 2^23: one, and another for ranks that look short."""

TERMS = 512
"""Most products that are summed before they are reduced."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_CACHED = 1 << 15
"""Entries that are reduced at a time, so that they stay in a core's cache."""

_FEW_ROWS = 16
"""Rows that are eliminated one by one: fewer make more calls, more make slower ones (8 to 32 are alike)."""


def centre(values: Floats, prime: int) -> Floats:
    """Integers of any shape, contiguous, of size at most 512 H^2 + H, reduced in place to residues."""
    flat = values.reshape(-1)
    quotients = np.empty(min(_CACHED, flat.size))
    for start in range(0, flat.size, _CACHED):
        part = flat[start : start + _CACHED]
        m = quotients[: part.size]
        np.multiply(part, 1 / prime, out=m)
        np.rint(m, out=m)
        np.multiply(m, prime, out=m)
        np.subtract(part, m, out=part)
    return values


def floats(values: Residues, prime: int) -> Floats:
    """Residues of :mod:`exan_verify.exact.modular`, of any shape, in the form of this module."""
    return centre(values.astype(np.float64), prime)


def reduced_echelon(rows: Floats, width: int, prime: int) -> Indices:
    """Gauss and Jordan in place, on the first ``width`` columns of residues (b, width or more).

    Returns for every row the column of its pivot, -1 for a row that became zero there. A pivot is 1, the
    first entry of its row that is not zero, and the only one of its column.
    """
    if len(rows) > _FEW_ROWS:
        half = len(rows) // 2
        top, bottom = rows[:half], rows[half:]
        upper = reduced_echelon(top, width, prime)
        _eliminate(bottom, top, upper, prime)
        lower = reduced_echelon(bottom, width, prime)
        # a row of the top is zero before its pivot, and the bottom at it: pivots stay first in their rows
        _eliminate(top, bottom, lower, prime)
        return np.concatenate([upper, lower])
    poll()
    pivots = np.full(len(rows), -1, dtype=np.intp)
    for k, row in enumerate(rows):
        found = np.flatnonzero(row[:width])
        if len(found):
            pivots[k] = found[0]
            inverse = pow(int(row[found[0]]), -1, prime)
            row *= inverse if 2 * inverse < prime else inverse - prime
            centre(row, prime)
            factors = rows[:, found[0]].copy()
            factors[k] = 0
            rows -= factors[:, None] * row
            centre(rows, prime)
    return pivots


def _eliminate(rows: Floats, by: Floats, pivots: Indices, prime: int) -> None:
    """Subtract from ``rows``, in place, the multiples of rows ``by`` that clear their pivots' columns."""
    has = np.flatnonzero(pivots >= 0)
    if len(has):
        subtract_product(rows, rows[:, pivots[has]], by[has], prime)


def subtract_product(values: Floats, left: Floats, right: Floats, prime: int) -> Floats:
    """``values - left @ right`` for residues (a, b), (a, k), (k, b), in place; ``values`` is contiguous."""
    for start in range(0, left.shape[1], TERMS):
        poll()
        terms = slice(start, start + TERMS)
        np.subtract(values, left[:, terms] @ right[terms], out=values)
        centre(values, prime)
    return values


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """Eliminated rows: 1 at a pivot of their own, 0 at the others', ``tail`` at the columns ``rest``.

    Columns count among those that are no pivots of the panels before.
    """

    pivots: Indices
    rest: Indices
    tail: Floats


@dataclass(slots=True, eq=False)
class Echelon:
    """The row space of rows that are given bit by bit: its rank, in half the memory of a square matrix.

    Rows are cleared at the pivots of the panels before, then become panels of their own; a panel stores
    only the columns that are no pivots yet.
    """

    prime: int
    rank: int = 0
    _panels: list[_Panel] = field(default_factory=list)

    def add(self, rows: Floats) -> None:
        """Take residues (b, columns) in, b any number; always the same columns."""
        for start in range(0, len(rows), TERMS):
            self._add(rows[start : start + TERMS])

    def _add(self, rows: Floats) -> None:
        for panel in self._panels:
            lead = rows[:, panel.pivots]
            rows = subtract_product(np.take(rows, panel.rest, axis=1), lead, panel.tail, self.prime)
        while True:
            rows = rows[rows.any(axis=1)]
            if not len(rows):
                return
            panel, rows = self._split(rows)
            self._panels.append(panel)
            self.rank += len(panel.pivots)

    def _split(self, rows: Floats) -> tuple[_Panel, Floats]:
        """A panel of some of ``rows`` (b, columns), none of them zero, and what it leaves of the others.

        Which combinations of the rows make the panel is found on as many columns as there are rows.
        """
        window = np.flatnonzero(rows.any(axis=0))[: len(rows)]
        narrow = np.concatenate([rows[:, window], np.eye(len(rows))], axis=1)
        pivots = reduced_echelon(narrow, len(window), self.prime)
        has = pivots >= 0
        chosen = window[pivots[has]]
        rest = np.delete(np.arange(rows.shape[1]), chosen)
        combinations = narrow[:, len(window) :]
        mixed = centre(combinations @ rows[:, rest], self.prime)
        return _Panel(chosen, rest, mixed[has]), mixed[~has]


def rank(matrix: Floats, prime: int) -> int:
    """Rank over F_p of residues (rows, columns)."""
    echelon = Echelon(prime)
    echelon.add(matrix)
    return echelon.rank
