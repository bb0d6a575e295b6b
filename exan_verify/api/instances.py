"""An :class:`~exan_verify.instances.Instance` in place of a model: it brings its batch and its words."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from exan_verify.core.question import Labels
from exan_verify.instances import Instance

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def taking_instances(function: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """``function(model, ...)`` that also takes an instance as the model: those of its arguments that are not
    given and that the instance knows are the instance's.
    """
    takes = signature(function)

    @wraps(function)
    def with_instances(*args: _Given.args, **options: _Given.kwargs) -> _Answer:
        bound = takes.bind_partial(*args, **options)
        asked = bound.arguments.get("model")
        if not isinstance(asked, Instance):
            return function(*args, **options)
        given = bound.arguments
        given["model"] = asked.network
        for name, value in _known(asked, takes.parameters, given).items():
            given.setdefault(name, value)
        return function(*bound.args, **bound.kwargs)

    return with_instances


def _known(asked: Instance, takes: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What the instance says of the parameters in ``takes``."""
    known: dict[str, Any] = {"loss": asked.loss.value, "reduction": asked.reduction.value}
    if "domain" in takes:
        known |= {"domain": asked.domain, "labels": asked.labels.value}
    elif "labels" in takes:  # an attacker knows no labels
        known["labels"] = (Labels.REAL if asked.labels is Labels.REAL else Labels.ONE_HOT).value
    if "batch" in takes:
        known |= {} if "gradient" in given else {"batch": asked.batch}
    elif "gradient" not in given:
        known["gradient"] = asked.rounded_gradient()
    return {name: value for name, value in known.items() if name in takes}
