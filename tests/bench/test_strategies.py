"""``exan bench strategies``: draws are counted, and what is thrown away is seen."""

from __future__ import annotations

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from exan_verify.bench import strategies
from exan_verify.bench.suite import Options


def test_draws_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(strategies, "DRAWS", 10)
    told: list[str] = []
    options = Options(seeds=[0, 1], progress=lambda name, *_: told.append(name))
    rows = strategies.SUITE.run(options, rows=["published", "releases"])
    assert told == ["published", "releases"]  # one seed each
    assert [(row.name, row.draws, row.rejected) for row in rows] == [
        ("published", 10, 0.0),
        ("releases", 10, 0.0),
    ]
    assert all(row.per_second > 0 for row in rows)


def test_filtering_shows(monkeypatch: pytest.MonkeyPatch):
    @st.composite
    def wasteful(draw: st.DrawFn) -> int:
        number = draw(st.integers(0, 3))
        assume(number < 2)
        return number

    monkeypatch.setattr(strategies, "_strategy", lambda _: wasteful())
    (row,) = strategies.SUITE.run(Options(seeds=[0]), rows=["any"])
    assert row.rejected > 0
