"""What becomes of a candidate Q^-1 with its next deltas: excluded exactly, or rebuilt to a batch (E9).

From Q follow H'_{i-1} = Q H_{i-1}, the patterns of layer i, and Delta'_i in two ways, which must agree; then
everything below (3.4), and from the inputs a forward pass and the labels. Nothing is a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np

from exan_verify.core.network import Array, Batch
from exan_verify.core.question import Labels
from exan_verify.decide.context import Context
from exan_verify.decide.enumeration.exact import Problem
from exan_verify.decide.labels import admitted
from exan_verify.decide.second_batch import Accepted, Candidate, accept, evidence_of
from exan_verify.exact.backprop import Forward, affine, backward, forward
from exan_verify.exact.linalg import multiply, rank, solve
from exan_verify.exact.rational import RationalMatrix
from exan_verify.exact.rational import product as exact_product
from exan_verify.exact.softmax import loss_vectors, mse_targets

MAX_LABELS = 256
"""Most arrangements of labels that are tried for one candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """``excluded``: no other batch belongs to the candidate; ``second``: one does. Neither: it stays open."""

    excluded: bool = False
    second: Accepted | None = None


EXCLUDED, OPEN = Followed(excluded=True), Followed()


def follow(context: Context, searched: Problem, columns: Array) -> Followed:
    """Follow the candidate with the rows (q_k, u_k) of ``columns`` (M, N)."""
    samples, layer = context.samples, searched.plan.layer
    inverse = columns[:, :samples].T
    matrix = solve(inverse, np.eye(samples, dtype=int).astype(object))
    if matrix is None:
        return EXCLUDED
    hidden = multiply(_features(context, layer - 1), matrix.T)
    delta = multiply(searched.deltas.at(layer).fractions(), inverse)
    active = affine(context.network.layer(layer), RationalMatrix.of(hidden)).positive()
    incoming = multiply(searched.outgoing, columns[:, samples:].T)
    if np.any(np.where(active, incoming, 0) != delta):
        return EXCLUDED
    return _downwards(context, searched, matrix, hidden, delta)


def _downwards(context: Context, searched: Problem, matrix: Array, hidden: Array, delta: Array) -> Followed:
    network, top = context.network, hidden
    for k in range(searched.plan.layer - 1, 0, -1):
        if np.any(hidden < 0):
            return EXCLUDED
        weight = network.layers[k].weight.T
        delta = exact_product(weight, RationalMatrix.of(delta)).masked(hidden > 0).fractions()
        if rank(delta) < context.samples:
            return OPEN
        ours = searched.deltas.at(k).fractions()
        known = np.concatenate([_features(context, k - 1), np.ones((1, context.samples), dtype=int)])
        found = solve(delta, multiply(ours, known.T))
        if found is None or np.any(found[:, -1] != 1):
            return EXCLUDED
        hidden = found[:, :-1].T
    # labels of the given batch stand in: the forward pass does not use them
    passed = forward(network, Batch(inputs=hidden.T, labels=context.batch.labels))
    if np.any(passed.features(searched.plan.layer).fractions() != top):
        return EXCLUDED
    return _labelled(context, searched, matrix, hidden.T, passed)


def _labelled(context: Context, searched: Problem, matrix: Array, inputs: Array, passed: Forward) -> Followed:
    """Every arrangement of admitted labels that gives each sample its own delta, verified exactly."""
    inverse = solve(matrix, np.eye(len(matrix), dtype=int).astype(object))
    assert inverse is not None
    delta = multiply(searched.deltas.at(searched.plan.layer).fractions(), inverse)
    real = context.question.labels is Labels.REAL
    options = (
        _targets(context, searched, passed, delta) if real else _options(context, searched, passed, delta)
    )
    if options is None:
        return OPEN
    arrangements = list(islice(product(*options), MAX_LABELS + 1))
    if len(arrangements) > MAX_LABELS:
        return OPEN
    everyone = tuple(range(context.samples))
    mixed = matrix if searched.plan.layer == 1 else None
    for labels in arrangements:
        kind = int if context.batch.labels.ndim == 1 else object
        batch = Batch(inputs=inputs, labels=np.array(labels, dtype=kind))
        candidate = Candidate(members=everyone, batch=batch, matrix=mixed)
        second = accept(context, evidence_of(context, candidate))
        if second is not None:
            return Followed(second=second)
    return EXCLUDED


def _options(context: Context, searched: Problem, passed: Forward, delta: Array) -> list[list[Any]]:
    """Per sample, the admitted labels whose own backward pass gives the sample's column of ``delta``."""
    found: list[list[Any]] = [[] for _ in range(context.samples)]
    for label in admitted(context.question, context.batch.labels, context.network.classes):
        labels = np.array([label] * context.samples)
        vectors = loss_vectors(context.question.loss, passed.logits, labels, context.divisor)
        theirs = backward(context.network, passed, vectors).at(searched.plan.layer).fractions()
        for k in np.flatnonzero((theirs == delta).all(axis=0)):
            found[k].append(label)
    return found


def _targets(context: Context, searched: Problem, passed: Forward, delta: Array) -> list[list[Any]] | None:
    """Real labels: per sample the one target vector, or none; None where the layers above leave a choice."""
    maps = list(_maps(context, searched, passed))
    found: list[list[Any]] = []
    for k in range(context.samples):
        matrix = np.stack([m[:, k] for m in maps], axis=1)
        if rank(matrix) < len(maps):
            return None
        vector = solve(matrix, delta[:, [k]])
        if vector is None:
            return [[] for _ in range(context.samples)]
        found.append([mse_targets(passed.logits[:, [k]], vector, context.divisor)[:, 0]])
    return found


def _maps(context: Context, searched: Problem, passed: Forward) -> Iterator[Array]:
    """Column c of every sample's map from loss vectors to the deltas of the layer: (n, M) each."""
    for c in range(context.network.classes):
        unit = np.zeros((context.network.classes, context.samples), dtype=int)
        unit[c] = 1
        yield backward(context.network, passed, unit.astype(object)).at(searched.plan.layer).fractions()


def _features(context: Context, layer: int) -> Array:
    found: Array = context.passed.hidden[layer].fractions()
    return found
