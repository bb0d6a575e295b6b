"""All statements: every module below ``exan_verify.theorems.statements`` that has ``STATEMENTS`` gives them.

To add a statement, add it to the ``STATEMENTS`` of a module, or add a module: nothing else names it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import walk_packages

from exan_verify.errors import InputError, meant
from exan_verify.theorems import statements
from exan_verify.theorems.statement import Statement

GROUPS = (
    *("E1", "E2", "E3", "E4", "B1", "P1"),
    *("3.1", "C1", "C2", "PL1", "L3", "C4", "counting", "3.4", "3.6", "scale"),
    *("S0", "S1", "S2", "S3", "S4", "S5", "narrow", "releases", "CV1", "CV3", "P2", "mitigation"),
)
"""The order in which docs/theory.md has them; groups that are not named here come last, by name."""


@cache
def registry() -> dict[str, Statement]:
    """All statements by name, in the order of the theory's labels."""
    found: dict[str, Statement] = {}
    for module in walk_packages(statements.__path__, f"{statements.__name__}."):
        for statement in () if module.ispkg else import_module(module.name).STATEMENTS:
            if statement.name in found:
                raise ValueError(f"two statements are called {statement.name!r}")
            found[statement.name] = statement
    return dict(sorted(found.items(), key=lambda item: (*_place(item[1].group), item[0])))


def statement(name: str) -> Statement:
    """The statement called ``name``, in any case. Raises :class:`InputError` when there is none."""
    known = registry()
    if name.lower() not in known:
        raise InputError(
            f"no statement is called {name!r}; 'exan theorems' lists all {len(known)}{meant(name, known)}"
        )
    return known[name.lower()]


def chosen(name: str) -> list[Statement]:
    """The statement called ``name``, else those of the group ``name``; in any case.

    Raises :class:`InputError` where it is neither.
    """
    known = registry()
    groups: dict[str, list[Statement]] = {}
    for one in known.values():
        groups.setdefault(one.group.lower(), []).append(one)
    if name.lower() in known:
        return [known[name.lower()]]
    if name.lower() in groups:
        return groups[name.lower()]
    near = meant(name, [*known, *(one[0].group for one in groups.values())])
    raise InputError(
        f"no statement or group is called {name!r}; 'exan theorems' lists all {len(known)}{near}"
    )


def beside(one: Statement) -> list[str]:
    """The names of the other statements of its group."""
    return [other.name for other in registry().values() if other.group == one.group and other is not one]


def _place(group: str) -> tuple[int, str]:
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS), group)
