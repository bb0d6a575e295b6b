"""Parts of the residual checkers against their definitions, at the batch itself."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import flint
import numpy as np
import pytest

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.exact.modular import PRIME
from exan_verify.kernel.given import Subject
from exan_verify.kernel.residual import cover as residual_cover
from exan_verify.kernel.residual import quadrics as residual_quadrics
from exan_verify.kernel.residual.hinge import _selections
from exan_verify.kernel.residual.parts import Part


@pytest.fixture(autouse=True)
def precise() -> Iterator[None]:
    with flint.ctx.workprec(residual_cover.PRECISION):
        yield


def part_of(network: ReluNetwork, x: Any, y: Any, loss: Loss) -> Part:
    batch = Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)
    question = Question(
        loss=loss,
        reduction=Reduction.MEAN,
        labels=Labels.ONE_HOT,
        batch_size=batch.size,
    )
    subject = Subject(model=network, batch=batch, question=question)
    return Part(subject=subject, members=tuple(range(batch.size)))


def head(loss: Loss) -> tuple[residual_cover._Head, list[list[int]]]:
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 0], [0, 1], [1, -1]]], [[2, 2], [0, 0, 1]])
    y = [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]] if loss is Loss.BCE else [1, 2]
    made = residual_cover._Head(part=part_of(network, [[1, 0], [-1, 1]], y, loss))
    return made, [made.target(label) for label in made.part.labels]


SOFT = pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
OWN_ROWS = [flint.arb(0), flint.arb(1)]


@SOFT
def test_the_rows_of_the_members_give_their_loss_vectors(loss: Loss) -> None:
    made, targets = head(loss)
    for m, place in enumerate(OWN_ROWS):
        values, _ = made.at([place], targets[m])
        differences = [value - made.own[c, m] for c, value in enumerate(values)]
        assert all(d.contains(0) and d.rad() < 1e-20 for d in differences)


@SOFT
def test_slopes_are_those_of_the_loss_vectors(loss: Loss) -> None:
    made, targets = head(loss)
    step = 1e-6
    _, slopes = made.at([flint.arb(0.25)], targets[0])
    low, high = (made.at([flint.arb(0.25 + s)], targets[0])[0] for s in (-step, step))
    for slope, a, b in zip(slopes, low, high, strict=True):
        assert float(slope[0].mid()) == pytest.approx(float((b - a).mid()) / (2 * step), rel=1e-6)


@SOFT
def test_the_batch_solves_its_joint_system_and_no_other_row_does(loss: Loss) -> None:
    made, targets = head(loss)
    system = residual_cover._Joint(head=made, targets=targets)
    values, slopes = system.over(OWN_ROWS)
    assert all(v.contains(0) and v.rad() < 1e-20 for v in values)
    elsewhere, _ = system.over([flint.arb(0.5), flint.arb(1)])
    assert not all(v.contains(0) for v in elsewhere)
    step = 1e-6
    for k in range(2):
        low, high = (
            system.over([v + s * (j == k) for j, v in enumerate(OWN_ROWS)])[0] for s in (-step, step)
        )
        for row, a, b in zip(slopes, low, high, strict=True):
            assert float(row[k].mid()) == pytest.approx(float((b - a).mid()) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("biases", [True, False])
def test_only_biases_fix_the_sums_of_rows(biases: bool) -> None:
    """Without biases -Q solves whenever Q does for targets of zero: no row sum is one by itself."""
    network = ReluNetwork.from_arrays([[[1]], [[2]]], [[0], [0]] if biases else None)
    part = part_of(network, [[1], [3]], [[0.0], [0.0]], Loss.MSE)
    system = residual_quadrics._reduced(part, part.labels)
    assert system is not None
    assert len(system.free) == (1 if biases else 4)
    minus = -np.array([[Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]], dtype=object)
    assert residual_quadrics._solves(minus, part, part.labels) is not biases


def test_residues_of_rationals() -> None:
    for value in (Fraction(2, 3), Fraction(-5, 7), Fraction(0), Fraction(9)):
        assert residual_quadrics._residue(value) * value.denominator % PRIME == value.numerator % PRIME


def test_selections_of_loss_vectors_keep_the_labels_only_where_they_are_known():
    own = np.array([[-2, 1], [1, -2], [1, 1]], dtype=object)

    def selected(labels: Labels) -> list[tuple[int, ...]]:
        question = SimpleNamespace(labels=labels)
        subject = SimpleNamespace(network=SimpleNamespace(has_bias=False), question=question)
        part: Any = SimpleNamespace(subject=subject, labels=[(Fraction(0),), (Fraction(1),)])
        return [tuple(int(label[0]) for label, _ in chosen) for chosen in _selections(part, own)]

    known, free = selected(Labels.KNOWN), selected(Labels.ONE_HOT)
    assert known == [labels for labels in free if sorted(labels) == [0, 1]]
    assert {tuple(sorted(labels)) for labels in free} > {(0, 1)}
