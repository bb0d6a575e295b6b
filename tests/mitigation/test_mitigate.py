"""What ``mitigate`` says of each defence: the proof, the attack, protection, and how they fit together."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from torch import nn

from exan_verify import Box, audit, check, mitigate
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import BudgetExhausted, InputError, ShapeError
from exan_verify.mitigation.defences import NAMES, defence
from tests.support.certificate_cases import assert_rejected
from tests.support.mitigation_cases import drawn_case, drawn_network


def drawn(widths=(20, 120, 3), size=4, seed=0, pool=20, public=40):
    case = drawn_case(widths, size, seed, pool=pool, public=public)
    return case.network, (case.x, case.batch.labels), {"pool": case.pool, "prior": case.public}


@pytest.fixture(scope="module")
def report():
    network, batch, more = drawn()
    names = ["regroup", "perturb", "mask-exan", "topk:0.9", "noise:1", "clip-noise:1:1", "no-bias", "width:2"]
    return mitigate(network, batch, [*names, "average:2", "project-pca:5", "withhold:0.bias"], **more)


def found(report, name):
    return next(one for one in report.defences if one.name == name)


def test_without_a_defence_it_says_what_audit_says(report):
    network, batch, _ = drawn()
    own = audit(network, batch)
    assert report.before.verdict.outcome is own.verdict.outcome
    assert report.before.samples == own.verdict.samples
    assert report.before.exclusivity.exans == tuple(map(sum, own.exclusivity.counts))
    assert report.before.exclusivity.peelable == sum(own.peelable)
    assert report.before.attack.recovered == 4
    assert report.before.outcome == "UNIQUE"
    assert report.before.protection.hidden == 0


@pytest.mark.parametrize("name", ["regroup", "perturb", "mask-exan"])
def test_fewer_exclusive_neurons_protect_nobody(report, name):
    one = found(report, name)
    assert one.exclusivity.total <= report.before.exclusivity.total
    assert one.exclusivity.total == 0 or name == "regroup"
    assert one.attack.recovered == 4
    assert one.attack.psnr > (20 if name == "perturb" else 100)
    assert one.useless
    assert name in report.useless


def test_a_projection_is_proved_to_hide_every_sample(report):
    one = found(report, "project-pca:5")
    assert one.outcome == "AMBIGUOUS"
    assert one.proved_hidden
    assert one.verdict.outcome.value == "ambiguous"
    assert one.protection.hidden == 4 * 15
    assert one.protection.of == 4 * 20
    assert one.attack.recovered == 4
    assert one.attack.enters == "projections"
    assert all(0 < low.interval[0] <= 1 for low in [one.protection.reach])
    assert len(one.protection.estimate) == 4
    assert one.protection.public == 40


def test_means_are_proved_to_hide_their_members(report):
    one = found(report, "average:2")
    assert one.proved_hidden
    assert one.protection.hidden == 4 * 20
    assert one.protection.of == 8 * 20
    assert (one.asked_of, one.verdict.outcome.value, one.means.outcome.value) == (
        "members",
        "ambiguous",
        "unique",
    )
    assert one.verdict.witness.dimension == one.protection.hidden
    assert set(one.samples) == {SampleStatus.FREE}
    assert one.attack.by_sample[0].psnr == pytest.approx(one.protection.estimate[0], abs=1e-6)


def test_a_narrow_layer_is_ambiguous_by_certify(report):
    one = found(report, "width:2")
    assert one.outcome == "AMBIGUOUS"
    assert one.protection.hidden > 0
    reach = one.protection.reach
    assert reach.domain == "[0, 1]"
    assert max(reach.distance) > 0
    assert all(
        0 <= a <= b <= 1
        for low, high in zip(reach.low, reach.high, strict=True)
        for a, b in zip(low, high, strict=True)
    )


@pytest.mark.parametrize("name", ["mask-exan", "project-pca:5", "withhold:0.bias", "perturb", "average:2"])
def test_certificates_of_releases_are_accepted(report, name):
    """By the kernel, for the network and the batch of the release and for no other batch."""
    case = drawn_case((20, 120, 3), pool=20, public=40)
    released = defence(name).release(case)
    verdict = found(report, name).verdict
    batch = case.batch if released.projected is not None else released.batch
    if (means := released.averages) is not None:
        claim = check(
            found(report, name).means.certificate, released.network, batch=(batch.inputs, batch.labels)
        )
        assert claim.outcome == "unique"
        batch = case.with_inputs(means.members.reshape(8, 20), np.repeat(batch.labels, 2))
        assert means.groups == [[0, 1], [2, 3], [4, 5], [6, 7]]
    claim = check(verdict.certificate, released.network, batch=(batch.inputs, batch.labels))
    assert claim.outcome == verdict.outcome
    other = (np.asarray(batch.inputs) / 2, batch.labels)
    assert_rejected(verdict.certificate, released.network, batch=other)


def test_noise_is_measured_only_and_epsilon_needs_clipping(report):
    plain, clipped = found(report, "noise:1"), found(report, "clip-noise:1:1")
    assert plain.verdict is clipped.verdict is None
    assert plain.outcome == clipped.outcome == "random"
    assert plain.cost.epsilon is None
    assert clipped.cost.epsilon == pytest.approx(4.377, abs=0.001)
    assert set(plain.samples) == {SampleStatus.UNKNOWN}


def test_without_tensors_the_attack_uses_the_rest(report):
    one = found(report, "withhold:0.bias")
    assert one.exclusivity.peelable == 0
    assert one.attack.recovered == 4


def test_the_recommendation_is_proved_or_says_that_it_is_not(report):
    best = report.recommended
    assert best.proved_hidden
    assert best.exposed < 20
    assert best.name in report.recommendation
    assert "Proved" in report.recommendation
    network, batch, more = drawn()
    noise = mitigate(network, batch, ["noise:0.000001"], **more)
    assert noise.recommended is None
    assert noise.recommendation.startswith("None of the defences")


def test_the_record_is_json_without_inputs(report):
    record = json.loads(report.to_json())
    assert record["schema"] == "exan/mitigation/1"
    assert [one["name"] for one in record["defences"]] == [one.name for one in report.defences]
    assert record["before"]["attack"]["by_sample"][0].keys() == {"tier", "rmse", "psnr", "label"}
    assert record["defences"][-2]["protection"]["reach"]["interval"]["median"] > 0


def test_the_same_call_gives_the_same_report(report):
    network, batch, more = drawn()
    again = mitigate(network, batch, ["project-pca:5"], **more)
    for name in ("project-pca:5",):
        first, second = found(report, name), found(again, name)
        assert first.samples == second.samples
        assert first.protection.reach == second.protection.reach
        assert first.attack.psnr == second.attack.psnr


def test_what_does_not_apply_is_left_out_only_where_nothing_was_named(monkeypatch):
    monkeypatch.setattr("exan_verify.mitigation.mitigate.DEFAULTS", ("regroup", "project-pca:5"))
    network, batch, more = drawn(pool=3)
    left = mitigate(network, batch, accuracies=False, pixels=2, **more)
    assert "the pool has 3 samples" in left.left_out["regroup"]
    assert [one.name for one in left.defences] == ["project-pca:5"]
    with pytest.raises(InputError, match="the pool has 3 samples"):
        mitigate(network, batch, ["regroup"], **more)


def test_a_domain_counts_only_what_can_move_in_it():
    """Entries on a face of the box are no directions; with fewer inside than are sent, nothing is claimed."""
    network, (x, y), more = drawn()
    x = x.copy()
    x[0, 3:] = 0.0
    one = mitigate(network, (x, y), ["project-random:5"], domain=Box(0, 1), **more).defences[0]
    assert one.samples[0] is SampleStatus.UNKNOWN
    assert set(one.samples[1:]) == {SampleStatus.FREE}
    assert one.protection.hidden == 3 * 15
    assert not one.proved_hidden


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"defences": "perturb"}, "a list of names"),
        ({"defences": []}, "a list of names"),
        ({"defences": ["project-dct:20"]}, "rank below 20"),
        ({"pool": 3}, "pool=3"),
        ({"pool": (np.ones((3, 5)), [0, 1, 2])}, "pool: x has shape"),
        ({"pool": (np.ones((3, 20)), [0, 1])}, "one label each"),
        ({"pool": (np.ones((3, 20)), [0, 1, 7])}, "not a class"),
        ({"prior": np.ones((3, 5))}, "prior has shape"),
        ({"prior": np.ones((1, 20)), "defences": ["project-random:3"]}, "at least 2"),
        ({"train": (np.ones((3, 20)), [0, 1, 2])}, "at least 10"),
        ({"domain": Box(0, 0.1)}, "does not hold the batch"),
        ({"pixels": 0}, "pixels=0"),
        ({"budget": -1}, "budget=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"progress": 3}, "progress=3"),
        ({"accuracies": 1}, "accuracies=1"),
        ({"jobs": 0}, "jobs=0"),
        ({"work_limit": 0}, "work_limit=0"),
    ],
)
def test_bad_input_is_named(options, says):
    network, batch, _ = drawn()
    with pytest.raises(InputError, match=says):
        mitigate(network, batch, **({"defences": ["no-bias"]} | options))


def test_a_prior_with_a_sample_of_the_batch_is_refused():
    network, (x, y), more = drawn()
    prior = np.concatenate([more["prior"], x[2:3]])
    with pytest.raises(InputError, match=r"prior\[40\] is a sample of the batch"):
        mitigate(network, (x, y), ["project-pca:3"], prior=prior)


def test_convolutions_are_refused():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2)
    )
    with pytest.raises(InputError, match=r"'0' \(Conv2d\) is not supported"):
        mitigate(model, (np.ones((2, 1, 4, 4)), [0, 1]), ["perturb"])


def test_every_loss_is_answered():
    for loss in ("mse", "bce", "hinge"):
        network, (x, y), more = drawn()
        targets = y if loss == "hinge" else np.eye(3)[np.asarray(y)]
        pool = more["pool"] if loss == "hinge" else (more["pool"][0], np.eye(3)[more["pool"][1]])
        names = ["no-bias", "average:2", "project-random:5"]
        done = mitigate(network, (x, targets), names, loss=loss, pool=pool, prior=more["prior"])
        assert done.before.attack.recovered == 4
        assert [one.proved_hidden for one in done.defences] == [False, True, True]


def test_a_budget_that_is_over_leaves_defences_out():
    network, batch, more = drawn()
    with pytest.raises(BudgetExhausted):
        mitigate(network, batch, ["project-pca:5"], budget=1e-9, **more)


def test_names_in_the_docstring_of_the_door_are_defences():
    from exan_verify.mitigation.mitigate import DEFAULTS

    assert all(defence(name).name == name for name in DEFAULTS)
    assert {name.partition(":")[0] for name in DEFAULTS} <= {name.partition(":")[0] for name in NAMES}


def test_digits_have_a_prior_and_training_data_of_their_own():
    from exan_verify.data import mnist_batch
    from exan_verify.mitigation.mitigate import _OWN, _PUBLIC, _digits

    public, own = _digits(_PUBLIC)[0], _digits(_OWN)[0]
    assert len(public) == 1000
    assert len(own) == 4000
    x, y = mnist_batch(2, 0)
    network = drawn_network((784, 20, 10), 0)
    one = mitigate(network, (x, y), ["project-pca:4"], accuracies=False, pixels=3).defences[0]
    assert one.protection.public in (998, 999, 1000)
    assert one.protection.psnr < 30
    assert math.isfinite(one.protection.psnr)


def test_a_wrong_shape_is_named():
    with pytest.raises(ShapeError):
        mitigate(drawn_network((20, 60, 3), 0), (np.ones((2, 5)), [0, 1]))


def test_a_network_without_a_hidden_layer_is_answered(monkeypatch):
    monkeypatch.setattr("exan_verify.mitigation.mitigate.DEFAULTS", ("perturb",))
    network, (x, y), more = drawn((20, 3), size=2)
    left = mitigate(network, (x, y), accuracies=False, pixels=2, **more)
    assert "need a hidden layer" in left.left_out["perturb"]
    assert left.before.exclusivity.exans == ()
    (one,) = mitigate(network, (x, y), ["project-random:4"], pixels=2, **more).defences
    assert one.proved_hidden
