"""Draw the stored questions and write down what is answered today: ``python -m tests.stored.make``.

Stored certificates stay, and those that are lacking are added; the verdicts are made anew. To the outputs,
those of this version are added.
A certificate that is not accepted is left out and counted.
Every question comes from a recipe and a seed. One is kept when its certificate has a form of which too few
are there, in all or for its loss, label set and entrance.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from exan_verify import Batch, Box, Release, ReluNetwork, __version__, certify, check
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import CertificateRejected, InputError
from exan_verify.instances import instance
from tests.stored import (
    CERTIFICATES,
    FORMS,
    LEAST,
    OUTPUTS,
    VERDICTS,
    Record,
    asked,
    audited,
    cell,
    certified,
    forms,
    load,
    question_record,
    save,
    without_times,
    written,
)
from tests.support import naive, torch_reference
from tests.support.output_cases import QUICK, SLOW, printed
from tests.support.ray_cases import planted

PER_CELL = 6
"""Certificates of each form for each loss, label set and entrance, as far as the draws give them."""

WORK = 2_000_000
MADE = "2026-01-01T00:00:00+00:00"

VERDICT_WORK = 100_000
SOLVERS = 3
"""Stored verdicts for which solvers were asked, at most."""

FAMILIES = ("plain", "deep", "dead", "shared", "twin", "zero", "equal")

Ask = Record
"""Keyword arguments of ``certify``; the model under ``network``."""


def dyadic(rng: np.random.Generator, *shape: int, top: int = 8, over: int = 4) -> np.ndarray:
    return rng.integers(-top, top + 1, shape) / over


def network_of(rng: np.random.Generator, widths: list[int], *, biases: bool = True) -> ReluNetwork:
    weights = [dyadic(rng, b, a) for a, b in pairwise(widths)]
    return ReluNetwork.from_arrays(weights, [dyadic(rng, b) for b in widths[1:]] if biases else None)


def question(rng: np.random.Generator, losses: tuple[Loss, ...] = tuple(Loss)) -> Ask:
    """A loss with a label set and a reduction."""
    loss = losses[rng.integers(len(losses))]
    admitted = [Labels.ONE_HOT, Labels.ONE_HOT, Labels.KNOWN] + [Labels.REAL] * (loss is Loss.MSE)
    return {
        "loss": loss.value,
        "labels": admitted[rng.integers(len(admitted))].value,
        "reduction": ("mean", "sum")[rng.integers(2)],
    }


def targets(rng: np.random.Generator, ask: Ask, samples: int, classes: int) -> np.ndarray:
    """Labels of the kind that the question admits."""
    if ask["loss"] in ("cross_entropy", "hinge"):
        return rng.integers(0, classes, samples)
    if ask["labels"] == "real":
        return dyadic(rng, samples, classes)
    if ask["loss"] == "bce" or classes == 1:
        return rng.integers(0, 2, (samples, classes))
    return np.eye(classes, dtype=int)[rng.integers(0, classes, samples)]


def boxed(rng: np.random.Generator, ask: Ask, share: float = 0.15, reach: float = 16) -> Ask:
    return ask | {"domain": Box(-reach, reach)} if rng.random() < share else ask


def finished(
    rng: np.random.Generator, ask: Ask, network: ReluNetwork, x: Any, y: Any = None, **more: Any
) -> Ask:
    y = targets(rng, ask, len(x), network.classes) if y is None else y
    return boxed(rng, ask) | {"network": network, "batch": (np.asarray(x), np.asarray(y))} | more


def pick(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


# batches given


def from_the_suite(rng: np.random.Generator) -> Ask:
    family, loss = pick(rng, *FAMILIES), pick(rng, *Loss)
    return of_instance(instance(family, loss, bool(rng.integers(2)), int(rng.integers(10**6))))


def of_instance(case: Any, **more: Any) -> Ask:
    return {
        "network": case.network,
        "batch": (case.batch.inputs, case.batch.labels),
        "loss": case.loss.value,
        "reduction": case.reduction.value,
        "labels": case.labels.value,
        "domain": case.domain,
        "engine": "exact",
    } | more


def generic(rng: np.random.Generator) -> Ask:
    """One hidden layer or two, enough neurons for lifting or a few less."""
    ask, classes = question(rng), int(rng.integers(2, 5))
    samples, features = int(rng.integers(1, 5)), int(rng.integers(3, 7))
    hidden = pick(rng, [10], [14], [20], [16, 6], [7, 16], [12, 12], [14, 8, 6])
    network = network_of(rng, [features, *hidden, classes])
    engine = pick(rng, "lifting", "lifting", "enumeration", "exact")
    return finished(rng, ask, network, dyadic(rng, samples, features), engine=engine)


def short_of_neurons(rng: np.random.Generator) -> Ask:
    """Too few neurons at degree two; enough at degree three, or by enumeration."""
    ask = question(rng)
    network = network_of(rng, [7, int(rng.integers(11, 16)), int(rng.integers(2, 4))])
    x = dyadic(rng, int(rng.integers(4, 7)), 7)
    return finished(rng, ask, network, x, engine=pick(rng, "lifting", "lifting", "enumeration"))


def kept_apart(rng: np.random.Generator) -> Ask:
    """Exclusive neurons for every sample, too few neurons for degree two; two may share some instead."""
    ask, samples = question(rng), int(rng.integers(6, 8))
    counts = rng.integers(2, 4, samples) + (ask["loss"] in ("bce", "mse"))
    shared = pick(rng, [], [(0, 2), (1, 2)], [(0, 1)] * 4)
    if (0, 1) in shared:
        counts[:2] = 2
    owners = np.repeat(np.arange(samples), counts)
    x = dyadic(rng, samples, samples, top=1) + 4 * np.eye(samples, dtype=int)
    weight = np.array([np.isin(np.arange(samples), m) for m in [*owners, *shared]]).astype(int)
    weight = 4 * weight + dyadic(rng, *weight.shape, top=1)
    outputs = network_of(rng, [len(weight), 3])
    network = ReluNetwork.from_arrays(
        [weight, outputs.layers[0].weight], [np.full(len(weight), -9), outputs.layers[0].bias]
    )
    return finished(rng, ask, network, x, engine="lifting")


def few_features(rng: np.random.Generator) -> Ask:
    """One feature: three samples have dependent rows [x 1], and boxes cover their inputs."""
    ask = question(rng, (Loss.CROSS_ENTROPY, Loss.BCE, Loss.MSE))
    samples, biases = int(rng.integers(2, 4)), bool(rng.integers(4))
    hidden = pick(rng, [3], [4], [5], [3, 3])
    network = network_of(rng, [1, *hidden, int(rng.integers(2, 4))], biases=biases)
    return finished(rng, ask, network, dyadic(rng, samples, 1, top=20, over=8), engine="residual")


def beyond_ranks(rng: np.random.Generator) -> Ask:
    """Equal or dead samples and zero pre-activations, where no rank is full: cubes are refuted one by one."""
    family, loss = pick(rng, "equal", "zero", "dead"), pick(rng, *Loss)
    case = instance(family, loss, bool(rng.integers(4)), int(rng.integers(10**6)))
    return of_instance(case, engine="residual")


def close_pair(rng: np.random.Generator) -> Ask:
    """Two samples share every pattern, the others are told apart."""
    ask, classes = question(rng), int(rng.integers(2, 4))
    hidden = pick(rng, [24], [20], [26, 5], [26, 12])
    network = network_of(rng, [5, *hidden, classes])
    x = dyadic(rng, 3, 5)
    x = np.concatenate([x, x[:1] + 2.0**-20 * rng.integers(-9, 10, (1, 5))])
    return finished(rng, ask, network, x, engine=pick(rng, "lifting", "enumeration", "exact"))


def told_apart_above(rng: np.random.Generator) -> Ask:
    """No sample leaves the one region of the first layer; the second tells them apart."""
    ask = question(rng)
    samples = int(rng.integers(2, 4))
    first, second, third = dyadic(rng, 14, 5), dyadic(rng, 24, 14), dyadic(rng, 3, 24)
    signs = np.where(np.arange(14) % 4, 32.0, -32.0)
    middle = -second @ np.maximum(signs, 0)
    network = ReluNetwork.from_arrays([first, second, third], [signs, middle, dyadic(rng, 3)])
    x = dyadic(rng, samples, 5)
    return finished(rng, ask, network, x, engine=pick(rng, "lifting", "enumeration"))


def outputs_of_short_rank(rng: np.random.Generator) -> Ask:
    """Outgoing weights (f, -f), or classes whose differences are parallel."""
    ask = question(rng)
    neurons, samples = int(rng.integers(9, 16)), int(rng.integers(2, 5))
    one, two = dyadic(rng, neurons), dyadic(rng, neurons)
    apart = ask["loss"] in ("cross_entropy", "hinge")
    outgoing = [one, 2 * two - one, two] if apart else [one, -one]
    network = ReluNetwork.from_arrays(
        [dyadic(rng, neurons, 6), outgoing], [dyadic(rng, neurons), dyadic(rng, len(outgoing))]
    )
    engine = pick(rng, "lifting", "enumeration", "exact")
    return finished(rng, ask, network, dyadic(rng, samples, 6), engine=engine)


def without_biases(rng: np.random.Generator) -> Ask:
    ask = question(rng)
    classes = int(rng.integers(2 if ask["loss"] in ("cross_entropy", "hinge") else 1, 4))
    samples = int(rng.integers(1, 4))
    hidden = pick(rng, [16], [20], [14, 6], [4])
    network = network_of(rng, [5, *hidden, classes], biases=False)
    return finished(rng, ask, network, dyadic(rng, samples, 5), engine=pick(rng, "scale", "exact"))


def one_region(rng: np.random.Generator) -> Ask:
    """Samples close together and more inputs than logits: shears, orbits, motions by counting."""
    ask = question(rng)
    classes = int(rng.integers(2 if ask["loss"] in ("cross_entropy", "hinge") else 1, 4))
    hidden = pick(rng, [4], [6], [3, 4], [9])
    features = int(rng.integers(1, classes + 3))
    network = network_of(rng, [features, *hidden, classes], biases=bool(rng.integers(4)))
    samples = int(rng.integers(2, classes + 3))
    x = dyadic(rng, features) + 2.0**-14 * rng.integers(-9, 10, (samples, features))
    return finished(rng, ask, network, x, engine=pick(rng, "families", "exact"))


def narrow(rng: np.random.Generator) -> Ask:
    """More samples than neurons in the first layer, and more features: motions that it does not see."""
    ask = question(rng)
    neurons, classes = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    features, samples = (neurons + int(rng.integers(1, 4)) for _ in range(2))
    widths = [features, neurons, *pick(rng, [], [5]), classes]
    network = network_of(rng, widths, biases=bool(rng.integers(4)))
    return finished(rng, ask, network, dyadic(rng, samples, features), engine="families")


def on_faces(rng: np.random.Generator) -> Ask:
    """The same in a box on whose faces many inputs are."""
    ask = question(rng)
    neurons, classes = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    features, samples = (neurons + int(rng.integers(1, 4)) for _ in range(2))
    network = network_of(
        rng, [features, neurons, *pick(rng, [], [], [3]), classes], biases=bool(rng.integers(4))
    )
    faces = rng.random((samples, features)) < rng.random()
    x = np.where(faces, rng.choice([0, 4], faces.shape), rng.integers(1, 16, faces.shape) / 4)
    ask |= {"network": network, "batch": (x, targets(rng, ask, samples, classes))}
    return ask | {"domain": Box(0, 4), "engine": "families"}


def distinct(rng: np.random.Generator, ask: Ask, samples: int, classes: int) -> np.ndarray | None:
    """Labels that differ, half of the time; small logits make their loss vectors independent."""
    if ask["loss"] == "bce" or ask["labels"] == "real" or samples > classes or rng.integers(2):
        return None
    y = rng.permutation(classes)[:samples]
    return np.eye(classes, dtype=int)[y] if ask["loss"] == "mse" else y


def group_alone(rng: np.random.Generator) -> Ask:
    """Samples of one region whose features show all of them: the residual system in their own matrix."""
    ask = question(rng)
    classes, samples = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    features, neurons, over = int(rng.integers(2, 5)), int(rng.integers(6, 13)), pick(rng, 4, 16, 32)
    network = ReluNetwork.from_arrays(
        [dyadic(rng, neurons, features), dyadic(rng, classes, neurons, over=over)],
        [dyadic(rng, neurons), dyadic(rng, classes, over=over)],
    )
    x = dyadic(rng, features) + 2.0 ** -int(rng.integers(6, 15)) * rng.integers(-9, 10, (samples, features))
    y = distinct(rng, ask, samples, classes)
    return finished(rng, ask, network, x, y, engine=pick(rng, "residual", "exact"))


def group_beside_others(rng: np.random.Generator) -> Ask:
    """The same beside samples that lifting settles."""
    ask = question(rng)
    classes, over = int(rng.integers(3, 6)), pick(rng, 4, 16)
    network = ReluNetwork.from_arrays(
        [dyadic(rng, 24, 5), dyadic(rng, classes, 24, over=over)],
        [dyadic(rng, 24), dyadic(rng, classes, over=over)],
    )
    x = dyadic(rng, 2, 5)
    x = np.concatenate([x, x[:1] + 2.0**-20 * rng.integers(-9, 10, (1, 5))])
    return finished(rng, ask, network, x, distinct(rng, ask, 3, classes), engine="exact")


def antisymmetric(rng: np.random.Generator) -> Ask:
    """A head (f, -f): the system has a second solution, in or out of the region."""
    ask = {"loss": "mse", "labels": pick(rng, "one_hot", "known"), "reduction": pick(rng, "mean", "sum")}
    head = dyadic(rng, 2, over=pick(rng, 4, 64, 128))
    network = ReluNetwork.from_arrays(
        [rng.integers(1, 5, (2, 1)), [head, -head]], [rng.integers(1, 4, 2), dyadic(rng, 2)]
    )
    return finished(rng, ask, network, [[0], [1]], engine=pick(rng, "residual", "exact"))


def tiny(rng: np.random.Generator) -> Ask:
    """Few neurons: solutions of the equations that are no samples."""
    ask = question(rng)
    classes = int(rng.integers(2 if ask["loss"] in ("cross_entropy", "hinge") else 1, 4))
    samples, features = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    hidden = pick(rng, [5], [6], [7], [5, 3])
    network = network_of(rng, [features, *hidden, classes])
    return finished(rng, ask, network, dyadic(rng, samples, features), engine="enumeration")


def planted_rays(rng: np.random.Generator) -> Ask:
    network, batch, _ = planted(int(rng.integers(10**6)))
    ask = {"loss": "mse", "reduction": "sum", "labels": pick(rng, "one_hot", "known")}
    return ask | {"network": network, "batch": (batch.inputs, batch.labels), "engine": "enumeration"}


def silent_or_dead(rng: np.random.Generator) -> Ask:
    """A sample with a zero loss vector, or one that no neuron of a layer sees."""
    ask = question(rng, (Loss.MSE, Loss.HINGE) if rng.integers(2) else tuple(Loss))
    classes, features = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    network = network_of(rng, [features, int(rng.integers(2, 5)), classes])
    x = dyadic(rng, 2, features)
    weights, biases = ([getattr(e, name) for e in network.layers] for name in ("weight", "bias"))
    y = targets(rng, ask, 2, classes)
    if rng.integers(2) or ask["loss"] not in ("mse", "hinge"):
        biases[0] = biases[0] - np.maximum(weights[0] @ x[0] + biases[0], 0) - 1
    else:
        goal = y[0] if ask["loss"] == "mse" else 3 * np.eye(classes)[y[0]]
        logits = weights[1] @ np.maximum(weights[0] @ x[0] + biases[0], 0) + biases[1]
        biases[1] = biases[1] + goal - logits
    engine = pick(rng, "families", "exact")
    return finished(rng, ask, ReluNetwork.from_arrays(weights, biases), x, y, engine=engine)


def neck(rng: np.random.Generator) -> Ask:
    """A neuron or two that see every sample, below others that tell them apart."""
    ask = question(rng, (Loss.BCE, Loss.CROSS_ENTROPY, *Loss))
    classes = int(rng.integers(2 if ask["loss"] in ("cross_entropy", "hinge") else 1, 3))
    return told_apart(rng, ask, classes, pick(rng, 1, 2, 2, 3))


def wide_neck(rng: np.random.Generator) -> Ask:
    """Motions that the first layer does not see outnumber the equations, each sample's own do not."""
    return told_apart(rng, question(rng, (Loss.BCE, Loss.BCE, Loss.CROSS_ENTROPY)), 2, 3)


def told_apart(rng: np.random.Generator, ask: Ask, classes: int, narrow: int) -> Ask:
    features, samples = narrow + int(rng.integers(1, 3)), narrow + int(rng.integers(1, 3))
    first, second = rng.integers(1, 5, (narrow, features)), dyadic(rng, 5, narrow)
    x = rng.integers(1, 6, (samples, features))
    seen = x @ first.T @ second.T
    between = seen.min(axis=0) + rng.integers(0, 8, 5) * np.ptp(seen, axis=0) / 8 + 1 / 32
    weights = [first, second, dyadic(rng, classes, 5, over=16)]
    network = ReluNetwork.from_arrays(weights, [np.zeros(narrow), -between, dyadic(rng, classes)])
    return finished(rng, ask, network, x, engine=pick(rng, "families", "exact"))


def too_few(rng: np.random.Generator) -> Ask:
    """A smaller size than the batch has."""
    ask = question(rng)
    network = network_of(rng, [5, pick(rng, 5, 8), int(rng.integers(2, 5))], biases=bool(rng.integers(3)))
    x = dyadic(rng, int(rng.integers(2, 5)), 5)
    size = int(rng.integers(1, len(x)))
    return finished(rng, ask, network, x, batch_size=size, engine="exact")


def one_neuron(rng: np.random.Generator) -> Ask:
    """One input, a neuron or two: quadratic equations, or one with an exponential."""
    return of_one_input(rng, question(rng, (Loss.MSE, Loss.BCE, Loss.CROSS_ENTROPY)))


def one_neuron_of_squares(rng: np.random.Generator) -> Ask:
    """The same with quadratic equations alone."""
    return of_one_input(rng, question(rng, (Loss.MSE,)) | {"labels": pick(rng, "one_hot", "known")})


def of_one_input(rng: np.random.Generator, ask: Ask) -> Ask:
    classes = 2 if ask["loss"] == "cross_entropy" else 1
    network = network_of(rng, [1, int(rng.integers(1, 3)), classes], biases=not rng.integers(8))
    first, *rest = network.layers  # positive numbers keep the neurons alive
    weights = [abs(first.weight), *(layer.weight for layer in rest)]
    network = ReluNetwork.from_arrays(weights, [e.bias for e in network.layers] if network.has_bias else None)
    x = abs(dyadic(rng, pick(rng, 1, 1, 2), 1)) + 0.25
    y = None
    if ask["loss"] != "mse" and rng.integers(8):  # samples that are classified well have a twin
        hidden = x
        for layer in network.layers:
            hidden = np.maximum(hidden, 0) if layer is not network.layers[0] else hidden
            hidden = hidden @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        y = hidden.argmax(axis=1) if classes == 2 else (hidden > 0).astype(int)
    return finished(rng, ask, network, x, y, engine="smt")


def one_neuron_of_classes(rng: np.random.Generator) -> Ask:
    """The same with hinge, where samples of other classes may have the same gradient."""
    ask = question(rng, (Loss.HINGE, Loss.CROSS_ENTROPY)) | {"labels": "one_hot"}
    network = network_of(rng, [1, int(rng.integers(1, 3)), int(rng.integers(2, 4))])
    return finished(rng, ask, network, dyadic(rng, int(rng.integers(1, 3)), 1), engine="smt")


# of what is released


def released(rng: np.random.Generator) -> Ask:
    """Rows of some tensors, with or without weights of the samples: enough for lifting, or few of them."""
    ask, classes = question(rng), int(rng.integers(2, 4))
    neurons, samples = pick(rng, 5, 14, 20, 26), int(rng.integers(1, 5))
    network = network_of(rng, [6, neurons, *pick(rng, [], [], [12]), classes])
    share = pick(rng, 0.2, 0.8, 0.9)
    rows = {name: rng.random(len(array)) < share for name, array in network.parameters() if rng.integers(3)}
    tensors = [name for name, _ in network.parameters() if name in rows or rng.integers(4)]
    sent = Release(
        tensors=tensors or ["0.bias"] if rng.integers(3) else None,
        rows=rows if rng.integers(3) else None,
        weights=pick(rng, "equal", "positive"),
    )
    x = dyadic(rng, samples, 6)
    return finished(rng, ask, network, x, engine=pick(rng, "lifting", "families", "exact"), release=sent)


def few_rows(rng: np.random.Generator) -> Ask:
    """Fewer rows of a first layer with fewer neurons than features than there are samples; or none."""
    ask, neurons = question(rng), int(rng.integers(2, 6))
    network = network_of(rng, [neurons + int(rng.integers(1, 3)), neurons, *pick(rng, [], [5]), 3])
    rows = {"0.weight": np.isin(np.arange(neurons), rng.permutation(neurons)[: int(rng.integers(0, 3))])}
    sent = Release(rows=rows, weights=pick(rng, "equal", "positive"))
    x = dyadic(rng, int(rng.integers(2, 5)), network.widths[0])
    return finished(rng, ask, network, x, engine="families", release=sent)


def short_of_rows(rng: np.random.Generator) -> Ask:
    """Too few rows are sent for degree two, enough for degree three."""
    ask = short_of_neurons(rng)
    network = network_of(rng, [7, 22, ask["network"].classes])
    rows = np.isin(np.arange(22), rng.permutation(22)[: int(rng.integers(11, 18))])
    sent = Release(rows={"0.weight": rows}, weights=pick(rng, "equal", "positive"))
    return ask | {"network": network, "release": sent, "engine": "lifting"}


def few_numbers(rng: np.random.Generator) -> Ask:
    """Fewer numbers than the inputs have coordinates: bias gradients, or rows of a small layer."""
    ask = question(rng, (Loss.CROSS_ENTROPY, Loss.BCE, Loss.MSE))
    ask |= {"labels": "one_hot"} if ask["labels"] == "real" and rng.random() < 0.5 else {}
    network = network_of(rng, [int(rng.integers(2, 5)), int(rng.integers(3, 7)), int(rng.integers(2, 4))])
    tensors = pick(rng, ["2.bias"], ["0.bias", "2.bias"], ["0.bias"])
    sent = Release(tensors=tensors, weights=pick(rng, "equal", "positive"))
    x = rng.normal(size=(int(rng.integers(2, 5)), network.widths[0])).astype(np.float32)
    return finished(rng, ask, network, x, engine="families", release=sent)


def weights_alone(rng: np.random.Generator) -> Ask:
    """dW_1 without db_1, of a network of one hidden layer."""
    ask = question(rng)
    network = network_of(rng, [int(rng.integers(3, 6)), int(rng.integers(14, 24)), int(rng.integers(2, 4))])
    tensors = ["0.weight", *pick(rng, [], [], ["2.bias"], ["2.weight", "2.bias"])]
    sent = Release(tensors=tensors, weights=pick(rng, "equal", "equal", "positive"))
    x = dyadic(rng, int(rng.integers(1, 4)), network.widths[0])
    return finished(rng, ask, network, x, engine="scale", release=sent)


def projected_inputs(rng: np.random.Generator) -> Ask:
    """A first layer V B^T, of which V's gradient is sent."""
    ask, classes, rank = question(rng), int(rng.integers(2, 4)), int(rng.integers(1, 4))
    features = rank + int(rng.integers(1, 4))
    bottleneck = network_of(rng, [rank, int(rng.integers(2, 8)), classes])
    basis = rng.integers(-3, 4, (features, rank)) + 8 * np.eye(features, rank, dtype=int)
    weights = [layer.weight for layer in bottleneck.layers]
    weights[0] = weights[0] @ basis.T
    network = ReluNetwork.from_arrays(weights, [layer.bias for layer in bottleneck.layers])
    tensors = pick(rng, None, None, ["0.weight", "2.bias"])
    sent = Release(input_basis=basis, tensors=tensors, weights=pick(rng, "equal", "positive"))
    x = dyadic(rng, int(rng.integers(1, 4)), features)
    return finished(rng, ask, network, x, engine="families", release=sent)


def averaged_inputs(rng: np.random.Generator) -> Ask:
    """Groups of samples of one label, which share members or do not."""
    ask, classes = question(rng), int(rng.integers(2, 4))
    network = network_of(rng, [int(rng.integers(1, 4)), int(rng.integers(2, 6)), classes])
    groups = [[0, 1], [2, 3, 4][: int(rng.integers(1, 4))]]
    samples = 1 + groups[1][-1]
    y = targets(rng, ask, 2, classes)[[0, 0, 1, 1, 1][:samples]]
    groups += pick(rng, [], [[0, 1]], [groups[1][1:]] if len(groups[1]) > 2 else [[0]])
    sent = Release(averages=groups, weights=pick(rng, "equal", "positive"))
    x = dyadic(rng, samples, network.widths[0])
    return finished(rng, ask, network, x, y, engine="families", release=sent)


# gradients given


def exact_gradient(rng: np.random.Generator) -> Ask:
    """The gradient of a batch, perhaps changed in an entry, or asked about in another box or size."""
    ask = question(rng, (Loss.MSE, Loss.HINGE))
    ask |= {"labels": "one_hot"} if ask["labels"] == "known" else {}
    classes, samples = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    hidden = pick(rng, [16], [20], [16, 6], [6, 16])
    network = network_of(rng, [5, *hidden, classes])
    x = dyadic(rng, samples, 5)
    batch = Batch.of(
        x,
        targets(rng, ask, samples, classes),
        network=network,
        loss=Loss(ask["loss"]),
        labels=Labels(ask["labels"]),
    )
    found = naive.gradient(network, batch, Loss(ask["loss"]), Reduction(ask["reduction"]))
    given = {name: np.array(value, dtype=object) for name, value in found.items()}
    change = rng.integers(5)
    if change == 0:
        name = pick(rng, *given)
        given[name].reshape(-1)[rng.integers(given[name].size)] += Fraction(int(rng.integers(1, 9)), 4)
    size = {"batch_size": samples - int(change == 1 and samples > 1)} if change < 2 else {}
    if change == 2 and ask["labels"] == "real":
        ask |= {"labels": "one_hot"}
    domain = {"domain": pick(rng, Box(-2, 2), Box(0, 2))} if change == 3 else {}
    engine = pick(rng, "exact", "exact", "enumeration", "lifting", "residual")
    return ask | size | domain | {"network": network, "gradient": given, "engine": engine}


def grown_gradient(rng: np.random.Generator) -> Ask:
    """The first layer's gradient with a rank more, as one sample more would give; it is no sample's."""
    ask = exact_gradient(rng)
    weight, bias = (ask["gradient"][name] for name in ("0.weight", "0.bias"))
    samples = int(np.linalg.matrix_rank(weight.astype(float)))
    column, row = dyadic(rng, len(weight)), dyadic(rng, weight.shape[1] + 1)
    grown = np.vectorize(Fraction, otypes=[object])(np.outer(column, row))
    ask["gradient"] |= {"0.weight": weight + grown[:, :-1], "0.bias": bias + grown[:, -1]}
    return ask | {"batch_size": samples + 1}


def rounded_gradient(rng: np.random.Generator) -> Ask:
    """The gradient as autograd gives it, and a tolerance."""
    ask = question(rng) | {"labels": "one_hot"}
    classes, samples = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    hidden = pick(rng, [24], [30], [30, 10], [30, 3])
    network = network_of(rng, [5, *hidden, classes])
    loss = Loss(ask["loss"])
    x, y = dyadic(rng, samples, 5), targets(rng, ask, samples, classes)
    batch = Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)
    given = torch_reference.gradient(network, batch, loss, Reduction(ask["reduction"]))
    rounded, tolerance = pick(rng, (np.float64, 1e-12), (np.float64, 1e-10), (np.float32, 1e-6))
    given = {name: value.astype(rounded).astype(np.float64) for name, value in given.items()}
    ask = boxed(rng, ask, reach=4)
    return ask | {"network": network, "gradient": given, "tolerance": tolerance, "batch_size": samples}


RECIPES: dict[Callable[[np.random.Generator], Ask], int] = {
    one_neuron: 300,
    generic: 350,
    short_of_neurons: 200,
    kept_apart: 200,
    told_apart_above: 150,
    outputs_of_short_rank: 350,
    exact_gradient: 500,
    rounded_gradient: 200,
    without_biases: 300,
    tiny: 300,
    too_few: 120,
    neck: 240,
    silent_or_dead: 150,
    antisymmetric: 150,
    from_the_suite: 250,
    group_alone: 350,
    group_beside_others: 100,
    one_region: 120,
    narrow: 400,
    on_faces: 600,
    planted_rays: 24,
    close_pair: 60,
    grown_gradient: 200,
    wide_neck: 80,
    one_neuron_of_squares: 200,
    one_neuron_of_classes: 60,
    released: 700,
    few_rows: 200,
    short_of_rows: 200,
    projected_inputs: 300,
    weights_alone: 400,
    few_numbers: 300,
    averaged_inputs: 300,
    few_features: 500,
    beyond_ranks: 300,
}
"""How many seeds of each recipe are drawn, at most."""

DRY = 40
"""So many in a row that give nothing of which there is too little end a recipe."""


def drawn(recipe: Callable[[np.random.Generator], Ask], seeds: int) -> Iterator[tuple[Ask, Any]]:
    """Questions with their verdicts; a draw that cannot be asked (a zero gradient, say) is left out."""
    for seed in range(seeds):
        rng = np.random.default_rng([*recipe.__name__.encode(), seed])
        ask = recipe(rng)
        options = {key: value for key, value in ask.items() if key != "network"}
        try:
            yield ask, certify(ask["network"], work_limit=WORK, **options)
        except InputError:
            continue


def certificates() -> None:
    """Add what the stored certificates lack, in the order in which it is drawn."""
    kept = list(load(CERTIFICATES)) if CERTIFICATES.exists() else []
    held: Counter[Any] = Counter(name for record in kept for name in names(record["certificate"]))
    there = {json.dumps(record["certificate"]) for record in kept}
    for recipe, seeds in RECIPES.items():
        start, dry, rejected = time.monotonic(), 0, 0
        for ask, verdict in drawn(recipe, seeds):
            if dry == DRY:
                break
            dry += 1
            if verdict.certificate is None:
                continue
            borne = names(verdict.certificate)
            if all(held[name] >= (LEAST if isinstance(name, str) else PER_CELL) for name in borne):
                continue
            record = certificate_record(ask, verdict)
            if json.dumps(record["certificate"]) in there:
                continue
            network, given = asked(record)
            try:
                check(record["certificate"], network, **given)
            except CertificateRejected:
                rejected += 1
                continue
            dry = 0
            held.update(borne)
            kept.append(record)
        save(CERTIFICATES, kept)
        said = f"{len(kept):5} kept, {rejected} rejected, {time.monotonic() - start:.0f} s"
        print(f"{recipe.__name__:24} {said}", flush=True)
    for form in FORMS:
        print(f"{form:40} {held[form]:5}")


def names(certificate: Record) -> list[Any]:
    """What a certificate is counted under: its forms, and each with loss, label set and entrance."""
    return [key for form in sorted(forms(certificate)) for key in (form, (form, *cell(certificate)))]


def certificate_record(ask: Ask, verdict: Any) -> Record:
    certificate = without_times(verdict.certificate) | {"created": MADE, "producer": "exan_verify"}
    record = question_record(ask["network"], ask)
    record["certificate"] = certificate
    record["trust"] = verdict.trust.value
    return json.loads(json.dumps(record))


def verdict_questions() -> Iterator[Ask]:
    """Tiny questions over all losses, families and entrances, each put to every engine."""
    for number in count():
        rng = np.random.default_rng([7, number])
        family, loss = FAMILIES[number % len(FAMILIES)], tuple(Loss)[number // len(FAMILIES) % 4]
        yield of_instance(instance(family, loss, bool(rng.integers(4)), 1000 + number))
        if number % 2:
            yield pick(rng, generic, too_few, without_biases, one_region)(rng)
            yield exact_gradient(rng)


def verdicts() -> list[Record]:
    """:data:`LEAST` verdicts and some audits; few that went to the solvers, which are slow."""
    kept: list[Record] = []
    with_solvers = 0
    for ask in verdict_questions():
        record = unanswered(ask)
        try:
            found = certified(record)
        except InputError:
            continue
        with_solvers += _by_solvers(found)
        if _by_solvers(found) and with_solvers > SOLVERS:
            continue
        kept.append(record | {"verdict": found})
        if len(kept) == LEAST:
            break
    whole = [
        {key: value for key, value in record.items() if key != "verdict"}
        for record in kept
        if "x" in record and "batch_size" not in record["options"] and not _by_solvers(record["verdict"])
    ]
    return kept + [record | {"audit": audited(record)} for record in whole[::3]]


def _by_solvers(found: Record) -> bool:
    return any(attempt["engine"] == "smt" for attempt in found["attempts"])


def outputs() -> list[Record]:
    """The stored outputs, and what the commands print and write now where that is another version's."""
    kept = list(load(OUTPUTS)) if OUTPUTS.exists() else []
    if any(one["version"] == __version__ for one in kept):
        return kept
    with tempfile.TemporaryDirectory() as folder:
        found = [
            {"version": __version__, "of": of, "record": record} for of, record in _printed(Path(folder))
        ]
    return kept + found


def _printed(folder: Path) -> Iterator[tuple[str, Record]]:
    for name, commands in (("quick", QUICK), ("slow", SLOW)):
        (folder / name).mkdir()
        yield from printed(folder / name, commands)


def unanswered(ask: Ask) -> Record:
    """The question of a record, and the options that it is asked with."""
    given = ("network", "batch", "gradient", "engine")
    chosen = {key: value for key, value in ask.items() if key not in given and value is not None}
    if "domain" in chosen:
        chosen["domain"] = [written(bound) for bound in (chosen["domain"].lo, chosen["domain"].hi)]
    return question_record(ask["network"], ask) | {"options": chosen | {"work_limit": VERDICT_WORK}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["certificates", "verdicts", "outputs"])
    chosen = parser.parse_args().what
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # nothing is resumed from an earlier run
        if "certificates" in chosen:
            certificates()
        if "verdicts" in chosen:
            save(VERDICTS, verdicts())
        if "outputs" in chosen:
            save(OUTPUTS, outputs())


if __name__ == "__main__":
    main()
