"""Rounded gradients: the batch is found, a radius proved around it, and what is not proved is said."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import flint
import numpy as np
import pytest

from exan_verify import Box, Gradient, Outcome, ReluNetwork, SampleStatus, certify, check
from exan_verify.api.files import save_gradient, save_tensors
from exan_verify.cli import main
from exan_verify.core.budget import Budget
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Engine, Trust
from exan_verify.decide.context import Setting
from exan_verify.decide.tolerance.bounds import _factors
from exan_verify.decide.tolerance.centre import find, numerical_rank
from exan_verify.decide.tolerance.engine import stated_radius
from exan_verify.decide.tolerance.lifted import Spread, right_inverse
from exan_verify.decide.tolerance.problem import NotShownError, Problem
from exan_verify.errors import InputError
from exan_verify.exact.backprop import forward
from exan_verify.exact.balls import (
    ball_matrix,
    constant_interval,
    inner_interval,
    interval_matrix,
    upper,
    upper_float,
    working_precision,
)
from tests.support.certificate_cases import certify_as
from tests.support.tolerance_cases import case, nearest

SMALL = [20, 90, 4]


def holds(verdict, batch):
    """The planted batch lies in the radius, with its labels, one sample to each."""
    places, distances = nearest(batch, verdict.batch)
    assert sorted(places) == list(range(batch.size))
    assert np.all(distances <= verdict.witness.radius)
    assert np.array_equal(verdict.batch.labels, batch.labels[places])


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize(
    ("widths", "samples", "dtype"),
    [
        (SMALL, 4, np.float64),
        (SMALL, 4, np.float32),
        (SMALL, 1, np.float64),
        ([20, 90, 40, 4], 4, np.float64),
        ([20, 90, 3, 4], 3, np.float64),
        ([20, 90, 40, 20, 4], 3, np.float64),
    ],
)
def test_a_planted_batch_lies_in_the_proved_radius(loss, widths, samples, dtype):
    network, batch, given = case(widths, samples, loss, seed=4, dtype=dtype)
    tolerance = 1e-13 if dtype is np.float64 else 2.0**-26
    verdict = certify(network, gradient=given, loss=loss.value, tolerance=tolerance, batch_size=samples)
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert verdict.trust is Trust.CERTIFIED
    assert verdict.engine is Engine.LIFTING
    assert verdict.tolerant
    assert verdict.samples == (SampleStatus.UNKNOWN,) * samples
    assert max(verdict.witness.radius) < (1e-6 if dtype is np.float64 else 0.5)
    holds(verdict, batch)
    claim = check(json.dumps(verdict.certificate), network, gradient=given)
    assert claim.outcome is Outcome.UNIQUE
    assert claim.realised
    assert claim.radius == verdict.witness.radius


def test_real_size():
    network, batch, given = case([784, 512, 10], 8)
    verdict = certify(network, gradient=given, tolerance=1e-12)
    assert verdict.batch_size == 8
    assert "a guess" in verdict.reason
    assert "own gradient is within the tolerance" in verdict.reason
    assert max(verdict.witness.radius) < 3e-8
    holds(verdict, batch)
    assert check(verdict.certificate, network, gradient=given).radius == verdict.witness.radius


def test_the_radius_grows_with_the_tolerance_and_ends():
    network, _, given = case(SMALL, 4)
    radii = [
        max(certify(network, gradient=given, tolerance=eps, batch_size=4).witness.radius)
        for eps in (1e-12, 1e-10, 1e-8)
    ]
    assert radii == sorted(radii)
    assert radii[2] == pytest.approx(1e4 * radii[0], rel=0.2)
    verdict = certify_as(Outcome.UNKNOWN, network, gradient=given, tolerance=1e-3, batch_size=4)
    assert verdict.witness is None
    assert verdict.certificate is None
    assert verdict.trust is None
    assert "no radius is proved" in verdict.reason


def test_sum_reduction_and_exact_fractions():
    network, batch, given = case(SMALL, 3, Loss.MSE, seed=2)
    total = {name: 12.0 * value for name, value in given.items()}
    exact = {name: np.vectorize(Fraction, otypes=[object])(value) for name, value in total.items()}
    for gradient in (total, Gradient(tensors=exact)):
        verdict = certify_as(
            Outcome.UNIQUE,
            network,
            gradient=gradient,
            loss="mse",
            reduction="sum",
            tolerance=1e-12,
            batch_size=3,
        )
        holds(verdict, batch)


class TestWhatIsNotProvedIsSaid:
    def ask(self, network, given, **options):
        verdict = certify_as(Outcome.UNKNOWN, network, gradient=given, **({"tolerance": 1e-12} | options))
        assert verdict.certificate is None
        return verdict.reason

    def test_another_batch_size(self):
        network, _, given = case(SMALL, 4)
        assert "another batch size fits" in self.ask(network, given, batch_size=5)
        assert "does not show 11 samples" in self.ask(network, given, batch_size=11)
        assert "neurons give one each" in self.ask(network, given, batch_size=40)

    def test_samples_of_one_pattern(self):
        network, batch, _ = case(SMALL, 3)
        inputs = np.array(batch.inputs)
        inputs[1] = inputs[0] + 1e-6
        close, given = _moved(network, batch, inputs)
        patterns = forward(network, close).patterns[0]
        assert np.array_equal(patterns[:, 0], patterns[:, 1])
        assert "no radius is proved" in self.ask(network, given, batch_size=3)

    def test_too_few_neurons(self):
        network, _, given = case([20, 16, 4], 4)
        assert "neurons give one each" in self.ask(network, given, batch_size=4)

    def test_real_labels(self):
        network, _, given = case(SMALL, 3, Loss.MSE)
        assert "'one_hot'" in self.ask(network, given, loss="mse", labels="real", batch_size=3)

    def test_no_biases_and_no_hidden_layer(self):
        network, _, given = case(SMALL, 3)
        bare = ReluNetwork.from_arrays([layer.weight for layer in network.layers])
        weights = {name: value for name, value in given.items() if name.endswith("weight")}
        assert "no biases" in self.ask(bare, weights, batch_size=3)
        flat, _, given = case([5, 3], 2)
        assert "no hidden layer" in self.ask(flat, given, batch_size=2)

    def test_a_tolerance_above_every_singular_value(self):
        network, _, given = case(SMALL, 3)
        assert "shows no sample above the tolerance" in self.ask(network, given, tolerance=1e9)

    def test_a_spent_budget(self):
        network, _, given = case(SMALL, 3)
        assert "work limit" in self.ask(network, given, batch_size=3, work_limit=1)

    def test_engines_without_an_argument(self):
        network, _, given = case(SMALL, 3)
        assert "engine='families'" in self.ask(network, given, engine="families", batch_size=3)
        assert "mse and hinge" in self.ask(network, given, engine="smt", batch_size=3)

    def test_a_layer_that_is_too_large(self, monkeypatch):
        network, _, given = case(SMALL, 3)
        monkeypatch.setattr("exan_verify.decide.tolerance.engine.LARGEST_LAYER", 100)
        assert "up to 100" in self.ask(network, given, batch_size=3)


def test_known_labels_are_refused():
    network, _, given = case(SMALL, 3)
    with pytest.raises(InputError, match="labels='known'"):
        certify(network, gradient=given, labels="known", tolerance=1e-12)


def test_a_domain_that_the_batch_leaves_is_said():
    network, batch, given = case(SMALL, 3)
    inside = certify(network, gradient=given, tolerance=1e-12, batch_size=3, domain=Box(0, 1))
    assert inside.certificate["claim"]["realised"]
    holds(inside, batch)
    outside = certify(network, gradient=given, tolerance=1e-12, batch_size=3, domain=Box(0, 0.5))
    assert outside.outcome is Outcome.UNREALISABLE
    assert check(outside.certificate, network, gradient=given).outcome is Outcome.UNREALISABLE


def test_a_tolerance_below_the_rounding_is_no_batch_s():
    """Rounding to float32 leaves no batch within 1e-13: the rank is above every batch's of this size."""
    network, _, given = case(SMALL, 4, dtype=np.float32)
    verdict = certify_as(Outcome.UNREALISABLE, network, gradient=given, tolerance=1e-13, batch_size=4)
    assert verdict.engine is Engine.DIRECT
    assert check(verdict.certificate, network, gradient=given).outcome is Outcome.UNREALISABLE


def test_an_unknown_says_how_far_the_nearest_batch_found_is():
    """A gradient of another network: something is found, and it is far."""
    network, _, _ = case(SMALL, 1, seed=4)
    _, _, given = case(SMALL, 1, seed=5)
    verdict = certify_as(Outcome.UNKNOWN, network, gradient=given, tolerance=1e-12, batch_size=1)
    assert verdict.trust is None
    assert verdict.certificate is None
    assert verdict.distance > 0.1
    assert f"{verdict.distance:.3g}" in verdict.reason


def test_solvers_take_over_where_bounds_do_not_suffice():
    """Two neurons are too few for two samples; the solvers still find a radius."""
    network = ReluNetwork.from_arrays([[[1.0], [2.0]], [[1.0, 1.0]]], [[0.0, -1.0], [0.0]])
    given = {
        "0.weight": np.array([[2.0], [0.0]]),
        "0.bias": np.array([2.0, 0.0]),
        "2.weight": np.array([[2.0, 0.0]]),
        "2.bias": np.array([2.0]),
    }
    options = {"loss": "mse", "reduction": "sum", "batch_size": 1, "tolerance": 1e-6}
    verdict = certify(network, gradient=given, **options, engine="smt")
    ours = certify(network, gradient=given, **options, engine="lifting")
    assert verdict.engine is Engine.SMT
    if verdict.outcome is Outcome.UNIQUE:
        assert len(verdict.witness.radius) == 1
        assert verdict.witness.radius[0] >= 1e-6
    if ours.outcome is Outcome.UNIQUE and verdict.batch is not None:
        assert nearest(verdict.batch, ours.batch)[1][0] <= ours.witness.radius[0]


class TestCommandLine:
    @pytest.fixture
    def files(self, tmp_path):
        network, _, given = case(SMALL, 3)
        save_tensors(tmp_path / "model.safetensors", dict(network.parameters()))
        save_gradient(tmp_path / "gradient.npz", given)
        return tmp_path

    def run(self, capsys, *arguments):
        code = main([str(a) for a in arguments])
        return code, capsys.readouterr()

    def test_text_json_and_check(self, files: Path, capsys):
        model, gradient, written = (files / n for n in ("model.safetensors", "gradient.npz", "c.json"))
        asked = ("certify", model, "--gradient", gradient, "--tolerance", "1e-12")
        code, out = self.run(capsys, *asked, "--certificate", written)
        assert code == 0
        assert "radius" in out.out
        assert "L-infinity" in out.out
        code, out = self.run(capsys, *asked, "--batch-size", "3", "--json")
        record = json.loads(out.out)
        assert code == 0
        assert len(record["witness"]["radius"]) == 3
        assert len(record["batch"]["x"]) == 3
        assert "radius" in record["meaning"]
        assert 0 <= record["distance"] <= 1e-12
        code, out = self.run(capsys, "check", written, model, "--gradient", gradient)
        assert code == 0
        assert "of the certificate's batch" in out.out
        code, out = self.run(capsys, *asked, "--batch-size", "7")
        assert code == 3

    def test_a_gradient_times_minus_one_is_refuted(self, files: Path, capsys):
        _, _, given = case(SMALL, 3)
        model, gradient, written = (files / n for n in ("model.safetensors", "negated.npz", "c.json"))
        save_gradient(gradient, {name: -value for name, value in given.items()})
        asked = ("certify", model, "--gradient", gradient, "--tolerance", "1e-12")
        code, out = self.run(capsys, *asked, "--certificate", written)
        assert code == 0
        assert "UNREALISABLE" in out.out
        assert "differs by up to" in out.out
        code, out = self.run(capsys, *asked, "--json")
        record = json.loads(out.out)
        assert record["outcome"] == "unrealisable"
        assert record["distance"] > 1e-3
        assert record["batch"] is None
        code, out = self.run(capsys, "check", written, model, "--gradient", gradient)
        assert code == 0
        assert "ACCEPTED: UNREALISABLE" in out.out


class TestParts:
    def problem(self, **changes):
        network, batch, given = case(SMALL, 4)
        setting = Setting(
            network=network,
            question=Question(
                loss=Loss.CROSS_ENTROPY,
                reduction=Reduction.MEAN,
                labels=Labels.ONE_HOT,
                domain=changes.pop("domain", None),
                tolerance=Fraction(1, 10**12),
            ),
        )
        base = Problem(
            setting=setting,
            gradient=Gradient(tensors=given),
            samples=4,
            budget=Budget(),
        )
        return batch, replace(base, **changes)

    def test_the_centre_is_the_batch_up_to_rounding(self):
        batch, problem = self.problem()
        assert numerical_rank(problem) == 4
        (centre,) = find(problem)
        places, distances = nearest(batch, replace(batch, inputs=centre.inputs))
        assert sorted(places) == [0, 1, 2, 3]
        assert distances.max() < 1e-13
        assert np.array_equal(centre.targets.argmax(axis=1), batch.labels[places])

    def test_the_centre_is_moved_into_the_domain(self):
        third = Box([Fraction(1, 3)], [Fraction(2, 3)])
        _, problem = self.problem()
        setting = replace(problem.setting, question=replace(problem.setting.question, domain=third))
        centre, outside = find(replace(problem, setting=setting))
        assert outside.inputs.min() < Fraction(1, 3)
        assert centre.inputs.min() >= Fraction(1, 3)
        assert centre.inputs.max() <= Fraction(2, 3)

    def test_rows_of_the_right_inverse_add_up_to_the_last_unit_vector_exactly(self):
        rng = np.random.default_rng(0)
        features = np.concatenate([rng.uniform(size=(5, 30)), np.ones((5, 1))], axis=1)
        with working_precision():
            found = right_inverse(features)
            sums = (found * ball_matrix(np.ones((5, 1)))).entries()
        assert all(s.is_exact() for s in sums)
        assert [float(s) for s in sums] == [0.0] * 30 + [1.0]
        with pytest.raises(NotShownError, match="dependent"), working_precision():
            right_inverse(np.concatenate([features[:1], features[:1] * (1 + 1e-16)]) * 1e-300)

    def test_stated_radii_are_short_and_not_below(self):
        for proved in (1.23456e-8, 9.9999e-3, 1.0, 123456.0, 5e-324, 0.0):
            stated = stated_radius(proved, 0.0)
            assert proved <= stated <= proved * 1.03 + 1e-323
            assert stated <= stated_radius(proved, 4.0) <= stated * 1.01 + 4 * 2.0**-45

    def test_columns_that_may_mix_leave_the_order_open(self):
        columns = np.array([[0, 1e-3], [1e-3, 0]])
        spread = Spread(columns=columns, following=np.zeros((2, 1)))
        with working_precision():
            with pytest.raises(NotShownError, match="different samples of every near batch"):
                _factors(spread, [flint.arb(501)] * 2)
            sizes, scales = _factors(spread, [flint.arb(400)] * 2)
        assert np.all((scales >= 1e-3) & (scales <= 1.01e-3))
        assert all(1 < size <= 1.01 for size in sizes)


class TestBalls:
    def test_upper_bounds_are_not_below(self):
        with working_precision():
            third = ball_matrix(np.array([[Fraction(-1, 3), Fraction(1, 7)]], dtype=object))
            bounds = upper(third)
            assert Fraction(bounds[0, 0]) >= Fraction(1, 3)
            assert Fraction(bounds[0, 1]) >= Fraction(1, 7)
            assert bounds[0, 0] <= 1 / 3 * (1 + 1e-15)
            assert upper(interval_matrix(np.array([[0.1, 0.0]])))[0, 0] >= 0.1
            assert upper(ball_matrix(np.zeros((1, 1))))[0, 0] == 0
            assert upper_float(third[0, 0] / ball_matrix(np.zeros((1, 1)))[0, 0]) == np.inf

    def test_intervals_are_outside_and_inside(self):
        with working_precision():
            for radius in (Fraction(1e-12), Fraction(1, 3), Fraction(2) ** -1000):
                edge = ball_matrix(np.array([[radius]], dtype=object))
                assert constant_interval((1, 1), radius).contains(edge)
                inner = inner_interval((1, 1), radius)
                assert not inner.contains(edge)
                assert inner.contains(edge * ball_matrix(np.array([[0.999999]])))


def _moved(network, batch, inputs):
    from tests.support.tolerance_cases import moved

    return moved(network, batch, Loss.CROSS_ENTROPY, inputs)
