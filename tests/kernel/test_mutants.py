"""Forged evidence that only one check refuses, and true evidence that a stricter check would refuse."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from exan_verify.core.certificate import Counting, Forced, Move, SecondBatch
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.decide.gradient.reconstruction import Task, rebuild
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import gradient
from exan_verify.exact.modular import PRIME
from exan_verify.kernel.given import Subject
from exan_verify.kernel.gradient import reconstruction, unrealisable
from exan_verify.kernel.lifting import enumeration
from exan_verify.kernel.second import counting, second_batch
from tests.support.cases import integer_network, rational_batch
from tests.support.family_cases import integers, labels_for, random_network


def asked(loss: Loss, labels: Labels, size: int, entrance: Any = "batch") -> Question:
    return Question(loss=loss, reduction=Reduction.MEAN, labels=labels, batch_size=size)


def subject_of(network: ReluNetwork, x: Any, y: Any, loss: Loss, labels: Labels = Labels.ONE_HOT) -> Subject:
    batch = Batch.of(x, y, network=network, loss=loss, labels=labels)
    return Subject(model=network, batch=batch, question=asked(loss, labels, batch.size))


SUM = ReluNetwork.from_arrays([[[1, 1, 1]], [[1], [2]]], [[1], [0, 0]])
"""One neuron that sees x_1 + x_2 + x_3: every sample moves in a plane that it does not see."""


def counted(*, common: bool = True, point: int = 5) -> Counting:
    return Counting(samples=(0, 1), common=common, prime=PRIME, point=point)


def test_counting_is_for_softmax_and_sigmoid_alone() -> None:
    """The symbols it counts are theirs; for other losses they mean nothing."""
    x = [[1, 2, 3], [2, 2, 2]]
    true = subject_of(SUM, x, [0, 1], Loss.CROSS_ENTROPY)
    assert counting.facts(counted(), true).free == {0, 1}
    for loss, y in ((Loss.HINGE, [0, 1]), (Loss.MSE, np.eye(2))):
        with pytest.raises(CertificateRejected, match="counting is for"):
            counting.facts(counted(), subject_of(SUM, x, y, loss))


def test_counting_at_the_ends_of_the_points() -> None:
    true = subject_of(SUM, [[1, 2, 3], [2, 2, 2]], [0, 1], Loss.CROSS_ENTROPY)
    for point in (2, PRIME - 2):
        assert counting.facts(counted(point=point), true).ambiguous
    for point in (0, 1, PRIME):
        with pytest.raises(CertificateRejected, match="outside"):
            counting.facts(counted(point=point), true)


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
def test_samples_that_cannot_move_are_never_counted_free(loss: Loss) -> None:
    """Also where the others' motions are as many as the equations, to the last dimension."""
    still = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        size, classes, features, hidden = (int(rng.integers(low, 5)) for low in (2, 2, 1, 1))
        network = random_network(rng, [features, hidden, classes])
        y = labels_for(loss, classes, rng.integers(0, classes, size))
        asked = subject_of(network, integers(rng, size, features), y, loss)
        evidence = Counting(samples=tuple(range(size)), common=False, prime=PRIME, point=5)
        try:
            found = counting.count(evidence, asked)
        except CertificateRejected:
            continue
        own = {m: basis.shape[1] for m, basis in counting._bases(evidence, asked).items()}
        stuck = {m for m, dimension in own.items() if dimension == 0}
        still += len(stuck)
        assert not stuck & found.free
    assert still > 10


def test_common_motions_need_a_hidden_layer() -> None:
    linear = ReluNetwork.from_arrays([[[1, 1, 1], [1, 2, 1]]], [[0, 0]])
    flat = subject_of(linear, [[1, 2, 3], [2, 2, 2]], [0, 1], Loss.CROSS_ENTROPY)
    with pytest.raises(CertificateRejected, match="no first hidden layer"):
        counting.facts(counted(), flat)


P = Fraction(PRIME)


@pytest.mark.parametrize(
    ("columns", "small"),
    [
        ([[P - 1]], True),
        ([[P]], False),
        ([[-P]], False),
        ([[P - 1], [0]], True),
        ([[P - 1], [1]], True),
        ([[P - 1], [2]], False),
        ([[P / 2 - 1, Fraction(1, 2)]], True),
        ([[P / 2, Fraction(1, 2)]], False),
        ([[1, 1], [P - 1, 0]], False),
    ],
)
def test_minors_are_small_when_hadamards_bound_is_below_p(
    columns: list[list[Any]], small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array(columns, dtype=object).T
    monkeypatch.setattr(enumeration, "exact_columns", lambda *_: rows)
    ignored: Any = None
    assert enumeration.small_minors(ignored, ignored, list(range(len(rows)))) is small


def mixed(*mixes: dict[int, str], **changes: Any) -> SecondBatch:
    moves = [Move(sample=m, mix=tuple(mix.items()), **changes) for m, mix in enumerate(mixes)]
    return SecondBatch(moves=tuple(moves), solved=True)


def test_targets_follow_from_the_mixes_of_moved_samples() -> None:
    y = [[0.0, 1.0], [2.0, -1.0], [1.0, 1.0]]
    x = [[1, 1, 0], [3, 1, 0], [1, 4, 1]]
    subject = subject_of(SUM, x, y, Loss.MSE, Labels.REAL)
    half = ({0: "1/2", 1: "1/2"}, {1: "1"})
    assert second_batch.facts(mixed(*half), subject).free == {0, 1}
    refused = [
        (mixed(*half, label=1), "not given too"),
        (mixed(*half, target=((0, "1"),)), "not given too"),
        (mixed({0: "1/2", 2: "1/2"}, {1: "1"}), "is not moved"),
        (mixed({0: "1"}, {0: "1"}), "singular"),
        (mixed({0: "1/2", 1: "1/3"}, {1: "1"}), "another gradient"),
    ]
    for evidence, reason in refused:
        with pytest.raises(CertificateRejected, match=reason):
            second_batch.facts(evidence, subject)
    one_hot = subject_of(SUM, x[:2], np.eye(2), Loss.MSE)
    with pytest.raises(CertificateRejected, match="real labels only"):
        second_batch.facts(mixed(*half), one_hot)


def test_a_batch_rebuilt_from_the_second_layer() -> None:
    """On the way down a neuron whose feature is zero passes nothing on."""
    network = integer_network([4, 20, 40, 3], 1)  # type: ignore[no-untyped-call]
    batch = rational_batch(network, 3, 2)  # type: ignore[no-untyped-call]
    given = gradient(network, batch, Loss.MSE, Reduction.MEAN)
    task = Task(
        network=network,
        gradient=given.for_network(network),
        loss=Loss.MSE,
        reduction=Reduction.MEAN,
        samples=3,
    )
    question = asked(Loss.MSE, Labels.ONE_HOT, 3, "gradient")
    inputs, targets = reconstruction.rebuilt_batch(rebuild(task, 2).mixing, network, given, question)
    assert sorted(inputs.tolist()) == sorted(map(list, batch.x))
    assert sorted(targets.tolist()) == sorted(map(list, batch.y))


@pytest.mark.parametrize(("biases", "loss"), [(False, Loss.MSE), (True, Loss.CROSS_ENTROPY)])
def test_forced_batches_need_biases_and_a_rational_loss(biases: bool, loss: Loss) -> None:
    network = ReluNetwork.from_arrays([[[1, 2]], [[1], [3]]], [[0], [0, 0]] if biases else None)
    batch = Batch.of([[1, 1]], [[1.0, 0.0]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    given = gradient(network, batch, Loss.MSE, Reduction.MEAN)
    evidence = Forced(layer=1, columns=(0,), matrix=(), following=())
    question = asked(loss, Labels.ONE_HOT, 1, "gradient")
    with pytest.raises(CertificateRejected, match="biases and a rational loss"):
        unrealisable.check_forced(evidence, given, network, question)


@pytest.mark.parametrize(
    ("vector", "label"),
    [((1, -2, 1), 1), ((-1, 0, 1), 0), ((-1, -1, 2), None), ((0, 0, 0), None), ((1, 0, 1), None)],
)
def test_hinge_loss_vectors_have_one_negative_entry(vector: tuple[int, ...], label: int | None) -> None:
    network = ReluNetwork.from_arrays([[[1]] * 3], [[0] * 3])
    question = asked(Loss.HINGE, Labels.ONE_HOT, 1)
    vectors = np.array([[Fraction(v) for v in vector]], dtype=object)
    if label is None:
        with pytest.raises(unrealisable._Contradiction):
            unrealisable._labels(vectors, vectors.T, network, question)
    else:
        assert unrealisable._labels(vectors, vectors.T, network, question).tolist() == [label]
