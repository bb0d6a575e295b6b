"""BatchNorm in eval mode, folded: certify, audit, check, and which network they speak of."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Outcome, Release, audit, certify, check
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Batch, Network
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.staged import StagedNetwork
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import CertificateRejected, InputError, UnsupportedLayerError
from exan_verify.exact.backprop import backward, forward, gradient
from exan_verify.models.chain import to_any_network, to_network
from exan_verify.models.folding import NORM_NOTE
from exan_verify.models.normalised import _nearest_root, exact_norm
from exan_verify.models.pictures.staged import to_staged
from tests.support.cases import batch_of
from tests.support.staged_cases import staged_gradient
from tests.support.torch_reference import autograd, he


def connected(seed: int, dtype: torch.dtype = torch.float64, widths: tuple[int, int] = (70, 30)) -> nn.Module:
    """BatchNorm before the first layer, after a layer with biases, after one without, before the last."""
    first, second = widths
    made = nn.Sequential(
        nn.BatchNorm1d(8),
        nn.Linear(8, first),
        nn.BatchNorm1d(first, affine=False),
        nn.ReLU(),
        nn.Linear(first, second, bias=False),
        nn.BatchNorm1d(second),
        nn.ReLU(),
        nn.BatchNorm1d(second, eps=0.1),
        nn.Linear(second, 3),
        nn.BatchNorm1d(3),
    )
    made = he(made, seed)
    made[5].weight.data[:3].neg_()
    return made.to(dtype)


def convolutional(seed: int, *, dtype: torch.dtype = torch.float64, channels: int = 6) -> nn.Module:
    """The same with convolutions."""
    made = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, 9, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.BatchNorm1d(144),
        nn.Linear(144, 40),
        nn.BatchNorm1d(40),
        nn.ReLU(),
        nn.Linear(40, 3),
    )
    return he(made, seed).to(dtype)


def short_numbers(model: nn.Module) -> nn.Module:
    """The model with multiples of 1/16, whose norms have exact factors: its rationals are short."""
    rng = np.random.default_rng(9)
    for part in model.modules():
        for parameter in part.parameters(recurse=False):
            parameter.data = (parameter.data * 16).round() / 16
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eps = 0.0
            part.running_mean = (part.running_mean * 16).round() / 16
            part.running_var = torch.from_numpy(rng.choice([0.25, 1.0, 4.0], len(part.running_var)))
            if part.affine:
                part.weight.data[part.weight == 0] = 0.5
    return model.double()


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def own_gradients(model: nn.Module, folded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradient of a model's own parameters from that of the folded weights and biases, by the formulas of
    :mod:`exan_verify.models.normalised`; of layers with one BatchNorm on each side at most.
    """
    found: dict[str, np.ndarray] = {}
    layers = [(name, m) for name, m in model.named_children() if any(True for _ in m.parameters())]
    layers = [(n, m) for n, m in layers] + [
        (n, m) for n, m in model.named_children() if isinstance(m, nn.BatchNorm1d) and not m.affine
    ]
    order = {name: k for k, (name, _) in enumerate(model.named_children())}
    layers.sort(key=lambda one: order[one[0]])
    for k, (name, layer) in enumerate(layers):
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        near = [layers[j][1] if 0 <= j < len(layers) else None for j in (k - 1, k + 1)]
        before, after = near
        adjacent = order[layers[k - 1][0]] == order[name] - 1 if k else False
        before = before if adjacent and isinstance(before, nn.BatchNorm1d | nn.BatchNorm2d) else None
        adjacent = k + 1 < len(layers) and order[layers[k + 1][0]] == order[name] + 1
        after = after if adjacent and isinstance(after, nn.BatchNorm1d | nn.BatchNorm2d) else None
        weight = layer.weight.detach().numpy()
        taps = weight[0, 0].size if weight.ndim == 4 else 1
        v = weight.reshape(len(weight), -1)
        dw = folded[f"{name}.weight"].astype(float).reshape(v.shape)
        bias_name = f"{name}.bias" if layer.bias is not None or after is None else f"{layers[k + 1][0]}.bias"
        db = folded.get(f"{name}.bias", folded.get(bias_name)).astype(float)
        c = np.zeros(len(v)) if layer.bias is None else layer.bias.detach().numpy()
        gain = np.ones(len(v))
        shift_before = np.zeros(v.shape[1])
        factor_before = np.ones(v.shape[1])
        if before is not None:
            affine, _ = exact_norm(before, "n")
            factor_before = np.repeat(affine.factor.astype(float), taps)
            shift_before = np.repeat(affine.shift.astype(float), taps)
        if after is not None:
            affine, _ = exact_norm(after, "n")
            gain = affine.factor.astype(float)
        # of the layer alone, without the BatchNorm after it: sums of gain delta
        dz = gain * db
        dv = gain[:, None] * (dw * factor_before + db[:, None] * shift_before)
        found[f"{name}.weight"] = dv.reshape(weight.shape)
        if layer.bias is not None:
            found[f"{name}.bias"] = dz
        if after is not None and after.affine:
            k_after = gain / after.weight.detach().numpy()
            mean = after.running_mean.numpy()
            given = (v * (dw * factor_before + db[:, None] * shift_before)).sum(1) + (c - mean) * db
            found[f"{layers[k + 1][0]}.weight"] = k_after * given
            found[f"{layers[k + 1][0]}.bias"] = db
        if before is not None and before.affine:
            k_before = factor_before / np.repeat(before.weight.detach().numpy(), taps)
            mean = np.repeat(before.running_mean.numpy(), taps)
            each = k_before * (gain[:, None] * v * (dw - mean * db[:, None])).sum(0)
            found[f"{layers[k - 1][0]}.weight"] = each.reshape(-1, taps).sum(1)
            beta = (gain[:, None] * v * db[:, None]).sum(0)
            found[f"{layers[k - 1][0]}.bias"] = beta.reshape(-1, taps).sum(1)
    return found


def folded_gradient(exact: Network | StagedNetwork, x: np.ndarray, y: list[int]) -> dict[str, np.ndarray]:
    if isinstance(exact, StagedNetwork):
        return staged_gradient(exact, batch_of(exact, x, y))
    batch = Batch.of(x, y, network=exact, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return dict(gradient(exact, batch, Loss.MSE, Reduction.SUM).tensors)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["connected", "convolutional"])
def test_the_folded_gradient_gives_that_of_every_parameter(kind: str, seed: int):
    """gamma's and beta's included: nothing is lost, nothing added."""
    if kind == "connected":
        model, x = connected(seed, widths=(9, 7)), normal(seed, 3, 8)
        exact: Network | StagedNetwork = to_any_network(model)
    else:
        model, x = convolutional(seed, channels=2), normal(seed, 2, 1, 6, 6)
        exact = to_staged(model, (1, 6, 6))
    y = [0, 2, 1][: len(x)]
    targets = torch.eye(3, dtype=torch.float64)[y]
    expected = autograd(model, torch.from_numpy(x), targets, "mse", "sum")
    found = own_gradients(model, folded_gradient(exact, x, y))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1e-3, float(value.abs().max()))
        assert np.abs(found[name] - value.numpy()).max() <= 1e-12 * scale, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unique_with_a_certificate_and_what_it_is_about(dtype: torch.dtype):
    cases = [(connected(1, dtype, (40, 9)), normal(1, 4, 8))]
    if dtype is torch.float32:  # whose numbers are short
        cases.append((convolutional(1, dtype=dtype), normal(1, 2, 1, 6, 6)))
    for model, x in cases:
        y = [0, 2, 1, 0][: len(x)]
        verdict = certify(model, batch=(x, y))
        assert verdict.outcome is Outcome.UNIQUE, verdict.reason
        assert "BatchNorm folded into" in verdict.architecture
        assert verdict.notes.count(NORM_NOTE) == 1
        assert "BatchNorm" in verdict.notes[0]
        assert check(json.dumps(verdict.certificate), model, batch=(x, y)).outcome is Outcome.UNIQUE
        norms = [m for m in model if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        for changed in (norms[0].running_var, norms[0].weight.data, norms[-1].bias.data):
            changed[0] += 0.5
            with pytest.raises(CertificateRejected, match="another model"):
                check(verdict.certificate, model, batch=(x, y))
            changed[0] -= 0.5
        forged = json.loads(json.dumps(verdict.certificate))
        parts = forged["evidence"][0]
        parts = parts["head"][0] if "head" in parts else parts
        parts["layers"][0]["rank"] -= 1
        with pytest.raises(CertificateRejected):
            check(forged, model, batch=(x, y))


def test_narrow_first_layers_are_ambiguous_for_all_parameters():
    """A second batch of the folded network is one for gamma and beta too, in autograd."""
    model, x, y = short_numbers(connected(2, widths=(3, 4))), normal(2, 4, 8), [0, 1, 0, 1]
    x = np.round(x * 16) / 16
    verdict = certify(model, batch=(x, y), loss="mse", reduction="sum", engine="families")
    assert verdict.outcome is Outcome.AMBIGUOUS, verdict.reason
    assert check(verdict.certificate, model, batch=(x, y)).outcome is Outcome.AMBIGUOUS
    exact = to_any_network(model)
    first = Batch.of(x, y, network=exact, loss=Loss.MSE, labels=Labels.ONE_HOT)
    passed = forward(exact, first)
    vectors = 2 * (passed.logits - fractions(first.labels.T))
    deltas = backward(exact, passed, vectors).at(1).fractions().astype(float)
    alpha, hidden = (
        np.linalg.svd(matrix)[2][-1] for matrix in (deltas, exact.layers[0].weight.astype(float))
    )
    moved = x + alpha[:, None] * hidden / 8
    targets = torch.eye(3, dtype=torch.float64)[y]
    one, other = (autograd(model, torch.from_numpy(b), targets, "mse", "sum") for b in (x, moved))
    assert np.abs(moved - x).max() > 1e-3
    assert all(torch.allclose(one[name], other[name], rtol=1e-9, atol=1e-9) for name in one)


def test_planted_batches_are_never_unique():
    """Equal samples; convolutions that see too little."""
    model, x = short_numbers(connected(3, widths=(12, 5))), np.round(normal(3, 3, 8))
    verdict = certify(model, batch=(x[[0, 1, 1]], [0, 1, 1]), engine="exact")
    assert verdict.outcome is not Outcome.UNIQUE
    narrow = convolutional(3, channels=1)
    narrow[4] = he(nn.Conv2d(1, 9, 3), 3).double()
    pictures = normal(3, 2, 1, 6, 6)
    verdict = certify(narrow, batch=(pictures, [0, 1]))
    assert verdict.outcome is Outcome.AMBIGUOUS
    assert SampleStatus.DETERMINED not in verdict.samples
    assert check(verdict.certificate, narrow, batch=(pictures, [0, 1])).outcome is Outcome.AMBIGUOUS


def test_the_factor_is_the_nearest_number():
    rng = np.random.default_rng(0)
    for bits in (24, 53):
        for _ in range(60):
            square = Fraction(float(rng.lognormal(0, 20))) / Fraction(float(rng.lognormal(0, 3)))
            found = _nearest_root(square, bits)
            assert found.numerator.bit_length() - (found.numerator & -found.numerator).bit_length() < bits
            unit = Fraction(2) ** (found.numerator.bit_length() - found.denominator.bit_length() - bits)
            step = unit if (found / unit).denominator == 1 and found / unit < 2**bits else 2 * unit
            below, above = found - step / 2, found + step / 2
            assert below**2 <= square <= above**2
    assert _nearest_root(Fraction(9, 4), 24) == Fraction(3, 2)
    norm = nn.BatchNorm1d(1).eval()
    norm.weight.data[0] = -1
    assert exact_norm(norm, "n")[0].factor[0] == -Fraction(float(np.float32((1 + 1e-5) ** -0.5)))


def test_floats_stay_floats_where_they_hold_the_products():
    assert to_any_network(connected(4)).layers[1].weight.dtype == object
    model = connected(4, torch.float32)
    layer = to_any_network(model).layers[1]
    assert layer.weight.dtype == np.float64
    affine, _ = exact_norm(model[5], "5")
    own = fractions(model[4].weight.detach().double().numpy())
    assert (fractions(layer.weight) == affine.factor[:, None] * own).all()
    assert (fractions(layer.bias) == affine.shift).all()


def test_other_activations_may_follow():
    model = he(nn.Sequential(nn.Linear(8, 70), nn.BatchNorm1d(70), nn.LeakyReLU(0.1), nn.Linear(70, 3)), 1)
    x, y = normal(1, 4, 8), [0, 2, 1, 0]
    verdict = certify(model, batch=(x, y))
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert verdict.architecture.endswith(
        "LeakyReLU of slope 0.1, in float32 0.10000000149011612 between them, BatchNorm folded into them"
    )
    assert check(json.dumps(verdict.certificate), model, batch=(x, y)).outcome is Outcome.UNIQUE


def test_audit_attacks_the_same_network():
    model, x, y = connected(1), normal(1, 4, 8), [0, 2, 1, 0]
    found = audit(model, (x, y), attack=True)
    assert found.verdict.outcome is Outcome.UNIQUE
    assert (found.gate("determined"), found.gate("recovered")) == ("hit", "hit")
    assert found.exclusivity is not None


def refused(model: nn.Module, error: type[InputError] = UnsupportedLayerError, **asked: object) -> str:
    x = normal(0, 2, 8) if isinstance(model[0], nn.Linear | nn.BatchNorm1d) else normal(0, 2, 1, 6, 6)
    with pytest.raises(error) as caught:
        certify(model, **(asked or {"batch": (x, [0, 1])}))
    return str(caught.value)


def test_what_cannot_be_folded_is_named():
    def between(*layers: nn.Module) -> nn.Module:
        return he(nn.Sequential(nn.Linear(8, 5), *layers, nn.Linear(5, 3)), 0)

    assert "call model.eval()" in refused(between(nn.BatchNorm1d(5), nn.ReLU()).train())
    zero = between(nn.BatchNorm1d(5), nn.ReLU())
    zero[1].weight.data[2] = 0
    assert "layer '1' (BatchNorm1d) multiplies by zero" in refused(zero)
    twice = between(nn.ReLU(), nn.BatchNorm1d(5), nn.ReLU())
    assert "stands beside no Linear layer" in refused(twice)
    small = between(nn.BatchNorm1d(4), nn.ReLU())
    assert "4 constants where there are 5" in refused(small)
    negative = between(nn.BatchNorm1d(5), nn.ReLU())
    negative[1].running_var[0] = -1
    assert "no root to divide by" in refused(negative, InputError)
    frozen = between(nn.BatchNorm1d(5), nn.ReLU())
    frozen[0].bias = None
    frozen[1].bias.requires_grad_(False)
    assert "'1.bias'] are frozen" in refused(frozen, InputError)
    frozen[1].weight.requires_grad_(False)
    frozen[1].bias.requires_grad_(True)
    certify(frozen, batch=(normal(0, 2, 8), [0, 1]))  # whose gradient follows from the others'
    model = connected(0)
    tensors = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    assert "give batch=" in refused(model, InputError, gradient=tensors, exact=True)
    given = {"batch": (normal(0, 2, 8), [0, 1]), "release": Release(tensors=["1.weight", "1.bias"])}
    assert "without a release" in refused(model, InputError, **given)
    with pytest.raises(UnsupportedLayerError, match="only certify, audit, check and attack"):
        to_network(model)


def test_what_cannot_be_folded_beside_convolutions_is_named():
    def body(*layers: nn.Module) -> nn.Module:
        with torch.no_grad():
            wide = nn.Sequential(*layers, nn.Flatten()).eval()(torch.zeros(1, 1, 6, 6)).shape[1]
        return he(nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide, 40), nn.ReLU(), nn.Linear(40, 3)), 0)

    padded = body(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
    assert "'2' (BatchNorm) before a Conv2d with padding" in refused(padded)
    last = body(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2))
    assert "'2' (BatchNorm) with no Conv2d before or after it" in refused(last)
    zero = body(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    zero[1].weight.data[1] = 0
    assert "'1' (BatchNorm) with a factor of zero" in refused(zero)
    bare = body(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, bias=False), nn.ReLU())
    assert "has no biases" in refused(bare)


@pytest.mark.parametrize("seed", range(6))
def test_a_trained_shift_before_weights_without_biases_is_refused(seed: int):
    """dbeta = V^T db tells of db, and the layer's own gradient does not, whatever the numbers are."""
    rng = np.random.default_rng(seed)
    features, hidden = (int(n) for n in rng.integers(2, 6, 2))
    layers = [nn.Linear(features, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, 2, bias=False)]
    place = 2 * int(rng.integers(2))
    norm = nn.BatchNorm1d(hidden if place else features).eval()
    norm.bias.requires_grad = bool(rng.integers(2))
    model = nn.Sequential(*layers[:place], norm, *layers[place:]).double()
    with pytest.raises(UnsupportedLayerError, match=r"which has no biases: the BatchNorm's own"):
        to_any_network(model)
