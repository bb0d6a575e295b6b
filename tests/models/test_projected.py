"""A first layer V (B^T x): what is sent depends on B^T x alone, whatever the server sends, in every round."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import attack, audit, certify, check, project_inputs
from exan_verify.errors import InputError, ShapeError, UnsupportedLayerError
from exan_verify.models.chain import to_network


def model(seed: int = 0, widths: tuple[int, ...] = (8, 30, 3)) -> nn.Sequential:
    rng = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)))
            layer.bias.copy_(torch.tensor(rng.normal(size=outputs) / np.sqrt(inputs)))
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def small_integers(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """B (8, 3) of small integers, and an integer direction that it does not see."""
    rng = np.random.default_rng(seed)
    top = rng.integers(-2, 3, (5, 3))
    basis = np.concatenate([top, np.eye(3, dtype=int)])
    direction = np.concatenate([np.eye(5, dtype=int)[0], -top[0]])
    assert not (basis.T @ direction).any()
    return basis.astype(float), direction.astype(float)


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("seed", range(2))
def test_batches_with_one_projection_send_the_same_in_every_round(optimiser, seed):
    """Bit by bit over rounds of training, with a server that adds numbers of its own to all weights."""
    basis, direction = small_integers(seed)
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 8, (4, 8)) / 8
    other = x + np.array([[1], [-2], [0.5], [3]]) * direction
    transcripts = []
    for inputs in (x, other):
        client = project_inputs(model(seed), basis)
        step = optimiser(client.parameters(), lr=0.1)
        malicious, sent = np.random.default_rng(9), []
        for _ in range(5):
            step.zero_grad()
            loss = nn.functional.cross_entropy(
                client(torch.tensor(inputs, dtype=torch.float32)), torch.tensor([0, 1, 2, 0])
            )
            loss.backward()
            sent += [p.grad.clone() for p in client.parameters()]
            step.step()
            with torch.no_grad():
                for p in client.parameters():
                    p += torch.tensor(malicious.normal(size=tuple(p.shape)), dtype=p.dtype)
        transcripts.append(sent)
    assert all(torch.equal(a, b) for a, b in zip(*transcripts, strict=True))


def test_projected_weights_alone_send_more():
    """The control: the same directions are visible to a layer whose weights were projected in floats."""
    basis, direction = small_integers()
    client, x = model(), np.zeros((2, 8))
    ortho = torch.tensor(np.linalg.qr(basis)[0], dtype=torch.float32)
    with torch.no_grad():
        client[0].weight.copy_(client[0].weight @ ortho @ ortho.T)
    sent = []
    for inputs in (x, x + direction):
        loss = nn.functional.cross_entropy(
            client(torch.tensor(inputs, dtype=torch.float32)), torch.tensor([0, 1])
        )
        sent.append(torch.autograd.grad(loss, client[0].weight)[0])
    assert not torch.allclose(*sent)


def test_it_computes_the_model_on_the_projection_and_keeps_the_names():
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 3)))[0].astype(np.float32)
    plain = model()
    projected = project_inputs(plain, basis)
    x = torch.tensor(np.random.default_rng(2).normal(size=(5, 8)), dtype=torch.float32)
    torch.testing.assert_close(projected(x), plain(x @ torch.tensor(basis @ basis.T)), rtol=1e-4, atol=1e-5)
    assert [n for n, _ in projected.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert next(tuple(p.shape) for p in projected.parameters()) == (30, 3)
    assert "0.basis" in projected.state_dict()
    assert plain[0].weight.shape == (30, 8)


def test_certify_and_attack_see_the_projection():
    basis, _ = small_integers()
    projected = project_inputs(model(), basis)
    network = to_network(projected)
    assert network.widths == (3, 30, 3)
    assert "projection of inputs with 8 features" in network.notes[0]
    x = np.random.default_rng(3).integers(-8, 8, (2, 8)) / 8
    z = x @ basis
    verdict = certify(projected, batch=(z, [0, 1]))
    assert verdict.outcome.value == "unique"
    of_inputs = certify(projected, batch=(x, [0, 1]))
    assert of_inputs.outcome.value == "ambiguous"
    assert {status.value for status in of_inputs.samples} == {"free"}
    assert of_inputs.witness.dimension == 2 * 5
    assert check(of_inputs.certificate, projected, batch=(x, [0, 1])).outcome.value == "ambiguous"
    assert audit(projected, (x, [0, 1])).verdict.outcome.value == "ambiguous"
    loss = nn.functional.cross_entropy(projected.double()(torch.tensor(x)), torch.tensor([0, 1]))
    gradient = dict(
        zip(
            (n for n, _ in projected.named_parameters()),
            torch.autograd.grad(loss, list(projected.parameters())),
            strict=True,
        )
    )
    found = attack(projected, gradient, batch_size=2)
    assert found.complete
    assert np.abs(np.sort(found.x.numpy(), axis=0) - np.sort(z, axis=0)).max() < 1e-9


def test_a_linear_layer_alone_and_one_inside_a_module_are_projected():
    basis, _ = small_integers()
    assert project_inputs(nn.Linear(8, 3), basis)(torch.ones(2, 8)).shape == (2, 3)
    nested = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(8, 4), nn.ReLU()), nn.Linear(4, 2))
    assert project_inputs(nested, basis)(torch.ones(2, 2, 4)).shape == (2, 2)
    assert to_network(project_inputs(nested, basis)).widths == (3, 4, 2)


@pytest.mark.parametrize("shape", [(8,), (7, 3), (8, 0), (8, 8), (3, 8), (8, 3, 1)])
def test_a_basis_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError, match=r"give B of shape \(8, r\)"):
        project_inputs(model(), np.ones(shape))


def test_what_cannot_be_projected_is_refused():
    basis, _ = small_integers()
    with pytest.raises(InputError, match="float32 cannot hold"):
        project_inputs(model(), basis / 3)
    with pytest.raises(InputError, match="pass a torch"):
        project_inputs(to_network(model()), basis)
    projected = project_inputs(model(), basis)
    with pytest.raises(UnsupportedLayerError, match="projected already"):
        project_inputs(projected, np.ones((3, 2)))
    with pytest.raises(UnsupportedLayerError, match="is not the first"):
        to_network(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), *projected))
