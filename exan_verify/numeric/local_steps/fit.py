"""Inputs that reproduce the first layer's sum over a whole run of local steps.

With D(X) the summed deltas that a run over samples X has, the sum is D(X)^T [X 1]. X is a fixed point of
X -> least squares for X at D(X), which contracts, since deltas move with the inputs through the logits only;
Anderson's acceleration (1965) makes ten rounds of it suffice. A neuron whose pattern is still wrong at some
step has a row that no input explains; rows count by Cauchy weights of their misfit, so that it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.waiting import proceed

_ROUNDS = 60

_MEMORY = 6
"""Earlier rounds that Anderson's step combines."""

_SETTLED = 1e-15
"""Largest change of an input, relative to the largest entry, that ends the rounds: rounding. The rounds
contract by 0.9 or less where samples are in several steps each, so that the error is many times the last
change: ended at 1e-13, two epochs of three mini-batches missed the update by 30 to 400 times its rounding."""

_IDLE = 12
"""Rounds without progress after which they end as well."""

_ROUNDED = 1e-15
"""Relative misfit of a row that counts in full whatever the others have: half of the rows may be zero."""

_FAR = 1e6
"""Inputs beyond which the rounds have gone astray."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Inputs ``x`` (M, d), and by how much the last round moved each, ``moved`` (M,), L-infinity."""

    x: Tensor
    moved: Tensor


def fit_inputs(
    given: Float[Tensor, "n d1"],
    deltas_of: Callable[[Float[Tensor, "M d"]], Float[Tensor, "M n"]],
    x: Float[Tensor, "M d"],
) -> Fit:
    """From ``x``: the samples whose run has the sum ``given`` = [dW_1 | db_1] at layer 1."""
    best = Fit(x=x, moved=torch.full_like(x[:, 0], torch.inf))
    steps: list[Tensor] = []
    values: list[Tensor] = []
    idle = 0
    for _ in range(_ROUNDS):
        proceed()
        solved = _solved(given, deltas_of(x), x)
        if solved is None or not bool((solved.abs() < _FAR).all()):
            break
        moved = (solved - x).abs().amax(dim=1)
        idle = 0 if float(moved.max()) < 0.9 * float(best.moved.max()) else idle + 1
        if float(moved.max()) < float(best.moved.max()):
            best = Fit(x=solved, moved=moved)
        if float(moved.max()) <= _SETTLED * max(1.0, float(solved.abs().max())) or idle > _IDLE:
            break
        steps, values = [*steps[-_MEMORY:], (solved - x).flatten()], [*values[-_MEMORY:], solved.flatten()]
        x = _accelerated(steps, values).view_as(x)
    return best


def _solved(
    given: Float[Tensor, "n d1"], deltas: Float[Tensor, "M n"], x: Float[Tensor, "M d"]
) -> Float[Tensor, "M d"] | None:
    """Least squares for [X s] at these deltas, rows weighted by their misfit at ``x``, divided by s."""
    y = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    live = given.norm(dim=1)
    live = live + 0.1 * live[live > 0].median()
    misfit = (given - deltas.T @ y).norm(dim=1) / live
    middle = misfit.median().clamp(min=_ROUNDED)
    weight = 1 / (1 + (misfit / (3 * middle)).square()).sqrt()
    columns = weight[:, None] * deltas.T
    norms = columns.norm(dim=0)
    if not float(norms.min()) > 0:
        return None
    q, r = torch.linalg.qr(columns / norms)
    if not float(r.diagonal().abs().min()) > 1e-12:
        return None
    rows = torch.linalg.solve_triangular(r, q.T @ (weight[:, None] * given), upper=True) / norms[:, None]
    found: Tensor = rows[:, :-1] / rows[:, -1:]
    return found


def _accelerated(steps: list[Tensor], values: list[Tensor]) -> Tensor:
    """The combination of the last values whose steps cancel best."""
    if len(steps) == 1:
        return values[-1]
    differences = torch.stack([steps[-1] - one for one in steps[:-1]], dim=1)
    moved = torch.stack([values[-1] - one for one in values[:-1]], dim=1)
    sizes = differences.norm(dim=0).clamp(min=1e-300)
    gamma = torch.linalg.pinv(differences / sizes, rtol=1e-8) @ steps[-1]
    combined: Tensor = values[-1] - (moved / sizes) @ gamma
    return combined
