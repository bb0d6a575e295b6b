"""Render a report with its template; everything is escaped and nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

import exan_verify
from exan_verify.api.audit import NO_AUDIT
from exan_verify.report.content import Section, cards, headline, label_text, rows
from exan_verify.report.drawing import draw

_HEAT_STEPS = 8
_OPEN_ROWS = 64
"""Samples listed at once; the rest of a larger batch is folded away."""

_MAP_COLUMNS = 32
"""Samples side by side in the exclusivity map."""


def render(title: str, sections: Sequence[Section], *, commands: Mapping[str, str] | None = None) -> str:
    """The report as one HTML text. ``commands``: what to type to get each result again, by name."""
    environment = templates()
    environment.filters |= {"heat": heat, "label": label_text}
    return environment.get_template("report.html").render(
        title=title,
        sections=[_part(section) for section in sections],
        commands=commands or {},
        no_audit=NO_AUDIT,
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


def heat(count: int) -> int:
    """Shade 0 to 8 of an ExAN count: none, then roughly by doubling."""
    return min(_HEAT_STEPS, count.bit_length() if count > 2 else count)


def _part(section: Section) -> dict[str, Any]:
    listed = list(rows(section))
    return {
        "section": section,
        "headline": headline(section),
        "cards": list(cards(section)),
        "sheet": draw(section),
        "rows": listed[:_OPEN_ROWS],
        "folded": listed[_OPEN_ROWS:],
        "bands": list(_bands(section)),
    }


def _bands(section: Section) -> Iterator[dict[str, Any]]:
    """The exclusivity map, a few samples at a time: their numbers, and the counts of each hidden layer."""
    state = None if section.audit is None else section.audit.exclusivity
    counts = () if state is None else state.counts
    for start in range(0, section.size if counts else 0, _MAP_COLUMNS):
        stop = min(start + _MAP_COLUMNS, section.size)
        yield {"samples": range(start, stop), "layers": [layer[start:stop] for layer in counts]}
