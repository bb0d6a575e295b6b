"""Pictures of samples: PNG needs a zlib stream and three chunks, and no library."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.network import Array

Pixels = npt.NDArray[np.uint8]

_GRAY, _RGB = 0, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """How samples are drawn: their shape, (H, W) or (3, H, W), and the values that are black and white."""

    shape: tuple[int, ...]
    black: float
    white: float

    @classmethod
    def of(cls, inputs: Array) -> Canvas | None:
        """The canvas of a batch (M, H, W), (M, 1, H, W) or (M, 3, H, W); None for other batches."""
        shape = picture_shape(inputs.shape)
        if shape is None:
            return None
        black, white = float(inputs.min()), float(inputs.max())
        if (black >= 0 and white <= 1) or black == white:
            black, white = 0.0, 1.0
        return cls(shape=shape, black=black, white=white)

    def draw(self, sample: Any) -> str:
        """One sample as a ``data:`` URI; values beyond black and white are clipped."""
        values = np.asarray(sample, dtype=np.float64).reshape(self.shape)
        shade = np.clip((values - self.black) / (self.white - self.black), 0, 1)
        pixels = (shade * 255).round().astype(np.uint8)
        return data_uri(pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))


def data_uri(pixels: Pixels) -> str:
    """``data:image/png;base64,...`` of a gray (H, W) or colour (H, W, 3) image of bytes."""
    return "data:image/png;base64," + base64.b64encode(encode(pixels)).decode()


def encode(pixels: Pixels) -> bytes:
    """The PNG file of a gray (H, W) or colour (H, W, 3) image of bytes (ISO/IEC 15948)."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels.size // height), dtype=np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)  # column 0 is each row's filter type: none
    header = struct.pack(">IIBBBBB", width, height, 8, _GRAY if pixels.ndim == 2 else _RGB, 0, 0, 0)
    chunks = (
        _chunk(b"IHDR", header),
        _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
        _chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def picture_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """(H, W) or (3, H, W) for the shape of a batch of pictures; None for other batches."""
    if len(shape) == 3 and min(shape[1:]) > 1:
        return shape[1:]
    if len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) > 1:
        return shape[2:] if shape[1] == 1 else shape[1:]
    return None
