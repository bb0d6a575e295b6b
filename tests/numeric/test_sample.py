"""The `sample` method: finds all of a small batch, says when it cannot, claims nothing wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify.bench.attack import autograd_gradient
from exan_verify.data import mnist_batch
from exan_verify.errors import RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.ask_methods import column_spaces
from exan_verify.numeric.attack import METHODS, run
from exan_verify.numeric.methods import separate
from exan_verify.numeric.methods.equations import layer_equations
from exan_verify.numeric.methods.searching import sample
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.polish import polish
from exan_verify.numeric.problem.problem import build_problem
from exan_verify.numeric.problem.records import Attack
from tests.support.attack_cases import assert_nothing
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd, normal, perceptron


def attacked(
    widths: tuple[int, ...],
    samples: int,
    *,
    seed: int = 0,
    dtype: str = "float64",
    x: Tensor | None = None,
    y: Tensor | None = None,
) -> tuple[Attack, Tensor, Tensor]:
    model: nn.Sequential = perceptron(*widths, seed=seed)
    drawn = drawn_batch("randn", samples, widths[0], widths[-1], np.random.default_rng(seed))
    x = drawn[0].float() if x is None else x
    y = drawn[1] if y is None else y
    gradient = autograd_gradient(model, x, y, dtype)
    found = run(to_network(model), gradient, loss="cross_entropy", reduction="mean", method="sample")
    return found, x, y


@pytest.mark.parametrize("kind", ["randn", pytest.param("rand", marks=pytest.mark.campaign)])
@pytest.mark.parametrize(
    ("widths", "samples"),
    [
        *itertools.product([(30, 120, 6), (30, 100, 80, 6)], [1, 2, 3, 5]),
        # with two classes patterns that contain one another give strangers that solve all equations
        *itertools.product([(12, 60, 2)], [1, 2, 3]),
    ],
)
def test_a_small_batch_is_found(widths: tuple[int, ...], samples: int, kind: str):
    # all of 20 batches: there is a draw that shows each sample, and copies of one leave room for the others
    missed = []
    for seed in range(20):
        rng = np.random.default_rng([seed, samples])
        model = drawn_network(widths, rng)
        x, y = drawn_batch(kind, samples, widths[0], widths[-1], rng)
        gradient = autograd(model, x, y)
        found = run(to_network(model), gradient, loss="cross_entropy", reduction="mean", method="sample")
        result = score(found.x, found.y, x, y)
        assert all(s.largest <= found.status[s.index].error_bound < 1e-8 for s in result.samples)
        if not (found.complete and (result.recall, result.label_accuracy) == (1.0, 1.0)):
            missed.append((seed, found.reason))
        else:
            # one sample is divided out, whatever method is asked for
            assert (found.method, found.layer) == (("sample", 1) if samples > 1 else ("one sample", None))
    assert not missed


@pytest.mark.parametrize("method", ["assign", "sample", "peel"])
@pytest.mark.parametrize("distance", [0.1, 0.02])
def test_samples_near_each_other_do_not_crowd_one_another_out(method: str, distance: float):
    """Two of four samples are near each other, with deltas of nearly one direction but different patterns."""
    tried, whole = 0, 0
    for seed in range(100):
        rng = np.random.default_rng([seed, 77])
        model = drawn_network((30, 400, 6), rng)
        x, y = drawn_batch("randn", 4, 30, 6, rng)
        x[1], y[1] = x[0] + distance * torch.tensor(rng.normal(size=30)), y[0]
        patterns = model[0](x[:2]) > 0
        if int((patterns[0] != patterns[1]).sum()) < 2 or not bool((patterns[0] & ~patterns[1]).any()):
            continue
        if not bool((patterns[1] & ~patterns[0]).any()):
            continue
        tried += 1
        options = {"loss": "cross_entropy", "reduction": "mean", "method": method, "batch_size": 4}
        whole += run(to_network(model), autograd(model, x, y), **options).complete
        if tried == 8:
            break
    assert tried == 8
    assert whole >= tried - 1


def test_float32():
    found, x, y = attacked((30, 200, 6), 5, dtype="float32")
    result = score(found.x, found.y, x, y)
    assert len(found.x) == 5
    assert all(s.largest <= found.status[s.index].error_bound for s in result.samples)


def test_samples_come_before_strangers():
    images, classes = mnist_batch(8, 0)
    model = perceptron(784, 512, 10, seed=0)
    gradient = autograd_gradient(model, torch.tensor(images), torch.tensor(classes), "float64")
    problem = build_problem(to_network(model), gradient, loss="cross_entropy", reduction="mean")
    draws = sample._Draws(layer_equations(problem, column_spaces(problem), 0), problem.generator())
    q, _ = next(draws.starts())
    _, misfit = draws._explained(draws.basis @ q)
    samples = int((misfit < 1e-9).sum())
    assert samples >= 4
    assert float(misfit[:samples].max()) < 1e-9
    assert float(misfit[samples:].min()) > 0.1


@pytest.mark.parametrize("samples", [8, 16])
def test_few_strangers_are_polished(samples: int, monkeypatch: pytest.MonkeyPatch):
    # thousands of directions vanish on more rows than drawn; polishing them all took longer than all the rest
    polished = 0

    def counted(basis: Tensor, forward: Tensor, q: Tensor, p: Tensor, slope: Tensor | None) -> object:
        nonlocal polished
        polished += q.shape[1]
        return polish(basis, forward, q, p, slope)

    monkeypatch.setattr(separate, "polish", counted)
    images, classes = mnist_batch(samples, 0)
    found, x, y = attacked((784, 512, 10), samples, x=torch.tensor(images), y=torch.tensor(classes))
    assert found.complete, found.reason
    assert score(found.x, found.y, x, y).recall == 1.0
    assert polished <= 4 * sample._PORTION


def test_draws_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sample, "DRAWS", 2 * sample._BATCH)
    found, *_ = attacked((784, 512, 10), 24)
    assert_nothing(found, f"of 24 samples found in {2 * sample._BATCH} draws", "lift or assign")


def test_samples_of_one_region_are_not_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sample, "DRAWS", 2 * sample._BATCH)
    x = normal(3, 30, seed=4).float()
    x[1] = x[0] + 1e-4 * normal(30, seed=5).float()
    found, x, y = attacked((30, 120, 6), 3, x=x)
    result = score(found.x, found.y, x, y)
    assert all(s.largest <= found.status[s.index].error_bound for s in result.samples)
    assert not found.complete


def test_full_rank_is_out_of_range():
    with pytest.raises(RangeError, match="the first layer's gradient has full rank"):
        attacked((30, 8, 6), 12)


def test_it_is_a_method_by_name():
    assert METHODS["sample"].name == "sample"
