"""The two hyperplanes of every neuron as a feasibility problem, solved by the difference map.

For a layer's basis B (n, M) and the map F (n, K') of the next deltas, a sample is a pair r = B q, s = F p
with, for every neuron j, r_j = 0 (inactive; with slopes r_j = slope_j s_j, 3.7) or r_j = s_j (active):
docs/theory.md 3.1 (*). Both sets have cheap projections, the linear one and the one neuron by neuron, and

    (r, s) <- (r, s) + beta (P_linear(2 P_neurons - 1) - P_neurons) (r, s)

(relaxed reflect-reflect form of the difference map, Elser 2003; Elser, Lan and Bendory 2018) leaves the traps
in which alternating projections stay. The problem is homogeneous: s keeps its norm. Theory: section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.waiting import proceed

_STEP = 0.5
"""beta; larger steps leave the basin of a sample whose loss vector is far from the start's."""

_WEIGHT = 0.5
"""Weight of s against r in the metric: s has few degrees of freedom and starts near the truth."""

_LOOK = 25
"""Iterations between looks at the gap."""

_MOST = 600
"""Iterations at most; far below the limit of what can be found, 50 to 100 suffice."""

_CLOSED = 0.03
"""A relative gap between the projections from which polishing finds the solution."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """End points of the iteration: ``values`` (n, m) is r, ``active_values`` (n, m) is s, ``active`` (n, m)
    where r = s, ``gap`` (m,) the relative distance of r from its linear projection; 0 for a solution."""

    values: Tensor
    active_values: Tensor
    active: Tensor
    gap: Tensor


def difference_map(
    basis: Float[Tensor, "n M"],
    forward: Float[Tensor, "n K"],
    start: Float[Tensor, "n m"],
    *,
    generator: torch.Generator,
    slope: Float[Tensor, " n"] | None = None,
) -> Candidates:
    """Iterate from s = ``start`` (columns) and r = s on a random half of the neurons, which are active, r =
    ``slope`` s (None: 0) at the others; in float32."""
    b = basis.float()
    f = _orthonormal(forward)
    n, m = start.shape
    size = n**0.5
    s = _normalised(f @ (f.T @ start.float()), size)
    active = (torch.rand(n, m, generator=generator) < 0.5).to(s.device)
    below = None if slope is None else slope.float()[:, None]
    r = b @ (b.T @ (s * (active if below is None else torch.where(active, 1.0, below))))
    gap = s.new_full((m,), torch.inf)
    near, near_s = r, s
    for step in range(1, _MOST + 1):
        active, near, near_s = _nearest(r, s, below)
        linear = b @ (b.T @ (2 * near - r))
        linear_s = _normalised(f @ (f.T @ (2 * near_s - s)), size)
        if step % _LOOK == 0:
            proceed()
            gap = (linear - near).norm(dim=0) / near.norm(dim=0).clamp(min=1e-12)
            # the others of this round are better started anew
            if float(gap.median()) < _CLOSED:
                break
        r = r + _STEP * (linear - near)
        s = s + _STEP * (linear_s - near_s)
    return Candidates(values=near, active_values=near_s, active=active, gap=gap)


def _nearest(
    r: Float[Tensor, "n m"], s: Float[Tensor, "n m"], slope: Float[Tensor, "n 1"] | None
) -> tuple[Bool[Tensor, "n m"], Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Neuron by neuron the nearer of the lines r = s and r = slope s, in the metric |r|^2 + w |s|^2: whether
    that is the first, and the point on it. (r, s) has the distance w (r - a s)^2 / (a^2 + w) from r = a s,
    where its nearest point has s = (a r + w s) / (a^2 + w)."""
    share = _WEIGHT / (1 + _WEIGHT)
    middle = (1 - share) * r + share * s
    if slope is None:
        active = (r - s).square() * share < r.square()
        return active, middle * active, torch.where(active, middle, s)
    total = slope.square() + _WEIGHT
    active = (r - s).square() * share < (r - slope * s).square() * (_WEIGHT / total)
    near_s = torch.where(active, middle, (slope * r + _WEIGHT * s) / total)
    return active, torch.where(active, near_s, slope * near_s), near_s


def _orthonormal(forward: Tensor) -> Tensor:
    u, values, _ = torch.linalg.svd(forward, full_matrices=False)
    columns: Tensor = u[:, values > 1e-6 * values[0]].float()
    return columns


def _normalised(values: Tensor, size: float) -> Tensor:
    scaled: Tensor = values * (size / values.norm(dim=0).clamp(min=1e-12))
    return scaled
