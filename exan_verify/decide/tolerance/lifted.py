"""T1 to T3 of Appendix T with balls: how far T^-1 can be from a scaled permutation, for every near batch."""

from __future__ import annotations

from dataclasses import dataclass

import flint
import numpy as np

from exan_verify.decide.tolerance.centre import equations_floats, right_inverse_floats, scaled_pseudo_inverse
from exan_verify.decide.tolerance.problem import NotShownError, Problem
from exan_verify.exact.balls import BallMatrix, Floats, ball_matrix, identity, midpoints, upper

_REFINEMENTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """T1: ``right`` is P, ``product`` = A P, ``left`` = N, all for the balls ``gradient`` of A.

    ``excess`` bounds |N A P - I|; the largest row sum is below one, so A' P has rank M in every near batch.
    """

    gradient: BallMatrix
    right: BallMatrix
    product: BallMatrix
    left: BallMatrix
    excess: Floats


def block(problem: Problem, layer: int, features: Floats) -> Block:
    """T1 at affine layer ``layer``; ``features`` [H 1] (M, columns) guide the choice of P."""
    gradient = problem.balls(layer)
    problem.spend(gradient.nrows() * gradient.ncols() * problem.samples)
    right = right_inverse(features)
    product = gradient * right
    left = ball_matrix(np.linalg.pinv(midpoints(product)))
    excess = upper(left * product - identity(problem.samples))
    worst = float(excess.sum(axis=1).max())
    if not worst < 0.99:
        raise NotShownError(
            f"layer {layer}: rank {problem.samples} is not shown for every gradient within the tolerance "
            f"(the bound comes to {worst:.2g}, which must be below 1)"
        )
    return Block(gradient=gradient, right=right, product=product, left=left, excess=excess)


def right_inverse(features: Floats) -> BallMatrix:
    """P with rows that add up to e_last exactly: multiples of one power of two, the last column the rest."""
    guess = right_inverse_floats(features)
    step = 2.0 ** (np.ceil(np.log2(np.abs(guess).max() * guess.shape[1] + 1)) - 50)
    if not 0 < step < 1:
        raise NotShownError("the features of the batch found are too close to dependent")
    guess = np.rint(guess / step) * step
    total = np.zeros(len(guess))
    total[-1] = 1.0
    # sums of multiples of ``step`` below 2^53 steps are exact in float64
    guess[:, -1] = total - guess[:, :-1].sum(axis=1)
    return ball_matrix(guess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """T3: columns of T^-1 are s (e_a + xi), ``|xi| <= columns[a]``, with next deltas s (points_a + eta),
    ``|eta| <= following[a]``.
    """

    columns: Floats
    following: Floats


def spread(problem: Problem, product: BallMatrix, outgoing: BallMatrix, points: Floats) -> Spread:
    """T2 and T3 for the enclosures ``product`` of A P and ``outgoing`` of w_j . basis."""
    samples, width = points.shape
    unknowns = samples * (samples - 1) // 2 + samples * width
    neurons = product.nrows()
    if unknowns > neurons:
        raise NotShownError(f"{unknowns} equations are needed and {neurons} neurons give one each")
    problem.spend(unknowns * neurons * (unknowns + samples))
    guess, _ = equations_floats(midpoints(product), midpoints(outgoing), points)
    left = ball_matrix(scaled_pseudo_inverse(guess))
    applied = left * _system(product, outgoing, ball_matrix(points))
    target = np.concatenate([np.eye(unknowns), np.zeros((unknowns, samples))], axis=1)
    bounds = upper(applied - ball_matrix(target))
    solved = _neumann(bounds[:, :unknowns], bounds[:, unknowns:])
    return _read(solved, samples, width)


def _system(product: BallMatrix, outgoing: BallMatrix, points: BallMatrix) -> BallMatrix:
    """[coefficients of w | residuals at the points], one row per neuron (T2)."""
    neurons, samples, width = product.nrows(), product.ncols(), outgoing.ncols()
    reached = outgoing * points.transpose()
    table = []
    for j in range(neurons):
        own = [product[j, a] for a in range(samples)]
        for a in range(samples):
            table += [2 * own[a] * own[b] for b in range(a + 1, samples)]
        for a in range(samples):
            table += [-own[a] * outgoing[j, k] for k in range(width)]
        table += [own[a] * (own[a] - reached[j, a]) for a in range(samples)]
    return flint.arb_mat(neurons, len(table) // neurons, table)


def _neumann(defect: Floats, residuals: Floats) -> Floats:
    """``|w| <= defect |w| + residuals`` solved: with weights s, defect s <= kappa s and t <= c s give
    ``|w| <= t + defect s c / (1 - kappa)``.
    """
    if not (np.all(np.isfinite(defect)) and np.all(np.isfinite(residuals))):
        raise NotShownError("the bounds on the lifted equations are not finite")
    top = residuals.max(axis=1) + residuals.max() * 2.0**-20 + 1e-300
    try:
        weights = np.linalg.solve(np.eye(len(defect)) - defect, top)
    except np.linalg.LinAlgError:
        weights = np.zeros(len(defect))
    if not np.all(weights > 0):
        radius = float(np.abs(np.linalg.eigvals(defect)).max())
        raise NotShownError(
            "the lifted equations do not tell the samples apart for every gradient within the tolerance "
            f"(the bound comes to {radius:.2g}, which must be below 1)"
        )
    scale = [1 / flint.arb(weight) for weight in weights.tolist()]
    grown = ball_matrix(defect) * ball_matrix(weights.reshape(-1, 1))
    kappa = _largest([grown[i, 0] * scale[i] for i in range(len(scale))])
    if not kappa < 1:
        raise NotShownError("the lifted equations are too ill-conditioned for this tolerance")
    exact = ball_matrix(residuals)
    sizes = [_largest([exact[i, m] * scale[i] for i in range(len(scale))]) for m in range(exact.ncols())]
    factors = flint.arb_mat(1, len(sizes), [size / (1 - kappa) for size in sizes])
    return upper(exact + grown * factors)


def _largest(values: list[flint.arb]) -> flint.arb:
    best = flint.arb(0)
    for value in values:
        best = best.max(value.abs_upper())
    return best


def _read(solved: Floats, samples: int, width: int) -> Spread:
    """From bounds per q_m^2 to bounds relative to the largest entry q_a: |q_b| and |u - q_a point_a|."""
    first, second = np.triu_indices(samples, 1)
    columns, following = np.zeros((samples, samples)), np.zeros((samples, width))
    for a in range(samples):
        mine = np.flatnonzero((first == a) | (second == a))
        other = np.where(first[mine] == a, second[mine], first[mine])
        weights = ball_matrix(np.ones((samples, 1)))
        for _ in range(_REFINEMENTS):
            ratio = dict(zip(other.tolist(), (ball_matrix(solved[mine]) * weights).entries(), strict=True))
            ones = [flint.arb(1) if m == a else (ratio[m] ** 2).min(flint.arb(1)) for m in range(samples)]
            weights = flint.arb_mat(samples, 1, [value.abs_upper() for value in ones])
        columns[a, other] = upper(ball_matrix(solved[mine]) * weights)[:, 0]
        start = len(first) + a * width
        following[a] = upper(ball_matrix(solved[start : start + width]) * weights)[:, 0]
    return Spread(columns=columns, following=following)
