"""Exact arithmetic against its definitions, where a change of one sign or index went unnoticed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.lp import Program, Status, proved, solve
from exan_verify.exact.modular import PRIME, add_mod, fold, inverses_mod
from exan_verify.exact.rational import RationalMatrix
from exan_verify.kernel.second.cancellation import (
    contributions_cancel,
    distinct_loss_vectors,
    symbolic_loss_vectors,
)
from exan_verify.kernel.second.first_order import own_motions

IDENTITY = ReluNetwork.from_arrays([[[1, 0], [0, 1]]], [[0, 0]])


def columns(values: list[list[Any]]) -> Any:
    """An object array of Fractions (rows, samples)."""
    out = np.empty((len(values), len(values[0])), dtype=object)
    for index in np.ndindex(*out.shape):
        out[index] = Fraction(values[index[0]][index[1]])
    return out


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


@pytest.mark.parametrize("label", [0, 1])
def test_symbols_of_two_classes_add_up_to_the_loss_vector(label: int) -> None:
    logits = columns([[2], [-1]])
    found = symbolic_loss_vectors(Loss.CROSS_ENTROPY, logits, np.array([label]))
    total = sum(sigmoid(float(name[0])) * vector[:, 0].astype(float) for name, vector in found.items())
    expected = np.exp([2.0, -1.0]) / np.exp([2.0, -1.0]).sum() - np.eye(2)[label]
    assert total == pytest.approx(expected)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_symbols_of_bce_add_up_to_the_loss_vector(label: float) -> None:
    found = symbolic_loss_vectors(Loss.BCE, columns([[2], [-1]]), np.array([[label, 1 - label]]))
    total = sum(sigmoid(float(name[0])) * vector[:, 0].astype(float) for name, vector in found.items())
    assert total == pytest.approx([sigmoid(2) - label, sigmoid(-1) - 1 + label])


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.MSE])
def test_contributions_count_as_often_as_said(loss: Loss) -> None:
    labels = [0, 0] if loss is Loss.CROSS_ENTROPY else [[1.0, 0.0], [1.0, 0.0]]
    batch = Batch.of([[3, 1], [3, 1]], labels, network=IDENTITY, loss=loss, labels=Labels.ONE_HOT)
    passed = forward(IDENTITY, batch)
    assert contributions_cancel(IDENTITY, passed, loss, batch.labels, [1, -1])
    for counts in ([1, 1], [2, -1], [1, 0]):
        assert not contributions_cancel(IDENTITY, passed, loss, batch.labels, counts)


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
def test_own_motions_are_all_that_leave_the_loss_vector_alone(loss: Loss) -> None:
    rng = np.random.default_rng(1)
    weights = [rng.integers(-3, 4, shape) for shape in ((5, 6), (5, 5), (3, 5))]
    network = ReluNetwork.from_arrays(weights, [[40] * 5, [300] * 5, [0] * 3])
    labels = [[1.0, 0.0, 0.0]] if loss is Loss.BCE else [0]
    batch = Batch.of([[1, 0, 0, 1, 0, 0]], labels, network=network, loss=loss, labels=Labels.ONE_HOT)
    passed = forward(network, batch)
    assert all(pattern.all() for pattern in passed.patterns)
    jacobian = weights[2] @ weights[1] @ weights[0]
    top = jacobian if loss is Loss.BCE else jacobian[1:] - jacobian[:1]
    found = own_motions(network, passed, batch, loss, None, [0])[0]
    assert found.shape[1] == nullspace(top.astype(object)).shape[1]
    assert not np.any(top.astype(object) @ found)


def test_softmax_loss_vectors_are_the_same_up_to_a_shift_of_the_logits() -> None:
    logits = columns([[1, 3, 1], [0, 2, 1]])
    labels = np.array([0, 0, 0])
    assert distinct_loss_vectors(Loss.CROSS_ENTROPY, logits, labels) == 2
    assert distinct_loss_vectors(Loss.CROSS_ENTROPY, logits, np.array([0, 1, 0])) == 3
    assert distinct_loss_vectors(Loss.BCE, logits, np.eye(3)[[0, 0, 0]][:, :2]) == 3


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 31, 40])
def test_inverses_of_many_residues(count: int) -> None:
    values = np.array([PRIME - 1 - 5 * k for k in range(count)], dtype=np.uint64)
    assert [int(v) * int(w) % PRIME for v, w in zip(values, inverses_mod(values), strict=True)] == [1] * count


def test_sums_of_residues() -> None:
    left = np.array([PRIME - 1, 0, 3, PRIME - 1], dtype=np.uint64)
    right = np.array([5, 0, PRIME - 4, PRIME - 1], dtype=np.uint64)
    assert add_mod(left, right).tolist() == [4, 0, PRIME - 1, PRIME - 2]


def test_transposes_and_columns_of_another_denominator() -> None:
    matrix = RationalMatrix.of(columns([[Fraction(1, 6), 2, 3], [4, Fraction(-5, 4), 6]]))
    assert matrix.T.fractions().tolist() == matrix.fractions().T.tolist()
    added = matrix.plus_column(RationalMatrix.of(columns([[Fraction(1, 9)], [1]]))).fractions()
    assert added[0, 0] == Fraction(5, 18)
    assert added[1, 1] == Fraction(-1, 4)


def test_a_program_without_variables() -> None:
    absurd, empty = (Program.of([], rows=[[], []], bounds=[1, bound]) for bound in (-1, 0))
    assert solve(absurd).status is Status.INFEASIBLE
    assert proved(absurd, solve(absurd))
    assert solve(empty).status is Status.OPTIMAL


def test_the_prime_itself_folds_to_zero():
    values = np.array([0, 1, PRIME - 1, PRIME, PRIME + 1, 2 * PRIME, 2**64 - 1], dtype=np.uint64)
    assert [int(v) for v in fold(values)] == [int(v) % PRIME for v in values]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_logits_moved_by_a_constant_have_the_symbols_that_they_had(classes: int):
    logits = columns([[Fraction(k * k, 3) + 1 for _ in range(2)] for k in range(classes)])
    moved = logits.copy()
    moved[:, 1] += Fraction(5, 7)
    labels = np.zeros(2, dtype=np.int64)
    same, other = (symbolic_loss_vectors(Loss.CROSS_ENTROPY, f, labels) for f in (logits, moved))
    assert list(same) == list(other)
