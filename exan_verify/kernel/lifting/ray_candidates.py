"""Whether a candidate Q^-1 belongs to a batch other than the given one, over Q (Appendix E, E9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.network import Array, Batch
from exan_verify.core.question import Labels
from exan_verify.exact.backprop import Forward, affine, backward, forward, gradient
from exan_verify.exact.linalg import multiply, solve
from exan_verify.exact.rational import RationalMatrix
from exan_verify.exact.softmax import loss_vectors, mse_targets
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.labels import admitted, label_array

_MOST_LABELS = 1 << 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """``columns`` (N, M): (q_k, u_k), the q_k being the columns of Q^-1 at ``layer``; ``outgoing`` (n, K'):
    w_j on the unknowns of u; ``deltas``: those of the given batch.
    """

    layer: int
    columns: Array
    outgoing: Array
    deltas: PerLayer[RationalMatrix]


def gives_no_other_batch(candidate: Candidate, subject: Subject) -> bool:
    """Follow the candidate to its inputs and labels: nothing fits, or only the given batch.

    Raises :class:`CertificateRejected` where a step leaves a choice.
    """
    samples = subject.samples
    inverse, unknowns = candidate.columns[:samples], candidate.columns[samples:]
    identity = np.eye(samples, dtype=int).astype(object)
    matrix = solve(inverse, identity)
    if matrix is None:
        return True
    features = multiply(subject.passed.features(candidate.layer).fractions(), matrix.T)
    delta = multiply(candidate.deltas.at(candidate.layer).fractions(), inverse)
    z = affine(subject.network.layer(candidate.layer), RationalMatrix.of(features)).fractions()
    if np.any(delta != multiply(candidate.outgoing, unknowns) * (z > 0)):
        return True
    inputs = _inputs(candidate, subject, features, delta)
    if inputs is None:
        return True
    return not any(_other(subject, batch) for batch in _batches(candidate, subject, inputs, delta))


def _inputs(candidate: Candidate, subject: Subject, features: Array, delta: Array) -> Array | None:
    """The inputs (d, M) below features and deltas of the layer, or None when there are none (3.4)."""
    current = features
    for k in range(candidate.layer - 1, 0, -1):
        if np.any(current < 0):
            return None
        weight = RationalMatrix.of(subject.network.layers[k].weight.T).fractions()
        delta = multiply(weight, delta) * (current > 0)
        known = subject.passed.features(k).fractions()
        known = np.concatenate([known, np.ones((1, subject.samples), dtype=int)])
        right = multiply(candidate.deltas.at(k).fractions(), known.T)
        below = solve(delta, right)
        if below is None:
            # no solution, or a deficient delta, which leaves a choice
            square = solve(delta, multiply(delta, np.eye(subject.samples, dtype=int).astype(object)))
            require(square is not None, f"a candidate's Delta_{k} has not full column rank")
            return None
        if np.any(below[:, -1] != 1):
            return None
        current = below[:, :-1].T
    passed = forward(subject.network, _unlabelled(subject, current))
    reached = passed.features(candidate.layer).fractions()
    return current if np.array_equal(reached, features) else None


def _batches(candidate: Candidate, subject: Subject, inputs: Array, delta: Array) -> Iterator[Batch]:
    """The inputs with every arrangement of admitted labels that gives each sample its own delta."""
    passed, loss = forward(subject.network, _unlabelled(subject, inputs)), subject.question.loss
    if subject.question.labels is Labels.REAL:
        options = _real_options(candidate, subject, passed, delta)
    else:
        options = [[] for _ in range(subject.samples)]
        require(loss.rational, "candidates are followed for mse and hinge only")
        for label in admitted(subject.question, subject.batch.labels, subject.network.classes):
            labels = label_array([label] * subject.samples, loss)
            theirs = _deltas_of(candidate, subject, passed, labels)
            for k in range(subject.samples):
                if np.array_equal(theirs[:, k], delta[:, k]):
                    options[k].append(label)
    arrangements = list(islice(product(*options), _MOST_LABELS + 1))
    require(len(arrangements) <= _MOST_LABELS, "a candidate leaves too many labels")
    for chosen in arrangements:
        yield Batch(inputs=inputs.T, labels=label_array(chosen, loss))


def _deltas_of(candidate: Candidate, subject: Subject, passed: Forward, labels: Array) -> Array:
    vectors = loss_vectors(subject.question.loss, passed.logits, labels, subject.divisor)
    found: Array = backward(subject.network, passed, vectors).at(candidate.layer).fractions()
    return found


def _real_options(candidate: Candidate, subject: Subject, passed: Forward, delta: Array) -> list[list[Any]]:
    """Targets follow from the deltas where the layers above are injective; rejects where they are not."""
    network, samples = subject.network, subject.samples
    options: list[list[Any]] = []
    for k in range(samples):
        back = np.eye(network.classes, dtype=int).astype(object)
        for i in range(network.depth - 1, candidate.layer - 1, -1):
            weight = RationalMatrix.of(network.layers[i].weight.T).fractions()
            back = multiply(weight, back) * passed.pattern(i)[:, [k]]
        require(solve(back, back) is not None, "a candidate's targets are not determined by its deltas")
        vector = solve(back, delta[:, [k]])
        if vector is None:
            return [[] for _ in range(samples)]
        options.append([mse_targets(passed.logits[:, [k]], vector, subject.divisor)[:, 0]])
    return options


def _other(subject: Subject, batch: Batch) -> bool:
    """Whether the batch is admitted, is not the given one, and has its gradient."""
    question, given = subject.question, subject.batch
    domain = question.domain
    if domain is not None and not domain.contains(batch):
        return False
    if question.labels is Labels.KNOWN and Counter(batch.y) != Counter(given.y):
        return False
    if Counter(zip(batch.x, batch.y, strict=True)) == Counter(zip(given.x, given.y, strict=True)):
        return False
    ours, theirs = (gradient(subject.network, b, question.loss, question.reduction) for b in (given, batch))
    return ours == theirs


def _unlabelled(subject: Subject, inputs: Array) -> Batch:
    """A batch for a forward pass, which uses no labels."""
    return Batch(inputs=inputs.T, labels=subject.batch.labels)
