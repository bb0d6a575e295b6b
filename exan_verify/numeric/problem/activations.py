"""What follows a hidden layer in floating point: ReLU, two slopes, or values between two ends.

phi(z) is z where low < z < high. Below ``low`` it is slope z (low is 0 then) or ``low``, from ``high`` up it
is ``high``; the derivative is 1 strictly between the ends and ``slope`` elsewhere, torch's convention. On a
fixed pattern everything is linear, so that the equations (*) of docs/theory.md 3.1 read delta_j = w_j . u
where a neuron is active and delta_j = slope_j w_j . u where it is not (PL1, 3.7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.network import Activation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piecewise:
    """An activation of n neurons: ``slope`` (n,) float64, the derivative where a neuron is not active, None
    where that is zero at all of them. Without arguments it is ReLU."""

    slope: Tensor | None = None
    low: float = 0.0
    high: float = math.inf

    @classmethod
    def of(cls, activation: Activation | None, device: torch.device) -> Piecewise:
        """The same as an exact one, None for ReLU."""
        if activation is None:
            return RELU
        slope = np.asarray(activation.slope, dtype=np.float64)
        return cls(
            slope=torch.from_numpy(slope.copy()).to(device) if activation.sloped else None,
            low=float(activation.low),
            high=math.inf if activation.high is None else float(activation.high),
        )

    @property
    def relu(self) -> bool:
        """Whether it is ReLU."""
        return self.slope is None and self.low == 0 and self.high == math.inf

    def values(self, z: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        """phi(z), of the same shape."""
        if self.slope is not None:
            return torch.where(z > 0, z, self.slope * z)
        return z.relu() if self.relu else torch.nn.functional.hardtanh(z, self.low, self.high)

    def active(self, z: Float[Tensor, "... n"]) -> Bool[Tensor, "... n"]:
        """Where the derivative is 1 and not the slope, of the same shape."""
        active: Tensor = z > self.low
        return active if self.high == math.inf else active & (z < self.high)

    def passed(self, active: Bool[Tensor, "... n"]) -> Tensor:
        """The derivative (..., n): 1 at the ``active`` neurons, the slope at others; boolean where all slopes
        are zero."""
        if self.slope is None:
            return active
        return torch.where(active, torch.ones_like(self.slope), self.slope)

    def clearance(self, z: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
        """How far z is from where the derivative changes, of the same shape."""
        below = (z - self.low).abs()
        return below if self.high == math.inf else torch.minimum(below, (z - self.high).abs())

    def active_by_value(
        self, h: Float[Tensor, "m n"], error: Float[Tensor, "m 1"]
    ) -> Bool[Tensor, "m n"] | None:
        """Which neurons have h = phi(z) with a z between the ends, for h known to ``error``; None where the
        values do not tell, as a negative slope gives two z one value."""
        if self.slope is not None and bool((self.slope < 0).any()):
            return None
        active = h > self.low + error
        return active if self.high == math.inf else active & (h < self.high - error)

    def derivative_by_value(
        self, h: Float[Tensor, "m n"], error: Float[Tensor, "m 1"]
    ) -> tuple[Float[Tensor, "m n"], Bool[Tensor, "m n"]]:
        """The derivative at the z with h = phi(z), for h known to ``error``, and where it is told: at an end,
        or below a negative slope, it is not, and the first is 0.
        """
        if self.slope is None:
            told = (h > self.low + error) & (h < self.high - error)
            return told.to(h), told
        told = (h > error) & (self.slope >= 0) | (h < -error) & (self.slope > 0)
        return torch.where(h > 0, torch.ones_like(self.slope), self.slope) * told, told

    def inverse(
        self, h: Float[Tensor, " n"], error: float
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """The z with h = phi(z), for h known to ``error``: z, its own error, and at which neurons it is the
        only one: where two slopes are positive at all of them, else strictly between the ends.
        """
        _, told = self.derivative_by_value(h[None], h.new_full((1, 1), error))
        errors = torch.full_like(h, error)
        if self.slope is None:
            return h, errors, told[0]
        rising = self.slope > 0
        below = torch.where(rising, self.slope, torch.ones_like(self.slope))
        return torch.where(h > 0, h, h / below), errors / below.clamp(max=1), told[0] | rising

    @property
    def nonnegative(self) -> bool:
        """Whether no value is negative."""
        return self.low >= 0 if self.slope is None else bool((self.slope <= 0).all())

    @property
    def steepest(self) -> float:
        """The largest factor by which it, or its derivative, can enlarge an error: at least 1."""
        return 1.0 if self.slope is None else max(1.0, float(self.slope.abs().max()))


RELU = Piecewise()
"""ReLU, for any number of neurons."""
