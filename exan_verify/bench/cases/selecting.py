"""Batches of images selected for the published condition (docs/theory.md, P1), or for a way to violate it.

A sample *meets* the condition when it has two exclusive neurons in the last hidden layer and one in every
other; otherwise it is *short* of some. Whether a batch with a given number of short samples exists among the
images is a search over subsets; here it is a local one: from a random batch, again and again the best
exchange of any member for any of a random pool of images, what left being barred for a few steps (tabu
search, Glover 1989). It can miss batches that exist, so what it does not find is reported as not found, with
how close it came. Pairs with a short sample are all looked at, so that none is missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Patterns = tuple[npt.NDArray[np.bool_], ...]
"""Activation patterns of N images, (N, n_i) per hidden layer."""

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

STEPS = 500
"""Exchanges before a search is given up. At 784-512-10 batches of 24 take about 100, and for 32 a thousand
end no closer."""

_PATIENCE = 150
"""Exchanges in a row that come no closer, after which it is given up too."""

_POOL = 500
"""Images tried at each exchange: all 5000 do no better, because the search then circles."""

_BARRED = 10
"""Steps for which an image that was exchanged does not come back."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """The best batch of a search, as indices of images (M,), and how far it is from what was asked.

    ``off``: exclusive neurons that its samples have too few, or too many, all together; 0 when it is found.
    """

    batch: Indices
    off: int

    @property
    def found(self) -> bool:
        """Whether the batch is what was asked for."""
        return self.off == 0


def required(shown: Patterns) -> list[int]:
    """Exclusive neurons that the condition asks of a sample, per hidden layer."""
    return [1] * (len(shown) - 1) + [2]


def short_of(shown: Patterns, batch: Indices) -> Indices:
    """Per sample of the batch, how many exclusive neurons it lacks for the condition, all layers together."""
    return np.maximum(-margins(shown, batch), 0)


def margins(shown: Patterns, batch: Indices) -> Indices:
    """Per sample: minus the exclusive neurons it lacks, or how many it would have to lose to be short."""
    counts = []
    for layer in shown:
        active = layer[batch]
        counts.append(active[:, active.sum(axis=0) == 1].sum(axis=1))
    return _margins(counts, required(shown)).astype(np.int64)


def select(
    shown: Patterns, allowed: Indices, samples: int, short: int, rng: np.random.Generator, steps: int = STEPS
) -> Selection:
    """Search ``samples`` of the ``allowed`` images of which exactly ``short`` do not meet the condition."""
    if samples == 2 and short:
        return _best_pair(shown, allowed, short)
    batch = rng.choice(allowed, samples, replace=False)
    best, since = Selection(batch=batch, off=_off(margins(shown, batch), short)), 0
    barred: dict[int, int] = {}
    for step in range(steps):
        if best.found or step - since == _PATIENCE:
            break
        pool = np.setdiff1d(rng.choice(allowed, min(_POOL, len(allowed)), replace=False), batch)
        pool = np.array([image for image in pool.tolist() if barred.get(image, 0) <= step], dtype=np.int64)
        if not len(pool):
            continue
        member, image = _best_exchange(shown, batch, pool, short, rng)
        barred[int(batch[member])] = step + _BARRED
        batch = batch.copy()
        batch[member] = image
        off = _off(margins(shown, batch), short)
        if off < best.off:
            best, since = Selection(batch=batch, off=off), step
    return best


def _best_pair(shown: Patterns, allowed: Indices, short: int) -> Selection:
    """The best of all pairs."""
    layers = [layer[allowed].astype(np.float32) for layer in shown]
    best = (np.inf, 0, 0)
    for first in range(0, len(allowed), _POOL):
        counts = [_pair_counts(layer[first : first + _POOL], layer) for layer in layers]
        margin = _margins(counts, required(shown))
        cost = _cost(margin.reshape(-1, 2), short).reshape(margin.shape[:2])
        cost[np.arange(len(cost)), np.arange(len(cost)) + first] = np.inf
        i, j = divmod(int(np.argmin(cost)), len(allowed))
        if cost[i, j] < best[0]:
            best = float(cost[i, j]), i + first, j
    batch = allowed[list(best[1:])]
    return Selection(batch=batch, off=_off(margins(shown, batch), short))


def _pair_counts(some: Floats, every: Floats) -> Floats:
    """Exclusive neurons of both images of all pairs, (P, N, 2)."""
    common = some @ every.T
    return np.stack([some.sum(axis=1)[:, None] - common, every.sum(axis=1) - common], axis=-1)


def _margins(counts: list[Floats], needed: list[int]) -> Floats:
    lacking = sum(np.maximum(need - count, 0) for count, need in zip(counts, needed, strict=True))
    spare = np.minimum.reduce([count - need + 1 for count, need in zip(counts, needed, strict=True)])
    margin: Floats = np.where(lacking > 0, -lacking, spare)
    return margin


def _off(margin: Indices, short: int) -> int:
    ranked = np.sort(margin)
    return int(np.maximum(ranked[:short], 0).sum() + np.maximum(-ranked[short:], 0).sum())


def _best_exchange(
    shown: Patterns, batch: Indices, pool: Indices, short: int, rng: np.random.Generator
) -> tuple[int, int]:
    """The member to leave and the image of the pool to come in its place; ties are broken at random."""
    parts = [movable(layer, batch, pool) for layer in shown]
    needed, best = required(shown), (np.inf, 0, 0)
    for member in range(len(batch)):
        cost = _cost(_margins([counts_without(*part, member) for part in parts], needed), short)
        cost += rng.random(len(pool)) / 8
        k = int(np.argmin(cost))
        if cost[k] < best[0]:
            best = float(cost[k]), member, int(pool[k])
    return best[1], best[2]


def movable(layer: npt.NDArray[np.bool_], batch: Indices, pool: Indices) -> tuple[Floats, Floats]:
    """Neurons that at most two members use, the others cannot become exclusive by one exchange: what they
    are for the members (neurons, M) and for the pool (P, neurons)."""
    active = layer[batch].T
    live = np.flatnonzero(active.sum(axis=1) <= 2)
    return active[live].astype(np.float32), layer[np.ix_(pool, live)].astype(np.float32)


def counts_without(members: Floats, images: Floats, member: int) -> Floats:
    """Exclusive neurons of every sample (P, M) when ``member`` goes and each image comes in its place."""
    users = members.sum(axis=1) - members[:, member]
    alone = members * (users == 1)[:, None]
    alone[:, member] = users == 0
    taken: Floats = images @ alone
    counts: Floats = alone.sum(axis=0) - taken
    counts[:, member] = taken[:, member]
    return counts


def _cost(margin: Floats, short: int) -> npt.NDArray[np.float64]:
    """What is wrong with batches of these margins (P, M); squares, so that no sample is left far behind."""
    ranked = np.sort(margin, axis=1) if short else margin
    spare = np.maximum(ranked[:, :short], 0).sum(axis=1, dtype=np.float64)
    cost: npt.NDArray[np.float64] = spare + np.square(np.minimum(ranked[:, short:], 0)).sum(axis=1)
    return cost
