"""The laws of exan_verify, one file per group: properties of its answers that hold of every question.

The tests run each of them on a few drawn cases, ``exan campaign`` on as many as there is time for.
"""

from __future__ import annotations

from importlib import import_module

from exan_verify.testing.laws.law import LAWS, Case, Disagreement, Law

__all__ = ["GROUPS", "Case", "Disagreement", "Law", "all_laws"]

GROUPS = (
    "verdicts",
    "activations",
    "planted",
    "certificates",
    "metamorphic",
    "monotone",
    "gradients",
    "layers",
    "attacks",
)
"""The files beside this one that hold laws."""


def all_laws() -> dict[str, Law]:
    """Every law by name."""
    for group in GROUPS:
        import_module(f"exan_verify.testing.laws.{group}")
    return dict(LAWS)
