"""From an ONNX file with convolutions to the ``torch.nn.Module`` that it was exported from, as far as that
goes: Conv, BatchNormalization (as it is in eval mode), Relu, pooling and sums of two branches, before them
constant shifts and scales of the input, then one chain of Linear layers.

The module has the file's numbers under the names of its initialisers, and is taken as any other from there.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exan_verify.core.arrays import Array
from exan_verify.errors import UnsupportedLayerError
from exan_verify.models.chain import Kind, Step
from exan_verify.models.onnx_files.read import PICTURES, Attributes, Graph, Reader, reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One step of a file's forward: the ``path`` of the module that takes it, none of a sum, and the
    ``inputs``, places of the values it takes (0: the input, k: what step k - 1 gives)."""

    path: str | None
    inputs: tuple[int, ...]


class Constant(nn.Module):
    """A constant beside the value: ``value`` + h and so on, whichever comes first in the file."""

    def __init__(self, kind: str, value: Tensor, *, first: bool) -> None:
        super().__init__()
        self.kind, self.first = kind, first
        self.value: Tensor
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        """Of values (M, ...) that the constant broadcasts with."""
        made: Tensor = _OPERATORS[self.kind](*((x, self.value) if self.first else (self.value, x)))
        return made


_OPERATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
}


class FromOnnx(nn.Module):
    """The ``layers`` of a file by their path, taken as the ``plan`` says. ``input_shape``: (C, H, W), None
    where there are no pictures. ``notes``: how pictures enter, where it is not as in the file.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        plan: Sequence[Planned],
        input_shape: tuple[int, ...] | None,
        notes: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.plan = tuple(plan)
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
        values = [x]
        for step in self.plan:
            taken = [values[place] for place in step.inputs]
            values.append(
                taken[0] + taken[1] if step.path is None else self.get_submodule(step.path)(taken[0])
            )
        return values[-1]


def load_onnx_pictures(path: str | Path) -> FromOnnx:
    """The module of the ONNX file ``path``, in eval mode, with the file's numbers exactly.

    Raises :class:`UnsupportedLayerError` naming the node that cannot be expressed, and :class:`FileError`.
    """
    return reading(path, _module)


def _module(graph: Graph) -> FromOnnx:
    batch = graph.batches()[0]
    reader = _PictureReader(graph, batch)
    steps = reader.read()
    layers: dict[str, nn.Module] = {}
    plan: list[Planned] = []
    linear = next((k for k, step in enumerate(steps) if step.kind is Kind.LINEAR), len(steps))
    # the place that is flattened: what is flat from there on is one chain, with places that are one further
    flat_at = 0 if reader.input_shape is None else linear
    for number, (step, inputs) in enumerate(zip(steps, reader.takes, strict=True)):
        if number == flat_at:
            layers["flatten"] = nn.Flatten()
            plan.append(Planned(path="flatten", inputs=inputs))
        entering = all(before.kind is Kind.CONSTANT for before in steps[:number])
        made = reader.module(step, entering=entering)
        moved = tuple(place + (number >= flat_at) for place in inputs)
        plan.append(Planned(path=None if made is None else _add(layers, *made), inputs=moved))
    if all(step.kind is not Kind.LINEAR for step in steps):
        raise UnsupportedLayerError("the file has no Linear layer after its convolutions; it must end in one")
    turned = [s.layer.name for s in steps if s.layer is not None and s.layer.fold is not None]
    if turned:
        reader.notes.append(
            f"the columns of layer {turned[0]!r} are in the order (channels, height, width), not as the file "
            "has them"
        )
    return FromOnnx(layers, plan, reader.input_shape, tuple(reader.notes)).eval()


def _add(layers: dict[str, nn.Module], module: nn.Module, name: str) -> str:
    """Under ``name``, or one made up where it is empty, taken, or inside another layer; the name it has."""
    parts = [f"{path}.".startswith(f"{name}.") or f"{name}.".startswith(f"{path}.") for path in layers]
    if not name or any(parts):
        name = f"{type(module).__name__.lower()}{len(layers)}"
    layers[name] = module
    return name


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """A value of the graph: where its numbers stand, how many a sample has, and the place of the step that
    made it (0: it is the input). ``ordered``: a value of the input's that was put into the order in which
    pictures enter."""

    places: Array
    features: int
    made: int
    ordered: bool = False


class _PictureReader(Reader):
    """Reads the layers on pictures as well; ``places`` of pictures are (N, C, H, W).

    Values are kept by their names, so that two steps may take the same one; ``takes`` has for every step the
    places of what it takes. Branches meet in sums of pictures and nowhere else.
    """

    def __init__(self, graph: Graph, batch: Any) -> None:
        super().__init__(graph, batch)
        self.modules: dict[str, tuple[nn.Module, str]] = {}
        self.sums: set[str] = set()
        self.stored: dict[str, tuple[str, Array, bool]] = {}
        self.notes: list[str] = list(batch.notes)
        self.input_shape: tuple[int, ...] | None = None
        self.entering: Array | None = None
        self.takes: list[tuple[int, ...]] = []
        self.values = {self.current: _Value(places=self.places, features=self.features, made=0)}
        self.readers = Counter(name for node in graph.nodes for name in node.input)
        self.taken: tuple[int, ...] = (0,)

    def _take(self, node: Any, place: str) -> None:
        known = [name for name in dict.fromkeys(node.input) if name in self.values]
        if not known:
            raise UnsupportedLayerError(f"{place} takes nothing that a step before it gives")
        self.current = known[0]
        value = self.values[self.current]
        self.places, self.features = value.places, value.features
        self.taken = tuple(self.values[name].made for name in known)

    def _give(self, name: str) -> None:
        made = self.values[self.current].made
        if len(self.steps) > len(self.takes):
            self.takes.append(self.taken)
            made = len(self.steps)
        super()._give(name)
        self.values[name] = _Value(places=self.places, features=self.features, made=made)

    def _append(self, node: Any, attributes: Attributes, place: str) -> None:
        branches = [name for name in node.input if name in self.values]
        if node.op_type in PICTURES:
            self._picture(node, attributes, place)
        elif len(branches) > 1:
            self._sum(node, branches, place)
        elif node.op_type == "Add" and self._lacks_bias():
            self._bias(node, place)
        else:
            super()._append(node, attributes, place)

    def _sum(self, node: Any, branches: Sequence[str], place: str) -> None:
        """The values of two branches, entry by entry."""
        if node.op_type not in ("Add", "Sum") or len(set(branches)) != 2:
            raise UnsupportedLayerError(
                f"{place} takes {' and '.join(map(repr, branches))}, values of steps before it; branches are "
                "read where the values of two of them are added (Add), and nowhere else"
            )
        first, second = (self.values[name].places for name in branches)
        if first.shape != second.shape or not np.array_equal(first, second):
            raise UnsupportedLayerError(
                f"{place} adds values of shapes {first.shape} and {second.shape}, or in two orders; sums are "
                "read of branches of the same shape and order"
            )
        if first.ndim != 4:
            raise UnsupportedLayerError(
                f"{place} adds two branches of values that are no pictures (N, C, H, W); the Linear layers "
                "must be one chain"
            )
        self.sums.add(place)
        self.steps.append(Step(kind=Kind.OTHER, path=place))

    def _shift_or_scale(self, node: Any, place: str) -> None:
        steps = len(self.steps)
        super()._shift_or_scale(node, place)
        if len(self.steps) == steps:
            return  # a bias of the Linear layer before it
        row = np.array(-1.0)
        if node.op_type != "Neg":
            name = node.input[1 if node.input[0] == self.current else 0]
            row = self._for_each(self._constant(name, place), place)
            row = row.astype(np.float64) if row.dtype.kind in "iub" else row
        kind = "Mul" if node.op_type == "Neg" else node.op_type
        self.stored[place] = kind, row, node.input[0] == self.current

    def module(self, step: Step, *, entering: bool) -> tuple[nn.Module, str] | None:
        """The module of a step and the name that the file has for it, or none; None of a sum. ``entering``:
        whether the step takes the input, shifted and scaled at most."""
        if step.kind is Kind.LINEAR:
            return _linear(step), step.layer.name if step.layer else ""
        if step.kind is Kind.RELU:
            if step.activation is not None:
                raise UnsupportedLayerError(
                    f"{step.path} is another activation than Relu beside convolutions or BatchNormalization; "
                    "there ReLU alone is read"
                )
            return nn.ReLU(), ""
        if step.kind is Kind.CONSTANT:
            return self._constant_module(step, entering=entering), ""
        return None if step.path in self.sums else self.modules[step.path]

    def _constant_module(self, step: Step, *, entering: bool) -> nn.Module:
        """Of a shift or scale: of pictures only as they enter, one number for each channel."""
        kind, row, first = self.stored[step.path]
        if row.dtype == object:
            raise UnsupportedLayerError(f"{step.path} has numbers that floating point cannot hold")
        if self.input_shape is not None:
            table = row if row.ndim == 0 or self.entering is None else row[self.entering]
            if table.size > 1 and entering:
                table = table.reshape(self.input_shape[0], -1)
            if not entering or np.any(table != (table if table.ndim < 2 else table[:, :1])):
                raise UnsupportedLayerError(
                    f"{step.path} shifts or scales values of a network with convolutions, other than the "
                    "pictures as they enter with one number for each channel; apply it to the data instead, "
                    "and export the model without it"
                )
            row = table if table.ndim < 2 else table[:, 0].reshape(1, -1, 1, 1)
        return Constant(kind, torch.from_numpy(np.array(row)), first=first)

    def _picture(self, node: Any, attributes: Attributes, place: str) -> None:
        made: nn.Module
        name = ""
        if node.op_type == "Pad":
            self._pad(node, attributes, place)
            return
        if node.op_type == "BatchNormalization":
            made, name = self._batch_norm(node, attributes, place)
        elif node.op_type == "Conv":
            made, name = self._convolution(node, attributes, place)
        elif node.op_type == "GlobalAveragePool":
            made = nn.AdaptiveAvgPool2d(1)
        elif node.op_type == "ReduceMean":
            axes = {axis % self.places.ndim for axis in self.axes(node, attributes) or ()}
            if self.places.ndim != 4 or axes != {2, 3}:
                raise UnsupportedLayerError(
                    f"{place} is the mean over the axes {sorted(axes)}; only pictures are averaged, over "
                    "their height and width"
                )
            made = nn.AdaptiveAvgPool2d(1)
        else:
            made = _pool(node.op_type, attributes, self.places.shape, place)
        self._layer(made, name, place)
        if node.op_type == "ReduceMean" and not attributes.get("keepdims", 1):
            self.places = self.places.reshape(self.places.shape[:2])

    def _layer(self, made: nn.Module, name: str, place: str) -> None:
        """A layer that takes the current value."""
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

    def _pad(self, node: Any, attributes: Attributes, place: str) -> None:
        """Zeros around pictures, as a node of their own."""
        given = attributes.get("pads")
        pads = [
            int(n) for n in (self._constant(node.input[1], place).reshape(-1) if given is None else given)
        ]
        if not any(pads):
            return
        value = attributes.get("value", 0.0)
        if len(node.input) > 2 and node.input[2]:
            value = float(self._constant(node.input[2], place).reshape(-1)[0])
        constant = attributes.get("mode", b"constant") == b"constant" and value == 0
        if not constant or len(pads) != 8 or any(pads[:2]) or any(pads[4:6]) or len(node.input) > 3:
            raise UnsupportedLayerError(
                f"{place} pads with other than zeros around the pixels; not supported"
            )
        self._layer(nn.ZeroPad2d((pads[3], pads[7], pads[2], pads[6])), "", place)

    def _require_pictures(self, place: str) -> None:
        """Pictures are (N, C, H, W) as they come, or the input's, whatever its order was."""
        natural = np.arange(self.places.size).reshape(self.places.shape)
        enters = all(step.kind is Kind.CONSTANT for step in self.steps[: self.taken[0]])
        if enters and self.entering is None:
            self.input_shape = tuple(int(n) for n in self.places.shape[1:])
            self.entering = (self.places % self.features)[0].reshape(-1)
            if not np.array_equal(self.places, natural):
                self.notes.append(
                    f"pictures enter as (channels, height, width) = {self.input_shape}, not as the file has "
                    "them"
                )
        taken = self.values[self.current]
        expected = natural
        if enters and not taken.ordered and self.entering is not None:
            expected = self.entering + np.arange(self.samples)[:, None] * self.features
        if not np.array_equal(self.places.reshape(expected.shape), expected):
            raise UnsupportedLayerError(f"{place} takes pictures in another order than the layer before it")
        # whatever else takes this value, a sum with a branch for instance, takes what the module has there
        self.places = natural
        self.values[self.current] = replace(taken, places=natural, ordered=True)

    def _convolution(self, node: Any, attributes: Attributes, place: str) -> tuple[nn.Module, str]:
        weight = self._constant(node.input[1], place)
        names = (node.input[1], node.input[2] if len(node.input) > 2 and node.input[2] else None)
        bias = None if names[1] is None else self._constant(names[1], place)
        if weight.ndim != 4 or self.places.ndim != 4:
            raise UnsupportedLayerError(f"{place} is not on pictures (N, C, H, W); only these are read")
        groups = int(attributes.get("group", 1))
        pads = _pads(attributes, weight.shape[2:], self.places.shape[2:])
        if min(pads) < 0:
            raise UnsupportedLayerError(f"{place} cuts pixels off by padding below zero; not supported")
        even = pads[0] == pads[1] and pads[2] == pads[3]
        if not even:
            # torch's Conv2d pads both sides alike: the zeros are a layer of their own before it
            self._layer(nn.ZeroPad2d(pads), "", f"{place}, its padding")
            self.takes.append(self.taken)
            self.taken = (len(self.steps),)
        made = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=tuple(attributes.get("strides", (1, 1))),
            padding=(pads[2], pads[0]) if even else 0,
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
        made = self.taken[0]
        last = self.modules.get(self.steps[made - 1].path) if made else None
        alone = self.readers[self.current] == 1
        return alone and last is not None and isinstance(last[0], nn.Conv2d) and last[0].bias is None

    def _bias(self, node: Any, place: str) -> None:
        name = node.input[1] if node.input[0] == self.current else node.input[0]
        path = self.steps[self.taken[0] - 1].path
        made, known = self.modules[path]
        assert isinstance(made, nn.Conv2d)
        table = self._for_each(self._constant(name, place), place).reshape(made.out_channels, -1)
        if np.any(table != table[:, :1]):
            raise UnsupportedLayerError(
                f"{place} adds another number to every pixel; no Conv has such a bias"
            )
        made.bias = nn.Parameter(torch.from_numpy(np.array(table[:, 0])).to(made.weight.dtype))
        self.modules[path] = (made, known or self._claimed((None, name), place))


def _dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float32)


def _pads(attributes: Attributes, kernel: Sequence[int], sizes: Sequence[int]) -> tuple[int, int, int, int]:
    """The zeros (left, right, top, bottom) around pictures of ``sizes`` (H, W), of a Conv or a pool."""
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        # as many outputs as ceil(size / stride); an odd zero goes to the end, or to the beginning
        totals = [
            max(0, (-(-size // jump) - 1) * jump + step * (taps - 1) + 1 - size)
            for size, jump, step, taps in zip(
                sizes,
                attributes.get("strides", (1, 1)),
                attributes.get("dilations", (1, 1)),
                kernel,
                strict=True,
            )
        ]
        ends = [
            ((t // 2, t - t // 2) if automatic == b"SAME_UPPER" else (t - t // 2, t // 2)) for t in totals
        ]
        (top, bottom), (left, right) = ends
        return left, right, top, bottom
    top, left, bottom, right = (0, 0, 0, 0) if automatic == b"VALID" else attributes.get("pads", (0, 0, 0, 0))
    return left, right, top, bottom


def _pool(kind: str, attributes: Attributes, shape: Sequence[int], place: str) -> nn.Module:
    kernel = tuple(attributes["kernel_shape"])
    if attributes.get("ceil_mode", 0) or len(kernel) != 2 or len(shape) != 4:
        raise UnsupportedLayerError(f"{place} has ceil_mode, or no windows in two dimensions; not supported")
    stride = tuple(attributes.get("strides", (1, 1)))
    left, right, top, bottom = _pads(attributes, kernel, shape[2:])
    if left != right or top != bottom or min(left, top) < 0:
        raise UnsupportedLayerError(f"{place} pads one side more than the other; pad both sides alike")
    padding, dilation = (top, left), tuple(attributes.get("dilations", (1, 1)))
    if kind == "MaxPool":
        return nn.MaxPool2d(kernel, stride, padding, dilation)
    if dilation != (1, 1):
        raise UnsupportedLayerError(f"{place} averages over windows with gaps; not supported")
    return nn.AvgPool2d(
        kernel, stride, padding, count_include_pad=bool(attributes.get("count_include_pad", 0))
    )
