"""The search by the difference map: what it finds beyond lifting, what it refuses, what it never claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.methods.equations import layer_equations, lifted_unknowns
from exan_verify.numeric.methods.searching.difference_map import difference_map
from exan_verify.numeric.methods.searching.guesses import active_value_guesses, loss_vector_guesses
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.passes import backward, forward
from tests.support.attack_cases import attacked, largest_excess, problem_of, spaces_of
from tests.support.cases import default_network, random_case
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd, gradient


@pytest.mark.parametrize("widths", [[40, 200, 5], [40, 200, 100, 5]])
@pytest.mark.parametrize("loss", list(Loss))
def test_recovers_batches_that_no_lifting_can(widths: list[int], loss: Loss):
    samples = 30
    assert lifted_unknowns(samples, widths[-1] - 1) - samples > widths[1]
    network, batch = random_case(widths, samples, seeds=(3, 5), loss=loss)
    found = attacked(network, batch, loss, method="assign", batch_size=samples)
    assert found.complete, found.reason
    assert found.x.shape[0] == samples
    assert largest_excess(found, batch) <= 1
    assert max(status.error_bound for status in found.status) < 1e-6


@pytest.mark.parametrize("loss", [Loss.BCE, Loss.MSE])
def test_one_logit(loss: Loss):
    network = default_network([30, 120, 1], seed=2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 30)).astype(np.float32)
    batch = Batch.of(x, rng.integers(0, 2, (20, 1)), network=network, loss=loss, labels=Labels.ONE_HOT)
    found = attacked(network, batch, loss, method="assign", batch_size=20)
    assert found.complete, found.reason
    assert largest_excess(found, batch) <= 1


def test_auto_goes_on_where_lifting_lacks_equations():
    network, batch = random_case([40, 200, 5], 30, seeds=(4, 5))
    found = attacked(network, batch)
    assert found.complete
    assert found.method == "assign"
    assert found.status[0].method == "assign"


def test_float32_gradients_are_recovered_within_their_bounds():
    network, batch = random_case([40, 300, 6], 30, seeds=(4, 5))
    found = attacked(network, batch, method="assign", dtype=np.float32)
    assert len(found.status) > 20
    assert largest_excess(found, batch) <= 1


def test_same_seed_same_result():
    network, batch = random_case([40, 200, 5], 30, seeds=(4, 5))
    first, second = (attacked(network, batch, method="assign", seed=3) for _ in range(2))
    assert torch.equal(first.x, second.x)


def test_too_few_neurons_name_every_layer():
    network, batch = random_case([30, 40, 10], 25, seeds=(1, 1))
    with pytest.raises(RangeError, match=r"1\.5 neurons per unknown \(layer 1: \d+ live neurons for 25"):
        attacked(network, batch, method="assign")


def test_a_gradient_of_no_batch_yields_nothing():
    network, batch = random_case([40, 80, 5], 20, seeds=(1, 1))
    given = gradient(network, batch, Loss.CROSS_ENTROPY, Reduction.MEAN)
    names = list(given)
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(80, 20)) @ rng.normal(size=(20, 41))
    given[names[0]], given[names[1]] = mixed[:, :-1], mixed[:, -1]
    found = run(network, given, loss="cross_entropy", reduction="mean", method="assign")
    assert found.x.shape[0] == 0
    assert not found.complete
    assert "0 of 20 samples found" in found.reason


def test_samples_of_one_region_are_found_as_a_group():
    network, base = random_case([40, 200, 5], 29, seeds=(4, 5))
    x = np.concatenate([base.inputs.astype(np.float64), base.inputs[:1] + 2.0**-26])
    y = np.append(base.labels, (base.labels[0] + 1) % 5)
    batch = Batch.of(x, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    found = attacked(network, batch, method="assign")
    assert "groups of [2]" in found.reason
    assert largest_excess(found, batch) <= 1
    assert not found.complete


def test_the_gap_is_small_only_at_samples():
    network, batch = random_case([40, 200, 5], 20, seeds=(4, 5))
    problem, spaces = _problem(network, batch)
    equations = layer_equations(problem, spaces, 0)
    generator = torch.Generator().manual_seed(1)
    guesses = problem.layers[1].backward(loss_vector_guesses(problem, 200, generator).T).T
    ends = difference_map(equations.space.basis, equations.forward, guesses, generator=generator)
    inputs = torch.tensor(batch.inputs.astype(np.float64))
    patterns = (problem.layers[0].forward(inputs) > 0).T
    arrived = ends.gap < 0.01
    assert int(arrived.sum()) > 20
    reached = ends.values[:, arrived] != 0
    agreement = (reached[:, :, None] == patterns[:, None, :]).double().mean(dim=0).amax(dim=1)
    assert float(agreement.min()) > 0.97


@pytest.mark.parametrize("loss", list(Loss))
def test_guesses_have_the_shape_of_loss_vectors(loss: Loss):
    network, batch = random_case([6, 20, 4], 2, loss=loss)
    problem, _ = _problem(network, batch, loss)
    guesses = loss_vector_guesses(problem, 500, torch.Generator().manual_seed(0))
    assert guesses.shape == (4, 500)
    assert bool(torch.isfinite(guesses).all())
    assert float(guesses.norm(dim=0).min()) > 0
    if loss in (Loss.CROSS_ENTROPY, Loss.HINGE):
        assert float(guesses.sum(dim=0).abs().max()) < 1e-12
        assert bool(((guesses < 0).sum(dim=0) == 1).all())
    # every class is guessed
    assert set(guesses.argmin(dim=0).tolist()) == {0, 1, 2, 3}


def _problem(network, batch, loss=Loss.CROSS_ENTROPY):
    problem = problem_of(network, batch, loss)
    return problem, spaces_of(problem, 40)


def test_candidates_are_kept_away_from_what_is_known():
    """Started at a sample, what arrives arrives there; kept apart from it, most arrives elsewhere."""
    network, batch = random_case([40, 200, 5], 20, seeds=(6, 5))
    problem = problem_of(network, batch)
    spaces = spaces_of(problem, 40)
    equations = layer_equations(problem, spaces, 0)
    found = attacked(network, batch, method="assign")
    trace = forward(problem, found.x)
    g = problem.loss_vectors(trace.logits, found.y)
    known = torch.nn.functional.normalize(backward(problem, trace, g)[0][:10].T, dim=0)
    start = problem.layers[1].backward(g[:1]).T.expand(-1, 64)
    shares = []
    for apart in (0.0, 0.5):
        ends = difference_map(
            equations.space.basis,
            equations.forward,
            start,
            generator=problem.generator(),
            known=known,
            apart=apart,
        )
        unit = torch.nn.functional.normalize(ends.values[:, ends.gap < 0.03].double(), dim=0)
        assert unit.shape[1] > 3
        shares.append(float(((known.T @ unit).abs().amax(dim=0) > 0.99).double().mean()))
    assert shares[0] > 0.5
    assert shares[1] < 0.1


def test_all_samples_of_deep_narrow_networks_are_found():
    """On three networks 95 % at least, and nothing else, though in their last layers neurons are active for
    all samples or for none."""
    widths, samples = [40, *[60] * 6, 5], 10
    found = 0
    for seed in range(3):
        network = default_network(widths, seed=seed)
        rng = np.random.default_rng(seed)
        x = (1 + 0.5 * rng.normal(size=(samples, widths[0]))).astype(np.float32)
        batch = _classified(network, x, rng.integers(0, 5, samples))
        result = attacked(network, batch, method="assign", batch_size=samples)
        assert not len(result.x) or largest_excess(result, batch) <= 1
        found += len(result.x)
    assert found >= 0.95 * 3 * samples


def test_a_layer_above_that_merges_samples_leaves_few_unknowns():
    """Of 50 neurons above a dozen are alive: with all of their deltas free there are too few equations."""
    whole = 0
    for seed in range(3):
        rng = np.random.default_rng([seed, 5])
        model = drawn_network((30, 100, 50, 5), rng)
        x, y = drawn_batch("rand", 12, 30, 5, rng)
        with torch.no_grad():
            lowered = model[2].weight.abs().mean() * model[0](x).relu().mean()
            model[2].bias -= 30 * lowered
        found = run(
            to_network(model), autograd(model, x, y), loss="cross_entropy", reduction="mean", method="assign"
        )
        result = score(found.x, found.y, x, y)
        assert all(one.largest <= found.status[one.index].error_bound for one in result.samples)
        whole += found.complete and result.recall == 1.0
    assert whole >= 2


def test_guesses_know_which_neurons_above_are_alive():
    """Four layers below the loss of a narrow network guesses have cosines of 0.48 with samples' deltas, where
    patterns drawn from all neurons give 0.2."""
    near = []
    for seed in range(6):
        network = default_network([40, *[80] * 6, 5], seed=seed)
        rng = np.random.default_rng(seed)
        x = (1 + 0.5 * rng.normal(size=(8, 40))).astype(np.float32)
        batch = _classified(network, x, rng.integers(0, 5, 8))
        problem = problem_of(network, batch)
        trace = forward(problem, torch.tensor(x).double())
        deltas = backward(problem, trace, problem.loss_vectors(trace.logits, torch.tensor(batch.labels)))
        true = torch.nn.functional.normalize(problem.layers[3].backward(deltas[3]), dim=1)
        guesses = active_value_guesses(problem, 2, 200, problem.generator())
        near.append(float((true @ torch.nn.functional.normalize(guesses, dim=0)).amax(dim=0).median()))
    assert np.median(near) > 0.33


def _classified(network, x, y):
    return Batch.of(x, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
