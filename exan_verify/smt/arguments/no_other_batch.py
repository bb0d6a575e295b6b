"""Cubes that hold no batch but the known one, in few unknowns (docs/theory.md, appendix C).

A cube fixes regions and labels, and a batch of it enters the gradient through one matrix
``T = sum g [x ; 1]^T`` per region. The arguments, each in a file of its own: second moments (mse,
:mod:`.moments`); ranks and signs of T (:mod:`.totals`); every region for itself where T is known
(:mod:`.one_region`); a cover of all regions at once (:mod:`.cover`); a definite combination of the equations
(mse, :mod:`.convex_sum`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern
from exan_verify.smt.arguments.convex_sum import definite, silent_motions
from exan_verify.smt.arguments.cover import MAX_COORDINATES, covered_in_turn
from exan_verify.smt.arguments.cube import MAX_BOXES, Cube, Point, same_labels
from exan_verify.smt.arguments.minors import left_by_ranks
from exan_verify.smt.arguments.moments import moments_determine
from exan_verify.smt.arguments.one_region import region_by_region, settled
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.arguments.totals import jointly_injective, no_totals, other_totals
from exan_verify.smt.question.difference import Known, placements, values_at
from exan_verify.smt.question.encode import encode
from exan_verify.smt.question.encoder import Fixed


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
    by_moments = cube.own and cube.loss is Loss.MSE
    if (by_moments and _moments(cube)) or (not cube.own and no_totals(cube)):
        return True
    if _by_regions(cube) if cube.same_regions else _by_samples(cube):
        return True
    return by_moments and _definite(cube, fixed, truth)


def _by_regions(cube: Cube) -> bool:
    """As many samples in each region as the known batch has: every region for itself where the T must be the
    known one, and some of the others at a time, by all that is known of their T; what they tell may tell the
    next (docs/theory.md, CB13).
    """
    left, settled_before = other_totals(cube), set[Pattern]()
    while True:
        blocks = dict(zip(cube.patterns, np.split(left, len(cube.patterns)), strict=True))
        told = [p for p, block in blocks.items() if not block.any() and p not in settled_before]
        for p in told:
            here, known = cube.samples_in(p), cube.known_in(p)
            if cube.own or not same_labels(here, known):
                found = settled(cube, here, known)
                if found != cube.own:
                    return found
        settled_before.update(told)
        waiting = [p for p, block in blocks.items() if block.any()]
        if not waiting:
            return cube.own
        for some in _some(cube, waiting):
            here, others = _parted(cube, some, waiting)
            known = tuple(p for p in cube.known if p.pattern in some)
            if _told(cube, here, known, _unseen(blocks, some), others, _unseen(blocks, waiting)):
                break
        else:
            return False
        if not same_labels(here, known):
            return True
        settled_before.update(some)
        left = linalg.multiply(left, linalg.nullspace(np.concatenate([blocks[p] for p in some])))
        counts = [len(cube.samples_in(p)) for p in cube.patterns]
        left = left_by_ranks([cube.total(p) for p in cube.patterns], left, counts)


def _by_samples(cube: Cube) -> bool:
    """Every region for itself where the gradient determines its T, elsewhere all at once, or some: what the
    others do not show has to come from these.
    """
    if jointly_injective(cube):
        return region_by_region(cube)
    patterns = list(dict.fromkeys(p.pattern for p in cube.samples))
    joint = cube.regions.joint(cube.patterns)
    for some in _some(cube, patterns):
        unseen = [p for p in patterns if p not in some]
        rows = linalg.nullspace(cube.regions.joint(unseen).T).T if unseen else None
        system = joint if rows is None else linalg.multiply(rows, joint)
        here, others = _parted(cube, some, patterns)
        if _told(cube, here, (), system, others, joint):
            return True
    return False


def _parted(
    cube: Cube, some: Sequence[Pattern], patterns: Sequence[Pattern]
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """The cube's samples in some regions, and in the others of ``patterns``."""
    here = tuple(p for p in cube.samples if p.pattern in some)
    return here, tuple(p for p in cube.samples if p.pattern in patterns and p.pattern not in some)


def _unseen(blocks: dict[Pattern, Array], some: Sequence[Pattern]) -> Array:
    """All y with ``y T = y T_0`` of some regions whose T differ by their ``blocks`` at most: y does not see
    what is left.
    """
    size, width = len(blocks[some[0]]), len(blocks)
    chosen = [p for p in blocks if p in some]
    rows = linalg.nullspace(np.concatenate([blocks[p] for p in chosen]).T).T
    system = np.full((len(rows), width * size), Fraction(0), dtype=object)
    system[:, np.repeat([p in some for p in blocks], size)] = rows
    return system


def _some(cube: Cube, patterns: list[Pattern]) -> Iterator[tuple[Pattern, ...]]:
    """Choices of regions whose samples have few enough coordinates for a cover: all of them, then few before
    many (not for mse: solvers do polynomials better than covers of a part do).
    """
    count = len(patterns)
    for size in (count, *(() if cube.loss.rational else range(1, count))):
        for some in combinations(patterns, size):
            samples = sum(len(cube.samples_in(p)) for p in some)
            if cube.boxes and samples * len(cube.known[0].x) <= MAX_COORDINATES:
                yield some


def _told(
    cube: Cube,
    here: tuple[Point, ...],
    known: tuple[Point, ...],
    system: Array,
    others: tuple[Point, ...],
    whole: Array,
) -> bool:
    """Whether a cover leaves ``known`` alone; where there are fewer equations than coordinates, none does."""
    enough = linalg.rank(system) >= len(here) * len(cube.known[0].x)
    return enough and covered_in_turn(cube, here, known, system, others, whole)


def _moments(own: Cube) -> bool:
    groups = [own.known_in(p) for p in own.patterns]
    parts = [(own.region(g[0].pattern), [p.y for p in g], [p.x for p in g]) for g in groups]
    return moments_determine(parts, has_bias=own.has_bias)


def _definite(own: Cube, fixed: Fixed, truth: Known) -> bool:
    encoding = encode(own.posed, fixed)
    order = next(placements(own.posed, truth, fixed), None)
    if order is None:
        return False
    equations = [e for _, e in encoding.equations]
    silent = silent_motions([own.region(p.pattern) for p in own.samples], len(own.known[0].x))
    return definite(equations, values_at(encoding, truth, order), silent)
