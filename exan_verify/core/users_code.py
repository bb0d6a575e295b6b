"""A user's files and functions are code of theirs: whatever it raises becomes one error that names it."""

from __future__ import annotations

from traceback import walk_tb
from types import TracebackType

from exan_verify.errors import BudgetExhausted, ExanError, FileError


class UsersCode:
    """Turns whatever the code in its block raises into :attr:`error`; Ctrl-C passes, and ``passing``.

    ``what``: whose code it is, before the name of the error. ``file``: name the last line of this file that
    was being run, else the first line below the block. A call of ``sys.exit`` is an error as well: the
    process's exit code would be read as an answer.
    """

    error: type[ExanError] = FileError

    def __init__(
        self, what: str, *, file: str = "", passing: tuple[type[Exception], ...] = (BudgetExhausted,)
    ) -> None:
        self.what = what
        self.file = file
        self.passing = passing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, self.passing):
            raise self.error(f"{self.what} {_happened(error)}{self._line(trace)}") from error

    def _line(self, trace: TracebackType | None) -> str:
        places = [(line, frame.f_code.co_filename) for frame, line in walk_tb(trace)][1:]
        if self.file:
            places = [place for place in places if place[1] == self.file][-1:]
        return f" (line {places[0][0]} of {places[0][1]})" if places else ""


def _happened(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"{error!r}; remove the call of sys.exit"
    kind = "" if isinstance(error, ExanError) else f"{type(error).__name__}: "
    return f"{kind}{error}"
