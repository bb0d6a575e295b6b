"""Basis pursuit (Chen, Donoho and Saunders 1998): the solution of linear equations whose entries have the
least sum of absolute values, by the predictor-corrector interior-point method of Mehrotra (1992).

Where few entries are not zero, it is the solution with the fewest of them; that it is can be seen from the
equations that are left over, and from what every other entry would do to these.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.waiting import proceed

_ROUNDS = 30

_OPTIMAL = 1e-10
"""Relative gap between the sums of the problem and its dual, and misfit of the equations, that end it."""

_RIDGES = (1e-14, 1e-12, 1e-10)
"""Of the mean of a Gram matrix's diagonal: where fewer entries than equations are not zero, it is singular
near the solution, and the least that can be factored is added."""

_SHORT = 0.995
"""Share of the way to the nearest bound that a step goes."""

_ZERO = 1e-6
"""Share of the largest entry below which an entry is zero: those of a solution found are 1e-9 where zero."""

_SPARE = 1.05
"""Equations per entry that is not zero, from which on their agreement says something."""

_FITS = 1e-6
"""Relative misfit of a solution of the least sum that is not refined on its entries."""


def least_sum(
    matrix: Float[Tensor, "e u"], target: Float[Tensor, " e"], *, signed: bool
) -> Float[Tensor, " u"]:
    """The z with ``matrix z = target`` of the least sum of |z|; not ``signed``: among those with z >= 0.

    The last iterate where the method ends early, whose misfit then tells.
    """
    scale = float(target.abs().max()) or 1.0
    right = target / scale
    count = matrix.shape[1]

    def times(z: Tensor) -> Tensor:
        return matrix @ (z[:count] - z[count:] if signed else z)

    def transposed(y: Tensor) -> Tensor:
        below = matrix.T @ y
        return torch.cat([below, -below]) if signed else below

    def factor(d: Tensor) -> Tensor | None:
        return _cholesky((matrix * (d[:count] + d[count:] if signed else d)) @ matrix.T)

    cost = torch.ones(2 * count if signed else count, dtype=matrix.dtype, device=matrix.device)
    lower = factor(cost)
    if lower is None:
        return torch.zeros_like(matrix[0])
    z = transposed(torch.cholesky_solve(right[:, None], lower)[:, 0])
    z = z + 1.5 * (-z.min()).clamp(min=0) + 0.1 * z.abs().mean()
    y, slack = torch.zeros_like(right), cost.clone()
    for _ in range(_ROUNDS):
        proceed()
        primal, dual, mu = right - times(z), cost - transposed(y) - slack, float((z * slack).mean())
        if mu * len(z) < _OPTIMAL * float(z.sum()) and float(primal.norm()) < _OPTIMAL * float(right.norm()):
            break
        lower = factor(z / slack)
        if lower is None:
            break

        def step(centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            # [matrix dz = primal, matrix^T dy + ds = dual, slack dz + z ds = centred]
            onto = primal + times((z * dual - centred) / slack)  # noqa: B023
            dy = torch.cholesky_solve(onto[:, None], lower)[:, 0]  # noqa: B023
            ds = dual - transposed(dy)  # noqa: B023
            return (centred - z * ds) / slack, dy, ds  # noqa: B023

        dz, dy, ds = step(-z * slack)
        ahead = float(((z + _room(z, dz) * dz) * (slack + _room(slack, ds) * ds)).mean())
        dz, dy, ds = step((ahead / mu) ** 3 * mu - z * slack - dz * ds)
        far, further = _SHORT * _room(z, dz), _SHORT * _room(slack, ds)
        z, y, slack = z + far * dz, y + further * dy, slack + further * ds
    solved: Tensor = scale * (z[:count] - z[count:] if signed else z)
    return solved


def _cholesky(gram: Float[Tensor, "e e"]) -> Float[Tensor, "e e"] | None:
    """Its lower factor, with the least ridge with which there is one; None where none is enough."""
    mean = gram.diagonal().mean()
    for ridge in _RIDGES:
        gram.diagonal().add_(ridge * mean)
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(gram)
        if not bool(failed):
            return lower
    return None


def _room(z: Tensor, dz: Tensor) -> float:
    """How far z + t dz stays positive, for t up to one, or a little more where a step is cut short."""
    least = float((dz / z).min())
    return min(1.0 / _SHORT, -1.0 / least) if least < 0 else 1.0 / _SHORT


def few_entries(
    matrix: Float[Tensor, "e u"], target: Float[Tensor, " e"], *, signed: bool, tolerance: float
) -> tuple[Float[Tensor, " u"], Float[Tensor, " u"], bool]:
    """The solution of the least sum, by how much its entries may be wrong, and whether it fits.

    Equations in units of their own, of which ``tolerance`` is what counts as zero. With fewer entries than
    equations, others could have been in the truth only where their columns are combinations of those chosen,
    but for coincidences of measure zero: what is left of the misfit then bounds every entry by what it does
    to the equations left over. Errors are infinite where the equations have no solution with few entries.
    """
    floor = tolerance * len(matrix) ** 0.5
    small = float(target.norm()) <= floor
    solved = torch.zeros_like(matrix[0]) if small else least_sum(matrix, target, signed=signed)
    fits = float((matrix @ solved - target).norm()) <= max(floor, _FITS * float(target.norm()))
    unknown = torch.full_like(solved, torch.inf)
    chosen = solved.abs() > _ZERO * float(solved.abs().max())
    if not fits or int(chosen.sum()) * _SPARE >= len(matrix):
        return solved, unknown, fits
    q, r = torch.linalg.qr(matrix[:, chosen])
    sizes = r.diagonal().abs()
    if len(sizes) and not float(sizes.min()) > tolerance * float(sizes.max()):
        return solved, unknown, fits
    exact, errors = torch.zeros_like(solved), torch.zeros_like(solved)
    exact[chosen] = torch.linalg.solve_triangular(r, (q.T @ target)[:, None], upper=True)[:, 0]
    misfit = float((matrix @ exact - target).norm())
    if misfit > floor:
        return solved, unknown, fits
    inverse = torch.linalg.solve_triangular(r, torch.eye(len(r), dtype=r.dtype, device=r.device), upper=True)
    misfit += torch.finfo(matrix.dtype).eps * len(matrix) ** 0.5
    errors[chosen] = misfit * inverse.norm(dim=1)
    outside = (matrix - q @ (q.T @ matrix)).norm(dim=0)
    errors[~chosen] = misfit / outside[~chosen]
    return exact, errors, fits
