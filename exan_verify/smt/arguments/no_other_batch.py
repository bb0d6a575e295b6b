"""Cubes that hold no batch but the known one: region by region, in few unknowns (docs/theory.md, appendix C).

A cube fixes regions and labels. Where the maps L of its regions and of the known batch's are jointly
injective, every region keeps its ``T = sum g [x ; 1]^T``, and each is a problem of its own: a single sample
is T divided by its loss vector; equal samples are alone because their losses are strictly convex; the rest
is covered by boxes (:mod:`.enclose`). Elsewhere signs of loss vectors may contradict every T
(:mod:`.signs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import permutations
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern, Region
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.arguments.convex_sum import definite
from exan_verify.smt.arguments.enclose import System, only_known_zeros
from exan_verify.smt.arguments.minors import independent_columns, low_rank_contradicts
from exan_verify.smt.arguments.moments import moments_determine
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.arguments.scales import other_scale
from exan_verify.smt.arguments.signs import signs_contradict
from exan_verify.smt.question.difference import Known, placements, values_at
from exan_verify.smt.question.encode import Fixed, encode
from exan_verify.smt.question.posed import Posed, Vector
from exan_verify.smt.question.transcendental import PRECISION, probability

MAX_BOXES = 4000
"""Boxes for one region: a few seconds."""

MAX_COORDINATES = 4


@dataclass(frozen=True, slots=True)
class Point:
    """A sample: its region, input and target vector; of the known batch, or (without input) of the cube."""

    pattern: Pattern
    y: Vector
    x: Vector = ()


@dataclass(frozen=True, kw_only=True)
class Cube:
    """A cube's samples beside those of the rational known batch."""

    regions: Regions
    samples: tuple[Point, ...]
    known: tuple[Point, ...]
    boxes: int = MAX_BOXES

    @property
    def posed(self) -> Posed:
        """The question."""
        return self.regions.posed

    @property
    def has_bias(self) -> bool:
        """Whether inputs are seen beside a 1."""
        return self.posed.network.has_bias

    @cached_property
    def patterns(self) -> list[Pattern]:
        """All regions of cube and known batch."""
        return list(dict.fromkeys(p.pattern for p in (*self.samples, *self.known)))

    @cached_property
    def own(self) -> bool:
        """Whether the known batch lies in the cube."""
        return sorted((p.pattern, p.y) for p in self.samples) == sorted((p.pattern, p.y) for p in self.known)

    def empty(self) -> bool:
        """Whether no batch of the cube but the known one has the gradient."""
        if self.own and self.posed.question.loss is Loss.MSE and self._by_moments():
            return True
        if (forced := self._by_sums()) is not None:
            return forced
        system = self.regions.joint(self.patterns)
        key = ("injective", tuple(self.patterns))
        if key not in self.regions.memory:
            self.regions.memory[key] = linalg.rank(system) == system.shape[1]
        if self.regions.memory[key]:
            return self._region_by_region()
        return self._covered(self.samples, self.known, system)

    def _by_sums(self) -> bool | None:
        """What ranks and signs say about the T of the cube's regions; in the own cube, that T is the known
        one.
        """
        patterns = list(dict.fromkeys(p.pattern for p in self.samples))
        here = [self._members(self.samples, p) for p in patterns]
        counts = [len(points) for points in here]
        if self.own:
            kernel = linalg.nullspace(self.regions.joint(patterns))
            totals = [self._total(self._members(self.known, p)) for p in patterns]
            known = low_rank_contradicts(totals, kernel, counts, known=True)
            return self._region_by_region() if known else None
        kernel, totals, refuted = self._remembered(tuple(patterns), tuple(counts))
        if refuted or self.posed.question.loss.rational:
            return refuted or None
        regions, labels = [self._region(p) for p in patterns], [[p.y for p in points] for points in here]
        domain = self.posed.bounds
        return signs_contradict(regions, kernel, totals, labels, domain, has_bias=self.has_bias) or None

    def _remembered(
        self, patterns: tuple[Pattern, ...], counts: tuple[int, ...]
    ) -> tuple[Array, list[Array], bool]:
        """Kernel, one solution T, and whether ranks contradict it: the same for all labels of the samples."""
        memory = self.regions.memory
        key = (patterns, counts, self.known)
        if key not in memory:
            system = self.regions.joint(patterns)
            kernel = linalg.nullspace(system)
            totals = self._particular(system, len(patterns))
            memory[key] = kernel, totals, low_rank_contradicts(totals, kernel, counts, known=False)
        found: tuple[Array, list[Array], bool] = memory[key]
        return found

    def _particular(self, system: Array, count: int) -> list[Array]:
        """One solution T of the regions' equations, as balls; the others are zero off the pivots."""
        columns = linalg.pivots(system)
        rows = linalg.pivots(system[:, columns].T)
        square = system[np.ix_(rows, columns)]
        inverse = linalg.solve(square, _identity(len(rows)))
        assert inverse is not None
        everyone = self.regions.joint(self.patterns)
        entries = [v for p in self.patterns for v in self._total(self._members(self.known, p)).reshape(-1)]
        with flint.ctx.workprec(PRECISION):
            goal = [_dot(everyone[r], entries) for r in rows]
            values = np.full(system.shape[1], flint.arb(0), dtype=object)
            for place, weights in zip(columns, inverse, strict=True):
                values[place] = _dot(weights, goal)
        shape = (count, len(self._seen), len(self.known[0].x) + self.has_bias)
        return list(values.reshape(shape))

    def _region_by_region(self) -> bool:
        """One region without a solution empties the cube; in the own cube every one must have just the
        known.
        """
        parts = ((self._members(self.samples, p), self._members(self.known, p)) for p in self.patterns)
        if self.own:
            return all(self._settled(here, known) for here, known in parts)
        return any(self._settled(here, known) for here, known in parts if not _fits(here, known))

    def _settled(self, here: tuple[Point, ...], known: tuple[Point, ...]) -> bool:
        """A region whose T is known has no solution with the labels ``here`` but ``known``, where that
        fits.
        """
        if not known:
            return self._needs_some(here)
        if len(here) < len(known) and self._independent(known):
            return True  # fewer samples cannot have a T of that rank
        if len(here) == len(known) == 1:
            return self._single(here[0], known[0])
        if len({(p.x, p.y) for p in known}) == 1 and _fits(here, known):
            return self._equal(known[0])
        return self._covered(here, known, None)

    def _needs_some(self, here: tuple[Point, ...]) -> bool:
        """Whether these samples cannot have T = 0: their loss vectors have no zero and one sign per class."""
        return not self.posed.question.loss.rational and self.has_bias and len({p.y for p in here}) == 1

    def _single(self, here: Point, known: Point) -> bool:
        """x = T_k / g_k with biases, so the label must be the known one; without them there is a scale."""
        if self.posed.question.loss.rational and not self._half_vector(known).any():
            return False
        if self.has_bias:
            return True
        if not any(known.x):
            return not self.posed.question.loss.rational and here.y == known.y
        if not (known.pattern and any(known.pattern[0])):
            return False  # nothing excludes a negative scale
        return not other_scale(self.posed.question.loss, list(self._logits(known)), known.y, here.y)

    def _equal(self, known: Point) -> bool:
        """Equal samples with equal labels: ``sum g' = s g`` and ``sum g' f' = s g f`` with g f strictly
        convex in g, so every g' is g and every f' is f; f tells x where the logits' map is injective.
        """
        maps = self._region(known.pattern).logits[:, :-1]
        if self.regions.zero_sum:
            maps = maps[:-1] - maps[-1:]
        return self.has_bias and linalg.rank(maps) == maps.shape[1]

    def _by_moments(self) -> bool:
        groups = [self._members(self.known, p) for p in self.patterns]
        parts = [(self._region(g[0].pattern), [p.y for p in g], [p.x for p in g]) for g in groups]
        return moments_determine(parts, has_bias=self.has_bias)

    def silent(self) -> Array:
        """Motions of single samples that no logit sees, one column each."""
        parts = [linalg.nullspace(self._region(p.pattern).logits[:, :-1]) for p in self.samples]
        size = len(self.known[0].x)
        out = np.full((len(parts) * size, sum(p.shape[1] for p in parts)), Fraction(0), dtype=object)
        column = 0
        for m, part in enumerate(parts):
            out[m * size : (m + 1) * size, column : column + part.shape[1]] = part
            column += part.shape[1]
        return out

    def _independent(self, known: tuple[Point, ...]) -> bool:
        """Whether loss vectors and inputs of samples are independent: T has full rank."""
        points = np.array([(*p.x, Fraction(1))[: len(p.x) + self.has_bias] for p in known], dtype=object)
        if linalg.rank(points) < len(known):
            return False
        if self.posed.question.loss.rational:
            vectors = np.array([self._half_vector(p) for p in known], dtype=object)
            return linalg.rank(vectors) == len(known)
        with flint.ctx.workprec(PRECISION):
            return independent_columns(list(zip(*(self._vector(p) for p in known), strict=True)))

    def _covered(self, here: tuple[Point, ...], known: tuple[Point, ...], joint: Array | None) -> bool:
        """Cover rows of Q, ``[x' ; 1] = Q [x ; 1]``, or the inputs themselves; ``joint``: all regions at
        once.
        """
        affine = joint is None and len(here) == len(known) and self.has_bias and self._independent(known)
        size = len(known) - 1 if affine else len(known[0].x)
        if not self.boxes or len(here) * size > MAX_COORDINATES:
            return False
        if joint is not None and not joint.any():
            return False  # no equation sees any sample of these regions
        frame = _affine_frame(known) if affine else _input_frame(size)
        if joint is None:
            weights = self._unit_weights(len(here), frame.shape[1])
        else:
            weights = self._gradient_weights(here, joint)
        with flint.ctx.workprec(PRECISION):
            right = self._right(known, joint, frame)
        system = System(
            loss=self.posed.question.loss,
            logits=tuple(linalg.multiply(self._region(p.pattern).logits, frame) for p in here),
            labels=tuple(p.y for p in here),
            conditions=tuple(tuple(self._conditions(p, frame)) for p in here),
            weights=weights,
            right=right,
            known=tuple(_arrangements(here, known, frame)),
        )
        # in few dimensions boxes are quick
        limit = self.boxes * (4 if len(here) * size <= 2 else 1)
        return only_known_zeros(system, ((None, None),) * (len(here) * size), limit)

    def _unit_weights(self, size: int, columns: int) -> Array:
        """``sum_m g_mc [1 ; a_m]_k``: one equation per class c and coordinate k (no constant without
        biases).
        """
        classes = self.posed.network.classes
        places = [(c, k) for c in self._seen for k in range(1 - self.has_bias, columns)]
        out = np.full((len(places), size, classes, columns), Fraction(0), dtype=object)
        for e, (c, k) in enumerate(places):
            out[e, :, c, k] = Fraction(1)
        return out

    @property
    def _seen(self) -> range:
        return range(self.posed.network.classes - self.regions.zero_sum)

    def _gradient_weights(self, here: tuple[Point, ...], joint: Array) -> Array:
        """``weights[e, m]``: independent row e of the gradient at sample m's region, constants first."""
        rows = joint[linalg.pivots(joint.T)]
        width, size = joint.shape[1] // len(self.patterns), len(self.known[0].x)
        out = np.full((len(rows), len(here), self.posed.network.classes, size + 1), Fraction(0), dtype=object)
        for m, sample in enumerate(here):
            place = self.patterns.index(sample.pattern)
            shape = (len(rows), len(self._seen), size + self.has_bias)
            part = rows[:, place * width : (place + 1) * width].reshape(shape)
            out[:, m, : part.shape[1], 1:] = part[:, :, :size]
            if self.has_bias:
                out[:, m, : part.shape[1], 0] = part[:, :, size]
        return out

    def _right(self, known: tuple[Point, ...], joint: Array | None, frame: Array) -> tuple[Any, ...]:
        """The same equations at the known samples."""
        if joint is not None:
            rows = joint[linalg.pivots(joint.T)]
            entries = [v for p in self.patterns for v in self._total(self._members(known, p)).reshape(-1)]
            return tuple(_dot(row, entries) for row in rows)
        points = [(Fraction(1), *_coordinates(p, frame)) for p in known]
        vectors = [self._vector(p) for p in known]
        return tuple(
            sum((v[c] * to_ball(a[k]) for v, a in zip(vectors, points, strict=True)), flint.arb(0))
            for c in self._seen
            for k in range(1 - self.has_bias, frame.shape[1])
        )

    def _total(self, known: tuple[Point, ...]) -> Array:
        """``sum g [x ; 1]^T`` of samples as balls, in the shape that the regions' maps take."""
        size = len(self.known[0].x) + self.has_bias
        out = np.full((len(self._seen), size), flint.arb(0), dtype=object)
        with flint.ctx.workprec(PRECISION):
            for p in known:
                vector = self._vector(p)
                for c in self._seen:
                    for k, v in enumerate((*p.x, Fraction(1))[:size]):
                        out[c, k] += vector[c] * to_ball(v)
        return out

    def _conditions(self, sample: Point, frame: Array) -> Any:
        """The region and the domain, as affine functions of the coordinates."""
        region = self._region(sample.pattern)
        if len(region.states):
            rows = linalg.multiply(region.states, frame)
            yield from (
                (row, True) if on else (-row, False) for row, on in zip(rows, region.active, strict=True)
            )
        for k, (low, high) in enumerate(self.posed.bounds or ()):
            below, above = frame[k].copy(), -frame[k]
            below[0] -= low
            above[0] += high
            yield below, False
            yield above, False

    def _members(self, points: Sequence[Point], pattern: Pattern) -> tuple[Point, ...]:
        return tuple(p for p in points if p.pattern == pattern)

    def _region(self, pattern: Pattern) -> Region:
        return self.regions.region(pattern)

    def _logits(self, p: Point) -> Array:
        found: Array = self._region(p.pattern).logits @ np.array([*p.x, Fraction(1)], dtype=object)
        return found

    def _half_vector(self, p: Point) -> Array:
        """mse: half the loss vector."""
        found: Array = self._logits(p) - np.array(p.y, dtype=object)
        return found

    def _vector(self, p: Point) -> list[Any]:
        """The loss vector (reduction sum) as balls."""
        logits = [to_ball(f) for f in self._logits(p)]
        if self.posed.question.loss is Loss.MSE:
            return [2 * (f - to_ball(y)) for f, y in zip(logits, p.y, strict=True)]
        return [probability(logits, k, self.posed.question.loss) - to_ball(y) for k, y in enumerate(p.y)]


def only_known(regions: Regions, fixed: Fixed, truth: Known, *, boxes: int = MAX_BOXES) -> bool:
    """Whether a cube holds no batch with the gradient, but perhaps the rational known batch ``truth``; a
    cover may take that many ``boxes``.
    """
    posed, batch = regions.posed, truth.batch
    if posed.question.tolerance is not None or posed.alphabet is None or posed.question.loss is Loss.HINGE:
        return False
    if not batch.rational:
        return False
    cube = Cube(
        regions=regions,
        samples=tuple(map(Point, regions.patterns(fixed), regions.labels(fixed))),
        known=tuple(
            Point(pattern, tuple(v.value for v in y), tuple(v.value for v in x))
            for pattern, x, y in zip(regions.states(truth.states), batch.x, batch.y, strict=True)
        ),
        boxes=boxes,
    )
    if cube.empty():
        return True
    return cube.own and posed.question.loss is Loss.MSE and _definite(cube, fixed, truth)


def _definite(cube: Cube, fixed: Fixed, truth: Known) -> bool:
    encoding = encode(cube.posed, fixed)
    order = next(placements(cube.posed, truth, fixed), None)
    if order is None:
        return False
    equations = [e for _, e in encoding.equations]
    return definite(equations, values_at(encoding, truth, order), cube.silent())


def _identity(size: int) -> Array:
    out = np.full((size, size), Fraction(0), dtype=object)
    for k in range(size):
        out[k, k] = Fraction(1)
    return out


def _fits(here: Sequence[Point], known: Sequence[Point]) -> bool:
    return sorted(p.y for p in here) == sorted(p.y for p in known)


def _affine_frame(known: Sequence[Point]) -> Array:
    """Columns [x_1 ; 1] and x_m - x_1: ``[x ; 1] = frame [1 ; a]`` on the affine span."""
    first = [*known[0].x, Fraction(1)]
    steps = [[b - a for a, b in zip(first, [*p.x, Fraction(1)], strict=True)] for p in known[1:]]
    return np.array([first, *steps], dtype=object).T


def _input_frame(size: int) -> Array:
    """``[x ; 1]`` from ``[1 ; x]``."""
    frame = np.full((size + 1, size + 1), Fraction(0), dtype=object)
    frame[size, 0] = Fraction(1)
    for k in range(size):
        frame[k, k + 1] = Fraction(1)
    return frame


def _arrangements(here: Sequence[Point], known: Sequence[Point], frame: Array) -> list[Vector]:
    """The orders of the known samples that fit regions and labels, as coordinates."""
    if len(here) != len(known):
        return []
    found = [
        sum((_coordinates(p, frame) for p in order), ())
        for order in permutations(known)
        if all(a.pattern == b.pattern and a.y == b.y for a, b in zip(here, order, strict=True))
    ]
    return list(dict.fromkeys(found))


def _coordinates(p: Point, frame: Array) -> Vector:
    found = linalg.solve(frame, np.array([[*p.x, Fraction(1)]], dtype=object).T)
    assert found is not None
    return tuple(found[1:, 0])


def _dot(row: Array, values: Sequence[Any]) -> Any:
    return sum((to_ball(c) * v for c, v in zip(row, values, strict=True) if c), flint.arb(0))
