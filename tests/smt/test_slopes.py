"""Tiny networks with other activations than ReLU: solvers as ground truth of lifting, and certified second
batches.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import z3
from torch import nn

from exan_verify import Box, Outcome, certify, check
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Activation, Batch, PiecewiseNetwork, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import SampleStatus, Trust
from exan_verify.errors import CertificateRejected, GradientError
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exact.linalg import nullspace
from exan_verify.models.chain import to_any_network
from exan_verify.smt.cubes import all_literals
from exan_verify.smt.decide import decide, pose
from exan_verify.smt.portfolio import Settings
from exan_verify.smt.question.encode import abstraction, encode, neuron_name, state_names
from exan_verify.smt.question.posed import Posed, label_vectors
from exan_verify.smt.question.replay import exact_batch, matches_target, trace
from exan_verify.smt.question.terms import Atom, Formula, Junction, Literal, Poly
from exan_verify.smt.search import own_cube
from tests.support.activation_cases import ACTIVATIONS

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
    for seed in (0, 6, 10):
        network, batch = drawn(seed)
        lifted = certify(network, batch=batch, engine="lifting", **ASKED)
        asked = decide(network, QUESTION, batch=batch, settings=SETTINGS)
        assert asked.outcome in (Outcome.UNIQUE, Outcome.UNKNOWN)
        unique += lifted.outcome is Outcome.UNIQUE and asked.outcome is Outcome.UNIQUE
    assert unique >= 2
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
    own = network.activations[0]
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
    """They solve the constraints of their own cube; that solvers do not deny them is a law."""
    planted = [case for seed in range(5, 9) if (case := sheared(seed)) is not None]
    assert len(planted) >= 2
    for network, batch, second in planted:
        posed, _ = pose(network, QUESTION, batch=batch)
        assert solves(posed, second)
        assert not solves(posed, Batch(inputs=fractions(batch.inputs) + Fraction(1, 64), labels=batch.labels))
        verdict = certify(network, batch=batch, engine="exact", **ASKED)
        assert verdict.outcome is not Outcome.UNIQUE


def solves(posed: Posed, batch: Batch) -> bool:
    """Whether the batch solves the constraints of the cube that it lies in, of cross_entropy and bce those
    with its own probabilities.
    """
    exact = exact_batch(batch, label_vectors(posed.question.loss, batch, posed.network.classes))
    run = trace(posed, exact)
    fixed: dict[str, bool] = {}
    values: dict[str, Poly] = {}
    for place, m in enumerate(sorted(range(posed.size), key=lambda m: run.states[m])):
        fixed |= dict(zip(state_names(posed, place), run.states[m], strict=True))
        values |= {f"x_s{place}_{i}": Poly.constant(value) for i, value in enumerate(batch.x[m])}
        if posed.target.reference:
            own = posed.target.reference[m].probabilities
            values |= {f"p_s{place}_c{c}": value for c, value in enumerate(own)}
    encoding = encode(posed, fixed)
    assert len(encoding.equations) == len(posed.target.entries())
    values = {name: Poly.variable(name) for name in posed.target.symbols} | values
    if any(difference.evaluate(values, Poly.constant).terms for _, difference in encoding.equations):
        return False
    rational = {name: value.value for name, value in values.items() if value.is_constant}
    return all(holds(f, rational) for c, f in encoding.script.assertions if "hidden layer" in c)


def holds(formula: Formula, values: dict[str, Fraction]) -> bool:
    if isinstance(formula, Junction):
        return (all if formula.kind == "and" else any)(holds(part, values) for part in formula.parts)
    assert isinstance(formula, Atom)
    value = formula.poly.at(values)
    return value < 0 if formula.relation == "<" else value <= 0


def piecewise(kind: str, widths: tuple[int, ...], seed: int) -> PiecewiseNetwork:
    """Small integers between the activations of a kind, so that pre-activations lie at their ends."""
    rng = np.random.default_rng(seed)
    modules = [ACTIVATIONS[kind](n) for n in widths[1:-1]]
    linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
    for part in linear:
        for parameter in part.parameters():
            parameter.data = torch.tensor(rng.integers(-2, 3, tuple(parameter.shape)), dtype=torch.float64)
    for module in modules:
        if isinstance(module, nn.PReLU):
            module.weight.data = torch.tensor(rng.choice(SLOPES, len(module.weight)))
    order = [part for pair in zip(linear, modules, strict=False) for part in pair]
    network = to_any_network(nn.Sequential(*order, linear[-1]))
    assert isinstance(network, PiecewiseNetwork)
    return network


LABELS = {
    "mse": [0, 1, 1],
    "hinge": [0, 1, 1],
    "cross_entropy": [0, 1, 1],
    "bce": [[0, 1], [1, 1], [0, 0]],
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_the_batch_solves_its_own_constraints(kind: str):
    """Replay, exact pass and encoding are three ways to the same gradient, at the ends of an activation too;
    the abstraction that cubes are listed from has room for the batch.
    """
    at_ends = 0
    for seed, loss in enumerate(list(LABELS)[len(kind) % 2 :: 2]):
        network = piecewise(kind, (1, 3, 2, 2), seed)
        asked = Question.of(loss, "mean", "one_hot")
        x = np.random.default_rng(seed).integers(-4, 9, (3, 1)) / 4
        batch = Batch.of(x, LABELS[loss], network=network, loss=asked.loss, labels=asked.labels)
        posed, truth = pose(network, asked, batch=batch)
        assert truth is not None
        assert solves(posed, batch), loss
        passed = forward(network, batch)
        at_ends += sum(int(passed.zero(k).sum()) for k in (1, 2))
        for m in range(3):
            named = dict(zip(state_names(posed, m), truth.states[m], strict=True))
            for k in (1, 2):
                active = [named[neuron_name(m, k, j)] for j in range(network.widths[k])]
                assert active == passed.pattern(k)[:, m].tolist()
        if asked.loss.rational:
            assert matches_target(posed, truth.batch)
            other = Batch(inputs=fractions(batch.inputs) + Fraction(1, 64), labels=batch.labels)
            one, two = (gradient(network, b, asked.loss, asked.reduction) for b in (batch, other))
            assert solves(posed, other) == (one == two)
        script = abstraction(posed)
        for name, bit in zip(all_literals(posed), own_cube(truth), strict=True):
            script.require(Literal(name, bit), "the batch's own cube")
        solver = z3.Solver()
        solver.from_string(script.text())
        assert solver.check() == z3.sat
        assert network.architecture in posed.title
    assert at_ends


@pytest.mark.parametrize("kind", ["leaky", "six", "hard"])
def test_every_input_has_one_state(kind: str):
    """z = x, at, between and beyond the ends: of all values of the literals those of the replay alone fit."""
    layers = ReluNetwork.from_arrays([[[1]], [[2]]], [[0], [1]]).layers
    network = PiecewiseNetwork(layers=layers, activations=piecewise(kind, (1, 1, 1), 0).activations)
    for x in (-1.0, -0.25, 0.0, 0.25, 0.5, 6.0, 7.0):
        batch = Batch.of([[x]], [[1]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
        posed, truth = pose(network, Question.of("mse", "sum", "known"), batch=batch)
        assert truth is not None
        names = [name for name in state_names(posed, 0) if not name.startswith("label")]
        fitting = []
        for bits in product([False, True], repeat=len(names)):
            script = encode(posed, dict(zip(names, bits, strict=True))).script
            stated = [f for comment, f in script.assertions if "hidden layer" in comment]
            if all(holds(formula, {"x_s0_0": Fraction(x)}) for formula in stated):
                fitting.append(bits)
        assert fitting == [truth.states[0][: len(names)]], x


def test_of_trained_slopes_their_own_gradient_is_a_constraint():
    """z = x, slope 1/4, real targets: of an active and an inactive sample the layers tell both loss vectors
    and one mean of both inputs, and what the slope gets tells the other.
    """
    layers = ReluNetwork.from_arrays([[[1]], [[2]]], [[0], [1]]).layers
    constant = Activation(slope=np.array([0.25]), name="LeakyReLU")
    networks = [
        PiecewiseNetwork(layers=layers, activations=(own,))
        for own in (constant, replace(constant, parameter="1.weight", name="PReLU"))
    ]
    batch = ([[2], [-2]], [[1], [-1]])
    asked = {"engine": "smt", "work_limit": 3_000_000, "loss": "mse", "labels": "real", "reduction": "sum"}
    leaky, trained = (certify(network, batch=batch, **asked) for network in networks)
    assert (leaky.outcome, leaky.trust) == (Outcome.AMBIGUOUS, Trust.CERTIFIED)
    assert trained.outcome is Outcome.UNIQUE
    forged = leaky.certificate | {"model_sha256": networks[1].digest}
    with pytest.raises(CertificateRejected, match="another gradient"):
        check(forged, networks[1], batch=batch)
    own = Batch.of(*batch, network=networks[1], loss=Loss.MSE, labels=Labels.REAL)
    given = dict(gradient(networks[1], own, Loss.MSE, Reduction.SUM).tensors)
    asked |= {"exact": True, "batch_size": 2}
    found = certify(networks[1], gradient=given, **asked)
    assert found.outcome is Outcome.UNIQUE
    assert Counter(found.batch.x) == Counter(own.x)
    less = {name: tensor for name, tensor in given.items() if name != "1.weight"}
    with pytest.raises(GradientError, match=r"'1\.weight' is missing"):
        certify(networks[1], gradient=less, **asked)
    with pytest.raises(GradientError, match=r"'1\.weight' has shape \(2,\), the parameter has \(1,\)"):
        certify(networks[1], gradient=given | {"1.weight": np.array([1, 2])}, **asked)
    assert certify(networks[1], gradient=given | {"1.weight": np.array([5])}, **asked).outcome in (
        Outcome.UNREALISABLE,
        Outcome.UNKNOWN,
    )


@pytest.mark.parametrize("loss", LABELS)
def test_beyond_an_end_a_sample_is_free(loss: str):
    """1-1-2 with values between 0 and 1: a sample at z >= 1 may be any other there, one strictly between is
    in every batch.
    """
    layers = ReluNetwork.from_arrays([[[2]], [[1], [-3]]], [[0], [1, 0]]).layers
    ends = Activation(slope=np.zeros(1), high=Fraction(1), name="Hardtanh")
    network = PiecewiseNetwork(layers=layers, activations=(ends,))
    batch = ([[0.25], [0.5]], LABELS[loss][:2])
    verdict = certify(network, batch=batch, engine="smt", work_limit=3_000_000, loss=loss)
    assert (verdict.outcome, verdict.samples[1]) == (Outcome.AMBIGUOUS, SampleStatus.FREE), verdict.reason
    assert verdict.samples[0] is not SampleStatus.FREE or loss == "hinge"
    assert check(verdict.certificate, network, batch=batch).outcome is Outcome.AMBIGUOUS
    narrower = certify(
        network, batch=batch, engine="smt", loss=loss, domain=Box(0, 0.5), work_limit=3_000_000
    )
    assert narrower.outcome is (Outcome.AMBIGUOUS if loss == "hinge" else Outcome.UNIQUE), narrower.reason


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
