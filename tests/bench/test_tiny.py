"""``exan bench tiny``: two questions of each loss, by both ways, and what counts as wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exan_verify.bench import tiny
from exan_verify.bench.suite import Options
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import CertificateRejected
from exan_verify.instances import tiny_question


def test_two_questions_of_each_loss(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiny, "PER_SEED", 2)
    told: list[tuple[str, int, int]] = []
    rows = tiny.SUITE.run(Options(seeds=[0], seconds=5.0, progress=lambda *step: told.append(step)))
    assert [(row.name, row.way) for row in rows] == [(loss.value, way) for loss in Loss for way in tiny.WAYS]
    for loss in Loss:
        names = [tiny_question(loss, number).name for number in range(2)]
        assert told[:2] == [(name, done, 2) for done, name in enumerate(names)]
        del told[:2]
    for row in rows:
        assert row.questions == sum(row.outcomes.values()) == 2
        assert row.open_share == len(row.open) / 2 == row.outcomes.get("unknown", 0) / 2
        assert 0 <= row.samples_open <= 1
        assert row.certified <= 2
        assert row.wrong == ()
    assert any(row.certified for row in rows)


def test_later_seeds_ask_other_questions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiny, "PER_SEED", 1)
    told: list[str] = []
    options = Options(seeds=[0, 3], seconds=5.0, progress=lambda name, *_: told.append(name))
    assert len(tiny.SUITE.run(options, rows=["mse"])) == len(tiny.WAYS)
    assert told == [tiny_question(Loss.MSE, number).name for number in (0, 3)]


def test_a_contradiction_and_a_rejected_certificate_are_wrong(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiny, "PER_SEED", 1)
    ask = tiny._ask

    def wrong(*given: object) -> tuple[str, ...]:
        monkeypatch.setattr(tiny, "_ask", given[0])
        return tiny.SUITE.run(Options(seeds=[0], seconds=5.0), rows=["mse"])[0].wrong

    def otherwise(case: object, way: str, seconds: float) -> object:
        verdict, spent = ask(case, way, seconds)
        other = Outcome.AMBIGUOUS if verdict.outcome is Outcome.UNIQUE else Outcome.UNIQUE
        return (verdict if way == "auto" else replace(verdict, outcome=other, certificate=None)), spent

    def freed(case: object, way: str, seconds: float) -> object:
        verdict, spent = ask(case, way, seconds)
        status = SampleStatus.FREE if way == "auto" else SampleStatus.DETERMINED
        samples = (status, *verdict.samples[1:])
        return replace(verdict, outcome=Outcome.UNKNOWN, samples=samples, certificate=None), spent

    name = tiny_question(Loss.MSE, 0).name
    assert wrong(ask) == ()
    assert wrong(otherwise) == (name,)
    assert wrong(freed) == (name,)

    def rejects(*_: object, **__: object) -> None:
        raise CertificateRejected("no")

    monkeypatch.setattr(tiny, "check", rejects)
    assert wrong(ask) == (name,)
