"""Exact gradients are autograd's for every layer type: Linear and Conv2d, with and without biases, in any
geometry, pools and Flatten between them.

Between two ReLUs a model is one affine map, so that a model with convolutions is a network of dense layers
``W = Q X P``: X the layer with the parameters, P and Q the pools before and after it. The exact gradient of
the dense network gives that of X as ``Q^T dW P^T``, and of a convolution's weight as its part along each tap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import Array
from exan_verify.core.question import Loss
from exan_verify.exact.backprop import gradient_ball
from exan_verify.instances import Instance
from exan_verify.testing.laws.law import SEEDS, Case, law, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_WIDTH = 80
"""Entries of any value between two layers: dense exact layers take time with their square."""

Layer = Mapping[str, Any]
"""``kind`` and the arguments of the torch layer, as JSON holds them."""


def _convolutions() -> st.SearchStrategy[Layer]:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    return st.fixed_dictionaries(
        {
            "kind": st.just("conv"),
            "out": st.sampled_from([1, 2, 4]),
            "kernel_size": pair,
            "stride": st.tuples(st.integers(1, 2), st.integers(1, 2)),
            "padding": st.tuples(st.integers(0, 2), st.integers(0, 1)),
            "dilation": st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 1)]),
            "grouped": st.booleans(),
            "bias": st.booleans(),
        }
    )


def _pools() -> st.SearchStrategy[Layer]:
    return st.fixed_dictionaries(
        {
            "kind": st.just("pool"),
            "kernel_size": st.sampled_from([(1, 2), (2, 2), (2, 1), (3, 3)]),
            "stride": st.integers(1, 2),
            "padding": st.sampled_from([0, 0, (0, 1), 1]),
            "count_include_pad": st.booleans(),
        }
    )


def _linears() -> st.SearchStrategy[Layer]:
    return st.fixed_dictionaries({"kind": st.just("linear"), "out": st.integers(1, 6), "bias": st.booleans()})


@st.composite
def _layered(draw: st.DrawFn) -> Case:
    """A model of up to two convolutions with pools on either side of their ReLUs, and up to two hidden Linear
    layers; layers that do not fit what they are given are left out.
    """
    shape = draw(st.sampled_from([(1, 3, 4), (2, 4, 3), (3, 3, 3), (2, 2, 5)]))
    body = draw(st.lists(_convolutions(), max_size=2))
    layers: list[Layer] = []
    for conv in body:
        pools = draw(st.lists(_pools(), max_size=2))
        before, after = pools[:1], pools[1:]
        layers += (
            [*before, conv, {"kind": "relu"}] if draw(st.booleans()) else [conv, *before, {"kind": "relu"}]
        )
        layers += after
    layers.append({"kind": "flatten"})
    for hidden in draw(st.lists(_linears(), max_size=2)):
        layers += [hidden, {"kind": "relu"}]
    loss = draw(st.sampled_from(list(Loss)))
    least = 2 if loss.class_labels else 1
    layers.append({"kind": "linear", "out": draw(st.integers(least, 3)), "bias": draw(st.booleans())})
    params: dict[str, Any] = {
        "shape": list(shape),
        "layers": [{k: list(v) if isinstance(v, tuple) else v for k, v in one.items()} for one in layers],
        "seed": draw(SEEDS),
    }
    built = _built(params)
    samples = draw(st.integers(1, 3))
    rng = np.random.default_rng([params["seed"], 1])
    x = rng.integers(-8, 9, (samples, int(np.prod(shape)))) / 4
    classes = len(built.blocks[-1].layer.matrix)
    y: Array = rng.integers(0, classes, samples)
    if loss is Loss.BCE or (loss is Loss.MSE and classes == 1):
        y = rng.integers(0, 2, (samples, classes)).astype(float)
    question = Instance.of(
        [block.weight for block in built.blocks],
        [block.bias for block in built.blocks],
        x,
        y,
        loss=loss.value,
        reduction=draw(st.sampled_from(["mean", "sum"])),
    )
    return Case(question=question, params=params)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Affine:
    """A layer X with parameters: its ``matrix``, and ``taps``, the matrix of each entry of its weight (None:
    a Linear layer's, whose matrix is the weight). Entry k of its value has the bias ``channels[k]``.
    """

    name: str
    matrix: Array
    bias: Array | None
    taps: list[Array] | None
    channels: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What stands between two ReLUs: ``layer``, and the matrices P ``before`` and Q ``after`` it."""

    layer: _Affine
    before: Array
    after: Array

    @property
    def weight(self) -> Array:
        """Of the dense layer."""
        found: Array = self.after @ self.layer.matrix @ self.before
        return found

    @property
    def bias(self) -> Array | None:
        """Of the dense layer."""
        bias = self.layer.bias
        return None if bias is None else self.after @ bias[self.layer.channels]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    module: torch.nn.Sequential
    blocks: list[_Block]

    @property
    def kinds(self) -> str:
        """The layer types, but for those that every model has."""
        modules = list(self.module)
        lacking = [" without bias" if getattr(m, "bias", 0) is None else "" for m in modules]
        kinds = {type(m).__name__ + less for m, less in zip(modules, lacking, strict=True)}
        return ", ".join(sorted(kinds - {"ReLU", "Flatten"}))


def _built(params: Mapping[str, Any]) -> _Built:
    """The torch module in float64 with small dyadic numbers, and its dense layers."""
    import torch
    from torch import nn

    rng = np.random.default_rng(params["seed"])
    shape: tuple[int, ...] = tuple(params["shape"])
    modules: list[nn.Module] = []
    blocks: list[_Block] = []
    before, open_layer = np.eye(int(np.prod(shape))), None
    linear = before  # what has come since the last layer with parameters, or ReLU
    for layer in params["layers"]:
        module = _module(layer, shape)
        if module is None or (isinstance(module, nn.ReLU) and open_layer is None):
            continue
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.from_numpy(rng.integers(-4, 5, tuple(parameter.shape)) / 4))
            reached = tuple(module(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
        if int(np.prod(reached)) > MAX_WIDTH:
            continue
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            before, open_layer = linear, _affine(module, str(len(modules)), shape, reached)
            linear = np.eye(len(open_layer.matrix))
        elif isinstance(module, nn.ReLU):
            assert open_layer is not None
            blocks.append(_Block(layer=open_layer, before=before, after=linear))
            open_layer, linear = None, np.eye(len(linear))
        else:
            linear = _matrix(module, shape) @ linear
        modules.append(module)
        shape = reached
    assert open_layer is not None
    blocks.append(_Block(layer=open_layer, before=before, after=linear))
    return _Built(module=nn.Sequential(*modules), blocks=blocks)


def _affine(
    module: torch.nn.Conv2d | torch.nn.Linear, name: str, shape: tuple[int, ...], reached: tuple[int, ...]
) -> _Affine:
    """A layer that takes values of ``shape`` to values of the shape ``reached``."""
    from torch import nn

    weight, taps = module.weight.detach().numpy(), None
    if isinstance(module, nn.Conv2d):
        taps = _taps(module, shape)
        weight = sum(w * tap for w, tap in zip(weight.reshape(-1), taps, strict=True))
    return _Affine(
        name=name,
        matrix=weight,
        bias=None if module.bias is None else module.bias.detach().numpy(),
        taps=taps,
        channels=np.repeat(np.arange(reached[0]), int(np.prod(reached[1:]))),
    )


def _module(layer: Layer, shape: tuple[int, ...]) -> torch.nn.Module | None:
    """The torch layer; None where it does not fit values of that shape."""
    from torch import float64, nn

    if layer["kind"] == "relu":
        return nn.ReLU()
    if layer["kind"] == "flatten":
        return nn.Flatten()
    if layer["kind"] == "linear":
        return nn.Linear(shape[0], layer["out"], bias=layer["bias"], dtype=float64)

    def pair(name: str) -> tuple[int, int]:
        value = layer[name]
        return (value, value) if isinstance(value, int) else (value[0], value[1])

    kernel, padding = pair("kernel_size"), pair("padding")
    if layer["kind"] == "pool":
        padding = min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2)
    dilation = pair("dilation") if layer["kind"] == "conv" else (1, 1)
    if any(
        s + 2 * p < d * (k - 1) + 1 for s, p, d, k in zip(shape[1:], padding, dilation, kernel, strict=True)
    ):
        return None
    if layer["kind"] == "pool":
        return nn.AvgPool2d(kernel, pair("stride"), padding, count_include_pad=layer["count_include_pad"])
    groups = shape[0] if layer["grouped"] and layer["out"] % shape[0] == 0 else 1
    return nn.Conv2d(
        shape[0],
        layer["out"],
        kernel,
        stride=pair("stride"),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=layer["bias"],
        dtype=float64,
    )


def _matrix(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Array:
    """The matrix of a linear map of values of that shape, column by column."""
    import torch

    size = int(np.prod(shape))
    with torch.no_grad():
        images = function(torch.eye(size, dtype=torch.float64).reshape(size, *shape))
    found: Array = images.reshape(size, -1).numpy().T
    return found


def _taps(module: torch.nn.Conv2d, shape: tuple[int, ...]) -> list[Array]:
    """The matrix (out, in) of each entry of the weight: by the definition, without torch's convolution."""
    rows, columns = shape[1:]
    assert not isinstance(module.padding, str)
    up, left = module.padding
    (kh, kw), (down, right), (dh, dw) = module.kernel_size, module.stride, module.dilation
    height = (rows + 2 * up - dh * (kh - 1) - 1) // down + 1
    width = (columns + 2 * left - dw * (kw - 1) - 1) // right + 1
    out, inside = module.out_channels // module.groups, module.in_channels // module.groups
    found = []
    for o, c, a, b in product(range(module.out_channels), range(inside), range(kh), range(kw)):
        matrix = np.zeros((module.out_channels, height, width, shape[0], rows, columns))
        for i, j in product(range(height), range(width)):
            row, column = i * down + a * dh - up, j * right + b * dw - left
            if 0 <= row < rows and 0 <= column < columns:
                matrix[o, i, j, o // out * inside + c, row, column] = 1
        found.append(matrix.reshape(module.out_channels * height * width, -1))
    return found


@law(
    "autograd-layers",
    "Exact gradients are those that PyTorch computes, up to rounding, for every layer type",
    _layered,
)
def exact_gradients_are_autograds_for_every_layer(case: Case) -> str:
    """The module's own forward and backward pass against the exact gradient of its dense layers."""
    import torch

    from exan_verify.numeric.problem.torch_losses import summed_loss

    question, built = case.question, _built(case.params)
    balls = gradient_ball(question.network, question.batch, question.loss, question.reduction)
    dense = {
        name: np.array([float(v.mid()) for v in balls[name].entries()]).reshape(array.shape)
        for name, array in question.network.parameters()
    }
    x = torch.tensor(question.batch.inputs.astype(np.float64)).reshape(-1, *case.params["shape"])
    labels = question.batch.labels
    y = torch.tensor(labels.astype(np.int64 if question.loss.class_labels else np.float64))
    logits = built.module(x)
    loss = summed_loss(question.loss, logits, y) / question.question.divisor(*logits.shape)
    names = [name for name, _ in built.module.named_parameters()]
    found = torch.autograd.grad(loss, list(built.module.parameters()))
    theirs = {name: value.numpy() for name, value in zip(names, found, strict=True)}
    scale = max(1.0, *(float(np.abs(array).max()) for array in dense.values()))
    for block, layer in zip(built.blocks, question.network.layers, strict=True):
        (weight, _), *rest = layer.parameters()
        name, taps, channels = block.layer.name, block.layer.taps, block.layer.channels
        moved = block.after.T @ dense[weight] @ block.before.T
        ours = {f"{name}.weight": moved if taps is None else np.array([(moved * tap).sum() for tap in taps])}
        for bias, _ in rest:
            sums = np.zeros(channels[-1] + 1)
            np.add.at(sums, channels, block.after.T @ dense[bias])
            ours[f"{name}.bias"] = sums
        for parameter, array in ours.items():
            expected = theirs.pop(parameter)
            off = float(np.abs(array.reshape(expected.shape) - expected).max())
            require(off <= 1e-9 * scale, f"{parameter} is off by {off:.1e}")
    require(not theirs, f"parameters without an exact gradient: {', '.join(theirs)}")
    return built.kinds
