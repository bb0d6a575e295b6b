"""What is asked: the loss and its traits, the reduction, the admitted labels and inputs, the size: one
record.

Setting and notation: docs/theory.md section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.arrays import Array, exact_array, freeze
from exan_verify.errors import InputError, choice

if TYPE_CHECKING:
    from exan_verify.core.network import Batch


class Loss(StrEnum):
    """Loss functions, named as in ``torch.nn.functional`` (docs/theory.md section 1)."""

    CROSS_ENTROPY = "cross_entropy"
    BCE = "bce"
    MSE = "mse"
    HINGE = "hinge"

    @property
    def rational(self) -> bool:
        """Whether the loss vector is a rational function of rational logits."""
        return self in (Loss.MSE, Loss.HINGE)

    @property
    def class_labels(self) -> bool:
        """Whether a label is a class (an integer) and not a vector of K targets."""
        return self in (Loss.CROSS_ENTROPY, Loss.HINGE)

    @property
    def zero_sum(self) -> bool:
        """Whether the entries of every loss vector sum to zero, whatever the logits and the label."""
        return self in (Loss.CROSS_ENTROPY, Loss.HINGE)

    def divisor(self, reduction: Reduction, samples: int, classes: int) -> int:
        """What the sum over samples is divided by, as torch does for this loss and ``reduction``."""
        if reduction is Reduction.SUM:
            return 1
        return samples * classes if self in (Loss.MSE, Loss.BCE) else samples


class Reduction(StrEnum):
    """How torch reduces the loss over the batch."""

    MEAN = "mean"
    SUM = "sum"


class Labels(StrEnum):
    """Which labels the question admits (docs/theory.md section 1).

    ``one_hot``: unknown labels of the loss's kind (a class; for bce a 0/1 vector; for mse a one-hot target,
    and 0 or 1 when there is a single logit). ``known``: the batch's own labels in unknown order.
    ``real``: arbitrary real targets (mse only).
    """

    ONE_HOT = "one_hot"
    KNOWN = "known"
    REAL = "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A domain of inputs: ``lo <= x <= hi``, each a scalar or one value per feature (d,).

    Raises :class:`InputError` when a bound is not finite or ``lo > hi`` somewhere.
    """

    lo: Any
    hi: Any

    def __init__(self, lo: Any, hi: Any) -> None:
        low, high = (exact_array(v, n) for v, n in ((lo, "Box.lo"), (hi, "Box.hi")))
        low, high = (freeze(np.atleast_1d(v)) for v in (low, high))
        if not (low.ndim == high.ndim == 1 and (low.size == 1 or high.size in (1, low.size))):
            raise InputError(
                f"Box: lo has shape {low.shape} and hi {high.shape}; give scalars, or one value per feature"
            )
        if np.any(low > high):
            raise InputError("Box: lo is greater than hi; swap the bounds")
        object.__setattr__(self, "lo", low)
        object.__setattr__(self, "hi", high)

    def bounds(self, features: int) -> tuple[Array, Array]:
        """``(lo, hi)``, each of shape (features,). Raises :class:`InputError` on another length."""
        for name, value in (("lo", self.lo), ("hi", self.hi)):
            if value.shape not in ((1,), (features,)):
                raise InputError(f"Box.{name} has shape {value.shape}; give a scalar or ({features},) values")
        return np.broadcast_to(self.lo, (features,)), np.broadcast_to(self.hi, (features,))

    def contains(self, batch: Batch) -> bool:
        """Whether every input of ``batch`` lies in the box, exactly."""
        lo, hi = self.bounds(batch.inputs.shape[1])
        return bool(np.all(batch.inputs >= lo) and np.all(batch.inputs <= hi))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which batches are asked about, apart from the network and the gradient (docs/theory.md section 1).

    ``domain``: a box that contains every input, or None for R^d. ``batch_size``: M, or None where it is not
    said. ``tolerance``: gradients count whose entries differ by at most this much; None: only the gradient
    itself.
    """

    loss: Loss
    reduction: Reduction = Reduction.MEAN
    labels: Labels = Labels.ONE_HOT
    domain: Box | None = None
    batch_size: int | None = None
    tolerance: Fraction | None = None

    @classmethod
    def of(
        cls,
        loss: str,
        reduction: str,
        labels: str,
        *,
        domain: Box | None = None,
        batch_size: int | None = None,
        tolerance: Fraction | None = None,
    ) -> Question:
        """The question in a user's words. Raises :class:`InputError` naming the argument and its options."""
        return cls(
            loss=choice(Loss, loss, "loss"),
            reduction=choice(Reduction, reduction, "reduction"),
            labels=choice(Labels, labels, "labels"),
            domain=domain,
            batch_size=batch_size,
            tolerance=tolerance,
        )

    @property
    def samples(self) -> int:
        """M, where it is said; asking for it where it is not is a defect of the caller."""
        assert self.batch_size is not None
        return self.batch_size

    def divisor(self, samples: int, classes: int) -> int:
        """What the sum over ``samples`` is divided by."""
        return self.loss.divisor(self.reduction, samples, classes)
