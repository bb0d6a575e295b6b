"""The rest under cross_entropy and bce: a recorded cover of the part of Q-space that is admitted (S5)."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import ceil, floor

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import CoverArgument
from exan_verify.core.network import Array
from exan_verify.decide.residual.alphabet import alphabet, multiset_count, multisets
from exan_verify.decide.residual.balls import Head, Joint, Membership, annihilator
from exan_verify.decide.residual.branch import Box, Point, cover
from exan_verify.decide.residual.outcome import Settled
from exan_verify.decide.residual.polytope import Bounds, bounds, constraints
from exan_verify.decide.residual.unsettled import Rest

MAX_BOXES = 6000
"""Boxes of one argument, over all its trees: about 15 seconds in six dimensions."""

MAX_LABELS = 1100
MAX_JOINT_SIZE = 3
"""A joint cover has two dimensions for two samples, six for three, twelve for four."""

GRID = Fraction(1, 1 << 20)


def solve_rest(rest: Rest, budget: Budget) -> Settled:
    """Cover the rows of Q one at a time where the classes suffice, else all rows jointly."""
    rows = constraints(rest)
    if not rest.affine or rows is None:
        return Settled(note="without biases or bounded features the mixtures of samples are not bounded")
    limits = bounds(rows)
    if limits is None:
        return Settled(note="the mixtures of samples that are admitted are not shown to be bounded")
    notes = []
    # bounds that only the box of inputs gives are wide: for three samples, in six dimensions, too wide
    depth = rest.context.network.depth
    own = rows[: rest.features(depth - 1).shape[0]]
    wide = depth > 1 and rest.size > 2 and len(rows) > len(own) and bounds(own) is None
    for attempt in (_one_by_one,) if wide else (_one_by_one, _jointly):
        found = attempt(rest, Head(rest=rest), limits, budget)
        if isinstance(found, CoverArgument):
            return Settled(note=f"a cover of all mixtures of samples by boxes ({found.kind})", argument=found)
        if stopped := budget.exhausted:
            return Settled(note=stopped)
        notes.append(found)
    return Settled(note="; ".join(notes))


def _one_by_one(rest: Rest, head: Head, limits: Bounds, budget: Budget) -> CoverArgument | str:
    """Each label: the rows q with g(F^T q, y') in the span of G are those of the samples with that label."""
    normals = annihilator(head)
    letters = alphabet(rest)
    if normals is None or _span_free(rest, len(normals)) < max(1, rest.size - 1):
        return "the classes do not separate single samples"
    if len(letters) > MAX_LABELS:
        return f"{len(letters)} labels are too many"
    box = _dyadic(limits, 1)
    trees: list[str] = []
    for letter in letters:
        known = [_unit(m, rest.size) for m in range(rest.size) if _same(rest.batch.labels[m], letter)]
        system = Membership(head=head, normals=normals, target=head.target(letter))
        tree = cover(system, box, known, budget, MAX_BOXES - sum(map(len, trees)))
        if tree is None:
            return "single samples are not separated within the limit of boxes"
        trees.append(tree)
    return CoverArgument(kind="membership", bounds=limits.rows, trees=tuple(trees))


def _jointly(rest: Rest, head: Head, limits: Bounds, budget: Budget) -> CoverArgument | str:
    if rest.size > MAX_JOINT_SIZE:
        return f"a joint cover for {rest.size} samples has {rest.size * (rest.size - 1)} dimensions"
    if multiset_count(rest) > MAX_LABELS:
        return f"{multiset_count(rest)} label multisets are too many"
    box = _dyadic(limits, rest.size)
    trees: list[str] = []
    for labels in multisets(rest):
        system = Joint(head=head, targets=[head.target(row) for row in labels])
        tree = cover(system, box, _orders(rest, labels), budget, MAX_BOXES - sum(map(len, trees)))
        if tree is None:
            return "the joint system may have another solution: no cover within the limit of boxes"
        trees.append(tree)
    return CoverArgument(kind="joint", bounds=limits.rows, trees=tuple(trees))


def _span_free(rest: Rest, normals: int) -> int:
    """Independent conditions on one sample: loss vectors of cross_entropy sum to zero by themselves."""
    return normals - int(rest.batch.labels.ndim == 1)


def _dyadic(limits: Bounds, copies: int) -> Box:
    """A box around the bounds with short dyadic ends, ``copies`` times."""
    return copies * tuple(
        (floor(lo / GRID) * GRID, ceil(hi / GRID) * GRID)
        for lo, hi in zip(limits.low, limits.high, strict=True)
    )


def _orders(rest: Rest, labels: Array) -> list[Point]:
    """The permutations of the rest that give ``labels``, as joint points."""
    return [
        sum((_unit(m, rest.size) for m in order), ())
        for order in permutations(range(rest.size))
        if all(_same(rest.batch.labels[m], row) for m, row in zip(order, labels, strict=True))
    ]


def _unit(m: int, size: int) -> Point:
    return tuple(Fraction(k == m) for k in range(1, size))


def _same(left: Array, right: Array) -> bool:
    return bool(np.array_equal(left, right))
