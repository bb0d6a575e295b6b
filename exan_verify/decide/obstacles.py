"""Plain facts about a batch that stop the exact arguments, found exactly and said in words.

Dead samples, zero loss vectors and duplicates make rank(A) smaller than M (docs/theory.md 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exan_verify.core.network import Batch
from exan_verify.core.question import Loss
from exan_verify.exact.backprop import Forward
from exan_verify.exact.softmax import loss_vectors

_SHOWN = 16
"""Samples or pairs that a phrase lists: a batch may have thousands."""


def obstacles(batch: Batch, passed: Forward, loss: Loss) -> tuple[str, ...]:
    """Phrases that name samples which cannot be told apart or contribute nothing."""
    found = []
    for k, pattern in enumerate(passed.patterns):
        dead = np.flatnonzero(~pattern.any(axis=0))
        if dead.size:
            found.append(f"{_samples(dead)} dead: no neuron of hidden layer {k + 1} is active")
    silent = _silent(batch, passed, loss)
    if silent.size:
        found.append(f"{_samples(silent)} silent: the loss vector is zero")
    twins = duplicates(batch)
    if twins:
        pairs = _listed([f"{a} and {b}" for a, b in twins])
        found.append(f"equal samples: {pairs}")
    return tuple(found)


def duplicates(batch: Batch) -> tuple[tuple[int, int], ...]:
    """Pairs (first, later) of samples with equal inputs and equal labels."""
    seen: dict[tuple[bytes, bytes], int] = {}
    pairs = []
    for m in range(batch.size):
        key = (_row_key(batch.inputs[m]), _row_key(np.atleast_1d(batch.labels[m])))
        if key in seen:
            pairs.append((seen[key], m))
        else:
            seen[key] = m
    return tuple(pairs)


def _row_key(row: np.ndarray) -> bytes:
    if row.dtype == object:
        return ";".join(map(str, row)).encode()
    return (row.astype(np.float64) + 0.0).tobytes()


def _silent(batch: Batch, passed: Forward, loss: Loss) -> np.ndarray:
    if not loss.rational:
        return np.array([], dtype=np.int64)
    vectors = loss_vectors(loss, passed.logits, batch.labels, 1)
    return np.flatnonzero(~(vectors != 0).any(axis=0))


def _samples(indices: np.ndarray) -> str:
    names = _listed([str(int(m)) for m in indices])
    return f"sample {names} is" if indices.size == 1 else f"samples {names} are"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
