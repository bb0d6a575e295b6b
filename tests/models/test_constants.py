"""Constant shifts and scales beside Linear layers are folded exactly, or refused with what to do."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exan_verify import Release, attack, audit, certify, check, mitigate, project_inputs
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import GradientError, InputError, UnsupportedLayerError
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.models.chain import to_network
from exan_verify.models.gradients import of_folded, received
from tests.support.torch_reference import autograd, initialised

D = 12


class Normalised(nn.Module):
    """Shifts and scales before, between and after the layers, one of which is functional."""

    def __init__(self, rng: np.random.Generator, hidden: int = 60) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(rng.normal(size=(1, 3, 1, 1))))
        self.register_buffer("std", torch.from_numpy(rng.uniform(0.2, 0.4, size=(3, 1, 1))))
        self.register_buffer("gain", torch.from_numpy(rng.choice([-1.5, 0.3, 2.0], size=hidden)))
        self.register_buffer("offset", torch.from_numpy(rng.normal(size=(1, hidden))))
        self.weight = nn.Parameter(torch.from_numpy(rng.normal(size=(hidden, D))))
        self.shift = nn.Parameter(torch.from_numpy(rng.normal(size=hidden)))
        self.head = nn.Linear(hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = 1 - ((x - self.mean) / self.std).mul(0.5)
        z = functional.linear(x.flatten(1), self.weight, self.shift)
        h = (self.gain * z + self.offset).clamp(min=0)
        return torch.sub(-self.head(torch.add(h * 0.25, 1.5)), 0.1) / 3


def drawn(seed: int, samples: int = 3) -> tuple[nn.Module, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    model = initialised(Normalised(rng).double(), seed)
    return model, torch.from_numpy(rng.uniform(size=(samples, 3, 2, 2))), torch.arange(samples) % 4


def forward(network: ReluNetwork, x: np.ndarray) -> np.ndarray:
    """Logits in Fractions, as the records define them."""
    h = fractions(x.reshape(len(x), -1))
    for k, layer in enumerate(network.layers):
        h = (np.maximum(h, 0) if k else h) @ fractions(layer.weight).T
        h = h if layer.bias is None else h + fractions(layer.bias)
    return h


@pytest.mark.parametrize("seed", range(4))
def test_the_function_and_its_gradients_are_the_models(seed: int):
    model, x, y = drawn(seed)
    network = to_network(model)
    assert [name for name, _ in network.parameters()] == ["weight", "shift", "head.weight", "head.bias"]
    assert np.allclose(forward(network, x.numpy()).astype(float), model(x).detach().numpy(), atol=1e-12)
    assert len(network.notes) == 2
    assert "'sub'" in network.notes[0]
    assert "line" in network.notes[0]
    own = received(autograd(model, x, y), model)
    batch = Batch.of(x, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    logits = forward(network, x.numpy()).astype(float)
    delta = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(4)[batch.labels]
    hidden = np.maximum(forward(ReluNetwork(layers=network.layers[:1]), x.numpy()), 0).astype(float)
    below = (delta @ np.asarray(network.layers[1].weight, dtype=float)) * (hidden > 0)
    expected = {
        "weight": below.T @ x.numpy().reshape(3, -1) / 3,
        "shift": below.sum(0) / 3,
        "head.weight": delta.T @ hidden / 3,
        "head.bias": delta.sum(0) / 3,
    }
    for found in (of_folded(own, network, exact=True), of_folded(own, network, exact=False)):
        for name, value in expected.items():
            assert np.allclose(found.tensors[name].astype(float), value, atol=1e-12), name


def test_the_folding_is_exact():
    """Against rationals computed with the constants where they stand, of the stored doubles."""
    model, x, _ = drawn(3)
    q = lambda t: fractions(t.detach().numpy())  # noqa: E731
    pixels = (q(x) - q(model.mean)) / q(model.std)
    u = (1 - pixels * Fraction(1, 2)).reshape(len(x), -1)
    h = np.maximum(q(model.gain) * (u @ q(model.weight).T + q(model.shift)) + q(model.offset), 0)
    h = h * Fraction(1, 4) + Fraction(3, 2)
    z = (-(h @ q(model.head.weight).T + q(model.head.bias)) - Fraction(0.1)) / 3
    assert np.array_equal(forward(to_network(model), x.numpy()), z)


def test_powers_of_two_leave_floats():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).float()
    scaled = scaled_by(model, lambda x: x / 256 * 2)
    network = to_network(scaled)
    assert network.layers[0].weight.dtype == np.float64
    assert np.array_equal(network.layers[0].weight, model[0].weight.detach().double().numpy() / 128)
    tiny = scaled_by(model, lambda x: x * 2.0**-1070)
    assert (
        forward(to_network(tiny), np.ones((1, 4)))[0, 0] == forward(to_network(tiny), np.ones((1, 4)))[0, 0]
    )
    assert to_network(tiny).layers[0].weight.dtype == object  # float64 would round them


def scaled_by(model: nn.Module, before: Any, after: Any = lambda x: x) -> nn.Module:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return after(self.model(before(x)))

    return Scaled()


def test_certify_check_audit_and_attack_speak_of_the_inputs_themselves():
    model, x, y = drawn(0)
    verdict = certify(model, batch=(x, y))
    assert verdict.outcome == "unique"
    assert verdict.notes == to_network(model).notes
    assert check(verdict.certificate, model, batch=(x, y)).outcome == "unique"
    gradient = autograd(model, x, y)
    found = attack(model, gradient)
    assert found.complete
    assert to_network(model).notes == found.notes
    flat = x.reshape(3, -1).numpy()
    order = [int(np.abs(flat - row).max(1).argmin()) for row in found.x.numpy()]
    assert np.abs(found.x.numpy() - flat[order]).max() < 1e-9
    seen = audit(model, (x, y), attack=True)
    assert seen.attack is not None
    assert seen.attack.found.complete


def test_a_given_gradient_is_that_of_the_models_own_parameters():
    """Exactly: the gradient of the folded network, undone by the definition of a fold."""
    model, x, y = drawn(1, samples=2)
    network = to_network(model)
    batch = Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    folded = exact_gradient(network, batch, Loss.MSE, Reduction.MEAN)
    own = dict(folded.tensors)
    for layer in network.layers:
        (weight, _), (bias, _) = layer.parameters()
        fold, dw, db = layer.fold, fractions(folded.tensors[weight]), fractions(folded.tensors[bias])
        assert fold is not None
        own[weight] = fold.gain[:, None] * (dw[:, fold.order] * fold.factor + np.outer(db, fold.shift))
        own[bias] = fold.bias_gain * db
    assert of_folded(Gradient(tensors=own), network, exact=True) == folded
    verdict = certify(model, gradient=own, loss="mse", exact=True)
    assert verdict.outcome == "unique"
    assert verdict.batch is not None
    assert {tuple(map(float, row)) for row in verdict.batch.inputs} == set(
        map(tuple, x.reshape(2, -1).tolist())
    )
    assert check(verdict.certificate, model, gradient=own).outcome == "unique"
    with pytest.raises(InputError, match="tolerance is a distance from the model's own gradient"):
        certify(model, gradient=own, loss="mse", tolerance=1e-9)


def layers(*, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3, bias=bias), nn.ReLU(), nn.Linear(3, 2, bias=bias))


REFUSED = {
    "multiplies by zero": lambda x: x * torch.tensor([1.0, 0.0, 1.0, 1.0]),
    "divides by zero": lambda x: x / 0,
    "divides by the value": lambda x: 1 / x,
    "rounding_mode=floor": lambda x: torch.div(x, 2, rounding_mode="floor"),
    "has alpha=2": lambda x: torch.add(x, 1, alpha=2),
    "5 constants where there are 4 numbers": lambda x: x - torch.ones(5),
    r"of shape \(4, 1\)": lambda x: x - torch.arange(4.0)[:, None],
    "flat by then": lambda x: x.flatten(1) - torch.arange(4.0)[:, None, None],
}


@pytest.mark.parametrize("message", REFUSED)
def test_constants_that_are_no_shift_or_scale_of_each_number(message: str):
    with pytest.raises(UnsupportedLayerError, match=message):
        to_network(scaled_by(layers(), REFUSED[message]))


def test_what_cannot_be_folded_is_named_with_its_place():
    with pytest.raises(UnsupportedLayerError, match=r"'sub'.*line \d+ of test_constants.py.*no biases"):
        to_network(scaled_by(layers(bias=False), lambda x: x - 0.5))
    with pytest.raises(UnsupportedLayerError, match=r"'0\.model' gives, which has no biases; give the layer"):
        to_network(nn.Sequential(scaled_by(nn.Linear(2, 2, bias=False), lambda x: x, lambda x: x + 1)))
    assert to_network(scaled_by(layers(bias=False), lambda x: x * 0.3)).layers[0].fold is not None
    between = nn.Sequential(nn.Linear(2, 2), scaled_by(nn.ReLU(), lambda x: x, lambda x: 2 * x), nn.ReLU())
    with pytest.raises(UnsupportedLayerError, match="beside no Linear layer"):
        to_network(nn.Sequential(*between, nn.Linear(2, 2)))
    module = scaled_by(layers(), lambda x: x)
    module.scale = nn.Parameter(torch.ones(4))
    type(module).forward = lambda s, x: s.model(x * s.scale)
    with pytest.raises(UnsupportedLayerError, match="the parameter 'scale', which is trained"):
        to_network(module)
    module.scale.requires_grad_(False)
    assert to_network(module).widths == (4, 3, 2)


def test_a_weight_that_is_used_twice_or_is_no_parameter_is_refused():
    module = scaled_by(layers(), lambda x: x)
    module.other = nn.Parameter(torch.zeros(3))
    first = module.model[0]
    type(module).forward = lambda s, x: functional.linear(
        functional.linear(x, first.weight, s.other), first.weight
    )
    with pytest.raises(UnsupportedLayerError, match=r"no parameter of the model as it is|without a ReLU"):
        to_network(module)


def test_releases_that_a_shift_makes_unreadable_are_refused():
    model = scaled_by(layers(), lambda x: x - 0.5)
    x, y = np.full((1, 4), 0.3), np.array([1])
    whole = ["model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias"]
    assert certify(model, batch=(x, y), release=Release(tensors=whole)).notes
    assert certify(model, batch=(x, y), release=Release(tensors=whole[1:])).notes
    for release in (Release(tensors=[whole[0], *whole[2:]]), Release(input_basis=np.ones((4, 1)))):
        with pytest.raises(InputError, match="apply them to the data instead"):
            certify(model, batch=(x, y), release=release)
    only_scaled = scaled_by(layers(), lambda x: x * 3)
    assert certify(only_scaled, batch=(x, y), release=Release(tensors=[whole[0], *whole[2:]])).notes
    for ask in (lambda m: mitigate(m, (x, y), ["average:2"]), lambda m: project_inputs(m, np.ones((4, 1)))):
        with pytest.raises(InputError, match="instead, and remove them from the model"):
            ask(model)


def test_a_shift_needs_the_gradient_of_the_biases():
    model = scaled_by(layers(), lambda x: x - 0.5)
    with pytest.raises(GradientError, match=r"'model.0.bias' is missing.*add it"):
        attack(model, {"model.0.weight": np.ones((3, 4))}, partial=True)
