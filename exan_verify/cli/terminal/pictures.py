"""What ``exan attack`` says and writes besides when the model has convolutions, and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from exan_verify.cli.terminal.options import PATH
from exan_verify.errors import ShapeError

if TYPE_CHECKING:
    from exan_verify.cli.terminal.scored_against import Truth
    from exan_verify.core.network import Array
    from exan_verify.numeric.problem.records import Attack

_Command = TypeVar("_Command", bound=Callable[..., Any])

INPUT_SHAPE = click.option(
    "--input-shape", metavar="C,H,W", help="Picture size, where a convolutional model fits several."
)
"""For models alone; :func:`input_shape` reads it."""


def picture_options(command: _Command) -> _Command:
    """``--sheet``, ``--input-shape`` and ``--picture-iterations``."""
    for option in (
        click.option(
            "--picture-iterations",
            type=click.IntRange(min=0),
            default=200,
            show_default=True,
            help="Steps to estimate pictures that a convolutional model leaves open; 0: none.",
        ),
        INPUT_SHAPE,
        click.option(
            "--sheet",
            type=PATH,
            metavar="FILE.png",
            help="Draw originals beside what was recovered; needs --truth.",
        ),
    ):
        command = option(command)
    return command


def input_shape(given: str | None, truth: Truth | None = None) -> tuple[int, ...] | None:
    """What ``--input-shape`` says, else the shape of the pictures in the truth, if they are pictures."""
    if given is not None:
        return _parsed(given)
    return truth.x.shape[1:] if truth is not None and truth.x.ndim == 4 else None


def shaped(x: Array, given: str | None, path: str) -> Array:
    """``x`` (M, ...) of the file ``path`` as pictures of the shape that ``--input-shape`` says, if it does.

    Raises :class:`ShapeError` where a sample has another number of entries.
    """
    if given is None:
        return x
    shape = _parsed(given)
    entries = math.prod(x.shape[1:])
    if math.prod(shape) != entries:
        raise ShapeError(
            f"--input-shape {given} has {math.prod(shape)} entries, and a sample of {path} has {entries}; "
            "give channels, height and width of what is stored"
        )
    return x.reshape(len(x), *shape)


def _parsed(given: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in given.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise click.BadParameter(f"{given!r} is not C,H,W", param_hint="--input-shape")
    return shape


def more_arrays(found: Attack) -> dict[str, Any]:
    """What an attack on pictures writes besides x and y."""
    from exan_verify.numeric.convolution.records import ImageAttack

    if not isinstance(found, ImageAttack):
        return {}
    arrays = {"features": found.features, "feature_labels": found.feature_labels}
    return arrays if found.estimates is None else arrays | {"estimates": found.estimates}


def draw_sheet(found: Attack, truth: Truth, sheet: str) -> None:
    """Write the contact sheet of a result beside the true batch.

    Raises :class:`ShapeError` naming the truth's file when it holds no pictures.
    """
    from exan_verify.api.attack_own_batch import aligned
    from exan_verify.api.files import ABOUT_DATA, about, write_atomically
    from exan_verify.numeric.convolution.records import ImageAttack
    from exan_verify.report.sheets import contact_sheet, sample_labels

    x, y = truth.x, truth.y
    rows = {"recovered": aligned(truth.shown(found.x), found.y, x, y)}
    if found.candidates:
        candidates, labels, _ = found.stacked_candidates()
        rows["candidate"] = aligned(truth.shown(candidates), labels, x, y)
    if isinstance(found, ImageAttack) and found.estimates is not None:
        rows["estimated"] = aligned(found.estimates, found.feature_labels, x, y)
    with about(truth.path, *ABOUT_DATA):
        picture = contact_sheet(x, rows, labels=sample_labels(y))
    write_atomically(sheet, picture)


def picture_facts(found: Attack) -> dict[str, str]:
    """The lines that an attack on pictures adds to the text; nothing for other attacks."""
    from exan_verify.numeric.convolution.records import ImageAttack

    if not isinstance(found, ImageAttack):
        return {}
    bound = max((s.error_bound for s in found.feature_status), default=0.0)
    known = f"{len(found.features)} of {found.batch_size} samples"
    rows = {"features": f"{known}, within {bound:.1e}" if len(found.features) else known}
    labels = ", ".join(str(v) for v in found.feature_labels.tolist())
    rows["feature labels"] = f"{labels} (in the order found)" if labels else "-"
    reached = [f"{s.kind} {s.path!r}: {s.deficit}" for s in found.stages if s.deficit is not None]
    rows["open entries"] = "; ".join(reversed(reached)) or "no stage reached"
    if found.estimates is not None:
        rows["estimates"] = f"{len(found.estimates)} pictures fitted to their features, nothing claimed"
    return rows
