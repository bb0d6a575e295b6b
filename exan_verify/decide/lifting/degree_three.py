"""Lifting of degree three (docs/theory.md, C4's variant and Appendix L3): where degree two lacks equations.

The equations of degree two at one hidden layer, times each of the M + K' unknowns, are linear in V
monomials of degree three (:mod:`exan_verify.decide.lifting.cubic`). Samples that share the layer's pattern
form groups of sizes s_k; the null space of R3 always contains a space of dimension sum binom(s_k + 2, 3).
When rank(R3) over F_p, p a small prime, reaches V minus that, every column of Q^-1 lies in the span of one
group, with u = U_group q, and the rest is as in :mod:`exan_verify.decide.lifting.degree_two`, whose
conclusion is shared.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from msgspec.structs import asdict

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import DegreeThree, LayerArgument
from exan_verify.core.facts import Facts
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.lifting.cubic import Cubic, cubic_equations
from exan_verify.decide.lifting.degree_two import conclude, hypotheses
from exan_verify.decide.lifting.system import Plan, equations, plan
from exan_verify.errors import SoundnessError
from exan_verify.exact.elimination import PRIMES
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, UnsuitablePrimeError
from exan_verify.exact.stacked import gibibytes, least_memory, require_memory

_SMALL = 2000
"""Unknowns up to which no more neurons are taken than are enough by count. In larger systems all of them
leave less to eliminate: of 32344 unknowns at 784-1000-10 with 48 samples 4164, not 12000."""


def decide(context: Context, budget: Budget) -> Finding:
    """Degree three at the layers where degree two has too few equations, the cheapest layer first."""
    attempts: list[Attempt] = []
    for cubic in plans(context):
        if budget.exhausted:
            break
        start = time.monotonic()
        evidence, rank, note = _lift(context, cubic, budget)
        attempts.append(_attempt(cubic, rank, note, start))
        if evidence is not None:
            determined = frozenset(evidence.argument.determined)
            return Finding(
                attempts=tuple(attempts),
                facts=Facts(determined=determined),
                evidence=(evidence,),
                reason=_reason(context, evidence, determined),
            )
    return Finding(attempts=tuple(attempts))


def plans(context: Context) -> list[Cubic]:
    """One plan per hidden layer where degree two lacks equations, by count or by rank; the layers with enough
    for degree three first, then by the number of unknowns. One sample needs no system.
    """
    if context.samples == 1:
        return []
    everyone = tuple(range(context.samples))
    quadratic = [plan(context, layer, everyone) for layer in range(1, context.network.depth)]
    found = [Cubic(plan=p, neurons=p.equations) for p in quadratic if _deficit(context, p)]
    chosen = [
        replace(c, neurons=min(c.enough, c.neurons) if c.unknowns < _SMALL else c.neurons) for c in found
    ]
    return sorted(chosen, key=lambda c: (c.missing, c.unknowns))


def _deficit(context: Context, quadratic: Plan) -> int:
    """How many independent equations degree two lacks at this layer, at least; 0 where it has enough, and
    where no number would do.
    """
    if quadratic.missing or quadratic.obstacle is not None:
        return quadratic.missing
    return quadratic.target - rank_mod(equations(context, quadratic))


def _lift(context: Context, cubic: Cubic, budget: Budget) -> tuple[DegreeThree | None, int | None, str]:
    """Evidence, if any; the rank that was taken; a note."""
    obstacle = hypotheses(context, cubic.plan.layer) or _too_few(cubic)
    if obstacle is not None:
        return None, None, obstacle
    rank, note = _rank(context, cubic, budget)
    whole = replace(cubic, neurons=cubic.plan.equations)
    if rank is not None and rank < cubic.target and cubic != whole:
        cubic = whole
        rank, note = _rank(context, whole, budget)
    if rank is None or rank < cubic.target:
        return None, rank, note
    used = cubic.plan
    conclusion, note = conclude(context, used.layer, used.parametrisation, used.groups, budget)
    if conclusion is None:
        return None, rank, note
    argument = LayerArgument(unknowns=cubic.unknowns, rank=rank, **asdict(conclusion))
    point = context.image.point
    return DegreeThree(prime=PRIME, point=point, neurons=cubic.neurons, argument=argument), rank, note


def _too_few(cubic: Cubic) -> str | None:
    if not cubic.missing:
        return None
    return (
        f"too few equations: {cubic.missing} more neurons with a non-zero delta are needed "
        f"({cubic.plan.missing} at degree two)"
    )


def _rank(context: Context, cubic: Cubic, budget: Budget) -> tuple[int | None, str]:
    """rank(R3) mod p, or None where budget or memory do not allow it, and a note. One that is short is
    taken again with another prime.
    """
    budget.spend(cubic.work)
    if budget.exhausted:
        return None, budget.exhausted
    ranks: list[int] = []
    for prime in PRIMES:
        try:
            require_memory(least_memory(cubic.unknowns))
            system = cubic_equations(context, cubic, context.image_in(prime))
            ranks.append(system.rank(cubic.target, partial(_tell, context, cubic, system.memory)))
        except UnsuitablePrimeError:
            continue
        except MemoryError as error:
            missing = f"{cubic.plan.missing} neurons are missing at degree two"
            return None, f"{cubic.rows} x {cubic.unknowns}: {error} ({missing})"
        if ranks[-1] > cubic.target:
            raise SoundnessError(f"rank {ranks[-1]} exceeds the bound {cubic.target} of degree three")
        if ranks[-1] == cubic.target:
            break
    if not ranks:
        return None, "the given numbers have denominators for which no exact rank is taken; round them"
    return max(ranks), f"{max(ranks)} of the {cubic.target} independent equations needed are found"


def _tell(context: Context, cubic: Cubic, memory: int, rank: int) -> None:
    size = f"{cubic.rows} x {cubic.unknowns} in {gibibytes(memory)} of memory"
    context.tell(f"lifting of degree three: rank of {size}", rank / cubic.target)


def _attempt(cubic: Cubic, rank: int | None, note: str, start: float) -> Attempt:
    return Attempt(
        engine=Engine.LIFTING,
        note=f"layer {cubic.plan.layer}, degree 3: {note}",
        layer=cubic.plan.layer,
        equations=cubic.rows,
        unknowns=cubic.unknowns,
        rank=rank,
        seconds=time.monotonic() - start,
    )


def _reason(context: Context, evidence: DegreeThree, determined: frozenset[int]) -> str:
    used, samples = evidence.argument, context.samples
    if len(determined) < samples:
        names = ", ".join(str(m) for m in sorted(determined))
        return f"samples {names} are in every batch with this gradient or release (lifting of degree three)"
    missing = _deficit(context, plan(context, used.layer, tuple(range(samples))))
    return (
        f"lifting of degree three at hidden layer {used.layer}, where degree two is {missing} equations "
        f"short: {used.rank} independent equations in {used.unknowns} unknowns, the most that {samples} "
        "samples allow; inputs and labels follow"
    )
