"""The attack on an update of several local steps: directions, order and labels, a fit, and the tiers.

*Confirmed* is a sample only where theory has a theorem (docs/theory.md, Appendix U): every sample in one
step, next deltas independent; then the run is a batch whose samples meet different weights, and is confirmed
as a batch is. *Consistent* is a batch whose own run has the whole update, layer by layer, to rounding, with
an error estimate. Both rest on the learning rate and the steps that were told: with others the run of the
samples found misses the update, and they stay candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exan_verify.core.network import ReluNetwork
from exan_verify.errors import BudgetExhausted, InputError
from exan_verify.numeric.ask_methods import column_space_of
from exan_verify.numeric.confirming.bounds import refine
from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT, Confirmed, confirm
from exan_verify.numeric.local_steps.directions import ASSIGN, find_directions, step_equations
from exan_verify.numeric.local_steps.fit import fit_inputs
from exan_verify.numeric.local_steps.order import places, read_labels
from exan_verify.numeric.local_steps.schedule import Schedule
from exan_verify.numeric.local_steps.trajectory import Trajectory, moved_problem, run_of
from exan_verify.numeric.methods.equations import layer_summaries, too_many
from exan_verify.numeric.problem.downward import solve_inputs
from exan_verify.numeric.problem.passes import forward, gradient_norms, rounding, weight_gains
from exan_verify.numeric.problem.problem import LayerGradient, Problem, build_problem
from exan_verify.numeric.problem.records import Attack, Candidate, Evidence, Finding
from exan_verify.numeric.problem.spectrum import ColumnSpace
from exan_verify.numeric.waiting import Progress, Telling

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation of a run that is accepted as rounding."""

_SAFETY = 16.0
"""On errors from drawn roundings, as in problem/own_rows.py."""

_DRAWS = 4

_PUSHED = 1e-8
"""Relative size of the errors that are drawn in place of rounding, so that what they do is seen above it."""

_ATTEMPTS = 3
"""A stranger among the directions spoils all inputs: one of ten searches of two full steps had one."""

_OTHERS = ": another rate, other steps, momentum or weight decay, another loss, or samples that are not right"

_OPEN = "its input could change without changing the update of the batch"

_WHOLE_RUN = "the run of the samples found has the whole update; no other batch is excluded"


def run(
    network: ReluNetwork,
    update: Mapping[str, Any],
    schedule: Schedule,
    *,
    loss: str,
    reduction: str,
    batch_size: int | None = None,
    device: Any = None,
    seed: int = 0,
    smoothing: float = 0.0,
    progress: Progress | None = None,
) -> Attack:
    """Recover the batch behind ``update``: one tensor per parameter, weights after the steps minus before.

    ``schedule``: the steps; without its rate everything found is a candidate, since inputs do not depend on
    it but the run does. Other arguments as for :func:`exan_verify.numeric.attack.run`.

    Raises :class:`InputError` naming what cannot be used.
    """
    start = time.perf_counter()
    tell = Telling(progress)
    tell("reading the update", 0.0)
    problem = tell.during(
        lambda: build_problem(
            network,
            update,
            loss=loss,
            reduction=reduction,
            batch_size=batch_size,
            device=device,
            seed=seed,
            smoothing=smoothing,
            partial=True,
        )
    )
    if len(problem.layers) < 2 or not problem.whole:
        raise InputError(
            "an update of several local steps is attacked where there is a hidden layer and every layer has "
            "biases, with all its tensors; attack the gradient of a single step otherwise"
        )
    with torch.no_grad():
        found = _drawn(_per_rate(problem, schedule), schedule, tell)
    with suppress(BudgetExhausted):
        tell("done", 1.0)
    notes = (f"taken for the update of {schedule.described}",)
    return replace(found, seconds=time.perf_counter() - start, notes=notes)


def _drawn(problem: Problem, schedule: Schedule, tell: Telling) -> Attack:
    """The first attempt that finds the batch, each with draws of its own; else the best of them."""
    found = _Attempt(problem=problem, schedule=schedule, tell=tell).run()
    for again in range(1, _ATTEMPTS):
        if found.complete or not found.method.startswith(ASSIGN):
            break
        another = replace(problem, seed=problem.seed + again)
        try:
            other = _Attempt(problem=another, schedule=schedule, tell=tell).run()
        except BudgetExhausted:
            break
        found = max(found, other, key=lambda one: (len(one.x), len(one.candidates)))
    return found


def _per_rate(problem: Problem, schedule: Schedule) -> Problem:
    """The problem of the sum of the steps' gradients, which the update is -lr times."""
    factor = -1 / (schedule.lr or 1.0)
    layers = tuple(
        replace(layer, d_weight=factor * layer.d_weight.double(), d_bias=factor * layer.d_bias)
        for layer in problem.layers
    )
    return replace(problem, layers=layers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    problem: Problem
    schedule: Schedule
    tell: Telling

    def run(self) -> Attack:
        problem, schedule = self.problem, self.schedule
        spaces = self.tell.during(self._column_spaces)
        space, told = spaces[0], problem.question.batch_size
        size = told or space.rank
        summaries = layer_summaries(problem, spaces)
        nothing = Attack(
            x=space.rows[:0, :-1],
            y=torch.zeros(0, dtype=torch.long) if problem.classified else torch.zeros(0, problem.classes),
            status=(),
            gradient_residual=1.0,
            complete=False,
            batch_size=size,
            batch_size_source="rank" if told is None else "given",
            method="local steps",
            layer=1,
            layers=summaries,
            candidates=(),
            reason="",
            seconds=0.0,
            scale=-(schedule.lr or 1.0),
        )
        if space.saturated or space.rank != size:
            return replace(nothing, reason=_no_rank(problem, space, size))
        exact = schedule.once and spaces[1].rank == size and not spaces[1].saturated
        self.tell("searching for the samples' deltas", 0.2)
        equations = step_equations(problem, spaces)
        directions = self.tell.during(lambda: find_directions(problem, equations, exact=exact))
        method = f"{directions.method}, local steps"
        nothing = replace(nothing, method=method)
        if directions.found.shape[1] != space.rank:
            return replace(
                nothing,
                reason=f"{directions.found.shape[1]} of {space.rank} samples found at layer 1; an input is "
                f"known only when all are: fewer samples or smaller steps are easier{self._crowded(size)}",
            )
        inputs = solve_inputs(space, directions.found)
        deltas = (directions.found * inputs.scales).T
        if not bool(torch.isfinite(inputs.values).all()):
            return replace(nothing, reason="the bias gradient of layer 1 does not give the samples' scales")
        if schedule.lr is None:
            return _candidates(
                nothing,
                inputs.values,
                None,
                "the learning rate is not told, so that no run can be compared with the update; give lr",
            )
        self.tell("reading order and labels", 0.7)
        return self.tell.during(lambda: self._read(nothing, spaces, inputs.values, deltas, exact=exact))

    def _crowded(self, size: int) -> str:
        """What makes one pass over the mini-batches harder than it is for a few samples; empty where nothing
        does."""
        classes = self.problem.classes
        if not (self.schedule.once and self.schedule.sizes and size > classes):
            return ""
        return (
            f"; with more samples than classes, {size} and {classes}, the equations of one pass are "
            "approximate, which is harder"
        )

    def _column_spaces(self) -> tuple[ColumnSpace, ...]:
        """Of every layer's sum, at the roundoff that a difference of weights has."""
        generator = self.problem.generator()
        spaces = []
        for layer, norm in zip(self.problem.layers, gradient_norms(self.problem), strict=True):
            lost = _of_weights(layer, self.schedule) / (self.schedule.lr or 1.0)
            unit = self.problem.unit_roundoff * (1 + lost / max(norm, 1e-300))
            spaces.append(column_space_of(replace(self.problem, unit_roundoff=unit), layer, generator))
        return tuple(spaces)

    def _read(
        self, nothing: Attack, spaces: tuple[ColumnSpace, ...], x: Tensor, deltas: Tensor, *, exact: bool
    ) -> Attack:
        problem, schedule = self.problem, self.schedule
        lr = schedule.lr
        assert lr is not None
        place = places(problem, spaces, schedule, x, deltas, lr)
        y = read_labels(problem, schedule, x, deltas, place, lr)
        if exact and y is not None:
            found = self._confirmed(nothing, spaces, x, y, place, lr)
            if found.complete:
                return found
        if y is None:
            return _candidates(
                nothing, x, None, "no label of the loss's kind explains its loss vector" + _OTHERS
            )
        given = problem.layers[0].augmented()

        def deltas_of(moved: Float[Tensor, "M d"]) -> Float[Tensor, "M n"]:
            return run_of(problem, schedule, moved, y, place, lr).deltas[0]

        fit = fit_inputs(given, deltas_of, x)
        trajectory = run_of(problem, schedule, fit.x, y, place, lr)
        levels = _levels(problem, schedule, trajectory, fit.x, lr)
        misses, norms = trajectory.misses(problem), gradient_norms(problem)
        ratios = [miss / level for miss, level in zip(misses, levels, strict=True)]
        left, worst = max(ratios), max(range(len(ratios)), key=ratios.__getitem__)
        total = math.hypot(*misses) / max(math.hypot(*norms), 1e-300)
        if not left <= _TOLERANCE:
            norm = max(norms[worst], 1e-300)
            return _candidates(
                replace(nothing, gradient_residual=total),
                x,
                y,
                "the local steps that were told, taken with the samples found, miss the update of layer "
                f"{worst + 1} by {misses[worst] / norm:.1e} (relative), rounding explains "
                f"{_TOLERANCE * levels[worst] / norm:.1e}{_OTHERS}{self._crowded(len(x))}",
            )
        size = max(1.0, left) * levels[0]
        errors = self._errors(given, deltas_of, fit.x, size) + 2 * fit.moved
        return self._consistent(replace(nothing, gradient_residual=total), fit.x, y, place, errors)

    def _confirmed(
        self,
        nothing: Attack,
        spaces: tuple[ColumnSpace, ...],
        x: Float[Tensor, "M d"],
        y: Tensor,
        place: Int[Tensor, " M"],
        lr: float,
    ) -> Attack:
        """What is confirmed or consistent of one local epoch as a batch at different weights; of use where it
        is complete, since the steps that were told are tested as a whole."""
        trajectory = run_of(self.problem, self.schedule, x, y, place, lr)
        moved = moved_problem(self.problem, self.schedule, trajectory, place, lr)
        finding = Finding(
            method=nothing.method,
            x=x,
            rest=spaces[0].basis[:, :0],
            rest_sine=1.0,
            layer=1,
            layers=nothing.layers,
            reason="",
        )
        gains = weight_gains(moved)
        refined = refine(moved, spaces[0], finding, gains)
        found: Confirmed = confirm(moved, spaces, finding, refined, gains)
        return replace(
            nothing,
            x=found.x,
            y=found.y,
            status=found.status,
            candidates=found.candidates,
            gradient_residual=found.gradient_residual,
            complete=found.complete,
            reason=found.reason,
            local_batch=tuple(place.tolist()),
        )

    def _consistent(
        self, nothing: Attack, x: Float[Tensor, "M d"], y: Tensor, place: Tensor, errors: Float[Tensor, " M"]
    ) -> Attack:
        """Samples whose run has the whole update, as far as their errors are small."""
        good = errors <= CLAIM_LIMIT * x.abs().amax(dim=1).clamp(min=1.0)
        open_ones = torch.nonzero(~good)[:, 0].tolist()
        missed = nothing.gradient_residual
        return replace(
            nothing,
            x=x[good],
            y=y[good],
            status=tuple(
                Evidence(
                    method=nothing.method,
                    layer=1,
                    error_bound=error,
                    residual=missed,
                    isolation=0.0,
                    label_residual=missed,
                    label_margin=1.0,
                    unconfirmed=_WHOLE_RUN,
                )
                for error in errors[good].tolist()
            ),
            candidates=tuple(
                Candidate(x=x[m], label=y[m], error_estimate=float(errors[m]), reason=_OPEN)
                for m in open_ones
            ),
            complete=not open_ones,
            reason=f"{len(open_ones)} of {len(x)} samples are not determined: {_OPEN}" if open_ones else "",
            local_batch=tuple(place[good].tolist()) if self.schedule.sizes else (),
        )

    def _errors(
        self, given: Tensor, deltas_of: Any, x: Float[Tensor, "M d"], size: float
    ) -> Float[Tensor, " M"]:
        """How far errors of Frobenius norm ``size`` in the first layer's sum move the inputs: errors are
        drawn much larger, the inputs fitted anew, and what that does scaled down."""
        generator = self.problem.generator()
        pushed = max(_PUSHED * float(given.norm()), size)
        squared = torch.zeros_like(x[:, 0])
        for _ in range(_DRAWS):
            drawn = torch.randn(given.shape, dtype=given.dtype, generator=generator).to(given)
            fit = fit_inputs(given + drawn * (pushed / float(drawn.norm())), deltas_of, x)
            squared += (fit.x - x).abs().amax(dim=1).square() / _DRAWS
        return _SAFETY * squared.sqrt() * (size / pushed)


def _levels(
    problem: Problem, schedule: Schedule, trajectory: Trajectory, x: Float[Tensor, "M d"], lr: float
) -> list[float]:
    """What roundings explain of each layer's sum, Frobenius norms: those of the passes, and those of the
    weights, which every step rounds and the update is a difference of."""
    unit, trace = problem.unit_roundoff, forward(problem, x)
    passes = rounding(
        problem,
        trace,
        trajectory.deltas,
        gains=weight_gains(problem),
        input_error=unit * x.norm(dim=1),
        unit=unit,
        divisor=problem.divisor(min(schedule.batches(len(x)))),
    ).gradients
    return [
        passed + unit * norm + unit * _of_weights(layer, schedule) / lr
        for passed, norm, layer in zip(passes, gradient_norms(problem), problem.layers, strict=True)
    ]


def _no_rank(problem: Problem, space: ColumnSpace, size: int) -> str:
    """Why the first layer's sum does not show the ``size`` samples of the batch."""
    told = problem.question.batch_size
    if space.saturated and space.rank:
        batch = "" if told is None else f", which no batch of {told} does"
        return (
            f"the update has full rank at layer 1, {space.rank}{batch}: steps of Adam, noise or compression "
            "fill it, or the batch is as large; use the update of plain gradient steps as it was computed, "
            "or a wider first layer"
        )
    return too_many(problem, space.rank) or (
        f"the update shows rank {space.rank} at layer 1, and not the {size} samples of the batch: some are "
        "dead or shared; use another batch size or a wider first layer"
    )


def _of_weights(layer: LayerGradient, schedule: Schedule) -> float:
    """Frobenius norm of the roundings of [W | b] over the steps, in units of the roundoff."""
    weights = math.hypot(float(layer.weight.double().norm()), float(layer.bias.norm()))
    return math.sqrt(schedule.steps) * weights


def _candidates(nothing: Attack, x: Float[Tensor, "M d"], y: Tensor | None, reason: str) -> Attack:
    return replace(
        nothing,
        candidates=tuple(
            Candidate(x=x[m], label=None if y is None else y[m], error_estimate=math.inf, reason=reason)
            for m in range(len(x))
        ),
        reason=reason,
    )
