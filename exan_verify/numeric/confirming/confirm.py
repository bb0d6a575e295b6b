"""What may be said of the candidates of any method: confirmed, consistent, or candidates only.

A sample is *consistent* when every test of its own equations passes: its first-layer delta lies in the column
space of the gradient, its error is small, a label explains its loss vector at full scale, and no other label
does. A batch that is whole has to reproduce the gradient as well. A consistent sample is *confirmed* when all
other batches are excluded (uniqueness.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.numeric.confirming.bounds import Refined
from exan_verify.numeric.confirming.guessed_row_error import contamination
from exan_verify.numeric.confirming.missing_tensor_doubts import last_layer_vectors, unsupported
from exan_verify.numeric.confirming.uniqueness import Exclusion, others_excluded
from exan_verify.numeric.problem.losses import LabelFit, admissible, fit_scale, told_apart
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
from exan_verify.numeric.problem.records import Candidate, Evidence, Finding, Tier
from exan_verify.numeric.problem.spectrum import ColumnSpace

CLAIM_LIMIT = 1e-3
"""Largest error of a sample that counts as found, relative to the largest entry of its input (at least 1)."""

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""

_STRANGE = 0.1
"""Sine of own equations that fail by more than noise: those of strangers lie above."""

_TIED = 1e-6
"""Labels that explain a loss vector this well, relatively, both explain it."""

_NEAREST = 0.25
"""Distance up to which a target is taken for the nearest label; the mismatch of its delta decides."""

_KINDS = {
    Loss.MSE: "one-hot target (0 or 1 for one logit)",
    Loss.BCE: "0/1 vector",
}

_LABEL_LIMIT = 0.05
"""Loss vectors known no better than this do not tell one label, or one copy, from another."""

_SEEN = 4.0
"""Between the misfit of a loss vector that is seen and the largest share of strangers that it can hide."""

_LABEL_MARGIN = 2.0
"""Times what errors explain that the second best label of a confirmed sample is off at least."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Test:
    """One comparison that a claim rests on: it passes for sample m where ``value[m] <= limit[m]``.

    ``sentence`` says what is wrong where it does not; its fields {value} and {limit} are filled in.
    """

    value: Tensor
    limit: Tensor
    sentence: str

    @classmethod
    def that(cls, holds: Bool[Tensor, " m"], sentence: str) -> Test:
        """A test whose outcome is known."""
        return cls(
            value=1.0 - holds.double(), limit=torch.zeros_like(holds, dtype=torch.float64), sentence=sentence
        )

    def failure(self, m: int) -> str:
        """What is wrong with sample m; empty where it passes (a NaN does not)."""
        value, limit = float(self.value[m]), float(self.limit[m])
        return "" if value <= limit else self.sentence.format(value=value, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Confirmed:
    """Samples found with their evidence and tier, candidates with reasons, and the batch as a whole.

    ``scale``: the gradient is so many times the batch's. ``final``: all samples are separated and refined
    together, so that no other method can add to it.
    """

    x: Tensor
    y: Tensor
    status: tuple[Evidence, ...]
    candidates: tuple[Candidate, ...]
    gradient_residual: float
    complete: bool
    batch_size: int
    batch_size_source: str
    reason: str
    scale: float = 1.0
    final: bool = False


def confirm(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    finding: Finding,
    refined: Refined,
    gains: list[tuple[float, float]],
) -> Confirmed:
    """The tiers of the refined candidates of ``finding``."""
    total = refined.x.shape[0] + finding.rest.shape[1]
    problem, scale_doubt = _with_scale(problem, refined, total)
    fit, size, source = _labels_and_size(problem, finding, refined, total)
    divisor = problem.divisor(size)
    spread = _label_tolerance(problem, refined, fit, gains, divisor)
    if finding.guessed_rows and finding.rest.shape[1]:
        seen = _SEEN * (fit.mismatch + refined.drift)
        off = contamination(problem, spaces[0], refined, fit, seen, finding.rest.shape[1])
        wide = refined.x.shape[1] ** 0.5
        refined = replace(
            refined,
            bound=refined.bound + off,
            norm=refined.norm + off * wide,
            moved=torch.full_like(off, torch.inf),
        )
    whole = finding.whole and total == size
    tests = tuple(_own_equations(problem, refined, fit, spread, whole=whole, scale_doubt=scale_doubt))
    reasons = _reasons(problem, spaces[0], finding, refined, tests, divisor)
    good = torch.tensor([not r for r in reasons], dtype=torch.bool, device=problem.device)
    batch = _Batch.of(problem, refined, fit, divisor)
    if bool(good.any()) and bool(good.all()) and whole:
        missed = batch.unexplained(problem, refined, gains, divisor)
        reasons = [r or missed for r in reasons]
        good = torch.zeros_like(good) if missed else good
    complete = bool(good.all()) and whole
    tiers, bounds = _tiers(problem, spaces, finding, refined, fit, spread, good, whole=whole, divisor=divisor)
    refined = replace(
        refined, bound=bounds, norm=torch.where(bounds > refined.bound, torch.inf, refined.norm)
    )
    return Confirmed(
        x=refined.x[good],
        y=fit.labels[good],
        status=tuple(
            _evidence(problem, finding, refined, fit, m, tiers[m]) for m in torch.nonzero(good)[:, 0].tolist()
        ),
        candidates=tuple(
            Candidate(
                # refinement presumes the pattern of its forward pass, which its equations refute where they
                # fail by that much (Dropout): then it moves away from a sample that the method had found
                x=(finding if finding.literal or float(refined.sine[m]) > _STRANGE else refined).x[m],
                label=fit.labels[m] if _shows_label(fit, spread, m) else None,
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
        scale=problem.scale or 1.0,
    )


def _reasons(
    problem: Problem,
    space: ColumnSpace,
    finding: Finding,
    refined: Refined,
    tests: tuple[Test, ...],
    divisor: float,
) -> list[str]:
    """Per sample the first test that it fails, or what else keeps it a candidate; empty where nothing."""
    reasons = [next(filter(None, (one.failure(m) for one in tests)), "") for m in range(len(refined.x))]
    if not problem.whole:
        doubts = unsupported(problem, space, finding, refined, divisor)
        reasons = [reason or doubt for reason, doubt in zip(reasons, doubts, strict=True)]
    total, given = refined.x.shape[0] + finding.rest.shape[1], problem.question.batch_size
    if given is not None and total > given:
        more = f"the gradient shows {total} independent samples, more than batch_size={given}"
        reasons = [reason or more for reason in reasons]
    if finding.literal:
        moved = Test(
            value=(finding.x - refined.x).abs().amax(dim=1),
            limit=CLAIM_LIMIT * refined.x.abs().amax(dim=1).clamp(min=1.0),
            sentence="as handed over it is off by {value:.1e} from what its own equations give",
        )
        reasons = [moved.failure(m) or reason for m, reason in enumerate(reasons)]
    return reasons


def _with_scale(problem: Problem, refined: Refined, total: int) -> tuple[Problem, str]:
    """The problem with the factor of its gradient, where that is asked for, and a reason where none is
    found."""
    if problem.scale is not None:
        return problem, ""
    good = (refined.sine <= refined.allowed) & torch.isfinite(refined.bound)
    spans = delta_spans(problem, refined.trace)
    within = _TOLERANCE * refined.allowed + 4 * refined.drift
    found = None
    if bool(good.any()):
        found = fit_scale(
            problem.question.loss,
            refined.trace.logits[good],
            spans[good],
            refined.deltas[good],
            divisor=problem.divisor(problem.question.batch_size or total),
            within=within[good].clamp(max=_LABEL_LIMIT),
            smoothing=problem.smoothing,
        )
    if found is None:
        return replace(
            problem, scale=1.0
        ), "no single factor of the gradient explains the loss vectors by labels"
    return replace(problem, scale=found[0], scale_found=True), ""


def _labels_and_size(
    problem: Problem, finding: Finding, refined: Refined, total: int
) -> tuple[LabelFit, int, str]:
    """Labels, and the batch size: the user's, the rank, or what the mean's divisor shows."""
    size, source = (
        (total, "rank") if problem.question.batch_size is None else (problem.question.batch_size, "given")
    )
    spans = delta_spans(problem, refined.trace)
    hint = last_layer_vectors(problem, refined.trace) if finding.whole else None

    def fit_for(samples: int) -> LabelFit:
        return problem.fit_labels(
            refined.trace.logits,
            spans,
            refined.deltas,
            samples=samples,
            loss_vector_hint=hint,
            reach=_NEAREST if problem.question.labels is Labels.ONE_HOT else 0.0,
        )

    fit = fit_for(size)
    told = problem.question.batch_size is not None or problem.scale_found or problem.weighted
    if not told and problem.question.reduction is Reduction.MEAN and problem.question.loss is not Loss.MSE:
        counts = (size / fit.counts.clamp(min=1e-9))[fit.loose < _LABEL_LIMIT]
        counts = counts[((counts - counts.round()).abs() < _LABEL_LIMIT) & (counts < 1e6)]
        seen = int(counts.round().mode().values) if len(counts) else size
        if seen > size:
            return fit_for(seen), seen, "loss scale"
    return fit, size, source


def _label_tolerance(
    problem: Problem, refined: Refined, fit: LabelFit, gains: list[tuple[float, float]], divisor: float
) -> Float[Tensor, " m"]:
    """Relative deviation of a delta that errors in x, rounding and the delta's own error explain."""
    deltas = backward(problem, refined.trace, fit.vectors / divisor)
    size = deltas[0].norm(dim=1).clamp(min=1e-300)
    error = _errors(problem, refined, deltas, gains, divisor).deltas[0]
    # the error of x by what it makes of the delta itself, where that is known and less
    exact = replace(refined, bound=torch.zeros_like(refined.bound))
    rounded = _errors(problem, exact, deltas, gains, divisor).deltas[0]
    unit = size * abs(divisor) / (fit.counts.abs() if problem.weighted else 1.0)
    known = _TOLERANCE * rounded / size + refined.moved / unit + refined.scales
    tolerance: Tensor = torch.minimum(_TOLERANCE * error / size, known) + 4 * refined.drift
    return tolerance


def _errors(
    problem: Problem,
    refined: Refined,
    deltas: tuple[Tensor, ...],
    gains: list[tuple[float, float]],
    divisor: float,
) -> Rounding:
    distance = refined.distance
    return rounding(
        problem,
        refined.trace,
        deltas,
        gains=gains,
        input_error=torch.where(torch.isfinite(distance), distance, 0.0),
        unit=refined.unit,
        divisor=divisor,
    )


def _own_equations(
    problem: Problem, refined: Refined, fit: LabelFit, spread: Tensor, *, whole: bool, scale_doubt: str
) -> Iterator[Test]:
    """The tests that a sample passes or fails alone, in the order in which their failures are worth
    saying."""
    yield Test(
        value=refined.sine,
        limit=refined.allowed,
        sentence="its own equations fail: residual {value:.1e}, rounding explains {limit:.1e}",
    )
    yield Test(
        value=refined.bound,
        limit=CLAIM_LIMIT * refined.x.abs().amax(dim=1).clamp(min=1.0),
        sentence="its error bound {value:.1e} exceeds {limit:.1e} "
        f"({CLAIM_LIMIT:.0e} of the largest entry of its input, or of 1)",
    )
    if scale_doubt:
        yield Test.that(torch.zeros_like(fit.checked), scale_doubt)
    yield Test(
        value=torch.where(fit.checked, spread, 0.0),
        limit=torch.full_like(spread, _LABEL_LIMIT),
        sentence="its loss vector is known to {value:.1e} only, too little to tell its label",
    )
    others = f"): {problem.alternatives}"
    yield Test(
        value=torch.where((fit.loose <= spread) & ~(fit.mismatch <= spread), fit.counts.abs(), 0.0),
        limit=torch.zeros_like(spread),
        sentence="no label explains its loss vector (one counts {value:.4g} times" + others,
    )
    yield Test(
        value=fit.mismatch,
        limit=spread,
        sentence="no label explains its loss vector (distance {value:.1e}" + others,
    )
    if problem.question.loss in _KINDS and problem.question.labels is Labels.ONE_HOT:
        yield Test.that(
            fit.checked,
            f"no {_KINDS[problem.question.loss]} explains its loss vector: {problem.alternatives}",
        )
    if problem.question.labels is Labels.REAL:
        yield Test.that(
            admissible(problem.question.loss, fit.labels),
            f"its target is not within [0, 1]: {problem.alternatives}",
        )
    if problem.classified or problem.weighted:
        yield Test.that(
            fit.margin * fit.mismatch.clamp(min=1e-16) > spread.clamp(max=_TIED),
            "two labels explain its loss vector equally well",
        )
    if not (problem.question.batch_size is not None and whole):
        yield Test.that(
            _telling(problem, fit, spread),
            "its loss vector would fit a mixture of samples of one region as well (real or saturated "
            "label); that is told apart only when batch_size is given and equals the number found",
        )


def _telling(problem: Problem, fit: LabelFit, slack: Tensor) -> Bool[Tensor, " m"]:
    """Whose loss vector could expose a mixture: samples of one region that the rank sees as one.

    A real-valued target absorbs any sum of loss vectors, and so do those that are constants of the labels
    alone. An unknown weight absorbs the sum of samples that share their label.
    """
    if problem.weighted and problem.question.loss is Loss.BCE and problem.classes > 1:
        return torch.zeros_like(fit.checked)
    vectors = fit.vectors / fit.counts[:, None] if problem.weighted else fit.vectors
    return fit.checked & told_apart(problem.question.loss, vectors, slack)


def _tiers(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    finding: Finding,
    refined: Refined,
    fit: LabelFit,
    spread: Tensor,
    good: Bool[Tensor, " m"],
    *,
    whole: bool,
    divisor: float,
) -> tuple[list[str], Tensor]:
    """Per sample what keeps it from being confirmed, empty where nothing does; and the bounds that hold
    then."""
    if not bool(good.any()):
        return [""] * len(good), refined.bound
    if not whole:
        left = "not every sample of the batch is found, so that no other batch is excluded"
        return [left] * len(good), refined.bound
    if finding.scale_error > 0:
        rests = "its scale rests on other layers than its own, so that no other batch is excluded"
        return [rests] * len(good), refined.bound
    exclusion = others_excluded(problem, spaces, refined, divisor)
    tests = tuple(_exclusion_tests(refined, fit, spread, exclusion))
    open_ = [
        exclusion.reason or next(filter(None, (one.failure(m) for one in tests)), "")
        for m in range(len(good))
    ]
    confirmed = torch.tensor([not r for r in open_], dtype=torch.bool, device=good.device)
    bound = torch.where(exclusion.pinned, refined.bound, torch.maximum(exclusion.radius, refined.bound))
    return open_, torch.where(confirmed, bound, refined.bound)


def _exclusion_tests(refined: Refined, fit: LabelFit, spread: Tensor, exclusion: Exclusion) -> Iterator[Test]:
    yield Test(
        value=torch.where(exclusion.pinned, 0.0, exclusion.radius),
        limit=CLAIM_LIMIT * refined.x.abs().amax(dim=1).clamp(min=1.0),
        sentence="another batch may have it {value:.1e} away, with another activation pattern",
    )
    yield Test(
        value=_LABEL_MARGIN * spread,
        limit=fit.margin * fit.mismatch.clamp(min=1e-16),
        sentence=(
            "its label is told from the next one with too little margin ({limit:.1e} against {value:.1e})"
        ),
    )


def _shows_label(fit: LabelFit, spread: Tensor, m: int) -> bool:
    """Whether one label fits a candidate better than the others, be it at another scale."""
    near = max(float(spread[m]), _LABEL_LIMIT)
    return float(fit.loose[m]) <= near and float(fit.margin[m] * fit.mismatch[m]) > _TIED


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batch:
    """The recovered samples' own passes."""

    deltas: tuple[Tensor, ...]
    errors: list[float]
    norms: list[float]

    @classmethod
    def of(cls, problem: Problem, refined: Refined, fit: LabelFit, divisor: float) -> _Batch:
        trace = forward(problem, refined.x)
        g = fit.vectors if problem.weighted else problem.loss_vectors(trace.logits, fit.labels)
        deltas = backward(problem, trace, g / divisor)
        errors = gradient_error(problem, trace, deltas)
        return cls(deltas=deltas, errors=errors, norms=gradient_norms(problem))

    def residual(self) -> float:
        """Relative Frobenius distance over all layers."""
        squared = sum(e * e for e in self.errors) / sum(n * n for n in self.norms)
        return math.sqrt(squared)

    def unexplained(
        self, problem: Problem, refined: Refined, gains: list[tuple[float, float]], divisor: float
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


def _evidence(
    problem: Problem, finding: Finding, refined: Refined, fit: LabelFit, m: int, unconfirmed: str
) -> Evidence:
    return Evidence(
        method=finding.method,
        layer=finding.layer,
        error_bound=float(refined.bound[m]),
        residual=float(refined.sine[m]),
        isolation=float(refined.isolation[m]),
        label_residual=float(fit.mismatch[m]),
        label_margin=float(fit.margin[m]),
        error_norm=float(refined.norm[m]),
        weight=float(fit.counts[m]) if problem.weighted else 1.0,
        tier=Tier.CONSISTENT if unconfirmed else Tier.CONFIRMED,
        unconfirmed=unconfirmed,
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
    return f"{len(failed)} of {len(reasons)} samples are candidates only; the first: {failed[0]}"
