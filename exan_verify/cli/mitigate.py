"""``exan mitigate``: what to do about a leak, each defence with its proof, its attack and its price."""

from __future__ import annotations

import math
import shlex
import textwrap
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common, question
from exan_verify.cli.terminal.output import (
    REAL_ARITHMETIC,
    ExitCode,
    Output,
    noted,
    require_folder,
    table,
    titled,
)

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.mitigation.report import Finding, MitigationReport

_WIDTH = 80
"""The table fits into a terminal that nobody has widened."""

_EXACT = 100.0
"""PSNR in dB above which a picture is called exact: errors of 1e-5 of the range."""

COLUMNS = {
    "defence": "",
    "ExANs ": "exclusive neurons among the rows that are sent",
    "proved": "of the samples, given what is sent: UNIQUE, AMBIGUOUS, or nothing",
    "attack ": "samples that the attack shows recognisably (20 dB or more), of all",
    "dB ": "what the attack shows of a sample, PSNR, median",
    "hidden ": "dimensions of the batch that are hidden, at least",
    "reach ": "interval that a pixel can take, median",
    "LMMSE ": "PSNR of the linear estimate from public data, median",
    "acc. ": "accuracy on held-out samples after training with it, median of three seeds",
}
"""Headings of the table, numbers with a space at the end, and what each means."""


@click.command("mitigate")
@click.argument("model", type=PATH)
@click.argument("batch", type=PATH)
@question()
@click.option(
    "--defence",
    "defences",
    multiple=True,
    metavar="NAME[:PARAMETER]",
    help="A defence to try, such as project-pca:16; may be repeated. Default: ten of them. "
    "--defence help lists all.",
)
@click.option("--pool", type=PATH, metavar="FILE", help="More samples of the same client: x and y.")
@click.option(
    "--prior",
    type=PATH,
    metavar="FILE",
    help="Public samples: x. Not the batch's. Default: embedded digits where the shape fits.",
)
@click.option(
    "--train",
    type=PATH,
    metavar="FILE",
    help="Samples to measure the cost in accuracy on: x and y. Default: embedded digits where they fit.",
)
@click.option("--no-accuracy", is_flag=True, help="Train nothing.")
@click.option(
    "--pixels",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Pixels per sample whose reach is computed, drawn by the seed; as many as there are: all.",
)
@click.option("--report", type=PATH, metavar="FILE.html", help="Write a self-contained HTML report.")
@common()
def mitigate_command(
    model: str,
    batch: str,
    defences: tuple[str, ...],
    pool: str | None,
    prior: str | None,
    train: str | None,
    no_accuracy: bool,
    report: str | None,
    **options: Any,
) -> int:
    """Say what protects the samples of a batch, what does not, and what it costs.

    MODEL is an .onnx or .safetensors file, or a factory package.module:name; BATCH has x and y, in .npz or
    .safetensors. Every defence is applied to this batch; what is then proved about the samples, what the
    attack gets, how much stays hidden, and the accuracy after training with the defence are in one table.
    """
    from exan_verify.api.files import ABOUT_DATA, about, load_batch, load_model

    output = Output(json=options.pop("as_json"), width=_WIDTH)
    if "help" in defences:
        output.answer({"schema": "exan/defences/1", "defences": _names()})
        output.say(*(f"{name:<18} {meaning}" for name, meaning in _names().items()))
        return ExitCode.DONE
    require_folder(report)
    network = load_model(model, options.pop("weights"))
    given: dict[str, Any] = {}
    if pool is not None:
        given["pool"] = load_batch(pool)
    if train is not None:
        given["train"] = load_batch(train)
    if prior is not None:
        given["prior"] = _inputs(prior)
    x, y = load_batch(batch)
    with output.working("mitigating") as tell, about(batch, *ABOUT_DATA):
        from exan_verify.mitigation.mitigate import mitigate

        found = mitigate(
            network,
            (x, y),
            list(defences) or None,
            accuracies=not no_accuracy,
            progress=tell,
            **given,
            **options,
        )
    if report is not None:
        _write(report, found, batch, _again(model, batch, found, pool=pool, prior=prior, train=train))
    output.answer(found.to_record() | {"statement": REAL_ARITHMETIC, "report": report})
    output.say(*describe(found, width=min(_WIDTH, output.width)))
    if report is not None:
        output.say(f"report: {report}")
    return ExitCode.DONE


def _write(report: str, found: MitigationReport, batch: str, again: str) -> None:
    from exan_verify.api.files import write_atomically
    from exan_verify.report.defences import render_defences

    html = render_defences(f"What protects {batch}", found, commands={"this table": again})
    write_atomically(report, html.encode())


def _again(model: str, batch: str, found: MitigationReport, **files: str | None) -> str:
    line = ["exan", "mitigate", model, batch, "--loss", found.question.loss.value]
    line += ["--reduction", found.question.reduction.value, "--seed", str(found.seed)]
    for name, path in files.items():
        line += [] if path is None else [f"--{name}", path]
    for one in found.defences:
        line += ["--defence", one.name]
    return shlex.join(line)


def _names() -> dict[str, str]:
    from exan_verify.mitigation.defences import NAMES

    return dict(NAMES)


def _inputs(path: str) -> Any:
    from exan_verify.api.files import load_tensors
    from exan_verify.errors import FileError

    tensors = load_tensors(path)
    if "x" not in tensors:
        raise FileError(f"{path}: there is no array 'x'; store the public samples as 'x'")
    return tensors["x"]


def describe(found: MitigationReport, *, width: int = _WIDTH) -> list[Any]:
    """The table, what was left out, what does nothing, and what is recommended; at most ``width`` columns."""

    def wrapped(lines: Any) -> list[str]:
        return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]

    shown = _table([found.before, *found.defences])
    lines: list[Any] = [shown, ""]
    lines += wrapped(f"{heading.strip()}: {meaning}" for heading, meaning in COLUMNS.items() if meaning)
    lines.append("")
    for one in found.defences:
        lines += wrapped(_extra(one, found))
    lines += wrapped(f"{name} was left out: {reason}" for name, reason in found.left_out.items())
    if found.useless:
        lines += wrapped([f"Kept nothing back: {', '.join(found.useless)}."])
    lines += ["", titled("Recommendation")]
    lines += wrapped([found.recommendation])
    return [*lines, *noted(found.notes), "", *wrapped([REAL_ARITHMETIC])]


def _table(findings: list[Finding]) -> Table:
    made = table(*COLUMNS)
    made.padding = (0, 1, 0, 0)
    for one in findings:
        protection, gained, size = one.protection, one.attack, len(one.samples)
        reach = protection.reach
        made.add_row(
            one.name,
            str(one.exclusivity.total),
            one.outcome,
            f"{gained.readable}/{size}",
            decibels(gained.psnr),
            "-" if protection.hidden is None else str(protection.hidden),
            "-" if reach is None else f"{reach.interval[0]:.2f}",
            decibels(protection.psnr),
            "-" if one.cost.accuracy is None else f"{one.cost.accuracy:.3f}",
        )
    return made


def decibels(value: float | None) -> str:
    """A PSNR for a table: ``exact`` where nothing can be told from the original, ``-`` without one."""
    if value is None:
        return "-"
    return "exact" if math.isinf(value) or value > _EXACT else f"{value:.1f}"


def _extra(one: Finding, found: MitigationReport) -> list[str]:
    """What the table has no column for, where there is anything."""
    said = []
    cost, reach = one.cost, one.protection.reach
    if cost.epsilon is not None:
        run = ""
        if cost.epsilon_run is not None:
            run = f", {cost.epsilon_run:.2f} for the training run by {found.accountant}"
        said.append(
            f"{one.name}: epsilon {cost.epsilon:.2f} for one release (exact for Gaussian noise)"
            f"{run}, at delta {found.delta:g}"
        )
    if reach is not None:
        said.append(
            f"{one.name}: inside {reach.domain} a pixel's interval is {reach.interval[0]:.2f} wide (median; "
            f"least {reach.interval[1]:.2f}), the farthest input with the same release is "
            f"{reach.farthest[0]:.2f} away (L-infinity; least {reach.farthest[1]:.2f})"
        )
    if one.attack.enters:
        said.append(
            f"{one.name}: the attack recovers {one.attack.recovered} of {one.exclusivity.samples} "
            f"{one.attack.enters}"
        )
    said += [
        f"{one.name}: {name}: {value:.2g}" for name, value in one.facts.items() if isinstance(value, float)
    ]
    return said
