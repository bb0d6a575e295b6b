"""Region by region, where every T is the known batch's (docs/theory.md, CB5).

A single sample is T divided by its loss vector; equal samples are alone because their losses are strictly
convex; fewer samples than the rank of T there are none; the rest is covered by boxes (:mod:`.cover`).
"""

from __future__ import annotations

from exan_verify.exact import linalg
from exan_verify.smt.arguments.cover import covered
from exan_verify.smt.arguments.cube import Cube, Point, same_labels
from exan_verify.smt.arguments.scales import other_scale


def region_by_region(cube: Cube) -> bool:
    """Whether no batch of the cube has the known T but the known one.

    One region without a solution empties the cube; in the own cube every one must have just the known.
    """
    parts = ((cube.samples_in(p), cube.known_in(p)) for p in cube.patterns)
    if cube.own:
        return all(settled(cube, here, known) for here, known in parts)
    return any(settled(cube, here, known) for here, known in parts if not same_labels(here, known))


def settled(cube: Cube, here: tuple[Point, ...], known: tuple[Point, ...]) -> bool:
    """Whether a region whose T is the known one has no samples with the labels ``here``, but perhaps
    ``known``.
    """
    if not known:
        # T = 0, but with equal labels the loss vectors have no zero and one sign per class: T e is not 0
        return not cube.loss.rational and cube.has_bias and len({p.y for p in here}) == 1
    if len(here) < len(known) and cube.independent(known):
        return True  # fewer samples cannot have a T of that rank
    if len(here) == len(known) == 1:
        return _single(cube, here[0], known[0])
    if len({(p.x, p.y) for p in known}) == 1 and same_labels(here, known):
        return _equal(cube, known[0])
    return covered(cube, here, known)


def _single(cube: Cube, here: Point, known: Point) -> bool:
    """x = T_k / g_k with biases, so the label must be the known one; without them there is a scale."""
    if cube.loss.rational and not cube.half_vector(known).any():
        return False
    if cube.has_bias:
        return True
    if not any(known.x):
        return not cube.loss.rational and here.y == known.y
    if not (known.pattern and any(known.pattern[0])):
        return False  # nothing excludes a negative scale
    return not other_scale(cube.loss, list(cube.logits(known)), known.y, here.y)


def _equal(cube: Cube, known: Point) -> bool:
    """Equal samples with equal labels: ``sum g' = s g`` and ``sum g' f' = s g f`` with g f strictly convex in
    g, so every g' is g and every f' is f; f tells x where the logits' map is injective.
    """
    maps = cube.region(known.pattern).logits[:, :-1]
    if cube.regions.zero_sum:  # a shift of all logits is not seen
        maps = maps[:-1] - maps[-1:]
    return cube.has_bias and linalg.rank(maps) == maps.shape[1]
