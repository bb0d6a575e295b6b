"""The kernel's gate: which evidence it takes for a release, and claims about releases that never follow."""

from dataclasses import fields

import numpy as np
import pytest

from exan_verify import Release, check
from exan_verify.api.certify import certify
from exan_verify.core.certificate import Evidence
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Loss, Question
from exan_verify.errors import CertificateRejected
from exan_verify.kernel.released import ACCEPTED, OF_MEANS_TOO, require_made_for
from tests.support.cases import default_network
from tests.support.certificate_cases import assert_rejected, change, plain
from tests.support.release_cases import network_of


def certified(network, batch, **ask):
    return plain(certify(network, batch=batch, **ask).certificate)


@pytest.fixture(scope="module")
def whole():
    """A certificate of the whole gradient: UNIQUE by lifting."""
    network = default_network([12, 60, 4], seed=1)
    batch = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32), [0, 1, 2, 3]
    return network, batch, certified(network, batch)


def with_release(certificate, **release):
    return change(certificate, ("claim", "question", "release"), release)


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
        {"averages": [[0], [1], [2], [3]]},
        {"averages": [[0, 1], [2, 3]]},
    ],
)
def test_unique_of_the_whole_gradient_is_none_of_a_release(whole, release):
    network, batch, certificate = whole
    assert_rejected(with_release(certificate, **release), network, batch=batch)


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
        {"averages": []},
        {"averages": [[0, -1]]},
        {"averages": [[0, 0]]},
        {"more": 1},
        None,
    ],
)
def test_a_release_that_is_none_is_rejected(whole, release):
    network, batch, certificate = whole
    assert_rejected(change(certificate, ("claim", "question", "release"), release), network, batch=batch)


def test_label_arguments_need_what_they_use():
    """``output_rank`` needs the output layer's gradient, ``column_space`` the next layer's."""
    network = default_network([8, 60, 12, 3], seed=1)
    x, y = np.random.default_rng(3).normal(size=(4, 8)), [0, 1, 2, 0]
    certificate = certified(network, (x, y), engine="lifting")
    (argument,) = certificate["evidence"][0]["layers"]
    assert (argument["parametrisation"], argument["labels"]) == ("column_space", "output_rank")
    for missing in ("4.weight", "4.bias", "2.weight", "2.bias"):
        tensors = [name for name, _ in network.parameters() if name != missing]
        assert_rejected(with_release(certificate, tensors=tensors), network, "not sent whole", batch=(x, y))


def test_kinds_that_nobody_looked_at_are_refused():
    named = {"Tolerance", "RankBound", "Forced", "Enumeration", "ExtraRays", "Residual"}
    named |= {"InputCover", "Cubes", "Apart", "Stages", "StageMotions"}
    kinds, looked_at = set(Evidence.__args__), {*ACCEPTED, *OF_MEANS_TOO}
    assert {kind.__name__ for kind in kinds - looked_at} == named
    question = Question(loss=Loss.MSE, release=Release(tensors=["0.weight"]))
    means = Question(loss=Loss.MSE, release=Release(averages=[[0, 1]]))
    for kind in kinds - set(OF_MEANS_TOO):
        evidence = kind(**dict.fromkeys(kind.__struct_fields__))
        for asked in (means, question) if kind not in ACCEPTED else (means,):
            with pytest.raises(CertificateRejected, match=f"{kind.__name__} is no evidence about a release"):
                require_made_for(evidence, asked)
    named = {"tensors", "rows", "input_basis", "averages", "weights"}
    assert {field.name for field in fields(Release)} == named


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
    weighted = with_release(certificate, weights="positive")
    assert_rejected(weighted, network, "SecondBatch is no evidence", batch=(x, np.eye(2)[y]))


def test_nothing_is_unrealisable_by_its_release():
    network = default_network([12, 60, 4], seed=1)
    batch = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32), [0, 1, 2, 3]
    certificate = certified(network, batch, batch_size=2)
    check(certificate, network, batch=batch)
    weighted = with_release(certificate, weights="positive")
    assert_rejected(weighted, network, "nothing is shown to have no batch", batch=batch)


def test_the_layers_below_need_their_rows():
    """Lifting at the second layer; without dW_1 the features of the first layer show no inputs."""
    network = default_network([3, 6, 60, 3], seed=1)
    x, y = np.random.default_rng(3).normal(size=(3, 3)), [0, 1, 2]
    certificate = certified(network, (x, y), engine="lifting")
    (argument,) = certificate["evidence"][0]["layers"]
    assert (argument["layer"], argument["lower_ranks"]) == (2, [3])
    rows = [False] * 5 + [True]
    for release in ({"tensors": ["2.weight", "2.bias", "4.weight", "4.bias"]}, {"rows": {"0.weight": rows}}):
        assert_rejected(with_release(certificate, **release), network, r"rank\(Delta_1\) = M", batch=(x, y))
    without = with_release(certificate, tensors=["0.weight", "2.weight", "2.bias", "4.weight", "4.bias"])
    assert check(without, network, batch=(x, y)).outcome == "unique"  # db_1 is not needed


def test_one_sample_needs_a_row_and_its_label_what_is_sent_of_its_delta():
    first = [[1, 0], [0, 1], [1, 1]]
    network = ReluNetwork.from_arrays([first, [[1, 2, 0], [1, 0, 3], [2, 1, 1]]], [[1, 1, 1], [0, 0, 0]])
    batch = np.array([[2.0, 3.0]]), [0]
    only_first = Release(tensors=["0.weight", "0.bias"])
    certificate = certified(network, batch, engine="lifting", release=only_first)
    assert certificate["evidence"][0]["layers"][0]["labels"] == "backward_map"
    # neuron 0 goes out to classes 0 and 1 alike
    one = {name: [True, False, False] for name in ("0.weight", "0.bias")}
    fewer = with_release(certificate, rows=one, tensors=list(one))
    assert_rejected(fewer, network, "determines samples", batch=batch)
    whole = certified(network, batch, engine="lifting")
    tensors = ["0.bias", "2.weight", "2.bias"]
    assert_rejected(with_release(whole, tensors=tensors), network, r"rank\(Delta_1\) = M", batch=batch)


@pytest.mark.parametrize(("labels", "logits"), [("one_hot", [2, -1]), ("real", [2, 1])])
def test_labels_that_a_weight_confuses(labels, logits):
    """mse: f - e_0 and f - e_1 are parallel for f = (2, -1); real targets absorb any weight."""
    weights, hidden = np.array([[1, 2, -1], [2, 1, -1]]), [2, 3, 4]
    network = ReluNetwork.from_arrays(
        [[[1], [2], [3]], weights], [[1, 1, 1], np.array(logits) - weights @ hidden]
    )
    batch = [[1]], [[1, 0]]
    certificate = certified(network, batch, loss="mse", labels=labels)
    check(certificate, network, batch=batch)
    assert_rejected(with_release(certificate, weights="positive"), network, "determines samples", batch=batch)


def test_samples_that_agree_on_the_rows_sent_are_one_group():
    """Two neurons tell samples 0 and 1 apart, and their rows are not sent."""
    plain = default_network([5, 40, 3], seed=1)
    x = np.random.default_rng(2).normal(size=(4, 5))
    x[1] = x[0] + 2.0**-30 * x[1]
    between = [(x[1] - x[0]) * s for s in (2.0**30, -(2.0**30))]
    middle = [-row @ (x[0] + x[1]) / 2 for row in between]
    first, last = plain.layers
    more = np.random.default_rng(3).normal(size=(3, 2))
    network = ReluNetwork.from_arrays(
        [np.concatenate([first.weight, between]), np.concatenate([last.weight, more], axis=1)],
        [np.concatenate([first.bias, middle]), last.bias],
    )
    y, rows = [0, 1, 2, 0], [True] * 40 + [False] * 2
    certificate = certified(network, (x, y), engine="lifting", release=Release(rows={"0.weight": rows}))
    (argument,) = certificate["evidence"][0]["layers"]
    assert (argument["groups"], argument["determined"]) == ([[0, 1], [2], [3]], [2, 3])
    assert check(certificate, network, batch=(x, y)).samples[2:] == ("determined", "determined")
