"""Exact linear programming over Q: a dictionary simplex on integers, with proofs of every answer.

maximise ``objective . x`` subject to ``rows x <= bounds``, ``equalities x = targets`` and the sign of each
variable. The tableau is kept as integers over one common denominator (fraction-free pivots: every entry is
a minor of the integer input, so the division is exact). Feasibility is reached by the dual simplex on a zero
objective, then the primal simplex runs; both begin with the largest entry and, after a number of pivots
linear in the size, take the least index (Bland), so neither cycles.

Every answer comes with its proof and can be checked by :func:`proved`: an optimum with dual multipliers,
infeasibility with Farkas multipliers, unboundedness with a feasible point and a ray.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array, to_fraction
from exan_verify.errors import InputError
from exan_verify.exact import linalg

Vector = tuple[Fraction, ...]

# pivots by the largest entry before Bland's rule takes over, per row and column of the tableau
_PATIENCE = 4


class Status(StrEnum):
    """What was proved about a linear program."""

    OPTIMAL = "optimal"
    UNBOUNDED = "unbounded"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """``maximise objective . x`` under ``rows x <= bounds``, ``equalities x = targets`` and ``signs``.

    ``signs[k]``: 1 for x_k >= 0, -1 for x_k <= 0, 0 for a free variable. All entries are Fractions. Build it
    with :meth:`of`.
    """

    objective: Vector
    rows: tuple[Vector, ...]
    bounds: Vector
    equalities: tuple[Vector, ...]
    targets: Vector
    signs: tuple[int, ...]

    @classmethod
    def of(
        cls,
        objective: Sequence[Any],
        *,
        rows: Sequence[Sequence[Any]] = (),
        bounds: Sequence[Any] = (),
        equalities: Sequence[Sequence[Any]] = (),
        targets: Sequence[Any] = (),
        signs: Sequence[int] | None = None,
    ) -> Program:
        """From ints, floats (taken exactly) and Fractions; raises :class:`InputError` on a wrong shape."""
        count = len(objective)
        chosen = (0,) * count if signs is None else tuple(int(s) for s in signs)
        problems = [
            f"{name} row {k} has {len(row)} entries, the objective has {count}"
            for name, block in (("rows", rows), ("equalities", equalities))
            for k, row in enumerate(block)
            if len(row) != count
        ]
        if len(rows) != len(bounds) or len(equalities) != len(targets):
            problems.append("each of rows and equalities needs one right-hand side")
        if len(chosen) != count or any(s not in (-1, 0, 1) for s in chosen):
            problems.append("signs needs one of -1, 0, 1 per variable")
        if problems:
            raise InputError("linear program: " + "; ".join(problems))
        return cls(
            objective=_vector(objective),
            rows=tuple(map(_vector, rows)),
            bounds=_vector(bounds),
            equalities=tuple(map(_vector, equalities)),
            targets=_vector(targets),
            signs=chosen,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """An answer with its proof.

    OPTIMAL: ``point`` with ``value``, and ``multipliers`` (one per row, then one per equality) whose
    combination of the constraints bounds the objective by ``value``. UNBOUNDED: feasible ``point`` and
    ``ray``. INFEASIBLE: ``multipliers`` whose combination of the constraints is absurd (Farkas).
    """

    status: Status
    point: Vector | None = None
    value: Fraction | None = None
    ray: Vector | None = None
    multipliers: Vector | None = None


def solve(program: Program) -> Solution:
    """Solve an exact linear program."""
    tableau = _Tableau.of(program)
    tableau.eliminate()
    infeasible = tableau.reach_feasibility()
    if infeasible is not None:
        return Solution(status=Status.INFEASIBLE, multipliers=tableau.farkas(infeasible))
    column = tableau.optimise()
    point = tableau.point()
    if column is not None:
        return Solution(status=Status.UNBOUNDED, point=point, ray=tableau.ray(column))
    return Solution(
        status=Status.OPTIMAL,
        point=point,
        value=_dot(program.objective, point),
        multipliers=tableau.dual(),
    )


def proved(program: Program, solution: Solution) -> bool:
    """Whether the solution's own proof holds; uses nothing but dot products."""
    if solution.status is Status.INFEASIBLE:
        return _bounds_combination(program, solution.multipliers, _zeros(program), strictly_below=Fraction(0))
    if solution.point is None or not feasible(program, solution.point):
        return False
    if solution.status is Status.UNBOUNDED:
        return solution.ray is not None and _is_improving_ray(program, solution.ray)
    return solution.value == _dot(program.objective, solution.point) and _bounds_combination(
        program, solution.multipliers, program.objective, at_most=solution.value
    )


def feasible(program: Program, point: Sequence[Fraction]) -> bool:
    """Whether ``point`` satisfies every constraint."""
    return (
        all(_dot(row, point) <= bound for row, bound in zip(program.rows, program.bounds, strict=True))
        and all(_dot(row, point) == t for row, t in zip(program.equalities, program.targets, strict=True))
        and all(sign * value >= 0 for sign, value in zip(program.signs, point, strict=True))
    )


def vanishing(rows: Array, equalities: Array) -> tuple[Vector, Vector] | None:
    """``(y, z)`` with ``y rows + z equalities = 0`` and every y > 0, where that is one combination up to a
    factor; None where there is none, more than one, or one with another sign.

    ``rows`` (n, v) and ``equalities`` (q, v) are Fractions. From ``rows u + c >= 0`` and ``equalities u = t``
    it makes ``y c - z t >= 0``, whatever u is (Farkas).
    """
    found = linalg.nullspace(np.concatenate([rows, equalities]).T)
    if found.shape[1] != 1:
        return None
    values = found[:, 0] if not len(rows) or found[0, 0] > 0 else -found[:, 0]
    y, z = tuple(values[: len(rows)]), tuple(values[len(rows) :])
    return (y, z) if all(v > 0 for v in y) else None


class _Tableau:
    """``D basic_i + sum_j a_ij nonbasic_j = beta_i`` in integers; the last row is the objective.

    Variables are numbered: x_k as k, the slack of constraint i as n + i (rows first, then equalities).
    """

    def __init__(self, program: Program, entries: Array, scales: list[int]) -> None:
        self.program = program
        self.entries = entries
        self.denominator = 1
        self.scales = scales
        self.patience = 0
        self.count = len(program.objective)
        constraints = len(program.rows) + len(program.equalities)
        self.basic = [self.count + i for i in range(constraints)]
        self.nonbasic = list(range(self.count))
        self.fixed = set(range(self.count + len(program.rows), self.count + constraints))
        self.free = {k for k, sign in enumerate(program.signs) if sign == 0}

    @classmethod
    def of(cls, program: Program) -> _Tableau:
        """Rows scaled to integers; a variable with x <= 0 enters as its negative."""
        lines = [(*row, b) for row, b in zip(program.rows, program.bounds, strict=True)]
        lines += [(*row, t) for row, t in zip(program.equalities, program.targets, strict=True)]
        lines.append((*(-c for c in program.objective), Fraction(0)))
        entries = np.empty((len(lines), len(program.objective) + 1), dtype=object)
        scales = []
        for i, line in enumerate(lines):
            scale = lcm(1, *(v.denominator for v in line))
            scales.append(scale)
            entries[i] = [int(v * scale) for v in line]
        for k, sign in enumerate(program.signs):
            if sign == -1:
                entries[:, k] = -entries[:, k]
        return cls(program, entries, scales)

    def eliminate(self) -> None:
        """Bring free variables into the basis and the slacks of equalities out of it, where possible."""
        for variable in sorted(self.free):
            column = self.nonbasic.index(variable)
            rows = [
                i for i, b in enumerate(self.basic) if b not in self.free and self.entries[i, column] != 0
            ]
            if rows:
                self.pivot(min(rows, key=lambda i: (self.basic[i] not in self.fixed, i)), column)
        for slack in sorted(self.fixed.intersection(self.basic)):
            row = self.basic.index(slack)
            columns = [
                j for j, v in enumerate(self.nonbasic) if v not in self.fixed and self.entries[row, j] != 0
            ]
            if columns:
                self.pivot(row, columns[0])

    def reach_feasibility(self) -> int | None:
        """Dual simplex for a zero objective. Returns a row that proves infeasibility, or None."""
        self.patience = _PATIENCE * sum(self.entries.shape)
        while True:
            bad = [i for i, b in enumerate(self.basic) if self._violated(i, b)]
            if not bad:
                return None
            hasty = self._hasty()
            row = min(bad, key=(lambda i: self.entries[i, -1]) if hasty else (lambda i: self.basic[i]))
            # a violated slack of an equality stands in a row without usable columns: absurd as it is
            if self.basic[row] in self.fixed:
                return row
            columns = [j for j, v in enumerate(self.nonbasic) if self._may_enter(v, self.entries[row, j])]
            if not columns:
                return row
            self.pivot(row, self._choice(columns, row, hasty))

    def optimise(self) -> int | None:
        """Primal simplex. Returns a column along which the objective is unbounded, or None."""
        self.patience = _PATIENCE * sum(self.entries.shape)
        while True:
            columns = [j for j, v in enumerate(self.nonbasic) if self._may_enter(v, self.entries[-1, j])]
            columns += [j for j, v in enumerate(self.nonbasic) if v in self.free and self.entries[-1, j] > 0]
            if not columns:
                return None
            column = self._choice(columns, -1, self._hasty())
            row = self._leaving(column)
            if row is None:
                return column
            self.pivot(row, column)

    def pivot(self, row: int, column: int) -> None:
        """Exchange a basic and a nonbasic variable."""
        poll()
        a, p = self.entries, self.entries[row, column]
        line, entering = a[row].copy(), a[:, column].copy()
        out = (a * p - np.multiply.outer(entering, line)) // self.denominator
        out[:, column] = -entering
        out[row] = line
        out[row, column] = self.denominator
        if p < 0:
            out, p = -out, -p
        self.entries, self.denominator = out, p
        self.basic[row], self.nonbasic[column] = self.nonbasic[column], self.basic[row]

    def point(self) -> Vector:
        """The variables at the current basis."""
        found = [Fraction(0)] * self.count
        for i, variable in enumerate(self.basic):
            if variable < self.count:
                found[variable] = Fraction(self.entries[i, -1], self.denominator)
        return self._signed(found)

    def ray(self, column: int) -> Vector:
        """The direction in which the nonbasic variable of ``column`` grows (or falls, when that improves)."""
        found = [Fraction(0)] * self.count
        upwards = -1 if self.entries[-1, column] > 0 else 1
        if self.nonbasic[column] < self.count:
            found[self.nonbasic[column]] = Fraction(upwards)
        for i, variable in enumerate(self.basic):
            if variable < self.count:
                found[variable] = Fraction(-upwards * self.entries[i, column], self.denominator)
        return self._signed(found)

    def dual(self) -> Vector:
        """Multipliers of the constraints from the objective row."""
        return self._multipliers(len(self.basic), Fraction(1, self.scales[-1]))

    def farkas(self, row: int) -> Vector:
        """Multipliers that combine the constraints into ``(something >= 0) <= negative``."""
        sign = -1 if self.basic[row] in self.fixed and self.entries[row, -1] > 0 else 1
        found = list(self._multipliers(row, Fraction(sign)))
        if self.basic[row] >= self.count:
            own = self.basic[row] - self.count
            found[own] += Fraction(sign * self.scales[own])
        return tuple(found)

    def _hasty(self) -> bool:
        """Whether the largest entry still decides, rather than the least index."""
        self.patience -= 1
        return self.patience >= 0

    def _choice(self, columns: list[int], row: int, hasty: bool) -> int:
        if hasty:
            return max(columns, key=lambda j: abs(self.entries[row, j]))
        return min(columns, key=lambda j: self.nonbasic[j])

    def _multipliers(self, row: int, factor: Fraction) -> Vector:
        found = [Fraction(0)] * (len(self.scales) - 1)
        for j, variable in enumerate(self.nonbasic):
            if variable >= self.count:
                own = variable - self.count
                found[own] = factor * Fraction(self.entries[row, j] * self.scales[own], self.denominator)
        return tuple(found)

    def _signed(self, values: list[Fraction]) -> Vector:
        return tuple(-v if s == -1 else v for v, s in zip(values, self.program.signs, strict=True))

    def _violated(self, row: int, variable: int) -> bool:
        if variable in self.free:
            return False
        value = self.entries[row, -1]
        return bool(value != 0) if variable in self.fixed else bool(value < 0)

    def _may_enter(self, variable: int, entry: int) -> bool:
        """Whether growing this non-negative nonbasic variable raises a row whose entry is negative."""
        return variable not in self.fixed and entry < 0

    def _leaving(self, column: int) -> int | None:
        direction = -1 if self.entries[-1, column] > 0 else 1
        best: tuple[Fraction, int, int] | None = None
        for i, variable in enumerate(self.basic):
            entry = direction * self.entries[i, column]
            if variable in self.free or entry <= 0:
                continue
            candidate = (Fraction(self.entries[i, -1], entry), variable, i)
            best = candidate if best is None else min(best, candidate)
        return None if best is None else best[2]


def _bounds_combination(
    program: Program,
    multipliers: Vector | None,
    objective: Vector,
    *,
    at_most: Fraction | None = None,
    strictly_below: Fraction | None = None,
) -> bool:
    """Whether the multipliers show ``objective . x <= total`` for every feasible x, with total in range."""
    if multipliers is None or any(y < 0 for y in multipliers[: len(program.rows)]):
        return False
    lines = [*program.rows, *program.equalities]
    for k, sign in enumerate(program.signs):
        surplus = sum((y * line[k] for y, line in zip(multipliers, lines, strict=True)), -objective[k])
        if surplus and sign * surplus <= 0:
            return False
    total = _dot(multipliers, (*program.bounds, *program.targets))
    if strictly_below is not None:
        return total < strictly_below
    return at_most is not None and total <= at_most


def _is_improving_ray(program: Program, ray: Vector) -> bool:
    return (
        _dot(program.objective, ray) > 0
        and all(_dot(row, ray) <= 0 for row in program.rows)
        and all(_dot(row, ray) == 0 for row in program.equalities)
        and all(sign * value >= 0 for sign, value in zip(program.signs, ray, strict=True))
    )


def _zeros(program: Program) -> Vector:
    return (Fraction(0),) * len(program.objective)


def _vector(values: Sequence[Any]) -> Vector:
    return tuple(to_fraction(v) for v in values)


def _dot(left: Sequence[Fraction], right: Sequence[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def guessed_optimum(*problem: Any, **options: Any) -> Any:
    """``scipy.optimize.linprog``, in floating point: a guess that whoever asks has to prove.

    HiGHS writes some of its warnings to the process's stdout, where JSON may be expected; here they go to
    stderr.
    """
    from scipy.optimize import linprog  # slow to load: only where it is asked

    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):  # there is no stdout
        return linprog(*problem, **options)
    try:
        os.dup2(2, 1)
        return linprog(*problem, **options)
    finally:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # what C still holds
        os.dup2(kept, 1)
        os.close(kept)
