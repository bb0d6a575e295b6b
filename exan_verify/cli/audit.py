"""``exan audit``: four separate answers about one's own batch, a report, and gates for CI."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.options import PATH, common, question
from exan_verify.cli.output import (
    REAL_ARITHMETIC,
    ExitCode,
    Output,
    facts,
    noted,
    require_folder,
    table,
    wall_clock,
)
from exan_verify.cli.pictures import picture_facts
from exan_verify.errors import BudgetExhausted, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.api.attack_own_batch import OwnBatchAttack
    from exan_verify.api.audit import Audit
    from exan_verify.core.network import Array, ReluNetwork
    from exan_verify.report import Section

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
    .safetensors. With --report the gradient is attacked too, and the report shows what came back. Models
    with convolutions are attacked only: nothing is proved about them. Exit codes: 1 a gate was hit, 3 a gate
    (or, without gates, the verdict) is undecided.
    """
    from exan_verify.api.attack import with_convolutions
    from exan_verify.api.files import load_any_model, load_batch

    output = Output(json=options.pop("as_json"))
    require_folder(report)
    subject = load_any_model(model, options.pop("weights"))
    x, y = load_batch(batch)
    files = {"model": model, "batch": batch}
    if with_convolutions(subject):
        return _pictures(output, subject, (x, y), report, fail_on, options, files)
    with output.working("auditing") as tell:
        start = time.monotonic()
        told = options | {"progress": lambda what, share: tell(f"{what} ({share:.0%})")}
        found, network = _audit(subject, (x, y), told, files)
        attack = None
        if report is not None:
            left = time_left(options["budget"], start)
            attack = _attack_beside(network, (x, y), found, seed=options["seed"], left=left, tell=tell)
            _write(report, section(f"Audit of {batch}", x, found.classes, found, attack, files), found)
    gates = {gate: gate_state(found, gate) for gate in fail_on}
    record = found.to_record() | {"gates": gates, "report": report, "attack": own_attack_record(attack)}
    output.answer(record | {"statement": REAL_ARITHMETIC})
    output.say(*describe(found, {} if attack is None else attack_facts(attack)))
    _close(output, gates, report)
    return exit_code(found.verdict.outcome.value, gates)


def _pictures(
    output: Output,
    model: Any,
    batch: tuple[Array, Array],
    report: str | None,
    fail_on: tuple[str, ...],
    options: dict[str, Any],
    files: dict[str, str],
) -> int:
    """Audit a model with convolutions: by the attack alone, so that nothing is ever decided."""
    from exan_verify.api.attack_own_batch import attack_own_batch
    from exan_verify.api.files import ABOUT_DATA, about
    from exan_verify.core.question import Question
    from exan_verify.report.content import NO_AUDIT

    asked = Question.of(options["loss"], options["reduction"], options["labels"])
    with (
        output.working("attacking") as tell,
        about(files["batch"], *ABOUT_DATA),
        wall_clock(options["budget"]),
    ):
        attack = attack_own_batch(model, *batch, asked, seed=options["seed"], progress=_told(tell))
    if report is not None:
        labels = tuple(batch[1].tolist())
        _write(report, section(f"Audit of {files['batch']}", batch[0], labels, None, attack, files), None)
    gates = dict.fromkeys(fail_on, "undecided")
    record = {"schema": "exan/audit-attack/1", "outcome": "unknown", "reason": NO_AUDIT, "gates": gates}
    output.answer(record | {"report": report, "attack": own_attack_record(attack)})
    output.say(facts(attack_facts(attack) | {"certified verdict": f"UNKNOWN: {NO_AUDIT}"}))
    _close(output, gates, report)
    return exit_code("unknown", gates)


def _attack_beside(
    network: ReluNetwork,
    batch: tuple[Array, Array],
    found: Audit,
    *,
    seed: int,
    left: float | None,
    tell: Callable[[str], None],
) -> OwnBatchAttack | str:
    """The attack on an audited batch, within the ``left`` seconds of the budget; else why there is none."""
    from exan_verify.api.attack_own_batch import attack_own_batch

    if left is not None and left <= 0:
        return "not tried: the audit took the whole budget"
    try:
        with wall_clock(left):
            return attack_own_batch(network, *batch, found.question, seed=seed, progress=_told(tell))
    except BudgetExhausted:
        return "not finished: the budget ran out"
    except InputError as error:  # an audit has more that it applies to than the attack
        return f"not possible: {error}"


def _told(tell: Callable[[str], None]) -> Callable[[str, float], None]:
    return lambda what, share: tell(f"attack: {what} ({share:.0%})")


def section(
    title: str,
    x: Array,
    labels: tuple[Any, ...],
    audit: Audit | None,
    attack: OwnBatchAttack | str,
    files: dict[str, str],
) -> Section:
    """A section of the report: the audit, where there is one, beside the attack."""
    from exan_verify.report import Section

    shown = Section(
        title=title, inputs=x, labels=labels, audit=audit, attack_facts=attack_facts(attack), files=files
    )
    if isinstance(attack, str):
        return shown
    return replace(
        shown,
        note="The attack was given the model, the float64 gradient of this batch and its size, nothing else.",
        recoveries=attack.recoveries,
        candidates=attack.candidates,
        features=attack.features,
        estimates=attack.estimates,
    )


def attack_facts(attack: OwnBatchAttack | str) -> dict[str, str]:
    """What the attack came to, a line each."""
    if isinstance(attack, str):
        return {"attack": attack}
    found = attack.found
    claimed = sum(r is not None for r in attack.recoveries)
    errors = [r.rmse for r in attack.recoveries if r is not None]
    worst = f", largest RMSE {max(errors):.1e}" if errors else ""
    lines = {"attack": f"{claimed} of {len(attack.recoveries)} samples recovered by {found.method}{worst}, "}
    lines["attack"] += f"{found.seconds:.1f} s"
    readable = sum(one is not None and one.readable for one in attack.candidates)
    if readable:
        lines["candidates"] = f"{readable} more samples can be recognised among the candidates"
    lines |= picture_facts(found)
    reasons = {"left open": found.reason, "hint": found.hint}
    return lines | {name: text for name, text in reasons.items() if text}


def own_attack_record(attack: OwnBatchAttack | str | None) -> dict[str, Any] | None:
    """The attack for ``--json``; None where there was none."""
    if attack is None or isinstance(attack, str):
        return None
    from exan_verify.api.records import attack_record

    return attack_record(attack.found, attack.score)


def time_left(budget: float | None, start: float) -> float | None:
    """Seconds of ``budget`` that are left since ``start`` (:func:`time.monotonic`)."""
    return None if budget is None else budget - (time.monotonic() - start)


def _close(output: Output, gates: dict[str, str], report: str | None) -> None:
    output.say(*(f"gate {gate}: {state}" for gate, state in gates.items()))
    if report is not None:
        output.say(f"report: {report}")


def gate_state(found: Audit, gate: str) -> str:
    """``hit``, ``passed`` or ``undecided``: one sample is enough to hit a gate, only a proof passes it."""
    if gate in ("peel", "exan"):
        state = found.exclusivity
        if state is None:
            return "undecided"
        return "hit" if any(state.peelable if gate == "peel" else state.published_by_sample) else "passed"
    statuses = {status.value for status in found.verdict.samples}
    if "determined" in statuses:
        return "hit"
    return "undecided" if "unknown" in statuses else "passed"


def exit_code(outcome: str, gates: dict[str, str]) -> int:
    """1 if a gate is hit; 3 if one is undecided, or without gates the verdict; else 0."""
    if "hit" in gates.values():
        return ExitCode.REFUSED
    undecided = "undecided" in gates.values() if gates else outcome == "unknown"
    return ExitCode.UNDECIDED if undecided else ExitCode.DONE


def describe(found: Audit, attack: dict[str, str]) -> list[Any]:
    """The four answers, what the attack came to if there was one, and the table of samples."""
    size, state, verdict = found.size, found.exclusivity, found.verdict
    published = peelable = "not known: the budget ran out"
    if state is not None:
        whole = "holds" if state.published else "does not hold"
        published = f"{sum(state.published_by_sample)} of {size} samples ({whole} for the batch)"
        peelable = f"{sum(state.peelable)} of {size} samples"
    known = [radius for radius in found.radius if radius is not None]
    outcome, fixed = verdict.outcome.value.upper(), sum(r == 0 for r in known)
    rows = {
        "published ExAN condition": published,
        "peeling closure": peelable,
        "certified verdict": f"{outcome}, {verdict.determined} of {size} samples determined",
        "ambiguity radius": f"{fixed} samples cannot move, {len(known) - fixed} can (bounds below), "
        f"{size - len(known)} not decided",
        "reason": verdict.reason,
        **attack,
    }
    return [facts(rows), *noted(found.notes), "", _samples(found), "", REAL_ARITHMETIC]


def _samples(found: Audit) -> Table:
    state = found.exclusivity
    counts = () if state is None else state.counts
    layers = [f"ExANs {k + 1} " for k in range(len(counts))]
    made = table("sample ", "label", *layers, "published", "peelable", "certified", "radius ")
    for m, status in enumerate(found.verdict.samples):
        radius = found.radius[m]
        made.add_row(
            str(m),
            _short(str(found.classes[m])),
            *(str(layer[m]) for layer in counts),
            "-" if state is None else "yes" if state.published_by_sample[m] else "no",
            "-" if state is None else "yes" if state.peelable[m] else "no",
            status.value,
            "not decided" if radius is None else f"{radius:g}",
        )
    return made


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else f"{label[: _LABEL - 3]}..."


def _audit(
    model: Any, batch: tuple[Array, Array], options: dict[str, Any], files: dict[str, str]
) -> tuple[Audit, ReluNetwork]:
    from exan_verify.api.audit import audit
    from exan_verify.api.files import ABOUT_DATA, about
    from exan_verify.models.chain import to_network

    with about(files["model"]):
        network = to_network(model)
    with about(files["batch"], *ABOUT_DATA):
        return audit(network, batch, **options), network


def _write(report: str, shown: Section, found: Audit | None) -> None:
    from exan_verify.api.files import write_atomically
    from exan_verify.report import render

    model, batch = shown.files["model"], shown.files["batch"]
    commands = {}
    if found is not None:
        commands["the certified verdict, with a certificate"] = _again(model, batch, found)
    html = render("What this gradient reveals about its batch", [shown], commands=commands)
    write_atomically(report, html.encode())


def _again(model: str, batch: str, found: Audit) -> str:
    import shlex

    from exan_verify.core.network import to_fraction

    line = ["exan", "certify", model, "--batch", batch, "--loss", found.loss.value]
    line += ["--reduction", found.reduction.value, "--labels", found.labels.value]
    if found.domain is not None:
        line += ["--domain", f"box:{to_fraction(found.domain.lo[0])},{to_fraction(found.domain.hi[0])}"]
    return shlex.join([*line, "--certificate", "certificate.json"])
