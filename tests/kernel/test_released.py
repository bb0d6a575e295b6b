"""The kernel's gate: which evidence it takes for a release, and claims about releases that never follow."""

import json
from dataclasses import fields

import numpy as np
import pytest

from exan_verify import Release, check
from exan_verify.api.certify import certify
from exan_verify.core.certificate import Evidence
from exan_verify.core.question import Loss, Question
from exan_verify.errors import CertificateRejected
from exan_verify.kernel.released import ACCEPTED, require_made_for
from tests.support.cases import default_network
from tests.support.release_cases import network_of


def certified(network, batch, **ask):
    return json.loads(json.dumps(certify(network, batch=batch, **ask).certificate))


@pytest.fixture(scope="module")
def whole():
    """A certificate of the whole gradient: UNIQUE by lifting."""
    network = default_network([12, 60, 4], seed=1)
    batch = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32), [0, 1, 2, 3]
    return network, batch, certified(network, batch)


def with_release(certificate, **release):
    forged = json.loads(json.dumps(certificate))
    forged["claim"]["question"]["release"] = release
    return forged


def test_without_a_release_the_certificate_does_not_speak_of_one(whole):
    network, batch, certificate = whole
    assert "release" not in certificate["claim"]["question"]
    check(certificate, network, batch=batch)


@pytest.mark.parametrize(
    "release",
    [
        {"tensors": ["0.bias"]},
        {"tensors": ["0.weight", "2.weight"]},
        {"tensors": ["2.weight", "2.bias"]},
        {"rows": {"0.weight": [True] * 10 + [False] * 50}},
        {"rows": {"0.bias": [k % 8 == 0 for k in range(60)]}},
        {"input_basis": [[str(int(i == k)) for k in range(12)] for i in range(12)]},
        {"input_basis": [["1"]] * 12},
    ],
)
def test_unique_of_the_whole_gradient_is_none_of_a_release(whole, release):
    network, batch, certificate = whole
    with pytest.raises(CertificateRejected):
        check(with_release(certificate, **release), network, batch=batch)


@pytest.mark.parametrize(
    "release",
    [
        {"tensors": ["7.bias"]},
        {"tensors": []},
        {"rows": {"0.weight": [True]}},
        {"rows": {"0.weight": [1] * 60}},
        {"input_basis": [["1"]]},
        {"input_basis": [["1e9"]] * 12},
        {"input_basis": [[f"1/{3**900}"]] * 12},
        {"input_basis": []},
        {"weights": "negative"},
        {"more": 1},
        None,
    ],
)
def test_a_release_that_is_none_is_rejected(whole, release):
    network, batch, certificate = whole
    forged = json.loads(json.dumps(certificate))
    forged["claim"]["question"]["release"] = release
    with pytest.raises(CertificateRejected):
        check(forged, network, batch=batch)


def test_label_arguments_need_what_they_use():
    """``output_rank`` needs the output layer's gradient, ``column_space`` the next layer's."""
    network = default_network([8, 60, 12, 3], seed=1)
    x, y = np.random.default_rng(3).normal(size=(4, 8)), [0, 1, 2, 0]
    certificate = certified(network, (x, y), engine="lifting")
    (argument,) = certificate["evidence"][0]["layers"]
    assert (argument["parametrisation"], argument["labels"]) == ("column_space", "output_rank")
    for missing in ("4.weight", "4.bias", "2.weight", "2.bias"):
        tensors = [name for name, _ in network.parameters() if name != missing]
        with pytest.raises(CertificateRejected, match="not sent whole"):
            check(with_release(certificate, tensors=tensors), network, batch=(x, y))


def test_kinds_that_nobody_looked_at_are_refused():
    named = {"Tolerance", "Scale", "RankBound", "Forced", "Enumeration", "ExtraRays", "Residual"}
    kinds = set(Evidence.__args__)
    assert {kind.__name__ for kind in kinds - set(ACCEPTED)} == named
    question = Question(loss=Loss.MSE, release=Release(tensors=["0.weight"]))
    for kind in kinds - set(ACCEPTED):
        with pytest.raises(CertificateRejected, match=f"{kind.__name__} is no evidence about a release"):
            require_made_for(kind(**dict.fromkeys(kind.__struct_fields__)), question)
    assert {field.name for field in fields(Release)} == {"tensors", "rows", "input_basis", "weights"}


def test_a_second_batch_of_equal_weights_is_none_of_others():
    network = network_of(np.random.default_rng(1), [2, 3, 2])
    rng = np.random.default_rng(4)
    for _ in range(40):
        x, y = rng.integers(-2, 3, (3, 2)), rng.integers(0, 2, 3)
        certificate = certified(network, (x, y), loss="mse", engine="families")
        parts = [] if certificate is None else certificate["evidence"]
        if any(part["type"] == "second_batch" and len(part["moves"]) > 1 for part in parts):
            break
    assert check(with_release(certificate, tensors=["0.weight"]), network, batch=(x, np.eye(2)[y]))
    with pytest.raises(CertificateRejected, match="SecondBatch is no evidence"):
        check(with_release(certificate, weights="positive"), network, batch=(x, np.eye(2)[y]))


def test_nothing_is_unrealisable_by_its_release():
    network = default_network([12, 60, 4], seed=1)
    batch = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32), [0, 1, 2, 3]
    certificate = certified(network, batch, batch_size=2)
    check(certificate, network, batch=batch)
    with pytest.raises(CertificateRejected, match="nothing is shown to have no batch"):
        check(with_release(certificate, weights="positive"), network, batch=batch)
