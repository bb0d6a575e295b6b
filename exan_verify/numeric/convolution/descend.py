"""Layer by layer from the features down to the pictures, until a stage leaves something open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exan_verify.models.pictures.stages import ConvolutionalNetwork, Flatten, MaxPool, Relu, Scale, Stage
from exan_verify.numeric.convolution.gradients import ConvolutionGradient
from exan_verify.numeric.convolution.known import Known
from exan_verify.numeric.convolution.records import StageReport
from exan_verify.numeric.convolution.refit import refit
from exan_verify.numeric.convolution.spread import Spread
from exan_verify.numeric.convolution.systems import solve_stage
from exan_verify.numeric.waiting import proceed

_SHARP = 1e-6
"""Pictures whose error bounds are below this are not solved for again."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Descent:
    """``pictures`` (m, C, H, W) with bounds on their error, ``error`` (m,) of any entry and ``norm`` (m,) in
    L2, or None and a ``reason``; all ``stages``."""

    pictures: Tensor | None
    error: Tensor | None
    norm: Tensor | None
    stages: tuple[StageReport, ...]
    reason: str


def descend_stages(
    network: ConvolutionalNetwork,
    at_features: Known,
    body: Mapping[int, ConvolutionGradient],
    *,
    whole: bool,
    unit_roundoff: float,
) -> Descent:
    """Invert the body stage by stage.

    ``whole``: the features are those of every sample of the batch, so that weight gradients may be used: they
    are sums over all samples.
    """
    shapes = network.shapes()
    reports: dict[int, StageReport] = {}
    known = at_features
    trail = {len(network.body): known}
    reason = ""
    for place in range(len(network.body) - 1, -1, -1):
        proceed()
        stage = network.body[place]
        if stage.inputs != (place,):
            reason = f"{stage.kind} {stage.path!r} joins branches: only their sum is known there"
        elif sum(place in other.inputs for other in network.body) > 1:
            reason = f"what {stage.kind} {stage.path!r} takes is used by another branch too"
        if reason:
            break
        d_weight = body[place].weight if whole and place in body else None
        rectified = place > 0 and isinstance(network.body[place - 1], Relu)
        below, report = invert_stage(stage, known, shapes[place], d_weight, unit_roundoff, rectified)
        reports[place] = report
        if below is None:
            reason = _why(report)
            break
        known = trail[place] = below
    stages = tuple(
        reports[k] if k in reports else _unreached(stage, known.value.shape[0], shapes[stage.inputs[0]])
        for k, stage in enumerate(network.body)
    )
    if not reason and not bool(known.known.all()):
        reason = f"{int((~known.known).sum())} entries of the pictures are not determined by the first stage"
    done = not reason
    if done and network.body and float(known.spread.entries.max()) > _SHARP:
        known = refit(network, trail)
    return Descent(
        pictures=known.value if done else None,
        error=known.spread.entries.amax(dim=1) if done else None,
        norm=known.spread.norm if done else None,
        stages=stages,
        reason=reason,
    )


def nothing_known(network: ConvolutionalNetwork, size: int) -> Descent:
    """The descent of a batch of ``size`` samples whose features are not known."""
    shapes = network.shapes()
    stages = tuple(_unreached(stage, size, shapes[stage.inputs[0]]) for stage in network.body)
    return Descent(pictures=None, error=None, norm=None, stages=stages, reason="the features are not known")


def _why(report: StageReport) -> str:
    text = f"{report.kind} {report.path!r} leaves "
    if report.deficit is None:
        return text + f"its input open: {report.note}"
    least = "at least " if report.at_least else ""
    return (
        text
        + f"{least}{report.deficit} of {report.unknowns} entries open"
        + (f": {report.note}" if report.note else "")
    )


def _unreached(stage: Stage, size: int, shape: tuple[int, ...]) -> StageReport:
    return StageReport(
        path=stage.path,
        kind=stage.kind,
        unknowns=size * math.prod(shape),
        note="not reached: something above it is open",
    )


def invert_stage(
    stage: Stage,
    known: Known,
    shape: tuple[int, ...],
    d_weight: Tensor | None,
    unit_roundoff: float,
    rectified: bool,
) -> tuple[Known | None, StageReport]:
    """What the stage takes, (M, *shape), or None where something stays open, and its report."""
    unknowns = known.value.shape[0] * math.prod(shape)
    report = StageReport(path=stage.path, kind=stage.kind, unknowns=unknowns)
    if isinstance(stage, Flatten):
        return known.reshape(shape), replace(report, equations=unknowns, alone=0, deficit=0)
    if isinstance(stage, Relu):
        return _relu(known), _relu_report(report, known)
    if isinstance(stage, MaxPool):
        return _max_pool(stage, known, shape, report, rectified)
    if isinstance(stage, Scale):
        below = _scale(stage, known)
        lost = int((known.known & ~below.known).sum())
        note = f"{lost} entries have a factor of zero" if lost else ""
        return below, replace(report, equations=unknowns - lost, alone=lost, deficit=lost, note=note)
    solved = solve_stage(stage, known, shape, d_weight, unit_roundoff)
    report = replace(
        report,
        equations=solved.equations,
        shared=solved.shared,
        alone=solved.alone,
        deficit=solved.deficit,
        at_least=solved.at_least,
        note=solved.note,
    )
    if solved.value is None or solved.spread is None:
        return None, report
    everywhere = torch.ones_like(solved.value, dtype=torch.bool)
    # A^T delta is known where all deltas of the sample are
    whole = known.delta_known.flatten(1).all(dim=1).view(-1, *[1] * len(shape))
    below = Known(
        value=solved.value,
        known=everywhere,
        spread=solved.spread,
        delta=_pull_back(stage, known.delta, shape),
        delta_known=whole.expand_as(everywhere),
        doubt=None if known.doubt is None else _pull_back(stage, known.doubt, shape),
    )
    return below, report


def _pull_back(stage: Stage, delta: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A^T delta."""
    with torch.enable_grad():
        x = delta.new_zeros(delta.shape[0], *shape, requires_grad=True)
        (below,) = torch.autograd.grad(stage.homogeneous(x), x, delta)
    return below


def _relu(known: Known) -> Known:
    """Below a ReLU: the active entries with their deltas; the others have delta zero, whatever came down."""
    active = known.active
    return replace(
        known,
        known=active,
        delta=torch.where(active, known.delta, torch.zeros_like(known.delta)),
        delta_known=known.zero | (active & known.delta_known) | (known.delta_known & (known.delta == 0)),
        doubt=None if known.doubt is None else torch.where(active, known.doubt, 0.0),
    )


def _relu_report(report: StageReport, known: Known) -> StageReport:
    active = int(known.active.sum())
    return replace(
        report,
        equations=active,
        note=f"{active} of {known.value.numel()} are active and known, the others only not positive",
    )


def _scale(stage: Scale, known: Known) -> Known:
    """Below a BatchNorm, or a constant shift and scale: entry by entry."""
    factor = stage.factor.to(known.value).reshape(-1, 1, 1)
    seen = (factor != 0).expand_as(known.value[0])
    safe = torch.where(factor != 0, factor, torch.ones_like(factor))
    return replace(
        known,
        value=(known.value - stage.offset(known.value)) / safe,
        known=known.known & seen,
        spread=known.spread.divided(safe.expand_as(known.value[0]).flatten()),
        delta=known.delta * factor,
        doubt=None if known.doubt is None else known.doubt * factor,
    )


def _max_pool(
    stage: MaxPool, known: Known, shape: tuple[int, ...], report: StageReport, rectified: bool
) -> tuple[Known | None, StageReport]:
    """Below a pool of rectified values: a window whose largest value is zero is zero, the others hide which
    entry has their value and takes their delta. Goes on only where nothing is hidden."""
    if stage.kernel == (1, 1) and stage.stride == (1, 1) and stage.padding == (0, 0):
        return known, replace(report, equations=report.unknowns, alone=0, deficit=0)
    live = int((~known.zero).sum()) if rectified else known.value.numel()
    settled = stage.covered(known.zero, shape) if rectified else torch.zeros((), dtype=torch.bool)
    count = int(settled.sum())
    report = replace(report, equations=count, alone=report.unknowns - count, deficit=report.unknowns - count)
    if report.deficit == 0:
        zeros = torch.zeros(settled.shape, dtype=torch.float64, device=known.value.device)
        none = torch.zeros_like(settled)
        even = Spread.even(known.spread.norm)
        return Known(value=zeros, known=settled, spread=even, delta=zeros, delta_known=none), report
    zero = f"; the {count} entries of windows that are zero are known" if count else ""
    note = (
        f"{live} windows show their largest value but not which of {math.prod(stage.kernel)} entries has it, "
        f"so the delta's way down is open too{zero}"
    )
    return None, replace(report, note=note)
