"""Small networks, batches and cases for the tests of defences, drawn from numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Box, Loss, Question
from exan_verify.mitigation.case import Case
from tests.support.cases import batch_of


def drawn_network(widths: tuple[int, ...], seed: int, *, bias: bool = True) -> ReluNetwork:
    """Float32 weights and biases, uniform in +-1/sqrt(fan-in)."""
    rng = np.random.default_rng(seed)
    weights, biases = [], []
    for inputs, outputs in pairwise(widths):
        weights.append((rng.uniform(-1, 1, (outputs, inputs)) / np.sqrt(inputs)).astype(np.float32))
        biases.append((rng.uniform(-1, 1, outputs) / np.sqrt(inputs)).astype(np.float32))
    return ReluNetwork.from_arrays(weights, biases if bias else None)


def drawn_case(
    widths: tuple[int, ...] = (12, 40, 3),
    size: int = 4,
    seed: int = 0,
    *,
    pool: int = 0,
    public: int = 0,
    bias: bool = True,
    domain: Box | None = None,
) -> Case:
    """Inputs in [0, 1] and classes in turn; ``pool`` and ``public`` samples besides."""
    rng = np.random.default_rng((seed, 1))
    network = drawn_network(widths, seed, bias=bias)

    def inputs(count: int) -> np.ndarray[Any, Any]:
        return rng.random((count, widths[0])).astype(np.float32)

    question = Question(loss=Loss.CROSS_ENTROPY, domain=domain, batch_size=size)
    batch = batch_of(network, inputs(size), np.arange(size) % widths[-1], question.loss, question.labels)
    more = (inputs(pool).astype(np.float64), np.arange(pool) % widths[-1]) if pool else None
    return Case(
        network=network,
        batch=batch,
        question=question,
        pool=more,
        public=inputs(public).astype(np.float64) if public else None,
        seed=seed,
    )
