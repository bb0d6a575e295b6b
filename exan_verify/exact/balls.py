"""Matrices of real balls (``flint.arb_mat``): exact arrays in, rigorous upper bounds out.

A ball is a midpoint with a radius; every operation of python-flint encloses the set of possible results, and
a product of matrices has, entry by entry, about the radius |A| rad(B) + rad(A) |B| (3.6, Appendix T).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import numpy.typing as npt

from exan_verify.core.network import Array
from exan_verify.exact.softmax import to_ball

BallMatrix = Any
"""A ``flint.arb_mat``; python-flint has no type information."""

Floats = npt.NDArray[np.floating[Any]]

PRECISION = 128
"""Bits of midpoints: rounding then stays far below every tolerance that is asked about."""


@contextmanager
def working_precision(bits: int = PRECISION) -> Iterator[None]:
    """Compute with midpoints of ``bits`` bits."""
    with flint.ctx.workprec(bits):
        yield


def ball_matrix(array: Array) -> BallMatrix:
    """An exact array (rows, cols) as balls: floats and integers exactly, Fractions enclosed."""
    if array.dtype == object:
        return flint.arb_mat(*array.shape, [to_ball(Fraction(v)) for v in array.reshape(-1)])
    return flint.arb_mat(*array.shape, array.astype(np.float64).reshape(-1).tolist())


def interval_matrix(bounds: Floats) -> BallMatrix:
    """The balls [-b, b] for a matrix of finite b >= 0."""
    return flint.arb_mat(*bounds.shape, [flint.arb(0, b) for b in bounds.reshape(-1).tolist()])


def constant_interval(shape: tuple[int, ...], radius: Fraction) -> BallMatrix:
    """Every entry the ball [-radius, radius], rounded outwards."""
    rows, cols = shape
    return flint.arb_mat(rows, cols, [flint.arb(0, to_ball(radius).abs_upper())] * (rows * cols))


def inner_interval(shape: tuple[int, ...], radius: Fraction) -> BallMatrix:
    """Every entry one ball *inside* [-radius, radius], smaller by less than one in a million."""
    ball = flint.arb(0, to_ball(radius * Fraction(2**21 - 1, 2**21)).abs_upper())
    if not ball.abs_upper() <= to_ball(radius).abs_lower():
        raise ArithmeticError(f"no ball inside a radius of {radius}")
    rows, cols = shape
    return flint.arb_mat(rows, cols, [ball] * (rows * cols))


def identity(size: int) -> BallMatrix:
    """The identity matrix."""
    return ball_matrix(np.eye(size))


def midpoints(matrix: BallMatrix) -> Floats:
    """Midpoints, rounded to float64: for guesses only."""
    values = [float(v.mid()) for v in matrix.entries()]
    return np.array(values, dtype=np.float64).reshape(matrix.nrows(), matrix.ncols())


def upper(matrix: BallMatrix) -> Floats:
    """Upper bounds of the absolute values, as float64 rounded upwards; infinite where there is none."""
    values = [upper_float(v) for v in matrix.entries()]
    return np.array(values, dtype=np.float64).reshape(matrix.nrows(), matrix.ncols())


def upper_float(ball: Any) -> float:
    """A float64 that is at least every absolute value in the ball."""
    bound = ball.abs_upper()
    guess = float(bound)
    if not guess < float("inf"):  # NaN too: a ball without bounds
        return float("inf")
    # one unit in the last place covers the rounding of float(bound)
    return float(np.nextafter(guess, np.inf)) if guess else (0.0 if bound == 0 else 5e-324)
