"""Linear inequalities that contradict each other: found in floating point, proved in exact numbers.

A linear program asks how far all of them can be satisfied; where that is negative, or zero for those that are
strict, its multipliers name the inequalities of an absurd combination (Farkas).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact.lp import Program, Status, guessed_optimum, solve, vanishing

MOST_EXACT = 40
"""Inequalities of an exact linear program: a tenth of a second."""

NOISE = 1e-6
"""What a program leaves undecided is tried to be proved."""

Constant = Callable[[Sequence[Fraction], Fraction], Any]
"""Of the equations' multipliers z and a constant: the constant less ``z . right``, a Fraction or a ball."""


def contradiction(
    lines: Array, strict: Sequence[bool], equations: Array, right: Array, constant: Constant
) -> tuple[list[int] | None, Array | None]:
    """Inequalities whose combination with the equations is absurd, by number; or None and (None where there
    is none either) a point that satisfies them to rounding.

    ``lines`` (n, v + 1): ``line [u ; 1] >= 0``; ``equations`` (q, v + 1), independent: ``line [u ; 1] =
    right`` with floats ``right``.
    """
    program = _Program.of(lines.astype(np.float64), equations.astype(np.float64), right)
    flags = np.array(strict, dtype=bool)
    point = None
    for slack in (np.ones(len(lines)), flags.astype(np.float64)):
        found = program.solved(slack)
        if found is None:
            break
        depth, here, multipliers = found
        point = here
        if depth > NOISE:
            break
        chosen = _proved(lines, flags, equations, constant, multipliers)
        if chosen is None and depth < -NOISE:
            chosen = _exactly(lines, flags, equations, right, constant, multipliers)
        if chosen is not None:
            return chosen, None
    return None, point


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """The inequalities and equations in floating point, with rows and unknowns in units of their size."""

    lines: Array
    equations: Array
    right: Array
    rows: Array
    units: Array

    @classmethod
    def of(cls, lines: Array, equations: Array, right: Array) -> _Program:
        """From ``lines`` (n, unknowns + 1), ``equations`` (e, unknowns + 1), their ``right`` sides (e,)."""
        whole = np.abs(np.concatenate([lines, equations]))
        unknowns = lines.shape[1] - 1
        rows, units = np.ones(len(whole)), np.ones(unknowns)
        for _ in range(4):
            scaled = whole[:, :-1] * units / rows[:, None]
            rows *= np.sqrt(_size(np.concatenate([scaled, (whole[:, -1] / rows)[:, None]], axis=1), 1))
            units /= np.sqrt(_size(whole[:, :-1] * units / rows[:, None], 0))
        rows = _size(np.concatenate([whole[:, :-1] * units, whole[:, -1:]], axis=1), 1)
        n = len(lines)
        factors = np.append(units, 1.0)
        return cls(
            lines=lines * factors / rows[:n, None],
            equations=equations[:, :-1] * units / rows[n:, None],
            right=(right - equations[:, -1]) / rows[n:],
            rows=rows[:n],
            units=units,
        )

    def solved(self, slack: Array) -> tuple[float, Array, Array] | None:
        """Maximise t <= 1 with ``lines [u ; 1] >= t slack`` (n,): t, u (unknowns,), and the multipliers (n,)
        of the scaled inequalities.
        """
        unknowns, some = len(self.units), len(self.equations) > 0
        exact = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        for options in (exact, {}):  # what it cannot solve so exactly it may solve less so
            result = guessed_optimum(
                np.append(np.zeros(unknowns), -1.0),
                A_ub=np.concatenate([-self.lines[:, :-1], slack[:, None]], axis=1),
                b_ub=self.lines[:, -1],
                A_eq=np.concatenate([self.equations, np.zeros((len(self.equations), 1))], axis=1)
                if some
                else None,
                b_eq=self.right if some else None,
                bounds=[(None, None)] * unknowns + [(None, 1.0)],
                method="highs-ds",
                options=options,
            )
            if result.x is not None and result.status == 0:
                break
        else:
            return None
        return float(result.x[-1]), np.array(result.x[:-1]) * self.units, -np.array(result.ineqlin.marginals)


def _size(matrix: Array, axis: int) -> Array:
    """The largest entry by rows or columns; 1 where all are zero."""
    found: Array = matrix.max(axis=axis, initial=0.0)
    return np.where(found == 0, 1.0, found)


def _proved(
    lines: Array, strict: Array, equations: Array, constant: Constant, multipliers: Array
) -> list[int] | None:
    """The inequalities with multipliers, or some of them: a combination may be the sum of two."""
    most = multipliers.max(initial=0.0)
    tried: list[list[int]] = []
    for least in (1e-9, 1e-7, 1e-11, 1e-13):
        chosen = sorted(np.flatnonzero(multipliers > least * most).tolist(), key=lambda k: -multipliers[k])
        while chosen and sorted(chosen) not in tried:
            tried.append(sorted(chosen))
            found = holds(lines, strict, equations, constant, tried[-1])
            if found:
                return tried[-1]
            if found is None:
                chosen = chosen[:-1]
    return None


def _exactly(
    lines: Array, strict: Array, equations: Array, right: Array, constant: Constant, multipliers: Array
) -> list[int] | None:
    """By an exact linear program about the inequalities that matter, where multipliers are of many sizes."""
    kept = np.flatnonzero(multipliers > 0)
    if not 0 < len(kept) <= MOST_EXACT:
        return None
    goal = [Fraction(float(v)) - c for v, c in zip(right, equations[:, -1], strict=True)]
    program = Program.of(
        [0] * (lines.shape[1] - 1),
        rows=list(-lines[kept, :-1]),
        bounds=list(lines[kept, -1]),
        equalities=list(equations[:, :-1]),
        targets=goal,
    )
    answer = solve(program)
    if answer.multipliers is None or answer.status is not Status.INFEASIBLE:
        return None
    chosen = [int(k) for k, y in zip(kept, answer.multipliers, strict=False) if y > 0]
    return chosen if chosen and holds(lines, strict, equations, constant, chosen) else None


def holds(
    lines: Array, strict: Sequence[bool] | Array, equations: Array, constant: Constant, chosen: Sequence[int]
) -> bool | None:
    """Whether these inequalities are absurd, in exact numbers; None where they are too many to tell."""
    rows = lines[list(chosen)]
    weights = vanishing(rows[:, :-1], equations[:, :-1])
    if weights is None:
        return None
    y, z = weights
    affine = sum((w * c for w, c in zip(y, rows[:, -1], strict=True)), Fraction(0))
    affine += sum((w * c for w, c in zip(z, equations[:, -1], strict=True)), Fraction(0))
    total = constant(z, affine)
    if isinstance(total, Fraction):
        return total < 0 or (total == 0 and any(strict[k] for k in chosen))
    return bool(total < 0)
