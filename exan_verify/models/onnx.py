"""From an ONNX file to an exact :class:`ReluNetwork`.

Supported: Gemm (alpha = beta = 1), MatMul with or without Add, Relu, and Flatten, Reshape, Identity,
Dropout where they change nothing. A layer is named by the prefix of its initialisers (``fc1`` for
``fc1.weight``), so that gradients exported under torch's names fit; where the exporter made up a name, the
layers are called ``layer0``, ``layer1``, ... Weights are (n_out, n_in) as in torch, whatever the node stores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exan_verify.core.network import Array, Linear, ReluNetwork, exact_array
from exan_verify.errors import ExanError, FileError, UnsupportedLayerError
from exan_verify.models.chain import Kind, Step, assemble


def load_onnx(path: str | Path) -> ReluNetwork:
    """The network stored in the ONNX file ``path``.

    Raises :class:`FileError` when the file is missing or not ONNX (or the onnx package is not installed),
    and :class:`UnsupportedLayerError` naming the type and name of the node that cannot be expressed.
    """
    graph = _read(Path(path))
    try:
        reader = _Reader(graph)
        for node in graph.node:
            reader.read(node)
        reader.finish([output.name for output in graph.output])
    except ExanError:
        raise
    # a tensor whose bytes are not what its dimensions say, a node without the inputs of its type
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RuntimeError) as error:
        raise FileError(f"{path}: a damaged ONNX file ({error}); export the model again") from None
    return assemble(reader.steps)


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
        raise FileError(f"{path}: not a valid ONNX file ({first_line}); export the model again") from None
    return model.graph


class _Reader:
    """Follows the only chain of nodes from the graph's input, folding operations on constants."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.to_array = numpy_helper.to_array
        self.constants = {tensor.name: self.to_array(tensor) for tensor in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise UnsupportedLayerError(f"the graph has inputs {inputs}; it must have exactly one")
        self.current = inputs[0]
        self.steps: list[Step] = []
        self.used: set[str] = set()

    def read(self, node: Any) -> None:
        """Fold ``node`` into the constants, or append the step it makes."""
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedLayerError(
                f"{_name(node)} is of the domain {node.domain!r}; use standard operators"
            )
        if node.op_type == "Constant":
            tensor = _attribute(node, "value", None)
            whole = np.array(_attribute(node, "value_ints", []))
            self.constants[node.output[0]] = whole if tensor is None else self.to_array(tensor)
        elif node.input and node.input[0] in self.constants and node.op_type in ("Identity", "Transpose"):
            self._fold(node)
        elif self.current not in node.input:
            raise UnsupportedLayerError(
                f"{_name(node)} is not on the one chain from input to output; no branches"
            )
        else:
            self._append(node)
            self.current = node.output[0]

    def finish(self, outputs: list[str]) -> None:
        """Refuse graphs whose output is not the end of the chain."""
        if outputs != [self.current]:
            raise UnsupportedLayerError(
                f"the graph's outputs are {outputs}; it must give the logits and nothing else"
            )

    def _fold(self, node: Any) -> None:
        value = self.constants[node.input[0]]
        if node.op_type == "Transpose":
            value = np.transpose(value, _attribute(node, "perm", None))
        self.constants[node.output[0]] = value

    def _append(self, node: Any) -> None:
        if node.op_type == "Gemm":
            self._gemm(node)
        elif node.op_type == "MatMul" and node.input[0] == self.current:
            self._linear(node, self._constant(node, 1).T, None, node.input[1], None)
        elif node.op_type == "Add":
            self._bias(node)
        elif node.op_type == "Relu":
            self.steps.append(Step(kind=Kind.RELU, path=_label(node)))
        elif not self._changes_nothing(node):
            raise UnsupportedLayerError(
                f"{_name(node)} is not supported; export Linear layers with ReLU between them, "
                "ending with the logits (no softmax)"
            )

    def _gemm(self, node: Any) -> None:
        if _attribute(node, "alpha", 1.0) != 1 or _attribute(node, "beta", 1.0) != 1:
            raise UnsupportedLayerError(
                f"{_name(node)} has alpha or beta other than 1; fold them into the weights"
            )
        if _attribute(node, "transA", 0) or node.input[0] != self.current:
            raise UnsupportedLayerError(
                f"{_name(node)} does not multiply the step before it by constant weights"
            )
        weight = self._constant(node, 1)
        has_bias = len(node.input) > 2 and node.input[2]
        self._linear(
            node,
            weight if _attribute(node, "transB", 0) else weight.T,
            self._constant(node, 2) if has_bias else None,
            node.input[1],
            node.input[2] if has_bias else None,
        )

    def _bias(self, node: Any) -> None:
        """An Add is the bias of the MatMul right before it, and nothing else."""
        name = node.input[1] if node.input[0] == self.current else node.input[0]
        last = self.steps[-1].layer if self.steps else None
        if last is None or last.bias is not None or name not in self.constants:
            raise UnsupportedLayerError(f"{_name(node)} is not the constant bias of a MatMul before it")
        del self.steps[-1]
        self._linear(node, last.weight, self.constants[name], None, name, default=last.name)

    def _linear(
        self,
        node: Any,
        weight: Array,
        bias: Array | None,
        weight_name: str | None,
        bias_name: str | None,
        *,
        default: str | None = None,
    ) -> None:
        for name in (weight_name, bias_name):
            if name is not None and name in self.used:
                raise UnsupportedLayerError(
                    f"{_name(node)} uses {name!r}, as another layer does; give every layer its own"
                )
            self.used.add(name or "")
        count = sum(step.kind is Kind.LINEAR for step in self.steps)
        named = _prefix(weight_name, "weight") or _prefix(bias_name, "bias") or default
        layer = named or f"layer{count}"
        linear = Linear(
            weight=_values(weight, f"{layer}.weight"),
            bias=None if bias is None else _values(bias, f"{layer}.bias"),
            name=layer,
        )
        self.steps.append(Step(kind=Kind.LINEAR, path=_label(node), layer=linear))

    def _constant(self, node: Any, position: int) -> Array:
        name = node.input[position]
        if name not in self.constants:
            raise UnsupportedLayerError(f"{_name(node)} takes {name!r}, which is not a constant of the file")
        value: Array = self.constants[name]
        return value

    def _changes_nothing(self, node: Any) -> bool:
        if node.op_type == "Identity":
            return True
        if node.op_type == "Flatten":
            return bool(_attribute(node, "axis", 1) == 1)
        if node.op_type == "Dropout":
            training = node.input[2] if len(node.input) > 2 else ""
            return not training or not bool(self.constants.get(training, np.True_))
        if node.op_type == "Reshape" and node.input[1] in self.constants:
            shape = self.constants[node.input[1]].tolist()
            # 0 keeps the input's dimension: (-1, d), (0, -1) and (0, d) all give (M, d)
            return len(shape) == 2 and (shape[0] == 0 or (shape[0] == -1 and shape[1] > 0))
        return False


def _prefix(name: str | None, parameter: str) -> str | None:
    ending = f".{parameter}"
    return name.removesuffix(ending) if name and name.endswith(ending) else None


def _values(array: Array, name: str) -> Array:
    if str(array.dtype) == "bfloat16":  # a dtype of its own in numpy; float32 holds its values exactly
        array = array.astype(np.float32)
    return exact_array(array, name)


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _label(node: Any) -> str:
    return str(node.name or node.output[0])


def _name(node: Any) -> str:
    return f"ONNX node {_label(node)!r} ({node.op_type})"
