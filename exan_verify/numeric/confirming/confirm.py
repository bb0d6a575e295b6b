"""The last word on candidates of any method: which samples the attack stands behind.

A sample is claimed only when its own equations hold to rounding, its error bound is small, a label explains
its loss vector at full scale, and the gradient of the recovered batch is the given one to rounding (for a
partly recovered batch: what is left has the rank that the missing samples account for).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.numeric.confirming.bounds import Refined
from exan_verify.numeric.confirming.guessed_row_error import contamination
from exan_verify.numeric.confirming.missing_tensor_doubts import last_layer_vectors, unsupported
from exan_verify.numeric.problem.losses import LabelFit, fit_labels, loss_vectors
from exan_verify.numeric.problem.passes import (
    Rounding,
    backward,
    delta_spans,
    forward,
    gradient_error,
    gradient_norms,
    rounding,
)
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Candidate, Evidence, Finding
from exan_verify.numeric.problem.spectrum import ColumnSpace

CLAIM_LIMIT = 1e-3
"""Largest error bound of a claimed sample, relative to the largest entry of its input (at least 1)."""

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""

_TIED = 1e-6
"""Labels that explain a loss vector this well, relatively, both explain it."""

_NEAREST = 0.25
"""Distance up to which a target is taken for the nearest label; the mismatch of its delta decides."""

_SOFT = 1e-3
"""How far outside of [0, 1] rounding may take a real target of bce."""

_KINDS = {
    Loss.MSE: "one-hot target (0 or 1 for one logit)",
    Loss.BCE: "0/1 vector",
}

_LABEL_LIMIT = 0.05
"""Loss vectors known no better than this do not tell one label, or one copy, from another."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Confirmed:
    """Claimed samples with their evidence, the others with reasons, and the batch as a whole."""

    x: Tensor
    y: Tensor
    status: tuple[Evidence, ...]
    candidates: tuple[Candidate, ...]
    gradient_residual: float
    complete: bool
    batch_size: int
    batch_size_source: str
    reason: str


def confirm(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    finding: Finding,
    refined: Refined,
    gains: list[tuple[float, float]],
) -> Confirmed:
    """Judge the refined candidates of ``finding``."""
    total = refined.x.shape[0] + finding.rest.shape[1]
    fit, size, source = _labels_and_size(problem, finding, refined, total)
    divisor = problem.divisor(size)
    spread = _label_tolerance(problem, refined, fit, gains, divisor)
    if finding.guessed_rows and finding.rest.shape[1]:
        off = contamination(problem, spaces[0], refined, fit, spread, finding.rest.shape[1])
        wide = refined.x.shape[1] ** 0.5
        refined = replace(refined, bound=refined.bound + off, norm=refined.norm + off * wide)
    reasons = _reasons(problem, refined, fit, spread, whole=finding.whole and total == size)
    if not problem.whole:
        doubts = unsupported(problem, spaces[0], finding, refined, divisor)
        reasons = [reason or doubt for reason, doubt in zip(reasons, doubts, strict=True)]
    if problem.batch_size is not None and total > problem.batch_size:
        more = f"the gradient shows {total} independent samples, more than batch_size={problem.batch_size}"
        reasons = [reason or more for reason in reasons]
    if finding.literal:
        reasons = [moved or reason for moved, reason in zip(_moved(finding, refined), reasons, strict=True)]
    good = torch.tensor([not r for r in reasons], dtype=torch.bool, device=problem.device)
    batch = _Batch.of(problem, refined, fit, divisor)
    batch_reason = ""
    if bool(good.any()):
        if bool(good.all()) and finding.whole and total == size:
            batch_reason = batch.unexplained(problem, refined, gains, divisor)
        else:
            batch_reason = batch.leftover(spaces, good, max(size, total))
    if batch_reason:
        reasons = [r or batch_reason for r in reasons]
        good = torch.zeros_like(good)
    complete = bool(good.all()) and total == size and finding.whole
    return Confirmed(
        x=refined.x[good],
        y=fit.labels[good],
        status=tuple(_evidence(finding, refined, fit, m) for m in torch.nonzero(good)[:, 0].tolist()),
        candidates=tuple(
            Candidate(
                x=(finding if finding.literal else refined).x[m],
                label=fit.labels[m] if fit.loose[m] < _LABEL_LIMIT else None,
                error_estimate=float(refined.bound[m]),
                reason=r,
            )
            for m, r in enumerate(reasons)
            if r
        ),
        gradient_residual=batch.residual(),
        complete=complete,
        batch_size=size,
        batch_size_source=source,
        reason="" if complete else _why(finding, reasons, total, size),
    )


def _labels_and_size(
    problem: Problem, finding: Finding, refined: Refined, total: int
) -> tuple[LabelFit, int, str]:
    """Labels, and the batch size: the user's, the rank, or what the mean's divisor shows."""
    size, source = (total, "rank") if problem.batch_size is None else (problem.batch_size, "given")
    spans = delta_spans(problem, refined.trace)
    hint = last_layer_vectors(problem, refined) if finding.whole else None

    def fit_for(samples: int) -> LabelFit:
        return fit_labels(
            problem.loss,
            refined.trace.logits,
            spans,
            refined.deltas,
            divisor=problem.divisor(samples),
            loss_vector_hint=hint,
            reach=_NEAREST if problem.labels is Labels.ONE_HOT else 0.0,
        )

    fit = fit_for(size)
    if problem.batch_size is None and problem.reduction is Reduction.MEAN and problem.loss is not Loss.MSE:
        counts = (size / fit.counts.clamp(min=1e-9))[fit.loose < _LABEL_LIMIT]
        counts = counts[((counts - counts.round()).abs() < _LABEL_LIMIT) & (counts < 1e6)]
        seen = int(counts.round().mode().values) if len(counts) else size
        if seen > size:
            return fit_for(seen), seen, "loss scale"
    return fit, size, source


def _label_tolerance(
    problem: Problem, refined: Refined, fit: LabelFit, gains: list[tuple[float, float]], divisor: int
) -> Float[Tensor, " m"]:
    """Relative deviation of a delta that errors in x, rounding and the delta's own error explain."""
    deltas = backward(problem, refined.trace, fit.vectors / divisor)
    error = _errors(problem, refined, deltas, gains, divisor).deltas[0]
    tolerance: Tensor = _TOLERANCE * error / deltas[0].norm(dim=1).clamp(min=1e-300) + 4 * refined.drift
    return tolerance


def _errors(
    problem: Problem,
    refined: Refined,
    deltas: tuple[Tensor, ...],
    gains: list[tuple[float, float]],
    divisor: int,
) -> Rounding:
    bound = torch.where(torch.isfinite(refined.bound), refined.bound, torch.zeros_like(refined.bound))
    return rounding(
        problem,
        refined.trace,
        deltas,
        gains=gains,
        input_error=bound * refined.x.shape[1] ** 0.5,
        unit=refined.unit,
        divisor=divisor,
    )


def _reasons(problem: Problem, refined: Refined, fit: LabelFit, spread: Tensor, *, whole: bool) -> list[str]:
    """Per candidate why it is not claimed; empty when nothing speaks against it."""
    reasons = []
    limits = CLAIM_LIMIT * refined.x.abs().amax(dim=1).clamp(min=1.0)
    sized = problem.batch_size is not None and whole
    for m in range(refined.x.shape[0]):
        sine, allowed = float(refined.sine[m]), float(refined.allowed[m])
        bound, slack = float(refined.bound[m]), float(spread[m])
        if not sine <= allowed:
            reasons.append(f"its own equations fail: residual {sine:.1e}, rounding explains {allowed:.1e}")
        elif not bound <= float(limits[m]):
            reasons.append(f"its error bound {bound:.1e} exceeds {float(limits[m]):.1e}")
        elif slack > _LABEL_LIMIT and bool(fit.checked[m]):
            reasons.append(f"its loss vector is known to {slack:.1e} only, too little to confirm it")
        elif not float(fit.mismatch[m]) <= slack:
            counted = f"; one counts {float(fit.counts[m]):.4g} times" if float(fit.loose[m]) <= slack else ""
            reasons.append(
                f"no label explains its loss vector (distance {float(fit.mismatch[m]):.1e}{counted}): "
                "several samples that share a region, or another batch size"
            )
        elif _foreign(problem, fit, m):
            reasons.append(
                f"no {_KINDS[problem.loss]} explains its loss vector: a scaled gradient, another loss or "
                "batch size, several samples that share a region, or real targets (labels='real')"
            )
        elif problem.loss.class_labels and float(fit.margin[m] * fit.mismatch[m]) <= min(slack, _TIED):
            reasons.append("two labels explain its loss vector equally well")
        elif not sized and not _telling(problem.loss, fit, m, slack):
            reasons.append(
                "its loss vector would fit a mixture of samples of one region as well (real or saturated "
                "label); it can be confirmed only when batch_size is given and equals the number found"
            )
        else:
            reasons.append("")
    return reasons


def _foreign(problem: Problem, fit: LabelFit, m: int) -> bool:
    """Whether the target is none of those admitted: any number fits some loss vector, so it must be one."""
    if problem.loss not in _KINDS:
        return False
    if problem.labels is Labels.ONE_HOT:
        return not bool(fit.checked[m])
    target = fit.labels[m]
    return problem.loss is Loss.BCE and bool(((target < -_SOFT) | (target > 1 + _SOFT)).any())


def _moved(finding: Finding, refined: Refined) -> list[str]:
    """Per candidate whether it was off by more than a claim may be, as the method handed it over."""
    off = (finding.x - refined.x).abs().amax(dim=1)
    allowed = CLAIM_LIMIT * refined.x.abs().amax(dim=1).clamp(min=1.0)
    return [
        "" if o <= a else f"as handed over it is off by {o:.1e} from what its own equations give"
        for o, a in zip(off.tolist(), allowed.tolist(), strict=True)
    ]


def _telling(loss: Loss, fit: LabelFit, m: int, slack: float) -> bool:
    """Whether the loss vector could expose a mixture: samples of one region that the rank sees as one.

    Their loss vectors add up. A real-valued target absorbs any sum, and so do loss vectors that are constants
    of the labels alone: hinge's, and those of saturated cross_entropy and bce (whole numbers, not all zero).
    """
    if loss is Loss.HINGE or not bool(fit.checked[m]):
        return False
    if loss is Loss.MSE:
        return True
    vector = fit.vectors[m]
    fraction = float((vector - vector.round()).abs().max())
    return not bool(vector.round().any()) or fraction > max(1e-3, 10 * slack)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batch:
    """The recovered samples' own passes."""

    hidden: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    errors: list[float]
    norms: list[float]

    @classmethod
    def of(cls, problem: Problem, refined: Refined, fit: LabelFit, divisor: int) -> _Batch:
        trace = forward(problem, refined.x)
        g = loss_vectors(problem.loss, trace.logits, fit.labels) / divisor
        deltas = backward(problem, trace, g)
        errors = gradient_error(problem, trace, deltas)
        return cls(hidden=trace.hidden, deltas=deltas, errors=errors, norms=gradient_norms(problem))

    def residual(self) -> float:
        """Relative Frobenius distance over all layers."""
        squared = sum(e * e for e in self.errors) / sum(n * n for n in self.norms)
        return math.sqrt(squared)

    def unexplained(
        self, problem: Problem, refined: Refined, gains: list[tuple[float, float]], divisor: int
    ) -> str:
        """A reason when some layer's gradient differs by more than rounding and the error bounds explain."""
        expected = _errors(problem, refined, self.deltas, gains, divisor).gradients
        for k, (error, level, norm) in enumerate(zip(self.errors, expected, self.norms, strict=True)):
            if not error <= _TOLERANCE * level + 16 * refined.unit * norm:
                return (
                    f"the recovered batch misses the gradient of layer {k + 1} by {error / norm:.1e} "
                    f"(relative), rounding explains {_TOLERANCE * level / norm:.1e}"
                )
        return ""

    def leftover(self, spaces: tuple[ColumnSpace, ...], good: Bool[Tensor, " m"], size: int) -> str:
        """A reason when removing the good samples does not lower the rank of a layer by their number."""
        count = int(good.sum())
        for k, space in enumerate(spaces[:-1]):
            if space.saturated or space.rank >= min(space.basis.shape[0], size + 1) or space.rank <= count:
                continue
            h = torch.cat([self.hidden[k], torch.ones_like(self.hidden[k][:, :1])], dim=1)[good]
            left = space.rows - (space.basis.T @ self.deltas[k][good].T) @ h
            values = torch.linalg.svdvals(left)
            if float(values[space.rank - count]) > 0.1 * float(values[space.rank - count - 1]):
                return f"what is left of layer {k + 1} without the confirmed samples has too high a rank"
        return ""


def _evidence(finding: Finding, refined: Refined, fit: LabelFit, m: int) -> Evidence:
    return Evidence(
        method=finding.method,
        layer=finding.layer,
        error_bound=float(refined.bound[m]),
        residual=float(refined.sine[m]),
        isolation=float(refined.isolation[m]),
        label_residual=float(fit.mismatch[m]),
        label_margin=float(fit.margin[m]),
        error_norm=float(refined.norm[m]),
    )


def _why(finding: Finding, reasons: list[str], total: int, size: int) -> str:
    if finding.reason:
        return finding.reason
    failed = [r for r in reasons if r]
    if total > size:
        return (
            f"the gradient shows {total} independent samples, more than the batch size {size}: it is another "
            "one, or noise hides the rank"
        )
    if total != size:
        return (
            f"the gradient shows {total} independent samples of a batch of {size}: the others are dead, "
            "share a region with equal loss direction, or are below rounding"
        )
    return f"{len(failed)} of {len(reasons)} samples are not confirmed; the first: {failed[0]}"
