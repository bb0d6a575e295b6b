"""Exact forward and backward passes with other activations than ReLU, against autograd in float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify.core.network import Activation, Batch, PiecewiseNetwork, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import InputError
from exan_verify.exact.backprop import backward_mod, forward, gradient, gradient_ball, jacobians
from exan_verify.exact.rational import RationalMatrix
from exan_verify.models.chain import to_any_network
from tests.support.activation_cases import ACTIVATIONS, inputs, network
from tests.support.torch_reference import autograd


def of(model: nn.Module, x: np.ndarray, y: np.ndarray, loss: Loss) -> tuple[PiecewiseNetwork, Batch]:
    exact = to_any_network(model)
    assert isinstance(exact, PiecewiseNetwork)
    return exact, Batch.of(x, y, network=exact, loss=loss, labels=Labels.ONE_HOT)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("loss", [Loss.MSE, Loss.CROSS_ENTROPY])
def test_gradients_are_those_of_autograd(kind: str, loss: Loss):
    for seed in range(3):
        model = network((3, 6, 5, 3), ACTIVATIONS[kind], seed, spread=2)
        x, y = inputs(4, 3, seed), np.array([0, 1, 2, 1])
        exact, batch = of(model, x, y, loss)
        targets = torch.eye(3, dtype=torch.float64)[y] if loss is Loss.MSE else torch.tensor(y)
        known = autograd(model, torch.tensor(x), targets, loss.value)
        if loss is Loss.MSE:
            found = {
                name: array.astype(float)
                for name, array in gradient(exact, batch, loss, Reduction.MEAN).tensors.items()
            }
        else:
            balls = gradient_ball(exact, batch, loss, Reduction.MEAN)
            found = {name: np.array([float(v.mid()) for v in m.entries()]) for name, m in balls.items()}
        for name, array in found.items():
            wanted = known[name].numpy()
            assert np.abs(array.reshape(wanted.shape) - wanted).max() <= 1e-12 * np.abs(wanted).max()


def test_residues_of_deltas_are_those_of_the_rationals():
    for kind, make in ACTIVATIONS.items():
        exact, batch = of(network((3, 5, 4, 2), make, 3), inputs(3, 3, 3), np.array([0, 1, 1]), Loss.MSE)
        passed = forward(exact, batch)
        vectors = RationalMatrix.of(np.array([[1, 2, -1], [3, -2, 1]], dtype=object))
        found = backward_mod(exact, passed, vectors.residues())
        delta = vectors
        for k in range(exact.depth - 1, 0, -1):
            back = np.array(exact.layers[k].weight.T, dtype=object)
            slopes = derivative_of(exact, passed.pattern(k), k)
            exactly = np.vectorize(Fraction)(back).dot(delta.fractions()) * slopes
            delta = RationalMatrix.of(exactly)
            assert (delta.residues() == found.at(k)).all(), kind


def derivative_of(exact: PiecewiseNetwork, active: np.ndarray, layer: int) -> np.ndarray:
    below = exact.activations[layer - 1].slope
    return np.array(
        [
            [Fraction(1) if on else Fraction(float(s)) for on in row]
            for row, s in zip(active, below, strict=True)
        ],
        dtype=object,
    )


def test_jacobians_are_those_of_autograd():
    for make in ACTIVATIONS.values():
        model = network((3, 5, 2), make, 1)
        x = inputs(1, 3, 1)
        exact, batch = of(model, x, np.array([0]), Loss.MSE)
        found = jacobians(exact, forward(exact, batch), 0)[-1].astype(float)
        wanted = torch.autograd.functional.jacobian(lambda v, m=model: m(v[None])[0], torch.tensor(x[0]))
        assert np.abs(found - wanted.numpy()).max() < 1e-12


def test_derivatives_at_the_ends_are_torchs():
    for module in (nn.LeakyReLU(0.25), nn.PReLU(), nn.ReLU6(), nn.Hardtanh(-1, 2)):
        model = nn.Sequential(nn.Linear(1, 1), module, nn.Linear(1, 1)).double()
        with torch.no_grad():
            for part, weight in ((model[0], 1.0), (model[2], 1.0)):
                part.weight.fill_(weight)
                part.bias.fill_(0.0)
        for point in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 6.0, 7.0):
            x = torch.tensor([[point]], dtype=torch.float64)
            known = autograd(model, x, torch.tensor([[50.0]]), "mse")
            exact = to_any_network(model)
            batch = Batch.of([[point]], [[50.0]], network=exact, loss=Loss.MSE, labels=Labels.REAL)
            found = gradient(exact, batch, Loss.MSE, Reduction.MEAN).tensors
            for name, array in found.items():
                assert np.allclose(array.astype(float), known[name].numpy(), rtol=1e-12, atol=0), (
                    module,
                    point,
                )


def leaky(slope: object, *, high: Fraction | None = None, low: Fraction = Fraction(0)) -> PiecewiseNetwork:
    layers = ReluNetwork.from_arrays([[[1], [2]], [[1, 1]]], [[0, 1], [0]]).layers
    activation = Activation(slope=np.array(slope), low=low, high=high, name="one")
    return PiecewiseNetwork(layers=layers, activations=(activation,))


def test_the_digest_has_the_activations():
    layers = ReluNetwork.from_arrays([[[1], [2]], [[1, 1]]], [[0, 1], [0]])
    networks = [
        leaky([0.5, 0.5]),
        leaky([0.5, 0.25]),
        leaky([0.0, 0.0], high=Fraction(6)),
        leaky([0.0, 0.0], high=Fraction(5)),
        leaky([0.0, 0.0], low=Fraction(-1), high=Fraction(5)),
    ]
    assert len({layers.digest, *(network.digest for network in networks)}) == 6
    same = leaky(np.array([Fraction(1, 2), Fraction(1, 4)], dtype=object))
    other = leaky(np.array([0.5, 0.25], dtype=np.float32))
    assert other == networks[1]
    assert same.activations[0].slope[1] == Fraction(1, 4)


@pytest.mark.parametrize(
    ("slope", "options", "problem"),
    [
        ([1.0, 0.5], {}, "slope 1 on both sides"),
        ([0.5], {}, "give (2,)"),
        ([0.5, 0.0], {"high": Fraction(6)}, "slopes and an end"),
        ([0.0, 0.0], {"high": Fraction(0)}, "empty range"),
    ],
)
def test_activations_that_are_none(slope: list[float], options: dict[str, Fraction], problem: str):
    with pytest.raises(InputError, match="after layer '0'") as caught:
        leaky(slope, **options)
    assert problem in str(caught.value)


def test_networks_with_relu_alone_are_relu_networks():
    layers = ReluNetwork.from_arrays([[[1], [2]], [[1, 1]]]).layers
    with pytest.raises(InputError, match="other than ReLU"):
        PiecewiseNetwork(layers=layers, activations=(None,))
    model = nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.0), nn.Linear(3, 1))
    assert isinstance(to_any_network(model), ReluNetwork)
