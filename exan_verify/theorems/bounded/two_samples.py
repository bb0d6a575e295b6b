"""S5 for two samples of one region under mse: every F at once, and the sign conditions.

The output system of two samples (docs/theory.md R2, R5): Q = [[1 - a, a], [b, 1 - b]] invertible with
Q^T (Q F - Y) = F - Y. The order of the second batch is free, so its labels may be taken in the first's order.
"""

from __future__ import annotations

from collections.abc import Callable

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


def obligations() -> list[Obligation]:
    """Different and equal one-hot labels, K = 2 and 3, each with its companion."""
    found = []
    for classes in (2, 3):
        for labels, shape in (((0, 1), "1-1"), ((0, 0), "2")):
            name = f"s5-two-samples-counts-{shape}-k{classes}"
            condition = "e is not parallel to y_2 - y_1" if shape == "1-1" else "e is not zero"
            found.append(
                Obligation(
                    name=name,
                    label="S5",
                    says=f"For all logits F (2 x {classes}) of two samples with one-hot labels "
                    f"{labels}, with "
                    f"e = f_2 - f_1: if {condition}, only permutations that fix the labels solve "
                    "Q^T (Q F - Y) = F - Y with Q 1 = 1 and Q invertible.",
                    expected="unsat",
                    body=_body(classes, labels, excluded=True),
                    tactic="qfnra-nlsat" if shape == "2" else "smt",
                )
            )
            found.append(
                Obligation(
                    name=f"{name}-hypotheses",
                    label="S5",
                    says=f"Companion of {name}: the hypotheses alone can be met.",
                    expected="sat",
                    body=_body(classes, labels, excluded=False),
                )
            )
    return [*found, _parallel()]


def _parallel() -> Obligation:
    return Obligation(
        name="s5-two-samples-parallel-k2",
        label="S5",
        says="With e parallel to y_2 - y_1 there is another solution: the exception is real.",
        expected="sat",
        body=lambda: script(
            [*_REALS, *_logits(2)],
            [*_system(2, (0, 1)), negation(_fixes_labels((0, 1))), equal(_minor(0, 1, (0, 1)))],
        ),
    )


_REALS = ["a", "b"]


def _body(classes: int, labels: tuple[int, int], *, excluded: bool) -> Callable[[], str]:
    def body() -> str:
        minors = [negation(equal(m)) for m in _conditions(classes, labels)]
        assertions = [*_system(classes, labels), any_of(minors)]
        if excluded:
            assertions.append(negation(_fixes_labels(labels)))
        return script([*_REALS, *_logits(classes)], assertions)

    return body


def _logits(classes: int) -> list[str]:
    return [f"f{m}_{k}" for m in (1, 2) for k in range(classes)]


def _system(classes: int, labels: tuple[int, int]) -> list[str]:
    rows = ((sub("1.0", "a"), "a"), ("b", sub("1.0", "b")))
    found = [negation(equal(add("a", "b"), "1.0"))]
    for k in range(classes):
        targets = [number(int(label == k)) for label in labels]
        moved = [
            sub(add(mul(row[0], f"f1_{k}"), mul(row[1], f"f2_{k}")), target)
            for row, target in zip(rows, targets, strict=True)
        ]
        for m in (0, 1):
            own = sub(f"f{m + 1}_{k}", targets[m])
            found.append(equal(add(mul(rows[0][m], moved[0]), mul(rows[1][m], moved[1])), own))
    return found


def _fixes_labels(labels: tuple[int, int]) -> str:
    """Q is the identity, or, for equal labels, the exchange."""
    still = all_of([equal("a"), equal("b")])
    exchange = all_of([equal("a", "1.0"), equal("b", "1.0")])
    return still if labels[0] != labels[1] else any_of([still, exchange])


def _conditions(classes: int, labels: tuple[int, int]) -> list[str]:
    """Terms of which one is not zero: minors of (e, y_2 - y_1), or the entries of e for equal labels."""
    if labels[0] == labels[1]:
        return [sub(f"f2_{k}", f"f1_{k}") for k in range(classes)]
    return [_minor(k, c, labels) for k in range(classes) for c in range(k + 1, classes)]


def _minor(k: int, c: int, labels: tuple[int, int]) -> str:
    step = [number(int(labels[1] == j) - int(labels[0] == j)) for j in (k, c)]
    return sub(mul(sub(f"f2_{k}", f"f1_{k}"), step[1]), mul(sub(f"f2_{c}", f"f1_{c}"), step[0]))
