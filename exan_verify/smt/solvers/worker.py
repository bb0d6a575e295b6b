"""The process that owns the solvers: forks one child per query and kills it when its time is up.

Started as ``python -m exan_verify.smt.solvers.worker``; speaks length-prefixed JSON on stdin and stdout (see
:mod:`exan_verify.smt.solvers.run`, the only caller). Nothing survives: a child dies with this process, and
this process kills its child and ends as soon as its stdin closes, which the kernel does when the parent dies,
however it dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import traceback
from typing import Any

_PR_SET_PDEATHSIG = 1
_HEADER = struct.Struct("<Q")
_CHUNK = 4096
"""A pipe that is ready takes so much without blocking (POSIX: PIPE_BUF is at least 512, Linux has 4096)."""

LONGEST = 256 << 20
"""Bytes of a message. Real ones are far shorter: a longer one is a solver that floods its pipe."""


def send(fd: int, message: dict[str, Any], end: float | None = None) -> None:
    """Write one length-prefixed JSON message. Raises :class:`TimeoutError` after ``end`` (monotonic)."""
    data = json.dumps(message).encode()
    view = memoryview(_HEADER.pack(len(data)) + data)
    while view:
        _await([], [fd], end)
        view = view[os.write(fd, view[:_CHUNK]) :]


def receive(fd: int, end: float | None = None) -> dict[str, Any] | None:
    """Read one message; None at end of file, also in the middle of one.

    Raises :class:`TimeoutError` after ``end`` (monotonic), and :class:`ValueError` when the message is too
    long.
    """
    header = _read(fd, _HEADER.size, end)
    if header is None:
        return None
    length: int = _HEADER.unpack(header)[0]
    if length > LONGEST:
        raise ValueError(f"a message of {length} bytes")
    data = _read(fd, length, end)
    return None if data is None else json.loads(data)


def _read(fd: int, count: int, end: float | None) -> bytes | None:
    parts = []
    while count:
        _await([fd], [], end)
        part = os.read(fd, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _await(reads: list[int], writes: list[int], end: float | None) -> list[int]:
    """The descriptors among ``reads`` that are ready, once one of all of them is."""
    left = None if end is None else max(0.0, end - time.monotonic())
    found, writable, _ = select.select(reads, writes, [], left)
    if not (found or writable):
        raise TimeoutError
    return found


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(source: int, sink: int) -> None:
    """Answer queries until ``source`` closes."""
    while (request := receive(source)) is not None:
        answer = _run(request, source)
        if answer is None:
            return
        send(sink, answer)


def _run(request: dict[str, Any], source: int) -> dict[str, Any] | None:
    """One query in a child; None when the parent has gone meanwhile."""
    if request["solver"] == "cvc5":
        from exan_verify.smt.solvers import backend_cvc5  # noqa: F401 - loaded once, on demand
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        _child(request, writable)
    os.close(writable)
    try:
        return _wait(readable, source, request.get("seconds"))
    finally:
        os.close(readable)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait(readable: int, source: int, seconds: float | None) -> dict[str, Any] | None:
    """The child's answer. ``killed`` marks what depends on the clock or on who was killed: nobody may keep
    it; ``died``: the child ended without a word, and may be asked again.
    """
    end = None if seconds is None else time.monotonic() + seconds
    try:
        ready = _await([readable, source], [], end)
        if readable not in ready:  # the parent never writes while it waits: this is its end
            return None
        answer = receive(readable, end)
    except TimeoutError:
        return {"answer": "unknown", "reason": f"killed after {seconds:.3g} s", "killed": True}
    except ValueError as error:
        return {"answer": "unknown", "reason": f"the solver's process sent {error}"}
    return answer or {"answer": "unknown", "reason": DIED, "killed": True, "died": True}


DIED = "the solver's process died; was it killed for memory?"


def _child(request: dict[str, Any], writable: int) -> None:
    """Solve and leave; never returns into the server's loop."""
    die_with_parent()
    status = 1
    try:
        _silence()
        limit = int(request.get("memory_mb", 4096)) << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        from exan_verify.smt.solvers import backends

        start = time.monotonic()
        answer = backends.solve(request)
        answer["seconds"] = time.monotonic() - start
        send(writable, answer)
        status = 0
    except MemoryError:
        send(writable, {"answer": "unknown", "reason": "out of memory"})
    except Exception:  # noqa: BLE001 - reported to the parent, which raises it
        send(writable, {"answer": "error", "reason": traceback.format_exc()})
    finally:
        os._exit(status)


def _silence() -> None:
    """What a solver prints, however much, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def main() -> None:
    """Serve on stdin and stdout; anything that a library prints goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    os.set_inheritable(source, False)
    from exan_verify.smt.solvers import backends  # loads z3 once for every child

    backends.prepare()
    send(sink, {"ready": True})
    serve(source, sink)


if __name__ == "__main__":
    main()
