"""Replay an example exactly: the gradients of its two batches, and what the kernel confirms of it.

Nothing of what found the example is used. A second batch is written as a certificate of differences and
given to the kernel (docs/theory.md F1); for mse and hinge the two gradients are also computed and compared
entry by entry. An outcome without a second batch is certified afresh and the certificate given to the kernel.
What else an example shows is recomputed by its own function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.certificate import (
    Claim,
    Move,
    QuestionRecord,
    SecondBatch,
    SparseVector,
    issue,
)
from exan_verify.core.network import Array, Batch, to_fraction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import gradient
from exan_verify.kernel.checker import check
from exan_verify.theorems.certified import verdict_without_limits
from exan_verify.theorems.statement import Example, Exhibit, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What came of replaying an example.

    ``confirmed``: all that the example says held exactly; None when it says nothing that can be replayed.
    ``says``: one sentence per step. ``equal_gradients``: of the two batches, entry by entry over Q (None:
    no second batch, or softmax and sigmoid, where the kernel compares symbols). ``outcome``, ``samples``:
    what the kernel re-derived from ``certificate``; None where there is none.
    """

    confirmed: bool | None
    says: tuple[str, ...]
    equal_gradients: bool | None = None
    outcome: Outcome | None = None
    samples: tuple[SampleStatus, ...] = ()
    certificate: Mapping[str, Any] | None = None


def replay(example: Example | Exhibit) -> Replay:
    """Recompute everything that ``example`` states; never raises for an example that is wrong."""
    if isinstance(example, Exhibit):
        return _seen(example.shown())
    stated = _replay_stated(example)
    if example.shown is None:
        return stated
    seen = _seen(example.shown(example))
    if stated.confirmed is None:
        return seen
    return replace(
        stated, confirmed=stated.confirmed and bool(seen.confirmed), says=(*stated.says, *seen.says)
    )


def _seen(result: Result) -> Replay:
    return Replay(confirmed=result.holds, says=(result.detail,))


def _replay_stated(example: Example) -> Replay:
    """The second batch and the outcome."""
    steps = [_replay_second(example)] if example.second is not None else []
    wanted = example.outcome
    if wanted is not None and not (steps and wanted is Outcome.AMBIGUOUS):
        steps.append(_replay_outcome(example, wanted))
    if not steps:
        return Replay(confirmed=None, says=("the example states no second batch and no outcome",))
    last = steps[-1]
    return Replay(
        confirmed=all(step.confirmed for step in steps),
        says=tuple(text for step in steps for text in step.says),
        equal_gradients=steps[0].equal_gradients,
        outcome=last.outcome,
        samples=last.samples,
        certificate=last.certificate,
    )


def _replay_second(example: Example) -> Replay:
    first, second = example.batch, example.second
    assert second is not None
    if first.inputs.shape != second.inputs.shape or first.labels.shape != second.labels.shape:
        return Replay(confirmed=False, says=("the second batch has another shape than the first",))
    equal = _equal_gradients(example, second)
    says = [] if equal is None else [_COMPARED[equal]]
    certificate = second_batch_certificate(example, second)
    try:
        claim = check(certificate, example.network, first)
    except CertificateRejected as error:
        return Replay(confirmed=False, says=(*says, f"the kernel rejects it: {error}"), equal_gradients=equal)
    return Replay(
        confirmed=equal is not False,
        says=(*says, f"the kernel accepts the second batch: {_claimed(claim)}"),
        equal_gradients=equal,
        outcome=claim.outcome,
        samples=claim.samples,
        certificate=certificate,
    )


def _replay_outcome(example: Example, wanted: Outcome) -> Replay:
    verdict = verdict_without_limits(example.network, example.batch, example.question, "exact")
    if verdict.certificate is None:
        return Replay(confirmed=False, says=(f"no certificate: {verdict.outcome.value}, {verdict.reason}",))
    try:
        claim = check(verdict.certificate, example.network, example.batch)
    except CertificateRejected as error:
        return Replay(confirmed=False, says=(f"the kernel rejects the certificate: {error}",))
    return Replay(
        confirmed=claim.outcome is wanted,
        says=(f"the kernel accepts the certificate: {_claimed(claim)} ({verdict.reason})",),
        outcome=claim.outcome,
        samples=claim.samples,
        certificate=verdict.certificate,
    )


def second_batch_certificate(example: Example, second: Batch) -> dict[str, Any]:
    """A certificate for AMBIGUOUS that states ``second`` as differences from the example's batch."""
    first, network = example.batch, example.network
    steps = [_difference(a, b) for a, b in zip(second.inputs, first.inputs, strict=True)]
    moves = tuple(_move(first, second, m) for m in range(first.size))
    after = set(zip(second.x, second.y, strict=True))
    samples = tuple(
        SampleStatus.UNKNOWN if pair in after else SampleStatus.FREE
        for pair in zip(first.x, first.y, strict=True)
    )
    question = QuestionRecord.of(example.question, "batch", samples=first.size, features=network.widths[0])
    return issue(
        claim=Claim(question=question, outcome=Outcome.AMBIGUOUS, samples=samples),
        evidence=(SecondBatch(directions=tuple(map(_sparse, steps)), moves=moves),),
        model_sha256=network.digest,
        batch_sha256=first.digest,
    )


def _move(first: Batch, second: Batch, m: int) -> Move:
    own, other = first.labels[m], second.labels[m]
    if first.labels.ndim == 1:
        label = None if own == other else int(other)
        return Move(sample=m, mix=((m, "1"),), steps=((m, "1"),), label=label)
    target = _sparse(_difference(other, own))
    return Move(sample=m, mix=((m, "1"),), steps=((m, "1"),), target=target)


def _equal_gradients(example: Example, second: Batch) -> bool | None:
    loss, reduction = example.question.loss, example.question.reduction
    if not loss.rational:
        return None
    return gradient(example.network, example.batch, loss, reduction) == gradient(
        example.network, second, loss, reduction
    )


_COMPARED = {
    True: "both batches have the same gradient, entry by entry over the rationals",
    False: "the two batches have different gradients",
}


def _claimed(claim: Claim) -> str:
    counted = Counter(status.value for status in claim.samples)
    return f"{claim.outcome.value.upper()}, {', '.join(f'{n} {name}' for name, n in counted.most_common())}"


def _difference(left: Array, right: Array) -> Array:
    found = np.empty(left.shape, dtype=object)
    for k, (a, b) in enumerate(zip(left, right, strict=True)):
        found[k] = to_fraction(a) - to_fraction(b)
    return found


def _sparse(vector: Array) -> SparseVector:
    return tuple((k, str(Fraction(v))) for k, v in enumerate(vector) if v)
