"""Questions about fewer features, where the first layer tells the inputs' span (docs/theory.md CB11)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.solvers.spanned import spanned
from exan_verify.exact.backprop import gradient
from exan_verify.exact.linalg import multiply
from exan_verify.instances import tiny_question
from tests.support.certificate_cases import certify_as


def context_of(network, batch, **question):
    asked = Question(**{"loss": Loss.MSE, **question})
    return Context(setting=Setting(network=network, question=asked, engine="exact"), batch=batch)


def drawn(seed: int, *, biases: bool):
    rng = np.random.default_rng(seed)
    samples, features = int(rng.integers(2, 4)), 5
    widths = [features, 8, 4, 3]
    weights = [rng.integers(-4, 5, (b, a)) for a, b in pairwise(widths)]
    offsets = [rng.integers(-2, 3, b) for b in widths[1:]] if biases else None
    network = ReluNetwork.from_arrays(weights, offsets)
    x, y = rng.integers(-4, 5, (samples, features)), rng.integers(0, 3, samples)
    return rng, network, Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)


@pytest.mark.parametrize("biases", [True, False])
def test_gradients_of_the_smaller_question_are_those_of_the_whole(biases):
    """For any batch of the smaller question: dW_1 times the maps, every other entry the same."""
    asked = 0
    for seed in range(40):
        rng, network, batch = drawn(seed, biases=biases)
        smaller = spanned(context_of(network, batch))
        if smaller is None:
            continue
        asked += 1
        assert len(smaller.kept) == batch.size - biases
        assert smaller.whole(smaller.batch) == Batch(inputs=fractions(batch.inputs), labels=batch.labels)
        other = Batch(inputs=fractions(rng.integers(-9, 10, smaller.batch.inputs.shape)), labels=batch.labels)
        small = gradient(smaller.network, other, Loss.MSE, smaller.question.reduction).tensors
        whole = gradient(network, smaller.whole(other), Loss.MSE, smaller.question.reduction).tensors
        (first, _), *rest = network.layers[0].parameters()
        # dW_1 = sum delta x^T with x = maps [a ; 1]
        expected = multiply(small[first], smaller.maps[:, :-1].T)
        if biases:
            expected = expected + small[rest[0][0]].reshape(-1, 1) * smaller.maps[:, -1]
        assert (whole[first] == expected).all()
        assert all((small[name] == array).all() for name, array in whole.items() if name != first)
    assert asked > 10


def test_nothing_is_spared_where_ranks_are_missing():
    _, network, batch = drawn(0, biases=True)
    equal = Batch(inputs=batch.inputs[[0, 0]], labels=batch.labels[[0, 0]])
    assert spanned(context_of(network, equal)) is None
    narrow = ReluNetwork.from_arrays([[[1, 2, 3]], [[1], [2]]], [[9], [0, 1]])
    two = Batch.of([[1, 0, 0], [0, 1, 0]], [0, 1], network=narrow, loss=Loss.MSE, labels=Labels.ONE_HOT)
    assert spanned(context_of(narrow, two)) is None  # one neuron: rank(Delta_1) = 1
    one = batch.select([0])
    assert spanned(context_of(network, one)) is None  # with biases nothing would be left to ask


def test_a_domain_keeps_its_sides():
    """Of the features that are left."""
    low, high = [-5, -6, -7, -8, -9], [5, 6, 7, 8, 9]
    for seed in range(10):
        _, network, batch = drawn(seed, biases=True)
        smaller = spanned(context_of(network, batch, domain=Box(low, high)))
        if smaller is not None:
            sides = smaller.question.domain.bounds(len(smaller.kept))
            assert [int(v) for v in sides[0]] == [low[k] for k in smaller.kept]
            assert [int(v) for v in sides[1]] == [high[k] for k in smaller.kept]
            return
    raise AssertionError("no draw has the ranks")


@pytest.mark.parametrize(
    ("loss", "number", "outcome"),
    [
        (Loss.MSE, 16, Outcome.UNIQUE),
        (Loss.MSE, 2, Outcome.AMBIGUOUS),
        (Loss.CROSS_ENTROPY, 13, Outcome.UNIQUE),
        (Loss.BCE, 33, Outcome.UNIQUE),
    ],
)
def test_solvers_answer_for_all_features(loss, number, outcome):
    """The witness of the smaller question becomes one of the whole, replayed exactly."""
    case = tiny_question(loss, number)
    verdict = certify_as(outcome, case, engine="smt", work_limit=3_000_000)
    if outcome is Outcome.AMBIGUOUS:
        assert verdict.certificate is not None
        assert verdict.witness.batch.inputs.shape == case.batch.inputs.shape
    else:
        assert "affine functions" in verdict.reason
        assert set(verdict.samples) == {SampleStatus.DETERMINED}
