"""A proposed second batch, verified exactly before anything is said about it, and how far away it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.certificate import Move, SecondBatch, SparseVector
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.motion import fractions
from exan_verify.exact.backprop import forward
from exan_verify.exact.balance import contributions_cancel
from exan_verify.exact.dyadic import guessed

Radii = tuple[Fraction | None, ...]
"""Per sample; None: without bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A second batch that was verified: evidence, facts, and how far it is from each sample."""

    batch: Batch
    evidence: SecondBatch
    facts: Facts
    radii: Radii


def accept(
    context: Context, moved: Sequence[int], inputs: Array, labels: Sequence[Any], evidence: SecondBatch
) -> Accepted | None:
    """The batch with the samples ``moved`` replaced by ``inputs`` (|moved|, d) and ``labels``, when it is in
    the domain, has admitted labels, is not the given batch in another order, and has its exact gradient.
    """
    setting, moved = context.setting, list(moved)
    if not moved:
        return None
    first = context.batch.select(moved)
    second = Batch.of(
        inputs, labels, network=setting.network, loss=setting.question.loss, labels=setting.question.labels
    )
    if setting.question.domain is not None and not setting.question.domain.contains(second):
        return None
    if setting.question.labels is Labels.KNOWN and Counter(map(str, first.y)) != Counter(map(str, second.y)):
        return None
    if Counter(_pairs(first)) == Counter(_pairs(second)) or not _same_gradient(context, first, second):
        return None
    whole = replaced(context.batch, moved, second.inputs, second.labels)
    present = set(_pairs(whole))
    free = frozenset(m for m, pair in enumerate(_pairs(context.batch)) if pair not in present)
    return Accepted(
        batch=whole,
        evidence=evidence,
        facts=Facts(ambiguous=True, free=free),
        radii=distances(context.batch, whole),
    )


def displaced(context: Context, steps: Array) -> Accepted | None:
    """The second batch ``X + steps``; labels stay. ``steps`` (M, d)."""
    moved = [m for m in range(context.samples) if steps[m].any()]
    inputs = fractions(context.batch.inputs[moved]) + steps[moved]
    moves = [Move(sample=m, mix=((m, "1"),), steps=((k, "1"),)) for k, m in enumerate(moved)]
    evidence = SecondBatch(directions=tuple(sparse(steps[m]) for m in moved), moves=tuple(moves))
    return accept(context, moved, inputs, list(context.batch.labels[moved]), evidence)


def sparse(vector: Array) -> SparseVector:
    """The non-zero entries, for a certificate."""
    return tuple((k, str(v)) for k, v in enumerate(vector) if v)


def distances(first: Batch, second: Batch) -> Radii:
    """Per sample of ``first``: 0 when it is in ``second``, else a lower bound of the least L-infinity
    distance to an input of ``second``, samples common to both batches apart. No order of the samples brings
    them nearer. The feature that is measured is guessed, its distance exact.
    """
    before, after = _pairs(first), _pairs(second)
    common = Counter(before) & Counter(after)
    strangers = [j for j, pair in enumerate(after) if pair not in common or after.count(pair) > common[pair]]
    return tuple(
        Fraction(0) if pair in common else min(_apart(first, m, second, j) for j in strangers)
        for m, pair in enumerate(before)
    )


def farthest_feature(first: Batch, m: int, second: Batch, j: int) -> int:
    """The feature in which two samples seem to differ most."""
    gaps = guessed(first.inputs[m]) / 2 - guessed(second.inputs[j]) / 2  # halves: a difference may overflow
    return int(np.argmax(np.abs(gaps)))


def _apart(first: Batch, m: int, second: Batch, j: int) -> Fraction:
    k = farthest_feature(first, m, second, j)
    return abs(first.x[m][k] - second.x[j][k])


def farthest(left: Radii, right: Radii) -> Radii:
    """Entrywise maximum."""
    return tuple(None if a is None or b is None else max(a, b) for a, b in zip(left, right, strict=True))


def downwards(radius: Fraction | None) -> float:
    """The greatest float that is not above the radius; infinity for None."""
    if radius is None:
        return math.inf
    nearest = float(guessed(np.array([radius], dtype=object))[0])
    return nearest if Fraction(nearest) <= radius else math.nextafter(nearest, -math.inf)


def _pairs(batch: Batch) -> list[tuple[Any, Any]]:
    return list(zip(batch.x, batch.y, strict=True))


def not_staying(batch: Batch, moving: frozenset[int]) -> frozenset[int]:
    """The moving samples of which every equal sample moves too."""
    pairs = _pairs(batch)
    staying = {pairs[m] for m in range(batch.size) if m not in moving}
    return frozenset(m for m in moving if pairs[m] not in staying)


def replaced(batch: Batch, moved: Sequence[int], inputs: Array, labels: Array) -> Batch:
    """The batch with new samples in the places ``moved``."""
    places = list(moved)
    whole = fractions(batch.inputs)
    whole[places] = fractions(inputs)
    kinds = batch.labels.copy() if batch.labels.ndim == 1 else fractions(batch.labels)
    kinds[places] = labels if kinds.ndim == 1 else fractions(labels)
    for array in (whole, kinds):
        array.setflags(write=False)
    return Batch(inputs=whole, labels=kinds)


def _same_gradient(context: Context, first: Batch, second: Batch) -> bool:
    loss: Loss = context.question.loss
    both = Batch(
        inputs=np.concatenate([fractions(first.inputs), fractions(second.inputs)]),
        labels=np.concatenate([first.labels, second.labels]),
    )
    counts = [1] * first.size + [-1] * second.size
    return contributions_cancel(context.network, forward(context.network, both), loss, both.labels, counts)
