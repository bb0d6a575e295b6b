"""Render a report with its template; everything is escaped and nothing is loaded from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

import exan_verify
from exan_verify.api.audit import NO_AUDIT
from exan_verify.report.advice import advice
from exan_verify.report.content import Section, cards, headline, label_text, rows
from exan_verify.report.drawing import MAP_COLUMNS, Drawer, neuron_map
from exan_verify.report.samples import sample_cards

_HEAT_STEPS = 8
_OPEN_ROWS = 64
"""Samples listed at once; the rest of a larger batch is folded away."""

_MAP_COLUMNS = 32
"""Samples side by side in the table of exclusive neurons."""

_NEURON_PIXELS = 16
"""Side of a neuron's square in the map where the page is wide enough: 64 of them fill it."""


def render(title: str, sections: Sequence[Section], *, commands: Mapping[str, str] | None = None) -> str:
    """The report as one HTML text. ``commands``: what to type to get each result again, by name."""
    environment = templates()
    environment.filters |= {"heat": heat, "label": label_text, "unbroken": unbroken}
    return environment.get_template("report.html").render(
        title=title,
        sections=[_part(section) for section in sections],
        commands=commands or {},
        no_audit=NO_AUDIT,
        infinity=math.inf,
        version=exan_verify.__version__,
    )


def templates() -> jinja2.Environment:
    """The templates of this package, with everything escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("exan_verify.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def unbroken(text: str) -> str:
    """The same, but a number such as 2.1e-15 is not broken at its sign: with a word joiner, which has no
    width, behind it."""
    return re.sub(r"(?<=\de-)(?=\d)", "\u2060", text)


def heat(count: int) -> int:
    """Shade 0 to 8 of an ExAN count: none, then roughly by doubling."""
    return min(_HEAT_STEPS, count.bit_length() if count > 2 else count)


def sharing(active_for: Sequence[int], size: int) -> list[tuple[str, int]]:
    """How many neurons of a layer are active for no sample, for one, for 2, for 3 to 4, ... of ``size``."""
    bounds = [(0, 0), (1, 1)]
    while bounds[-1][1] < size:
        low = bounds[-1][1] + 1
        bounds.append((low, min(2 * bounds[-1][1], size)))
    names = {0: "no sample", 1: "one sample only"}
    return [
        (
            names.get(low, f"{low} samples" if low == high else f"{low} to {high} samples"),
            sum(low <= n <= high for n in active_for),
        )
        for low, high in bounds
    ]


def _part(section: Section) -> dict[str, Any]:
    listed = list(rows(section))
    drawer = Drawer(section.inputs)
    shown = list(sample_cards(section, drawer))
    return {
        "section": section,
        "headline": headline(section),
        "advice": advice(section),
        "cards": list(cards(section)),
        "samples": shown,
        "left_out": section.size - len(shown),
        "guessed": drawer.shape if drawer.guessed else None,
        "entries": section.inputs.reshape(section.size, -1).shape[1],
        "rows": listed[:_OPEN_ROWS],
        "folded": listed[_OPEN_ROWS:],
        "bands": list(_bands(section)),
        "layers": list(_layers(section)),
    }


def _bands(section: Section) -> Iterator[dict[str, Any]]:
    """Exclusive neurons by sample, a few samples at a time: their numbers, and the counts of each layer."""
    state = None if section.audit is None else section.audit.exclusivity
    counts = () if state is None else state.counts
    for start in range(0, section.size if counts else 0, _MAP_COLUMNS):
        stop = min(start + _MAP_COLUMNS, section.size)
        yield {"samples": range(start, stop), "layers": [layer[start:stop] for layer in counts]}


def _layers(section: Section) -> Iterator[dict[str, Any]]:
    """The exclusivity map of each hidden layer: its picture, and what it shows in numbers."""
    state = None if section.audit is None else section.audit.exclusivity
    for k, active_for in enumerate(() if state is None else state.active_for):
        counts = sharing(active_for, section.size)
        yield {
            "number": k + 1,
            "width": len(active_for),
            "map": neuron_map(active_for, section.size),
            "pixels": _NEURON_PIXELS * min(MAP_COLUMNS, len(active_for)),
            "counts": counts,
            "most": max(1, *(n for _, n in counts)),
        }
