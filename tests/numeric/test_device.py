"""The attack on an accelerator: simulated, so that tensors left on the CPU are found without one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exan_verify import attack
from exan_verify.core.question import Loss
from exan_verify.models import lenet, resnet, strided_cnn
from exan_verify.numeric.attack import METHODS
from tests.support.simulated_device import DeviceTensor, simulated_device
from tests.support.torch_reference import autograd, perceptron, uniform


def test_the_simulation_finds_what_an_accelerator_would_refuse():
    with simulated_device():
        there, here = torch.arange(4.0, device="meta"), torch.arange(4.0)
        assert (there * 2 + torch.tensor(1.0)).tolist() == [1, 3, 5, 7]
        assert there[torch.tensor([2, 0])].tolist() == there[[2, 0]].tolist() == [2, 0]
        assert bool((there.cpu() == here).all())
        assert float(there.sum()) == 6
        there[1:3] = 9
        assert there.tolist() == [0, 9, 9, 3]
        with pytest.raises(RuntimeError, match="mixes"):
            there + here
        with pytest.raises(RuntimeError, match="mixes"):
            there.gather(0, torch.tensor([0]))
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, generator=torch.Generator(), device="meta")
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()


def _taken(model: nn.Module, x: torch.Tensor, loss: Loss) -> dict[str, torch.Tensor]:
    y = torch.arange(len(x)) * 3 % 5
    hot = nn.functional.one_hot(y, 5).to(x)
    return autograd(model, x, hot if loss in (Loss.BCE, Loss.MSE) else y, loss)


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        # the same steps under every loss, and slow ones
        pytest.param(
            method, loss, marks=[pytest.mark.campaign] if method == "descend" and loss != "mse" else []
        )
        for method in ("auto", *METHODS)
        for loss in Loss
    ],
)
def test_every_method_computes_where_it_is_told_to(method: str, loss: Loss):
    model = perceptron(48, 96, 40, 5).double()
    # a descent has 40 starts and no promise: these are batches that it reaches
    gradient = _taken(model, uniform(4, 48, seed=2 if loss in (Loss.BCE, Loss.CROSS_ENTROPY) else 1), loss)
    here = attack(model, gradient, loss=loss.value, method=method, batch_size=4)
    with simulated_device():
        there = attack(model, gradient, loss=loss.value, method=method, batch_size=4, device="meta")
        assert isinstance(there.x, DeviceTensor)
        assert isinstance(there.y, DeviceTensor)
        # a descent ends where rounding ends it, and LAPACK rounds by where its numbers lie in memory
        apart = 1e-12 if method == "descend" else 0.0
        assert torch.allclose(there.x.cpu(), here.x, rtol=0.0, atol=apart)
        assert torch.allclose(there.y.cpu(), here.y, rtol=0.0, atol=apart)
    assert there.status == here.status or method == "descend"
    assert [one.tier for one in there.status] == [one.tier for one in here.status]
    assert there.reason == here.reason
    assert len(here.status) == 4 or method == "published"


@pytest.mark.parametrize(
    ("name", "shape"), [("strided", (3, 3, 8, 8)), ("lenet", (3, 1, 28, 28)), ("resnet", (1, 3, 16, 16))]
)
def test_convolutions_too(name: str, shape: tuple[int, ...]):
    model = {
        "strided": lambda: strided_cnn(image_size=8, widths=(40, 480), head=(96,)),
        "lenet": lambda: lenet(10, 28, seed=0),
        "resnet": lambda: resnet(10, 16, seed=0),
    }[name]().double()
    gradient = _taken(model, uniform(*shape), Loss.CROSS_ENTROPY)
    here = attack(model, gradient, input_shape=shape[1:], picture_iterations=3)
    with simulated_device():
        there = attack(model, gradient, input_shape=shape[1:], picture_iterations=3, device="meta")
        assert isinstance(there.features, DeviceTensor)
        assert isinstance(there.x, DeviceTensor)
        assert torch.equal(there.x.cpu(), here.x)
        assert torch.equal(there.features.cpu(), here.features)
        assert (there.estimates is None) == (here.estimates is None)
        if there.estimates is not None:
            assert torch.equal(there.estimates.cpu(), here.estimates)
    assert there.stages == here.stages
    assert there.feature_status == here.feature_status
