"""Exact examples for the statements of docs/theory.md sections 2 and 4: network, batch and, if any, a second.

All numbers are rational. ``outcome`` is what the kernel confirms with a certificate; where it is None the
note says who decides it instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Release
from exan_verify.core.verdict import Outcome
from exan_verify.theorems.statement import Example

F = Fraction


def _example(
    network: ReluNetwork,
    x: Sequence[Any],
    y: Sequence[Any],
    note: str,
    *,
    second: tuple[Sequence[Any], Sequence[Any]] | None = None,
    outcome: Outcome | None = None,
    loss: Loss = Loss.MSE,
    labels: Labels = Labels.ONE_HOT,
) -> Example:
    def batch(inputs: Sequence[Any], targets: Sequence[Any]) -> Batch:
        return Batch.of(inputs, targets, network=network, loss=loss, labels=labels)

    return Example(
        network=network,
        batch=batch(x, y),
        second=None if second is None else batch(*second),
        outcome=Outcome.AMBIGUOUS if second is not None else outcome,
        question=Question(loss=loss, labels=labels),
        note=note,
    )


def published_insecure() -> Example:
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
    return _example(
        network,
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]],
        y,
        "affinely independent inputs; the second batch has the same labels in the same order",
        second=(second, y),
    )


def published_insecure_smallest() -> Example:
    """P1 fails in the smallest sizes that it can for one logit: 2-8-1, M = 4 (docs/theory.md P.5).

    B = [0011; 0111; 1100; 1101], g' = (-4, 2, 2, -1) and g = B g' = (1, 3, -2, -3); the inputs satisfy
    diag(g) X = B diag(g') X', so that whatever a neuron exclusive to sample m contributed there is
    contributed by the samples of row m of B here. Half-planes with these patterns on both batches, and
    output weights with f = y + g, f' = y' + g', are below.
    """
    network = ReluNetwork.from_arrays(
        [
            [[0, 1], [-1, 1], [-3, 0], [-1, 0], [0, -1], [0, -1], [-3, -4], [-3, -4]],
            [[F(7, 6), F(-43, 9), -3, 10, 3, -2, -2, 2]],
        ],
        [[5, 0, 14, 5, -13, -12, -17, -18], [-1]],
    )
    return _example(
        network,
        [[6, 9], [4, -7], [15, -15], [8, -11]],
        [0, 0, 1, 0],
        "two ExANs per sample, no delta and no pre-activation zero; the second batch has the same labels, 0 "
        "three times and 1 once",
        second=([[9, -15], [3, -15], [0, 3], [-6, -3]], [1, 0, 0, 0]),
    )


def two_samples_at_zero() -> Example:
    """P1 fails for two samples when their ExANs stand at zero for the other sample: 1-4-2.

    On [0, 1] all neurons are active and f is affine; x = 0, 1 against 1/4, 3/4 is S5's parallel pair with
    f_2 - f_1 = (2/3) (y_2 - y_1). At x = 0 and 1 the other sample's neurons are exactly zero, thus inactive,
    and their missing deltas w_j . g are zero anyway.
    """
    network = ReluNetwork.from_arrays(
        [
            [[-1], [-2], [1], [2]],
            [[F(1, 2), F(1, 4), F(1, 6), F(1, 12)], [0, 0, F(1, 3), F(1, 6)]],
        ],
        [[1, 2, 0, 0], [F(-1, 3), F(1, 6)]],
    )
    return _example(
        network,
        [[0], [1]],
        [0, 1],
        "two ExANs per sample with non-zero deltas; each has pre-activation 0 at the other sample",
        second=([[F(1, 4)], [F(3, 4)]], [0, 1]),
    )


def vanishing_delta() -> Example:
    """P1 fails when deltas may vanish: one sample, fitted exactly, so its ExANs carry nothing. 1-2-1."""
    network = ReluNetwork.from_arrays([[[1], [1]], [[1, -1]]], [[0, -1], [0]])
    return _example(
        network,
        [[2]],
        [1],
        "two ExANs, loss vector 0: the sample moves along f = 1",
        second=([[3]], [1]),
    )


def vanishing_delta_beside_another() -> Example:
    """The same beside a sample that is not fitted: the gradient is not zero. 1-4-1."""
    network = ReluNetwork.from_arrays([[[1], [1], [-1], [-1]], [[1, -1, 1, 1]]], [[0, -1, 0, -1], [0]])
    return _example(
        network,
        [[2], [-2]],
        [1, 0],
        "two ExANs per sample; sample 0 has loss vector 0 and moves along f = 1",
        second=([[3], [-2]], [1, 0]),
    )


def no_biases() -> Example:
    """P1 fails without biases, for one sample: c (c f - y) = f - y has the second root c = 2. 1-2-1."""
    network = ReluNetwork.from_arrays([[[1], [1]], [[1, 1]]])
    return _example(
        network,
        [[F(1, 6)]],
        [1],
        "one sample, two ExANs, f = 1/3; at twice the input f = 2/3 and half the loss vector",
        second=([[F(1, 3)]], [1]),
    )


def zero_first_row() -> Example:
    """Algorithm B.1 divides by the first class's row of dW_L: it is zero where the first logit is fitted."""
    network = ReluNetwork.from_arrays([[[1], [1]], [[1, 1], [1, 0]]], [[0, 1], [-2, 0]])
    return _example(
        network,
        [[1]],
        [[1, 0]],
        "one sample, two ExANs; f = (1, 1), y = (1, 0): the first row of dW_2 is zero, its columns are not",
        outcome=Outcome.UNIQUE,
    )


def parallel_columns() -> Example:
    """E2's converse fails: two samples with equal loss vectors, so all columns of dW_L are parallel."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 1]]], [[0, 0], [1]])
    return _example(
        network,
        [[1], [-1]],
        [0, 0],
        "neuron 0 is exclusive to sample 0 and neuron 1 to sample 1; dW_2 = 2 (1, 1)",
        outcome=Outcome.UNIQUE,
    )


def zero_pre_activation() -> Example:
    """P2 fails at zero pre-activations: no ExAN, one logit, M = 2, d = 2, and still UNIQUE. 2-2-1.

    The shear of S2 would move the samples along (0, 1) in opposite directions. Neuron 2 stands at zero for
    both, and the one that goes up would activate it.
    """
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 1]]], [[0, 0], [0]])
    return _example(
        network,
        [[1, 0], [2, 0]],
        [0, 0],
        "UNIQUE, certified by cubes; and by z3 (every activation pattern unsatisfiable)",
        outcome=Outcome.UNIQUE,
    )


def zero_pre_activation_three_neurons() -> Example:
    """The same with outgoing weights that are all equal: 2-3-1."""
    network = ReluNetwork.from_arrays([[[1, 0], [-1, 1], [-1, -1]], [[1, 1, 1]]], [[0, 1, 1], [0]])
    return _example(
        network,
        [[1, 0], [2, 0]],
        [0, 0],
        "UNIQUE, certified by cubes; and by z3 (every activation pattern unsatisfiable)",
    )


def dead_at_a_point() -> Example:
    """P2 fails for one dead sample: 1-2-1, both neurons exactly zero, and zero only there."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 1]]], [[0, 0], [1]])
    return _example(
        network,
        [[0]],
        [0],
        "UNIQUE, certified by cubes, and by z3; elsewhere a neuron is active and dW_1 is not zero",
    )


def parallel_logits() -> Example:
    """S5: x = 0, 1 against 1/4, 3/4; f = 2 (x + 1) / 3 in one region: f_2 - f_1 is parallel to y_2 - y_1."""
    network = ReluNetwork.from_arrays([[[1]], [[F(2, 3)]]], [[1], [0]])
    return _example(
        network,
        [[0], [1]],
        [0, 1],
        "y_2 - y_1 = 3/2 (f_2 - f_1), so a = 1/4 solves a (2 (1 - a) e - (y_2 - y_1)) = 0",
        second=([[F(1, 4)], [F(3, 4)]], [0, 1]),
    )


def antisymmetric_head() -> Example:
    """S5: logits (f, -f), two samples of one region with different labels: f_2 - f_1 is always parallel."""
    network = ReluNetwork.from_arrays(
        [[[1, 0], [-1, 1], [0, 1]], [[1, -1, 2], [-1, 1, -2]]], [[5, 5, 3], [F(1, 7), F(-1, 7)]]
    )
    return _example(
        network,
        [[F(1, 3), F(1, 5)], [F(1, 2), F(1, 4)]],
        [0, 1],
        "two samples of one region; the head (f, -f) makes the exception the rule, for different labels",
        second=([[F(33, 46), F(29, 92)], [F(8, 69), F(31, 230)]], [0, 1]),
    )


def one_shared_neuron(labels: Labels = Labels.ONE_HOT) -> Example:
    """P2 fails with a single neuron, active for both of two samples: 1-1-2."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [2]]], [[1], [0, 0]])
    return _example(
        network,
        [[0], [1]],
        [[1, 0], [0, 1]],
        "no ExAN in any layer, no pre-activation zero; f_2 - f_1 is not parallel to y_2 - y_1",
        outcome=Outcome.UNIQUE,
        labels=labels,
    )


def one_logit_shared_neuron(labels: Labels = Labels.ONE_HOT) -> Example:
    """P2 fails with a single neuron and a single logit: 1-1-1, the smallest of all."""
    network = ReluNetwork.from_arrays([[[1]], [[1]]], [[1], [0]])
    return _example(
        network,
        [[0], [1]],
        [0, 0],
        "UNIQUE, certified by cubes; and by z3 (every activation pattern unsatisfiable)",
        labels=labels,
    )


def sample_beside_a_dead_one() -> Example:
    """P1 fails for a single sample: 1-2-1, x = 2 with two live ExANs beside a dead, fitted one.

    On x > 0 f = x, and g = 2 (f - y): sums of g and of g x are 4 and 8 for x = 2, y = 0 as for x = 1/2, y = 0
    and x = 5/2, y = 1.
    """
    network = ReluNetwork.from_arrays([[[1], [1]], [[F(1, 2), F(1, 2)]]], [[0, 0], [0]])
    return _example(
        network,
        [[2], [-1]],
        [0, 0],
        "sample 0 has two exclusive neurons; sample 1 is dead, and its loss vector is 0",
        second=([[F(1, 2)], [F(5, 2)]], [0, 1]),
    )


def shared_by_an_exclusive_one() -> Example:
    """P2 fails for a single sample: 1-2-1, x = 1 shares its only neuron with x = 3, which has another one."""
    network = ReluNetwork.from_arrays([[[1], [1]], [[1, 1]]], [[0, -2], [0]])
    return _example(
        network,
        [[3], [1]],
        [0, 0],
        "neuron 1 is exclusive to sample 0, and neuron 0 is shared: sample 1 has no exclusive neuron",
        outcome=Outcome.UNIQUE,
    )


def pairs_of_neurons() -> Example:
    """P2 fails on an open set of weights: 2-9-2, three neurons for each pair of samples, rank R = U - 3."""
    z = (
        *((-1, 1, 1), (-2, 2, 2), (-1, 1, 2), (2, -1, 2), (1, -2, 1), (2, -1, 2)),
        *((2, 2, -2), (1, 1, -2), (1, 1, -1)),
    )
    out = [[-2, 0, 1, -1, -2, 1, 0, 2, -2], [-1, 1, 1, 0, 1, -2, 1, 1, 0]]
    first = [[a - c, b - c] for a, b, c in z]
    return _example(
        ReluNetwork.from_arrays([first, out], [[c for _, _, c in z], [0, 1]]),
        [[1, 0], [0, 1], [0, 0]],
        [0, 1, 1],
        "no exclusive neuron; rank R = 12 - 3 at layer 1, so that the batch is UNIQUE",
        outcome=Outcome.UNIQUE,
    )


def ratio_groups() -> Example:
    """Algorithm B.1's groups mislead: 1-2-2, two samples, two classes of columns, one of them a mixture."""
    network = ReluNetwork.from_arrays([[[1], [2]], [[1, 0], [0, 1]]], [[0, -3], [0, 0]])
    return _example(
        network,
        [[1], [2]],
        [1, 0],
        "neuron 0 is shared and neuron 1 exclusive to sample 1: two columns that are not parallel, and the "
        "first is no multiple of a loss vector",
        outcome=Outcome.UNIQUE,
    )


def shared_three_classes() -> Example:
    """P2 fails for two samples of one region, K = 3, mse, one-hot labels: 1-1-3."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [2], [-1]]], [[1], [0, 0, 0]])
    return _example(
        network,
        [[0], [1]],
        [0, 1],
        "f_2 - f_1 = (1, 2, -1) is not parallel to y_2 - y_1",
        outcome=Outcome.UNIQUE,
    )


def shared_softmax() -> Example:
    """P2 fails under cross_entropy for two samples of one region: 1-2-3."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 0], [0, 1], [0, 0]]], [[0, 2], [0, 0, 0]])
    return _example(
        network,
        [[F(1, 2)], [1]],
        [0, 1],
        "both neurons are active for both samples",
        outcome=Outcome.UNIQUE,
        loss=Loss.CROSS_ENTROPY,
    )


def pairs_of_three(labels: Labels = Labels.REAL) -> Example:
    """P2 fails even when the targets may be any real numbers: 2-3-1, every neuron misses one sample of 3."""
    network = ReluNetwork.from_arrays([[[-6, 0], [6, 6], [-2, -6]], [[-2, -1, 1]]], [[4, -3, 3], [0]])
    return _example(
        network,
        [[1, 0], [0, 1], [0, 0]],
        [0, 1, 0],
        "each neuron is active for two of the three samples; UNIQUE among all real targets",
        outcome=Outcome.UNIQUE,
        labels=labels,
    )


def exclusive_below() -> Example:
    """Two samples without an ExAN in the last hidden layer, real targets: 1-3-1-1."""
    network = ReluNetwork.from_arrays([[[-2], [2], [0]], [[1, 1, 1]], [[1]]], [[1, -1, 1], [0], [0]])
    return _example(
        network,
        [[0], [1]],
        [0, 1],
        "the only neuron of layer 2 is active for both; layer 1 has an ExAN for each, and one shared",
        outcome=Outcome.UNIQUE,
        labels=Labels.REAL,
    )


def exclusive_above() -> Example:
    """Two samples without an ExAN in the first hidden layer, real targets: 1-2-3-1."""
    network = ReluNetwork.from_arrays(
        [[[-2], [-1]], [[2, 3], [1, 2], [2, -1]], [[3, -3, 3]]], [[0, 3], [-2, 2, -1], [-3]]
    )
    return _example(
        network,
        [[-1], [-2]],
        [0, 1],
        "both neurons of layer 1 are active for both; the second sample has an ExAN in layer 2",
        outcome=Outcome.UNIQUE,
        labels=Labels.REAL,
    )


def six_shared_neurons() -> Example:
    """No ExAN, and yet dW_L, db_L and the zeros of the features determine them: two neurons for each pair."""
    z = [(-1, 1, 2), (-1, 2, 1), (1, -1, 2), (2, -1, 1), (1, 2, -1), (2, 1, -1)]
    network = ReluNetwork.from_arrays(
        [[[a - c, b - c] for a, b, c in z], [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]]],
        [[c for *_, c in z], [0, 0, 0]],
    )
    return _example(
        network,
        [[1, 0], [0, 1], [0, 0]],
        [0, 1, 2],
        "each neuron is active for two of three samples; the batch is UNIQUE as well",
        outcome=Outcome.UNIQUE,
    )


def single_point() -> Example:
    """1-2-1: the sample x = 0 is dead, and no other input is; no second batch exists."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 2]]], [[0, 0], [3]])
    batch = Batch.of([[0]], [[0]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Example(
        network=network,
        batch=batch,
        question=Question(loss=Loss.MSE),
        note="Both pre-activations, x and -x, are at most zero at x = 0 only. No engine certifies it: the "
        "rank that lifting needs is missing. z3 and cvc5 say that there is no second batch.",
    )


def one_input() -> Example:
    """1-1-2 with two samples: n_1 = 1 < M = 2, rank A_1 = 1, and UNIQUE."""
    return replace(
        one_shared_neuron(),
        note="The output layer's system has no other solution (S5), and W_1 is injective on the inputs: h > "
        "0 gives x where Delta_1 has no full column rank.",
    )


def regrouped(pair: tuple[int, int] = (1, 2)) -> Example:
    """Two samples of the pool 1, 2, -1, -2 in a network with a neuron for x > 0 and one for x < 0: 1-2-2.

    In the pairs (1, -1) and (2, -2) every sample has an ExAN; in (1, 2) and (-1, -2) none has.
    """
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 2], [2, 1]]], [[0, 0], [0, 0]])
    return _example(
        network,
        [[x] for x in pair],
        [0, 1],
        "the pool 1, 2, -1, -2 in pairs of one sign, which share their only active neuron",
        outcome=Outcome.UNIQUE,
    )


STEP = F(1, 1000)
"""How far the perturbed sample is from where the second neuron wakes, on either side."""


def perturbed(side: int = 1) -> Example:
    """A batch that was moved by 1/500 until no neuron is exclusive: 1-2-2.

    Before (``side`` -1) the second neuron, active for x > 1/2, is exclusive to the sample at 1.
    """
    network = ReluNetwork.from_arrays([[[1], [1]], [[1, 1], [2, -1]]], [[1, F(-1, 2)], [0, 0]])
    return _example(
        network,
        [[F(1, 2) + side * STEP], [1]],
        [0, 1],
        "its first sample was moved by 1/500, so what is determined is the true one to 1/500",
        outcome=Outcome.UNIQUE,
    )


def masked() -> Example:
    """The rows of every exclusive neuron held back, and the rest UNIQUE: 2-9-2, by lifting of degree three.

    The inputs are 0, e_1 and e_2, so that row j of ``z`` is what neuron j reads of the three samples. Two
    neurons are shared by each pair of samples, and the last three are exclusive to one sample each.
    """
    z = [
        *([3, 2, -1], [1, 2, -2], [3, -3, 1], [2, -3, 2], [-2, 3, 3], [-3, 1, 3]),
        *([3, -3, -2], [-3, 3, -1], [-3, -2, 3]),
    ]
    sent = [sum(v > 0 for v in row) > 1 for row in z]
    head = [[2, 2, 3, 1, -1, 1, 2, 2, 3], [3, 2, -2, 2, 2, -1, 3, -1, 3]]
    network = ReluNetwork.from_arrays(
        [[[row[1] - row[0], row[2] - row[0]] for row in z], head], [[row[0] for row in z], [0, 0]]
    )
    weight, bias = [name for name, _ in network.parameters()][:2]
    example = _example(
        network,
        [[0, 0], [1, 0], [0, 1]],
        [0, 1, 0],
        "every sample has an ExAN, and no row of an exclusive neuron is sent of the first layer",
        outcome=Outcome.UNIQUE,
    )
    release = Release(rows={weight: sent, bias: sent})
    return replace(example, question=replace(example.question, release=release))
