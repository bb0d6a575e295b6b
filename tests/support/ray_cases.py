"""Planted second batches in other regions, made of extra rays as in the counterexample to P1."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.linalg import multiply, rank, solve


def planted(seed: int, samples: int = 3) -> tuple[ReluNetwork, Batch, Batch]:
    """A network with one logit, a batch and another with the same gradient (mse, reduction sum).

    Neurons come in M kinds; kind i is active for the samples A_i before and B_i after, 0/1 matrices. With
    A g = B g' and equal sums, Q^-1 = diag(1/g) A^-1 B diag(g') takes every Delta_j to the right Delta'_j.
    Pre-activations with these signs are drawn, and the output weights solve f = y + g / 2, f' = y' + g' / 2;
    the labels must make g . f = g' . f', which is conserved.
    """
    rng = np.random.default_rng(seed)
    while True:
        found = _drawn(rng, samples)
        if found is not None:
            return found


def _drawn(rng: np.random.Generator, samples: int) -> tuple[ReluNetwork, Batch, Batch] | None:
    before, after = (rng.integers(0, 2, (samples, samples)) for _ in range(2))
    if any(abs(np.linalg.det(kinds)) < 0.5 for kinds in (before, after)):
        return None
    later = rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], samples)
    own = np.linalg.solve(before, after @ later)
    if np.any(abs(own) < 1e-9) or abs(own.sum() - later.sum()) > 1e-9:
        return None
    exact = [kinds.astype(object) for kinds in (before, after)]
    now = solve(exact[0], (after @ later).astype(object)[:, None])
    assert now is not None
    inverse = multiply(_inverse(exact[0]), exact[1]) / now * later
    mixing = _inverse(inverse)
    labels = _labels(rng, now[:, 0], later)
    rows = None if labels is None else _rows(rng, mixing, before, after)
    if labels is None or rows is None or np.count_nonzero(inverse) == samples:
        return None
    first = np.array(rows, dtype=object)
    second = multiply(first, mixing.T)
    targets = np.concatenate([labels[0] + now[:, 0] / 2, labels[1] + later * Fraction(1, 2)])
    outgoing = _solved(rng, np.maximum(np.concatenate([first, second], axis=1), 0), targets)
    if outgoing is None:
        return None
    *weights, offset = outgoing
    network = ReluNetwork.from_arrays([first[:, :-1] - first[:, -1:], [weights]], [first[:, -1], [offset]])
    corners = np.eye(samples, dtype=int)[:, :-1].astype(object)
    return (
        network,
        _batch(network, corners, labels[0]),
        _batch(network, multiply(mixing, corners), labels[1]),
    )


def _inverse(matrix: Array) -> Array:
    found = solve(matrix, np.eye(len(matrix), dtype=int).astype(object))
    assert found is not None
    return found


def _labels(rng: np.random.Generator, now: Array, later: Array) -> tuple[Array, Array] | None:
    drawn = rng.integers(0, 2, (64, 2, len(later)))
    for ours, theirs in drawn:
        if now @ (ours + now / 2) == later @ (theirs + later * Fraction(1, 2)):
            return ours, theirs
    return None


def _rows(rng: np.random.Generator, mixing: Array, before: Array, after: Array) -> list[Array] | None:
    """Three rows of pre-activations of each kind, with the wanted signs in both batches, none zero."""
    scale = int(np.lcm.reduce([v.denominator for v in mixing.reshape(-1)]))
    drawn = rng.integers(-8, 9, (2000, len(before)))
    moved = drawn @ (mixing * scale).astype(np.int64).T
    found: list[Array] = []
    for ours, theirs in zip(before, after, strict=True):
        fits = ((drawn > 0) == ours).all(axis=1) & ((moved > 0) == theirs).all(axis=1)
        chosen = drawn[fits & (drawn * moved != 0).all(axis=1)][:3]
        if len(chosen) < 3:
            return None
        found += [row.astype(object) for row in chosen]
    return found


def _solved(rng: np.random.Generator, activations: Array, targets: Array) -> list[Fraction] | None:
    """Output weights, none of them zero, and the bias."""
    neurons, equations = activations.shape
    matrix = np.concatenate([activations.T, np.ones((equations, 1), dtype=int)], axis=1).astype(object)
    for _ in range(20):
        order = rng.permutation(neurons + 1)
        chosen = _independent(matrix, order)
        rest = [k for k in range(neurons + 1) if k not in chosen]
        drawn = rng.choice([-3, -2, -1, 1, 2, 3], len(rest))
        values = {k: Fraction(int(v), 2) for k, v in zip(rest, drawn, strict=True)}
        right = targets
        for k, value in values.items():
            right = right - matrix[:, k] * value
        found = solve(matrix[:, chosen], right[:, None])
        if found is None:
            return None
        values |= dict(zip(chosen, found[:, 0], strict=True))
        if all(values[k] for k in range(neurons)):
            return [values[k] for k in range(neurons + 1)]
    return None


def _independent(matrix: Array, order: Array) -> list[int]:
    chosen: list[int] = []
    for k in order:
        if rank(matrix[:, [*chosen, int(k)]]) > len(chosen):
            chosen.append(int(k))
    return chosen


def _batch(network: ReluNetwork, x: Array, y: Array) -> Batch:
    return Batch.of(x, [[int(v)] for v in y], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
