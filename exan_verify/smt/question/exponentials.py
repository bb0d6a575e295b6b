"""Exact equality of softmax and sigmoid values at rational logits.

e^{q_1}, e^{q_2}, ... for distinct rationals are linearly independent over Q (Lindemann and Weierstrass), so
a sum of rational multiples of exponentials is zero iff every collected coefficient is. Fractions with such
sums as denominators are compared after clearing them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from exan_verify.core.question import Loss
from exan_verify.smt.question.terms import Poly

ExpSum = dict[Fraction, Fraction]
"""sum of coefficient * e^exponent, by exponent; no zero coefficients."""

Vector = Sequence[Fraction]


def is_zero(element: Poly, logits: Mapping[str, tuple[Vector, int]], loss: Loss) -> bool:
    """Whether a polynomial, linear in probability symbols, is zero as a real number.

    ``logits`` maps each symbol to its sample's logits and the class whose probability it is.
    """
    parts: dict[tuple[Fraction, ...], ExpSum] = {}
    for monomial, c in element.terms.items():
        if monomial:
            (name,) = monomial
            denominator, exponent = _probability(*logits[name], loss)
            numerator = parts.setdefault(denominator, {})
            _add(numerator, exponent, c)
    clear: ExpSum = {Fraction(0): element.value} if element.value else {}
    for denominator in parts:
        clear = _times(clear, _sum(denominator))
    for denominator, numerator in parts.items():
        term = numerator
        for other in parts:
            if other != denominator:
                term = _times(term, _sum(other))
        for exponent, c in term.items():
            _add(clear, exponent, c)
    return not clear


def _probability(vector: Vector, k: int, loss: Loss) -> tuple[tuple[Fraction, ...], Fraction]:
    """``(exponents of the denominator, exponent of the numerator)``, normalised by a common shift."""
    exponents = (Fraction(0), vector[k]) if loss is Loss.BCE else tuple(vector)
    least = min(exponents)
    own = (exponents[1] if loss is Loss.BCE else exponents[k]) - least
    return tuple(sorted(v - least for v in exponents)), own


def _sum(exponents: Sequence[Fraction]) -> ExpSum:
    out: ExpSum = {}
    for exponent in exponents:
        _add(out, exponent, Fraction(1))
    return out


def _times(left: ExpSum, right: ExpSum) -> ExpSum:
    out: ExpSum = {}
    for a, c in left.items():
        for b, d in right.items():
            _add(out, a + b, c * d)
    return out


def _add(into: ExpSum, exponent: Fraction, coefficient: Fraction) -> None:
    value = into.get(exponent, Fraction(0)) + coefficient
    if value:
        into[exponent] = value
    else:
        into.pop(exponent, None)
