"""Activations that cases have between their layers, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

OTHERS = (
    "LeakyReLU",
    "LeakyReLU of slope 1/4",
    "LeakyReLU of slope 3",
    "LeakyReLU of slope -1/2",
    "ReLU6",
    "Hardtanh",
    "Hardtanh from -1/4 to 1/2",
)
"""All of them but ReLU."""


def activation(name: str) -> nn.Module:
    """ReLU, or one of :data:`OTHERS`."""
    from torch import nn

    makes: Mapping[str, Callable[[], nn.Module]] = {
        "ReLU": nn.ReLU,
        "LeakyReLU": lambda: nn.LeakyReLU(0.01),
        "LeakyReLU of slope 1/4": lambda: nn.LeakyReLU(0.25),
        "LeakyReLU of slope 3": lambda: nn.LeakyReLU(3),
        "LeakyReLU of slope -1/2": lambda: nn.LeakyReLU(-0.5),
        "ReLU6": nn.ReLU6,
        "Hardtanh": nn.Hardtanh,
        "Hardtanh from -1/4 to 1/2": lambda: nn.Hardtanh(-0.25, 0.5),
    }
    return makes[name]()


def activated(model: nn.Sequential, name: str) -> nn.Sequential:
    """``model``, of Linear layers with activations between them, with those of that name; the parameters are
    the same."""
    from torch import nn

    return nn.Sequential(*(part if isinstance(part, nn.Linear) else activation(name) for part in model))
