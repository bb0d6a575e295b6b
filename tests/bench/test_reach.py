"""Where attacks end: the batch sizes, its rows and its figure."""

from __future__ import annotations

from itertools import pairwise

import pytest

from exan_verify.bench import reach
from exan_verify.bench.reach import (
    CASES,
    SUITE,
    Case,
    Run,
    _last_back,
    figure,
    per_unknown,
    run_case,
    summarise,
)
from exan_verify.bench.suite import Options
from exan_verify.errors import InputError

NARROW = next(case for case in CASES if case.name == "n=64 initialised ReLU float64")


def test_lifting_ends_where_its_equations_do():
    """64 neurons: U - M = 54 equations are needed for 8 samples, 85 for 11 by degree two, and 24 are too many
    for degree three; with one size that fails it goes on, with two it ends."""
    run = run_case(NARROW, "lift", 60.0, 0, sizes=(4, 24, 8, 24, 25, 4))
    assert (run.found, run.shown, run.wrong) == (8, 8, 0)
    assert run.ended == "M=24: out of range"
    assert run.seconds is not None


def test_sizes_are_doubled_while_they_come_back_and_then_taken_in_turn():
    """Of 1, 2, ..., those up to 22 come back but 19: found beyond it, with 23 and 24 the two that end it."""
    asked: list[int] = []

    def back(size: int) -> bool:
        asked.append(size)
        return size <= 22 and size != 19

    assert _last_back(range(1, 40), back) == 21
    assert asked == [1, 5, 9, 13, 17, 21, 25, 22, 23, 24]
    assert _last_back(range(1, 19), lambda size: size > 2) == -1
    assert _last_back([1, 2, 3], lambda _: True) == 2
    # a doubled size that happens to fail leads back to the sizes before it, and past itself
    assert _last_back(range(1, 40), lambda size: size < 15 and size != 9) == 13
    with_gap = [size for size in range(1, 40) if size not in (9, 10)]
    assert _last_back(range(1, 40), lambda size: size in with_gap and size < 15) == 7


def test_an_attack_is_stopped_after_its_time():
    run = run_case(NARROW, "assign", 0.0, 0, sizes=(27, 32))
    assert (run.found, run.shown, run.seconds) == (0, 0, None)
    assert run.ended == "M=27: stopped after 0 s"


def test_rows_say_how_many_neurons_an_unknown_needs():
    assert per_unknown(64, 0) is None
    assert per_unknown(64, 8) == 4
    assert per_unknown(256, 23) == 8
    ends = [Run(found=k, shown=k + 1, ended=f"at {k}", wrong=k % 2, seconds=float(k)) for k in (8, 4, 5)]
    row = summarise(NARROW, "lift", ends)
    assert (row.found, row.found_worst, row.shown, row.wrong, row.seconds) == (5, 4, 6, 1, 8.0)
    assert (row.per_unknown, row.ended, row.seeds) == (6.4, "at 8", 3)
    assert figure([row]).startswith(b"\x89PNG")
    assert figure([]).startswith(b"\x89PNG")


def test_the_sizes_grow_by_a_fourth_root_of_two():
    sizes = reach.SIZES
    assert sizes[:6] == (4, 5, 6, 7, 8, 10)
    assert all(first < second <= 1.26 * first for first, second in pairwise(sizes))
    assert sizes[-1] > 600
    assert {case.named for case in CASES if case.neurons > 256} == {True}


@pytest.mark.usefixtures("in_this_process")
def test_every_method_has_a_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reach, "run_case", lambda *_: Run(found=4, shown=4, ended="", wrong=0, seconds=0.1))
    case = Case(name="a", neurons=64, trained=False, dtype="float64")
    rows = list(SUITE.measure(case, Options(seeds=[0, 1])))
    assert [row.method for row in rows] == list(reach.METHODS)
    assert [row.method for row in SUITE.measure(case, Options(seeds=[0], methods=["auto"]))] == ["auto"]
    with pytest.raises(InputError, match="liift"):
        list(SUITE.measure(case, Options(seeds=[0], methods=["liift"])))
