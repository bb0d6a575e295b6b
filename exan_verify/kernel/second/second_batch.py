"""Checks "here is a second batch with exactly the same gradient" (docs/theory.md section 4, S0 to S4).

Nothing of the argument that found the batch is used: the second batch is built, its labels and domain are
compared with the question, and its contributions must cancel those of the first exactly
(:mod:`exan_verify.kernel.second.cancellation`; for cross_entropy and bce with every loss vector as a symbol).
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.certificate import SecondBatch, SparseVector, rational
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import CertificateRejected, InputError, LabelError
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import identity, multiply, solve
from exan_verify.exact.softmax import loss_vectors, mse_targets
from exan_verify.kernel.given import Subject, require, require_moderate
from exan_verify.kernel.second.cancellation import contributions_cancel


def facts(evidence: SecondBatch, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that are not in the second batch, whatever the activations are.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    moved, second = rebuilt(evidence, subject)
    first = subject.batch.select(moved)
    domain = subject.question.domain
    require(domain is None or domain.contains(second), "the second batch lies outside the domain")
    _check_labels(subject, first, second)
    require(_same_gradient(subject, first, second), "the second batch has another gradient")
    before, after = _samples(first), _samples(second)
    require(Counter(before) != Counter(after), "the second batch is the first one in another order")
    kept = [m for m in range(subject.samples) if m not in set(moved)]
    present = {*after, *_samples(subject.batch.select(kept))}
    everyone = _samples(subject.batch)
    return Facts(ambiguous=True, free=frozenset(m for m, s in enumerate(everyone) if s not in present))


def rebuilt(evidence: SecondBatch, subject: Subject) -> tuple[list[int], Batch]:
    """The samples that move, and the batch of what stands in their places.

    Raises :class:`CertificateRejected` where the evidence describes none of the question's labels.
    """
    moved = [move.sample for move in evidence.moves]
    require(len(moved) > 0, "the second batch moves no sample")
    require(len(set(moved)) == len(moved), "a sample is moved twice")
    require(all(0 <= m < subject.samples for m in moved), "a move names a sample that does not exist")
    size, features = subject.batch.inputs.shape
    named = len(evidence.directions)
    require(named <= size + features, "there are more directions than samples and features")
    directions = [_dense(part, features) for part in evidence.directions]
    mixes = np.array([_dense(move.mix, size) for move in evidence.moves], dtype=object)
    inputs = multiply(mixes, fractions(subject.batch.inputs))
    if directions:
        steps = np.array([_dense(move.steps, named) for move in evidence.moves], dtype=object)
        inputs = inputs + multiply(steps, np.array(directions, dtype=object))
    require(bool(directions) or not any(move.steps for move in evidence.moves), "a step has no direction")
    require_moderate(subject, inputs)
    inputs.setflags(write=False)
    labels = _solved(evidence, subject, inputs, moved) if evidence.solved else _labels(evidence, subject)
    try:
        batch = Batch.of(
            inputs,
            labels,
            network=subject.model,
            loss=subject.question.loss,
            labels=subject.question.labels,
        )
    except (LabelError, InputError) as error:
        raise CertificateRejected(f"the second batch is not admitted: {error}") from None
    require_moderate(subject, batch.labels)
    return moved, batch


def _labels(evidence: SecondBatch, subject: Subject) -> list[Any]:
    found: list[Any] = []
    classes = subject.batch.labels.ndim == 1
    for move in evidence.moves:
        own = subject.batch.labels[move.sample]
        require(not (classes and move.target), "a class label has no target vector")
        require(classes or move.label is None, "a target vector is not a class")
        if classes:
            found.append(int(own) if move.label is None else move.label)
        else:
            found.append(fractions(own) + _dense(move.target, subject.model.classes))
    return found


def _solved(evidence: SecondBatch, subject: Subject, inputs: Array, moved: list[int]) -> list[Any]:
    """Targets with ``vectors' = vectors Q^-1``; Q is the matrix of the mixes, among the moved samples."""
    require(
        subject.question.loss is Loss.MSE and subject.question.labels is Labels.REAL,
        "targets can be solved for with mse and real labels only",
    )
    require(all(not m.target and m.label is None for m in evidence.moves), "solved targets are not given too")
    place = {m: row for row, m in enumerate(moved)}
    matrix = np.full((len(moved), len(moved)), Fraction(0), dtype=object)
    for row, move in enumerate(evidence.moves):
        for k, text in move.mix:
            require(k in place, "a mix uses a sample that is not moved, so the targets do not follow")
            matrix[row, place[k]] += rational(text)
    inverse = solve(matrix, identity(len(moved)))
    if inverse is None:
        raise CertificateRejected("the matrix of the mixes is singular")
    batch = subject.batch.select(moved)
    vectors = loss_vectors(Loss.MSE, subject.passed.logits[:, moved], batch.labels, 1)
    logits = forward(subject.model, Batch(inputs=inputs, labels=batch.labels)).logits
    return list(mse_targets(logits, multiply(vectors, inverse), 1).T)


def _check_labels(subject: Subject, first: Batch, second: Batch) -> None:
    """Known labels: the same ones, as often. Other label sets are checked when the batch is built."""
    if subject.question.labels is Labels.KNOWN:
        before, after = Counter(y for _, y in _samples(first)), Counter(y for _, y in _samples(second))
        require(before == after, "the second batch has other labels than the known ones")


def _same_gradient(subject: Subject, first: Batch, second: Batch) -> bool:
    both = Batch(
        inputs=np.concatenate([fractions(first.inputs), fractions(second.inputs)]),
        labels=np.concatenate([first.labels, second.labels]),
    )
    counts = [1] * first.size + [-1] * second.size
    passed = forward(subject.model, both)
    return contributions_cancel(subject.model, passed, subject.question.loss, both.labels, counts)


def _samples(batch: Batch) -> list[tuple[Any, Any]]:
    """Each sample as exact numbers, comparable for equality."""
    return list(zip(batch.x, batch.y, strict=True))


def _dense(vector: SparseVector, size: int) -> Array:
    out = np.full(size, Fraction(0), dtype=object)
    named = [k for k, _ in vector]
    require(len(set(named)) == len(named), "a vector has an index twice")
    for k, text in vector:
        require(0 <= k < size, "a vector has an index out of range")
        out[k] = rational(text)
    return out
