"""What engines propose as a second batch: the kernel's checker admits it, or it is none."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.core.certificate import Counting, Move, SecondBatch
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide.families.linear import symbols
from exan_verify.decide.second_batch import accept, admitted, counted, displaced
from exan_verify.errors import CertificateRejected
from exan_verify.exact.modular import PRIME
from exan_verify.kernel import second as kernel_second
from tests.support.contexts import context_of
from tests.support.family_cases import integers, labels_for, random_network


def drawn(seed: int, loss: Loss, classes: int = 3):
    rng = np.random.default_rng(seed)
    network = random_network(rng, [3, 4, classes])
    y = labels_for(loss, classes, list(rng.integers(0, classes, 3)))
    batch = Batch.of(integers(rng, 3, 3), y, network=network, loss=loss, labels=Labels.ONE_HOT)
    return rng, context_of(network, batch, loss)


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("seed", range(6))
def test_a_step_is_admitted_just_where_the_gradient_stays(seed: int, loss: Loss):
    """A hidden layer that is dead, so that every small step keeps the gradient, and one that is not."""
    rng, context = drawn(seed, loss)
    steps = np.full((3, 3), Fraction(0), dtype=object)
    steps[1] = [Fraction(int(v), 7) for v in rng.integers(1, 5, 3)]
    first, second = context.network.layers
    dead = ReluNetwork.from_arrays([first.weight, second.weight], [np.full(4, -1000.0), second.bias])
    idle = context_of(dead, context.batch, loss)
    found = displaced(idle, steps)
    assert found is not None
    assert found.facts.is_ambiguous
    assert found.batch.x[1] == tuple(v + s for v, s in zip(context.batch.x[1], steps[1], strict=True))
    assert found.radii[1] == max(abs(s) for s in steps[1])
    # all active, and logits of zero, at which no loss vector vanishes: dW_2 sees the step
    awake = ReluNetwork.from_arrays([np.eye(3) + 1, np.zeros((3, 3))], [np.full(3, 1000.0), np.zeros(3)])
    assert displaced(context_of(awake, context.batch, loss), steps) is None


def test_evidence_that_describes_nothing_is_not_admitted():
    _, context = drawn(0, Loss.MSE)
    for moves in ((), (Move(sample=9, mix=((0, "1"),)),), (Move(sample=0, mix=((0, "1"),), label=1),)):
        assert accept(context, SecondBatch(moves=moves)) is None
        assert admitted(context, SecondBatch(moves=moves)) is None
    assert counted(context, Counting(samples=(0,), common=False, prime=PRIME, point=5)) is None


@pytest.mark.parametrize(
    ("loss", "classes"), [(Loss.BCE, 1), (Loss.BCE, 3), (Loss.CROSS_ENTROPY, 2), (Loss.CROSS_ENTROPY, 4)]
)
@pytest.mark.parametrize("seed", range(4))
def test_symbols_have_values_that_give_all_loss_vectors(loss: Loss, classes: int, seed: int):
    """One real number for each symbol does for every sample; equal samples have equal columns."""
    _, context = drawn(seed, loss, classes)
    twice = context_of(context.network, context.batch.select([0, 1, 0]), loss)
    tables = [table.astype(np.float64) for table in symbols(twice)]
    logits = twice.passed.logits.astype(np.float64)
    if loss is Loss.BCE:
        vectors = 1 / (1 + np.exp(-logits)) - twice.batch.labels.astype(np.float64).T
    else:
        chances = np.exp(logits - logits.max(axis=0))
        vectors = chances / chances.sum(axis=0) - np.eye(classes)[twice.batch.labels].T
    columns = np.stack([table.reshape(-1) for table in tables], axis=1)
    values, *_ = np.linalg.lstsq(columns, vectors.reshape(-1), rcond=None)
    assert np.allclose(columns @ values, vectors.reshape(-1))
    assert all((table[:, 0] == table[:, 2]).all() for table in tables)


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("kind", ["bare", "dead", "narrow"])
def test_no_engine_says_ambiguous_where_the_checker_admits_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: str, loss: Loss
):
    """Twins, silent neurons, unseen motions: whoever finds them, the kernel has the word."""

    def refuse(*_: object) -> None:
        raise CertificateRejected("nothing is admitted")

    classes = 3 if kind == "narrow" else 2
    outcomes = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = random_network(rng, [3, 2 if kind == "narrow" else 4, classes])
        biases = None if kind == "bare" else [layer.bias for layer in drawn.layers]
        if kind == "dead":
            biases[0] = np.full(4, -1000.0)
        network = ReluNetwork.from_arrays([layer.weight for layer in drawn.layers], biases)
        x, y = integers(rng, 3, 3), labels_for(loss, classes, list(rng.integers(0, classes, 3)))
        asked = {"batch": (x, y), "loss": loss.value, "engine": "exact", "work_limit": 200_000}
        outcomes.append([certify(network, **asked)])
        with monkeypatch.context() as patch:
            patch.setattr(kernel_second, "facts", refuse)
            patch.setattr(kernel_second, "count", refuse)
            outcomes[-1].append(certify(network, **asked))
    assert any(before.outcome is Outcome.AMBIGUOUS for before, _ in outcomes)
    for _, after in outcomes:
        assert after.outcome is not Outcome.AMBIGUOUS
        assert SampleStatus.FREE not in after.samples
