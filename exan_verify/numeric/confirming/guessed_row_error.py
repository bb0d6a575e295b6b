"""How far inputs may be off that rest on rows taken for exclusive, while other samples stay unknown.

Derivation. A row taken for exclusive to m may also show a little of an unknown sample: it is then
delta_m y_m + c with c in the row space of what is left of A, and the span computed for the rest absorbs the
mistake, so that the equations of the first layer do not see it (bounds.py bounds rounding only). The input
read off is off by a multiple of e = c_x - c_b x_m, and so are the logits, the loss vector and the delta that
the label gives: the label's delta agrees with the one found to ``slack`` only if the multiple is below
slack / s, s the relative change of the delta per unit of |e|_inf. With more than K - 1 unknown samples some
combinations of them change no loss vector; a row hits these with probability zero, as rows are combinations
with generic coefficients. s is therefore taken as the least over the principal directions of what is left,
and not as the least over all.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.confirming.bounds import Refined
from exan_verify.numeric.problem.losses import LabelFit
from exan_verify.numeric.problem.passes import delta_spans
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.sensitivity import loss_slope
from exan_verify.numeric.problem.spectrum import ColumnSpace


def contamination(
    problem: Problem,
    space: ColumnSpace,
    refined: Refined,
    fit: LabelFit,
    slack: Float[Tensor, " m"],
    rest: int,
) -> Float[Tensor, " m"]:
    """Per candidate the largest L-infinity error that unknown samples in its rows could cause unnoticed;
    infinite where its loss vector does not depend on the input (hinge, real targets)."""
    x = refined.x
    h = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    left = space.rows - (space.basis.T @ refined.deltas.T) @ h
    directions = torch.linalg.svd(left, full_matrices=False)[2][:rest]
    moved = directions[None, :, :-1] - directions[None, :, -1:] * x[:, None, :]
    moved = moved / moved.abs().amax(dim=2, keepdim=True).clamp(min=1e-300)
    logits = moved
    for layer, slopes in zip(problem.layers[:-1], refined.trace.slopes, strict=True):
        logits = _linear(layer.weight, logits) * slopes[:, None, :]
    logits = _linear(problem.layers[-1].weight, logits)
    images = (
        loss_slope(problem.question.loss, refined.trace.logits, logits)
        @ delta_spans(problem, refined.trace).mT
    )
    own = (delta_spans(problem, refined.trace) @ fit.vectors[:, :, None])[:, :, 0].norm(dim=1)
    strength = images.norm(dim=2).amin(dim=1) / own.clamp(min=1e-300)
    strength = torch.where(fit.checked, strength, torch.zeros_like(strength))
    return torch.where(strength > 0, slack / strength.clamp(min=1e-300), torch.full_like(slack, torch.inf))


def _linear(weight: Tensor, values: Float[Tensor, "m r n"]) -> Float[Tensor, "m r k"]:
    product: Tensor = values @ weight.double().T
    return product
