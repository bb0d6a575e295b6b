"""Autograd in float64 as a reference."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from exan_verify.network import Batch, Loss, Reduction, ReluNetwork

FUNCTIONS = {
    Loss.CROSS_ENTROPY: F.cross_entropy,
    Loss.BCE: F.binary_cross_entropy_with_logits,
    Loss.MSE: F.mse_loss,
    Loss.HINGE: F.multi_margin_loss,
}


def module(network: ReluNetwork) -> torch.nn.Sequential:
    parts: list[torch.nn.Module] = []
    for layer in network.layers:
        linear = torch.nn.Linear(layer.shape[1], layer.shape[0], bias=layer.bias is not None).double()
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.weight.astype(np.float64)))
            if layer.bias is not None:
                linear.bias.copy_(torch.from_numpy(layer.bias.astype(np.float64)))
        parts += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


def gradient(network: ReluNetwork, batch: Batch, loss: Loss, reduction: Reduction) -> dict[str, np.ndarray]:
    model = module(network)
    x = torch.from_numpy(batch.inputs.astype(np.float64))
    y = torch.from_numpy(np.array(batch.labels))
    y = y.long() if loss in (Loss.CROSS_ENTROPY, Loss.HINGE) else y.double()
    FUNCTIONS[loss](model(x), y, reduction=reduction.value).backward()
    names = [name for name, _ in network.parameters()]
    return {n: p.grad.numpy() for n, p in zip(names, model.parameters(), strict=True)}
