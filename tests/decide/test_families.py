"""The families engine on hand-made cases: what is found, what must not be, and the certificates."""

import json
import math
from fractions import Fraction
from itertools import pairwise

import msgspec
import numpy as np
import pytest
import torch

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Counting, Move, SecondBatch, Shear
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide import families
from exan_verify.decide.families import radius
from exan_verify.decide.second_batch import downwards
from exan_verify.exact.modular import PRIME
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel.second import counting as counting_kernel
from exan_verify.kernel.second import second_batch
from exan_verify.kernel.second import shear as family
from tests.support import torch_reference
from tests.support.cases import batch_of, default_network, two_one_five_one
from tests.support.certificate_cases import assert_refused, assert_rejected, certify_as, change, plain
from tests.support.contexts import context_of, subject_of
from tests.support.family_cases import found_by_engine, replay, shown_to_kernel

FREE = SampleStatus.FREE


def cluster(widths, classes, *, seed=1, spread=2.0**-10, dtype=np.float32):
    """A default network and samples of the given classes close together: one region, checked by callers."""
    rng = np.random.default_rng(seed)
    network = default_network(widths, seed=2)
    base = rng.normal(size=widths[0])
    x = (base + rng.normal(size=(len(classes), widths[0])) * spread).astype(dtype)
    return network, x, np.array(classes)


@pytest.mark.parametrize(("classes", "found"), [((0, 0, 1, 1), True), ((0, 0, 0), True), ((0, 0, 1), False)])
def test_orbits_by_class_counts(classes, found):
    network, x, y = cluster([2, 8, 2], classes)
    context = context_of(network, batch_of(network, x, y), Loss.MSE)
    finding = found_by_engine(context)
    assert finding.facts.is_ambiguous is found
    assert shown_to_kernel(context, finding) == finding.facts
    if found:
        assert finding.facts.free == frozenset(range(len(classes)))
        assert finding.witness.dimension == 1
        replay(context, finding.witness.batch)
        assert all(0 < r < 1 for r in finding.witness.radius)


def test_the_dimension_of_an_orbit_counts_planes():
    network, x, y = cluster([3, 8, 4], (0, 0, 0, 0, 0))
    finding = found_by_engine(context_of(network, batch_of(network, x, y), Loss.MSE))
    # SO(4) on three directions: 6 - 0 dimensions
    assert finding.witness.dimension == 6


def test_the_zero_pre_activation_counterexample_is_not_ambiguous():
    """P2: UNIQUE although no neuron is exclusive; the only shear is blocked."""
    network = ReluNetwork.from_arrays([[[1, 0], [-1, 1], [-1, -1]], [[1, 1, 1]]], [[0, 1, 1], [0]])
    batch = batch_of(network, [[1, 0], [2, 0]], [[0.0], [0.0]])
    assert not found_by_engine(context_of(network, batch, Loss.MSE)).facts.is_ambiguous
    away = batch_of(network, [[1, Fraction(1, 8)], [2, 0]], [[0.0], [0.0]])
    assert not found_by_engine(context_of(network, away, Loss.MSE)).facts.is_ambiguous
    inside = batch_of(network, [[2, 0], [3, 0]], [[0.0], [0.0]])
    assert found_by_engine(context_of(network, inside, Loss.MSE)).facts.free == {0, 1}


def one_neuron():
    """f = max(x_1 + x_2, 0): along (1, -1) nothing changes."""
    return ReluNetwork.from_arrays([[[1, 1]], [[1]]], [[0], [0]])


def test_faces_of_the_box_block_what_they_should():
    network = one_neuron()
    batch = batch_of(network, [[1, 1], [1, 2]], [[0.0], [0.0]])
    free = found_by_engine(context_of(network, batch, Loss.MSE))
    assert free.facts.free == {0, 1}
    assert free.witness.radius == (math.inf, math.inf)
    # x_1 may only grow and x_2 only fall for both samples, but alpha has opposite signs
    blocked = context_of(network, batch, Loss.MSE, domain=Box([1, 0], [9, 9]))
    assert not found_by_engine(blocked).facts.is_ambiguous
    # the first sample inside the box, the second on two faces that its own sign allows
    turned = batch_of(network, [[2, 1], [1, 3]], [[0.0], [0.0]])
    allowed = found_by_engine(context_of(network, turned, Loss.MSE, domain=Box([1, 0], [9, 3])))
    assert allowed.facts.free == {0, 1}
    assert allowed.witness.radius[0] <= 1


def test_a_dead_set_that_is_a_single_point():
    """x dead iff x <= 0 and -x <= 0."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 2]]], [[0, 0], [0]])
    alone = batch_of(network, [[0], [3]], [[1.0], [1.0]])
    assert not found_by_engine(context_of(network, alone, Loss.MSE)).facts.is_ambiguous
    wider = ReluNetwork.from_arrays([[[1], [-1]], [[1, 2]]], [[0, -1], [0]])
    batch = batch_of(wider, [[0], [3]], [[1.0], [1.0]])
    finding = found_by_engine(context_of(wider, batch, Loss.MSE))
    assert finding.facts.free == {0}
    assert finding.witness.radius == (pytest.approx(1, rel=0.02), 0.0)


def test_a_silent_sample_with_a_second_place_in_another_region():
    """f = max(x - 1, 0) + max(-x, 0), y = 1: silent at x = 2 and at x = -1 only."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 1]]], [[-1, 0], [0]])
    batch = batch_of(network, [[2], [Fraction(1, 2)], [5]], [[1.0], [0.0], [1.0]])
    context = context_of(network, batch, Loss.MSE, domain=Box(-9, 9))
    finding = found_by_engine(context)
    assert 0 in finding.facts.free
    assert shown_to_kernel(context, finding) == finding.facts
    known = context_of(network, batch_of(network, [[2], [5]], [[1.0], [1.0]]), Loss.MSE, labels=Labels.KNOWN)
    assert found_by_engine(known).witness.batch.x[0] == (-1,)
    boxed = context_of(
        network,
        batch_of(network, [[2], [5]], [[1.0], [1.0]]),
        Loss.MSE,
        labels=Labels.KNOWN,
        domain=Box(1, 9),
    )
    assert not found_by_engine(boxed).facts.is_ambiguous


def test_a_motion_without_end_inside_its_cone_needs_no_exact_program(monkeypatch):
    """The directions of doubles have thousands of digits: an exact program over them takes seconds."""
    rng = np.random.default_rng(1)
    pairs = list(pairwise((4, 5, 2, 3)))
    network = ReluNetwork.from_arrays(
        [rng.normal(size=(b, a)) for a, b in pairs], [rng.normal(size=b) for _, b in pairs]
    )
    batch = rng.normal(size=(2, 4)), rng.integers(0, 3, 2)

    def too_long(_):
        raise AssertionError("asked for an exact program")

    monkeypatch.setattr(radius, "solve", too_long)
    verdict = certify(network, batch=batch, loss="mse", labels="known", engine="families")
    assert verdict.witness.radius == (0.0, math.inf)
    check(plain(verdict.certificate), network, batch=batch)


def test_tied_margins_of_hinge():
    """One sample, two classes, margin exactly met: it may go up, not down; alone in a box it is stuck."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [0]]], [[0], [0, 0]])
    batch = batch_of(network, [[1], [Fraction(1, 2)]], [0, 0], Loss.HINGE)
    finding = found_by_engine(context_of(network, batch, Loss.HINGE))
    assert 0 in finding.facts.free
    assert finding.witness.radius[0] == math.inf
    stuck = context_of(network, batch, Loss.HINGE, domain=Box(0, 1))
    assert 0 not in found_by_engine(stuck).facts.free


def test_known_labels_may_be_reflected():
    """|S| - r = 1 and no two labels equal: the reflection is no permutation."""
    network, x, _ = cluster([2, 8, 1], (0, 0, 0))
    y = [[0.0], [1.0], [5.0]]
    context = context_of(network, batch_of(network, x, y, labels=Labels.KNOWN), Loss.MSE, labels=Labels.KNOWN)
    finding = found_by_engine(context)
    assert finding.facts.free == {0, 1, 2}
    replay(context, finding.witness.batch)


def test_real_labels_of_equal_inputs():
    network = default_network([2, 6, 2], seed=3, dtype=np.float64)
    y = [[0.0, 1.0], [2.0, -1.0]]
    batch = batch_of(network, [[0.5, 0.25], [0.5, 0.25]], y, labels=Labels.REAL)
    context = context_of(network, batch, Loss.MSE, labels=Labels.REAL)
    finding = found_by_engine(context)
    assert finding.facts.free == {0, 1}
    assert finding.witness.radius == (0.0, 0.0)
    replay(context, finding.witness.batch)


def test_the_linear_family_has_the_dimension_of_its_formula():
    """One region, injective backward map: (|S| - rank G) (d - rank A) dimensions."""
    rng = np.random.default_rng(0)
    for features, count in ((4, 3), (5, 4), (6, 3)):
        network, x, y = cluster([features, 9, 2], rng.integers(0, 2, count), seed=count)
        context = context_of(network, batch_of(network, x, y), Loss.MSE)
        vectors = loss_vectors(Loss.MSE, context.passed.logits, context.batch.labels, 1)
        nullity = count - np.linalg.matrix_rank(vectors.astype(float))
        patterns = context.passed.patterns[0]
        assert (patterns == patterns[:, :1]).all()
        assert patterns[:, 0].sum() >= 2
        assert found_by_engine(context).witness.dimension == nullity * (features - 2)


@pytest.mark.parametrize(
    ("loss", "classes"), [(Loss.CROSS_ENTROPY, 3), (Loss.CROSS_ENTROPY, 2), (Loss.BCE, 2)]
)
@pytest.mark.parametrize("widths", [[5, 9], [30, 40, 30]])
def test_shears_by_counting_move_the_batch_and_keep_autograds_gradient(loss, classes, widths):
    """The coefficients, which the argument only shows to exist, from a float64 null space."""
    network, x, y = cluster([*widths, classes], range(classes + 1), dtype=np.float64)
    y = y % classes
    labels = np.stack([y % 2, y // 2], axis=1).astype(float) if loss is Loss.BCE else y
    batch = batch_of(network, x, labels, loss)
    context = context_of(network, batch, loss)
    finding = found_by_engine(context)
    assert finding.facts.free == frozenset(range(classes + 1))
    assert shown_to_kernel(context, finding) == finding.facts
    (shear,) = finding.evidence
    logits = context.passed.logits.astype(float)
    if loss is Loss.BCE:
        g = 1 / (1 + np.exp(-logits)) - labels.T
    else:
        g = np.exp(logits) / np.exp(logits).sum(axis=0) - np.eye(classes)[y].T
    alpha = np.linalg.svd(g)[2][-1]
    v = np.zeros(widths[0])
    for k, value in shear.direction:
        v[k] = float(Fraction(value))
    step = 0.01 * min(finding.witness.radius) / np.abs(alpha).max() / np.abs(v).max()
    moved = Batch.of(x + step * alpha[:, None] * v, labels, network=network, loss=loss, labels=Labels.ONE_HOT)
    before, after = (torch_reference.gradient(network, b, loss, Reduction.MEAN) for b in (batch, moved))
    for name, value in before.items():
        np.testing.assert_allclose(value, after[name], rtol=1e-9, atol=1e-12)
    assert not np.allclose(x, moved.inputs, rtol=0, atol=step / 10 * np.abs(alpha).max())


def test_a_generic_batch_is_not_ambiguous():
    network = default_network([6, 30, 4], seed=1)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 6)).astype(np.float32)
    for loss in Loss:
        y = np.eye(4)[[0, 1, 2, 3]] if loss in (Loss.MSE, Loss.BCE) else [0, 1, 2, 3]
        finding = found_by_engine(context_of(network, batch_of(network, x, y, loss), loss))
        assert not finding.facts.is_ambiguous


def test_a_network_without_hidden_layer_is_one_region():
    network = ReluNetwork.from_arrays([[[1, 2]]], [[1]])
    batch = batch_of(network, [[1, 0], [0, 1], [2, 2]], [[0.0], [1.0], [0.0]])
    context = context_of(network, batch, Loss.MSE)
    finding = found_by_engine(context)
    assert finding.facts.free == {0, 1, 2}
    replay(context, finding.witness.batch)


def test_one_class_says_nothing_about_anything():
    """cross_entropy with one class is zero: every sample may go anywhere in its region."""
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 1]]], [[0, 0], [0]])
    context = context_of(
        network, batch_of(network, [[1, 1], [2, 1]], [0, 0], Loss.CROSS_ENTROPY), Loss.CROSS_ENTROPY
    )
    finding = found_by_engine(context)
    assert finding.facts.free == {0, 1}
    assert shown_to_kernel(context, finding) == finding.facts


def test_a_spent_budget_is_said():
    network, x, y = cluster([2, 8, 2], (0, 0, 0))
    budget = Budget(work=1)
    budget.spend(2)
    finding = families.decide(context_of(network, batch_of(network, x, y), Loss.MSE), budget)
    assert not finding.facts.is_ambiguous
    assert "work limit of 1 units ran out" in finding.attempts[0].note


def test_certify_gives_ambiguous_with_witness_and_certificate():
    network, x, y = cluster([2, 8, 2], (0, 0, 1, 1))
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=(x, y), loss="mse")
    assert verdict.samples == (FREE,) * 4
    assert check(plain(verdict.certificate), network, batch=(x, y)).outcome is Outcome.AMBIGUOUS
    assert verdict.witness.batch is not None


def test_radii_are_rounded_down():
    third = Fraction(1, 3)
    assert Fraction(downwards(third)) <= third
    assert downwards(Fraction(1, 10)) <= 0.1
    assert downwards(None) == math.inf


@pytest.fixture(scope="module")
def orbit():
    network, x, y = cluster([2, 8, 2], (0, 0, 1, 1))
    return network, (x, y), plain(certify(network, batch=(x, y), loss="mse").certificate)


@pytest.fixture(scope="module")
def shear():
    network, x, y = cluster([5, 9, 3], (0, 1, 2, 0))
    verdict = certify(network, batch=(x, y))
    return network, (x, y), plain(verdict.certificate)


MOVES = ("evidence", 0, "moves")
ORBIT_TAMPERS = {
    "mix entry": ((*MOVES, 0, "mix", 0, 1), "1/3"),
    "mix not a number": ((*MOVES, 0, "mix", 0, 1), "one"),
    "mix sample out of range": ((*MOVES, 0, "mix", 0, 0), 7),
    "one move dropped": (MOVES, lambda moves: moves[1:]),
    "no moves": (MOVES, []),
    "a sample moved twice": (MOVES, lambda moves: [*moves, moves[0]]),
    "a sample that does not exist": ((*MOVES, 0, "sample"), 9),
    "a negative sample": ((*MOVES, 0, "sample"), -1),
    "an unknown direction": ((*MOVES, 0, "steps"), [[0, "1"]]),
    "another target": ((*MOVES, 0, "target"), [[0, "1"]]),
    "a class for a target": ((*MOVES, 0, "label"), 1),
    "solved targets for one-hot labels": (("evidence", 0, "solved"), True),
    "outcome": (("claim", "outcome"), "unknown"),
    "determined": (("claim", "samples", 0), "determined"),
    "a domain that the second batch leaves": (
        ("claim", "question", "domain"),
        [["-1000", "-1000"], ["1000", "-1000"]],
    ),
}


@pytest.mark.parametrize("name", ORBIT_TAMPERS)
def test_rejects_tampered_second_batches(orbit, name):
    network, batch, certificate = orbit
    assert check(certificate, network, batch=batch).outcome is Outcome.AMBIGUOUS
    assert_rejected(change(certificate, *ORBIT_TAMPERS[name]), network, batch=batch)


def test_a_permutation_is_no_second_batch(orbit):
    network, batch, certificate = orbit
    swap = [{"sample": 0, "mix": [[1, "1"]]}, {"sample": 1, "mix": [[0, "1"]]}]
    assert_rejected(change(certificate, MOVES, swap), network, "another order", batch=batch)


def test_a_certificate_holds_no_input(orbit, shear):
    for _, (x, _), certificate in (orbit, shear):
        text = json.dumps(certificate)
        assert all(str(Fraction(float(value))) not in text for value in x.reshape(-1))


PART = ("evidence", 0)
SHEAR_TAMPERS = {
    "direction entry": ((*PART, "direction", 0, 1), "1/7"),
    "zero direction": ((*PART, "direction"), []),
    "direction out of range": ((*PART, "direction", 0, 0), 5),
    "one sample fewer": ((*PART, "samples"), [0, 1, 2]),
    "a sample twice": ((*PART, "samples"), [0, 1, 2, 2]),
    "a sample out of range": ((*PART, "samples"), [0, 1, 2, 4]),
    "no samples": ((*PART, "samples"), []),
    "prime": ((*PART, "prime"), 7),
    "point": ((*PART, "point"), 0),
    "loss of another kind": (("claim", "question", "loss"), "mse"),
    "status": (("claim", "samples", 1), "unknown"),
}


@pytest.mark.parametrize("name", SHEAR_TAMPERS)
def test_rejects_tampered_shears(shear, name):
    network, batch, certificate = shear
    assert check(certificate, network, batch=batch).outcome is Outcome.AMBIGUOUS
    assert_rejected(change(certificate, *SHEAR_TAMPERS[name]), network, batch=batch)


def test_a_shear_over_two_regions_is_rejected(shear):
    network, (x, y), certificate = shear
    other = x.copy()
    other[3] = -10 * other[3]
    batch = Batch.of(other, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    forged = change(certificate, ("batch_sha256",), batch.digest)
    assert_rejected(forged, network, "share their patterns", batch=batch)


def test_a_shear_that_touches_a_limit_is_rejected(shear):
    network, (x, y), certificate = shear
    used = [k for k, _ in certificate["evidence"][0]["direction"]]
    lo, hi = ["-1000"] * 5, ["1000"] * 5
    lo[used[0]] = str(Fraction(float(x[:, used[0]].min())))
    forged = change(certificate, ("claim", "question", "domain"), [lo, hi])
    assert_rejected(forged, network, "face of the box", batch=(x, y))


def two_in_a_region(loss, labels, *, tied=False):
    """d = 2, K logits from one neuron x_1 + 4; a second neuron x_2 (zero for the first sample when tied)."""
    top = [[1, 0], [2, 0], [4, 0]] if loss is not Loss.BCE else [[1, 0]]
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1]], top], [[4, 0 if tied else -9], [0] * len(top)])
    return context_of(network, batch_of(network, [[1, 0], [2, -3]], labels, loss), loss)


def shear_of(context, samples, direction):
    return Shear(samples=samples, direction=direction, prime=PRIME, point=context.image.point)


def test_shears_are_refused_for_the_right_reason():
    up = ((1, "1"),)
    bce = two_in_a_region(Loss.BCE, [[1.0], [0.0]])
    assert family.facts(shear_of(bce, (0, 1), up), subject_of(bce)).free == {0, 1}
    tied = two_in_a_region(Loss.BCE, [[1.0], [0.0]], tied=True)
    refused = [
        (tied, (0, 1), up, "zero pre-activation"),
        (bce, (0, 0), up, "named twice"),
        (bce, (0,), up, "may have independent"),
        (bce, (0, 1), ((0, "1"),), "changes the loss vectors"),
        (bce, (0, 1), ((1, "1"), (1, "-1")), "direction is zero"),
        (two_in_a_region(Loss.CROSS_ENTROPY, [0, 1]), (0, 1), up, "may have independent"),
        (two_in_a_region(Loss.MSE, [0, 1]), (0, 1), up, "independent"),
    ]
    for context, samples, direction, reason in refused:
        assert_refused(reason, family.facts, shear_of(context, samples, direction), subject_of(context))


def test_shears_that_move_a_tied_margin_are_refused():
    network = ReluNetwork.from_arrays([[[1, 1]], [[1], [0]]], [[0], [0, 0]])
    for x, refused in (
        ([[1, 0], [Fraction(1, 2), 0]], True),
        ([[Fraction(1, 4), 0], [Fraction(1, 2), 0]], False),
    ):
        context = context_of(network, batch_of(network, x, [0, 0], Loss.HINGE), Loss.HINGE)
        evidence = shear_of(context, (0, 1), ((0, "1"),))
        if not refused:
            assert family.facts(evidence, subject_of(context)).free == {0, 1}
            continue
        assert_refused("tied margin", family.facts, evidence, subject_of(context))


def test_second_batches_are_refused_for_the_right_reason():
    network = one_neuron()
    y = [[0.0], [1.0]]
    context = context_of(
        network, batch_of(network, [[1, 1], [3, 1]], y), Loss.MSE, domain=Box([0, 0], [4, 4])
    )
    along = (((0, "1"), (1, "-1")),)
    known = context_of(
        network, batch_of(network, [[1, 1], [3, 1]], y, labels=Labels.KNOWN), Loss.MSE, labels=Labels.KNOWN
    )

    classes = two_in_a_region(Loss.HINGE, [0, 1])

    def move(sample, **changes):
        return Move(**{"sample": sample, "mix": ((sample, "1"),)} | changes)

    refused = [
        (context, (), "moves no sample"),
        (context, (move(0), move(0)), "moved twice"),
        (context, (move(0, steps=((0, "-2"),)),), "outside the domain"),
        (context, (move(0, steps=((0, "1"),)),), "another gradient"),
        (context, (move(0, target=((0, "1/2"),)),), "not admitted"),
        (context, (move(0),), "another order"),
        (known, (move(0, target=((0, "1"),)),), "other labels"),
        (classes, (move(0, target=((0, "1"),)),), "no target vector"),
        (classes, (move(0, label=7),), "not admitted"),
        (context, (move(0, label=1),), "not a class"),
    ]
    for asked, moves, reason in refused:
        evidence = SecondBatch(directions=along, moves=moves)
        assert_refused(reason, second_batch.facts, evidence, subject_of(asked))


def bottleneck(seed=3):
    """One neuron below samples of different regions, one logit: 2-1-5-1, as bce."""
    network, batch, _ = two_one_five_one(seed)
    return context_of(network, batch_of(network, batch.inputs, batch.labels, Loss.BCE), Loss.BCE)


def test_counting_across_regions_moves_the_batch_and_keeps_autograds_gradient():
    context = next(c for c in map(bottleneck, range(50)) if not _one_region(c) and _alive(c))
    part = families.counting.decide(context, Budget())
    assert part.facts.free == {0, 1}
    (counting,) = [e for e in part.evidence if isinstance(e, Counting)]
    assert counting_kernel.facts(counting, subject_of(context)) == part.facts
    # by hand: x_m + t alpha_m v with W_1 v = 0 and sum alpha_m delta_1^m = 0
    module = torch_reference.module(context.network)
    x = torch.tensor(context.batch.inputs.astype(float), requires_grad=True)
    torch.nn.functional.binary_cross_entropy_with_logits(
        module(x), torch.tensor(context.batch.labels)
    ).backward()
    weight = context.network.layers[0].weight[0]
    delta = x.grad.numpy()[:, 0] / weight[0]
    v = np.array([weight[1], -weight[0]])
    moved = context.batch.inputs + 1e-3 * np.array([delta[1] * v, -delta[0] * v])
    other = batch_of(context.network, moved, context.batch.labels, Loss.BCE)
    before, after = (
        torch_reference.gradient(context.network, b, Loss.BCE, Reduction.MEAN) for b in (context.batch, other)
    )
    for name, value in before.items():
        np.testing.assert_allclose(value, after[name], rtol=1e-9, atol=1e-15)
    for tampered, reason in (
        (msgspec.structs.replace(counting, samples=(0, 0)), "named twice"),
        (msgspec.structs.replace(counting, samples=(0,)), "dimensions of motion against"),
        (msgspec.structs.replace(counting, samples=(0, 5)), "no such sample"),
        (msgspec.structs.replace(counting, prime=7), "prime"),
        (msgspec.structs.replace(counting, point=0), "point"),
    ):
        assert_refused(reason, counting_kernel.facts, tampered, subject_of(context))


def _one_region(context):
    return all((p == p[:, :1]).all() for p in context.passed.patterns)


def _alive(context):
    return (
        all(p.any(axis=0).all() for p in context.passed.patterns)
        and not any(z.any() for z in context.passed.zeros)
        and all(np.all(d != 0) for d in context.image.deltas[:1])
    )
