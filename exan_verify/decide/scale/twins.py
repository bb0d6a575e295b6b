"""Twins of one sample in a network without biases: all (c, y') with ``c g(c f, y') = g(f, y)`` (3.5).

mse: per logit ``f c^2 - y' c - (f - y) = 0``, so the common roots of K quadratics. cross_entropy: the sign
pattern of g gives y' = y; dividing the equations of two classes other than y gives c = 1 unless their logits
agree; what is left is ``c / (e^{ct} + K - 1) = 1 / (e^t + K - 1)`` with the margin t: the left side rises and
falls once when t > 0, so there is exactly one other root (its top is never at c = 1, because e^t is
irrational), and it only rises when t <= 0. bce: the same with w = 1 for every logit, and one c never serves
two different positive margins. hinge: entries of g are multiples of one number, so c = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import flint
import numpy as np

from exan_verify.core.certificate import Twin
from exan_verify.core.network import Array, to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.context import Context
from exan_verify.decide.labels import admitted
from exan_verify.exact.softmax import to_ball

_ROOT_BITS = 96
_MAX_HALVINGS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinSearch:
    """One twin, if one is proved inside the domain; ``excluded``: provably there is none in all of R^d."""

    found: Twin | None
    excluded: bool


def twins_of(context: Context, m: int) -> TwinSearch:
    """All twins of sample m, as far as they can be decided."""
    loss = context.question.loss
    if not any(context.batch.inputs[m]) or loss is Loss.HINGE:
        # a zero input gives zero logits at every scale; hinge fixes the scale
        return TwinSearch(found=None, excluded=loss is Loss.HINGE)
    if loss is Loss.MSE:
        return _mse(context, m)
    margin = _common_margin(context, m)
    if margin is None or margin <= 0:
        return TwinSearch(found=None, excluded=True)
    weight = context.network.classes - 1 if loss is Loss.CROSS_ENTROPY else 1
    return _located(context, m, [(bracket_of_margin(margin, weight), None)])


def margins(loss: Loss, logits: Sequence[Fraction], label: Array) -> list[Fraction]:
    """The margins t of the module docstring: per wrong class, or per logit for bce."""
    if loss is Loss.CROSS_ENTROPY:
        y = int(label)
        return [logits[y] - value for k, value in enumerate(logits) if k != y]
    return [value if y == 1 else -value for value, y in zip(logits, label, strict=True)]


def quadratics(
    logits: Sequence[Fraction], label: Sequence[Fraction], other: Sequence[Fraction]
) -> list[Fraction]:
    """Greatest common divisor of ``f c^2 - y' c - (f - y)`` over the logits, without factors c - 1 when
    y' = y; coefficients from the constant term up; empty when all vanish.
    """
    common = flint.fmpq_poly([])
    for f, y, z in zip(logits, label, other, strict=True):
        common = common.gcd(flint.fmpq_poly([_q(y - f), _q(-z), _q(f)]))
    if tuple(label) == tuple(other) and common != 0:
        unit = flint.fmpq_poly([-1, 1])
        while common.degree() > 0 and common(1) == 0:
            common = common // unit
    return [Fraction(int(c.p), int(c.q)) for c in common.coeffs()]


def _q(value: Fraction) -> object:
    return flint.fmpq(value.numerator, value.denominator)


def _mse(context: Context, m: int) -> TwinSearch:
    logits = [to_fraction(v) for v in context.passed.logits[:, m]]
    label = [to_fraction(v) for v in context.batch.labels[m]]
    if context.question.labels is Labels.REAL:
        return _real(context, m, logits, label)
    candidates: list[tuple[tuple[Fraction, Fraction], tuple[Fraction, ...] | None]] = []
    for row in admitted(context.question, context.batch.labels, context.network.classes):
        other = tuple(map(to_fraction, row))
        polynomial = quadratics(logits, label, other)
        if not polynomial:
            return TwinSearch(found=None, excluded=False)
        candidates += [(bracket, other) for bracket in positive_roots(polynomial)]
    return _located(context, m, candidates)


def _real(context: Context, m: int, logits: list[Fraction], label: list[Fraction]) -> TwinSearch:
    """Real targets follow any scale: y' = c f - (f - y) / c."""
    for power in range(60):
        for sign in (1, -1):
            c = 1 + sign * Fraction(1, 1 << power)
            if c > 0 and _inside(context, m, c, c):
                target = tuple(str(c * f - (f - y) / c) for f, y in zip(logits, label, strict=True))
                twin = Twin(sample=m, low=str(c), high=str(c), target=target)
                return TwinSearch(found=twin, excluded=False)
    return TwinSearch(found=None, excluded=False)


def _located(
    context: Context, m: int, candidates: list[tuple[tuple[Fraction, Fraction], tuple[Fraction, ...] | None]]
) -> TwinSearch:
    """The first candidate that is proved inside the domain; excluded when there is none at all."""
    label = tuple(to_fraction(v) for v in np.atleast_1d(context.batch.labels[m]))
    for (low, high), other in candidates:
        changed = other is not None and other != label
        if _inside(context, m, low, high) and not (changed and context.question.labels is Labels.KNOWN):
            target = tuple(map(str, other)) if other is not None and changed else None
            return TwinSearch(
                found=Twin(sample=m, low=str(low), high=str(high), target=target), excluded=False
            )
    return TwinSearch(found=None, excluded=not candidates)


def _inside(context: Context, m: int, low: Fraction, high: Fraction) -> bool:
    """Whether c x_m is in the domain for every c in [low, high]: a box is convex, so two ends are enough."""
    domain = context.question.domain
    if domain is None:
        return True
    lo, hi = domain.bounds(context.batch.inputs.shape[1])
    row = context.batch.x[m]
    return all(
        to_fraction(a) <= c * v <= to_fraction(b)
        for c in (low, high)
        for v, a, b in zip(row, lo, hi, strict=True)
    )


def _common_margin(context: Context, m: int) -> Fraction | None:
    """The margin when all agree; None when they differ or one is not positive: then only c = 1 fits."""
    found = margins(
        context.question.loss, [to_fraction(v) for v in context.passed.logits[:, m]], context.batch.labels[m]
    )
    if not found or len(set(found)) > 1:
        return None
    return found[0]


def positive_roots(polynomial: Sequence[Fraction]) -> list[tuple[Fraction, Fraction]]:
    """Brackets [low, high] of the positive roots of a polynomial of degree at most 2; equal ends: exact."""
    if len(polynomial) == 2:
        root = -polynomial[0] / polynomial[1]
        return [(root, root)] if root > 0 else []
    if len(polynomial) < 3:
        return []
    constant, linear, square = polynomial
    discriminant = linear**2 - 4 * square * constant
    if discriminant < 0:
        return []
    low, high = _square_root(discriminant)
    brackets = []
    for sign in (1, -1):
        ends = sorted((-linear + sign * root) / (2 * square) for root in (low, high))
        if ends[0] > 0:
            brackets.append((ends[0], ends[1]))
    return sorted(set(brackets))


def _square_root(value: Fraction) -> tuple[Fraction, Fraction]:
    numerator, denominator = value.numerator * value.denominator, value.denominator
    exact = isqrt(numerator)
    if exact * exact == numerator:
        return Fraction(exact, denominator), Fraction(exact, denominator)
    scaled = isqrt(numerator << (2 * _ROOT_BITS))
    unit = denominator << _ROOT_BITS
    return Fraction(scaled, unit), Fraction(scaled + 1, unit)


def bracket_of_margin(margin: Fraction, weight: int) -> tuple[Fraction, Fraction]:
    """A bracket of the root c != 1 of ``c / (e^{ct} + w) = 1 / (e^t + w)`` for t > 0, away from 1."""
    rising = sign_of(margin, weight, Fraction(1), slope=True) > 0
    near = Fraction(1)
    for power in range(1, _MAX_HALVINGS):
        step = Fraction(1, 1 << power)
        near = 1 + step if rising else 1 - step
        if sign_of(margin, weight, near) > 0:
            break
    far = near
    for _ in range(_MAX_HALVINGS):
        far = 2 * far if rising else far / 2
        if sign_of(margin, weight, far) < 0:
            break
    low, high = min(near, far), max(near, far)
    for _ in range(60):
        middle = (low + high) / 2
        if (sign_of(margin, weight, middle) > 0) is rising:
            low = middle
        else:
            high = middle
    return low, high


def sign_of(margin: Fraction, weight: int, c: Fraction, *, slope: bool = False) -> int:
    """Sign of ``c (e^t + w) - (e^{ct} + w)``, or with ``slope`` of its derivative in c at c = 1, by balls.

    Neither is ever zero for rational t > 0 and rational c > 0, c != 1 (Lindemann-Weierstrass: e^t, e^{ct}
    and 1 are linearly independent over Q), so the precision is raised until the sign is known.
    """
    precision = 128
    while True:
        with flint.ctx.workprec(precision):
            t, scale = to_ball(margin), to_ball(c)
            top = t.exp()
            there = t * top if slope else (scale * t).exp() + weight
            value = (1 if slope else scale) * (top + weight) - there
            if value > 0:
                return 1
            if value < 0:
                return -1
        precision *= 2
