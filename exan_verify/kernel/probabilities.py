"""softmax and sigmoid of logits that are affine in a point, with their derivatives, in real balls.

The kernel's own enclosure, which Krawczyk's test (:mod:`exan_verify.kernel.second.enclosure`) and the covers
of Q-space (:mod:`exan_verify.kernel.residual.cover`) evaluate over boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flint

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact.softmax import to_ball

Vector = list[Any]


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """Of the logits ``maps @ [x ; 1]``; ``maps`` (K, d + 1) are Fractions."""

    loss: Loss
    maps: Array

    def at(self, x: Vector) -> tuple[Vector, list[Vector]]:
        """The K probabilities over a box of points x, and their derivatives by x (K, d).

        sigmoid: p = 1 / (1 + e^-f), dp = p (1 - p) df. softmax: p_c = 1 / sum_k exp(f_k - f_c), where the
        differences of logits are affine as well, and dp_c = p_c (df_c - sum_k p_k df_k).
        """
        found = [1 / sum((_affine(row, x).exp() for row in rows), flint.arb(0)) for rows in self._exponents]
        pairs = list(zip(found, self._slopes, strict=True))
        if self.loss is Loss.BCE:
            return found, [[p * (1 - p) * s for s in row] for p, row in pairs]
        means = [sum((p * row[k] for p, row in pairs), flint.arb(0)) for k in range(len(x))]
        return found, [[p * (s - mean) for s, mean in zip(row, means, strict=True)] for p, row in pairs]

    @cached_property
    def _slopes(self) -> list[Vector]:
        return [[to_ball(v) for v in row[:-1]] for row in self.maps]

    @cached_property
    def _exponents(self) -> list[list[Vector]]:
        """Per class the affine maps whose exponentials its denominator sums."""
        if self.loss is Loss.BCE:
            exact = [[row * 0, -row] for row in self.maps]
        else:
            exact = [[other - row for other in self.maps] for row in self.maps]
        return [[[to_ball(v) for v in row] for row in rows] for rows in exact]


def _affine(row: Vector, x: Vector) -> Any:
    return sum((a * b for a, b in zip(row[:-1], x, strict=True)), row[-1])
