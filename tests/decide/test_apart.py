"""Samples that exclusive neurons keep apart: any batch size, samples isolated in turn, forged evidence."""

import json

import msgspec
import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Apart, Split
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Labels, Loss, Release
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide import enumeration, families
from exan_verify.decide.lifting import apart
from exan_verify.decide.lifting.system import plan
from exan_verify.errors import CertificateRejected
from exan_verify.kernel.lifting.apart import facts as checked
from exan_verify.kernel.released import require_made_for
from tests.support.cases import batch_of, default_network, random_case
from tests.support.certificate_cases import assert_refused, assert_rejected, certify_as, plain
from tests.support.contexts import context_of, subject

FEATURES = 64


def trapped(
    counts, *, shared=(), classes=4, seed=0, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT, below=False
):
    """A network with so many exclusive neurons for each sample, and one for each set in ``shared``.

    A neuron looks along its samples' inputs, which are nearly orthogonal. ``below``: whether a layer that
    passes all inputs on comes first.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(counts), FEATURES))
    owners = [(a,) for a, count in enumerate(counts) for _ in range(count)] + list(shared)
    weight = np.array([x[list(m)].sum(axis=0) + 0.05 * rng.normal(size=FEATURES) for m in owners])
    bias = np.full(len(owners), -0.45 * FEATURES)
    weights, biases = [weight], [bias]
    if below:
        weights, biases = (
            [np.eye(FEATURES), weight],
            [np.full(FEATURES, 8.0), bias - 8.0 * weight.sum(axis=1)],
        )
    weights.append(rng.normal(size=(classes, len(owners))))
    biases.append(rng.normal(size=classes))
    network = ReluNetwork.from_arrays(
        [w.astype(np.float32) for w in weights], [b.astype(np.float32) for b in biases]
    )
    y = rng.integers(0, classes, len(counts))
    if not loss.class_labels:
        y = np.eye(classes)[y]
    return network, batch_of(network, x.astype(np.float32), y, loss, labels)


def found_in(network, batch, *question, **options):
    finding = apart.decide(context_of(network, batch, *question, **options), Budget())
    return finding.evidence[0] if finding.evidence else None


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE, Loss.MSE])
def test_batches_of_any_size_are_unique(loss):
    """K' + 2 neurons a pair: 3 for each of 40 samples at K' = 3 and 4; lifting lacks hundreds."""
    network, batch = trapped([3] * 40, loss=loss)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value)
    assert verdict.layer == 1
    assert "keep 40 of 40 samples apart" in verdict.reason
    assert [part["type"] for part in verdict.certificate["evidence"]] == ["apart"]
    assert check(json.dumps(verdict.certificate), network, batch=batch).outcome is Outcome.UNIQUE


@pytest.mark.parametrize("loss", [Loss.MSE, Loss.BCE])
def test_real_and_known_labels(loss):
    labels = Labels.REAL if loss is Loss.MSE else Labels.KNOWN
    network, batch = trapped([4] * 12, loss=loss, labels=labels)
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value, labels=labels.value)
    check(verdict.certificate, network, batch=batch)


def test_parallel_loss_vectors_are_not_apart():
    """Hinge knows few loss vectors: two samples that share theirs, up to a factor, are mixed by u."""
    network, batch = trapped([5] * 8, loss=Loss.HINGE, seed=4)
    context = context_of(network, batch, Loss.HINGE)
    vectors = context.image.delta(2)
    assert len({tuple(column) for column in vectors.T.tolist()}) < 8
    evidence = found_in(network, batch, Loss.HINGE)
    assert evidence is None or len(evidence.isolated) < 8


def test_one_neuron_less_is_not_enough():
    """Three classes: K' = 2, four neurons a pair. With one logit, or two classes, no number is enough."""
    assert len(found_in(*trapped([2] * 12, classes=3)).isolated) == 12
    assert found_in(*trapped([2] * 10 + [1] * 2, classes=3)) is None
    assert found_in(*trapped([9] * 12, classes=2)) is None


def test_samples_are_isolated_in_turn():
    """Samples 6 and 7 have two exclusive neurons, and more once the others are isolated."""
    shared = [(6, m) for m in range(3)] + [(7, m) for m in range(3)]
    network, batch = trapped([3] * 6 + [2] * 2, shared=shared)
    evidence = found_in(network, batch)
    assert set(evidence.isolated[:6]) == set(range(6))
    assert set(evidence.isolated[6:]) == {6, 7}
    assert evidence.determined == tuple(range(8))
    assert checked(evidence, subject(network, batch)).determined == frozenset(range(8))
    wrong = msgspec.structs.replace(evidence, isolated=evidence.isolated[::-1])
    assert_refused("too few exclusive", checked, wrong, subject(network, batch))


def test_what_is_left_is_lifted_in_its_own_span():
    network, batch = trapped(
        [7] * 20 + [2] * 4, shared=[(20, 21), (22, 23), (20, 23), (21, 22), (20, 22), (21, 23)] * 3
    )
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch)
    assert "lifting separates the other 4" in verdict.reason
    check(verdict.certificate, network, batch=batch)
    for changed in ({}, {"rank": 17}, {"unknowns": 21}, {"groups": [[20, 21], [22], [23]]}):
        certificate = plain(verdict.certificate)
        (evidence,) = certificate["evidence"]
        assert evidence["rest"]["members"] == [20, 21, 22, 23]
        evidence["rest"] |= changed
        if changed:
            assert_rejected(certificate, network, batch=batch)


def test_samples_of_layer_one_are_determined_alone():
    """Two samples share all their neurons, and one of the others cannot be told apart from them."""
    network, batch = trapped([6] * 6 + [0, 0], shared=[(6, 7)] * 3)
    context = context_of(network, batch)
    assert apart.decide(context, Budget()).evidence == ()  # samples 6 and 7 have no exclusive neurons
    network, batch = trapped([6] * 6 + [2, 2])
    evidence = found_in(network, batch)
    assert evidence.determined == tuple(range(6))
    assert evidence.rest is None
    verdict = certify(network, batch=batch, engine="lifting")
    assert verdict.samples == (SampleStatus.DETERMINED,) * 6 + (SampleStatus.UNKNOWN,) * 2
    assert check(verdict.certificate, network, batch=batch).samples == verdict.samples


def test_a_deeper_layer_asks_for_everybody_and_the_ranks_below():
    network, batch = trapped([4] * 10, below=True)
    evidence = found_in(network, batch)
    assert evidence.layer == 2
    assert checked(evidence, subject(network, batch)).determined == frozenset(range(10))
    network, batch = trapped([4] * 8 + [1] * 2, below=True)
    assert found_in(network, batch) is None


def test_no_other_engine_contradicts_it():
    """Small integer networks with affine dependences and equal weights: what is determined moves nowhere."""
    rng = np.random.default_rng(7)
    determined = 0
    for _ in range(60):
        samples, classes, neurons = int(rng.integers(2, 4)), int(rng.integers(3, 5)), int(rng.integers(6, 13))
        network = ReluNetwork.from_arrays(
            [rng.integers(-3, 4, (neurons, 2)), rng.integers(-2, 3, (classes, neurons))],
            [rng.integers(-3, 2, neurons), rng.integers(-1, 2, classes)],
        )
        x, y = rng.integers(-3, 4, (samples, 2)), rng.integers(0, classes, samples)
        batch = batch_of(network, x, y, Loss.CROSS_ENTROPY)
        context = context_of(network, batch)
        found = apart.decide(context, Budget()).facts
        determined += len(found.determined)
        for engine in (families, enumeration) if found.determined else ():
            (
                found | engine.decide(context, Budget(work=10**5)).facts
            )  # raises where they contradict each other
    assert determined > 10


def test_budgets_releases_and_missing_biases_end_it():
    network, batch = trapped([4] * 12)
    assert apart.decide(context_of(network, batch), Budget(work=10)).evidence == ()
    release = Release(rows={"0.weight": np.ones(len(network.layers[0].weight), dtype=bool)})
    assert found_in(network, batch, release=release) is None
    bare = ReluNetwork.from_arrays([layer.weight for layer in network.layers], [None, None])
    assert found_in(bare, batch) is None
    usual = default_network([20, 30, 5], seed=1)
    rng = np.random.default_rng(0)
    given = batch_of(usual, rng.normal(size=(20, 20)), rng.integers(0, 5, 20), Loss.CROSS_ENTROPY)
    assert found_in(usual, given) is None


@pytest.fixture(scope="module")
def example():
    network, batch = trapped([4] * 6 + [2, 2], shared=[(6, m) for m in range(3)] + [(7, m) for m in range(3)])
    return network, batch, found_in(network, batch)


REST = Split(layer=1, members=(6, 7), parametrisation="zero_sum", unknowns=9, rank=7, groups=((6,), (7,)))

FORGERIES = {
    "prime": ({"prime": 2**31 - 1}, "prime"),
    "point": ({"point": 1}, "point"),
    "layer": ({"layer": 2}, "no hidden layer"),
    "layer zero": ({"layer": 0}, "no hidden layer"),
    "single": ({"parametrisation": "single"}, "apart from nobody"),
    "unknowns that are not shown": ({"parametrisation": "column_space"}, "rank"),
    "an order that does not work": ({"isolated": (6, 7, 0, 1, 2, 3, 4, 5)}, "too few"),
    "twice": ({"isolated": (0, 0, 1, 2, 3, 4, 5, 6, 7)}, "twice"),
    "no such sample": ({"isolated": (8,)}, "there is none"),
    "one less": ({"isolated": (0, 1, 2, 3, 4, 5)}, "determined"),
    "nobody": ({"isolated": ()}, "determined"),
    "more determined": ({"determined": tuple(range(9))}, "determined"),
    "fewer determined": ({"determined": (0, 1)}, "determined"),
    "rest of nobody": ({"rest": REST}, "are left"),
    "rest of others": ({"isolated": (0, 1, 2, 3, 4), "rest": REST}, "are left"),
    "rest at a wrong layer": (
        {"isolated": (0, 1, 2, 3, 4, 5), "rest": msgspec.structs.replace(REST, layer=2)},
        "are left",
    ),
    "rest without the rank": ({"isolated": (0, 1, 2, 3, 4, 5), "rest": REST}, "rank|too few|groups"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_rejects_forged_evidence(example, name):
    network, batch, evidence = example
    assert evidence.determined == tuple(range(8))
    changed, match = FORGERIES[name]
    assert_refused(match, checked, msgspec.structs.replace(evidence, **changed), subject(network, batch))


def test_rejects_evidence_for_a_batch_whose_neurons_are_shared(example):
    """The same network, and a batch in which two samples activate the same neurons."""
    network, batch, evidence = example
    inputs = batch.inputs.copy()
    inputs[1] = inputs[0] + np.float32(2.0**-12) * inputs[1]
    other = batch_of(network, inputs, batch.labels, Loss.CROSS_ENTROPY)
    with pytest.raises(CertificateRejected):
        checked(evidence, subject(network, other))


def claimed(network, batch, **parts):
    """Evidence with this seed's prime and point, whatever the engine would say."""
    image = context_of(network, batch).image
    return Apart(prime=image.prime, point=image.point, **parts)


def test_rejects_samples_that_have_neurons_enough_and_are_not_apart():
    """Two classes: K' = 1, and every loss vector is a multiple of every other."""
    network, batch = trapped([5] * 6, classes=2)
    everyone = tuple(range(6))
    evidence = claimed(
        network, batch, layer=1, parametrisation="zero_sum", isolated=everyone, determined=everyone
    )
    assert_refused("not shown to be apart", checked, evidence, subject(network, batch))


def test_rejects_a_deeper_layer_with_samples_left():
    network, batch = trapped([5] * 6 + [2] * 2, below=True)
    parts = {"layer": 2, "parametrisation": "zero_sum", "isolated": tuple(range(6))}
    with pytest.raises(CertificateRejected, match="samples are open"):
        checked(claimed(network, batch, determined=tuple(range(6)), **parts), subject(network, batch))


def test_groups_of_the_rest_are_not_taken_for_single_samples():
    """Nobody isolated, and all lifted, two of whom share their pattern."""
    network, base = random_case([30, 60, 5], 4, seeds=(5, 1), dtype=np.float64)
    x = np.concatenate([base.inputs, base.inputs[:1] + 2.0**-30])
    y = np.append(base.labels, (base.labels[0] + 1) % 5)
    batch = batch_of(network, x, y, Loss.CROSS_ENTROPY)
    system = plan(context_of(network, batch), 1, tuple(range(5)))
    assert (0, 4) in system.groups
    rest = Split(
        layer=1,
        members=system.members,
        parametrisation=system.parametrisation,
        unknowns=system.unknowns,
        rank=system.target,
        groups=system.groups,
    )
    parts = {"layer": 1, "parametrisation": system.parametrisation, "isolated": (), "rest": rest}
    asked = subject(network, batch)
    assert checked(claimed(network, batch, determined=(1, 2, 3), **parts), asked).determined == {1, 2, 3}
    with pytest.raises(CertificateRejected, match="are determined"):
        checked(claimed(network, batch, determined=(0, 1, 2, 3), **parts), asked)


def test_rejects_evidence_about_a_release(example):
    """The argument is not made for one, even where all of the gradient is in it."""
    network, batch, evidence = example
    context = context_of(network, batch, release=Release(rows={"0.weight": np.ones(34, dtype=bool)}))
    assert_refused("no evidence about a release", require_made_for, evidence, context.question)
