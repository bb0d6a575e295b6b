"""Checks shears: segments of batches with one gradient, whose coefficients exist by counting (S2).

Samples S of one region have ``K - 1`` (cross_entropy) or K (bce) dimensional loss vectors, of which at most
c are distinct. So more than u = min(that, c) samples have real alpha != 0 with ``sum alpha_m g^m = 0``. If v
leaves the loss vectors (its logit slopes are invariant) and all conditions that stand at their limit (zero
pre-activations, faces of the box) unchanged, then for all small t the samples x_m + t alpha_m v have the same
patterns and loss vectors, and change T(S) by ``t (sum alpha_m g^m) [v ; 0]^T = 0`` (S0). If the loss vectors
without m have rank at least u mod p, they span g^m, so some alpha has alpha_m != 0; and one alpha serves all
such m at once, because a linear space is not a union of finitely many proper subspaces.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from exan_verify.certificate import Shear, domain_box, rational
from exan_verify.errors import CertificateRejected
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.segments import distinct_loss_vectors, keeps_loss_vector, slopes
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.facts import Facts
from exan_verify.kernel.subject import Subject, require
from exan_verify.network import Array, Loss


def facts(evidence: Shear, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples whose coefficient is not always zero.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    loss, chosen = subject.question.loss, list(evidence.samples)
    require(loss in (Loss.CROSS_ENTROPY, Loss.BCE), "shears by counting are for cross_entropy and bce")
    require(evidence.prime == PRIME, f"the prime is {evidence.prime}, this schema's is {PRIME}")
    require(1 < evidence.point < PRIME, "the point t is outside [2, p)")
    require(len(set(chosen)) == len(chosen), "a sample is named twice")
    require(all(0 <= m < subject.samples for m in chosen), "there is no such sample")
    direction = _direction(evidence, subject)
    _check_direction(subject, chosen, direction)
    logits, labels = subject.passed.logits[:, chosen], subject.batch.labels[chosen]
    dimension = subject.network.classes - (loss is Loss.CROSS_ENTROPY)
    bound = min(dimension, distinct_loss_vectors(loss, logits, labels))
    require(len(chosen) > bound, f"{len(chosen)} samples may have independent loss vectors")
    moving = _moving(_vectors(evidence, subject, chosen), chosen, bound)
    return Facts(ambiguous=True, free=_without_staying_copies(subject, moving))


def _direction(evidence: Shear, subject: Subject) -> Array:
    found = np.full(subject.batch.inputs.shape[1], Fraction(0), dtype=object)
    for k, text in evidence.direction:
        require(0 <= k < len(found), "the direction has an index out of range")
        found[k] += rational(text)
    require(bool(np.any(found != 0)), "the direction is zero")
    return found


def _check_direction(subject: Subject, chosen: list[int], direction: Array) -> None:
    passed = subject.passed
    require(len(chosen) > 0, "the shear names no sample")
    for pattern in passed.patterns:
        same = np.all(pattern[:, chosen] == pattern[:, chosen[:1]])
        require(bool(same), "the samples do not share their patterns")
    rates = slopes(subject.network, passed, chosen[0], direction)
    require(keeps_loss_vector(subject.question.loss, rates.logits), "the direction changes the loss vectors")
    for zeros, rate in zip(passed.zeros, rates.hidden, strict=True):
        at_limit = zeros[:, chosen].any(axis=1)
        require(not np.any(rate[at_limit] != 0), "the direction moves a zero pre-activation")
    box = domain_box(subject.question.domain)
    if box is not None:
        lo, hi = box.bounds(len(direction))
        x, used = subject.batch.inputs[chosen], direction != 0
        inside = (x > lo) & (x < hi)
        require(bool(np.all(inside[:, used])), "the direction moves a feature on a face of the box")


def _vectors(evidence: Shear, subject: Subject, chosen: list[int]) -> Residues:
    try:
        # the logits of the whole batch share one exponent base (3.6); columns are taken afterwards
        everyone = loss_vectors_mod(
            subject.question.loss, subject.passed.logits, subject.batch.labels, 1, evidence.point
        )
    except VanishingDenominatorError:
        raise CertificateRejected("a softmax denominator vanishes at the certificate's point t") from None
    found: Residues = everyone[:, chosen]
    return found


def _moving(vectors: Residues, chosen: list[int], bound: int) -> set[int]:
    """Samples whose loss vector is spanned by the others': rank at least ``bound`` without it."""
    found = set()
    for column, m in enumerate(chosen):
        if rank_mod(np.delete(vectors, column, axis=1)) >= bound:
            found.add(m)
    return found


def _without_staying_copies(subject: Subject, moving: set[int]) -> frozenset[int]:
    """The moving samples of which every equal sample moves too."""
    pairs = list(zip(subject.batch.x, subject.batch.y, strict=True))
    staying = {pairs[m] for m in range(subject.samples) if m not in moving}
    return frozenset(m for m in moving if pairs[m] not in staying)
