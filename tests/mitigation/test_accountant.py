"""Epsilons against known values, numerical integration, and laws that every accountant obeys."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from exan_verify.errors import InputError
from exan_verify.mitigation.accountant import one_release, sampled_divergence, training_run


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-2])
def test_one_release_is_the_hockey_stick_divergence(sigma, delta):
    """delta = E_P[(1 - e^eps Q/P)+] with P = N(1, sigma^2), Q = N(0, sigma^2), integrated numerically."""
    epsilon = one_release(sigma, delta)

    def excess(t):
        return max(0.0, norm.pdf(t, 1, sigma) - math.exp(epsilon) * norm.pdf(t, 0, sigma))

    start = sigma**2 * epsilon + 0.5  # where the densities' ratio is e^eps
    found = quad(excess, start, start + 30 * sigma, epsabs=1e-14)[0]
    assert found == pytest.approx(delta, rel=1e-5)


def test_known_values():
    # Dong, Roth and Su (Gaussian differential privacy): mu = 1 is epsilon 4.377 at 1e-5
    assert one_release(1.0, 1e-5) == pytest.approx(4.377, abs=1e-3)
    # the MNIST tutorial of TensorFlow Privacy: 60000 samples, batches of 256, sigma 1.1, 60 epochs: 3.0 by
    # the older conversion, log(1/delta) / (a - 1); the newer one is smaller
    steps, rate, delta = 60 * 60000 // 256, 256 / 60000, 1e-5
    older = min(
        steps * sampled_divergence(1.1, rate, a) + math.log(1 / delta) / (a - 1) for a in range(2, 64)
    )
    assert older == pytest.approx(3.0, abs=0.05)
    assert 2.4 < training_run(1.1, rate, steps, delta) < older


@pytest.mark.parametrize("sigma", [0.8, 1.5, 4.0])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("order", [2, 5, 16])
def test_the_sampled_divergence_is_its_integral(sigma, rate, order):
    """E_Q[(P/Q)^a] with Q = N(0, sigma^2) and P = (1 - q) Q + q N(1, sigma^2)."""

    def integrand(t):
        ratio = (1 - rate) + rate * np.exp((2 * t - 1) / (2 * sigma**2))
        return norm.pdf(t, 0, sigma) * ratio**order

    total = quad(integrand, -12 * sigma, order + 12 * sigma, limit=500, epsrel=1e-11)[0]
    assert sampled_divergence(sigma, rate, order) == pytest.approx(math.log(total) / (order - 1), rel=1e-6)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(1.0, 0.01, 1000), (2.0, 0.2, 30), (0.7, 0.05, 10)])
def test_epsilon_from_divergences_solves_the_other_form_of_the_conversion(sigma, rate, steps):
    """delta = exp((a - 1)(RDP(a) - eps)) / (a - 1) (1 - 1/a)^a at the best order, as it is first stated."""
    epsilon = training_run(sigma, rate, steps, 1e-5)
    logs = [
        (a - 1) * (steps * sampled_divergence(sigma, rate, a) - epsilon)
        - math.log(a - 1)
        + a * math.log(1 - 1 / a)
        for a in range(2, 64)
    ]
    assert min(logs) == pytest.approx(math.log(1e-5), rel=1e-9)


def test_without_sampling_it_is_the_gaussian_divergence():
    for sigma in (0.7, 2.0):
        for order in (2, 9):
            assert sampled_divergence(sigma, 1.0, order) == pytest.approx(order / (2 * sigma**2))
            assert sampled_divergence(sigma, 1 - 1e-12, order) == pytest.approx(order / (2 * sigma**2))


def test_it_grows_with_steps_and_rate_and_falls_with_noise_and_delta():
    base = training_run(1.0, 0.01, 100, 1e-5)
    assert training_run(1.0, 0.01, 200, 1e-5) > base
    assert training_run(1.0, 0.02, 100, 1e-5) > base
    assert training_run(2.0, 0.01, 100, 1e-5) < base
    assert training_run(1.0, 0.01, 100, 1e-3) < base


@pytest.mark.parametrize("sigma", [0.6, 1.0, 3.0])
def test_an_upper_bound_is_no_smaller_than_the_exact_epsilon(sigma):
    """One step with hardly any sampling left out: the bound by divergences lies above the exact one."""
    assert training_run(sigma, 1 - 1e-9, 1, 1e-5) >= one_release(sigma, 1e-5)
    assert training_run(sigma, 1.0, 4, 1e-5) == pytest.approx(one_release(sigma / 2, 1e-5))


def test_little_noise_is_no_privacy_and_much_is_perfect():
    assert one_release(1e-4, 1e-5) == math.inf
    assert training_run(1e-4, 0.5, 10, 1e-5) == math.inf
    assert one_release(1e6, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: one_release(0, 1e-5), "sigma"),
        (lambda: one_release(float("nan"), 1e-5), "sigma"),
        (lambda: one_release(1, 0), "delta"),
        (lambda: one_release(1, 1), "delta"),
        (lambda: training_run(1, 0, 1, 1e-5), "rate"),
        (lambda: training_run(1, 1.5, 1, 1e-5), "rate"),
        (lambda: training_run(1, 0.5, 0, 1e-5), "steps"),
    ],
)
def test_bad_numbers_are_named(call, says):
    with pytest.raises(InputError, match=says):
        call()
