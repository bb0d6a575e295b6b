"""``exan bench``: the benchmark tables, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.bench import SUITES, load
from exan_verify.cli.terminal.options import PATH, common
from exan_verify.cli.terminal.output import ExitCode, Output, require_folder, table, titled, wall_clock
from exan_verify.errors import BudgetExhausted

if TYPE_CHECKING:
    from exan_verify.bench.suite import Suite


_WIDE = 180
_ALIGNED = {False: "---", True: "---:"}


def _cases(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """The cases of the suite that begin with what was typed, for the shell's completion."""
    words = [context.params.get("suite"), *context.args]  # an option without its value leaves SUITE unread
    suite = next((word for word in words if word in SUITES), None)
    return [] if suite is None else [name for name in load(suite).case_names if name.startswith(typed)]


@click.command("bench")
@click.argument("suite", type=click.Choice(SUITES), required=False, metavar="[SUITE]")
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="NAME",
    shell_complete=_cases,
    help="Run this case only, one of those that --list prints, * for any text; may be repeated.",
)
@click.option("--list", "listing", is_flag=True, help="Print the names of the cases and run none.")
@click.option("--repeat", type=click.IntRange(min=1), default=10, show_default=True, help="Seeds per case.")
@click.option(
    "--batches",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Batches per case of insecure.",
)
@click.option("--out", type=PATH, metavar="FILE.json", help="Write the JSON here too.")
@click.option("--markdown", type=PATH, metavar="FILE.md", help="Write the tables as Markdown here too.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    help="For convolution, compare and attack: time of an optimisation, per method and batch; default: each "
    "row's own, or 10. For tiny: budget of a question; for reach: processor time of an attack; default: its "
    "row's.",
)
@click.option(
    "--figure",
    type=PATH,
    metavar="FILE.png",
    help="For attack and compare: draw recall against batch size; for reach: where each attack ends.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="For attack, compare and reach: ask this method only; may be repeated.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="For attack and compare: stop a method that is no optimisation so long after the time of --seconds; "
    "default: 120.",
)
@click.option(
    "--device",
    help="A torch device for attack, compare, robustness and convolution to attack on; default the CPU.",
)
@click.option("--alone", is_flag=True, help="For attack: leave the comparison with published methods out.")
@click.option(
    "--rival-steps",
    "iterations",
    type=click.IntRange(min=1),
    metavar="N",
    help="For convolution: steps of Inverting Gradients instead of that time; published: 24000.",
)
@common(model=False)
def bench_command(
    suite: str | None,
    cases: tuple[str, ...],
    listing: bool,
    out: str | None,
    markdown: str | None,
    figure: str | None,
    alone: bool,
    **options: Any,
) -> int:
    """Measure one suite, or all of them. Times are wall times; no test asserts them.

    SUITE is certify, attack, reach, robustness, training, peeling, agreement, compare, insecure, convolution,
    mitigation, smt, tiny, run, strategies or prove.

    Where the budget ends, or Ctrl-C, the rows that are finished are printed and written.

    Seeds are SEED, SEED + 1, ...; stochastic cases report the median and the worst of them.
    """
    from exan_verify.bench.suite import Options

    output = Output(json=options["as_json"], width=_WIDE)
    if listing:
        return _list_cases(output, [suite] if suite else SUITES)
    plan = _plan(suite, cases, alone=alone, drawn=figure is not None)
    if options["work_limit"] is not None and (suite is None or "work_limit" not in plan[0][0].takes):
        counts = _taking("work_limit")
        raise click.UsageError(
            f"--work-limit belongs to {counts}, which alone counts work; say bench {counts}"
        )
    if cases and suite is None:
        raise click.UsageError("--case needs the SUITE it belongs to: " + ", ".join(SUITES))
    if figure and not any(one.figure for one, _ in plan):
        raise click.UsageError(
            f"--figure belongs to compare, attack and reach, not to {suite} alone; leave it out"
        )
    _check_device(suite, plan, options["device"])
    for path in (out, markdown, figure):
        require_folder(path)
    first = options["seed"]
    results: dict[Suite[Any, Any], list[Any]] = {}
    cut: BaseException | None = None
    try:
        with wall_clock(options["budget"]):
            for one, rows in plan:
                results[one] = []
                with output.working(one.name) as progress:
                    seeds = range(first, first + options[one.repeats])
                    taken = {name: options[name] for name in one.takes}
                    asked = Options(seeds=seeds, progress=_told(progress), **taken)
                    one.run(asked, rows=rows, kept=results[one])
                output.say(titled(one.title), suite_table(one, results[one]), "")
    except (BudgetExhausted, KeyboardInterrupt) as error:  # finished rows are shown and written
        cut = error
        output.say(titled(one.title), suite_table(one, results[one]), "")
    most = max(options[one.repeats] for one, _ in plan)
    record = bench_record(results, list(range(first, first + most)))
    record["unfinished"] = None if cut is None else one.name
    _write(results, record, out=out, markdown=markdown, figure=figure)
    output.answer(record)
    if cut is not None:
        raise cut
    return ExitCode.DONE


def _write(
    results: Mapping[Suite[Any, Any], Sequence[Any]],
    record: Mapping[str, Any],
    *,
    out: str | None,
    markdown: str | None,
    figure: str | None,
) -> None:
    from exan_verify.api.files import write_atomically
    from exan_verify.api.records import pretty

    for suite, rows in results.items():
        if figure is not None and rows and suite.figure is not None:
            write_atomically(figure, suite.figure(rows))
    if markdown is not None:
        tables = [markdown_table(suite, rows) for suite, rows in results.items()]
        write_atomically(markdown, "\n".join(tables).encode())
    if out is not None:
        write_atomically(out, pretty(record))


def _plan(
    suite: str | None, cases: tuple[str, ...], *, alone: bool, drawn: bool
) -> list[tuple[Suite[Any, Any], Sequence[str] | None]]:
    """The suites to run and the cases of each, None for a suite's own choice; one that is named brings the
    suite beside it, unless it is to run ``alone``."""
    if suite is None:
        return [(load(name), None) for name in SUITES]
    one = load(suite)
    return [(one, cases or None), *([] if one.beside is None or alone else [one.beside(cases, drawn)])]


def _taking(option: str) -> str:
    """The suites that take an option, each followed by the one beside it."""
    names = [
        one.name
        for name in SUITES
        for one, _ in _plan(name, (), alone=False, drawn=False)
        if option in one.takes
    ]
    return ", ".join(dict.fromkeys(names))


def _list_cases(output: Output, suites: Sequence[str]) -> int:
    """The cases of each suite, one a line: what ``--case`` takes."""
    names = {suite: load(suite).case_names for suite in suites}
    output.answer({"schema": "exan/bench-cases/1", "suites": names})
    for suite, cases in names.items():
        if len(names) > 1:
            output.say(titled(suite))
        output.say(*(case if len(names) == 1 else f"  {case}" for case in cases))
    return ExitCode.DONE


def bench_record(results: Mapping[Suite[Any, Any], Sequence[Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Rows by suite, with what they were measured on."""
    import os
    import platform

    import msgspec

    import exan_verify

    return {
        "schema": "exan/bench/1",
        "version": exan_verify.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "seeds": seeds,
        "suites": {suite.name: msgspec.to_builtins(rows) for suite, rows in results.items()},
    }


def _check_device(suite: str | None, plan: Sequence[tuple[Suite[Any, Any], Any]], device: str | None) -> None:
    """Refuse a device that is none, and one for a suite that would not use it."""
    if device is None:
        return
    if not any("device" in one.takes for one, _ in plan):
        raise click.UsageError(f"--device belongs to {_taking('device')}, not to {suite}; leave it out")
    from exan_verify.api.attack import check_device

    check_device(device)


def _told(progress: Callable[[str], None]) -> Callable[[str, int, int], None]:
    return lambda name, done, total: progress(f"{name}, {done} of {total} done")


def suite_table(suite: Suite[Any, Any], rows: Sequence[Any]) -> Any:
    """The table of a suite for the terminal."""
    made = table(*(heading for heading, _ in suite.columns))
    for row in rows:
        made.add_row(*(_cell(getattr(row, attribute)) for _, attribute in suite.columns))
    return made


def markdown_table(suite: Suite[Any, Any], rows: Sequence[Any]) -> str:
    """The table of a suite as Markdown (GitHub's), without what another run on it would measure anew."""
    columns = [column for column in suite.columns if column[1] not in suite.measured]
    lines = [[heading.strip() for heading, _ in columns], [_ALIGNED[h.endswith(" ")] for h, _ in columns]]
    lines += [[_cell(getattr(row, attribute)) for _, attribute in columns] for row in rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
