"""First-order families by counting (docs/theory.md S4), for cross_entropy and bce on small networks.

More dimensions of motion than equations, whatever the values of softmax are: some motion keeps the gradient.
The count is made for all samples, for the samples of each region and for pairs, with each sample's own
motions and with those that the first layer does not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from exan_verify.core.certificate import Counting
from exan_verify.core.facts import Facts
from exan_verify.core.verdict import Budget
from exan_verify.decide.context import Context
from exan_verify.decide.families.regions import shared_regions
from exan_verify.decide.families.result import Part, joined, names
from exan_verify.decide.families.second import not_staying
from exan_verify.exact.balance import symbolic_loss_vectors
from exan_verify.exact.first_order import Bases, common_motions, most_equations, own_motions, responses_mod
from exan_verify.exact.linalg import rank_mod
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
    return found if found.facts.is_ambiguous else Part(note="S4: no surplus of motions over equations")


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
    bases = _bases(context, samples, common)
    total = sum(basis.shape[1] for basis in bases.values())
    if not total:
        return None
    network, passed = context.network, context.passed
    symbols = symbolic_loss_vectors(context.question.loss, passed.logits, context.batch.labels)
    bound = most_equations(network, passed, list(symbols.values()), bases)
    if total <= bound:
        return None
    free = not_staying(context.batch, _moving(context, bases, bound))
    reason = (
        f"{names(samples)} have {total} dimensions of motion against at most {bound} equations: a family of "
        f"dimension {total - bound} at least keeps the gradient and moves {names(sorted(free))} (S4)"
    )
    return Part(
        note=reason,
        facts=Facts(ambiguous=True, free=free),
        evidence=(Counting(samples=samples, common=common, prime=PRIME, point=context.image.point),),
        dimension=total - bound,
        reason=reason,
    )


def _bases(context: Context, samples: tuple[int, ...], common: bool) -> Bases:
    network, passed, batch = context.network, context.passed, context.batch
    if common:
        return common_motions(network, passed, batch, context.question.domain, samples)
    return own_motions(network, passed, batch, context.question.loss, context.question.domain, samples)


def _moving(context: Context, bases: Bases, bound: int) -> frozenset[int]:
    """Samples whose part of the motion is not always zero, by ranks mod p."""
    change = responses_mod(context.network, context.passed, context.image.deltas, bases)
    owner = np.repeat(list(bases), [basis.shape[1] for basis in bases.values()])
    return frozenset(
        m for m, basis in bases.items() if rank_mod(change[:, owner != m]) + basis.shape[1] > bound
    )
