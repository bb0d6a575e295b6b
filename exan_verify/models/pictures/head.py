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
from exan_verify.models.normalised import NORMS, check_norm
from exan_verify.models.pictures.stages import Fold, HeadGradient

_Before = tuple[Tensor, Tensor, str]
"""Factor and shift of a BatchNorm1d that waits for the Linear after it, and its path."""

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
    pending: _Before | None = None
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


def _head_linear(step: HeadStep, before: _Before | None) -> tuple[Linear, HeadGradient]:
    module, path = step.module, step.path
    assert isinstance(module, nn.Linear)
    prefix = f"{path}." if path else ""
    weight = module.weight.detach()
    bias = None if module.bias is None else module.bias.detach()
    if before is not None:
        factor, shift, _ = before
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
        weight=f"{prefix}weight",
        bias=None if bias is None else f"{prefix}bias",
        before=None if before is None else before[:2],
        before_path="" if before is None else before[2],
    )
    return layer, names


def _head_norm(
    chain: list[Step], sources: list[HeadGradient], step: HeadStep, pending: _Before | None
) -> _Before | None:
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
        return factor, shift, step.path
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
    fold = Fold(path=step.path, scale=factor, shift=trained_shift(step.module, step.path))
    sources[-1] = replace(sources[-1], fold=fold)
    return None


def normalisation(module: Any, path: str) -> tuple[Tensor, Tensor]:
    """``factor, shift``, (C,) each, of a BatchNorm in eval mode. Raises where it uses the batch's own
    statistics.
    """
    check_norm(module, path)
    factor = (module.running_var.double() + module.eps).rsqrt()
    shift = -module.running_mean.double() * factor
    if module.affine:
        factor = factor * module.weight.detach().double()
        shift = shift * module.weight.detach().double() + module.bias.detach().double()
    return factor, shift


def trained_shift(module: Any, path: str) -> str | None:
    """The name of a BatchNorm's bias; None where its gradient is not shared."""
    return f"{path}.bias" if module.affine and module.bias.requires_grad else None


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
    norms = {n for n, m in model.named_modules() if isinstance(m, NORMS)}
    core = [name for name in used if name.rpartition(".")[0] not in norms]
    frozen = sorted(name for name in core if not named[name].requires_grad)
    if 0 < len(frozen) < len(core):
        raise InputError(
            f"parameters {frozen} are frozen, so their gradient is never shared; "
            "set requires_grad=True for all Conv2d and Linear layers or for none"
        )
