"""What is asked of a drawn question, as one record; what contradicts itself is refused before anything is
drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.errors import InputError, choice, flag, raise_problems, short, unknown, whole
from exan_verify.testing.strategies.basic import checked_numbers, checked_widths

MOST = 8
"""Samples of a drawn batch at most."""

Counts = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The arguments of :func:`exan_verify.testing.questions`, checked. ``samples``: least and most."""

    loss: Loss | None
    reduction: Reduction | None
    labels: Labels | None
    domain: Box | None
    biases: bool | None
    widths: tuple[int, ...] | None
    samples: tuple[int, int]
    numbers: str
    generic: bool
    published: bool = False
    peelable: str | None = None
    stopping_set: bool = False
    exans: Counts = field(default_factory=dict)
    shared_region: tuple[int, ...] = ()
    dead: int = 0
    silent: int = 0
    twins: bool = False
    near_boundary: bool = False
    unique: bool = False
    images: bool = False

    @property
    def structured(self) -> bool:
        """Whether anything is asked that random numbers do not have by themselves."""
        return bool(
            self.state
            or self.shared_region
            or self.dead
            or self.silent
            or self.twins
            or self.near_boundary
            or self.unique
            or self.images
        )

    @property
    def state(self) -> str:
        """What is asked of the exclusive neurons, in one word; empty for nothing."""
        if self.unique:
            return "unique"
        if self.published:
            return "published"
        if self.exans:
            return "exans"
        if self.stopping_set:
            return "stopping_set"
        return {"all": "peelable", "none": "unpeelable"}[self.peelable] if self.peelable else ""


def wanted(
    *,
    loss: Any,
    reduction: Any,
    labels: Any,
    domain: Any,
    biases: Any,
    widths: Any,
    samples: Any,
    numbers: Any,
    published: Any,
    peelable: Any,
    stopping_set: Any,
    exans: Any,
    shared_region: Any,
    dead: Any,
    silent: Any,
    twins: Any,
    near_boundary: Any,
    outcome: Any,
    images: Any,
    generic: Any,
) -> Wanted:
    """The record of these arguments. Raises :class:`InputError` naming all that cannot be used together."""
    if peelable not in (None, "all", "none"):
        raise InputError(unknown("peelable", peelable, ["all", "none"]))
    if outcome not in (None, "unique", "ambiguous"):
        raise InputError(unknown("outcome", outcome, ["unique", "ambiguous"]))
    if biases is not None:
        flag(biases, "biases")
    if domain is not None and not isinstance(domain, Box):
        raise InputError(f"domain={short(domain)} cannot be used; give Box(lo, hi), or None")
    counts = _counts(exans)
    sizes = _sizes(shared_region)
    size = _samples(samples, counts, sizes)
    found = Wanted(
        loss=None if loss is None else choice(Loss, loss, "loss"),
        reduction=None if reduction is None else choice(Reduction, reduction, "reduction"),
        labels=None if labels is None else choice(Labels, labels, "labels"),
        domain=domain,
        biases=biases,
        widths=checked_widths(widths),
        samples=size,
        numbers=checked_numbers(numbers),
        generic=flag(generic, "generic"),
        published=flag(published, "published"),
        peelable=peelable,
        stopping_set=flag(stopping_set, "stopping_set"),
        exans=counts,
        shared_region=sizes,
        dead=whole(dead, "dead", least=0, most=MOST),
        silent=whole(silent, "silent", least=0, most=MOST),
        twins=flag(twins, "twins") or outcome == "ambiguous",
        near_boundary=flag(near_boundary, "near_boundary"),
        unique=outcome == "unique",
        images=flag(images, "images"),
    )
    raise_problems(InputError, _contradictions(found))
    return found


def _counts(exans: Any) -> Counts:
    if exans is None:
        return {}
    if not isinstance(exans, Mapping) or not exans:
        raise InputError(f"exans={short(exans)} cannot be used; give {{hidden layer: counts per sample}}")
    found = {
        whole(layer, "a layer of exans", most=6): tuple(
            whole(n, f"exans[{short(layer)}]", least=0, most=64) for n in counts
        )
        for layer, counts in exans.items()
    }
    if len({len(counts) for counts in found.values()}) != 1 or not all(found.values()):
        raise InputError("exans: the layers have different numbers of samples; give one count per sample")
    return found


def _sizes(shared: Any) -> tuple[int, ...]:
    if shared is None:
        return ()
    if not isinstance(shared, Sequence) or isinstance(shared, str) or not shared:
        raise InputError(f"shared_region={short(shared)} cannot be used; give group sizes, such as (2, 1)")
    return tuple(whole(n, "shared_region", most=MOST) for n in shared)


def _samples(samples: Any, counts: Counts, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Least and most; a count or a group size per sample says how many there are."""
    said = {len(c) for c in counts.values()} | ({sum(sizes)} if sizes else set())
    if samples is None:
        low, high = (min(said), max(said)) if said else (1, 4)
    elif isinstance(samples, tuple) and len(samples) == 2:
        low, high = (whole(n, "samples", most=MOST) for n in samples)
    else:
        low = high = whole(samples, "samples", most=MOST)
    if said and (said - set(range(low, high + 1)) or len(said) > 1):
        raise InputError(
            f"samples={samples}, exans= and shared_region= speak of different numbers of samples "
            f"({sorted(said)}); make them agree"
        )
    if not 1 <= low <= high <= MOST:
        raise InputError(f"samples={samples!r} cannot be used; give 1 to {MOST}, or (least, most)")
    return (max(said), max(said)) if said else (low, high)


def _contradictions(w: Wanted) -> Iterable[str]:
    yield from _of_the_state(w)
    yield from _of_the_words(w)
    yield from _of_the_sizes(w)


_EXCLUSIVE = {"published": "published=True", "peelable": 'peelable="all"', "unique": 'outcome="unique"'}
"""States in which every sample is told from the others."""


def _of_the_state(w: Wanted) -> Iterable[str]:
    states = {
        "published=True": w.published,
        "peelable=": w.peelable is not None,
        "stopping_set=True": w.stopping_set,
        "exans=": bool(w.exans),
    }
    asked = [name for name, said in states.items() if said]
    if len(asked) > 1:
        yield f"{' and '.join(asked)} both prescribe the exclusive neurons; give one of them"
    hidden = {
        "dead=": w.dead,
        "silent=": w.silent,
        "twins=True": w.twins,
        "shared_region= with a group of two": max(w.shared_region, default=1) > 1,
    }
    if w.state in _EXCLUSIVE:
        for name in (name for name, said in hidden.items() if said):
            yield f"{_EXCLUSIVE[w.state]} and {name} exclude one another; leave one of them out"
        if w.biases is False and w.state != "published":
            yield f"{_EXCLUSIVE[w.state]} needs biases; leave biases=False out"
    if w.state == "unique" and asked:
        yield f'outcome="unique" is made of exclusive neurons of its own; leave {asked[0]} out'
    pairs = max(w.shared_region, default=1) > 1
    if w.twins and (w.exans or w.shared_region) and not (pairs or w.dead or w.silent):
        yield (
            "twins=True beside exans= or shared_region=: say what hides the twin, dead=1, silent=1 or "
            "shared_region=(2, ...)"
        )


def _of_the_words(w: Wanted) -> Iterable[str]:
    if w.silent and w.loss is not None and not w.loss.rational:
        yield f"silent= with loss={w.loss.value!r}: its loss vectors are never zero; use mse or hinge"
    if w.labels is Labels.REAL and w.loss not in (None, Loss.MSE):
        yield "labels='real' is for mse only; leave loss= out, or use one_hot or known"
    if w.generic and (w.silent or w.unique or w.near_boundary):
        yield (
            "generic=True with silent=, near_boundary= or outcome='unique': these rest on coincidences; "
            "leave it out"
        )
    if w.numbers == "rational" and w.generic and w.structured:
        yield "generic=True draws floats; leave it out, or numbers='rational'"
    if w.images and (w.silent or w.near_boundary or w.unique or w.shared_region or w.numbers == "rational"):
        yield "images=True goes with published, peelable, stopping_set, exans, dead and twins only"


def _of_the_sizes(w: Wanted) -> Iterable[str]:
    if w.shared_region and w.dead and w.dead not in w.shared_region:
        yield f"dead={w.dead}: dead samples share a region, so a group of shared_region= must have that size"
    starts = [sum(w.shared_region[:k]) for k in range(len(w.shared_region))]
    together = [range(a, a + n) for a, n in zip(starts, w.shared_region, strict=True) if n > 1]
    if any(counts[m] for counts in w.exans.values() for group in together for m in group):
        yield "exans= gives exclusive neurons to a sample that shares its region; give it 0"
    if w.widths is None:
        return
    classes, deepest = w.widths[-1], max(w.exans, default=1)
    least = 3 if w.state == "unique" else 2
    if w.loss is not None and w.loss.class_labels and classes < least:
        yield f"widths end with {classes} logits; {w.loss} needs {least} at least for this"
    if w.state == "unique" and (len(w.widths) != 3 or classes < 2):
        yield 'outcome="unique" has one hidden layer; give widths=(d, n, K) with two logits at least'
    if w.images and (w.widths[0], classes) != (784, 10):
        yield "images=True: widths begin with 784 and end with 10"
    if w.structured and len(w.widths) < 3:
        yield "widths= has no hidden layer, and what is asked is about hidden neurons; give (d, n_1, ..., K)"
    elif deepest > len(w.widths) - 2:
        yield f"exans= names hidden layer {deepest}, and widths= has {len(w.widths) - 2}"
