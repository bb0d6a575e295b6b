"""The two-solution lemma of docs/theory.md section 8: its steps by computer algebra, instances by balls.

For t > 0 and w >= 1 put k(c) = c / (e^{ct} + w). The lemma: k(c) = k(1) has exactly one solution c != 1 when
t > 0, and none when t <= 0. Its proof: k' has the sign of phi(ct), phi(s) = e^s (1 - s) + w. As
phi(0) = 1 + w > 0 and phi' = -s e^s, phi falls from 1 + w to -infinity on s > 0, with one zero s_0, and is
positive for s <= 0. So k rises on [0, s_0 / t] and falls after it, from 0 to 0. That the top is not at c = 1,
for rational t, is transcendence: e^t (1 - t) = -w would make e^t rational.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import flint
import sympy

BITS = 256


@dataclass(frozen=True, slots=True)
class Step:
    """One identity or limit of the proof, and whether sympy confirms it."""

    says: str
    holds: bool


def steps() -> tuple[Step, ...]:
    """The lemma's identities, signs and limits."""
    c, t, w = sympy.symbols("c t w", positive=True)
    s = sympy.symbols("s", real=True)
    ratio = c / (sympy.exp(c * t) + w)
    phi = sympy.exp(s) * (1 - s) + w
    slope = phi.subs(s, c * t) / (sympy.exp(c * t) + w) ** 2
    return (
        Step("k' = phi(ct) / (e^{ct} + w)^2", sympy.simplify(sympy.diff(ratio, c) - slope) == 0),
        Step("phi' = -s e^s", sympy.simplify(sympy.diff(phi, s) + s * sympy.exp(s)) == 0),
        Step("phi(0) = 1 + w", sympy.simplify(phi.subs(s, 0) - 1 - w) == 0),
        Step("phi -> -infinity as s -> infinity", sympy.limit(phi, s, sympy.oo) == -sympy.oo),
        Step("phi -> w > 0 as s -> -infinity", sympy.limit(phi, s, -sympy.oo) == w),
        Step("k(0) = 0", ratio.subs(c, 0) == 0),
        Step("k -> 0 as c -> infinity, for t > 0", sympy.limit(ratio, c, sympy.oo) == 0),
        Step(
            "bce: d/dt [ln(e^{ct} + 1) - ln(e^t + 1)] = c s(ct) - s(t), s the sigmoid",
            sympy.simplify(
                sympy.diff(sympy.log(sympy.exp(c * t) + 1) - sympy.log(sympy.exp(t) + 1), t)
                - (c / (1 + sympy.exp(-c * t)) - 1 / (1 + sympy.exp(-t)))
            )
            == 0,
        ),
    )


def difference(margin: Fraction, weight: int, scale: Fraction) -> Any:
    """A ball that contains k(scale) - k(1)."""
    with flint.ctx.workprec(BITS):
        t, c = (flint.arb(flint.fmpq(v.numerator, v.denominator)) for v in (margin, scale))
        return c / ((c * t).exp() + weight) - 1 / (t.exp() + weight)


def slope_sign(margin: Fraction, weight: int, scale: Fraction) -> int:
    """The sign of phi(scale * margin), proved by a ball; 0 when the ball contains zero."""
    with flint.ctx.workprec(BITS):
        product = margin * scale
        s = flint.arb(flint.fmpq(product.numerator, product.denominator))
        value = s.exp() * (1 - s) + weight
    return 1 if value > 0 else -1 if value < 0 else 0
