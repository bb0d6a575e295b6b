"""An attack on a release rests on what is sent alone, and what it confirms is the batch's."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from exan_verify import Release, attack
from exan_verify.errors import GradientError, RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.records import Attack, Tier
from exan_verify.testing import releases
from tests.conftest import examples
from tests.support.attack_cases import Case, cases, kind_of
from tests.support.release_cases import narrower
from tests.support.torch_reference import autograd

Question = tuple[Case, Release, np.random.Generator]


@st.composite
def asked(draw: st.DrawFn) -> Question:
    case = draw(cases())
    release = draw(releases(to_network(case[0])))
    return case, release, np.random.default_rng(draw(st.integers(0, 2**31)))


def attacked(case: Case, gradient: dict[str, Tensor], release: Release) -> Attack | str:
    """The outcome, or why there is none."""
    model, x, y, loss, reduction, _, told = case
    labels = "one_hot" if release.weights == "positive" else kind_of(y)
    options = {"labels": labels, "batch_size": len(x) if told else None, "release": release}
    try:
        return attack(model, gradient, loss=loss, reduction=reduction, **options)
    except (RangeError, GradientError) as error:
        return str(error)


def whole_gradient(case: Case) -> dict[str, Tensor]:
    model, x, y, loss, reduction, dtype, _ = case
    return autograd(model, x.to(dtype), y, loss, reduction)


def spoiled(gradient: dict[str, Tensor], release: Release, rng: np.random.Generator) -> dict[str, Tensor]:
    """The gradient with numbers of any size, and none, in the place of what is withheld."""
    found = {}
    for name, given_ in gradient.items():
        other = torch.tensor(rng.normal(size=given_.shape) * 10 ** rng.uniform(-9, 9, given_.shape))
        other[torch.tensor(rng.random(given_.shape) < 0.1)] = torch.nan
        sent = torch.tensor(release.sends(name, len(given_))).reshape(-1, *(1,) * (given_.dim() - 1))
        found[name] = torch.where(sent, given_, other.to(given_))
    return found


def only_sent(gradient: dict[str, Tensor], release: Release) -> dict[str, Tensor]:
    """The rows that are sent, of the tensors that have some."""
    masks = {name: torch.tensor(release.sends(name, len(g))) for name, g in gradient.items()}
    return {name: g[masks[name]] for name, g in gradient.items() if bool(masks[name].any())}


def equal(first: Attack | str, second: Attack | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    return (
        torch.equal(first.x, second.x)
        and torch.equal(first.y, second.y)
        and first.status == second.status
        and (first.reason, first.batch_size, first.scale) == (second.reason, second.batch_size, second.scale)
        and len(first.candidates) == len(second.candidates)
        and all(torch.equal(a.x, b.x) for a, b in zip(first.candidates, second.candidates, strict=True))
    )


def beyond(found: Attack, case: Case, *tiers: Tier) -> list[float]:
    """Samples of these tiers that are further from a sample of the batch than their bound, with ratios."""
    result = score(found.x, found.y, case[1], case[2])
    return [
        one.largest / found.status[one.index].error_bound
        for one in result.samples
        if found.status[one.index].tier in tiers and not one.largest <= found.status[one.index].error_bound
    ]


def missed(found: Attack, case: Case, release: Release) -> float:
    """How far the batch found is from what is sent, relative to that, in float64."""
    model, x, _, loss, reduction, *_ = case
    ours = autograd(model, found.x.double(), found.y, loss, reduction)
    theirs = whole_gradient((model, x, *case[2:5], torch.float64, False))
    left, right = only_sent(ours, release), only_sent(theirs, release)
    squares = [((left[n] - g).square().sum(), g.square().sum()) for n, g in right.items()]
    return float((sum(a for a, _ in squares) / sum(b for _, b in squares)) ** 0.5)


@given(asked())
@examples(25)
def test_what_is_withheld_is_not_read(question: Question):
    case, release, rng = question
    gradient = whole_gradient(case)
    found = attacked(case, gradient, release)
    assert equal(found, attacked(case, spoiled(gradient, release, rng), release))
    assert equal(found, attacked(case, only_sent(gradient, release), release))


@given(asked())
@examples(25)
def test_what_is_confirmed_is_the_batch_whatever_is_sent(question: Question):
    case, release, rng = question
    gradient = whole_gradient(case)
    for sent in (release, narrower_of(case, release, rng)):
        found = attacked(case, gradient, sent)
        if isinstance(found, str):
            continue
        assert not beyond(found, case, Tier.CONFIRMED)
        if found.complete and sent.weights == "equal" and len(found.x) == len(case[1]):
            assert missed(found, case, sent) < (1e-3 if case[5] is torch.float32 else 1e-6)


def narrower_of(case: Case, release: Release, rng: np.random.Generator) -> Release:
    """A release of some rows of what the other sends."""
    arrays = dict(to_network(case[0]).parameters())
    rows = {name: release.sends(name, len(array)) for name, array in arrays.items()}
    full = Release(rows={n: m for n, m in rows.items() if m.any()}, weights=release.weights.value)
    return narrower(rng, replace_tensors(full), 0.7)


def replace_tensors(release: Release) -> Release:
    return Release(tensors=list(release.rows), rows=release.rows, weights=release.weights.value)
