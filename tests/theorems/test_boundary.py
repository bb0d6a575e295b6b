"""The statements of our own theory: their standing is carried, their checks run, hold and can fail."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from exan_verify.theorems.registry import registry
from exan_verify.theorems.running import run_checks
from exan_verify.theorems.standing import objections_to
from exan_verify.theorems.statement import Check, Method, Standing, Statement
from exan_verify.theorems.statements.ambiguous import s5, scale
from exan_verify.theorems.statements.determined import counting, reduction
from exan_verify.theorems.support.example_check import ExampleCheck
from exan_verify.theorems.support.instance_check import InstanceCheck
from exan_verify.theorems.support.laboratory import Pair, real_second
from tests.support.theorem_cases import silent

ROOT = Path(__file__).parents[2]

PUBLISHED = ("E1", "E2", "E3", "E4", "B1", "P1", "P2")
STATEMENTS = [found for found in registry().values() if found.group not in PUBLISHED]

LAWS: list[tuple[Statement, Check]] = [
    (statement, check)
    for statement in STATEMENTS
    for check in statement.checks
    if isinstance(check.run, InstanceCheck)
]


def named(pair: tuple[Statement, Check]) -> str:
    return f"{pair[0].name}-{pair[1].name}"


def shortened(law: InstanceCheck) -> InstanceCheck:
    return replace(law, count=min(law.count, 2))


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.name)
def test_its_standing_is_carried_and_all_is_said(statement: Statement) -> None:
    assert objections_to(statement) == ()
    said = (statement.title, statement.source, statement.reading, statement.conclusion, statement.latex)
    assert all(said)
    assert statement.hypotheses
    assert statement.quantifiers


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.name)
def test_what_it_rests_on_exists(statement: Statement) -> None:
    """Coq names are theorems of the file; files under proofs/bounded/ and in the package exist."""
    for ground in statement.grounds:
        if ground.method is Method.COQ:
            file, names = ground.where.split(": ")
            text = (ROOT / "proofs" / "coq" / file).read_text()
            for name in names.split(", "):
                assert re.search(rf"^(Theorem|Lemma|Corollary) {name}\b", text, re.MULTILINE), ground.where
        if ground.method is Method.SOLVER:
            assert list((ROOT / "proofs" / "bounded").glob(ground.where)), ground.where
        if ground.where.startswith("exan_verify/"):
            assert (ROOT / ground.where.split(":")[0]).is_file(), ground.where


@pytest.mark.parametrize("pair", LAWS, ids=named)
def test_a_check_holds_and_fails_when_its_conclusion_is_negated(pair: tuple[Statement, Check]) -> None:
    """Two instances of each; and the conclusion is noticed to fail at spoiled instances."""
    law = pair[1].run
    assert isinstance(law, InstanceCheck)
    few = shortened(law)
    found = few(silent, 1)
    assert found.holds, found.detail
    negated = replace(few, conclusion=lambda instance: not law.conclusion(instance))
    assert not negated(silent, 1).holds
    blind = replace(few, conclusion=lambda _instance: True)
    assert "cannot tell" in blind(silent, 1).detail


def test_checks_that_are_no_laws() -> None:
    found = [check for s in STATEMENTS for check in s.checks]
    others = [check for check in found if not isinstance(check.run, (InstanceCheck, ExampleCheck))]
    assert {check.name for check in others} == {"lemma", "random-tables"}
    assert all(report.holds for report in run_checks([c for c in others if c.name == "lemma"]))


def test_the_lemma_notices_a_wrong_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [*scale.twins.steps()[:1], scale.twins.Step("1 = 2", False)]
    monkeypatch.setattr(scale.twins, "steps", lambda: steps)
    found = scale.lemma_steps(silent, 0)
    assert not found.holds
    assert "1 = 2" in found.detail


def test_a_law_without_enough_instances_does_not_hold() -> None:
    law = InstanceCheck(
        instances=lambda _seed: [1],
        conclusion=lambda n: n == 1,
        spoiled=lambda n: n + 1,
        count=2,
        said="ones",
    )
    assert not law(silent, 0).holds
    assert replace(law, count=1)(silent, 0).holds


@pytest.mark.parametrize(
    "statement", [s for s in STATEMENTS if s.standing is Standing.REFUTED], ids=lambda s: s.name
)
def test_counterexamples_replay(statement: Statement) -> None:
    from exan_verify.theorems.replay import replay

    assert statement.example is not None
    assert replay(statement.example()).confirmed is not False


def test_a_second_batch_with_a_wrong_step_is_noticed() -> None:
    """3.1 is about equal gradients: targets that do not follow break them, and no Q connects the deltas."""
    pair: Pair = next(iter(reduction.pairs(3)))
    other = real_second(pair.network, pair.first, pair.members, Fraction(-1, 3))
    wrong = replace(other, labels=pair.first.labels)
    assert reduction.connected_by_one_matrix(replace(pair, second=other))
    assert not reduction.connected_by_one_matrix(replace(pair, second=wrong))


def test_one_pattern_gives_the_rank_that_the_formula_says() -> None:
    """dim L_P = r (2 K' - r + 1) / 2 with r = min(|P|, K')."""
    from random import Random

    from exan_verify.theorems.support.laboratory import exact
    from exan_verify.theorems.support.layer_equations import random_layer

    for size, extra in ((1, 1), (1, 3), (2, 3), (3, 2), (4, 3)):
        layer = random_layer(Random(f"{size}/{extra}"), exact([[1] * size] * 20), extra)
        r = min(size, extra)
        assert layer.rank() == r * (2 * extra - r + 1) // 2
        assert counting.generic_rank({(1,) * size: 20}, extra, layer.following) == layer.rank()


def test_the_stated_sizes_include_those_of_the_theory() -> None:
    from exan_verify.theorems.bounded.generic_counts import STATED

    counts = {tuple(sorted(map(classes.count, set(classes)))) for classes, _ in STATED}
    assert counts == {(1, 1), (2,), (1, 1, 1), (1, 2)}
    assert s5.parallel_logits().second is not None
