"""Samples that share every pattern, for the tests of residual systems."""

from __future__ import annotations

import numpy as np

from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.backprop import forward
from tests.support.cases import default_network
from tests.support.contexts import context_of


def one_region(counts, *, classes=5, seed=0, widths=(20, 60), loss=Loss.MSE, spread=2.0**-12):
    """A network and samples close together, checked to share every pattern."""
    network = default_network([*widths, classes], seed=seed)
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(1, widths[0]))
    while True:
        x = (base + spread * rng.normal(size=(len(counts), widths[0]))).astype(np.float32)
        y = np.array(counts)
        labels = rng.integers(0, 2, (len(counts), classes)) * 1.0 if loss is Loss.BCE else y
        batch = Batch.of(x, labels, network=network, loss=loss, labels=Labels.ONE_HOT)
        if all((p == p[:, :1]).all() for p in forward(network, batch).patterns):
            return network, (x, labels)
        spread /= 2


def context(network, batch, loss=Loss.MSE, labels=Labels.ONE_HOT, domain=None):
    """The context of a batch, or of its inputs and labels."""
    x, y = (batch.inputs, batch.labels) if isinstance(batch, Batch) else batch
    made = Batch.of(x, y, network=network, loss=loss, labels=labels)
    return context_of(network, made, loss, labels, domain=domain)
