"""Where a run is kept: ``run.json``, what was asked, and ``steps.jsonl``, a line for every finished step.

A line is appended and flushed to disk before the next step counts, so that a process that is killed at any
moment leaves whole lines and at most the beginning of one, which the next run drops.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from exan_verify.api.files import write_atomically
from exan_verify.api.records import encode, pretty
from exan_verify.api.runs.step_record import STEP_SCHEMA, Prepared, StepRecord
from exan_verify.core import __version__
from exan_verify.errors import FileError, InputError, short

ASKED_SCHEMA = "exan/run-asked/1"
_ASKED, _STEPS = "run.json", "steps.jsonl"


class RunFolder:
    """The finished steps of a run on disk. Memory holds their positions in the file, not the steps.

    ``asked``: what the run asks; a folder that has another run's steps is refused, and so is one that has any
    unless ``resume``. One process writes at a time. Raises :class:`FileError` and :class:`InputError`, and
    leaves what is there as it is.
    """

    def __init__(self, path: str | Path, asked: Mapping[str, Any], *, resume: bool) -> None:
        try:
            self.path = Path(path)
            self.path.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise FileError(f"{path}: its folder does not exist; create {self.path.parent} first") from None
        except FileExistsError:
            raise FileError(f"{path}: is a file; give a folder for the results") from None
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FileError(f"{short(str(path))}: cannot be used as a folder ({reason}); check it") from None
        self._offsets: dict[int, int] = {}
        self._identities: dict[int, bytes] = {}
        record = json.loads(encode({"schema": ASKED_SCHEMA, "version": __version__} | dict(asked)))
        try:
            self._file: BinaryIO = (self.path / _STEPS).open("a+b")
        except OSError as error:
            raise FileError(
                f"{self.path / _STEPS}: cannot be written ({error.strerror}); check the folder and its rights"
            ) from None
        try:
            _lock(self._file, self.path)
            self._check(record, resume)
            self._read()
            if not (self.path / _ASKED).exists():
                write_atomically(self.path / _ASKED, pretty(record))
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Nothing is written any more."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, index: int) -> bool:
        return index in self._offsets

    def append(self, record: StepRecord) -> None:
        """Keep a finished step; it is on disk when this returns. Raises :class:`FileError`."""
        line = msgspec.json.encode(record) + b"\n"
        offset = None
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            if offset is not None:
                with suppress(OSError):
                    self._file.truncate(offset)
            raise FileError(
                f"{self.path / _STEPS}: cannot be written ({error.strerror}); {len(self)} finished steps are "
                "kept; make room and resume"
            ) from None
        self._note(record, offset)

    def matches(self, one: Prepared) -> bool:
        """Whether the finished step of that index is this one."""
        given, number = one.step, one.index if one.step.step is None else one.step.step
        asked = _identity(number, given.epoch, given.accuracy, one.model_sha256, one.batch_sha256)
        return self._identities[one.index] == asked

    def records(self) -> Iterator[StepRecord]:
        """The finished steps by index, one at a time."""
        with (self.path / _STEPS).open("rb") as lines:
            for index in sorted(self._offsets):
                lines.seek(self._offsets[index])
                yield msgspec.json.decode(lines.readline(), type=StepRecord)

    @property
    def last(self) -> int:
        """The largest index of a finished step, -1 without any."""
        return max(self._offsets, default=-1)

    def first(self) -> StepRecord | None:
        """Any finished step."""
        return next(self.records(), None)

    def _note(self, record: StepRecord, offset: int) -> None:
        self._offsets[record.index] = offset
        self._identities[record.index] = _identity(
            record.step, record.epoch, record.accuracy, record.model_sha256, record.batch_sha256
        )

    def _check(self, record: dict[str, Any], resume: bool) -> None:
        try:
            before = json.loads((self.path / _ASKED).read_bytes())
        except FileNotFoundError:
            before = None
        except (OSError, ValueError) as error:
            raise FileError(f"{self.path / _ASKED}: cannot be read ({error}); give another folder") from None
        if before is None:
            if self._file.seek(0, os.SEEK_END):
                raise FileError(f"{self.path}: has {_STEPS} but no {_ASKED}; give another folder")
            return
        if not resume:
            raise InputError(
                f"{self.path}: has the steps of a run; say resume (--resume) to go on with it, or give "
                "another folder"
            )
        names = [] if not isinstance(before, dict) else [n for n in record if before.get(n) != record[n]]
        if names or not isinstance(before, dict):
            said = "; ".join(f"{n} was {_said(before.get(n))}, now {_said(record[n])}" for n in names)
            raise InputError(
                f"{self.path}: has the steps of another run ({said or 'its run.json is none'}); ask the "
                "same, or give another folder"
            )

    def _read(self) -> None:
        """Find the lines; the beginning of one that was being written is dropped."""
        self._file.seek(0)
        end = offset = 0
        for number, line in enumerate(self._file, start=1):
            end = offset
            offset += len(line)
            if not line.endswith(b"\n"):
                break
            end = offset
            try:
                record = msgspec.json.decode(line, type=StepRecord)
                if record.schema != STEP_SCHEMA:
                    raise ValueError(f"has schema {short(record.schema)}, not {STEP_SCHEMA!r}")
            except ValueError as error:
                raise FileError(
                    f"{self.path / _STEPS}, line {number}: is no step ({error}); the file was changed; give "
                    "another folder"
                ) from None
            self._note(record, offset - len(line))
        if end < offset:
            self._file.truncate(end)


def digest_of(records: Iterator[StepRecord]) -> str:
    """SHA-256 over what lasts of the steps: the same however the run came about."""
    state = hashlib.sha256(f"{STEP_SCHEMA}|".encode())
    for record in records:
        state.update(encode(record.lasting()) + b"\n")
    return state.hexdigest()


def _identity(*parts: int | float | str | None) -> bytes:
    """What two steps must have in common to be the same, in few bytes: there are many steps."""
    return hashlib.sha256(repr(parts).encode()).digest()[:16]


def _said(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _lock(file: BinaryIO, path: Path) -> None:
    """Two processes that write the same file would garble it; the system frees the lock of a dead one."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileError(
            f"{path}: another process writes this run; wait for it, or give another folder"
        ) from None
    except OSError:  # a file system without locks
        return
