"""Batches whose exclusivity is chosen: layers from tables of pre-activations, and P1's rank condition.

Notation of docs/theory.md Appendix P. With inputs e_1, ..., e_{M-1}, 0 the weights and biases of the first
layer can be read off its table of pre-activations, so any table whatever is that of a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import rank
from exan_verify.theorems.support.laboratory import deltas, exact, integers, one_hot

SQUARED = Question(loss=Loss.MSE)
"""The question under mse with the defaults of ``certify``."""


@dataclass(frozen=True, kw_only=True)
class Layered:
    """A network (mostly with one hidden layer), a batch for it, and what is asked; all numbers rational."""

    network: ReluNetwork
    batch: Batch
    question: Question = SQUARED


def from_table(z: Array, outgoing: Array, top: Array) -> ReluNetwork:
    """The network (M-1)-n-K whose hidden pre-activations at :func:`corners` are ``z`` (n, M)."""
    return ReluNetwork.from_arrays([z[:, :-1] - z[:, -1:], outgoing], [z[:, -1], top])


def corners(samples: int) -> Array:
    """The inputs e_1, ..., e_{M-1}, 0, (M, M - 1): affinely independent."""
    return exact(np.eye(samples, samples - 1, dtype=int))


def exclusive_table(rng: Random, counts: Sequence[int], shared: int = 0, top: int = 4) -> Array:
    """Integer pre-activations: ``counts[m]`` neurons exclusive to sample m, then ``shared`` random ones."""
    samples = range(len(counts))
    owners = [m for m, count in enumerate(counts) for _ in range(count)]
    rows = [[rng.randint(1, top) * (1 if k == m else -1) for k in samples] for m in owners]
    rows += [[rng.choice([-1, 1]) * rng.randint(1, top) for _ in samples] for _ in range(shared)]
    return exact(rows)


def drawn_layer(
    rng: Random, counts: Sequence[int], classes: int, shared: int = 0, loss: Loss = Loss.MSE, top: int = 3
) -> Layered | None:
    """A random layer with these ExANs and one-hot labels; None when a delta of an ExAN vanishes (mse).

    ``top``: the largest outgoing weight.
    """
    z = exclusive_table(rng, counts, shared)
    network = from_table(z, integers(rng, classes, len(z), top), integers(rng, 1, classes)[0])
    chosen = [rng.randrange(max(2, classes)) for _ in counts]
    labels = one_hot(classes, chosen) if loss is Loss.MSE else np.array(chosen)
    batch = Batch.of(corners(len(counts)), labels, network=network, loss=loss, labels=Labels.ONE_HOT)
    layer = Layered(network=network, batch=batch, question=Question(loss=loss))
    if loss is Loss.MSE and any(len(own) < count for own, count in zip(live(layer), counts, strict=True)):
        return None
    return layer


def live(layer: Layered) -> tuple[tuple[int, ...], ...]:
    """Per sample, the neurons of the last hidden layer exclusive to it whose delta is not zero. (mse)"""
    pattern = forward(layer.network, layer.batch).patterns[-1]
    delta = deltas(layer.network, layer.batch)[-2]
    alone = pattern.sum(axis=1) == 1
    return tuple(
        tuple(int(j) for j in np.flatnonzero(alone & pattern[:, m]) if delta[j, m] != 0)
        for m in range(layer.batch.size)
    )


def apart(first: Array, second: Array, own: Array, other: Array) -> bool:
    """P1's condition for two samples: rank [[W_a, delta_a, 0], [W_b, 0, delta_b]] = rank [W_a; W_b] + 2.

    ``first`` (e_a, K'), ``second`` (e_b, K'): outgoing weights of the live ExANs as rows; ``own`` (e_a,) and
    ``other`` (e_b,): their deltas.
    """
    weights = np.concatenate([first, second])
    columns = np.full((len(weights), 2), Fraction(0), dtype=object)
    columns[: len(first), 0] = own
    columns[len(first) :, 1] = other
    return rank(np.concatenate([weights, columns], axis=1)) == rank(weights) + 2


def all_apart(layer: Layered) -> bool:
    """Whether P1's condition holds for every pair of samples of the last hidden layer. (mse, one_hot)"""
    delta, found = deltas(layer.network, layer.batch)[-2], live(layer)
    outgoing = exact(layer.network.layers[-1].weight.T)
    return all(
        apart(outgoing[list(a)], outgoing[list(b)], delta[list(a), m], delta[list(b), k])
        for (m, a), (k, b) in combinations(enumerate(found), 2)
    )
