"""Second batches: proposed by the engines as evidence, admitted by the kernel's checker, issued only then.

The one file of the engines that sees the kernel (docs/theory.md section 6). An engine finds a candidate by
its own means and writes it as evidence; whether it is a second batch with the same gradient is the kernel's
to say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.arrays import Array, fractions, to_fraction
from exan_verify.core.certificate import (
    AlgebraicBatch,
    Counting,
    Move,
    SecondBatch,
    SparseVector,
    Submersion,
    Unseen,
)
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, Gradient
from exan_verify.decide.context import Context, Setting
from exan_verify.errors import CertificateRejected
from exan_verify.exact.dyadic import guessed
from exan_verify.kernel import second
from exan_verify.kernel.given import Subject
from exan_verify.kernel.gradient.found import found_samples

Radii = tuple[Fraction | None, ...]
"""Per sample; None: without bound."""

Count = second.Count
"""Dimensions of motion and equations, as the kernel counts them."""


def admitted(context: Context, evidence: second.Existential) -> Facts | None:
    """What the kernel's checker takes from ``evidence``; None where it rejects it."""
    try:
        with np.errstate(all="ignore"):  # floating point only guesses, and what it guesses is verified
            return second.facts(evidence, _subject(context))
    except (CertificateRejected, ArithmeticError, np.linalg.LinAlgError):
        return None


def counted(context: Context, evidence: Counting | Submersion) -> Count | None:
    """The count behind ``evidence`` as the kernel makes it; None where there is no surplus."""
    try:
        return second.count(evidence, _subject(context))
    except CertificateRejected:
        return None


def measured(context: Context, evidence: Unseen) -> second.Family | None:
    """What the kernel shows of the motions, whatever dimension ``evidence`` states; None where nothing."""
    try:
        with np.errstate(all="ignore"):
            return second.family(evidence, _subject(context))
    except (CertificateRejected, ArithmeticError, np.linalg.LinAlgError):
        return None


def has_gradient(setting: Setting, gradient: Gradient, samples: int, record: AlgebraicBatch) -> bool:
    """Whether the kernel's checker finds that the batch of ``record`` has the gradient that is given."""
    question = replace(setting.question, batch_size=samples)
    try:
        found_samples(record, setting.relu, gradient, question)
    except (CertificateRejected, ArithmeticError):
        return False
    return True


def _subject(context: Context) -> Subject:
    return Subject(
        model=context.model,
        batch=context.batch,
        question=replace(context.question, batch_size=context.samples),
        settled=context.settled,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A second batch that was admitted: evidence, facts, and how far it is from each sample."""

    batch: Batch
    evidence: SecondBatch
    facts: Facts
    radii: Radii


def accept(context: Context, evidence: SecondBatch) -> Accepted | None:
    """The batch that ``evidence`` describes, when the kernel's checker admits it."""
    facts = admitted(context, evidence)
    if facts is None:
        return None
    moved, there = second.rebuilt(evidence, _subject(context))
    whole = replaced(context.batch, moved, there.inputs, there.labels)
    return Accepted(batch=whole, evidence=evidence, facts=facts, radii=distances(context.batch, whole))


def displaced(context: Context, steps: Array) -> Accepted | None:
    """The second batch ``X + steps``; labels stay. ``steps`` (M, d)."""
    moved = [m for m in range(context.samples) if steps[m].any()]
    moves = [Move(sample=m, mix=((m, "1"),), steps=((k, "1"),)) for k, m in enumerate(moved)]
    return accept(context, SecondBatch(directions=tuple(sparse(steps[m]) for m in moved), moves=tuple(moves)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """``batch`` in the place of ``members``; ``matrix`` Q when its inputs are Q times theirs."""

    members: tuple[int, ...]
    batch: Batch
    matrix: Array | None = None


def evidence_of(context: Context, candidate: Candidate) -> SecondBatch:
    """The second batch as moves: mixes where Q is known, else steps."""
    moves: list[Move] = []
    directions: list[SparseVector] = []
    members = candidate.members
    for row, m in enumerate(members):
        mix: SparseVector = ((m, "1"),)
        steps: SparseVector = ()
        if candidate.matrix is not None:
            mix = tuple((k, str(v)) for k, v in zip(members, candidate.matrix[row], strict=True) if v)
        elif step := _difference(candidate.batch.inputs[row], context.batch.inputs[m]):
            steps = ((len(directions), "1"),)
            directions.append(step)
        moves.append(_move(context.batch.labels[m], candidate.batch.labels[row], m, mix, steps))
    return SecondBatch(directions=tuple(directions), moves=tuple(moves))


def _move(own: Array, new: Array, m: int, mix: SparseVector, steps: SparseVector) -> Move:
    if np.ndim(own) == 0:
        label = None if int(own) == int(new) else int(new)
        return Move(sample=m, mix=mix, steps=steps, label=label)
    return Move(sample=m, mix=mix, steps=steps, target=_difference(new, own))


def _difference(new: Array, old: Array) -> SparseVector:
    pairs = ((k, to_fraction(a) - to_fraction(b)) for k, (a, b) in enumerate(zip(new, old, strict=True)))
    return tuple((k, str(value)) for k, value in pairs if value)


def sparse(vector: Array) -> SparseVector:
    """The non-zero entries of a vector (n,), for a certificate."""
    return tuple((k, str(v)) for k, v in enumerate(vector) if v)


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
