"""The `sample` method: null directions of drawn rows, after SPEAR.

Dimitrov, Baader, Mueller, Vechev, *SPEAR: Exact Gradient Inversion of Batches in Federated Learning*, NeurIPS
2024 (arXiv 2403.03945); own implementation. M - 1 rows of the column-space basis of [dW_1 | db_1], drawn at
random, have one null direction q. If all of them belong to neurons that are inactive for one sample, B q is
that sample's delta and vanishes on all its inactive neurons; any other q vanishes on the drawn rows alone.
With half of the neurons inactive M 2^(1-M) of the draws are good: the method is exponential in M.

Strangers vanish on more rows than were drawn, too, where several neurons are active for the same few samples:
drawn rows that span all that these neurons show take them all to zero. A sample's delta is W^T u on its
active neurons (docs/theory.md 3.1 (*)), a stranger's is not; so samples come first, and strangers, which can
be thousands, in small portions: most are near enough to a sample to be polished into it. SPEAR has no polish.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import comb

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from exan_verify.errors import RangeError
from exan_verify.numeric.methods.equations import LayerEquations, layer_equations, layer_summaries, too_many
from exan_verify.numeric.methods.searching.assign import first_layer
from exan_verify.numeric.methods.separate import SAME, Span, noise_sine, separate
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding
from exan_verify.numeric.problem.spectrum import ColumnSpace
from exan_verify.numeric.waiting import proceed

DRAWS = 1 << 20
"""Most draws; they suffice to about M = 19 where half of the neurons are inactive."""

_BATCH = 4096
"""Draws at a time."""

_FACTORED = 1 << 21
"""Entries of the draws that are factored at a time."""

_EXTRA = 1
"""Rows beyond the drawn ones that a null direction must zero: a stranger zeroes none but by coincidence."""

_INDEPENDENT = 1e-4
"""Drawn rows nearer to dependence than this have a null direction that rounding chooses."""

_POLISHED, _PORTION = 256, 64
"""Candidates per batch of draws that are polished at most, and at a time: nearly all lead to some sample."""

_LEAST = 1 << 15
"""Draws that are always made: neurons may be active for more than half of the samples."""

_COVERED = 20
"""Draws per set of rows after which hardly any set was never drawn: one in e^20."""

_ALIKE = (1 - SAME**2) ** 0.5
"""Cosine above which two null directions are the same sample."""


class Sample:
    """Random rows of the first layer's column space, a bounded number of draws.

    ``patience``: at most so many times the draws of which one is good where half of the neurons are inactive.
    """

    name = "sample"

    def __init__(self, patience: int = 1024) -> None:
        self._patience = patience

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """Candidates from the first layer: all the samples it shows, or none, as inputs need all directions.

        Raises :class:`RangeError` when the first layer's gradient has full rank, or its activation slopes.
        """
        space = spaces[0]
        if problem.layers[0].activation.slope is not None:
            raise RangeError(
                "every neuron of layer 1 passes every sample on, so that no direction vanishes on rows; use "
                "method lift or assign"
            )
        if space.saturated:
            raise RangeError(
                too_many(problem, space.rank)
                or f"the first layer's gradient has full rank {space.rank}, so no direction is a sample's "
                "own; use a smaller batch or a wider first layer"
            )
        equations = layer_equations(problem, spaces, 0)
        most = min(DRAWS, max(_LEAST, self._patience << max(0, space.rank - 1)))
        draws = _Draws(equations, problem.generator(), most)
        separated = separate(equations, draws.starts(), solved=noise_sine(space), found=draws.tell)
        missing = space.rank - separated.total
        nothing = Finding(
            method=self.name,
            x=torch.zeros(0, space.rows.shape[1] - 1, dtype=torch.float64, device=problem.device),
            rest=space.basis,
            rest_sine=1.0,
            layer=1,
            layers=layer_summaries(problem, spaces),
            reason=f"layer 1: {separated.total} of {space.rank} samples found in {draws.done} draws; an "
            "input is known only when all are: use a smaller batch, or method lift or assign",
        )
        return nothing if missing else first_layer(nothing, space, separated)


class _Draws:
    """Batches of draws; directions that are known are not handed out again."""

    def __init__(self, equations: LayerEquations, generator: torch.Generator, most: int = DRAWS) -> None:
        basis = equations.space.basis
        norms = basis.norm(dim=1)
        self.basis, self.forward, self.generator = basis, equations.forward, generator
        self.rows = basis[norms > 0] / norms[norms > 0, None]
        # a true direction is off by the noise over the isolation of the null direction
        self.zero = max(1e-9, noise_sine(equations.space) / 10)
        self.known = basis[:, :0]
        self.most = min(most, _COVERED * comb(len(self.rows), max(0, equations.space.rank - 1)))
        self.done = 0

    def starts(self) -> Iterator[tuple[Float[Tensor, "M m"], Float[Tensor, "K m"]]]:
        """Starts (q, p) for polishing, batch by batch, until the draws are used up."""
        while self.done < self.most:
            proceed()
            q = self._hits()
            self.done += _BATCH
            p, misfit = self._explained(self.basis @ q)
            order = misfit.argsort()
            order = order[self._new(q[:, order])]
            q, p = q[:, order], p[:, order]
            for portion in torch.split(_distinct(q), _PORTION):
                # what the portions before have found is out
                portion = portion[self._new(q[:, portion])]
                yield q[:, portion], p[:, portion]

    def tell(self, known: Span) -> None:
        """Told what is found so far."""
        self.known = known.deltas

    def _hits(self) -> Float[Tensor, "M m"]:
        """Null directions of one batch of draws that zero more rows than were drawn."""
        count, rank = self.rows.shape
        if rank == 1:
            # the only direction there is
            return torch.ones(1, 1, dtype=self.rows.dtype, device=self.rows.device)
        keys = torch.rand(_BATCH, count, generator=self.generator).to(self.rows.device)
        drawn = keys.topk(min(rank - 1, count), dim=1).indices
        # in portions: where the rank is large, all at once takes gigabytes, and nothing can interrupt it
        null = torch.cat([self._null(d) for d in torch.split(drawn, max(1, _FACTORED // rank**2))], dim=1)
        zeroed = ((self.rows @ null).abs() < self.zero).sum(dim=0)
        hits: Tensor = null[:, zeroed >= rank - 1 + _EXTRA]
        return hits

    def _null(self, drawn: Int[Tensor, "b r"]) -> Float[Tensor, "M m"]:
        """The null directions of the draws whose rows are independent."""
        proceed()
        q, r = torch.linalg.qr(self.rows[drawn].mT, mode="complete")
        pivots = r.diagonal(dim1=1, dim2=2).abs()
        independent: Bool[Tensor, " b"] = (pivots > _INDEPENDENT).all(dim=1)
        null: Tensor = q[independent, :, -1].T
        return null

    def _explained(self, delta: Float[Tensor, "n m"]) -> tuple[Float[Tensor, "K m"], Float[Tensor, " m"]]:
        """The p that explains each delta best on its active neurons, and the share left unexplained."""
        forward, free = self.forward, self.forward.shape[1]
        active = (delta.abs() > self.zero * self.basis.norm(dim=1)[:, None]).to(delta)
        products = (forward[:, :, None] * forward[:, None, :]).flatten(1)
        gram = (active.T @ products).view(-1, free, free)
        inverse = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True)
        p = (inverse @ (forward.T @ delta).T[:, :, None])[:, :, 0].T
        return p, (delta - active * (forward @ p)).norm(dim=0) / delta.norm(dim=0)

    def _new(self, q: Float[Tensor, "M m"]) -> Bool[Tensor, " m"]:
        """Which directions are not known."""
        new: Bool[Tensor, " m"] = ~((self.known.T @ self.basis @ q).abs() > _ALIKE).any(dim=0)
        return new


def _distinct(q: Float[Tensor, "M m"]) -> Int[Tensor, " k"]:
    """The first of every direction, as many as are polished.

    Copies go before anything is counted: where few sets of rows can be drawn, thousands of draws lead to one
    sample, and a cut among them would leave no place for the others. A direction is dropped only for one that
    is kept, not for one that is itself dropped.
    """
    left = torch.ones_like(q[0], dtype=torch.bool)
    chosen: list[int] = []
    while len(chosen) < _POLISHED and bool(left.any()):
        first = int(left.to(torch.int8).argmax())
        chosen.append(first)
        left &= (q[:, first] @ q).abs() <= _ALIKE
        left[first] = False
    return torch.tensor(chosen, dtype=torch.long, device=q.device)
