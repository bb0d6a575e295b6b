"""The rest under mse: per label multiset, all solutions are known and followed down (S5, C4)."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import factorial, prod

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import LabelCase, QuadricArgument
from exan_verify.core.network import Array, to_fraction
from exan_verify.decide.residual.alphabet import multiset_count, multisets
from exan_verify.decide.residual.candidates import follow
from exan_verify.decide.residual.macaulay import MAX_COLUMNS, MAX_DEGREE, columns_at, settled_at
from exan_verify.decide.residual.outcome import Settled
from exan_verify.decide.residual.points import rational_points
from exan_verify.decide.residual.quadratic import Quadrics, quadrics
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.decide.second_batch import Candidate
from exan_verify.exact.linalg import nullspace, rank

MAX_MULTISETS = 100_000
"""Label multisets looked at: each costs microseconds when the bias gradient excludes it."""

MAX_PERMUTATIONS = 120

Point = tuple[Fraction, ...]


def solve_rest(rest: Rest, budget: Budget) -> Settled:
    """Decide the rest's output system over all admitted labels."""
    if multiset_count(rest) > MAX_MULTISETS:
        return Settled(note=f"{multiset_count(rest)} label multisets are too many")
    if _orbit_dimension(rest) > 1:
        return Settled(note="the output system has a continuum of solutions")
    cases: list[LabelCase] = []
    balanced = BiasFilter(rest)
    for labels in multisets(rest):
        if not balanced.admits(labels):
            continue
        system = quadrics(rest.logits, rest.batch.labels, labels, affine=rest.affine)
        if system is None:
            continue
        if stopped := budget.exhausted:
            return Settled(note=stopped)
        found = _case(rest, system, labels, budget)
        if not isinstance(found, LabelCase):
            return found
        cases.append(found)
    note = f"the output system of {rest.size} samples has no other solution"
    return Settled(note=note, argument=QuadricArgument(cases=tuple(cases)))


def _orbit_dimension(rest: Rest) -> int:
    """r - rank [1, Y]: orthogonal Q that fix 1 and Y solve the system; above 1 they are a continuum."""
    ones = np.full((rest.size, int(rest.affine)), Fraction(1), dtype=object)
    return rest.size - rank(np.concatenate([ones, rest.batch.labels.astype(object)], axis=1))


class BiasFilter:
    """1^T Q F - 1^T F = sum(Y') - sum(Y) has a solution with 1^T Q 1 = r: a linear test per multiset."""

    def __init__(self, rest: Rest) -> None:
        """Prepare the tests for a rest; without biases there is none."""
        ones = np.full((rest.size, 1), Fraction(1), dtype=object)
        self._tests = nullspace(np.concatenate([rest.logits, ones], axis=1))[:-1].T if rest.affine else ()
        self._own = _sums(rest.batch.labels)

    def admits(self, labels: Array) -> bool:
        """Whether the bias gradient allows these labels (r, K)."""
        shift = [a - b for a, b in zip(_sums(labels), self._own, strict=True)]
        return not any(sum(n * s for n, s in zip(test, shift, strict=True)) for test in self._tests)


def _case(rest: Rest, system: Quadrics, labels: Array, budget: Budget) -> LabelCase | Settled:
    trivial = _permutation_points(system, rest.batch.labels, labels)
    if trivial is None:
        return Settled(note="too many permutations of equal labels")
    degree = _degree(system, trivial, budget)
    if degree is not None:
        return LabelCase(degree=degree)
    if stopped := budget.exhausted:
        return Settled(note=stopped)
    others = [p for p in rational_points(system, rest.context.setting.seed) if p not in trivial]
    for point in others:
        matrix = system.matrix(point)
        end = follow(rest, matrix, labels)
        if end.batch is not None:
            second = Candidate(members=rest.members, batch=end.batch, matrix=matrix if end.mixed else None)
            return Settled(note="the output system has a second solution", second=second)
        if not end.excluded:
            return Settled(note="the output system has a second solution, open below the output layer")
    degree = _degree(system, [*trivial, *others], budget) if others else None
    if degree is None:
        return Settled(note="the output system may have further solutions (irrational, multiple or many)")
    return LabelCase(degree=degree, others=tuple(_text(system.matrix(point)) for point in others))


def _degree(system: Quadrics, points: list[Point], budget: Budget) -> int | None:
    """The least degree at which C4 applies, or None."""
    for degree in range(2, MAX_DEGREE + 1):
        columns = columns_at(system.variables, degree)
        if columns > MAX_COLUMNS or budget.exhausted:
            return None
        budget.spend(columns**2 * max(columns, len(system.equations)))
        if settled_at(system, points, degree):
            return degree
    return None


def _permutation_points(system: Quadrics, own: Array, labels: Array) -> list[Point] | None:
    """The permutations that carry the own labels to ``labels`` (none when the multisets differ)."""
    if not np.array_equal(own, labels):
        return []
    classes: dict[tuple[Fraction, ...], list[int]] = {}
    for m, row in enumerate(own):
        classes.setdefault(tuple(to_fraction(v) for v in row), []).append(m)
    if prod(factorial(len(members)) for members in classes.values()) > MAX_PERMUTATIONS:
        return None
    orders: list[dict[int, int]] = [{}]
    for members in classes.values():
        orders = [
            order | dict(zip(members, image, strict=True))
            for order in orders
            for image in permutations(members)
        ]
    return [system.point(_permutation(order)) for order in orders]


def _permutation(order: dict[int, int]) -> Array:
    matrix = np.full((len(order), len(order)), Fraction(0), dtype=object)
    for row, column in order.items():
        matrix[row, column] = Fraction(1)
    return matrix


def is_permutation(matrix: Array) -> bool:
    """Whether Q (r, r) only reorders (each of its rows sums to 1)."""
    return all(sorted(row)[:-1] == [0] * (len(row) - 1) and max(row) == 1 for row in matrix)


def _sums(labels: Array) -> list[Fraction]:
    return [sum((to_fraction(v) for v in column), Fraction(0)) for column in labels.T]


def _text(matrix: Array) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(str(v) for v in row) for row in matrix)
