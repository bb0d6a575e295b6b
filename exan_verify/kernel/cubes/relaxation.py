"""The linear inequalities that the samples of a cube satisfy in a box, and when some of them are absurd.

Unknowns are, of each sample, its input x and the products ``g [x ; 1]^T`` of its loss vector, in which the
gradient is linear (docs/theory.md S0); under mse, where g is affine in x, the products of ``[x ; 1]`` with
itself. Products of two quantities that are not negative are not negative; these are the inequalities (CB14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import product

import flint
import numpy as np

from exan_verify.core.certificate import Row
from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss
from exan_verify.exact import linalg
from exan_verify.exact.lp import vanishing
from exan_verify.exact.regions import Pattern, Region
from exan_verify.exact.softmax import probability_bounds, rounded_up, to_ball
from exan_verify.kernel.cubes.listing import PRECISION, Side, Sums, domain_sides, target_of
from exan_verify.kernel.cubes.members import Members
from exan_verify.kernel.given import require

MAX_UNKNOWNS = 200
MAX_FADING = 30


@dataclass(frozen=True, slots=True)
class Letter:
    """A label as a target vector (K,); for hinge with its loss vector (K,), where one violated margin each
    makes an entry.
    """

    target: tuple[Fraction, ...]
    vector: tuple[Fraction, ...] | None = None


def letters(members: Members) -> list[Letter]:
    """All letters of a sample: labels, for hinge with every set of violated margins."""
    question, classes = members.question, members.network.classes
    out = []
    for label in members.letters:
        if not question.loss.class_labels:
            out.append(Letter(label))
            continue
        own = int(label[0])
        target = tuple(Fraction(c == own) for c in range(classes))
        if question.loss is not Loss.HINGE:
            out.append(Letter(target))
            continue
        require(classes <= 6, "too many classes to list the loss vectors")
        for violated in product((0, 1), repeat=classes):
            if not violated[own]:
                share = [Fraction(v, classes) for v in violated]
                share[own] = -sum(share, Fraction(0))
                out.append(Letter(target, tuple(share)))
    return out


@dataclass(frozen=True, kw_only=True)
class Cube:
    """Samples in the regions ``patterns``, in order; the first ones have ``given`` letters (their numbers in
    ``letters``), and ``sides`` confine the coordinates, feature by feature of each sample. Of samples
    in ``spans`` the rows there are zero on [x ; 1].
    """

    sums: Sums
    letters: tuple[Letter, ...]
    patterns: tuple[Pattern, ...]
    given: tuple[int, ...] = ()
    sides: tuple[Side, ...] = ()
    spans: Mapping[int, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, sums: Sums, letters: Sequence[Letter], patterns: Sequence[Pattern]) -> Cube:
        """The cube of these regions, without labels, in the domain."""
        sides = domain_sides(sums.network.widths[0], sums.question.domain) * len(patterns)
        return cls(sums=sums, letters=tuple(letters), patterns=tuple(patterns), sides=sides)

    @property
    def loss(self) -> Loss:
        """The question's."""
        return self.sums.question.loss

    @property
    def features(self) -> int:
        """d."""
        return self.sums.network.widths[0]

    @property
    def classes(self) -> int:
        """K."""
        return self.sums.network.classes

    def region(self, m: int) -> Region:
        """The region of sample m."""
        return self.sums.region(self.patterns[m])

    def box(self, m: int) -> tuple[Side, ...]:
        """The box of sample m."""
        return self.sides[m * self.features : (m + 1) * self.features]

    def letter(self, m: int) -> Letter | None:
        """The letter of sample m, where it has one."""
        return self.letters[self.given[m]] if m < len(self.given) else None

    def labelled(self) -> list[Cube]:
        """The parts, by the letter of the next sample. Samples of one region have theirs in order."""
        m = len(self.given)
        require(m < len(self.patterns), "every sample has its label")
        first = self.given[-1] if m and self.patterns[m - 1] == self.patterns[m] else 0
        return [
            replace(self, given=(*self.given, k))
            for k in range(first, len(self.letters))
            if self._admitted((*self.given, k))
        ]

    def _admitted(self, given: Sequence[int]) -> bool:
        """Whether known labels are not used more often than the members have them."""
        members = self.sums.members
        if members.question.labels is not Labels.KNOWN:
            return True
        own = [target_of(label, self.loss, self.classes) for label in members.labels]
        used = [self.letters[k].target for k in given]
        return all(used.count(target) <= own.count(target) for target in used)

    def cut(self, axis: int, at: Fraction) -> tuple[Cube, Cube]:
        """The two parts, at most and at least ``at``."""
        low, high = self.sides[axis]
        require((low is None or low < at) and (high is None or at < high), "a cut outside of its box")
        below, above = (
            (*self.sides[:axis], side, *self.sides[axis + 1 :]) for side in ((low, at), (at, high))
        )
        m = axis // self.features
        return replace(self, sides=below).narrowed(m), replace(self, sides=above).narrowed(m)

    def narrowed(self, m: int) -> Cube:
        """The cube with the sides of sample m as its span has them: what each row says of a coordinate where
        the others are bounded, one row after the other.
        """
        sides = list(self.box(m))
        for row in self.spans.get(m, ()):
            for k, rate in enumerate(row[:-1]):
                if rate:
                    rest = -row / rate
                    rest[k] = Fraction(0)
                    (low, high), (least, most) = extent(rest, sides), sides[k]
                    sides[k] = (
                        low if least is None else least if low is None else max(low, least),
                        high if most is None else most if high is None else min(high, most),
                    )
        start, end = m * self.features, (m + 1) * self.features
        return replace(self, sides=(*self.sides[:start], *sides, *self.sides[end:]))

    # affine functions that are >= 0

    @cached_property
    def _functionals(self) -> dict[tuple[int, int], tuple[Array, bool]]:
        return {}

    def functional(self, m: int, k: int) -> tuple[Array, bool]:
        """``row [x ; 1] >= 0``, row (d + 1,), for sample m (> 0 where the second part says so): the constant
        1, states of neurons, sides of the box from below and above, feature by feature, and margins of hinge.
        """
        if (m, k) not in self._functionals:
            self._functionals[m, k] = self._functional(m, k)
        return self._functionals[m, k]

    def _functional(self, m: int, k: int) -> tuple[Array, bool]:
        region, unit = self.region(m), linalg.identity(self.features + 1)
        if k == 0:
            return unit[-1], True
        k -= 1
        if k < len(region.active):
            on = region.active[k]
            return (region.states[k] if on else -region.states[k]), on
        k -= len(region.active)
        if k < 2 * self.features:
            end = self.box(m)[k // 2][k % 2]
            require(end is not None, "a side of the box is infinite")
            row = unit[k // 2] - end * unit[-1]
            return (-row if k % 2 else row), False
        k -= 2 * self.features
        letter = self.letter(m)
        require(letter is not None and letter.vector is not None, "there is no such inequality")
        assert letter is not None
        assert letter.vector is not None
        own = letter.target.index(Fraction(1))
        require(k < self.classes and k != own, "there is no such margin")
        margin = unit[-1] - region.logits[own] + region.logits[k]
        violated = letter.vector[k] > 0
        return (margin if violated else -margin), violated

    # unknowns

    def _has_products(self, m: int) -> bool:
        """Whether sample m's unknowns have the products of its loss vector."""
        return self.letter(m) is None or not self.loss.rational

    def _of_moments(self, m: int) -> bool:
        return self.loss is Loss.MSE and self.letter(m) is not None

    @cached_property
    def _places(self) -> list[int]:
        """Where each sample's unknowns begin, and their number at the end."""
        d, free = self.features, self.sums.free
        out = [0]
        for m in range(len(self.patterns)):
            size = d
            if self._of_moments(m):
                size = (d + 1) * (d + 2) // 2 - 1
            elif self._has_products(m):
                size += free * (d + 1)
            out.append(out[-1] + size)
        require(out[-1] <= MAX_UNKNOWNS, "a cube has too many unknowns")
        return out

    def _line(self) -> Array:
        """Zero on all unknowns; the last entry is the constant."""
        return np.full(self._places[-1] + 1, Fraction(0), dtype=object)

    def _add_input(self, line: Array, m: int, row: Array, factor: Fraction = Fraction(1)) -> None:
        """Add ``factor row [x_m ; 1]``."""
        if self._of_moments(m):
            self._add_pair(line, m, row * factor, linalg.identity(self.features + 1)[-1])
            return
        end = self._places[m + 1]
        line[end - self.features : end] += factor * row[:-1]
        line[-1] += factor * row[-1]

    def _add_product(self, line: Array, m: int, c: int, row: Array, factor: Fraction = Fraction(1)) -> None:
        """Add ``factor g_c row [x_m ; 1]``, whatever is known of sample m."""
        letter = self.letter(m)
        if self._of_moments(m):
            assert letter is not None
            region, unit = self.region(m), linalg.identity(self.features + 1)
            self._add_pair(line, m, 2 * factor * (region.logits[c] - letter.target[c] * unit[-1]), row)
        elif letter is not None and letter.vector is not None:
            self._add_input(line, m, row, factor * letter.vector[c])
        elif c == self.sums.free:  # loss vectors sum to zero
            for other in range(c):
                self._add_product(line, m, other, row, -factor)
        else:
            start = self._places[m] + c * (self.features + 1)
            line[start : start + self.features + 1] += factor * row

    def _add_pair(self, line: Array, m: int, left: Array, right: Array) -> None:
        """Add ``(left [x_m ; 1]) (right [x_m ; 1])``, in the products of [x ; 1] with itself."""
        start, width = self._places[m], self.features + 1
        place: dict[tuple[int, int], int] = {}
        for i in range(width):
            for j in range(i, width):
                place[i, j] = start + len(place)
        for i, j in product(range(width), repeat=2):
            value = left[i] * right[j]
            if value:
                at = place[min(i, j), max(i, j)]
                line[-1 if i == j == width - 1 else at] += value

    # inequalities

    def inequality(self, row: Row) -> tuple[Array, bool]:
        """``line [unknowns ; 1] >= 0`` (> 0), line (unknowns + 1,)."""
        m, kind, k = row
        require(m < len(self.patterns), "there is no such sample")
        line = self._line()
        if kind == 0:
            later = m + 1 < len(self.patterns) and k == 0
            require(later and self.in_order(m), "these samples have no order")
            unit = linalg.identity(self.features + 1)
            self._add_input(line, m + 1, unit[0])
            self._add_input(line, m, unit[0], Fraction(-1))
            return line, False
        if self._of_moments(m):
            (left, strict), (right, too) = self.functional(m, kind - 1), self.functional(m, k)
            self._add_pair(line, m, left, right)
            return line, strict and too
        if kind == 1:
            functional, strict = self.functional(m, k)
            self._add_input(line, m, functional)
            return line, strict
        require(self._has_products(m) and self.loss is not Loss.MSE, "there is no such inequality")
        if kind < 2 + 2 * self.classes:
            c, upper = divmod(kind - 2, 2)
            functional, strict = self.functional(m, k)
            low, high, ends = self.vector_bounds(m)[c]
            sign = Fraction(-1 if upper else 1)
            self._add_product(line, m, c, functional, sign)
            self._add_input(line, m, functional, -sign * (high if upper else low))
            return line, strict and ends[upper]
        number, monotone = divmod(kind - 2 - 2 * self.classes, 2)
        return self._of_chance(m, number, k, monotone=bool(monotone)), False

    def _of_chance(self, m: int, number: int, k: int, *, monotone: bool) -> Array:
        """A probability ``p <= e^-mu`` with mu affine: ``e^-(k + 1) - p (mu - k) >= 0``, since (mu - k) e^-mu
        is at most that; or, where q e^-mu = p, monotone: ``(q - p) mu >= 0``.

        Of cross_entropy p and q are those of two classes, of bce that of a logit's label 1 and of its label
        0, either way round, in the order of the classes.
        """
        letter, logits = self.letter(m), self.region(m).logits
        require(letter is not None, "there is no such inequality")
        assert letter is not None
        if self.loss is Loss.BCE:
            c, turned = divmod(number, 2)
            require(c < self.classes, "there is no such inequality")
            mu = logits[c] if turned else -logits[c]
        else:
            c, other = divmod(number, self.classes - 1)
            other += other >= c
            require(c < self.classes, "there is no such inequality")
            mu = logits[other] - logits[c]
        line, unit = self._line(), linalg.identity(self.features + 1)[-1]

        def add(c: int, row: Array, *, turned: bool = False) -> None:
            """Add p_c row, or (1 - p_c) row, row (d + 1,)."""
            self._add_product(line, m, c, row, Fraction(-1 if turned else 1))
            target = 1 - letter.target[c] if turned else letter.target[c]
            self._add_input(line, m, row, target)

        if not monotone:
            require(k <= MAX_FADING, "there is no such inequality")
            add(c, k * unit - mu, turned=self.loss is Loss.BCE and bool(turned))
            with flint.ctx.workprec(PRECISION):
                line[-1] += rounded_up((-flint.arb(k + 1)).exp())
        elif self.loss is Loss.BCE:
            add(c, mu, turned=not turned)
            add(c, -mu, turned=bool(turned))
        else:
            add(other, mu)
            add(c, -mu)
        return line

    def in_order(self, m: int) -> bool:
        """Whether samples m and m + 1 may be exchanged, and are taken in the order of their first feature."""
        return (
            self.patterns[m] == self.patterns[m + 1]
            and m + 1 < len(self.given)
            and (self.given[m] == self.given[m + 1])
        )

    @cached_property
    def _bounds(self) -> dict[int, list[tuple[Fraction, Fraction, tuple[bool, bool]]]]:
        return {}

    def vector_bounds(self, m: int) -> list[tuple[Fraction, Fraction, tuple[bool, bool]]]:
        """Bounds of every entry of g over sample m's box, and whether it is never equal to the lower, and the
        upper one: probabilities are neither 0 nor 1.
        """
        if m not in self._bounds:
            self._bounds[m] = self._vector_bounds(m)
        return self._bounds[m]

    def _vector_bounds(self, m: int) -> list[tuple[Fraction, Fraction, tuple[bool, bool]]]:
        if self.loss is Loss.HINGE:
            most = Fraction(self.classes - 1, self.classes)
            return [(-most, Fraction(1, self.classes), (False, False))] * self.classes
        logits, letter = self.region(m).logits, self.letter(m)
        out = []
        with flint.ctx.workprec(PRECISION):
            for c, own in enumerate(logits):
                others = (
                    [0 * own] if self.loss is Loss.BCE else [row for k, row in enumerate(logits) if k != c]
                )
                low, high = probability_bounds([extent(row - own, self.box(m)) for row in others])
                least, most = Fraction(0), Fraction(1)
                if letter is not None:
                    least = most = letter.target[c]
                out.append((low - most, high - least, (low == 0, high == 1)))
        return out

    # equations

    @property
    def equations(self) -> tuple[Array, Array]:
        """Lines (e, unknowns + 1) and shares (e, vectors), the same for every box: :meth:`_equations`."""
        key = self.patterns, self.given, tuple(self.spans)
        memory = self.sums.memory
        if key not in memory:
            memory[key] = self._equations()
        found: tuple[Array, Array] = memory[key]
        return found

    def _equations(self) -> tuple[Array, Array]:
        """Independent entries of the gradient: lines (entries, unknowns + 1) that have to be what the members
        add, and their rows of ``sums.shares``.
        """
        lines, shares = self.entries(), self.sums.shares
        straight = self._straight()
        if straight:
            lines = np.concatenate([lines, straight])
            shares = np.concatenate(
                [shares, np.full((len(straight), shares.shape[1]), Fraction(0), dtype=object)]
            )
        if self.loss.rational:  # the constants on the right side, where equal ones are seen to be equal
            shares = shares - lines[:, -1:]
            lines[:, -1] = Fraction(0)
        kept = linalg.pivots(np.concatenate([lines, shares], axis=1).T)
        return lines[kept], shares[kept]

    def entries(self) -> Array:
        """What the samples add to every entry of the gradient, lines (entries, unknowns + 1)."""
        width = self.features + self.sums.network.has_bias
        lines = np.full((len(self.sums.shares), self._places[-1] + 1), Fraction(0), dtype=object)
        unit = linalg.identity(self.features + 1)
        for m in range(len(self.patterns)):
            products = []
            for c, k in product(range(self.sums.free), range(width)):
                line = self._line()
                self._add_product(line, m, c, unit[k])  # with biases the last k is the constant
                products.append(line)
            lines += linalg.multiply(self.region(m).system, np.array(products, dtype=object))
        return lines

    def forms(self) -> tuple[Array, Array]:
        """The same under mse as polynomials in all inputs: ``x^T A x + b x`` and a constant, A (entries, n,
        n) symmetric, b (entries, n), n samples times features; every sample has its label.
        """
        lines, d = self.entries(), self.features
        n = len(self.patterns) * d
        squares = np.full((len(lines), n, n), Fraction(0), dtype=object)
        slopes = np.full((len(lines), n), Fraction(0), dtype=object)
        for m in range(len(self.patterns)):
            at = self._places[m]
            for i in range(d):
                for j in range(i, d):
                    for left, right in ((i, j), (j, i)):
                        squares[:, m * d + left, m * d + right] += lines[:, at] / 2
                    at += 1
                slopes[:, m * d + i] = lines[:, at]
                at += 1
        return squares, slopes

    def _straight(self) -> list[Array]:
        """Lines that are zero: the rows of samples in a span, times every quantity."""
        found, unit = [], linalg.identity(self.features + 1)
        for m, rows in self.spans.items():
            for row in rows:
                for factor in unit if self._of_moments(m) else unit[-1:]:
                    line = self._line()
                    if self._of_moments(m):
                        self._add_pair(line, m, row, factor)
                    else:
                        self._add_input(line, m, row)
                    found.append(line)
                if self._has_products(m):
                    for c in range(self.sums.free):
                        line = self._line()
                        self._add_product(line, m, c, row)
                        found.append(line)
        return found

    def absurd(self, rows: Sequence[Row]) -> bool:
        """Whether a positive combination of the inequalities and the equations leaves ``constant >= 0`` with
        a constant that is negative, or zero where one inequality is strict.
        """
        lines, shares = self.equations
        found = [self.inequality(row) for row in rows]
        chosen = np.array([line for line, _ in found], dtype=object).reshape(-1, lines.shape[1])
        kept = linalg.pivots(lines[:, :-1].T)
        if len(kept) < len(lines):  # entries that no unknown is seen in, and that differ from the members'
            return self._overdetermined(lines, shares)
        weights = vanishing(chosen[:, :-1], lines[:, :-1])
        if weights is None:
            return False
        y, z = weights
        constant = sum(
            (w * c for w, c in zip((*y, *z), (*chosen[:, -1], *lines[:, -1]), strict=True)), Fraction(0)
        )
        seen = [-sum((w * s for w, s in zip(z, column, strict=True)), Fraction(0)) for column in shares.T]
        total = self.sums.value(seen)
        if isinstance(total, Fraction):
            total += constant
            return total < 0 or (total == 0 and any(strict for _, strict in found))
        return bool(total + to_ball(constant) < 0)

    def _overdetermined(self, lines: Array, shares: Array) -> bool:
        for z in linalg.nullspace(lines[:, :-1].T).T:
            constant = sum((w * c for w, c in zip(z, lines[:, -1], strict=True)), Fraction(0))
            seen = [sum((w * s for w, s in zip(z, column, strict=True)), Fraction(0)) for column in shares.T]
            total = self.sums.value(seen)
            if (isinstance(total, Fraction) and total != constant) or (
                not isinstance(total, Fraction) and not (total - to_ball(constant)).contains(0)
            ):
                return True
        return False


def extent(row: Array, sides: Sequence[Side]) -> Side:
    """The exact range of ``row [x ; 1]`` over a box."""
    low: Fraction | None = row[-1]
    high: Fraction | None = row[-1]
    for rate, (lo, hi) in zip(row[:-1], sides, strict=True):
        if rate:
            first, last = (lo, hi) if rate > 0 else (hi, lo)
            low = None if low is None or first is None else low + rate * first
            high = None if high is None or last is None else high + rate * last
    return low, high
