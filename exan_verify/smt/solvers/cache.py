"""Answers on disk by content hash: finished parts of a question survive an interruption.

One small JSON file per query, named by the SHA-256 of the query's text, solver, version, tactic and limits.
Files are written under a temporary name and renamed, so that two processes can share a directory: the
worst that happens is that both compute the same answer. Answers that depend on the wall clock (a kill) are
never stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from exan_verify.errors import FileError
from exan_verify.smt.solvers.run import Answer, Strategy, solver_version


def write_text(path: Path, text: str) -> None:
    """Write an ASCII file under a temporary name and rename it: after an error or an interruption ``path`` is
    what it was, and nothing else is left. Raises :class:`FileError`.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error}; make room there, or choose another path") from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def query_key(text: str, strategy: Strategy, **limits: int | None) -> str:
    """Name of a query's answer: everything that the answer depends on."""
    parts = [strategy.solver, solver_version(strategy.solver), strategy.tactic, text]
    parts += [f"{k}={limits[k]}" for k in sorted(limits)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """Answers under a directory; ``None`` as directory stores nothing."""

    directory: Path | None

    def get(self, key: str, names: frozenset[str]) -> dict[str, Any] | None:
        """The stored record with these fields, or None. A damaged file counts as none and is removed."""
        if self.directory is None:
            return None
        path = self._path(key)
        try:
            found = json.loads(path.read_text())
            if not isinstance(found, dict) or found.keys() != names:
                raise ValueError("not a record")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            with suppress(OSError):
                path.unlink()
            return None
        return found

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Store a record atomically. Raises :class:`FileError` when the directory cannot be written."""
        if self.directory is None:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write to the cache {self.directory}: {error}; choose another") from None
        write_text(path, json.dumps(record))

    def answer(self, key: str) -> Answer | None:
        """A stored solver answer."""
        record = self.get(key, frozenset(f.name for f in fields(Answer)))
        return None if record is None else Answer(**record)

    def store(self, key: str, answer: Answer) -> None:
        """Store a solver answer unless it depends on the wall clock."""
        if not answer.killed:
            self.put(key, asdict(answer))

    def _path(self, key: str) -> Path:
        assert self.directory is not None
        return self.directory / key[:2] / f"{key}.json"
