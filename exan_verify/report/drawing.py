"""Pictures of a report: every sample a small PNG of its own, as a ``data:`` URI.

A pixel of the file is a pixel of the sample, so a digit has about a kilobyte; the browser enlarges it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.core.network import Array
from exan_verify.report.sheets import picture_shape, square_shape, value_scale

LONGEST = 96
"""Pixels of the longest side that is drawn; larger pictures are averaged down, so that no report is huge."""

MAP_COLUMNS = 64
"""Neurons side by side in the exclusivity map: 512 of them are eight rows."""


class Drawer:
    """Draws the inputs (M, ...) of a batch, and what was found of them, on the scale of the inputs.

    ``shape``: (H, W) or (3, H, W), None where the inputs are no pictures; ``guessed``: whether flat inputs
    were taken for square pictures.
    """

    def __init__(self, inputs: Array) -> None:
        given = picture_shape(inputs.shape)
        self.guessed = given is None and inputs.ndim == 2
        self.shape = square_shape(inputs.shape[1]) if self.guessed else given
        self.guessed = self.guessed and self.shape is not None
        self.black, self.span = value_scale(np.asarray(inputs, dtype=np.float64))

    def draw(self, values: Any) -> str | None:
        """One sample as a ``data:`` URI; None where the inputs are no pictures."""
        if self.shape is None:
            return None
        picture = (np.asarray(values, dtype=np.float64).reshape(self.shape) - self.black) / self.span
        pixels = np.clip(_small(picture), 0, 1)
        return _png(pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1))


def _small(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means of square blocks, of as many pixels as :data:`LONGEST` asks for; a rest at the edges is cut."""
    block = -(-max(picture.shape[-2:]) // LONGEST)
    if block == 1 or min(picture.shape[-2:]) < block:
        return picture
    high, wide = (side // block for side in picture.shape[-2:])
    cut = picture[..., : high * block, : wide * block]
    blocks = cut.reshape(*picture.shape[:-2], high, block, wide, block)
    return np.asarray(blocks.mean(axis=(-3, -1)))


def neuron_map(active_for: Sequence[int], size: int) -> str:
    """A pixel per neuron of a layer, by for how many of ``size`` samples it is active, as a ``data:`` URI.

    None: faint; one, an exclusive neuron: red; more: blue, the stronger the more. On light and dark pages.
    """
    counts = np.asarray(active_for, dtype=np.float64)
    columns = min(MAP_COLUMNS, len(counts))
    pixels = np.zeros((-(-len(counts) // columns) * columns, 4))
    shared = pixels[: len(counts)]
    shared[:, :3] = (0.30, 0.47, 0.78)
    shared[:, 3] = 0.25 + 0.75 * counts / max(size, 1)
    shared[counts == 0] = (0.5, 0.5, 0.5, 0.16)
    shared[counts == 1] = (0.83, 0.22, 0.22, 1)
    return _png(pixels.reshape(-1, columns, 4))


def _png(pixels: npt.NDArray[np.float64]) -> str:
    from matplotlib.image import imsave

    stream = io.BytesIO()
    plain: dict[str, Any] = {"Software": None}
    imsave(stream, pixels, format="png", cmap="gray", vmin=0, vmax=1, metadata=plain)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
