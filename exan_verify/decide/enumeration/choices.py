"""Which rays can be the columns of one Q^-1 (docs/theory.md Appendix E, E8).

Every batch with this gradient chooses M of the subspaces, one (q_k, u_k) in each, with
``sum_k (q_k, u_k) = sum_m (e_m, u_m)``: by the bias columns of the layer and of the next one. These are
M + K' linear equations; where they leave one solution or none, the choice is a candidate or refuted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.network import Array
from exan_verify.decide.enumeration.exact import Problem, Subspace, in_span_of, integers, joined, reduced
from exan_verify.exact.linalg import rank, solve


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """M subspaces that the sum allows. ``columns`` (M, N): row k is the one (q_k, u_k); None when there are
    more, with ``freedom`` dimensions.
    """

    subspaces: tuple[Subspace, ...]
    columns: Array | None
    freedom: int


@dataclass(slots=True, kw_only=True)
class Choices:
    """Iterates over the choices that are not made of spans of true samples only; ``looked_at`` counts all."""

    searched: Problem
    subspaces: list[Subspace]
    most: int
    looked_at: int = 0

    @property
    def too_many(self) -> bool:
        """Whether the iteration ended early."""
        return self.looked_at > self.most

    def __iter__(self) -> Iterator[Choice]:
        known = [self._known(subspace) for subspace in self.subspaces]
        # extra ones first: a choice has at least one of them
        order = sorted(range(len(known)), key=lambda i: known[i])
        self.subspaces = [self.subspaces[i] for i in order]
        extra = len(known) - sum(known)
        total = integers(list(self.searched.truth.sum(axis=0)))
        yield from self._extended((), (), total, extra)

    def _extended(
        self, chosen: tuple[int, ...], span: Subspace, target: tuple[int, ...], extra: int
    ) -> Iterator[Choice]:
        """Choices that begin with ``chosen``; ``target``: the sum modulo their ``span``."""
        last = len(chosen) + 1 == self.searched.samples
        for k in range(chosen[-1] if chosen else 0, len(self.subspaces) if chosen else extra):
            subspace = self.subspaces[k]
            if chosen.count(k) == len(subspace):
                continue
            self.looked_at += 1
            if self.too_many:
                return
            left = _rest(subspace, span)
            if last:
                if not any(reduced(target, left)):
                    yield from self._solved((*chosen, k))
            else:
                wider = joined(span, subspace)
                yield from self._extended((*chosen, k), wider, reduced(target, wider), extra)

    def _solved(self, chosen: tuple[int, ...]) -> Iterator[Choice]:
        subspaces = tuple(self.subspaces[k] for k in chosen)
        basis = np.array([row for subspace in subspaces for row in subspace], dtype=object)
        samples = self.searched.samples
        freedom = len(basis) - rank(basis)
        if not freedom:
            columns = _columns(subspaces, basis, self.searched.truth)
            if columns is not None and columns[:, :samples].any(axis=1).all():
                yield Choice(subspaces=subspaces, columns=columns, freedom=0)
        elif rank(basis[:, :samples]) == samples:
            yield Choice(subspaces=subspaces, columns=None, freedom=freedom)

    def _known(self, subspace: Subspace) -> bool:
        searched = self.searched
        return any(in_span_of(subspace, group, searched.truth) for group in searched.groups)


def _rest(subspace: Subspace, span: Subspace) -> Subspace:
    """A basis of the subspace modulo the span, in echelon form."""
    rest: Subspace = ()
    for row in subspace:
        rest = joined(rest, (reduced(row, span),))
    return rest


def _columns(subspaces: tuple[Subspace, ...], basis: Array, truth: Array) -> Array | None:
    found = solve(basis.T, truth.sum(axis=0).reshape(-1, 1))
    if found is None:
        return None
    rows, start = [], 0
    for subspace in subspaces:
        part = range(start, start + len(subspace))
        rows.append(sum((basis[k] * found[k, 0] for k in part), np.full(basis.shape[1], Fraction(0))))
        start += len(subspace)
    return np.array(rows, dtype=object)
