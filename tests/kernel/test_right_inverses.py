"""Floats that balls show to be near exact right inverses, and the equations of a second layer."""

from fractions import Fraction
from itertools import pairwise

import flint
import numpy as np
import pytest

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.balls import ball_matrix, working_precision
from exan_verify.exact.linalg import nullspace, rank
from exan_verify.kernel.second.first_layer import FirstLayer, above, part_of, right_inverse
from exan_verify.kernel.second.second_layer import SecondLayer, equations_of
from tests.support.contexts import context_of, subject_of


def wide(middle, radius):
    """Balls around ``middle``."""
    entries = [flint.arb(float(v), float(r)) for v, r in zip(middle.flat, radius.flat, strict=True)]
    return flint.arb_mat(*middle.shape, entries)


@pytest.mark.parametrize("seed", range(20))
def test_a_right_inverse_bounds_the_exact_ones_of_all_matrices_in_the_balls(seed):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 4))
    middle = rng.normal(size=(rows, rows + int(rng.integers(0, 3))))
    most = 0.45 / np.abs(np.linalg.pinv(middle)).sum(axis=0).max() / middle.shape[1]
    radius = np.full(middle.shape, most * rng.random())
    found = right_inverse(wide(middle, radius))
    for _ in range(20):
        one = middle + radius * rng.choice([-1, 1], middle.shape)
        exact = found.floats @ np.linalg.inv(one @ found.floats)
        np.testing.assert_allclose(one @ exact, np.eye(rows), atol=1e-9)
        assert (np.abs(exact).sum(axis=1) <= found.gain * (1 + 1e-9)).all()


def test_bounds_are_raised_by_more_than_a_few_thousand_roundings_lose():
    for value in (2.0**-900, 1.0, 2.0**900):
        assert value * (1 + 2.0**-31) < above(value) < value * (1 + 2.0**-29)
    assert 0 < above(0.0) < 2.0**-900


def test_dependent_or_uncertain_rows_have_none():
    with pytest.raises(CertificateRejected, match="independent"):
        right_inverse(ball_matrix(np.array([[1.0, 2.0], [2.0, 4.0]])))
    with pytest.raises(CertificateRejected, match="2 equations of 1 unknowns"):
        right_inverse(ball_matrix(np.array([[1.0], [2.0]])))
    with pytest.raises(CertificateRejected, match="floating point"):
        right_inverse(ball_matrix(np.array([[Fraction(10) ** 400]], dtype=object)))
    line = np.array([[1.0, 1.0]])
    right_inverse(wide(line, np.full((1, 2), 0.49)))
    with pytest.raises(CertificateRejected, match="independent"):
        right_inverse(wide(line, np.full((1, 2), 0.5)))


@pytest.mark.parametrize("seed", range(10))
def test_the_step_to_what_the_first_layer_does_not_see_is_within_its_bound(seed):
    rng = np.random.default_rng(seed)
    neurons, features, samples = 2, 6, 3
    weight, near = rng.integers(-5, 6, (neurons, features)), rng.normal(size=(samples, features))
    whole = np.sort(rng.permutation(features)[:4])
    layer = FirstLayer.of(weight, whole)
    error = rng.random((samples, features)) / 9
    there = near + error * rng.choice([-1, 1], error.shape)  # A', anywhere within the error
    inverse = layer.inverse.floats @ np.linalg.inv(weight[:, whole] @ layer.inverse.floats)
    exact = there.copy()
    exact[:, whole] -= (there @ weight.T) @ inverse.T
    np.testing.assert_allclose(exact @ weight.T, 0, atol=1e-9)
    bound = layer.bound(near, error)
    assert (np.abs(exact - there) <= bound + 1e-12).all()
    assert bound.max() < 40 * np.abs(exact - there).max()
    cleaned = layer.cleaned(near)
    np.testing.assert_allclose(cleaned @ weight.T, 0, atol=1e-9)
    assert (
        cleaned[:, np.setdiff1d(np.arange(features), whole)] == near[:, np.setdiff1d(range(features), whole)]
    ).all()


def drawn(seed):
    """A batch of mse with integers, so that the balls are exact, and the parts of the kernel's question."""
    rng = np.random.default_rng([seed, 5])
    neurons, classes, samples = int(rng.integers(1, 6)), int(rng.integers(1, 3)), int(rng.integers(3, 9))
    widths = [neurons + 3, neurons, *([2] if seed % 3 == 0 else []), classes]
    network = ReluNetwork.from_arrays(
        [rng.integers(-4, 5, (b, a)) for a, b in pairwise(widths)],
        [rng.integers(-3, 9, b) for b in widths[1:]],
    )
    x, y = rng.integers(-3, 4, (samples, widths[0])), rng.integers(-4, 5, (samples, classes))
    batch = Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.REAL)
    subject = subject_of(context_of(network, batch, Loss.MSE, Labels.REAL))
    inner = subject.deltas[0]
    rows = [j for j in range(neurons) if any(inner[j, m] != 0 for m in range(samples))]
    if rows and seed % 2:  # as where not all rows are sent
        rows = rows[:-1]
    return (
        subject,
        network,
        np.arange(neurons),
        part_of(inner, rows, range(samples)),
        np.array(rows, dtype=int),
    )


def exactly(balls):
    """Balls without radius as Fractions."""
    assert all(v.is_exact() for v in balls.entries())
    flat = [Fraction(int(v.mid().fmpq().p), int(v.mid().fmpq().q)) for v in balls.entries()]
    return np.array([*flat, None], dtype=object)[:-1].reshape(balls.nrows(), balls.ncols())


def test_what_is_asked_of_the_second_layer_implies_the_rest():
    """Over Q: the steps P with E P = 0 that meet the equations asked leave values and gradient alone."""
    looked = tight = 0
    for seed in range(60):
        subject, network, neurons, delta, owners = drawn(seed)
        samples, size = subject.samples, len(neurons)
        if subject.passed.zeros[0].any() or not len(owners):
            continue
        asked = equations_of(subject, list(range(samples)), neurons, delta, owners)
        own = [np.kron(exactly(delta), np.eye(size, dtype=int))]
        rows = list(own[0])
        for part in asked:
            for line in exactly(part.balls):
                row = np.zeros((samples, size), dtype=object)
                row[part.samples, part.neurons] = line
                rows.append(row.reshape(-1))
        space = nullspace(np.array(rows, dtype=object) * Fraction(1))
        active = subject.passed.patterns[0].astype(int)
        outer = network.layers[1].weight.astype(int)
        losses = exactly(subject.deltas[1])
        values = np.einsum("cj,jm,mn->cmnj", outer, active, np.eye(samples, dtype=int)).reshape(
            -1, samples * size
        )
        sums = [
            [losses[c, m] * active[j, m] * (i == j) for m in range(samples) for i in range(size)]
            for c in range(len(losses))
            for j in range(size)
        ]
        conditions = np.concatenate([values * Fraction(1), np.array(sums, dtype=object) * Fraction(1)])
        looked += 1
        assert not (conditions @ space).any()
        count = sum(part.balls.nrows() for part in asked)
        needed = rank(np.concatenate([own[0] * Fraction(1), conditions])) - rank(own[0] * Fraction(1))
        tight += count == needed
        assert count >= needed
    assert looked > 20
    assert tight > looked // 3


@pytest.mark.parametrize("seed", range(40))
def test_the_step_to_what_the_second_layer_does_not_see_is_within_its_bound(seed):
    subject, network, neurons, delta, owners = drawn(seed)
    if subject.passed.zeros[0].any() or not len(owners):
        return
    samples, rng = subject.samples, np.random.default_rng(seed)
    weight = network.layers[0].weight
    with working_precision():
        try:
            everyone, first = right_inverse(delta), FirstLayer.of(weight, np.arange(weight.shape[1]))
            asked = equations_of(subject, list(range(samples)), neurons, delta, owners)
            layer = SecondLayer.of(first, asked, everyone)
        except (CertificateRejected, np.linalg.LinAlgError):
            return
        e, w = exactly(delta).astype(float), weight.astype(float)
        project = np.eye(samples) - everyone.floats @ np.linalg.inv(e @ everyone.floats) @ e
        near = project @ rng.normal(size=(samples, weight.shape[1]))
        error = np.full(near.shape, 1e-3)
        there = project @ (near + 1e-4 * rng.normal(size=near.shape))
        bound = layer.bound(near, error + np.abs(there - near))
    table = np.zeros((layer.count, samples, len(neurons)))
    start = 0
    for part in asked:
        table[start : start + len(part.middle), part.samples, part.neurons] += part.middle
        start += len(part.middle)
    table = table.reshape(layer.count, -1)
    steps = np.einsum("mn,nje->mje", project, layer.steps).reshape(-1, layer.count)
    change = -steps @ np.linalg.solve(table @ steps, table @ (there @ w.T).reshape(-1))
    inverse = first.inverse.floats @ np.linalg.inv(w @ first.inverse.floats)
    exact = there + change.reshape(samples, -1) @ inverse.T
    scale = 1 + np.abs(exact).max()
    np.testing.assert_allclose(e @ exact, 0, atol=1e-7 * scale * (1 + np.abs(e).max()))
    np.testing.assert_allclose(
        table @ (exact @ w.T).reshape(-1), 0, atol=1e-6 * scale * (1 + np.abs(table).max())
    )
    assert (np.abs(exact - there) <= bound + 1e-9).all()
