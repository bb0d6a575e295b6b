"""Right inverses in floating point that balls show to be near exact ones, and A W^T = 0 by means of one, for
:mod:`exan_verify.kernel.second.inwards`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import Array
from exan_verify.core.budget import poll
from exan_verify.exact.balls import BallMatrix, Floats, ball_matrix, identity, midpoints, upper
from exan_verify.kernel.given import require


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Inverse:
    """Floats R for the balls ``matrix`` with ``rho = |matrix R - I| < 1/2``. ``gain``: the row sums of |R|
    over 1 - rho, which bound ``|R (matrix R)^-1 v|`` by the largest |v|.
    """

    matrix: Any
    floats: Floats
    gain: Floats


def right_inverse(matrix: Any) -> Inverse:
    """Of balls (r, s). Rejects unless ``|M R - I| < 1/2``, in sums of rows, for all M in the balls."""
    poll()
    rows, columns = matrix.nrows(), matrix.ncols()
    require(rows <= columns, f"{rows} equations of {columns} unknowns")
    middle = midpoints(matrix)
    require(bool(np.isfinite(middle).all()), "the equations are too large for floating point")
    if not rows:
        return Inverse(matrix=matrix, floats=np.zeros((columns, 0)), gain=np.zeros(columns))
    floats = np.linalg.pinv(middle)
    off = above(upper(matrix * ball_matrix(floats) - identity(rows)).sum(axis=1).max())
    require(off < 0.5, "the equations are not shown to be independent")
    return Inverse(matrix=matrix, floats=floats, gain=above(np.abs(floats).sum(axis=1) / (1 - off)))


def above(values: Any) -> Any:
    """An upper bound of what a few thousand operations on non-negative numbers in float64 gave."""
    return values * (1 + 2.0**-30) + 2.0**-1000


def part_of(matrix: BallMatrix, rows: Iterable[int], columns: Iterable[int]) -> BallMatrix:
    """Some rows and columns of balls."""
    chosen, kept = list(map(int, rows)), list(map(int, columns))
    return flint.arb_mat(len(chosen), len(kept), [matrix[i, k] for i in chosen for k in kept])


@dataclass(frozen=True, slots=True, eq=False)
class FirstLayer:
    """A W^T = 0, by means of the features ``whole``, where all of S may move."""

    weight: Any
    absolute: Floats
    whole: Any
    inverse: Inverse

    @classmethod
    def of(cls, weight: Array, whole: Any) -> FirstLayer:
        """``weight`` (n, f): the rows that see the features of the motion."""
        balls = ball_matrix(weight)
        return cls(balls, upper(balls), whole, right_inverse(ball_matrix(weight[:, whole])))

    def cleaned(self, near: Floats) -> Floats:
        """Floats that W sees less of."""
        found = near.copy()
        found[:, self.whole] -= (near @ midpoints(self.weight).T) @ self.inverse.floats.T
        return found

    def seen(self, near: Floats, error: Floats) -> Floats:
        """Bounds (S, n) of |A' W^T|."""
        own = upper(ball_matrix(near) * self.weight.transpose())
        return np.asarray(above(own + error @ self.absolute.T))

    def bound(self, near: Floats, error: Floats) -> Floats:
        """How far A* is from A' at most."""
        found = np.zeros(near.shape)
        most = self.seen(near, error).max(axis=1, initial=0.0)
        found[:, self.whole] = above(np.outer(most, self.inverse.gain))
        return found
