"""Small networks of convolutions with a head, exact passes through them, and their exact gradients."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from itertools import product as product_of

import numpy as np
import torch
from torch import nn

from exan_verify.core.network import Batch
from exan_verify.core.question import Loss
from exan_verify.core.staged import Convolution, Residual, StagedNetwork
from exan_verify.exact.backprop import backward, forward
from exan_verify.exact.pictures import StagesForward, convolved, forward_stages, gathered, taps, transposed
from exan_verify.exact.rational import RationalMatrix, product
from exan_verify.exact.softmax import loss_vectors
from exan_verify.models.pictures.staged import to_staged
from tests.support.torch_reference import initialised


def module(
    size: int,
    convolutions: Sequence[nn.Conv2d],
    head: Sequence[int],
    *,
    seed: int,
    spread: float = 1.0,
) -> nn.Sequential:
    """Convolutions with ReLU on square pictures, then Linear layers with ReLU between them, in float64."""
    body: list[nn.Module] = []
    for convolution in convolutions:
        body += [convolution, nn.ReLU()]
    body.append(nn.Flatten())
    blank = torch.zeros(1, convolutions[0].in_channels, size, size)
    sizes = [nn.Sequential(*body)(blank).shape[1], *head]
    layers = body + [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    made = initialised(nn.Sequential(*layers[:-1]).double(), seed)
    for part in made:
        for parameter in part.parameters():
            parameter.data.mul_(spread)
    return made


def pictures(samples: int, shape: Sequence[int], seed: int) -> np.ndarray:
    """Normal pictures (M, C, H, W)."""
    return np.random.default_rng(seed).normal(size=(samples, *shape))


def unique_case(seed: int = 0) -> tuple[StagedNetwork, tuple[np.ndarray, list[int]]]:
    """A network and two pictures that CV1 determines; with seed 2 the weight gradient leaves 54 unknowns."""
    made = module(6, [nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3)], (24, 3), seed=seed)
    return to_staged(made, (1, 6, 6)), (pictures(2, (1, 6, 6), seed), [0, 2])


def moving_case(seed: int = 0) -> tuple[StagedNetwork, tuple[np.ndarray, list[int]]]:
    """A network with one narrow convolution and two pictures that move."""
    made = module(8, [nn.Conv2d(1, 2, 2, stride=2)], (24, 3), seed=seed)
    return to_staged(made, (1, 8, 8)), (pictures(2, (1, 8, 8), seed), [0, 2])


def staged_gradient(network: StagedNetwork, batch: Batch) -> dict[str, np.ndarray]:
    """The exact gradient of mse, reduction sum, as Fractions by name."""
    passed = forward_stages(network, batch)
    inputs = passed.values[-1].T.fractions()
    inputs.setflags(write=False)
    features = Batch(inputs=inputs, labels=batch.labels)
    upper = forward(network.head, features)
    deltas = backward(network.head, upper, loss_vectors(Loss.MSE, upper.logits, batch.labels, 1))
    tensors: dict[str, np.ndarray] = {}
    for layer, delta, below in zip(network.head.layers, deltas, upper.hidden, strict=True):
        tensors[f"{layer.name}.weight"] = product(delta, below.T).fractions()
        tensors[f"{layer.name}.bias"] = delta.row_sums().fractions()[:, 0]
    back = product(network.head.layers[0].weight.T, deltas.at(1))
    return tensors | _stage_gradients(network, passed, back)


def _stage_gradients(
    network: StagedNetwork, passed: StagesForward, back: RationalMatrix
) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for k in range(len(network.stages) - 1, -1, -1):
        stage, delta, values = network.stages[k], back.masked(passed.patterns[k]), passed.values[k]
        if isinstance(stage, Convolution):
            tensors |= _convolution_gradient(stage, values, delta)
            back = transposed(stage, delta)
            continue
        taken = [values]
        for convolution, pattern in zip(stage.inner, passed.inner[k], strict=False):
            taken.append(convolved(convolution, taken[-1]).masked(pattern))
        inner = delta
        for j in range(len(stage.inner) - 1, -1, -1):
            tensors |= _convolution_gradient(stage.inner[j], taken[j], inner)
            inner = transposed(stage.inner[j], inner)
            inner = inner.masked(passed.inner[k][j - 1]) if j else inner
        if stage.shortcut is not None:
            tensors |= _convolution_gradient(stage.shortcut, values, delta)
            delta = transposed(stage.shortcut, delta)
        back = inner.plus_column(delta)
    return tensors


def _convolution_gradient(
    stage: Convolution, values: RationalMatrix, delta: RationalMatrix
) -> dict[str, np.ndarray]:
    flat = RationalMatrix(
        delta.digits.reshape(len(delta.digits), stage.output_shape[0], -1), delta.denominator
    )
    weights = []
    for g, part in enumerate(stage.parts):
        out, taken = len(part.weight), values.shape[0] // stage.groups
        above = RationalMatrix(flat.digits[:, g * out : (g + 1) * out], flat.denominator)
        below = RationalMatrix(values.digits[:, g * taken : (g + 1) * taken], values.denominator)
        weights.append(product(above, gathered(part, below).T).fractions())
    tensors = {f"{stage.name}.weight": np.concatenate(weights).reshape(stage.weight.shape)}
    if stage.bias is not None:
        tensors[f"{stage.name}.bias"] = flat.row_sums().fractions()[:, 0]
    return tensors


def torch_gradient(network: StagedNetwork, batch: Batch) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features and the gradient of mse, reduction sum, by autograd in float64."""
    tensors = {name: torch.tensor(a.astype(np.float64)) for name, a in network.parameters()}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    h = torch.tensor(batch.inputs.astype(np.float64)).reshape(batch.size, *network.input_shape)
    if network.entry is not None:
        factor, shift = (
            torch.tensor(part.astype(np.float64)).reshape(-1, 1, 1)
            for part in (network.entry.factor, network.entry.shift)
        )
        h = factor * h + shift
    for stage in network.stages:
        if isinstance(stage, Convolution):
            h = _torch_convolution(stage, tensors, h).relu()
        elif isinstance(stage, Residual):
            inner = h
            for k, convolution in enumerate(stage.inner):
                inner = _torch_convolution(convolution, tensors, inner.relu() if k else inner)
            h = (
                inner + (h if stage.shortcut is None else _torch_convolution(stage.shortcut, tensors, h))
            ).relu()
        else:
            pool = nn.functional.avg_pool2d if stage.mean else nn.functional.max_pool2d
            h = pool(h, stage.kernel, stage.stride)
    features = h = h.flatten(1)
    for k, layer in enumerate(network.head.layers):
        weight, bias = (tensors[name] for name, _ in layer.parameters())
        h = nn.functional.linear(h.relu() if k else h, weight, bias)
    ((h - torch.tensor(batch.labels.astype(np.float64))) ** 2).sum().backward()
    return features.detach().numpy(), {name: tensor.grad.numpy() for name, tensor in tensors.items()}


def _torch_convolution(stage: Convolution, tensors: dict[str, torch.Tensor], h: torch.Tensor) -> torch.Tensor:
    (weight, *bias) = (tensors[name] for name, _ in stage.parameters())
    padded = nn.functional.pad(h, stage.padding)
    return nn.functional.conv2d(
        padded, weight, *bias or [None], stride=stage.stride, dilation=stage.dilation, groups=stage.groups
    )


class Sum(nn.Module):
    """``relu(inner(x) + shortcut(x))``: convolutions with ReLU between them, and one or none."""

    def __init__(self, inner: Sequence[nn.Conv2d], shortcut: nn.Conv2d | None = None) -> None:
        super().__init__()
        self.inner = nn.ModuleList(inner)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of pictures (M, C, H, W)."""
        h = x
        for k, convolution in enumerate(self.inner):
            h = convolution(h.relu() if k else h)
        return (h + (x if self.shortcut is None else self.shortcut(x))).relu()


def dense_system(stage: Convolution, active: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The system of a stage entry by entry, by loops: rows of Fractions on (m, channel, pixel)."""
    channels, height, width = stage.input_shape
    out, rows, columns = stage.output_shape
    weight = np.vectorize(Fraction)(stage.weight).reshape(out, channels, -1)
    places, samples, pixels = taps(stage), active.shape[1], height * width
    cells = [(k, p, at) for (k, p), at in np.ndenumerate(places) if at < pixels]
    forward_rows = np.full((out, rows * columns, samples, samples, channels, pixels), Fraction(0))
    shared_rows = np.full((out, channels, len(places), samples, channels, pixels), Fraction(0))
    for o, m, c in product_of(range(out), range(samples), range(channels)):
        for k, p, at in cells:
            forward_rows[o, p, m, m, c, at] += weight[o, c, k]
            shared_rows[o, c, k, m, c, at] += int(delta[o * rows * columns + p, m])
    unknowns = samples * channels * pixels
    kept = forward_rows.reshape(out * rows * columns, samples, unknowns)[active]
    return np.concatenate([kept, shared_rows.reshape(-1, unknowns)])
