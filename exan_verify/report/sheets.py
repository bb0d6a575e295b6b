"""Contact sheets: originals above what was recovered of them, with PSNR and SSIM, as one PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.errors import InputError, ShapeError
from exan_verify.network import Array
from exan_verify.report.png import picture_shape

Picture = npt.NDArray[np.float64]

_COLUMNS = 16
"""Samples side by side; more begin a new band of rows."""

_SSIM_WINDOW = 7
"""Pixels per side of SSIM's window (Wang et al. 2004, as scikit-image has it); less for smaller pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How near a picture is to its original: PSNR in dB (infinite when equal), SSIM at most 1."""

    psnr: float
    ssim: float


def likeness(original: Any, found: Any, *, data_range: float = 1.0) -> Likeness:
    """Compare two pictures (H, W), (1, H, W) or (3, H, W). Raises :class:`ShapeError` where they differ."""
    from skimage.metrics import structural_similarity

    a, b = (np.asarray(picture, dtype=np.float64) for picture in (original, found))
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise ShapeError(f"pictures of shapes {a.shape} and {b.shape} cannot be compared; give equal shapes")
    window = min(_SSIM_WINDOW, *a.shape[-2:])
    window -= 1 - window % 2
    error = float(np.square(a - b).mean())
    axis = 0 if a.ndim == 3 else None
    ssim = structural_similarity(a, b, win_size=window, data_range=data_range, channel_axis=axis)
    return Likeness(psnr=math.inf if error == 0 else 10 * math.log10(data_range**2 / error), ssim=float(ssim))


def contact_sheet(
    originals: Array, rows: Mapping[str, Sequence[Any]], *, labels: Sequence[str] = (), title: str = ""
) -> bytes:
    """A PNG file: the ``originals`` (M, H, W), (M, 1, H, W) or (M, 3, H, W), and ``rows`` below them by name.

    Every row has one picture per original, or None where there is none. ``labels``: one text per original.
    Values are drawn on the scale of the originals, which is [0, 1] when they lie in it.

    Raises :class:`ShapeError` when ``originals`` are no pictures, :class:`InputError` when numbers differ.
    """
    from matplotlib.figure import Figure

    originals = np.asarray(originals, dtype=np.float64)
    shape = picture_shape(originals.shape)
    if shape is None:
        raise ShapeError(
            f"x has shape {originals.shape}, which is no batch of pictures; "
            "give (M, H, W), (M, 1, H, W) or (M, 3, H, W)"
        )
    _check_lengths(len(originals), rows, labels)
    black, span = _scale(originals)
    bands = range(0, len(originals), _COLUMNS)
    columns = min(_COLUMNS, len(originals))
    height = len(bands) * (1 + len(rows))
    figure = Figure(figsize=(1.1 * columns + 0.9, 1.35 * height + 0.4), dpi=120, layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for band, start in enumerate(bands):
        for column, m in enumerate(range(start, min(start + _COLUMNS, len(originals)))):
            top = band * (1 + len(rows))
            original = (originals[m].reshape(shape) - black) / span
            text = labels[m] if labels else str(m)
            _draw(axes[top, column], original, text, "original" if column == 0 else "")
            for place, (name, pictures) in enumerate(rows.items()):
                axis, side = axes[top + 1 + place, column], name if column == 0 else ""
                if pictures[m] is None:
                    _draw(axis, np.ones(shape), "not recovered", side)
                    continue
                found = (np.asarray(pictures[m], dtype=np.float64).reshape(shape) - black) / span
                scored = likeness(original, found)
                psnr = "exact" if math.isinf(scored.psnr) else f"{scored.psnr:.1f} dB"
                _draw(axis, found, f"{psnr}\nSSIM {scored.ssim:.2f}", side)
    if title:
        figure.suptitle(title, fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _check_lengths(size: int, rows: Mapping[str, Sequence[Any]], labels: Sequence[str]) -> None:
    for name, pictures in rows.items():
        if len(pictures) != size:
            raise InputError(f"row {name!r} has {len(pictures)} pictures for {size} originals; give one each")
    if labels and len(labels) != size:
        raise InputError(f"there are {len(labels)} labels for {size} originals; give one each")


def _scale(originals: Picture) -> tuple[float, float]:
    low, high = float(originals.min()), float(originals.max())
    if (low >= 0 and high <= 1) or low == high:
        return 0.0, 1.0
    return low, high - low


def _draw(axis: Any, picture: Picture, text: str, side: str) -> None:
    """One picture with a text above it and the row's name to its left; values are clipped to [0, 1]."""
    pixels = np.clip(picture, 0, 1)
    axis.imshow(
        pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axis.set_title(text, fontsize=6, pad=2)
    if side:
        axis.text(
            -0.08, 0.5, side, fontsize=7, rotation=90, ha="right", va="center", transform=axis.transAxes
        )
