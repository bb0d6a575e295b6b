"""What a convolutional network computes, one stage at a time, in float64.

Stages work on batches (M, C, H, W); after :class:`Flatten` on (M, n). Every stage is a pure function of the
values it takes; the linear ones say so, because they can be inverted as linear systems (docs/theory.md 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from exan_verify.core.network import ReluNetwork
from exan_verify.errors import ShapeError
from exan_verify.models.folding import Affine

Size = tuple[int, int]
Shape = tuple[int, ...]
"""Per sample: (C, H, W), or (n,) of what is flat."""


def _positions(
    shape: Shape, kernel: Size, stride: Size, padding: tuple[int, int, int, int], dilation: Size
) -> Size:
    """(H', W') of windows on values of ``shape``, in floor mode, with zeros (left, right, top, bottom)."""
    left, right, top, bottom = padding
    height, width = (
        (size + zeros - step * (taps - 1) - 1) // jump + 1
        for size, zeros, step, taps, jump in zip(
            shape[1:], (top + bottom, left + right), dilation, kernel, stride, strict=True
        )
    )
    if min(height, width) < 1:
        raise ValueError(f"windows of {kernel[0]} x {kernel[1]} do not fit")
    return height, width


def _pooled(shape: Shape, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Shape:
    if any(2 * zeros > size for zeros, size in zip(padding, kernel, strict=True)):
        raise ValueError("a pool's padding is at most half of its window")
    down, across = padding
    return shape[0], *_positions(shape, kernel, stride, (across, across, down, down), dilation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """How a stage's own gradient follows from the model's tensors when an eval-mode BatchNorm is folded in.

    ``scale`` (C_out,) = gamma / sqrt(var + eps): the effective weight is scale * W, so its gradient is
    dW / scale. ``shift`` is the name of BatchNorm's bias, whose gradient is that of the effective bias; None
    where it is not trained. ``path``: of the BatchNorm.
    """

    path: str
    scale: Tensor
    shift: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One step: ``path`` in the model, and ``inputs``, the places of the values it takes (0: the input)."""

    linear: ClassVar[bool] = False

    path: str
    inputs: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The name users see."""
        return type(self).__name__

    def apply(self, *values: Tensor) -> Tensor:
        """The stage's value at ``values`` (M, ...), one for each of ``inputs``; subclasses define it."""
        raise NotImplementedError

    def shape(self, *shapes: Shape) -> Shape:
        """The shape per sample of the stage's value, from those of what it takes; nothing is computed.

        Raises :class:`ValueError` where it cannot take them.
        """
        return shapes[0]

    def homogeneous(self, value: Tensor) -> Tensor:
        """A linear stage without its bias, at ``value`` (M, ...)."""
        return self.apply(value)

    def offset(self, value: Tensor) -> Tensor:
        """What a linear stage adds to its output ``value`` (M, ...), which it broadcasts with."""
        return value.new_zeros(())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Convolution(Stage):
    """Conv2d with zero padding ``(left, right, top, bottom)``; BatchNorm after it may be folded in.

    ``weight`` (C_out, C_in / groups, kh, kw), ``bias`` (C_out,) or None: the effective ones.
    ``names``: the model's parameters (weight, bias or None).
    """

    linear: ClassVar[bool] = True

    weight: Tensor
    bias: Tensor | None
    stride: Size
    padding: tuple[int, int, int, int]
    dilation: Size
    groups: int
    names: tuple[str, str | None]
    fold: Fold | None = None

    def shape(self, *shapes: Shape) -> Shape:
        """(C_out, H', W')."""
        channels = self.weight.shape[1] * self.groups
        if shapes[0][0] != channels:
            raise ValueError(f"it takes {channels} channels, not {shapes[0][0]}")
        kernel = self.weight.shape[2], self.weight.shape[3]
        return len(self.weight), *_positions(shapes[0], kernel, self.stride, self.padding, self.dilation)

    def apply(self, *values: Tensor) -> Tensor:
        """The convolution with its bias: (M, C_in, H, W) to (M, C_out, H', W')."""
        z = self.homogeneous(values[0])
        return z if self.bias is None else z + self.offset(z)

    def homogeneous(self, value: Tensor) -> Tensor:
        """The convolution without its bias: (M, C_in, H, W) to (M, C_out, H', W')."""
        padded = functional.pad(value, self.padding) if any(self.padding) else value
        weight = self.weight.to(value)
        return functional.conv2d(
            padded, weight, stride=self.stride, dilation=self.dilation, groups=self.groups
        )

    def offset(self, value: Tensor) -> Tensor:
        """The bias, (C_out, 1, 1)."""
        return value.new_zeros(()) if self.bias is None else self.bias.to(value)[:, None, None]

    def weight_gradient(self, x: Tensor, delta: Tensor) -> Tensor:
        """What each sample of ``x`` (M, ...) adds to dW with its ``delta``: (M, *weight.shape)."""
        padded = functional.pad(x, self.padding) if any(self.padding) else x
        columns = functional.unfold(padded, self.weight.shape[2:], dilation=self.dilation, stride=self.stride)
        columns = columns.reshape(x.shape[0], self.groups, -1, columns.shape[-1])
        moved = delta.reshape(x.shape[0], self.groups, -1, columns.shape[-1])
        # groups, out per group, in per group x taps
        gradient = torch.einsum("mgop,mgip->mgoi", moved, columns)
        return gradient.reshape(x.shape[0], *self.weight.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale(Stage):
    """A BatchNorm in eval mode that follows no convolution, or a constant shift and scale of the pictures as
    they enter: ``factor * x + shift``, each (C,) or one number () for all. ``exact``: the constant itself.
    """

    linear: ClassVar[bool] = True

    factor: Tensor
    shift: Tensor
    exact: Affine | None = None

    @property
    def kind(self) -> str:
        """The name users see."""
        return "BatchNorm" if self.exact is None else "shift and scale"

    def shape(self, *shapes: Shape) -> Shape:
        """(C, H, W), as it comes."""
        if self.factor.numel() not in (1, shapes[0][0]):
            raise ValueError(f"it takes {self.factor.numel()} channels, not {shapes[0][0]}")
        return shapes[0]

    def apply(self, *values: Tensor) -> Tensor:
        """Scaled and shifted: (M, C, H, W)."""
        return self.homogeneous(values[0]) + self.offset(values[0])

    def homogeneous(self, value: Tensor) -> Tensor:
        """Scaled only: (M, C, H, W)."""
        return value * self.factor.to(value).reshape(-1, 1, 1)

    def offset(self, value: Tensor) -> Tensor:
        """The shift, (C, 1, 1) or (1, 1, 1)."""
        return self.shift.to(value).reshape(-1, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relu(Stage):
    """max(x, 0)."""

    def apply(self, *values: Tensor) -> Tensor:
        """The rectified value, of the same shape."""
        return values[0].relu()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaxPool(Stage):
    """MaxPool2d with symmetric padding, in floor mode."""

    kernel: Size
    stride: Size
    padding: Size
    dilation: Size

    def shape(self, *shapes: Shape) -> Shape:
        """(C, H', W')."""
        return _pooled(shapes[0], self.kernel, self.stride, self.padding, self.dilation)

    def apply(self, *values: Tensor) -> Tensor:
        """The largest value of every window: (M, C, H, W) to (M, C, H', W')."""
        return functional.max_pool2d(
            values[0], self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation
        )

    def covered(self, windows: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Which inputs, of ``shape`` (C, H, W), lie in one of the ``windows``, bool (M, C, h, w)."""
        channels = windows.shape[1]
        kernel = windows.new_ones(channels, 1, *self.kernel, dtype=torch.float64)
        counted = functional.conv_transpose2d(
            windows.double(),
            kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=channels,
        )
        height, width = counted.shape[2:]
        beyond = (0, max(0, shape[2] - width), 0, max(0, shape[1] - height))
        return functional.pad(counted, beyond)[..., : shape[1], : shape[2]] > 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AveragePool(Stage):
    """AvgPool2d in floor mode, or a global or adaptive average with windows of one integer size."""

    linear: ClassVar[bool] = True

    kernel: Size
    stride: Size
    padding: Size = (0, 0)
    count_padding: bool = True
    divisor: int | None = None

    def shape(self, *shapes: Shape) -> Shape:
        """(C, H', W')."""
        return _pooled(shapes[0], self.kernel, self.stride, self.padding, (1, 1))

    def apply(self, *values: Tensor) -> Tensor:
        """The mean of every window: (M, C, H, W) to (M, C, H', W')."""
        return functional.avg_pool2d(
            values[0],
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            count_include_pad=self.count_padding,
            divisor_override=self.divisor,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdaptivePool(Stage):
    """AdaptiveAvgPool2d to ``output`` (None: as the input), before the size of its input is known."""

    output: tuple[int | None, int | None]

    def resolved(self, height: int, width: int) -> AveragePool:
        """The pool with windows of one size. Raises :class:`ShapeError` where they would differ."""
        wanted = (self.output[0] or height, self.output[1] or width)
        if height % wanted[0] or width % wanted[1]:
            raise ShapeError(
                f"AdaptiveAvgPool2d {self.path!r} pools {height} x {width} to {wanted[0]} x {wanted[1]} with "
                "windows of different sizes; choose picture sizes that are multiples, or use AvgPool2d"
            )
        window = (height // wanted[0], width // wanted[1])
        return AveragePool(path=self.path, inputs=self.inputs, kernel=window, stride=window)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Add(Stage):
    """The sum of two branches (a residual connection)."""

    def shape(self, *shapes: Shape) -> Shape:
        """That of both, or what they broadcast to."""
        return tuple(np.broadcast_shapes(*shapes))

    def apply(self, *values: Tensor) -> Tensor:
        """The sum of two values of the same shape."""
        return values[0] + values[1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flatten(Stage):
    """(M, C, H, W) to (M, C H W)."""

    linear: ClassVar[bool] = True

    def shape(self, *shapes: Shape) -> Shape:
        """(C H W,)."""
        return (math.prod(shapes[0]),)

    def apply(self, *values: Tensor) -> Tensor:
        """The value as (M, C H W)."""
        return values[0].flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadGradient:
    """Where the gradient of one Linear layer of the head comes from: names, and a folded BatchNorm1d.

    ``before`` folds one that precedes the layer, after a ReLU: with x' = factor x + shift,
    W' = W diag(factor) and dW' = (dW - db shift^T) / factor; ``before_path`` is its own.
    """

    weight: str
    bias: str | None
    fold: Fold | None = None
    before: tuple[Tensor, Tensor] | None = None
    before_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConvolutionalNetwork:
    """A body of stages that ends in (M, n) features, and a fully connected head.

    ``body``: stage k gives value k + 1 and takes earlier ones; empty when the input is the features.
    ``input_shape`` (C, H, W), or (n,) without a body. ``head``: Linear layers with ReLU between them
    (depth 1: a single Linear). ``head_sources``: per head layer, where its gradient comes from.
    ``parameters``: the shapes of the model's parameters by name.
    """

    body: tuple[Stage, ...]
    input_shape: tuple[int, ...]
    head: ReluNetwork
    head_sources: tuple[HeadGradient, ...]
    parameters: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """What the network is, in words: the shape of its pictures, its stages, its head."""
        stages = [f"{kind} x {len(list(run))}" for kind, run in groupby(s.kind for s in self.body)]
        body = ", ".join(text.removesuffix(" x 1") for text in stages)
        pictures = "x".join(map(str, self.input_shape))
        return (
            f"pictures {pictures}; {body}; head {self.head.architecture}" if body else self.head.architecture
        )

    def values(self, x: Tensor) -> list[Tensor]:
        """The input (M, ...) and the value of every stage of the body."""
        found = [x]
        for stage in self.body:
            found.append(stage.apply(*(found[k] for k in stage.inputs)))
        return found

    def features(self, x: Tensor) -> Tensor:
        """What the head is given, (M, n)."""
        return self.values(x)[-1].flatten(1)

    def head_logits(self, features: Tensor) -> Tensor:
        """The head's output (M, K) at ``features`` (M, n)."""
        h = features
        for k, (weight, bias) in enumerate(self.head_parameters(features)):
            h = functional.linear(h.relu() if k else h, weight, bias)
        return h

    def logits(self, x: Tensor) -> Tensor:
        """The network's output (M, K)."""
        return self.head_logits(self.features(x))

    def head_parameters(self, like: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Weights (n_out, n_in) and biases of the head, with the dtype and device of ``like``."""
        return [
            (
                torch.tensor(layer.weight).to(like),
                None if layer.bias is None else torch.tensor(layer.bias).to(like),
            )
            for layer in self.head.layers
        ]

    @property
    def convolutions(self) -> Mapping[int, Convolution]:
        """The convolutions of the body by their place."""
        return {k: stage for k, stage in enumerate(self.body) if isinstance(stage, Convolution)}

    @property
    def chain(self) -> bool:
        """Whether every stage takes the value of the one before it and no other."""
        return all(stage.inputs == (k,) for k, stage in enumerate(self.body))

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape per sample of the input and of every stage's value; nothing is computed."""
        found = [self.input_shape]
        for stage in self.body:
            found.append(stage.shape(*(found[k] for k in stage.inputs)))
        return found
