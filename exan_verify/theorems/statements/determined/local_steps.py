"""U1, U2: what a client sends after one local epoch determines the batch as a gradient does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact.linalg import identity, multiply, rank, solve
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import drawn, exact, integers
from exan_verify.theorems.support.layer_equations import Layer, claiming_singles
from exan_verify.theorems.support.shorthands import by_instances, coq, measured, written

LIFTED = ((3, 9, 2, 2),)
"""(d, n, K, M): the neurons that lifting needs for 2 M free directions of the next delta."""

ORDERED = ((3, 12, 2, 2), (4, 16, 3, 3))
"""Neurons enough for the delta of every sample to determine p."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One local epoch over Q of a network with one hidden layer under mse (sum): sample m is in mini-batch
    ``place``[m].

    ``outgoing`` (n, K) = W_2^T; ``rate``; ``patterns`` and ``features`` (n, M), ``deltas`` (n, M) and
    ``vectors`` (K, M) at the weights of every sample's own step. ``told``: the mini-batches that are claimed.
    """

    outgoing: Array
    rate: Fraction
    place: tuple[int, ...]
    patterns: Array
    features: Array
    deltas: Array
    vectors: Array
    told: tuple[int, ...]
    layer: Layer

    @property
    def sum(self) -> Array:
        """S_2 (K, n), what the second layer's gradients add up to."""
        found: Array = multiply(self.vectors, self.features.T.copy())
        return found


def epochs(seed: int) -> Iterator[Epoch]:
    """Epochs whose sums satisfy the hypotheses of U1."""

    def draw(rng: Random) -> Epoch | None:
        epoch = _draw(rng, LIFTED)
        return epoch if epoch and epoch.layer.rank_mod() == epoch.layer.unknowns - 2 else None

    return drawn("local steps", seed, draw)


def _draw(rng: Random, sizes: Sequence[tuple[int, int, int, int]]) -> Epoch | None:
    width, neurons, classes, samples = rng.choice(sizes)
    first, second = integers(rng, neurons, width + 1), integers(rng, classes, neurons)
    shift, rate = integers(rng, classes, 1)[:, 0], Fraction(1, rng.choice((8, 10, 64)))
    x = np.concatenate([integers(rng, samples, width), exact([[1]] * samples)], axis=1)
    y = integers(rng, samples, classes)
    place = tuple(sorted(rng.randint(0, 1) for _ in range(samples)))
    if len(set(place)) < 2:
        return None
    outgoing = second.T.copy()
    patterns, features, deltas, vectors = (
        exact(np.zeros((rows, samples), dtype=int)) for rows in (neurons, neurons, neurons, classes)
    )
    for batch in (0, 1):
        chosen = [m for m in range(samples) if place[m] == batch]
        z = multiply(first, x[chosen].T.copy())
        on = (z > 0).astype(int)
        h = z * on
        g = 2 * (multiply(second, h) + shift[:, None] - y[chosen].T)
        back = multiply(second.T.copy(), g) * on
        patterns[:, chosen], features[:, chosen], deltas[:, chosen], vectors[:, chosen] = on, h, back, g
        first = first - rate * multiply(back, x[chosen])
        second, shift = second - rate * multiply(g, h.T.copy()), shift - rate * g.sum(axis=1)
    layer = _layer(outgoing, rate, place, patterns, features, vectors)
    ranks = (rank(multiply(deltas, x)), rank(multiply(vectors, features.T.copy())))
    if ranks != (samples, samples) or rank(layer.outgoing) < layer.extra:
        return None
    return Epoch(
        outgoing=outgoing,
        rate=rate,
        place=place,
        patterns=patterns,
        features=features,
        deltas=deltas,
        vectors=vectors,
        told=place,
        layer=layer,
    )


def _layer(
    outgoing: Array,
    rate: Fraction,
    place: tuple[int, ...],
    patterns: Array,
    features: Array,
    vectors: Array,
) -> Layer:
    """(*) with F = [W_2^T C | N], C the samples' next deltas and N their features, and the theorem's p."""
    products = multiply(vectors.T.copy(), vectors)
    earlier = exact([[int(k < m) for m in place] for k in place])
    return Layer(
        patterns=patterns,
        outgoing=np.concatenate([multiply(outgoing, vectors), features], axis=1),
        following=np.concatenate([identity(len(place)), -rate * products * earlier]),
    )


def only_the_samples(epoch: Epoch) -> bool:
    """The deltas of the steps are those of (*), and over all states every candidate is a sample's."""
    true = bool((epoch.layer.delta == epoch.deltas).all())
    return true and all(epoch.layer.explains(basis, epoch.layer.groups) for basis in epoch.layer.branches())


def with_one_group(epoch: Epoch) -> Epoch:
    """The same about samples that share every pattern and are called different."""
    layer = claiming_singles(epoch.layer)
    return replace(epoch, layer=layer, deltas=layer.delta)


def order_is_read(epoch: Epoch) -> bool:
    """A delta's coordinates along the features are -eta u_k . u_m for earlier steps, zero for others."""
    features = _features_of(epoch)
    if features is None:
        return False
    products = multiply(epoch.vectors.T.copy(), epoch.vectors)
    columns = np.concatenate([multiply(epoch.outgoing, epoch.vectors), features], axis=1)
    for m, own in enumerate(epoch.told):
        active = [j for j, on in enumerate(epoch.patterns[:, m]) if on]
        if rank(columns[active]) < columns.shape[1]:
            continue  # where its neurons do not determine p, nothing is read
        p = solve(columns[active], epoch.deltas[active, m][:, None])
        if p is None:
            return False
        shown = p[len(epoch.place) :, 0]
        wanted = [-epoch.rate * products[k, m] * int(b < own) for k, b in enumerate(epoch.told)]
        if any(products[k, m] and shown[k] != wanted[k] for k in range(len(shown))):
            return False
    return True


def _features_of(epoch: Epoch) -> Array | None:
    """The features at every sample's own step, from the second layer's sum and the next deltas."""
    found = solve(epoch.vectors, epoch.sum)
    return None if found is None else found.T.copy()


def ordered_epochs(seed: int) -> Iterator[Epoch]:
    """Epochs in which the order shows: some sample's neurons determine p, and its next delta is not
    orthogonal to one of another step."""

    def draw(rng: Random) -> Epoch | None:
        epoch = _draw(rng, ORDERED)
        return None if epoch is None or order_is_read(reversed_order(epoch)) else epoch

    return drawn("order of steps", seed, draw)


def reversed_order(epoch: Epoch) -> Epoch:
    """The same with the mini-batches in the other order."""
    return replace(epoch, told=tuple(1 - b for b in epoch.told))


STATEMENTS = (
    Statement(
        name="local-epoch",
        group="U1",
        title="What a client sends after one local epoch determines the inputs as a gradient does",
        source="docs/theory.md Appendix U, U1 and U2",
        reading="A client takes plain gradient steps, each on its own mini-batch, every sample in one step, "
        "and sends the change of its weights. Let S_i be that change of layer i, C the column space of "
        "[S_2 | s_2], N the row space of S_2. If both [S_1 | s_1] and [S_2 | s_2] have rank M and the lifted "
        "equations with F = [W_2^T C | N] in the place of W_2^T C reach the rank U - M, every run with this "
        "update has the same inputs, whatever its learning rates and mini-batches. The order of the steps "
        "and the labels of cross_entropy follow.",
        quantifiers="all depths, widths, M, K', losses, positive rates and factors of the samples",
        hypotheses=(
            "the network has biases; every sample takes part in one step",
            "rank [S_1 | s_1] = rank [S_2 | s_2] = rank S_2 = M",
            "rank R = U - M with K' = the number of columns of F, which are independent",
        ),
        conclusion="Every run of M samples with this update has these inputs; sample k comes before sample m "
        "iff m's delta has the coordinate -eta u_k . u_m, and not zero, along k's feature.",
        latex=r"\delta_1^m=D_m\Bigl(W_2^\top u_m-\eta\sum_{k\prec m}(u_k\cdot u_m)\,h_k\Bigr),\quad "
        r"h_k\in\operatorname{row}S_2",
        standing=Standing.PROVED,
        grounds=(
            written("Appendix U", "the weights of all steps stay within F; then C1; order and labels"),
            coq("lifting.v: C1_candidates", "from the rank to the candidates, whatever confines u"),
            measured("784-512-10, M = 8 in 4 mini-batches", "8 of 8 confirmed, errors below 1e-14"),
        ),
        checks=(
            by_instances(
                "all-states",
                "compares the deltas of exact runs with F p, and solves (*) over Q for all states",
                instances=epochs,
                conclusion=only_the_samples,
                spoiled=with_one_group,
                count=2,
                said="epochs of exact steps have their samples as only candidates",
            ),
            by_instances(
                "order",
                "reads the order of the steps off the deltas of exact runs",
                instances=ordered_epochs,
                conclusion=order_is_read,
                spoiled=reversed_order,
                count=8,
                said="epochs show which sample came first",
            ),
        ),
        remark="Not for several epochs, nor where next deltas are dependent (more samples than logits less "
        "one under one hidden layer): there the equations hold up to terms of second order in the rate.",
    ),
)
