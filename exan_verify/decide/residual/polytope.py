"""Where a row of Q can lie: ``q . 1 = 1`` and ``H_{L-1}^T q >= 0``, in coordinates ``a = (q_2, ..., q_r)``.

A box of inputs bounds ``H_{L-1}^T q`` from above too: by intervals, layer by layer.

A constraint reads ``alpha + beta . a >= 0``. A bound of a coordinate is proved by at most r - 1 constraints:
``sum y_j beta_j = -+e_k`` with y >= 0. Floating point guesses which; the multipliers are solved exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Array, to_fraction
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.linalg import solve
from exan_verify.exact.lp import guessed_optimum


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A box that contains every admitted row: ``low`` and ``high`` per coordinate.

    ``rows[k]``: the constraints that prove the lower and the upper bound of coordinate k.
    """

    low: tuple[Fraction, ...]
    high: tuple[Fraction, ...]
    rows: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def constraints(rest: Rest) -> Array | None:
    """(rows, r): rows alpha, beta_1, ..., beta_{r-1}, Fractions; None when nothing bounds the features.

    With hidden layers, the activations of the last one are >= 0, and bounded where the inputs are; without, a
    box bounds the inputs. The row of a single sample is (1) and has no coordinate to bound.
    """
    depth, domain = rest.context.network.depth, rest.context.question.domain
    if rest.size == 1:
        return np.empty((0, 1), dtype=object)
    values = rest.features(depth - 1).fractions()
    if domain is None:
        return _relative(values) if depth > 1 else None
    network = rest.context.network
    lo, hi = (np.array([[to_fraction(v)] for v in b], dtype=object) for b in domain.bounds(network.widths[0]))
    for layer in network.layers[:-1]:
        weight = fractions(layer.weight)
        bias = 0 if layer.bias is None else fractions(layer.bias)[:, None]
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)
        lo, hi = (np.maximum(up @ a + down @ b + bias, 0) for a, b in ((lo, hi), (hi, lo)))
    return _relative(np.concatenate([values if depth > 1 else values - lo, hi - values]))


def bounds(rows: Array) -> Bounds | None:
    """The bounding box of the constraints (rows, r), or None when a coordinate is not shown to be bounded."""
    low, high, used = [], [], []
    for k in range(rows.shape[1] - 1):
        lower, upper = _bound(rows, k, 1), _bound(rows, k, -1)
        if lower is None or upper is None:
            return None
        low.append(-lower[0])
        high.append(upper[0])
        used.append((lower[1], upper[1]))
    return Bounds(low=tuple(low), high=tuple(high), rows=tuple(used))


def _relative(values: Array) -> Array:
    found: Array = np.concatenate([values[:, :1], values[:, 1:] - values[:, :1]], axis=1)
    return found


def _bound(rows: Array, axis: int, sign: int) -> tuple[Fraction, tuple[int, ...]] | None:
    """``-sign a_axis <= bound`` with the constraints that show it."""
    dimension = rows.shape[1] - 1
    floats = guessed(rows)
    scale = np.abs(floats).max(axis=1)
    kept = np.flatnonzero(scale > 0)
    floats = floats[kept] / scale[kept, None]
    cost = np.zeros(dimension)
    cost[axis] = sign
    found = guessed_optimum(cost, A_ub=-floats[:, 1:], b_ub=floats[:, 0], bounds=(None, None), method="highs")
    if found.status != 0:
        return None
    active = kept[np.flatnonzero(np.abs(found.ineqlin.marginals) > 1e-9)]
    if not 0 < len(active) <= dimension:
        return None
    goal = np.full((dimension, 1), Fraction(0), dtype=object)
    goal[axis, 0] = Fraction(sign)
    multipliers = solve(rows[active][:, 1:].T, goal)
    if multipliers is None or np.any(multipliers < 0):
        return None
    return (rows[active][:, 0] @ multipliers)[0], tuple(int(j) for j in active)
