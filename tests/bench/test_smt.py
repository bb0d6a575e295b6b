"""The small suite and its benchmark: fixed names, every loss, three ways that agree."""

from __future__ import annotations

import pytest

from exan_verify.bench import smt
from exan_verify.bench.smt import SUITE, Result, _disagreements
from exan_verify.bench.suite import Options
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import InputError
from exan_verify.instances import FAMILIES, PER_CELL, instance, iterate_suite


def test_the_suite_covers_what_it_should() -> None:
    cases = list(iterate_suite())
    assert len(cases) == len(FAMILIES) * len(Loss) * 2 * PER_CELL >= 200
    assert len({c.name for c in cases}) == len(cases)
    assert {c.labels for c in cases} == set(Labels)
    assert any(c.domain is not None for c in cases)
    for case in cases:
        widths = case.network.widths
        assert widths[0] <= 3
        assert widths[-1] <= 3
        assert max(widths[1:-1]) <= 6
        assert case.batch.size <= 3


def test_instances_are_reproducible_and_pinned() -> None:
    case = instance("plain", Loss.MSE, True, 0)
    assert case.network == instance("plain", Loss.MSE, True, 0).network
    assert case.batch.digest == "08d5e4dc4c6f574509bd6193bb33e379857b94ebe358a2ccfcc225fc4396bfc5"


def test_three_ways_agree_on_a_few_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [case for case in iterate_suite() if case.loss is Loss.MSE and case.name.endswith("/0")][:4]
    monkeypatch.setattr(smt, "iterate_suite", lambda: few)
    told: list[tuple[str, int, int]] = []
    rows = SUITE.run(Options(seeds=(0,), seconds=3, progress=lambda *state: told.append(state)), rows=["mse"])
    assert [r.way for r in rows] == ["direct", "cubes", "pipeline"]
    assert [r.instances for r in rows] == [4, 4, 4]
    assert rows[2].decided == 4
    assert all(r.disagreements == () for r in rows)
    assert told[0] == ("plain/mse/bias/0", 0, 4)


def test_contradictions_are_reported() -> None:
    planted = instance("twin", Loss.MSE, True, 0)
    said = [
        Result(instance="a", way="cubes", outcome="unique", seconds=0.0),
        Result(instance="a", way="direct", outcome="ambiguous", seconds=0.0),
        Result(instance="b", way="cubes", outcome="unique", seconds=0.0),
        Result(instance="b", way="direct", outcome="unknown", seconds=0.0),
        Result(instance=planted.name, way="cubes", outcome="unique", seconds=0.0),
    ]
    assert _disagreements([planted], said) == ["a", planted.name]


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(InputError, match="smt has no case 'l1'"):
        SUITE.run(Options(seeds=[0]), rows=["l1"])
