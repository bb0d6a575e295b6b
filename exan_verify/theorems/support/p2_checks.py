"""Checks of P2, the published secure side (docs/theory.md section 4 and Appendix P)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import identity, multiply, rank, solve
from exan_verify.exact.softmax import loss_vectors
from exan_verify.exclusivity import exan_counts
from exan_verify.smt.decide import decide
from exan_verify.smt.portfolio import Settings
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Check, Example, Progress, Result
from exan_verify.theorems.support.example_check import all_met, by_example
from exan_verify.theorems.support.exclusive_layers import Layered, exclusive_table
from exan_verify.theorems.support.laboratory import (
    drawn,
    exact,
    integer_network,
    integers,
    one_hot,
    region_points,
)

SAMPLES = 16


def refutes_p2(example: Example, layers: str, *, strict: bool = True) -> Result:
    """Whether ``example`` has no ExAN in ``layers`` (first, last, every) and the kernel accepts UNIQUE.

    ``strict``: no pre-activation is zero.
    """
    passed = forward(example.network, example.batch)
    chosen = {"first": passed.patterns[:1], "last": passed.patterns[-1:], "every": passed.patterns}[layers]
    found = {
        "no exclusive neuron": not any(any(exan_counts(p)) for p in chosen),
        "no zero pre-activation": strict is (not any(bool(z.any()) for z in passed.zeros)),
        "kernel says UNIQUE": kernel_outcome(example.network, example.batch, example.question)
        is Outcome.UNIQUE,
    }
    return all_met(found)


def refuted(name: str, example: Callable[[], Example], layers: str, *, strict: bool = True) -> Check:
    """A check that runs :func:`refutes_p2`."""
    what = "recomputes the exclusivity, certifies the batch and gives the certificate to the kernel"
    return by_example(name, what, example=example, judge=partial(refutes_p2, layers=layers, strict=strict))


def solver_says_unique(example: Example, seed: int = 0) -> Result:
    """Whether there is no ExAN and z3 refutes every activation pattern for a second batch (all of R^d)."""
    asked = replace(example.question, domain=None)
    settings = Settings(seed=seed, deadline=time.monotonic() + 20)
    verdict = decide(example.network, asked, batch=example.batch, settings=settings)
    counts = [exan_counts(p) for p in forward(example.network, example.batch).patterns]
    exclusive = any(any(c) for c in counts)
    holds = verdict.outcome is Outcome.UNIQUE and not exclusive
    said = "an exclusive neuron" if exclusive else "no exclusive neuron"
    return Result(holds=holds, detail=f"{said}; {verdict.outcome.value}: {verdict.reason}")


def solved(name: str, example: Callable[[], Example]) -> Check:
    """A check that runs :func:`solver_says_unique`."""
    what = "recomputes the exclusivity and asks z3 about every activation pattern and label"
    return by_example(name, what, example=example, judge=solver_says_unique)


def crowd(seed: int = 0, samples: int = SAMPLES) -> Layered:
    """60-n-10 under cross_entropy, weights in +-1, without the neurons that are exclusive to one sample."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.integers(-64, 65, (420, 60)) / 64, rng.integers(-64, 65, 420) / 64
    inputs = rng.integers(0, 257, (samples, 60)) / 256
    shared = np.flatnonzero(((inputs @ weight.T + bias) > 0).sum(axis=0) != 1)
    head = rng.integers(-64, 65, (10, 420)) / 64
    network = ReluNetwork.from_arrays(
        [weight[shared], head[:, shared]], [bias[shared], rng.integers(-64, 65, 10) / 64]
    )
    labels = rng.integers(0, 10, samples)
    batch = Batch.of(inputs, labels, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    return Layered(network=network, batch=batch, question=Question(loss=Loss.CROSS_ENTROPY))


def crowd_is_unique(progress: Progress, seed: int) -> Result:
    """Sixteen samples without an ExAN under cross_entropy are UNIQUE, by lifting, for three seeds."""
    for done in range(3):
        progress("batches of 16 without an exclusive neuron", done, 3)
        layer = crowd(seed + done)
        example = Example(network=layer.network, batch=layer.batch, question=layer.question, note="")
        found = refutes_p2(example, "every")
        if not found.holds:
            return found
    return Result(
        holds=True, detail=f"3 batches of {SAMPLES} samples UNIQUE for the kernel, none has an ExAN"
    )


def shared_pairs(seed: int) -> Iterator[Layered]:
    """Two samples of one region, one logit, two or more inputs, mse or bce."""

    def draw(rng: Random) -> Layered | None:
        network = integer_network(rng, rng.choice(((2, 3, 1), (3, 4, 1), (2, 3, 3, 1))))
        return _pair(rng, network, rng.choice((Loss.MSE, Loss.BCE)), Labels.ONE_HOT)

    return drawn("P2 two", seed, draw)


def real_pairs(seed: int) -> Iterator[Layered]:
    """Two samples of one region, any number of logits and inputs, real targets."""

    def draw(rng: Random) -> Layered | None:
        network = integer_network(rng, rng.choice(((1, 2, 2), (2, 3, 2), (1, 3, 3), (2, 3, 3, 1))))
        return _pair(rng, network, Loss.MSE, Labels.REAL)

    return drawn("P2 real", seed, draw)


def _pair(rng: Random, network: ReluNetwork, loss: Loss, labels: Labels) -> Layered | None:
    inputs = region_points(rng, network, 2)
    if inputs is None:
        return None
    chosen = [rng.randrange(2) for _ in range(2)]
    targets = one_hot(network.classes, chosen)
    batch = Batch.of(inputs, targets, network=network, loss=loss, labels=labels)
    return Layered(network=network, batch=batch, question=Question(loss=loss))


def kernel_says_ambiguous(layer: Layered) -> bool:
    """The engines' certificate says AMBIGUOUS for one-hot labels and the kernel accepts it."""
    return _outcome(layer, Labels.ONE_HOT) is Outcome.AMBIGUOUS


def kernel_says_ambiguous_real(layer: Layered) -> bool:
    """The same among all real targets."""
    return _outcome(layer, Labels.REAL) is Outcome.AMBIGUOUS


def _outcome(layer: Layered, labels: Labels) -> Outcome | None:
    return kernel_outcome(layer.network, layer.batch, replace(layer.question, labels=labels))


def told_apart(layer: Layered) -> Layered:
    """The first sample alone, in a network with one neuron that is active for it: UNIQUE."""
    network = ReluNetwork.from_arrays(
        [exact([[0] * layer.network.widths[0]]), [[1]] * layer.network.classes],
        [[1], [0] * layer.network.classes],
    )
    example = replace(layer, network=network)
    batch = Batch.of(
        exact(np.zeros((1, layer.network.widths[0]), dtype=int)),
        one_hot(layer.network.classes, [0]),
        network=network,
        loss=layer.question.loss,
        labels=Labels.ONE_HOT,
    )
    return replace(example, batch=batch)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """``dW_L = vectors @ features`` (K, M) @ (M, n), ``db_L = vectors @ 1``, and a mixing R (M, M)."""

    vectors: Array
    features: Array
    mixing: Array


def factorisations(seed: int) -> Iterator[Factors]:
    """Softmax loss vectors and ReLU features, with or without ExANs, and R = (1 - e) I + e J / M."""
    return drawn("P2 factorisation", seed, _draw_factors)


def _draw_factors(rng: Random) -> Factors | None:
    samples, classes = rng.randint(2, 4), rng.randint(3, 5)
    table = exclusive_table(rng, [rng.randint(0, 2) for _ in range(samples)], 4)
    columns = [_loss_vector(rng, classes) for _ in range(samples)]
    vectors, features = exact(columns).T.copy(), np.maximum(table, 0).T.copy()
    if rank(features) < 2 or len(set(map(tuple, columns))) < samples:
        return None
    share = exact([[1]])[0, 0] / 1000
    mixing = exact(np.eye(samples, dtype=int)) * (1 - share) + exact(
        np.ones((samples, samples), dtype=int)
    ) * (share / samples)
    return Factors(vectors=vectors, features=features, mixing=mixing)


def _loss_vector(rng: Random, classes: int) -> list[object]:
    weights = [rng.randint(1, 9) for _ in range(classes)]
    label, total = rng.randrange(classes), sum(weights)
    shares = exact(weights) / total
    return [v - (k == label) for k, v in enumerate(shares)]


def another_admissible(factors: Factors) -> bool:
    """``vectors R^-1`` are loss vectors of cross_entropy, ``R features >= 0``, the products stay the same,
    and the factors are not the old ones in another order.
    """
    inverse = solve(factors.mixing, identity(len(factors.mixing)))
    if inverse is None:
        return False
    vectors, features = multiply(factors.vectors, inverse), multiply(factors.mixing, factors.features)
    kept = np.all(multiply(vectors, features) == multiply(factors.vectors, factors.features))
    biases = np.all(vectors.sum(axis=1) == factors.vectors.sum(axis=1))
    softmax = all(_is_loss_vector(column) for column in vectors.T)
    before = {(tuple(g), tuple(h)) for g, h in zip(factors.vectors.T, factors.features, strict=True)}
    after = {(tuple(g), tuple(h)) for g, h in zip(vectors.T, features, strict=True)}
    return bool(kept and biases and np.all(features >= 0)) and softmax and before != after


def _is_loss_vector(column: Array) -> bool:
    """Sum zero, one negative entry above -1, the others positive: softmax(f) - e_y for some real f."""
    negative = column[column < 0]
    return bool(column.sum() == 0 and len(negative) == 1 and negative[0] > -1 and np.all(column != 0))


def permuted(factors: Factors) -> Factors:
    """A permutation in place of R: the same factors in another order."""
    order = next(p for p in permutations(range(len(factors.mixing))) if p != tuple(range(len(p))))
    return replace(factors, mixing=exact(np.eye(len(order), dtype=int)[list(order)]))


def supported_layers(seed: int) -> Iterator[Layered]:
    """Three samples, K = 3, six neurons: two for each pair of samples; independent loss vectors."""
    return drawn("P2 support", seed, _draw_supported)


def _draw_supported(rng: Random) -> Layered | None:
    table = [[rng.randint(1, 9) * (1 if k != m else -1) for k in range(3)] for m in (0, 0, 1, 1, 2, 2)]
    z = exact(table)
    network = ReluNetwork.from_arrays(
        [z[:, :2] - z[:, 2:], integers(rng, 3, 6)], [z[:, 2], integers(rng, 1, 3)[0]]
    )
    batch = Batch.of(
        [[1, 0], [0, 1], [0, 0]], [0, 1, 2], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT
    )
    layer = Layered(network=network, batch=batch)
    independent = all(rank(z[[2 * m, 2 * m + 1]][:, [k for k in range(3) if k != m]]) == 2 for m in range(3))
    return layer if independent else None


def support_determines_features(layer: Layered) -> bool:
    """R H with the zeros of H and R 1 = 1 is H: the linear system for R has the identity alone."""
    features = forward(layer.network, layer.batch).hidden[-1].fractions()
    samples = layer.batch.size
    rows = []
    for m in range(samples):
        zero = features[features[:, m] == 0]
        for neuron in [*zero, exact([1] * samples)]:
            row = exact([0] * samples * samples)
            row[m * samples : (m + 1) * samples] = neuron
            rows.append(row)
    exclusive = np.any((features != 0).sum(axis=1) == 1)
    return bool(rank(exact(rows)) == samples * samples and not exclusive)


def support_shown(example: Example) -> Result:
    """The same at an example, with independent loss vectors."""
    layer = Layered(network=example.relu, batch=example.batch, question=example.question)
    vectors = loss_vectors(Loss.MSE, forward(layer.network, layer.batch).logits, layer.batch.labels, 1)
    return all_met(
        {
            "rank G = M": rank(vectors) == layer.batch.size,
            "no exclusive neuron, and R = I is the only mixing with the zeros of H": (
                support_determines_features(layer)
            ),
        }
    )


def one_neuron_less(layer: Layered) -> Layered:
    """Without the last neuron: one column per pair is not enough."""
    first, last = layer.network.layers
    assert first.bias is not None
    assert last.bias is not None
    network = ReluNetwork.from_arrays([first.weight[:-1], last.weight[:, :-1]], [first.bias[:-1], last.bias])
    return replace(layer, network=network)
