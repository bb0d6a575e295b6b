"""A check in a process of its own, which ends with its budget whatever it is doing.

Exact arithmetic spends its time inside single calls of python-flint and of big integers; no signal or thread
interrupts them. The child is started anew (not forked), so a caller's threads do not matter.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from exan_verify.core.arrays import Array
from exan_verify.core.certificate import Claim
from exan_verify.core.network import Gradient, Network
from exan_verify.core.staged import StagedNetwork
from exan_verify.errors import BudgetExhausted, ExanError

_ROOT = str(Path(__file__).resolve().parents[2])


LONGEST_WAIT = 2e6
"""Seconds that the operating system can be asked to wait."""


def checked_within(
    seconds: float, certificate: Any, network: Network | StagedNetwork, given: tuple[Array, Array] | Gradient
) -> Claim:
    """What :func:`exan_verify.kernel.checker.check` returns or raises; ``given``: inputs (M, ...) and labels.

    Raises :class:`BudgetExhausted` when ``seconds`` do not suffice, or the process ends without an answer.
    """
    seconds = min(seconds, LONGEST_WAIT)
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "exan_verify.kernel", repr(seconds)],
            input=pickle.dumps((certificate, network, given)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
    except subprocess.TimeoutExpired:
        raise BudgetExhausted(
            f"the budget of {seconds:g} s ran out: the certificate is neither accepted nor rejected; "
            "give a larger budget"
        ) from None
    if done.returncode != 0:
        raise BudgetExhausted(
            f"the check ended without an answer (exit code {done.returncode}), perhaps for want of memory: "
            "the certificate is neither accepted nor rejected"
        )
    answer: Claim | ExanError = pickle.loads(done.stdout)
    if isinstance(answer, ExanError):
        raise answer
    return answer
