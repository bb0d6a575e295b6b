"""The constraint language: polynomials, folding, and SMT-LIB text."""

from __future__ import annotations

from fractions import Fraction

from exan_verify.smt.question.terms import (
    FALSE,
    TRUE,
    Literal,
    Poly,
    Script,
    at_most,
    conj,
    degree,
    disj,
    distinct,
    equal,
    implies,
    less,
    names,
    negate,
    show,
    show_number,
)

x, y = Poly.variable("x"), Poly.variable("y")


def test_polynomial_arithmetic_collects_and_drops_zero_terms() -> None:
    assert (x + y) * (x - y) == x * x - y * y
    assert (x - x).terms == {}
    assert (x * y * Fraction(2, 3)).at({"x": Fraction(3), "y": Fraction(5)}) == 10
    assert (x * x * y + x).derivative("x") == x * y * 2 + 1


def test_constant_atoms_fold() -> None:
    two = Poly.constant(2)
    assert less(two, 3) == TRUE
    assert less(two, 2) == FALSE
    assert at_most(two, 2) == TRUE
    assert equal(two, 3) == FALSE
    assert distinct(two, 3) == TRUE


def test_junctions_fold_constants_and_flatten() -> None:
    a, b = Literal("a"), Literal("b")
    assert conj([TRUE, a]) == a
    assert conj([a, FALSE, b]) == FALSE
    assert disj([a, TRUE]) == TRUE
    assert disj([]) == FALSE
    assert show(conj([a, conj([b, a])])) == "(and a b a)"
    assert implies(TRUE, a) == a
    assert implies(FALSE, a) == TRUE


def test_negation_is_pushed_to_atoms() -> None:
    formula = conj([Literal("a"), less(x, y), at_most(x, 0), equal(x, 1)])
    assert show(negate(formula)) == (
        "(or (not a) (<= (+ (* (- 1.0) x) y) 0.0) (< (* (- 1.0) x) 0.0) (not (= (+ x (- 1.0)) 0.0)))"
    )
    assert negate(negate(formula)) == formula


def test_text_has_integer_coefficients_and_declares_what_it_uses() -> None:
    script = Script(title="two\nlines", reals=["x", "y", "z"], booleans=["a", "b"])
    script.require(less(x * Fraction(1, 2) + y * y * Fraction(1, 3), Fraction(1, 6)), "why")
    script.require(TRUE, "left out")
    script.require(Literal("a", False), "why")
    assert script.text() == (
        "; two\n; lines\n(set-logic QF_NRA)\n(declare-fun x () Real)\n(declare-fun y () Real)\n"
        "(declare-fun a () Bool)\n; why\n(assert (< (+ (* 2.0 y y) (* 3.0 x) (- 1.0)) 0.0))\n"
        "(assert (not a))\n(check-sat)\n"
    )
    assert ";" not in script.text(comments=False)


def test_degrees_names_and_numbers() -> None:
    formula = disj([Literal("a"), equal(x * y, 1)])
    assert degree(formula) == 2
    assert names(formula) == ({"x", "y"}, {"a"})
    assert show_number(Fraction(-3, 2)) == "(- (/ 3.0 2.0))"


def test_refuted_only_by_false() -> None:
    script = Script(reals=["x"])
    script.require(less(x, 0), "")
    assert not script.refuted
    script.require(FALSE, "")
    assert script.refuted
