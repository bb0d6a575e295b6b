"""Assertions about what a batch's gradient gives away, for pytest and whatever reads an ``AssertionError``.

Undecided is not safe: a sample that nothing is proved about counts against the assertion unless the test says
otherwise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.arrays import exact_array
from exan_verify.core.network import Array, Batch
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import ExanError, InputError, positive, unknown, whole
from exan_verify.instances import Instance

if TYPE_CHECKING:
    from exan_verify.api.attack_own_batch import Recovery
    from exan_verify.api.audit import Audit

LEAKS = ("determined", "recovered", "peel", "exan")
"""What a sample may leak by, with the meaning of the gates of :meth:`Audit.gate`."""

_SHOWN = 4
"""Leaking samples in a failure's text; the image has more."""

_ROWS, _COLUMNS = 14, 28
"""Characters of a picture in a failure's text at most."""

_SHADES = " .:-=+*#%@"


@dataclass(slots=True)
class Running:
    """The test that runs: ``options`` of its marker for every audit, the ``folder`` for images, and what is
    told of each audit (a name and a value).
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    folder: Callable[[], Path] | None = None
    tell: Callable[[str, str], None] = lambda _name, _value: None


RUNNING: ContextVar[Running] = ContextVar("running", default=Running())  # noqa: B039 - never changed
"""Set by the pytest plugin for the time of a test."""


def audited(model: Any, batch: Any = None, **options: Any) -> Audit:
    """:func:`exan_verify.audit` with the marker's budget and work limit where none is given."""
    from exan_verify.api.audit import audit

    running = RUNNING.get()
    found = audit(model, batch, **{**running.options, **options})
    running.tell("exan_outcome", found.verdict.outcome.value)
    running.tell("exan_trust", found.verdict.trust.value if found.verdict.trust else "none")
    running.tell("exan_determined", f"{found.verdict.determined} of {found.batch_size}")
    return found


def assert_leaks(
    model: Any,
    batch: Any = None,
    *,
    at_most: int = 0,
    by: str = "determined",
    undecided: str = "fail",
    folder: str | Path | None = None,
    **options: Any,
) -> Audit:
    """Assert that ``at_most`` so many samples of ``batch = (x, y)`` leak, and return the audit.

    ``by``: ``determined``, in every batch with this gradient, as is proved; ``recovered``, by the attack,
    which then runs; ``peel``, in the peeling closure; ``exan``, by the published condition. ``undecided``: a
    sample that is not decided counts as leaking (``fail``) or not (``allow``). A failure shows the samples
    beside what the attack rebuilds of them, and the same as an image in ``folder`` (default: the test's
    temporary folder). ``model``, ``batch`` and ``options`` as :func:`exan_verify.audit` takes them.

    Raises AssertionError, and :class:`InputError` naming what cannot be used.
    """
    __tracebackhide__ = True
    most = whole(at_most, "at_most", least=0)
    if by not in LEAKS:
        raise InputError(unknown("by", by, LEAKS))
    if undecided not in ("fail", "allow"):
        raise InputError(unknown("undecided", undecided, ["fail", "allow"]))
    found = audited(model, batch, **options, **({"attack": True} if by == "recovered" else {}))
    states = _leaking(found, by)
    leaks = [m for m, state in enumerate(states) if state]
    open_ones = [m for m, state in enumerate(states) if state is None]
    if len(leaks) > most:
        leak = f"{len(leaks)} of {found.batch_size} samples leak"
        head = f"{leak} ({by}), at most {most} may: {_numbers(leaks)}"
        raise AssertionError(_failure(head, found, leaks, model, batch, options, folder))
    if undecided == "fail" and len(leaks) + len(open_ones) > most:
        raise AssertionError(
            f"undecided whether {len(open_ones)} of {found.batch_size} samples leak ({by}): "
            f"{_numbers(open_ones)}. "
            f"{found.verdict.reason if by == 'determined' else found.no_attack or 'the budget ended'}. "
            "Undecided is not safe: give a larger budget or work limit, or say undecided='allow'"
        )
    return found


def assert_protected(
    model: Any,
    batch: Any = None,
    *,
    hidden_at_least: int | None = None,
    reach_at_least: float | None = None,
    samples: Sequence[int] | None = None,
    folder: str | Path | None = None,
    **options: Any,
) -> Audit:
    """Assert that every sample (or those of ``samples``) is proved to differ between two batches with this
    gradient, and return the audit.

    ``reach_at_least``: each of them moves by at least so much in some pixel (L-infinity), by a proved bound.
    ``hidden_at_least``: all samples together have a family of batches with this gradient of at least so many
    dimensions, by a proved count (at most M d). A sample that is not decided is not protected, one that moves
    by an unknown distance has no reach, and a single second batch has no dimension. The rest as in
    :func:`assert_leaks`.

    Raises AssertionError, and :class:`InputError` naming what cannot be used.
    """
    __tracebackhide__ = True
    least = 0 if hidden_at_least is None else whole(hidden_at_least, "hidden_at_least", least=1)
    reach = 0.0 if reach_at_least is None else float(positive(reach_at_least, "reach_at_least"))
    found = audited(model, batch, **options)
    chosen = range(found.batch_size) if samples is None else [_sample(m, found.batch_size) for m in samples]
    bad: dict[int, str] = {}
    for m in chosen:
        radius = found.radius[m]
        if found.verdict.samples[m] is SampleStatus.DETERMINED:
            bad[m] = "is determined"
        elif found.verdict.samples[m] is not SampleStatus.FREE:
            bad[m] = f"is not decided ({found.verdict.reason})"
        elif reach and (radius is None or radius < reach):
            known = (
                "moves, by no proved distance" if radius is None else f"moves by {radius:.3g} as is proved"
            )
            bad[m] = f"{known}, not by {reach:.3g}"
    if bad:
        lines = [f"sample {m} {why}" for m, why in list(bad.items())[:16]]
        head = "\n".join([f"{len(bad)} of {len(chosen)} samples are not protected:", *lines])
        shown = [m for m in bad if found.verdict.samples[m] is SampleStatus.DETERMINED]
        raise AssertionError(_failure(head, found, shown, model, batch, options, folder) if shown else head)
    hidden = (found.verdict.witness and found.verdict.witness.dimension) or 0
    if hidden < least:
        raise AssertionError(
            f"{hidden or 'no'} hidden dimensions are proved for the {found.batch_size} samples, not {least}: "
            f"{found.verdict.reason}"
        )
    return found


def _sample(m: Any, size: int) -> int:
    return whole(m, "samples", least=0, most=size - 1)


def _leaking(found: Audit, by: str) -> list[bool | None]:
    """Per sample whether it leaks; None is undecided."""
    if by == "determined":
        known = {SampleStatus.DETERMINED: True, SampleStatus.FREE: False}
        return [known.get(status) for status in found.verdict.samples]
    if by == "recovered":
        if found.attack is None:
            return [None] * found.batch_size
        rest = None if found.attack.found.unfinished else False
        return [True if one is not None else rest for one in found.attack.recoveries]
    state = found.exclusivity
    if state is None:
        return [None] * found.batch_size
    return list(state.peelable if by == "peel" else state.published_by_sample)


def _numbers(those: Sequence[int]) -> str:
    return ", ".join(map(str, those[:16])) + (f" and {len(those) - 16} more" if len(those) > 16 else "")


# what a failure shows


def _failure(
    head: str,
    found: Audit,
    leaks: Sequence[int],
    model: Any,
    batch: Any,
    options: Mapping[str, Any],
    folder: str | Path | None,
) -> str:
    """The head, a line per sample, the samples beside what the attack rebuilds, and where the image lies."""
    x, shape = _inputs(model, batch)
    recoveries, why = _recoveries(found, model, batch, options)
    lines = [head, "", *_table(found, leaks, recoveries), *([f"no attack to show: {why}"] if why else [])]
    for m in leaks[:_SHOWN]:
        one = recoveries[m]
        lines += ["", f"sample {m}, label {_label(found, m)}: original | rebuilt by the attack"]
        lines += _beside(x[m], None if one is None else np.asarray(one.values, np.float64).reshape(-1), shape)
    if len(leaks) > _SHOWN:
        lines.append(f"... and {len(leaks) - _SHOWN} more, in the image")
    path = _image(x, shape, leaks, recoveries, found, folder)
    return "\n".join([*lines, "", f"image: {path}"])


def _inputs(model: Any, batch: Any) -> tuple[Array, tuple[int, int] | None]:
    """The inputs (M, d) as floats, and the shape of the grey picture that a sample is, if it is one."""
    if batch is None and isinstance(model, Instance):
        batch = model.batch
    given = batch.inputs if isinstance(batch, Batch) else exact_array(batch[0], "x")
    x = np.asarray(given, dtype=np.float64)
    flat = x.reshape(len(x), -1)
    if x.ndim == 3 or (x.ndim == 4 and x.shape[1] == 1):
        return flat, (x.shape[-2], x.shape[-1])
    side = round(flat.shape[1] ** 0.5)
    return flat, (side, side) if x.ndim == 2 and side > 3 and side * side == flat.shape[1] else None


def _recoveries(
    found: Audit, model: Any, batch: Any, options: Mapping[str, Any]
) -> tuple[Sequence[Recovery | None], str]:
    """What the attack rebuilds, run for the failure's sake where the audit had none; why there is none."""
    from exan_verify.api.audit import audit

    attack, why = found.attack, found.no_attack
    if attack is None and not why:
        limits = {**RUNNING.get().options, **options, "attack": True}
        try:
            again = audit(model, batch, **limits)
        except ExanError as error:  # the assertion has failed already, and says so
            return [None] * found.batch_size, str(error)
        attack, why = again.attack, again.no_attack
    return (attack.recoveries, "") if attack is not None else ([None] * found.batch_size, why)


def _table(found: Audit, leaks: Sequence[int], recoveries: Sequence[Recovery | None]) -> list[str]:
    state = found.exclusivity
    rows = [("sample", "label", "proved", "ExANs by layer", "peelable", "attack")]
    for m in leaks[:16]:
        one = recoveries[m]
        rows.append(
            (
                str(m),
                _label(found, m),
                found.verdict.samples[m].value,
                "-" if state is None else " ".join(str(counts[m]) for counts in state.counts),
                "-" if state is None else ("yes" if state.peelable[m] else "no"),
                "-" if one is None else f"{one.tier}, error {one.largest:.1e}",
            )
        )
    sizes = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(word.ljust(n) for word, n in zip(row, sizes, strict=True)).rstrip() for row in rows]


def _label(found: Audit, m: int) -> str:
    label = found.classes[m]
    return str(label) if isinstance(label, int) else " ".join(f"{v:g}" for v in label)


def _beside(original: Array, rebuilt: Array | None, shape: tuple[int, int] | None) -> list[str]:
    if shape is None:
        left = _vector(original)
        return [f"  {left} | {'-' if rebuilt is None else _vector(rebuilt)}"]
    low, high = float(original.min()), float(original.max())
    left_rows = _drawn(original.reshape(shape), low, high)
    right_rows = [""] * len(left_rows) if rebuilt is None else _drawn(rebuilt.reshape(shape), low, high)
    return [f"  {a} | {b}".rstrip() for a, b in zip(left_rows, right_rows, strict=True)]


def _vector(values: Array) -> str:
    shown = ", ".join(f"{v:.6g}" for v in values[:8])
    return f"({shown}{', ...' if len(values) > 8 else ''})"


def _drawn(picture: Array, low: float, high: float) -> list[str]:
    """A grey picture in characters, dark to bright, thinned to a size that a terminal shows."""
    rows, columns = picture.shape
    down, across = -(-rows // _ROWS), -(-columns // _COLUMNS)
    span = (high - low) or 1.0
    bright = np.clip((picture[::down, ::across] - low) / span, 0, 1)
    return ["".join(_SHADES[round(float(v) * (len(_SHADES) - 1))] for v in row) for row in bright]


def _image(
    x: Array,
    shape: tuple[int, int] | None,
    leaks: Sequence[int],
    recoveries: Sequence[Recovery | None],
    found: Audit,
    folder: str | Path | None,
) -> Path:
    """The leaking samples above what was rebuilt of them, as a PNG file; vectors as two rows of pixels."""
    from exan_verify.api.files import write_atomically
    from exan_verify.report.sheets import contact_sheet

    def picture(values: Any) -> Array:
        """(C, H, W) or (H, W) where a shape is known, else two equal rows (2, d)."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        return flat.reshape(shape) if shape is not None else np.repeat(np.stack([flat, flat]), 2, axis=1)

    running = RUNNING.get()
    place = Path(folder) if folder is not None else running.folder() if running.folder else None
    if place is None:
        place = Path(tempfile.mkdtemp(prefix="exan-"))
    rebuilt = [recoveries[m] for m in leaks]
    sheet = contact_sheet(
        np.stack([picture(x[m]) for m in leaks]),
        {"rebuilt": [None if one is None else picture(one.values) for one in rebuilt]},
        labels=[f"{m}: label {_label(found, m)}" for m in leaks],
        title="samples that leak, above what the attack rebuilds of them",
    )
    number = sum(1 for _ in place.glob("exan-leaks*.png"))
    path = place / f"exan-leaks{number or ''}.png"
    write_atomically(path, sheet)
    return path
