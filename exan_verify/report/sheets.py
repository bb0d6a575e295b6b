"""Contact sheets: originals above what was recovered of them, with RMSE, PSNR and SSIM, as one PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.core.network import Array
from exan_verify.errors import InputError, ShapeError

Picture = npt.NDArray[np.float64]

COLUMNS = 16
"""Samples side by side; more begin a new band of rows."""

MOST = 64
"""Samples on one sheet; more are counted in a line below it."""

_SSIM_WINDOW = 7
"""Pixels per side of SSIM's window (Wang et al. 2004, as scikit-image has it); less for smaller pictures."""

_TILE, _GAP, _LINE, _MARGIN = 1.0, 0.14, 0.125, 0.12
"""Inches: width of a picture, space between two, height of a line of text, margin of the sheet."""

_POINTS = 7.0
_SMALLEST = 8
"""Pixels per side of the smallest picture that a flat input is taken for where nobody says so."""

_TALLEST = 2.0
"""Height of a picture over its width at most; longer ones are drawn narrower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How near a picture is to its original, on its scale: RMSE, PSNR in dB (infinite when equal), and SSIM,
    at most 1 (NaN for pictures with fewer than 3 x 3 pixels)."""

    rmse: float
    psnr: float
    ssim: float

    def lines(self) -> tuple[str, ...]:
        """RMSE, PSNR and SSIM as short lines of text."""
        psnr = "exact" if math.isinf(self.psnr) else f"PSNR {self.psnr:.1f} dB"
        return (f"RMSE {self.rmse:.1e}", psnr, *(() if math.isnan(self.ssim) else (f"SSIM {self.ssim:.2f}",)))


def likeness(original: Any, found: Any, *, data_range: float = 1.0) -> Likeness:
    """Compare two pictures (H, W), (1, H, W) or (3, H, W). Raises :class:`ShapeError` where they differ."""
    a, b = (np.asarray(picture, dtype=np.float64) for picture in (original, found))
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise ShapeError(f"pictures of shapes {a.shape} and {b.shape} cannot be compared; give equal shapes")
    error = float(np.square(a - b).mean())
    psnr = math.inf if error == 0 else 10 * math.log10(data_range**2 / error)
    return Likeness(rmse=math.sqrt(error), psnr=psnr, ssim=_ssim(a, b, data_range))


def picture_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """(H, W) or (3, H, W) for the shape of a batch of pictures; None for other batches."""
    if len(shape) == 3 and min(shape[1:]) > 1:
        return shape[1:]
    if len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) > 1:
        return shape[2:] if shape[1] == 1 else shape[1:]
    return None


def square_shape(entries: int, *, least: int = _SMALLEST) -> tuple[int, ...] | None:
    """(H, W) or (3, H, W) with H = W where a flat input of so many entries can be such a picture, of at least
    ``least`` x ``least`` pixels."""
    for channels in (1, 3):
        side = math.isqrt(entries // channels)
        if side >= least and channels * side * side == entries:
            return (side, side) if channels == 1 else (3, side, side)
    return None


def require_pictures(shape: tuple[int, ...]) -> tuple[int, ...]:
    """:func:`picture_shape`, or a :class:`ShapeError` for batches that are no pictures."""
    found = picture_shape(shape)
    if found is None:
        raise ShapeError(
            f"x has shape {shape}, which is no batch of pictures; "
            "give (M, H, W), (M, 1, H, W) or (M, 3, H, W)"
        )
    return found


def sample_labels(y: Array) -> list[str]:
    """A text per sample for a sheet: its number, and its label where labels are classes (M,)."""
    return [f"{m}: label {v:g}" for m, v in enumerate(y)] if y.ndim == 1 else [str(m) for m in range(len(y))]


def contact_sheet(
    originals: Array,
    rows: Mapping[str, Sequence[Any]],
    *,
    labels: Sequence[str] = (),
    title: str = "",
    columns: int = COLUMNS,
    most: int = MOST,
    dpi: int = 120,
) -> bytes:
    """A PNG file: the ``originals`` (M, H, W), (M, 1, H, W) or (M, 3, H, W), and ``rows`` below them by name.

    Every row has one picture per original, or None where there is none; each picture carries the row's
    name and its scores. ``labels``: one text per original. Of more than ``most`` samples the first are drawn,
    and a line says how many are not. Values are drawn on the scale of the originals, which is [0, 1] when
    they lie in it.

    Raises :class:`ShapeError` when ``originals`` are no pictures, :class:`InputError` when numbers differ.
    """
    originals = np.asarray(originals, dtype=np.float64)
    shape = require_pictures(originals.shape)
    _check_lengths(len(originals), rows, labels)
    black, span = value_scale(originals)
    shown = min(len(originals), most)
    left_out = len(originals) - shown
    footer = f"{shown} of {len(originals)} samples; {left_out} more are not shown" if left_out else ""
    sheet = _Sheet(shape, shown, len(rows), min(columns, shown), title, footer)
    for m in range(shown):
        original = (originals[m].reshape(shape) - black) / span
        sheet.original(m, original, labels[m] if labels else str(m))
        for place, (name, pictures) in enumerate(rows.items()):
            if pictures[m] is None:
                sheet.missing(m, place)
                continue
            found = (np.asarray(pictures[m], dtype=np.float64).reshape(shape) - black) / span
            sheet.found(m, place, found, (name, *likeness(original, found).lines()))
    return sheet.png(dpi)


class _Sheet:
    """Where tiles go: bands of originals with a row of found pictures each below; positions in inches."""

    def __init__(
        self, shape: tuple[int, ...], size: int, rows: int, columns: int, title: str, footer: str
    ) -> None:
        from matplotlib.figure import Figure

        aspect = shape[-2] / shape[-1]
        self._columns = columns
        self._high = _TILE * min(aspect, _TALLEST)
        self._below = self._high + 4 * _LINE + _GAP
        self._band = _LINE + self._high + rows * self._below + _GAP
        self._top = _MARGIN + (2 * _LINE if title else 0)
        bands = -(-size // columns)
        self._width = 2 * _MARGIN + columns * (_TILE + _GAP) - _GAP
        self._height = self._top + bands * self._band + (2 * _LINE if footer else 0)
        self._figure = Figure(figsize=(self._width, self._height), facecolor="white")
        if title:
            self._text(self._width / 2, _MARGIN, title)
        if footer:
            self._text(self._width / 2, self._height - 2 * _LINE, footer)

    def original(self, m: int, picture: Picture, label: str) -> None:
        left, top = self._place(m)
        self._text(left + _TILE / 2, top, label)
        self._picture(left, top + _LINE, picture)

    def found(self, m: int, row: int, picture: Picture, lines: Sequence[str]) -> None:
        left, top = self._row(m, row)
        self._picture(left, top, picture)
        self._text(left + _TILE / 2, top + self._high + 0.02, "\n".join(lines))

    def missing(self, m: int, row: int) -> None:
        left, top = self._row(m, row)
        axis = self._axis(left, top)
        axis.set(xticks=[], yticks=[], facecolor="#f1f0ec")
        for side in axis.spines.values():
            side.set(color="#b9b5aa", linewidth=0.6)
        self._text(left + _TILE / 2, top + self._high / 2 - _LINE / 2, "not found", color="#5d6675")

    def png(self, dpi: int) -> bytes:
        stream = io.BytesIO()
        self._figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
        return stream.getvalue()

    def _place(self, m: int) -> tuple[float, float]:
        band, column = divmod(m, self._columns)
        return _MARGIN + column * (_TILE + _GAP), self._top + band * self._band

    def _row(self, m: int, row: int) -> tuple[float, float]:
        left, top = self._place(m)
        return left, top + _LINE + self._high + _GAP / 2 + row * self._below

    def _axis(self, left: float, top: float) -> Any:
        bottom = self._height - top - self._high
        width, height = self._width, self._height
        return self._figure.add_axes((left / width, bottom / height, _TILE / width, self._high / height))

    def _picture(self, left: float, top: float, picture: Picture) -> None:
        """Values are clipped to [0, 1]."""
        pixels = np.clip(picture, 0, 1)
        axis = self._axis(left, top)
        axis.set_axis_off()
        axis.imshow(
            pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1),
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )

    def _text(self, middle: float, top: float, text: str, color: str = "#1d2430") -> None:
        x, y = middle / self._width, 1 - top / self._height
        self._figure.text(x, y, text, fontsize=_POINTS, color=color, ha="center", va="top", linespacing=1.15)


def _ssim(a: Picture, b: Picture, data_range: float) -> float:
    from skimage.metrics import structural_similarity

    window = min(_SSIM_WINDOW, *a.shape[-2:])
    window -= 1 - window % 2
    if window < 3:
        return math.nan
    axis = 0 if a.ndim == 3 else None
    return float(structural_similarity(a, b, win_size=window, data_range=data_range, channel_axis=axis))


def _check_lengths(size: int, rows: Mapping[str, Sequence[Any]], labels: Sequence[str]) -> None:
    for name, pictures in rows.items():
        if len(pictures) != size:
            raise InputError(f"row {name!r} has {len(pictures)} pictures for {size} originals; give one each")
    if labels and len(labels) != size:
        raise InputError(f"there are {len(labels)} labels for {size} originals; give one each")


def value_scale(originals: Picture) -> tuple[float, float]:
    """The value that is drawn black, and how far above it white lies: 0 and 1 for values in [0, 1]."""
    low, high = float(originals.min()), float(originals.max())
    if (low >= 0 and high <= 1) or low == high:
        return 0.0, 1.0
    return low, high - low
