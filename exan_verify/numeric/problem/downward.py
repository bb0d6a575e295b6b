"""From the deltas of a hidden layer to what they multiply, and down to the inputs (docs/theory.md 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.problem.activations import Piecewise
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.spectrum import ColumnSpace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """What a layer's deltas multiply: ``values`` (m, n_in) with unit bias entry, ``scales`` (m,) the factors
    that the bias column gave the delta directions, ``inverse`` (m, n) rows of the left inverse used."""

    values: Tensor
    scales: Tensor
    inverse: Tensor


def solve_inputs(space: ColumnSpace, deltas: Float[Tensor, "n m"]) -> Inputs:
    """Solve ``A = deltas H`` within the column space of A; ``deltas`` must be as many as its rank."""
    inverse = torch.linalg.pinv(space.basis.T @ deltas)
    rows = inverse @ space.rows
    scales = rows[:, -1]
    safe = torch.where(scales.abs() > torch.finfo(torch.float64).tiny, scales, torch.ones_like(scales))
    return Inputs(values=rows[:, :-1] / safe[:, None], scales=scales, inverse=inverse @ space.basis.T)


def descend(
    problem: Problem, spaces: tuple[ColumnSpace, ...], index: int, directions: Float[Tensor, "n M"]
) -> tuple[Float[Tensor, "m d"] | None, str]:
    """Inputs x of the samples with delta ``directions`` at hidden layer ``index``; a reason if none.

    Each layer's inputs (ReLU: h > 0 beyond noise) give the pattern below, hence the deltas below; these must
    be independent.
    A sample that is dead below (all deltas zero) leaves no trace there and is dropped.
    """
    inputs = solve_inputs(spaces[index], directions)
    for k in range(index - 1, -1, -1):
        slopes = _slopes(problem.layers[k].activation, spaces[k + 1], inputs)
        if slopes is None:
            return None, (
                f"the activation after layer {k + 1} has a negative slope, so that its values do not tell "
                "which of its neurons are active, and the inputs stay open"
            )
        deltas = problem.layers[k + 1].backward((directions * inputs.scales).T) * slopes
        norms = deltas.norm(dim=1)
        alive = norms > 1e-13 * norms.max()
        if spaces[k].rank == 0 or int(alive.sum()) != spaces[k].rank:
            return None, (
                f"layer {k + 1} has {int(alive.sum())} samples with non-zero delta but a gradient of rank "
                f"{spaces[k].rank}: a deficit leaves the inputs open there"
            )
        directions = (deltas[alive] / norms[alive, None]).T
        if float(torch.linalg.svdvals(directions)[-1]) < 1e-8:
            return None, f"the deltas of layer {k + 1} are dependent to 1e-8, which leaves the inputs open"
        inputs = solve_inputs(spaces[k], directions)
    return inputs.values, ""


def _slopes(activation: Piecewise, space: ColumnSpace, inputs: Inputs) -> Tensor | None:
    """The derivatives that the values h show: those at an end come back as noise, of a size that the solve
    tells; None where values do not show them."""
    error = inputs.inverse.norm(dim=1) * space.noise / inputs.scales.abs()
    largest = inputs.values.abs().amax(dim=1)
    slack = (100 * error * (1 + largest)).clamp(max=0.1 * largest)
    active = activation.active_by_value(inputs.values, slack[:, None])
    return None if active is None else activation.passed(active)
