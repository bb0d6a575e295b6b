"""From a ``torch.nn.Module`` with convolutions to an exact :class:`StagedNetwork`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from exan_verify.core.network import exact_array
from exan_verify.core.staged import Convolution, Pool, StagedNetwork
from exan_verify.errors import UnsupportedLayerError
from exan_verify.models.chain import unwrap
from exan_verify.models.graph import to_convolutional
from exan_verify.models.stages import AveragePool, Flatten, MaxPool, Relu, Stage
from exan_verify.models.stages import Convolution as FloatConvolution

_PROVED = (
    "proofs are for Conv2d with ReLU after each, pooling after a ReLU, Flatten, then Linear layers with ReLU "
    "between them"
)


def has_convolutions(model: Any) -> bool:
    """Whether ``model`` is a module with a Conv2d in it."""
    model, _ = unwrap(model)
    return isinstance(model, nn.Module) and any(type(m) is nn.Conv2d for m in model.modules())


def to_staged(model: Any, input_shape: Sequence[int] | None = None) -> StagedNetwork:
    """The exact network of a model with convolutions, every number as it is stored.

    ``input_shape`` (C, H, W): as :func:`~exan_verify.models.graph.to_convolutional` takes it, which raises
    what is wrong with the model itself. Raises :class:`UnsupportedLayerError` naming the first layer that the
    exact side does not take though ``attack`` does.
    """
    _, notes = unwrap(model)
    network = to_convolutional(model, input_shape)
    shapes = network.shapes()
    stages: list[Convolution | Pool] = []
    steps = [(stage, shapes[k]) for k, stage in enumerate(network.body)]
    while steps and isinstance(steps[0][0], (FloatConvolution, MaxPool, AveragePool)):
        stage, (channels, height, width) = steps.pop(0)
        shape = channels, height, width
        if isinstance(stage, FloatConvolution):
            if not steps or not isinstance(steps[0][0], Relu):
                raise _unsupported(stage, "without a ReLU right after it")
            steps.pop(0)
            stages.append(_convolution(stage, shape))
        elif isinstance(stage, AveragePool) and (any(stage.padding) or stage.divisor is not None):
            raise _unsupported(stage, "with padding or a divisor of its own")
        elif isinstance(stage, (MaxPool, AveragePool)) and stages:
            down, across = stage.padding
            stages.append(
                Pool(
                    mean=isinstance(stage, AveragePool),
                    kernel=stage.kernel,
                    input_shape=shape,
                    stride=stage.stride,
                    padding=(across, across, down, down),
                    dilation=stage.dilation if isinstance(stage, MaxPool) else (1, 1),
                    name=stage.path,
                )
            )
        else:
            raise _unsupported(stage, "before any convolution")
    if not network.chain or len(steps) != 1 or not isinstance(steps[0][0], Flatten):
        raise _unsupported(steps[0][0], "")
    if any(source.fold is not None or source.before is not None for source in network.head_sources):
        raise UnsupportedLayerError(f"a BatchNorm1d of the head is folded for the attack only; {_PROVED}")
    return StagedNetwork(stages=tuple(stages), head=network.head, notes=notes)


def _convolution(stage: FloatConvolution, shape: tuple[int, int, int]) -> Convolution:
    if stage.fold is not None:
        raise _unsupported(stage, "with a BatchNorm folded into it")
    if stage.groups != 1:
        raise _unsupported(stage, f"with groups={stage.groups}")
    return Convolution(
        weight=exact_array(stage.weight, f"{stage.path}.weight"),
        bias=None if stage.bias is None else exact_array(stage.bias, f"{stage.path}.bias"),
        input_shape=shape,
        stride=stage.stride,
        padding=stage.padding,
        dilation=stage.dilation,
        name=stage.path,
    )


def _unsupported(stage: Stage, how: str) -> UnsupportedLayerError:
    what = f"layer {stage.path!r} ({stage.kind})"
    return UnsupportedLayerError(
        f"nothing is proved about models that have {' '.join(filter(None, (what, how)))}; {_PROVED}. "
        "exan_verify.attack (exan attack, exan audit) rebuilds the batches of those that end in Linear layers"
    )
