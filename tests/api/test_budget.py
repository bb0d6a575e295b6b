"""A budget that runs out: what was confirmed until then is returned and written, and nothing else."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import attack
from exan_verify.api.files import load_batch, save_batch, save_gradient
from exan_verify.cli import main
from exan_verify.errors import BudgetExhausted
from exan_verify.models import lenet, strided_cnn
from exan_verify.numeric import attack as numeric_attack
from exan_verify.numeric import waiting
from exan_verify.numeric.methods.lifting.lift import Lift
from exan_verify.numeric.problem.metrics import wrong_claims
from exan_verify.numeric.problem.records import Attack, Finding
from tests.support.cnn_cases import pictures
from tests.support.numeric_cases import drawn_network
from tests.support.torch_reference import autograd, normal

Interrupted = list[tuple[str, Attack | None]]


def every_interruption(run: Callable[..., Attack]) -> Interrupted:
    """What is said when, and the outcome when the budget runs out just then; None: nothing but the error."""
    told: list[str] = []
    # what is said anew is always the same; repetitions come with the clock
    with mock.patch.object(waiting, "BEAT", 3600):
        return _every_interruption(run, told)


def _every_interruption(run: Callable[..., Attack], told: list[str]) -> Interrupted:
    run(progress=lambda what, _: told.append(what))
    outcomes: Interrupted = []
    for place, what in enumerate(told):
        seen: list[str] = []

        def progress(now: str, _: float, place: int = place, seen: list[str] = seen) -> None:
            seen.append(now)
            if len(seen) > place:
                raise BudgetExhausted("the budget ran out")

        try:
            outcomes.append((what, run(progress=progress)))
        except BudgetExhausted:
            outcomes.append((what, None))
    return outcomes


def network(*widths: int) -> nn.Sequential:
    return drawn_network(widths, np.random.default_rng(1))


def twins() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A batch of which two samples share a pattern, which lifting leaves to other methods; the others are
    found.
    """
    x = normal(5, 20)[[0, 0, 1, 2, 3, 4]]
    x[1] += 1e-5
    return network(20, 96, 5), x, torch.tensor([0, 1, 1, 2, 3, 4])


def test_what_was_confirmed_before_the_budget_ran_out_is_returned():
    model, x, y = twins()
    given = autograd(model, x, y)
    whole = attack(model, given)
    assert 0 < len(whole.x) < 5
    assert not whole.unfinished
    outcomes = every_interruption(lambda **options: attack(model, given, **options))
    kept = [(what, found) for what, found in outcomes if found is not None]
    assert [what for what, found in outcomes if found is None][-1] == "lift: confirming 4 candidates"
    assert kept[0][0] == "assign: finding candidates"
    for what, found in kept:
        assert found.unfinished == (what != "done")
        assert (len(found.x), found.method) == (len(whole.x), "lift")
        assert wrong_claims(found.x, found.y, [one.error_bound for one in found.status], x, y) == 0
        assert not found.complete
        assert found.reason.startswith("the budget ran out; ") == found.unfinished


def test_features_that_were_confirmed_before_are_returned():
    model = network(24, 160, 128, 96, 5)
    x = normal(3, 24)
    y = torch.tensor([0, 1, 2])
    given = {name: g for name, g in autograd(model, x, y).items() if not name.startswith("2.")}
    outcomes = every_interruption(lambda **options: attack(model, given, partial=True, **options))
    assert outcomes[0][1] is None
    (layer_two, *_) = [found for _, found in outcomes if found is not None]
    assert layer_two.unfinished
    assert layer_two.hidden is not None
    assert (layer_two.hidden.layer, len(layer_two.hidden.values)) == (2, 3)
    for _, found in outcomes:
        if found is not None:
            assert wrong_claims(found.x, found.y, [one.error_bound for one in found.status], x, y) == 0
    assert outcomes[-1][1] is not None
    assert len(outcomes[-1][1].x) == 3


def test_features_of_pictures_are_returned_without_the_pictures():
    model = strided_cnn(image_size=8, widths=(40, 480), head=(96,)).double()
    x, y = pictures((3, 8, 8), 3), torch.tensor([3, 1, 4])
    outcomes = dict(every_interruption(lambda **o: attack(model, autograd(model, x, y), **o)))
    assert outcomes["the fully connected head"] is None
    cut: Any = outcomes["layer by layer"]
    assert (cut.unfinished, cut.complete, len(cut.x), len(cut.features)) == (True, False, 0, 3)
    assert cut.reason == "the budget ran out"
    done: Any = outcomes["done"]
    assert (done.unfinished, done.complete, len(done.x)) == (False, True, 3)


def test_estimates_that_are_not_finished_lose_nothing_else():
    model = lenet(image_size=16).double()
    x, y = pictures((1, 16, 16), 3), torch.tensor([3, 1, 4])
    given = autograd(model, x, y)
    outcomes = every_interruption(lambda **o: attack(model, given, picture_iterations=2, **o))
    cut: Any = next(found for what, found in outcomes if what == "estimating pictures")
    assert (cut.unfinished, cut.estimates, len(cut.features)) == (True, None, 3)
    assert any(stage.deficit for stage in cut.stages)
    assert cut.reason.startswith("the budget ran out; MaxPool")


class Endless:
    """A method that does not end."""

    name = "endless"

    def find(self, *_: Any) -> Finding:
        time.sleep(60)
        raise AssertionError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model, x, y = twins()
    from safetensors.torch import save_file

    save_file(model.state_dict(), "model.safetensors")
    save_gradient("gradient.safetensors", autograd(model, x, y))
    save_batch("batch.npz", x, y)
    return tmp_path


def test_the_command_writes_what_was_confirmed_and_says_so(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    command = ["attack", "model.safetensors", "gradient.safetensors", "--out", "found.npz"]
    monkeypatch.setattr(numeric_attack, "AUTO", (Lift(), Endless()))
    assert main([*command, "--truth", "batch.npz", "--budget", "3", "--json"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert record["unfinished"] is True
    assert record["reason"].startswith("the budget of 3 s ran out; give a larger --budget; ")
    assert record["found"] > 0
    assert len(load_batch("found.npz")[0]) == record["found"] == len(record["score"]["samples"])
    monkeypatch.setattr(numeric_attack, "AUTO", (Endless(), Lift()))
    Path("found.npz").unlink()
    assert main([*command, "--budget", "1"]) == 3
    assert capsys.readouterr().err == "error: undecided: the budget of 1 s ran out; give a larger --budget\n"
    assert not Path("found.npz").exists()


def test_ctrl_c_writes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def pressed(*_: Any) -> Finding:
        raise KeyboardInterrupt

    monkeypatch.setattr(Endless, "find", pressed)
    monkeypatch.setattr(numeric_attack, "AUTO", (Lift(), Endless()))
    command = ["attack", "model.safetensors", "gradient.safetensors", "--out", "found.npz"]
    assert main([*command, "--budget", "60"]) == 130
    assert capsys.readouterr().err.strip() == "error: interrupted"
    assert not Path("found.npz").exists()


def test_a_time_that_is_up_is_said_again_where_python_drops_it(monkeypatch: pytest.MonkeyPatch):
    from exan_verify.cli.terminal import output

    monkeypatch.setattr(output, "_AGAIN", 0.01)

    def work() -> None:
        with output.wall_clock(5):
            with contextlib.suppress(BudgetExhausted):  # dropped, as in a destructor
                signal.raise_signal(signal.SIGALRM)
            threading.Event().wait(60)

    with pytest.raises(BudgetExhausted, match="the budget of 5 s ran out"):
        work()
