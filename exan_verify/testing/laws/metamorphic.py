"""Changes that take a question to an equivalent one: the answers never contradict each other.

The gradient of the changed question is a known one-to-one function of the given one, and so are the batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import Array, fractions
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.instances import Instance
from exan_verify.testing.laws.law import (
    SEEDS,
    Case,
    cases,
    certified,
    law,
    mixed,
    require,
    require_no_contradiction,
)


@dataclass(slots=True)
class Draft:
    """An instance while it is changed: arrays of Fractions, and the order of its samples."""

    weights: list[Array]
    biases: list[Array | None]
    x: Array
    order: list[int]
    reduction: Reduction


Change = Callable[[Draft, np.random.Generator, Instance], None]


def _stored_otherwise(_: Draft, __: np.random.Generator, ___: Instance) -> None:
    """Nothing but that float32 and Fractions become float64 where they can."""


def _samples(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    draft.order = [int(m) for m in rng.permutation(len(draft.order))]


def _neurons(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    for i in range(len(draft.weights) - 1):
        order: Array = rng.permutation(len(draft.weights[i]))
        _replace_rows(draft, i, partial(np.take, indices=order, axis=0))
        draft.weights[i + 1] = draft.weights[i + 1][:, order]


def _neuron_scale(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    for i in range(len(draft.weights) - 1):
        scale = np.array([Fraction(int(v)) / 4 for v in rng.integers(1, 12, len(draft.weights[i]))])
        draft.weights[i] = draft.weights[i] * scale[:, None]
        bias = draft.biases[i]
        if bias is not None:
            draft.biases[i] = bias * scale
        draft.weights[i + 1] = draft.weights[i + 1] / scale


def _split_neuron(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    if len(draft.weights) < 2:
        return
    i = int(rng.integers(len(draft.weights) - 1))
    j = int(rng.integers(len(draft.weights[i])))
    _replace_rows(draft, i, lambda rows: np.concatenate([rows, rows[j : j + 1]]))
    above = draft.weights[i + 1]
    halves = np.concatenate([above, above[:, j : j + 1] / 2], axis=1)
    halves[:, j] = above[:, j] / 2
    draft.weights[i + 1] = halves


def _dead_neuron(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    if len(draft.weights) < 2:
        return
    i = int(rng.integers(len(draft.weights) - 1))
    weight, bias = draft.weights[i], draft.biases[i]
    # never active, whatever the inputs: it feeds, and is fed, nothing
    draft.weights[i] = np.concatenate([weight, np.full((1, weight.shape[1]), Fraction(0))])
    if bias is not None:
        draft.biases[i] = np.concatenate([bias, [Fraction(-1)]])
    above = draft.weights[i + 1]
    more = np.array([[Fraction(int(v))] for v in rng.integers(-3, 4, len(above))])
    draft.weights[i + 1] = np.concatenate([above, more], axis=1)


def _inputs(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    features = draft.x.shape[1]
    order, signs = rng.permutation(features), 1 - 2 * rng.integers(0, 2, features)
    draft.x = draft.x[:, order] * signs
    draft.weights[0] = draft.weights[0][:, order] * signs


def _input_scale(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    scale = Fraction(2) ** int(rng.integers(-6, 7))
    draft.x = draft.x * scale
    draft.weights[0] = draft.weights[0] / scale


def _shift(draft: Draft, rng: np.random.Generator, _: Instance) -> None:
    if draft.biases[0] is None:
        return
    step = np.array([Fraction(int(v), 4) for v in rng.integers(-9, 10, (draft.x.shape[1],))])
    draft.x = draft.x + step
    draft.biases[0] = draft.biases[0] - draft.weights[0] @ step


def _logits(draft: Draft, rng: np.random.Generator, question: Instance) -> None:
    if not question.loss.zero_sum:
        return
    row = np.array([Fraction(int(v), 2) for v in rng.integers(-5, 6, (draft.weights[-1].shape[1],))])
    draft.weights[-1] = draft.weights[-1] + row
    if draft.biases[-1] is not None:
        draft.biases[-1] = draft.biases[-1] + Fraction(int(rng.integers(-5, 6)), 2)


def _reduction(draft: Draft, _: np.random.Generator, question: Instance) -> None:
    draft.reduction = Reduction.SUM if question.reduction is Reduction.MEAN else Reduction.MEAN


def _replace_rows(draft: Draft, i: int, change: Callable[[Array], Array]) -> None:
    draft.weights[i] = change(draft.weights[i])
    bias = draft.biases[i]
    if bias is not None:
        draft.biases[i] = change(bias)


CHANGES: dict[str, Change] = {
    "numbers stored otherwise": _stored_otherwise,
    "order of samples": _samples,
    "order of neurons": _neurons,
    "positive scale of neurons": _neuron_scale,
    "a neuron split in two": _split_neuron,
    "a dead neuron more": _dead_neuron,
    "orthogonal change of inputs": _inputs,
    "inputs times a power of two": _input_scale,
    "inputs shifted, biases too": _shift,
    "one function added to all logits": _logits,
    "sum against mean": _reduction,
}


def changed(question: Instance, how: str, seed: int) -> tuple[Instance, list[int]]:
    """The equivalent question, and which sample of the given one each of its samples is."""
    layers = question.network.layers
    draft = Draft(
        weights=[fractions(layer.weight) for layer in layers],
        biases=[None if layer.bias is None else fractions(layer.bias) for layer in layers],
        x=fractions(question.batch.inputs),
        order=list(range(question.batch.size)),
        reduction=question.reduction,
    )
    CHANGES[how](draft, np.random.default_rng(seed), question)
    biases: Any = None if draft.biases[0] is None else draft.biases
    network = ReluNetwork.from_arrays(draft.weights, biases)
    labels = question.batch.labels[draft.order]
    batch = Batch.of(
        draft.x[draft.order], labels, network=network, loss=question.loss, labels=question.labels
    )
    asked = replace(question.question, reduction=draft.reduction)
    return Instance(network=network, batch=batch, question=asked), draft.order


@law(
    "equivalent",
    "Equivalent questions (order and scale of neurons, samples, inputs, logits, reduction) never contradict",
    lambda: cases(mixed(), change=st.sampled_from(sorted(CHANGES)), seed=SEEDS),
)
def equivalent_never_contradict(case: Case) -> str:
    """One change of a question; both are asked."""
    how = case.params["change"]
    other, order = changed(case.question, how, case.params["seed"])
    one, two = certified(case.question), certified(other)
    statuses = [two.samples[order.index(m)] for m in range(len(order))]
    require_no_contradiction(one, replace(two, samples=tuple(statuses)), how)
    lifted = [certified(q, engine="lifting") for q in (case.question, other)]
    same = [lifted[1].samples[order.index(m)] for m in range(len(order))]
    # its ranks are invariants of these changes, so that it says the same
    require(lifted[0].samples == tuple(same), f"{how}: lifting says {lifted[0].samples}, then {same}")
    kept = (one.outcome, one.samples) == (two.outcome, tuple(statuses))
    decided = Outcome.UNKNOWN not in (one.outcome, two.outcome)
    return f"{how}: {'the same' if kept else 'one says more' if not decided else 'statuses differ'}"
