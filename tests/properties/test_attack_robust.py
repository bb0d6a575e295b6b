"""Gradients that are not, or not exactly, a batch's: the attack refuses or says less, but nothing wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.bench.robustness import (
    MODES,
    TRAINED,
    Mode,
    Scene,
    attack_spoiled,
    local_steps,
    mnist_scene,
    noisy,
)
from tests.conftest import examples
from tests.support.numeric_cases import drawn_batch
from tests.support.torch_reference import perceptron

METHODS = ("auto", "assign", "peel")
EXACT = [mode for mode in MODES if mode.name in {"float64", "float32", "float32 sent as float64"}]


def small_scene(seed: int, samples: int = 4) -> Scene:
    x, y = drawn_batch("randn", samples, 30, 5, np.random.default_rng([seed, 1]))
    return Scene(model=perceptron(30, 120, 5, seed=seed), x=x.float(), y=y, seed=seed)


def slow(mode: Mode, method: str) -> bool:
    """Seconds, and much like a mode that is always asked."""
    return (
        (mode.loss != "cross_entropy" and "noise" in mode.name)
        or mode.name in ("noise 1e-03", "two local steps, rate 1e-6")
        or (method == "assign" and mode.name in ("largest 10 %", "two local steps, rate 0.1"))
    )


@pytest.mark.parametrize(
    ("mode", "method"),
    [
        pytest.param(
            mode,
            method,
            id=f"{mode.name}-{method}",
            marks=[pytest.mark.campaign] if slow(mode, method) else [],
        )
        for k, mode in enumerate(one for one in MODES if one is not TRAINED)
        # what auto asks first and next, by itself in turn
        for method in ("auto", *([METHODS[1 + k % 6 // 3]] if k % 3 == 1 else []))
    ],
)
def test_nothing_wrong_is_claimed(mode: Mode, method: str):
    # any error outside the package's own family fails the test
    assert attack_spoiled(mode, small_scene(3, 3), method=method).wrong == 0


@pytest.mark.parametrize("mode", EXACT, ids=lambda mode: mode.name)
def test_rounded_gradients_are_recovered(mode: Mode):
    # the law above would hold for an attack that claims nothing
    outcome = attack_spoiled(mode, small_scene(3))
    assert (outcome.recall, outcome.confirmed + outcome.consistent, outcome.refused) == (1.0, 4, "")


@pytest.mark.parametrize("name", ["noise 1e-03", "bfloat16 sent as float64"])
def test_noise_leaves_samples_with_wide_estimates_that_hold(name: str):
    # no other batch is excluded, and what is known less well than to a thousandth is still a leak
    (mode,) = (mode for mode in MODES if mode.name == name)
    outcome = attack_spoiled(mode, mnist_scene(1))
    assert outcome.shown >= 15 / 16
    assert (outcome.confirmed, outcome.consistent, outcome.wrong) == (0, 16, 0)
    assert outcome.bound is not None
    assert 1e-3 < outcome.bound < 0.05


def test_steps_at_rate_zero_are_one_gradient():
    scene = small_scene(2)
    whole, mean = scene.gradient(), local_steps(2, 0.0, averaged=True)(scene)
    assert all(torch.allclose(whole[name], mean[name], rtol=1e-12, atol=1e-16) for name in whole)
    total = local_steps(2, 0.0)(scene)
    assert all(torch.allclose(total[name], 2 * whole[name], rtol=1e-12, atol=1e-16) for name in whole)
    # one step for each of the four samples; there is no fifth
    assert all(
        torch.equal(local_steps(5, 0.1)(scene)[name], g) for name, g in local_steps(4, 0.1)(scene).items()
    )


@given(st.floats(-13, 0), st.integers(0, 2**31), st.integers(1, 5), st.booleans())
@examples(12)
def test_bounds_cover_noise(exponent: float, seed: int, samples: int, told: bool):
    mode = Mode(name="noise", spoil=noisy(10**exponent), told=told)
    assert attack_spoiled(mode, small_scene(seed, samples)).wrong == 0


@given(st.sampled_from(MODES), st.sampled_from(METHODS), st.integers(0, 2**31), st.integers(1, 6))
@examples(16)
def test_nothing_wrong_is_claimed_of_any_batch(mode: Mode, method: str, seed: int, samples: int):
    assert attack_spoiled(mode, small_scene(seed, samples), method=method).wrong == 0
