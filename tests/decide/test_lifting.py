from functools import partial

import numpy as np
import pytest

from exan_verify.api import certify as door
from exan_verify.api.check import check
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Engine, Outcome, SampleStatus, Trust
from tests.support import certificate_cases
from tests.support.cases import (
    batch_of,
    default_network,
    random_batch,
    random_case,
    three_share_layer_one,
    two_one_five_one,
)

certify = partial(door.certify, engine="lifting")
certify_as = partial(certificate_cases.certify_as, engine="lifting")

D, U = SampleStatus.DETERMINED, SampleStatus.UNKNOWN


@pytest.mark.parametrize(
    ("widths", "samples"),
    [([20, 60, 5], 4), ([20, 60, 40, 5], 4), ([12, 60, 12, 40, 3], 3), ([20, 60, 2], 5)],
)
@pytest.mark.parametrize("loss", list(Loss))
def test_generic_batches_are_unique_for_every_loss(widths, samples, loss):
    network = default_network(widths)
    verdict = certify(network, batch=random_batch(network, samples, loss=loss), loss=loss.value)
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert verdict.engine is Engine.LIFTING
    assert verdict.trust is Trust.CERTIFIED
    assert verdict.samples == (D,) * samples
    assert f"hidden layer {verdict.layer}" in verdict.reason


def test_a_deeper_layer_is_used_where_the_first_has_too_few_neurons():
    network = default_network([8, 12, 80, 5], seed=3)
    verdict = certify_as(Outcome.UNIQUE, network, batch=random_batch(network, 4))
    assert verdict.layer == 2
    assert verdict.certificate["evidence"][0]["layers"][0]["lower_ranks"] == (4,)


def test_a_rank_deficit_below_blocks_the_deeper_layer():
    """C1's warning: lifting passes at layer 2, and there is a second batch."""
    network, batch, second = two_one_five_one(15)
    verdict = certify_as(Outcome.UNKNOWN, network, batch=batch, loss="mse")
    assert door.certify(network, batch=batch, loss="mse").outcome is Outcome.AMBIGUOUS
    assert second != batch
    passed = [a for a in verdict.attempts if a.layer == 2]
    assert "what layer 2 is given is determined, but the deltas at layer 1" in passed[0].note


def test_too_few_equations_says_how_many():
    network = default_network([20, 20, 5])
    verdict = certify_as(Outcome.UNKNOWN, network, batch=random_batch(network, 6))
    attempt = verdict.attempts[0]
    missing = attempt.unknowns - 6 - attempt.equations
    assert f"{missing} more neurons with a non-zero delta" in verdict.reason


def test_groups_leave_singletons_determined():
    """Two samples so close that they share the pattern: the others are still leaks (C2)."""
    network, base = random_case([30, 120, 6], 4, seeds=(5, 6), dtype=np.float64)
    x = np.concatenate([base.inputs.astype(np.float64), base.inputs[:1] + 2.0**-30])
    y = np.append(base.labels, (base.labels[0] + 1) % 6)
    verdict = certify(network, batch=(x, y))
    assert verdict.samples == (U, D, D, D, U)
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.trust is Trust.CERTIFIED
    assert verdict.certificate is not None
    assert "groups of sizes (2,)" in verdict.reason


def test_duplicates_dead_and_silent_samples_are_named():
    network, batch = random_case([10, 40, 3], 3)
    x = np.concatenate([batch.inputs, batch.inputs[1:2]])
    verdict = certify_as(Outcome.UNKNOWN, network, batch=(x, np.append(batch.labels, batch.labels[1])))
    assert "equal samples: 1 and 3" in verdict.reason

    dead = ReluNetwork.from_arrays([[[1.0], [2.0]], [[1.0, 1.0]]], [[0.0, 0.0], [0.0]])
    verdict = certify(dead, batch=([[1.0], [-1.0]], [[0.0], [1.0]]), loss="mse")
    assert "sample 1 is dead: no neuron of hidden layer 1" in verdict.reason
    verdict = certify(dead, batch=([[1.0], [0.5]], [3.0, 0.0]), loss="mse", labels="real")
    assert "sample 0 is silent" in verdict.reason


def test_no_biases_is_a_reason():
    network = ReluNetwork.from_arrays([np.random.default_rng(0).normal(size=(40, 5)), np.ones((2, 40))])
    verdict = certify_as(Outcome.UNKNOWN, network, batch=(np.ones((1, 5)), [0]))
    assert "no biases" in verdict.reason


def test_no_hidden_layer_is_a_reason():
    network = ReluNetwork.from_arrays([[[1.0, 2.0], [0.0, 1.0]]], [[0.0, 0.0]])
    verdict = certify_as(Outcome.UNKNOWN, network, batch=([[1.0, 1.0]], [0]))
    assert "no hidden layer" in verdict.reason


def test_equal_output_columns_confuse_labels_below_the_last_layer():
    """Labels 0 and 1 reach layer 2 through equal columns; only the output layer can tell them apart."""
    base = default_network([8, 60, 20, 3], seed=2, dtype=np.float64)
    last = base.layers[2].weight.copy()
    last[1] = last[0]
    network = ReluNetwork.from_arrays(
        [base.layers[0].weight, base.layers[1].weight, last], [layer.bias for layer in base.layers]
    )
    batch = random_batch(network, 3)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch)
    assert verdict.certificate["evidence"][0]["layers"][0]["labels"] == "output_rank"


def through_one_neuron() -> ReluNetwork:
    base = default_network([8, 60, 1, 3], seed=2, dtype=np.float64)
    return ReluNetwork.from_arrays(
        [base.layers[0].weight, np.abs(base.layers[1].weight), [[1.0], [1.0], [-0.5]]],
        [base.layers[0].bias, [5.0], [0.0, 0.0, 0.0]],
    )


def test_labels_that_no_layer_tells_apart_are_not_determined():
    """The last hidden layer is a single neuron: rank [H_2 1] = 2 < M = 3, and W_3 has two equal rows."""
    network, y = through_one_neuron(), np.array([2, 2, 0])
    for seed in range(40):
        rng = np.random.default_rng(seed)
        verdict = certify_as(Outcome.UNKNOWN, network, batch=(rng.normal(size=(3, 8)), y))
        assert verdict.samples[2] is U


def test_known_labels_are_easier_than_unknown_ones():
    """All labels are equal: with known labels nothing is left to confuse."""
    network = through_one_neuron()
    x = np.random.default_rng(0).normal(size=(3, 8))
    assert certify(network, batch=(x, [0, 0, 0])).outcome is Outcome.UNKNOWN
    assert certify(network, batch=(x, [0, 0, 0]), labels="known").outcome is Outcome.UNIQUE


def test_real_labels_need_an_injective_map():
    network = default_network([10, 60, 4], dtype=np.float64)
    rng = np.random.default_rng(1)
    batch = batch_of(network, rng.normal(size=(3, 10)), rng.normal(size=(3, 4)), labels=Labels.REAL)
    assert certify(network, batch=batch, loss="mse", labels="real").outcome is Outcome.UNIQUE


def test_work_limit_gives_unknown_with_what_to_do():
    network = default_network([20, 60, 5])
    verdict = certify_as(Outcome.UNKNOWN, network, batch=random_batch(network, 4), work_limit=10)
    assert "work limit of 10" in verdict.reason
    assert "give more" in verdict.reason


def test_same_seed_same_verdict_and_certificate():
    network, batch = random_case([20, 60, 5], 4)
    one, two = (certify(network, batch=batch, seed=7) for _ in range(2))
    assert one.reason == two.reason
    assert one.certificate["evidence"] == two.certificate["evidence"]
    assert certify(network, batch=batch, seed=8).certificate["evidence"] != one.certificate["evidence"]


@pytest.mark.parametrize("loss", list(Loss))
def test_a_group_of_the_first_layer_is_split_at_the_second(loss):
    network, batch = three_share_layer_one(loss)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value)
    argument = verdict.certificate["evidence"][0]["layers"][0]
    assert argument["layer"] == 1
    assert sorted(map(len, argument["groups"])) == [1, 1, 3]
    assert [record["layer"] for record in argument["splits"]] == [2]
    assert "split at layer 2" in verdict.reason
    assert check(verdict.certificate, network, batch=batch).outcome is Outcome.UNIQUE


def test_a_group_that_no_layer_splits_stays_open_beside_determined_singletons():
    network, batch = three_share_layer_one(Loss.CROSS_ENTROPY)
    near = batch.inputs.copy()
    near[1] = near[0] + 2.0**-40
    verdict = certify_as(Outcome.UNKNOWN, network, batch=(near, batch.labels))
    assert verdict.samples == (U, U, D, D, D)
    assert check(verdict.certificate, network, batch=(near, batch.labels)).samples == verdict.samples


@pytest.mark.parametrize("loss", list(Loss))
def test_one_sample_needs_no_equations(loss):
    """Far fewer neurons than unknowns; a single sample with a non-zero delta is always determined."""
    network = ReluNetwork.from_arrays(
        [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, -1.0], [0.5, 2.0], [1.0, 0.0]]],
        [[1.0], [0.0, 1.0], [0.0, 0.5, 0.0]],
    )
    y = [[0.0, 1.0, 0.0]] if loss in (Loss.MSE, Loss.BCE) else [0]
    verdict = certify_as(Outcome.UNIQUE, network, batch=([[0.5, 0.25]], y), loss=loss.value)
    assert "one sample" in verdict.reason
    check(verdict.certificate, network, batch=([[0.5, 0.25]], y))


def test_one_dead_sample_is_not_determined():
    network = ReluNetwork.from_arrays([[[1.0, 2.0]], [[1.0], [2.0]]], [[-9.0], [0.0, 0.5]])
    verdict = certify(network, batch=([[0.5, 0.25]], [1]))
    assert verdict.outcome is not Outcome.UNIQUE
