"""Second batches of smaller numbers: on a line, one number at a time, inside the domain, and replayed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question
from exan_verify.exact.backprop import gradient
from exan_verify.theorems.claims.searching.simpler import weight, with_simpler_second
from exan_verify.theorems.replay import replay
from exan_verify.theorems.statement import Example

LARGE = Fraction(-261, 8)


def example(weights, biases, x, second, *, loss=Loss.MSE, y=(1,), domain=None):
    """A batch of one-hot or class labels, and a second one of the same labels."""
    network = ReluNetwork.from_arrays(weights, biases)
    batches = [
        Batch.of(rows, list(y), network=network, loss=loss, labels=Labels.ONE_HOT) for rows in (x, second)
    ]
    question = Question(loss=loss, domain=domain)
    return Example(network=network, batch=batches[0], question=question, note="", second=batches[1])


def made_smaller(given):
    found, replayed = with_simpler_second(given, replay(given))
    assert replayed.confirmed
    assert replayed.outcome is not None
    assert sum(weight(Fraction(v))[1] for v in found.second.inputs.reshape(-1)) <= sum(
        weight(Fraction(v))[1] for v in given.second.inputs.reshape(-1)
    )
    loss, reduction = given.question.loss, given.question.reduction
    if loss.rational:
        one, other = (gradient(given.network, b, loss, reduction) for b in (given.batch, found.second))
        assert one == other
    return [[Fraction(v) for v in row] for row in found.second.inputs.tolist()]


def test_a_number_that_may_be_anything_becomes_small():
    dead = example([[[0], [0]], [[1, 1]]], [[-1, -1], [0]], [[0]], [[LARGE]])
    assert made_smaller(dead) == [[1]]


def test_numbers_that_move_together_move_along_their_line():
    """One neuron sees x_1 + x_2 alone: no single number can change."""
    for loss in (Loss.MSE, Loss.CROSS_ENTROPY):
        # what a motion adds to dW_1 has to cancel: two samples of one delta move against one another
        tied = example(
            [[[1, 1]], [[1], [2]]] if loss is Loss.CROSS_ENTROPY else [[[1, 1]], [[1]]],
            [[0], [0, 0] if loss is Loss.CROSS_ENTROPY else [0]],
            [[1, 1], [2, 0]],
            [[1 + LARGE, 1 - LARGE], [2 - LARGE, LARGE]],
            loss=loss,
            y=(1, 1),
        )
        (a, b), (c, d) = made_smaller(tied)
        assert (a + b, c + d) == (2, 2)
        assert max(abs(v) for v in (a, b, c, d)) <= 3


def test_the_domain_is_kept_and_a_batch_is_never_its_own_second_one():
    """The other samples swapped are the same batch."""
    inside = example([[[0], [0]], [[1, 1]]], [[-1, -1], [0]], [[5]], [[Fraction(261, 40)]], domain=Box(4, 8))
    ((value,),) = made_smaller(inside)
    assert 4 <= value <= 8
    assert value.denominator == 1
    pair = example(
        [[[0], [0]], [[1, 1]]], [[-1, -1], [0]], [[1], [0]], [[Fraction(17, 16)], [Fraction(1, 16)]], y=(1, 1)
    )
    assert sorted(np.ravel(made_smaller(pair)).tolist()) != [0, 1]
