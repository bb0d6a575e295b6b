"""``exan sweep``: what is determined and recovered against batch size, width, or epochs of training."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common, question
from exan_verify.cli.terminal.output import REAL_ARITHMETIC, ExitCode, Output, require_folder, table

if TYPE_CHECKING:
    from exan_verify.api.runs.sweep import SweepReport

_OVER = ("batch", "width", "epoch")

_LEGEND = (
    "determined: share of the samples that are proved determined by the gradient",
    "recovered: share that the attack finds, confirmed or consistent; candidates: number shown beside these",
    "peelable: share that peeling can reach; published: share that meets the published condition",
    "accuracy: mean over the networks, on the data",
)


@click.command("sweep")
@click.argument("model", type=PATH, metavar="MODEL-FACTORY")
@click.option("--over", type=click.Choice(_OVER), required=True, help="What is swept over.")
@click.option(
    "--values",
    metavar="N,N,...",
    help="Batch sizes, widths or epochs. Default: 1 to 64, 64 to 512, 0 to 8, by doubling.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="FILE",
    help="Samples that batches are drawn from, and networks trained on: x and y. Default: embedded digits.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Samples of a batch, where it is not swept over.",
)
@click.option(
    "--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Batches for each value."
)
@click.option("--figure", type=PATH, metavar="FILE.png", help="Draw the shares against the values.")
@click.option("--csv", "csv_file", type=PATH, metavar="FILE.csv", help="Write the shares as a table.")
@click.option("--out", type=PATH, metavar="FOLDER", help="Keep the finished audits here; default: nowhere.")
@click.option("--resume", is_flag=True, help="Go on with the audits in the folder of --out.")
@click.option("--dask", metavar="ADDRESS", help="Work on the cluster of this scheduler.")
@question()
@common()
def sweep_command(
    model: str,
    over: str,
    values: str | None,
    data: str | None,
    figure: str | None,
    csv_file: str | None,
    out: str | None,
    **options: Any,
) -> int:
    """Draw the boundary: certified and recovered shares of batches against one quantity.

    MODEL-FACTORY is package.module:name, a function that returns a network of Linear layers with ReLU between
    them; with --over width it is called with the width. With --over batch any MODEL will do. Where the budget
    ends, the values that are finished are printed, written and drawn.
    """
    from exan_verify.api.runs.sweep import sweep

    output = Output(json=options.pop("as_json"))
    for path in (figure, csv_file, out):
        require_folder(path)
    if options["resume"] and out is None:
        raise click.UsageError("--resume goes on with the folder of --out; give it")
    if options.pop("domain") is not None:
        raise click.UsageError("--domain is not asked of a sweep; leave it out, or audit a run")
    make = _maker(model, over, options.pop("weights"))
    kept: Any = tempfile.TemporaryDirectory() if out is None else nullcontext(out)
    from exan_verify.api.files import ABOUT_DATA, about

    source = data or "the digits that come with exan-verify (--data FILE.npz gives other samples)"
    with output.working("sweeping") as tell, kept as folder, about(source, *ABOUT_DATA):
        found = sweep(
            make, _data(data), over=over, values=_numbers(values), out=folder, progress=tell, **options
        )
    _write(found, figure, csv_file)
    output.answer(
        found.to_record() | {"statement": REAL_ARITHMETIC, "figure": figure, "csv": csv_file, "out": out}
    )
    output.say(_table(found), "", *_LEGEND, "", REAL_ARITHMETIC)
    output.say(*(f"{name}: {path}" for name, path in (("figure", figure), ("csv", csv_file)) if path))
    if found.unfinished:
        output.say(f"not finished: {found.unfinished}")
    return ExitCode.UNDECIDED if found.unfinished else ExitCode.DONE


def _maker(model: str, over: str, weights: str | None) -> Any:
    from exan_verify.api.files import about, load_any_model
    from exan_verify.models.files import make_model

    if over == "batch":
        load_any_model(model, weights)  # what is wrong with it is said at once
        return partial(load_any_model, model, weights)
    if weights is not None:
        raise click.UsageError(
            "--weights goes with --over batch: widths and epochs have weights of their own"
        )

    def make(*width: int) -> Any:
        with about(model):
            return make_model(model, None, *width)

    return make


def _data(path: str | None) -> tuple[Any, Any]:
    from exan_verify.api.files import load_batch
    from exan_verify.data import load_mnist, to_inputs

    if path is not None:
        return load_batch(path)
    images, classes = load_mnist()
    return to_inputs(images), classes


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--values {text!r}: write integers with commas, such as 1,2,4") from None


def _write(found: SweepReport, figure: str | None, csv_file: str | None) -> None:
    from exan_verify.api.files import write_atomically

    if csv_file is not None:
        write_atomically(csv_file, found.to_csv().encode())
    if figure is not None and found.points:
        from exan_verify.report.curves import sweep_figure

        write_atomically(figure, sweep_figure(found))


def _table(found: SweepReport) -> Any:
    from exan_verify.report.curves import LINES, share
    from exan_verify.report.runs import percent

    made = table(f"{found.over} ", "samples ", *(f"{name} " for name in LINES), "candidates ", "accuracy ")
    for one in found.points:
        made.add_row(
            str(one.value),
            str(one.totals.samples),
            *(percent(share(one.totals, name)) for name in LINES),
            str(one.totals.counts["candidates"]),
            percent(one.accuracy),
        )
    return made
