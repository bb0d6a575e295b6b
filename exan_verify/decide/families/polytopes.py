"""Closed activation regions of a small network, found by depth-first search with exact linear programs.

A region is closed here (``z >= 0`` where active): at ``z = 0`` both states give the same h, so on the common
boundary the affine maps of both regions are the network's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget
from exan_verify.core.network import Array, Linear, ReluNetwork
from exan_verify.core.question import Box
from exan_verify.exact.linalg import multiply
from exan_verify.exact.lp import Program, Solution, Status, solve

_MAX_NEURONS = 14
_MAX_FEATURES = 5
_MAX_PROGRAMS = 600

Point = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """``rows x <= bounds``, ``equalities x = targets``; there ``h = weight x + offset``."""

    weight: Array
    offset: Array
    rows: tuple[Array, ...] = ()
    bounds: tuple[Fraction, ...] = ()
    equalities: tuple[Array, ...] = ()
    targets: tuple[Fraction, ...] = ()

    def cut(
        self,
        *,
        rows: Sequence[Array] = (),
        bounds: Sequence[Fraction] = (),
        equalities: Sequence[Array] = (),
        targets: Sequence[Fraction] = (),
    ) -> Region:
        """The part that satisfies further conditions."""
        return replace(
            self,
            rows=(*self.rows, *rows),
            bounds=(*self.bounds, *bounds),
            equalities=(*self.equalities, *equalities),
            targets=(*self.targets, *targets),
        )

    def next_layer(self, layer: Linear) -> tuple[Array, Array]:
        """Pre-activations of the next layer as an affine function of x: ``(weight (n, d), offset (n,))``."""
        weight = fractions(layer.weight)
        offset = multiply(weight, self.offset.reshape(-1, 1))[:, 0]
        return multiply(weight, self.weight), offset if layer.bias is None else offset + fractions(layer.bias)

    def point(self) -> Point | None:
        """Some point, or None when the region is empty."""
        return self._best([Fraction(0)] * self.weight.shape[1]).point

    def point_apart_from(self, x: Point, rng: Random) -> Point | None:
        """A point other than x, or None when none was found (up to a random functional: none exists)."""
        goal = [Fraction(rng.randint(1, 97)) for _ in x]
        for sign in (1, -1):
            solution = self._best([sign * g for g in goal])
            if solution.point is None:
                return None
            if solution.point != x:
                return solution.point
            if solution.ray is not None:
                return tuple(a + b for a, b in zip(x, solution.ray, strict=True))
        return None

    def is_empty(self) -> bool:
        """Whether an exact linear program shows that there is no point."""
        return self._best([Fraction(0)] * self.weight.shape[1]).status is Status.INFEASIBLE

    def _best(self, objective: list[Fraction]) -> Solution:
        return solve(
            Program.of(
                objective,
                rows=[list(row) for row in self.rows],
                bounds=self.bounds,
                equalities=[list(row) for row in self.equalities],
                targets=self.targets,
            )
        )


def regions(network: ReluNetwork, domain: Box | None, hidden: int, budget: Budget) -> Iterator[Region]:
    """The closed regions of the first ``hidden`` layers; none when the network is too large for that."""
    d = network.widths[0]
    if sum(network.widths[1 : hidden + 1]) > _MAX_NEURONS or d > _MAX_FEATURES:
        return
    start = Region(weight=fractions(np.eye(d)), offset=np.full(d, Fraction(0), dtype=object))
    if domain is not None:
        lo, hi = (fractions(v) for v in domain.bounds(d))
        start = start.cut(rows=[*fractions(-np.eye(d)), *fractions(np.eye(d))], bounds=[*-lo, *hi])
    yield from _below(network, start, 0, hidden, budget, [_MAX_PROGRAMS])


def _below(
    network: ReluNetwork, region: Region, layer: int, hidden: int, budget: Budget, left: list[int]
) -> Iterator[Region]:
    if layer == hidden:
        yield region
        return
    weight, offset = region.next_layer(network.layers[layer])
    for states, part in _split(region, weight, offset, 0, (), budget, left):
        keep = np.array(states, dtype=int)
        inner = replace(part, weight=weight * keep[:, None], offset=offset * keep)
        yield from _below(network, inner, layer + 1, hidden, budget, left)


def _split(
    region: Region,
    weight: Array,
    offset: Array,
    neuron: int,
    states: tuple[int, ...],
    budget: Budget,
    left: list[int],
) -> Iterator[tuple[tuple[int, ...], Region]]:
    """All states of one layer's neurons that leave a point in the region."""
    if neuron == len(weight):
        yield states, region
        return
    for state, sign in ((1, -1), (0, 1)):
        left[0] -= 1
        budget.spend(len(region.rows) * weight.size)
        if left[0] < 0 or budget.exhausted:
            return
        part = region.cut(rows=[weight[neuron] * sign], bounds=[-sign * offset[neuron]])
        if not part.is_empty():
            yield from _split(part, weight, offset, neuron + 1, (*states, state), budget, left)
