"""Sequential models of given layers, with their dense layers: what exact arithmetic and autograd are compared
on, layer type by layer type.

Between two ReLUs such a model is one affine map ``W = Q X P``: X the layer with the parameters, P and Q the
pools before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exan_verify.core.arrays import Array

MAX_WIDTH = 80
"""Entries of any value between two layers: dense exact layers take time with their square."""

Layer = Mapping[str, Any]
"""``kind`` and the arguments of the torch layer, as JSON holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """A layer X with parameters: its ``matrix``, and ``taps``, the matrix of each entry of its weight (None:
    a Linear layer's, whose matrix is the weight). Entry k of its value has the bias ``channels[k]``.
    """

    name: str
    matrix: Array
    bias: Array | None
    taps: list[Array] | None
    channels: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What stands between two ReLUs: ``layer``, and the matrices P ``before`` and Q ``after`` it."""

    layer: Affine
    before: Array
    after: Array

    @property
    def weight(self) -> Array:
        """Of the dense layer, (outputs, inputs)."""
        found: Array = self.after @ self.layer.matrix @ self.before
        return found

    @property
    def bias(self) -> Array | None:
        """Of the dense layer, (outputs,)."""
        bias = self.layer.bias
        return None if bias is None else self.after @ bias[self.layer.channels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layered:
    """A module, and a dense layer for each stretch between its ReLUs."""

    module: torch.nn.Sequential
    blocks: list[Block]

    @property
    def kinds(self) -> str:
        """The layer types, but for those that every model has."""
        modules = list(self.module)
        lacking = [" without bias" if getattr(m, "bias", 0) is None else "" for m in modules]
        kinds = {type(m).__name__ + less for m, less in zip(modules, lacking, strict=True)}
        return ", ".join(sorted(kinds - {"ReLU", "Flatten"}))


def layered(layers: Sequence[Layer], input_shape: Sequence[int], seed: int) -> Layered:
    """The torch module in float64 with small dyadic numbers drawn by ``seed``, and its dense layers.

    ``layers``: kinds ``conv``, ``pool`` (average), ``relu``, ``flatten`` and ``linear`` with the arguments of
    the torch layer, the last one ``linear``; ``input_shape`` (C, H, W). Layers that do not fit what they are
    given, or make it wider than :data:`MAX_WIDTH`, are left out.
    """
    rng = np.random.default_rng(seed)
    shape: tuple[int, ...] = tuple(input_shape)
    modules: list[nn.Module] = []
    blocks: list[Block] = []
    before, open_layer = np.eye(int(np.prod(shape))), None
    linear = before  # what has come since the last layer with parameters, or ReLU
    for layer in layers:
        module = _module(layer, shape)
        if module is None or (isinstance(module, nn.ReLU) and open_layer is None):
            continue
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.from_numpy(rng.integers(-4, 5, tuple(parameter.shape)) / 4))
            reached = tuple(module(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
        if int(np.prod(reached)) > MAX_WIDTH:
            continue
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            before, open_layer = linear, _affine(module, str(len(modules)), shape, reached)
            linear = np.eye(len(open_layer.matrix))
        elif isinstance(module, nn.ReLU):
            assert open_layer is not None
            blocks.append(Block(layer=open_layer, before=before, after=linear))
            open_layer, linear = None, np.eye(len(linear))
        else:
            linear = _matrix(module, shape) @ linear
        modules.append(module)
        shape = reached
    assert open_layer is not None
    blocks.append(Block(layer=open_layer, before=before, after=linear))
    return Layered(module=nn.Sequential(*modules), blocks=blocks)


def _affine(
    module: torch.nn.Conv2d | torch.nn.Linear, name: str, shape: tuple[int, ...], reached: tuple[int, ...]
) -> Affine:
    """A layer that takes values of ``shape`` to values of the shape ``reached``."""
    weight, taps = module.weight.detach().numpy(), None
    if isinstance(module, nn.Conv2d):
        taps = _taps(module, shape)
        weight = sum(w * tap for w, tap in zip(weight.reshape(-1), taps, strict=True))
    return Affine(
        name=name,
        matrix=weight,
        bias=None if module.bias is None else module.bias.detach().numpy(),
        taps=taps,
        channels=np.repeat(np.arange(reached[0]), int(np.prod(reached[1:]))),
    )


def _module(layer: Layer, shape: tuple[int, ...]) -> torch.nn.Module | None:
    """The torch layer; None where it does not fit values of that shape."""
    if layer["kind"] == "relu":
        return nn.ReLU()
    if layer["kind"] == "flatten":
        return nn.Flatten()
    if layer["kind"] == "linear":
        return nn.Linear(shape[0], layer["out"], bias=layer["bias"], dtype=torch.float64)

    def pair(name: str) -> tuple[int, int]:
        value = layer[name]
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    kernel, padding = pair("kernel_size"), pair("padding")
    if layer["kind"] == "pool":
        padding = min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2)
    dilation = pair("dilation") if layer["kind"] == "conv" else (1, 1)
    if any(
        s + 2 * p < d * (k - 1) + 1 for s, p, d, k in zip(shape[1:], padding, dilation, kernel, strict=True)
    ):
        return None
    if layer["kind"] == "pool":
        return nn.AvgPool2d(kernel, pair("stride"), padding, count_include_pad=layer["count_include_pad"])
    groups = shape[0] if layer["grouped"] and layer["out"] % shape[0] == 0 else 1
    return nn.Conv2d(
        shape[0],
        layer["out"],
        kernel,
        stride=pair("stride"),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=layer["bias"],
        dtype=torch.float64,
    )


def _matrix(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Array:
    """The matrix of a linear map of values of that shape, column by column."""
    size = int(np.prod(shape))
    with torch.no_grad():
        images = function(torch.eye(size, dtype=torch.float64).reshape(size, *shape))
    found: Array = images.reshape(size, -1).numpy().T
    return found


def _taps(module: torch.nn.Conv2d, shape: tuple[int, ...]) -> list[Array]:
    """The matrix (out, in) of each entry of the weight: by the definition, without torch's convolution."""
    rows, columns = shape[1:]
    assert not isinstance(module.padding, str)
    up, left = module.padding
    (kh, kw), (down, right), (dh, dw) = module.kernel_size, module.stride, module.dilation
    height = (rows + 2 * up - dh * (kh - 1) - 1) // down + 1
    width = (columns + 2 * left - dw * (kw - 1) - 1) // right + 1
    out, inside = module.out_channels // module.groups, module.in_channels // module.groups
    found = []
    for o, c, a, b in product(range(module.out_channels), range(inside), range(kh), range(kw)):
        matrix = np.zeros((module.out_channels, height, width, shape[0], rows, columns))
        for i, j in product(range(height), range(width)):
            row, column = i * down + a * dh - up, j * right + b * dw - left
            if 0 <= row < rows and 0 <= column < columns:
                matrix[o, i, j, o // out * inside + c, row, column] = 1
        found.append(matrix.reshape(module.out_channels * height * width, -1))
    return found
