"""Numerical rank and column space of A = [dW | db], with the noise that limits both.

In exact arithmetic rank(A) is the number of samples with independent deltas and inputs (docs/theory.md 3.1);
rounding adds a flat tail, so the rank is where the singular values clearly fall for the last time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.problem.problem import LayerGradient

_MARGIN = 12
"""Singular values looked at beyond the largest rank of interest: they are the estimate of the noise."""

_NOISE_SAFETY = 2.0
"""E is seen only outside the found column and row spaces; its norm may be larger than what is seen there."""

MINIMAL_GAP = 8.0
"""Rounding tails fall by factors below 3 in the median and 5 at most; a smaller gap separates nothing."""


_TAIL = 6
"""Singular values in a row without a fall that count as noise although they exceed the dtype's rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnSpace:
    """The leading part of A = basis (basis^T A) + noise.

    ``basis`` (n, rank) orthonormal; ``rows`` = basis^T A (rank, n_in + 1); ``values``: the singular values
    computed, largest first; ``gap`` = values[rank - 1] / values[rank] (infinite if exact); ``noise``: bound
    on the spectral norm of what rounding added to A. ``saturated``: A has full rank, or no tail was seen, so
    the rank bounds the number of samples from below only; also where A is zero.
    """

    basis: Tensor
    rows: Tensor
    values: Tensor
    gap: float
    noise: float
    saturated: bool

    @property
    def rank(self) -> int:
        """The numerical rank of A."""
        return int(self.basis.shape[1])


def column_space(
    layer: LayerGradient, *, unit_roundoff: float, most: int, generator: torch.Generator
) -> ColumnSpace:
    """The column space of the layer's A, for ranks up to ``most``.

    Small matrices by a full SVD; large ones by a randomised range finder with a power step (Halko, Martinsson
    and Tropp 2011), whose error is of the size of the noise itself.
    """
    n_out, n_in = layer.shape
    width = most + _MARGIN
    if 2 * width >= min(n_out, n_in + 1):
        matrix = layer.augmented()
        u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
        rows = values[:, None] * vt
    else:
        u, values, rows = _range_finder(layer, width, generator)
    return _cut(layer, u, values, rows, unit_roundoff)


def row_space(space: ColumnSpace) -> tuple[Float[Tensor, "n r"], float]:
    """An orthonormal basis of the rows of a layer's dW, from the column space of [dW | db], and the smallest
    singular value that it rests on."""
    _, values, vt = torch.linalg.svd(space.rows[:, :-1], full_matrices=False)
    kept = values > MINIMAL_GAP * space.noise
    return vt[kept].T, float(values[kept][-1]) if bool(kept.any()) else 0.0


def _range_finder(
    layer: LayerGradient, width: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n l"], Float[Tensor, " l"], Float[Tensor, "l in1"]]:
    omega = torch.randn(layer.shape[1] + 1, width, dtype=torch.float64, generator=generator)
    q, _ = torch.linalg.qr(layer.right(omega.to(layer.bias.device)))
    p, _ = torch.linalg.qr(layer.left(q).T)
    q, _ = torch.linalg.qr(layer.right(p))
    rows = layer.left(q)
    # SVD of the transposed: rows is wide, and QR first keeps the cost at one pass over it
    p, r = torch.linalg.qr(rows.T)
    u_small, values, vt = torch.linalg.svd(r.T)
    return q @ u_small, values, values[:, None] * (vt @ p.T)


def _cut(layer: LayerGradient, u: Tensor, values: Tensor, rows: Tensor, unit_roundoff: float) -> ColumnSpace:
    frobenius = float(values.norm())
    # a dead neuron's row is zero in A, but only zero up to rounding in u
    alive = (u * values).norm(dim=1) > 8 * 2.0**-53 * values[0]
    used = rows.norm(dim=0) > 8 * 2.0**-53 * values[0]
    live = min(int(alive.sum()), int(used.sum()))
    floor = unit_roundoff * frobenius * (layer.count**-0.5 + layer.shape[1] ** -0.5)
    rank, gap = (
        _last_gap(values[:live], max(floor, 2.0**-53 * float(values[0])))
        if frobenius > 0 and live  # squares of entries below 1e-154 vanish
        else (0, math.inf)
    )
    tail = float(values[rank]) if rank < len(values) else 0.0
    return ColumnSpace(
        basis=u[:, :rank] * alive[:, None],
        rows=rows[:rank],
        values=values,
        gap=gap,
        noise=max(_NOISE_SAFETY * tail, 2 * floor, 4 * 2.0**-53 * float(values[0])),
        saturated=rank == 0 or rank >= min(len(values), live),
    )


def _last_gap(values: Tensor, floor: float) -> tuple[int, float]:
    """The last clear fall among the singular values that rise above the rounding ``floor``, and its ratio.

    The last, not the largest: two nearly equal samples leave a singular value far below the others and still
    far above the noise, and merging them would be wrong. Where even the smallest value is above the floor,
    the gradient either has full rank or carries more noise than its dtype: noise only if the values after
    the last fall are many (``_TAIL``), as a few may be samples. Without a clear fall, the largest one counts.
    """
    clamped = torch.cat([values, values.new_zeros(1)]).clamp(min=max(floor, torch.finfo(torch.float64).tiny))
    ratios = clamped[:-1] / clamped[1:]
    clear = torch.nonzero((ratios >= MINIMAL_GAP) & (values > MINIMAL_GAP * floor))[:, 0].tolist()
    if len(clear) > 1 and clear[-1] == len(values) - 1 and clear[-1] - clear[-2] >= _TAIL:
        clear.pop()
    place = clear[-1] if clear else int(torch.argmax(ratios))
    return place + 1, float(ratios[place])
