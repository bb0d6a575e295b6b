"""What protects when less than the gradient is sent: few rows of the first layer, a projected transcript."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, Gradient, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.exact.backprop import gradient
from exan_verify.exact.linalg import multiply, nullspace, rank
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import (
    Pair,
    deltas,
    drawn,
    exact,
    integer_network,
    integers,
    mse_batch,
    nudged,
    same_samples,
)
from exan_verify.theorems.support.shorthands import by_instances, coq, written

ROUNDS = 3
"""Rounds of training over which transcripts are compared."""

SHAPES = (((3, 2, 4, 2), 3), ((4, 4, 2), 3), ((3, 3, 2, 2), 2), ((5, 3, 2), 2))
"""(widths, M)."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Two batches, and the rows of dW_1 that are sent beside the gradients of all other parameters."""

    pair: Pair
    rows: tuple[int, ...]


def masked_pairs(seed: int) -> Iterator[Masked]:
    """X and X + A with A W_1^T = 0 and (Delta_1)_S A = 0, for random rows S."""
    return drawn("narrow release", seed, _draw_masked)


def _draw_masked(rng: Random) -> Masked | None:
    widths, samples = rng.choice(SHAPES)
    network = integer_network(rng, widths)
    first, loss = _batch(rng, network, samples)
    rows = tuple(sorted(rng.sample(range(widths[1]), rng.randint(0, min(widths[1], samples) - 1))))
    sent = deltas(network, first, loss)[0][list(rows)]
    alphas = nullspace(sent) if len(rows) else exact(np.eye(samples, dtype=int))
    unseen = nullspace(exact(network.layers[0].weight))
    if not alphas.shape[1] or not unseen.shape[1]:
        return None
    mixing = integers(rng, alphas.shape[1], unseen.shape[1], 9)
    motion = multiply(multiply(alphas, mixing), unseen.T.copy())
    second = replace(first, inputs=exact(first.inputs) + motion)
    found = Masked(pair=Pair(network=network, first=first, second=second, loss=loss), rows=rows)
    return found if motion.any() and not same_release(nudging(found)) else None


def _batch(rng: Random, network: ReluNetwork, samples: int) -> tuple[Batch, Loss]:
    inputs = integers(rng, samples, network.widths[0], 6)
    loss = rng.choice((Loss.MSE, Loss.HINGE))
    if loss is Loss.MSE:
        return mse_batch(network, inputs, integers(rng, samples, network.classes)), loss
    chosen = np.array([rng.randrange(network.classes) for _ in range(samples)])
    return Batch.of(inputs, chosen, network=network, loss=loss, labels=Labels.ONE_HOT), loss


def same_release(masked: Masked) -> bool:
    """One pre-activation for each sample and neuron, one release, another batch."""
    pair = masked.pair
    batches = pair.first, pair.second
    before, after = (
        multiply(exact(pair.network.layers[0].weight), exact(b.inputs).T.copy()) for b in batches
    )
    given = [gradient(pair.network, b, pair.loss, Reduction.SUM).tensors for b in batches]
    names = [name for name, _ in pair.network.parameters()]
    left, right = (
        [exact(g[names[0]])[list(masked.rows)], *(exact(g[name]) for name in names[1:])] for g in given
    )
    same = all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
    return np.array_equal(before, after) and same and not same_samples(pair)


def nudging(masked: Masked) -> Masked:
    """The second batch moved where the first layer sees it."""
    return replace(masked, pair=replace(masked.pair, second=nudged(masked.pair.second)))


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """V on B^T x, the basis B (d, r), and in every round two batches and what the server adds to the
    weights.
    """

    bottleneck: ReluNetwork
    basis: Array
    batches: tuple[tuple[Batch, Batch], ...]
    added: tuple[int, ...]
    loss: Loss


def transcripts(seed: int) -> Iterator[Rounds]:
    """Batches with B^T x alike in every round, apart along the kernel of B^T."""
    return drawn("projected transcript", seed, _draw_rounds)


def _draw_rounds(rng: Random) -> Rounds | None:
    size, features = rng.randint(1, 2), rng.randint(3, 4)
    bottleneck = integer_network(rng, (size, rng.randint(2, 3), 2))
    basis = integers(rng, features, size)
    hidden = nullspace(basis.T.copy())
    network = seen_through(bottleneck, basis)
    batches, loss = [], Loss.MSE
    for _ in range(ROUNDS):
        inputs, targets = integers(rng, 2, features), integers(rng, 2, 2)
        moved = inputs + multiply(integers(rng, 2, hidden.shape[1], 99), hidden.T.copy())
        batches.append((mse_batch(network, inputs, targets), mse_batch(network, moved, targets)))
    added = tuple(rng.randint(-2, 2) for _ in range(ROUNDS))
    found = Rounds(bottleneck=bottleneck, basis=basis, batches=tuple(batches), added=added, loss=loss)
    moves = all(not np.array_equal(a.inputs, b.inputs) for a, b in batches)
    return found if rank(basis) == size and moves and not same_transcript(seen_difference(found)) else None


def seen_through(bottleneck: ReluNetwork, basis: Array) -> ReluNetwork:
    """The network on x with W_1 = V B^T, for B of shape (d, r)."""
    first = bottleneck.layers[0]
    weight = multiply(exact(first.weight), basis.T.copy())
    return ReluNetwork(layers=(replace(first, weight=weight), *bottleneck.layers[1:]))


def same_transcript(rounds: Rounds) -> bool:
    """All that is sent in all rounds is the same; the server steps along it, and adds numbers of its own."""
    clients = [rounds.bottleneck, rounds.bottleneck]
    for both, number in zip(rounds.batches, rounds.added, strict=True):
        sent = [_sent(client, rounds, batch) for client, batch in zip(clients, both, strict=True)]
        if any(not np.array_equal(a, b) for a, b in zip(*sent, strict=True)):
            return False
        clients = [_stepped(client, g, number) for client, g in zip(clients, sent, strict=True)]
    return True


def _sent(client: ReluNetwork, rounds: Rounds, batch: Batch) -> list[Array]:
    network = seen_through(client, rounds.basis)
    found: Gradient = gradient(network, batch, rounds.loss, Reduction.SUM)
    first, *rest = (exact(found.tensors[name]) for name, _ in network.parameters())
    return [multiply(first, rounds.basis), *rest]


def _stepped(client: ReluNetwork, sent: Sequence[Array], number: int) -> ReluNetwork:
    arrays = iter([exact(a) - g / 64 + number for (_, a), g in zip(client.parameters(), sent, strict=True)])
    return ReluNetwork(
        layers=tuple(replace(e, weight=next(arrays), bias=next(arrays)) for e in client.layers)
    )


def seen_difference(rounds: Rounds) -> Rounds:
    """In the last round one input of the second batch is moved by a column of B, which B^T sees."""
    *earlier, (first, second) = rounds.batches
    inputs = exact(second.inputs)
    inputs[0] = inputs[0] + rounds.basis[:, 0] * Fraction(1, 3)
    return replace(rounds, batches=(*earlier, (first, replace(second, inputs=inputs))))


STATEMENTS = (
    Statement(
        name="narrow-release",
        group="releases",
        title="Few rows of the first layer hide what the first layer does not see",
        source="docs/theory.md section 9, M2",
        reading="Of dW_1 only some rows S are sent, chosen without looking at the data, and everything else "
        "of the gradient. If S has fewer live rows than the batch has samples, or none, and W_1 has a "
        "kernel, inputs move along it without changing anything that is sent, nor any pre-activation.",
        quantifiers="all depths, weights, batches, losses, label sets, rows S, weights of the samples",
        hypotheses=("r = rank (Delta_1)_S < M", "rank W_1 < d", "inputs are real vectors without bounds"),
        conclusion="Batches with the same release form a family of dimension (M - r)(d - rank W_1) at least.",
        latex=r"AW_1^{T}=0,\ (\Delta_1)_S A=0\ \Longrightarrow\ "
        r"\big((dW_1)_S,db_1,dW_2,\dots\big)(X+A)=\big((dW_1)_S,db_1,dW_2,\dots\big)(X)",
        standing=Standing.PROVED,
        grounds=(
            coq("release.v: narrow_release", "nothing that is sent changes, nor any pre-activation"),
            coq("release.v: motion_linear, motion_moves, motion_free", "the motions and their dimension"),
            written("section 9", "counts in the place of ranks, a box, which samples move"),
        ),
        checks=(
            by_instances(
                "motions",
                "solves for such motions over Q and compares pre-activations and everything that is sent",
                instances=masked_pairs,
                conclusion=same_release,
                spoiled=nudging,
                count=25,
                said="batches moved along ker W_1 have the same release",
            ),
        ),
        remark="With rank W_1 = d nothing moves this way, and the layers above may determine the batch "
        "without any row of the first. What W_1 x is, is not hidden. narrow-first-layer is the case of all "
        "rows.",
    ),
    Statement(
        name="projected-transcript",
        group="releases",
        title="A first layer that sees a public projection hides the rest, in every round",
        source="docs/theory.md section 9, M1",
        reading="The first layer is stored as V, with W_1 = V B^T for a public B (d, r) that does not depend "
        "on the data, and dV is sent. Then all that the server receives over any number of rounds, whatever "
        "it sends back, depends on the inputs through B^T x alone.",
        quantifiers="all depths, weights, losses, label sets, numbers of rounds, servers",
        hypotheses=("W_1 = V B^T exactly, in every round", "B stays, and does not depend on the data"),
        conclusion="Inputs with the same B^T x have the same transcript: M (d - rank B) dimensions stay "
        "hidden.",
        latex=r"B^{T}x'_{k,m}=B^{T}x_{k,m}\ \forall k,m\ \Longrightarrow\ "
        r"\mathrm{transcript}(x')=\mathrm{transcript}(x)",
        standing=Standing.PROVED,
        grounds=(written("section 9", "one round, and by induction all rounds, for every server"),),
        checks=(
            by_instances(
                "rounds",
                "trains both clients over Q for three rounds, with steps and numbers that the server adds, "
                "and compares all that they send",
                instances=transcripts,
                conclusion=same_transcript,
                spoiled=seen_difference,
                count=15,
                said="pairs of clients whose inputs have one projection send the same",
            ),
        ),
        remark="A projector on stored floats does not do: fl(W P) P differs from fl(W P). What B^T x is may "
        "be determined; how much of a picture it shows depends on B.",
    ),
)
