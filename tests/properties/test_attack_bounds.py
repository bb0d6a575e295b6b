"""No claimed sample is ever further from the truth than its reported bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from exan_verify.core.network import ReluNetwork
from exan_verify.errors import GradientError, RangeError
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.records import Attack
from tests.support.numeric_cases import drawn_batch, drawn_network

LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
    "bce": nn.functional.binary_cross_entropy_with_logits,
    "hinge": nn.functional.multi_margin_loss,
}
KINDS = ("plain", "copies", "near copies", "one region", "half dead", "trained", "scaled")
QUIET = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

Case = tuple[nn.Sequential, Tensor, Tensor, str, str, torch.dtype, bool]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A network, a batch and how its gradient is taken; many are hard on purpose."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    loss = draw(st.sampled_from(["cross_entropy", "cross_entropy", "mse", "bce", "hinge"]))
    classes = draw(
        st.sampled_from([2, 2, 3, 5, 10] if loss in ("cross_entropy", "hinge") else [1, 1, 2, 3, 10])
    )
    width = draw(st.sampled_from([16, 40, 100, 128]))
    depth = draw(st.integers(1, 4))
    features = draw(st.sampled_from([3, 8, 30]))
    samples = draw(st.integers(1, max(1, int((width / 2) ** 0.5))))
    model = drawn_network((features, *([width] * depth), classes), rng).float()
    x, y = drawn_batch(draw(st.sampled_from(["rand", "randn"])), samples, features, max(2, classes), rng)
    x = x.float()
    if loss in ("mse", "bce"):
        y = y[:, None].float() if classes == 1 else nn.functional.one_hot(y, classes).float()
    if loss == "mse" and draw(st.booleans()):
        y = torch.tensor(rng.normal(size=(samples, classes))).float()
    kind = draw(st.sampled_from(KINDS))
    x = _spoil(draw, rng, kind, model, x, y, LOSSES[loss])
    dtype = draw(st.sampled_from([torch.float64, torch.float64, torch.float32]))
    return (
        model,
        x,
        y,
        loss,
        draw(st.sampled_from(["mean", "sum"])),
        dtype,
        kind == "near copies" or draw(st.booleans()),
    )


def _spoil(
    draw: st.DrawFn,
    rng: np.random.Generator,
    kind: str,
    model: nn.Sequential,
    x: Tensor,
    y: Tensor,
    loss: Callable[..., Tensor],
) -> Tensor:
    first = model[0]
    assert isinstance(first, nn.Linear)
    if kind in ("copies", "near copies", "one region") and len(x) > 1:
        step = {"copies": 0.0, "near copies": 10 ** draw(st.floats(-9, -1)), "one region": 1e-3}[kind]
        close = min(len(x), 3) if kind == "one region" else 2
        x[1:close] = x[0] + step * torch.tensor(rng.normal(size=(close - 1, x.shape[1]))).float()
    elif kind == "half dead":
        first.bias.data -= draw(st.floats(0, 2))
    elif kind == "scaled":
        x[0] *= 10 ** draw(st.floats(-4, 2))
    elif kind == "trained":
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(draw(st.sampled_from([20, 100, 300]))):
            optimiser.zero_grad()
            loss(model(x), y).backward()
            optimiser.step()
    return x


def attacked(case: Case, method: str = "auto") -> Attack | None:
    """The attack on the case's gradient; None where it is refused (too few neurons, or all zero)."""
    model, x, y, loss, reduction, dtype, told = case
    exact = model.to(dtype)
    target = y if y.dtype == torch.long else y.to(dtype)
    value = LOSSES[loss](exact(x.to(dtype)), target, reduction=reduction)
    gradient = dict(
        zip(dict(exact.named_parameters()), torch.autograd.grad(value, list(exact.parameters())), strict=True)
    )
    linear = [part for part in exact if isinstance(part, nn.Linear)]
    network = ReluNetwork.from_arrays([part.weight for part in linear], [part.bias for part in linear])
    try:
        return run(
            network,
            gradient,
            loss=loss,
            reduction=reduction,
            labels=kind_of(y),
            method=method,
            batch_size=len(x) if told else None,
        )
    except (RangeError, GradientError):
        return None


def kind_of(y: Tensor) -> str:
    """Whether targets are labels of the loss's own kind."""
    return "one_hot" if bool(((y == 0) | (y == 1)).all()) or y.dtype == torch.long else "real"


def check_bounds(case: Case, found: Attack) -> None:
    _, x, y, *_ = case
    result = score(found.x, found.y, x, y)
    for sample in result.samples:
        bound = found.status[sample.index].error_bound
        assert sample.largest <= bound, f"off by {sample.largest:.1e}, bound {bound:.1e}"
        assert np.isfinite(bound)
    assert found.complete <= (len(found.x) == found.batch_size)
    assert len(result.samples) == len(found.x)


@given(cases())
@settings(QUIET, max_examples=150)
def test_bounds_hold(case: Case):
    found = attacked(case)
    if found is not None:
        check_bounds(case, found)


@pytest.mark.campaign
@given(cases())
@settings(QUIET, max_examples=3000, derandomize=False)
def test_bounds_hold_campaign(case: Case):
    found = attacked(case)
    if found is not None:
        check_bounds(case, found)


METHODS = ("auto", "auto", "lift", "assign", "peel", "peel+lift", "sample", "published")


def largest_share(seeds: range, dtype: torch.dtype) -> tuple[float, int]:
    """The largest ratio of error to bound, L-infinity or L2, over claims in all losses, by all methods, with
    one logit and with more; and the number of claims."""
    worst, claims = 0.0, 0
    for seed in seeds:
        rng = np.random.default_rng([seed, 5])
        loss = list(LOSSES)[seed % 4]
        vectors = loss in ("mse", "bce")
        classes = int(rng.choice([1, 1, 2, 10] if vectors else [2, 3, 10]))
        features, width, depth = (int(rng.choice(n)) for n in ((4, 8, 30), (60, 120), (1, 1, 2)))
        model = drawn_network((features, *([width] * depth), classes), rng)
        samples = int(rng.integers(1, min(7, features) + 1))
        x, y = drawn_batch(str(rng.choice(["rand", "randn"])), samples, features, max(2, classes), rng)
        x = x * 10.0 ** float(rng.integers(-1, 2))
        if vectors:
            y = y[:, None].double() if classes == 1 else nn.functional.one_hot(y, classes).double()
        method, reduction = str(rng.choice(METHODS)), str(rng.choice(["sum", "mean"]))
        found = attacked((model, x, y, loss, reduction, dtype, True), method)
        if found is None or not len(found.x):
            continue
        # what the gradient was made with
        apart = found.x[:, None] - x.to(dtype).double()
        nearest = apart.abs().amax(dim=2).argmin(dim=1)
        errors = apart[torch.arange(len(nearest)), nearest]
        for error, status in zip(errors, found.status, strict=True):
            entry, norm = float(error.abs().max()), float(error.norm())
            worst = max(worst, entry / status.error_bound, norm / status.error_norm)
        claims += len(found.x)
    return worst, claims


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bounds_have_room(dtype: torch.dtype):
    # without the roundings that leave the span of the deltas, seeds of one logit exceed a half
    worst, claims = largest_share(range(40), dtype)
    assert claims > 60
    assert worst < 0.75


@pytest.mark.campaign
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_bounds_have_room_campaign(dtype: torch.dtype):
    worst, claims = largest_share(range(1000, 4600), dtype)
    assert claims > 10_000
    assert worst < 0.75


@pytest.mark.parametrize("seed", [552, 697])
def test_the_bound_of_one_logit_counts_the_roundings_of_the_deltas(seed: int):
    """With one logit a pattern allows one direction: roundings are all that can take a delta off it. Of the
    first seeds these show them most; without them the bounds are reached (0.98) or exceeded (1.15)."""
    rng = np.random.default_rng(seed)
    model = drawn_network((8, 120, 1), rng)
    x, y = drawn_batch("randn", 6, 8, 2, rng)
    found = attacked((model, x, y[:, None].double(), "bce", "sum", torch.float64, True))
    assert found is not None
    errors = torch.cdist(found.x, x, p=torch.inf).amin(dim=1)
    bounds = torch.tensor([status.error_bound for status in found.status])
    assert len(errors) == 6
    assert float((errors / bounds).max()) < 0.5


@given(st.integers(0, 2**31), st.sampled_from(["cross_entropy", "bce", "mse"]), st.integers(1, 6))
@settings(QUIET, max_examples=25)
def test_ordinary_batches_are_recovered_whole(seed: int, loss: str, samples: int):
    # the law above would hold for an attack that claims nothing
    rng = np.random.default_rng(seed)
    model = drawn_network((30, 160, 6), rng).float()
    x, y = drawn_batch("randn", samples, 30, 6, rng)
    case = (
        model,
        x.float(),
        y if loss == "cross_entropy" else nn.functional.one_hot(y, 6).float(),
    )
    found = attacked((*case, loss, "mean", torch.float64, False))
    assert found is not None
    assert found.complete, found.reason
    assert max(s.error_bound for s in found.status) < 1e-8
    assert score(found.x, found.y, case[1], case[2]).label_accuracy == 1.0
