"""``exan bench``: speed, memory and strength, measured; never asserted in a test."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exan_verify.bench.suite import Suite

SUITES = (
    "certify",
    "attack",
    "reach",
    "robustness",
    "training",
    "peeling",
    "agreement",
    "compare",
    "insecure",
    "convolution",
    "mitigation",
    "smt",
    "tiny",
    "run",
    "strategies",
    "prove",
)
"""The modules beside this one that have a ``SUITE``, in the order of their tables."""


def load(name: str) -> Suite[Any, Any]:
    """The suite called ``name``; its module is imported only now, as the help needs none of them."""
    suite: Suite[Any, Any] = import_module(f"{__name__}.{name}").SUITE
    return suite
