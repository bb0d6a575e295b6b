import pytest

from exan_verify.core.facts import Facts
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import SoundnessError


def facts(determined=(), free=(), **flags):
    return Facts(determined=frozenset(determined), free=frozenset(free), **flags)


def test_facts_add_up():
    total = facts({0}) | facts({1}, {2})
    assert total.outcome(3, distinct=True) is Outcome.AMBIGUOUS
    assert total.statuses(4) == (
        SampleStatus.DETERMINED,
        SampleStatus.DETERMINED,
        SampleStatus.FREE,
        SampleStatus.UNKNOWN,
    )


def test_all_distinct_samples_determined_is_unique():
    assert facts({0, 1}).outcome(2, distinct=True) is Outcome.UNIQUE
    assert facts({0, 1}).outcome(3, distinct=True) is Outcome.UNKNOWN


def test_equal_samples_leave_room_for_another_batch():
    """{a, a, b}: each sample is in {a, b, b} as well."""
    assert facts({0, 1, 2}).outcome(3, distinct=False) is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (facts({0}), facts(free={0})),
        (facts(unique=True), facts(ambiguous=True)),
        (facts(unique=True), facts(free={1})),
    ],
)
def test_contradictions_are_errors_not_votes(one, two):
    with pytest.raises(SoundnessError, match="contradict"):
        _ = one | two


def test_unique_and_ambiguous_together_are_an_error_late_too():
    with pytest.raises(SoundnessError):
        facts({0, 1}, ambiguous=True).outcome(2, distinct=True)


def test_unique_means_every_sample():
    assert facts(unique=True).statuses(2) == (SampleStatus.DETERMINED,) * 2
