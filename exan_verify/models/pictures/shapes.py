"""The picture size: taken from the user, or found as the only square one that fits the head."""

from __future__ import annotations

from dataclasses import replace

import torch

from exan_verify.errors import ShapeError, UnsupportedLayerError
from exan_verify.models.pictures.stages import AdaptivePool, Convolution, ConvolutionalNetwork, Scale, Stage

_LARGEST = 512
"""Pixels per side up to which sizes are tried."""


def resolve(network: ConvolutionalNetwork, input_shape: tuple[int, ...] | None) -> ConvolutionalNetwork:
    """The network with its input shape and with adaptive pools resolved.

    Raises :class:`ShapeError` when ``input_shape`` does not fit, or when none is given and not exactly one
    square size fits.
    """
    width = network.head.widths[0]
    if not network.body:
        return replace(network, input_shape=(width,))
    if input_shape is not None:
        if len(input_shape) != 3 or min(input_shape) < 1:
            raise ShapeError(f"input_shape={input_shape}; give (channels, height, width)")
        body, features = _propagate(network, input_shape)
        if features != width:
            raise ShapeError(
                f"pictures of shape {input_shape} give the head {features} features but layer "
                f"{network.head.layers[0].name!r} takes {width}; correct input_shape"
            )
        return replace(network, body=body, input_shape=input_shape)
    return _search(network, width)


def _search(network: ConvolutionalNetwork, width: int) -> ConvolutionalNetwork:
    channels = _channels(network.body)
    fitting = []
    for size in range(1, _LARGEST + 1):
        try:
            body, features = _propagate(network, (channels, size, size))
        except ShapeError:
            continue
        if features == width:
            fitting.append(replace(network, body=body, input_shape=(channels, size, size)))
        elif features > width:
            break
    if len(fitting) != 1:
        sizes = [shape.input_shape[1] for shape in fitting]
        found = f"sizes {sizes[0]} to {sizes[-1]} fit" if sizes else "no square size fits"
        raise ShapeError(
            f"the picture size is not clear from the model ({found} the head's {width} features); "
            f"pass input_shape=({channels}, height, width) (--input-shape {channels},H,W)"
        )
    return fitting[0]


def _channels(body: tuple[Stage, ...]) -> int:
    for stage in body:
        if isinstance(stage, Convolution):
            return int(stage.weight.shape[1]) * stage.groups
    raise ShapeError(
        "the number of channels is not clear from the model; pass input_shape=(channels, height, width) "
        "(--input-shape C,H,W)"
    )


def _propagate(network: ConvolutionalNetwork, shape: tuple[int, ...]) -> tuple[tuple[Stage, ...], int]:
    """The resolved stages and the number of features; nothing is computed."""
    values = [torch.empty(1, *shape, device="meta")]
    body: list[Stage] = []
    for stage in network.body:
        taken = [values[k] for k in stage.inputs]
        if isinstance(stage, AdaptivePool):
            stage = stage.resolved(*taken[0].shape[2:])
        try:
            values.append(stage.apply(*taken))
        except RuntimeError as error:
            raise ShapeError(
                f"{stage.kind} {stage.path!r} cannot take values of shape {tuple(taken[0].shape[1:])} "
                f"(for pictures {shape}): {str(error).splitlines()[0]}; correct input_shape"
            ) from None
        if isinstance(stage, Scale) and values[-1].shape != taken[0].shape:
            raise ShapeError(
                f"{stage.kind} {stage.path!r} has {stage.factor.numel()} channels, pictures of {shape} have "
                f"{taken[0].shape[1]} there; correct input_shape"
            )
        body.append(stage)
    if values[-1].dim() != 2:
        raise UnsupportedLayerError("the model does not flatten its pictures; put a Flatten before the head")
    return tuple(body), int(values[-1].shape[1])
