"""Checks "a second batch with exactly this gradient exists inside this box" (docs/theory.md, appendix C).

The regions of the box, the independent entries of the gradient and Krawczyk's test are computed again from
network and batch (:mod:`exan_verify.kernel.second.enclosure`); the certificate gives the box and the labels.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.certificate import EnclosedBatch, rational
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, Batch, to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import CertificateRejected, InputError, LabelError
from exan_verify.kernel.given import Subject, require, require_moderate
from exan_verify.kernel.second.enclosure import Enclosure

MAX_SYSTEM = 1 << 18
"""Entries of the system of rationals: seconds of elimination."""


def facts(evidence: EnclosedBatch, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that are certainly not in the second batch.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    require(subject.question.loss is not Loss.HINGE, "boxes are for losses that vary smoothly")
    require(len(evidence.inputs) == subject.samples, "the second batch has another size")
    require(len(evidence.labels) == subject.samples, "every sample needs a label")
    size, features = subject.samples, subject.batch.inputs.shape[1]
    require(len(set(evidence.free)) == len(evidence.free) > 0, "no coordinate varies, or one is named twice")
    require(all(0 <= m < size and 0 <= k < features for m, k in evidence.free), "there is no such coordinate")
    radius = rational(evidence.radius)
    require(radius > 0, "the box has no inside")
    _require_small(subject)
    enclosure = Enclosure(
        network=subject.network,
        loss=subject.question.loss,
        given=subject.batch,
        centre=_centre(evidence, subject),
        radius=radius,
        free=evidence.free,
    )
    _check_domain(enclosure, subject)
    check_known_labels(subject, enclosure.centre.labels)
    require(enclosure.apart().proved(), "the box is not shown to hold a batch with this gradient")
    free = frozenset(m for m in range(size) if enclosure.lacks(m))
    require(bool(free), "the box may hold the given batch itself")
    return Facts(ambiguous=True, free=free)


def _require_small(subject: Subject) -> None:
    """The system is one matrix of rationals: entries of the gradient by products of all samples."""
    network = subject.network
    entries = sum(weight.size for _, weight in network.parameters())
    features = network.widths[0] + 1
    columns = (
        features * (features + 1) // 2 if subject.question.loss is Loss.MSE else network.classes * features
    )
    size = entries * max(columns, network.classes * features) * subject.samples
    require(size <= MAX_SYSTEM, f"boxes are for small networks: the system has {size} entries")


def check_known_labels(subject: Subject, labels: Array) -> None:
    """Known labels, (M,) or (M, K): the same ones, as often."""
    if subject.question.labels is Labels.KNOWN:
        before, after = _counted(subject.batch.labels), _counted(labels)
        require(before == after, "the second batch has other labels than the known ones")


def admitted(subject: Subject, inputs: Array, labels: Any) -> Batch:
    """A batch of inputs (M, d) with these labels, if the question admits them."""
    try:
        return Batch.of(
            inputs,
            labels,
            network=subject.network,
            loss=subject.question.loss,
            labels=subject.question.labels,
        )
    except (LabelError, InputError) as error:
        raise CertificateRejected(f"the second batch is not admitted: {error}") from None


def _centre(evidence: EnclosedBatch, subject: Subject) -> Batch:
    inputs = _table(evidence.inputs, subject.batch.inputs.shape[1], "an input")
    require_moderate(
        subject, np.concatenate([inputs.reshape(-1), [rational(evidence.radius)]]).reshape(1, -1)
    )
    if subject.batch.labels.ndim == 1:
        table = _table(evidence.labels, 1, "a class")[:, 0]
        require(all(v.denominator == 1 for v in table), "a class is no integer")
        return admitted(subject, inputs, np.array([int(v) for v in table]))
    targets = _table(evidence.labels, subject.network.classes, "a target")
    require_moderate(subject, targets)
    return admitted(subject, inputs, targets)


def _table(rows: tuple[tuple[str, ...], ...], width: int, what: str) -> Array:
    require(all(len(row) == width for row in rows), f"{what} has a wrong length")
    out = np.empty((len(rows), width), dtype=object)
    for i, row in enumerate(rows):
        for k, text in enumerate(row):
            out[i, k] = rational(text)
    return out


def _check_domain(enclosure: Enclosure, subject: Subject) -> None:
    domain = subject.question.domain
    if domain is None:
        return
    bounds = [[to_fraction(v) for v in b] for b in domain.bounds(subject.batch.inputs.shape[1])]
    for m in range(subject.samples):
        for (low, high), lo, hi in zip(enclosure.sides(m), *bounds, strict=True):
            require(lo <= low and high <= hi, "the second batch may lie outside the domain")


def _counted(labels: Array) -> Counter[tuple[Fraction, ...]]:
    return Counter(tuple(to_fraction(v) for v in np.atleast_1d(row)) for row in labels)
