"""One's own claims: situations, traced numbers, searches that refute what is false, and bad input."""

from __future__ import annotations

import json
import random
import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from exan_verify import Box, Outcome, ReluNetwork, check
from exan_verify.cli import main
from exan_verify.cli.claims import describe
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.core import budget as deadline
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.errors import BudgetExhausted, FileError, InputError
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exclusivity import exclusivity
from exan_verify.smt.question.terms import less
from exan_verify.smt.solvers.run import Worker
from exan_verify.testing.strategies import batches, networks
from exan_verify.theorems import (
    Claim,
    ClaimError,
    Situation,
    Sizes,
    Undecided,
    all_determined,
    ambiguous,
    load_file,
    search,
    unique,
)
from exan_verify.theorems.claims.claim import Judgement, judge, words
from exan_verify.theorems.claims.searching import drawn as drawn_module
from exan_verify.theorems.claims.searching import explore as explore_module
from exan_verify.theorems.claims.searching import search as search_module
from exan_verify.theorems.claims.searching import tally
from exan_verify.theorems.claims.searching.engine_cases import try_instances
from exan_verify.theorems.claims.searching.explore import Exploration, Limits, explore
from exan_verify.theorems.claims.searching.found import Stage, candidate_size, verified
from exan_verify.theorems.claims.searching.near import walk_near
from exan_verify.theorems.claims.searching.search import Searched
from exan_verify.theorems.claims.searching.shrinking import minimal
from exan_verify.theorems.claims.searching.solved import all_inputs, all_weights
from exan_verify.theorems.claims.searching.tally import Tally
from exan_verify.theorems.claims.searching.unknowns import is_second_batch, label_pairs
from exan_verify.theorems.claims.tracing import Path as TracedPath
from exan_verify.theorems.claims.tracing import all_hold, unknown
from tests.conftest import examples
from tests.support.cases import batch_of
from tests.support.counterexamples import parallel_logits, published_insecure
from tests.support.theorem_cases import silent

F = Fraction
TINY = Sizes(inputs=(1, 1), hidden=((1, 2),), logits=(1, 1), samples=(1, 2))


def rows_give_samples(s: Situation) -> bool:
    """E1: the row of an exclusive neuron is its sample"""
    known = [(j, s.exclusive(0, j)) for j in range(s.widths[1])]
    return all(
        s.dW[0][j, i] / s.db[0][j] == s.x[m, i]
        for j, m in known
        if m is not None and s.deltas[0][j, m] != 0
        for i in range(s.widths[0])
    )


def two_each(s: Situation) -> bool:
    """two exclusive neurons each"""
    return all(count >= 2 for count in s.exans[-1])


def one_each(s: Situation) -> bool:
    """an exclusive neuron each"""
    return all(count >= 1 for count in s.exans[-1])


def no_exclusive_neuron(s: Situation) -> bool:
    """no neuron is exclusive"""
    return not any(count for layer in s.exans for count in layer)


# ---- situations -------------------------------------------------------------------------------------------


@examples(40)
@given(st.data(), st.sampled_from([Loss.MSE, Loss.HINGE]), st.sampled_from(list(Reduction)))
def test_a_situation_agrees_with_the_exact_path(data: st.DataObject, loss: Loss, reduction: Reduction):
    network = data.draw(networks(max_depth=3, max_width=4, max_classes=3, biases=None))
    if loss is Loss.HINGE and network.classes == 1:
        return
    batch = data.draw(batches(network, loss, max_samples=3))
    situation = Situation.of(network, batch, Question(loss=loss, reduction=reduction))
    tensors = gradient(network, batch, loss, reduction).tensors
    mine: list[Any] = []
    for i in range(situation.depth):
        mine.append(situation.dW[i])
        mine += [situation.db[i]] if network.has_bias else []
    for theirs, own in zip(tensors.values(), mine, strict=True):
        assert (theirs == own).all()
    state = exclusivity(network, batch, loss=loss)
    assert (situation.exans, situation.groups) == (state.counts, state.groups)
    assert (situation.widths, situation.samples) == (network.widths, batch.size)


def test_a_situation_rebuilds_its_records():
    case = published_insecure()
    given_records = Situation.of(case.network, case.batch, Question(loss=Loss.MSE))
    s = Situation(
        given_records.weights, given_records.biases, given_records.x, given_records.y, Question(loss=Loss.MSE)
    )
    assert (s.network, s.batch) == (case.network, case.batch)
    assert s.exans == ((2, 3, 2, 2),)
    assert s.exclusive(0, 0) == 0
    assert s.exclusive(0, 8) == 1
    assert s.loss_vectors.tolist() == [[F(1, 2), F(1, 8), F(1, 8), F(1, 4)]]


def test_softmax_has_no_rational_deltas_but_says_which_are_not_zero():
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, 2], [3, 4]]], [[1, 1], [0, 0]])
    batch = Batch.of([[2], [-3]], [0, 1], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    s = Situation.of(network, batch, Question(loss=Loss.CROSS_ENTROPY))
    assert s.nonzero_deltas[0].tolist() == [[True, False], [False, True]]
    with pytest.raises(InputError, match="the loss vectors of cross_entropy are not rational"):
        _ = s.deltas
    tied = ReluNetwork.from_arrays([[[1]], [[1], [1]]], [[1], [0, 0]])
    s = Situation.of(tied, batch, Question(loss=Loss.CROSS_ENTROPY))
    with pytest.raises(Undecided, match="whether a delta is zero"):
        _ = s.nonzero_deltas


def test_an_undecided_outcome_is_never_an_answer():
    """The zero pre-activation example: no exact engine decides it, so neither claim fails there."""
    network = ReluNetwork.from_arrays([[[1, 0], [-1, 1], [-1, -1]], [[1, 1, 1]]], [[0, 1, 1], [0]])
    batch = Batch.of([[1, 0], [2, 0]], [0, 0], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    situation = Situation.of(network, batch, Question(loss=Loss.MSE))
    for conclusion in (unique, ambiguous, all_determined):
        claim = Claim("open", hypotheses=[], conclusion=conclusion)
        assert judge(claim, situation) is Judgement.UNDECIDED
        claim = Claim("open", hypotheses=[conclusion], conclusion=lambda _: False)
        assert judge(claim, situation) is Judgement.OUTSIDE


# ---- traced numbers ---------------------------------------------------------------------------------------


@examples(60)
@given(st.lists(st.fractions(-4, 4, max_denominator=6), min_size=3, max_size=3), st.integers(0, 10**6))
def test_traced_arithmetic_is_that_of_its_polynomials(values: list[Fraction], seed: int):
    names = ("a", "b", "c")
    point = dict(zip(names, values, strict=True))
    path = TracedPath()
    traced = [unknown(name, point[name], path) for name in names]
    rng = random.Random(seed)
    found, plain = traced[0], values[0]
    for _ in range(5):
        k = rng.randrange(3)
        operation = rng.choice("+-*/r")
        if operation in "/r" and (values[k] == 0 or plain == 0):
            continue
        found, plain = {
            "+": lambda f, p, k=k: (f + traced[k], p + values[k]),
            "-": lambda f, p, k=k: (3 - f - traced[k], 3 - p - values[k]),
            "*": lambda f, p, k=k: (f * traced[k], p * values[k]),
            "/": lambda f, p, k=k: (f / traced[k], p / values[k]),
            "r": lambda f, p, k=k: (F(1, 2) * traced[k] / f, F(1, 2) * values[k] / p),
        }[operation](found, plain)
    assert found.value == plain
    assert found.above.at(point) / found.below.at(point) == plain
    assert found.below.at(point) > 0
    for other in (F(0), plain, plain + 1):
        assert [
            found < other,
            found <= other,
            found == other,
            found > other,
            found >= other,
            found != other,
        ] == [
            plain < other,
            plain <= other,
            plain == other,
            plain > other,
            plain >= other,
            plain != other,
        ]
        assert (abs(found) == other) is (abs(plain) == other)
    assert all_hold(path.conditions, point), "what is recorded holds at the point"
    assert not path.opaque


def test_every_comparison_is_recorded_with_its_answer():
    path = TracedPath()
    a, b = unknown("a", F(1), path), unknown("b", F(3), path)
    assert a < b
    assert not a * a > b
    assert a / b != 1
    assert len(path.conditions) == 5, "two comparisons, b not 0, b > 0, a not b"
    assert all_hold(path.conditions, {"a": F(1), "b": F(3)})
    assert not all_hold(path.conditions, {"a": F(2), "b": F(3)})
    assert not all_hold(path.conditions, {"a": F(-4), "b": F(-3)})


@pytest.mark.parametrize("look", [hash, float, int, lambda number: number.exact()])
def test_what_loses_the_polynomial_marks_the_path(look: Any):
    path = TracedPath()
    look(unknown("a", F(2), path))
    assert path.opaque


def test_division_by_a_traced_zero_raises_as_usual():
    path = TracedPath()
    with pytest.raises(ZeroDivisionError):
        _ = 1 / unknown("a", F(0), path)


def test_exploring_reaches_every_branch_and_knows_when_it_is_done():
    def program(point: Any, path: TracedPath) -> Judgement:
        a, b = unknown("a", point["a"], path), unknown("b", point["b"], path)
        if a * a + b * b < 1:
            return Judgement.HOLDS
        if a == 1000 * b:
            return Judgement.FAILS
        return Judgement.OUTSIDE if a > 7 and b > a * a * a else Judgement.HOLDS

    found = Exploration()
    with Worker() as worker:
        runs = list(explore(program, {"a": F(0), "b": F(0)}, Limits(), worker, found))
    assert [judged for _, _, judged in runs].count(Judgement.FAILS) == 1
    assert [judged for _, _, judged in runs].count(Judgement.OUTSIDE) == 1
    assert found.complete
    assert found.runs[Judgement.HOLDS] == 3, "inside; a at most 7; b at most a^3"


def test_a_question_whose_only_answers_are_irrational_stays_open():
    def program(point: Any, path: TracedPath) -> Judgement:
        a = unknown("a", point["a"], path)
        return Judgement.FAILS if a * a == 2 else Judgement.HOLDS

    found = Exploration()
    with Worker() as worker:
        runs = list(explore(program, {"a": F(0)}, Limits(), worker, found))
    assert [judged for _, _, judged in runs] == [Judgement.HOLDS]
    assert (found.open, found.complete) == (1, False)


def test_an_exploration_that_was_cut_short_is_not_complete():
    def program(point: Any, path: TracedPath) -> Judgement:
        a = unknown("a", point["a"], path)
        for k in range(20):
            path.decide(less(a.above, k), a.value < k)
        return Judgement.HOLDS

    for limits in (Limits(runs=3), Limits(queries=3), Limits(deadline=0.0)):
        found = Exploration()
        with Worker() as worker:
            list(explore(program, {"a": F(0)}, limits, worker, found))
        assert not found.complete


# ---- searches ---------------------------------------------------------------------------------------------


def test_a_false_claim_is_refuted_by_a_minimal_example():
    claim = Claim("p1", hypotheses=[two_each], conclusion=unique, sizes=Sizes(hidden=((1, 4),)))
    result = search(claim, effort=60)
    assert result.refuted
    found = result.counterexample
    assert found is not None
    assert found.replay.confirmed is True
    assert found.example.network.widths == (1, 2, 1), "two neurons, which two exclusive ones need"
    assert found.example.batch.size == 1
    assert found.replay.certificate is not None
    claimed = check(found.replay.certificate, found.example.network, batch=found.example.batch)
    assert claimed.outcome is Outcome.AMBIGUOUS
    again = search(claim, effort=60).counterexample
    assert again is not None
    assert again.example == found.example, "same seed, same counterexample"


class Open(Tally):
    """Engines that decide nothing of what is admitted: only a solver can find a second batch then."""

    def judge(self, network: ReluNetwork, batch: Batch) -> Judgement:
        judged = Tally.judge(self, network, batch)
        return judged if judged is Judgement.OUTSIDE else Judgement.UNDECIDED


@pytest.mark.parametrize("kind", [Tally, Open])
def test_a_counterexample_shrinks_until_nothing_smaller_is_one(kind: type[Tally]):
    """A neuron that is constant can go into the bias, another batch can take the first one's place."""
    sizes = Sizes(inputs=(1, 2), hidden=((1, 4),), logits=(1, 2), samples=(1, 2))
    claim = Claim("p1", hypotheses=[two_each], conclusion=unique, sizes=sizes)
    network = ReluNetwork.from_arrays([[[0], [-2], [1]], [[-2, 2, -2]]], [[1, 0, 2], [-2]])
    batch = batch_of(network, [[F(-4, 3)]], [0])
    second = batch_of(network, [[F(-3, 2)]], [1])
    tally = kind(claim, "all inputs", 100, silent)
    found = minimal(tally, (network, batch), second, questions=100, seed=0)
    assert found is not None
    example = found.example
    assert (example.network.widths, example.batch.size) == ((1, 2, 1), 1)
    assert found.replay.confirmed is True
    assert found.replay.equal_gradients is True
    assert "made smaller step by step" in example.note
    again = minimal(tally, (example.network, example.batch), example.second, questions=100, seed=0)
    assert again is not None
    assert again.example.network == example.network, "nothing smaller is one step away"
    assert again.example.batch == example.batch


def test_without_questions_a_counterexample_stays_as_it_is_where_engines_say_nothing():
    claim = Claim("p1", hypotheses=[two_each], conclusion=unique)
    case = published_insecure()
    assert case.second is not None
    tally = Open(claim, "all inputs", 100, silent)
    found = minimal(tally, (case.network, case.batch), case.second, questions=0, seed=0)
    assert found is not None
    assert (found.example.network, found.example.batch) == (case.network, case.batch)
    assert found.replay.confirmed is True


def test_a_claim_of_safety_is_refuted_by_a_certificate_of_uniqueness():
    sizes = Sizes(samples=(2, 2), logits=(2, 3))
    claim = Claim("p2", hypotheses=[no_exclusive_neuron], conclusion=ambiguous, sizes=sizes)
    found = search(claim, effort=4).counterexample
    assert found is not None
    assert found.example.outcome is Outcome.UNIQUE
    assert found.replay.outcome is Outcome.UNIQUE
    assert "the kernel accepts the certificate" in found.replay.says[0]


def test_a_true_claim_survives_and_is_never_called_true():
    claim = Claim("e1", hypotheses=[], conclusion=rows_give_samples, sizes=TINY)
    result = search(claim, effort=20)
    assert not result.refuted
    assert [stage.name for stage in result.stages] == ["drawn", "engines", "all inputs", "all weights"]
    assert "not a proof" in result.says
    assert "true" not in result.says.lower().split()
    drawn, _, inputs, weights = result.stages
    assert drawn.counts["situations"] == drawn.counts["within the hypotheses"] > 20
    for stage in (inputs, weights):
        assert stage.counts["cases covered completely"] > 0
        assert stage.counts["paths"] > stage.counts["cases"]


def test_arithmetic_claims_are_refuted_too():
    """A claim that no engine is needed for: the bias gradient of an active neuron is not zero."""

    def gradient_shows_activity(s: Situation) -> bool:
        return all(s.db[0][j] != 0 for j in range(s.widths[1]) if s.patterns[0][j].any())

    claim = Claim("db", hypotheses=[], conclusion=gradient_shows_activity, sizes=TINY)
    found = search(claim, effort=50).counterexample
    assert found is not None
    assert found.replay.confirmed is None
    assert (
        judge(claim, Situation.of(found.example.network, found.example.batch, claim.question))
        is Judgement.FAILS
    )


def test_a_solver_finds_a_needle_in_all_inputs():
    """A network and a claim that fails at one input alone, which no drawing hits."""
    network = ReluNetwork.from_arrays([[[1]], [[1]]], [[0], [0]])

    def not_that_one(s: Situation) -> bool:
        return s.samples != 1 or s.x[0, 0] * 997 != 12345

    claim = Claim("needle", hypotheses=[], conclusion=not_that_one, sizes=TINY, networks=[network])
    found = search(claim, effort=20)
    assert found.stages[-1].name == "all inputs"
    assert found.counterexample is not None
    assert found.counterexample.example.batch.x == ((F(12345, 997),),)
    assert found.counterexample.example.network == network


def test_all_inputs_of_a_fixed_network_find_its_second_batch():
    """S5's network: x = 0, 1 has the gradient of 1/4, 3/4; a solver finds such a pair from nothing."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[F(1, 3), F(-1, 3)]]], [[1, 2], [F(1, 5)]])
    sizes = Sizes(inputs=(1, 1), hidden=((2, 2),), logits=(1, 1), samples=(2, 2))
    claim = Claim("s5", hypotheses=[], conclusion=unique, sizes=sizes, networks=[network])
    solved = all_inputs(claim, [network], Limits(runs=100, queries=600), silent)
    assert solved.counterexample is not None
    assert solved.counterexample.replay.equal_gradients is True


def test_all_weights_find_a_network_with_a_second_batch():
    sizes = Sizes(inputs=(1, 1), hidden=((2, 2),), logits=(1, 1), samples=(2, 2))
    claim = Claim("weights", hypotheses=[one_each], conclusion=unique, sizes=sizes)
    solved = all_weights(claim, Limits(runs=100, queries=200), silent)
    assert solved.counterexample is not None
    assert solved.counterexample.replay.equal_gradients is True
    assert one_each(
        Situation.of(
            solved.counterexample.example.network, solved.counterexample.example.batch, claim.question
        )
    )


def test_unique_for_all_inputs_is_covered_where_it_is_true():
    """One sample, f = x + 1 where it is active: only dead and silent samples have a second batch."""

    def alive(s: Situation) -> bool:
        return bool(s.patterns[0].all()) and s.loss_vectors[0, 0] != 0

    network = ReluNetwork.from_arrays([[[1]], [[1]]], [[1], [0]])
    sizes = Sizes(inputs=(1, 1), hidden=((1, 1),), logits=(1, 1), samples=(1, 1))
    claim = Claim("one", hypotheses=[alive], conclusion=unique, sizes=sizes, networks=[network])
    solved = all_inputs(claim, [network], Limits(), silent)
    assert solved.counterexample is None
    assert solved.complete == solved.begun == 4, "two labels, and two pairs of different ones"
    everywhere = Claim("all", hypotheses=[], conclusion=unique, sizes=sizes, networks=[network])
    assert all_inputs(everywhere, [network], Limits(), silent).counterexample is not None


def test_a_second_batch_has_the_whole_gradient_and_other_samples():
    case = parallel_logits()
    assert case.second is not None
    network, first, other = case.network, case.batch, case.second

    def second(a: Batch, b: Batch, net: ReluNetwork = network) -> bool:
        """Whether b is a second batch beside a, its inputs traced at their values."""
        path = TracedPath()
        left, right = (Situation.of(net, batch, Question(loss=Loss.MSE)) for batch in (a, b))
        point = {f"u{m}": right.x[m, 0] for m in range(right.samples)}
        traced = np.array([[unknown(name, value, path)] for name, value in point.items()], dtype=object)
        moved = Situation(right.weights, right.biases, traced, right.y, Question(loss=Loss.MSE))
        return all_hold([is_second_batch(left, moved)], point)

    assert second(first, other)
    assert not second(first, first)
    assert not second(first, first.select([1, 0])), "the same samples in another order"
    assert not second(first, Batch(inputs=other.inputs + 1, labels=other.labels))
    dead = ReluNetwork.from_arrays([[[1]], [[1]]], [[0], [0]])
    batches = [
        Batch.of([[x]], [y], network=dead, loss=Loss.MSE, labels=Labels.ONE_HOT)
        for x, y in ((-5, 0), (-6, 1), (-6, 0))
    ]
    assert not second(batches[0], batches[1], dead), "only the bias gradient tells their labels apart"
    assert second(batches[0], batches[2], dead)


def test_a_domain_bounds_the_search():
    sizes = Sizes(inputs=(1, 1), hidden=((1, 2),), logits=(1, 1), samples=(1, 1))

    def bounded(s: Situation) -> bool:
        return all(0 <= v <= 1 for v in s.x.reshape(-1))

    inside = Claim("in", hypotheses=[], conclusion=bounded, sizes=sizes, domain=Box(0, 1))
    assert not search(inside, effort=20).refuted
    outside = Claim("out", hypotheses=[], conclusion=bounded, sizes=sizes, domain=Box(0, 2))
    assert search(outside, effort=20).refuted


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "hinge"])
def test_every_loss_can_be_searched(loss: str):
    sizes = Sizes(inputs=(1, 1), hidden=((1, 2),), logits=(2, 2), samples=(1, 1))
    claim = Claim(
        "dead", hypotheses=[], conclusion=lambda s: bool(s.patterns[0].any()), loss=loss, sizes=sizes
    )
    assert search(claim, effort=10).refuted
    fine = Claim("fine", hypotheses=[], conclusion=lambda s: s.samples == 1, loss=loss, sizes=sizes)
    result = search(fine, effort=10)
    assert not result.refuted
    polynomial = loss == "hinge"
    assert ("not polynomial" in result.stages[-1].says) is not polynomial


def test_label_pairs_are_multisets_and_known_labels_stay():
    claim = Claim("labels", hypotheses=[], conclusion=unique, sizes=TINY)
    pairs = list(label_pairs(claim, 1, 2))
    assert len(pairs) == 9
    assert all(a is b for a, b in pairs[:3])
    known = Claim("labels", hypotheses=[], conclusion=unique, labels="known", sizes=TINY)
    assert len(list(label_pairs(known, 1, 2))) == 3


def test_nothing_that_fails_no_hypothesis_is_shown():
    """``verified`` evaluates anew: a batch outside the hypotheses, or where the conclusion holds, is none."""
    case = published_insecure()
    alone = Claim("alone", hypotheses=[lambda s: s.samples == 1], conclusion=unique)
    assert verified(alone, case.network, case.batch, "", case.second) is None
    p1 = Claim("p1", hypotheses=[two_each], conclusion=unique)
    assert verified(p1, case.network, case.batch, "", case.second) is not None
    assert verified(p1, case.network, case.batch, "", case.batch.select([1, 0, 2, 3])) is None
    assert candidate_size(case.network, case.batch)[0] == 3 + 9 + 1 + 4


def test_the_budget_ends_a_search_early():
    claim = Claim("slow", hypotheses=[], conclusion=rows_give_samples)
    result = search(claim, effort=100_000, budget=0.5)
    assert not result.refuted
    assert result.stages[0].looked_at < 100_000
    for bad in ({"effort": 0}, {"budget": 0.0}):
        with pytest.raises(InputError, match="give positive numbers"):
            search(claim, **bad)  # type: ignore[arg-type]


def test_wherever_the_time_runs_out_a_search_ends(monkeypatch: pytest.MonkeyPatch):
    """The time is over at the n-th look at the clock: the stages end, and say what they looked at."""

    class Clock:
        def __init__(self, looks: int) -> None:
            self.left = looks

        def monotonic(self) -> float:
            self.left -= 1
            return 0.0 if self.left >= 0 else 1e9

        perf_counter = staticmethod(time.perf_counter)

    claim = Claim("rows", hypotheses=[], conclusion=rows_give_samples)
    for looks in (1, 2, 5, 30, 200):
        clock = Clock(looks)
        for module in (search_module, tally, explore_module, deadline):
            monkeypatch.setattr(module, "time", clock)
        result = search(claim, effort=1000, budget=60)
        assert not result.refuted
        assert sum(stage.looked_at for stage in result.stages) <= looks


def test_a_predicate_that_a_timer_stops_is_undecided():
    def stopped(_s: Situation) -> bool:
        raise BudgetExhausted("over")

    result = search(Claim("stopped", hypotheses=[], conclusion=stopped), effort=3)
    assert not result.refuted
    assert result.stages[0].counts["situations"] == 0


# ---- bad input --------------------------------------------------------------------------------------------


def raises(s: Situation) -> bool:
    """this one raises"""
    return bool(s.exans[9])


@pytest.mark.parametrize(
    ("predicate", "said"),
    [
        (raises, "the predicate 'this one raises' raised IndexError"),
        (lambda _: None, r"the predicate '\(a lambda\)' returned None; return True or False"),
        (lambda s: s.samples, "returned 1; return True or False"),
        (lambda s: s.status(5) is None, "raised IndexError"),
        (lambda s: s.no_such_thing, "raised AttributeError"),
    ],
)
def test_a_predicate_that_misbehaves_is_named(predicate: Any, said: str):
    for roles in (
        {"hypotheses": [predicate], "conclusion": unique},
        {"hypotheses": [], "conclusion": predicate},
    ):
        sizes = Sizes(samples=(1, 1), hidden=((1, 2),))
        with pytest.raises(ClaimError, match=said) as error:
            search(Claim("mine", sizes=sizes, **roles), effort=20)
        assert str(error.value).startswith("claim 'mine': ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": 7}, "needs a name, and 7 is none"),
        ({"sizes": 5}, r"claim 'mine': sizes is 5; give Sizes\(inputs="),
        ({"sizes": 0}, "sizes is 0; give Sizes"),
        ({"networks": [1]}, r"networks\[0\] is 1; give exan_verify.ReluNetwork.from_arrays"),
        ({"networks": 5}, "networks is 5; give a list of ReluNetworks"),
        (
            {"hypotheses": unique},
            "hypotheses is the predicate 'no other batch .*'; give a list of predicates",
        ),
        ({"hypotheses": (p for p in [unique])}, "hypotheses is <generator .*; give a list of predicates"),
        ({"hypotheses": "text"}, "hypotheses is 'text'; give a list of predicates"),
        ({"domain": "box:0,1"}, r"domain is 'box:0,1'; give exan_verify.Box\(lo, hi\), or None"),
        ({"conclusion": lambda: True}, r"'\(a lambda\)' is a function of \(\); it gets one argument"),
        ({"hypotheses": [candidate_size]}, r"'How large .*' is a function of \(network: .*; it gets one"),
        ({"loss": 5}, "loss=5 is not known; use one of"),
        ({"reduction": None}, "reduction=None is not known"),
        ({"conclusion": True}, "True is not a predicate"),
        ({"hypotheses": ["text"]}, "'text' is not a predicate"),
        ({"loss": "l1"}, "loss='l1' is not known; use one of 'cross_entropy'"),
        ({"labels": "soft"}, "labels='soft' is not known"),
        ({"loss": "bce", "labels": "real"}, "labels='real' is for mse only"),
        ({"loss": "hinge"}, "hinge needs at least two logits"),
        ({"domain": Box([0, 0], [1, 1])}, "Box.lo has shape"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(arguments: dict[str, Any], said: str):
    name = arguments.pop("name", "mine")
    with pytest.raises(ClaimError, match=said):
        Claim(name, **({"hypotheses": [], "conclusion": unique} | arguments))


def test_sizes_are_ranges():
    with pytest.raises(ClaimError, match=r"Sizes.hidden\[1\] is \(3, 2\)"):
        Sizes(hidden=((1, 2), (3, 2)))
    with pytest.raises(ClaimError, match=r"Sizes\.samples is"):
        Sizes(samples=(0, 2))
    with pytest.raises(ClaimError, match=r"Sizes.inputs is 3; give two integers .*, like \(3, 3\)"):
        Sizes(inputs=3)  # type: ignore[arg-type]
    for wrong in ((1, 2, 3), (1.0, 2.0), (True, 2), "12", None):
        with pytest.raises(ClaimError, match=r"Sizes.logits is .*; give two integers \(least, most\)"):
            Sizes(logits=wrong)  # type: ignore[arg-type]
    for flat in ((1, 4), 3, None):
        with pytest.raises(ClaimError, match=r"Sizes.hidden is .*; give one range per hidden layer"):
            Sizes(hidden=flat)  # type: ignore[arg-type]
    with pytest.raises(ClaimError, match=r"Sizes\.biases is 3; give True, False, or None for both"):
        Sizes(biases=3)  # type: ignore[arg-type]


def test_fixed_networks_count_for_the_question_instead_of_sizes():
    network = ReluNetwork.from_arrays([[[1, 2, 3]], [[1], [1]]], [[0], [0, 0]])
    options: dict[str, Any] = {"hypotheses": [], "conclusion": unique, "networks": [network]}
    Claim("hinge", loss="hinge", domain=Box([0, 0, 0], [1, 1, 1]), **options)
    with pytest.raises(ClaimError, match=r"Box\.lo has shape"):
        Claim("box", domain=Box([0, 0], [1, 1]), **options)
    options["networks"] = [network, ReluNetwork.from_arrays([[[1]], [[1]]], [[0], [0]])]
    with pytest.raises(ClaimError, match="hinge needs at least two logits; give other networks"):
        Claim("hinge", loss="hinge", **options)


def never(_: Situation) -> bool:
    """never"""
    return False


def test_a_claim_whose_hypotheses_are_never_met_is_said_to_be_untested():
    result = search(Claim("never", hypotheses=[never], conclusion=unique, sizes=TINY), effort=3)
    assert not result.refuted
    looked_at = sum(stage.looked_at for stage in result.stages)
    assert result.says == f"hypotheses never met in {looked_at} situations: nothing was tested"
    drawn, _, near, inputs, weights = result.stages
    assert drawn.says == f"hypotheses never met in {drawn.looked_at} situations: nothing was tested"
    assert weights.counts["cases covered completely"] > 0
    assert weights.says == f"hypotheses never met in {weights.looked_at} paths: nothing was tested"
    assert inputs.counts["cases"] == 0, "no network had met the hypotheses"
    assert near.looked_at > 0


def test_hypotheses_that_drawn_numbers_hardly_ever_meet_are_met_again_and_again_nearby():
    def published(s: Situation) -> bool:
        return all(c >= 1 for layer in s.exans for c in layer) and all(c >= 2 for c in s.exans[-1])

    def alive(s: Situation) -> bool:
        return all((s.nonzero_deltas[i] == s.patterns[i]).all() for i in range(s.depth - 1))

    def always(_s: Situation) -> bool:
        return True

    sizes = Sizes(inputs=(2, 3), hidden=((4, 6), (6, 7)), logits=(2, 3), samples=(3, 3))
    claim = Claim("p1", hypotheses=[published, alive], conclusion=always, loss="mse", sizes=sizes)

    def near(start: Tally, steps: int) -> Tally:
        walked = Tally(claim, "near", 1, lambda *_: None, nearest=list(start.nearest))
        walk_near(claim, walked, examples=steps, seed=2)
        return walked

    generic = Tally(claim, "engines", 1, lambda *_: None)
    try_instances(claim, generic, examples=60, seed=2)
    assert generic.inside == 0
    assert near(generic, 60).inside >= 20
    assert near(generic, 5).numbers() == near(generic, 5).numbers()


@pytest.mark.parametrize(("met", "open_", "few"), [(4, 1, True), (25, 6, True), (25, 5, False)])
def test_a_claim_that_few_situations_tested_says_so(met: int, open_: int, few: bool):
    counts = {"situations": 688, "within the hypotheses": met, "undecided": open_}
    stages = (Stage(name="drawn", says="", counts=counts, seconds=0.0),)
    claim = Claim("any", hypotheses=[], conclusion=unique)
    result = Searched(claim=claim, seed=0, counterexample=None, stages=stages)
    told = f"only {met} of 688 situations met the hypotheses, {open_} of them without a decided conclusion"
    assert result.few_tested == (told if few else "")
    assert (told in result.says) is few
    screen = "".join(str(part) for part in describe(result))
    assert (f"{met} of 688" in screen) is few


def test_a_conclusion_that_is_never_decided_tests_nothing():
    def undecided(_: Situation) -> bool:
        raise Undecided("this one")

    result = search(Claim("open", hypotheses=[], conclusion=undecided, sizes=TINY), effort=3)
    inside = sum(stage.inside for stage in result.stages)
    assert inside > 0
    assert result.says.startswith(f"conclusion decided in none of {inside} situations")
    assert not search(Claim("fine", hypotheses=[], conclusion=one_each, sizes=TINY), effort=3).nothing_tested


def test_words_come_from_docstrings():
    assert words(two_each) == "two exclusive neurons each"
    assert words(lambda _: True) == "(a lambda)"
    claim = Claim("mine", hypotheses=[two_each, one_each], conclusion=unique)
    assert claim.text == (
        "if two exclusive neurons each; an exclusive neuron each, then "
        "no other batch of this size has this gradient"
    )


# ---- files ------------------------------------------------------------------------------------------------

OWN = """
from helper import SMALL
from exan_verify.theorems import Claim, unique

def always(s):
    "the moon is round"
    return True

FALSE = Claim("false-one", hypotheses=[always], conclusion=lambda s: s.samples != 1, sizes=SMALL)
MORE = [Claim("true-one", hypotheses=[], conclusion=always, sizes=SMALL), FALSE]
"""
HELPER = """
from exan_verify.theorems import Sizes
SMALL = Sizes(inputs=(1, 1), hidden=((1, 1),), logits=(1, 1), samples=(1, 1))
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def test_a_file_gives_its_claims(own: Path):
    assert list(load_file(own)) == ["false-one", "true-one"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module", "cannot be run: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "cannot be run: SyntaxError"),
        ("1 / 0", "cannot be run: ZeroDivisionError"),
        ("import sys\nsys.exit(3)", "cannot be run: SystemExit(3); remove the call of sys.exit (line 2 of "),
        (
            OWN + "\nC = Claim(7, hypotheses=[], conclusion=always)",
            "cannot be run: a claim needs a name, and 7 is none; give a text like 'hidden-is-safe' (line 12",
        ),
        ("x = 1", "defines no claim; add NAME = exan_verify.theorems.Claim"),
        (
            OWN + "AGAIN = Claim('false-one', hypotheses=[], conclusion=unique)",
            "two claims are called 'false-one'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error(own: Path, text: str, said: str):
    own.write_text(text)
    with pytest.raises(ClaimError, match=r"own\.py") as error:
        load_file(own)
    assert said in str(error.value)


def test_a_file_must_be_there_and_be_python(tmp_path: Path):
    with pytest.raises(FileError, match="is not a file"):
        load_file(tmp_path / "none.py")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(FileError, match=r"its name must end with \.py"):
        load_file(tmp_path / "text.txt")


def test_the_command_searches_a_file(own: Path, capsys: pytest.CaptureFixture[str]):
    code = main(["theorems", "--file", str(own), "--effort", "5"])
    out, err = capsys.readouterr()
    assert (code, err) == (ExitCode.REFUSED, "")
    assert "false-one: if the moon is round, then (a lambda)" in out
    assert "REFUTED: by the stage 'drawn'; verified exactly" in out
    assert "NOT REFUTED: No counterexample found. That is not a proof" in out
    assert main(["theorems", "--file", str(own), "true-one", "--effort", "5", "--json"]) == ExitCode.UNDECIDED
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "exan/own-theorems/1"
    (claim,) = record["claims"]
    assert (claim["name"], claim["refuted"], claim["example"]) == ("true-one", False, None)
    assert claim["nothing_tested"] is None
    assert claim["stages"][0]["counts"]["situations"] > 0
    assert main(["theorems", "--file", str(own), "other"]) == ExitCode.USAGE
    assert "has no claim called 'other'; it has: false-one, true-one" in capsys.readouterr().err


def test_the_command_names_a_predicate_that_raises(own: Path, capsys: pytest.CaptureFixture[str]):
    own.write_text(OWN.replace("return True", "return s.nothing"))
    assert main(["theorems", "--file", str(own), "false-one"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "claim 'false-one': the predicate 'the moon is round' raised AttributeError" in err
    assert f"line 7 of {own}" in err


@pytest.mark.parametrize(
    "place", ["hypotheses=[quit_now], conclusion=always", "hypotheses=[], conclusion=quit_now"]
)
@pytest.mark.parametrize("call", ["sys.exit(0)", "sys.exit(1)", "exit()", "raise SystemExit"])
def test_a_predicate_that_ends_the_process_is_an_error(
    own: Path, capsys: pytest.CaptureFixture[str], call: str, place: str
):
    own.write_text(
        f"import sys\ndef quit_now(s):\n    {call}\n{OWN}C = Claim('quits', {place}, sizes=SMALL)\n"
    )
    assert main(["theorems", "--file", str(own), "quits"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "claim 'quits': the predicate 'quit now' raised SystemExit(" in err
    assert f"remove the call of sys.exit (line 3 of {own})" in err


@pytest.mark.parametrize(
    "text", ["raise KeyboardInterrupt", OWN.replace("return True", "raise KeyboardInterrupt")]
)
def test_the_keyboard_still_interrupts(own: Path, capsys: pytest.CaptureFixture[str], text: str):
    own.write_text(text)
    assert main(["theorems", "--file", str(own)]) == ExitCode.INTERRUPTED
    assert "error: interrupted" in capsys.readouterr().err


OWN_STATEMENT = """
import sys
from exan_verify.theorems import Check, Standing, Statement

def run(progress, seed):
    CALL

TEXTS = {name: "text" for name in "group title source reading quantifiers conclusion latex".split()}
MINE = Statement(name="mine", hypotheses=(), standing=Standing.OPEN, grounds=(),
                 checks=(Check(name="check", what="something", run=run),), **TEXTS)
"""


@pytest.mark.parametrize("call", ["sys.exit(0)", "1 / 0"])
def test_a_statement_of_one_s_own_that_raises_is_an_error(
    own: Path, capsys: pytest.CaptureFixture[str], call: str
):
    own.write_text(OWN_STATEMENT.replace("CALL", call))
    assert main(["theorems", "--file", str(own)]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "own.py: running its statements raised " in err
    assert f"(line 6 of {own})" in err


def test_the_command_says_loudly_that_nothing_was_tested(own: Path, capsys: pytest.CaptureFixture[str]):
    own.write_text(OWN.replace("hypotheses=[]", "hypotheses=[lambda s: False]"))
    arguments = ["theorems", "--file", str(own), "true-one", "--effort", "3"]
    assert main(arguments) == ExitCode.UNDECIDED
    out = capsys.readouterr().out
    assert "NOTHING TESTED: hypotheses never met in " in out
    assert "covered completely" not in out.replace("0 of 0 cases covered completely", "")
    assert main([*arguments, "--json"]) == ExitCode.UNDECIDED
    (claim,) = json.loads(capsys.readouterr().out)["claims"]
    assert claim["says"] == claim["nothing_tested"]
    assert claim["says"].endswith("situations: nothing was tested")


def test_numpy_answers_are_bools():
    claim = Claim("numpy", hypotheses=[lambda _: np.bool_(True)], conclusion=unique)
    case = published_insecure()
    situation = Situation.of(case.network, case.batch, Question(loss=Loss.MSE))
    assert judge(claim, situation) in (Judgement.FAILS, Judgement.UNDECIDED)


def test_the_docs_own_statement_runs_as_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = (Path(__file__).parents[2] / "docs" / "theorems.md").read_text()
    block = re.search(r"```python\n(# mine\.py\n.*?)```", page, re.DOTALL)
    assert block is not None
    (tmp_path / "mine.py").write_text(block[1])
    assert main(["theorems", "--file", str(tmp_path / "mine.py"), "--effort", "4"]) == ExitCode.REFUSED
    assert "REFUTED" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["published", "stopping set", "shared region", "dead"])
def test_drawn_situations_are_also_in_states(state: str):
    """Numbers without conditions are hardly ever of two exclusive neurons a sample and three samples."""
    sizes = Sizes(inputs=(1, 3), hidden=((1, 8), (1, 8)), logits=(1, 3), samples=(3, 3))
    claim = Claim("states", hypotheses=[], conclusion=all_determined, sizes=sizes)
    judged = tally.Tally(claim, "drawn", 1, lambda *_: None)
    plain = drawn_module._situations(claim, drawn_module.GRIDS[0], judged)

    def wanted(drawn: tuple[ReluNetwork, Batch]) -> bool:
        network, batch = drawn
        found = exclusivity(network, batch, loss=claim.question.loss)
        return {
            "published": found.published,
            "stopping set": bool(found.stopping_set),
            "shared region": any(len(group) > 1 for group in found.groups[0]),
            "dead": any(not c for c in forward(network, batch).patterns[0].any(axis=0)),
        }[state]

    seen = find(
        drawn_module._in_states(claim, plain, judged),
        wanted,
        settings=settings(max_examples=200, database=None, deadline=None, phases=[Phase.generate]),
        random=random.Random(0),
    )
    assert sizes.admit(seen[0], seen[1].size)
