"""certify, audit and check on networks with sums of branches, and where these are not inverted."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Outcome, certify, check
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.core.staged import Convolution, Residual, StagedNetwork
from exan_verify.core.verdict import SampleStatus
from exan_verify.decide import stages
from exan_verify.errors import CertificateRejected, ShapeError, UnsupportedLayerError
from exan_verify.exact.backprop import backward, forward
from exan_verify.exact.pictures import forward_stages
from exan_verify.models.pictures.staged import to_staged
from tests.support.cases import batch_of
from tests.support.staged_cases import Sum, pictures, staged_gradient
from tests.support.torch_reference import autograd, he, initialised


def wide(channels: int, out: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, **options)


def residual(kind: str, seed: int) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """A stem and one sum of branches, below a head 40-3."""
    body: list[nn.Module]
    body, size = [wide(1, 12), nn.ReLU(), Sum([wide(12, 12), wide(12, 12)])], 4
    if kind == "strided":
        inner = [wide(8, 16, stride=2), wide(16, 16)]
        body, size = [wide(1, 8), nn.ReLU(), Sum(inner, nn.Conv2d(8, 16, 1, stride=2))], 6
    elif kind == "three":
        body = [wide(1, 12), nn.ReLU(), Sum([wide(12, 10), wide(10, 9), wide(9, 12)])]
    elif kind == "first":
        body = [Sum([wide(1, 30)], nn.Conv2d(1, 30, 1))]
    elif kind == "grouped":
        body = [wide(2, 12), nn.ReLU(), Sum([wide(12, 12, groups=2), wide(12, 24, groups=2)], wide(12, 24))]
    shape = getattr(body[0], "in_channels", 1), size, size
    features = nn.Sequential(*body, nn.Flatten())(torch.zeros(1, *shape)).shape[1]
    layers = [*body, nn.Flatten(), nn.Linear(features, 40), nn.ReLU(), nn.Linear(40, 3)]
    return initialised(nn.Sequential(*layers).double(), seed), shape


@pytest.mark.parametrize("kind", ["identity", "strided", "three", "first", "grouped"])
def test_gradients_are_torchs_and_pictures_are_determined(kind: str):
    model, shape = residual(kind, 0)
    x, y = pictures(2, shape, 0), [0, 2]
    network = to_staged(model, shape)
    found = staged_gradient(network, batch_of(network, x, y))
    targets = torch.eye(3, dtype=torch.float64)[y]
    known = autograd(model, torch.tensor(x), targets, "mse", "sum")
    assert found.keys() == known.keys()
    for name, wanted in known.items():
        scale = wanted.abs().max().item()
        assert np.abs(found[name].astype(float) - wanted.numpy()).max() <= 1e-12 * scale, name
    verdict = certify(model, batch=(x, y))
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert "sum with Conv2d" in verdict.architecture
    assert check(json.dumps(verdict.certificate), model, batch=(x, y)).outcome is Outcome.UNIQUE
    # another network: the same numbers, added to nothing
    plain = [part for stage in network.stages for part in getattr(stage, "inner", (stage,))]
    if kind != "first":
        other = StagedNetwork(stages=tuple(plain), head=network.head)
        with pytest.raises(CertificateRejected, match="another model"):
            check(verdict.certificate, other, batch=(x, y))


def folded_sum(targets: tuple[int, int, int] = (1, 1, -2)) -> tuple[StagedNetwork, Batch, Batch]:
    """relu(w u + c + x), u = relu(x), on three channels of one pixel, w = (-2, 1/2, 1/4): where the first
    channel's x > 0 is turned to -x, the sum stays, c - x. Its deltas are multiples of ``targets``.
    """
    rng = np.random.default_rng(3)

    def depthwise(weight: list[object], bias: list[int], name: str) -> Convolution:
        return Convolution(
            weight=np.array(weight, dtype=object).reshape(3, 1, 1, 1) * Fraction(1),
            bias=np.array(bias, dtype=object) * Fraction(1),
            input_shape=(3, 1, 1),
            stride=(1, 1),
            padding=(0, 0, 0, 0),
            dilation=(1, 1),
            name=name,
            groups=3,
        )

    inner = (
        depthwise([1, 1, 1], [0, 0, 0], "a"),
        depthwise([-2, Fraction(1, 2), Fraction(1, 4)], [5, 1, 2], "b"),
    )
    block = Residual(inner=inner, shortcut=None, input_shape=(3, 1, 1), name="sum")
    head = ReluNetwork.from_arrays(
        [rng.integers(-4, 5, (40, 3)), rng.integers(1, 4, (1, 40))], [rng.integers(-9, 10, 40), [0]]
    )
    network = StagedNetwork(stages=(block,), head=head)
    x = [[1, 3, 2], [1, 1, 5], [1, 4, 9]]

    def batch(x: list[list[int]], y: object) -> Batch:
        return Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.REAL)

    start = batch(x, [[0], [0], [0]])
    features = forward_stages(network, start).values[-1].T.fractions()
    features.setflags(write=False)
    passed = forward(head, Batch(inputs=features, labels=start.labels))
    back = backward(head, passed, np.full((1, 3), Fraction(1))).at(1).fractions()
    slopes = fractions(head.layers[0].weight).T[0].dot(back)
    y = [[passed.logits[0, m] - Fraction(targets[m]) / (2 * slopes[m])] for m in range(3)]
    return network, batch(x, y), batch([[-a, b, c] for a, b, c in x], y)


def test_equations_of_both_branches_would_be_wrong(monkeypatch: pytest.MonkeyPatch):
    network, first, second = folded_sum()
    one, other = staged_gradient(network, first), staged_gradient(network, second)
    assert all((one[name] == other[name]).all() for name in one)
    asked = {"loss": "mse", "reduction": "sum", "labels": "real"}
    for batch in (first, second):
        verdict = certify(network, batch=batch, **asked)
        assert verdict.outcome is Outcome.UNKNOWN
        assert SampleStatus.DETERMINED not in verdict.samples
    monkeypatch.setattr(stages, "_full", lambda *_: (True, 0))
    forged = certify(network, batch=first, **asked)
    assert forged.outcome is Outcome.UNIQUE  # the head determines features and labels
    with pytest.raises(CertificateRejected, match="full column rank"):
        check(forged.certificate, network, batch=first)
    network, first, second = folded_sum((1, 1, 1))
    one, other = staged_gradient(network, first), staged_gradient(network, second)
    assert any((one[name] != other[name]).any() for name in one)


def test_the_kernel_takes_the_ranks_of_sums_itself(monkeypatch: pytest.MonkeyPatch):
    """Too few weights for the last convolution's own to determine what it takes: features alone are known."""
    model, shape = residual("identity", 1)
    inner = Sum([wide(12, 4), nn.Conv2d(4, 12, 1)])
    model[2] = initialised(inner.double(), 5)
    x, y = pictures(2, shape, 1), [0, 2]
    verdict = certify(model, batch=(x, y))
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.samples == (SampleStatus.FEATURES,) * 2
    assert "sum '2.add'" in verdict.reason
    assert check(json.dumps(verdict.certificate), model, batch=(x, y)).samples == verdict.samples
    monkeypatch.setattr(stages, "_full", lambda *_: (True, 0))
    forged = certify(model, batch=(x, y))
    assert forged.outcome is Outcome.UNIQUE
    with pytest.raises(CertificateRejected, match="full column rank"):
        check(forged.certificate, model, batch=(x, y))


def test_planted_motions_below_a_sum_are_ambiguous():
    """What moves below a narrow convolution keeps all that is added above it."""
    body = [nn.Conv2d(1, 2, 2, stride=2), nn.ReLU(), Sum([wide(2, 4), wide(4, 2)]), nn.Flatten()]
    model = nn.Sequential(*body, nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 3)).double()
    x, y = pictures(2, (1, 8, 8), 2), [0, 1]
    verdict = certify(initialised(model, 2), batch=(x, y))
    assert verdict.outcome is Outcome.AMBIGUOUS
    assert SampleStatus.DETERMINED not in verdict.samples
    claim = check(json.dumps(verdict.certificate), model, batch=(x, y))
    assert claim.outcome is Outcome.AMBIGUOUS
    dark = residual("identity", 3)[0]
    dark[2].inner[1].bias.data.sub_(1000)  # the sum's own outputs are all inactive
    verdict = certify(dark, batch=(pictures(2, (1, 4, 4), 3), [0, 1]))
    assert SampleStatus.DETERMINED not in verdict.samples


def test_norms_in_branches_are_folded():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = wide(12, 12, bias=False), wide(12, 12, bias=False)
            self.first, self.second = nn.BatchNorm2d(12), nn.BatchNorm2d(12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.second(self.b(self.first(self.a(x)).relu())) + x).relu()

    model = nn.Sequential(
        wide(1, 12), nn.ReLU(), Block(), nn.Flatten(), nn.Linear(192, 40), nn.ReLU(), nn.Linear(40, 3)
    )
    he(model, 1)
    x, y = pictures(2, (1, 4, 4), 1), [0, 2]
    verdict = certify(model, batch=(x, y))
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert "BatchNorm folded into it" in verdict.architecture
    assert check(json.dumps(verdict.certificate), model, batch=(x, y)).outcome is Outcome.UNIQUE


def test_other_sums_are_refused_by_name():
    class Before(nn.Module):
        """ReLU before the convolutions, none after the sum."""

        def __init__(self) -> None:
            super().__init__()
            self.a = wide(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x.relu()) + x

    class Pooled(Before):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.a(nn.functional.max_pool2d(x, 3, 1, 1)) + x).relu()

    class Long(Before):
        def __init__(self) -> None:
            super().__init__()
            self.b, self.c, self.d = wide(2, 2), wide(2, 2), wide(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.b(self.a(x).relu()) + self.d(self.c(x).relu())).relu()

    class Ended(Before):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.a(x).relu() + x).relu()

    for block, said in (
        (Before, "in a branch of a sum"),
        (Pooled, "(MaxPool) in a branch of a sum"),
        (Long, "of other branches than"),
        (Ended, "whose ReLU is the end of a branch"),
    ):
        layers = [
            wide(1, 2),
            nn.ReLU(),
            block(),
            nn.Flatten(),
            nn.Linear(32, 40),
            nn.ReLU(),
            nn.Linear(40, 3),
        ]
        with pytest.raises(UnsupportedLayerError) as caught:
            certify(nn.Sequential(*layers), batch=(pictures(2, (1, 4, 4), 0), [0, 1]))
        assert said in str(caught.value), str(caught.value)
    network = to_staged(*residual("strided", 0))
    block = network.stages[1]
    wrong = Residual(inner=block.inner, shortcut=None, input_shape=block.input_shape, name="sum")
    with pytest.raises(ShapeError, match="the sum 'sum' adds"):
        StagedNetwork(stages=(network.stages[0], wrong), head=network.head)
