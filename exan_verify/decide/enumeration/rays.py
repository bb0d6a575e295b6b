"""What follows when enumeration leaves more than true samples (docs/theory.md 3.3, Appendix E, E7 to E9).

The subspaces of :mod:`.exact` hold every candidate. Each choice of M of them is refuted, followed to another
batch, or left open; when all are refuted, only spans of true samples are left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import Budget
from exan_verify.decide.context import Context
from exan_verify.decide.enumeration.candidates import follow
from exan_verify.decide.enumeration.choices import Choices
from exan_verify.decide.enumeration.exact import Problem, problem, subspaces
from exan_verify.decide.enumeration.modular import leaves, refuted
from exan_verify.decide.enumeration.search import Equations
from exan_verify.decide.lifting.system import Plan, unknowns_mod
from exan_verify.decide.second_batch import Accepted

VARIABLES = 12
"""Largest M + K' that is searched over Q."""

SUBSPACES = 3000
"""Most subspaces at hand: a second or two in exact integers."""

CHOICES = 40_000
"""Most choices that are looked at: about ten seconds."""

FOLLOWED = 2_000
"""Most candidates that are followed through the network: each takes a pass in exact numbers."""

MODULAR_CHOICES = 20_000
"""The same mod p, where each takes a rank or two."""


@dataclass(slots=True, kw_only=True)
class Rays:
    """``complete``: every choice was refuted or followed to one of ``second``. ``exact``: over Q."""

    note: str
    complete: bool = False
    exact: bool = True
    second: list[Accepted] = field(default_factory=list)


def rays(
    context: Context, plan: Plan, neurons: npt.NDArray[np.int64], found: Equations, budget: Budget
) -> Rays:
    """Search the layer of ``plan`` again, ``neurons`` (n,) in that order, over Q for small systems of mse and
    hinge, else mod p.

    ``neurons``: those with a non-zero delta, in their order; ``found``: their equations mod p.
    """
    if context.question.loss.rational and found.variables <= VARIABLES:
        searched = problem(context, plan, neurons)
        exact = subspaces(searched, budget, SUBSPACES)
        if exact is not None:
            choices = Choices(searched=searched, subspaces=exact, most=CHOICES)
            return _followed(context, searched, choices, budget)
    return _refuted(context, plan, found, budget)


def _refuted(context: Context, plan: Plan, searched: Equations, budget: Budget) -> Rays:
    found = leaves(searched, budget, SUBSPACES)
    if found is None:
        return Rays(note=budget.exhausted or f"more than {SUBSPACES} subspaces", exact=False)
    unit = np.eye(context.samples, dtype=np.uint64)
    truth = np.concatenate([unit, unknowns_mod(context, plan)])
    problem_left = refuted(searched, found, truth, MODULAR_CHOICES)
    budget.spend(MODULAR_CHOICES * searched.variables)
    note = problem_left or f"every choice of {len(found)} subspaces but the true samples is refuted"
    return Rays(note=note, complete=problem_left is None, exact=False)


def _followed(context: Context, searched: Problem, choices: Choices, budget: Budget) -> Rays:
    refuted, left, second = 0, 0, []
    for choice in choices:
        outcome = None if choice.columns is None else follow(context, searched, choice.columns)
        if outcome is None or not (outcome.excluded or outcome.second):
            left += 1
        elif outcome.second is not None:
            second.append(outcome.second)
        else:
            refuted += 1
        budget.spend(context.samples**4)
        if budget.exhausted or refuted + left + len(second) >= FOLLOWED:
            break
    else:
        stopped = f"more than {CHOICES} choices" if choices.too_many else None
        return _told(choices, refuted, left, second, stopped)
    stopped = budget.exhausted or f"more than {FOLLOWED} candidates"
    return _told(choices, refuted, left, second, stopped)


def _told(choices: Choices, refuted: int, left: int, second: list[Accepted], stopped: str | None) -> Rays:
    note = f"{len(choices.subspaces)} rational subspaces, {choices.looked_at} choices: "
    note += f"{refuted} candidates refuted, {len(second)} second batches, {left} open"
    complete = not (left or stopped)
    return Rays(note="; ".join(filter(None, (note, stopped))), complete=complete, second=second)
