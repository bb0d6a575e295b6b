"""Second batches that are not rational, as evidence for the kernel: algebraic, or enclosed in a box.

The solvers' path gives them as records; written as evidence, they are the kernel's checker's to admit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from exan_verify.core.certificate import (
    AlgebraicBatch,
    AlgebraicNumber,
    AlgebraicRoot,
    EnclosedBatch,
    Evidence,
)
from exan_verify.core.facts import Facts
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.decide.second_batch import admitted
from exan_verify.decide.solvers.relations import in_field
from exan_verify.exact.algebraic import Element, Field, Root


def irrational_evidence(context: Context, records: Sequence[Any]) -> tuple[Facts, tuple[Evidence, ...]]:
    """Facts and evidence of the first record, or none where it is not proved here."""
    if len(records) != 1 or not isinstance(records[0], Mapping):
        return Facts(), ()
    record = records[0]
    ball = record.get("kind") == "ball"
    evidence = _enclosed(context, record) if ball else algebraic_batch(context.question.loss, record)
    facts = None if evidence is None else admitted(context, evidence)
    return (Facts(), ()) if evidence is None or facts is None else (facts, (evidence,))


def _enclosed(context: Context, record: Mapping[str, Any]) -> EnclosedBatch:
    labels = [[Fraction(v) for v in row] for row in record["y"]]
    if context.question.loss.class_labels:
        labels = [[Fraction(row.index(Fraction(1)))] for row in labels]
    return EnclosedBatch(
        inputs=tuple(tuple(str(Fraction(v)) for v in row) for row in record["x"]),
        free=tuple((int(m), int(k)) for m, k in record["free"]),
        radius=str(Fraction(record["radius"])),
        labels=tuple(tuple(map(str, row)) for row in labels),
    )


def algebraic_batch(loss: Loss, record: Mapping[str, Any]) -> AlgebraicBatch | None:
    """The batch of a solver's record, with as few roots as serve; None where it is no algebraic one."""
    if record.get("kind") != "algebraic" or not loss.rational:
        return None
    field, values = _joined(record["roots"])
    rows, labels = ([[_value(v, field, values) for v in row] for row in record[key]] for key in "xy")
    if loss.class_labels:
        labels = [[field.constant(Fraction(next(c for c, v in enumerate(row) if v)))] for row in labels]
    roots = [_root(record["roots"][name]) for name in _chosen(record["roots"])]
    return AlgebraicBatch(
        roots=tuple(AlgebraicRoot(polynomial=r.polynomial, low=str(r.low), high=str(r.high)) for r in roots),
        inputs=tuple(tuple(map(_written, row)) for row in rows),
        labels=tuple(tuple(map(_written, row)) for row in labels),
    )


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
