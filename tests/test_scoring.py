"""Scores match samples one to one and count only what is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify.errors import ShapeError
from exan_verify.scoring import score

X = np.array([[[0.0, 1.0]], [[1.0, 1.0]], [[0.5, 0.0]]])
Y = np.array([2, 0, 1])


def test_order_does_not_matter_and_missing_samples_count_as_missing():
    found = score(torch.tensor([[0.5, 0.0], [0.0, 1.0]]), torch.tensor([1, 2]), X, Y)
    assert found.match == (1, None, 0)
    assert found.rmse == (0.0, None, 0.0)
    assert found.psnr == (None, None, None)
    assert found.recall == pytest.approx(2 / 3)
    assert found.labels_right == 2


def test_errors_are_root_mean_squares_and_decibels_of_the_range():
    found = score(X.reshape(3, 2) + np.array([[0, 0.01], [0, 0.0005], [0, 0]]), [2, 1, 1], X, Y)
    assert found.rmse[0] == pytest.approx(0.01 / np.sqrt(2))
    assert found.psnr[0] == pytest.approx(40 + 10 * np.log10(2))
    assert found.recall == pytest.approx(2 / 3), "0.007 is not recovered, 0.00035 is"
    assert found.labels_right == 2


def test_one_recovered_sample_is_never_counted_for_two_twins():
    found = score([[0.0, 1.0]], [2], X[[0, 0]], Y[[0, 0]])
    assert sorted(found.match, key=str) == [0, None]
    assert found.recall == 0.5


def test_nothing_recovered():
    found = score(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), X, Y)
    assert (found.match, found.recall, found.labels_right) == ((None,) * 3, 0, 0)


def test_one_hot_targets_and_classes_compare_equal():
    assert score(X.reshape(3, 2), np.eye(3)[Y], X, Y).labels_right == 3
    assert score(X.reshape(3, 2), [[0.25], [1], [0]], X, [[0.25], [1], [1]]).labels_right == 2


def test_another_batch_is_refused():
    with pytest.raises(ShapeError, match="the true x has 3 features per sample, the recovered 2"):
        score(X.reshape(3, 2), Y, np.zeros((3, 3)), Y)
