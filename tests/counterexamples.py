"""Exact counterexamples of docs/theory.md sections 2 and 4: network, batch and, where there is one, a second.

All are for mse with reduction "mean" and one_hot labels (0 and 1 for a single logit).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from exan_verify.network import Batch, Labels, Loss, ReluNetwork
from exan_verify.verdict import Outcome

F = Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """``second``: another batch with the same gradient; ``outcome``: the exact truth."""

    network: ReluNetwork
    batch: Batch
    outcome: Outcome
    second: Batch | None = None


def _batch(network: ReluNetwork, x: object, y: object) -> Batch:
    return Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)


def published_insecure() -> Counterexample:
    """P1 fails: 3-9-1, M = 4, two or more ExANs per sample, no delta zero, and a second batch elsewhere.

    With g = (4, 1, 1, 2) / 2 and g' = (4, 3, 3, -2) / 2, Q^-1 = diag(1/g) B diag(g') for the 0/1 matrix
    B = [0111; 0011; 0101; 1001], and Q 1 = 1. A neuron exclusive to sample m has Delta' = w_j B_m diag(g'):
    its pattern in the second batch must be row m of B. The pre-activations z_j in R^4 below were searched
    with sign pattern e_m and Q z_j with sign pattern B_m; the output weights solve f = y + g / 2 and
    f' = y + g' / 2. X = [I; 0] makes W_1 and b_1 read z_j off; the second batch is Q X, the labels the same.
    """
    z = [
        (1, -1, -1, -6),
        (2, -1, -1, -6),
        (-1, 1, -6, -6),
        (-1, 1, -6, -4),
        (-1, -6, 1, -2),
        (-1, -6, 1, -3),
        (-2, -6, -6, 6),
        (-2, -6, -6, 2),
        (-1, 1, -6, -5),
    ]
    w2 = [F(-1, 2), F(1, 4), F(-7, 4), F(1), F(1, 4), F(-2), F(-1, 4), F(1, 2), F(-1)]
    network = ReluNetwork.from_arrays(
        [[[a - d, b - d, c - d] for a, b, c, d in z], [w2]], [[d for *_, d in z], [2]]
    )
    y = [1, 0, 0, 1]
    second = [
        [1, F(-1, 4), F(-1, 4)],
        [F(4, 3), F(-1, 3), 0],
        [F(4, 3), 0, F(-1, 3)],
        [2, F(-1, 2), F(-1, 2)],
    ]
    return Counterexample(
        network=network,
        batch=_batch(network, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], y),
        second=_batch(network, second, y),
        outcome=Outcome.AMBIGUOUS,
    )


def zero_pre_activation() -> Counterexample:
    """P2 fails at a zero pre-activation: no ExAN that differs, one logit, M = 2, and still UNIQUE."""
    network = ReluNetwork.from_arrays([[[1, 0], [-1, 1], [-1, -1]], [[1, 1, 1]]], [[0, 1, 1], [0]])
    return Counterexample(
        network=network, batch=_batch(network, [[1, 0], [2, 0]], [0, 0]), outcome=Outcome.UNIQUE
    )


def parallel_logits() -> Counterexample:
    """S5: x = 0, 1 against 1/4, 3/4; f = 2 x / 3 + c in one region, so f_2 - f_1 is parallel to y_2 - y_1."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[F(1, 3), F(-1, 3)]]], [[1, 2], [F(1, 5)]])
    return Counterexample(
        network=network,
        batch=_batch(network, [[0], [1]], [0, 1]),
        second=_batch(network, [[F(1, 4)], [F(3, 4)]], [0, 1]),
        outcome=Outcome.AMBIGUOUS,
    )


def antisymmetric_head() -> Counterexample:
    """S5: logits (f, -f), two samples of one region with different labels: f_2 - f_1 is always parallel."""
    network = ReluNetwork.from_arrays(
        [[[1, 0], [-1, 1], [0, 1]], [[1, -1, 2], [-1, 1, -2]]], [[5, 5, 3], [F(1, 7), F(-1, 7)]]
    )
    return Counterexample(
        network=network,
        batch=_batch(network, [[F(1, 3), F(1, 5)], [F(1, 2), F(1, 4)]], [0, 1]),
        second=_batch(network, [[F(33, 46), F(29, 92)], [F(8, 69), F(31, 230)]], [0, 1]),
        outcome=Outcome.AMBIGUOUS,
    )
