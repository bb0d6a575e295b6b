"""Second opinions and disagreements: two solvers' words, never a vote."""

from __future__ import annotations

import tempfile
from pathlib import Path

from exan_verify.smt.portfolio import CVC5, DEFAULT, NLSAT, SMT, Round, Settings, query
from exan_verify.smt.solvers.run import SAT, UNSAT, SolverDisagreementError, solver_of

SECOND_SOLVERS = {
    "z3": (Round(CVC5, 1_000_000), Round(CVC5, 20_000_000)),
    "cvc5": (Round(SMT, 6_000_000), Round(NLSAT, 6_000_000), Round(DEFAULT, 6_000_000)),
}
"""Who is asked about a query that the named solver found unsatisfiable."""


def second_opinion(name: str, text: str, first: str, settings: Settings) -> str:
    """Another solver that also finds ``text`` unsatisfiable; "" when none can tell.

    Raises :class:`SolverDisagreementError` when it finds a model.
    """
    for current in SECOND_SOLVERS[first]:
        found = query(text, current, settings)
        if found.status == UNSAT:
            return solver_of(found)
        if found.status == SAT:
            path = save_query(text, name, settings)
            raise SolverDisagreementError(
                f"{name}: {first} says unsat, {found.solver} says sat; the query is saved as {path}"
            )
    return ""


def save_query(text: str, name: str, settings: Settings) -> Path:
    """Save a query for a report; in the cache directory if there is one."""
    parent = settings.cache
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="disagreement-", dir=parent))
    path = folder / "query.smt2"
    path.write_text(f"; {name}\n{text}")
    return path
