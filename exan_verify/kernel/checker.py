"""Match a certificate with its inputs, derive the claim again, and compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from exan_verify.core.arrays import Array
from exan_verify.core.certificate import (
    AlgebraicBatch,
    Apart,
    Certificate,
    Claim,
    Cubes,
    DegreeThree,
    Enumeration,
    ExtraRays,
    Forced,
    InputCover,
    Lifting,
    RankBound,
    Residual,
    Scale,
    SecondBatch,
    Tolerance,
    Unseen,
    most_bytes,
    parse,
)
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, Gradient, Network, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.core.staged import StagedNetwork
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import CertificateRejected, InputError, LabelError, ShapeError
from exan_verify.kernel import second, stages
from exan_verify.kernel.algebraic import rational_inputs, rational_labels
from exan_verify.kernel.cubes import check as cubes
from exan_verify.kernel.given import Subject, only_relu, require
from exan_verify.kernel.gradient import unrealisable
from exan_verify.kernel.gradient.found import found_samples
from exan_verify.kernel.gradient.reconstruction import rebuilt_batch
from exan_verify.kernel.lifting import apart, degree_three, enumeration, extra_rays, scale
from exan_verify.kernel.lifting import degree_two as lifting
from exan_verify.kernel.released import require_asked, require_made_for
from exan_verify.kernel.residual import check as residual
from exan_verify.kernel.residual import inputs
from exan_verify.kernel.tolerance import check as tolerance

CHECKERS: Mapping[type, Callable[[Any, Subject], Facts]] = {
    Lifting: lifting.facts,
    Scale: scale.facts,
    DegreeThree: degree_three.facts,
    Apart: apart.facts,
    Enumeration: enumeration.facts,
    ExtraRays: extra_rays.facts,
    Residual: residual.facts,
    InputCover: inputs.facts,
    Cubes: cubes.facts,
    **second.CHECKERS,
}
"""One checker for each kind of evidence."""


ANY_ACTIVATION = (Lifting, SecondBatch, Unseen)
"""Evidence about networks whose activations are not ReLU (docs/theory.md, PL1); all other kinds are about
ReLU alone.
"""

MOST_PARTS = 8
"""Pieces of evidence for each sample and each layer: every one adds something about one or the other."""


def check(
    certificate: Mapping[str, Any] | str | bytes,
    network: Network | StagedNetwork,
    given: tuple[Array, Array] | Batch | Gradient,
) -> Claim:
    """The claim of ``certificate``, derived again for the batch, or the gradient, that it was made for.

    ``given``: inputs (M, ...) and labels of a batch, whose labels are read as the certificate's loss has
    them, or a gradient for ``network``. Raises :class:`CertificateRejected` with the first step that fails,
    and nothing else: what a certificate says is bounded before it is used (docs/theory.md, 6.1a).
    """
    if isinstance(given, Batch):
        given = given.inputs, given.labels
    record = parse(certificate, longest=most_bytes(_numbers(network, given)))
    biases = network.head if isinstance(network, StagedNetwork) else network
    if biases.mixed_biases:
        raise CertificateRejected(biases.mixed_biases)
    asked = record.claim.question
    if record.model_sha256 != network.digest:
        raise CertificateRejected("the certificate was made for another model (SHA-256 differs)")
    entrance = "gradient" if isinstance(given, Gradient) else "batch"
    if asked.entrance != entrance:
        raise CertificateRejected(f"the certificate was made for a {asked.entrance}; pass {asked.entrance}=")
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


def _numbers(network: Network | StagedNetwork, given: tuple[Array, Array] | Gradient) -> int:
    arrays = given.tensors.values() if isinstance(given, Gradient) else given
    return sum(array.size for _, array in network.parameters()) + sum(array.size for array in arrays)


def _claim(record: Certificate, network: Network | StagedNetwork, given: Batch | Gradient) -> Claim:
    question = record.claim.question.asked()
    if question.domain is not None:
        try:
            question.domain.bounds(network.widths[0])
        except InputError as error:
            raise CertificateRejected(f"the claim's domain is not a box: {error}") from None
    if isinstance(network, StagedNetwork):
        if not isinstance(given, Batch):
            raise CertificateRejected("a claim about a network with convolutions is made for a batch")
        return stages.claim(record, question, network, given)
    if not isinstance(network, ReluNetwork):
        release = question.release
        rows = release is None or (release.input_basis is None and release.averages is None)
        asked = rows and isinstance(given, Batch) and question.tolerance is None
        asked = asked and record.claim.outcome is not Outcome.UNREALISABLE
        require(asked, "of activations other than ReLU only the whole gradient of a batch is asked, or rows")
    # a folded BatchNorm's own gradients follow from whole gradients, and from those alone
    whole = question.release is None and isinstance(given, Batch)
    require(whole or not network.normalised, "of a BatchNorm only the whole gradient of a batch is asked")
    require_asked(question, network, given, record.claim.outcome)
    if question.tolerance is not None:
        return _within_tolerance(record, question, network, given)
    if record.claim.outcome is Outcome.UNREALISABLE:
        return _refuted(record, question, network, given)
    if isinstance(given, Gradient):
        if record.found is not msgspec.UNSET and record.found.roots:
            return _of_irrational_batch(record, record.found, question, only_relu(network), given)
        given = _batch_of_gradient(record, question, network, given)
    return _derive(record, question, network, given)


def _of_irrational_batch(
    record: Certificate, found: AlgebraicBatch, question: Question, network: ReluNetwork, given: Gradient
) -> Claim:
    """UNIQUE of a batch that is not rational: every cube but its own is refuted (CB14)."""
    _require_digest(record, given)
    require(len(record.evidence) == 1 and record.rebuild is None, "one piece of evidence is expected")
    samples = found_samples(found, network, given, question)
    evidence = record.evidence[0]
    if not isinstance(evidence, Cubes):
        raise CertificateRejected(f"{type(evidence).__name__} is no evidence about irrational batches")
    require_made_for(evidence, question)
    facts = cubes.facts_of_found(evidence, network, question, samples)
    return Claim(
        question=record.claim.question,
        outcome=facts.outcome(question.samples, distinct=False),
        samples=facts.statuses(question.samples),
    )


def _derive(record: Certificate, question: Question, network: Network, batch: Batch) -> Claim:
    if question.samples != batch.size:
        raise CertificateRejected(
            f"the claim is about batches of {question.samples} samples, the batch has {batch.size}"
        )
    if question.domain is not None and not question.domain.contains(batch):
        raise CertificateRejected("the batch lies outside the claim's domain")
    most = MOST_PARTS * (batch.size + network.depth)
    require(len(record.evidence) <= most, f"there are more than {most} pieces of evidence")
    facts = Facts()
    for part in record.evidence:
        require(type(part) in CHECKERS, f"{type(part).__name__} is no evidence about a batch")
        require_made_for(part, question)
        made = isinstance(network, ReluNetwork) or type(part) in ANY_ACTIVATION
        require(made, f"{type(part).__name__} is evidence about networks with ReLU alone")
        subject = Subject(model=network, batch=batch, question=question, settled=facts.determined)
        facts |= CHECKERS[type(part)](part, subject)
    return Claim(
        question=record.claim.question,
        outcome=facts.outcome(batch.size, distinct=batch.distinct),
        samples=facts.statuses(batch.size),
    )


def _refuted(record: Certificate, question: Question, network: Network, given: Batch | Gradient) -> Claim:
    """UNREALISABLE: one piece of evidence that no batch of the claim's size has the gradient."""
    _require_one_part(record)
    require(question.samples >= 1, "a batch has at least one sample")
    evidence = record.evidence[0]
    if isinstance(given, Batch):
        subject = Subject(model=network, batch=given, question=question)
        if not isinstance(evidence, RankBound):
            raise CertificateRejected("with a batch given, only a rank bound shows this")
        unrealisable.check_rank_bound_of_batch(evidence, subject, question.samples)
    else:
        _require_digest(record, given)
        if isinstance(evidence, RankBound):
            unrealisable.check_rank_bound_of_gradient(evidence, given, only_relu(network), question.samples)
        elif isinstance(evidence, Forced):
            unrealisable.check_forced(evidence, given, only_relu(network), question)
        else:
            raise CertificateRejected("this kind of evidence shows no UNREALISABLE")
    return Claim(question=record.claim.question, outcome=Outcome.UNREALISABLE, samples=())


def _within_tolerance(
    record: Certificate, question: Question, network: Network, given: Batch | Gradient
) -> Claim:
    """UNIQUE up to a radius around a batch that is there, or UNREALISABLE (Appendix T)."""
    _require_one_part(record)
    evidence = record.evidence[0]
    if not isinstance(given, Gradient):
        raise CertificateRejected("only a gradient is given with a tolerance")
    if not isinstance(evidence, Tolerance | RankBound):
        raise CertificateRejected("this kind of evidence shows nothing about a tolerance")
    _require_digest(record, given)
    require(question.samples >= 1, "a batch has at least one sample")
    if isinstance(evidence, RankBound):
        tolerance.check_rank_within(evidence, question, only_relu(network), given)
        return Claim(question=record.claim.question, outcome=Outcome.UNREALISABLE, samples=())
    return tolerance.claim(evidence, record.claim, question, only_relu(network), given)


def _require_one_part(record: Certificate) -> None:
    alone = record.rebuild is None and record.found is msgspec.UNSET
    require(len(record.evidence) == 1 and alone, "one piece of evidence is expected")


def _matching_batch(
    record: Certificate, network: Network | StagedNetwork, given: tuple[Array, Array]
) -> Batch:
    for_gradients = record.rebuild is not None or record.found is not msgspec.UNSET
    if for_gradients or record.gradient_sha256 is not None:
        raise CertificateRejected("a certificate for a batch must not carry parts for a gradient")
    question = record.claim.question
    try:
        cleaned = Batch.given(given, network=network, loss=question.loss, labels=question.labels)
    except (LabelError, ShapeError) as error:
        raise CertificateRejected(f"the labels do not fit the certificate's question: {error}") from None
    if record.batch_sha256 != cleaned.digest:
        raise CertificateRejected("the certificate was made for another batch (SHA-256 differs)")
    return cleaned


def _batch_of_gradient(record: Certificate, question: Question, network: Network, given: Gradient) -> Batch:
    _require_digest(record, given)
    if record.found is not msgspec.UNSET:
        require(record.rebuild is None, "a batch is found, or rebuilt, not both")
        samples = found_samples(record.found, only_relu(network), given, question)
        x, y = rational_inputs(samples), rational_labels(samples, question.loss)
    elif record.rebuild is not None:
        x, y = rebuilt_batch(record.rebuild, only_relu(network), given, question)
    else:
        raise CertificateRejected("a certificate for a gradient must say how the batch is rebuilt from it")
    try:
        return Batch.of(x, y, network=network, loss=question.loss, labels=question.labels)
    except (LabelError, ShapeError) as error:
        raise CertificateRejected(f"the labels do not fit the certificate's question: {error}") from None


def _require_digest(record: Certificate, given: Gradient) -> None:
    require(record.batch_sha256 is None, "a certificate for a gradient must not carry parts for a batch")
    require(
        record.gradient_sha256 == given.digest,
        "the certificate was made for another gradient (SHA-256 differs)",
    )


def _summary(claim: Claim) -> str:
    known = sum(status is SampleStatus.DETERMINED for status in claim.samples)
    if claim.radius is not None:
        return f"{claim.outcome.value} within radii of {len(claim.radius)} samples"
    return f"{claim.outcome.value} with {known} of {len(claim.samples)} samples determined"
