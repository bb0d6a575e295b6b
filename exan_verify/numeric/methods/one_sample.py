"""A batch of one sample, by division: dW = delta h^T and db = delta, whatever the widths.

Nothing has to be told apart, so neither a wide layer nor a column space is needed: a row of [dW_1 | db_1]
with a non-zero bias entry is the sample, and the last layer's gradient is its loss vector. That there is one
sample and not several is what the whole gradient says, where the batch size does not: every layer's inputs
have to be the features of this one, and its loss vector that of a label at full scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exan_verify.core.question import Labels
from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT
from exan_verify.numeric.problem.losses import LabelFit, admissible, fit_scale, label_options, told_apart
from exan_verify.numeric.problem.passes import (
    Rounding,
    Trace,
    backward,
    forward,
    gradient_error,
    gradient_norms,
    rounding,
    weight_gains,
)
from exan_verify.numeric.problem.problem import LayerGradient, Problem
from exan_verify.numeric.problem.records import Attack, Candidate, Evidence, Tier

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""

_LABEL_LIMIT = 0.05
"""Loss vectors known no better than this do not tell one label from another."""

_GIVE_SIZE = "give batch_size=1 if it is one"

_OPEN_SIZE = (
    "where the factor of the loss vector is not known, one sample cannot be told from several of one region: "
    + _GIVE_SIZE
)

_DIRECTIONS, _STEP, _MARGIN = 8, 1e-4, 2.0
"""Directions in which two samples are taken to differ, the relative step of the differences that say what
they leave, and how many times what is left may be what rounding lets show of it."""

_TINY = 1e-300

_APART = 1e-2
"""Relative distance from their mean of two samples that are one for all purposes: a batch with a sample twice
looks like one with it once."""

_NEAREST = 0.25
"""Distance up to which a target is taken for the nearest label; the mismatch of its loss vector decides."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _One:
    """The sample, and the ``problem`` at its factor; ``open``: why that factor tells no label, or empty;
    ``unseen``: how far from it, L-infinity, two samples may be that look like it (:func:`_unseen`)."""

    problem: Problem
    x: Tensor
    bound: float
    fit: LabelFit
    open: str
    slack: float
    residual: float
    unseen: float

    @property
    def largest(self) -> float:
        """What errors of x are relative to."""
        return max(1.0, float(self.x.abs().max()))

    @property
    def pair(self) -> str:
        """That two samples may look like it."""
        return f"two samples {2 * self.unseen:.1e} apart would look like it at this precision: {_GIVE_SIZE}"


def one_sample(problem: Problem, *, alone: bool = False) -> Attack | None:
    """The attack's outcome where one sample explains the whole gradient, and None where one does not.

    Where a row explains every layer but no label the loss vector, several samples of one region may do, which
    other methods are to find; with ``alone`` there are none to ask, and the row is shown as a candidate.
    """
    if problem.question.batch_size not in (None, 1):
        return None
    one = _explaining(problem)
    if one is None:
        return None
    label, doubt = _label(one.problem, one)
    if doubt is None and not alone:
        return None
    if doubt is None:
        doubt = f"no label explains the loss vector at full scale: {problem.alternatives}"
    told, sure = problem.question.batch_size is not None, one.unseen <= CLAIM_LIMIT * one.largest
    evidence = Evidence(
        method="one sample",
        layer=None,
        error_bound=one.bound,
        residual=one.residual,
        isolation=1.0,
        label_residual=float(one.fit.mismatch[0]),
        label_margin=float(one.fit.margin[0]),
        weight=float(one.fit.counts[0]) if problem.weighted else 1.0,
        # every layer has rank 1, and a non-zero bias entry leaves one sample nothing to choose
        tier=Tier.CONFIRMED if told or sure else Tier.CONSISTENT,
        unconfirmed="" if told or sure else one.pair,
    )
    candidate = Candidate(x=one.x[0], label=label, error_estimate=one.bound, reason=doubt)
    kept = int(not doubt)
    return Attack(
        x=one.x[:kept],
        y=one.fit.labels[:kept],
        status=(evidence,) * kept,
        gradient_residual=one.residual if kept else 1.0,
        complete=bool(kept),
        batch_size=1,
        batch_size_source="given" if told else "rank",
        method="one sample",
        layer=None,
        layers=(),
        candidates=() if kept else (candidate,),
        reason=doubt,
        seconds=0.0,
        hint=f"one sample fits: {_GIVE_SIZE}" if doubt.endswith(_GIVE_SIZE) else "",
        scale=one.problem.scale or 1.0,
    )


def _explaining(problem: Problem) -> _One | None:
    """The sample that a row shows, if it reproduces the gradient of every layer with some loss vector."""
    first, last = problem.layers[0], problem.layers[-1]
    if not first.paired or not all(layer.weight_given for layer in problem.layers):
        return None
    if len(problem.layers) > 1 and not last.weight_whole:
        # the loss vector is not known entirely, and with it none of the deltas below
        return None
    bias = first.bias_column
    j = int(bias.abs().argmax())
    scale = float(bias[j].abs())
    if not scale > 0:
        return None
    x = (first.d_weight[j].double() / bias[j])[None]
    if not bool(torch.isfinite(x).all()):
        return None
    trace, gains = forward(problem, x), weight_gains(problem)
    g = _loss_vector(last, trace.hidden[-1])
    deltas = backward(problem, trace, g)
    unit, largest = problem.unit_roundoff, 1 + float(x.abs().max())

    def moved(bound: float) -> Rounding:
        error = x.new_full((1,), bound * math.sqrt(x.shape[1]))
        return rounding(problem, trace, deltas, gains=gains, input_error=error, unit=unit, divisor=1)

    levels, errors, norms = (
        moved(4 * unit * largest),
        gradient_error(problem, trace, deltas),
        gradient_norms(problem),
    )
    # the loss vector is what the last layer gives, so that nothing but roundings is left of any layer
    if any(
        not error <= _TOLERANCE * (level + unit * norm)
        for error, level, norm in zip(errors, levels.gradients, norms, strict=True)
    ):
        return None
    bound = max(4 * unit, 4 * errors[0] / scale / math.sqrt(first.count)) * largest
    off = float(moved(bound).pre[-1][0] if len(problem.layers) > 1 else bound * math.sqrt(x.shape[1]))
    # an error of the logits moves a loss vector by twice as much at most, undivided
    moves = _TOLERANCE * (2 * gains[-1][0] * off + unit * (1 + float(trace.logits.abs().max())))
    problem, doubt = _with_scale(problem, trace, g, moves)
    fit = _fitted(problem, trace, g)
    size = float(fit.vectors.norm() / fit.counts.abs()[0]) if problem.weighted else float(g.norm())
    size *= 1.0 if problem.weighted else abs(problem.divisor(1))
    total = math.hypot(*errors) / max(math.hypot(*norms), 1e-300)
    return _One(
        problem=problem,
        x=x,
        bound=bound,
        fit=fit,
        open=doubt,
        slack=moves / max(size, 1e-300),
        residual=total,
        unseen=_unseen(problem, trace, deltas, fit, errors),
    )


def _unseen(
    problem: Problem, trace: Trace, deltas: tuple[Tensor, ...], fit: LabelFit, errors: list[float]
) -> float:
    """How far from x, L-infinity, two samples x + e v and x - e v of one label may be that look like x.

    With delta' and h' the derivatives along v of a layer's delta and input, the mean of the two gives it
    delta [h 1] + e^2 delta' [h' 0] to second order. The part of the second term across delta and across [h 1]
    no change of x or of the loss vector takes up, so that it is in what is left of the layer beside x, its
    entry of ``errors``. The mean of the two loss vectors is not that of the label at the mean of the inputs,
    weighted by a row's deltas, by some e^2 q, which is in the mismatch of the label. What shows the pair best
    counts, and of some directions v the worst. Along one that changes no logit any e is unseen, but two
    samples do not differ along one by chance.
    """
    x, j = trace.hidden[0], int(problem.layers[0].bias_column.abs().argmax())
    step = _STEP * (1 + float(x.abs().max()))
    v = torch.randn(_DIRECTIONS, x.shape[1], dtype=x.dtype, generator=problem.generator()).to(x)
    v = torch.nn.functional.normalize(v, dim=1)
    labels = fit.labels.expand(len(v), *fit.labels.shape[1:])
    divisor = abs(problem.divisor(1))

    def passed(at: Tensor) -> tuple[Trace, tuple[Tensor, ...]]:
        """The trace and the deltas (M, n_i) of inputs ``at`` (M, d)."""
        # the patterns are those of x, so that nothing but the logits moves a delta
        there = forward(problem, at)
        pre = tuple(z.expand(len(v), -1) for z in trace.pre)
        g = problem.loss_vectors(there.logits, labels) / divisor
        return there, backward(problem, replace(there, pre=pre), g)

    (ahead, after), (behind, before) = passed(x + step * v), passed(x - step * v)
    far = x.new_full((len(v),), torch.inf)
    for k, (delta, error) in enumerate(zip(deltas, errors, strict=True)):
        h = torch.nn.functional.pad(trace.hidden[k], (0, 1), value=1.0)
        moved = torch.nn.functional.pad(ahead.hidden[k] - behind.hidden[k], (0, 1))
        sent = problem.layers[k].sent
        across = _across(sent(after[k] - before[k]), sent(delta))
        size = across.norm(dim=1) * _across(moved, h).norm(dim=1) / 4
        far = torch.minimum(far, (_MARGIN * error / size.clamp(min=_TINY)).sqrt())
    drift = ((after[0] - before[0]) / (after[0] + before[0]))[:, j, None]
    mean = passed(x + step * drift * v)[1][-1]
    size = problem.layers[-1].sent((after[-1] + before[-1]) / 2 - mean).norm(dim=1)
    missed = (float(fit.mismatch[0]) + problem.unit_roundoff) * float(deltas[-1].norm())
    far = torch.minimum(far, (_MARGIN * missed / size.clamp(min=_TINY)).sqrt())
    return float((step * far * v.abs().amax(dim=1)).max())


def _across(rows: Tensor, direction: Tensor) -> Tensor:
    """``rows`` (m, n) without their parts along ``direction`` (1, n)."""
    unit = torch.nn.functional.normalize(direction, dim=1)
    return rows - (rows @ unit.T) @ unit


def _with_scale(problem: Problem, trace: Trace, g: Tensor, moves: float) -> tuple[Problem, str]:
    """The problem at the factor of its gradient, and what is open where no label alone has one.

    The sample's own factor, where there is one, is part of that."""
    if problem.scale is not None:
        return problem, ""
    problem = replace(problem, weighted=False)
    identity = _shown(problem)
    vectors = label_options(problem.question.loss, trace.logits, g, problem.smoothing)[1]
    least = float(vectors.norm(dim=-1).min())
    found = fit_scale(
        problem.question.loss,
        trace.logits,
        identity,
        g,
        divisor=problem.divisor(1),
        within=g.new_full((1,), min(_LABEL_LIMIT, moves / max(least, 1e-300))),
        smoothing=problem.smoothing,
    )
    if found is None:
        return replace(problem, scale=1.0), (
            "no single factor of the gradient explains its loss vector by a label: give scale"
        )
    return replace(problem, scale=found[0], scale_found=True), ""


def _loss_vector(last: LayerGradient, h: Tensor) -> Tensor:
    """The divided loss vector (1, K) that gives the last layer's gradient best; zero where that has no
    row."""
    given = last.d_weight.double() @ h[0]
    size = h[0].square().sum()
    if last.paired:
        given, size = given + last.bias_column, size + 1
    return last.sent(given / size)[None]


def _shown(problem: Problem) -> Tensor:
    """What of a loss vector the last layer's gradient shows, a map (1, K, K)."""
    identity = torch.eye(problem.classes, dtype=torch.float64, device=problem.device)
    return problem.layers[-1].sent(identity)[None]


def _fitted(problem: Problem, trace: Trace, g: Tensor) -> LabelFit:
    return problem.fit_labels(
        trace.logits,
        _shown(problem),
        g,
        samples=1,
        reach=_NEAREST if problem.question.labels is Labels.ONE_HOT else 0.0,
    )


def _mixed(problem: Problem, one: _One) -> str:
    """Why several samples may look like this one, where how many there are is not told."""
    exposing = problem.layers[-1].weight_whole
    if not exposing or not bool(told_apart(problem.question.loss, one.fit.vectors, one.slack)[0]):
        return (
            "its loss vector would fit a mixture of samples of one region as well (constant or saturated): "
            + _GIVE_SIZE
        )
    return one.pair if one.unseen > _APART * one.largest else ""


def _label(problem: Problem, one: _One) -> tuple[Tensor | None, str | None]:
    """The label, and what speaks against the sample; None in its place: one sample does not explain it."""
    fit, told = one.fit, problem.question.batch_size == 1
    if one.open:
        return None, one.open
    label = fit.labels[0]
    if not problem.classified and not problem.layers[-1].weight_whole:
        return None, "its target is open at the logits of which the gradient has no row"
    if not told and (problem.scale_found or problem.weighted):
        return label, _OPEN_SIZE
    if problem.question.labels is Labels.REAL:
        if not bool(admissible(problem.question.loss, fit.labels).all()):
            return label, f"its target is not within [0, 1]: {problem.alternatives}"
        if not told:
            return label, (
                "one sample explains the whole gradient; with real targets so would several of one region: "
                + _GIVE_SIZE
            )
        return label, ""
    if problem.classified and told and one.slack > _LABEL_LIMIT:
        return None, f"its loss vector is known to {one.slack:.1e} only, which tells no label"
    one_of_several = problem.classified or problem.weighted
    tied = one_of_several and float(fit.margin[0] * fit.mismatch[0].clamp(min=1e-16)) <= one.slack
    explained = bool(fit.checked[0]) and float(fit.mismatch[0]) <= one.slack and one.slack <= _LABEL_LIMIT
    if explained:
        doubt = "two labels explain its loss vector equally well" if tied else ""
        return label, doubt if told else _mixed(problem, one) or doubt
    if problem.classified or (not told and bool(fit.checked[0])):
        off = float(fit.mismatch[0])
        return None, None if not told else (
            f"no label explains its loss vector (distance {off:.1e}): {problem.alternatives}"
        )
    return label, (
        "one sample explains the whole gradient, with a target that is none of the loss's own: "
        + problem.alternatives
        + ("" if told else "; labels='real' needs batch_size=1 as well")
    )
