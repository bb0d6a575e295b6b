"""Networks and batches shared by several test files."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.instances import Instance


def default_network(widths: list[int], seed: int = 0, dtype: type = np.float32) -> ReluNetwork:
    """PyTorch's default initialisation: uniform in +-1/sqrt(n_in)."""
    rng = np.random.default_rng(seed)
    weights, biases = [], []
    for a, b in pairwise(widths):
        bound = a**-0.5
        weights.append(rng.uniform(-bound, bound, (b, a)).astype(dtype))
        biases.append(rng.uniform(-bound, bound, b).astype(dtype))
    return ReluNetwork.from_arrays(weights, biases)


def batch_of(network: Any, x: Any, y: Any, loss: Loss = Loss.MSE, labels: Labels = Labels.ONE_HOT) -> Batch:
    return Batch.of(x, y, network=network, loss=loss, labels=labels)


def random_batch(network: ReluNetwork, samples: int, seed: int = 1, loss: Loss = Loss.CROSS_ENTROPY) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, network.widths[0])).astype(np.float32)
    y = rng.integers(0, network.classes, samples)
    labels = np.eye(network.classes)[y] if loss in (Loss.MSE, Loss.BCE) else y
    return Batch.of(x, labels, network=network, loss=loss, labels=Labels.ONE_HOT)


def random_case(
    widths: list[int],
    samples: int,
    *,
    seeds: tuple[int, int] = (0, 1),
    dtype: type = np.float32,
    loss: Loss = Loss.CROSS_ENTROPY,
) -> tuple[ReluNetwork, Batch]:
    """A default network and a random batch of it; ``seeds`` of the one and of the other."""
    network = default_network(widths, seeds[0], dtype)
    return network, random_batch(network, samples, seeds[1], loss)


def two_one_five_one(seed: int) -> tuple[ReluNetwork, Batch, Batch]:
    """C1's warning: lifting passes at layer 2 while Delta_1 has rank 1; and a second batch, exactly.

    Both samples are active in the single first neuron; with W_1 v = 0, moving x_1 by delta_1^2 v and x_2 by
    -delta_1^1 v keeps every layer's gradient.
    """
    rng = np.random.default_rng(seed)
    w1 = np.array([[rng.integers(1, 5), rng.integers(1, 5)]], dtype=np.float64)
    w2 = rng.integers(-8, 9, (5, 1)).astype(np.float64)
    b2 = rng.integers(-80, 81, 5).astype(np.float64)
    w3 = rng.integers(1, 9, (1, 5)).astype(np.float64)
    network = ReluNetwork.from_arrays([w1, w2, w3], [[1.0], b2, [0.0]])
    x = rng.integers(1, 6, (2, 2)).astype(np.float64)
    batch = Batch.of(x, [[0.0], [1.0]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    hidden = x @ w1.T + 1.0
    z2 = hidden @ w2.T + b2
    f = np.maximum(z2, 0) @ w3.T
    g = 2 * (f - batch.labels) / 2
    delta1 = ((g @ w3) * (z2 > 0)) @ w2
    v = np.array([w1[0, 1], -w1[0, 0]])
    moved = x + np.array([delta1[1, 0] * v, -delta1[0, 0] * v])
    second = Batch.of(moved, batch.labels, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return network, batch, second


def three_share_layer_one(loss: Loss, seed: int = 1) -> tuple[ReluNetwork, Batch]:
    """64-48-40-10 with five samples; 0, 1 and 2 share the pattern of layer 1 but not that of layer 2.

    The second layer is steep along one feature direction, so that close samples part there.
    """
    rng = np.random.default_rng(seed)
    base = default_network([64, 48, 40, 10], seed=seed, dtype=np.float64)
    x = rng.normal(size=(5, 64))
    x[1] = x[0] + 2.0**-12 * rng.normal(size=64)
    x[2] = x[0] + 2.0**-12 * rng.normal(size=64)
    hidden = np.maximum(x @ base.layers[0].weight.T + base.layers[0].bias, 0)
    second = base.layers[1].weight.copy()
    offset = base.layers[1].bias.copy()
    for j in range(30):  # neurons whose hyperplanes pass between the three samples
        middle = hidden[:3].mean(axis=0) + 2.0**-13 * rng.normal(size=48) * (hidden[0] > 0)
        second[j] = rng.normal(size=48)
        offset[j] = -second[j] @ middle
    network = ReluNetwork.from_arrays(
        [base.layers[0].weight, second, base.layers[2].weight],
        [base.layers[0].bias, offset, base.layers[2].bias],
    )
    y = np.array([0, 1, 2, 3, 4])
    labels = np.eye(10)[y] if loss in (Loss.MSE, Loss.BCE) else y
    return network, Batch.of(x, labels, network=network, loss=loss, labels=Labels.ONE_HOT)


def integer_network(widths, seed):
    rng = np.random.default_rng(seed)
    pairs = list(pairwise(widths))
    return ReluNetwork.from_arrays(
        [rng.integers(-9, 10, (b, a)) for a, b in pairs], [rng.integers(-9, 10, b) for _, b in pairs]
    )


def rational_batch(network, samples, seed, denominator=7, labels=Labels.ONE_HOT):
    rng = np.random.default_rng(seed)
    x = [
        [Fraction(int(v), denominator) for v in row]
        for row in rng.integers(-9, 10, (samples, network.widths[0]))
    ]
    if labels is Labels.REAL:
        y = [[Fraction(int(v), 3) for v in row] for row in rng.integers(-9, 10, (samples, network.classes))]
    else:
        y = rng.integers(0, network.classes, samples)
    return Batch.of(x, y, network=network, loss=Loss.MSE, labels=labels)


def as_floats(batch: Batch) -> Batch:
    labels = batch.labels if batch.labels.ndim == 1 else batch.labels.astype(np.float64)
    return Batch(inputs=batch.inputs.astype(np.float64), labels=labels)


def words(case: Instance) -> dict[str, Any]:
    """The question of an instance of the suite, as ``certify`` takes it."""
    return {"loss": case.loss, "reduction": case.reduction, "labels": case.labels, "domain": case.domain}
