"""Nothing that exclusive neurons suggest is claimed wrongly: not the input, not its bound, not its label."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.numeric.problem.metrics import score
from tests.conftest import examples
from tests.support.attack_cases import Case, attack_case, cases, check_bounds
from tests.support.numeric_cases import drawn_batch, drawn_network

METHODS: tuple[dict[str, object], ...] = (
    {"method": "peel"},
    {"method": "peel+lift"},
    {"method": "published"},
    {"method": "published", "repairs": False},
)
_ALIKE = 0.1
"""Samples nearer than this may share a region and look like one: then the batch size has to be told."""


def check_methods(case: Case) -> int:
    """Attack by every method; the number of claims, all of which hold."""
    *_, told = case
    x, y = case[1:3]
    told = told or (len(x) > 1 and float(torch.pdist(x).min()) < _ALIKE)
    claims = 0
    for options in METHODS:
        found = attack_case((*case[:-1], told), labels="one_hot", **options)
        if found is None:
            continue
        check_bounds(case, found)
        assert all(sample.label for sample in score(found.x, found.y, x, y).samples)
        claims += len(found.x)
    return claims


@given(cases())
@examples(40)
def test_no_claim_is_wrong(case: Case):
    check_methods(case)


@given(st.integers(0, 2**31), st.sampled_from(["cross_entropy", "bce", "mse"]), st.integers(1, 4))
@examples(20)
def test_ordinary_batches_are_peeled_whole(seed: int, loss: str, samples: int):
    # the law above would hold for methods that claim nothing
    rng = np.random.default_rng(seed)
    model = drawn_network((30, 160, 6), rng).float()
    x, y = drawn_batch("randn", samples, 30, 6, rng)
    target = y if loss == "cross_entropy" else torch.nn.functional.one_hot(y, 6).float()
    case = (model, x.float(), target, loss, "mean", torch.float64, False)
    assert check_methods(case) >= 2 * samples


@given(st.integers(0, 10**6), st.floats(-10, -1), st.sampled_from([None, 3]))
@examples(20)
def test_a_row_that_shows_a_little_of_another_sample_is_no_sample(
    seed: int, exponent: float, size: int | None
):
    """Neuron 0 is active for two samples, and the delta of the second is 10^exponent of the first's."""
    rng = np.random.default_rng(seed)
    share = 10.0**exponent
    x = torch.tensor(rng.normal(size=(3, 20)))
    w1, b1 = rng.normal(size=(48, 20)) / 20**0.5, rng.normal(size=48) / 20**0.5
    # active for samples 0 and 1, not for 2
    w1[0], b1[0] = np.linalg.lstsq(x.numpy(), np.array([1.0, 1.0, -1.0]), rcond=None)[0], 0.0
    w2, b2 = rng.normal(size=(4, 48)) / 48**0.5, rng.normal(size=4) / 48**0.5
    y = torch.tensor([0, 1, 2])
    for _ in range(60):  # the column changes the loss vectors a little, so it is adjusted until it fits
        model = _two_layers(w1, b1, w2, b2)
        g = model(x).softmax(1).detach().numpy() - np.eye(4)[y]
        column = np.linalg.lstsq(g[:2], np.array([1.0, share]), rcond=None)[0]
        w2[:, 0] = 0.05 * column / np.linalg.norm(column)
    case = (_two_layers(w1, b1, w2, b2), x, y, "cross_entropy", "mean", torch.float64, size is not None)
    assert check_methods(case) >= 3


def _two_layers(w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray) -> torch.nn.Sequential:
    model = torch.nn.Sequential(torch.nn.Linear(20, 48), torch.nn.ReLU(), torch.nn.Linear(48, 4)).double()
    for parameter, value in zip(model.parameters(), (w1, b1, w2, b2), strict=True):
        parameter.data = torch.tensor(value)
    return model
