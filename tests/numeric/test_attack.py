"""The numeric attack end to end: what it recovers, what it claims, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.data import mnist_batch
from exan_verify.errors import GradientError, InputError, NonFiniteError, RangeError, ShapeError
from exan_verify.numeric.attack import METHODS, run
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.records import Tier
from tests.support.attack_cases import assert_nothing, attacked, largest_excess
from tests.support.cases import (
    default_network,
    random_batch,
    random_case,
    three_share_layer_one,
    two_one_five_one,
)
from tests.support.torch_reference import gradient, perceptron


@pytest.mark.parametrize(
    "widths", [[20, 64, 5], [20, 64, 48, 5], [12, 80, 60, 60, 4], [9, 100, 64, 64, 64, 3]]
)
@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("reduction", list(Reduction))
def test_every_loss_reduction_and_depth(widths: list[int], loss: Loss, reduction: Reduction):
    network, batch = random_case(widths, 4, seeds=(3, 5), loss=loss)
    found = attacked(network, batch, loss, reduction, batch_size=4)
    assert found.complete, found.reason
    assert largest_excess(found, batch) <= 1
    assert max(s.error_bound for s in found.status) < 1e-7
    result = score(found.x, found.y, torch.tensor(batch.inputs), torch.tensor(np.array(batch.labels)))
    assert result.label_accuracy == 1.0
    assert found.batch_size_source == "given"


def test_real_images_without_exclusive_neurons_for_all():
    model = perceptron(784, 512, 10, seed=1)
    x, y = mnist_batch(20, 1)
    network = ReluNetwork.from_arrays([model[0].weight, model[2].weight], [model[0].bias, model[2].bias])
    batch = Batch.of(x, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    exact = attacked(network, batch)
    assert exact.complete
    assert largest_excess(exact, batch) <= 1
    assert score(exact.x, exact.y, torch.tensor(x), torch.tensor(y)).samples[0].rmse < 1e-9
    rounded = attacked(network, batch, dtype=np.float32)
    assert rounded.complete, rounded.reason
    assert largest_excess(rounded, batch) <= 1
    assert min(s.error_bound for s in rounded.status) > 1e-7, "a float32 gradient cannot support more"


def test_the_attack_says_what_it_rests_on():
    network = default_network([20, 64, 48, 5], seed=3)
    found = attacked(network, random_batch(network, 4, seed=5))
    assert (found.batch_size, found.batch_size_source, found.method, found.layer) == (4, "rank", "lift", 1)
    layer = found.layers[0]
    assert (layer.rank, layer.null_dimension) == (4, 4)
    assert layer.unknowns == 4 * 5 // 2 + 4 * 4
    assert layer.rank_gap > 1e6
    assert layer.null_gap is not None
    assert layer.null_gap > 1e3
    assert found.gradient_residual < 1e-12
    assert found.reason == ""
    assert found.seconds > 0


def test_the_same_seed_gives_the_same_bits():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    first, second = attacked(network, batch, seed=7), attacked(network, batch, seed=7)
    assert torch.equal(first.x, second.x)


def test_a_given_size_other_than_the_rank_is_said():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    found = attacked(network, batch, batch_size=6)
    assert not found.complete
    assert found.count("confirmed") == 0
    assert "1.5 times that of a batch of 6 (mean); a batch of 4 has it as it is" in found.notes[0]
    assert "4 independent samples of a batch of 6" in found.reason


def test_a_dead_sample_shows_in_the_divisor():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    hidden = network.layers[0]
    x = np.vstack([batch.inputs, np.linalg.lstsq(hidden.weight, -hidden.bias - 50.0, rcond=None)[0]])
    # a wide layer cannot be silenced by an input: give the last sample a dead copy of layer 1 instead
    narrow = ReluNetwork.from_arrays(
        [np.hstack([hidden.weight, -100 * np.ones((64, 1))]), network.layers[1].weight],
        [hidden.bias, network.layers[1].bias],
    )
    x = np.hstack([x, np.array([[0.0]] * 4 + [[100.0]])])
    dead = Batch.of(x, [*batch.labels, 0], network=narrow, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    found = attacked(narrow, dead)
    assert (found.batch_size, found.batch_size_source) == (5, "loss scale")
    assert len(found.x) == 4
    assert not found.complete
    assert largest_excess(found, dead) <= 1


def test_two_copies_of_a_sample_are_not_claimed():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    doubled = batch.select([0, 0, 1, 2, 3])
    found = attacked(network, doubled)
    assert found.batch_size == 5
    assert not found.complete
    assert len(found.x) == 3
    assert len(found.candidates) == 1
    assert "of one region" in found.candidates[0].reason
    assert largest_excess(found, doubled) <= 1


def test_groups_of_one_pattern_are_left_out_and_singletons_kept():
    network = default_network([20, 96, 5], seed=3)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 20))
    x[1] = x[0] + 1e-4 * rng.normal(size=20)
    batch = Batch.of(x, [0, 1, 2, 3, 4], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    found = attacked(network, batch, batch_size=5)
    assert not found.complete
    assert found.layers[0].null_dimension == 2 * 2 + 3
    assert "groups of [2]" in found.reason
    assert len(found.x) == 3
    assert largest_excess(found, batch) <= 1


def test_a_group_is_split_at_another_layer():
    network, batch = three_share_layer_one(Loss.CROSS_ENTROPY)
    found = attacked(network, batch, batch_size=5)
    assert largest_excess(found, batch) <= 1
    if found.complete:
        assert found.layer == 2


def test_hinge_mixtures_are_not_claimed():
    # two samples of one region with equal loss vectors look like one sample counted twice, three with
    # g, g, -g like one sample at x_1 + x_2 - x_3: nothing in the gradient speaks against it
    network = default_network([20, 16, 2], seed=3)
    rng = np.random.default_rng(2)
    x = np.tile(rng.normal(size=20), (3, 1)) + 1e-4 * rng.normal(size=(3, 20))
    batch = Batch.of(x, [0, 0, 1], network=network, loss=Loss.HINGE, labels=Labels.ONE_HOT)
    for size in (None, 3):
        found = attacked(network, batch, Loss.HINGE, Reduction.SUM, batch_size=size)
        assert len(found.x) == 0
        assert any("mixture" in u.reason for u in found.candidates)


def test_c1_at_layer_2_with_a_deficit_below_confirms_nothing():
    tried = 0
    for seed in range(12):
        network, batch, _ = two_one_five_one(seed)
        try:
            found = attacked(network, batch, Loss.MSE, batch_size=2)
        except RangeError:  # too many of the five neurons are dead
            continue
        tried += 1
        # a row that one label explains alone fits its own equations; other batches are not excluded
        assert {one.tier for one in found.status} <= {Tier.CONSISTENT}
        assert largest_excess(found, batch) <= 1
    assert tried >= 3


def test_real_targets_need_the_batch_size():
    network = default_network([20, 64, 3], seed=3)
    x = np.random.default_rng(0).normal(size=(3, 20))
    y = np.random.default_rng(1).normal(size=(3, 3))
    batch = Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.REAL)
    assert len(attacked(network, batch, Loss.MSE, labels="real").x) == 0
    refused = attacked(network, batch, Loss.MSE, batch_size=3)
    assert_nothing(refused, "no one-hot target", "labels='real'")
    found = attacked(network, batch, Loss.MSE, batch_size=3, labels="real")
    assert found.complete
    assert largest_excess(found, batch) <= 1
    assert score(found.x, found.y, torch.tensor(x), torch.tensor(y)).label_accuracy == 1.0


def test_a_gradient_of_something_else_is_not_claimed():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    given = gradient(network, batch, Loss.CROSS_ENTROPY, Reduction.MEAN)
    name = "2.weight"
    given[name] = given[name] * 1.001
    found = run(network, given, loss="cross_entropy", reduction="mean")
    assert_nothing(found, "misses the gradient of layer 2")
    wrong_loss = attacked(network, batch, Loss.CROSS_ENTROPY)
    assert wrong_loss.complete
    assert len(run(network, given, loss="bce", reduction="mean").x) == 0


def test_half_precision_claims_little_and_nothing_wrong():
    network, batch = random_case([20, 64, 5], 4, seeds=(3, 5))
    given = gradient(network, batch, Loss.CROSS_ENTROPY, Reduction.MEAN)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = {n: torch.tensor(g).to(dtype) for n, g in given.items()}
        found = run(network, rounded, loss="cross_entropy", reduction="mean")
        assert largest_excess(found, batch) <= 1


def test_too_large_a_batch_names_counts_and_remedy():
    network, batch = random_case([30, 24, 4], 12, seeds=(3, 5))
    with pytest.raises(
        RangeError, match=r"batch size 12 .*live neurons, \d+ equations needed.*smaller batch"
    ):
        attacked(network, batch, method="lift")
    assert largest_excess(attacked(network, batch), batch) <= 1, "other methods may go on"
    few = random_batch(network, 2, seed=5)
    with pytest.raises(RangeError, match="batch size 20"):
        attacked(network, few, batch_size=20, method="lift")
    found = attacked(network, few, batch_size=20)
    assert "2 independent samples of a batch of 20" in found.reason
    assert found.count("confirmed") == 0
    assert "give batch_size=2" in found.notes[0]


def _valid() -> tuple[ReluNetwork, dict[str, np.ndarray]]:
    network = default_network([6, 12, 3], seed=3)
    return network, gradient(network, random_batch(network, 2), Loss.CROSS_ENTROPY, Reduction.MEAN)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"loss": "nll"}, InputError, "loss='nll' is not known; use one of 'cross_entropy'"),
        ({"reduction": "none"}, InputError, "reduction='none' is not known"),
        ({"method": "magic"}, InputError, "method='magic' is not known; use one of 'auto', .*'lift'"),
        ({"batch_size": 0}, InputError, "batch_size=0 is not a positive integer"),
        ({"batch_size": 2.5}, InputError, "batch_size=2.5 is not a positive integer"),
    ],
)
def test_bad_arguments(change: dict[str, object], kind: type[Exception], message: str):
    network, given = _valid()
    options: dict[str, object] = {"loss": "cross_entropy", "reduction": "mean", **change}
    with pytest.raises(kind, match=message):
        run(network, given, **options)  # type: ignore[arg-type]


def test_bad_gradients():
    network, given = _valid()

    def refused(changed: dict[str, np.ndarray], kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            run(network, changed, loss="cross_entropy", reduction="mean")

    refused(
        {k: v for k, v in given.items() if k != "0.bias"}, GradientError, "'0.bias' of shape .12,. is missing"
    )
    refused({**given, "4.bias": np.ones(3)}, GradientError, "'4.bias' belongs to no parameter")
    refused(
        {**given, "0.bias": np.ones(5)}, GradientError, "'0.bias' has shape .5,., the parameter has .12,."
    )
    refused({**given, "0.bias": np.full(12, np.nan)}, NonFiniteError, "gradient.'0.bias'. contains NaN")
    refused({**given, "0.bias": np.full(12, np.inf)}, NonFiniteError, "contains NaN or an infinity")
    refused({k: 0 * v for k, v in given.items()}, GradientError, "every entry of the gradient is zero")
    refused({**given, "0.bias": np.full(12, "a")}, InputError, "gradient.'0.bias'.")
    refused({**given, "0.bias": np.full(12, 1j)}, InputError, "complex128; give float64")


def test_methods_are_listed_under_their_names():
    assert all(method.name == name for name, method in METHODS.items())


def test_the_thread_count_is_left_as_it_was():
    before = torch.get_num_threads()
    network, given = _valid()
    run(network, given, loss="cross_entropy", reduction="mean")
    assert torch.get_num_threads() == before


def test_scores():
    truth = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    result = score(
        truth[[2, 0]] + torch.tensor([[0.0, 0.02], [0.0, 0.0]]), torch.tensor([5, 6]), truth, torch.arange(3)
    )
    assert [(s.index, s.truth, s.label) for s in result.samples] == [(0, 2, False), (1, 0, False)]
    assert result.samples[0].rmse == pytest.approx(0.02 / 2**0.5)
    assert result.samples[0].largest == pytest.approx(0.02)
    assert result.samples[0].psnr == pytest.approx(-20 * np.log10(0.02 / 2**0.5))
    assert result.samples[1].psnr == float("inf")
    assert result.recall == pytest.approx(1 / 3)
    assert score(truth[:0], torch.zeros(0), truth, torch.arange(3)).recall == 0.0
    one_hot = score(truth, torch.eye(3), truth, torch.arange(3))
    assert one_hot.label_accuracy == 1.0
    with pytest.raises(ShapeError, match="3 features"):
        score(torch.zeros(1, 3), torch.zeros(1), truth, torch.arange(3))
    with pytest.raises(InputError, match="data_range=0"):
        score(truth, torch.arange(3), truth, torch.arange(3), data_range=0)


def test_a_gradient_too_small_to_square_claims_nothing():
    network = default_network([20, 64, 5], seed=3)
    given = gradient(network, random_batch(network, 4, seed=5, loss=Loss.BCE), Loss.BCE, Reduction.MEAN)
    tiny = {name: np.asarray(g, dtype=np.float64) * 1e-170 for name, g in given.items()}
    for method in METHODS:
        try:
            found = run(network, tiny, loss="bce", reduction="mean", method=method)
        except RangeError:  # no neuron left to work with
            continue
        assert len(found.x) == 0
        assert found.reason


def test_methods_out_of_range_refuse_nothing_that_another_method_looked_at():
    # the gradient of another network: lifting looks for samples in it, and degree three is not needed there
    network, other = default_network([30, 100, 4], seed=3), default_network([30, 100, 4], seed=4)
    given = gradient(other, random_batch(other, 5, seed=5), Loss.CROSS_ENTROPY, Reduction.MEAN)
    found = run(network, given, loss="cross_entropy", reduction="mean")
    assert (len(found.x), found.complete) == (0, False)
    assert found.reason
    assert "degree 2 has equations enough" not in found.reason
    # too large for lifting, and no method finds anything: said with the reason, not as an error
    network, other = default_network([30, 24, 4], seed=3), default_network([30, 24, 4], seed=4)
    given = gradient(other, random_batch(other, 12, seed=5), Loss.CROSS_ENTROPY, Reduction.MEAN)
    found = run(network, given, loss="cross_entropy", reduction="mean")
    assert (len(found.x), found.complete) == (0, False)
    assert "beyond degree-2 lifting" in found.reason


@pytest.mark.parametrize("loss", [Loss.BCE, Loss.MSE])
@pytest.mark.parametrize("reduction", [Reduction.MEAN, Reduction.SUM])
def test_more_samples_than_said_are_not_claimed(loss: Loss, reduction: Reduction):
    network, batch = random_case([20, 64, 3], 4, seeds=(3, 5), loss=loss)
    given = gradient(network, batch, loss, reduction)
    assert run(network, given, loss=loss, reduction=reduction, batch_size=4).complete
    found = run(network, given, loss=loss, reduction=reduction, batch_size=2)
    assert_nothing(found, "4 independent samples, more than the batch size 2")


@pytest.mark.parametrize("loss", [Loss.BCE, Loss.MSE])
def test_a_scaled_gradient_has_no_labels_at_the_scale_that_is_said(loss: Loss):
    network = default_network([20, 64, 3], seed=3)
    given = gradient(network, random_batch(network, 4, seed=5, loss=loss), loss, Reduction.MEAN)
    scaled = {name: 2 * g for name, g in given.items()}
    found = run(network, scaled, loss=loss, reduction="mean", batch_size=4, method="lift")
    assert_nothing(found, "explains its loss vector")
    assert "2 times a batch's: give scale='unknown'" in found.hint
    if loss is Loss.BCE:
        soft = run(network, scaled, loss=loss, reduction="mean", batch_size=4, labels="real")
        assert all(bool(((y >= 0) & (y <= 1)).all()) for y in soft.y), "no probability is outside of [0, 1]"


@pytest.mark.parametrize(
    ("labels", "loss", "said"),
    [
        ("known", "mse", "a question for certify"),
        ("real", "hinge", "whose labels are classes"),
        ("soft", "bce", "labels='soft' is not known"),
    ],
)
def test_labels_that_cannot_be_asked_for(labels: str, loss: str, said: str):
    network = default_network([20, 64, 3], seed=3)
    given = gradient(network, random_batch(network, 2, seed=5), Loss.CROSS_ENTROPY, Reduction.MEAN)
    with pytest.raises(InputError, match=said):
        run(network, given, loss=loss, reduction="mean", labels=labels)
