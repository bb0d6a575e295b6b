"""Second batches of irrational numbers, found by Newton's method and admitted by the kernel alone (R9)."""

from __future__ import annotations

import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.instances import tiny_question
from tests.stored import without_times
from tests.support.certificate_cases import assert_rejected, plain


def ambiguous(loss: Loss, number: int):
    case = tiny_question(loss, number)
    verdict = certify(case, engine="residual", work_limit=4_000_000)
    return case, verdict, plain(verdict.certificate)


@pytest.mark.parametrize(
    ("loss", "number", "why"),
    [
        (Loss.CROSS_ENTROPY, 40, "one sample stands on the boundary of its region, and moves inwards"),
        (Loss.CROSS_ENTROPY, 7, "one sample of three grows, which stands in a region with another"),
        (Loss.BCE, 80, "three samples of one feature, two of them on a curve"),
    ],
)
def test_second_batches_that_no_linear_family_holds(loss, number, why):
    case, verdict, certificate = ambiguous(loss, number)
    assert verdict.outcome is Outcome.AMBIGUOUS, why
    assert {part["type"] for part in certificate["evidence"]} == {"enclosed_batch"}
    assert verdict.samples.count(SampleStatus.FREE) >= 1
    assert check(certificate, case.network, batch=case.batch).outcome is Outcome.AMBIGUOUS


def forged(certificate, **changes):
    (part,) = certificate["evidence"]
    return certificate | {"evidence": [part | changes]}


def test_a_sample_cancels_only_where_nothing_of_it_differs():
    """The sample that both batches have is left out of the equations; one with another label, or a little
    elsewhere, is not, and then there are more equations than coordinates.
    """
    case, _, certificate = ambiguous(Loss.CROSS_ENTROPY, 40)
    (part,) = certificate["evidence"]
    varying = {m for m, _ in part["free"]}
    (common,) = [m for m in range(3) if m not in varying]
    moved = [list(row) for row in part["inputs"]]
    moved[common][0] = f"{moved[common][0]}1"  # -5/2 becomes -5/21
    labels = [list(row) for row in part["labels"]]
    labels[common] = ["0" if labels[common] == ["1"] else "1"]
    for changes in ({"inputs": moved}, {"labels": labels}, {"radius": "1"}, {"free": part["free"][:-1]}):
        assert_rejected(forged(certificate, **changes), case.network, batch=case.batch)


def test_both_batches_have_a_common_sample_only_once():
    """Two places of the box with the same sample cancel one sample of the batch, not two."""
    case, _, certificate = ambiguous(Loss.CROSS_ENTROPY, 40)
    (part,) = certificate["evidence"]
    varying = sorted({m for m, _ in part["free"]})
    (common,) = [m for m in range(3) if m not in varying]
    inputs, labels = list(part["inputs"]), list(part["labels"])
    inputs[varying[0]], labels[varying[0]] = inputs[common], labels[common]
    free = [place for place in part["free"] if place[0] != varying[0]]
    unequal = forged(certificate, inputs=inputs, labels=labels, free=free)
    assert_rejected(unequal, case.network, batch=case.batch)


@pytest.mark.parametrize("number", [3, 17, 25])
def test_the_search_is_the_same_again(number):
    case = tiny_question(Loss.BCE, number)
    first, second = (certify(case, engine="residual", work_limit=1_000_000, seed=5) for _ in range(2))
    assert first.outcome is second.outcome
    assert without_times(first.certificate) == without_times(second.certificate)
