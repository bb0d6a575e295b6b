"""What averages of samples hide: all that is sent is a function of the means (docs/theory.md, releases).

Members of a group move against one another, feature by feature. Groups that share members, as those of
several rounds do, leave what the null space of all their equations leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import Array
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Averaged
from exan_verify.decide.context import Context
from exan_verify.decide.families.result import GENERATORS_SHOWN, Part
from exan_verify.decide.second_batch import admitted
from exan_verify.exact.linalg import nullspace, rank
from exan_verify.exact.rational import Mask

_MAX_WORK = 1 << 27
"""Of eliminations over Q, roughly; above it nothing is claimed of groups that share members."""

_FEW = 16
"""Samples among which solutions are looked for, to show some."""

Motion = tuple[tuple[int, int, Fraction], ...]
"""How far sample m moves at feature k: (m, k, distance), of those that move."""


def decide(context: Context, budget: Budget) -> Part:
    """The batches with the same means."""
    release = context.question.release
    if release is None or release.averages is None:
        return Part(note="")
    samples, features = context.batch.inputs.shape
    movable = _movable(context, sums := _sums(release.averages, samples))
    sets: dict[bytes, list[int]] = {}  # features at which the same samples can move
    for k in range(features):
        sets.setdefault(movable[:, k].tobytes(), []).append(k)
    if not (disjoint := bool((sums.sum(axis=0) <= 1).all())):
        work = sums.size * min(sums.shape) * len(sets)
        if work > _MAX_WORK:
            return Part(note="too many groups share members for an exact elimination")
        budget.spend(work)
    dimension = 0
    generators: list[Motion] = []
    for columns in sets.values():
        here = np.flatnonzero(movable[:, columns[0]])
        if not len(here):
            continue
        left = sums[:, here]
        # of groups that share nobody the rank is the number of those with a member here
        seen = int(left.any(axis=1).sum()) if disjoint else rank(left)
        dimension += (len(here) - seen) * len(columns)
        if len(generators) < GENERATORS_SHOWN:
            generators += _motions(left, here, columns[0])
    evidence = Averaged(dimension=dimension)
    facts = admitted(context, evidence)
    if facts is None:
        return Part(note="the means of the groups are not shown to leave any member something to move in")
    reason = (
        f"what is sent is a function of the means of {len(release.averages)} groups and their labels: a "
        f"family of dimension {dimension} at least, of {samples * features}, keeps them, in this round and, "
        "with the same groups, in all rounds (means)"
    )
    radii = None
    if context.question.domain is None:
        radii = tuple(None if m in facts.free else Fraction(0) for m in range(samples))
    return Part(
        note=reason,
        facts=facts,
        evidence=(evidence,),
        dimension=dimension,
        generators=tuple(generators[:GENERATORS_SHOWN]),
        radii=radii,
        reason=reason,
    )


def _sums(averages: Sequence[Sequence[int]], samples: int) -> Array:
    """A row (M,) of ones and zeros for each different group."""
    groups = sorted({tuple(sorted(group)) for group in averages})
    sums = np.zeros((len(groups), samples), dtype=int)
    for g, group in enumerate(groups):
        sums[g, list(group)] = 1
    return sums


def _movable(context: Context, sums: Array) -> Mask:
    """Which samples can move at a feature, (M, d).

    A group that shares nobody moves as a whole where not all of its members are on one face: those on a face
    move inwards. Members of several groups, and who is in a group with them, move where they are strictly
    inside, both ways.
    """
    x = context.batch.inputs
    if context.question.domain is None:
        return np.ones(x.shape, dtype=bool)
    lo, hi = context.question.domain.bounds(x.shape[1])
    above, below = np.asarray(x > lo, dtype=bool), np.asarray(x < hi, dtype=bool)
    movable: Mask = above & below
    shared = sums.sum(axis=0) > 1
    for row in sums.astype(bool):
        if not shared[row].any():
            movable[row] = above[row].any(axis=0) & below[row].any(axis=0)
    return movable


def _motions(sums: Array, here: Array, feature: int) -> list[Motion]:
    """Some motions at one feature of the samples ``here``, whose groups are the columns of ``sums``: two
    members of the same groups against each other, else solutions for all where they are few.
    """
    alike: dict[bytes, list[int]] = {}
    for column, m in enumerate(here):
        alike.setdefault(sums[:, column].tobytes(), []).append(int(m))
    pairs = [members for members in alike.values() if len(members) > 1]
    if pairs or len(here) > _FEW:
        return [((a, feature, Fraction(1)), (b, feature, Fraction(-1))) for a, b, *_ in pairs]
    solutions = nullspace(sums).T
    return [
        tuple((int(m), feature, v) for m, v in zip(here, solution, strict=True) if v)
        for solution in solutions
    ]
