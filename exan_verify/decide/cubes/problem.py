"""The samples that are not settled, by region and label: what the search for a certificate of cubes needs.

Contributions enter the gradient through the products ``g [x ; 1]^T`` of a region's samples, linearly
(docs/theory.md S0, CB1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations_with_replacement, product
from math import comb, lcm
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget, poll
from exan_verify.core.network import Array, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.context import Context
from exan_verify.decide.residual.alphabet import alphabet
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern, Region, region_of
from exan_verify.exact.softmax import loss_vectors, loss_vectors_ball, to_ball

PRECISION = 256
MAX_PATTERNS = 150
MAX_MULTISETS = 20_000
MAX_ENTRIES = 1 << 10
MULTISET_WORK = 2_000

Side = tuple[Fraction | None, Fraction | None]
Sides = tuple[Side, ...]


@dataclass(frozen=True, slots=True)
class Letter:
    """A label as a target vector; under hinge with a loss vector that it may have."""

    target: tuple[Fraction, ...]
    vector: tuple[Fraction, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The rest of a batch, in exact numbers, with its regions by pattern.

    ``entries``: what all samples add to the gradient (reduction sum), where the numbers of the rest are only
    near those of a batch that has it.
    """

    rest: Rest
    entries: tuple[Fraction, ...] | None = None

    @property
    def context(self) -> Context:
        """The batch and its question."""
        return self.rest.context

    @property
    def network(self) -> ReluNetwork:
        """The network."""
        return self.context.network

    @property
    def loss(self) -> Loss:
        """The question's."""
        return self.context.question.loss

    @cached_property
    def told(self) -> dict[tuple[Pattern, frozenset[Pattern]], bool]:
        """Whether the gradient tells the sum of a region among others, as far as it was asked."""
        return {}

    @property
    def size(self) -> int:
        """Samples."""
        return self.rest.size

    @property
    def features(self) -> int:
        """d."""
        return self.network.widths[0]

    @property
    def classes(self) -> int:
        """K."""
        return self.network.classes

    @property
    def free(self) -> int:
        """Entries of a loss vector that are unknowns."""
        return self.classes - self.loss.zero_sum

    @property
    def width(self) -> int:
        """Columns of [x ; 1] that the gradient sees."""
        return self.features + self.network.has_bias

    @cached_property
    def sides(self) -> Sides:
        """The domain."""
        domain = self.context.question.domain
        if domain is None:
            return ((None, None),) * self.features
        bounds = domain.bounds(self.features)
        return tuple((to_fraction(lo), to_fraction(hi)) for lo, hi in zip(*bounds, strict=True))

    @cached_property
    def inputs(self) -> list[tuple[Fraction, ...]]:
        """The rest's inputs."""
        return [tuple(map(to_fraction, row)) for row in self.rest.batch.x]

    @cached_property
    def patterns(self) -> list[Pattern]:
        """Theirs."""
        layers = self.context.passed.patterns
        return [tuple(tuple(bool(v) for v in layer[:, m]) for layer in layers) for m in self.rest.members]

    @cached_property
    def own(self) -> list[Letter]:
        """Theirs."""
        found = []
        for target, row in zip(map(self._target, self.rest.batch.labels), self.rest.logits, strict=True):
            vector = None
            if self.loss is Loss.HINGE:
                y = target.index(Fraction(1))
                violated = [int(c != y and 1 - row[y] + f > 0) for c, f in enumerate(row)]
                vector = self._share(violated, y)
            found.append(Letter(target, vector))
        return found

    @cached_property
    def letters(self) -> list[Letter]:
        """What a sample's label may be."""
        targets = [self._target(label) for label in alphabet(self.rest)]
        if self.loss is not Loss.HINGE:
            return [Letter(target) for target in targets]
        return [
            Letter(target, self._share(violated, target.index(Fraction(1))))
            for target in targets
            for violated in product((0, 1), repeat=self.classes)
            if not violated[target.index(Fraction(1))]
        ]

    def admitted(self, given: Sequence[int]) -> bool:
        """Whether known labels are not used more often than the rest has them."""
        if self.context.question.labels is not Labels.KNOWN:
            return True
        own = [letter.target for letter in self.own]
        used = [self.letters[k].target for k in given]
        return all(used.count(t) <= own.count(t) for t in used)

    def _target(self, label: Any) -> tuple[Fraction, ...]:
        if self.loss.class_labels:
            return tuple(Fraction(c == int(label)) for c in range(self.classes))
        return tuple(to_fraction(v) for v in np.atleast_1d(label))

    def _share(self, violated: Sequence[int], y: int) -> tuple[Fraction, ...]:
        shares = [Fraction(v, self.classes) for v in violated]
        shares[y] = -sum(shares, Fraction(0))
        return tuple(shares)

    @cached_property
    def _made(self) -> dict[Pattern, Region]:
        return {}

    def region(self, pattern: Pattern) -> Region:
        """The maps of a pattern."""
        if pattern not in self._made:
            self._made[pattern] = region_of(self.network, pattern, zero_sum=self.loss.zero_sum)
        return self._made[pattern]

    @cached_property
    def right(self) -> tuple[Array, list[Any]]:
        """``(shares, vectors)``: the rest adds ``shares @ vectors`` to the gradient's entries (reduction
        sum); vectors are balls, or the number 1 where loss vectors are rational.
        """
        if self.entries is not None:
            return np.array(self.entries, dtype=object).reshape(-1, 1), [Fraction(1)]
        logits, labels, parts = self.rest.logits.T, self.rest.batch.labels, []
        for x, pattern in zip(self.inputs, self.patterns, strict=True):
            point = np.array([*x, Fraction(1)][: self.width], dtype=object)
            parts.append(self.region(pattern).system.reshape(-1, self.free, self.width) @ point)
        if self.loss.rational:
            exact = loss_vectors(self.loss, logits, labels, 1)[: self.free]
            total = 0 * parts[0][:, 0]
            for m, part in enumerate(parts):
                total = total + part @ exact[:, m]
            return total.reshape(-1, 1), [Fraction(1)]
        balls = loss_vectors_ball(self.loss, logits, labels, 1, PRECISION)
        merged: dict[tuple[Any, ...], Array] = {}
        chosen: dict[tuple[Any, ...], int] = {}
        for m, part in enumerate(parts):
            key = (*logits[:, m], *self.own[m].target)
            merged[key] = merged[key] + part if key in merged else part
            chosen.setdefault(key, m)
        vectors = [balls[c, m] for m in chosen.values() for c in range(self.free)]
        return np.concatenate(list(merged.values()), axis=1), vectors

    def value(self, weights: Sequence[Any]) -> Any:
        """``weights . vectors``: a Fraction, or a ball; exact where no vector has a weight."""
        vectors = self.right[1]
        if self.loss.rational or not any(weights):
            return sum((w * v for w, v in zip(weights, vectors, strict=True) if w), Fraction(0))
        with flint.ctx.workprec(PRECISION):
            return sum((to_ball(w) * v for w, v in zip(weights, vectors, strict=True) if w), flint.arb(0))

    @cached_property
    def floats(self) -> Array:
        """The rest's share (entries,) of the gradient, in floating point."""
        shares, vectors = self.right
        middle = np.array([float(v) if isinstance(v, Fraction) else float(v.mid()) for v in vectors])
        found: Array = shares.astype(np.float64) @ middle
        return found

    def multisets(self, patterns: Sequence[Pattern], budget: Budget) -> Iterator[tuple[Pattern, ...]] | None:
        """The multisets of patterns that sums over their regions leave, in order; None where they are too
        many.
        """
        count = comb(len(patterns) + self.size - 1, self.size)
        budget.spend(MULTISET_WORK * count)
        if count > MAX_MULTISETS or budget.exhausted:
            return None
        return (
            chosen
            for chosen in combinations_with_replacement(patterns, self.size)
            if self._reached(frozenset(chosen))
        )

    @cached_property
    def _answers(self) -> dict[frozenset[Pattern], bool]:
        return {}

    def _reached(self, patterns: frozenset[Pattern]) -> bool:
        if patterns not in self._answers:
            poll()
            self._answers[patterns] = self._seen(patterns) and self._fits(patterns)
        return self._answers[patterns]

    @cached_property
    def _needed(self) -> Array:
        found = [self.value(row) for row in self.right[0]]
        return np.array([bool(v) if isinstance(v, Fraction) else not v.contains(0) for v in found])

    @cached_property
    def _rows(self) -> dict[Pattern, Array]:
        return {}

    def _seen(self, patterns: frozenset[Pattern]) -> bool:
        left: Array = self._needed.copy()
        for p in patterns:
            if p not in self._rows:
                self._rows[p] = np.any(self.region(p).system.astype(bool), axis=1)
            left = left & ~self._rows[p]
        return not left.any()

    def _fits(self, patterns: frozenset[Pattern]) -> bool:
        entries = len(self.floats)
        columns = [v for p in sorted(patterns) for v in self._whole(p)]
        tests, count = flint.fmpz_mat(len(columns) // entries, entries, columns).nullspace()
        if not count:
            return True
        weights = (self._whole_shares * tests).table()
        for column in list(zip(*weights, strict=True))[:count]:
            value = self.value([Fraction(int(w)) for w in column])
            if bool(value) if isinstance(value, Fraction) else not value.contains(0):
                return False
        return True

    @cached_property
    def _wholes(self) -> dict[Pattern, list[int]]:
        return {}

    def _whole(self, pattern: Pattern) -> list[int]:
        """The columns of a region's system, times a number that makes them integers."""
        if pattern not in self._wholes:
            self._wholes[pattern] = whole_numbers(self.region(pattern).system.T)
        return self._wholes[pattern]

    @cached_property
    def _whole_shares(self) -> Any:
        shares = self.right[0].T
        return flint.fmpz_mat(*shares.shape, whole_numbers(shares))


def whole_numbers(matrix: Array) -> list[int]:
    """The entries, row by row, times one number that makes them integers."""
    scale = lcm(1, *(v.denominator for v in matrix.reshape(-1)))
    return [int(v * scale) for v in matrix.reshape(-1)]


def inequalities(network: ReluNetwork, bits: Sequence[bool], sides: Sides) -> list[tuple[Array, bool]]:
    """What states of the first neurons, and a box, say of an input: rows with ``row [x ; 1] >= 0`` (> 0)."""
    out: list[tuple[Array, bool]] = []
    unit = linalg.identity(network.widths[0] + 1)
    features = unit
    for layer in network.layers[:-1]:
        if len(out) == len(bits):
            break
        maps = fractions(layer.weight) @ features[:-1]
        if layer.bias is not None:
            maps = maps + np.multiply.outer(fractions(layer.bias), unit[-1])
        states = bits[len(out) : len(out) + len(maps)]
        out += [(z if on else -z, on) for z, on in zip(maps, states, strict=False)]
        features = np.array(
            [*(z if on else 0 * z for z, on in zip(maps, states, strict=False)), unit[-1]], dtype=object
        )
    for k, (low, high) in enumerate(sides):
        if low is not None:
            out.append((unit[k] - low * unit[-1], False))
        if high is not None:
            out.append((high * unit[-1] - unit[k], False))
    return out
