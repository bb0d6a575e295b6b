"""Initialisations other than PyTorch's default, by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

OTHERS = ("normal and Glorot", "logits of deviation 5")
"""``normal and Glorot``: the first layer normal of deviation 1/2, the others uniform within
sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010), no biases: as Shariati and Meybodi (arXiv 2609.09659)
evaluate. ``logits of deviation 5``: the default, with the last layer scaled to that on the batch."""


def initialised(model: nn.Sequential, name: str, x: torch.Tensor, seed: int) -> nn.Sequential:
    """``model``, of Linear layers, initialised anew in place; ``name``: one of :data:`OTHERS`, or
    ``default``, which leaves it; ``x`` (M, d): the batch."""
    import torch
    from torch import nn

    linear = [part for part in model if isinstance(part, nn.Linear)]
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        if name == OTHERS[0]:
            for layer in linear:
                outputs, inputs = layer.weight.shape
                limit = math.sqrt(6 / (inputs + outputs))
                drawn = (
                    rng.normal(0, 0.5, (outputs, inputs))
                    if layer is linear[0]
                    else rng.uniform(-limit, limit, (outputs, inputs))
                )
                layer.weight.copy_(torch.from_numpy(drawn))
                layer.bias.zero_()
        elif name == OTHERS[1]:
            factor = 5 / model(x).std()
            linear[-1].weight.mul_(factor)
            linear[-1].bias.mul_(factor)
    return model
