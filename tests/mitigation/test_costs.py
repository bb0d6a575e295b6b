"""What a defence costs: trained from the same seeds, on the same data, with what it changes alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from exan_verify.core.question import Loss, Question
from exan_verify.errors import InputError
from exan_verify.mitigation.costs import (
    Data,
    Training,
    accuracy,
    class_means,
    distortion,
    split,
    steps_of,
)
from exan_verify.mitigation.defences import defence
from exan_verify.mitigation.mitigate import mitigate
from tests.support.mitigation_cases import drawn_case, drawn_network

QUESTION = Question(loss=Loss.CROSS_ENTROPY)


def blobs(count: int = 300, seed: int = 0) -> Data:
    """Three classes around three corners of a cube in eight dimensions: easy to learn."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    return split(np.eye(3, 8)[y] + 0.15 * rng.normal(size=(count, 8)), y)


def trained(training: Training, question: Question = QUESTION, classes: int = 3) -> tuple[float, ...]:
    return accuracy(training, blobs(), drawn_network((8, 16, classes), 0), question, batch=4).by_seed


def test_a_fifth_is_held_out_and_never_trained_on():
    data = blobs()
    assert (len(data.x), len(data.held_x)) == (240, 60)
    assert not {row.tobytes() for row in data.x} & {row.tobytes() for row in data.held_x}


def test_plain_training_learns_and_is_repeatable():
    plain = trained(Training())
    assert min(plain) > 0.9
    assert trained(Training()) == plain
    assert len(plain) == 3


def test_what_is_not_sent_is_not_learnt():
    nothing = Training(send=lambda done, _: {n: torch.zeros_like(g) for n, g in done.gradient.items()})
    assert max(trained(nothing)) < 0.8
    # a direction without the classes: as if the inputs were noise
    assert max(trained(Training(basis=np.eye(8)[:, 5:]))) < 0.7
    assert min(trained(Training(basis=np.eye(8)[:, :3]))) > 0.9


@pytest.mark.parametrize(
    "training",
    [
        Training(groups=2),
        Training(bias=False),
        Training(widths=(8, 10, 3)),
        Training(batch=8),
        Training(clip=1.0),
    ],
    ids=["means", "no biases", "narrow", "larger", "clipped"],
)
def test_mild_changes_still_learn(training):
    assert np.median(trained(training)) > 0.7


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.BCE, Loss.HINGE])
def test_every_loss_learns(loss):
    assert min(trained(Training(), Question(loss=loss))) > 0.7


def test_noise_costs_more_than_no_noise():
    case = drawn_case((8, 16, 3), size=4)
    noisy = defence("clip-noise:0.1:50").training(case)
    assert noisy.sampled
    assert noisy.clip == 0.1
    assert np.median(trained(noisy)) < np.median(trained(Training())) - 0.2


def test_every_defence_that_can_be_trained_with_is_trained_with():
    """Each changes what it says: the sent tensors have every name and the shapes of the parameters."""
    case = drawn_case((8, 16, 3), size=4, pool=30, public=20)
    for name in ("mask-exan", "topk:0.5", "withhold:0.bias"):
        assert np.median(trained(defence(name).training(case))) > 0.5
    for name in ("regroup", "perturb", "induce"):
        assert defence(name).training is None
        assert defence(name).no_training


def test_means_are_of_one_class_and_every_sample_is_used_once():
    rng = np.random.default_rng(0)
    x, y = rng.random((23, 4)), rng.integers(0, 3, 23)
    means, classes = class_means(x, y, 3, rng)
    for label in range(3):
        own = x[y == label]
        assert (classes == label).sum() == len(own) // 3
    assert means.shape == (sum((y == k).sum() // 3 for k in range(3)), 4)
    with pytest.raises(InputError, match="no class has 30 samples"):
        class_means(x, y, 30, rng)


def test_steps_are_those_of_the_run():
    data = blobs()
    assert steps_of(Training(), data, 4) == 5 * 60
    assert steps_of(Training(batch=24), data, 4) == 5 * 10
    assert steps_of(Training(groups=2), data, 4) == 5 * 30


def test_distortion_counts_what_is_missing_as_zero():
    before = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    assert distortion(before, before) == 0
    assert distortion({"a": before["a"]}, before) == pytest.approx(4 / 5)
    assert distortion({n: 2 * g for n, g in before.items()}, before) == pytest.approx(1)
    assert distortion({"a": torch.zeros(3), "b": before["b"]}, before) is None
    assert distortion(before | {"c": before["a"]}, before) is None


def test_a_report_has_the_costs_and_epsilon_of_its_run():
    case = drawn_case((8, 16, 3), size=4, public=20)
    data = blobs()
    train = (np.concatenate([data.x, data.held_x]), np.concatenate([data.y, data.held_y]))
    names = ["clip-noise:1:2", "perturb"]
    found = mitigate(
        case.network, (case.x, case.batch.labels), names, prior=case.public, train=train, pixels=2
    )
    noisy, moved = (one.cost for one in found.defences)
    assert found.before.cost.accuracy > 0.9
    assert noisy.baseline == found.before.cost.accuracy
    assert noisy.loss == found.before.cost.accuracy - noisy.accuracy
    assert 0 < noisy.epsilon_run < math.inf
    assert noisy.epsilon == pytest.approx(1.9931, abs=1e-3)
    assert moved.accuracy is None
    assert "linear program" in moved.note
    assert replace(moved, note="").loss is None


def test_too_few_samples_are_refused():
    with pytest.raises(InputError, match="at least 10"):
        split(np.ones((9, 2)), np.zeros(9))
