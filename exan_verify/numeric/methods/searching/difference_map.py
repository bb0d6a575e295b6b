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

_STEP = 0.7
"""beta; larger steps leave the basin of a sample whose loss vector is far from the start's."""

_WEIGHT = 1.0
"""Weight of s against r in the metric: s has few degrees of freedom and starts near the truth."""

_LOOK = 25
"""Iterations between looks at the gap."""

_MOST = 600
"""Iterations at most; far below the limit of what can be found, 50 to 100 suffice."""

_CLOSED = 0.03
"""A relative gap between the projections which closes by itself: half of it is left after every 25 steps."""

_FINISHED = 0.002
"""A relative gap at which the pattern is as good as exact: with two and a half neurons per unknown, polishing
loses four of five candidates that come with a gap of 0.03, and one of five with this one."""

_FINISHING = 200
"""Iterations at most that candidates get to finish once no others are waited for."""

_WINDOW = 4
"""Looks over which it is counted how fast candidates arrive at something new."""

_NEW = 0.99
"""Cosine to all others below which an end point is a solution of its own."""


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
    known: Float[Tensor, "n k"] | None = None,
    apart: float = 0.0,
    likely: Float[Tensor, " n"] | None = None,
    thorough: bool = False,
) -> Candidates:
    """Iterate from s = ``start`` (columns) and r = s on a random choice of the neurons, which are active, r =
    ``slope`` s (None: 0) at the others; in float32. ``likely``: how probably each neuron is active at first,
    None: one half. ``apart``: the share of q that is kept outside of the span of the ``known`` solutions r.

    Candidates whose gap closes at a solution that ``known`` or another candidate has are given up, unless all
    are to be iterated to the end (``thorough``): nearby solutions differ in few neurons. The round ends when
    all M solutions have been met or half of the candidates have arrived somewhere, or when new solutions
    come more slowly than on the average of this round, so that other starts find more in the same time.
    """
    b = basis.float()
    spanned = None if known is None or not known.shape[1] or not apart else _spanned(basis, known)
    f = _orthonormal(forward)
    n, m = start.shape
    size = n**0.5
    s = _normalised(f @ (f.T @ start.float()), size)
    chance = 0.5 if likely is None else likely.cpu()[:, None]
    active = (torch.rand(n, m, generator=generator) < chance).to(s.device)
    below = None if slope is None else slope.float()[:, None]
    r = b @ (b.T @ (s * (active if below is None else torch.where(active, 1.0, below))))
    ends = Candidates(
        values=r.clone(), active_values=s.clone(), active=active, gap=r.new_full((m,), torch.inf)
    )
    moving = torch.arange(m, device=s.device)
    arrived = torch.zeros_like(moving, dtype=torch.bool)
    arrivals = _Arrivals(b[:, :0] if known is None else known.float(), most=basis.shape[1], candidates=m)
    last = _MOST
    for step in range(1, _MOST + _FINISHING + 1):
        active, near, near_s = _nearest(r, s, below)
        q = b.T @ (2 * near - r)
        linear = b @ (q if spanned is None else _deflated(q, spanned, apart))
        linear_s = _normalised(f @ (f.T @ (2 * near_s - s)), size)
        r = r + _STEP * (linear - near)
        s = s + _STEP * (linear_s - near_s)
        if step % _LOOK:
            continue
        proceed()
        gap = (linear - near).norm(dim=0) / near.norm(dim=0).clamp(min=1e-12)
        leaving = gap < _FINISHED
        if step <= last:
            closing = torch.nonzero((gap < _CLOSED) & ~arrived)[:, 0]
            new = arrivals.count(near[:, closing], spent=_LOOK * int((~arrived).sum()))
            arrived[closing] = True
            leaving[closing] |= ~new & (not thorough)
            last = step if arrivals.over else last
        if step >= last:
            leaving |= ~arrived if step < last + _FINISHING else True
        if bool(leaving.any()):
            places = moving[leaving]
            ends.values[:, places], ends.active_values[:, places] = near[:, leaving], near_s[:, leaving]
            ends.active[:, places], ends.gap[places] = active[:, leaving], gap[leaving]
            moving, arrived, r, s = moving[~leaving], arrived[~leaving], r[:, ~leaving], s[:, ~leaving]
            if not len(moving):
                break
    return ends


class _Arrivals:
    """How fast ``candidates`` arrive at solutions, of which there are at ``most`` so many, that are none of
    the ``known`` ones."""

    def __init__(self, known: Float[Tensor, "n k"], *, most: int, candidates: int) -> None:
        self.seen = torch.nn.functional.normalize(known, dim=0)
        self.most, self.candidates = most, candidates
        self.arrived: list[int] = []
        self.fresh: list[int] = []
        self.spent: list[int] = []

    def count(self, ends: Float[Tensor, "n m"], *, spent: int) -> Bool[Tensor, " m"]:
        """Which of the ``ends`` since the last look are new; ``spent``: steps of single candidates since."""
        unit = torch.nn.functional.normalize(ends, dim=0)
        new = ~((self.seen.T @ unit).abs() > _NEW).any(dim=0)
        new &= ~((unit.T @ unit).abs().tril(-1) > _NEW).any(dim=1)
        self.seen = torch.cat([self.seen, unit[:, new]], dim=1)
        self.arrived.append(int(ends.shape[1]))
        self.fresh.append(int(new.sum()))
        self.spent.append(spent)
        return new

    @property
    def over(self) -> bool:
        """Whether all solutions have been met, or half of the candidates have arrived, or new solutions now
        come more slowly than on the average so far."""
        recent = sum(self.fresh[-_WINDOW:]) * sum(self.spent)
        return (
            int(self.seen.shape[1]) >= self.most
            or 2 * sum(self.arrived) > self.candidates
            or recent < sum(self.fresh) * sum(self.spent[-_WINDOW:])
        )


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


def _spanned(basis: Float[Tensor, "n M"], known: Float[Tensor, "n k"]) -> Float[Tensor, "M k"]:
    columns: Tensor = torch.linalg.qr(basis.T @ known)[0].float()
    return columns


def _deflated(q: Float[Tensor, "M m"], spanned: Float[Tensor, "M k"], apart: float) -> Float[Tensor, "M m"]:
    outside = q - spanned @ (spanned.T @ q)
    length = outside.norm(dim=0).clamp(min=1e-12)
    lengthened: Tensor = q + outside * (apart * q.norm(dim=0) / length - 1).clamp(min=0)
    return lengthened


def _orthonormal(forward: Tensor) -> Tensor:
    u, values, _ = torch.linalg.svd(forward, full_matrices=False)
    columns: Tensor = u[:, values > 1e-6 * values[0]].float()
    return columns


def _normalised(values: Tensor, size: float) -> Tensor:
    scaled: Tensor = values * (size / values.norm(dim=0).clamp(min=1e-12))
    return scaled
