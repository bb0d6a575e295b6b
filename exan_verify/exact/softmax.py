"""Loss vectors: exactly over Q, through Q(T) -> F_p, and as rigorous real balls (docs/theory.md 3.6).

All parameters and inputs are rational, so all logits of a batch are ``a / D`` with integers a and one common
denominator D. Put T = e^(1/D). T is transcendental (Hermite: e is; Lindemann: e^r is for every rational
r != 0), so exp(a / D) = T^a and every softmax or sigmoid value is an element of Q(T), which is isomorphic to
the rational functions in one variable. Sending T to a non-zero t in F_p is a ring homomorphism on the
elements whose denominators do not vanish at t; exponents, negative ones too, reduce mod p - 1 because
t^(p-1) = 1. A minor that is non-zero at t is therefore non-zero in Q(T), and non-zero as a real number.
D is one number for the whole batch: 2 has no inverse mod p - 1, so exponents are never divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import flint
import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array, to_fraction
from exan_verify.core.question import Loss
from exan_verify.exact.modular import PRIME, Residues, inverse, residues


class VanishingDenominatorError(ArithmeticError):
    """A denominator is zero at this t.

    Remedy: take another t; a vanished denominator proves nothing and must not be ignored.
    """


def loss_vectors(loss: Loss, logits: Array, labels: Array, divisor: int) -> Array:
    """Loss vectors (K, M) as Fractions for a rational loss (mse, hinge).

    ``logits`` (K, M) Fractions; ``labels`` as in :class:`exan_verify.core.network.Batch`; ``divisor`` from
    :meth:`exan_verify.core.network.Loss.divisor`.
    """
    if loss is Loss.MSE:
        return _mse(logits, labels, divisor)
    if loss is Loss.HINGE:
        return _hinge(logits, labels, divisor)
    raise ValueError(f"{loss} has no rational loss vectors")


def loss_vectors_mod(
    loss: Loss, logits: Array, labels: Array, divisor: int, t: int, prime: int = PRIME
) -> Residues:
    """Image (K, M) in F_p of the loss vectors under T -> t. ``t`` is not used for rational losses.

    Raises :class:`VanishingDenominatorError` when a denominator is zero at t.
    """
    if loss.rational:
        return residues(loss_vectors(loss, logits, labels, divisor), prime)
    exponents = _common_exponents(logits)
    powers = []
    for row in exponents:
        poll()
        powers.append([pow(t, int(a) % (prime - 1), prime) for a in row])
    scale = inverse(divisor, prime)
    out = np.empty(logits.shape, dtype=np.uint64)
    for m in range(logits.shape[1]):
        poll()
        column = [row[m] for row in powers]
        denominators = [sum(column)] * len(column) if loss is Loss.CROSS_ENTROPY else [1 + e for e in column]
        values = [_ratio(e, total, prime) for e, total in zip(column, denominators, strict=True)]
        for k, value in enumerate(values):
            target = _target(loss, labels, k, m)
            out[k, m] = (value - target) * scale % prime
    return out


def loss_vectors_ball(loss: Loss, logits: Array, labels: Array, divisor: int, precision: int = 128) -> Any:
    """Loss vectors as an ``arb_mat`` (K, M): balls that contain the real values, for any loss."""
    if loss.rational:
        exact = loss_vectors(loss, logits, labels, divisor)
        return flint.arb_mat(*exact.shape, [to_ball(v) for v in exact.reshape(-1)])
    with flint.ctx.workprec(precision):
        columns = [_ball_column(loss, logits[:, m], labels, m, divisor) for m in range(logits.shape[1])]
        rows, cols = logits.shape
        return flint.arb_mat(rows, cols, [columns[m][k] for k in range(rows) for m in range(cols)])


def mse_targets(logits: Array, vectors: Array, divisor: int) -> Array:
    """Targets y with ``vectors = 2 (logits - y) / divisor`` (mse); all (K, M), Fractions."""
    out = np.empty(logits.shape, dtype=object)
    for (k, m), value in np.ndenumerate(logits):
        out[k, m] = value - vectors[k, m] * divisor / 2
    return out


def to_ball(value: Fraction) -> Any:
    """A ball that contains a rational number."""
    return flint.arb(flint.fmpq(value.numerator, value.denominator))


def probabilities(loss: Loss, logits: list[Any]) -> list[Any]:
    """softmax, or sigmoid for bce, of K logits that are balls."""
    if loss is Loss.BCE:
        return [1 / (1 + (-v).exp()) for v in logits]
    # softmax(f)_k = 1 / sum_c exp(f_c - f_k): no overflow, no cancellation
    return [1 / sum(((c - v).exp() for c in logits), flint.arb(0)) for v in logits]


GRID = 48
"""Binary places of :func:`probability_bounds`."""


def probability_bounds(
    ranges: Sequence[tuple[Fraction | None, Fraction | None]],
) -> tuple[Fraction, Fraction]:
    """Rational bounds, of :data:`GRID` binary places, of ``1 / (1 + sum_k e^(v_k))`` for v_k in their ranges.

    With v_k = f_k - f_c over the other classes it is a softmax probability, with one v = -f a sigmoid. An end
    None is infinite; a bound is 0 or 1 only where the value comes as close to it as the grid tells.
    """
    least, most = flint.arb(1), flint.arb(1)
    for low, high in ranges:
        least = least + (0 if low is None else to_ball(low).exp())
        most = None if most is None or high is None else most + to_ball(high).exp()
    scale = 1 << GRID
    below = 0 if most is None else int((scale / most).lower().floor().unique_fmpz())
    above = int((scale / least).upper().ceil().unique_fmpz())
    return Fraction(max(below, 0), scale), Fraction(min(above, scale), scale)


def rounded_up(ball: Any, places: int = GRID) -> Fraction:
    """A rational of so many binary places at or above everything in a ball; it must be finite."""
    return Fraction(int((ball * (1 << places)).upper().ceil().unique_fmpz()), 1 << places)


def _ball_column(loss: Loss, logits: Array, labels: Array, m: int, divisor: int) -> list[Any]:
    values = probabilities(loss, [to_ball(v) for v in logits])
    return [(v - _target(loss, labels, k, m)) / divisor for k, v in enumerate(values)]


def _target(loss: Loss, labels: Array, k: int, m: int) -> int:
    """Entry k of sample m's 0/1 target."""
    if loss is Loss.CROSS_ENTROPY:
        return int(labels[m] == k)
    if loss is Loss.BCE:
        return int(labels[m, k])
    raise ValueError(f"{loss} is no loss of probabilities")  # else it would be taken for one of them


def _mse(logits: Array, labels: Array, divisor: int) -> Array:
    out = np.empty(logits.shape, dtype=object)
    for (k, m), value in np.ndenumerate(logits):
        out[k, m] = 2 * (value - to_fraction(labels[m, k])) / divisor
    return out


def _hinge(logits: Array, labels: Array, divisor: int) -> Array:
    """multi_margin_loss with p = 1, margin 1: each class c != y with 1 - f_y + f_c > 0 contributes 1/K."""
    classes, samples = logits.shape
    out = np.full(logits.shape, Fraction(0), dtype=object)
    for m in range(samples):
        y = int(labels[m])
        for c in range(classes):
            if c != y and 1 - logits[y, m] + logits[c, m] > 0:
                out[c, m] += Fraction(1, classes * divisor)
                out[y, m] -= Fraction(1, classes * divisor)
    return out


def _common_exponents(logits: Array) -> Array:
    common = lcm(1, *(value.denominator for value in logits.reshape(-1)))
    out = np.empty(logits.shape, dtype=object)
    for index, value in np.ndenumerate(logits):
        out[index] = value.numerator * (common // value.denominator)
    return out


def _ratio(numerator: int, denominator: int, prime: int) -> int:
    if denominator % prime == 0:
        raise VanishingDenominatorError("a softmax denominator is zero at this t")
    return numerator * inverse(denominator, prime) % prime
