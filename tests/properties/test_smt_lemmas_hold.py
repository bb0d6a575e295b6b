"""Law: every lemma about exp that refinement may add holds for the true probabilities."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import flint
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.core.question import Loss, Question
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.linearise import _short_exp
from exan_verify.smt.question.refine import Lemma, lemma_formula
from exan_verify.smt.question.terms import Atom, Formula, Poly
from exan_verify.smt.question.transcendental import probability
from tests.conftest import examples

FRACTIONS = st.fractions(min_value=-6, max_value=6, max_denominator=12)


class FakeSample:
    def __init__(self, logits: tuple[Fraction, ...], name: str) -> None:
        self.logits = tuple(map(Poly.constant, logits))
        self.probabilities = tuple(Poly.variable(f"{name}{k}") for k in range(len(logits)))


class FakePosed:
    def __init__(self, loss: Loss, size: int) -> None:
        self.question, self.size = Question(loss=loss), size


def possible(formula: Formula, balls: dict[str, Any]) -> bool:
    """Not certainly false when the probabilities are in the balls."""
    if isinstance(formula, Atom):
        value = formula.poly.evaluate(balls, to_ball)
        return {"<": not value >= 0, "<=": not value > 0, "=": value.contains(0), "distinct": True}[
            formula.relation
        ]
    assert hasattr(formula, "parts")
    found = [possible(p, balls) for p in formula.parts]
    return all(found) if formula.kind == "and" else any(found)


@given(
    st.sampled_from([Loss.CROSS_ENTROPY, Loss.BCE]),
    st.lists(FRACTIONS, min_size=3, max_size=3),
    st.lists(FRACTIONS, min_size=3, max_size=3),
    FRACTIONS,
    st.sampled_from([Fraction(1, 4), Fraction(1, 64), Fraction(1, 4096)]),
    st.booleans(),
)
@examples(60)
def test_lemmas_hold(
    loss: Loss, first: list[Fraction], second: list[Fraction], t0: Fraction, reach: Fraction, shifted: bool
) -> None:
    if shifted:
        second = [v + 1 for v in first]
    samples: Any = [FakeSample(tuple(first), "p"), FakeSample(tuple(second), "q")]
    asked: Any = FakePosed(loss, 2)
    pair, other = ((0, 0, 1), (1, 0, 1)) if loss is Loss.CROSS_ENTROPY else ((0, 0, -1), (1, 0, -1))
    flipped = (0, 1, 0) if loss is Loss.CROSS_ENTROPY else (0, 0, -2)
    low, high = _short_exp(t0, reach)
    lemmas = [
        Lemma("threshold", pair, numbers=(t0, low, high)),
        Lemma("tangent", pair, numbers=(t0, low)),
        Lemma("tangent", flipped, numbers=(-t0, 1 / high)),
        Lemma("order", pair, other=other),
    ]
    with flint.ctx.workprec(200):
        assert to_ball(low) <= to_ball(t0).exp() <= to_ball(high)
        balls = {
            f"{name}{k}": probability([to_ball(v) for v in logits], k, loss)
            for name, logits in (("p", first), ("q", second))
            for k in range(3)
        }
        for lemma in lemmas:
            assert possible(lemma_formula(asked, samples, lemma), balls), lemma
