"""A cube in a box as linear inequalities and equations, sample by sample (docs/theory.md CB14)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import flint
import numpy as np

from exan_verify.core.certificate import Row
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.cubes.absurd import contradiction
from exan_verify.decide.cubes.problem import PRECISION, Letter, Problem, Side, Sides
from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern
from exan_verify.exact.softmax import probability_bounds, rounded_up, to_ball

MAX_UNKNOWNS = 100

Times = Callable[[Array], Array]
"""From a row on [x ; 1] to a quantity times it."""

FADING = (0, 1, 2, 4, 8, 16)
"""How far loss vectors fade in the inequalities that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One sample's inequalities: ``lines`` (n, v + 1) on its v unknowns and 1, by ``names``; ``equations``
    (entries, v + 1): what it adds to the gradient; ``inputs`` (d, v + 1): its input.
    """

    lines: Array
    strict: tuple[bool, ...]
    names: tuple[tuple[int, int], ...]
    equations: Array
    inputs: Array

    @property
    def size(self) -> int:
        """v."""
        return int(self.equations.shape[1]) - 1


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The blocks of a problem, made once each."""

    problem: Problem
    made: dict[tuple[Pattern, int | None, Sides], Block] = field(default_factory=dict)
    added: dict[tuple[Pattern, int | None], Array] = field(default_factory=dict)
    systems: dict[Any, tuple[Array, Array, Array, bool | None]] = field(default_factory=dict)

    def block(self, pattern: Pattern, given: int | None, box: Sides) -> Block:
        """Of a sample in a region, with a letter's number or none, in a box."""
        key = pattern, given, box
        if key not in self.made:
            letter = None if given is None else self.problem.letters[given]
            frame = Frame(problem=self.problem, pattern=pattern, letter=letter, box=box)
            if (pattern, given) not in self.added:
                self.added[pattern, given] = frame.equations()
            lines, strict, names = frame.inequalities()
            self.made[key] = Block(
                lines=lines,
                strict=tuple(strict),
                names=tuple(names),
                equations=self.added[pattern, given],
                inputs=np.array([frame.affine(row) for row in frame.unit[:-1]], dtype=object),
            )
        return self.made[key]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One sample's unknowns: how products with its loss vector, and its input, are written in them."""

    problem: Problem
    pattern: Pattern
    letter: Letter | None
    box: Sides

    @property
    def moments(self) -> bool:
        """Whether the unknowns are the products of [x ; 1] with itself."""
        return self.problem.loss is Loss.MSE and self.letter is not None

    @property
    def products(self) -> bool:
        """Whether the products with the loss vector are unknowns."""
        return self.letter is None or not self.problem.loss.rational

    @cached_property
    def unit(self) -> Array:
        """Unit rows (d + 1, d + 1) on [x ; 1]."""
        return linalg.identity(self.problem.features + 1)

    @property
    def size(self) -> int:
        """The number of unknowns."""
        d = self.problem.features
        if self.moments:
            return (d + 1) * (d + 2) // 2 - 1
        return d + (self.problem.free * (d + 1) if self.products else 0)

    def affine(self, row: Array) -> Array:
        """``row [x ; 1]``, row (d + 1,), as a line (size + 1,) on the unknowns and 1."""
        if self.moments:
            return self.pair(row, self.unit[-1])
        out = self._zero()
        d = self.problem.features
        out[self.size - d :] = row
        return out

    def pair(self, left: Array, right: Array) -> Array:
        """``(left [x ; 1]) (right [x ; 1])``, each (d + 1,), as a line (size + 1,)."""
        width = self.problem.features + 1
        outer = np.multiply.outer(left, right)
        outer = outer + outer.T
        return np.array(
            [outer[i, j] / (2 if i == j else 1) for i in range(width) for j in range(i, width)], dtype=object
        )

    def product(self, c: int, row: Array) -> Array:
        """``g_c row [x ; 1]``, row (d + 1,), as a line (size + 1,)."""
        letter, d = self.letter, self.problem.features
        if self.moments:
            assert letter is not None
            maps = self.problem.region(self.pattern).logits[c] - letter.target[c] * self.unit[-1]
            return self.pair(2 * maps, row)
        if letter is not None and letter.vector is not None:
            share: Array = letter.vector[c] * self.affine(row)
            return share
        out = self._zero()
        for k in [c] if c < self.problem.free else range(c):
            out[k * (d + 1) : (k + 1) * (d + 1)] = row if c < self.problem.free else -row
        return out

    def equations(self) -> Array:
        """What the sample adds to every entry of the gradient, lines (entries, size + 1)."""
        problem = self.problem
        system = problem.region(self.pattern).system
        columns = [self.product(c, self.unit[k]) for c in range(problem.free) for k in range(problem.width)]
        return linalg.multiply(system, np.array(columns, dtype=object))

    def _zero(self) -> Array:
        return np.full(self.size + 1, Fraction(0), dtype=object)

    def functionals(self) -> list[tuple[int, Array, bool]]:
        """``(number, row, strict)``: what is >= 0 on the sample."""
        region, unit, d = self.problem.region(self.pattern), self.unit, self.problem.features
        out = [(0, unit[-1], True)]
        for j, (row, on) in enumerate(zip(region.states, region.active, strict=True)):
            out.append((1 + j, row if on else -row, on))
        first = 1 + len(region.active)
        for k, (low, high) in enumerate(self.box):
            if low is not None:
                out.append((first + 2 * k, unit[k] - low * unit[-1], False))
            if high is not None:
                out.append((first + 2 * k + 1, high * unit[-1] - unit[k], False))
        letter = self.letter
        if letter is not None and letter.vector is not None:
            own = letter.target.index(Fraction(1))
            for c, share in enumerate(letter.vector):
                if c != own:
                    margin = unit[-1] - region.logits[own] + region.logits[c]
                    out.append((first + 2 * d + c, margin if share > 0 else -margin, share > 0))
        return out

    def inequalities(self) -> tuple[Array, list[bool], list[tuple[int, int]]]:
        """Lines (n, size + 1), whether strict, and names."""
        functionals, problem = self.functionals(), self.problem
        lines: list[Array] = []
        strict: list[bool] = []
        names: list[tuple[int, int]] = []

        def add(line: Array, flag: bool, name: tuple[int, int]) -> None:
            """A line (size + 1,) that says something."""
            if line.any():
                lines.append(line)
                strict.append(flag)
                names.append(name)

        if self.moments:
            for a, (i, left, one) in enumerate(functionals):
                for j, right, other in functionals[a:]:
                    add(self.pair(left, right), one and other, (i + 1, j))
        else:
            for k, row, flag in functionals:
                add(self.affine(row), flag, (1, k))
        if self.products and problem.loss is not Loss.MSE:
            for line, flag, name in self._bounded(functionals):
                add(line, flag, name)
            for line, name in self._faded():
                add(line, False, name)
        return np.array(lines, dtype=object).reshape(-1, self.size + 1), strict, names

    def _bounded(
        self, functionals: Sequence[tuple[int, Array, bool]]
    ) -> Iterator[tuple[Array, bool, tuple[int, int]]]:
        """What lies between an entry of the loss vector and its bounds, times what is >= 0."""
        inputs = [self.affine(row) for _, row, _ in functionals]
        for c, (low, high, ends) in enumerate(self.bounds()):
            for (k, row, flag), own in zip(functionals, inputs, strict=True):
                shared = self.product(c, row)
                yield shared - low * own, flag and ends[0], (2 + 2 * c, k)
                yield high * own - shared, flag and ends[1], (3 + 2 * c, k)

    def _faded(self) -> Iterator[tuple[Array, tuple[int, int]]]:
        """``e^-(k + 1) - p (mu - k)`` and ``(q - p) mu`` for every pair of probabilities."""
        if self.letter is None:
            return
        first = 2 + 2 * self.problem.classes
        for number, (chance, rival, mu) in enumerate(self._chances()):
            for k in FADING:
                line = -chance(mu - k * self.unit[-1])
                line[-1] += faded(k)
                yield line, (first + 2 * number, k)
            yield rival(mu) - chance(mu), (first + 2 * number + 1, 0)

    def _chances(self) -> Iterator[tuple[Times, Times, Array]]:
        """Probabilities p and q with ``p = q e^-mu <= e^-mu``, as what they make of an affine function."""
        letter, logits, classes = self.letter, self.problem.region(self.pattern).logits, self.problem.classes
        assert letter is not None
        target = letter.target

        def of(c: int) -> Times:
            return lambda row: self.product(c, row) + target[c] * self.affine(row)

        def less(c: int) -> Times:
            return lambda row: (1 - target[c]) * self.affine(row) - self.product(c, row)

        for c in range(classes):
            if self.problem.loss is Loss.BCE:
                yield of(c), less(c), -logits[c]
                yield less(c), of(c), logits[c]
            else:
                for other in (k for k in range(classes) if k != c):
                    yield of(c), of(other), logits[other] - logits[c]

    def bounds(self) -> list[tuple[Fraction, Fraction, tuple[bool, bool]]]:
        """Of every entry of g: least, most, and whether it is never equal to them."""
        problem, letter = self.problem, self.letter
        if problem.loss is Loss.HINGE:
            most = Fraction(problem.classes - 1, problem.classes)
            return [(-most, Fraction(1, problem.classes), (False, False))] * problem.classes
        logits = problem.region(self.pattern).logits
        out = []
        with flint.ctx.workprec(PRECISION):
            for c, own in enumerate(logits):
                if problem.loss is Loss.BCE:
                    moved = [-own]
                else:
                    moved = [f - own for k, f in enumerate(logits) if k != c]
                low, high = probability_bounds([extent(row, self.box) for row in moved])
                ones = (0, 1) if letter is None else (letter.target[c],) * 2
                out.append((low - ones[1], high - ones[0], (low == 0, high == 1)))
        return out


@cache
def faded(k: int) -> Fraction:
    """A rational bound of e^-(k + 1)."""
    with flint.ctx.workprec(PRECISION):
        return rounded_up((-flint.arb(k + 1)).exp())


def extent(row: Array, sides: Sequence[Side]) -> Side:
    """The range of ``row [x ; 1]`` over a box."""
    low: Fraction | None = row[-1]
    high: Fraction | None = row[-1]
    for rate, (lo, hi) in zip(row[:-1], sides, strict=True):
        if rate:
            first, last = (lo, hi) if rate > 0 else (hi, lo)
            low = None if low is None or first is None else low + rate * first
            high = None if high is None or last is None else high + rate * last
    return low, high


@dataclass(frozen=True, kw_only=True)
class Cube:
    """Samples in regions, in order, the first of them with letters, in a box."""

    blocks: Blocks
    patterns: tuple[Pattern, ...]
    given: tuple[int, ...] = ()
    sides: Sides = ()
    spans: Mapping[int, Array] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """The question."""
        return self.blocks.problem

    @property
    def complete(self) -> bool:
        """Whether every sample has its letter."""
        return len(self.given) == len(self.patterns)

    def box(self, m: int) -> Sides:
        """The box of sample m."""
        d = self.problem.features
        return self.sides[m * d : (m + 1) * d]

    def letter(self, m: int) -> Letter | None:
        """The letter of sample m, if it has one."""
        return self.problem.letters[self.given[m]] if m < len(self.given) else None

    def in_order(self, m: int) -> bool:
        """Whether samples m and m + 1 are taken in the order of their first feature."""
        return (
            m + 1 < len(self.given)
            and self.patterns[m] == self.patterns[m + 1]
            and self.given[m] == self.given[m + 1]
        )

    def labelled(self) -> list[Cube]:
        """One part for each letter of the next sample; samples of one region have theirs in order."""
        m = len(self.given)
        first = self.given[-1] if m and self.patterns[m - 1] == self.patterns[m] else 0
        chosen = [(*self.given, k) for k in range(first, len(self.problem.letters))]
        return [replace(self, given=given) for given in chosen if self.problem.admitted(given)]

    def cut(self, axis: int, at: Fraction) -> tuple[Cube, Cube]:
        """The parts at most and at least ``at``."""
        low, high = self.sides[axis]
        parts = ((*self.sides[:axis], side, *self.sides[axis + 1 :]) for side in ((low, at), (at, high)))
        below, above = (replace(self, sides=sides).narrowed(axis // self.problem.features) for sides in parts)
        return below, above

    def narrowed(self, m: int) -> Cube:
        """Sides of a sample in a span as its rows, one after the other, tell them by the other sides."""
        if m not in self.spans:
            return self
        box = list(self.box(m))
        for row in self.spans[m]:
            for k in np.flatnonzero(row[:-1]):
                others = -row / row[k]
                others[k] = Fraction(0)
                lows, highs = zip(extent(others, box), box[k], strict=True)
                low, high = ([v for v in ends if v is not None] for ends in (lows, highs))
                box[k] = max(low, default=None), min(high, default=None)
        d = self.problem.features
        return replace(self, sides=(*self.sides[: m * d], *box, *self.sides[(m + 1) * d :]))

    def at(self, samples: Sequence[int], x: Sequence[Fraction]) -> Cube:
        """The cube with samples at one input."""
        sides, d = list(self.sides), self.problem.features
        for m in samples:
            sides[m * d : (m + 1) * d] = [(v, v) for v in x]
        return replace(self, sides=tuple(sides))

    def within(self, samples: Sequence[int], rows: Array) -> Cube:
        """The cube with samples on which rows (n, d + 1) on [x ; 1] are zero."""
        cube = self
        for m in samples:
            cube = replace(cube, spans={**cube.spans, m: rows}).narrowed(m)
        return cube

    def straight(self) -> Iterator[tuple[int, Array]]:
        """Samples in a span, with the rows that are zero there."""
        for m, rows in self.spans.items():
            for row in rows:
                yield m, row

    def absurd(self) -> tuple[list[Row] | None, tuple[Array, Array] | None]:
        """Inequalities that are absurd together; or None and inputs (samples, d) that satisfy them all in
        floating point with how far each sample's products are from its own, None where there are too many
        unknowns or the program was not solved.
        """
        parts = [
            self.blocks.block(p, self.given[m] if m < len(self.given) else None, self.box(m))
            for m, p in enumerate(self.patterns)
        ]
        starts = np.cumsum([0, *(part.size for part in parts)])
        if starts[-1] > MAX_UNKNOWNS:
            return None, None
        equations, shares, floats, determined = self._equations(parts, starts)
        if determined is not None:
            return ([], None) if determined else (None, None)
        lines = self._wide([part.lines for part in parts], starts)
        strict = [flag for part in parts for flag in part.strict]
        names: list[Row] = [(m, kind, k) for m, part in enumerate(parts) for kind, k in part.names]
        for m in range(len(parts) - 1):
            if self.in_order(m):
                line = np.full((1, starts[-1] + 1), Fraction(0), dtype=object)
                for sign, n in ((-1, m), (1, m + 1)):
                    line[0, starts[n] : starts[n + 1]] += sign * parts[n].inputs[0, :-1]
                lines = np.concatenate([lines, line])
                strict.append(False)
                names.append((m, 0, 0))

        def constant(z: Sequence[Fraction], affine: Fraction) -> Any:
            found = self.problem.value(list(-(np.array(z, dtype=object) @ shares)))
            return found + (affine if isinstance(found, Fraction) else to_ball(affine))

        chosen, point = contradiction(lines, strict, equations, floats, constant)
        if chosen is not None:
            return [names[k] for k in chosen], None
        if point is None:
            return None, None
        inputs, gaps = [], []
        for m, (part, a, b) in enumerate(zip(parts, starts[:-1], starts[1:], strict=True)):
            here = point[a:b]
            x = part.inputs[:, :-1].astype(np.float64) @ here + part.inputs[:, -1].astype(np.float64)
            inputs.append(x)
            gaps.append(self._gap(m, here, x))
        return None, (np.array(inputs), np.array(gaps))

    def _equations(self, parts: Sequence[Block], starts: Array) -> tuple[Array, Array, Array, bool | None]:
        """Independent equations, their right sides exactly and in floating point; and, where they have no
        unknowns left to solve for, whether they contradict each other. The same for every box.
        """
        key = self.patterns, self.given, tuple(self.spans)
        if key in self.blocks.systems:
            return self.blocks.systems[key]
        equations = self._wide([part.equations for part in parts], starts, add=True)
        shares, floats = self.problem.right[0], self.problem.floats
        for m, row in self.straight():
            frame = Frame(
                problem=self.problem, pattern=self.patterns[m], letter=self.letter(m), box=self.box(m)
            )
            if frame.moments:
                added = [frame.pair(row, other) for other in frame.unit]
            else:
                added = [frame.affine(row)]
                if frame.products:
                    added += [frame.product(c, row) for c in range(self.problem.free)]
            wide = np.full((len(added), starts[-1] + 1), Fraction(0), dtype=object)
            lines = np.array(added, dtype=object)
            wide[:, starts[m] : starts[m + 1]], wide[:, -1] = lines[:, :-1], lines[:, -1]
            equations = np.concatenate([equations, wide])
            shares = np.concatenate(
                [shares, np.full((len(added), shares.shape[1]), Fraction(0), dtype=object)]
            )
            floats = np.append(floats, np.zeros(len(added)))
        if self.problem.loss.rational:  # constants are on the right side, so that equal ones are seen
            shares, floats = shares - equations[:, -1:], floats - equations[:, -1].astype(np.float64)
            equations[:, -1] = Fraction(0)
        kept = linalg.pivots(np.concatenate([equations, shares], axis=1).T)
        equations, shares, floats = equations[kept], shares[kept], floats[kept]
        independent = linalg.pivots(equations[:, :-1].T)
        determined = self._overdetermined(equations, shares) if len(independent) < len(equations) else None
        self.blocks.systems[key] = equations, shares, floats, determined
        return self.blocks.systems[key]

    def _gap(self, m: int, here: Array, x: Array) -> float:
        """How much the products at a point of the linear program are not those of its input."""
        problem, letter, d = self.problem, self.letter(m), self.problem.features
        extended = np.append(x, 1.0)
        if letter is None or letter.vector is not None:
            return 0.0
        if problem.loss is Loss.MSE:
            products = np.outer(extended, extended)[np.triu_indices(d + 1)][:-1]
            return float(np.abs(here - products).max(initial=0.0))
        logits = problem.region(self.patterns[m]).logits.astype(np.float64) @ extended
        with np.errstate(over="ignore"):
            if problem.loss is Loss.BCE:
                chances = 1 / (1 + np.exp(-logits))
            else:
                chances = np.exp(logits - logits.max())
                chances /= chances.sum()
        g = (chances - np.array(letter.target, dtype=np.float64))[: problem.free]
        told = here[: problem.free * (d + 1)].reshape(problem.free, d + 1)
        return float(np.abs(told - np.outer(g, extended)).max(initial=0.0))

    def _wide(self, blocks: Sequence[Array], starts: Array, *, add: bool = False) -> Array:
        """Blocks beside each other: one below the other, or added."""
        rows = []
        for block, a, b in zip(blocks, starts[:-1], starts[1:], strict=True):
            wide = np.full((len(block), starts[-1] + 1), Fraction(0), dtype=object)
            wide[:, a:b], wide[:, -1] = block[:, :-1], block[:, -1]
            rows.append(wide)
        return sum(rows[1:], rows[0]) if add else np.concatenate(rows)

    def _overdetermined(self, equations: Array, shares: Array) -> bool:
        tests = linalg.nullspace(equations[:, :-1].T).T
        for z in tests:
            affine = sum((w * c for w, c in zip(z, equations[:, -1], strict=True)), Fraction(0))
            found = self.problem.value(z @ shares)
            if isinstance(found, Fraction):
                if found != affine:
                    return True
            elif not (found - to_ball(affine)).contains(0):
                return True
        return False
