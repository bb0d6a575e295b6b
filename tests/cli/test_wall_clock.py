"""A time limit that ends anywhere leaves nothing behind it."""

from __future__ import annotations

import signal

from exan_verify.cli.output import wall_clock
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
