"""A batch that reproduces the whole gradient is consistent, however narrow the layers are.

The other tests judge samples one by one by what the first layer's column space says of each, which needs more
neurons than samples and logits together. Here the batch is judged as one: labels are told by the last layer's
gradient and the features (or the first layer's and the inputs), inputs are polished by Gauss-Newton on all
given tensors, with labels and activation patterns fixed, and what is left has to be rounding.

Error estimate. With J the Jacobian of the entries, scaled by each layer's rounding, a residual of rounding
moves sample m by |J^+_m| times its norm at most, to first order. Entries of dW_1 across the span of the rows
of W_1 and of the inputs only see Delta_1, so that the inputs across it follow with the error |Delta_1^+_m|;
both are infinite where the batch could move without changing its gradient. No other region and no other
label is excluded by this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Labels
from exan_verify.numeric.problem.losses import admissible
from exan_verify.numeric.problem.passes import (
    Trace,
    backward,
    delta_spans,
    forward,
    gradient_error,
    gradient_norms,
    rounding,
)
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.sensitivity import jacobian, residual
from exan_verify.numeric.waiting import proceed

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""

_SAFETY = 4.0

_ROUNDS = 4

_ENTRIES = 1 << 24
"""Most entries of the Jacobian (128 MiB): beyond, layers are wide enough for the other tests."""

_SINGULAR = 1e-12
"""Singular values below this share of the largest cannot be told from zero."""

_ROUNDED = 1e-2
"""Share of a layer's gradient that rounding may explain."""

_FAR = 1e8
"""Inputs beyond which nothing is tried."""

_FREE = 1e-6
"""Share of an unknown in a direction that changes nothing, from which it is not determined."""

_NEAREST = 0.25
"""Distance up to which a target is taken for the nearest label; the gradient decides."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WholeBatch:
    """A batch that reproduces the gradient: ``x`` (M, d), labels ``y``, the errors (M,), L-infinity,
    estimated for x, and the relative Frobenius distance ``residual`` that is left."""

    x: Tensor
    y: Tensor
    errors: Tensor
    residual: float


def whole_batch(
    problem: Problem,
    x: Float[Tensor, "M d"],
    y: Tensor | None,
    gains: list[tuple[float, float]],
    *,
    errors: Float[Tensor, " M"] | None = None,
) -> WholeBatch | None:
    """The batch near ``x`` with labels ``y`` (by default, those that the gradient tells) that reproduces the
    gradient to rounding, or None.

    ``errors`` (M,), L-infinity, where the inputs are known that well: what these leave unexplained, no step
    of theirs mends, so that a wrong factor, loss or size costs no Jacobian."""
    size, first = len(x), problem.layers[0]
    if problem.scale is None or problem.weighted:
        return None
    if not size or not bool((x.abs() < _FAR).all()) or not first.weight_given:
        return None
    frame = _frame(problem, x)
    unknowns = size * (frame.shape[1] + problem.classes * (problem.question.labels is Labels.REAL))
    entries = sum(layer.shape[0] * (layer.shape[1] + 1) for layer in problem.layers[1:])
    if unknowns * (entries + first.shape[0] * (frame.shape[1] + 1)) > _ENTRIES:
        return None
    y = told_labels(problem, x) if y is None else y
    state = None if y is None else State.of(problem, x, y, gains)
    if y is None or state is None or (errors is not None and _out_of_reach(problem, state, errors, gains)):
        return None
    for _ in range(_ROUNDS):
        proceed()
        step, pseudo = _step(problem, state, frame)
        moved = step[:, : frame.shape[1]] @ frame.T
        targets = y if step.shape[1] == frame.shape[1] else y + step[:, frame.shape[1] :]
        following = State.of(problem, state.x + moved, targets, gains)
        if not following.left < state.left:
            break
        state, y = following, targets
    admitted = problem.question.labels is not Labels.REAL or bool(admissible(problem.question.loss, y).all())
    if not (state.left <= _TOLERANCE and admitted):
        return None
    _, pseudo = _step(problem, state, frame)
    own = pseudo[:, : frame.shape[1]]
    open_ones = ~torch.isfinite(own).all(dim=2).all(dim=1)
    off = _SAFETY * torch.linalg.matrix_norm(torch.nan_to_num(own, posinf=0.0, neginf=0.0), 2)
    off = torch.where(open_ones, torch.inf, off * len(problem.layers) ** 0.5)
    if frame.shape[1] < x.shape[1]:
        inverse = _bounded_inverse(problem.layers[0].sent(state.deltas[0]))
        off = torch.hypot(off, _SAFETY * inverse.norm(dim=0) * state.levels[0])
    total = math.hypot(*state.errors) / max(math.hypot(*gradient_norms(problem)), 1e-300)
    return WholeBatch(x=state.x, y=y, errors=off * max(1.0, state.left), residual=total)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """A batch with its labels and passes: ``errors`` per layer, the ``levels`` that rounding explains, and
    ``left``, the largest ratio of the two."""

    x: Tensor
    y: Tensor
    trace: Trace
    deltas: tuple[Tensor, ...]
    errors: list[float]
    levels: list[float]
    divisor: float

    @property
    def left(self) -> float:
        """The largest ratio of an error to what rounding explains."""
        ratios = [e / level for e, level in zip(self.errors, self.levels, strict=True)]
        return max(ratios) if all(math.isfinite(r) for r in ratios) else math.inf

    @classmethod
    def of(cls, problem: Problem, x: Tensor, y: Tensor, gains: list[tuple[float, float]]) -> State:
        """The batch ``x`` with labels ``y``."""
        trace, divisor, unit = forward(problem, x), problem.divisor(len(x)), problem.unit_roundoff
        deltas = backward(problem, trace, problem.loss_vectors(trace.logits, y) / divisor)
        explained = rounding(
            problem, trace, deltas, gains=gains, input_error=unit * x.norm(dim=1), unit=unit, divisor=divisor
        ).gradients
        norms = gradient_norms(problem)
        levels = [
            level + unit * norm + torch.finfo(torch.float64).tiny
            for level, norm in zip(explained, norms, strict=True)
        ]
        errors = [
            # inputs so large that their rounding explains anything explain nothing
            error if level <= _ROUNDED * norm or not norm else math.inf
            for error, level, norm in zip(gradient_error(problem, trace, deltas), levels, norms, strict=True)
        ]
        return cls(x=x, y=y, trace=trace, deltas=deltas, errors=errors, levels=levels, divisor=divisor)


def _out_of_reach(
    problem: Problem, state: State, errors: Float[Tensor, " M"], gains: list[tuple[float, float]]
) -> bool:
    """Whether some layer's gradient differs by more than inputs explain that are known to ``errors``."""
    moved = rounding(
        problem,
        state.trace,
        state.deltas,
        gains=gains,
        input_error=errors * state.x.shape[1] ** 0.5,
        unit=problem.unit_roundoff,
        divisor=state.divisor,
    ).gradients
    return any(
        error > _TOLERANCE * (level + rounded)
        for error, level, rounded in zip(state.errors, moved, state.levels, strict=True)
    )


def _frame(problem: Problem, x: Float[Tensor, "M d"]) -> Float[Tensor, "d r"]:
    """An orthonormal basis of the span of the inputs and the rows of W_1, or of everything."""
    first = problem.layers[0]
    if first.shape[1] <= first.shape[0] + len(x):
        return torch.eye(first.shape[1], dtype=x.dtype, device=x.device)
    frame: Tensor = torch.linalg.qr(torch.cat([first.weight.double(), x]).T)[0]
    return frame


def _step(
    problem: Problem, state: State, frame: Tensor
) -> tuple[Float[Tensor, "M u"], Float[Tensor, "M u E"]]:
    """The Gauss-Newton step, and the pseudo-inverse that gives it: infinite where it does not exist."""
    weights = [1 / level for level in state.levels]
    matrix = jacobian(
        problem,
        state.trace,
        state.deltas,
        frame,
        divisor=state.divisor,
        targets=problem.question.labels is Labels.REAL,
        weights=weights,
    )
    size, unknowns, _ = matrix.shape
    pseudo = _bounded_inverse(matrix.flatten(0, 1)).T
    left = residual(problem, state.trace, state.deltas, frame, weights)
    step = torch.nan_to_num(pseudo @ left, nan=0.0, posinf=0.0, neginf=0.0)
    return step.view(size, unknowns), pseudo.view(size, unknowns, -1)


def _bounded_inverse(rows: Float[Tensor, "r n"]) -> Float[Tensor, "n r"]:
    """The right inverse of ``rows``, infinite in the columns of rows that others may replace."""
    if not bool(torch.isfinite(rows).all()):
        return torch.full_like(rows.T, torch.inf)
    size = rows.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    u, values, vt = torch.linalg.svd(rows / size[:, None], full_matrices=len(rows) > rows.shape[1])
    kept = values > _SINGULAR * values[:1]
    rank = int(kept.sum())
    inverse: Tensor = ((vt[:rank].T / values[:rank]) @ u[:, :rank].T) / size
    free = u[:, rank:].norm(dim=1) > _FREE
    return torch.where(free, torch.full_like(inverse, torch.inf), inverse)


def told_labels(problem: Problem, x: Float[Tensor, "M d"]) -> Tensor | None:
    """The labels that the last layer's gradient gives with the features, or the first's with the inputs."""
    trace = forward(problem, x)
    identity = torch.eye(problem.classes, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    for k, spans in ((len(problem.layers) - 1, identity), (0, None)):
        layer = problem.layers[k]
        # the first layer's spans know its rows, what the last one lacks is a loss vector's entry
        if not layer.weight_given or (spans is not None and not layer.weight_whole):
            continue
        h, augmented = trace.hidden[k], layer.bias_whole if spans is not None else layer.paired
        if augmented:
            h = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
        inverse = _bounded_inverse(h)
        if not bool(torch.isfinite(inverse).all()):
            continue
        given = layer.augmented() if augmented else layer.d_weight.double()
        fit = problem.fit_labels(
            trace.logits,
            delta_spans(problem, trace) if spans is None else spans,
            (given @ inverse).T,
            samples=len(x),
            reach=_NEAREST if problem.question.labels is Labels.ONE_HOT else 0.0,
        )
        if problem.question.labels is Labels.REAL or bool(fit.checked.all()):
            return fit.labels
    return None
