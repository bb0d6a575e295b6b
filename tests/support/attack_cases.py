"""Attacks on gradients of known batches, and what every answer of theirs has to satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.errors import GradientError, RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.problem import Problem, build_problem
from exan_verify.numeric.problem.records import Attack, Finding
from exan_verify.numeric.problem.spectrum import ColumnSpace, column_space
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import FUNCTIONS, autograd, gradient

LOSSES = ("cross_entropy", "mse", "bce", "hinge")
KINDS = ("plain", "copies", "near copies", "one region", "half dead", "trained", "scaled")

Case = tuple[nn.Sequential, Tensor, Tensor, str, str, torch.dtype, bool]
"""Model, inputs, targets, loss, reduction, the gradient's dtype, and whether the batch size is told."""


def attacked(
    network: ReluNetwork,
    batch: Batch,
    loss: Loss = Loss.CROSS_ENTROPY,
    reduction: Reduction = Reduction.MEAN,
    dtype: type = np.float64,
    **options: object,
) -> Attack:
    given = {n: g.astype(dtype) for n, g in gradient(network, batch, loss, reduction).items()}
    return run(network, given, loss=loss.value, reduction=reduction.value, **options)  # type: ignore[arg-type]


def assert_nothing(found: Attack, *said: str) -> None:
    """No sample is claimed, and the reason says so much."""
    assert len(found.x) == 0
    for part in said:
        assert part in found.reason


def problem_of(
    network: ReluNetwork,
    batch: Batch,
    loss: Loss = Loss.CROSS_ENTROPY,
    reduction: Reduction = Reduction.MEAN,
    dtype: type = np.float64,
    **options: Any,
) -> Problem:
    """What methods are asked about the batch's gradient."""
    given = {n: g.astype(dtype) for n, g in gradient(network, batch, loss, reduction).items()}
    return build_problem(network, given, loss=loss.value, reduction=reduction.value, **options)


def spaces_of(problem: Problem, most: int) -> tuple[ColumnSpace, ...]:
    """The column space of every layer, up to the rank ``most``."""
    return tuple(
        column_space(layer, unit_roundoff=problem.unit_roundoff, most=most, generator=problem.generator())
        for layer in problem.layers
    )


def proposed(x: Tensor, rest: Tensor, **more: Any) -> Finding:
    """Candidates ``x`` and the directions ``rest`` that are left, as if a method had found them."""
    fields = {"method": "proposed", "rest_sine": 1.0, "layer": 1, "layers": (), "reason": ""} | more
    return Finding(x=x, rest=rest, **fields)


def largest_excess(found: Attack, batch: Batch) -> float:
    """The largest ratio of true error to reported bound over the claimed samples."""
    truth = torch.tensor(batch.inputs.astype(np.float64))
    result = score(found.x, found.y, truth, torch.tensor(np.array(batch.labels)))
    assert len(result.samples) == len(found.status)
    return max((s.largest / found.status[s.index].error_bound for s in result.samples), default=0.0)


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
    x = spoiled(draw, rng, kind, model, x, y, loss)
    dtype = draw(st.sampled_from([torch.float64, torch.float64, torch.float32]))
    reduction = draw(st.sampled_from(["mean", "sum"]))
    return model, x, y, loss, reduction, dtype, kind == "near copies" or draw(st.booleans())


def spoiled(
    draw: st.DrawFn,
    rng: np.random.Generator,
    kind: str,
    model: nn.Sequential,
    x: Tensor,
    y: Tensor,
    loss: str,
) -> Tensor:
    """The inputs made hard to attack in one of the ways ``KINDS``; two of these change the model."""
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
            FUNCTIONS[Loss(loss)](model(x), y).backward()
            optimiser.step()
    return x


def attack_case(case: Case, kept: Sequence[bool] | None = None, **options: object) -> Attack | None:
    """The attack on the case's gradient, or on the ``kept`` tensors of it; None where it is refused (too few
    neurons, all zero, nothing that says enough)."""
    model, x, y, loss, reduction, dtype, told = case
    given = autograd(model, x.to(dtype), y, loss, reduction)
    if kept is not None:
        given = {name: g for (name, g), keep in zip(given.items(), kept, strict=False) if keep}
    size = len(x) if told else None
    options = {"labels": kind_of(y), "batch_size": size, "partial": kept is not None, **options}
    try:
        return run(to_network(model), given, loss=loss, reduction=reduction, **options)  # type: ignore[arg-type]
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
