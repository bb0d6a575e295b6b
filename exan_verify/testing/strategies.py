"""Hypothesis strategies: exact networks, batches and questions, small enough to shrink well.

Needs the ``testing`` extra. Weights are small dyadic numbers, so that coincidences (equal patterns, zero
pre-activations, duplicate samples, rank deficits) happen often: they are what the engines must survive.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction

LOSSES = st.sampled_from(list(Loss))
REDUCTIONS = st.sampled_from(list(Reduction))


@st.composite
def networks(
    draw: st.DrawFn,
    *,
    max_depth: int = 4,
    max_width: int = 6,
    max_classes: int = 4,
    biases: bool | None = True,
    generic: bool = False,
) -> ReluNetwork:
    """Networks of 2 to ``max_depth`` affine layers. ``generic``: seeded Gaussian weights instead of small
    dyadic ones; ``biases=None``: with or without.
    """
    depth = draw(st.integers(2, max_depth))
    widths = [draw(st.integers(1, max_width)) for _ in range(depth)] + [draw(st.integers(1, max_classes))]
    with_bias = draw(st.booleans()) if biases is None else biases
    if generic:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        weights = [rng.normal(size=(b, a)) for a, b in pairwise(widths)]
        offsets = [rng.normal(size=b) for b in widths[1:]]
    else:
        weights = [draw(dyadics(b, a)) for a, b in pairwise(widths)]
        offsets = [draw(dyadics(b, 1))[:, 0] for b in widths[1:]]
    return ReluNetwork.from_arrays(weights, offsets if with_bias else None)


@st.composite
def dyadics(draw: st.DrawFn, rows: int, cols: int) -> Array:
    """Arrays (rows, cols) of multiples of 1/4 between -4 and 4."""
    values = draw(st.lists(st.integers(-16, 16), min_size=rows * cols, max_size=rows * cols))
    return np.array(values, dtype=np.float64).reshape(rows, cols) / 4


@st.composite
def batches(
    draw: st.DrawFn,
    network: ReluNetwork,
    loss: Loss,
    *,
    max_samples: int = 4,
    generic: bool = False,
    labels: Labels = Labels.ONE_HOT,
) -> Batch:
    """Batches of 1 to ``max_samples`` samples with labels that fit the loss and the label set."""
    samples = draw(st.integers(1, max_samples))
    d, classes = network.widths[0], network.classes
    if generic:
        x: Array = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(size=(samples, d))
    else:
        x = draw(dyadics(samples, d))
    y: Array
    if loss.class_labels:
        y = np.array(draw(_classes(samples, classes)))
    elif labels is Labels.REAL:
        y = draw(dyadics(samples, classes))
    elif loss is Loss.BCE or classes == 1:
        bits = draw(st.lists(st.integers(0, 1), min_size=samples * classes, max_size=samples * classes))
        y = np.array(bits, dtype=np.float64).reshape(samples, classes)
    else:
        y = np.eye(classes)[draw(_classes(samples, classes))]
    return Batch.of(x, y, network=network, loss=loss, labels=labels)


def fractions(max_denominator: int = 12) -> st.SearchStrategy[Fraction]:
    """Rationals between -8 and 8."""
    return st.fractions(min_value=-8, max_value=8, max_denominator=max_denominator)


def _classes(samples: int, classes: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples)
