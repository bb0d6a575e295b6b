"""One tree of errors; the docstring of each class ends with what the user should do.

An error's text names the culprit (file, tensor, layer path) and the remedy. Independent problems are
reported together: :func:`raise_problems` joins them into one error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from enum import StrEnum
from fractions import Fraction
from numbers import Integral, Real
from traceback import walk_tb
from types import TracebackType
from typing import Any, TypeVar


class ExanError(Exception):
    """Base class of every error that exan_verify raises on purpose.

    Remedy: read the message; it names the culprit and what to change.
    """


class InputError(ExanError, ValueError):
    """A value given by the user cannot be used (wrong shape, type, range, combination).

    Remedy: correct the named argument or tensor.
    """


class NonFiniteError(InputError):
    """A tensor contains NaN or an infinity.

    Remedy: find out which step produced it; verdicts speak of finite real numbers only.
    """


class ShapeError(InputError):
    """A tensor does not have the shape that the network requires.

    Remedy: pass the tensor with the shape that the message states.
    """


class LabelError(InputError):
    """Labels are outside the label set of the loss (out of range, not one-hot, not 0/1).

    Remedy: correct the labels, or state another label set with ``labels=``.
    """


class GradientError(InputError):
    """A gradient does not fit the network: missing or extra tensors, or only zeros.

    Remedy: pass exactly one tensor per parameter, under the parameters' names.
    """


class InexactError(InputError):
    """A floating-point gradient was given without saying what its numbers mean.

    Remedy: pass ``exact=True`` if they are meant exactly, or ``tolerance=eps`` if they are rounded.
    """


class UnsupportedLayerError(InputError):
    """The model contains a layer or wiring that the exact path cannot express.

    Remedy: use Linear layers with ReLU between them, or audit the part of the model made of these.
    """


class FileError(ExanError):
    """A file cannot be read as what it should be, or written where it should go.

    Remedy: check the named path and its format.
    """


class PickleRefusedError(FileError):
    """The file is a pickle (``torch.save``), which could run code when loaded.

    Remedy: convert it once, where you trust it, with the line given in the message.
    """


class RangeError(InputError):
    """The method has fewer equations than unknowns at this batch size.

    Remedy: use a smaller batch size, a wider layer, or another method.
    """


class MemoryLimitError(ExanError):
    """What was asked for does not fit into memory.

    Remedy: a smaller batch, fewer samples in a file, or a machine with more memory.
    """


class WorkerError(ExanError):
    """Processes that shared the work, on this machine or on a cluster, are gone.

    Remedy: fewer jobs where memory ran out, or start the cluster again; then resume what was finished.
    """


class CertificateRejected(ExanError):  # noqa: N818 - a fixed public name
    """A certificate does not prove its claim for this model and this batch or gradient.

    Remedy: do not rely on the claim; certify again from the original inputs.
    """


class BudgetExhausted(ExanError):  # noqa: N818 - an outcome rather than a mistake
    """What was asked for ran out of its wall-clock budget before there was anything to say.

    Remedy: give a larger ``--budget``.
    """


class SoundnessError(ExanError):
    """Two exact facts contradict each other: a defect of exan_verify, never of the input.

    Remedy: report it with the model and the batch; do not rely on any verdict about them.
    """


_Option = TypeVar("_Option", bound=StrEnum)


def choice(kind: type[_Option], value: str, name: str, *, error: type[ExanError] = InputError) -> _Option:
    """The member of ``kind`` with that value, or ``error`` naming the argument and all its options."""
    try:
        return kind(value)
    except (ValueError, TypeError):
        raise error(unknown(name, value, [option.value for option in kind])) from None


def unknown(name: str, value: object, options: Iterable[str]) -> str:
    """The text of an error about an argument that must be one of ``options``."""
    known = list(options)
    listed = ", ".join(repr(option) for option in known)
    return f"{name}={short(value)} is not known; use one of {listed}{meant(value, known)}"


def meant(value: object, options: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the ``options`` that are nearest to what was typed, else nothing.

    Upper and lower case are the same; of a long name its beginning will do, from three letters on.
    """
    if not isinstance(value, str):
        return ""
    typed = value.lower()
    by_start: dict[str, list[str]] = {}
    for option in options:
        for start in {option, option[: len(typed)]} if len(typed) > 2 else {option}:
            by_start.setdefault(start.lower(), []).append(repr(option))
    matches = get_close_matches(typed, by_start, n=3, cutoff=0.7)
    near = list(dict.fromkeys(name for start in matches for name in by_start[start]))[:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def short(value: object) -> str:
    """The start of a value in words, for a message: never a whole gradient, and no error of its own."""
    text = repr(value) if isinstance(value, (str, bytes, int, float, Fraction)) else _shape_of(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _shape_of(value: object) -> str:
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def whole(value: Any, name: str, *, least: int = 1, most: int = 2**63 - 1) -> int:
    """``value`` as an int between ``least`` and ``most``; no booleans, and no floats that happen to be whole.

    Raises :class:`InputError` naming the argument.
    """
    is_bool = isinstance(value, bool)
    if not is_bool and isinstance(value, Integral) and least <= int(value) <= most:
        return int(value)
    raise InputError(f"{name}={short(value)} cannot be used; give an integer from {least} to {most}")


def positive(value: Any, name: str) -> Any:
    """``value`` where it is a finite real number above 0 (a float, an int or a Fraction).

    Raises :class:`InputError` naming the argument.
    """
    is_bool = isinstance(value, bool)
    number: Any = value if isinstance(value, Real) and not is_bool else 0
    if 0 < number < float("inf"):
        return value
    raise InputError(f"{name}={short(value)} cannot be used; give a positive finite number")


def flag(value: Any, name: str) -> bool:
    """``value`` where it is True or False; raises :class:`InputError` naming the argument."""
    if isinstance(value, bool):
        return value
    raise InputError(f"{name}={short(value)} cannot be used; give True or False")


@contextmanager
def fitting_into_memory(what: str) -> Iterator[None]:
    """Turn an allocation that fails into a :class:`MemoryLimitError`; also used as a decorator.

    ``what`` was being done. Numpy and Python raise MemoryError; torch a RuntimeError that it words itself.
    """
    try:
        yield
    except MemoryError as error:
        asked = str(error).partition(" for an array")[0] or "an allocation failed"
    except RuntimeError as error:
        text = str(error)
        if "can't allocate memory" not in text and "out of memory" not in text:
            raise
        asked = text.strip().splitlines()[0]
    else:
        return
    raise MemoryLimitError(
        f"{what} needs more memory than there is ({asked}); use a smaller batch or a machine with more memory"
    )


def raise_problems(kind: type[ExanError], problems: Iterable[str]) -> None:
    """Raise ``kind`` with all ``problems`` in one message; do nothing when there are none."""
    found = list(problems)
    if len(found) == 1:
        raise kind(found[0])
    if found:
        raise kind(f"{len(found)} problems:\n" + "\n".join(f"  - {p}" for p in found))


class UsersCode:
    """Turns whatever a user's code in its block raises into one ``error`` that names it.

    Ctrl-C passes, and ``passing``. ``what``: whose code it is, before the name of the error. ``file``: name
    the last line of this file that was being run, else the first line below the block. A call of
    ``sys.exit`` is an error as well: the process's exit code would be read as an answer.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str = "",
        passing: tuple[type[Exception], ...] = (BudgetExhausted,),
        error: type[ExanError] = FileError,
    ) -> None:
        self.error = error
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
