"""The kernel rejects residual evidence that was tampered with, and forged evidence for false claims."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import (
    Claim,
    LabelCase,
    LossVectorArgument,
    QuadricArgument,
    QuestionRecord,
    Residual,
    issue,
)
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide import residual
from exan_verify.decide.residual import branch, mse
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import gradient
from exan_verify.exact.modular import PRIME
from exan_verify.kernel.residual import cover as residual_cover
from exan_verify.kernel.residual import quadrics as residual_quadrics
from tests.support import counterexamples
from tests.support.cases import batch_of
from tests.support.certificate_cases import assert_rejected, certify_as, change, plain
from tests.support.residual_cases import context, one_region


def issued(network, batch, loss):
    verdict = certify_as(Outcome.UNIQUE, network, batch=batch, loss=loss)
    return network, batch, plain(verdict.certificate)


@pytest.fixture(scope="module")
def quadric():
    return issued(*one_region((0, 0, 1)), "mse")


@pytest.fixture(scope="module")
def excluded():
    network = ReluNetwork.from_arrays([[[1], [2]], [[0.01, 0], [-0.01, 0]]], [[1, 1], [0.5, 0.25]])
    return issued(network, ([[0], [1]], [0, 1]), "mse")


@pytest.fixture(scope="module")
def membership():
    return issued(*one_region((0, 1), classes=6, loss=Loss.CROSS_ENTROPY, spread=2.0**-6), "cross_entropy")


@pytest.fixture(scope="module")
def joint():
    return issued(*one_region((0, 0), classes=3, loss=Loss.CROSS_ENTROPY, spread=2.0**-6), "cross_entropy")


@pytest.fixture(scope="module")
def selected():
    for seed in range(9):
        network, batch = one_region((0, 1, 2), seed=seed, loss=Loss.HINGE)
        verdict = certify(network, batch=batch, loss="hinge")
        if verdict.outcome is Outcome.UNIQUE:
            return issued(network, batch, "hinge")
    raise AssertionError("no seed gives a unique batch")


def rejected(made, path, value):
    network, batch, certificate = made
    assert check(certificate, network, batch=batch).outcome is Outcome.UNIQUE
    assert_rejected(change(certificate, path, value), network, batch=batch)


PART = ("evidence", -1)
ARGUMENT = (*PART, "argument")
CASE = (*ARGUMENT, "cases", 0)
IDENTITY = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]]
STRANGER = [["1/2", "1/2", "0"], ["0", "1", "0"], ["1/2", "-1/2", "1"]]

QUADRIC_TAMPERS = {
    "prime": ((*PART, "prime"), 2**31 - 1),
    "point zero": ((*PART, "point"), 0),
    "point p": ((*PART, "point"), PRIME),
    "a member dropped": ((*PART, "members"), lambda m: m[1:]),
    "a member twice": ((*PART, "members"), lambda m: [*m, m[-1]]),
    "a member that is not there": ((*PART, "members"), lambda m: [*m[:-1], 9]),
    "degree too low": ((*CASE, "degree"), lambda d: d - 1),
    "degree one": ((*CASE, "degree"), 1),
    "degree beyond reason": ((*CASE, "degree"), 500),
    "no cases": ((*ARGUMENT, "cases"), []),
    "one case more": ((*ARGUMENT, "cases"), lambda c: [*c, c[-1]]),
    "the identity as another solution": ((*CASE, "others"), [IDENTITY]),
    "no solution as another solution": ((*CASE, "others"), [STRANGER]),
    "a solution of another shape": ((*CASE, "others"), [[["1"]]]),
    "a solution that is no number": ((*CASE, "others"), [[["x", "0", "0"], *IDENTITY[1:]]]),
    "another argument": (ARGUMENT, {"type": "loss_vectors", "selections": 1}),
    "a cover": (ARGUMENT, {"type": "cover", "kind": "joint", "bounds": [], "trees": []}),
    "loss": (("claim", "question", "loss"), "cross_entropy"),
    "real labels": (("claim", "question", "labels"), "real"),
    "outcome": (("claim", "outcome"), "ambiguous"),
    "a sample free": (("claim", "samples", 0), "free"),
}


@pytest.mark.parametrize("name", QUADRIC_TAMPERS)
def test_rejects_tampering_with_quadrics(quadric, name):
    rejected(quadric, *QUADRIC_TAMPERS[name])


EXCLUDED_TAMPERS = {
    "the excluded solution is not named": ((*CASE, "others"), []),
    "named twice": ((*CASE, "others"), lambda o: [*o, *o]),
    "another row": ((*CASE, "others", 0, 0), ["1", "0"]),
}


@pytest.mark.parametrize("name", EXCLUDED_TAMPERS)
def test_rejects_tampering_with_excluded_solutions(excluded, name):
    rejected(excluded, *EXCLUDED_TAMPERS[name])


TREE = (*ARGUMENT, "trees", 0)
COVER_TAMPERS = {
    "empty tree": (TREE, ""),
    "everything is empty": (TREE, "x"),
    "everything is done": ((*ARGUMENT, "trees", -1), "k"),
    "a box more": (TREE, lambda t: t + "x"),
    "a box less": (TREE, lambda t: t[:-1]),
    "an axis that is not there": (TREE, lambda t: "7" + t),
    "a digit of another script": (TREE, lambda t: "²" + t),
    "a tree less": ((*ARGUMENT, "trees"), lambda t: t[1:]),
    "a tree more": ((*ARGUMENT, "trees"), lambda t: [*t, "x"]),
    "trees swapped": ((*ARGUMENT, "trees"), lambda t: t[::-1]),
    "bounds swapped": ((*ARGUMENT, "bounds", 0), lambda b: b[::-1]),
    "bounds dropped": ((*ARGUMENT, "bounds"), []),
    "a constraint that is not there": ((*ARGUMENT, "bounds", 0, 0), [10**6]),
    "no constraint": ((*ARGUMENT, "bounds", 0, 1), []),
    "too many constraints": ((*ARGUMENT, "bounds", 0, 0), lambda b: [*b, *b]),
    "the other loss": (("claim", "question", "loss"), "hinge"),
}


@pytest.mark.parametrize("name", COVER_TAMPERS)
def test_rejects_tampering_with_a_membership_cover(membership, name):
    rejected(membership, *COVER_TAMPERS[name])


@pytest.mark.parametrize("name", COVER_TAMPERS)
def test_rejects_tampering_with_a_joint_cover(joint, name):
    rejected(joint, *COVER_TAMPERS[name])


def test_the_kinds_of_cover_are_not_interchangeable(joint, membership):
    rejected(joint, (*ARGUMENT, "kind"), "membership")
    rejected(membership, (*ARGUMENT, "kind"), "joint")


@pytest.mark.parametrize("shift", [-1, 1])
def test_rejects_another_number_of_selections(selected, shift):
    rejected(selected, (*ARGUMENT, "selections"), lambda n: n + shift)


def forged(network, batch, loss, argument, members=(0, 1), labels=Labels.ONE_HOT):
    """A certificate with every digest right that claims UNIQUE."""
    question = QuestionRecord(
        entrance="batch",
        loss=loss,
        reduction=Reduction.MEAN,
        labels=labels,
        batch_size=batch.size,
    )
    return issue(
        claim=Claim(
            question=question,
            outcome=Outcome.UNIQUE,
            samples=(SampleStatus.DETERMINED,) * batch.size,
        ),
        evidence=(Residual(prime=PRIME, point=12345, members=tuple(members), argument=argument),),
        model_sha256=network.digest,
        batch_sha256=batch.digest,
    )


def mixing_of(example):
    """The genuine second solution Q of the antisymmetric head."""
    first, second = (np.array(b.x, dtype=object) for b in (example.batch, example.second))
    step = first[1] - first[0]
    rows = [(row[0] - first[0][0]) / step[0] for row in second]
    return tuple((str(1 - a), str(a)) for a in rows)


@pytest.mark.parametrize("degree", [2, 3, 4, 5])
@pytest.mark.parametrize("name_it", [False, True])
def test_an_ambiguous_batch_cannot_be_forged_unique(degree, name_it):
    example = counterexamples.antisymmetric_head()
    others = (mixing_of(example),) if name_it else ()
    for cases in (1, 2, 3):
        argument = QuadricArgument(cases=(LabelCase(degree=degree, others=others),) * cases)
        certificate = forged(example.network, example.batch, Loss.MSE, argument)
        assert_rejected(certificate, example.network, batch=example.batch)


def test_members_must_be_independent():
    """P1's network: four samples, one logit, two solutions."""
    example = counterexamples.published_insecure()
    argument = QuadricArgument(cases=(LabelCase(degree=2),))
    certificate = forged(example.network, example.batch, Loss.MSE, argument, range(4))
    assert_rejected(certificate, example.network, r"rank\(G\)", batch=example.batch)


@pytest.mark.parametrize(
    "argument",
    [
        {"type": "loss_vectors", "selections": 0},
        {"type": "cover", "kind": "joint", "bounds": [], "trees": ["k"]},
        {"type": "quadrics", "cases": []},
    ],
)
def test_an_argument_of_another_kind_or_an_empty_one_is_rejected(quadric, argument):
    rejected(quadric, ARGUMENT, argument)


def test_one_sample_alone_has_its_own_labels_and_two_do_not():
    """Real targets: Q = 1 for one sample and biases; two mix, and one without biases keeps a scale."""
    rng = np.random.default_rng(5)
    weight, bias = rng.integers(-8, 9, (3, 4)) / 8, rng.integers(-8, 9, 3) / 8
    for samples, biases, cases, accepted in (
        (1, [bias], 0, True),
        (1, [bias], 1, False),
        (1, None, 0, False),
        (2, [bias], 0, False),
    ):
        network = ReluNetwork.from_arrays([weight], biases)
        x, y = rng.integers(-8, 9, (samples, 4)) / 8, rng.normal(size=(samples, 3))
        batch = batch_of(network, x, y, labels=Labels.REAL)
        argument = QuadricArgument(cases=(LabelCase(degree=2),) * cases)
        made = forged(network, batch, Loss.MSE, argument, range(samples), Labels.REAL)
        if accepted:
            assert check(made, network, batch=batch).outcome is Outcome.UNIQUE
            continue
        assert_rejected(made, network, batch=batch)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_cover_without_coordinates_tells_the_labels_apart(label):
    """One sample, no hidden layer: the recorded leaves are its own label's and nobody else's."""
    rng = np.random.default_rng(6)
    network = ReluNetwork.from_arrays([rng.integers(-8, 9, (3, 4)) / 8], [rng.integers(-8, 9, 3) / 8])
    made = issued(network, (rng.integers(-8, 9, (1, 4)) / 8, [label]), "cross_entropy")
    assert check(made[2], network, batch=made[1])
    trees = made[2]["evidence"][0]["argument"]["trees"]
    assert trees == ["k" if y == label else "x" for y in range(3)]
    for wrong in (["x"] * 3, ["k"] * 3, trees[1:] + trees[:1], trees[:2]):
        rejected(made, (*ARGUMENT, "trees"), wrong)


def genuine_argument(network, batch):
    """What the mse method says about the output system, its hypotheses unchecked."""
    return mse.solve_rest(Rest(context=context(network, batch), members=(0, 1)), Budget()).argument


def test_features_must_be_independent():
    """Equal inputs with different labels: Q is settled by the loss vectors, but [H 1] has rank one."""
    network = ReluNetwork.from_arrays(
        [[[1], [2], [3]], [[1, 2, 3], [1, 5, 1], [2, 1, 7]]], [[1, 1, 1], [1, 2, 5]]
    )
    batch = batch_of(network, [[1], [1]], [0, 1])
    argument = genuine_argument(network, batch)
    assert argument is not None
    assert_rejected(forged(network, batch, Loss.MSE, argument), network, r"rank \[H", batch=batch)


def test_the_way_down_must_be_shown():
    """An input that no neuron sees, below a head (f, -f): the features are settled, the inputs are not."""
    seen = counterexamples.antisymmetric_head().network
    weights = [layer.weight for layer in seen.layers]
    network = ReluNetwork.from_arrays(
        [np.concatenate([weights[0], np.zeros((3, 1))], axis=1), weights[1]],
        [layer.bias for layer in seen.layers],
    )
    batch = batch_of(network, [[0.25, 0.125, 1], [0.5, 0.25, 2]], [0, 0])
    argument = genuine_argument(network, batch)
    assert argument is not None
    assert_rejected(forged(network, batch, Loss.MSE, argument), network, "features below", batch=batch)


def test_evaluations_must_be_independent():
    """The corners of a square have the right rank at degree two, where they are affinely dependent."""
    square = residual_quadrics._System(
        free=[0, 1],
        quadrics=[{(k, k): Fraction(1), (k,): Fraction(-1)} for k in (0, 1)],
    )
    corners = [[a, b] for a in (0, 1) for b in (0, 1)]
    assert not residual_quadrics._only(corners, square, 2)
    assert residual_quadrics._only(corners, square, 3)
    assert not residual_quadrics._only(corners[:3], square, 3)


def test_a_solution_outside_the_domain_is_excluded_by_the_domain_alone():
    """l = 4: the second solution lies a whole step outside the samples, in the region, outside the box."""
    network = ReluNetwork.from_arrays([np.eye(2), [[-0.25, 1], [0.25, 2], [0, 5]]], [[9, 9], [0.5, 0.25, 1]])
    batch = ([[0, 1], [1, 1]], [0, 1])
    free = certify_as(Outcome.AMBIGUOUS, network, batch=batch, loss="mse")
    assert sorted(free.witness.batch.x) == [(-1, 1), (2, 1)]
    boxed = certify_as(Outcome.UNIQUE, network, batch=batch, loss="mse", domain=Box(0, 1))
    certificate = plain(boxed.certificate)
    assert check(certificate, network, batch=batch).outcome is Outcome.UNIQUE
    for domain in (None, [["-1"], ["2"]]):
        assert_rejected(change(certificate, ("claim", "question", "domain"), domain), network, batch=batch)


class Cubic:
    """x (x - 1) (x - 3/2), as a system for both sides."""

    def over(self, box):
        x = box[0]
        return [x * (x - 1) * (x - 1.5)], [[3 * x * x - 5 * x + 1.5]]

    __call__ = over


BOX = [(Fraction(-2), Fraction(3))]
ZEROS = [[Fraction(0)], [Fraction(1)], [Fraction(3, 2)]]


def test_a_cover_names_every_zero_or_does_not_exist():
    tree = branch.cover(Cubic(), tuple(BOX), [tuple(z) for z in ZEROS], Budget(), 500)
    assert tree is not None
    assert tree.count("k") >= 3
    residual_cover._walk(Cubic(), BOX, ZEROS, tree)
    assert branch.cover(Cubic(), tuple(BOX), [tuple(z) for z in ZEROS[:2]], Budget(), 500) is None
    assert branch.cover(Cubic(), tuple(BOX), [tuple(z) for z in ZEROS], Budget(), 3) is None
    for lie in ("k", "0kk", "0xk", tree.replace("k", "x", 1), tree.replace("x", "k", 1)):
        with pytest.raises(CertificateRejected):
            residual_cover._walk(Cubic(), BOX, ZEROS, lie)
        with pytest.raises(CertificateRejected):
            residual_cover._walk(Cubic(), BOX, ZEROS[:1], lie)


def test_injective_means_one_zero_at_most():
    for low, high, expected in (
        (-1, 1, False),
        (-0.125, 0.125, True),
        (0.75, 1.75, False),
        (1.5, 1.625, True),
    ):
        box = [(Fraction(low), Fraction(high))]
        assert residual_cover._injective(Cubic(), box) is expected


def test_a_bound_needs_non_negative_multipliers(membership):
    """Both bounds from the upper one's constraint: a point without zeros, and every box of it empty."""
    network, batch, certificate = membership
    (below, above), *_ = certificate["evidence"][-1]["argument"]["bounds"]
    for rows in ([above, above], [below, below]):
        forged_bounds = change(certificate, (*ARGUMENT, "bounds"), [rows])
        empty = change(forged_bounds, (*ARGUMENT, "trees"), lambda trees: ["x"] * len(trees))
        assert_rejected(empty, network, "bound", batch=batch)


def hinge_with_a_second_batch(seed=2260):
    """Two samples with independent loss vectors, and another selection of loss vectors that fits."""
    rng = np.random.default_rng(seed)
    rng.integers(-3, 4, (3, 2))
    weights = [rng.integers(-3, 4, (3, 2)), rng.integers(-3, 4, (4, 3))]
    network = ReluNetwork.from_arrays(weights, [rng.integers(2, 7, 3), rng.integers(-2, 3, 4)])
    x, y = rng.integers(-4, 5, (2, 2)) / 2, rng.integers(0, 4, 2)
    return network, batch_of(network, x, y, Loss.HINGE)


def test_a_second_selection_of_loss_vectors_is_found_and_cannot_be_hidden():
    network, batch = hinge_with_a_second_batch()
    finding = residual.decide(context(network, batch, loss=Loss.HINGE), Budget())
    assert finding.facts.ambiguous
    ours, theirs = (gradient(network, b, Loss.HINGE, Reduction.MEAN) for b in (batch, finding.witness.batch))
    assert ours == theirs
    for count in range(40):
        argument = LossVectorArgument(selections=count)
        assert_rejected(forged(network, batch, Loss.HINGE, argument), network, "not excluded", batch=batch)


def test_activations_stay_within_their_bounds_over_a_box() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        row, bias = rng.integers(-4, 5, 3), int(rng.integers(-4, 5))
        ends = np.sort(rng.integers(-5, 6, (3, 2)), axis=1)
        sides = [(Fraction(int(a)), Fraction(int(b))) for a, b in ends]
        low, high = residual_cover._activation(row, bias, sides)
        corners = [max(int(np.dot(row, corner)) + bias, 0) for corner in product(*ends)]
        assert (low, high) == (min(corners), max(corners))
