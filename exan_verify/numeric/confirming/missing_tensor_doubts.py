"""What candidates lack where tensors of the gradient are missing (docs/theory.md, Appendix G).

With the whole gradient the layers above the first repeat what the first one says: a label that the first
layer's deltas leave open shows in dW_L, and a stranger that meets the first layer's few equations by
coincidence misses the others. Where these are missing, the first layer has to say it alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.confirming.bounds import Refined
from exan_verify.numeric.problem.passes import Trace, delta_spans
from exan_verify.numeric.problem.polish import meet
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding
from exan_verify.numeric.problem.spectrum import ColumnSpace

_INDEPENDENT = 1e-6
"""Least singular value of unit features [h 1] that dW_L is solved with."""

_SPARE = 2
"""Equations of a sample beyond its unknowns that no stranger meets by coincidence."""

_TARGET_LIMIT = 1e-4
"""Largest error of a target that is read off a delta, relative to a target of 1."""


def last_layer_vectors(problem: Problem, trace: Trace) -> Float[Tensor, "m K"] | None:
    """Divided loss vectors from the last layer's gradient, when it is given and its inputs are clearly
    independent."""
    last, h = problem.layers[-1], trace.hidden[-1]
    if not last.weight_whole:
        return None
    if last.bias_whole:
        h = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
    values = torch.linalg.svdvals(h / h.norm(dim=1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny))
    if len(values) < h.shape[0] or float(values[-1]) < _INDEPENDENT:
        return None
    given = last.augmented() if last.bias_whole else last.d_weight.double()
    vectors: Tensor = torch.linalg.pinv(h).T @ given.T
    return vectors


def unsupported(
    problem: Problem, space: ColumnSpace, finding: Finding, refined: Refined, divisor: float
) -> list[str]:
    """Per candidate of a gradient that is not whole, what it lacks; empty when nothing."""
    spans = delta_spans(problem, refined.trace)
    doubts = [""] * len(refined.x)
    for m in torch.nonzero(_short_of_equations(space, spans))[:, 0].tolist():
        doubts[m] = (
            f"layer 1 has too few live neurons to tell it from a stranger of {space.rank} samples and "
            f"{problem.classes} logits, and the gradient of the layers above is not whole"
        )
    if not problem.classified and not (
        finding.whole and last_layer_vectors(problem, refined.trace) is not None
    ):
        for m in torch.nonzero(_target_open(problem, spans, refined, divisor))[:, 0].tolist():
            doubts[m] = doubts[m] or (
                "its input is found but not its target: its delta does not determine the loss vector, and "
                "the last layer's weight gradient is missing or its features are dependent"
            )
    return doubts


def _short_of_equations(space: ColumnSpace, spans: Float[Tensor, "m n K"]) -> Bool[Tensor, " m"]:
    """Whose pattern leaves the ray (q, g) of M + K unknowns too few of the n homogeneous equations (*).

    A single sample is its column space: nothing has to tell it apart.
    """
    live = int((space.basis.norm(dim=1) > 0).sum())
    free = (meet(spans, space.basis).sines <= 1).sum(dim=1)
    if space.rank < 2:
        return torch.zeros_like(free, dtype=torch.bool)
    short: Bool[Tensor, " m"] = live - (space.rank + free - 1) < _SPARE
    return short


def _target_open(
    problem: Problem, spans: Float[Tensor, "m n K"], refined: Refined, divisor: float
) -> Bool[Tensor, " m"]:
    """Whose target (a number per logit) the first-layer delta does not give to a useful precision."""
    values = torch.linalg.svdvals(spans)
    least = values[:, -1] if values.shape[1] == problem.classes else torch.zeros_like(values[:, 0])
    deficient = least <= 1e-10 * values[:, 0]
    error = refined.drift * refined.deltas.norm(dim=1) * abs(divisor) / least.clamp(min=1e-300)
    unknown: Bool[Tensor, " m"] = deficient | ~(error <= _TARGET_LIMIT)
    return unknown
