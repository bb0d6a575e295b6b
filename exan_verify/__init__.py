"""exan_verify: what a neural network's gradient reveals about its batch, decided and certified.

Importing this package does not import torch; the functions load what they need when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from exan_verify.core import __version__

__all__ = [
    "Batch",
    "Box",
    "Gradient",
    "Outcome",
    "Release",
    "ReluNetwork",
    "RunAuditor",
    "SampleStatus",
    "Step",
    "Verdict",
    "__version__",
    "attack",
    "audit",
    "audit_run",
    "certify",
    "check",
    "mitigate",
    "project_inputs",
    "prove",
]

if TYPE_CHECKING:
    from exan_verify.api.attack import attack
    from exan_verify.api.audit import audit
    from exan_verify.api.certify import certify
    from exan_verify.api.check import check
    from exan_verify.api.prove import prove
    from exan_verify.api.runs.audit_run import RunAuditor, audit_run
    from exan_verify.api.runs.steps import Step
    from exan_verify.core.network import Batch, Gradient, ReluNetwork
    from exan_verify.core.question import Box, Release
    from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
    from exan_verify.mitigation.mitigate import mitigate
    from exan_verify.models.projected import project_inputs

_HOME = {
    "Batch": "core.network",
    "Box": "core.question",
    "Gradient": "core.network",
    "Outcome": "core.verdict",
    "Release": "core.question",
    "ReluNetwork": "core.network",
    "RunAuditor": "api.runs.audit_run",
    "SampleStatus": "core.verdict",
    "Step": "api.runs.steps",
    "Verdict": "core.verdict",
    "attack": "api.attack",
    "audit": "api.audit",
    "audit_run": "api.runs.audit_run",
    "certify": "api.certify",
    "check": "api.check",
    "mitigate": "mitigation.mitigate",
    "project_inputs": "models.projected",
    "prove": "api.prove",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
