"""An obligation: SMT-LIB text generated from a statement, and what a solver must say to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Literal

from exan_verify.smt.solvers.run import SAT, UNKNOWN, Answer, Strategy, Worker, worker

TACTICS = ("smt", "qfnra-nlsat")
"""z3's tactics, in the order they are tried: neither decides every obligation."""

SECONDS = 10
"""Wall time per tactic, several times what the one that decides needs; some never return by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """One file under proofs/bounded/, called ``name``.smt2.

    ``label``: the theory's. ``says``: what ``expected`` means, in words. ``body``: declarations and
    assertions. An ``unsat`` obligation whose hypotheses contradict each other would prove nothing: each has a
    ``sat`` companion. ``tactic``: the only one of z3's that decides it quickly, where the usual order would
    waste time.
    """

    name: str
    label: str
    says: str
    expected: Literal["unsat", "sat"]
    body: Callable[[], str]
    tactic: str | None = None

    @property
    def text(self) -> str:
        """The file's content."""
        comment = "\n".join(f"; {line}" for line in wrap(self.says, 100))
        return (
            f"; {self.name} ({self.label}), expected: {self.expected}\n{comment}\n"
            f"(set-info :status {self.expected})\n(set-logic QF_NRA)\n{self.body()}(check-sat)\n"
        )


def settled(opened: Worker, text: str, first: str | None = None) -> Answer:
    """What z3 says to a text: its tactics in turn, each within :data:`SECONDS`, until one decides."""
    for tactic in TACTICS if first is None else (first,):
        answer = opened.ask(text, Strategy("z3", tactic), seconds=SECONDS)
        if answer.status != UNKNOWN:
            break
    return answer


def verdict(obligation: Obligation) -> str:
    """What z3 says to one obligation, in a process of its own."""
    with worker() as opened:
        return settled(opened, obligation.text, obligation.tactic).status


def emptied(obligation: Obligation) -> Obligation:
    """The obligation with a contradiction, or an unsat one without its assertions: never as expected."""
    body = obligation.body()
    changed = [line for line in body.splitlines() if not line.startswith("(assert")]
    changed += ["(assert false)"] if obligation.expected == SAT else []
    return replace(obligation, body=lambda: "\n".join(changed) + "\n")


def second_opinion(opened: Worker, text: str, seconds: float) -> Answer:
    """What cvc5 says within ``seconds``."""
    return opened.ask(text, Strategy("cvc5"), seconds=seconds)


def add(*terms: str) -> str:
    """The sum of terms."""
    return _folded("+", "0", terms)


def mul(*terms: str) -> str:
    """The product of terms."""
    return _folded("*", "1", terms)


def sub(left: str, right: str) -> str:
    """The difference of two terms."""
    return f"(- {left} {right})"


def equal(left: str, right: str = "0") -> str:
    """The formula that two terms are equal."""
    return f"(= {left} {right})"


def negation(formula: str) -> str:
    """The negation."""
    return f"(not {formula})"


def any_of(formulas: list[str]) -> str:
    """The disjunction."""
    return f"(or {' '.join(formulas)})" if len(formulas) > 1 else formulas[0]


def all_of(formulas: list[str]) -> str:
    """The conjunction."""
    return f"(and {' '.join(formulas)})" if len(formulas) > 1 else formulas[0]


def number(value: int) -> str:
    """An integer as a real literal."""
    return f"{value}.0" if value >= 0 else f"(- {-value}.0)"


def script(reals: list[str], assertions: list[str]) -> str:
    """Declarations and assertions, one a line."""
    lines = [f"(declare-const {name} Real)" for name in reals] + [f"(assert {a})" for a in assertions]
    return "\n".join(lines) + "\n"


def _folded(operator: str, neutral: str, terms: tuple[str, ...]) -> str:
    if len(terms) < 2:
        return terms[0] if terms else f"{neutral}.0"
    return f"({operator} {' '.join(terms)})"
