"""Models drawn by numpy, and autograd in float64 as a reference.

Torch's own stream is no help where a test's numbers matter: it differs between processors.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Loss, Reduction

FUNCTIONS = {
    Loss.CROSS_ENTROPY: F.cross_entropy,
    Loss.BCE: F.binary_cross_entropy_with_logits,
    Loss.MSE: F.mse_loss,
    Loss.HINGE: F.multi_margin_loss,
}

Model = TypeVar("Model", bound=nn.Module)


def autograd(
    model: nn.Module, x: Tensor, y: Tensor, loss: str = "cross_entropy", reduction: str = "mean"
) -> dict[str, Tensor]:
    """The gradient of every trained parameter, with the dtype of ``x``, to which the model is converted."""
    target = y.to(x.dtype) if y.is_floating_point() else y
    value = FUNCTIONS[Loss(loss)](model.to(x.dtype)(x), target, reduction=Reduction(reduction).value)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))


def initialised(model: Model, seed: int = 0) -> Model:
    """The model itself, its Linear layers and convolutions redrawn from PyTorch's default distribution.

    Weights and biases are uniform in +-1/sqrt(fan_in).
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                bound = part.weight[0].numel() ** -0.5
                for parameter in part.parameters(recurse=False):
                    parameter.copy_(torch.from_numpy(rng.uniform(-bound, bound, parameter.shape)))
    return model


def he(model: Model, seed: int = 0) -> Model:
    """The model itself, redrawn as the zoo's are: normal weights of variance 2 / fan_in, small biases; norms
    whose scales differ by up to a factor of four. In eval mode.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                deviation = (2 / part.weight[0].numel()) ** 0.5
                part.weight.copy_(torch.from_numpy(rng.normal(0, deviation, part.weight.shape)))
                if part.bias is not None:
                    part.bias.copy_(torch.from_numpy(rng.normal(0, 0.05, part.bias.shape)))
            elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                for factor in (part.running_var, part.weight):
                    if factor is not None:
                        factor.copy_(torch.from_numpy(rng.uniform(0.5, 2, factor.shape)))
                for shift in (part.running_mean, part.bias):
                    if shift is not None:
                        shift.copy_(torch.from_numpy(rng.normal(0, 0.1, shift.shape)))
    return model.eval()


def trained(
    model: Model, x: Tensor, y: Tensor, steps: int, rate: float, kind: type = torch.optim.Adam
) -> Model:
    """The model itself after steps on the whole batch (cross-entropy, mean)."""
    optimiser = kind(model.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model


def perceptron(*widths: int, seed: int = 0, bias: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them, float32, at PyTorch's default initialisation."""
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b, bias=bias), nn.ReLU())]
    return initialised(nn.Sequential(*layers[:-1]), seed)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Numbers in [0, 1), float64."""
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def module(network: ReluNetwork) -> nn.Sequential:
    parts: list[nn.Module] = []
    for layer in network.layers:
        linear = nn.Linear(layer.shape[1], layer.shape[0], bias=layer.bias is not None).double()
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.weight.astype(np.float64)))
            if layer.bias is not None:
                linear.bias.copy_(torch.from_numpy(layer.bias.astype(np.float64)))
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def gradient(network: ReluNetwork, batch: Batch, loss: Loss, reduction: Reduction) -> dict[str, np.ndarray]:
    model = module(network)
    x = torch.from_numpy(batch.inputs.astype(np.float64))
    y = torch.from_numpy(np.array(batch.labels))
    y = y.long() if loss in (Loss.CROSS_ENTROPY, Loss.HINGE) else y.double()
    FUNCTIONS[loss](model(x), y, reduction=reduction.value).backward()
    names = [name for name, _ in network.parameters()]
    return {n: p.grad.numpy() for n, p in zip(names, model.parameters(), strict=True)}
