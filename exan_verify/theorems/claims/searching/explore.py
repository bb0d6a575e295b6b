"""Run a program on traced numbers until every path is covered, or a limit is reached.

Every path of conditions c_1 .. c_k that a run took leaves the questions "c_1 .. c_{i-1} and not c_i" for a
solver: a model starts a run on another path, and when all of them are refuted the runs cover all points. Each
path is visited once (generational search; P. Godefroid, M. Levin, D. Molnar, "Automated whitebox fuzz
testing", 2008). What is refuted rests on the solver's word; what is found is exact.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from exan_verify.errors import BudgetExhausted
from exan_verify.smt.question.terms import Formula, Script, negate
from exan_verify.smt.solvers.run import SAT, UNSAT, Answer, Strategy, Worker
from exan_verify.theorems.claims.claim import Judgement
from exan_verify.theorems.claims.tracing import Path, all_hold

Point = Mapping[str, Fraction]
Program = Callable[[Point, Path], Judgement]

STRATEGIES = (Strategy("z3", "smt"), Strategy("z3", "qfnra-nlsat"))
RLIMIT = 400_000
"""z3's own units for one question: about a tenth of a second, the same on every machine."""
SECONDS = 5.0
"""A hard end of one question, far beyond what the units allow."""
DENOMINATORS = (1, 4, 2**10, 2**30)
"""What an irrational coordinate of a model is rounded to; conditions that are open hold near it."""


@dataclass(slots=True)
class Exploration:
    """What an exploration has covered.

    ``runs`` by what the program said; ``opaque``: runs that stand for their point alone; ``open``: questions
    that no solver answered, or whose only models are irrational; ``queries`` in all.
    """

    runs: dict[Judgement, int] = field(default_factory=lambda: dict.fromkeys(Judgement, 0))
    opaque: int = 0
    open: int = 0
    queries: int = 0
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether the runs stand for all points, and none was undecided."""
        return not (self.stopped or self.opaque or self.open or self.runs[Judgement.UNDECIDED])

    def add(self, other: Exploration) -> None:
        """Count another exploration's runs as well."""
        for judged, count in other.runs.items():
            self.runs[judged] += count
        self.opaque += other.opaque
        self.open += other.open
        self.queries += other.queries
        self.stopped = self.stopped or other.stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When an exploration ends: runs, questions, and a time (of ``time.monotonic``)."""

    runs: int = 200
    queries: int = 600
    deadline: float | None = None
    seed: int = 0

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.monotonic() > self.deadline


def explore(
    program: Program, start: Point, limits: Limits, worker: Worker, found: Exploration
) -> Iterator[tuple[Point, Path, Judgement]]:
    """Run ``program`` on every path that is reached; counts go to ``found`` as it goes on.

    Yields the point, the path and the answer of each run.
    """
    waiting: deque[tuple[Point, int]] = deque([(start, 0)])
    runs = 0
    while waiting:
        if runs >= limits.runs or limits.late:
            found.stopped = True
            return
        point, done = waiting.popleft()
        path = Path()
        try:
            judged = program(point, path)
        except BudgetExhausted:  # of a timer, in the middle of a predicate
            found.stopped = True
            return
        runs += 1
        found.runs[judged] += 1
        found.opaque += bool(path.opaque) and judged is not Judgement.OUTSIDE
        yield point, path, judged
        for k in range(done, len(path.conditions)):
            if found.queries >= limits.queries or limits.late:
                found.stopped = True
                break
            other = _elsewhere(path.conditions[:k], path.conditions[k], point, limits, worker, found)
            if other is not None:
                waiting.append((other, k + 1))


def _elsewhere(
    before: Sequence[Formula],
    last: Formula,
    point: Point,
    limits: Limits,
    worker: Worker,
    found: Exploration,
) -> Point | None:
    """A point that agrees with ``before`` and not with ``last``; None when there or found is none."""
    conditions = [*before, negate(last)]
    script = Script(reals=list(point))
    for condition in conditions:
        script.require(condition, "path")
    text = script.text(comments=False)
    for strategy in STRATEGIES:
        found.queries += 1
        seconds = SECONDS if limits.deadline is None else min(SECONDS, limits.deadline - time.monotonic())
        answer = worker.ask(text, strategy, rlimit=RLIMIT, seconds=seconds, seed=limits.seed)
        if answer.status == UNSAT:
            return None
        if answer.status == SAT:
            for candidate in _points(answer, point):
                if all_hold(conditions, candidate):
                    return candidate
    found.open += 1
    return None


def _points(answer: Answer, point: Point) -> Iterator[dict[str, Fraction]]:
    """The model as a rational point; where it is irrational, points near it. Free unknowns stay."""
    values = {name: answer.model.get(name) for name in point}
    irrational = any(value is not None and value[0] == "root" for value in values.values())
    for denominator in DENOMINATORS if irrational else DENOMINATORS[:1]:
        yield {
            name: point[name] if value is None else _rational(value, denominator)
            for name, value in values.items()
        }


def _rational(value: Any, denominator: int) -> Fraction:
    if value[0] == "q":
        return Fraction(value[1])
    return Fraction(round((Fraction(value[2]) + Fraction(value[3])) / 2 * denominator), denominator)
