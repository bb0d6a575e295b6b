"""The end of a call's wall time, asked about by the inner loops of encoding, arguments and search.

A deadline that were passed down through polynomials and formulas would be a parameter of every function here,
so it is ambient: :func:`until` sets it for the block, :func:`poll` raises once it has passed. It is of this
thread and process alone; a job elsewhere sets its own (:func:`exan_verify.smt.portfolio.solve`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from exan_verify.errors import BudgetExhausted

_END: ContextVar[float | None] = ContextVar("end", default=None)

RAN_OUT = "the budget of wall time ran out"


@contextmanager
def until(end: float | None) -> Iterator[None]:
    """Inside, :func:`poll` raises after ``end`` (of ``time.monotonic``), or an earlier end set outside."""
    outer = _END.get()
    ends = [e for e in (end, outer) if e is not None]
    token = _END.set(min(ends, default=None))
    try:
        yield
    finally:
        _END.reset(token)


def seconds_left() -> float | None:
    """Wall time until the end, negative after it; None without one."""
    end = _END.get()
    return None if end is None else end - time.monotonic()


def poll() -> None:
    """Raise :class:`BudgetExhausted` when the time is over."""
    end = _END.get()
    if end is not None and time.monotonic() > end:
        raise BudgetExhausted(f"{RAN_OUT}; give a larger --budget")
