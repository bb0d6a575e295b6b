"""Networks and batches without conditions on one another, small enough to shrink well.

Weights are small numbers by default, so that coincidences (equal patterns, zero pre-activations, duplicate
samples, rank deficits) happen often: they are what engines must survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import to_fraction
from exan_verify.core.network import Array, Asked, Batch, Network, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import InputError, unknown, whole

LOSSES = st.sampled_from(list(Loss))
REDUCTIONS = st.sampled_from(list(Reduction))

NUMBERS = ("float64", "float32", "rational")
"""How drawn numbers are stored: as floats, or as Fractions that are no floats."""


def checked_numbers(numbers: str) -> str:
    """``numbers`` where it is one of :data:`NUMBERS`; raises :class:`InputError` else."""
    if numbers not in NUMBERS:
        raise InputError(unknown("numbers", numbers, NUMBERS))
    return numbers


def checked_widths(widths: Sequence[int] | None) -> tuple[int, ...] | None:
    """``(d, n_1, ..., K)`` as integers of at least 1; raises :class:`InputError` where it is none."""
    if widths is None:
        return None
    if not isinstance(widths, Sequence) or len(widths) < 2:
        raise InputError(f"widths={widths!r} cannot be used; give (d, n_1, ..., K), two numbers at least")
    return tuple(whole(n, f"widths[{k}]", most=10_000) for k, n in enumerate(widths))


def checked_slopes(slopes: Sequence[Any] | None) -> tuple[Fraction, ...] | None:
    """Slopes below zero as Fractions, none of them 1; raises :class:`InputError` else."""
    if slopes is None:
        return None
    try:
        found = tuple(to_fraction(slope) for slope in slopes)
    except (TypeError, ValueError, OverflowError):
        found = ()
    if not found or 1 in found:
        raise InputError(f"slopes={slopes!r} cannot be used; give finite numbers other than 1, 0 for ReLU")
    return found


@st.composite
def _networks(
    draw: st.DrawFn,
    max_depth: int,
    max_width: int,
    max_classes: int,
    biases: bool | None,
    generic: bool,
    widths: tuple[int, ...] | None,
    numbers: str,
    slopes: tuple[Fraction, ...] | None,
) -> Network:
    if widths is None:
        depth = draw(st.integers(2, max_depth))
        hidden = tuple(draw(st.integers(1, max_width)) for _ in range(depth))
        widths = (*hidden, draw(st.integers(1, max_classes)))
    with_bias = draw(st.booleans()) if biases is None else biases
    if generic:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        weights = [stored(rng.normal(size=(b, a)), numbers) for a, b in pairwise(widths)]
        offsets = [stored(rng.normal(size=b), numbers) for b in widths[1:]]
    else:
        weights = [draw(matrices(b, a, numbers=numbers)) for a, b in pairwise(widths)]
        offsets = [draw(matrices(b, 1, numbers=numbers))[:, 0] for b in widths[1:]]
    network = ReluNetwork.from_arrays(weights, offsets if with_bias else None)
    if slopes is None or len(widths) == 2:
        return network
    each = st.sampled_from(slopes)
    return network.sloped([draw(st.lists(each, min_size=n, max_size=n)) for n in widths[1:-1]])


def networks(
    *,
    max_depth: int = 4,
    max_width: int = 6,
    max_classes: int = 4,
    biases: bool | None = True,
    generic: bool = False,
    widths: Sequence[int] | None = None,
    numbers: str = "float64",
    slopes: Sequence[Any] | None = None,
) -> st.SearchStrategy[Any]:
    """Networks of 2 to ``max_depth`` affine layers, or of the ``widths`` (d, n_1, ..., K).

    ``generic``: seeded Gaussian numbers instead of multiples of 1/4 between -4 and 4; ``biases=None``:
    with or without; ``numbers``: ``float64``, ``float32`` or ``rational`` (most of them no floats).
    ``slopes``: numbers other than 1, of which each hidden neuron has one below zero, as LeakyReLU has; the
    networks are then :class:`PiecewiseNetwork`, else :class:`ReluNetwork`.

    Raises :class:`InputError` naming what cannot be used.
    """
    return _networks(
        whole(max_depth, "max_depth", least=2),
        whole(max_width, "max_width"),
        whole(max_classes, "max_classes"),
        biases,
        generic,
        checked_widths(widths),
        checked_numbers(numbers),
        checked_slopes(slopes),
    )


def stored(array: Array, numbers: str) -> Array:
    """Floats of any shape in the form ``numbers``: rounded to float32, or thirds of eighths."""
    if numbers == "rational":
        third = [Fraction(round(8 * float(v)), 24) for v in array.reshape(-1)]
        return np.array(third, dtype=object).reshape(array.shape)
    return array.astype(numbers)


@st.composite
def matrices(draw: st.DrawFn, rows: int, cols: int, *, numbers: str = "float64") -> Array:
    """Arrays (rows, cols) of multiples of 1/4 between -4 and 4, or of Fractions with denominators to 12."""
    values = draw(st.lists(st.integers(-16, 16), min_size=rows * cols, max_size=rows * cols))
    if numbers == "rational":
        under = draw(st.lists(st.integers(1, 12), min_size=rows * cols, max_size=rows * cols))
        return np.array(list(map(Fraction, values, under)), dtype=object).reshape(rows, cols)
    found: Array = np.array(values, dtype=numbers).reshape(rows, cols) / np.array(4, dtype=numbers)
    return found


@st.composite
def batches(
    draw: st.DrawFn,
    network: Asked,
    loss: Loss,
    *,
    samples: int | None = None,
    max_samples: int = 4,
    generic: bool = False,
    labels: Labels = Labels.ONE_HOT,
    numbers: str = "float64",
) -> Batch:
    """Batches of ``samples``, or of 1 to ``max_samples`` samples, with labels that fit the loss and the label
    set; numbers as in :func:`networks`.
    """
    size = draw(st.integers(1, max_samples)) if samples is None else samples
    d = network.widths[0]
    if generic:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        x = stored(rng.normal(size=(size, d)), numbers)
    else:
        x = draw(matrices(size, d, numbers=numbers))
    y = draw(targets(size, network.classes, loss, labels))
    return Batch.of(x, y, network=network, loss=loss, labels=labels)


@st.composite
def targets(draw: st.DrawFn, samples: int, classes: int, loss: Loss, labels: Labels) -> Any:
    """Labels as :meth:`Batch.of` takes them: classes (M,), or vectors (M, K)."""
    if labels is Labels.REAL:
        return draw(matrices(samples, classes))
    if loss is Loss.BCE or (classes == 1 and not loss.class_labels):
        bits = draw(st.lists(st.integers(0, 1), min_size=samples * classes, max_size=samples * classes))
        return np.array(bits, dtype=np.float64).reshape(samples, classes)
    chosen = draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples))
    return np.array(chosen) if loss.class_labels else np.eye(classes)[chosen]
