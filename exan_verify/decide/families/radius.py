"""How far a linear family reaches (docs/theory.md section 4, ambiguity radius).

Linear programs look for long motions inside the regions and the box: HiGHS in floating point, and an exact
program for a ray where HiGHS sees no end. Either way the motion found is only a proposal: its reach is
measured and the batch at its end verified exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget
from exan_verify.core.network import Array
from exan_verify.decide.context import Context
from exan_verify.decide.motion import below, conditions, step_limit
from exan_verify.decide.second_batch import Accepted, Radii, displaced, farthest
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.linalg import multiply
from exan_verify.exact.lp import Program, guessed_optimum, solve

_MAX_EXACT_VARIABLES = 8
_MAX_EXACT_ROWS = 48
_MAX_PROGRAMS = 12
_MAX_GENERATORS = 40
_UNBOUNDED = 3  # scipy's status
_FAR = 2.0**10
_GROWTH = 2.0**-16
"""Of every condition along a ray, in units of its largest slope: far above rounding to 2^-30."""


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


def reach(context: Context, steps: Array) -> Radii:
    """How far each sample would move along ``steps`` (M, d) at most (before anything is verified)."""
    moved = [m for m in range(context.samples) if steps[m].any()]
    limit = step_limit(conditions(context, moved, steps[moved])) if moved else Fraction(0)
    sizes = [max(abs(v) for v in row) for row in steps]
    return tuple(s if not s else None if limit is None else s * limit for s in sizes)


def improves(found: Radii, known: Radii | None) -> bool:
    """Whether some sample moves at least a quarter farther than known."""
    if known is None:
        return any(r is None or r for r in found)
    return any(
        k is not None and (r is None or r > k * Fraction(5, 4)) for r, k in zip(found, known, strict=True)
    )


def long_motions(context: Context, generators: Array, movable: list[int]) -> Iterator[Array]:
    """Motions (M, d) in the span of ``generators`` (M d, q) that carry single pixels far."""
    count = generators.shape[1]
    if not 0 < count <= _MAX_GENERATORS:
        return
    shape = (context.samples, context.network.widths[0])
    directions = [generators[:, g].reshape(shape) for g in range(count)]
    polytope = _polytope(context, directions)
    if not len(polytope.values):
        yield from directions  # nothing ends them
        return
    exact = count <= _MAX_EXACT_VARIABLES and len(polytope.values) <= _MAX_EXACT_ROWS
    for m, k, sign in _goals(context, movable):
        objective = generators[m * shape[1] + k] * sign
        if not objective.any():
            continue
        y = _guessed_motion(polytope, objective, exact)
        if y is not None and any(y):
            yield multiply(generators, np.array([[v] for v in y], dtype=object)).reshape(shape)


def farther(
    context: Context, generators: Array, movable: list[int], known: Sequence[Accepted], budget: Budget
) -> list[Accepted]:
    """Verified second batches that move some sample farther than those known."""
    found: list[Accepted] = []
    radii = None
    for item in known:
        radii = item.radii if radii is None else farthest(radii, item.radii)
    for steps in long_motions(context, generators, movable):
        if budget.exhausted:
            break
        if not improves(reach(context, steps), radii):
            continue
        item_or_none = second_batch(context, steps)
        if item_or_none is not None:
            found.append(item_or_none)
            radii = item_or_none.radii if radii is None else farthest(radii, item_or_none.radii)
    return found


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
    nothing = np.empty(0, dtype=object)
    values = np.concatenate([nothing, *(_true(block.values, block.value_unit) for block in blocks[0])])
    slopes = np.array(
        [np.concatenate([nothing, *(_true(b.slopes, b.slope_unit) for b in part)]) for part in blocks],
        dtype=object,
    ).T
    matter = np.flatnonzero((slopes != 0).any(axis=1))
    return _Polytope(values=values[matter], slopes=slopes[matter])


def _true(numbers: Array, unit: int) -> Array:
    """The conditions' numbers in their true scale, flattened."""
    flat: Array = fractions(numbers.reshape(-1)) / Fraction(unit)
    return flat


def _guessed_motion(polytope: _Polytope, objective: Array, exact: bool) -> Sequence[Fraction] | None:
    size = np.abs(np.concatenate([polytope.slopes, polytope.values[:, None]], axis=1)).max(axis=1)
    slopes, values = guessed(polytope.slopes / size[:, None]), guessed(polytope.values / size)
    goal = guessed(objective / np.abs(objective).max())
    found = guessed_optimum(-goal, A_ub=-slopes, b_ub=values, bounds=(None, None))
    if found.status == _UNBOUNDED:
        inside = _ray_inside(slopes, goal)
        if inside is not None or exact:
            return inside or _ray(polytope, objective)
        found = guessed_optimum(-goal, A_ub=-slopes, b_ub=values, bounds=(-_FAR, _FAR))
    return _short(found.x) if found.status == 0 else None


def _short(x: Array) -> list[Fraction]:
    """30 bits are enough for a proposal, and keep the exact numbers that follow short."""
    return [Fraction(round(v * 2**30), 2**30) for v in x]


def _ray_inside(slopes: Array, goal: Array) -> list[Fraction] | None:
    """A direction without end along which every condition grows, so that rounding does not matter."""
    rows, count = slopes.shape
    found = guessed_optimum(
        np.append(np.zeros(count), -1.0),
        A_ub=np.column_stack([-slopes, np.ones(rows)]),
        b_ub=np.zeros(rows),
        A_eq=np.append(goal, 0.0)[None],
        b_eq=np.ones(1),
        bounds=[*[(-_FAR, _FAR)] * count, (None, 1.0)],
    )
    return _short(found.x[:-1]) if found.status == 0 and found.x[-1] > _GROWTH else None


def _ray(polytope: _Polytope, objective: Array) -> Sequence[Fraction] | None:
    """A direction without end, exactly: the conditions' slopes alone, and the objective at most 1."""
    rows = [list(-row) for row in polytope.slopes]
    program = Program.of(list(objective), rows=[*rows, list(objective)], bounds=[0] * len(rows) + [1])
    return solve(program).point


def _without_copies_left(context: Context, moved: set[int]) -> set[int]:
    """The moved samples of which no equal sample stays."""
    pairs = list(zip(context.batch.x, context.batch.y, strict=True))
    staying = {pairs[m] for m in range(context.samples) if m not in moved}
    return {m for m in moved if pairs[m] not in staying}
