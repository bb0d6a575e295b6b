"""Networks whose head is one Linear layer: what its gradient says, as an attack that claims accordingly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from exan_verify.errors import InputError, choice
from exan_verify.network import Loss, Reduction
from exan_verify.numeric.convolution.last_layer import SingleSample, last_layer, single_sample
from exan_verify.numeric.convolution.records import LastLayer
from exan_verify.numeric.convolution.stages import (
    AveragePool,
    ConvolutionalNetwork,
    Flatten,
    MaxPool,
    Relu,
)
from exan_verify.numeric.losses import fit_labels
from exan_verify.numeric.problem import LayerGradient, as_tensor
from exan_verify.numeric.records import Attack, Evidence

_MIXED = (
    "the head is a single Linear layer: its gradient determines features and loss vectors only up to a "
    "mixing of the {rank} samples that it shows"
)
_LIMIT = 64.0
"""Roundoffs between a loss vector and the one that its label gives."""


def attack_single_layer(
    network: ConvolutionalNetwork,
    gradient: Mapping[str, Tensor],
    *,
    loss: str,
    reduction: str,
    batch_size: int | None,
    device: Any,
    seed: int,
) -> tuple[Attack, LastLayer]:
    """Features of a batch of one sample, otherwise none; and what is determined in any case."""
    chosen = choice(Loss, loss, "loss")
    divided = choice(Reduction, reduction, "reduction")
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise InputError(f"batch_size={batch_size!r} is not a positive integer; give the number of samples")
    layer = _layer(network, gradient, torch.device("cpu" if device is None else device))
    roundoff = max(torch.finfo(tensor.dtype).eps / 2 for tensor in gradient.values())
    last = last_layer(layer, loss=chosen, unit_roundoff=roundoff, rectified=_rectified(network), seed=seed)
    size = batch_size or last.rank
    reason = _MIXED.format(rank=last.rank)
    if last.rank == 1 and size == 1 and network.head.has_bias:
        sample = single_sample(layer, roundoff)
        label = _label(network, sample, chosen, chosen.divisor(divided, 1, network.head.classes), roundoff)
        if label is not None:
            return _one(sample, label, batch_size), last
        reason = "no label explains the loss vector at full scale: more than one sample, or another loss"
    classes = chosen in (Loss.CROSS_ENTROPY, Loss.HINGE)
    k = network.head.classes
    none = torch.zeros(0, dtype=torch.long) if classes else torch.zeros(0, k, dtype=torch.float64)
    nothing = _attack(
        x=torch.zeros(0, network.head.widths[0], dtype=torch.float64, device=layer.bias.device),
        y=none.to(layer.bias.device),
        status=(),
        batch_size=size,
        source="rank" if batch_size is None else "given",
        reason=reason,
    )
    return nothing, last


def _layer(
    network: ConvolutionalNetwork, gradient: Mapping[str, Tensor], device: torch.device
) -> LayerGradient:
    (weight_name, weight), *rest = network.head.layers[0].parameters()
    d_weight = gradient[weight_name]
    zeros = torch.zeros(len(weight), dtype=torch.float64, device=device)
    bias, d_bias = zeros, zeros
    for name, value in rest:
        bias, d_bias = as_tensor(value, name).to(device).double(), gradient[name].double()
    return LayerGradient(
        weight=as_tensor(weight, weight_name).to(device), bias=bias, d_weight=d_weight, d_bias=d_bias
    )


def _rectified(network: ConvolutionalNetwork) -> bool:
    """Whether the features cannot be negative: a ReLU, then only pools and Flatten."""
    for stage in reversed(network.body):
        if isinstance(stage, Relu):
            return True
        if not isinstance(stage, (AveragePool, MaxPool, Flatten)):
            return False
    return False


def _label(
    network: ConvolutionalNetwork, sample: SingleSample, loss: Loss, divisor: int, roundoff: float
) -> Tensor | None:
    """The label that explains the loss vector at the sample's own logits; None where none does."""
    logits = network.head_logits(sample.features)
    identity = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[None]
    fit = fit_labels(loss, logits, identity, sample.vector, divisor=divisor)
    size = float(network.head_parameters(logits)[0][0].abs().sum(dim=1).max())
    scale = float(sample.vector.norm()) * divisor
    slack = _LIMIT * (float(sample.error.max()) * size + roundoff) / max(scale, 1e-300)
    explained = bool(fit.checked.all()) and float(fit.mismatch.max()) <= max(slack, _LIMIT * roundoff)
    return fit.labels if explained and slack < 0.05 else None


def _one(sample: SingleSample, label: Tensor, batch_size: int | None) -> Attack:
    evidence = Evidence(
        method="single sample",
        layer=None,
        error_bound=float(sample.error.max()),
        residual=0.0,
        isolation=1.0,
        label_residual=0.0,
        label_margin=float("inf"),
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
        unclaimed=(),
        reason=reason,
        seconds=0.0,
    )
