"""Loss vectors and the labels that explain them (docs/theory.md sections 1 and 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Loss

_CLASS_LOSSES = (Loss.CROSS_ENTROPY, Loss.HINGE)

REACH = 1e-3
"""Distance at which a target looks like one of the loss's label set."""

_TIE = 1e-6
"""Classes whose deltas are this close, relatively, are one to the first layer: others differ by order 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelFit:
    """Labels read off recovered deltas.

    ``labels`` (m,) classes or (m, K) targets; ``vectors`` (m, K) their undivided loss vectors; ``mismatch``
    (m,) relative distance between the deltas these give, divided by the divisor, and the recovered ones;
    ``loose`` (m,) the same after the best scaling, and ``counts`` (m,) that scaling (1: one whole sample);
    ``margin`` (m,): mismatch of the second best label over that of the best.
    ``checked`` (m,): whether the label comes from a discrete set, so that the mismatch tests it.
    """

    labels: Tensor
    vectors: Tensor
    mismatch: Tensor
    loose: Tensor
    counts: Tensor
    margin: Tensor
    checked: Tensor


def class_vectors(loss: Loss, logits: Float[Tensor, "m K"]) -> Float[Tensor, "m K K"]:
    """Undivided loss vectors of cross_entropy or hinge, ``[sample, label, logit]``."""
    size = logits.shape[1]
    one_hot = torch.eye(size, dtype=logits.dtype, device=logits.device)
    if loss is Loss.CROSS_ENTROPY:
        p = logits.softmax(dim=1)
        vectors = p[:, None, :] - one_hot
        # p_y - 1 as minus the sum of the others: without cancellation when the sample is fitted
        rest = -(p[:, None, :] * (1 - one_hot)).sum(dim=2)
        return torch.where(one_hot.bool(), rest[:, :, None], vectors)
    violated = (1 - logits[:, :, None] + logits[:, None, :] > 0) * (1 - one_hot)
    return (violated - violated.sum(dim=2, keepdim=True) * one_hot) / size


def target_vectors(loss: Loss, logits: Float[Tensor, "m K"], targets: Float[Tensor, "m K"]) -> Tensor:
    """Undivided loss vectors of mse or bce."""
    if loss is Loss.MSE:
        return 2 * (logits - targets)
    # sigmoid(f) - y without cancellation at y = 1: (1 - y) sigmoid(f) - y sigmoid(-f)
    return (1 - targets) * logits.sigmoid() - targets * (-logits).sigmoid()


def loss_vectors(loss: Loss, logits: Float[Tensor, "m K"], labels: Tensor) -> Float[Tensor, "m K"]:
    """Undivided loss vectors d loss / d logits for any loss."""
    if loss in _CLASS_LOSSES:
        return class_vectors(loss, logits)[torch.arange(len(labels), device=labels.device), labels]
    return target_vectors(loss, logits, labels)


def loss_vector_error(
    loss: Loss, logits: Tensor, g: Tensor, logit_error: Tensor, unit: float, divisor: int
) -> Float[Tensor, " m"]:
    """How far logits off by ``logit_error`` (L2) and rounding move the divided loss vectors ``g``."""
    if loss is Loss.HINGE:
        rounded: Tensor = unit * g.norm(dim=1)
        return rounded
    if loss is Loss.MSE:
        moved: Tensor = 2 * logit_error / divisor + 2 * unit * (logits.norm(dim=1) / divisor + g.norm(dim=1))
        return moved
    p = logits.softmax(dim=1) if loss is Loss.CROSS_ENTROPY else logits.sigmoid()
    steepest = (p * (1 - p)).amax(dim=1)
    # the label's entry is computed as p - 1: its rounding is absolute, whatever is left of it
    return (steepest * logit_error + unit) / divisor


def fit_labels(
    loss: Loss,
    logits: Float[Tensor, "m K"],
    spans: Float[Tensor, "m n K"],
    deltas: Float[Tensor, "m n"],
    *,
    divisor: int,
    loss_vector_hint: Float[Tensor, "m K"] | None = None,
    reach: float = REACH,
) -> LabelFit:
    """The labels whose loss vectors, mapped down by ``spans``, come nearest to the recovered ``deltas``.

    ``loss_vector_hint``: the divided loss vectors if another layer gives them; targets are then read off
    these, which matters where ``spans`` do not have full rank; classes that ``spans`` cannot tell apart
    (equal rows of W_L) are told by these. ``reach``: how near to the loss's label set every target must be to
    be moved onto it; the mismatch then tests the move.
    """
    if loss in _CLASS_LOSSES:
        return _fit_classes(class_vectors(loss, logits), spans, deltas, divisor, loss_vector_hint)
    g = loss_vector_hint
    if g is None:
        g = (torch.linalg.pinv(spans, rtol=1e-10) @ deltas[:, :, None])[:, :, 0]
    targets = logits - g * divisor / 2 if loss is Loss.MSE else logits.sigmoid() - g * divisor
    targets, discrete = _discrete(loss, targets, reach)
    vectors = target_vectors(loss, logits, targets)
    mismatch, loose, counts = _compare((spans @ vectors[:, :, None])[:, :, 0], deltas, divisor)
    # the runner-up differs in one target by 1
    step = (2.0 if loss is Loss.MSE else 1.0) / divisor
    other = spans.norm(dim=1).amin(dim=1) * step / deltas.norm(dim=1)
    return LabelFit(
        labels=targets,
        vectors=vectors,
        mismatch=mismatch,
        loose=loose,
        counts=counts,
        margin=other / mismatch.clamp(min=1e-16),
        checked=discrete,
    )


def _discrete(loss: Loss, targets: Float[Tensor, "m K"], reach: float) -> tuple[Tensor, Tensor]:
    """Targets within ``reach`` of the label set (0/1 vectors; one-hot for mse) moved onto it, and which."""
    rounded = targets.round()
    near = ((targets - rounded).abs() < reach).all(dim=1)
    binary = ((rounded == 0) | (rounded == 1)).all(dim=1)
    if loss is Loss.MSE and targets.shape[1] > 1:
        binary = binary & (rounded.sum(dim=1) == 1)
    discrete = near & binary
    return torch.where(discrete[:, None], rounded.abs(), targets), discrete


def _fit_classes(
    vectors: Tensor, spans: Tensor, deltas: Tensor, divisor: int, hint: Tensor | None
) -> LabelFit:
    mismatch, loose, counts = _compare(vectors @ spans.mT, deltas[:, None, :], divisor)
    distance = mismatch
    if hint is not None:
        tied = mismatch <= torch.clamp(10 * mismatch.amin(dim=1, keepdim=True), min=_TIE)
        apart = (vectors / divisor - hint[:, None, :]).norm(dim=2) * divisor
        distance = torch.where(tied.sum(dim=1, keepdim=True) > 1, torch.where(tied, apart, 4.0), mismatch)
    order = distance.argsort(dim=1)
    samples = torch.arange(len(order), device=order.device)
    best = order[:, 0]
    second = distance[samples, order[:, min(1, order.shape[1] - 1)]]
    return LabelFit(
        labels=best,
        vectors=vectors[samples, best],
        mismatch=mismatch[samples, best],
        loose=loose.amin(dim=1),
        counts=counts[samples, loose.argmin(dim=1)],
        margin=second / distance[samples, best].clamp(min=1e-16),
        checked=torch.ones_like(best, dtype=torch.bool),
    )


def _compare(images: Tensor, deltas: Tensor, divisor: int) -> tuple[Tensor, Tensor, Tensor]:
    """Relative distance of ``images / divisor`` to ``deltas``, as is and at the best scale; that scale."""
    tiny = torch.finfo(torch.float64).tiny
    images = images / divisor
    norm = deltas.norm(dim=-1).clamp(min=tiny)
    scale = (images * deltas).sum(dim=-1) / images.square().sum(dim=-1).clamp(min=tiny)
    loose = (deltas - scale[..., None] * images).norm(dim=-1) / norm
    loose = torch.where(scale > 0, loose, torch.full_like(loose, torch.inf))
    return (deltas - images).norm(dim=-1) / norm, loose, scale
