"""P1 under softmax with two classes: an exact second batch, in rational numbers (docs/theory.md P.5).

There g = s (1, -1), and a second batch needs g = B g' with an invertible 0/1 matrix B, as for one logit. The
numbers s = p_0 - [y = 0] are transcendental for rational logits, but samples with equal margins have
s = +-gamma for one gamma, and then B only has to mix signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact import linalg
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import solve
from exan_verify.exact.softmax import to_ball
from exan_verify.exclusivity import exclusivity
from exan_verify.theorems.replay import replay
from exan_verify.theorems.statement import Example, Progress, Result
from exan_verify.theorems.support.counterexamples import published_insecure
from exan_verify.theorems.support.example_check import all_met
from exan_verify.theorems.support.exclusive_layers import corners
from exan_verify.theorems.support.laboratory import exact

F = Fraction


def published_two_classes() -> Example:
    """P1 fails under softmax with K = 2: 3-12-2, M = 6, two ExANs per sample.

    s = (-, -, -, +, +, +) gamma and s' = -s, gamma = 1 / (e + 1). With the rows of
    B = [001011; 001101; 001110; 011001; 101001; 110001] s = B s', and diag(s) X = B diag(s') X', so that
    each x_a is x'_k + x'_l - x'_m for the three samples of row a. Half-spaces with these patterns on both
    batches and output weights with f_0 - f_1 = +-1 are below.
    """
    network = ReluNetwork.from_arrays(
        [
            [
                *([3, 8, 8], [-1, -1, 6], [-2, -5, 8], [-2, -4, 7], [-3, -4, 8], [-3, -4, 8]),
                *([3, -3, 1], [7, -3, 6], [8, 7, 1], [7, 5, 3], [7, 2, -3], [6, 2, -3]),
            ],
            [
                [
                    *(F(1, 18), -1, F(-37, 12), F(49, 12), F(-43, 9), F(23, 6)),
                    *(F(4, 3), F(-5, 3), F(-9, 4), F(7, 2), F(-5, 2), F(1, 2)),
                ],
                [0] * 12,
            ],
        ],
        [[-18, 4, 15, 13, 11, 12, -5, -8, -26, -16, -34, -30], [0, 0]],
    )
    first = [[-6, 9, 0], [-1, 0, -2], [-12, 5, -3], [4, -3, -3], [3, 1, -3], [2, 0, -7]]
    second = [[3, 3, -3], [4, -1, -3], [5, 0, 1], [-1, -2, -2], [-6, 7, 0], [5, 2, 1]]
    return _example(network, first, second)


def affinely_independent() -> Example:
    """The same B with affinely independent inputs, so that rank [dW_1 | db_1] = M: 5-12-2.

    Rows of ``z`` are pre-activations in R^6 with sign pattern e_a, whose images Q z have the pattern of row
    a of B; Q^-1 = diag(1/s) B diag(s'). X = [I; 0] makes W_1 and b_1 read z off, and the second batch is Q X.
    """
    z = [
        *((2, -2, -2, -1, -1, -4), (3, -3, -1, -1, -2, -4), (-3, 1, -3, -1, -2, -4), (-1, 2, -2, -2, -3, -5)),
        *((-3, -2, 2, -1, -1, -7), (-3, -3, 1, -1, -1, -7), (-1, -2, -4, 1, -3, -3), (-1, -1, -4, 1, -1, -2)),
        *((-2, -2, -5, -2, 1, -2), (-1, -1, -4, -1, 2, -1), (-2, -1, -6, -1, -1, 1), (-1, -2, -8, -1, -1, 2)),
    ]
    network = ReluNetwork.from_arrays(
        [
            [[v - top for v in row] for *row, top in z],
            [[-2, 2, -2, 2, 2, -2, -2, 2, -2, 1, -2, 1], [0] * 12],
        ],
        [[row[-1] for row in z], [-1, 0]],
    )
    inverse = exact(
        [
            *([0, 0, -1, 0, 1, 1], [0, 0, -1, 1, 0, 1], [0, 0, -1, 1, 1, 0]),
            *([0, 1, 1, 0, 0, -1], [1, 0, 1, 0, 0, -1], [1, 1, 0, 0, 0, -1]),
        ]
    )
    first = corners(6)
    second = solve(inverse, first)
    assert second is not None
    return _example(network, first, second)


def _example(network: ReluNetwork, first: Any, second: Any) -> Example:
    loss = Loss.CROSS_ENTROPY
    return Example(
        network=network,
        batch=Batch.of(first, [0, 0, 0, 1, 1, 1], network=network, loss=loss, labels=Labels.ONE_HOT),
        second=Batch.of(second, [1, 1, 1, 0, 0, 0], network=network, loss=loss, labels=Labels.ONE_HOT),
        question=Question(loss=loss),
        outcome=Outcome.AMBIGUOUS,
        note="every sample of both batches is classified correctly with margin 1; the second batch has the "
        "same labels up to order",
    )


@dataclass(frozen=True, kw_only=True)
class FourSamples:
    """3-n-2 with output weights that are real: two batches of four samples, up to one factor of all s.

    ``network`` has the first layer of the counterexample for one logit and neurons beside its own;
    ``first`` and ``second`` (4, 3) are inputs, ``own`` and ``other`` their s = p_0 - [y = 0] up to a factor.
    """

    network: ReluNetwork
    first: Array
    second: Array
    own: Array
    other: Array


def four_samples() -> FourSamples:
    """From the counterexample for one logit: g = B g' there, and nothing but B, signs and g matters here."""
    example = published_insecure()
    second, layer = example.second, example.network.layers[0]
    assert second is not None
    assert layer.bias is not None
    values = [forward(example.network, b).logits[0] - exact(b.labels)[:, 0] for b in (example.batch, second)]
    rows = np.concatenate([exact(layer.weight), exact(layer.bias).reshape(-1, 1)], axis=1)
    beside = [row + step / 64 for row in rows for step in linalg.identity(4)]
    weights = np.array([*rows, *beside], dtype=object)
    network = ReluNetwork.from_arrays([weights[:, :-1], [[0] * len(weights)] * 2], [weights[:, -1], [0, 0]])
    inputs = exact(example.batch.inputs), exact(second.inputs)
    return FourSamples(network=network, first=inputs[0], second=inputs[1], own=values[0], other=values[1])


def balance(four: FourSamples, factor: Fraction) -> Any:
    """A ball around ``sum s m - sum s' m'`` for ``s = factor own``, m the margin f_0 - f_1 that has this s.

    |s| = 1 / (1 + e^u), and m = u for s < 0, -u for s > 0.
    """
    with flint.ctx.workprec(256):
        totals = []
        for values in (four.own, four.other):
            sizes = [to_ball(abs(factor * v)) for v in values]
            totals.append(sum((a * (a / (1 - a)).log() for a in sizes), flint.arb(0)))
        return totals[0] - totals[1]


def four_break_two_classes(progress: Progress, _seed: int) -> Result:
    """Whether real output weights exist under which the four samples have a second batch (P.5)."""
    progress("four samples, K = 2", 0, 1)
    four = four_samples()
    ones, seen, hidden, patterns, zeros = exact(np.ones((1, 4), dtype=int)), [], [], [], False
    for inputs, values in ((four.first, four.own), (four.second, four.other)):
        batch = Batch.of(
            inputs, [0] * 4, network=four.network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT
        )
        passed = forward(four.network, batch)
        patterns.append(passed.pattern(1))
        hidden.append(passed.hidden[-1].fractions())
        extended = np.concatenate([exact(inputs), ones.T], axis=1)
        rows = [(patterns[-1] * values) @ extended, (hidden[-1] @ values).reshape(-1, 1)]
        seen.append(np.concatenate([*rows, np.full((len(rows[0]), 1), values.sum(), dtype=object)], axis=1))
        zeros |= any(bool(z.any()) for z in passed.zeros)
    system = np.concatenate([np.concatenate([h, ones]).T for h in hidden])
    alone = patterns[0] & (patterns[0].sum(axis=1, keepdims=True) == 1)
    least, most = 1 / F(64), 1 / max(abs(v) for v in (*four.own, *four.other)) - F(1, 1024)
    ends = [balance(four, factor) for factor in (least, most)]
    found = {
        "two exclusive neurons per sample, none at zero": (
            bool((alone.sum(axis=0) >= 2).all()) and not zeros
        ),
        "all sums over neurons, their inputs and features are equal": bool(np.all(seen[0] == seen[1])),
        "the margins are those of output weights where their balance is zero": (
            linalg.rank(system) == 7 and not (np.concatenate([four.own, -four.other]) @ system).any()
        ),
        "some of these weights are all other than zero": all(
            linalg.rank(np.concatenate([system, unit.reshape(1, -1)])) == 8
            for unit in linalg.identity(system.shape[1])[:-1]
        ),
        "the balance changes its sign": bool(ends[0] > 0 > ends[1]),
    }
    return all_met(found)


def breaks_two_classes(example: Example) -> Result:
    """Whether ``example`` meets P1's condition, K = 2, softmax, and the kernel accepts its second batch.

    Deltas: w_j . g = (w_0j - w_1j) (p_0 - [y = 0]) is zero only where the two outgoing weights are equal.
    """
    second, network = example.second, example.relu
    assert second is not None
    outgoing = network.layers[-1].weight
    found = {
        "two classes": example.question.loss is Loss.CROSS_ENTROPY and network.classes == 2,
        "biases": network.has_bias,
        "published condition": exclusivity(network, example.batch, loss=example.question.loss).published,
        "live deltas": all(
            to_fraction(a) != to_fraction(b) for a, b in zip(outgoing[0], outgoing[-1], strict=True)
        ),
        "no zero pre-activation": not any(
            bool(z.any()) for b in (example.batch, second) for z in forward(network, b).zeros
        ),
        "the kernel accepts another batch": replay(example).outcome is Outcome.AMBIGUOUS,
    }
    return all_met(found)
