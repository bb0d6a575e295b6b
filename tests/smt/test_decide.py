"""Verdicts of the SMT path: the theory's small networks, both entrances, tolerances, budgets, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Engine, Outcome, SampleStatus, Trust
from exan_verify.errors import InputError
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.instances import tiny_question
from exan_verify.smt.portfolio import Settings
from exan_verify.smt.search import SCOUT_INDEX, Search
from exan_verify.smt.solvers.run import Worker
from tests.support import torch_reference
from tests.support.cases import as_floats, two_one_five_one
from tests.support.counterexamples import antisymmetric_head, parallel_logits, zero_pre_activation
from tests.support.smt_cases import decide, decided, irrational, mse_case, named, posed

MSE: dict[str, Any] = {"loss": Loss.MSE}


def test_zero_pre_activation_network_is_unique() -> None:
    """P2 fails there: no neuron is exclusive, and yet there is no other batch."""
    case = zero_pre_activation()
    verdict = decide(case.network, batch=case.batch, **MSE)
    assert verdict.outcome is Outcome.UNIQUE
    assert verdict.samples == (SampleStatus.DETERMINED,) * 2
    assert (verdict.engine, verdict.trust) == (Engine.SMT, Trust.SOLVER_TRUSTED)


@pytest.mark.parametrize("case", [parallel_logits(), antisymmetric_head()], ids=["parallel", "antisymmetric"])
def test_counterexamples_of_one_region_are_ambiguous(case: Any) -> None:
    verdict = decide(case.network, batch=case.batch, **MSE)
    assert verdict.outcome is Outcome.AMBIGUOUS
    check_witness(case.network, case.batch, verdict, Loss.MSE, Reduction.MEAN)


def test_a_bottleneck_leaves_the_inputs_open() -> None:
    """2-1-5-1: determined at the second hidden layer, not in the inputs."""
    network, batch, _ = two_one_five_one(0)
    verdict = decide(network, batch=batch, **MSE)
    assert verdict.outcome is Outcome.AMBIGUOUS
    check_witness(network, batch, verdict, Loss.MSE, Reduction.MEAN)


@pytest.mark.parametrize(
    ("loss", "number", "sample"),
    [(Loss.HINGE, 80, 1), (Loss.HINGE, 86, 2), (Loss.MSE, 4, 0), (Loss.MSE, 39, 1)],
)
def test_a_sample_of_an_ambiguous_batch_is_told_by_the_plain_question(
    loss: Loss, number: int, sample: int
) -> None:
    """Its cubes are many; asked whole, one solver says at once that no batch lacks the sample, be they
    listed by regions or not."""
    asked, truth = posed(tiny_question(loss, number))
    found = Search(asked, Settings()).find("without", (truth,), missing=sample, cheap=True)
    assert set(found.refuted) == {SCOUT_INDEX}


def test_an_integer_gradient_with_one_irrational_batch() -> None:
    network, gradient = irrational()
    verdict = decide(network, gradient=gradient, batch_size=2, reduction=Reduction.SUM, **MSE)
    assert verdict.outcome is Outcome.UNIQUE
    assert verdict.batch is None
    assert verdict.witness is not None
    (found,) = verdict.witness.generators
    assert found["kind"] == "algebraic"
    assert {tuple(r["polynomial"]) for r in found["roots"].values()} == {(7, -6, 1)}
    values = [float(text.split("(")[1].split("...")[0]) for text in found["about"]]
    assert sorted(values) == pytest.approx([3 - 2**0.5, 3 + 2**0.5], abs=1e-12)
    assert found["y"] == [["1", "0", "0"]] * 2
    json.dumps(found)


def test_one_entry_changed_is_unrealisable() -> None:
    network, gradient = irrational()
    tensors = {k: np.array(v, dtype=object) for k, v in gradient.tensors.items()}
    tensors["2.weight"][0, 0] += 1
    verdict = decide(
        network, gradient=Gradient(tensors=tensors), batch_size=2, reduction=Reduction.SUM, **MSE
    )
    assert verdict.outcome is Outcome.UNREALISABLE
    assert "2 samples" in verdict.reason
    assert "one_hot" in verdict.reason


@pytest.mark.parametrize("name", ["plain/mse/bias/0", "plain/hinge/bias/2", "deep/mse/bias/4"])
def test_gradient_given_finds_the_batch(name: str) -> None:
    case = named(name)
    gradient = exact_gradient(case.network, case.batch, case.loss, case.reduction)
    verdict = decide(
        case.network,
        gradient=gradient,
        batch_size=case.batch.size,
        loss=case.loss,
        reduction=case.reduction,
    )
    if verdict.outcome is Outcome.UNIQUE:
        assert verdict.batch is not None
        found = sorted(zip(verdict.batch.x, verdict.batch.y, strict=True))
        assert found == sorted(zip(case.batch.x, case.batch.y, strict=True))
    else:
        assert verdict.outcome is Outcome.AMBIGUOUS


def test_a_box_can_make_a_batch_unique() -> None:
    """One dead sample may move left of zero only; the box pins it to its own place."""
    network, batch = mse_case([[[1]], [[1]]], [[0], [0]], [[0], [1]], [[0], [0]])
    known: dict[str, Any] = {"labels": Labels.KNOWN, **MSE}
    assert decide(network, batch=batch, **known).outcome is Outcome.AMBIGUOUS
    verdict = decide(network, batch=batch, domain=Box(0, 1), **known)
    assert verdict.outcome is Outcome.UNIQUE


def test_labels_change_the_answer() -> None:
    """Two samples of one region: unique for one-hot labels, a second batch with real ones."""
    case = named("shared/mse/bias/0")
    assert decided(case).outcome is Outcome.UNIQUE
    verdict = decided(replace(case, question=replace(case.question, labels=Labels.REAL)))
    assert verdict.outcome is Outcome.AMBIGUOUS
    check_witness(case.network, case.batch, verdict, case.loss, case.reduction)


def test_tolerance_bounds_the_distance() -> None:
    network, batch = mse_case([[[1]], [[1]]], [[2], [0]], [[1]], [[1]])
    small = Fraction(1, 1000)
    near = decide(network, batch=batch, tolerance=small, radius=Fraction(1, 100), **MSE)
    assert near.outcome is Outcome.UNIQUE
    assert "within 1/1000" in near.reason
    assert near.determined == 0
    assert "within the radius" in near.meaning
    tight = decide(network, batch=batch, tolerance=small, radius=Fraction(1, 10**6), **MSE)
    assert tight.outcome is Outcome.AMBIGUOUS


def test_tolerance_with_cross_entropy_is_confirmed_by_balls() -> None:
    network = ReluNetwork.from_arrays([[[1], [2]], [[1, -1], [0, 1]]], [[1, 1], [0, 0]])
    batch = Batch.of([[1.0]], [0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    verdict = decide(
        network,
        batch=batch,
        loss=Loss.CROSS_ENTROPY,
        tolerance=Fraction(1, 100),
        radius=Fraction(1, 10**6),
        work_limit=20_000_000,
    )
    assert verdict.outcome is Outcome.AMBIGUOUS
    assert verdict.witness is not None
    assert verdict.witness.batch is not None
    ours, theirs = (
        torch_reference.gradient(network, b, Loss.CROSS_ENTROPY, Reduction.MEAN)
        for b in (batch, verdict.witness.batch)
    )
    assert max(float(np.abs(ours[k] - theirs[k]).max()) for k in ours) <= 0.01 + 1e-12


def check_witness(network: ReluNetwork, batch: Batch, verdict: Any, loss: Loss, reduction: Reduction) -> None:
    """The witness differs from the batch in every order and has its gradient, exactly and by autograd."""
    assert verdict.witness is not None
    other = verdict.witness.batch
    if other is None:
        return
    ours = sorted(zip(batch.x, batch.y, strict=True))
    assert sorted(zip(other.x, other.y, strict=True)) != ours
    if loss.rational:
        assert exact_gradient(network, batch, loss, reduction) == exact_gradient(
            network, other, loss, reduction
        )
    pair = [torch_reference.gradient(network, as_floats(b), loss, reduction) for b in (batch, other)]
    for name in pair[0]:
        scale = 1 + np.abs(pair[0][name]).max()
        assert np.allclose(pair[0][name], pair[1][name], atol=1e-9 * scale, rtol=1e-9)


SMALL = [
    "plain/mse/bias/1",
    "plain/mse/nobias/3",
    "shared/mse/bias/4",
    "dead/hinge/bias/0",
    "zero/hinge/nobias/2",
    "equal/mse/bias/4",
    "twin/cross_entropy/bias/4",
    "plain/cross_entropy/nobias/1",
    "dead/bce/bias/1",
    "twin/bce/nobias/1",
    "plain/bce/bias/4",
    "plain/cross_entropy/bias/0",
]


@pytest.mark.parametrize("name", SMALL)
def test_witnesses_are_replayed(name: str) -> None:
    case = named(name)
    verdict = decided(case, work_limit=30_000_000)
    assert verdict.outcome in (Outcome.UNIQUE, Outcome.AMBIGUOUS)
    if verdict.outcome is Outcome.AMBIGUOUS:
        assert not case.planted or verdict.outcome is not Outcome.UNIQUE
        check_witness(case.network, case.batch, verdict, case.loss, case.reduction)


def test_free_and_determined_samples_are_told_apart() -> None:
    """A dead sample moves, the live one cannot."""
    network, batch = mse_case([[[1]], [[1]]], [[0], [0]], [[-1], [1]], [[0], [0]])
    verdict = decide(network, batch=batch, labels=Labels.KNOWN, **MSE)
    assert verdict.outcome is Outcome.AMBIGUOUS
    assert verdict.samples == (SampleStatus.FREE, SampleStatus.DETERMINED)


def test_second_opinion_makes_cross_checked() -> None:
    case = named("plain/mse/bias/0")
    verdict = decided(case, double_check=True)
    assert (verdict.outcome, verdict.trust) == (Outcome.UNIQUE, Trust.CROSS_CHECKED)


def test_budgets_end_in_unknown_with_the_open_cubes() -> None:
    case = named("plain/cross_entropy/bias/2")
    verdict = decided(case, work_limit=30_000)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "work limit" in verdict.reason
    assert "cubes stay open (cube 1 [100000001 " in verdict.reason
    assert verdict.samples == (SampleStatus.UNKNOWN,) * 3
    assert decided(case, work_limit=30_000).reason == verdict.reason
    reason = decided(case, budget=0.2).reason  # as far as it came
    assert "wall time" in reason or "larger budget" in reason


def test_jobs_do_not_change_the_verdict() -> None:
    case = named("plain/mse/nobias/3")
    one, two = decided(case), decided(case, jobs=2)
    assert (one.outcome, one.reason, one.samples) == (two.outcome, two.reason, two.samples)


def test_a_finished_run_is_resumed_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = named("plain/mse/nobias/3")
    first = decided(case, cache=tmp_path)
    asked: list[str] = []

    def refuse(self: Worker, text: str, *rest: Any, **options: Any) -> Any:
        asked.append(text)
        raise AssertionError("a solver was asked again")

    monkeypatch.setattr(Worker, "ask", refuse)
    monkeypatch.setattr(Worker, "states", refuse)
    again = decided(case, cache=tmp_path)
    assert asked == []
    assert (again.outcome, again.reason) == (first.outcome, first.reason)


def test_progress_is_reported() -> None:
    seen: list[tuple[int, int, str]] = []
    decided(named("plain/mse/nobias/3"), progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen
    assert all(0 <= done <= total for done, total, _ in seen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": None}, "either batch= or gradient="),
        ({"batch_size": 5}, "batch_size=5"),
        ({"tolerance": Fraction(0)}, "tolerance=0"),
        ({"domain": Box(5, 6)}, "does not lie in the domain"),
    ],
)
def test_bad_questions_name_the_culprit(changes: dict[str, Any], message: str) -> None:
    network, batch = mse_case([[[1]], [[1]]], [[0], [0]], [[0], [1]], [[0], [0]])
    with pytest.raises(InputError, match=message):
        decide(network, **{"batch": batch, **MSE, **changes})


def test_gradient_needs_a_size_and_known_labels_a_batch() -> None:
    network, gradient = irrational()
    with pytest.raises(InputError, match="batch_size is missing"):
        decide(network, gradient=gradient, **MSE)
    with pytest.raises(InputError, match="needs the labels"):
        decide(network, gradient=gradient, batch_size=2, labels=Labels.KNOWN, **MSE)
