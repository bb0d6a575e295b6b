"""The laws of :mod:`exan_verify.testing.laws`, a few cases each: what ``exan campaign`` tries for hours."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from exan_verify.testing.laws import Case, all_laws
from tests.conftest import examples

LAWS = all_laws()

SEEN = {
    "engines": {"ambiguous"},
    "twins": {"ambiguous"},
    "unique": {"unique"},
    "certificates": {"accepted, ambiguous"},
    "stopping-sets": {"stopped", "all peeled"},
    "radius": {"unique"},
}
"""Outcomes without which a law would hold of code that decides nothing."""


@pytest.mark.parametrize("name", LAWS)
def test_law(name: str):
    seen: Counter[str] = Counter()

    @given(LAWS[name].cases())
    @settings(examples(10), phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
    def judged(case: Case) -> None:
        seen.update(LAWS[name].judge(case))

    judged()
    assert SEEN.get(name, set()) <= set(seen)
