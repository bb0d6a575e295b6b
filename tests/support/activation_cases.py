"""Networks with other activations than ReLU, drawn by numpy, and what torch makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import nn

from tests.support.torch_reference import initialised

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "leaky": lambda _: nn.LeakyReLU(0.01),
    "steep": lambda _: nn.LeakyReLU(3),
    "negative": lambda _: nn.LeakyReLU(-0.5),
    "parametric": lambda _: nn.PReLU(),
    "per neuron": lambda n: nn.PReLU(n),
    "six": lambda _: nn.ReLU6(),
    "hard": lambda _: nn.Hardtanh(-0.25, 0.5),
}


def network(
    widths: Sequence[int], make: Callable[[int], nn.Module], seed: int, *, spread: float = 1.0
) -> nn.Sequential:
    """Linear layers, in float64, with ``make(n)`` after each layer of n neurons but the last; biases and
    weights times ``spread``.
    """
    rng = np.random.default_rng(seed)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), make(b))]
    model = initialised(nn.Sequential(*layers[:-1]).double(), seed)
    for part in model:
        if isinstance(part, nn.PReLU):
            part.weight.data.copy_(part.weight.data.new_tensor(rng.uniform(-0.5, 0.75, len(part.weight))))
        if isinstance(part, nn.Linear):
            part.weight.data.mul_(spread)
            part.bias.data.mul_(spread)
    return model


def inputs(samples: int, features: int, seed: int) -> np.ndarray:
    """Normal inputs (M, d)."""
    return np.random.default_rng(seed).normal(size=(samples, features))
