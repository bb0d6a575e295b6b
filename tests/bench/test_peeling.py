"""Peeling by a tolerance alone accepts what is not in the batch; the package's methods do not."""

from __future__ import annotations

import pytest
import torch

from exan_verify.bench.attack import autograd_gradient
from exan_verify.bench.peeling import CASES, SUITE, Case, run_case, summarise
from exan_verify.bench.rivals.tolerance_peeling import tolerance_peeling
from exan_verify.bench.suite import Options
from exan_verify.errors import InputError
from exan_verify.numeric.problem.metrics import wrong_claims
from tests.support.torch_reference import normal, perceptron

ROWS = {case.name: case for case in CASES}


def test_the_rows_are_distinct():
    assert len(ROWS) == len(CASES)


@pytest.mark.parametrize(("tolerance", "bogus_at_most"), [("1e-06", 0), ("1e-04", 2)])
def test_a_tolerance_finds_the_batch(tolerance: str, bogus_at_most: int):
    # otherwise what it accepts wrongly would say nothing
    run = run_case(ROWS[f"tolerance {tolerance}, float64"], 1)
    assert run.accepted == 32
    assert run.bogus <= bogus_at_most
    assert run.recall == (32 - run.bogus) / 32


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_tolerance_accepts_a_bogus_sample_and_ours_does_not(dtype: str):
    loose = run_case(ROWS[f"tolerance 1e-04, {dtype}"], 1)
    assert loose.bogus > 0
    ours = run_case(ROWS[f"auto, {dtype}"], 1)
    assert (ours.accepted, ours.bogus, ours.recall) == (32, 0, 1.0)
    assert ours.bound is not None
    assert ours.bound < 1e-3


def test_an_absolute_residual_is_of_whole_rows():
    """Biases that are off by 1e-7 make no more than that of a row's entries: small ones where inputs are."""
    run = run_case(ROWS["LT peeling, float64"], 1)
    assert (run.accepted, run.bogus, run.recall) == (32, 0, 1.0)
    y = torch.tensor([1, 2, 3])
    for size, accepted in ((1, 3), (1000, 0)):
        model, x = perceptron(30, 200, 5, seed=2), size * normal(3, 30).float()
        gradient = autograd_gradient(model, x, y, "float64")
        gradient["0.bias"] *= 1 + 1e-7
        for absolute, tolerance, least in ((False, 1e-6, 3), (True, 1e-8, accepted)):
            found, _ = tolerance_peeling(
                model, gradient, batch_size=3, tolerance=tolerance, absolute=absolute
            )
            assert len(found) == least


def test_a_tolerance_below_rounding_finds_little():
    assert run_case(ROWS["tolerance 1e-08, float32"], 1).recall < 0.2


@pytest.mark.parametrize("samples", [1, 3])
def test_the_baseline_peels_labels_too(samples: int):
    model, x = perceptron(30, 200, 5, seed=2), normal(samples, 30).float()
    y = torch.arange(samples) + 1
    gradient = autograd_gradient(model, x, y, "float64")
    found, labels = tolerance_peeling(model, gradient, batch_size=samples, tolerance=1e-6)
    assert sorted(labels.tolist()) == y.tolist()
    assert wrong_claims(found, labels, None, x, y) == 0
    assert wrong_claims(found, (labels + 1) % 5, None, x, y) == samples
    assert wrong_claims(found + 0.01, labels, None, x, y) == samples
    assert wrong_claims(found + 1e-6, labels, [1e-7] * samples, x, y) == samples


def test_rows_sum_up_their_seeds():
    case = Case(name="loose", method="", dtype="float64", tolerance=1e-2)
    runs = [run_case(case, seed) for seed in (0, 1)]
    row = summarise("loose", runs)
    assert (row.seeds, row.spoiled, row.bogus) == (2, 2, runs[0].bogus + runs[1].bogus)
    assert row.accepted >= row.bogus > 10


def test_rows_by_name_and_progress():
    told: list[tuple[str, int, int]] = []
    name = "tolerance 1e-06, float64"
    (row,) = SUITE.run(Options(seeds=[4], progress=lambda *step: told.append(step)), rows=[name])
    assert told == [(name, 0, 1)]
    assert (row.name, row.seeds, row.spoiled) == (name, 1, 0)
    with pytest.raises(InputError, match=r"peeling has no case 'x'; [^:]*:\n  LT peeling"):
        SUITE.run(Options(seeds=[0]), rows=["x"])
