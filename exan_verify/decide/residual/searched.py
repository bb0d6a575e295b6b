"""A second batch of irrational numbers, looked for by Newton's method from many starts (docs/theory.md R9).

What is found in floating point is written as a box; whether that holds a batch with this gradient is the
kernel's to say (CB9).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import product

import numpy as np

from exan_verify.core.arrays import Array, to_fraction
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import EnclosedBatch
from exan_verify.core.facts import Facts
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Attempt, Engine, Witness
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.residual.alphabet import alphabet
from exan_verify.decide.residual.inputs import MAX_SYSTEM, Places, System
from exan_verify.decide.residual.unsettled import Rest, rest_of
from exan_verify.decide.second_batch import admitted
from exan_verify.exact.dyadic import guessed

MAX_COORDINATES = 12
STARTS, STEPS, PATIENCE = 40, 25, 8
"""A tenth of a second to half a second in all. A start is given up whose equations are not nearer to zero by
a factor of ten after so many steps.
"""

REACHES = (0.03, 0.3, 1.0, 3.0)
"""How far from the given inputs a search begins."""

SCALES = (4.0, 2.0, 0.5, 0.25)
"""Without biases a sample keeps its region at every positive scale, and its loss vector shrinks as it grows:
a search begins with one sample at these scales as well, and a second batch is often near one of them.
"""

STEP_WORK = 25
"""A sixty-fourth of the work and a tenth of the time that are left are spent at most."""

APART, SOLVED = 1e-5, 1e-9
COARSE, FINE = 2.0**12, 2.0**40
"""Grids of the inputs that stand still and of those that vary: short numbers, the same on every machine."""

RADII = (Fraction(1, 2**30), Fraction(1, 2**24), Fraction(1, 2**34))
"""Of the box: its middle is 2^-41 from the zero, and a neuron may be near its boundary."""


def decide(context: Context, budget: Budget) -> Finding:
    """AMBIGUOUS by the first second batch that the kernel admits."""
    start = time.monotonic()
    rest, question, network = rest_of(context), context.question, context.network
    if rest is None or question.loss is Loss.HINGE or question.labels is Labels.REAL:
        return Finding()
    entries = sum(weight.size for _, weight in network.parameters())
    cost = entries * network.classes * (network.widths[0] + 1)
    if rest.size * network.widths[0] > MAX_COORDINATES or cost > MAX_SYSTEM:
        return Finding()
    places, rng = Places(context=context), np.random.default_rng([context.setting.seed, rest.size])
    seconds, work = budget.seconds_left, budget.work_left
    end = math.inf if seconds is None else start + seconds / 10
    rejected = set[tuple[object, ...]]()
    starts = STARTS if work is None else min(STARTS, work // (64 * STEPS * STEP_WORK))
    with np.errstate(all="ignore"):
        for labels, x, moving in _starts(places, rest, rng, starts):
            if budget.exhausted or time.monotonic() > end:
                break
            system = System(rest=rest, places=places, labels=labels)
            found = _solved(system, x, np.repeat(moving, system.features), budget)
            if found is None:
                continue
            solution = _unordered(found, labels)
            evidence = None if solution in rejected else _boxed(system, found)
            rejected.add(solution)
            if evidence is not None:
                facts, proof = evidence
                return Finding(
                    facts=facts,
                    evidence=(proof,),
                    witness=Witness(generators=(_record(proof),)),
                    reason="another batch has this gradient, proved to exist in a box",
                )
    note = "search: no second batch found"
    return Finding(attempts=(Attempt(engine=Engine.RESIDUAL, note=note, seconds=time.monotonic() - start),))


def _starts(
    places: Places, rest: Rest, rng: np.random.Generator, count: int
) -> Iterator[tuple[Array, Array, Array]]:
    """Labels and inputs to begin with, and which samples move: first one sample scaled, while those on the
    boundary of their region stand still (a step across it changes the equations), then all near the given
    batch and far from it.
    """
    own = guessed(rest.batch.inputs)
    everyone = np.ones(rest.size, dtype=bool)
    if count == STARTS and not rest.context.network.has_bias:
        inside = np.array([not places.on_boundary(x) for x in own])
        for scale, m in product(SCALES, np.flatnonzero(inside)):
            x = own.copy()
            x[m] *= scale
            yield rest.batch.labels, x, inside
    for n in range(count):
        labels = _labels(rest, rng, n)
        x = rng.normal(size=own.shape) * (3.0 if n % 5 == 4 else REACHES[n % 5])
        yield labels, x if n % 5 == 4 else own + x, everyone


def _labels(rest: Rest, rng: np.random.Generator, n: int) -> Array:
    """The own labels every other time, else any that are admitted."""
    if n % 2 == 0 or rest.context.question.labels is Labels.KNOWN:
        return rest.batch.labels
    letters = alphabet(rest)
    return letters[rng.integers(0, len(letters), rest.size)]


def _solved(system: System, x: Array, moving: Array, budget: Budget) -> Array | None:
    """Inputs (r, d) that solve the equations to rounding, by damped Gauss-Newton steps from ``x`` of the
    coordinates ``moving`` (r d,); None where they end nowhere, or at the batch itself.
    """
    damping = 1e-3
    values, slopes = system.at(x)
    size = float(values @ values)
    first = size
    for n in range(STEPS):
        budget.spend(STEP_WORK)
        if budget.exhausted or (n == PATIENCE and size > first / 100):
            return None
        if not np.isfinite(slopes).all() or not np.isfinite(size) or np.abs(x).max() > 1e6:
            return None
        if np.abs(values).max() < SOLVED:
            break
        seen = slopes[:, moving]
        square = seen.T @ seen
        step = np.zeros(x.shape)
        step.reshape(-1)[moving] = np.linalg.solve(
            square + damping * np.diag(np.diag(square) + 1e-12), -seen.T @ values
        )
        new = system.at(x + step)
        reached = float(new[0] @ new[0])
        if reached < size:
            x, (values, slopes), size, damping = x + step, new, reached, max(damping / 10, 1e-15)
        else:
            damping *= 10
            if damping > 1e6:
                return None
    if np.abs(values).max() >= SOLVED or any(np.abs(x.reshape(-1) - p).max() < APART for p in system.known):
        return None
    return x


def _unordered(x: Array, labels: Array) -> tuple[object, ...]:
    """The same for the same samples in any order, up to rounding: many starts end at one solution."""
    rounded = (x / APART).round().astype(np.int64).tolist()
    return tuple(sorted((*row, *np.atleast_1d(y).tolist()) for row, y in zip(rounded, labels, strict=True)))


def _boxed(system: System, x: Array) -> tuple[Facts, EnclosedBatch] | None:
    """The inputs as a box that the kernel admits: samples that are the batch's own are exactly those, and of
    the others as many coordinates vary as the equations have rank.
    """
    rest, features = system.rest, system.features
    moving = []
    for m, (row, label) in enumerate(zip(x, system.labels, strict=True)):
        same = [
            k
            for k, own in enumerate(system.inputs)
            if np.abs(row - own).max() < APART and np.array_equal(rest.batch.labels[k], label)
        ]
        if same:
            x[m] = system.inputs[same[0]]
        else:
            moving.append(m)
    columns = [m * features + k for m in moving for k in range(features)]
    for _ in range(3):  # to rounding, once the others stand still
        values, slopes = system.at(x)
        step = -np.linalg.lstsq(slopes[:, columns], values, rcond=1e-12)[0]
        if not np.isfinite(step).all():
            return None
        x.reshape(-1)[columns] += step
    free = _pivots(system.at(x)[1], columns)
    still = [c for c in columns if c not in free]
    x.reshape(-1)[still] = np.round(x.reshape(-1)[still] * COARSE) / COARSE
    for _ in range(6):
        values, slopes = system.at(x)
        step = -np.linalg.lstsq(slopes[:, free], values, rcond=1e-14)[0]
        if not free or not np.isfinite(step).all():
            return None
        x.reshape(-1)[free] += step
    x.reshape(-1)[free] = np.round(x.reshape(-1)[free] * FINE) / FINE
    for radius in RADII:
        evidence = _evidence(system, x, free, radius)
        facts = admitted(rest.context, evidence)
        if facts is not None:
            return facts, evidence
    return None


def _pivots(slopes: Array, columns: list[int]) -> list[int]:
    """As many of the columns as their rank seems to be, well conditioned."""
    left, chosen = slopes.copy(), list[int]()
    most = float(np.linalg.norm(slopes[:, columns], axis=0).max(initial=0.0))
    while len(chosen) < len(columns):
        norms = np.linalg.norm(left, axis=0)
        k = max((c for c in columns if c not in chosen), key=lambda c: float(norms[c]))
        if norms[k] <= 1e-8 * most:
            break
        chosen.append(k)
        unit = left[:, k] / norms[k]
        left = left - np.outer(unit, unit @ left)
    return sorted(chosen)


def _evidence(system: System, x: Array, free: list[int], radius: Fraction) -> EnclosedBatch:
    context, members = system.rest.context, system.rest.members
    inputs = [list(row) for row in context.batch.x]
    labels = [context.batch.labels[m] for m in range(context.samples)]
    for m, row, label in zip(members, x, system.labels, strict=True):
        labels[m] = label
        exact = next(
            (context.batch.x[k] for k, one in zip(members, system.inputs, strict=True) if (one == row).all()),
            None,
        )
        inputs[m] = [Fraction(float(v)) for v in row] if exact is None else list(exact)
    return EnclosedBatch(
        inputs=tuple(tuple(map(str, row)) for row in inputs),
        free=tuple((members[c // system.features], c % system.features) for c in free),
        radius=str(radius),
        labels=tuple(tuple(str(to_fraction(v)) for v in np.atleast_1d(label)) for label in labels),
    )


def _record(evidence: EnclosedBatch) -> dict[str, object]:
    """A form for JSON, as the solvers' path gives it."""
    return {
        "kind": "ball",
        "x": [list(row) for row in evidence.inputs],
        "y": [list(row) for row in evidence.labels],
        "radius": evidence.radius,
        "free": [list(place) for place in evidence.free],
    }
