"""An attack on a release rests on what is sent alone, and what it confirms is the batch's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from exan_verify import Release, attack
from exan_verify.errors import GradientError, RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.problem.metrics import score
from exan_verify.numeric.problem.records import Attack, Tier
from exan_verify.testing import releases
from tests.conftest import examples
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.release_cases import narrower
from tests.support.torch_reference import autograd


@dataclass(frozen=True)
class Case:
    """A network, a batch, what is sent of its gradient, and how it is attacked."""

    model: nn.Sequential
    x: Tensor
    y: Tensor
    loss: str
    release: Release
    method: str
    told: bool
    rng: np.random.Generator

    @property
    def gradient(self) -> dict[str, Tensor]:
        return autograd(self.model, self.x, self.y, self.loss)

    def attack(self, gradient: dict[str, Tensor], release: Release) -> Attack | str:
        """The outcome, or why there is none."""
        size = len(self.x) if self.told else None
        options = {"loss": self.loss, "batch_size": size, "method": self.method, "release": release}
        try:
            return attack(self.model, gradient, **options)
        except (RangeError, GradientError) as error:
            return str(error)

    def beyond(self, found: Attack) -> list[float]:
        """Confirmed samples that are further from the batch's than their bound says, by how much."""
        result = score(found.x, found.y, self.x, self.y)
        return [
            one.largest / found.status[one.index].error_bound
            for one in result.samples
            if found.status[one.index].tier == Tier.CONFIRMED
            and not (one.largest <= found.status[one.index].error_bound and one.label)
        ]

    def missed(self, found: Attack, release: Release) -> float:
        """How far the batch found is from what is sent, relative to that."""
        ours = only_sent(autograd(self.model, found.x, found.y, self.loss), release)
        theirs = only_sent(self.gradient, release)
        off = sum(float((ours[name] - sent).square().sum()) for name, sent in theirs.items())
        return float((off / sum(float(sent.square().sum()) for sent in theirs.values())) ** 0.5)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    loss = draw(st.sampled_from(["cross_entropy", "mse", "bce", "hinge"]))
    widths = draw(st.lists(st.sampled_from([8, 40]), min_size=1, max_size=2))
    features, classes = draw(st.sampled_from([3, 8])), draw(st.sampled_from([2, 3, 6]))
    model = drawn_network((features, *widths, classes), rng)
    kind, samples = draw(st.sampled_from(["rand", "randn"])), draw(st.integers(1, 4))
    x, y = drawn_batch(kind, samples, features, classes, rng, loss)
    release = draw(releases(to_network(model)))
    method = draw(st.sampled_from(["lift", "peel+lift"]))
    return Case(model, x, y, loss, release, method, draw(st.booleans()), rng)


def spoiled(gradient: dict[str, Tensor], release: Release, rng: np.random.Generator) -> dict[str, Tensor]:
    """The gradient with numbers of any size, and none, in the place of what is withheld."""
    found = {}
    for name, tensor in gradient.items():
        other = torch.tensor(rng.normal(size=tensor.shape) * 10 ** rng.uniform(-9, 9, tensor.shape))
        other[torch.tensor(rng.random(tensor.shape) < 0.1)] = torch.nan
        sent = torch.tensor(release.sends(name, len(tensor))).reshape(-1, *(1,) * (tensor.dim() - 1))
        found[name] = torch.where(sent, tensor, other)
    return found


def only_sent(gradient: dict[str, Tensor], release: Release) -> dict[str, Tensor]:
    """The rows that are sent, of the tensors that have some."""
    masks = {name: torch.tensor(release.sends(name, len(g))) for name, g in gradient.items()}
    return {name: g[masks[name]] for name, g in gradient.items() if bool(masks[name].any())}


def equal(first: Attack | str, second: Attack | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return first == second
    same = [
        (a.status, a.reason, a.batch_size, a.scale, a.complete, [one.reason for one in a.candidates])
        for a in (first, second)
    ]
    return torch.equal(first.x, second.x) and torch.equal(first.y, second.y) and same[0] == same[1]


def narrower_of(case: Case) -> Release:
    """A release of some rows of what the case's sends."""
    arrays = dict(to_network(case.model).parameters())
    masks = {name: case.release.sends(name, len(array)) for name, array in arrays.items()}
    rows = {name: mask for name, mask in masks.items() if mask.any()}
    return narrower(case.rng, Release(tensors=list(rows), rows=rows, weights=case.release.weights.value), 0.8)


@given(cases())
@examples(15)
def test_what_is_withheld_is_not_read(case: Case):
    found = case.attack(case.gradient, case.release)
    assert equal(found, case.attack(spoiled(case.gradient, case.release, case.rng), case.release))
    assert equal(found, case.attack(only_sent(case.gradient, case.release), case.release))


@given(cases())
@examples(15)
def test_what_is_confirmed_is_the_batch_whatever_is_sent(case: Case):
    for release in (case.release, narrower_of(case)):
        found = case.attack(case.gradient, release)
        if isinstance(found, str):
            continue
        assert not case.beyond(found)
        if found.complete and release.weights == "equal" and len(found.x) == len(case.x):
            assert case.missed(found, release) < 1e-6
