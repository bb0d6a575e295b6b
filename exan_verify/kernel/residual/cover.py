"""Re-runs a recorded cover of Q-space for cross_entropy and bce with real balls (docs/theory.md S5).

Of the evidence only the way of cutting is used. The starting box is proved from ``H_{L-1}^T q >= 0`` (or from
a box of inputs) with the named constraints; every leaf is judged here: no zero of the system in it, or just
one, a known one. A zero is a row of Q that a sample of another batch could have (membership), or the whole of
Q (joint).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import permutations
from typing import Any

import flint
import numpy as np

from exan_verify.core.certificate import CoverArgument
from exan_verify.core.network import Array, to_fraction
from exan_verify.core.question import Loss
from exan_verify.exact.linalg import solve
from exan_verify.exact.softmax import loss_vectors_ball, to_ball
from exan_verify.kernel.given import require
from exan_verify.kernel.labels import Label, label_array
from exan_verify.kernel.probabilities import Probabilities
from exan_verify.kernel.residual.parts import Part

PRECISION = 128
GRID = 1 << 20
MAX_LEAVES = 12_000
"""Twice as many boxes as the engine makes: about three milliseconds each in six dimensions."""
MAX_COORDINATES = 12
AXES = "0123456789"

Interval = tuple[Fraction, Fraction]
Vector = list[Any]


def check_cover(argument: CoverArgument, part: Part) -> None:
    """Every zero of the output system in the admitted part of Q-space is a known one."""
    require(
        part.subject.question.loss in (Loss.CROSS_ENTROPY, Loss.BCE), "covers are for softmax and sigmoid"
    )
    require(part.subject.network.has_bias, "without biases Q-space is not bounded")
    require(sum(map(len, argument.trees)) <= MAX_LEAVES, "the cover is too large")
    row = _row_box(argument, part)
    with flint.ctx.workprec(PRECISION):
        if argument.kind == "membership":
            _check_membership(argument, part, row)
        else:
            _check_joint(argument, part, row)


def _check_membership(argument: CoverArgument, part: Part, row: list[Interval]) -> None:
    head, letters = _Head(part=part), part.letters()
    require(len(argument.trees) == len(letters), "a label has no tree")
    normals = head.normals
    for letter, tree in zip(letters, argument.trees, strict=True):
        known = [_unit(m, head.size) for m, own in enumerate(part.labels) if own == letter]
        _walk(_Membership(head=head, normals=normals, target=head.target(letter)), row, known, tree)


def _check_joint(argument: CoverArgument, part: Part, row: list[Interval]) -> None:
    head, multisets = _Head(part=part), part.multisets()
    require(len(argument.trees) == len(multisets), "a label multiset has no tree")
    for labels, tree in zip(multisets, argument.trees, strict=True):
        known = [
            [v for m in order for v in _unit(m, head.size)]
            for order in permutations(range(head.size))
            if [part.labels[m] for m in order] == labels
        ]
        system = _Joint(head=head, targets=[head.target(label) for label in labels])
        _walk(system, row * head.size, known, tree)


def _row_box(argument: CoverArgument, part: Part) -> list[Interval]:
    """The box of a row's coordinates, every side proved by non-negative multipliers."""
    rows = _constraints(part)
    size = len(part.members)
    require(len(argument.bounds) == size - 1, "the bounds do not fit the number of samples")
    own = size - 1 if argument.kind == "membership" else size * (size - 1)
    require(own <= MAX_COORDINATES, "the cover has too many dimensions")
    out = []
    for k, (below, above) in enumerate(argument.bounds):
        low, high = -_implied(rows, below, k, 1), _implied(rows, above, k, -1)
        require(low <= high, "the bounds are upside down")
        out.append((Fraction((low * GRID).__floor__(), GRID), Fraction((high * GRID).__ceil__(), GRID)))
    return out


def _constraints(part: Part) -> Array:
    """Rows of ``v . q >= 0`` for q with ``q . 1 = 1``, over the members: the last hidden layer's activations
    are not negative and, where a box bounds the inputs, not above what they reach over it.
    """
    network, domain = part.subject.network, part.subject.question.domain
    depth = network.depth
    values = part.features(depth - 1).fractions()
    # q . 1 = 1 says all of a row of one entry
    if len(part.members) == 1 or (depth > 1 and domain is None):
        return values
    require(domain is not None, "nothing bounds the features")
    assert domain is not None
    sides = [
        (to_fraction(low), to_fraction(high))
        for low, high in zip(*domain.bounds(network.widths[0]), strict=True)
    ]
    for layer in network.layers[:-1]:
        assert layer.bias is not None
        sides = [_activation(row, bias, sides) for row, bias in zip(layer.weight, layer.bias, strict=True)]
    lowest, highest = (np.array(ends, dtype=object).reshape(-1, 1) for ends in zip(*sides, strict=True))
    return np.concatenate([values - (0 if depth > 1 else lowest), highest - values])


def _activation(row: Array, bias: Any, sides: list[Interval]) -> Interval:
    """Where max(row . h + bias, 0) lies when the entries of h lie in their intervals."""
    low = high = to_fraction(bias)
    for weight, (below, above) in zip(map(to_fraction, row), sides, strict=True):
        low += weight * (below if weight > 0 else above)
        high += weight * (above if weight > 0 else below)
    return max(low, Fraction(0)), max(high, Fraction(0))


def _implied(rows: Array, chosen: tuple[int, ...], axis: int, sign: int) -> Fraction:
    """b with ``sign a_axis + b >= 0``: from ``alpha + beta . a >= 0`` with multipliers y >= 0."""
    require(len(set(chosen)) == len(chosen) > 0, "a bound has no constraints, or one twice")
    require(len(chosen) < rows.shape[1], "a bound has more constraints than coordinates")
    require(all(0 <= j < len(rows) for j in chosen), "a bound names a constraint that does not exist")
    part = rows[list(chosen)]
    slopes = (part[:, 1:] - part[:, :1]).T
    goal = np.array([[Fraction(sign * (k == axis))] for k in range(len(slopes))], dtype=object)
    multipliers = solve(slopes, goal)
    if multipliers is None or np.any(multipliers < 0):
        require(False, "the named constraints do not prove the bound")
        return Fraction(0)
    total: Fraction = (part[:, 0] @ multipliers)[0]
    return total


def _walk(system: _Membership | _Joint, box: list[Interval], known: list[list[Fraction]], tree: str) -> None:
    """Follow the tree in preorder; every leaf must hold."""
    stack = [box]
    for letter in tree:
        require(len(stack) > 0, "the tree goes on after its last box")
        current = stack.pop()
        inside = [p for p in known if all(lo <= v <= hi for v, (lo, hi) in zip(p, current, strict=True))]
        if letter == "x":
            require(not inside, "a box with a known zero is called empty")
            require(_empty(system, current), "a box is not shown to be free of zeros")
        elif letter == "k":
            require(len(inside) == 1, "a box does not hold exactly one known zero")
            require(_injective(system, current), "the system is not shown to be injective on a box")
        else:
            require(letter in AXES[: len(current)], "the tree has a letter out of range")
            axis = int(letter)
            lo, hi = current[axis]
            middle = (lo + hi) / 2
            stack += [[*current[:axis], half, *current[axis + 1 :]] for half in ((middle, hi), (lo, middle))]
    require(not stack, "the tree ends before its last box")


def _empty(system: _Membership | _Joint, box: list[Interval]) -> bool:
    """A component, or a mean value form, raw or preconditioned, misses zero."""
    values, slopes = system.over([_hull(*side) for side in box])
    if any(not v.contains(0) for v in values):
        return True
    if not box or not all(s.is_finite() for row in slopes for s in row):
        return False
    centre = [(lo + hi) / 2 for lo, hi in box]
    moves = [_hull(lo - c, hi - c) for (lo, hi), c in zip(box, centre, strict=True)]
    middle, _ = system.over([to_ball(c) for c in centre])
    if any(not (v + _sum(row, moves)).contains(0) for v, row in zip(middle, slopes, strict=True)):
        return True
    for weights in _approximate_inverse(slopes):
        change = [_sum(weights, column) for column in zip(*slopes, strict=True)]
        if not (_sum(weights, middle) + _sum(change, moves)).contains(0):
            return True
    return False


def _injective(system: _Membership | _Joint, box: list[Interval]) -> bool:
    """``|I - C J| < 1`` in the row-sum norm over the box, for some matrix C."""
    if not box:
        return True
    _, slopes = system.over([_hull(*side) for side in box])
    if not all(s.is_finite() for row in slopes for s in row):
        return False
    for i, weights in enumerate(_approximate_inverse(slopes)):
        columns = zip(*slopes, strict=True)
        distance = sum((abs(_sum(weights, c) - int(i == j)) for j, c in enumerate(columns)), flint.arb(0))
        if not distance < 1:
            return False
    return True


def _approximate_inverse(slopes: list[Vector]) -> list[Vector]:
    centres = np.array([[float(s.mid()) for s in row] for row in slopes])
    return [[flint.arb(float(v)) for v in row] for row in np.linalg.pinv(centres)]


@dataclass(frozen=True, kw_only=True)
class _Head:
    """The members' loss vectors (reduction sum), and those at any row of Q."""

    part: Part

    @property
    def size(self) -> int:
        return len(self.part.members)

    @property
    def classes(self) -> int:
        return self.part.subject.network.classes

    @cached_property
    def own(self) -> Any:
        """G as an ``arb_mat`` (K, r)."""
        question = self.part.subject.question
        labels = label_array(self.part.labels, self.part.subject.question.loss)
        return loss_vectors_ball(question.loss, self.part.logits.T, labels, 1, PRECISION)

    @cached_property
    def normals(self) -> list[Vector]:
        """Rows that annihilate G: for the first r rows with a certain inverse, e_c - G_c G_top^-1."""
        magnitudes = np.array(
            [[float(self.own[c, m].mid()) for m in range(self.size)] for c in range(self.classes)]
        )
        top = _independent_rows(magnitudes)
        square = flint.arb_mat(self.size, self.size, [self.own[c, m] for c in top for m in range(self.size)])
        try:
            inverse = square.inv()
        except ZeroDivisionError:
            require(False, "the loss vectors are not shown to be independent")
        out = []
        for c in range(self.classes):
            if c in top:
                continue
            row = [flint.arb(int(k == c)) for k in range(self.classes)]
            for i, place in enumerate(top):
                row[place] = -_sum(
                    [self.own[c, m] for m in range(self.size)], [inverse[m, i] for m in range(self.size)]
                )
            out.append(row)
        return out

    def target(self, label: Label) -> list[int]:
        """The 0/1 target of a label."""
        if self.part.subject.question.loss is Loss.BCE:
            return [int(v) for v in label]
        return [int(c == label[0]) for c in range(self.classes)]

    @cached_property
    def _probabilities(self) -> Probabilities:
        """Of ``F^T q`` in the coordinates of a row q = (1 - sum a, a): f_0 + sum_k a_k (f_k - f_0)."""
        first, others = self.part.logits[0], self.part.logits[1:]
        maps = np.concatenate([(others - first).T, first.reshape(-1, 1)], axis=1)
        return Probabilities(loss=self.part.subject.question.loss, maps=maps)

    def at(self, a: Vector, target: list[int]) -> tuple[Vector, list[Vector]]:
        """g' and its slopes over a box of rows."""
        found, slopes = self._probabilities.at(a)
        return [p - t for p, t in zip(found, target, strict=True)], slopes


@dataclass(frozen=True, kw_only=True)
class _Membership:
    """``N g(F^T q, y') = 0``."""

    head: _Head
    normals: list[Vector]
    target: list[int]

    def over(self, box: Vector) -> tuple[Vector, list[Vector]]:
        values, slopes = self.head.at(box, self.target)
        columns = [[row[k] for row in slopes] for k in range(len(box))]
        return (
            [_sum(normal, values) for normal in self.normals],
            [[_sum(normal, column) for column in columns] for normal in self.normals],
        )


@dataclass(frozen=True, kw_only=True)
class _Joint:
    """``sum_m g'_m = sum_m g_m`` and, for k >= 2, ``sum_m Q_mk g'_m = g_k``."""

    head: _Head
    targets: list[list[int]]

    def over(self, box: Vector) -> tuple[Vector, list[Vector]]:
        size, width = len(self.targets), self.head.size - 1
        rows = [box[m * width : (m + 1) * width] for m in range(size)]
        parts = [self.head.at(row, target) for row, target in zip(rows, self.targets, strict=True)]
        values: Vector = []
        slopes: list[Vector] = []
        own = self.head.own
        for c in range(self.head.classes):
            values.append(_total([g[c] for g, _ in parts]) - _total([own[c, m] for m in range(size)]))
            slopes.append([s for _, d in parts for s in d[c]])
            for k in range(width):
                weighted = [row[k] * g[c] for row, (g, _) in zip(rows, parts, strict=True)]
                values.append(_total(weighted) - own[c, k + 1])
                slopes.append(
                    [
                        row[k] * s + (g[c] if j == k else 0)
                        for row, (g, d) in zip(rows, parts, strict=True)
                        for j, s in enumerate(d[c])
                    ]
                )
        return values, slopes


def _independent_rows(matrix: Array) -> list[int]:
    """Rows that a greedy elimination picks; whether they are independent is shown by their inverse."""
    rest: Any = matrix.astype(np.float64)
    chosen: list[int] = []
    for _ in range(matrix.shape[1]):
        lengths = (rest**2).sum(axis=1)
        lengths[chosen] = -1.0
        best = int(np.argmax(lengths))
        chosen.append(best)
        if lengths[best] > 0:
            rest = rest - np.outer(rest @ rest[best], rest[best]) / lengths[best]
    return sorted(chosen)


def _unit(m: int, size: int) -> list[Fraction]:
    return [Fraction(k == m) for k in range(1, size)]


def _hull(lo: Fraction, hi: Fraction) -> Any:
    return to_ball(lo).union(to_ball(hi))


def _sum(left: Any, right: Any) -> Any:
    return _total([x * y for x, y in zip(left, right, strict=True)])


def _total(values: Vector) -> Any:
    return sum(values, flint.arb(0))
