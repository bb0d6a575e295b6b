"""Checks shears: segments of batches with one gradient, whose coefficients exist (S2).

Samples S of one region have at most u independent loss vectors: the exact rank for mse and hinge; for
cross_entropy and bce the dimension (K - 1 or K) or the number of distinct ones, whichever is less. So |S| > u
gives real alpha != 0 with ``sum alpha_m g^m = 0``. If v leaves the loss vectors (its logit slopes are
invariant) and all conditions that stand at their limit (zero pre-activations, tied margins, faces of the box)
unchanged, then for all small t the samples x_m + t alpha_m v have the same patterns and loss vectors, and
change T(S) by ``t (sum alpha_m g^m) [v ; 0]^T = 0`` (S0). If the loss vectors without m have rank at least u
(mod p where they are transcendental), they span g^m, so some alpha has alpha_m != 0; and one alpha serves all
such m at once, because a linear space is not a union of finitely many proper subspaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.certificate import Shear, rational
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, ReluNetwork
from exan_verify.core.question import Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import Forward
from exan_verify.exact.linalg import rank, rank_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.rational import RationalMatrix, product
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors, loss_vectors_mod
from exan_verify.kernel.given import Subject, require, require_moderate
from exan_verify.kernel.second.cancellation import distinct_loss_vectors


def facts(evidence: Shear, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples whose coefficient is not always zero.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    chosen = list(evidence.samples)
    require(evidence.prime == PRIME, f"the prime is {evidence.prime}, this schema's is {PRIME}")
    require(1 < evidence.point < PRIME, "the point t is outside [2, p)")
    require(len(set(chosen)) == len(chosen), "a sample is named twice")
    require(all(0 <= m < subject.samples for m in chosen), "there is no such sample")
    _check_direction(subject, chosen, _direction(evidence, subject))
    loss = subject.question.loss
    moving = _moving_exactly(subject, chosen) if loss.rational else _moving_mod(evidence, subject, chosen)
    return Facts(ambiguous=True, free=subject.leaving(moving))


def _direction(evidence: Shear, subject: Subject) -> Array:
    found = np.full(subject.batch.inputs.shape[1], Fraction(0), dtype=object)
    require(len(evidence.direction) <= len(found), "the direction has more entries than features")
    for k, text in evidence.direction:
        require(0 <= k < len(found), "the direction has an index out of range")
        found[k] += rational(text)
    require_moderate(subject, found.reshape(1, -1))
    require(bool(np.any(found != 0)), "the direction is zero")
    return found


def _check_direction(subject: Subject, chosen: list[int], direction: Array) -> None:
    passed = subject.passed
    require(len(chosen) > 0, "the shear names no sample")
    for pattern in passed.patterns:
        same = np.all(pattern[:, chosen] == pattern[:, chosen[:1]])
        require(bool(same), "the samples do not share their patterns")
    rates = slopes(subject.network, passed, chosen[0], direction)
    _check_logits(subject, chosen, rates.logits)
    for zeros, rate in zip(passed.zeros, rates.hidden, strict=True):
        at_limit = zeros[:, chosen].any(axis=1)
        require(not np.any(rate[at_limit] != 0), "the direction moves a zero pre-activation")
    box = subject.question.domain
    if box is not None:
        lo, hi = box.bounds(len(direction))
        x, used = subject.batch.inputs[chosen], direction != 0
        inside = (x > lo) & (x < hi)
        require(bool(np.all(inside[:, used])), "the direction moves a feature on a face of the box")


def _check_logits(subject: Subject, chosen: list[int], rates: Array) -> None:
    """Invariant logits; for hinge, margins that are tied must not move."""
    if subject.question.loss is not Loss.HINGE:
        require(keeps_loss_vector(subject.question.loss, rates), "the direction changes the loss vectors")
        return
    for m in chosen:
        label = int(subject.batch.labels[m])
        logits = subject.passed.logits[:, m]
        tied = 1 - logits[label] + logits == 0
        require(not np.any((rates - rates[label])[tied] != 0), "the direction moves a tied margin")


def _moving_exactly(subject: Subject, chosen: list[int]) -> set[int]:
    """Samples whose loss vector is spanned by the others', by ranks over Q."""
    labels = subject.batch.labels[chosen]
    vectors = loss_vectors(subject.question.loss, subject.passed.logits[:, chosen], labels, 1)
    bound = rank(vectors)
    require(len(chosen) > bound, "the loss vectors of the samples are independent")
    return {m for k, m in enumerate(chosen) if rank(np.delete(vectors, k, axis=1)) == bound}


def _moving_mod(evidence: Shear, subject: Subject, chosen: list[int]) -> set[int]:
    """The same by counting and ranks over F_p."""
    loss = subject.question.loss
    dimension = subject.network.classes - (loss is Loss.CROSS_ENTROPY)
    labels = subject.batch.labels[chosen]
    bound = min(dimension, distinct_loss_vectors(loss, subject.passed.logits[:, chosen], labels))
    require(len(chosen) > bound, f"{len(chosen)} samples may have independent loss vectors")
    vectors = _residues(evidence, subject, chosen)
    return {m for k, m in enumerate(chosen) if rank_mod(np.delete(vectors, k, axis=1)) >= bound}


def _residues(evidence: Shear, subject: Subject, chosen: list[int]) -> Residues:
    loss, logits, labels = subject.question.loss, subject.passed.logits, subject.batch.labels
    try:
        # the logits of the whole batch share one exponent base (3.6); columns are taken afterwards
        everyone = loss_vectors_mod(loss, logits, labels, 1, evidence.point)
    except VanishingDenominatorError:
        raise CertificateRejected("a softmax denominator vanishes at the certificate's point t") from None
    found: Residues = everyone[:, chosen]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Slopes:
    """``hidden[i-1]`` (n_i,): slopes of the pre-activations of hidden layer i; ``logits`` (K,). Fractions."""

    hidden: tuple[Array, ...]
    logits: Array


def slopes(network: ReluNetwork, passed: Forward, sample: int, direction: Array) -> Slopes:
    """How the pre-activations and logits of a sample's region change along ``direction`` (d,)."""
    current = RationalMatrix.of(direction.reshape(-1, 1))
    hidden = []
    for layer, pattern in zip(network.layers[:-1], passed.patterns, strict=True):
        rates = product(layer.weight, current)
        hidden.append(rates.fractions()[:, 0])
        current = rates.masked(pattern[:, [sample]])
    return Slopes(hidden=tuple(hidden), logits=product(network.layers[-1].weight, current).fractions()[:, 0])


def keeps_loss_vector(loss: Loss, rates: Array) -> bool:
    """Whether logits that change with slopes ``rates`` (K,) leave the loss vector, softmax or sigmoid."""
    if loss is Loss.CROSS_ENTROPY:
        return all(rate == rates[0] for rate in rates)
    return not np.any(rates != Fraction(0))
