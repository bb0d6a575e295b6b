"""Pictures once more, from all features at once, after the descent has settled which neurons are active.

Derivation. The descent solves every stage for all that it takes, as if a stage's input could be anything.
Once patterns are known it cannot: with B the product of the stages' matrices, cut to surely active rows
between them, the features that are surely positive are

    f = B x + N t + constant,

t the values of neurons that may be active or not, which stay free. B has as many columns as the picture has
entries, usually far fewer than any layer above, so its pseudo-inverse magnifies errors less than the chain's.
A neuron is surely inactive where A h + b, h the values below as the descent found them, is negative beyond
what their error can move it; then its value is exactly zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from exan_verify.models.pictures.stages import ConvolutionalNetwork, Flatten, MaxPool, Relu, Stage
from exan_verify.numeric.convolution.known import Known
from exan_verify.numeric.convolution.spread import Spread, spectral_norm
from exan_verify.numeric.convolution.systems import LARGEST_STAGE, stage_matrix
from exan_verify.numeric.waiting import proceed

_SURE = 8.0
"""A pre-activation beyond this many error bounds has its sign for sure."""

_RANK = 1e-10
"""Pivots below this share of the largest count as zero."""

_SAFETY = 2.0
"""Covers rounding in the solve."""

_LARGEST = 1 << 25
"""Entries of a sample's system up to which it is solved: 256 MiB."""


def refit(network: ConvolutionalNetwork, trail: Mapping[int, Known]) -> Known:
    """The pictures of ``trail[0]``, solved for again where that lowers the bounds of all of them.

    ``trail``: what the descent knew of every value, by place.
    """
    pictures = trail[0]
    if any(_too_large(stage, trail[k].value) for k, stage in enumerate(network.body)):
        return pictures
    work = _Work(network=network, trail=trail)
    solved = []
    for m in range(pictures.value.shape[0]):
        proceed()
        one = work.solve(m)
        if one is None:
            return pictures
        solved.append(one)
    spread = Spread(
        source=trail[len(network.body)].spread.source,
        rest=torch.stack([rest for _, _, rest in solved]),
        maps=tuple(moved for _, moved, _ in solved),
    )
    value = torch.stack([x for x, _, _ in solved]).reshape_as(pictures.value)
    before, after = (s.entries.amax(dim=1) for s in (pictures.spread, spread))
    agree = (value - pictures.value).flatten(1).abs().amax(dim=1) <= before + after
    if not bool((agree & (after < before)).all()):
        return pictures
    return replace(pictures, value=value, spread=spread)


def _too_large(stage: Stage, value: Tensor) -> bool:
    return _mixes(stage) and value[0].numel() > LARGEST_STAGE


def _mixes(stage: Stage) -> bool:
    """Whether a stage is linear and has a matrix of its own."""
    return stage.linear and not isinstance(stage, Flatten)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _System:
    """f[rows] = matrix x + free t + constant; ``matrix`` None is the identity. ``columns``: the entries of
    the value reached so far that ``matrix`` has columns for, the others being zero."""

    rows: Tensor
    columns: Tensor
    constant: Tensor
    matrix: Tensor | None = None
    free: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    network: ConvolutionalNetwork
    trail: Mapping[int, Known]
    matrices: dict[int, Tensor] = field(default_factory=dict)

    def solve(self, m: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Sample m's picture (n,), the map of the features' error to its own, and the error on top."""
        features = self.trail[len(self.network.body)].value[m].flatten()
        everything = torch.arange(len(features), device=features.device)
        system = _System(rows=everything, columns=everything, constant=features.new_zeros(len(features)))
        for place in range(len(self.network.body) - 1, -1, -1):
            stage = self.network.body[place]
            if isinstance(stage, Relu):
                system = self._through_relu(system, place, m)
            elif _mixes(stage):
                system = self._through_linear(system, place, stage)
            elif isinstance(stage, MaxPool) and (stage.kernel, stage.stride) != ((1, 1), (1, 1)):
                return None
            if system.matrix is not None and system.matrix.numel() > _LARGEST:
                return None
        return None if system.matrix is None else _solution(system, features)

    def _through_linear(self, system: _System, place: int, stage: Stage) -> _System:
        value = self.trail[place + 1].value[0]
        offset = stage.offset(value).expand_as(value).flatten()[system.columns]
        a = self._matrix(place)[system.columns]
        matrix = a if system.matrix is None else system.matrix @ a
        added = offset if system.matrix is None else system.matrix @ offset
        below = torch.arange(a.shape[1], device=a.device)
        return replace(system, columns=below, constant=system.constant + added, matrix=matrix)

    def _through_relu(self, system: _System, place: int, m: int) -> _System:
        active, doubtful = self._signs(place, m)
        kept, open_ = active[system.columns], doubtful[system.columns]
        if system.matrix is None:
            # nothing above mixes: what is not surely active is no equation
            return replace(
                system,
                rows=system.rows[kept],
                columns=system.columns[kept],
                constant=system.constant[kept],
            )
        free = (*system.free, system.matrix[:, open_])
        return replace(system, columns=system.columns[kept], matrix=system.matrix[:, kept], free=free)

    def _signs(self, place: int, m: int) -> tuple[Tensor, Tensor]:
        """Which neurons of a ReLU are active for sure, and which may be or not."""
        active = self.trail[place + 1].active[m].flatten()
        stage = self.network.body[place - 1] if place else None
        if stage is None or not _mixes(stage):
            return active, ~active
        below = self.trail[place - 1]
        z = stage.apply(below.value[m : m + 1]).flatten()
        error = self._matrix(place - 1).norm(dim=1) * below.spread.norm[m]
        active = active | (z > _SURE * error)
        return active, ~active & ~(z < -_SURE * error)

    def _matrix(self, place: int) -> Tensor:
        if place not in self.matrices:
            below = self.trail[place].value
            self.matrices[place] = stage_matrix(self.network.body[place], tuple(below.shape[1:]), below)
        return self.matrices[place]


def _solution(system: _System, features: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    assert system.matrix is not None
    size = system.matrix.shape[1]
    whole = torch.cat([*system.free, system.matrix], dim=1)
    if whole.shape[0] < whole.shape[1] or not whole.shape[1]:
        return None
    q, r = torch.linalg.qr(whole)
    # the last columns of Q are orthogonal to all that is free, whatever its rank
    q, r = q[:, -size:], r[-size:, -size:]
    pivots = r.diagonal().abs()
    if not float(pivots.min()) > _RANK * float(whole.norm()):
        return None
    inverse = torch.linalg.solve_triangular(r, torch.eye(size, dtype=r.dtype, device=r.device), upper=True)
    if not float(inverse.norm()) * float(whole.norm()) < 1 / _RANK:
        return None
    given = features[system.rows]
    x = inverse @ (q.T @ (given - system.constant))
    noise = 32 * 2.0**-53 * (given.norm() + system.constant.norm() + math.sqrt(size))
    return x, inverse, _SAFETY * spectral_norm(inverse) * noise
