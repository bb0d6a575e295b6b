"""Ask z3 or cvc5: each query in a process of its own, with a hard kill and a deterministic work limit.

Nothing of a solver's state survives a query. ``rlimit`` counts the solver's own units of work, so that an
answer does not depend on the machine; ``seconds`` is a hard kill on top of it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any

from exan_verify.errors import ExanError, InputError
from exan_verify.smt.solvers.worker import DIED, receive, send

SAT, UNSAT, UNKNOWN = "sat", "unsat", "unknown"


class SolverError(ExanError):
    """A solver refused a query.

    Remedy: this is a defect of the encoding or of the solver; report it with the text in the message.
    """


class SolverDisagreementError(ExanError):
    """Two solvers, or a solver and the exact replay of its model, contradict each other.

    Remedy: trust neither verdict; the queries are saved under the path in the message, report them.
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """A solver's three-way answer. ``model`` maps names to values as the backends write them; ``killed``
    marks an answer that depends on the wall clock.
    """

    status: str
    solver: str
    reason: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    work: int = 0
    seconds: float = 0.0
    killed: bool = False


@dataclass(frozen=True, slots=True)
class Strategy:
    """A solver with a tactic (z3: ``smt``, ``qfnra-nlsat``, ``default``, ``lra``)."""

    solver: str
    tactic: str = "default"

    def __str__(self) -> str:
        return f"{self.solver}/{self.tactic}"


def solver_of(answer: Answer) -> str:
    """The solver that gave an answer, without its tactic."""
    return answer.solver.split("/")[0]


@cache
def solver_version(solver: str) -> str:
    """The installed version of ``z3`` or ``cvc5``. Raises :class:`InputError` when it is not installed."""
    try:
        return version({"z3": "z3-solver"}.get(solver, solver))
    except PackageNotFoundError:
        raise InputError(f"solver {solver!r} is not installed; pip install 'exan-verify[{solver}]'") from None


def available(solver: str) -> bool:
    """Whether a solver is installed."""
    with contextlib.suppress(InputError):
        return bool(solver_version(solver))
    return False


GRACE = 0.5
"""Seconds beyond its own limit after which a server that does not answer is ended."""


class Worker:
    """A server process that answers one query at a time; close it or use it as a context manager.

    Whatever befalls the process - it is killed, stopped, or does not start in time - the answer is unknown
    and ``killed``, after a second try where that is possible; the next query has a new process.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lock = threading.Lock()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; its child, if it has one, dies with it."""
        with self._lock:
            self._drop()

    def ask(
        self,
        text: str,
        strategy: Strategy,
        *,
        rlimit: int | None = None,
        seconds: float | None = None,
        seed: int = 0,
    ) -> Answer:
        """Satisfiability of SMT-LIB text. Raises :class:`SolverError` when the solver rejects the text."""
        solver_version(strategy.solver)
        request = {"solver": strategy.solver, "tactic": strategy.tactic, "text": text, "rlimit": rlimit}
        reply = self._exchange({**request, "seed": seed}, seconds)
        return _answer(reply, str(strategy))

    def states(
        self, text: str, booleans: list[str], *, limit: int, seconds: float | None = None, seed: int = 0
    ) -> tuple[Answer, list[list[bool]]]:
        """Up to ``limit`` assignments of ``booleans`` that satisfy linear ``text``: complete iff the answer
        is unsat.
        """
        request = {"solver": "z3", "tactic": "lra", "text": text, "enumerate": booleans, "limit": limit}
        reply = self._exchange({**request, "seed": seed}, seconds)
        return _answer(reply, "z3/lra"), reply.get("states", [])

    def _exchange(self, request: dict[str, Any], seconds: float | None) -> dict[str, Any]:
        """One request and its reply; a process that died is started again once."""
        end = None if seconds is None else time.monotonic() + seconds
        with self._lock:
            reply: dict[str, Any] | None = None
            for _ in range(2):
                try:
                    reply = self._once(request, end)
                except TimeoutError:
                    if self._ready:  # it is stopped, or flooded; one that is still starting may go on
                        self._drop()
                    return {"answer": "unknown", "reason": "no answer in time", "killed": True}
                except (OSError, ValueError):  # a broken pipe, or half a message
                    reply = None
                except BaseException:  # the stream is out of step now
                    self._drop()
                    raise
                if reply is None:
                    self._drop()
                elif not reply.get("died"):
                    break
            return reply or {"answer": "unknown", "reason": DIED, "killed": True}

    def _once(self, request: dict[str, Any], end: float | None) -> dict[str, Any] | None:
        if self._process is None or self._process.poll() is not None:
            self._drop()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "exan_verify.smt.solvers.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        if not self._ready:
            if receive(process.stdout.fileno(), end) is None:
                return None
            self._ready = True
        left = None if end is None else max(0.0, end - time.monotonic())
        late = None if end is None else end + GRACE
        send(process.stdin.fileno(), {**request, "seconds": left}, late)
        return receive(process.stdout.fileno(), late)

    def _drop(self) -> None:
        """End the process: it ends its child when its stdin closes, and the kernel does when it is killed."""
        process, self._process, self._ready = self._process, None, False
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
        process.wait()


def _answer(reply: dict[str, Any], name: str) -> Answer:
    if reply["answer"] == "error":
        raise SolverError(f"{name} failed:\n{reply['reason']}")
    return Answer(
        status=reply["answer"],
        solver=name,
        reason=reply.get("reason", ""),
        model=reply.get("model", {}),
        work=reply.get("work", 0),
        seconds=reply.get("seconds", 0.0),
        killed=reply.get("killed", False),
    )


@contextlib.contextmanager
def worker() -> Iterator[Worker]:
    """A worker for the length of a ``with`` block."""
    with Worker() as opened:
        yield opened
