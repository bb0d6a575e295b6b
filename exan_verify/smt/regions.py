"""What a cube's gradient can be, by linear algebra: contributions enter through one matrix per region.

A *region* is a joint pattern of all hidden layers. Samples of one region enter the gradient only through
``T = sum g [x ; 1]^T`` (K x (d + 1); without biases ``sum g x^T``), and linearly: ``G = sum over the regions
of L_region(T)`` (docs/theory.md S0, appendix C). The maps L are rational, whatever the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flint
import numpy as np

from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern, Region, region_of
from exan_verify.exact.softmax import to_ball
from exan_verify.network import Array, Loss
from exan_verify.smt.encode import Fixed, neuron_name
from exan_verify.smt.question import Question, Vector
from exan_verify.smt.transcendental import PRECISION


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of a question, made on demand, and its gradient in the same order of entries."""

    question: Question

    @cached_property
    def _made(self) -> dict[Pattern, Region]:
        return {}

    @property
    def zero_sum(self) -> bool:
        """Whether all loss vectors sum to zero."""
        return self.question.loss in (Loss.CROSS_ENTROPY, Loss.HINGE)

    def region(self, pattern: Pattern) -> Region:
        """The region's maps."""
        if pattern not in self._made:
            self._made[pattern] = region_of(self.question.network, pattern, zero_sum=self.zero_sum)
        return self._made[pattern]

    def patterns(self, fixed: Fixed) -> list[Pattern]:
        """The pattern of every sample of a cube."""
        widths = self.question.network.widths[1:-1]
        return [
            tuple(
                tuple(fixed[neuron_name(m, i, j)] for j in range(width)) for i, width in enumerate(widths, 1)
            )
            for m in range(self.question.size)
        ]

    def states(self, states: Sequence[tuple[bool, ...]]) -> list[Pattern]:
        """The pattern of every sample from its states in the order of ``encode.state_names``."""
        widths, found = self.question.network.widths[1:-1], []
        for bits in states:
            flat = iter(bits)
            found.append(tuple(tuple(next(flat) for _ in range(width)) for width in widths))
        return found

    def labels(self, fixed: Fixed) -> list[Vector]:
        """The label vector of every sample of a cube."""
        alphabet = self.question.alphabet
        assert alphabet is not None
        if len(alphabet) == 1:
            return [alphabet[0]] * self.question.size
        return [
            next(u for c, u in enumerate(alphabet) if fixed[f"label_s{m}_{c}"])
            for m in range(self.question.size)
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
            return [entry.evaluate(symbols, to_ball) for entry in self._entries()]

    @cached_property
    def exact_gradient(self) -> Array | None:
        """The target's entries (entries, 1) where all are rational."""
        entries = self._entries()
        if not all(e.is_constant for e in entries):
            return None
        return np.array([[e.value] for e in entries], dtype=object)

    @property
    def _symbols(self) -> Mapping[str, Any]:
        with flint.ctx.workprec(PRECISION):
            return {
                name: to_ball(low).union(to_ball(high))
                for name, (low, high) in self.question.target.enclosures.items()
            }

    def _entries(self) -> list[Any]:
        target, found = self.question.target, []
        for i, layer in enumerate(self.question.network.layers):
            for j in range(layer.shape[0]):
                found += [target.weight(i, j, k) for k in range(layer.shape[1])]
                if layer.bias is not None:
                    found.append(target.bias(i, j))
        return found

    def inconsistent(self, fixed: Fixed) -> bool:
        """Whether no matrices T at all, in the cube's regions, give the gradient.

        A rational y with ``y^T L = 0`` for all the regions has ``y^T G = 0`` if there are any.
        """
        if self.question.tolerance is not None:
            return False
        return self.unreachable(list(dict.fromkeys(self.patterns(fixed))))

    def unreachable(self, patterns: Sequence[Pattern]) -> bool:
        """The same for a list of different regions."""
        key = frozenset(patterns)
        if key not in self._answers:
            self._answers[key] = self._refuted(patterns)
        return self._answers[key]

    @cached_property
    def _answers(self) -> dict[frozenset[Pattern], bool]:
        return {}

    def _refuted(self, patterns: Sequence[Pattern]) -> bool:
        system = self.joint(patterns)
        tests = linalg.nullspace(system.T).T
        if not len(tests):
            return False
        exact = self.exact_gradient
        if exact is not None:
            return bool(linalg.multiply(tests, exact).any())
        with flint.ctx.workprec(PRECISION):
            return any(not _combined(row, self.gradient).contains(0) for row in tests)


def _combined(row: Array, values: Sequence[Any]) -> Any:
    return sum((to_ball(c) * v for c, v in zip(row, values, strict=True) if c), flint.arb(0))
