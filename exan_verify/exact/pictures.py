"""Exact passes through convolutions, over Q and mod p.

A convolution is a matrix product of its weights with a gathered copy of its input, one column per output
position: exact integers through BLAS (:mod:`exan_verify.exact.rational`). Backward, products are scattered to
the entries they were gathered from; one tap of the kernel takes every entry at most once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exan_verify.core.network import Batch
from exan_verify.core.staged import Convolution, Pool, StagedNetwork
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.rational import Mask, RationalMatrix, carry, product

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesForward:
    """The exact pass of M pictures through the stages.

    ``values[s]`` (n_s, M): ``values[0]`` the pictures, ``values[-1]`` the features of the head.
    ``patterns[s]``, ``zeros[s]`` (n, M), of the convolutions before anything is pooled: where the outputs of
    stage s (from 0) are active (z > 0), where z is zero.
    """

    values: tuple[RationalMatrix, ...]
    patterns: tuple[Mask, ...]
    zeros: tuple[Mask, ...]


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
    out, rows, columns = stage.output_shape
    z = product(stage.weight.reshape(out, -1), gathered(stage, values))
    flat = RationalMatrix(z.digits.reshape(len(z.digits), out * rows * columns, -1), z.denominator)
    if stage.bias is None:
        return flat
    return flat.plus_column(RationalMatrix.of(np.repeat(stage.bias, rows * columns).reshape(-1, 1)))


def forward_stages(network: StagedNetwork, batch: Batch) -> StagesForward:
    """The exact pass of the batch's pictures up to the features of the head."""
    values = [RationalMatrix.of(batch.inputs.T)]
    patterns, zeros = [], []
    known = len(network.convolutions)
    for k, stage in enumerate(network.stages):
        if isinstance(stage, Pool):
            values.append(pooled(stage, values[-1]))
            continue
        z = convolved(stage, values[-1])
        active = z.positive()
        if k < known:
            patterns.append(active)
            zeros.append(~z.nonzero())
        values.append(z.masked(active))
    return StagesForward(values=tuple(values), patterns=tuple(patterns), zeros=tuple(zeros))


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
    channels, height, width = stage.input_shape
    out, samples = stage.output_shape[0], delta.shape[1]
    flat = RationalMatrix(delta.digits.reshape(len(delta.digits), out, -1), delta.denominator)
    parts = product(np.ascontiguousarray(stage.weight.reshape(out, -1).T), flat)
    places = taps(stage)
    count = len(parts.digits)
    digits = parts.digits.reshape(count, channels, *places.shape, samples)
    total = np.zeros((count, channels, height * width + 1, samples), dtype=np.int64)
    for k, at in enumerate(places):
        inside = at < height * width
        total[:, :, at[inside]] += digits[:, :, k, inside]
    return RationalMatrix(carry(total[:, :, :-1].reshape(count, -1, samples)), parts.denominator)


def deltas_mod(
    network: StagedNetwork, passed: StagesForward, features: Residues, prime: int = PRIME
) -> tuple[Residues, ...]:
    """The deltas of all stages of a network that pools nothing, mod p, first to last, each (C_out H' W', M),
    from the gradient of the loss by the head's features (n, M).
    """
    found = [features * passed.patterns[-1]]
    for stage, pattern in zip(network.convolutions[:0:-1], passed.patterns[-2::-1], strict=True):
        back = transposed(stage, RationalMatrix.from_residues(found[-1], prime)).residues(prime)
        found.append(back * pattern)
    return tuple(found[::-1])
