"""The secure side: families of batches with the same gradient (docs/theory.md section 4).

Each method proposes second batches; every one is verified exactly before it counts. The kernel builds it
again from its certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from exan_verify.core.budget import Budget
from exan_verify.core.network import ReluNetwork
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.families import (
    averaged,
    counting,
    linear,
    mixing,
    orbits,
    projected,
    shears,
    silent,
    submersion,
    unseen,
)
from exan_verify.decide.families.result import Part, joined, witness
from exan_verify.decide.released import handles
from exan_verify.errors import BudgetExhausted

Method = Callable[[Context, Budget], Part]

OF_MEANS: tuple[Method, ...] = (averaged.decide, projected.decide)
"""Who is asked where the step is made on means of samples; the others speak of the samples' gradients."""

METHODS: tuple[Method, ...] = (
    projected.decide,
    unseen.decide,
    mixing.decide,
    shears.decide,
    linear.decide,
    counting.decide,
    orbits.decide,
    silent.decide,
    submersion.decide,
)
"""Who is asked, in order; each adds its facts. The last has a Jacobian to eliminate, and is asked where the
others leave samples open.
"""


ANY_ACTIVATION: tuple[Method, ...] = (unseen.decide,)
"""Who is asked about networks with other activations than ReLU, for which the others are not made."""


def decide(context: Context, budget: Budget) -> Finding:
    """Look for families through the batch; report what was proved and what was tried."""
    start = time.monotonic()
    parts: list[Part] = []
    stopped = None
    release = context.question.release
    methods = METHODS if release is None or release.averages is None else OF_MEANS
    if not isinstance(context.model, ReluNetwork):
        methods = ANY_ACTIVATION
    for method in methods:
        if stopped := budget.exhausted:
            break
        if method is submersion.decide and len(joined(parts).facts.free) == context.samples:
            break
        try:
            part = method(context, budget)
        except BudgetExhausted as error:  # what other methods proved stays
            stopped = str(error)
            break
        if all(handles(evidence, context.question) for evidence in part.evidence):
            parts.append(part)
        if release is not None and len(part.facts.free) == context.samples:
            break  # the first family alone hides every sample
    found = joined(parts)
    attempt = Attempt(
        engine=Engine.FAMILIES,
        note="; ".join(filter(None, (found.note, stopped))) or "no shared region, dead or silent sample",
        seconds=time.monotonic() - start,
    )
    if not found.facts.is_ambiguous:
        return Finding(attempts=(attempt,))
    return Finding(
        attempts=(attempt,),
        facts=found.facts,
        evidence=found.evidence,
        witness=witness(found),
        reason=found.reason,
    )
