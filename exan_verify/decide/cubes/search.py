"""The tree that refutes a cube: cuts of the samples' inputs until every box is absurd, or the batch's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from exan_verify.core.budget import Budget, poll
from exan_verify.core.certificate import Absurd, Alone, Cut, Definite, EachLabel, Told
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.cubes.problem import Sides
from exan_verify.decide.cubes.relaxation import Cube
from exan_verify.decide.cubes.rigid import Neighbourhood, Point, definite, known_points, told

Node = Absurd | Cut | EachLabel | Told | Alone | Definite

NODE_WORK = 100_000
"""Of one box: some 10 ms, and what is spent on its linear program."""

FARTHEST, SMALLEST, FAR = 2**20, Fraction(1, 2**20), 1e3
REACHES = tuple(Fraction(4, 2**k) for k in range(24))
"""Half widths of the boxes around the batch that are tried, largest first."""


@dataclass(kw_only=True)
class Limits:
    """What is left for all trees: nodes, work, and the time until ``end``."""

    nodes: int
    budget: Budget
    end: float
    stopped: str = ""

    def spend(self) -> bool:
        """Take one node; whether there was one."""
        poll()
        self.nodes -= 1
        self.budget.spend(NODE_WORK)
        if self.budget.exhausted:
            self.stopped = self.budget.exhausted
        elif self.nodes < 0 or time.monotonic() > self.end:
            self.stopped = "more boxes than are tried"
        return not self.stopped


@dataclass(kw_only=True)
class Tree:
    """The search in one cube."""

    limits: Limits
    nodes: list[Node] = field(default_factory=list)
    reached: dict[tuple[Point, tuple[int, ...], Sides], Sides | None] = field(default_factory=dict)

    def grown(self, start: Cube) -> list[Node] | None:
        """The nodes in preorder; None where a box is left or the limits are reached."""
        stack = [start]
        while stack:
            if not self.limits.spend():
                return None
            cube = stack.pop()
            node = self._node(cube)
            if node is None:
                return None
            self.nodes.append(node)
            if isinstance(node, EachLabel):
                stack += cube.labelled()[::-1]
            elif isinstance(node, Told):
                placed = told(cube)
                assert placed is not None
                stack.append(placed[1])
            elif isinstance(node, Cut):
                stack += cube.cut(node.axis, Fraction(node.at))[::-1]
        return self.nodes

    def _node(self, cube: Cube) -> Node | None:
        placed = told(cube)
        if placed is not None:
            return Told(placed[0])
        points = known_points(cube) if cube.complete else []
        if points:
            return self._around(cube, points)
        if not cube.complete and cube.problem.loss is Loss.MSE:
            return EachLabel()
        rows, point = cube.absurd()
        if rows is not None:
            return Absurd(tuple(rows))
        if not cube.complete:
            return EachLabel()
        return None if point is None else _cut(cube, *point)

    def _around(self, cube: Cube, points: Sequence[Point]) -> Node | None:
        """Towards a box around one of the points in which nothing else is a solution."""
        goal = self._reach(cube, points)
        if goal is None and cube.problem.loss is Loss.MSE and cube.problem.entries is None:
            weights = definite(cube, points[0])
            if weights is not None:
                return Definite(tuple(map(str, weights)))
        if goal is None:
            self.limits.stopped = "other solutions next to the batch are not excluded"
            return None
        for axis, ((lo, hi), (low, high)) in enumerate(zip(cube.sides, goal, strict=True)):
            for at, side in ((high, hi), (low, lo)):
                if at != side:
                    return Cut(axis, str(at))
        return Alone()

    def _reach(self, cube: Cube, points: Sequence[Point]) -> Sides | None:
        point = points[0]
        around = Neighbourhood(cube=cube, point=point)
        uniform = [Fraction(1)] * len(point)
        for reach in REACHES:
            for shape in (uniform, around.shape()):
                goal = tuple(
                    (
                        v - reach * part if lo is None else max(lo, v - reach * part),
                        v + reach * part if hi is None else min(hi, v + reach * part),
                    )
                    for v, part, (lo, hi) in zip(point, shape, cube.sides, strict=True)
                )
                others = any(_inside(p, goal) for p in points[1:])
                key = point, cube.given, goal
                if key not in self.reached:
                    self.reached[key] = goal if not others and around.rigid(goal) else None
                if self.reached[key] is not None:
                    return goal
        return None


def _inside(point: Point, sides: Sides) -> bool:
    return all(
        (lo is None or lo <= v) and (hi is None or v <= hi) for v, (lo, hi) in zip(point, sides, strict=True)
    )


def _cut(cube: Cube, inputs: Array, gaps: Array) -> Cut | None:
    """Of the sample whose products are most unlike its input in the program's point, the longest side, near
    that input: as long as it looks on a line bent to be finite, and weighed by where the input is on it.
    """
    d, flat = cube.problem.features, inputs.reshape(-1)
    near = 1 + np.minimum(np.abs(flat), FAR)
    lengths = [_bent(hi, 1.0) - _bent(lo, -1.0) for lo, hi in cube.sides]
    scores = np.array(lengths) * near * np.repeat(gaps, d)
    for axis in map(int, np.argsort(-scores, kind="stable")):
        if not scores[axis] > 0:
            break
        at = _place(cube.sides[axis], float(flat[axis]))
        if at is not None:
            return Cut(axis, str(at))
    return None


def _bent(end: Fraction | None, infinite: float) -> float:
    """The end of a side on a line that is bent to be finite."""
    return infinite if end is None else float(end / (1 + abs(end)))


def _place(side: tuple[Fraction | None, Fraction | None], value: float) -> Fraction | None:
    """Where a side is cut, near a value; None where it is too short, or too far away."""
    lo, hi = side
    if lo is not None and hi is not None:
        if hi - lo < SMALLEST:
            return None
        share = min(max((value - float(lo)) / float(hi - lo), 0.2), 0.8) if np.isfinite(value) else 0.5
        return lo + (hi - lo) * Fraction(round(share * 16), 16)
    at = Fraction(round(min(max(value, -8.0), 8.0) * 8), 8)
    if lo is not None and at <= lo:
        at = lo + abs(lo) + 1
    if hi is not None and at >= hi:
        at = hi - abs(hi) - 1
    return at if abs(at) <= FARTHEST else None
