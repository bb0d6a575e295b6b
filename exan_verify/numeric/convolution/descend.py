"""Layer by layer from the features down to the pictures, until a stage leaves something open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exan_verify.numeric.convolution.gradients import ConvolutionGradient
from exan_verify.numeric.convolution.known import Known
from exan_verify.numeric.convolution.records import StageReport
from exan_verify.numeric.convolution.stages import (
    ConvolutionalNetwork,
    Flatten,
    MaxPool,
    Relu,
    Scale,
    Stage,
)
from exan_verify.numeric.convolution.systems import solve_stage


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Descent:
    """``pictures`` (m, C, H, W) with L2 ``error`` (m,), or None and a ``reason``; all ``stages``."""

    pictures: Tensor | None
    error: Tensor | None
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
    reason = ""
    for place in range(len(network.body) - 1, -1, -1):
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
        known = below
    stages = tuple(
        reports[k] if k in reports else _unreached(stage, known.value.shape[0], shapes[stage.inputs[0]])
        for k, stage in enumerate(network.body)
    )
    if not reason and not bool(known.known.all()):
        reason = f"{int((~known.known).sum())} entries of the pictures are not determined by the first stage"
    done = not reason
    return Descent(
        pictures=known.value if done else None,
        error=known.error if done else None,
        stages=stages,
        reason=reason,
    )


def nothing_known(network: ConvolutionalNetwork, size: int) -> Descent:
    """The descent of a batch of ``size`` samples whose features are not known."""
    shapes = network.shapes()
    stages = tuple(_unreached(stage, size, shapes[stage.inputs[0]]) for stage in network.body)
    return Descent(pictures=None, error=None, stages=stages, reason="the features are not known")


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
    """What the stage takes, or None where something stays open, and its report."""
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
    if solved.value is None or solved.error is None:
        return None, report
    delta, delta_known = _pull_back(stage, known, shape)
    everywhere = torch.ones_like(solved.value, dtype=torch.bool)
    return (
        Known(value=solved.value, known=everywhere, error=solved.error, delta=delta, delta_known=delta_known),
        report,
    )


def _pull_back(stage: Stage, known: Known, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A^T delta, known where all deltas of the sample are."""
    with torch.enable_grad():
        x = known.value.new_zeros(known.value.shape[0], *shape, requires_grad=True)
        (delta,) = torch.autograd.grad(stage.homogeneous(x), x, known.delta)
    whole = known.delta_known.flatten(1).all(dim=1)
    return delta, whole.view(-1, *[1] * len(shape)).expand_as(delta)


def _relu(known: Known) -> Known:
    """Below a ReLU: the active entries with their deltas; the others have delta zero, whatever came down."""
    active = known.active
    return replace(
        known,
        known=active,
        delta=torch.where(active, known.delta, torch.zeros_like(known.delta)),
        delta_known=known.zero | (active & known.delta_known) | (known.delta_known & (known.delta == 0)),
    )


def _relu_report(report: StageReport, known: Known) -> StageReport:
    active = int(known.active.sum())
    return replace(
        report,
        equations=active,
        note=f"{active} of {known.value.numel()} are active and known, the others only not positive",
    )


def _scale(stage: Scale, known: Known) -> Known:
    """Below a BatchNorm: entry by entry."""
    factor = stage.factor.to(known.value)[:, None, None]
    seen = (factor != 0).expand_as(known.value[0])
    safe = torch.where(factor != 0, factor, torch.ones_like(factor))
    return replace(
        known,
        value=(known.value - stage.offset(known.value)) / safe,
        known=known.known & seen,
        error=known.error / float(safe.abs().min()),
        delta=known.delta * factor,
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
        return Known(value=zeros, known=settled, error=known.error, delta=zeros, delta_known=none), report
    zero = f"; the {count} entries of windows that are zero are known" if count else ""
    note = (
        f"{live} windows show their largest value but not which of {math.prod(stage.kernel)} entries has it, "
        f"so the delta's way down is open too{zero}"
    )
    return None, replace(report, note=note)
