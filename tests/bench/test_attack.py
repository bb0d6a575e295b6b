"""The attack benchmark: rows by name, columns that say what happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from exan_verify.bench import attack as bench
from exan_verify.bench.attack import CASES, Case, build, run_case, summarise
from exan_verify.bench.suite import Options
from exan_verify.errors import InputError
from exan_verify.numeric import attack as numeric_attack
from exan_verify.numeric.problem.records import Attack
from tests.support.simulated_device import simulated_device

ATTACK = numeric_attack.run
PLACES = [0, 1, 2, 3, 3]
SMALL = Case(name="small", widths=(30, 120, 5), samples=4)


def test_the_rows_are_distinct():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(("dtype", "activation"), [("float64", "ReLU"), ("float32", "LeakyReLU")])
def test_a_small_row(dtype: str, activation: str):
    case = Case(name="small", widths=(30, 120, 5), samples=4, dtype=dtype, activation=activation)
    row = summarise(case, [run_case(case, seed) for seed in (0, 1)])
    assert (row.recall, row.recall_worst, row.wrong, row.claimed, row.complete) == (1.0, 1.0, 0, 8, 2)
    assert row.methods == {"lift": 2}
    assert row.rmse is not None
    assert row.bound is not None
    assert row.rmse <= row.bound < 1e-3
    assert row.labels_right == 1.0
    sloped = 4 * 5 // 2 if activation == "LeakyReLU" else 0
    assert (row.layer, row.unknowns) == (1, 4 * 5 // 2 + 4 * 4 + sloped)
    assert row.peak_mib > 50


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Attack], Attack]) -> list[dict[str, Any]]:
    """What the attack is asked from now on; its results are changed."""
    asked: list[dict[str, Any]] = []

    def attack(*given: Any, **options: Any) -> Attack:
        asked.append(options)
        return change(ATTACK(*given, **options))

    monkeypatch.setattr(numeric_attack, "run", attack)
    return asked


def test_the_attack_runs_on_the_device_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked = changed(monkeypatch, lambda found: found)
    with simulated_device():
        run = run_case(SMALL, 0, "meta")
    assert [options["device"] for options in asked] == ["meta"]
    assert (run.recall, run.wrong) == (1.0, 0)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda found: found, 0),
        (lambda found: replace(found, y=(found.y + 1) % 5), 4),
        (lambda found: replace(found, x=found.x + 1e-3), 4),
        (lambda found: replace(found, x=found.x[PLACES], y=found.y[PLACES], status=found.status * 2), 1),
    ],
)
def test_every_kind_of_wrong_claim_is_counted(
    change: Callable[[Attack], Attack], wrong: int, monkeypatch: pytest.MonkeyPatch
):
    changed(monkeypatch, change)
    assert run_case(SMALL, 0).wrong == wrong


def test_a_row_in_its_own_process_and_progress():
    told: list[tuple[str, int, int]] = []
    suite = replace(bench.SUITE, cases=(SMALL,))
    (row,) = suite.run(Options(seeds=[0], progress=lambda *step: told.append(step)), rows=["small"])
    assert told == [("small", 0, 1)]
    assert (row.name, row.recall, row.wrong) == ("small", 1.0, 0)


def test_unknown_rows_are_refused():
    with pytest.raises(InputError, match=r"attack has no case 'x'; [^:]*:\n  784-512-10 M=8\n"):
        bench.SUITE.run(Options(seeds=[0]), rows=["x"])


@pytest.mark.usefixtures("in_this_process")
def test_long_rows_run_only_when_named():
    long = Case(name="long", widths=(30, 120, 5), samples=2, named=True)
    suite = replace(bench.SUITE, cases=(SMALL, long))
    assert [row.name for row in suite.run(Options(seeds=[0]))] == ["small"]
    assert [row.name for row in suite.run(Options(seeds=[0]), rows=["long"])] == ["long"]


@pytest.mark.parametrize("seed", range(3))
def test_initialisations_are_what_they_are_called(seed: int):
    like = Case(name="a", widths=(784, 200, 10), samples=20, data="mnist", initialisation="normal and Glorot")
    model, _, _ = build(like, seed)
    first, last = model[0].weight.detach().double(), model[2].weight.detach().double()
    assert float(first.std()) == pytest.approx(0.5, rel=0.02)
    limit = (6 / 210) ** 0.5
    assert 0.99 * limit < float(last.abs().max()) <= limit * (1 + 1e-6)
    assert not bool(model[0].bias.any() or model[2].bias.any())
    again, _, _ = build(like, seed)
    assert bool((again[0].weight == model[0].weight).all())
    sharp, x, _ = build(replace(like, initialisation="logits of deviation 5"), seed)
    assert float(sharp(x).detach().std()) == pytest.approx(5, rel=1e-4)


def test_sharp_and_unusual_networks_are_attacked_with_the_size_told():
    for initialisation in ("normal and Glorot", "logits of deviation 5"):
        case = Case(
            name="a",
            widths=(784, 160, 10),
            samples=30,
            data="mnist",
            initialisation=initialisation,
            told=True,
        )
        run = run_case(case, 0)
        assert run.wrong == 0
        assert run.recall > 0.9
