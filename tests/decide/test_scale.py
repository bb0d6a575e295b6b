"""Networks without biases: twins found, determined samples, and evidence that is tampered with."""

from __future__ import annotations

import copy
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.api import certify as door
from exan_verify.api.check import check
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Engine, Outcome, SampleStatus
from exan_verify.decide.scale.twins import bracket_of_margin, positive_roots
from exan_verify.testing.strategies import LOSSES, batches, networks
from tests.conftest import examples
from tests.support import certificate_cases, torch_reference
from tests.support.certificate_cases import assert_rejected, change, plain

certify = partial(door.certify, engine="exact")
certify_as = partial(certificate_cases.certify_as, engine="exact")


D, F, U = SampleStatus.DETERMINED, SampleStatus.FREE, SampleStatus.UNKNOWN


def bare(widths, seed=0):
    rng = np.random.default_rng(seed)
    return ReluNetwork.from_arrays([rng.normal(size=(b, a)) for a, b in pairwise(widths)])


def test_softmax_with_three_classes_fixes_the_scale():
    network = bare([6, 60, 40, 4])
    batch = (np.random.default_rng(1).normal(size=(3, 6)), [0, 1, 2])
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch)
    assert verdict.engine is Engine.SCALE
    assert check(plain(verdict.certificate), network, batch=batch).outcome is Outcome.UNIQUE


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
def test_two_classes_twin_exactly_the_samples_with_a_positive_margin(loss):
    network = bare([8, 80, 2 if loss is Loss.CROSS_ENTROPY else 1], seed=3)
    x = np.random.default_rng(5).normal(size=(4, 8))
    logits = torch_reference.module(network)(__import__("torch").from_numpy(x)).detach().numpy()
    score = logits[:, 1] - logits[:, 0] if loss is Loss.CROSS_ENTROPY else logits[:, 0]
    y = np.array([score[0] > 0, score[1] <= 0, score[2] > 0, score[3] <= 0]).astype(int)
    given_y = y if loss is Loss.CROSS_ENTROPY else y.reshape(-1, 1).astype(float)
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=(x, given_y), loss=loss.value)
    assert verdict.samples == (F, D, F, D)
    check(plain(verdict.certificate), network, batch=(x, given_y))
    for twin in verdict.witness.generators:
        c = float(Fraction(twin.low))
        moved = x.copy()
        moved[twin.sample] *= c
        made = [Batch.of(v, given_y, network=network, loss=loss, labels=Labels.ONE_HOT) for v in (x, moved)]
        one, two = (torch_reference.gradient(network, b, loss, Reduction.SUM) for b in made)
        assert abs(c - 1) > 1e-3
        for name in one:
            assert np.allclose(one[name], two[name], atol=1e-10)


def test_one_logit_mse_has_an_irrational_twin_with_the_other_label():
    """f c^2 - y' c - (f - y) = 0 with y = 0, y' = 1, f = 2: c = (1 + sqrt 17) / 4."""
    network = ReluNetwork.from_arrays([[[1.0]], [[2.0]]])
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=([[1.0]], [0.0]), loss="mse")
    twin = verdict.witness.generators[0]
    assert twin.target == ("1",)
    assert float(Fraction(twin.low)) == pytest.approx((1 + 17**0.5) / 4)
    check(
        plain(verdict.certificate),
        network,
        batch=([[1.0]], [0.0]),
    )
    certify_as(Outcome.UNIQUE, network, batch=([[1.0]], [0.0]), loss="mse", labels="known")


def test_mse_twin_with_the_same_label_is_rational():
    """(c + 1) f = y: f = 1/4, y = 1 gives c = 3."""
    network = ReluNetwork.from_arrays([[[1.0]], [[0.25]]])
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=([[1.0]], [1.0]), loss="mse", labels="known")
    assert (verdict.witness.generators[0].low, verdict.witness.generators[0].high) == ("3", "3")
    asked = {"loss": "mse", "labels": "known", "domain": Box(0, 2)}  # the only twin lies outside the box
    certify_as(Outcome.UNIQUE, network, batch=([[1.0]], [1.0]), **asked)


def test_real_targets_follow_every_scale_inside_the_box():
    network = bare([3, 20, 2])
    batch = ([[0.5, 1.0, 0.0]], [[0.25, 0.5]])
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch, loss="mse", labels="real", domain=Box(0, 1))
    twin = next(t for t in verdict.witness.generators if hasattr(t, "low"))
    assert Fraction(twin.low) < 1
    check(plain(verdict.certificate), network, batch=batch)


def test_hinge_fixes_the_scale():
    network = bare([5, 40, 3], seed=2)
    x = np.random.default_rng(3).normal(size=(2, 5))
    logits = torch_reference.module(network)(__import__("torch").from_numpy(x)).detach().numpy()
    certify_as(Outcome.UNIQUE, network, batch=(x, logits.argmin(axis=1)), loss="hinge")


@examples(50)
@given(data=st.data(), loss=LOSSES, labels=st.sampled_from(list(Labels)))
def test_certificates_without_biases_are_accepted(data, loss, labels):
    labels = Labels.ONE_HOT if labels is Labels.REAL and loss is not Loss.MSE else labels
    network = data.draw(networks(biases=False, max_width=10, generic=data.draw(st.booleans())))
    batch = data.draw(batches(network, loss, max_samples=3, labels=labels))
    verdict = certify(network, batch=batch, loss=loss.value, labels=labels.value)
    if verdict.certificate is not None:
        claim = check(plain(verdict.certificate), network, batch=batch)
        assert (claim.outcome, claim.samples) == (verdict.outcome, verdict.samples)


@pytest.mark.parametrize("margins", [(6000.0,), (6000.0, 2.0), (2.0, 9000.0, -1.0)])
def test_a_twin_is_issued_only_where_the_checker_finds_the_scale(margins):
    """Of a margin t the other scale is near e^-t: of some thousands it is smaller than any that is tried."""
    first = np.eye(len(margins)) + 1.0 / 8
    x = np.linalg.solve(first, np.eye(len(margins)))
    # sample m is seen by neuron m alone, with logits (t_m, 0)
    network = ReluNetwork.from_arrays([first, np.array([margins, np.zeros(len(margins))])])
    batch = (x, [0] * len(margins))
    verdict = certify(network, batch=batch, engine="scale")
    wanted = tuple(F if 0 < t < 100 else U for t in margins)
    assert tuple(s if s is F else U for s in verdict.samples) == wanted
    assert verdict.outcome is (Outcome.AMBIGUOUS if F in wanted else Outcome.UNKNOWN), verdict.reason
    if F in wanted:
        assert check(plain(verdict.certificate), network, batch=batch).samples == verdict.samples


@examples(40)
@given(roots=st.tuples(st.fractions(-5, 5, max_denominator=9), st.fractions(-5, 5, max_denominator=9)))
def test_positive_roots_of_products(roots):
    a, b = roots
    found = positive_roots([a * b, -(a + b), Fraction(1)])
    assert [low for low, high in found if low == high] == sorted({r for r in roots if r > 0})


def test_one_sample_shows_its_loss_vector_in_the_output_layer():
    """One neuron below two logits: what comes down of g is one number, so that only dW_L shows which g it
    is.
    """
    outcomes = set()
    for logits in ([1, 2], [1, -2], [-1, -2], [2, 2], [0, 3]):
        network = ReluNetwork.from_arrays([[[1]], [[v] for v in logits]])
        for y in ([1, 0], [0, 1], [1, 1]):
            batch = ([[0.75]], [y])
            verdict = certify(network, batch=batch, loss="bce")
            margins = {v if label else -v for v, label in zip(logits, y, strict=True)}
            twin = len(margins) == 1 and min(margins) > 0
            assert verdict.outcome is (Outcome.AMBIGUOUS if twin else Outcome.UNIQUE), (logits, y)
            assert check(plain(verdict.certificate), network, batch=batch).outcome is verdict.outcome
            outcomes.add(verdict.outcome)
    assert len(outcomes) == 2


def test_the_output_layer_is_for_one_sample_and_a_hidden_layer():
    network = ReluNetwork.from_arrays([[[1]], [[1], [-2]]])
    batch = ([[0.75]], [[1, 0]])
    certificate = plain(certify(network, batch=batch, loss="bce").certificate)
    assert certificate["evidence"][0]["layer"] == 2
    two = ([[0.75], [0.5]], [[1, 0], [1, 0]])
    tampered = certificate | {"batch_sha256": _digest(network, two)}
    tampered["claim"] = certificate["claim"] | {"samples": ["determined"] * 2}
    tampered["claim"]["question"] = certificate["claim"]["question"] | {"batch_size": 2}
    assert_rejected(tampered, network, "one sample and a hidden layer", batch=two)
    flat = ReluNetwork.from_arrays([[[1], [-2]]])
    one = ([[0.75]], [[1, 0]])
    tampered = copy.deepcopy(certificate) | {"model_sha256": flat.digest}
    tampered["evidence"][0] |= {"layer": 1, "lower_ranks": []}
    assert_rejected(tampered, flat, "one sample and a hidden layer", batch=one)


def _digest(network, batch):
    return Batch.of(*batch, network=network, loss=Loss.BCE, labels=Labels.ONE_HOT).digest


@examples(40)
@given(margin=st.fractions(Fraction(1, 20), 30, max_denominator=40), weight=st.integers(1, 9))
def test_brackets_hold_the_other_root(margin, weight):
    low, high = bracket_of_margin(margin, weight)
    assert 0 < low < high
    assert not low <= 1 <= high
    t = float(margin)
    here = [c * (np.exp(t) + weight) - (np.exp(c * t) + weight) for c in (float(low), float(high))]
    assert here[0] * here[1] <= 0 or abs(here[0]) < 1e-6 * np.exp(t)


class TestTampering:
    def setup_method(self):
        self.network = bare([6, 60, 4])
        self.batch = (np.random.default_rng(1).normal(size=(3, 6)), [0, 1, 2])
        self.certificate = plain(certify(self.network, batch=self.batch).certificate)

    def rejected(self, change, match=None):
        tampered = copy.deepcopy(self.certificate)
        change(tampered)
        assert_rejected(tampered, self.network, match, batch=self.batch)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("rank", 1),
            ("unknowns", 3),
            ("layer", 2),
            ("groups", [[0, 1], [2]]),
            ("lower_ranks", [3]),
            ("determined", [0, 1]),
            ("determined", [0, 1, 2, 3]),
            ("parametrisation", "single"),
            ("point", 1),
            ("prime", 7),
        ],
    )
    def test_scale_evidence(self, key, value):
        self.rejected(lambda c: c["evidence"][0].__setitem__(key, value))

    def test_a_twin_that_is_none(self):
        def plant(c):
            c["evidence"] = [{"type": "twins", "twins": [{"sample": 0, "low": "2", "high": "3"}]}]
            c["claim"]["outcome"], c["claim"]["samples"] = "ambiguous", ["free", "unknown", "unknown"]

        self.rejected(plant, "no other scale")

    def test_a_sample_with_a_twin_is_not_determined(self):
        network = bare([4, 30, 2], seed=3)
        x = np.random.default_rng(5).normal(size=(2, 4))
        logits = torch_reference.module(network)(__import__("torch").from_numpy(x)).detach().numpy()
        batch = (x, (logits[:, 1] > logits[:, 0]).astype(int))
        certificate = plain(certify(network, batch=batch).certificate)
        other = plain(certify(network, batch=(x, 1 - batch[1])).certificate)
        other["batch_sha256"] = certificate["batch_sha256"]
        assert_rejected(other, network, "may have a twin", batch=batch)
        for key, value in (
            ("low", "1"),
            ("low", "-1"),
            ("high", "1/1000000"),
            ("sample", 7),
            ("target", ["1"]),
        ):
            tampered = change(certificate, ("evidence", 0, "twins", 0, key), value)
            assert_rejected(tampered, network, batch=batch)

    def test_networks_with_biases_are_another_matter(self):
        network = ReluNetwork.from_arrays(
            [layer.weight for layer in self.network.layers], [np.zeros(60), np.zeros(4)]
        )
        certificate = change(self.certificate, ("model_sha256",), network.digest)
        assert_rejected(certificate, network, "without biases", batch=self.batch)
