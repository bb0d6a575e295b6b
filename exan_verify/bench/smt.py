"""``exan bench smt``: the small suite by three ways, compared.

*Direct*: the whole question as one query to z3. *Cubes*: one query per activation pattern
(:mod:`exan_verify.smt`). *Pipeline*: every argument of :func:`exan_verify.certify`, exact ones first. Each
way gets the same wall time per instance; what it leaves open is listed by name.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from exan_verify.api.certify import certify
from exan_verify.bench import suite
from exan_verify.bench.suite import Case, Options, Suite
from exan_verify.core.question import Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.instances import Instance, iterate_suite
from exan_verify.smt.confirm import accept_model
from exan_verify.smt.cubes import Task
from exan_verify.smt.decide import answer, pose
from exan_verify.smt.portfolio import SMT, Round, Settings, run
from exan_verify.smt.question.difference import Known
from exan_verify.smt.question.posed import Posed

SECONDS = 10.0
WAYS = ("direct", "cubes", "pipeline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One instance by one way; ``seconds`` is wall time."""

    instance: str
    way: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """A loss by one way. ``disagreements`` names instances on which two ways contradict one another, or a
    planted second batch is denied; there must be none.
    """

    way: str
    instances: int
    decided: int
    share: float
    outcomes: dict[str, int]
    median: float
    worst: float
    open: tuple[str, ...]
    disagreements: tuple[str, ...]


CASES = tuple(Case(name=loss.value) for loss in Loss)


def measure(case: Case, options: Options) -> Iterator[Row]:
    """Three rows for the suite's instances of a loss.

    Of each cell of the suite as many instances as there are seeds, at most
    :data:`~exan_verify.instances.PER_CELL`; ``seconds``: for each way, default :data:`SECONDS`.
    """
    most, loss = len(options.seeds), Loss(case.name)
    instances = [c for c in iterate_suite() if c.loss is loss and int(c.name.rsplit("/", 1)[1]) < most]
    results: list[Result] = []
    for done, one in enumerate(instances):
        options.tell(one.name, done, len(instances))
        results += ask(one, options.seconds or SECONDS)
    wrong = _disagreements(instances, results)
    yield from [_row(loss, way, [r for r in results if r.way == way], wrong) for way in WAYS]


def ask(case: Instance, seconds: float) -> Iterator[Result]:
    """One instance by every way."""
    for way in WAYS:
        start = time.perf_counter()
        outcome = _ASKED[way](case, seconds)
        spent = time.perf_counter() - start
        yield Result(instance=case.name, way=way, outcome=outcome.value, seconds=spent)


def _posed(case: Instance) -> tuple[Posed, Known]:
    question = Question(loss=case.loss, reduction=case.reduction, labels=case.labels, domain=case.domain)
    posed, truth = pose(case.network, question, batch=case.batch)
    assert truth is not None
    return posed, truth


def _direct(case: Instance, seconds: float) -> Outcome:
    posed, truth = _posed(case)
    settings = Settings(rounds=(Round(SMT, 0, seconds),), deadline=time.monotonic() + seconds)
    found = run([Task(index=-1, posed=posed, others=(truth,))], settings, accept_model)
    if found.accepted is not None:
        return Outcome.AMBIGUOUS
    return Outcome.UNKNOWN if found.inconclusive else Outcome.UNIQUE


def _cubes(case: Instance, seconds: float) -> Outcome:
    posed, truth = _posed(case)
    settings = replace(Settings(scout=False), deadline=time.monotonic() + seconds)
    return answer(posed, truth, settings).outcome


def _pipeline(case: Instance, seconds: float) -> Outcome:
    return certify(
        case.network,
        batch=case.batch,
        loss=case.loss.value,
        reduction=case.reduction.value,
        labels=case.labels.value,
        domain=case.domain,
        budget=seconds,
    ).outcome


_ASKED: dict[str, Callable[[Instance, float], Outcome]] = {
    "direct": _direct,
    "cubes": _cubes,
    "pipeline": _pipeline,
}


def _disagreements(instances: Sequence[Instance], results: Sequence[Result]) -> list[str]:
    planted = {case.name for case in instances if case.planted}
    said: dict[str, set[str]] = {}
    for result in results:
        if result.outcome != Outcome.UNKNOWN:
            said.setdefault(result.instance, set()).add(result.outcome)
    return [n for n, s in said.items() if len(s) > 1 or (n in planted and Outcome.UNIQUE in s)]


def _row(loss: Loss, way: str, results: Sequence[Result], wrong: Sequence[str]) -> Row:
    left = tuple(r.instance for r in results if r.outcome == Outcome.UNKNOWN)
    times = [r.seconds for r in results]
    outcomes = {o.value: sum(r.outcome == o for r in results) for o in Outcome}
    return Row(
        name=loss.value,
        way=way,
        instances=len(results),
        decided=len(results) - len(left),
        share=1 - len(left) / max(1, len(results)),
        outcomes={k: v for k, v in outcomes.items() if v},
        median=statistics.median(times) if times else 0.0,
        worst=max(times, default=0.0),
        open=left,
        disagreements=tuple(wrong),
    )


SUITE = Suite(
    name="smt",
    title="smt: the small suite by one query, by cubes, and by all arguments",
    columns=(
        ("loss", "name"),
        ("way", "way"),
        ("instances ", "instances"),
        ("decided ", "decided"),
        ("share ", "share"),
        ("outcomes", "outcomes"),
        ("s, median ", "median"),
        ("s, worst ", "worst"),
        ("disagreements", "disagreements"),
    ),
    cases=CASES,
    measure=measure,
)
