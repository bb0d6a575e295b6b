"""``exan sweep``: shares against batch size, width and epoch, on networks and data of the user."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from exan_verify import audit
from exan_verify.api.files import save_batch
from exan_verify.api.runs.sweep import sweep
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.errors import FileError, InputError
from exan_verify.models.chain import to_network
from tests.support.commands import Run

ASKED = ("sweep", "ours:net", "--data", "data.npz", "--repeat", "2", "--batch-size", "2")
MODULE = """
import torch
from torch import nn
def net(width=24):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)).double()
def broken(width=3):
    raise RuntimeError("no")
def number(width=3):
    return 3
"""


def data(count: int = 120) -> tuple[Any, Any]:
    """Pictures of 2 x 2 pixels, of three classes that a network can tell apart."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, count)
    return rng.random((count, 2, 2)) / 2 + np.eye(4)[y].reshape(-1, 2, 2), y


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module ours and data.npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "ours", raising=False)
    Path("ours.py").write_text(MODULE)
    save_batch("data.npz", *data())
    return tmp_path


def test_over_batch_sizes_it_draws_and_writes(here: Path, run: Run):
    files = ("--figure", "s.png", "--csv", "s.csv")
    code, out, err = run(*ASKED, "--over", "batch", "--values", "2,1", *files, "--json")
    assert (code, err) == (ExitCode.DONE, "")
    record = json.loads(out)
    assert (record["schema"], record["over"], record["batch_size"]) == ("exan/sweep/1", "batch", None)
    assert [(one["value"], one["steps"], one["samples"]) for one in record["points"]] == [
        (1, 2, 2),
        (2, 2, 4),
    ]
    assert record["points"][0]["shares"]["determined"] == 1
    rows = list(csv.DictReader(Path("s.csv").read_text().splitlines()))
    for row, one in zip(rows, record["points"], strict=True):
        assert (int(row["batch"]), int(row["samples"])) == (one["value"], one["samples"])
        assert float(row["determined"]) == one["shares"]["determined"]
    assert matplotlib.image.imread("s.png").shape[2] == 4


def test_over_widths_the_factory_is_called_with_each(here: Path, run: Run):
    _, out, _ = run(*ASKED, "--over", "width", "--values", "2,24", "--out", "kept", exits=ExitCode.DONE)
    lines = [line.split() for line in out.splitlines()[:3]]
    for column in lines[0][2:]:
        assert f"{column}: " in out.split("\n", 3)[3]
    assert lines[0][:2] == ["width", "samples"]
    assert [line[0] for line in lines[1:]] == ["2", "24"]
    networks = [json.loads(Path(f"kept/width-{w}/steps.jsonl").read_text().splitlines()[0]) for w in (2, 24)]
    assert [one["network"] for one in networks] == ["4-2-3", "4-24-3"]
    before = {path: path.read_bytes() for path in Path("kept").rglob("steps.jsonl")}
    assert run(*ASKED, "--over", "width", "--values", "2,24", "--out", "kept")[0] == ExitCode.USAGE
    again = run(*ASKED, "--over", "width", "--values", "2,24", "--out", "kept", "--resume")
    assert (again[0], again[1]) == (ExitCode.DONE, out)
    assert before == {path: path.read_bytes() for path in Path("kept").rglob("steps.jsonl")}


def test_over_epochs_the_networks_are_trained_on(tmp_path: Path):
    import torch
    from torch import nn

    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.append(nn.Sequential(nn.Flatten(), nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3)).double())
        return made[-1]

    state = torch.random.get_rng_state()
    asked: dict[str, Any] = {"over": "epoch", "batch_size": 2, "repeat": 2, "seed": 3}
    found = sweep(make, data(), values=[0, 60], out=tmp_path / "a", **asked)
    assert torch.equal(state, torch.random.get_rng_state())
    first, last = found.points
    assert first.accuracy < last.accuracy
    assert last.accuracy > 0.9
    assert len(made) == 2, "they are trained on, not made anew"
    assert [one.totals.steps for one in found.points] == [2, 2]
    # what a sweep says of its last step is what an audit says
    chosen = np.random.default_rng([3, 60, 1]).choice(120, 2, replace=False)
    x, y = data()
    alone = audit(to_network(made[1]), (x[chosen], y[chosen]))
    line = json.loads((tmp_path / "a" / "epoch-60" / "steps.jsonl").read_text().splitlines()[1])
    assert (line["outcome"], line["determined"]) == (alone.verdict.outcome.value, alone.verdict.determined)


def test_what_the_budget_leaves_is_said(here: Path, run: Run):
    code, out, _ = run(*ASKED, "--over", "batch", "--budget", "1e-9", "--figure", "s.png")
    assert code == ExitCode.UNDECIDED
    assert "not finished: the budget ran out" in out
    assert not Path("s.png").exists()


def test_what_cannot_be_swept(here: Path, run: Run):
    for words, said in (
        (("ours:net", "--over", "depth"), "Invalid value for '--over'"),
        (("ours:net", "--over", "width", "--values", "a"), "write integers with commas"),
        (("ours:net", "--over", "width", "--values", "0"), "values=0 cannot be used"),
        (("ours:net", "--over", "width", "--resume"), "--resume goes on with the folder of --out"),
        (("ours:net", "--over", "width", "--weights", "w.safetensors"), "--weights goes with --over batch"),
        (("ours:net", "--over", "batch", "--values", "500"), "data has 120 samples for batches of 500"),
        (("ours:broken", "--over", "batch"), "ours:broken: calling it without arguments raised RuntimeError"),
        (
            ("ours:broken", "--over", "width", "--values", "7"),
            "ours:broken: calling it with 7 raised RuntimeError",
        ),
        (("ours:number", "--over", "epoch", "--values", "1"), "cannot be trained; make a torch.nn.Module"),
        (("ours:net", "--over", "batch", "--csv", "no/s.csv"), "no/s.csv: its folder does not exist"),
    ):
        code, out, err = run("sweep", *words, "--data", "data.npz")
        assert (code, out) == (ExitCode.USAGE, ""), words
        assert said in err
    assert {path.name for path in here.iterdir()} <= {"ours.py", "data.npz", "__pycache__"}
    with pytest.raises(FileError, match="cannot be created"):
        sweep(lambda: None, data(), over="batch", out=here / "no" / "where")
    with pytest.raises(InputError, match="over='depth' is not known"):
        sweep(lambda: None, data(), over="depth", out=here / "out")
