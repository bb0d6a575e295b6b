"""dW_1 without db_1: what is determined all the same, against every input where there is one, and twins."""

from fractions import Fraction
from itertools import pairwise, product

import flint
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from exan_verify import Release
from exan_verify.api.certify import certify
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, SampleStatus
from tests.support.cases import default_network, random_batch, random_case
from tests.support.certificate_cases import accepted, assert_rejected, certify_as, plain

WEIGHTS = Release(tensors=["0.weight"])


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("others", [[], ["2.weight", "2.bias"]])
def test_weights_alone_determine_the_batch(loss, others):
    network, batch = random_case([12, 60, 4], 4, seeds=(1, 2), loss=loss)
    release = Release(tensors=["0.weight", *others])
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss.value, release=release)
    assert "without that of the biases" in verdict.reason
    accepted(verdict, network, batch)


def test_unknown_weights_are_told_from_scales_by_ratios_of_probabilities_only():
    network = default_network([12, 60, 4], seed=1)
    for loss, outcome in ((Loss.CROSS_ENTROPY, Outcome.UNIQUE), (Loss.MSE, Outcome.UNKNOWN)):
        batch = random_batch(network, 4, seed=2, loss=loss)
        release = Release(tensors=["0.weight"], weights="positive")
        certify_as(outcome, network, batch=batch, loss=loss.value, release=release, engine="scale")
    two = default_network([12, 60, 2], seed=1)
    certify_as(Outcome.UNKNOWN, two, batch=random_batch(two, 3), release=release, engine="scale")


def test_without_any_bias_the_weights_are_the_whole_first_layer():
    rng = np.random.default_rng(0)
    network = ReluNetwork.from_arrays([rng.normal(size=(40, 6)), rng.normal(size=(3, 40))])
    batch = rng.normal(size=(3, 6)), [0, 1, 2]
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, release=WEIGHTS)
    accepted(verdict, network, batch)


def tiny(rng, loss):
    """One input, one sample; small numbers, so that degenerate cases are met."""
    classes = max(int(rng.integers(1, 4)), 1 + loss.class_labels)
    neurons, top = int(rng.integers(3, 7)), int(rng.integers(1, 4))
    weights = [rng.integers(-top, top + 1, (neurons, 1)), rng.integers(-top, top + 1, (classes, neurons))]
    biases = [
        rng.integers(-top, top + 1, neurons) * bool(rng.integers(3)),
        rng.integers(-top, top + 1, classes),
    ]
    x, rows = rng.integers(-3, 4, (1, 1)), rng.random(neurons) < 0.8
    release = Release(tensors=["0.weight"], rows={"0.weight": rows}) if rows.any() else WEIGHTS
    return ReluNetwork.from_arrays(weights, biases), x, release, rows if rows.any() else ~rows


def labels_of(loss, classes):
    if loss.class_labels:
        return list(range(classes))
    if loss is Loss.BCE:
        return [np.array(bits) for bits in product((0, 1), repeat=classes)]
    return list(np.eye(classes, dtype=int)) if classes > 1 else [np.array([0]), np.array([1])]


def test_squares_of_one_input_have_no_second_one_where_none_is_claimed():
    """mse, d = M = 1: between two kinks every entry of dW_1 is a quadratic in x', so all x' are known."""
    found = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        network, x, release, rows = tiny(rng, Loss.MSE)
        labels = labels_of(Loss.MSE, network.classes)
        y = labels[rng.integers(len(labels))]
        verdict = certify(
            network, batch=(x, y[None]), loss="mse", reduction="sum", release=release, engine="scale"
        )
        if verdict.outcome is not Outcome.UNIQUE:
            continue
        found += 1
        accepted(verdict, network, (x, y[None]))
        given = entries(network, int(x[0, 0]), y)
        for other in labels:
            for root in same_rows(network, given, other, rows):
                assert root == int(x[0, 0]), (seed, root)
                assert (other == y).all()
    assert found > 10


def entries(network, x, y):
    """The entries (n,) of dW_1 as polynomials in x' on the piece of x' around ``x``."""
    first, last = network.layers
    rate, bias = (np.array(part.reshape(-1), dtype=int) for part in (first.weight, first.bias))
    active = rate * x + bias > 0
    out = last.weight.astype(int) * active
    slope, shift = out @ rate, out @ bias + last.bias.astype(int) - y
    poly = [flint.fmpq_poly([0, int(2 * a), int(2 * s)]) for a, s in zip(shift, slope, strict=True)]
    found = [
        sum((int(w) * p for w, p in zip(column, poly, strict=True)), flint.fmpq_poly([])) for column in out.T
    ]
    return found if not isinstance(x, int) else [p(x) for p in found]


def same_rows(network, given, label, rows):
    """Rational roots x' with the given rows; irrational ones as well, as the polynomial that has them."""
    first = network.layers[0]
    kinks = {-Fraction(int(b)) / int(w) for w, b in zip(first.weight[:, 0], first.bias, strict=True) if w}
    ends = [None, *sorted(kinks), None]
    for low, high in [*pairwise(ends), *((kink, kink) for kink in kinks)]:
        around = [end for end in (low, high) if end is not None] or [Fraction(0)]
        middle = sum(around) / len(around) + (high is None) - (low is None)
        common = flint.fmpq_poly([])
        for entry, value, sent in zip(entries(network, middle, label), given, rows, strict=True):
            common = common.gcd(entry - value) if sent else common
        assert common != 0, "a whole piece has these rows"
        for factor, _ in common.numer().factor()[1]:
            if factor.degree() == 1:
                root = Fraction(-int(factor[0]), int(factor[1]))
                if root == low == high or ((low is None or root > low) and (high is None or root < high)):
                    yield root
            elif any(
                (low is None or r.real > float(low)) and (high is None or r.real < float(high))
                for r, _ in factor.complex_roots()
                if r.imag == 0
            ):
                yield factor


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE, Loss.HINGE])
def test_a_scan_of_one_input_finds_no_second_one_where_none_is_claimed(loss):
    found = 0
    for seed in range(150):
        rng = np.random.default_rng([seed, 1])
        network, x, release, rows = tiny(rng, loss)
        labels = labels_of(loss, network.classes)
        y = labels[rng.integers(len(labels))]
        verdict = certify(
            network, batch=(x, [y]), loss=loss.value, reduction="sum", release=release, engine="scale"
        )
        z = network.layers[0].weight * x[0] + network.layers[0].bias[:, None]
        logits = network.layers[1].weight @ np.maximum(z, 0) + network.layers[1].bias[:, None]
        if verdict.outcome is not Outcome.UNIQUE or np.ptp([0, *logits[:, 0]]) > 8:
            continue  # floats would not tell saturated loss vectors apart
        found += 1
        accepted(verdict, network, (x, np.array([y])))
        for other in labels:
            for t in near_misses(network, float(x[0, 0]), y, other, loss, rows):
                assert abs(t - x[0, 0]) < 1e-5, seed
                assert np.all(other == y)
        if found == 8:
            break
    assert found > 4


def near_misses(network, x, y, other, loss, rows):
    """Inputs x' at which the rows with label ``other`` are those of (x, y), as far as floats tell."""
    given = weight_rows(network, x, y, loss)[rows]

    def apart(t):
        return float(np.abs(weight_rows(network, t, other, loss)[rows] - given).max() / np.abs(given).max())

    grid = np.linspace(-6, 6, 601) + 1.7e-4
    values = np.array([apart(t) for t in grid])
    inner = values[1:-1]
    for i in 1 + np.flatnonzero((inner <= values[:-2]) & (inner <= values[2:]) & (inner < 0.2)):
        ends = grid[i - 1], grid[i + 1]
        best = minimize_scalar(apart, bounds=ends, method="bounded", options={"xatol": 1e-13})
        if best.fun < 1e-9:
            yield best.x


def weight_rows(network, x, y, loss):
    """dW_1 (n,) of one input in floating point."""
    first, last = network.layers
    z = np.asarray(first.weight, float)[:, 0] * x + np.asarray(first.bias, float)
    f = np.asarray(last.weight, float) @ np.maximum(z, 0) + np.asarray(last.bias, float)
    if loss is Loss.CROSS_ENTROPY:
        p = np.exp(f - f.max())
        g = p / p.sum() - (np.arange(len(f)) == y)
    elif loss is Loss.BCE:
        g = 1 / (1 + np.exp(-f)) - y
    else:
        g = (1 - f[y] + f > 0) / len(f) * (np.arange(len(f)) != y)
        g[y] -= g.sum()
    return (np.asarray(last.weight, float).T @ g) * (z > 0) * x


def test_a_twin_on_the_ray_is_not_overlooked():
    """Zero biases in the first layer, K = 2, classified correctly: c x has these rows for another c."""
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=(30, 3)), rng.normal(size=(2, 30))]
    network = ReluNetwork.from_arrays(weights, [np.zeros(30), np.array([0.5, -0.25])])
    x = rng.normal(size=(1, 3))
    f = np.maximum(x @ weights[0].T, 0) @ weights[1].T
    y = int(f[0].argmax())
    slope, shift = f[0, y] - f[0, 1 - y], 0.75 if y == 0 else -0.75

    def value(c):
        return c / (1 + np.exp(c * slope + shift)) - 1 / (1 + np.exp(slope + shift))

    grid = np.geomspace(1e-9, 30, 4001)
    signs = np.sign([value(c) for c in grid])
    (i,) = [i for i in np.flatnonzero(signs[1:] != signs[:-1]) if not grid[i] <= 1 <= grid[i + 1]]
    c = brentq(value, grid[i], grid[i + 1])
    rows = [
        np.outer((weights[1].T @ g) * (t[0] @ weights[0].T > 0), t[0])
        for t in (x, c * x)
        for p in [np.exp(np.maximum(t @ weights[0].T, 0) @ weights[1].T + [0.5, -0.25])[0]]
        for g in [p / p.sum() - np.eye(2)[y]]
    ]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-9)
    verdict = certify(network, batch=(x, [y]), release=WEIGHTS)
    assert SampleStatus.DETERMINED not in verdict.samples
    assert "another scale is not excluded" in verdict.reason
    wrong = certify(network, batch=(x, [1 - y]), release=WEIGHTS)
    assert wrong.outcome is Outcome.UNIQUE, "misclassified: F only increases"


def bent(slope, shift, end, *, below):
    """x = 1, K = 2: the label's logit leads by ``c slope + shift`` at c x, up to where a neuron switches."""
    own = [[1], [1 if below else -1]], [0, -end if below else end]
    beta = Fraction(1, 2) * (1 if below else -1)
    first = slope - beta * own[0][1][0]
    return ReluNetwork.from_arrays([own[0], [[first, beta], [0, 0]]], [own[1], [shift - beta * own[1][1], 0]])


@pytest.mark.parametrize(
    ("slope", "shift", "end", "below", "outcome"),
    [
        # F(c) = c / (1 + e^(1.5 c - 3)) has its value at 1 again near 2.4
        (Fraction(3, 2), -3, 2, False, Outcome.UNIQUE),
        (Fraction(3, 2), -3, 3, False, Outcome.UNKNOWN),
        # c / (1 + e^(3 c)) has it near 0.11
        (3, 0, Fraction(1, 2), True, Outcome.UNIQUE),
        (3, 0, Fraction(1, 20), True, Outcome.UNKNOWN),
        (-1, 1, 2, False, Outcome.UNIQUE),
    ],
)
def test_a_twin_counts_as_far_as_the_patterns_last(slope, shift, end, below, outcome):
    network = bent(slope, shift, end, below=below)
    batch = np.array([[1]]), np.array([0])
    verdict = certify_as(outcome, network, batch=batch, release=WEIGHTS)
    if outcome is Outcome.UNIQUE:
        certificate = accepted(verdict, network, batch)
        wider = bent(slope, shift, 3 if not below else Fraction(1, 20), below=below)
        certificate["model_sha256"] = wider.digest
        if slope > 0:
            assert_rejected(certificate, wider, "another scale", batch=batch)
        return

    def apart(c):
        return (
            weight_rows(network, c, 0, Loss.CROSS_ENTROPY) - weight_rows(network, 1.0, 0, Loss.CROSS_ENTROPY)
        )[0]

    c = brentq(apart, 0.07, 0.5) if below else brentq(apart, 1.5, 2.9)
    np.testing.assert_allclose(
        weight_rows(network, c, 0, Loss.CROSS_ENTROPY),
        weight_rows(network, 1.0, 0, Loss.CROSS_ENTROPY),
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("widths", "tensors", "says"),
    [
        ([6, 30, 20, 3], ["0.weight"], "one hidden layer only"),
        ([2, 30, 3], ["0.weight"], "the inputs are not shown to be independent"),
        ([6, 30, 3], ["0.bias", "2.weight"], "are not shown to be independent"),
        ([6, 12, 3], ["0.weight"], "too few equations"),
    ],
)
def test_what_is_lacking_is_named(widths, tensors, says):
    network, batch = random_case(widths, 4, seeds=(1, 2))
    release = Release(tensors=tensors, rows={tensors[0]: np.arange(widths[1]) % 7 > 0})
    verdict = certify_as(Outcome.UNKNOWN, network, batch=batch, release=release, engine="scale")
    assert says in verdict.reason


def test_tampering_is_rejected():
    network, batch = random_case([12, 60, 4], 4, seeds=(1, 2))
    certificate = accepted(certify(network, batch=batch, release=WEIGHTS), network, batch)

    def rejected(match, *, release=None, claim=None, **evidence):
        forged = plain(certificate)
        forged["claim"]["question"]["release"] |= release or {}
        forged["claim"]["question"] |= claim or {}
        forged["evidence"][0] |= evidence
        assert_rejected(forged, network, match, batch=batch)

    few = [k < 20 for k in range(60)]
    rejected("may switch", release={"rows": {"0.weight": few}})
    rejected("rank", release={"tensors": ["0.bias", "2.weight"]})
    rejected("shows unknown", determined=[0, 1, 2])
    rejected("named twice", determined=[0, 1, 2, 3, 3])
    rejected("all their entries", parametrisation="row_space")
    rejected("first layer", layer=2)
    rejected("first layer", lower_ranks=[4])
    rejected("may exceed", rank=certificate["evidence"][0]["rank"] - 1)
    del certificate["claim"]["question"]["release"]
    assert_rejected(certificate, network, "networks without biases", batch=batch)


@pytest.mark.parametrize(("loss", "classes"), [(Loss.BCE, 4), (Loss.CROSS_ENTROPY, 2), (Loss.MSE, 4)])
def test_weights_in_the_place_of_equal_ones_are_rejected_where_they_hide_the_scale(loss, classes):
    network, batch = random_case([12, 60, classes], 3, seeds=(1, 2), loss=loss)
    verdict = certify(network, batch=batch, loss=loss.value, release=WEIGHTS)
    certificate = accepted(verdict, network, batch)
    certificate["claim"]["question"]["release"]["weights"] = "positive"
    assert_rejected(certificate, network, "another scale", batch=batch)


def test_one_sample_needs_rows_that_tell_its_loss_vector():
    """Lifting does not know u of one sample: fewer live rows than classes leave its loss vector open."""
    network, batch = random_case([5, 40, 4], 1, seeds=(1, 2))
    certificate = accepted(certify(network, batch=batch, release=WEIGHTS), network, batch)
    x = batch.inputs[0].astype(float)
    first = network.layers[0]
    live = np.flatnonzero(first.weight.astype(float) @ x + first.bias.astype(float) > 0)
    for sent in (1, 2):
        rows = np.isin(np.arange(40), [*live[:sent], *np.delete(np.arange(40), live)]).tolist()
        certificate["claim"]["question"]["release"]["rows"] = {"0.weight": rows}
        assert_rejected(certificate, network, "do not tell the sample's loss vector", batch=batch)


def test_a_neuron_that_is_not_sent_may_switch():
    """It lies between the ends of the interval that the others give, and the logits bend there."""
    first = np.array([[1.0], [-1.0], [1.0], [2.0], [1.0]])
    bias = np.array([4.0, 8.0, -1.0, 1.0, -3.0])
    rng = np.random.default_rng(3)
    network = ReluNetwork.from_arrays([first, rng.normal(size=(3, 5))], [bias, np.zeros(3)])
    batch = np.array([[2.0]]), [0]
    whole = certify_as(Outcome.UNIQUE, network, batch=batch, release=WEIGHTS)
    certificate = accepted(whole, network, batch)
    rows = [True, True, True, True, False]  # the last is off at 2 and on from 3, below the next stop at 8
    verdict = certify(network, batch=batch, release=Release(tensors=["0.weight"], rows={"0.weight": rows}))
    assert verdict.outcome is Outcome.UNKNOWN
    certificate["claim"]["question"]["release"]["rows"] = {"0.weight": rows}
    assert_rejected(certificate, network, "may switch", batch=batch)
