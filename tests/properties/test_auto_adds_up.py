"""``auto`` returns every sample that the methods it asked return, none of them twice and none wrong.

Methods that hand out drawn parts of a batch make the parts overlap, nest or complete one another as methods
seldom do; the package's own are asked on batches at which some of them see only a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify.bench.agreement import drawn_batch, drawn_network, gradient_of
from exan_verify.errors import RangeError
from exan_verify.models.chain import to_any_network
from exan_verify.numeric import attack
from exan_verify.numeric.problem.metrics import wrong_claims
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Attack, Finding, Method
from exan_verify.numeric.problem.remainder import without
from exan_verify.numeric.problem.spectrum import ColumnSpace

AUTO = attack.AUTO


@dataclass(frozen=True, kw_only=True)
class Part:
    """A method that finds the inputs ``x`` (m, d) with deltas ``deltas`` (m, n_1), and says what is left."""

    name: str
    x: Tensor
    deltas: Tensor

    def find(self, _: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        left = spaces[0].basis
        if len(self.x):
            whole = len(self.x) == spaces[0].rank
            left = left[:, :0] if whole else without(spaces[0], self.deltas, self.x).basis
        return Finding(
            method=self.name,
            x=self.x,
            rest=left,
            rest_sine=1e-3,
            layer=1,
            layers=(),
            reason="a part" if left.shape[1] else "",
        )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Another method, and how often it was asked."""

    method: Method
    times: list[None] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.method.name

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        self.times.append(None)
        return self.method.find(problem, spaces)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A network, a batch x (M, d), classes (M,), and the gradient of its mean cross-entropy."""

    model: nn.Sequential
    x: Tensor
    y: Tensor

    def part(self, chosen: Sequence[int], name: str) -> Part:
        deltas = [
            gradient_of(self.model, self.x[m : m + 1], self.y[m : m + 1], "cross_entropy", "sum")["0.bias"]
            for m in chosen
        ]
        stacked = torch.stack(deltas) if deltas else torch.zeros(0, len(self.model[0].bias)).double()
        return Part(name=name, x=self.x[list(chosen)], deltas=stacked / len(self.x))

    def attacked(self, methods: Sequence[Method], monkeypatch: pytest.MonkeyPatch) -> Attack | None:
        """What ``auto`` returns where these are its methods; None where all are out of range."""
        monkeypatch.setattr(attack, "AUTO", tuple(methods))
        given = gradient_of(self.model, self.x, self.y, "cross_entropy", "mean")
        network = to_any_network(self.model)
        try:
            return attack.run(network, given, loss="cross_entropy", reduction="mean", batch_size=len(self.x))
        except RangeError:
            return None

    def added(self, methods: Sequence[Method], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
        """How many samples ``methods`` give together, and the most that one of them does by itself."""
        counted = [Asked(method=method) for method in methods]
        together = self.attacked(counted, monkeypatch)
        asked = [one.method for one in counted if one.times]
        parts = [part for one in asked if (part := self.attacked([one], monkeypatch)) is not None]
        if together is None:
            assert not parts
            return 0, 0
        bounds = [one.error_bound for one in together.status]
        for part in parts:
            for row, label, one in zip(part.x, part.y, part.status, strict=True):
                near = (together.x - row).abs().amax(dim=1) <= one.error_bound + torch.tensor(bounds).double()
                assert label in together.y[near], f"a sample of {part.method} is lost"
        # what is found twice has one sample to be matched with, and counts as wrong
        assert wrong_claims(together.x, together.y, bounds, self.x, self.y) == 0
        return len(together.status), max((len(part.status) for part in parts), default=0)


def drawn_parts(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Two to four parts of a batch, drawn, of a network that is wide enough to tell samples one by one."""
    rng = np.random.default_rng([seed, 21])
    samples, features = int(rng.integers(3, 7)), int(rng.integers(8, 16))
    model = drawn_network((features, int(rng.integers(60, 90)), 4), rng)
    x, y = drawn_batch("randn", samples, features, 4, rng)
    scene = Scene(model=model, x=x, y=y)
    chosen = [np.flatnonzero(rng.random(samples) < 0.5).tolist() for _ in range(int(rng.integers(2, 5)))]
    parts = [scene.part(one, f"part {k}") for k, one in enumerate(chosen)]
    return scene.added(parts, monkeypatch)


def own_methods(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The package's own methods on a batch of a narrow network."""
    rng = np.random.default_rng([seed, 11])
    classes = int(rng.integers(2, 5))
    widths = (int(rng.integers(4, 12)), int(rng.integers(8, 20)), classes)
    model = drawn_network(widths, rng)
    x, y = drawn_batch("randn", int(rng.integers(3, 7)), widths[0], classes, rng)
    scene = Scene(model=model, x=x, y=y)
    return scene.added(AUTO, monkeypatch)


def test_parts_are_added_up(monkeypatch: pytest.MonkeyPatch):
    counts = [drawn_parts(seed, monkeypatch) for seed in range(12)]
    assert sum(together > most > 0 for together, most in counts) >= 4


def test_what_the_methods_of_auto_find_is_kept(monkeypatch: pytest.MonkeyPatch):
    counts = [own_methods(seed, monkeypatch) for seed in range(8)]
    assert sum(most > 0 for _, most in counts) >= 4


@pytest.mark.campaign
def test_what_auto_adds_up_campaign(monkeypatch: pytest.MonkeyPatch):
    for seed in range(300):
        drawn_parts(seed, monkeypatch)
        own_methods(seed, monkeypatch)
