"""Uniqueness by enumerating neuron states (docs/theory.md 3.3 and Appendix E).

At one hidden layer every candidate (q, u) satisfies, for every neuron, one of the two linear equations (*).
The search cuts the space of (q, u) neuron by neuron into subspaces that cover every candidate; when each leaf
is known exactly to lie in the span of some true samples, so does every column of Q^-1. Leaves that share
samples are joined to groups; from there on it is :mod:`exan_verify.decide.lifting.degree_two`'s conclusion.
Exponential in M + K', but complete where lifting is short of equations, and a second opinion.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import lcm, prod

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Enumeration, ExtraRays
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, to_fraction
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.enumeration.rays import rays
from exan_verify.decide.enumeration.search import Equations, Tally, components, masks, ordered
from exan_verify.decide.enumeration.tasks import search_in_parts
from exan_verify.decide.families.result import of_batches, witness
from exan_verify.decide.lifting.degree_two import conclude, hypotheses
from exan_verify.decide.lifting.system import Plan, equations, outgoing_weights, plan, rational_weights
from exan_verify.decide.second_batch import Accepted
from exan_verify.errors import BudgetExhausted
from exan_verify.exact.backprop import backward
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME
from exan_verify.exact.rational import Mask, product
from exan_verify.exact.softmax import loss_vectors

AUTOMATIC = 20
"""Largest M + K' that is searched without being asked for: seconds; each one more doubles the time."""

MAX_SAMPLES = 63
"""Sets of samples are bits of 64-bit words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The search at one hidden layer: its neurons with a non-zero delta, in the order of the search."""

    plan: Plan
    neurons: npt.NDArray[np.int64]
    equations: Equations


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search at one layer gave: evidence for determined samples, or second batches; a note."""

    note: str
    evidence: Enumeration | ExtraRays | None = None
    second: tuple[Accepted, ...] = ()


def decide(context: Context, budget: Budget) -> Finding:
    """Enumerate at the layers from the first on until every sample is settled or the budget is spent."""
    attempts: list[Attempt] = []
    evidence: list[Enumeration | ExtraRays] = []
    second: list[Accepted] = []
    determined: frozenset[int] = frozenset()
    for layer in range(1, context.network.depth):
        start = time.monotonic()
        try:
            found = _at_layer(context, layer, budget)
        except BudgetExhausted as error:  # what other layers proved stays
            found = Found(note=str(error))
        seconds = time.monotonic() - start
        attempts.append(
            Attempt(
                engine=Engine.ENUMERATION, note=f"layer {layer}: {found.note}", layer=layer, seconds=seconds
            )
        )
        second += found.second
        if found.evidence is not None and not determined.issuperset(found.evidence.conclusion.determined):
            evidence.append(found.evidence)
            determined |= frozenset(found.evidence.conclusion.determined)
        if second or len(determined) == context.samples or budget.exhausted:
            break
    return _finding(context, tuple(attempts), evidence, determined, second)


def _finding(
    context: Context,
    attempts: tuple[Attempt, ...],
    evidence: list[Enumeration | ExtraRays],
    determined: frozenset[int],
    second: list[Accepted],
) -> Finding:
    part = of_batches(second, note="", reason="a choice of extra rays is another batch")
    if not evidence and not second:
        return Finding(attempts=attempts)
    reasons = [_reason(context, evidence, determined)] if evidence else []
    return Finding(
        attempts=attempts,
        facts=Facts(determined=determined) | part.facts,
        evidence=(*evidence, *part.evidence),
        witness=witness(part) if second else None,
        reason="; ".join([*reasons, *filter(None, [part.reason])]),
    )


def layer_equations(context: Context, quadratic: Plan) -> Layer:
    """The equations at the plan's layer, ordered. A neuron whose deltas are 0 mod p is left out."""
    delta = context.image.delta(quadratic.layer)
    neurons = np.flatnonzero(delta.any(axis=1))
    neurons = neurons[ordered(delta[neurons])]
    inactive, active = (table[neurons] for table in exact_states(context, quadratic.layer))
    built = Equations(
        delta=delta[neurons],
        outgoing=outgoing_weights(context, quadratic, neurons),
        inactive=masks(inactive),
        active=masks(active),
        groups=tuple(sum(1 << m for m in group) for group in quadratic.groups if len(group) > 1),
        small=_small(context, quadratic, neurons),
    )
    return Layer(plan=quadratic, neurons=neurons, equations=built)


def exact_states(context: Context, layer: int) -> tuple[Mask, Mask]:
    """Which of the two equations each neuron and sample (n, M) are known to satisfy exactly.

    The pattern gives one; for a rational loss w_j . u_m = 0 exactly gives both.
    """
    pattern = context.passed.pattern(layer)
    if not context.question.loss.rational:
        return ~pattern, pattern
    vectors = loss_vectors(
        context.question.loss, context.passed.logits, context.batch.labels, context.divisor
    )
    following = backward(context.network, context.passed, vectors)[layer]
    zero = ~product(context.network.layers[layer].weight.T, following).nonzero()
    return ~pattern | zero, pattern | zero


def _at_layer(context: Context, layer: int, budget: Budget) -> Found:
    if context.samples == 1:
        return Found(note="one sample needs no enumeration")
    quadratic = plan(context, layer, tuple(range(context.samples)))
    obstacle = hypotheses(context, layer) or _out_of_range(context, quadratic)
    if obstacle is not None:
        return Found(note=obstacle)
    found = layer_equations(context, quadratic)
    tally = search_in_parts(found.equations, budget, context.setting.jobs)
    if tally.stopped:
        return Found(note=f"stopped after {tally.visited} subspaces: {budget.exhausted}")
    if tally.open_leaves:
        return _with_rays(context, found, tally, budget)
    groups = components(tally.leaves)
    conclusion, note = conclude(context, layer, quadratic.parametrisation, groups, budget)
    note = f"{tally.visited} subspaces, {len(tally.leaves)} leaves: {note}"
    if conclusion is None:
        return Found(note=note)
    order = tuple(int(j) for j in found.neurons[: tally.depth])
    point = context.image.point
    evidence = Enumeration(
        prime=PRIME,
        point=point,
        order=order,
        subspaces=min(tally.visited, (1 << 31) - 1),
        conclusion=conclusion,
    )
    return Found(note=note, evidence=evidence)


def _with_rays(context: Context, found: Layer, tally: Tally, budget: Budget) -> Found:
    """Follow what is left beside the true samples; without other batches the true groups remain."""
    used = found.plan
    followed = rays(context, used, found.neurons, found.equations, budget)
    note = f"{_open(found.equations, tally)}; {followed.note}"
    if followed.second or not followed.complete:
        return Found(note=note, second=tuple(followed.second))
    conclusion, more = conclude(context, used.layer, used.parametrisation, used.groups, budget)
    note = f"{note}: {more}"
    if conclusion is None:
        return Found(note=note)
    point = context.image.point
    evidence = ExtraRays(prime=PRIME, point=point, exact=followed.exact, conclusion=conclusion)
    return Found(note=note, evidence=evidence)


def _out_of_range(context: Context, quadratic: Plan) -> str | None:
    variables = context.samples + quadratic.extra
    if context.samples > MAX_SAMPLES:
        return f"enumeration takes at most {MAX_SAMPLES} samples"
    if context.setting.engine != "auto":
        return None
    if quadratic.obstacle is None and rank_mod(equations(context, quadratic)) == quadratic.target:
        return "lifting has found this layer's groups already"
    if variables > AUTOMATIC:
        return (
            f"about 2^{variables} subspaces would have to be looked at; ask for it with engine='enumeration' "
            "and a budget"
        )
    return None


def _small(context: Context, quadratic: Plan, neurons: Array) -> bool:
    """Whether rows of ``outgoing`` that are dependent mod p are dependent over Q (Appendix E, step 4).

    With the columns scaled to integers, every minor is at most the product of the columns' lengths
    (Hadamard); below p it is zero only if it is zero mod p.
    """
    if quadratic.parametrisation == "column_space":
        return False
    weights = rational_weights(context, quadratic)[neurons]
    rows = [[to_fraction(v) for v in row] for row in weights.T]
    scaled = [[v * lcm(1, *(w.denominator for w in row)) for v in row] for row in rows]
    return prod(max(1, sum(int(v) ** 2 for v in row)) for row in scaled) < PRIME**2


def _open(searched: Equations, tally: Tally) -> str:
    count = sum(tally.open_leaves.values())
    return (
        f"{count} of the subspaces that {searched.neurons} neurons leave are larger than their true samples "
        f"(M + K' = {searched.variables}): too few neurons tell samples apart"
    )


def _reason(context: Context, evidence: list[Enumeration | ExtraRays], determined: frozenset[int]) -> str:
    layers = ", ".join(str(part.conclusion.layer) for part in evidence)
    used = f"enumeration of neuron states at hidden layer {layers}"
    if any(isinstance(part, ExtraRays) for part in evidence):
        used += ", with every choice of extra rays refuted exactly"
    if len(determined) < context.samples:
        names = ", ".join(str(m) for m in sorted(determined))
        return f"samples {names} are in every batch with this gradient ({used})"
    return f"{used}: only true samples are left; inputs and labels follow"
