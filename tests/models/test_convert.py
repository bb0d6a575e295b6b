"""Modules and ONNX graphs become the network they compute, or are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from exan_verify import attack, certify
from exan_verify.core.network import ReluNetwork
from exan_verify.core.verdict import Outcome
from exan_verify.errors import FileError, InputError, NonFiniteError, UnsupportedLayerError
from exan_verify.models.chain import to_network
from tests.support.torch_reference import normal, perceptron


def forward(network: ReluNetwork, x: np.ndarray) -> np.ndarray:
    """The forward pass in plain numpy, as the records define it."""
    h = x.reshape(len(x), -1)
    for k, layer in enumerate(network.layers):
        h = h @ np.asarray(layer.weight, dtype=np.float64).T
        if layer.bias is not None:
            h = h + np.asarray(layer.bias, dtype=np.float64)
        if k < network.depth - 1:
            h = np.maximum(h, 0)
    return h


def agrees(model: nn.Module, shape: tuple[int, ...] = (5, 1, 2, 3)) -> ReluNetwork:
    network = to_network(model)
    x = normal(*shape)
    expected = model.double()(x).detach().numpy()
    assert np.allclose(forward(network, x.numpy()), expected, atol=1e-6)
    assert {n for n, _ in network.parameters()} == {n for n, _ in model.named_parameters()}
    return network


class Functional(nn.Module):
    """A hand-written forward with every supported way to flatten, to switch on ReLU, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.block = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(x, 1).flatten(start_dim=1)
        x = x.view(x.size(0), -1).reshape(x.shape[0], -1).view(-1, 6)
        x = functional.relu(self.first(x), inplace=False)
        x = functional.dropout(x, 0.3, self.training)
        x = torch.relu(x).relu().clamp(min=0).clamp_min(0).squeeze(1)
        return self.head(self.block(torch.clip(x, 0).double()))


def test_sequential_and_nested_modules():
    nested = nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Identity()),
        nn.Sequential(nn.Sequential(nn.Linear(5, 4)), nn.ReLU()),
        nn.Linear(4, 3),
    )
    network = agrees(nested)
    assert network.widths == (6, 5, 4, 3)
    assert [layer.name for layer in network.layers] == ["1.0", "2.0.0", "3"]


def test_a_hand_written_forward():
    assert agrees(Functional().eval()).widths == (6, 5, 4, 3)


@pytest.mark.parametrize(
    "drop", [lambda f: f.squeeze(1), lambda f: f.squeeze(-1), lambda f: torch.squeeze(f, dim=1)]
)
def test_a_binary_classifier_whose_forward_drops_the_dimension_of_its_logit(drop: object):
    model = forward_of(lambda s, x: drop(s.b(functional.relu(s.a(x)))))
    model.a, model.b = perceptron(6, 40, 1, seed=2)[::2]
    x, y = torch.tensor(np.random.default_rng(3).random((3, 6))).float(), torch.tensor([0.0, 1.0, 1.0])
    verdict = certify(model, batch=(x, y), loss="bce", engine="exact")
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    model.double()
    functional.binary_cross_entropy_with_logits(model(x.double()), y.double()).backward()
    gradient = {name: p.grad for name, p in model.named_parameters()}
    assert len(attack(model, gradient, loss="bce").x) == 3


def test_no_biases_and_a_single_linear_layer():
    assert not agrees(
        nn.Sequential(nn.Flatten(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    ).has_bias
    assert agrees(nn.Linear(3, 2), (4, 3)).layers[0].name == ""


def test_an_exact_network_passes_through():
    network = ReluNetwork.from_arrays([[[1, 2]]])
    assert to_network(network) is network


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_are_kept_exactly_in_every_dtype(dtype: torch.dtype):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    for (_, stored), parameter in zip(to_network(model).parameters(), model.parameters(), strict=True):
        assert torch.equal(torch.tensor(stored.astype(np.float64)), parameter.detach().double())


def sequential(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), *layers, nn.Linear(5, 3))


REFUSED = {
    "layer '1' (GELU)": sequential(nn.GELU()),
    "layer '1.0' (BatchNorm1d)": sequential(nn.Sequential(nn.BatchNorm1d(5))),
    "after layer '0' is not supported here, where ReLU alone is": sequential(nn.LeakyReLU()),
    "layer '3' (Softmax) is not supported; remove it: cross_entropy takes logits": nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(1)
    ),
    "layer '0' (Conv2d)": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(6, 3)),
    "layer '0' (Flatten)": nn.Sequential(nn.Flatten(0), nn.Linear(6, 3)),
    "Dropout '1' is in training mode": sequential(nn.Dropout(0.5), nn.ReLU()),
    "Linear '1' follows Linear '0' without a ReLU": sequential(),
    "ReLU '0' acts on the input": nn.Sequential(nn.ReLU(), nn.Linear(6, 3)),
    "ReLU '1' acts on the output": nn.Sequential(nn.Linear(6, 3), nn.ReLU()),
    "no Linear layer": nn.Sequential(nn.Flatten()),
}


def refusal(model: nn.Module) -> str:
    with pytest.raises(UnsupportedLayerError) as caught:
        to_network(model)
    return str(caught.value)


@pytest.mark.parametrize("message", REFUSED)
def test_unsupported_layers_are_named_with_their_path(message: str):
    assert message in refusal(REFUSED[message])


def forward_of(body: object) -> nn.Module:
    """A module with layers ``a`` (6 to 5) and ``b`` (5 to 3) whose forward is ``body(self, x)``."""
    module = type("Custom", (nn.Module,), {"forward": body})()
    module.a, module.b = nn.Linear(6, 5), nn.Linear(5, 3)
    return module


FORWARDS = {
    "operation 'gelu'": lambda s, x: s.b(functional.gelu(s.a(x))),
    "operation 'clamp'": lambda s, x: s.b(s.a(x).clamp(min=0, max=6)),
    "operation 'clamp_min'": lambda s, x: s.b(s.a(x).clamp_min(1)),
    "operation 'log_softmax'": lambda s, x: functional.log_softmax(s.b(functional.relu(s.a(x))), 1),
    "operation 'view'": lambda s, x: s.b(functional.relu(s.a(x.view(3, 2)))),
    "operation 'reshape'": lambda s, x: s.b(functional.relu(s.a(x.reshape(-1, -1)))),
    "operation 'squeeze'": lambda s, x: s.b(functional.relu(s.a(x))).squeeze(),
    "operation 'flatten'": lambda s, x: s.b(functional.relu(s.a(torch.flatten(x)))),
    "without branches": lambda s, x: s.b(s.a(x).relu() + s.a(x)),
    "does not take the output of the step before": lambda s, x: s.b(functional.relu(s.a(x[0]))),
    "used more than once": lambda s, x: s.a(s.a(x).relu()),
    "cannot be traced": lambda s, x: s.b(functional.relu(s.a(x))) if x.sum() > 0 else s.a(x),
    "nothing else": lambda s, x: (s.b(functional.relu(s.a(x))), x),
    "is switched on": lambda s, x: s.b(functional.relu(functional.dropout(s.a(x), 0.5))),
}


@pytest.mark.parametrize("message", FORWARDS)
def test_forwards_that_are_no_chain_of_linear_and_relu_are_refused(message: str):
    assert message in refusal(forward_of(FORWARDS[message]))


def test_a_second_input_is_refused():
    assert "second input 'z'" in refusal(forward_of(lambda s, x, z: s.b(functional.relu(s.a(x)) + z)))


def test_shared_layers_and_tied_parameters_are_refused():
    layer = nn.Linear(3, 3)
    assert "used more than once" in refusal(nn.Sequential(layer, nn.ReLU(), layer))
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    assert "one and the same tensor" in refusal(tied)


def test_parameters_that_are_unused_frozen_or_missing_are_refused():
    with pytest.raises(InputError, match=r"\['b.bias', 'b.weight'\] do not enter the forward pass"):
        to_network(forward_of(lambda s, x: s.a(x)))
    model = sequential(nn.ReLU())
    model[0].weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"\['0.weight'\] are frozen"):
        to_network(model)
    assert to_network(model.requires_grad_(False)).depth == 2
    mixed = to_network(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2, bias=False)))
    assert [layer.bias is None for layer in mixed.layers] == [False, True]
    with pytest.raises(InputError, match="meta device"):
        to_network(nn.Linear(2, 2, device="meta"))


def test_layers_that_may_compute_something_else_are_refused():
    hooked = sequential(nn.ReLU())
    hooked[1].register_forward_hook(lambda *arguments: arguments[-1] * 2)
    assert "layer '1' (ReLU) has hooks" in refusal(hooked)
    spectral = sequential(nn.ReLU())
    nn.utils.parametrizations.spectral_norm(spectral[0])
    assert "ParametrizedLinear" in refusal(spectral)


def test_numbers_that_are_not_finite_are_named():
    model = sequential(nn.ReLU())
    with torch.no_grad():
        model[2].bias[1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"2\.bias .* index \(1,\)"):
        to_network(model)


def test_what_is_not_a_model_is_refused():
    with pytest.raises(InputError, match=r"OrderedDict; pass a torch\.nn\.Module"):
        to_network(nn.Linear(2, 2).state_dict())


# ---- ONNX -------------------------------------------------------------------------------------------------

onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
from exan_verify.models.onnx_files.read import load_onnx  # noqa: E402

RNG = np.random.default_rng(0)
W1, B1 = RNG.normal(size=(5, 6)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
W2, B2 = RNG.normal(size=(3, 5)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
X = RNG.normal(size=(4, 1, 2, 3)).astype(np.float32)


def node(kind: str, *inputs: str, out: str, **attributes: object) -> object:
    return onnx.helper.make_node(kind, list(inputs), [out], name=f"n_{out}", **attributes)


def save(path: Path, nodes: list[object], constants: dict[str, np.ndarray], output: str) -> Path:
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [info("x", onnx.TensorProto.FLOAT, ["M", 1, 2, 3])],
        [info(output, onnx.TensorProto.FLOAT, ["M", "K"])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(path))
    return path


GEMM = {"fc1.weight": W1, "fc1.bias": B1, "fc2.weight": W2, "fc2.bias": B2}
GEMM_NODES = [
    node("Flatten", "x", out="f"),
    node("Gemm", "f", "fc1.weight", "fc1.bias", out="z1", transB=1),
    node("Relu", "z1", out="h1"),
    node("Gemm", "h1", "fc2.weight", "fc2.bias", out="z2", transB=1),
]
EXPECTED = np.maximum(X.reshape(4, 6) @ W1.T + B1, 0) @ W2.T + B2


def test_onnx_gemm(tmp_path: Path):
    network = load_onnx(save(tmp_path / "m.onnx", GEMM_NODES, GEMM, "z2"))
    assert np.allclose(forward(network, X), EXPECTED, atol=1e-5)
    assert [n for n, _ in network.parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert np.array_equal(network.layers[0].weight, W1)


def test_onnx_gemm_with_weights_the_other_way_round(tmp_path: Path):
    plain = {"fc1.weight": W1.T, "fc1.bias": B1, "fc2.weight": W2.T, "fc2.bias": B2}
    nodes = [
        node("Flatten", "x", out="f"),
        node("Gemm", "f", "fc1.weight", "fc1.bias", out="z1"),
        node("Relu", "z1", out="h1"),
        node("Gemm", "h1", "fc2.weight", "fc2.bias", out="z2", transB=0),
    ]
    network = load_onnx(save(tmp_path / "m.onnx", nodes, plain, "z2"))
    assert np.array_equal(network.layers[0].weight, W1)
    assert np.allclose(forward(network, X), EXPECTED, atol=1e-5)


def test_onnx_matmul_add_transposes_and_reshape(tmp_path: Path):
    nodes = [
        node("Reshape", "x", "shape", out="f"),
        node("Identity", "f", out="g"),
        node("MatMul", "g", "made_up_1", out="p1"),
        node("Add", "fc1.bias", "p1", out="z1"),
        node("Relu", "z1", out="h1"),
        node("Transpose", "w2", out="w2t", perm=[1, 0]),
        node("MatMul", "h1", "w2t", out="p2"),
        node("Identity", "b2", out="head.bias"),
        node("Add", "p2", "head.bias", out="z2"),
    ]
    constants = {"shape": np.array([-1, 6]), "made_up_1": W1.T, "fc1.bias": B1, "w2": W2, "b2": B2}
    network = load_onnx(save(tmp_path / "m.onnx", nodes, constants, "z2"))
    assert np.allclose(forward(network, X), EXPECTED, atol=1e-5)
    assert [layer.name for layer in network.layers] == ["fc1", "head"]


@pytest.mark.parametrize(
    ("nodes", "output", "message"),
    [
        ([*GEMM_NODES, node("Softmax", "z2", out="p")], "p", r"'n_p' \(Softmax\)"),
        ([*GEMM_NODES[:2], node("Sigmoid", "z1", out="h1"), GEMM_NODES[3]], "z2", r"'n_h1' \(Sigmoid\)"),
        (
            [GEMM_NODES[0], node("Gemm", "f", "fc1.weight", "fc1.bias", out="z", transB=1, alpha=0.0)],
            "z",
            "alpha or beta of zero",
        ),
        ([*GEMM_NODES, node("Add", "z2", "fc2.bias", out="s")], "s", "a parameter of a layer before it"),
        ([*GEMM_NODES[:2], node("Add", "z1", "z1", out="s")], "s", "'z1', which is not a constant"),
        ([*GEMM_NODES[:2], node("Add", "z1", "f", out="s")], "s", "'f', which is not a constant"),
        ([*GEMM_NODES[:3], node("Flatten", "x", out="other")], "other", "no Linear layer"),
        ([*GEMM_NODES, node("Relu", "f", out="g"), node("Add", "z2", "g", out="s")], "s", "on a branch"),
        ([node("Flatten", "x", out="f", axis=3), *GEMM_NODES[1:]], "z2", "it mixes samples"),
        (
            [GEMM_NODES[0], GEMM_NODES[1], node("Gemm", "z1", "fc2.weight", out="z2", transB=1)],
            "z2",
            "without a ReLU",
        ),
    ],
)
def test_onnx_nodes_that_are_not_supported_are_named(
    tmp_path: Path, nodes: list[object], output: str, message: str
):
    with pytest.raises(UnsupportedLayerError, match=message):
        load_onnx(save(tmp_path / "m.onnx", nodes, GEMM, output))


def test_onnx_layers_that_share_parameters_are_refused(tmp_path: Path):
    square = {"w": np.eye(6, dtype=np.float32)}
    nodes = [
        node("Flatten", "x", out="f"),
        node("MatMul", "f", "w", out="a"),
        node("Relu", "a", out="h"),
        node("MatMul", "h", "w", out="z"),
    ]
    with pytest.raises(UnsupportedLayerError, match="uses 'w'"):
        load_onnx(save(tmp_path / "m.onnx", nodes, square, "z"))


def test_files_that_are_not_onnx_are_refused(tmp_path: Path):
    with pytest.raises(FileError, match=r"missing\.onnx: cannot be read"):
        load_onnx(tmp_path / "missing.onnx")
    good = save(tmp_path / "m.onnx", GEMM_NODES, GEMM, "z2").read_bytes()
    for content in (b"", b"hello", good[: len(good) // 2]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(FileError, match=r"bad\.onnx: not a valid ONNX file"):
            load_onnx(tmp_path / "bad.onnx")
