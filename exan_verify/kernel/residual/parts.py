"""What the residual checkers share: the members' features and logits, admitted labels, and the way down."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np

from exan_verify.core.network import Array, Batch
from exan_verify.core.question import Labels
from exan_verify.exact import backprop
from exan_verify.exact.linalg import multiply, rank, solve
from exan_verify.exact.rational import RationalMatrix
from exan_verify.exact.rational import product as matrix_product
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.labels import Label, admitted, label_array, label_of

MAX_MULTISETS = 100_000
"""The engine stops at 1100 multisets."""


def left_over(subject: Subject) -> tuple[int, ...]:
    """The samples that are not settled; the others are distinct, so that what these contribute is known
    (R1).
    """
    left = tuple(m for m in range(subject.samples) if m not in subject.settled)
    require(len(left) > 0, "every sample is settled already")
    settled = sorted(subject.settled)
    require(not settled or subject.batch.select(settled).distinct, "settled samples are equal")
    return left


@dataclass(frozen=True, kw_only=True)
class Part:
    """The members of a residual claim, within their subject."""

    subject: Subject
    members: tuple[int, ...]

    def features(self, layer: int) -> RationalMatrix:
        """H_layer^T of the members, (n_layer, r)."""
        whole = self.subject.passed.hidden[layer]
        return RationalMatrix(whole.digits[:, :, list(self.members)], whole.denominator)

    @property
    def logits(self) -> Array:
        """F (r, K)."""
        found: Array = self.subject.passed.logits[:, list(self.members)].T
        return found

    @property
    def labels(self) -> list[Label]:
        """Y: the members' labels as tuples of Fractions (classes as 1-tuples)."""
        return [label_of(self.subject.batch.labels[m]) for m in self.members]

    def multisets(self) -> list[list[Label]]:
        """One arrangement of every admitted multiset of labels; the own one as the members have it."""
        own = self.labels
        if self.subject.question.labels is Labels.KNOWN:
            return [own]
        count = comb(len(self.letters()) + len(own) - 1, len(own))
        require(count <= MAX_MULTISETS, f"{count} label multisets are too many to go through")
        return [
            own if sorted(chosen) == sorted(own) else list(chosen)
            for chosen in combinations_with_replacement(self.letters(), len(own))
        ]

    def letters(self) -> list[Label]:
        """Labels a sample may carry."""
        subject = self.subject
        return admitted(subject.question, subject.batch.labels[list(self.members)], subject.network.classes)


def excluded(part: Part, matrix: Array, labels: list[Label]) -> bool:
    """Whether ``H'_{L-1} = Q H_{L-1}`` with these labels is shown to belong to no batch (rational losses)."""
    subject = part.subject
    network, depth = subject.network, subject.network.depth
    hidden = multiply(matrix, part.features(depth - 1).T.fractions()).T
    logits = backprop.affine(network.layers[-1], RationalMatrix.of(hidden)).fractions()
    loss = subject.question.loss
    vectors = loss_vectors(loss, logits, label_array(labels, loss), subject.divisor)
    delta = RationalMatrix.of(vectors)
    own = loss_vectors(loss, subject.passed.logits, subject.batch.labels, subject.divisor)
    deltas = backprop.backward(network, subject.passed, own)
    for k in range(depth - 1, 0, -1):
        if np.any(hidden < 0):
            return True
        active = hidden > 0
        delta = matrix_product(network.layers[k].weight.T, delta).masked(active)
        if rank(delta.fractions()) < len(part.members):
            return False
        found = solve(delta.fractions(), _layer_gradient(part, k, deltas.at(k)))
        if found is None:
            return True
        if network.has_bias:
            if np.any(found[:, -1] != 1):
                return True
            found = found[:, :-1]
        z = backprop.affine(network.layer(k), RationalMatrix.of(found.T)).fractions()
        if np.any(z[active] != hidden[active]) or np.any(z[~active] > 0):
            return True
        hidden = found.T
    domain = subject.question.domain
    return domain is not None and not domain.contains(Batch(inputs=hidden.T, labels=np.zeros(len(labels))))


def _layer_gradient(part: Part, layer: int, whole: RationalMatrix) -> Array:
    """``Delta [H 1]`` of the members at ``layer``."""
    delta = RationalMatrix(whole.digits[:, :, list(part.members)], whole.denominator)
    right = matrix_product(delta, part.features(layer - 1).T).fractions()
    if not part.subject.network.has_bias:
        return right
    return np.concatenate([right, delta.row_sums().fractions()], axis=1)
