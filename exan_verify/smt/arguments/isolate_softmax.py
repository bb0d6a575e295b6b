"""The excluded ball around the known batch for cross_entropy and bce (see
:mod:`exan_verify.smt.question.isolate`).

In the known batch's own cube the gradient is F(x, p), polynomial in the inputs x and linear in the
probabilities p, and a real alternative batch has p' = p(x'). With x' = x + h, the displacement of the logits
u = A h, and S the derivative of the probabilities by the logits,

    p' = p + S A h + R,    |R| <= kappa |u|^2     (maximum norms)

with kappa = 1/2 for softmax (its second directional derivative is p_k ((u_k - mean u)^2 - var u), at most
|u|^2 in absolute value) and 1/20 for the sigmoid (|sigma''| <= 1 / (6 sqrt 3)). So with J = F_x + F_p S A and
any rational L, L (F(x', p') - F(x, p)) = 0 reads

    h = (I - L J) h - L F_p R - L B(h, p' - p),

whence |h| (1 - eps) <= |h|^2 (c_1 + c_2 |h|), and there is no other batch with 0 < |h| < min(1, (1 - eps) /
(c_1 + c_2)). The real numbers in F_x and S are balls; everything else is rational.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.question import Loss
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.question.encode import Encoding
from exan_verify.smt.question.encoder import Sample
from exan_verify.smt.question.isolate import left_inverses
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.replay import ExactBatch
from exan_verify.smt.question.terms import Poly
from exan_verify.smt.question.transcendental import PRECISION, middle, probability, upper

KAPPA = {Loss.CROSS_ENTROPY: Fraction(1, 2), Loss.BCE: Fraction(1, 20)}
Row = dict[str, Any]
"""A sparse row of balls, by the name of an input variable."""


def softmax_isolation(
    posed: Posed, encoding: Encoding, truth: ExactBatch, order: Sequence[int]
) -> Fraction | None:
    """Half width of an open cube around the known batch, in that order of its samples, without another
    batch of the same gradient; None when the Jacobian cannot be inverted well enough.
    """
    with flint.ctx.workprec(PRECISION):
        return _isolation(posed, encoding, truth, order)


def _isolation(posed: Posed, encoding: Encoding, truth: ExactBatch, order: Sequence[int]) -> Fraction | None:
    origin = {
        _name(v): to_ball(t.value)
        for s, n in zip(encoding.samples, order, strict=True)
        for v, t in zip(s.x, truth.x[n], strict=True)
    }
    balls, slopes = probability_slopes(posed, encoding.samples, origin)
    names = sorted(origin)
    equations = [e for _, e in encoding.equations]
    jacobian = [total_derivative(partials(e), names, balls, slopes) for e in equations]
    centre = np.array([[_short(middle(row[n])) for n in names] for row in jacobian], dtype=object)
    rests = _rests(posed, encoding.samples)
    for left in left_inverses(centre.reshape(len(equations), len(names))):
        found = _radius(left, jacobian, equations, names, balls, slopes, rests)
        if found is not None:
            return found
    return None


def probability_slopes(
    posed: Posed, samples: Sequence[Sample], inputs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Row]]:
    """Balls of the free probabilities over a box of inputs, beside the inputs themselves, and of their
    derivatives by the inputs.
    """
    balls, slopes = dict(inputs), dict[str, Row]()
    for sample in samples:
        names = [_name(v) for v in sample.x]
        logits = [f.evaluate(inputs, to_ball) for f in sample.logits]
        values = [probability(logits, k, posed.question.loss) for k in range(len(logits))]
        gains = _gains(sample)
        for k, p in enumerate(sample.probabilities):
            if _is_free(p):
                balls[_name(p)] = values[k]
                slopes[_name(p)] = {
                    n: _slope(posed.question.loss, values, k, [g[n] for g in gains]) for n in names
                }
    return balls, slopes


def _gains(sample: Sample) -> list[dict[str, Fraction]]:
    """The linear map A from inputs to logits, a row per logit."""
    return [{_name(v): f.terms.get((_name(v),), Fraction(0)) for v in sample.x} for f in sample.logits]


def _rests(posed: Posed, samples: Sequence[Sample]) -> dict[str, Fraction]:
    """kappa |A|^2 for every free probability."""
    found = {}
    for sample in samples:
        reach = max(sum(map(abs, g.values()), Fraction(0)) for g in _gains(sample))
        for p in sample.probabilities:
            if _is_free(p):
                found[_name(p)] = KAPPA[posed.question.loss] * reach**2
    return found


def _is_free(probability: Poly) -> bool:
    """Whether it is a variable of its own, not one minus the others."""
    return len(probability.terms) == 1 and probability.degree == 1


def _slope(loss: Loss, values: Sequence[Any], k: int, gain: Sequence[Fraction]) -> Any:
    """Derivative of p_k along a logit displacement: p_k (u_k - sum p_c u_c), or p_k (1 - p_k) u_k."""
    if loss is Loss.BCE:
        return values[k] * (1 - values[k]) * to_ball(gain[k])
    mean = sum((v * to_ball(u) for v, u in zip(values, gain, strict=True)), flint.arb(0))
    return values[k] * (to_ball(gain[k]) - mean)


Partials = Mapping[str, Poly]
"""Partial derivatives of an equation by the variables that occur in it."""


def partials(equation: Poly) -> Partials:
    """All partial derivatives."""
    return {name: equation.derivative(name) for name in equation.variables()}


def total_derivative(
    parts: Partials, names: Sequence[str], balls: Mapping[str, Any], slopes: Mapping[str, Row]
) -> Row:
    """A row of J: the total derivative of an equation by the inputs, through the probabilities too."""
    row: Row = {n: flint.arb(0) for n in names}
    for variable, derivative in parts.items():
        if variable in slopes:
            partial = derivative.evaluate(balls, to_ball)
            for n, s in slopes[variable].items():
                row[n] += partial * s
        elif variable in row:
            row[variable] += derivative.evaluate(balls, to_ball)
    return row


def _radius(
    left: Any,
    jacobian: Sequence[Row],
    equations: Sequence[Poly],
    names: Sequence[str],
    balls: Mapping[str, Any],
    slopes: Mapping[str, Row],
    rests: Mapping[str, Fraction],
) -> Fraction | None:
    moves = {n: sum((upper(abs(s)) for s in row.values()), Fraction(0)) for n, row in slopes.items()}
    worst, first, second = Fraction(0), Fraction(0), Fraction(0)
    for i, weights in enumerate(left):
        worst = max(worst, _defect(weights, jacobian, names, i))
        combined = _combine(weights, equations)
        once, twice = _second_order(combined, balls, moves, rests)
        first, second = max(first, once), max(second, twice)
    if worst >= 1:
        return None
    if not first + second:
        return Fraction(1)
    return min(Fraction(1), (1 - worst) / (first + second))


def _defect(weights: Any, jacobian: Sequence[Row], names: Sequence[str], i: int) -> Fraction:
    """Row sum of |I - L J|."""
    found = Fraction(0)
    for k, n in enumerate(names):
        entry = sum(
            (to_ball(w) * row[n] for w, row in zip(weights, jacobian, strict=True) if w), flint.arb(0)
        )
        found += upper(abs(entry - (1 if i == k else 0)))
    return found


def _second_order(
    combined: Poly, balls: Mapping[str, Any], moves: Mapping[str, Fraction], rests: Mapping[str, Fraction]
) -> tuple[Fraction, Fraction]:
    """Bounds c_1, c_2 with |L F_p R + L B(h, q)| <= c_1 |h|^2 + c_2 |h|^3 for a row L F."""
    first, second = Fraction(0), Fraction(0)
    for name, rest in rests.items():
        first += upper(abs(combined.derivative(name).evaluate(balls, to_ball))) * rest
    for monomial, c in combined.terms.items():
        moving = [n for n in monomial if n in balls]
        if len(moving) > 2 or sum(n in rests for n in moving) > 1:
            raise ValueError("the gradient equations are not linear in the probabilities and the inputs")
        if len(moving) == 2:
            probability = next((n for n in moving if n in rests), None)
            if probability is None:
                first += abs(c)
            else:
                first += abs(c) * moves[probability]
                second += abs(c) * rests[probability]
    return first, second


def _combine(weights: Any, equations: Sequence[Poly]) -> Poly:
    out = Poly({})
    for w, e in zip(weights, equations, strict=True):
        if w:
            out = out + e * w
    return out


def _short(value: Fraction) -> Fraction:
    return Fraction(round(value * 2**60), 2**60)


def _name(variable: Poly) -> str:
    (name,) = variable.variables()
    return name
