"""A time limit that ends anywhere leaves nothing behind it, and is not lost."""

from __future__ import annotations

import gc
import signal
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from exan_verify.cli.terminal.output import wall_clock
from exan_verify.core.budget import poll, seconds_left
from exan_verify.errors import BudgetExhausted


def test_neither_timer_nor_deadline_outlives_its_block() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    for k in range(1500):
        try:
            with wall_clock(1e-6 * (k + 1)):
                while True:
                    poll()
        except BudgetExhausted:
            pass
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert seconds_left() is None
        assert signal.getsignal(signal.SIGALRM) is handler


def outlast(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


class PutAway:
    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def __del__(self) -> None:
        self._act()


class Key:
    pass


def by_destructor() -> None:
    thing = PutAway(lambda: outlast(0.02))
    del thing


def by_finaliser() -> None:
    thing = Key()
    weakref.finalize(thing, outlast, 0.02)
    del thing


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def by_collection() -> None:
    def callback(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            outlast(0.02)

    gc.callbacks.append(callback)
    try:
        Cycle()
        gc.collect(0)
    finally:
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("put_away", [by_destructor, by_finaliser, by_collection])
def test_a_limit_that_ends_while_something_is_put_away_is_said_after_it(
    put_away: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)

    def again_and_again() -> None:
        with wall_clock(0.005):
            while True:
                put_away()
                outlast(0.02)

    with pytest.raises(BudgetExhausted):
        again_and_again()
    assert dropped == []
