"""UNIQUE of a release against a solver that looks through every pattern: one input, two samples, mse."""

from fractions import Fraction
from itertools import combinations_with_replacement, pairwise, product

import numpy as np
import pytest
import z3

from exan_verify import Release
from exan_verify.api.certify import certify
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Loss, Weights
from exan_verify.core.verdict import Outcome
from exan_verify.exact.linalg import rank
from tests.support.release_cases import batch_of, network_of, release_of, sent

MILLISECONDS = 2000
ENOUGH = 3


def intervals(network: ReluNetwork) -> list[tuple[Fraction | None, Fraction | None]]:
    """Open ones between neighbouring kinks, and the kinks: the pattern is constant there; None: no end."""
    first = network.layers[0]
    kinks = {-Fraction(int(b)) / int(w) for w, b in zip(first.weight[:, 0], first.bias, strict=True) if w}
    ends = [None, *sorted(kinks), None]
    return [*pairwise(ends), *((kink, kink) for kink in sorted(kinks))]


def contribution(network: ReluNetwork, label: list[int], where: tuple) -> dict[str, np.ndarray]:
    """A sample's part of every gradient for x in ``where``: coefficients (n, 3) of 1, x, x^2 per entry."""
    first, last = network.layers
    low, high = where
    middle = Fraction(0)
    if low is not None or high is not None:
        middle = high - 1 if low is None else low + 1 if high is None else (low + high) / 2
    slope, offset = (np.array([int(v) for v in part]) for part in (first.weight[:, 0], first.bias))
    active = np.array([int(w) * middle + int(b) > 0 for w, b in zip(slope, offset, strict=True)])
    slope, offset = slope * active, offset * active
    weight = last.weight.astype(int)
    g = 2 * np.stack([weight @ offset + last.bias.astype(int) - label, weight @ slope])  # of 1 and x
    delta = (g @ weight) * active
    zeros, stack = np.zeros_like, np.stack
    hidden = (g[0][:, None] * offset, g[0][:, None] * slope + g[1][:, None] * offset, g[1][:, None] * slope)
    return {
        "0.weight": stack([zeros(delta[0]), delta[0], delta[1]], axis=-1),
        "0.bias": stack([delta[0], delta[1], zeros(delta[0])], axis=-1),
        "2.weight": stack([part.reshape(-1) for part in hidden], axis=-1),
        "2.bias": stack([g[0], g[1], zeros(g[0])], axis=-1),
    }


def second_batch(network: ReluNetwork, batch: Batch, release: Release, factors: list[Fraction]) -> object:
    """A sat answer for another batch with the release, or None where all cases are refuted.

    What is sent is linear in w_m, w_m x_m, w_m x_m^2 once both samples' patterns are chosen; most choices
    have no solution even of these equations, and the solver is asked about the others.
    """
    given = sent(network, batch, Loss.MSE, release, factors)
    arrays = dict(network.parameters())
    right = np.concatenate([given[name].reshape(-1) for name in arrays])
    free = release.weights is Weights.POSITIVE
    parts = []
    for label, where in product(np.eye(network.classes, dtype=int).tolist(), intervals(network)):
        found = contribution(network, label, where)
        rows = {name: release.sends(name, len(array)) for name, array in arrays.items()}
        kept = [found[n][np.repeat(rows[n], len(found[n]) // len(rows[n]))] for n in arrays]
        parts.append((np.concatenate(kept), label, where))
    for pair in combinations_with_replacement(parts, 2):
        left = np.concatenate([pair[0][0], pair[1][0]], axis=1).astype(object)
        target = right
        if not free:
            target = right - left[:, 0] - left[:, 3]
            left = left[:, [1, 2, 4, 5]]
        if len(left) and rank(np.concatenate([left, target[:, None]], axis=1)) > rank(left):
            continue
        if (answer := _asked(batch, pair, right, free)) is not None:
            return answer
    return None


def _asked(batch: Batch, pair: tuple, right: np.ndarray, free: bool) -> object:
    solver = z3.SolverFor("QF_NRA")
    solver.set("timeout", MILLISECONDS)
    xs, ws = z3.Reals("x0 x1"), z3.Reals("w0 w1") if free else [z3.RealVal(1)] * 2
    solver.add(*[w > 0 for w in ws if free])
    for x, (_, _, (low, high)) in zip(xs, pair, strict=True):
        if low is not None:
            solver.add(x == _exact(low) if low == high else x > _exact(low))
        if high is not None and low != high:
            solver.add(x < _exact(high))
    for one, two, value in zip(pair[0][0], pair[1][0], right, strict=True):
        terms = [
            w * (int(c[0]) + int(c[1]) * x + int(c[2]) * x * x)
            for c, x, w in zip((one, two), xs, ws, strict=True)
        ]
        solver.add(terms[0] + terms[1] == _exact(value))
    own = [(x[0], tuple(map(int, y))) for x, y in zip(batch.x, batch.y, strict=True)]
    for order in ([0, 1], [1, 0]):
        if all(tuple(pair[i][1]) == own[m][1] for i, m in enumerate(order)):
            solver.add(z3.Or(*[xs[i] != _exact(own[m][0]) for i, m in enumerate(order)]))
    return solver.model() if solver.check() == z3.sat else None


def _exact(value: object) -> object:
    number = Fraction(value)
    return z3.Q(number.numerator, number.denominator)


@pytest.mark.parametrize("weights", ["equal", "positive"])
def test_no_second_batch_has_a_release_that_is_unique(weights):
    found = 0
    for seed in range(400):
        rng = np.random.default_rng([seed, weights == "equal"])
        network = network_of(rng, [1, int(rng.integers(5, 8)), 2], top=3)
        batch = batch_of(rng, network, 2, Loss.MSE)
        release = release_of(rng, network, 0.8, weights=weights)
        ask = {"batch": batch, "loss": "mse", "reduction": "sum", "engine": "lifting"}
        if certify(network, **ask, release=release).outcome is not Outcome.UNIQUE:
            continue
        found += 1
        factors = [Fraction(1)] * 2
        if weights == "positive":
            factors = [Fraction(int(a), int(b)) for a, b in rng.integers(1, 5, (2, 2))]
        assert second_batch(network, batch, release, factors) is None, (seed, release.described)
        if found == ENOUGH:
            break
    assert found == ENOUGH


def test_the_solver_finds_a_second_batch_where_there_is_one():
    """The control: what no row of the first layer is sent of moves as soon as W_1 is zero."""
    network = ReluNetwork.from_arrays([[[0], [0]], [[1, 2], [2, 1]]], [[1, 1], [0, 0]])
    batch = batch_of(np.random.default_rng(0), network, 2, Loss.MSE)
    for release in (Release(tensors=["2.weight", "2.bias"]), Release(tensors=["0.bias"], weights="positive")):
        assert second_batch(network, batch, release, [Fraction(1)] * 2) is not None
    rng = np.random.default_rng(1)
    network = network_of(rng, [1, 5, 2], top=3)
    batch, few = batch_of(rng, network, 2, Loss.MSE), Release(rows={"0.weight": [True] + [False] * 4})
    few = Release(tensors=["0.weight"], rows=few.rows)
    assert second_batch(network, batch, few, [Fraction(1)] * 2) is not None
    assert certify(network, batch=batch, loss="mse", release=few).outcome is not Outcome.UNIQUE
