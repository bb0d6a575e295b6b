"""A baseline: peeling whose only test is a tolerance, as LT codes are decoded.

Our reading of Shariati and Meybodi (arXiv 2609.09659), whose text we do not have; known is that rows of
exclusive neurons are peeled as a decoder of LT codes does, knowing the batch size, and that an absolute
residual below :data:`PUBLISHED` in float64 accepts them. The reading: a row of [dW_1 | db_1] is taken for
exclusive when the sample that it shows would, with one of the K labels, leave that very row by its own
forward and backward pass (docs/theory.md E4, K tries), up to ``tolerance``: absolute, of any entry of the
row, or relative to its bias entry. All rows that pass are peeled, then the remainder is looked at again,
until the batch is full. To ask that a second row agrees would leave next to none at their setting, where they
report about half of 64. A mixture of samples passes by coincidence: n_1 K tries a round, each with a chance
proportional to the tolerance. The package's own method asks for the
whole delta instead (``numeric/methods/exclusive_neurons/rows.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PUBLISHED = 1e-8
"""The absolute residual of the authors."""

_GONE = 1e-10
"""Rows below this share of the largest are rounding of what was peeled off."""

_SAME = 1e-3
"""Relative distance of two rows' inputs that are the same sample."""


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """Weights and biases of one hidden layer and the logits, in float64."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor

    def deltas(self, x: Tensor, samples: int) -> Tensor:
        """First-layer deltas (m, K, n_1) of inputs (m, d), by label, for the mean over ``samples``."""
        pre = x @ self.w1.T + self.b1
        chances = (pre.relu() @ self.w2.T + self.b2).softmax(dim=1)
        g = (chances[:, None, :] - torch.eye(len(self.w2)).to(x)) / samples
        deltas: Tensor = g @ self.w2 * (pre > 0)[:, None, :]
        return deltas


def tolerance_peeling(
    model: nn.Sequential,
    gradient: Mapping[str, Tensor],
    *,
    batch_size: int,
    tolerance: float,
    absolute: bool = False,
) -> tuple[Tensor, Tensor]:
    """The accepted inputs (m, d) and labels (m,), m <= ``batch_size``.

    ``model``: Linear, ReLU, Linear; ``gradient``: of its mean cross_entropy, under its parameters' names;
    ``tolerance``: of a row's largest deviation where ``absolute``, else relative to its bias entry.
    """
    network = _Network(*(p.detach().double() for p in model.parameters()))
    left = torch.cat([gradient["0.weight"].double(), gradient["0.bias"].double()[:, None]], dim=1)
    floor = _GONE * float(left.norm(dim=1).max())
    x, y = left.new_zeros(0, left.shape[1] - 1), left.new_zeros(0, dtype=torch.long)
    while len(x) < batch_size:
        fresh, labels, deltas = _passing(network, left, floor, batch_size, tolerance, absolute)
        room = batch_size - len(x)
        if not len(fresh):
            break
        x, y = torch.cat([x, fresh[:room]]), torch.cat([y, labels[:room]])
        left = left - deltas[:room].T @ torch.cat([fresh, torch.ones_like(fresh[:, :1])], dim=1)[:room]
    return x, y


def _passing(
    network: _Network, left: Tensor, floor: float, samples: int, tolerance: float, absolute: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, labels and deltas of the rows that pass, the first of each input."""
    rows = torch.nonzero((left.norm(dim=1) > floor) & (left[:, -1] != 0))[:, 0]
    x, bias = left[rows, :-1] / left[rows, -1:], left[rows, -1]
    deltas = network.deltas(x, samples)
    own = deltas.gather(2, rows[:, None, None].expand(-1, deltas.shape[1], 1))[:, :, 0]
    # a row b [x, 1] misses delta [x, 1] by |b - delta| times the largest entry of [x, 1]
    unit = 1 / x.abs().amax(dim=1).clamp(min=1.0) if absolute else bias
    miss, labels = ((own - bias[:, None]) / unit[:, None]).abs().min(dim=1)
    good = torch.nonzero(miss < tolerance)[:, 0]
    x, labels, deltas = x[good], labels[good], deltas[good, labels[good]]
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    first = ~(distance <= _SAME * x.norm(dim=1)).tril(-1).any(dim=1)
    return x[first], labels[first], deltas[first]
