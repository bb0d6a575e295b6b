"""Cubes that hold no batch but the known one, in few unknowns (docs/theory.md, appendix C).

A cube fixes regions and labels, and a batch of it enters the gradient through one matrix
``T = sum g [x ; 1]^T`` per region. The arguments, each in a file of its own: second moments (mse,
:mod:`.moments`); ranks and signs of T (:mod:`.totals`); every region for itself where T is known
(:mod:`.one_region`); a cover of all regions at once (:mod:`.cover`); a definite combination of the equations
(mse, :mod:`.convex_sum`).
"""

from __future__ import annotations

from exan_verify.core.question import Loss
from exan_verify.smt.arguments.convex_sum import definite, silent_motions
from exan_verify.smt.arguments.cover import covered
from exan_verify.smt.arguments.cube import MAX_BOXES, Cube, Point
from exan_verify.smt.arguments.moments import moments_determine
from exan_verify.smt.arguments.one_region import region_by_region
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.arguments.totals import jointly_injective, no_totals, only_known_totals
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
    if not cube.own:
        return no_totals(cube) or _by_samples(cube)
    by_moments = cube.loss is Loss.MSE
    if by_moments and _moments(cube):
        return True
    if region_by_region(cube) if only_known_totals(cube) else _by_samples(cube):
        return True
    return by_moments and _definite(cube, fixed, truth)


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
