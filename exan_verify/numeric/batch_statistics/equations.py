"""The equations of a BatchNorm in training mode before a ReLU, two hyperplanes per neuron, lifted.

z = W x + b, zhat = (z - mean) / sigma over the batch, h = relu(gamma zhat + beta). With delta the gradient at
gamma zhat + beta and d at z, of sample m at neuron j,

    d = k (delta - dbeta / M - zhat dgamma / M),   k = gamma / sigma,   dW = sum_m d_m (x_m - xbar)^T,

of rank M - 1. With B and R its column and row space, d = B q and x - xbar = R^T y, so that delta is linear in
(1, q, y): L = [dbeta / M | B / k | (W R^T / sigma) dgamma / M]. As delta is 0 or w . u, the product
(L v)(L v - w . u) is 0: linear in (v v^T, v u^T), v = (1, q, y), with one solution per sample.
docs/theory.md, Appendix N.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.problem.spectrum import MINIMAL_GAP, ColumnSpace
from exan_verify.numeric.waiting import proceed

_TRIES = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormEquations:
    """``columns`` L (n, 2 M - 1), ``normalised`` (n, M - 1) = W R^T / sigma, ``rows`` R (M - 1, d) and
    ``forward`` (n, K'): the next deltas' images W_2^T C."""

    columns: Tensor
    normalised: Tensor
    rows: Tensor
    forward: Tensor

    @property
    def samples(self) -> int:
        """M."""
        return int(self.rows.shape[0]) + 1

    def of(self, neurons: Bool[Tensor, " n"]) -> NormEquations:
        """Those of some neurons."""
        return NormEquations(
            columns=self.columns[neurons],
            normalised=self.normalised[neurons],
            rows=self.rows,
            forward=self.forward[neurons],
        )

    @property
    def unknowns(self) -> int:
        """Of the lifted equations."""
        size = int(self.columns.shape[1])
        return size * (size + 1) // 2 + size * int(self.forward.shape[1])


def norm_equations(
    space: ColumnSpace,
    weight: Float[Tensor, "n d"],
    sigma: Float[Tensor, " n"],
    gamma: Float[Tensor, " n"],
    d_gamma: Float[Tensor, " n"],
    d_beta: Float[Tensor, " n"],
    forward: Float[Tensor, "n K"],
) -> NormEquations:
    """The equations, from the column space of dW and the standard deviations ``sigma`` of the batch."""
    samples = space.rank + 1
    rows = torch.linalg.qr(space.rows[:, :-1].T)[0].T
    normalised = (rows @ weight.double().T).T / sigma[:, None]
    columns = torch.cat(
        [
            (d_beta / samples)[:, None],
            space.basis * (sigma / gamma)[:, None],
            normalised * (d_gamma / samples)[:, None],
        ],
        dim=1,
    )
    return NormEquations(columns=columns, normalised=normalised, rows=rows, forward=forward)


def lifted_samples(equations: NormEquations, generator: torch.Generator) -> list[Float[Tensor, "M p"]]:
    """Sets of rows y, x - xbar in the basis of the rows, one per random pencil; empty where the lifted
    equations have another null space than one of dimension M."""
    proceed()
    samples, forward = equations.samples, equations.forward
    sizes = equations.columns.norm(dim=0)
    q, r = torch.linalg.qr(equations.columns / sizes)
    width = q.shape[1]
    first, second = torch.triu_indices(width, width).to(q.device)
    twice = torch.where(first == second, 1.0, 2.0)
    matrix = torch.cat(
        [q[:, first] * q[:, second] * twice, -(q[:, :, None] * forward[:, None, :]).flatten(1)], dim=1
    )
    matrix = matrix / matrix.norm(dim=1, keepdim=True).clamp(min=1e-300)
    scale = matrix.norm(dim=0).clamp(min=1e-300)
    missing = max(0, matrix.shape[1] - matrix.shape[0])
    full = torch.nn.functional.pad(matrix / scale, (0, 0, 0, missing))
    _, values, vt = torch.linalg.svd(full, full_matrices=False)
    values, vt = values.flip(0).clamp(min=1e-16 * float(values[0])), vt.flip(0)
    if float(values[samples] / values[samples - 1]) < MINIMAL_GAP:
        return []
    solutions = vt[:samples] / scale
    squares = solutions.new_zeros(samples, width, width)
    squares[:, first, second] = squares[:, second, first] = solutions[:, : len(first)]
    # all v v^T live on the span of the M samples' v
    span = torch.linalg.svd(squares.transpose(0, 1).flatten(1), full_matrices=False)[0][:, :samples]
    small = span.T @ squares @ span
    found = []
    for _ in range(_TRIES):
        weights = torch.randn(2, samples, dtype=torch.float64, generator=generator).to(q.device)
        one, other = torch.einsum("tm,mij->tij", weights, small)
        solved, failed = torch.linalg.solve_ex(other.T, one.T)
        if int(failed) or not bool(torch.isfinite(solved).all()):
            continue
        vectors = span @ torch.linalg.eig(solved.T)[1].real
        v = torch.linalg.solve_triangular(r, vectors, upper=True) / sizes[:, None]
        v = v / v[0]
        if bool(torch.isfinite(v).all()):
            found.append(v[samples:].T)
    return found


def solved_samples(
    equations: NormEquations, active: Bool[Tensor, "M n"]
) -> tuple[Float[Tensor, "M p"], Float[Tensor, "M K"], Float[Tensor, " M"]]:
    """At these patterns the equations are linear: y (M, M - 1), p (M, K') of the next deltas, and the
    relative misfit of each sample."""
    left = equations.columns[:, 0]
    free = equations.columns.shape[1] - 1
    found, misfits = [], []
    for pattern in active:
        matrix = torch.cat([equations.columns[:, 1:], -equations.forward * pattern[:, None]], dim=1)
        sizes = matrix.norm(dim=0).clamp(min=1e-300)
        solution = torch.linalg.pinv(matrix / sizes, rtol=1e-13) @ -left / sizes
        misfits.append((matrix @ solution + left).norm() / left.norm().clamp(min=1e-300))
        found.append(solution)
    values = torch.stack(found)
    return values[:, equations.samples - 1 : free], values[:, free:], torch.stack(misfits)
