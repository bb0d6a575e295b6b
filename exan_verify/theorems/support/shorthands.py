"""Shorthands for the grounds and checks of statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from exan_verify.theorems.statement import Check, Direction, Ground, Method, Standing, Statement
from exan_verify.theorems.support.instance_check import InstanceCheck

T = TypeVar("T")


SUPPORTS, REFUTES, NEITHER = Direction.SUPPORTS, Direction.REFUTES, Direction.NEITHER


def coq(where: str, says: str, *, bounded: bool = False) -> Ground:
    """A machine-checked proof for all dimensions; ``where`` is ``file.v: names``."""
    return Ground(method=Method.COQ, where=where, says=says, bounded=bounded)


def solver(where: str, says: str, direction: Direction = SUPPORTS) -> Ground:
    """z3 says unsat; ``where`` names the files under proofs/bounded/."""
    return Ground(method=Method.SOLVER, where=where, says=says, direction=direction)


def symbolic(where: str, says: str, direction: Direction = SUPPORTS) -> Ground:
    """Exact computer algebra."""
    return Ground(method=Method.SYMBOLIC, where=where, says=says, direction=direction)


def kernel(where: str, says: str, direction: Direction = SUPPORTS) -> Ground:
    """A certificate or a second batch that the kernel accepts."""
    return Ground(method=Method.KERNEL, where=where, says=says, direction=direction)


def written(where: str, says: str, direction: Direction = SUPPORTS) -> Ground:
    """An argument in docs/theory.md."""
    return Ground(method=Method.WRITTEN, where=f"docs/theory.md {where}", says=says, direction=direction)


def measured(where: str, says: str) -> Ground:
    """Numbers: they settle nothing."""
    return Ground(method=Method.MEASURED, where=where, says=says, direction=NEITHER)


def by_instances(
    name: str,
    what: str,
    *,
    instances: Callable[[int], Iterable[T]],
    conclusion: Callable[[T], bool],
    spoiled: Callable[[T], T],
    count: int,
    said: str,
    direction: Direction = SUPPORTS,
) -> Check:
    """A check that runs a :class:`InstanceCheck`."""
    law = InstanceCheck(instances=instances, conclusion=conclusion, spoiled=spoiled, count=count, said=said)
    return Check(name=name, what=what, run=law, direction=direction)


refuted = partial(Statement, standing=Standing.REFUTED, quantifiers="some network and batch (refuted)")
"""A statement that its example refutes; its other fields by name."""
