"""z3 and cvc5 on SMT-LIB text, inside a worker's child: one fresh context per query.

Answers are dictionaries: ``answer`` (sat, unsat, unknown), ``reason``, ``model`` (name -> exact value) and
``work`` (the solver's own resource count). A real value is ``["q", "num/den"]`` or, for an algebraic
number, ``["root", [c0, c1, ...], low, high]``: the only root in the closed rational interval [low, high] of
the polynomial with these integer coefficients, constant term first. Booleans are true and false.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import z3

_DIGITS = 30
_PRISTINE: list[Any] = []


def prepare() -> None:
    """Create a context that nothing touches before the process is forked: every child finds it fresh, and
    is spared the time that creating one takes.
    """
    _PRISTINE.append(z3.Context())


def solve(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    if request["solver"] == "cvc5":
        from exan_verify.smt.solvers import backend_cvc5

        return backend_cvc5.check(request)
    return enumerate_states(request) if request.get("enumerate") else check(request)


def _solver(request: dict[str, Any]) -> tuple[Any, Any]:
    for name in ("smt.random_seed", "sat.random_seed", "nlsat.seed"):
        z3.set_param(name, int(request.get("seed", 0)))  # global, but this process serves one query
    context = _PRISTINE.pop() if _PRISTINE else z3.Context()
    tactic = request.get("tactic", "default")
    solver = z3.SolverFor("QF_LRA", ctx=context) if tactic == "lra" else _portfolio(tactic, context)
    if request.get("rlimit"):
        solver.set("rlimit", int(request["rlimit"]))
    solver.add(z3.parse_smt2_string(request["text"], ctx=context))
    return solver, context


def _portfolio(tactic: str, context: Any) -> Any:
    if tactic == "smt":
        steps = ["simplify", "propagate-values", "solve-eqs", "simplify", "smt"]
        return z3.Then(*[z3.Tactic(s, context) for s in steps], ctx=context).solver()
    return z3.Tactic(tactic, context).solver()


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Satisfiability with z3, by the tactic that the request names."""
    solver, _ = _solver(request)
    try:
        answer = str(solver.check())
    except z3.Z3Exception as error:  # out of memory, or a limit of one of z3's algorithms
        return {"answer": "unknown", "reason": str(error)}
    found: dict[str, Any] = {"answer": answer, "work": _work(solver)}
    if answer == "unknown":
        found["reason"] = solver.reason_unknown()
    if answer == "sat":
        model = solver.model()
        found["model"] = {d.name(): _value(model[d]) for d in model.decls() if d.arity() == 0}
    return found


def enumerate_states(request: dict[str, Any]) -> dict[str, Any]:
    """Up to ``limit`` assignments of the named Booleans that satisfy the text: ``unsat`` when the list is
    complete, ``sat`` when there are more.
    """
    solver, context = _solver({**request, "rlimit": 0})
    literals = [z3.Bool(name, context) for name in request["enumerate"]]
    states: list[list[bool]] = []
    while (answer := str(solver.check())) == "sat":
        if len(states) >= request["limit"]:
            return {"answer": "sat", "states": states, "work": _work(solver)}
        model = solver.model()
        values = [bool(z3.is_true(model.eval(b, model_completion=True))) for b in literals]
        states.append(values)
        solver.add(z3.Or([z3.Not(b) if v else b for b, v in zip(literals, values, strict=True)]))
    return {
        "answer": answer,
        "states": states,
        "work": _work(solver),
        "reason": solver.reason_unknown() if answer == "unknown" else "",
    }


def _work(solver: Any) -> int:
    statistics = solver.statistics()
    return int(statistics.get_key_value("rlimit count")) if "rlimit count" in statistics.keys() else 0  # noqa: SIM118 - not a dict


def _value(value: Any) -> Any:
    if z3.is_bool(value):
        return bool(z3.is_true(value))
    if z3.is_rational_value(value):
        return ["q", str(value.as_fraction())]
    near = value.approx(_DIGITS).as_fraction()
    reach = Fraction(1, 10**_DIGITS)
    return ["root", [str(c.as_fraction()) for c in value.poly()], str(near - reach), str(near + reach)]
