"""Real labels (docs/theory.md S5): any two samples of a region have a second batch.

``X' = Q X`` with invertible Q, Q 1 = 1, and loss vectors ``G' = Q^-T G`` keep T(S) (S0); real targets give
any loss vector. Moving every sample towards the mean of its group stays in the region and in the box, because
both are convex. Where rows of [X 1] are dependent, targets alone can change: dY = c w^T with c^T [X 1] = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Move, SecondBatch
from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.regions import shared_regions
from exan_verify.decide.families.result import Part, names, of_batches
from exan_verify.decide.motion import below, conditions, step_limit
from exan_verify.decide.second_batch import Accepted, accept, sparse
from exan_verify.exact.linalg import nullspace, rank


def decide(context: Context, budget: Budget) -> Part:
    """Second batches of every shared region, for mse with real labels."""
    if context.question.loss is not Loss.MSE or context.question.labels is not Labels.REAL:
        return Part(note="")
    found: list[Accepted] = []
    dimension = 0
    for group in shared_regions(context):
        budget.spend(len(group) ** 3 * context.network.widths[0])
        if budget.exhausted:
            break
        found += _of_group(context, group)
        dimension = max(dimension, _dimension(context, group))
    if not found:
        return Part(note="real labels: no region is shared")
    moved = sorted(frozenset().union(*(item.facts.free for item in found)))
    reason = (
        f"real labels absorb any mixing of the samples of a region, of dimension {dimension} at least: "
        f"{names(moved)} can move"
    )
    return replace(of_batches(found, note=reason, reason=reason), dimension=dimension)


def _of_group(context: Context, group: tuple[int, ...]) -> list[Accepted]:
    chosen = list(group)
    inputs = fractions(context.batch.inputs[chosen])
    outwards = inputs - inputs.sum(axis=0) / Fraction(len(chosen))
    found = [_relabelled(context, group, inputs)]
    if outwards.any():
        limit = step_limit(conditions(context, chosen, outwards))
        found.append(_dilated(context, group, Fraction(-1, 2)))
        if limit != 0:
            item = _dilated(context, group, Fraction(1) if limit is None else below(limit))
            endless = limit is None and item is not None and all(row.any() for row in outwards)
            if item is not None and endless:
                radii = tuple(None if m in group else r for m, r in enumerate(item.radii))
                item = replace(item, radii=radii)
            found.append(item)
    return [item for item in found if item is not None]


def _dimension(context: Context, group: tuple[int, ...]) -> int:
    """A lower bound: Q near I with Q 1 = 1 moves X by rank [X 1] - 1 dimensions per sample, inside the hull.

    With dependent rows of [X 1] the targets move as well, by K dimensions per dependency. Faces and zero
    pre-activations may halve the neighbourhood but the motion towards the mean stays, so the set of
    admissible motions has an interior inside the hull.
    """
    inputs = fractions(context.batch.inputs[list(group)])
    ones = np.full((len(group), 1), Fraction(1), dtype=object)
    affine = rank(np.concatenate([inputs, ones], axis=1))
    return len(group) * (affine - 1) + context.network.classes * (len(group) - affine)


def _dilated(context: Context, group: tuple[int, ...], factor: Fraction) -> Accepted | None:
    """Every sample moved away from the mean by ``factor`` times its distance (-1/2: half way to it)."""
    count = len(group)
    matrix = fractions(np.eye(count)) * (1 + factor) - np.full((count, count), factor / count, dtype=object)
    # Q is invertible: its determinant is (1 + factor)^(count - 1); the targets follow from it (S5)
    moves = tuple(
        Move(sample=m, mix=tuple((k, str(v)) for k, v in zip(group, row, strict=True) if v))
        for m, row in zip(group, matrix, strict=True)
    )
    return accept(context, SecondBatch(moves=moves, solved=True))


def _relabelled(context: Context, group: tuple[int, ...], inputs: Array) -> Accepted | None:
    """Other targets for the same inputs, when the rows of [X 1] are dependent."""
    ones = np.full((len(group), 1), Fraction(1), dtype=object)
    columns = np.concatenate([inputs, ones], axis=1) if context.network.has_bias else inputs
    dependencies = nullspace(np.ascontiguousarray(columns.T))
    if not dependencies.shape[1]:
        return None
    shift = dependencies @ np.arange(1, dependencies.shape[1] + 1)
    return _shifted(context, [m for m, c in zip(group, shift, strict=True) if c], [c for c in shift if c])


def _shifted(context: Context, moved: Sequence[int], amounts: Sequence[Fraction]) -> Accepted | None:
    first = np.full(context.network.classes, Fraction(0), dtype=object)
    first[0] = Fraction(1)
    moves = tuple(
        Move(sample=m, mix=((m, "1"),), target=sparse(first * c)) for m, c in zip(moved, amounts, strict=True)
    )
    return accept(context, SecondBatch(moves=moves))
