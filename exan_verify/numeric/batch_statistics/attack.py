"""The attack on a step in training mode: centred samples, their labels, and the mean where it is told.

X + 1 v^T has the same gradient for every v, so that only samples less the mean of their batch can come from
it (docs/theory.md, Appendix N). The mean comes from the running mean, as far as W_1 shows it. Samples are
consistent: their own step has the whole gradient and the statistics to rounding, and nothing excludes others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.errors import BudgetExhausted, GradientError, raise_problems
from exan_verify.models.batch_statistics import NormalisedFirstLayer
from exan_verify.numeric.batch_statistics.equations import (
    NormEquations,
    lifted_samples,
    norm_equations,
    solved_samples,
)
from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT
from exan_verify.numeric.methods.equations import next_directions
from exan_verify.numeric.missing.last_layer import last_layer
from exan_verify.numeric.problem.passes import backward, delta_spans, forward
from exan_verify.numeric.problem.problem import LayerGradient, Problem, as_tensor, build_problem
from exan_verify.numeric.problem.records import Attack, Candidate, Centred, Evidence
from exan_verify.numeric.problem.spectrum import ColumnSpace, column_space
from exan_verify.numeric.waiting import Progress, Telling, proceed

_TOLERANCE = 64.0
"""Between what drawn roundings make of a step and the largest deviation that counts as rounding."""

_SAFETY = 16.0
_DRAWS = 4

_PUSHED = 1e4
"""Times the roundoff that drawn errors have, so that what they do is seen above the arithmetic's own."""

_BEFORE_CENTRING = 1024.0
"""Times the unit roundoff that dW_1 is known to: its products are of samples and deltas as they are, and what
is left of these less their means and less their share along zhat may be a hundredth, with few samples."""

_NEAREST = 0.25
_ROUNDS = 4
_FULL_RANK = 1e-10
"""Least singular value of W_1, relative, at which its rows show a whole mean."""

_UNCONFIRMED = (
    "its own step has the gradient and the statistics of the batch; the gradient is the same for every mean, "
    "and no other batch is excluded"
)


def run(
    network: NormalisedFirstLayer,
    gradient: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    loss: str,
    reduction: str,
    batch_size: int | None = None,
    device: Any = None,
    seed: int = 0,
    smoothing: float = 0.0,
    progress: Progress | None = None,
) -> Attack:
    """Recover what ``gradient`` and the running statistics ``before`` (None: the model's) and ``after`` the
    step say. Without ``after``: what the gradient alone tells, the number of samples and the last layer.

    Raises :class:`GradientError` and :class:`InputError` naming what does not fit.
    """
    start = time.perf_counter()
    tell = Telling(progress)
    tell("reading the gradient", 0.0)
    target = torch.device("cpu" if device is None else device)
    own, rest = _split(network, gradient, target)
    upper = build_problem(
        network.upper,
        rest,
        loss=loss,
        reduction=reduction,
        batch_size=batch_size,
        device=device,
        seed=seed,
        smoothing=smoothing,
    )
    statistics = None if after is None else network.statistics(after, before)
    with torch.no_grad():
        attempt = _Attempt(network=network, upper=upper, own=own, target=target)
        found = tell.during(lambda: attempt.run(statistics))
    with suppress(BudgetExhausted):
        tell("done", 1.0)
    note = f"BatchNorm {network.norm!r} taken as in training mode: by the statistics of the batch"
    return replace(
        found,
        seconds=time.perf_counter() - start,
        architecture=network.architecture,
        notes=(*found.notes, note),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Own:
    """The gradients of the first layer and its BatchNorm, and the unit roundoff of the coarsest of them."""

    d_weight: Tensor
    d_gamma: Tensor
    d_beta: Tensor
    unit: float


def _split(
    network: NormalisedFirstLayer, gradient: Mapping[str, Any], target: torch.device
) -> tuple[_Own, dict[str, Any]]:
    names = {
        "d_weight": (f"{network.linear}.weight", tuple(network.weight.shape)),
        "d_gamma": (f"{network.norm}.weight", tuple(network.gamma.shape)),
        "d_beta": (f"{network.norm}.bias", tuple(network.beta.shape)),
    }
    raise_problems(
        GradientError,
        [
            f"tensor {name!r} of shape {shape} is missing or has another shape; give this model's gradient"
            for name, shape in names.values()
            if name not in gradient or tuple(gradient[name].shape) != shape
        ],
    )
    read = {
        key: as_tensor(gradient[name], f"gradient[{name!r}]").to(target) for key, (name, _) in names.items()
    }
    raise_problems(
        GradientError,
        [
            f"gradient[{names[key][0]!r}] contains NaN or an infinity; all numbers must be finite"
            for key, tensor in read.items()
            if not bool(torch.isfinite(tensor).all())
        ],
    )
    taken = {name for name, _ in names.values()} | {f"{network.linear}.bias"}
    unit = max(float(torch.finfo(tensor.dtype).eps) / 2 for tensor in read.values())
    return (
        _Own(**{key: tensor.double() for key, tensor in read.items()}, unit=unit),
        {name: tensor for name, tensor in gradient.items() if name not in taken},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    """A training-mode step of centred samples: what it has for gradients, and its variance (biased, (n,))."""

    d_weight: Tensor
    d_gamma: Tensor
    d_beta: Tensor
    upper: tuple[Tensor, ...]
    variance: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        """All of it: dW (n, d), what goes with gamma and beta (n,), the layers above, the variance."""
        return (self.d_weight, self.d_gamma, self.d_beta, *self.upper, self.variance)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    network: NormalisedFirstLayer
    upper: Problem
    own: _Own
    target: torch.device

    def run(self, statistics: tuple[Tensor, Tensor, Tensor] | None) -> Attack:
        """What is found. ``statistics``: the batch's mean (n,), its variance (n,) and the units of roundoff
        that both lose, where running statistics tell them.
        """
        space = self._space(self.own.d_weight)
        told = self.upper.question.batch_size
        size = space.rank + 1
        nothing = Attack(
            x=space.rows[:0, :-1],
            y=torch.zeros(0, dtype=torch.long)
            if self.upper.classified
            else torch.zeros(0, self.upper.classes, dtype=torch.float64),
            status=(),
            gradient_residual=1.0,
            complete=False,
            batch_size=told or size,
            batch_size_source="rank" if told is None else "given",
            method="lift, batch statistics",
            layer=1,
            layers=(),
            candidates=(),
            reason="",
            seconds=0.0,
        )
        top = replace(self.upper, layers=self.upper.layers[-1:])
        nothing = replace(nothing, last_layer=last_layer(top, rectified=True))
        if space.saturated or (told is not None and told != size):
            return replace(
                nothing,
                reason=f"the gradient of layer 1 shows rank {space.rank}, and a batch of M samples has M - 1 "
                "under its own statistics: some are dead, or the rank is full",
            )
        if statistics is None:
            return replace(
                nothing,
                reason=f"the gradient shows {size} samples, the span of their differences and the last layer"
                "; samples need the standard deviations of the batch: give the running statistics after the "
                "step (buffers_after)",
            )
        mean, variance, lost = (part.to(self.target) for part in statistics)
        return self._solved(nothing, space, mean, variance, lost)

    def _space(self, d_weight: Tensor) -> ColumnSpace:
        zero = torch.zeros(len(d_weight), dtype=torch.float64, device=self.target)
        weight = self.network.weight.to(self.target)
        layer = LayerGradient(weight=weight, bias=zero, d_weight=d_weight, d_bias=zero, bias_given=False)
        most = math.isqrt(2 * len(d_weight)) + 1
        return column_space(
            layer, unit_roundoff=_BEFORE_CENTRING * self.own.unit, most=most, generator=self.upper.generator()
        )

    def _equations(
        self, space: ColumnSpace, variance: Tensor, own: _Own, directions: Float[Tensor, "n2 k"]
    ) -> NormEquations:
        """``variance`` is the unbiased one, (n,)."""
        samples = space.rank + 1
        sigma = (variance * (samples - 1) / samples + self.network.eps).sqrt()
        return norm_equations(
            space,
            self.network.weight.to(self.target),
            sigma,
            self.network.gamma.to(self.target),
            own.d_gamma,
            own.d_beta,
            self.upper.layers[0].backward(directions.T).T,
        )

    def _solved(
        self, nothing: Attack, space: ColumnSpace, mean: Tensor, variance: Tensor, lost: Tensor
    ) -> Attack:
        samples = space.rank + 1
        if not bool((variance > 0).all()) or not bool((self.network.gamma != 0).all()):
            return replace(
                nothing, reason="a variance of the batch is not positive, or a weight of BatchNorm is 0"
            )
        above = column_space(
            self.upper.layers[0],
            unit_roundoff=self.upper.unit_roundoff,
            most=max(samples, 2),
            generator=self.upper.generator(),
        )
        directions = next_directions(self.upper, (above,), -1, samples)
        equations = self._equations(space, variance, self.own, directions)
        if equations.unknowns - samples > len(variance):
            return replace(
                nothing,
                reason=f"lifting needs {equations.unknowns - samples} neurons for {samples} samples under "
                f"their own statistics, and layer 1 has {len(variance)}; use fewer, or a wider layer",
            )
        for y in lifted_samples(equations, self.upper.generator()):
            proceed()
            active = self._active(equations, y)
            for _ in range(_ROUNDS):
                y = solved_samples(equations, active)[0]
                again = self._active(equations, y)
                if bool((again == active).all()):
                    break
                active = again
            found = self._judged(nothing, equations, active, directions, mean, variance, lost)
            if found.complete or found.centred is not None:
                return found
            nothing = replace(nothing, reason=found.reason)
        return replace(
            nothing, reason=nothing.reason or f"the lifted equations do not separate {samples} samples"
        )

    def _active(self, equations: NormEquations, y: Float[Tensor, "M p"]) -> Tensor:
        gamma, beta = self.network.gamma.to(y), self.network.beta.to(y)
        return (equations.normalised @ y.T).T * gamma + beta > 0

    def _judged(
        self,
        nothing: Attack,
        equations: NormEquations,
        active: Tensor,
        directions: Tensor,
        mean: Tensor,
        variance: Tensor,
        lost: Tensor,
    ) -> Attack:
        """Labels, and whether the step of the samples found is the one that was given."""
        samples = equations.samples
        y, p, _ = solved_samples(equations, active)
        centred = y @ equations.rows
        trace = forward(self.upper, self._features(centred))
        fit = self.upper.fit_labels(
            trace.logits,
            _all_spans(self.upper, trace),
            p @ directions.T,
            samples=samples,
            reach=_NEAREST,
        )
        if not bool(fit.checked.all()):
            return replace(nothing, reason="no label of the loss's kind explains a loss vector")
        step = self._step(centred, fit.labels)
        given = (
            self.own.d_weight,
            self.own.d_gamma,
            self.own.d_beta,
            *(layer.augmented() for layer in self.upper.layers),
            variance * (samples - 1) / samples,
        )
        errors, levels = self._drawn(centred, fit.labels, active, directions, given, variance, lost)
        missed = [float((a - b).norm()) for a, b in zip(given, step.parts(), strict=True)]
        left = max(miss / level for miss, level in zip(missed, levels, strict=True))
        total = math.hypot(*missed[:-1]) / math.hypot(*(float(part.norm()) for part in given[:-1]))
        if not left <= _TOLERANCE:
            worst = max(
                miss / max(float(part.norm()), 1e-300) for miss, part in zip(missed, given, strict=True)
            )
            return replace(
                nothing,
                gradient_residual=total,
                reason=f"the step of the samples found misses the gradient or the statistics by {worst:.1e}",
            )
        return self._result(
            replace(nothing, gradient_residual=total), centred, fit.labels, errors, mean, lost
        )

    def _features(self, centred: Float[Tensor, "M d"]) -> Float[Tensor, "M n"]:
        return (
            self._normalised(centred)[0] * self.network.gamma.to(centred) + self.network.beta.to(centred)
        ).relu()

    def _normalised(self, centred: Float[Tensor, "M d"]) -> tuple[Tensor, Tensor, Tensor]:
        """zhat (M, n), and the (biased) variance and the standard deviation (n,) of the samples."""
        z = centred @ self.network.weight.to(centred).T
        z = z - z.mean(dim=0)
        variance = z.square().mean(dim=0)
        sigma = (variance + self.network.eps).sqrt()
        return z / sigma, variance, sigma

    def _step(self, centred: Float[Tensor, "M d"], labels: Tensor) -> _Step:
        normalised, variance, sigma = self._normalised(centred)
        gamma, size = self.network.gamma.to(centred), len(centred)
        before = normalised * gamma + self.network.beta.to(centred)
        trace = forward(self.upper, before.relu())
        g = self.upper.loss_vectors(trace.logits, labels) / self.upper.divisor(size)
        deltas = backward(self.upper, trace, g)
        delta = self.upper.layers[0].backward(deltas[0]) * (before > 0)
        d_gamma, d_beta = (delta * normalised).sum(dim=0), delta.sum(dim=0)
        d = gamma / sigma * (delta - d_beta / size - normalised * d_gamma / size)
        return _Step(
            d_weight=d.T @ centred,
            d_gamma=d_gamma,
            d_beta=d_beta,
            upper=tuple(
                torch.cat([one.T @ h, one.sum(dim=0)[:, None]], dim=1)
                for one, h in zip(deltas, trace.hidden, strict=True)
            ),
            variance=variance,
        )

    def _drawn(
        self,
        centred: Tensor,
        labels: Tensor,
        active: Tensor,
        directions: Tensor,
        given: tuple[Tensor, ...],
        variance: Tensor,
        lost: Tensor,
    ) -> tuple[Float[Tensor, " M"], list[float]]:
        """Errors of the centred samples, L-infinity, and what is left of every part of the step, Frobenius,
        that roundings explain: both from solving anew with drawn errors, at the patterns found."""
        generator, unit = self.upper.generator(), self.own.unit
        pushed = _PUSHED * unit

        def noise(like: Tensor) -> Tensor:
            """Standard normal numbers of the same shape."""
            drawn = torch.randn(like.shape, dtype=torch.float64, generator=generator)
            return drawn.to(self.target)

        moved = torch.zeros(len(centred), dtype=torch.float64, device=self.target)
        levels = torch.tensor([unit * float(part.norm()) + 1e-300 for part in given], dtype=torch.float64)
        for _ in range(_DRAWS):
            proceed()
            # roundings of a product are as large as its largest entries
            own = replace(
                self.own,
                d_weight=self.own.d_weight
                + pushed * self.own.d_weight.abs().amax() * noise(self.own.d_weight),
                d_gamma=self.own.d_gamma + pushed * self.own.d_gamma.abs().amax() * noise(self.own.d_gamma),
                d_beta=self.own.d_beta + pushed * self.own.d_beta.abs().amax() * noise(self.own.d_beta),
            )
            shaken = variance + pushed * (lost + variance.max()) * noise(variance)
            space = self._space_of_rank(own.d_weight, len(centred) - 1)
            equations = self._equations(space, shaken.clamp(min=1e-300), own, directions)
            y, _, _ = solved_samples(equations, active)
            other = y @ equations.rows
            moved += (other - centred).abs().amax(dim=1).square() / _DRAWS
            step = self._step(other, labels)
            made = torch.tensor(
                [float((a - b).norm()) for a, b in zip(given, step.parts(), strict=True)], dtype=torch.float64
            )
            levels += made / _PUSHED / _DRAWS
        return _SAFETY * moved.sqrt() / _PUSHED, levels.tolist()

    def _space_of_rank(self, d_weight: Tensor, rank: int) -> ColumnSpace:
        """The leading part of a matrix that drawn errors have filled."""
        u, values, vt = torch.linalg.svd(d_weight, full_matrices=False)
        rows = torch.nn.functional.pad(values[:rank, None] * vt[:rank], (0, 1))
        return ColumnSpace(
            basis=u[:, :rank],
            rows=rows,
            values=values,
            gap=math.inf,
            noise=float(values[rank]) if rank < len(values) else 0.0,
            saturated=False,
        )

    def _result(
        self,
        nothing: Attack,
        centred: Float[Tensor, "M d"],
        labels: Tensor,
        errors: Float[Tensor, " M"],
        mean: Tensor,
        lost: Tensor,
    ) -> Attack:
        """Centred samples with the mean as far as W_1 shows it: W xbar = mean of z less the bias."""
        weight = self.network.weight.to(self.target).double()
        bias = 0.0 if self.network.bias is None else self.network.bias.to(self.target)
        u, values, vt = torch.linalg.svd(weight, full_matrices=False)
        rank = int((values > _FULL_RANK * values[0]).sum())
        inverse = (vt[:rank].T / values[:rank]) @ u[:, :rank].T
        middle = inverse @ (mean - bias)
        off = _SAFETY * self.own.unit * float((inverse.abs() @ (lost + lost.max())).max())
        good = errors <= CLAIM_LIMIT * centred.abs().amax(dim=1).clamp(min=1.0)
        whole = rank == weight.shape[1]
        evidence = [
            Evidence(
                method=nothing.method,
                layer=1,
                error_bound=float(error),
                residual=nothing.gradient_residual,
                isolation=0.0,
                label_residual=nothing.gradient_residual,
                label_margin=1.0,
                unconfirmed=_UNCONFIRMED,
            )
            for error in errors[good]
        ]
        found = Centred(
            values=centred[good], labels=labels[good], status=tuple(evidence), mean=middle, mean_rank=rank
        )
        x = centred + middle
        limits = CLAIM_LIMIT * x.abs().amax(dim=1).clamp(min=1.0)
        shown = good & whole & (errors + off <= limits)
        hidden = weight.shape[1] - rank
        why = (
            f"the mean of the batch is known on the {rank} dimensions that layer 1 sees; {hidden} are hidden"
            if hidden
            else "its error is too large"
        )
        return replace(
            nothing,
            x=x[shown],
            y=labels[shown],
            status=tuple(
                replace(one, error_bound=one.error_bound + off)
                for one, kept in zip(evidence, shown[good].tolist(), strict=True)
                if kept
            ),
            candidates=tuple(
                Candidate(
                    x=x[m],
                    label=labels[m],
                    error_estimate=math.inf if hidden else float(errors[m] + off),
                    reason=why,
                )
                for m in torch.nonzero(~shown)[:, 0].tolist()
            ),
            complete=bool(shown.all()),
            reason="" if bool(shown.all()) else why,
            centred=found,
        )


def _all_spans(problem: Problem, trace: Any) -> Float[Tensor, "m n K"]:
    """From loss vectors to the deltas of the first of the upper layers."""
    if len(problem.layers) == 1:
        return torch.eye(problem.classes, dtype=torch.float64, device=problem.device).expand(
            len(trace.logits), -1, -1
        )
    return delta_spans(problem, trace)
