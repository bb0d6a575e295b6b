"""E1: the row of an exclusive neuron gives the input of its layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.backprop import forward, gradient
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import deltas, drawn, exact, integer_network, integers, mse_batch
from exan_verify.theorems.support.shorthands import by_instances, coq

SHAPES = ((2, 6, 1), (3, 7, 2), (2, 5, 5, 1), (3, 4, 6, 2))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A neuron (layer from 1) that is exclusive to ``sample`` with a non-zero delta."""

    network: ReluNetwork
    batch: Batch
    layer: int
    neuron: int
    sample: int


def rows(seed: int) -> Iterator[Row]:
    """Exclusive neurons with non-zero delta, in any hidden layer of random networks."""
    return drawn("E1", seed, _draw)


def _draw(rng: Random) -> Row | None:
    network = integer_network(rng, rng.choice(SHAPES))
    size = rng.randint(2, 3)
    batch = mse_batch(network, integers(rng, size, network.widths[0]), integers(rng, size, network.classes))
    passed, found = forward(network, batch), deltas(network, batch)
    hits = [
        (layer, int(j), int(np.flatnonzero(pattern[j])[0]))
        for layer, pattern in enumerate(passed.patterns, 1)
        for j in np.flatnonzero(pattern.sum(axis=1) == 1)
    ]
    live = [(i, j, m) for i, j, m in hits if found.at(i)[j, m] != 0]
    if not live:
        return None
    layer, neuron, sample = rng.choice(live)
    inputs = passed.features(layer).T.fractions()
    told = [tuple(row) for row in inputs]
    if told.count(told[sample]) > 1:
        return None
    return Row(network=network, batch=batch, layer=layer, neuron=neuron, sample=sample)


def row_gives_input(row: Row) -> bool:
    """``dW[j] / db[j]`` is the layer's input for the sample, exactly."""
    found = gradient(row.network, row.batch, Loss.MSE, Reduction.MEAN).for_network(row.network)
    weight, bias = found.at(row.layer)
    assert bias is not None
    inputs = forward(row.network, row.batch).features(row.layer).T.fractions()
    quotient = exact(weight[row.neuron]) / exact(bias)[row.neuron]
    return bool(np.all(quotient == inputs[row.sample]))


def of_another(row: Row) -> Row:
    """The same neuron, said to belong to another sample."""
    return replace(row, sample=(row.sample + 1) % row.batch.size)


STATEMENTS = (
    Statement(
        name="e1",
        group="E1",
        title="The row of an exclusive neuron is the sample itself",
        source="the attack of arXiv 2010.13356 as we read it; docs/theory.md section 2, E1",
        published="An exclusively activated neuron of the first layer reveals its sample: its row of the "
        "weight gradient is a multiple of the input.",
        reading="With biases, the row of the weight gradient divided by the entry of the bias gradient is "
        "the input of the layer for that sample: x_m in layer 1, h_{i-1}^m in layer i.",
        quantifiers="all depths, widths, M, losses",
        hypotheses=(
            "neuron j of layer i is active for sample m and for no other sample",
            "its delta for sample m is not zero",
            "the layer has biases",
        ),
        conclusion="dW_i[j, :] / db_i[j] = h_{i-1}^m exactly.",
        latex=r"z_i^{m'}[j]>0\iff m'=m,\ \delta_i^m[j]\neq0\ \Longrightarrow\ "
        r"\frac{(dW_i)_{j,:}}{(db_i)_j}=h_{i-1}^m",
        standing=Standing.PROVED,
        grounds=(coq("exclusive.v: E1, E1_layer", "for every layer of every network over an ordered field"),),
        checks=(
            by_instances(
                "rows",
                "divides rows of exact gradients and compares them with the layer's inputs, over Q",
                instances=rows,
                conclusion=row_gives_input,
                spoiled=of_another,
                count=40,
                said="rows of exclusive neurons",
            ),
        ),
        remark="An attack that uses this must guess that the neuron is exclusive; E1 does not say that "
        "another batch with the same gradient has an exclusive neuron there.",
    ),
)
