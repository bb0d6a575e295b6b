"""Exact gradients are autograd's for every layer type: Linear and Conv2d, with and without biases, in any
geometry, pools and Flatten between them.

Between two ReLUs a model is one affine map, so that a model with convolutions is a network of dense layers
``W = Q X P``: X the layer with the parameters, P and Q the pools before and after it. The exact gradient of
the dense network gives that of X as ``Q^T dW P^T``, and of a convolution's weight as its part along each tap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import Array
from exan_verify.core.question import Loss
from exan_verify.instances import Instance
from exan_verify.testing.laws.law import SEEDS, Case, law, require

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
    from exan_verify.models.layered import layered

    built = layered(params["layers"], params["shape"], params["seed"])
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


@law(
    "autograd-layers",
    "Exact gradients are those that PyTorch computes, up to rounding, for every layer type",
    _layered,
)
def exact_gradients_are_autograds_for_every_layer(case: Case) -> str:
    """The module's own forward and backward pass against the exact gradient of its dense layers."""
    from exan_verify.api.attack_own_batch import batch_gradient
    from exan_verify.models.layered import layered

    question, shape = case.question, case.params["shape"]
    built = layered(case.params["layers"], shape, case.params["seed"])
    dense = question.rounded_gradient()
    pictures = question.batch.inputs.astype(np.float64).reshape(-1, *shape)
    found = batch_gradient(built.module, pictures, question.batch.labels, question.question)
    theirs = {name: value.detach().numpy() for name, value in found.items()}
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
