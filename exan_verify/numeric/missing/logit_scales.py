"""Scales of samples from the ratios of their loss vectors for cross_entropy, or from the sizes for any loss
(docs/theory.md, Appendix G).

Derivation. Without any bias gradient x = t y for a known row y, one number t per sample. The patterns are
known (a delta vanishes on inactive neurons), so the logits are affine in t, f = t a + c. For cross_entropy
g_c = p_c / divisor for every class but the label, which is the one class whose sign differs, so

    log |g_c| - log |g_c'| = f_c - f_c' = t (a_c - a_c') + c_c - c_c':

K - 2 linear equations for t from the direction of g alone. Its size is not used, and tests the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.missing.size_scales import invisible, scale_by_size
from exan_verify.numeric.problem.passes import forward
from exan_verify.numeric.problem.problem import Problem

_SAFETY = 4.0
"""Between an error estimated by norms and the bound that is used."""

_DOUBT = 100.0
"""Times its error that an entry of a delta must have to be active, or to have a sign, beyond doubt."""

_RANK_TOLERANCE = 1e-6
"""Least singular value, relative to the largest, with which deltas are carried one layer up."""

_LEAST_CLASSES = 3

_CLOSE = 1e-6
"""Pre-activations this near to zero, relatively, are of either sign."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Directions:
    """Samples up to their scales: the direction d (n_1, M) of each delta, the row y (M, d), the direction u
    (n_2, M) of the delta above with its error (M,) in norm, the pattern (n_1, M), and which neurons (n_1,)
    are active or not beyond doubt for all samples."""

    d: Tensor
    y: Tensor
    u: Tensor
    u_error: Tensor
    pattern: Tensor
    sure: Tensor


def logit_scales(problem: Problem, found: Directions) -> tuple[Tensor, Tensor] | str:
    """Scales (M,) and their errors, delta_m = s_m d_m and x_m = y_m / s_m; why they stay open, where they do.

    Ratios of probabilities first, which need nothing else; then any loss's equations, by size.
    """
    if not bool(found.sure.all()):
        return "some neuron is not active or inactive beyond doubt, or its row is not given"
    nothing = invisible(problem, len(found.y))
    # smoothing takes its share from every class, so that ratios are not those of probabilities
    ratios = problem.question.loss is Loss.CROSS_ENTROPY and problem.classes >= _LEAST_CLASSES
    solved: list[tuple[float, float]] = []
    for m in range(len(found.y)):
        climbed = _climb(problem, found, m)
        if climbed is None:
            return "the deltas of layer 2 do not determine the loss vectors"
        one = _scale(problem, found, m, climbed) if ratios and not problem.smoothing else None
        if one is None and nothing:
            return nothing
        if one is None:
            patterns, g, error = climbed
            either = scale_by_size(
                problem,
                *_logits(problem, found.y[m], patterns),
                g,
                error,
                samples=problem.question.batch_size or len(found.y),
                admitted=partial(_kept, problem, found.y[m], patterns),
            )
            if isinstance(either, str):
                return either
            one = either
        solved.append(one)
    scales, errors = torch.tensor(solved, dtype=torch.float64, device=problem.device).unbind(dim=1)
    return scales, errors


def _scale(
    problem: Problem, found: Directions, m: int, climbed: tuple[list[Tensor], Tensor, float]
) -> tuple[float, float] | None:
    patterns, g, error = climbed
    clear = g.abs() > _DOUBT * error
    negative, positive = clear & (g < 0), clear & (g > 0)
    label = negative if int(negative.sum()) == 1 else positive
    others = clear & ~label
    # with two clear classes either may be the label
    if int(label.sum()) != 1 or int(others.sum()) < _LEAST_CLASSES - 1:
        return None
    error_of_row = float(found.u_error[m] / found.u[:, m].norm())
    slope, constant = _logits(problem, found.y[m], patterns)
    relative = error / g[others].abs()
    weights = 1 / (relative + _rounding(slope, constant))
    heights = g[others].abs().log() - constant[others]
    a, b = _centred(slope[others], weights), _centred(heights, weights)
    size = float(a.norm())
    if size == 0:
        return None
    t = float(a @ b) / size**2
    rest = float((b - t * a).norm())
    # weighted by their errors, the equations are right to one each; the row y is as good as the delta
    tilted = error_of_row * abs(t) * float((weights * slope[others]).norm())
    error_t = _SAFETY * math.hypot(max(rest, len(b) ** 0.5), tilted) / size
    if t == 0 or error_t >= abs(t):
        return None
    return 1 / t, error_t / t**2


def _climb(problem: Problem, found: Directions, m: int) -> tuple[list[Tensor], Tensor, float] | None:
    """The patterns of all hidden layers, and the loss vector up to its scale, with its error in norm."""
    patterns, delta, error = [found.pattern[:, m]], found.u[:, m], float(found.u_error[m])
    for layer in problem.layers[2:]:
        active = delta.abs() > _DOUBT * error
        span = layer.weight.double().T[active]
        values = torch.linalg.svdvals(span)
        if span.shape[0] < span.shape[1] or float(values[-1]) <= _RANK_TOLERANCE * float(values[0]):
            return None
        patterns.append(active)
        delta = torch.linalg.pinv(span) @ delta[active]
        error = error / float(values[-1])
    return patterns, delta, error


def _logits(
    problem: Problem, y: Float[Tensor, " d"], patterns: list[Tensor]
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """The logits at t y, as slope and constant in t, where the patterns hold."""
    slope, constant = y, torch.zeros_like(y)
    for layer, pattern in zip(problem.layers, [*patterns, None], strict=True):
        slope = layer.weight.double() @ slope
        constant = layer.weight.double() @ constant + layer.bias
        if pattern is not None:
            slope, constant = slope * pattern, constant * pattern
    return slope, constant


def _kept(problem: Problem, y: Float[Tensor, " d"], patterns: list[Tensor], t: float) -> bool:
    """Whether the activation patterns at t y are ``patterns``, as far as rounding tells."""
    for z, pattern in zip(forward(problem, (t * y)[None]).pre, patterns, strict=True):
        wrong = (z[0] > 0) != pattern
        if bool((wrong & (z[0].abs() > _CLOSE * float(z.abs().max()))).any()):
            return False
    return True


def _rounding(slope: Tensor, constant: Tensor) -> float:
    return 64 * 2.0**-53 * (1 + float(slope.abs().max()) + float(constant.abs().max()))


def _centred(values: Float[Tensor, " k"], weights: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Weighted, without what all classes share."""
    squared = weights.square()
    mean = (squared @ values) / squared.sum()
    return weights * (values - mean)
