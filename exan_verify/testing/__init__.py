"""For tests: Hypothesis strategies, a pytest plugin, laws and a campaign.

They need ``pip install 'exan-verify[testing]'``; importing this package imports neither Hypothesis nor pytest
nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from exan_verify.errors import InputError

if TYPE_CHECKING:
    from exan_verify.instances import Instance
    from exan_verify.testing.asserting import assert_leaks, assert_protected
    from exan_verify.testing.strategies.basic import batches, networks
    from exan_verify.testing.strategies.images import digit_question
    from exan_verify.testing.strategies.questions import exclusivity_states, gradients, questions
    from exan_verify.testing.strategies.releases import releases
    from exan_verify.testing.strategies.stages import staged_networks

__all__ = [
    "Instance",
    "assert_leaks",
    "assert_protected",
    "batches",
    "digit_question",
    "exclusivity_states",
    "gradients",
    "networks",
    "questions",
    "releases",
    "staged_networks",
]

_HOME = {
    "Instance": "instances",
    "assert_leaks": "testing.asserting",
    "assert_protected": "testing.asserting",
    "batches": "testing.strategies.basic",
    "digit_question": "testing.strategies.images",
    "exclusivity_states": "testing.strategies.questions",
    "gradients": "testing.strategies.questions",
    "networks": "testing.strategies.basic",
    "questions": "testing.strategies.questions",
    "releases": "testing.strategies.releases",
    "staged_networks": "testing.strategies.stages",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"exan_verify.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("hypothesis", "pytest"):
            raise
        raise InputError(
            f"exan_verify.testing.{name} needs {error.name}; pip install 'exan-verify[testing]'"
        ) from None


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
