"""Samples that rows of layer 1 and labels show, in batches whose inputs are dependent or nearly so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify.bench.cases.traps import robust_soliton, trap_network
from exan_verify.models.chain import to_network
from exan_verify.numeric.ask_methods import column_spaces
from exan_verify.numeric.attack import run
from exan_verify.numeric.confirming.closed_rows import judge_own_rows
from exan_verify.numeric.methods.exclusive_neurons.labelled_rows import peel_by_labels
from exan_verify.numeric.problem.metrics import score, wrong_claims
from exan_verify.numeric.problem.own_rows import solve_own_rows
from exan_verify.numeric.problem.passes import backward, forward, weight_gains
from exan_verify.numeric.problem.problem import Problem, build_problem
from tests.support.attack_cases import proposed
from tests.support.torch_reference import autograd

FEATURES, NEURONS, CLASSES = 40, 220, 5


def trapped(samples: int, seed: int, loss: str = "cross_entropy") -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network with traps for so many samples of 40 features, which are dependent beyond 41."""
    rng = np.random.default_rng([seed, 31])
    weight = rng.normal(size=(NEURONS, FEATURES)) / FEATURES**0.5
    degrees = rng.choice(np.arange(1, samples + 1), size=NEURONS, p=robust_soliton(samples))
    seen = -np.sort(-(rng.random((2000, FEATURES)) @ weight.T), axis=0)
    bias = -seen[np.clip(degrees * 2000 // samples, 1, 1999), np.arange(NEURONS)]
    model = nn.Sequential(nn.Linear(FEATURES, NEURONS), nn.ReLU(), nn.Linear(NEURONS, CLASSES)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(weight))
        model[0].bias.copy_(torch.tensor(bias))
        model[2].weight.copy_(torch.tensor(rng.normal(size=(CLASSES, NEURONS)) / 4))
        model[2].bias.copy_(torch.tensor(rng.normal(size=CLASSES)))
    x = torch.tensor(rng.random((samples, FEATURES)))
    y = torch.tensor(rng.integers(CLASSES, size=samples))
    if loss == "bce":
        return model, x, torch.tensor(rng.integers(2, size=(samples, CLASSES))).double()
    return model, x, nn.functional.one_hot(y, CLASSES).double() if loss == "mse" else y


def peelable(model: nn.Sequential, x: Tensor) -> list[bool]:
    """Who is left alone at some neuron once others are taken out, in turn."""
    active = model[0](x) > 0
    known = torch.zeros(len(x), dtype=torch.bool)
    while True:
        alone = active & ~known[:, None]
        fresh = (alone & (alone.sum(dim=0) == 1)).any(dim=1)
        if not bool(fresh.any()):
            return known.tolist()
        known |= fresh


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse"])
def test_more_samples_than_features_are_peeled_by_their_labels(loss: str):
    for seed in range(3):
        model, x, y = trapped(70, seed, loss)
        given = autograd(model, x, y, loss, "mean")
        found = run(to_network(model), given, loss=loss, reduction="mean", batch_size=70, method="peel")
        bounds = [one.error_bound for one in found.status]
        assert wrong_claims(found.x, found.y, bounds, x, y) == 0
        assert max(bounds) < 1e-6
        shown = torch.cat([found.x, *(one.x[None] for one in found.candidates)])
        missed = torch.cdist(x, shown).amin(dim=1)[torch.tensor(peelable(model, x))] > 1e-6
        assert not bool(missed.any())
        assert len(found.x) >= 0.8 * sum(peelable(model, x)) > 20
        # the size is read off the labels where it is not told
        again = run(to_network(model), given, loss=loss, reduction="mean", method="peel")
        assert (len(again.x), again.batch_size) == (len(found.x), 70)


def test_a_whole_batch_of_dependent_inputs_is_complete_in_auto():
    for seed in range(10):
        model, x, y = trapped(48, seed)
        if all(peelable(model, x)):
            break
    given = autograd(model, x, y, "cross_entropy", "mean")
    found = run(to_network(model), given, loss="cross_entropy", reduction="mean", batch_size=48)
    assert found.complete
    assert score(found.x, found.y, x, y).recall == 1.0
    # another batch is not excluded
    assert found.count("consistent") == 48


def problem_of(model: nn.Sequential, x: Tensor, y: Tensor) -> Problem:
    given = autograd(model, x, y, "cross_entropy", "mean")
    return build_problem(to_network(model), given, loss="cross_entropy", reduction="mean", batch_size=len(x))


def test_errors_of_what_is_solved_together_are_below_their_estimates_and_above_rounding():
    for seed in range(6):
        model, x, y = trapped(70, seed)
        problem = problem_of(model, x, y)
        gains = weight_gains(problem)
        peeled = peel_by_labels(problem, column_spaces(problem), 70)
        assert peeled is not None
        off = peeled.error * (1 + peeled.x.norm(dim=1))
        own = solve_own_rows(problem, peeled.x, peeled.y, off, 70.0, gains)
        errors = torch.cdist(own.x, x, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        assert bool((errors <= own.error).all())
        assert float(own.error.median()) < 1e-10
        assert float(own.error.max()) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_whose_bias_entry_fits_a_label_is_refused(seed: int):
    """A row of samples that are not found, sized so that its bias entry is what a label gives: a coincidence
    has to meet no more than this one equation."""
    model, x, y = trapped(170, seed)
    problem = problem_of(model, x, y)
    gains = weight_gains(problem)
    peeled = peel_by_labels(problem, column_spaces(problem), 170)
    assert peeled is not None
    truth = torch.cdist(x, peeled.x).amin(dim=1) < 1e-6
    active = (model[0](x) > 0) & ~truth[:, None]
    layer = problem.layers[0]
    left = layer.augmented() - peeled.deltas.T @ torch.cat([peeled.x, torch.ones(len(peeled.x), 1)], dim=1)
    tried = 0
    for row in torch.nonzero(active.sum(dim=0) > 1)[:, 0].tolist():
        mixture = (left[row, :-1] / left[row, -1])[None]
        trace = forward(problem, mixture)
        if not bool(trace.pre[0][0, row] > 0):
            continue
        for label in range(CLASSES):
            label_y = torch.tensor([label])
            delta = backward(problem, trace, problem.loss_vectors(trace.logits, label_y) / 170)[0][0, row]
            # the row at the size at which it is the mixture's own
            scale = float(delta / left[row, -1])
            bias, weight = layer.d_bias.clone(), layer.d_weight.double().clone()
            bias[row] += (scale - 1) * left[row, -1]
            weight[row] += (scale - 1) * left[row, :-1]
            first = replace(layer, d_weight=weight, d_bias=bias)
            coincident = replace(problem, layers=(first, *problem.layers[1:]))
            finding = proposed(
                torch.cat([peeled.x, mixture]),
                layer.weight[:, :0].double(),
                y=torch.cat([peeled.y, label_y]),
                errors=torch.cat([peeled.error, torch.full((1,), 1e-12, dtype=torch.float64)]),
            )
            judged = judge_own_rows(coincident, finding, 170, gains)
            tried += 1
            assert not bool(((judged.x - mixture).abs().amax(dim=1) < 1e-3).any())
        if tried >= 10:
            break
    assert tried


@pytest.mark.campaign
def test_digits_in_traps_are_peeled():
    model, x, y = trap_network(256, 0)
    given = autograd(model.double(), x.double(), y, "cross_entropy", "mean")
    found = run(to_network(model), given, loss="cross_entropy", reduction="mean", method="peel")
    assert score(found.x, found.y, x, y).recall == 1.0
    assert wrong_claims(found.x, found.y, [one.error_bound for one in found.status], x, y) == 0
