"""Checks motions that the first layer does not see (docs/theory.md section 4, narrow first layer).

Batches X + A with ``A W_1^T = 0`` and ``Delta_1 A = 0`` have the pre-activations, and so the deltas, of X,
and dW_1 changes by ``Delta_1 A = 0``. Of a release only the rows of dW_1 that are sent have to stay, so that
Delta_1 stands for these rows; nothing else changes. With unknown positive weights c, Delta_1 diag(c) A = 0
has the solutions diag(1/c) A: as many dimensions, and the same samples move.

Let E be the rows of Delta_1 that may be non-zero, restricted to the samples S that move, r >= rank E, and
n >= rank W_1 on the features that move. With both replaced by bases of their rows, the map ``A -> (A W_1^T, E
A)`` has its image in ``{(P, Q): E P = Q W_1^T}``, of dimension |S| n + r d - r n. An entry of A is zero where
its feature stands on a face of the box; let c_k samples of S be strictly inside at feature k. Then

    dim {A}  >=  sum_{k in K} (c_k - r) - (|S| - r) n,      K = {k: c_k > r},

which is (|S| - r)(d - n) without a box. r and n are counts: a deficit mod p would prove nothing. Small steps
along A and along -A stay in the box, and nothing else bounds them. Where the evidence has a motion that
leaves faces inwards, entries there count too (:mod:`exan_verify.kernel.second.inwards`).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from exan_verify.core.certificate import Unseen
from exan_verify.core.facts import Facts
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import backward_mod
from exan_verify.exact.linalg import nullspace_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.kernel.given import Subject, only_relu, require
from exan_verify.kernel.second import inwards


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A set of batches with this gradient, of ``dimension`` at least, and the samples ``free`` in it."""

    dimension: int
    free: frozenset[int]


def facts(evidence: Unseen, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that are shown to move.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    found = family(evidence, subject)
    require(
        found.dimension == evidence.dimension,
        f"the family has dimension {found.dimension} at least, the certificate says {evidence.dimension}",
    )
    return Facts(ambiguous=True, free=found.free)


def family(evidence: Unseen, subject: Subject) -> Family:
    """What the samples, and the motion, show, whatever dimension is stated; raises as :func:`facts` does."""
    chosen = list(evidence.samples)
    require(evidence.prime == PRIME, f"the prime is {evidence.prime}, this schema's is {PRIME}")
    require(1 < evidence.point < PRIME, "the point t is outside [2, p)")
    require(len(set(chosen)) == len(chosen) > 0, "a sample is named twice, or none is")
    require(all(m < subject.samples for m in chosen), "there is no such sample")
    live = _may_be_nonzero(subject)[:, chosen]
    rows, columns = np.flatnonzero(live.any(axis=1)), live.any(axis=0)
    bound = min(rows.size, int(columns.sum()))
    require(bound < len(chosen), f"the first delta of {len(chosen)} samples may have rank {len(chosen)}")
    inside = _strictly_inside(subject, chosen)
    moving: set[int] = set()
    if evidence.inwards is msgspec.UNSET:
        movable = inside.sum(axis=0) > bound
        surplus = int((inside.sum(axis=0)[movable] - bound).sum())
        dimension = surplus - (len(chosen) - bound) * _seen(subject, movable)
    else:
        only_relu(subject.model)  # it reads h = 0 off inactive neurons
        found = inwards.moved(evidence.inwards, subject, chosen, inside, _sent(subject), live)
        dimension, moving = found.dimension, set(found.samples)
    require(dimension > 0, "no more dimensions of motion than equations")
    together: Mask = np.all(inside, axis=0)
    if int(together.sum()) > _seen(subject, together):
        # x_m + t alpha_m v for one v with W_1 v = 0 on the features where all may move, and E alpha = 0
        coefficients = _coefficients(evidence, subject)[rows][:, chosen]
        moving |= {chosen[k] for k in np.flatnonzero(~columns | _not_always_zero(coefficients, bound))}
    if not rows.size:  # no equation couples the samples
        moving |= {m for m, own in zip(chosen, inside, strict=True) if int(own.sum()) > _seen(subject, own)}
    return Family(dimension=dimension, free=subject.leaving(moving))


def _may_be_nonzero(subject: Subject) -> Mask:
    """Which entries of Delta_1 (those of its rows that are sent, or rows that span them, M) the activation
    patterns allow to be non-zero.

    Without a hidden layer Delta_1 is the loss vectors; where their entries sum to zero, one row of all adds
    nothing.
    """
    network, passed = subject.model, subject.passed
    sent = _sent(subject)
    if network.depth == 1:
        spare = subject.question.loss.zero_sum and bool(sent.all())
        return np.ones((int(sent.sum()) - spare, subject.samples), dtype=bool)
    live = [passed.live(k) for k in range(1, network.depth)]
    alive = np.all([layer.any(axis=0) for layer in live], axis=0)
    found: Mask = (live[0] & alive)[sent]
    return found


def _sent(subject: Subject) -> Mask:
    """The rows of dW_1 that are sent, (n_1,)."""
    return subject.question.sent_weights(subject.model.layers[0])


def _strictly_inside(subject: Subject, chosen: list[int]) -> Mask:
    """Per sample and feature, whether it may move both ways; (S, d)."""
    x = subject.batch.inputs[chosen]
    if subject.question.domain is None:
        return np.ones(x.shape, dtype=bool)
    lo, hi = subject.question.domain.bounds(x.shape[1])
    found: Mask = (x > lo) & (x < hi)
    return found


def _seen(subject: Subject, features: Mask) -> int:
    """At least the rank of W_1 on ``features``: its rows that are not zero there, or the features."""
    weight = subject.model.layers[0].weight[:, features]
    return min(int((weight != 0).any(axis=1).sum()), int(features.sum()))


def _coefficients(evidence: Unseen, subject: Subject) -> Residues:
    """The rows of Delta_1 mod p that are sent, (n, M)."""
    loss, logits, labels = subject.question.loss, subject.passed.logits, subject.batch.labels
    try:
        vectors = loss_vectors_mod(loss, logits, labels, subject.divisor, evidence.point)
    except VanishingDenominatorError:
        raise CertificateRejected("a softmax denominator vanishes at the certificate's point t") from None
    found: Residues = backward_mod(subject.model, subject.passed, vectors)[0][_sent(subject)]
    return found


def _not_always_zero(matrix: Residues, bound: int) -> Mask:
    """Columns m for which some real alpha with ``E alpha = 0`` has alpha_m != 0, given rank E <= ``bound``.

    Where E mod p has rank ``bound`` and a null vector that is non-zero at m, it keeps that rank without
    column m. Then so does E over the reals, column m is in the span of the others, and alpha exists. A
    smaller rank mod p says nothing.
    """
    null = nullspace_mod(matrix)
    if matrix.shape[1] - null.shape[1] < bound:
        return np.zeros(matrix.shape[1], dtype=bool)
    found: Mask = (null != 0).any(axis=1)
    return found
