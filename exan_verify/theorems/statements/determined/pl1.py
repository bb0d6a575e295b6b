"""PL1: lifting where inactive neurons have a slope of their own (LeakyReLU, PReLU)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations_with_replacement, product
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import multiply, nullspace, rank
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Example, Result, Standing, Statement
from exan_verify.theorems.statements.determined.c1 import layer_two_passes
from exan_verify.theorems.support.example_check import all_met, by_example
from exan_verify.theorems.support.laboratory import (
    Pair,
    deltas,
    drawn,
    exact,
    same_gradient,
    same_samples,
)
from exan_verify.theorems.support.shorthands import (
    REFUTES,
    by_instances,
    coq,
    kernel,
    measured,
    refuted,
    written,
)

SLOPES = (Fraction(-2), Fraction(-1, 2), Fraction(1, 100), Fraction(1, 4), Fraction(3))
"""Below zero; above it is 1. None is 1, and none is -1 for a whole layer."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Neurons with outgoing weights (n, K') and slopes (n,), samples with next deltas (K', M), active or not
    (n, M). ``told``: the samples that are claimed to be all candidates.
    """

    weights: Array
    slopes: tuple[Fraction, ...]
    following: Array
    active: Array
    told: tuple[int, ...]

    @property
    def delta(self) -> Array:
        """Delta (n, M): the derivative times w_j . u_m."""
        back = multiply(self.weights, self.following)
        found: Array = np.where(self.active, back, back * np.array(self.slopes, dtype=object)[:, None])
        return found


def layers(seed: int) -> Iterator[Layer]:
    """Layers that reach the rank of PL1."""
    return drawn("PL1", seed, _draw)


def _draw(rng: Random) -> Layer | None:
    samples, extra = rng.choice(((2, 1), (2, 2), (3, 1)))
    unknowns = len(_monomials(samples, extra))
    neurons = unknowns - samples + rng.choice((0, 0, 1))
    layer = Layer(
        weights=exact([[rng.randint(-4, 4) for _ in range(extra)] for _ in range(neurons)]),
        slopes=tuple(rng.choice(SLOPES) for _ in range(neurons)),
        following=exact([[rng.randint(-4, 4) for _ in range(samples)] for _ in range(extra)]),
        active=np.array([[rng.random() < 0.5 for _ in range(samples)] for _ in range(neurons)]),
        told=tuple(range(samples)),
    )
    full = rank(layer.delta) == samples and rank(_lifted(layer)) == unknowns - samples
    return layer if full else None


def _monomials(samples: int, extra: int) -> list[tuple[int, int]]:
    return list(combinations_with_replacement(range(samples + extra), 2))


def _lifted(layer: Layer) -> Array:
    """R over Q: (Delta_j . q - w_j . u)(Delta_j . q - s_j w_j . u), multiplied out monomial by monomial."""
    neurons, samples = layer.delta.shape
    monomials = _monomials(samples, layer.weights.shape[1])
    rows = np.full((neurons, len(monomials)), Fraction(0), dtype=object)
    for j, slope in enumerate(layer.slopes):
        one = [*layer.delta[j], *(-layer.weights[j])]
        other = [*layer.delta[j], *(-slope * layer.weights[j])]
        for k, (a, b) in enumerate(monomials):
            rows[j, k] = one[a] * other[b] + (one[b] * other[a] if a != b else 0)
    return rows


def only_the_samples(layer: Layer) -> bool:
    """Over all 2^n states every (q, u) with q != 0 is a multiple of (e_m, u_m) for a sample that is told."""
    delta, samples = layer.delta, layer.delta.shape[1]
    for state in product((True, False), repeat=len(layer.slopes)):
        factors = np.array([1 if on else s for on, s in zip(state, layer.slopes, strict=True)], dtype=object)
        basis = nullspace(np.concatenate([delta, -layer.weights * factors[:, None]], axis=1))
        q, u = basis[:samples], basis[samples:]
        if not q.any():
            continue
        if basis.shape[1] > 1:
            return False
        moved = np.flatnonzero(q[:, 0])
        if len(moved) > 1 or int(moved[0]) not in layer.told:
            return False
        if (u[:, 0] != q[moved[0], 0] * layer.following[:, moved[0]]).any():
            return False
    return True


def one_sample_less(layer: Layer) -> Layer:
    """The same with a claim that leaves one of the samples out, which is a candidate."""
    return replace(layer, told=layer.told[1:])


def folded() -> Example:
    """2-2-3-1, slope -1/2 below the first layer: 1 and -2 have one value there, and so have 2 and -4."""
    half = Fraction(1, 2)
    network = ReluNetwork.from_arrays(
        [[[1, 0], [0, 1]], [[1, 0], [1, 2], [-2, -2]], [[1, 1, 1]]], [[0, 0], [0, -7 * half, 5], [-2]]
    ).sloped([[-half, -half], None])
    first, second = (
        Batch.of(x, [[1], [0]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
        for x in ([[1, 1], [-4, 1]], [[-2, 1], [2, 1]])
    )
    return Example(
        network=network,
        batch=first,
        second=second,
        question=Question(loss=Loss.MSE),
        outcome=Outcome.AMBIGUOUS,
        shown=folds_below_layer_two,
        note="Layer 2 has ReLU and C1's rank, so that H_1 = [[1, 1], [2, 1]], Delta_2 and the loss vectors "
        "are determined, and Delta_1 has rank 2; at neuron 1 the samples exchange which of them is active.",
    )


def folds_below_layer_two(example: Example) -> Result:
    """What :func:`folded` shows, over Q."""
    network, first, second = example.network, example.batch, example.second
    assert second is not None
    passed = [forward(network, batch) for batch in (first, second)]
    values = [p.features(2).fractions() for p in passed]
    active = [p.pattern(1) for p in passed]
    pair = Pair(network=network, first=first, second=second)
    return all_met(
        {
            "C1's ranks at layer 2": layer_two_passes(network, first),
            "rank Delta_1 = M": rank(deltas(network, first)[0]) == first.size,
            "one H_1, other patterns": (values[0] == values[1]).all() and (active[0] != active[1]).any(),
            "one gradient, other samples": same_gradient(pair) and not same_samples(pair),
        }
    )


def passed_on() -> Example:
    """1-4-1, slope 1/2, two samples: every neuron passes both on."""
    network = ReluNetwork.from_arrays([[[2], [-1], [-2], [-1]], [[2, 2, -1, -1]]], [[-1, 2, 0, -3], [0]])
    sloped = network.sloped([[Fraction(1, 2)] * 4])
    return Example(
        network=sloped,
        batch=Batch.of([[1], [-1]], [[0], [1]], network=sloped, loss=Loss.MSE, labels=Labels.ONE_HOT),
        question=Question(loss=Loss.MSE),
        outcome=Outcome.UNIQUE,
        shown=nothing_is_exclusive,
        note="The derivative is 1 or 1/2 at every neuron for both samples, so that none is exclusive to one "
        "of them; R has rank 4 of U = 6, and PL1 determines both.",
    )


def nothing_is_exclusive(example: Example) -> Result:
    """No neuron has the derivative 0 for a sample, and the kernel says UNIQUE."""
    live = forward(example.network, example.batch).live(1)
    unique = kernel_outcome(example.network, example.batch, example.question) is Outcome.UNIQUE
    return all_met({"every neuron passes every sample on": bool(live.all()), "kernel says UNIQUE": unique})


STATEMENTS = (
    Statement(
        name="two-slopes",
        group="PL1",
        title="Lifting where inactive neurons have a slope of their own: LeakyReLU, PReLU",
        source="docs/theory.md, PL1",
        reading="With slope 1 above zero and s_j below, every neuron satisfies (Delta_j q - w_j u)"
        "(Delta_j q - s_j w_j u) = 0, a linear equation in the products of (q, u) by (q, u). If these n "
        "equations have rank U - M, one layer in polynomial time determines its inputs, deltas and next "
        "deltas, as C1 does for ReLU. No neuron is exclusive in such a network: every neuron passes every "
        "sample on.",
        quantifiers="all depths, widths, layers, M, K', loss vectors, slopes other than 1 for each neuron",
        hypotheses=(
            "the network has biases and rank [dW_i | db_i] = M at a hidden layer i",
            "u is written in K' unknowns that cover what any batch can have there",
            "rank R = U - M, with U = M(M+1)/2 + M K' + K'(K'+1)/2",
        ),
        conclusion="H_{i-1}, Delta_i and Delta_{i+1} are the same in every batch, up to order.",
        latex=r"(\Delta_j q-w_j u)(\Delta_j q-s_j w_j u)=0,\quad \operatorname{rank}R=U-M\ "
        r"\Longrightarrow\ Q=\Pi",
        standing=Standing.PROVED,
        grounds=(
            coq("slopes.v: PL1_batch_first", "groups of one, at the first hidden layer"),
            written("PL1", "groups of any sizes, going down, and what a negative slope takes away"),
            measured("this check", "all states of layers with slopes from -2 to 3"),
        ),
        checks=(
            by_instances(
                "all-states",
                "solves Delta_j q = w_j u or Delta_j q = s_j w_j u over Q for all 2^n states of layers that "
                "reach the rank: every solution with q != 0 must be a multiple of a sample's",
                instances=layers,
                conclusion=only_the_samples,
                spoiled=one_sample_less,
                count=12,
                said="layers with two slopes have their samples for candidates alone",
            ),
        ),
        remark="Where s is negative, values of that layer do not show its pattern: from above it, nothing "
        "below is determined (two-slopes-downward).",
    ),
    refuted(
        name="two-slopes-downward",
        group="PL1",
        title="Going down through a layer with negative slopes",
        source="docs/theory.md 3.7, PL1 (downward)",
        reading="A layer that is determined determines everything below it where the deltas have full column "
        "rank (3.4), whatever the slopes of the activations below are.",
        hypotheses=(
            "rank [dW_i | db_i] = M and rank R = U - M at a hidden layer i >= 2",
            "rank Delta_k = M for every k < i",
            "slopes of any sign below layer i",
        ),
        conclusion="The batch is UNIQUE.",
        latex=r"\operatorname{rank}A_i=M,\ \operatorname{rank}R=U-M,\ \operatorname{rank}\Delta_k=M\ (k<i),\ "
        r"s_j<0\ \not\Longrightarrow\ \text{UNIQUE}",
        grounds=(
            kernel(
                "two-slopes-downward: its example",
                "a 2-2-3-1 network, two samples, mse, labels 1 and 0: a second batch has the same gradient",
                REFUTES,
            ),
            written("3.7", "z = 1 and z = 1/s have one value and two derivatives", REFUTES),
        ),
        checks=(
            by_example(
                "2-2-3-1",
                "computes over Q that C1 holds at layer 2, that Delta_1 has rank M, and that a batch with "
                "other patterns at layer 1 has its values and the whole gradient",
                example=folded,
                judge=folds_below_layer_two,
            ),
        ),
        example=folded,
        smallest="One sample's derivatives are told by db_1. For two, rank Delta_1 = 2 takes two neurons in "
        "layer 1, and K' = 1 takes three in layer 2; one input instead of two was not excluded.",
        remark="With slopes of at least 0 the values tell the pattern, and the conclusion holds (two-slopes, "
        "downward); with positive ones they tell every pre-activation.",
    ),
    refuted(
        name="leaky-no-exan-ambiguous",
        group="PL1",
        title="Without an exclusive neuron a batch is not unique: LeakyReLU",
        source="docs/theory.md 3.7, PL1 (no neuron is exclusive)",
        published="Without exclusively activated neurons a batch lies within the secure boundary.",
        reading="Where every neuron passes every sample on, as with LeakyReLU, no neuron is exclusive, and "
        "another batch has the same gradient.",
        hypotheses=("the derivative of every neuron is other than 0 for every sample",),
        conclusion="The batch is not UNIQUE.",
        latex=r"\varphi'(z_{jm})\neq 0\ \forall j,m\ \Longrightarrow\ \exists B'\neq B:\ "
        r"\nabla(B')=\nabla(B)",
        grounds=(
            kernel(
                "leaky-no-exan-ambiguous: its example",
                "1-4-1 with slope 1/2, M = 2, mse: UNIQUE by PL1",
                REFUTES,
            ),
            measured(
                "exan bench certify",
                "784-512-10 with slope 0.01, 22 digits: UNIQUE, and all of them rebuilt",
            ),
        ),
        checks=(
            by_example(
                "1-4-1",
                "computes the derivatives of all neurons for both samples, and certifies the batch",
                example=passed_on,
                judge=nothing_is_exclusive,
            ),
        ),
        example=passed_on,
        smallest="A sample alone has no other to be exclusive against. With two samples and one logit PL1 "
        "needs four neurons.",
        remark="For ReLU the same reading is p2-any-layer.",
    ),
)
