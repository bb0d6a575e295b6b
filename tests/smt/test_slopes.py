"""Tiny networks with two slopes: solvers as ground truth of lifting, and certified second batches."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from exan_verify import Outcome, certify, check
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Activation, Batch, PiecewiseNetwork, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import SampleStatus, Trust
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exact.linalg import nullspace
from exan_verify.smt.decide import decide, not_taken, pose
from exan_verify.smt.portfolio import Settings
from exan_verify.smt.question.encode import abstraction, encode, state_names
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.replay import exact_batch, trace

SLOPES = [-2.0, -0.5, 0.25, 3.0]
ASKED = {"loss": "mse", "reduction": "sum"}
QUESTION = Question.of("mse", "sum", "one_hot")
SETTINGS = Settings(work_limit=3_000_000)


def drawn(seed: int, widths: tuple[int, ...] | None = None) -> tuple[PiecewiseNetwork, Batch]:
    """Small integers, slopes for each neuron, two samples of one logit."""
    rng = np.random.default_rng(seed)
    features, hidden, classes = widths or [(1, 4, 1), (2, 4, 1), (1, 5, 1), (2, 3, 1)][seed % 4]
    slopes = rng.choice(SLOPES, hidden)
    layers = ReluNetwork.from_arrays(
        [rng.integers(-4, 5, (hidden, features)), rng.integers(-4, 5, (classes, hidden))],
        [rng.integers(-4, 5, hidden), [1]],
    ).layers
    network = PiecewiseNetwork(layers=layers, activations=(Activation(slope=slopes, name="slopes"),))
    x = rng.integers(-6, 7, (2, features)) / 2
    return network, Batch.of(x, [[0], [1]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)


def test_solvers_agree_with_lifting():
    """Where it determines both samples they find no second batch, and say that there is none."""
    unique = 0
    for seed in (0, 2, 5, 6, 9, 10):
        network, batch = drawn(seed)
        lifted = certify(network, batch=batch, engine="lifting", **ASKED)
        asked = decide(network, QUESTION, batch=batch, settings=SETTINGS)
        assert asked.outcome in (Outcome.UNIQUE, Outcome.UNKNOWN)
        unique += lifted.outcome is Outcome.UNIQUE and asked.outcome is Outcome.UNIQUE
    assert unique >= 3
    verdict = certify(network, batch=batch, engine="smt", work_limit=3_000_000, **ASKED)
    assert (verdict.outcome, verdict.trust) == (Outcome.UNIQUE, Trust.SOLVER_TRUSTED)


def test_a_second_batch_that_solvers_find_is_certified():
    network, batch = drawn(4)
    verdict = certify(network, batch=batch, engine="smt", work_limit=3_000_000, **ASKED)
    assert verdict.outcome is Outcome.AMBIGUOUS, verdict.reason
    assert verdict.trust is Trust.CERTIFIED
    certificate = json.loads(json.dumps(verdict.certificate))
    assert [part["type"] for part in certificate["evidence"]] == ["second_batch"]
    assert check(certificate, network, batch=batch).outcome is Outcome.AMBIGUOUS
    (part,) = certificate["evidence"]
    direction = part["directions"][0]
    direction[0][1] = str(Fraction(direction[0][1]) * 2)
    with pytest.raises(CertificateRejected, match="another gradient"):
        check(certificate, network, batch=batch)
    # the same batch and numbers, as trained slopes: their gradient is one more thing to compare
    own = network.activations[0]
    trained = Activation(slope=own.slope, trained=True, name="PReLU")
    other = PiecewiseNetwork(layers=network.layers, activations=(trained,))
    forged = verdict.certificate | {"model_sha256": other.digest}
    with pytest.raises(CertificateRejected, match="trained slopes"):
        check(forged, other, batch=batch)
    # with other slopes it is another batch that has this gradient
    changed = own.slope + 1
    other = PiecewiseNetwork(layers=network.layers, activations=(Activation(slope=changed, name="slopes"),))
    forged = verdict.certificate | {"model_sha256": other.digest}
    with pytest.raises(CertificateRejected):
        check(forged, other, batch=batch)


def sheared(seed: int) -> tuple[PiecewiseNetwork, Batch, Batch] | None:
    """Two samples of one region, which a shear moves; None where the draw has no such pair."""
    network, first = drawn(seed, (2, 3, 1))
    near = fractions(first.inputs[[0, 0]]) + np.array([[0, 0], [1, 1]]) * Fraction(1, 64)
    near.setflags(write=False)
    batch = Batch(inputs=near, labels=first.labels)
    passed = forward(network, batch)
    if (passed.pattern(1)[:, 0] != passed.pattern(1)[:, 1]).any():
        return None
    weight, out = (fractions(layer.weight) for layer in network.layers)
    factors = np.where(passed.pattern(1)[:, 0], 1, fractions(network.activations[0].slope))
    direction = nullspace((out * factors).dot(weight))
    vectors = passed.logits[0] - np.array([0, 1])
    if not vectors.all():
        return None
    steps = np.array([vectors[1], -vectors[0]])[:, None] * direction[:, 0] * Fraction(1, 1 << 12)
    moved = near + steps
    moved.setflags(write=False)
    second = Batch(inputs=moved, labels=batch.labels)
    one, other = (gradient(network, b, Loss.MSE, Reduction.SUM) for b in (batch, second))
    return (network, batch, second) if one.digest == other.digest else None


def test_planted_second_batches_are_never_unique():
    """They solve the constraints of their own cube, and nobody says that there is none."""
    planted = [case for seed in range(5, 12) if (case := sheared(seed)) is not None]
    assert len(planted) >= 4
    for network, batch, second in planted:
        posed, _ = pose(network, QUESTION, batch=batch)
        assert solves(posed, second)
        assert not solves(posed, Batch(inputs=fractions(batch.inputs) + Fraction(1, 64), labels=batch.labels))
        verdict = certify(network, batch=batch, engine="exact", **ASKED)
        assert verdict.outcome is not Outcome.UNIQUE
    asked = decide(*planted[-2][:1], QUESTION, batch=planted[-2][1], settings=Settings(rounds=()))
    assert asked.outcome is not Outcome.UNIQUE
    assert SampleStatus.DETERMINED not in asked.samples


def solves(posed: Posed, batch: Batch) -> bool:
    """Whether the batch solves the gradient equations of the cube that it lies in."""
    run = trace(posed, exact_batch(batch, [tuple(y) for y in batch.y]))
    fixed: dict[str, bool] = {}
    values: dict[str, Fraction] = {}
    for place, m in enumerate(sorted(range(posed.size), key=lambda m: run.states[m])):
        fixed |= dict(zip(state_names(posed, place), run.states[m], strict=True))
        values |= {f"x_s{place}_{i}": value for i, value in enumerate(batch.x[m])}
    equations = encode(posed, fixed).equations
    return all(difference.at(values) == 0 for _, difference in equations)


def test_the_batch_solves_its_own_constraints():
    """The replay's gradient is that of the exact pass, and the known batch fits encoding and abstraction."""
    for seed in range(6):
        network, batch = drawn(seed)
        posed, _ = pose(network, QUESTION, batch=batch)
        exact = gradient(network, batch, Loss.MSE, Reduction.SUM)
        run = trace(posed, exact_batch(batch, [tuple(y) for y in batch.y]))
        expected = [
            value
            for layer in network.layers
            for row, bias in zip(*(exact.tensors[name] for name, _ in layer.parameters()), strict=True)
            for value in (*row, bias)
        ]
        assert [v.value for v in run.gradient] == expected
        assert solves(posed, batch)
        assert not abstraction(posed).refuted
        assert "slopes below zero" in posed.title


def test_a_gradient_alone_is_asked_of_solvers():
    """Its batch is found and is the only one; another gradient has none."""
    network, batch = drawn(6)
    given = dict(gradient(network, batch, Loss.MSE, Reduction.SUM).tensors)
    asked = {"engine": "smt", "work_limit": 3_000_000, "exact": True, **ASKED}
    verdict = certify(network, gradient=given, batch_size=2, **asked)
    assert verdict.outcome in (Outcome.UNIQUE, Outcome.UNKNOWN), verdict.reason
    if verdict.outcome is Outcome.UNIQUE:
        assert Counter(verdict.batch.x) == Counter(batch.x)
    wrong = given | {"0.bias": given["0.bias"] + np.arange(5), "2.weight": given["2.weight"] * 0}
    other = certify(network, gradient=wrong, batch_size=2, **asked)
    assert other.outcome in (Outcome.UNREALISABLE, Outcome.UNKNOWN)
    assert "engine='smt'" in certify(network, gradient=given, batch_size=2, exact=True, **ASKED).reason
    assert certify(network, gradient=given, **asked).outcome is Outcome.UNKNOWN


def test_what_is_not_written_is_said():
    network, batch = drawn(0)
    own = network.activations[0]
    for activation, said in (
        (Activation(slope=np.zeros(4), high=Fraction(6), name="ReLU6"), "those that end"),
        (Activation(slope=own.slope, trained=True, name="PReLU"), "trained slopes"),
    ):
        other = PiecewiseNetwork(layers=network.layers, activations=(activation,))
        verdict = certify(other, batch=batch, engine="smt", **ASKED)
        assert verdict.outcome is Outcome.UNKNOWN
        assert said in decide(other, QUESTION, batch=batch).reason
    asked = Question.of("bce", "sum", "one_hot")
    assert "not bce" in not_taken(network, asked)
    assert "not bce" in decide(network, asked, batch=batch).reason
