"""What a defence costs in accuracy: trained with it and without, from the same seeds, on the same data.

Adam with the same rate, epochs and order of samples; a fifth of the data is held out and never trained on.
All numbers are drawn from numpy, so that a seed means the same everywhere; times and last digits are the
machine's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from exan_verify.core.budget import poll
from exan_verify.core.network import Array, ReluNetwork
from exan_verify.core.question import Loss, Question
from exan_verify.data import one_thread
from exan_verify.errors import InputError
from exan_verify.mitigation.case import Floats, as_classes
from exan_verify.mitigation.steps import Step, fresh_layers, step

SEEDS = (0, 1, 2)
EPOCHS = 5
RATE = 1e-3
HELD_OUT = 0.2

Send = Callable[[Step, np.random.Generator], Mapping[str, Tensor]]
"""What the server gets of a step: tensors by name, zero where entries are not sent, none where a tensor is
not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a defence changes in training; None and False: nothing.

    ``widths``: of the network; ``bias``; ``basis`` (d, r): inputs enter as B^T x; ``groups``: inputs enter as
    means of so many of one class; ``batch``: samples of a step; ``clip``: of each sample's gradient;
    ``send``: what of a step is sent; ``sampled``: every sample enters a step on its own, with the probability
    that makes the batch as large as stated on average, as the accountant assumes, instead of in shuffled
    order.
    """

    widths: tuple[int, ...] | None = None
    bias: bool = True
    basis: Floats | None = None
    groups: int = 1
    batch: int | None = None
    clip: float | None = None
    send: Send | None = None
    sampled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Inputs and classes of training, and of what is held out of it."""

    x: Floats
    y: npt.NDArray[np.int64]
    held_x: Floats
    held_y: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Shares of held-out samples that are classified right, by seed."""

    by_seed: tuple[float, ...]

    @property
    def median(self) -> float:
        """Over the seeds."""
        return statistics.median(self.by_seed)


def split(x: Floats, y: Array) -> Data:
    """A fifth of (N, d) is held out, by a fixed seed. Raises :class:`InputError` below ten samples."""
    if len(x) < 10:
        raise InputError(f"there are {len(x)} samples to train on; give at least 10")
    order = np.random.default_rng(0).permutation(len(x))
    held = round(HELD_OUT * len(x))
    classes = as_classes(y)
    return Data(
        x=x[order[held:]], y=classes[order[held:]], held_x=x[order[:held]], held_y=classes[order[:held]]
    )


def steps_of(training: Training, data: Data, batch: int) -> int:
    """Steps of one training run."""
    size = training.batch or batch
    return EPOCHS * max(1, len(data.x) // training.groups // size)


def accuracy(
    training: Training,
    data: Data,
    network: ReluNetwork,
    question: Question,
    *,
    batch: int,
    told: Callable[[int], None] = lambda _: None,
) -> Accuracy:
    """Of networks with the widths of ``network`` and its biases, trained anew by steps of ``batch`` samples;
    ``told`` the seed before each."""
    found = []
    with one_thread():
        for seed in SEEDS:
            told(seed)
            found.append(_trained(training, data, network, question, batch=batch, seed=seed))
    return Accuracy(by_seed=tuple(found))


def _trained(
    training: Training,
    data: Data,
    network: ReluNetwork,
    question: Question,
    *,
    batch: int,
    seed: int,
) -> float:
    rng = np.random.default_rng((seed, 1))
    x, y, held = data.x, data.y, data.held_x
    if training.basis is not None:
        x, held = x @ training.basis, held @ training.basis
    if training.groups > 1:
        x, y = class_means(x, y, training.groups, rng)
    shape = [x.shape[1], *(training.widths or network.widths)[1:]]
    biased = [training.bias and layer.bias is not None for layer in network.layers]
    layers = fresh_layers(shape, biased, np.random.default_rng((seed, 0)))
    parameters = [p for layer in layers for p in layer if p is not None]
    # the rules of what is sent know tensors by the names that the user's network gives them
    names = [
        name
        for layer, has_bias in zip(network.layers, biased, strict=True)
        for name, _ in list(layer.parameters())[: 1 + has_bias]
    ]
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    inputs, labels = torch.tensor(x, dtype=torch.float32), _labels(y, shape[-1], question.loss)
    size = min(training.batch or batch, len(x))
    divisor = question.divisor(size, shape[-1])
    for chosen in _batches(len(x), size, sampled=training.sampled, rng=rng):
        poll()
        with torch.no_grad():
            plain = [(w.detach(), None if b is None else b.detach()) for w, b in layers]
        done = step(
            plain, names, inputs[chosen], labels[chosen], question.loss, divisor=divisor, clip=training.clip
        )
        sent = done.gradient if training.send is None else training.send(done, rng)
        for name, parameter in zip(names, parameters, strict=True):
            parameter.grad = sent[name].to(parameter.dtype) if name in sent else torch.zeros_like(parameter)
        optimiser.step()
    with torch.no_grad():
        h = torch.tensor(held, dtype=torch.float32)
        for k, (weight, b) in enumerate(layers):
            h = torch.nn.functional.linear(h.relu() if k else h, weight, b)
    guessed = as_classes(h.numpy() + (0.5 if shape[-1] == 1 and question.loss is Loss.BCE else 0.0))
    return float((guessed == data.held_y).mean())


def _batches(
    count: int, size: int, *, sampled: bool, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of the samples of each step, for all epochs."""
    for _ in range(EPOCHS):
        order = rng.permutation(count)
        for k in range(max(1, count // size)):
            if sampled:
                yield np.flatnonzero(rng.random(count) < size / count)
            else:
                yield order[k * size : (k + 1) * size]


def _labels(classes: npt.NDArray[np.int64], count: int, loss: Loss) -> Tensor:
    y = torch.tensor(classes)
    if loss.class_labels:
        return y
    if count == 1:
        return y[:, None].float()
    return torch.nn.functional.one_hot(y, count).float()


def class_means(
    x: Floats, y: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Means of ``size`` samples of one class each, in random groups; (N, d) to (at most N // size, d).

    What is left of a class is not used.
    """
    means, classes = [], []
    for label in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == label))
        whole = own[: len(own) // size * size].reshape(-1, size)
        means.append(x[whole].mean(axis=1))
        classes.append(np.full(len(whole), label))
    found = np.concatenate(means)
    if not len(found):
        raise InputError(f"no class has {size} samples to train on; give more, or smaller groups")
    return found, np.concatenate(classes)


def distortion(sent: Mapping[str, Any], before: Mapping[str, Any]) -> float | None:
    """|g' - g| / |g| over all parameters, a tensor that is not sent counting as zero; None where the defence
    changes the shape of the gradient."""
    if any(name in sent and sent[name].shape != g.shape for name, g in before.items()) or set(sent) - set(
        before
    ):
        return None
    off = sum(float((g - sent[name] if name in sent else g).square().sum()) for name, g in before.items())
    return float(np.sqrt(off / sum(float(g.square().sum()) for g in before.values())))
