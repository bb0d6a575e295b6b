"""Questions about a batch, as engines and as checkers of evidence are given them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction, Release
from exan_verify.decide.context import Context, Setting
from exan_verify.kernel.given import Subject


def context_of(
    network: ReluNetwork,
    batch: Batch,
    loss: Loss = Loss.CROSS_ENTROPY,
    labels: Labels = Labels.ONE_HOT,
    *,
    domain: Box | None = None,
    reduction: Reduction = Reduction.MEAN,
    release: Release | None = None,
    **setting: Any,
) -> Context:
    """The batch under a question; ``setting``: seed, jobs and engine."""
    question = Question(loss=loss, reduction=reduction, labels=labels, domain=domain, release=release)
    return Context(setting=Setting(network=network, question=question, **setting), batch=batch)


def subject_of(context: Context) -> Subject:
    """The same question as the kernel's checkers are asked it."""
    question = replace(context.question, batch_size=context.batch.size)
    return Subject(model=context.network, batch=context.batch, question=question)


def subject(network: ReluNetwork, batch: Batch, *question: Any, **named: Any) -> Subject:
    """The subject of :func:`context_of`'s arguments."""
    return subject_of(context_of(network, batch, *question, **named))
