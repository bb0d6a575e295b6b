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
from exan_verify.core.staged import Convolution, StagedNetwork
from exan_verify.exact.backprop import backward, forward
from exan_verify.exact.pictures import StagesForward, forward_stages, gathered, taps, transposed
from exan_verify.exact.rational import RationalMatrix, product
from exan_verify.exact.softmax import loss_vectors
from exan_verify.models.staged import to_staged
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
    delta = back.masked(passed.patterns[-1])
    for k in range(len(network.stages) - 1, -1, -1):
        stage = network.stages[k]
        flat = RationalMatrix(
            delta.digits.reshape(len(delta.digits), stage.output_shape[0], -1), delta.denominator
        )
        weight = product(flat, gathered(stage, passed.values[k]).T).fractions()
        tensors[f"{stage.name}.weight"] = weight.reshape(stage.weight.shape)
        if stage.bias is not None:
            tensors[f"{stage.name}.bias"] = flat.row_sums().fractions()[:, 0]
        if k:
            delta = transposed(stage, delta).masked(passed.patterns[k - 1])
    return tensors


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
