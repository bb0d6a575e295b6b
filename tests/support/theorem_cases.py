"""Statements made up for tests of the framework, and a registry that holds them alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from exan_verify import Outcome
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.theorems import (
    Check,
    Direction,
    Example,
    Ground,
    Method,
    Progress,
    Result,
    Standing,
    Statement,
)
from tests.support.counterexamples import published_insecure

AWKWARD = r"50 % of_names & $x$ {braces} #1 a\b ~ ^ | <tag> `code` *star* [link] ≤ δ 𝔽 — “q” é"
"""Text with every character that Markdown or LaTeX gives a meaning."""


def silent(_what: str, _done: int, _total: int) -> None:
    return None


def example_of(case: Any, **more: Any) -> Example:
    """A counterexample of :mod:`tests.support.counterexamples` as a statement shows it."""
    parts = {"second": case.second, "outcome": case.outcome, "question": Question(loss=Loss.MSE), "note": ""}
    return Example(network=case.network, batch=case.batch, **(parts | more))


def insecure_example() -> Example:
    return example_of(
        published_insecure(), outcome=Outcome.AMBIGUOUS, note="another batch has the same gradient"
    )


def unique_example() -> Example:
    """Two samples of one region that the output layer tells apart: UNIQUE by S5."""
    network = ReluNetwork.from_arrays([[[1]], [[0], [0]]], [[1], [0, 0]])
    batch = Batch.of([[0], [1]], [0, 1], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Example(
        network=network,
        batch=batch,
        question=Question(loss=Loss.MSE),
        outcome=Outcome.UNIQUE,
        note="one region",
    )


REFUTES = Direction.REFUTES
COUNTEREXAMPLE = Ground(
    method=Method.KERNEL, where="its example", says="there is a second batch", direction=REFUTES
)


def check(
    holds: bool = True,
    name: str = "by-hand",
    example: Example | None = None,
    direction: Direction = REFUTES,
) -> Check:
    def run(progress: Progress, seed: int) -> Result:
        progress("counting", 0, 2)
        progress("counting", 2, 2)
        data = {"seed": seed, "values": (Fraction(1, 3), 2), 3: {"nested": None}}
        return Result(holds=holds, detail="two things counted", example=example, data=data)

    return Check(name=name, what="compares one with one", run=run, direction=direction)


def statement(name: str = "made-up", **changes: Any) -> Statement:
    made = Statement(
        name=name,
        group="P1",
        title="A statement for tests",
        source="nowhere",
        published="what was published",
        reading="what we read",
        quantifiers="all depths",
        hypotheses=("a hypothesis", "another one"),
        conclusion="The batch is UNIQUE.",
        latex=r"a \Rightarrow b",
        standing=Standing.REFUTED,
        grounds=(COUNTEREXAMPLE,),
        checks=(check(),),
        example=insecure_example,
        remark="only for tests",
    )
    return replace(made, **changes)


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Call it with statements: they are the whole registry for the length of a test."""

    def put(*statements: Statement) -> None:
        module = sys.modules["exan_verify.theorems.registry"]
        monkeypatch.setattr(module, "registry", lambda: {s.name: s for s in statements})

    return put
