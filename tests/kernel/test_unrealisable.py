"""Evidence for UNREALISABLE: tampered, or written for gradients that do have a batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.certificate import Claim, Counting, Forced, QuestionRecord, RankBound, issue
from exan_verify.core.network import Gradient
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.decide.gradient.reconstruction import Task, rebuild
from exan_verify.exact.backprop import gradient
from exan_verify.exact.modular import PRIME
from tests.support.cases import integer_network, random_case, rational_batch
from tests.support.certificate_cases import assert_rejected, change, plain


@pytest.fixture(scope="module")
def real():
    """A gradient that has a batch, and the true evidence that lifting forces it."""
    network = integer_network([6, 40, 3], 1)
    given = gradient(network, rational_batch(network, 3, 2), Loss.MSE, Reduction.MEAN)
    task = Task(
        network=network,
        gradient=given.for_network(network),
        loss=Loss.MSE,
        reduction=Reduction.MEAN,
        samples=3,
    )
    return network, given, rebuild(task, 1).forced


@pytest.fixture(scope="module")
def refuted(real):
    network, given, _ = real
    array = given.tensors["2.weight"].copy()
    array[0, 0] += 1
    changed = Gradient(tensors=given.tensors | {"2.weight": array})
    verdict = certify(network, gradient=changed, loss="mse", batch_size=3)
    return network, changed, plain(verdict.certificate)


def claim(network, given, evidence, size=3, labels=Labels.ONE_HOT, reduction=Reduction.MEAN):
    question = QuestionRecord(
        entrance="gradient", loss=Loss.MSE, reduction=reduction, labels=labels, batch_size=size
    )
    return issue(
        claim=Claim(question=question, outcome=Outcome.UNREALISABLE, samples=()),
        evidence=evidence if isinstance(evidence, tuple) else (evidence,),
        model_sha256=network.digest,
        gradient_sha256=given.digest,
    )


def rejected(certificate, network, given, match=None):
    assert_rejected(certificate, network, match, gradient=given)


def test_a_gradient_with_a_batch_is_not_refuted(real):
    network, given, forced = real
    rejected(claim(network, given, forced), network, given, "nothing is contradicted")
    few = Forced(layer=1, columns=forced.columns, matrix=(), following=())
    rejected(claim(network, given, few), network, given, "too small")
    for rank, match in ((3, "does not exceed"), (4, "rank is 3")):
        bound = RankBound(prime=PRIME, layer=1, rank=rank)
        rejected(claim(network, given, bound), network, given, match)
    rejected(claim(network, given, ()), network, given, "one piece")
    rejected(claim(network, given, (forced, forced)), network, given, "one piece")


def test_a_smaller_size_is_refuted_by_the_rank_alone(real):
    network, given, _ = real
    good = claim(network, given, RankBound(prime=PRIME, layer=1, rank=3), size=2)
    assert check(good, network, gradient=given).outcome is Outcome.UNREALISABLE


def test_a_larger_size_is_not_refuted(real):
    network, given, forced = real
    rejected(claim(network, given, forced, size=4), network, given, "one column of the gradient per sample")
    wide = Forced(layer=1, columns=(*forced.columns, 6), matrix=forced.matrix, following=forced.following)
    rejected(claim(network, given, wide, size=4), network, given, "independent")


def swap(rows):
    return [rows[1], rows[0], *rows[2:]]


TAMPERS = {
    "layer": ("layer", 2),
    "layer zero": ("layer", 0),
    "column out of range": ("columns", lambda c: [*c[:-1], 99]),
    "column twice": ("columns", lambda c: [c[0], c[0], c[2]]),
    "direction": ("matrix", lambda m: [["7", *m[0][1:]], *m[1:]]),
    "directions dependent": ("matrix", lambda m: [[row[0], row[0], row[2]] for row in m]),
    "direction missing": ("matrix", lambda m: m[:-1]),
    "direction not rational": ("matrix", lambda m: [["a", *m[0][1:]], *m[1:]]),
    "next delta": ("following", lambda f: [["1", *f[0][1:]], *f[1:]]),
    "next deltas swapped": ("following", swap),
    "next delta missing": ("following", lambda f: f[1:]),
    "claimed empty": ("matrix", []),
}


@pytest.mark.parametrize("name", TAMPERS)
def test_tampered_evidence(refuted, name):
    network, given, certificate = refuted
    assert check(certificate, network, gradient=given).outcome is Outcome.UNREALISABLE
    key, value = TAMPERS[name]
    tampered = copy.deepcopy(certificate)
    part = tampered["evidence"][0]
    assert part["type"] == "forced"
    part[key] = value(part[key]) if callable(value) else value
    rejected(tampered, network, given)


@pytest.mark.parametrize(
    ("key", "value"),
    [("outcome", "unique"), ("outcome", "unknown"), ("outcome", "ambiguous"), ("samples", ["determined"])],
)
def test_tampered_claims(refuted, key, value):
    network, given, certificate = refuted
    tampered = change(certificate, ("claim", key), value)
    rejected(tampered, network, given)


def test_real_labels_are_another_question(real):
    """Refuted for one-hot labels because the forced targets are not one-hot; realisable with real ones."""
    network = integer_network([6, 40, 3], 3)
    given = gradient(network, rational_batch(network, 3, 4, labels=Labels.REAL), Loss.MSE, Reduction.MEAN)
    certificate = certify(network, gradient=given, loss="mse").certificate
    assert check(certificate, network, gradient=given).outcome is Outcome.UNREALISABLE
    tampered = change(certificate, ("claim", "question", "labels"), "real")
    rejected(tampered, network, given, "nothing is contradicted")


def test_rank_bound_of_a_softmax_batch():
    network, batch = random_case([6, 40, 5], 3)
    certificate = plain(certify(network, batch=batch, batch_size=2).certificate)
    assert check(certificate, network, batch=batch).outcome is Outcome.UNREALISABLE
    for key, value in {"rank": 4, "layer": 3, "point": 0, "prime": 7}.items():
        assert_rejected(change(certificate, ("evidence", 0, key), value), network, batch=batch)
    tampered = change(certificate, ("claim", "question", "batch_size"), 3)
    assert_rejected(tampered, network, "does not exceed", batch=batch)


@pytest.mark.parametrize("kind", ["forced", "counting"])
def test_only_a_rank_bound_refutes_the_size_of_a_batch(kind):
    """Evidence that is about a gradient, or about second batches, says nothing about how many samples fit."""
    network = integer_network([6, 40, 3], 1)
    batch = rational_batch(network, 3, 2)
    record = QuestionRecord(
        entrance="batch", loss=Loss.MSE, reduction=Reduction.MEAN, labels=Labels.ONE_HOT, batch_size=2
    )
    evidence = {
        "forced": Forced(layer=1, columns=(), matrix=(), following=()),
        "counting": Counting(samples=(0,), common=True, prime=PRIME, point=5),
    }[kind]
    certificate = issue(
        claim=Claim(question=record, outcome=Outcome.UNREALISABLE, samples=()),
        evidence=(evidence,),
        model_sha256=network.digest,
        batch_sha256=batch.digest,
    )
    assert_rejected(certificate, network, "only a rank bound", batch=batch)


@pytest.mark.parametrize("seed", range(20))
def test_no_gradient_of_a_batch_is_ever_refuted_at_its_size(seed):
    rng = np.random.default_rng(seed)
    widths = [int(v) for v in rng.integers(1, 12, rng.integers(3, 5))]
    network = integer_network(widths, seed)
    samples = int(rng.integers(1, 4))
    batch = rational_batch(network, samples, seed) if widths[-1] > 1 else None
    if batch is None:
        network = integer_network([*widths[:-1], 2], seed)
        batch = rational_batch(network, samples, seed)
    given = gradient(network, batch, Loss.MSE, Reduction.MEAN)
    if not any(np.any(array != 0) for array in given.tensors.values()):
        return
    verdict = certify(network, gradient=given, loss="mse", batch_size=samples, budget=3)
    assert verdict.outcome is not Outcome.UNREALISABLE, verdict.reason
