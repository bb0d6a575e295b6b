"""Exact passes through convolutions against torch, and ranks of their systems against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify.core.staged import Convolution, StagedNetwork
from exan_verify.errors import ShapeError
from exan_verify.exact.backprop import backward, forward
from exan_verify.exact.elimination import PRIMES, floats, rank
from exan_verify.exact.modular import residues
from exan_verify.exact.pictures import deltas_mod, forward_stages, taps
from exan_verify.exact.rational import RationalMatrix
from exan_verify.exact.shared_weights import StageSystem
from exan_verify.models.pictures.staged import to_staged
from tests.support.cases import batch_of
from tests.support.staged_cases import (
    dense_system,
    module,
    pictures,
    staged_gradient,
    unique_case,
)
from tests.support.torch_reference import autograd

GEOMETRIES = {
    "strides": lambda: [nn.Conv2d(2, 3, 3, stride=2), nn.Conv2d(3, 4, 2)],
    "padding": lambda: [
        nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(2, 1)),
        nn.Conv2d(3, 2, 3, padding=1),
    ],
    "same": lambda: [nn.Conv2d(2, 2, 4, padding="same"), nn.Conv2d(2, 3, (2, 3), padding="same", dilation=2)],
    "dilation": lambda: [nn.Conv2d(2, 3, 3, dilation=2, stride=2, padding=2)],
    "no bias": lambda: [nn.Conv2d(2, 3, 3, bias=False), nn.Conv2d(3, 2, 3, bias=False)],
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", GEOMETRIES)
def test_features_and_gradients_are_torchs(kind: str):
    model = module(7, GEOMETRIES[kind](), (5, 3), seed=4)
    x = pictures(3, (2, 7, 7), 4)
    network = to_staged(model, (2, 7, 7))
    batch = batch_of(network, x, [0, 2, 1])
    found = staged_gradient(network, batch)
    targets = torch.eye(3, dtype=torch.float64)[[0, 2, 1]]
    known = autograd(model, torch.tensor(x), targets, "mse", "sum")
    assert found.keys() == known.keys()
    for name, wanted in known.items():
        exact = found[name].astype(float)
        assert np.abs(exact - wanted.numpy()).max() <= 1e-12 * wanted.abs().max().item(), name
    body = model[: 2 * len(network.stages) + 1]
    features = forward_stages(network, batch).values[-1].T.fractions().astype(float)
    assert np.abs(features - body(torch.tensor(x)).detach().numpy()).max() < 1e-12


def test_deltas_mod_a_prime_are_those_of_the_rationals():
    network, (x, _) = unique_case(3)
    passed = forward_stages(network, batch_of(network, x, [0, 1]))
    prime = PRIMES[0]
    back = np.random.default_rng(0).integers(-9, 10, passed.values[-1].shape)
    found = deltas_mod(network, passed, residues(back.astype(object), prime), prime)
    # the weight gradient of the first stage from the last one's delta, which is an integer combination
    upper = network.stages[1]
    delta = back * passed.patterns[1]
    down = dense_map(upper).T.dot(delta) * passed.patterns[0]
    assert (residues(down, prime) == found[0][0]).all()
    assert (residues(delta.astype(object), prime) == found[1][0]).all()


def dense_map(stage: Convolution) -> np.ndarray:
    """A as a matrix (C_out H' W', C H W) of Fractions."""
    out, rows, columns = stage.output_shape
    active = np.ones((out * rows * columns, 1), dtype=bool)
    return dense_system(stage, active, np.zeros_like(active, dtype=int))[: out * rows * columns]


def drawn(seed: int) -> StageSystem:
    """A small stage with patterns and deltas of small integers, some of them zero."""
    rng = np.random.default_rng(seed)
    kernel = rng.integers(1, 4, 2)
    stage = Convolution(
        weight=rng.integers(-4, 5, (rng.integers(1, 6), rng.integers(1, 3), *kernel)).astype(float),
        bias=None,
        input_shape=(1, *(int(n) for n in rng.integers(3, 6, 2))),
        stride=tuple(int(n) for n in rng.integers(1, 3, 2)),
        padding=tuple(int(n) for n in rng.integers(0, 2, 4)),
        dilation=tuple(int(n) for n in rng.integers(1, 3, 2)) if kernel.max() < 3 else (1, 1),
        name="0",
    )
    stage = Convolution(
        **{name: getattr(stage, name) for name in stage.__slots__ if name != "input_shape"},
        input_shape=(stage.weight.shape[1], *stage.input_shape[1:]),
    )
    size, samples = int(np.prod(stage.output_shape)), int(rng.integers(1, 4))
    active = rng.random((size, samples)) < rng.choice([0.2, 0.5, 0.9])
    delta = rng.integers(-5, 6, (size, samples)) * active
    return StageSystem(
        stage=stage, active=active, delta=residues(delta.astype(object), PRIMES[0]), prime=PRIMES[0]
    )


def test_full_rank_is_that_of_the_dense_matrix():
    full = {True: 0, False: 0}
    by_kernel = 0
    for seed in range(120):
        system = drawn(seed)
        if min(system.stage.output_shape) < 1:
            continue
        dense = dense_system(system.stage, system.active, system.delta.astype(object))
        matrix = floats(residues(dense, system.prime), system.prime)
        wanted = rank(matrix, system.prime) == system.unknowns
        assert system.full() is wanted, seed
        full[wanted] += 1
        by_kernel += wanted and system.left > 0
    assert min(full.values()) >= 15
    assert by_kernel >= 3


def test_the_kernel_of_the_weight_gradient_is_that_of_the_dense_matrix():
    for seed in range(20):
        system = drawn(seed)
        if min(system.stage.output_shape) < 1:
            continue
        shared = dense_system(system.stage, np.zeros_like(system.active), system.delta.astype(object))
        matrix = floats(residues(shared, system.prime), system.prime)
        if len(system.open_samples) == system.samples:
            assert system.left == system.unknowns - rank(matrix, system.prime)


def test_taps_take_what_they_say():
    stage = drawn(1).stage
    assert taps(stage).max() <= stage.input_shape[1] * stage.input_shape[2]


def test_the_head_of_a_staged_network_is_given_its_features():
    network, (x, y) = unique_case()
    passed = forward_stages(network, batch_of(network, x, y))
    assert network.widths[0] == 36
    assert network.widths[-1] == network.classes == 3
    assert passed.values[-1].shape[0] == network.head.widths[0]
    first = backward(
        network.head,
        forward(network.head, batch_of(network.head, passed.values[-1].T.fractions(), y)),
        RationalMatrix.of(np.ones((3, 2))).fractions(),
    )
    assert first.at(1).shape == (24, 2)


def test_shapes_that_do_not_fit_are_refused():
    network, _ = unique_case()
    other, _ = unique_case(1)
    assert network.digest != other.digest
    with pytest.raises(ShapeError, match="takes"):
        StagedNetwork(stages=network.stages[::-1], head=network.head)
    with pytest.raises(ShapeError, match="the stages give"):
        StagedNetwork(stages=network.stages[:1], head=network.head)
    with pytest.raises(ShapeError, match="no convolution"):
        StagedNetwork(stages=(), head=network.head)


def test_the_digest_has_the_geometry():
    network, _ = unique_case()
    first = network.stages[0]
    made = {name: getattr(first, name) for name in first.__slots__}
    for change in ({"padding": (0, 2, 1, 1)}, {"padding": (1, 1, 2, 0)}, {"bias": None}):
        stages = (Convolution(**made | change), *network.stages[1:])
        assert StagedNetwork(stages=stages, head=network.head).digest != network.digest
