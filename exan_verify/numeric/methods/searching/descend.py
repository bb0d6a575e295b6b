"""The `descend` method: for a few samples in small networks, descent to a batch with this gradient.

Where the first layer is too narrow to separate samples, or they share their patterns, what is left of the
problem is small: all inputs lie in the affine hull of the rows dW_1[j] / db_1[j], of M - 1 dimensions when
[dW_1 | db_1] has rank M (docs/theory.md 3.1: X = Q X', Q 1 = 1), so that M (M - 1) numbers and the labels
are unknown. From starts in the hull, Levenberg-Marquardt on the whole gradient, with labels renewed from
what the first layer's gradient and the inputs say. A batch that is found reproduces the gradient to
rounding; whether it is the only one is not said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Labels
from exan_verify.errors import RangeError
from exan_verify.numeric.confirming.whole_batch import State
from exan_verify.numeric.methods.equations import layer_summaries, too_many
from exan_verify.numeric.problem.losses import label_options
from exan_verify.numeric.problem.passes import delta_spans, forward, weight_gains
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding
from exan_verify.numeric.problem.sensitivity import jacobian, residual
from exan_verify.numeric.problem.spectrum import ColumnSpace
from exan_verify.numeric.waiting import proceed

_MOST_SAMPLES = 4

_ENTRIES = 1 << 14
"""Most entries of a gradient: a step takes milliseconds."""

_STARTS, _STEPS = 128, 25

_SPREADS = (1.0, 2.0, 4.0)
"""Of the starts, times that of the rows: these are mixtures of the samples, and nearer to each other."""

_SOLVED = 1e3
"""Times rounding at which a descent has arrived; polishing does the rest."""

_FAR = 1e8
"""Inputs beyond which no descent is followed."""

_DAMPED, _FREED, _STUCK = 8.0, 0.2, 1e6


class Descend:
    """Descent from starts in the hull of the first layer's rows."""

    name = "descend"

    def reached(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Iterator[State]:
        """The batches that descents from all starts arrive at; many arrive at the same.

        Raises :class:`RangeError` where unknowns or entries are many, or the samples do not span the rows.
        """
        space = spaces[0]
        size = problem.question.batch_size or space.rank
        refusal = too_many(problem, space.rank) or _out_of_range(problem, space, size)
        if refusal:
            raise RangeError(refusal)
        base, frame, spread = _hull(problem, size)
        generator, gains = problem.generator(), weight_gains(problem)
        for k in range(_STARTS):
            proceed()
            drawn = torch.randn(size, frame.shape[1], dtype=torch.float64, generator=generator)
            start = drawn.to(problem.device) * spread * _SPREADS[k % len(_SPREADS)]
            state = _descended(problem, base + start @ frame.T, frame, gains)
            if state is not None:
                yield state

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """A batch that reproduces the gradient, or nothing.

        Raises :class:`RangeError` where unknowns or entries are many, or the samples do not span the rows.
        """
        state = next(self.reached(problem, spaces), None)
        nothing = Finding(
            method=self.name,
            x=torch.zeros(0, problem.layers[0].shape[1], dtype=torch.float64, device=problem.device),
            rest=spaces[0].basis,
            rest_sine=1.0,
            layer=None,
            layers=layer_summaries(problem, spaces),
            reason=f"descent from {_STARTS} starts reached no batch with this gradient",
        )
        if state is None:
            return nothing
        return replace(nothing, x=state.x, y=state.y, rest=nothing.rest[:, :0], reason="")


def _out_of_range(problem: Problem, space: ColumnSpace, size: int) -> str | None:
    entries = sum(layer.shape[0] * (layer.shape[1] + 1) for layer in problem.layers)
    if not 1 < size <= _MOST_SAMPLES or entries > _ENTRIES:
        return f"descent is for 2 to {_MOST_SAMPLES} samples and {_ENTRIES} entries of the gradient"
    if problem.scale is None or problem.weighted or problem.question.labels is Labels.REAL:
        return "descent needs loss vectors that labels determine"
    if not problem.whole:
        return "descent needs every tensor of the gradient, and all rows of each"
    if space.rank != size:
        return f"descent needs a first layer of rank {size}, and its gradient has rank {space.rank}"
    return None


def _hull(
    problem: Problem, size: int
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d r"], Float[Tensor, " r"]]:
    """A point of the rows' affine hull, an orthonormal basis of its directions, and the spread in these."""
    layer = problem.layers[0]
    shown = layer.d_bias.abs() > 1e-6 * layer.d_bias.abs().max()
    rows = layer.d_weight[shown].double() / layer.d_bias[shown, None]
    base = rows.mean(dim=0)
    values, directions = torch.linalg.svd(rows - base, full_matrices=False)[1:]
    kept = min(size - 1, len(values))
    return base, directions[:kept].T, values[:kept] / len(rows) ** 0.5


def _nearest_labels(problem: Problem, x: Float[Tensor, "M d"]) -> Tensor | None:
    """The labels whose deltas are nearest to those that the first layer's gradient gives with ``x``."""
    if not bool((x.abs() < _FAR).all()):
        return None
    trace, divisor = forward(problem, x), problem.divisor(len(x))
    h = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    deltas = problem.layers[0].right(torch.linalg.pinv(h)).T
    spans = delta_spans(problem, trace)
    g = (torch.linalg.pinv(spans, rtol=1e-10) @ deltas[:, :, None])[:, :, 0] * divisor
    labels, vectors = label_options(problem.question.loss, trace.logits, g, problem.smoothing)
    best = (vectors @ spans.mT / divisor - deltas[:, None, :]).norm(dim=2).argmin(dim=1)
    return best if labels.dim() == 1 else labels[torch.arange(len(best), device=best.device), best]


def _descended(
    problem: Problem, x: Float[Tensor, "M d"], frame: Float[Tensor, "d r"], gains: list[tuple[float, float]]
) -> State | None:
    y = _nearest_labels(problem, x)
    if y is None:
        return None
    state, damping = State.of(problem, x, y, gains), 1e-2
    for _ in range(_STEPS):
        weights = [1 / level for level in state.levels]
        matrix = jacobian(
            problem, state.trace, state.deltas, frame, divisor=state.divisor, targets=False, weights=weights
        ).flatten(0, 1)
        left = residual(problem, state.trace, state.deltas, frame, weights)
        gram = matrix @ matrix.T
        scale = gram.diagonal().clamp(min=torch.finfo(torch.float64).tiny)
        step, failed = torch.linalg.solve_ex(gram + damping * torch.diag(scale), matrix @ left)
        moved = state.x + step.view(len(x), -1) @ frame.T
        if int(failed) or not bool(torch.isfinite(moved).all()):
            break
        renewed = _nearest_labels(problem, moved)
        tried = [State.of(problem, moved, y, gains) for y in (renewed, state.y) if y is not None]
        following = min(tried, key=lambda one: one.left)
        if following.left < state.left:
            state, damping = following, damping * _FREED
        else:
            damping *= _DAMPED
        if state.left <= _SOLVED:
            return state
        if damping > _STUCK:
            break
    return None
