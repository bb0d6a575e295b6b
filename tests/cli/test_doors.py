"""What users pass on the command line: notes about it, errors that name it, and readers that go away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from exan_verify import audit, certify
from exan_verify.api.files import load_model, save_batch, save_gradient
from tests.support.commands import Run, RunJson

ASSUMED = "6-40-3, Linear layers with ReLU between them (assumed: the file names no activation)"
CERTIFY = ("certify", "model.safetensors", "--batch", "batch.npz")
ATTACK = ("attack", "model.safetensors", "gradient.npz", "--out", "o.npz")
MAIN = [sys.executable, "-c", "import sys; from exan_verify.cli import main; sys.exit(main())"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.safetensors, batch.npz, gradient.npz (with prefixes and a buffer) and bad files."""
    rng = np.random.default_rng(0)
    tensors = {
        "0.weight": rng.uniform(-0.5, 0.5, (40, 6)),
        "0.bias": rng.uniform(-0.5, 0.5, 40),
        "2.weight": rng.uniform(-0.5, 0.5, (3, 40)),
        "2.bias": rng.uniform(-0.5, 0.5, 3),
    }
    monkeypatch.chdir(tmp_path)
    save_file(tensors, "model.safetensors")
    x, y = rng.random((2, 6)), np.array([0, 2])
    save_batch("batch.npz", x, y)
    hidden = x @ tensors["0.weight"].T + tensors["0.bias"]
    logits = np.maximum(hidden, 0) @ tensors["2.weight"].T + tensors["2.bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    top = (probabilities - np.eye(3)[y]) / 2
    low = (top @ tensors["2.weight"]) * (hidden > 0)
    gradient = {
        "0.weight": low.T @ x,
        "0.bias": low.sum(0),
        "2.weight": top.T @ np.maximum(hidden, 0),
        "2.bias": top.sum(0),
    }
    sent = {f"module.{name}": value for name, value in gradient.items()}
    save_gradient("gradient.npz", sent | {"module.1.num_batches_tracked": np.array(3)})
    save_gradient("scalar.npz", gradient | {"count": np.int64(3)})
    Path("deep.json").write_text("[" * 100_000 + "]" * 100_000)
    Path("made.py").write_text(
        "import sys\n"
        "def fails(): raise RuntimeError('no')\n"
        "def leaves(): sys.exit(0)\n"
        "def nothing(): return None\n"
        "number = 3\n"
    )
    Path("broken.py").write_text("1 / 0\n")
    return tmp_path


def test_what_was_done_is_said(here: Path, run: Run):
    attacked = ("attack", "model.safetensors", "gradient.npz", "--out", "found.npz", "--batch-size", "2")
    certified = ("certify", "model.safetensors", "--gradient", "gradient.npz", "--tolerance", "1e-10")
    for command in (attacked, (*certified, "--batch-size", "2")):
        code, out, err = run(*command)
        assert (code, err) == (0, "")
        for note in (
            ASSUMED,
            "'module.1.num_batches_tracked' left out: buffers",
            "'module.' of the gradient's",
        ):
            assert sum(note in line for line in out.splitlines() if line.startswith("note: ")) == 1
        code, out, _ = run(*command, "--json")
        notes = json.loads(out)["notes"]
        assert notes[0] == ASSUMED
        assert len(notes) == 3


def test_the_architecture_that_was_assumed_is_said(here: Path, run: Run, run_json: RunJson):
    for command in (
        ("certify", "model.safetensors", "--batch", "batch.npz"),
        ("audit", "model.safetensors", "batch.npz"),
    ):
        _, out, _ = run(*command)
        assert f"note: {ASSUMED}" in out.splitlines()
        _, record = run_json(*command, exits=0)
        assert record["notes"] == [ASSUMED]
    network = load_model("model.safetensors")
    batch = (np.ones((1, 6)), [0])
    assert certify(network, batch=batch).notes == audit(network, batch).notes == (ASSUMED,)
    assert json.loads(audit(network, batch).to_json())["verdict"]["notes"] == [ASSUMED]


BAD: list[tuple[tuple[str, ...], str]] = [
    (("attack", "model.safetensors", "scalar.npz", "--out", "o.npz"), "'count' belongs to no parameter"),
    (
        ("certify", "model.safetensors", "--gradient", "scalar.npz", "--exact"),
        "'count' belongs to no parameter",
    ),
    (("certify", "model.safetensors", "--gradient", "deep.json"), "deep.json: its lists are nested too deep"),
    ((*CERTIFY, "--domain", "categorical"), "not a domain"),
    (
        (*CERTIFY, "--domain", "box:1e300000000,1"),
        "not a domain",
    ),
    ((*CERTIFY, "--seed", "-1"), "--seed"),
    ((*CERTIFY, "--budget", "nan"), "budget=nan"),
    ((*CERTIFY, "--jobs", "99999999"), "--jobs"),
    ((*ATTACK, "--batch-size", "0"), "batch_size=0"),
    ((*ATTACK, "--device", "meta"), "device='meta'"),
    (
        ("certify", "made:fails", "--batch", "batch.npz"),
        "made:fails: calling it without arguments raised RuntimeError: no",
    ),
    (("certify", "made:leaves", "--batch", "batch.npz"), "remove the call of sys.exit"),
    (("certify", "made:nothing", "--batch", "batch.npz"), "model is a NoneType"),
    (("certify", "made:number", "--batch", "batch.npz"), "name a function"),
    (("certify", "broken:model", "--batch", "batch.npz"), "broken cannot be imported: ZeroDivisionError"),
    (("certify", ":model", "--batch", "batch.npz"), "not a factory"),
    (("certify", "made:a b", "--batch", "batch.npz"), "not a factory"),
    (("certify", "model.safetensors", "--batch", "\x00.npz"), "not a path"),
    (("theorems", "--file", "broken.py"), "broken.py cannot be run: ZeroDivisionError"),
    (("theorems", "--file", "made.py"), "defines no claim"),
    *(
        (("certify", "model.safetensors", "--gradient", "gradient.npz", "--tolerance", value), "tolerance")
        for value in ("inf", "nan", "-1", "0", "-inf")
    ),
]


@pytest.mark.parametrize(("line", "says"), BAD, ids=[" ".join(line[-2:]) for line, _ in BAD])
def test_one_error_and_exit_code_two(
    line: tuple[str, ...],
    says: str,
    here: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.syspath_prepend(str(here))
    for name in ("made", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = sorted(os.listdir())
    for more in ((), ("--json",)):
        code, out, err = run(*line, *more)
        assert (code, out) == (2, "")
        message = json.loads(err)["message"] if more else err.removeprefix("error: ")
        assert message != err
        assert says in " ".join(message.split())
    assert [name for name in sorted(os.listdir()) if name != "__pycache__"] == before


def test_a_file_of_claims_that_does_not_end_keeps_the_budget(here: Path, run: Run):
    Path("loops.py").write_text("while True: pass\n")
    code, out, err = run("theorems", "--file", "loops.py", "--budget", "0.3")
    assert (code, out) == (3, "")
    assert "budget" in err


def started(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*MAIN, *arguments], **streams)


COMMANDS = [
    ("theorems",),
    ("theorems", "--json"),
    ("theorems", "--help"),
    (*CERTIFY, "--json"),
    ("audit", "model.safetensors", "batch.npz", "--fail-on", "determined"),
]


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_a_reader_that_goes_away_gets_no_answer_from_the_exit_code(line: tuple[str, ...], here: Path):
    run = started(*line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.close()  # before anything is written
    assert run.stderr is not None
    said = run.stderr.read()
    assert run.wait() == 141
    assert said == b""
    run.stderr.close()


def test_a_reader_that_takes_two_lines(here: Path):
    line = " ".join(
        [sys.executable, "-c", "'import sys; from exan_verify.cli import main; sys.exit(main())'", "theorems"]
    )
    shell = subprocess.run(
        ["bash", "-c", f"{line} | head -2; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    *shown, code = shell.stdout.splitlines()
    assert len(shown) == 2
    assert code in ("0", "141")
    assert shell.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_under_the_output(here: Path):
    with open("/dev/full", "wb") as full:
        run = started(*COMMANDS[-1], stdout=full, stderr=subprocess.PIPE)
        _, said = run.communicate()
    assert run.returncode == 2
    assert said.startswith(b"error: the output cannot be")


def test_output_that_was_closed_before(here: Path):
    shell = subprocess.run(
        ["bash", "-c", f"'{MAIN[0]}' -c '{MAIN[2]}' certify model.safetensors --batch batch.npz >&-"],
        capture_output=True,
        check=False,
    )
    assert (shell.returncode, shell.stderr) == (0, b"")


def test_certify_loads_what_it_asks_and_no_more(here: Path):
    """Where lifting decides, neither the other engines nor the libraries that only they use are loaded."""
    code = (
        "import sys; from exan_verify.cli import main; "
        "main(['certify', 'model.safetensors', '--batch', 'batch.npz']); "
        "print(*sorted({'torch', 'sympy', 'scipy', 'joblib', 'z3', 'cvc5', 'matplotlib', 'exan_verify.smt', "
        "'exan_verify.decide.enumeration', 'exan_verify.decide.families'} & set(sys.modules)), '.')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("UNIQUE")
    assert run.stdout.splitlines()[-1] == "."
