"""Motions that the first two layers do not see and that leave faces of the box inwards."""

import json
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from exan_verify import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Inwards
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Box, Loss, Release, Weights
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.data import mnist_batch
from exan_verify.decide.families import linear
from exan_verify.decide.families import unseen as engine
from exan_verify.errors import BudgetExhausted, CertificateRejected
from exan_verify.exact.softmax import loss_vectors_ball
from exan_verify.kernel.second import inwards, second_layer, unseen
from tests.support import torch_reference
from tests.support.cases import batch_of, default_network
from tests.support.certificate_cases import assert_refused, assert_rejected, certify_as, plain
from tests.support.contexts import context_of, subject_of

FACE = 4
"""The box is [0, FACE]."""


def drawn(seed, losses):
    """A small batch with many inputs on faces, more samples than live neurons or nearly so."""
    rng = np.random.default_rng([seed, 77])
    neurons, classes = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    features, samples = neurons + int(rng.integers(1, 5)), neurons + int(rng.integers(1, 4))
    widths = [[features, neurons, classes], [features, neurons, 3, classes], [features, classes]]
    widths = widths[int(rng.choice(3, p=[0.7, 0.2, 0.1]))]
    network = ReluNetwork.from_arrays(
        [rng.integers(-9, 10, (b, a)) for a, b in pairwise(widths)],
        [rng.integers(-3, 12, b) for b in widths[1:]],
    )
    loss = losses[int(rng.integers(len(losses)))]
    y = rng.integers(0, classes, samples)
    faces = rng.random((samples, features)) < rng.random()
    x = np.where(faces, rng.choice([0, FACE], faces.shape), rng.integers(1, FACE, faces.shape))
    vectors = loss in (Loss.MSE, Loss.BCE)
    batch = batch_of(network, x, np.eye(classes, dtype=int)[y] if vectors else y, loss)
    return context_of(network, batch, loss, domain=Box(0, FACE))


def leaving(part):
    """The evidence of a part that leaves faces, if there is one."""
    parts = [e for e in part.evidence if e.inwards is not msgspec.UNSET]
    return parts[0] if parts else None


def pair(x=((0, 2, 2), (2, 0, 2)), loss=Loss.MSE, **asked):
    """3-1-2: one neuron sees x_1 + x_2 + x_3; both deltas are positive, so that samples move oppositely."""
    network = ReluNetwork.from_arrays([[[1, 1, 1]], [[1], [2]]], [[1], [0, 0]])
    batch = batch_of(network, x, np.eye(2, dtype=int)[[0, 1, 0][: len(x)]], loss)
    return context_of(network, batch, loss, domain=Box(0, FACE), **asked)


def test_two_samples_that_leave_one_face_each():
    context = pair()
    part = engine.decide(context, Budget())
    evidence = leaving(part)
    assert evidence.inwards.layer == 1
    assert (part.dimension, part.facts.free) == (2, {0, 1})
    assert linear.family(context).dimension == 2
    motion = np.array(evidence.inwards.motion)
    assert motion[0, 0] > 0
    assert motion[1, 1] > 0


@pytest.mark.parametrize(
    ("x", "dimension"),
    [
        (((0, 2, 2), (0, 2, 2)), 1),  # the first input of one sample would leave the box
        (((0, 2, 2), (0, 4, 2)), 1),
        (((0, 0, 2), (2, 0, 2)), 1),
        (((0, 0, 2), (0, 0, 2)), 0),
        (((0, 0, 0), (2, 2, 2)), 0),  # a sum of steps that are not negative is zero: all are
        (((0, 0, 4), (2, 2, 2)), 2),
    ],
)
def test_what_blocks_one_sample_blocks_the_other(x, dimension):
    part = engine.decide(pair(x), Budget())
    assert (part.dimension or 0) == dimension
    assert linear.family(pair(x)).dimension == dimension


def forged(evidence, **changed):
    return msgspec.structs.replace(evidence, inwards=msgspec.structs.replace(evidence.inwards, **changed))


def test_a_feature_whose_box_is_a_point_does_not_move():
    context = pair()
    flat = context_of(context.network, context.batch, Loss.MSE, domain=Box([0, 0, 2], [4, 4, 2]))
    part = engine.decide(flat, Budget())
    evidence = leaving(part)
    assert part.dimension == linear.family(flat).dimension == 1
    motion = ((1, -2, 1), (-1, 2, -1))
    with pytest.raises(CertificateRejected, match="leaves the box"):
        unseen.facts(forged(evidence, features=(0, 1, 2), motion=motion), subject_of(flat))


def test_forged_motions_are_rejected():
    context = pair(((0, 2, 4), (2, 0, 2)))
    evidence = leaving(engine.decide(context, Budget()))
    true = forged(evidence, features=(0, 1, 2), motion=((2, -1, -1), (-4, 2, 2)))
    assert unseen.facts(true, subject_of(context)).free == {0, 1}
    for change, reason in (
        ({"features": (0, 1, 3)}, "no such feature"),
        ({"features": (0, 1, 1)}, "named twice"),
        ({"features": (), "motion": ((), ())}, "no such feature"),
        ({"features": (0, 1)}, "another shape"),
        ({"motion": ((2, -1, -1),)}, "another shape"),
        ({"motion": ((2, -1), (-4, 2, 2))}, "another shape"),
        ({"motion": ((-2, 1, -1), (-4, 2, 2))}, "lower face"),
        ({"motion": ((2, -1, 1), (-4, 2, 2))}, "upper face"),
        # near to these integers there is no motion, or one that goes the other way
        ({"motion": ((2, -1, -1), (9, 2, 2))}, "not shown to leave"),
        ({"motion": ((1, 3, -1), (-1, 3, 3))}, "not shown to leave"),
        ({"motion": ((0, 0, 0), (0, 0, 0))}, "1 equations of 0 unknowns"),
    ):
        assert_refused(reason, unseen.facts, forged(true, **change), subject_of(context))
    for dimension in (evidence.dimension - 1, evidence.dimension + 1):
        with pytest.raises(CertificateRejected, match="has dimension 2"):
            unseen.facts(msgspec.structs.replace(evidence, dimension=dimension), subject_of(context))
    everywhere = context_of(context.network, context.batch, Loss.MSE)
    assert_refused("no faces", unseen.facts, true, subject_of(everywhere))
    nothing = forged(true, features=(2,), motion=((0,), (0,)))
    assert_refused("nothing is shown to move", unseen.facts, nothing, subject_of(pair()))


def test_the_second_layer_is_asked_only_where_there_is_one_and_no_kink():
    context = pair()
    motion = Inwards(layer=2, features=(0, 1, 2), motion=((2, -1, -1), (-4, 2, 2)))
    evidence = msgspec.structs.replace(leaving(engine.decide(context, Budget())), inwards=motion)
    last = ReluNetwork.from_arrays([[[1, 1, 1]]], [[-9]])
    alone = batch_of(last, context.batch.inputs, [[0], [1]], Loss.BCE)
    with pytest.raises(CertificateRejected, match="no second layer"):
        unseen.facts(evidence, subject_of(context_of(last, alone, Loss.BCE, domain=Box(0, FACE))))
    kink = ReluNetwork.from_arrays([[[1, 1, 1], [1, 1, 2]], [[1, 0], [2, 0]]], [[1, -6], [0, 0]])
    batch = batch_of(kink, context.batch.inputs, context.batch.labels)
    with pytest.raises(CertificateRejected, match="pre-activation is zero"):
        unseen.facts(evidence, subject_of(context_of(kink, batch, Loss.MSE, domain=Box(0, FACE))))


def test_a_copy_that_stays_keeps_its_sample():
    """The last sample equals the first: where it is not named, the first is not called free."""
    context = pair(((0, 2, 2), (2, 0, 2), (0, 2, 2)))
    evidence = leaving(engine.decide(pair(), Budget()))
    assert evidence.samples == (0, 1)
    assert unseen.facts(evidence, subject_of(context)).free == {1}
    assert engine.decide(context, Budget()).facts.free == {0, 1, 2}


@pytest.mark.parametrize("weights", list(Weights))
def test_rows_that_are_not_sent_do_not_hold_the_samples(weights):
    """Two live neurons and two samples: the whole gradient moves nothing here, one of its rows does."""
    network = ReluNetwork.from_arrays([[[1, 1, 1, 0], [1, 1, 0, 1]], [[1, 1], [2, -3]]], [[1, 2], [0, 0]])
    batch = batch_of(network, [[0, 2, 2, 1], [2, 0, 2, 1]], [0, 1], Loss.CROSS_ENTROPY)
    whole = context_of(network, batch, domain=Box(0, FACE))
    assert not engine.decide(whole, Budget()).facts.is_ambiguous
    release = Release(rows={"0.weight": [True, False]}, weights=weights)
    part = engine.decide(context_of(network, batch, domain=Box(0, FACE), release=release), Budget())
    assert part.facts.free == {0, 1}


def test_no_claim_is_larger_than_the_exact_cone_of_motions():
    """mse and hinge: the family of all first-order motions, whose cone at the faces is found over Q."""
    layers = {1: 0, 2: 0}
    blocked = tight = 0
    for seed in range(60, 90):
        context = drawn(seed, (Loss.MSE, Loss.HINGE))
        part = engine.decide(context, Budget())
        exact = linear.family(context)
        assert (part.dimension or 0) <= exact.dimension
        moved = np.any(exact.generators != 0, axis=1).reshape(context.batch.inputs.shape).any(axis=1)
        assert part.facts.free <= set(np.flatnonzero(moved).tolist())
        blocked += not exact.dimension
        evidence = leaving(part)
        if evidence is not None:
            layers[evidence.inwards.layer] += 1
            tight += evidence.dimension == exact.dimension
    assert min(layers.values()) > 3
    assert blocked > 2
    assert tight > 2


def float_motion(context, evidence):
    """A motion near the evidence's, by least squares in floating point: what autograd is asked about."""
    network, batch, loss = context.network, context.batch, context.question.loss
    samples, inwards = list(evidence.samples), evidence.inwards
    vectors = loss_vectors_ball(loss, context.passed.logits, batch.labels, 1)
    delta = np.array([[float(v) for v in row] for row in vectors.tolist()])
    deltas = [delta]
    for layer, pattern in zip(network.layers[:0:-1], context.passed.patterns[::-1], strict=True):
        deltas.insert(0, (layer.weight.T.astype(float) @ deltas[0]) * pattern)
    first = deltas[0][:, samples]
    weight = network.layers[0].weight.astype(float)[:, list(inwards.features)]
    eye = np.eye(len(samples)), np.eye(len(inwards.features))
    rows = [np.kron(first, eye[1])]
    seen = np.kron(eye[0], weight)
    if inwards.layer == 1:
        rows.append(seen)
    else:
        active = context.passed.patterns[0][:, samples].astype(float)
        outer = network.layers[1].weight.astype(float)
        if len(network.layers) == 2 and loss.zero_sum:
            outer = outer - outer[-1]
        rows.append(np.einsum("cj,jm,mn->cmnj", outer, active, eye[0]).reshape(-1, seen.shape[0]) @ seen)
        other = np.einsum("cm,jm,ij->cimj", deltas[1][:, samples], active, np.eye(len(weight)))
        rows.append(other.reshape(-1, seen.shape[0]) @ seen)
    table, target = np.concatenate(rows), np.array(inwards.motion, dtype=float).reshape(-1)
    face = np.isin(batch.inputs[samples][:, list(inwards.features)].astype(float), (0, FACE)).reshape(-1)
    free = ~face | (target != 0)
    own = table[:, free]
    target[free] -= np.linalg.pinv(own) @ (own @ target[free])
    found = np.zeros(batch.inputs.shape)
    found[np.ix_(samples, list(inwards.features))] = target.reshape(len(samples), -1)
    return found


def test_autograd_has_the_same_gradient_along_the_motion_inside_the_box():
    layers = {1: 0, 2: 0}
    for seed in range(40):
        context = drawn(seed, (Loss.CROSS_ENTROPY, Loss.BCE))
        evidence = leaving(engine.decide(context, Budget()))
        if evidence is None:
            continue
        layers[evidence.inwards.layer] += 1
        motion = float_motion(context, evidence)
        x, loss = context.batch.inputs.astype(np.float64), context.question.loss
        assert motion[x == 0].min(initial=0.0) >= 0
        assert motion[x == FACE].max(initial=0.0) <= 0
        assert np.abs(motion).max() > 0
        first = context.network.layers[0].weight.astype(float)
        bias = context.network.layers[0].bias.astype(float)
        before, rate = x @ first.T + bias, motion @ first.T
        # half of the way to the next kink or face
        ends = [(x, motion), (FACE - x, -motion), (np.abs(before), np.where(before > 0, rate, -rate))]
        limits = [(at / np.maximum(-by, 1e-300))[(by < -1e-9) & (at > 0)] for at, by in ends]
        other = x + motion * min(np.concatenate([[1.0], *limits])) / 2
        assert other.min() >= 0
        assert other.max() <= FACE
        gradients = [
            torch_reference.gradient(
                context.network,
                batch_of(context.network, inputs, context.batch.labels, loss),
                loss,
                context.question.reduction,
            )
            for inputs in (x, other)
        ]
        for name, value in gradients[0].items():
            np.testing.assert_allclose(
                value, gradients[1][name], rtol=1e-8, atol=1e-10 * (1 + np.abs(value).max())
            )
    assert min(layers.values()) > 2


def test_the_second_layer_of_a_wider_network_lets_all_samples_leave():
    network = default_network([60, 24, 3], seed=1)
    rng = np.random.default_rng(0)
    x = np.where(rng.random((36, 60)) < 0.45, 0, rng.random((36, 60))).astype(np.float32)
    batch = x, rng.integers(0, 3, 36)
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch, domain=Box(0, 1), engine="families")
    certificate = plain(verdict.certificate)
    (part,) = certificate["evidence"]
    assert part["inwards"]["layer"] == 2
    assert check(certificate, network, batch=batch).outcome is Outcome.AMBIGUOUS
    part["inwards"]["motion"][3][5] = 1 << 40
    assert_rejected(certificate, network, batch=batch)


def test_digits_leave_the_faces_of_the_box():
    """784-16-10 with 32 digits: pixels of 0 may grow. What is strictly inside has far fewer dimensions."""
    network = default_network([784, 16, 10], seed=4)
    batch = mnist_batch(32, seed=1)
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch, domain=Box(0, 1))
    assert verdict.witness.dimension > 2000
    assert verdict.samples.count(SampleStatus.FREE) > 24
    text = json.dumps(verdict.certificate)
    assert len(text) < 250_000
    assert check(json.loads(text), network, batch=batch).outcome is Outcome.AMBIGUOUS


def test_what_is_read_is_bounded_before_it_is_computed(monkeypatch):
    context = pair()
    true = leaving(engine.decide(context, Budget()))
    for layer, module, name, reason in (
        (1, inwards, "MAX_WORK", "motion is too large"),
        (2, second_layer, "MAX_STEPS", "second layer is too wide"),
        (2, second_layer, "MAX_PRODUCTS", "too many equations"),
    ):
        evidence = forged(true, layer=layer)
        assert unseen.family(evidence, subject_of(context)).dimension == 2
        with monkeypatch.context() as patched:
            patched.setattr(module, name, 0)
            assert_refused(reason, unseen.family, evidence, subject_of(context))


def test_a_budget_that_ends_in_the_search_keeps_what_moves_both_ways(monkeypatch):
    context = pair(((0, 2, 2), (0, 2, 2)))

    def ends(*_):
        raise BudgetExhausted("over")

    monkeypatch.setattr(engine.inwards, "found", ends)
    part = engine.decide(context, Budget())
    assert leaving(part) is None
    assert part.dimension == 1
