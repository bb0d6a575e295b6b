"""With any tensors missing, no claimed input or feature is off by more than its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.records import Attack
from tests.conftest import examples
from tests.support.attack_cases import Case, attack_case, cases


@st.composite
def keys(draw: st.DrawFn) -> list[bool]:
    """Which tensors are given: bits, read from the first one; at least one is."""
    return draw(st.lists(st.booleans(), min_size=10, max_size=10).filter(any))


def check(case: Case, found: Attack) -> None:
    model, x, y, *_ = case
    _within(found.x, found.y, [s.error_bound for s in found.status], x, y)
    if found.hidden is not None:
        truth = model.double()[: 2 * found.hidden.layer](x.double()).detach()
        bounds = [s.error_bound for s in found.hidden.status]
        _within(found.hidden.values, found.hidden.labels, bounds, truth, y)


def _within(values: Tensor, labels: Tensor, bounds: list[float], truth: Tensor, y: Tensor) -> None:
    result = score(values, labels, truth, y)
    assert len(result.samples) == len(values)
    for sample in result.samples:
        assert sample.largest <= bounds[sample.index], (sample.largest, bounds[sample.index])


@given(cases(), keys())
@examples(16)
def test_bounds_hold_whatever_is_missing(case: Case, bits: list[bool]):
    found = attack_case(case, bits)
    if found is not None:
        check(case, found)
