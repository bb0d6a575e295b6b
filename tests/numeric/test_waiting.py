"""Long work is awaited: progress is told meanwhile, and what it raises ends the waiting at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import attack
from exan_verify.errors import BudgetExhausted, InputError
from exan_verify.models import strided_cnn
from exan_verify.numeric import attack as numeric_attack
from exan_verify.numeric import waiting
from exan_verify.numeric.attack import METHODS
from exan_verify.numeric.problem.metrics import wrong_claims
from exan_verify.numeric.waiting import Telling, awaited, limited, proceed
from tests.support.numeric_cases import drawn_network
from tests.support.torch_reference import autograd, he, uniform

Stepped = Callable[[str, float], None]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BEAT", 1e-3)


class Clock:
    """A clock that only tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(waiting.time, "monotonic", lambda: self.now)


@pytest.fixture
def problem() -> tuple[nn.Module, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    model = drawn_network((20, 96, 5), rng)
    # one sample twice, which no method completes
    x = torch.tensor(rng.normal(size=(5, 20))[[0, 0, 1, 2, 3, 4]])
    y = torch.tensor([0, 0, 1, 2, 3, 4])
    return model, autograd(model, x, y), x, y


@pytest.mark.usefixtures("quick")
def test_whoever_waits_is_told_of_progress_until_the_work_is_done():
    told: list[str] = []
    enough = threading.Event()

    def progress(what: str, _: float) -> None:
        told.append(what)
        if len(told) == 5:
            enough.set()

    tell = Telling(progress)
    tell("solving", 0.5)
    assert tell.during(lambda: enough.wait(60) and torch.get_num_threads()) == torch.get_num_threads()
    assert set(told) == {"solving"}
    assert len(told) >= 5


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", [BudgetExhausted, KeyboardInterrupt, ZeroDivisionError])
def test_what_progress_raises_ends_the_waiting_and_then_the_work(kind: type[BaseException]):
    ended = threading.Event()

    def work() -> None:
        try:
            while True:
                proceed()
        finally:
            ended.set()

    def beat() -> None:
        raise kind

    with pytest.raises(kind):
        awaited(work, beat)
    assert ended.wait(60)


def test_what_the_work_raises_is_raised_and_its_state_is_that_of_the_caller():
    def work() -> None:
        assert not torch.is_grad_enabled()
        raise InputError("no")

    with torch.no_grad(), pytest.raises(InputError, match="no"):
        awaited(work, lambda: None)
    proceed()  # outside of awaited work there is nothing to give up


def test_a_budget_counts_from_when_it_is_said(monkeypatch: pytest.MonkeyPatch):
    clock, told = Clock(monkeypatch), []
    tell = limited(lambda what, _: told.append(what), 5)
    early = limited(None, 5, since=998.0, remedy="wait")
    assert tell is not None
    assert early is not None
    clock.now = 1004.9
    tell("a", 0.0)
    with pytest.raises(BudgetExhausted, match="the budget of 5 s ran out; wait"):
        early("a", 0.0)
    clock.now = 1005.0
    with pytest.raises(BudgetExhausted, match="the budget of 5 s ran out; give a larger budget"):
        tell("b", 0.0)
    assert told == ["a"]
    assert limited(None, None) is None


@pytest.mark.parametrize("budget", [0, -1, 0.0, float("nan"), float("inf"), True, "3", [3], 3j])
def test_budgets_are_positive_numbers(problem, budget: object):
    model, given, *_ = problem
    with pytest.raises(InputError, match=r"^budget=.* cannot be used; give a positive finite number"):
        attack(model, given, budget=budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [60, 1e9, np.float32(60), np.int64(60)])
def test_a_budget_that_suffices_changes_nothing(problem, budget: float):
    model, given, *_ = problem
    plain, limited_one = attack(model, given), attack(model, given, budget=budget)
    assert torch.equal(plain.x, limited_one.x)
    assert not limited_one.unfinished


class Blocked:
    """A method that is in one long call until the test is over, or for ever."""

    name = "blocked"

    def __init__(self) -> None:
        self.over = threading.Event()

    def find(self, *_: object) -> object:
        self.over.wait(60)
        raise AssertionError


@pytest.mark.usefixtures("quick")
def test_a_budget_ends_a_call_that_nothing_interrupts(problem, monkeypatch: pytest.MonkeyPatch):
    model, _, x, y = problem
    # samples 0 and 1 share a pattern, so that lifting leaves them to other methods
    x[1] += 1e-5
    given = autograd(model, x, (y := torch.tensor([0, 1, 1, 2, 3, 4])))
    clock, blocked = Clock(monkeypatch), Blocked()

    def progress(what: str, _: float) -> None:
        clock.now += what.startswith("blocked")

    for methods, found_first in (((blocked, METHODS["lift"]), False), ((METHODS["lift"], blocked), True)):
        monkeypatch.setattr(numeric_attack, "AUTO", methods)
        if not found_first:
            with pytest.raises(BudgetExhausted, match="the budget of 7 s ran out"):
                attack(model, given, budget=7, progress=progress)
            continue
        found = attack(model, given, budget=7, progress=progress)
        assert found.unfinished
        assert found.reason.startswith("the budget of 7 s ran out; give a larger budget; ")
        assert len(found.x) > 0
        assert wrong_claims(found.x, found.y, [s.error_bound for s in found.status], x, y) == 0
    blocked.over.set()


@dataclass
class Stops:
    """Progress that raises from its call number ``last`` on."""

    kind: type[BaseException]
    last: int
    calls: int = 0

    def __call__(self, _what: str, _share: float) -> None:
        self.calls += 1
        if self.calls >= self.last:
            raise self.kind


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", [BudgetExhausted, KeyboardInterrupt])
@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_every_method_is_interrupted_at_every_call(problem, method: str, kind: type[BaseException]):
    model, given, x, y = problem
    if method == "descend":  # four samples at most
        x, y = x[1:4], y[1:4]
        given = autograd(model, x, y)
    for last in (1, 2, 3, 5, 8, 13):
        progress = Stops(kind, last)
        try:
            found = attack(model, given, method=method, progress=progress, batch_size=len(x))
        except kind:
            continue
        # an interruption is never swallowed, a budget leaves what was confirmed
        assert kind is BudgetExhausted or progress.calls < last
        assert wrong_claims(found.x, found.y, [s.error_bound for s in found.status], x, y) == 0


@pytest.mark.usefixtures("quick")
def test_pictures_are_interrupted_at_every_call():
    model = he(strided_cnn(image_size=8, widths=(12, 24), head=(64,))).double()
    x, y = uniform(2, 3, 8, 8), torch.tensor([3, 1])
    given = autograd(model, x, y)
    for last in (1, 5, 25):
        try:
            found = attack(model, given, progress=Stops(BudgetExhausted, last), picture_iterations=20)
        except BudgetExhausted:
            continue
        assert (
            wrong_claims(found.x.flatten(1), found.y, [s.error_bound for s in found.status], x.flatten(1), y)
            == 0
        )


_SCRIPT = """
import torch
from exan_verify.errors import BudgetExhausted
from exan_verify.numeric import waiting

def beat():
    raise BudgetExhausted("over")

waiting.BEAT = 1e-3
matrix = torch.eye(600, dtype=torch.float64) + 1
try:
    waiting.awaited(lambda: [torch.linalg.svd(matrix) for _ in range(3)], beat)
except BudgetExhausted:
    pass
raise SystemExit(7)
"""


def test_the_interpreter_ends_in_order_after_work_was_given_up():
    ended = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (7, b"")
