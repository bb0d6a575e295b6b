"""Properties of exp as lemmas: what makes the over-approximation of softmax and sigmoid tight where needed.

The probabilities p of a sample are unknowns of which the encoding says little. Every lemma here holds for
the true probabilities whatever its parameters are, so any number of them may be added; they are chosen
where a solver's model violates them (incremental linearisation; Cimatti et al., "Incremental Linearization
for Satisfiability and Verification Modulo Nonlinear Arithmetic and Transcendental Functions", 2018).

All are statements about an *odds pair*: positive a, b with a / b = exp(t). For cross_entropy a and b are two
probabilities of a sample and t the difference of their logits; for bce a = p, b = 1 - p and t the logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from exan_verify.core.question import Loss
from exan_verify.smt.question.encoder import Sample
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.terms import Formula, Poly, at_most, conj, disj, less

Pair = tuple[int, int, int]
"""``(sample, class, other class)``; for bce the other class is -1, and -2 swaps a and b. Samples from the
batch size on are those of the known batch."""


@dataclass(frozen=True, slots=True)
class Lemma:
    """``kind`` with its odds pair(s) and numbers.

    ``order``: of two pairs, the one with the larger t has the larger odds. ``threshold`` (t0, low, high):
    odds <= high left of t0, >= low right of it, where low <= exp(t0) <= high. ``tangent`` (t0, low):
    odds >= low (1 + t - t0), where 0 < low <= exp(t0).
    """

    kind: str
    pair: Pair
    other: Pair | None = None
    numbers: tuple[Fraction, ...] = ()


def lemma_formula(posed: Posed, samples: Sequence[Sample], lemma: Lemma) -> Formula:
    """The lemma as a formula over an encoding's samples."""
    a, b, t = odds(posed, samples, lemma.pair)
    if lemma.kind == "order":
        assert lemma.other is not None
        c, d, s = odds(posed, samples, lemma.other)
        return _order(a * d, c * b, t, s)
    if lemma.kind == "threshold":
        t0, low, high = lemma.numbers
        return conj(
            [
                disj([less(Poly.constant(t0), t), at_most(a, b * high)]),
                disj([less(t, t0), at_most(b * low, a)]),
            ]
        )
    t0, low = lemma.numbers
    return at_most(b * (t - t0 + 1) * low, a)


def _order(left: Poly, right: Poly, t: Poly, s: Poly) -> Formula:
    """a/b < c/d iff t < s, and the same for >."""
    return conj(
        [
            disj([at_most(s, t), less(left, right)]),
            disj([at_most(t, s), less(right, left)]),
            disj([less(t, s), less(s, t), conj([at_most(left, right), at_most(right, left)])]),
        ]
    )


def odds(posed: Posed, samples: Sequence[Sample], pair: Pair) -> tuple[Poly, Poly, Poly]:
    """``(a, b, t)`` of an odds pair."""
    m, k, other = pair
    if m < posed.size:
        logits, probabilities = samples[m].logits, samples[m].probabilities
    else:
        reference = posed.target.reference[m - posed.size]
        logits, probabilities = tuple(map(Poly.constant, reference.logits)), reference.probabilities
    if posed.question.loss is not Loss.BCE:
        return probabilities[k], probabilities[other], logits[k] - logits[other]
    p, rest = probabilities[k], Poly.constant(1) - probabilities[k]
    return (p, rest, logits[k]) if other == -1 else (rest, p, -logits[k])
