"""Sparsified gradients: completed from the entries that are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify.bench.attack import autograd_gradient
from exan_verify.core.question import Loss, Reduction
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.missing.basis_pursuit import few_entries
from exan_verify.numeric.missing.completion import complete, sparsified
from exan_verify.numeric.problem.problem import build_problem
from exan_verify.numeric.problem.records import Attack
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd


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
    assert not sparsified(build_problem(network, gradient, **asked))
    kept = largest(gradient, 0.4)
    assert sparsified(build_problem(network, kept, **asked))
    found = run(network, kept, **asked)
    assert found.method == "completion"
    assert (found.count("confirmed"), found.count("consistent")) == (0, 4)
    for sample, evidence in zip(found.x, found.status, strict=True):
        errors = (x - sample).abs().amax(dim=1)
        assert float(errors.min()) <= max(evidence.error_bound, 1e-12)


def equations(seed: int, entries: int, *, signed: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """60 equations in 150 unknowns of which so many are not zero, and these; the last column is zero."""
    rng = np.random.default_rng([seed, entries])
    matrix = torch.tensor(rng.standard_normal((60, 150)))
    matrix[:, -1] = 0
    truth = torch.zeros(150, dtype=torch.float64)
    chosen = torch.tensor(rng.permutation(149)[:entries])
    truth[chosen] = torch.tensor(
        rng.uniform(0.1, 1, entries) * (rng.choice([-1, 1], entries) if signed else 1)
    )
    return matrix, matrix @ truth, truth


@pytest.mark.parametrize(("signed", "entries"), [(False, 12), (True, 8)])
def test_few_entries_are_found_and_what_no_equation_sees_is_open(signed: bool, entries: int):
    for seed in range(6):
        matrix, target, truth = equations(seed, entries, signed=signed)
        found, errors, fits = few_entries(matrix, target, signed=signed, tolerance=1e-9)
        assert fits
        assert bool(((found - truth).abs() <= 16 * errors)[:-1].all())
        assert float(errors[:-1].max()) < 1e-9
        assert errors[-1] == torch.inf


def test_few_entries_are_found_where_equations_depend_on_each_other():
    for seed in range(6):
        rng = np.random.default_rng([seed, 200])
        matrix = torch.tensor(rng.standard_normal((200, 60)) @ rng.standard_normal((60, 300)))
        truth = torch.zeros(300, dtype=torch.float64)
        truth[torch.tensor(rng.permutation(300)[:6])] = torch.tensor(rng.uniform(0.1, 1, 6))
        found, errors, fits = few_entries(matrix, matrix @ truth, signed=False, tolerance=1e-9)
        assert fits
        assert bool(((found - truth).abs() <= 16 * errors).all())
        assert float(errors.max()) < 1e-9


def test_many_entries_are_found_by_nobody_and_claimed_by_nobody():
    for seed in range(6):
        matrix, target, truth = equations(seed, 55, signed=False)
        found, errors, _ = few_entries(matrix, target, signed=False, tolerance=1e-9)
        assert float((found - truth).abs().max()) > 1e-3
        assert bool((errors == torch.inf).all())


@pytest.mark.parametrize("share", [0.6, 0.3, 0.25])
def test_most_batches_come_out_whatever_the_share(share: float):
    """Four in five of them at least."""
    whole = 0
    for seed in range(5):
        model, x, y = scene(seed)
        network = to_network(model)
        gradient = largest(autograd_gradient(model, x, y, "float64"), share)
        assert sparsified(build_problem(network, gradient, loss="cross_entropy", reduction="mean"))
        found = run(network, gradient, loss="cross_entropy", reduction="mean")
        assert wrong(found, x) == 0
        whole += found.count("consistent") == 4
    assert whole >= 4


@pytest.mark.parametrize("kind", ["at random", "one left out", "one changed", "mixed up"])
def test_nothing_is_claimed_of_entries_that_are_not_the_largest(kind: str):
    for seed in range(3):
        rng = np.random.default_rng([seed, 41])
        model, x, y = scene(seed)
        kept = largest(autograd_gradient(model, x, y, "float64"), 0.4)
        weight = kept["0.weight"].flatten()
        places = torch.nonzero(weight)[:, 0]
        if kind == "at random":
            gradient = autograd_gradient(model, x, y, "float64")
            kept = {
                n: torch.where(torch.tensor(rng.random(g.shape) < 0.4), g, 0) for n, g in gradient.items()
            }
        elif kind == "one left out":
            # of the last layer: the first one is completed as before
            last = kept["2.weight"].flatten()
            last[last.abs().argmax()] = 0
        elif kind == "one changed":
            weight[places[int(rng.integers(len(places)))]] *= 1 + 1e-6
        else:
            weight[places] = weight[places][torch.tensor(rng.permutation(len(places)))]
        found = run(to_network(model), kept, loss="cross_entropy", reduction="mean")
        assert found.method != "completion" or not found.status
        assert wrong(found, x) == 0


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.BCE])
def test_a_factor_is_no_target(loss: Loss):
    whole = 0
    for seed in range(4):
        rng = np.random.default_rng([seed, 43])
        model = drawn_network((30, 120, 5), rng)
        x, y = drawn_batch("rand", 4, 30, 5, rng, loss)
        kept = largest(autograd(model, x, y, loss, Reduction.MEAN), 0.4)
        asked = {"loss": loss.value, "reduction": "mean"}
        found = run(to_network(model), kept, **asked)
        assert wrong(found, x) == 0
        own = torch.cdist(found.x, x).argmin(dim=1)
        assert torch.equal(found.y, y[own])
        whole += found.count("consistent") == 4
        # with a factor, real targets would explain every entry
        found = run(to_network(model), {n: 2.3 * g for n, g in kept.items()}, **asked)
        assert not found.status
        if found.method == "completion":
            assert "of no labels, as of a gradient with a factor" in found.reason
            assert all(one.label is None for one in found.candidates)
    assert whole >= 3


def scene(seed: int) -> tuple[torch.nn.Sequential, torch.Tensor, torch.Tensor]:
    """A network 30-120-5 and four samples, faint in the last six entries."""
    rng = np.random.default_rng([seed, 42])
    x = torch.tensor(rng.random((4, 30)) * np.where(np.arange(30) < 24, 1.0, 0.0))
    x[seed % 4, 24 + seed % 6] = 0.05
    return drawn_network((30, 120, 5), rng), x, torch.tensor(rng.integers(5, size=4))


def wrong(found: Attack, x: torch.Tensor) -> int:
    """Samples that are found, and farther from every one of the batch than their bound."""
    return sum(
        float((x - sample).abs().amax(dim=1).min()) > max(evidence.error_bound, 1e-12)
        for sample, evidence in zip(found.x, found.status, strict=True)
    )
