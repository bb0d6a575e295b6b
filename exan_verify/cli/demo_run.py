"""The main job on real input: a batch of digits, attacked, audited, certified, checked, and reported.

Two networks, trained and just initialised, get the same 16 real MNIST images. Each gradient comes from an
ordinary autograd call in float64 on the stored float32 weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.api.attack import attack
from exan_verify.api.audit import Audit, audit
from exan_verify.api.check import check
from exan_verify.api.files import save_batch, save_gradient, save_tensors, write_atomically
from exan_verify.api.records import pretty
from exan_verify.core.network import Array
from exan_verify.core.question import Loss, Reduction
from exan_verify.data import MNIST_WIDTHS, initialised_network, load_mnist, to_inputs, trained_network
from exan_verify.errors import FileError
from exan_verify.report import Recovery, Section, render
from exan_verify.report.attack_own_batch import batch_gradient, judged

if TYPE_CHECKING:
    import torch

    from exan_verify.core.certificate import Claim
    from exan_verify.numeric.problem.records import Attack

SIZE = 16
_SIDE = 28
_TITLE = "What a gradient reveals about 16 handwritten digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the demo did with one network, and where it put it. ``seconds`` by step."""

    name: str
    title: str
    note: str
    folder: Path
    x: Array
    y: Array
    audit: Audit
    found: Attack
    recoveries: tuple[Recovery | None, ...]
    claim: Claim | None
    seconds: Mapping[str, float]


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    budget: float | None = None,
    work_limit: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Case, ...], Path]:
    """Run the demo into the folder ``out``; returns the cases, trained first, and the report's path.

    ``out`` holds ``model.safetensors``, ``batch.npz``, ``gradient.safetensors``, ``recovered.npz`` and
    ``certificate.json`` of the trained network; ``out/initialised`` the same of the other.
    """
    _make_folder(out)
    limits = {"seed": seed, "budget": budget, "work_limit": work_limit}
    images, labels = load_mnist()
    chosen = np.random.default_rng(seed).choice(len(images), size=SIZE, replace=False)
    x, y = to_inputs(images[chosen]).reshape(SIZE, _SIDE, _SIDE), labels[chosen]
    progress("training a network on 5000 digits")
    trained = trained_network(MNIST_WIDTHS, seed)
    cases = (
        _run_case(
            "trained",
            "Trained: 784-512-10, 97 % of 5000 digits right",
            "Loss vectors differ by orders of magnitude and hardly any neuron is exclusive to one image.",
            out,
            trained,
            (x, y),
            limits,
            progress,
        ),
        _run_case(
            "initialised",
            "Before training: 784-512-10 at PyTorch's default initialisation",
            "The gradient of the first round, when weights are random.",
            out / "initialised",
            initialised_network(MNIST_WIDTHS, seed),
            (x, y),
            limits,
            progress,
        ),
    )
    report = out / "report.html"
    progress("writing the report")
    write_atomically(report, render(_TITLE, [section(c) for c in cases], commands=commands(out)).encode())
    return cases, report


def commands(out: Path) -> dict[str, str]:
    """What to type to get the trained network's results again, from the files of the demo."""
    model, batch, gradient = out / "model.safetensors", out / "batch.npz", out / "gradient.safetensors"
    certificate = out / "certificate.json"
    return {
        "attack the gradient, and score the result against the batch": (
            f"exan attack {model} {gradient} --truth {batch} --out recovered.npz --sheet sheet.png"
        ),
        "audit the batch": f"exan audit {model} {batch} --report audit.html",
        "decide and certify": f"exan certify {model} --batch {batch} --certificate certificate.json",
        "recheck the certificate": f"exan check {certificate} {model} --batch {batch}",
    }


def section(case: Case) -> Section:
    """A case as a section of the report."""
    checked = "accepted by the independent kernel" if case.claim is not None else "there is none"
    facts = {
        "attack": f"gradient residual {case.found.gradient_residual:.1e}, "
        f"{'complete' if case.found.complete else 'not complete'}, {case.seconds['attack']:.1f} s",
        "certificate": f"{checked}; certified in {case.seconds['audit']:.1f} s, "
        f"checked in {case.seconds['check']:.1f} s",
    }
    return Section(
        title=case.title,
        note=f"{case.note} The gradient is that of one autograd call in float64.",
        inputs=case.x,
        labels=case.audit.classes,
        audit=case.audit,
        recoveries=case.recoveries,
        attack_facts=facts,
        files={"files": str(case.folder)},
    )


def _run_case(
    name: str,
    title: str,
    note: str,
    folder: Path,
    model: torch.nn.Module,
    batch: tuple[Array, Array],
    limits: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Case:
    x, y = batch
    timed = _Timed(name, progress)
    gradient = timed(
        "gradient",
        lambda: batch_gradient(model, x, y, loss=Loss.CROSS_ENTROPY, reduction=Reduction.MEAN),
    )
    _save_inputs(folder, model, batch, gradient)
    found = timed("attack", lambda: attack(model, gradient, seed=limits["seed"]))
    save_batch(folder / "recovered.npz", found.x, found.y)
    audited = timed("audit", lambda: audit(model, (x, y), **limits))
    certificate = audited.verdict.certificate
    if certificate is not None:
        write_atomically(folder / "certificate.json", pretty(certificate))
    claim = timed("check", lambda: certificate and check(certificate, model, batch=(x, y)))
    return Case(
        name=name,
        title=title,
        note=note,
        folder=folder,
        audit=audited,
        found=found,
        recoveries=judged(found, x, y).recoveries,
        claim=claim,
        seconds=timed.seconds,
        x=x,
        y=y,
    )


class _Timed:
    """Runs the steps of one network and keeps their seconds by name."""

    def __init__(self, name: str, progress: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._progress = name, progress

    def __call__(self, step: str, action: Callable[[], Any]) -> Any:
        self._progress(f"{step}, {self._name} network")
        start = time.perf_counter()
        result = action()
        self.seconds[step] = time.perf_counter() - start
        return result


def _save_inputs(
    folder: Path, model: torch.nn.Module, batch: tuple[Array, Array], gradient: Mapping[str, Any]
) -> None:
    _make_folder(folder)
    save_tensors(folder / "model.safetensors", model.state_dict())
    save_batch(folder / "batch.npz", *batch)
    save_gradient(folder / "gradient.safetensors", gradient)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be created ({error.strerror}); give another --out") from None
