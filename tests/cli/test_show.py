"""``exan show``: what a model was taken for, on the screen and in JSON; the others' records say it too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exan_verify import attack, audit, certify
from exan_verify.api.files import save_batch, save_gradient
from tests.support.commands import Run, RunJson
from tests.support.torch_reference import autograd, perceptron

FACTORY = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 40), nn.Linear(40, 3)
    def forward(self, x):
        return self.b(self.a(x / 4 - 0.5).clamp(min=0))
def pictures():
    head = (nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), *head)
def normalised():
    first, *rest = pictures()
    return nn.Sequential(first, nn.BatchNorm2d(2), *rest).eval()
def attacked():
    return nn.Sequential(nn.AvgPool2d(1), *pictures())
def pooled():
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(2, 2))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = perceptron(6, 40, 3, seed=1)
    save_file(model.state_dict(), "model.safetensors")
    x, y = torch.from_numpy(np.random.default_rng(0).uniform(size=(2, 6))), torch.tensor([0, 2])
    save_batch("batch.npz", x, y)
    save_gradient("gradient.npz", autograd(model.double(), x, y))
    (tmp_path / "shown_models.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_every_model_is_said_and_the_others_with_their_reason(here: Path, run: Run, run_json: RunJson):
    models = ("model.safetensors", "shown_models:Net", "shown_models:pictures", "batch.npz", "none.onnx")
    _, out, _ = run("show", *models, exits=2)
    assert "model.safetensors: 6-40-3, Linear layers with ReLU between them" in out
    assert "3 of 5 models read" in out
    code, shown = run_json("show", *models)
    assert (code, shown["schema"], shown["read"]) == (2, "exan/show/1", 3)
    plain, constants, pictures, *others = shown["models"]
    assert plain["parameters"]["0.weight"] == [40, 6]
    assert "assumed" in plain["notes"][0]
    assert "'truediv'" in constants["notes"][0]
    assert "line 9 of shown_models.py" in constants["notes"][0]
    expected = "Conv2d and ReLU 1x4x4 to 2x2x2, then 8-4-2, Linear layers with ReLU between them"
    assert pictures["architecture"] == expected
    assert all(one["error"].startswith(f"{one['path']}: ") for one in others)
    assert run("show", "model.safetensors")[0] == 0


def test_what_is_folded_or_only_attacked_is_said(here: Path, run: Run):
    models = ("shown_models:normalised", "shown_models:attacked")
    code, out, _ = run("show", *models, "--json")
    normalised, attacked = json.loads(out)["models"]
    assert code == 0
    assert "BatchNorm folded into it" in normalised["architecture"]
    assert normalised["parameters"]["1.weight"] == [2]
    assert "gamma and beta included" in normalised["notes"][-1]
    assert attacked["architecture"].startswith("pictures 1x4x4; AveragePool, Convolution")
    assert "only attacked: nothing is proved about models that have layer '0'" in attacked["notes"][0]


def test_pictures_of_a_size_that_the_model_leaves_open_are_said(here: Path, run: Run):
    code, out, _ = run("show", "shown_models:pooled")
    assert code == 2
    assert "(--input-shape 1,H,W)" in " ".join(out.split())
    code, out, _ = run("show", "shown_models:pooled", "model.safetensors", "--input-shape", "1,6,9")
    assert code == 0
    assert "Conv2d and ReLU 1x6x9 to 2x4x7" in out
    for wrong, said in (("3,6,9", "correct input_shape"), ("6,9", "is not C,H,W")):
        code, out, err = run("show", "shown_models:pooled", "--input-shape", wrong)
        assert code == 2
        assert said in " ".join((out + err).split())


def test_what_the_model_was_taken_for_is_in_every_record(here: Path, run: Run):
    said = "6-40-3, Linear layers with ReLU between them"
    for command in (
        ("certify", "model.safetensors", "--batch", "batch.npz"),
        ("audit", "model.safetensors", "batch.npz"),
        ("attack", "model.safetensors", "gradient.npz", "--out", "o.npz"),
    ):
        assert said in run(*command)[1].replace("\n", " ")
        record = json.loads(run(*command, "--json")[1])
        assert record.get("verdict", record)["architecture"] == said
    model, x, y = perceptron(6, 40, 3, seed=1).double(), torch.rand(2, 6).double(), torch.tensor([0, 2])
    assert certify(model, batch=(x, y)).architecture == audit(model, (x, y)).verdict.architecture == said
    assert attack(model, autograd(model, x, y)).architecture == said
    pictures = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).double()
    gradient = autograd(pictures, torch.rand(1, 1, 4, 4).double(), torch.tensor([1]))
    found = attack(pictures, gradient, picture_iterations=0)
    assert found.architecture == "pictures 1x4x4; Convolution, Relu, Flatten; head 8-2, one Linear layer"
