"""What is confirmed, what is consistent only, and what is found of gradients that were multiplied on the
way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exan_verify import attack
from exan_verify.core.question import Loss
from exan_verify.errors import InputError, RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.confirming.adding_up import added_up
from exan_verify.numeric.confirming.confirm import Confirmed
from exan_verify.numeric.problem.metrics import score, wrong_claims
from exan_verify.numeric.problem.problem import build_problem
from exan_verify.numeric.problem.records import Attack, Candidate, Evidence, Tier
from exan_verify.numeric.problem.spectrum import column_space
from tests.support.numeric_cases import drawn_batch, drawn_network, two_batches
from tests.support.torch_reference import FUNCTIONS

Gradient = dict[str, Tensor]


def gradient(model: nn.Module, loss: Callable[[Tensor], Tensor], x: Tensor) -> Gradient:
    model.zero_grad()
    loss(model(x)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def case(
    seed: int, widths: tuple[int, ...] = (30, 100, 4), samples: int = 4
) -> tuple[nn.Sequential, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    model = drawn_network(widths, rng)
    x, y = drawn_batch("rand", samples, widths[0], widths[-1], rng)
    return model, x, y


def all_right(found: Attack, x: Tensor, y: Tensor) -> bool:
    bounds = [one.error_bound for one in found.status]
    return found.complete and len(found.x) == len(x) and not wrong_claims(found.x, found.y, bounds, x, y)


@pytest.mark.parametrize("seed", range(8))
def test_of_two_batches_with_one_gradient_neither_is_confirmed(seed: int):
    rng = np.random.default_rng(seed)
    model, (x, y), (other, labels) = two_batches(int(rng.integers(36, 81)), int(rng.integers(6, 20)), rng)
    bce = functional.binary_cross_entropy_with_logits
    here = gradient(model, lambda f: bce(f, y, reduction="sum"), x)
    there = gradient(model, lambda f: bce(f, labels, reduction="sum"), other)
    assert all(torch.allclose(here[name], there[name], atol=1e-12) for name in here)
    assert float(torch.cdist(x, other).min()) > 0.3
    for told in (None, 6):
        found = attack(model, here, loss="bce", reduction="sum", batch_size=told)
        assert found.complete
        assert found.count(Tier.CONFIRMED) == 0
        assert all("more solutions" in one.unconfirmed for one in found.status)


@pytest.mark.campaign
def test_of_a_hundred_pairs_of_batches_none_is_confirmed():
    bce = functional.binary_cross_entropy_with_logits
    for seed in range(100):
        rng = np.random.default_rng(seed)
        model, (x, y), _ = two_batches(int(rng.integers(36, 81)), int(rng.integers(6, 20)), rng)
        given = gradient(model, lambda f, y=y: bce(f, y, reduction="sum"), x)
        assert attack(model, given, loss="bce", reduction="sum").count(Tier.CONFIRMED) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse", "hinge"])
@pytest.mark.parametrize("widths", [(30, 100, 4), (12, 90, 70, 3)])
def test_ordinary_batches_are_confirmed_within_their_bounds(
    widths: tuple[int, ...], loss: str, dtype: torch.dtype
):
    confirmed = 0
    for seed in range(3):
        model, x, y = case(seed, widths)
        model, x = model.to(dtype), x.to(dtype)
        target = functional.one_hot(y, widths[-1]).to(dtype) if loss in ("bce", "mse") else y
        given = gradient(model, lambda f, t=target: FUNCTIONS[Loss(loss)](f, t), x)
        found = attack(model, given, loss=loss, batch_size=4)
        bounds = [one.error_bound for one in found.status]
        assert not wrong_claims(found.x, found.y, bounds, x.double(), target)
        confirmed += found.count(Tier.CONFIRMED)
    assert confirmed >= (12 if dtype is torch.float64 else 6)


def test_samples_of_a_batch_that_is_not_whole_are_consistent():
    model, x, y = case(1)
    # two samples that no neuron tells apart are one to the attack
    x[1] = x[0] + 1e-7 * torch.tensor(np.random.default_rng(0).normal(size=x.shape[1]))
    given = gradient(model, lambda f: functional.cross_entropy(f, y), x)
    found = attack(model, given, batch_size=4)
    assert found.count(Tier.CONFIRMED) == 0
    assert score(found.x, found.y, x, y).recall >= 0.5


FACTORS = (-0.1, 0.18, 65536.0, 2.0, -3e-4)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse", "hinge"])
def test_the_factor_of_a_gradient_is_found_and_said(loss: str, factor: float):
    model, x, y = case(int(1000 * abs(factor)) % 17)
    target = functional.one_hot(y, 4).double() if loss in ("bce", "mse") else y
    given = gradient(model, lambda f: factor * FUNCTIONS[Loss(loss)](f, target), x)
    for options in ({}, {"scale": "unknown"}, {"scale": factor}):
        found = attack(model, given, loss=loss, batch_size=4, **options)
        assert all_right(found, x, target)
        assert found.scale == pytest.approx(factor, rel=1e-9)
        assert any("times that of a batch of 4" in note for note in found.notes) == (not options)


def test_two_means_added_up_are_twice_the_mean():
    model, x, y = case(5, samples=6)
    mean = functional.cross_entropy
    given = gradient(model, lambda f: mean(f[:3], y[:3]) + mean(f[3:], y[3:]), x)
    found = attack(model, given)
    assert all_right(found, x, y)
    assert found.scale == pytest.approx(2)


def test_one_logit_and_an_unknown_sign_leave_no_factor_where_two_fit():
    model, x, _ = case(2, (12, 60, 1), 1)
    bce, target = functional.binary_cross_entropy_with_logits, torch.ones(1, 1, dtype=torch.float64)
    given = gradient(model, lambda f: -0.3 * bce(f, target), x)
    found = attack(model, given, loss="bce", scale="unknown", batch_size=1)
    assert len(found.x) == 0
    assert all(float((one.x - x[0]).abs().max()) < 1e-9 for one in found.candidates)
    assert "no single factor" in found.candidates[0].reason


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["class weights", "clipped samples"])
def test_unknown_positive_weights_leave_inputs_labels_and_the_weights(kind: str, seed: int):
    rng = np.random.default_rng(seed)
    model, x, y = case(seed)
    weights = torch.tensor(rng.uniform(0.05, 3, 4))
    own = weights[y] if kind == "class weights" else weights
    given = gradient(model, lambda f: (functional.cross_entropy(f, y, reduction="none") * own).mean(), x)
    assert "weights='positive'" in attack(model, given, batch_size=4).hint
    found = attack(model, given, weights="positive", batch_size=4)
    assert all_right(found, x, y)
    assert found.count(Tier.CONFIRMED) == 4
    order = [int((found.x - row).abs().amax(dim=1).argmin()) for row in x]
    assert [found.status[m].weight for m in order] == pytest.approx(own.tolist(), rel=1e-8)


def test_positive_weights_per_logit_leave_the_inputs_and_the_labels_by_sign():
    model, x, y = case(3)
    target = functional.one_hot(y, 4).double()
    weight = torch.tensor(np.random.default_rng(0).uniform(0.3, 3, 4))
    bce = functional.binary_cross_entropy_with_logits
    given = gradient(model, lambda f: bce(f, target, pos_weight=weight), x)
    found = attack(model, given, loss="bce", weights="positive", batch_size=4)
    assert all_right(found, x, target)
    assert found.count(Tier.CONFIRMED) == 0


def test_smoothed_and_soft_labels_are_found_when_they_are_said():
    model, x, y = case(4)
    given = gradient(model, lambda f: functional.cross_entropy(f, y, label_smoothing=0.1), x)
    assert len(attack(model, given).x) == 0
    assert all_right(attack(model, given, smoothing=0.1), x, y)
    soft = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(4), 4))
    given = gradient(model, lambda f: functional.cross_entropy(f, soft), x)
    assert len(attack(model, given, batch_size=4).x) == 0
    assert all_right(attack(model, given, labels="real", batch_size=4), x, soft)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": 0}, "not a factor"),
        ({"scale": "half"}, "not a factor"),
        ({"scale": float("nan")}, "not a factor"),
        ({"scale": True}, "not a factor"),
        ({"weights": "negative"}, "'equal' or 'positive'"),
        ({"smoothing": 1.0}, r"not in \[0, 1\)"),
        ({"smoothing": 0.1, "loss": "mse"}, "class labels of cross_entropy"),
        ({"scale": "unknown", "labels": "real", "loss": "mse"}, "explain a loss vector of any size"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(options: dict[str, object], said: str):
    model, x, y = case(0)
    given = gradient(model, lambda f: functional.cross_entropy(f, y), x)
    with pytest.raises(InputError, match=said):
        attack(model, given, **options)  # type: ignore[arg-type]


def _sign(given: Gradient) -> Gradient:
    return {name: g.sign() for name, g in given.items()}


def _adam(given: Gradient) -> Gradient:
    return {name: -1e-3 * g / (g.abs() + 1e-8) for name, g in given.items()}


def _largest(given: Gradient) -> Gradient:
    least = torch.cat([g.flatten().abs() for g in given.values()]).quantile(0.9)
    return {name: torch.where(g.abs() >= least, g, 0.0) for name, g in given.items()}


@pytest.mark.parametrize(
    ("altered", "said"), [(_sign, "one magnitude"), (_adam, "one magnitude"), (_largest, "top-k")]
)
def test_numbers_that_are_no_gradient_are_named_by_what_they_look_like(
    altered: Callable[[Gradient], Gradient], said: str
):
    for seed in range(4):
        model, x, y = case(seed, (30, 100, 80, 4) if seed % 2 else (30, 100, 4))
        given = altered(gradient(model, lambda f, y=y: functional.cross_entropy(f, y), x))
        with suppress(RangeError):
            found = attack(model, given, batch_size=4)
            assert said in found.hint
            assert "batch" not in found.hint
            continue
        with pytest.raises(RangeError, match=said):
            attack(model, given, batch_size=4)


def test_what_an_earlier_method_found_is_added_to_what_a_later_one_did():
    model, x, y = case(6, samples=5)
    given = gradient(model, lambda f: functional.cross_entropy(f, y), x)
    problem = build_problem(to_network(model), given, loss="cross_entropy", reduction="mean", batch_size=5)
    space = column_space(problem.layers[0], unit_roundoff=2.0**-53, most=8, generator=problem.generator())
    evidence = Evidence(
        method="some", layer=1, error_bound=1e-9, residual=0, isolation=1, label_residual=0, label_margin=9
    )

    def part(chosen: list[int], shift: float = 0.0, candidates: tuple[Candidate, ...] = ()) -> Confirmed:
        return Confirmed(
            x=x[chosen] + shift,
            y=y[chosen],
            status=(evidence,) * len(chosen),
            candidates=candidates,
            gradient_residual=1.0,
            complete=False,
            batch_size=5,
            batch_size_source="given",
            reason="",
        )

    near = Candidate(x=x[3] + 1e-5, label=None, error_estimate=1.0, reason="near one that was found")
    far = Candidate(x=x[4] + 1.0, label=None, error_estimate=1.0, reason="far from all")
    both = added_up(problem, space, part([0, 1], candidates=(near, far)), part([1, 3]))
    assert sorted(float((row - x).abs().amax(dim=1).min()) for row in both.x) == [0.0] * 3
    assert [one.reason for one in both.candidates] == ["far from all"]
    # what cannot be in one batch with the samples found is shown beside them, and not among them
    strange = added_up(problem, space, part([0, 1]), part([3], shift=0.5))
    assert len(strange.x) == 2
    assert "not beside" in strange.candidates[0].reason
    other = added_up(problem, space, part([0, 1]), replace(part([3]), scale=2.0))
    assert len(other.x) == 2
