"""Releases: which arguments are asked, what they prove of the rows that are sent, and what nothing proves."""

from fractions import Fraction

import numpy as np
import pytest

from exan_verify import Release, audit
from exan_verify.api.certify import certify
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Projected
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide import released
from exan_verify.decide.families import unseen
from exan_verify.decide.pipeline import ENGINE_ORDER
from exan_verify.errors import InputError
from exan_verify.exact.backprop import backward
from exan_verify.exact.linalg import multiply, nullspace
from exan_verify.exact.softmax import loss_vectors
from tests.support import torch_reference
from tests.support.cases import as_floats, default_network
from tests.support.certificate_cases import accepted, assert_rejected, certify_as
from tests.support.contexts import context_of
from tests.support.release_cases import batch_of, narrower, network_of, release_of, same_sent, sent


@pytest.fixture(scope="module")
def digits_shape():
    """784-512-10 with PyTorch's default numbers, and 16 normal inputs."""
    network = default_network([784, 512, 10], seed=4)
    rng = np.random.default_rng(16)
    return network, (rng.normal(size=(16, 784)).astype(np.float32), rng.integers(0, 10, 16))


def test_half_of_the_first_layers_rows_determine_the_batch(digits_shape):
    network, batch = digits_shape
    rows = np.zeros(512, dtype=bool)
    rows[np.random.default_rng(3).permutation(512)[:264]] = True
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, release=Release(rows={"0.weight": rows}))
    assert "264 of its 512 neurons" in verdict.reason
    certificate = accepted(verdict, network, batch)
    rows[np.flatnonzero(rows)[0]] = False  # 263 equations for a rank of 264
    certificate["claim"]["question"]["release"]["rows"]["0.weight"] = rows.tolist()
    assert_rejected(certificate, network, "263 equations", batch=batch)


def test_positive_weights_of_the_samples_change_nothing(digits_shape):
    network, batch = digits_shape
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, release=Release(weights="positive"))
    assert "whatever the samples' positive weights" in verdict.reason
    assert verdict.meaning.startswith("exactly one batch has this release")
    accepted(verdict, network, batch)


@pytest.mark.parametrize(
    ("tensors", "outcome"),
    [
        (["0.weight", "0.bias"], Outcome.UNIQUE),  # the next deltas are loss vectors: labels too
        (["2.weight", "2.bias", "0.bias"], Outcome.AMBIGUOUS),
        (["0.weight", "2.weight", "2.bias"], Outcome.UNIQUE),  # dW_1 without db_1
    ],
)
def test_tensors_that_are_missing(digits_shape, tensors, outcome):
    network, batch = digits_shape
    verdict = certify_as(outcome, network, batch=batch, release=Release(tensors=tensors))
    if outcome is Outcome.AMBIGUOUS:
        assert set(verdict.samples) == {SampleStatus.FREE}
        assert verdict.witness.dimension == 16 * (784 - 512)
    if outcome is Outcome.UNKNOWN:
        assert verdict.certificate is None
        assert "only the tensors 0.weight" in verdict.reason
    else:
        accepted(verdict, network, batch)


def test_few_rows_hide_what_the_first_layer_does_not_see(digits_shape):
    network, batch = digits_shape
    rows = np.zeros(512, dtype=bool)
    rows[:10] = True
    verdict = certify(network, batch=batch, release=Release(rows={"0.weight": rows}))
    assert (verdict.outcome, verdict.witness.dimension) == (Outcome.AMBIGUOUS, (16 - 10) * (784 - 512))
    certificate = accepted(verdict, network, batch)
    rows[:11] = True
    certificate["claim"]["question"]["release"]["rows"]["0.weight"] = rows.tolist()
    assert_rejected(certificate, network, "has dimension", batch=batch)


def projected_network(rng, widths, rank):
    """A first layer V B^T, and B."""
    plain = network_of(rng, [rank, *widths[1:]])
    basis = rng.integers(-3, 4, (widths[0], rank))
    basis[:rank] += 8 * np.eye(rank, dtype=int)  # independent columns
    first = multiply(plain.layers[0].weight, np.ascontiguousarray(basis.T))
    weights = [first, *(layer.weight for layer in plain.layers[1:])]
    return ReluNetwork.from_arrays(weights, [layer.bias for layer in plain.layers]), basis


def test_a_projected_first_layer_hides_every_sample():
    rng = np.random.default_rng(5)
    network, basis = projected_network(rng, [40, 12, 5], 6)
    batch = rng.normal(size=(3, 40)), rng.integers(0, 5, 3)
    for more in ({}, {"weights": "positive"}, {"tensors": ["0.weight", "2.bias"]}):
        release = Release(input_basis=basis, **more)
        verdict = certify(network, batch=batch, release=release)
        assert (verdict.outcome, verdict.witness.dimension) == (Outcome.AMBIGUOUS, 3 * (40 - 6))
        assert set(verdict.samples) == {SampleStatus.FREE}
        certificate = accepted(verdict, network, batch)
        certificate["claim"]["question"]["release"]["input_basis"][0][0] = "1/2"
        assert_rejected(certificate, network, "not V B", batch=batch)


def test_a_model_on_projected_inputs_is_asked_about_the_inputs():
    """V on B^T x, as it is trained, and V B^T on x are one network."""
    rng = np.random.default_rng(6)
    whole, basis = projected_network(rng, [12, 9, 3], 4)
    bottleneck = network_of(np.random.default_rng(6), [4, 9, 3])
    batch, release = (rng.normal(size=(2, 12)), [0, 2]), Release(input_basis=basis)
    verdicts = [certify(network, batch=batch, release=release) for network in (whole, bottleneck)]
    assert verdicts[0].certificate["evidence"] == verdicts[1].certificate["evidence"]
    assert "sees B^T x" in verdicts[1].notes[0]
    for verdict in verdicts:
        for network in (whole, bottleneck):
            accepted(verdict, network, batch)
    found = audit(bottleneck, batch, release=release)
    assert found.verdict.outcome is Outcome.AMBIGUOUS
    assert (found.widths, found.radius) == ((12, 9, 3), (np.inf, np.inf))


@pytest.mark.parametrize("domain", [None, Box(-4, 4)])
def test_members_of_a_projected_family_have_the_release(domain):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network, basis = projected_network(rng, [6, 5, 4, 3], 2)
        loss = (Loss.MSE, Loss.HINGE)[seed % 2]
        batch, release = batch_of(rng, network, 3, loss), Release(input_basis=basis)
        verdict = certify(network, batch=batch, loss=loss.value, domain=domain, release=release)
        inside = np.array([[domain is None or -4 < v < 4 for v in row] for row in batch.x])
        if not np.any(inside.sum(axis=1) > 2):
            continue
        assert verdict.outcome is Outcome.AMBIGUOUS
        dimension, moved = 0, np.array(batch.x, dtype=object)
        for m, own in enumerate(inside):
            space = nullspace(multiply(np.eye(6, dtype=int)[own] @ basis, np.eye(2, dtype=int)).T)
            dimension += space.shape[1]
            if space.shape[1]:
                assert verdict.samples[m] is SampleStatus.FREE
                moved[m, own] += multiply(space, rng.integers(1, 9, (space.shape[1], 1)))[:, 0]
        part = Projected(**{k: v for k, v in verdict.certificate["evidence"][0].items() if k != "type"})
        assert part.dimension == dimension
        other = Batch.of(moved, batch.labels, network=network, loss=loss, labels=Labels.ONE_HOT)
        weights = [Fraction(int(v)) for v in rng.integers(1, 5, 3)]
        assert same_sent(
            sent(network, batch, loss, release, weights), sent(network, other, loss, release, weights)
        )
        before, after = (
            torch_reference.gradient(network, as_floats(b), loss, Reduction.SUM) for b in (batch, other)
        )
        np.testing.assert_allclose(before["0.weight"] @ basis, after["0.weight"] @ basis, atol=1e-6)
        np.testing.assert_allclose(before["2.weight"], after["2.weight"], atol=1e-6)


def test_members_of_a_family_of_unsent_rows_have_the_release():
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        network = network_of(rng, [5, 3, 4, 2] if seed % 2 else [5, 4, 2])
        loss = (Loss.MSE, Loss.HINGE)[rng.integers(2)]
        batch, release = batch_of(rng, network, 3, loss), release_of(rng, network, 0.5)
        context = context_of(network, batch, loss, release=release)
        part = unseen.decide(context, Budget())
        if not part.evidence:
            continue
        found += 1
        vectors = loss_vectors(loss, context.passed.logits, batch.labels, 1)
        delta = backward(network, context.passed, vectors)[0].fractions()
        delta = delta[release.sends("0.weight", len(delta))]
        weight = network.layers[0].weight.astype(int)
        rows = [np.kron(np.eye(3, dtype=int), weight)]
        rows += [np.kron(delta, np.eye(5, dtype=int))] * bool(len(delta))
        space = nullspace(np.concatenate(rows))
        assert 0 < part.dimension <= space.shape[1]
        step = multiply(space, rng.integers(1, 99, (space.shape[1], 1))).reshape(3, 5)
        x = np.array(batch.x, dtype=object)
        other = Batch.of(x + step, batch.labels, network=network, loss=loss, labels=Labels.ONE_HOT)
        assert same_sent(sent(network, batch, loss, release), sent(network, other, loss, release))
        assert all(tuple(row) not in other.x for row in x[sorted(part.facts.free)])
    assert found > 10


def test_less_never_determines_what_more_leaves_open():
    seen = set()
    for seed in range(16):
        rng = np.random.default_rng(seed)
        loss = list(Loss)[rng.integers(4)]
        network = network_of(rng, [int(rng.integers(1, 4)), int(rng.integers(2, 14)), 3])
        batch = batch_of(rng, network, 2, loss)
        chain = [None, release_of(rng, network, 0.9)]
        chain += [narrower(rng, chain[1], 0.8)]
        verdicts = [
            certify(network, batch=batch, loss=loss.value, release=r, engine="exact", work_limit=10**5)
            for r in chain
        ]
        for k, wide in enumerate(verdicts):
            for narrow in verdicts[k + 1 :]:
                assert not (wide.outcome is Outcome.AMBIGUOUS and narrow.outcome is Outcome.UNIQUE)
                for a, b in zip(wide.samples, narrow.samples, strict=True):
                    assert not (a is SampleStatus.FREE and b is SampleStatus.DETERMINED)
        for verdict in verdicts[1:]:
            seen.add(verdict.outcome)
            if verdict.certificate is not None:
                accepted(verdict, network, batch)
    assert {Outcome.UNIQUE, Outcome.AMBIGUOUS} <= seen


def test_an_ambiguous_gradient_is_an_ambiguous_release():
    network = ReluNetwork.from_arrays(
        [[[1, 0], [0, 1], [1, 1]], [[1, 1, -1], [2, 1, 1]]], [[1, 1, 1], [0, 0]]
    )
    batch = [[1, 1], [3, 1], [2, 5], [4, 4]], [0, 0, 0, 0]
    ask = {"batch": batch, "loss": "mse"}
    assert certify(network, **ask).outcome is Outcome.AMBIGUOUS
    release = Release(tensors=["0.weight", "0.bias"])
    verdict = certify_as(Outcome.AMBIGUOUS, network, **ask, release=release)
    accepted(verdict, network, (np.array(batch[0]), np.eye(2)[batch[1]]))


def test_without_biases_twins_carry_over_and_uniqueness_with_dw_1():
    """softmax, K = 2, a positive margin: c x has the contribution of x for some c; else lifting decides."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(30, 4)), rng.normal(size=(2, 30))]
    network = ReluNetwork.from_arrays(weights)
    x = rng.normal(size=(2, 4))
    right = (np.maximum(x @ weights[0].T, 0) @ weights[1].T).argmax(axis=1)
    for y, whole, weighted in (
        (right, Outcome.AMBIGUOUS, Outcome.AMBIGUOUS),
        (1 - right, Outcome.UNIQUE, Outcome.UNKNOWN),
    ):
        assert certify(network, batch=(x, y)).outcome is whole
        for release, outcome in (
            (Release(weights="positive"), weighted),
            (Release(tensors=["0.weight"]), whole),  # the argument of the scale needs no more
        ):
            verdict = certify_as(outcome, network, batch=(x, y), release=release)
            if verdict.certificate is not None:
                accepted(verdict, network, (x, y))


def test_one_sample_is_told_by_what_is_sent_of_it():
    network = network_of(np.random.default_rng(2), [3, 6, 3])
    batch = np.array([[2.0, 1.0, -1.0]]), [1]
    for tensors, outcome in (
        (None, Outcome.UNIQUE),
        (["0.weight", "0.bias"], Outcome.UNIQUE),
        (["2.weight", "2.bias"], Outcome.UNKNOWN),
    ):
        release = Release(tensors=tensors, weights="positive" if tensors is None else "equal")
        verdict = certify(network, batch=batch, release=release)
        assert verdict.outcome is outcome, tensors
        if verdict.certificate is not None:
            accepted(verdict, network, batch)


@pytest.mark.parametrize(("logits", "outcome"), [((2, -1), Outcome.UNKNOWN), ((2, 1), Outcome.UNIQUE)])
def test_parallel_loss_vectors_are_confused_by_weights(logits, outcome):
    """mse: f - e_0 and f - e_1 are parallel for f = (2, -1)."""
    weights, hidden = np.array([[1, 2, -1], [2, 1, -1]]), [2, 3, 4]
    network = ReluNetwork.from_arrays([[[1], [2], [3]], weights], [[1, 1, 1], logits - weights @ hidden])
    certify_as(outcome, network, batch=([[1]], [0]), loss="mse", release=Release(weights="positive"))


def test_with_real_labels_weights_are_never_told():
    network = network_of(np.random.default_rng(2), [2, 9, 2])
    batch = [[1, 2], [3, -1]], [[1, 0], [0, 2]]
    ask = {"batch": batch, "loss": "mse", "labels": "real"}
    verdict = certify(network, **ask, release=Release(weights="positive"))
    assert SampleStatus.DETERMINED not in verdict.samples


def test_every_engine_is_asked_or_named():
    """A new engine is not asked about a release before somebody has looked whether it is proved for one."""
    names = {engine for engine, _ in ENGINE_ORDER}
    assert set(released.ENGINES) < names
    network = network_of(np.random.default_rng(0), [2, 2, 2])
    verdict = certify(
        network, batch=([[1, 2], [0, 1]], [0, 1]), release=Release(tensors=["2.bias", "0.weight"])
    )
    if verdict.outcome is Outcome.UNKNOWN:
        assert "residual, enumeration, smt are not made" in verdict.reason


def test_solvers_are_not_asked():
    network = network_of(np.random.default_rng(0), [2, 2, 2])
    release = Release(tensors=["2.bias", "0.weight"])
    verdict = certify(network, batch=([[1, 2], [0, 1]], [0, 1]), release=release, engine="smt")
    assert verdict.outcome is Outcome.UNKNOWN
    assert "smt" in verdict.reason


def test_all_rows_are_the_whole_gradient():
    network = network_of(np.random.default_rng(1), [3, 8, 2])
    everything = Release(rows={"0.weight": [True] * 8}, tensors=[name for name, _ in network.parameters()])
    batch = [[1, 2, 1], [0, 1, 3]], [0, 1]
    verdict = certify(network, batch=batch, release=everything)
    assert verdict.release is None
    assert verdict.certificate is None or "release" not in verdict.certificate["claim"]["question"]


@pytest.mark.parametrize(
    ("release", "named"),
    [
        (Release(tensors=["5.weight"]), "5.weight"),
        (Release(rows={"0.weight": [True]}), "has 1 entries"),
        (Release(tensors=["0.bias"], rows={"0.weight": [True] * 8}), "not among the tensors"),
        (Release(input_basis=[[1], [2]]), "2 rows"),
        ({"tensors": ["0.weight"]}, "Release"),
    ],
)
def test_releases_that_do_not_fit(release, named):
    network = network_of(np.random.default_rng(1), [3, 8, 2])
    with pytest.raises(InputError, match=named):
        certify(network, batch=([[1, 2, 3]], [0]), release=release)


def test_a_gradient_alone_is_asked_about_whole():
    network = network_of(np.random.default_rng(1), [3, 8, 2])
    given = {name: np.ones(array.shape, dtype=int) for name, array in network.parameters()}
    with pytest.raises(InputError, match="batch="):
        certify(network, gradient=given, loss="mse", release=Release(weights="positive"))
