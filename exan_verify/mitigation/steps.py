"""One training step in floating point, with what a defence may look at: patterns and the samples' norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Loss, Question
from exan_verify.numeric.problem.torch_losses import summed_loss

Layers = Sequence[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """The gradient of a step by parameter, layer by layer and weights before biases, over M samples.

    ``patterns[i]`` (n, M): the active neurons of hidden layer i + 1.
    """

    gradient: dict[str, Tensor]
    patterns: tuple[Tensor, ...]


def step(
    layers: Layers,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss: Loss,
    *,
    divisor: float,
    clip: float | None = None,
) -> Step:
    """The gradient of the loss of ``x`` (M, d), ``y``, summed over samples and divided by ``divisor``.

    ``clip``: every sample's own gradient g is first multiplied by min(1, clip / |g|), |g| its L2 norm over
    all parameters (Abadi et al. 2016). ``names``: of the parameters in their order.

    A sample's gradient in layer i is the outer product of delta_i and [h_{i-1} 1], so that its squared norm
    is |delta_i|^2 (|h_{i-1}|^2 + 1) and no gradient of one sample has to be formed.
    """
    hidden, patterns = [x], []
    for k, (weight, bias) in enumerate(layers):
        z = torch.nn.functional.linear(hidden[-1], weight, bias)
        if k + 1 < len(layers):
            patterns.append(z > 0)
            z = z.relu()
        hidden.append(z)
    logits = hidden.pop().detach().requires_grad_(True)
    (delta,) = torch.autograd.grad(summed_loss(loss, logits, y), logits)
    deltas = [delta]
    for (weight, _), active in zip(reversed(layers[1:]), reversed(patterns), strict=True):
        deltas.insert(0, (deltas[0] @ weight) * active)
    if clip is not None:
        squared = sum(
            d.square().sum(1) * (h.square().sum(1) + (bias is not None))
            for d, h, (_, bias) in zip(deltas, hidden, layers, strict=True)
        )
        factor = (clip / torch.as_tensor(squared).sqrt().clamp_min(1e-300)).clamp_max(1.0)[:, None]
        deltas = [d * factor for d in deltas]
    tensors = []
    for d, h, (_, bias) in zip(deltas, hidden, layers, strict=True):
        tensors += [d.T @ h / divisor, *([] if bias is None else [d.sum(0) / divisor])]
    return Step(
        gradient=dict(zip(names, tensors, strict=True)), patterns=tuple(pattern.T for pattern in patterns)
    )


def step_of(network: ReluNetwork, batch: Batch, question: Question, *, clip: float | None = None) -> Step:
    """The step of an exact network and batch, in float64 on the stored weights."""
    x = torch.tensor(np.asarray(batch.inputs, dtype=np.float64))
    return step(
        layers_of(network),
        [name for name, _ in network.parameters()],
        x,
        labels_tensor(batch.labels),
        question.loss,
        divisor=question.divisor(batch.size, network.classes),
        clip=clip,
    )


def layers_of(network: ReluNetwork) -> list[tuple[Tensor, Tensor | None]]:
    """Weights (n_i, n_{i-1}) and biases as float64 tensors."""

    def tensor(array: Array | None) -> Tensor | None:
        """In float64, of any shape."""
        return None if array is None else torch.tensor(np.asarray(array, dtype=np.float64))

    return [
        (torch.tensor(np.asarray(layer.weight, dtype=np.float64)), tensor(layer.bias))
        for layer in network.layers
    ]


def labels_tensor(labels: Any) -> Tensor:
    """Classes (M,) as int64, targets (M, K) as float64."""
    values = np.asarray(labels, dtype=np.float64)
    return torch.tensor(values.astype(np.int64) if values.ndim == 1 else values)


def fresh_layers(
    widths: Sequence[int], biased: Sequence[bool], rng: np.random.Generator
) -> list[tuple[Tensor, Tensor | None]]:
    """Float32 weights and biases as PyTorch initialises Linear layers, uniform in +-1/sqrt(fan-in), from
    numpy's numbers, which are the same on every machine. ``biased``: which layers have a bias."""

    def drawn(shape: tuple[int, ...], fan_in: int) -> Tensor:
        """Of any shape, as PyTorch draws weights and biases at first."""
        values = rng.uniform(-1, 1, shape) / np.sqrt(fan_in)
        return torch.tensor(values, dtype=torch.float32).requires_grad_(True)

    return [
        (drawn((outputs, inputs), inputs), drawn((outputs,), inputs) if bias else None)
        for (inputs, outputs), bias in zip(pairwise(widths), biased, strict=True)
    ]
