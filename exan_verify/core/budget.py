"""How much one call may take: wall time and deterministic work, and the clock that every long step asks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from exan_verify.errors import BudgetExhausted, positive, whole


@dataclass(slots=True, kw_only=True)
class Budget:
    """Limits on one call: wall time in ``seconds`` (None: none) and deterministic ``work`` units.

    The same inputs, seed and work limit give the same verdict; a wall-clock limit cannot promise that.
    """

    seconds: float | None = None
    work: int | None = None
    _start: float = field(default_factory=time.monotonic, init=False)
    _spent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.seconds is not None:
            positive(self.seconds, "budget")
        if self.work is not None:
            whole(self.work, "work_limit")

    def spend(self, units: int) -> None:
        """Count ``units`` of deterministic work (about one modular multiplication each)."""
        self._spent += units

    @property
    def spent(self) -> int:
        """Units of work that were counted."""
        return self._spent

    @property
    def work_left(self) -> int | None:
        """Units of work before the limit, at least 0, or None without one."""
        return None if self.work is None else max(0, self.work - self._spent)

    @property
    def seconds_left(self) -> float | None:
        """Seconds before the limit, at least 0, or None without one."""
        return None if self.seconds is None else max(0.0, self.seconds - (time.monotonic() - self._start))

    @property
    def exhausted(self) -> str | None:
        """Which limit has run out, as a phrase for a reason, or None."""
        if self.work is not None and self._spent > self.work:
            return f"the work limit of {self.work} units ran out (needed: {self._spent} so far)"
        return self.late

    @property
    def late(self) -> str | None:
        """The phrase for a reason when the wall time has run out, or None."""
        if self.seconds is not None and time.monotonic() - self._start > self.seconds:
            return f"the budget of {self.seconds:g} s ran out"
        return None

    @property
    def end(self) -> float:
        """When the wall time runs out, as ``time.monotonic`` counts; infinity without a limit."""
        return math.inf if self.seconds is None else self._start + self.seconds

    def kept(self) -> AbstractContextManager[None]:
        """Within the block, :func:`poll` raises :class:`BudgetExhausted` once the wall time has run out.

        Work has no part in this: what it stops must be the same on every machine, so engines count it.
        """
        return _kept(self)


RAN_OUT = "the budget of wall time ran out"


@dataclass(frozen=True, slots=True)
class _Deadline:
    """An end of wall time that somebody else computed."""

    end: float

    @property
    def late(self) -> str | None:
        return f"{RAN_OUT}; give a larger --budget" if time.monotonic() > self.end else None


_KEPT: ContextVar[Budget | _Deadline | None] = ContextVar("kept", default=None)
"""What ends first of all that is kept. A budget passed down through polynomials and eliminations would be a
parameter of every function there, so it is ambient; it is of this thread and process alone."""


@contextmanager
def _kept(limit: Budget | _Deadline) -> Iterator[None]:
    """Nothing inside may take longer than what is outside: the earlier end counts."""
    outer = _KEPT.get()
    token = _KEPT.set(limit if outer is None or limit.end <= outer.end else outer)
    try:
        yield
    finally:
        _KEPT.reset(token)


def until(end: float | None) -> AbstractContextManager[None]:
    """Inside, :func:`poll` raises after ``end`` (of ``time.monotonic``; None: never), or an earlier end set
    outside.
    """
    return nullcontext() if end is None else _kept(_Deadline(end))


def seconds_left() -> float | None:
    """Wall time before the end that is kept here, negative after it; None without one."""
    kept = _KEPT.get()
    return None if kept is None or kept.end == math.inf else kept.end - time.monotonic()


def poll() -> None:
    """Called between the steps of whatever can take long, every second at least: the place where a budget
    ends it (see :meth:`Budget.kept` and :func:`until`). Raises :class:`BudgetExhausted`.
    """
    kept = _KEPT.get()
    if kept is not None and (late := kept.late):
        raise BudgetExhausted(late)
