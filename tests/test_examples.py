"""Every example runs as its first lines say, and shows what it is there to show."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exan_verify import Outcome
from exan_verify.data import mnist_batch
from tests.support.torch_reference import perceptron, uniform

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
    "flower_client": (
        "two clients without Flower, action refuse",
        "client 1: refused; 4 of 4 samples proved determined, 0 free; nothing left",
    ),
    "opacus_noise": (
        "gradients made by hand; clipped to 1, 4 samples",
        "clipping without noise, certified: UNIQUE, 4 determined",
        "noise 0: 4 of 4 rebuilt",
        "noise 1: 0 of 4 rebuilt",
        "is not thereby safe",
    ),
    "own_statement": (
        "-1 network: AMBIGUOUS",
        "in a 1-1-1 network: UNIQUE",
        "exclusive-rows: if always, then row j",
        "no counterexample found; this is not a proof",
    ),
}


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.fixture(autouse=True)
def without_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples do by hand, wherever they run."""
    found = importlib.util.find_spec
    gone = ("flwr", "opacus")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name in gone else found(name, *more)
    )
    monkeypatch.setattr("sys.argv", ["example"])


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


@pytest.mark.parametrize(
    ("action", "determined", "free", "seen"),
    [
        ("send", 4, 0, "rebuilds 4 of 4"),
        ("refuse", 4, 0, "nothing left"),
        ("project", 0, 4, "rebuilds 0 of 4"),
    ],
)
def test_what_leaves_a_client(action: str, determined: int, free: int, seen: str):
    example = run_path(str(EXAMPLES / "flower_client.py"))
    model, batch = example["network"](), example["client_batch"](0, 0)
    after = example["step"](model, batch)
    sent, said = example["Guard"](action)(model, batch, after)
    assert (said["determined"], said["free"], said["of"]) == (determined, free, 4)
    assert seen in example["server_sees"](model, sent, batch)
    assert sent.keys() == after.keys()
    moved = {name: sent[name] - before for name, before in model.named_parameters()}
    if action == "project":  # what leaves of the first layer lies in the public directions
        basis = torch.from_numpy(example["public_directions"]())
        outside = moved["0.weight"].T - basis @ torch.linalg.lstsq(basis, moved["0.weight"].T).solution
        assert outside.abs().max() < 1e-9 * moved["0.weight"].abs().max()


def test_what_is_clipped_by_hand_is_what_autograd_has():
    """Without noise, and with a bound that no sample reaches: the gradient itself."""
    example = run_path(str(EXAMPLES / "opacus_noise.py"))
    model = example["network"]()
    images, labels = mnist_batch(3, seed=5)
    x, y = torch.as_tensor(images).double(), torch.as_tensor(labels)
    example["by_hand"].__globals__["CLIP"] = 1e9
    made = example["by_hand"](model, x, y, 0.0)
    example["by_hand"].__globals__["CLIP"] = 1e-3
    clipped = example["by_hand"](model, x, y, 0.0)
    loss = torch.nn.functional.cross_entropy(model(x), y)
    for name, part in zip(made, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        assert torch.allclose(made[name], part, rtol=0, atol=1e-12)
    assert torch.sqrt(sum(one.square().sum() for one in clipped.values())) <= 1.001e-3


def test_the_callback_of_the_page_audits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As Lightning calls it; here with nothing of Lightning's."""
    monkeypatch.setitem(sys.modules, "lightning", SimpleNamespace(Callback=object))
    page = (EXAMPLES.parent / "docs" / "integrations.md").read_text()
    names: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1), names)
    callback = names["Audited"](tmp_path / "audited", every=2)
    module = SimpleNamespace(network=perceptron(6, 24, 3))
    for k in range(4):
        batch = (uniform(2, 6, seed=k), torch.tensor([0, 2]))
        callback.on_train_batch_start(SimpleNamespace(current_epoch=k // 2), module, batch, k % 2)
    callback.on_fit_end(None, module)
    assert [(one.step, one.epoch) for one in callback.found.steps()] == [(0, 0), (2, 1)]


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
