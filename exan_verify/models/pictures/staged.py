"""From a ``torch.nn.Module`` with convolutions to an exact :class:`StagedNetwork`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from torch import nn

from exan_verify.core.arrays import Array, fractions, freeze
from exan_verify.core.network import Linear, ReluNetwork, exact_array
from exan_verify.core.staged import Convolution, Entry, Pool, Residual, StagedNetwork
from exan_verify.errors import UnsupportedLayerError
from exan_verify.models.chain import Kind, Step, assemble, describe, unwrap
from exan_verify.models.folding import Affine, fold_constants
from exan_verify.models.normalised import exact_norm
from exan_verify.models.pictures.graph import to_convolutional
from exan_verify.models.pictures.stages import (
    Add,
    AveragePool,
    ConvolutionalNetwork,
    Flatten,
    MaxPool,
    Relu,
    Scale,
    Stage,
)
from exan_verify.models.pictures.stages import Convolution as FloatConvolution

_PROVED = (
    "proofs are for Conv2d with ReLU, or a mean and ReLU, after each, pooling after a ReLU, sums of two "
    "branches with ReLU after them, BatchNorm in eval mode beside a Conv2d or Linear, Flatten, Linear layers "
    "with ReLU between them"
)


def has_convolutions(model: Any) -> bool:
    """Whether ``model`` is a module with a Conv2d in it."""
    model, _ = unwrap(model)
    return isinstance(model, nn.Module) and any(type(m) is nn.Conv2d for m in model.modules())


def to_staged(model: Any, input_shape: Sequence[int] | None = None) -> StagedNetwork:
    """The exact network of a model with convolutions, every number as it is stored, BatchNorms folded in.

    ``input_shape`` (C, H, W): as :func:`~exan_verify.models.pictures.graph.to_convolutional` takes it, which
    raises what is wrong with the model itself. Raises :class:`UnsupportedLayerError` naming the first layer
    that the exact side does not take though ``attack`` does.
    """
    model, notes = unwrap(model)
    network = to_convolutional(model, input_shape)
    reader = _Reader(model, network)
    stages = reader.stages()
    head = reader.head()
    return StagedNetwork(
        stages=stages,
        head=head,
        notes=(*notes, *dict.fromkeys((*reader.notes, *head.notes))),
        entry=reader.entry,
    )


class _Reader:
    """Reads the stages of a network again, as exact records, from the module that it was made of."""

    def __init__(self, model: nn.Module, network: ConvolutionalNetwork) -> None:
        self.model, self.network, self.body = model, network, network.body
        self.shapes = network.shapes()
        self.users: list[list[int]] = [[] for _ in range(len(self.body) + 1)]
        for number, stage in enumerate(self.body):
            for taken in dict.fromkeys(stage.inputs):
                self.users[taken].append(number)
        self.notes: list[str] = []
        self.entry: Entry | None = None
        self.trained = any(p.requires_grad for p in model.parameters())

    def stages(self) -> tuple[Convolution | Pool | Residual, ...]:
        """The stages below the head."""
        found: list[Convolution | Pool | Residual] = []
        place, waiting = 0, list[Scale]()
        while not isinstance(stage := self.body[self.users[place][0]], Flatten):
            if len(self.users[place]) > 1:
                _require_none(waiting)
                made, place = self._residual(place)
                found.append(made)
                continue
            at, place = place, self.users[place][0] + 1
            if isinstance(stage, Scale) and stage.exact is not None:
                self._enter(stage.exact, self._shape(at)[0])
            elif isinstance(stage, Scale):
                waiting.append(stage)
            elif isinstance(stage, FloatConvolution):
                convolution = self._convolution(stage, self._shape(at), waiting)
                waiting = []
                if (mean := self._mean(place)) is not None:
                    pool, place = mean
                    convolution = averaged(convolution, pool)
                place = self._rectified(place, stage)
                found.append(convolution)
            else:
                _require_none(waiting)
                found.append(_pool(stage, self._shape(at), first=not found))
        _require_none(waiting)
        return tuple(found)

    def _enter(self, constant: Affine, channels: int) -> None:
        """Put a constant after those before it that the pictures pass through as they enter."""
        factor, shift = (_of_channels(part, channels) for part in (constant.factor, constant.shift))
        if self.entry is not None:
            factor, shift = factor * self.entry.factor, factor * self.entry.shift + shift
        self.entry = Entry(factor=freeze(factor), shift=freeze(shift))

    def _shape(self, place: int) -> tuple[int, int, int]:
        channels, height, width = self.shapes[place]
        return channels, height, width

    def _mean(self, place: int) -> tuple[AveragePool, int] | None:
        """The average pool that alone takes the value at ``place``, right before a ReLU, and the place of its
        value."""
        (first, *others) = self.users[place]
        pool, after = self.body[first], self.users[first + 1]
        if others or not isinstance(pool, AveragePool) or any(pool.padding) or pool.divisor is not None:
            return None
        return (pool, first + 1) if len(after) == 1 and isinstance(self.body[after[0]], Relu) else None

    def _rectified(self, place: int, stage: Stage) -> int:
        """The place of the value after the ReLU that alone takes the value of ``stage`` at ``place``."""
        (first, *others) = self.users[place]
        after = self.body[first]
        if isinstance(after, Scale):
            raise _unsupported(after, "with a factor of zero, or after another BatchNorm")
        if others or not isinstance(after, Relu):
            raise _unsupported(stage, "without a ReLU right after it")
        return first + 1

    def _residual(self, place: int) -> tuple[Residual, int]:
        """The sum of two branches that begin at ``place``, and the place of its value after the ReLU."""
        branches = [self._branch(first, place) for first in self.users[place]]
        branches.sort(key=lambda branch: len(branch[0]))
        (shorter, end), (inner, other) = branches[0], branches[-1]
        added = self.body[end]
        if len(branches) != 2 or end != other or len(shorter) > 1 or not inner:
            raise _unsupported(
                added, "of other branches than one of convolutions and one of at most one convolution"
            )
        block = Residual(
            inner=tuple(inner),
            shortcut=shorter[0] if shorter else None,
            input_shape=self._shape(place),
            name=added.path,
        )
        return block, self._rectified(end + 1, added)

    def _branch(self, number: int, place: int) -> tuple[list[Convolution], int]:
        """The convolutions from stage ``number`` on, which takes the value at ``place``, up to a sum, and its
        number. Between two of them there is a ReLU.
        """
        found: list[Convolution] = []
        while not isinstance(stage := self.body[number], Add):
            if not isinstance(stage, FloatConvolution):
                raise _unsupported(stage, "in a branch of a sum")
            found.append(self._convolution(stage, self._shape(place), ()))
            place = number + 1
            if isinstance(self.body[self.users[place][0]], Add) and len(self.users[place]) == 1:
                return found, self.users[place][0]
            place = self._rectified(place, stage)
            if len(self.users[place]) > 1 or isinstance(self.body[self.users[place][0]], Add):
                raise _unsupported(stage, "whose ReLU is the end of a branch, or the start of others")
            number = self.users[place][0]
        return found, number

    def head(self) -> ReluNetwork:
        """The head, its BatchNorms folded exactly."""
        steps: list[Step] = []
        for layer, source in zip(self.network.head.layers, self.network.head_sources, strict=True):
            steps += [Step(kind=Kind.RELU, path=layer.name)] if steps else []
            if source.before is not None:
                steps.append(self._norm(source.before_path))
            own = Linear(
                weight=self._own(source.weight),
                bias=None if source.bias is None else self._own(source.bias),
                name=layer.name,
            )
            steps.append(Step(kind=Kind.LINEAR, path=layer.name, layer=own))
            if source.fold is not None:
                steps.append(self._norm(source.fold.path))
        return assemble(steps)

    def _convolution(
        self, stage: FloatConvolution, shape: tuple[int, int, int], waiting: Sequence[Scale]
    ) -> Convolution:
        if waiting and (any(stage.padding) or stage.groups > 1):
            raise _unsupported(waiting[0], "before a Conv2d with padding or groups")
        weight, bias = (
            self._own(stage.names[0]),
            None if stage.names[1] is None else self._own(stage.names[1]),
        )
        # a row for each output channel: constants act on it as on a Linear layer's
        flat = Linear(weight=freeze(weight.reshape(len(weight), -1)), bias=bias, name=stage.path)
        taps = weight.shape[2] * weight.shape[3]
        steps = [self._norm(norm.path, repeated=taps) for norm in waiting]
        steps.append(Step(kind=Kind.LINEAR, path=stage.path, layer=flat))
        if stage.fold is not None:
            steps.append(self._norm(stage.fold.path))
        (folded,), notes = fold_constants(steps)
        self.notes += notes
        layer = folded.layer
        assert layer is not None
        return Convolution(
            weight=freeze(layer.weight.reshape(weight.shape)),
            bias=layer.bias,
            input_shape=shape,
            stride=stage.stride,
            padding=stage.padding,
            dilation=stage.dilation,
            name=stage.path,
            groups=stage.groups,
            normalised=layer.fold is not None,
        )

    def _norm(self, path: str, repeated: int = 1) -> Step:
        """The BatchNorm at ``path``, with each channel's numbers ``repeated``."""
        module: Any = self.model.get_submodule(path)
        affine, names = exact_norm(module, path)
        if names and self.trained and not module.bias.requires_grad:
            names = ()  # whose gradient is not shared, so that it is no layer's bias
        spread = Affine(factor=np.repeat(affine.factor, repeated), shift=np.repeat(affine.shift, repeated))
        return Step(kind=Kind.CONSTANT, path=describe(module, path), affine=spread, norm=names)

    def _own(self, name: str) -> Any:
        """A parameter as it is stored."""
        return exact_array(self.model.get_parameter(name), name)


def averaged(stage: Convolution, pool: AveragePool) -> Convolution:
    """The convolution that means of the outputs of ``stage`` are: at window entry a and tap t it takes the
    pixel of tap a stride + t dilation, and its weights there are sums of weights over the window's size.
    """
    (kh, kw), (down, across), (step, aside) = pool.kernel, stage.stride, stage.dilation
    rows, columns = stage.kernel
    weight = np.full(
        (
            *stage.weight.shape[:2],
            (kh - 1) * down + (rows - 1) * step + 1,
            (kw - 1) * across + (columns - 1) * aside + 1,
        ),
        Fraction(0),
    )
    share = fractions(stage.weight) / (kh * kw)
    for a, b in np.ndindex(kh, kw):
        top, left = a * down, b * across
        weight[
            ..., top : top + (rows - 1) * step + 1 : step, left : left + (columns - 1) * aside + 1 : aside
        ] += share
    return replace(
        stage,
        weight=freeze(exact_array(weight, f"{stage.name}.weight")),
        stride=(down * pool.stride[0], across * pool.stride[1]),
        dilation=(1, 1),
        trained=stage.weight.size,
    )


def _of_channels(part: Array, channels: int) -> Array:
    """(C,) of () or (C,)."""
    spread: Array = np.broadcast_to(part, (channels,)).copy()
    return spread


def _pool(stage: Stage, shape: tuple[int, int, int], *, first: bool) -> Pool:
    if not isinstance(stage, (MaxPool, AveragePool)):
        raise _unsupported(stage, "")
    if first:
        raise _unsupported(stage, "before any convolution")
    if isinstance(stage, AveragePool) and (any(stage.padding) or stage.divisor is not None):
        raise _unsupported(stage, "with padding or a divisor of its own")
    down, across = stage.padding
    return Pool(
        mean=isinstance(stage, AveragePool),
        kernel=stage.kernel,
        input_shape=shape,
        stride=stage.stride,
        padding=(across, across, down, down),
        dilation=stage.dilation if isinstance(stage, MaxPool) else (1, 1),
        name=stage.path,
    )


def _require_none(waiting: Sequence[Scale]) -> None:
    if waiting:
        raise _unsupported(waiting[0], "with no Conv2d before or after it")


def _unsupported(stage: Stage, how: str) -> UnsupportedLayerError:
    what = f"layer {stage.path!r} ({stage.kind})"
    return UnsupportedLayerError(
        f"nothing is proved about models that have {' '.join(filter(None, (what, how)))}; {_PROVED}. "
        "exan_verify.attack (exan attack, exan audit) rebuilds the batches of those that end in Linear layers"
    )
