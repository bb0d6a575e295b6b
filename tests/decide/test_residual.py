"""Residual systems: what is left when samples share every pattern (docs/theory.md S5, C4)."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Reduction
from exan_verify.core.verdict import Engine, Outcome, Trust
from exan_verify.decide import residual
from exan_verify.decide.residual import searched
from exan_verify.decide.residual.macaulay import columns_at, rank_at, settled_at
from exan_verify.decide.residual.points import rational_points
from exan_verify.decide.residual.polytope import bounds
from exan_verify.decide.residual.quadratic import Quadrics, quadrics
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exclusivity import exan_counts
from exan_verify.theorems.support.label_ties import labels_not_told
from tests.support import counterexamples
from tests.support.certificate_cases import assert_rejected, certify_as, plain
from tests.support.residual_cases import context, one_region


def ask(*arguments, budget=None, **options):
    return residual.decide(context(*arguments, **options), budget or Budget())


def certified(network, batch, **options):
    verdict = certify(network, batch=batch, **options)
    assert verdict.trust is Trust.CERTIFIED, verdict.reason
    claim = check(json.dumps(verdict.certificate), network, batch=batch)
    assert (claim.outcome, claim.samples) == (verdict.outcome, verdict.samples)
    return verdict


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (0, 1, 2), (0, 0, 1), (3, 1, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize("widths", [(20, 60), (6, 30, 20)])
def test_mse_groups_without_a_free_orbit_are_unique(counts, widths):
    network, batch = one_region(counts, widths=widths)
    verdict = certified(network, batch, loss="mse")
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert verdict.engine is Engine.RESIDUAL


@pytest.mark.parametrize("labels", ["one_hot", "known"])
@pytest.mark.parametrize("counts", [(0, 1), (0, 1, 2)])
def test_hinge_groups(counts, labels):
    found = 0
    for seed in range(4):
        network, batch = one_region(counts, loss=Loss.HINGE, seed=seed)
        finding = ask(network, batch, loss=Loss.HINGE, labels=Labels(labels))
        found += finding.facts.unique
        assert not finding.facts.is_ambiguous
    assert found >= 3


@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
@pytest.mark.parametrize(
    ("counts", "classes"), [((0, 0), 3), ((0, 1), 3), ((0, 1), 6), ((0, 1, 2), 4), ((0, 1, 2), 8)]
)
def test_transcendental_groups_are_unique_by_a_cover(loss, counts, classes):
    network, batch = one_region(counts, classes=classes, loss=Loss(loss))
    verdict = certified(network, batch, loss=loss)
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert verdict.engine is Engine.RESIDUAL


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_group_beside_samples_that_lifting_settles(loss):
    network, (x, _) = one_region((0, 1), classes=6, widths=(30, 120), seed=5)
    others = np.random.default_rng(6).normal(size=(3, 30)).astype(np.float32)
    batch = (np.concatenate([others, x]), np.array([4, 4, 2, 0, 1]))
    verdict = certified(network, batch, loss=loss)
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    kinds = [part["type"] for part in verdict.certificate["evidence"]]
    assert kinds == ["lifting", "residual"]
    assert verdict.certificate["evidence"][1]["members"] == (3, 4)


@pytest.mark.parametrize(
    "case",
    [
        counterexamples.published_insecure,
        counterexamples.parallel_logits,
        counterexamples.antisymmetric_head,
    ],
)
def test_second_batches_of_the_counterexamples_are_exact(case):
    example = case()
    assert example.second != example.batch
    assert sorted(example.second.x) != sorted(example.batch.x)
    for reduction in Reduction:
        ours, theirs = (
            gradient(example.network, b, Loss.MSE, reduction) for b in (example.batch, example.second)
        )
        assert ours == theirs


def test_the_network_against_the_published_reading_is_as_announced():
    example = counterexamples.published_insecure()
    passed = forward(example.network, example.batch)
    assert example.network.widths == (3, 9, 1)
    assert min(exan_counts(passed.patterns[0])) >= 2
    for batch in (example.batch, example.second):
        assert not forward(example.network, batch).zeros[0].any()
        logits = forward(example.network, batch).logits[0]
        assert all(f != y[0] for f, y in zip(logits, batch.y, strict=True))
    assert certify(example.network, batch=example.batch, loss="mse").outcome is not Outcome.UNIQUE


@pytest.mark.parametrize("case", [counterexamples.parallel_logits, counterexamples.antisymmetric_head])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_parallel_logits_have_the_second_batch_of_the_formula(case, reduction):
    example = case()
    verdict = certified(example.network, (example.batch.inputs, example.batch.labels), loss="mse")
    assert verdict.outcome is example.outcome
    assert sorted(verdict.witness.batch.x) == sorted(example.second.x)
    assert not verdict.determined


def test_equal_labels_under_an_antisymmetric_head_are_unique():
    """Delta_1 has rank one; the forward equations of the active neurons carry the features down."""
    network = counterexamples.antisymmetric_head().network
    x = [[Fraction(1, 3), Fraction(1, 5)], [Fraction(1, 2), Fraction(1, 4)]]
    verdict = certified(network, (x, [0, 0]), loss="mse")
    assert verdict.outcome is Outcome.UNIQUE


def test_a_second_solution_outside_the_region_is_excluded():
    """y_2 - y_1 = 100 (f_2 - f_1): a = -49 leaves the region, where the first neuron would be negative."""
    network = ReluNetwork.from_arrays(
        [[[1], [2]], [[Fraction(1, 100), 0], [Fraction(-1, 100), 0]]],
        [[1, 1], [Fraction(1, 3), Fraction(1, 7)]],
    )
    batch = ([[0], [1]], [0, 1])
    verdict = certified(network, batch, loss="mse")
    assert verdict.outcome is Outcome.UNIQUE
    cases = verdict.certificate["evidence"][-1]["argument"]["cases"]
    assert [len(case["others"]) for case in cases] == [1]


def test_a_box_of_inputs_bounds_the_features_of_the_last_layer():
    """Both samples see one neuron alone: without a box a row of Q may be any point of a half-line."""
    network = ReluNetwork.from_arrays(
        [[[1, 0.5], [0.5, 1]], [[1, 1], [-0.5, 1], [0.25, -1]]], [[0.5, 0.25], [0, 0.25, 0]]
    )
    batch = ([[1, 0.5], [2, 1.5]], [0, 1])
    wide = ask(network, batch, loss=Loss.CROSS_ENTROPY)
    assert "not shown to be bounded" in wide.attempts[0].note
    for box in (Box(-4, 4), Box([-3, -1], [2, 5])):
        assert ask(network, batch, loss=Loss.CROSS_ENTROPY, domain=box).facts.unique
        verdict = certified(network, batch, domain=box, engine="residual")
        assert verdict.outcome is Outcome.UNIQUE
    tampered = plain(verdict.certificate)
    del tampered["claim"]["question"]["domain"]
    assert_rejected(tampered, network, batch=batch)


def test_a_domain_excludes_what_the_whole_space_admits():
    example = counterexamples.antisymmetric_head()
    batch = (example.batch.inputs, example.batch.labels)
    free = certified(example.network, batch, loss="mse")
    assert free.outcome is Outcome.AMBIGUOUS
    tight = Box([Fraction(1, 4), Fraction(1, 6)], [Fraction(3, 4), Fraction(3, 10)])
    assert certify(example.network, batch=batch, loss="mse", domain=tight).outcome is not Outcome.AMBIGUOUS


def test_a_linear_network_is_decided_at_its_only_layer():
    rng = np.random.default_rng(0)
    network = ReluNetwork.from_arrays([rng.normal(size=(4, 3))], [rng.normal(size=4)])
    x = rng.normal(size=(2, 3))
    assert ask(network, (x, [0, 1])).facts.unique
    assert ask(network, (x, [0, 1]), loss=Loss.CROSS_ENTROPY).facts == Facts()
    more = ReluNetwork.from_arrays([rng.normal(size=(6, 3))], [rng.normal(size=6)])  # classes than cubes take
    assert "domain" in certify(more, batch=(x, [0, 1]), engine="exact").reason
    inside = ask(network, (x, [0, 1]), loss=Loss.CROSS_ENTROPY, domain=Box(-4, 4))
    assert inside.facts.unique


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("seed", range(6))
def test_one_sample_without_a_hidden_layer_is_unique_unless_it_has_no_loss(loss, seed):
    """x = dW[j] / db[j]; one logit, two and more, every label set, no box; with no gradient it moves."""
    rng = np.random.default_rng(seed)
    classes, features = int(rng.integers(2 if loss.class_labels else 1, 6)), int(rng.integers(1, 9))
    weight, bias = rng.integers(-8, 9, (classes, features)) / 8, rng.integers(-8, 9, classes) / 8
    network = ReluNetwork.from_arrays([weight], [bias])
    x = rng.integers(-8, 9, (1, features)) / 8
    y = rng.integers(0, classes, 1) if loss.class_labels else rng.integers(0, 2, (1, classes)) * 1.0
    kinds = ["one_hot", "known"]
    if loss is Loss.MSE:
        y = np.eye(classes)[rng.integers(0, classes, 1)]
        kinds.append("real")
    for labels in kinds:
        if loss.rational:
            given = Batch.of(x, y, network=network, loss=loss, labels=Labels(labels))
            tensors = gradient(network, given, loss, Reduction.MEAN).tensors
            if not any(array.any() for array in tensors.values()):
                assert (
                    certify(network, batch=(x, y), loss=loss.value, labels=labels).outcome
                    is not Outcome.UNIQUE
                )
                continue
        verdict = certified(network, (x, y), loss=loss.value, labels=labels, engine="exact")
        assert verdict.outcome is Outcome.UNIQUE


def test_one_sample_without_a_loss_or_without_biases_is_not_unique():
    """A hinge that is satisfied has no gradient; without biases the input keeps a scale until p tells."""
    network = ReluNetwork.from_arrays([[[1.0, 0.0], [0.0, 1.0]]], [[4.0, 0.0]])
    certify_as(Outcome.AMBIGUOUS, network, batch=([[1.0, 0.0]], [0]), loss="hinge")
    bare = ReluNetwork.from_arrays([[[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]]])
    assert ask(bare, ([[1.0, 0.5]], [0]), loss=Loss.CROSS_ENTROPY).facts == Facts()
    real = ask(bare, ([[1.0, 0.5]], [[1.0, 0.0, 0.25]]), labels=Labels.REAL)
    assert real.facts == Facts()


def test_without_biases_every_sample_keeps_a_scale_and_mse_still_decides():
    rng = np.random.default_rng(3)
    network = ReluNetwork.from_arrays([rng.integers(1, 9, (6, 3)), rng.integers(-9, 9, (5, 6))])
    x = rng.integers(1, 9, (2, 3))
    finding = ask(network, (x, [0, 1]))
    assert finding.facts.unique
    assert ask(network, (x, [0, 1]), loss=Loss.CROSS_ENTROPY).facts == Facts()


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"labels": Labels.REAL}, "real labels"),
        ({"budget": Budget(work=1)}, "work limit"),
    ],
)
def test_reasons_to_pass(options, note):
    network, (x, y) = one_region((0, 1, 1))
    batch = (x, np.eye(5)[y]) if "labels" in options else (x, y)
    finding = ask(network, batch, **options)
    assert finding.facts == Facts()
    assert note in finding.attempts[0].note


def test_a_continuum_and_dependent_loss_vectors_are_named():
    network, batch = one_region((0, 0, 0))
    assert "continuum" in ask(network, batch).attempts[0].note
    narrow, few = one_region((0, 1, 1), classes=2)
    assert "loss vectors of the" in ask(narrow, few).attempts[0].note


def system(equations, variables):
    forms = np.full((1, variables, variables + 1), Fraction(0), dtype=object)
    for k in range(variables):
        forms[0, k, k + 1] = Fraction(1)
    return Quadrics(forms=forms, free=tuple((0, k) for k in range(variables)), equations=tuple(equations))


def test_two_by_two_points_need_degree_three():
    """x^2 = x, y^2 = y: four corners of a square, affinely dependent."""
    square = system(
        [{(1, 1): Fraction(1), (0, 1): Fraction(-1)}, {(2, 2): Fraction(1), (0, 2): Fraction(-1)}], 2
    )
    corners = [(Fraction(a), Fraction(b)) for a in (0, 1) for b in (0, 1)]
    assert rank_at(square, 2) == columns_at(2, 2) - 4
    assert not settled_at(square, corners, 2)
    assert settled_at(square, corners, 3)
    assert not settled_at(square, corners[:3], 3)
    assert sorted(rational_points(square, 0)) == corners


def test_six_permutations_need_a_larger_degree():
    """Doubly stochastic 3 x 3 matrices with entries 0 or 1, in the four upper-left entries."""
    rows = {
        "a": [0, 1, 0, 0, 0],
        "b": [0, 0, 1, 0, 0],
        "c": [0, 0, 0, 1, 0],
        "d": [0, 0, 0, 0, 1],
        "1-a-b": [1, -1, -1, 0, 0],
        "1-c-d": [1, 0, 0, -1, -1],
        "1-a-c": [1, -1, 0, -1, 0],
        "1-b-d": [1, 0, -1, 0, -1],
        "last": [-1, 1, 1, 1, 1],
    }
    equations = []
    for form in rows.values():
        equation = {}
        for i in range(5):
            for j in range(i, 5):
                value = Fraction(form[i] * form[j] * (1 if i == j else 2) - (form[j] if i == 0 else 0))
                if i == j == 0:
                    value = Fraction(form[0] ** 2 - form[0])
                if value:
                    equation[i, j] = value
        equations.append(equation)
    matrices = [np.eye(3, dtype=int)[list(order)] for order in permutations(range(3))]
    points = [tuple(Fraction(int(v)) for v in m[:2, :2].reshape(-1)) for m in matrices]
    ideal = system(equations, 4)
    assert all(ideal.holds(p) for p in points)
    degrees = [d for d in (2, 3, 4, 5) if settled_at(ideal, points, d)]
    assert degrees
    assert degrees[0] > 2


def test_quadrics_translate_between_points_and_matrices():
    rng = np.random.default_rng(1)
    logits = np.array(
        [[Fraction(int(v), 4) for v in row] for row in rng.integers(-9, 9, (3, 4))], dtype=object
    )
    labels = np.eye(4)[[0, 0, 1]]
    found = quadrics(logits, labels, labels, affine=True)
    swap = np.array(
        [
            [Fraction(0), Fraction(1), Fraction(0)],
            [Fraction(1), Fraction(0), Fraction(0)],
            [Fraction(0), Fraction(0), Fraction(1)],
        ],
        dtype=object,
    )
    assert found.holds(found.point(swap))
    assert (found.matrix(found.point(swap)) == swap).all()
    wrong = np.array(
        [
            [Fraction(0), Fraction(0), Fraction(1)],
            [Fraction(1), Fraction(0), Fraction(0)],
            [Fraction(0), Fraction(1), Fraction(0)],
        ],
        dtype=object,
    )
    point = found.point(wrong)
    assert not found.holds(point) or not (found.matrix(point) == wrong).all()
    assert quadrics(logits, labels, np.eye(4)[[2, 2, 2]], affine=True) is None


def test_bounds_are_exact_and_absent_where_a_direction_is_open():
    triangle = np.array(
        [
            [Fraction(0), Fraction(1), Fraction(0)],
            [Fraction(0), Fraction(0), Fraction(1)],
            [Fraction(1), Fraction(-1), Fraction(-2)],
        ],
        dtype=object,
    )
    found = bounds(triangle)
    assert (found.low, found.high) == ((Fraction(0), Fraction(0)), (Fraction(1), Fraction(1, 2)))
    assert bounds(triangle[:2]) is None


def test_a_solution_that_no_box_proves_is_written_once(monkeypatch):
    """The search ends at it from several starts, with the samples in either order."""
    example = labels_not_told()
    found, tried = [], []
    solved, boxed = searched._solved, searched._boxed
    monkeypatch.setattr(searched, "_solved", lambda *given: found.append(solved(*given)) or found[-1])
    monkeypatch.setattr(searched, "_boxed", lambda *given: tried.append(given) or boxed(*given))
    verdict = certify(example.network, batch=example.batch, loss="mse", engine="residual")
    assert verdict.outcome is Outcome.UNKNOWN
    assert sum(x is not None for x in found) > len(tried) == 1
