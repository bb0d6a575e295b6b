"""Questions with a prescribed exclusivity state, dead and silent samples, shared regions and planted twins.

Nothing is drawn and thrown away: patterns are drawn, then weights and inputs that have them
(:mod:`exan_verify.testing.strategies.patterns`), then points of the same regions, labels, a last layer, and a
second batch where one is planted. What changes neither patterns nor gradients' equalities comes last: the
order and the scale of neurons, the order of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.network import Array, Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction
from exan_verify.errors import InputError
from exan_verify.exact.backprop import forward
from exan_verify.exclusivity import exclusivity
from exan_verify.instances import Instance
from exan_verify.testing.strategies.basic import targets
from exan_verify.testing.strategies.patterns import (
    Features,
    Layer,
    Neuron,
    free_weights,
    further,
    inputs,
    pre_activations,
    required,
)
from exan_verify.testing.strategies.wanted import MOST, Wanted

CLOSE = {"float64": Fraction(1, 2**20), "rational": Fraction(1, 3**12), "float32": Fraction(1, 2**10)}
"""How far from zero the pre-activation is that ``near_boundary`` plants, before neurons are scaled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which samples share a region, in the order of the regions: the dead one last.

    ``sizes``: samples per region; ``places``: their positions in the batch; ``dead``: the region of dead
    samples; ``silent``: regions of one sample with a zero loss vector; ``twin``: what hides the second batch
    (``dead``, ``silent``, ``shear`` or nothing) and ``moving``, the region that it moves in.
    """

    loss: Loss
    labels: Labels
    biased: bool
    sizes: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]
    dead: int | None
    silent: tuple[int, ...]
    twin: str
    moving: int | None

    @property
    def samples(self) -> int:
        """M."""
        return sum(self.sizes)

    @property
    def unseen(self) -> bool:
        """Whether the last feature is one that the neurons active in the moving region do not see."""
        return self.twin in ("shear", "silent")


def planned(draw: st.DrawFn, w: Wanted) -> Plan:
    """The question's words, and which samples are what."""
    loss = _loss(draw, w)
    kinds = [Labels.ONE_HOT, Labels.KNOWN] + ([Labels.REAL] if loss is Loss.MSE else [])
    labels = draw(st.sampled_from(kinds)) if w.labels is None else w.labels
    # without biases, dead samples have no active neuron in any layer, and nothing can be peeled
    upper = w.dead > 0 and any(n for layer, counts in w.exans.items() if layer > 1 for n in counts)
    biased = w.biases if w.biases is not None else upper or w.state == "peelable" or draw(st.booleans())
    twin = _twin_kind(draw, w, loss)
    dead = w.dead or int(twin == "dead")
    silent = w.silent or int(twin == "silent")
    sizes, places, at_zero = _regions(draw, w, dead=dead, silent=silent, pair=twin == "shear", biased=biased)
    alive = [g for g in range(len(sizes)) if g != at_zero]
    singles = [g for g in alive if sizes[g] == 1]
    if len(singles) < silent:
        raise InputError(
            f"silent={silent}: there are {len(singles)} samples alone in their regions; ask for more"
        )
    moving = {
        "dead": at_zero,
        "silent": singles[0] if singles else None,
        "shear": next((g for g in alive if sizes[g] > 1), None),
    }.get(twin)
    return Plan(
        loss=loss,
        labels=labels,
        biased=biased,
        sizes=sizes,
        places=places,
        dead=at_zero,
        silent=tuple(singles[:silent]),
        twin=twin,
        moving=moving,
    )


def _loss(draw: st.DrawFn, w: Wanted) -> Loss:
    if w.loss is not None:
        return w.loss
    if w.labels is Labels.REAL:
        return Loss.MSE
    few = w.widths is not None and w.widths[-1] == 1
    admitted = [one for one in Loss if not (w.silent and not one.rational) and not (few and one.class_labels)]
    return draw(st.sampled_from(admitted))


def _twin_kind(draw: st.DrawFn, w: Wanted, loss: Loss) -> str:
    if not w.twins:
        return ""
    if w.dead or w.images:
        return "dead"
    if w.shared_region:
        return "shear"
    if w.silent:
        return "silent"
    crowd = 2 if w.state else 1
    takes = {"dead": 1 + crowd, "shear": 2} | ({"silent": crowd} if loss.rational and not w.generic else {})
    fitting = [kind for kind, least in takes.items() if least <= w.samples[1]]
    if not fitting:
        raise InputError(
            f"twins=True: with {loss.value} it takes two samples; raise samples=, or take mse or hinge"
        )
    return draw(st.sampled_from(fitting))


Regions = tuple[tuple[int, ...], tuple[tuple[int, ...], ...], int | None]


def _regions(draw: st.DrawFn, w: Wanted, *, dead: int, silent: int, pair: bool, biased: bool) -> Regions:
    """Sizes and places of the regions, and which is the dead one."""
    if w.shared_region:
        sizes = list(w.shared_region)
    elif w.exans:
        sizes = [1] * w.samples[0]
    else:
        low, high = w.samples
        crowd = 2 if w.state in ("unpeelable", "stopping_set") else 1
        least = dead + max(2 * pair + silent, crowd)
        if w.widths is not None:  # regions are affinely independent points
            most = w.widths[0] + biased - (pair or (silent > 0 and w.twins)) - (dead > 0)
            high = min(high, most + pair + dead)
        if least > max(high, w.samples[1] if w.samples != (1, 4) else MOST):
            raise InputError(f"what is asked takes {least} samples at least; raise samples= or widths=")
        total = draw(st.integers(max(low, least), max(high, least, low)))
        sizes = [2] * pair + [1] * (total - dead - 2 * pair) + [dead] * (dead > 0)
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    places = [tuple(range(a, a + n)) for a, n in zip(starts, sizes, strict=True)]
    if not dead:
        return tuple(sizes), tuple(places), None
    if w.exans:  # the samples without exclusive neurons in the first layer are the ones that can be dead
        quiet = [p for p in places if not any(w.exans.get(1, (0,) * w.samples[0])[m] for m in p)]
        chosen = [p for p in quiet if len(p) == dead] or [tuple(m for p in quiet for m in p)[:dead]]
        told = any(c[m] for c in w.exans.values() for m in chosen[0])
        if len(chosen[0]) < dead or (told and (dead > 1 or not biased)):
            raise InputError(
                f"dead={dead}: exans= leaves fewer samples without exclusive neurons; give more zeros"
            )
        places = [p for p in places if not set(p) <= set(chosen[0])] + [chosen[0]]
    else:
        last = next(p for p in places[::-1] if len(p) == dead)
        places = [p for p in places if p is not last] + [last]
    return tuple(len(p) for p in places), tuple(places), len(places) - 1


@dataclass(slots=True)
class Drawn:
    """A network and its points while they are made: weights and biases as object arrays."""

    plan: Plan
    w: Wanted
    weights: list[Array] = field(default_factory=list)
    biases: list[Array] = field(default_factory=list)
    regions: Array = field(default_factory=lambda: np.zeros((0, 0), dtype=object))
    last: Features | None = None

    def network(self, *head: Any) -> ReluNetwork:
        """Of the layers so far, and the ``head`` (weight, bias) or one that takes nothing."""
        weight, bias = head or (np.zeros((1, self.weights[-1].shape[0])), np.zeros(1))
        biases = [*self.biases, bias] if self.plan.biased else None
        return ReluNetwork.from_arrays([*self.weights, weight], biases)

    def patterns(self, points: Array) -> list[Array]:
        """Patterns of all hidden layers at ``points`` (d, m)."""
        return [np.array(p) for p in _passed(self.network(), points).patterns]


def _passed(network: ReluNetwork, points: Array) -> Any:
    nobody = np.zeros(points.shape[1], dtype=np.int64)
    return forward(network, Batch(inputs=np.ascontiguousarray(points.T), labels=nobody))


def structured(draw: st.DrawFn, w: Wanted) -> Instance:
    """An instance with all that is wanted, but for ``unique`` and ``images``."""
    plan = planned(draw, w)
    made = Drawn(plan=plan, w=w)
    least = 2 if plan.loss.class_labels else 1
    classes = draw(st.integers(least, 3)) if w.widths is None else w.widths[-1]
    _hidden_layers(draw, made)
    points, steps = _points(draw, made)
    y = draw(targets(plan.samples, classes, plan.loss, plan.labels))
    if plan.twin == "shear":
        pair = plan.places[plan.moving or 0][:2]
        y[pair[1]] = y[pair[0]]
    head = _head(draw, made, points, y, classes)
    if w.state == "peelable":
        network = made.network(*head)
        batch = Batch.of(points.T, y, network=network, loss=plan.loss, labels=plan.labels)
        if not all(exclusivity(network, batch, loss=plan.loss).peelable):
            _open_above(made)
            head = _head(draw, made, points, y, classes)
    twin = None if not plan.twin else _twin(plan, points, steps)
    return finished(draw, w, plan, made, head, points, y, twin)


def _hidden_layers(draw: st.DrawFn, made: Drawn) -> None:
    plan, w = made.plan, made.w
    hidden = w.widths[1:-1] if w.widths is not None else None
    depth = len(hidden) if hidden is not None else max(draw(st.integers(1, 2)), *w.exans, 1)
    least = max(1, len(plan.sizes) - plan.biased + plan.unseen)
    features = w.widths[0] if w.widths is not None else least + draw(st.integers(0, 2))
    if features < least:
        raise InputError(
            f"widths begin with {features}, and {len(plan.sizes)} samples in regions of their own take "
            f"{least} inputs at least; widen them, or ask for fewer samples"
        )
    current = inputs(draw, features, len(plan.sizes), biased=plan.biased)
    if plan.unseen:
        current.kept_zero = {plan.moving or 0: {features - 1}}
    made.regions = current.values
    near = draw(st.integers(1, depth)) if w.near_boundary else 0
    for number in range(1, depth + 1):
        layer = layer_wanted(draw, plan, w, number, depth)
        neurons = required(draw, layer)
        if near == number:
            neurons.append(Neuron((False,) * layer.regions))
        missing = missing_neurons(draw, w, number, neurons)
        neurons += further(draw, layer, missing)
        z = pre_activations(draw, neurons)
        if near == number:
            _approach(draw, made, neurons, z)
        weight, bias = current.prescribed(draw, z)
        if current.zero is not None:
            z[:, current.zero] = 0
        made.weights.append(weight)
        made.biases.append(np.zeros(len(z), dtype=object) if bias is None else bias)
        zero = plan.dead if not plan.biased else None
        pivots = [j for j, neuron in enumerate(neurons) if neuron.pivot]
        current = Features(values=np.maximum(z, 0), pivots=pivots, biased=plan.biased, zero=zero)
    made.last = current
    if w.generic:
        _shake(draw, made)


def layer_wanted(draw: st.DrawFn, plan: Plan, w: Wanted, number: int, depth: int) -> Layer:
    """What is asked of hidden layer ``number`` of ``depth``."""
    counts = None
    alive = [g for g in range(len(plan.sizes)) if g != plan.dead]
    stopping: frozenset[int] = frozenset()
    if w.state == "published":
        least = 2 if number == depth else 1
        counts = tuple(least + draw(st.integers(0, 1)) for _ in plan.sizes)
    elif number in w.exans:
        counts = tuple(w.exans[number][places[0]] for places in plan.places)
    elif number == 1 and w.state in ("unpeelable", "stopping_set"):
        crowd = next((k for k in range(1, len(alive) + 1) if sum(plan.sizes[g] for g in alive[:k]) > 1), None)
        if crowd is None:
            raise InputError(f"{w.state}: it takes two samples that are not dead; ask for more samples")
        count = len(alive) if w.state == "unpeelable" else draw(st.integers(crowd, len(alive)))
        stopping = frozenset(alive[:count])
    # without biases a dead sample has no features in any layer
    dead = plan.dead if number == 1 or not plan.biased else None
    prescribed = bool(plan.silent) and (len(plan.silent) > 1 or not plan.biased)
    return Layer(
        sizes=plan.sizes,
        biased=plan.biased,
        dead=dead,
        counts=counts,
        stopping=stopping,
        triangular=number == 1 and w.state == "peelable",
        pivots=number < depth or prescribed,
        apart=number == 1 and bool(w.shared_region),
    )


def missing_neurons(draw: st.DrawFn, w: Wanted, number: int, neurons: list[Neuron]) -> int:
    """How many neurons a layer has beside those that it must have."""
    if w.widths is None:
        return max(draw(st.integers(0, 3)), 1 - len(neurons))
    width = w.widths[number]
    if width < len(neurons):
        raise InputError(
            f"widths: hidden layer {number} has {width} neurons, and what is asked takes {len(neurons)}; "
            "widen it, or ask for fewer samples"
        )
    return width - len(neurons)


def _approach(draw: st.DrawFn, made: Drawn, neurons: list[Neuron], z: Array) -> None:
    """One pre-activation next to zero, or at zero where its sample stays where it is."""
    plan = made.plan
    places = [
        (j, g)
        for j, neuron in enumerate(neurons)
        for g in range(len(plan.sizes))
        if not (neuron.pivot and neuron.active[g]) and (plan.biased or g != plan.dead or not made.weights)
    ]
    j, g = draw(st.sampled_from(places))
    close = CLOSE[made.w.numbers]
    stays = plan.sizes[g] == 1 and g != plan.moving
    at_zero = not neurons[j].active[g] and stays and draw(st.booleans())
    z[j, g] = Fraction(0) if at_zero else close if neurons[j].active[g] else -close


def _shake(draw: st.DrawFn, made: Drawn) -> None:
    """Random digits after the leading ones of all weights and inputs, so few that no pattern changes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # digits enough to be generic, and so few that points in a box and their shifted biases are still floats
    digits = 9 if made.w.numbers == "float32" else 24
    before = made.patterns(made.regions)
    arrays = [made.regions, *made.weights, *(made.biases if made.plan.biased else [])]
    noise = [rng.integers(-(2 ** (digits - 4)), 2 ** (digits - 4) + 1, a.shape) for a in arrays]
    if made.plan.unseen:
        noise[1] = noise[1] * (made.weights[0] != 0).astype(np.int64)  # what is unseen stays so
    plain = [a.copy() for a in arrays]
    for halvings in range(digits):
        for array, start, change in zip(arrays, plain, noise, strict=True):
            less = np.sign(change) * (np.abs(change) >> halvings)
            array[...] = start + less.astype(object) * Fraction(1, 2**digits)
        if all(np.array_equal(a, b) for a, b in zip(before, made.patterns(made.regions), strict=True)):
            return
    for array, start in zip(arrays, plain, strict=True):
        array[...] = start


def _to_fractions(array: Array) -> Array:
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = to_fraction(value)
    return out


def _as_stored(array: Array, numbers: str) -> Array:
    return array if numbers == "rational" else array.astype(np.float64).astype(numbers)


def _points(draw: st.DrawFn, made: Drawn) -> tuple[Array, dict[int, Array]]:
    """The samples (d, M) at their places: one at each region's point, more of them next to it; and the steps
    between those, by region.
    """
    plan = made.plan
    features = made.regions.shape[0]
    points = np.empty((features, plan.samples), dtype=object)
    steps: dict[int, Array] = {}
    for g, places in enumerate(plan.places):
        own = made.regions[:, g]
        points[:, places[0]] = own
        if len(places) == 1 and g != plan.moving:
            continue
        direction = np.zeros(features, dtype=object)
        if plan.unseen and g == plan.moving:
            direction[-1] = 1
        else:
            direction[:] = draw(st.lists(st.integers(-2, 2), min_size=features, max_size=features))
            direction[0] = direction[0] if any(direction) else 1
        # as far as -1 for the twin, which moves the first sample back and the second, if any, forth
        reach = np.arange(-1, len(places) + 1).astype(object)
        step = _short_step(made, own, direction, reach)
        apart = draw(st.booleans()) if plan.twin == "shear" and g == plan.moving else True
        for k, place in enumerate(places):
            points[:, place] = own + step * (k if apart or k > 1 else 0)
        steps[g] = step
    return points, steps


def _short_step(made: Drawn, own: Array, direction: Array, reach: Array) -> Array:
    """``direction`` over a power of two: all of ``own + reach * step`` are in the region of ``own``."""
    before = made.patterns(own[:, None])
    for power in range(2, 200):
        step: Array = direction * Fraction(1, 2**power)
        found = made.patterns(own[:, None] + step[:, None] * reach[None, :])
        if all(np.array_equal(np.broadcast_to(a, b.shape), b) for a, b in zip(before, found, strict=True)):
            return step
    raise AssertionError("the region has an interior")


def _twin(plan: Plan, points: Array, steps: dict[int, Array]) -> Array:
    """The second batch's inputs. Dead and silent samples carry no gradient below the layer that they die in,
    or none; two samples of a region with equal labels and equal loss vectors move oppositely along what their
    neurons do not see (docs/theory.md S3, S2).
    """
    assert plan.moving is not None
    places, step = plan.places[plan.moving], steps[plan.moving]
    moved = points.copy()
    moved[:, places[0]] = points[:, places[0]] - step
    if plan.twin == "shear":
        moved[:, places[1]] = points[:, places[1]] + step
    return moved


Head = tuple[Array, Array]


def _head(draw: st.DrawFn, made: Drawn, points: Array, y: Array, classes: int) -> Head:
    """The last layer: free, or such that samples are silent, or that no delta of any sample vanishes."""
    plan, w = made.plan, made.w
    features = _passed(made.network(), points).hidden[-1].fractions()
    if w.state == "peelable":
        return _loud(draw, plan, features, y, classes)
    weight = free_weights(draw, classes, features.shape[0])
    bias = free_weights(draw, classes, 1)[:, 0] * (1 if plan.biased else 0)
    if not plan.silent:
        return weight, bias
    goals = {g: _silent_logits(plan, y, plan.places[g][0], classes) for g in plan.silent}
    if plan.biased and len(plan.silent) == 1:
        (g,) = plan.silent
        return weight, goals[g] - weight @ features[:, plan.places[g][0]]
    logits = free_weights(draw, classes, len(plan.sizes))
    for g, goal in goals.items():
        logits[:, g] = goal
    assert made.last is not None
    weight, solved = made.last.prescribed(draw, logits)
    return weight, bias if solved is None else solved


def _silent_logits(plan: Plan, y: Array, place: int, classes: int) -> Array:
    """Logits at which the loss vector is zero: the targets themselves, or a margin of two."""
    if plan.loss is Loss.MSE:
        return _to_fractions(np.asarray(y[place]))
    goal = np.zeros(classes, dtype=object)
    goal[int(y[place])] = 2
    return goal


def _loud(draw: st.DrawFn, plan: Plan, features: Array, y: Array, classes: int) -> Head:
    """Every neuron feeds one logit, with a weight so small that all logits are in [1/4, 1/2) before a common
    shift: then no entry of any loss vector is zero (for hinge every margin is violated; for mse all logits
    are above all targets), so that no delta of the last hidden layer vanishes.
    """
    neurons = features.shape[0]
    # one logit for all of them: deltas of a sample then have one sign, whatever layers lie below
    feeds = draw(st.lists(st.integers(0, classes - 1), min_size=neurons, max_size=neurons))
    sizes = draw(st.lists(st.integers(1, 3), min_size=neurons, max_size=neurons))
    feeds = feeds if not draw(st.booleans()) else [feeds[0]] * neurons
    weight = np.zeros((classes, neurons), dtype=object)
    for j, (c, size) in enumerate(zip(feeds, sizes, strict=True)):
        weight[c, j] = size
    power = 2
    while np.max(weight @ features) * Fraction(1, 2**power) >= Fraction(1, 4):
        power += 1
    bias = np.full(classes, Fraction(1, 4), dtype=object)
    if plan.loss is Loss.MSE:
        bias = bias + max(0, *(int(np.ceil(float(v))) for v in y.reshape(-1)))
    return weight * Fraction(1, 2**power), bias


def _open_above(made: Drawn) -> None:
    """All neurons above the first hidden layer active for all, with positive weights: then deltas add up."""
    for i in range(1, len(made.weights)):
        made.weights[i] = np.abs(made.weights[i]) + 1
        made.biases[i] = np.ones(len(made.biases[i]), dtype=object)


def finished(
    draw: st.DrawFn,
    w: Wanted,
    plan: Plan,
    made: Drawn,
    head: Head,
    points: Array,
    y: Any,
    twin: Array | None,
) -> Instance:
    """The instance of ``points`` (d, M) and their ``twin`` (d, M), in the domain, with its neurons scaled and
    in any order, its samples too."""
    weights, biases = [*made.weights, head[0]], [*made.biases, head[1]]
    both = points if twin is None else np.concatenate([points, twin], axis=1)
    if w.domain is not None:
        both = _into_box(w.domain, weights, biases, both, biased=plan.biased)
    scales = [Fraction(1), Fraction(2), Fraction(1, 2)]
    scales += [Fraction(2, 3), Fraction(5, 3), Fraction(1, 3)] if w.numbers == "rational" else []
    for i in range(len(weights) - 1):
        n = len(weights[i])
        scale = np.array(draw(st.lists(st.sampled_from(scales), min_size=n, max_size=n)), dtype=object)
        order = list(draw(st.permutations(range(n))))
        weights[i] = (weights[i] * scale[:, None])[order]
        biases[i] = (biases[i] * scale)[order]
        weights[i + 1] = (weights[i + 1] / scale)[:, order]
    samples = list(range(plan.samples))
    if not w.exans:
        samples = list(draw(st.permutations(samples)))
    reduction = draw(st.sampled_from(list(Reduction))) if w.reduction is None else w.reduction

    def exactly(array: Array) -> Array:
        """Of any shape, in the form in which it is stored."""
        found = _as_stored(array, w.numbers)
        assert np.all(_to_fractions(found) == array), "drawn numbers fit the form they are stored in"
        return found

    network = ReluNetwork.from_arrays(
        [exactly(v) for v in weights], [exactly(v) for v in biases] if plan.biased else None
    )
    halves = [both.T[: plan.samples], both.T[plan.samples :]]
    first, *more = (
        Batch.of(exactly(x[samples]), y[samples], network=network, loss=plan.loss, labels=plan.labels)
        for x in halves
        if len(x)
    )
    return Instance(
        network=network,
        batch=first,
        question=Question(loss=plan.loss, reduction=reduction, labels=plan.labels, domain=w.domain),
        planted=twin is not None,
        twin=more[0] if more else None,
    )


def _into_box(box: Box, weights: list[Array], biases: list[Array], points: Array, *, biased: bool) -> Array:
    """Points c + s x inside the box, with weights W / s and biases b - W c / s, which sees x as before."""
    lo, hi = (_to_fractions(v) for v in box.bounds(points.shape[0]))
    if np.any(lo >= hi) or (not biased and not np.all((lo < 0) & (hi > 0))):
        raise InputError(
            "domain: a drawn batch needs room on both sides of its middle, and of zero where there are no "
            "biases; give lo < hi"
        )
    middle = np.array([_short_between(a, b) if biased else Fraction(0) for a, b in zip(lo, hi, strict=True)])
    room = min(min(c - a, b - c) for a, b, c in zip(lo, hi, middle, strict=True))
    largest, power = max(1, np.max(np.abs(points))), 0
    while largest * Fraction(1, 2**power) > room:
        power += 1
    scale = Fraction(1, 2**power)
    biases[0] = biases[0] - weights[0] @ middle / scale
    weights[0] = weights[0] / scale
    moved: Array = middle[:, None] + scale * points
    return moved


def _short_between(lo: Fraction, hi: Fraction) -> Fraction:
    """A number with few binary digits around the middle of lo and hi, strictly between them."""
    power = 0
    while True:
        found = Fraction(round((lo + hi) / 2 * 2**power), 2**power)
        if lo < found < hi:
            return found
        power += 1
