"""The rank of copies of one matrix, one below the other, each placed at columns of its own.

The systems that come from multiplying equations by monomials have this form: ``block`` (n, U) holds the
equations, copy x the products with one factor, ``places[x]`` the columns of a common numbering where its
monomials stand. With 512 equations in 53 variables that is a matrix of 27136 x 26070 with 5 % of its entries
filled; dense elimination needs 6 GB and 10^13 operations. Most of its pivots can be read off instead.

*Why this is the rank.* Row operations inside every copy bring the block to reduced echelon form, rows with
a 1 at their pivot, zeros at the others'. Every ``places[x]`` increases, so the first entry of a copy's row
stands at the place of its pivot. Of the rows that begin at one column choose one (or none). Sorted by their
first columns the chosen rows are in echelon form, so they are independent, and clearing their columns in
all other rows leaves the rank: number of chosen rows + rank of what the other rows are in the other
columns. Nothing else is used, so every choice gives the same number; how many rows can be chosen, and how
soon the rest is cleared, depends on the numbering. Where columns are numbered by an order of monomials (x
before y: x m before y m) whose first products are those of few variables, the rest is small: 9350 columns
of the 26070 above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exan_verify.core.arrays import memory_available
from exan_verify.core.budget import poll
from exan_verify.exact.elimination import (
    TERMS,
    Echelon,
    Floats,
    Indices,
    reduced_echelon,
    subtract_product,
)


def _silent(_rank: int) -> None:
    """No progress is wanted."""


def least_memory(columns: int) -> int:
    """Bytes that any matrix of so many columns takes: for some of its rows, however few are left."""
    return 8 * 3 * TERMS * columns


def require_memory(needed: int) -> None:
    """Raise MemoryError where the system has not so many bytes left."""
    left = memory_available()
    if needed > left:
        raise MemoryError(f"a rank would take {gibibytes(needed)} of memory, {gibibytes(left)} are left")


def gibibytes(count: int) -> str:
    """A number of bytes as a phrase."""
    return f"{count / 2**30:.2f} GiB"


_MOST_LEVELS = 8
"""Chosen rows are cleared in levels, each a product per copy. Random equations need 4 or 5; rows beyond are
not chosen."""

_SEED = 3
"""Of the order in which rows are taken: those of one copy after the other would repeat each other."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stacked:
    """``len(places)`` copies of ``block`` (n, U), residues mod ``prime`` in float64, in ``columns`` columns.

    ``places`` (copies, U): where the block's columns stand in each copy, increasing along every row.
    """

    block: Floats
    places: Indices
    columns: int
    prime: int

    def __post_init__(self) -> None:
        if not (np.diff(self.places, axis=1) > 0).all():
            raise ValueError("a copy's columns must increase")

    def dense(self) -> Floats:
        """The matrix itself, (copies * n, columns)."""
        copies = np.zeros((len(self.places), len(self.block), self.columns))
        for copy, columns in zip(copies, self.places, strict=True):
            copy[:, columns] = self.block
        return copies.reshape(-1, self.columns)

    @property
    def memory(self) -> int:
        """Bytes that :meth:`rank` takes where the block's first columns are independent, else more."""
        chosen = np.unique(self.places[:, : len(self.block)])
        return self._bytes(self.columns - len(chosen))

    def _bytes(self, free: int) -> int:
        """With ``free`` columns left: half a square of them, and several copies of the rows at hand."""
        return least_memory(self.columns) + 8 * (free * free // 2 + 6 * TERMS * free + 4 * self.block.size)

    def rank(self, enough: int | None = None, told: Callable[[int], None] | None = None) -> int:
        """Rank over F_p; counting stops where ``enough`` is reached. ``told`` hears the rank so far,
        at first 0.

        Raises MemoryError, before the long part begins, where it would take more than the system has left.
        """
        tell = told or _silent
        tell(0)
        reduced = self.block.copy()
        pivots = reduced_echelon(reduced, reduced.shape[1], self.prime)
        order = np.argsort(pivots)[np.count_nonzero(pivots < 0) :]
        pivots, reduced = pivots[order], reduced[order]
        others = np.delete(np.arange(self.block.shape[1]), pivots)
        rows = _Rows(self.places[:, pivots], self.places[:, others], reduced[:, others], self.columns)
        levels = rows.chosen()
        taken = np.concatenate([rows.leads[part] for part in levels] or [np.zeros(0, dtype=np.intp)])
        free = np.delete(np.arange(self.columns), taken)
        require_memory(self._bytes(len(free)))
        found = Echelon(self.prime)
        waiting = rows.unchosen(levels)
        for start in range(0, len(waiting[0]), TERMS):
            if enough is not None and len(taken) + found.rank >= enough:
                break
            part = rows.built(waiting[0][start : start + TERMS], waiting[1][start : start + TERMS])
            for level in levels:
                rows.clear(part, level, self.prime)
            found.add(part[:, free])
            tell(len(taken) + found.rank)
        return len(taken) + found.rank


_Pairs = tuple[Indices, Indices]
"""Copies, and the row of the block in each."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of all copies in reduced echelon form: 1 at ``leads`` (copies, r), and ``tail`` (r, U - r) at
    ``tails`` (copies, U - r).
    """

    leads: Indices
    tails: Indices
    tail: Floats
    columns: int

    def chosen(self) -> list[_Pairs]:
        """Rows with different first columns, in levels: no row has an entry where one of its own level, or of
        an earlier one, begins. Clearing level by level then clears them all.
        """
        begins, first = np.unique(self.leads, return_index=True)
        copies, rows = np.divmod(first, self.leads.shape[1])
        filled = self.tail != 0
        earliest = np.zeros(self.columns, dtype=np.intp)
        for column, x, i in zip(begins, copies, rows, strict=True):
            behind = self.tails[x][filled[i]]
            earliest[behind] = np.maximum(earliest[behind], earliest[column] + 1)
        at = earliest[begins]
        levels = range(min(at.max(initial=-1) + 1, _MOST_LEVELS))
        return [(copies[at == k], rows[at == k]) for k in levels]

    def unchosen(self, levels: list[_Pairs]) -> _Pairs:
        """The other rows, shuffled."""
        left = np.ones(self.leads.shape, dtype=bool)
        for level in levels:
            left[level] = False
        copies, rows = np.nonzero(left)
        order = np.random.default_rng(_SEED).permutation(len(copies))
        return copies[order], rows[order]

    def built(self, copies: Indices, rows: Indices) -> Floats:
        """These rows, (b, columns)."""
        out = np.zeros((len(copies), self.columns))
        here = np.arange(len(copies))
        out[here, self.leads[copies, rows]] = 1
        out[here[:, None], self.tails[copies]] = self.tail[rows]
        return out

    def clear(self, part: Floats, level: _Pairs, prime: int) -> None:
        """Subtract from rows (b, columns) what they have at the first columns of a level's rows. The entries
        there stay, and are not looked at again.
        """
        for x in np.unique(level[0]):
            poll()
            rows = level[1][level[0] == x]
            factors = part[:, self.leads[x, rows]]
            concerned = np.flatnonzero(factors.any(axis=1))
            if len(concerned):
                where = np.ix_(concerned, self.tails[x])
                part[where] = subtract_product(part[where], factors[concerned], self.tail[rows], prime)
