"""Command lines that print and write objects of every schema, on small files of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exan_verify.api.files import save_batch, save_gradient, save_tensors
from exan_verify.api.releases import save_release
from exan_verify.cli import main
from exan_verify.core.question import Loss, Release
from exan_verify.exact.backprop import gradient
from exan_verify.instances import instance
from exan_verify.testing import snapshots
from exan_verify.testing.laws.law import Case, to_record
from tests.support.run_cases import write_run
from tests.support.torch_reference import autograd, perceptron

Record = dict[str, Any]

CLAIMS = """
from exan_verify.theorems import Claim, Sizes, unique


def two_samples(s):
    "there are two samples"
    return s.samples == 2


SMALL = Sizes(inputs=(1, 1), hidden=((1, 1),), logits=(1, 1), samples=(1, 2))
ALWAYS_UNIQUE = Claim("always-unique", hypotheses=[two_samples], conclusion=unique, sizes=SMALL)
"""

MODULE = """
import numpy as np
import torch
from torch import nn


def network(width=24):
    return filled(nn.Sequential(nn.Flatten(), nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)))


def pictures():
    return filled(nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)))


def filled(model):
    rng = np.random.default_rng(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=tuple(parameter.shape))))
    return model.double()
"""

QUICK = (
    "show model.safetensors nowhere.safetensors",
    "certify model.safetensors --batch batch.npz --certificate certificate.json",
    "certify model.safetensors --batch twins.npz",
    "certify model.safetensors --batch batch.npz --work-limit 1",
    "certify model.safetensors --batch batch.npz --release release.json --domain box:-9,9",
    "certify tiny.safetensors --gradient gradient.json --loss mse --reduction sum",
    "certify model.safetensors --gradient rounded.npz --tolerance 1e-6 --batch-size 2",
    "check certificate.json model.safetensors --batch batch.npz",
    "check certificate.json model.safetensors --batch twins.npz",
    "prove certificate.json model.safetensors --batch batch.npz --out claim.v",
    "attack model.safetensors rounded.npz --out found.npz --truth batch.npz",
    "attack model.safetensors last.npz --out found.npz --partial",
    "audit model.safetensors batch.npz --attack --fail-on recovered",
    "audit model.safetensors twins.npz --release release.json",
    "audit --run run/manifest.jsonl --out audited --attack",
    "sweep made_for_outputs:network --data data.npz --over batch --values 2 --repeat 1 --batch-size 2",
    "mitigate model.safetensors batch.npz --defence help",
    "mitigate model.safetensors batch.npz --defence project-dct:2 --pixels 3 --no-accuracy",
    "smt tiny.safetensors --batch tiny.npz --loss mse",
    "export-smt tiny.safetensors --batch tiny.npz --loss mse --out question.smt2",
    "theorems",
    "theorems b1-scale --no-checks",
    "theorems --table markdown",
    "bench --list",
    "campaign --list",
    "campaign --replay case.json",
    "audit nowhere.safetensors batch.npz",
)
"""Together a few seconds."""

SLOW = (
    "audit made_for_outputs:pictures pictures.npz --budget 60",
    "compare model.safetensors batch.npz --method auto --method published",
    "theorems P2",
    "theorems --file claims.py --effort 2",
    "bench peeling --case 'peel, float64' --repeat 1",
    "campaign --instances 1 --laws stopping-sets --out campaign",
    "demo --out demo",
)


WRITTEN = (
    "audited/run.json",
    "audited/summary.json",
    "audited/steps.jsonl",
    "campaign/campaign.json",
    "case.json",
    "certificate.json",
    "gradient.json",
    "release.json",
    "snapshot.json",
)
"""Files that the commands above and :func:`write_files` leave."""


def write_files(folder: Path) -> None:
    """What the commands above read, and the files that no command writes."""
    rng = np.random.default_rng(11)
    model = perceptron(6, 24, 3)
    x, y = torch.tensor(rng.random((2, 6))), torch.tensor([0, 2])
    save_tensors(folder / "model.safetensors", model.state_dict())
    save_batch(folder / "batch.npz", x, y)
    save_batch(folder / "twins.npz", x[[0, 0]], y[[0, 0]])
    save_batch(folder / "data.npz", rng.random((40, 6)), rng.integers(0, 3, 40))
    rows = [True] * 20 + [False] * 4
    save_release(folder / "release.json", Release(rows={"0.weight": rows, "0.bias": rows}))
    rounded = autograd(model, x, y)
    save_tensors(folder / "rounded.npz", rounded)
    save_tensors(folder / "last.npz", {name: rounded[name] for name in list(rounded)[2:]})
    write_run(folder / "run", 2)
    save_batch(folder / "pictures.npz", rng.random((1, 1, 4, 4)), [1])

    tiny = instance("plain", Loss.MSE, True, 0)
    numbers = {name: array.astype(float) for name, array in tiny.network.parameters()}
    save_tensors(folder / "tiny.safetensors", numbers)
    save_batch(folder / "tiny.npz", tiny.batch.inputs.astype(float), tiny.batch.labels.astype(float))
    exact = gradient(tiny.network, tiny.batch, tiny.loss, tiny.reduction)
    save_gradient(folder / "gradient.json", exact.tensors)

    case = to_record("stopping-sets", Case(question=tiny), "an example")
    (folder / "case.json").write_text(json.dumps(case))
    snapshots.write(folder / "snapshot.json", model, (x, y))
    (folder / "claims.py").write_text(CLAIMS)
    (folder / "made_for_outputs.py").write_text(MODULE)


def printed(folder: Path, commands: tuple[str, ...]) -> Iterator[tuple[str, Record]]:
    """Each object that the commands print or leave in files, and by which command or file."""
    write_files(folder)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.delitem(sys.modules, "made_for_outputs", raising=False)
        for command in commands:
            out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                main([*shlex.split(command), "--json"])
            lines = [*out.buffer.getvalue().decode().splitlines(), *err.getvalue().splitlines()]
            yield from ((command, json.loads(line)) for line in lines if line.startswith("{"))
        for name in filter(os.path.exists, WRITTEN):
            text = Path(name).read_text()
            lines = text.splitlines() if name.endswith(".jsonl") else [text]
            yield from ((name, json.loads(line)) for line in lines)
