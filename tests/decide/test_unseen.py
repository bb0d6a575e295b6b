"""Motions that the first layer does not see: their dimension and samples, in R^d and in a box."""

from fractions import Fraction
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from exan_verify import check
from exan_verify.api.certify import certify
from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Unseen
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Box, Loss, Reduction
from exan_verify.core.verdict import Engine, Outcome, SampleStatus
from exan_verify.decide.families import unseen as engine
from exan_verify.exact.backprop import backward, gradient
from exan_verify.exact.linalg import nullspace, rank
from exan_verify.exact.modular import PRIME
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel.second import unseen
from tests.support.cases import batch_of, default_network
from tests.support.certificate_cases import assert_refused, assert_rejected, plain
from tests.support.contexts import context_of, subject_of
from tests.support.family_cases import replay


@pytest.mark.parametrize(
    ("widths", "samples", "least"), [((784, 16, 10), 32, 12288), ((784, 64, 10), 96, 23040)]
)
def test_a_layer_narrower_than_the_batch_is_ambiguous(widths, samples, least):
    network = default_network(list(widths), seed=4)
    rng = np.random.default_rng(samples)
    batch = (rng.normal(size=(samples, 784)).astype(np.float32), rng.integers(0, 10, samples))
    verdict = certify(network, batch=batch)
    assert (verdict.outcome, verdict.engine) == (Outcome.AMBIGUOUS, Engine.FAMILIES)
    assert verdict.witness.dimension >= least
    assert verdict.samples.count(SampleStatus.FREE) > samples // 2
    assert SampleStatus.DETERMINED not in verdict.samples
    certificate = plain(verdict.certificate)
    assert [part["type"] for part in certificate["evidence"]] == ["unseen"]
    assert check(certificate, network, batch=batch).outcome is Outcome.AMBIGUOUS
    certificate["evidence"][0]["dimension"] += 1
    assert_rejected(certificate, network, "has dimension", batch=batch)


def drawn(seed):
    """A small batch with a rational loss, more samples than live neurons or nearly so."""
    rng = np.random.default_rng(seed)
    neurons, classes = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    features, samples = (neurons + int(rng.integers(0, 4)) for _ in range(2))
    widths = [features, neurons, *([3] if rng.integers(2) else []), classes]
    weights = [rng.integers(-4, 5, (b, a)) for a, b in pairwise(widths)]
    network = ReluNetwork.from_arrays(weights, [rng.integers(-3, 4, b) for b in widths[1:]])
    loss = (Loss.MSE, Loss.HINGE)[rng.integers(2)]
    y = rng.integers(0, classes, samples)
    x = rng.integers(0, 5, (samples, features))
    batch = batch_of(network, x, np.eye(classes, dtype=int)[y] if loss is Loss.MSE else y, loss)
    return context_of(network, batch, loss)


def whole_space(context):
    """All A with A W_1^T = 0, Delta_1 A = 0, by elimination over Q; (M d, q)."""
    network, x = context.network, context.batch.inputs
    samples, d = x.shape
    vectors = loss_vectors(context.question.loss, context.passed.logits, context.batch.labels, 1)
    delta = backward(network, context.passed, vectors)[0].fractions()
    weight = np.array([[Fraction(v) for v in row] for row in network.layers[0].weight.tolist()], dtype=object)
    eye = [
        np.array([[Fraction(int(i == k)) for k in range(n)] for i in range(n)], dtype=object)
        for n in (samples, d)
    ]
    return nullspace(np.concatenate([np.kron(eye[0], weight), np.kron(delta, eye[1])]))


def test_the_claim_is_at_most_what_elimination_finds_and_its_members_have_the_gradient():
    found = exact = moved = 0
    for seed in range(150):
        context = drawn(seed)
        part = engine.decide(context, Budget())
        if not part.facts.is_ambiguous:
            continue
        found += 1
        space = whole_space(context)
        assert part.dimension <= space.shape[1]
        exact += part.dimension == space.shape[1]
        shape = context.batch.inputs.shape
        rows = np.any(space != 0, axis=1).reshape(shape).any(axis=1)
        assert part.facts.free <= set(np.flatnonzero(rows).tolist())
        moved += len(part.facts.free)
        rng = np.random.default_rng(seed)
        steps = (space @ np.array(rng.integers(-3, 4, space.shape[1]).tolist(), dtype=object)).reshape(shape)
        scale = max(1, *(abs(v) for v in steps.reshape(-1)))
        other = batch_of(
            context.network,
            fractions(context.batch.inputs) + steps / scale,
            context.batch.labels,
            context.question.loss,
        )
        if other == context.batch:
            continue
        one, two = (
            gradient(context.network, b, context.question.loss, Reduction.MEAN)
            for b in (context.batch, other)
        )
        assert one == two
        if found % 8 == 1:
            replay(context, other)
    assert found > 60
    assert exact > 0
    assert moved > 100


def wedge():
    """2-1-2, three samples: one neuron that sees x_1 + x_2, alive for the first two samples."""
    network = ReluNetwork.from_arrays([[[1, 1]], [[1], [2]]], [[0], [0, 0]])
    x, y = [[1, 2], [2, 2], [-1, -1]], [0, 1, 0]
    batch = batch_of(network, x, y, Loss.CROSS_ENTROPY)
    return context_of(network, batch, Loss.CROSS_ENTROPY)


def test_forged_evidence_is_rejected():
    context = wedge()
    (evidence,) = engine.decide(context, Budget()).evidence
    assert (evidence.samples, evidence.dimension) == ((0, 1, 2), 2)
    assert unseen.facts(evidence, subject_of(context)).free == {0, 1, 2}
    for change, reason in (
        ({"samples": (0, 0)}, "named twice"),
        ({"samples": ()}, "named twice"),
        ({"samples": (0, 7)}, "no such sample"),
        ({"samples": (0,)}, "may have rank"),
        ({"samples": (0, 1)}, "has dimension 1"),
        ({"dimension": 3}, "has dimension 2"),
        ({"dimension": 1}, "has dimension 2"),
        ({"prime": 7}, "prime"),
        ({"point": 1}, "point"),
    ):
        assert_refused(reason, unseen.facts, msgspec.structs.replace(evidence, **change), subject_of(context))


def test_faces_of_the_box_hold_what_stands_on_them():
    context = wedge()
    network, batch = context.network, context.batch
    (evidence,) = engine.decide(context, Budget()).evidence
    blocked = context_of(network, batch, Loss.CROSS_ENTROPY, domain=Box(-1, 2))
    assert not engine.decide(blocked, Budget()).facts.is_ambiguous
    assert_refused("no more dimensions", unseen.facts, evidence, subject_of(blocked))
    loose = context_of(network, batch, Loss.CROSS_ENTROPY, domain=Box(-2, 3))
    assert engine.decide(loose, Budget()).facts.free == {0, 1, 2}


def test_a_copy_that_stays_keeps_its_sample():
    """Sample 2 equals sample 0 but does not move with the samples named: 0 is not called free."""
    network = ReluNetwork.from_arrays([[[1, 1]], [[1], [2]]], [[0], [0, 0]])
    batch = batch_of(network, [[1, 2], [2, 2], [1, 2]], [0, 1, 0], Loss.CROSS_ENTROPY)
    context = context_of(network, batch, Loss.CROSS_ENTROPY)
    point = context.image.point
    part = Unseen(samples=(0, 1), dimension=1, prime=(1 << 61) - 1, point=point)
    assert unseen.facts(part, subject_of(context)).free == {1}
    assert engine.decide(context, Budget()).facts.free == {0, 1, 2}


def test_a_sample_with_an_exclusive_neuron_stays():
    """Neuron 1 is active for sample 0 alone: e_0 is in the row space of Delta_1."""
    network = ReluNetwork.from_arrays([[[1, 1, 1], [1, 0, 0]], [[1, 3], [2, -1]]], [[0, -4], [0, 0]])
    x, y = [[5, 1, 1], [2, 2, 2], [1, 2, 1]], [0, 1, 0]
    batch = batch_of(network, x, y, Loss.CROSS_ENTROPY)
    part = engine.decide(context_of(network, batch, Loss.CROSS_ENTROPY), Budget())
    assert part.facts.free == {1, 2}


def test_short_of_rows_is_the_largest_surplus():
    rng = np.random.default_rng(5)
    for _ in range(60):
        live = rng.random((int(rng.integers(1, 5)), int(rng.integers(1, 7)))) < 0.4
        chosen = engine.short_of_rows(live)
        sets = [[m for m in range(live.shape[1]) if bits >> m & 1] for bits in range(1 << live.shape[1])]
        surplus = [len(s) - int(live[:, s].any(axis=1).sum()) for s in sets]
        assert len(chosen) - int(live[:, chosen].any(axis=1).sum()) == max(surplus)
        assert rank(np.array(live.astype(int) + 0, dtype=object)) <= live.shape[1] - max(surplus)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("loss", [Loss.MSE, Loss.BCE, Loss.CROSS_ENTROPY, Loss.HINGE])
def test_without_a_hidden_layer_only_loss_vectors_that_sum_to_zero_lose_a_rank(loss, seed):
    """As many samples as classes: loss vectors that sum to zero are a dimension short, others need not be."""
    rng = np.random.default_rng([seed, 5])
    classes = int(rng.integers(2, 5))
    features = classes + int(rng.integers(1, 4))
    network = ReluNetwork.from_arrays(
        [rng.integers(1, 9, (classes, features))], [rng.integers(-3, 4, classes)]
    )
    y = rng.integers(0, classes, classes)
    labels = y if loss in (Loss.CROSS_ENTROPY, Loss.HINGE) else np.eye(classes, dtype=int)[y]
    x = rng.integers(-5, 6, (classes, features))
    batch = batch_of(network, x, labels, loss)
    context = context_of(network, batch, loss)
    samples, point = tuple(range(classes)), context.image.point
    part = Unseen(samples=samples, dimension=features - classes, prime=(1 << 61) - 1, point=point)
    if loss in (Loss.CROSS_ENTROPY, Loss.HINGE):
        assert unseen.facts(part, subject_of(context)).is_ambiguous
    else:
        assert_refused("may have rank", unseen.facts, part, subject_of(context))
        assert not engine.decide(context, Budget()).facts.is_ambiguous


@pytest.mark.parametrize("seed", range(20))
def test_a_rank_that_is_short_modulo_the_prime_frees_nobody(seed):
    """[[a, 0, 0], [0, p, 0]] loses a rank mod p only: over the reals its column 1 is in no null vector."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(3)
    matrix = np.array([[int(rng.integers(1, 99)), 0, 0], [0, PRIME, 0]], dtype=object)[:, order]
    residues = (matrix % PRIME).astype(np.uint64)
    assert not unseen._not_always_zero(residues, 2).any()
    whole = np.where(matrix == PRIME, 7, matrix).astype(np.uint64)
    assert unseen._not_always_zero(whole, 2).tolist() == [k == 2 for k in order]
