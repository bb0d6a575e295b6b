"""What a cube's gradient can be, by linear algebra: contributions enter through one matrix per region.

A *region* is a joint pattern of all hidden layers. Samples of one region enter the gradient only through
``T = sum g [x ; 1]^T`` (K x (d + 1); without biases ``sum g x^T``), and linearly: ``G = sum over the regions
of L_region(T)`` (docs/theory.md S0, appendix C). The maps L are rational, whatever the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm
from typing import Any

import flint
import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array
from exan_verify.exact.regions import Pattern, Region, region_of
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.question.encode import neuron_name
from exan_verify.smt.question.encoder import Fixed
from exan_verify.smt.question.posed import Posed, Vector
from exan_verify.smt.question.transcendental import PRECISION

MAX_SYSTEM = 25_000
"""Entries of the matrix that exact linear algebra is tried on: it cannot be interrupted, and takes up to a
second at this size (53-bit weights)."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of a question, made on demand, and its gradient in the same order of entries."""

    posed: Posed

    @cached_property
    def _made(self) -> dict[Pattern, Region]:
        return {}

    @property
    def zero_sum(self) -> bool:
        """Whether all loss vectors sum to zero."""
        return self.posed.question.loss.zero_sum

    def tractable(self, regions: int) -> bool:
        """Whether the systems of so many regions side by side have at most MAX_SYSTEM entries."""
        network = self.posed.network
        rows = sum(array.size for _, array in network.parameters())
        columns = (network.classes - self.zero_sum) * (network.widths[0] + network.has_bias)
        return rows * columns * regions <= MAX_SYSTEM

    def region(self, pattern: Pattern) -> Region:
        """The region's maps."""
        poll()
        if pattern not in self._made:
            assert self.posed.relu is not None  # of others no regions are asked for
            self._made[pattern] = region_of(self.posed.relu, pattern, zero_sum=self.zero_sum)
        return self._made[pattern]

    def patterns(self, fixed: Fixed) -> list[Pattern]:
        """The pattern of every sample of a cube."""
        widths = self.posed.network.widths[1:-1]
        return [
            tuple(
                tuple(fixed[neuron_name(m, i, j)] for j in range(width)) for i, width in enumerate(widths, 1)
            )
            for m in range(self.posed.size)
        ]

    def states(self, states: Sequence[tuple[bool, ...]]) -> list[Pattern]:
        """The pattern of every sample from its states in the order of ``encode.state_names``."""
        widths, found = self.posed.network.widths[1:-1], []
        for bits in states:
            flat = iter(bits)
            found.append(tuple(tuple(next(flat) for _ in range(width)) for width in widths))
        return found

    def labels(self, fixed: Fixed) -> list[Vector]:
        """The label vector of every sample of a cube."""
        alphabet = self.posed.alphabet
        assert alphabet is not None
        if len(alphabet) == 1:
            return [alphabet[0]] * self.posed.size
        return [
            next(u for c, u in enumerate(alphabet) if fixed[f"label_s{m}_{c}"])
            for m in range(self.posed.size)
        ]

    @cached_property
    def memory(self) -> dict[object, Any]:
        """What was computed for several cubes with the same regions."""
        return {}

    def joint(self, patterns: Sequence[Pattern]) -> Array:
        """The systems of several regions side by side."""
        return np.concatenate([self.region(p).system for p in patterns], axis=1)

    @cached_property
    def gradient(self) -> list[Any]:
        """The target's entries as balls; exact where they are rational up to the precision."""
        symbols = self._symbols
        with flint.ctx.workprec(PRECISION):
            return [entry.evaluate(symbols, to_ball) for entry in self.posed.target.entries()]

    @property
    def _symbols(self) -> Mapping[str, Any]:
        with flint.ctx.workprec(PRECISION):
            return {
                name: to_ball(low).union(to_ball(high))
                for name, (low, high) in self.posed.target.enclosures.items()
            }

    def inconsistent(self, fixed: Fixed) -> bool:
        """Whether no matrices T at all, in the cube's regions, give the gradient.

        A rational y with ``y^T L = 0`` for all the regions has ``y^T G = 0`` if there are any.
        """
        if self.posed.question.tolerance is not None:
            return False
        return self.unreachable(list(dict.fromkeys(self.patterns(fixed))))

    def unreachable(self, patterns: Sequence[Pattern]) -> bool:
        """The same for a list of different regions; False where there is too much to compute."""
        if not self.tractable(len(patterns)):
            return False
        key = frozenset(patterns)
        if key not in self._answers:
            self._answers[key] = self._refuted(patterns)
        return self._answers[key]

    @cached_property
    def _answers(self) -> dict[frozenset[Pattern], bool]:
        return {}

    def _refuted(self, patterns: Sequence[Pattern]) -> bool:
        columns = [v for p in patterns for v in self._columns(p)]
        tests, count = flint.fmpz_mat(len(columns) // self._size, self._size, columns).nullspace()
        if not count:
            return False
        exact = self._integer_gradient
        if exact is not None:
            return bool((exact * tests).rank())
        with flint.ctx.workprec(PRECISION):
            found = flint.arb_mat(1, self._size, self.gradient) * flint.arb_mat(tests)
            return any(not found[0, k].contains(0) for k in range(count))

    def _columns(self, pattern: Pattern) -> list[int]:
        """The columns of the region's system, one after the other, times one number that makes them
        integers.
        """
        key = ("columns", pattern)
        if key not in self.memory:
            system = self.region(pattern).system
            scale = lcm(*(v.denominator for v in system.reshape(-1)))
            self.memory[key] = [int(v * scale) for v in system.T.reshape(-1)]
        found: list[int] = self.memory[key]
        return found

    @property
    def _size(self) -> int:
        return len(self.gradient)

    @cached_property
    def _integer_gradient(self) -> Any:
        """The target, in one row, times a number that makes it integers; None where it is not rational."""
        entries = self.posed.target.entries()
        if not all(e.is_constant for e in entries):
            return None
        scale = lcm(*(e.value.denominator for e in entries))
        return flint.fmpz_mat(1, len(entries), [int(e.value * scale) for e in entries])
