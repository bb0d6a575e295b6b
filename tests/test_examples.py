"""Every example runs as its first lines say, and shows what it is there to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from exan_verify import Outcome

EXAMPLES = Path(__file__).parent.parent / "examples"

SHOWN = {
    "attack_cnn": ("rebuilt 4 of 4 pictures", "Convolution '0': 0 entries open", "contact sheet written to"),
    "attack_gradient": ("rebuilt 8 of 8 samples", "labels: ["),
    "attack_some_layers": (
        "features of hidden layer 1: 8 of 8 samples",
        "inputs: 0 of 8; without '0.weight' the gradient shows features of hidden layer 1",
        "inputs: 8 of 8; the weights determine them",
    ),
    "audit_in_ci": ("certified:                UNIQUE, 8 determined", "samples that leak: [0, 1, 2"),
    "certify_module": ("UNIQUE, 6 of 6 samples determined", "checked: UNIQUE", "with a twin: AMBIGUOUS"),
    "exact_gradient": ("UNIQUE: ", "rebuilt exactly: True"),
    "own_statement": (
        "-1 network: AMBIGUOUS",
        "in a 1-1-1 network: UNIQUE",
        "exclusive-rows: if always, then row j",
        "no counterexample found; this is not a proof",
    ),
}


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_example(name: str, capsys: pytest.CaptureFixture[str]):
    path = EXAMPLES / f"{name}.py"
    assert f"Run: python examples/{name}.py" in path.read_text()
    try:
        # in this process, which has torch; warnings are errors here too
        run_path(str(path), run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr()
    assert told.err == ""
    assert code == (1 if name == "audit_in_ci" else 0), "the CI example fails the build on a leak"
    for text in SHOWN[name]:
        assert text in told.out


def test_an_example_runs_as_a_program():
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "audit_in_ci.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=EXAMPLES.parent,
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert "samples that leak: [0, 1, 2" in result.stdout


def test_the_readme_s_python_runs_as_shown():
    text = (EXAMPLES.parent / "README.md").read_text()
    block = re.search(r"## In Python\n\n```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block.group(1), names)
    assert names["verdict"].outcome is Outcome.UNIQUE
    assert names["rebuilt"].complete
    assert names["found"].radius == (0.0,) * 6
