"""``check``: match a certificate with its inputs, re-derive the claim, and compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exan_verify.certificate import (
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
    Question,
    RankBound,
    Residual,
    Scale,
    SecondBatch,
    Shear,
    Tolerance,
    Twins,
    domain_box,
    parse,
)
from exan_verify.errors import CertificateRejected, InputError, LabelError
from exan_verify.exact.modular import UnsuitablePrimeError
from exan_verify.facts import Facts
from exan_verify.gradients import received
from exan_verify.kernel import (
    algebraic_batch,
    counting,
    degree_three,
    enclosed_batch,
    enumeration,
    extra_rays,
    family,
    lifting,
    residual,
    scale,
    second_batch,
    tolerance,
    unrealisable,
)
from exan_verify.kernel.reconstruction import rebuilt_batch
from exan_verify.kernel.subject import Subject, require
from exan_verify.network import Batch, Gradient, ReluNetwork
from exan_verify.verdict import Box, Outcome, SampleStatus

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


def check(
    certificate: Mapping[str, Any] | str | bytes,
    model: Any,
    *,
    batch: tuple[Any, Any] | Batch | None = None,
    gradient: Mapping[str, Any] | Gradient | None = None,
) -> Claim:
    """Check a certificate against the model and the batch or gradient it was made for.

    ``model``, ``batch`` and ``gradient`` are as for :func:`exan_verify.certify`. Returns the claim that was
    re-derived; it is equal to the certificate's own.

    Raises :class:`CertificateRejected` with the first step that fails, and
    :class:`exan_verify.errors.InputError` when the inputs themselves are malformed.
    """
    record = parse(certificate)
    network = _network(model)
    question = record.claim.question
    if record.model_sha256 != network.digest:
        raise CertificateRejected("the certificate was made for another model (SHA-256 differs)")
    if (batch is None) == (gradient is None):
        raise InputError(
            "give either batch=(x, y) or gradient={name: tensor}, as the certificate was made for"
        )
    given = "gradient" if batch is None else "batch"
    if question.entrance != given:
        raise CertificateRejected(
            f"the certificate was made for a {question.entrance}; pass {question.entrance}="
        )
    if batch is None:
        gradient = received(gradient, model)
    try:
        if question.tolerance is not None:
            claim = _within_tolerance(record, network, gradient)
        elif record.claim.outcome is Outcome.UNREALISABLE:
            claim = _refuted(record, network, batch, gradient)
        elif batch is not None:
            claim = _derive(record, network, _matching_batch(record, network, batch))
        else:
            claim = _derive(record, network, _batch_of_gradient(record, network, gradient))
    except UnsuitablePrimeError as error:
        raise CertificateRejected(str(error)) from None
    if claim != record.claim:
        raise CertificateRejected(
            f"the evidence shows {_summary(claim)}, the certificate claims {_summary(record.claim)}"
        )
    return claim


def _derive(record: Certificate, network: ReluNetwork, batch: Batch) -> Claim:
    question = record.claim.question
    if question.batch_size != batch.size:
        raise CertificateRejected(
            f"the claim is about batches of {question.batch_size} samples, the batch has {batch.size}"
        )
    domain = _domain(question, batch.inputs.shape[1])
    if domain is not None and not domain.contains(batch):
        raise CertificateRejected("the batch lies outside the claim's domain")
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


def _refuted(
    record: Certificate,
    network: ReluNetwork,
    batch: tuple[Any, Any] | Batch | None,
    gradient: Mapping[str, Any] | Gradient | None,
) -> Claim:
    """UNREALISABLE: one piece of evidence that no batch of the claim's size has the gradient."""
    question, size = record.claim.question, record.claim.question.batch_size
    require(len(record.evidence) == 1 and record.rebuild is None, "one piece of evidence is expected")
    require(size >= 1, "a batch has at least one sample")
    evidence = record.evidence[0]
    domain = _domain(question, network.widths[0])
    if batch is not None:
        subject = Subject(network=network, batch=_matching_batch(record, network, batch), question=question)
        if not isinstance(evidence, RankBound):
            raise CertificateRejected("with a batch given, only a rank bound shows this")
        unrealisable.check_rank_bound_of_batch(evidence, subject, size)
    else:
        given = _matching_gradient(record, gradient)
        if isinstance(evidence, RankBound):
            unrealisable.check_rank_bound_of_gradient(evidence, given, network, size)
        elif isinstance(evidence, Forced):
            unrealisable.check_forced(evidence, given, network, question, domain)
        else:
            raise CertificateRejected("this kind of evidence shows no UNREALISABLE")
    return Claim(question=question, outcome=Outcome.UNREALISABLE, samples=())


def _within_tolerance(
    record: Certificate, network: ReluNetwork, gradient: Mapping[str, Any] | Gradient | None
) -> Claim:
    """UNIQUE up to a radius (Appendix T); a question with a tolerance has no other evidence."""
    require(len(record.evidence) == 1 and record.rebuild is None, "one piece of evidence is expected")
    require(gradient is not None, "only a gradient is given with a tolerance")
    evidence = record.evidence[0]
    if not isinstance(evidence, Tolerance):
        raise CertificateRejected("this kind of evidence shows nothing about a tolerance")
    given = _matching_gradient(record, gradient)
    domain = _domain(record.claim.question, network.widths[0])
    try:
        return tolerance.claim(evidence, record.claim, network, given, domain)
    except LabelError as error:
        raise CertificateRejected(f"the labels do not fit the certificate's question: {error}") from None


def _matching_batch(record: Certificate, network: ReluNetwork, batch: tuple[Any, Any] | Batch) -> Batch:
    if record.rebuild is not None or record.gradient_sha256 is not None:
        raise CertificateRejected("a certificate for a batch must not carry parts for a gradient")
    question = record.claim.question
    try:
        cleaned = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    except LabelError as error:
        raise CertificateRejected(f"the labels do not fit the certificate's question: {error}") from None
    if record.batch_sha256 != cleaned.digest:
        raise CertificateRejected("the certificate was made for another batch (SHA-256 differs)")
    return cleaned


def _batch_of_gradient(
    record: Certificate, network: ReluNetwork, gradient: Mapping[str, Any] | Gradient | None
) -> Batch:
    given = _matching_gradient(record, gradient)
    if record.rebuild is None:
        raise CertificateRejected("a certificate for a gradient must say how the batch is rebuilt from it")
    question = record.claim.question
    x, y = rebuilt_batch(record.rebuild, network, given, question)
    return _batch_of(network, question, x, y)


def _matching_gradient(record: Certificate, gradient: Mapping[str, Any] | Gradient | None) -> Gradient:
    assert isinstance(gradient, Gradient)
    given = gradient
    require(record.batch_sha256 is None, "a certificate for a gradient must not carry parts for a batch")
    require(
        record.gradient_sha256 == given.digest,
        "the certificate was made for another gradient (SHA-256 differs)",
    )
    return given


def _batch_of(network: ReluNetwork, question: Question, x: Any, y: Any) -> Batch:
    try:
        return Batch.of(x, y, network=network, loss=question.loss, labels=question.labels)
    except LabelError as error:
        raise CertificateRejected(f"the labels do not fit the certificate's question: {error}") from None


def _domain(question: Question, features: int) -> Box | None:
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
    from exan_verify.convert import to_network  # torch is imported only for torch models

    return to_network(model)


def _summary(claim: Claim) -> str:
    known = sum(status is SampleStatus.DETERMINED for status in claim.samples)
    if claim.radius is not None:
        return f"{claim.outcome.value} within radii of {len(claim.radius)} samples"
    return f"{claim.outcome.value} with {known} of {len(claim.samples)} samples determined"
