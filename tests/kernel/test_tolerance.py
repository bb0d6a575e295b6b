"""Certificates of a radius: what the kernel accepts, and what it rejects however consistent it is made."""

from fractions import Fraction

import flint
import numpy as np
import pytest

from exan_verify import Gradient, certify, check
from exan_verify.core.question import Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.balls import ball_matrix, upper, working_precision
from exan_verify.kernel.tolerance.bounds import Deviations, deviations, factor, mixing, right_inverse
from exan_verify.kernel.tolerance.labels import _told
from tests.support.certificate_cases import assert_refused, assert_rejected, change, plain
from tests.support.tolerance_cases import case

WIDTHS, SAMPLES, EPS = [12, 60, 3], 3, 1e-11


def issued(loss: Loss, widths: list[int] = WIDTHS):
    network, _batch, given = case(widths, SAMPLES, loss, seed=7)
    verdict = certify(network, gradient=given, loss=loss.value, tolerance=EPS, batch_size=SAMPLES)
    assert verdict.certificate is not None, verdict.reason
    return network, given, plain(verdict.certificate)


@pytest.fixture(scope="module", params=list(Loss), ids=lambda loss: loss.value)
def any_loss(request):
    return issued(request.param)


@pytest.fixture(scope="module")
def softmax():
    return issued(Loss.CROSS_ENTROPY)


EVIDENCE = ("evidence", 0)
QUESTION = ("claim", "question")
RADIUS = ("claim", "radius")


def relabelled(labels):
    first = labels[0]
    return [first[1:] + first[:1] if len(set(first)) > 1 else [1 - v for v in first], *labels[1:]]


FOR_EVERY_LOSS = {
    "a radius a little too small": ((*RADIUS, 1), lambda r: 0.97 * r),
    "half the radius": ((*RADIUS, 0), lambda r: r / 2),
    "radius zero": ((*RADIUS, 0), 0.0),
    "negative radius": ((*RADIUS, 2), -1.0),
    "one radius missing": (RADIUS, lambda r: r[1:]),
    "one radius too many": (RADIUS, lambda r: [*r, 1.0]),
    "no radius": (RADIUS, None),
    "nothing said of existence": (("claim", "realised"), None),
    "no batch said to be there": (("claim", "realised"), False),
    "twice the tolerance": ((*QUESTION, "tolerance"), lambda t: str(2 * Fraction(t))),
    "a tolerance a little larger": ((*QUESTION, "tolerance"), lambda t: str(Fraction(21, 20) * Fraction(t))),
    "tolerance zero": ((*QUESTION, "tolerance"), "0"),
    "negative tolerance": ((*QUESTION, "tolerance"), "-1/1000"),
    "tolerance not a number": ((*QUESTION, "tolerance"), "tiny"),
    "an exact question": ((*QUESTION, "tolerance"), None),
    "an input moved": ((*EVIDENCE, "inputs", 0, 3), lambda v: v + 1e-3),
    "an input moved by the radius": ((*EVIDENCE, "inputs", 1, 0), lambda v: v + 1e-7),
    "two samples exchanged in part": ((*EVIDENCE, "inputs"), lambda x: [x[1], x[1], x[2]]),
    "a sample missing": ((*EVIDENCE, "inputs"), lambda x: x[1:]),
    "a feature missing": ((*EVIDENCE, "inputs", 0), lambda row: row[1:]),
    "an input without bounds": ((*EVIDENCE, "inputs", 0, 0), 1e999),
    "a label changed": ((*EVIDENCE, "labels"), relabelled),
    "a label that is no label": ((*EVIDENCE, "labels", 0), [2, 0, 0]),
    "a label missing": ((*EVIDENCE, "labels"), lambda y: y[1:]),
    "a class missing": ((*EVIDENCE, "labels", 0), lambda y: y[1:]),
    "column space of the last layer": ((*EVIDENCE, "parametrisation"), "column_space"),
    "row space": ((*EVIDENCE, "parametrisation"), "row_space"),
    "another batch size": ((*QUESTION, "batch_size"), 4),
    "another reduction": ((*QUESTION, "reduction"), "sum"),
    "real labels": ((*QUESTION, "labels"), "real"),
    "known labels": ((*QUESTION, "labels"), "known"),
    "a batch given": ((*QUESTION, "entrance"), "batch"),
    "ambiguous": (("claim", "outcome"), "ambiguous"),
    "unrealisable": (("claim", "outcome"), "unrealisable"),
    "samples determined": (("claim", "samples"), ["determined"] * SAMPLES),
    "the batch outside the domain": ((*QUESTION, "domain"), [["0"], ["1/4"]]),
    "domain upside down": ((*QUESTION, "domain"), [["1"], ["0"]]),
    "no evidence": (("evidence",), []),
    "evidence twice": (("evidence",), lambda e: [*e, *e]),
    "evidence of another kind": ((*EVIDENCE,), {"type": "rank_bound", "prime": 7, "layer": 1, "rank": 9}),
    "a way to rebuild": (("rebuild",), {"layer": 1, "columns": [0], "matrix": [["1"]]}),
    "a batch's digest": (("batch_sha256",), "0" * 64),
    "gradient digest": (("gradient_sha256",), "0" * 64),
    "model digest": (("model_sha256",), "0" * 64),
}


@pytest.mark.parametrize("name", FOR_EVERY_LOSS)
def test_rejects_tampering(any_loss, name):
    network, given, certificate = any_loss
    path, value = FOR_EVERY_LOSS[name]
    assert_rejected(change(certificate, path, value), network, gradient=given)


@pytest.mark.parametrize("other", list(Loss))
def test_rejects_another_loss(any_loss, other):
    network, given, certificate = any_loss
    if certificate["claim"]["question"]["loss"] == other.value:
        assert check(certificate, network, gradient=given)
        return
    assert_rejected(change(certificate, (*QUESTION, "loss"), other.value), network, gradient=given)


def test_accepts_weaker_claims(softmax):
    """A larger radius and a smaller tolerance follow from the evidence."""
    network, given, certificate = softmax
    assert check(change(certificate, (*RADIUS, 0), 0.5), network, gradient=given).radius[0] == 0.5
    smaller = change(certificate, (*QUESTION, "tolerance"), str(Fraction(EPS) / 2))
    assert check(smaller, network, gradient=given)


def test_existence_is_checked(softmax):
    """A tolerance below the gradient's own rounding: the radius holds, but no batch is known to be there."""
    network, given, certificate = softmax
    tiny = change(certificate, (*QUESTION, "tolerance"), str(Fraction(1, 10**30)))
    assert_rejected(tiny, network, "not within the tolerance", gradient=given)
    assert_rejected(change(tiny, ("claim", "realised"), False), network, "at most one", gradient=given)


def test_labels_are_checked_first(any_loss):
    network, given, certificate = any_loss
    wide = change(certificate, RADIUS, [1e3] * SAMPLES)
    assert check(wide, network, gradient=given)
    assert_rejected(change(wide, (*EVIDENCE, "labels"), relabelled), network, "label", gradient=given)


def refuted(certificate):
    """The same evidence, claimed to show that there is no batch."""
    claim = certificate["claim"] | {
        "outcome": "unrealisable",
        "samples": [],
        "radius": None,
        "realised": None,
    }
    return certificate | {"claim": claim}


def test_a_realised_question_is_never_refuted(any_loss):
    network, given, certificate = any_loss
    assert_rejected(refuted(certificate), network, "further than the tolerance", gradient=given)
    for layer in (1, 2):
        rank = {"type": "rank_bound", "prime": 0, "layer": layer, "rank": SAMPLES + 1, "point": 0}
        assert_rejected(refuted(certificate) | {"evidence": [rank]}, network, gradient=given)


def test_a_refutation_is_about_its_own_tolerance_and_size(any_loss):
    """Of a gradient times -1, and of one with noise: what is said of less is not said of more."""
    network, given, certificate = any_loss
    loss = certificate["claim"]["question"]["loss"]
    rng = np.random.default_rng(3)
    noise = {name: value + 1e-3 * rng.normal(size=value.shape) for name, value in given.items()}
    asked = {"loss": loss, "batch_size": SAMPLES, "tolerance": EPS, "engine": "exact"}
    for other in ({name: -value for name, value in given.items()}, noise):
        verdict = certify(network, gradient=other, **asked)
        assert verdict.outcome.value == "unrealisable"
        issued = plain(verdict.certificate)
        assert check(issued, network, gradient=other).outcome.value == "unrealisable"
        for path, value in (
            ((*QUESTION, "tolerance"), "10"),
            ((*QUESTION, "tolerance"), None),
            ((*QUESTION, "batch_size"), 40),
            (("claim", "outcome"), "unique"),
            (("claim", "realised"), True),
            ((*EVIDENCE, "type"), "forced"),
        ):
            assert_rejected(change(issued, path, value), network, gradient=other)
        moved = issued | {"gradient_sha256": certificate["gradient_sha256"]}
        assert_rejected(moved, network, gradient=given)


def test_the_enclosed_label_is_read_as_the_loss_has_it():
    """mse: f = 3/2 and N g = 2 (f - y) = 1 mean y = 1; N g = 3 means y = 0."""
    values = [flint.arb(1.5)], [flint.arb(1)], [flint.arb(3)]
    assert _told(Loss.MSE, values[0], values[1], [1])
    assert not _told(Loss.MSE, values[0], values[1], [0])
    assert _told(Loss.MSE, values[0], values[2], [0])
    assert not _told(Loss.MSE, values[0], values[2], [1])
    wide = [flint.arb(0.5, 0.6)]
    for y in (0, 1):
        assert not _told(Loss.MSE, wide, [flint.arb(0)], [y])
        assert not _told(Loss.BCE, [flint.arb(0, 90)], [flint.arb(0, 0.6)], [y])
    assert _told(Loss.HINGE, [], [flint.arb(-0.5, 0.4), flint.arb(0.5)], [1, 0])
    assert not _told(Loss.HINGE, [], [flint.arb(-0.5, 0.6), flint.arb(0.5)], [1, 0])


def test_rejects_another_gradient_with_its_digest(any_loss):
    network, given, certificate = any_loss
    for name, size in (("0.weight", 1e-4), ("2.bias", 1e-6)):
        array = np.array(given[name])
        array.flat[0] += size
        other = Gradient(tensors=given | {name: array})
        assert_rejected(change(certificate, ("gradient_sha256",), other.digest), network, gradient=other)


def test_rejects_another_model_with_its_digest(any_loss):
    network, given, certificate = any_loss
    weights = [np.array(layer.weight) for layer in network.layers]
    weights[1][0] = weights[1][1]
    other = type(network).from_arrays(weights, [layer.bias for layer in network.layers])
    assert_rejected(change(certificate, ("model_sha256",), other.digest), other, gradient=given)


def test_deeper_networks_are_checked_through_the_next_layer():
    network, given, certificate = issued(Loss.MSE, [12, 60, 20, 10, 3])
    assert certificate["evidence"][0]["parametrisation"] == "column_space"
    assert check(certificate, network, gradient=given)
    for kind in ("zero_sum", "single", "full"):
        assert_rejected(change(certificate, (*EVIDENCE, "parametrisation"), kind), network, gradient=given)
    assert_rejected(change(certificate, (*EVIDENCE, "labels"), relabelled), network, "label", gradient=given)


def test_a_zero_sum_is_not_granted_to_losses_without_it():
    network, given, certificate = issued(Loss.BCE)
    zero_sum = change(certificate, (*EVIDENCE, "parametrisation"), "zero_sum")
    assert_rejected(zero_sum, network, "add up to zero", gradient=given)


class TestBounds:
    """T1 to T4 on matrices whose true factors are known."""

    def factors(self, seed: int = 0, neurons: int = 40, samples: int = 3, features: int = 9):
        rng = np.random.default_rng(seed)
        outgoing = rng.normal(size=(neurons, 2))
        points = rng.normal(size=(samples, 2))
        delta = (rng.uniform(size=(neurons, samples)) < 0.5) * (outgoing @ points.T)
        extended = np.concatenate([rng.uniform(size=(samples, features)), np.ones((samples, 1))], axis=1)
        return delta, extended, outgoing, points

    def test_the_true_mixing_lies_in_the_bounds(self):
        """Another right inverse than the batch's own makes T differ from I; its inverse has to be covered."""
        delta, extended, outgoing, points = self.factors()
        gradient = delta @ extended
        shifted = extended.copy()
        shifted[:, :-1] += 1e-7 * np.random.default_rng(1).normal(size=shifted[:, :-1].shape)
        with working_precision():
            slack = ball_matrix(np.zeros(gradient.shape))
            parts = factor(ball_matrix(gradient) + slack, shifted, "A")
            found = deviations(parts.block, ball_matrix(outgoing), points)
        inverse = np.linalg.inv(extended @ _floats(parts.right))
        for a in range(3):
            scaled = inverse[:, a] / inverse[a, a]
            for b in range(3):
                if a != b:
                    assert abs(scaled[b]) <= found.columns[a, b] * (1 + 1e-6) + 1e-15
        assert found.columns.max() > 1e-9

    def test_dependent_factors_are_rejected(self):
        delta, extended, outgoing, points = self.factors()
        twins = delta[:, [0, 0, 2]]
        with working_precision(), pytest.raises(CertificateRejected, match="not shown"):
            factor(ball_matrix(twins @ extended), extended, "A")
        with working_precision(), pytest.raises(CertificateRejected, match="too few"):
            deviations(ball_matrix(delta[:5]), ball_matrix(outgoing[:5]), points)

    def test_shared_patterns_are_rejected(self):
        _, extended, outgoing, points = self.factors()
        delta = outgoing @ points.T
        delta[20:, 2] = 0
        with working_precision():
            parts = factor(ball_matrix(delta @ extended), extended, "A")
            with pytest.raises(CertificateRejected):
                deviations(parts.block, ball_matrix(outgoing), points)

    def test_large_factors_leave_the_order_open(self):
        columns = np.full((3, 3), 1e-3)
        np.fill_diagonal(columns, 0)
        found = Deviations(columns=columns, following=np.zeros((3, 2)))
        with working_precision():
            assert_refused("permutation", mixing, found, np.full(3, 400.0))
            close = mixing(found, np.full(3, 100.0))
        assert np.all(close.scales >= 2e-3)
        assert np.all(close.scales <= 2.1e-3)
        assert np.all(np.diag(close.entries) == 0)

    def test_the_right_inverse_is_exact_where_it_must_be(self):
        _, extended, _, _ = self.factors()
        with working_precision():
            found = right_inverse(extended, "H")
            rows = (found * ball_matrix(np.ones((3, 1)))).entries()
            near = upper(ball_matrix(extended) * found - ball_matrix(np.eye(3)))
        assert [row.is_exact() and float(row) for row in rows] == [0.0] * 9 + [1.0]
        assert near.max() < 1e-12
        with working_precision(), pytest.raises(CertificateRejected):
            right_inverse(np.ones((2, 3)) * np.array([[1.0], [1 + 2.0**-52]]) * 1e-300, "H")


def _floats(matrix):
    values = [float(v) for v in matrix.entries()]
    return np.array(values).reshape(matrix.nrows(), matrix.ncols())
