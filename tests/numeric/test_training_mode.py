"""Gradients taken in training mode of a model that is attacked in eval mode: what tells, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exan_verify import attack
from tests.support.numeric_cases import drawn_batch, drawn_network


def taken(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("off", [0.1, 0.3, 0.5])
def test_neurons_that_dropout_switched_off_are_seen_and_the_inputs_shown(off: float):
    seen = 0
    for seed in range(20):
        rng = np.random.default_rng([seed, 95])
        loss = ("cross_entropy", "bce", "mse")[seed % 3]
        model = drawn_network((12, 90, 4), rng)
        x, y = drawn_batch("randn", 3, 12, 4, rng)
        target = y if loss == "cross_entropy" else functional.one_hot(y, 4).double()
        function = {
            "cross_entropy": functional.cross_entropy,
            "bce": functional.binary_cross_entropy_with_logits,
            "mse": functional.mse_loss,
        }[loss]
        given = taken(model, function(model(x), target))
        plain = attack(model, given, loss=loss, method="lift", batch_size=3)
        assert "Dropout" not in plain.hint
        mask = torch.tensor(rng.random((3, 90)) >= off).double() / (1 - off)
        given = taken(model, function(model[2](model[:2](x) * mask), target))
        found = attack(model, given, loss=loss, method="lift", batch_size=3)
        assert not found.status
        if "Dropout is on" not in found.hint:
            continue
        seen += 1
        shown = torch.stack([one.x for one in found.candidates])
        assert float((shown[None] - x[:, None]).abs().amax(dim=2).amin(dim=1).max()) < 1e-9
    assert seen >= 16


def normalised(rng: np.random.Generator) -> nn.Sequential:
    """A convolution with BatchNorm and a head, numbers from ``rng``."""
    conv, norm = nn.Conv2d(1, 9, 3, bias=bool(rng.integers(2))), nn.BatchNorm2d(9)
    model = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), drawn_network((144, 60, 4), rng)).double()
    for parameter in (*conv.parameters(), norm.bias):
        parameter.data = torch.tensor(rng.uniform(-1, 1, tuple(parameter.shape))) / 2
    norm.weight.data = torch.tensor(rng.uniform(0.5, 2, 9))
    norm.running_mean.data, norm.running_var.data = (
        torch.tensor(rng.normal(size=9) / 4),
        torch.tensor(rng.uniform(0.2, 1, 9)),
    )
    return model


def test_statistics_of_the_batch_are_seen_in_the_weights_before_batch_norm():
    for seed in range(20):
        rng = np.random.default_rng([seed, 96])
        model = normalised(rng).eval()
        x, y = torch.tensor(rng.random((3, 1, 6, 6))), torch.tensor(rng.integers(4, size=3))
        for training in (True, False):
            model.train(training)
            # an eval-mode model, whose statistics the training step has not moved
            model[1].momentum = 0.0
            given = taken(model, functional.cross_entropy(model(x), y))
            model.eval()
            found = attack(model, given, batch_size=3, picture_iterations=0)
            assert ("BatchNorm uses the statistics of the batch" in found.hint) == training
            assert training or found.features_complete
