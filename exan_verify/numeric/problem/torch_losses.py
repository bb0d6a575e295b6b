"""The losses as torch computes them, for methods that differentiate through whole models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from exan_verify.core.question import Loss


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchLoss:
    """The loss of a batch with ``labels``, classes (M,) or targets (M, K), as its gradient was taken: the sum
    over samples divided by ``divisor``, with the ``smoothing`` of cross_entropy's class labels, and
    ``weights`` (M, 1), or (M, K) for losses that are sums over logits (mse and bce)."""

    loss: Loss
    labels: Tensor
    divisor: float
    smoothing: float = 0.0
    weights: Tensor | None = None

    def of(self, logits: Tensor) -> Tensor:
        """The loss at ``logits`` (M, K)."""
        if self.loss is Loss.CROSS_ENTROPY:
            losses = functional.cross_entropy(
                logits, self.labels, reduction="none", label_smoothing=self.smoothing
            )[:, None]
        else:
            losses = _EACH[self.loss](logits, self.labels)
        return (losses if self.weights is None else losses * self.weights).sum() / self.divisor


def summed_loss(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss with reduction sum; ``labels`` classes (M,), or targets (M, K) for mse and bce.

    Divide by ``loss.divisor(reduction, M, K)`` for another reduction.
    """
    return BatchLoss(loss=loss, labels=labels, divisor=1.0).of(logits)


def _hinge(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.multi_margin_loss(logits, labels, reduction="none")[:, None]


def _bce(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")


def _mse(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.mse_loss(logits, labels.to(logits), reduction="none")


_EACH: Mapping[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    Loss.HINGE: _hinge,
    Loss.BCE: _bce,
    Loss.MSE: _mse,
}
