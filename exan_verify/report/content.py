"""What a report shows: one section per network, made of an audit and, where there was one, an attack."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from exan_verify.api.attack_own_batch import Features, Recovery
from exan_verify.api.audit import Audit
from exan_verify.core.network import Array
from exan_verify.core.verdict import Outcome, SampleStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One model and batch: the inputs (M, ...) as given, their labels, and what was found out about them.

    ``audit``: the exact arguments, None where they do not apply. ``recoveries``: one or None per sample, the
    whole None where there was no attack; ``candidates``: the same for samples that are not recovered. Of a
    model with convolutions: ``features``, and ``estimates`` of pictures that stay open, fitted to their
    features, one or None per sample. ``projected``: what was attacked shows the samples through an input
    basis only, and recoveries are the pictures that this gives. ``remedy``: the command that tries defences
    on this batch, empty where there is none.
    """

    title: str
    inputs: Array
    labels: tuple[Any, ...]
    audit: Audit | None
    note: str = ""
    recoveries: tuple[Recovery | None, ...] | None = None
    candidates: tuple[Recovery | None, ...] = ()
    features: Features | None = None
    estimates: tuple[Recovery | None, ...] | None = None
    projected: bool = False
    remedy: str = ""
    attack_facts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """M, the number of samples."""
        return len(self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample of the table, ready to be shown; ``exact``: what the audit says of it."""

    index: int
    label: str
    exact: Exact | None
    recovery: Recovery | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The audit's answers for one sample, as texts."""

    status: str
    exans: tuple[int, ...]
    published: str
    peelable: str
    radius: str


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
    attacked = _attacked(section)
    if section.audit is None:
        return f"Nothing is proved about this model.{attacked}"
    outcome = section.audit.verdict.outcome
    if outcome is Outcome.UNIQUE:
        return f"This gradient fits one batch only, and that is proved.{attacked}"
    if outcome is Outcome.AMBIGUOUS:
        return f"At least two batches have this gradient; {_determined(section.audit)}{attacked}"
    return f"Whether the whole batch is unique is not decided; {_determined(section.audit)}{attacked}"


def cards(section: Section) -> Iterator[Card]:
    """The attack, where there was one, and the audit's four arguments."""
    if section.recoveries is not None:
        yield _attack_card(section, section.recoveries)
    if section.features is not None:
        yield _features_card(section.features, section.size)
    if section.audit is not None:
        yield from _audit_cards(section.audit)


def rows(section: Section) -> Iterator[Row]:
    """The samples, in the order of the batch."""
    for m in range(section.size):
        yield Row(
            index=m,
            label=label_text(section.labels[m]),
            exact=None if section.audit is None else _exact(section.audit, m),
            recovery=shown_of(section, m),
        )


def shown_of(section: Section, m: int) -> Recovery | None:
    """What was recovered of sample m, else a candidate, else an estimate; None where there is nothing."""
    for some in (section.recoveries, section.candidates, section.estimates):
        if some and some[m] is not None:
            return some[m]
    return None


def label_text(label: Any) -> str:
    """A class, the target of one logit, or a target vector in parentheses."""
    if isinstance(label, str):
        return label
    if isinstance(label, (list, tuple)) and len(label) == 1:
        return f"{label[0]:g}"
    return (
        "(" + ", ".join(f"{v:g}" for v in label) + ")" if isinstance(label, (list, tuple)) else f"{label:g}"
    )


def leaks(section: Section, m: int) -> bool:
    """Whether sample m is out: rebuilt by the attack, or shown so that a viewer recognises it."""
    found = shown_of(section, m)
    if found is None:
        return False
    rebuilt = found.tier in ("confirmed", "consistent") and not section.projected
    return rebuilt or found.readable


def _attacked(section: Section) -> str:
    if section.recoveries is None:
        return ""
    found = sum(r is not None for r in section.recoveries)
    parts = [f"what is sent of {of(found, section.size)}" if section.projected else of(found, section.size)]
    if section.features is not None and section.features.count > found:
        parts.append(f"features and labels of {of(section.features.count, section.size)}")
        parts = parts[not found :]
    more = ""
    readable = _readable(section)
    if readable:
        more = f", and shows {readable} more that can be recognised, without a bound that is small enough"
    elif estimated := estimates(section):
        more = f", and estimated {len(estimated)} pictures from them"
    return f" The attack rebuilt {', and '.join(parts)} from the gradient alone{more}."


def estimates(section: Section) -> list[Recovery]:
    """The estimates of samples of which there is nothing better."""
    shown = (shown_of(section, m) for m in range(section.size))
    return [one for one in shown if one is not None and one.tier == "estimate"]


def _readable(section: Section) -> int:
    """Samples that are not recovered and yet shown recognisably, by a candidate, estimate or projection."""
    assert section.recoveries is not None
    rebuilt = () if section.projected else section.recoveries
    left = (m for m in range(section.size) if not rebuilt or rebuilt[m] is None)
    return sum(one is not None and one.readable for one in (shown_of(section, m) for m in left))


def _exact(audit: Audit, m: int) -> Exact:
    radius, state = audit.radius[m], audit.exclusivity
    return Exact(
        status=audit.verdict.samples[m].value,
        exans=() if state is None else tuple(layer[m] for layer in state.counts),
        published="-" if state is None else "yes" if state.published_by_sample[m] else "no",
        peelable="-" if state is None else "yes" if state.peelable[m] else "no",
        radius=_radius(radius),
    )


def _radius(radius: float | None) -> str:
    if radius is None:
        return "not decided"
    return "no limit" if math.isinf(radius) else f"{radius:.3g}"


def _audit_cards(audit: Audit) -> Iterator[Card]:
    yield from _exclusivity_cards(audit)
    yield _verdict_card(audit)
    yield _radius_card(audit)


def _exclusivity_cards(audit: Audit) -> Iterator[Card]:
    if audit.exclusivity is None:
        return
    size, published = audit.batch_size, sum(audit.exclusivity.published_by_sample)
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
    peelable = sum(audit.exclusivity.peelable)
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


def _verdict_card(audit: Audit) -> Card:
    counts = Counter(audit.verdict.samples)
    return Card(
        name="Certified verdict",
        value=audit.verdict.outcome.value.upper(),
        detail=f"{counts[SampleStatus.DETERMINED]} determined, {counts[SampleStatus.FREE]} free, "
        + (
            f"{counts[SampleStatus.FEATURES]} by features and label, "
            if SampleStatus.FEATURES in counts
            else ""
        )
        + f"{counts[SampleStatus.UNKNOWN]} undecided",
        meaning=(
            "Proved in exact arithmetic: a determined sample is in every batch of this size that has this "
            "gradient. Undecided is never a promise of safety."
        ),
        tone="bad" if counts[SampleStatus.DETERMINED] + counts[SampleStatus.FEATURES] else "plain",
    )


def _attack_card(section: Section, recoveries: tuple[Recovery | None, ...]) -> Card:
    found = [r for r in recoveries if r is not None]
    estimated = estimates(section)
    worst = (
        f"largest error (RMSE) {max(r.rmse for r in found):.1e}"
        if found
        else "nothing that fits all its equations"
    )
    wrong = sum(r.status == "wrong" for r in found)
    confirmed = sum(r.tier == "confirmed" for r in found)
    readable = _readable(section)
    detail = f"{wrong} beyond their bounds" if wrong else worst
    if found:
        detail += f"; {confirmed} confirmed, {len(found) - confirmed} consistent"
    if estimated:
        middle = median(one.psnr for one in estimated)
        detail = f"{len(found)} rebuilt; estimates of {middle:.1f} dB (PSNR, median)"
    if readable:
        detail += f"; {readable} more can be recognised"
    if section.projected:
        detail = f"what is sent of {len(found)} rebuilt; {readable} can be recognised by it"
    return Card(
        name="Attack",
        value=f"{len(estimated)} estimated"
        if estimated and not found and not readable
        else f"{readable if section.projected else len(found) + readable} of {len(recoveries)}",
        detail=detail,
        meaning=(
            "Made in floating point from model and gradient alone, by code that shares nothing with the "
            "exact engines. Confirmed: every other batch is excluded, as far as floating point can. "
            "Consistent: it fits all its equations. A candidate or an estimate that can be recognised has "
            "leaked as well."
        ),
        tone="bad" if readable or estimated or (found and not section.projected) else "plain",
    )


def _features_card(features: Features, size: int) -> Card:
    return Card(
        name="Features and labels",
        value=f"{features.count} of {size}",
        detail=f"within {features.bound:.1e}" if features.count else "nothing that it stands behind",
        meaning=(
            "What the connected head was given of each sample, and its label: from the head's gradient. "
            "The layers below decide how much of the picture follows."
        ),
        tone="bad" if features.count else "plain",
    )


def _radius_card(audit: Audit) -> Card:
    known = [r for r in audit.radius if r is not None]
    undecided = audit.batch_size - len(known)
    value = _radius(max(known)) if known else "not decided"
    return Card(
        name="Ambiguity radius",
        value=value if not undecided or not known or math.isinf(max(known)) else f"{value} or more",
        detail=f"{sum(r == 0 for r in known)} of {audit.batch_size} samples cannot move; "
        f"{undecided} without a bound",
        meaning=(
            "How far a sample can move, in its largest entry, while the gradient stays the same. Zero: not "
            "at all. Non-unique is not private: a small radius protects nobody."
        ),
        tone="bad" if known and max(known) == 0 else "plain",
    )


def _determined(audit: Audit) -> str:
    features = audit.verdict.samples.count(SampleStatus.FEATURES)
    if features:
        determined = audit.verdict.determined
        whole = f"{of(determined, audit.batch_size)}, and " if determined else ""
        told = of(features, audit.batch_size)
        return f"{whole}features and labels of {told} are proved to be in every batch that has it."
    if audit.verdict.determined == 0:
        return "no sample is proved to be in every batch that has it, and none is proved safe."
    return f"{of(audit.verdict.determined, audit.batch_size)} are proved to be in every batch that has it."


def of(count: int, size: int, noun: str = "sample") -> str:
    """So many of ``size`` samples, or labels, in words."""
    plural = noun if size == 1 else f"{noun}s"
    return f"all {size} {plural}" if count == size and size > 1 else f"{count} of {size} {plural}"
