"""Every standing is the one that grounds and checks show; every check fails when its conclusion is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from random import Random
from typing import Any

import flint
import pytest

from exan_verify import Outcome
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.theorems import Example, Exhibit, Standing, registry, run_statement
from exan_verify.theorems import replay as replay_example
from exan_verify.theorems.as_text import example_lines
from exan_verify.theorems.standing import objections_to
from exan_verify.theorems.statements.ambiguous import s3, scale
from exan_verify.theorems.statements.determined import c1, c4, counting, exactness
from exan_verify.theorems.statements.published import b1
from exan_verify.theorems.support import counterexamples as stored
from exan_verify.theorems.support import p1_checks as published
from exan_verify.theorems.support import p2_checks as secure
from exan_verify.theorems.support import two_classes
from exan_verify.theorems.support.example_check import ExampleCheck
from exan_verify.theorems.support.exclusive_layers import Layered
from exan_verify.theorems.support.instance_check import InstanceCheck
from exan_verify.theorems.support.laboratory import exact
from exan_verify.theorems.support.layer_equations import random_layer
from exan_verify.theorems.support.macaulay import value
from tests.support.theorem_cases import silent

STATEMENTS = registry()
REFUTED = [name for name, statement in STATEMENTS.items() if statement.standing is Standing.REFUTED]
CHECKS = {(name, check.name): check for name, s in STATEMENTS.items() for check in s.checks}

STANDINGS: dict[Standing, str] = {
    Standing.PROVED: """
        e1 e2 e2-label e2-two-classes e3 e4 p1-apart p1-generic p1-generic-one-logit p1-lifting p1-one-logit
        p1-two-classes p1-two-samples reduction c1 c2 two-slopes lifting-degree-3 c4 counting-attained
        counting-formula downward exactness scale twins-softmax s0 s1 s2 s3 s4 s5-real-labels s5-two-samples
        narrow-first-layer narrow-release projected-transcript averaged-inputs masked-rows weights-alone
        sample-weights-invisible p2-factorisation p2-two-real p2-two-samples convolutions-determined
        convolutions-moved sums-determined norms-fold local-epoch p1-known-patterns p1-per-batch p2-exists
    """,
    Standing.BOUNDED: "counting-sizes s5-one-hot-counts",
    Standing.REFUTED: """
        e2-first-row e2-parallel b1-scale p1-no-biases p1-published p1-softmax-two-classes p1-vanishing-delta
        p1-zero-pre-activation c1-labels-not-told c1-upper-layer-alone c4-dependent-vectors counting-neurons
        exactness-of-deficits s1-one-dimension s3-single-point s5-always-unique narrow-first-layer-alone
        p2-any-layer p2-cross-entropy p2-cross-entropy-known p2-factorisation-support p2-first-layer
        p2-first-layer-known p2-first-layer-real p2-known-labels p2-last-layer p2-last-layer-known
        p2-last-layer-real p2-real-labels p2-zero-pre-activation
        regrouping-protects perturbing-exans-away-protects masking-exan-rows-protects residual-joint-system
        norms-fold-without-biases e2-ratio-groups p1-known-patterns-labels p1-sample p2-sample p2-generic
        two-slopes-downward leaky-no-exan-ambiguous
    """,
    Standing.OPEN: "counting-generic",
}
"""What is known of each statement. A line here changes only together with what it rests on."""

SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "b1-scale": ((1, 1, 2), 1),
    "c1-labels-not-told": ((1, 3, 1, 2), 2),
    "c1-upper-layer-alone": ((1, 1, 1, 1), 1),
    "counting-neurons": ((1, 3, 1), 2),
    "e2-first-row": ((1, 2, 2), 1),
    "e2-parallel": ((1, 2, 1), 2),
    "p2-generic": ((2, 9, 2), 3),
    "p2-sample": ((1, 2, 1), 2),
    "p1-sample": ((1, 2, 1), 2),
    "p1-known-patterns-labels": ((1, 3, 1, 2), 2),
    "e2-ratio-groups": ((1, 2, 2), 2),
    "exactness-of-deficits": ((1, 1, 2), 2),
    "leaky-no-exan-ambiguous": ((1, 4, 1), 2),
    "masking-exan-rows-protects": ((2, 9, 2), 3),
    "narrow-first-layer-alone": ((1, 1, 2), 2),
    "p1-no-biases": ((1, 2, 1), 1),
    "p1-published": ((2, 8, 1), 4),
    "p1-softmax-two-classes": ((3, 12, 2), 6),
    "p1-vanishing-delta": ((1, 2, 1), 1),
    "p1-zero-pre-activation": ((1, 4, 2), 2),
    "p2-any-layer": ((1, 1, 2), 2),
    "p2-cross-entropy": ((1, 2, 3), 2),
    "p2-cross-entropy-known": ((1, 2, 3), 2),
    "p2-factorisation-support": ((2, 6, 3), 3),
    "p2-first-layer": ((1, 1, 2), 2),
    "p2-first-layer-known": ((1, 1, 2), 2),
    "p2-first-layer-real": ((2, 3, 1), 3),
    "p2-known-labels": ((1, 1, 2), 2),
    "p2-last-layer": ((1, 1, 2), 2),
    "p2-last-layer-known": ((1, 1, 2), 2),
    "p2-last-layer-real": ((2, 3, 1), 3),
    "p2-real-labels": ((2, 3, 1), 3),
    "p2-zero-pre-activation": ((2, 2, 1), 2),
    "perturbing-exans-away-protects": ((1, 2, 2), 2),
    "regrouping-protects": ((1, 2, 2), 2),
    "s1-one-dimension": ((1, 1, 2), 2),
    "s3-single-point": ((1, 2, 1), 1),
    "s5-always-unique": ((1, 1, 1), 2),
    "two-slopes-downward": ((2, 2, 3, 1), 2),
}
"""Widths and number of samples of the stored counterexamples that are chains of layers."""


# ---- standings --------------------------------------------------------------------------------------------


def test_every_statement_stands_as_listed():
    listed = {name: standing for standing, names in STANDINGS.items() for name in names.split()}
    assert {name: statement.standing for name, statement in STATEMENTS.items()} == listed


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_other_standing_is_objected_to(name: str):
    statement = STATEMENTS[name]
    assert objections_to(statement) == ()
    for other in set(Standing) - {statement.standing}:
        assert objections_to(replace(statement, standing=other)), other


@pytest.mark.parametrize("name", ["p1-published", "e1", "p2-known-labels"])
def test_a_statement_of_another_standing_is_not_confirmed(name: str):
    statement = replace(STATEMENTS[name], checks=STATEMENTS[name].checks[:1])
    assert run_statement(statement).holds
    for other in set(Standing) - {statement.standing}:
        assert not run_statement(replace(statement, standing=other)).holds


# ---- what is printed refutes ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUTED)
def test_the_printed_example_refutes(name: str):
    """Its replay is confirmed, by an outcome against the conclusion or by what it shows."""
    statement = STATEMENTS[name]
    assert statement.example is not None
    example = statement.example()
    found = replay_example(example)
    assert found.confirmed is True, found.says
    against = {
        "The batch is UNIQUE.": Outcome.AMBIGUOUS,
        "The batch is not UNIQUE.": Outcome.UNIQUE,
        "The batch is AMBIGUOUS.": Outcome.UNIQUE,
    }.get(statement.conclusion)
    if isinstance(example, Example) and example.shown is None:
        assert found.outcome is against, "the outcome must refute where nothing else does"
    if found.outcome is not None and against is not None:
        assert found.outcome is against


def test_the_lines_of_a_system_are_true():
    example = c4.exhibit()
    assert isinstance(example, Exhibit)
    *lines, last = example_lines(example)
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    assert eval(last, names) is True


def test_a_system_that_refutes_nothing_is_noticed():
    assert c4.seen_at(c4.circle()).holds
    assert not c4.seen_at(replace(c4.line(), other=(Fraction(0), Fraction(1)))).holds
    assert not c4.seen_at(replace(c4.line(), other=c4.line().known[0])).holds
    assert not c4.seen_at(replace(c4.line(), known=c4.line().known[:1])).holds


def moved_logit(example: Example) -> Example:
    """61 becomes 60: no residue agrees any more."""
    network = ReluNetwork.from_arrays([[[1]], [[60], [0]]], [[0], [0, 0]])
    return replace(example, network=network)


def one_shared(example: Example) -> Example:
    """The second neuron is active for both samples."""
    network = ReluNetwork.from_arrays([[[1], [2], [-1]], [[1, 1, 1]]], [[0, 5, 0], [0]])
    return replace(example, network=network)


def three_equal_classes(_example: Example) -> Example:
    """The guess is right for p_y = 1/3."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [1], [1]]], [[0], [0, 0, 0]])
    batch = Batch.of([[1]], [0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    return Example(network=network, batch=batch, question=Question(loss=Loss.CROSS_ENTROPY), note="")


@pytest.mark.parametrize(
    ("make", "broken"),
    [
        (exactness.confused_modulo_p, moved_logit),
        (counting.one_sided_network, one_shared),
        (b1.equal_logits, three_equal_classes),
        (s3.determined_point, s3.room_to_move),
        (c1.dead_below, lambda e: replace(e, second=e.batch)),
        (c1.upper_layer_alone, lambda e: replace(e, second=e.batch)),
        (c1.exchanged_labels, lambda e: replace(e, second=e.batch)),
    ],
)
def test_what_an_example_shows_can_fail(make: Callable[[], Example], broken: Callable[[Example], Example]):
    example = make()
    assert example.shown is not None
    assert example.shown(example).holds
    assert not example.shown(broken(example)).holds


def test_the_counted_example_has_rank_two():
    layer = counting.layer_of(counting.one_sided_network())
    assert (layer.rank(), counting.needed(layer.samples, layer.extra)) == (2, 3)


# ---- sizes ------------------------------------------------------------------------------------------------


def test_stored_counterexamples_have_the_listed_sizes():
    examples = {name: STATEMENTS[name].example for name in REFUTED}
    made = {name: make() for name, make in examples.items() if make is not None}
    sizes = {n: (e.network.widths, e.batch.size) for n, e in made.items() if isinstance(e, Example)}
    assert sizes == SIZES
    assert set(made) - set(sizes) == {
        "c4-dependent-vectors",
        "residual-joint-system",
        "norms-fold-without-biases",
    }


@pytest.mark.parametrize("name", REFUTED)
def test_a_counterexample_says_whether_a_smaller_one_is_possible(name: str):
    assert STATEMENTS[name].smallest


def test_one_sample_never_misses_the_generic_rank():
    for extra in range(1, 6):
        layer = random_layer(Random(f"one sample/{extra}"), exact([[1]] * extra), extra, top=50)
        assert layer.rank() == counting.needed(1, extra)


def test_a_dead_neuron_leaves_room():
    """w x + b <= 0 holds at x - w as well."""
    for w, b, x in ((w, b, x) for w in range(-2, 3) for b in range(-2, 3) for x in range(-2, 3)):
        assert w * x + b > 0 or w * (x - (w or 1)) + b <= 0


def test_one_unknown_is_never_enough_for_a_dependent_system():
    """All roots of one polynomial but some: the rank N - k is missed."""
    roots = [Fraction(r) for r in (-1, 0, 2)]
    polynomial = {(1,): Fraction(-2), (2,): Fraction(-1), (3,): Fraction(1)}
    assert all(sum(v * value(m, (r,)) for m, v in polynomial.items()) == 0 for r in roots)
    for count, degree in ((c, d) for c in (1, 2) for d in (3, 4)):
        for known in combinations([(r,) for r in roots], count):
            system = c4.System(variables=1, equations=(polynomial,), known=known, degree=degree)
            assert not system.rank_reached


# ---- every check can fail ---------------------------------------------------------------------------------


def one_sample_each(_example: Example) -> Example:
    """Two neurons, one for each sample, columns not parallel; no zero row."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 0], [0, 1]]], [[0, 0], [0, 0]])
    batch = Batch.of([[2], [-3]], [0, 0], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    return Example(network=network, batch=batch, question=Question(loss=Loss.MSE), note="")


def breakers(example: Example) -> list[Example]:
    """Examples in place of this one at which the conclusion is false."""
    if example.second is not None:
        inputs = exact(example.second.inputs)
        inputs[-1, 0] -= Fraction(5, 2)
        moved = replace(example.second, inputs=inputs)
        return [replace(example, second=example.batch), replace(example, second=moved)]
    return [stored.parallel_logits(), stored.parallel_columns()]


SLOW = {
    ("p1-published", "all second batches"),
    ("p1-one-logit", "three samples"),
    ("p1-generic-one-logit", "four samples"),
}
"""In the campaign only."""


def marked(keys: Iterable[tuple[str, str]]) -> list[Any]:
    """Test parameters, the slow ones for the campaign."""
    return [
        pytest.param(key, marks=pytest.mark.campaign if key in SLOW else (), id="/".join(key)) for key in keys
    ]


BREAKERS: dict[tuple[str, str], Callable[[Example], Example]] = {
    ("counting-neurons", "its example"): one_shared,
    ("e2-first-row", "first row"): one_sample_each,
    ("e2-parallel", "parallel"): one_sample_each,
    ("e2-ratio-groups", "mixture"): one_sample_each,
    ("exactness-of-deficits", "loss vectors"): moved_logit,
}

JUDGED = {key: check for key, check in CHECKS.items() if isinstance(check.run, ExampleCheck)}


@pytest.mark.parametrize("key", marked(JUDGED))
def test_a_check_of_an_example_fails_at_another(key: tuple[str, str]):
    run = JUDGED[key].run
    assert isinstance(run, ExampleCheck)
    example = run.example()
    others = [BREAKERS[key](example)] if key in BREAKERS else breakers(example)
    for other in others:
        assert not replace(run, example=lambda other=other: other)(silent, 0).holds


def zero_error(*_: Any) -> Any:
    return flint.arb(0)


def apart_example() -> Example:
    layer = next(iter(published.apart_layers(0)))
    return Example(network=layer.network, batch=layer.batch, question=layer.question, note="")


def exclusive_crowd(*_: Any) -> Layered:
    example = stored.parallel_columns()
    return Layered(network=example.network, batch=example.batch)


BREAKS: dict[tuple[str, str], tuple[Any, str, Any]] = {
    ("b1-scale", "equal logits"): (b1, "relative_error", zero_error),
    ("b1-scale", "random logits"): (b1, "relative_error", zero_error),
    ("counting-generic", "random-tables"): (counting, "reaches", lambda _layer: False),
    ("p1-apart", "counterexamples"): (published, "COUNTEREXAMPLES", (apart_example,)),
    ("p1-generic", "sizes"): (published, "enough", lambda *_: True),
    ("p1-one-logit", "all mixings"): (published, "feasible_mixings", lambda *_, **__: iter([1])),
    ("p1-softmax-two-classes", "four samples"): (two_classes, "balance", lambda *_: flint.arb(1)),
    ("p1-two-classes", "one dimension"): (published, "generic_pair", lambda *_: True),
    ("p2-cross-entropy", "sixteen samples"): (secure, "crowd", exclusive_crowd),
    ("twins-softmax", "lemma"): (scale.twins, "steps", lambda: [scale.twins.Step("1 = 2", False)]),
}
"""What a check that is neither a law nor of one example computes with, replaced by what negates it."""


def test_every_check_has_a_test_that_breaks_it():
    plain = {key for key, check in CHECKS.items() if not isinstance(check.run, (InstanceCheck, ExampleCheck))}
    assert plain == set(BREAKS)
    assert set(BREAKERS) <= set(JUDGED)
    assert {name for name, _ in CHECKS} == set(STATEMENTS)


@pytest.mark.parametrize("key", BREAKS, ids="/".join)
def test_a_check_fails_when_its_conclusion_is_negated(key: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    module, attribute, replacement = BREAKS[key]
    monkeypatch.setattr(module, attribute, replacement)
    assert not CHECKS[key].run(silent, 0).holds


LAWS = {key: check for key, check in CHECKS.items() if isinstance(check.run, InstanceCheck)}


@pytest.mark.parametrize("key", marked(k for k in LAWS if k[0][:2] in ("e1", "e2", "e3", "e4", "p1", "p2")))
def test_a_law_fails_when_its_conclusion_is_negated_or_blind(key: tuple[str, str]):
    law = LAWS[key].run
    assert isinstance(law, InstanceCheck)
    once = replace(law, count=1)
    assert once(silent, 1).holds
    assert not replace(once, conclusion=lambda instance: not law.conclusion(instance))(silent, 1).holds
    assert "cannot tell" in replace(once, conclusion=lambda _instance: True)(silent, 1).detail
