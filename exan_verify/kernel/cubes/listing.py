"""Which joint patterns an input can have, and which multisets of them can have the gradient.

The patterns are a tree over the states of the neurons, one after the other. A prefix of states is a set of
linear inequalities of one input, and is left out where the certificate names some of them that contradict
each other (Farkas); whatever is not contradicted is gone through. Of the multisets those are left out that no
sums over their regions can give the gradient (docs/theory.md CB1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations_with_replacement
from math import comb, lcm
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Array, ReluNetwork, to_fraction
from exan_verify.core.question import Box, Loss, Question
from exan_verify.exact import linalg
from exan_verify.exact.algebraic import Element
from exan_verify.exact.lp import vanishing
from exan_verify.exact.regions import Pattern, Region, region_of
from exan_verify.exact.softmax import loss_vectors_ball, to_ball
from exan_verify.kernel.algebraic import loss_vector, value_of
from exan_verify.kernel.cubes.members import Members
from exan_verify.kernel.given import require
from exan_verify.kernel.labels import Label

PRECISION = 256
"""Bits of all balls."""
MAX_NEURONS = 64
MAX_PATTERNS = 300
"""Joint patterns of one input: twice as many as the engine goes on with."""
MAX_MULTISETS = 40_000
"""Multisets of patterns, half a millisecond each."""
MAX_ENTRIES = 1 << 11
"""Entries of the gradient."""

Side = tuple[Fraction | None, Fraction | None]
"""An interval of a coordinate; None is infinite."""


def domain_sides(features: int, domain: Box | None) -> tuple[Side, ...]:
    """The domain's interval of every feature; all of R without a domain."""
    if domain is None:
        return ((None, None),) * features
    return tuple(
        (to_fraction(low), to_fraction(high)) for low, high in zip(*domain.bounds(features), strict=True)
    )


def listed_patterns(
    tree: Sequence[tuple[int, ...] | None], network: ReluNetwork, domain: Box | None
) -> list[Pattern]:
    """The joint patterns that the tree leaves, in its order; every other one is contradictory."""
    widths = network.widths[1:-1]
    require(sum(widths) <= MAX_NEURONS, f"more than {MAX_NEURONS} hidden neurons")
    walls = _walls(domain_sides(network.widths[0], domain))
    found: list[Pattern] = []
    stack: list[tuple[bool, ...]] = [()]
    for named in tree:
        require(len(stack) > 0, "the tree of patterns goes on after its last prefix")
        bits = stack.pop()
        if named is not None:
            rows = [*_states(network, bits), *walls]
            require(len(named) > 0, "nothing contradicts a prefix of states")
            require(max(named) < len(rows), "a prefix has no such inequality")
            require(_contradict([rows[k] for k in named]), "the inequalities of a prefix do not contradict")
        elif len(bits) < sum(widths):
            stack += [(*bits, True), (*bits, False)]
        else:
            found.append(_shaped(bits, widths))
        require(len(found) + len(stack) <= MAX_PATTERNS, f"more than {MAX_PATTERNS} joint patterns")
    require(not stack, "the tree of patterns ends before its last prefix")
    return found


Inequality = tuple[Array, bool]
"""``row [x ; 1] >= 0``, or > 0 where the second part is True."""


def _states(network: ReluNetwork, bits: Sequence[bool]) -> list[Inequality]:
    """What the first neurons' states say of an input: z > 0 where they are on, -z >= 0 where off."""
    out: list[Inequality] = []
    below = linalg.identity(network.widths[0] + 1)
    for layer in network.layers[:-1]:
        here = bits[len(out) : len(out) + layer.shape[0]]
        if not here:
            break
        bias = np.zeros(layer.shape[0], dtype=int) if layer.bias is None else layer.bias
        whole = np.concatenate([fractions(layer.weight), fractions(bias).reshape(-1, 1)], axis=1)
        z = linalg.multiply(whole, below)
        out += [(row if on else -row, on) for row, on in zip(z, here, strict=False)]
        kept = [row if on else 0 * row for row, on in zip(z, here, strict=False)]
        below = np.array([*kept, linalg.identity(z.shape[1])[-1]], dtype=object)
    return out


def _walls(sides: Sequence[Side]) -> list[Inequality]:
    out: list[Inequality] = []
    for k, (low, high) in enumerate(sides):
        unit = linalg.identity(len(sides) + 1)
        if low is not None:
            out.append((unit[k] - low * unit[-1], False))
        if high is not None:
            out.append((high * unit[-1] - unit[k], False))
    return out


def _contradict(inequalities: Sequence[Inequality]) -> bool:
    rows = np.array([row for row, _ in inequalities], dtype=object)
    found = vanishing(rows[:, :-1], np.empty((0, rows.shape[1] - 1), dtype=object))
    if found is None:
        return False
    total = sum((y * c for y, c in zip(found[0], rows[:, -1], strict=True)), Fraction(0))
    return total < 0 or (total == 0 and any(strict for _, strict in inequalities))


def _shaped(bits: Sequence[bool], widths: Sequence[int]) -> Pattern:
    flat = iter(bits)
    return tuple(tuple(next(flat) for _ in range(width)) for width in widths)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """The regions of a question by pattern, and what the members add to the gradient (reduction sum)."""

    members: Members

    @property
    def network(self) -> ReluNetwork:
        """The network."""
        return self.members.network

    @property
    def question(self) -> Question:
        """The question."""
        return self.members.question

    @cached_property
    def _made(self) -> dict[Pattern, Region]:
        return {}

    def region(self, pattern: Pattern) -> Region:
        """The region of a joint pattern."""
        if pattern not in self._made:
            zero_sum = self.question.loss.zero_sum
            self._made[pattern] = region_of(self.network, pattern, zero_sum=zero_sum)
        return self._made[pattern]

    @property
    def own(self) -> tuple[Pattern, ...]:
        """The members' patterns."""
        return self.members.patterns

    @cached_property
    def memory(self) -> dict[Any, Any]:
        """What several boxes need, computed once."""
        return {}

    @property
    def free(self) -> int:
        """Entries of a loss vector that are unknowns: the last one follows where they sum to zero."""
        return self.network.classes - self.question.loss.zero_sum

    @cached_property
    def _terms(self) -> tuple[list[Any], Array]:
        members, loss = self.members, self.question.loss
        everyone = range(len(members.inputs))
        width = self.network.widths[0] + self.network.has_bias
        systems = [self.region(p).system.reshape(-1, self.free, width) for p in self.own]
        if loss.rational:
            return [Fraction(1)], self._summed(systems).reshape(-1, 1)
        logits, labels = members.rational_logits(everyone), members.labels_of(everyone)
        points = [np.array([*x, Fraction(1)][:width], dtype=object) for x in members.points(everyone)]
        blocks = [system @ point for system, point in zip(systems, points, strict=True)]
        found = loss_vectors_ball(loss, logits, labels, 1, PRECISION)
        kept: dict[Any, Array] = {}  # equal loss vectors are one
        vectors: list[Any] = []
        for m, block in enumerate(blocks):
            key = tuple(logits[:, m]), members.labels[m]
            if key in kept:
                kept[key] = kept[key] + block
            else:
                kept[key] = block
                vectors += [found[c, m] for c in range(self.free)]
        return vectors, np.concatenate(list(kept.values()), axis=1)

    def _summed(self, systems: Sequence[Array]) -> Array:
        """What the members add under a rational loss, (entries,): rational, whatever their numbers are."""
        members, field = self.members, self.members.field
        totals: list[Element] = [{} for _ in systems[0]]
        for m, system in enumerate(systems):
            target = [
                field.constant(v)
                for v in target_of(members.labels[m], self.question.loss, self.network.classes)
            ]
            vector = loss_vector(field, self.question.loss, members.logits[m], target)
            point = [*members.inputs[m], field.constant(Fraction(1))]
            for c, k in np.ndindex(system.shape[1:]):
                share = field.times(vector[c], point[k])
                for e in np.flatnonzero(system[:, c, k]):
                    totals[e] = field.plus(totals[e], share, system[e, c, k])
        return np.array([value_of(total) for total in totals], dtype=object)

    @property
    def vectors(self) -> list[Any]:
        """What the members' gradient is written in: the free entries of their different loss vectors, as
        balls; the number 1 alone where these are rational.
        """
        return self._terms[0]

    @property
    def shares(self) -> Array:
        """(entries, vectors): the members' gradient is ``shares @ vectors``."""
        return self._terms[1]

    def value(self, weights: Sequence[Any]) -> Any:
        """``weights . vectors``: a Fraction where it is rational or no vector has a weight, else a ball."""
        if self.question.loss.rational or not any(weights):
            return sum((w * v for w, v in zip(weights, self.vectors, strict=True) if w), Fraction(0))
        with flint.ctx.workprec(PRECISION):
            return sum(
                (to_ball(w) * v for w, v in zip(weights, self.vectors, strict=True) if w), flint.arb(0)
            )

    def is_other_than_zero(self, weights: Sequence[Any]) -> bool:
        """Whether ``weights . vectors`` is shown not to be zero."""
        total = self.value(weights)
        return bool(total) if isinstance(total, Fraction) else not total.contains(0)

    def reachable(self, patterns: Sequence[Pattern]) -> bool:
        """Whether it is left open that sums over these regions give the members' gradient (CB1)."""
        key = frozenset(patterns)
        if key not in self._reached:
            self._reached[key] = self._served(key) and self._spanned(sorted(key))
        return self._reached[key]

    @cached_property
    def _reached(self) -> dict[frozenset[Pattern], bool]:
        return {}

    @cached_property
    def _needed(self) -> list[int]:
        """Entries of the gradient that are not zero."""
        return [e for e, row in enumerate(self.shares) if self.is_other_than_zero(row)]

    @cached_property
    def _serving(self) -> dict[Pattern, frozenset[int]]:
        return {}

    def _served(self, patterns: frozenset[Pattern]) -> bool:
        """Whether every entry that is not zero is seen by some region."""
        seen: set[int] = set()
        for p in patterns:
            if p not in self._serving:
                system = self.region(p).system
                self._serving[p] = frozenset(e for e in self._needed if system[e].any())
            seen |= self._serving[p]
        return len(seen) == len(self._needed)

    def _spanned(self, patterns: Sequence[Pattern]) -> bool:
        """No rational y with ``y L = 0`` for all the regions and ``y G`` other than zero is found."""
        entries = len(self.shares)
        columns = [v for p in patterns for v in self._columns(p)]
        tests, count = flint.fmpz_mat(len(columns) // entries, entries, columns).nullspace()
        found = self._integer_shares * tests
        weights = [[found[i, k] for i in range(found.nrows())] for k in range(count)]
        return not any(self.is_other_than_zero([Fraction(int(w)) for w in row]) for row in weights)

    @cached_property
    def _integer_columns(self) -> dict[Pattern, list[int]]:
        return {}

    def _columns(self, pattern: Pattern) -> list[int]:
        if pattern not in self._integer_columns:
            self._integer_columns[pattern] = _integers(self.region(pattern).system.T)
        return self._integer_columns[pattern]

    @cached_property
    def _integer_shares(self) -> Any:
        return flint.fmpz_mat(*self.shares.T.shape, _integers(self.shares.T))


def target_of(label: Label, loss: Loss, classes: int) -> tuple[Fraction, ...]:
    """A label as a target vector."""
    return tuple(Fraction(c == label[0]) for c in range(classes)) if loss.class_labels else label


def _integers(matrix: Array) -> list[int]:
    """The entries, row by row, times one number that makes them integers."""
    scale = lcm(1, *(v.denominator for v in matrix.reshape(-1)))
    return [int(v * scale) for v in matrix.reshape(-1)]


def multisets(sums: Sums, patterns: Sequence[Pattern]) -> Iterator[tuple[Pattern, ...]]:
    """The multisets of patterns, as many as members, that the gradient leaves, in order."""
    size = len(sums.members.inputs)
    require(len(sums.shares) <= MAX_ENTRIES, "cubes are for small networks")
    count = comb(len(patterns) + size - 1, size)
    require(count <= MAX_MULTISETS, f"{count} multisets of patterns are too many to go through")
    for chosen in combinations_with_replacement(patterns, size):
        if sums.reachable(chosen):
            yield chosen
