"""Batches refined and told from others as a whole, every equation weighted by its noise (Appendix W)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify.bench.attack import autograd_gradient
from exan_verify.bench.cramer_rao import least_error
from exan_verify.models.chain import to_network
from exan_verify.numeric.ask_methods import column_spaces
from exan_verify.numeric.attack import run
from exan_verify.numeric.joint.exclude import others_excluded_typically
from exan_verify.numeric.joint.judge import judge_jointly
from exan_verify.numeric.joint.refine import Moves, refine_jointly
from exan_verify.numeric.problem.passes import weight_gains
from exan_verify.numeric.problem.problem import Problem, build_problem
from exan_verify.numeric.problem.records import Attack, Finding
from tests.support.numeric_cases import drawn_network

WIDTHS, SAMPLES = (40, 140, 5), 6


def fitted(seed: int, factor: float = 3.0) -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A network whose loss vectors differ by orders of magnitude: large logits, all labels right but one."""
    rng = np.random.default_rng([seed, 20])
    model = drawn_network(WIDTHS, rng)
    with torch.no_grad():
        model[2].weight.mul_(factor * 4)
    x = torch.tensor(rng.random((SAMPLES, WIDTHS[0])))
    y = model.double()(x).argmax(dim=1)
    y[0] = (y[0] + 1) % WIDTHS[-1]
    return model.float(), x.float(), y


def problem_of(model: nn.Sequential, gradient: dict[str, torch.Tensor]) -> Problem:
    return build_problem(to_network(model), gradient, loss="cross_entropy", reduction="mean")


def with_noise(
    model: nn.Sequential, x: torch.Tensor, y: torch.Tensor, seed: int, size: float
) -> dict[str, torch.Tensor]:
    """The gradient with noise of ``size`` times its root mean square on every entry."""
    gradient = autograd_gradient(model, x, y, "float64")
    rng = np.random.default_rng([seed, 21])
    rms = torch.cat([g.flatten() for g in gradient.values()]).square().mean().sqrt()
    return {n: g + size * rms * torch.tensor(rng.standard_normal(g.shape)) for n, g in gradient.items()}


def claims(found: Attack, x: torch.Tensor, y: torch.Tensor) -> tuple[int, int]:
    """How many are confirmed, and how many found are beyond their bound or have a wrong label."""
    wrong = 0
    for sample, label, evidence in zip(found.x, found.y, found.status, strict=True):
        errors = (x.double() - sample).abs().amax(dim=1)
        nearest = int(errors.argmin())
        wrong += not (float(errors[nearest]) <= evidence.error_bound and int(y[nearest]) == int(label))
    return found.count("confirmed"), wrong


def attacked(seed: int, kind: str) -> tuple[int, int, bool]:
    """The same of an attack, and whether its noise had to be independent."""
    model, x, y = fitted(seed)
    single = kind == "float32"
    gradient = autograd_gradient(model, x, y, kind) if single else with_noise(model, x, y, seed, float(kind))
    found = run(to_network(model), gradient, loss="cross_entropy", reduction="mean", method="lift")
    # what the exclusion takes for granted is said to whoever reads the result
    presumed = any(one.presumes for one in found.status if one.tier == "confirmed")
    assert presumed == any("independent from entry to entry" in note for note in found.notes)
    return *claims(found, x, y), presumed


@pytest.mark.parametrize(("kind", "floor"), [("float32", 0.9), ("1e-6", 0.4)])
def test_what_is_confirmed_is_within_its_bound(kind: str, floor: float):
    outcomes = [attacked(seed, kind) for seed in range(8)]
    assert sum(wrong for _, wrong, _ in outcomes) == 0
    assert sum(confirmed for confirmed, _, _ in outcomes) >= floor * 8 * SAMPLES
    # rounding alone is bounded well enough without
    assert kind == "float32" or any(presumed for *_, presumed in outcomes)


def test_weak_samples_are_consistent_with_an_estimate():
    # their equations fit, and their errors are estimated at more than what is confirmed may have
    model, x, y = fitted(6)
    found = run(to_network(model), with_noise(model, x, y, 6, 1e-4), loss="cross_entropy", reduction="mean")
    assert found.complete
    weak = [one for one in found.status if one.error_bound > 1e-3]
    assert weak
    assert all(one.tier == "consistent" and one.label_margin > 2 for one in weak)
    assert claims(found, x, y)[1] == 0


def test_a_sample_below_the_noise_has_neither_a_bound_nor_a_label():
    model, x, y = fitted(1)
    given = with_noise(model, x, y, 5, 0.3)
    problem = problem_of(model, given)
    space = replace(column_spaces(problem)[0], noise=1e3)
    finding = Finding(
        method="lift",
        x=x.double(),
        rest=x.new_zeros(WIDTHS[1], 0).double(),
        rest_sine=1.0,
        layer=1,
        layers=(),
        reason="",
    )
    judged = judge_jointly(problem, space, finding, weight_gains(problem))
    assert judged is not None
    hidden = [one for one in judged.candidates if not np.isfinite(one.error_estimate)]
    assert hidden
    assert all(one.label is None and "not bounded" in one.reason for one in hidden)


@pytest.mark.campaign
def test_twenty_thousand_claims_are_within_their_bounds():
    confirmed = wrong = seed = 0
    while confirmed < 20_000:
        for kind in ("float32", "1e-7", "1e-6"):
            more, beyond, _ = attacked(seed, kind)
            confirmed, wrong = confirmed + more, wrong + beyond
        seed += 1
        assert wrong == 0, f"seed {seed - 1}"


def test_noise_moves_the_inputs_by_its_deviations():
    # first-order deviations against what drawn noise does: their mean square agrees
    model, x, y = fitted(0, factor=0.5)
    clean = autograd_gradient(model, x, y, "float64")
    rng = np.random.default_rng(3)
    size = 1e-7 * float(clean["0.weight"].square().mean().sqrt())
    ratios = []
    for _ in range(3):
        noisy = {n: g + size * torch.tensor(rng.standard_normal(g.shape)) for n, g in clean.items()}
        problem = problem_of(model, noisy)
        fit = refine_jointly(problem, x.double(), y, problem.divisor(SAMPLES), 1e6)
        assert fit is not None
        ratios.append(float(((fit.x - x.double()) / fit.deviations).square().mean().sqrt()))
    # deviations have a safety of 1.25, and count the deltas' part beside the direct one
    assert 0.4 <= np.mean(ratios) <= 1.0


def test_deviations_are_those_of_noise_that_is_drawn():
    # what noise in columns, in logits and labels and in the deltas' sums makes of the inputs, to first order;
    # logits that change thirty times as much bring inputs to move each other by as much as noise moves them
    model, x, y = fitted(3)
    problem = problem_of(model, with_noise(model, x, y, 5, 1e-6))
    fit = refine_jointly(problem, x.double(), y, problem.divisor(SAMPLES), 1e6)
    assert fit is not None
    at, rng = replace(fit.linear, logits=30 * fit.linear.logits), np.random.default_rng(11)
    # nu and eps larger than the noise
    at = replace(at, sizes=10 * fit.level / at.whitened[:, SAMPLES:].norm(dim=0).clamp(min=1e-300))
    moves = Moves.of(at, fit.linear.left_inverse(fit.level)[0])
    squared = torch.zeros_like(at.x)
    for _ in range(400):
        rest = torch.tensor(rng.standard_normal((len(at.rows), WIDTHS[0] + 1))) * fit.columns
        sizes = torch.tensor(rng.standard_normal(len(at.sizes))) * at.sizes
        rest = rest + (at.whitened[:, SAMPLES:] * sizes) @ at.inputs[at.owner]
        rest = rest + torch.tensor(rng.standard_normal(at.delta_noise.shape)) * at.delta_noise @ at.inputs
        seen = moves.left @ rest
        squared += moves.inputs(seen[:, :-1] - seen[:, -1:] * at.x).square() / 400
    ratios = squared.sqrt() / moves.deviations(fit.columns)
    assert float(ratios.mean()) == pytest.approx(1.0, abs=0.02)
    assert 0.8 <= float(ratios.min()) <= float(ratios.max()) <= 1.2


def test_a_batch_beyond_the_noise_is_not_excluded():
    # with noise as large as the weakest sample's share nothing may be said of other batches
    model, x, y = fitted(1)
    clean = autograd_gradient(model, x, y, "float64")
    rng = np.random.default_rng(5)
    size = float(clean["0.weight"].square().mean().sqrt())
    noisy = {n: g + size * torch.tensor(rng.standard_normal(g.shape)) for n, g in clean.items()}
    problem = problem_of(model, noisy)
    fit = refine_jointly(problem, x.double(), y, problem.divisor(SAMPLES), 1e6)
    assert fit is not None
    excluded = others_excluded_typically(problem, fit, problem.divisor(SAMPLES))
    assert excluded.reason
    assert not bool(torch.isfinite(excluded.radius).any())


def test_the_least_error_is_that_of_the_dense_information():
    _, x, y = fitted(2, factor=0.3)
    x, y = x[:3, :8], y[:3]
    small = drawn_network((8, 30, 5), np.random.default_rng(7))

    def gradient(inputs: torch.Tensor) -> torch.Tensor:
        parameters = list(small.parameters())
        loss = nn.functional.cross_entropy(small(inputs), y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])

    jacobian = torch.autograd.functional.jacobian(gradient, x.double()).flatten(1)
    exact = float(torch.linalg.inv(jacobian.T @ jacobian).trace() / x.numel()) ** 0.5
    drawn = np.sqrt(np.mean([least_error(small, x, y, 1.0, seed) ** 2 for seed in range(60)]))
    assert drawn == pytest.approx(exact, rel=0.25)
