"""From the model's tensors to the gradients of the effective parameters, BatchNorm folded in or out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exan_verify.errors import GradientError, NonFiniteError, raise_problems
from exan_verify.models.pictures.stages import Convolution, ConvolutionalNetwork, HeadGradient
from exan_verify.numeric.problem.problem import as_tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConvolutionGradient:
    """dW of an effective convolution, and db where the model shares it; float64."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitGradient:
    """``head`` under the names of the head's layers, in the given dtypes; ``body`` by place of the stage.

    ``unit_roundoff``: of the coarsest dtype among the convolutions' tensors. ``missing``: names of the
    model's tensors that were not given; what needs them is in neither ``head`` nor ``body``.
    """

    head: Mapping[str, Tensor]
    body: Mapping[int, ConvolutionGradient]
    unit_roundoff: float
    missing: tuple[str, ...] = ()


def split_gradient(
    network: ConvolutionalNetwork,
    gradient: Mapping[str, Any],
    device: torch.device,
    *,
    partial: bool = False,
) -> SplitGradient:
    """Check ``gradient`` and map it to effective parameters.

    Tensors of BatchNorm that nothing needs may be missing, any with ``partial``. Raises
    :class:`GradientError` listing every missing, extra or misshaped tensor, :class:`NonFiniteError` naming
    those with NaN.
    """
    tensors = {name: as_tensor(value, f"gradient[{name!r}]") for name, value in gradient.items()}
    missing = _check(network, tensors, partial=partial)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    head: dict[str, Tensor] = {}
    for layer, source in zip(network.head.layers, network.head_sources, strict=True):
        weight, bias = _head_pair(source, tensors)
        (weight_name, _), *rest = layer.parameters()
        if weight is not None:
            head[weight_name] = weight
        for name, _ in rest:
            if bias is None and partial:
                continue
            if bias is None:
                raise GradientError(
                    f"tensor {name!r} has no gradient because BatchNorm's bias is frozen; "
                    "set requires_grad=True"
                )
            head[name] = bias
    given = {k: stage for k, stage in network.convolutions.items() if stage.names[0] in tensors}
    return SplitGradient(
        head=head,
        body={k: _convolution(stage, tensors) for k, stage in given.items()},
        unit_roundoff=max(
            (torch.finfo(tensors[s.names[0]].dtype).eps / 2 for s in given.values()), default=2.0**-53
        ),
        missing=missing,
    )


def _head_pair(source: HeadGradient, tensors: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """dW and db of the effective layer, each None where it or what it is folded from is missing."""
    weight = tensors.get(source.weight)
    bias = None if source.bias is None else tensors.get(source.bias)
    dtype = next((t.dtype for t in (weight, bias) if t is not None), torch.float64)
    if source.fold is not None:
        shift = source.fold.shift
        bias = tensors.get(shift) if shift is not None else _over(bias, source.fold.scale)
        if weight is not None:
            weight = weight.double() / source.fold.scale.to(weight.device)[:, None]
    if source.before is not None and weight is not None:
        factor, moved = (value.to(weight.device) for value in source.before)
        weight = None if bias is None else (weight.double() - bias.double()[:, None] * moved) / factor
    # back to the given dtype: its rounding is what the attack reads off it
    return None if weight is None else weight.to(dtype), None if bias is None else bias.to(dtype)


def _convolution(stage: Convolution, tensors: Mapping[str, Tensor]) -> ConvolutionGradient:
    weight_name, bias_name = stage.names
    weight = tensors[weight_name].double()
    bias = None if bias_name is None else tensors.get(bias_name)
    if stage.fold is not None:
        scale = stage.fold.scale.to(weight.device)
        weight = weight / scale[:, None, None, None]
        shift = stage.fold.shift
        bias = tensors.get(shift) if shift is not None else _over(bias, scale)
    return ConvolutionGradient(weight=weight, bias=None if bias is None else bias.double())


def _over(bias: Tensor | None, scale: Tensor) -> Tensor | None:
    return None if bias is None else bias.double() / scale.to(bias.device)


def _check(network: ConvolutionalNetwork, tensors: Mapping[str, Tensor], *, partial: bool) -> tuple[str, ...]:
    """The names of needed tensors that are missing; raises unless ``partial``."""
    missing = tuple(name for name in _needed(network) if name not in tensors)
    problems = [
        f"tensor {name!r} of shape {network.parameters[name]} is missing; add it, or say partial=True "
        "(--partial) if it is not known"
        for name in missing
        if not partial
    ]
    if partial and not tensors:
        problems = ["the gradient has no tensors; pass those that are known, under the parameters' names"]
    for name, tensor in tensors.items():
        shape = network.parameters.get(name)
        if shape is None:
            known = ", ".join(network.parameters)
            problems.append(f"tensor {name!r} belongs to no parameter (there are: {known}); remove it")
        elif tuple(tensor.shape) != shape:
            problems.append(
                f"tensor {name!r} has shape {tuple(tensor.shape)}, the parameter has {shape}; "
                "pass the gradient of this model"
            )
    raise_problems(GradientError, problems)
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    raise_problems(
        NonFiniteError,
        [f"gradient[{n!r}] contains NaN or an infinity; all numbers must be finite" for n in bad],
    )
    if not any(bool(tensor.any()) for tensor in tensors.values()):
        raise GradientError(
            "every entry of the gradient is zero, so it says nothing about the batch; "
            "check that it was taken after backward() and before zero_grad()"
        )
    return missing


def _needed(network: ConvolutionalNetwork) -> list[str]:
    names: list[str | None] = []
    for stage in network.convolutions.values():
        names += [*stage.names, stage.fold.shift if stage.fold is not None else None]
    for source in network.head_sources:
        names += [source.weight, source.bias, source.fold.shift if source.fold is not None else None]
    return [name for name in names if name is not None]
