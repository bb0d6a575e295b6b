"""The same question with fewer inputs, where the first layer tells their span (docs/theory.md CB11).

With rank Delta_1 = rank [X 1] = M every batch with the gradient has [X' 1] = Q [X 1] (without biases X' = Q
X): some features are affine functions of the others, the same ones in every such batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from exan_verify.core.arrays import Array, fractions
from exan_verify.core.network import Batch, Linear, ReluNetwork
from exan_verify.core.question import Box, Question
from exan_verify.decide.context import Context
from exan_verify.exact import linalg


@dataclass(frozen=True, slots=True, kw_only=True)
class Spanned:
    """A question about the features ``kept`` alone; the inputs are ``x = maps [x_kept ; 1]`` (d, kept + 1).

    A batch has the gradient exactly where its ``batch`` has that of the smaller ``network``; of a domain only
    the sides of the kept features are asked, so that more batches may answer.
    """

    network: ReluNetwork
    question: Question
    batch: Batch
    kept: tuple[int, ...]
    maps: Array

    def whole(self, batch: Batch) -> Batch:
        """A batch of the smaller question with all its features."""
        ones = np.ones((1, batch.size), dtype=int)
        inputs = linalg.multiply(self.maps, fractions(np.concatenate([batch.inputs.T, ones]))).T
        return Batch(inputs=inputs, labels=batch.labels)


def spanned(context: Context) -> Spanned | None:
    """The question about fewer features; None where the ranks are not proved, or no feature is spared."""
    network, question = context.network, context.question
    inputs, bias = fractions(context.batch.inputs), network.has_bias
    features = inputs.shape[1]
    # the constant comes first, so that it is a pivot with biases; without them it is none
    ones = fractions(np.full((len(inputs), 1), int(bias)))
    extended = np.concatenate([ones, inputs], axis=1)
    if not 1 + bias <= context.samples < features + bias:
        return None
    pivots = linalg.pivots(extended)
    if len(pivots) < context.samples or linalg.rank_mod(context.image.delta(1)) < context.samples:
        return None
    kept = tuple(k - 1 for k in pivots if k)
    solved = linalg.solve(extended[:, pivots], inputs)
    assert solved is not None
    constant = solved[:1] if bias else fractions(np.zeros((1, features), dtype=int))
    maps = np.concatenate([solved[bias:], constant]).T
    first = network.layers[0]
    seen = linalg.multiply(fractions(first.weight), maps)
    moved = None if first.bias is None else fractions(first.bias) + seen[:, -1]
    domain = question.domain
    if domain is not None:
        low, high = (np.asarray(side)[list(kept)] for side in domain.bounds(features))
        domain = Box(low, high)
    return Spanned(
        network=ReluNetwork(
            layers=(Linear(weight=seen[:, :-1], bias=moved, name=first.name), *network.layers[1:])
        ),
        question=replace(question, domain=domain),
        batch=Batch(inputs=inputs[:, list(kept)], labels=context.batch.labels),
        kept=kept,
        maps=maps,
    )
