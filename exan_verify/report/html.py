"""Render a report with its template; everything is escaped and nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jinja2

import exan_verify
from exan_verify.report.content import Section, cards, headline, rows

_HEAT_STEPS = 8


def render(title: str, sections: Sequence[Section], *, commands: Mapping[str, str] | None = None) -> str:
    """The report as one HTML text. ``commands``: what to type to get each result again, by name."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("exan_verify.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["heat"] = heat
    return environment.get_template("report.html").render(
        title=title,
        sections=[
            {
                "section": section,
                "headline": headline(section),
                "cards": list(cards(section)),
                "rows": list(rows(section)),
                "meaning": section.audit.verdict.meaning,
            }
            for section in sections
        ],
        commands=commands or {},
        version=exan_verify.__version__,
    )


def heat(count: int) -> int:
    """Shade 0 to 8 of an ExAN count: none, then roughly by doubling."""
    return min(_HEAT_STEPS, count.bit_length() if count > 2 else count)
