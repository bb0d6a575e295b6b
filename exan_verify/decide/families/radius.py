"""How far a linear family reaches (docs/theory.md section 4, ambiguity radius).

Linear programs look for long motions inside the regions and the box: exact ones where they are small, HiGHS
in floating point otherwise. Either way the motion found is only a proposal: its reach is measured and the
batch at its end verified exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from scipy.optimize import linprog

from exan_verify.decide.context import Context
from exan_verify.decide.families.motion import below, conditions, step_limit
from exan_verify.decide.families.second import Accepted, displaced
from exan_verify.exact.linalg import multiply
from exan_verify.exact.lp import Program, Status, solve
from exan_verify.network import Array

_MAX_EXACT_VARIABLES = 8
_MAX_EXACT_ROWS = 48
_MAX_PROGRAMS = 48
_MAX_GENERATORS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class _Polytope:
    """``values + slopes @ y >= 0`` for the coefficients y of the generators."""

    values: Array
    slopes: Array


def second_batch(context: Context, steps: Array) -> Accepted | None:
    """The batch nearly as far along ``steps`` (M, d) as the regions and the box allow, or one unit along it
    when nothing stops the motion; the radius of the moved samples is infinite then.
    """
    moved = [m for m in range(context.samples) if steps[m].any()]
    limit = step_limit(conditions(context, moved, steps[moved])) if moved else Fraction(0)
    if limit == 0:
        return None
    found = displaced(context, steps * (Fraction(1) if limit is None else below(limit)))
    if found is None or limit is not None:
        return found
    gone = _without_copies_left(context, set(moved))
    return replace(found, radii=tuple(None if m in gone else r for m, r in enumerate(found.radii)))


def long_motions(context: Context, generators: Array, movable: list[int]) -> Iterator[Array]:
    """Motions (M, d) in the span of ``generators`` (M d, q) that carry single pixels far."""
    count = generators.shape[1]
    if not 0 < count <= _MAX_GENERATORS:
        return
    shape = (context.samples, context.network.widths[0])
    polytope = _polytope(context, [generators[:, g].reshape(shape) for g in range(count)])
    exact = count <= _MAX_EXACT_VARIABLES and len(polytope.values) <= _MAX_EXACT_ROWS
    for m, k, sign in _goals(context, movable):
        objective = generators[m * shape[1] + k] * sign
        if not objective.any():
            continue
        y = _exact_motion(polytope, objective) if exact else _guessed_motion(polytope, objective)
        if y is not None and any(y):
            yield multiply(generators, np.array([[v] for v in y], dtype=object)).reshape(shape)


def _goals(context: Context, movable: list[int]) -> Iterator[tuple[int, int, int]]:
    """Which pixel of which sample to push up or down; a share for each sample, spread over its pixels."""
    d = context.network.widths[0]
    share = max(1, _MAX_PROGRAMS // (2 * max(1, len(movable))))
    for m in movable:
        for k in range(0, d, max(1, d // share)):
            yield m, k, 1
            yield m, k, -1


def _polytope(context: Context, generators: list[Array]) -> _Polytope:
    everyone = range(context.samples)
    blocks = [conditions(context, everyone, steps) for steps in generators]
    values = np.concatenate([block.values.reshape(-1) for block in blocks[0]])
    slopes = np.array(
        [np.concatenate([b.slopes.reshape(-1) for b in part]) for part in blocks], dtype=object
    ).T
    matter = np.flatnonzero((slopes != 0).any(axis=1))
    return _Polytope(values=values[matter], slopes=slopes[matter])


def _exact_motion(polytope: _Polytope, objective: Array) -> tuple[Fraction, ...] | None:
    program = Program.of(list(objective), rows=(-polytope.slopes).tolist(), bounds=polytope.values.tolist())
    solution = solve(program)
    return solution.ray if solution.status is Status.UNBOUNDED else solution.point


def _guessed_motion(polytope: _Polytope, objective: Array) -> list[Fraction] | None:
    slopes = polytope.slopes.astype(np.float64)
    found = linprog(
        -objective.astype(np.float64),
        A_ub=-slopes,
        b_ub=polytope.values.astype(np.float64),
        bounds=[(-(2.0**10), 2.0**10)] * len(objective),
    )
    # 2^-30 is enough for a proposal, and keeps the exact numbers that follow short
    return [Fraction(round(v * 2**30), 2**30) for v in found.x] if found.status == 0 else None


def _without_copies_left(context: Context, moved: set[int]) -> set[int]:
    """The moved samples of which no equal sample stays."""
    pairs = list(zip(context.batch.x, context.batch.y, strict=True))
    staying = {pairs[m] for m in range(context.samples) if m not in moved}
    return {m for m in moved if pairs[m] not in staying}
