"""Cubes that hold no batch but the known one, in few unknowns (docs/theory.md, appendix C).

A cube fixes regions and labels, and a batch of it enters the gradient through one matrix
``T = sum g [x ; 1]^T`` per region. The arguments, each in a file of its own: second moments (mse,
:mod:`.moments`); ranks and signs of T (:mod:`.totals`); every region for itself where T is known
(:mod:`.one_region`); a cover of all regions at once (:mod:`.cover`); a definite combination of the equations
(mse, :mod:`.convex_sum`).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.smt.arguments.convex_sum import definite, silent_motions
from exan_verify.smt.arguments.cover import covered
from exan_verify.smt.arguments.cube import MAX_BOXES, Cube, Point, same_labels
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
    known one, the others at once, by all that is known of their T.
    """
    left = other_totals(cube)
    blocks = dict(zip(cube.patterns, np.split(left, len(cube.patterns)), strict=True))
    told = [p for p, block in blocks.items() if not block.any()]
    parts = ((cube.samples_in(p), cube.known_in(p)) for p in told)
    if cube.own:
        if not all(settled(cube, here, known) for here, known in parts):
            return False
    elif any(settled(cube, here, known) for here, known in parts if not same_labels(here, known)):
        return True
    if len(told) == len(blocks):
        return cube.own
    here = tuple(p for p in cube.samples if p.pattern not in told)
    known = tuple(p for p in cube.known if p.pattern not in told)
    if not cube.own and same_labels(here, known):
        return False  # the cover would find the known samples
    # y T = y T_0 for every y that does not see what is left
    rows = linalg.nullspace(np.concatenate([b for p, b in blocks.items() if p not in told]).T).T
    system = np.full((len(rows), len(left)), Fraction(0), dtype=object)
    system[:, np.repeat([p not in told for p in blocks], len(left) // len(blocks))] = rows
    return covered(cube, here, known, system)


def _by_samples(cube: Cube) -> bool:
    """Every region for itself where the gradient determines its T, all at once elsewhere."""
    if jointly_injective(cube):
        return region_by_region(cube)
    return covered(cube, cube.samples, cube.known, cube.regions.joint(cube.patterns))


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
