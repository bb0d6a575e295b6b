"""Networks, batches and their gradients whose numbers come from numpy, for tests of the attack."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, linprog
from torch import Tensor, nn

from exan_verify.bench.agreement import drawn_batch, drawn_network

__all__ = ["drawn_batch", "drawn_network", "two_batches", "two_sloped_batches"]


Floats = NDArray[np.float64]

_MIXED = ("001011", "001101", "001110", "011001", "101001", "110001")


def two_batches(
    neurons: int, features: int, rng: np.random.Generator
) -> tuple[nn.Sequential, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A network with one logit and two batches of six samples, far apart, with one gradient (bce, sum).

    docs/theory.md, P.5: loss vectors s and s' = -s, all of one size because all logits are 1 or -1, and
    neurons that are exclusive to sample a in the first batch and active for the samples of row a of an
    invertible 0/1 matrix B in the second; then s_a x_a = sum_m B_am s'_m x'_m keeps every entry of the
    gradient. ``neurons`` at least 36, ``features`` at least 6.
    """
    mixing = np.array([[int(c) for c in row] for row in _MIXED], dtype=float)
    signs = np.array([-1.0, -1, -1, 1, 1, 1])
    inverse = np.diag(1 / signs) @ mixing @ np.diag(-signs)
    q = np.linalg.inv(inverse)
    x = rng.normal(size=(6, features))
    # pre-activations z on X and Q z on X', of the signs e_a and B_a
    model = _with_patterns(x, q, (np.eye(6), mixing), nn.ReLU(), neurons, (-signs, signs), rng)
    labels = [torch.tensor((side > 0)[:, None].astype(float)) for side in (-signs, signs)]
    return model, (torch.tensor(x), labels[0]), (torch.tensor(q @ x), labels[1])


_ACTIVE = np.array([[[0, 1, 1], [1, 1, 1], [1, 1, 0]], [[0, 1, 0], [1, 0, 0], [0, 1, 1]]], dtype=float)


def two_sloped_batches(
    slope: float, neurons: int, features: int, rng: np.random.Generator
) -> tuple[nn.Sequential, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A network with LeakyReLU and one logit, and two batches of three samples, far apart, with one gradient
    (bce, sum).

    The derivatives of a neuron are row a of P for the first batch and of P' for the second, each 1 or the
    slope. With loss vectors g and g' = P'^-1 P g, and X' = Q X for diag(g') Q = P'^-1 P diag(g), every neuron
    has P_a diag(g) = P'_a diag(g') Q: deltas and inputs change, and their products do not; nor do those of
    features and loss vectors, as phi(z) is the derivative times z. Bias gradients ask for sum g = sum g', and
    logits that fit for sum g f = sum g' f', which a direction and a size of g meet.
    """
    first, second = (slope + (1 - slope) * active for active in _ACTIVE)
    across = np.linalg.inv(second) @ first
    lost = np.ones(3) @ (np.eye(3) - across)

    def excess(size: float, direction: Floats) -> float:
        sides = np.abs(size * direction), np.abs(size * (across @ direction))
        one, other = (float((p * np.log(p / (1 - p))).sum()) for p in sides)
        return one - other

    for _ in range(400):
        direction = rng.normal(size=3)
        direction = direction - lost * (lost @ direction) / max(lost @ lost, 1e-9)
        largest = 0.97 / max(np.abs(direction).max(), np.abs(across @ direction).max())
        tried = np.linspace(0.3 * largest, largest, 12)
        ends = [ab for ab in pairwise(tried) if excess(ab[0], direction) * excess(ab[1], direction) < 0]
        if not ends:
            continue
        size = brentq(excess, *ends[0], args=(direction,), xtol=1e-16, rtol=1e-15)
        g, other = size * direction, size * (across @ direction)
        q = np.diag(1 / other) @ across @ np.diag(g)
        if min(np.abs(g).min(), np.abs(other).min()) < 0.02 or not _possible(q, _ACTIVE):
            continue
        x = rng.normal(size=(3, features))
        labels = [(side < 0).astype(float) for side in (g, other)]
        one, two = (side + label for side, label in zip((g, other), labels, strict=True))
        logits = np.log(one / (1 - one)), np.log(two / (1 - two))
        model = _with_patterns(x, q, (_ACTIVE[0], _ACTIVE[1]), nn.LeakyReLU(slope), neurons, logits, rng)
        sides = [torch.tensor(label[:, None]) for label in labels]
        return model, (torch.tensor(x), sides[0]), (torch.tensor(q @ x), sides[1])
    raise AssertionError("no loss vectors found")


def _possible(q: Floats, patterns: Floats) -> bool:
    """Whether every neuron can have its pattern on X and on Q X."""
    signs = np.where(patterns > 0, 1, -1)
    return all(
        linprog(
            np.zeros(len(q)),
            A_ub=-np.concatenate([np.diag(own), other[:, None] * q]),
            b_ub=-np.ones(2 * len(q)),
            bounds=[(-20, 20)] * len(q),
        ).success
        for own, other in zip(*signs, strict=True)
    )


def _with_patterns(
    x: Floats,
    q: Floats,
    patterns: tuple[Floats, Floats],
    activation: nn.Module,
    neurons: int,
    logits: tuple[Floats, Floats],
    rng: np.random.Generator,
) -> nn.Sequential:
    """A network whose neurons have, in turn, the rows of ``patterns`` (r, M) on X and on Q X, with room, and
    whose one logit has the values ``logits`` there."""
    size = len(x)
    rows = []
    for j in range(neurons):
        own, other = (np.where(pattern[j % len(pattern)] > 0, 1, -1) for pattern in patterns)
        found = linprog(
            rng.uniform(0.1, 1, size) * own,
            A_ub=-np.concatenate([np.diag(own), other[:, None] * q]),
            b_ub=-rng.uniform(0.1, 1, 2 * size),
            bounds=[(-20, 20)] * size,
        )
        assert found.success
        rows.append(np.linalg.pinv(np.concatenate([x, np.ones((size, 1))], axis=1)) @ found.x)
    model = nn.Sequential(nn.Linear(x.shape[1], neurons), activation, nn.Linear(neurons, 1)).double()
    _set(model[0], np.array(rows))
    with torch.no_grad():
        features = model[:2](torch.tensor(np.concatenate([x, q @ x]))).numpy()
    given, wanted = np.concatenate([features, np.ones((2 * size, 1))], axis=1), np.concatenate(logits)
    last = np.linalg.lstsq(given, wanted, rcond=None)[0]
    assert np.abs(given @ last - wanted).max() < 1e-10
    _set(model[2], last[None])
    return model


def _set(layer: nn.Module, values: Floats) -> None:
    assert isinstance(layer, nn.Linear)
    layer.weight.data, layer.bias.data = torch.tensor(values[:, :-1]), torch.tensor(values[:, -1])
