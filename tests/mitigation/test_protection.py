"""The three numbers: hidden dimension by rank, reach by brute force, LMMSE against Gaussian conditioning."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import linprog

from exan_verify.core.arrays import fractions
from exan_verify.core.question import Box
from exan_verify.mitigation.case import Released
from exan_verify.mitigation.defences import defence
from exan_verify.mitigation.projection import UNIT, Basis
from exan_verify.mitigation.protection import (
    Prior,
    _exact_vertex,
    estimates,
    hidden_by_projection,
    lmmse,
    prior_of,
    reach_of_means,
    reach_of_narrow,
    reach_of_projection,
)
from tests.support.mitigation_cases import drawn_case

SEEDS = range(6)


def unit_box(features):
    return np.zeros(features), np.ones(features)


def drawn_basis(features, rank, seed):
    drawn = np.random.default_rng(seed).integers(-UNIT, UNIT, (features, rank))
    return Basis(integers=drawn, name="drawn")


# ---- the estimate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_lmmse_is_the_conditional_mean_of_a_gaussian(seed):
    """By another formula: x given C x = z minimises (x - mu)^T S^-1 (x - mu); its KKT system."""
    rng = np.random.default_rng(seed)
    d, r = 6, 2
    root = rng.normal(size=(d, d))
    covariance, mean = root @ root.T + 0.1 * np.eye(d), rng.normal(size=d)
    observed, x = rng.normal(size=(r, d)), rng.normal(size=(3, d))
    z = x @ observed.T
    precision = np.linalg.inv(covariance)
    kkt = np.block([[precision, observed.T], [observed, np.zeros((r, r))]])
    right = np.concatenate([np.tile((precision @ mean)[:, None], 3), z.T])
    expected = np.linalg.solve(kkt, right)[:d].T
    found = lmmse(Prior(mean=mean, covariance=covariance, count=9), observed, z)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found @ observed.T, z, atol=1e-8)


@pytest.mark.parametrize("seed", range(2))
def test_no_linear_estimate_has_a_smaller_error(seed):
    """On the very samples that mean and covariance are from: least squares, so every other estimate loses."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    observed = rng.normal(size=(2, 5))
    best = lmmse(prior_of(samples), observed, samples @ observed.T)
    error = np.square(best - samples).mean()
    design = np.column_stack([samples @ observed.T, np.ones(200)])
    fitted = design @ np.linalg.lstsq(design, samples, rcond=None)[0]
    np.testing.assert_allclose(best, fitted, atol=1e-8)
    for _ in range(20):
        other = best + 1e-2 * (samples @ observed.T) @ rng.normal(size=(2, 5))
        assert np.square(other - samples).mean() > error


def test_a_prior_with_constant_pixels_and_few_samples_is_used_as_it_is():
    rng = np.random.default_rng(0)
    public = rng.random((5, 8))
    public[:, 3] = 0.25
    basis = drawn_basis(8, 3, 0)
    found = lmmse(prior_of(public), basis.columns.T, rng.random((2, 8)) @ basis.columns)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 3], 0.25, atol=1e-9)


def test_the_estimate_of_a_member_is_the_mean_of_its_group():
    """Of k independent members with one prior: cov(x_1, mean) = var(mean), so that the gain is one."""
    case = drawn_case(pool=20, public=30)
    released = defence("average:3").release(case)
    found = estimates(released, prior_of(case.public))
    np.testing.assert_allclose(found, released.averages.members.mean(axis=1), atol=1e-12)
    assert estimates(defence("no-bias").release(case), prior_of(case.public)) is None


# ---- hidden dimension --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_hidden_dimensions_are_at_most_what_rank_says(seed):
    case = drawn_case(seed=seed, domain=Box(0, 1))
    released = defence("project-random:4").release(case)
    free = [12 - np.linalg.matrix_rank(released.projected.columns.T)] * 4
    hidden = hidden_by_projection(case, released, released.projected)
    assert hidden == tuple(free), "a random basis has full rank and these inputs are inside the box"


# ---- reach -------------------------------------------------------------------------------------------------


def brute_force_interval(x, basis, k):
    """Least and greatest x'_k over all vertices of {x' in [0, 1]^d: B^T x' = B^T x}, exactly."""
    d, r = basis.integers.shape
    exact, columns = fractions(x), basis.integers.astype(object)
    values = []
    for free in combinations(range(d), r):
        fixed = [j for j in range(d) if j not in free]
        square = [[Fraction(int(columns[j, i])) for j in free] for i in range(r)]
        for faces in product((0, 1), repeat=len(fixed)):
            right = [
                sum(columns[j, i] * exact[j] for j in range(d))
                - sum(columns[j, i] * f for j, f in zip(fixed, faces, strict=True))
                for i in range(r)
            ]
            solved = cramer(square, right)
            if solved is None or not all(0 <= v <= 1 for v in solved):
                continue
            point = dict(zip(free, solved, strict=True)) | dict(zip(fixed, faces, strict=True))
            values.append(point[k])
    return min(values), max(values)


def cramer(square, right):
    """The solution of a 1 x 1 or 2 x 2 system, None where it is singular."""
    if len(square) == 1:
        return None if square[0][0] == 0 else [right[0] / square[0][0]]
    (a, b), (c, d) = square
    determinant = a * d - b * c
    if determinant == 0:
        return None
    return [(right[0] * d - b * right[1]) / determinant, (a * right[1] - c * right[0]) / determinant]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", [1, 2])
def test_reach_is_that_of_all_vertices(rank, seed):
    rng = np.random.default_rng(seed)
    x = rng.random((2, 5))
    x[1, :2] = 0.0, 1.0
    basis = drawn_basis(5, rank, seed)
    found = reach_of_projection(x, basis, unit_box(5), rng, pixels=None)
    for m in range(2):
        assert found.pixels[m] == (0, 1, 2, 3, 4)
        for k in range(5):
            low, high = brute_force_interval(x[m], basis, k)
            assert found.low[m][k] == pytest.approx(float(low), abs=1e-9)
            assert found.high[m][k] == pytest.approx(float(high), abs=1e-9)
            assert low <= Fraction(found.low[m][k]) <= Fraction(found.high[m][k]) <= high, "never beyond"
        farthest = max(
            max(x[m, k] - float(low), float(high) - x[m, k])
            for k, (low, high) in enumerate(brute_force_interval(x[m], basis, k) for k in range(5))
        )
        assert found.distance[m] == pytest.approx(farthest, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_only_points_of_the_polytope_come_from_a_suggestion(seed):
    """Whatever floats suggest: what is returned is in the box and has the same projection, exactly."""
    rng = np.random.default_rng(seed)
    basis, exact = drawn_basis(5, 2, seed), fractions(rng.random(5))
    faces = fractions(np.zeros(5)), fractions(np.ones(5))
    refused = 0
    for _ in range(40):
        point = _exact_vertex(exact, rng.choice([0.0, 0.3, 1.0], 5), basis, faces)
        refused += point is None
        if point is not None:
            assert all(0 <= v <= 1 for v in point)
            assert (basis.integers.T.astype(object) @ (point - exact) == 0).all()
    assert refused > 0, "some of these suggestions lead out of the box"


def test_pixels_are_drawn_and_named():
    x = np.random.default_rng(0).random((3, 12))
    draws = [
        reach_of_projection(x, drawn_basis(12, 2, 0), unit_box(12), np.random.default_rng(s), pixels=4)
        for s in (0, 0, 1)
    ]
    assert draws[0] == draws[1]
    assert draws[0].pixels != draws[2].pixels
    assert all(len(set(p)) == 4 and p == tuple(sorted(p)) for p in draws[0].pixels)


@pytest.mark.parametrize("seed", SEEDS)
def test_reach_of_means_is_what_the_other_members_leave(seed):
    """A grid of members with the same mean: the pixel's extremes are attained and not exceeded."""
    rng = np.random.default_rng(seed)
    case = drawn_case((3, 20, 2), size=2, seed=seed, pool=12)
    released = defence("average:3").release(case)
    found = reach_of_means(released, unit_box(3))
    for m in range(2):
        total = released.averages.members[m].sum(axis=0)
        drawn = rng.random((20000, 2, 3))
        own = total - drawn.sum(axis=1)
        for k in range(3):
            inside = own[(own[:, k] >= 0) & (own[:, k] <= 1), k]
            assert inside.min() >= found.low[m][k] - 1e-12
            assert inside.max() <= found.high[m][k] + 1e-12
            for end in (found.low[m][k], found.high[m][k]):
                share = (total[k] - end) / 2
                assert -1e-12 <= share <= 1 + 1e-12, "the others can take what is left"


def test_a_sample_that_cannot_move_has_no_reach():
    """A corner that is the only point of the box with its projection."""
    x = np.array([[0.0, 0.0, 1.0]])
    basis = Basis(integers=np.array([[UNIT], [UNIT], [-UNIT]]), name="corner")
    found = reach_of_projection(x, basis, unit_box(3), np.random.default_rng(0), pixels=None)
    assert found.distance == (0.0,)
    assert found.low == found.high == ((0.0, 0.0, 1.0),)


@pytest.mark.parametrize("seed", range(3))
def test_reach_where_no_row_is_sent_is_that_of_the_kernel_of_the_first_layer(seed):
    """Every sample moves by itself: x' in the box with W_1 x' = W_1 x."""
    case = drawn_case((6, 2, 3), size=3, seed=seed)
    released = defence("withhold:0.weight").release(case)
    integers = np.array(
        [[int(Fraction(float(v)) * 2**60) for v in row] for row in case.network.layers[0].weight],
        dtype=object,
    )
    basis = Basis(integers=integers.T, name="W_1", unit=2**60)
    rng = (np.random.default_rng(1), np.random.default_rng(1))
    found = reach_of_narrow(released, case.question, unit_box(6), rng[0], pixels=None)
    expected = reach_of_projection(case.x, basis, unit_box(6), rng[1], pixels=None)
    assert found.pixels == expected.pixels
    np.testing.assert_allclose(found.low, expected.low, atol=1e-12)
    np.testing.assert_allclose(found.high, expected.high, atol=1e-12)
    np.testing.assert_allclose(found.distance, expected.distance, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_reach_of_a_narrow_layer_is_what_all_samples_that_move_allow(seed):
    """M = 3, two neurons: alpha is one line, and v is bounded by all three samples; a program in floats."""
    case = drawn_case((7, 2, 3), size=3, seed=seed)
    released = Released(network=case.network, batch=case.batch, sent={}, subjects=case.x)
    weight = case.network.layers[0].weight.astype(float)
    z = case.x @ weight.T + case.network.layers[0].bias.astype(float)
    hidden = np.maximum(z, 0)
    logits = hidden @ case.network.layers[1].weight.astype(float).T + case.network.layers[1].bias.astype(
        float
    )
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    delta = ((p - np.eye(3)[case.classes]) @ case.network.layers[1].weight.astype(float)) * (z > 0)
    live = delta.T[np.abs(delta).max(axis=0) > 0]
    found = reach_of_narrow(
        whole_of(released), case.question, unit_box(7), np.random.default_rng(0), pixels=None
    )
    if len(live) < 2:
        assert found is not None
        return
    null = np.linalg.svd(live)[2][-1]
    for m in range(3):
        if abs(null[m]) < 1e-9:
            assert found.distance[m] == 0, "it does not move"
            continue
        moved = [(x, a) for x, a in zip(case.x, null / null[m], strict=True) if abs(a) > 1e-9]
        stops = np.array([[-x / a, (1 - x) / a] for x, a in moved])
        room = list(zip(stops.min(axis=1).max(axis=0), stops.max(axis=1).min(axis=0), strict=True))
        for k in range(7):
            ends = [
                sign * linprog(sign * np.eye(7)[k], A_eq=weight, b_eq=np.zeros(2), bounds=room).fun
                for sign in (1, -1)
            ]
            assert found.low[m][k] == pytest.approx(case.x[m, k] + ends[0], abs=1e-6)
            assert found.high[m][k] == pytest.approx(case.x[m, k] + ends[1], abs=1e-6)
        assert found.distance[m] > 0


def whole_of(released):
    """The same with every tensor sent, so that no release holds anything back."""
    names = [name for name, _ in released.network.parameters()]
    return replace(released, sent=dict.fromkeys(names))
