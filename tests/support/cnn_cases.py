"""Convolutional models, batches and their gradients by autograd, for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exan_verify.core.question import Loss
from exan_verify.numeric.problem.torch_losses import summed_loss
from tests.support.torch_reference import uniform


def autograd(
    model: nn.Module, x: Tensor, y: Tensor, loss: str = "cross_entropy", reduction: str = "mean"
) -> dict[str, Tensor]:
    """The gradient of every trained parameter, with the dtype of ``x``."""
    model = model.to(x.dtype)
    logits = model(x)
    kind = Loss(loss)
    total = summed_loss(kind, logits, y)
    divisor = 1 if reduction == "sum" else kind.divisor("mean", len(x), logits.shape[1])  # type: ignore[arg-type]
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(total / divisor, list(named.values())), strict=True))


def pictures(shape: tuple[int, ...], samples: int, seed: int = 0) -> Tensor:
    """Smooth random pictures in [0, 1], float64."""
    raw = uniform(samples, *shape, seed=seed)
    return (raw + raw.roll(1, -1) + raw.roll(1, -2)) / 3


def largest_error(found: Tensor, truth: Tensor) -> Tensor:
    """For every found row the L-infinity distance to the nearest true one."""
    distances = torch.cdist(found.flatten(1), truth.flatten(1), p=float("inf"))
    return distances.min(dim=1).values
