"""Steps of networks whose BatchNorm uses the statistics of the batch, against torch in training mode."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify import attack
from exan_verify.core.question import Loss
from exan_verify.errors import InputError, UnsupportedLayerError
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import FUNCTIONS


def network(rng: np.random.Generator, *widths: int) -> nn.Sequential:
    """Linear, BatchNorm1d, ReLU and further layers in training mode, numbers from ``rng``."""
    first, relu, *rest = drawn_network(widths, rng)
    norm = nn.BatchNorm1d(widths[1]).double()
    norm.weight.data = torch.tensor(rng.uniform(0.5, 2, widths[1]))
    norm.bias.data = torch.tensor(rng.normal(size=widths[1]) / 4)
    norm.running_mean.copy_(torch.tensor(rng.normal(size=widths[1])))
    norm.running_var.copy_(torch.tensor(rng.uniform(0.5, 2, widths[1])))
    return nn.Sequential(first, norm, relu, *rest).train()


def step(
    model: nn.Module, x: Tensor, y: Tensor, loss: str = "cross_entropy", reduction: str = "mean"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradient of a step in training mode, and the buffers after it; the model's stay."""
    client = copy.deepcopy(model)
    FUNCTIONS[Loss(loss)](client(x), y, reduction=reduction).backward()
    return {n: p.grad for n, p in client.named_parameters()}, dict(client.named_buffers())


def drawn(
    seed: int, *widths: int, samples: int = 4, loss: str = "cross_entropy"
) -> tuple[Any, Tensor, Tensor]:
    rng = np.random.default_rng([seed, 51])
    model = network(rng, *widths)
    return model, *drawn_batch("rand", samples, widths[0], widths[-1], rng, loss)


@pytest.mark.parametrize(
    ("loss", "reduction", "widths"),
    [
        ("cross_entropy", "mean", (12, 150, 5)),
        ("cross_entropy", "sum", (12, 150, 30, 5)),
        ("mse", "mean", (12, 150, 5)),
        ("bce", "mean", (12, 150, 5)),
        ("hinge", "sum", (12, 150, 5)),
    ],
)
def test_samples_come_back_with_their_mean(loss: str, reduction: str, widths: tuple[int, ...]):
    complete = 0
    for seed in range(4):
        model, x, y = drawn(seed, *widths, loss=loss)
        gradient, after = step(model, x, y, loss, reduction)
        found = attack(model, gradient, loss=loss, reduction=reduction, buffers_after=after)
        assert found.count("confirmed") == 0
        for one, label, status in zip(found.x, found.y, found.status, strict=True):
            away = (x - one).abs().amax(dim=1)
            assert float(away.min()) <= status.error_bound < 1e-6
            assert torch.equal(label.double(), y[int(away.argmin())].double())
        complete += found.complete
    assert complete >= (2 if loss == "hinge" else 3)


def test_behind_a_narrow_layer_the_mean_is_hidden_and_the_rest_is_not():
    for seed in range(3):
        model, x, y = drawn(seed, 200, 130, 5)
        gradient, after = step(model, x, y)
        found = attack(model, gradient, buffers_after=after)
        assert not len(found.x)
        assert found.centred is not None
        assert found.centred.mean_rank == 130
        away = torch.cdist(x - x.mean(dim=0), found.centred.values).amin(dim=1)
        assert float(away.max()) < 1e-9
        w = model[0].weight.detach()
        assert float((w @ (found.centred.mean - x.mean(dim=0))).abs().max()) < 1e-9
        assert "70 are hidden" in found.reason


def test_every_mean_has_the_same_gradient():
    """Why no more than centred samples can come from the gradient itself."""
    model, x, y = drawn(1, 12, 40, 5)
    shifted = x + torch.linspace(-3, 3, 12)
    for one, other in zip(step(model, x, y)[0].values(), step(model, shifted, y)[0].values(), strict=True):
        assert float((one - other).abs().max()) < 1e-12


def test_without_statistics_it_is_said_what_the_gradient_tells():
    model, x, y = drawn(2, 12, 150, 5)
    gradient, _ = step(model, x, y)
    found = attack(model, gradient, buffers=dict(model.named_buffers()))
    assert found.status == ()
    assert found.batch_size == 4
    assert found.last_layer is not None
    assert set(found.last_layer.present) <= set(y.tolist())
    assert "give the running statistics after the step" in found.reason


def test_statistics_of_another_step_are_not_believed():
    for seed in range(3):
        model, x, y = drawn(seed, 12, 150, 5)
        gradient, _ = step(model, x, y)
        _, other = step(model, x + torch.tensor(np.random.default_rng(seed).normal(size=x.shape)) / 100, y)
        found = attack(model, gradient, buffers_after=other)
        assert found.status == ()
        assert found.centred is None
        assert found.reason


def test_a_running_mean_that_no_mean_of_the_batch_has_is_not_believed():
    def spoiled(mean: Tensor, kind: str, rng: np.random.Generator) -> Tensor:
        if kind == "zero":
            return torch.zeros_like(mean)
        if kind == "permuted":
            return mean[torch.tensor(rng.permutation(len(mean)))]
        return mean + 10 ** float(rng.uniform(-9, 1)) * torch.tensor(rng.normal(size=mean.shape))

    for seed in range(9):
        rng = np.random.default_rng([seed, 52])
        model, x, y = drawn(seed, 12, 150, 5)
        gradient, after = step(model, x, y)
        other = spoiled(after["1.running_mean"], ("zero", "permuted", "noise")[seed % 3], rng)
        found = attack(model, gradient, buffers_after={**after, "1.running_mean": other})
        assert found.status == ()
        # the samples less their mean do not rest on it
        assert found.centred is not None
        assert found.centred.mean_rank == 0
        assert len(found.centred.values) == 4
        assert "no mean of the batch gives the running mean" in found.reason
        for one in found.candidates:
            assert float((x - one.x).abs().amax(dim=1).min()) <= one.error_estimate


@pytest.mark.parametrize("buffers", [torch.float32, torch.float64])
def test_samples_come_back_from_float32(buffers: torch.dtype):
    complete = 0
    for seed in range(6):
        model, x, y = drawn(seed, 12, 200, 5)
        # of the float64 gradient with buffers that were saved in float32, else all in float32
        dtype = torch.float32 if buffers == torch.float64 else torch.float64
        model, x, y = model.to(dtype), x.to(dtype), y.to(dtype) if y.is_floating_point() else y
        gradient, after = step(model, x, y)
        after = {name: b.to(torch.float32) if b.is_floating_point() else b for name, b in after.items()}
        found = attack(model, gradient, buffers_after=after)
        for one, status in zip(found.x, found.status, strict=True):
            assert float((x.double() - one).abs().amax(dim=1).min()) <= status.error_bound < 1e-3
        complete += found.complete
    assert complete >= 5


def test_an_update_is_read_by_its_rate():
    for seed, told in enumerate(({"scale": -0.05}, {"lr": 0.05})):
        model, x, y = drawn(seed, 12, 150, 5)
        gradient, after = step(model, x, y)
        update = {name: -0.05 * g for name, g in gradient.items()}
        found = attack(model, update, buffers_after=after, **told)
        assert found.complete
        assert float(torch.cdist(x, found.x).amin(dim=1).max()) < 1e-9


def test_noise_is_never_found_beyond_its_bound():
    complete = 0
    for seed, size in enumerate((1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3)):
        rng = np.random.default_rng(seed)
        model, x, y = drawn(seed, 12, 200, 5)
        gradient, after = step(model, x, y)
        noisy = {
            n: g + size * g.square().mean().sqrt() * torch.tensor(rng.normal(size=g.shape))
            for n, g in gradient.items()
        }
        found = attack(model, noisy, buffers_after=after)
        for one, status in zip(found.x, found.status, strict=True):
            assert float((x - one).abs().amax(dim=1).min()) <= status.error_bound
        complete += found.complete
    assert complete >= 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffers_after": {}}, "the buffers have no '1.running_mean'"),
        ({"buffers_after": 3}, "buffers_after=3 cannot be used"),
        ({"buffers_after": {"1.running_mean": torch.zeros(3)}}, "'1.running_mean' is not 60 finite numbers"),
        ({"buffers": {}, "labels": "real"}, "labels='real' does not go with the statistics of a batch"),
        ({"buffers": {}, "local_steps": 2, "lr": 0.1}, "leave local steps out"),
        ({"buffers": {}, "scale": "unknown"}, "scale='unknown' does not go with the statistics of a batch"),
        ({"buffers": {}, "scale": 0.0}, "scale=0.0 is not a factor"),
    ],
)
def test_bad_buffers_are_named(options: dict[str, Any], message: str):
    model, x, y = drawn(0, 12, 60, 5)
    gradient, _ = step(model, x, y)
    with pytest.raises(InputError, match=message):
        attack(model, gradient, **options)


@pytest.mark.parametrize(("momentum", "counted"), [(0.0, 1), (None, 0)])
def test_statistics_that_do_not_move_are_named(momentum: float | None, counted: int):
    model, x, y = drawn(0, 12, 60, 5)
    model[1].momentum = momentum
    gradient, after = step(model, x, y)
    after["1.num_batches_tracked"] = torch.tensor(counted)
    with pytest.raises(InputError, match="do not move; they say nothing of the batch"):
        attack(model, gradient, buffers_after=after)


def test_buffers_that_the_model_already_has_are_named():
    model, x, y = drawn(0, 12, 150, 5)
    gradient, after = step(model, x, y)
    before = {name: b.clone() for name, b in model.named_buffers()}
    model.load_state_dict({**model.state_dict(), **after})
    with pytest.raises(InputError, match="the model's own; give those before the step as buffers"):
        attack(model, gradient, buffers_after=after)
    assert attack(model, gradient, buffers=before, buffers_after=after).complete
    with pytest.raises(UnsupportedLayerError, match="buffers_after"):
        attack(model, gradient)


def test_other_models_are_refused_by_what_is_in_the_way():
    model, x, y = drawn(0, 12, 60, 5)
    gradient, after = step(model, x, y)
    for other, told in (
        (nn.Sequential(model[0], nn.ReLU(), model[3]), "'1' .ReLU. is in the way"),
        (nn.Sequential(model[0], model[1]), "ends too early"),
        (model[0], "a Linear is none of these"),
    ):
        with pytest.raises(UnsupportedLayerError, match=told):
            attack(other, gradient, buffers_after=after)
