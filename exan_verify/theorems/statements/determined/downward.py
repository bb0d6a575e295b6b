"""3.4: from a layer that is determined down to the inputs, where the deltas have full column rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, Gradient, ReluNetwork, to_fraction
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.backprop import gradient
from exan_verify.exact.linalg import multiply, rank, solve
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import (
    deltas,
    drawn,
    exact,
    features,
    integer_network,
    integers,
    mse_batch,
)
from exan_verify.theorems.support.shorthands import by_instances, coq, written

WIDTHS = ((3, 4, 5, 2), (2, 5, 4, 4, 3), (4, 3, 6, 2))


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known at hidden layer ``layer``: H_{layer-1} (M, n) and Delta_layer; and the gradient."""

    network: ReluNetwork
    gradient: Gradient
    layer: int
    inputs: Array
    delta: Array
    truth: Batch


def known_layers(seed: int) -> Iterator[Known]:
    """Networks and batches whose deltas have rank M at every hidden layer; the last one is known."""
    return drawn("3.4", seed, _draw)


def _draw(rng: Random) -> Known | None:
    network = integer_network(rng, rng.choice(WIDTHS))
    batch = mse_batch(network, integers(rng, 2, network.widths[0], 5), integers(rng, 2, network.classes))
    found = deltas(network, batch)
    if any(rank(found[k]) < 2 for k in range(network.depth - 1)):
        return None
    layer = network.depth - 1
    return Known(
        network=network,
        gradient=gradient(network, batch, Loss.MSE, Reduction.SUM),
        layer=layer,
        inputs=features(network, batch, layer)[:, :-1],
        delta=found.at(layer),
        truth=batch,
    )


def goes_down_to_the_inputs(known: Known) -> bool:
    """Patterns from h > 0, Delta = D W^T Delta, dW = Delta H solved over Q, layer by layer: X comes out."""
    inputs, delta = known.inputs, known.delta
    tensors = known.gradient.for_network(known.network)
    for k in range(known.layer - 1, 0, -1):
        pattern = np.vectorize(lambda v: to_fraction(v) > 0)(inputs.T)
        weight = exact(known.network.layers[k].weight)
        delta = multiply(weight.T, delta) * pattern
        below = solve(delta, exact(tensors.at(k)[0]))
        if below is None:
            return False
        inputs = below
    return bool((inputs == exact(known.truth.inputs)).all())


def wrong_delta(known: Known) -> Known:
    """The same with one delta doubled."""
    changed = known.delta.copy()
    changed[:, 0] *= 2
    return replace(known, delta=changed)


STATEMENTS = (
    Statement(
        name="downward",
        group="3.4",
        title="A determined layer determines everything below it, where the deltas have full column rank",
        source="docs/theory.md 3.4",
        reading="If two batches have the same gradient, the same inputs and the same deltas at a hidden "
        "layer, and the first batch's deltas have rank M at every layer below, then they have the same "
        "inputs X.",
        quantifiers="all depths, widths, layers, M, loss vectors",
        hypotheses=(
            "both batches have the same gradient, h_{i-1} and delta_i, sample by sample",
            "rank Delta_k = M for every k < i",
        ),
        conclusion="x'_m = x_m and delta'_1 = delta_1 for every sample.",
        latex=r"H'_{i-1}=H_{i-1},\ \Delta'_i=\Delta_i,\ \operatorname{rank}\Delta_k=M\ (k<i)\ "
        r"\Longrightarrow\ X'=X",
        standing=Standing.PROVED,
        grounds=(
            coq("linalg.v: full_column_rank", "Delta H = Delta H' with full column rank gives H = H'"),
            coq("downward.v: down_step, downward", "one layer, and all layers below any hidden layer"),
            written("3.4", "labels: told by the loss vectors, by G [H 1], or by an injective backward map"),
        ),
        checks=(
            by_instances(
                "solve-down",
                "starts from the last hidden layer's inputs and deltas and the exact gradient alone, solves "
                "downwards over Q, and compares with the batch's inputs",
                instances=known_layers,
                conclusion=goes_down_to_the_inputs,
                spoiled=wrong_delta,
                count=20,
                said="batches come out of their last hidden layer",
            ),
        ),
        remark="Without the rank it fails: see c1-upper-layer-alone and narrow-first-layer.",
    ),
)
