"""The public attack: any supported model, checked input, and claims that hold against the truth."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Gradient, ReluNetwork, attack
from exan_verify.cli.attack import attack_command
from exan_verify.errors import ExanError, GradientError, InputError, NonFiniteError, UnsupportedLayerError
from exan_verify.numeric.attack import METHODS
from tests.support.torch_reference import autograd, initialised, uniform

LOSSES = {"cross_entropy": nn.functional.cross_entropy, "mse": nn.functional.mse_loss}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(20, 120), nn.Linear(120, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(x.flatten(1))))


def given(
    loss: str = "cross_entropy", reduction: str = "mean", samples: int = 4
) -> tuple[nn.Module, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    model = initialised(Small(), 1).double()
    x, y = uniform(samples, 4, 5, seed=1), torch.arange(samples) % 5
    target = nn.functional.one_hot(y, 5).double() if loss == "mse" else y
    return model, autograd(model, x, target, loss, reduction), x.flatten(1), target


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_batch_comes_back_within_the_claimed_bounds(loss: str, reduction: str):
    model, gradient, x, y = given(loss, reduction)
    found = attack(model, gradient, loss=loss, reduction=reduction)
    assert found.complete
    assert found.x.shape == x.shape
    distance = torch.cdist(found.x, x, p=torch.inf)
    match = distance.argmin(1)
    assert sorted(match.tolist()) == [0, 1, 2, 3]
    assert torch.allclose(found.y.to(y.dtype), y[match])
    for m, status in enumerate(found.status):
        assert distance[m, match[m]] <= status.error_bound < 1e-6
    assert found.gradient_residual < 1e-9


def test_a_network_and_a_gradient_record_do_as_well():
    model, gradient, x, _ = given()
    network = ReluNetwork.from_arrays(
        [model.body.weight, model.head.weight], [model.body.bias, model.head.bias], names=["body", "head"]
    )
    found = attack(network, Gradient(tensors=gradient), batch_size=4)
    assert np.allclose(sorted(found.x[:, 0].tolist()), sorted(x[:, 0].tolist()), atol=1e-8)


def test_progress_is_told():
    model, gradient, _, _ = given()
    told: list[tuple[str, float]] = []
    attack(model, gradient, progress=lambda what, share: told.append((what, share)))
    assert told[-1][1] == 1.0
    assert [share for _, share in told] == sorted(share for _, share in told)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"loss": "nll"}, InputError, "loss='nll' is not known; use one of 'cross_entropy'"),
        ({"reduction": "none"}, InputError, "reduction='none'"),
        ({"method": "magic"}, InputError, "method='magic'"),
        ({"batch_size": 0}, InputError, "batch_size=0"),
        ({"device": "toaster"}, InputError, "device='toaster' cannot be used"),
        ({"device": "cuda:99"}, InputError, "device='cuda:99' cannot be used"),
    ],
)
def test_options_that_cannot_be_are_named(change: dict, kind: type[ExanError], message: str):
    model, gradient, _, _ = given()
    with pytest.raises(kind, match=message):
        attack(model, gradient, **change)


def test_gradients_that_do_not_fit_are_named():
    model, gradient, _, _ = given()
    wrong = {
        "body.weight": gradient["body.weight"].T,
        "extra": torch.ones(1),
        "head.weight": gradient["head.weight"],
    }
    with pytest.raises(GradientError, match="4 problems") as caught:
        attack(model, wrong)
    for culprit in (
        "'body.bias' of shape (120,) is missing",
        "'head.bias'",
        "'extra' belongs to no",
        "(20, 120)",
    ):
        assert culprit in str(caught.value)
    with pytest.raises(GradientError, match="every entry of the gradient is zero"):
        attack(model, {name: torch.zeros_like(value) for name, value in gradient.items()})
    with pytest.raises(NonFiniteError, match=r"'head\.bias'"):
        attack(model, gradient | {"head.bias": torch.full((5,), torch.nan)})
    with pytest.raises(UnsupportedLayerError, match="Tanh"):
        attack(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), gradient)


def test_every_method_is_named_where_a_user_looks_for_it():
    page = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text(encoding="utf-8")
    option = next(p for p in attack_command.params if p.name == "method")
    for name in METHODS:
        assert f"``{name}``" in (attack.__doc__ or "")
        assert re.search(rf"\b{re.escape(name)}(?![\w+])", option.help)
        assert re.search(rf"^\|.*`{re.escape(name)}`.*\|", page, re.MULTILINE)
