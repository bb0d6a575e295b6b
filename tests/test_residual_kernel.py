"""The kernel rejects residual evidence that was tampered with, and forged evidence for false claims."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from exan_verify.certificate import (
    Claim,
    LabelCase,
    QuadricArgument,
    Question,
    Residual,
    issue,
)
from exan_verify.decide.pipeline import certify
from exan_verify.errors import CertificateRejected
from exan_verify.exact.modular import PRIME
from exan_verify.kernel import check
from exan_verify.network import Labels, Loss, Reduction, ReluNetwork
from exan_verify.verdict import Outcome, SampleStatus
from tests import counterexamples
from tests.test_residual import one_region


def issued(network, batch, loss):
    verdict = certify(network, batch=batch, loss=loss)
    assert verdict.outcome is Outcome.UNIQUE
    return network, batch, json.loads(json.dumps(verdict.certificate))


@pytest.fixture(scope="module")
def quadric():
    return issued(*one_region((0, 0, 1)), "mse")


@pytest.fixture(scope="module")
def excluded():
    network = ReluNetwork.from_arrays([[[1], [2]], [[0.01, 0], [-0.01, 0]]], [[1, 1], [0.5, 0.25]])
    return issued(network, ([[0], [1]], [0, 1]), "mse")


@pytest.fixture(scope="module")
def membership():
    return issued(*one_region((0, 1), classes=6, loss=Loss.CROSS_ENTROPY, spread=2.0**-6), "cross_entropy")


@pytest.fixture(scope="module")
def joint():
    return issued(*one_region((0, 0), classes=3, loss=Loss.CROSS_ENTROPY, spread=2.0**-6), "cross_entropy")


@pytest.fixture(scope="module")
def selected():
    for seed in range(9):
        network, batch = one_region((0, 1, 2), seed=seed, loss=Loss.HINGE)
        verdict = certify(network, batch=batch, loss="hinge")
        if verdict.outcome is Outcome.UNIQUE:
            return issued(network, batch, "hinge")
    raise AssertionError("no seed gives a unique batch")


def change(certificate, path, value):
    tampered = copy.deepcopy(certificate)
    *way, last = path
    target = tampered
    for key in way:
        target = target[key]
    target[last] = value(target[last]) if callable(value) else value
    return tampered


def rejected(made, path, value):
    network, batch, certificate = made
    assert check(certificate, network, batch=batch).outcome is Outcome.UNIQUE
    tampered = change(certificate, path, value)
    assert tampered != certificate
    with pytest.raises(CertificateRejected):
        check(tampered, network, batch=batch)


PART = ("evidence", -1)
ARGUMENT = (*PART, "argument")
CASE = (*ARGUMENT, "cases", 0)
IDENTITY = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]]
STRANGER = [["1/2", "1/2", "0"], ["0", "1", "0"], ["1/2", "-1/2", "1"]]

QUADRIC_TAMPERS = {
    "prime": ((*PART, "prime"), 2**31 - 1),
    "point zero": ((*PART, "point"), 0),
    "point p": ((*PART, "point"), PRIME),
    "a member dropped": ((*PART, "members"), lambda m: m[1:]),
    "a member twice": ((*PART, "members"), lambda m: [*m, m[-1]]),
    "a member that is not there": ((*PART, "members"), lambda m: [*m[:-1], 9]),
    "degree too low": ((*CASE, "degree"), lambda d: d - 1),
    "degree one": ((*CASE, "degree"), 1),
    "degree beyond reason": ((*CASE, "degree"), 500),
    "no cases": ((*ARGUMENT, "cases"), []),
    "one case more": ((*ARGUMENT, "cases"), lambda c: [*c, c[-1]]),
    "the identity as another solution": ((*CASE, "others"), [IDENTITY]),
    "no solution as another solution": ((*CASE, "others"), [STRANGER]),
    "a solution of another shape": ((*CASE, "others"), [[["1"]]]),
    "a solution that is no number": ((*CASE, "others"), [[["x", "0", "0"], *IDENTITY[1:]]]),
    "another argument": (ARGUMENT, {"type": "loss_vectors", "selections": 1}),
    "a cover": (ARGUMENT, {"type": "cover", "kind": "joint", "bounds": [], "trees": []}),
    "loss": (("claim", "question", "loss"), "cross_entropy"),
    "real labels": (("claim", "question", "labels"), "real"),
    "outcome": (("claim", "outcome"), "ambiguous"),
    "a sample free": (("claim", "samples", 0), "free"),
}


@pytest.mark.parametrize("name", QUADRIC_TAMPERS)
def test_rejects_tampering_with_quadrics(quadric, name):
    rejected(quadric, *QUADRIC_TAMPERS[name])


EXCLUDED_TAMPERS = {
    "the excluded solution is not named": ((*CASE, "others"), []),
    "named twice": ((*CASE, "others"), lambda o: [*o, *o]),
    "another row": ((*CASE, "others", 0, 0), ["1", "0"]),
}


@pytest.mark.parametrize("name", EXCLUDED_TAMPERS)
def test_rejects_tampering_with_excluded_solutions(excluded, name):
    rejected(excluded, *EXCLUDED_TAMPERS[name])


TREE = (*ARGUMENT, "trees", 0)
COVER_TAMPERS = {
    "empty tree": (TREE, ""),
    "everything is empty": (TREE, "x"),
    "everything is done": ((*ARGUMENT, "trees", -1), "k"),
    "a box more": (TREE, lambda t: t + "x"),
    "a box less": (TREE, lambda t: t[:-1]),
    "an axis that is not there": (TREE, lambda t: "7" + t),
    "a digit of another script": (TREE, lambda t: "²" + t),
    "a tree less": ((*ARGUMENT, "trees"), lambda t: t[1:]),
    "a tree more": ((*ARGUMENT, "trees"), lambda t: [*t, "x"]),
    "trees swapped": ((*ARGUMENT, "trees"), lambda t: t[::-1]),
    "bounds swapped": ((*ARGUMENT, "bounds", 0), lambda b: b[::-1]),
    "bounds dropped": ((*ARGUMENT, "bounds"), []),
    "a constraint that is not there": ((*ARGUMENT, "bounds", 0, 0), [10**6]),
    "no constraint": ((*ARGUMENT, "bounds", 0, 1), []),
    "too many constraints": ((*ARGUMENT, "bounds", 0, 0), lambda b: [*b, *b]),
    "the other loss": (("claim", "question", "loss"), "hinge"),
}


@pytest.mark.parametrize("name", COVER_TAMPERS)
def test_rejects_tampering_with_a_membership_cover(membership, name):
    rejected(membership, *COVER_TAMPERS[name])


@pytest.mark.parametrize("name", COVER_TAMPERS)
def test_rejects_tampering_with_a_joint_cover(joint, name):
    rejected(joint, *COVER_TAMPERS[name])


def test_the_kinds_of_cover_are_not_interchangeable(joint, membership):
    rejected(joint, (*ARGUMENT, "kind"), "membership")
    rejected(membership, (*ARGUMENT, "kind"), "joint")


@pytest.mark.parametrize("shift", [-1, 1])
def test_rejects_another_number_of_selections(selected, shift):
    rejected(selected, (*ARGUMENT, "selections"), lambda n: n + shift)


def forged(network, batch, loss, argument, members=(0, 1)):
    """A certificate with every digest right that claims UNIQUE."""
    question = Question(
        entrance="batch",
        loss=loss,
        reduction=Reduction.MEAN,
        labels=Labels.ONE_HOT,
        batch_size=batch.size,
    )
    return issue(
        claim=Claim(
            question=question,
            outcome=Outcome.UNIQUE,
            samples=(SampleStatus.DETERMINED,) * batch.size,
        ),
        evidence=(Residual(prime=PRIME, point=12345, members=tuple(members), argument=argument),),
        model_sha256=network.digest,
        batch_sha256=batch.digest,
    )


def mixing_of(example):
    """The genuine second solution Q of the antisymmetric head."""
    first, second = (np.array(b.x, dtype=object) for b in (example.batch, example.second))
    step = first[1] - first[0]
    rows = [(row[0] - first[0][0]) / step[0] for row in second]
    return tuple((str(1 - a), str(a)) for a in rows)


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
@pytest.mark.parametrize("name_it", [False, True])
def test_an_ambiguous_batch_cannot_be_forged_unique(degree, name_it):
    example = counterexamples.antisymmetric_head()
    others = (mixing_of(example),) if name_it else ()
    for cases in (1, 2, 3):
        argument = QuadricArgument(cases=(LabelCase(degree=degree, others=others),) * cases)
        with pytest.raises(CertificateRejected):
            check(
                forged(example.network, example.batch, Loss.MSE, argument),
                example.network,
                batch=example.batch,
            )


def test_members_must_be_independent():
    """P1's network: four samples, one logit, two solutions."""
    example = counterexamples.published_insecure()
    argument = QuadricArgument(cases=(LabelCase(degree=2),))
    with pytest.raises(CertificateRejected, match=r"rank\(G\)"):
        check(
            forged(example.network, example.batch, Loss.MSE, argument, range(4)),
            example.network,
            batch=example.batch,
        )


@pytest.mark.parametrize(
    "argument",
    [
        {"type": "loss_vectors", "selections": 0},
        {"type": "cover", "kind": "joint", "bounds": [], "trees": ["k"]},
        {"type": "quadrics", "cases": []},
    ],
)
def test_an_argument_of_another_kind_or_an_empty_one_is_rejected(quadric, argument):
    rejected(quadric, ARGUMENT, argument)
