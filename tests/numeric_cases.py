"""Networks, batches and their gradients whose numbers come from numpy, for tests of the attack."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def drawn_network(widths: tuple[int, ...], rng: np.random.Generator) -> nn.Sequential:
    """Linear layers with ReLU between, float64, as torch initialises them: uniform within fan_in^-1/2."""
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        linear = nn.Linear(a, b).double()
        linear.weight.data = torch.tensor(rng.uniform(-1, 1, (b, a)) / a**0.5)
        linear.bias.data = torch.tensor(rng.uniform(-1, 1, b) / a**0.5)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def drawn_batch(
    kind: str, samples: int, features: int, classes: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs, ``rand`` (uniform on [0, 1]) or ``randn`` (normal), and classes."""
    x: Any = rng.random((samples, features)) if kind == "rand" else rng.normal(size=(samples, features))
    return torch.tensor(x), torch.tensor(rng.integers(classes, size=samples))
