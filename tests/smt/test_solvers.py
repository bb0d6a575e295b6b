"""Solver processes: three-way answers, limits, no orphans, and canaries of known solver bugs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from exan_verify.errors import InputError
from exan_verify.smt.solvers.run import (
    SAT,
    UNKNOWN,
    UNSAT,
    SolverError,
    Strategy,
    Worker,
    available,
    solver_version,
)
from tests.support.commands import all_end

STRATEGIES = [
    Strategy("z3", "smt"),
    Strategy("z3", "qfnra-nlsat"),
    Strategy("z3", "default"),
    Strategy("cvc5"),
]
HARD = (
    "(set-logic QF_NRA)"
    + "".join(f"(declare-fun {v} () Real)" for v in "abcdefgh")
    + (
        "(assert (= (+ (* a a a b) (* c d d e) (* f g h)) 7.0))(assert (= (* a b c d e f g h) 3.0))"
        "(assert (= (+ (* a a c) (* b b d) (* e e g)) (* f f h)))(assert (> (* a b c) (* d e f g)))"
        "(assert (= (+ (* a d g g) (* b e h h)) (+ (* c f f) (- 11.0))))"
        "(assert (= (* a a e e h) (* b d d g c)))"
        "(assert (= (+ (* c c c) (* d d d) (* g g g)) 5.0))(assert (< (+ (* h h h h) (* a b) (* c g)) 1.0))"
        "(check-sat)"
    )
)


def ask(worker: Worker, body: str, strategy: Strategy, **limits: float) -> str:
    text = f"(set-logic QF_NRA){body}(check-sat)"
    return worker.ask(text, strategy, **limits).status  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_sat_and_unsat(worker: Worker, strategy: Strategy) -> None:
    declared = "(declare-fun x () Real)"
    assert ask(worker, declared + "(assert (= (* x x) 2.0))", strategy) == SAT
    assert ask(worker, declared + "(assert (= (* x x) (- 2.0)))", strategy) == UNSAT


def test_models_are_exact(worker: Worker) -> None:
    text = (
        "(set-logic QF_NRA)(declare-fun x () Real)(declare-fun y () Real)(declare-fun a () Bool)"
        "(assert (and a (= (* x x) 2.0) (> x 0.0) (= (* 3.0 y) 1.0)))(check-sat)"
    )
    for strategy in STRATEGIES:
        model = worker.ask(text, strategy).model
        assert model["a"] is True
        assert model["y"] == ["q", "1/3"]
        assert model["x"][:2] == ["root", ["-2", "0", "1"]]


def test_rlimit_stops_deterministically(worker: Worker) -> None:
    first = worker.ask(HARD, Strategy("z3", "qfnra-nlsat"), rlimit=20_000, seconds=30)
    second = worker.ask(HARD, Strategy("z3", "qfnra-nlsat"), rlimit=20_000, seconds=30)
    assert first.status == UNKNOWN
    assert not first.killed
    assert (first.work, first.reason) == (second.work, second.reason)


def test_hard_kill_and_the_worker_lives_on(worker: Worker) -> None:
    start = time.monotonic()
    answer = worker.ask(HARD, Strategy("z3", "qfnra-nlsat"), seconds=0.3)
    assert answer.status == UNKNOWN
    assert answer.killed
    assert time.monotonic() - start < 5
    assert ask(worker, "(assert false)", STRATEGIES[0]) == UNSAT


def test_rejected_text_is_an_error(worker: Worker) -> None:
    with pytest.raises(SolverError, match="failed"):
        worker.ask("(set-logic QF_NRA)(assert (nonsense))(check-sat)", STRATEGIES[0])


def test_missing_solver_names_the_remedy() -> None:
    assert not available("yices")
    with pytest.raises(InputError, match="not installed"):
        solver_version("yices")


def test_states_are_complete(worker: Worker) -> None:
    text = (
        "(set-logic QF_LRA)(declare-fun x () Real)(declare-fun a () Bool)(declare-fun b () Bool)"
        "(assert (and (= a (> x 0.0)) (= b (> x 1.0))))(check-sat)"
    )
    answer, states = worker.states(text, ["a", "b"], limit=10)
    assert answer.status == UNSAT
    assert sorted(states) == [[False, False], [True, False], [True, True]]
    answer, states = worker.states(text, ["a", "b"], limit=2)
    assert answer.status == SAT
    assert len(states) == 2


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(p) for p in path.read_text().split()] if path.exists() else []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_orphans_when_the_parent_is_killed() -> None:
    """The parent dies by SIGKILL in the middle of a query: server and solver must follow."""
    program = textwrap.dedent(f"""
        from exan_verify.smt.solvers.run import Strategy, Worker
        worker = Worker()
        worker.ask("(set-logic QF_NRA)(assert true)(check-sat)", Strategy("z3", "smt"))
        print("ready", flush=True)
        worker.ask({HARD!r}, Strategy("z3", "qfnra-nlsat"))
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        family: list[int] = []
        deadline = time.monotonic() + 20
        while len(family) < 2 and time.monotonic() < deadline:
            servers = children_of(parent.pid)
            family = servers + [c for s in servers for c in children_of(s)]
            time.sleep(0.05)
        assert len(family) >= 2, "the query did not start"
        os.kill(parent.pid, signal.SIGKILL)
    assert all_end(family)
