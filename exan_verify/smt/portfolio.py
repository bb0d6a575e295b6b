"""Run tasks through rounds of solvers: cheap and short first, whatever stays open goes to the next round.

Every round gives each open task a fixed number of the solver's own work units, so that which tasks are
decided does not depend on the machine; wall time only ever stops the whole run.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from exan_verify.core.budget import RAN_OUT, until
from exan_verify.core.parallel import in_order
from exan_verify.errors import BudgetExhausted
from exan_verify.smt.cubes import Task, build
from exan_verify.smt.existence import BallBatch
from exan_verify.smt.question.replay import ExactBatch
from exan_verify.smt.solvers.cache import AnswerCache, query_key
from exan_verify.smt.solvers.run import SAT, UNKNOWN, UNSAT, Answer, Strategy, Worker, available

Batch = ExactBatch | BallBatch
Progress = Callable[[int, int, str], None]
"""Called with (tasks closed, tasks in all, what is being done)."""


@dataclass(frozen=True, slots=True)
class Round:
    """One strategy with its limit of work per task, and a hard kill after ``seconds``: some of the solvers'
    inner loops do not look at the limit.
    """

    strategy: Strategy
    rlimit: int
    seconds: float = 120.0

    def within(self, units: int) -> Round:
        """With no more than so many units of work, and as much less time, though not below a second."""
        if units >= self.rlimit:
            return self
        units = max(1, units)
        return replace(self, rlimit=units, seconds=max(1.0, self.seconds * units / self.rlimit))


SMT, NLSAT, DEFAULT = (Strategy("z3", t) for t in ("smt", "qfnra-nlsat", "default"))
CVC5 = Strategy("cvc5")

ROUNDS: tuple[Round, ...] = (
    Round(NLSAT, 300_000, 2.0),
    Round(SMT, 300_000, 2.0),
    Round(NLSAT, 6_000_000, 30.0),
    Round(SMT, 6_000_000, 30.0),
    Round(CVC5, 500_000, 30.0),
    Round(NLSAT, 120_000_000),
    Round(SMT, 120_000_000),
)
"""The default portfolio. Either of the first two closes nearly all cubes in milliseconds, and what the one
cannot do the other often can; cvc5 is left out where it is not installed."""

SCOUT = Round(SMT, 1_000_000, 15.0)
"""One try at the whole question before its cubes, for a quarter of the time at most: it often finds a second
batch at once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How solvers are asked.

    ``deadline`` is a value of ``time.monotonic``, and ``clock_end`` the same one as a value of ``time.time``
    for a job in another process, which may be on another machine. ``work_limit`` counts the solvers' own
    units; where it is ``unasked``, nobody's own, first tries may exceed it. ``cache`` is a folder from which
    an interrupted call resumes. ``double_check`` asks a second solver about every refuted cube. Without
    ``scout`` the whole question is never tried before its cubes.
    """

    rounds: tuple[Round, ...] = ROUNDS
    seed: int = 0
    jobs: int = 1
    cache: Path | None = None
    deadline: float | None = None
    work_limit: int | None = None
    unasked: bool = False
    progress: Progress | None = None
    clock_end: float | None = None
    scout: bool = True
    double_check: bool = False

    @property
    def seconds_left(self) -> float | None:
        """Wall time until the deadline; None without one."""
        if self.clock_end is not None:
            return self.clock_end - time.time()
        return None if self.deadline is None else self.deadline - time.monotonic()


@dataclass(slots=True)
class Outcome:
    """What became of the tasks: refuted ones with the answer that refuted them (None: no solver was
    needed) and the solver that confirmed it, open ones with the last answer, every task with its last lemmas,
    and the accepted model if there is one.
    """

    refuted: dict[int, Answer | None] = field(default_factory=dict)
    confirmed: dict[int, str] = field(default_factory=dict)
    open: dict[int, Answer | None] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    accepted: tuple[Task, Answer, Batch] | None = None
    stopped: str = ""
    work: int = 0

    @property
    def inconclusive(self) -> bool:
        """Whether neither a model was accepted nor everything refuted."""
        return self.accepted is None and bool(self.open or self.stopped)


Accept = Callable[[Task, Answer], Task | Batch | None]
"""What to do with a satisfiable task: a batch that was made of the model and proved ends the run, None leaves
the task open, a task replaces it and is tried again (with more lemmas)."""


def run(tasks: Sequence[Task], settings: Settings, accept: Accept) -> Outcome:
    """Try every task in every round until it is refuted, or a model is accepted.

    Tasks are handled in their order, chunk by chunk, so that the outcome does not depend on ``jobs``.
    """
    outcome = Outcome()
    proceed(outcome, tasks, settings.rounds, settings, accept)
    return outcome


def proceed(
    outcome: Outcome, tasks: Sequence[Task], rounds: Sequence[Round], settings: Settings, accept: Accept
) -> list[Task]:
    """Like :func:`run`, adding to an outcome; returns the tasks that are still open."""
    waiting = list(tasks)
    for task in tasks:
        outcome.tasks[task.index] = task
        outcome.open.setdefault(task.index, None)
    for current in rounds:
        if not waiting or outcome.accepted or outcome.stopped:
            break
        if available(current.strategy.solver):
            waiting = _round(current, waiting, settings, accept, outcome)
    return waiting


MAX_REFINEMENTS = 40
"""How often one round may add lemmas to one task."""


def _round(
    current: Round, tasks: list[Task], settings: Settings, accept: Accept, outcome: Outcome
) -> list[Task]:
    left: list[Task] = []
    queue = list(tasks)
    tries: dict[int, int] = {}
    while queue:
        size = 1 if settings.jobs == 1 else 8 * settings.jobs
        chunk, queue = queue[:size], queue[size:]
        again: list[Task] = []
        for task, answer in zip(chunk, _solve_all(chunk, current, settings), strict=True):
            outcome.stopped = outcome.stopped or _exhausted(settings, outcome)
            if outcome.stopped:
                left.append(task)
                continue
            if answer is not None:
                outcome.work += current.rlimit if answer.killed else answer.work
            more = _settle(task, answer, accept, outcome)
            if outcome.accepted:
                return []
            tries[task.index] = tries.get(task.index, 0) + 1
            if more is not None:
                refined = more is not task and tries[task.index] <= MAX_REFINEMENTS
                (again if refined else left).append(more)
        queue = again + queue
        if outcome.stopped:
            return left + queue
        if settings.progress:
            closed = len(outcome.refuted)
            settings.progress(closed, closed + len(outcome.open), str(current.strategy))
    return sorted(left, key=lambda t: t.index)


def _settle(task: Task, answer: Answer | None, accept: Accept, outcome: Outcome) -> Task | None:
    """Record an answer; the task to go on with, or None when it is settled."""
    if answer is None or answer.status == UNSAT:
        outcome.refuted[task.index] = answer
        outcome.open.pop(task.index, None)
        return None
    outcome.open[task.index] = answer
    if answer.status == SAT:
        decision = accept(task, answer)
        if isinstance(decision, Task):
            outcome.tasks[task.index] = decision
            return decision
        if decision is not None:
            outcome.accepted = (task, answer, decision)
            return None
    return task


def _exhausted(settings: Settings, outcome: Outcome) -> str:
    if settings.work_limit is not None and outcome.work > settings.work_limit:
        return f"the work limit of {settings.work_limit} units ran out"
    left = settings.seconds_left
    return RAN_OUT if left is not None and left < 0 else ""


def _solve_all(tasks: Sequence[Task], current: Round, settings: Settings) -> Iterator[Answer | None]:
    job = settings
    if settings.jobs > 1 and len(tasks) > 1:  # another process has another clock
        left = settings.seconds_left
        job = replace(
            settings, progress=None, deadline=None, clock_end=None if left is None else time.time() + left
        )
    return in_order(partial(solve, current=current, settings=job), tasks, jobs=settings.jobs)


def solve(task: Task, current: Round, settings: Settings) -> Answer | None:
    """One task, one strategy; None when it is settled, or its constraints fold to false: no solver is
    needed.
    """
    if task.settled:
        return None
    left = settings.seconds_left
    try:
        with until(None if left is None else time.monotonic() + left):
            script = build(task)
            text = "" if script.refuted else script.text(comments=False)
    except BudgetExhausted:
        return Answer(UNKNOWN, str(current.strategy), reason=RAN_OUT, killed=True)
    return query(text, current, settings) if text else None


def query(text: str, current: Round, settings: Settings) -> Answer:
    """Ask a solver, or the cache."""
    store = AnswerCache(settings.cache)
    key = query_key(text, current.strategy, rlimit=current.rlimit, seed=settings.seed)
    found = store.answer(key)
    if found is None:
        left = settings.seconds_left
        seconds = current.seconds if left is None else min(left, current.seconds)
        if seconds <= 0:
            return Answer(UNKNOWN, str(current.strategy), reason="no time left", killed=True)
        found = shared_worker().ask(
            text, current.strategy, rlimit=current.rlimit, seconds=seconds, seed=settings.seed
        )
        store.store(key, found)
    return found


@cache
def shared_worker() -> Worker:
    """This process's worker; it ends with the process."""
    worker = Worker()
    atexit.register(worker.close)
    return worker
