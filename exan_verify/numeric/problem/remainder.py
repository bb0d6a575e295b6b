"""What is left of every layer's gradient once known samples are taken out of it.

A = Delta [H 1] has rank M; without p of its samples rank M - p is left, and a tail that tells how well the p
are known. Everything happens in the coordinates of A's column space, so nothing of the size of A is built.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.problem.passes import Trace, backward, delta_spans
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.spectrum import MINIMAL_GAP, ColumnSpace

_LABEL_FITS = 0.01
"""Relative distance up to which a loss vector is taken from its label rather than from the delta."""

_NOTHING_LEFT = 64.0
"""Between the rounding of a row of the remaining basis by norms and the largest row taken for zero."""

_LARGEST_NOTHING = 1e-3
"""Rows of a unit basis are about sqrt(rank / n); much larger ones than this are never taken for zero."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """Samples taken as known: ``x`` (p, d), their forward pass, and ``deltas`` (p, n_1) at the first layer.

    ``rows``: neurons of layer 1 at which, of all samples, only known ones are active; ``gain``: how much
    larger than the gradient's own noise the error of their share in it may be (spectral norms), ``error``
    (n_1,): its rounding in every row (L2).
    """

    x: Tensor
    trace: Trace
    deltas: Tensor
    rows: Tensor
    gain: float
    error: Tensor

    @property
    def size(self) -> int:
        """How many samples are known."""
        return int(self.x.shape[0])


def all_deltas(problem: Problem, known: Known, samples: int) -> tuple[Tensor, ...]:
    """The known samples' deltas, (p, n) at every layer, from their labels where these fit, at the scale seen.

    ``samples``: the size of the batch as far as known; it only matters for which targets look discrete.
    """
    spans = delta_spans(problem, known.trace)
    fit = problem.fit_labels(known.trace.logits, spans, known.deltas, samples=samples)
    solved = (torch.linalg.pinv(spans, rtol=1e-10) @ known.deltas[:, :, None])[:, :, 0]
    counts = torch.ones_like(fit.counts) if problem.weighted else fit.counts
    labelled = fit.vectors * counts[:, None] / problem.divisor(samples)
    fits = (fit.loose < _LABEL_FITS)[:, None]
    return backward(problem, known.trace, torch.where(fits, labelled, solved))


def without(space: ColumnSpace, deltas: Float[Tensor, "p n"], inputs: Float[Tensor, "p in"]) -> ColumnSpace:
    """The column space of A without the samples that have these deltas and inputs at the layer.

    Its rank is the old one less p; the values beyond are how far the p samples miss A, and count as noise.
    Where they do not fall off, the layer does not show these samples: it comes back as ``saturated``.
    """
    rank = space.rank - deltas.shape[0]
    if space.saturated or rank <= 0:
        return replace(space, saturated=True)
    h = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    p, r = torch.linalg.qr((space.rows - (space.basis.T @ deltas.T) @ h).T)
    u, values, vt = torch.linalg.svd(r.T)
    noise = max(space.noise, 2 * float(values[rank])) if deltas.shape[0] else space.noise
    gap = 2 * float(values[rank - 1]) / noise
    if gap < MINIMAL_GAP:
        return replace(space, saturated=True)
    basis = space.basis @ u[:, :rank]
    # where only known samples were active nothing is left but rounding; lifting must not scale it up
    alive = basis.norm(dim=1) > min(_NOTHING_LEFT * noise / float(values[rank - 1]), _LARGEST_NOTHING)
    return ColumnSpace(
        basis=basis * alive[:, None],
        rows=(values[:rank, None] * vt[:rank]) @ p.T,
        values=values,
        gap=gap,
        noise=noise,
        saturated=False,
    )
