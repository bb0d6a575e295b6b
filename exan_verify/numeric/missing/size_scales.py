"""Scales of samples from the sizes of their loss vectors, for every loss (docs/theory.md section 8, G7).

Derivation. Without any bias gradient x = t y for a known row y, one number t per sample, and its delta is
1 / t of a known one, so that with the logits f = t a + c and the loss vector v(f, y) of a label

    t v(t a + c, label) = N g,     g known, N the divisor:

K equations (K - 1 where the entries sum to zero) for t. Where they are one equation, bce's and
cross_entropy's has two solutions as soon as the label's margin grows with t (t / (1 + e^{ta}) rises and
falls), and mse's has one for either label: then two inputs, x and a multiple of it, have one gradient.
Where N is not known either, N = 1 / k, only the direction of g is left, and of one equation nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Labels, Loss
from exan_verify.numeric.problem.losses import class_vectors, target_vectors
from exan_verify.numeric.problem.problem import Problem

_GRID, _WIDEST = 1601, 8.0
"""Values of t at which the equations are tried, and the powers of ten by which logits go up and down: the
steps are of 2 in 100, and solutions nearer to each other than that are not told apart by rounding either."""

_STEPS, _STEP = 12, 1e-6

_RIVAL, _TELLING = 1e3, 1e-2
"""Times what errors explain that a solution may miss and still be a rival to another; share of a loss vector
that errors may explain."""

_SAFETY, _DOUBT = 16.0, 100.0
"""Between an error estimated by norms and what is accepted; times its error that an entry's sign is sure."""

_ROUNDING = 64 * 2.0**-53

_NEAR = 0.2
"""Sine between a loss vector and the target's direction a step of t from a solution."""

_SAME = 1e-6
"""Relative distance of solutions that are one."""

_UNSURE = 0.1
"""Relative error from which a scale is not known."""

_MOST_CLASSES = 64


def invisible(problem: Problem, shown: int) -> str:
    """Why the loss vectors of no sample determine its scale, of ``shown`` ones; empty where they may."""
    loss, question = problem.question.loss, problem.question
    sized = problem.scale is not None and not problem.weighted
    equations = problem.classes - int(loss.zero_sum)
    if question.labels is Labels.REAL:
        return "with real targets every multiple of an input has a target that explains the gradient"
    if not sized and (equations == 1 or (problem.weighted and loss is Loss.BCE)):
        return (
            "with a factor that is not known every multiple of an input explains the gradient while its "
            "pattern lasts, so that no bias gradient leaves only the direction of each input"
        )
    if equations == 1 and question.batch_size is None:
        return "one equation per sample gives a scale to any mixture of samples as well: give batch_size"
    if equations == 1 and question.batch_size != shown:
        return (
            f"one equation per sample gives a scale to any mixture of samples as well, and {shown} of "
            f"{question.batch_size} show"
        )
    if problem.classes > _MOST_CLASSES:
        return f"scales by the size of loss vectors are for {_MOST_CLASSES} classes at most"
    return ""


def scale_by_size(
    problem: Problem,
    slope: Float[Tensor, " K"],
    constant: Float[Tensor, " K"],
    g: Float[Tensor, " K"],
    error: float,
    *,
    samples: int,
    admitted: Callable[[float], bool],
) -> tuple[float, float] | str:
    """The scale s = 1 / t of a sample whose loss vector is s times ``g`` (to ``error``, L2), with its error,
    in a batch of ``samples``; why it stays open, where no t or more than one explains it. ``admitted``:
    whether the patterns are those at t."""
    sized = problem.scale is not None and not problem.weighted
    divisor = abs(problem.divisor(samples)) if sized else 1.0
    sign = -1.0 if problem.scale is not None and problem.scale < 0 else 1.0
    target, level = sign * divisor * g, divisor * error
    solutions: list[tuple[float, float]] = []
    for side in (1.0, -1.0):
        for vector in _loss_vectors(problem, side * target, level, either=problem.scale is None):
            for t, error_t in _solutions(vector, side * slope, constant, side * target, level, sized=sized):
                known = any(abs(side * t / other - 1) <= _SAME for other, _ in solutions)
                if not known and admitted(side * t):
                    solutions.append((side * t, error_t))
    if not solutions:
        return "no scale of a sample makes its loss vector that of a label: " + problem.alternatives
    if len(solutions) == 1 and not solutions[0][1] < _UNSURE * abs(solutions[0][0]):
        return "the gradient's rounding leaves the scale of a sample open"
    if len(solutions) > 1:
        ratio = solutions[1][0] / solutions[0][0]
        return (
            f"two inputs explain the gradient alike, one {ratio:.3g} times the other: no bias gradient tells "
            "which, and the loss vectors have too few entries"
        )
    t, error_t = solutions[0]
    return 1 / t, error_t / t**2


class _Vector:
    """The loss vectors of one label at logits (T, K)."""

    def __init__(self, problem: Problem, label: int | None, targets: Tensor | None, clear: Tensor) -> None:
        self._loss, self._smoothing = problem.question.loss, problem.smoothing
        self._label, self._targets, self._clear = label, targets, clear
        self.relative = self._loss in (Loss.CROSS_ENTROPY, Loss.BCE) and not self._smoothing

    def __call__(self, logits: Float[Tensor, "T K"]) -> Float[Tensor, "T K"]:
        if self._loss.class_labels:
            assert self._label is not None
            return class_vectors(self._loss, logits, self._smoothing)[:, self._label]
        assert self._targets is not None
        targets: Tensor = self._targets.expand_as(logits)
        if self._loss is Loss.BCE:
            # where an entry is too small for a sign, the nearer target
            targets = torch.where(self._clear, targets, (logits > 0).double())
        return target_vectors(self._loss, logits, targets)


def _loss_vectors(problem: Problem, target: Tensor, level: float, *, either: bool) -> Iterator[_Vector]:
    """The labels that a sample may have whose loss vector has the signs of ``target``, ``either`` or."""
    size, loss = problem.classes, problem.question.loss
    clear = target.abs() > _DOUBT * level
    if loss is Loss.BCE:
        for side in (1.0, -1.0) if either else (1.0,):
            yield _Vector(problem, None, (side * target < 0).double(), clear)
    elif loss is Loss.MSE:
        choices = torch.eye(size, dtype=target.dtype, device=target.device)
        for one in torch.tensor([[0.0], [1.0]]).to(target) if size == 1 else choices:
            yield _Vector(problem, None, one, clear)
    else:
        for label in range(size):
            # the label's entry is the one that is negative, unless labels are smoothed
            if either or problem.smoothing or not bool(clear[label]) or float(target[label]) < 0:
                yield _Vector(problem, label, None, clear)


def _solutions(
    vector: _Vector, slope: Tensor, constant: Tensor, target: Tensor, level: float, *, sized: bool
) -> Iterator[tuple[float, float]]:
    """Every t > 0 with t v(t slope + constant) = target, or parallel to it where it is not ``sized``."""
    unit = target / target.norm()

    def left(t: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        moved = t[:, None] * vector(t[:, None] * slope + constant)
        across: Tensor = moved - target if sized else moved - (moved @ unit)[:, None] * unit
        return across if sized else across / moved.norm(dim=1, keepdim=True).clamp(min=1e-300)

    reach = max(float(slope.abs().max()), 1e-300)
    powers = torch.linspace(-_WIDEST, _WIDEST, _GRID, dtype=torch.float64, device=target.device)
    grid = 10**powers / reach
    misfit = left(grid).norm(dim=1)
    inner = (misfit[1:-1] < misfit[:-2]) & (misfit[1:-1] <= misfit[2:])
    # a solution lies within a step of a value of t whose misfit is no larger than the target
    inner &= misfit[1:-1] <= (2 * float(target.norm()) if sized else _NEAR)
    for start in grid[1:-1][inner].tolist():
        t = start
        for _ in range(_STEPS):
            rest, turn = _with_slope(left, t)
            step = float(rest @ turn) / max(float(turn @ turn), 1e-300)
            t = min(max(t - step, t / 2), 2 * t)
            if abs(step) <= 1e-15 * t:
                break
        rest, turn = _with_slope(left, t)
        size = float((t * vector((t * slope + constant)[None])).norm())
        known = (level if sized else level / float(target.norm())) + _rounded(vector, t, slope, constant) * (
            1.0 if sized else 1 / max(size, 1e-300)
        )
        # what errors explain of a loss vector has to be little of it
        if float(rest.norm()) <= _RIVAL * known and known <= _TELLING * (
            float(target.norm()) if sized else 1.0
        ):
            within = float(rest.norm()) <= _SAFETY * known
            error = _SAFETY * known / max(float(turn.norm()), 1e-300)
            yield t, error if within else torch.inf


def _rounded(vector: _Vector, t: float, slope: Tensor, constant: Tensor) -> float:
    """What rounding leaves of t v: of probabilities that are nearly 0 or 1 it is relative, of differences of
    logits absolute."""
    spread = 1 + float((t * slope).abs().max()) + float(constant.abs().max())
    size = float(vector((t * slope + constant)[None]).norm())
    return _ROUNDING * t * spread * (size if vector.relative else 1.0)


def _with_slope(left: object, t: float) -> tuple[Tensor, Tensor]:
    assert callable(left)
    step = _STEP * t
    values = left(torch.tensor([t, t + step, t - step], dtype=torch.float64))
    return values[0], (values[1] - values[2]) / (2 * step)
