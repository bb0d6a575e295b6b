"""Attacks on networks with other activations than ReLU: what comes back, what is claimed, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from exan_verify import Release, attack, audit
from exan_verify.cli import main
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome
from exan_verify.errors import RangeError, UnsupportedLayerError
from exan_verify.models.chain import to_any_network
from exan_verify.numeric.ask_methods import column_spaces
from exan_verify.numeric.confirming import uniqueness
from exan_verify.numeric.confirming.bounds import refine
from exan_verify.numeric.confirming.uniqueness import others_excluded
from exan_verify.numeric.methods.equations import layer_equations
from exan_verify.numeric.methods.separate import Span, copies, signs_of
from exan_verify.numeric.problem.activations import Piecewise
from exan_verify.numeric.problem.metrics import wrong_claims
from exan_verify.numeric.problem.passes import backward, forward, weight_gains
from exan_verify.numeric.problem.problem import build_problem
from exan_verify.numeric.problem.records import Attack, Finding, Tier
from tests.support.activation_cases import ACTIVATIONS, inputs, network
from tests.support.numeric_cases import two_sloped_batches
from tests.support.torch_reference import FUNCTIONS

SLOPED = ("leaky", "steep", "negative", "parametric", "per neuron")


def gradient(model: nn.Module, x: Tensor, y: Tensor, loss: str = "cross_entropy") -> dict[str, Tensor]:
    model.zero_grad()
    FUNCTIONS[Loss(loss)](model(x), y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def drawn(
    kind: str, widths: tuple[int, ...], samples: int, seed: int
) -> tuple[nn.Sequential, Tensor, Tensor]:
    model = network(widths, ACTIVATIONS[kind], seed, spread=2)
    y = torch.tensor(np.random.default_rng(seed + 1).integers(widths[-1], size=samples))
    return model, torch.tensor(inputs(samples, widths[0], seed)), y


def wrong(found: Attack, x: Tensor, y: Tensor) -> int:
    return wrong_claims(found.x, found.y, [one.error_bound for one in found.status], x, y)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_passes_are_those_of_torch(kind: str):
    model, x, y = drawn(kind, (5, 9, 7, 3), 4, 0)
    given = gradient(model, x, y)
    exact = to_any_network(model)
    own = {name: given[name] for name, _ in exact.parameters()}
    problem = build_problem(exact, own, loss="cross_entropy", reduction="mean")
    trace = forward(problem, x)
    assert torch.allclose(trace.logits, model(x), rtol=1e-12, atol=1e-14)
    deltas = backward(problem, trace, problem.loss_vectors(trace.logits, y) / 4)
    for layer, delta, h in zip(problem.layers, deltas, trace.hidden, strict=True):
        assert torch.allclose(delta.T @ h, layer.d_weight, rtol=1e-12, atol=1e-14)
        assert torch.allclose(delta.sum(dim=0), layer.d_bias, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_sample_comes_back_confirmed_within_its_bound(kind: str):
    """On networks of two and three layers, with all losses."""
    confirmed = 0
    for seed, (widths, loss) in enumerate(
        [((8, 90, 4), "cross_entropy"), ((20, 90, 4), "mse"), ((8, 90, 4), "bce"), ((6, 90, 30, 4), "mse")]
    ):
        model, x, y = drawn(kind, widths, 4, seed)
        target = functional.one_hot(y, widths[-1]).double() if loss in ("bce", "mse") else y
        found = attack(model, gradient(model, x, target, loss), loss=loss, batch_size=4)
        assert found.complete, (seed, found.reason)
        confirmed += found.count(Tier.CONFIRMED)
        assert not wrong(found, x, target)
        assert float(torch.cdist(x, found.x).amin(dim=1).max()) < 1e-9
        assert "Linear layers with, in turn" in found.architecture
    # of one of the networks with ends the equations are too dependent to exclude other batches
    assert confirmed >= (12 if kind == "hard" else 16)


def test_images_come_back_from_a_layer_above_where_values_show_the_pattern():
    """The first layer has too few neurons for its own equations."""
    for kind in ("leaky", "steep", "six"):
        model, x, y = drawn(kind, (4, 7, 60, 3), 3, 3)
        found = attack(model, gradient(model, x, y), method="lift")
        assert found.layer == 2
        assert found.complete, (kind, found.reason)
        assert not wrong(found, x, y)
    model, x, y = drawn("negative", (4, 7, 60, 3), 3, 3)
    found = attack(model, gradient(model, x, y), method="lift")
    assert not found.status
    assert "negative slope" in found.reason


@pytest.mark.parametrize("kind", ["leaky", "negative"])
def test_the_search_finds_batches_that_no_lifting_can(kind: str):
    model, x, y = drawn(kind, (40, 160, 3), 24, 5)
    given = gradient(model, x, y)
    with pytest.raises(RangeError, match="beyond degree-2 lifting"):
        attack(model, given, method="lift")
    found = attack(model, given, method="assign")
    assert found.complete, found.reason
    assert len(found.x) == 24
    assert not wrong(found, x, y)


def test_samples_that_differ_in_few_neurons_are_two():
    """Their deltas have nearly one direction, and where no slope is zero they vanish nowhere."""
    model, x, y = drawn("leaky", (10, 120, 3), 4, 2)
    x[1], y[1] = x[0] + 0.03 * torch.tensor(inputs(1, 10, 9)[0]), y[0]
    found = attack(model, gradient(model, x, y))
    assert found.complete, found.reason
    assert not wrong(found, x, y)
    unit = functional.normalize(torch.tensor([[1.0, 0.01], [1.0, 0.011]]).double(), dim=1).T
    same, other = (torch.tensor([[True, True], [True, second]]).T for second in (True, False))
    for pattern, expected in ((same, True), (other, False)):
        span = Span(deltas=unit, signs=signs_of(unit, pattern))
        assert bool(copies(span, span)[0, 1]) is expected


def test_the_lifted_unknowns_are_those_of_the_theory():
    for kind, more in (("leaky", 6), ("six", 0)):
        model, x, y = drawn(kind, (8, 60, 4), 4, 0)
        problem = build_problem(
            to_any_network(model), gradient(model, x, y), loss="cross_entropy", reduction="mean"
        )
        assert layer_equations(problem, column_spaces(problem), 0).unknowns == 10 + 12 + more


def test_the_absolute_value_is_not_lifted_and_found_by_the_search():
    model = network((12, 120, 3), lambda _: nn.LeakyReLU(-1.0), 1, spread=2)
    x, y = torch.tensor(inputs(4, 12, 1)), torch.tensor([0, 1, 2, 0])
    given = gradient(model, x, y)
    with pytest.raises(RangeError, match="slopes of -1"):
        attack(model, given, method="lift")
    found = attack(model, given)
    assert found.complete, found.reason
    # the products that would exclude another batch do not occur
    assert found.count(Tier.CONFIRMED) == 0
    assert not wrong(found, x, y)


def folded() -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]]]:
    """1-1-30-1 with slope -1/2 at the first layer: x = 1, -4 and x = -2, 2 have the features 1, 2. Targets
    for which both samples have the same delta before the first derivative make all gradients equal.
    """
    rng = np.random.default_rng(5)
    model = nn.Sequential(
        nn.Linear(1, 1), nn.LeakyReLU(-0.5), nn.Linear(1, 30), nn.ReLU(), nn.Linear(30, 1)
    ).double()
    values = (np.ones((1, 1)), [0.0], rng.integers(1, 6, (30, 1)), rng.integers(-5, 6, 30))
    for parameter, value in zip(
        model.parameters(), (*values, rng.integers(1, 4, (1, 30)), [0.0]), strict=True
    ):
        parameter.data = torch.tensor(np.asarray(value, dtype=float))
    first, second = torch.tensor([[1.0], [-4.0]]).double(), torch.tensor([[-2.0], [2.0]]).double()
    hidden = model[:2](first)
    hidden.requires_grad_(True)
    slopes = torch.autograd.grad(model[2:](hidden).sum(), hidden)[0]
    targets = (model(first) - 1 / (2 * slopes)).detach()
    return model, [(first, targets), (second, targets)]


@pytest.mark.parametrize("slope", [0.01, 0.25, -0.5])
def test_of_two_batches_far_apart_with_one_gradient_neither_is_confirmed(slope: float):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        model, (x, y), (other, labels) = two_sloped_batches(slope, int(rng.integers(30, 60)), 5, rng)
        here, there = gradient(model, x, y, "bce"), gradient(model, other, labels, "bce")
        assert all(torch.allclose(here[name], there[name], atol=1e-11) for name in here)
        assert float(torch.cdist(x, other).min()) > 0.1
        # no method separates the samples; where they are handed over as they are, exclusion has to tell
        exact = to_any_network(model)
        problem = build_problem(exact, here, loss="bce", reduction="mean", batch_size=3)
        spaces = column_spaces(problem)
        assert spaces[0].rank == 3
        finding = Finding(
            method="", x=x, rest=spaces[0].basis[:, :0], rest_sine=1.0, layer=1, layers=(), reason=""
        )
        refined = refine(problem, spaces[0], finding, weight_gains(problem))
        assert float((refined.x - x).abs().max()) < 1e-9
        assert "more solutions" in others_excluded(problem, spaces, refined, problem.divisor(3)).reason


def test_the_equations_that_exclude_other_batches_are_those_of_the_neurons():
    """(B q - s O p)(B q - O p) is R w + t q^2 for any q and p."""
    rng = np.random.default_rng(0)
    for slopes in (rng.normal(size=7), None):
        b, o, points, q, p = (
            torch.tensor(rng.normal(size=shape)) for shape in ((7, 4), (7, 3), (4, 3), (4,), (3,))
        )
        slope = None if slopes is None else torch.tensor(slopes)
        r, t = uniqueness.pair_equations(b, o, o @ points.T, slope)
        pairs, upper = torch.triu_indices(4, 4, 1), torch.triu_indices(3, 3)
        mixed = (q[:, None] * (p - q[:, None] * points)).flatten()
        below = torch.outer(p, p) - torch.einsum("a,ak,al->kl", q.square(), points, points)
        w = torch.cat([q[pairs[0]] * q[pairs[1]], mixed, below[upper[0], upper[1]]])
        s = 0 if slope is None else slope
        product = (b @ q - s * (o @ p)) * (b @ q - o @ p)
        assert torch.allclose(r @ w[: r.shape[1]] + t @ q.square(), product, atol=1e-12)


def test_where_values_hide_the_pattern_neither_of_two_batches_is_confirmed():
    model, batches = folded()
    one, other = (gradient(model, *batch, "mse") for batch in batches)
    assert all(torch.allclose(one[name], other[name], atol=1e-12) for name in one)
    for told in (None, 2):
        found = attack(model, one, loss="mse", labels="real", batch_size=told)
        assert found.count(Tier.CONFIRMED) == 0


def test_sheared_batches_are_not_confirmed():
    """Two samples of one region, one logit: x + t alpha v has the same gradient (S2), whatever the slopes."""
    for seed in range(6):
        model = network((3, 40, 1), ACTIVATIONS["leaky"], seed)
        x = torch.tensor(inputs(1, 3, seed)) + torch.tensor([[0.0, 0, 0], [1e-6, 0, 2e-6]])
        found = attack(model, gradient(model, x, torch.tensor([[0.0], [1.0]]).double(), "mse"), loss="mse")
        assert found.count(Tier.CONFIRMED) == 0


def test_a_slope_that_is_another_gives_nothing():
    """The gradient of one activation, read with the next: nearly right everywhere, and right nowhere."""
    for kind, other in (("leaky", nn.LeakyReLU(0.0101)), ("six", nn.Hardtanh(0, 5.9)), ("leaky", nn.ReLU())):
        for seed in range(3):
            model, x, y = drawn(kind, (8, 90, 4), 4, seed)
            model[0].bias.data += 4 * (kind == "six")
            given = gradient(model, x, y)
            read = nn.Sequential(model[0], other, model[2])
            found = attack(read, given, batch_size=4, method="lift")
            assert found.count(Tier.CONFIRMED) == 0 or not wrong(found, x, y)
            if kind == "leaky":
                assert not found.status, (kind, seed)


def test_what_is_proved_unique_is_what_is_confirmed():
    unique = confirmed = 0
    for kind in ACTIVATIONS:
        for seed in range(2):
            model, x, y = drawn(kind, (6, 60, 3), 2 + seed, 10 + seed)
            found = audit(model, (x.numpy(), y.numpy()), attack=True)
            assert found.attack is not None, found.no_attack
            shown = [one.status for one in found.attack.recoveries if one is not None]
            assert "wrong" not in shown
            unique += found.verdict.outcome is Outcome.UNIQUE
            confirmed += shown == ["confirmed"] * len(x)
            if found.verdict.outcome is Outcome.AMBIGUOUS:
                assert "confirmed" not in shown
    assert unique == confirmed == 2 * len(ACTIVATIONS)


def test_a_gradient_in_float64_of_weights_in_float32_has_the_slope_of_float64():
    """Kernels multiply by 0.01 in the precision of the pass, which is not that of the weights."""
    model, x, y = drawn("leaky", (8, 90, 4), 4, 0)
    single = model.float()
    double = {name: p.detach().double().requires_grad_() for name, p in single.named_parameters()}
    logits = torch.func.functional_call(single, double, (x,))
    given = dict(
        zip(
            double,
            torch.autograd.grad(functional.cross_entropy(logits, y), list(double.values())),
            strict=True,
        )
    )
    found = attack(single, given)
    assert found.count(Tier.CONFIRMED) == 4
    assert found.gradient_residual < 1e-14
    assert not wrong(found, x, y)
    lower = attack(single, gradient(single, x.float(), y))
    assert lower.complete, lower.reason
    assert not wrong(lower, x.float().double(), y)


def test_trained_slopes_have_a_gradient_that_is_left_out():
    model, x, y = drawn("per neuron", (8, 90, 4), 4, 0)
    given = gradient(model, x, y)
    assert "1.weight" in given
    for gradients in (given, list(given.values()), {n: g for n, g in given.items() if n != "1.weight"}):
        found = attack(model, gradients)
        assert found.complete
        assert "1.weight: trained slopes, whose own gradient is not used" in found.notes


def test_what_is_not_supported_is_refused_by_name():
    model, x, y = drawn("leaky", (8, 90, 4), 4, 0)
    given = gradient(model, x, y)
    for method in ("peel", "peel+lift", "published"):
        with pytest.raises(RangeError, match=r"exclusive neurons.*use method lift or assign"):
            attack(model, given, method=method)
    with pytest.raises(RangeError, match="no direction vanishes"):
        attack(model, given, method="sample")
    with pytest.raises(RangeError, match=r"'0.bias' is missing, and without its gradient the scale of each"):
        attack(model, {"0.weight": given["0.weight"]}, partial=True)
    biasless = nn.Sequential(nn.Linear(8, 90, bias=False), nn.LeakyReLU(), nn.Linear(90, 4)).double()
    with pytest.raises(RangeError, match="layer 1 has no biases, and without"):
        attack(biasless, gradient(biasless, x, y))
    with pytest.raises(RangeError, match="has slopes, for which degree 3 is not made"):
        attack(*few_neurons(nn.LeakyReLU())[:2], method="lift", batch_size=8)
    with pytest.raises(UnsupportedLayerError, match="GELU"):
        attack(nn.Sequential(nn.Linear(8, 90), nn.GELU(), nn.Linear(90, 4)), given)


def few_neurons(activation: nn.Module) -> tuple[nn.Sequential, dict[str, Tensor], Tensor]:
    """A network with 40 neurons and a gradient of 8 samples, too few for degree two."""
    model, x, y = drawn("six", (20, 40, 3), 8, 2)
    model = nn.Sequential(model[0], activation, model[2])
    model[0].weight.data *= 0.3
    return model, gradient(model, x, y), x


def test_ends_take_nothing_from_degree_three():
    model, given, x = few_neurons(nn.Hardtanh(0, 0.7))
    assert (model[0](x) > 0.7).any()
    found = attack(model, given, method="lift", batch_size=8)
    assert found.method == "lift of degree 3"
    assert found.complete, found.reason
    assert float(torch.cdist(x, found.x).amin(dim=1).max()) < 1e-9


def without_slopes(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in given.items() if tensor.dim() > 1 or name.endswith("bias")}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_rows_and_tensors_may_be_missing(kind: str):
    """The equations are those of the neurons that are sent (G9), and need no gradient above (G1)."""
    model, x, y = drawn(kind, (8, 90, 4), 4, 0)
    given = gradient(model, x, y)
    rows = (np.random.default_rng(0).permutation(90) < 60).tolist()
    released = attack(model, given, release=Release(rows={"0.weight": rows, "0.bias": rows}))
    alone = attack(model, {name: given[name] for name in ("0.weight", "0.bias")}, partial=True)
    for found in (released, alone):
        assert found.complete, found.reason
        assert found.count(Tier.CONFIRMED) == 4
        assert not wrong(found, x, y)
        assert float(torch.cdist(x, found.x).amin(dim=1).max()) < 1e-9


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_below_the_lowest_layer_that_is_sent_values_tell_what_weights_tell(kind: str):
    """30 neurons of the first layer, 5 inputs: with positive slopes every neuron tells its pre-activation,
    between ends those that are between; with negative slopes the features alone are claimed.
    """
    model, x, y = drawn(kind, (5, 30, 90, 4), 4, 1)
    if kind == "per neuron":
        model[1].weight.data.abs_()
    given = without_slopes(gradient(model, x, y))
    sent = {name: tensor for name, tensor in given.items() if name != "0.weight"}
    found = attack(model, sent, partial=True)
    assert found.hidden is not None
    assert len(found.hidden.status) == (1 if kind == "steep" else 4)
    assert not wrong(found, x, y)
    assert len(found.x) == (0 if kind == "negative" else len(found.hidden.status)), found.reason
    assert ("do not determine" in found.reason) == (kind == "negative")
    # the first layer's bias gradient is a test of the whole batch
    if found.hidden.status[3:]:
        found = attack(model, sent | {"0.bias": sent["0.bias"] + 1}, partial=True)
        assert not found.status
        assert "do not give the tensor '0.bias'" in found.reason


def test_of_a_projection_and_of_means_what_the_step_had_comes_back():
    model, x, y = drawn("leaky", (8, 90, 4), 4, 0)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 5)))[0].round(3)
    narrow = nn.Linear(5, 90).double()
    narrow.bias.data = model[0].bias.data
    projected = nn.Sequential(narrow, *model[1:])
    seen = x @ torch.tensor(basis)
    found = attack(projected, gradient(projected, seen, y), release=Release(input_basis=basis))
    assert found.complete
    assert float(torch.cdist(seen, found.x).amin(dim=1).max()) < 1e-9
    means = torch.stack([x[:2].mean(dim=0), x[2:].mean(dim=0)])
    given = gradient(model, means, y[[0, 2]])
    found = attack(model, given, release=Release(averages=[[0, 1], [2, 3]]))
    assert found.complete
    assert float(torch.cdist(means, found.x).amin(dim=1).max()) < 1e-9


def test_values_tell_derivatives_and_pre_activations_where_one_has_them():
    """phi's own values, at errors of a tenth."""
    for phi, z in (
        (Piecewise(slope=torch.tensor([0.5, 0.0, -0.5, 0.5, 3.0])), torch.tensor([-2.0, 2, 2, 3, -1])),
        (Piecewise(low=-1.0, high=2.0), torch.tensor([-2.0, -0.5, 0.0, 1.5, 4.0])),
        (Piecewise(), torch.tensor([-2.0, -0.05, 0.05, 0.5, 3.0])),
    ):
        z = z.double()
        h = phi.values(z)
        derivative, told = phi.derivative_by_value(h[None], torch.tensor([[0.1]]).double())
        own = phi.passed(phi.active(z)).double()
        assert (derivative[0][told[0]] == own[told[0]]).all()
        assert not derivative[0][~told[0]].any()
        pre, error, known = phi.inverse(h, 0.1)
        assert ((pre - z).abs() <= 1e-15)[known].all()
        moved, _, _ = phi.inverse(h + 0.1, 0.1)
        assert ((moved - z).abs() <= error + 1e-15)[known].all()
    negative = Piecewise(slope=torch.tensor([-0.5, 0.5]).double())
    assert negative.inverse(torch.tensor([1.0, 1.0]).double(), 0.1)[2].tolist() == [False, True]
    assert [negative.nonnegative, Piecewise(low=-1.0, high=1.0).nonnegative, Piecewise().nonnegative] == [
        False,
        False,
        True,
    ]


def test_activations_as_they_are():
    z = torch.tensor([-2.0, -0.5, 0.0, 0.5, 3.0]).double()
    slope = torch.tensor([0.5, 0.5, 0.5, 2.0, 2.0]).double()
    sloped, ends = Piecewise(slope=slope), Piecewise(low=-1.0, high=0.5)
    assert sloped.values(z).tolist() == [-1, -0.25, 0, 0.5, 3]
    assert sloped.passed(sloped.active(z)).tolist() == [0.5, 0.5, 0.5, 1, 1]
    assert sloped.steepest == 2
    assert ends.values(z).tolist() == [-1, -0.5, 0, 0.5, 0.5]
    # torch's derivative at either end is zero
    assert ends.active(z).tolist() == [False, True, True, False, False]
    assert ends.clearance(z).tolist() == [1, 0.5, 0.5, 0, 2.5]
    shown = ends.active_by_value(torch.tensor([[-1.0, 0.2, 0.5]]), torch.tensor([[0.01]]))
    assert shown is not None
    assert shown.tolist() == [[False, True, False]]
    assert Piecewise(slope=-slope).active_by_value(z[None], z[None, :1]) is None


def test_commands_take_them_and_say_what_they_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model, x, y = drawn("leaky", (8, 90, 4), 4, 0)
    monkeypatch.chdir(tmp_path)
    Path("sloped.py").write_text(
        "from torch import nn\n"
        "def net(): return nn.Sequential(nn.Linear(8, 90), nn.LeakyReLU(0.01), nn.Linear(90, 4)).double()\n"
    )
    safetensors.torch.save_file(model.state_dict(), "weights.safetensors")
    safetensors.torch.save_file(gradient(model, x, y), "gradient.safetensors")
    np.savez("batch.npz", x=x.numpy(), y=y.numpy())
    asked = ("sloped:net", "--weights", "weights.safetensors")
    given = ("attack", asked[0], "gradient.safetensors", *asked[1:])
    assert main([*given, "--out", "found.npz", "--truth", "batch.npz", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert "LeakyReLU of slope 0.01" in record["architecture"]
    assert [one["tier"] for one in record["status"]] == ["confirmed"] * 4
    gated = ("audit", asked[0], "batch.npz", *asked[1:], "--attack", "--fail-on", "recovered")
    assert main([*gated, "--report", "report.html"]) == 1
    said = capsys.readouterr().out
    assert "LeakyReLU of slope 0.01" in said
    assert "LeakyReLU of slope 0.01" in Path("report.html").read_text()
