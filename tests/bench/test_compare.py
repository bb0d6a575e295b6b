"""The comparison and robustness benchmarks: rows, columns, figure, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from exan_verify.bench import SUITES, robustness
from exan_verify.bench.attack import CASES as ATTACK_CASES
from exan_verify.bench.attack import Case
from exan_verify.bench.compare import (
    BY_SIZE,
    METHODS,
    SUITE,
    job_of,
    recall_figure,
)
from exan_verify.bench.rivals.baselines import Effort
from exan_verify.bench.rivals.spear import spear
from exan_verify.bench.suite import Options, Suite
from exan_verify.cli.bench import _plan, bench_command
from exan_verify.core.question import Loss, Question, Reduction
from exan_verify.errors import InputError
from exan_verify.numeric.problem.metrics import wrong_claims
from tests.support.simulated_device import simulated_device


@pytest.mark.usefixtures("in_this_process")
def test_ours_is_exact_where_optimisation_is_not():
    told: list[tuple[str, int, int]] = []
    methods = ["auto", "tolerance 1e-06", "Inverting Gradients"]
    options = Options(seeds=[0], seconds=0.1, methods=methods, progress=lambda *step: told.append(step))
    rows = SUITE.run(options, rows=["M=4"])
    assert [row.method for row in rows] == methods
    assert told == [(f"M=4, {method}", k, 3) for k, method in enumerate(methods)]
    ours, loose, rival = rows
    assert (ours.recall, ours.wrong, ours.labels) == (1.0, 0, 1.0)
    assert ours.rmse is not None
    assert ours.rmse < 1e-10
    assert ours.ssim == pytest.approx(1.0)
    # what it accepts it claims; optimisation claims nothing
    assert loose.wrong == 0
    # how near optimisation comes in its time depends on the machine; exact it never is
    assert rival.wrong is None
    assert rival.rmse is not None
    assert rival.rmse > 1000 * ours.rmse
    assert recall_figure(rows).startswith(b"\x89PNG")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_scored(method: str):
    job = job_of(Case(name="small", widths=(20, 64, 4), samples=3), seed=0, limit=0.1)
    run = METHODS[method](job)
    assert run.psnr is None
    if method in ("auto", "lift", "assign", "peel+lift", "sample", "SPEAR"):
        assert (run.recall, run.labels) == (1.0, 1.0)
    if method in ("DLG", "Inverting Gradients"):
        # random inputs come from the seed; an optimisation must not start from them
        assert run.rmse is not None
        assert run.rmse > 1e-6
        assert run.returned == 3


@pytest.mark.parametrize("method", ["auto", "tolerance 1e-06", "DLG", "Inverting Gradients"])
def test_every_kind_of_method_runs_on_the_device_asked_for(method: str):
    job = job_of(Case(name="small", widths=(20, 64, 4), samples=3), seed=0, limit=0.05)
    with simulated_device():
        run = METHODS[method](replace(job, device="meta"))
    assert run.returned == 3
    assert run.wrong == 0


def test_what_a_tolerance_accepts_wrongly_is_a_wrong_claim():
    job = job_of(Case(name="32 digits", widths=(784, 512, 10), samples=32, data="mnist"), seed=1, limit=0)
    run = METHODS["tolerance 1e-03"](job)
    assert run.wrong > 0
    assert run.wrong == run.returned - round(32 * run.recall)


def test_spear_returns_the_whole_batch_or_nothing():
    """Of ten digits the directions of one round span the batch, but are not all samples': without exchanges
    the sparsest would give 0.895."""
    case = Case(name="deep", widths=(784, *[200] * 6, 10), samples=10, data="mnist")
    job = job_of(case, seed=2, limit=0)
    part = spear(job.model, job.gradient, effort=Effort(iterations=1, seed=5))
    assert (part.rank, part.drawn, len(part.x), len(part.y)) == (10, 10_000, 0, 0)
    assert part.directions > 10
    assert 0.92 < part.score < 1
    assert METHODS["SPEAR"](job).returned == 0, "no time, no round"
    job = job_of(case, seed=0, limit=0)
    whole = spear(job.model, job.gradient, effort=Effort(iterations=9, seed=5))
    assert (whole.score, whole.drawn) == (1, 10_000)
    assert wrong_claims(whole.x, whole.y, [1e-9] * 10, job.x, job.y) == 0


def test_what_a_method_cannot_attack_is_refused():
    job = job_of(Case(name="deeper", widths=(20, 64, 32, 4), samples=3), seed=0, limit=0.05)
    run = METHODS["tolerance 1e-03"](job)
    assert (run.refused, run.recall, run.returned) == (True, 0.0, 0)
    crowded = job_of(Case(name="crowded", widths=(20, 8, 4), samples=6), seed=0, limit=0.05)
    assert METHODS["lift"](crowded).refused
    summed = Question(loss=Loss.CROSS_ENTROPY, reduction=Reduction.SUM)
    assert METHODS["SPEAR"](replace(job, question=summed)).refused


def test_a_method_that_takes_too_long_is_stopped():
    options = Options(seeds=[0, 1], seconds=0, patience=0, methods=["sample"])
    (row,) = SUITE.run(options, rows=["784-1000-10 M=34"])
    assert (row.seeds, row.stopped, row.recall, row.peak_mib) == (1, 1, 0.0, None)


@pytest.mark.usefixtures("in_this_process")
def test_attack_and_comparison_come_in_one_run():
    command = ["attack", "--case=784-512-10 M=8", "--repeat=1", "--method=auto", "--json"]
    result = CliRunner().invoke(bench_command, command, standalone_mode=False)
    assert result.exit_code == 0, result.output
    suites = json.loads(result.stdout)["suites"]
    assert [row["recall"] for row in suites["attack"]] == [1.0]
    (row,) = suites["compare"]
    assert {"recall", "wrong", "rmse", "psnr", "ssim", "labels", "seconds", "peak_mib"} <= set(row)
    assert (row["name"], row["method"], row["recall"], row["wrong"]) == ("784-512-10 M=8", "auto", 1.0, 0)


def test_what_the_comparison_beside_the_attack_runs_on():
    def planned(suite: str, *cases: str, alone: bool = False, drawn: bool = False) -> list[object]:
        return [(one.name, rows) for one, rows in _plan(suite, cases, alone=alone, drawn=drawn)]

    sizes = [case.name for case in BY_SIZE]
    everything = [*sizes, *(case.name for case in ATTACK_CASES if not case.named)]
    assert planned("attack") == [("attack", None), ("compare", everything)]
    assert planned("attack", alone=True) == [("attack", None)]
    assert planned("compare", drawn=True) == [("compare", None)]
    assert planned("attack", "a") == [("attack", ("a",)), ("compare", ["a"])]
    assert planned("attack", "a", drawn=True) == [("attack", ("a",)), ("compare", [*sizes, "a"])]
    assert [one.name for one, _ in _plan(None, (), alone=False, drawn=False)] == list(SUITES)


def test_the_figure_is_written_from_runs_in_processes_of_their_own(tmp_path: Path):
    figure = tmp_path / "recall.png"
    command = ["compare", "--case=M=1", "--repeat=1", "--method=auto", f"--figure={figure}", "--json"]
    result = CliRunner().invoke(bench_command, command, standalone_mode=False)
    assert result.exit_code == 0, result.output
    assert figure.read_bytes().startswith(b"\x89PNG")
    (row,) = json.loads(result.stdout)["suites"]["compare"]
    assert (row["recall"], row["stopped"]) == (1.0, 0)
    assert row["peak_mib"] > 50


def test_a_device_of_another_suite_or_that_is_none_is_refused():
    for command, message in (
        (["certify", "--device=cpu"], "--device belongs to attack, compare, robustness, "),
        (["robustness", "--device=nonsense"], "device='nonsense' cannot be used"),
    ):
        result = CliRunner().invoke(bench_command, command)
        assert result.exit_code != 0
        assert message in result.output + str(result.exception)


def test_options_go_to_the_suites_that_have_them(monkeypatch: pytest.MonkeyPatch):
    """What is typed reaches the suites that take it, and no other."""
    given: dict[str, Options] = {}

    def kept(self: Suite, options: Options, **_: object) -> list[object]:
        given[self.name] = replace(options, seeds=list(options.seeds), progress=None)
        return []

    monkeypatch.setattr(Suite, "run", kept)
    typed = ["--device=cpu", "--patience=3", "--seconds=2", "--rival-steps=7", "--batches=2", "--repeat=3"]
    assert CliRunner().invoke(bench_command, [*typed, "--seed=5"], standalone_mode=False).exit_code == 0
    assert list(given) == list(SUITES)
    three = [5, 6, 7]
    assert given["compare"] == Options(seeds=three, device="cpu", seconds=2.0, patience=3.0)
    assert given["convolution"] == Options(seeds=three, device="cpu", seconds=2.0, iterations=7)
    assert given["attack"] == given["robustness"] == Options(seeds=three, device="cpu")
    assert given["certify"] == given["peeling"] == given["smt"] == Options(seeds=three)
    assert given["tiny"] == Options(seeds=three, seconds=2.0)
    assert given["insecure"] == Options(seeds=[5, 6])


def test_a_figure_of_another_suite_is_refused(tmp_path: Path):
    for suite in (["certify"], ["attack", "--alone"]):
        result = CliRunner().invoke(bench_command, [*suite, "--figure", str(tmp_path / "recall.png")])
        assert result.exit_code == 2
        assert "--figure" in result.output


def test_a_robustness_row():
    (row,) = robustness.SUITE.run(Options(seeds=[0]), rows=["noise 1e-08"])
    assert (row.recall, row.confirmed + row.consistent, row.wrong, row.refused) == (1.0, 16, 0, 0)
    with simulated_device():
        (there,) = robustness.SUITE.run(Options(seeds=[0], device="meta"), rows=["noise 1e-08"])
    assert (there.recall, there.shown, there.wrong) == (1.0, 1.0, 0)


def test_unknown_rows_are_refused():
    with pytest.raises(InputError, match=r"compare has no case 'x'; [^:]*:\n  M=1\n  M=2\n"):
        SUITE.run(Options(seeds=[0]), rows=["x"])
    with pytest.raises(InputError, match=r"no method \['x'\]; there are auto, lift, assign"):
        SUITE.run(Options(seeds=[0], methods=["x"]))
    with pytest.raises(InputError, match=r"robustness has no case 'x'; [^:]*:\n  float64\n"):
        robustness.SUITE.run(Options(seeds=[0]), rows=["x"])
