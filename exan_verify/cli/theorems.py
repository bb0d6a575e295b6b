"""``exan theorems``: the statements, how they stand and why; their checks run live."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.padding import Padding
from rich.text import Text

from exan_verify.cli.terminal.options import PATH, common
from exan_verify.cli.terminal.output import ExitCode, Output, facts, require_folder, table, titled, wall_clock

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.theorems.replay import Replay
    from exan_verify.theorems.running import CheckReport, Report
    from exan_verify.theorems.statement import Example, Exhibit, Statement

STYLES = {"proved": "bold green", "proved for stated sizes": "green", "refuted": "bold red", "open": "yellow"}
"""Colour of a standing."""

_WIDE = 150
TABLES = ("markdown", "latex", "latex-document")


def _names(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """The statements and groups that begin with what was typed, for the shell's completion."""
    from exan_verify.theorems.registry import registry

    known = registry().values()
    names = dict.fromkeys([*(one.name for one in known), *(one.group for one in known)])
    return [name for name in names if name.lower().startswith(typed.lower())]


@click.command("theorems")
@click.argument("name", required=False, shell_complete=_names)
@click.option("--all", "everything", is_flag=True, help="Run the checks of every statement.")
@click.option("--long", is_flag=True, help="In the list: also hypotheses, conclusions, sources and proofs.")
@click.option("--no-checks", is_flag=True, help="Show the statement without running its checks.")
@click.option("--table", type=click.Choice(TABLES), help="Write the readings of P1 and P2 as a table.")
@click.option("--file", type=PATH, metavar="FILE.py", help="Search the claims of this file instead.")
@click.option(
    "--effort",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="With --file: how much each stage of the search looks at.",
)
@click.option("--every", is_flag=True, help="With --table: all statements, not P1 and P2 alone.")
@click.option("--out", type=PATH, metavar="FILE", help="With --table: write it there.")
@common(work_limit=False, model=False)
def theorems_command(name: str | None, everything: bool, no_checks: bool, **options: Any) -> int:
    """List the statements about the security boundary and their proofs, or show NAME and run its checks.

    NAME is a statement, or a group such as P2: then all of its statements are checked, or with --no-checks
    shown. Upper and lower case are the same.

    Exit code 1: a check contradicts the standing, or a claim of --file is refuted; 3: no claim is refuted.
    """
    output = Output(json=options["as_json"], width=_WIDE)
    _check_options(name, everything, no_checks, options)
    if options["file"] is not None:
        return _own(output, name, no_checks, options)
    from exan_verify.theorems.registry import beside, chosen, registry

    if options["table"] is not None:
        return _write_table(output, list(registry().values()), options)
    if name is None and not everything:
        return _list(Output(json=options["as_json"]), list(registry().values()), long=options["long"])
    statements = list(registry().values()) if name is None else chosen(name)
    if len(statements) > 1 and no_checks:
        return _list(Output(json=options["as_json"]), statements, long=True)
    with output.working("checking") as told, wall_clock(options["budget"]):
        reports = _run(output, statements, told, seed=options["seed"], checks=not no_checks)
    code = _finish(output, reports, single=len(statements) == 1)
    if name is not None and len(statements) == 1 and (others := beside(statements[0])):
        output.say(f"also in group {statements[0].group}: {', '.join(others)}")
    return code


def _check_options(name: str | None, everything: bool, no_checks: bool, options: dict[str, Any]) -> None:
    if options["table"] is None and (options["every"] or options["out"] is not None):
        raise click.UsageError("--every and --out go with --table")
    if options["table"] is not None and (name is not None or everything):
        raise click.UsageError("--table writes many statements; leave NAME and --all out")
    listed = name is None and not everything and options["table"] is None and options["file"] is None
    if options["long"] and not listed:
        raise click.UsageError("--long is for the list; leave the rest out")
    if name is not None and everything:
        raise click.UsageError("give NAME or --all, not both")
    if no_checks and (everything or name is None):
        raise click.UsageError("--no-checks goes with NAME")
    if options["file"] is not None and (everything or options["table"] is not None):
        raise click.UsageError("--file searches the claims of one file; leave --all and --table out")
    require_folder(options["out"])


def _write_table(output: Output, statements: Sequence[Statement], options: dict[str, Any]) -> int:
    from exan_verify.api.files import write_atomically
    from exan_verify.theorems.tables import FORMATS, readings

    chosen = list(statements) if options["every"] else readings(statements)
    what = "Statements" if options["every"] else "Readings of the published claims P1 and P2"
    text = FORMATS[options["table"]](chosen, f"{what} and their standing.")
    out = options["out"]
    if out is not None:
        write_atomically(out, text.encode())
    record = {"schema": "exan/theorems-table/1", "format": options["table"], "out": out}
    output.answer(record | {"statements": [s.name for s in chosen], "table": text})
    output.say(text.rstrip("\n") if out is None else f"{len(chosen)} statements written to {out}")
    return ExitCode.DONE


def _own(output: Output, name: str | None, no_checks: bool, options: dict[str, Any]) -> int:
    """A user's file: claims are searched, statements run their checks."""
    from exan_verify.cli.claims import load, search_all, searched_code, searched_record
    from exan_verify.errors import UsersCode
    from exan_verify.theorems.as_text import report_record
    from exan_verify.theorems.claims.claim import ClaimError

    file = options["file"]
    with wall_clock(options["budget"]):
        claims, statements = load(file, name)
    what = f"{file}: running its statements raised"
    users_code = UsersCode(what, file=str(Path(file).absolute()), error=ClaimError)
    with output.working("searching") as told:
        results = search_all(output, claims, options, told)
        with users_code:
            reports = _run(output, statements, told, seed=options["seed"], checks=not no_checks)
    record = {"claims": list(map(searched_record, results)), "statements": list(map(report_record, reports))}
    output.answer({"schema": "exan/own-theorems/1", "file": file, **record})
    return searched_code(results) if all(r.holds for r in reports) else ExitCode.REFUSED


def _list(output: Output, statements: Sequence[Statement], *, long: bool) -> int:
    from exan_verify.theorems.as_text import statement_record

    output.answer({"schema": "exan/theorems/1", "statements": [statement_record(s) for s in statements]})
    shown = overview(statements) if long else [_names_and_titles(statements)]
    output.say(*shown, "", summary(statements))
    return ExitCode.DONE


def _names_and_titles(statements: Sequence[Statement]) -> Table:
    made = table("name", "standing", "says")
    for statement in statements:
        standing = statement.standing.value
        made.add_row(statement.name, Text(standing, style=STYLES[standing]), statement.title)
    return made


def overview(statements: Sequence[Statement]) -> list[Any]:
    """Each statement with its standing, what it claims over what, source and proofs, in the order of the
    groups.
    """
    parts: list[Any] = []
    for statement in statements:
        standing = statement.standing.value
        head = Text.assemble(
            f"{statement.group}  ", (statement.name, "bold"), "  ", (standing, STYLES[standing])
        )
        parts += ["", head, Padding(facts(_summarised(statement)), (0, 0, 0, 4))]
    return parts[1:]


def _summarised(statement: Statement) -> dict[str, str]:
    from exan_verify.theorems.as_text import quantified

    return {
        "says": statement.title,
        "over": quantified(statement),
        "if": "\n".join(statement.hypotheses) or "always",
        "then": statement.conclusion,
        "source": statement.source,
        "by": _established(statement),
    }


def _established(statement: Statement) -> str:
    """A line for each method, with the places where its proofs or counterexamples lie."""
    from exan_verify.theorems.as_text import relied_on

    places: dict[str, dict[str, list[str]]] = {}
    for ground in relied_on(statement):
        file, _, names = ground.where.partition(": ")
        found = places.setdefault(ground.method.value, {}).setdefault(file, [])
        found += [names] if names and names not in found else []
    lines = [
        f"{method}: {'; '.join(_place(*place) for place in found.items())}"
        for method, found in places.items()
    ]
    return "\n".join(lines) or "-"


def _place(file: str, names: Sequence[str]) -> str:
    return f"{file}: {', '.join(names)}" if names else file


def summary(statements: Sequence[Statement]) -> str:
    """How many statements have which standing."""
    counts = {value: sum(s.standing.value == value for s in statements) for value in STYLES}
    return f"{len(statements)} statements: {', '.join(f'{n} {value}' for value, n in counts.items() if n)}"


def _run(
    output: Output, statements: Sequence[Statement], told: Any, *, seed: int, checks: bool
) -> list[Report]:
    """Run and, with text output, show each statement as soon as it is done."""
    from exan_verify.theorems.running import run_statement

    reports = []
    for statement in statements:

        def progress(what: str, done: int, total: int, name: str = statement.name) -> None:
            told(f"{name}: {what}, {done} of {total}")

        report = run_statement(statement, seed=seed, progress=progress, checks=checks)
        reports.append(report)
        if len(statements) == 1:
            output.say(*describe(report))
        else:
            output.say(_line(report))
    return reports


def _finish(output: Output, reports: Sequence[Report], *, single: bool) -> int:
    from exan_verify.theorems.as_text import report_record

    holds = all(report.holds for report in reports)
    if single:
        output.answer({"schema": "exan/theorem/1", **report_record(reports[0])})
    else:
        records = [report_record(report) for report in reports]
        output.answer({"schema": "exan/theorems/1", "holds": holds, "statements": records})
        output.say(f"{sum(r.holds for r in reports)} of {len(reports)} statements confirmed")
    return ExitCode.DONE if holds else ExitCode.REFUSED


def _line(report: Report) -> Text:
    seconds = sum(check.seconds for check in report.checks)
    mark = titled("confirmed   ", style="green") if report.holds else titled("contradicted", style="bold red")
    wrong = "".join(f"; {objection}" for objection in report.objections)
    return Text.assemble(
        mark, f"  {report.statement.name}: {len(report.checks)} checks, {seconds:.1f} s{wrong}"
    )


def describe(report: Report) -> list[Any]:
    """A statement in words and mathematics, what it rests on, its example, and what its checks found."""
    statement = report.statement
    standing = statement.standing.value
    parts: list[Any] = [
        titled(f"{statement.group}  {statement.title}"),
        Text.assemble(f"{statement.name}: ", (standing.upper(), STYLES[standing])),
        "",
        _wording(statement),
        "",
        titled("mathematics"),
        *(f"  {line}" for line in statement.latex.strip().splitlines()),
        "",
        titled("rests on"),
        *(_ground(ground) for ground in statement.grounds),
    ]
    if report.example is not None:
        parts += ["", titled("example"), *_example(report.example, report.replay)]
    if report.ran:
        parts += ["", titled("checks"), *(_check(check) for check in report.checks)]
        parts += [line for check in report.checks for line in _found(check)]
        parts += ["", _conclusion(report)]
    return parts


def _wording(statement: Statement) -> Table:
    from exan_verify.theorems.as_text import quantified

    rows = {"source": statement.source}
    if statement.published is not None:
        rows["published"] = statement.published
        rows["our reading"] = statement.reading
    else:
        rows["in words"] = statement.reading
    rows |= {
        "over": quantified(statement),
        "hypotheses": "\n".join(statement.hypotheses) or "none",
        "conclusion": statement.conclusion,
    }
    if statement.smallest:
        rows["smaller?"] = statement.smallest
    if statement.remark:
        rows["but"] = statement.remark
    return facts(rows)


def _ground(ground: Any) -> str:
    return f"  {ground.method.value}: {ground.says} ({ground.where})"


def _example(example: Example | Exhibit, replayed: Replay | None) -> list[str]:
    from exan_verify.theorems.as_text import example_lines

    lines = [f"  {example.note}", *(f"  {line}" for line in example_lines(example))]
    return lines if replayed is None else [*lines, *(f"  {line}" for line in replayed.says)]


def _check(check: CheckReport) -> Text:
    mark = ("  confirms    ", "green") if check.holds else ("  contradicts ", "bold red")
    name = f"{check.check.name} ({check.seconds:.1f} s): {check.check.what}\n"
    return Text.assemble(mark, name, f"              {check.result.detail}")


def _found(check: CheckReport) -> list[Any]:
    if check.result.example is None:
        return []
    return ["", titled(f"found by {check.check.name}"), *_example(check.result.example, check.replay)]


def _conclusion(report: Report) -> Text:
    if report.holds:
        return titled(
            "CONFIRMED", f": every check agrees with '{report.statement.standing.value}'", "bold green"
        )
    return titled("NOT CONFIRMED", f": {'; '.join(report.objections)}", "bold red")
