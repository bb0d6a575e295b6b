"""Second batches that are not rational, as evidence for the kernel: algebraic, or enclosed in a box.

The solvers' path gives them as records; both are proved here again, by the arithmetic that the kernel uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.certificate import (
    AlgebraicBatch,
    AlgebraicNumber,
    AlgebraicRoot,
    EnclosedBatch,
    Evidence,
)
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.decide.solvers.relations import in_field
from exan_verify.exact.algebraic import Element, Field, Root, Row, UndecidedSignError, gradient_entries
from exan_verify.exact.enclosure import Enclosure


def irrational_evidence(context: Context, records: Sequence[Any]) -> tuple[Facts, tuple[Evidence, ...]]:
    """Facts and evidence of the first record, or none where it is not proved here."""
    if len(records) != 1 or not isinstance(records[0], Mapping):
        return Facts(), ()
    record = records[0]
    found = _enclosed(context, record) if record.get("kind") == "ball" else _algebraic(context, record)
    return (Facts(), ()) if found is None else (found[0], (found[1],))


def _enclosed(context: Context, record: Mapping[str, Any]) -> tuple[Facts, Evidence] | None:
    radius = Fraction(record["radius"])
    free = tuple((int(m), int(k)) for m, k in record["free"])
    labels = _labels(context, [[Fraction(v) for v in row] for row in record["y"]])
    centre = Batch.of(
        _table([[Fraction(v) for v in row] for row in record["x"]]),
        labels,
        network=context.network,
        loss=context.question.loss,
        labels=context.question.labels,
    )
    enclosure = Enclosure(
        network=context.network,
        loss=context.question.loss,
        given=context.batch,
        centre=centre,
        radius=radius,
        free=free,
    )
    lacking = frozenset(m for m in range(context.samples) if enclosure.lacks(m))
    if not (free and lacking and enclosure.proved()):
        return None
    evidence = EnclosedBatch(
        inputs=tuple(tuple(map(str, row)) for row in centre.x),
        free=free,
        radius=str(radius),
        labels=tuple(tuple(str(v) for v in np.atleast_1d(row)) for row in labels),
    )
    return Facts(ambiguous=True, free=lacking), evidence


def _algebraic(context: Context, record: Mapping[str, Any]) -> tuple[Facts, Evidence] | None:
    if record.get("kind") != "algebraic" or not context.question.loss.rational:
        return None
    field, values = _joined(record["roots"])
    if not field.valid():
        return None
    rows, labels = ([[_value(v, field, values) for v in row] for row in record[key]] for key in "xy")
    try:
        lacking = _lacking(context, field, rows, labels)
    except UndecidedSignError:
        return None
    if not lacking:
        return None
    written = labels
    if context.question.loss is Loss.HINGE:
        written = [[field.constant(Fraction(next(c for c, v in enumerate(row) if v)))] for row in labels]
    roots = [_root(record["roots"][name]) for name in _chosen(record["roots"])]
    evidence = AlgebraicBatch(
        roots=tuple(AlgebraicRoot(polynomial=r.polynomial, low=str(r.low), high=str(r.high)) for r in roots),
        inputs=tuple(tuple(map(_written, row)) for row in rows),
        labels=tuple(tuple(map(_written, row)) for row in written),
    )
    return Facts(ambiguous=True, free=lacking), evidence


def _lacking(context: Context, field: Field, rows: list[Row], labels: list[Row]) -> frozenset[int]:
    """The given samples that the other batch lacks; nobody when the gradients are not shown to agree."""
    own_rows = [[field.constant(v) for v in x] for x in context.batch.x]
    own_labels = [[field.constant(v) for v in y] for y in _vectors(context)]
    loss, network = context.question.loss, context.network
    there = gradient_entries(field, network, loss, rows, labels)
    here = gradient_entries(field, network, loss, own_rows, own_labels)
    if any(field.plus(a, b, Fraction(-1)) for a, b in zip(there, here, strict=True)):
        return frozenset()
    others = [[*x, *y] for x, y in zip(rows, labels, strict=True)]
    return frozenset(
        m
        for m, own in enumerate([*x, *y] for x, y in zip(own_rows, own_labels, strict=True))
        if all(_differ(field, own, other) for other in others)
    )


def _differ(field: Field, left: Row, right: Row) -> bool:
    return any(field.sign(field.plus(a, b, Fraction(-1))) for a, b in zip(left, right, strict=True))


def _vectors(context: Context) -> list[list[Fraction]]:
    classes = range(context.network.classes)
    return [[Fraction(c == y) for c in classes] if isinstance(y, int) else list(y) for y in context.batch.y]


def _chosen(records: Mapping[str, Any]) -> list[str]:
    """The roots that are not in the field of the first one, which comes first."""
    names = sorted(records)
    first = _root(records[names[0]])
    return [names[0], *(n for n in names[1:] if in_field(first, _root(records[n])) is None)]


def _joined(records: Mapping[str, Any]) -> tuple[Field, dict[str, Element]]:
    """The field of all roots, and each of them as an element."""
    kept = _chosen(records)
    field = Field(tuple(_root(records[n]) for n in kept))
    values: dict[str, Element] = {}
    for name in records:
        if name in kept:
            values[name] = {tuple(int(n == name) for n in kept): Fraction(1)}
        else:
            found = in_field(_root(records[kept[0]]), _root(records[name])) or {}
            values[name] = {(power, *[0] * (len(kept) - 1)): c for (power,), c in found.items()}
    return field, values


def _root(record: Mapping[str, Any]) -> Root:
    return Root(tuple(record["polynomial"]), Fraction(record["low"]), Fraction(record["high"]))


def _value(text: str, field: Field, values: Mapping[str, Element]) -> Element:
    """``"c*root*root + ..."`` as an element."""
    total: Element = {}
    for term in text.split(" + "):
        coefficient, *factors = term.split("*")
        value = field.constant(Fraction(coefficient))
        for name in factors:
            value = field.times(value, values[name])
        total = field.plus(total, value)
    return total


def _written(element: Element) -> AlgebraicNumber:
    return tuple((str(c), powers) for powers, c in sorted(element.items()))


def _labels(context: Context, vectors: list[list[Fraction]]) -> Any:
    if context.batch.labels.ndim == 1:
        return np.array([row.index(Fraction(1)) for row in vectors])
    return _table(vectors)


def _table(rows: list[list[Fraction]]) -> Any:
    out = np.empty((len(rows), len(rows[0])), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return out
