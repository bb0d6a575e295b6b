"""The losses as torch computes them, for methods that differentiate through whole models."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional

from exan_verify.core.question import Loss


def summed_loss(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss with reduction sum; ``labels`` classes (M,), or targets (M, K) for mse and bce.

    Divide by ``loss.divisor(reduction, M, K)`` for another reduction.
    """
    return _SUMS[loss](logits, labels)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="sum")


def _hinge(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.multi_margin_loss(logits, labels, reduction="sum")


def _bce(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="sum")


def _mse(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.mse_loss(logits, labels.to(logits), reduction="sum")


_SUMS: Mapping[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    Loss.CROSS_ENTROPY: _cross_entropy,
    Loss.HINGE: _hinge,
    Loss.BCE: _bce,
    Loss.MSE: _mse,
}
