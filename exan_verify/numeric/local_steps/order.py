"""Which sample was in which mini-batch, and the labels: read off the samples' summed deltas.

The weights of a step are W_2 - eta sum_k delta_2^k h_k^T over the samples k of earlier steps, so that sample
m's delta at its active neurons is W_2^T u_m - eta sum_k r_km (u_k . u_m) h_k, u its next delta, with r_km = 1
where k's step comes first and 0 elsewhere; over E equal epochs (E + 1) / 2E and (E - 1) / 2E. Least squares
for u_m and the factors of the h_k show the r. The h_k are those of the second layer's sum, sum_k u_k h_k^T,
where the u_k are independent, and else those at the first weights. docs/theory.md, Appendix U.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exan_verify.numeric.local_steps.schedule import Schedule
from exan_verify.numeric.local_steps.trajectory import Run
from exan_verify.numeric.methods.equations import next_directions
from exan_verify.numeric.problem.passes import backward, delta_spans, forward
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.spectrum import ColumnSpace
from exan_verify.numeric.waiting import proceed

_ROUNDS = 3
"""Of features from next deltas and these from features: the first ones are right to the rate's order."""

_PART = 1e-3
"""Share of a delta's largest entry below which a neuron has no part in it."""

_NEAREST = 0.25
"""Distance up to which a target is taken for the nearest label; the run that it makes decides."""


def places(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    schedule: Schedule,
    x: Float[Tensor, "M d"],
    deltas: Float[Tensor, "M n"],
    lr: float,
) -> Int[Tensor, " M"]:
    """The mini-batch (from 0) that each sample was in, of those with these inputs and summed deltas."""
    sizes = schedule.batches(len(x))
    ranks = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(x.device)
    if len(sizes) == 1:
        return ranks
    gain = _precedence(problem, spaces, schedule, x, deltas, lr)
    # who has more before it comes later, by number and by weight
    found = [
        _exchanged(ranks[before.sum(dim=0).argsort().argsort()], gain)
        for before in ((gain > 0).double(), gain)
    ]
    return max(found, key=lambda place: _agreement(place, gain))


def _precedence(
    problem: Problem,
    spaces: tuple[ColumnSpace, ...],
    schedule: Schedule,
    x: Float[Tensor, "M d"],
    deltas: Float[Tensor, "M n"],
    lr: float,
) -> Float[Tensor, "M M"]:
    """For samples k and m, what speaks for k before m, positive, or against it."""
    size, features = len(x), forward(problem, x).hidden[1]
    directions = next_directions(problem, spaces, 0, size)
    active = deltas.abs() > _PART * deltas.abs().amax(dim=1, keepdim=True)
    for _ in range(_ROUNDS):
        columns = torch.cat([problem.layers[1].backward(directions.T).T, features.T], dim=1)
        solved = (torch.linalg.pinv(active[:, :, None] * columns, rtol=1e-12) @ deltas[:, :, None])[:, :, 0]
        u = solved[:, : directions.shape[1]]
        shown = solved[:, directions.shape[1] :].T
        if spaces[1].rank == size:
            features = torch.linalg.pinv((u @ directions.T).T) @ problem.layers[1].d_weight.double()
    # shown_km = -eta r_km (u_k . u_m): what decides for 1 against 0 is (shown - middle) times the step
    whole = -lr * (u @ u.T)
    epochs = schedule.epochs
    low, high = (epochs - 1) / (2 * epochs), (epochs + 1) / (2 * epochs)
    gain: Tensor = (2 * shown - (low + high) * whole) * whole
    return gain.fill_diagonal_(0.0)


def _exchanged(place: Int[Tensor, " M"], gain: Float[Tensor, "M M"]) -> Int[Tensor, " M"]:
    """``place`` after exchanges of two samples, as long as one raises the sum of gains."""
    best, size = _agreement(place, gain), len(place)
    for _ in range(size):
        proceed()
        before = best
        for a in range(size):
            for b in range(a):
                if place[a] == place[b]:
                    continue
                other = place.clone()
                other[a], other[b] = place[b], place[a]
                value = _agreement(other, gain)
                if value > best:
                    place, best = other, value
        if best == before:
            break
    return place


def _agreement(place: Int[Tensor, " M"], gain: Float[Tensor, "M M"]) -> float:
    return float((gain * (place[:, None] < place)).sum())


def read_labels(
    problem: Problem,
    schedule: Schedule,
    x: Float[Tensor, "M d"],
    deltas: Float[Tensor, "M n"],
    place: Int[Tensor, " M"],
    lr: float,
) -> Tensor | None:
    """Labels of samples with these inputs and summed deltas: step by step, at the weights that the steps
    before have left; None where one is not of the loss's kind."""
    run = Run(problem, schedule, place, lr)
    labels: Tensor | None = None
    for step in run.steps():
        chosen = step.chosen
        trace = forward(step.problem, x[chosen])
        fit = step.problem.fit_labels(
            trace.logits,
            delta_spans(step.problem, trace),
            deltas[chosen] / schedule.epochs,
            samples=len(chosen),
            reach=_NEAREST,
        )
        if not bool(fit.checked.all()):
            return None
        if labels is None:
            labels = fit.labels.new_zeros(len(x), *fit.labels.shape[1:])
        labels[chosen] = fit.labels
        if int(place.max()) == int(place[chosen[0]]):
            break
        g = problem.loss_vectors(trace.logits, fit.labels) / problem.divisor(len(chosen))
        run.take(step, trace, backward(step.problem, trace, g))
    return labels
