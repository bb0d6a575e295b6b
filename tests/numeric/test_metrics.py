"""What a recovery is worth beside the truth: labels of either kind, and claims that are wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exan_verify.numeric.problem.metrics import score, wrong_claims

CLASSES = torch.tensor([0, 5, 2])
HOT = nn.functional.one_hot(CLASSES, 6)
X = torch.tensor([[0.0, 1.0], [1.0, 0.0], [5.0, 5.0]])


@pytest.mark.parametrize("found", [CLASSES, HOT, HOT + 1e-4])
@pytest.mark.parametrize("truth", [CLASSES, HOT, HOT.double()])
def test_classes_and_one_hot_targets_agree_in_both_directions(found: torch.Tensor, truth: torch.Tensor):
    assert score(X, found, X, truth).label_accuracy == 1.0
    assert [one.label for one in score(X, found[[0, 2, 1]], X, truth).samples] == [True, False, False]


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        (CLASSES, torch.full((3, 6), 1 / 6)),  # no class
        (torch.full((3, 6), 1 / 6), CLASSES),
        (CLASSES + 6, HOT),  # a class that the targets do not have
        (HOT, HOT[:, :5]),  # other sizes
        (torch.eye(6)[CLASSES] * 0.9, CLASSES),
    ],
)
def test_labels_that_differ(found: torch.Tensor, truth: torch.Tensor):
    assert score(X, found, X, truth).label_accuracy == 0.0


def test_labels_of_one_logit_may_be_flat():
    flat = torch.tensor([0.0, 1.0, 1.0])
    for found, truth in ((flat, flat[:, None]), (flat[:, None], flat)):
        assert score(X, found, X, truth).label_accuracy == 1.0
        assert score(X, 1 - found, X, truth).label_accuracy == 0.0


def test_wrong_claims_are_counted():
    x, y = X[:2], torch.tensor([0, 1])
    bounds = [1e-5] * 3
    assert wrong_claims(x + 1e-6, y, bounds, x, y) == 0
    assert wrong_claims(x + 1e-4, y, bounds, x, y) == 2
    assert wrong_claims(x, torch.tensor([0, 0]), bounds, x, y) == 1
    assert wrong_claims(torch.cat([x, x[:1]]), torch.tensor([0, 1, 0]), bounds, x, y) == 1
    assert wrong_claims(x[:0], y[:0], [], x, y) == 0
    # without bounds it is the RMSE that counts
    assert wrong_claims(x + 1e-4, y, None, x, y) == 0
    assert wrong_claims(x + 1e-2, y, None, x, y) == 2
