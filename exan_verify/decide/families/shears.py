"""Logit-preserving shears (docs/theory.md S2): ``x_m + t alpha_m v`` over the samples of one region.

mse and hinge: alpha is an exact null vector of the group's loss vectors. cross_entropy and bce: alpha exists
by counting, as soon as the group is larger than the dimension of its loss vectors. How far the segment
reaches is bounded from an enclosure of one real alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from random import Random

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Shear
from exan_verify.core.network import Array, Batch
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.directions import candidates, direction, directions
from exan_verify.decide.families.linear import within_reach
from exan_verify.decide.families.reals import Interval, enclosed_coefficients, reach_of_shear
from exan_verify.decide.families.regions import shared_regions
from exan_verify.decide.families.result import Part, joined, names
from exan_verify.decide.motion import below, conditions, scaled, step_limit
from exan_verify.decide.second_batch import Radii, admitted, farthest, replaced, sparse
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.modular import point as residue_point
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors, loss_vectors_mod

_DIRECTIONS_TRIED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dependent:
    """A group of dependent loss vectors: at most ``bound`` are independent. ``alpha`` encloses the
    coefficients of one dependency, where one is at hand.
    """

    samples: tuple[int, ...]
    bound: int
    alpha: Sequence[Interval] | None


def decide(context: Context, budget: Budget) -> Part:
    """Shears of every shared region."""
    parts: list[Part] = []
    if context.question.loss.rational and within_reach(context):
        return Part(note="")  # the first-order family S4 contains the shears where it is affordable
    for group in shared_regions(context):
        budget.spend(len(group) * context.network.widths[0] * context.network.classes**2)
        if budget.exhausted:
            break
        dependent = _exact(context, group) if context.question.loss.rational else _counted(context, group)
        if dependent is not None:
            parts.append(_shears(context, dependent))
    found = joined(parts)
    if found.facts.is_ambiguous:
        return found
    return Part(note="no region has dependent loss vectors and a direction that they do not see")


def _shears(context: Context, group: _Dependent) -> Part:
    space = directions(context, group.samples)
    tried = [direction(space, k) for k in candidates(context, space, group.samples, _DIRECTIONS_TRIED)]
    vectors = [v for v in tried if v is not None]
    if not vectors:
        return Part(note="")
    evidence = Shear(
        samples=group.samples, direction=sparse(vectors[0]), prime=PRIME, point=_point(context)[0]
    )
    facts = admitted(context, evidence)
    if facts is None:
        return Part(note="")
    free = facts.free
    dimension = (len(group.samples) - group.bound) * space.dimension
    why = "" if context.question.loss.rational else ": more samples than their loss vectors have dimensions"
    reason = (
        f"shears of {names(group.samples)} (dimension {dimension} at least) move {names(sorted(free))} and "
        f"keep the gradient{why}"
    )
    reaches = [_reach(context, group, v, free) for v in vectors]
    return Part(
        note=reason,
        facts=facts,
        evidence=(evidence,),
        batch=_end(context, group, vectors[0]),
        dimension=dimension,
        generators=tuple((v, group.samples) for v in vectors),
        radii=reduce(farthest, reaches),
        reason=reason,
    )


def _exact(context: Context, group: tuple[int, ...]) -> _Dependent | None:
    """Rational loss vectors: their exact null space; a combination in which no sample stays that can move."""
    logits, labels = context.passed.logits[:, list(group)], context.batch.labels[list(group)]
    alphas = nullspace(loss_vectors(context.question.loss, logits, labels, 1))
    if not alphas.shape[1]:
        return None
    rng = Random(f"shears/{context.setting.seed}")
    weights = [Fraction(rng.randint(1, 97)) for _ in range(alphas.shape[1])]
    combined = scaled((alphas @ np.array(weights, dtype=object)).reshape(-1, 1))[:, 0]
    return _Dependent(
        samples=group,
        bound=len(group) - alphas.shape[1],
        alpha=[(a, a) for a in combined],
    )


def _counted(context: Context, group: tuple[int, ...]) -> _Dependent | None:
    """|S| above the dimension of the loss vectors, or above how many differ."""
    loss = context.question.loss
    dimension = context.network.classes - (loss is Loss.CROSS_ENTROPY)
    # equal labels and logits, for cross_entropy up to a shift: at most so many different loss vectors
    logits, labels = context.passed.logits, context.batch.y
    base = logits[0] if loss is Loss.CROSS_ENTROPY else logits[0] * 0
    bound = min(dimension, len({(labels[m], *(logits[:, m] - base[m])) for m in group}))
    if len(group) <= bound:
        return None
    alpha = enclosed_coefficients(context, group)
    return _Dependent(samples=group, bound=bound, alpha=alpha)


def _reach(context: Context, group: _Dependent, v: Array, free: frozenset[int]) -> Radii:
    if group.alpha is None:
        return (Fraction(0),) * context.samples
    mirrored = [(-high, -low) for low, high in group.alpha]
    return farthest(
        reach_of_shear(context, group.samples, v, group.alpha, free),
        reach_of_shear(context, group.samples, v, mirrored, free),
    )


def _end(context: Context, group: _Dependent, v: Array) -> Batch | None:
    """The batch at the end of the segment, when the coefficients are rational."""
    if group.alpha is None or not context.question.loss.rational:
        return None
    chosen = list(group.samples)
    steps = np.array([v * low for low, _ in group.alpha], dtype=object)
    limit = step_limit(conditions(context, chosen, steps))
    inputs = fractions(context.batch.inputs[chosen]) + steps * (
        Fraction(1) if limit is None else below(limit)
    )
    return replaced(context.batch, chosen, inputs, context.batch.labels[chosen])


def _point(context: Context) -> tuple[int, Residues]:
    """A point where no denominator vanishes, and the loss vectors there, mod p."""
    attempt = 0
    while True:
        point = residue_point(f"shears/{context.setting.seed}/{attempt}")
        try:
            return point, loss_vectors_mod(
                context.question.loss, context.passed.logits, context.batch.labels, 1, point
            )
        except VanishingDenominatorError:
            attempt += 1
