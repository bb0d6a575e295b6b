"""Law: exact gradients are autograd's (to rounding) and equal the naive Fraction implementation's."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.core.question import Loss
from exan_verify.exact import backprop
from exan_verify.exact.modular import PRIME
from exan_verify.testing.strategies import LOSSES, REDUCTIONS, batches, networks
from tests.conftest import examples
from tests.support import naive, torch_reference


@examples(120)
@given(data=st.data(), loss=LOSSES, reduction=REDUCTIONS, generic=st.booleans())
def test_balls_contain_autograd_to_1e_9(data, loss, reduction, generic):
    network = data.draw(networks(biases=None, generic=generic))
    batch = data.draw(batches(network, loss, generic=generic))
    if loss is Loss.HINGE and network.classes == 1:
        return
    balls = backprop.gradient_ball(network, batch, loss, reduction)
    reference = torch_reference.gradient(network, batch, loss, reduction)
    scale = max(np.abs(array).max() for array in reference.values())
    for name, expected in reference.items():
        entries = np.array([float(v.mid()) for v in balls[name].entries()]).reshape(expected.shape)
        # relative to the size of what is summed: a gradient that cancels keeps its terms' rounding
        assert np.abs(entries - expected).max() <= 1e-9 * max(scale, 1.0)


@examples(120)
@given(data=st.data(), loss=st.sampled_from([Loss.MSE, Loss.HINGE]), reduction=REDUCTIONS)
def test_rational_gradients_equal_the_naive_ones(data, loss, reduction):
    network = data.draw(networks(biases=None))
    batch = data.draw(batches(network, loss))
    exact = backprop.gradient(network, batch, loss, reduction)
    for name, expected in naive.gradient(network, batch, loss, reduction).items():
        got = exact.tensors[name]
        assert [Fraction(v) for v in got.reshape(-1)] == [v for row in _rows(expected) for v in row]


@examples(60)
@given(data=st.data(), loss=st.sampled_from([Loss.MSE, Loss.HINGE]), reduction=REDUCTIONS)
def test_residues_are_the_rational_gradient_mod_p(data, loss, reduction):
    network = data.draw(networks(biases=None))
    batch = data.draw(batches(network, loss))
    exact = backprop.gradient(network, batch, loss, reduction)
    images = backprop.gradient_mod(network, batch, loss, reduction, 5)
    for array, residues in zip(exact.tensors.values(), images, strict=True):
        expected = [
            Fraction(v).numerator * pow(Fraction(v).denominator, -1, PRIME) % PRIME for v in array.reshape(-1)
        ]
        assert residues.reshape(-1).tolist() == expected


@examples(60)
@given(data=st.data())
def test_patterns_and_zeros_are_the_naive_signs(data):
    network = data.draw(networks(biases=None))
    batch = data.draw(batches(network, Loss.MSE))
    passed = backprop.forward(network, batch)
    for m in range(batch.size):
        zs = naive.forward(network, list(batch.x[m]))
        for i, z in enumerate(zs[:-1]):
            assert passed.patterns[i][:, m].tolist() == [v > 0 for v in z]
            assert passed.zeros[i][:, m].tolist() == [v == 0 for v in z]
        assert passed.logits[:, m].tolist() == zs[-1]


def _rows(value):
    return value if isinstance(value[0], list) else [value]
