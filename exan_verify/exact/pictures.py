"""Exact passes through convolutions, over Q and mod p.

A convolution is a matrix product of its weights with a gathered copy of its input, one column per output
position: exact integers through BLAS (:mod:`exan_verify.exact.rational`). Backward, products are scattered to
the entries they were gathered from; one tap of the kernel takes every entry at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import poll
from exan_verify.core.network import Batch
from exan_verify.core.staged import Convolution, Pool, Residual, StagedNetwork
from exan_verify.exact.modular import PRIME, Residues, add_mod
from exan_verify.exact.rational import Mask, RationalMatrix, carry, one_below_another, product, side_by_side

Places = npt.NDArray[np.intp]

_GATHERED = 1 << 24
"""Digits that the taps take at a time: 128 MiB, and a few times that while they are multiplied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesForward:
    """The exact pass of M pictures through the stages.

    ``values[s]`` (n_s, M): ``values[0]`` what the first stage takes, the pictures after the network's
    ``entry``, ``values[-1]`` the features of the head.
    ``patterns[s]``, ``zeros[s]`` (n, M), of the stages before anything is pooled: where the outputs of
    stage s (from 0) are active (z > 0), where z is zero. ``inner[s]``: of a sum of branches, the patterns of
    the ReLUs between its inner convolutions, first to last; none of a convolution.
    """

    values: tuple[RationalMatrix, ...]
    patterns: tuple[Mask, ...]
    zeros: tuple[Mask, ...]
    inner: tuple[tuple[Mask, ...], ...]


def taps(stage: Convolution | Pool) -> Places:
    """(kh kw, H' W'): the entry of a channel (row * W + column) that a tap takes at an output position; H W
    where it takes padding.
    """
    _, height, width = stage.input_shape
    _, rows, columns = stage.output_shape
    left, _, top, _ = stage.padding
    kh, kw = stage.kernel
    y = np.arange(rows)[None, :] * stage.stride[0] + np.arange(kh)[:, None] * stage.dilation[0] - top
    x = np.arange(columns)[None, :] * stage.stride[1] + np.arange(kw)[:, None] * stage.dilation[1] - left
    inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[None, :, None, :]
    at = y[:, None, :, None] * width + x[None, :, None, :]
    found: Places = np.where(inside, at, height * width).reshape(kh * kw, rows * columns)
    return found


def sees(stage: Convolution, moving: Mask) -> Mask:
    """The outputs (C_out H' W', M) that take an entry of ``moving`` (C H W, M) with any of their taps."""
    (channels, height, width), samples = stage.input_shape, moving.shape[1]
    own: Mask = np.any(
        moving.reshape(stage.groups, channels // stage.groups, height * width, samples), axis=1
    )
    padded = np.concatenate([own, np.zeros_like(own[:, :1])], axis=1)
    taken = padded[:, taps(stage)].any(axis=1)  # (groups, positions, M)
    found: Mask = np.repeat(taken, len(stage.weight) // stage.groups, axis=0).reshape(-1, samples)
    return found


def gathered(stage: Convolution, values: RationalMatrix) -> RationalMatrix:
    """What the taps take of ``values`` (C H W, M): (C kh kw, H' W' M)."""
    channels, height, width = stage.input_shape
    samples = values.shape[1]
    digits = values.digits.reshape(len(values.digits), channels, height * width, samples)
    padded = np.concatenate([digits, np.zeros_like(digits[:, :, :1])], axis=2)
    taken = padded[:, :, taps(stage)]  # (count, C, taps, positions, M)
    return RationalMatrix(
        np.ascontiguousarray(taken).reshape(len(digits), channels * taken.shape[2], -1), values.denominator
    )


def convolved(stage: Convolution, values: RationalMatrix) -> RationalMatrix:
    """The stage's pre-activations (C_out H' W', M) at ``values`` (C H W, M)."""
    if stage.groups > 1:
        return _by_groups(convolved, stage, values)
    out, rows, columns = stage.output_shape
    weight, parts, denominator = stage.weight.reshape(out, -1), [], 1
    for some in _by_samples(stage, values):
        z = product(weight, gathered(stage, some))
        parts.append(z.digits.reshape(len(z.digits), out * rows * columns, -1))
        denominator = z.denominator  # that of the weights times that of the values, for all alike
    flat = RationalMatrix(side_by_side(parts), denominator)
    if stage.bias is None:
        return flat
    return flat.plus_column(RationalMatrix.of(np.repeat(stage.bias, rows * columns).reshape(-1, 1)))


def _by_groups(
    function: Callable[[Convolution, RationalMatrix], RationalMatrix],
    stage: Convolution,
    values: RationalMatrix,
) -> RationalMatrix:
    """What ``function`` makes of each group and its part of ``values`` (n, M), one below another."""
    own = values.shape[0] // stage.groups
    found = []
    for g, part in enumerate(stage.parts):
        digits = np.ascontiguousarray(values.digits[:, g * own : (g + 1) * own])
        found.append(function(part, RationalMatrix(digits, values.denominator)))
    return one_below_another(found)


def _by_samples(stage: Convolution, values: RationalMatrix) -> Iterator[RationalMatrix]:
    """``values`` (n, M) in blocks of samples: what the taps take of a block fits into memory with ease."""
    channels, positions = stage.input_shape[0], taps(stage).size
    step = max(1, _GATHERED // (len(values.digits) * max(channels, stage.output_shape[0]) * positions))
    for start in range(0, values.shape[1], step):
        poll()
        block = np.ascontiguousarray(values.digits[:, :, start : start + step])
        yield RationalMatrix(block, values.denominator)


def forward_stages(network: StagedNetwork, batch: Batch) -> StagesForward:
    """The exact pass of the batch's pictures up to the features of the head."""
    values = [_entered(network, batch)]
    patterns, zeros, inner = [], [], []
    known = len(network.unpooled)
    for k, stage in enumerate(network.stages):
        between: tuple[Mask, ...] = ()
        if isinstance(stage, Pool):
            values.append(pooled(stage, values[-1]))
            continue
        if isinstance(stage, Residual):
            z, between = _added(stage, values[-1])
        else:
            z = convolved(stage, values[-1])
        active = z.positive()
        if k < known:
            patterns.append(active)
            zeros.append(~z.nonzero())
            inner.append(between)
        values.append(z.masked(active))
    return StagesForward(
        values=tuple(values), patterns=tuple(patterns), zeros=tuple(zeros), inner=tuple(inner)
    )


def _entered(network: StagedNetwork, batch: Batch) -> RationalMatrix:
    """The pictures (C H W, M), shifted and scaled as the network's ``entry`` says."""
    pictures = RationalMatrix.of(batch.inputs.T)
    if network.entry is None:
        return pictures
    pixels = int(np.prod(network.input_shape[1:]))
    factor, shift = (
        RationalMatrix.of(np.repeat(part, pixels).reshape(-1, 1))
        for part in (network.entry.factor, network.entry.shift)
    )
    return pictures.times(factor).plus_column(shift)


def _added(stage: Residual, values: RationalMatrix) -> tuple[RationalMatrix, tuple[Mask, ...]]:
    """The sum of the branches (C_out H' W', M) at ``values``, and the patterns inside the inner one."""
    patterns, current = list[Mask](), values
    for convolution in stage.inner:
        if current is not values:
            patterns.append(current.positive())
            current = current.masked(patterns[-1])
        current = convolved(convolution, current)
    other = values if stage.shortcut is None else convolved(stage.shortcut, values)
    return current.plus_column(other), tuple(patterns)


def pooled(stage: Pool, values: RationalMatrix) -> RationalMatrix:
    """The largest entries of the windows, or their means (C H' W', M), of values (C H W, M) that are not
    negative: so padding, which is never the largest, counts as 0.
    """
    channels, height, width = stage.input_shape
    samples, count = values.shape[1], len(values.digits)
    digits = values.digits.reshape(count, channels, height * width, samples)
    padded = np.concatenate([digits, np.zeros_like(digits[:, :, :1])], axis=2)
    windows = padded[:, :, taps(stage)]  # (count, C, taps, positions, M)
    size = windows.shape[3] * channels
    if stage.mean:
        total = carry(windows.sum(axis=2).reshape(count, size, samples))
        return RationalMatrix(total, values.denominator * windows.shape[2])
    best = windows[:, :, 0]
    for k in range(1, windows.shape[2]):
        other = windows[:, :, k]
        # digits are not negative, so the highest one that differs decides
        larger = np.zeros(best.shape[1:], dtype=bool)
        for here, there in zip(best, other, strict=True):
            larger = np.where(here == there, larger, there > here)
        best = np.where(larger, other, best)
    return RationalMatrix(best.reshape(count, size, samples), values.denominator)


def transposed(stage: Convolution, delta: RationalMatrix) -> RationalMatrix:
    """``A^T delta`` (C H W, M) for ``delta`` (C_out H' W', M), A the stage's linear map."""
    if stage.groups > 1:
        return _by_groups(transposed, stage, delta)
    channels, height, width = stage.input_shape
    out, places, denominator = stage.output_shape[0], taps(stage), 1
    weight = np.ascontiguousarray(stage.weight.reshape(out, -1).T)
    found = []
    for some in _by_samples(stage, delta):
        samples = some.shape[1]
        flat = RationalMatrix(some.digits.reshape(len(some.digits), out, -1), some.denominator)
        parts = product(weight, flat)
        count, denominator = len(parts.digits), parts.denominator
        digits = parts.digits.reshape(count, channels, *places.shape, samples)
        total = np.zeros((count, channels, height * width + 1, samples), dtype=np.int64)
        for k, at in enumerate(places):
            inside = at < height * width
            total[:, :, at[inside]] += digits[:, :, k, inside]
        found.append(carry(total[:, :, :-1].reshape(count, -1, samples)))
    return RationalMatrix(side_by_side(found), denominator)


def deltas_mod(
    network: StagedNetwork, passed: StagesForward, features: Residues, prime: int = PRIME
) -> tuple[tuple[Residues, ...], ...]:
    """The deltas of all stages of a network that pools nothing, mod p, first to last, from the gradient of
    the loss by the head's features (n, M). Of each stage those of its convolutions' outputs (C_out H' W', M):
    one, or of a sum of branches those of its ``inner`` ones and then the shortcut's, which is the sum's.
    """
    back = features
    found: list[tuple[Residues, ...]] = []
    for k in range(len(network.unpooled) - 1, -1, -1):
        stage, top = network.unpooled[k], back * passed.patterns[k]
        if isinstance(stage, Convolution):
            found.append((top,))
            back = _back(stage, top, prime) if k else back
            continue
        inner = [top]
        for convolution, pattern in zip(stage.inner[:0:-1], passed.inner[k][::-1], strict=True):
            inner.append(_back(convolution, inner[-1], prime) * pattern)
        found.append((*inner[::-1], top))
        if k:
            other = top if stage.shortcut is None else _back(stage.shortcut, top, prime)
            back = add_mod(_back(stage.inner[0], inner[-1], prime), other, prime)
    return tuple(found[::-1])


def _back(stage: Convolution, delta: Residues, prime: int) -> Residues:
    return transposed(stage, RationalMatrix.from_residues(delta, prime)).residues(prime)
