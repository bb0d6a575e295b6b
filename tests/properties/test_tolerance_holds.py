"""A proved radius holds: batches with gradients within the tolerance are never found outside it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import linprog

from exan_verify import Outcome, ReluNetwork, Verdict, certify, check
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Reduction
from tests.conftest import examples
from tests.support import torch_reference
from tests.support.tolerance_cases import case, gap, moved, nearest

SHAPES = st.sampled_from(
    [([8, 40, 3], 2), ([10, 60, 3], 3), ([6, 50, 1], 3), ([9, 60, 12, 3], 3), ([7, 40, 2], 3)]
)
SEEDS = st.integers(0, 2**32 - 1)


def inside(batch: Batch, verdict: Verdict) -> bool:
    """Whether each sample has a counterpart of its own within its radius, with the same label."""
    assert verdict.batch is not None
    assert verdict.witness is not None
    assert verdict.witness.radius is not None
    places, distances = nearest(batch, verdict.batch)
    # autograd's own rounding is not the theorem's matter
    close = bool(np.all(distances <= np.array(verdict.witness.radius) + 1e-12))
    same = np.array_equal(verdict.batch.labels, batch.labels[places])
    return close and same and sorted(places) == list(range(batch.size))


@given(shape=SHAPES, loss=st.sampled_from(list(Loss)), seed=SEEDS, power=st.integers(-13, -5))
@examples(20)
def test_batches_pushed_until_the_gradient_leaves_the_tolerance(shape, loss, seed, power):
    """From the planted batch, along random motions, as far as the tolerance allows."""
    widths, samples = shape
    assume(loss in (Loss.MSE, Loss.BCE) or widths[-1] > 1)
    network, batch, rounded = case(widths, samples, loss, seed=seed)
    tolerance = 10.0**power
    verdict = certify(network, gradient=rounded, loss=loss.value, tolerance=tolerance, batch_size=samples)
    if verdict.outcome is not Outcome.UNIQUE:
        assert verdict.outcome is Outcome.UNKNOWN
        assert verdict.certificate is None
        return
    assert inside(batch, verdict)
    assert check(verdict.certificate or {}, network, gradient=rounded).radius == verdict.witness.radius
    rng = np.random.default_rng(seed)
    for _ in range(4):
        direction = rng.normal(size=batch.inputs.shape) * (rng.uniform(size=(samples, 1)) < 0.5)
        assert inside(pushed(network, batch, loss, rounded, direction, tolerance), verdict)
    for m in range(samples):
        direction = farthest(network, batch, loss, (m, int(rng.integers(widths[0]))))
        assert inside(pushed(network, batch, loss, rounded, direction, tolerance), verdict)


def farthest(network, batch, loss, entry) -> np.ndarray:
    """The motion that moves one entry farthest while no entry of the gradient changes by more than one, to
    first order: a linear program on the gradient's Jacobian (by central differences).
    """
    columns = []
    for index in np.ndindex(batch.inputs.shape):
        step = np.zeros(batch.inputs.shape)
        step[index] = 2.0**-20
        ahead, behind = (moved(network, batch, loss, batch.inputs + s * step)[1] for s in (1, -1))
        columns.append(np.concatenate([(ahead[n] - behind[n]).ravel() for n in ahead]) * 2.0**19)
    jacobian = np.stack(columns, axis=1)
    jacobian = jacobian[np.any(jacobian != 0, axis=1)]
    cost = np.zeros(batch.inputs.shape)
    cost[entry] = -1
    rows, ones = np.concatenate([jacobian, -jacobian]), np.ones(2 * len(jacobian))
    found = linprog(cost.ravel(), A_ub=rows, b_ub=ones, bounds=(None, None))
    return found.x.reshape(batch.inputs.shape) if found.x is not None else cost


def pushed(network, batch, loss, rounded, direction, tolerance) -> Batch:
    """The farthest of ``batch + t direction``, t by bisection, whose gradient is within the tolerance."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low * high) ** 0.5 if low else high / 8
        _, found = moved(network, batch, loss, batch.inputs + middle * direction)
        if gap(rounded, found) <= 0.999 * tolerance:
            low = middle
            if high == 1.0 and middle < 1e-300:
                break
        else:
            high = middle
        if low and high / low < 1.01:
            break
    other, _ = moved(network, batch, loss, batch.inputs + low * direction)
    return other


@given(shape=SHAPES, loss=st.sampled_from(list(Loss)), seed=SEEDS)
@examples(20)
def test_float32_gradients(shape, loss, seed):
    """Rounded to float32, by at most 2^-25 of the largest entry, the planted batch is in the radius."""
    widths, samples = shape
    assume(loss in (Loss.MSE, Loss.BCE) or widths[-1] > 1)
    network, batch, rounded = case(widths, samples, loss, seed=seed, dtype=np.float32)
    tolerance = max(float(np.abs(v).max()) for v in rounded.values()) * 2.0**-24
    verdict = certify(network, gradient=rounded, loss=loss.value, tolerance=tolerance, batch_size=samples)
    assert verdict.outcome in (Outcome.UNIQUE, Outcome.UNKNOWN)
    if verdict.outcome is Outcome.UNIQUE:
        assert inside(batch, verdict)


@given(shape=SHAPES, loss=st.sampled_from(list(Loss)), seed=SEEDS, second=SEEDS)
@examples(20)
def test_two_batches_within_the_tolerance_are_within_one_radius(shape, loss, seed, second):
    """A gradient between those of two near batches: both lie in the radius."""
    widths, samples = shape
    assume(loss in (Loss.MSE, Loss.BCE) or widths[-1] > 1)
    network, batch, first = case(widths, samples, loss, seed=seed)
    motion = 1e-7 * np.random.default_rng(second).normal(size=batch.inputs.shape)
    other, found = moved(network, batch, loss, batch.inputs + motion)
    middle = {name: (value + found[name]) / 2 for name, value in first.items()}
    tolerance = 1.001 * max(gap(middle, first), gap(middle, found))
    assume(tolerance < 1e-4)
    verdict = certify(network, gradient=middle, loss=loss.value, tolerance=tolerance, batch_size=samples)
    if verdict.outcome is Outcome.UNIQUE:
        assert inside(batch, verdict)
        assert inside(other, verdict)


@pytest.mark.parametrize("seed", range(6))
def test_solvers_do_not_contradict(seed):
    """Tiny networks: the solvers' batch is in the radius, and theirs are at most twice it apart."""
    rng = np.random.default_rng(seed)
    network = ReluNetwork.from_arrays(
        [rng.integers(-3, 4, (3, 1)) / 2, rng.integers(1, 4, (1, 3)) / 2],
        [rng.integers(-1, 3, 3) / 2, [0.5]],
    )
    batch = Batch.of([[0.75]], [[1.0]], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    _, rounded = moved(network, batch, Loss.MSE, batch.inputs)
    asked = {"loss": "mse", "tolerance": 1e-6, "batch_size": 1}
    try:
        ours = certify(network, gradient=rounded, **asked, engine="lifting")
    except ValueError:  # every entry is zero: nothing to ask
        return
    theirs = certify(network, gradient=rounded, **asked, engine="smt", work_limit=2_000_000)
    assert theirs.outcome is not Outcome.UNREALISABLE
    if ours.outcome is not Outcome.UNIQUE or ours.witness.radius is None:
        return
    assert inside(batch, ours)
    if theirs.batch is not None:
        assert inside(theirs.batch, ours)
    if theirs.outcome is Outcome.AMBIGUOUS:  # not even within 10^6 times the tolerance
        assert 2 * max(ours.witness.radius) > 1e-6 * 10**6


@given(seed=SEEDS, power=st.sampled_from([-12, -10, -6]))
@examples(60)
def test_certificates_near_the_precision_of_floats_are_accepted(seed, power):
    """Small dyadic networks with samples that fit badly, gradients as autograd gives them: what the engine
    states
    is what the kernel shows with guesses of its own."""
    rng = np.random.default_rng(seed)
    widths = [[5, 24, 2], [5, 30, 3], [5, 30, 10, 3], [5, 30, 3, 3]][int(rng.integers(4))]
    loss = list(Loss)[int(rng.integers(4))]
    network = ReluNetwork.from_arrays(
        [rng.integers(-8, 9, size=(b, a)) / 4 for a, b in pairwise(widths)],
        [rng.integers(-8, 9, size=b) / 4 for b in widths[1:]],
    )
    samples = int(rng.integers(1, 4))
    classes = rng.integers(widths[-1], size=samples)
    y = classes if loss.value in ("cross_entropy", "hinge") else np.eye(widths[-1])[classes]
    x = rng.integers(-16, 17, size=(samples, 5)) / 4
    batch = Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)
    given = torch_reference.gradient(network, batch, loss, Reduction.SUM)
    assume(any(value.any() for value in given.values()))
    asked = {"loss": loss.value, "reduction": "sum", "batch_size": samples}
    verdict = certify(network, gradient=given, tolerance=10.0**power, engine="exact", **asked)
    if verdict.certificate is not None:
        check(verdict.certificate, network, gradient=given)


@given(shape=SHAPES, loss=st.sampled_from(list(Loss)), seed=SEEDS, power=st.sampled_from([-12, -10, -8]))
@examples(20)
def test_spoiled_gradients_are_nobody_s(shape, loss, seed, power):
    """Only what a batch gives is UNIQUE: not its negative, other signs, noise, nor another network's."""
    widths, samples = shape
    assume(loss in (Loss.MSE, Loss.BCE) or widths[-1] > 1)
    network, _, rounded = case(widths, samples, loss, seed=seed)
    largest = max(float(np.abs(value).max()) for value in rounded.values())
    assume(largest > 1e-3)  # a batch without a loss has no gradient to spoil
    rng = np.random.default_rng(seed)
    size = 1e3 * 10.0**power + 1e-3 * largest
    spoiled = {
        "negated": {name: -value for name, value in rounded.items()},
        "other signs": {n: v * rng.choice([-1, 1], v.shape) for n, v in rounded.items()},
        "noise": {n: v + size * rng.choice([-1, 1], v.shape) for n, v in rounded.items()},
        "another net's": case(widths, samples, loss, seed=seed + 1)[2],
    }
    if loss is Loss.HINGE and widths[-1] == 2:
        # where both margins are violated, -g is the loss vector of the other class: a batch gives it too
        del spoiled["negated"]
    asked = {"loss": loss.value, "tolerance": 10.0**power, "engine": "exact"}
    for name, gradient in spoiled.items():
        for batch_size in (samples, None):
            verdict = certify(network, gradient=gradient, batch_size=batch_size, **asked)
            assert verdict.outcome in (Outcome.UNREALISABLE, Outcome.UNKNOWN), (name, verdict.reason)
            if verdict.outcome is Outcome.UNREALISABLE:
                claim = check(verdict.certificate or {}, network, gradient=gradient)
                assert claim.outcome is Outcome.UNREALISABLE
            else:
                assert verdict.certificate is None
                assert verdict.trust is None
    verdict = certify(network, gradient=spoiled["noise"], batch_size=samples, **asked)
    assert verdict.outcome is Outcome.UNREALISABLE  # its rank is full


@given(shape=SHAPES, loss=st.sampled_from(list(Loss)), seed=SEEDS, power=st.sampled_from([-12, -10, -8]))
@examples(20)
def test_what_a_batch_gives_is_never_refuted(shape, loss, seed, power):
    """A planted batch within the tolerance: never UNREALISABLE at its size."""
    widths, samples = shape
    assume(loss in (Loss.MSE, Loss.BCE) or widths[-1] > 1)
    network, _, rounded = case(widths, samples, loss, seed=seed)
    rng = np.random.default_rng(seed)
    shaken = {n: v + 0.99 * 10.0**power * rng.uniform(-1, 1, v.shape) for n, v in rounded.items()}
    for batch_size in (samples, None):
        asked = {"loss": loss.value, "tolerance": 10.0**power, "engine": "exact", "batch_size": batch_size}
        verdict = certify(network, gradient=shaken, **asked)
        if verdict.batch_size == samples:
            assert verdict.outcome is not Outcome.UNREALISABLE, verdict.reason
        if verdict.outcome is Outcome.UNIQUE:
            assert verdict.distance is not None
            assert verdict.distance <= 10.0**power
            assert check(verdict.certificate or {}, network, gradient=shaken).realised
