"""Rounded gradients of known batches, and gradients' distances, for the tests of tolerances."""

from __future__ import annotations

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from tests.support import torch_reference
from tests.support.cases import default_network

Gradients = dict[str, np.ndarray]


def case(
    widths: list[int], samples: int, loss: Loss = Loss.CROSS_ENTROPY, seed: int = 0, dtype: type = np.float64
) -> tuple[ReluNetwork, Batch, Gradients]:
    """A network, a batch with float64 inputs, and its autograd gradient, rounded to ``dtype``."""
    network = default_network(widths, seed=seed, dtype=np.float64)
    rng = np.random.default_rng(seed + 1000)
    x = rng.uniform(size=(samples, widths[0]))
    if loss is Loss.BCE or widths[-1] == 1:
        y = rng.integers(0, 2, (samples, widths[-1]))
    elif loss is Loss.MSE:
        y = np.eye(widths[-1])[rng.integers(0, widths[-1], samples)]
    else:
        y = rng.integers(0, widths[-1], samples)
    batch = Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)
    found = torch_reference.gradient(network, batch, loss, Reduction.MEAN)
    return network, batch, {name: value.astype(dtype) for name, value in found.items()}


def gap(left: Gradients, right: Gradients) -> float:
    """The largest difference of two gradients' entries."""
    return max(float(np.abs(left[name].astype(np.float64) - right[name]).max()) for name in left)


def moved(network: ReluNetwork, batch: Batch, loss: Loss, inputs: Array) -> tuple[Batch, Gradients]:
    """The batch with other inputs, and its autograd gradient."""
    other = Batch(inputs=inputs, labels=batch.labels)
    return other, torch_reference.gradient(network, other, loss, Reduction.MEAN)


def nearest(batch: Batch, centre: Batch) -> tuple[Array, Array]:
    """For each sample of ``centre`` the position of its nearest sample of ``batch``, and the distance."""
    far = np.abs(centre.inputs[:, None].astype(np.float64) - batch.inputs[None]).max(axis=2)
    return far.argmin(axis=1), far.min(axis=1)
