"""The command line: ``exan``.

Exit codes: 0 decided or done, 1 a gate was hit or a certificate rejected, 2 usage or bad input, 3 undecided,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``exan`` with ``arguments`` (default: the process's) and return its exit code."""
    try:
        # imported here: Ctrl-C while the libraries load ends like any other Ctrl-C
        from exan_verify.cli.program import run

        code = run(arguments)
        waiting = sys.modules.get("exan_verify.numeric.waiting")
        if arguments is None and waiting is not None:
            waiting.leave(code)
        return code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
