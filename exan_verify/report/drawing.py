"""The contact sheet of a section: originals above what the attack made of them, as a ``data:`` URI."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from exan_verify.report.content import Section, label_text
from exan_verify.report.sheets import contact_sheet, picture_shape

COLUMNS = 8
"""A page is as wide as eight pictures with legible scores below them."""

MOST = 48
_DPI = 180
_PAGE_DPI = 108
"""Eight columns fill the page, and few samples are drawn no larger."""

_LONGEST = 12
"""Longest label, in characters, that fits above a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A sheet as ``uri``, its ``width`` in pixels of a page, what it shows in words, and how many samples it
    leaves out."""

    uri: str
    width: int
    alt: str
    shown: int
    left_out: int


def draw(section: Section) -> Drawn | None:
    """The first :data:`MOST` samples of a section; None where its inputs are no pictures."""
    if picture_shape(section.inputs.shape) is None:
        return None
    rows = {}
    if section.recoveries is not None:
        rows["recovered"] = [None if r is None else r.values for r in section.recoveries]
    if any(one is not None for one in section.candidates):
        rows["candidate"] = [None if one is None else one.values for one in section.candidates]
    if section.estimates is not None:
        rows["estimated"] = list(section.estimates)
        if not any(r is not None for r in rows["recovered"]):
            del rows["recovered"]  # a row without a picture says no more than the table
    labels = [_label(m, label_text(label)) for m, label in enumerate(section.labels)]
    png = contact_sheet(section.inputs, rows, labels=labels, columns=COLUMNS, most=MOST, dpi=_DPI)
    shown = min(section.size, MOST)
    return Drawn(
        uri="data:image/png;base64," + base64.b64encode(png).decode(),
        width=int.from_bytes(png[16:20]) * _PAGE_DPI // _DPI,  # ISO/IEC 15948: the width comes first
        alt=f"{shown} samples: {' above '.join(('originals', *rows))}",
        shown=shown,
        left_out=section.size - shown,
    )


def _label(m: int, text: str) -> str:
    return f"{m}: label {text}" if len(text) <= _LONGEST else str(m)
