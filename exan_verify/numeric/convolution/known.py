"""What is known at one place between two stages, per sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exan_verify.models.pictures.stages import ConvolutionalNetwork
from exan_verify.numeric.convolution.spread import Spread
from exan_verify.numeric.problem.torch_losses import BatchLoss

_ZERO = 8.0
"""A rectified value below this many error bounds is taken for zero."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """Values and deltas (M, *shape) at one place, each with a mask that says where they are known.

    ``spread``: errors of the known values. A delta is d loss / d value; ``doubt`` (M, *shape) is what a
    random error of the features, as large as they may have, makes of it, None where there is none.
    """

    value: Tensor
    known: Tensor
    spread: Spread
    delta: Tensor
    delta_known: Tensor
    doubt: Tensor | None = None

    @property
    def entry_error(self) -> Tensor:
        """Bound on the error of every entry, (M, *shape) or (M, 1, ..., 1)."""
        size, shape = self.value.shape[0], self.value.shape[1:]
        each = self.spread.entries
        return each.view(size, *(shape if each.shape[1] > 1 else [1] * len(shape)))

    @property
    def active(self) -> Tensor:
        """(M, *shape): where a known value is positive beyond its error, so that a ReLU below passes it."""
        return self.known & (self.value > _ZERO * self.entry_error)

    @property
    def zero(self) -> Tensor:
        """(M, *shape): where a rectified value is known to be zero."""
        return self.known & ~self.active

    def reshape(self, shape: tuple[int, ...]) -> Known:
        """The same numbers in another shape per sample."""
        size = self.value.shape[0]
        return replace(
            self,
            **{
                name: value.reshape(size, *shape)
                for name in ("value", "known", "delta", "delta_known", "doubt")
                if (value := getattr(self, name)) is not None
            },
        )


def at_features(
    network: ConvolutionalNetwork, features: Tensor, error: Tensor, loss: BatchLoss | None
) -> Known:
    """The features (m, n) that the head's attack found, L2 errors (m,), and their deltas, None of which is
    known without the ``loss``."""

    def deltas(at: Tensor) -> Tensor:
        """Derivatives of the loss by the features, both (M, n)."""
        assert loss is not None
        with torch.enable_grad():
            h = at.detach().clone().requires_grad_(True)
            (delta,) = torch.autograd.grad(loss.of(network.head_logits(h)), h)
        return delta

    if loss is None:
        nowhere = torch.zeros_like(features, dtype=torch.bool)
        return Known(
            value=features,
            known=~nowhere,
            spread=Spread.even(error),
            delta=torch.zeros_like(features),
            delta_known=nowhere,
        )

    delta = deltas(features)
    everywhere = torch.ones_like(delta, dtype=torch.bool)
    generator = torch.Generator().manual_seed(2)
    signs = torch.randint(0, 2, features.shape, generator=generator).to(features) * 2 - 1
    step = torch.where(torch.isfinite(error), error, 0.0)[:, None] / features.shape[1] ** 0.5
    return Known(
        value=features,
        known=everywhere,
        spread=Spread.even(error),
        delta=delta,
        delta_known=everywhere.clone(),
        doubt=deltas(features + signs * step) - delta,
    )
