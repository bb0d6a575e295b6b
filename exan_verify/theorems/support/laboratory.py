"""Exact networks, batches and second batches for checks: small integers, everything over Q."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any, TypeVar

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.network import Array, Batch, Network, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.exact.backprop import backward, forward, gradient
from exan_verify.exact.linalg import identity, multiply, rank, solve
from exan_verify.exact.softmax import loss_vectors, mse_targets

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two batches of one network, meant to have one gradient. ``members``: the samples that differ."""

    network: Network
    first: Batch
    second: Batch
    members: tuple[int, ...] = ()
    loss: Loss = Loss.MSE


def drawn(name: str, seed: int, draw: Callable[[Random], T | None]) -> Iterator[T]:
    """What ``draw`` makes of a sequence of generators that depends on ``name`` and ``seed`` only."""
    for k in range(100_000):
        found = draw(Random(f"{name}/{seed}/{k}"))
        if found is not None:
            yield found


def exact(values: Any) -> Array:
    """An object array of Fractions, of the same shape."""
    array = np.array(values, dtype=object)
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = to_fraction(value)
    return out


def integers(rng: Random, rows: int, cols: int, top: int = 3) -> Array:
    """A (rows, cols) matrix of integers between ``-top`` and ``top``, as Fractions."""
    return exact([[rng.randint(-top, top) for _ in range(cols)] for _ in range(rows)])


def integer_network(rng: Random, widths: Sequence[int], *, biases: bool = True, top: int = 3) -> ReluNetwork:
    """A network of these widths with small integer parameters."""
    weights = [integers(rng, b, a, top) for a, b in pairwise(widths)]
    return ReluNetwork.from_arrays(
        weights, [integers(rng, 1, b, top)[0] for b in widths[1:]] if biases else None
    )


def mse_batch(network: ReluNetwork, x: Any, y: Any) -> Batch:
    """A batch for mse with real targets ``y`` (M, K)."""
    return Batch.of(exact(x), exact(y), network=network, loss=Loss.MSE, labels=Labels.REAL)


def one_hot(classes: int, chosen: Sequence[int]) -> Array:
    """Targets (M, K) with a one in the chosen class; for K = 1 the chosen number itself."""
    if classes == 1:
        return exact([[c] for c in chosen])
    return exact([[int(c == k) for k in range(classes)] for c in chosen])


def deltas(network: Network, batch: Batch, loss: Loss = Loss.MSE) -> PerLayer[Array]:
    """``Delta_1 .. Delta_L``, each (n_i, M), over Q, for reduction sum and a rational loss."""
    passed = forward(network, batch)
    vectors = loss_vectors(loss, passed.logits, batch.labels, 1)
    return PerLayer(delta.fractions() for delta in backward(network, passed, vectors))


def delta(network: Network, batch: Batch, layer: int, loss: Loss = Loss.MSE) -> Array:
    """``Delta_layer`` (n_layer, M) of :func:`deltas`; layers count from 1."""
    return deltas(network, batch, loss).at(layer)


def features(network: Network, batch: Batch, layer: int) -> Array:
    """``[H_{layer-1} 1]`` over Q, (M, n_{layer-1} + 1); layers count from 1. Without biases no ones."""
    found = forward(network, batch).features(layer).T.fractions()
    ones = exact(np.ones((batch.size, int(network.has_bias)), dtype=int))
    return np.concatenate([found, ones], axis=1)


def same_gradient(pair: Pair) -> bool:
    """Whether both batches have one gradient (sums), entry by entry over Q."""
    found = [gradient(pair.network, b, pair.loss, Reduction.SUM) for b in (pair.first, pair.second)]
    return found[0] == found[1]


def same_samples(pair: Pair) -> bool:
    """Whether the second batch is the first one in some order."""
    first, second = (Counter(zip(b.x, b.y, strict=True)) for b in (pair.first, pair.second))
    return first == second


def nudged(batch: Batch, sample: int = 0) -> Batch:
    """The batch with one more in the first feature of one sample."""
    inputs = exact(batch.inputs)
    inputs[sample, 0] += 1
    return Batch(inputs=inputs, labels=batch.labels)


def spoiled(pair: Pair) -> Pair:
    """The pair with its second batch nudged."""
    return replace(pair, second=nudged(pair.second, pair.members[0] if pair.members else 0))


def noticing_nudge(pair: Pair) -> Pair | None:
    """The pair, unless its gradient would not notice the nudge of :func:`spoiled`."""
    return None if same_gradient(spoiled(pair)) else pair


def in_region(network: ReluNetwork, inputs: Array, *, strict: bool = True) -> bool:
    """Whether all rows of (M, d) share every pattern; ``strict``: and no pre-activation is zero."""
    passed = forward(network, Batch(inputs=inputs, labels=np.zeros(len(inputs), dtype=np.int64)))
    together = all(bool((p == p[:, :1]).all()) for p in passed.patterns)
    return together and not (strict and any(bool(z.any()) for z in passed.zeros))


def region_points(rng: Random, network: ReluNetwork, count: int, *, spread: int = 64) -> Array | None:
    """(count, d): different points of one region, no pre-activation zero, close together; None if the draw
    fails.
    """
    size = network.widths[0]
    base = [Fraction(rng.randint(-12, 12), 4) for _ in range(size)]
    rows = [[v + Fraction(rng.randint(-9, 9), spread) for v in base] for _ in range(count)]
    points = exact(rows)
    different = len({tuple(row) for row in rows}) == count
    return points if different and in_region(network, points) else None


def real_second(network: ReluNetwork, first: Batch, members: Sequence[int], s: Fraction) -> Batch:
    """F5: members move towards (``-1 < s < 0``) their mean, and real targets follow. (mse)

    ``X' = Q X`` with ``Q = I + s (I - J / r)``, ``G' = G Q^-1`` and ``Y' = F' - G' / 2``.
    """
    chosen, size = list(members), len(members)
    mixing = identity(size) + (identity(size) - exact([[Fraction(1, size)] * size] * size)) * s
    return mixed(network, first, chosen, mixing)


def mixed(network: ReluNetwork, first: Batch, members: Sequence[int], mixing: Array) -> Batch:
    """The batch with ``X' = Q X`` among the members and the targets of ``G' = G Q^-1``. (mse)"""
    chosen = list(members)
    inputs, labels = exact(first.inputs), exact(first.labels)
    inputs[chosen] = multiply(mixing, inputs[chosen])
    back = solve(mixing, identity(len(chosen)))
    assert back is not None
    vectors = multiply(_loss_vectors(network, first)[:, chosen], back)
    logits = forward(network, Batch(inputs=inputs, labels=labels)).logits[:, chosen]
    labels[chosen] = mse_targets(logits, vectors, 1).T
    return Batch(inputs=inputs, labels=labels)


def connecting(pair: Pair, layer: int) -> Array | None:
    """The Q of 3.1 with ``[H' 1] = Q [H 1]`` at ``layer``, or None when there is none or not just one."""
    before, after = (features(pair.network, b, layer) for b in (pair.first, pair.second))
    found = solve(before.T.copy(), after.T.copy())
    return None if found is None else found.T.copy()


def factorises(pair: Pair, layer: int) -> bool:
    """Whether 3.1's hypothesis, rank [dW | db] = M, holds at ``layer`` for the first batch."""
    back = delta(pair.network, pair.first, layer, pair.loss)
    return rank(multiply(back, features(pair.network, pair.first, layer))) == pair.first.size


def _loss_vectors(network: ReluNetwork, batch: Batch) -> Array:
    return loss_vectors(Loss.MSE, forward(network, batch).logits, batch.labels, 1)
