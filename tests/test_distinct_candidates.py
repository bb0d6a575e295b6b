"""Candidates are shown once, whatever several methods made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from exan_verify.numeric.confirming.adding_up import distinct
from exan_verify.numeric.problem.records import Candidate, Evidence


def candidate(x: np.ndarray, error: float, label: int | None = 0) -> Candidate:
    known = None if label is None else torch.tensor(label)
    return Candidate(x=torch.tensor(x), label=known, error_estimate=error, reason="it was drawn")


def evidence(bound: float) -> Evidence:
    return Evidence(
        method="lift",
        layer=1,
        error_bound=bound,
        residual=0.0,
        isolation=1.0,
        label_residual=0.0,
        label_margin=1.0,
    )


@pytest.mark.parametrize("units", [1e-4, 1.0, 1e5])
@pytest.mark.parametrize("seed", range(5))
def test_one_of_those_that_are_one_sample_is_kept_the_better_one(seed: int, units: float):
    rng = np.random.default_rng(seed)
    rows = units * rng.standard_normal((5, 8))
    errors = units * 10.0 ** rng.uniform(-8, -3, (3, 5))
    errors[2] = math.inf  # an estimate without bound makes one of no two samples
    drawn = [
        candidate(rows[m] + 1e-5 * units * rng.uniform(-1, 1, 8), errors[k, m])
        for k in range(3)
        for m in range(5)
    ]
    order = rng.permutation(len(drawn))
    kept = distinct(torch.zeros(0, 8), (), [drawn[k] for k in order])
    assert sorted(one.error_estimate for one in kept) == sorted(errors.min(axis=0))
    found = torch.tensor(rows[:2])
    rest = distinct(found, (evidence(1e-9 * units),) * 2, drawn)
    assert len(rest) == 3
    assert all(float((one.x - row).abs().max()) > 1e-3 * units for one in rest for row in found)


def test_near_samples_that_are_known_well_stay_two_and_a_label_is_worth_something():
    x = np.array([1.0, -2.0, 0.5])
    near = x + np.array([0.0, 0.01, 0.0])
    assert len(distinct(torch.zeros(0, 3), (), [candidate(x, 1e-6), candidate(near, 1e-6)])) == 2
    assert len(distinct(torch.zeros(0, 3), (), [candidate(x, 1e-2), candidate(near, 1e-2)])) == 1
    (kept,) = distinct(torch.zeros(0, 3), (), [candidate(x, 1e-6, None), candidate(x, 1e-6, 1)])
    assert kept.label is not None
