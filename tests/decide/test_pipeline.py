import json

import numpy as np
import pytest
import torch

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus, Trust
from exan_verify.errors import GradientError, InexactError, InputError, LabelError, ShapeError
from exan_verify.exact.backprop import forward, gradient
from tests.support.cases import default_network, integer_network, random_batch, rational_batch
from tests.support.certificate_cases import certify_as
from tests.support.torch_reference import normal, perceptron


class TestGradientGiven:
    @pytest.mark.parametrize(
        ("widths", "samples"), [([20, 64, 5], 6), ([6, 40, 3], 3), ([5, 60, 20, 4], 3), ([7, 8, 60, 3], 3)]
    )
    @pytest.mark.parametrize("reduction", list(Reduction))
    def test_the_batch_comes_back_exactly(self, widths, samples, reduction):
        network = integer_network(widths, 1)
        batch = rational_batch(network, samples, 2)
        given = gradient(network, batch, Loss.MSE, reduction)
        verdict = certify_as(Outcome.UNIQUE, network, gradient=given, loss="mse", reduction=reduction.value)
        assert verdict.trust is Trust.CERTIFIED
        assert verdict.batch_size == samples
        assert sorted(zip(verdict.batch.x, verdict.batch.y, strict=True)) == sorted(
            zip(batch.x, batch.y, strict=True)
        )

    def test_real_labels(self):
        network = integer_network([6, 40, 3], 3)
        batch = rational_batch(network, 3, 4, labels=Labels.REAL)
        given = gradient(network, batch, Loss.MSE, Reduction.MEAN)
        verdict = certify_as(Outcome.UNIQUE, network, gradient=given, loss="mse", labels="real")
        assert set(verdict.batch.y) == set(batch.y)
        one_hot = certify_as(Outcome.UNREALISABLE, network, gradient=given, loss="mse")
        assert "labels outside the label set" in one_hot.reason
        check(json.dumps(one_hot.certificate), network, gradient=given)

    @pytest.mark.parametrize(
        ("widths", "loss"),
        [
            ([6, 40, 3], Loss.MSE),
            ([5, 60, 20, 4], Loss.MSE),
            ([7, 8, 60, 3], Loss.MSE),
            ([6, 40, 3], Loss.HINGE),
            ([7, 8, 60, 3], Loss.HINGE),
        ],
    )
    def test_a_changed_entry_is_unrealisable(self, loss, widths):
        network = integer_network(widths, 1)
        batch = rational_batch(network, 3, 2)
        if loss is Loss.HINGE:
            worst = forward(network, batch).logits.argmin(axis=0)
            batch = Batch.of(batch.inputs, worst, network=network, loss=loss, labels=Labels.ONE_HOT)
        given = gradient(network, batch, loss, Reduction.MEAN)
        found = certify_as(Outcome.UNIQUE, network, gradient=given, loss=loss.value, batch_size=3)
        assert set(found.batch.x) == set(batch.x)
        check(json.dumps(found.certificate), network, gradient=given)
        for name, array in given.tensors.items():
            changed = array.copy()
            changed.flat[0] += 1
            other = Gradient(tensors=given.tensors | {name: changed})
            verdict = certify(network, gradient=other, loss=loss.value, batch_size=3)
            assert verdict.outcome is Outcome.UNREALISABLE, (name, verdict.reason)
            assert verdict.batch is None
            assert verdict.trust is Trust.CERTIFIED
            claim = check(json.dumps(verdict.certificate), network, gradient=other)
            assert claim.outcome is Outcome.UNREALISABLE

    def test_a_batch_outside_the_box_is_unrealisable_in_the_box(self):
        network = integer_network([6, 40, 3], 1)
        batch = rational_batch(network, 3, 2)
        given = gradient(network, batch, Loss.MSE, Reduction.MEAN)
        certify_as(Outcome.UNIQUE, network, gradient=given, loss="mse", domain=Box(-2, 2))
        outside = certify_as(Outcome.UNREALISABLE, network, gradient=given, loss="mse", domain=Box(0, 2))
        assert "outside the domain" in outside.reason
        check(json.dumps(outside.certificate), network, gradient=given)

    def test_known_labels_need_a_batch(self):
        network = integer_network([6, 40, 3], 1)
        given = gradient(network, rational_batch(network, 3, 2), Loss.MSE, Reduction.MEAN)
        with pytest.raises(InputError, match="needs the batch's labels"):
            certify(network, gradient=given, loss="mse", labels="known")

    def test_dyadic_numbers_meant_exactly(self):
        network = integer_network([4, 30, 2], 5)
        batch = rational_batch(network, 2, 6, denominator=4)
        given = gradient(network, batch, Loss.MSE, Reduction.SUM)
        floats = {k: torch.tensor(v.astype(np.float64)) for k, v in given.tensors.items()}
        verdict = certify(network, gradient=floats, loss="mse", reduction="sum", exact=True)
        assert verdict.outcome is Outcome.UNIQUE
        assert set(verdict.batch.x) == set(batch.x)

    def test_a_wrong_batch_size_is_said(self):
        network = integer_network([6, 40, 3], 1)
        given = gradient(network, rational_batch(network, 3, 2), Loss.MSE, Reduction.MEAN)
        verdict = certify_as(Outcome.UNKNOWN, network, gradient=given, loss="mse", batch_size=4)
        assert "batch size 4 (given)" in verdict.reason

    def test_floats_without_meaning_are_refused(self):
        network = integer_network([4, 30, 2], 5)
        floats = {k: np.ones(v.shape) for k, v in network.parameters()}
        with pytest.raises(InexactError, match=r"exact=True.*tolerance"):
            certify(network, gradient=floats, loss="mse")
        with pytest.raises(InputError, match="contradict"):
            certify(network, gradient=floats, loss="mse", exact=True, tolerance=1e-9)
        with pytest.raises(InputError, match="tolerance=-1"):
            certify(network, gradient=floats, loss="mse", tolerance=-1)

    def test_a_gradient_that_no_batch_is_found_for_and_softmax_are_unknown(self):
        network = integer_network([4, 30, 2], 5)
        floats = {k: np.ones(v.shape) for k, v in network.parameters()}
        assert "no radius" in certify(network, gradient=floats, loss="mse", tolerance=1e-9).reason
        assert "cross_entropy" in certify(network, gradient=floats, exact=True).reason

    def test_zero_and_misfitting_gradients_are_refused(self):
        network = integer_network([4, 30, 2], 5)
        zero = {k: np.zeros(v.shape) for k, v in network.parameters()}
        with pytest.raises(GradientError, match="every entry"):
            certify(network, gradient=zero, loss="mse", exact=True)
        with pytest.raises(GradientError, match="missing"):
            certify(network, gradient={"0.weight": np.ones((30, 4))}, loss="mse", exact=True)


class TestInput:
    def setup_method(self):
        self.network = default_network([6, 30, 3])
        self.batch = random_batch(self.network, 2)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"loss": "l1"}, "loss='l1' is not known; use one of 'cross_entropy'"),
            ({"reduction": "none"}, "reduction='none'"),
            ({"labels": "two_hot"}, "labels='two_hot'"),
            ({"engine": "magic"}, "engine='magic' is not known; use one of 'auto'"),
            ({"batch_size": 0}, "batch_size=0"),
            ({"jobs": 0}, "jobs=0"),
            ({"budget": -1}, "budget=-1"),
            ({"work_limit": 0}, "work_limit=0"),
            ({"domain": Box([0, 0], 1)}, r"Box.lo has shape \(2,\)"),
            ({"domain": Box(0, 0.001)}, "outside the domain"),
        ],
    )
    def test_bad_options_are_named(self, options, match):
        with pytest.raises(InputError, match=match):
            certify(self.network, batch=self.batch, **options)

    def test_batch_or_gradient_not_both_not_neither(self):
        with pytest.raises(InputError, match="either batch"):
            certify(self.network)
        with pytest.raises(InputError, match="either batch"):
            certify(self.network, batch=self.batch, gradient={"0.weight": [1]})

    def test_bad_batches(self):
        with pytest.raises(ShapeError, match="5 features"):
            certify(self.network, batch=(np.ones((2, 5)), [0, 1]))
        with pytest.raises(LabelError, match=r"y\[1\] = 3"):
            certify(self.network, batch=(np.ones((2, 6)), [0, 3]))

    def test_real_labels_with_softmax(self):
        with pytest.raises(LabelError, match="mse only"):
            certify(self.network, batch=self.batch, labels="real")

    def test_too_small_a_batch_size_is_unrealisable(self):
        verdict = certify_as(Outcome.UNREALISABLE, self.network, batch=self.batch, batch_size=1)
        assert verdict.batch_size == 1
        assert "one sample is too few" in verdict.reason
        claim = check(json.dumps(verdict.certificate), self.network, batch=self.batch)
        assert claim.question.batch_size == 1

    def test_a_larger_batch_size_is_unknown_for_softmax(self):
        verdict = certify_as(Outcome.UNKNOWN, self.network, batch=self.batch, batch_size=3)
        assert verdict.batch_size == 3

    def test_inside_the_box_is_fine(self):
        verdict = certify_as(Outcome.UNIQUE, self.network, batch=self.batch, domain=Box(-10, 10))
        assert verdict.certificate["claim"]["question"]["domain"] == (("-10",), ("10",))

    def test_torch_modules_and_tensors(self):
        verdict = certify(perceptron(6, 40, 4), batch=(normal(3, 6).float(), torch.tensor([0, 3, 1])))
        assert verdict.outcome is Outcome.UNIQUE
        assert verdict.samples == (SampleStatus.DETERMINED,) * 3
        assert verdict.batch is None


class TestSolvers:
    """The last engine: asked unasked only about small questions, and never certified on a solver's word."""

    def setup_method(self):
        self.network = ReluNetwork.from_arrays([[[1.0], [-2.0]], [[1.0, 1.0]]], [[0.0, 1.0], [0.0]])

    def test_a_refutation_is_trusted_not_certified(self):
        verdict = certify_as(Outcome.UNIQUE, self.network, batch=([[1.0]], [[0.0]]), loss="mse", engine="smt")
        assert verdict.trust in (Trust.SOLVER_TRUSTED, Trust.CROSS_CHECKED)
        assert verdict.certificate is None

    def test_a_second_batch_is_replayed_and_certified(self):
        """Both neurons are dead for a whole ray of inputs."""
        network = ReluNetwork.from_arrays([[[1.0], [2.0]], [[1.0, 1.0]]], [[0.0, 0.0], [0.0]])
        batch = ([[-1.0]], [[1.0]])
        verdict = certify_as(Outcome.AMBIGUOUS, network, batch=batch, loss="mse", engine="smt")
        assert verdict.trust is Trust.CERTIFIED
        claim = check(json.dumps(verdict.certificate), network, batch=batch)
        assert claim.outcome is Outcome.AMBIGUOUS

    def test_exact_engines_alone_do_not_ask_them(self):
        verdict = certify(self.network, batch=([[1.0], [2.0]], [[0.0], [0.0]]), loss="mse", engine="exact")
        assert all(attempt.engine.value != "smt" for attempt in verdict.attempts)


@pytest.mark.parametrize("meant", [{"tolerance": 1e-6}, {"tolerance": float("inf")}, {"exact": True}])
def test_what_a_gradients_numbers_mean_is_not_said_of_a_batch(meant):
    network = ReluNetwork.from_arrays([[[1, 2], [3, 1]], [[1, 2], [0, 1]]])
    with pytest.raises(InputError, match=r"say what a gradient's numbers mean, and batch="):
        certify(network, batch=([[1, 2]], [0]), **meant)
