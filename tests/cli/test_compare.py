"""``exan compare``: methods side by side on a network and a batch of the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exan_verify.api.files import save_batch
from exan_verify.bench import compare
from exan_verify.cli.terminal.output import ExitCode
from tests.support.commands import Run
from tests.support.torch_reference import trained

SHAPE = (3, 4, 4)
METHODS = ("auto", "published", "tolerance 1e-06", "DLG", "Inverting Gradients")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network that was trained here, under names of its own, and a batch of pictures."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("first", nn.Linear(16, 48))
    model.add_module("relu", nn.ReLU())
    model.add_module("last", nn.Linear(48, 4))
    x, y = torch.tensor(rng.random((64, 16))).float(), torch.tensor(rng.integers(0, 4, 64))
    trained(model, x, y, 40, 0.2, torch.optim.SGD)
    save_file(model.state_dict(), "model.safetensors")
    save_batch("batch.npz", x[:3].reshape(SHAPE), y[:3])
    return tmp_path


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("loss", "reduction", "out_of_range"),
    [
        ("cross_entropy", "mean", set()),
        ("cross_entropy", "sum", {"tolerance 1e-06"}),
        ("mse", "mean", {"tolerance 1e-06"}),
        ("hinge", "mean", {"tolerance 1e-06", "DLG", "Inverting Gradients"}),
    ],
)
def test_every_kind_of_method_on_every_kind_of_question(
    here: Path, run: Run, loss: str, reduction: str, out_of_range: set[str]
):
    asked = [part for method in METHODS for part in ("--method", method)]
    question = ("--loss", loss, "--reduction", reduction, "--seconds", "0.05", "--device", "cpu")
    code, out, err = run(
        "compare", "model.safetensors", "batch.npz", *asked, *question, "--figure", "c.png", "--json"
    )
    assert (code, err) == (ExitCode.DONE, "")
    record = json.loads(out)
    assert (record["schema"], record["unfinished"]) == ("exan/compare/1", False)
    rows = {row["method"]: row for row in record["rows"]}
    assert tuple(rows) == METHODS
    assert {method for method, row in rows.items() if row["refused"]} - {"published"} == out_of_range
    assert (rows["auto"]["wrong"], rows["auto"]["samples"]) == (0, 3)
    if loss != "hinge":  # where a sample whose margins are met has no gradient
        assert rows["auto"]["recall"] == 1
        assert rows["auto"]["ssim"] == pytest.approx(1), "the batch's inputs are pictures"
    assert rows["Inverting Gradients"]["wrong"] is None, "it claims nothing"
    assert matplotlib.image.imread("c.png").shape[2] == 4


@pytest.mark.usefixtures("in_this_process")
def test_the_table_and_what_is_kept_when_it_is_cut(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    started = []

    def interrupted(job: object, method: str, most: float) -> compare.Run:
        started.append((method, most))
        if len(started) == 2:
            raise KeyboardInterrupt
        return compare.METHODS[method](job())

    monkeypatch.setattr(compare, "_isolated", interrupted)
    words = (
        "compare",
        "model.safetensors",
        "batch.npz",
        "--figure",
        "c.png",
        "--seconds",
        "1",
        "--patience",
        "2",
    )
    _, out, err = run(*words, exits=ExitCode.INTERRUPTED)
    assert err.splitlines()[-1] == "error: interrupted"
    assert [line.split()[0] for line in out.split("\n\n")[0].splitlines()] == ["method", "auto"]
    assert Path("c.png").exists()
    assert started == [("auto", 3.0), (started[1][0], 3.0)]


def test_what_cannot_be_compared(here: Path, run: Run):
    for words, said in (
        (("--method", "magic"), "no method ['magic']; there are auto, lift"),
        (("--figure", "no/where.png"), "no/where.png: its folder does not exist"),
        (("--loss", "bce"), "batch.npz: y has shape (3,); for loss='bce' give (3, 4)"),
    ):
        code, out, err = run("compare", "model.safetensors", "batch.npz", *words)
        assert (code, out) == (ExitCode.USAGE, ""), words
        assert said in err
