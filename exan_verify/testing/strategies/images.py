"""Questions about real digits: weights that give embedded images prescribed activation patterns.

Pixels are no small integers, so weights are solved for in float64 and rounded to what they are stored in; the
patterns are then computed exactly. Pre-activations of at least 1/2 in size leave no doubt about their signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Loss, Question
from exan_verify.data import load_mnist, to_inputs
from exan_verify.errors import InputError, choice, whole
from exan_verify.exact.backprop import forward
from exan_verify.instances import Instance
from exan_verify.testing.strategies.basic import REDUCTIONS, checked_numbers
from exan_verify.testing.strategies.construct import layer_wanted, missing_neurons, planned
from exan_verify.testing.strategies.patterns import further, required
from exan_verify.testing.strategies.wanted import Wanted

PIXELS, CLASSES = 784, 10


def digit_question(
    digits: Sequence[int],
    patterns: Sequence[Sequence[str]],
    seed: int,
    *,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    biases: bool = True,
    numbers: str = "float64",
    loud: bool = False,
    twin: int | None = None,
) -> Instance:
    """Embedded images number ``digits`` (0 to 4999) in a 784-...-10 network with prescribed patterns.

    ``patterns``: per hidden layer a word like ``"101"`` per neuron, active for samples 0 and 2. ``seed``: of
    the weights, as far as they are free. ``loud``: no delta of the first hidden layer vanishes. ``twin``: a
    dead sample, moved in a pixel that is black in all images, makes the planted second batch.

    Raises :class:`InputError` where the layers' inputs do not allow these patterns.
    """
    chosen = [whole(k, "digits", least=0, most=4999) for k in digits]
    images, classes = load_mnist()
    x = to_inputs(images[chosen]).astype(np.float64)
    kind, dtype = choice(Loss, loss, "loss"), np.dtype(checked_numbers(numbers))
    level = 0.25 + (kind is Loss.MSE) if loud else None  # above all targets for mse
    weights, offsets = _layers(np.random.default_rng(seed), x, patterns, dtype, biases=biases, level=level)
    dark = int(np.flatnonzero(~x.any(axis=0))[0])
    weights[0][:, dark] = 0
    network = ReluNetwork.from_arrays(weights, offsets if biases else None)
    question = Question.of(loss, reduction, labels)
    y = classes[chosen] if kind.class_labels else np.eye(CLASSES)[classes[chosen]]

    def batch(inputs: Array) -> Batch:
        """The labels of the question with other inputs (M, d)."""
        return Batch.of(inputs.astype(dtype), y, network=network, loss=kind, labels=question.labels)

    second = None
    if twin is not None:
        moved = x.copy()
        moved[twin, dark] = 0.5
        second = batch(moved)
    own = batch(x)
    found = forward(network, own).patterns
    for number, (words, pattern) in enumerate(zip(patterns, found, strict=True), start=1):
        met = ["".join("01"[int(v)] for v in row) for row in pattern] == list(words)
        if not met and not (loud and number > 1):
            raise InputError(
                f"hidden layer {number} cannot have these patterns: its inputs are not independent; give "
                "layers below in which every sample has a neuron of its own"
            )
    said = f"{tuple(chosen)}, {[list(words) for words in patterns]}, {seed}, loss={loss!r}"
    said += f", reduction={reduction!r}, labels={labels!r}, biases={biases}, numbers={numbers!r}"
    said += ", loud=True" if loud else ""
    said += f", twin={twin}" if twin is not None else ""
    return Instance(
        network=network,
        batch=own,
        question=question,
        planted=second is not None,
        twin=second,
        written=f"digit_question({said})",
    )


def _layers(
    rng: np.random.Generator,
    x: Array,
    patterns: Sequence[Sequence[str]],
    dtype: np.dtype[Any],
    *,
    biases: bool,
    level: float | None,
) -> tuple[list[Array], list[Array]]:
    """Weights and biases of hidden layers with these patterns at ``x`` (M, d), and of a last layer. With a
    ``level`` no loss vector has a zero: all logits lie above it by less than 1/4, behind positive layers.
    """
    weights, offsets, h = [], [], x
    for number, words in enumerate(patterns, start=1):
        active = np.array([[c == "1" for c in word] for word in words])
        z = np.where(active, 1.0, -1.0) * rng.uniform(1, 3, active.shape)
        if level is not None and number > 1:
            weight, bias = rng.uniform(0, 1, (len(z), h.shape[1])), np.ones(len(z))
        else:
            weight, bias = _solved(rng, h, z, biases=biases)
        weights.append(weight.astype(dtype))
        offsets.append(bias.astype(dtype))
        h = np.maximum(h @ weights[-1].astype(np.float64).T + offsets[-1], 0)
    weight, bias = rng.normal(size=(CLASSES, h.shape[1])) / h.shape[1] ** 0.5, rng.normal(size=CLASSES)
    if level is not None:
        weight = np.zeros_like(weight)
        weight[0] = 2.0 ** -np.ceil(4 + np.log2(h.sum(axis=1).max()))
        bias = np.full(CLASSES, level)
    weights.append(weight.astype(dtype))
    offsets.append(bias.astype(dtype))
    return weights, offsets


def _solved(rng: np.random.Generator, h: Array, z: Array, *, biases: bool) -> tuple[Array, Array]:
    """Weights (n, n') and biases (n,) that take h (M, n') to z (n, M), small numbers where they are free."""
    sees = np.concatenate([h, np.ones((len(h), 1))], axis=1) if biases else h
    start = rng.normal(size=(sees.shape[1], len(z))) / sees.shape[1] ** 0.5
    found = start + np.linalg.lstsq(sees, z.T - sees @ start, rcond=None)[0]
    return (found[:-1].T, found[-1]) if biases else (found.T, np.zeros(len(z)))


def images(draw: st.DrawFn, w: Wanted) -> Instance:
    """An instance about digits, with all that is wanted."""
    plan = planned(draw, w)
    if w.domain is not None:
        lo, hi = w.domain.bounds(PIXELS)
        if np.any(lo > 0) or np.any(hi < 1):
            raise InputError("domain: digits lie in [0, 1]; give a box that contains it, or None")
    hidden = w.widths[1:-1] if w.widths is not None else None
    depth = len(hidden) if hidden is not None else max(draw(st.integers(1, 2)), *w.exans, 1)
    region = {place: g for g, places in enumerate(plan.places) for place in places}
    patterns = []
    for number in range(1, depth + 1):
        layer = layer_wanted(draw, plan, w, number, depth)
        neurons = required(draw, layer)
        neurons += further(draw, layer, missing_neurons(draw, w, number, neurons))
        patterns.append(
            ["".join("01"[int(neuron.active[region[m]])] for m in range(plan.samples)) for neuron in neurons]
        )
    numbers = st.integers(0, 4999)
    made = digit_question(
        draw(st.lists(numbers, min_size=plan.samples, max_size=plan.samples, unique=True)),
        patterns,
        draw(st.integers(0, 2**32 - 1)),
        loss=plan.loss.value,
        reduction=(draw(REDUCTIONS) if w.reduction is None else w.reduction).value,
        labels=plan.labels.value,
        biases=plan.biased,
        numbers=w.numbers,
        loud=w.state == "peelable",
        twin=plan.places[plan.dead][0] if plan.twin and plan.dead is not None else None,
    )
    return made if w.domain is None else made.within(w.domain)
