"""Checks first-order families by counting, for cross_entropy and bce (docs/theory.md S4, appendix F).

U_m: the motions of sample m that leave its loss vector and its limits alone. The gradient changes by
``sum_s s M_s`` on the coefficients of a motion in the sum of all U_m; every column lies in the joint column
space of the rational M_s, of dimension R. If the U_m together have more than R dimensions, real motions exist
that change nothing, for all small steps. Sample m moves along some of them if the other samples' columns have
rank above R - dim U_m (shown mod p): were its part always zero, the columns would have rank dim U_m more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exan_verify.core.certificate import Counting
from exan_verify.core.facts import Facts
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import backward_mod
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.second.cancellation import symbolic_loss_vectors
from exan_verify.kernel.second.first_order import (
    Bases,
    common_motions,
    most_equations,
    own_motions,
    responses_mod,
)

MAX_RESPONSES = 300_000
"""As for the engine: seconds of elimination over Q."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """More ``motions`` (dimensions) than ``equations`` (at most), and the samples ``free`` that move."""

    motions: int
    equations: int
    free: frozenset[int]


def facts(evidence: Counting, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that move.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    return Facts(ambiguous=True, free=count(evidence, subject).free)


def count(evidence: Counting, subject: Subject) -> Count:
    """The count that shows :func:`facts`; raises as it does."""
    require(not subject.question.loss.rational, "counting is for cross_entropy and bce")
    require(evidence.prime == PRIME, f"the prime is {evidence.prime}, this schema's is {PRIME}")
    require(1 < evidence.point < PRIME, "the point t is outside [2, p)")
    chosen = list(evidence.samples)
    require(len(set(chosen)) == len(chosen) > 0, "a sample is named twice, or none is")
    require(all(0 <= m < subject.samples for m in chosen), "there is no such sample")
    _require_small(subject)
    bases = _bases(evidence, subject)
    passed, batch, network = subject.passed, subject.batch, subject.network
    total = sum(basis.shape[1] for basis in bases.values())
    require(total > 0, "no sample can move")
    symbols = symbolic_loss_vectors(subject.question.loss, passed.logits, batch.labels)
    bound = most_equations(network, passed, list(symbols.values()), bases)
    require(total > bound, f"{total} dimensions of motion against up to {bound} equations")
    change = responses_mod(network, passed, _deltas(evidence, subject), bases)
    owner = np.repeat(chosen, [bases[m].shape[1] for m in chosen])
    moving = {m for m in chosen if rank_mod(change[:, owner != m]) + bases[m].shape[1] > bound}
    return Count(motions=total, equations=bound, free=subject.leaving(moving))


def _require_small(subject: Subject) -> None:
    """The responses of all motions to all symbols are one matrix of rationals."""
    entries = sum(layer.weight.size for layer in subject.network.layers)
    columns = subject.samples * subject.network.widths[0]
    size = entries * columns * subject.samples * subject.network.classes
    require(size <= MAX_RESPONSES, f"counting is for small networks: there are {size} responses")


def _bases(evidence: Counting, subject: Subject) -> Bases:
    domain = subject.question.domain
    passed, batch, network = subject.passed, subject.batch, subject.network
    if evidence.common:
        require(network.depth > 1, "there is no first hidden layer")
        return common_motions(network, passed, batch, domain, evidence.samples)
    return own_motions(network, passed, batch, subject.question.loss, domain, evidence.samples)


def _deltas(evidence: Counting, subject: Subject) -> tuple[Residues, ...]:
    loss, logits, labels = subject.question.loss, subject.passed.logits, subject.batch.labels
    try:
        vectors = loss_vectors_mod(loss, logits, labels, 1, evidence.point)
    except VanishingDenominatorError:
        raise CertificateRejected("a softmax denominator vanishes at the certificate's point t") from None
    return backward_mod(subject.network, subject.passed, vectors)
