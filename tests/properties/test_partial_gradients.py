"""With any tensors missing, no claimed input or feature is off by more than its bound."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from exan_verify.core.network import ReluNetwork
from exan_verify.errors import GradientError, RangeError
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.records import Attack
from tests.properties.test_attack_bounds import LOSSES, QUIET, Case, cases, kind_of


@st.composite
def keys(draw: st.DrawFn) -> list[bool]:
    """Which tensors are given: bits, read from the first one; at least one is."""
    return draw(st.lists(st.booleans(), min_size=10, max_size=10).filter(any))


def attacked(case: Case, bits: list[bool]) -> Attack | None:
    """The attack on the given tensors; None where they are refused."""
    model, x, y, loss, reduction, dtype, told = case
    exact = model.to(dtype)
    target = y if y.dtype == torch.long else y.to(dtype)
    value = LOSSES[loss](exact(x.to(dtype)), target, reduction=reduction)
    names, parameters = zip(*exact.named_parameters(), strict=True)
    slopes = torch.autograd.grad(value, parameters)
    gradient = {n: g for n, g, bit in zip(names, slopes, bits, strict=False) if bit}
    linear = [part for part in exact if isinstance(part, nn.Linear)]
    network = ReluNetwork.from_arrays([part.weight for part in linear], [part.bias for part in linear])
    size = len(x) if told else None
    try:
        return run(
            network,
            gradient,
            loss=loss,
            reduction=reduction,
            labels=kind_of(y),
            batch_size=size,
            partial=True,
        )
    except (RangeError, GradientError):
        return None


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
@settings(QUIET, max_examples=60)
def test_bounds_hold_whatever_is_missing(case: Case, bits: list[bool]):
    found = attacked(case, bits)
    if found is not None:
        check(case, found)


@pytest.mark.campaign
@given(cases(), keys())
@settings(QUIET, max_examples=2000, derandomize=False)
def test_bounds_hold_whatever_is_missing_campaign(case: Case, bits: list[bool]):
    found = attacked(case, bits)
    if found is not None:
        check(case, found)
