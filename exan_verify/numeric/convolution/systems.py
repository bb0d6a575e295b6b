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
from dataclasses import dataclass, replace

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.models.pictures.stages import AveragePool, Convolution, Stage
from exan_verify.numeric.convolution.known import Known
from exan_verify.numeric.convolution.spread import Spread, compressed, spectral_norm
from exan_verify.numeric.waiting import proceed

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

_PROBED = 8.0
"""Between what one random error of the features does to dW and what any may do."""

_MISSED = 8.0
"""Between the error that is expected of the shared equations and the largest one accepted."""

_LARGEST_MAPS = 1 << 27
"""Entries of all samples' error maps up to which they are carried down: 1 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """A stage's inputs (M, *shape) with their errors, or None, and the counts of its report."""

    value: Tensor | None
    spread: Spread | None
    equations: int
    shared: int
    alone: int | None
    deficit: int | None
    at_least: bool
    note: str


def solve_stage(
    stage: Stage, given: Known, shape: tuple[int, ...], d_weight: Tensor | None, unit_roundoff: float
) -> Solved:
    """Solve a linear stage for what it takes, (M, *shape).

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
            spread=None,
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
            spread=None,
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
    spread = _joined(parts, given)
    deficit, least, note = alone, False, ""
    if alone and usable:
        assert isinstance(stage, Convolution)
        assert d_weight is not None
        deficit, least, note, value, spread = _shared(
            stage, parts, given, value, spread, d_weight, unit_roundoff
        )
    return Solved(
        value=value if deficit == 0 else None,
        spread=spread if deficit == 0 else None,
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
    """One sample: a solution (n,) of its own equations, an orthonormal null basis (n, k), and x0's error: a
    map of the features' error, and the L2 norm of what comes on top."""

    x0: Tensor
    map: Tensor
    rest: Tensor
    null: Tensor


def _sample(matrix: Tensor, stage: Stage, given: Known, m: int) -> _Part:
    proceed()
    rows = given.known[m].flatten()
    a = matrix[rows]
    z = (given.value[m] - stage.offset(given.value[m])).flatten()[rows]
    # backward stability: as if z were off by some roundoffs of its norm and of A x's
    noise = given.spread.rest[m] + 32 * 2.0**-53 * (z.norm() + math.sqrt(a.shape[1]))
    above = None if given.spread.maps is None else given.spread.maps[m][rows]
    solution = _overdetermined(a, z, above) if a.shape[0] >= a.shape[1] else None
    x0, reach, moved, null = solution if solution is not None else _deficient(a, z, above)
    return _Part(x0=x0, map=compressed(moved), rest=_SAFETY * reach * noise, null=null)


def _joined(parts: list[_Part], given: Known) -> Spread:
    spread = Spread(
        source=given.spread.source,
        rest=torch.stack([part.rest for part in parts]),
        maps=tuple(part.map for part in parts),
    )
    small = sum(part.map.numel() for part in parts) <= _LARGEST_MAPS
    return spread if small else Spread.even(spread.norm)


def _overdetermined(
    a: Tensor, z: Tensor, above: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Least squares by QR, the norm of the pseudo-inverse, what it makes of ``above``, and no null space;
    None where the rank may be short."""
    q, r = torch.linalg.qr(a)
    pivots = r.diagonal().abs()
    if not float(pivots.min()) > _RANK * float(pivots.max()):
        return None
    inverse = torch.linalg.solve_triangular(r, torch.eye(len(r), dtype=r.dtype, device=r.device), upper=True)
    # A^+ = R^-1 Q^T; sigma_min >= 1 / |R^-1|_F
    if not float(inverse.norm()) * float(pivots.max()) < 1 / _RANK:
        return None
    # Q^T is a contraction, so that R^-1 alone is a map of all that is above
    moved = inverse if above is None else inverse @ (q.T @ above)
    return inverse @ (q.T @ z), spectral_norm(inverse), moved, a.new_zeros(a.shape[1], 0)


def _deficient(a: Tensor, z: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A solution, its sensitivity to z and to ``above``, and the null space, by QR of A^T with pivoting."""
    entries = a.shape[1]
    if a.shape[0] == 0:
        return (
            a.new_zeros(entries),
            a.new_zeros(()),
            a.new_zeros(entries, 1),
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
        spectral_norm(back).to(device) if rank else a.new_zeros(()),
        (back if above is None else back @ above.cpu()[chosen]).to(device),
        q[:, rank:].contiguous().to(device),
    )


def _shared(
    stage: Convolution,
    parts: list[_Part],
    given: Known,
    value: Tensor,
    spread: Spread,
    d_weight: Tensor,
    unit_roundoff: float,
) -> tuple[int, bool, str, Tensor, Spread]:
    """Use the weight gradient: ``deficit, at_least, note, value, spread`` after it."""
    free = [part.null.shape[1] for part in parts]
    unknowns = sum(free)
    if unknowns > d_weight.numel():
        least = unknowns - d_weight.numel()
        return least, True, "fewer shared equations than unknowns", value, spread
    if unknowns > _LARGEST_JOINT:
        note = f"{unknowns} joint unknowns are too many to factorise (at most {_LARGEST_JOINT})"
        return unknowns, False, f"{note}; the deficit is that without the shared equations", value, spread
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
        return unknowns - rank, False, "", value, spread
    t = vt.T @ ((u.T @ (q.T @ rest)) / values)
    moved = torch.stack(
        [part.null @ piece for part, piece in zip(parts, t.split(free), strict=True)]
    ).reshape_as(value)
    # rest is off by the error of x0 seen through D and by rounding in dW; t by that over the last value.
    # |D e| <= |delta| |unfold(e)| <= |delta| sqrt(windows that share an entry) |e|
    overlap = math.prod(-(-k // s) for k, s in zip(stage.weight.shape[2:], stage.stride, strict=True))
    seen = float((given.delta.flatten(1).norm(dim=1) * spread.norm).sum()) * math.sqrt(overlap)
    noise = seen + 4 * unit_roundoff * float(d_weight.norm())
    if given.doubt is not None:
        noise += _PROBED * float(stage.weight_gradient(value + moved, given.doubt).sum(dim=0).norm())
    missed = float((rest - system @ t).norm())
    if not missed <= _MISSED * noise:
        note = f"the weight gradient misses by {missed:.1e} what errors explain to {noise:.1e}"
        return unknowns, False, note, value, spread
    spread = replace(spread, rest=spread.rest + _SAFETY * noise / float(values[-1]))
    return 0, False, "", value + moved, spread


def _telling_channels(stage: Convolution, given: Known, unknowns: int) -> Tensor:
    """Output channels whose rows of dW are used: those with the largest deltas, enough of them."""
    per_channel = stage.weight[0].numel()
    wanted = min(stage.weight.shape[0], -(-_SPARE * unknowns // per_channel) + 1)
    if stage.groups > 1:
        wanted = stage.weight.shape[0]
    strength = given.delta.square().sum(dim=(0, 2, 3))
    return strength.argsort(descending=True)[:wanted]
