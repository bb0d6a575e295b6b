"""The kernel accepts what the engines issue and rejects every tampered certificate."""

import json

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.network import Gradient
from exan_verify.core.question import Loss, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import InputError
from exan_verify.exact.backprop import gradient
from exan_verify.exact.modular import PRIME
from tests.support.cases import default_network, integer_network, random_case, rational_batch
from tests.support.certificate_cases import assert_rejected, change, plain


@pytest.fixture(scope="module")
def deep():
    network, batch = random_case([8, 12, 80, 5], 4, seeds=(3, 1))
    return network, batch, plain(certify(network, batch=batch).certificate)


@pytest.fixture(scope="module")
def grouped():
    network, base = random_case([30, 120, 6], 4, seeds=(5, 6), dtype=np.float64)
    x = np.concatenate([base.inputs.astype(np.float64), base.inputs[:1] + 2.0**-30])
    batch = (x, np.append(base.labels, (base.labels[0] + 1) % 6))
    return network, batch, plain(certify(network, batch=batch, engine="lifting").certificate)


@pytest.fixture(scope="module")
def from_gradient():
    network = integer_network([6, 40, 3], 1)
    given = gradient(network, rational_batch(network, 3, 2), Loss.MSE, Reduction.MEAN)
    return network, given, plain(certify(network, gradient=given, loss="mse").certificate)


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("reduction", list(Reduction))
@pytest.mark.parametrize("widths", [[10, 60, 4], [10, 60, 20, 30, 4]])
def test_accepts_what_certify_issues(loss, reduction, widths):
    network, batch = random_case(widths, 3, loss=loss)
    verdict = certify(network, batch=batch, loss=loss.value, reduction=reduction.value)
    claim = check(json.dumps(verdict.certificate), network, batch=batch)
    assert claim.outcome is verdict.outcome is Outcome.UNIQUE
    assert claim.samples == verdict.samples


def test_accepts_deep_grouped_and_gradient_certificates(deep, grouped, from_gradient):
    assert check(deep[2], deep[0], batch=deep[1]).outcome is Outcome.UNIQUE
    partly = check(grouped[2], grouped[0], batch=grouped[1])
    assert partly.outcome is Outcome.UNKNOWN
    assert sum(s is SampleStatus.DETERMINED for s in partly.samples) == 3
    assert check(from_gradient[2], from_gradient[0], gradient=from_gradient[1]).outcome is Outcome.UNIQUE


LAYER = ("evidence", 0, "layers", 0)
QUESTION = ("claim", "question")

DEEP_TAMPERS = {
    "outcome": (("claim", "outcome"), "ambiguous"),
    "outcome unknown": (("claim", "outcome"), "unknown"),
    "sample status": (("claim", "samples", 0), "free"),
    "one sample dropped": (("claim", "samples"), lambda s: s[1:]),
    "batch size": ((*QUESTION, "batch_size"), 5),
    "entrance": ((*QUESTION, "entrance"), "gradient"),
    "label set": ((*QUESTION, "labels"), "real"),
    "loss of another kind": ((*QUESTION, "loss"), "mse"),
    "domain that excludes the batch": ((*QUESTION, "domain"), [["0"], ["1"]]),
    "domain upside down": ((*QUESTION, "domain"), [["1"], ["0"]]),
    "domain of another dimension": ((*QUESTION, "domain"), [["0", "0"], ["9", "9"]]),
    "domain not a number": ((*QUESTION, "domain"), [["x"], ["1"]]),
    "another prime": (("evidence", 0, "prime"), 2**31 - 1),
    "a composite modulus": (("evidence", 0, "prime"), PRIME - 2),
    "point zero": (("evidence", 0, "point"), 0),
    "point one": (("evidence", 0, "point"), 1),
    "point p": (("evidence", 0, "point"), PRIME),
    "rank up": ((*LAYER, "rank"), lambda v: v + 1),
    "rank down": ((*LAYER, "rank"), lambda v: v - 1),
    "unknowns": ((*LAYER, "unknowns"), lambda v: v + 1),
    "layer below": ((*LAYER, "layer"), 1),
    "layer zero": ((*LAYER, "layer"), 0),
    "layer beyond": ((*LAYER, "layer"), 3),
    "groups": ((*LAYER, "groups"), [[0, 1], [2], [3]]),
    "lower ranks dropped": ((*LAYER, "lower_ranks"), []),
    "lower rank": ((*LAYER, "lower_ranks"), [3]),
    "determined too few": ((*LAYER, "determined"), [0, 1, 2]),
    "determined twice": ((*LAYER, "determined"), [0, 1, 2, 3, 3]),
    "parametrisation full": ((*LAYER, "parametrisation"), "full"),
    "label argument": ((*LAYER, "labels"), "somehow"),
    "no evidence": (("evidence",), []),
    "no layers": (("evidence", 0, "layers"), []),
    "unknown field": (("evidence", 0, "layers", 0), lambda v: v | {"trust_me": True}),
    "another schema": (("schema",), "exan/certificate/2"),
    "another engine's evidence": (("evidence", 0, "type"), "faith"),
    "model digest": (("model_sha256",), "0" * 64),
    "batch digest": (("batch_sha256",), "0" * 64),
    "batch digest removed": (("batch_sha256",), None),
    "gradient parts added": (("gradient_sha256",), "0" * 64),
}


@pytest.mark.parametrize("name", DEEP_TAMPERS)
def test_rejects_tampering(deep, name):
    network, batch, certificate = deep
    path, value = DEEP_TAMPERS[name]
    assert_rejected(change(certificate, path, value), network, batch=batch)


def test_rejects_consistent_lies_about_groups(grouped):
    """Everything made to look like C1: groups split, all determined, UNIQUE."""
    network, batch, certificate = grouped
    lie = change(certificate, (*LAYER, "groups"), [[k] for k in range(5)])
    lie = change(lie, (*LAYER, "determined"), list(range(5)))
    lie = change(lie, ("claim", "samples"), ["determined"] * 5)
    lie = change(lie, ("claim", "outcome"), "unique")
    assert_rejected(lie, network, "pattern groups", batch=batch)
    assert_rejected(change(certificate, ("claim", "samples", 0), "determined"), network, batch=batch)


def test_rejects_another_model_or_batch_also_with_recomputed_digests(deep):
    network, batch, certificate = deep
    other = default_network([8, 12, 80, 5], seed=99)
    assert_rejected(certificate, other, "another model", batch=batch)
    assert_rejected(certificate, network, "another batch", batch=batch.select([1, 0, 2, 3]))
    twins = batch.select([0, 0, 2, 3])
    assert_rejected(change(certificate, ("batch_sha256",), twins.digest), network, "rank", batch=twins)


def test_the_model_digest_alone_does_not_carry_the_claim(deep):
    """A model in which the claim is false, with its digest put into the certificate."""
    network, batch, certificate = deep
    layers = [(layer.weight.copy(), layer.bias) for layer in network.layers]
    layers[1][0][1:] = layers[1][0][:1]  # every neuron of layer 2 looks the same way
    other = type(network).from_arrays([w for w, _ in layers], [b for _, b in layers])
    assert_rejected(change(certificate, ("model_sha256",), other.digest), other, batch=batch)


GRADIENT_TAMPERS = {
    "mixing dropped": (("rebuild",), None),
    "mixing entry": (("rebuild", "matrix", 0, 0), "1/3"),
    "mixing not rational": (("rebuild", "matrix", 0, 0), "1/0"),
    "mixing shape": (("rebuild", "matrix"), lambda m: m[1:]),
    "mixing layer": (("rebuild", "layer"), 2),
    "mixing columns": (("rebuild", "columns", 0), 10**6),
    "reduction": ((*QUESTION, "reduction"), "sum"),
    "loss": ((*QUESTION, "loss"), "hinge"),
    "gradient digest": (("gradient_sha256",), "0" * 64),
    "batch parts added": (("batch_sha256",), "0" * 64),
    "batch size": ((*QUESTION, "batch_size"), 4),
}


@pytest.mark.parametrize("name", GRADIENT_TAMPERS)
def test_rejects_tampering_with_gradient_certificates(from_gradient, name):
    network, given, certificate = from_gradient
    path, value = GRADIENT_TAMPERS[name]
    assert_rejected(change(certificate, path, value), network, gradient=given)


def test_rejects_a_changed_gradient_with_its_digest(from_gradient):
    network, given, certificate = from_gradient
    array = given.tensors["0.weight"].copy()
    array[0, 0] += 1
    changed = Gradient(tensors=given.tensors | {"0.weight": array})
    assert_rejected(change(certificate, ("gradient_sha256",), changed.digest), network, gradient=changed)


def test_needs_the_input_it_was_made_for(deep, from_gradient):
    network, batch, certificate = deep
    with pytest.raises(InputError, match="either batch"):
        check(certificate, network)
    assert_rejected(from_gradient[2], from_gradient[0], "pass gradient=", batch=(np.ones((3, 6)), [0, 1, 2]))
    assert_rejected("{}", network, "not a certificate", batch=batch)
    assert_rejected(b"\xff\xfe", network, "not a certificate", batch=batch)


def test_a_permuted_group_list_or_pickled_batch_is_not_needed(deep):
    """The certificate holds no inputs: nothing of the batch can be read from it."""
    _, batch, certificate = deep
    text = json.dumps(certificate)
    assert all(f"{value!r}" not in text for value in batch.inputs[0].tolist())
