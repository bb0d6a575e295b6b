"""Which properties of exp a model of the over-approximation violates (see
:mod:`exan_verify.smt.question.refine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import flint

from exan_verify.core.question import Loss
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.cubes import Task
from exan_verify.smt.question.encode import encode
from exan_verify.smt.question.refine import Lemma, Pair, odds
from exan_verify.smt.question.transcendental import lower, upper
from exan_verify.smt.solvers.run import Answer

SLACK = Fraction(1, 2**60)
"""Relative error of odds below which a model counts as satisfying exp: algebraic values are approximated."""


FAR = Fraction(64)
"""Beyond this logit difference odds are only compared with exp(+-64): longer numbers would not help."""


def violated(task: Task, answer: Answer) -> list[Lemma]:
    """Lemmas that exclude the model, at most three for each odds pair; those known already are left out."""
    posed = task.posed
    encoding = encode(posed, task.assignment)
    values = {name: _approximate(v) for name, v in answer.model.items()}
    found: list[Lemma] = []
    for pair in pairs(task):
        a, b, t = (_evaluate(p, values) for p in odds(posed, encoding.samples, pair))
        found += _at_pair(pair, a / b if b else Fraction(2**64), t)
        found += _equal_logits(task, pair, t)
    return [lemma for lemma in dict.fromkeys(found) if lemma not in task.lemmas]


def pairs(task: Task) -> list[Pair]:
    """The odds pairs of the unknown samples."""
    posed = task.posed
    classes = range(posed.network.classes)
    if posed.question.loss is Loss.BCE:
        return [(m, k, -1) for m in range(posed.size) for k in classes]
    return [(m, a, b) for m in range(posed.size) for a in classes for b in classes if a < b]


def _at_pair(pair: Pair, ratio: Fraction, t: Fraction) -> list[Lemma]:
    """Threshold and both tangents at a short number near t, close enough to exclude this ratio."""
    near = max(-FAR, min(FAR, t))
    ball = _exp(near)
    above, below = ratio / lower(ball) - 1, upper(ball) / ratio - 1
    error = max(above if t <= FAR else Fraction(0), below if t >= -FAR else Fraction(0))
    if error <= SLACK:
        return []
    t0 = _short(near, min(error, Fraction(1)) / 8)
    low, high = _short_exp(t0, min(error, Fraction(1)) / 8)
    m, a, b = pair
    flipped = (m, b, a) if b >= 0 else (m, a, -2)
    return [
        Lemma("threshold", pair, numbers=(t0, low, high)),
        Lemma("tangent", pair, numbers=(t0, low)),
        Lemma("tangent", flipped, numbers=(-t0, 1 / high)),
    ]


def _equal_logits(task: Task, pair: Pair, t: Fraction) -> list[Lemma]:
    """Where a logit difference coincides with one of the known batch, so do the odds."""
    _, a, b = pair
    posed, found = task.posed, []
    for n in range(len(posed.target.reference)):
        other = (posed.size + n, a, b)
        _, _, s = odds(posed, (), other)
        if abs(s.value - t) < Fraction(1, 2**20):
            found.append(Lemma("order", pair, other=other))
    return found


def _exp(t: Fraction) -> Any:
    with flint.ctx.workprec(256):
        return to_ball(t).exp()


def _short(value: Fraction, reach: Fraction) -> Fraction:
    """The dyadic number with the fewest bits within ``reach``."""
    scale = 1
    while Fraction(1, 2 * scale) > reach:
        scale *= 2
    return Fraction(round(value * scale), scale)


def _short_exp(t: Fraction, reach: Fraction) -> tuple[Fraction, Fraction]:
    """Short positive rationals around exp(t), relative distance about ``reach``."""
    ball = _exp(t)
    low, high = lower(ball), upper(ball)
    scale = Fraction(1)
    while low * scale * reach < 1:
        scale *= 2
    while low * scale * reach > 2:
        scale /= 2
    below, above = (low * scale).__floor__(), (high * scale).__floor__() + 1
    return Fraction(below) / scale, Fraction(above) / scale


def _evaluate(element: Any, values: Mapping[str, Fraction]) -> Fraction:
    known = {name: values.get(name, Fraction(0)) for name in element.variables()}
    result: Fraction = element.at(known)
    return result


def _approximate(value: Any) -> Fraction:
    if isinstance(value, bool):
        return Fraction(int(value))
    if value[0] == "q":
        return Fraction(value[1])
    return (Fraction(value[2]) + Fraction(value[3])) / 2
