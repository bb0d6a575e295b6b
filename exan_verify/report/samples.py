"""One card per sample: the verdict in a sentence, the pictures with their scores, where it may move."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from exan_verify.api.attack_own_batch import Recovery
from exan_verify.core.arrays import to_fraction
from exan_verify.core.verdict import SampleStatus
from exan_verify.report.content import Section, label_text, leaks, shown_of
from exan_verify.report.drawing import Drawer

MOST = 48
"""Samples with a card; the table has all of them."""

_EXACT = 100.0
"""PSNR in dB above which nobody sees a difference."""

RESEMBLES = 13.0
"""PSNR in dB from which a picture is said to have the main shapes of the original. The mean of all digits,
which needs no gradient, has 12.0 dB at the median digit, and more than 13.2 dB for one in ten."""

_NUMBERS = 6
"""Numbers shown of a sample that is no picture."""

_FAINT = 0.01
"""Share of the range of the inputs below which a movement hides nothing that a viewer would miss."""

_PROVED = {
    SampleStatus.DETERMINED: "Proved: every batch with this gradient contains this sample.",
    SampleStatus.FREE: "Proved: another batch has the same gradient, and a different sample in this place.",
    SampleStatus.FEATURES: "Proved: every batch with this gradient has this sample's features and label.",
    SampleStatus.UNKNOWN: "Nothing is proved about this sample.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawn picture, or where inputs are no pictures their first numbers: ``caption``, the ``uri`` (then
    None), scores as ``lines``, and ``alt``, what it shows in words."""

    caption: str
    uri: str | None
    lines: tuple[str, ...]
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCard:
    """What is known of one sample. ``tag``: leaked, label leaked, determined, ambiguous or undecided;
    ``moves``: where to, and how far."""

    index: int
    label: str
    tag: str
    verdict: str
    moves: str
    pictures: tuple[Picture, ...]


def sample_cards(section: Section, drawer: Drawer) -> Iterator[SampleCard]:
    """A card for each of the first :data:`MOST` samples."""
    for m in range(min(section.size, MOST)):
        status = None if section.audit is None else section.audit.verdict.samples[m]
        found = shown_of(section, m)
        yield SampleCard(
            index=m,
            label=label_text(section.labels[m]),
            tag="leaked" if leaks(section, m) else _tag(status, found),
            verdict=" ".join(filter(None, (_proved(status), _attacked(section, found, drawer)))),
            moves="" if section.audit is None else _moves(section, m),
            pictures=tuple(_pictures(section, m, found, drawer)),
        )


def _tag(status: SampleStatus | None, found: Recovery | None) -> str:
    if found is not None and found.tier == "estimate":
        return "label leaked"
    if status is SampleStatus.FREE:
        return "ambiguous"
    if status is SampleStatus.FEATURES:
        return "features leaked"
    return "undecided" if status in (None, SampleStatus.UNKNOWN) else "determined"


def _proved(status: SampleStatus | None) -> str:
    return "" if status is None else _PROVED.get(status, f"Proved: {status.value}.")


def _attacked(section: Section, found: Recovery | None, drawer: Drawer) -> str:
    """What the attack made of the sample, in a sentence."""
    if section.recoveries is None:
        return ""
    if found is None:
        if section.features is not None and section.features.count == section.size:
            return "The attack rebuilt its features and label, not the picture, which does not make it safe."
        return "The attack did not find it, which does not make it safe."
    if found.status == "wrong":
        return "The attack claimed it within a bound that it exceeds: a defect of this program."
    if section.projected:
        what = "The attack rebuilt the part of it that is sent; drawn as a picture, this is it"
    elif found.tier in ("confirmed", "consistent"):
        return f"The attack rebuilt it from the gradient alone, {_error(found)}."
    elif found.tier == "candidate":
        what = "The attack shows it" if found.readable else "The attack has a candidate for it"
    else:
        what = "Its label is known, and a picture was fitted to what the connected layers were given of it"
    if found.readable:
        return f"{what}, well enough to recognise it."
    if found.psnr >= RESEMBLES:
        return f"{what}, with its main shapes."
    return f"{what}, far from the original{' in its pixels' if drawer.shape is not None else ''}."


def _error(found: Recovery) -> str:
    return "exactly" if found.largest == 0 else f"no entry off by more than {found.largest:.1e}"


def _moves(section: Section, m: int) -> str:
    """Where the sample may move while the gradient stays the same, and how far, in a sentence."""
    assert section.audit is not None
    verdict, radius = section.audit.verdict, section.audit.radius[m]
    if verdict.samples[m] is SampleStatus.DETERMINED:
        return "It cannot move: no other value of it has this gradient."
    if verdict.samples[m] is not SampleStatus.FREE:
        return "Whether it can move, and how far, is not decided."
    x = np.asarray(section.inputs, dtype=np.float64).reshape(section.size, -1)
    span = float(x.max() - x.min()) or 1.0
    if radius is None:
        text = "It can move while the gradient stays the same; no bound for how far was proved."
    elif math.isinf(radius):
        text = "It can move without limit while the gradient stays the same."
    else:
        share = radius / span
        text = f"It can move by {radius:.2g} in some entry, {share:.1%} of the range of the inputs"
        text += ": too little to hide anything." if share < _FAINT else ", while the gradient stays the same."
    if (other := _other(section, m)) is not None:
        change = np.abs(other - x[m])
        differ = f"{int((change > 0).sum())} of its {len(change)} entries differ, by up to {change.max():.2g}"
        return f"{text} In the batch shown {differ}."
    if (shares := _directions(section, m)) is not None:
        return f"{text} The motions listed change {int((shares > 0).sum())} of its {len(shares)} entries."
    return text


def _other(section: Section, m: int) -> Any:
    """What the second batch has in place of sample m, flat; None where it is the same or there is none."""
    witness = None if section.audit is None else section.audit.verdict.witness
    if witness is None or witness.batch is None or len(witness.batch.inputs) != section.size:
        return None
    there = np.asarray(witness.batch.inputs[m], dtype=np.float64).reshape(-1)
    here = np.asarray(section.inputs[m], dtype=np.float64).reshape(-1)
    return None if there.shape != here.shape or (there == here).all() else there


def _directions(section: Section, m: int) -> Any:
    """How far the motions that the verdict lists carry each entry of sample m, the largest being 1 (d,); None
    where it lists none. A motion is a step of the whole batch (M, d), or one direction (d,) of some samples.
    """
    witness = None if section.audit is None else section.audit.verdict.witness
    d = section.inputs.reshape(section.size, -1).shape[1]
    total = np.zeros(d)
    for generator in () if witness is None else witness.generators:
        if isinstance(generator, np.ndarray) and generator.shape == (section.size, d):
            step = generator[m]
        elif isinstance(generator, tuple) and len(generator) == 2 and m in generator[1]:
            step = generator[0]
        else:
            continue
        lengths = [abs(to_fraction(v)) for v in np.asarray(step).reshape(-1)]  # may exceed every float
        if len(lengths) == d and (longest := max(lengths)) > 0:
            total = np.maximum(total, [float(v / longest) for v in lengths])
    return total if total.any() else None


def _numbers(drawer: Drawer, values: Any) -> tuple[str, ...]:
    """The first numbers of a sample, where it is not drawn."""
    if drawer.shape is not None:
        return ()
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    more = ", ..." if len(flat) > _NUMBERS else ""
    return (", ".join(f"{value:.3g}" for value in flat[:_NUMBERS]) + more,)


def _pictures(section: Section, m: int, found: Recovery | None, drawer: Drawer) -> Iterator[Picture]:
    label = label_text(section.labels[m])
    yield Picture(
        caption="original",
        uri=drawer.draw(section.inputs[m]),
        lines=(*_numbers(drawer, section.inputs[m]), f"label {label}"),
        alt=f"sample {m}, the original",
    )
    if found is not None:
        name = {"confirmed": "rebuilt", "consistent": "rebuilt", "estimate": "estimated"}.get(
            found.tier, found.tier
        )
        same = "no difference visible" if drawer.shape is not None else "the same"
        psnr = same if found.psnr > _EXACT else f"PSNR {found.psnr:.1f} dB"
        yield Picture(
            caption=name,
            uri=drawer.draw(found.values),
            lines=(
                *_numbers(drawer, found.values),
                f"label {label_text(found.label)}",
                psnr,
                f"RMSE {found.rmse:.1e}",
            ),
            alt=f"sample {m}, {name} from the gradient",
        )
    other = _other(section, m)
    if other is not None:
        yield Picture(
            caption="another batch",
            uri=drawer.draw(other),
            lines=(*_numbers(drawer, other), "same gradient"),
            alt=f"sample {m} in another batch with the same gradient",
        )
    elif (shares := _directions(section, m)) is not None:
        yield Picture(
            caption="where it may move",
            uri=drawer.draw(drawer.black + drawer.span * shares),
            lines=(*_numbers(drawer, shares), "bright: moves most" if drawer.shape else "1: moves most"),
            alt=f"the entries of sample {m} that can move while the gradient stays the same",
        )
