"""Whether the linear system of one convolution stage has a solution other than zero (docs/theory.md, CV1).

The unknowns are v_1 .. v_M, one picture (C, H, W) for each of M samples. Two kinds of equations:

    forward   (A v_m)_j = 0 for every output j that is active for sample m,
    shared    sum_m D(delta^m) v_m = 0, the change of the stage's weight gradient.

A is the convolution, D(delta) v its weight gradient. The shared equations are the same for every input
channel: I_C (x) T with T (C_out taps, M H W). An entry of T stands where a tap takes a pixel, so that T falls
into blocks by the pixels' residues modulo the stride.

*Full column rank mod p, a proof of full column rank over the reals, is shown in three steps.* (1) Where a
sample's own forward equations have full column rank, v_m = 0: the output rows are taken from top to bottom,
and the pixel rows that no later output sees are eliminated as soon as that is so, which keeps the matrix as
wide as the kernel is high. Elimination of columns that no other row has is exact: the rank is full only if
all of them get a pivot. (2) Of the other samples the v of each channel lie in the kernel of T. (3) Their
forward equations on that kernel, a matrix with C dim ker T columns, must have full column rank.

A convolution in groups has one such system for each group, on unknowns of its own (:func:`systems`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.staged import Convolution
from exan_verify.exact.elimination import TERMS, Echelon, Floats, centre, floats, reduced_echelon
from exan_verify.exact.modular import Residues
from exan_verify.exact.pictures import taps
from exan_verify.exact.rational import Mask, RationalMatrix
from exan_verify.exact.stacked import require_memory

_SEED = 11
"""Of the order in which forward equations are taken: neighbouring ones say much the same."""

MOST_LEFT = 1 << 13
"""Unknowns that step (3) takes: 4096 of them take 10 to 20 seconds, 8192 a minute or two and 0.5 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """Rows of T (r, pixels M') in reduced echelon form, with the columns of their ``pivots`` (r,)."""

    pixels: np.ndarray
    matrix: Floats
    pivots: np.ndarray

    def kernel(self, samples: int) -> Floats:
        """A basis (samples, pixels, dimension) of the kernel."""
        free = np.delete(np.arange(self.matrix.shape[1]), self.pivots)
        basis = np.zeros((self.matrix.shape[1], len(free)))
        basis[free, np.arange(len(free))] = 1
        basis[self.pivots] = -self.matrix[:, free]
        found: Floats = basis.reshape(len(self.pixels), samples, len(free)).transpose(1, 0, 2)
        return found


@dataclass(frozen=True, kw_only=True)
class StageSystem:
    """The system of ``stage``, in one group, for M samples: ``active`` (C_out H' W', M), ``delta`` the same,
    residues mod ``prime``, one of :data:`exan_verify.exact.elimination.PRIMES`.
    """

    stage: Convolution
    active: Mask
    delta: Residues
    prime: int

    @property
    def samples(self) -> int:
        """M."""
        return int(self.active.shape[1])

    @property
    def unknowns(self) -> int:
        """M C H W."""
        return self.samples * int(np.prod(self.stage.input_shape))

    @cached_property
    def weights(self) -> Floats:
        """(C_out, C, kh, kw) mod p."""
        flat = RationalMatrix.of(self.stage.weight.reshape(len(self.stage.weight), -1)).residues(self.prime)
        return floats(flat, self.prime).reshape(self.stage.weight.shape)

    @cached_property
    def open_samples(self) -> tuple[int, ...]:
        """Samples whose own forward equations leave something open, mod p."""
        return tuple(m for m in range(self.samples) if not self._settled(m))

    @cached_property
    def reduced(self) -> tuple[_Block, ...]:
        """The blocks of T on the open samples, in reduced echelon form."""
        return tuple(self._reduced(rows, pixels) for rows, pixels in self._blocks())

    @cached_property
    def kernel(self) -> Floats:
        """Of the shared equations on the open samples: a basis (open samples, H W + 1, dimension), whose last
        pixel, the padding, is 0. Taken where :attr:`left` is not too much.
        """
        channels, height, width = self.stage.input_shape
        found = np.zeros((len(self.open_samples), height * width + 1, self.left // channels))
        start = 0
        for block in self.reduced:
            basis = block.kernel(len(self.open_samples))
            found[:, block.pixels, start : start + basis.shape[2]] = basis
            start += basis.shape[2]
        return found

    @property
    def left(self) -> int:
        """Unknowns that are left after steps (1) and (2). Raises MemoryError, before it is needed, where a
        block of T does not fit into memory.
        """
        if not self.open_samples:
            return 0
        channels, height, width = self.stage.input_shape
        rank = sum(int((block.pivots >= 0).sum()) for block in self.reduced)
        return channels * (len(self.open_samples) * height * width - rank)

    def full(self) -> bool:
        """Whether the system has full column rank mod p; False also where more is left than is tried."""
        if self.left == 0:
            return True
        return self.left <= MOST_LEFT and self._rank_on_kernel() == self.left

    def _settled(self, m: int) -> bool:
        """Step (1): whether sample m's forward equations have full column rank, mod p."""
        stage = self.stage
        channels, height, width = stage.input_shape
        out, rows, columns = stage.output_shape
        kh = stage.kernel[0]
        active = self.active[:, m].reshape(out, rows, columns)
        if int(active.sum()) < channels * height * width:
            return False
        across = taps_across(stage)
        pending = np.zeros((0, 0))  # columns: pixel rows start .. end - 1, channels, pixel columns
        start = end = 0
        for row in range(rows):
            poll()
            top = row * stage.stride[0] - stage.padding[2]
            reach = min(height, top + stage.dilation[0] * (kh - 1) + 1)
            if reach > end:
                pending = np.pad(pending, ((0, 0), (0, (reach - end) * channels * width)))
                end = reach
            which, column = np.nonzero(active[:, row])
            fresh = np.zeros((len(which), end - start, channels, width + 1))
            each = np.arange(len(which))
            for i in range(kh):
                y = top + i * stage.dilation[0]
                if start <= y < end:
                    for j, at in enumerate(across):
                        fresh[each, y - start, :, at[column]] += self.weights[which, :, i, j]
            pending = np.concatenate([pending, fresh[..., :-1].reshape(len(which), pending.shape[1])])
            later = top + stage.stride[0] if row + 1 < rows else height
            done = max(start, min(height, later))
            if done > end:
                return False  # pixel rows that no output sees
            wide = (done - start) * channels * width
            if wide:
                pending = np.ascontiguousarray(pending)
                pivots = reduced_echelon(pending, wide, self.prime)
                if int((pivots >= 0).sum()) < wide:
                    return False
                pending = pending[pivots < 0][:, wide:]
                start = done
        return start == height

    def _blocks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Taps and pixels that have to do with one another: equal residues modulo the stride."""
        stage = self.stage
        _, height, width = stage.input_shape
        kh, kw = stage.kernel
        down, right = stage.stride
        left, _, top, _ = stage.padding
        tap = np.array(
            [
                ((i * stage.dilation[0] - top) % down, (j * stage.dilation[1] - left) % right)
                for i in range(kh)
                for j in range(kw)
            ]
        )
        pixel = np.array([(y % down, x % right) for y in range(height) for x in range(width)])
        return [
            (np.flatnonzero((tap == kind).all(axis=1)), np.flatnonzero((pixel == kind).all(axis=1)))
            for kind in np.unique(pixel, axis=0)
        ]

    def _reduced(self, rows: np.ndarray, pixels: np.ndarray) -> _Block:
        """T's block of the taps ``rows`` and ``pixels`` on the open samples."""
        poll()
        members = list(self.open_samples)
        out, (_, height, width) = self.stage.output_shape[0], self.stage.input_shape
        require_memory(3 * 8 * out * len(rows) * (height * width + 1) * len(members))
        delta = floats(self.delta[:, members], self.prime).reshape(out, -1, len(members))
        block = np.zeros((out, len(rows), height * width + 1, len(members)))
        for k, at in enumerate(taps(self.stage)[rows]):
            block[:, k, at] = delta
        unknowns = len(pixels) * len(members)
        matrix = np.ascontiguousarray(block[:, :, pixels].reshape(out * len(rows), unknowns))
        pivots = reduced_echelon(matrix, unknowns, self.prime)  # without taps there is no row
        return _Block(pixels=pixels, matrix=matrix[pivots >= 0], pivots=pivots[pivots >= 0])

    def _rank_on_kernel(self) -> int:
        """Step (3): the rank of the forward equations of the open samples on the kernel, as far as needed."""
        out, channels = self.stage.weight.shape[:2]
        places = taps(self.stage)
        flat = self.weights.reshape(out, channels, -1)
        found = Echelon(self.prime)
        pairs = [(k, p) for k in range(len(self.open_samples)) for p in range(places.shape[1])]
        np.random.default_rng(_SEED).shuffle(pairs)
        waiting: list[Floats] = []
        for k, p in pairs:
            active = self.active[:, self.open_samples[k]].reshape(out, -1)[:, p]
            if not active.any():
                continue
            taken = self.kernel[k][places[:, p]]  # (taps, dimension)
            weights = flat[active]
            made = np.zeros((len(weights) * channels, taken.shape[1]))
            mine = np.ascontiguousarray(weights.reshape(len(made), -1))
            for start in range(0, mine.shape[1], TERMS):
                made += mine[:, start : start + TERMS] @ taken[start : start + TERMS]
                centre(made, self.prime)
            waiting.append(made.reshape(len(weights), -1))
            if sum(map(len, waiting)) >= TERMS:
                found.add(np.concatenate(waiting))
                waiting = []
                if found.rank >= self.left:
                    return found.rank
        if waiting:
            found.add(np.concatenate(waiting))
        return found.rank


def systems(stage: Convolution, active: Mask, delta: Residues, prime: int) -> tuple[StageSystem, ...]:
    """One system for each group of the convolution; ``active`` and ``delta`` (C_out H' W', M) are those of
    the whole stage."""
    parts = stage.parts
    return tuple(
        StageSystem(stage=part, active=own, delta=below, prime=prime)
        for part, own, below in zip(
            parts, np.split(active, len(parts)), np.split(delta, len(parts)), strict=True
        )
    )


def taps_across(stage: Convolution) -> np.ndarray:
    """(kw, W'): the pixel column that a tap takes at an output column; W where it takes padding."""
    width, columns = stage.input_shape[2], stage.output_shape[2]
    x = (
        np.arange(columns)[None, :] * stage.stride[1]
        + np.arange(stage.weight.shape[3])[:, None] * stage.dilation[1]
        - stage.padding[0]
    )
    found: np.ndarray = np.where((x >= 0) & (x < width), x, width)
    return found
