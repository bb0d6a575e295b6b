"""Checks that the samples that are left have no other solution at the output layer (docs/theory.md S5, C4).

The settled samples are distinct and in every batch with this gradient, so the contributions of the others, r
of them, are conserved as a sum. With rank(G) = rank [H_{L-1} 1] = r any other rest has ``H' = Q H``,
``G' = G Q^-1``, ``Q 1 = 1`` and logits ``Q F``. The argument shows that Q is a permutation that fits the
labels; rank(Delta_k) = r, or its joint rank with the forward equations, then carries the features down to the
inputs (3.4).
"""

from __future__ import annotations

import numpy as np

from exan_verify.core.certificate import CoverArgument, QuadricArgument, Residual
from exan_verify.core.facts import Facts
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import backward_mod
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues, random_residues
from exan_verify.exact.rational import RationalMatrix, residue_product
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.residual import (
    cover as residual_cover,
)
from exan_verify.kernel.residual import (
    hinge as residual_hinge,
)
from exan_verify.kernel.residual import (
    quadrics as residual_quadrics,
)
from exan_verify.kernel.residual.parts import Part, left_over

MAX_JOINT = 500


def facts(evidence: Residual, subject: Subject) -> Facts:
    """UNIQUE, with every member determined.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    require(evidence.prime == PRIME, f"the prime is {evidence.prime}, this schema's is {PRIME}")
    require(1 < evidence.point < PRIME, "the point t is outside [2, p)")
    part = _part(evidence, subject)
    _check_ranks(evidence, part)
    if subject.question.labels is Labels.REAL:
        # Q 1 = 1 makes the Q of one sample 1: g' = g and f' = f, so that y' = f - N g / 2 is its own
        alone = len(part.members) == 1 and subject.network.has_bias
        require(alone, "real labels leave the output system of more than one sample open")
        require(
            isinstance(evidence.argument, QuadricArgument) and not evidence.argument.cases,
            "real labels have no cases",
        )
    elif isinstance(evidence.argument, QuadricArgument):
        require(subject.question.loss is Loss.MSE, "quadrics are the output system of mse")
        residual_quadrics.check_cases(evidence.argument.cases, part)
    elif isinstance(evidence.argument, CoverArgument):
        residual_cover.check_cover(evidence.argument, part)
    else:
        require(subject.question.loss is Loss.HINGE, "selections of loss vectors are for hinge")
        residual_hinge.check_selections(evidence.argument.selections, part)
    return Facts(determined=frozenset(part.members), unique=True)


def _part(evidence: Residual, subject: Subject) -> Part:
    left = left_over(subject)
    require(evidence.members == left, f"the samples that are not settled are {list(left)}")
    return Part(subject=subject, members=left)


def _check_ranks(evidence: Residual, part: Part) -> None:
    subject, size = part.subject, len(part.members)
    try:
        vectors = loss_vectors_mod(
            subject.question.loss,
            subject.passed.logits,
            subject.batch.labels,
            subject.divisor,
            evidence.point,
        )
    except VanishingDenominatorError:
        raise CertificateRejected("a softmax denominator vanishes at the certificate's point t") from None
    *below, top = backward_mod(subject.network, subject.passed, vectors)
    require(rank_mod(top[:, list(part.members)]) == size, f"rank(G) of the members is not shown to be {size}")
    for k, delta in enumerate(below, start=1):
        found = rank_mod(delta[:, list(part.members)]) == size or _joint_rank(part, k, delta)
        require(found, f"layer {k} is not shown to determine the features below it")
    require(_feature_rank(part) == size, f"rank [H_(L-1) 1] of the members is not shown to be {size}")


def _joint_rank(part: Part, layer: int, delta: Residues) -> bool:
    """Whether V = 0 follows from ``Delta V = 0`` and ``w . v_m = 0``, w the weights of m's active neurons."""
    weight = RationalMatrix.of(part.subject.network.layer(layer).weight).residues()
    size, width = len(part.members), weight.shape[1]
    require(size * width <= MAX_JOINT, "the joint system on the way down is too large")
    active = part.subject.passed.pattern(layer)
    rows = []
    for j in range(len(weight)):
        for feature in range(width):
            row = np.zeros((size, width), dtype=np.uint64)
            row[:, feature] = delta[j, list(part.members)]
            rows.append(row.reshape(-1))
        for k, m in enumerate(part.members):
            row = np.zeros((size, width), dtype=np.uint64)
            if active[j, m]:
                row[k] = weight[j]
                rows.append(row.reshape(-1))
    return bool(rank_mod(np.array(rows)) == size * width)


def _feature_rank(part: Part) -> int:
    features: RationalMatrix = part.features(part.subject.network.depth - 1)
    rows, size = features.shape
    values = features.residues()
    if part.subject.network.has_bias:
        values = np.concatenate([values, np.ones((1, size), dtype=np.uint64)])
    if rows > 8 * size:
        values = residue_product(random_residues("kernel/rest", size + 8, len(values)), values)
    return rank_mod(values)
