"""The output system of cross_entropy and bce over boxes, with real balls (docs/theory.md S5).

A row of Q has coordinates ``a = (q_2, ..., q_r)``; its logits are ``F_1 + sum_k a_k (F_{k+1} - F_1)``. There
are two systems: *membership* of one sample, ``N g' = 0`` with N the annihilator of G's columns, in r - 1
unknowns; and the *joint* one, ``G' Q = G``, in r (r - 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.exact.softmax import loss_vectors_ball, to_ball

PRECISION = 128

Balls = list[Any]
"""A vector of ``flint.arb``."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """Loss vectors of a rest as balls: its own, and those at any row of Q."""

    rest: Rest

    @cached_property
    def own(self) -> list[Balls]:
        """``own[m][c]``: entry c of g^m (reduction sum)."""
        rest = self.rest
        matrix = loss_vectors_ball(rest.context.question.loss, rest.logits.T, rest.batch.labels, 1, PRECISION)
        return [[matrix[c, m] for c in range(self.classes)] for m in range(rest.size)]

    @property
    def classes(self) -> int:
        """K."""
        return self.rest.context.network.classes

    @cached_property
    def _base(self) -> Balls:
        return [to_ball(v) for v in self.rest.logits[0]]

    @cached_property
    def _slopes(self) -> list[Balls]:
        """``slopes[c][k]``: derivative of logit c along coordinate k."""
        steps = self.rest.logits[1:] - self.rest.logits[:1]
        return [[to_ball(v) for v in steps[:, c]] for c in range(self.classes)]

    def target(self, label: Array) -> list[int]:
        """The 0/1 target of a label."""
        if np.ndim(label) == 0:
            return [int(c == int(label)) for c in range(self.classes)]
        return [int(v) for v in label]

    def vectors(self, a: Balls, target: list[int]) -> tuple[Balls, list[Balls]]:
        """g' and its derivatives ``[c][k]`` over a box of rows."""
        if self.rest.context.question.loss is Loss.BCE:
            values = [1 / (1 + (-self._logit(c, a)).exp()) for c in range(self.classes)]
            weights = [p * (1 - p) for p in values]
            slopes = [[w * s for s in row] for w, row in zip(weights, self._slopes, strict=True)]
        else:
            values = [self._softmax(c, a) for c in range(self.classes)]
            means = [_dot(values, column) for column in zip(*self._slopes, strict=True)]
            slopes = [
                [p * (s - mean) for s, mean in zip(row, means, strict=True)]
                for p, row in zip(values, self._slopes, strict=True)
            ]
        return [p - t for p, t in zip(values, target, strict=True)], slopes

    def _logit(self, c: int, a: Balls) -> Any:
        return self._base[c] + _dot(self._slopes[c], a)

    def _softmax(self, c: int, a: Balls) -> Any:
        """1 / sum_k exp(f_k - f_c), the differences taken before the box enters."""
        total = flint.arb(0)
        for k in range(self.classes):
            slopes = (x - y for x, y in zip(self._slopes[k], self._slopes[c], strict=True))
            total += (self._base[k] - self._base[c] + _dot(slopes, a)).exp()
        return 1 / total


@dataclass(frozen=True, kw_only=True)
class Membership:
    """``N g(F^T q, y') = 0`` for one label y'."""

    head: Head
    normals: tuple[tuple[Any, ...], ...]
    target: list[int]

    def __call__(self, box: Balls) -> tuple[Balls, list[Balls]]:
        """Values and Jacobian over a box."""
        vector, slopes = self.head.vectors(box, self.target)
        columns = list(zip(*slopes, strict=True))
        return (
            [_dot(normal, vector) for normal in self.normals],
            [[_dot(normal, column) for column in columns] for normal in self.normals],
        )


@dataclass(frozen=True, kw_only=True)
class Joint:
    """``sum_m g'_m = sum_m g_m`` and ``sum_m g'_m Q_mk = g_k`` for k >= 2, with one target per row."""

    head: Head
    targets: list[list[int]]

    def __call__(self, box: Balls) -> tuple[Balls, list[Balls]]:
        """Values and Jacobian over a box of r (r - 1) coordinates."""
        size = len(self.targets)
        rows = [box[m * (size - 1) : (m + 1) * (size - 1)] for m in range(size)]
        parts = [self.head.vectors(a, t) for a, t in zip(rows, self.targets, strict=True)]
        values: Balls = []
        jacobian: list[Balls] = []
        for k in range(size):
            for c in range(self.head.classes):
                weights = [flint.arb(1) if k == 0 else row[k - 1] for row in rows]
                own = self.head.own[k][c] if k else sum((g[c] for g in self.head.own), flint.arb(0))
                values.append(_dot(weights, [vector[c] for vector, _ in parts]) - own)
                jacobian.append(_joint_slopes(weights, parts, k, c))
        return values, jacobian


def annihilator(head: Head) -> tuple[tuple[Any, ...], ...] | None:
    """Rows N with ``N G = 0`` as balls, or None when no r rows of G are shown to be independent."""
    size = head.rest.size
    midpoints = np.array([[float(v.mid()) for v in g] for g in head.own])
    chosen = _pivot_rows(midpoints)
    square = flint.arb_mat(size, size, [head.own[m][c] for c in chosen for m in range(size)])
    with flint.ctx.workprec(PRECISION):
        try:
            inverse = square.inv()
        except ZeroDivisionError:
            return None
        return tuple(_normals(head, chosen, inverse))


def _normals(head: Head, chosen: list[int], inverse: Any) -> Iterator[tuple[Any, ...]]:
    """e_c - G_c G_chosen^-1 for every class c that is not chosen."""
    size, classes = head.rest.size, head.classes
    for c in (c for c in range(classes) if c not in chosen):
        weights = flint.arb_mat(1, size, [head.own[m][c] for m in range(size)]) * inverse
        row = [flint.arb(0)] * classes
        row[c] = flint.arb(1)
        for k, place in enumerate(chosen):
            row[place] = -weights[0, k]
        yield tuple(row)


def _pivot_rows(vectors: Array) -> list[int]:
    """Classes whose entries are well conditioned, greedily (a guess)."""
    left: Array = vectors.T.copy()
    chosen: list[int] = []
    for _ in range(len(vectors)):
        norms = np.linalg.norm(left, axis=1)
        norms[chosen] = -1
        chosen.append(int(norms.argmax()))
        unit = left[chosen[-1]] / max(norms[chosen[-1]], 1e-300)
        left = left - np.outer(left @ unit, unit)
    return sorted(chosen)


def _joint_slopes(weights: Balls, parts: list[tuple[Balls, list[Balls]]], k: int, c: int) -> Balls:
    out: Balls = []
    for weight, (vector, slopes) in zip(weights, parts, strict=True):
        for j, slope in enumerate(slopes[c]):
            out.append(slope * weight + (vector[c] if k == j + 1 else 0))
    return out


def _dot(left: Any, right: Any) -> Any:
    return sum((x * y for x, y in zip(left, right, strict=True)), flint.arb(0))
