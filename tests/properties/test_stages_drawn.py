"""Drawn networks of every kind of stage, and of neurons with slopes: exact passes, verdicts, certificates."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from exan_verify import Outcome, certify, check
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Batch, PiecewiseNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import InputError
from exan_verify.exact.backprop import gradient
from exan_verify.exact.pictures import forward_stages
from exan_verify.models.pictures.staged import to_staged
from exan_verify.testing import batches, networks, staged_networks
from exan_verify.testing.strategies import STAGES
from tests.conftest import examples
from tests.support.staged_cases import staged_gradient, torch_gradient
from tests.support.torch_reference import autograd, initialised

DRAWING = settings(examples(12), phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])


@DRAWING
@given(st.data())
def test_exact_gradients_of_all_stages_are_autograds(data: st.DataObject):
    network = data.draw(staged_networks())
    batch = data.draw(batches(network, Loss.MSE, max_samples=2))
    features, known = torch_gradient(network, batch)
    exact = forward_stages(network, batch).values[-1].T.fractions().astype(float)
    assert np.abs(exact - features).max() <= 1e-12 * max(1.0, np.abs(features).max())
    if network.pooled:
        return
    found = staged_gradient(network, batch)
    assert found.keys() == known.keys()
    scale = max(1.0, *(np.abs(value).max() for value in known.values()))
    for name, value in known.items():
        assert np.abs(found[name].astype(float) - value).max() <= 1e-12 * scale, name


def test_verdicts_on_all_stages_are_accepted_and_twins_are_never_unique():
    seen: Counter[str] = Counter()

    @DRAWING
    @given(staged_networks(hidden=24), st.data())
    def judged(network, data) -> None:
        batch = data.draw(batches(network, Loss.CROSS_ENTROPY, samples=2, generic=True))
        verdict = certify(network, batch=batch)
        seen[verdict.outcome.value] += 1
        if verdict.certificate is not None:
            claim = check(json.dumps(verdict.certificate), network, batch=batch)
            assert (claim.outcome, claim.samples) == (verdict.outcome, verdict.samples)
        twins = certify(network, batch=batch.select([0, 0]))
        assert twins.outcome is not Outcome.UNIQUE
        assert SampleStatus.DETERMINED not in twins.samples

    judged()
    assert seen["ambiguous"] + seen["unknown"] > 0


def normalised(seed: int) -> nn.Module:
    """BatchNorm in eval mode, with its own numbers, on either side of convolutions, in a sum, in the head."""
    rng = np.random.default_rng(seed)

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.after = nn.Conv2d(2, 4, 2, groups=2, bias=False), nn.BatchNorm2d(4)
            self.before, self.wide = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, dilation=(1, 2))
            self.one, self.two = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
            self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(4)])
            self.flat, self.head = nn.BatchNorm1d(8), nn.Linear(8, 6)
            self.top, self.last = nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.wide(self.before(self.after(self.stem(x)).relu())).relu()
            inner = self.norms[1](self.two(self.norms[0](self.one(h)).relu()))
            return self.last(self.top(self.head(self.flat((inner + h).relu().flatten(1)))).relu())

    made = initialised(Norm().double(), seed).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            shape = module.weight.shape
            module.running_mean.copy_(torch.from_numpy(rng.normal(0, 0.3, shape)))
            module.running_var.copy_(torch.from_numpy(rng.uniform(0.5, 2, shape)))
            module.weight.data = torch.from_numpy(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_exact_gradients_below_norms_are_autograds(seed: int):
    """Of the folded network, and by the formulas of docs/theory.md the norms' own."""
    model = normalised(seed)
    network = to_staged(model, (2, 4, 4))
    rng = np.random.default_rng(seed + 9)
    x, y = rng.normal(size=(2, 2, 4, 4)), np.eye(3)[[0, 2]]
    batch = Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.REAL)
    known = autograd(model, torch.tensor(x), torch.tensor(y), "mse", "sum")
    found = {name: value.astype(float) for name, value in staged_gradient(network, batch).items()}
    own = {name: p.detach().numpy() for name, p in model.named_parameters()}

    def after(norm: str, layer: str) -> None:
        module = model.get_submodule(norm)
        root = 1 / np.sqrt(module.running_var.numpy() + module.eps)
        mean, factor = module.running_mean.numpy(), own[f"{norm}.weight"] * root
        weight, bias = own[f"{layer}.weight"], own.get(f"{layer}.bias", np.zeros(len(factor)))
        d_weight, d_bias = found[f"{layer}.weight"], found[f"{layer}.bias"]
        rows = (weight * d_weight).reshape(len(factor), -1).sum(axis=1)
        wanted[f"{norm}.weight"], wanted[f"{norm}.bias"] = root * (rows + (bias - mean) * d_bias), d_bias
        wanted[f"{layer}.weight"] = d_weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        wanted[f"{layer}.bias"] = factor * d_bias

    def before(norm: str, layer: str) -> None:
        module = model.get_submodule(norm)
        root = 1 / np.sqrt(module.running_var.numpy() + module.eps)
        mean, weight, d_bias = module.running_mean.numpy(), own[f"{layer}.weight"], found[f"{layer}.bias"]
        factor = own[f"{norm}.weight"] * root
        d_weight = wanted.get(f"{layer}.weight", found[f"{layer}.weight"])
        others = tuple(k for k in range(weight.ndim) if k != 1)
        wide = (1, -1, *[1] * (weight.ndim - 2))
        above = (np.moveaxis(weight, 1, 0).reshape(len(mean), len(d_bias), -1).sum(axis=2)) @ d_bias
        columns = (weight * d_weight).sum(axis=others)
        wanted[f"{norm}.weight"], wanted[f"{norm}.bias"] = root * (columns - mean * above), above
        shift = (own[f"{norm}.bias"] - factor * mean).reshape(wide)
        spread = d_bias.reshape(-1, *[1] * (weight.ndim - 1)) * shift
        wanted[f"{layer}.weight"] = d_weight * factor.reshape(wide) + spread
        wanted[f"{layer}.bias"] = d_bias

    wanted: dict[str, np.ndarray] = {}
    for name in ("last.weight", "last.bias"):
        wanted[name] = found[name]
    after("after", "stem"), before("before", "wide")
    after("norms.0", "one"), after("norms.1", "two")
    for name, value in wanted.items():
        if name != "stem.bias":  # which the layer has not: beta is its bias
            scale = np.abs(known[name].numpy()).max()
            assert np.abs(value - known[name].numpy()).max() <= 1e-12 * scale, name


def test_exact_gradients_with_slopes_are_autograds():
    @DRAWING
    @given(networks(slopes=(0.01, -0.5, 3), max_width=5, max_depth=3), st.data())
    def judged(network, data) -> None:
        assert isinstance(network, PiecewiseNetwork)
        batch = data.draw(batches(network, Loss.MSE))
        found = gradient(network, batch, Loss.MSE, Reduction.SUM).tensors
        tensors = {n: torch.tensor(a.astype(float)).requires_grad_(True) for n, a in network.parameters()}
        h = torch.tensor(batch.inputs.astype(float))
        for k, layer in enumerate(network.layers):
            h = torch.nn.functional.linear(h, *(tensors[name] for name, _ in layer.parameters()))
            if (k + 1) < network.depth:
                slope = torch.tensor(network.activation(k + 1).slope.astype(float))
                h = torch.where(h > 0, h, h * slope)
        ((h - torch.tensor(batch.labels.astype(float))) ** 2).sum().backward()
        scale = max(1.0, *(t.grad.abs().max().item() for t in tensors.values()))
        for name, tensor in tensors.items():
            assert np.abs(found[name].astype(float) - tensor.grad.numpy()).max() <= 1e-12 * scale, name

    judged()


def test_arguments_are_checked():
    for wrong in ((), (1,), (float("nan"),), ("a",), 0.5):
        with pytest.raises(InputError, match="slopes"):
            networks(slopes=wrong)
    for wrong in ((), "sum", ("pool",)):
        with pytest.raises(InputError, match="stages"):
            staged_networks(stages=wrong)
    assert set(STAGES) >= {"sum", "groups"}
    assert Fraction(1, 2) in fractions(np.array([0.5]))
