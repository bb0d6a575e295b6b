"""The published algorithm: what it recovers, with its repairs, and where its text fails without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify import attack
from exan_verify.bench.attack import autograd_gradient
from exan_verify.bench.cases.selecting import short_of
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.data import mnist_batch
from exan_verify.errors import InputError
from exan_verify.models.chain import to_network
from exan_verify.numeric.methods.exclusive_neurons.columns import (
    alike,
    equal_ratios,
    negative_entry,
    parallel_columns,
)
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.problem import Problem, build_problem
from exan_verify.numeric.problem.records import Attack
from tests.support.attack_cases import assert_nothing, attacked
from tests.support.cases import default_network, random_batch, random_case
from tests.support.torch_reference import gradient, perceptron


def inside(widths: list[int], samples: int, loss: Loss = Loss.CROSS_ENTROPY) -> tuple[ReluNetwork, Batch]:
    """A random batch that satisfies the published condition."""
    made = default_network(widths, seed=3)
    for seed in range(500):
        batch = random_batch(made, samples, seed=seed, loss=loss)
        h, shown = batch.inputs.astype(np.float64), []
        for layer in made.layers[:-1]:
            assert layer.bias is not None
            z = h @ layer.weight.T + layer.bias
            shown.append(z > 0)
            h = np.maximum(z, 0)
        if not short_of(tuple(shown), np.arange(samples)).any():
            return made, batch
    raise AssertionError("no batch inside the condition among 500")


def recall(found: Attack, batch: Batch) -> float:
    truth = torch.tensor(batch.inputs).double()
    result = score(found.x, found.y, truth, torch.tensor(np.array(batch.labels)))
    assert all(s.largest <= found.status[s.index].error_bound and s.label for s in result.samples)
    return result.recall


@pytest.mark.parametrize("widths", [[20, 96, 6], [20, 96, 96, 6], [20, 96, 96, 96, 6]])
@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE, Loss.MSE])
@pytest.mark.parametrize("samples", [3, 4])
def test_inside_its_condition_the_repaired_algorithm_recovers_the_batch(
    widths: list[int], loss: Loss, samples: int
):
    made, batch = inside(widths, samples, loss)
    found = attacked(made, batch, loss, method="published")
    assert found.complete, found.reason
    assert recall(found, batch) == 1.0
    assert max(s.error_bound for s in found.status) < 1e-8


def test_more_samples_than_independent_loss_vectors_need_inputs_from_rows():
    made, batch = inside([20, 200, 4], 5)
    found = attacked(made, batch, method="published")
    assert found.complete, found.reason
    assert recall(found, batch) == 1.0
    letter = attacked(made, batch, method="published", repairs=False)
    assert_nothing(letter, "5 loss vectors among 4 classes are dependent")


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
def test_to_the_letter_the_scale_is_off_and_nothing_is_claimed(loss: Loss):
    made, batch = inside([20, 96, 96, 6], 3, loss)
    found = attacked(made, batch, loss, method="published", repairs=False)
    assert len(found.x) == 0
    assert len(found.candidates) == 3
    assert all("as handed over it is off by" in u.reason for u in found.candidates)
    for x in torch.tensor(batch.inputs).double():  # right but for a factor
        assert max(float(torch.cosine_similarity(u.x, x, dim=0)) for u in found.candidates) > 1 - 1e-12


def test_the_scale_heuristic_is_two_thirds_of_the_feasible_maximum():
    made, batch = inside([20, 96, 6], 1)
    found = attacked(made, batch, method="published", repairs=False)
    logits = (
        np.maximum(batch.inputs @ made.layers[0].weight.T + made.layers[0].bias, 0) @ made.layers[1].weight.T
    )
    p = torch.tensor(logits + made.layers[1].bias).softmax(1)[0, int(batch.labels[0])]
    # |g_Y| is put at 2/3 instead of 1 - p_Y, and x comes out scaled by the inverse of that
    expected = torch.tensor(batch.inputs[0]).double() * float((1 - p) / (2 / 3))
    assert torch.allclose(found.candidates[0].x, expected, atol=1e-6)


def test_mse_has_no_feasible_range_to_the_letter():
    made, batch = inside([20, 96, 6], 3, Loss.MSE)
    found = attacked(made, batch, Loss.MSE, method="published", repairs=False)
    assert_nothing(found, "which mse does not satisfy")


@pytest.mark.parametrize("repairs", [True, False])
def test_two_classes_cannot_be_grouped(repairs: bool):
    made, batch = inside([20, 96, 2], 3)
    found = attacked(made, batch, method="published", repairs=repairs)
    assert len(found.x) == 0
    if repairs:
        assert "with 2 classes all columns of the last layer's weight gradient are parallel" in found.reason
    assert len(equal_ratios(_problem(made, batch)).neurons) == 1


def test_a_first_row_of_zeros_stops_the_letter_but_not_the_repair():
    base, batch = inside([20, 96, 6], 3)
    bias = base.layers[1].bias.astype(np.float64)
    bias[0] = -1e4  # its probability underflows
    made = ReluNetwork.from_arrays([layer.weight for layer in base.layers], [base.layers[0].bias, bias])
    batch = Batch.of(batch.inputs, [1, 2, 3], network=made, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    letter = attacked(made, batch, method="published", repairs=False)
    assert_nothing(
        letter,
        "first row of the last layer's weight gradient, by which the published algorithm divides, is zero",
    )
    found = attacked(made, batch, method="published")
    assert found.complete, found.reason
    assert recall(found, batch) == 1.0


def test_outside_its_condition_the_reason_says_what_is_missing():
    made, batch = random_case([20, 40, 6], 8, seeds=(3, 1))
    found = attacked(made, batch, method="published")
    recall(found, batch)
    assert not found.complete
    assert "have the exclusive neurons" in found.reason or "no two columns" in found.reason


def _problem(made: ReluNetwork, batch: Batch) -> Problem:
    given = gradient(made, batch, Loss.CROSS_ENTROPY, Reduction.MEAN)
    return build_problem(made, given, loss="cross_entropy", reduction="mean")


def test_groups_of_columns_belong_to_one_sample_each():
    made, batch = inside([20, 96, 6], 4)
    first = made.layers[0]
    active = (batch.inputs.astype(np.float64) @ first.weight.T + first.bias) > 0
    for groups in (parallel_columns(_problem(made, batch)), equal_ratios(_problem(made, batch))):
        owners = [
            {int(active[:, j].argmax()) for j in g.tolist() if active[:, j].sum() == 1}
            for g in groups.neurons
        ]
        assert [len(owner) for owner in owners] == [1] * 4
        assert set().union(*owners) == {0, 1, 2, 3}
        assert sorted(negative_entry(groups.directions).tolist()) == sorted(int(v) for v in batch.labels)


@pytest.mark.parametrize(("samples", "seed"), [(2, 2), (2, 3), (4, 2)])
def test_columns_near_by_accident_do_not_cost_a_float32_batch(samples: int, seed: int):
    # hundreds of columns are shared by two samples: some pairs of them point the same way to 1e-4
    model = perceptron(784, 512, 10, seed=seed)
    images, classes = mnist_batch(samples, seed)
    x, y = torch.tensor(images), torch.tensor(classes)
    given = autograd_gradient(model, x, y, "float32")
    found = attack(model, given, method="published")
    assert found.complete, found.reason
    assert score(found.x, found.y, x, y).recall == 1.0


def test_of_more_groups_than_samples_those_whose_equations_hold_are_taken(monkeypatch: pytest.MonkeyPatch):
    # with a tolerance that takes accidents for groups
    monkeypatch.setattr("exan_verify.numeric.methods.exclusive_neurons.columns.alike", lambda _: 6e-4)
    model = perceptron(784, 512, 10, seed=2)
    images, classes = mnist_batch(4, 2)
    x, y = torch.tensor(images), torch.tensor(classes)
    given = autograd_gradient(model, x, y, "float32")
    made = to_network(model)
    problem = build_problem(made, given, loss="cross_entropy", reduction="mean")
    assert len(parallel_columns(problem).neurons) > 4
    found = attack(model, given, method="published")
    assert found.complete, found.reason
    assert score(found.x, found.y, x, y).recall == 1.0


def test_the_tolerance_for_alike_columns_follows_the_dtype():
    assert alike(2.0**-53) == pytest.approx(1.1e-12, rel=0.02)
    assert alike(2.0**-24) == 1e-5
    assert alike(2.0**-9) == 8 * 2.0**-9


def test_labels_from_signs():
    directions = torch.tensor([[1.0, -3.0, 2.0], [1.0, -0.5, -0.5], [-1.0, -1.0, 2.0], [1.0, 1.0, 1.0]])
    assert negative_entry(directions).tolist() == [1, 0, 2, -1]


def test_repairs_belong_to_published():
    made, batch = inside([20, 96, 6], 3)
    given = gradient(made, batch, Loss.CROSS_ENTROPY, Reduction.MEAN)
    with pytest.raises(InputError, match="repairs=False belongs to method='published', not to 'lift'"):
        attack(made, given, method="lift", repairs=False)
    assert attack(made, given, method="published").complete
