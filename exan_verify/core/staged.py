"""Exact records of convolutional networks: stages that act per sample, and a fully connected head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exan_verify.core.arrays import Array, digest_arrays
from exan_verify.core.network import Linear, ReluNetwork
from exan_verify.errors import ShapeError

__all__ = ["Convolution", "Pool", "StagedNetwork"]

Shape = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Convolution:
    """A convolution with zero padding, followed by ReLU: a stage of a convolutional network.

    ``weight`` (C_out, C_in, kh, kw), ``bias`` (C_out,) or None, exact; ``input_shape`` (C_in, H, W);
    ``stride`` and ``dilation`` (vertical, horizontal); ``padding`` (left, right, top, bottom). Values are
    flattened as torch flattens them: channel, row, column.
    """

    weight: Array
    bias: Array | None
    input_shape: Shape
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    name: str

    @property
    def kernel(self) -> tuple[int, int]:
        """``(kh, kw)``."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def output_shape(self) -> Shape:
        """``(C_out, H', W')``."""
        return self.weight.shape[0], *_positions(self)

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(name, array)`` for weight and bias, under torch's names."""
        yield f"{self.name}.weight", self.weight
        if self.bias is not None:
            yield f"{self.name}.bias", self.bias

    def valued(self) -> Iterator[Array]:
        """All that makes the value of the stage."""
        yield self.weight
        yield np.zeros(0) if self.bias is None else self.bias
        numbers = (*self.input_shape, *self.stride, *self.padding, *self.dilation)
        yield np.array(numbers, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Pooling of values that are not negative, after a ReLU: the largest of every window, or the mean.

    Fields as a :class:`Convolution`'s; a mean has no padding.
    """

    mean: bool
    kernel: tuple[int, int]
    input_shape: Shape
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    name: str

    @property
    def output_shape(self) -> Shape:
        """``(C, H', W')``."""
        return self.input_shape[0], *_positions(self)

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """None."""
        return iter(())

    def valued(self) -> Iterator[Array]:
        """All that makes the value of the stage."""
        numbers = (self.mean, *self.kernel, *self.input_shape, *self.stride, *self.padding, *self.dilation)
        yield np.array(numbers, dtype=np.float64)


def _positions(stage: Convolution | Pool) -> tuple[int, int]:
    """``(H', W')``."""
    left, right, top, bottom = stage.padding
    _, height, width = stage.input_shape
    down, across = (
        (size + padded - step * (taps - 1) - 1) // jump + 1
        for size, padded, step, taps, jump in zip(
            (height, width),
            (top + bottom, left + right),
            stage.dilation,
            stage.kernel,
            stage.stride,
            strict=True,
        )
    )
    return down, across


@dataclass(frozen=True, kw_only=True, eq=False)
class StagedNetwork:
    """Convolutions with ReLU after each, perhaps pooled, then flattened into a fully connected ReLU network,
    the ``head``. No two layers share a weight. ``notes`` as a network's.

    Raises :class:`ShapeError` where a stage does not fit what is before it.
    """

    stages: tuple[Convolution | Pool, ...]
    head: ReluNetwork
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            if stage.input_shape != before.output_shape:
                problems.append(f"{stage.name!r} takes {stage.input_shape}, not {before.output_shape}")
        for stage in self.stages:
            if isinstance(stage, Convolution) and (
                stage.weight.ndim != 4 or stage.weight.shape[1] != stage.input_shape[0]
            ):
                problems.append(
                    f"{stage.name}.weight has shape {stage.weight.shape}; give one for its inputs"
                )
            elif min(stage.output_shape) < 1:
                problems.append(f"{stage.name!r} has no output for inputs of {stage.input_shape}")
        if not problems and self.stages:
            given = int(np.prod(self.stages[-1].output_shape))
            if given != self.head.widths[0]:
                problems.append(f"the head takes {self.head.widths[0]} features, the stages give {given}")
        if not self.stages or isinstance(self.stages[0], Pool):
            problems.append("there is no convolution to begin with; for none give a ReluNetwork")
        if problems:
            raise ShapeError("; ".join(problems))

    @property
    def input_shape(self) -> Shape:
        """``(C, H, W)`` of a picture."""
        return self.stages[0].input_shape

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Those before anything is pooled: all stages where nothing is (:attr:`pooled`)."""
        found: list[Convolution] = []
        for stage in self.stages:
            if not isinstance(stage, Convolution):
                break
            found.append(stage)
        return tuple(found)

    @property
    def pooled(self) -> bool:
        """Whether a stage pools, so that values do not show the pattern below it."""
        return len(self.convolutions) < len(self.stages)

    @property
    def layers(self) -> tuple[Convolution | Pool | Linear, ...]:
        """All stages and layers, first to last."""
        return (*self.stages, *self.head.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers per sample: of the picture, then of every stage's and layer's output, last the logits."""
        stages = (int(np.prod(stage.output_shape)) for stage in self.stages)
        return (int(np.prod(self.input_shape)), *stages, *self.head.widths[1:])

    @property
    def classes(self) -> int:
        """K, the number of logits."""
        return self.head.classes

    @property
    def architecture(self) -> str:
        """What the network is, in words."""
        stages = ", ".join(
            f"{'Conv2d and ReLU' if isinstance(stage, Convolution) else 'mean' if stage.mean else 'maximum'} "
            f"{'x'.join(map(str, stage.input_shape))} to {'x'.join(map(str, stage.output_shape))}"
            for stage in self.stages
        )
        return f"{stages}, then {self.head.architecture}"

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(name, array)`` for every parameter, first layer first."""
        for layer in self.layers:
            yield from layer.parameters()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the shapes, geometry and exact values of all layers (names do not enter)."""

        def arrays() -> Iterator[Array]:
            for stage in self.stages:
                yield from stage.valued()
            yield from (array for _, array in self.head.parameters())

        return digest_arrays(f"staged-network of {len(self.stages)}", arrays())

    def __repr__(self) -> str:
        return f"StagedNetwork({'-'.join(map(str, self.widths))}, {len(self.stages)} convolutions)"
