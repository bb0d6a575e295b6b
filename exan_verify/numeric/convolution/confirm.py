"""The last word on recovered pictures: their own features, and the convolutions' gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from exan_verify.models.pictures.stages import ConvolutionalNetwork
from exan_verify.numeric.convolution.gradients import ConvolutionGradient
from exan_verify.numeric.problem.torch_losses import BatchLoss

_PASSES = 4.0
"""Between the rounding of one forward pass and that of another of the same picture."""

_DTYPES = {torch.finfo(dtype).eps / 2: dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}

_TOLERANCE = 64.0
"""Between the error that bounds and rounding explain to first order and the largest one accepted."""


def expected_rounding(network: ConvolutionalNetwork, features: Tensor, unit_roundoff: float) -> Tensor:
    """How far (M,), in L2, rounding in the body's own pass takes the features (M, n), to begin with."""
    steps = 1 + sum(stage.linear for stage in network.body)
    expected: Tensor = _PASSES * steps * unit_roundoff * (features.norm(dim=1) + 1)
    return expected


def seen_rounding(network: ConvolutionalNetwork, pictures: Tensor, unit_roundoff: float) -> Tensor:
    """The same as seen at the pictures (M, C, H, W) found, in the dtype of that roundoff, with a margin."""
    dtype = _DTYPES.get(unit_roundoff)
    if dtype is None:
        return torch.zeros_like(pictures.flatten(1)[:, 0])
    rounded = pictures.to(dtype)
    distance = network.features(rounded).double() - network.features(rounded.double())
    seen: Tensor = _PASSES * distance.norm(dim=1)
    return seen


def feature_misfit(network: ConvolutionalNetwork, pictures: Tensor, features: Tensor) -> Tensor:
    """(M,): the largest distance between the features of a picture and the known ones (M, n)."""
    return (network.features(pictures) - features).abs().amax(dim=1)


def feature_slack(
    network: ConvolutionalNetwork, pictures: Tensor, picture_error: Tensor, feature_error: Tensor
) -> Tensor:
    """How far errors of the pictures and the features let the two differ, per sample.

    The pictures' part is seen by moving them at random by their error (L2, twice), not bounded.
    """
    base = network.features(pictures)
    generator = torch.Generator().manual_seed(0)
    moved = torch.zeros_like(picture_error)
    for _ in range(2):
        signs = torch.randint(0, 2, pictures.shape, generator=generator).to(pictures) * 2 - 1
        there = network.features(pictures + signs * _per_entry(pictures, picture_error))
        moved = torch.maximum(moved, (there - base).abs().amax(dim=1))
    rounding = 2.0**-53 * 100 * (1 + base.abs().amax(dim=1))
    return _TOLERANCE * (moved + feature_error + rounding)


def gradient_misfit(
    network: ConvolutionalNetwork,
    pictures: Tensor,
    loss: BatchLoss,
    body: Mapping[int, ConvolutionGradient],
) -> dict[int, float]:
    """Relative Frobenius distance of dW, per convolution in ``body``, from the pictures' gradient to the
    given one."""
    found = {}
    for k, weight in convolution_gradients(network, pictures, loss).items():
        if k not in body:
            continue
        norm = float(body[k].weight.norm())
        found[k] = float((weight - body[k].weight).norm()) / norm if norm else math.inf
    return found


def gradient_slack(
    network: ConvolutionalNetwork,
    pictures: Tensor,
    loss: BatchLoss,
    error: Tensor,
    *,
    unit_roundoff: float,
) -> dict[int, float]:
    """What the errors (M,) of the pictures and rounding explain of that distance, seen by moving them."""
    base = convolution_gradients(network, pictures, loss)
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, pictures.shape, generator=generator).to(pictures) * 2 - 1
    moved = pictures + signs * _per_entry(pictures, error)
    there = convolution_gradients(network, moved, loss)
    return {
        k: _TOLERANCE * (float((there[k] - g).norm()) / max(float(g.norm()), 1e-300) + unit_roundoff)
        for k, g in base.items()
    }


def _per_entry(pictures: Tensor, error: Tensor) -> Tensor:
    """An L2 error per picture, spread evenly over its entries."""
    return (error / math.sqrt(pictures[0].numel())).view(-1, *[1] * (pictures.dim() - 1))


def convolution_gradients(
    network: ConvolutionalNetwork, pictures: Tensor, loss: BatchLoss
) -> dict[int, Tensor]:
    """dW (C_out, C_in / groups, kh, kw) of every convolution for a batch (M, C, H, W), by place."""
    with torch.enable_grad():
        outputs: dict[int, Tensor] = {}
        values = [pictures.detach().requires_grad_(True)]
        for k, stage in enumerate(network.body):
            values.append(stage.apply(*(values[i] for i in stage.inputs)))
            if k in network.convolutions:
                outputs[k] = values[-1]
        total = loss.of(network.head_logits(values[-1].flatten(1)))
        deltas = torch.autograd.grad(total, list(outputs.values()))
    return {
        k: network.convolutions[k].weight_gradient(values[network.body[k].inputs[0]].detach(), delta).sum(0)
        for (k, _), delta in zip(outputs.items(), deltas, strict=True)
    }
