"""C1's hypotheses for a whole batch, recomputed over Q, and a batch that lacks one: labels that are not told.

``labels told`` (docs/theory.md 3.4): no other admitted label of a sample gives the same delta_{i+1}.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import rank
from exan_verify.theorems.statement import Example
from exan_verify.theorems.support.exclusive_layers import Layered
from exan_verify.theorems.support.laboratory import (
    Pair,
    delta,
    deltas,
    drawn,
    exact,
    factorises,
    integer_network,
    integers,
    one_hot,
)
from exan_verify.theorems.support.layer_equations import Layer

SHAPES = ((2, 6, 1), (1, 8, 2), (1, 6, 1, 2), (2, 7, 1, 3), (2, 9, 2, 2), (2, 4, 6, 1))
"""Two samples each; a narrow second layer is where labels can be lost."""


def labels_not_told() -> Example:
    """1-3-1-2: C1 holds at layer 1, and exchanging the two labels changes nothing.

    Both logits leave the only neuron of layer 2 with weight 1, so delta_2 = g_1 + g_2 is the same for both
    one-hot labels; and h_2 = 2 for both samples, so dW_3 does not tell which sample has which label.
    """
    network = ReluNetwork.from_arrays([[[-2], [2], [0]], [[1, 1, 1]], [[1], [1]]], [[1, -1, 1], [0], [0, 0]])
    first, second = (
        Batch.of([[0], [1]], labels, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
        for labels in ([0, 1], [1, 0])
    )
    return Example(
        network=network,
        batch=first,
        second=second,
        question=Question(loss=Loss.MSE),
        outcome=Outcome.AMBIGUOUS,
        note="Layer 1 has one exclusive neuron per sample and one shared: rank R = U - M = 3. The inputs are "
        "determined, the labels are not.",
    )


def lifts_at(layered: Layered, layer: int) -> bool:
    """rank [dW_i | db_i] = M and rank R = U - M at hidden layer i, over Q, with K' = n_{i+1}. (mse)"""
    network, batch = layered.network, layered.batch
    found = Layer(
        patterns=exact(forward(network, batch).pattern(layer).astype(int)),
        outgoing=exact(network.layers[layer].weight.T),
        following=delta(network, batch, layer + 1),
    )
    same = Pair(network=network, first=batch, second=batch)
    return factorises(same, layer) and found.rank() == found.unknowns - batch.size


def full_below(layered: Layered, layer: int) -> bool:
    """rank Delta_k = M for every k < i."""
    below = deltas(layered.network, layered.batch)[: layer - 1]
    return all(rank(delta) == layered.batch.size for delta in below)


def labels_told(layered: Layered, layer: int) -> bool:
    """No other one-hot label (one logit: 0 or 1) of any sample gives the same delta_{i+1}. (mse)"""
    network, batch = layered.network, layered.batch
    own, targets = delta(network, batch, layer + 1), exact(batch.labels)
    for other in range(max(2, network.classes)):
        labels = one_hot(network.classes, [other] * batch.size)
        found = delta(network, replace(batch, labels=labels), layer + 1)
        for m in range(batch.size):
            if (labels[m] != targets[m]).any() and (found[:, m] == own[:, m]).all():
                return False
    return True


def lifting_layer(layered: Layered) -> int | None:
    """The first hidden layer at which C1 holds with the ranks below it."""
    layers = range(1, layered.network.depth)
    return next((k for k in layers if lifts_at(layered, k) and full_below(layered, k)), None)


def told_by_lifting(seed: int) -> Iterator[Layered]:
    """Batches with all of C1's hypotheses at a hidden layer; one to three logits, one or two hidden layers.

    A third of the output layers send all one-hot labels back alike, so that C1 at layer 1 does not tell them.
    """
    return drawn("P1 lifted", seed, _draw)


def _draw(rng: Random) -> Layered | None:
    widths = rng.choice(SHAPES)
    network = integer_network(rng, widths)
    if rng.randrange(3) == 0:
        last = network.layers[-1]
        alike = replace(last, weight=exact([list(last.weight[0])] * network.classes))
        network = replace(network, layers=(*network.layers[:-1], alike))
    chosen = [rng.randrange(max(2, network.classes)) for _ in range(2)]
    batch = Batch.of(
        integers(rng, 2, widths[0], 4),
        one_hot(network.classes, chosen),
        network=network,
        loss=Loss.MSE,
        labels=Labels.ONE_HOT,
    )
    layered = Layered(network=network, batch=batch)
    layer = lifting_layer(layered)
    return layered if layer is not None and labels_told(layered, layer) else None


def ties_instead(_layered: Layered) -> Layered:
    """The stored batch whose labels are not told."""
    example = labels_not_told()
    return Layered(network=example.relu, batch=example.batch)
