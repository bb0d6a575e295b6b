"""The samples whose places are asked for, in exact numbers that need not be rational."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.network import Array, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.exact.algebraic import Field, Row
from exan_verify.exact.regions import Pattern
from exan_verify.kernel.algebraic import Samples, forward, rational_labels, value_of
from exan_verify.kernel.given import require
from exan_verify.kernel.labels import Label, admitted, label_array, label_of
from exan_verify.kernel.residual.parts import Part


@dataclass(frozen=True, kw_only=True)
class Members:
    """r samples of a batch: ``inputs`` (r, d) and ``logits`` (r, K) are elements of ``field``, rational
    numbers where it has no roots. ``letters``: the labels that a sample may carry.
    """

    network: ReluNetwork
    question: Question
    field: Field
    inputs: tuple[Row, ...]
    logits: tuple[Row, ...]
    labels: tuple[Label, ...]
    letters: tuple[Label, ...]
    patterns: tuple[Pattern, ...]

    @classmethod
    def of(cls, part: Part) -> Members:
        """Those of a given batch that are left."""
        subject, field = part.subject, Field(())
        layers = subject.passed.patterns
        return cls(
            network=subject.network,
            question=subject.question,
            field=field,
            inputs=tuple([field.constant(v) for v in subject.batch.x[m]] for m in part.members),
            logits=tuple([field.constant(v) for v in row] for row in part.logits),
            labels=tuple(part.labels),
            letters=tuple(part.letters()),
            patterns=tuple(
                tuple(tuple(bool(v) for v in layer[:, m]) for layer in layers) for m in part.members
            ),
        )

    @classmethod
    def found(cls, samples: Samples, network: ReluNetwork, question: Question) -> Members:
        """All samples of a batch of algebraic numbers. Raises :class:`UndecidedSignError`."""
        passes = [forward(samples.field, network, x) for x in samples.inputs]
        own = rational_labels(samples, question.loss)
        return cls(
            network=network,
            question=question,
            field=samples.field,
            inputs=tuple(samples.inputs),
            logits=tuple(features[-1] for features, _ in passes),
            labels=tuple(map(label_of, own)),
            letters=tuple(admitted(question, own, network.classes)),
            patterns=tuple(tuple(map(tuple, active)) for _, active in passes),
        )

    def points(self, chosen: Sequence[int]) -> list[tuple[Fraction, ...]]:
        """The inputs of some of them, where they are rational."""
        return [tuple(map(value_of, self.inputs[n])) for n in chosen]

    def rational_logits(self, chosen: Sequence[int]) -> Array:
        """(K, chosen), where they are rational."""
        return np.array([list(map(value_of, self.logits[n])) for n in chosen], dtype=object).T

    def labels_of(self, chosen: Sequence[int]) -> Array:
        """Labels as a batch has them."""
        return label_array([self.labels[n] for n in chosen], self.question.loss)

    def require_rational(self) -> None:
        """Refuse where the argument is made for rational numbers."""
        require(not self.field.roots, "of irrational samples no sum over a region is told")
