"""Which labels a sample may carry: the kernel's own list of them (docs/theory.md section 1)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from exan_verify.core.network import Array, to_fraction
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.kernel.given import require

Label = tuple[Fraction, ...]
"""A target vector, or a class alone."""

MAX_BITS = 12
"""The engine stops at 1100 labels of bce."""


def label_of(value: Any) -> Label:
    """A row of targets, or a class, as its label."""
    return tuple(to_fraction(v) for v in np.atleast_1d(value))


def admitted(question: Question, own: Array, classes: int) -> list[Label]:
    """All labels where they are finitely many: the known ones ``own`` (M, ...) as they first occur, 0/1
    vectors in the order of the numbers they write (bce), unit vectors and classes in their order.
    """
    if question.labels is Labels.KNOWN:
        return list(dict.fromkeys(map(label_of, own)))
    if question.loss.class_labels:
        return [(Fraction(k),) for k in range(classes)]
    if question.loss is Loss.BCE:
        require(classes <= MAX_BITS, f"2^{classes} labels are too many to go through")
        return [tuple(map(Fraction, bits)) for bits in product((0, 1), repeat=classes)]
    if classes == 1:
        return [(Fraction(0),), (Fraction(1),)]
    return [tuple(Fraction(c == k) for c in range(classes)) for k in range(classes)]


def label_array(labels: Sequence[Sequence[Fraction]], loss: Loss) -> Array:
    """Labels as :class:`exan_verify.core.network.Batch` has them: classes (M,), or targets (M, K)."""
    if loss.class_labels:
        return np.array([int(label[0]) for label in labels])
    out = np.empty((len(labels), len(labels[0])), dtype=object)
    for m, label in enumerate(labels):
        out[m] = label
    return out
