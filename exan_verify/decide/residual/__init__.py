"""What is left of a batch: a small system in the samples' own r x r matrix Q (docs/theory.md S5, C4).

The samples that no earlier argument settled are a problem of their own at the output layer, where
``H' = Q H``, ``G' = G Q^-1`` and ``F' = Q F`` whatever the patterns are: see :mod:`.rest` for the hypotheses.
"""

from __future__ import annotations

import time

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import QuadricArgument, Residual
from exan_verify.core.facts import Facts
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Attempt, Engine, Witness
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.residual import hinge, mse, transcendental
from exan_verify.decide.residual.groups import second_in_region
from exan_verify.decide.residual.outcome import Settled
from exan_verify.decide.residual.unsettled import Rest, rest_of
from exan_verify.decide.second_batch import Accepted, Candidate, accept, evidence_of
from exan_verify.exact.modular import PRIME


def decide(context: Context, budget: Budget) -> Finding:
    """Settle the samples that are left, or find a second batch for them."""
    start = time.monotonic()
    rest = rest_of(context)
    if rest is None:
        return _passed("nothing is left that can be told apart from settled samples", start)
    if context.question.labels is Labels.REAL and not (rest.size == 1 and rest.affine):
        return _passed("real labels leave the output layer's system open", start)
    obstacle = rest.obstacle()
    found = _solve(rest, budget) if obstacle is None else Settled(note=obstacle)
    second = found.second
    if second is None and found.argument is None and context.question.loss is Loss.MSE:
        second = second_in_region(context, budget)
    accepted = None if second is None else accept(context, evidence_of(context, second))
    if second is not None and accepted is not None:
        return _ambiguous(second, accepted, start)
    if found.argument is None:
        return _passed(found.note, start)
    return Finding(
        attempts=(_attempt(found.note, start),),
        facts=Facts(determined=frozenset(rest.members), unique=True),
        evidence=(
            Residual(
                prime=PRIME,
                point=context.image.point,
                members=rest.members,
                argument=found.argument,
            ),
        ),
        reason=_unique_reason(context, rest),
    )


def _solve(rest: Rest, budget: Budget) -> Settled:
    loss = rest.context.question.loss
    if rest.context.question.labels is Labels.REAL:
        # Q = 1, so that g' = g and f' = f say y' = y
        return Settled(
            note="one sample has its own logits and loss vector", argument=QuadricArgument(cases=())
        )
    if loss is Loss.MSE:
        return mse.solve_rest(rest, budget)
    if loss is Loss.HINGE:
        return hinge.solve_rest(rest, budget)
    return transcendental.solve_rest(rest, budget)


def _ambiguous(second: Candidate, accepted: Accepted, start: float) -> Finding:
    names = ", ".join(str(m) for m in second.members)
    note = f"a second batch mixes samples {names}" if second.matrix is not None else f"samples {names} move"
    return Finding(
        attempts=(_attempt(note, start),),
        facts=accepted.facts,
        evidence=(accepted.evidence,),
        witness=Witness(batch=accepted.batch),
        reason=f"the system that says how samples {names} may be mixed has a second solution",
    )


def _unique_reason(context: Context, rest: Rest) -> str:
    names = ", ".join(str(m) for m in rest.members)
    others = "" if rest.size == context.samples else ", and the others were settled before"
    return (
        f"the loss vectors of samples {names} are independent, and their system at the output layer has no "
        f"solution but the batch itself{others}"
    )


def _passed(note: str, start: float) -> Finding:
    return Finding(attempts=(_attempt(note, start),))


def _attempt(note: str, start: float) -> Attempt:
    return Attempt(engine=Engine.RESIDUAL, note=f"output layer: {note}", seconds=time.monotonic() - start)
