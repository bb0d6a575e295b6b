"""``audit_run``: every step of a training run audited, kept on disk as it comes, resumable.

Each step is audited by itself: what its gradient gives away, as ``audit`` says it. That a sample is in many
steps is used by no argument here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from exan_verify.api.files import about, write_atomically
from exan_verify.api.runs.folder import RunFolder
from exan_verify.api.runs.run_report import RunReport, report_of
from exan_verify.api.runs.step_record import Asked, Prepared, StepRecord, audit_step, prepare
from exan_verify.api.runs.steps import Step, steps_of, total
from exan_verify.core.parallel import cluster, each
from exan_verify.core.question import Box, Question, Release
from exan_verify.errors import ExanError, InputError, UsersCode, flag, positive, short, whole

Progress = Callable[[int, int | None, float | None], None]
"""Told (steps done, steps in all or None, seconds left or None)."""

MOST_JOBS = 1024

_CENTURY = 100 * 366 * 86400

SUMMARY = "summary.json"
"""Beside the steps: the report's record, once a call has come to its end."""

RAN_OUT = "the budget ran out"


def audit_run(
    steps: Any,
    *,
    out: str | Path,
    model: Any = None,
    jobs: int = 1,
    dask: str | None = None,
    resume: bool = True,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    domain: Box | None = None,
    release: Release | None = None,
    attack: bool = False,
    budget: float | None = None,
    step_budget: float | None = None,
    work_limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RunReport:
    """Audit every step of a training run and keep what is found in the folder ``out``.

    ``steps``: a folder or manifest (:mod:`exan_verify.api.runs.steps`), or an iterable of ``(model, batch)``
    or of :class:`Step`; with ``model``, of batches (x, y), as a DataLoader gives them. A model that changes
    between steps is copied when it is its turn. ``jobs`` processes, or the cluster whose scheduler is at
    ``dask``, work on them; all must be able to import what factories name. ``resume``: go on with the steps
    that ``out`` has of the same run; they are compared by digest, not audited again. ``budget``: seconds for
    the whole call; the steps that it leaves open stay open, and a later call goes on with them.
    ``step_budget``: seconds for each, ``work_limit``: work for each, which gives the same result on every
    machine. The rest as for ``audit``; models with convolutions are attacked in any case. ``progress`` is
    told (steps done, steps in all or None, seconds left or None).

    Raises :class:`exan_verify.errors.ExanError` or a subclass naming the step, the file or the argument;
    finished steps are kept.
    """
    asked = _asked(loss, reduction, labels, domain, release, attack, step_budget, work_limit, seed)
    jobs = whole(jobs, "jobs", most=MOST_JOBS)
    end = None if budget is None else time.time() + _seconds(budget, "budget")
    if progress is not None and not callable(progress):
        raise InputError(f"progress={short(progress)} cannot be used; give a function of (done, total, left)")
    given = steps_of(steps, model)
    run = _Run(out, asked, total(given), resume=flag(resume, "resume"), end=end, progress=progress)
    with closing(run.folder), cluster(dask):
        run.go(given, jobs)
        found = run.report()
        write_atomically(found.out / SUMMARY, found.to_json().encode())
    return found


class RunAuditor:
    """Audits a training loop from inside: call it with each batch before the optimiser's step.

    ``with RunAuditor(out="audited", every=10) as auditor:`` around the loop, ``auditor(model, (x, y),
    epoch=epoch)`` in it, and ``auditor.report()`` after it. ``every``: of so many calls one is audited.
    Options as :func:`audit_run`'s. Where ``out`` has steps of the same training, they are not audited again.
    Each call takes as long as its audit; for many steps store them, and audit the run afterwards.
    """

    def __init__(
        self,
        *,
        out: str | Path,
        every: int = 1,
        resume: bool = True,
        loss: str = "cross_entropy",
        reduction: str = "mean",
        labels: str = "one_hot",
        domain: Box | None = None,
        release: Release | None = None,
        attack: bool = False,
        step_budget: float | None = None,
        work_limit: int | None = None,
        seed: int = 0,
    ) -> None:
        asked = _asked(loss, reduction, labels, domain, release, attack, step_budget, work_limit, seed)
        self._every = whole(every, "every")
        self._run = _Run(out, asked, None, resume=flag(resume, "resume"), end=None, progress=None)
        self._calls = 0

    def __call__(
        self,
        model: Any,
        batch: tuple[Any, Any],
        *,
        epoch: int | None = None,
        accuracy: float | None = None,
    ) -> None:
        """Audit the gradient of ``batch`` (x, y) at the weights that ``model`` has now, if it is its turn.

        Raises what :func:`audit_run` raises.
        """
        calls, self._calls = self._calls, self._calls + 1
        if calls % self._every:
            return
        with about(f"step {calls}"):
            step = Step(model=model, batch=batch, step=calls, epoch=epoch, accuracy=accuracy)
        ready = self._run.prepared(calls // self._every, step)
        if ready is not None:
            self._run.keep(audit_step(ready))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._run.folder.close()

    def report(self) -> RunReport:
        """The summary of the steps so far."""
        return self._run.report()


def _asked(
    loss: str,
    reduction: str,
    labels: str,
    domain: Box | None,
    release: Release | None,
    attack: bool,
    step_budget: float | None,
    work_limit: int | None,
    seed: int,
) -> Asked:
    if domain is not None and not isinstance(domain, Box):
        raise InputError(f"domain={short(domain)} cannot be used; give Box(lo, hi), or None for all inputs")
    if release is not None and not isinstance(release, Release):
        raise InputError(f"release={short(release)} cannot be used; give Release(...), or None")
    return Asked(
        question=Question.of(loss, reduction, labels, domain=domain, release=release),
        attack=flag(attack, "attack"),
        step_budget=None if step_budget is None else _seconds(step_budget, "step_budget"),
        work_limit=None if work_limit is None else whole(work_limit, "work_limit"),
        seed=whole(seed, "seed", least=0),
    )


def _seconds(value: Any, name: str) -> float:
    """A limit as a float; what is larger than any clock is as good as a century."""
    return float(min(positive(value, name), _CENTURY))


class _Run:
    """One call: the folder, what is asked, and how far it has come."""

    def __init__(
        self,
        out: str | Path,
        asked: Asked,
        total: int | None,
        *,
        resume: bool,
        end: float | None,
        progress: Progress | None,
    ) -> None:
        self.folder = RunFolder(out, asked.to_record(), resume=resume)
        self._asked, self._total, self._end, self._tell = asked, total, end, progress
        first = self.folder.first()
        self._network = None if first is None else first.network
        self._start, self._done, self._passed = time.monotonic(), 0, 0
        self._unfinished = ""

    def go(self, steps: Iterable[Step], jobs: int) -> None:
        """Audit what is not finished. The first error of a step is raised when those beside it are kept."""
        failed: list[ExanError] = []
        self._told()
        for answer in each(audit_step, self._ready(steps, failed), jobs=jobs):
            if isinstance(answer, ExanError):
                failed.append(answer)
            else:
                self.keep(answer)
        if failed:
            raise failed[0]

    def _ready(self, steps: Iterable[Step], failed: list[ExanError]) -> Iterator[Prepared]:
        """The steps that are not finished, until one has ``failed`` or the budget ends."""
        count, given = 0, iter(steps)
        while not failed:
            if self._end is not None and time.time() >= self._end:
                self._unfinished = RAN_OUT
                return
            try:
                step = next(given, None)
                if step is None:
                    break
                one = self.prepared(count, step)
            except ExanError as error:
                failed.append(error)
                return
            count += 1
            if one is not None:
                yield one
        if failed:
            return
        self._total = count
        if count <= self.folder.last:
            kept = self.folder.last + 1
            failed.append(
                InputError(
                    f"{self.folder.path}: has {kept} steps, and this run has {count}; it is another run's"
                )
            )
        elif not count:
            failed.append(InputError("the run has no steps; give at least one"))

    def prepared(self, index: int, step: Step) -> Prepared | None:
        """The step made ready; None where it is finished. Raises :class:`InputError` for another run's."""
        one = prepare(index, step, self._asked, self._end)
        if self._network is None:
            self._network = one.network
        if one.network != self._network:
            raise InputError(
                f"{one.name}: its model is a {one.network} network, and those before it are {self._network}; "
                "a run is of one network, so audit others into folders of their own"
            )
        if index not in self.folder:
            return one
        if not self.folder.matches(one):
            raise InputError(
                f"{one.name}: {self.folder.path} has an answer for another model, batch, epoch or accuracy "
                "there; it is another run's; give another folder"
            )
        self._passed += 1
        return None

    def keep(self, answer: StepRecord | ExanError | None) -> None:
        """Put an answer on disk; raise an error."""
        if isinstance(answer, ExanError):
            raise answer
        if answer is None:
            self._unfinished = RAN_OUT
            return
        self.folder.append(answer)
        self._done += 1
        self._told()

    def report(self) -> RunReport:
        """What the finished steps come to."""
        return report_of(self.folder, self._total, self._unfinished)

    def _told(self) -> None:
        if self._tell is None:
            return
        left = None
        if self._total is not None and self._done:
            rest = self._total - len(self.folder)
            left = rest * (time.monotonic() - self._start) / self._done
        with UsersCode("progress raised", error=InputError):
            self._tell(len(self.folder), self._total, left)
