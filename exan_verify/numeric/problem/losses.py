"""Loss vectors and the labels that explain them (docs/theory.md sections 1 and 3.4)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Loss

REACH = 1e-3
"""Distance at which a target looks like one of the loss's label set."""

_SOFT = 1e-3
"""How far outside of [0, 1] rounding may take a real target of bce or cross_entropy."""

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

    def or_else(self, other: LabelFit, chosen: Bool[Tensor, " m"]) -> LabelFit:
        """This fit, and ``other`` for the ``chosen`` samples."""
        return LabelFit(
            **{
                one.name: torch.where(
                    chosen[:, None] if getattr(self, one.name).dim() == 2 else chosen,
                    getattr(other, one.name),
                    getattr(self, one.name),
                )
                for one in fields(self)
            }
        )


def class_vectors(loss: Loss, logits: Float[Tensor, "m K"], smoothing: float = 0.0) -> Float[Tensor, "m K K"]:
    """Undivided loss vectors of cross_entropy or hinge, ``[sample, label, logit]``; ``smoothing`` is that of
    cross_entropy's labels."""
    size = logits.shape[1]
    one_hot = torch.eye(size, dtype=logits.dtype, device=logits.device)
    if loss is Loss.CROSS_ENTROPY:
        p = logits.softmax(dim=1)
        vectors = p[:, None, :] - one_hot - smoothing / size
        # p_y - 1 as minus the sum of the others: without cancellation when the sample is fitted
        rest = -(vectors * (1 - one_hot)).sum(dim=2)
        return torch.where(one_hot.bool(), rest[:, :, None], vectors)
    violated = (1 - logits[:, :, None] + logits[:, None, :] > 0) * (1 - one_hot)
    return (violated - violated.sum(dim=2, keepdim=True) * one_hot) / size


def target_vectors(loss: Loss, logits: Float[Tensor, "m K"], targets: Float[Tensor, "m K"]) -> Tensor:
    """Undivided loss vectors of mse or bce, or of cross_entropy for soft labels."""
    if loss is Loss.MSE:
        return 2 * (logits - targets)
    if loss is Loss.CROSS_ENTROPY:
        return logits.softmax(dim=1) - targets
    # sigmoid(f) - y without cancellation at y = 1: (1 - y) sigmoid(f) - y sigmoid(-f)
    return (1 - targets) * logits.sigmoid() - targets * (-logits).sigmoid()


def loss_vectors(
    loss: Loss, logits: Float[Tensor, "m K"], labels: Tensor, smoothing: float = 0.0
) -> Float[Tensor, "m K"]:
    """Undivided loss vectors d loss / d logits for any loss, classes or targets."""
    if labels.dim() == 1:
        samples = torch.arange(len(labels), device=labels.device)
        return class_vectors(loss, logits, smoothing)[samples, labels]
    return target_vectors(loss, logits, labels)


def admissible(loss: Loss, targets: Float[Tensor, "m K"]) -> Bool[Tensor, " m"]:
    """Which real targets the loss admits: any for mse, probabilities for bce and cross_entropy."""
    if loss is Loss.MSE:
        return torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    inside: Tensor = ((targets >= -_SOFT) & (targets <= 1 + _SOFT)).all(dim=1)
    return inside


def told_apart(
    loss: Loss, vectors: Float[Tensor, "m K"], slack: Float[Tensor, " m"] | float = 0.0
) -> Bool[Tensor, " m"]:
    """Whose undivided loss vectors, known to ``slack`` relatively, could expose samples of one region that
    are seen as one, since theirs add up: not those that are constants of the labels alone, hinge's and the
    saturated ones of cross_entropy and bce (whole numbers, not all zero), which may add up to a label's."""
    if loss in (Loss.HINGE, Loss.MSE):
        return torch.full_like(vectors[:, 0], float(loss is Loss.MSE)).bool()
    fraction = (vectors - vectors.round()).abs().amax(dim=1)
    least = (10 * torch.as_tensor(slack)).clamp(min=1e-3).to(fraction)
    told: Tensor = ~vectors.round().bool().any(dim=1) | (fraction > least)
    return told


def loss_vector_error(
    loss: Loss, logits: Tensor, g: Tensor, logit_error: Tensor, unit: float, divisor: float
) -> Float[Tensor, " m"]:
    """How far logits off by ``logit_error`` (L2) and rounding move the divided loss vectors ``g``."""
    if loss is Loss.HINGE:
        rounded: Tensor = unit * g.norm(dim=1)
        return rounded
    divisor = abs(divisor)
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
    divisor: float,
    loss_vector_hint: Float[Tensor, "m K"] | None = None,
    reach: float = REACH,
    smoothing: float = 0.0,
    soft: bool = False,
    weighted: bool = False,
) -> LabelFit:
    """The labels whose loss vectors, mapped down by ``spans``, come nearest to the recovered ``deltas``.

    ``loss_vector_hint``: the divided loss vectors if another layer gives them; targets are then read off
    these, which matters where ``spans`` do not have full rank; classes that ``spans`` cannot tell apart
    (equal rows of W_L) are told by these. ``reach``: how near to the loss's label set every target must be to
    be moved onto it; the mismatch then tests the move. ``smoothing`` of cross_entropy's labels; ``soft``: its
    labels are any numbers. ``weighted``: every sample has an unknown positive factor, which is in ``counts``
    then and on ``vectors``, and the mismatch is the one at that factor.
    """
    g = loss_vector_hint
    if g is None:
        g = (torch.linalg.pinv(spans, rtol=1e-10) @ deltas[:, :, None])[:, :, 0]
    if weighted or (loss.class_labels and not soft):
        options = label_options(loss, logits, g * divisor, smoothing)
        if weighted and loss is Loss.BCE and logits.shape[1] > 1:
            return _fit_signs(options[0][:, 0], g, spans, deltas, divisor)
        if weighted:
            return _fit_weighted(*options, spans, deltas, divisor)
        return _fit_classes(options[1], spans, deltas, divisor, loss_vector_hint)
    targets = logits - g * divisor / 2 if loss is Loss.MSE else _link(loss, logits) - g * divisor
    targets, discrete = _discrete(loss, targets, reach)
    vectors = target_vectors(loss, logits, targets)
    mismatch, loose, counts = _compare((spans @ vectors[:, :, None])[:, :, 0], deltas, divisor)
    # the runner-up differs in one target by 1
    step = (2.0 if loss is Loss.MSE else 1.0) / abs(divisor)
    other = spans.norm(dim=1).amin(dim=1) * step / deltas.norm(dim=1)
    return LabelFit(
        labels=targets,
        vectors=vectors,
        mismatch=mismatch,
        loose=loose,
        counts=counts,
        margin=other / mismatch.clamp(min=1e-16),
        checked=discrete & (not soft),
    )


def _link(loss: Loss, logits: Tensor) -> Tensor:
    return logits.softmax(dim=1) if loss is Loss.CROSS_ENTROPY else logits.sigmoid()


def label_options(
    loss: Loss, logits: Float[Tensor, "m K"], g: Float[Tensor, "m K"], smoothing: float = 0.0
) -> tuple[Tensor, Float[Tensor, "m o K"]]:
    """The labels that a sample may have, classes (o,) or targets (m, o, K), and their loss vectors.

    Of the 2^K labels of bce only two are possible whatever the size of the loss vector ``g``: its entries are
    negative where the target is 1, or positive there if the factor of the gradient is negative.
    """
    size = logits.shape[1]
    if loss.class_labels:
        return torch.arange(size, device=logits.device), class_vectors(loss, logits, smoothing)
    if loss is Loss.BCE:
        targets = torch.stack([(g < 0).double(), (g > 0).double()], dim=1)
    elif size == 1:
        targets = logits.new_tensor([[[0.0], [1.0]]]).expand(len(logits), -1, -1)
    else:
        targets = torch.eye(size, dtype=logits.dtype, device=logits.device).expand(len(logits), -1, -1)
    flat = target_vectors(loss, logits.repeat_interleave(targets.shape[1], dim=0), targets.flatten(0, 1))
    return targets, flat.reshape(targets.shape)


def fit_scale(
    loss: Loss,
    logits: Float[Tensor, "m K"],
    spans: Float[Tensor, "m n K"],
    deltas: Float[Tensor, "m n"],
    *,
    divisor: float,
    within: Float[Tensor, " m"],
    smoothing: float = 0.0,
) -> tuple[float, int] | None:
    """The one factor, of either sign, at which labels explain most ``deltas`` to a relative distance
    ``within``, and how many; None where two factors explain as many, or one explains less than it must.

    A single sample's loss vector of one entry, or two that sum to zero, fits any factor.
    """
    g = (torch.linalg.pinv(spans, rtol=1e-10) @ deltas[:, :, None])[:, :, 0]
    vectors = label_options(loss, logits, g, smoothing)[1]
    images = vectors @ spans.mT / divisor
    tiny = torch.finfo(torch.float64).tiny
    scales = (images * deltas[:, None, :]).sum(dim=2) / images.square().sum(dim=2).clamp(min=tiny)
    misfit = (deltas[:, None, :] - scales[:, :, None] * images).norm(dim=2)
    misfit = misfit / deltas.norm(dim=1, keepdim=True).clamp(min=tiny)
    slack = within[:, None].expand_as(misfit)
    fits = (misfit <= slack) & (scales != 0)
    if not bool(fits.any()):
        return None
    chosen, samples = scales[fits], torch.nonzero(fits)[:, 0]
    precise = slack[fits].clamp(min=1e-15)
    # agrees[i, k]: option k has the factor of option i, as far as the two are known
    agrees = (chosen[:, None] / chosen - 1).abs() <= 2 * (precise[:, None] + precise)
    votes = torch.zeros(len(chosen), len(logits), dtype=torch.bool, device=logits.device)
    votes = votes.index_put(
        (torch.nonzero(agrees)[:, 0], samples[torch.nonzero(agrees)[:, 1]]), agrees.new_tensor(True)
    )
    counts = votes.sum(dim=1)
    best = int(counts.argmax())
    free = 1 + int(loss.zero_sum)
    if int(counts[best]) == 1 and (len(logits) > 1 or logits.shape[1] <= free):
        return None
    rivals = ~agrees[best] & (counts == counts[best])
    if bool(rivals.any()):
        return None
    weights = agrees[best] / precise.square()
    return float((weights * chosen).sum() / weights.sum()), int(counts[best])


def _fit_weighted(labels: Tensor, vectors: Tensor, spans: Tensor, deltas: Tensor, divisor: float) -> LabelFit:
    """Labels by the direction of the loss vector alone."""
    _, loose, counts = _compare(vectors @ spans.mT, deltas[:, None, :], divisor)
    order = loose.argsort(dim=1)
    samples = torch.arange(len(order), device=order.device)
    best, next_best = order[:, 0], order[:, min(1, order.shape[1] - 1)]
    misfit = loose[samples, best]
    return LabelFit(
        labels=best if labels.dim() == 1 else labels[samples, best],
        vectors=vectors[samples, best] * counts[samples, best][:, None],
        mismatch=misfit,
        loose=misfit,
        counts=counts[samples, best],
        margin=loose[samples, next_best] / misfit.clamp(min=1e-16),
        checked=torch.ones_like(best, dtype=torch.bool),
    )


def _fit_signs(targets: Tensor, g: Tensor, spans: Tensor, deltas: Tensor, divisor: float) -> LabelFit:
    """0/1 targets by the signs of a loss vector of which every entry has a positive factor (pos_weight)."""
    norm = deltas.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    missed = ((spans @ g[:, :, None])[:, :, 0] - deltas).norm(dim=1) / norm
    # the next label has another sign at the weakest entry
    other = (spans.norm(dim=1) * g.abs()).amin(dim=1) / norm
    return LabelFit(
        labels=targets,
        vectors=g * divisor,
        mismatch=missed,
        loose=missed,
        counts=torch.ones_like(missed),
        margin=other / missed.clamp(min=1e-16),
        checked=torch.ones_like(missed, dtype=torch.bool),
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
    vectors: Tensor, spans: Tensor, deltas: Tensor, divisor: float, hint: Tensor | None
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


def _compare(images: Tensor, deltas: Tensor, divisor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Relative distance of ``images / divisor`` to ``deltas``, as is and at the best scale; that scale."""
    tiny = torch.finfo(torch.float64).tiny
    images = images / divisor
    norm = deltas.norm(dim=-1).clamp(min=tiny)
    scale = (images * deltas).sum(dim=-1) / images.square().sum(dim=-1).clamp(min=tiny)
    loose = (deltas - scale[..., None] * images).norm(dim=-1) / norm
    loose = torch.where(scale > 0, loose, torch.full_like(loose, torch.inf))
    return (deltas - images).norm(dim=-1) / norm, loose, scale
