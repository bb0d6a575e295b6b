"""The page of a run: shares of its samples, curves, epochs, the worst steps, and the gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import exan_verify
from exan_verify.api.runs.run_report import RunReport, Totals
from exan_verify.report.curves import LINES, curves, share
from exan_verify.report.html import templates

_NAMES = {name: label for name, (label, _, _) in LINES.items()}


def render_run(title: str, found: RunReport, *, commands: Mapping[str, str] | None = None) -> str:
    """The report as one HTML text. ``commands``: what to type to get the result again, by name."""
    steps = max(len(found.folder), found.folder.last + 1)
    return (
        templates()
        .get_template("run.html")
        .render(
            title=title,
            found=found,
            headline=_headline(found),
            cards=[_card(found.all, name) for name in LINES],
            figures=curves(found.steps(), steps).figures(),
            epochs=[{"epoch": epoch, **_row(one)} for epoch, one in found.epochs.items()],
            whole=_row(found.all),
            gates={name: found.gate(name) for name in found.gates},
            names=_NAMES,
            commands=commands or {},
            version=exan_verify.__version__,
        )
    )


def percent(value: float | None) -> str:
    """A share as text; none is rounded up to all, or down to nothing."""
    if value is None:
        return "-"
    if 0 < value < 0.001 or 0.999 < value < 1:
        return "< 0.1 %" if value < 0.5 else "> 99.9 %"
    return f"{100 * value:.1f} %".replace(".0 %", " %")


def _headline(found: RunReport) -> str:
    steps, samples = found.all.steps, found.all.samples
    of = "" if found.total is None or found.total == steps else f" of {found.total}"
    said = (
        f"In {steps}{of} steps, {percent(share(found.all, 'determined'))} of {samples} samples are proved to "
        "be in every batch that has their step's gradient"
    )
    recovered = share(found.all, "recovered")
    return f"{said}." if recovered is None else f"{said}; the attack recovers {percent(recovered)}."


def _card(counts: Totals, name: str) -> dict[str, str]:
    value = share(counts, name)
    known = counts.of["confirmed" if name == "recovered" else name]
    details = {
        "determined": f"{counts.counts['determined']} of {known} samples; "
        f"{counts.counts['unknown']} undecided",
        "recovered": f"{counts.counts['confirmed']} confirmed, {counts.counts['consistent']} consistent, "
        f"{counts.counts['candidates']} candidates",
    }
    detail = details.get(name, f"{counts.counts.get(name, 0)} of {known} samples")
    meanings = {
        "determined": "Proved in exact arithmetic. Undecided is never a promise of safety.",
        "recovered": "Rebuilt in floating point from model and gradient alone.",
        "peelable": "An exclusive neuron gives a sample away exactly; subtracting it makes further ones "
        "exclusive.",
        "published": "Two exclusive neurons in the last hidden layer and one in every other. Its absence "
        "protects nobody.",
    }
    return {
        "name": _NAMES[name][0].upper() + _NAMES[name][1:],
        "value": "not asked" if value is None else percent(value),
        "detail": "" if value is None else detail,
        "meaning": meanings[name],
        "tone": "bad" if value else "plain",
    }


def _row(counts: Totals) -> dict[str, Any]:
    return {
        "steps": counts.steps,
        "samples": counts.samples,
        "outcomes": ", ".join(f"{n} {outcome.upper()}" for outcome, n in sorted(counts.outcomes.items())),
        **{name: percent(share(counts, name)) for name in LINES},
    }
