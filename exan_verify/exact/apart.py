"""One function call in a process of its own: for single steps of libraries that nothing else can interrupt.

The caller looks at its budget meanwhile, and a step that is given up, by the budget or by Ctrl-C, is killed.
The answer is the same as in this process.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any, TypeVar

from exan_verify.core.budget import poll

_LOOK = 0.1
"""Seconds between two looks at the budget."""

_PR_SET_PDEATHSIG = 1

_Answer = TypeVar("_Answer")


def apart(function: Callable[..., _Answer], *arguments: Any) -> _Answer:
    """``function(*arguments)``, a function of a module, computed in another process.

    What it raises is raised here; a process that dies, as one does that is killed for memory, is a
    MemoryError.
    """
    with TemporaryFile() as request, TemporaryFile() as reply:  # pipes would have to be served meanwhile
        pickle.dump((function, arguments), request, pickle.HIGHEST_PROTOCOL)
        request.seek(0)
        with subprocess.Popen(
            [sys.executable, "-m", "exan_verify.exact.apart"],
            stdin=request,
            stdout=reply,
            start_new_session=True,
        ) as process:
            try:
                while process.poll() is None:
                    poll()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_LOOK)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise MemoryError(f"the process for {function.__name__} ended; was it killed for memory?")
        reply.seek(0)
        good, answer = pickle.load(reply)
    if not good:
        raise answer
    found: _Answer = answer
    return found


def main() -> None:
    """Read one call from stdin, write what came of it to stdout; die with the caller, however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sink = os.dup(1)
    os.dup2(2, 1)
    function, arguments = pickle.load(sys.stdin.buffer)
    try:
        reply = (True, function(*arguments))
    except MemoryError:
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - raised again in the caller
        reply = (False, error)
    with os.fdopen(sink, "wb") as out:
        pickle.dump(reply, out, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
