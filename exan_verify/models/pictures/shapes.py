"""The picture size: taken from the user, or found as the only square one that fits the head."""

from __future__ import annotations

from dataclasses import replace

from exan_verify.errors import ShapeError, UnsupportedLayerError
from exan_verify.models.pictures.stages import AdaptivePool, Convolution, ConvolutionalNetwork, Stage

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
    shapes = [shape]
    body: list[Stage] = []
    for stage in network.body:
        taken = [shapes[k] for k in stage.inputs]
        if isinstance(stage, AdaptivePool):
            stage = stage.resolved(*taken[0][1:])
        try:
            shapes.append(stage.shape(*taken))
        except ValueError as error:
            raise ShapeError(
                f"{stage.kind} {stage.path!r} cannot take values of shape {taken[0]} "
                f"(for pictures {shape}): {error}; correct input_shape"
            ) from None
        body.append(stage)
    if len(shapes[-1]) != 1:
        raise UnsupportedLayerError("the model does not flatten its pictures; put a Flatten before the head")
    return tuple(body), shapes[-1][0]
