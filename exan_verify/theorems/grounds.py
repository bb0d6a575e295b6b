"""Shorthands for the grounds and checks of statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from exan_verify.theorems.law import Law
from exan_verify.theorems.statement import Check, Ground, Method

T = TypeVar("T")


def coq(where: str, says: str) -> Ground:
    """A machine-checked proof for all dimensions; ``where`` is ``file.v: names``."""
    return Ground(method=Method.COQ, where=where, says=says)


def solver(where: str, says: str) -> Ground:
    """z3 says unsat; ``where`` names the files under proofs/bounded/."""
    return Ground(method=Method.SOLVER, where=where, says=says)


def symbolic(where: str, says: str) -> Ground:
    """Exact computer algebra."""
    return Ground(method=Method.SYMBOLIC, where=where, says=says)


def kernel(where: str, says: str) -> Ground:
    """A certificate or a second batch that the kernel accepts."""
    return Ground(method=Method.KERNEL, where=where, says=says)


def written(where: str, says: str) -> Ground:
    """An argument in docs/theory.md."""
    return Ground(method=Method.WRITTEN, where=f"docs/theory.md {where}", says=says)


def measured(where: str, says: str) -> Ground:
    """Numbers."""
    return Ground(method=Method.MEASURED, where=where, says=says)


def by_instances(
    name: str,
    what: str,
    *,
    instances: Callable[[int], Iterable[T]],
    conclusion: Callable[[T], bool],
    spoiled: Callable[[T], T],
    count: int,
    said: str,
) -> Check:
    """A check that runs a :class:`Law`."""
    law = Law(instances=instances, conclusion=conclusion, spoiled=spoiled, count=count, said=said)
    return Check(name=name, what=what, run=law)
