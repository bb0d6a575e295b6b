"""Bounds on every batch whose gradient is near the given one (docs/theory.md, Appendix T, T1 to T5).

Every matrix that is written here as a ball matrix contains the true matrix of every such batch. Guesses in
float64 (pseudo-inverses) enter as exact numbers; what they are good for is verified with balls.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import flint
import numpy as np

from exan_verify.errors import CertificateRejected
from exan_verify.exact.balls import (
    BallMatrix,
    Floats,
    ball_matrix,
    identity,
    interval_matrix,
    midpoints,
    upper,
    upper_float,
)
from exan_verify.kernel.given import require

_CHUNK = 256
"""Columns of I - P C at a time: bounds the memory at large input dimensions."""

_ROUNDS = 4
"""Bounds of T3 and T4 are put into their own right sides this often; they settle in two or three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """T1: every near batch has ``A' = B' T^-1 [H' 1]``, ``T^-1 1 = 1``, with B' in ``block``.

    ``right``: the exact P (columns of A, M), with rows that add up to e_last. ``block`` (n, M) is A P for
    all A, ``rows`` (M, columns of A) is N A, and ``defect`` (M, M) bounds |N A P - I|, whose largest row sum
    ``contraction`` is below one.
    """

    right: BallMatrix
    block: BallMatrix
    rows: BallMatrix
    defect: Floats
    contraction: Any


def factor(gradient: BallMatrix, features: Floats, name: str) -> Factor:
    """T1 for the ball matrix of [dW | db], guided by guesses of [H 1] (M, columns)."""
    samples = len(features)
    right = right_inverse(features, name)
    block = gradient * right
    left = ball_matrix(_pseudo_inverse(midpoints(block), name))
    defect = upper(left * block - identity(samples))
    contraction = _largest_row_sum(defect)
    require(bool(contraction < 1), f"rank {samples} of {name} is not shown: |N B - I| is {contraction}")
    return Factor(right=right, block=block, rows=left * gradient, defect=defect, contraction=contraction)


def right_inverse(features: Floats, name: str) -> BallMatrix:
    """P of T1: about the pseudo-inverse of [H 1], in fixed point, its rows adding up to e_last exactly."""
    guess = _pseudo_inverse(features, name)
    samples = len(features)
    shift = 51 - int(np.ceil(np.log2(max(1.0, float(np.abs(guess).max())) * samples)))
    require(shift > 0, f"the features of {name} are too close to dependent")
    fixed = np.rint(np.ldexp(guess, shift)).astype(np.int64)
    total = np.zeros(len(fixed), dtype=np.int64)
    total[-1] = 1 << shift
    fixed[:, -1] = total - fixed[:, :-1].sum(axis=1)
    return ball_matrix(np.ldexp(fixed.astype(np.float64), -shift))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviations:
    """T3: every column of T^-1 is ``s (e_a + xi)`` for some sample a, with ``|xi_b| <= columns[a, b]``, and
    its next delta has coordinates ``s (points[a] + eta)``, ``|eta| <= following[a]``.
    """

    columns: Floats
    following: Floats


def deviations(block: BallMatrix, outgoing: BallMatrix, points: Floats) -> Deviations:
    """T2, T3: ``block`` (n, M) contains B', ``outgoing`` (n, K') the rows w_j . basis, ``points`` (M, K')
    are guesses of the next deltas' coordinates.
    """
    neurons, samples, width = block.nrows(), block.ncols(), outgoing.ncols()
    pairs = list(combinations(range(samples), 2))
    unknowns = len(pairs) + samples * width
    require(unknowns <= neurons, f"{neurons} neurons are too few for {unknowns} unknowns")
    coefficients, residuals = _equations(block, outgoing, points, pairs)
    left = ball_matrix(_scaled_inverse(midpoints(coefficients)))
    defect = upper(left * coefficients - identity(unknowns))
    bounds = _solved(defect, upper(left * residuals))
    columns, following = np.zeros((samples, samples)), np.zeros((samples, width))
    for a in range(samples):
        near = [k for k, pair in enumerate(pairs) if a in pair]
        others = [b for b in range(samples) if b != a]
        squares = _squares(bounds[near], others)
        columns[a, others] = upper(ball_matrix(bounds[near]) * squares)[:, 0]
        own = range(len(pairs) + a * width, len(pairs) + (a + 1) * width)
        following[a] = upper(ball_matrix(bounds[own]) * squares)[:, 0]
    return Deviations(columns=columns, following=following)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """T4: up to order, T^-1 = I + Z with ``|Z_ma| <= entries[m, a]`` off the diagonal, Z 1 = 0, and
    ``|s_a - 1| <= scales[a]`` for the factor of column a.
    """

    entries: Floats
    scales: Floats


def mixing(found: Deviations, sizes: Floats) -> Mixing:
    """T4 from bounds ``sizes`` (M,) of |s| for the columns near each e_a."""
    samples = len(sizes)
    largest = flint.arb(0)
    for a in range(samples):
        for b in range(samples):
            if a != b:
                largest = largest.max(flint.arb(sizes[a]) * flint.arb(found.columns[a, b]))
    require(
        bool(samples * largest < 1),
        f"T^-1 is not shown to be near a permutation: {samples} |s| |xi| is up to {samples * largest}",
    )
    scales = sizes
    for _ in range(_ROUNDS):
        scales = upper(ball_matrix(sizes.reshape(1, -1)) * ball_matrix(found.columns))[0]
        sizes = np.minimum(sizes, np.array([upper_float(1 + flint.arb(v)) for v in scales]))
    entries = np.array(
        [
            [upper_float(flint.arb(sizes[a]) * flint.arb(found.columns[a, m])) for a in range(samples)]
            for m in range(samples)
        ]
    )
    return Mixing(entries=entries, scales=scales)


def distances(parts: Factor, found: Mixing, features: Floats) -> Floats:
    """T5: bounds (M, columns) of |[H' 1] - ``features``|, sample by sample, in the order of T4."""
    samples, columns = features.shape
    exact = ball_matrix(features)
    base: Floats = np.zeros((samples, columns))
    for start in range(0, columns, _CHUNK):
        cols = slice(start, min(columns, start + _CHUNK))
        rest = ball_matrix(np.eye(columns)[:, cols]) - parts.right * ball_matrix(features[:, cols])
        base[:, cols] = upper(parts.rows * rest)
    base = _absorbed(base, parts.defect, parts.contraction)
    ones = ball_matrix(np.ones((samples, 1)))
    moved = np.zeros((samples, columns))
    for m in range(samples):
        mixed = interval_matrix(found.entries[m : m + 1])
        moved[m] = upper(mixed * (exact - ones * ball_matrix(features[m : m + 1])))[0]
    total = upper(ball_matrix(base) + ball_matrix(moved))
    return _absorbed(total, 2 * found.entries, _largest_row_sum(2 * found.entries))


def _absorbed(base: Floats, operator: Floats, norm: Any) -> Floats:
    """A bound of D >= 0 from ``D <= base + operator (largest entry of D in its column)``."""
    require(bool(norm < 1), f"the mixing of samples is not small: {norm}")
    top = ball_matrix(base.max(axis=0, keepdims=True)) * (1 / (1 - norm))
    sums = ball_matrix(operator) * ball_matrix(np.ones((operator.shape[1], 1)))
    return upper(ball_matrix(base) + sums * top)


def _equations(
    block: BallMatrix, outgoing: BallMatrix, points: Floats, pairs: list[tuple[int, int]]
) -> tuple[BallMatrix, BallMatrix]:
    """T2: the coefficients of w (n, U), and (n, M) the residuals of the equations at the points."""
    neurons, samples, width = block.nrows(), block.ncols(), outgoing.ncols()
    reached = outgoing * ball_matrix(points.T)
    coefficients, residuals = [], []
    for j in range(neurons):
        row = [block[j, a] for a in range(samples)]
        next_row = [-outgoing[j, k] for k in range(width)]
        coefficients += [2 * row[a] * row[b] for a, b in pairs]
        coefficients += [value * weight for value in row for weight in next_row]
        residuals += [row[a] * (row[a] - reached[j, a]) for a in range(samples)]
    unknowns = len(pairs) + samples * width
    return flint.arb_mat(neurons, unknowns, coefficients), flint.arb_mat(neurons, samples, residuals)


def _solved(defect: Floats, residuals: Floats) -> Floats:
    """T3: bounds s_m >= (I - Y)^-1 t_m, from Y s_m + t_m <= s_m with s_m, t_m > 0, which is verified.

    The t_m are raised for that, since a float solution of a column is only as good as its largest entry. What
    the true t_m say is won back: |w| <= Y |w| + t, so each bound may be put into its own right side.
    """
    lifted = residuals + np.maximum(residuals.max(axis=0) * 2.0**-30, 2.0**-1000)
    require(bool(np.all(np.isfinite(lifted)) and np.all(np.isfinite(defect))), "the bounds are not finite")
    try:
        guess: Floats = np.linalg.solve(np.eye(len(defect)) - defect, lifted) * (1 + 2.0**-20)
    except np.linalg.LinAlgError:
        raise CertificateRejected("null(R) is not shown to be M-dimensional: I - |Y| is singular") from None
    found = upper(ball_matrix(defect) * ball_matrix(guess) + ball_matrix(lifted))
    if not (np.all(guess > 0) and np.all(found <= guess)):
        radius = float(np.abs(np.linalg.eigvals(defect)).max())
        raise CertificateRejected(
            "null(R) is not shown to be M-dimensional for every near gradient: the spectral radius of |Y| "
            f"is about {radius:.2g} and must be below 1"
        )
    for _ in range(_ROUNDS):
        found = np.minimum(found, upper(ball_matrix(defect) * ball_matrix(found) + ball_matrix(residuals)))
    return found


def _squares(bounds: Floats, others: list[int]) -> BallMatrix:
    """T3: bounds (M, 1) of (q_m / q_a)^2 when |q_a| is the largest; ``bounds``: rows of the pairs (a, b)."""
    squares = np.ones((bounds.shape[1], 1))
    for _ in range(_ROUNDS):
        ratios = upper(ball_matrix(bounds) * ball_matrix(squares))[:, 0]
        squares[others, 0] = [min(1.0, upper_float(flint.arb(v) ** 2)) for v in ratios]
    return ball_matrix(squares)


def _scaled_inverse(matrix: Floats) -> Floats:
    """About a left inverse, found with columns of unit length."""
    lengths = np.linalg.norm(matrix, axis=0)
    require(bool(np.all(lengths > 0)), "an equation has a zero column: a sample has no delta")
    found: Floats = _pseudo_inverse(matrix / lengths, "R") / lengths[:, None]
    return found


def _pseudo_inverse(matrix: Floats, name: str) -> Floats:
    try:
        found: Floats = np.linalg.pinv(matrix, rcond=2.0**-50)
    except np.linalg.LinAlgError:
        raise CertificateRejected(f"no pseudo-inverse of {name} was found") from None
    require(bool(np.all(np.isfinite(found))), f"the pseudo-inverse of {name} is not finite")
    return found


def _largest_row_sum(bounds: Floats) -> Any:
    sums = ball_matrix(bounds) * ball_matrix(np.ones((bounds.shape[1], 1)))
    return flint.arb(float(upper(sums).max()))
