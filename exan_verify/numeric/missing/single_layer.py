"""The last Linear layer's gradient without any other: what it says, as an attack that claims accordingly."""

from __future__ import annotations

import torch
from torch import Tensor

from exan_verify.core.question import Loss, Question
from exan_verify.errors import InputError
from exan_verify.numeric.methods.one_sample import telling
from exan_verify.numeric.missing.last_layer import SingleSample, last_layer, single_sample
from exan_verify.numeric.problem.losses import fit_labels
from exan_verify.numeric.problem.problem import LayerGradient
from exan_verify.numeric.problem.records import Attack, Evidence, LastLayer, Tier

_MIXED = "{name} determines features and loss vectors only up to a mixing of the {rank} samples that it shows"
_LIMIT = 64.0
"""Roundoffs between a loss vector and the one that its label gives."""


def attack_single_layer(
    layer: LayerGradient,
    *,
    name: str,
    question: Question,
    unit_roundoff: float,
    rectified: bool,
    seed: int,
) -> tuple[Attack, LastLayer]:
    """Features of a batch of one sample, otherwise none; and what is determined in any case.

    ``name``: what the gradient is called in the reason; ``rectified``: the features cannot be negative.
    """
    loss, batch_size = question.loss, question.batch_size
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise InputError(f"batch_size={batch_size!r} is not a positive integer; give the number of samples")
    last = last_layer(layer, loss=loss, unit_roundoff=unit_roundoff, rectified=rectified, seed=seed)
    reason = _MIXED.format(name=name, rank=last.rank)
    classes, width = layer.shape
    if last.rank == 1 and batch_size in (None, 1) and layer.whole:
        sample = single_sample(layer, unit_roundoff)
        label, telling_apart = _label(layer, sample, loss, question.divisor(1, classes), unit_roundoff)
        if label is not None and (telling_apart or batch_size == 1):
            return _one(sample, label, batch_size), last
        reason = (
            "no label explains the loss vector at full scale: more than one sample, or another loss"
            if label is None
            else "the loss vector would fit a mixture of several samples as well (constant or saturated); "
            "one sample can be confirmed only when batch_size=1 is given"
        )
    none = (
        torch.zeros(0, dtype=torch.long)
        if loss.class_labels
        else torch.zeros(0, classes, dtype=torch.float64)
    )
    nothing = _attack(
        x=torch.zeros(0, width, dtype=torch.float64, device=layer.bias.device),
        y=none.to(layer.bias.device),
        status=(),
        batch_size=batch_size or last.rank,
        source="rank" if batch_size is None else "given",
        reason=reason,
    )
    return nothing, last


def _label(
    layer: LayerGradient, sample: SingleSample, loss: Loss, divisor: int, roundoff: float
) -> tuple[Tensor | None, bool]:
    """The label that explains the loss vector at the sample's own logits, None where none does; and whether
    the vector would expose several samples whose loss vectors are parallel.
    """
    logits = layer.forward(sample.features)
    identity = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[None]
    fit = fit_labels(loss, logits, identity, sample.vector, divisor=divisor)
    size = float(layer.weight.double().abs().sum(dim=1).max())
    scale = float(sample.vector.norm()) * divisor
    slack = _LIMIT * (float(sample.error.max()) * size + roundoff) / max(scale, 1e-300)
    explained = bool(fit.checked.all()) and float(fit.mismatch.max()) <= max(slack, _LIMIT * roundoff)
    if not explained or slack >= 0.05:
        return None, False
    return fit.labels, telling(loss, fit, slack)


def _one(sample: SingleSample, label: Tensor, batch_size: int | None) -> Attack:
    evidence = Evidence(
        method="single sample",
        layer=None,
        error_bound=float(sample.error.max()),
        residual=0.0,
        isolation=1.0,
        label_residual=0.0,
        label_margin=float("inf"),
        # a gradient of rank 1 whose bias entry is not zero leaves one sample nothing to choose
        tier=Tier.CONFIRMED,
    )
    return _attack(
        x=sample.features,
        y=label,
        status=(evidence,),
        batch_size=1,
        source="rank" if batch_size is None else "given",
        reason="",
    )


def _attack(
    *, x: Tensor, y: Tensor, status: tuple[Evidence, ...], batch_size: int, source: str, reason: str
) -> Attack:
    return Attack(
        x=x,
        y=y,
        status=status,
        gradient_residual=0.0 if status else 1.0,
        complete=bool(status),
        batch_size=batch_size,
        batch_size_source=source,
        method="single layer",
        layer=None,
        layers=(),
        candidates=(),
        reason=reason,
        seconds=0.0,
    )
