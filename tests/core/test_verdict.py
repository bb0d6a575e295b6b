from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from exan_verify.core.budget import Budget
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss
from exan_verify.core.verdict import Outcome, SampleStatus, Trust, Verdict
from exan_verify.errors import InputError


def small_batch(x):
    network = ReluNetwork.from_arrays([[[1, 1]], [[1]]], [[0], [0]])
    return Batch.of(x, [[0]] * len(x), network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)


def test_box_contains_is_exact_and_closed():
    assert Box(0, 1).contains(small_batch([[0, 1], [0.5, 1]]))
    assert not Box(0, 1).contains(small_batch([[0, np.nextafter(1, 2)]]))
    assert Box([0, -1], [1, 5]).contains(small_batch([[1, 5]]))


def test_boxes_are_equal_by_value():
    box, same, other = Box([0, 1], 2), Box(np.array([0.0, 1.0]), Fraction(2)), Box([0, 0], 2)
    assert (box == same, box == other) == (True, False)
    assert len({box, same, other}) == 2


def test_box_refuses_bad_bounds():
    with pytest.raises(InputError, match="lo is greater"):
        Box(1, 0)
    with pytest.raises(InputError, match="NaN"):
        Box(0, float("nan"))
    with pytest.raises(InputError, match=r"Box.lo has shape \(3,\)"):
        Box([0, 0, 0], 1).bounds(2)


def test_work_budget_is_deterministic():
    budget = Budget(work=10)
    budget.spend(10)
    assert budget.exhausted is None
    budget.spend(1)
    assert "10 units" in budget.exhausted


def test_budgets_must_be_positive():
    with pytest.raises(InputError, match="budget=0"):
        Budget(seconds=0)
    with pytest.raises(InputError, match="work_limit=-1"):
        Budget(work=-1)


@pytest.mark.parametrize("trust", [t for t in Trust if t is not Trust.CERTIFIED])
def test_what_a_certificate_shows_of_an_answer_without_one_is_told(trust):
    verdict = Verdict(outcome=Outcome.UNIQUE, samples=(), reason="", batch_size=2, trust=trust)
    assert verdict.rests_on == trust.value
    for outcome, samples, shown in (
        ("unknown", ("unknown", "unknown"), ""),
        ("unknown", ("unknown", "determined"), "; certified are samples 1"),
        ("unique", ("determined", "determined"), "; certified are the outcome unique and samples 0, 1"),
    ):
        claim = {"outcome": outcome, "samples": samples}
        assert replace(verdict, certificate={"claim": claim}).rests_on == trust.value + shown


def test_determined_counts_leaks():
    verdict = Verdict(
        outcome=Outcome.UNKNOWN,
        samples=(SampleStatus.DETERMINED, SampleStatus.UNKNOWN, SampleStatus.DETERMINED),
        reason="",
        batch_size=3,
    )
    assert verdict.determined == 2
