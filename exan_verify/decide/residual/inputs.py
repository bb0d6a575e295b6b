"""A recorded cover of the inputs themselves, where samples and features are few (docs/theory.md R8).

Nothing has to be independent: over a box of inputs every entry of the gradient is enclosed, also over
unbounded boxes, and boxes in which one of them is away from what it has to be hold no batch. What is left
are boxes around the orders of the given batch, in which the gradient is injective. Everything here is
floating point and only proposes where to cut: the kernel encloses every leaf again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations

import numpy as np

from exan_verify.core.arrays import Array
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import InputCover
from exan_verify.core.facts import Facts
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.residual.alphabet import multiset_count, multisets
from exan_verify.decide.residual.unsettled import Rest, rest_of
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.regions import Pattern, region_of

MAX_COORDINATES = 4
"""Samples times features: with five the boxes allowed cut each side but twice."""

MAX_SYSTEM = 1 << 12
"""Entries of the gradient times classes times d + 1; the kernel's bound as well."""

MAX_WORK = 1 << 21
"""Of all boxes, counted as :data:`MAX_SYSTEM` counts one."""

MAX_LABELS = 150
"""Label multisets: the letters are shared by their trees."""

MAX_LETTERS = 4_000
"""Of all trees: some four seconds."""

BOX_WORK = 4000
"""Of one box; half of the work that is left and three quarters of the time stay for those asked next."""

FARTHEST, SMALLEST = 2.0**24, 2.0**-24
"""A box that begins beyond, or is smaller, ends the cover: what is left there solves the equations, or does
so in the limit.
"""

MARGIN = 1e-9
"""Relative: tests are passed with it, so that exact ones pass too."""

NEAR_ONE = 0.97

Box = tuple[tuple[float, float], ...]


def decide(context: Context, budget: Budget) -> Finding:
    """Settle all samples that are left at once, or say why not."""
    start = time.monotonic()
    rest, question, network = rest_of(context), context.question, context.network
    if rest is None or question.loss is Loss.HINGE or question.labels is Labels.REAL:
        return Finding()
    entries = sum(weight.size for _, weight in network.parameters())
    cost = entries * network.classes * (network.widths[0] + 1)
    too_many = (
        rest.size * network.widths[0] > MAX_COORDINATES
        or cost > MAX_SYSTEM
        or multiset_count(rest) > MAX_LABELS
    )
    if too_many:
        return Finding()
    trees: list[str] = []
    places = Places(context=context)
    letters, seconds = min(MAX_LETTERS, MAX_WORK // cost), budget.seconds_left
    if budget.work_left is not None:
        letters = min(letters, budget.work_left // (2 * BOX_WORK))
    end = math.inf if seconds is None else start + seconds / 4
    for labels in multisets(rest):
        system = System(rest=rest, places=places, labels=labels)
        tree = system.cover(budget, letters - sum(map(len, trees)), end)
        if tree is None:
            seconds = time.monotonic() - start
            note = budget.exhausted or "no cover by boxes: a batch may be left, or a limit of batches"
            return Finding(
                attempts=(Attempt(engine=Engine.RESIDUAL, note=f"inputs: {note}", seconds=seconds),)
            )
        trees.append(tree)
    names = ", ".join(map(str, rest.members))
    return Finding(
        attempts=(
            Attempt(
                engine=Engine.RESIDUAL, note="inputs: a cover by boxes", seconds=time.monotonic() - start
            ),
        ),
        facts=Facts(determined=frozenset(rest.members), unique=True),
        evidence=(InputCover(trees=tuple(trees)),),
        reason=f"boxes cover all inputs that samples {names} may have; no others have this gradient",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    """A region's maps on [x ; 1] in floating point: ``rates`` (entries, K or K - 1, d + 1)."""

    logits: Array
    states: Array
    active: Array
    rates: Array


@dataclass(frozen=True, kw_only=True)
class Places:
    """Regions by pattern, and the network in floating point."""

    context: Context
    made: dict[Pattern, _Region] = field(default_factory=dict)
    seen: dict[bytes, _Region | None] = field(default_factory=dict)

    @cached_property
    def layers(self) -> list[tuple[Array, Array]]:
        """Weights and biases (zeros where there are none)."""
        return [
            (
                guessed(layer.weight),
                np.zeros(len(layer.weight)) if layer.bias is None else guessed(layer.bias),
            )
            for layer in self.context.network.layers
        ]

    def of_pattern(self, pattern: Pattern) -> _Region:
        """The region of a joint pattern."""
        if pattern not in self.made:
            network = self.context.network
            exact = region_of(network, pattern, zero_sum=self.context.question.loss.zero_sum)
            features = network.widths[0]
            rates = guessed(exact.system).reshape(len(exact.system), -1, features + network.has_bias)
            if not network.has_bias:
                rates = np.concatenate([rates, np.zeros((*rates.shape[:2], 1))], axis=2)
            self.made[pattern] = _Region(
                logits=guessed(exact.logits),
                states=guessed(exact.states).reshape(-1, features + 1),
                active=np.array(exact.active, dtype=bool),
                rates=rates,
            )
        return self.made[pattern]

    def of_point(self, x: Array) -> _Region:
        """The region of an input (d,)."""
        pattern = []
        for weight, bias in self.layers[:-1]:
            z = weight @ x + bias
            pattern.append(tuple(bool(v) for v in z > 0))
            x = np.maximum(z, 0)
        return self.of_pattern(tuple(pattern))

    def on_boundary(self, x: Array) -> bool:
        """Whether some pre-activation of an input (d,) seems to be 0."""
        for weight, bias in self.layers[:-1]:
            z = weight @ x + bias
            if not z.all():
                return True
            x = np.maximum(z, 0)
        return False

    def around(self, sides: Array) -> _Region | None:
        """The region that a box (d, 2) lies in, if in one."""
        key = sides.tobytes()
        if key not in self.seen:
            self.seen[key] = self._looked_for(sides)
        return self.seen[key]

    def _looked_for(self, sides: Array) -> _Region | None:
        low, high = sides[:, 0], sides[:, 1]
        with np.errstate(invalid="ignore"):
            x = np.where(
                np.isfinite(low),
                np.where(np.isfinite(high), (low + high) / 2, low + 1),
                np.where(np.isfinite(high), high - 1, 0.0),
            )
        region = self.of_point(x)
        least, most = _range(region.states, sides)
        slack = MARGIN * np.abs(region.states).max(axis=1, initial=0.0)
        fits = np.where(region.active, least > slack, (most < -slack) | ~region.states.any(axis=1))
        return region if fits.all() else None


@dataclass(frozen=True, kw_only=True)
class System:
    """The gradient of the rest with these labels, less what it has to be."""

    rest: Rest
    places: Places
    labels: Array
    shares: dict[tuple[bytes, bytes], tuple[Array, Array]] = field(default_factory=dict)
    derivatives: dict[tuple[bytes, bytes], tuple[Array, Array]] = field(default_factory=dict)

    @property
    def loss(self) -> Loss:
        """The question's loss."""
        return self.rest.context.question.loss

    @property
    def features(self) -> int:
        """d."""
        return self.rest.context.network.widths[0]

    @cached_property
    def inputs(self) -> Array:
        """The given inputs of the rest (r, d)."""
        return guessed(self.rest.batch.inputs)

    @cached_property
    def right(self) -> Array:
        """What the rest adds to every entry (reduction sum), and the size of what is summed: (2, entries)."""
        total = size = np.zeros(1)
        for m, (x, y) in enumerate(zip(self.inputs, self.rest.batch.labels, strict=True)):
            place = self.rest.members[m]
            pattern = tuple(
                tuple(bool(v) for v in layer[:, place]) for layer in self.rest.context.passed.patterns
            )
            region = self.places.of_pattern(pattern)
            point = np.append(x, 1.0)
            g = _at(self.loss, region.logits @ point, self._target(y))
            values = (region.rates @ point) * g[: region.rates.shape[1]]
            total, size = total + values.sum(axis=1), size + np.abs(values).sum(axis=1)
        return np.stack([total, size])

    @cached_property
    def known(self) -> list[Array]:
        """The orders of the given batch that fit the labels (r d,), each once."""
        own = self.rest.batch
        points: list[Array] = []
        for order in permutations(range(own.size)):
            if all(np.array_equal(own.labels[m], y) for m, y in zip(order, self.labels, strict=True)):
                point = self.inputs[list(order)].reshape(-1)
                if not any(np.array_equal(point, p) for p in points):
                    points.append(point)
        return points

    def at(self, x: Array) -> tuple[Array, Array]:
        """The equations (entries,) at inputs (r, d), in units of what is summed there, and their slopes
        (entries, r d).
        """
        values, size, slopes = -self.right[0], self.right[1] + 1e-12, []
        for label, row in zip(self.labels, x, strict=True):
            region, y, point = self.places.of_point(row), self._target(label), np.append(row, 1.0)
            g, count = _at(self.loss, region.logits @ point, y), region.rates.shape[1]
            rates = region.rates @ point
            values = values + rates @ g[:count]
            gains, _ = _gain_range(self.loss, y, (g, g), region.logits[:, :-1])
            slopes.append(
                np.tensordot(region.rates[:, :, :-1], g[:count], axes=(1, 0)) + rates @ gains[:count]
            )
        return values / size, np.concatenate(slopes, axis=1) / size[:, None]

    def cover(self, budget: Budget, limit: int, end: float) -> str | None:
        """The tree, or None when ``limit`` boxes, the time until ``end`` or the budget did not suffice."""
        out: list[str] = []
        stack = [self._start()]
        with np.errstate(all="ignore"):
            while stack:
                box = stack.pop()
                limit -= 1
                budget.spend(BOX_WORK)
                if limit < 0 or budget.exhausted or time.monotonic() > end:
                    return None
                letter = self._judge(box)
                if letter is None:
                    axis = self._axis(box)
                    if axis is None:
                        return None
                    low, high = box[axis]
                    middle = _cut(low, high)
                    out.append(str(axis))
                    stack += [
                        (*box[:axis], half, *box[axis + 1 :]) for half in ((middle, high), (low, middle))
                    ]
                else:
                    out.append(letter)
        return "".join(out)

    def _start(self) -> Box:
        domain = self.rest.context.question.domain
        sides = [(-math.inf, math.inf)] * self.features
        if domain is not None:
            sides = [(float(a), float(b)) for a, b in zip(*domain.bounds(self.features), strict=True)]
        return tuple(sides * self.rest.size)

    def _judge(self, box: Box) -> str | None:
        """The letter of a leaf, or None where the box is to be cut."""
        parts = [np.array(box[m * self.features : (m + 1) * self.features]) for m in range(self.rest.size)]
        inside = [p for p in self.known if all(lo <= v <= hi for v, (lo, hi) in zip(p, box, strict=True))]
        if self._misordered(parts) or (not inside and self._away(parts)):
            return "x"
        if not all(math.isfinite(v) for side in box for v in side):
            return None
        regions = [self.places.around(part) for part in parts]
        settled = [region for region in regions if region is not None]
        if len(settled) < len(regions):
            return None
        slopes = self._slopes(parts, settled)
        if len(inside) == 1 and _injective(*slopes):
            return "k"
        return "m" if not inside and self._mean_value_away(parts, settled, *slopes) else None

    def _axis(self, box: Box) -> int | None:
        """Which side to cut: unbounded ones first, those that reach least far; None: it is hopeless."""

        def urgent(side: tuple[float, float]) -> float:
            low, high = side
            if math.isinf(low) and math.isinf(high):
                return math.inf
            if math.isinf(low) or math.isinf(high):
                return 1e6 / (1 + abs(high if math.isinf(low) else low))
            return high - low

        if any(math.isfinite(v) and abs(v) > FARTHEST for side in box for v in side):
            return None
        axis = max(range(len(box)), key=lambda k: urgent(box[k]))
        return None if urgent(box[axis]) < SMALLEST else axis

    def _misordered(self, parts: list[Array]) -> bool:
        """Samples with equal labels next to one another are taken in the order of their first feature."""
        return any(
            np.array_equal(a, b) and one[0, 0] > other[0, 1] + MARGIN * (1 + abs(other[0, 1]))
            for a, b, one, other in zip(self.labels, self.labels[1:], parts, parts[1:], strict=False)
        )

    def _away(self, parts: list[Array]) -> bool:
        low = high = np.zeros(1)
        size = self.right[1]
        for y, part in zip(self.labels, parts, strict=True):
            below, above = self._share(y, part)
            low, high = low + below, high + above
            size = (
                size
                + np.where(np.isfinite(below), np.abs(below), 0)
                + np.where(np.isfinite(above), np.abs(above), 0)
            )
        slack = MARGIN * (size + 1e-3)
        return bool(np.any((low - self.right[0] > slack) | (high - self.right[0] < -slack)))

    def _share(self, label: Array, sides: Array) -> tuple[Array, Array]:
        """Bounds of what a sample adds to every entry, its input in a box (d, 2)."""
        key = np.asarray(label, dtype=np.float64).tobytes(), sides.tobytes()
        if key not in self.shares:
            region, y = self.places.around(sides), self._target(label)
            low, high = self._through_layers(y, sides)
            if region is not None:  # neither way is always the narrower
                below, above = self._in_region(region, y, sides)
                low, high = np.maximum(low, below), np.minimum(high, above)
            self.shares[key] = low, high
        return self.shares[key]

    def _in_region(self, region: _Region, y: Array, sides: Array) -> tuple[Array, Array]:
        count = region.rates.shape[1]
        logits = region.logits
        differences = logits[None] - logits[:, None]
        g = _vector_range(self.loss, y, _range(logits, sides), _range(differences, sides))
        low, high = _times((g[0][:count], g[1][:count]), _range(region.rates, sides))
        if self.loss is not Loss.MSE and not (np.isfinite(low).all() and np.isfinite(high).all()):
            for c in range(count):
                endless = ~(np.isfinite(low[:, c]) & np.isfinite(high[:, c]))
                bound = _fading(_margins(self.loss, logits, y, c), region.rates[:, c], sides)
                kept = endless & np.isfinite(bound)
                low[kept, c], high[kept, c] = -bound[kept], bound[kept]
        return low.sum(axis=1), high.sum(axis=1)

    def _through_layers(self, y: Array, sides: Array) -> tuple[Array, Array]:
        hidden, states = [(sides[:, 0], sides[:, 1])], []
        for weight, bias in self.places.layers[:-1]:
            low, high = _affine(weight, bias, hidden[-1])
            slack = MARGIN * (np.abs(weight).max(axis=1, initial=0.0) + np.abs(bias))
            states.append((low > slack, high > -slack))
            hidden.append((np.maximum(low, 0), np.maximum(high, 0)))
        weight, bias = self.places.layers[-1]
        low, high = _affine(weight, bias, hidden[-1])
        delta = _vector_range(
            self.loss, y, (low, high), (low[None] - high[:, None], high[None] - low[:, None])
        )
        blocks: list[tuple[Array, Array]] = []
        has_bias = self.rest.context.network.has_bias
        for i in range(len(self.places.layers) - 1, -1, -1):
            below, above = hidden[i]
            if has_bias:
                below, above = np.append(below, 1.0), np.append(above, 1.0)
            blocks.append(_times((delta[0][:, None], delta[1][:, None]), (below[None], above[None])))
            if i:
                weight = self.places.layers[i][0].T
                low, high = _affine(weight, np.zeros(len(weight)), delta)
                surely, maybe = states[i - 1]
                delta = (
                    np.where(surely, low, np.where(maybe, np.minimum(low, 0), 0)),
                    np.where(surely, high, np.where(maybe, np.maximum(high, 0), 0)),
                )
        return (
            np.concatenate([b[0].reshape(-1) for b in reversed(blocks)]),
            np.concatenate([b[1].reshape(-1) for b in reversed(blocks)]),
        )

    def _slopes(self, parts: list[Array], regions: list[_Region]) -> tuple[Array, Array]:
        """Bounds of the Jacobian (entries, r d) over bounded boxes in one region each."""
        found = [
            self._slopes_of_one(self._target(y), part, region)
            for y, part, region in zip(self.labels, parts, regions, strict=True)
        ]
        return np.concatenate([f[0] for f in found], axis=1), np.concatenate([f[1] for f in found], axis=1)

    def _slopes_of_one(self, y: Array, sides: Array, region: _Region) -> tuple[Array, Array]:
        """(entries, d), by one sample's inputs."""
        key = y.tobytes(), sides.tobytes()
        if key not in self.derivatives:
            count, logits = region.rates.shape[1], region.logits
            g = _vector_range(
                self.loss, y, _range(logits, sides), _range(logits[None] - logits[:, None], sides)
            )
            gains = _gain_range(self.loss, y, g, logits[:, :-1])
            rate = _range(region.rates, sides)
            slopes = region.rates[:, :, :-1]
            direct = _times((g[0][None, :count, None], g[1][None, :count, None]), (slopes, slopes))
            curved = _times(
                (rate[0][:, :, None], rate[1][:, :, None]), (gains[0][None, :count], gains[1][None, :count])
            )
            self.derivatives[key] = (direct[0] + curved[0]).sum(axis=1), (direct[1] + curved[1]).sum(axis=1)
        return self.derivatives[key]

    def _mean_value_away(self, parts: list[Array], regions: list[_Region], low: Array, high: Array) -> bool:
        """Whether the mean value form misses zero, plain or with the pseudo-inverse of the middle slopes."""
        half = np.concatenate([(part[:, 1] - part[:, 0]) / 2 for part in parts])
        values, size = -self.right[0], self.right[1]
        for y, part, region in zip(self.labels, parts, regions, strict=True):
            point = np.append(part.mean(axis=1), 1.0)
            g = _at(self.loss, region.logits @ point, self._target(y))
            added = (region.rates @ point) * g[: region.rates.shape[1]]
            values, size = values + added.sum(axis=1), size + np.abs(added).sum(axis=1)
        reach = np.maximum(np.abs(low), np.abs(high)) @ half
        if np.any(np.abs(values) > reach * (1 + MARGIN) + MARGIN * (size + 1e-3)):
            return True
        inverse = np.linalg.pinv((low + high) / 2)
        changed = _times((inverse[:, :, None], inverse[:, :, None]), (low[None], high[None]))
        reach = np.maximum(np.abs(changed[0].sum(axis=1)), np.abs(changed[1].sum(axis=1))) @ half
        moved, size = np.abs(inverse @ values), np.abs(inverse) @ (size + 1e-3)
        return bool(np.any(moved > 1.02 * reach + MARGIN * size))

    def _target(self, label: Array) -> Array:
        """The target vector of a label (K,)."""
        if np.ndim(label):
            return guessed(label)
        unit: Array = np.eye(self.rest.context.network.classes)[int(label)]
        return unit


def _cut(low: float, high: float) -> float:
    """The kernel's rule: away from whole and half numbers."""
    if math.isinf(low) or math.isinf(high):
        if math.isfinite(low):
            return low + abs(low) + 1
        return 11 / 64 if math.isinf(high) else high - abs(high) - 1
    return low + (high - low) * 33 / 64


def _range(rows: Array, sides: Array) -> tuple[Array, Array]:
    """The range of ``rows [x ; 1]`` (..., d + 1) over a box (d, 2)."""
    slopes = rows[..., :-1]
    down = np.where(slopes > 0, slopes * sides[:, 0], np.where(slopes < 0, slopes * sides[:, 1], 0.0))
    up = np.where(slopes > 0, slopes * sides[:, 1], np.where(slopes < 0, slopes * sides[:, 0], 0.0))
    return down.sum(axis=-1) + rows[..., -1], up.sum(axis=-1) + rows[..., -1]


def _affine(weight: Array, bias: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
    """The range of ``weight h + bias`` for h in an interval (n,)."""
    sides = np.stack(ends, axis=-1)
    return _range(np.concatenate([weight, bias[:, None]], axis=1), sides)


def _times(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
    """The product of intervals: from its corners, where 0 times infinity is 0."""
    corners = [a * b for a in left for b in right]
    for corner in corners:
        corner[np.isnan(corner)] = 0.0
    low, high = np.minimum(corners[0], corners[1]), np.maximum(corners[0], corners[1])
    for corner in corners[2:]:
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return low, high


def _at(loss: Loss, logits: Array, y: Array) -> Array:
    """g at logits (K,)."""
    found, _ = _vector_range(loss, y, (logits, logits), (logits[None] - logits[:, None],) * 2)
    return found


def _vector_range(
    loss: Loss, y: Array, logits: tuple[Array, Array], differences: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Bounds of g (K,); ``differences[c, k]``: of f_k - f_c."""
    if loss is Loss.MSE:
        return 2 * (logits[0] - y), 2 * (logits[1] - y)
    if loss is Loss.BCE:
        return 1 / (1 + np.exp(-logits[0])) - y, 1 / (1 + np.exp(-logits[1])) - y
    others = ~np.eye(len(y), dtype=bool)
    least = np.where(others, np.exp(differences[0]), 0).sum(axis=1)
    most = np.where(others, np.exp(differences[1]), 0).sum(axis=1)
    return 1 / (1 + most) - y, 1 / (1 + least) - y


def _gain_range(loss: Loss, y: Array, g: tuple[Array, Array], slopes: Array) -> tuple[Array, Array]:
    """Bounds of dg_c / dx_k (K, d) from those of g; ``slopes`` (K, d): of the logits."""
    if loss is Loss.MSE:
        return 2 * slopes, 2 * slopes
    p = g[0] + y, g[1] + y
    if loss is Loss.BCE:
        return _times(
            _times((p[0][:, None], p[1][:, None]), (1 - p[1][:, None], 1 - p[0][:, None])), (slopes, slopes)
        )
    means = _times((p[0][:, None], p[1][:, None]), (slopes, slopes))
    mean = means[0].sum(axis=0), means[1].sum(axis=0)
    return _times((p[0][:, None], p[1][:, None]), (slopes - mean[1], slopes - mean[0]))


def _margins(loss: Loss, logits: Array, y: Array, c: int) -> Iterator[Array]:
    """Affine mu with ``|g_c| <= sum exp(-mu)``."""
    if loss is Loss.BCE:
        yield logits[c] if y[c] else -logits[c]
        return
    own = int(y.argmax())
    for k in range(len(logits)):
        if (k == c) if c != own else (k != own):
            yield logits[own] - logits[k]


def _fading(margins: Iterator[Array], rates: Array, sides: Array) -> Array:
    """Bounds (entries,) of ``|g_c rate|`` for rates (entries, d + 1): ``e^-low (size + sum r / (e s))``,
    with mu = low + sum s t and |rate| <= size + sum r t along the unbounded sides; infinite where nothing is
    known.
    """
    total: Array = np.zeros(len(rates))
    bounded = np.isfinite(sides)
    ends = np.where(bounded, np.abs(sides), 0.0).max(axis=1)
    for mu in margins:
        low = _range(mu, sides)[0]
        if not np.isfinite(low):
            return np.full(len(rates), np.inf)
        slopes, fixed = np.abs(rates[:, :-1]), bounded.all(axis=1)
        decay = np.abs(mu[:-1])
        grown = np.where(slopes == 0, 0.0, np.where(fixed, 0.0, slopes / decay))
        grown = np.where((slopes != 0) & ~bounded.any(axis=1), np.inf, grown)
        total = total + np.exp(-low) * (np.abs(rates[:, -1]) + slopes @ ends + grown.sum(axis=1) / math.e)
    return total


def _injective(low: Array, high: Array) -> bool:
    """Whether ``|I - C J| < 1`` for the pseudo-inverse C of the middle."""
    inverse = np.linalg.pinv((low + high) / 2)
    if not np.isfinite(inverse).all():
        return False
    changed = _times((inverse[:, :, None], inverse[:, :, None]), (low[None], high[None]))
    unit = np.eye(low.shape[1])
    far = np.maximum(np.abs(changed[0].sum(axis=1) - unit), np.abs(changed[1].sum(axis=1) - unit))
    return bool(np.all(far.sum(axis=1) < NEAR_ONE))
