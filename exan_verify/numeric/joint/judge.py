"""What may be said of a batch that is refined as a whole (refine.py): confirmed, consistent or candidates.

Samples that the other tests leave open for want of precision are judged again with every equation weighted by
its own noise. The batch is *consistent* when what it leaves of the first layer's gradient is noise (few rows
that show more than their kind, and no more than the singular values beyond the rank show) and the other
layers' gradients are reproduced; then its samples are, as far as their labels are told and ``KAPPA``
deviations leave them what they are. They are *confirmed* where other batches are excluded (exclude.py).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.confirming.bounds import effective_roundoff
from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT, Confirmed
from exan_verify.numeric.joint.exclude import BENT, KAPPA, others_excluded_typically
from exan_verify.numeric.joint.refine import NOISE_KINDS, JointFit, Moves, refine_jointly
from exan_verify.numeric.problem.downward import solve_inputs
from exan_verify.numeric.problem.passes import (
    backward,
    delta_spans,
    forward,
    gradient_error,
    gradient_norms,
    rounding,
)
from exan_verify.numeric.problem.polish import meet
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Candidate, Evidence, Finding, Tier
from exan_verify.numeric.problem.spectrum import ColumnSpace

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""

_STRANGERS = 0.05
"""Share of the rows that may show more than noise of the others' kind: a neuron that rounding flipped, or
whose state is open."""

_PRESUMED = "independent from entry to entry, as rounding is"
"""The noise for which other batches are excluded (docs/theory.md, Appendix W)."""

_UNTOLD = "two labels explain its loss vector equally well"

_ESTIMATE = 0.05
"""Largest error estimate of a consistent sample, relative to the largest entry of its input (at least 1). It
is KAPPA deviations, and errors are seen to be up to two. A sample of a small loss vector fits its equations
as well as the others, and is known as well as its share in the gradient exceeds the noise; how well, the
estimate says."""

_LABEL_MARGIN = 2.0
"""Times what noise explains that the delta of the next label is off at least."""

_SCALE = 0.02
"""How far from one the scale of a sample may be where noise is less: what else rounds a loss vector."""

_SEEN = 8.0
"""Times the noise that the singular values of A show beyond its rank that a batch may leave of A, of rows
that are no strangers: 0.6 for added noise, up to 4.3 for roundings, which are largest along the samples.
Deltas that are not the samples' own (several steps, Dropout, another loss) leave a million times as much."""


def in_reach(problem: Problem, finding: Finding, space: ColumnSpace) -> bool:
    """Whether a finding can be judged as one: all samples of the first layer's gradient separated, one hidden
    layer of ReLU, the whole gradient at its own scale, cross_entropy with classes, neurons enough to exclude
    other batches."""
    size = len(finding.x)
    first = problem.layers[0]
    return (
        finding.whole
        and not finding.literal
        and finding.y is None
        and finding.scale_error == 0
        and size == space.rank
        and (problem.question.batch_size or size) == size
        and len(problem.layers) == 2
        and problem.whole
        and problem.rectified
        and problem.scale == 1
        and not problem.weighted
        and problem.classified
        and problem.question.loss is Loss.CROSS_ENTROPY
        and problem.smoothing == 0
        and size * (size - 1) // 2 + size * problem.classes <= first.shape[0]
    )


def judge_jointly(
    problem: Problem, space: ColumnSpace, finding: Finding, gains: list[tuple[float, float]]
) -> Confirmed | None:
    """The tiers of a finding that is :func:`in_reach`, for the kind of noise that leaves most confirmed, then
    found, with the smallest errors; None where the refined batch explains the gradient with none."""
    size = len(finding.x)
    divisor = problem.divisor(size)
    y = _labels(problem, space, finding.x)
    best: Confirmed | None = None
    least = math.inf
    for kind in NOISE_KINDS:
        fit = refine_jointly(problem, finding.x, y, divisor, kind)
        if fit is None or not _explained(problem, space, fit, gains, divisor):
            continue
        judged = _judged(problem, finding, fit, divisor)
        error = float(fit.deviations.square().mean())
        if best is None or (rank_of(judged), -error) > (rank_of(best), -least):
            best, least = judged, error
        if rank_of(best)[0] == size:
            break
    return best


def rank_of(confirmed: Confirmed) -> tuple[int, int]:
    """How many samples are confirmed, and how many found."""
    return sum(one.tier is Tier.CONFIRMED for one in confirmed.status), len(confirmed.status)


def _explained(
    problem: Problem, space: ColumnSpace, fit: JointFit, gains: list[tuple[float, float]], divisor: float
) -> bool:
    """Whether what the batch leaves of the gradient is noise, at its own scale."""
    if int(fit.strange.sum()) > _STRANGERS * len(fit.strange):
        return False
    moves = Moves.of(fit.linear, fit.linear.left_inverse(fit.level)[0])
    scale, noise = moves.scales(fit.columns)
    rest, _ = fit.linear.rest(fit.level)
    seen = float(torch.linalg.matrix_norm((rest * fit.linear.rows[:, None])[~fit.strange], 2))
    if not (bool((scale <= (KAPPA * noise).clamp(min=_SCALE)).all()) and seen <= _SEEN * space.noise):
        return False
    trace, unit = fit.linear.trace, effective_roundoff(problem, space)
    deltas = backward(problem, trace, problem.loss_vectors(trace.logits, fit.linear.y) / divisor)
    off = (KAPPA * fit.deviations).norm(dim=1)
    explained = rounding(
        problem, trace, deltas, gains=gains, input_error=off, unit=unit, divisor=divisor
    ).gradients
    levels = [
        _TOLERANCE * (level + unit * norm)
        for level, norm in zip(explained, gradient_norms(problem), strict=True)
    ]
    errors = gradient_error(problem, trace, deltas)
    return all(error <= level for error, level in zip(errors, levels, strict=True))


def _labels(problem: Problem, space: ColumnSpace, x: Float[Tensor, "M d"]) -> Tensor:
    """The classes that the deltas at the candidates' patterns have."""
    trace = forward(problem, x)
    spans = delta_spans(problem, trace)
    directions = meet(spans, space.basis).deltas[:, :, 0]
    deltas = directions * solve_inputs(space, directions.T).scales[:, None]
    return problem.fit_labels(trace.logits, spans, deltas, samples=len(x)).labels


def _judged(problem: Problem, finding: Finding, fit: JointFit, divisor: float) -> Confirmed:
    trace, y = fit.linear.trace, fit.linear.y
    deltas = backward(problem, trace, problem.loss_vectors(trace.logits, y) / divisor)
    residual = math.hypot(*gradient_error(problem, trace, deltas)) / math.hypot(*gradient_norms(problem))
    excluded = others_excluded_typically(problem, fit, divisor)
    largest = fit.x.abs().amax(dim=1).clamp(min=1.0)
    radius, estimate = excluded.radius.amax(dim=1), KAPPA * fit.deviations.amax(dim=1)
    margins, doubts = _label_margins(problem, fit, divisor), _doubts(fit, estimate / largest)
    told = margins > _LABEL_MARGIN
    doubts = [doubt or ("" if tells else _UNTOLD) for doubt, tells in zip(doubts, told.tolist(), strict=True)]
    confirmed = radius <= CLAIM_LIMIT * largest
    found = confirmed | torch.tensor([not doubt for doubt in doubts], device=confirmed.device)
    bounds = torch.where(confirmed, radius, torch.where(estimate <= largest, estimate, torch.inf)).tolist()
    open_ones = torch.nonzero(~found)[:, 0].tolist()
    size = len(fit.x)
    return Confirmed(
        x=fit.x[found],
        y=y[found],
        status=tuple(
            Evidence(
                method=finding.method,
                layer=finding.layer,
                error_bound=bounds[m],
                residual=residual,
                isolation=0.0,
                label_residual=residual,
                label_margin=float(margins[m]),
                tier=Tier.CONFIRMED if bool(confirmed[m]) else Tier.CONSISTENT,
                presumes=_PRESUMED if bool(confirmed[m]) else "",
                unconfirmed=""
                if bool(confirmed[m])
                else excluded.reason or f"another batch may have it {float(radius[m]):.1e} away",
            )
            for m in torch.nonzero(found)[:, 0].tolist()
        ),
        candidates=tuple(
            Candidate(
                x=fit.x[m],
                label=y[m] if bool(told[m]) and math.isfinite(bounds[m]) else None,
                error_estimate=bounds[m],
                reason=doubts[m],
            )
            for m in open_ones
        ),
        gradient_residual=residual,
        complete=not open_ones,
        batch_size=size,
        batch_size_source="rank" if problem.question.batch_size is None else "given",
        final=True,
        reason=f"{len(open_ones)} of {size} samples are candidates only; the first: {doubts[open_ones[0]]}"
        if open_ones
        else "",
    )


def _doubts(fit: JointFit, estimate: Float[Tensor, " M"]) -> list[str]:
    """Why samples of errors of ``estimate``, relatively, are not consistent; empty where they are.

    The estimate is one to first order: it has to leave patterns, by and large, and loss vectors alone.
    """
    moves = Moves.of(fit.linear, fit.linear.left_inverse(fit.level)[0])
    logits = KAPPA * moves.logit_deviations(fit.columns).view(fit.linear.trace.logits.shape).amax(dim=1)
    return [
        "its share in the gradient is not above the noise: its error is not bounded"
        if not error <= 1
        else f"refined with all others, its error estimate {error:.1e} exceeds {_ESTIMATE:.0e}"
        if error > _ESTIMATE
        else f"refined with all others, its logits may be {bent:.1e} off, over which nothing is linear"
        if not bent <= BENT
        else ""
        for error, bent in zip(estimate.tolist(), logits.tolist(), strict=True)
    ]


def _label_margins(problem: Problem, fit: JointFit, divisor: float) -> Float[Tensor, " M"]:
    """How many times what noise explains the delta of the next label is off.

    Another label c changes m's delta by (e_y - e_c) / N, mapped down, and A by that times [x_m 1]; what no
    sample's delta and no rounding of loss vectors takes of it is seen.
    """
    at, sample = fit.linear, torch.arange(len(fit.x), device=fit.x.device)
    spans = delta_spans(problem, at.trace) / (at.rows[:, None] * abs(divisor))
    changes = (spans[sample, :, at.y][:, :, None] - spans).mT
    shown = at.outside(fit.level, changes.flatten(0, 1).T).norm(dim=0).view(changes.shape[:2])
    shown[sample, at.y] = torch.inf
    least: Tensor = shown.amin(dim=1) * at.inputs.norm(dim=1) / (KAPPA * fit.columns.amax())
    return least
