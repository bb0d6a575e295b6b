"""Laws of the SMT path: planted second batches are never denied, exact engines are never contradicted, and
a witness is always another batch with the same gradient.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify import certify
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.instances import FAMILIES, Instance, instance, iterate_suite
from tests.conftest import examples
from tests.support.cases import words
from tests.support.smt_cases import decide, decided

LOSSES = st.sampled_from(list(Loss))
SEEDS = st.integers(1000, 10**6)


@given(LOSSES, st.booleans(), SEEDS)
@examples(12)
def test_planted_twins_are_never_denied(loss: Loss, has_bias: bool, seed: int) -> None:
    case = instance("twin", loss, has_bias, seed)
    verdict = decided(case, work_limit=400_000)
    assert verdict.outcome in (Outcome.AMBIGUOUS, Outcome.UNKNOWN)
    check(case, verdict)


@given(st.sampled_from(sorted(FAMILIES)), st.sampled_from([Loss.MSE, Loss.HINGE]), st.booleans(), SEEDS)
@examples(8)
def test_the_gradient_of_a_batch_is_never_unrealisable(
    family: str, loss: Loss, has_bias: bool, seed: int
) -> None:
    case = instance(family, loss, has_bias, seed)
    gradient = exact_gradient(case.network, case.batch, case.loss, case.reduction)
    labels: Any = case.labels if case.labels.value == "real" else "one_hot"
    verdict = decide(
        case.network,
        gradient=gradient,
        batch_size=case.batch.size,
        loss=loss,
        reduction=case.reduction,
        labels=type(case.labels)(labels),
        domain=case.domain,
        work_limit=400_000,
    )
    assert verdict.outcome is not Outcome.UNREALISABLE


def check(case: Instance, verdict: Verdict) -> None:
    """A rational witness of a rational loss has the same gradient, and is another batch."""
    other = None if verdict.witness is None else verdict.witness.batch
    if other is None:
        return
    ours, theirs = (sorted(zip(b.x, b.y, strict=True)) for b in (case.batch, other))
    assert ours != theirs
    if case.loss.rational:
        pair = [exact_gradient(case.network, b, case.loss, case.reduction) for b in (case.batch, other)]
        assert pair[0] == pair[1]


def contradiction(left: Verdict, right: Verdict) -> bool:
    decided_both = Outcome.UNKNOWN not in (left.outcome, right.outcome)
    if decided_both and left.outcome is not right.outcome:
        return True
    opposite = {SampleStatus.DETERMINED, SampleStatus.FREE}
    return any({a, b} == opposite for a, b in zip(left.samples, right.samples, strict=False))


def compare(case: Instance, work: int | None, budget: float | None) -> str | None:
    ours = decided(case, work_limit=work, budget=budget)
    check(case, ours)
    theirs = certify(
        case.network,
        batch=case.batch,
        engine="exact",
        budget=10,
        **words(case),
    )
    if case.planted and ours.outcome is Outcome.UNIQUE:
        return f"{case.name}: a planted second batch is denied"
    if contradiction(ours, theirs):
        return f"{case.name}: smt {ours.outcome} {ours.samples}, exact {theirs.outcome} {theirs.samples}"
    return None


def test_exact_engines_are_not_contradicted_on_a_share_of_the_suite() -> None:
    cases = [case for k, case in enumerate(iterate_suite()) if k % 35 == 3]
    assert [found for case in cases if (found := compare(case, 150_000, None))] == []


@pytest.mark.campaign
def test_exact_engines_are_not_contradicted_on_the_suite() -> None:
    assert [found for case in iterate_suite() if (found := compare(case, None, 20.0))] == []
