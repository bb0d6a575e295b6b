"""From a ``torch.nn.Module`` with convolutions to an exact :class:`StagedNetwork`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exan_verify.core.network import exact_array
from exan_verify.core.staged import Convolution, StagedNetwork
from exan_verify.errors import UnsupportedLayerError
from exan_verify.models.chain import unwrap
from exan_verify.models.graph import to_convolutional
from exan_verify.models.stages import Convolution as FloatConvolution
from exan_verify.models.stages import Flatten, Relu, Stage

_PROVED = "proofs are for Conv2d with ReLU after each, Flatten, then Linear layers with ReLU between them"


def to_staged(model: Any, input_shape: Sequence[int] | None = None) -> StagedNetwork:
    """The exact network of a model with convolutions, every number as it is stored.

    ``input_shape`` (C, H, W): as :func:`~exan_verify.models.graph.to_convolutional` takes it, which raises
    what is wrong with the model itself. Raises :class:`UnsupportedLayerError` naming the first layer that the
    exact side does not take though ``attack`` does.
    """
    _, notes = unwrap(model)
    network = to_convolutional(model, input_shape)
    shapes = network.shapes()
    stages: list[Convolution] = []
    steps = list(network.body)
    while steps and isinstance(steps[0], FloatConvolution):
        stage, after = steps[0], steps[1] if len(steps) > 1 else None
        place = len(network.body) - len(steps)
        if not isinstance(after, Relu):
            raise _unsupported(after or stage, "without a ReLU after the convolution before it")
        if stage.fold is not None:
            raise _unsupported(stage, "with a BatchNorm folded into it")
        if stage.groups != 1:
            raise _unsupported(stage, f"with groups={stage.groups}")
        channels, height, width = shapes[place]
        stages.append(
            Convolution(
                weight=exact_array(stage.weight, f"{stage.path}.weight"),
                bias=None if stage.bias is None else exact_array(stage.bias, f"{stage.path}.bias"),
                input_shape=(channels, height, width),
                stride=stage.stride,
                padding=stage.padding,
                dilation=stage.dilation,
                name=stage.path,
            )
        )
        steps = steps[2:]
    if not network.chain or len(steps) != 1 or not isinstance(steps[0], Flatten):
        raise _unsupported(steps[0], "")
    if any(source.fold is not None or source.before is not None for source in network.head_sources):
        raise UnsupportedLayerError(f"a BatchNorm1d of the head is folded for the attack only; {_PROVED}")
    layers = ", ".join(
        f"{stage.name!r} {'x'.join(map(str, stage.input_shape))} to {'x'.join(map(str, stage.output_shape))}"
        for stage in stages
    )
    head = "-".join(map(str, network.head.widths))
    understood = f"convolutions with ReLU ({layers}), then Linear layers {head} with ReLU between them"
    return StagedNetwork(stages=tuple(stages), head=network.head, notes=(*notes, understood))


def _unsupported(stage: Stage, how: str) -> UnsupportedLayerError:
    what = f"layer {stage.path!r} ({stage.kind})"
    return UnsupportedLayerError(
        f"nothing is proved about models that have {' '.join(filter(None, (what, how)))}; {_PROVED}. "
        "exan_verify.attack (exan attack, exan audit) rebuilds the batches of those that end in Linear layers"
    )
