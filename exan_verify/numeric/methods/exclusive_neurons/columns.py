"""Guesses about exclusive neurons from the gradient alone (docs/theory.md section 2, E1 and E2).

A column of dW_L is sum_m h_j^m g^m: the column of a neuron that is exclusive to m is a positive multiple of
m's loss vector, so two such neurons have parallel columns. That parallel columns belong to one sample is a
guess; whoever uses it has to check.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exan_verify.numeric.problem.problem import Problem

ALIKE = 1e4
"""Roundings by which two columns of one sample may differ in direction: each is a product of two numbers, and
entries small beside the column's norm carry larger errors of their own."""

_COARSE = 1e-5
"""Where roundings are coarse, so many of them would take columns that are near by accident for alike: among a
few hundred columns of two samples some are within 1e-4. Products of the same g_c differ by two roundings."""

_FEW = 8.0
"""Roundings that are admitted in any case."""


def alike(unit_roundoff: float) -> float:
    """The distance up to which unit columns of dW_L count as parallel."""
    return min(ALIKE * unit_roundoff, max(_COARSE, _FEW * unit_roundoff))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossGroups:
    """Groups of last-layer neurons taken for exclusive to one sample each.

    ``neurons``: an index tensor per group; ``directions`` (m, K): unit loss vectors, or as B.1 scales them.
    """

    neurons: tuple[Tensor, ...]
    directions: Tensor

    def select(self, chosen: list[int]) -> LossGroups:
        """The ``chosen`` groups alone."""
        return LossGroups(neurons=tuple(self.neurons[k] for k in chosen), directions=self.directions[chosen])


def parallel_columns(problem: Problem) -> LossGroups:
    """E2: groups of at least two columns of dW_L that point the same way, compared after normalising."""
    columns = problem.layers[-1].d_weight.double()
    norms = columns.norm(dim=0)
    live = torch.nonzero(norms > alike(problem.unit_roundoff) * norms.max())[:, 0]
    unit = columns[:, live] / norms[live]
    groups, directions = [], []
    left = torch.ones(len(live), dtype=torch.bool, device=live.device)
    while bool(left.any()):
        first = unit[:, torch.nonzero(left)[0, 0]]
        # the distance of unit vectors, where 1 - cos would lose half the digits
        group = left & ((unit - first[:, None]).norm(dim=0) <= alike(problem.unit_roundoff))
        if int(group.sum()) > 1:
            groups.append(live[group])
            directions.append(torch.nn.functional.normalize(columns[:, live[group]].sum(dim=1), dim=0))
        left &= ~group
    return LossGroups(
        neurons=tuple(groups),
        directions=torch.stack(directions) if directions else columns.new_zeros(0, len(columns)),
    )


def equal_ratios(problem: Problem) -> LossGroups:
    """Algorithm B.1, steps 3 to 10, to the letter: columns divided by their first row, grouped by the second.

    ``directions`` are the ratios r_c = g_c / g_1 of one column of each group. A first row of zeros leaves no
    finite ratio, hence no group; for two classes r_2 = -1 throughout, hence one group.
    """
    columns = problem.layers[-1].d_weight.double()
    ratios = columns / columns[0]
    if len(columns) < 2:
        return LossGroups(neurons=(), directions=columns.new_zeros(0, len(columns)))
    live = torch.nonzero(torch.isfinite(ratios).all(dim=0))[:, 0]
    groups, directions = [], []
    left = torch.ones(len(live), dtype=torch.bool, device=live.device)
    second = ratios[1, live]
    while bool(left.any()):
        first = second[torch.nonzero(left)[0, 0]]
        group = left & ((second - first).abs() <= alike(problem.unit_roundoff) * first.abs())
        if int(group.sum()) > 1:
            groups.append(live[group])
            directions.append(ratios[:, live[group][0]])
        left &= ~group
    return LossGroups(
        neurons=tuple(groups),
        directions=torch.stack(directions) if directions else columns.new_zeros(0, len(columns)),
    )


def negative_entry(directions: Float[Tensor, "m K"]) -> Tensor:
    """Our reading of Algorithm B.2, for cross_entropy and hinge: the label is the one class on its own side
    of zero, or -1 where there is no such class and the direction is no loss vector. Works on ratios to g_1
    too, whose sign is that of g_1."""
    negative, positive = directions < 0, directions > 0
    own = torch.where(
        (negative.sum(dim=1) == 1)[:, None], negative, positive & (positive.sum(dim=1) == 1)[:, None]
    )
    return torch.where(own.any(dim=1), own.to(torch.int8).argmax(dim=1), -1)


def shown_inputs(
    problem: Problem, index: int, neurons: Int[Tensor, " m"]
) -> tuple[Float[Tensor, "m n"], Tensor]:
    """E1: what rows ``neurons`` of layer ``index`` (from 0) show when each is exclusive, and which rows show
    anything (a non-zero bias entry)."""
    layer = problem.layers[index]
    bias = layer.d_bias[neurons]
    shown = bias.abs() > 0
    rows = layer.d_weight[neurons].double() / torch.where(shown, bias, torch.ones_like(bias))[:, None]
    return rows, shown


def one_direction(problem: Problem) -> bool:
    """Whether all loss vectors are parallel, whatever the samples: two classes, or a single logit."""
    invariant = problem.question.loss.zero_sum
    return problem.classes - invariant <= 1
