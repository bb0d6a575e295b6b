"""What the benchmarks share: which cases were asked for, and one run after the other, told as they go."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from typing import TypeVar

from exan_verify.errors import InputError

Progress = Callable[[str, int, int], None]
"""Told (case, runs done, runs in all) before every run."""

_Result = TypeVar("_Result")


def case_names(suite: str) -> tuple[str, ...]:
    """The names of a suite's cases, in the order of its table."""
    names: tuple[str, ...] = import_module(f"exan_verify.bench.{suite}").case_names()
    return names


def require_known(suite: str, rows: Sequence[str] | None, names: Sequence[str]) -> None:
    """Raise :class:`InputError` naming the ``rows`` that are none of the suite's case ``names``."""
    unknown = [row for row in rows or () if row not in names]
    if unknown:
        listed = "\n".join(f"  {name}" for name in names)
        raise InputError(
            f"{suite} has no case {', '.join(map(repr, unknown))}; its cases, as 'exan bench {suite} --list' "
            f"prints them:\n{listed}"
        )


def isolated(run: Callable[[int], _Result], seed: int) -> _Result:
    """``run(seed)`` in a process of its own, whose peak memory is then its own; an interruption ends it."""
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(run, seed).result()
        except BaseException:
            # the pool would wait for what nobody wants any more
            for process in multiprocessing.active_children():
                if process not in others:
                    process.kill()
            raise


def run_seeds(
    name: str, seeds: Sequence[int], run: Callable[[int], _Result], progress: Progress | None
) -> list[_Result]:
    """``run(seed)`` for every seed of a case."""
    results = []
    for done, seed in enumerate(seeds):
        if progress is not None:
            progress(name, done, len(seeds))
        results.append(run(seed))
    return results
