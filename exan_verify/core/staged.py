"""Exact records of convolutional networks: stages that act per sample, and a fully connected head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, takewhile

import numpy as np

from exan_verify.core.arrays import Array, digest_arrays, freeze
from exan_verify.core.network import Linear, ReluNetwork
from exan_verify.errors import ShapeError

__all__ = ["Convolution", "Entry", "Pool", "Residual", "StagedNetwork"]

Shape = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Convolution:
    """A convolution with zero padding, followed by ReLU: a stage of a convolutional network.

    ``weight`` (C_out, C_in / groups, kh, kw), ``bias`` (C_out,) or None, exact; ``input_shape`` (C_in, H, W);
    ``stride`` and ``dilation`` (vertical, horizontal); ``padding`` (left, right, top, bottom). Values are
    flattened as torch flattens them: channel, row, column. ``normalised``: a BatchNorm is folded into weight
    and bias, which is no part of their value. ``trained``: where an average pool before the ReLU is part of
    the weights, how many numbers they are linear in: the gradient of these is known, and not that of
    ``weight``, which determines it. None: each weight is one of them.
    """

    weight: Array
    bias: Array | None
    input_shape: Shape
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    name: str
    groups: int = 1
    normalised: bool = False
    trained: int | None = None

    @property
    def numbers(self) -> int:
        """How many equations the known weight gradient is."""
        return self.weight.size if self.trained is None else self.trained

    @property
    def kernel(self) -> tuple[int, int]:
        """``(kh, kw)``."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def output_shape(self) -> Shape:
        """``(C_out, H', W')``."""
        return self.weight.shape[0], *_positions(self)

    @property
    def parts(self) -> tuple[Convolution, ...]:
        """Convolutions of one group each, on the channels of their own, in their order."""
        if self.groups == 1:
            return (self,)
        channels, height, width = self.input_shape
        out = len(self.weight) // self.groups
        own = [slice(g * out, (g + 1) * out) for g in range(self.groups)]
        return tuple(
            replace(
                self,
                weight=freeze(self.weight[those]),
                bias=None if self.bias is None else freeze(self.bias[those]),
                input_shape=(channels // self.groups, height, width),
                groups=1,
            )
            for those in own
        )

    def problems(self) -> Iterator[str]:
        """What does not fit together."""
        if (
            self.weight.ndim != 4
            or self.weight.shape[1] * self.groups != self.input_shape[0]
            or len(self.weight) % self.groups
        ):
            yield f"{self.name}.weight has shape {self.weight.shape}; give one for its inputs"
        elif min(self.output_shape) < 1:
            yield f"{self.name!r} has no output for inputs of {self.input_shape}"

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(name, array)`` for weight and bias, under torch's names."""
        yield f"{self.name}.weight", self.weight
        if self.bias is not None:
            yield f"{self.name}.bias", self.bias

    def valued(self) -> Iterator[Array]:
        """All that makes the value of the stage."""
        yield self.weight
        yield np.zeros(0) if self.bias is None else self.bias
        # of one group the digest is that without the number
        more: tuple[int, ...] = () if self.groups == 1 else (self.groups,)
        more = more if self.trained is None else (self.groups, self.trained)
        numbers = (*self.input_shape, *self.stride, *self.padding, *self.dilation, *more)
        yield np.array(numbers, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A constant shift and scale of the pictures before the first stage: ``factor x + shift``.

    ``factor``, ``shift`` (C,), Fractions, one for each channel; no factor is 0, so that pictures and what the
    first stage takes determine each other.
    """

    factor: Array
    shift: Array

    def problems(self, shape: Shape) -> Iterator[str]:
        """What does not fit pictures of ``shape``."""
        if self.factor.shape != (shape[0],) or self.shift.shape != (shape[0],):
            yield f"the shift and scale of the pictures have {self.factor.shape}, not {(shape[0],)}"
        elif np.any(self.factor == 0):
            yield "the scale of the pictures is zero somewhere, which hides what it multiplies"


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

    def problems(self) -> Iterator[str]:
        """What does not fit together."""
        if min(self.output_shape) < 1:
            yield f"{self.name!r} has no output for inputs of {self.input_shape}"

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """None."""
        return iter(())

    def valued(self) -> Iterator[Array]:
        """All that makes the value of the stage."""
        numbers = (self.mean, *self.kernel, *self.input_shape, *self.stride, *self.padding, *self.dilation)
        yield np.array(numbers, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residual:
    """A sum of two branches, followed by ReLU: ``relu(A_k relu(.. relu(A_1 h)) + S h)``.

    ``inner``: A_1 .. A_k, at least one, with ReLU between them but none after the last; ``shortcut``: S, None
    for the identity. ``input_shape`` (C, H, W) of h.
    """

    inner: tuple[Convolution, ...]
    shortcut: Convolution | None
    input_shape: Shape
    name: str

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Those of both branches."""
        return self.inner if self.shortcut is None else (*self.inner, self.shortcut)

    @property
    def output_shape(self) -> Shape:
        """``(C_out, H', W')``."""
        return self.inner[-1].output_shape

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(name, array)`` for all weights and biases, under torch's names."""
        for convolution in self.convolutions:
            yield from convolution.parameters()

    def valued(self) -> Iterator[Array]:
        """All that makes the value of the stage."""
        yield np.array([len(self.inner), self.shortcut is not None], dtype=np.float64)
        for convolution in self.convolutions:
            yield from convolution.valued()

    def problems(self) -> Iterator[str]:
        """What does not fit together."""
        for before, after in pairwise(self.inner):
            if after.input_shape != before.output_shape:
                yield f"{after.name!r} takes {after.input_shape}, not {before.output_shape}"
        for first in (self.inner[0], *(() if self.shortcut is None else (self.shortcut,))):
            if first.input_shape != self.input_shape:
                yield f"{first.name!r} takes {first.input_shape}, not {self.input_shape}"
        other = self.input_shape if self.shortcut is None else self.shortcut.output_shape
        if other != self.output_shape:
            yield f"the sum {self.name!r} adds {other} to {self.output_shape}"


def _named(stage: Convolution | Pool | Residual) -> str:
    """The kind of a stage in words."""
    if isinstance(stage, Pool):
        return "mean" if stage.mean else "maximum"
    if isinstance(stage, Residual):
        inner = ", ReLU, ".join(
            _named(one).removesuffix(" and ReLU").removesuffix(", ReLU") for one in stage.inner
        )
        return f"sum with {inner if stage.shortcut is None else f'{inner}; Conv2d'} and ReLU"
    if stage.trained is not None:
        plain = _named(replace(stage, trained=None)).removesuffix(" and ReLU").removesuffix(", ReLU")
        return f"{plain}, mean, ReLU"
    groups = f" in {stage.groups} groups" if stage.groups > 1 else ""
    norm = "BatchNorm folded into it, " if stage.normalised else ""
    return f"Conv2d{groups}, {norm}ReLU" if groups or norm else "Conv2d and ReLU"


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


Stage = Convolution | Pool | Residual


@dataclass(frozen=True, kw_only=True, eq=False)
class StagedNetwork:
    """Convolutions and sums of branches with ReLU after each, perhaps pooled, then flattened into a fully
    connected ReLU network, the ``head``. No two layers share a weight. ``entry``: what is done to pictures
    before the first stage, None for nothing. ``notes`` as a network's.

    Raises :class:`ShapeError` where a stage does not fit what is before it.
    """

    stages: tuple[Stage, ...]
    head: ReluNetwork
    notes: tuple[str, ...] = ()
    entry: Entry | None = None

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.entry is not None and self.stages:
            problems += self.entry.problems(self.stages[0].input_shape)
        for before, stage in pairwise(self.stages):
            if stage.input_shape != before.output_shape:
                problems.append(f"{stage.name!r} takes {stage.input_shape}, not {before.output_shape}")
        for stage in self.stages:
            problems += stage.problems()
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
        """Those before anything is pooled or added: what is above them is a function of their values."""
        return tuple(takewhile(lambda stage: isinstance(stage, Convolution), self.stages))  # type: ignore[arg-type]

    @property
    def unpooled(self) -> tuple[Convolution | Residual, ...]:
        """The stages before anything is pooled, whose values show their pattern."""
        return tuple(takewhile(lambda stage: not isinstance(stage, Pool), self.stages))  # type: ignore[arg-type]

    @property
    def pooled(self) -> bool:
        """Whether a stage pools, so that values do not show the pattern below it."""
        return len(self.unpooled) < len(self.stages)

    @property
    def layers(self) -> tuple[Stage | Linear, ...]:
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
            f"{_named(stage)} "
            f"{'x'.join(map(str, stage.input_shape))} to {'x'.join(map(str, stage.output_shape))}"
            for stage in self.stages
        )
        entry = "" if self.entry is None else "constant shift and scale, "
        return f"{entry}{stages}, then {self.head.architecture}"

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(name, array)`` for every parameter, first layer first."""
        for layer in self.layers:
            yield from layer.parameters()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the shapes, geometry and exact values of all layers (names do not enter)."""

        def arrays() -> Iterator[Array]:
            if self.entry is not None:
                yield from (self.entry.factor, self.entry.shift)
            for stage in self.stages:
                yield from stage.valued()
            yield from (array for _, array in self.head.parameters())

        shifted = "" if self.entry is None else " of shifted pictures"
        return digest_arrays(f"staged-network of {len(self.stages)}{shifted}", arrays())

    def __repr__(self) -> str:
        return f"StagedNetwork({'-'.join(map(str, self.widths))}, {len(self.stages)} stages)"
