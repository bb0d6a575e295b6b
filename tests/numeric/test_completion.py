"""Sparsified gradients: completed from the entries that are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify.bench.attack import autograd_gradient
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.missing.completion import complete, sparsified
from exan_verify.numeric.problem.problem import build_problem
from tests.support.numeric_cases import drawn_network


def low_rank(seed: int, rank: int, share: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A matrix (80, 60), its largest entries, and the smallest of these."""
    rng = np.random.default_rng([seed, rank])
    matrix = torch.tensor(rng.standard_normal((80, rank)) @ rng.standard_normal((rank, 60)))
    least = float(matrix.abs().flatten().quantile(1 - share))
    return matrix, torch.where(matrix.abs() >= least, matrix, 0.0), least


@pytest.mark.parametrize("seed", range(6))
def test_the_rank_and_the_matrix_are_those_of_the_entries(seed: int):
    rank = 2 + seed % 3
    matrix, kept, least = low_rank(seed, rank, 0.5)
    done = complete(kept, torch.full_like(kept, least), 12)
    assert done is not None
    assert done.rank == rank
    assert int(done.rows.sum()) >= 70
    found = done.values[done.rows][:, done.columns]
    assert float((found - matrix[done.rows][:, done.columns]).abs().max()) < 1e-9


def test_a_matrix_of_full_rank_is_not_completed():
    matrix = torch.tensor(np.random.default_rng(1).standard_normal((80, 60)))
    kept = torch.where(matrix.abs() > 0.7, matrix, 0.0)
    assert complete(kept, torch.full_like(kept, 0.7), 12) is None


def largest(gradient: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Only the largest entries of every tensor."""
    kept = {}
    for name, g in gradient.items():
        least = g.abs().flatten().quantile(1 - share)
        kept[name] = torch.where(g.abs() >= least, g, 0.0)
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_comes_out_of_the_largest_entries(seed: int):
    rng = np.random.default_rng([seed, 40])
    model = drawn_network((30, 120, 5), rng)
    # the outer entries are faint in all samples, so that they keep nothing
    x = torch.tensor(rng.random((4, 30)) * np.where(np.arange(30) < 24, 1.0, 0.0))
    x[seed, 25] = 0.05
    y = torch.tensor(rng.integers(5, size=4))
    gradient = autograd_gradient(model, x, y, "float64")
    network = to_network(model)
    asked = {"loss": "cross_entropy", "reduction": "mean"}
    assert not sparsified(build_problem(network, gradient, **asked).layers[0])
    kept = largest(gradient, 0.4)
    assert sparsified(build_problem(network, kept, **asked).layers[0])
    found = run(network, kept, **asked)
    assert found.method == "completion"
    assert (found.count("confirmed"), found.count("consistent")) == (0, 4)
    for sample, evidence in zip(found.x, found.status, strict=True):
        errors = (x - sample).abs().amax(dim=1)
        assert float(errors.min()) <= max(evidence.error_bound, 1e-12)
