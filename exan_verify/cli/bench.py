"""``exan bench``: the benchmark tables, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich_click as click

from exan_verify.cli.options import PATH, common
from exan_verify.cli.output import ExitCode, Output, require_folder, table, titled, wall_clock
from exan_verify.errors import BudgetExhausted


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One benchmark: what runs it, and the columns of its table as (heading, attribute of a row)."""

    name: str
    title: str
    columns: tuple[tuple[str, str], ...]
    measured: tuple[str, ...] = ()
    """Attributes that the next run measures anew, which its Markdown table leaves out."""


SUITES: Mapping[str, Suite] = {
    "certify": Suite(
        name="certify",
        title="certify: exact verdicts and their certificates",
        columns=(
            ("case", "name"),
            ("seeds ", "seeds"),
            ("expected", "expected"),
            ("outcomes", "outcomes"),
            ("checked ", "checked"),
            ("no ExAN ", "without_exan"),
            ("layer ", "layer"),
            ("equations ", "equations"),
            ("U ", "unknowns"),
            ("rank ", "rank"),
            ("s, median ", "certify_median"),
            ("s, worst ", "certify_worst"),
            ("check/certify ", "check_ratio"),
            ("KiB ", "certificate_kib"),
            ("peak MiB ", "peak_mib"),
        ),
    ),
    "attack": Suite(
        name="attack",
        title="attack: what is recovered from the gradient alone, and what is claimed",
        columns=(
            ("case", "name"),
            ("seeds ", "seeds"),
            ("method", "methods"),
            ("recall ", "recall"),
            ("worst ", "recall_worst"),
            ("complete ", "complete"),
            ("claimed ", "claimed"),
            ("wrong ", "wrong"),
            ("RMSE ", "rmse"),
            ("bound ", "bound"),
            ("labels ", "labels_right"),
            ("layer ", "layer"),
            ("equations ", "equations"),
            ("U ", "unknowns"),
            ("gap ", "gap"),
            ("s, median ", "seconds"),
            ("s, worst ", "seconds_worst"),
            ("peak MiB ", "peak_mib"),
        ),
    ),
    "robustness": Suite(
        name="robustness",
        title="robustness: gradients that are rounded, noisy, pruned, partly missing or no batch's at all",
        columns=(
            ("gradient", "name"),
            ("seeds ", "seeds"),
            ("recall ", "recall"),
            ("worst ", "recall_worst"),
            ("shown ", "shown"),
            ("confirmed ", "confirmed"),
            ("consistent ", "consistent"),
            ("candidates ", "candidates"),
            ("features ", "features"),
            ("wrong ", "wrong"),
            ("bound ", "bound"),
            ("refused ", "refused"),
            ("s ", "seconds"),
        ),
    ),
    "peeling": Suite(
        name="peeling",
        title="peeling: what a tolerance accepts that is not in the batch, and what our test accepts",
        columns=(
            ("accepted by", "name"),
            ("seeds ", "seeds"),
            ("recall ", "recall"),
            ("worst ", "recall_worst"),
            ("accepted ", "accepted"),
            ("bogus ", "bogus"),
            ("batches with one ", "spoiled"),
            ("bound ", "bound"),
            ("s ", "seconds"),
        ),
    ),
    "compare": Suite(
        name="compare",
        title="compare: our methods and published ones on the same batches",
        columns=(
            ("batch", "name"),
            ("method", "method"),
            ("seeds ", "seeds"),
            ("recall ", "recall"),
            ("worst ", "recall_worst"),
            ("wrong ", "wrong"),
            ("RMSE ", "rmse"),
            ("PSNR ", "psnr"),
            ("SSIM ", "ssim"),
            ("labels ", "labels"),
            ("s ", "seconds"),
            ("stopped ", "stopped"),
            ("refused ", "refused"),
            ("peak MiB ", "peak_mib"),
        ),
    ),
    "insecure": Suite(
        name="insecure",
        title="insecure: the published condition on real images, satisfied and violated",
        columns=(
            ("case", "name"),
            ("batches ", "batches"),
            ("not found ", "missing"),
            ("off ", "closest"),
            ("random ", "random"),
            ("to the letter ", "letter"),
            ("up to scale ", "letter_scaled"),
            ("repaired ", "published"),
            ("worst ", "published_worst"),
            ("of meeting ", "published_meeting"),
            ("of short ", "published_short"),
            ("peel ", "peel"),
            ("worst ", "peel_worst"),
            ("lift ", "lift"),
            ("worst ", "lift_worst"),
            ("labels ", "labels"),
            ("wrong ", "wrong"),
            ("s ", "seconds"),
        ),
        measured=("seconds",),
    ),
    "convolution": Suite(
        name="convolution",
        title="convolution: features, pictures, and estimates against Inverting Gradients",
        columns=(
            ("case", "name"),
            ("seeds ", "seeds"),
            ("features ", "features"),
            ("error ", "feature_error"),
            ("bound ", "feature_bound"),
            ("labels ", "labels_right"),
            ("pictures ", "pictures"),
            ("error ", "picture_error"),
            ("bound ", "picture_bound"),
            ("rank ", "rank"),
            ("present ", "present"),
            ("classes ", "occurring"),
            ("wrong ", "wrong"),
            ("open at", "stopped"),
            ("s ", "seconds"),
            ("s each ", "estimate_seconds"),
            ("PSNR ", "psnr"),
            ("SSIM ", "ssim"),
            ("IG steps ", "rival_steps"),
            ("IG PSNR ", "rival_psnr"),
            ("IG SSIM ", "rival_ssim"),
            ("gain dB ", "gain"),
            ("peak MiB ", "peak_mib"),
        ),
    ),
    "smt": Suite(
        name="smt",
        title="smt: the small suite by one query, by cubes, and by all arguments",
        columns=(
            ("loss", "name"),
            ("way", "way"),
            ("instances ", "instances"),
            ("decided ", "decided"),
            ("share ", "share"),
            ("outcomes", "outcomes"),
            ("s, median ", "median"),
            ("s, worst ", "worst"),
            ("disagreements", "disagreements"),
        ),
    ),
    "tiny": Suite(
        name="tiny",
        title="tiny: random tiny questions, and how many stay undecided",
        columns=(
            ("loss", "name"),
            ("way", "way"),
            ("questions ", "questions"),
            ("outcomes", "outcomes"),
            ("open ", "open_share"),
            ("samples open ", "samples_open"),
            ("certified ", "certified"),
            ("s, median ", "median"),
            ("s, worst ", "worst"),
            ("wrong", "wrong"),
        ),
    ),
}
_WIDE = 180
_ON_DEVICE = ("attack", "compare", "robustness", "convolution")
"""Suites whose attacks run on the device that is asked for."""

_ALIGNED = {False: "---", True: "---:"}


@click.command("bench")
@click.argument("suite", type=click.Choice(list(SUITES)), required=False)
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="NAME",
    help="Run this case only, one of those that --list prints; may be repeated.",
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
    "row's own, or 10. For tiny: budget of a question; default 10.",
)
@click.option(
    "--figure", type=PATH, metavar="FILE.png", help="For attack and compare: draw recall against batch size."
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="For attack and compare: compare this method only; may be repeated.",
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
    type=click.IntRange(min=1),
    metavar="N",
    help="For convolution: steps of Inverting Gradients instead of that time; published: 24000.",
)
@common(model=False)
def bench_command(
    suite: str | None,
    cases: tuple[str, ...],
    listing: bool,
    batches: int,
    out: str | None,
    markdown: str | None,
    figure: str | None,
    alone: bool,
    **options: Any,
) -> int:
    """Measure one suite, or all of them. Times are wall times; no test asserts them.

    Where the budget ends, or Ctrl-C, the rows that are finished are printed and written.

    Seeds are SEED, SEED + 1, ...; stochastic cases report the median and the worst of them.
    """
    output = Output(json=options["as_json"], width=_WIDE)
    if listing:
        return _list_cases(output, [suite] if suite else list(SUITES))
    chosen = _chosen(suite, alone=alone)
    if options["work_limit"] is not None and suite != "certify":
        raise click.UsageError("--work-limit belongs to certify, which alone counts work; say bench certify")
    if cases and suite is None:
        raise click.UsageError("--case needs the SUITE it belongs to: " + ", ".join(SUITES))
    if figure and SUITES["compare"] not in chosen:
        raise click.UsageError(f"--figure belongs to the comparison, not to {suite} alone; leave it out")
    _check_device(suite, chosen, options["device"])
    for path in (out, markdown, figure):
        require_folder(path)
    first = options["seed"]
    repeats = {name: batches if name == "insecure" else options["repeat"] for name in SUITES}
    results: dict[str, list[Any]] = {}
    cut: BaseException | None = None
    try:
        with wall_clock(options["budget"]):
            for one in chosen:
                results[one.name] = []
                with output.working(one.name) as progress:
                    _runner(one.name)(
                        rows=_rows(suite, one, cases, drawn=figure is not None),
                        seeds=range(first, first + repeats[one.name]),
                        progress=_told(progress),
                        kept=results[one.name],
                        **_more(one.name, options),
                    )
                output.say(titled(one.title), _table(one, results[one.name]), "")
    except (BudgetExhausted, KeyboardInterrupt) as error:  # finished rows are shown and written
        cut = error
        output.say(titled(one.title), _table(one, results[one.name]), "")
    record = bench_record(results, list(range(first, first + max(repeats[one.name] for one in chosen))))
    record["unfinished"] = None if cut is None else one.name
    _write(results, record, out=out, markdown=markdown, figure=figure)
    output.answer(record)
    if cut is not None:
        raise cut
    return ExitCode.DONE


def _write(
    results: Mapping[str, Sequence[Any]],
    record: Mapping[str, Any],
    *,
    out: str | None,
    markdown: str | None,
    figure: str | None,
) -> None:
    from exan_verify.api.files import write_atomically
    from exan_verify.api.records import pretty

    if figure is not None and results.get("compare"):
        from exan_verify.bench.compare import recall_figure

        write_atomically(figure, recall_figure(results["compare"]))
    if markdown is not None:
        tables = [markdown_table(SUITES[name], rows) for name, rows in results.items()]
        write_atomically(markdown, "\n".join(tables).encode())
    if out is not None:
        write_atomically(out, pretty(record))


def _chosen(suite: str | None, *, alone: bool) -> list[Suite]:
    """The suites to run; ``attack`` is two tables, its own and the comparison with published methods."""
    if suite is None:
        return list(SUITES.values())
    return [SUITES[suite], SUITES["compare"]] if suite == "attack" and not alone else [SUITES[suite]]


def _rows(suite: str | None, one: Suite, cases: tuple[str, ...], *, drawn: bool) -> Sequence[str] | None:
    """The cases asked for, None for a suite's own choice; the comparison beside ``attack`` has its cases and,
    for a figure or where none is named, those by size."""
    if suite != "attack" or one.name != "compare":
        return cases or None
    from exan_verify.bench.attack import CASES
    from exan_verify.bench.compare import BY_SIZE

    by_size = [case.name for case in BY_SIZE] if drawn or not cases else []
    return [*by_size, *(cases or (case.name for case in CASES if not case.named))]


def _list_cases(output: Output, suites: Sequence[str]) -> int:
    """The cases of each suite, one a line: what ``--case`` takes."""
    from exan_verify.bench.rows import case_names

    names = {suite: case_names(suite) for suite in suites}
    output.answer({"schema": "exan/bench-cases/1", "suites": names})
    for suite, cases in names.items():
        if len(names) > 1:
            output.say(titled(suite))
        output.say(*(case if len(names) == 1 else f"  {case}" for case in cases))
    return ExitCode.DONE


def bench_record(results: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> dict[str, Any]:
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
        "suites": {name: msgspec.to_builtins(rows) for name, rows in results.items()},
    }


def _runner(name: str) -> Callable[..., list[Any]]:
    from exan_verify.bench.attack import run_attack_bench
    from exan_verify.bench.certify import run_certify_bench
    from exan_verify.bench.compare import run_compare_bench
    from exan_verify.bench.convolution import run_convolution_bench
    from exan_verify.bench.insecure import run_insecure_bench
    from exan_verify.bench.peeling import run_peeling_bench
    from exan_verify.bench.robustness import run_robustness_bench
    from exan_verify.bench.smt import run_smt_bench
    from exan_verify.bench.tiny import run_tiny_bench

    runners: Mapping[str, Callable[..., list[Any]]] = {
        "attack": run_attack_bench,
        "certify": run_certify_bench,
        "compare": run_compare_bench,
        "convolution": run_convolution_bench,
        "insecure": run_insecure_bench,
        "peeling": run_peeling_bench,
        "robustness": run_robustness_bench,
        "smt": run_smt_bench,
        "tiny": run_tiny_bench,
    }
    return runners[name]


def _more(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that some suites alone have."""
    more: dict[str, Any] = {"device": options["device"]} if name in _ON_DEVICE else {}
    if name == "certify":
        more["work_limit"] = options["work_limit"]
    if name == "compare":
        more |= {"methods": options["methods"] or None, "patience": options["patience"]}
    if name == "convolution":
        more["iterations"] = options["rival_steps"]
    if name in ("compare", "convolution", "tiny"):
        more["seconds"] = options["seconds"]
    return more


def _check_device(suite: str | None, chosen: Sequence[Suite], device: str | None) -> None:
    """Refuse a device that is none, and one for a suite that would not use it."""
    if device is None:
        return
    if not any(one.name in _ON_DEVICE for one in chosen):
        raise click.UsageError(f"--device belongs to {', '.join(_ON_DEVICE)}, not to {suite}; leave it out")
    from exan_verify.api.attack import check_device

    check_device(device)


def _told(progress: Callable[[str], None]) -> Callable[[str, int, int], None]:
    return lambda name, done, total: progress(f"{name}, {done} of {total} done")


def _table(suite: Suite, rows: Sequence[Any]) -> Any:
    made = table(*(heading for heading, _ in suite.columns))
    for row in rows:
        made.add_row(*(_cell(getattr(row, attribute)) for _, attribute in suite.columns))
    return made


def markdown_table(suite: Suite, rows: Sequence[Any]) -> str:
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
