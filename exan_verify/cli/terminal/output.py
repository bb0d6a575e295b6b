"""What commands write: one JSON object or text on stdout, progress on stderr when it is a terminal."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exan_verify.core import budget
from exan_verify.errors import BudgetExhausted, FileError

REAL_ARITHMETIC = (
    "The claim is about real arithmetic on the stored numbers, not about an accelerator's rounded arithmetic."
)
_WIDTH = 100
_BROAD, _LINES = 40, 5
"""A table is written by rows where a column narrower than that would have a cell of more lines than that."""


class ExitCode(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNDECIDED = 3
    INTERRUPTED = 130


class Output:
    """Where one run of a command writes: stdout for its answer, stderr for progress."""

    def __init__(self, *, json: bool, width: int = _WIDTH) -> None:
        self.json = json
        # no markup: reasons contain [dW | db] and paths may contain [bold]
        self._out = Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False)
        self._progress = Console(stderr=True, highlight=False, markup=False)

    def answer(self, record: Mapping[str, Any]) -> None:
        """With ``--json``: the only thing on stdout, one object on one line."""
        if self.json:
            from exan_verify.api.records import encode

            sys.stdout.buffer.write(encode(record) + b"\n")
            sys.stdout.flush()

    def say(self, *parts: Any) -> None:
        """Text or a table, without ``--json`` only. Text is never broken into lines: it may be a command."""
        if self.json:
            return
        for part in parts:
            if isinstance(part, (str, Text)):
                self._out.print(part, soft_wrap=True)
                continue
            with self._out.capture() as rendered:
                self._out.print(self._fitting(part))
            for line in rendered.get().splitlines():  # tables are padded to their width
                print(line.rstrip())

    @property
    def width(self) -> int:
        """Columns of what is written to."""
        return self._out.width

    def _fitting(self, part: Any) -> Any:
        """A table at this width. Cells are broken between words; where that does not do, or leaves columns so
        narrow that a cell takes many lines, it is written row by row, every cell on a line after its heading.
        """
        if not isinstance(part, Table) or not part.show_header:
            return part
        columns = [(str(column.header).strip(), list(column.cells)) for column in part.columns]
        texts = [[heading, *map(str, cells)] for heading, cells in columns]
        least = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in texts]
        whole = [max(cell_len(line) for text in column for line in text.split("\n")) for column in texts]
        left = self.width - len(columns) * (part.padding[1] + part.padding[3]) - sum(least)
        widths = list(least)
        # rich would cut words to make columns narrower: who needs least more is given it first
        order = sorted(range(len(columns)), key=lambda k: whole[k] - least[k])
        for k, others in zip(order, range(len(columns), 0, -1), strict=True):
            more = min(whole[k] - least[k], max(0, left) // others)
            widths[k] += more
            left -= more
        readable = (width >= _BROAD or n <= _LINES * width for n, width in zip(whole, widths, strict=True))
        if left >= 0 and all(readable):
            for column, width in zip(part.columns, widths, strict=True):
                column.width = width
            return part
        lines = facts({})
        for row in range(part.row_count):
            if row:
                lines.add_row("", "")
            for heading, cells in columns:
                lines.add_row(heading, cells[row])
        return lines

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show what is being done; yields a function that changes the text."""
        if not sys.stderr.isatty():
            yield lambda _: None
            return
        with self._progress.status(text) as status:
            yield lambda more: status.update(f"{text}: {more}")


_AGAIN = 1.0
"""Seconds until a time that is up is said again: long enough to put away what was being written."""

_SOON = 0.01
"""Seconds until it is said where it could not be said at once."""

_LEAVES_CONTEXTS = frozenset({contextlib.__file__, budget.__file__, __file__})
"""The files in which limits are set and put back."""


def _finalises(frame: FrameType | None) -> bool:
    """Whether objects are being put away, where Python prints an exception and drops it."""
    collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename == weakref.__file__ or code in collecting:
            return True
        frame = frame.f_back
    return False


@contextmanager
def wall_clock(seconds: float | None) -> Iterator[None]:
    """Raise :class:`BudgetExhausted` after ``seconds``: where it is polled, and in between by a timer where
    the platform has timer signals.
    """
    if seconds is None or not hasattr(signal, "setitimer"):
        with budget.until(None if seconds is None else time.monotonic() + seconds):
            yield
        return

    over = False

    def expire(_signal: int, frame: FrameType | None) -> None:
        if over:
            return
        # raised where a context is entered or left, it would leave this timer or another limit in place
        if frame is not None and (frame.f_code.co_filename in _LEAVES_CONTEXTS or _finalises(frame)):
            signal.setitimer(signal.ITIMER_REAL, _SOON)
            return
        # what is raised inside another callback of a weak reference is lost: then once more
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        raise BudgetExhausted(f"the budget of {seconds:g} s ran out; give a larger --budget")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with budget.until(time.monotonic() + seconds):
            yield
    finally:
        over = True  # a signal that is pending now would set the timer again
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def titled(title: str, text: str = "", style: str = "bold") -> Text:
    """A styled word or line, and what follows it."""
    return Text.assemble((title, style), text)


def facts(rows: Mapping[str, str]) -> Table:
    """Two columns, names and values, without lines."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def taken_for(architecture: str, notes: Sequence[str]) -> dict[str, str]:
    """The row that says what a model was taken for; none where a note says it, with what was assumed."""
    said = not architecture or any(note.startswith(architecture) for note in notes)
    return {} if said else {"model": architecture}


def noted(notes: Sequence[str]) -> list[str]:
    """A line for each note about what was assumed of the inputs, or done to them."""
    return [f"note: {note}" for note in notes]


def table(*columns: str) -> Table:
    """A plain table; numbers go to the right."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column.endswith(" ") else "left")
    return made


def require_folder(path: str | Path | None) -> None:
    """Refuse, before the work, an output whose folder is not there."""
    if path is not None and not Path(path).parent.is_dir():
        raise FileError(f"{path}: its folder does not exist; create {Path(path).parent} first")
