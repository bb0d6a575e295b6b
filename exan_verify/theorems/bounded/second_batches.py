"""Fixed networks: z3 is asked for a second batch, from the plain question (docs/smt.md)."""

from __future__ import annotations

from exan_verify.smt.decide import pose
from exan_verify.smt.smtlib import whole_question
from exan_verify.smt.solvers.run import UNSAT, worker
from exan_verify.theorems.bounded.obligation import Obligation, settled
from exan_verify.theorems.statement import Example


def question(example: Example, *, other: bool = True) -> str:
    """Declarations and assertions of "is there a (second) batch?", without the check."""
    posed, truth = pose(example.network, example.question, batch=example.batch)
    lines = whole_question(posed, truth if other else None).splitlines()
    kept = [line for line in lines if not line.startswith(("(set-", "(check-sat", "(get-", "(exit"))]
    return "\n".join(kept) + "\n"


def obligation_pair(name: str, label: str, example: Example) -> list[Obligation]:
    """No second batch; and the batch itself is found when it is not excluded."""
    return [
        Obligation(
            name=name,
            label=label,
            says=f"{example.network}: no second batch has this gradient. {example.note}",
            expected="unsat",
            body=lambda: question(example),
        ),
        Obligation(
            name=f"{name}-hypotheses",
            label=label,
            says=f"Companion of {name}: some batch has this gradient.",
            expected="sat",
            body=lambda: question(example, other=False),
        ),
    ]


def none_for(example: Example) -> bool:
    """Whether z3 says that no second batch exists."""
    with worker() as opened:
        text = obligation_pair("second", "second", example)[0].text
        return settled(opened, text).status == UNSAT
