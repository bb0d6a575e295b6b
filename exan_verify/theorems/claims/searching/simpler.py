"""Simpler numbers for a reader: of any array, and of a second batch that is known already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Array, Batch, to_fraction
from exan_verify.core.question import Labels
from exan_verify.theorems.replay import Replay, replay
from exan_verify.theorems.statement import Example

MAX_REPLAYS = 200
"""Of simpler second batches: some milliseconds each."""

PARTS = [Fraction(1, n) for n in (2, 4, 8, 16)]


def simpler(value: Fraction) -> list[Fraction]:
    """0, 1, -1, then nearby numbers with small denominators; none when the number is simple already."""
    if value == 0:
        return []
    near = [value.limit_denominator(d) for d in (1, 2, 4, 16)]
    halves = [Fraction(int(value / 2))]
    wanted = [Fraction(0), Fraction(1), Fraction(-1), *near, *halves, abs(value)]
    return [v for v in dict.fromkeys(wanted) if weight(v) < weight(value)]


def weight(value: Fraction) -> tuple[bool, int, bool]:
    """How much there is to read."""
    return value != 0, value.denominator.bit_length() + abs(value.numerator).bit_length(), value < 0


def with_simpler_second(example: Example, replayed: Replay) -> tuple[Example, Replay]:
    """The example with a second batch of smaller numbers, as far as greedy steps lead: single numbers, and
    points of the line through both batches, on which a linear family stays. Each is replayed exactly, by the
    gradients and the kernel, before it is taken.
    """
    left = MAX_REPLAYS
    while True:
        for second in _candidates(example):
            if not left:
                return example, replayed
            left -= 1
            changed = replace(example, second=second)
            found = replay(changed)
            if found.confirmed:
                example, replayed = changed, found
                break
        else:
            return example, replayed


def _candidates(example: Example) -> Iterator[Batch]:
    """Other second batches with less to read, those with least first."""
    first, second, question = example.batch, example.second, example.question
    if second is None or first.inputs.shape != second.inputs.shape:
        return
    own, x = fractions(first.inputs), fractions(second.inputs)
    # labels other than real ones are no points of a line
    along = question.labels is Labels.REAL and first.labels.shape == second.labels.shape
    labels = second.labels
    found: list[tuple[Array, Array]] = []
    for index, value in np.ndenumerate(x):
        for v in dict.fromkeys([own[index], *simpler(to_fraction(value))]):
            changed = x.copy()
            changed[index] = v
            found.append((changed, labels))
    shares = dict.fromkeys(PARTS)
    for a, b in zip(own.reshape(-1), x.reshape(-1), strict=True):
        if a != b:
            steps = (*range(-3, 4), a - 1, a + 1, a - Fraction(1, 2), a + Fraction(1, 2))
            shares |= dict.fromkeys(Fraction(v - a) / (b - a) for v in steps)
    for share in shares:
        point = own + share * (x - own)
        target = fractions(first.labels) if along else labels
        found.append((point, target + share * (fractions(labels) - target) if along else labels))
    size, taken = _size(x, labels), Counter(zip(first.x, first.y, strict=True))
    for inputs, target in sorted(found, key=lambda pair: _size(*pair)):
        if _size(inputs, target) >= size:
            return
        batch = Batch.of(inputs, target, network=example.network, loss=question.loss, labels=question.labels)
        inside = question.domain is None or question.domain.contains(batch)
        if inside and Counter(zip(batch.x, batch.y, strict=True)) != taken:
            yield batch


def _size(x: Array, labels: Array) -> tuple[int, int]:
    """Digits of all numbers, then how many are not 0."""
    values = [to_fraction(v) for array in (x, labels) for v in array.reshape(-1)]
    return sum(weight(v)[1] + weight(v)[2] for v in values), sum(v != 0 for v in values)
