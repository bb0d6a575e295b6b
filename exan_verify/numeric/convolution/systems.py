"""Linear systems of one stage: what it takes, from what it gives and from its weight gradient.

Derivation (docs/theory.md section 5). A linear stage gives z = A x + b. Sample m knows rows S_m of z, so

    A[S_m] x_m = (z_m - b)[S_m],    hence    x_m = x0_m + N_m t_m

with N_m an orthonormal basis of the null space of A[S_m]. Where the deltas of the whole stage are known, its
weight gradient is a second, shared set of equations: with D_m x = what x adds to dW at sample m's deltas,

    sum_m D_m N_m t_m = dW - sum_m D_m x0_m.

The rank deficit of the stage is that of the second system in (t_1, ..., t_M); it is zero when every N_m is
empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.numeric.convolution.known import Known
from exan_verify.numeric.convolution.stages import AveragePool, Convolution, Stage

LARGEST_STAGE = 4096
"""Entries per sample up to which a stage is factorised: tens of seconds on one core at this size."""

_LARGEST_JOINT = 3000
"""Unknowns of the shared equations up to which they are factorised."""

_SPARE = 4
"""Shared equations used per unknown; the rest of dW repeats them."""

_RANK = 1e-10
"""Pivots below this share of the largest count as zero: structural zeros come out near 1e-15."""

_SAFETY = 2.0
"""Covers what the first-order bound leaves out, and norms from power iterations, which come from below."""

_POWER_STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """A stage's inputs (M, *shape) with L2 errors (M,), or None, and the counts of its report."""

    value: Tensor | None
    error: Tensor | None
    equations: int
    shared: int
    alone: int | None
    deficit: int | None
    at_least: bool
    note: str


def solve_stage(
    stage: Stage, given: Known, shape: tuple[int, ...], d_weight: Tensor | None, unit_roundoff: float
) -> Solved:
    """Solve a linear stage for what it takes, of ``shape`` per sample.

    ``d_weight``: its weight gradient, used only where all deltas of all samples are known.
    """
    size, entries = given.value.shape[0], math.prod(shape)
    counts = given.known.flatten(1).sum(dim=1)
    usable = d_weight is not None and bool(given.delta_known.all())
    shared = d_weight.numel() if usable and d_weight is not None else 0
    short = int((entries - counts).clamp(min=0).sum())
    if isinstance(stage, AveragePool) and _disjoint(stage):
        return Solved(
            value=None,
            error=None,
            equations=int(counts.sum()),
            shared=0,
            alone=size * entries - int(counts.sum()),
            deficit=size * entries - int(counts.sum()),
            at_least=False,
            note=f"only the mean of every {stage.kernel[0]} x {stage.kernel[1]} window is known",
        )
    if entries > LARGEST_STAGE:
        least = max(0, short - shared)
        return Solved(
            value=None,
            error=None,
            equations=int(counts.sum()),
            shared=shared,
            alone=short or None,
            deficit=least or None,
            at_least=True,
            note=f"{entries} entries per sample are too many to factorise (at most {LARGEST_STAGE})",
        )
    matrix = stage_matrix(stage, shape, given.value)
    parts = [_sample(matrix, stage, given, m) for m in range(size)]
    alone = sum(part.null.shape[1] for part in parts)
    value = torch.stack([part.x0 for part in parts]).reshape(size, *shape)
    error = torch.stack([part.error for part in parts])
    deficit, least, note = alone, False, ""
    if alone and usable:
        assert isinstance(stage, Convolution)
        assert d_weight is not None
        deficit, least, note, value, error = _shared(
            stage, parts, given, value, error, d_weight, unit_roundoff
        )
    return Solved(
        value=value if deficit == 0 else None,
        error=error if deficit == 0 else None,
        equations=int(counts.sum()),
        shared=shared,
        alone=alone,
        deficit=deficit,
        at_least=least,
        note=note,
    )


def _disjoint(stage: AveragePool) -> bool:
    """Whether windows do not overlap, so that the rank is their number; windows of one entry hide nothing."""
    inside = all(k <= s for k, s in zip(stage.kernel, stage.stride, strict=True))
    return inside and math.prod(stage.kernel) > 1


def stage_matrix(stage: Stage, shape: tuple[int, ...], like: Tensor) -> Float[Tensor, "out in"]:
    """The matrix of a linear stage without its bias, in the order of flattened values."""
    entries = math.prod(shape)
    rows = []
    for start in range(0, entries, 256):
        step = min(256, entries - start)
        basis = torch.zeros(step, entries, dtype=torch.float64, device=like.device)
        basis[torch.arange(step), torch.arange(start, start + step)] = 1.0
        rows.append(stage.homogeneous(basis.reshape(step, *shape)).flatten(1))
    return torch.cat(rows).T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """One sample: a solution (n,) of its own equations, its error, and an orthonormal null basis (n, k)."""

    x0: Tensor
    error: Tensor
    null: Tensor


def _sample(matrix: Tensor, stage: Stage, given: Known, m: int) -> _Part:
    rows = given.known[m].flatten()
    a = matrix[rows]
    z = (given.value[m] - stage.offset(given.value[m])).flatten()[rows]
    # backward stability: as if z were off by some roundoffs of its norm and of A x's
    noise = given.error[m] + 32 * 2.0**-53 * (z.norm() + math.sqrt(a.shape[1]))
    solution = _overdetermined(a, z) if a.shape[0] >= a.shape[1] else None
    x0, reach, null = solution if solution is not None else _deficient(a, z)
    return _Part(x0=x0, error=_SAFETY * reach * noise, null=null)


def _spectral_norm(matrix: Tensor) -> Tensor:
    """The largest singular value, by power iteration."""
    vector = torch.ones(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    value = matrix.new_zeros(())
    for _ in range(_POWER_STEPS):
        image = matrix @ (vector / vector.norm())
        value = image.norm()
        vector = matrix.T @ image
    return value


def _overdetermined(a: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Least squares by QR and the norm of the pseudo-inverse; None where the rank may be short."""
    q, r = torch.linalg.qr(a)
    pivots = r.diagonal().abs()
    if not float(pivots.min()) > _RANK * float(pivots.max()):
        return None
    inverse = torch.linalg.solve_triangular(r, torch.eye(len(r), dtype=r.dtype, device=r.device), upper=True)
    # A^+ = R^-1 Q^T; sigma_min >= 1 / |R^-1|_F
    if not float(inverse.norm()) * float(pivots.max()) < 1 / _RANK:
        return None
    return inverse @ (q.T @ z), _spectral_norm(inverse), a.new_zeros(a.shape[1], 0)


def _deficient(a: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A solution, its sensitivity, and the null space, by QR of A^T with pivoting."""
    entries = a.shape[1]
    if a.shape[0] == 0:
        return (
            a.new_zeros(entries),
            a.new_zeros(()),
            torch.eye(entries, dtype=torch.float64, device=a.device),
        )
    q, r, order = (
        torch.as_tensor(part) for part in scipy.linalg.qr(a.T.cpu().numpy(), mode="full", pivoting=True)
    )
    pivots = r.diagonal().abs()
    rank = int((pivots > _RANK * pivots[0]).sum())
    chosen = order[:rank].long()
    # P^T A = R^T Q^T: the first rank equations, in pivoted order, are independent
    head = torch.linalg.inv(r[:rank, :rank]).T
    back = q[:, :rank] @ head
    device = a.device
    return (
        (back @ z.cpu()[chosen]).to(device),
        _spectral_norm(back).to(device) if rank else a.new_zeros(()),
        q[:, rank:].contiguous().to(device),
    )


def _shared(
    stage: Convolution,
    parts: list[_Part],
    given: Known,
    value: Tensor,
    error: Tensor,
    d_weight: Tensor,
    unit_roundoff: float,
) -> tuple[int, bool, str, Tensor, Tensor]:
    """Use the weight gradient: ``deficit, at_least, note, value, error`` after it."""
    free = [part.null.shape[1] for part in parts]
    unknowns = sum(free)
    if unknowns > d_weight.numel():
        least = unknowns - d_weight.numel()
        return least, True, "fewer shared equations than unknowns", value, error
    if unknowns > _LARGEST_JOINT:
        note = f"{unknowns} joint unknowns are too many to factorise (at most {_LARGEST_JOINT})"
        return unknowns, False, f"{note}; the deficit is that without the shared equations", value, error
    channels = _telling_channels(stage, given, unknowns)
    shape = value.shape[1:]
    blocks = []
    for m, part in enumerate(parts):
        count = part.null.shape[1]
        if count:
            delta = given.delta[m].expand(count, *given.delta.shape[1:])
            images = stage.weight_gradient(part.null.T.reshape(count, *shape), delta)
            blocks.append(images[:, channels].flatten(1).T)
    system = torch.cat(blocks, dim=1)
    rest = (d_weight - stage.weight_gradient(value, given.delta).sum(dim=0))[channels].flatten()
    q, r = torch.linalg.qr(system)
    u, values, vt = torch.linalg.svd(r)
    rank = int((values > _RANK * values[0]).sum()) if float(values[0]) > 0 else 0
    if rank < unknowns:
        return unknowns - rank, False, "", value, error
    t = vt.T @ ((u.T @ (q.T @ rest)) / values)
    moved = torch.stack(
        [part.null @ piece for part, piece in zip(parts, t.split(free), strict=True)]
    ).reshape_as(value)
    # rest is off by the error of x0 seen through D and by rounding in dW; t by that over the last value.
    # |D e| <= |delta| |unfold(e)| <= |delta| sqrt(windows that share an entry) |e|
    overlap = math.prod(-(-k // s) for k, s in zip(stage.weight.shape[2:], stage.stride, strict=True))
    seen = float((given.delta.flatten(1).norm(dim=1) * error).sum()) * math.sqrt(overlap)
    noise = seen + 4 * unit_roundoff * float(d_weight.norm())
    return 0, False, "", value + moved, error + _SAFETY * noise / float(values[-1])


def _telling_channels(stage: Convolution, given: Known, unknowns: int) -> Tensor:
    """Output channels whose rows of dW are used: those with the largest deltas, enough of them."""
    per_channel = stage.weight[0].numel()
    wanted = min(stage.weight.shape[0], -(-_SPARE * unknowns // per_channel) + 1)
    if stage.groups > 1:
        wanted = stage.weight.shape[0]
    strength = given.delta.square().sum(dim=(0, 2, 3))
    return strength.argsort(descending=True)[:wanted]
