"""E4: peeling recovers the batch exactly when no stopping set is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exclusivity import exclusivity
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import deltas, drawn, exact, integer_network, integers, mse_batch
from exan_verify.theorems.support.shorthands import by_instances, coq

SHAPES = ((2, 4, 1), (3, 5, 2), (2, 5, 3, 1))


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A batch and its sample-neuron graph: ``edges[j, m]``, neuron j of layer 1 has a non-zero delta."""

    network: ReluNetwork
    batch: Batch
    edges: Array


def graphs(seed: int) -> Iterator[Graph]:
    """Random batches of 2 to 4 different samples of which some, not always all, can be peeled."""
    return drawn("E4", seed, _draw)


def _draw(rng: Random) -> Graph | None:
    network = integer_network(rng, rng.choice(SHAPES))
    size = rng.randint(2, 4)
    batch = mse_batch(network, integers(rng, size, network.widths[0]), integers(rng, size, network.classes))
    if len(set(batch.x)) < size:
        return None
    graph = Graph(network=network, batch=batch, edges=deltas(network, batch)[0] != 0)
    return graph if len(largest_stopping_set(graph.edges)) < size else None


def largest_stopping_set(edges: Array) -> set[int]:
    """The union of all stopping sets, by trying every set of samples."""
    samples = range(edges.shape[1])
    found: set[int] = set()
    for count in samples:
        for chosen in combinations(samples, count + 1):
            if not np.any(edges[:, list(chosen)].sum(axis=1) == 1):
                found |= set(chosen)
    return found


def peeled(graph: Graph) -> list[int]:
    """Peel: read x_m off a row, subtract the sample's exact gradient, go on; the samples in that order.

    Which neuron serves which sample is told by ``edges``; a row that does not give the sample's input raises
    :class:`ValueError`.
    """
    whole = gradient(graph.network, graph.batch, Loss.MSE, Reduction.SUM).for_network(graph.network)
    weight, bias = exact(whole[0][0]), exact(whole[0][1])
    inputs, left, order = exact(graph.batch.inputs), set(range(graph.batch.size)), []
    while told := _telling(graph.edges, left):
        neuron, m = told
        if bias[neuron] == 0 or np.any(weight[neuron] / bias[neuron] != inputs[m]):
            raise ValueError(f"row {neuron} does not give sample {m}")
        own = gradient(graph.network, graph.batch.select([m]), Loss.MSE, Reduction.SUM)
        part = own.for_network(graph.network)[0]
        weight, bias = weight - exact(part[0]), bias - exact(part[1])
        left.discard(m)
        order.append(m)
    return order


def _telling(edges: Array, left: set[int]) -> tuple[int, int] | None:
    members = sorted(left)
    for neuron in np.flatnonzero(edges[:, members].sum(axis=1) == 1):
        return int(neuron), members[int(np.flatnonzero(edges[neuron, members])[0])]
    return None


def peeling_meets_theory(graph: Graph) -> bool:
    """Peeling reads every sample exactly and stops at the largest stopping set.

    ``exclusivity`` counts active neurons, which may have a zero delta: it never peels more.
    """
    try:
        order = peeled(graph)
    except ValueError:
        return False
    left = set(range(graph.batch.size)) - set(order)
    stopped = exclusivity(graph.network, graph.batch, loss=Loss.MSE).stopping_set
    return left == largest_stopping_set(graph.edges) and left <= set(stopped)


def renamed(graph: Graph) -> Graph:
    """The same batch, with a graph that takes each sample for the next one."""
    return replace(graph, edges=np.roll(graph.edges, 1, axis=1))


def beyond(seed: int) -> Iterator[Graph]:
    """Batches that peel completely although a sample has no ExAN in layer 1."""
    return drawn("E4 beyond", seed, _draw_beyond)


def _draw_beyond(rng: Random) -> Graph | None:
    graph = _draw(rng)
    if graph is None or largest_stopping_set(graph.edges):
        return None
    active = forward(graph.network, graph.batch).patterns[0]
    alone = active[active.sum(axis=1) == 1].sum(axis=0)
    return graph if np.any(alone == 0) else None


def recovered_without_exclusivity(graph: Graph) -> bool:
    """All samples are read although one has no exclusive neuron."""
    return peeling_meets_theory(graph) and len(peeled(graph)) == graph.batch.size


STATEMENTS = (
    Statement(
        name="e4",
        group="E4",
        title="Peeling recovers the batch completely iff there is no stopping set",
        source="docs/theory.md section 2, E4",
        reading="A neuron of layer 1 with non-zero delta for one sample gives that sample (E1); subtract its "
        "whole gradient contribution and go on. A stopping set is a non-empty set of samples for which every "
        "neuron has a non-zero delta for none or for at least two of them. Peeling reads all samples iff "
        "there is none; otherwise it stops at the union of all stopping sets, whatever the order.",
        quantifiers="all depths, widths, M, losses",
        hypotheses=(
            "layer 1 has biases",
            "it is known which neuron has a non-zero delta for just one sample that is left",
            "a sample's label is told once x_m and its row are known (K tries; ties among the columns of W_L "
            "and real labels need an argument of their own)",
        ),
        conclusion="Some order peels all samples, every input read off exactly, iff no stopping set exists; "
        "in any order what cannot be peeled is the union of all stopping sets.",
        latex=r"\Big(\exists\text{ an order that peels all}\Big)\iff\forall S\neq\emptyset\ \exists j:\ "
        r"\#\{m\in S:\delta_1^m[j]\neq0\}=1",
        standing=Standing.PROVED,
        grounds=(
            coq(
                "peeling.v: E4_stopping",
                "the combinatorial equivalence, for any relation of neurons and samples",
            ),
            coq("peeling.v: E4_any_order", "from any set of samples left, so that no order is wrong"),
            coq("peeling.v: E4_stops", "with stopping sets: where peeling ends is their union, in any order"),
            coq(
                "peeling.v: E4_reads",
                "along the order, rows of what is left are the inputs, and nothing is left",
            ),
        ),
        checks=(
            by_instances(
                "peeling",
                "peels exact gradients and compares what is left with the stopping sets found by brute force",
                instances=graphs,
                conclusion=peeling_meets_theory,
                spoiled=renamed,
                count=40,
                said="batches that peel in part",
            ),
            by_instances(
                "beyond exclusivity",
                "peels batches completely in which a sample has no exclusive neuron",
                instances=beyond,
                conclusion=recovered_without_exclusivity,
                spoiled=renamed,
                count=12,
                said="batches with a sample without ExAN",
            ),
        ),
        remark="Contains the published condition on layer 1 strictly. Duplicates, dead samples and samples "
        "with loss vector zero are stopping sets. Peeling is an attack, not a proof of uniqueness.",
    ),
)
