"""What one method of the families engine found, and how the findings of several add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from exan_verify.core.certificate import Evidence
from exan_verify.core.facts import NOTHING, Facts
from exan_verify.core.network import Batch
from exan_verify.core.verdict import Witness
from exan_verify.decide.second_batch import Accepted, Radii, downwards, farthest

GENERATORS_SHOWN = 4
"""How many directions of a family a witness lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Proved facts with their evidence; a second batch and radii where there are explicit ones.

    ``dimension`` and ``generators`` describe a family (dimension: exact or a proved lower bound, as
    ``reason`` says); ``note`` is the method's word for the record, also when it found nothing.
    """

    note: str
    facts: Facts = NOTHING
    evidence: tuple[Evidence, ...] = ()
    batch: Batch | None = None
    dimension: int | None = None
    generators: tuple[Any, ...] = ()
    radii: Radii | None = None
    reason: str | None = None


def of_batches(found: Sequence[Accepted], *, note: str, reason: str) -> Part:
    """A part from verified second batches: each is kept as evidence only where it adds a fact."""
    facts, evidence = NOTHING, []
    batch, radii = None, None
    for item in sorted(found, key=lambda a: -len(a.facts.free)):
        if not facts.is_ambiguous or item.facts.free - facts.free:
            facts |= item.facts
            evidence.append(item.evidence)
        batch = batch or item.batch
        radii = item.radii if radii is None else farthest(radii, item.radii)
    if not found:
        return Part(note=note)
    return Part(note=note, facts=facts, evidence=tuple(evidence), batch=batch, radii=radii, reason=reason)


def joined(parts: Sequence[Part]) -> Part:
    """All facts; evidence of a part only where it adds a fact; the largest family; the largest radii."""
    total = Part(note="; ".join(part.note for part in parts if part.note))
    for part in parts:
        if not part.facts.is_ambiguous:
            continue
        adds = not total.facts.is_ambiguous or bool(part.facts.free - total.facts.free)
        larger = (part.dimension or 0) > (total.dimension or 0)
        total = replace(
            total,
            facts=total.facts | part.facts,
            evidence=total.evidence + (part.evidence if adds else ()),
            batch=total.batch or part.batch,
            dimension=part.dimension if larger else total.dimension,
            generators=part.generators if larger else total.generators,
            radii=_wider(total.radii, part.radii),
            reason="; ".join(filter(None, (total.reason, part.reason if adds else None))),
        )
    return total


def witness(found: Part) -> Witness:
    """The witness of a verdict."""
    return Witness(
        batch=found.batch,
        dimension=found.dimension,
        generators=found.generators,
        radius=None if found.radii is None else tuple(map(downwards, found.radii)),
    )


def names(samples: Sequence[int]) -> str:
    """The samples in words."""
    listed = ", ".join(str(int(m)) for m in samples)
    return f"sample {listed}" if len(samples) == 1 else f"samples {listed}"


def _wider(left: Radii | None, right: Radii | None) -> Radii | None:
    return farthest(left, right) if left is not None and right is not None else left or right
