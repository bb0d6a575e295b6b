"""A rival: SPEAR, which draws rows of the gradient's left factor and keeps the sparse null directions.

Own implementation after Dimitrov, Baader, Mueller, Vechev, *SPEAR: Exact Gradient Inversion of Batches in
Federated Learning*, NeurIPS 2024 (arXiv 2403.03945). Of the first layer, dW = L R with b columns in L, and
L Q = dL/dZ for some Q: a column of Q is, up to its scale, the null direction of b - 1 rows of L at which its
sample's neurons are inactive.

1. Draw b - 1 rows of L, 10^4 times at once as there, and take the null direction q of each.
2. Keep q where the share of zeros in L q is at least tau: what a sample has whose m neurons are inactive with
   a chance of 1/2 each, but for a false rejection rate of 1e-9, the one of their figures.
3. Once the directions kept span b dimensions, take the sparsest independent ones. Their scales follow from
   db = L Q 1, the inputs X from Q^-1 R, and lambda is the share of the m b entries at which W X + b is
   positive just where L Q is not zero. At lambda = 1 it ends; else directions are exchanged one by one while
   lambda rises, and after that it draws on.

The paper's text was not at hand; its abstract and figures' captions, as others give them, name the steps, the
10^4 and the 1e-9. Ours are what counts as zero or as the same direction, and the order of the exchanges.
Nothing but lambda is asked, and without all b directions no input follows. The labels, which the authors do
not look for, are those whose delta at the first layer is nearest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn

from exan_verify.bench.rivals.baselines import Effort

DRAWN_AT_ONCE = 10_000
FALSE_REJECTION = 1e-9

_ENTRIES = 1 << 26
"""Of the systems solved at once, at most: half a gigabyte, which 81 samples fill."""

_ZERO = 1e-7
"""Of the largest entry of L q."""

_SAME = 1e-6
"""Of the cosine of two directions below 1."""

_COMPARED_AT_ONCE = 1000
_RANK = 1e-11
"""Singular values of dW below this share of the largest are rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampled:
    """``x`` (M, d) and ``y`` (M,), none where no set of directions was found whose ``score`` (lambda) is 1;
    the rank of dW, the ``directions`` kept, the rows ``drawn`` in all, and seconds."""

    x: Tensor
    y: Tensor
    score: float
    rank: int
    directions: int
    drawn: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class _Factors:
    """dW = ``left`` ``right`` of rank b, and the first layer's weight, bias and bias gradient, in float64."""

    left: Tensor
    right: Tensor
    weight: Tensor
    bias: Tensor
    d_bias: Tensor

    def deltas(self, directions: Tensor) -> Tensor:
        """Deltas (m, k) that ``directions`` (b, k) of the right scale give, zero where they nearly are."""
        columns = self.left @ directions
        zeroed: Tensor = torch.where(columns.abs() > _ZERO * columns.abs().amax(dim=0), columns, 0.0)
        return zeroed

    def batch(self, directions: Tensor) -> tuple[Tensor, Tensor, float]:
        """Inputs (b, d), deltas (m, b) and lambda of b independent ``directions`` (b, b)."""
        scales = torch.linalg.lstsq(self.left @ directions, self.d_bias[:, None]).solution[:, 0]
        scaled = directions * scales
        x = torch.linalg.solve_ex(scaled, self.right).result
        deltas = self.deltas(scaled)
        active = self.weight @ x.T + self.bias[:, None] > 0
        return x, deltas, float((active == (deltas != 0)).double().mean())


def spear(model: nn.Sequential, gradient: Mapping[str, Tensor], *, effort: Effort) -> Sampled:
    """SPEAR at the first layer of ``model``, Linear and ReLU in turn, for the ``gradient`` of its mean
    cross_entropy under its parameters' names; at most ``effort.iterations`` rounds of :data:`DRAWN_AT_ONCE`.
    """
    start = time.perf_counter()
    until = start + (math.inf if effort.seconds is None else effort.seconds)
    weight, bias = (p.detach().double() for p in list(model.parameters())[:2])
    d_weight, d_bias = (g.double() for g in list(gradient.values())[:2])
    u, s, vh = torch.linalg.svd(d_weight, full_matrices=False)
    rank = int((s > _RANK * s[0]).sum())
    factors = _Factors(u[:, :rank], s[:rank, None] * vh[:rank], weight, bias, d_bias)
    least = float(binom.ppf(FALSE_REJECTION, len(u), 0.5)) / len(u)
    rng = np.random.default_rng(effort.seed)
    kept = u.new_zeros(rank, 0)
    x, deltas, score = vh[:0], u[:, :0], 0.0
    drawn, at_once = 0, max(1, min(DRAWN_AT_ONCE, _ENTRIES // rank**2))
    for _ in range(effort.iterations):
        if time.perf_counter() > until:
            break
        drawn += at_once
        before = kept.shape[1]
        kept = _with_new(factors, kept, _null_directions(factors.left, at_once, rng), least)
        if kept.shape[1] > before and torch.linalg.matrix_rank(kept, rtol=_SAME) == rank:
            x, deltas, score = _greedy(factors, kept, until)
            if score == 1:
                break
    found = score == 1
    return Sampled(
        x=x if found else vh[:0],
        y=_labels(model, x, deltas) if found else torch.zeros(0, dtype=torch.long),
        score=score,
        rank=rank,
        directions=kept.shape[1],
        drawn=drawn,
        seconds=time.perf_counter() - start,
    )


def _null_directions(left: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """At most ``count`` unit vectors (b, k), each orthogonal to b - 1 rows of ``left`` (m, b) that are
    drawn."""
    rank = left.shape[1]
    places = rng.random((count, len(left))).argpartition(rank - 1, axis=1)[:, : rank - 1]
    # one row more, any, makes the systems square: 1 there and 0 at the rows drawn
    other = torch.from_numpy(rng.normal(size=rank)).to(left).expand(len(places), 1, rank)
    square = torch.cat([left[torch.from_numpy(places)], other], dim=1)
    right = torch.eye(rank)[:, -1:].to(left).expand(len(places), rank, 1)
    solved = torch.linalg.solve_ex(square, right).result[:, :, 0]
    solved = solved[torch.isfinite(solved).all(dim=1)]
    directions: Tensor = (solved / solved.norm(dim=1, keepdim=True)).T
    return directions


def _with_new(factors: _Factors, kept: Tensor, drawn: Tensor, least: float) -> Tensor:
    """``kept`` (b, c) and those of the directions ``drawn`` (b, k) that are sparse enough and new."""
    sparse = (factors.deltas(drawn) == 0).double().mean(dim=0) >= least
    for some in torch.split(drawn[:, sparse], _COMPARED_AT_ONCE, dim=1):
        fresh = some[:, ~((kept.T @ some).abs() > 1 - _SAME).any(dim=0)]
        first = ~((fresh.T @ fresh).abs() > 1 - _SAME).tril(-1).any(dim=1)
        kept = torch.cat([kept, fresh[:, first]], dim=1)
    return kept


def _greedy(factors: _Factors, kept: Tensor, until: float) -> tuple[Tensor, Tensor, float]:
    """Inputs, deltas and lambda of the best b of the directions ``kept`` (b, c): first the sparsest that are
    independent, then what exchanging one of them improves, looked for ``until`` that time."""
    rank = len(kept)
    kept = kept[:, (factors.deltas(kept) != 0).sum(dim=0).argsort()]
    chosen: list[int] = []
    for k in range(kept.shape[1]):
        if torch.linalg.matrix_rank(kept[:, [*chosen, k]], rtol=_SAME) > len(chosen):
            chosen.append(k)
    best = factors.batch(kept[:, chosen])
    improved = best[2] < 1
    while improved:
        improved = False
        for k in set(range(kept.shape[1])) - set(chosen):
            for place in range(rank if time.perf_counter() < until else 0):
                other = [*chosen[:place], k, *chosen[place + 1 :]]
                tried = factors.batch(kept[:, other])
                if tried[2] > best[2]:
                    chosen, best, improved = other, tried, True
                    break
    return best


def _labels(model: nn.Sequential, x: Tensor, deltas: Tensor) -> Tensor:
    """The class (M,) of each input (M, d) whose delta is nearest to its column of ``deltas`` (m, M)."""
    weight, bias, *above = (p.detach().double() for p in model.parameters())
    classes = len(above[-1])
    hidden = (x @ weight.T + bias).repeat_interleave(classes, dim=0).requires_grad_(True)
    values = hidden
    for weight, bias in zip(above[::2], above[1::2], strict=True):
        values = values.relu() @ weight.T + bias
    labels = torch.arange(classes).to(x.device).repeat(len(x))
    loss = nn.functional.cross_entropy(values, labels, reduction="sum") / len(x)
    (slope,) = torch.autograd.grad(loss, hidden)
    nearest: Tensor = (slope.reshape(len(x), classes, -1) - deltas.T[:, None]).norm(dim=2).argmin(dim=1)
    return nearest
