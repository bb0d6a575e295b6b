"""The agreement bench counts what it says: one that finds less, or something wrong, is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exan_verify.bench import agreement
from exan_verify.bench.agreement import CASES, SUITE, Run, determined_is_found, spoiled_is_not_wrong
from exan_verify.bench.suite import Options
from exan_verify.numeric.attack import run as attacked


def test_a_row_sums_up_its_seeds():
    case = replace(
        CASES[0], judge=lambda seed: Run(asked=4, found=4 - seed, wrong=seed, reason="why" * (seed < 2))
    )
    (row,) = SUITE.measure(case, Options(seeds=range(3)))
    assert (row.asked, row.found, row.missed, row.wrong) == (12, 9, 0.25, 3)
    assert (row.missing, row.unexplained) == ((1, 2), 1)


def test_an_attack_that_finds_nothing_or_claims_too_much_is_counted(monkeypatch: pytest.MonkeyPatch):
    def nothing(*arguments: object, **options: object) -> object:
        found = attacked(*arguments, **options)  # type: ignore[arg-type]
        return replace(found, x=found.x[:0], y=found.y[:0], status=(), complete=False, reason="none")

    def too_sure(*arguments: object, **options: object) -> object:
        found = attacked(*arguments, **options)  # type: ignore[arg-type]
        return replace(
            found, x=found.x + 1, status=tuple(replace(one, error_bound=1e-9) for one in found.status)
        )

    seed = next(seed for seed in range(15) if determined_is_found(seed, 100_000).asked)
    monkeypatch.setattr(agreement, "run", nothing)
    one = determined_is_found(seed, 100_000)
    assert (one.asked, one.found, one.reason) == (1, 0, "none")
    monkeypatch.setattr(agreement, "run", too_sure)
    assert sum(spoiled_is_not_wrong(seed).wrong for seed in range(12)) > 0
