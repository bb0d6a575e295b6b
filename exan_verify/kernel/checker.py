"""``check``: match a certificate with its inputs, re-derive the claim, and compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from exan_verify.core.arrays import Array, exact_array
from exan_verify.core.certificate import (
    AlgebraicBatch,
    Certificate,
    Claim,
    Counting,
    DegreeThree,
    EnclosedBatch,
    Enumeration,
    ExtraRays,
    Forced,
    Lifting,
    QuestionRecord,
    RankBound,
    Residual,
    Scale,
    SecondBatch,
    Shear,
    Tolerance,
    Twins,
    domain_box,
    most_bytes,
    parse,
)
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss
from exan_verify.core.verdict import Budget, Outcome, SampleStatus
from exan_verify.errors import CertificateRejected, InputError, LabelError, ShapeError
from exan_verify.gradients import received
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.gradient import unrealisable
from exan_verify.kernel.gradient.reconstruction import rebuilt_batch
from exan_verify.kernel.lifting import degree_three, enumeration, extra_rays, scale
from exan_verify.kernel.lifting import degree_two as lifting
from exan_verify.kernel.residual import check as residual
from exan_verify.kernel.second import algebraic_batch, counting, enclosed_batch, second_batch
from exan_verify.kernel.second import shear as family
from exan_verify.kernel.timed import checked_within
from exan_verify.kernel.tolerance import check as tolerance

CHECKERS: Mapping[type, Callable[[Any, Subject], Facts]] = {
    Lifting: lifting.facts,
    Scale: scale.scale_facts,
    Twins: scale.twin_facts,
    DegreeThree: degree_three.facts,
    Enumeration: enumeration.facts,
    ExtraRays: extra_rays.facts,
    SecondBatch: second_batch.facts,
    EnclosedBatch: enclosed_batch.facts,
    AlgebraicBatch: algebraic_batch.facts,
    Shear: family.facts,
    Counting: counting.facts,
    Residual: residual.facts,
}
"""One checker for each kind of evidence."""


LONGEST_WAIT = 2e6
"""Seconds that the operating system can be asked to wait."""

MOST_PARTS = 8
"""Pieces of evidence for each sample and each layer: every one adds something about one or the other."""


def check(
    certificate: Mapping[str, Any] | str | bytes,
    model: Any,
    *,
    batch: tuple[Any, Any] | Batch | None = None,
    gradient: Mapping[str, Any] | Gradient | None = None,
    budget: float | None = None,
) -> Claim:
    """Check a certificate against the model and the batch or gradient it was made for.

    ``model``, ``batch`` and ``gradient`` are as for :func:`exan_verify.certify`. Returns the claim that was
    re-derived; it is equal to the certificate's own. ``budget``: seconds, kept whatever is computed (in a
    process of its own); when they run out, the certificate is neither accepted nor rejected.

    Raises :class:`CertificateRejected` with the first step that fails, and
    :class:`exan_verify.errors.InputError` when the inputs themselves are malformed. Nothing else: what a
    certificate says is bounded before it is used (docs/theory.md, 6.1a). With a budget also
    :class:`exan_verify.errors.BudgetExhausted`.
    """
    limit = Budget(seconds=budget)
    network = _network(model)
    given = _given(network, model, batch, gradient)
    left = limit.seconds_left
    if left is None:
        return rederive(certificate, network, given)
    return checked_within(min(left, LONGEST_WAIT), (certificate, network, given))


def rederive(
    certificate: Mapping[str, Any] | str | bytes,
    network: ReluNetwork,
    given: tuple[Array, Array] | Gradient,
) -> Claim:
    """:func:`check` for inputs that have been read."""
    record = parse(certificate, longest=most_bytes(_numbers(network, given)))
    if network.mixed_biases:
        raise CertificateRejected(network.mixed_biases)
    question = record.claim.question
    if record.model_sha256 != network.digest:
        raise CertificateRejected("the certificate was made for another model (SHA-256 differs)")
    entrance = "gradient" if isinstance(given, Gradient) else "batch"
    if question.entrance != entrance:
        raise CertificateRejected(
            f"the certificate was made for a {question.entrance}; pass {question.entrance}="
        )
    subject = given if isinstance(given, Gradient) else _matching_batch(record, network, given)
    try:
        with np.errstate(all="ignore"):  # floating point only guesses, and what it guesses is verified
            claim = _claim(record, network, subject)
    except InputError as error:  # the caller's own inputs were read before
        raise CertificateRejected(f"the evidence is not about these inputs: {error}") from None
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        raise CertificateRejected(f"the evidence cannot be evaluated: {error}") from None
    if claim != record.claim:
        raise CertificateRejected(
            f"the evidence shows {_summary(claim)}, the certificate claims {_summary(record.claim)}"
        )
    return claim


def _given(
    network: ReluNetwork,
    model: Any,
    batch: tuple[Any, Any] | Batch | None,
    gradient: Mapping[str, Any] | Gradient | None,
) -> tuple[Array, Array] | Gradient:
    """The caller's numbers, read before anything of the certificate is."""
    if (batch is None) == (gradient is None):
        raise InputError(
            "give either batch=(x, y) or gradient={name: tensor}, as the certificate was made for"
        )
    if gradient is not None:
        found = received(gradient, model)
        found.for_network(network)
        return found
    if isinstance(batch, Batch):
        return batch.inputs, batch.labels
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InputError("batch is not a pair; give batch=(x, y)")
    x, y = (exact_array(values, name) for values, name in zip(batch, ("x", "y"), strict=True))
    # what is wrong with x is the caller's; whether y fits depends on the loss that the certificate names
    some = Batch.of(x, np.zeros(x.shape[:1]), network=network, loss=Loss.HINGE, labels=Labels.ONE_HOT)
    if y.shape[:1] != (some.size,):
        raise ShapeError(f"y has shape {y.shape} but x has {some.size} samples; give one label per sample")
    return x, y


def _numbers(network: ReluNetwork, given: tuple[Array, Array] | Gradient) -> int:
    arrays = given.tensors.values() if isinstance(given, Gradient) else given
    return sum(array.size for _, array in network.parameters()) + sum(array.size for array in arrays)


def _claim(record: Certificate, network: ReluNetwork, given: Batch | Gradient) -> Claim:
    if record.claim.question.tolerance is not None:
        return _within_tolerance(record, network, given)
    if record.claim.outcome is Outcome.UNREALISABLE:
        return _refuted(record, network, given)
    if isinstance(given, Gradient):
        given = _batch_of_gradient(record, network, given)
    return _derive(record, network, given)


def _derive(record: Certificate, network: ReluNetwork, batch: Batch) -> Claim:
    question = record.claim.question
    if question.batch_size != batch.size:
        raise CertificateRejected(
            f"the claim is about batches of {question.batch_size} samples, the batch has {batch.size}"
        )
    domain = _domain(question, batch.inputs.shape[1])
    if domain is not None and not domain.contains(batch):
        raise CertificateRejected("the batch lies outside the claim's domain")
    most = MOST_PARTS * (batch.size + network.depth)
    require(len(record.evidence) <= most, f"there are more than {most} pieces of evidence")
    facts = Facts()
    for part in record.evidence:
        require(type(part) in CHECKERS, f"{type(part).__name__} is no evidence about a batch")
        subject = Subject(network=network, batch=batch, question=question, settled=facts.determined)
        facts |= CHECKERS[type(part)](part, subject)
    return Claim(
        question=question,
        outcome=facts.outcome(batch.size, distinct=batch.distinct),
        samples=facts.statuses(batch.size),
    )


def _refuted(record: Certificate, network: ReluNetwork, given: Batch | Gradient) -> Claim:
    """UNREALISABLE: one piece of evidence that no batch of the claim's size has the gradient."""
    question, size = record.claim.question, record.claim.question.batch_size
    require(len(record.evidence) == 1 and record.rebuild is None, "one piece of evidence is expected")
    require(size >= 1, "a batch has at least one sample")
    evidence = record.evidence[0]
    domain = _domain(question, network.widths[0])
    if isinstance(given, Batch):
        subject = Subject(network=network, batch=given, question=question)
        if not isinstance(evidence, RankBound):
            raise CertificateRejected("with a batch given, only a rank bound shows this")
        unrealisable.check_rank_bound_of_batch(evidence, subject, size)
    else:
        _require_digest(record, given)
        if isinstance(evidence, RankBound):
            unrealisable.check_rank_bound_of_gradient(evidence, given, network, size)
        elif isinstance(evidence, Forced):
            unrealisable.check_forced(evidence, given, network, question, domain)
        else:
            raise CertificateRejected("this kind of evidence shows no UNREALISABLE")
    return Claim(question=question, outcome=Outcome.UNREALISABLE, samples=())


def _within_tolerance(record: Certificate, network: ReluNetwork, given: Batch | Gradient) -> Claim:
    """UNIQUE up to a radius (Appendix T); a question with a tolerance has no other evidence."""
    require(len(record.evidence) == 1 and record.rebuild is None, "one piece of evidence is expected")
    evidence = record.evidence[0]
    if not isinstance(given, Gradient):
        raise CertificateRejected("only a gradient is given with a tolerance")
    if not isinstance(evidence, Tolerance):
        raise CertificateRejected("this kind of evidence shows nothing about a tolerance")
    _require_digest(record, given)
    domain = _domain(record.claim.question, network.widths[0])
    return tolerance.claim(evidence, record.claim, network, given, domain)


def _matching_batch(record: Certificate, network: ReluNetwork, given: tuple[Array, Array]) -> Batch:
    if record.rebuild is not None or record.gradient_sha256 is not None:
        raise CertificateRejected("a certificate for a batch must not carry parts for a gradient")
    question = record.claim.question
    try:
        cleaned = Batch.given(given, network=network, loss=question.loss, labels=question.labels)
    except LabelError as error:
        raise CertificateRejected(f"the labels do not fit the certificate's question: {error}") from None
    if record.batch_sha256 != cleaned.digest:
        raise CertificateRejected("the certificate was made for another batch (SHA-256 differs)")
    return cleaned


def _batch_of_gradient(record: Certificate, network: ReluNetwork, given: Gradient) -> Batch:
    _require_digest(record, given)
    if record.rebuild is None:
        raise CertificateRejected("a certificate for a gradient must say how the batch is rebuilt from it")
    question = record.claim.question
    x, y = rebuilt_batch(record.rebuild, network, given, question)
    return _batch_of(network, question, x, y)


def _require_digest(record: Certificate, given: Gradient) -> None:
    require(record.batch_sha256 is None, "a certificate for a gradient must not carry parts for a batch")
    require(
        record.gradient_sha256 == given.digest,
        "the certificate was made for another gradient (SHA-256 differs)",
    )


def _batch_of(network: ReluNetwork, question: QuestionRecord, x: Any, y: Any) -> Batch:
    try:
        return Batch.of(x, y, network=network, loss=question.loss, labels=question.labels)
    except (LabelError, ShapeError) as error:
        raise CertificateRejected(f"the labels do not fit the certificate's question: {error}") from None


def _domain(question: QuestionRecord, features: int) -> Box | None:
    try:
        domain = domain_box(question.domain)
        if domain is not None:
            domain.bounds(features)
    except InputError as error:
        raise CertificateRejected(f"the claim's domain is not a box: {error}") from None
    return domain


def _network(model: Any) -> ReluNetwork:
    if isinstance(model, ReluNetwork):
        return model
    from exan_verify.models.chain import to_network  # torch is imported only for torch models

    return to_network(model)


def _summary(claim: Claim) -> str:
    known = sum(status is SampleStatus.DETERMINED for status in claim.samples)
    if claim.radius is not None:
        return f"{claim.outcome.value} within radii of {len(claim.radius)} samples"
    return f"{claim.outcome.value} with {known} of {len(claim.samples)} samples determined"
