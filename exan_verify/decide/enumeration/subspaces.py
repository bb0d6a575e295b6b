"""Batches of subspaces of F_p^N of equal dimension, cut by hyperplanes and merged (docs/theory.md 3.3).

A subspace is a basis in reduced row echelon form, so that equal subspaces have equal bases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.exact.modular import Residues, add_mod, fold, inverses_mod, multiply_mod, negate_mod

Masks = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int16]
Index = npt.NDArray[Any] | slice

_MIX = np.random.default_rng(61).integers(0, 1 << 63, size=1 << 12, dtype=np.uint64) | np.uint64(1)
"""Odd multipliers of the hash that finds candidates for merging; equality is always compared in full."""

_CACHED = 1 << 15
"""Residues worked on at a time, 256 KiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Subspaces:
    """B subspaces of dimension d, each with what is known of the equations that cut it out.

    ``basis`` (B, d, N) residues. ``members`` (B,): bit m is set when true sample m satisfies all the
    equations exactly; as many bits of a group of samples that share a pattern as dimensions of the group's
    span are known to satisfy them. ``inactive`` (B,): how many of the equations say "inactive", at least.
    """

    basis: Residues
    members: Masks
    inactive: Counts

    @property
    def count(self) -> int:
        """B."""
        return len(self.basis)

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.basis.shape[1])

    def select(self, index: Index) -> Subspaces:
        """The subspaces at ``index`` (positions or a mask)."""
        return Subspaces(self.basis[index], self.members[index], self.inactive[index])

    def values(self, functional: Residues) -> Residues:
        """The functional (N,) on every basis vector, (B, d)."""
        used = np.flatnonzero(functional)
        total = np.zeros(self.basis.shape[:2], dtype=np.uint64)
        for here in _blocks(self.count, self.dimension * len(used)):
            products = multiply_mod(self.basis[here][:, :, used], functional[used])
            total[here] = _sums(products)
        return total

    def cut(self, values: Residues) -> Residues:
        """Bases (B, d - 1, N) of the intersections with the hyperplanes where a functional is zero.

        ``values`` (B, d) are the functional's on the basis vectors, not all zero for any subspace. The last
        vector with a non-zero value is used up: the vectors before it get multiples of it, which are zero
        at the other vectors' pivots, and those behind it stay, so that the echelon form stays reduced.
        """
        count, dimension, variables = self.basis.shape
        rows = np.arange(count)
        last = dimension - 1 - np.argmax(values[:, ::-1] != 0, axis=1)
        ratios = negate_mod(multiply_mod(values, inverses_mod(values[rows, last])[:, None]))
        kept = np.arange(dimension) != last[:, None]
        cut = np.empty((count, dimension - 1, variables), dtype=np.uint64)
        for here in _blocks(count, dimension * variables):
            basis, stay = self.basis[here], kept[here]
            used_up = basis[rows[: len(basis)], last[here]][:, None]
            moved = add_mod(basis, multiply_mod(ratios[here][:, :, None], used_up))
            cut[here] = moved[stay].reshape(len(basis), dimension - 1, variables)
        return cut


def _sums(products: Residues) -> Residues:
    """Sums over the last axis mod p: seven residues fit into 64 bits."""
    total = np.zeros(products.shape[:-1], dtype=np.uint64)
    for start in range(0, products.shape[-1], 7):
        total = add_mod(total, fold(products[..., start : start + 7].sum(axis=-1, dtype=np.uint64)))
    return total


def _blocks(count: int, entries: int) -> Iterator[slice]:
    """Slices with at most ``_CACHED`` residues, ``entries`` for each subspace, so that they stay in cache."""
    step = max(1, _CACHED // max(1, entries))
    return (slice(start, start + step) for start in range(0, count, step))


def joined(parts: Sequence[Subspaces]) -> Subspaces:
    """Batches of equal dimension as one."""
    if len(parts) == 1:
        return parts[0]
    return Subspaces(
        np.concatenate([part.basis for part in parts]),
        np.concatenate([part.members for part in parts]),
        np.concatenate([part.inactive for part in parts]),
    )


def merged(batch: Subspaces) -> Subspaces:
    """Subspaces with equal bases and equal members once, with the least ``inactive`` of all."""
    if batch.count < 2:
        return batch
    keys = np.concatenate([batch.basis.reshape(batch.count, -1), batch.members[:, None]], axis=1)
    weights = np.resize(_MIX, keys.shape[1])
    hashes = (keys * weights).sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    equal = hashes[order[1:]] == hashes[order[:-1]]
    equal[equal] = (keys[order[1:][equal]] == keys[order[:-1][equal]]).all(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], ~equal]))
    kept = order[starts]
    inactive = np.minimum.reduceat(batch.inactive[order], starts)
    return Subspaces(batch.basis[kept], batch.members[kept], inactive)
