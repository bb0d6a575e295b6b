"""Refining, bounding and judging candidates: each check refuses what it is there for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify.bench.attack import autograd_gradient
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.confirming.bounds import Refined, refine
from exan_verify.numeric.confirming.confirm import Confirmed, confirm
from exan_verify.numeric.confirming.uniqueness import others_excluded, out_of_sum
from exan_verify.numeric.problem.passes import delta_spans, weight_gains
from exan_verify.numeric.problem.problem import build_problem
from tests.support.attack_cases import assert_nothing, problem_of, proposed, spaces_of
from tests.support.cases import default_network, random_case
from tests.support.numeric_cases import drawn_network
from tests.support.torch_reference import gradient, normal


def judged(
    network: ReluNetwork, batch: Batch, x: torch.Tensor, dtype: type = np.float64
) -> tuple[Refined, Confirmed]:
    """The verdict on candidates ``x`` as if a method had proposed them."""
    problem = problem_of(network, batch, dtype=dtype, batch_size=batch.size)
    spaces = spaces_of(problem, 20)
    finding = proposed(x, spaces[0].basis[:, :0], layer=None)
    gains = weight_gains(problem)
    refined = refine(problem, spaces[0], finding, gains)
    return refined, confirm(problem, spaces, finding, refined, gains)


def test_nearby_candidates_are_refined_to_rounding():
    network, batch = random_case([20, 64, 48, 5], 4, seeds=(3, 5))
    x = torch.tensor(batch.inputs.astype(np.float64))
    refined, confirmed = judged(network, batch, x + 1e-7 * normal(4, 20))
    assert confirmed.complete
    assert float((refined.x - x).abs().max()) < 1e-13
    assert bool((refined.isolation > 0.05).all())


def test_a_stranger_fails_its_own_equations():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    x = torch.tensor(batch.inputs.astype(np.float64))
    x[2] = normal(20)
    refined, confirmed = judged(network, batch, x)
    assert len(confirmed.x) == 0
    assert float(refined.sine[2]) > 1e6 * float(refined.allowed[2])
    assert "own equations fail" in confirmed.candidates[2].reason


def test_samples_of_one_region_are_not_isolated():
    network, batch = random_case([20, 64, 5], 3, seeds=(3, 5))
    x = batch.inputs.astype(np.float64)
    x[1] = x[0] + 1e-5 * np.random.default_rng(0).normal(size=20)
    pair = Batch.of(x, [0, 1, 2], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    # even the true inputs are no claim: the pair can move along a family with the same gradient
    refined, confirmed = judged(network, pair, torch.tensor(x))
    assert float(refined.isolation[:2].max()) < 1e-6
    assert float(refined.isolation[2]) > 0.05
    assert len(confirmed.x) <= 1
    assert [u.error_estimate for u in confirmed.candidates[:2]] == [float("inf")] * 2


def test_a_pair_that_one_neuron_tells_apart_is_not_separated():
    # groups of sizes (2, 1) would give dimension 5, singletons 3; one neuron of difference gives 4
    network, batch = random_case([20, 64, 5], 3, seeds=(3, 5))
    first = network.layers[0]
    x = batch.inputs.astype(np.float64)
    z = first.weight @ x[0] + first.bias
    j = int(np.abs(z).argmin())
    x[1] = x[0] - 1.001 * z[j] * first.weight[j] / (first.weight[j] @ first.weight[j])
    changed = ((first.weight @ x[1] + first.bias) > 0) != (z > 0)
    assert changed.sum() == 1
    pair = Batch.of(x, [0, 1, 2], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    given = gradient(network, pair, Loss.CROSS_ENTROPY, Reduction.MEAN)
    found = run(network, given, loss="cross_entropy", reduction="mean", batch_size=3, method="lift")
    assert found.layers[0].null_dimension == 4
    assert_nothing(found, "do not separate 3 samples", "dimension 4")
    # that neuron is exclusive to one of the two, and so are others of the third
    peeled = run(network, given, loss="cross_entropy", reduction="mean", batch_size=3)
    assert peeled.complete
    distance = torch.cdist(peeled.x, torch.tensor(x), p=torch.inf)
    assert sorted(distance.argmin(dim=1).tolist()) == [0, 1, 2]
    bounds = torch.tensor([status.error_bound for status in peeled.status], dtype=torch.float64)
    assert bool((distance.amin(dim=1) <= bounds).all())


@pytest.mark.parametrize(("distance", "sure"), [(1e-9, False), (1e-3, True)])
def test_a_neuron_on_the_verge_is_left_open(distance: float, sure: bool):
    base, batch = random_case([20, 64, 5], 3, seeds=(3, 5), dtype=np.float64)
    bias = base.layers[0].bias.copy()
    bias[7] = distance - base.layers[0].weight[7] @ batch.inputs[1].astype(np.float64)
    network = ReluNetwork.from_arrays(
        [base.layers[0].weight, base.layers[1].weight], [bias, base.layers[1].bias]
    )
    refined, _ = judged(network, batch, torch.tensor(batch.inputs.astype(np.float64)), np.float32)
    assert bool(refined.sure[0][1, 7]) is sure
    assert bool(refined.sure[0][0, 7])
    assert bool((refined.bound < 1e-3).all())


def test_a_wrong_label_is_no_option():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    _, confirmed = judged(network, batch, torch.tensor(batch.inputs.astype(np.float64)))
    assert confirmed.y.tolist() == list(batch.y)
    for evidence in confirmed.status:
        assert evidence.label_residual < 1e-12
        assert evidence.label_margin > 1e6


@pytest.mark.parametrize("seed", [3, 28, 34])
def test_the_rounding_of_fitted_loss_vectors_is_counted(seed: int):
    # of p_y - 1 it is a roundoff of one, so that a fitted sample's loss vector does not sum to zero; as
    # it is no noise beyond the gradient's rank, other batches would be excluded without it
    rng, samples, classes = np.random.default_rng([seed, 41]), 4, 5
    model = drawn_network((12, 44, classes), rng)
    with torch.no_grad():
        model[2].weight.mul_(60)
    x = torch.tensor(rng.random((samples, 12))).float()
    y = model.double()(x.double()).argmax(dim=1)
    given = autograd_gradient(model.float(), x, y, "float32")
    problem = build_problem(to_network(model), given, loss="cross_entropy", reduction="mean")
    spaces, x = spaces_of(problem, 12), x.double()
    refined = refine(problem, spaces[0], proposed(x, spaces[0].basis[:, :0]), weight_gains(problem))
    # the deltas that the gradient has at the true inputs, and what no loss vector of sum zero gives of them
    c = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    deltas = problem.layers[0].augmented() @ torch.linalg.pinv(c)
    spans = delta_spans(problem, refined.trace)
    spans = spans - spans.mean(dim=2, keepdim=True)
    left = deltas.T - (spans @ torch.linalg.pinv(spans, rtol=1e-10) @ deltas.T[:, :, None])[:, :, 0]
    counted = out_of_sum(problem, refined, problem.divisor(samples))
    noise = spaces[0].noise * torch.linalg.pinv(c).norm(dim=0) + refined.relative * refined.deltas.norm(dim=1)
    assert bool((left.norm(dim=1) <= counted + noise).all())
    assert others_excluded(problem, spaces, refined, problem.divisor(samples)).reason


@pytest.mark.parametrize(("seed", "samples", "width"), [(1, 48, 300), (2, 48, 300), (3, 30, 200)])
def test_a_small_loss_vector_in_a_large_batch_tells_its_label(seed: int, samples: int, width: int):
    # errors of all other samples add up in its input; its loss vector moves by less than logits could
    rng = np.random.default_rng(seed)
    w1, w2 = rng.normal(0, 0.5, (width, width // 5)), rng.uniform(-1, 1, (5, width))
    x = rng.normal(size=(samples, width // 5))
    w2 *= 10 / (np.maximum(x @ w1.T, 0) @ w2.T).std()
    # without biases, logits grow with the input: a probability of 1e-6 at most is not the label's
    top = np.sort(np.maximum(x[0] @ w1.T, 0) @ w2.T)
    x[0] *= np.log(4e6) / (top[-1] - top[-2])
    order = np.argsort(np.maximum(x @ w1.T, 0) @ w2.T, axis=1)
    y = np.where(np.arange(samples) == 0, order[:, -1], order[:, -2])
    network = ReluNetwork.from_arrays([w1, w2], [np.zeros(width), np.zeros(5)])
    batch = Batch.of(x, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    refined, confirmed = judged(network, batch, torch.tensor(x))
    assert confirmed.complete, confirmed.reason
    assert confirmed.y.tolist() == y.tolist()
    off = (confirmed.x - torch.tensor(x)).abs().amax(dim=1)
    assert bool((off <= torch.tensor([one.error_bound for one in confirmed.status])).all())
    # what its error makes of its delta is within the bound, which is a small part of the delta
    slopes = torch.tensor((x[0] @ w1.T > 0) * w2)
    logits = torch.stack([torch.tensor(np.maximum(x[0] @ w1.T, 0) @ w2.T), refined.trace.logits[0]])
    vectors = logits.softmax(dim=1) - torch.nn.functional.one_hot(torch.tensor(y[0]), 5)
    moved = float(((vectors[1] - vectors[0]) @ slopes).norm())
    assert moved <= float(refined.moved[0]) < 0.01 * float((vectors[0] @ slopes).norm())


@pytest.mark.parametrize("noise", [1e-12, 1e-10, 1e-8])
def test_bounds_follow_the_noise_and_the_weak_sample(noise: float):
    network = default_network([20, 100, 4], seed=3)
    x = np.random.default_rng(0).normal(size=(4, 20))
    z = np.maximum(x @ network.layers[0].weight.T + network.layers[0].bias, 0)
    logits = z @ network.layers[1].weight.T + network.layers[1].bias
    residuals = np.random.default_rng(1).normal(size=(4, 4)) * np.array([[1e-4], [1], [1], [1]])
    batch = Batch.of(x, logits - residuals, network=network, loss=Loss.MSE, labels=Labels.REAL)
    rng = np.random.default_rng(2)
    given = {
        name: g + noise * np.abs(g).max() * rng.normal(size=g.shape)
        for name, g in gradient(network, batch, Loss.MSE, Reduction.MEAN).items()
    }
    found = run(network, given, loss="mse", reduction="mean", labels="real", batch_size=4)
    rows = {int(np.abs(x - row).max(axis=1).argmin()): m for m, row in enumerate(found.x.numpy())}
    assert len(rows) == len(found.x)
    bounds = {k: found.status[m].error_bound for k, m in rows.items()}
    for k, m in rows.items():
        assert np.abs(found.x[m].numpy() - x[k]).max() <= bounds[k]
    assert {1, 2, 3} <= bounds.keys()
    if noise < 1e-9:
        assert 0 in bounds, found.candidates[0].reason
        assert bounds[0] > 100 * max(bounds[k] for k in (1, 2, 3))
    else:
        assert 0 not in bounds
