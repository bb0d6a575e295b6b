"""``exan demo``: the main job on real input: a batch of digits attacked, audited, certified and reported.

Two networks, trained and just initialised, get the same 16 real MNIST images. Each gradient comes from an
ordinary autograd call in float64 on the stored float32 weights.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common
from exan_verify.cli.terminal.output import REAL_ARITHMETIC, ExitCode, Output, facts, titled, wall_clock
from exan_verify.errors import FileError

if TYPE_CHECKING:
    import torch

    from exan_verify.api.attack_own_batch import Recovery
    from exan_verify.api.audit import Audit
    from exan_verify.core.certificate import Claim
    from exan_verify.core.network import Array
    from exan_verify.numeric.problem.records import Attack
    from exan_verify.report import Section

SIZE = 16
_SIDE = 28
FILES = ("model.safetensors", "batch.npz")
"""The names of the network's and the batch's files, for the commands that take both."""

_TRAINED = "Loss vectors differ by orders of magnitude and hardly any neuron is exclusive to one image."
_TITLE = "What a gradient reveals about 16 handwritten digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One network of the demo, what is said of it, where its files go, and the batch: inputs (M, 28, 28) and
    classes (M,)."""

    name: str
    title: str
    note: str
    folder: Path
    model: torch.nn.Module
    x: Array
    y: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the demo did with one network. ``seconds`` by step."""

    given: Given
    audit: Audit
    found: Attack
    recoveries: tuple[Recovery | None, ...]
    claim: Claim | None
    seconds: Mapping[str, float]


@click.command("demo")
@click.option(
    "--out", type=PATH, default="demo-report", show_default=True, metavar="DIR", help="Output folder."
)
@common(model=False)
def demo_command(out: str, as_json: bool, **options: Any) -> int:
    """Attack, audit and certify a batch of 16 real handwritten digits, and write a report.

    The gradients come from one ordinary autograd call on a 784-512-10 network: once trained on the digits,
    once freshly initialised. Everything is written into DIR, for you to try the other commands on.
    """
    output = Output(json=as_json)
    with output.working("demo") as progress, wall_clock(options["budget"]):
        cases, report = run_demo(
            Path(out), seed=options["seed"], work_limit=options["work_limit"], progress=progress
        )
    output.answer(
        {
            "schema": "exan/demo/1",
            "networks": [_record(case) for case in cases],
            "report": str(report),
            "statement": REAL_ARITHMETIC,
        }
    )
    for case in cases:
        output.say(titled(case.given.title), facts(_facts(case)), "")
    output.say("Try the other commands on the files in " + out + ":")
    output.say(*(f"  {line}" for line in commands(Path(out)).values()))
    output.say("", REAL_ARITHMETIC, titled("Report:", f" {report}"))
    undecided = any(case.audit.verdict.outcome.value == "unknown" for case in cases)
    return ExitCode.UNDECIDED if undecided else ExitCode.DONE


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    work_limit: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Case, ...], Path]:
    """Run the demo into the folder ``out``; returns the cases, trained first, and the report's path.

    ``out`` holds ``model.safetensors``, ``batch.npz``, ``gradient.safetensors``, ``recovered.npz`` and
    ``certificate.json`` of the trained network; ``out/initialised`` the same of the other.
    """
    import numpy as np

    from exan_verify.api.files import write_atomically
    from exan_verify.data import MNIST_WIDTHS, initialised_network, load_mnist, to_inputs, trained_network
    from exan_verify.report import render

    _make_folder(out)
    images, labels = load_mnist()
    chosen = np.random.default_rng(seed).choice(len(images), size=SIZE, replace=False)
    x, y = to_inputs(images[chosen]).reshape(SIZE, _SIDE, _SIDE), labels[chosen]
    progress("training a network on 5000 digits")
    networks = (
        Given(
            name="trained",
            title="Trained: 784-512-10, 97 % of 5000 digits right",
            note=_TRAINED,
            folder=out,
            model=trained_network(MNIST_WIDTHS, seed),
            x=x,
            y=y,
        ),
        Given(
            name="initialised",
            title="Before training: 784-512-10 at PyTorch's default initialisation",
            note="The gradient of the first round, when weights are random.",
            folder=out / "initialised",
            model=initialised_network(MNIST_WIDTHS, seed),
            x=x,
            y=y,
        ),
    )
    cases = tuple(_run_case(given, seed, work_limit, progress) for given in networks)
    report = out / "report.html"
    progress("writing the report")
    html = render(_TITLE, [_section(case) for case in cases], commands=commands(out))
    write_atomically(report, html.encode())
    return cases, report


def _run_case(given: Given, seed: int, work_limit: int | None, progress: Callable[[str], None]) -> Case:
    from exan_verify.api.attack import attack
    from exan_verify.api.attack_own_batch import batch_gradient, scored
    from exan_verify.api.audit import audit
    from exan_verify.api.check import check
    from exan_verify.api.files import save_batch, save_gradient, save_tensors, write_atomically
    from exan_verify.api.records import pretty
    from exan_verify.core.question import Loss, Question

    model, x, y, folder = given.model, given.x, given.y, given.folder
    timed = _Timed(given.name, progress)
    gradient = timed("gradient", lambda: batch_gradient(model, x, y, Question(loss=Loss.CROSS_ENTROPY)))
    _make_folder(folder)
    save_tensors(folder / "model.safetensors", model.state_dict())
    save_batch(folder / "batch.npz", x, y)
    save_gradient(folder / "gradient.safetensors", gradient)
    found = timed("attack", lambda: attack(model, gradient, seed=seed))
    save_batch(folder / "recovered.npz", found.x, found.y)
    audited = timed("audit", lambda: audit(model, (x, y), seed=seed, work_limit=work_limit))
    certificate = audited.verdict.certificate
    if certificate is not None:
        write_atomically(folder / "certificate.json", pretty(certificate))
    claim = timed("check", lambda: certificate and check(certificate, model, batch=(x, y)))
    return Case(
        given=given,
        audit=audited,
        found=found,
        recoveries=scored(found, x, y).recoveries,
        claim=claim,
        seconds=timed.seconds,
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be created ({error.strerror}); give another --out") from None


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


def _section(case: Case) -> Section:
    """A case as a section of the report."""
    from exan_verify.report import Section

    checked = "accepted by the independent kernel" if case.claim is not None else "there is none"
    facts = {
        "attack": f"gradient residual {case.found.gradient_residual:.1e}, "
        f"{'complete' if case.found.complete else 'not complete'}, {case.seconds['attack']:.1f} s",
        "certificate": f"{checked}; certified in {case.seconds['audit']:.1f} s, "
        f"checked in {case.seconds['check']:.1f} s",
    }
    return Section(
        title=case.given.title,
        note=f"{case.given.note} The gradient is that of one autograd call in float64.",
        inputs=case.given.x,
        labels=case.audit.classes,
        audit=case.audit,
        recoveries=case.recoveries,
        attack_facts=facts,
        files={"files": str(case.given.folder)},
        remedy=shlex.join(["exan", "mitigate", *(str(case.given.folder / name) for name in FILES)]),
    )


def _facts(case: Case) -> dict[str, str]:
    """What was found with one network, a line each."""
    audit, found, size = case.audit, case.found, case.audit.batch_size
    recovered = [r for r in case.recoveries if r is not None]
    right = sum(
        r.label == int(y) for r, y in zip(case.recoveries, case.given.y, strict=True) if r is not None
    )
    worst = f", worst RMSE {max(r.rmse for r in recovered):.1e}" if recovered else ""
    exclusivity = "not known: the budget ran out"
    if (state := audit.exclusivity) is not None:
        exclusive = sum(any(layer[m] for layer in state.counts) for m in range(size))
        published = "holds" if state.published else "does not hold"
        exclusivity = (
            f"{exclusive} of {size} images have an exclusive neuron; {sum(state.peelable)} can be "
            f"peeled; the published condition {published}"
        )
    accepted = "accepted by the independent kernel" if case.claim is not None else "none"
    verdict = audit.verdict
    return {
        "attack": f"{len(recovered)} of {size} images and {right} labels rebuilt from the gradient alone"
        f"{worst}, {found.seconds:.1f} s",
        "exclusivity": exclusivity,
        "certified": f"{verdict.outcome.value.upper()}, {verdict.determined} of {size} images determined, "
        f"{case.seconds['audit']:.1f} s",
        "reason": verdict.reason,
        "certificate": f"{accepted}, {case.seconds['check']:.1f} s",
        "files": str(case.given.folder),
    }


def _record(case: Case) -> dict[str, Any]:
    """One network's results for ``--json``; certificates are in the files."""
    from exan_verify.api.records import attack_record

    audit = case.audit.to_record()
    audit["verdict"].pop("certificate")
    return {
        "name": case.given.name,
        "folder": str(case.given.folder),
        "attack": attack_record(case.found, None),
        "rmse": [None if r is None else r.rmse for r in case.recoveries],
        "audit": audit,
        "certificate_accepted": case.claim is not None,
        "seconds": case.seconds,
    }
