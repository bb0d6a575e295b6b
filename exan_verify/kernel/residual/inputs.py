"""Re-runs a recorded cover of the inputs of the samples that are left (docs/theory.md R8).

No rank is asked for: every batch with the gradient has its inputs somewhere in (R^d)^r, which boxes cover,
also unbounded ones. Over a box every entry of the gradient is enclosed, by the affine maps of a region where
the box lies in one, else by intervals through the network. Of the evidence only the way of cutting is used,
and which test each box passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import permutations, product
from typing import Any

import flint
import numpy as np

from exan_verify.core.certificate import InputCover
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.backprop import forward
from exan_verify.exact.regions import Pattern, Region, region_of
from exan_verify.exact.softmax import loss_vectors_ball, to_ball
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.labels import Label
from exan_verify.kernel.residual.parts import Part, left_over

PRECISION = 128
"""Bits of all balls: more than twice those of float64, in which the engine looks for leaves."""
MAX_LETTERS = 8_000
"""Of all trees: twice as many as the engine writes, a millisecond each."""
MAX_COORDINATES = 4
"""Samples times features: with five, so many letters cut each side but twice."""
MAX_SYSTEM = 1 << 12
"""Entries of the gradient times numbers of T: what one box costs, some ten microseconds each."""
MAX_WORK = 1 << 22
"""Of all boxes; twice what the engine spends."""

Side = tuple[Fraction | None, Fraction | None]
"""An interval of a coordinate; None is infinite."""
Box = tuple[Side, ...]
Ends = tuple[Any, Any]
"""An interval with balls as ends; None is infinite."""


def facts(evidence: InputCover, subject: Subject) -> Facts:
    """UNIQUE, with every sample that was left determined.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    network, question = subject.network, subject.question
    require(question.loss is not Loss.HINGE, "covers of the inputs are for losses that vary smoothly")
    require(question.labels is not Labels.REAL, "real labels leave more unknowns than the inputs")
    part = Part(subject=subject, members=left_over(subject))
    features = network.widths[0]
    size = len(part.members) * features
    require(size <= MAX_COORDINATES, f"a cover has at most {MAX_COORDINATES} coordinates")
    entries = sum(weight.size for _, weight in network.parameters())
    system, letters = entries * network.classes * (features + 1), sum(map(len, evidence.trees))
    require(system <= MAX_SYSTEM, "covers are for small networks")
    require(letters <= MAX_LETTERS and letters * system <= MAX_WORK, "the cover is too large")
    multisets = part.multisets()
    require(len(evidence.trees) == len(multisets), "a label multiset has no tree")
    regions = _Regions(subject=subject)
    with flint.ctx.workprec(PRECISION):
        right = _right_sides(part, regions)
        for labels, tree in zip(multisets, evidence.trees, strict=True):
            _walk(_System(part=part, regions=regions, labels=labels, right=right), _start(part), tree)
    return Facts(determined=frozenset(part.members), unique=True)


def _start(part: Part) -> Box:
    domain, features = part.subject.question.domain, part.subject.network.widths[0]
    sides: list[Side] = [(None, None)] * features
    if domain is not None:
        sides = [
            (to_fraction(low), to_fraction(high)) for low, high in zip(*domain.bounds(features), strict=True)
        ]
    return tuple(sides * len(part.members))


def _walk(system: _System, start: Box, tree: str) -> None:
    """Follow the tree in preorder; every leaf must pass its test."""
    stack = [start]
    for letter in tree:
        require(len(stack) > 0, "the tree goes on after its last box")
        box = stack.pop()
        if letter == "x":
            require(system.misordered(box) or system.away(box), "a box is not shown to be free of batches")
        elif letter == "m":
            require(system.mean_value_away(box), "a box is not shown to be free of batches")
        elif letter == "k":
            require(len(system.inside(box)) == 1, "a box does not hold exactly one order of the batch")
            require(system.injective(box), "the gradient is not shown to be injective on a box")
        else:
            require(letter in "0123456789"[: len(box)], "the tree has a letter out of range")
            axis = int(letter)
            low, high = box[axis]
            middle = _cut(low, high)
            stack += [(*box[:axis], half, *box[axis + 1 :]) for half in ((middle, high), (low, middle))]
    require(not stack, "the tree ends before its last box")


def _cut(low: Fraction | None, high: Fraction | None) -> Fraction:
    """Where a side is cut: away from whole and half numbers, on which samples like to lie."""
    if low is None or high is None:
        if low is not None:
            return low + abs(low) + 1
        return Fraction(11, 64) if high is None else high - abs(high) - 1
    return low + (high - low) * Fraction(33, 64)


@dataclass(frozen=True, kw_only=True)
class _Regions:
    """Regions of the network by pattern, and by the boxes that lie in one."""

    subject: Subject
    made: dict[Pattern, Region] = field(default_factory=dict)
    seen: dict[Box, Region | None] = field(default_factory=dict)

    @property
    def zero_sum(self) -> bool:
        return self.subject.question.loss.zero_sum

    def of_pattern(self, pattern: Pattern) -> Region:
        if pattern not in self.made:
            self.made[pattern] = region_of(self.subject.network, pattern, zero_sum=self.zero_sum)
        return self.made[pattern]

    def around(self, sides: Box) -> Region | None:
        """The region that the whole box of one sample lies in; None where some neuron changes its state.

        The states of the first layer are affine everywhere. Where they keep their signs, those of the second
        are affine as well, and so on.
        """
        if sides not in self.seen:
            self.seen[sides] = self._looked_for(sides)
        return self.seen[sides]

    def _looked_for(self, sides: Box) -> Region | None:
        x = [_some_point(side) for side in sides]
        pattern = []
        for layer in self.subject.network.layers[:-1]:
            z = _applied(layer.weight, layer.bias, x)
            pattern.append(tuple(v > 0 for v in z))
            x = [max(v, Fraction(0)) for v in z]
        region = self.of_pattern(tuple(pattern))
        for row, on in zip(region.states, region.active, strict=True):
            low, high = _range(row, sides)
            if (low is None or low <= 0) if on else (high is None or high > 0):
                return None
        return region


@dataclass(frozen=True, kw_only=True)
class _System:
    """The gradient of the samples that are left, with these labels, less what it has to be."""

    part: Part
    regions: _Regions
    labels: list[Label]
    right: list[Any]
    shares: dict[tuple[Label, Box], list[Ends]] = field(default_factory=dict)
    slopes: dict[tuple[Label, Box], list[list[Ends]]] = field(default_factory=dict)

    @property
    def loss(self) -> Loss:
        return self.part.subject.question.loss

    def sides(self, box: Box, m: int) -> Box:
        """The box of sample m."""
        features = self.part.subject.network.widths[0]
        return box[m * features : (m + 1) * features]

    @cached_property
    def known(self) -> list[list[Fraction]]:
        """The orders of the given samples that fit the labels, as points."""
        rows, own = [self.part.subject.batch.x[m] for m in self.part.members], self.part.labels
        points = [
            [v for m in order for v in rows[m]]
            for order in permutations(range(len(own)))
            if [own[m] for m in order] == self.labels
        ]
        return [p for k, p in enumerate(points) if p not in points[:k]]

    def inside(self, box: Box) -> list[list[Fraction]]:
        """The known points in a box."""
        return [
            p
            for p in self.known
            if all(
                (lo is None or lo <= v) and (hi is None or v <= hi)
                for v, (lo, hi) in zip(p, box, strict=True)
            )
        ]

    def misordered(self, box: Box) -> bool:
        """Samples of one label may be taken in the order of their first feature; the box has none in
        order.
        """
        firsts = [self.sides(box, m)[0] for m in range(len(self.labels))]
        for a, b in zip(range(len(firsts)), range(1, len(firsts)), strict=False):
            low, high = firsts[a][0], firsts[b][1]
            if self.labels[a] == self.labels[b] and low is not None and high is not None and low > high:
                return True
        return False

    def away(self, box: Box) -> bool:
        """Whether some entry of the gradient is nowhere in the box what it has to be."""
        shares = [self._share(label, self.sides(box, m)) for m, label in enumerate(self.labels)]
        for e, right in enumerate(self.right):
            lows, highs = zip(*(share[e] for share in shares), strict=True)
            if None not in lows and sum(lows, -right) > 0:
                return True
            if None not in highs and sum(highs, -right) < 0:
                return True
        return False

    def mean_value_away(self, box: Box) -> bool:
        """Whether ``C (f(c) + J(box) (box - c))`` misses zero, C = 1 or a pseudo-inverse; c is the centre."""
        slopes = self._slopes(box)
        if slopes is None:
            return False
        halves = [to_ball((hi - lo) / 2) for lo, hi in box if lo is not None and hi is not None]
        values = self._values(box)
        if any(abs(v) > _reach(row, halves) for v, row in zip(values, slopes, strict=True)):
            return True
        for weights in _approximate_inverse(slopes):
            change = [_mixed(weights, column) for column in zip(*slopes, strict=True)]
            if abs(_dot(weights, values)) > _reach(change, halves):
                return True
        return False

    def injective(self, box: Box) -> bool:
        """``|I - C J| < 1`` in the row-sum norm over the box, for some matrix C."""
        slopes = self._slopes(box)
        if slopes is None:
            return False
        columns = list(zip(*slopes, strict=True))
        for i, weights in enumerate(_approximate_inverse(slopes)):
            mixed = (_mixed(weights, column) for column in columns)
            far = [(low - int(i == j), high - int(i == j)) for j, (low, high) in enumerate(mixed)]
            if not _reach(far, [flint.arb(1)] * len(far)) < 1:
                return False
        return True

    # enclosures

    def _share(self, label: Label, sides: Box) -> list[Ends]:
        """What one sample adds to every entry, its input in a box, also an unbounded one: by intervals, and
        where the box lies in one region by its maps as well; neither is always the narrower.
        """
        key = label, sides
        if key not in self.shares:
            found = self._through_layers(label, sides)
            region = self.regions.around(sides)
            if region is not None:
                found = [
                    _both(*pair) for pair in zip(found, self._in_region(region, label, sides), strict=True)
                ]
            self.shares[key] = found
        return self.shares[key]

    def _in_region(self, region: Region, label: Label, sides: Box) -> list[Ends]:
        """``sum_c g_c rate_ec`` with rates affine in x: each product has its range, or fades."""
        vector = self._vector_in(region, label, sides)
        out = []
        for rates in _rates(region, self.part):
            total: Ends = (flint.arb(0), flint.arb(0))
            for c, rate in enumerate(rates):
                share = _times(vector[c], _balls(_range(rate, sides)))
                if None in share:
                    share = self._fading(region, label, c, rate, sides) or share
                total = _plus(total, share)
            out.append(total)
        return out

    def _fading(self, region: Region, label: Label, c: int, rate: Array, sides: Box) -> Ends | None:
        """Bounds of ``g_c rate`` where g_c fades: |g_c| <= sum exp(-mu) with mu affine, see :meth:`_margins`.

        From the end of the box where mu is least, with steps t >= 0 along its unbounded sides, ``mu = low +
        sum s t`` and ``|rate| <= size + sum r t``. With s > 0 wherever r is not 0, ``t e^(-s t) <= 1 / (e
        s)`` bounds the product by ``e^-low (size + sum r / (e s))``.
        """
        if self.loss is Loss.MSE:
            return None
        total: Any = flint.arb(0)
        for mu in self._margins(region, label, c):
            low = _range(mu, sides)[0]
            if low is None:
                return None
            size, grown = abs(rate[-1]), Fraction(0)
            for r, s, (lo, hi) in zip(rate[:-1], mu[:-1], sides, strict=True):
                if not r:
                    continue
                ends = [abs(v) for v in (lo, hi) if v is not None]
                if len(ends) == 2:
                    size += abs(r) * max(ends)
                elif ends and s:
                    size += abs(r) * ends[0]
                    grown += abs(r / s)
                else:
                    return None
            total += (-to_ball(low)).exp() * (to_ball(size) + to_ball(grown) / flint.arb(1).exp())
        return -total, total

    def _margins(self, region: Region, label: Label, c: int) -> list[Array]:
        """Affine mu with ``|g_c| <= sum exp(-mu)``."""
        logits = region.logits
        if self.loss is Loss.BCE:
            return [logits[c] if label[c] == 1 else -logits[c]]
        own = int(label[0])
        return [logits[own] - logits[k] for k in range(len(logits)) if (k == c if c != own else k != own)]

    def _vector_in(self, region: Region, label: Label, sides: Box) -> list[Ends]:
        """Ranges of g over a box in one region, where differences of logits are affine as well."""
        logits = region.logits
        others = [
            [_range(logits[k] - row, sides) for k in range(len(logits)) if k != c]
            for c, row in enumerate(logits)
        ]
        return self._loss_vector(label, [_range(row, sides) for row in logits], others)

    def _targets(self, label: Label) -> list[int]:
        """The 0/1 target vector of a label."""
        if self.loss is Loss.BCE:
            return [int(y) for y in label]
        return [int(c == label[0]) for c in range(self.part.subject.network.classes)]

    def _loss_vector(self, label: Label, logits: list[Side], others: list[list[Side]]) -> list[Ends]:
        """Ranges of g; ``others[c]``: those of f_k - f_c for k != c."""
        if self.loss is Loss.MSE:
            moved = [
                [None if v is None else 2 * (v - y) for v in f] for f, y in zip(logits, label, strict=True)
            ]
            return [_balls((low, high)) for low, high in moved]
        if self.loss is Loss.BCE:
            others = [[(None if hi is None else -hi, None if lo is None else -lo)] for lo, hi in logits]
        found: list[Ends] = []
        for ranges, target in zip(others, self._targets(label), strict=True):
            least, most = flint.arb(1), flint.arb(1)
            for low, high in ranges:
                least = least + (flint.arb(0) if low is None else to_ball(low).exp())
                most = None if most is None or high is None else most + to_ball(high).exp()
            found.append(((flint.arb(0) if most is None else 1 / most) - target, 1 / least - target))
        return found

    def _through_layers(self, label: Label, sides: Box) -> list[Ends]:
        """Intervals forward and backward; a neuron that may be on and off passes between nothing and all."""
        network = self.part.subject.network
        hidden: list[list[Side]] = [list(sides)]
        states: list[list[bool | None]] = []
        for layer in network.layers[:-1]:
            z = _ranges(layer.weight, layer.bias, hidden[-1])
            states.append([_state(side) for side in z])
            hidden.append([(_positive(lo), None if hi is None else _positive(hi)) for lo, hi in z])
        logits = _ranges(network.layers[-1].weight, network.layers[-1].bias, hidden[-1])
        others = [
            [_minus(side, own) for k, side in enumerate(logits) if k != c] for c, own in enumerate(logits)
        ]
        delta = self._loss_vector(label, logits, others)
        blocks: list[list[Ends]] = []
        for i in range(network.depth - 1, -1, -1):
            below = [_balls(side) for side in hidden[i]]
            if network.has_bias:
                below.append((flint.arb(1), flint.arb(1)))
            blocks.append([_times(d, h) for d in delta for h in below])
            if i:
                delta = [
                    _passed(_combined(column, delta), state)
                    for column, state in zip(network.layers[i].weight.T, states[i - 1], strict=True)
                ]
        return [entry for block in reversed(blocks) for entry in block]

    # derivatives

    def _slopes(self, box: Box) -> list[list[Ends]] | None:
        """J over a bounded box in one region per sample, by rows of the gradient; None for another box."""
        if any(None in side for side in box):
            return None
        parts = []
        for m, label in enumerate(self.labels):
            sides = self.sides(box, m)
            region = self.regions.around(sides)
            if region is None:
                return None
            if (label, sides) not in self.slopes:
                self.slopes[label, sides] = self._slopes_of_one(region, label, sides)
            parts.append(self.slopes[label, sides])
        return [[slope for row in rows for slope in row] for rows in zip(*parts, strict=True)]

    def _slopes_of_one(self, region: Region, label: Label, sides: Box) -> list[list[Ends]]:
        """``d (sum_c g_c rate_ec) / dx_k = sum_c (dg_c / dx_k rate_ec + g_c drate_ec / dx_k)``."""
        vector = self._vector_in(region, label, sides)
        gains = self._gains(region, label, vector)
        out: list[list[Ends]] = []
        for rates in _rates(region, self.part):
            values = [_balls(_range(rate, sides)) for rate in rates]
            row: list[Ends] = []
            for k in range(len(sides)):
                total: Ends = (flint.arb(0), flint.arb(0))
                for rate, value, g, gain in zip(rates, values, vector, gains, strict=False):
                    total = _plus(total, _plus(_combined([rate[k]], [g]), _times(value, gain[k])))
                row.append(total)
            out.append(row)
        return out

    def _gains(self, region: Region, label: Label, vector: list[Ends]) -> list[list[Ends]]:
        """Ranges of dg_c / dx_k, from those of g and the slopes of the logits: dp_c = p_c (df_c - mean), the
        mean of df over the classes for softmax, and p_c (1 - p_c) df_c for sigmoid.
        """
        slopes = [[_balls((v, v)) for v in row[:-1]] for row in region.logits]
        if self.loss is Loss.MSE:
            return [[(2 * low, 2 * high) for low, high in row] for row in slopes]
        chances = [(low + t, high + t) for (low, high), t in zip(vector, self._targets(label), strict=True)]
        if self.loss is Loss.BCE:
            odds = [_times((low, high), (1 - high, 1 - low)) for low, high in chances]
            return [[_times(p, s) for s in row] for p, row in zip(odds, slopes, strict=True)]
        means: list[Ends] = []
        for column in zip(*slopes, strict=True):
            mean: Ends = (flint.arb(0), flint.arb(0))
            for p, s in zip(chances, column, strict=True):
                mean = _plus(mean, _times(p, s))
            means.append(mean)
        return [
            [_times(p, (s[0] - mean[1], s[1] - mean[0])) for s, mean in zip(row, means, strict=True)]
            for p, row in zip(chances, slopes, strict=True)
        ]

    def _values(self, box: Box) -> list[Any]:
        """The equations at the centre of a bounded box in one region per sample."""
        out = [-right for right in self.right]
        for m, label in enumerate(self.labels):
            sides = self.sides(box, m)
            region = self.regions.around(sides)
            assert region is not None
            point = tuple(((lo + hi) / 2,) * 2 for lo, hi in sides if lo is not None and hi is not None)
            vector = [low.union(high) for low, high in self._vector_in(region, label, point)]
            x = [*(to_ball(v) for v, _ in point), flint.arb(1)]
            for e, rates in enumerate(_rates(region, self.part)):
                for rate, g in zip(rates, vector, strict=False):
                    out[e] = out[e] + g * _dot(map(to_ball, rate), x)
        return out


def _right_sides(part: Part, regions: _Regions) -> list[Any]:
    """What the members add to every entry of the gradient (reduction sum)."""
    subject = part.subject
    passed = forward(subject.network, subject.batch)
    vectors = loss_vectors_ball(subject.question.loss, passed.logits, subject.batch.labels, 1, PRECISION)
    out: list[Any] = []
    for m in part.members:
        pattern = tuple(tuple(bool(v) for v in layer[:, m]) for layer in passed.patterns)
        x = [*(to_ball(v) for v in subject.batch.x[m]), flint.arb(1)]
        found = [
            sum((vectors[c, m] * _dot(map(to_ball, rate), x) for c, rate in enumerate(rates)), flint.arb(0))
            for rates in _rates(regions.of_pattern(pattern), part)
        ]
        out = [a + b for a, b in zip(out, found, strict=True)] if out else found
    return out


def _rates(region: Region, part: Part) -> Array:
    """(entries, K, d + 1): entry e is ``sum_c g_c (rates[e, c] [x ; 1])``; K - 1 where g sums to zero."""
    features = part.subject.network.widths[0]
    width = features + part.subject.network.has_bias
    found = region.system.reshape(len(region.system), -1, width)
    if width > features:
        return found
    return np.concatenate([found, np.full((*found.shape[:2], 1), Fraction(0), dtype=object)], axis=2)


def _some_point(side: Side) -> Fraction:
    low, high = side
    if low is None or high is None:
        return low + 1 if low is not None else Fraction(0) if high is None else high - 1
    return (low + high) / 2


def _applied(weight: Array, bias: Array | None, x: Sequence[Fraction]) -> list[Fraction]:
    offsets = [0] * len(weight) if bias is None else bias
    return [
        sum((to_fraction(w) * v for w, v in zip(row, x, strict=True)), to_fraction(b))
        for row, b in zip(weight, offsets, strict=True)
    ]


def _ranges(weight: Array, bias: Array | None, sides: Sequence[Side]) -> list[Side]:
    offsets = [0] * len(weight) if bias is None else bias
    return [
        _range(np.array([*map(to_fraction, row), to_fraction(b)], dtype=object), sides)
        for row, b in zip(weight, offsets, strict=True)
    ]


def _range(row: Array, sides: Sequence[Side]) -> Side:
    """The exact range of ``row [x ; 1]`` over a box."""
    low: Fraction | None = row[-1]
    high: Fraction | None = row[-1]
    for rate, (lo, hi) in zip(row[:-1], sides, strict=True):
        if rate:
            first, last = (lo, hi) if rate > 0 else (hi, lo)
            low = None if low is None or first is None else low + rate * first
            high = None if high is None or last is None else high + rate * last
    return low, high


def _state(side: Side) -> bool | None:
    low, high = side
    if low is not None and low > 0:
        return True
    return False if high is not None and high <= 0 else None


def _positive(value: Fraction | None) -> Fraction:
    return Fraction(0) if value is None or value < 0 else value


def _minus(left: Side, right: Side) -> Side:
    low = None if left[0] is None or right[1] is None else left[0] - right[1]
    high = None if left[1] is None or right[0] is None else left[1] - right[0]
    return low, high


def _balls(side: Side) -> Ends:
    low, high = side
    return None if low is None else to_ball(low), None if high is None else to_ball(high)


def _plus(left: Ends, right: Ends) -> Ends:
    low = None if left[0] is None or right[0] is None else left[0] + right[0]
    high = None if left[1] is None or right[1] is None else left[1] + right[1]
    return low, high


def _both(one: Ends, other: Ends) -> Ends:
    """Where two intervals around the same number meet."""
    low = one[0] if other[0] is None else other[0] if one[0] is None else one[0].max(other[0])
    high = one[1] if other[1] is None else other[1] if one[1] is None else one[1].min(other[1])
    return low, high


def _combined(weights: Iterable[Any], ends: Sequence[Ends]) -> Ends:
    """``sum w_j e_j`` with rational w_j."""
    total: Ends = (flint.arb(0), flint.arb(0))
    for weight, (low, high) in zip(map(to_fraction, weights), ends, strict=True):
        if weight:
            first, last = (low, high) if weight > 0 else (high, low)
            ball = to_ball(weight)
            total = _plus(
                total, (None if first is None else ball * first, None if last is None else ball * last)
            )
    return total


def _passed(ends: Ends, state: bool | None) -> Ends:
    """A delta through a neuron that is on, off, or either."""
    low, high = ends
    zero = flint.arb(0)
    if state is None:
        return None if low is None else low.min(zero), None if high is None else high.max(zero)
    return ends if state else (zero, zero)


def _times(left: Ends, right: Ends) -> Ends:
    """The product of two intervals: from its corners, where 0 times infinity is 0."""
    lows, highs = [], []
    corners = (((low, True), (high, False)) for low, high in (left, right))
    for (a, down_a), (b, down_b) in product(*corners):
        if a is not None and b is not None:
            lows.append(a * b)
            highs.append(a * b)
            continue
        sign = _sign(a, down_a) * _sign(b, down_b)
        if math.isnan(sign):
            return None, None
        if sign == 0:
            lows.append(flint.arb(0))
            highs.append(flint.arb(0))
        elif sign < 0:
            lows.append(None)
        else:
            highs.append(None)
    low, high = _least(lows, top=False), _least(highs, top=True)
    return low, high


def _sign(value: Any, down: bool) -> float:
    """Of an end, infinite ones too; NaN where a ball does not tell."""
    if value is None:
        return -1.0 if down else 1.0
    if value.is_zero():
        return 0.0
    return 1.0 if value > 0 else -1.0 if value < 0 else float("nan")


def _least(values: list[Any], *, top: bool) -> Any:
    if not values or None in values:
        return None
    found = values[0]
    for value in values[1:]:
        found = found.max(value) if top else found.min(value)
    return found


def _approximate_inverse(slopes: list[list[Ends]]) -> list[list[Any]]:
    """The pseudo-inverse of the middles: any matrix would be right, this one is good."""
    middle = np.array([[(float(low.mid()) + float(high.mid())) / 2 for low, high in row] for row in slopes])
    return [[flint.arb(float(v)) for v in row] for row in np.linalg.pinv(middle)]


def _mixed(weights: list[Any], ends: Sequence[Ends]) -> Ends:
    """``sum w_j e_j`` with exact balls w_j."""
    low = high = flint.arb(0)
    for weight, (a, b) in zip(weights, ends, strict=True):
        first, last = (a, b) if weight > 0 else (b, a)
        low, high = low + weight * first, high + weight * last
    return low, high


def _reach(row: Sequence[Ends], halves: Sequence[Any]) -> Any:
    """How far ``row . h`` can be from 0 with |h_k| at most ``halves[k]``."""
    return sum(
        (abs(low).max(abs(high)) * h for (low, high), h in zip(row, halves, strict=True)), flint.arb(0)
    )


def _dot(left: Iterable[Any], right: Iterable[Any]) -> Any:
    return sum((x * y for x, y in zip(left, right, strict=True)), flint.arb(0))
