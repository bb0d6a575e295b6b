"""Whatever is passed to a public function or a command, it answers or raises an error of ours."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch import nn

from exan_verify import Box, Gradient, ReluNetwork, Step, attack, audit, audit_run, certify, check, mitigate
from exan_verify.api.files import save_batch, save_gradient
from exan_verify.api.records import pretty
from exan_verify.cli import main
from exan_verify.cli.program import COMMANDS
from exan_verify.errors import ExanError

pytestmark = pytest.mark.filterwarnings("ignore")

CAMPAIGN = 20_000
QUIET = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CODES = {0, 1, 2, 3, 130}
"""What a command may end with: 1 only where a gate is hit, a certificate rejected or a claim refuted."""

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**64, -(2**63), 10**40),
    *(0.0, 0.5, -1.0, 1e-9, 1e300, float("inf"), float("nan"), 1j, Fraction(1, 3), Fraction(10**400, 7)),
    *(
        "",
        "auto",
        "mse",
        "hinge",
        "bce",
        "sum",
        "known",
        "real",
        "lift",
        "smt",
        "exact",
        "1e300000000",
        "\x00",
    ),
    *(b"x", (), [], {}, [1, 2], (1, 2, 3), {"x": 1}, object(), object, print, range(3)),
    *(np.int8(3), np.float32(0.5), np.zeros(0), np.zeros((2, 3)), np.ones((2, 3), dtype=complex)),
    *(np.full((2, 3), np.nan), np.array([["1"] * 3] * 2), np.array([[object()] * 3] * 2), np.array(3)),
    *(torch.tensor(1), torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), torch.zeros(2, 3).to_sparse()),
    *(torch.ones(2, dtype=torch.bool), torch.float32, torch.device("cpu"), nn.ReLU(), nn.Linear),
    *(Box(0, 1), Box([0, 0, 0], [1, 1, 2]), Box(Fraction(-1, 3), 10**30)),
]


def network() -> ReluNetwork:
    rng = np.random.default_rng(0)
    weights = [rng.integers(-3, 4, (5, 3)) / 4, rng.integers(-3, 4, (2, 5)) / 4]
    return ReluNetwork.from_arrays(weights, [rng.integers(-3, 4, n) / 8 for n in (5, 2)])


def torch_network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()


NETWORK = network()
X = np.random.default_rng(1).integers(-4, 5, (2, 3)) / 4
TENSORS = {name: np.ones(array.shape) for name, array in NETWORK.parameters()}
CERTIFICATE = certify(NETWORK, batch=(X, [0, 1]), engine="exact").certificate

USUAL: dict[str, list[Any]] = {
    "model": [NETWORK, torch_network(), nn.Conv2d(1, 1, 1), nn.Linear(3, 2), {}, TENSORS, nn.Sequential()],
    "batch": [(X, [0, 1]), (X, [0.0, 1.0]), (X[:1], [0]), (X, np.eye(2)), (X, [[0.5, 2], [1, 1]])],
    "gradient": [TENSORS, list(TENSORS.values()), Gradient(tensors=TENSORS), TENSORS | {"0.bias": None}],
    "certificate": [CERTIFICATE, "{}", b"", {}, "[" * 5000, json.dumps(CERTIFICATE)],
    "loss": ["cross_entropy", "mse", "bce", "hinge"],
    "reduction": ["mean", "sum"],
    "labels": ["one_hot", "known", "real"],
    "engine": ["exact", "lifting", "scale", "families", "residual"],
    "method": ["auto", "lift", "peel", "peel+lift", "assign", "sample", "published"],
    "tolerance": [1e-9, Fraction(1, 1000)],
    "batch_size": [1, 2, 5],
    "budget": [0.3],
    "work_limit": [1, 1000],
    "input_shape": [(1, 1, 3), (1, 3), ("1", 1, 3)],
    "picture_iterations": [0, 1],
    "defences": [["no-bias"], ["project-random:2", "width:2"], ["perturb"], ["average:2"]],
    "pool": [(X[::-1] + 1, [0, 1])],
    "prior": [X + 2, X],
    "pixels": [1, 3],
    "steps": [[(NETWORK, (X, [0, 1]))], [Step(model=NETWORK, batch=(X, [0, 1]), epoch=0)]],
    "step_budget": [0.1],
}
ALWAYS = {"budget": 0.5, "engine": "exact", "picture_iterations": 1, "defences": ["no-bias"]}
"""Given where the function has it and nothing is drawn, so that no draw takes long."""


@st.composite
def calls(draw: st.DrawFn, function: Any) -> dict[str, Any]:
    """Arguments by name: mostly usual ones, a few odd."""
    names = list(inspect.signature(function).parameters)
    odd = draw(st.sets(st.sampled_from(names), max_size=2))
    arguments: dict[str, Any] = {name: ALWAYS[name] for name in names if name in ALWAYS}
    for name in names:
        required = name in ("certificate", "steps") or (name == "model" and function is not audit_run)
        required = required or (name == "gradient" and function is attack)
        if name in odd:
            arguments[name] = draw(st.sampled_from([*ODD, *((v, w) for v in ODD[:60:9] for w in ODD[:60:7])]))
        elif required or (name == "batch" and function in (audit, mitigate)) or draw(st.integers(0, 3)) == 0:
            usual = USUAL.get(name)
            if usual is not None:
                arguments[name] = draw(st.sampled_from(usual))
    if function is certify and "batch" not in arguments and "gradient" not in arguments:
        arguments["batch"] = draw(st.sampled_from(USUAL["batch"]))
    if isinstance(arguments.get("engine"), str) and arguments["engine"] == "smt":
        arguments["work_limit"] = 1000
    return arguments


def asked(function: Any, arguments: dict[str, Any], folder: str) -> str:
    if function is audit_run:
        arguments.setdefault("out", tempfile.mkdtemp(dir=folder))
        if any(arguments.get("jobs") is value for value in (2, 3, 7)):  # processes would take long to start
            del arguments["jobs"]
    try:
        function(**arguments)
    except ExanError as error:
        return type(error).__name__
    return "answered"


def fuzz(function: Any, examples: int, folder: Path) -> Counter[str]:
    counts: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls(function))
    def ask(arguments: dict[str, Any]) -> None:
        counts[asked(function, arguments, str(folder))] += 1

    ask()
    return counts


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a word that is a folder's name makes one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("function", "share"),
    [(attack, 25), (audit, 60), (audit_run, 40), (certify, 120), (check, 120), (mitigate, 40)],
)
def test_odd_arguments(function: Any, share: int, in_folder: Path):
    assert len(fuzz(function, share, in_folder)) > 1


@pytest.mark.campaign
@pytest.mark.parametrize("function", [attack, audit, audit_run, certify, check, mitigate])
def test_many_odd_arguments(function: Any, in_folder: Path):
    print(function.__name__, dict(fuzz(function, CAMPAIGN, in_folder)))


# ---- the command line -------------------------------------------------------------------------------------

WORDS = [
    *("", "0", "1", "-1", "3", "0.5", "1e-9", "nan", "inf", "-inf", "1e300000000", "9" * 400, "1/3", "1/0"),
    *(
        "auto",
        "mse",
        "hinge",
        "known",
        "real",
        "box:0,1",
        "box:1,0",
        "box:0",
        "box:1e300000000,1",
        "categorical",
    ),
    *(
        "cpu",
        "cuda",
        "meta",
        "lift",
        "peel",
        "exact",
        "smt",
        "lifting",
        "determined",
        "1,1,3",
        "a,b",
        "json:x",
    ),
    *("model.safetensors", "batch.npz", "gradient.npz", "exact.json", "certificate.json", "nothing.npz", "."),
    *("os:getcwd", "json:loads", "sys:exit", "made:model", "made:fails", "made:leaves", ":", "a:", "\u2603"),
    *("made.py", "out.npz", "out.json", "out.html", "folder/out.npz", "/dev/null", "\x00", "x" * 300),
]
STARTS = {
    "certify": [
        ["model.safetensors", "--batch", "batch.npz"],
        ["model.safetensors", "--gradient", "gradient.npz", "--tolerance", "1e-9"],
        ["model.safetensors", "--gradient", "exact.json", "--loss", "mse"],
    ],
    "check": [["certificate.json", "model.safetensors", "--batch", "batch.npz"]],
    "audit": [["model.safetensors", "batch.npz"], ["--run", "run.jsonl", "--out", "run"]],
    "mitigate": [["model.safetensors", "batch.npz", "--defence", "no-bias"]],
    "attack": [["model.safetensors", "gradient.npz", "--out", "out.npz"]],
    "export-smt": [["model.safetensors", "--batch", "batch.npz", "--loss", "mse", "--out", "out.smt2"]],
    "smt": [["model.safetensors", "--batch", "batch.npz", "--loss", "mse", "--work-limit", "1000"]],
    "theorems": [["c1", "--no-checks"], ["--table", "markdown"], ["--file", "made.py", "--effort", "1"], []],
}
LIMITS = {"certify": ["--engine", "exact"], "smt": ["--jobs", "1"]}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    save_file({name: np.array(array) for name, array in NETWORK.parameters()}, "model.safetensors")
    save_batch("batch.npz", X, np.array([0, 1]))
    save_gradient("gradient.npz", TENSORS)
    save_gradient("exact.json", {name: value.astype(int) for name, value in TENSORS.items()})
    Path("run.jsonl").write_text('{"model": "model.safetensors", "batch": "batch.npz", "epoch": 1}\n' * 2)
    Path("certificate.json").write_bytes(pretty(CERTIFICATE or {}))
    Path("made.py").write_text(
        "import sys\n"
        "from torch import nn\n"
        "def model(): return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))\n"
        "def fails(): raise RuntimeError('no')\n"
        "def leaves(): sys.exit(0)\n"
    )
    return tmp_path


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command that works, with a few options added and a few words replaced."""
    command = draw(st.sampled_from([c for c in COMMANDS if c.name in STARTS]))
    words = [*draw(st.sampled_from(STARTS[command.name])), *LIMITS.get(command.name, [])]
    options = [p for p in command.params if isinstance(p, click.Option)]
    for option in draw(st.lists(st.sampled_from(options), max_size=3)):
        words.append(draw(st.sampled_from(option.opts)))
        choices = list(getattr(option.type, "choices", ()))
        if not option.is_flag:
            words.append(draw(st.sampled_from(choices if choices and draw(st.booleans()) else WORDS)))
    for _ in range(draw(st.integers(0, 2))):
        if words:
            words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(WORDS))
    # last, so that it holds: no draw takes long
    return [command.name, *words, *(["--budget", "1"] if draw(st.integers(0, 3)) else [])]


def fuzz_commands(examples: int) -> Counter[int]:
    counts: Counter[int] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(lines())
    def ask(line: list[str]) -> None:
        code = main(line)
        counts[code] += 1
        assert code in CODES
        # 1 is an answer: a rejected certificate, a gate that was hit, or a claim that is refuted
        assert code != 1 or line[0] in ("check", "audit", "theorems")

    ask()
    return counts


def test_odd_command_lines(files: Path):
    assert {0, 2} <= set(fuzz_commands(9))


@pytest.mark.campaign
def test_many_odd_command_lines(files: Path):
    print("commands", dict(fuzz_commands(CAMPAIGN // 10)))
