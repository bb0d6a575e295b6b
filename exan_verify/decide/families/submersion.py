"""Batches on the fibre of what is sent, where that has independent derivatives (docs/theory.md, releases:
submersion).

Fewer entries are sent than the inputs have coordinates. The kernel computes the Jacobian; here it is counted
whether it can have full rank. Samples at a kink stay where they are, and so do dead ones: what is sent of a
sample with a layer that is wholly inactive does not change near it, and only their own argument moves them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Submersion
from exan_verify.core.facts import Facts
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.result import Part, names
from exan_verify.decide.second_batch import Count, counted
from exan_verify.exact.modular import PRIME

_MAX_COORDINATES = 1 << 14
"""Beyond them no Jacobian is built."""


def decide(context: Context, budget: Budget) -> Part:
    """The manifold of batches with the same release."""
    release = context.question.release
    basis = release is not None and release.input_basis is not None
    if basis or context.question.loss is Loss.HINGE:
        return Part(note="")
    note = ""
    for samples in _candidates(context):
        coordinates = _coordinates(context, samples)
        least = _least_entries(context, samples)
        if coordinates > _MAX_COORDINATES or least >= coordinates:
            continue
        budget.spend(max(1, least) ** 2 * coordinates)
        evidence = Submersion(samples=samples, prime=PRIME, point=context.image.point)
        found = counted(context, evidence)
        if found is not None:
            return _part(context, evidence, found)
        note = "the entries that are sent are not shown to be few and independent"
    return Part(note=note)


def _part(context: Context, evidence: Submersion, found: Count) -> Part:
    what = "the gradient" if context.question.release is None else "what is sent"
    dimension = found.motions - found.equations
    reason = (
        f"{what} has {found.equations} independent entries and {names(evidence.samples)} {found.motions} "
        f"coordinates: a family of dimension {dimension} around the batch has the same"
    )
    return Part(
        note=reason,
        facts=Facts(ambiguous=True, free=found.free),
        evidence=(evidence,),
        dimension=dimension,
        reason=reason,
    )


def _candidates(context: Context) -> Iterator[tuple[int, ...]]:
    """All samples that can move smoothly and change something; then those of regions that alone have more
    coordinates than moments. A region with fewer has moments that satisfy equations, as those of one sample
    do, which have rank one, and may spoil the count.
    """
    stays = np.zeros(context.samples, dtype=bool)
    for zeros, pattern in zip(context.passed.zeros, context.passed.patterns, strict=True):
        stays |= zeros.any(axis=0) | ~pattern.any(axis=0)
    everyone = tuple(int(m) for m in np.flatnonzero(~stays))
    if not everyone:
        return
    yield everyone
    classes = context.network.classes - context.question.loss.zero_sum
    together = np.concatenate(context.passed.patterns)[:, list(everyone)] if context.passed.patterns else None
    if together is None:
        return
    _, region, count = np.unique(together, axis=1, return_inverse=True, return_counts=True)
    features = context.network.widths[0]
    large = (count * features > classes * (features + 1))[region.reshape(-1)]
    if 0 < large.sum() < len(everyone):
        yield tuple(m for m, kept in zip(everyone, large, strict=True) if kept)


def _least_entries(context: Context, samples: tuple[int, ...]) -> int:
    """Entries that are sent and may change, less the most that can follow from others: a row of the output
    layer, and an entry for each hidden neuron.
    """
    network, question = context.network, context.question
    active = [np.ones((network.widths[0], len(samples)), dtype=bool)]
    active += [pattern[:, list(samples)] for pattern in context.passed.patterns]
    active.append(np.ones((network.classes, len(samples)), dtype=bool))
    total = 0
    for layer, below, above in zip(network.layers, active[:-1], active[1:], strict=True):
        rows = question.sent_weights(layer)
        total += int((above[rows].astype(int) @ below.T.astype(int) > 0).sum())
        if layer.bias is not None:
            total += int((above.any(axis=1) & question.sent_biases(layer)).sum())
    return total - sum(network.widths[1:-1]) - network.widths[-2] - 1


def _coordinates(context: Context, samples: tuple[int, ...]) -> int:
    """Entries of the samples' inputs that can move both ways."""
    x = context.batch.inputs[list(samples)]
    if context.question.domain is None:
        return int(x.size)
    lo, hi = context.question.domain.bounds(x.shape[1])
    return int(((x > lo) & (x < hi)).sum())
