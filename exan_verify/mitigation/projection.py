"""Public bases B (d, r), stored exactly: principal directions of public data, cosines, random signs.

Entries are integers over :data:`UNIT`, so that float32 holds them, B^T x is exact for stored inputs, and what
is hidden can be computed over the rationals. Rounded columns are only nearly orthonormal: nothing needs more.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt, lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.core.arrays import Array, exact_array
from exan_verify.core.network import Linear, ReluNetwork, to_fraction
from exan_verify.errors import InputError, ShapeError
from exan_verify.mitigation.case import Case, Floats

UNIT = 4096
"""Denominator of the entries: 12 bits, an error of 1e-4 in entries whose squares sum to one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """B (d, r) with entries ``integers / unit``; ``name`` says where it comes from."""

    integers: npt.NDArray[Any]
    name: str
    unit: int = UNIT

    @property
    def columns(self) -> Floats:
        """B as float64, exactly."""
        return np.asarray(self.integers / self.unit, dtype=np.float64)

    @property
    def rank_at_most(self) -> int:
        """r: the number of columns, which bounds the rank whatever the entries are."""
        return int(self.integers.shape[1])

    def see(self, x: Array) -> Array:
        """B^T x for each row of ``x`` (M, d), exactly: float64 where that holds the values, else
        Fractions."""
        values = [[to_fraction(v) for v in row] for row in x]
        unit = lcm(*(v.denominator for row in values for v in row))
        whole = np.array([[int(v * unit) for v in row] for row in values], dtype=object)
        seen = whole @ self.integers.astype(object)
        scaled = [[Fraction(int(v), unit * self.unit) for v in row] for row in seen]
        return exact_array(np.array(scaled, dtype=object), "the projected inputs")


def projected(network: ReluNetwork, basis: Basis) -> ReluNetwork:
    """The network on B^T x whose first weights are V = W_1 B, in the precision of W_1."""
    first, *others = network.layers
    dtype = first.weight.dtype if first.weight.dtype != object else np.dtype(np.float64)
    weight = (np.asarray(first.weight, dtype=np.float64) @ basis.columns).astype(dtype)
    return ReluNetwork(layers=(Linear(weight=weight, bias=first.bias, name=first.name), *others))


def principal(case: Case, rank: int) -> Basis:
    """The first ``rank`` principal directions of the public samples; of a batch's own they would tell of
    it."""
    if case.public is None:
        raise InputError(
            "project-pca needs public samples of the data's kind, not the batch; give prior=x (--prior FILE)"
        )
    _check_rank(rank, case.public.shape[1])
    if rank > len(case.public):
        raise InputError(
            f"project-pca:{rank} needs at least {rank} public samples, and there are {len(case.public)}; "
            "give more, or a smaller rank"
        )
    centred = case.public - case.public.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return _rounded(vectors[:, ::-1][:, :rank], f"the first {rank} principal directions of public samples")


def cosines(case: Case, rank: int) -> Basis:
    """The ``rank`` lowest frequencies of the discrete cosine transform: of square pictures in two dimensions,
    by the sum of their frequencies, of other inputs in one.
    """
    features = case.x.shape[1]
    _check_rank(rank, features)
    side = isqrt(features)
    if side * side != features:
        return _rounded(_dct(features)[:, :rank], f"the {rank} lowest cosines")
    waves = _dct(side)
    order = sorted(((a, b) for a in range(side) for b in range(side)), key=lambda ab: (sum(ab), ab))[:rank]
    columns = np.stack([np.outer(waves[:, a], waves[:, b]).reshape(-1) for a, b in order], axis=1)
    return _rounded(columns, f"the {rank} lowest two-dimensional cosines")


def random(case: Case, rank: int) -> Basis:
    """``rank`` random orthonormal directions, drawn by the seed and not by the data."""
    features = case.x.shape[1]
    _check_rank(rank, features)
    drawn = case.rng(rank).standard_normal((features, rank))
    return _rounded(np.linalg.qr(drawn)[0], f"{rank} random directions of seed {case.seed}")


def _rounded(columns: Floats, name: str) -> Basis:
    return Basis(integers=np.rint(columns * UNIT).astype(np.int64), name=name)


def _dct(size: int) -> Floats:
    """Orthonormal columns cos(pi (k + 1/2) f / size), f = 0, 1, ..."""
    waves = np.cos(np.pi * np.outer(np.arange(size) + 0.5, np.arange(size)) / size)
    scaled: Floats = waves / np.sqrt(np.square(waves).sum(axis=0))
    return scaled


def _check_rank(rank: int, features: int) -> None:
    if rank >= features:
        raise ShapeError(
            f"a projection to {rank} dimensions hides nothing of inputs with {features} features; give a "
            f"rank below {features}"
        )
