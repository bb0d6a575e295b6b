"""``exan audit``: four separate answers about one's own batch, a report, and gates for CI."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common, question, release
from exan_verify.cli.terminal.output import (
    REAL_ARITHMETIC,
    ExitCode,
    Output,
    facts,
    noted,
    require_folder,
    table,
    taken_for,
)
from exan_verify.cli.terminal.pictures import picture_facts, shaped
from exan_verify.core.question import Labels
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import ExanError

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.api.attack_own_batch import OwnBatchAttack
    from exan_verify.api.audit import Audit
    from exan_verify.core.network import Array
    from exan_verify.core.verdict import Verdict
    from exan_verify.report import Section

GATES = ("determined", "recovered", "candidates", "peel", "exan")
_ATTACK_GATES = ("recovered", "candidates")
_NONE_FOUND = {
    "recovered": "the attack found none",
    "candidates": "the attack found neither samples nor candidates",
}
_LABEL = 24


@click.command("audit")
@click.argument("model", type=PATH, required=False)
@click.argument("batch", type=PATH, required=False)
@click.option("--attack", is_flag=True, help="Attack the gradient too.")
@click.option("--report", type=PATH, metavar="FILE.html", help="Write a self-contained HTML report.")
@click.option(
    "--input-shape",
    metavar="C,H,W",
    help="x holds pictures of this shape; default: as stored, and in the report squares are guessed.",
)
@click.option(
    "--fail-on",
    type=click.Choice(GATES),
    multiple=True,
    help="Exit with 1 if any sample is proved determined, is recovered by an attack (candidates: or is "
    "shown as a candidate), can be peeled, or meets the published condition.",
)
@click.option("--junit", type=PATH, metavar="FILE.xml", help="Write a JUnit test case for each step.")
@click.option("--sarif", type=PATH, metavar="FILE.sarif", help="Write SARIF 2.1.0, as code hosts show it.")
@question()
@release()
@click.option(
    "--run",
    type=PATH,
    metavar="FOLDER|MANIFEST.jsonl",
    help="In place of MODEL and BATCH: every step of a training run, a folder of model*.safetensors and "
    "batch*.npz, or JSON lines with model, batch and, where known, step, epoch, accuracy.",
)
@click.option("--out", type=PATH, metavar="FOLDER", help="With --run: where finished steps are kept.")
@click.option("--resume", is_flag=True, help="With --run: go on with the steps in the folder of --out.")
@click.option("--dask", metavar="ADDRESS", help="With --run: work on the cluster of this scheduler.")
@click.option(
    "--step-budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With --run: wall-clock limit of each step; --budget is that of the run.",
)
@common()
def audit_command(
    model: str | None,
    batch: str | None,
    run: str | None,
    out: str | None,
    resume: bool,
    dask: str | None,
    step_budget: float | None,
    report: str | None,
    junit: str | None,
    sarif: str | None,
    fail_on: tuple[str, ...],
    **options: Any,
) -> int:
    """Report what the gradient of a batch gives away, by four arguments kept apart.

    MODEL is an .onnx or .safetensors file, or a factory package.module:name; BATCH has x and y, in .npz or
    .safetensors. With --report, --attack, and for the gates recovered and candidates, the gradient is
    attacked too; the report shows what came back. Models about which nothing can be proved are attacked only.
    With --run, every step of a training run, each for itself; the finished ones are kept, and --resume goes
    on with them.
    Exit codes: 1 a gate was hit, 3 a gate (or, without gates, a verdict) is undecided.
    """
    output = Output(json=options.pop("as_json"))
    files = {"report": report, "junit": junit, "sarif": sarif}
    attack = options.pop("attack") or any(gate in _ATTACK_GATES for gate in fail_on)
    if run is None:
        if out is not None or resume or dask is not None or step_budget is not None:
            raise click.UsageError("--out, --resume, --dask and --step-budget go with --run; leave them out")
        if model is None or batch is None:
            raise click.UsageError("Missing argument: give MODEL and BATCH, or --run with --out")
        return _audit_batch(model, batch, output, attack, fail_on, files, options)
    if model is not None or out is None:
        raise click.UsageError("--run takes the place of MODEL and BATCH, and needs --out FOLDER")
    if options.pop("input_shape") is not None:
        raise click.UsageError("--input-shape goes with MODEL and BATCH; leave it out")
    if dask is not None and options["jobs"] > 1:
        raise click.UsageError("--dask takes the place of --jobs; give one of them")
    if options.pop("weights") is not None:
        raise click.UsageError("--weights goes with MODEL; a manifest names the weights of each step")
    from exan_verify.api.releases import load_release
    from exan_verify.cli.audit_run import audit_stored_run

    if options["release"] is not None:
        options["release"] = load_release(options["release"])
    asked = {"resume": resume, "dask": dask, "step_budget": step_budget, "attack": attack}
    outcome, gates = audit_stored_run(run, out, output, gates=fail_on, files=files, options=options | asked)
    return exit_code(outcome, gates)


def _audit_batch(
    model: str,
    batch: str,
    output: Output,
    attack: bool,
    fail_on: tuple[str, ...],
    written: dict[str, str | None],
    options: dict[str, Any],
) -> int:
    """The audit of one batch."""
    from exan_verify.api.audit import provable
    from exan_verify.api.files import load_any_model, load_batch
    from exan_verify.api.releases import load_release

    start = time.perf_counter()
    report = written["report"]
    for path in written.values():
        require_folder(path)
    weights = options.pop("weights")
    subject = load_any_model(model, weights)
    x, y = load_batch(batch)
    x = shaped(x, options.pop("input_shape"), batch)
    files = {"model": model, "batch": batch} | ({} if weights is None else {"weights": weights})
    if options["release"] is not None:
        files["release"] = options["release"]
        options["release"] = load_release(options["release"])
    proved = provable(subject, (x, y))
    attacked = attack or report is not None or not proved
    with output.working("auditing" if proved else "attacking") as tell:
        told = options | {"progress": lambda what, share: tell(f"{what} ({share:.0%})")}
        found = _audit(subject, (x, y), told | {"attack": attacked}, files)
        if report is not None:
            shown = section(
                f"Audit of {batch}", x, found.classes, found if proved else None, _attacked(found), files
            )
            if proved and _mitigable(subject, found):
                shown = replace(shown, remedy=_again("mitigate", files, found))
            _write(report, shown, found)
    if written["junit"] or written["sarif"]:
        from exan_verify.api.runs.step_record import Asked, prepare, record_of
        from exan_verify.api.runs.steps import Step
        from exan_verify.cli.audit_run import write_findings

        step = Step(model=subject, batch=(x, y), source=batch)
        one = prepare(0, step, Asked(question=found.question), None)
        line = record_of(one, found, time.perf_counter() - start)
        write_findings(lambda: iter([line]), fail_on, batch, junit=written["junit"], sarif=written["sarif"])
    gates = {gate: found.gate(gate) for gate in fail_on}
    _say(output, found, proved, gates, written)
    if proved and found.verdict.determined and _mitigable(subject, found):
        output.say(f"what can be done about it: {_again('mitigate', files, found)}")
    return exit_code(found.verdict.outcome.value, gates)


def _say(
    output: Output, found: Audit, proved: bool, gates: dict[str, str], written: dict[str, str | None]
) -> None:
    """The audit on the screen and as a record: of the attack alone where nothing was to be proved."""
    record = found.to_record() | {"statement": REAL_ARITHMETIC}
    if not proved:
        record = {name: record[name] for name in ("attack", "no_attack", "beyond_proof") if name in record}
        record |= {
            "schema": "exan/audit-attack/1",
            "outcome": found.verdict.outcome.value,
            "reason": found.verdict.reason,
        }
    output.answer(record | {"gates": gates} | written)
    if proved:
        output.say(*describe(found))
    else:
        open_ = f"{found.verdict.outcome.value.upper()}: {found.verdict.reason}"
        output.say(facts(_lines(found) | {"certified verdict": open_}))
    output.say(*(f"gate {gate}: {_said_of_gate(found, gate, state)}" for gate, state in gates.items()))
    output.say(*(f"{name}: {path}" for name, path in written.items() if path is not None))


def _mitigable(model: Any, found: Audit) -> bool:
    """Whether ``exan mitigate`` takes the model and the question of this audit."""
    from exan_verify.models.chain import to_network

    if found.question.labels is Labels.REAL or found.release is not None:
        return False
    try:
        network = to_network(model)
    except ExanError:  # convolutions, norms, other activations
        return False
    return network.plain is network


def _attacked(found: Audit) -> OwnBatchAttack | str:
    return found.attack or found.no_attack


def _lines(found: Audit) -> dict[str, str]:
    """What the attack came to, and what it shows beyond the proof; nothing where none was asked for."""
    if found.attack is None and not found.no_attack:
        return {}
    beyond = {"beyond the proof": found.beyond_proof} if found.beyond_proof else {}
    return attack_facts(_attacked(found)) | beyond


def _said_of_gate(found: Audit, gate: str, state: str) -> str:
    """The state, and for the gates of the attack why: never that nothing can be found."""
    if gate not in _ATTACK_GATES:
        return state
    if found.attack is None:
        return f"{state}; the attack was {found.no_attack}"
    if state == "passed":
        estimates = sum(one is not None for one in found.attack.estimates or ())
        more = f"; it estimated {estimates} pictures, which the gate candidates counts" if estimates else ""
        return f"{state}; {_NONE_FOUND[gate]}, which is no promise{more}"
    if state == "undecided":
        return f"{state}; {_NONE_FOUND[gate]} before its budget ran out"
    seen = found.attack.found
    counts = f"{len(seen.status)} recovered, {len(seen.candidates)} candidates"
    entered = found.attack.entered
    return f"{state}; of {entered} {counts}, judged as pictures" if entered else f"{state}; {counts}"


def section(
    title: str,
    x: Array,
    labels: tuple[Any, ...],
    audit: Audit | None,
    attack: OwnBatchAttack | str,
    files: dict[str, str],
) -> Section:
    """A section of the report on ``x`` (M, ...): the audit, where there is one, beside the attack."""
    from exan_verify.report import Section

    lines = attack_facts(attack) if audit is None else _lines(audit)
    shown = Section(title=title, inputs=x, labels=labels, audit=audit, attack_facts=lines, files=files)
    if isinstance(attack, str):
        return shown
    return replace(
        shown,
        note=f"The attack was given the model, {_given(attack)} and its size, nothing else.",
        recoveries=attack.recoveries,
        candidates=attack.candidates,
        features=attack.features,
        estimates=attack.estimates,
        projected=attack.projected,
    )


def _given(attack: OwnBatchAttack) -> str:
    sent = "" if attack.found.release is None else "what is sent of "
    return f"{sent}the float64 gradient of this batch"


def attack_facts(attack: OwnBatchAttack | str) -> dict[str, str]:
    """What the attack came to, a line each."""
    if isinstance(attack, str):
        return {"attack": attack}
    found = attack.found
    claimed = sum(r is not None for r in attack.recoveries)
    errors = [one.rmse for one in attack.score.samples]
    worst = f", largest RMSE {max(errors):.1e}" if errors else ""
    what = f"samples known by their {attack.entered}" if attack.projected else "samples recovered"
    lines = {"attack": f"{claimed} of {len(attack.recoveries)} {what} by {found.method}{worst}, "}
    lines["attack"] += f"{found.seconds:.1f} s"
    if attack.projected:
        pictures = sum(one is not None and one.readable for one in attack.recoveries)
        lines["pictures"] = f"{pictures} can be recognised by that"
    readable = sum(one is not None and one.readable for one in attack.candidates)
    if readable:
        lines["candidates"] = f"{readable} more samples can be recognised among the candidates"
    lines |= picture_facts(found)
    reasons = {"left open": found.reason, "hint": found.hint}
    return lines | {name: text for name, text in reasons.items() if text}


def exit_code(outcome: str, gates: dict[str, str]) -> int:
    """1 if a gate is hit; 3 if one is undecided, or without gates the verdict; else 0."""
    if "hit" in gates.values():
        return ExitCode.REFUSED
    undecided = "undecided" in gates.values() if gates else outcome == "unknown"
    return ExitCode.UNDECIDED if undecided else ExitCode.DONE


def describe(found: Audit) -> list[Any]:
    """The four answers, what the attack came to if there was one, and the table of samples."""
    size, state, verdict = found.batch_size, found.exclusivity, found.verdict
    published = peelable = f"not known: {found.no_exclusivity}"
    if state is not None:
        whole = "holds" if state.published else "does not hold"
        published = f"{sum(state.published_by_sample)} of {size} samples ({whole} for the batch)"
        peelable = f"{sum(state.peelable)} of {size} samples"
    known = [radius for radius in found.radius if radius is not None]
    outcome, fixed = verdict.outcome.value.upper(), sum(r == 0 for r in known)
    rows = {
        **taken_for(verdict.architecture, found.notes),
        "published ExAN condition": published,
        "peeling closure": peelable,
        "certified verdict": f"{outcome}, {_proved(verdict)}",
        "ambiguity radius": f"{fixed} samples cannot move, {len(known) - fixed} can (bounds below), "
        f"{size - len(known)} not decided",
        "reason": verdict.reason,
        **({} if found.release is None else {"release": found.release.described}),
        **_lines(found),
    }
    return [facts(rows), *noted(found.notes), "", _samples(found), "", REAL_ARITHMETIC]


def _proved(verdict: Verdict) -> str:
    """How many samples are in every batch, whole or by what the head is given of them."""
    size, features = verdict.batch_size, verdict.samples.count(SampleStatus.FEATURES)
    told = f"{verdict.determined} of {size} samples determined"
    return f"{told}, and features and labels of {features}" if features else told


def _samples(found: Audit) -> Table:
    state = found.exclusivity
    counts = () if state is None else state.counts
    layers = [f"ExANs {k + 1} " for k in range(len(counts))]
    made = table("sample ", "label", *layers, "published", "peelable", "certified", "radius ")
    for m, status in enumerate(found.verdict.samples):
        radius = found.radius[m]
        made.add_row(
            str(m),
            _short(found.classes[m]),
            *(str(layer[m]) for layer in counts),
            "-" if state is None else "yes" if state.published_by_sample[m] else "no",
            "-" if state is None else "yes" if state.peelable[m] else "no",
            status.value,
            "not decided" if radius is None else f"{radius:g}",
        )
    return made


def _short(label: Any) -> str:
    """A class or a target; that of one logit is a number, others are as long as the table allows."""
    text = f"{label[0]:g}" if isinstance(label, list) and len(label) == 1 else str(label)
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."


def _audit(model: Any, batch: tuple[Array, Array], options: dict[str, Any], files: dict[str, str]) -> Audit:
    from exan_verify.api.attack import with_convolutions
    from exan_verify.api.audit import audit
    from exan_verify.api.files import ABOUT_DATA, about
    from exan_verify.models.chain import to_any_network

    if not with_convolutions(model):
        with about(files["model"]):
            model = to_any_network(model)
    with about(files["batch"], *ABOUT_DATA):
        return audit(model, batch, **options)


def _write(report: str, shown: Section, found: Audit) -> None:
    from exan_verify.api.files import write_atomically
    from exan_verify.report import render

    commands = {}
    if shown.audit is not None:
        again = _again("certify", shown.files, found)
        commands["the certified verdict, with a certificate"] = f"{again} --certificate certificate.json"
    html = render("What this gradient reveals about its batch", [shown], commands=commands)
    write_atomically(report, html.encode())


def _again(command: str, files: Mapping[str, str], found: Audit) -> str:
    """``exan certify`` or ``exan mitigate`` with the question of this audit."""
    import shlex

    from exan_verify.core.network import to_fraction

    line = ["exan", command, files["model"], *(["--batch"] if command == "certify" else []), files["batch"]]
    for name, value, default in (
        ("loss", found.loss.value, "cross_entropy"),
        ("reduction", found.reduction.value, "mean"),
        ("labels", found.labels.value, "one_hot"),
    ):
        line += [] if value == default else [f"--{name}", value]
    for name in ("weights", "release"):
        line += [f"--{name}", files[name]] if name in files else []
    if found.domain is not None:
        line += ["--domain", f"box:{to_fraction(found.domain.lo[0])},{to_fraction(found.domain.hi[0])}"]
    return shlex.join(line)
