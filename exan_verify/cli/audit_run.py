"""``exan audit --run``: the audit of a whole training run, on the terminal, as a page, and for CI."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from exan_verify.cli.terminal.output import REAL_ARITHMETIC, Output, facts, require_folder, table

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.api.runs.run_report import RunReport, Totals
    from exan_verify.api.runs.step_record import StepRecord

_SHOWN = 3
"""Of the worst steps, on the terminal."""


def audit_stored_run(
    run: str,
    out: str,
    output: Output,
    *,
    gates: Sequence[str],
    files: dict[str, str | None],
    options: dict[str, Any],
) -> tuple[str, dict[str, str]]:
    """Audit it and say what came of it; the outcome ``unknown`` if any step has it, and the gates' states.

    ``files``: report, junit and sarif, where they are asked for.
    """
    from exan_verify.api.runs.audit_run import audit_run

    for path in files.values():
        require_folder(path)
    try:
        with output.working("auditing") as tell:
            found = audit_run(run, out=out, progress=_telling(tell), **options)
    except KeyboardInterrupt:
        print(f"the finished steps are kept in {out}; go on with --resume", file=sys.stderr)
        raise
    _write(found, run, gates, files)
    states = {gate: found.gate(gate) for gate in gates}
    output.answer(
        found.to_record() | {"statement": REAL_ARITHMETIC, "fail_on": list(gates)} | files,
    )
    output.say(*_describe(found))
    output.say(*(f"gate {gate}: {state}" for gate, state in states.items()))
    output.say(*(f"{name}: {path}" for name, path in files.items() if path is not None))
    if found.unfinished:
        output.say(f"not finished: {found.unfinished}; the same command with --resume goes on")
    undecided = bool(found.unfinished) or "unknown" in found.all.outcomes
    return "unknown" if undecided else "decided", states


def write_findings(
    records: Callable[[], Iterator[StepRecord]],
    gates: Sequence[str],
    place: str,
    *,
    junit: str | None,
    sarif: str | None,
) -> None:
    """The files for CI that are asked for; ``place``: what was audited."""
    from exan_verify.api.files import write_atomically
    from exan_verify.report import ci

    if junit is not None:
        write_atomically(junit, ci.junit(records(), gates, name=f"exan audit {place}"))
    if sarif is not None:
        write_atomically(sarif, ci.sarif(records(), gates, place=place))


def _write(found: RunReport, run: str, gates: Sequence[str], files: dict[str, str | None]) -> None:
    from exan_verify.api.files import write_atomically

    write_findings(found.steps, gates, run, junit=files["junit"], sarif=files["sarif"])
    if files["report"] is not None:
        from exan_verify.report.runs import render_run

        again = shlex.join(["exan", "audit", "--run", run, "--out", str(found.out), "--resume"])
        page = render_run(f"Audit of the run {run}", found, commands={"the summary of these steps": again})
        write_atomically(files["report"], page.encode())


def _telling(tell: Callable[[str], None]) -> Callable[[int, int | None, float | None], None]:
    def told(done: int, total: int | None, left: float | None) -> None:
        of = "" if total is None else f" of {total}"
        tell(f"{done}{of} steps{'' if left is None else f', about {_clock(left)} left'}")

    return told


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _describe(found: RunReport) -> list[Any]:
    from exan_verify.report.ci import summary

    whole = found.all
    of = "" if found.total is None or found.total == whole.steps else f" of {found.total}"
    rows = {"steps": f"{whole.steps}{of}, {whole.samples} samples"} | _shares(whole)
    rows["digest"] = found.digest
    parts: list[Any] = [facts(rows), ""]
    if len(found.epochs) > 1:
        parts += [_by_epoch(found), ""]
    worst = [f"worst: {summary(one)}{f' ({one.source})' if one.source else ''}" for one in found.worst]
    return [*parts, *worst[:_SHOWN], "", REAL_ARITHMETIC]


def _shares(counts: Totals) -> dict[str, str]:
    from exan_verify.report.runs import percent

    shares = {name: percent(counts.share(name)) for name in counts.counts}
    rows = {
        "certified": ", ".join(
            f"{shares[name]} {said}"
            for name, said in (("determined", "determined"), ("free", "free"), ("unknown", "undecided"))
        ),
        "published ExAN condition": shares["published"],
        "peeling closure": shares["peelable"],
    }
    if counts.of["confirmed"]:
        tiers = (f"{shares[name]} {name}" for name in ("confirmed", "consistent"))
        rows["attack"] = f"{', '.join(tiers)}, {counts.counts['candidates']} candidates"
    return rows


def _by_epoch(found: RunReport) -> Table:
    from exan_verify.report.runs import percent

    made = table("epoch ", "steps ", "samples ", "determined ", "confirmed ", "consistent ", "peelable ")
    for epoch, one in found.epochs.items():
        cells = [percent(one.share(name)) for name in ("determined", "confirmed", "consistent", "peelable")]
        made.add_row("-" if epoch is None else str(epoch), str(one.steps), str(one.samples), *cells)
    return made
