"""Samples of real algebraic numbers as a certificate describes them, and their passes (docs/theory.md CB10).

Forward and backward passes run on reduced polynomials in the roots (:mod:`exan_verify.exact.algebraic`):
what reduces to nothing is zero. Signs that stay undecided raise :class:`UndecidedSignError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from exan_verify.core.certificate import AlgebraicBatch, AlgebraicNumber, rational
from exan_verify.core.network import Array, Batch, Linear, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.errors import CertificateRejected, InputError, LabelError
from exan_verify.exact.algebraic import MAX_DEGREE, Element, Field, Root, Row
from exan_verify.kernel.given import require
from exan_verify.kernel.labels import label_array

MAX_TERMS = 64
"""As many as there are products of powers below the degrees."""

MAX_WORK = 1 << 19
MAX_BITS = 4096
MAX_TEXT = 2000
"""Products of rationals in the passes, bits of the polynomials' integers, characters of a rational: batches
that solvers find for small networks have a hundredth of each, in the tests.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Inputs (M, d) and target vectors (M, K), unit vectors of classes, as elements of one field."""

    field: Field
    inputs: list[Row]
    targets: list[Row]


def samples_of(record: AlgebraicBatch, network: ReluNetwork, question: Question) -> Samples:
    """What the record describes: as many samples as are asked about, with admitted labels, in the domain.

    Raises :class:`CertificateRejected` where it is none of these, and :class:`UndecidedSignError`.
    """
    require(question.loss.rational, "algebraic batches are for mse and hinge")
    require(len(record.inputs) == question.samples, "the algebraic batch has another size")
    require(len(record.labels) == question.samples, "every sample needs a label")
    _require_small(record, network, question)
    roots = tuple(Root(root.polynomial, rational(root.low), rational(root.high)) for root in record.roots)
    field = Field(roots)
    require(field.valid(), "a root is not shown to exist")
    inputs = [_row(field, row, network.widths[0]) for row in record.inputs]
    targets = _targets(record, network, question, field)
    _check_domain(field, question, inputs)
    return Samples(field=field, inputs=inputs, targets=targets)


def rational_samples(field: Field, batch: Batch, classes: int) -> Samples:
    """A batch of rational numbers in a field."""
    units = [tuple(Fraction(c == k) for c in range(classes)) for k in range(classes)]
    targets = [units[label] if isinstance(label, int) else label for label in batch.y]
    inputs, vectors = ([[field.constant(v) for v in row] for row in rows] for rows in (batch.x, targets))
    return Samples(field=field, inputs=inputs, targets=vectors)


def rational_inputs(samples: Samples) -> Array:
    """Their inputs (M, d), where they are rational."""
    return np.array([[value_of(v) for v in row] for row in samples.inputs], dtype=object)


def rational_labels(samples: Samples, loss: Loss) -> Array:
    """Their labels as a batch has them, where they are rational: classes (M,), or targets (M, K)."""
    rows = [[value_of(v) for v in row] for row in samples.targets]
    return label_array(
        [[Fraction(row.index(Fraction(1)))] for row in rows] if loss.class_labels else rows, loss
    )


def value_of(element: Element) -> Fraction:
    """The number, where it is rational."""
    require(all(not any(powers) for powers in element), "a number is not rational")
    return sum(element.values(), Fraction(0))


def _require_small(record: AlgebraicBatch, network: ReluNetwork, question: Question) -> None:
    """Every weight is multiplied with a polynomial in the roots, for every sample; and the text is short."""
    degrees = [len(root.polynomial) - 1 for root in record.roots]
    require(all(degree >= 2 for degree in degrees) and prod(degrees) <= MAX_DEGREE, "the field is too large")
    weights = sum(layer.weight.size for layer in network.layers)
    work = weights * question.samples * prod(degrees) ** 2
    require(work <= MAX_WORK, "algebraic batches are for small networks: the passes take too long")
    require(
        all(abs(c) < 1 << MAX_BITS for root in record.roots for c in root.polynomial)
        and all(len(end) <= MAX_TEXT for root in record.roots for end in (root.low, root.high))
        and all(
            len(text) <= MAX_TEXT for row in (*record.inputs, *record.labels) for v in row for text, _ in v
        ),
        "a number is too long",
    )


def _targets(record: AlgebraicBatch, network: ReluNetwork, question: Question, field: Field) -> list[Row]:
    """Target vectors; those that are not real must be rational and admitted."""
    classes = question.loss.class_labels
    rows = [_row(field, row, 1 if classes else network.classes) for row in record.labels]
    if question.labels is Labels.REAL:
        return rows
    labels = [[value_of(v) for v in row] for row in rows]
    require(not classes or all(row[0].denominator == 1 for row in labels), "a class is no integer")
    try:
        admitted = Batch.of(
            np.zeros((len(rows), network.widths[0])),
            label_array(labels, question.loss),
            network=network,
            loss=question.loss,
            labels=question.labels,
        )
    except (LabelError, InputError) as error:
        raise CertificateRejected(f"the algebraic batch is not admitted: {error}") from None
    return rational_samples(field, admitted, network.classes).targets


def _check_domain(field: Field, question: Question, inputs: list[Row]) -> None:
    if question.domain is None:
        return
    low, high = (
        [field.constant(to_fraction(v)) for v in bound] for bound in question.domain.bounds(len(inputs[0]))
    )
    for row in inputs:
        for v, lo, hi in zip(row, low, high, strict=True):
            inside = (
                field.sign(field.plus(v, lo, Fraction(-1)))
                >= 0
                >= field.sign(field.plus(v, hi, Fraction(-1)))
            )
            require(inside, "the algebraic batch lies outside the domain")


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


def gradient_entries(network: ReluNetwork, loss: Loss, samples: Samples) -> list[Element]:
    """All entries of the gradient (reduction sum) of mse or hinge, layer by layer, row by row, the bias last.

    Raises :class:`UndecidedSignError`.
    """
    field = samples.field
    found: list[list[Element]] = [[] for _ in network.layers]
    for x, target in zip(samples.inputs, samples.targets, strict=True):
        features, active = forward(field, network, x)
        logits = features.pop()
        delta = loss_vector(field, loss, logits, target)
        for i in range(network.depth - 1, -1, -1):
            entries = [
                e
                for g in delta
                for e in ([field.times(g, h) for h in features[i]] + ([g] if network.has_bias else []))
            ]
            before = found[i] or [{} for _ in entries]
            found[i] = [field.plus(a, b) for a, b in zip(before, entries, strict=True)]
            if i:
                delta = _back(field, network.layers[i], delta, active[i - 1])
    return [e for layer in found for e in layer]


def forward(field: Field, network: ReluNetwork, x: Row) -> tuple[list[Row], list[list[bool]]]:
    """Features of every layer, the logits last, and the states of the hidden neurons, layer by layer."""
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


def loss_vector(field: Field, loss: Loss, logits: Sequence[Element], target: Sequence[Element]) -> Row:
    """g of one sample (reduction sum); ``target`` is a unit vector for hinge."""
    if loss is Loss.MSE:
        half = [field.plus(f, y, Fraction(-1)) for f, y in zip(logits, target, strict=True)]
        return [field.plus(v, v) for v in half]
    own = next(c for c, v in enumerate(target) if v)
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
