from fractions import Fraction

import numpy as np
import pytest
import torch

from exan_verify.core.network import Batch, Gradient, ReluNetwork, exact_array
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import GradientError, InputError, LabelError, NonFiniteError, ShapeError

W = [[[1, 2], [3, 4], [5, 6]], [[1, 0, -1]]]
B = [[0, 0, 1], [2]]


def network():
    return ReluNetwork.from_arrays(W, B)


def batch(x, y, loss=Loss.MSE, labels=Labels.ONE_HOT, net=None):
    return Batch.of(x, y, network=net or network(), loss=loss, labels=labels)


class TestExactArrays:
    def test_values_survive_every_dtype(self):
        for value in (np.float32([0.1, -2]), np.float64([0.1, 3]), torch.tensor([0.1, 7.0])):
            again = exact_array(value, "v")
            assert [Fraction(float(v)) for v in again] == [Fraction(float(v)) for v in value]

    def test_bfloat16_keeps_its_value(self):
        assert exact_array(torch.tensor([1.0078125], dtype=torch.bfloat16), "v")[0] == 1.0078125

    def test_fractions_that_are_floats_become_floats(self):
        assert exact_array([Fraction(1, 2), 3], "v").dtype == np.float64
        assert exact_array([Fraction(1, 3), 3], "v").dtype == object

    def test_huge_integers_stay_exact(self):
        assert exact_array([2**60 + 1], "v")[0] == 2**60 + 1

    def test_arrays_are_read_only_copies(self):
        source = np.array([1.0, 2.0])
        frozen = exact_array(source, "v")
        source[0] = 9
        assert frozen[0] == 1
        with pytest.raises(ValueError, match="read-only"):
            frozen[0] = 5

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_non_finite_is_refused_with_its_place(self, bad):
        with pytest.raises(NonFiniteError, match=r"weights contains .*index \(1,\)"):
            exact_array([1.0, bad], "weights")
        with pytest.raises(NonFiniteError):
            exact_array([Fraction(1, 3), bad], "weights")

    @pytest.mark.parametrize("bad", [["a"], [[1], [1, 2]], np.array([1j]), [None]])
    def test_non_numbers_are_refused(self, bad):
        with pytest.raises(InputError, match="v "):
            exact_array(bad, "v")


class TestNetworks:
    def test_shapes_and_names(self):
        net = network()
        assert net.widths == (2, 3, 1)
        assert [name for name, _ in net.parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]

    def test_equality_goes_by_value(self):
        as_float = ReluNetwork.from_arrays([np.float32(w) for w in W], [np.float64(b) for b in B])
        assert network() == as_float
        assert hash(network()) == hash(as_float)
        assert network() != ReluNetwork.from_arrays(W, [[0, 0, 1], [3]])
        assert network() != ReluNetwork.from_arrays(W)

    def test_negative_zero_is_zero(self):
        assert ReluNetwork.from_arrays(W, [[-0.0, 0.0, 1], [2]]) == network()

    def test_all_problems_are_reported_together(self):
        with pytest.raises(ShapeError, match=r"(?s)2 problems.*0\.bias.*2\.weight"):
            ReluNetwork.from_arrays([W[0], [1, 2]], [[0, 0], [2]])

    def test_width_mismatch_names_both_layers(self):
        with pytest.raises(ShapeError, match="'2' takes 2 inputs but layer '0' gives 3"):
            ReluNetwork.from_arrays([W[0], [[1, 2]]], B)

    def test_biases_in_some_layers_only_are_no_question_for_exact_arguments(self):
        mixed = ReluNetwork.from_arrays(W, [[0, 0, 1], None])
        assert len({mixed.digest, ReluNetwork.from_arrays(W).digest}) == 2
        assert "no bias in ['2']" in repr(mixed)
        assert not ReluNetwork.from_arrays(W).mixed_biases
        with pytest.raises(InputError, match=r"\['2'\] have no bias"):
            _ = mixed.has_bias

    def test_no_layers(self):
        with pytest.raises(InputError, match="no layers"):
            ReluNetwork.from_arrays([], [])


class TestBatches:
    def test_exact_tuples(self):
        made = batch([[Fraction(1, 3), 2], [1, 1]], [0, 1])
        assert made.x == ((Fraction(1, 3), 2), (1, 1))
        assert made.y == ((0,), (1,))

    def test_images_are_flattened(self):
        assert batch(np.ones((3, 1, 2)), [0, 1, 0]).inputs.shape == (3, 2)

    @pytest.mark.parametrize(
        ("x", "y", "loss", "error", "match"),
        [
            (np.ones((0, 2)), [], Loss.MSE, ShapeError, "M >= 1"),
            (np.ones((2, 3)), [0, 1], Loss.MSE, ShapeError, "3 features"),
            (np.ones((2, 2)), [0], Loss.MSE, ShapeError, "2 samples"),
            (np.ones((2, 2)), [0, 5], Loss.CROSS_ENTROPY, LabelError, r"y\[1\] = 5 is not a class"),
            (np.ones((2, 2)), [0, 0.5], Loss.CROSS_ENTROPY, LabelError, r"y\[1\] = 1/2"),
            (np.ones((2, 2)), [0, 2], Loss.BCE, LabelError, r"y\[1\] is not made of zeros and ones"),
            (np.ones((2, 2)), [[0, 1], [0, 1]], Loss.MSE, ShapeError, r"give \(2, 1\)"),
            ([[1, 2], [3, float("nan")]], [0, 1], Loss.MSE, NonFiniteError, r"x contains NaN"),
        ],
    )
    def test_bad_batches(self, x, y, loss, error, match):
        with pytest.raises(error, match=match):
            batch(x, y, loss)

    def test_mse_targets_must_be_one_hot_unless_said(self):
        net = ReluNetwork.from_arrays([[[1, 2]], [[1], [2]]], [[0], [0, 0]])
        x = np.ones((1, 2))
        with pytest.raises(LabelError, match="labels='real'"):
            batch(x, [[0.5, 0.5]], net=net)
        assert batch(x, [[0.5, 0.5]], net=net, labels=Labels.REAL).y == ((Fraction(1, 2), Fraction(1, 2)),)
        assert batch(x, [1], net=net).y == ((0, 1),)

    def test_real_labels_are_for_mse(self):
        with pytest.raises(LabelError, match="mse only"):
            batch(np.ones((1, 2)), [0], Loss.CROSS_ENTROPY, Labels.REAL)

    def test_order_changes_the_digest(self):
        made = batch([[1, 2], [3, 4]], [0, 1])
        assert made.select([1, 0]) != made
        assert made.select([1, 0]).select([1, 0]) == made


class TestGradients:
    def tensors(self, **changes):
        given = {
            "0.weight": np.ones((3, 2)),
            "0.bias": np.ones(3),
            "2.weight": np.ones((1, 3)),
            "2.bias": [1.0],
        }
        return {k: v for k, v in (given | changes).items() if v is not None}

    def test_parts_in_order(self):
        parts = Gradient(tensors=self.tensors()).for_network(network())
        assert [(w.shape, b.shape) for w, b in parts] == [((3, 2), (3,)), ((1, 3), (1,))]

    def test_every_problem_is_named(self):
        given = self.tensors(**{"0.bias": None, "extra": [1.0], "2.weight": np.ones((3, 1))})
        with pytest.raises(GradientError, match=r"(?s)3 problems.*'0.bias'.*'extra'.*'2.weight'"):
            Gradient(tensors=given).for_network(network())

    def test_all_zero_is_refused(self):
        zero = {k: np.zeros_like(v) for k, v in self.tensors().items()}
        with pytest.raises(GradientError, match="every entry of the gradient is zero"):
            Gradient(tensors=zero).for_network(network())

    def test_nan_is_refused(self):
        with pytest.raises(NonFiniteError, match=r"gradient\['0.bias'\]"):
            Gradient(tensors=self.tensors(**{"0.bias": [1, float("nan"), 0]}))

    def test_rational_means_integers_or_fractions(self):
        assert Gradient(tensors={"a": [Fraction(1, 3), 2]}).rational
        assert Gradient(tensors={"a": [1, 2]}).rational
        assert not Gradient(tensors={"a": [1, 2], "b": [0.5]}).rational
        assert not Gradient(tensors={"a": torch.ones(2)}).rational


def test_divisors_are_torchs():
    assert [loss.divisor(Reduction.MEAN, 3, 5) for loss in Loss] == [3, 15, 15, 3]
    assert {loss.divisor(Reduction.SUM, 3, 5) for loss in Loss} == {1}
