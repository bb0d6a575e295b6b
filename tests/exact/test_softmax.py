from fractions import Fraction
from types import SimpleNamespace

import flint
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.core.question import Loss
from exan_verify.exact import softmax
from exan_verify.exact.elimination import PRIMES
from exan_verify.exact.modular import PRIME
from tests.conftest import examples

LOGITS = st.lists(st.fractions(min_value=-5, max_value=5, max_denominator=8), min_size=3, max_size=3)


def column(values):
    out = np.empty((len(values), 1), dtype=object)
    out[:, 0] = [Fraction(v) for v in values]
    return out


@examples(80)
@given(logits=LOGITS, label=st.integers(0, 2), t=st.integers(2, PRIME - 1))
def test_cross_entropy_sums_to_zero_mod_p(logits, label, t):
    vector = softmax.loss_vectors_mod(Loss.CROSS_ENTROPY, column(logits), np.array([label]), 1, t)
    assert sum(int(v) for v in vector[:, 0]) % PRIME == 0


@examples(80)
@given(logits=LOGITS, shift=st.integers(-50, 50), t=st.integers(2, PRIME - 1))
def test_a_common_shift_of_the_logits_changes_nothing(logits, shift, t):
    """Also a test of negative exponents and of exponents mod p - 1."""
    one, two = column(logits), column([v + shift for v in logits])
    label = np.array([1])
    a = softmax.loss_vectors_mod(Loss.CROSS_ENTROPY, one, label, 3, t)
    b = softmax.loss_vectors_mod(Loss.CROSS_ENTROPY, two, label, 3, t)
    assert np.array_equal(a, b)


@pytest.mark.parametrize("prime", [PRIME, *PRIMES])
def test_residues_are_a_homomorphism_on_known_relations(prime):
    """p_0 / p_1 = T^(a_0 - a_1), and logits with different denominators share one T."""
    logits = np.concatenate([column([Fraction(1, 2), 0]), column([Fraction(1, 4), 0])], axis=1)
    t = 12345
    p = softmax.loss_vectors_mod(Loss.CROSS_ENTROPY, logits, np.array([0, 0]), 1, t, prime).astype(object)
    p[0, :] += 1
    ratio = [p[0, m] * pow(int(p[1, m]), -1, prime) % prime for m in range(2)]
    assert ratio == [t**2 % prime, t]  # T = e^(1/4)
    # sigmoid(v) / sigmoid(-v) = T^v, with the exponent -v taken mod p - 1
    two = softmax.loss_vectors_mod(Loss.BCE, column([3, -3]), np.zeros((1, 2)), 1, t, prime).astype(object)
    assert two[0, 0] * pow(int(two[1, 0]), -1, prime) % prime == pow(t, 3, prime)


def test_a_vanishing_denominator_is_an_error_not_a_number():
    t = PRIME - 1  # t = -1: 1 + T^1 vanishes
    with pytest.raises(softmax.VanishingDenominatorError):
        softmax.loss_vectors_mod(Loss.BCE, column([1]), np.array([[0.0]]), 1, t)
    with pytest.raises(softmax.VanishingDenominatorError):
        softmax.loss_vectors_mod(Loss.CROSS_ENTROPY, column([1, 0]), np.array([0]), 1, t)


@examples(60)
@given(logits=LOGITS, label=st.integers(0, 2))
def test_balls_contain_the_float_values(logits, label):
    balls = softmax.loss_vectors_ball(Loss.CROSS_ENTROPY, column(logits), np.array([label]), 2)
    e = np.exp(np.array([float(v) for v in logits]))
    want = (e / e.sum() - np.eye(3)[label]) / 2
    assert np.allclose([float(v.mid()) for v in balls.entries()], want, atol=1e-12)
    assert all(float(v.rad()) < 1e-20 for v in balls.entries())


def test_large_logits_do_not_overflow():
    balls = softmax.loss_vectors_ball(Loss.CROSS_ENTROPY, column([5000, -5000]), np.array([0]), 1)
    assert all(abs(float(v.mid())) < 1e-100 for v in balls.entries())
    assert all(float(v.rad()) < 1e-30 for v in balls.entries())


def test_hinge_ties_follow_torch():
    """Margin exactly 1 is not violated: torch tests 1 - f_y + f_c > 0."""
    tie = softmax.loss_vectors(Loss.HINGE, column([1, 0]), np.array([0]), 1)
    assert tie[:, 0].tolist() == [0, 0]
    inside = softmax.loss_vectors(Loss.HINGE, column([Fraction(99, 100), 0]), np.array([0]), 1)
    assert inside[:, 0].tolist() == [Fraction(-1, 2), Fraction(1, 2)]


def test_mse_targets_invert_the_loss_vector():
    logits = column([Fraction(1, 3), 2])
    labels = np.array([[Fraction(1, 7), Fraction(5)]], dtype=object)
    vectors = softmax.loss_vectors(Loss.MSE, logits, labels, 6)
    assert np.array_equal(softmax.mse_targets(logits, vectors, 6).T, labels)


@pytest.mark.parametrize("vectors", [softmax.loss_vectors_mod, softmax.loss_vectors_ball])
def test_a_loss_that_is_not_known_is_taken_for_none(vectors):
    unknown = SimpleNamespace(rational=False)
    with pytest.raises(ValueError, match="no loss of probabilities"):
        vectors(unknown, column([1, 2]), np.array([[0, 1]]), 1, 5)


def test_bounds_of_probabilities_hold_and_are_close():
    """``1 / (1 + sum e^v)`` at random points of random ranges, and where ranges are infinite or enormous."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        ends = np.sort(rng.integers(-40, 41, (int(rng.integers(1, 4)), 2)) / 4, axis=1)
        ranges = [(Fraction(float(a)), Fraction(float(b))) for a, b in ends]
        low, high = softmax.probability_bounds(ranges)
        for share in (0.0, 0.3, 1.0):
            value = 1 / (1 + np.exp(ends[:, 0] + share * (ends[:, 1] - ends[:, 0])).sum())
            assert float(low) <= value * (1 + 1e-12)
            assert value <= float(high) * (1 + 1e-12)
        point = [(a, a) for a, _ in ranges]
        low, high = softmax.probability_bounds(point)
        assert 0 <= high - low <= Fraction(1, 2**44)
    assert softmax.probability_bounds([(None, None)]) == (0, 1)
    assert softmax.probability_bounds([(None, Fraction(0))]) == (Fraction(1, 2), 1)
    huge = Fraction(10) ** 60
    for end in (huge, -huge):
        low, high = softmax.probability_bounds([(end, end)])
        assert 0 <= low <= high <= 1
    assert softmax.rounded_up((-flint.arb(3)).exp()) >= Fraction(float(np.exp(-3.0))) - Fraction(1, 2**50)
