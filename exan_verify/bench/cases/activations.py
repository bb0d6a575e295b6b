"""Activations other than ReLU that cases have between their layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def _made() -> Mapping[str, Callable[[], nn.Module]]:
    from torch import nn

    return {
        "ReLU": nn.ReLU,
        "LeakyReLU": lambda: nn.LeakyReLU(0.01),
        "LeakyReLU of slope 1/4": lambda: nn.LeakyReLU(0.25),
        "LeakyReLU of slope -1/2": lambda: nn.LeakyReLU(-0.5),
        "ReLU6": nn.ReLU6,
        "Hardtanh": nn.Hardtanh,
    }


def activated(model: nn.Sequential, activation: str) -> nn.Sequential:
    """``model``, its ReLUs replaced by ``activation``; the parameters are the same."""
    from torch import nn

    make = _made()[activation]
    return nn.Sequential(*(make() if isinstance(part, nn.ReLU) else part for part in model))
