"""Budgets, sizes, faults and interruptions of the SMT path: always an answer, and nothing left over."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from exan_verify import certify
from exan_verify.core import budget as deadline
from exan_verify.core.budget import Budget, poll, seconds_left, until
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus, Trust
from exan_verify.decide.solvers import ask_smt
from exan_verify.errors import BudgetExhausted, FileError, InputError
from exan_verify.exact import linalg
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.smt import portfolio as portfolio_module
from exan_verify.smt import search as search_module
from exan_verify.smt.cubes import Task, all_literals, build
from exan_verify.smt.decide import Grounds
from exan_verify.smt.decide import decide as decide_smt
from exan_verify.smt.portfolio import SCOUT, Round, Settings
from exan_verify.smt.portfolio import Outcome as Found
from exan_verify.smt.question.difference import other_batch, placements
from exan_verify.smt.question.encode import encode
from exan_verify.smt.question.terms import Atom, Formula, Junction, Poly
from exan_verify.smt.search import DIRECT, SHEAR, Search, own_cube
from exan_verify.smt.size import MAX_TERMS, size_of
from exan_verify.smt.smtlib import cube_files, whole_question, write_files
from exan_verify.smt.solvers import cache as cache_module
from exan_verify.smt.solvers import run as solvers
from exan_verify.smt.solvers import worker as worker_module
from exan_verify.smt.solvers.cache import AnswerCache
from exan_verify.smt.solvers.run import UNKNOWN, UNSAT, Answer, Strategy, Worker
from tests.support.cases import batch_of
from tests.support.contexts import context_of
from tests.support.smt_cases import decide, decided, holds, named, pose, posed

SMT = Strategy("z3", "smt")
TRUE_TEXT = "(set-logic QF_NRA)(declare-fun x () Real)(assert (= (* x x) 2.0))(check-sat)"


def drawn(
    rng: np.random.Generator, widths: list[int], samples: int, loss: Loss, labels: Labels = Labels.ONE_HOT
) -> tuple[ReluNetwork, Batch]:
    network = ReluNetwork.from_arrays(
        [rng.normal(size=(b, a)) for a, b in pairwise(widths)], [rng.normal(size=b) for b in widths[1:]]
    )
    y: Any = rng.integers(0, widths[-1], samples)
    if loss is Loss.BCE:
        y = rng.integers(0, 2, (samples, widths[-1]))
    if labels is Labels.REAL:
        y = rng.normal(size=(samples, widths[-1]))
    x = rng.normal(size=(samples, widths[0]))
    return network, batch_of(network, x, y, loss, labels)


def asked(network: ReluNetwork, batch: Batch, loss: Loss, labels: Labels = Labels.ONE_HOT) -> Any:
    return pose(network, batch=batch, loss=loss, labels=labels)


# --- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", list(Loss))
def test_the_size_is_estimated_before_anything_is_written(loss: Loss) -> None:
    """Bytes and terms of the whole question within a factor of two, of a cube not too small by more."""
    rng = np.random.default_rng(list(Loss).index(loss))
    for k in range(8):
        hidden = [int(rng.integers(1, 7)) for _ in range(rng.integers(1, 3))]
        widths = [int(rng.integers(1, 6)), *hidden, int(rng.integers(2, 5))]
        labels = Labels.REAL if loss is Loss.MSE and k % 2 else Labels.ONE_HOT
        samples = int(rng.integers(1, 7))
        network, batch = drawn(rng, widths, samples, loss, labels)
        question, truth = asked(network, batch, loss, labels)
        size = size_of(network, Question(loss=loss, labels=labels), batch=batch)
        text = whole_question(question, truth)
        whole = Task(index=-1, posed=question, others=(truth,))
        fixed = tuple(zip(all_literals(question), own_cube(truth), strict=True))
        cube = Task(index=0, posed=question, others=(truth,), fixed=fixed)
        assert 0.5 < size.bytes / len(text) < 2, (widths, samples)
        assert 0.5 < size.terms / terms(whole) < 2, (widths, samples)
        assert size.cube_terms > 0.5 * terms(cube), (widths, samples)


def terms(task: Task) -> int:
    return sum(count(formula) for _, formula in build(task).assertions)


def count(formula: Formula) -> int:
    if isinstance(formula, Atom):
        return len(formula.poly.terms)
    return sum(map(count, formula.parts)) if isinstance(formula, Junction) else 1


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize(
    ("widths", "samples"), [([784, 128, 10], 32), ([30, 40, 30, 4], 20), ([3, 5, 400], 3), ([2, 2, 40], 1)]
)
def test_a_question_of_any_size_is_answered(loss: Loss, widths: list[int], samples: int) -> None:
    """What solvers cannot be asked is UNKNOWN, with a size in the reason, before anything is computed."""
    network, batch = drawn(np.random.default_rng(1), widths, samples, loss)
    size = size_of(network, Question(loss=loss, labels=Labels.ONE_HOT), batch=batch)
    if not size.refused:
        assert max(size.terms, size.cube_terms) <= MAX_TERMS
        return
    verdict = decide(network, batch=batch, loss=loss)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "terms" in verdict.reason
    assert verdict.samples == (SampleStatus.UNKNOWN,) * samples


def test_a_large_file_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_about, truth = posed(named("plain/mse/bias/0"))
    with pytest.raises(InputError, match="--force"):
        list(cube_files(asked_about, truth, largest=100))


def test_long_orders_of_literals_are_written_without_deep_recursion() -> None:
    network, batch = drawn(np.random.default_rng(0), [1, 500, 1], 2, Loss.BCE)
    question, truth = asked(network, batch, Loss.BCE)
    text = whole_question(question, truth)
    assert "rest_s0_" in text


# --- budgets -----------------------------------------------------------------------------------------------


def test_nested_ends_never_extend_the_outer_one() -> None:
    with until(time.monotonic() - 1), until(time.monotonic() + 60), pytest.raises(BudgetExhausted):
        poll()
    poll()


def test_one_clock_ends_exact_steps_and_the_constraints_of_a_question() -> None:
    """Whoever sets the end, polls of both kinds see it; the earlier end says who ran out."""
    rows = np.array([[Fraction(1), Fraction(2)], [Fraction(2), Fraction(4)]], dtype=object)
    terms = Poly.variable("a") + Poly.variable("b")
    steps: list[Callable[[], Any]] = [lambda: linalg.rank(rows), lambda: terms * terms]
    ends = {
        "wall time": until(time.monotonic() - 1),
        "of 1e-09 s": Budget(seconds=1e-9).kept(),
    }
    for says, kept in ends.items():
        with kept:
            for step in steps:
                with pytest.raises(BudgetExhausted, match=says):
                    step()
            # neither a later end nor a budget without one gives more time
            for inner in (until(time.monotonic() + 60), Budget(seconds=60).kept(), Budget().kept()):
                with inner, pytest.raises(BudgetExhausted, match=says):
                    poll()
    with Budget(seconds=60).kept(), until(time.monotonic() - 1), pytest.raises(BudgetExhausted, match="wall"):
        poll()
    assert linalg.rank(rows) == 1
    assert seconds_left() is None


class Clock:
    """``time.monotonic`` that jumps past every deadline at its n-th look."""

    def __init__(self, looks: int) -> None:
        self.left = looks
        self.start = time.monotonic()

    def monotonic(self) -> float:
        self.left -= 1
        return self.start + (1e9 if self.left < 0 else 0.0)


@pytest.mark.parametrize("name", ["plain/mse/bias/0", "plain/cross_entropy/bias/0"])
def test_wherever_the_time_runs_out_there_is_a_verdict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over at the n-th poll: UNKNOWN or the right answer, never an error."""
    case = named(name)
    right = decided(case).outcome
    clock = Clock(10**9)
    monkeypatch.setattr(deadline, "time", clock)
    decided(case, budget=60)
    polls = 10**9 - clock.left
    assert polls > 100
    for looks in np.random.default_rng(0).integers(0, polls, 12):
        monkeypatch.setattr(deadline, "time", Clock(int(looks)))
        verdict = decided(case, budget=60)
        assert verdict.outcome in (right, Outcome.UNKNOWN)
        if verdict.outcome is Outcome.UNKNOWN:
            assert "budget" in verdict.reason


@pytest.mark.parametrize(
    ("name", "told", "tries"),
    [
        ("equal/mse/bias/0", None, {SCOUT}),
        ("dead/mse/nobias/3", frozenset(), set(DIRECT)),
        ("plain/cross_entropy/bias/3", None, {SHEAR}),
    ],
)
def test_first_tries_keep_a_work_limit_that_is_told(
    name: str, told: frozenset[int] | None, tries: set[Round], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole question, of samples and of a shear; some of the solvers' loops end by time alone."""
    case, asked = named(name), list[Round]()
    question = Question(loss=case.loss, reduction=case.reduction, labels=case.labels)

    def unknown(_text: str, current: Round, _settings: Settings) -> Answer:
        asked.append(current)
        return Answer(UNKNOWN, str(current.strategy), killed=True)

    for module in (portfolio_module, search_module):
        monkeypatch.setattr(module, "query", unknown)
    for unasked in (False, True):
        asked.clear()
        settings = Settings(work_limit=20_000, unasked=unasked)
        decide_smt(case.network, question, batch=case.batch, settings=settings, told=told)
        first = {r for r in asked if r not in portfolio_module.ROUNDS}
        assert first
        assert (first <= tries) == unasked
        assert all(r.rlimit <= 20_000 and r.seconds <= 1 for r in first) != unasked


@pytest.mark.parametrize(("work", "unasked"), [(None, True), (10_000, False), (10**9, True)])
def test_only_a_limit_that_nobody_asked_for_is_exceeded(
    work: int | None, unasked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, asked = named("dead/mse/nobias/3"), Mock(side_effect=BudgetExhausted("over"))
    monkeypatch.setattr(ask_smt, "decide", asked)
    context = context_of(case.network, case.batch, case.loss)
    with pytest.raises(BudgetExhausted):
        ask_smt.ask_about_batch(context, Budget(work=work), told=frozenset())
    settings = asked.call_args.kwargs["settings"]
    assert settings.work_limit == min(work or ask_smt.UNASKED_WORK, ask_smt.UNASKED_WORK)
    assert settings.unasked is unasked


def test_orders_of_many_equal_patterns_are_not_walked_through() -> None:
    """Thirty samples that fit a cube in one order only: found place by place."""
    rng = np.random.default_rng(0)
    network, batch = drawn(rng, [8, 6, 2], 12, Loss.MSE)
    question, truth = asked(network, batch, Loss.MSE)
    fixed = dict(zip(all_literals(question), own_cube(truth), strict=True))
    order = next(placements(question, truth, fixed))
    assert sorted(order) == list(range(12))


@pytest.mark.parametrize("seed", range(4))
def test_placements_are_the_distinct_orders_that_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = ReluNetwork.from_arrays([[[1.0], [-1.0]], [[1.0, 1.0], [0.0, 1.0]]], None)
    batch = batch_of(network, rng.integers(-1, 2, (4, 1)), rng.integers(0, 2, 4))
    question, truth = asked(network, batch, Loss.MSE)
    fixed = dict(zip(all_literals(question), own_cube(truth), strict=True))
    names = list(fixed)
    per = len(names) // 4
    expected = set()
    for order in permutations(range(4)):
        bits = [b for n in order for b in truth.states[n]]
        if all(fixed[name] == bit for name, bit in zip(names, bits, strict=True)):
            expected.add(tuple(str((truth.batch.x[n], truth.batch.y[n])) for n in order))
    assert per * 4 == len(names)
    found = [
        tuple(str((truth.batch.x[n], truth.batch.y[n])) for n in order)
        for order in placements(question, truth, fixed)
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.parametrize("seed", range(6))
def test_another_batch_of_many_samples_is_told_as_for_few(seed: int) -> None:
    """Five samples and more: "not the known batch in any order" in M^2 parts, against all orders."""
    rng = np.random.default_rng(seed)
    network = ReluNetwork.from_arrays([[[1.0]], [[1.0], [2.0]]], None)
    x, y = rng.integers(1, 3, (5, 1)), rng.integers(0, 2, 5)
    batch = batch_of(network, x, y)
    question, truth = asked(network, batch, Loss.MSE)
    encoding = encode(question)
    formulas = other_batch(question, encoding, truth, {})
    known = sorted(zip(x[:, 0].tolist(), y.tolist(), strict=True))
    for k in range(20):
        order = rng.permutation(5)
        u, v = x[order, 0].copy(), y[order].copy()
        if k % 2:
            u[rng.integers(5)] = rng.integers(1, 3)
            v[rng.integers(5)] = rng.integers(0, 2)
        reals = {f"x_s{m}_0": Fraction(int(a)) for m, a in enumerate(u)}
        booleans = {f"label_s{m}_{c}": int(b) == c for m, b in enumerate(v) for c in range(2)}
        different = sorted(zip(u.tolist(), v.tolist(), strict=True)) != known
        assert all(holds(f, reals, booleans) for f in formulas) == different


# --- zero gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", list(Loss))
def test_a_zero_gradient_is_a_question(loss: Loss) -> None:
    """Batches whose gradient is zero, with every loss, from the batch and from the gradient: at least two."""
    rng = np.random.default_rng(0)
    for k in range(6):
        d, n, samples = int(rng.integers(1, 3)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
        x = rng.integers(0, 4, (samples, d))
        first, last = -np.abs(rng.integers(-2, 3, (n, d))), rng.integers(-2, 3, (2, n))
        biases: Any = None
        y: Any = np.zeros(samples, dtype=int)
        if loss is Loss.MSE:
            biases = [-np.ones(n), [1, 0]]  # the logits are the label
        elif loss is Loss.HINGE:
            biases = [-np.ones(n), [2, 0]]  # the margin is kept
        elif loss is Loss.BCE:
            y = rng.integers(0, 2, (samples, 2))
        network = ReluNetwork.from_arrays([first, last], biases)
        batch = batch_of(network, x, y, loss)
        verdict = certify(network, batch=batch, loss=loss.value, engine="smt")
        assert verdict.outcome is Outcome.AMBIGUOUS, k
        if loss.rational:
            zero = exact_gradient(network, batch, loss, Reduction.MEAN)
            assert not any(np.any(a != 0) for a in zero.tensors.values())
            assert decide(network, gradient=zero, loss=loss, batch_size=samples).outcome is Outcome.AMBIGUOUS


# --- trust -------------------------------------------------------------------------------------------------


def grounds(
    refuted: dict[int, Answer | None], confirmed: dict[int, str], listers: tuple[str, ...]
) -> Grounds:
    question, _ = posed(named("plain/mse/bias/0"))
    search = Search(question, Settings(), complete=True, listers=listers)
    return Grounds.of(search, [Found(refuted=refuted, confirmed=confirmed)])


def test_trust_is_as_good_as_the_worst_cube_that_no_argument_settled() -> None:
    """Over all ways in which three cubes can be settled, and the list made."""
    z3, kinds = Answer(UNSAT, "z3/smt"), ("argued", "one", "two")
    for *cubes, listed in itertools.product(kinds, repeat=4):
        refuted = {k: None if kind == "argued" else z3 for k, kind in enumerate(cubes)}
        confirmed = {k: "cvc5" for k, kind in enumerate(cubes) if kind == "two"}
        listers = {"argued": (), "one": ("z3",), "two": ("z3", "cvc5")}[listed]
        found = grounds(refuted, confirmed, listers)
        all_of_them = {*cubes, listed}
        if all_of_them == {"argued"}:
            assert found.trust is Trust.ARGUED
        elif "one" in all_of_them:
            assert found.trust is Trust.SOLVER_TRUSTED
        else:
            assert found.trust is Trust.CROSS_CHECKED
        argued = cubes.count("argued")
        assert (f"{argued} of 3 cubes by exact arguments" in str(found)) == bool(argued)
        assert found.argued + sum(found.solved.values()) == 3


def test_every_search_that_a_verdict_rests_on_counts() -> None:
    """Searches for batches without a sample: the worst of them decides, in whatever order they come."""
    z3 = Answer(UNSAT, "z3/smt")
    doubled, single = Found(refuted={-1: z3}, confirmed={-1: "cvc5"}), Found(refuted={-1: z3})
    cubes = Found(refuted={0: None, 1: z3}, confirmed={1: "cvc5"})
    question, _ = posed(named("plain/mse/bias/0"))
    search = Search(question, Settings(), complete=True, listers=("z3", "cvc5"))
    for order in permutations([doubled, cubes]):
        assert Grounds.of(search, order).trust is Trust.CROSS_CHECKED
    for order in permutations([doubled, single, cubes]):
        assert Grounds.of(search, order).trust is Trust.SOLVER_TRUSTED
    assert Grounds.of(search, []).trust is Trust.ARGUED


def test_a_whole_question_refuted_at_once_is_one_solvers_word() -> None:
    found = grounds({0: None, -1: Answer(UNSAT, "z3/smt")}, {}, ())
    assert found.trust is Trust.SOLVER_TRUSTED
    assert str(found) == "refuted: as a whole by z3"


@pytest.mark.parametrize("name", ["plain/mse/bias/0", "plain/mse/nobias/3", "plain/hinge/bias/1"])
def test_the_verdict_counts_what_a_second_solver_said(name: str) -> None:
    one, two = decided(named(name)), decided(named(name), double_check=True)
    assert one.outcome is two.outcome
    if one.trust is Trust.SOLVER_TRUSTED:
        assert " by z3" in one.reason
        assert two.trust is not Trust.CROSS_CHECKED or "by z3 and cvc5" in two.reason
    else:
        assert one.trust is Trust.ARGUED
        assert "z3" not in one.reason


# --- headers of exported files -----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("exact", [False, True])
def test_every_exported_file_says_what_its_answers_mean(loss: Loss, exact: bool) -> None:
    network, batch = drawn(np.random.default_rng(0), [1, 2, 2], 1, loss)
    question, truth = asked(network, batch, loss)
    head = whole_question(question, truth, exact=exact).split("(set-logic")[0]
    lines = head.splitlines()
    assert all(line.startswith("; ") for line in lines)
    sat = next(line for line in lines if line.startswith("; sat: "))
    assert any(line.startswith("; unsat: there is no such batch") for line in lines)
    assert ("NOTHING" in sat) == (not loss.rational and not exact)
    for name, text in cube_files(question, truth, exact=exact):
        assert "unsat" in text.split("(set-logic")[0].lower() or "Unsatisfiable" in text, name


# --- faults ------------------------------------------------------------------------------------------------


SEVERAL = "plain/bce/bias/1"
"""A case with several queries."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as opened:
        yield opened


def test_a_killed_server_is_started_again(worker: Worker) -> None:
    assert worker.ask(TRUE_TEXT, SMT).status == "sat"
    for _ in range(3):
        assert worker._process is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        assert worker.ask(TRUE_TEXT, SMT).status == "sat"


def test_a_stopped_server_is_ended_at_the_limit(worker: Worker) -> None:
    worker.ask(TRUE_TEXT, SMT)
    stopped = worker._process
    assert stopped is not None
    os.kill(stopped.pid, signal.SIGSTOP)
    answer = worker.ask(TRUE_TEXT, SMT, seconds=0.1)
    assert (answer.status, answer.killed) == (UNKNOWN, True)
    assert stopped.poll() is not None
    assert worker.ask(TRUE_TEXT, SMT).status == "sat"


def test_a_server_that_dies_every_time_is_undecided(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def dying(*_arguments: Any, **_options: Any) -> None:
        started.append(1)

    monkeypatch.setattr(solvers, "receive", dying)
    answer = worker.ask(TRUE_TEXT, SMT)
    assert (answer.status, answer.killed, len(started)) == (UNKNOWN, True, 2)


class Child:
    """Stands for a solver's process: what it writes into its pipe."""

    def __init__(self, *messages: bytes) -> None:
        self.readable, writable = os.pipe()
        self.source, self.parent = os.pipe()
        for message in messages:
            os.write(writable, message)
        self.writable: int | None = writable

    def end(self) -> None:
        assert self.writable is not None
        os.close(self.writable)
        self.writable = None

    def answer(self, seconds: float) -> dict[str, Any] | None:
        found = worker_module._wait(self.readable, self.source, seconds)
        for fd in (self.readable, self.source, self.parent, self.writable):
            if fd is not None:
                os.close(fd)
        return found


HEADER = worker_module._HEADER


def test_a_solver_that_hangs_in_the_middle_of_its_answer_is_killed() -> None:
    for part in (b"", HEADER.pack(100)[:3], HEADER.pack(100), HEADER.pack(100) + b'{"answer"'):
        answer = Child(part).answer(0.05)
        assert answer is not None
        assert answer["killed"]


def test_a_solver_that_dies_in_the_middle_of_its_answer_may_be_asked_again() -> None:
    for part in (b"", HEADER.pack(100)[:3], HEADER.pack(100) + b'{"answer"'):
        child = Child(part)
        child.end()
        answer = child.answer(5)
        assert answer is not None
        assert answer["died"]
        assert answer["killed"]


def test_a_solver_that_floods_its_pipe_is_not_read() -> None:
    answer = Child(HEADER.pack(worker_module.LONGEST + 1) + b"x" * 1000).answer(5)
    assert answer is not None
    assert answer["answer"] == UNKNOWN
    assert "bytes" in answer["reason"]


class Killer:
    """A worker whose process is killed before every n-th query."""

    def __init__(self, every: int, times: int = 10**6) -> None:
        self.worker, self.every, self.queries, self.times = Worker(), every, 0, times

    def _strike(self) -> None:
        self.queries += 1
        process = self.worker._process
        if self.queries % self.every == 0 and process is not None and self.times:
            self.times -= 1
            os.kill(process.pid, signal.SIGKILL)

    def ask(self, *arguments: Any, **options: Any) -> Answer:
        self._strike()
        return self.worker.ask(*arguments, **options)

    def states(self, *arguments: Any, **options: Any) -> Any:
        self._strike()
        return self.worker.states(*arguments, **options)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_killed_solvers_change_no_verdict(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = named(SEVERAL)
    right = decided(case)
    killer = Killer(every, times=4)
    monkeypatch.setattr("exan_verify.smt.portfolio.shared_worker", lambda: killer)
    monkeypatch.setattr("exan_verify.smt.search.shared_worker", lambda: killer)
    found = decided(case)
    killer.worker.close()
    assert (found.outcome, found.reason, found.trust) == (right.outcome, right.reason, right.trust)


class Interrupting:
    """A worker that Ctrl-C hits at the n-th query, before it or after its answer has come."""

    def __init__(self, at: int, after: bool) -> None:
        self.left, self.after, self.worker = at, after, Worker()

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left < 0 and not self.after:
            raise KeyboardInterrupt
        found = getattr(self.worker, name)(*arguments, **options)
        if self.left < 0:
            raise KeyboardInterrupt
        return found

    def ask(self, *arguments: Any, **options: Any) -> Any:
        return self._call("ask", *arguments, **options)

    def states(self, *arguments: Any, **options: Any) -> Any:
        return self._call("states", *arguments, **options)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", [SEVERAL, "plain/mse/nobias/3"])
def test_ctrl_c_at_every_query_loses_nothing(
    name: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is interrupted one query later than the last; all share a cache, and the last one ends."""
    case = named(name)
    right = decided(case)
    for at in range(100):
        worker = Interrupting(2, after)
        monkeypatch.setattr("exan_verify.smt.portfolio.shared_worker", lambda w=worker: w)
        monkeypatch.setattr("exan_verify.smt.search.shared_worker", lambda w=worker: w)
        kept = len(list(tmp_path.rglob("*.json")))
        try:
            found = decided(case, cache=tmp_path)
        except KeyboardInterrupt:
            assert len(list(tmp_path.rglob("*.json"))) > kept, at
            continue
        finally:
            worker.worker.close()
            assert not list(tmp_path.rglob("*.tmp"))
        break
    assert (found.outcome, found.reason, found.trust) == (right.outcome, right.reason, right.trust)


def test_an_interrupted_exchange_leaves_no_process(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.ask(TRUE_TEXT, SMT)
    process = worker._process
    assert process is not None

    def interrupted(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(solvers, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.ask(TRUE_TEXT, SMT)
    assert process.poll() is not None
    assert worker.ask(TRUE_TEXT, SMT).status == "sat"


@pytest.mark.parametrize("step", ["fdopen", "replace"])
def test_a_full_disk_leaves_no_half_of_a_file(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write fails: an error that says so, what was kept stays, and the next call goes on."""
    case = named(SEVERAL)
    right = decided(case)
    whole = getattr(os, step)
    left = 1

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return whole(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(cache_module.os, step, failing)
        with pytest.raises(FileError, match="No space left"):
            decided(case, cache=tmp_path)
    kept = list(tmp_path.rglob("*.json"))
    assert len(kept) == 1
    assert not list(tmp_path.rglob("*.tmp"))
    assert all(json.loads(path.read_text()) for path in kept)
    found = decided(case, cache=tmp_path)
    assert (found.outcome, found.reason) == (right.outcome, right.reason)


def test_an_export_on_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files() -> Iterator[tuple[str, str]]:
        yield "a", "1"
        raise OSError(28, "No space left on device")

    with pytest.raises(FileError, match="No space left"):
        write_files(tmp_path / "new", files())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"null", b'{"status": "unsat"}', b"\xff" * 9])
def test_a_damaged_answer_counts_as_none(damage: bytes, tmp_path: Path) -> None:
    case = named(SEVERAL)
    right = decided(case, cache=tmp_path)
    for path in tmp_path.rglob("*.json"):
        path.write_bytes(damage)
    found = decided(case, cache=tmp_path)
    assert (found.outcome, found.reason) == (right.outcome, right.reason)


def test_two_runs_share_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes the same answers between this one's looking and its writing."""
    case = named(SEVERAL)
    right = decided(case)
    put = AnswerCache.put

    def twice(self: AnswerCache, key: str, record: dict[str, Any]) -> None:
        put(self, key, record)  # the other process is first
        put(self, key, record)

    monkeypatch.setattr(AnswerCache, "put", twice)
    found = decided(case, cache=tmp_path)
    assert (found.outcome, found.reason) == (right.outcome, right.reason)
    assert not list(tmp_path.rglob("*.tmp"))


def test_answers_that_depend_on_a_kill_are_not_kept(tmp_path: Path) -> None:
    store = AnswerCache(tmp_path)
    store.store("ab" * 32, Answer(UNKNOWN, "z3/smt", killed=True))
    assert store.answer("ab" * 32) is None
    store.store("ab" * 32, Answer(UNSAT, "z3/smt"))
    assert store.answer("ab" * 32) == Answer(UNSAT, "z3/smt")


# --- numbers beyond floating point -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "power"), [(loss, power) for k, loss in enumerate(Loss) for power in (40, (-1074, 1074)[k % 2])]
)
def test_numbers_of_any_size_end_in_a_verdict(loss: Loss, power: int) -> None:
    """Weights and inputs times a power of two, far beyond what a float or an exponential holds."""
    rng = np.random.default_rng(abs(power))
    scale = Fraction(2) ** power
    weights = [
        [[Fraction(int(v)) * scale for v in row] for row in rng.integers(-3, 4, (b, a))]
        for a, b in pairwise((2, 2, 2))
    ]
    network = ReluNetwork.from_arrays(weights, None)
    y: Any = rng.integers(0, 2, (2, 2)) if loss is Loss.BCE else rng.integers(0, 2, 2)
    x = [[Fraction(int(v)) * scale for v in row] for row in rng.integers(-4, 5, (2, 2))]
    batch = batch_of(network, x, y, loss)
    verdict = decide(network, batch=batch, loss=loss, work_limit=200_000, budget=3)
    assert verdict.outcome in set(Outcome)
