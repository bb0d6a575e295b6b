"""Gradient given, and a batch found that has it: the batch as a certificate names it (mse, hinge).

What lifting does not rebuild from the gradient a solver may find. That the batch has the gradient is the
kernel's checker to say; then everything that is asked of a batch can be asked of it, and of one that is not
rational whether it is alone (docs/theory.md 6.5, CB14).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import AlgebraicBatch, AlgebraicNumber
from exan_verify.core.network import Array, Batch, Gradient, to_fraction
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, Verdict
from exan_verify.decide import cubes
from exan_verify.decide.context import Context, Finding, Setting
from exan_verify.decide.second_batch import has_gradient
from exan_verify.decide.solvers.irrational import algebraic_batch
from exan_verify.exact.algebraic import Root
from exan_verify.exact.backprop import affine
from exan_verify.exact.rational import RationalMatrix

BITS = 256
"""Of the numbers that stand for irrational ones."""
CLEAR = Fraction(1, 1 << 64)
"""How far pre-activations and margins have to be from where they change."""


def record_of(setting: Setting, gradient: Gradient, asked: Verdict) -> AlgebraicBatch | None:
    """The batch that solvers found first, if the kernel sees that it has the gradient."""
    record = None
    if asked.batch is not None:
        inputs, labels = asked.batch.inputs, asked.batch.labels
        record = AlgebraicBatch(
            roots=(), inputs=_written(inputs), labels=_written(labels.reshape(len(labels), -1))
        )
    elif asked.outcome is Outcome.UNIQUE and asked.witness is not None:
        (found,) = asked.witness.generators
        record = algebraic_batch(setting.question.loss, found)
    if record is None or not has_gradient(setting, gradient, asked.batch_size, record):
        return None
    return record


def _written(rows: Array) -> tuple[tuple[AlgebraicNumber, ...], ...]:
    exact = [[to_fraction(v) for v in row] for row in rows]
    return tuple(tuple(((str(v), ()),) if v else () for v in row) for row in exact)


@dataclass(frozen=True, kw_only=True)
class Near:
    """A rational batch beside one that is not, and the gradient of that one (reduction sum)."""

    context: Context
    entries: tuple[Fraction, ...]

    @classmethod
    def of(cls, setting: Setting, gradient: Gradient, record: AlgebraicBatch) -> Near | None:
        """None where a pre-activation is too near to zero to tell its sign, or a margin of hinge."""
        network, question = setting.relu, setting.question
        inputs, labels = _middles(record, record.inputs), _middles(record, record.labels)
        if question.loss.class_labels:
            labels = np.array([int(v) for v in labels[:, 0]])
        batch = Batch.of(inputs, labels, network=network, loss=question.loss, labels=question.labels)
        context = Context(setting=setting, batch=batch)
        hidden = RationalMatrix.of(inputs.T)
        for layer in network.layers[:-1]:
            z = affine(layer, hidden)
            if not _clear(z.fractions()):
                return None
            hidden = z.masked(z.positive())
        if question.loss is Loss.HINGE:
            logits = context.passed.logits
            own = logits[batch.labels, np.arange(batch.size)]
            if not _clear(1 - own + logits):
                return None
        divisor = question.divisor(batch.size, network.classes)
        parts = [part for layer in gradient.for_network(network) for part in _rows(*layer)]
        entries = tuple(divisor * to_fraction(v) for row in parts for v in row)
        return cls(context=context, entries=entries)

    def unique(self, limits: Budget) -> Finding:
        """Whether the batch that is meant is the only one."""
        return cubes.decide_near(self.context, self.entries, limits)


def _clear(values: Array) -> bool:
    return all(abs(v) > CLEAR for v in values.reshape(-1))


def _rows(weight: Array, bias: Array | None) -> list[list[Any]]:
    """[dW | db], row by row."""
    if bias is None:
        return [list(row) for row in weight]
    return [[*row, b] for row, b in zip(weight, bias, strict=True)]


def _middles(record: AlgebraicBatch, rows: tuple[tuple[AlgebraicNumber, ...], ...]) -> Array:
    """Rational numbers within some 2^-BITS of those of the record."""
    roots = [Root(r.polynomial, Fraction(r.low), Fraction(r.high)) for r in record.roots]
    for root in roots:
        root.refine(BITS)
    out = np.empty((len(rows), len(rows[0])), dtype=object)
    for m, row in enumerate(rows):
        for k, number in enumerate(row):
            total = Fraction(0)
            for text, powers in number:
                term = Fraction(text)
                for root, power in zip(roots, powers, strict=True):
                    term *= root.low**power
                total += term
            out[m, k] = total
    return out
