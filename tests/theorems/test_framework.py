"""Checks that run, examples that replay, and ``exan theorems``."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import exan_verify.theorems
from exan_verify import Box, Outcome, ReluNetwork, certify
from exan_verify import check as kernel_check
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.errors import InputError
from exan_verify.theorems import (
    Check,
    Direction,
    Example,
    Exhibit,
    Ground,
    Method,
    Result,
    Standing,
    certified,
    registry,
    run_statement,
)
from exan_verify.theorems import replay as replay_example
from exan_verify.theorems.as_text import example_lines, relied_on
from tests.support import counterexamples
from tests.support.cases import batch_of
from tests.support.certificate_cases import certify_as
from tests.support.commands import Run, RunJson
from tests.support.theorem_cases import (
    COUNTEREXAMPLE,
    Install,
    check,
    example_of,
    insecure_example,
    install,
    statement,
    unique_example,
)

__all__ = ["install"]

PROOF = Ground(method=Method.COQ, where="exact.v: C1", says="all of it")
STEP = replace(PROOF, bounded=True)
SIZES = Ground(method=Method.SOLVER, where="x.smt2", says="at one size")
NUMBERS = Ground(method=Method.MEASURED, where="x", says="y")
WRONG = Result(holds=False, detail="rank 3, not 2")


def seen_wrong() -> Exhibit:
    return Exhibit(lines=("1 + 1 == 3",), note="arithmetic", shown=lambda: WRONG)


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "theorems")


@pytest.fixture
def run_json(run_json: RunJson) -> RunJson:
    return partial(run_json, "theorems")


# ---- replay -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["published_insecure", "parallel_logits", "antisymmetric_head"])
def test_a_second_batch_replays_exactly_and_the_kernel_accepts_it(case: str):
    found = getattr(counterexamples, case)()
    result = replay_example(example_of(found))
    assert result.confirmed is True
    assert result.equal_gradients is True
    assert result.outcome is Outcome.AMBIGUOUS
    assert result.certificate is not None
    assert kernel_check(result.certificate, found.network, batch=found.batch).outcome is Outcome.AMBIGUOUS


def test_a_second_batch_that_is_off_by_a_little_does_not_replay():
    example = insecure_example()
    assert example.second is not None
    inputs = np.array(example.second.inputs, dtype=object)
    inputs[0, 0] = Fraction(inputs[0, 0]) + Fraction(1, 10**30)
    second = Batch(inputs=inputs, labels=example.second.labels)
    result = replay_example(replace(example, second=second))
    assert result.confirmed is False
    assert result.equal_gradients is False
    assert "different gradients" in result.says[0]


def test_different_gradients_are_not_confirmed_whatever_a_kernel_says(monkeypatch: pytest.MonkeyPatch):
    """The two comparisons do not lean on each other: here the kernel is replaced by one that accepts."""
    example = insecure_example()
    accepted = replay_example(example)
    assert accepted.certificate is not None
    claim = kernel_check(accepted.certificate, example.network, batch=example.batch)
    module = sys.modules["exan_verify.theorems.replay"]
    monkeypatch.setattr(module, "check", lambda *_, **__: claim)
    wrong = Batch(inputs=example.batch.inputs + 1, labels=example.batch.labels)
    assert replay_example(replace(example, second=wrong)).confirmed is False


def test_the_first_batch_in_another_order_is_no_second_batch():
    example = insecure_example()
    result = replay_example(replace(example, second=example.batch.select([1, 0, 3, 2])))
    assert (result.confirmed, result.equal_gradients) == (False, True)
    assert "another order" in result.says[-1]


def test_a_second_batch_outside_the_domain_is_none():
    example = insecure_example()
    for box, confirmed in ((Box(-1, 2), True), (Box(0, 1), False)):
        asked = replace(example.question, domain=box)
        assert replay_example(replace(example, question=asked)).confirmed is confirmed


def test_known_labels_must_be_the_same_ones():
    """Two equal logits, cross-entropy: two equal inputs whose labels are 0, 1 or 0, 0."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [1]]], [[1], [0, 0]])
    batch = batch_of(network, [[1], [1]], [0, 1], Loss.CROSS_ENTROPY, Labels.KNOWN)
    other = batch_of(network, [[1], [1]], [0, 0], Loss.CROSS_ENTROPY, Labels.KNOWN)
    asked = Question(loss=Loss.CROSS_ENTROPY, labels=Labels.KNOWN)
    result = replay_example(Example(network=network, batch=batch, second=other, question=asked, note=""))
    assert (result.confirmed, result.equal_gradients) == (False, None)


def test_softmax_is_replayed_by_the_kernel_s_symbols():
    """Two samples with opposite loss vectors of a network that ignores its second input: S2."""
    network = ReluNetwork.from_arrays([[[1, 0]], [[1], [2]]], [[2], [0, 0]])
    batch = batch_of(network, [[1, 0], [1, 3]], [0, 1], Loss.CROSS_ENTROPY)
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch)
    assert verdict.witness is not None
    asked = Question(loss=Loss.CROSS_ENTROPY)
    example = Example(network=network, batch=batch, question=asked, outcome=Outcome.AMBIGUOUS, note="")
    assert replay_example(example).confirmed is True
    if verdict.witness.batch is not None:
        assert replay_example(replace(example, second=verdict.witness.batch)).confirmed is True


def test_an_outcome_without_second_batch_is_certified_afresh():
    example = unique_example()
    assert replay_example(example).confirmed is True
    wrong = replay_example(replace(example, outcome=Outcome.AMBIGUOUS))
    assert (wrong.confirmed, wrong.outcome) == (False, Outcome.UNIQUE)
    assert replay_example(replace(example, outcome=None)).confirmed is None


def test_the_same_batch_is_certified_once_and_checked_each_time(monkeypatch: pytest.MonkeyPatch):
    replaying = sys.modules["exan_verify.theorems.replay"]
    asked, checked = Mock(wraps=certified.decide), Mock(wraps=replaying.check)
    monkeypatch.setattr(certified, "decide", asked)
    monkeypatch.setattr(replaying, "check", checked)
    certified.verdict_without_limits.cache_clear()
    shown = [replay_example(replace(unique_example(), note=note)) for note in "ab"]
    assert [replayed.confirmed for replayed in shown] == [True, True]
    assert (asked.call_count, checked.call_count) == (1, 2)


def test_an_example_that_no_engine_certifies_is_not_confirmed():
    """Equal samples of a network that is too large for the engines that are for them."""
    rng = np.random.default_rng(0)
    network = ReluNetwork.from_arrays([rng.integers(-4, 5, (40, 2)), rng.integers(-4, 5, (2, 40))], None)
    batch = batch_of(network, [[1, 2], [1, 2]], [[1, 0], [1, 0]])
    example = Example(network=network, batch=batch, question=Question(loss=Loss.MSE), note="")
    result = replay_example(replace(example, outcome=Outcome.UNIQUE))
    assert result.confirmed is False
    assert result.says[0].startswith("no certificate: unknown")


def test_an_example_can_be_retyped():
    """The printed lines, run as Python, give the same records and the question's verdict."""
    boxed = replace(unique_example(), question=Question(loss=Loss.MSE, domain=Box(0, 1)))
    for example in (insecure_example(), boxed):
        *lines, last = example_lines(example)
        names = {"F": Fraction, "ReluNetwork": ReluNetwork, "certify": certify, "Box": Box}
        exec("\n".join(lines), names)
        assert names["network"] == example.network
        made = batch_of(example.network, names["x"], names["y"])
        assert made == example.batch
        if example.outcome is Outcome.UNIQUE:
            assert eval(last, names).outcome is Outcome.UNIQUE


# ---- reports ----------------------------------------------------------------------------------------------


def test_a_statement_with_agreeing_checks_holds():
    told: list[tuple[str, int, int]] = []
    report = run_statement(statement(), seed=5, progress=lambda *what: told.append(what))
    assert report.holds
    assert report.objections == ()
    assert report.checks[0].result.data is not None
    assert report.checks[0].result.data["seed"] == 5
    assert ("by-hand: counting", 2, 2) in told


@pytest.mark.parametrize(
    ("changes", "objection"),
    [
        ({"checks": (check(), check(False, "wrong"))}, "the check 'wrong' contradicts it"),
        ({"checks": ()}, "it has no check"),
        ({"example": None}, "needs a counterexample"),
        ({"standing": Standing.PROVED}, "needs a ground that supports it, by one of: coq, written"),
        ({"grounds": (NUMBERS,)}, "needs a ground that refutes it, by one of: coq, kernel"),
        ({"standing": Standing.BOUNDED, "grounds": (NUMBERS,)}, "needs a ground that supports it"),
        ({"standing": Standing.PROVED, "grounds": (SIZES,)}, "needs a ground that supports it"),
        ({"standing": Standing.PROVED, "grounds": (STEP,)}, "needs a ground that supports it"),
        ({"standing": Standing.BOUNDED, "grounds": (SIZES, PROOF)}, "a ground shows 'proved', not"),
        ({"standing": Standing.BOUNDED}, "a ground shows 'refuted', not"),
        ({"standing": Standing.OPEN, "grounds": (SIZES,)}, "a ground shows 'proved for stated sizes', not"),
        ({"standing": Standing.OPEN}, "a ground shows 'refuted', not 'open'"),
        ({"standing": Standing.OPEN, "grounds": ()}, "refutes a statement that is 'open'"),
        ({"grounds": (COUNTEREXAMPLE, PROOF)}, "a ground shows 'proved', not 'refuted'"),
        ({"standing": Standing.PROVED, "grounds": (PROOF,)}, "needs a check that supports it"),
        ({"standing": Standing.PROVED, "grounds": (PROOF,)}, "refutes a statement that is 'proved'"),
        ({"checks": (check(direction=Direction.SUPPORTS),)}, "supports a statement that is 'refuted'"),
        ({"checks": (check(direction=Direction.NEITHER),)}, "needs a check that refutes it"),
        ({"example": seen_wrong}, "the example does not replay"),
        ({"example": lambda: replace(insecure_example(), shown=lambda _e: WRONG)}, "does not replay"),
        (
            {"example": lambda: replace(unique_example(), outcome=Outcome.AMBIGUOUS)},
            "the example does not replay",
        ),
        (
            {"checks": (check(example=replace(unique_example(), outcome=Outcome.AMBIGUOUS)),)},
            "the check 'by-hand' contradicts it",
        ),
    ],
)
def test_what_speaks_against_a_standing(changes: dict[str, Any], objection: str):
    report = run_statement(statement(**changes))
    assert not report.holds
    assert objection in "; ".join(report.objections)


def test_a_check_that_raises_confirms_nothing_and_stops_no_other():
    def run(_progress: object, _seed: int) -> Result:
        raise InputError("the moon is not round")

    failing = Check(name="failing", what="nothing", run=run)
    report = run_statement(statement(checks=(failing, check())))
    assert [found.holds for found in report.checks] == [False, True]
    assert report.checks[0].result.detail == "InputError: the moon is not round"
    assert not report.holds


def test_shown_without_checks_nothing_runs():
    report = run_statement(statement(checks=(check(False),)), checks=False)
    assert (report.ran, report.checks, report.replay, report.holds) == (False, (), None, True)


def test_what_is_no_batch_is_replayed_shown_and_recorded(install: Install, run: Run, run_json: RunJson):
    right = replace(seen_wrong(), lines=("1 + 1 == 2",), shown=lambda: Result(holds=True, detail="it is 2"))
    assert example_lines(right) == ["1 + 1 == 2"]
    install(statement(example=lambda: right))
    _, out, _ = run("made-up", exits=ExitCode.DONE)
    assert "arithmetic\n  1 + 1 == 2\n  it is 2" in out
    _, record = run_json("made-up")
    assert record["example"] == {"lines": ["1 + 1 == 2"], "note": "arithmetic"}
    assert (record["replay"]["confirmed"], record["replay"]["says"]) == (True, ["it is 2"])


def test_what_an_example_shows_is_replayed_beside_its_second_batch():
    seen = Result(holds=True, detail="and rank 2")
    result = replay_example(replace(insecure_example(), shown=lambda _example: seen))
    assert (result.confirmed, result.outcome) == (True, Outcome.AMBIGUOUS)
    assert result.says[-1] == "and rank 2"
    alone = replace(unique_example(), outcome=None, shown=lambda _example: seen)
    assert replay_example(alone).confirmed is True


# ---- exan theorems ----------------------------------------------------------------------------------------


def test_the_list_groups_and_counts(install: Install, run: Run, run_json: RunJson):
    proved = statement(
        "c1-made-up",
        group="C1",
        standing=Standing.PROVED,
        grounds=(PROOF,),
    )
    install(statement(), proved)
    code, out, err = run()
    assert (code, err) == (ExitCode.DONE, "")
    assert "made-up" in out
    assert "2 statements: 1 proved, 1 refuted" in out
    (line,) = (line for line in out.splitlines() if "c1-made-up" in line)
    assert line.split()[:2] == ["c1-made-up", "proved"]
    for specialist in ("C1", "coq", "source", "a hypothesis"):
        assert specialist not in out
    assert all(line == line.rstrip() for line in out.splitlines())
    long = run("--long")[1].splitlines()
    assert [line for line in long if "c1-made-up" in line] == ["C1  c1-made-up  proved"]
    assert "    by      coq: exact.v: C1" in long
    assert any(line.startswith("    source  ") for line in long)
    code, record = run_json()
    assert record["schema"] == "exan/theorems/1"
    assert [s["name"] for s in record["statements"]] == ["made-up", "c1-made-up"]
    assert record["statements"][1]["grounds"] == [
        {
            "method": "coq",
            "where": "exact.v: C1",
            "says": "all of it",
            "direction": "supports",
            "bounded": False,
        }
    ]


def test_the_long_list_has_quantifiers_hypotheses_and_conclusions(install: Install, run: Run):
    install(statement(quantifiers="some network and batch (refuted)"))
    _, out, _ = run("--long", exits=ExitCode.DONE)
    assert "    over    not for all networks and batches: there is a counterexample" in out.splitlines()
    assert "    if      a hypothesis\n            another one\n    then    The batch is UNIQUE.\n" in out
    assert "not for all networks and batches: there is a counterexample" in run("made-up", "--no-checks")[1]


def test_the_list_of_the_registry_fits_a_hundred_columns_and_says_where_everything_lies(
    run: Run,
):
    _, out, _ = run("--long", exits=ExitCode.DONE)
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    flat = " ".join(out.split())
    for known in registry().values():
        head = f"{known.group}  {known.name}  {known.standing.value}"
        assert head in lines
        assert f"source {' '.join(known.source.split())} by " in flat
        for ground in relied_on(known):
            file, _, names = ground.where.partition(": ")
            assert file in flat, file
            assert names in flat, names
        if known.standing is Standing.REFUTED:
            block = flat.split(f" {known.name} refuted ", 1)[1].split(" source ", 1)[0]
            assert " over not for all " in block, known.name
            assert ": there is a counterexample if " in block, known.name
        else:
            assert "(refuted)" not in known.quantifiers


def test_what_settles_nothing_is_listed_only_where_nothing_else_is(install: Install, run: Run):
    beside = Ground(method=Method.WRITTEN, where="beside", says="its size", direction=Direction.NEITHER)
    refuted = statement()
    install(
        replace(refuted, grounds=(*refuted.grounds, beside)),
        statement(name="c1-made-up", standing=Standing.OPEN, grounds=(beside,)),
    )
    out = run("--long")[1]
    assert out.count("written: beside") == 1
    assert out.index("written: beside") > out.index("c1-made-up")
    assert run("--table", "markdown", "--every")[1].count("written: beside") == 1


def test_one_statement_shows_everything(install: Install, run: Run):
    install(statement())
    code, out, err = run("made-up", "--seed", "7")
    assert (code, err) == (ExitCode.DONE, "")
    for text in (
        "made-up: REFUTED",
        "what was published",
        "what we read",
        "a hypothesis",
        "another one",
        "The batch is UNIQUE.",
        r"a \Rightarrow b",
        "kernel: there is a second batch (its example)",
        "x2 = [[1, F(-1, 4), F(-1, 4)], [F(4, 3), F(-1, 3), 0]",
        "both batches have the same gradient, entry by entry",
        "the kernel accepts the second batch: AMBIGUOUS, 4 free",
        "two things counted",
        "CONFIRMED: every check agrees with 'refuted'",
    ):
        assert text in out, text


def test_json_of_one_statement(install: Install, run_json: RunJson):
    install(statement())
    code, record = run_json("made-up", "--seed", "7")
    assert (code, record["schema"], record["holds"], record["ran"]) == (0, "exan/theorem/1", True, True)
    assert record["replay"]["outcome"] == "ambiguous"
    assert record["example"]["second"]["x"][1] == ["4/3", "-1/3", "0"]
    assert record["example"]["parameters"]["2.weight"][0][0] == "-1/2"
    result = record["results"][0]
    assert result["data"] == {"seed": 7, "values": ["1/3", 2], "3": {"nested": None}}
    code, record = run_json("made-up", "--no-checks")
    assert (record["ran"], record["holds"], record["results"], record["replay"]) == (False, None, [], None)


def test_a_check_that_contradicts_is_exit_code_one(install: Install, run: Run, run_json: RunJson):
    install(statement(checks=(check(), check(False, "wrong"))), statement("other"))
    _, out, _ = run("made-up", exits=ExitCode.REFUSED)
    assert "NOT CONFIRMED: the check 'wrong' contradicts it" in out
    assert run("made-up", "--no-checks")[0] == ExitCode.DONE
    _, out, _ = run("--all", exits=ExitCode.REFUSED)
    assert "contradicted  made-up" in out
    assert "confirmed     other" in out
    assert "1 of 2 statements confirmed" in out
    code, record = run_json("--all")
    assert (code, record["holds"]) == (ExitCode.REFUSED, False)
    assert [s["holds"] for s in record["statements"]] == [False, True]
    install(statement())
    assert run("--all")[0] == ExitCode.DONE


def test_negating_a_standing_is_noticed(install: Install, run: Run):
    """A refuted statement called proved: nothing carries it, and the command says so."""
    install(statement(standing=Standing.PROVED))
    _, out, _ = run("made-up", exits=ExitCode.REFUSED)
    assert "'proved' needs a ground that supports it, by one of: coq, written" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "no statement or group is called 'nobody'; 'exan theorems' lists all 1"),
        (["made-up", "--all"], "give NAME or --all"),
        (["--no-checks"], "--no-checks goes with NAME"),
        (["--long", "made-up"], "--long is for the list"),
        (["--long", "--file", "none.py"], "--long is for the list"),
        (["--every"], "--every and --out go with --table"),
        (["--out", "t.md"], "--every and --out go with --table"),
        (["--table", "markdown", "made-up"], "leave NAME and --all out"),
        (["--table", "word"], "'word' is not one of"),
        (["--table", "latex", "--out", "nowhere/t.tex"], "create nowhere first"),
        (["--file", "none.py", "--all"], "leave --all and --table out"),
        (["--file", "none.py"], "none.py is not a file"),
    ],
)
def test_bad_usage_is_one_error(arguments: list[str], said: str, install: Install, run: Run):
    install(statement())
    code, out, err = run(*arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith("error: ")
    assert said in err


def test_public_names_are_documented():
    for name in set(exan_verify.theorems.__all__) - {"Progress"}:  # a type alias has no docstring of its own
        assert getattr(exan_verify.theorems, name).__doc__, name


def test_the_command_line_does_not_load_the_statements_before_they_are_needed():
    import subprocess

    code = (
        "import exan_verify.cli, sys; print(any(n.startswith('exan_verify.theorems') for n in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
