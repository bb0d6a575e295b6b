"""The page of a mitigation: the recommendation, the table, and the pictures that each defence leaves."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

import exan_verify
from exan_verify.core.network import Array
from exan_verify.core.verdict import SampleStatus
from exan_verify.mitigation.report import Finding, MitigationReport
from exan_verify.report.html import templates
from exan_verify.report.sheets import contact_sheet, picture_shape, square_shape

MOST = 8
"""Samples on the sheet: one picture per defence below each."""

_DPI = 150
_EXACT = 100.0
"""PSNR in dB above which a picture is called exact."""


def render_defences(title: str, found: MitigationReport, *, commands: Mapping[str, str] | None = None) -> str:
    """The report as one HTML text. ``commands``: what to type to get the result again, by name."""
    return (
        templates()
        .get_template("defences.html")
        .render(
            title=title,
            found=found,
            rows=[_row(one) for one in (found.before, *found.defences)],
            details=[{"name": one.name, "lines": list(_details(one, found))} for one in found.defences],
            sheet=_sheet(found),
            most=min(MOST, found.batch_size),
            commands=commands or {},
            version=exan_verify.__version__,
        )
    )


def _row(one: Finding) -> dict[str, Any]:
    """The cells of a defence, as texts."""
    gained, protection, cost, size = one.attack, one.protection, one.cost, len(one.samples)
    reach = protection.reach
    tiers = {"confirmed": gained.confirmed, "consistent": gained.consistent, "candidates": gained.candidates}
    return {
        "name": one.name,
        "exans": one.exclusivity.total,
        "peelable": one.exclusivity.peelable,
        "outcome": one.outcome,
        "determined": one.count(SampleStatus.DETERMINED),
        "free": one.count(SampleStatus.FREE),
        "leaks": one.useless,
        "hides": one.proved_hidden,
        "tiers": ", ".join(f"{n} {name}" for name, n in tiers.items() if n) or "nothing",
        "enters": gained.enters,
        "readable": f"{gained.readable} of {size}",
        "psnr": _decibels(gained.psnr),
        "rmse": "-" if gained.rmse is None else f"{gained.rmse:.1e}",
        "hidden": "-" if protection.hidden is None else f"{protection.hidden} of {protection.of}",
        "reach": "-" if reach is None else f"{reach.interval[0]:.2f} / {reach.farthest[0]:.2f}",
        "estimate": _decibels(protection.psnr),
        "accuracy": "-" if cost.accuracy is None else f"{cost.accuracy:.3f}",
        "distortion": "-" if cost.distortion is None else f"{cost.distortion:.2g}",
        "epsilon": _epsilon(cost.epsilon),
        "epsilon_run": _epsilon(cost.epsilon_run),
    }


def _details(one: Finding, found: MitigationReport) -> Iterator[tuple[str, str]]:
    """What is said of a defence below the table, by name."""
    if one.verdict is not None:
        yield f"verdict on the {one.asked_of}", f"{one.verdict.outcome.value.upper()}: {one.verdict.reason}"
        yield "rests on", one.verdict.rests_on if one.verdict.trust else "nothing: it was not decided"
    else:
        yield "verdict", f"none: {one.protection.note or 'no exact question can be asked of what is sent'}"
    if one.means is not None:
        yield "verdict on the means", f"{one.means.outcome.value.upper()}: {one.means.reason}"
    if (reach := one.protection.reach) is not None:
        yield (
            "reach",
            f"inside {reach.domain} a pixel takes an interval of {reach.interval[0]:.2f} (median; least "
            f"{reach.interval[1]:.2f}) while what is sent stays the same; the farthest such input is "
            f"{reach.farthest[0]:.2f} away (L-infinity; least {reach.farthest[1]:.2f})",
        )
    if one.protection.public:
        yield "estimate", f"LMMSE from mean and covariance of {one.protection.public} public samples"
    if one.cost.epsilon is not None:
        yield "epsilon", f"at delta {found.delta:g}; over the training run by {found.accountant}"
    if one.cost.note:
        yield "training", one.cost.note
    for name, value in one.facts.items():
        yield name, f"{value:.2g}" if isinstance(value, float) else str(value)
    if one.attack.reason:
        yield "attack", one.attack.reason
    yield "assumes", one.assumes


def _sheet(found: MitigationReport) -> str | None:
    """Originals, and below each what every defence leaves of it, as a ``data:`` URI; None for inputs that are
    no pictures. Defences of which other samples are sent have no row."""
    shape = _shape(found)
    if shape is None:
        return None
    shown = min(MOST, found.batch_size)
    rows: dict[str, list[Any]] = {}
    for one in (found.before, *found.defences):
        pictures = one.attack.by_sample[:shown]
        if one.subjects.shape[0] < shown or (one.subjects[:shown] != found.inputs[:shown]).any():
            continue
        rows[one.name] = [None if p is None else p.values.reshape(shape) for p in pictures]
        estimate = one.protection.pictures
        if estimate is not None and one.attack.enters == "projections":
            rows[f"{one.name.removeprefix('project-')} LMMSE"] = [
                row.reshape(shape) for row in estimate[:shown]
            ]
    originals: Array = found.inputs[:shown].reshape(shown, *shape)
    labels = [f"{m}: label {label}" for m, label in enumerate(found.classes[:shown])]
    png = contact_sheet(originals, rows, labels=labels, columns=MOST, most=MOST, dpi=_DPI)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _shape(found: MitigationReport) -> tuple[int, ...] | None:
    """The shape of one picture: as given, or square where flat inputs can be square pictures."""
    if picture_shape((found.batch_size, *found.shape)) is not None:
        return found.shape
    return square_shape(found.inputs.shape[1], least=2)


def _decibels(value: float | None) -> str:
    if value is None:
        return "-"
    return "exact" if value > _EXACT else f"{value:.1f}"


def _epsilon(value: float | None) -> str:
    if value is None:
        return "-"
    return "infinite" if math.isinf(value) else f"{value:.2f}"
