"""What the engines certify of a batch, and what the kernel re-derives from their certificate."""

from __future__ import annotations

from typing import Any

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.core.verdict import Outcome, Verdict
from exan_verify.decide.pipeline import certify
from exan_verify.kernel import check


def verdict_on(network: ReluNetwork, batch: Batch, question: Question, **options: Any) -> Verdict:
    """The engines' verdict on ``batch``. ``options``: ``engine`` and limits, as ``certify`` takes them."""
    return certify(network, batch=batch, domain=question.domain, **in_words(question), **options)


def in_words(question: Question) -> dict[str, Any]:
    """Loss, reduction and labels as ``certify`` takes them; the domain is left out."""
    return {
        "loss": question.loss.value,
        "reduction": question.reduction.value,
        "labels": question.labels.value,
    }


def kernel_outcome(
    network: ReluNetwork, batch: Batch, question: Question, *, engine: str = "exact"
) -> Outcome | None:
    """What the kernel re-derives from the engines' certificate; None where they give none.

    Raises :class:`CertificateRejected` when it accepts theirs not.
    """
    certificate = verdict_on(network, batch, question, engine=engine).certificate
    return None if certificate is None else check(certificate, network, batch=batch).outcome
