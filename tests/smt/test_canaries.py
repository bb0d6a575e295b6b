"""Canaries: small queries with known answers on which released versions of z3 or cvc5 were wrong.

Each satisfiable one is listed with a point that satisfies it, so that the expected answer needs no trust. A
solver that denies one of them must not be asked; the test names the report in which the defect was described.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import pytest

from exan_verify.smt.solvers.backends import z3
from exan_verify.smt.solvers.run import SAT, UNKNOWN, UNSAT, Strategy, Worker, solver_version


class Canary(NamedTuple):
    """A query with its answer; ``point`` satisfies it (rational points only)."""

    report: str
    names: str
    assertions: tuple[str, ...]
    answer: str
    point: dict[str, Fraction] | None = None

    @property
    def text(self) -> str:
        declared = "".join(f"(declare-fun {n} () Real)" for n in self.names.split())
        return "\n".join(
            ["(set-logic QF_NRA)", declared, *(f"(assert {a})" for a in self.assertions), "(check-sat)"]
        )


def at(**values: float | str) -> dict[str, Fraction]:
    return {name: Fraction(value) for name, value in values.items()}


CANARIES = (
    Canary(
        "Z3Prover/z3 6098: conflict between three quadrics",
        "m a b c",
        (
            "(< 0.0 m)",
            "(= (+ 1.0 (* a a)) (* b b))",
            "(= (+ 1.0 (* a a)) (* c c))",
            "(= (+ 1.0 (* m c)) (* m b))",
        ),
        SAT,
        at(m="1/2", a=0, b=1, c=-1),
    ),
    Canary(
        "Z3Prover/z3 7114: a circle and a hyperbola",
        "a b",
        ("(< 0.0 a)", "(= (- b) (* a (+ a b)))", "(= (+ (* a a) (* b b)) 1.0)"),
        SAT,
    ),
    Canary("Z3Prover/z3 4491: invalid model of a square", "a b", ("(> (* a b a b) 0.0)",), SAT, at(a=1, b=1)),
    Canary(
        "Z3Prover/z3 3106: product of squares",
        "a b",
        ("(not (<= (* (- a b) (- a b) a a b b) 0.0))",),
        SAT,
        at(a=1, b=2),
    ),
    Canary(
        "cvc5/cvc5 8638: variable elimination around coverings",
        "y p x a b c",
        (
            "(and (< 13.0 c) (< c 19.0) (< (- 11.0) a) (< 16.0 b) (< b 48.0))",
            "(< (* a c) (+ y p (- b)))",
            "(> (* y y y y b) 0.0)",
            "(> (* y (+ 1.0 (* p (- (/ 1.0 2.0))) (* y y p (/ 1.0 6.0)))) 0.0)",
            "(and (> p (/ 15707963.0 5000000.0)) (> (/ 31415927.0 10000000.0) p))",
            "(and (> (* p (/ 1.0 2.0)) y) (> x 0.0) (> y x))",
        ),
        SAT,
        at(c=14, a=-10, b=17, y="3/2", p="26353589/8388608", x=1),
    ),
    Canary(
        "cvc5/cvc5 12926: a polynomial that vanishes on a cell",
        "x1 x2 x z",
        (
            "(= 0.0 (* x1 x1 x1 x1 x1))",
            "(= 0.0 (* x2 x2 x2 x2 x2))",
            "(= 0.0 (+ (- (/ 1.0 3.0) (* x x x x)) (* x2 z) (* x1 z z z)))",
        ),
        SAT,
    ),
    Canary(
        "cvc5/cvc5 12927: nullification in McCallum's projection",
        "x1 x2 x z",
        (
            "(= 0.0 (* (- x2 1.0) (- x1 1.0) (- x1 1.0) (- x1 1.0)))",
            "(= 0.0 (* x2 x2 x2))",
            "(> x 0.0)",
            "(> (- z (- x 1.0)) 0.0)",
            "(< (+ (* z z z) (* 2.0 (+ x2 (* (- x 1.0) (- x 1.0) (- x 1.0))))"
            " (* z (- 3.0) (+ (- x1 1.0) (* (- x 1.0) (- x 1.0))))) 0.0)",
        ),
        SAT,
        at(z=0, x="1/2", x1=1, x2=0),
    ),
    Canary(
        "cvc5/cvc5 5726: nested products",
        "a b",
        (
            "(> (* b b b b b b) 0.0)",
            "(> (* a a (- a (+ a (* a a (+ (* b (- b (/ 1.0 720.0))) (* a a)))))) 0.0)",
        ),
        SAT,
        at(a="1/2048", b="1/1024"),
    ),
    Canary("sum of squares with a negative value", "a b", ("(< (+ (* a a) (* b b)) (* 2.0 a b))",), UNSAT),
    Canary(
        "two spheres that touch nowhere",
        "a b c",
        (
            "(= (+ (* a a) (* b b) (* c c)) 1.0)",
            "(= (+ (* (- a 3.0) (- a 3.0)) (* b b) (* c c)) 1.0)",
        ),
        UNSAT,
    ),
    Canary("a cube root that is not rational, twice", "a", ("(= (* a a a) 2.0)", "(< (* a a) 1.5)"), UNSAT),
)
STRATEGIES = [
    Strategy("z3", "smt"),
    Strategy("z3", "qfnra-nlsat"),
    Strategy("z3", "default"),
    Strategy("cvc5"),
]


@pytest.mark.parametrize("canary", CANARIES, ids=lambda c: c.report.split(":")[0])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_no_solver_is_wrong(worker: Worker, strategy: Strategy, canary: Canary) -> None:
    found = worker.ask(canary.text, strategy, rlimit=2_000_000, seconds=10)
    assert found.status in (canary.answer, UNKNOWN), f"{canary.report}: {strategy} says {found.status}"


@pytest.mark.parametrize("canary", [c for c in CANARIES if c.point], ids=lambda c: c.report.split(":")[0])
def test_the_stated_points_satisfy_the_canaries(canary: Canary) -> None:
    """By evaluation alone: z3's simplifier on a closed formula."""
    assert canary.point is not None
    context = z3.Context()
    formulas = z3.parse_smt2_string(canary.text, ctx=context)
    values = [
        (z3.Real(n, context), z3.RealVal(f"{q.numerator}/{q.denominator}", context))
        for n, q in canary.point.items()
    ]
    assert all(z3.is_true(z3.simplify(z3.substitute(f, *values))) for f in formulas)


def test_versions_are_those_the_canaries_were_run_with() -> None:
    """A new version must be tried with every tactic before it is trusted; then change this line."""
    assert (solver_version("z3"), solver_version("cvc5")) == ("5.4.1.0", "1.4.2")
