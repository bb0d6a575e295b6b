"""Between the ranges of degree two and three all samples are found, and nothing is ever claimed wrongly."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exan_verify.numeric.methods.equations import lifted_unknowns
from exan_verify.numeric.methods.lifting.cubic_operator import cubic_unknowns
from exan_verify.numeric.problem.records import Attack
from tests.conftest import examples
from tests.support.attack_cases import KINDS, LOSSES, Case, attack_case, check_bounds, spoiled
from tests.support.numeric_cases import drawn_batch, drawn_network


def between(width: int, free: int, share: float) -> tuple[int, int]:
    """Fewest and most samples for which degree two lacks equations and degree three needs a ``share``."""
    samples = range(2, width)
    lacking = [m for m in samples if lifted_unknowns(m, min(m, free)) - m > width]
    enough = [m for m in lacking if cubic_unknowns(m, free) - m <= share * width * (m + free)]
    return enough[0], enough[-1]


@st.composite
def cases(draw: st.DrawFn, *, share: float, kinds: tuple[str, ...] = KINDS) -> Case:
    """A network and a batch that only degree three can lift at the last hidden layer, by count."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    # one logit's difference has one direction: there a pair may be mixed by chance
    classes = draw(st.sampled_from([3, 4] if kinds == ("plain",) else [2, 3, 4]))
    width = draw(st.sampled_from([40, 56, 72]))
    loss = draw(st.sampled_from(sorted(LOSSES)))
    free = classes - (loss in ("cross_entropy", "hinge"))
    samples = draw(st.integers(*between(width, free, share)))
    features = draw(st.sampled_from([samples + 4, 40]))
    model = drawn_network((features, width, classes), rng).float()
    x, y = drawn_batch("randn", samples, features, classes, rng)
    if loss in ("mse", "bce"):
        y = nn.functional.one_hot(y, classes).float()
    kind = draw(st.sampled_from(kinds))
    x = spoiled(draw, rng, kind, model, x.float(), y, loss)
    dtype = torch.float64 if kinds == ("plain",) else draw(st.sampled_from([torch.float64, torch.float32]))
    return model, x, y, loss, draw(st.sampled_from(["mean", "sum"])), dtype, True


def lifted(case: Case) -> Attack | None:
    """What lifting finds; None where it is refused."""
    return attack_case(case, method="lift")


def test_the_range_is_not_empty():
    assert between(40, 2, 0.8) == (8, 10)
    assert between(100, 3, 1.0) == (12, 20)
    assert ceil((cubic_unknowns(20, 3) - 20) / 23) <= 100 < ceil((cubic_unknowns(21, 3) - 21) / 24)


@given(cases(share=1.0))
@examples(60)
def test_every_claim_holds(case: Case):
    found = lifted(case)
    if found is not None:
        check_bounds(case, found)


@given(cases(share=0.8, kinds=("plain",)))
@examples(60)
def test_ordinary_batches_are_found_whole(case: Case):
    _, x, _, loss, *_ = case
    found = lifted(case)
    assert found is not None
    if loss == "hinge" and not found.complete:
        # a sample whose margins are all kept has no loss vector, and leaves no trace
        assert found.layers[0].rank < len(x)
        return
    assert found.complete, found.reason
    assert found.method == "lift of degree 3"
    assert max(status.error_bound for status in found.status) < 1e-4
    check_bounds(case, found)
    assert np.isclose(float(torch.cdist(found.x, x.double()).amin(dim=1).max()), 0, atol=1e-5)
