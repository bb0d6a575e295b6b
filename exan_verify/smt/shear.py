"""Batches with exactly the known batch's loss vectors: a linear question inside the known batch's cube.

If every sample keeps its label and its logits (up to what the loss ignores), the probabilities stay the same
numbers, whatever they are. The gradient equations are then linear in the inputs for each of these numbers,
so it is enough that every coefficient vanishes (docs/theory.md S2). Models are rational and are replayed
exactly.
"""

from __future__ import annotations

from fractions import Fraction

from exan_verify.core.question import Loss
from exan_verify.smt.cubes import Task, exclusions
from exan_verify.smt.question.difference import placements
from exan_verify.smt.question.encode import Encoding, encode
from exan_verify.smt.question.terms import Monomial, Poly, Script, equal


def shear_script(own: Task) -> Script:
    """The constraints of a second batch with the same loss vectors in the known batch's cube."""
    posed, truth = own.posed, own.others[0]
    encoding = encode(posed, own.assignment)
    script = encoding.script
    script.logic = "QF_LRA"
    order = next(placements(posed, truth, own.assignment))
    solved = [equal(e, 0) for _, e in encoding.equations]
    script.assertions = [(c, f) for c, f in script.assertions if f not in solved]
    _same_logits(own, encoding, order)
    for name, equation in encoding.equations:
        for coefficient in _coefficients(own, encoding, equation, order):
            script.require(equal(coefficient, 0), f"gradient, whatever the probabilities are: {name}")
    for formula in exclusions(own, encoding):
        script.require(formula, "not the known batch, in any order of its samples")
    return script


def _same_logits(own: Task, encoding: Encoding, order: tuple[int, ...]) -> None:
    posed = own.posed
    for sample, n in zip(encoding.samples, order, strict=True):
        known = posed.target.reference[n].logits
        moved = [f - v for f, v in zip(sample.logits, known, strict=True)]
        base = Poly({}) if posed.question.loss is Loss.BCE else moved[0]
        for difference in moved:
            encoding.script.require(equal(difference - base, 0), f"sample {sample.index}: the same logits")


def _coefficients(own: Task, encoding: Encoding, equation: Poly, order: tuple[int, ...]) -> list[Poly]:
    """The equation with the known probabilities put in, split by the monomials in their symbols."""
    reference = own.posed.target.reference
    values = {name: Poly.variable(name) for name in equation.variables()}
    for sample, n in zip(encoding.samples, order, strict=True):
        for p, t in zip(sample.probabilities, reference[n].probabilities, strict=True):
            if len(p.terms) == 1:
                (name,) = p.variables()
                values[name] = t
    parts: dict[Monomial, dict[Monomial, Fraction]] = {}
    symbols = set(own.posed.target.symbols)
    for monomial, c in equation.evaluate(values, Poly.constant).terms.items():
        constant = tuple(v for v in monomial if v in symbols)
        rest = tuple(v for v in monomial if v not in symbols)
        parts.setdefault(constant, {})[rest] = c
    return [Poly(terms) for terms in parts.values()]
