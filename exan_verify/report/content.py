"""What a report shows: one section per network, made of an audit and, where there was one, an attack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exan_verify.auditing import Audit
from exan_verify.network import Array
from exan_verify.report.png import Canvas
from exan_verify.verdict import Outcome, SampleStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the attack made of one sample of the batch: values (d,), their error and the bound it claimed."""

    values: Array
    label: int
    rmse: float
    bound: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One network and batch: the audit, the inputs (M, ...) as given, and one recovery or None per sample."""

    title: str
    audit: Audit
    inputs: Array
    note: str = ""
    recoveries: tuple[Recovery | None, ...] | None = None
    attack_facts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample of the table, ready to be shown."""

    index: int
    label: str
    status: str
    exans: tuple[int, ...]
    published: bool
    peelable: bool
    radius: str
    original: str | None
    recovered: str | None
    recovery: Recovery | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One of the arguments, which are never mixed: a figure, and what it means in a sentence."""

    name: str
    value: str
    detail: str
    meaning: str
    tone: str


def headline(section: Section) -> str:
    """The verdict in words a newcomer understands."""
    verdict, size = section.audit.verdict, section.audit.size
    found = sum(r is not None for r in section.recoveries) if section.recoveries is not None else 0
    attacked = (
        f" The attack rebuilt {_of(found, size)} from the gradient alone." if section.recoveries else ""
    )
    if verdict.outcome is Outcome.UNIQUE:
        return f"This gradient fits one batch only, and that is proved.{attacked}"
    if verdict.outcome is Outcome.AMBIGUOUS:
        return f"At least two batches have this gradient; {_determined(section)}{attacked}"
    return f"Whether the whole batch is unique is not decided; {_determined(section)}{attacked}"


def cards(section: Section) -> Iterator[Card]:
    """The attack, where there was one, and the audit's four arguments."""
    audit, verdict, size = section.audit, section.audit.verdict, section.audit.size
    if section.recoveries is not None:
        yield _attack_card(section.recoveries)
    published = sum(audit.exclusivity.published_by_sample)
    yield Card(
        name="Published ExAN condition",
        value=f"{published} of {size}",
        detail="holds for the whole batch" if audit.published else "does not hold for the whole batch",
        meaning=(
            "Samples with at least two exclusive neurons in the last hidden layer and one in every other. "
            "It makes the published attack work; it proves nothing by itself, its absence protects nobody."
        ),
        tone="bad" if published else "plain",
    )
    peelable = sum(audit.peelable)
    yield Card(
        name="Peeling closure",
        value=f"{peelable} of {size}",
        detail="samples can be peeled off one after the other",
        meaning=(
            "An exclusive neuron of the first layer gives away its sample exactly; subtracting that sample "
            "makes further neurons exclusive, and so on."
        ),
        tone="bad" if peelable else "plain",
    )
    counts = Counter(verdict.samples)
    yield Card(
        name="Certified verdict",
        value=verdict.outcome.value.upper(),
        detail=f"{counts[SampleStatus.DETERMINED]} determined, {counts[SampleStatus.FREE]} free, "
        f"{counts[SampleStatus.UNKNOWN]} undecided",
        meaning=(
            "Proved in exact arithmetic: a determined sample is in every batch of this size that has this "
            "gradient. Undecided is never a promise of safety."
        ),
        tone="bad" if counts[SampleStatus.DETERMINED] else "plain",
    )
    yield _radius_card(audit)


def rows(section: Section) -> Iterator[Row]:
    """The samples, in the order of the batch."""
    audit = section.audit
    canvas = Canvas.of(section.inputs)
    for m, status in enumerate(audit.verdict.samples):
        recovery = section.recoveries[m] if section.recoveries is not None else None
        radius = audit.radius[m]
        yield Row(
            index=m,
            label=_label(audit.classes[m]),
            status=status.value,
            exans=tuple(layer[m] for layer in audit.exclusivity.counts),
            published=audit.exclusivity.published_by_sample[m],
            peelable=audit.peelable[m],
            radius="not decided" if radius is None else f"{radius:g}",
            original=None if canvas is None else canvas.draw(section.inputs[m]),
            recovered=None if canvas is None or recovery is None else canvas.draw(recovery.values),
            recovery=recovery,
        )


def _attack_card(recoveries: tuple[Recovery | None, ...]) -> Card:
    found = [r for r in recoveries if r is not None]
    worst = (
        f"largest error (RMSE) {max(r.rmse for r in found):.1e}" if found else "nothing that it stands behind"
    )
    return Card(
        name="Attack",
        value=f"{len(found)} of {len(recoveries)}",
        detail=worst,
        meaning=(
            "Rebuilt in floating point from model and gradient alone, by code that shares nothing with the "
            "exact engines. A sample is claimed only when its error bound and the residual allow it."
        ),
        tone="bad" if found else "plain",
    )


def _radius_card(audit: Audit) -> Card:
    known = [r for r in audit.radius if r is not None]
    undecided = audit.size - len(known)
    value = f"{max(known):g}" if known else "not decided"
    return Card(
        name="Ambiguity radius",
        value=value if not undecided or not known else f"{value} or more",
        detail=f"{sum(r == 0 for r in known)} of {audit.size} samples cannot move; "
        f"{undecided} without a bound",
        meaning=(
            "How far a sample can move, in its largest entry, while the gradient stays the same. Zero: not "
            "at all. Non-unique is not private: a small radius protects nobody."
        ),
        tone="bad" if known and max(known) == 0 else "plain",
    )


def _determined(section: Section) -> str:
    size, determined = section.audit.size, section.audit.verdict.determined
    if determined == 0:
        return "no sample is proved to be in every batch that has it, and none is proved safe."
    return f"{_of(determined, size)} are proved to be in every batch that has it."


def _of(count: int, size: int) -> str:
    return f"all {size} samples" if count == size else f"{count} of {size} samples"


def _label(label: Any) -> str:
    return str(label) if isinstance(label, int) else "(" + ", ".join(f"{v:g}" for v in label) + ")"
