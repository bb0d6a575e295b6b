"""How far values known at one place may be off, carried down as linear maps of the features' error.

On fixed activation patterns every step down is linear: where the features err by w, the values below err by
C w with C the product of the stages' inverses. |C|, and the rows of C, are far smaller than the product of
the stages' norms, as no single w is magnified most by every stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_SAFETY = 2.0
"""Covers norms from power iterations, which come from below."""

_ROUNDED = 1.1
"""Covers rounding in the maps: the steps down are linear, so there is nothing of second order."""

_POWER_STEPS = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """Sample m's values err by C_m w + r with |w| <= source[m] and |r| <= rest[m], in L2.

    ``maps``: C_m (n, k) per sample; None for the identity.
    """

    source: Tensor
    rest: Tensor
    maps: tuple[Tensor, ...] | None = None

    @classmethod
    def even(cls, error: Tensor) -> Spread:
        """Values of which nothing is known but the L2 norm (M,) of their errors."""
        return cls(source=error, rest=torch.zeros_like(error))

    @cached_property
    def norm(self) -> Tensor:
        """L2 norm (M,) of a sample's error."""
        if self.maps is None:
            return self.source + self.rest
        norms = torch.stack([spectral_norm(c) for c in self.maps])
        return _SAFETY * norms * self.source + self.rest

    @cached_property
    def entries(self) -> Tensor:
        """Error (M, n) of every entry, or (M, 1) where all have the same bound."""
        if self.maps is None:
            return self.norm[:, None]
        rows = torch.stack([c.norm(dim=1) for c in self.maps])
        return _ROUNDED * rows * self.source[:, None] + self.rest[:, None]

    def divided(self, factor: Tensor) -> Spread:
        """After dividing the values by ``factor`` (n,)."""
        smallest = float(factor.abs().min())
        if self.maps is None:
            return Spread(source=self.source / smallest, rest=self.rest / smallest)
        maps = tuple(c / factor[:, None] for c in self.maps)
        return Spread(source=self.source, rest=self.rest / smallest, maps=maps)


def spectral_norm(matrix: Tensor) -> Tensor:
    """The largest singular value of a matrix (rows, cols), by power iteration."""
    vector = torch.ones(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    value = matrix.new_zeros(())
    for _ in range(_POWER_STEPS):
        image = matrix @ (vector / vector.norm())
        value = image.norm()
        vector = matrix.T @ image
    return value


def compressed(matrix: Tensor) -> Tensor:
    """A map with the row norms and singular values of ``matrix`` (rows, cols), at most (rows, rows)."""
    if matrix.shape[1] <= matrix.shape[0]:
        return matrix
    lower: Tensor = torch.linalg.qr(matrix.T, mode="r")[1].T
    return lower
