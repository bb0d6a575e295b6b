"""From an ONNX file to an exact :class:`Network`, as exporters write them (opset 9 and later).

On the way from the input to the logits there may be Gemm and MatMul by constants (on either side), Relu (also
as Clip or Max at 0), LeakyRelu, PRelu, Clip between two numbers, Add, Sub, Mul and Div by constants, and what
only moves numbers about: Flatten, Reshape, Squeeze, Unsqueeze, Transpose, Identity, Dropout that is off, Cast
between floating-point types. Constants may be initialisers (in the file or beside it), Constant nodes, and
what :mod:`exan_verify.models.onnx_files.constants` makes of them.
Where every number goes is followed exactly, so that layouts need no rules of their own.

A layer is named by the prefix of its initialisers (``fc1`` for ``fc1.weight``), so that gradients under
torch's names fit; where the exporter made up a name, the layers are called ``layer0``, ``layer1``, ...
Weights are (n_out, n_in) as in torch, whatever the node stores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from exan_verify.core.arrays import fractions, freeze
from exan_verify.core.network import Array, Linear, Network, ReluNetwork, exact_array
from exan_verify.errors import ExanError, FileError, UnsupportedLayerError
from exan_verify.models.activations import Make, clipped, leaky, parametric
from exan_verify.models.chain import Kind, Step, assemble_any, to_network
from exan_verify.models.folding import Affine, permuted, scaled
from exan_verify.models.onnx_files import constants

_SUPPORTED = "export Linear layers with ReLU between them, ending with the logits"
PICTURES = ("Conv", "BatchNormalization", "Pad", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean")
"""Kinds of nodes that networks with convolutions have."""

_MOST_WORK = 1 << 28
"""Numbers that are moved about while a file is read; what exporters write takes a thousandth of it."""

Attributes = Mapping[str, Any]
_Made = TypeVar("_Made")


def load_onnx(path: str | Path) -> ReluNetwork:
    """The network stored in the ONNX file ``path``, which has no activation but ReLU.

    Raises what :func:`load_any_onnx` does, and :class:`UnsupportedLayerError` for another activation.
    """
    return to_network(load_any_onnx(path))


def load_any_onnx(path: str | Path) -> Network:
    """The network stored in the ONNX file ``path``; LeakyRelu, PRelu and Clip have the slopes and ends that
    the file has.

    Raises :class:`FileError` when the file is missing or not ONNX (or the onnx package is not installed),
    and :class:`UnsupportedLayerError` naming the type and name of the node that cannot be expressed.
    """
    return reading(path, _network)


def reading(path: str | Path, make: Callable[[Graph], _Made]) -> _Made:
    """What ``make`` makes of the file's graph; whatever happens on a damaged one is an error of ours."""
    model = _read(Path(path))
    try:
        return make(Graph(model))
    except _MixedError as error:
        raise UnsupportedLayerError(str(error)) from None
    except ExanError:
        raise
    # a tensor whose bytes are not what its dimensions say, a node without the inputs of its type
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise FileError(f"{path}: a damaged ONNX file ({error}); export the model again") from None


def _network(graph: Graph) -> Network:
    refused: UnsupportedLayerError | None = None
    for batch in graph.batches():
        try:
            steps = Reader(graph, batch).read()
        except _MixedError as error:
            refused = refused or error
            continue
        return replace(network := assemble_any(steps), notes=(*batch.notes, *network.notes))
    raise UnsupportedLayerError(str(refused)) from None


def has_pictures(path: str | Path) -> bool:
    """Whether the file has nodes that only :mod:`exan_verify.models.onnx_files.pictures` reads."""
    return reading(path, lambda graph: any(node.op_type in PICTURES for node in graph.nodes))


def _read(path: Path) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError:
        raise FileError(
            f"{path}: reading ONNX needs the onnx package; pip install 'exan-verify[onnx]'"
        ) from None
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (DecodeError, onnx.checker.ValidationError, ValueError, RuntimeError, TypeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        beside = " and the files beside it that hold its tensors" if "external" in first_line.lower() else ""
        raise FileError(
            f"{path}: not a valid ONNX file ({first_line}); export the model again, or copy it whole{beside}"
        ) from None
    return model


class _MixedError(UnsupportedLayerError):
    """The file mixes what was taken for samples; another reading of its input may fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A reading of the graph's input: its ``shape``, and the ``axis`` along which the samples lie; None where
    the input is one sample."""

    shape: tuple[int, ...]
    axis: int | None
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """How many samples lie along the axis."""
        return 1 if self.axis is None else self.shape[self.axis]


class Graph:
    """The nodes on the way to the output, and the stored constants."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        graph = model.graph
        if model.functions:
            names = ", ".join(sorted({f.name for f in model.functions})[:3])
            raise UnsupportedLayerError(
                f"the file calls functions of its own ({names}); write it with "
                "onnx.inliner.inline_local_functions(model) first"
            )
        if graph.sparse_initializer:
            raise UnsupportedLayerError("the file has sparse initialisers; store dense tensors")
        self.constants = {
            tensor.name: constants.plain(numpy_helper.to_array(tensor), f"initialiser {tensor.name!r}")
            for tensor in graph.initializer
        }
        inputs = [value for value in graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise UnsupportedLayerError(
                f"the graph has inputs {[i.name for i in inputs]}; it must have exactly one"
            )
        self.input = inputs[0].name
        self.dims = _dims(inputs[0])
        outputs = [value.name for value in graph.output]
        if len(outputs) != 1:
            raise UnsupportedLayerError(
                f"the graph's outputs are {outputs}; it must give the logits and nothing else"
            )
        self.output = outputs[0]
        self.nodes = _needed(graph.node, self.output)

    def batches(self) -> list[Batch]:
        """The readings of the input, the likeliest first: samples along its free axis, or along the first."""
        dims = self.dims
        open_axes = [k for k, n in enumerate(dims) if n is None]
        first = next(iter(dims), 1)
        if len(open_axes) > 1:
            raise UnsupportedLayerError(
                f"the input {self.input!r} has more than one free size; export it with the sizes of a sample "
                "fixed, only the batch free"
            )
        # of a free axis, two samples and one: what is right for two is right for any number
        sizes = [2, 1] if open_axes or first is None else [first]
        found = []
        for size in sizes:
            shape = tuple(size if n is None else n for n in dims)
            axis = open_axes[0] if open_axes else 0 if len(shape) > 1 else None
            found.append(Batch(shape=shape, axis=axis))
        if open_axes:
            one = "the file takes one sample at a time, and is asked about batches of such samples"
            found[1] = replace(found[1], notes=(one,))
        elif len(dims) > 1 and dims[0] != 1:
            found.append(Batch(shape=found[0].shape, axis=None))
        most = max((array.size for array in self.constants.values()), default=0)
        features = math.prod(n for n in dims if n is not None) // (found[0].samples if not open_axes else 1)
        if not 1 <= features <= max(most, 1 << 16) or math.prod(found[0].shape) > constants.MOST_ENTRIES:
            raise UnsupportedLayerError(
                f"the input {self.input!r} has sizes {[n or 'free' for n in dims]}, which no weight here "
                "takes; export the model with the sizes of one sample"
            )
        return found


def _dims(value: Any) -> list[int | None]:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise UnsupportedLayerError(
            f"the input {value.name!r} has no shape in the file; export it with the sizes of a sample"
        )
    return [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]


def _needed(nodes: Sequence[Any], output: str) -> list[Any]:
    """The nodes that the output depends on, in their order."""
    wanted, found = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


class Reader:
    """Follows the only chain of nodes from the input to the output.

    ``places`` has the shape of the current value; its entries say which number stands where: feature f of
    sample m is ``m n + f`` of N n.
    """

    def __init__(self, graph: Graph, batch: Batch) -> None:
        self.graph = graph
        self.constants = dict(graph.constants)
        self.source = {name: name for name in graph.constants}
        self.current, self.samples = graph.input, batch.samples
        size = math.prod(batch.shape)
        self.features = size // self.samples
        rest = tuple(n for k, n in enumerate(batch.shape) if k != batch.axis)
        self.places = np.arange(size).reshape(batch.shape)
        if batch.axis is not None:
            self.places = np.moveaxis(np.arange(size).reshape(self.samples, *rest), 0, batch.axis)
        self.shapes = {self.current: self.places.shape}
        self.steps: list[Step] = []
        self.used: set[str] = set()
        self.beside: set[str] = set()
        self.work = 0

    def read(self) -> list[Step]:
        """The steps of the chain; raises :class:`_MixedError` where the reading of the input does not fit."""
        for node in self.graph.nodes:
            self._node(node)
        if self.graph.output != self.current:
            raise UnsupportedLayerError(
                f"the graph's output {self.graph.output!r} does not depend on its input"
            )
        order = np.argsort(self.places.reshape(-1) // self.features, kind="stable")
        if not np.array_equal(self.places.reshape(-1)[order], np.arange(self.places.size)):
            raise UnsupportedLayerError("the file puts the logits in another order than its last layer has")
        return self.steps

    def _node(self, node: Any) -> None:
        """Fold ``node`` into the constants, or append the step it makes."""
        place, attributes = _name(node), _attributes(node)
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedLayerError(f"{place} is of the domain {node.domain!r}; use standard operators")
        if node.op_type == "Constant":
            self.constants[node.output[0]] = constants.stored(attributes, place)
        elif node.op_type == "Shape" and node.input[0] in self.shapes:
            whole = np.array(self.shapes[node.input[0]], dtype=np.int64)
            self.constants[node.output[0]] = whole[attributes.get("start", 0) : attributes.get("end")]
        elif all(name in self.constants for name in node.input if name):
            given = [self.constants[name] if name else None for name in node.input]
            value = constants.fold(node.op_type, given, attributes, place)
            if value is None:
                raise UnsupportedLayerError(f"{place} makes constants and is not known; {_SUPPORTED}")
            self.constants[node.output[0]] = value
            # exporters store tensors of equal values once, with an Identity for each of the others
            if node.op_type != "Identity" and node.input and node.input[0] in self.source:
                self.source[node.output[0]] = self.source[node.input[0]]
        else:
            self._take(node, place)
            self._append(node, attributes, place)
            self._give(node.output[0])

    def _take(self, node: Any, place: str) -> None:
        """Make the value that ``node`` takes the current one."""
        if self.current not in node.input:
            raise UnsupportedLayerError(
                f"{place} is not on the one chain from input to output, but on a branch; {_SUPPORTED}"
            )

    def _give(self, name: str) -> None:
        """The current value goes by this name from here on."""
        self.current = name
        self.shapes[name] = self.places.shape

    def _append(self, node: Any, attributes: Attributes, place: str) -> None:
        if node.op_type in _MOVES:
            moved = _MOVES[node.op_type](self, node, attributes)
            self.work += moved.size
            if self.work > _MOST_WORK:
                raise UnsupportedLayerError(f"{place}: the file moves too many numbers about; simplify it")
            self.places = moved
        elif node.op_type in ("MatMul", "Gemm"):
            self._product(node, attributes, place)
        elif node.op_type in ("Add", "Sub", "Mul", "Div", "Neg"):
            self._shift_or_scale(node, place)
        elif node.op_type == "Relu" or self._is_relu(node, attributes):
            self.steps.append(Step(kind=Kind.RELU, path=_label(node)))
        elif (activation := self._activation(node, attributes, place)) is not None:
            self.steps.append(Step(kind=Kind.RELU, path=place, activation=activation))
        elif not self._changes_nothing(node, attributes):
            raise UnsupportedLayerError(f"{place} is not supported; {_remedy(node.op_type)}")

    # ---- layers -------------------------------------------------------------------------------------------

    def _product(self, node: Any, attributes: Attributes, place: str) -> None:
        """A MatMul or Gemm of the current value by a constant matrix, on either side."""
        left = node.input[0] == self.current
        if left and node.input[1] == self.current:
            raise UnsupportedLayerError(f"{place} multiplies the value of the step before it by itself")
        name = node.input[1 if left else 0]
        weight = self._constant(name, place)
        transposed = [bool(attributes.get(key, 0)) for key in ("transA", "transB")]
        if weight.ndim > 2 and set(weight.shape[:-2]) == {1}:
            self.places = self.places.reshape((1,) * (weight.ndim - self.places.ndim) + self.places.shape)
            weight = weight.reshape(weight.shape[-2:])
        if weight.ndim != 2:
            raise UnsupportedLayerError(f"{place} takes {name!r} of shape {weight.shape}; give a matrix")
        weight = weight.T if transposed[1 if left else 0] else weight
        if transposed[0 if left else 1]:
            self.places = self.places.T
        matrix = weight.T if left else weight
        order = self._contract(matrix, -1 if left or self.places.ndim == 1 else -2, place)
        bias_name = node.input[2] if len(node.input) > 2 and node.input[2] else None
        bias = None if bias_name is None else self._for_each(self._constant(bias_name, place), place)
        layer = self._linear(matrix, bias, (name, bias_name), place)
        if order is not None:
            layer = permuted(layer, order)
        alpha, beta = (Fraction(float(attributes.get(key, 1.0))) for key in ("alpha", "beta"))
        if alpha != 1 or beta != 1:
            if not alpha or (bias is not None and not beta):
                raise UnsupportedLayerError(
                    f"{place} multiplies by alpha or beta of zero; drop what they hide"
                )
            layer = scaled(layer, alpha, beta)
        self.steps.append(Step(kind=Kind.LINEAR, path=_label(node), layer=layer))

    def _contract(self, matrix: Array, axis: int, place: str) -> Array | None:
        """Put the outputs of ``matrix`` (n_out, n_in) in the place of the features along ``axis``; return
        which feature each column is for, None where they are in order."""
        moved = np.moveaxis(self.places, axis, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        sample, feature = rows // self.features, rows % self.features
        fits = rows.shape == (self.samples, self.features) and bool(np.all(sample == sample[:, :1]))
        order = feature[0]
        if (
            not fits
            or self.features != matrix.shape[1]
            or np.any(feature != order)
            or not np.array_equal(np.sort(order), np.arange(len(order)))
        ):
            raise _MixedError(
                f"{place} multiplies values of shape {self.places.shape} by a matrix (n_out, n_in) = "
                f"{matrix.shape}, and does not take the {self.features} numbers of one sample at once: it "
                "mixes samples, or works on parts of them; export the model so that each sample is one row, "
                "with the batch size free"
            )
        self.features = matrix.shape[0]
        made = sample[:, :1] * self.features + np.arange(self.features)
        self.places = np.moveaxis(made.reshape(*moved.shape[:-1], self.features), -1, axis)
        return None if np.array_equal(order, np.arange(len(order))) else freeze(order)

    def _claimed(self, names: tuple[str | None, str | None], place: str) -> str:
        """The layer that these parameters, each used here only, are named for; empty where their names are
        made up."""
        for name in names:
            source = self.source.get(name or "", name)
            if source is not None and (source in self.used or source in self.beside):
                raise UnsupportedLayerError(
                    f"{place} uses {name!r}, as another node does; give every layer parameters of its own"
                )
            self.used.add(source or "")
        return self._prefix(names[0], "weight") or self._prefix(names[1], "bias") or ""

    def _linear(
        self, weight: Array, bias: Array | None, names: tuple[str | None, str | None], place: str
    ) -> Linear:
        layer = self._claimed(names, place) or f"layer{self._linears()}"
        return Linear(
            weight=exact_array(weight, f"{layer}.weight"),
            bias=None if bias is None else exact_array(bias, f"{layer}.bias"),
            name=layer,
        )

    def _prefix(self, name: str | None, parameter: str) -> str | None:
        """The layer that a parameter is named for: itself, or what it was made from."""
        for known in () if name is None else (name, self.source.get(name, "")):
            layer = known.removesuffix(f".{parameter}")
            if layer != known and all(step.layer is None or step.layer.name != layer for step in self.steps):
                return layer
        return None

    # ---- constants beside layers --------------------------------------------------------------------------

    def _shift_or_scale(self, node: Any, place: str) -> None:
        if node.op_type == "Neg":
            self.steps.append(Step(kind=Kind.CONSTANT, path=place, affine=Affine.of(-1)))
            return
        first = node.input[0] == self.current
        name = node.input[1 if first else 0]
        value = fractions(exact_array(self._for_each(self._constant(name, place), place), place))
        last = self.steps[-1].layer if self.steps else None
        if node.op_type in ("Add", "Sub") and first | (node.op_type == "Add") and last and last.bias is None:
            # the bias of a MatMul is an Add of its own
            moved = value if node.op_type == "Add" else -value
            named = self._claimed((None, name), place)
            made_up = last.name == f"layer{self._linears() - 1}"
            bias = exact_array(moved, place)
            layer = replace(last, bias=bias, name=named if named and made_up else last.name)
            self.steps[-1] = replace(self.steps[-1], layer=layer)
            return
        source = self.source.get(name, name)
        if source in self.used:
            raise UnsupportedLayerError(
                f"{place} uses {name!r}, which is a parameter of a layer before it; give it its own constants"
            )
        self.beside.add(source)
        self.steps.append(Step(kind=Kind.CONSTANT, path=place, affine=_affine(node, first, value, place)))

    def _linears(self) -> int:
        return sum(step.kind is Kind.LINEAR for step in self.steps)

    def _for_each(self, value: Array, place: str) -> Array:
        """A constant that is added to the current value, or multiplied with it, as (n,), one for each
        feature."""
        shape = np.broadcast_shapes(value.shape, self.places.shape)
        if math.prod(shape) != self.places.size:
            raise UnsupportedLayerError(
                f"{place} takes a constant of shape {value.shape} with values of shape "
                f"{self.places.shape}, which makes more numbers of them; {_SUPPORTED}"
            )
        self.places = self.places.reshape(shape)
        spread = np.empty(self.places.size, dtype=value.dtype)
        spread[self.places.reshape(-1)] = np.broadcast_to(value, shape).reshape(-1)
        table = spread.reshape(self.samples, self.features)
        if np.any(table != table[:1]):
            raise _MixedError(
                f"{place} treats the samples of a batch differently; export it with the batch size free"
            )
        row: Array = table[0]
        return row

    def _constant(self, name: str, place: str) -> Array:
        if name not in self.constants:
            raise UnsupportedLayerError(f"{place} takes {name!r}, which is not a constant of the file")
        value: Array = self.constants[name]
        return value

    # ---- what is no layer ---------------------------------------------------------------------------------

    def _activation(self, node: Any, attributes: Attributes, place: str) -> Make | None:
        """What a LeakyRelu, PRelu or Clip is; None of any other node."""
        if node.op_type == "LeakyRelu":
            return leaky(float(attributes.get("alpha", np.float32(0.01))))
        if node.op_type == "PRelu" and node.input[0] == self.current:
            slopes = self._constant(node.input[1], place)
            slopes = slopes.reshape(-1) if slopes.size == 1 else self._for_each(slopes, place)
            self._claimed((node.input[1], None), place)
            return parametric(exact_array(slopes, place), node.input[1], place)
        ends = self._ends(node, attributes) if node.op_type == "Clip" else (None, None)
        return None if ends[0] is None or ends[1] is None else clipped(ends[0], ends[1], "Clip")

    def _ends(self, node: Any, attributes: Attributes) -> tuple[float | None, float | None]:
        """Where a Clip ends; None where it does not."""

        def number(position: int, name: str) -> float | None:
            given: Any = attributes.get(name)
            if position < len(node.input) and node.input[position]:
                given = self._constant(node.input[position], _name(node))
            return None if given is None else float(np.asarray(given, dtype=float).reshape(-1)[0])

        largest = float(np.finfo(np.float32).max)  # how opset 6 writes that there is no bound
        low, high = number(1, "min"), number(2, "max")
        return None if low is None or low <= -largest else low, (
            None if high is None or high >= largest else high
        )

    def _is_relu(self, node: Any, attributes: Attributes) -> bool:
        """Whether a Clip or a Max is max(h, 0)."""
        if node.op_type == "Clip":
            return self._ends(node, attributes) == (0, None)
        if node.op_type == "Max" and len(node.input) == 2:
            other = self._constant(node.input[1 if node.input[0] == self.current else 0], _name(node))
            return not np.any(self._for_each(other, _name(node)))
        return False

    def _changes_nothing(self, node: Any, attributes: Attributes) -> bool:
        if node.op_type == "Dropout":
            training = node.input[2] if len(node.input) > 2 else ""
            if training and bool(np.any(self.constants.get(training, np.True_))):
                raise UnsupportedLayerError(
                    f"{_name(node)} is in training mode, so the gradient is random; export the model after "
                    "model.eval()"
                )
            return True
        if node.op_type == "Cast":
            from onnx import TensorProto

            floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
            return bool(attributes.get("to") in floats)  # over the real numbers
        return bool(node.op_type == "Identity")

    def reshape(self, node: Any, attributes: Attributes) -> Array:
        """The places after a Reshape, of any shape."""
        wanted = self._constant(node.input[1], _name(node))
        try:
            return self.places.reshape(constants.shape_for(self.places.shape, wanted, attributes))
        except ValueError as error:  # a size that was fixed for another number of samples
            raise _MixedError(f"{_name(node)}: {error}; export it with the batch size free") from None

    def axes(self, node: Any, attributes: Attributes) -> tuple[int, ...] | None:
        """The axes of a Squeeze, Unsqueeze or ReduceMean."""
        given = [self._constant(name, _name(node)) if k else None for k, name in enumerate(node.input)]
        return constants.axes_of(given, attributes)

    def squeeze(self, node: Any, attributes: Attributes) -> Array:
        """The places after a Squeeze, of any shape."""
        try:
            return self.places.reshape(constants.squeezed(self.places.shape, self.axes(node, attributes)))
        except ValueError as error:
            raise _MixedError(f"{_name(node)}: {error}; export it with the batch size free") from None


_MOVES: Mapping[str, Callable[[Reader, Any, Attributes], Array]] = {
    "Reshape": Reader.reshape,
    "Squeeze": Reader.squeeze,
    "Unsqueeze": lambda r, n, a: r.places.reshape(constants.expanded(r.places.shape, r.axes(n, a))),
    "Flatten": lambda r, _n, a: r.places.reshape(constants.flat_shape(r.places.shape, a.get("axis", 1))),
    "Transpose": lambda r, _n, a: np.ascontiguousarray(np.transpose(r.places, a.get("perm"))),
}
"""Nodes that move numbers about, and what becomes of their places."""


def _affine(node: Any, first: bool, value: Array, place: str) -> Affine:
    if node.op_type == "Add":
        return Affine.of(1, value)
    if node.op_type == "Sub":
        return Affine.of(1, -value) if first else Affine.of(-1, value)
    if node.op_type == "Mul":
        return Affine.of(value)
    if not first:
        raise UnsupportedLayerError(f"{place} divides by the value of the step before it; only by constants")
    if np.any(value == 0):
        raise UnsupportedLayerError(f"{place} divides by zero; remove the features that it divides")
    return Affine.of(1 / value)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _label(node: Any) -> str:
    return str(node.name or node.output[0])


def _name(node: Any) -> str:
    return f"ONNX node {_label(node)!r} ({node.op_type})"


def _remedy(kind: str) -> str:
    if "softmax" in kind.lower():
        return "remove it: cross_entropy takes logits and applies the softmax itself"
    if kind in ("Sigmoid", "HardSigmoid"):
        return (
            "where it ends the model, remove it: bce takes logits and applies the sigmoid itself; as an "
            "activation it is none of those that anything is proved about. Use ReLU"
        )
    if kind in PICTURES:
        return "networks with such nodes are taken by exan certify, check, audit, attack and show only"
    return _SUPPORTED
