"""``exan certify`` and ``exan check``: decide a question exactly, recheck the certificate of an answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
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
    titled,
    wall_clock,
)
from exan_verify.errors import CertificateRejected, FileError, InexactError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.core.verdict import Verdict

_SHOWN = 64
_FEW = 4
"""Parts of an evidence that are shown one by one; of more, their number."""


@click.command("certify")
@click.argument("model", type=PATH)
@click.option("--batch", type=PATH, metavar="FILE", help="The batch whose exact gradient is meant.")
@click.option("--gradient", type=PATH, metavar="FILE", help="The gradient, when the batch is not known.")
@click.option("--exact", is_flag=True, help="Every number of the gradient is meant exactly.")
@click.option("--tolerance", type=float, metavar="E", help="The gradient is rounded, by at most E per entry.")
@question()
@release()
@click.option("--batch-size", type=int, metavar="M", help="Size of the batches asked about.")
@click.option(
    "--engine", default="auto", show_default=True, help="Ask one engine only; a wrong name lists them."
)
@click.option("--certificate", type=PATH, metavar="OUT.json", help="Write the certificate here.")
@click.option(
    "--long", is_flag=True, help="Also the evidence: its kind, theorem and sizes, and every engine's word."
)
@common()
def certify_command(model: str, certificate: str | None, long: bool, **options: Any) -> int:
    """Decide which batches have a gradient, in exact arithmetic, and certify the answer.

    MODEL is an .onnx or .safetensors file, or a factory package.module:name.
    """
    output = Output(json=options["as_json"])
    if (options["batch"] is None) == (options["gradient"] is None):
        raise click.UsageError("give either --batch FILE or --gradient FILE")
    require_folder(certificate)
    with output.working("certifying") as tell:
        verdict = _certify(model, options, lambda what, share: tell(f"{what} ({share:.0%})"))
    from exan_verify.api.files import write_atomically
    from exan_verify.api.records import pretty, verdict_record

    written = certificate is not None and verdict.certificate is not None
    if certificate is not None and verdict.certificate is not None:
        write_atomically(certificate, pretty(verdict.certificate))
    record = verdict_record(verdict) | {"certificate_path": certificate if written else None}
    output.answer({"schema": "exan/certify/1", **record, "statement": REAL_ARITHMETIC})
    output.say(*describe(verdict, long=long))
    if certificate is not None:
        output.say(
            f"certificate written to {certificate}" if written else "no certificate: nothing was decided"
        )
    return verdict_code(verdict)


@click.command("check")
@click.argument("certificate", type=PATH)
@click.argument("model", type=PATH)
@click.option("--batch", type=PATH, metavar="FILE", help="The batch it was made for.")
@click.option("--gradient", type=PATH, metavar="FILE", help="The gradient it was made for.")
@click.option("--long", is_flag=True, help="Also the evidence that was checked: its kind, theorem and sizes.")
@common(work_limit=False)
def check_command(
    certificate: str,
    model: str,
    batch: str | None,
    gradient: str | None,
    long: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Re-derive the claim of CERTIFICATE for MODEL and the batch or gradient it was made for.

    The checker imports none of the engines that decided. Exit code 1: rejected.
    """
    if (batch is None) == (gradient is None):
        raise click.UsageError("give the --batch FILE or --gradient FILE that the certificate was made for")
    output = Output(json=as_json)
    try:
        with output.working("checking"), wall_clock(options["budget"]):
            claim = _check(certificate, model, batch, gradient, options)
    except CertificateRejected as error:
        output.answer({"schema": "exan/check/1", "accepted": False, "claim": None, "reason": str(error)})
        output.say(titled("REJECTED", f": {certificate} proves nothing about these inputs", "bold red"))
        raise
    import msgspec

    record = msgspec.to_builtins(claim)
    output.answer({"schema": "exan/check/1", "accepted": True, "claim": record, "statement": REAL_ARITHMETIC})
    decided = f": {claim.outcome.value.upper()}, {_counted(claim.samples)}"
    tolerance = claim.question.tolerance
    if claim.radius is not None and tolerance is not None:
        decided = (
            f": {claim.outcome.value.upper()} for gradients within {float(Fraction(tolerance)):.6g}: "
            f"batches of {len(claim.radius)} samples lie within {max(claim.radius):.3g} "
            "of the certificate's batch"
        )
    released = claim.question.asked().release
    if released is not None:
        decided += f"; what is sent: {released.described}"
    output.say(titled("ACCEPTED", decided, "bold green"))
    if long:
        output.say("", _evidence(json.loads(Path(certificate).read_bytes())), "")
    output.say(REAL_ARITHMETIC)
    return ExitCode.DONE


def verdict_code(verdict: Verdict) -> int:
    """3 when the outcome is UNKNOWN, else 0."""
    return ExitCode.UNDECIDED if verdict.outcome.value == "unknown" else ExitCode.DONE


def describe(verdict: Verdict, *, long: bool = False) -> list[Any]:
    """The verdict as text. ``long``: also what its evidence is, and what each engine that was asked said."""
    rows = {
        **taken_for(verdict.architecture, verdict.notes),
        "reason": verdict.reason,
        "asked": f"among batches of {verdict.batch_size} samples"
        if verdict.batch_size
        else "among batches of a size that is not known; --batch-size says it",
        "samples": _named(verdict.samples),
        "trust": verdict.rests_on,
    }
    if verdict.release is not None:
        rows["release"] = verdict.release.described
    if not verdict.samples:
        del rows["samples"]  # none is at hand
    elif verdict.tolerant and verdict.witness is not None and verdict.witness.radius is not None:
        del rows["samples"]  # equality is not asked, so no sample is determined or free
        rows["radius"] = f"{max(verdict.witness.radius):.3g} at most, L-infinity (per sample: --json)"
    if verdict.distance is not None:
        rows["nearest"] = f"the gradient of the batch found differs by up to {verdict.distance:.3g} per entry"
    if verdict.engine:
        where = f" at hidden layer {verdict.layer}" if verdict.layer else ""
        rows["engine"] = f"{verdict.engine.value}{where}"
    parts: list[Any] = [titled(verdict.outcome.value.upper(), f": {verdict.meaning}")]
    parts += [facts(rows), *noted(verdict.notes)]
    if long and verdict.certificate is not None:
        parts += ["", _evidence(verdict.certificate)]
    if long and verdict.attempts:
        notes = table("engine", "what came of it")
        for attempt in verdict.attempts:
            notes.add_row(attempt.engine.value, attempt.note)
        parts += ["", _attempts(verdict), "", notes]
    return [*parts, "", REAL_ARITHMETIC]


def _evidence(certificate: Mapping[str, Any]) -> Table:
    """The parts of a certificate's evidence; sizes are its numbers by name, and the lengths of its lists."""
    from exan_verify.core.certificate import THEORY

    places = {kind.__struct_config__.tag: place for kind, place in THEORY.items()}
    made = table("evidence", "in the theory", "sizes")
    for part in certificate["evidence"]:
        made.add_row(part["type"], places[part["type"]], ", ".join(_sizes(part)))
    return made


def _sizes(part: Mapping[str, Any]) -> Iterator[str]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif isinstance(value, (list, tuple)) and value:
            if len(value) <= _FEW and all(isinstance(item, Mapping) for item in value):
                for item in value:
                    yield from _sizes(item)
            else:
                yield f"{len(value)} {name}"
        elif name not in ("type", "prime", "point") and isinstance(value, (int, str)):
            yield f"{name} {value}"


def _attempts(verdict: Verdict) -> Table:
    made = table("engine", "layer ", "equations ", "unknowns ", "rank ", "seconds ")
    for attempt in verdict.attempts:
        values = (attempt.layer, attempt.equations, attempt.unknowns, attempt.rank)
        seconds = "-" if attempt.seconds is None else f"{attempt.seconds:.2f}"
        made.add_row(attempt.engine.value, *("-" if v is None else str(v) for v in values), seconds)
    return made


def _counted(samples: tuple[Any, ...]) -> str:
    counts = Counter(status.value for status in samples)
    return ", ".join(f"{n} {name}" for name, n in counts.most_common())


def _named(samples: tuple[Any, ...]) -> str:
    """How many samples have which status and, where they differ, which: by their numbers in the batch."""
    if len(set(samples)) == 1:
        return _counted(samples)
    parts = []
    for status, count in Counter(samples).most_common():
        those = [str(m) for m, one in enumerate(samples) if one is status]
        more = f" and {count - _SHOWN} more, see --json" if count > _SHOWN else ""
        word = "sample" if count == 1 else "samples"
        parts.append(f"{count} {status.value} ({word} {', '.join(those[:_SHOWN])}{more})")
    return ", ".join(parts)


def _certify(model: str, options: dict[str, Any], progress: Callable[[str, float], None]) -> Verdict:
    from exan_verify import certify
    from exan_verify.api.certify import exact_network
    from exan_verify.api.files import ABOUT_DATA, about, load_any_model, load_batch, load_gradient
    from exan_verify.api.releases import load_release

    loaded = load_any_model(model, options["weights"])
    batch = None if options["batch"] is None else load_batch(options["batch"])
    with about(model):
        network = exact_network(loaded, batch)
    passed = (
        "loss",
        "reduction",
        "labels",
        "domain",
        "batch_size",
        "engine",
        "work_limit",
        "budget",
        "seed",
        "jobs",
    )
    arguments = {name: options[name] for name in passed} | {"progress": progress}
    if batch is not None:
        if options["exact"] or options["tolerance"] is not None:
            raise InputError("--exact and --tolerance go with --gradient; a batch has its exact gradient")
        if options["release"] is not None:
            arguments["release"] = load_release(options["release"])
        with about(options["batch"], *ABOUT_DATA):
            return certify(network, batch=batch, **arguments)
    if options["release"] is not None:
        raise InputError("--release goes with --batch: it says what of the batch's gradient is sent")
    gradient = load_gradient(options["gradient"])
    meaning = {"exact": options["exact"], "tolerance": options["tolerance"]}
    with about(options["gradient"], *ABOUT_DATA):
        try:
            return certify(network, gradient=gradient, **meaning, **arguments)
        except InexactError as error:
            raise InexactError(f"{error} (here: --exact or --tolerance EPS)") from None


def _check(
    certificate: str, model: str, batch: str | None, gradient: str | None, options: dict[str, Any]
) -> Any:
    from exan_verify.api.certify import exact_network
    from exan_verify.api.check import check
    from exan_verify.api.files import ABOUT_DATA, about, load_any_model, load_batch, load_gradient
    from exan_verify.core.certificate import most_bytes

    subject = batch if batch is not None else str(gradient)
    given: dict[str, Any]
    arrays: tuple[Any, ...]
    loaded = load_any_model(model, options["weights"])
    if batch is not None:
        arrays = load_batch(subject)
        given = {"batch": arrays}
    else:
        received = load_gradient(subject)
        arrays = tuple(received.tensors.values())
        given = {"gradient": received}
    with about(model):
        network = exact_network(loaded, given.get("batch"))
    numbers = sum(array.size for array in (*arrays, *(array for _, array in network.parameters())))
    try:
        with open(certificate, "rb") as file:
            content = file.read(most_bytes(numbers) + 1)  # one more than is looked at: too long
    except OSError as error:
        raise FileError(f"{certificate}: cannot be read ({error.strerror}); check the path") from None
    with about(subject, *ABOUT_DATA):
        return check(content, network, budget=options["budget"], **given)
