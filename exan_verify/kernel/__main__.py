"""The child of :mod:`exan_verify.kernel.timed`: pickled arguments on stdin, the pickled answer on stdout."""

from __future__ import annotations

import pickle
import signal
import sys

from exan_verify.errors import ExanError
from exan_verify.kernel.checker import check

if __name__ == "__main__":
    if hasattr(signal, "setitimer"):  # without a handler the timer ends the process, its parent gone or not
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    try:
        answer = check(*pickle.load(sys.stdin.buffer))
    except ExanError as error:
        sys.stdout.buffer.write(pickle.dumps(error))
    else:
        sys.stdout.buffer.write(pickle.dumps(answer))
