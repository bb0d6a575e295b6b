"""Numbers that few people have: no kind of them crashes ``certify`` or ``audit``, or makes them wrong."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from exan_verify import Outcome, ReluNetwork, SampleStatus, audit, certify, check
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Trust
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.modular import PRIME
from exan_verify.exclusivity import exclusivity
from tests.support.certificate_cases import certify_as

LOSSES = ("cross_entropy", "bce", "mse", "hinge")


def drawn(seed: int, *, bias: bool = True) -> tuple[list[Any], list[Any] | None, Any, Any, str]:
    """Weights, biases, inputs, labels and loss of a tiny question, integers over two."""
    rng = np.random.default_rng(seed)
    loss = LOSSES[seed % 4]
    d, n, classes, samples = (int(rng.integers(*ends)) for ends in ((1, 3), (1, 4), (2, 4), (1, 4)))
    half = np.vectorize(lambda v: Fraction(int(v), 2), otypes=[object])
    weights = [half(rng.integers(-4, 5, shape)) for shape in ((n, d), (classes, n))]
    biases = [half(rng.integers(-4, 5, width)) for width in (n, classes)] if bias else None
    y = rng.integers(0, classes, samples)
    return (
        weights,
        biases,
        half(rng.integers(-4, 5, (samples, d))),
        np.eye(classes)[y] if loss == "bce" else y,
        loss,
    )


def consistent(network: ReluNetwork, x: Any, y: Any, loss: str) -> Any:
    """The audit, whose certificate the kernel accepts."""
    found = audit(network, (x, y), loss=loss, work_limit=50_000)
    found.to_json()
    verdict = found.verdict
    if verdict.certificate is not None:
        claim = check(verdict.certificate, network, batch=(x, y))
        if verdict.trust is Trust.CERTIFIED:
            assert claim.samples == verdict.samples
    return found


@pytest.mark.parametrize("seed", range(12))
def test_numbers_beyond_the_range_of_floats_change_nothing(seed):
    """A positive factor on the inputs and biases of the first layer keeps every pattern; on the last layer
    it scales logits.
    """
    weights, biases, x, y, loss = drawn(seed)
    large = Fraction(2) ** 1100
    assert biases is not None
    grown = ReluNetwork.from_arrays(weights, [biases[0] * large, biases[1] * large])
    found = consistent(grown, x * large, y, loss)
    plain = exclusivity(
        grown, Batch.of(x * large, y, network=grown, loss=Loss(loss), labels=Labels.ONE_HOT), loss=Loss(loss)
    )
    assert found.exclusivity == plain
    for radius, status in zip(found.radius, found.verdict.samples, strict=True):
        if status is SampleStatus.DETERMINED:
            assert radius == 0
    all_large = ReluNetwork.from_arrays([w * 2**1074 for w in weights], [b * 2**1074 for b in biases])
    consistent(all_large, x, y, loss)


def test_guesses_of_numbers_beyond_floats_are_the_largest():
    values = np.array([Fraction(2) ** 2000, -(Fraction(2) ** 2000), Fraction(1, 2)], dtype=object)
    largest = np.finfo(np.float64).max
    assert guessed(values).tolist() == [largest, -largest, 0.5]


@pytest.mark.parametrize("where", ["inputs", "first", "last", "bias"])
@pytest.mark.parametrize("seed", range(8))
def test_a_prime_in_a_denominator_is_no_error(seed, where):
    weights, biases, x, y, loss = drawn(seed)
    assert biases is not None
    tiny = Fraction(1, PRIME)
    if where == "inputs":
        x[0, 0] = tiny
    else:
        array = {"first": weights[0], "last": weights[1], "bias": biases[0]}[where]
        array[(0,) * array.ndim] += tiny
    network = ReluNetwork.from_arrays(weights, biases)
    consistent(network, x, y, loss)
    for size in (1, len(x) + 1):
        verdict = certify(network, batch=(x, y), loss=loss, batch_size=size, engine="exact")
        assert verdict.outcome is not Outcome.UNIQUE or size == len(x)
    gradient = {name: np.full(array.shape, tiny, dtype=object) for name, array in network.parameters()}
    for options in ({"tolerance": 1e-3}, {}):
        verdict = certify(network, gradient=gradient, loss=loss, batch_size=2, engine="exact", **options)
        assert verdict.outcome in (Outcome.UNKNOWN, Outcome.UNREALISABLE)


def test_a_prime_in_a_denominator_hides_no_peelable_sample():
    """Deltas times a positive number are zero where they were: 1 / p is as good as 1 / (p + 2)."""
    rng = np.random.default_rng(0)
    for loss in LOSSES:
        first, last = rng.integers(-3, 4, (8, 4)), rng.integers(1, 4, (3, 8)).astype(object)
        x, y = rng.normal(size=(3, 4)), np.array([0, 1, 2])
        states = []
        for denominator in (PRIME + 2, PRIME):
            weights = [first, last * Fraction(1, denominator)]
            network = ReluNetwork.from_arrays(weights, [np.ones(8), np.zeros(3)])
            labels = np.eye(3)[y] if loss in ("bce", "mse") else y
            batch = Batch.of(x, labels, network=network, loss=Loss(loss), labels=Labels.ONE_HOT)
            states.append(exclusivity(network, batch, loss=Loss(loss)))
        assert states[0] == states[1]


@pytest.mark.parametrize("seed", range(12))
def test_large_logits_take_no_time_and_prove_nothing_false(seed):
    """Loss vectors like e^-10^9 are enclosed without being written down."""
    rng = np.random.default_rng(seed)
    n, samples = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    weights = [rng.integers(-2, 3, (n, 2)), rng.integers(-2, 3, (1, n))]
    network = ReluNetwork.from_arrays(weights, [rng.integers(-1, 2, n), rng.integers(-1, 2, 1)])
    x = rng.integers(-3, 4, (samples, 2)).astype(float)
    x[0, 0] = float(rng.choice([1e9, -1e9, 1e12]))
    consistent(network, x, rng.integers(0, 2, (samples, 1)), "bce")


def test_a_sample_with_a_huge_logit_moves_by_a_proved_distance():
    network = ReluNetwork.from_arrays([[[-2, 0], [2, 0]], [[-1, -1]]], [[1, -1], [-1]])
    found = consistent(network, [[1e9, -3], [-3, 0], [3, 0]], np.zeros((3, 1)), "bce")
    assert found.verdict.outcome is Outcome.AMBIGUOUS


@pytest.mark.parametrize("seed", range(16))
def test_questions_without_an_equation_are_answered(seed):
    """Zero weights, dead samples and no biases: systems with no row or no column."""
    weights, biases, x, y, loss = drawn(seed, bias=seed % 3 == 0)
    rng = np.random.default_rng(seed)
    for array in (*weights, x):
        array[rng.random(array.shape) < 0.5] = Fraction(0)
    consistent(ReluNetwork.from_arrays(weights, biases), x, y, loss)


def test_a_region_that_no_equation_sees():
    network = ReluNetwork.from_arrays([[[-1.5], [2.0], [-2.0]], [[0.5, -0.5, 0.5], [1.5, -2.0, 1.5]]], None)
    found = consistent(network, [[0.0]], [0], "cross_entropy")
    assert found.verdict.outcome is Outcome.AMBIGUOUS


def test_solvers_settle_samples_of_an_ambiguous_batch_and_it_is_said():
    network = ReluNetwork.from_arrays(
        [[[-2], [0.75], [1]], [[-1.25, 0.25, -0.5], [0, -2, 0.5]]], [[-1, 0.25, -0.25], [0.5, -1.75]]
    )
    batch = [[-0.5], [0.5]], [1, 0]
    proved = certify(network, batch=batch, loss="mse", engine="exact")
    assert (proved.trust, proved.certified, proved.rests_on) == (Trust.CERTIFIED, (0,), "certified")
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch, loss="mse")
    assert verdict.samples == (SampleStatus.FREE, SampleStatus.DETERMINED)
    assert verdict.trust is Trust.SOLVER_TRUSTED
    assert verdict.certified == (0,)
    assert verdict.rests_on == "solver-trusted; certified are the outcome ambiguous and samples 0"
    assert verdict.certificate is not None
    claim = check(verdict.certificate, network, batch=batch)
    assert (claim.outcome, claim.samples) == (Outcome.AMBIGUOUS, (SampleStatus.FREE, SampleStatus.UNKNOWN))
    alone = certify(network, batch=batch, loss="mse", engine="smt")
    for own, other in zip(verdict.samples, alone.samples, strict=True):
        assert SampleStatus.UNKNOWN in (own, other) or own is other
