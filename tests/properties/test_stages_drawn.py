"""Drawn networks of every kind of stage, and of neurons with slopes: exact passes, verdicts, certificates."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from exan_verify import Outcome, certify, check
from exan_verify.core.arrays import fractions
from exan_verify.core.network import PiecewiseNetwork
from exan_verify.core.question import Loss, Reduction
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import InputError
from exan_verify.exact.backprop import gradient
from exan_verify.exact.pictures import forward_stages
from exan_verify.testing import batches, networks, staged_networks
from exan_verify.testing.strategies import STAGES
from tests.conftest import examples
from tests.support.staged_cases import staged_gradient, torch_gradient

DRAWING = settings(examples(12), phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])


@DRAWING
@given(st.data())
def test_exact_gradients_of_all_stages_are_autograds(data: st.DataObject):
    network = data.draw(staged_networks())
    batch = data.draw(batches(network, Loss.MSE, max_samples=2))
    features, known = torch_gradient(network, batch)
    exact = forward_stages(network, batch).values[-1].T.fractions().astype(float)
    assert np.abs(exact - features).max() <= 1e-12 * max(1.0, np.abs(features).max())
    if network.pooled:
        return
    found = staged_gradient(network, batch)
    assert found.keys() == known.keys()
    scale = max(1.0, *(np.abs(value).max() for value in known.values()))
    for name, value in known.items():
        assert np.abs(found[name].astype(float) - value).max() <= 1e-12 * scale, name


def test_verdicts_on_all_stages_are_accepted_and_twins_are_never_unique():
    seen: Counter[str] = Counter()

    @DRAWING
    @given(staged_networks(hidden=24), st.data())
    def judged(network, data) -> None:
        batch = data.draw(batches(network, Loss.CROSS_ENTROPY, samples=2, generic=True))
        verdict = certify(network, batch=batch)
        seen[verdict.outcome.value] += 1
        if verdict.certificate is not None:
            claim = check(json.dumps(verdict.certificate), network, batch=batch)
            assert (claim.outcome, claim.samples) == (verdict.outcome, verdict.samples)
        twins = certify(network, batch=batch.select([0, 0]))
        assert twins.outcome is not Outcome.UNIQUE
        assert SampleStatus.DETERMINED not in twins.samples

    judged()
    assert seen["ambiguous"] + seen["unknown"] > 0


def test_exact_gradients_with_slopes_are_autograds():
    @DRAWING
    @given(networks(slopes=(0.01, -0.5, 3), max_width=5, max_depth=3), st.data())
    def judged(network, data) -> None:
        assert isinstance(network, PiecewiseNetwork)
        batch = data.draw(batches(network, Loss.MSE))
        found = gradient(network, batch, Loss.MSE, Reduction.SUM).tensors
        tensors = {n: torch.tensor(a.astype(float)).requires_grad_(True) for n, a in network.parameters()}
        h = torch.tensor(batch.inputs.astype(float))
        for k, layer in enumerate(network.layers):
            h = torch.nn.functional.linear(h, *(tensors[name] for name, _ in layer.parameters()))
            if (k + 1) < network.depth:
                slope = torch.tensor(network.activation(k + 1).slope.astype(float))
                h = torch.where(h > 0, h, h * slope)
        ((h - torch.tensor(batch.labels.astype(float))) ** 2).sum().backward()
        scale = max(1.0, *(t.grad.abs().max().item() for t in tensors.values()))
        for name, tensor in tensors.items():
            assert np.abs(found[name].astype(float) - tensor.grad.numpy()).max() <= 1e-12 * scale, name

    judged()


def test_arguments_are_checked():
    for wrong in ((), (1,), (float("nan"),), ("a",), 0.5):
        with pytest.raises(InputError, match="slopes"):
            networks(slopes=wrong)
    for wrong in ((), "sum", ("pool",)):
        with pytest.raises(InputError, match="stages"):
            staged_networks(stages=wrong)
    assert set(STAGES) >= {"sum", "groups"}
    assert Fraction(1, 2) in fractions(np.array([0.5]))
