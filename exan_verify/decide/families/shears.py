"""Logit-preserving shears (docs/theory.md S2): ``x_m + t alpha_m v`` over the samples of one region.

mse and hinge: alpha is an exact null vector of the group's loss vectors, and the batch at the end of the
segment is verified. cross_entropy and bce: alpha exists by counting, as soon as the group is larger than the
dimension of its loss vectors; how far it reaches is bounded with balls around one real alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.certificate import Shear
from exan_verify.decide.context import Context
from exan_verify.decide.families.directions import Directions, candidates, direction, directions
from exan_verify.decide.families.linear import within_reach
from exan_verify.decide.families.motion import below, conditions, step_limit
from exan_verify.decide.families.reals import reach_of_shear
from exan_verify.decide.families.regions import shared_regions
from exan_verify.decide.families.result import Part, names, of_batches
from exan_verify.decide.families.second import Accepted, Radii, farthest, sparse, straight
from exan_verify.exact.linalg import nullspace, rank_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.modular import point as residue_point
from exan_verify.exact.segments import distinct_loss_vectors
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors, loss_vectors_mod
from exan_verify.facts import Facts
from exan_verify.network import Array, Loss
from exan_verify.verdict import Budget

_DIRECTIONS_TRIED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """A group with more samples than its loss vectors have dimensions; ``moving``: those that can move."""

    samples: tuple[int, ...]
    bound: int
    moving: frozenset[int]
    point: int


def decide(context: Context, budget: Budget) -> Part:
    """Shears of every shared region."""
    if context.setting.loss.rational:
        # the first-order family S4 contains the shears where it is affordable
        return Part(note="") if within_reach(context) else _exact(context, budget)
    return _by_counting(context, budget)


def _exact(context: Context, budget: Budget) -> Part:
    found: list[Accepted] = []
    dimension = 0
    for group in shared_regions(context):
        budget.spend(len(group) * context.network.widths[0] * context.network.classes**2)
        logits, labels = context.passed.logits[:, group], context.batch.labels[list(group)]
        alphas = nullspace(loss_vectors(context.setting.loss, logits, labels, 1))
        if budget.exhausted or not alphas.shape[1]:
            continue
        space = directions(context, group)
        batches = _segments(context, group, space, _generic(alphas, context.setting.seed))
        found += batches
        if batches:
            dimension = max(dimension, alphas.shape[1] * space.dimension)
    if not found:
        return Part(note="S2: no shear")
    moved = sorted(frozenset().union(*(item.facts.free for item in found)))
    reason = f"shears (dimension {dimension} at least) move {names(moved)} and keep the gradient (S2)"
    return replace(of_batches(found, note=reason, reason=reason), dimension=dimension)


def _segments(context: Context, group: Sequence[int], space: Directions, alpha: Array) -> list[Accepted]:
    found = []
    for feature in candidates(context, space, group, _DIRECTIONS_TRIED):
        v = direction(space, feature)
        if v is None:
            continue
        steps = np.array([v * a for a in alpha], dtype=object)
        for sign in (1, -1):
            limit = step_limit(conditions(context, group, steps * sign))
            length = sign * (Fraction(1) if limit is None else below(limit))
            item = straight(context, group, v, [a * length for a in alpha])
            found += [] if item is None else [item]
    return found


def _generic(alphas: Array, seed: int) -> Array:
    """A combination of the null vectors in which no sample stays that can move."""
    rng = Random(f"shears/{seed}")
    weights = [Fraction(rng.randint(1, 97)) for _ in range(alphas.shape[1])]
    combined = alphas @ np.array(weights, dtype=object)
    scaled: Array = combined / max(abs(v) for v in combined)
    return scaled


def _by_counting(context: Context, budget: Budget) -> Part:
    facts, evidence, dimension = Facts(), [], 0
    generators: list[tuple[Array, tuple[int, ...]]] = []
    radii: Radii | None = None
    for group in shared_regions(context):
        budget.spend(len(group) * context.network.widths[0] * context.network.classes**2)
        counted = None if budget.exhausted else _count(context, group)
        if counted is None:
            continue
        space = directions(context, group)
        vectors = _directions(context, space, group)
        if not vectors:
            continue
        free = _free(context, counted.moving)
        facts |= Facts(ambiguous=True, free=free)
        evidence.append(Shear(samples=group, direction=sparse(vectors[0]), prime=PRIME, point=counted.point))
        dimension = max(dimension, (len(group) - counted.bound) * space.dimension)
        generators += [(v, group) for v in vectors]
        for v in vectors:
            reach = reach_of_shear(context, group, v, free)
            radii = reach if radii is None else farthest(radii, reach)
    if not evidence:
        return Part(
            note="S2: no region has more samples than its loss vectors have dimensions, and a direction"
        )
    reason = (
        f"shears (dimension {dimension} at least) move {names(sorted(facts.free))} and keep the gradient: "
        "more samples share a region than their loss vectors have dimensions (S2)"
    )
    return Part(
        note=reason,
        facts=facts,
        evidence=tuple(evidence),
        dimension=dimension,
        generators=tuple(generators),
        radii=radii,
        reason=reason,
    )


def _directions(context: Context, space: Directions, group: Sequence[int]) -> list[Array]:
    tried = (direction(space, k) for k in candidates(context, space, group, _DIRECTIONS_TRIED))
    return [v for v in tried if v is not None]


def _count(context: Context, group: tuple[int, ...]) -> _Counted | None:
    """The counting argument: |S| above the dimension of the loss vectors; ranks mod p say who moves."""
    loss, chosen = context.setting.loss, list(group)
    dimension = context.network.classes - (loss is Loss.CROSS_ENTROPY)
    distinct = distinct_loss_vectors(loss, context.passed.logits[:, chosen], context.batch.labels[chosen])
    bound = min(dimension, distinct)
    if len(group) <= bound:
        return None
    point, vectors = _residues(context)
    moving = frozenset(m for m in group if rank_mod(vectors[:, [k for k in group if k != m]]) >= bound)
    return _Counted(samples=group, bound=bound, moving=moving, point=point)


def _residues(context: Context) -> tuple[int, Residues]:
    """The loss vectors mod p, at a point where no denominator vanishes."""
    attempt = 0
    while True:
        point = residue_point(f"shears/{context.setting.seed}/{attempt}")
        try:
            return point, loss_vectors_mod(
                context.setting.loss, context.passed.logits, context.batch.labels, 1, point
            )
        except VanishingDenominatorError:
            attempt += 1


def _free(context: Context, moving: frozenset[int]) -> frozenset[int]:
    pairs = list(zip(context.batch.x, context.batch.y, strict=True))
    staying = {pairs[m] for m in range(context.samples) if m not in moving}
    return frozenset(m for m in moving if pairs[m] not in staying)
