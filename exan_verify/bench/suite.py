"""What a benchmark suite is: cases, the columns of its table, and what measures one case."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from exan_verify.errors import InputError, meant

Progress = Callable[[str, int, int], None]
"""Told (case, runs done, runs in all) before every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case. ``seeds``: at most so many are run, None: all; ``named``: it runs only when it is named."""

    name: str
    seeds: int | None = None
    named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a suite's table: the name of its case; suites add what they measure."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a suite is run: the seeds, who is told before every run, and what a suite may take besides.

    ``seconds``: time of one optimisation or question; ``device``: a torch device, None: the CPU; ``methods``:
    those compared, empty: all; ``patience``: seconds beyond ``seconds`` for a method that is no optimisation;
    ``iterations``: steps of an optimisation instead of its time; ``work_limit``: as ``certify``'s. None: the
    suite's own.
    """

    seeds: Sequence[int]
    progress: Progress | None = None
    seconds: float | None = None
    device: str | None = None
    methods: Sequence[str] = ()
    patience: float | None = None
    iterations: int | None = None
    work_limit: int | None = None

    def tell(self, name: str, done: int, total: int) -> None:
        """Say what is run next."""
        if self.progress is not None:
            self.progress(name, done, total)


_Case = TypeVar("_Case", bound=Case)
_Row = TypeVar("_Row", bound=Row)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suite(Generic[_Case, _Row]):
    """One benchmark.

    ``columns``: (heading, attribute of a row), headings of numbers with a space at the end; ``measure``: the
    rows of one case; ``takes``: which of :class:`Options` it takes besides seeds; ``measured``: attributes
    that the next run measures anew, which the Markdown table leaves out; ``unnamed_seeds``: at most so many
    for cases that are not named; ``repeats``: the option of the command that counts its seeds; ``figure``: a
    PNG file of rows; ``beside``: the suite that runs after this one, and its cases, from the cases named and
    whether a figure is drawn.
    """

    name: str
    title: str
    columns: tuple[tuple[str, str], ...]
    cases: tuple[_Case, ...]
    measure: Callable[[_Case, Options], Iterable[_Row]]
    takes: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    unnamed_seeds: int | None = None
    repeats: str = "repeat"
    figure: Callable[[Sequence[_Row]], bytes] | None = None
    beside: Callable[[Sequence[str], bool], tuple[Suite[Any, Any], Sequence[str]]] | None = None

    @property
    def case_names(self) -> tuple[str, ...]:
        """The names of the cases, in the order of the table."""
        return tuple(case.name for case in self.cases)

    def run(
        self, options: Options, *, rows: Sequence[str] | None = None, kept: list[_Row] | None = None
    ) -> list[_Row]:
        """The rows of the cases named by ``rows``, default: of all that need not be named; ``*`` in a name is
        any text.

        ``kept`` is filled as rows are finished, so that an interruption loses none. Raises
        :class:`InputError` on an unknown name, listing the known ones.
        """
        require_known(self.name, rows, self.case_names)
        table = [] if kept is None else kept
        for case in self.cases:
            if case.named if rows is None else not any(_matches(case.name, row) for row in rows):
                continue
            seeds = list(options.seeds)[: case.seeds]
            if rows is None:
                seeds = seeds[: self.unnamed_seeds]
            for row in self.measure(case, replace(options, seeds=seeds)):
                table.append(row)
        return table


def require_known(suite: str, rows: Sequence[str] | None, names: Sequence[str]) -> None:
    """Raise :class:`InputError` naming the ``rows`` that are none of the suite's case ``names``."""
    unknown = [row for row in rows or () if not any(_matches(name, row) for name in names)]
    if unknown:
        listed = "\n".join(f"  {name}" for name in names)
        near = meant(unknown[0], names)
        raise InputError(
            f"{suite} has no case {', '.join(map(repr, unknown))}{f'{near} Its' if near else '; its'} cases, "
            f"as 'exan bench {suite} --list' prints them:\n{listed}"
        )


def _matches(name: str, row: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, row.split("*"))), name) is not None


def run_seeds(name: str, options: Options, run: Callable[[int], _Result]) -> list[_Result]:
    """``run(seed)`` for every seed of the options, told as the case ``name``."""
    results = []
    for done, seed in enumerate(options.seeds):
        options.tell(name, done, len(options.seeds))
        results.append(run(seed))
    return results


def isolated(run: Callable[[int], _Result], seed: int) -> _Result:
    """``run(seed)`` in a process of its own, whose peak memory is then its own; an interruption ends it, and
    the programs that it runs.
    """
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(_ending_children, run, seed).result()
        except BaseException:
            # the pool would wait for what nobody wants any more
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
                    process.join(2)
                    process.kill()
            raise


def _ending_children(run: Callable[[int], _Result], seed: int) -> _Result:
    """On SIGTERM ``subprocess.run`` sees an exception and ends what it runs, which SIGKILL leaves behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return run(seed)
    except SystemExit:
        os._exit(1)  # the pool would have the process wait for more to do
