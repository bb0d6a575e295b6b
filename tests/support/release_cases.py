"""Small batches asked about with releases of every kind, and what of an exact gradient is sent."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np

from exan_verify import Release
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction, Weights
from exan_verify.exact.backprop import gradient
from exan_verify.exact.linalg import multiply


def network_of(rng: np.random.Generator, widths: list[int], *, top: int = 4) -> ReluNetwork:
    weights = [rng.integers(-top, top + 1, (b, a)) for a, b in pairwise(widths)]
    return ReluNetwork.from_arrays(weights, [rng.integers(-top + 1, top, b) for b in widths[1:]])


def batch_of(rng: np.random.Generator, network: ReluNetwork, samples: int, loss: Loss) -> Batch:
    classes = network.classes
    y = rng.integers(0, max(classes, 2 - loss.class_labels), samples)
    if loss is Loss.BCE:
        y = rng.integers(0, 2, (samples, classes))
    elif loss is Loss.MSE:
        y = np.eye(classes, dtype=int)[y] if classes > 1 else y.reshape(-1, 1)
    x = rng.integers(-4, 5, (samples, network.widths[0]))
    return Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)


def release_of(rng: np.random.Generator, network: ReluNetwork, share: float, **more: object) -> Release:
    """Rows of every tensor, each with probability ``share``; a tensor without rows is not sent."""
    rows = {name: rng.random(len(array)) < share for name, array in network.parameters()}
    rows = {name: mask for name, mask in rows.items() if mask.any()}
    rows = rows or {"0.bias": np.ones(network.widths[1], dtype=bool)}
    return Release(tensors=list(rows), rows=rows, **more)


def narrower(rng: np.random.Generator, release: Release, share: float) -> Release:
    """A release of some of its rows; of one at least."""
    rows = {name: np.array(mask) & (rng.random(len(mask)) < share) for name, mask in release.rows.items()}
    kept = {name: mask for name, mask in rows.items() if mask.any()} or dict(release.rows)
    weights = rng.choice([release.weights.value, Weights.POSITIVE.value])
    return Release(tensors=list(kept), rows=kept, weights=str(weights))


def sent(
    network: ReluNetwork, batch: Batch, loss: Loss, release: Release, weights: list[Fraction] | None = None
) -> dict[str, np.ndarray]:
    """What is sent of the exact gradient (mse, hinge), every sample's part times its weight."""
    parts = [gradient(network, batch.select([m]), loss, Reduction.SUM).tensors for m in range(batch.size)]
    factors = weights or [Fraction(1)] * batch.size
    found = {}
    for name, array in network.parameters():
        total = sum(fractions(part[name]) * factor for part, factor in zip(parts, factors, strict=True))
        if release.input_basis is not None and name == next(network.parameters())[0]:
            total = multiply(total, release.input_basis)
        found[name] = total[release.sends(name, len(array))]
    return found


def same_sent(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)
