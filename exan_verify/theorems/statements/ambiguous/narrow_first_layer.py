"""A first layer narrower than the batch: what fails, and when it protects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Outcome
from exan_verify.exact.linalg import nullspace, rank
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.counterexamples import one_input, one_logit_shared_neuron
from exan_verify.theorems.support.exclusive_layers import Layered
from exan_verify.theorems.support.laboratory import (
    Pair,
    deltas,
    drawn,
    exact,
    integer_network,
    integers,
    mse_batch,
    noticing_nudge,
    same_gradient,
    same_samples,
    spoiled,
)
from exan_verify.theorems.support.p2_checks import refuted as p2_refuted
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, coq, kernel, written

SHAPES = (((3, 2, 4, 2), 3), ((2, 1, 4, 1), 2), ((4, 2, 3), 4), ((3, 2, 2, 3, 2), 3))
"""(widths, M) with n_1 < min(d, M)."""


def narrow(seed: int) -> Iterator[Pair]:
    """Batches of networks with n_1 < min(d, M), against x_m + t alpha_m v for a large t."""
    return drawn("narrow", seed, _draw)


def _draw(rng: Random) -> Pair | None:
    widths, samples = rng.choice(SHAPES)
    network = integer_network(rng, widths)
    inputs = integers(rng, samples, widths[0], 6)
    loss = rng.choice((Loss.MSE, Loss.HINGE)) if widths[-1] > 1 else Loss.MSE
    if loss is Loss.MSE:
        first = mse_batch(network, inputs, integers(rng, samples, widths[-1]))
    else:
        chosen = np.array([rng.randrange(widths[-1]) for _ in range(samples)])
        first = Batch.of(inputs, chosen, network=network, loss=loss, labels=Labels.ONE_HOT)
    alphas = nullspace(deltas(network, first, loss)[0])
    unseen = nullspace(exact(network.layers[0].weight))
    alpha, v = alphas[:, rng.randrange(alphas.shape[1])], unseen[:, rng.randrange(unseen.shape[1])]
    second = replace(first, inputs=inputs + np.outer(alpha, v) * Fraction(rng.randint(1, 1000), 7))
    return noticing_nudge(Pair(network=network, first=first, second=second, loss=loss))


def same_gradient_however_far(pair: Pair) -> bool:
    """n_1 < min(d, M); one gradient, over Q; another batch."""
    hypotheses = pair.network.widths[1] < min(pair.network.widths[0], pair.first.size)
    return hypotheses and same_gradient(pair) and not same_samples(pair)


def _unprotected(_seed: int) -> Iterator[Layered]:
    example = one_input()
    yield Layered(network=example.relu, batch=example.batch)


def short_rank_and_unique(layer: Layered) -> bool:
    """n_1 < M, so Delta_1 has rank below M and 3.1 cannot be used at layer 1; the kernel accepts UNIQUE."""
    short = layer.network.widths[1] < layer.batch.size
    short = short and rank(deltas(layer.network, layer.batch)[0]) < layer.batch.size
    return short and kernel_outcome(layer.network, layer.batch, layer.question) is Outcome.UNIQUE


def wider_input(_layer: Layered) -> Layered:
    """The same network with a second input: now n_1 < min(d, M)."""
    network = ReluNetwork.from_arrays([[[1, 1]], [[1], [2]]], [[1], [0, 0]])
    batch = Batch.of([[0, 0], [1, 0]], [0, 1], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Layered(network=network, batch=batch)


STATEMENTS = (
    Statement(
        name="narrow-first-layer",
        group="narrow",
        title="A first layer narrower than the batch and the input never gives the inputs away",
        source="docs/theory.md section 4, narrow first layer",
        reading="If the first hidden layer has fewer neurons than the batch has samples and than the input "
        "has features, then every batch is AMBIGUOUS over R^d, for every loss, label set, depth and all "
        "weights: some v != 0 has W_1 v = 0, some alpha != 0 has Delta_1 alpha = 0, and moving every x_m by "
        "t alpha_m v changes no pre-activation at all, however large t.",
        quantifiers="all depths, weights, batches, losses, label sets, with or without biases",
        hypotheses=("n_1 < M", "n_1 < d", "inputs are real vectors without bounds"),
        conclusion="A whole line of batches has the same gradient; infinitely many are no permutations.",
        latex=r"n_1<\min(d,M)\ \Longrightarrow\ \exists\,\alpha\ne0,\,v\ne0\ \forall t:\ "
        r"\nabla\big((x_m+t\alpha_mv)_m\big)=\nabla\big((x_m)_m\big)",
        standing=Standing.PROVED,
        grounds=(
            coq("narrow.v: narrow_line, narrow_ambiguous", "the line, and infinitely many batches on it"),
            written(
                "section 4, narrow first layer", "the argument; rank Delta_1 < M and rank W_1 < d suffice"
            ),
        ),
        checks=(
            by_instances(
                "line",
                "solves for alpha and v over Q, moves far along the line and compares the gradients",
                instances=narrow,
                conclusion=same_gradient_however_far,
                spoiled=spoiled,
                count=25,
                said="batches moved along ker W_1 have the same gradient",
            ),
        ),
        remark="What a narrow layer hides is the part of the inputs in ker W_1; W_1 x may be determined all "
        "the same. Inside a box the line ends at its faces. c1-upper-layer-alone is an instance.",
    ),
    Statement(
        name="narrow-first-layer-alone",
        group="narrow",
        title="Fewer neurons than samples, by itself, as a protection",
        source="docs/theory.md 3.1 (rank A = M) and 3.4",
        reading="If n_1 < M then rank [dW_1 | db_1] < M and Delta_1 lacks full column rank, so neither 3.1 "
        "at layer 1 nor the step down to the inputs applies; hence the batch is not UNIQUE.",
        quantifiers="all networks and batches",
        hypotheses=("n_1 < M",),
        conclusion="The batch is not UNIQUE.",
        latex=r"n_1<M\ \not\Longrightarrow\ \text{not UNIQUE}",
        standing=Standing.REFUTED,
        grounds=(
            kernel(
                "narrow-first-layer-alone: its example",
                "1-1-2, M = 2, mse, one-hot: UNIQUE, rank A_1 = 1",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "one-input",
                "computes the rank of Delta_1 and gives the engine's certificate to the kernel",
                instances=_unprotected,
                conclusion=short_rank_and_unique,
                spoiled=wider_input,
                count=1,
                said="batches with n_1 < M are UNIQUE",
                direction=REFUTES,
            ),
            p2_refuted("1-1-1", one_logit_shared_neuron, "every"),
        ),
        example=one_input,
        smallest="1-1-1 with M = 2 and both labels 0 is smaller by a logit; n_1 < M "
        "needs M = 2, so that nothing is smaller.",
        remark="The rank deficit is real, its consequence is not: with d <= n_1 the features above can "
        "determine the inputs through the forward pass.",
    ),
)
