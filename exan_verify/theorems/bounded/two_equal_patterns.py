"""P2 for two samples, one logit, no exclusive neuron: the shear of S2 as an identity in all weights.

A 2-2-1 network with all weights, biases, inputs, targets and the step t symbolic. Without an exclusive neuron
both samples have one pattern; one file per pattern. With g_m = f_m - y_m (mse, up to a factor), alpha =
(g_2, -g_1) and v orthogonal to the logit's slope, the moved batch has the same gradient wherever it has the
same pattern.
"""

from __future__ import annotations

from functools import partial
from itertools import product

from exan_verify.theorems.bounded.obligation import (
    Obligation,
    add,
    all_of,
    any_of,
    equal,
    mul,
    negation,
    script,
    sub,
)

Pattern = tuple[int, int]


def obligations() -> list[Obligation]:
    """One identity per common pattern, and one companion: the moved batch is another one somewhere."""
    found = [
        Obligation(
            name=f"p2-two-samples-one-logit-{a}{b}",
            label="P2",
            says=f"2-2-1, mse, all weights: both samples and the moved ones have pattern {a}{b} (1: "
            f"active); the "
            "moved batch has the same gradient and the same targets.",
            expected="unsat",
            body=partial(_body, (a, b)),
            tactic="qfnra-nlsat",
        )
        for a, b in product((0, 1), repeat=2)
    ]
    companion = Obligation(
        name="p2-two-samples-one-logit-hypotheses",
        label="P2",
        says="Companion: with pattern 11, pre-activations not zero, the moved batch can differ from the "
        "first as a set.",
        expected="sat",
        body=_companion,
        tactic="qfnra-nlsat",
    )
    return [*found, companion]


_REALS = (
    [f"w{j}{i}" for j in (1, 2) for i in (1, 2)]
    + ["b1", "b2", "v1", "v2", "c", "t", "y1", "y2"]
    + [f"x{m}{i}" for m in (1, 2) for i in (1, 2)]
)


def _pre(j: int, point: tuple[str, str]) -> str:
    return add(mul(f"w{j}1", point[0]), mul(f"w{j}2", point[1]), f"b{j}")


def _residual(pattern: Pattern, m: int, point: tuple[str, str]) -> str:
    terms = [mul(f"v{j}", _pre(j, point)) for j in (1, 2) if pattern[j - 1]]
    return sub(add(*terms, "c"), f"y{m}")


def _points() -> list[tuple[str, str]]:
    return [("x11", "x12"), ("x21", "x22")]


def _slope(pattern: Pattern) -> tuple[str, str]:
    parts = [add(*(mul(f"v{j}", f"w{j}{i}") for j in (1, 2) if pattern[j - 1])) for i in (1, 2)]
    return parts[0], parts[1]


def _moved(pattern: Pattern) -> list[tuple[str, str]]:
    """x_1 + t g_2 n and x_2 - t g_1 n, with n = (-a_2, a_1) for the slope a."""
    first, second = _points()
    slope = _slope(pattern)
    normal = (mul("(- 1.0)", slope[1]), slope[0])
    g1, g2 = _residual(pattern, 1, first), _residual(pattern, 2, second)
    return [
        (add(first[0], mul("t", g2, normal[0])), add(first[1], mul("t", g2, normal[1]))),
        (sub(second[0], mul("t", g1, normal[0])), sub(second[1], mul("t", g1, normal[1]))),
    ]


def _gradient(pattern: Pattern, points: list[tuple[str, str]]) -> list[str]:
    """All entries of the gradient (times 1/2): output bias and weights, then layer one."""
    g = [_residual(pattern, m + 1, point) for m, point in enumerate(points)]
    entries = [add(*g)]
    for j in (1, 2):
        if not pattern[j - 1]:
            continue
        entries.append(add(*(mul(g[m], _pre(j, points[m])) for m in (0, 1))))
        entries.append(mul(f"v{j}", add(*g)))
        entries += [mul(f"v{j}", add(*(mul(g[m], points[m][i]) for m in (0, 1)))) for i in (0, 1)]
    return entries


def _body(pattern: Pattern) -> str:
    before, after = (_gradient(pattern, points) for points in (_points(), _moved(pattern)))
    signs = _signs(pattern, [*_points(), *_moved(pattern)])
    differs = [negation(equal(a, b)) for a, b in zip(before, after, strict=True)]
    return script(_REALS, [*signs, any_of(differs)])


def _signs(pattern: Pattern, points: list[tuple[str, str]]) -> list[str]:
    return [f"({'>' if pattern[j - 1] else '<'} {_pre(j, p)} 0.0)" for j in (1, 2) for p in points]


def _companion() -> str:
    first, second = _points()
    moved = _moved((1, 1))[0]
    stays = any_of([all_of([equal(moved[i], point[i]) for i in (0, 1)]) for point in (first, second)])
    return script(_REALS, [*_signs((1, 1), [first, second, *_moved((1, 1))]), negation(stays)])
