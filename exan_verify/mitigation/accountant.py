"""Differential privacy of Gaussian noise: one release exactly, a training run by Renyi divergences.

Neighbouring batches differ in one sample added or removed. ``sigma`` is the noise multiplier: the standard
deviation of the noise on the sum, over the clipping norm of a sample's gradient. Floating point throughout.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, logsumexp

from exan_verify.errors import InputError, positive, whole

ACCOUNTANT = "Renyi differential privacy of the Poisson-sampled Gaussian mechanism"
"""Mironov, Talwar and Zhang, arXiv:1908.10530."""

_ORDERS = (*range(2, 64), *range(64, 257, 8), 384, 512, 1024)
_MOST = 1e6
"""Epsilons above this say nothing, and are reported as infinite."""


def one_release(sigma: float, delta: float) -> float:
    """The least epsilon of a single Gaussian release, exactly (Balle and Wang 2018, theorem 8).

    delta(eps) = Phi(1/(2 sigma) - eps sigma) - e^eps Phi(-1/(2 sigma) - eps sigma), which falls with eps.
    """
    _check(sigma, delta)

    def above(epsilon: float) -> float:
        first = log_ndtr(0.5 / sigma - epsilon * sigma)
        second = epsilon + log_ndtr(-0.5 / sigma - epsilon * sigma)
        return float(np.exp(first) - np.exp(second)) - delta

    if above(0.0) <= 0:
        return 0.0
    top = 1.0
    while above(top) > 0:
        top *= 2
        if top > _MOST:
            return math.inf
    return float(brentq(above, 0.0, top, xtol=1e-12))


def training_run(sigma: float, rate: float, steps: int, delta: float) -> float:
    """An upper bound of the epsilon of ``steps`` releases, each of a batch that every sample enters on its
    own with probability ``rate``.

    Renyi divergences of :func:`sampled_divergence` add up over steps; the conversion is proposition 12 of
    Canonne, Kamath and Steinke (arXiv:2004.00010): eps = RDP(a) + log(1 - 1/a) - log(delta a) / (a - 1). With
    rate 1 the releases are together one with sigma / sqrt(steps), and that is exact.
    """
    _check(sigma, delta)
    whole(steps, "steps")
    if not 0 < rate <= 1:
        raise InputError(f"rate={rate} cannot be used; give a probability above 0 and at most 1")
    if rate == 1:
        return one_release(sigma / math.sqrt(steps), delta)
    found = min(
        steps * sampled_divergence(sigma, rate, a) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a in _ORDERS
    )
    return max(0.0, found) if found < _MOST else math.inf


def sampled_divergence(sigma: float, rate: float, order: int) -> float:
    """The Renyi divergence of whole ``order`` >= 2 of one step, over both directions of adding and removing
    (Mironov, Talwar and Zhang, section 3.3):

    log(sum_k C(a, k) (1 - q)^(a - k) q^k exp(k (k - 1) / (2 sigma^2))) / (a - 1), k = 0..a.
    """
    k = np.arange(order + 1)
    ways = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    drawn = (
        (order - k) * math.log1p(-rate) + k * math.log(rate)
        if rate < 1
        else np.where(k < order, -np.inf, 0.0)
    )
    return float(logsumexp(ways + drawn + k * (k - 1) / (2 * sigma**2))) / (order - 1)


def _check(sigma: float, delta: float) -> None:
    positive(sigma, "sigma")
    if not 0 < delta < 1:
        raise InputError(f"delta={delta} cannot be used; give a probability between 0 and 1")
