"""Exclusivity of a batch: ExAN counts, the published condition, the peeling closure, pattern groups.

An *exclusively activated neuron* (ExAN) of sample m is active for m and for no other sample of the batch
(Pan et al., USENIX Security 2022; docs/theory.md section 1). None of this is a uniqueness claim: exclusivity
makes an attack easy, its absence protects nobody (docs/theory.md section 4, P2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.exact.backprop import Forward, backward_mod, forward
from exan_verify.exact.modular import PRIME, point, residues
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors, loss_vectors_mod

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusivityState:
    """The exclusivity of a batch of M samples in a network with L - 1 hidden layers.

    ``counts[i][m]``: number of ExANs of sample m in hidden layer i + 1. ``published``: at least two per
    sample in the last hidden layer and one in every other (P1's condition), also per sample.
    ``peelable[m]``: m is in the peeling closure (E4), counting only deltas proved non-zero;
    ``stopping_set``: the samples left. ``groups[i]``: samples that share the pattern of hidden layer i + 1.
    ``active_for[i][j]``: for how many samples neuron j of hidden layer i + 1 is active; 1 is an ExAN.
    """

    counts: tuple[tuple[int, ...], ...]
    published: bool
    published_by_sample: tuple[bool, ...]
    peelable: tuple[bool, ...]
    stopping_set: tuple[int, ...]
    groups: tuple[Groups, ...]
    active_for: tuple[tuple[int, ...], ...]


def exclusivity(
    network: ReluNetwork, batch: Batch, *, loss: Loss = Loss.CROSS_ENTROPY, sent: Mask | None = None
) -> ExclusivityState:
    """The exclusivity state of ``batch``, from exact activation patterns.

    Peeling needs the first layer's biases (without them an ExAN gives the sample only up to scale): no sample
    of a network without them is called peelable. ``sent`` (n_1,): the neurons whose rows of the first layer's
    gradient are sent, the only ones to peel from; None: all.
    """
    passed = forward(network, batch)
    counts = tuple(exan_counts(pattern) for pattern in passed.patterns)
    by_sample = tuple(_published(counts, m) for m in range(batch.size))
    left = _stopping_set(network, batch, passed, loss, sent)
    return ExclusivityState(
        counts=counts,
        published=all(by_sample),
        published_by_sample=by_sample,
        peelable=tuple(m not in left for m in range(batch.size)),
        stopping_set=tuple(sorted(left)),
        groups=tuple(pattern_groups(pattern) for pattern in passed.patterns),
        active_for=tuple(tuple(int(n) for n in pattern.sum(axis=1)) for pattern in passed.patterns),
    )


def exan_counts(pattern: Mask) -> tuple[int, ...]:
    """Number of exclusively active neurons per sample for one layer's pattern (n, M)."""
    exclusive = pattern[pattern.sum(axis=1) == 1]
    return tuple(int(v) for v in exclusive.sum(axis=0))


def pattern_groups(pattern: Mask) -> Groups:
    """Samples (columns) with equal patterns (n, M), grouped, in the order of their first members."""
    groups: dict[bytes, list[int]] = {}
    for m in range(pattern.shape[1]):
        groups.setdefault(np.packbits(pattern[:, m]).tobytes(), []).append(m)
    return tuple(tuple(group) for group in groups.values())


def _published(counts: tuple[tuple[int, ...], ...], m: int) -> bool:
    return bool(counts) and counts[-1][m] >= 2 and all(layer[m] >= 1 for layer in counts[:-1])


def _stopping_set(
    network: ReluNetwork, batch: Batch, passed: Forward, loss: Loss, sent: Mask | None
) -> set[int]:
    """Samples outside the peeling closure on layer 1 (E4).

    A neuron gives m away when its delta is proved non-zero for m (a non-zero residue) and is surely zero
    (inactive neuron) for every other sample that is left.
    """
    left = set(range(batch.size))
    if network.layers[0].bias is None or not passed.patterns:
        return left
    active, nonzero = passed.patterns[0], _nonzero_deltas(network, batch, passed, loss)
    if sent is not None:
        active, nonzero = active[sent], nonzero[sent]
    while left:
        members = sorted(left)
        alone = active[:, members].sum(axis=1) == 1
        found = {m for m in members if np.any(alone & nonzero[:, m])}
        if not found:
            break
        left -= found
    return left


def _nonzero_deltas(network: ReluNetwork, batch: Batch, passed: Forward, loss: Loss) -> Mask:
    divisor = loss.divisor(Reduction.SUM, batch.size, network.classes)
    attempt = 0
    while True:
        try:
            t = point(f"exclusivity/{attempt}")
            if loss.rational:
                vectors = residues(_cleared(loss_vectors(loss, passed.logits, batch.labels, divisor)))
            else:
                vectors = loss_vectors_mod(loss, passed.logits, batch.labels, divisor, t)
            break
        except VanishingDenominatorError:
            attempt += 1
    layers = tuple(replace(layer, weight=_cleared(layer.weight)) for layer in network.layers)
    found: Mask = backward_mod(replace(network, layers=layers), passed, vectors)[0] != 0
    return found


def _cleared(array: Array) -> Array:
    """A positive multiple whose denominators p does not divide, so that every entry has a residue; deltas are
    multiplied by it as well, which does not make any of them zero.
    """
    if array.dtype != object:
        return array
    common, power = lcm(*(value.denominator for value in array.reshape(-1))), 1
    while common % PRIME == 0:
        common, power = common // PRIME, power * PRIME
    return array * power
