"""``exan bench tiny``: random tiny questions, and how many of them stay undecided.

At most 3 inputs, 1 or 2 hidden layers of at most 5 neurons, at most 3 logits and 3 samples, small dyadic
numbers, with and without biases, every label set, now and then a box: small enough that every question should
have an answer. Each is asked with all arguments (``auto``) and without the solvers (``exact``); every
certificate goes through the kernel.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.bench import suite
from exan_verify.bench.suite import Case, Options, Suite
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.errors import CertificateRejected
from exan_verify.instances import Instance, tiny_question

SECONDS = 10.0
PER_SEED = 15
"""Questions per loss and seed: 600 in all for the default of ten seeds and four losses."""
WAYS = ("auto", "exact")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A loss by one way. ``open_share``: of the questions, those whose outcome is UNKNOWN; ``samples_open``:
    of the samples, those whose status is. ``wrong``: questions that ``auto`` and ``exact`` answer in
    contradiction, or whose certificate the kernel rejects; there must be none.
    """

    way: str
    questions: int
    outcomes: dict[str, int]
    open_share: float
    samples_open: float
    certified: int
    median: float
    worst: float
    open: tuple[str, ...]
    wrong: tuple[str, ...]


CASES = tuple(Case(name=loss.value) for loss in Loss)


def measure(case: Case, options: Options) -> Iterator[Row]:
    """Two rows for :data:`PER_SEED` questions of a loss per seed; ``seconds``: budget of a question, default
    :data:`SECONDS`."""
    loss, seconds = Loss(case.name), options.seconds or SECONDS
    numbers = [PER_SEED * seed + i for seed in options.seeds for i in range(PER_SEED)]
    answers: dict[str, dict[str, tuple[Verdict, float]]] = {way: {} for way in WAYS}
    wrong = []
    for done, number in enumerate(numbers):
        question = tiny_question(loss, number)
        options.tell(question.name, done, len(numbers))
        for way in WAYS:
            answers[way][question.name] = _ask(question, way, seconds)
        verdicts = [answers[way][question.name][0] for way in WAYS]
        if _contradict(verdicts) or any(_rejected(question, verdict) for verdict in verdicts):
            wrong.append(question.name)
    yield from [_row(loss, way, answers[way], wrong) for way in WAYS]


def _ask(case: Instance, way: str, seconds: float) -> tuple[Verdict, float]:
    asked: dict[str, Any] = {
        "loss": case.loss.value,
        "reduction": case.reduction.value,
        "labels": case.labels.value,
    }
    start = time.perf_counter()
    verdict = certify(case.network, batch=case.batch, domain=case.domain, engine=way, budget=seconds, **asked)
    return verdict, time.perf_counter() - start


def _contradict(verdicts: Sequence[Verdict]) -> bool:
    outcomes = {verdict.outcome for verdict in verdicts} - {Outcome.UNKNOWN}
    statuses = [
        set(pair) - {SampleStatus.UNKNOWN} for pair in zip(*(v.samples for v in verdicts), strict=True)
    ]
    return len(outcomes) > 1 or any(len(said) > 1 for said in statuses)


def _rejected(case: Instance, verdict: Verdict) -> bool:
    if verdict.certificate is None:
        return False
    try:
        check(verdict.certificate, case.network, batch=case.batch)
    except CertificateRejected:
        return True
    return False


def _row(loss: Loss, way: str, answers: dict[str, tuple[Verdict, float]], wrong: Sequence[str]) -> Row:
    verdicts, times = [v for v, _ in answers.values()], [s for _, s in answers.values()]
    statuses = [status for verdict in verdicts for status in verdict.samples]
    left = tuple(name for name, (verdict, _) in answers.items() if verdict.outcome is Outcome.UNKNOWN)
    outcomes = {o.value: sum(v.outcome is o for v in verdicts) for o in Outcome}
    return Row(
        name=loss.value,
        way=way,
        questions=len(verdicts),
        outcomes={k: v for k, v in outcomes.items() if v},
        open_share=len(left) / max(1, len(verdicts)),
        samples_open=statuses.count(SampleStatus.UNKNOWN) / max(1, len(statuses)),
        certified=sum(v.certificate is not None for v in verdicts),
        median=statistics.median(times) if times else 0.0,
        worst=max(times, default=0.0),
        open=left,
        wrong=tuple(wrong),
    )


SUITE = Suite(
    name="tiny",
    title="tiny: random tiny questions, and how many stay undecided",
    columns=(
        ("loss", "name"),
        ("way", "way"),
        ("questions ", "questions"),
        ("outcomes", "outcomes"),
        ("open ", "open_share"),
        ("samples open ", "samples_open"),
        ("certified ", "certified"),
        ("s, median ", "median"),
        ("s, worst ", "worst"),
        ("wrong", "wrong"),
    ),
    cases=CASES,
    measure=measure,
    takes=("seconds",),
)
