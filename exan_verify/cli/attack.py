"""``exan attack``: rebuild a batch from its gradient in floating point; score it where the truth is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common, question, release
from exan_verify.cli.terminal.output import (
    ExitCode,
    Output,
    facts,
    noted,
    require_folder,
    taken_for,
    wall_clock,
)
from exan_verify.cli.terminal.partial_output import hidden_arrays, hidden_facts
from exan_verify.cli.terminal.pictures import (
    draw_sheet,
    input_shape,
    more_arrays,
    picture_facts,
    picture_options,
)
from exan_verify.cli.terminal.scored_against import Truth, load_truth

if TYPE_CHECKING:
    from exan_verify.numeric.problem.metrics import Score
    from exan_verify.numeric.problem.records import Attack

_SIZE_FROM = {
    "given": "given",
    "rank": "told by the gradient's rank",
    "loss scale": "told by the scale of the loss",
}

_HONEST = (
    "Confirmed: no other batch of this size has this gradient, as far as floating point can tell. "
    "Consistent: it fits "
    "all its equations, but no other batch is excluded. What is missing is not thereby safe."
)


@click.command("attack")
@click.argument("model", type=PATH)
@click.argument("gradient", type=PATH)
@click.option(
    "--out", type=PATH, required=True, metavar="FILE", help="Where x and y go: .npz or .safetensors."
)
@question(labels=False)
@click.option("--batch-size", type=int, metavar="M", help="Size of the batch; default: the rank found.")
@click.option(
    "--labels",
    type=click.Choice(["one_hot", "real"]),
    default="one_hot",
    show_default=True,
    help="Labels of the loss's own kind, or real targets, soft labels (needs --batch-size).",
)
@click.option("--device", help="A torch device; default the CPU.")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="auto, lift, assign, peel, peel+lift, sample, descend or published.",
)
@click.option(
    "--no-repairs",
    "repairs",
    is_flag=True,
    default=True,
    flag_value=False,
    help="Take published to the letter.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="GRADIENT has only some of the tensors: recover what these say, down to features of a hidden layer.",
)
@release()
@click.option(
    "--scale",
    default="1",
    show_default=True,
    metavar="VALUE|unknown",
    help="GRADIENT is so many times the batch's: -lr for the update of a plain step; unknown where it was "
    "clipped or rescaled. auto looks for a factor by itself where no label fits.",
)
@click.option(
    "--sample-weights",
    type=click.Choice(["equal", "positive"]),
    default="equal",
    show_default=True,
    help="positive: every sample's loss has an unknown factor (per-sample clipping, class weights).",
)
@click.option(
    "--smoothing", type=float, default=0.0, show_default=True, help="Label smoothing of cross_entropy."
)
@click.option(
    "--local-steps",
    type=int,
    default=1,
    show_default=True,
    metavar="T",
    help="GRADIENT is an update: the weights after T local steps minus those before.",
)
@click.option(
    "--local-batches",
    metavar="SIZES",
    help="Sizes of the mini-batches in the order of the local steps, such as 2,2; default: every step sees "
    "the whole batch.",
)
@click.option("--lr", type=float, help="The learning rate of the local steps; without it all are candidates.")
@click.option(
    "--buffers-after",
    type=PATH,
    metavar="FILE",
    help="GRADIENT is of a step in training mode of a model with BatchNorm: its buffers after the step.",
)
@click.option(
    "--buffers", type=PATH, metavar="FILE", help="Its buffers before the step; default: those of MODEL."
)
@click.option("--truth", type=PATH, metavar="BATCH", help="Score the result against this batch.")
@picture_options
@common(work_limit=False)
def attack_command(
    model: str,
    gradient: str,
    out: str,
    truth: str | None,
    sheet: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Rebuild the batch behind GRADIENT for MODEL, and say how much is known of each sample.

    GRADIENT holds one tensor per parameter, by name; with --partial, some of them; with --release, all or
    what is sent, and nothing else is read. Exit code 3: not the whole batch was recovered.
    """
    from exan_verify.api.files import save_batch
    from exan_verify.api.records import attack_record
    from exan_verify.api.releases import load_release

    output = Output(json=as_json)
    require_folder(out)
    if not out.lower().endswith((".npz", ".safetensors")):
        raise click.BadParameter(f"{out} is neither .npz nor .safetensors", param_hint="--out")
    require_folder(sheet)
    if sheet is not None and truth is None:
        raise click.UsageError("--sheet shows originals beside what was recovered: give them with --truth")
    if options["release"] is not None:
        options["release"] = load_release(options["release"])
    known = None if truth is None else load_truth(truth, options["release"])
    if sheet is not None and known is not None:
        known.check_drawable()
    options["input_shape"] = input_shape(options["input_shape"], known)
    with output.working("attacking") as progress:
        found = _attack(model, gradient, options, known, progress)
    save_batch(out, found.x, found.y, **tier_arrays(found), **hidden_arrays(found), **more_arrays(found))
    score = None if known is None else known.score(found)
    candidate_score = None if known is None else known.score_candidates(found)
    if sheet is not None and known is not None:
        draw_sheet(found, known, sheet)
    record = attack_record(found, score, candidate_score)
    output.answer(record | {"schema": "exan/attack/1", "out": out})
    written = f"{found.x.shape[0]} samples and {len(found.candidates)} candidates written to {out}"
    output.say(*describe(found, score, candidate_score), written, _HONEST)
    if sheet is not None:
        output.say(f"contact sheet written to {sheet}")
    return ExitCode.DONE if found.complete else ExitCode.UNDECIDED


def tier_arrays(found: Attack) -> dict[str, Any]:
    """What the file has besides x and y: which samples are ``confirmed`` (M',), the ``local_batch`` (M',)
    that each was in where there were several, samples ``centred`` and the ``mean`` where BatchNorm used the
    statistics of the batch, and the ``candidates`` (c, ...) with their labels (-1 or NaN
    where none fits) and error estimates (c,)."""
    import torch

    x, y, errors = found.stacked_candidates()
    more = {"local_batch": torch.tensor(found.local_batch)} if found.local_batch else {}
    if found.centred is not None:
        centred = found.centred
        more |= {"centred": centred.values, "centred_labels": centred.labels, "mean": centred.mean}
    confirmed = torch.tensor([one.tier == "confirmed" for one in found.status], dtype=torch.bool)
    return {
        "confirmed": confirmed,
        "candidates": x,
        "candidate_labels": y,
        "candidate_errors": errors,
    } | more


def describe(found: Attack, score: Score | None, candidate_score: Score | None = None) -> list[Any]:
    """The attack as text and tables."""
    from exan_verify.numeric.problem.metrics import RECOVERED_RMSE
    from exan_verify.numeric.problem.records import Tier

    count = found.x.shape[0]
    whole = "the whole batch" if found.complete else "not the whole batch"
    rows = {
        **taken_for(found.architecture, found.notes),
        "recovered": f"{count} of {found.batch_size} samples, {whole}",
        "of these": f"{found.count(Tier.CONFIRMED)} confirmed, {found.count(Tier.CONSISTENT)} consistent",
        "candidates": f"{len(found.candidates)} more, which fit less",
        "batch size": f"{found.batch_size} ({_SIZE_FROM[found.batch_size_source]})",
        "method": f"{found.method}" + (f" at hidden layer {found.layer}" if found.layer else ""),
        "gradient residual": f"{found.gradient_residual:.1e}",
        "largest error bound": f"{max(s.error_bound for s in found.status):.1e}" if found.status else "-",
        "time": f"{found.seconds:.2f} s",
    }
    if not found.status:
        del rows["of these"], rows["largest error bound"]
    if not found.candidates:
        rows["candidates"] = "0"
    if found.release is not None:
        rows["release"] = found.release.described
    if found.scale != 1:
        rows["scale"] = f"{found.scale:.6g} times the batch's gradient"
    rows |= hidden_facts(found) | picture_facts(found)
    unconfirmed = next((one.unconfirmed for one in found.status if one.unconfirmed), "")
    if unconfirmed:
        rows["not confirmed"] = unconfirmed
    if found.reason:
        rows["reason"] = found.reason
    if found.hint:
        rows["hint"] = found.hint
    if score is not None:
        worst = f", worst {max(s.rmse for s in score.samples):.1e}" if score.samples else ""
        right = sum(s.label for s in score.samples)
        rows["against the truth"] = (
            f"{score.recall:.0%} of the batch with RMSE below {RECOVERED_RMSE:g}{worst}; {right} labels right"
        )
    if candidate_score is not None and candidate_score.samples:
        near = sum(one.rmse < RECOVERED_RMSE for one in candidate_score.samples)
        best = min(one.rmse for one in candidate_score.samples)
        rows["candidates against the truth"] = (
            f"{near} with RMSE below {RECOVERED_RMSE:g}, the best {best:.1e}"
        )
    return [facts(rows), *noted(found.notes)]


def _factor(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text} is not a list of sizes such as 2,2", param_hint="--local-batches"
        ) from None


def _attack(
    model: str,
    gradient: str,
    options: dict[str, Any],
    truth: Truth | None,
    progress: Callable[[str], None],
) -> Attack:
    start = time.monotonic()
    with wall_clock(options["budget"]):
        from exan_verify import attack
        from exan_verify.api.files import ABOUT_DATA, about, load_any_model, read_gradient
        from exan_verify.numeric.waiting import limited

        network = load_any_model(model, options["weights"])
        given = read_gradient(gradient)
        buffers, after = (
            None if options[name] is None else read_gradient(options[name])
            for name in ("buffers", "buffers_after")
        )
        # a model in training mode is none that takes each sample by itself; scores compare sizes as well
        if truth is not None and buffers is None and after is None:
            truth.check_fits(network, options["input_shape"])
    tell = limited(
        lambda what, share: progress(f"{what} ({share:.0%})"),
        options["budget"],
        since=start,
        remedy="give a larger --budget",
    )
    passed = (
        "loss",
        "reduction",
        "labels",
        "batch_size",
        "method",
        "repairs",
        "partial",
        "release",
        "smoothing",
        "local_steps",
        "lr",
        "device",
        "seed",
        "input_shape",
    )
    with about(gradient, *ABOUT_DATA):
        return attack(
            network,
            given,
            picture_iterations=options["picture_iterations"],
            progress=tell,
            scale=_factor(options["scale"]),
            weights=options["sample_weights"],
            local_batches=_sizes(options["local_batches"]),
            buffers=buffers,
            buffers_after=after,
            **{name: options[name] for name in passed},
        )
