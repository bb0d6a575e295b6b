"""Models: the zoo of convolutional networks, and what turns a module or a file into exact layers.

The zoo is loaded when one of its names is used, so that the exact path reads files without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["ResidualBlock", "lenet", "resnet", "strided_cnn", "vgg13"]

if TYPE_CHECKING:
    from exan_verify.models.zoo import ResidualBlock, lenet, resnet, strided_cnn, vgg13


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.zoo"), name)
