"""E3: with biases, the last bias gradient gives the scales of the loss vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exact.linalg import rank, solve
from exan_verify.exact.softmax import loss_vectors
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.exclusive_layers import Layered, drawn_layer
from exan_verify.theorems.support.laboratory import drawn, exact
from exan_verify.theorems.support.shorthands import by_instances, coq


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A layer with one neuron of each sample chosen: its column of dW_L is the direction."""

    layer: Layered
    neurons: tuple[int, ...]


def directions(seed: int) -> Iterator[Scaled]:
    """Layers with an ExAN for each sample and independent loss vectors."""
    return drawn("E3", seed, _draw)


def _draw(rng: Random) -> Scaled | None:
    size = rng.randint(2, 4)
    layer = drawn_layer(rng, [2] * size, size + rng.randint(0, 1), 2)
    if layer is None or rank(_vectors(layer)) < size:
        return None
    return Scaled(layer=layer, neurons=tuple(2 * m + rng.randrange(2) for m in range(size)))


def _vectors(layer: Layered) -> Array:
    logits = forward(layer.network, layer.batch).logits
    return loss_vectors(Loss.MSE, logits, layer.batch.labels, 1)


def scales_give_vectors(scaled: Scaled) -> bool:
    """``db_L = sum_m s_m u_m`` has one solution, and the s_m u_m are the loss vectors."""
    layer = scaled.layer
    found = gradient(layer.network, layer.batch, Loss.MSE, Reduction.SUM).for_network(layer.network)
    weight, bias = found[-1]
    assert bias is not None
    chosen = exact(weight)[:, list(scaled.neurons)]
    scales = solve(chosen, exact(bias).reshape(-1, 1))
    return scales is not None and bool(np.all(chosen * scales[:, 0] == _vectors(layer)))


def two_of_one_sample(scaled: Scaled) -> Scaled:
    """Both neurons of the first sample: their directions are parallel."""
    return replace(scaled, neurons=(0, 1, *scaled.neurons[2:]))


STATEMENTS = (
    Statement(
        name="e3",
        group="E3",
        title="The last bias gradient fixes the scales",
        source="docs/theory.md section 2, E3",
        reading="Let u_1, ..., u_M be the directions of the loss vectors (E2). If they are independent, "
        "db_L = sum_m s_m u_m has one solution, and g^m = s_m u_m: no heuristic is needed.",
        quantifiers="all depths, widths, losses; M <= K - 1 for cross_entropy and hinge, M <= K otherwise",
        hypotheses=("the last layer has biases", "the directions u_1, ..., u_M are independent"),
        conclusion="The s_m with db_L = sum s_m u_m are the true scales.",
        latex=r"g^m=s_mu_m,\ \operatorname{rank}[u_1\cdots u_M]=M,\ "
        r"\sum_ms_mu_m=\sum_ms'_mu_m=db_L\ \Longrightarrow\ s'=s",
        standing=Standing.PROVED,
        grounds=(coq("peeling.v: E3", "for the last affine layer, of any network by gsum_topp"),),
        checks=(
            by_instances(
                "scales",
                "takes directions from columns of dW_L, solves db_L over Q and compares with the loss "
                "vectors",
                instances=directions,
                conclusion=scales_give_vectors,
                spoiled=two_of_one_sample,
                count=30,
                said="layers with independent loss vectors",
            ),
        ),
        remark="With dependent directions (softmax with K = 2 and two samples, say) a forward pass at a "
        "recovered sample gives the scale instead.",
    ),
)
