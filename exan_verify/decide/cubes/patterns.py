"""The joint patterns that an input can have, with what contradicts the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.decide.cubes.absurd import contradiction
from exan_verify.decide.cubes.problem import MAX_PATTERNS, Problem, inequalities
from exan_verify.exact.regions import Pattern

PREFIX_WORK = 50_000
"""Of one prefix of states: some 5 ms."""

Tree = list[tuple[int, ...] | None]


def listed(problem: Problem, budget: Budget) -> tuple[list[Pattern], Tree] | None:
    """The patterns, and the tree over the neurons' states that leaves them, in preorder, off before on; None
    where there are too many, or the budget runs out.
    """
    widths = problem.network.widths[1:-1]
    found: list[Pattern] = []
    tree: Tree = []
    stack: list[tuple[bool, ...]] = [()]
    while stack:
        budget.spend(PREFIX_WORK)
        if budget.exhausted:
            return None
        bits = stack.pop()
        named = _contradicted(problem, bits) if bits else None
        tree.append(None if named is None else tuple(named))
        if named is not None:
            continue
        if len(bits) < sum(widths):
            stack += [(*bits, True), (*bits, False)]
        else:
            flat = iter(bits)
            found.append(tuple(tuple(next(flat) for _ in range(width)) for width in widths))
        if len(found) + len(stack) > MAX_PATTERNS:
            return None
    return found, tree


def _contradicted(problem: Problem, bits: Sequence[bool]) -> list[int] | None:
    rows = inequalities(problem.network, bits, problem.sides)
    lines = np.array([row for row, _ in rows], dtype=object)
    strict = [flag for _, flag in rows]
    none = np.empty((0, lines.shape[1]), dtype=object)
    named, _ = contradiction(lines, strict, none, np.zeros(0), lambda _, affine: affine)
    return named
