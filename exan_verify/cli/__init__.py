"""The command line: ``exan``.

Exit codes: 0 decided or done, 1 a gate was hit or a certificate rejected, 2 usage or bad input, 3 undecided,
130 interrupted, 141 who read the output went away before its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

CLOSED_PIPE = 141
"""What a shell reports of a program that was ended by SIGPIPE: never the code of an answer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``exan`` with ``arguments`` (default: the process's) and return its exit code."""
    sys.stdout, sys.stderr = _stream(sys.stdout), _stream(sys.stderr)
    try:
        try:
            # imported here: Ctrl-C while the libraries load ends like any other Ctrl-C
            from exan_verify.cli.program import run

            code = run(arguments)
            waiting = sys.modules.get("exan_verify.numeric.waiting")
            if arguments is None and waiting is not None:
                waiting.leave(code)
        except KeyboardInterrupt:
            print("error: interrupted", file=sys.stderr)
            code = 130
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as error:
        # click ends with 1 where the output's reader has gone, which would be read as an answer
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        _discard_output()
        return CLOSED_PIPE
    except BrokenPipeError:
        _discard_output()
        return CLOSED_PIPE
    except OSError as error:
        where = "the output" if error.filename is None else str(error.filename)
        with suppress(OSError):
            print(f"error: {where} cannot be read or written ({error.strerror or error})", file=sys.stderr)
        _discard_output()
        return 2
    return code


def _stream(given: Any) -> Any:
    """A stream that the caller closed (``>&-``) is None; what is said there goes nowhere."""
    return open(os.devnull, "w") if given is None else given


def _discard_output() -> None:
    """Let what is still buffered go nowhere: Python would fail on it again while it shuts down."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
