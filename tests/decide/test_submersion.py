"""Releases with fewer independent entries than inputs have coordinates: second batches close by."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.optimize import least_squares

from exan_verify import Box, Release, check
from exan_verify.api.certify import certify
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Submersion
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide.families import submersion
from exan_verify.decide.second_batch import counted
from exan_verify.exact.modular import PRIME
from exan_verify.kernel.second import facts
from tests.support.cases import as_floats, default_network, random_case
from tests.support.certificate_cases import assert_refused, assert_rejected, plain
from tests.support.contexts import context_of, subject_of
from tests.support.release_cases import batch_of, release_of

BIASES = Release(tensors=["0.bias", "2.bias"])


def drawn(seed):
    """A small network with generic numbers, many samples, and a release of the whole gradient or of rows."""
    rng = np.random.default_rng(seed)
    loss = (Loss.CROSS_ENTROPY, Loss.BCE, Loss.MSE)[seed % 3]
    deeper = [int(rng.integers(2, 5))] if seed % 2 else []
    widths = [int(rng.integers(1, 4)), int(rng.integers(1, 5)), *deeper, int(rng.integers(2, 4))]
    shapes = list(zip(widths[1:], widths, strict=False))
    biases = [rng.normal(size=b) for b, _ in shapes]
    network = ReluNetwork.from_arrays(
        [rng.normal(size=shape) for shape in shapes], biases if rng.integers(4) else None
    )
    y = batch_of(rng, network, int(rng.integers(6, 20)), loss).labels
    x = rng.normal(size=(len(y), widths[0]))
    batch = Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)
    return rng, network, loss, batch, release_of(rng, network, 0.6) if seed % 4 else None


def sent_floats(network, batch, loss, release):
    """What is sent of the gradient in floating point, as one vector; the reduction is a sum."""
    hidden, active = [batch.inputs.T], []
    for layer in network.layers:
        bias = 0 if layer.bias is None else np.asarray(layer.bias, float)[:, None]
        z = np.asarray(layer.weight, float) @ hidden[-1] + bias
        active.append(z > 0)
        hidden.append(np.maximum(z, 0))
    y = batch.labels
    if loss is Loss.CROSS_ENTROPY:
        p = np.exp(z - z.max(axis=0))
        delta = p / p.sum(axis=0) - np.eye(len(z))[np.asarray(y, int)].T
    else:
        delta = 1 / (1 + np.exp(-z)) - y.T if loss is Loss.BCE else 2 * (z - y.T)
    parts = []
    for k in range(len(network.layers), 0, -1):
        layer = network.layer(k)
        for (name, _), found in zip(
            layer.parameters(), (delta @ hidden[k - 1].T, delta.sum(1)), strict=False
        ):
            rows = slice(None) if release is None else release.sends(name, len(delta))
            parts.append(found[rows].reshape(-1))
        if k > 1:
            delta = (np.asarray(layer.weight, float).T @ delta) * active[k - 2]
    return np.concatenate(parts)


def difference(network, base, moves, given, loss, release, step):
    """What is sent after the coordinates in ``moves`` took a step, less what is ``given``."""
    moved = base.inputs.copy()
    moved[moves] += step
    return sent_floats(network, replace(base, inputs=moved), loss, release) - given


@pytest.mark.parametrize("domain", [None, Box(-1, 1)])
def test_there_is_a_second_batch_close_by_and_the_rank_is_that_of_all_that_is_sent(domain):
    found = 0
    for seed in range(40):
        _, network, loss, batch, release = drawn(seed)
        if domain is not None:
            x = np.clip(batch.inputs, -1, 1)
            batch = Batch.of(x, batch.labels, network=network, loss=loss, labels=Labels.ONE_HOT)
        context = context_of(network, batch, loss, release=release, domain=domain)
        part = submersion.decide(context, Budget())
        if not part.evidence:
            continue
        found += 1
        (evidence,) = part.evidence
        count = counted(context, evidence)
        assert count.motions - count.equations == part.dimension > 0
        base = as_floats(batch)
        x = base.inputs
        moves = np.zeros(x.shape, dtype=bool)
        moves[list(evidence.samples)] = True
        moves &= True if domain is None else (np.abs(x) < 1)
        assert int(moves.sum()) == count.motions
        given = sent_floats(network, base, loss, release)

        apart = partial(difference, network, base, moves, given, loss, release)
        size = count.motions
        jacobian = np.stack([(apart(e) - apart(-e)) / 2e-6 for e in 1e-6 * np.eye(size)], axis=1)
        values = np.linalg.svd(jacobian, compute_uv=False)
        assert (values > 1e-6 * values[0]).sum() <= count.equations, "no rank is above the count of entries"
        _, _, rows = np.linalg.svd(jacobian)
        kernel = rows[count.equations :]
        direction = kernel.T @ np.random.default_rng(seed).normal(size=len(kernel))
        start = 2e-3 * direction / np.abs(direction).max()
        back = least_squares(apart, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
        assert np.abs(back.fun).max() < 1e-9 * max(1, np.abs(given).max())
        assert np.abs(back.x).max() > 1e-3
        if found == 8:
            break
    assert found > 4


def test_bias_gradients_alone_determine_no_sample():
    network, batch = random_case([12, 60, 4], 4, seeds=(1, 2))
    for more in ({}, {"weights": "positive"}):
        verdict = certify(network, batch=batch, release=Release(tensors=["0.bias", "2.bias"], **more))
        # four loss vectors of three dimensions are all that the bias gradients are made of
        assert (verdict.outcome, verdict.witness.dimension) == (Outcome.AMBIGUOUS, 48 - 12)
        assert set(verdict.samples) == {SampleStatus.FREE}
        certificate = plain(verdict.certificate)
        assert check(certificate, network, batch=batch).outcome is Outcome.AMBIGUOUS


def test_a_sample_on_a_face_stays_and_is_not_claimed():
    network = default_network([3, 6, 3], seed=1)
    x = np.random.default_rng(0).uniform(0.1, 0.9, (3, 3))
    x[1] = [0, 1, 0]
    verdict = certify(network, batch=(x, [0, 1, 2]), release=Release(tensors=["2.bias"]), domain=Box(0, 1))
    assert [status.value for status in verdict.samples] == ["free", "unknown", "free"]
    check(verdict.certificate, network, batch=(x, [0, 1, 2]))


def test_tampering_is_rejected():
    network, batch = random_case([4, 8, 3], 4, seeds=(1, 2))
    verdict = certify(network, batch=batch, release=BIASES, engine="families")
    certificate = plain(verdict.certificate)
    (index,) = [k for k, part in enumerate(certificate["evidence"]) if part["type"] == "submersion"]
    certificate["evidence"] = [certificate["evidence"][index]]

    def rejected(match, *, release=None, loss=None, **evidence):
        forged = plain(certificate)
        forged["claim"]["question"]["release"] |= release or {}
        forged["claim"]["question"]["loss"] = loss or "cross_entropy"
        forged["evidence"][0] |= evidence
        assert_rejected(forged, network, match, batch=batch)

    check(certificate, network, batch=batch)
    rejected("nothing open|has rank", release={"tensors": ["0.weight", "0.bias", "2.weight", "2.bias"]})
    rejected("hinge jumps", loss="hinge")
    rejected("the evidence shows|nothing open", samples=[0, 1, 2])
    rejected("named twice", samples=[0, 0])
    rejected("no such sample", samples=[9])
    rejected("outside", point=1)
    rejected("the prime", prime=7)
    basis = [[str(int(i == k)) for k in range(4)] for i in range(4)]
    rejected("no evidence about a release", release={"input_basis": basis})
    rejected("no evidence about a release|different labels", release={"averages": [[0], [1], [2, 3]]})


def test_a_kink_is_rejected():
    """A pre-activation of zero: there the gradient need not be differentiable."""
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 2], [-1, 1]]], [[1, 1], [0, 0]])
    release = Release(tensors=["2.bias"])
    batch = np.array([[1, 1], [2, 1]]), [0, 1]
    certificate = json.loads(
        json.dumps(certify(network, batch=batch, release=release, engine="families").certificate)
    )
    certificate["evidence"] = [part for part in certificate["evidence"] if part["type"] == "submersion"]
    if certificate["evidence"]:
        check(certificate, network, batch=batch)
    kinked = np.array([[-1, 1], [2, 1]]), [0, 1]
    context = context_of(
        network,
        Batch.of(*kinked, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT),
        Loss.CROSS_ENTROPY,
        release=release,
    )
    part = submersion.decide(context, Budget())
    assert all(0 not in evidence.samples for evidence in part.evidence)
    assert 0 not in part.facts.free
    kinked_evidence = Submersion(samples=(0, 1), prime=PRIME, point=context.image.point)
    assert_refused("kink", facts, kinked_evidence, subject_of(context))


def test_entries_that_depend_on_each_other_are_rejected():
    """Of two rows, three equal samples: their columns of the Jacobian are equal, and six are too few."""
    rng = np.random.default_rng(0)
    network = ReluNetwork.from_arrays([np.eye(6), rng.normal(size=(3, 6))], [np.ones(6), np.zeros(3)])
    x = rng.uniform(0, 1, (2, 6))
    release = Release(tensors=["0.weight"], rows={"0.weight": [True] + [False] * 5})
    batch = Batch.of(x, [0, 1], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    context = context_of(network, batch, release=release)
    evidence = Submersion(samples=(0, 1), prime=PRIME, point=context.image.point)
    assert facts(evidence, subject_of(context)).free == {0, 1}
    release = Release(tensors=["0.weight"], rows={"0.weight": [True] * 2 + [False] * 4})
    x = np.concatenate([x, rng.uniform(0, 1, (1, 6))])
    for chosen, rejects in (([0, 1, 2], False), ([0, 0, 0], True)):
        batch = Batch.of(
            x[chosen], [0, 0, 0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT
        )
        context = context_of(network, batch, release=release)
        evidence = Submersion(samples=(0, 1, 2), prime=PRIME, point=context.image.point)
        if not rejects:
            assert facts(evidence, subject_of(context)).free == {0, 1, 2}
            continue
        assert_refused("12 entries has rank 6", facts, evidence, subject_of(context))
