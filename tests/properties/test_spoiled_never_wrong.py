"""Gradients that are exact, rounded, scaled, noisy, altered or another network's: nothing that is confirmed
lies beyond its bound, and what is consistent satisfies its own equations.
"""

from __future__ import annotations

import pytest

from exan_verify.bench.agreement import spoiled_is_not_wrong


def test_nothing_wrong_is_said_of_a_spoiled_gradient():
    runs = [spoiled_is_not_wrong(seed) for seed in range(40)]
    assert not any(one.wrong for one in runs)
    # the law would hold for an attack that finds nothing
    assert sum(one.confirmed for one in runs) >= 5
    assert sum(one.consistent for one in runs) >= 1


@pytest.mark.campaign
def test_nothing_wrong_is_said_of_five_thousand_spoiled_gradients():
    assert not any(spoiled_is_not_wrong(seed).wrong for seed in range(5000))
