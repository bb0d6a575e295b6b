"""Dead and silent samples (docs/theory.md S3): they move over the whole set on which they stay so.

Dead: a hidden layer k is entirely inactive, so h_k = 0, the logits are constant and every delta below is
zero, whatever the layers below k do. Silent: the loss vector is zero (hinge with all margins satisfied, mse
exactly on target), so the sample contributes nothing, and may even change its label. In the sample's own
region the set is a polytope: one exact cone decides whether it is more than a point. Beyond it, on small
networks, the other activation patterns are searched by exact linear programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Move, SecondBatch
from exan_verify.core.network import Array, Batch, to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.directions import candidates, direction, directions
from exan_verify.decide.families.linear import within_reach
from exan_verify.decide.families.polytopes import Region, regions
from exan_verify.decide.families.radius import reach, second_batch
from exan_verify.decide.families.result import Part, names, of_batches
from exan_verify.decide.labels import admitted
from exan_verify.decide.second_batch import Accepted, accept, sparse
from exan_verify.exact.backprop import forward
from exan_verify.exact.softmax import loss_vectors

_FEATURES_TRIED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Idle:
    """A sample that is dead at ``layer`` (1-based), or silent (``layer`` None)."""

    sample: int
    layer: int | None


def decide(context: Context, budget: Budget) -> Part:
    """Second places for every dead or silent sample."""
    idle = list(_idle_samples(context))
    found: list[Accepted] = []
    for item in idle:
        budget.spend(sum(layer.weight.size for layer in context.network.layers))
        if budget.exhausted:
            break
        found += _moves(context, item, budget)
    if not idle:
        return Part(note="")
    who = names([item.sample for item in idle])
    if not found:
        return Part(note=f"{who} dead or silent, but no second place was found")
    reason = f"{who} dead or silent: other inputs contribute the same to the gradient"
    return of_batches(found, note=reason, reason=reason)


def _idle_samples(context: Context) -> Iterator[_Idle]:
    dead: dict[int, int] = {}
    for k, pattern in enumerate(context.passed.patterns, start=1):
        for index in np.flatnonzero(~pattern.any(axis=0)):
            dead.setdefault(int(index), k)
    quiet: list[int] = []
    if context.question.loss.rational:
        vectors = loss_vectors(context.question.loss, context.passed.logits, context.batch.labels, 1)
        quiet = [int(m) for m in np.flatnonzero(~(vectors != 0).any(axis=0))]
    idle: list[int] = sorted({*dead, *quiet})
    for m in idle:
        yield _Idle(sample=m, layer=None if m in quiet else dead[m])


def _moves(context: Context, item: _Idle, budget: Budget) -> list[Accepted]:
    if item.layer is None and context.question.labels is Labels.REAL:
        return _anywhere(context, item.sample)
    if within_reach(context):
        # the own region belongs to the first-order family S4, which decides it by an exact cone
        return list(_elsewhere(context, item, budget))
    return _along_free_features(context, item.sample)


def _along_free_features(context: Context, m: int) -> list[Accepted]:
    """Wide networks: the longest of a few straight moves in the own region that touch nothing at a limit."""
    space = directions(context, (m,))
    tried = []
    for feature in candidates(context, space, (m,), _FEATURES_TRIED):
        v = direction(space, feature)
        for way in () if v is None else (v, -np.asarray(v)):
            steps = np.full((context.samples, space.size), Fraction(0), dtype=object)
            steps[_copies(context, m)] = way
            tried.append((reach(context, steps)[m], steps))
    tried.sort(key=lambda item: (item[0] is not None, -(item[0] or 0)))
    found = (second_batch(context, steps) for _, steps in tried)
    first = next((item for item in found if item is not None), None)
    return [] if first is None else [first]


def _elsewhere(context: Context, item: _Idle, budget: Budget) -> Iterator[Accepted]:
    """Small networks: a point of every other activation pattern in which the sample stays dead or silent."""
    m = item.sample
    if item.layer == 1:
        return
    hidden = context.network.depth - 1 if item.layer is None else item.layer - 1
    for region in regions(context.network, context.question.domain, hidden, budget):
        for label, whole in _stay(context, item, region):
            point = whole.point_apart_from(context.batch.x[m], Random(context.setting.seed))
            same = _same_label(context, m, label)
            if point is None and not same:
                point = whole.point()
            found = None if point is None else _placed(context, m, point, label)
            if found is not None:
                yield found
                return


def _stay(context: Context, item: _Idle, region: Region) -> Iterator[tuple[Array | int, Region]]:
    """The part of a region in which the sample stays dead, or is silent under an admitted label."""
    own = context.batch.labels[item.sample]
    if item.layer is not None:
        weight, offset = region.next_layer(context.network.layer(item.layer))
        yield own, region.cut(rows=list(weight), bounds=list(-offset))
        return
    weight, offset = region.next_layer(context.network.layers[-1])
    labels: list[Any] = [own]
    if context.question.labels is Labels.ONE_HOT:
        labels = list(admitted(context.question, context.batch.labels, context.network.classes))
    if context.question.loss is Loss.HINGE:
        labels.sort(key=lambda y: bool(y != own))  # its own class first
    for label in labels:
        if context.question.loss is Loss.MSE:
            targets = fractions(np.asarray(label)) - offset
            yield label, region.cut(equalities=list(weight), targets=list(targets))
        else:
            y = int(label)
            others = [c for c in range(len(weight)) if c != y]
            # 1 - f_y + f_c <= 0 for every other class
            yield (
                label,
                region.cut(
                    rows=[weight[c] - weight[y] for c in others],
                    bounds=[offset[y] - offset[c] - 1 for c in others],
                ),
            )


def _anywhere(context: Context, m: int) -> list[Accepted]:
    """Real labels: wherever a silent sample goes, its target can follow the logits."""
    x = fractions(context.batch.inputs[m])
    lo, hi = (None, None)
    if context.question.domain is not None:
        lo, hi = context.question.domain.bounds(len(x))
    for k in range(len(x)):
        goals = [x[k] + 1] if lo is None or hi is None else [to_fraction(lo[k]), to_fraction(hi[k])]
        for goal in goals:
            if goal == x[k]:
                continue
            point = x.copy()
            point[k] = goal
            logits = forward(
                context.network, Batch(inputs=point.reshape(1, -1), labels=context.batch.labels[[m]])
            ).logits[:, 0]
            found = _placed(context, m, tuple(point), logits)
            return [] if found is None else [found]
    return []


def _placed(context: Context, m: int, point: Sequence[Fraction], label: Array | int) -> Accepted | None:
    """The batch with sample m, and its copies, at another point with another label."""
    moved = _copies(context, m)
    if context.question.labels is Labels.KNOWN or _same_label(context, m, label):
        label = context.batch.labels[m]
    step = np.array(point, dtype=object) - fractions(context.batch.inputs[m])
    classes = context.batch.labels.ndim == 1
    shift = () if classes else sparse(fractions(np.asarray(label)) - fractions(context.batch.labels[m]))
    moves = tuple(
        Move(
            sample=k,
            mix=((k, "1"),),
            steps=((0, "1"),) if step.any() else (),
            label=int(label) if classes else None,
            target=shift,
        )
        for k in moved
    )
    evidence = SecondBatch(directions=(sparse(step),), moves=moves)
    return accept(context, evidence)


def _same_label(context: Context, m: int, label: Array | int) -> bool:
    return bool(np.all(np.asarray(label) == np.asarray(context.batch.labels[m])))


def _copies(context: Context, m: int) -> list[int]:
    pairs = list(zip(context.batch.x, context.batch.y, strict=True))
    return [k for k, pair in enumerate(pairs) if pair == pairs[m]]
