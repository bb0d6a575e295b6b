"""S5 for three samples of one region under mse: one F each, all admitted one-hot labels of the second batch.

Q^T (Q F - Y') = F - Y with Q 1 = 1, Q invertible, Y' any one-hot labels. The genericity of the answer in F is
not the solvers' business: :mod:`exan_verify.theorems.bounded.generic_counts` shows it by exact ranks.
"""

from __future__ import annotations

from functools import partial
from itertools import permutations, product

from exan_verify.theorems.bounded.obligation import (
    Obligation,
    add,
    all_of,
    any_of,
    equal,
    mul,
    negation,
    number,
    script,
    sub,
)

LOGITS = ((2, -1, 3), (-4, 5, 1), (1, 2, -6))
"""F (3 x 3): small integers in general position."""

COUNTS = {"1-1-1": (0, 1, 2), "2-1": (0, 0, 1)}


def obligations() -> list[Obligation]:
    """Counts (1, 1, 1) and (2, 1), each with its companion."""
    found = []
    for shape, labels in COUNTS.items():
        name = f"s5-three-samples-counts-{shape}"
        found += [
            Obligation(
                name=name,
                label="S5",
                says=f"F = {LOGITS}, one-hot labels {labels}: only permutations that fix the labels solve "
                "Q^T (Q F - Y') = F - Y with Q 1 = 1, for all one-hot Y'.",
                expected="unsat",
                body=partial(_body, labels, excluded=True),
            ),
            Obligation(
                name=f"{name}-hypotheses",
                label="S5",
                says=f"Companion of {name}: the permutations are solutions.",
                expected="sat",
                body=partial(_body, labels, excluded=False),
            ),
        ]
    return found


def _body(labels: tuple[int, ...], *, excluded: bool) -> str:
    reals = [*(f"q{a}{b}" for a, b in product(range(3), repeat=2)), *(f"y{a}{k}" for a, k in _PAIRS)]
    assertions = [equal(add(*(f"q{a}{b}" for b in range(3))), "1.0") for a in range(3)]
    assertions += [any_of([_is_class(a, k) for k in range(3)]) for a in range(3)]
    for a, k in _PAIRS:
        moved = [
            sub(add(*(mul(number(LOGITS[c][k]), f"q{b}{c}") for c in range(3))), f"y{b}{k}") for b in range(3)
        ]
        own = number(LOGITS[a][k] - int(labels[a] == k))
        assertions.append(equal(add(*(mul(f"q{b}{a}", moved[b]) for b in range(3))), own))
    if excluded:
        assertions += [negation(_is_permutation(order)) for order in permutations(range(3))]
    return script(reals, assertions)


_PAIRS = list(product(range(3), repeat=2))


def _is_class(sample: int, chosen: int) -> str:
    return all_of([equal(f"y{sample}{k}", number(int(k == chosen))) for k in range(3)])


def _is_permutation(order: tuple[int, ...]) -> str:
    return all_of([equal(f"q{a}{b}", number(int(order[a] == b))) for a, b in _PAIRS])
