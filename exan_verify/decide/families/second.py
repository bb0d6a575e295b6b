"""A proposed second batch, verified exactly before anything is said about it, and how far away it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.certificate import Move, SecondBatch, SparseVector
from exan_verify.decide.context import Context
from exan_verify.decide.families.motion import fractions
from exan_verify.exact.backprop import forward
from exan_verify.exact.balance import contributions_cancel
from exan_verify.facts import Facts
from exan_verify.network import Array, Batch, Labels, Loss

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
    second = Batch.of(inputs, labels, network=setting.network, loss=setting.loss, labels=setting.labels)
    if setting.domain is not None and not setting.domain.contains(second):
        return None
    if setting.labels is Labels.KNOWN and Counter(map(str, first.y)) != Counter(map(str, second.y)):
        return None
    if Counter(_pairs(first)) == Counter(_pairs(second)) or not _same_gradient(context, first, second):
        return None
    whole = _replaced(context.batch, moved, second)
    present = set(_pairs(whole))
    free = frozenset(m for m, pair in enumerate(_pairs(context.batch)) if pair not in present)
    return Accepted(
        batch=whole,
        evidence=evidence,
        facts=Facts(ambiguous=True, free=free),
        radii=distances(context.batch, whole),
    )


def straight(
    context: Context, moved: Sequence[int], direction: Array, coefficients: Sequence[Fraction]
) -> Accepted | None:
    """The second batch ``x_m + coefficients[k] direction`` for m = moved[k]; labels stay."""
    chosen = [(m, c) for m, c in zip(moved, coefficients, strict=True) if c]
    samples = [m for m, _ in chosen]
    inputs = fractions(context.batch.inputs[samples]) + np.array(
        [direction * c for _, c in chosen], dtype=object
    ).reshape(len(samples), -1)
    moves = [Move(sample=m, mix=((m, "1"),), steps=((0, str(c)),)) for m, c in chosen]
    evidence = SecondBatch(directions=(sparse(direction),), moves=tuple(moves))
    return accept(context, samples, inputs, list(context.batch.labels[samples]), evidence)


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
    """Per sample of ``first``: 0 when it is in ``second``, else the least L-infinity distance to an input of
    ``second``, samples common to both batches apart. No order of the samples brings them nearer.
    """
    before, after = _pairs(first), _pairs(second)
    common = Counter(before) & Counter(after)
    strangers = [x for (x, _), n in (Counter(after) - common).items() for _ in range(n)]
    return tuple(
        Fraction(0)
        if pair in common
        else min(max(abs(a - b) for a, b in zip(pair[0], x, strict=True)) for x in strangers)
        for pair in before
    )


def farthest(left: Radii, right: Radii) -> Radii:
    """Entrywise maximum."""
    return tuple(None if a is None or b is None else max(a, b) for a, b in zip(left, right, strict=True))


def downwards(radius: Fraction | None) -> float:
    """The greatest float that is not above the radius; infinity for None."""
    if radius is None:
        return math.inf
    nearest = float(radius)
    return nearest if Fraction(nearest) <= radius else math.nextafter(nearest, -math.inf)


def _pairs(batch: Batch) -> list[tuple[Any, Any]]:
    return list(zip(batch.x, batch.y, strict=True))


def _replaced(batch: Batch, moved: list[int], second: Batch) -> Batch:
    inputs = fractions(batch.inputs)
    inputs[moved] = fractions(second.inputs)
    labels = batch.labels.copy() if batch.labels.ndim == 1 else fractions(batch.labels)
    labels[moved] = second.labels if labels.ndim == 1 else fractions(second.labels)
    for array in (inputs, labels):
        array.setflags(write=False)
    return Batch(inputs=inputs, labels=labels)


def _same_gradient(context: Context, first: Batch, second: Batch) -> bool:
    loss: Loss = context.setting.loss
    both = Batch(
        inputs=np.concatenate([fractions(first.inputs), fractions(second.inputs)]),
        labels=np.concatenate([first.labels, second.labels]),
    )
    counts = [1] * first.size + [-1] * second.size
    return contributions_cancel(context.network, forward(context.network, both), loss, both.labels, counts)
