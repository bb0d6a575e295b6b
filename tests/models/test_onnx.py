"""ONNX files as exporters write them load as the function that onnx's own reference evaluator computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exan_verify.core.arrays import fractions
from exan_verify.core.network import ReluNetwork
from exan_verify.errors import ExanError, FileError, UnsupportedLayerError

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from exan_verify.models.onnx_files.read import load_onnx  # noqa: E402

OPSETS = (9, 11, 13, 18, 20)


class Maker:
    """Writes a graph node by node; ``value`` is the tensor that the next node takes."""

    def __init__(self, seed: int, opset: int = 20, dtype: Any = np.float32, samples: int | str = "N") -> None:
        self.rng, self.opset, self.dtype = np.random.default_rng(seed), opset, dtype
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self.value, self.samples = "x", samples
        self.dims: list[int | str] = [samples, 2, 2, 3]
        self.first = list(self.dims)
        self.features = 12

    def add(self, kind: str, *inputs: str, outputs: int = 1, chain: bool = True, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, f"node{len(self.nodes)}", **attributes))
        if chain:
            self.value = names[0]
        return names[0]

    def stored(self, array: Any, name: str = "") -> str:
        array = np.asarray(array)
        name = name or f"c{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(array.copy(order="C"), name))
        return name

    def numbers(self, *shape: int, low: float = -1, high: float = 1) -> Any:
        return self.rng.uniform(low, high, size=shape).astype(self.dtype)

    def axes(self, kind: str, value: str, *axes: int, chain: bool = True) -> str:
        """A Squeeze or Unsqueeze, as the opset has it."""
        if self.opset < 13:
            return self.add(kind, value, chain=chain, axes=list(axes))
        return self.add(kind, value, self.stored(np.array(axes)), chain=chain)

    def flat(self) -> None:
        if len(self.dims) > 2:
            self.add("Flatten", self.value)
        self.dims = [self.samples, self.features]

    def linear(self, out: int = 5) -> None:
        self.flat()
        weight = self.stored(self.numbers(out, self.features))
        self.add("Gemm", self.value, weight, self.stored(self.numbers(out)), transB=1)
        self.features, self.dims = out, [self.samples, out]

    def finish(self, depth: int = 2) -> Any:
        for _ in range(depth - 1):
            self.linear()
            self.add("Relu", self.value)
        self.linear(3)
        return self.model()

    def model(self) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "g",
            [info("x", kind, self.first)],
            [info(self.value, kind, ["P", "Q"])],
            self.initialisers,
        )
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8 if self.opset < 20 else 10)


def shaped(m: Maker, *dims: int | str) -> None:
    """Another shape of the input."""
    m.dims = list(dims)
    m.features = int(np.prod([d for d in dims if not isinstance(d, str)]))
    m.first = list(dims)


# ---- ways to flatten --------------------------------------------------------------------------------------


def view_of_the_batch_size(m: Maker) -> None:
    """``x.view(x.size(0), -1)`` as torch's older exporter writes it."""
    size = m.add("Gather", m.add("Shape", m.value, chain=False), m.stored(np.int64(0)), chain=False, axis=0)
    both = [m.axes("Unsqueeze", one, 0, chain=False) for one in (size, m.stored(np.int64(-1)))]
    m.add("Reshape", m.value, m.add("Concat", *both, chain=False, axis=0))
    m.dims = [m.samples, m.features]


def view_of_a_slice_of_the_shape(m: Maker) -> None:
    """The same as torch.export writes it: Shape with start and end, sizes joined."""
    if m.opset < 15:
        return view_of_the_batch_size(m)
    size = m.add("Shape", m.value, chain=False, start=0, end=1)
    joined = m.add("Concat", size, m.stored(np.array([m.features])), chain=False, axis=0)
    m.add("Reshape", m.value, joined, **({"allowzero": 1} if m.opset >= 14 else {}))
    m.dims = [m.samples, m.features]
    return None


def reshape_to(*shape: int) -> Callable[[Maker], None]:
    def flatten(m: Maker) -> None:
        m.add("Reshape", m.value, m.stored(np.array([m.features if n == 12 else n for n in shape])))
        m.dims = [m.samples, m.features]

    return flatten


def squeezes(m: Maker) -> None:
    m.axes("Unsqueeze", m.value, 1)
    m.axes("Squeeze", m.value, 1)
    m.flat()


def channels_last(m: Maker) -> None:
    m.add("Transpose", m.value, perm=[0, 2, 3, 1])
    m.flat()


def transposed_twice(m: Maker) -> None:
    m.flat()
    m.add("Transpose", m.value)
    m.add("Identity", m.value)
    m.add("Transpose", m.value)


def constant_node(m: Maker) -> None:
    shape = m.add("Constant", chain=False, value=numpy_helper.from_array(np.array([-1, m.features])))
    m.add("Reshape", m.value, shape)
    m.dims = [m.samples, m.features]


FLATTEN: dict[str, Callable[[Maker], None]] = {
    "view": view_of_the_batch_size,
    "view by slices": view_of_a_slice_of_the_shape,
    "reshape -1, n": reshape_to(-1, 12),
    "reshape 0, -1": reshape_to(0, -1),
    "reshape 0, n": reshape_to(0, 12),
    "squeeze": squeezes,
    "channels last": channels_last,
    "transposed": transposed_twice,
    "constant node": constant_node,
}


# ---- shifts and scales ------------------------------------------------------------------------------------


def normalise(m: Maker) -> None:
    m.add("Sub", m.value, m.stored(m.numbers(1, 2, 1, 1)))
    m.add("Div", m.value, m.stored(m.numbers(2, 1, 1, low=0.2, high=0.4)))


def rescale(m: Maker) -> None:
    if m.dtype == np.float32 and m.opset >= 12:
        scale = m.add("Constant", chain=False, value_float=1 / 255)
        m.add("Mul", scale, m.value)
        m.add("Add", m.value, m.add("Constant", chain=False, value_floats=[-0.5]))
    else:
        m.add("Mul", m.stored(m.numbers()), m.value)


def one_minus(m: Maker) -> None:
    m.add("Sub", m.stored(m.numbers(3)), m.value)
    m.add("Neg", m.value)


def mean_of_constants(m: Maker) -> None:
    """The constant is itself made of constants."""
    mean = m.add("Mul", m.stored(m.numbers(1, 2, 2, 3)), m.stored(m.numbers(1)), chain=False)
    m.add("Sub", m.value, m.add("Add", mean, m.stored(m.numbers(3)), chain=False))


SHIFTS = {
    "normalise": normalise,
    "rescale": rescale,
    "one minus": one_minus,
    "of constants": mean_of_constants,
}


# ---- layers -----------------------------------------------------------------------------------------------


def matmul(m: Maker, out: int) -> None:
    m.add("MatMul", m.value, m.stored(m.numbers(m.features, out)))
    m.add("Add", m.stored(m.numbers(1, out)), m.value)


def matmul_sub(m: Maker, out: int) -> None:
    m.add("MatMul", m.value, m.stored(m.numbers(1, m.features, out)[0]))
    m.add("Sub", m.value, m.stored(m.numbers(out)))
    m.add("Mul", m.value, m.stored(m.numbers(out, low=0.5)))


def gemm_scaled(m: Maker, out: int) -> None:
    weight, bias = m.stored(m.numbers(m.features, out)), m.stored(m.numbers(1, out))
    m.add("Gemm", m.value, weight, bias, alpha=0.3, beta=-1.7)


def gemm_transposed(m: Maker, out: int) -> None:
    """``W x`` on columns: Gemm(W, x^T) with the value as its second operand."""
    weight, bias = m.stored(m.numbers(m.features, out)), m.stored(m.numbers(out, 1))
    m.add("Gemm", weight, m.value, bias, transA=1, transB=1)
    m.add("Transpose", m.value, perm=[1, 0])


def matmul_left(m: Maker, out: int) -> None:
    m.add("Transpose", m.value)
    m.add("MatMul", m.stored(m.numbers(out, m.features)), m.value)
    m.add("Add", m.value, m.stored(m.numbers(out, 1)))
    m.add("Transpose", m.value)


def gemm_of_columns(m: Maker, out: int) -> None:
    m.add("Transpose", m.value)
    m.add("Gemm", m.value, m.stored(m.numbers(m.features, out)), m.stored(m.numbers(out)), transA=1)


def half_precision(m: Maker, out: int) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(m.dtype))
    half = m.stored(m.numbers(m.features, out).astype(np.float16))
    m.add("MatMul", m.value, m.add("Cast", half, chain=False, to=kind))
    m.add("Add", m.value, m.add("Identity", m.stored(m.numbers(out)), chain=False))


def quantised(m: Maker, out: int) -> None:
    """Weights of eight bits, dequantised per tensor or per channel; the evaluator has it from opset 19."""
    if m.opset < 19 or m.dtype != np.float32:
        return matmul(m, out)
    codes = m.stored(m.rng.integers(-128, 128, size=(m.features, out)).astype(np.int8))
    per_channel = m.rng.random() < 0.5
    scale = m.numbers(*((out,) if per_channel else ()), low=0.001, high=0.02)
    zero = m.rng.integers(-5, 5, size=scale.shape).astype(np.int8)
    axis = {"axis": 1} if per_channel else {}
    weight = m.add("DequantizeLinear", codes, m.stored(scale), m.stored(zero), chain=False, **axis)
    m.add("MatMul", m.value, weight)
    m.add("Add", m.value, m.stored(m.numbers(out)))
    return None


def transposed_weights(m: Maker, out: int) -> None:
    turned = m.add("Transpose", m.stored(m.numbers(out, m.features)), chain=False, perm=[1, 0])
    m.add("MatMul", m.value, turned)
    m.add("Add", m.value, m.stored(m.numbers(out)))


LAYERS = {
    "matmul": matmul,
    "matmul sub mul": matmul_sub,
    "gemm alpha beta": gemm_scaled,
    "gemm W x": gemm_transposed,
    "matmul W x": matmul_left,
    "gemm transA": gemm_of_columns,
    "half precision": half_precision,
    "quantised": quantised,
    "transposed": transposed_weights,
}


# ---- activations and what changes nothing -----------------------------------------------------------------


def clip(m: Maker) -> None:
    if m.opset < 11:
        m.add("Clip", m.value, min=0.0)
    else:
        m.add("Clip", m.value, m.stored(m.dtype(0)))


def maximum(m: Maker) -> None:
    m.add("Max", m.stored(m.dtype(0)), m.value)


def dropout(m: Maker) -> None:
    if m.opset < 12:
        m.add("Dropout", m.value, ratio=0.5)
    else:
        m.add("Dropout", m.value, m.stored(np.float32(0.5)), m.stored(np.array(False)))
    m.add("Relu", m.value)


def casts(m: Maker) -> None:
    m.add("Relu", m.value)
    m.add("Cast", m.value, to=TensorProto.DOUBLE)
    m.add("Cast", m.value, to=helper.np_dtype_to_tensor_dtype(np.dtype(m.dtype)))
    m.add("Identity", m.value)


ACTIVATIONS = {
    "relu": lambda m: m.add("Relu", m.value),
    "clip": clip,
    "max": maximum,
    "dropout": dropout,
    "casts": casts,
}


def written(m: Maker, *, flatten: str, shift: str, layers: tuple[str, str], activation: str) -> Any:
    if shift:
        SHIFTS[shift](m)
    FLATTEN[flatten](m)
    for k, name in enumerate(layers):
        if k:
            ACTIVATIONS[activation](m)
        out = 5 if not k else 3
        LAYERS[name](m, out)
        m.features, m.dims = out, [m.samples, out]
    return m.model()


def agrees(model: Any, path: Path, x: Any, tolerance: float = 2e-6, **files: Any) -> ReluNetwork:
    """The network of the file, which computes what the reference evaluator does on every sample."""
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    onnx.save(model, str(path), **files)
    network = load_onnx(path)
    h = fractions(x.reshape(-1, network.widths[0]))
    for k, layer in enumerate(network.layers):
        h = (np.maximum(h, 0) if k else h) @ fractions(layer.weight).T
        h = h if layer.bias is None else h + fractions(layer.bias)
    found = h.astype(float)
    assert np.allclose(found, expected.reshape(found.shape), rtol=tolerance, atol=tolerance)
    return network


def inputs(m: Maker, samples: int = 3) -> Any:
    return m.numbers(*(samples if isinstance(d, str) else d for d in m.first))


@pytest.mark.parametrize("seed", range(40))
def test_what_exporters_write(seed: int, tmp_path: Path):
    """Every form occurs, mixed with the others at every opset, in float32 and float64, one sample or many."""
    rng = np.random.default_rng(seed)
    pick = lambda of: list(of)[seed % len(of)] if seed < 20 else str(rng.choice(list(of)))  # noqa: E731
    dtype = (np.float32, np.float64)[seed % 2]
    m = Maker(seed, opset=OPSETS[seed % 5], dtype=dtype)
    if seed % 3 == 1:
        shaped(m, 1, 2, 2, 3)
        m.samples = 1
    model = written(
        m,
        flatten=pick(FLATTEN),
        shift=pick(["", *SHIFTS]),
        layers=(pick(LAYERS), str(rng.choice(list(LAYERS)))),
        activation=pick(ACTIVATIONS),
    )
    network = agrees(model, tmp_path / "m.onnx", inputs(m), 2e-6 if dtype == np.float32 else 1e-12)
    assert network.widths == (12, 5, 3)


def test_parameters_keep_the_names_of_torch(tmp_path: Path):
    """Also where a weight is transposed or cast, and where a bias of equal numbers is stored once."""
    m = Maker(0)
    m.flat()
    weight = m.stored(m.numbers(5, 12).astype(np.float16), "net.fc1.weight")
    cast = m.add("Cast", weight, chain=False, to=TensorProto.FLOAT)
    m.add("MatMul", m.value, m.add("Transpose", cast, chain=False, perm=[1, 0]))
    zeros = m.stored(np.zeros(5, dtype=np.float32), "net.fc1.bias")
    m.add("Add", m.value, zeros)
    m.add("Relu", m.value)
    m.add("MatMul", m.value, m.stored(m.numbers(5, 5), "onnx::MatMul_17"))
    m.add("Add", m.add("Identity", zeros, chain=False), m.value)
    m.add("Relu", m.value)
    m.add("Gemm", m.value, m.stored(m.numbers(5, 3), "made_up"), m.stored(m.numbers(3), "head.bias"))
    network = agrees(m.model(), tmp_path / "m.onnx", inputs(m))
    assert [layer.name for layer in network.layers] == ["net.fc1", "layer1", "head"]


def test_initialisers_as_inputs_and_beside_the_file(tmp_path: Path):
    m = Maker(1, opset=9)
    model = m.finish()
    kind = TensorProto.FLOAT
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, kind, list(tensor.dims)))
    agrees(model, tmp_path / "inputs.onnx", inputs(m))
    m = Maker(2)
    model = m.finish()
    x = inputs(m)
    agrees(
        model, tmp_path / "m.onnx", x, save_as_external_data=True, location="m.onnx.data", size_threshold=0
    )
    assert (tmp_path / "m.onnx.data").stat().st_size > 0
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(FileError, match=r"m\.onnx.*m\.onnx\.data"):
        load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("dims", [(12, 1), (12,), (1, 12), (1, 1, 12), (12, "N"), ("N", 12)])
def test_inputs_in_rows_columns_and_alone(dims: tuple[int | str, ...], tmp_path: Path):
    """``W x`` on a column, a vector, rows of one sample or many; whatever is free is the batch."""
    m = Maker(3)
    shaped(m, *dims)
    columns = dims[0] == 12
    for out in (5, 3):
        n = 12 if out == 5 else 5
        weight = m.numbers(out, n)
        if columns:
            m.add("MatMul", m.stored(weight), m.value)
        else:
            m.add("MatMul", m.value, m.stored(weight.T))
        m.add("Add", m.value, m.stored(m.numbers(out, *((1,) if columns and len(dims) > 1 else ()))))
        if out == 5:
            m.add("Relu", m.value)
    x = inputs(m, 3)
    onnx.save(m.model(), str(tmp_path / "m.onnx"))
    network = load_onnx(tmp_path / "m.onnx")
    expected = ReferenceEvaluator(m.model()).run(None, {"x": x})[0]
    if dims == (12, "N"):
        x, expected = x.T, expected.T
    z = np.maximum(x.reshape(-1, 12) @ network.layers[0].weight.T + network.layers[0].bias, 0)
    z = z @ network.layers[1].weight.T + network.layers[1].bias
    assert np.allclose(z, expected.reshape(z.shape), atol=1e-5)


def test_a_file_for_one_sample_alone_is_said(tmp_path: Path):
    m = Maker(4)
    m.add("Reshape", m.value, m.stored(np.array([1, 12])))
    m.dims = [1, 12]
    onnx.save(m.finish(), str(tmp_path / "m.onnx"))
    assert "one sample at a time" in load_onnx(tmp_path / "m.onnx").notes[0]


def refused(m: Maker, path: Path, match: str) -> None:
    from exan_verify.api.files import load_any_model

    onnx.save(m.model(), str(path))
    with pytest.raises(UnsupportedLayerError, match=match):
        load_onnx(path)
    with pytest.raises(UnsupportedLayerError, match=f"^{path}: "):
        load_any_model(path)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("Sigmoid", "bce takes logits"),
        ("Tanh", "Linear layers with ReLU"),
        ("Softmax", "cross_entropy takes logits"),
        ("Erf", "Linear layers with ReLU"),
    ],
)
def test_other_activations_are_refused_by_node(kind: str, remedy: str, tmp_path: Path):
    for at_the_end in (False, True):
        m = Maker(5)
        m.linear()
        m.add(kind, m.value)
        if not at_the_end:
            m.linear(3)
        refused(m, tmp_path / "m.onnx", rf"'node2' \({kind}\).*{remedy}")


OTHERS: dict[str, Callable[[Maker], None]] = {
    "LeakyReLU of slope 0.30": lambda m: m.add("LeakyRelu", m.value, alpha=0.3),
    "LeakyReLU of slope 0.0099": lambda m: m.add("LeakyRelu", m.value),
    "PReLU with 5 trained": lambda m: m.add("PRelu", m.value, m.stored(m.numbers(5), "act.weight")),
    "PReLU with a trained slope": lambda m: m.add("PRelu", m.value, m.stored(m.numbers(1))),
    "Clip from 0.0 to 1.5": lambda m: m.add("Clip", m.value, *map(m.stored, m.dtype([0, 1.5]))),
    "Clip from -0.5 to 1.0": lambda m: m.add("Clip", m.value, min=-0.5, max=1.0),
}
"""Nodes that are other activations, by how they are said."""


@pytest.mark.parametrize("said", OTHERS)
def test_other_activations_are_taken_for_what_they_are(said: str, tmp_path: Path):
    from exan_verify import certify
    from exan_verify.api.files import load_any_model
    from exan_verify.core.network import Batch, PiecewiseNetwork
    from exan_verify.core.question import Labels, Loss
    from exan_verify.exact.backprop import forward

    m = Maker(13, opset=9 if said.startswith("Clip from -") else 20)
    m.linear()
    OTHERS[said](m)
    m.linear(3)
    model, x = m.model(), inputs(m)
    onnx.save(model, str(tmp_path / "m.onnx"))
    network = load_any_model(tmp_path / "m.onnx")
    assert isinstance(network, PiecewiseNetwork)
    assert said in network.architecture
    batch = Batch.of(x, [0, 1, 2], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    assert np.abs(forward(network, batch).logits.T.astype(float) - expected).max() < 1e-5
    assert certify(network, batch=(x, [0, 1, 2]), engine="lifting").architecture == network.architecture
    with pytest.raises(UnsupportedLayerError, match="not supported here, where ReLU alone is"):
        load_onnx(tmp_path / "m.onnx")
    beside = Maker(14)
    convolution(beside, 4)
    beside.add("LeakyRelu", beside.value)
    onnx.save(beside.finish(), str(tmp_path / "m.onnx"))
    with pytest.raises(UnsupportedLayerError, match=r"'node1' \(LeakyRelu\) is another activation"):
        load_any_model(tmp_path / "m.onnx")


def branches(m: Maker) -> None:
    m.linear()
    start = m.value
    m.add("Relu", m.value)
    m.linear()
    m.add("Add", m.value, start)


def tied(m: Maker) -> None:
    m.flat()
    weight = m.stored(m.numbers(12, 12), "tied")
    m.add("MatMul", m.value, weight)
    m.add("Relu", m.value)
    m.add("MatMul", m.value, m.add("Transpose", weight, chain=False, perm=[1, 0]))


def clipped_above(m: Maker) -> None:
    m.linear()
    m.add("Clip", m.value, "", m.stored(np.float32(6)))
    m.linear(3)


def switched_off(m: Maker) -> None:
    m.add("Mul", m.value, m.stored(np.array([1, 0, 1], dtype=np.float32)))
    m.linear(3)


def parts(m: Maker) -> None:
    """One matrix on every row of a picture: no layer that takes a sample at once."""
    m.add("MatMul", m.value, m.stored(m.numbers(3, 4)))
    m.features = 16
    m.linear(3)


def training(m: Maker) -> None:
    m.linear()
    m.add("Relu", m.value)
    m.add("Dropout", m.value, m.stored(np.float32(0.5)), m.stored(np.array(True)))
    m.linear(3)


def reordered(m: Maker) -> None:
    m.linear(4)
    m.add("Reshape", m.value, m.stored(np.array([-1, 2, 2])))
    m.add("Transpose", m.value, perm=[0, 2, 1])
    m.add("Reshape", m.value, m.stored(np.array([-1, 4])))


def two_free_sizes(m: Maker) -> None:
    shaped(m, "N", "K")
    m.features = 12
    m.linear(3)


def root_of_a_constant(m: Maker) -> None:
    m.add("Div", m.value, m.add("Sqrt", m.stored(m.numbers(1, low=1, high=2)), chain=False))
    m.linear(3)


REFUSED = {
    "on a branch|not a constant": branches,
    "'tied'|as another node does": tied,
    r"'node2' \(Clip\)": clipped_above,
    "multiplies by zero": switched_off,
    "does not take the 12 numbers of one sample": parts,
    r"'node3' \(Dropout\) is in training mode": training,
    "logits in another order": reordered,
    "more than one free size": two_free_sizes,
    r"'node0' \(Sqrt\) makes constants": root_of_a_constant,
}


@pytest.mark.parametrize("match", REFUSED)
def test_what_is_no_such_chain_is_refused_with_its_place(match: str, tmp_path: Path):
    m = Maker(6)
    REFUSED[match](m)
    refused(m, tmp_path / "m.onnx", match)


# ---- pictures ---------------------------------------------------------------------------------------------


def convolution(m: Maker, out: int, *, bias: bool = True, **attributes: Any) -> None:
    """A Conv of 3 x 3 with zeros around, on the (N, c, 2, 3) that stay so."""
    weight = m.stored(m.numbers(out, m.features // 6, 3, 3), f"features.{len(m.nodes)}.weight")
    biases = [m.stored(m.numbers(out), f"features.{len(m.nodes)}.bias")] if bias else []
    m.add("Conv", m.value, weight, *biases, kernel_shape=[3, 3], pads=[1, 1, 1, 1], **attributes)
    if not bias:
        m.add("Add", m.value, m.stored(m.numbers(1, out, 1, 1)))
    m.features, m.dims = 6 * out, [m.samples, out, 2, 3]


def plain_pictures(m: Maker) -> None:
    convolution(m, 4)
    m.add("Relu", m.value)
    convolution(m, 3)
    m.add("Relu", m.value)


def channels_last_pictures(m: Maker) -> None:
    """As converters from TensorFlow write it: transposed at both ends, the bias an Add."""
    shaped(m, "N", 2, 3, 2)
    m.add("Transpose", m.value, perm=[0, 3, 1, 2])
    convolution(m, 4, bias=False)
    m.add("Relu", m.value)
    m.add("Transpose", m.value, perm=[0, 2, 3, 1])


def pooled_pictures(m: Maker) -> None:
    convolution(m, 4)
    m.add("Relu", m.value)
    m.add("MaxPool", m.value, kernel_shape=[2, 2], strides=[1, 1])
    m.add("AveragePool", m.value, kernel_shape=[1, 2], strides=[1, 1])
    m.features = 4


def normalised_pictures(m: Maker) -> None:
    convolution(m, 4)
    numbers = [m.stored(m.numbers(4, low=0.5, high=2)) for _ in range(4)]
    m.add("BatchNormalization", m.value, *numbers, epsilon=1e-3)
    m.add("Relu", m.value)
    m.add("GlobalAveragePool", m.value)
    m.features = 4


def averaged_pictures(m: Maker) -> None:
    convolution(m, 4)
    m.add("Relu", m.value)
    if m.opset < 18:
        m.add("ReduceMean", m.value, axes=[-1, 2], keepdims=0)
    else:
        m.add("ReduceMean", m.value, m.stored(np.array([-1, 2])), keepdims=0)
    m.features = 4


def grouped_pictures(m: Maker) -> None:
    m.stored(m.numbers(4, 1, 3, 3), "c.weight")
    m.add("Conv", m.value, "c.weight", group=2, dilations=[1, 1], auto_pad="SAME_UPPER")
    m.add("Relu", m.value)
    m.features = 24


def added_pictures(m: Maker) -> None:
    """A sum with what enters it, and one with a convolution and norms in both branches."""
    convolution(m, 4)
    start = m.add("Relu", m.value)
    convolution(m, 4)
    m.add("Relu", m.value)
    convolution(m, 4, bias=False)
    m.add("Add", m.value, start)
    start = m.add("Relu", m.value)
    m.add("Conv", start, m.stored(m.numbers(3, 4, 1, 1), "short.weight"), strides=[1, 1])
    m.add("BatchNormalization", m.value, *(m.stored(m.numbers(3, low=0.5, high=2)) for _ in range(4)))
    other, m.value = m.value, start
    convolution(m, 3)
    m.add("BatchNormalization", m.value, *(m.stored(m.numbers(3, low=0.5, high=2)) for _ in range(4)))
    m.add("Sum", other, m.value)
    m.add("Relu", m.value)


def shifted_pictures(m: Maker) -> None:
    """A mean for each channel, one scale, and zeros around what they make of the pictures."""
    m.add("Sub", m.value, m.stored(m.numbers(1, 2, 1, 1)))
    m.add("Div", m.value, m.stored(m.numbers(1, low=0.2, high=1)))
    m.add("Neg", m.value)
    m.add("Add", m.stored(m.numbers(2, 1, 1)), m.value)
    convolution(m, 4)
    m.add("Relu", m.value)


def shifted_channels_last_pictures(m: Maker) -> None:
    """As converters from TensorFlow write it, with a sum of two values that are transposed once."""
    shaped(m, "N", 2, 3, 2)
    m.add("Sub", m.value, m.stored(m.numbers(2)))
    m.add("Mul", m.value, m.stored(m.numbers(1, 1, 1, 2, low=0.5)))
    start = m.add("Transpose", m.value, perm=[0, 3, 1, 2])
    convolution(m, 2, bias=False)
    m.add("Add", start, m.value)
    m.add("Relu", m.value)
    m.add("Transpose", m.value, perm=[0, 2, 3, 1])


def unevenly_padded_pictures(m: Maker) -> None:
    """Zeros as nodes of their own, and as many as the outputs need, more at one side."""
    if m.opset < 11:
        m.add("Pad", m.value, pads=[0, 0, 1, 0, 0, 0, 0, 2])
    else:
        m.add("Pad", m.value, m.stored(np.array([0, 0, 1, 0, 0, 0, 0, 2])))
    m.add("Conv", m.value, m.stored(m.numbers(4, 2, 2, 2)), pads=[0, 1, 1, 0])
    m.add("Relu", m.value)
    side = "SAME_UPPER" if m.opset > 11 else "SAME_LOWER"
    m.add("Conv", m.value, m.stored(m.numbers(3, 4, 2, 2)), auto_pad=side, strides=[2, 2])
    m.add("Relu", m.value)
    m.features = 3 * 2 * 3


PICTURES = (
    plain_pictures,
    channels_last_pictures,
    pooled_pictures,
    normalised_pictures,
    averaged_pictures,
    grouped_pictures,
    added_pictures,
    shifted_pictures,
    shifted_channels_last_pictures,
    unevenly_padded_pictures,
)
OPSETS_OF_PICTURES = {
    shifted_pictures: 11,
    unevenly_padded_pictures: 9,
    added_pictures: 15,
    averaged_pictures: 17,
}
"""Where an opset has its own form of a node, or another than the last is as good."""


@pytest.mark.parametrize("make", PICTURES)
def test_networks_with_convolutions_become_the_module_they_were(
    make: Callable[[Maker], None], tmp_path: Path
):
    import torch

    from exan_verify.api.files import load_any_model, load_model
    from exan_verify.models.pictures.graph import to_convolutional

    m = Maker(8, opset=OPSETS_OF_PICTURES.get(make, 20))
    make(m)
    m.dims = ["N", m.features, 1, 1]
    x = inputs(m)
    model = m.finish()
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    onnx.save(model, str(tmp_path / "m.onnx"))
    module = load_any_model(tmp_path / "m.onnx")
    turned = make in (channels_last_pictures, shifted_channels_last_pictures)
    enters = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if turned else x)
    assert np.allclose(module(enters).detach().numpy(), expected, atol=1e-5)
    network = to_convolutional(module)
    assert network.input_shape == (2, 2, 3)
    assert np.allclose(network.logits(enters.double()).numpy(), expected, atol=1e-5)
    assert len(module.notes) == 2 * turned
    with pytest.raises(UnsupportedLayerError, match=r"\((Conv|Pad)\).*exan certify"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("make", [None, *(p for p in PICTURES if "channels" not in p.__name__)])
def test_pictures_and_norms_are_taken_exactly(make: Callable[[Maker], None] | None, tmp_path: Path):
    """A fully connected file with BatchNormalization, and files with convolutions, are what certify asks."""
    from exan_verify import certify
    from exan_verify.api.certify import exact_network
    from exan_verify.api.files import load_any_model
    from exan_verify.core.network import Batch
    from exan_verify.core.question import Labels, Loss
    from exan_verify.core.staged import StagedNetwork
    from exan_verify.exact.backprop import forward
    from exan_verify.exact.pictures import forward_stages

    m = Maker(11, dtype=np.float64)
    if make is None:
        m.add("Sub", m.value, m.stored(m.numbers(1, 2, 2, 3)))
        m.linear(6)
        numbers = [m.stored(m.numbers(6, low=0.5, high=2)) for _ in range(4)]
        m.add("BatchNormalization", m.value, *numbers)
        m.add("Relu", m.value)
    else:
        make(m)
        m.dims = ["N", m.features, 1, 1]
    model, x = m.finish(), inputs(m, 2)
    onnx.save(model, str(tmp_path / "m.onnx"))
    module = load_any_model(tmp_path / "m.onnx")
    network = exact_network(module, (x, [0, 1]))
    batch = Batch.of(x, [0, 1], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    if make is not None:
        assert isinstance(network, StagedNetwork)
        features = forward_stages(network, batch).values[-1].T.fractions()
        features.setflags(write=False)
        network, batch = network.head, Batch(inputs=features, labels=batch.labels)
    expected = ReferenceEvaluator(model).run(None, {"x": x})[0]
    assert np.abs(forward(network, batch).logits.T.astype(float) - expected).max() < 1e-9
    assert certify(module, batch=(x, [0, 1]), engine="lifting").architecture


def pooled_unevenly(m: Maker) -> None:
    convolution(m, 4)
    m.add("MaxPool", m.value, kernel_shape=[2, 2], pads=[0, 0, 1, 1])


def shifted_pixels(m: Maker) -> None:
    m.add("Sub", m.value, m.stored(m.numbers(2, 2, 3)))
    convolution(m, 4)


def scaled_within(m: Maker) -> None:
    convolution(m, 4)
    m.add("Mul", m.value, m.stored(m.numbers(1)))


def padded_with_ones(m: Maker) -> None:
    m.add("Pad", m.value, m.stored(np.array([0, 0, 1, 1, 0, 0, 1, 1])), m.stored(np.float32(1)))


def multiplied(m: Maker) -> None:
    convolution(m, 4)
    start = m.add("Relu", m.value)
    convolution(m, 4)
    m.add("Mul", m.value, start)


def doubled(m: Maker) -> None:
    convolution(m, 4)
    m.add("Add", m.value, m.value)


def broadcast(m: Maker) -> None:
    convolution(m, 4)
    start = m.value
    m.add("GlobalAveragePool", m.value)
    m.add("Add", start, m.value)


def shared_bias(m: Maker) -> None:
    """The value of a Conv before its bias is added goes elsewhere too."""
    weight = m.stored(m.numbers(4, 2, 1, 1))
    start = m.add("Conv", m.value, weight)
    m.add("Add", m.value, m.stored(m.numbers(4, 1, 1)))
    m.add("Add", m.value, start)


def added_flat(m: Maker) -> None:
    convolution(m, 2)
    start = m.add("Flatten", m.value)
    m.features, m.dims = 12, ["N", 12]
    m.linear(12)
    m.add("Add", m.value, start)


NOT_PICTURES = (
    (pooled_unevenly, r"'node1' \(MaxPool\) pads one side more"),
    (shifted_pixels, r"'node0' \(Sub\) shifts or scales"),
    (scaled_within, r"'node1' \(Mul\) shifts or scales"),
    (padded_with_ones, r"'node0' \(Pad\) pads with other than zeros"),
    (multiplied, r"'node3' \(Mul\) takes 't2_0' and 't1_0', values of steps before it"),
    (doubled, r"'node1' \(Add\) takes 't0_0' and 't0_0'"),
    (broadcast, r"'node2' \(Add\) adds values of shapes"),
    (shared_bias, r"'node1' \(Add\) shifts or scales"),
    (added_flat, r"'node3' \(Add\) adds two branches of values that are no pictures"),
)


def test_what_convolutions_are_not_read_is_named(tmp_path: Path):
    from exan_verify.api.files import load_any_model

    for make, match in NOT_PICTURES:
        m = Maker(9)
        make(m)
        m.features = 12 if make is added_flat else 48 if make is padded_with_ones else 24
        m.dims = ["N", m.features, 1, 1]
        onnx.save(m.finish(), str(tmp_path / "m.onnx"))
        with pytest.raises(UnsupportedLayerError, match=match):
            load_any_model(tmp_path / "m.onnx")


def test_sums_of_a_file_that_nothing_is_proved_about_are_named(tmp_path: Path):
    """What the description of an exact network cannot hold is refused by its node, and attacked."""
    from exan_verify import certify
    from exan_verify.api.files import load_any_model
    from exan_verify.models.pictures.graph import to_convolutional

    m = Maker(12)
    convolution(m, 2)
    start = m.add("Relu", m.value)
    convolution(m, 2)
    m.add("Relu", m.value)
    m.add("Add", start, m.value)
    onnx.save(m.finish(), str(tmp_path / "m.onnx"))
    module = load_any_model(tmp_path / "m.onnx")
    assert to_convolutional(module).input_shape == (2, 2, 3)
    with pytest.raises(UnsupportedLayerError, match=r"'features\.2'.*end of a branch"):
        certify(module, batch=(inputs(m, 2), [0, 1]))


def test_an_attack_on_a_file_with_convolutions(tmp_path: Path):
    import torch

    from exan_verify import attack
    from exan_verify.api.files import load_any_model
    from tests.support.torch_reference import autograd

    m = Maker(10, dtype=np.float64)
    convolution(m, 8)
    m.add("Relu", m.value)
    m.flat()
    m.linear(40)
    m.add("Relu", m.value)
    m.linear(5)
    onnx.save(m.model(), str(tmp_path / "m.onnx"))
    module = load_any_model(tmp_path / "m.onnx")
    assert [name for name, _ in module.named_parameters()][:2] == ["features.0.weight", "features.0.bias"]
    x = torch.from_numpy(inputs(m, 1))
    found = attack(module, autograd(module, x, torch.tensor([2])), picture_iterations=0)
    assert len(found.features) == 1
    assert found.feature_labels.tolist() == [2]


def mutated(model: Any, rng: np.random.Generator) -> Any:
    """The graph with a few of its parts dropped, doubled, renamed or given other numbers."""
    graph = model.graph
    names = [n for node in graph.node for n in (*node.input, *node.output)]
    sizes = [0, 1, -1, 2, 3, 12, 1 << 31, 1 << 62]
    for _ in range(rng.integers(1, 4)):
        node = graph.node[rng.integers(len(graph.node))]
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        kind = rng.integers(8)
        if kind == 0:
            node.op_type = str(
                rng.choice(["MatMul", "Gemm", "Reshape", "Concat", "Gather", "Slice", "Shape", "Max"])
            )
        elif kind == 1 and node.input:
            node.input[rng.integers(len(node.input))] = str(rng.choice(names))
        elif kind == 2 and node.input:
            del node.input[rng.integers(len(node.input))]
        elif kind == 3 and node.attribute:
            attribute = node.attribute[rng.integers(len(node.attribute))]
            attribute.i = int(rng.choice(sizes))
            attribute.ints[:] = [int(n) for n in rng.choice(sizes, size=2)]
        elif kind == 4 and tensor.dims:
            tensor.dims[rng.integers(len(tensor.dims))] = int(rng.choice(sizes))
        elif kind == 5:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[rng.integers(len(dims))].dim_value = int(rng.choice(sizes))
        elif kind == 6 and tensor.data_type == TensorProto.INT64:
            count = max(1, len(tensor.raw_data) // 8)
            tensor.raw_data = rng.choice(sizes, size=count).astype(np.int64).tobytes()
        else:
            tensor.data_type = int(rng.integers(0, 24))
    return model


def fuzzed(seeds: range, folder: Path) -> dict[str, int]:
    from exan_verify.api.files import load_any_model

    counts: dict[str, int] = {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        m = Maker(seed, opset=int(rng.choice(OPSETS)))
        model = written(
            m,
            flatten=str(rng.choice(list(FLATTEN))),
            shift=str(rng.choice(list(SHIFTS))),
            layers=(str(rng.choice(list(LAYERS))), str(rng.choice(list(LAYERS)))),
            activation=str(rng.choice(list(ACTIVATIONS))),
        )
        if seed % 3 == 0:
            m = Maker(seed)
            PICTURES[rng.integers(len(PICTURES))](m)
            m.dims = ["N", m.features, 1, 1]
            model = m.finish()
        (folder / "m.onnx").write_bytes(mutated(model, rng).SerializeToString())
        try:
            load_any_model(folder / "m.onnx")
            found = "read"
        except ExanError as error:
            found = type(error).__name__
        counts[found] = counts.get(found, 0) + 1
    return counts


@pytest.mark.filterwarnings("ignore")
def test_changed_graphs_are_read_or_refused(tmp_path: Path):
    counts = fuzzed(range(150), tmp_path)
    assert len(counts) > 2, counts


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore")
def test_many_changed_graphs(tmp_path: Path):
    print(fuzzed(range(150, 20_000), tmp_path))


def test_a_gradient_of_the_files_own_parameters_is_read_as_that_of_the_folded_ones(tmp_path: Path):
    """With a shift, a scale, another order of the inputs and Gemm's alpha and beta; against autograd."""
    import torch

    from exan_verify.core.network import Gradient
    from exan_verify.models.gradients import of_folded

    m = Maker(7, dtype=np.float64)
    SHIFTS["normalise"](m)
    FLATTEN["channels last"](m)
    gemm_scaled(m, 5)
    m.features, m.dims = 5, ["N", 5]
    network = agrees(m.model(), tmp_path / "m.onnx", inputs(m), 1e-12)
    mean, std, v, c = (torch.from_numpy(numpy_helper.to_array(t).copy()) for t in m.model().graph.initializer)
    x, target = torch.from_numpy(inputs(m)), torch.from_numpy(m.numbers(3, 5))
    v.requires_grad_(), c.requires_grad_()
    u = ((x - mean) / std).permute(0, 2, 3, 1).flatten(1)
    alpha, beta = np.float32(0.3).item(), np.float32(-1.7).item()
    z = alpha * u @ v + beta * c
    delta = 2 * (z - target).detach()
    torch.autograd.backward(((z - target) ** 2).sum())
    assert v.grad is not None
    assert c.grad is not None
    own = {"layer0.weight": v.grad.T.numpy(), "layer0.bias": c.grad[0].numpy()}
    for exact in (True, False):
        found = of_folded(Gradient(tensors=own), network, exact=exact).tensors
        assert np.allclose(found["layer0.weight"].astype(float), (delta.T @ x.flatten(1)).numpy(), atol=1e-12)
        assert np.allclose(found["layer0.bias"].astype(float), delta.sum(0).numpy(), atol=1e-12)


def to_export(form: str) -> Any:
    """A module on (M, 2, 2, 3), written in one of the ways in which modules are."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(12, 5), nn.Linear(5, 3)
            self.register_buffer("mean", torch.tensor([0.3, 0.5]).reshape(1, 2, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if form == "normalised view":
                x = (x - self.mean) / 0.3
                return self.fc2(self.fc1(x.view(x.size(0), -1)).clamp(min=0))
            if form == "functional":
                h = functional.linear(torch.flatten(x / 255, 1), self.fc1.weight, self.fc1.bias)
                return self.fc2(functional.dropout(functional.relu(h), 0.5, self.training))
            h = torch.relu(x.reshape(x.shape[0], -1) @ self.fc1.weight.t() + self.fc1.bias)
            return h @ self.fc2.weight.t() + self.fc2.bias

    class Block(nn.Module):
        """A sum with norms in both branches."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1, bias=False)
            self.short = nn.Conv2d(4, 5, 1)
            self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(5), nn.BatchNorm2d(5)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.norms[1](self.two(self.norms[0](self.one(x)).relu()))
            return functional.relu(h + self.norms[2](self.short(x)))

    residual = nn.Sequential(
        nn.Conv2d(2, 4, 2, padding=1), nn.ReLU(), Block(), nn.Flatten(), nn.Linear(60, 3)
    )
    pictures = nn.Sequential(
        *(nn.Conv2d(2, 4, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(4, 3)),
    )
    return {"pictures": pictures, "sums": residual}.get(form) or Net()


FORMS = ("normalised view", "functional", "products", "pictures", "sums")


def assert_is_read(path: Path, module: Any, x: Any) -> None:
    """What the file is read as computes what the module does, and its layers are called as there."""
    from torch import nn

    from exan_verify.api.files import load_any_model

    found, expected = load_any_model(path), module(x).detach().numpy()
    if isinstance(found, nn.Module):
        z = found(x).detach().numpy()
        names = [name for name, _ in found.named_parameters()]
        assert names[:2] == ["0.weight", "0.bias"]
    else:
        z = x.reshape(2, -1).numpy().astype(float)
        for k, layer in enumerate(found.layers):
            z = (np.maximum(z, 0) if k else z) @ layer.weight.astype(float).T
            z = z + layer.bias.astype(float)
        assert [layer.name for layer in found.layers] == ["fc1", "fc2"]
    assert np.allclose(z, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("form", FORMS)
def test_what_torch_exports_without_onnxscript(form: str, opset: int, tmp_path: Path):
    """The older exporter, with the batch free or fixed, constants folded or not."""
    import torch

    from tests.support.torch_reference import initialised

    module = initialised(to_export(form)).eval()
    x = torch.from_numpy(np.random.default_rng(opset).uniform(size=(2, 2, 2, 3)).astype(np.float32))
    for free in (None, {"x": {0: "N"}}):
        for folding in (True, False):
            path = tmp_path / "m.onnx"
            torch.onnx.export(
                module,
                (x if free else x[:1],),
                str(path),
                opset_version=opset,
                input_names=["x"],
                dynamic_axes=free,
                do_constant_folding=folding,
                dynamo=False,
            )
            assert_is_read(path, module, x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_what_torch_exports_with_onnxscript(form: str, tmp_path: Path):
    """The exporter of torch.export, whose weights lie in a file of their own beside it."""
    pytest.importorskip("onnxscript")
    import torch

    from tests.support.torch_reference import initialised

    module = initialised(to_export(form)).eval()
    x = torch.from_numpy(np.random.default_rng(1).uniform(size=(2, 2, 2, 3)).astype(np.float32))
    path = tmp_path / "m.onnx"
    free = ({0: torch.export.Dim("n")},)
    torch.onnx.export(module, (x,), str(path), dynamic_shapes=free, dynamo=True, verbose=False)
    assert_is_read(path, module, x)
