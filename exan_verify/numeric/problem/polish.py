"""Polish candidates on their own equations: every neuron takes the nearer of its two hyperplanes (*).

With the slopes D of a pattern fixed, delta = D W^T u must lie in the column space of A: u is the smallest
singular vector of (I - P P^T) D W^T C, a problem of K' unknowns. docs/theory.md 3.1 (*), 3.7, C3 and section
5 (`assign`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.problem.activations import Piecewise
from exan_verify.numeric.waiting import proceed

_ROUNDS = 12
"""Alternations settle in two or three rounds from a usable start; a candidate that needs more is lost."""

_RANK_TOLERANCE = 1e-10
"""Directions of D W^T C below this relative size cannot be told from zero in float64 and are left out."""

_VANISHES = 1e-10
"""Entries of a delta below this share of its norm are zero: active neurons' are larger, or tell nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Meeting:
    """Where, for each of m patterns, the space of possible deltas comes nearest to the column space of A.

    ``sines`` (m, k) ascending sines of the principal angles; ``deltas`` (m, n, k) unit vectors of the
    possible deltas at these angles. Directions that the pattern does not have are marked by sines above 1.
    """

    sines: Tensor
    deltas: Tensor


def meet(spans: Float[Tensor, "m n k"], basis: Float[Tensor, "n M"]) -> Meeting:
    """Principal angles between each column span of ``spans`` and the span of the orthonormal ``basis``.

    Sines come from the SVD of (I - P P^T) Q, accurate for small angles where cosines are not.
    """
    proceed()
    u, values, _ = torch.linalg.svd(spans, full_matrices=False)
    kept = values > _RANK_TOLERANCE * values[:, :1]
    q = u * kept[:, None, :]
    # all columns side by side: one large product is two to three times as fast as m small ones
    columns = q.transpose(0, 1).flatten(1)
    outside = columns - basis @ (basis.T @ columns)
    # twice, as in Gram-Schmidt: one pass leaves an error of eps that matters for sines of that size
    outside = outside - basis @ (basis.T @ outside)
    _, r = torch.linalg.qr(outside.unflatten(1, (-1, q.shape[2])).transpose(0, 1))
    missing = torch.diag_embed(torch.where(kept, 0.0, 2.0).to(r))
    _, sines, vt = torch.linalg.svd(torch.cat([r, missing], dim=1), full_matrices=False)
    return Meeting(sines=sines.flip(1), deltas=q @ vt.mT.flip(2))


def nearest_patterns(
    delta: Float[Tensor, "n m"], active_value: Float[Tensor, "n m"], slope: Float[Tensor, " n"] | None
) -> Bool[Tensor, "n m"]:
    """Active where delta_j is nearer to w_j . u than to slope_j w_j . u (``slope`` None: zero), or where both
    vanish.

    Samples of one pattern have mixtures whose delta vanishes at one of their neurons, w_j . u = 0: with that
    neuron inactive the mixture would look like a sample, with it active it is one of the group's.
    """
    other = delta if slope is None else delta - slope[:, None] * active_value
    nearer: Tensor = (delta - active_value).abs() < other.abs() + _VANISHES * delta.norm(dim=0)
    return nearer


def polish(
    basis: Float[Tensor, "n M"],
    forward: Float[Tensor, "n K"],
    q: Float[Tensor, "M m"],
    p: Float[Tensor, "K m"],
    slope: Float[Tensor, " n"] | None = None,
) -> tuple[Bool[Tensor, "m n"], Meeting]:
    """Alternate patterns and smallest singular vectors from the starts (q, p) until the patterns stay.

    ``slope`` (n,): the derivative where a neuron is not active, None: zero. Returns the patterns (m, n) and
    where the column space meets the deltas that they allow.
    """
    passing = Piecewise(slope=slope).passed
    pattern = nearest_patterns(basis @ q, forward @ p, slope)
    moving = torch.arange(q.shape[1], device=q.device)
    meeting = meet(passing(pattern.T)[:, :, None] * forward, basis)
    sines, deltas = meeting.sines, meeting.deltas
    for _ in range(_ROUNDS - 1):
        proceed()
        spans = passing(pattern[:, moving].T)[:, :, None] * forward
        renewed = _renewed(basis, forward, slope, spans, deltas[moving, :, 0].T)
        changed = (renewed != pattern[:, moving]).any(dim=0)
        moving = moving[changed]
        if not len(moving):
            break
        pattern[:, moving] = renewed[:, changed]
        meeting = meet(passing(pattern[:, moving].T)[:, :, None] * forward, basis)
        sines[moving], deltas[moving] = meeting.sines, meeting.deltas
    return pattern.T, Meeting(sines=sines, deltas=deltas)


def _renewed(
    basis: Float[Tensor, "n M"],
    forward: Float[Tensor, "n K"],
    slope: Float[Tensor, " n"] | None,
    spans: Float[Tensor, "m n K"],
    delta: Float[Tensor, "n m"],
) -> Bool[Tensor, "n m"]:
    """The patterns that these deltas have: u from delta on the neurons that pass it on; the others then show
    what they would have carried."""
    p = torch.linalg.pinv(spans, rtol=_RANK_TOLERANCE) @ delta.T[:, :, None]
    return nearest_patterns(basis @ (basis.T @ delta), forward @ p[:, :, 0].T, slope)
