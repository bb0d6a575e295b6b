"""E1 to E4, B1, P1, P2: every check confirms, and every check notices when its conclusion is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.exact.linalg import rank
from exan_verify.theorems.replay import replay
from exan_verify.theorems.running import run_statement
from exan_verify.theorems.statement import Example, Result, Standing, Statement
from exan_verify.theorems.statements.published import b1, e1, e2, e3, e4, p1, p2
from exan_verify.theorems.support import (
    counterexamples,
    label_ties,
    one_logit,
    p1_checks,
    p2_checks,
    two_classes,
)
from exan_verify.theorems.support.exclusive_layers import Layered, all_apart, apart, live
from exan_verify.theorems.support.laboratory import exact

MODULES = (e1, e2, e3, e4, b1, p1, p2)
STATEMENTS: tuple[Statement, ...] = tuple(s for module in MODULES for s in module.STATEMENTS)
EXAMPLES: tuple[Callable[[], Example], ...] = (
    counterexamples.published_insecure,
    counterexamples.published_insecure_smallest,
    counterexamples.two_samples_at_zero,
    counterexamples.vanishing_delta,
    counterexamples.vanishing_delta_beside_another,
    counterexamples.no_biases,
    counterexamples.zero_first_row,
    counterexamples.parallel_columns,
    counterexamples.parallel_logits,
    counterexamples.antisymmetric_head,
    counterexamples.one_shared_neuron,
    counterexamples.shared_three_classes,
    counterexamples.shared_softmax,
    counterexamples.pairs_of_three,
    counterexamples.exclusive_below,
    counterexamples.exclusive_above,
    counterexamples.six_shared_neurons,
    label_ties.labels_not_told,
    two_classes.published_two_classes,
    two_classes.affinely_independent,
)


@pytest.mark.campaign  # with the registry's own seed, test_registry.py runs them every day
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.name)
def test_every_check_confirms_the_standing(statement: Statement) -> None:
    report = run_statement(statement, seed=1)
    assert report.holds, [check.result.detail for check in report.checks]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.name)
def test_a_refuted_statement_has_an_example_and_every_statement_a_check(statement: Statement) -> None:
    assert statement.checks
    assert statement.grounds
    assert (statement.standing is Standing.REFUTED) <= (statement.example is not None)


@pytest.mark.parametrize("make", EXAMPLES, ids=lambda f: f.__name__)
def test_examples_are_confirmed_by_the_kernel(make: Callable[[], Example]) -> None:
    assert replay(make()).confirmed


def nudged(example: Example) -> Example:
    """The second batch with one input moved: the gradients differ."""
    assert example.second is not None
    inputs = exact(example.second.inputs)
    inputs[-1, 0] -= Fraction(5, 2)
    return replace(example, second=replace(example.second, inputs=inputs))


@pytest.mark.parametrize(
    ("make", "stated"),
    [
        (counterexamples.published_insecure, {}),
        (counterexamples.published_insecure_smallest, {}),
        (counterexamples.vanishing_delta, {"live_deltas": False}),
        (counterexamples.vanishing_delta_beside_another, {"live_deltas": False}),
        (counterexamples.no_biases, {"biases": False}),
        (counterexamples.two_samples_at_zero, {"strict": False}),
    ],
)
def test_a_counterexample_of_p1_must_be_one(make: Callable[[], Example], stated: dict[str, bool]) -> None:
    example = make()
    assert p1_checks.breaks_p1(example, **stated).holds
    assert not p1_checks.breaks_p1(nudged(example), **stated).holds
    assert not p1_checks.breaks_p1(replace(example, second=example.batch), **stated).holds
    for name in ("live_deltas", "strict", "biases"):
        other = {**stated, name: not stated.get(name, True)}
        assert not p1_checks.breaks_p1(example, **other).holds


def test_softmax_with_two_classes_breaks_p1() -> None:
    example = two_classes.published_two_classes()
    assert example.network.widths == (3, 12, 2)
    assert two_classes.breaks_two_classes(example).holds
    assert two_classes.breaks_two_classes(
        replace(example, question=replace(example.question, labels=Labels.KNOWN))
    ).holds
    assert not two_classes.breaks_two_classes(nudged(example)).holds
    assert not two_classes.breaks_two_classes(replace(example, second=example.batch)).holds
    assert not two_classes.breaks_two_classes(counterexamples.published_insecure()).holds


def test_affinely_independent_inputs_do_not_save_p1_under_softmax() -> None:
    example = two_classes.affinely_independent()
    assert example.network.widths == (5, 12, 2)
    assert two_classes.breaks_two_classes(example).holds
    assert not two_classes.breaks_two_classes(nudged(example)).holds
    ones = np.ones((6, 1), dtype=int)
    assert rank(exact(np.concatenate([example.batch.inputs, ones], axis=1))) == 6


def test_lifting_needs_labels_that_are_told() -> None:
    """The stored batch has every hypothesis of C1 at layer 1 but this one; at layer 2 the rank is missing."""
    example = label_ties.labels_not_told()
    layered = Layered(network=example.network, batch=example.batch)
    assert label_ties.lifts_at(layered, 1)
    assert not label_ties.labels_told(layered, 1)
    assert label_ties.labels_told(layered, 2)
    assert not label_ties.lifts_at(layered, 2)
    assert not p1_checks.kernel_says_unique(layered)


def test_lifting_is_checked_above_one_logit_and_one_layer() -> None:
    found = list(islice(label_ties.told_by_lifting(0), 12))
    assert any(layered.network.depth > 2 for layered in found)
    assert any(layered.network.classes > 1 for layered in found)


def test_every_reading_of_p2_has_an_entry_for_each_kind_of_labels() -> None:
    """Last, first and any layer against one-hot, known and real labels; cross_entropy has no real targets."""
    names = {statement.name for statement in p2.STATEMENTS}
    layers = {f"p2-{place}-layer{kind}" for place in ("last", "first") for kind in ("", "-known", "-real")}
    assert layers <= names
    assert {"p2-any-layer", "p2-known-labels", "p2-real-labels"} <= names
    assert {"p2-cross-entropy", "p2-cross-entropy-known"} <= names


def test_p1_needs_the_published_condition() -> None:
    """S5's second batch has the same gradient, but there is no exclusive neuron."""
    assert not p1_checks.breaks_p1(counterexamples.parallel_logits()).holds


def test_the_smallest_counterexample_has_two_live_neurons_per_sample() -> None:
    example = counterexamples.published_insecure_smallest()
    assert example.network.widths == (2, 8, 1)
    assert live(Layered(network=example.network, batch=example.batch)) == ((0, 1), (2, 3), (4, 5), (6, 7))


def test_listing_second_batches_finds_the_stored_one_and_no_other() -> None:
    example = counterexamples.published_insecure()
    assert p1_checks.only_two_batches(example).holds
    assert not p1_checks.only_two_batches(replace(example, second=example.batch)).holds


def test_few_samples_are_excluded_by_the_bias_equation_and_four_are_not() -> None:
    assert p1_checks.refuted_mixings(2).holds
    assert p1_checks.refuted_mixings(3).holds
    assert not p1_checks.refuted_mixings(3, sums=False).holds
    assert next(one_logit.feasible_mixings(4), None) is not None


def test_the_rank_condition_by_hand() -> None:
    """Unit weights, u_a = (1, 2): apart from (2, 1), not from the parallel (2, 4)."""
    unit, own = exact(np.eye(2, dtype=int)), exact([1, 2])
    assert apart(unit, unit, own, exact([2, 1]))
    assert not apart(unit, unit, own, exact([2, 4]))
    assert not apart(unit[:1], unit[1:], own[:1], own[1:])


def test_the_rank_condition_fails_where_p1_does() -> None:
    for make in (counterexamples.published_insecure, counterexamples.two_samples_at_zero):
        example = make()
        assert not all_apart(Layered(network=example.network, batch=example.batch))


def test_the_count_is_sharp() -> None:
    assert p1_checks.enough(2, 2, 2)
    assert not p1_checks.enough(3, 2, 2)
    assert not p1_checks.enough(1, 9, 9)
    assert not p1_checks.enough(4, 1, 9)
    assert p1_checks.enough(9, 5, 6)


@pytest.mark.parametrize("labels", [Labels.ONE_HOT, Labels.KNOWN])
def test_one_shared_neuron_refutes_p2_for_known_and_unknown_labels(labels: Labels) -> None:
    assert p2_checks.refutes_p2(counterexamples.one_shared_neuron(labels), "every").holds


@pytest.mark.parametrize("labels", list(Labels))
def test_three_samples_refute_p2_for_every_kind_of_labels(labels: Labels) -> None:
    assert p2_checks.refutes_p2(counterexamples.pairs_of_three(labels), "every").holds


@pytest.mark.parametrize("layers", ["first", "last", "every"])
def test_a_refutation_of_p2_needs_uniqueness_and_no_exclusive_neuron(layers: str) -> None:
    assert not p2_checks.refutes_p2(counterexamples.parallel_logits(), layers).holds
    assert not p2_checks.refutes_p2(counterexamples.parallel_columns(), layers).holds
    assert not p2_checks.refutes_p2(counterexamples.one_shared_neuron(), layers, strict=False).holds


def test_the_solver_must_say_unique() -> None:
    assert not p2_checks.solver_says_unique(counterexamples.parallel_logits()).holds
    assert not p2_checks.solver_says_unique(counterexamples.parallel_columns()).holds


def test_exclusive_neurons_do_not_change_the_factorisation() -> None:
    """P.7 holds with exclusive neurons too."""
    found = list(islice(p2_checks.factorisations(0), 20))
    assert any(np.any((f.features > 0).sum(axis=0) == 1) for f in found)
    assert all(map(p2_checks.another_admissible, found))


def test_columns_of_one_sample_are_no_counterexample_of_grouping() -> None:
    result: Result = e2.parallel_of_different_samples(counterexamples.published_insecure())
    assert result.holds, "one logit: all columns are parallel"
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 0], [0, 1]]], [[0, 0], [0, 0]])
    batch = Batch.of([[2], [-3]], [0, 0], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    example = Example(network=network, batch=batch, question=Question(loss=Loss.MSE), note="")
    assert not e2.parallel_of_different_samples(example).holds
    assert not e2.first_row_vanishes(example).holds


def test_the_heuristic_scale_is_right_for_three_equal_classes_only() -> None:
    for classes in (2, 3, 4):
        network = ReluNetwork.from_arrays([[[1]] * classes], [[0] * classes])
        batch = Batch.of([[0]], [0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
        error = b1.relative_error(b1.vector_of(network, batch), 0)
        assert bool(error.contains(0)) is (classes == 3)
