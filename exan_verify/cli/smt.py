"""``exan export-smt`` and ``exan smt``: the plain question as SMT-LIB files, or to the solvers alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from exan_verify.cli.certify import describe, verdict_code
from exan_verify.cli.terminal.options import PATH, common, exact_number, question, release
from exan_verify.cli.terminal.output import (
    REAL_ARITHMETIC,
    ExitCode,
    Output,
    facts,
    noted,
    require_folder,
    taken_for,
    wall_clock,
)
from exan_verify.errors import BudgetExhausted, InexactError, InputError, UnsupportedLayerError

if TYPE_CHECKING:
    from exan_verify.core.network import Batch, Gradient, Network
    from exan_verify.core.question import Question
    from exan_verify.smt.narrower import Narrower


class FractionType(click.ParamType[Fraction]):
    """A number read exactly as written: 0.01 is one hundredth, 1/3 one third."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Parse the text; anything else is a usage error."""
        try:
            return exact_number(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a number; write 0.01, 1e-3 or 1/100", param, ctx)


_Command = TypeVar("_Command", bound=Callable[..., Any])


def _subject() -> Callable[[_Command], _Command]:
    options: list[Callable[[Any], Any]] = [
        click.argument("model", type=PATH),
        click.option("--batch", type=PATH, metavar="FILE", help="The batch: is there another one?"),
        click.option("--gradient", type=PATH, metavar="FILE", help="The gradient: is there a batch?"),
        click.option("--exact", is_flag=True, help="Every number of the gradient is meant exactly."),
        click.option("--tolerance", type=FractionType(), metavar="E", help="Entries may differ by so much."),
        click.option("--radius", type=FractionType(), metavar="R", help="Ask for a batch further away."),
        question(),
        click.option("--batch-size", type=int, metavar="M", help="Size of the batches asked about."),
    ]

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command("export-smt")
@_subject()
@click.option("--out", type=PATH, required=True, metavar="FILE.smt2", help="File, or folder with --cubes.")
@click.option("--cubes", is_flag=True, help="One file per activation pattern, and an index.")
@click.option("--exp", "with_exp", is_flag=True, help="Write softmax and sigmoid with cvc5's exp.")
@click.option("--sample", type=int, metavar="M", help="Is this sample in every batch?")
@click.option("--entry", type=int, metavar="I", help="With --between: is this entry of the sample, in all?")
@click.option(
    "--between", type=FractionType(), nargs=2, metavar="LOW HIGH", help="What the entry lies between."
)
@click.option("--missing", multiple=True, metavar="NAME", help="A tensor that is not sent; may be repeated.")
@release()
@click.option("--force", is_flag=True, help="Write more than 50 MB if that is what it takes.")
@common(work_limit=False)
def export_smt_command(model: str, out: str, cubes: bool, with_exp: bool, force: bool, **options: Any) -> int:
    """Write the question as commented SMT-LIB 2; its head says what sat and unsat mean.

    Asked is whether there is another batch, or with --sample whether one lacks that sample; with --missing or
    --release, of what is sent. For cross_entropy and bce without --exp the constraints admit more than the
    batches: only unsat counts.
    """
    from exan_verify.smt.decide import pose
    from exan_verify.smt.portfolio import Settings
    from exan_verify.smt.size import amount, size_of
    from exan_verify.smt.smtlib import LARGE, cube_files, require_wanted, whole_question, write_files
    from exan_verify.smt.solvers.cache import write_text

    output = Output(json=options["as_json"])
    require_folder(out)
    budget, deadline = options["budget"], _deadline(options["budget"])
    network, asked, data = _asked(model, options)
    radius = options["radius"] or Fraction(0)
    narrower = _narrower(network, data.get("batch"), options, cubes=cubes)
    size = size_of(network, asked, batch=data.get("batch"), has_radius=bool(radius))
    if not force:
        require_wanted(size.bytes, "the list of cubes" if cubes else out)
    about = "" if cubes else f"about {amount(size.bytes)} bytes"
    left = None if deadline is None else max(0.001, deadline - time.monotonic())  # a timer of 0 never rings
    try:  # the timer may ring anywhere inside, also where a context is entered or left
        with output.working("writing constraints") as told, wall_clock(left):
            told(about)
            with _about(options):
                posed, truth = pose(network, asked, **data)
            if cubes:
                settings = Settings(seed=options["seed"], deadline=deadline)
                texts = cube_files(
                    posed,
                    truth,
                    radius=radius,
                    exact=with_exp,
                    settings=settings,
                    largest=None if force else LARGE,
                )
                files = write_files(Path(out), texts)
            else:
                write_text(
                    Path(out), whole_question(posed, truth, radius=radius, exact=with_exp, narrower=narrower)
                )
                files = [Path(out).name]
    except BudgetExhausted:
        raise BudgetExhausted(
            f"the budget of {budget:g} s ran out and nothing is written; give a larger --budget"
        ) from None
    notes = _notes(network, **data)
    record = {"path": out, "files": sorted(files), "architecture": network.architecture, "notes": notes}
    output.answer({"schema": "exan/export-smt/1", **record})
    said = taken_for(network.architecture, notes)
    output.say(
        f"{len(files)} {'files' if len(files) > 1 else 'file'} written to {out}",
        *([facts(said)] if said else []),
        *noted(notes),
    )
    return ExitCode.DONE


@click.command("smt")
@_subject()
@click.option("--cache", type=PATH, metavar="DIR", help="Keep answers here; the same call resumes from it.")
@click.option("--double-check", is_flag=True, help="Ask a second solver about every refutation.")
@common()
def smt_command(model: str, cache: str | None, double_check: bool, **options: Any) -> int:
    """Ask SMT solvers alone, cube by cube: resumable, in parallel, with a second opinion.

    The work limit counts the solvers' own units.
    """
    from exan_verify.api.records import verdict_record
    from exan_verify.smt.decide import decide
    from exan_verify.smt.portfolio import Settings

    output = Output(json=options["as_json"])
    deadline = _deadline(options["budget"])
    network, asked, data = _asked(model, options)
    with output.working("asking solvers") as told, _about(options):
        settings = Settings(
            seed=options["seed"],
            jobs=options["jobs"],
            cache=None if cache is None else Path(cache),
            deadline=deadline,
            work_limit=options["work_limit"],
            progress=lambda done, total, by: told(f"{done} of {total} cubes refuted so far, by {by}"),
            double_check=double_check,
        )
        verdict = decide(network, asked, **data, radius=options["radius"], settings=settings)
    verdict = replace(verdict, architecture=network.architecture, notes=_notes(network, **data))
    output.answer({"schema": "exan/smt/1", **verdict_record(verdict), "statement": REAL_ARITHMETIC})
    output.say(*describe(verdict))
    return verdict_code(verdict)


def _narrower(
    network: Network, batch: Batch | None, options: dict[str, Any], *, cubes: bool
) -> Narrower | None:
    """The question about a sample, an entry or a part of the gradient; None where none is asked."""
    from exan_verify.api.releases import load_release
    from exan_verify.core.question import Release
    from exan_verify.smt.narrower import Narrower

    missing, sent = options["missing"], options["release"]
    if missing and sent is not None:
        raise InputError("--missing and --release both say what is sent; give one of them")
    released = None if sent is None else load_release(sent)
    slopes = [activation.parameter for _, activation in network.trained_slopes()]
    if missing:
        names = [name for name, _ in network.parameters()]
        unknown = [name for name in missing if name not in (*names, *slopes)]
        if unknown:
            there = ", ".join((*names, *slopes))
            raise InputError(f"--missing {unknown[0]}: no such parameter (there are: {there})")
        released = Release(tensors=[name for name in names if name not in missing])
        slopes = [name for name in slopes if name not in missing]
    elif released is None or released.tensors is not None:
        slopes = []
    if options["sample"] is None and (options["entry"] is not None or options["between"]):
        raise InputError("--entry and --between are about a sample; say which with --sample")
    asked = Narrower(
        sample=options["sample"],
        feature=options["entry"],
        between=options["between"] or None,
        release=released,
        slopes=tuple(slopes),
    )
    if asked == Narrower():
        return None
    if cubes or options["radius"] or options["tolerance"]:
        raise InputError(
            "samples, entries and releases are asked in one file about exact gradients; leave out --cubes, "
            "--radius and --tolerance"
        )
    asked.check(network, None if batch is None else batch.size)
    return asked


def _deadline(budget: float | None) -> float | None:
    return None if budget is None else time.monotonic() + budget


def _asked(model: str, options: dict[str, Any]) -> tuple[Network, Question, dict[str, Any]]:
    """The network, the question, and ``batch`` or ``gradient``, as ``pose`` and ``decide`` take them."""
    from exan_verify.api.certify import exact_network
    from exan_verify.api.files import about, load_any_model, load_gradient
    from exan_verify.core.question import Question
    from exan_verify.core.staged import StagedNetwork
    from exan_verify.models.gradients import FOLDED_TOLERANCE, NORMALISED_WHOLE, of_folded, received

    if (options["batch"] is None) == (options["gradient"] is None):
        raise click.UsageError("give either --batch FILE or --gradient FILE")
    loaded = load_any_model(model, options["weights"])
    with about(model):
        network = exact_network(loaded)
        if isinstance(network, StagedNetwork):
            raise UnsupportedLayerError(
                f"the network is {network.architecture}; solvers are asked about Linear layers alone, "
                "certify about convolutions too"
            )
    asked = Question.of(
        options["loss"],
        options["reduction"],
        options["labels"],
        domain=options["domain"],
        batch_size=options["batch_size"],
        tolerance=options["tolerance"],
    )
    if options["batch"] is not None:
        if options["exact"]:
            raise InputError("--exact goes with --gradient; a batch has its exact gradient")
        return network, asked, {"batch": _batch(options["batch"], network, asked)}
    with _about(options):
        if network.normalised:
            raise InputError(NORMALISED_WHOLE)
        gradient = received(load_gradient(options["gradient"]), network)
        if network.plain is not network and asked.tolerance is not None:
            raise InputError(FOLDED_TOLERANCE)
        gradient = of_folded(gradient, network, exact=True)
    if not (gradient.rational or options["exact"] or asked.tolerance):
        raise InexactError(
            f"{options['gradient']}: floating-point numbers; say --exact if they are meant exactly, "
            "or --tolerance E if they are rounded"
        )
    return network, asked, {"gradient": gradient}


def _notes(network: Network, gradient: Gradient | None = None, **_: Any) -> tuple[str, ...]:
    """What was assumed of the network, or done to the gradient, before the question was asked."""
    return network.notes + (() if gradient is None else gradient.notes)


def _about(options: dict[str, Any]) -> Any:
    """Errors about the data name their file."""
    from exan_verify.api.files import ABOUT_DATA, about

    return about(options["batch"] or options["gradient"], *ABOUT_DATA)


def _batch(path: str, network: Network, asked: Question) -> Batch:
    from exan_verify.api.files import ABOUT_DATA, about, load_batch
    from exan_verify.core.network import Batch

    x, y = load_batch(path)
    with about(path, *ABOUT_DATA):
        return Batch.given((x, y), network=network, loss=asked.loss, labels=asked.labels)
