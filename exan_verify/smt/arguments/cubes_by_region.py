"""Cubes from regions: which joint patterns can have the gradient at all, by exact linear algebra.

Without biases the gradient has no linear equation, and the list of cubes that a linear query gives is long.
Here the regions of a single input are listed by exact linear programs, and of their multisets those whose
contributions can sum to the gradient (:meth:`.regions.Regions.unreachable`): every entry that is not zero
needs a sample that is active at both of its ends. Labels are added last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement, product
from math import comb

from exan_verify.core.arrays import PerLayer
from exan_verify.core.budget import poll
from exan_verify.core.question import Loss
from exan_verify.exact.lp import Program, Status, solve
from exan_verify.exact.regions import Pattern, region_of
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.question.posed import Posed

MAX_REGIONS = 200
"""Regions of one input: 10 to 30 ms of linear programs each, in networks of six hidden neurons."""

MAX_MULTISETS = 20_000
"""Multisets of M regions that are looked at: 0.3 to 0.6 ms each. 200 regions have as many pairs."""

MAX_LISTED = 5_000
"""Cubes with labels: every one becomes a task with a polynomial system of its own."""


def list_by_regions(posed: Posed) -> list[list[bool]] | None:
    """All cubes that can hold a batch, as bits in the order of their literals; None where this is not for the
    question (biases, hinge, real labels, a tolerance, other activations than ReLU) or there are too many.
    """
    if (
        posed.relu is None
        or posed.network.has_bias
        or posed.question.loss is Loss.HINGE
        or posed.alphabet is None
    ):
        return None
    if posed.question.tolerance is not None:
        return None
    patterns = feasible_patterns(posed)
    if patterns is None or comb(len(patterns) + posed.size - 1, posed.size) > MAX_MULTISETS:
        return None
    regions = Regions(posed=posed)
    cubes: list[list[bool]] = []
    needed = [
        (i, j, k) for i in range(1, posed.network.depth + 1) for j, k in posed.target.nonzero_weights(i, None)
    ]
    served = {p: frozenset(n for n, place in enumerate(needed) if _serves(p, *place)) for p in patterns}
    for chosen in combinations_with_replacement(patterns, posed.size):
        poll()
        support = list(dict.fromkeys(chosen))
        if len(frozenset().union(*(served[p] for p in support))) < len(needed):
            continue
        if not regions.unreachable(support):
            cubes += _labelled(posed, chosen)
        if len(cubes) > MAX_LISTED:
            return None
    return cubes


def _serves(pattern: Pattern, i: int, j: int, k: int) -> bool:
    """Whether both ends of entry (j, k) of dW_i are active (or no hidden neurons)."""
    hidden = PerLayer(pattern)
    upper = i > len(hidden) or hidden.at(i)[j]
    lower = i == 1 or hidden.at(i - 1)[k]
    return bool(upper and lower)


def feasible_patterns(posed: Posed) -> list[Pattern] | None:
    """The joint patterns that some input of the domain has; None if there are more than MAX_REGIONS."""
    widths = posed.network.widths[1:-1]
    found: list[tuple[bool, ...]] = [()]
    for _ in range(sum(widths)):
        found = [
            (*bits, state)
            for bits in found
            for state in (False, True)
            if _feasible(posed, (*bits, state), widths)
        ]
        if len(found) > MAX_REGIONS:
            return None
    return [_shaped(bits, widths) for bits in found]


def _feasible(posed: Posed, bits: Sequence[bool], widths: Sequence[int]) -> bool:
    """Whether some input has these states of the first neurons (the others do not matter)."""
    poll()
    padded = _shaped((*bits, *[False] * (sum(widths) - len(bits))), widths)
    assert posed.relu is not None
    states = region_of(posed.relu, padded, zero_sum=False).states[: len(bits)]
    rows, bounds = [], []
    for row, on in zip(states, bits, strict=True):
        side = -1 if on else 1
        rows.append([*(side * v for v in row[:-1]), Fraction(on)])
        bounds.append(-side * row[-1])
    size = posed.network.widths[0]
    for k, (low, high) in enumerate(posed.bounds or ()):
        rows += [_unit(k, size, -1), _unit(k, size, 1)]
        bounds += [-low, high]
    rows.append(_unit(size, size, 1))
    bounds.append(Fraction(1))
    answer = solve(Program.of(_unit(size, size, 1), rows=rows, bounds=bounds))
    if answer.status is Status.INFEASIBLE:
        return False
    assert answer.value is not None
    return answer.value > 0 or not any(bits)


def _unit(k: int, size: int, sign: int) -> list[Fraction]:
    return [Fraction(sign * (i == k)) for i in range(size + 1)]


def _shaped(bits: Sequence[bool], widths: Sequence[int]) -> Pattern:
    flat = iter(bits)
    return tuple(tuple(next(flat) for _ in range(width)) for width in widths)


def _labelled(posed: Posed, patterns: Sequence[Pattern]) -> Iterator[list[bool]]:
    """The cubes of a multiset of regions, samples in the order that the encoding asks for."""
    assert posed.alphabet is not None
    letters = range(len(posed.alphabet))
    seen = set()
    for labels in product(letters, repeat=len(patterns)):
        poll()
        if posed.counts is not None and tuple(labels.count(c) for c in letters) != posed.counts:
            continue
        rows = []
        for pattern, label in zip(patterns, labels, strict=True):
            chosen = [c == label for c in letters] if len(letters) > 1 else []
            rows.append((*(bit for layer in pattern for bit in layer), *chosen))
        cube = tuple(sorted(rows))
        if cube not in seen:
            seen.add(cube)
            yield [bit for row in cube for bit in row]
