"""exan_verify: what a neural network's gradient reveals about its batch, decided and certified.

Importing this package does not import torch; the functions load what they need when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Box",
    "Gradient",
    "Outcome",
    "ReluNetwork",
    "SampleStatus",
    "Verdict",
    "attack",
    "audit",
    "certify",
    "check",
]

if TYPE_CHECKING:
    from exan_verify.attacking import attack
    from exan_verify.auditing import audit
    from exan_verify.decide.pipeline import certify
    from exan_verify.kernel import check
    from exan_verify.network import Batch, Gradient, ReluNetwork
    from exan_verify.verdict import Box, Outcome, SampleStatus, Verdict

_HOME = {
    "Batch": "network",
    "Box": "verdict",
    "Gradient": "network",
    "Outcome": "verdict",
    "ReluNetwork": "network",
    "SampleStatus": "verdict",
    "Verdict": "verdict",
    "attack": "attacking",
    "audit": "auditing",
    "certify": "decide.pipeline",
    "check": "kernel",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
