"""The rest under hinge: loss vectors take finitely many values, so G' does, and Q follows from it.

``G = G' Q`` with independent columns: the columns of G' are loss vectors in the span of G, distinct, with the
sum of G's columns (biases). Each selection gives one Q; its margins at ``Q F`` must be the ones that its loss
vectors say (docs/theory.md S5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import LossVectorArgument
from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.residual.candidates import follow
from exan_verify.decide.residual.outcome import Settled
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.decide.second_batch import Candidate
from exan_verify.exact.linalg import multiply, nullspace, solve
from exan_verify.exact.softmax import loss_vectors

MAX_CLASSES = 12
"""A class has 2^(K-1) - 1 loss vectors."""

MAX_SELECTIONS = 100_000

Vector = tuple[int, ...]


def solve_rest(rest: Rest, budget: Budget) -> Settled:
    """Decide the rest's output system over all selections of loss vectors."""
    classes = rest.context.network.classes
    if classes > MAX_CLASSES:
        return Settled(note=f"hinge with {classes} classes has too many loss vectors")
    own = _scaled(rest)
    vectors = _vectors_in_span(own)
    if comb(len(vectors), rest.size) > MAX_SELECTIONS:
        return Settled(note=f"{len(vectors)} loss vectors in the span are too many")
    count = 0
    for chosen in selections(own, vectors, rest):
        budget.spend(classes * rest.size**2)
        if stopped := budget.exhausted:
            return Settled(note=stopped)
        count += 1
        found = _candidate(rest, own, chosen)
        if found is not None:
            return found
    note = f"no other of {count} selections of loss vectors fits"
    return Settled(note=note, argument=LossVectorArgument(selections=count))


def selections(own: Array, vectors: list[Vector], rest: Rest) -> Iterator[Array]:
    """G' (K, r) in integers, one per set of distinct vectors with the right sum (and the known labels)."""
    total = own.sum(axis=1)
    labels = Counter(int(v) for v in rest.batch.labels)
    known = rest.context.question.labels is Labels.KNOWN
    for chosen in combinations(vectors, rest.size):
        matrix = np.array(chosen, dtype=object).T
        if rest.affine and np.any(matrix.sum(axis=1) != total):
            continue
        if known and Counter(_labels(matrix)) != labels:
            continue
        yield matrix


def _candidate(rest: Rest, own: Array, chosen: Array) -> Settled | None:
    """None when the selection is the rest itself or belongs to no batch."""
    matrix = solve(chosen, own)
    if matrix is None:
        return None
    labels = np.array(_labels(chosen))
    logits = multiply(matrix, rest.logits).T
    classes = rest.context.network.classes
    if np.any(loss_vectors(Loss.HINGE, logits, labels, 1) * Fraction(classes) != chosen):
        return None
    if _is_own(rest, matrix, labels):
        return None
    end = follow(rest, matrix, labels)
    if end.excluded:
        return None
    if end.batch is None:
        return Settled(note="another selection of loss vectors fits, open below the output layer")
    second = Candidate(members=rest.members, batch=end.batch, matrix=matrix if end.mixed else None)
    return Settled(note="another selection of loss vectors fits", second=second)


def _is_own(rest: Rest, matrix: Array, labels: Array) -> bool:
    """Whether Q and the labels only reorder the rest."""
    for row, label in zip(matrix, labels, strict=True):
        source = [k for k, v in enumerate(row) if v != 0]
        if len(source) != 1 or row[source[0]] != 1 or rest.batch.labels[source[0]] != label:
            return False
    return True


def _scaled(rest: Rest) -> Array:
    """K times the loss vectors, (K, r): integers."""
    vectors = loss_vectors(Loss.HINGE, rest.logits.T, rest.batch.labels, 1) * Fraction(
        rest.context.network.classes
    )
    whole: Array = np.vectorize(int, otypes=[object])(vectors)
    return whole


def _vectors_in_span(own: Array) -> list[Vector]:
    """K times every non-zero loss vector that lies in the span of the columns of ``own``."""
    classes = len(own)
    tests = nullspace(own.T)
    normals = np.array([[int(v) for v in column] for column in tests.T], dtype=object).reshape(-1, classes)
    found = []
    for label in range(classes):
        others = [c for c in range(classes) if c != label]
        for bits in range(1, 1 << len(others)):
            vector = [0] * classes
            for k, c in enumerate(others):
                vector[c] = bits >> k & 1
            vector[label] = -sum(vector)
            if not np.any(normals @ np.array(vector, dtype=object)):
                found.append(tuple(vector))
    return found


def _labels(matrix: Array) -> list[int]:
    """The label of a loss vector is its negative entry."""
    return [int(np.argmin(column)) for column in matrix.T.astype(np.int64)]
