"""The mse output system, checked with polynomials in all entries of Q (docs/theory.md S5, C4).

A polynomial is a map from monomials, sorted tuples of variables, to rationals. Linear consequences are
found by elimination over Q and substituted until there are no more: that only replaces the system by an
equivalent one. The ranks that conclude are taken over F_p, where they bound the real ranks from below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from math import comb

import flint
import numpy as np

from exan_verify.core.certificate import LabelCase, rational
from exan_verify.core.network import Array
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.modular import PRIME, inverse
from exan_verify.kernel.given import require
from exan_verify.kernel.labels import Label
from exan_verify.kernel.residual.parts import Part, excluded

Monomial = tuple[int, ...]
Polynomial = dict[Monomial, Fraction]

MAX_DEGREE = 16
MAX_MONOMIALS = 3000
MAX_MACAULAY = 1 << 23
"""Entries of the Macaulay matrix: 64 MiB, and a rank of seconds."""
MAX_PERMUTATIONS = 5000
MAX_OTHERS = 1 << 8
"""Isolated solutions: each is followed through the network in exact numbers."""


@dataclass(frozen=True, kw_only=True)
class _System:
    """``quadrics`` in the variables ``free``; the others are affine in them."""

    free: list[int]
    quadrics: list[Polynomial]


def check_cases(cases: Sequence[LabelCase], part: Part) -> None:
    """Every admitted label multiset is impossible or has a case that holds, in order."""
    remaining = list(cases)
    for labels in _possible(part):
        system = _reduced(part, labels)
        if system is None:
            continue
        require(len(remaining) > 0, "a label multiset has no case")
        _check_case(remaining.pop(0), part, labels, system)
    require(not remaining, "there are more cases than label multisets")


def _possible(part: Part) -> list[list[Label]]:
    """Multisets that the bias gradient allows: ``v [F 1] = [sum Y' - sum Y, 0]`` has a solution v."""
    own = part.labels
    if not part.subject.network.has_bias:
        return part.multisets()
    ones = np.full((len(own), 1), Fraction(1), dtype=object)
    kernel = nullspace(np.concatenate([part.logits, ones], axis=1))[:-1]
    tests = [[int(v) for v in column] for column in kernel.T]
    before = [sum(column) for column in zip(*own, strict=True)]
    out = []
    for labels in part.multisets():
        shift = [sum(c) - b for c, b in zip(zip(*labels, strict=True), before, strict=True)]
        if all(sum(t * s for t, s in zip(test, shift, strict=True)) == 0 for test in tests):
            out.append(labels)
    return out


def _check_case(case: LabelCase, part: Part, labels: list[Label], system: _System) -> None:
    size = len(labels)
    solutions = _permutations(part.labels) if labels == part.labels else []
    require(len(case.others) <= MAX_OTHERS, "there are too many other solutions")
    for text in case.others:
        matrix = _matrix(text, size)
        require(_solves(matrix, part, labels), "another solution does not solve the output system")
        require(matrix.tolist() not in solutions, "another solution is a permutation or named twice")
        require(excluded(part, matrix, labels), "another solution is not shown to belong to no batch")
        solutions.append(matrix.tolist())
    points = [[_residue(matrix[v // size][v % size]) for v in system.free] for matrix in solutions]
    require(_only(points, system, case.degree), "the Macaulay rank leaves room for other solutions")


def _reduced(part: Part, labels: list[Label]) -> _System | None:
    """Substitute linear consequences until none is left; None when 1 = 0 follows."""
    size = len(labels)
    quadrics = _quadrics(part, labels)
    rows = range(size) if part.subject.network.has_bias else range(0)
    linear: list[Polynomial] = [
        {(m * size + k,): Fraction(1) for k in range(size)} | {(): Fraction(-1)} for m in rows
    ]
    gone: set[int] = set()
    while True:
        if linear:
            solved = _solve_linear(linear)
            if solved is None:
                return None
            gone |= solved.keys()
            quadrics = [_substitute(p, solved) for p in quadrics]
        quadrics, linear = _eliminate(quadrics)
        if not linear:
            return _System(free=[v for v in range(size * size) if v not in gone], quadrics=quadrics)


def _quadrics(part: Part, labels: list[Label]) -> list[Polynomial]:
    """Entry (a, c) of ``Q^T (Q F - Y') - (F - Y)``; variable m r + k is entry (m, k) of Q."""
    logits, own, size = part.logits, part.labels, len(labels)
    out = []
    for a in range(size):
        for c in range(logits.shape[1]):
            p: Polynomial = {(): own[a][c] - logits[a, c]}
            for m in range(size):
                _add(p, (m * size + a,), -labels[m][c])
                for k in range(size):
                    _add(p, tuple(sorted((m * size + a, m * size + k))), logits[k, c])
            out.append(p)
    return out


def _solves(matrix: Array, part: Part, labels: list[Label]) -> bool:
    if part.subject.network.has_bias and any(sum(row) != 1 for row in matrix):
        return False
    entries = matrix.reshape(-1)
    for p in _quadrics(part, labels):
        total = Fraction(0)
        for monomial, value in p.items():
            for v in monomial:
                value *= entries[v]
            total += value
        if total:
            return False
    return True


def _add(p: Polynomial, monomial: Monomial, value: Fraction) -> None:
    p[monomial] = p.get(monomial, Fraction(0)) + value


def _substitute(p: Polynomial, solved: dict[int, Polynomial]) -> Polynomial:
    out: Polynomial = {}
    for monomial, value in p.items():
        expanded: Polynomial = {(): value}
        for v in monomial:
            expanded = _times(expanded, solved.get(v, {(v,): Fraction(1)}))
        for key, coefficient in expanded.items():
            _add(out, key, coefficient)
    return {key: value for key, value in out.items() if value}


def _times(left: Polynomial, right: Polynomial) -> Polynomial:
    out: Polynomial = {}
    for a, x in left.items():
        for b, y in right.items():
            _add(out, tuple(sorted(a + b)), x * y)
    return out


def _eliminate(polynomials: list[Polynomial]) -> tuple[list[Polynomial], list[Polynomial]]:
    """An echelon basis of their span, quadratic terms first: quadrics, and those of degree at most one."""
    rows = _echelon(polynomials, sorted({m for p in polynomials for m in p}, key=lambda m: (-len(m), m)))
    return [p for p in rows if max(map(len, p)) > 1], [p for p in rows if max(map(len, p)) <= 1]


def _solve_linear(linear: list[Polynomial]) -> dict[int, Polynomial] | None:
    """Each leading variable as an affine form in the others; None when 1 = 0 follows."""
    solved: dict[int, Polynomial] = {}
    for row in _echelon(linear, sorted({m for p in linear for m in p}, key=lambda m: (-len(m), m))):
        lead = next(iter(row))
        if lead == ():
            return None
        solved[lead[0]] = {m: -value for m, value in row.items() if m != lead}
    return solved


def _echelon(polynomials: list[Polynomial], columns: list[Monomial]) -> list[Polynomial]:
    """Reduced row echelon form over Q; every row starts with its leading monomial."""
    if not columns:
        return []
    flat = [p.get(m, Fraction(0)) for p in polynomials for m in columns]
    entries = [flint.fmpq(v.numerator, v.denominator) for v in flat]
    reduced, rank = flint.fmpq_mat(len(polynomials), len(columns), entries).rref()
    out = []
    for i in range(rank):
        row = ((m, reduced[i, j]) for j, m in enumerate(columns))
        out.append({m: Fraction(int(v.p), int(v.q)) for m, v in row if v != 0})
    return out


def _only(points: list[list[int]], system: _System, degree: int) -> bool:
    """C4: independent evaluations below ``degree``, and rank (monomials - points) at ``degree``."""
    require(2 <= degree <= MAX_DEGREE, f"the degree is not between 2 and {MAX_DEGREE}")
    count = comb(len(system.free) + degree, degree)
    rows = len(system.quadrics) * comb(len(system.free) + degree - 2, degree - 2)
    fits = count <= MAX_MONOMIALS and rows * count <= MAX_MACAULAY
    require(fits, "the Macaulay matrix is too large")
    if rows < count - len(points):
        return False
    low = _monomials(system.free, degree - 1)
    evaluations = [[_value(m, dict(zip(system.free, point, strict=True))) for m in low] for point in points]
    if _rank(evaluations, len(low)) < len(points):
        return False
    columns = {m: j for j, m in enumerate(_monomials(system.free, degree))}
    matrix = []
    for p in system.quadrics:
        residues = [(m, _residue(value)) for m, value in p.items()]
        for factor in _monomials(system.free, degree - 2):
            row = [0] * len(columns)
            for m, value in residues:
                row[columns[tuple(sorted(m + factor))]] = value
            matrix.append(row)
    return _rank(matrix, len(columns)) == len(columns) - len(points)


def _monomials(free: list[int], degree: int) -> list[Monomial]:
    """Monomials of degree at most ``degree``."""
    return [m for d in range(degree + 1) for m in combinations_with_replacement(free, d)]


def _value(monomial: Monomial, point: dict[int, int]) -> int:
    value = 1
    for v in monomial:
        value = value * point[v] % PRIME
    return value


def _rank(rows: list[list[int]], columns: int) -> int:
    if not rows:
        return 0
    return int(flint.nmod_mat(len(rows), columns, [v for row in rows for v in row], PRIME).rank())


def _permutations(own: list[Label]) -> list[list[list[Fraction]]]:
    """Permutation matrices that carry the labels to themselves."""
    orders: list[list[int]] = [[]]
    for label in own:
        orders = [
            [*order, image]
            for order in orders
            for image, other in enumerate(own)
            if other == label and image not in order
        ]
        require(len(orders) <= MAX_PERMUTATIONS, "too many permutations of equal labels")
    return [[[Fraction(k == image) for k in range(len(own))] for image in order] for order in orders]


def _matrix(text: Sequence[Sequence[str]], size: int) -> Array:
    require(len(text) == size and all(len(row) == size for row in text), "another solution has a wrong shape")
    out = np.empty((size, size), dtype=object)
    for i, row in enumerate(text):
        for j, value in enumerate(row):
            out[i, j] = rational(value)
    return out


def _residue(value: Fraction) -> int:
    return value.numerator * inverse(value.denominator) % PRIME
