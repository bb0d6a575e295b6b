"""What `audit` calls peelable, `peel` finds: as a sample, or as a candidate that is not hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.bench.agreement import SIZES, peelable_is_found
from tests.conftest import examples


@given(st.integers(0, 2**31), st.sampled_from(SIZES))
@examples(40)
def test_what_is_peelable_is_found(seed: int, size: str):
    one = peelable_is_found(seed, size)
    assert one.found == one.asked
    assert not one.wrong


@pytest.mark.parametrize("seed", [399, 1404])
def test_a_row_of_three_samples_that_passes_for_one_hides_none(seed: int):
    """Loss vectors of hinge add up: the row of two samples less a third has the bias entry of a sample."""
    one = peelable_is_found(seed, "tiny")
    assert (one.asked, one.found) == (3, 3)
