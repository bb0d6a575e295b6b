"""The attack on a step in training mode: centred samples, their labels, and the mean where it is told.

X + 1 v^T has the same gradient for every v, so that only samples less the mean of their batch can come from
it (docs/theory.md, Appendix N). The mean comes from the running mean, as far as W_1 shows it. Samples are
consistent: their own step has the whole gradient and the statistics to rounding, and nothing excludes others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.errors import BudgetExhausted, GradientError, InputError, raise_problems
from exan_verify.models.batch_statistics import BatchStatistics, NormalisedFirstLayer
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

_SAFETY = 8.0
_DRAWS = 4

_PUSHED = 1e-12
"""Relative size that drawn errors have at least, so that what they do is seen above the arithmetic's own."""

_BEFORE_CENTRING = 1024.0
"""Times the unit roundoff that dW_1 is known to: its products are of samples and deltas as they are, and what
is left of these less their means and less their share along zhat may be a hundredth, with few samples."""

_NEAREST = 0.25
_ROUNDS = 12
_UNSURE = 0.15
"""Share of the neurons that are left out of a fit until patterns stay: with an input a hundredth off, few
neurons beyond are in another state, and the equations are several times as many as the unknowns."""

_SAME = 1e-2
"""Relative distance below which two fits are of one sample."""

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
    scale: float | str = 1.0,
    progress: Progress | None = None,
) -> Attack:
    """Recover what ``gradient``, ``scale`` times that of a batch, and the statistics ``before`` (None:
    the model's) and ``after`` the step say. Without ``after``: what the gradient alone tells, the number of
    samples and the last layer.

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
        scale=scale,
    )
    if upper.scale is None:
        raise InputError("scale='unknown' does not go with the statistics of a batch; give the factor")
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
class _Fit:
    """A sample by its equations: ``y`` (M - 1,) in the basis of the rows, its pattern ``active`` (n,), and
    the relative ``misfit``."""

    y: Tensor
    active: Tensor
    misfit: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """Samples ``x`` (M, d), with what is hidden of their mean at zero, ``labels``, and ``active`` (M, n)."""

    x: Tensor
    labels: Tensor
    active: Tensor

    @property
    def centred(self) -> Tensor:
        """x less its mean."""
        return self.x - self.x.mean(dim=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Mean:
    """``value`` (d,) on the ``rank`` dimensions that W_1 sees, ``off`` by so much at most; ``left``: how many
    times their rounding the running means are off."""

    value: Tensor
    rank: int
    off: float
    left: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    network: NormalisedFirstLayer
    upper: Problem
    own: _Own
    target: torch.device

    def run(self, statistics: BatchStatistics | None) -> Attack:
        """What is found. ``statistics``: those of the batch, where running statistics tell them."""
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
        return self._solved(nothing, space, statistics.to(self.target))

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

    def _solved(self, nothing: Attack, space: ColumnSpace, told: BatchStatistics) -> Attack:
        samples = space.rank + 1
        if not bool((told.variance > 0).all()):
            return replace(
                nothing,
                reason="a variance of the batch is not positive: the buffers are not those before (the "
                "model's own, where buffers is not given) and after one step",
            )
        if not bool((self.network.gamma != 0).all()):
            return replace(nothing, reason="a weight of BatchNorm is 0, behind which nothing is seen")
        above = column_space(
            self.upper.layers[0],
            unit_roundoff=self.upper.unit_roundoff,
            most=max(samples, 2),
            generator=self.upper.generator(),
        )
        directions = next_directions(self.upper, (above,), -1, samples)
        equations = self._equations(space, told.variance, self.own, directions)
        if equations.unknowns - samples > len(told.variance):
            return replace(
                nothing,
                reason=f"lifting needs {equations.unknowns - samples} neurons for {samples} samples under "
                f"their own statistics, and layer 1 has {len(told.variance)}; use fewer, or a wider layer",
            )
        fits: list[_Fit] = []
        for y in lifted_samples(equations, self.upper.generator()):
            proceed()
            before = fits[:samples]
            fits = _distinct([*fits, *(self._fit(equations, one) for one in y)])
            if len(fits) >= samples - 1:
                # they add up to zero
                last = -torch.stack([one.y for one in fits[: samples - 1]]).sum(dim=0)
                fits = _distinct([*fits, self._fit(equations, last)])
            if len(fits) < samples or [*map(id, fits[:samples])] == [*map(id, before)]:
                continue
            active = torch.stack([one.active for one in fits[:samples]])
            found = self._judged(nothing, equations, active, directions, told)
            if found.complete or found.centred is not None:
                return found
            nothing = replace(nothing, reason=found.reason)
        return replace(
            nothing,
            reason=nothing.reason
            or f"the lifted equations do not separate {samples} samples: noise, too few neurons, or buffers "
            "that are not those before (the model's own, where buffers is not given) and after this step",
        )

    def _fit(self, equations: NormEquations, y: Float[Tensor, " p"]) -> _Fit:
        """The sample near ``y``, its pattern renewed until it stays: without the neurons nearest their
        boundary, where one in the wrong state moves the fit by more than it is off, then with all."""
        solved, seen = y[None], torch.zeros(0, device=self.target)
        left_out = int(_UNSURE * len(self.own.d_beta))
        for _ in range(_ROUNDS):
            before = self._before(equations, solved)[0]
            sure = before.abs() > before.abs().sort().values[left_out]
            signs = before.sign() * sure
            if torch.equal(signs, seen):
                break
            seen = signs
            solved, _, _ = solved_samples(equations.of(sure), (before > 0)[None, sure])
        active = self._before(equations, solved) > 0
        solved, _, misfit = solved_samples(equations, active)
        return _Fit(y=solved[0], active=active[0], misfit=float(misfit))

    def _before(self, equations: NormEquations, y: Float[Tensor, "M p"]) -> Float[Tensor, "M n"]:
        """What ReLU is given."""
        return (equations.normalised @ y.T).T * self.network.gamma.to(y) + self.network.beta.to(y)

    def _judged(
        self,
        nothing: Attack,
        equations: NormEquations,
        active: Tensor,
        directions: Tensor,
        told: BatchStatistics,
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
        mean = self._mean(told)
        found = _Found(x=centred + mean.value, labels=fit.labels, active=active)
        given = (
            self.own.d_weight,
            self.own.d_gamma,
            self.own.d_beta,
            *(layer.augmented() for layer in self.upper.layers),
            told.variance * (samples - 1) / samples,
        )
        step = self._step(found)
        errors, levels = self._drawn(found, directions, given, told, self._noise(equations.rows))
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
                reason=f"the step of the samples found misses the gradient or the statistics by {worst:.1e}: "
                "noise, another loss, or buffers of another step",
            )
        return self._result(replace(nothing, gradient_residual=total), found, errors * max(1.0, left), mean)

    def _mean(self, told: BatchStatistics) -> _Mean:
        """The mean of the batch as far as W_1 shows it: W xbar = mean of z less the bias."""
        weight = self.network.weight.to(self.target).double()
        bias = 0.0 if self.network.bias is None else self.network.bias.to(self.target)
        u, values, vt = torch.linalg.svd(weight, full_matrices=False)
        rank = int((values > _FULL_RANK * values[0]).sum())
        inverse = (vt[:rank].T / values[:rank]) @ u[:, :rank].T
        value = inverse @ (told.mean - bias)
        missed = weight @ value + bias - told.mean
        # z is a sum of products, of samples that are not much larger than what is seen of their mean
        summed = (weight.square() @ value.square() + value.square().mean()).sqrt() + told.mean.abs()
        noise = told.unit * told.lost + self.own.unit * summed
        left = float(missed.norm() / noise.norm().clamp(min=1e-300))
        off = float((inverse.square() @ noise.square()).sqrt().max())
        return _Mean(value=value, rank=rank, off=_SAFETY * max(1.0, left) * off, left=left)

    def _features(self, centred: Float[Tensor, "M d"]) -> Float[Tensor, "M n"]:
        z = centred @ self.network.weight.to(centred).T
        variance, middle = torch.var_mean(z, dim=0, correction=0)
        normalised = (z - middle) / (variance + self.network.eps).sqrt()
        return (normalised * self.network.gamma.to(z) + self.network.beta.to(z)).relu()

    def _step(self, found: _Found, size: float = 0.0, generator: torch.Generator | None = None) -> _Step:
        """The step of the samples found; ``size``: with roundings of so many times their results' sizes,
        normal numbers from ``generator``, in every operation."""

        def off(like: Tensor) -> Tensor:
            if generator is None:
                return torch.zeros_like(like)
            return (
                size * like.abs() * torch.randn(like.shape, dtype=torch.float64, generator=generator).to(like)
            )

        weight, x = self.network.weight.to(self.target).double(), found.x
        gamma, count = self.network.gamma.to(x), len(x)
        bias = torch.zeros_like(gamma) if self.network.bias is None else self.network.bias.to(x)
        z = x @ weight.T + bias
        z = z + off((x.square() @ weight.square().T + z.square()).sqrt())
        variance, middle = torch.var_mean(z, dim=0, correction=0)
        sigma = (variance + self.network.eps).sqrt()
        normalised = (z - middle) / sigma
        normalised = normalised + off(normalised)
        before = normalised * gamma + self.network.beta.to(x)
        features = (before + off(normalised * gamma)) * found.active
        trace = forward(self.upper, features)
        g = self.upper.loss_vectors(trace.logits, found.labels)
        g = (g + off(g) + off(torch.ones_like(g)) * (g != 0)) / self.upper.divisor(count)
        deltas = tuple(one + off(one) for one in backward(self.upper, trace, g))
        above = self.upper.layers[0]
        shown = above.backward(deltas[0]) * found.active
        delta = shown + off((deltas[0].square() @ above.weight.double().square()).sqrt()) * found.active
        d_gamma, d_beta = (delta * normalised).sum(dim=0), delta.sum(dim=0)
        d_gamma = d_gamma + off((delta * normalised).norm(dim=0))
        d_beta = d_beta + off(delta.norm(dim=0))
        shares = (delta, d_beta / count, normalised * d_gamma / count)
        d = delta - shares[1] - shares[2] + sum(off(share) for share in shares)
        d = gamma / sigma * d
        return _Step(
            d_weight=d.T @ x + off((d.square().T @ x.square()).sqrt()),
            d_gamma=d_gamma,
            d_beta=d_beta,
            upper=tuple(_summed(one, h, off) for one, h in zip(deltas, trace.hidden, strict=True)),
            variance=variance,
        )

    def _noise(self, rows: Float[Tensor, "p d"]) -> float:
        """The deviation of the entries of dW beyond its row space: that of roundings, or of noise."""
        d_weight = self.own.d_weight
        rest = d_weight - d_weight @ rows.T @ rows
        free = (len(d_weight) - len(rows)) * (d_weight.shape[1] - len(rows))
        return float(rest.norm()) / math.sqrt(max(free, 1))

    def _drawn(
        self,
        found: _Found,
        directions: Tensor,
        given: tuple[Tensor, ...],
        told: BatchStatistics,
        white: float,
    ) -> tuple[Float[Tensor, " M"], list[float]]:
        """Errors of the centred samples, L-infinity, and what is left of every part of the step, Frobenius,
        that roundings and noise of deviation ``white`` on every entry of the gradient explain: both from
        solving anew with drawn errors, at the patterns found."""
        generator, unit = self.upper.generator(), self.own.unit
        shown = white / float(self.own.d_weight.square().mean().sqrt())
        times = max(1.0, _PUSHED / max(unit, told.unit, shown))
        centred, plain = found.centred, self._step(found)
        moved = torch.zeros(len(centred), dtype=torch.float64, device=self.target)
        levels = torch.tensor([unit * float(part.norm()) + 1e-300 for part in given], dtype=torch.float64)
        for _ in range(_DRAWS):
            proceed()
            shaken = self._step(found, times * unit, generator)
            noise = [a - b for a, b in zip(shaken.parts(), plain.parts(), strict=True)]
            sizes = [white] * (len(noise) - 1) + [told.unit * told.lost]
            for k, size in enumerate(sizes):
                normal = torch.randn(noise[k].shape, dtype=torch.float64, generator=generator)
                noise[k] = noise[k] + times * size * normal.to(self.target)
            own = replace(
                self.own,
                d_weight=self.own.d_weight + noise[0],
                d_gamma=self.own.d_gamma + noise[1],
                d_beta=self.own.d_beta + noise[2],
            )
            variance = (told.variance + noise[-1]).clamp(min=1e-300)
            space = self._space_of_rank(own.d_weight, len(centred) - 1)
            equations = self._equations(space, variance, own, directions)
            y, _, _ = solved_samples(equations, found.active)
            other = y @ equations.rows
            moved += (other - centred).abs().amax(dim=1).square() / _DRAWS
            step = self._step(replace(found, x=found.x - centred + other))
            made = [
                float((a - b).norm() + one.norm())
                for a, b, one in zip(plain.parts(), step.parts(), noise, strict=True)
            ]
            levels += torch.tensor(made, dtype=torch.float64) / times / _DRAWS
        return _SAFETY * moved.sqrt() / times, levels.tolist()

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

    def _result(self, nothing: Attack, found: _Found, errors: Float[Tensor, " M"], mean: _Mean) -> Attack:
        """Centred samples with the mean as far as W_1 shows it."""
        x, centred, labels = found.x, found.centred, found.labels
        fits = mean.left <= _TOLERANCE
        good = errors <= CLAIM_LIMIT * centred.abs().amax(dim=1).clamp(min=1.0)
        limits = CLAIM_LIMIT * x.abs().amax(dim=1).clamp(min=1.0)
        hidden = x.shape[1] - mean.rank
        shown = good & (errors + mean.off <= limits) & fits & (hidden == 0)
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
        if not fits:
            why = (
                f"no mean of the batch gives the running mean after the step, by {mean.left:.1e} times its "
                "rounding: it is that of another step or model, or was rounded on its way"
            )
        elif hidden:
            why = (
                f"the mean of the batch is known on the {mean.rank} dimensions that layer 1 sees; "
                f"{hidden} are hidden"
            )
        else:
            why = f"its error estimate {float((errors + mean.off).max()):.1e} is too large"
        return replace(
            nothing,
            x=x[shown],
            y=labels[shown],
            status=tuple(
                replace(one, error_bound=one.error_bound + mean.off)
                for one, kept in zip(evidence, shown[good].tolist(), strict=True)
                if kept
            ),
            candidates=tuple(
                Candidate(
                    x=x[m],
                    label=labels[m],
                    error_estimate=math.inf if hidden else float(errors[m] + mean.off),
                    reason=why,
                )
                for m in torch.nonzero(~shown)[:, 0].tolist()
            ),
            complete=bool(shown.all()),
            reason="" if bool(shown.all()) else why,
            centred=Centred(
                values=centred[good],
                labels=labels[good],
                status=tuple(evidence),
                mean=mean.value if fits else torch.zeros_like(mean.value),
                mean_rank=mean.rank if fits else 0,
            ),
        )


def _summed(
    delta: Float[Tensor, "M n"], hidden: Float[Tensor, "M k"], off: Callable[[Tensor], Tensor]
) -> Tensor:
    """[delta^T h | sum of delta] with the roundings that ``off`` gives to sums of this size."""
    augmented = torch.nn.functional.pad(hidden, (0, 1), value=1.0)
    return delta.T @ augmented + off((delta.square().T @ augmented.square()).sqrt())


def _distinct(fits: list[_Fit]) -> list[_Fit]:
    """One fit per sample, best first."""
    kept: list[_Fit] = []
    for one in sorted(fits, key=lambda fit: fit.misfit):
        size = float(one.y.norm())
        if all(float((one.y - other.y).norm()) > _SAME * size for other in kept):
            kept.append(one)
    return kept


def _all_spans(problem: Problem, trace: Any) -> Float[Tensor, "m n K"]:
    """From loss vectors to the deltas of the first of the upper layers."""
    if len(problem.layers) == 1:
        return torch.eye(problem.classes, dtype=torch.float64, device=problem.device).expand(
            len(trace.logits), -1, -1
        )
    return delta_spans(problem, trace)
