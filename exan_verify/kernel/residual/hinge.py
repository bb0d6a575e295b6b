"""The hinge output system, checked by trying every set of loss vectors (docs/theory.md S5).

The columns of G' span what the columns of G span, are independent, and have the same sum (with biases). A
loss vector is determined by its label and the set of violated margins.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.linalg import multiply, nullspace, solve
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel.given import require
from exan_verify.kernel.labels import Label
from exan_verify.kernel.residual.parts import Part, excluded

MAX_CLASSES = 12
MAX_TRIED = 100_000
"""As for the engine."""


def check_selections(count: int, part: Part) -> None:
    """Every selection but the members' own fails, and there are ``count`` of them."""
    require(part.subject.network.classes <= MAX_CLASSES, "too many classes to list the loss vectors")
    own = _own_vectors(part)
    tried = 0
    for chosen in _selections(part, own):
        tried += 1
        _check(part, own, chosen)
    require(tried == count, f"{tried} selections of loss vectors are possible, the evidence says {count}")


def _check(part: Part, own: Array, chosen: list[tuple[Label, Array]]) -> None:
    """The selection does not fit its own margins, or is the batch itself, or belongs to no batch."""
    vectors = np.array([vector for _, vector in chosen], dtype=object).T
    matrix = solve(vectors, own)
    if matrix is None:
        return
    labels = [label for label, _ in chosen]
    classes = np.array([int(label[0]) for label in labels])
    if np.any(_times_classes(multiply(matrix, part.logits).T, classes) != vectors):
        return
    if matrix.tolist() == _reordering(part, matrix, labels):
        return
    require(excluded(part, matrix, labels), "another selection of loss vectors is not excluded")


def _reordering(part: Part, matrix: Array, labels: list[Label]) -> list[list[int]]:
    """The permutation that takes each label's sample from where the row of Q is largest, if labels agree."""
    out = []
    for row, label in zip(matrix.tolist(), labels, strict=True):
        source = row.index(max(row))
        out.append([int(k == source and part.labels[source] == label) for k in range(len(row))])
    return out


def _selections(part: Part, own: Array) -> Iterator[list[tuple[Label, Array]]]:
    normals = np.array([[int(v) for v in column] for column in nullspace(own.T).T], dtype=object)
    normals = normals.reshape(-1, len(own))
    candidates = [(label, vector) for label, vector in _vectors(own.shape[0]) if not np.any(normals @ vector)]
    size, total = own.shape[1], own.sum(axis=1)
    require(comb(len(candidates), size) <= MAX_TRIED, "too many selections of loss vectors")
    for chosen in combinations(candidates, size):
        if part.subject.network.has_bias and np.any(sum(vector for _, vector in chosen) != total):
            continue
        labels = [label for label, _ in chosen]
        if part.subject.question.labels is Labels.KNOWN and sorted(labels) != sorted(part.labels):
            continue
        yield list(chosen)


def _vectors(classes: int) -> list[tuple[Label, Array]]:
    """K times every non-zero loss vector, with its label."""
    out: list[tuple[Label, Array]] = []
    for label in range(classes):
        for violated in range(1, 1 << classes):
            if violated >> label & 1:
                continue
            vector = np.array([violated >> c & 1 for c in range(classes)], dtype=object)
            vector[label] = -vector.sum()
            out.append(((Fraction(label),), vector))
    return out


def _own_vectors(part: Part) -> Array:
    classes = np.array([int(label[0]) for label in part.labels])
    return _times_classes(part.logits.T, classes)


def _times_classes(logits: Array, classes: Array) -> Array:
    """K times the loss vectors at ``logits`` (K, r): integers."""
    whole: Array = loss_vectors(Loss.HINGE, logits, classes, 1) * Fraction(len(logits))
    return whole
