"""What `certify` determines in float64, the attack returns or says why not; nothing confirmed is wrong."""

from __future__ import annotations

import pytest

from exan_verify.bench.agreement import determined_is_found


def test_batches_that_are_determined_are_attacked():
    runs = [determined_is_found(seed, work=100_000) for seed in range(15)]
    assert sum(one.asked for one in runs) >= 3
    assert all(one.found == one.asked and not one.wrong for one in runs)


def test_batches_that_are_determined_with_other_activations_are_attacked():
    runs = [determined_is_found(seed, others=True) for seed in range(12)]
    assert sum(one.found for one in runs) >= 4
    # of dependent inputs below a layer that is lifted the attack finds less than is proved
    assert all(one.reason for one in runs if one.found < one.asked)
    assert not any(one.wrong for one in runs)


@pytest.mark.campaign
def test_batches_that_are_determined_are_attacked_campaign():
    runs = [determined_is_found(seed) for seed in range(500)]
    asked, found = sum(one.asked for one in runs), sum(one.found for one in runs)
    assert asked - found <= 0.02 * asked
    assert all(one.reason for one in runs if one.found < one.asked)
    assert not any(one.wrong for one in runs)
