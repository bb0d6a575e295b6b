"""Around the given batch: how large a box holds no other solution, and samples that are equal there."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, permutations
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.cubes.problem import Sides
from exan_verify.decide.cubes.relaxation import Cube, Frame, extent
from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern
from exan_verify.exact.softmax import loss_vectors, loss_vectors_ball, to_ball
from exan_verify.smt.arguments.convex_sum import MAX_ENTRIES, definite_weights, silent_motions

PRECISION = 128
ENOUGH = 0.9
"""The kernel asks for less than 1, with more bits."""

Point = tuple[Fraction, ...]


def known_points(cube: Cube) -> list[Point]:
    """The orders of the given samples that lie in the cube's box, each once."""
    problem, found = cube.problem, list[Point]()
    for order in permutations(range(problem.size)):
        fits = all(
            problem.patterns[n] == cube.patterns[m] and problem.own[n] == cube.letter(m)
            for m, n in enumerate(order)
        )
        if not fits:
            continue
        rows = [problem.inputs[n] for n in order]
        point = tuple(v for row in rows for v in row)
        inside = all(
            (lo is None or lo <= v) and (hi is None or v <= hi)
            for v, (lo, hi) in zip(point, cube.sides, strict=True)
        )
        in_order = all(rows[m][0] <= rows[m + 1][0] for m in range(len(rows) - 1) if cube.in_order(m))
        if inside and in_order and point not in found:
            found.append(point)
    return found


def told(cube: Cube) -> tuple[int, Cube] | None:
    """A sample whose region's sum the gradient tells, and the cube with the samples there in their place, or
    in the span of the batch's; None where there is none that was not placed before (docs/theory.md CB5).
    """
    problem = cube.problem
    if problem.entries is not None:
        return None
    for pattern in dict.fromkeys(cube.patterns):
        here = [m for m, p in enumerate(cube.patterns) if p == pattern]
        own = [n for n, p in enumerate(problem.patterns) if p == pattern]
        if len(own) != len(here) or here[0] in cube.spans:
            continue
        inputs = [problem.inputs[n] for n in own]
        placed = all(lo is not None and lo == hi for lo, hi in cube.box(here[0]))
        if placed or not _sum_is_told(cube, pattern):
            continue
        if len(own) > 1 and len(set(inputs)) == 1:
            if _equal(cube, here, own):
                return here[0], cube.at(here, inputs[0])
            continue
        ones = [[Fraction(int(problem.network.has_bias))]] * len(own)
        points = np.concatenate([np.array(inputs, dtype=object), ones], axis=1)
        if linalg.rank(points) == len(own) and _independent(cube, own):
            rows = linalg.nullspace(points if problem.network.has_bias else points[:, :-1]).T
            if not problem.network.has_bias:
                rows = np.concatenate([rows, np.full((len(rows), 1), Fraction(0), dtype=object)], axis=1)
            return here[0], cube.within(here, rows)
    return None


def _sum_is_told(cube: Cube, pattern: Pattern) -> bool:
    """Whether the gradient tells the sum of a region of the cube."""
    problem = cube.problem
    key = pattern, frozenset(cube.patterns)
    if key not in problem.told:
        others = {p for p in (*cube.patterns, *problem.patterns) if p != pattern}
        system = problem.region(pattern).system
        rest = [problem.region(p).system for p in sorted(others)]
        alone = linalg.rank(np.concatenate(rest, axis=1)) if rest else 0
        whole = linalg.rank(np.concatenate([system, *rest], axis=1))
        problem.told[key] = whole == alone + system.shape[1]
    return problem.told[key]


def _independent(cube: Cube, own: list[int]) -> bool:
    """Whether loss vectors of the batch are independent."""
    problem = cube.problem
    logits, labels = problem.rest.logits[own].T, problem.rest.batch.labels[own]
    if problem.loss.rational:
        return linalg.rank(loss_vectors(problem.loss, logits, labels, 1)) == len(own)
    with flint.ctx.workprec(PRECISION):
        balls = loss_vectors_ball(problem.loss, logits, labels, 1, PRECISION)
        chosen = combinations(range(problem.classes), len(own))
        minors = (flint.arb_mat([[balls[c, n] for n in range(len(own))] for c in rows]) for rows in chosen)
        return any(not minor.det().contains(0) for minor in minors)


def _equal(cube: Cube, here: list[int], own: list[int]) -> bool:
    """Whether equal samples of the batch are alone in their region by the convexity of their loss."""
    problem = cube.problem
    letters = {problem.own[n] for n in own}
    if len(letters) > 1 or problem.loss is Loss.HINGE or not problem.network.has_bias:
        return False
    if any(cube.letter(m) not in letters for m in here):
        return False
    maps = problem.region(cube.patterns[here[0]]).logits[:, :-1]
    if problem.loss.zero_sum:
        maps = maps[1:] - maps[0]
    return linalg.rank(maps) == problem.features


def definite(cube: Cube, point: Point) -> Array | None:
    """mse: weights of the gradient's entries that leave no other solution in the cube than the point, (CB7);
    None where none is found.
    """
    problem, d = cube.problem, cube.problem.features
    n = len(point)
    if len(problem.floats) * n * n > MAX_ENTRIES:
        return None
    squares = np.full((len(problem.floats), n, n), Fraction(0), dtype=object)
    slopes = np.full((len(problem.floats), n), Fraction(0), dtype=object)
    maps = []
    for m, pattern in enumerate(cube.patterns):
        frame = Frame(problem=problem, pattern=pattern, letter=cube.letter(m), box=cube.box(m))
        moments, here = frame.equations(), slice(m * d, (m + 1) * d)
        outer = np.full((len(moments), d + 1, d + 1), Fraction(0), dtype=object)
        for line, (i, j) in zip(moments.T, zip(*np.triu_indices(d + 1), strict=True), strict=True):
            outer[:, i, j] += line / 2
            outer[:, j, i] += line / 2
        squares[:, here, here], slopes[:, here] = outer[:, :d, :d], 2 * outer[:, :d, d]
        maps.append(problem.region(pattern))
    jacobian = 2 * (squares @ np.array(point, dtype=object)) + slopes
    return definite_weights(jacobian, list(squares), silent_motions(maps, d))


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """A known point of a cube, and what is tight there: rows with ``row h >= 0`` for solutions p + h."""

    cube: Cube
    point: Point

    def tight(self, sides: Sides) -> Array:
        """Rows (n, coordinates)."""
        cube, d = self.cube, self.cube.problem.features
        rows = []
        for m, pattern in enumerate(cube.patterns):
            x = np.array([*self.point[m * d : (m + 1) * d], Fraction(1)], dtype=object)
            frame = Frame(
                problem=cube.problem, pattern=pattern, letter=cube.letter(m), box=sides[m * d : (m + 1) * d]
            )
            for _, row, _ in frame.functionals():
                if row @ x == 0:
                    wide = np.full(len(sides), Fraction(0), dtype=object)
                    wide[m * d : (m + 1) * d] = row[:-1]
                    rows.append(wide)
            if cube.in_order(m) and self.point[m * d] == self.point[(m + 1) * d]:
                wide = np.full(len(sides), Fraction(0), dtype=object)
                wide[m * d], wide[(m + 1) * d] = Fraction(-1), Fraction(1)
                rows.append(wide)
        return np.array(rows, dtype=object).reshape(-1, len(sides))

    def shape(self) -> list[Fraction]:
        """How wide a box is good for each coordinate: wider where the gradient says little of it."""
        at = tuple((v, v) for v in self.point)
        with flint.ctx.workprec(PRECISION):
            slopes = self._slopes(at)
        norms = np.linalg.norm([[float(v.mid()) for v in row] for row in slopes], axis=0)
        most = norms.max(initial=0.0)
        return [Fraction(2 ** min(20, round(np.log2(most / n)))) if n > 0 else Fraction(1) for n in norms]

    def rigid(self, sides: Sides) -> bool:
        """Whether a bounded box is shown to hold no other solution."""
        moving = [k for k, (lo, hi) in enumerate(sides) if lo != hi]
        if not moving:
            return True
        with flint.ctx.workprec(PRECISION):
            slopes = np.array(self._slopes(sides), dtype=object)[:, moving]
            centre = np.array([[float(v.mid()) for v in row] for row in slopes])
            radius = np.array([[float(v.rad()) for v in row] for row in slopes])
        if not (np.isfinite(centre).all() and np.isfinite(radius).all()):
            return False
        widths = np.array([float(hi - lo) for lo, hi in sides if lo is not None and hi is not None])[moving]
        centre, radius = centre * widths, radius * widths
        tight = self.tight(sides)[:, moving].astype(np.float64) * widths
        for i in range(len(moving)):
            for sign in (1, -1) if len(tight) else (1,):
                goal = np.zeros(len(moving))
                goal[i] = sign
                weights, lifted = _weights(centre, tight, goal)
                miss = np.abs(weights @ centre - lifted @ tight - goal) + np.abs(weights) @ radius
                if not miss.sum() < ENOUGH:
                    return False
        return True

    def _slopes(self, sides: Sides) -> list[list[Any]]:
        cube, problem, d = self.cube, self.cube.problem, self.cube.problem.features
        found: list[list[Any]] = []
        for m, pattern in enumerate(cube.patterns):
            box, region, letter = sides[m * d : (m + 1) * d], problem.region(pattern), cube.letter(m)
            assert letter is not None
            g, gains = _vector(problem.loss, region.logits, letter.target, box)
            if letter.vector is not None:
                g, gains = [to_ball(v) for v in letter.vector], [[flint.arb(0)] * d] * problem.classes
            point = [*(_ball(side) for side in box), flint.arb(1)]
            rows = []
            for entry in region.system.reshape(-1, problem.free, problem.width):
                row = [flint.arb(0)] * d
                for c, rate in enumerate(entry):
                    if rate.any():
                        value = sum(
                            (to_ball(r) * v for r, v in zip(rate, point, strict=False) if r), flint.arb(0)
                        )
                        row = [
                            old + value * gain + to_ball(r) * g[c]
                            for old, gain, r in zip(row, gains[c], rate, strict=False)
                        ]
                rows.append(row)
            found = [[*a, *b] for a, b in zip(found, rows, strict=True)] if found else rows
        for m, line in cube.straight():
            wide = [flint.arb(0)] * len(sides)
            wide[m * d : (m + 1) * d] = [to_ball(v) for v in line[:-1]]
            found.append(wide)
        return found


def _weights(slopes: Array, tight: Array, goal: Array) -> tuple[Array, Array]:
    """Weights with ``weights slopes - lifted tight`` near the goal, lifted >= 0."""
    if not len(tight):
        return goal @ np.linalg.pinv(slopes), np.zeros(0)
    from scipy.optimize import nnls  # slow to load: only where a sample stands on the boundary

    try:
        found, _ = nnls(np.concatenate([slopes, -slopes, -tight]).T, goal)
    except RuntimeError:  # it did not converge
        return np.zeros(len(slopes)), np.zeros(len(tight))
    n = len(slopes)
    return found[:n] - found[n : 2 * n], found[2 * n :]


def _vector(loss: Loss, logits: Array, target: Point, box: Sides) -> tuple[list[Any], list[list[Any]]]:
    """Balls around g over a box, and around its derivatives."""
    d = len(box)
    slopes = [[to_ball(v) for v in row[:-1]] for row in logits]
    if loss is Loss.MSE:
        values = [2 * (_ball(extent(row, box)) - to_ball(y)) for row, y in zip(logits, target, strict=True)]
        return values, [[2 * s for s in row] for row in slopes]
    if loss is Loss.HINGE:
        return [], []
    chances = []
    for c, own in enumerate(logits):
        moved = [-own] if loss is Loss.BCE else [f - own for k, f in enumerate(logits) if k != c]
        chances.append(1 / sum((_ball(extent(row, box)).exp() for row in moved), flint.arb(1)))
    g = [p - to_ball(y) for p, y in zip(chances, target, strict=True)]
    if loss is Loss.BCE:
        return g, [[p * (1 - p) * s for s in row] for p, row in zip(chances, slopes, strict=True)]
    means = [
        sum((p * row[k] for p, row in zip(chances, slopes, strict=True)), flint.arb(0)) for k in range(d)
    ]
    return g, [
        [p * (s - mean) for s, mean in zip(row, means, strict=True)]
        for p, row in zip(chances, slopes, strict=True)
    ]


def _ball(side: tuple[Fraction | None, Fraction | None]) -> Any:
    low, high = side
    assert low is not None
    assert high is not None
    return to_ball(low).union(to_ball(high))
