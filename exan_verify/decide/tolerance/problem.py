"""What is asked under a tolerance, as floats for guessing and as balls for proving."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Parametrisation
from exan_verify.core.network import Array, Gradient, ReluNetwork
from exan_verify.decide.context import Setting
from exan_verify.exact.balls import BallMatrix, Floats, ball_matrix, constant_interval


class NotShownError(Exception):
    """The step that failed and by how much; the text becomes the verdict's reason."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Batches of ``samples`` samples with gradients within the question's tolerance of ``gradient``.

    ``samples`` is the question's batch size, or a guess of it where it is not said (0 before it is made).
    """

    setting: Setting
    gradient: Gradient
    samples: int
    budget: Budget

    @property
    def tolerance(self) -> Fraction:
        """The question's tolerance; asking here without one is a defect of the caller."""
        assert self.setting.question.tolerance is not None
        return self.setting.question.tolerance

    @property
    def network(self) -> ReluNetwork:
        """The setting's network."""
        return self.setting.relu

    @property
    def divisor(self) -> int:
        """N, what the loss is divided by."""
        return self.setting.question.divisor(self.samples, self.network.classes)

    @property
    def parametrisation(self) -> Parametrisation:
        """The fewest unknowns for the next delta (3.1): the loss vector, or the next layer's columns."""
        if self.network.depth == 2:
            zero_sum = self.setting.question.loss.zero_sum and self.network.classes > 1
            return "zero_sum" if zero_sum else "full"
        return "full" if self.network.widths[2] <= self.samples else "column_space"

    @property
    def following(self) -> int:
        """K', the unknowns of a next delta under :attr:`parametrisation`."""
        if self.parametrisation == "column_space":
            return self.samples
        return self.network.widths[2] - (self.parametrisation == "zero_sum")

    @cached_property
    def layers(self) -> PerLayer[Array]:
        """The stored [dW_i | db_i]; without a bias dW_i alone."""
        pairs = self.gradient.for_network(self.network)
        return PerLayer(w if b is None else np.concatenate([w, b.reshape(-1, 1)], axis=1) for w, b in pairs)

    def floats(self, layer: int) -> Floats:
        """[dW | db] of affine layer ``layer`` (from 1), rounded to float64."""
        return self.layers.at(layer).astype(np.float64)

    def balls(self, layer: int) -> BallMatrix:
        """[dW | db] of every batch asked about."""
        array = self.layers.at(layer)
        return ball_matrix(array) + constant_interval(array.shape, self.tolerance)

    def weight(self, layer: int) -> Floats:
        """The weight of affine layer ``layer`` (from 1), rounded to float64."""
        return self.network.layer(layer).weight.astype(np.float64)

    def offset(self, layer: int) -> Floats:
        """Its bias."""
        bias = self.network.layer(layer).bias
        assert bias is not None
        return bias.astype(np.float64)

    def spend(self, units: int) -> None:
        """Count work; stop when there is none left."""
        self.budget.spend(units)
        if stopped := self.budget.exhausted:
            raise NotShownError(f"{stopped}; give more")
