"""``exan compare``: our attacks and published ones on one's own network and batch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common, question
from exan_verify.cli.terminal.output import ExitCode, Output, require_folder, wall_clock
from exan_verify.errors import BudgetExhausted

if TYPE_CHECKING:
    from exan_verify.bench.compare import Job, Row

_WIDE = 180

_LEGEND = (
    "recall: share of the batch that came back within an RMSE of 1e-3",
    "wrong: claims beyond their error bound, or with a wrong label",
    "RMSE, PSNR (dB), SSIM: median over what the method returned, which may be few of the batch",
    "labels: share of these that are right; s: seconds; stopped: took too long; refused: out of its range",
)


@click.command("compare")
@click.argument("model", type=PATH)
@click.argument("batch", type=PATH)
@question()
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="Compare this method only; may be repeated. A wrong one lists all.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    help="Time of each optimisation (DLG, Inverting Gradients) and of drawing (SPEAR); default: 10.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop any other method so long after the time of --seconds; default: 120.",
)
@click.option("--figure", type=PATH, metavar="FILE.png", help="Draw the share that each method recovers.")
@click.option("--device", help="A torch device to attack on; default the CPU.")
@common(work_limit=False)
def compare_command(model: str, batch: str, figure: str | None, **options: Any) -> int:
    """Attack the gradient of a batch by every method, ours and published ones, and score them side by side.

    MODEL and BATCH as for audit: Linear layers with ReLU between them, x and y. Each method gets a process of
    its own and the float64 gradient of the batch; DLG is told the batch size, Inverting Gradients the labels
    too, as in their papers, ours neither. Recall counts samples within an RMSE of 1e-3. Where the budget
    ends, or Ctrl-C, the rows that are finished are printed and drawn.
    """
    from exan_verify.api.attack import check_device
    from exan_verify.bench.compare import SECONDS, SUITE, compared, methods_figure
    from exan_verify.bench.suite import Options
    from exan_verify.cli.bench import suite_table

    output = Output(json=options["as_json"], width=_WIDE)
    require_folder(figure)
    check_device(options["device"])
    seconds = SECONDS if options["seconds"] is None else options["seconds"]
    job = _job(model, batch, seconds, options)
    rows: list[Row] = []
    cut: BaseException | None = None
    with output.working("comparing") as tell:
        asked = Options(
            seeds=[options["seed"]],
            seconds=seconds,
            patience=options["patience"],
            methods=options["methods"],
            progress=lambda name, done, total: tell(f"{name}, {done} of {total} done"),
        )
        try:
            with wall_clock(options["budget"]):
                for row in compared(batch, len(job.x), [partial(replace, job)], asked):
                    rows.append(row)  # noqa: PERF402 - what is finished is kept
        except (BudgetExhausted, KeyboardInterrupt) as error:
            cut = error
    if figure is not None and rows:
        from exan_verify.api.files import write_atomically

        write_atomically(figure, methods_figure(rows))
    output.answer(_record(model, batch, rows, unfinished=cut is not None))
    output.say(suite_table(replace(SUITE, columns=_columns(SUITE.columns)), rows), "", *_LEGEND)
    if cut is not None:
        raise cut
    return ExitCode.DONE


def _job(model: str, batch: str, seconds: float, options: dict[str, Any]) -> Job:
    from exan_verify.api.files import ABOUT_DATA, about, load_batch, load_model
    from exan_verify.bench.compare import own_job
    from exan_verify.core.question import Question

    asked = Question.of(options["loss"], options["reduction"], options["labels"], domain=options["domain"])
    network = load_model(model, options["weights"])
    x, y = load_batch(batch)
    with about(batch, *ABOUT_DATA):
        job = own_job(network, x, y, asked, seed=options["seed"], limit=seconds)
    return replace(job, device=options["device"])


def _columns(columns: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Those that mean something for a single batch."""
    return tuple(one for one in columns if one[1] not in ("name", "seeds", "recall_worst"))


def _record(model: str, batch: str, rows: list[Row], *, unfinished: bool) -> dict[str, Any]:
    import msgspec

    shown = [msgspec.to_builtins(row) for row in rows]
    for row in shown:
        del row["name"], row["seeds"], row["recall_worst"]
    return {
        "schema": "exan/compare/1",
        "model": model,
        "batch": batch,
        "rows": shown,
        "unfinished": unfinished,
    }
