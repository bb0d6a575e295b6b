"""The local steps themselves: what a client's weights go through with given samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from exan_verify.numeric.local_steps.schedule import Schedule
from exan_verify.numeric.problem.moving import MovedLayer, MovedProblem
from exan_verify.numeric.problem.passes import Trace, backward, forward
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.waiting import proceed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """A run over samples, in gradients divided as the steps divide them.

    ``sums``, per layer (n_out, n_in + 1): [dW | db] summed over the steps; ``deltas``, per layer (M, n_out):
    those of every sample, summed over the steps it is in; ``inputs``, per layer (M, n_in): what it gave the
    layer at the last of these.
    """

    sums: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]

    def misses(self, problem: Problem) -> list[float]:
        """Frobenius distance of the sums from the given ones, per layer."""
        return [
            float((layer.augmented() - found).norm())
            for layer, found in zip(problem.layers, self.sums, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One step: the ``problem`` at its weights, the indices ``chosen`` of its samples."""

    problem: Problem
    chosen: Int[Tensor, " b"]

    def passed(self, x: Float[Tensor, "b d"], y: Tensor) -> tuple[Trace, tuple[Tensor, ...]]:
        """Forward and backward pass of its samples ``x`` with labels ``y``, divided as the step divides."""
        trace = forward(self.problem, x)
        g = self.problem.loss_vectors(trace.logits, y) / self.problem.divisor(len(x))
        return trace, backward(self.problem, trace, g)


class Run:
    """The steps one after the other: :meth:`steps` hands out each at its weights, :meth:`take` takes it."""

    def __init__(self, problem: Problem, schedule: Schedule, place: Int[Tensor, " M"], lr: float) -> None:
        self.schedule, self.place, self.lr = schedule, place, lr
        self.problem = replace(
            problem, layers=tuple(replace(one, weight=one.weight.double()) for one in problem.layers)
        )
        size = len(place)
        self.sums = [
            torch.zeros(n, m + 1, dtype=torch.float64, device=problem.device)
            for n, m in (layer.shape for layer in problem.layers)
        ]
        self.deltas = [s.new_zeros(size, s.shape[0]) for s in self.sums]
        self.inputs = [s.new_zeros(size, s.shape[1] - 1) for s in self.sums]

    def steps(self) -> Iterator[Step]:
        """Every step, at the weights that those taken before have left."""
        count = len(self.schedule.batches(len(self.place)))
        for _ in range(self.schedule.epochs):
            for batch in range(count):
                proceed()
                yield Step(problem=self.problem, chosen=torch.nonzero(self.place == batch)[:, 0])

    def take(self, step: Step, trace: Trace, deltas: tuple[Tensor, ...]) -> None:
        """Go on from a step with these passes of its m samples, ``deltas`` (m, n_i) from layer 1 up."""
        layers = []
        for k, (layer, h, delta) in enumerate(zip(self.problem.layers, trace.hidden, deltas, strict=True)):
            taken = torch.cat([delta.T @ h, delta.sum(dim=0)[:, None]], dim=1)
            self.sums[k] += taken
            self.deltas[k][step.chosen] += delta
            self.inputs[k][step.chosen] = h
            layers.append(
                replace(
                    layer,
                    weight=layer.weight - self.lr * taken[:, :-1],
                    bias=layer.bias - self.lr * taken[:, -1],
                )
            )
        self.problem = replace(self.problem, layers=tuple(layers))

    def trajectory(self) -> Trajectory:
        """What the steps taken so far add up to."""
        return Trajectory(sums=tuple(self.sums), deltas=tuple(self.deltas), inputs=tuple(self.inputs))


def run_of(
    problem: Problem,
    schedule: Schedule,
    x: Float[Tensor, "M d"],
    y: Tensor,
    place: Int[Tensor, " M"],
    lr: float,
) -> Trajectory:
    """The run over samples ``x`` with labels ``y``, sample m in mini-batch ``place``[m]."""
    run = Run(problem, schedule, place, lr)
    for step in run.steps():
        run.take(step, *step.passed(x[step.chosen], y[step.chosen]))
    return run.trajectory()


def moved_problem(
    problem: Problem, schedule: Schedule, trajectory: Trajectory, place: Int[Tensor, " M"], lr: float
) -> MovedProblem:
    """One local epoch as one batch, whose samples meet the weights that ``trajectory`` goes through."""
    earlier = (place[None, :] < place[:, None]).double()
    layers = tuple(
        MovedLayer(
            weight=layer.weight,
            bias=layer.bias,
            d_weight=layer.d_weight,
            d_bias=layer.d_bias,
            taken=lr * deltas,
            inputs=inputs,
            earlier=earlier,
        )
        for layer, deltas, inputs in zip(problem.layers, trajectory.deltas, trajectory.inputs, strict=True)
    )
    divisors = [problem.divisor(size) for size in schedule.batches(len(place))]
    return MovedProblem(
        layers=layers,
        question=replace(problem.question, batch_size=len(place)),
        unit_roundoff=problem.unit_roundoff,
        seed=problem.seed,
        smoothing=problem.smoothing,
        divisors=torch.tensor(divisors, dtype=torch.float64, device=problem.device)[place],
    )
