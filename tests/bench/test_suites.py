"""Every suite names its cases, on request and when one is misspelt; runs are told as they go."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from exan_verify.bench import SUITES, certify, load
from exan_verify.bench.suite import Case, Options, Row, Suite, isolated, require_known, run_seeds
from exan_verify.cli import main
from exan_verify.errors import BudgetExhausted, InputError
from tests.support.commands import all_end


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_lists_distinct_cases_and_refuses_others(suite: str, capsys: pytest.CaptureFixture[str]):
    names = load(suite).case_names
    assert len(set(names)) == len(names) > 1
    assert main(["bench", suite, "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == list(names)
    assert main(["bench", suite, "--case", "nothing"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f"error: {suite} has no case 'nothing'" in told.err
    assert f"exan bench {suite} --list" in told.err
    assert [line.strip() for line in told.err.splitlines()[1:]] == list(names)


def test_all_cases_of_all_suites(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--list", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {
        "schema": "exan/bench-cases/1",
        "suites": {suite: list(load(suite).case_names) for suite in SUITES},
    }
    assert main(["bench", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == list(SUITES)


def test_only_what_is_unknown_is_named():
    require_known("s", None, ["a"])
    require_known("s", ["a"], ["a", "b"])
    with pytest.raises(InputError, match=r"^s has no case 'c', 'd'; .*:\n  a\n  b$"):
        require_known("s", ["c", "a", "d"], ["a", "b"])


def test_a_star_in_a_name_is_any_text():
    cases = tuple(Case(name=name, named=name == "n=2 b (c)") for name in ("n=1 b", "n=2 b (c)", "m=1 b"))
    suite = Suite(
        name="s",
        title="s: some",
        columns=(("case", "name"),),
        cases=cases,
        measure=lambda case, _: [Row(name=case.name)],
    )
    for row, names in (
        ("n=*", ["n=1 b", "n=2 b (c)"]),
        ("*b (*", ["n=2 b (c)"]),
        ("*=1*", ["n=1 b", "m=1 b"]),
        ("n=. b", None),
        ("n=1*c", None),
    ):
        if names is None:
            with pytest.raises(InputError, match="s has no case"):
                suite.run(Options(seeds=[0]), rows=[row])
        else:
            assert [one.name for one in suite.run(Options(seeds=[0]), rows=[row])] == names


def test_which_cases_and_seeds_are_run():
    """All cases but those that must be named; each over its own number of seeds, unnamed ones over fewer."""
    ran: list[tuple[str, list[int], float | None]] = []

    def measure(case: Case, options: Options) -> Iterator[Row]:
        ran.append((case.name, list(options.seeds), options.seconds))
        yield from (Row(name=f"{case.name}, {way}") for way in ("one", "two"))

    cases = (Case(name="a"), Case(name="b", seeds=3), Case(name="long", named=True))
    suite = Suite(name="s", title="s: some", columns=(("case", "name"),), cases=cases, measure=measure)
    options = Options(seeds=range(5, 10), seconds=2.0)
    rows = suite.run(options)
    assert [row.name for row in rows] == ["a, one", "a, two", "b, one", "b, two"]
    assert ran == [("a", [5, 6, 7, 8, 9], 2.0), ("b", [5, 6, 7], 2.0)]
    ran.clear()
    short = replace(suite, unnamed_seeds=1)
    short.run(options)
    short.run(options, rows=["long", "b"])
    assert [(name, seeds) for name, seeds, _ in ran] == [
        ("a", [5]),
        ("b", [5]),
        ("b", [5, 6, 7]),
        ("long", [5, 6, 7, 8, 9]),
    ]
    with pytest.raises(InputError, match="s has no case 'c'"):
        suite.run(options, rows=["c"])


def test_rows_before_an_interruption_within_a_case_are_kept():
    def measure(case: Case, options: Options) -> Iterator[Row]:
        yield Row(name="first")
        raise KeyboardInterrupt

    suite = Suite(name="s", title="s", columns=(), cases=(Case(name="a"),), measure=measure)
    kept: list[Row] = []
    with pytest.raises(KeyboardInterrupt):
        suite.run(Options(seeds=[0]), kept=kept)
    assert kept == [Row(name="first")]


def test_runs_are_told_before_they_start():
    told: list[object] = []

    def run(seed: int) -> int:
        told.append(seed)
        return -seed

    assert run_seeds("case", Options(seeds=[3, 5], progress=lambda *step: told.append(step)), run) == [-3, -5]
    assert told == [("case", 0, 2), 3, ("case", 1, 2), 5]
    assert run_seeds("case", Options(seeds=[4]), run) == [-4]


@pytest.mark.usefixtures("in_this_process")
def test_the_work_limit_reaches_certify_and_belongs_to_it(capsys: pytest.CaptureFixture[str]):
    case = ("--case", "20-64-5 M=6 mse, gradient alone", "--repeat", "1")
    assert main(["bench", "certify", *case, "--work-limit", "10", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["suites"]["certify"]
    assert row["outcomes"] == {"unknown": 1}
    for suite in ([], ["attack"], ["smt"]):
        assert main(["bench", *suite, "--work-limit", "10"]) == 2
        assert "--work-limit belongs to certify" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(BudgetExhausted("over"), 3), (KeyboardInterrupt(), 130)])
def test_finished_rows_are_kept_when_a_suite_is_cut(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """The second of two cases is interrupted: the first one's row is printed and written."""
    runs = []

    def run(given: Callable[[int], certify.Run], seed: int) -> certify.Run:
        runs.append(seed)
        if len(runs) > 1:
            raise error
        return given(seed)

    monkeypatch.setattr(certify, "isolated", run)
    small = [case.name for case in certify.CASES if 0 < max(case.widths, default=0) <= 64][:2]
    chosen = [part for name in small for part in ("--case", name)]
    out = tmp_path / "rows.json"
    assert main(["bench", "certify", *chosen, "--repeat", "1", "--json", "--out", str(out)]) == code
    record = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in record["suites"]["certify"]] == small[:1]
    assert record["unfinished"] == "certify"
    assert json.loads(out.read_text())["suites"] == record["suites"]


def test_an_interruption_ends_the_process_of_a_run(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C while a run in a process of its own goes on: nobody waits for it."""

    def interrupted(self: Future[None], timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    before = set(multiprocessing.active_children())  # joblib keeps its processes for a while
    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        isolated(time.sleep, 3600)
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_interruption_ends_what_a_run_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A program that was started in the process of a run does not outlive it."""
    told = tmp_path / "pid"

    def interrupted(self: Future[None], timeout: float | None = None) -> None:
        while not told.exists() or not told.read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        isolated(partial(subprocess.run, ["sh", "-c", f"echo $$ > {told}; exec sleep 3600"]), -1)
    assert all_end([int(told.read_text())])
