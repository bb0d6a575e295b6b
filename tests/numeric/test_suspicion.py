"""An attack that recovers nothing says which other loss, reduction or batch size the gradient fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exan_verify import attack
from exan_verify.core.question import Loss, Question, Reduction
from exan_verify.errors import RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.problem import build_problem
from exan_verify.numeric.problem.records import Attack
from exan_verify.numeric.problem.torch_losses import summed_loss
from exan_verify.numeric.wrong_question_hint import hint, likely_losses, other_fits
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd, perceptron

QUESTIONS = list(itertools.product(Loss, Reduction))
SAMPLES = 4


def model(classes: int = 4) -> nn.Sequential:
    return perceptron(12, 60, classes).double()


def batch(loss: Loss, classes: int = 4) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([0, 1])
    x, y = drawn_batch("rand", SAMPLES, 12, max(classes, 2), rng)
    if loss is Loss.BCE or classes == 1:
        return x, torch.tensor(rng.integers(2, size=(SAMPLES, classes))).double()
    return x, functional.one_hot(y, classes).double() if loss is Loss.MSE else y


def gradient(loss: Loss, reduction: Reduction, classes: int = 4, dtype: torch.dtype = torch.float64):
    x, y = batch(loss, classes)
    return autograd(model(classes), x.to(dtype), y, loss, reduction)


def attacked(given: dict[str, Tensor], loss: Loss, reduction: Reduction, **options: object) -> Attack:
    network = to_network(model(given["2.bias"].shape[0]))
    return run(network, given, loss=loss, reduction=reduction, **{"method": "lift", **options})


@pytest.mark.parametrize("true", QUESTIONS, ids=lambda q: f"{q[0].value}-{q[1].value}")
def test_the_right_question_is_named_whatever_was_said(true: tuple[Loss, Reduction]):
    given = gradient(*true)
    size = f", batch_size={SAMPLES}" if true[1] is Reduction.MEAN else ""
    fit = f"loss={true[0].value!r}, reduction={true[1].value!r}{size}"
    for loss, reduction in QUESTIONS:
        found = attacked(given, loss, reduction)
        if found.status:
            # without a batch size every loss of real labels would fit at some size; these are the right ones
            assert (loss, reduction) == true
            assert found.hint == ""
        elif found.candidates:
            expected = f"the candidates fit {fit}" if (loss, reduction) != true else "give batch_size"
            assert expected in found.hint
        else:
            # more unknowns than it was told: nothing separates, but the last layer's sums tell
            assert f"that of {loss.value} does: try loss bce or mse" in found.hint
            assert true[0] in (Loss.BCE, Loss.MSE)


def test_a_wrong_batch_size_is_named():
    found = attacked(gradient(Loss.CROSS_ENTROPY, Reduction.MEAN), *QUESTIONS[0], batch_size=3)
    assert "reduction='mean', batch_size=4: attack again with that" in found.hint
    found = attacked(gradient(Loss.CROSS_ENTROPY, Reduction.MEAN), *QUESTIONS[0], batch_size=4)
    assert (found.complete, found.hint) == (True, "")


@pytest.mark.parametrize("loss", Loss)
def test_the_last_layer_alone_tells_two_kinds_of_losses_apart(loss: Loss):
    for dtype, reduction in itertools.product((torch.float64, torch.float32), Reduction):
        problem = posed(gradient(loss, reduction, dtype=dtype), loss=Loss.CROSS_ENTROPY)
        assert loss in likely_losses(problem)
        assert len(likely_losses(problem)) == 2


def posed(given: dict[str, Tensor], *, loss: Loss, classes: int = 4):
    return build_problem(to_network(model(classes)), given, loss=loss, reduction="mean")


def test_one_logit_is_no_cross_entropy():
    for loss in (Loss.BCE, Loss.MSE):
        given = gradient(loss, Reduction.SUM, classes=1)
        assert loss in likely_losses(posed(given, loss=loss, classes=1))
        x, _ = batch(loss, 1)
        fit = Question(loss=loss, reduction=Reduction.SUM)
        assert list(other_fits(posed(given, loss=loss, classes=1), x)) == [fit]


def test_what_is_no_batch_s_gradient_gets_the_list_of_options_and_no_fit():
    rng = np.random.default_rng(3)
    noise = {name: torch.tensor(rng.normal(size=p.shape)) for name, p in model().named_parameters()}
    given = gradient(Loss.CROSS_ENTROPY, Reduction.MEAN)
    spoiled = {name: g + 0.002 * g.norm() * noise[name] / noise[name].norm() for name, g in given.items()}
    x, _ = batch(Loss.CROSS_ENTROPY)
    said = hint(posed(noise, loss=Loss.MSE), list(x), SAMPLES)
    for word in (
        "weights",
        "local_steps",
        "lr",
        "cross_entropy, bce, mse, hinge",
        "mean or sum",
        "batch size",
    ):
        assert word in said
    said = hint(posed(spoiled, loss=Loss.CROSS_ENTROPY), list(x), SAMPLES)
    assert "the candidates fit" not in said
    assert "noise" in said
    strangers = posed(given, loss=Loss.CROSS_ENTROPY)
    assert list(other_fits(strangers, x + 0.01)) == []
    assert list(other_fits(strangers, x[:3])) == []


def test_samples_that_leave_a_part_of_the_gradient_unexplained_fit_nothing():
    given = gradient(Loss.CROSS_ENTROPY, Reduction.MEAN)
    x, _ = batch(Loss.CROSS_ENTROPY)
    assert len(list(other_fits(posed(given, loss=Loss.CROSS_ENTROPY), x))) == 1
    # beside the samples' share, something orthogonal to all their features: their loss vectors stay the same
    features = torch.cat([model()[:2](x), torch.ones(SAMPLES, 1)], dim=1)
    extra = torch.linalg.svd(features).Vh[-1] * given["2.weight"].norm() / 10
    given["2.weight"] = given["2.weight"] + torch.outer(torch.ones(4), extra[:-1])
    given["2.bias"] = given["2.bias"] + extra[-1]
    assert list(other_fits(posed(given, loss=Loss.CROSS_ENTROPY), x)) == []


def test_features_below_convolutions_get_the_hint_of_their_head():
    from exan_verify import attack
    from exan_verify.models import strided_cnn
    from tests.support.cnn_cases import pictures

    net = strided_cnn(image_size=8, widths=(40, 480), head=(96,)).double()
    given = autograd(net, pictures((3, 8, 8), 3), torch.tensor([3, 1, 4]))
    found = attack(net, given, reduction="sum", method="lift", picture_iterations=0)
    assert len(found.features) == 0
    assert "loss='cross_entropy', reduction='mean', batch_size=3" in found.hint


@pytest.mark.parametrize("method", ["auto", "lift", "assign", "peel", "sample"])
def test_the_batch_size_that_is_told_is_the_one_that_is_spoken_of(method: str):
    """Noise fills the rank of the gradient: that is no batch size, and its sums name no loss."""
    rng = np.random.default_rng(0)
    given = {
        name: g + 0.3 * g.square().mean().sqrt() * torch.tensor(rng.normal(size=g.shape))
        for name, g in gradient(Loss.CROSS_ENTROPY, Reduction.MEAN).items()
    }
    said = "and batch_size=4 samples give no more than 4"
    if method in ("lift", "assign", "sample"):
        with pytest.raises(RangeError, match=said):
            attacked(given, *QUESTIONS[0], batch_size=4, method=method)
        return
    found = attacked(given, *QUESTIONS[0], batch_size=4, method=method)
    assert said in found.reason
    assert (found.batch_size, found.hint) == (4, "")


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.CROSS_ENTROPY])
@pytest.mark.parametrize("seed", range(3))
def test_soft_and_real_targets_are_named_and_found_as_told(loss: Loss, seed: int):
    rng = np.random.default_rng(seed)
    x, raw = torch.tensor(rng.random((SAMPLES, 12))), torch.tensor(rng.standard_normal((SAMPLES, 4)))
    network = model()
    value = summed_loss(loss, network(x), raw if loss is Loss.MSE else raw.softmax(dim=1))
    names, parameters = zip(*network.named_parameters(), strict=True)
    given = dict(zip(names, torch.autograd.grad(value, parameters), strict=True))
    assert "labels='real' and batch_size" in attacked(given, loss, Reduction.SUM).hint
    assert f"give batch_size, {SAMPLES} if" in attacked(given, loss, Reduction.SUM, labels="real").hint
    assert attacked(given, loss, Reduction.SUM, labels="real", batch_size=SAMPLES).complete


def drawn_gradient(
    seed: int, widths: tuple[int, ...] = (24, 90, 6)
) -> tuple[nn.Sequential, Tensor, Tensor, dict[str, Tensor]]:
    rng = np.random.default_rng([seed, 9])
    network = drawn_network(widths, rng)
    x, y = drawn_batch("rand", 4, 24, 6, rng)
    return network, x, y, autograd(network, x, y, Loss.CROSS_ENTROPY, Reduction.MEAN)


def in_steps(one: Tensor, steps: Tensor) -> Tensor:
    return (one / steps).round() * steps


ALTERED = {
    "bfloat16": "rounded to bfloat16",
    "int8": "quantised",
    "int8 by row": "quantised",
}


@pytest.mark.parametrize("kind", ALTERED)
def test_what_was_done_to_a_gradient_with_right_candidates_is_named(kind: str):
    for seed in range(3):
        # of one hidden layer, samples that roundings leave are refined together, and consistent
        network, *_, given = drawn_gradient(seed, (24, 90, 40, 6))
        altered = {}
        for name, one in given.items():
            rows = one.abs().amax(dim=-1, keepdim=True).clamp(min=1e-9)
            altered[name] = {
                "bfloat16": one.bfloat16().double(),
                "int8": in_steps(one, one.abs().max() / 127),
                "int8 by row": in_steps(one, rows / 127),
            }[kind]
        found = attack(network, altered, method="lift")
        assert found.status == ()
        assert ALTERED[kind] in found.hint


def test_noise_and_weight_decay_are_named_where_candidates_are_nearly_right():
    for seed in range(5):
        network, x, _, given = drawn_gradient(seed)
        rng = np.random.default_rng(seed)
        size = float(torch.cat([one.flatten() for one in given.values()]).square().mean().sqrt())
        noisy = {n: one + 1e-2 * size * torch.tensor(rng.normal(size=one.shape)) for n, one in given.items()}
        problem = build_problem(to_network(network), noisy, loss="cross_entropy", reduction="mean")
        near = x + 1e-3 * torch.tensor(rng.normal(size=x.shape))
        assert "noise" in hint(problem, list(near), len(x))
        assert "noise" not in hint(problem, list(torch.tensor(rng.random(x.shape))), len(x))
        decayed = {n: given[n] + 1e-3 * p.detach() for n, p in network.named_parameters()}
        problem = build_problem(to_network(network), decayed, loss="cross_entropy", reduction="mean")
        assert "0.001 times its weights" in hint(problem, list(near), len(x))
        mended = {n: decayed[n] - 1e-3 * p.detach() for n, p in network.named_parameters()}
        assert attack(network, mended).complete


def test_wrong_signs_ask_for_no_factor():
    """Signs fill the rank, which is taken for the size: the factor that makes up for it is one."""
    seen = 0
    for seed in range(4):
        network, x, _, given = drawn_gradient(seed)
        rng = np.random.default_rng(seed)
        flipped = {
            name: torch.where(torch.tensor(rng.random(tuple(one.shape)) < 2e-3), -one, one)
            for name, one in given.items()
        }
        found = attack(network, flipped)
        if found.status and found.layers and found.layers[0].rank > len(x):
            assert (found.scale, found.batch_size) == (1.0, len(x))
            assert "wrong signs" in found.reason
            assert found.notes == ()
            seen += 1
    assert seen >= 2


def test_a_factor_that_is_not_told_costs_no_fit_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("exan_verify.numeric.confirming.whole_batch._step", lambda *_: asked.append(1))
    for seed in range(3):
        rng = np.random.default_rng([seed, 4])
        network = drawn_network((16, 60, 30, 5), rng)
        x, y = drawn_batch("rand", 3, 16, 5, rng)
        given = autograd(network, x, y, Loss.CROSS_ENTROPY, Reduction.MEAN)
        assert len(attack(network, given, reduction="sum").status) == 3
        found = attack(network, {name: 7 * one for name, one in given.items()})
        assert len(found.status) == 3
        assert abs(found.scale - 7) < 1e-9
    assert asked == []


def test_a_limit_is_said_to_be_relative():
    for seed in range(3):
        rng = np.random.default_rng([seed, 5])
        network = drawn_network((24, 90, 30, 6), rng)
        x, y = drawn_batch("rand", 3, 24, 6, rng)
        given = autograd(network, x, y, Loss.CROSS_ENTROPY, Reduction.MEAN)
        noisy = {
            name: one + 1e-5 * one.square().mean().sqrt() * torch.tensor(rng.normal(size=one.shape))
            for name, one in given.items()
        }
        reasons = [one.reason for one in attack(network, noisy, method="peel").candidates]
        assert any("(1e-03 of the largest entry of its input, or of 1)" in one for one in reasons)
