"""The benchmark of what clients send in training."""

from __future__ import annotations

from exan_verify.bench.suite import Options
from exan_verify.bench.training import CASES, Case, NormCase, measure


def test_a_case_is_measured_and_a_wrong_rate_confirms_nothing():
    for told in (1.0, 2.0):
        case = Case(name="small", sizes=(1, 2), widths=(784, 80, 10), told=told)
        (row,) = measure(case, Options(seeds=[0, 1]))
        assert (row.seeds, row.wrong) == (2, 0)
        assert (row.recall, row.confirmed) == ((1, 3) if told == 1 else (0, 0))
        assert row.error is None or row.error < 1e-10


def test_a_case_with_batch_norm_is_measured():
    for statistics in (True, False):
        case = NormCase(name="small", sizes=(4,), widths=(784, 160, 10), statistics=statistics)
        (row,) = measure(case, Options(seeds=[0]))
        assert (row.recall, row.consistent, row.wrong) == ((1, 4, 0) if statistics else (0, 0, 0))


def test_the_rows_are_steps_of_one_pass_and_of_several():
    assert {case.epochs > 1 for case in CASES} == {case.told != 1 for case in CASES} == {True, False}
