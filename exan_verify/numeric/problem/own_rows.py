"""The rows of [dW_1 | db_1] that known samples explain alone, and what these say of the samples.

Where every sample active at a neuron is known, its row of the gradient is theirs to rounding: it is *closed*.
With labels given, a sample's delta follows from its input by a forward and a backward pass, so that the
closed rows C are equations for the inputs, Delta_C(X)^T [X 1] = A_C, solved by Newton steps with rows scaled
to their rounding. Read off one after the other, inputs carry the errors of all those
taken out before them; solved together they carry the rounding of the closed rows only.

To first order dX = L (E - dDelta^T [X 1]), up to the scale of each row, for what is left E of the rows, with
L = (Delta_C^T)^+ and dDelta = V S U the change of the deltas with the logits, U = J dX (J the Jacobian of the
logits, S that of the loss vectors, V the map to deltas). That is a linear system for U, K numbers a sample,
solved by GMRES. With drawn roundings for E it gives the errors: bounds by absolute values diverge along the
cascade, where the errors do not.

More closed rows at a sample than the one that it was read off are d + 1 equations each that it meets without
having been fitted to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from exan_verify.core.question import Labels, Loss
from exan_verify.numeric.problem.passes import Trace, backward, forward, rounding
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.sensitivity import loss_slope
from exan_verify.numeric.waiting import proceed

_TOLERANCE = 16.0
"""Between the estimate of a row's rounding and the largest rest that counts as rounding."""

_SAFETY = 16.0
"""On errors from drawn roundings: for their correlations, and for second-order terms."""

_SHOWN = 1e3
"""Times its rounding that a sample's share of a row must be to be seen there."""

_ROUNDS = 8

_SOLVED = 1e-6
"""How near the left inverse of the closed rows has to come to one for a sample that they determine."""

_DRAWS = 4
"""Of roundings: an error is the norm of hundreds of entries, and its few correlated parts vary by a factor
of two."""

_RESTART, _CYCLES = 400, 2
"""Of GMRES: cascades are far from normal, so that restarts would not converge; digits take ten rounds."""

_ACCURACY = 1e-2
"""Relative residual of GMRES: of a step, and of errors that are estimated within a factor."""


_TRIES = 1024
"""Most labels that are tried for a row."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnRows:
    """Samples ``x`` (p, d) solved for together, with their pass and first-layer ``deltas`` (p, n_1).

    ``error`` (p,): estimate for their inputs, L2, infinite where the closed rows do not determine them;
    ``closed`` (n_1,); ``left`` (n_1,) what the samples leave of the rows, L2; ``rounding`` (n_1,) what the
    roundings of the rows and deltas explain of it, and ``carried`` (n_1,) what the errors of the inputs do.
    """

    x: Tensor
    trace: Trace
    deltas: Tensor
    error: Tensor
    closed: Tensor
    left: Tensor
    rounding: Tensor
    carried: Tensor

    def shown(self) -> Bool[Tensor, "p n1"]:
        """Where a sample's share is seen in a closed row."""
        share = self.deltas.abs() * (1 + self.x.norm(dim=1))[:, None]
        seen: Tensor = (share > _SHOWN * torch.hypot(self.rounding, self.carried)) & self.closed
        return seen


def admitted_labels(problem: Problem) -> Tensor | None:
    """Every label there is: classes (K,) or targets (t, K); None where they are too many, or any numbers."""
    size = problem.classes
    if problem.question.labels is Labels.REAL:
        return None
    if problem.classified:
        return torch.arange(size, device=problem.device)
    if problem.question.loss is Loss.MSE and size > 1:
        return torch.eye(size, dtype=torch.float64, device=problem.device)
    if 2**size > _TRIES:
        return None
    rows = list(product((0.0, 1.0), repeat=size))
    return torch.tensor(rows, dtype=torch.float64, device=problem.device)


def solve_own_rows(
    problem: Problem,
    x: Float[Tensor, "p d"],
    y: Tensor,
    error: Float[Tensor, " p"],
    divisor: float,
    gains: list[tuple[float, float]],
) -> OwnRows:
    """The samples near ``x`` with labels ``y`` (p, ...) that the rows closed by them determine.

    ``error``: of x, L2, as far as known; ``divisor`` of the summed loss.
    """
    own, known = _passed(problem, x, y, error, divisor, gains), error
    layer, identity = problem.layers[0], torch.eye(len(x)).to(x)
    for _ in range(_ROUNDS):
        proceed()
        inverse = _left_inverse(own)
        if inverse is None:
            break
        closed = own.closed
        given = torch.cat([layer.d_weight[closed].double(), layer.d_bias[closed, None]], dim=1)
        solved = inverse @ given
        missed = (inverse @ own.deltas[:, closed].T - identity).abs().amax(dim=1)
        good = (missed < _SOLVED) & ((solved[:, -1] - 1).abs() < _SOLVED)
        reach = torch.where(good, _errors(problem, own, inverse, divisor), torch.inf)
        finite = torch.isfinite(reach)
        start = solved[:, :-1] / solved[:, -1:] - own.x
        change = _with_deltas(problem, own, inverse, divisor, torch.where(good[:, None], start, 0.0))
        if change is None:
            break
        moved = torch.where(finite[:, None], own.x + change, own.x)
        # passes and inputs converge in turn: what the last step moved is not settled yet
        step = (moved - own.x).norm(dim=1)
        reach = torch.hypot(reach, step)
        following = torch.where(finite, reach, known)
        renewed = _passed(problem, moved, y, following, divisor, gains)
        settled = bool((renewed.closed == own.closed).all() and (step <= following / 2).all())
        own, known = renewed, following
        if settled:
            return replace(own, error=torch.where(finite, reach, torch.inf))
    return replace(own, error=torch.full_like(error, torch.inf))


def _passed(
    problem: Problem, x: Tensor, y: Tensor, error: Tensor, divisor: float, gains: list[tuple[float, float]]
) -> OwnRows:
    """The samples as they are: their deltas, and which rows they close."""
    layer, unit = problem.layers[0], problem.unit_roundoff
    trace = forward(problem, x)
    passed = backward(problem, trace, problem.loss_vectors(trace.logits, y) / divisor)
    deltas, sizes = passed[0], 1 + x.norm(dim=1)
    given = layer.d_weight.double()
    rounded = unit * (given.norm(dim=1) + layer.d_bias.abs() + deltas.abs().T @ sizes)
    none = torch.zeros_like(error)
    relative = rounding(
        problem, trace, passed, gains=gains, input_error=none, unit=unit, divisor=divisor
    ).deltas[0] / deltas.norm(dim=1).clamp(min=1e-300)
    rounded = torch.hypot(rounded, (deltas.abs() * (relative * sizes)[:, None]).norm(dim=0))
    # an input that is off moves its delta by about as much as its share
    carried = 2 * (deltas.abs() * error[:, None]).norm(dim=0)
    left = torch.cat([given - deltas.T @ x, (layer.d_bias - deltas.sum(dim=0))[:, None]], dim=1).norm(dim=1)
    return OwnRows(
        x=x,
        trace=trace,
        deltas=deltas,
        error=error,
        closed=(left <= _TOLERANCE * torch.hypot(rounded, carried)) & (deltas != 0).any(dim=0),
        left=left,
        rounding=rounded,
        carried=carried,
    )


def _errors(
    problem: Problem, own: OwnRows, inverse: Float[Tensor, "p c"], divisor: float
) -> Float[Tensor, " p"]:
    """How far the roundings of the closed rows move the inputs; infinite where the errors do not settle."""
    width = own.x.shape[1] + 1
    rounded = own.rounding[own.closed, None] / width**0.5
    generator = problem.generator()
    squared = torch.zeros_like(own.error)
    for _ in range(_DRAWS):
        drawn = torch.randn(len(rounded), width, dtype=rounded.dtype, generator=generator).to(rounded.device)
        pushed = inverse @ (rounded * drawn)
        moved = _with_deltas(problem, own, inverse, divisor, pushed[:, :-1] - pushed[:, -1:] * own.x)
        if moved is None:
            return torch.full_like(own.error, torch.inf)
        squared += moved.square().sum(dim=1) / _DRAWS
    return _SAFETY * squared.sqrt()


def _with_deltas(
    problem: Problem, own: OwnRows, inverse: Float[Tensor, "p c"], divisor: float, start: Float[Tensor, "p d"]
) -> Float[Tensor, "p d"] | None:
    """The change of the inputs that is ``start`` while deltas stay, with what it makes of the deltas; None
    where the system is not solved."""
    h = torch.cat([own.x, torch.ones_like(own.x[:, :1])], dim=1)

    def response(logits: Tensor) -> Tensor:
        """By how much inputs (m, d) move where logits move to these (m, K)."""
        deltas = _deltas_of(problem, own.trace, logits, divisor)
        shift = inverse @ (deltas[:, own.closed].T @ h)
        moved: Tensor = shift[:, :-1] - shift[:, -1:] * own.x
        return moved

    def applied(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        """The operator on logits, flat (m K,) as the solver has them."""
        proceed()
        logits = torch.from_numpy(flat).to(start).view(len(start), -1)
        total = logits + _logits_of(problem, own.trace, response(logits))
        made: NDArray[np.float64] = total.flatten().cpu().numpy()
        return made

    right = _logits_of(problem, own.trace, start).flatten().cpu().numpy()
    size, norm = len(right), max(float(np.linalg.norm(right)), np.finfo(np.float64).tiny)
    operator = LinearOperator((size, size), matvec=applied, dtype=np.float64)
    found, failed = gmres(
        operator, right / norm, rtol=_ACCURACY, restart=min(size, _RESTART), maxiter=_CYCLES
    )
    if failed:
        return None
    return start - response(torch.from_numpy(norm * found).to(start).view(len(start), -1))


def delta_change(
    problem: Problem, trace: Trace, moved: Float[Tensor, "p d"], divisor: float
) -> Float[Tensor, "p n1"]:
    """How the first-layer deltas change where the inputs are ``moved``, to first order."""
    return _deltas_of(problem, trace, _logits_of(problem, trace, moved), divisor)


def _logits_of(problem: Problem, trace: Trace, moved: Float[Tensor, "p d"]) -> Float[Tensor, "p K"]:
    for layer, slopes in zip(problem.layers[:-1], trace.slopes, strict=True):
        moved = (layer.forward(moved) - layer.bias) * slopes
    return problem.layers[-1].forward(moved) - problem.layers[-1].bias


def _deltas_of(
    problem: Problem, trace: Trace, logits: Float[Tensor, "p K"], divisor: float
) -> Float[Tensor, "p n1"]:
    turned = loss_slope(problem.question.loss, trace.logits, logits[:, None, :])[:, 0]
    return backward(problem, trace, turned / divisor)[0]


def _left_inverse(own: OwnRows) -> Float[Tensor, "p c"] | None:
    """L of the closed rows, rows scaled to their rounding; None where there are too few of them."""
    matrix = own.deltas[:, own.closed].T
    if matrix.shape[0] < matrix.shape[1]:
        return None
    weights = 1 / own.rounding[own.closed].clamp(min=1e-300)
    scaled = weights[:, None] * matrix
    norms = scaled.norm(dim=0).clamp(min=1e-300)
    q, r = torch.linalg.qr(scaled / norms)
    if not float(r.diagonal().abs().min()) > 0:
        return None
    inverse: Tensor = torch.linalg.solve_triangular(r, q.T, upper=True) * weights / norms[:, None]
    return inverse
