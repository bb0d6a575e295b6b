"""Constraints of an encoding at points that a weaker or stronger constraint would treat otherwise."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from exan_verify.core.question import Loss, Question
from exan_verify.smt.question import losses
from exan_verify.smt.question.terms import Formula, Poly
from tests.support.smt_cases import holds


class Collected:
    """What an encoder is told: unknowns and assertions."""

    def __init__(self) -> None:
        self.asserted: list[Formula] = []

    def real(self, name: str) -> Poly:
        return Poly.variable(name)

    def require(self, formula: Formula, _: str) -> None:
        self.asserted.append(formula)


def encoded(loss: Loss, targets: list[int]) -> tuple[Collected, Any]:
    collected: Any = Collected()
    sample: Any = SimpleNamespace(
        index=0,
        logits=tuple(Poly.variable(f"f{k}") for k in range(len(targets))),
        y=tuple(map(Poly.constant, targets)),
        vector=(),
        probabilities=(),
    )
    posed: Any = SimpleNamespace(question=Question(loss=loss), divisor=2, alphabet=None)
    losses.encode_vector(collected, posed, sample)
    return collected, sample


@pytest.mark.parametrize(
    ("first", "second", "admitted"),
    [
        ("1/2", "1/3", True),
        ("1", "1/3", False),
        ("3/2", "1/3", False),
        ("1/2", "0", False),
        ("1/2", "-1", False),
    ],
)
def test_probabilities_of_bce_lie_strictly_between_zero_and_one(
    first: str, second: str, admitted: bool
) -> None:
    collected, sample = encoded(Loss.BCE, [1, 0])
    point = {"p_s0_c0": Fraction(first), "p_s0_c1": Fraction(second)}
    assert all(holds(formula, point, {}) for formula in collected.asserted) is admitted
    values = [entry.at(point) for entry in sample.vector]
    assert values == [(Fraction(first) - 1) / 2, Fraction(second) / 2]


def test_probabilities_of_softmax_are_positive_and_add_up_to_one() -> None:
    collected, sample = encoded(Loss.CROSS_ENTROPY, [0, 1, 0])
    for first, second, admitted in (("1/2", "1/3", True), ("1/2", "1/2", False), ("0", "1/2", False)):
        point = {"p_s0_c0": Fraction(first), "p_s0_c1": Fraction(second)}
        assert all(holds(formula, point, {}) for formula in collected.asserted) is admitted
        assert sum(p.at(point) for p in sample.probabilities) == 1
        assert sample.vector[1].at(point) == (Fraction(second) - 1) / 2


def test_a_real_target_is_what_its_loss_vector_makes_it() -> None:
    collected, sample = encoded(Loss.MSE, [0, 0])
    assert not collected.asserted
    point = {"f0": Fraction(3), "f1": Fraction(-1), "g_s0_0": Fraction(5), "g_s0_1": Fraction(7)}
    scale = Fraction(2, 2)
    for logit, vector, target in zip(sample.logits, sample.vector, sample.y, strict=True):
        assert vector.at(point) == scale * (logit.at(point) - target.at(point))
