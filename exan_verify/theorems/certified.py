"""What the engines certify of a batch, and what the kernel re-derives from their certificate."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from exan_verify.core.budget import Budget
from exan_verify.core.network import Batch, Network
from exan_verify.core.question import Question
from exan_verify.core.verdict import Outcome, Verdict
from exan_verify.decide.pipeline import decide
from exan_verify.kernel.checker import check


def verdict_on(
    network: Network,
    batch: Batch,
    question: Question,
    *,
    engine: str = "auto",
    budget: float | None = None,
    work_limit: int | None = None,
) -> Verdict:
    """The engines' verdict on ``batch``; ``budget`` in seconds, ``work_limit`` in modular multiplications."""
    limits = Budget(seconds=budget, work=work_limit)
    return decide(network, question, batch=batch, engine=engine, limits=limits)


@lru_cache(maxsize=32)
def verdict_without_limits(network: Network, batch: Batch, question: Question, engine: str) -> Verdict:
    """The same without limits, so that the same question has the same verdict and is decided once: several
    statements show the same batch.
    """
    return verdict_on(network, batch, question, engine=engine)


def in_words(question: Question) -> dict[str, Any]:
    """Loss, reduction and labels as ``certify`` takes them; the domain is left out."""
    return {
        "loss": question.loss.value,
        "reduction": question.reduction.value,
        "labels": question.labels.value,
    }


def kernel_outcome(
    network: Network, batch: Batch, question: Question, *, engine: str = "exact"
) -> Outcome | None:
    """What the kernel re-derives from the engines' certificate; None where they give none.

    Raises :class:`CertificateRejected` when it accepts theirs not.
    """
    certificate = verdict_without_limits(network, batch, question, engine).certificate
    return None if certificate is None else check(certificate, network, batch).outcome
