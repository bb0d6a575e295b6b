"""Curves: shares of samples against the position in a run, the batch size and the accuracy, as inline SVG,
drawn from counts over bins, so that a long run is no larger than a short one; those of a sweep, as PNG.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exan_verify.api.runs.run_report import Totals
from exan_verify.api.runs.step_record import StepRecord
from exan_verify.api.runs.sweep import SweepReport

BINS = 120
"""Points of a curve at most: more cannot be told apart in a figure of this width."""

LINES = {
    "determined": ("proved determined", "#a4262c", "o"),
    "recovered": ("recovered by the attack", "#3a5a8c", "s"),
    "peelable": ("can be peeled", "#b07d1a", "^"),
    "published": ("meet the published condition", "#5d6675", "v"),
}
"""What is drawn: a name for the legend, a colour that can be read on light and dark, a mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Counts by the middle of a bin: of the position in the run, of the batch size, of the accuracy."""

    by_step: dict[float, Totals] = field(default_factory=dict)
    by_size: dict[float, Totals] = field(default_factory=dict)
    by_accuracy: dict[float, Totals] = field(default_factory=dict)

    def figures(self) -> dict[str, str]:
        """SVG elements by what they are drawn against; one point is no curve, but a batch size may be one."""
        made = {}
        for name, counts in (
            ("step", self.by_step),
            ("batch size", self.by_size),
            ("accuracy", self.by_accuracy),
        ):
            if len(counts) > 1 or (name == "step" and counts):
                made[name] = _svg(counts, name)
        return made


def curves(records: Iterable[StepRecord], steps: int) -> Curves:
    """Count the finished steps of a run of so many ``steps``, in one pass."""
    found = Curves()
    width = max(1, -(-steps // BINS))
    largest = 1
    for record in records:
        middle = (record.index // width) * width + (width - 1) / 2
        largest = max(largest, record.batch_size)
        keys = [(found.by_step, middle), (found.by_size, float(record.batch_size))]
        if record.accuracy is not None:
            keys.append((found.by_accuracy, min(int(record.accuracy * 40), 39) / 40 + 1 / 80))
        for counts, key in keys:
            # beyond so many sizes, the nearest that is there
            if key not in counts and len(counts) >= 2 * BINS:
                key = min(counts, key=lambda other, key=key: abs(other - key))  # type: ignore[misc]
            counts.setdefault(key, Totals()).add(record)
    return found


def share(counts: Totals, name: str) -> float | None:
    """The share of :data:`LINES`, in [0, 1]; None where it is not known."""
    if name != "recovered":
        return counts.share(name)
    confirmed, consistent = counts.share("confirmed"), counts.share("consistent")
    return None if confirmed is None or consistent is None else confirmed + consistent


def sweep_figure(found: SweepReport) -> bytes:
    """A PNG file: the shares of a sweep against its values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    values = [one.value for one in found.points]
    counts = {float(one.value): one.totals for one in found.points}
    _draw(axes, counts)
    if len(values) > 1 and min(values) > 0:
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    named = {"batch": "batch size", "width": "width", "epoch": "epochs of training"}[found.over]
    axes.set_xlabel(named)
    each = "" if found.batch_size is None else f" of {found.batch_size} samples"
    axes.set_title(f"{found.repeat} batches{each} for each value", fontsize=9)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(axes: Any, counts: Mapping[float, Totals]) -> None:
    """A line for each share that is known, on an axis from none to all."""
    places = sorted(counts)
    for name, (label, colour, mark) in LINES.items():
        points = [(x, value) for x in places if (value := share(counts[x], name)) is not None]
        if points:
            _line(axes, points, label, colour, mark)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel("share of samples")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _svg(counts: Mapping[float, Totals], against: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"exan {against}",  # ids are made from it: the same run gives the same file
        "font.size": 9,
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), "#878d97"),
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.4, 3.4), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        _draw(axes, counts)
        axes.set_xlabel("position in the run" if against == "step" else against)
        if against != "accuracy":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=2, frameon=False)  # beside it, a phone has no room
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _line(axes: Any, points: Sequence[tuple[float, float]], label: str, colour: str, mark: str) -> None:
    """Lines that coincide are told apart by their marks, which are hollow."""
    axes.plot(
        *zip(*points, strict=True),
        "-" if len(points) > 1 else "",
        marker=mark,
        markersize=4,
        markerfacecolor="none",
        linewidth=1.4,
        color=colour,
        label=label,
    )
