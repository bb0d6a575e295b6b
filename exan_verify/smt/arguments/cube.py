"""A cube beside the known batch: samples by region, and what the arguments of this folder read off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern, Region
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.arguments.minors import independent_columns
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.question.posed import Posed, Vector
from exan_verify.smt.question.transcendental import PRECISION, probability

MAX_BOXES = 4000
"""Boxes for one region: a few seconds."""


@dataclass(frozen=True, slots=True)
class Point:
    """A sample: its region, target vector and input; of the known batch, or (without input) of the cube."""

    pattern: Pattern
    y: Vector
    x: Vector = ()


@dataclass(frozen=True, kw_only=True)
class Cube:
    """A cube's samples beside those of the rational known batch; a cover may take ``boxes`` per region."""

    regions: Regions
    samples: tuple[Point, ...]
    known: tuple[Point, ...]
    boxes: int = MAX_BOXES

    @property
    def posed(self) -> Posed:
        """The question."""
        return self.regions.posed

    @property
    def loss(self) -> Loss:
        """Its loss."""
        return self.posed.question.loss

    @property
    def has_bias(self) -> bool:
        """Whether inputs are seen beside a 1."""
        return self.posed.network.has_bias

    @property
    def free_classes(self) -> range:
        """Classes whose rows of T are unknowns: the last follows where loss vectors sum to zero."""
        return range(self.posed.network.classes - self.regions.zero_sum)

    @cached_property
    def patterns(self) -> list[Pattern]:
        """All regions of cube and known batch."""
        return list(dict.fromkeys(p.pattern for p in (*self.samples, *self.known)))

    @cached_property
    def own(self) -> bool:
        """Whether the known batch lies in the cube."""
        return sorted((p.pattern, p.y) for p in self.samples) == sorted((p.pattern, p.y) for p in self.known)

    @cached_property
    def same_regions(self) -> bool:
        """Whether cube and known batch have as many samples in each region, whatever their labels."""
        return sorted(p.pattern for p in self.samples) == sorted(p.pattern for p in self.known)

    def samples_in(self, pattern: Pattern) -> tuple[Point, ...]:
        """The cube's samples in a region."""
        return tuple(p for p in self.samples if p.pattern == pattern)

    def known_in(self, pattern: Pattern) -> tuple[Point, ...]:
        """The known batch's samples in a region."""
        return tuple(p for p in self.known if p.pattern == pattern)

    def region(self, pattern: Pattern) -> Region:
        """The region's maps."""
        return self.regions.region(pattern)

    def logits(self, p: Point) -> Array:
        """f of a known sample (K,), exact."""
        found: Array = self.region(p.pattern).logits @ np.array([*p.x, Fraction(1)], dtype=object)
        return found

    def half_vector(self, p: Point) -> Array:
        """mse: half the loss vector (K,), exact."""
        found: Array = self.logits(p) - np.array(p.y, dtype=object)
        return found

    def vector(self, p: Point) -> list[Any]:
        """The loss vector (reduction sum) of a known sample as K balls."""
        logits = [to_ball(f) for f in self.logits(p)]
        if self.loss is Loss.MSE:
            return [2 * (f - to_ball(y)) for f, y in zip(logits, p.y, strict=True)]
        return [probability(logits, k, self.loss) - to_ball(y) for k, y in enumerate(p.y)]

    def total(self, pattern: Pattern) -> Array:
        """T = sum g [x ; 1]^T of a region's known samples as balls: (free classes, d + 1), or d columns."""
        size = len(self.known[0].x) + self.has_bias
        out = np.full((len(self.free_classes), size), flint.arb(0), dtype=object)
        with flint.ctx.workprec(PRECISION):
            for p in self.known_in(pattern):
                vector = self.vector(p)
                for c in self.free_classes:
                    for k, v in enumerate((*p.x, Fraction(1))[:size]):
                        out[c, k] += vector[c] * to_ball(v)
        return out

    def totals(self) -> list[Any]:
        """The entries of every region's T, one after the other, in the order of :attr:`patterns`."""
        return [v for p in self.patterns for v in self.total(p).reshape(-1)]

    def independent(self, known: Sequence[Point]) -> bool:
        """Whether loss vectors and inputs of known samples are independent: T = G X^T has their number as
        rank.
        """
        points = np.array([(*p.x, Fraction(1))[: len(p.x) + self.has_bias] for p in known], dtype=object)
        if linalg.rank(points) < len(known):
            return False
        if self.loss.rational:
            vectors = np.array([self.half_vector(p) for p in known], dtype=object)
            return linalg.rank(vectors) == len(known)
        with flint.ctx.workprec(PRECISION):
            return independent_columns(list(zip(*(self.vector(p) for p in known), strict=True)))


def same_labels(here: Sequence[Point], known: Sequence[Point]) -> bool:
    """Whether samples have the same labels, up to order."""
    return sorted(p.y for p in here) == sorted(p.y for p in known)
