"""What is known at one place between two stages, per sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exan_verify.network import Loss
from exan_verify.numeric.convolution.stages import ConvolutionalNetwork
from exan_verify.numeric.torch_losses import summed_loss

_ZERO = 8.0
"""A rectified value below this many error bounds is taken for zero."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """Values and deltas (M, *shape) at one place, each with a mask that says where they are known.

    ``error`` (M,): L2 norm of the error of a sample's known values, which bounds that of each. A delta is
    d loss / d value.
    """

    value: Tensor
    known: Tensor
    error: Tensor
    delta: Tensor
    delta_known: Tensor

    @property
    def active(self) -> Tensor:
        """Where a known value is positive beyond its error: there a ReLU below passes it unchanged."""
        level = (_ZERO * self.error).view(-1, *[1] * (self.value.dim() - 1))
        return self.known & (self.value > level)

    @property
    def zero(self) -> Tensor:
        """Where a rectified value is known to be zero."""
        return self.known & ~self.active

    def reshape(self, shape: tuple[int, ...]) -> Known:
        """The same numbers in another shape per sample."""
        size = self.value.shape[0]
        return replace(
            self,
            **{
                name: getattr(self, name).reshape(size, *shape)
                for name in ("value", "known", "delta", "delta_known")
            },
        )


def at_features(
    network: ConvolutionalNetwork, features: Tensor, error: Tensor, labels: Tensor, loss: Loss, divisor: int
) -> Known:
    """The features (m, n) that the head's attack found, with the deltas that their labels give."""
    with torch.enable_grad():
        h = features.detach().clone().requires_grad_(True)
        (delta,) = torch.autograd.grad(summed_loss(loss, network.head_logits(h), labels) / divisor, h)
    everywhere = torch.ones_like(delta, dtype=torch.bool)
    return Known(value=features, known=everywhere, error=error, delta=delta, delta_known=everywhere.clone())
