"""Long work on a thread of its own, so that whoever waits for it can be told of progress, and interrupted.

A single call of LAPACK on a large matrix takes minutes (the SVD of a 4096 x 25089 gradient about two on one
core), during which Python handles no signal and calls nothing. torch and scipy release the interpreter's lock
meanwhile, so the thread that waits stays awake: it calls progress every :data:`BEAT` seconds, and what that
raises (a budget that ran out), or Ctrl-C, ends the waiting at once. The work itself ends where it next asks
:func:`proceed`, in loops, or with the call it is in; its result is dropped. The interpreter waits for that
before it ends.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from numbers import Real
from typing import TypeVar
from weakref import WeakSet

import torch

from exan_verify.errors import BudgetExhausted, InputError

BEAT = 0.25
"""Seconds between two calls of progress while something runs."""

_GRACE = 0.5
"""Seconds that a program which ends waits for work that was given up."""

Progress = Callable[[str, float], None]

Thread = threading.Thread

_T = TypeVar("_T")

_left_behind: WeakSet[threading.Thread] = WeakSet()

_given_up: ContextVar[threading.Event | None] = ContextVar("_given_up", default=None)


class _GivenUp(BaseException):
    """Nobody waits for this work any more."""


def proceed() -> None:
    """End this work if nobody waits for it any more; long loops ask once a round."""
    given_up = _given_up.get()
    if given_up is not None and given_up.is_set():
        raise _GivenUp


def awaited(work: Callable[[], _T], beat: Callable[[], None]) -> _T:
    """``work()``, done on another thread, with ``beat()`` called on this one while it lasts.

    Raises what ``work`` raises, and at once what ``beat`` or a signal raises.
    """
    given_up, done = threading.Event(), threading.Event()
    results: list[_T] = []
    failures: list[BaseException] = []
    context = copy_context()
    # torch keeps these for every thread separately
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()

    def run() -> None:
        _given_up.set(given_up)
        torch.set_num_threads(threads)
        with torch.set_grad_enabled(gradients):
            results.append(work())

    def target() -> None:
        try:
            context.run(run)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)
        finally:
            done.set()

    # a daemon: work that is given up does not keep the interpreter from ending
    thread = Thread(target=target, daemon=True)
    thread.start()
    try:
        while not done.wait(BEAT):
            beat()
    except BaseException:
        given_up.set()
        _left_behind.add(thread)
        raise
    if failures:
        raise failures[0]
    return results[0]


@atexit.register
def _wait_for_those_left_behind() -> None:
    """A thread that comes back from C++ while the interpreter is taken down would end it with an abort."""
    for thread in _left_behind:
        thread.join()


def leave(code: int) -> None:
    """End a program whose output is written with exit ``code``, where work that was given up would keep it
    longer than loops take to notice; otherwise return."""
    end = time.monotonic() + _GRACE
    for thread in _left_behind:
        thread.join(max(0.0, end - time.monotonic()))
    if any(thread.is_alive() for thread in _left_behind):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Telling:
    """Progress that repeats what it said last while something is awaited.

    ``tell(what, share)`` says something new; ``tell.during(work)`` is ``work()``, awaited.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._last = ("", 0.0)

    def __call__(self, what: str, share: float) -> None:
        """Say something new."""
        self._last = (what, share)
        if self._progress is not None:
            self._progress(what, share)

    def during(self, work: Callable[[], _T]) -> _T:
        """``work()``, on another thread while this one repeats what was said last."""
        return awaited(work, lambda: self(*self._last))


def limited(
    progress: Progress | None,
    budget: float | None,
    *,
    since: float | None = None,
    remedy: str = "give a larger budget",
) -> Progress | None:
    """``progress``, raising :class:`BudgetExhausted` when it is called ``budget`` seconds or more after
    ``since``, a time of ``time.monotonic`` (default now).

    Raises :class:`InputError` unless ``budget`` is a positive number.
    """
    if budget is None:
        return progress
    _check_budget(budget)
    end = (time.monotonic() if since is None else since) + float(budget)

    def tell(what: str, share: float) -> None:
        if time.monotonic() >= end:
            raise BudgetExhausted(f"the budget of {budget:g} s ran out; {remedy}")
        if progress is not None:
            progress(what, share)

    return tell


def _check_budget(budget: object) -> None:
    # numpy's numbers are registered as real; so are truth values
    number = not isinstance(budget, bool) and isinstance(budget, Real)
    if not number or not float(budget) > 0:  # type: ignore[arg-type]
        raise InputError(f"budget={budget!r} is not a positive number; give seconds, or None for no limit")
