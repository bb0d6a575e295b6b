"""The fully connected head of a convolutional model, BatchNorm folded in, and checks of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from exan_verify.core.network import Linear, ReluNetwork, exact_array
from exan_verify.errors import InputError, UnsupportedLayerError
from exan_verify.models.chain import Kind, Step, assemble, describe
from exan_verify.models.stages import Fold, HeadGradient

_SUPPORTED = "after flattening use Linear, BatchNorm1d (in eval mode, beside a Linear) and ReLU"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadStep:
    """A step of the head: Linear, BatchNorm1d or ReLU (no module)."""

    path: str
    module: nn.Module | None = None


def assemble_head(steps: Sequence[HeadStep]) -> tuple[ReluNetwork, list[HeadGradient]]:
    """The head as a ReluNetwork of effective layers, and where their gradients come from."""
    chain: list[Step] = []
    sources: list[HeadGradient] = []
    pending: tuple[Tensor, Tensor] | None = None
    for step in steps:
        if step.module is None:
            if pending is not None:
                raise UnsupportedLayerError(
                    f"ReLU {step.path!r} follows a BatchNorm1d that follows no Linear; {_SUPPORTED}"
                )
            chain.append(Step(kind=Kind.RELU, path=step.path))
        elif isinstance(step.module, nn.BatchNorm1d):
            pending = _head_norm(chain, sources, step, pending)
        else:
            layer, source = _head_linear(step, pending)
            chain.append(Step(kind=Kind.LINEAR, path=step.path, layer=layer))
            sources.append(source)
            pending = None
    if pending is not None:
        raise UnsupportedLayerError(f"a BatchNorm1d ends the model without a Linear beside it; {_SUPPORTED}")
    return assemble(chain), sources


def _head_linear(step: HeadStep, before: tuple[Tensor, Tensor] | None) -> tuple[Linear, HeadGradient]:
    module, path = step.module, step.path
    assert isinstance(module, nn.Linear)
    prefix = f"{path}." if path else ""
    weight = module.weight.detach()
    bias = None if module.bias is None else module.bias.detach()
    if before is not None:
        factor, shift = before
        if bias is None:
            raise UnsupportedLayerError(
                f"{describe(module, path)} has no bias and follows a BatchNorm1d; give it a bias"
            )
        bias = bias.double() + weight.double() @ shift
        weight = weight.double() * factor
    layer = Linear(
        weight=exact_array(weight, f"{prefix}weight"),
        bias=None if bias is None else exact_array(bias, f"{prefix}bias"),
        name=path,
    )
    names = HeadGradient(
        weight=f"{prefix}weight", bias=None if bias is None else f"{prefix}bias", before=before
    )
    return layer, names


def _head_norm(
    chain: list[Step], sources: list[HeadGradient], step: HeadStep, pending: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor] | None:
    """Fold a BatchNorm1d into the Linear before it, or keep it for the Linear after it."""
    assert step.module is not None
    factor, shift = normalisation(step.module, step.path)
    if not bool(factor.all()) or pending is not None:
        raise UnsupportedLayerError(
            f"{describe(step.module, step.path)} has a weight of zero or follows another BatchNorm1d; "
            "remove what it switches off"
        )
    last = chain[-1] if chain else None
    if last is None or last.layer is None:
        return factor, shift
    weight, bias = (torch.tensor(a) if a is not None else None for a in (last.layer.weight, last.layer.bias))
    assert weight is not None
    folded = shift if bias is None else factor * bias.double() + shift
    chain[-1] = replace(
        last,
        layer=Linear(
            weight=exact_array(weight.double() * factor[:, None], f"{last.path}.weight"),
            bias=exact_array(folded, f"{last.path}.bias"),
            name=last.layer.name,
        ),
    )
    fold = Fold(scale=factor, shift=trained_shift(step.module, step.path))
    sources[-1] = replace(sources[-1], fold=fold)
    return None


def normalisation(module: Any, path: str) -> tuple[Tensor, Tensor]:
    """``factor, shift``, (C,) each, of a BatchNorm in eval mode. Raises where it uses the batch's own
    statistics.
    """
    if module.training or module.running_mean is None:
        raise UnsupportedLayerError(
            f"{describe(module, path)} normalises by the batch's own statistics, which mixes its samples: "
            "the gradient is not a sum of one term per sample; "
            "call model.eval() first, with track_running_stats=True"
        )
    check_numbers(module, path)
    factor = (module.running_var.double() + module.eps).rsqrt()
    shift = -module.running_mean.double() * factor
    if module.affine:
        factor = factor * module.weight.detach().double()
        shift = shift * module.weight.detach().double() + module.bias.detach().double()
    return factor, shift


def trained_shift(module: Any, path: str) -> str | None:
    """The name of a BatchNorm's bias; None where its gradient is not shared."""
    return f"{path}.bias" if module.affine and module.bias.requires_grad else None


def check_numbers(module: nn.Module, path: str) -> None:
    """Refuse parameters and running statistics without numbers, or with NaN among them."""
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        full = f"{path}.{name}" if path else name
        if tensor.is_meta:
            raise InputError(f"{full} is on the meta device and has no numbers; load the weights first")
        if tensor.is_floating_point():
            exact_array(tensor, full)


def check_parameters(model: nn.Module, used: Mapping[str, bool]) -> None:
    """Every trained parameter must belong to one step, once: the shared gradient has them all."""
    named = dict(model.named_parameters(remove_duplicate=False))
    tensors = [id(p) for p in named.values()]
    shared = sorted(name for name, p in named.items() if tensors.count(id(p)) > 1)
    if shared:
        raise UnsupportedLayerError(
            f"parameters {shared} are one and the same tensor; give every layer its own parameters"
        )
    unused = sorted(name for name, p in named.items() if name not in used and p.requires_grad)
    if unused:
        raise InputError(f"parameters {unused} do not enter the forward pass; remove them from the model")
    norms = {n for n, m in model.named_modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d))}
    core = [name for name in used if name.rpartition(".")[0] not in norms]
    frozen = sorted(name for name in core if not named[name].requires_grad)
    if 0 < len(frozen) < len(core):
        raise InputError(
            f"parameters {frozen} are frozen, so their gradient is never shared; "
            "set requires_grad=True for all Conv2d and Linear layers or for none"
        )
