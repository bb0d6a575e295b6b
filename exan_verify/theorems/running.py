"""Run a statement's packaged checks, and say whether they confirm its standing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exan_verify.errors import CertificateRejected, InputError, SoundnessError
from exan_verify.smt.solvers.run import SolverDisagreementError, SolverError
from exan_verify.theorems.replay import Replay, replay
from exan_verify.theorems.standing import objections_to
from exan_verify.theorems.statement import Check, Example, Exhibit, Progress, Result, Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """One check that ran. ``replay``: of the example that the check gave back, if it did."""

    check: Check
    result: Result
    seconds: float
    replay: Replay | None = None

    @property
    def holds(self) -> bool:
        """Whether the check came out as its direction says, its own example included."""
        return self.result.holds and not (self.replay is not None and self.replay.confirmed is False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A statement, its example replayed (None: it has none), and the checks that ran.

    ``ran``: whether checks were asked for; if not, nothing was replayed either.
    """

    statement: Statement
    example: Example | Exhibit | None
    replay: Replay | None
    checks: tuple[CheckReport, ...]
    ran: bool

    @property
    def objections(self) -> tuple[str, ...]:
        """Everything that speaks against the standing: what ran, and what is missing to carry it."""
        if not self.ran:
            return ()
        found = list(objections_to(self.statement))
        if self.replay is not None and self.replay.confirmed is False:
            found.append("the example does not replay")
        found += [
            f"the check {check.check.name!r} contradicts it" for check in self.checks if not check.holds
        ]
        return tuple(found)

    @property
    def holds(self) -> bool:
        """Whether nothing that ran contradicts the standing, and nothing that it needs is missing."""
        return not self.objections


FAILURES = (InputError, CertificateRejected, SoundnessError, SolverError, SolverDisagreementError)
"""What a check may raise without stopping the others: it then confirms nothing."""

Told = Callable[[str, int, int], None]
"""Told ``(check and what it does, done, total)``."""


def run_statement(
    statement: Statement, *, seed: int = 0, progress: Told | None = None, checks: bool = True
) -> Report:
    """Show ``statement`` and, unless ``checks`` is False, replay its example and run its checks."""
    example = statement.example() if statement.example is not None else None
    if not checks:
        return Report(statement=statement, example=example, replay=None, checks=(), ran=False)
    told = progress or _silent
    told("replaying the example", 0, 1)
    replayed = None if example is None else replay(example)
    return Report(
        statement=statement,
        example=example,
        replay=replayed,
        checks=run_checks(statement.checks, seed=seed, progress=told),
        ran=True,
    )


def run_checks(
    checks: Sequence[Check], *, seed: int = 0, progress: Told | None = None
) -> tuple[CheckReport, ...]:
    """Run checks one after another."""
    return tuple(_run(check, seed, progress or _silent) for check in checks)


def _run(check: Check, seed: int, told: Told) -> CheckReport:
    start = time.perf_counter()
    try:
        result = check.run(_prefixed(check.name, told), seed)
    except FAILURES as error:
        result = Result(holds=False, detail=f"{type(error).__name__}: {error}")
    replayed = None if result.example is None else replay(result.example)
    return CheckReport(check=check, result=result, seconds=time.perf_counter() - start, replay=replayed)


def _prefixed(name: str, told: Told) -> Progress:
    return lambda what, done, total: told(f"{name}: {what}", done, total)


def _silent(_what: str, _done: int, _total: int) -> None:
    return None
