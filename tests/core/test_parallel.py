"""Work that is shared out: all results, few items at a time, and one error for workers that are gone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from itertools import islice

import pytest

from exan_verify.core import parallel
from exan_verify.core.parallel import PER_WORKER, cluster, each, in_order
from exan_verify.errors import InputError, WorkerError


def squared(value: int) -> int:
    if value < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if value > 1000:
        raise ValueError(f"{value} is too large")
    return value * value


def counted(drawn: list[int], count: int) -> Iterator[int]:
    for value in range(count):
        drawn.append(value)
        yield value


def test_one_job_works_here_on_one_item_after_the_other():
    drawn: list[int] = []
    found = each(squared, counted(drawn, 5))
    assert drawn == []
    assert (next(found), drawn) == (0, [0])
    assert list(found) == [1, 4, 9, 16]
    assert list(in_order(squared, [3, 1, 2], jobs=1)) == [9, 1, 4]


def test_processes_share_any_number_of_items_a_few_at_a_time():
    drawn: list[int] = []
    found = each(squared, counted(drawn, 40), jobs=2)
    first = next(found)
    assert len(drawn) == 2 * PER_WORKER
    assert sorted([first, *found]) == [value * value for value in range(40)]
    assert list(in_order(squared, range(5), jobs=2)) == [0, 1, 4, 9, 16]
    # nobody waits for the rest, and nothing is said of it: a warning is an error here
    assert len(list(islice(each(squared, range(40), jobs=2), 3))) == 3


def test_what_an_item_or_the_items_raise_is_raised():
    with pytest.raises(ValueError, match="2000 is too large"):
        list(each(squared, [1, 2000], jobs=2))

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(each(squared, broken(), jobs=2))


def test_a_process_that_is_killed_is_one_error_that_says_what_to_do():
    with pytest.raises(WorkerError, match=r"a worker process was killed, .*; use fewer jobs"):
        list(each(squared, [1, -1], jobs=2))
    assert sorted(each(squared, range(3), jobs=2)) == [0, 1, 4]


def test_a_cluster_that_is_none(monkeypatch: pytest.MonkeyPatch):
    with cluster(None):
        assert list(each(squared, range(3))) == [0, 1, 4]
    with pytest.raises(InputError, match="dask=3 cannot be used; give a scheduler's address"), cluster(3):
        pass
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "distributed", None)
        with pytest.raises(InputError, match=r"pip install 'exan-verify\[dask\]'"), cluster("here:1"):
            pass
    pytest.importorskip("distributed", reason="dask.distributed is an optional backend")
    monkeypatch.setattr(parallel, "_CONNECTING", 0.2)
    with (
        pytest.raises(InputError, match=r"no dask scheduler answers at 127.0.0.1:1 "),
        cluster("127.0.0.1:1"),
    ):
        pass
