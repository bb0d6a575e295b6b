"""``exan audit``: four separate answers about one's own batch, a report, and gates for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.options import PATH, common, question
from exan_verify.cli.output import REAL_ARITHMETIC, ExitCode, Output, facts, require_folder, table

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.auditing import Audit
    from exan_verify.network import Array

GATES = ("determined", "peel", "exan")
_LABEL = 24


@click.command("audit")
@click.argument("model", type=PATH)
@click.argument("batch", type=PATH)
@question()
@click.option("--report", type=PATH, metavar="FILE.html", help="Write a self-contained HTML report.")
@click.option(
    "--fail-on",
    type=click.Choice(GATES),
    multiple=True,
    help="Exit with 1 if any sample is proved determined, can be peeled, or meets the published condition.",
)
@common()
def audit_command(
    model: str, batch: str, report: str | None, fail_on: tuple[str, ...], **options: Any
) -> int:
    """Report what the gradient of a batch gives away, by four arguments kept apart.

    MODEL is an .onnx or .safetensors file, or a factory package.module:name; BATCH has x and y, in .npz or
    .safetensors. Exit codes: 1 a gate was hit, 3 a gate (or, without gates, the verdict) is undecided.
    """
    output = Output(json=options.pop("as_json"))
    require_folder(report)
    with output.working("auditing"):
        found, inputs = _audit(model, batch, options)
    if report is not None:
        _write_report(report, model, batch, found, inputs)
    gates = {gate: gate_state(found, gate) for gate in fail_on}
    output.answer(found.to_record() | {"gates": gates, "report": report, "statement": REAL_ARITHMETIC})
    output.say(*describe(found))
    output.say(*(f"gate {gate}: {state}" for gate, state in gates.items()))
    if report is not None:
        output.say(f"report: {report}")
    return exit_code(found, gates)


def gate_state(found: Audit, gate: str) -> str:
    """``hit``, ``passed`` or ``undecided``: one sample is enough to hit a gate, only a proof passes it."""
    if gate == "peel":
        return "hit" if any(found.peelable) else "passed"
    if gate == "exan":
        return "hit" if any(found.exclusivity.published_by_sample) else "passed"
    statuses = {status.value for status in found.verdict.samples}
    if "determined" in statuses:
        return "hit"
    return "undecided" if "unknown" in statuses else "passed"


def exit_code(found: Audit, gates: dict[str, str]) -> int:
    """1 if a gate is hit; 3 if one is undecided, or without gates the verdict; else 0."""
    if "hit" in gates.values():
        return ExitCode.REFUSED
    undecided = "undecided" in gates.values() if gates else found.verdict.outcome.value == "unknown"
    return ExitCode.UNDECIDED if undecided else ExitCode.DONE


def describe(found: Audit) -> list[Any]:
    """The four answers and the table of samples."""
    size, state, verdict = found.size, found.exclusivity, found.verdict
    known = [radius for radius in found.radius if radius is not None]
    whole = "holds" if found.published else "does not hold"
    outcome, fixed = verdict.outcome.value.upper(), sum(r == 0 for r in known)
    rows = {
        "published ExAN condition": f"{sum(state.published_by_sample)} of {size} samples "
        f"({whole} for the batch)",
        "peeling closure": f"{sum(found.peelable)} of {size} samples",
        "certified verdict": f"{outcome}, {verdict.determined} of {size} samples determined",
        "ambiguity radius": f"{fixed} samples cannot move, {len(known) - fixed} can (bounds below), "
        f"{size - len(known)} not decided",
        "reason": verdict.reason,
    }
    return [facts(rows), "", _samples(found), "", REAL_ARITHMETIC]


def _samples(found: Audit) -> Table:
    state = found.exclusivity
    layers = [f"ExANs {k + 1} " for k in range(len(state.counts))]
    made = table("sample ", "label", *layers, "published", "peelable", "certified", "radius ")
    for m, status in enumerate(found.verdict.samples):
        radius = found.radius[m]
        made.add_row(
            str(m),
            _short(str(found.classes[m])),
            *(str(layer[m]) for layer in state.counts),
            "yes" if state.published_by_sample[m] else "no",
            "yes" if found.peelable[m] else "no",
            status.value,
            "not decided" if radius is None else f"{radius:g}",
        )
    return made


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 3]}..."


def _audit(model: str, batch: str, options: dict[str, Any]) -> tuple[Audit, Array]:
    from exan_verify.auditing import audit
    from exan_verify.io import ABOUT_DATA, about, load_batch, load_model

    network = load_model(model, options.pop("weights"))
    x, y = load_batch(batch)
    with about(batch, *ABOUT_DATA):
        return audit(network, (x, y), **options), x


def _write_report(report: str, model: str, batch: str, found: Audit, inputs: Array) -> None:
    from exan_verify.io import write_atomically
    from exan_verify.report import Section, render

    section = Section(
        title=f"Audit of {batch}", audit=found, inputs=inputs, files={"model": model, "batch": batch}
    )
    commands = {"the certified verdict, with a certificate": _again(model, batch, found)}
    html = render("What this gradient reveals about its batch", [section], commands=commands)
    write_atomically(report, html.encode())


def _again(model: str, batch: str, found: Audit) -> str:
    import shlex

    from exan_verify.network import to_fraction

    line = ["exan", "certify", model, "--batch", batch, "--loss", found.loss.value]
    line += ["--reduction", found.reduction.value, "--labels", found.labels.value]
    if found.domain is not None:
        line += ["--domain", f"box:{to_fraction(found.domain.lo[0])},{to_fraction(found.domain.hi[0])}"]
    return shlex.join([*line, "--certificate", "certificate.json"])
