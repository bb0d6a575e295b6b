"""Checks a second batch of real algebraic numbers, for mse and hinge (docs/theory.md, appendix C).

Forward and backward passes run on reduced polynomials in the roots
(:mod:`exan_verify.exact.algebraic`); every entry of the difference of the two gradients must reduce to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np

from exan_verify.core.certificate import AlgebraicBatch, AlgebraicNumber, rational
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, Linear, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.algebraic import (
    MAX_DEGREE,
    Element,
    Field,
    Root,
    Row,
    UndecidedSignError,
)
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.second.enclosed_batch import admitted, check_known_labels

MAX_TERMS = 64
"""As many as there are products of powers below the degrees."""

MAX_WORK = 1 << 19
MAX_BITS = 4096
MAX_TEXT = 2000
"""Products of rationals in the passes, bits of the polynomials' integers, characters of a rational: batches
that solvers find for small networks have a hundredth of each, in the tests.
"""


def facts(evidence: AlgebraicBatch, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that are not in the second batch.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    require(subject.question.loss.rational, "algebraic batches are for mse and hinge")
    require(len(evidence.inputs) == subject.samples, "the second batch has another size")
    require(len(evidence.labels) == subject.samples, "every sample needs a label")
    _require_small(evidence, subject)
    roots = tuple(Root(root.polynomial, rational(root.low), rational(root.high)) for root in evidence.roots)
    field = Field(roots)
    require(field.valid(), "a root is not shown to exist")
    inputs = [_row(field, row, subject.batch.inputs.shape[1]) for row in evidence.inputs]
    try:
        labels = _labels(evidence, subject, field)
        _check_domain(field, subject, inputs)
        _check_gradient(field, subject, inputs, labels)
        present = [[*x, *y] for x, y in zip(inputs, labels, strict=True)]
        free = frozenset(
            m
            for m, own in enumerate(_samples(field, subject.batch, subject.network.classes))
            if _absent(field, own, present)
        )
    except UndecidedSignError as error:
        raise CertificateRejected(str(error)) from None
    require(bool(free), "the second batch has every sample of the first")
    return Facts(ambiguous=True, free=free)


def _require_small(evidence: AlgebraicBatch, subject: Subject) -> None:
    """Every weight is multiplied with a polynomial in the roots, for every sample; and the text is short."""
    degrees = [len(root.polynomial) - 1 for root in evidence.roots]
    require(all(degree >= 2 for degree in degrees) and prod(degrees) <= MAX_DEGREE, "the field is too large")
    weights = sum(layer.weight.size for layer in subject.network.layers)
    work = weights * subject.samples * prod(degrees) ** 2
    require(work <= MAX_WORK, "algebraic batches are for small networks: the passes take too long")
    require(
        all(abs(c) < 1 << MAX_BITS for root in evidence.roots for c in root.polynomial)
        and all(len(end) <= MAX_TEXT for root in evidence.roots for end in (root.low, root.high))
        and all(
            len(text) <= MAX_TEXT
            for row in (*evidence.inputs, *evidence.labels)
            for v in row
            for text, _ in v
        ),
        "a number is too long",
    )


def _check_gradient(field: Field, subject: Subject, inputs: list[Row], labels: list[Row]) -> None:
    given = _samples(field, subject.batch, subject.network.classes)
    features = subject.batch.inputs.shape[1]
    loss = subject.question.loss
    entries = gradient_entries(field, subject.network, loss, inputs, labels)
    own = gradient_entries(
        field, subject.network, loss, [row[:features] for row in given], [row[features:] for row in given]
    )
    same = all(not field.plus(a, b, Fraction(-1)) for a, b in zip(entries, own, strict=True))
    require(same, "the second batch has another gradient")


def _labels(evidence: AlgebraicBatch, subject: Subject, field: Field) -> list[Row]:
    """Target vectors; those that are not real must be rational and admitted."""
    classes, network = subject.batch.labels.ndim == 1, subject.network
    rows = [_row(field, row, 1 if classes else network.classes) for row in evidence.labels]
    if subject.question.labels is Labels.REAL:
        return rows
    require(all(not any(any(p) for p in v) for row in rows for v in row), "a label is not rational")
    table = np.array([[sum(v.values(), Fraction(0)) for v in row] for row in rows], dtype=object)
    require(not classes or all(v.denominator == 1 for v in table[:, 0]), "a class is no integer")
    chosen = np.array([int(v) for v in table[:, 0]]) if classes else table
    batch = admitted(subject, subject.batch.inputs, chosen)
    check_known_labels(subject, batch.labels)
    width = subject.batch.inputs.shape[1]
    return [row[width:] for row in _samples(field, batch, network.classes)]


def _check_domain(field: Field, subject: Subject, inputs: list[Row]) -> None:
    domain = subject.question.domain
    if domain is None:
        return
    low, high = (
        [field.constant(to_fraction(v)) for v in bound]
        for bound in domain.bounds(subject.batch.inputs.shape[1])
    )
    for row in inputs:
        for v, lo, hi in zip(row, low, high, strict=True):
            inside = (
                field.sign(field.plus(v, lo, Fraction(-1)))
                >= 0
                >= field.sign(field.plus(v, hi, Fraction(-1)))
            )
            require(inside, "the second batch lies outside the domain")


def _absent(field: Field, own: Row, present: list[Row]) -> bool:
    return all(
        any(field.sign(field.plus(a, b, Fraction(-1))) for a, b in zip(own, other, strict=True))
        for other in present
    )


def _samples(field: Field, batch: Batch, classes: int) -> list[Row]:
    """Inputs, then target vectors (unit vectors for classes), as elements."""
    units = [tuple(Fraction(c == k) for c in range(classes)) for k in range(classes)]
    targets = [units[label] if isinstance(label, int) else label for label in batch.y]
    return [[field.constant(v) for v in (*x, *y)] for x, y in zip(batch.x, targets, strict=True)]


def _row(field: Field, row: tuple[AlgebraicNumber, ...], width: int) -> Row:
    require(len(row) == width, "a row has a wrong length")
    return [_number(field, number) for number in row]


def _number(field: Field, number: AlgebraicNumber) -> Element:
    require(len(number) <= MAX_TERMS, "a number has too many terms")
    out: Element = {}
    for text, powers in number:
        require(len(powers) == len(field.roots), "a term does not name the power of every root")
        require(all(0 <= p <= 64 for p in powers), "a power is out of range")
        out = field.plus(out, {powers: rational(text)})
    return field.reduced(out)


def gradient_entries(
    field: Field,
    network: ReluNetwork,
    loss: Loss,
    inputs: Sequence[Row],
    labels: Sequence[Row],
) -> list[Element]:
    """All entries of the gradient (reduction sum) of mse or hinge, layer by layer, row by row, the bias last.

    ``labels``: target vectors (unit vectors for hinge). Raises :class:`UndecidedSignError`.
    """
    found: list[list[Element]] = [[] for _ in network.layers]
    for x, label in zip(inputs, labels, strict=True):
        features, active = _forward(field, network, x)
        logits = features.pop()
        delta = _vector(field, loss, logits, label)
        for i in range(network.depth - 1, -1, -1):
            entries = [
                e
                for g in delta
                for e in ([field.times(g, h) for h in features[i]] + ([g] if network.has_bias else []))
            ]
            before = found[i] or [{} for _ in entries]
            found[i] = [field.plus(a, b) for a, b in zip(before, entries, strict=True)]
            if i:
                delta = _back(field, network.layers[i], delta, active.pop())
    return [e for layer in found for e in layer]


def _forward(field: Field, network: ReluNetwork, x: Row) -> tuple[list[Row], list[list[bool]]]:
    """Features of every layer, the logits last, and the states of the hidden neurons."""
    features, active = [x], []
    for i, layer in enumerate(network.layers):
        z = [_affine(field, layer, j, features[-1]) for j in range(layer.shape[0])]
        if i == network.depth - 1:
            features.append(z)
            break
        bits = [field.sign(v) > 0 for v in z]
        active.append(bits)
        features.append([v if on else {} for v, on in zip(z, bits, strict=True)])
    return features, active


def _affine(field: Field, layer: Linear, j: int, features: Row) -> Element:
    out = field.constant(Fraction(0) if layer.bias is None else to_fraction(layer.bias[j]))
    for w, v in zip(layer.weight[j], features, strict=True):
        if w:
            out = field.plus(out, v, to_fraction(w))
    return out


def _vector(field: Field, loss: Loss, logits: Row, label: Row) -> Row:
    if loss is Loss.MSE:
        half = [field.plus(f, y, Fraction(-1)) for f, y in zip(logits, label, strict=True)]
        return [field.plus(v, v) for v in half]
    own = next(c for c, v in enumerate(label) if v)
    share = Fraction(1, len(logits))
    margins = [
        field.plus(field.plus(logits[own], f, Fraction(-1)), field.constant(Fraction(-1))) for f in logits
    ]
    violated = [c != own and field.sign(v) < 0 for c, v in enumerate(margins)]
    total = -share * sum(violated)
    return [field.constant(total if c == own else share * on) for c, on in enumerate(violated)]


def _back(field: Field, layer: Linear, delta: Row, active: Sequence[bool]) -> Row:
    out: Row = []
    for k, on in enumerate(active):
        value: Element = {}
        if on:
            for w, g in zip(layer.weight[:, k], delta, strict=True):
                if w:
                    value = field.plus(value, g, to_fraction(w))
        out.append(value)
    return out
