"""First-order families by counting (docs/theory.md S4), for cross_entropy and bce on small networks.

More dimensions of motion than equations, whatever the values of softmax are: some motion keeps the gradient.
The count is made for all samples, for the samples of each region and for pairs, with each sample's own
motions and with those that the first layer does not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Counting
from exan_verify.core.facts import Facts
from exan_verify.decide.context import Context
from exan_verify.decide.families.regions import shared_regions
from exan_verify.decide.families.result import Part, joined, names
from exan_verify.decide.second_batch import counted
from exan_verify.exact.modular import PRIME

_MAX_SETS = 24
_MAX_ENTRIES = 300_000


def decide(context: Context, budget: Budget) -> Part:
    """Count for several sets of samples; keep what adds a fact."""
    if context.question.loss.rational or not _within_reach(context):
        return Part(note="")
    parts: list[Part] = []
    for samples in _sets(context):
        for common in (False, True) if context.network.depth > 1 else (False,):
            budget.spend((len(samples) * context.network.widths[0]) ** 3)
            if budget.exhausted or len(joined(parts).facts.free) == context.samples:
                return joined(parts)
            part = _count(context, samples, common)
            parts += [part] if part is not None else []
    found = joined(parts)
    return found if found.facts.is_ambiguous else Part(note="no surplus of motions over equations")


def _within_reach(context: Context) -> bool:
    """Whether the responses of all motions to all symbols are few enough numbers."""
    entries = sum(layer.weight.size for layer in context.network.layers)
    columns = context.samples * context.network.widths[0]
    return entries * columns * context.samples * context.network.classes <= _MAX_ENTRIES


def _sets(context: Context) -> Iterator[tuple[int, ...]]:
    everyone = range(context.samples)
    found = [*shared_regions(context), tuple(everyone), *combinations(everyone, 2)]
    yield from list(dict.fromkeys(found))[:_MAX_SETS]


def _count(context: Context, samples: tuple[int, ...], common: bool) -> Part | None:
    evidence = Counting(samples=samples, common=common, prime=PRIME, point=context.image.point)
    found = counted(context, evidence)
    if found is None:
        return None
    reason = (
        f"{names(samples)} have {found.motions} dimensions of motion against at most {found.equations} "
        f"equations: a family of dimension {found.motions - found.equations} at least keeps the gradient and "
        f"moves {names(sorted(found.free))}"
    )
    return Part(
        note=reason,
        facts=Facts(ambiguous=True, free=found.free),
        evidence=(evidence,),
        dimension=found.motions - found.equations,
        reason=reason,
    )
