"""What helps at a terminal: examples, completion, near names, tables that fit, errors for programs."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
from click.shell_completion import ShellComplete

from exan_verify.bench import SUITES
from exan_verify.cli.certify import describe
from exan_verify.cli.program import COMMANDS, exan
from exan_verify.cli.terminal.examples import EXAMPLES
from exan_verify.cli.terminal.output import ExitCode, Output, table
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.errors import InputError, meant
from exan_verify.theorems.registry import beside, chosen, registry, statement
from tests.support.commands import Run


def test_every_command_has_examples_that_it_takes(run: Run):
    by_name = {command.name: command for command in COMMANDS}
    assert set(EXAMPLES) == set(by_name)
    for name, lines in EXAMPLES.items():
        _, out, _ = run(name, "--help")
        shown = " ".join(out.split("Examples, in the folder demo-report")[1].split())
        for line in lines:
            assert line in shown
            assert len(line) <= 78, "a terminal of 80 columns would break it"
            program, command, *arguments = shlex.split(line)
            assert (program, command) == ("exan", name)
            with by_name[name].make_context(name, arguments):
                pass


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_every_suite_is_named_whole_in_the_help(run: Run, monkeypatch: pytest.MonkeyPatch, width: str):
    monkeypatch.setenv("COLUMNS", width)
    _, out, _ = run("bench", "--help")
    said = " ".join(out.split("Options")[0].split())
    for suite in SUITES:
        assert any(f" {suite}{end}" in said for end in (",", " or", "."))


def test_a_device_that_is_none_is_refused_in_one_line(run: Run):
    for command in (("compare", "m", "b"), ("bench", "attack")):
        for device in ("nonsense", "hip", "vulkan"):
            code, _, err = run(*command, "--device", device)
            assert code == ExitCode.USAGE
            assert f"device='{device}' cannot be used (torch has no such device here)" in err
            assert "use 'cpu'" in err
            assert len(err) < 160


def test_the_shell_completes_commands_cases_and_statements():
    def completed(*words: str) -> list[str]:
        found = ShellComplete(exan, {}, "exan", "_EXAN_COMPLETE").get_completions(list(words[:-1]), words[-1])
        return [item.value for item in found]

    assert completed("ce") == ["certify"]
    assert completed("theorems", "C1-") == ["c1-labels-not-told", "c1-upper-layer-alone"]
    assert "counting" in completed("theorems", "coun")
    assert "784-512-10 M=16" in completed("bench", "attack", "--case", "784-512-10 M=1")
    assert completed("bench", "--case", "784") == []


def test_names_are_found_in_any_case_and_by_group_and_near_ones_are_said():
    assert statement("C1-Upper-Layer-Alone").name == "c1-upper-layer-alone"
    assert [one.name for one in chosen("C1")] == ["c1"]
    assert beside(statement("c1")) == ["c1-labels-not-told", "c1-upper-layer-alone"]
    group = chosen("p2")
    assert len(group) > 5
    assert {one.group for one in group} == {"P2"}
    for typed, near in (
        ("c1-uper", "'c1-upper-layer-alone'"),
        ("Narow", "'narrow'"),
        ("countin-sizes", "'counting-sizes'"),
    ):
        with pytest.raises(InputError, match=f"did you mean.*{near}"):
            chosen(typed)
    with pytest.raises(InputError, match=f"'exan theorems' lists all {len(registry())}$"):
        chosen("nothing-like-it")


def test_what_was_meant_is_near_or_the_beginning_and_never_far():
    assert meant("LIFTNG", ["lifting", "scale"]) == "; did you mean 'lifting'?"
    assert meant("784-512", ["784-512-10 M=8", "3-4-2"]) == "; did you mean '784-512-10 M=8'?"
    assert [meant(value, ["lifting", "scale"]) for value in ("xyz", "", 3, None)] == [""] * 4


def test_a_group_is_listed_without_checks(run: Run):
    code, out, _ = run("theorems", "counting", "--no-checks")
    names = [one.name for one in chosen("counting")]
    assert code == 0
    assert all(name in out for name in names)
    assert f"{len(names)} statements:" in out
    _, out, _ = run("theorems", "C1", "--no-checks")
    assert out.endswith("also in group C1: c1-labels-not-told, c1-upper-layer-alone\n")


def test_errors_are_one_json_object_on_stderr_where_json_is_asked_for(run: Run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, kind, start in (
        (("certify", "none.onnx", "--batch", "b.npz"), "FileError", "none.onnx: cannot be read"),
        (("certify", "none.onnx"), "UsageError", "give either --batch"),
        (("audit", "m", "b", "--los", "mse"), "UsageError", "No such option"),
        (("theorems", "nobody"), "InputError", "no statement or group is called"),
    ):
        code, out, err = run(*arguments, "--json")
        record = json.loads(err)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert (record["schema"], record["error"], record["exit_code"]) == ("exan/error/1", kind, 2)
        assert record["message"].startswith(start)
        code, _, err = run(*arguments)
        assert err.startswith(f"error: {start}")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_tables_are_never_cut_whatever_the_width(width: int, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(width)
    output = Output(json=False, width=width)
    for columns in (2, 5, 8, 14):
        made = table(*(f"heading{k} " for k in range(columns)))
        rows = [[f"v{'x' * int(rng.integers(1, 12))}{k}" for k in range(columns)] for _ in range(3)]
        for row in rows:
            made.add_row(*row)
        output.say(made)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert all(line == line.rstrip() for line in lines)
        words = " ".join(lines).split()
        assert all(words.count(f"heading{k}") >= 1 for k in range(columns))
        assert all(words.count(cell) >= 1 for row in rows for cell in row)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_sentences_in_tables_keep_all_their_words(width: int, capsys: pytest.CaptureFixture[str]):
    """Beside long names that cannot be broken, and phrases that can."""
    rng = np.random.default_rng(width)
    for _ in range(20):
        made = table("name", "standing", "number ", "says")
        rows = [
            (
                f"n{'-' * int(rng.integers(1, 40))}{k}",
                " ".join(["proved", "for", "stated", "sizes"][: int(rng.integers(1, 5))]),
                str(int(rng.integers(10**9))),
                " ".join(f"w{k}{'o' * int(n)}" for n in rng.integers(0, 14, size=int(rng.integers(1, 30)))),
            )
            for k in range(4)
        ]
        for row in rows:
            made.add_row(*row)
        Output(json=False, width=width).say(made)
        out = capsys.readouterr().out
        words = sorted(out.split())
        assert max(map(len, out.splitlines())) <= max(width, max(len(name) for name, *_ in rows) + 10)
        shown = sorted(" ".join(cell for row in rows for cell in row).split())
        headings = [word for word in words if word in ("name", "standing", "number", "says")]
        assert sorted(shown + headings) == words


def test_samples_are_counted_by_status_and_named(capsys: pytest.CaptureFixture[str]):
    statuses = [SampleStatus.FREE, SampleStatus.DETERMINED, SampleStatus.FREE] + [SampleStatus.UNKNOWN] * 70
    verdict = Verdict(
        outcome=Outcome.AMBIGUOUS, samples=tuple(statuses), reason="r", batch_size=len(statuses)
    )
    output = Output(json=False, width=400)
    output.say(*describe(verdict))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("samples"))
    assert "70 unknown (samples 3, 4, 5," in line
    assert line.endswith(" 66 and 6 more, see --json), 2 free (samples 0, 2), 1 determined (sample 1)")
