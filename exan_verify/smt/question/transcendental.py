"""The target gradient of a batch under cross_entropy or bce: linear in the batch's own probabilities.

The true gradient is not rational (docs/theory.md 3.6), so the probabilities of the known batch enter the
constraints as unknowns ``t_<sample>_<class>`` of which only proved facts are stated: enclosures by balls, sum
one, and equality where logits are equal up to the loss's invariance. Every real alternative batch satisfies
the constraints with the true values in these unknowns, which makes the encoding an over-approximation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.network import Batch, Network
from exan_verify.core.question import Loss, Question
from exan_verify.errors import RangeError
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.question.posed import Posed, Reference, Target, label_vectors
from exan_verify.smt.question.replay import Trace, exact_batch, trace
from exan_verify.smt.question.terms import Formula, Poly, less, total

PRECISION = 256
"""Bits of the balls, 77 digits: cancellation may take sixty of them before a float's sixteen are touched."""

FACT_BITS = 24
"""Relative precision of the enclosures that solvers see: short numbers keep their arithmetic fast."""

MOST_BITS = 4096
"""Probabilities below 2^-4096 are enclosed with zero: longer numbers would not be worth their length."""


def transcendental_target(network: Network, batch: Batch, question: Question) -> Target:
    """The target of a batch under a transcendental loss."""
    loss = question.loss
    posed = Posed(
        network=network,
        question=replace(question, batch_size=batch.size),
        alphabet=((),),  # the labels are the batch's own: no literal tells them
        counts=None,
        bounds=None,
        target=Target(weights=(), biases=(), weight_sizes=PerLayer()),
    )
    run = trace(posed, exact_batch(batch, label_vectors(loss, batch, network.classes)), "t")
    symbols, reference = _symbols(run, loss, batch.size, network.classes)
    balls = {name: _probability_ball(*run.logits[name], loss) for name in symbols.free}
    entries = iter([_substitute(e, symbols.values) for e in run.gradient])
    return replace(
        _shaped(network, entries, balls),
        symbols=tuple(symbols.free),
        enclosures={n: _short_interval(b, PRECISION // 2) for n, b in balls.items()},
        facts=tuple(_facts(symbols, run, loss)),
        reference=reference,
    )


class _Symbols:
    """Free symbols, and every probability as a polynomial in them."""

    def __init__(self) -> None:
        self.free: list[str] = []
        self.values: dict[str, Poly] = {}


def _symbols(run: Trace, loss: Loss, samples: int, classes: int) -> tuple[_Symbols, tuple[Reference, ...]]:
    """Equal probabilities share a symbol; the last class of cross_entropy is one minus the others."""
    found, keys, reference = _Symbols(), dict[tuple[Fraction, ...], Poly](), []
    for m in range(samples):
        logits = tuple(v.value for v in run.logits[f"t_{m}_0"][0])
        row: list[Poly] = []
        for k in range(classes):
            name = f"t_{m}_{k}"
            key = _key(logits, k, loss)
            if loss is Loss.CROSS_ENTROPY and k == classes - 1:
                value = Poly.constant(1) - total(row)
            elif key in keys:
                value = keys[key]
            else:
                found.free.append(name)
                value = Poly.variable(name)
            keys.setdefault(key, value)
            found.values[name] = value
            row.append(value)
        reference.append(Reference(logits=logits, probabilities=tuple(row)))
    return found, tuple(reference)


def _key(logits: tuple[Fraction, ...], k: int, loss: Loss) -> tuple[Fraction, ...]:
    """What the probability depends on: the logit (bce), the sorted differences to the others (softmax)."""
    if loss is Loss.BCE:
        return (logits[k],)
    return tuple(sorted(v - logits[k] for v in logits))


def _facts(symbols: _Symbols, run: Trace, loss: Loss) -> list[tuple[str, Formula]]:
    found = []
    for name, value in symbols.values.items():
        low, high = _short_interval(_probability_ball(*run.logits[name], loss), FACT_BITS)
        comment = f"probability {name} of the known batch"
        found += [(comment, less(Poly.constant(low), value)), (comment, less(value, high))]
    return found


def _probability_ball(logits: tuple[Poly, ...], k: int, loss: Loss) -> Any:
    with flint.ctx.workprec(PRECISION):
        return probability([to_ball(v.value) for v in logits], k, loss)


def probability(logits: Sequence[Any], k: int, loss: Loss) -> Any:
    """The probability of class k as a real ball, from balls of the logits."""
    others = [flint.arb(0), logits[k]] if loss is Loss.BCE else list(logits)
    found = 1 / sum(((v - logits[k]).exp() for v in others), flint.arb(0))
    if found.is_finite():
        return found
    # some exponential overflowed: relative to the largest logit none does
    largest = max(others, key=middle)
    return (logits[k] - largest).exp() / sum(((v - largest).exp() for v in others), flint.arb(0))


def _short_interval(ball: Any, bits: int) -> tuple[Fraction, Fraction]:
    """Short rationals strictly below and above a positive ball, ``bits`` bits relative to its size."""
    low, high = lower(ball), upper(ball)
    if low <= 0:
        low = Fraction(0)
    size = low.denominator.bit_length() - low.numerator.bit_length() if low else 0
    shift = min(bits + max(0, size), MOST_BITS)
    scale = 1 << shift
    return Fraction(_floor(low * scale) - 1, scale), Fraction(_floor(high * scale) + 2, scale)


def _floor(value: Fraction) -> int:
    return value.numerator // value.denominator


def lower(ball: Any) -> Fraction:
    """An exact lower bound of a ball."""
    with flint.ctx.workprec(PRECISION):
        return _exact(ball.lower(), -1)


def upper(ball: Any) -> Fraction:
    """An exact upper bound of a ball."""
    with flint.ctx.workprec(PRECISION):
        return _exact(ball.upper(), 1)


def middle(ball: Any) -> Fraction:
    """The middle of a ball, up to 2^-100000."""
    return _exact(ball, 0)


def unit_rows(rows: Sequence[Sequence[Any]]) -> tuple[np.ndarray, list[Any]]:
    """The middles of balls in floating point with every row scaled to largest entry one, and the scales: the
    numbers themselves may be beyond what a float holds. NaN where a ball is not finite.
    """
    width = len(rows[0]) if rows else 0
    scales = [max((abs(v.mid()) for v in row), default=flint.arb(0)) for row in rows]
    scales = [flint.arb(1) if size.is_zero() else size for size in scales]
    found = [[float((v.mid() / size).mid()) for v in row] for row, size in zip(rows, scales, strict=True)]
    return np.array(found).reshape(len(rows), width), scales


FARTHEST = 100_000
"""Binary exponents beyond it are not written out: a rational of that length has 12 kB."""


def _exact(value: Any, side: int) -> Fraction:
    """The middle of a ball; numbers beyond 2^+-100000 are not written out: a tiny one is moved to zero, or on
    the side that is asked for to 2^-100000.

    Raises :class:`RangeError` on numbers that large or not finite.
    """
    if not value.is_finite():
        raise RangeError("a logit is too large for ball arithmetic; scale the network or the inputs down")
    mantissa, exponent = (int(part) for part in value.mid().man_exp())
    size = exponent + mantissa.bit_length()
    if mantissa and size > FARTHEST:
        raise RangeError("a logit is too large for ball arithmetic; scale the network or the inputs down")
    if mantissa and size < -FARTHEST:
        outwards = (mantissa > 0) == (side > 0) and side != 0
        return Fraction(side, 2**FARTHEST) if outwards else Fraction(0)
    return Fraction(mantissa) * Fraction(2) ** exponent


def _substitute(element: Poly, values: Mapping[str, Poly]) -> Poly:
    return element.evaluate(values, Poly.constant)


def _shaped(network: Network, entries: Any, balls: Mapping[str, Any]) -> Target:
    weights, biases, sizes = [], [], []
    for layer in network.layers:
        rows, bias = [], []
        for _ in range(layer.shape[0]):
            rows.append(tuple(next(entries) for _ in range(layer.shape[1])))
            if layer.bias is not None:
                bias.append(next(entries))
        weights.append(tuple(rows))
        biases.append(tuple(bias) if layer.bias is not None else None)
        sizes.append(tuple(tuple(_size(e, balls) for e in row) for row in rows))
    return Target(
        weights=tuple(weights), biases=tuple(biases), weight_sizes=PerLayer(sizes), slopes=tuple(entries)
    )


def _size(entry: Poly, balls: Mapping[str, Any]) -> Fraction:
    """A proved lower bound of the absolute value."""
    with flint.ctx.workprec(PRECISION):
        value = entry.evaluate(balls, to_ball)
        return max(Fraction(0), _exact(abs(value).lower(), -1))
