"""Budgets and Ctrl-C in ``certify`` and ``audit``: at whatever step they come, nothing wrong is said."""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from exan_verify import Outcome, ReluNetwork, SampleStatus, Verdict, audit, certify, check
from exan_verify.core.budget import Budget, poll
from exan_verify.core.network import Gradient
from exan_verify.errors import BudgetExhausted
from exan_verify.exact import apart, linalg
from exan_verify.exact.modular import random_residues
from tests.support.certificate_cases import certify_as
from tests.support.tolerance_cases import case

INTERRUPTIONS = 5
"""Places at which each question is interrupted."""


def question(kind: str) -> tuple[ReluNetwork, dict[str, Any]]:
    """A question that the engine ``kind`` settles, or nobody does."""
    rng = np.random.default_rng(3)
    widths = {"lifting": (6, 30, 3), "families": (6, 5, 2), "open": (5, 7, 2), "scale": (3, 14, 2)}[kind]
    bias = kind != "scale"
    pairs = list(pairwise(widths))
    network = ReluNetwork.from_arrays(
        [rng.integers(-4, 5, (b, a)) / 2 for a, b in pairs],
        [rng.integers(-4, 5, b) / 2 for _, b in pairs] if bias else None,
    )
    samples = {"lifting": 3, "families": 2, "open": 4, "scale": 2}[kind]
    batch = rng.integers(-4, 5, (samples, widths[0])) / 2, rng.integers(0, widths[-1], samples)
    return network, {"batch": batch, "loss": "mse" if kind == "families" else "cross_entropy"}


KINDS = ("lifting", "families", "open", "scale")


@contextmanager
def at_look(monkeypatch: pytest.MonkeyPatch, look: Callable[[int], str | None]) -> Iterator[list[int]]:
    """``look(k)`` decides what the k-th look at the clock says, or raises."""
    seen: list[int] = []

    def late(_: Budget) -> str | None:
        seen.append(len(seen))
        return look(len(seen))

    with monkeypatch.context() as patch:
        patch.setattr(Budget, "late", property(late))
        yield seen


def looks(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], Any]) -> list[int]:
    """Some of the places where ``ask`` looks at the clock: the first, the last, and between."""
    with at_look(monkeypatch, lambda _: None) as seen:
        ask()
    return sorted({int(k) for k in np.linspace(1, len(seen), INTERRUPTIONS)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_that_ends_anywhere_leaves_only_what_is_proved(monkeypatch, kind):
    network, asked = question(kind)

    def ask() -> Verdict:
        return certify(network, engine="exact", **asked)

    whole = ask()
    for place in looks(monkeypatch, ask):
        with at_look(monkeypatch, lambda k, place=place: "the budget ran out" if k >= place else None):
            cut = ask()
        assert cut.outcome in (whole.outcome, Outcome.UNKNOWN)
        assert len(cut.samples) == len(whole.samples)
        for status, expected in zip(cut.samples, whole.samples, strict=True):
            assert status in (expected, SampleStatus.UNKNOWN)
        if cut.outcome is Outcome.UNKNOWN:
            assert "the budget ran out" in cut.reason
        if cut.certificate is not None:
            assert check(cut.certificate, network, batch=asked["batch"]).samples == cut.samples
    assert ask() == whole or ask().samples == whole.samples


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ask", [certify, audit])
def test_ctrl_c_anywhere_gets_through_and_leaves_nothing(monkeypatch, ask, kind):
    network, asked = question(kind)
    options = dict(asked)
    batch = options.pop("batch")

    def run() -> Any:
        return audit(network, batch, **options) if ask is audit else certify(network, batch=batch, **options)

    def pressed(place: int, k: int) -> None:
        if k == place:
            raise KeyboardInterrupt

    whole = run()
    for place in looks(monkeypatch, run):
        with (
            at_look(monkeypatch, lambda k, place=place: pressed(place, k)),
            pytest.raises(KeyboardInterrupt),
        ):
            run()
        poll()  # nobody's budget is left behind
    verdict, again = (found.verdict if ask is audit else found for found in (whole, run()))
    assert (verdict.outcome, verdict.samples, verdict.reason) == (again.outcome, again.samples, again.reason)


def test_ctrl_c_in_progress_gets_through():
    network, asked = question("open")
    told: list[tuple[str, float]] = []
    certify(network, progress=lambda what, share: told.append((what, share)), engine="exact", **asked)
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert {"lifting", "families", "enumeration"} <= {what for what, _ in told}

    def pressed(what: str, _: float) -> None:
        if what == "families":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(network, progress=pressed, engine="exact", **asked)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "hinge", "bce"])
@pytest.mark.parametrize("samples", [3, 40, 300])
def test_every_question_is_answered_by_a_budget_that_is_over_at_once(loss, samples):
    rng = np.random.default_rng(samples)
    network = ReluNetwork.from_arrays(
        [rng.normal(size=(64, 50)), rng.normal(size=(10, 64))], [rng.normal(size=64), rng.normal(size=10)]
    )
    x, y = rng.normal(size=(samples, 50)), rng.integers(0, 10, samples)
    if loss == "bce":
        y = rng.integers(0, 2, (samples, 10))
    tensors = {name: rng.normal(size=array.shape) for name, array in network.parameters()}
    questions = [
        {"batch": (x, y)},
        {"batch": (x, y), "batch_size": samples + 1},
        {"gradient": tensors, "tolerance": 1e-9, "batch_size": samples},
        {"gradient": Gradient(tensors=tensors, rational=True), "batch_size": samples},
    ]
    for asked in questions:
        verdict = certify_as(Outcome.UNKNOWN, network, loss=loss, budget=1e-6, **asked)
        assert verdict.reason
    found = audit(network, (x, y), loss=loss, budget=1e-6)
    assert found.verdict.outcome is Outcome.UNKNOWN
    assert found.batch_size == samples
    assert found.exclusivity is found.published is None
    assert found.peelable == (None,) * samples
    found.to_json()


def test_a_step_apart_is_killed_when_the_budget_ends_and_answers_otherwise():
    assert apart.apart(operator.add, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        apart.apart(operator.truediv, 1, 0)
    with pytest.raises(MemoryError):
        apart.apart(sys.exit, 9)
    with Budget(seconds=0.2).kept(), pytest.raises(BudgetExhausted):
        apart.apart(time.sleep, 3600.0)


def test_eliminations_apart_find_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    rational = rng.integers(-3, 4, (6, 5)).astype(object)
    rational[:, 4] = rational[:, 0] + rational[:, 1]
    right = rational[:, :4] @ rng.integers(-3, 4, (4, 2)).astype(object)

    def answers() -> list[Any]:
        solved = linalg.solve(rational[:, :4], right)
        assert solved is not None
        return [
            linalg.rank_mod(random_residues("apart", 7, 9)),
            linalg.rank(rational),
            linalg.pivots(rational),
            linalg.nullspace(rational).tolist(),
            solved.tolist(),
            linalg.multiply(rational, rational.T).tolist(),
        ]

    here = answers()
    monkeypatch.setattr(linalg, "_LONG", -1.0)
    assert answers() == here


def test_a_long_question_with_a_tolerance_is_answered_apart_as_here(monkeypatch):
    from exan_verify.decide.tolerance import engine

    network, _, gradient = case([20, 90, 4], 3)
    here = certify(network, gradient=gradient, tolerance=1e-12, batch_size=3, work_limit=10**9)
    monkeypatch.setattr(engine, "_LONG", 0)
    there = certify(
        network, gradient=gradient, tolerance=1e-12, batch_size=3, work_limit=10**9, progress=lambda *_: None
    )
    assert (there.outcome, there.reason, there.batch) == (here.outcome, here.reason, here.batch)
    assert there.outcome is Outcome.UNIQUE
    assert there.batch is not None
    assert not there.batch.inputs.flags.writeable
