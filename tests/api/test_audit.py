"""The four answers of an audit are kept apart, and its JSON gives no data away."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Box, Outcome, SampleStatus, audit
from exan_verify.api.audit import ambiguity_radius
from exan_verify.core.verdict import Verdict, Witness
from exan_verify.errors import ExanError, InputError, LabelError, ShapeError, UnsupportedLayerError
from tests.support.torch_reference import perceptron, uniform


def model(seed: int = 0, widths: tuple[int, ...] = (12, 40, 4), bias: bool = True) -> nn.Sequential:
    return perceptron(*widths, seed=seed, bias=bias)


def batch(samples: int = 3, features: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    return uniform(samples, features, seed=9).float(), torch.arange(samples) % 4


def test_determined_samples_cannot_move_and_exclusivity_is_what_autograd_shows():
    found = audit(model(), batch())
    assert found.verdict.outcome is Outcome.UNIQUE
    assert found.radius == (0.0, 0.0, 0.0)
    active = (model()[0](batch()[0]) > 0).numpy()
    exclusive = active & (active.sum(0) == 1)
    assert found.exclusivity.counts == (tuple(exclusive.sum(1).tolist()),)
    assert found.published == all(n >= 2 for n in found.exclusivity.counts[0])
    assert found.batch_size == 3
    assert found.classes == (0, 1, 2)


def test_equal_samples_have_no_exan_cannot_be_peeled_and_can_move():
    x, y = batch()
    x[1], y[1] = x[0], y[0]
    found = audit(model(), (x, y))
    assert found.verdict.outcome is Outcome.AMBIGUOUS
    assert found.exclusivity.counts[0][:2] == (0, 0)
    assert found.peelable[:2] == (False, False)
    assert found.radius[0] > 0
    assert found.radius[1] > 0
    assert found.radius[2] in (None, 0.0)


def test_radius_follows_the_verdict():
    verdict = Verdict(
        outcome=Outcome.AMBIGUOUS,
        samples=(SampleStatus.DETERMINED, SampleStatus.FREE, SampleStatus.UNKNOWN, SampleStatus.FREE),
        reason="",
        batch_size=4,
        witness=Witness(radius=(0.0, 0.25, 0.0, 0.5)),
    )
    assert ambiguity_radius(verdict) == (0.0, 0.25, None, 0.5)
    assert ambiguity_radius(Verdict(outcome=Outcome.UNKNOWN, samples=(), reason="", batch_size=2)) == ()
    free = Verdict(outcome=Outcome.AMBIGUOUS, samples=(SampleStatus.FREE,), reason="", batch_size=1)
    assert ambiguity_radius(free) == (None,), "free without a proved radius is not decided"


def test_json_has_the_schema_and_not_the_data():
    x, y = batch()
    found = audit(model(), (x, y), domain=Box(0, 1))
    record = json.loads(found.to_json())
    assert record["schema"] == "exan/audit/1"
    assert record["domain"] == [["0"], ["1"]]
    assert record["verdict"]["outcome"] == "unique"
    assert record["verdict"]["certificate"]["schema"] == "exan/certificate/1"
    assert len(record["exclusivity"]["counts"][0]) == record["batch_size"] == 3
    text = found.to_json()
    for value in np.asarray(x).reshape(-1)[:5]:
        assert str(value) not in text
        assert repr(float(value)) not in text


def test_mse_targets_are_readable_and_networks_without_biases_are_audited():
    x, _ = batch()
    found = audit(model(bias=False), (x, torch.eye(4)[:3]), loss="mse", reduction="sum")
    assert found.classes == ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])
    assert found.peelable == (False, False, False)


def test_the_same_question_has_the_same_answer():
    first, second = (audit(model(), batch(), seed=4, work_limit=10**9) for _ in range(2))
    unstable = ("certificate", "attempts")  # these carry the time of day and how long it took
    verdicts = [
        {key: value for key, value in a.to_record()["verdict"].items() if key not in unstable}
        for a in (first, second)
    ]
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"loss": "nll"}, InputError, "loss='nll' is not known; use one of 'cross_entropy'"),
        ({"reduction": "none"}, InputError, "reduction='none'"),
        ({"labels": "any"}, InputError, "labels='any'"),
        ({"domain": Box(2, 3)}, InputError, "outside the domain"),
        ({"budget": -1}, InputError, "budget=-1"),
    ],
)
def test_options_that_cannot_be_are_named(change: dict, kind: type[ExanError], message: str):
    with pytest.raises(kind, match=message):
        audit(model(), batch(), **change)


def test_batches_and_models_that_do_not_fit_are_named():
    x, y = batch()
    with pytest.raises(ShapeError, match="11 features"):
        audit(model(), (x[:, :11], y))
    with pytest.raises(LabelError, match=r"y\[2\] = 4"):
        audit(model(), (x, torch.tensor([0, 1, 4])))
    with pytest.raises(UnsupportedLayerError, match=r"layer '1' \(Tanh\)"):
        audit(nn.Sequential(nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 4)), (x, y))
