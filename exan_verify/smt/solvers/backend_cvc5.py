"""cvc5 on SMT-LIB text, inside a worker's child (see :mod:`exan_verify.smt.solvers.backends` for the
answers).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cvc5


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Satisfiability with cvc5; real algebraic models come from its coverings solver."""
    manager = cvc5.TermManager()
    solver = cvc5.Solver(manager)
    solver.setOption("produce-models", "true")
    solver.setOption("seed", str(request.get("seed", 0)))
    if request.get("rlimit"):
        solver.setOption("rlimit-per", str(request["rlimit"]))
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, request["text"], "question")
    symbols = parser.getSymbolManager()
    found: dict[str, Any] = {"answer": "unknown", "reason": "the text has no check-sat"}
    while not (command := parser.nextCommand()).isNull():
        if command.getCommandName() == "check-sat":
            found = _check(manager, solver, symbols)
        else:
            command.invoke(solver, symbols)
    spent = solver.getStatistics().get("resource::resourceUnitsUsed")
    found["work"] = int(spent.get("value", 0))
    return found


def _check(manager: Any, solver: Any, symbols: Any) -> dict[str, Any]:
    try:
        result = solver.checkSat()
    except RuntimeError as error:  # a limit of one of cvc5's algorithms
        return {"answer": "unknown", "reason": str(error)}
    if result.isUnsat():
        return {"answer": "unsat"}
    if not result.isSat():
        return {"answer": "unknown", "reason": str(result.getUnknownExplanation())}
    values = {str(t): _value(manager, solver.getValue(t)) for t in symbols.getDeclaredTerms()}
    return {"answer": "sat", "model": {k: v for k, v in values.items() if v is not None}}


def _value(manager: Any, value: Any) -> Any:
    if value.isBooleanValue():
        return bool(value.getBooleanValue())
    if value.isRealValue():
        return ["q", str(Fraction(value.getRealValue()))]
    if not value.isRealAlgebraicNumber():
        return None
    variable = manager.mkVar(manager.getRealSort(), "t")
    polynomial = value.getRealAlgebraicNumberDefiningPolynomial(variable)
    bounds = (value.getRealAlgebraicNumberLowerBound(), value.getRealAlgebraicNumberUpperBound())
    low, high = (str(Fraction(b.getRealValue())) for b in bounds)
    return ["root", [str(c) for c in _coefficients(polynomial, variable)], low, high]


def _coefficients(term: Any, variable: Any) -> list[Fraction]:
    """Coefficients, constant term first, of a univariate polynomial term."""
    if term == variable:
        return [Fraction(0), Fraction(1)]
    if term.isRealValue():
        return [Fraction(term.getRealValue())]
    parts = [_coefficients(child, variable) for child in term]
    kind = term.getKind()
    if kind == cvc5.Kind.ADD:
        return [sum((p[k] for p in parts if k < len(p)), Fraction(0)) for k in range(max(map(len, parts)))]
    if kind != cvc5.Kind.MULT:
        raise ValueError(f"cvc5 gave a defining polynomial with {kind}")
    out = [Fraction(1)]
    for part in parts:
        out = [
            sum((out[i] * part[k - i] for i in range(len(out)) if 0 <= k - i < len(part)), Fraction(0))
            for k in range(len(out) + len(part) - 1)
        ]
    return out
