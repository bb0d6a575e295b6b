"""Networks without biases: which other scale a single sample can have (docs/theory.md section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import flint

from exan_verify.core.question import Loss
from exan_verify.smt.question.posed import Vector


def other_scale(loss: Loss, logits: Sequence[Fraction], label: Vector, other: Vector) -> bool:
    """Whether ``c g(c f, other) = g(f, label)`` may hold for some c > 0 (c != 1 when the labels agree)."""
    if loss is Loss.MSE:
        return _common_root(logits, label, other)
    if label != other:
        return False  # signs of loss vectors tell labels
    if loss is Loss.CROSS_ENTROPY:
        own = label.index(Fraction(1))
        margins = {logits[own] - f for c, f in enumerate(logits) if c != own}
    else:
        margins = {f if y else -f for f, y in zip(logits, label, strict=True)}
    return len(margins) == 1 and min(margins) > 0


def _common_root(logits: Sequence[Fraction], label: Vector, other: Vector) -> bool:
    """mse: per logit ``f c^2 - y' c - (f - y) = 0``; a positive common root beside c = 1 for equal labels."""
    common = flint.fmpq_poly([])
    for f, y, z in zip(logits, label, other, strict=True):
        common = common.gcd(flint.fmpq_poly([_q(y - f), _q(-z), _q(f)]))
    if common == 0:
        return True
    if label == other:
        common = common // flint.fmpq_poly([-1, 1])
    coefficients = [Fraction(int(c.p), int(c.q)) for c in common.coeffs()]
    return _has_positive_root(coefficients)


def _has_positive_root(coefficients: Sequence[Fraction]) -> bool:
    """A polynomial of degree at most two, constant term first."""
    if len(coefficients) < 2:
        return False
    if len(coefficients) == 2:
        return -coefficients[0] / coefficients[1] > 0
    constant, linear, square = coefficients
    if linear**2 < 4 * square * constant:
        return False
    # the product and the sum of the roots: none is positive iff both are >= 0 below zero
    return constant / square < 0 or -linear / square > 0


def _q(value: Fraction) -> flint.fmpq:
    return flint.fmpq(value.numerator, value.denominator)
