"""From an ONNX file with convolutions to the ``torch.nn.Module`` that it was exported from, as far as that
goes: one chain of Conv, BatchNormalization (as it is in eval mode), Relu and pooling, then Linear layers.

The module has the file's numbers under the names of its initialisers, and is taken as any other from there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exan_verify.errors import UnsupportedLayerError
from exan_verify.models.chain import Kind, Step
from exan_verify.models.onnx_files.read import PICTURES, Attributes, Graph, Reader, reading


class FromOnnx(nn.Module):
    """The layers of a file in their order. ``input_shape``: (C, H, W), None where there are no pictures.
    ``notes``: how pictures enter, where it is not as in the file.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        input_shape: tuple[int, ...] | None,
        notes: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.order = tuple(layers)
        self.input_shape = input_shape
        self.notes = notes
        for path, layer in layers.items():
            *above, name = path.split(".")
            parent: nn.Module = self
            for part in above:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (M, K) of pictures (M, C, H, W)."""
        for path in self.order:
            x = self.get_submodule(path)(x)
        return x


def load_onnx_pictures(path: str | Path) -> FromOnnx:
    """The module of the ONNX file ``path``, in eval mode, with the file's numbers exactly.

    Raises :class:`UnsupportedLayerError` naming the node that cannot be expressed, and :class:`FileError`.
    """
    return reading(path, _module)


def _module(graph: Graph) -> FromOnnx:
    batch = graph.batches()[0]
    reader = _PictureReader(graph, batch)
    steps = reader.read()
    _require_no_constants(steps)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    flat = False
    for step in steps:
        if step.kind is Kind.LINEAR and not flat:
            flat = True
            layers["flatten"] = nn.Flatten()
        if step.kind is Kind.LINEAR:
            _add(layers, _linear(step), step.layer.name if step.layer else "")
        elif step.kind is Kind.RELU:
            _add(layers, nn.ReLU(), "")
        else:
            module, name = reader.modules[step.path]
            _add(layers, module, name)
    if not flat:
        raise UnsupportedLayerError("the file has no Linear layer after its convolutions; it must end in one")
    turned = [s.layer.name for s in steps if s.layer is not None and s.layer.fold is not None]
    if turned:
        reader.notes.append(
            f"the columns of layer {turned[0]!r} are in the order (channels, height, width), not as the file "
            "has them"
        )
    return FromOnnx(layers, reader.input_shape, tuple(reader.notes)).eval()


def _require_no_constants(steps: Sequence[Step]) -> None:
    for step in steps:
        if step.kind is Kind.CONSTANT:
            raise UnsupportedLayerError(
                f"{step.path} shifts or scales values of a network with convolutions; apply it to the data "
                "instead, and export the model without it"
            )


def _add(layers: OrderedDict[str, nn.Module], module: nn.Module, name: str) -> None:
    """Under ``name``, or one made up where it is empty, taken, or inside another layer."""
    parts = [f"{path}.".startswith(f"{name}.") or f"{name}.".startswith(f"{path}.") for path in layers]
    if not name or any(parts):
        name = f"{type(module).__name__.lower()}{len(layers)}"
    layers[name] = module


def _linear(step: Step) -> nn.Linear:
    layer = step.layer
    assert layer is not None
    if layer.weight.dtype == object or (layer.bias is not None and layer.bias.dtype == object):
        raise UnsupportedLayerError(f"{step.path} has factors that floating-point weights cannot hold")
    weight = torch.from_numpy(np.array(layer.weight))
    made = nn.Linear(layer.shape[1], layer.shape[0], bias=layer.bias is not None, dtype=weight.dtype)
    made.weight = nn.Parameter(weight)
    if layer.bias is not None:
        made.bias = nn.Parameter(torch.from_numpy(np.array(layer.bias)).to(weight.dtype))
    return made


class _PictureReader(Reader):
    """Reads the layers on pictures as well; ``places`` of pictures are (N, C, H, W)."""

    def __init__(self, graph: Graph, batch: Any) -> None:
        super().__init__(graph, batch)
        self.modules: dict[str, tuple[nn.Module, str]] = {}
        self.notes: list[str] = list(batch.notes)
        self.input_shape: tuple[int, ...] | None = None

    def _append(self, node: Any, attributes: Attributes, place: str) -> None:
        if node.op_type in PICTURES:
            self._picture(node, attributes, place)
        elif node.op_type == "Add" and self._lacks_bias():
            self._bias(node, place)
        else:
            super()._append(node, attributes, place)

    def _picture(self, node: Any, attributes: Attributes, place: str) -> None:
        _require_no_constants(self.steps)
        made: nn.Module
        name = ""
        if node.op_type == "Pad":
            pads = attributes.get("pads") or self._constant(node.input[1], place).reshape(-1)
            if np.any(np.asarray(pads) != 0):
                raise UnsupportedLayerError(f"{place} pads; give the padding to the layer after it")
            return
        if node.op_type == "BatchNormalization":
            made, name = self._batch_norm(node, attributes, place)
        elif node.op_type == "Conv":
            made, name = self._convolution(node, attributes, place)
        elif node.op_type == "GlobalAveragePool":
            made = nn.AdaptiveAvgPool2d(1)
        else:
            made = _pool(node.op_type, attributes, place)
        if self.places.ndim == 4:
            self._require_pictures(place)
            with torch.no_grad():
                shape = made.eval()(torch.zeros(self.places.shape, dtype=_dtype(made))).shape
        else:
            shape = torch.Size((self.samples, self.features))
        self.features = int(np.prod(shape[1:]))
        self.places = np.arange(self.samples * self.features).reshape(shape)
        self.modules[place] = (made, name)
        self.steps.append(Step(kind=Kind.OTHER, path=place))

    def _require_pictures(self, place: str) -> None:
        """Pictures are (N, C, H, W) as they come, or the input's, whatever its order was."""
        self.input_shape = self.input_shape or tuple(int(n) for n in self.places.shape[1:])
        natural = np.arange(self.places.size).reshape(self.places.shape)
        if np.array_equal(self.places, natural):
            return
        if any(step.kind is not Kind.NOTHING for step in self.steps) or not np.array_equal(
            self.places // self.features, natural // self.features
        ):
            raise UnsupportedLayerError(f"{place} takes pictures in another order than the layer before it")
        self.notes.append(
            f"pictures enter as (channels, height, width) = {self.input_shape}, not as the file has them"
        )

    def _convolution(self, node: Any, attributes: Attributes, place: str) -> tuple[nn.Module, str]:
        weight = self._constant(node.input[1], place)
        names = (node.input[1], node.input[2] if len(node.input) > 2 and node.input[2] else None)
        bias = None if names[1] is None else self._constant(names[1], place)
        if weight.ndim != 4 or self.places.ndim != 4:
            raise UnsupportedLayerError(f"{place} is not on pictures (N, C, H, W); only these are read")
        groups = int(attributes.get("group", 1))
        padding = _padding(attributes, weight.shape[2:], place)
        made = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=tuple(attributes.get("strides", (1, 1))),
            padding=padding,
            dilation=tuple(attributes.get("dilations", (1, 1))),
            groups=groups,
            bias=bias is not None,
        )
        made.weight = nn.Parameter(torch.from_numpy(np.array(weight)))
        if bias is not None:
            made.bias = nn.Parameter(torch.from_numpy(np.array(bias)).to(made.weight.dtype))
        return made, self._claimed(names, place)

    def _batch_norm(self, node: Any, attributes: Attributes, place: str) -> tuple[nn.Module, str]:
        scale, shift, mean, variance = (self._constant(name, place) for name in node.input[1:5])
        if attributes.get("training_mode", 0):
            raise UnsupportedLayerError(f"{place} is in training mode; export the model after model.eval()")
        kind = nn.BatchNorm2d if self.places.ndim == 4 else nn.BatchNorm1d
        made = kind(scale.size, eps=float(attributes.get("epsilon", 1e-5)))
        made.weight, made.bias = (nn.Parameter(torch.from_numpy(np.array(v))) for v in (scale, shift))
        made.running_mean, made.running_var = (torch.from_numpy(np.array(v)) for v in (mean, variance))
        return made, self._claimed((node.input[1], node.input[2]), place)

    def _lacks_bias(self) -> bool:
        """Whether the step before is a Conv without a bias, which an Add then is."""
        last = self.modules.get(self.steps[-1].path) if self.steps else None
        return last is not None and isinstance(last[0], nn.Conv2d) and last[0].bias is None

    def _bias(self, node: Any, place: str) -> None:
        name = node.input[1] if node.input[0] == self.current else node.input[0]
        made, known = self.modules[self.steps[-1].path]
        assert isinstance(made, nn.Conv2d)
        table = self._for_each(self._constant(name, place), place).reshape(made.out_channels, -1)
        if np.any(table != table[:, :1]):
            raise UnsupportedLayerError(
                f"{place} adds another number to every pixel; no Conv has such a bias"
            )
        made.bias = nn.Parameter(torch.from_numpy(np.array(table[:, 0])).to(made.weight.dtype))
        self.modules[self.steps[-1].path] = (made, known or self._claimed((None, name), place))


def _dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float32)


def _padding(attributes: Attributes, kernel: Sequence[int], place: str) -> Any:
    """The padding of a Conv or a pool: (vertical, horizontal), or ``"same"``."""
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic == b"VALID":
        return (0, 0)
    strides = tuple(attributes.get("strides", (1, 1)))
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        dilations = attributes.get("dilations", (1, 1))
        totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        if strides == (1, 1) and all(t % 2 == 0 for t in totals):
            return tuple(t // 2 for t in totals)
        pads: Sequence[int] = (0, 0, 1, 1)
    else:
        pads = attributes.get("pads", (0, 0, 0, 0))
    if len(pads) != 4 or tuple(pads[:2]) != tuple(pads[2:]) or min(pads) < 0:
        raise UnsupportedLayerError(f"{place} pads one side more than the other; pad both sides alike")
    return tuple(pads[:2])


def _pool(kind: str, attributes: Attributes, place: str) -> nn.Module:
    kernel = tuple(attributes["kernel_shape"])
    if attributes.get("ceil_mode", 0) or len(kernel) != 2:
        raise UnsupportedLayerError(f"{place} has ceil_mode, or no windows in two dimensions; not supported")
    stride = tuple(attributes.get("strides", (1, 1)))
    padding, dilation = _padding(attributes, kernel, place), tuple(attributes.get("dilations", (1, 1)))
    if kind == "MaxPool":
        return nn.MaxPool2d(kernel, stride, padding, dilation)
    if dilation != (1, 1):
        raise UnsupportedLayerError(f"{place} averages over windows with gaps; not supported")
    return nn.AvgPool2d(
        kernel, stride, padding, count_include_pad=bool(attributes.get("count_include_pad", 0))
    )
