"""S5 for generic F: exact ranks at one F, which hold outside the zeros of a polynomial in F.

The Macaulay matrix of the output system (docs/theory.md R4) has entries that are polynomials in F. Its rank
is at most N - k for every F, because the k permutations that fix the labels are solutions for every F (of the
same labels; k = 0 for other labels). A minor of that size that is non-zero at one F, modulo p, is a non-zero
polynomial: it is non-zero for all F outside a proper algebraic subset, and C4 applies there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, combinations_with_replacement, permutations, product
from random import Random

from exan_verify.theorems.support.macaulay import Monomial, evaluation_rank, macaulay_rank, monomials

Polynomial = dict[Monomial, Fraction]

STATED = (
    ((0, 1), 2),
    ((0, 0), 2),
    ((0, 1), 3),
    ((0, 0), 3),
    ((0, 1), 4),
    ((0, 1, 2), 3),
    ((0, 0, 1), 3),
    ((0, 1, 2), 4),
    ((0, 0, 1), 4),
)
"""(class of each sample, K): the sizes for which the statement is claimed."""

MAX_DEGREE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Samples of these classes, K logits, and the labels of the second batch (in any order).

    ``antisymmetric``: the second logit is minus the first, where F is not generic.
    """

    classes: tuple[int, ...]
    logits: int
    others: tuple[int, ...]
    antisymmetric: bool = False

    @property
    def known(self) -> list[tuple[Fraction, ...]]:
        """The permutations that turn the labels into ``others``, as the free entries of Q (all but the last
        column); none when the labels differ.
        """
        size = len(self.classes)
        fitting = [o for o in permutations(range(size)) if tuple(self.classes[k] for k in o) == self.others]
        return [
            tuple(Fraction(order[a] == b) for a in range(size) for b in range(size - 1)) for order in fitting
        ]


def cases(classes: tuple[int, ...], logits: int) -> Iterator[Case]:
    """One case per multiset of one-hot labels; the samples' own labels in their own order."""
    for others in combinations_with_replacement(range(logits), len(classes)):
        same = Counter(others) == Counter(classes)
        yield Case(classes=classes, logits=logits, others=classes if same else others)


def settled(case: Case, seed: int = 0) -> int | None:
    """The degree at which C4 settles the case at a random F, or None."""
    size, known = len(case.classes), case.known
    variables = size * (size - 1)
    equations = output_system(case, _random_logits(case, seed))
    for degree in range(1, MAX_DEGREE + 1):
        columns = len(monomials(variables, degree))
        independent = evaluation_rank(known, degree - 1) == len(known)
        if independent and macaulay_rank(equations, variables, degree) == columns - len(known):
            return degree
    return None


def output_system(case: Case, logits: list[list[int]]) -> list[Polynomial]:
    """``Q^T (Q F - Y') = F - Y`` with Q 1 = 1 inserted, and its linear consequences (R4 b, c), in the
    entries of Q but the last column.
    """
    size, width = len(case.classes), case.logits
    entries = _entries(size)
    own = [[int(c == k) for k in range(width)] for c in case.classes]
    other = [[int(c == k) for k in range(width)] for c in case.others]
    mixed = [
        [_sum([_times(entries[b][c], logits[c][k]) for c in range(size)]) for k in range(width)]
        for b in range(size)
    ]
    moved = [[_sum([mixed[b][k]], -other[b][k]) for k in range(width)] for b in range(size)]
    found = []
    for a, k in product(range(size), range(width)):
        terms = [_product(entries[b][a], moved[b][k]) for b in range(size)]
        found.append(_sum(terms, own[a][k] - logits[a][k]))
    for k in range(width):  # R4 b: the sum over the rows
        constant = sum(own[a][k] - logits[a][k] for a in range(size))
        found.append(_sum([moved[b][k] for b in range(size)], constant))
    for j, k in combinations(range(width), 2):  # R4 c: F^T Q^T Q F is symmetric
        terms = [_times(mixed[b][k], other[b][j]) for b in range(size)]
        terms += [_times(mixed[b][j], -other[b][k]) for b in range(size)]
        constant = sum(own[a][k] * logits[a][j] - own[a][j] * logits[a][k] for a in range(size))
        found.append(_sum(terms, constant))
    one = (0,) * (size * (size - 1))
    return [{m or one: v for m, v in p.items()} for p in found if p]


def _random_logits(case: Case, seed: int) -> list[list[int]]:
    rng = Random(f"generic logits/{case.classes}/{case.logits}/{seed}")
    found = [[rng.randint(-(10**6), 10**6) for _ in range(case.logits)] for _ in case.classes]
    return [[row[0], -row[0], *row[2:]] for row in found] if case.antisymmetric else found


def _entries(size: int) -> list[list[Polynomial]]:
    """Q as polynomials in its entries but the last column: rows sum to one."""
    count = size * (size - 1)
    zero = (0,) * count
    rows: list[list[Polynomial]] = []
    for a in range(size):
        row: list[Polynomial] = []
        last: Polynomial = {zero: Fraction(1)}
        for b in range(size - 1):
            unit = tuple(int(i == a * (size - 1) + b) for i in range(count))
            row.append({unit: Fraction(1)})
            last[unit] = Fraction(-1)
        rows.append([*row, last])
    return rows


def _times(left: Polynomial, factor: int) -> Polynomial:
    return {m: v * factor for m, v in left.items() if v * factor}


def _product(left: Polynomial, right: Polynomial) -> Polynomial:
    out: Polynomial = {}
    for (m, v), (n, w) in product(left.items(), right.items()):
        key = tuple(a + b for a, b in zip(m, n, strict=True))
        out[key] = out.get(key, Fraction(0)) + v * w
    return {m: v for m, v in out.items() if v}


def _sum(terms: list[Polynomial], constant: int = 0) -> Polynomial:
    out: Polynomial = {}
    for term in terms:
        for m, v in term.items():
            out[m] = out.get(m, Fraction(0)) + v
    if constant:
        zero = (0,) * max((len(m) for m in out), default=0)
        out[zero] = out.get(zero, Fraction(0)) + constant
    return {m: v for m, v in out.items() if v}
