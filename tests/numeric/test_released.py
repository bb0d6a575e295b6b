"""Attacks on releases: what is sent is enough where it is, and what is missing is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Release, attack, certify, project_inputs
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.data import initialised_network, mnist_batch
from exan_verify.errors import GradientError, InputError, RangeError
from exan_verify.models import strided_cnn
from exan_verify.models.chain import to_network
from exan_verify.numeric.problem.records import Attack, Tier
from tests.support.attack_cases import assert_nothing
from tests.support.cases import default_network
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd, gradient


class Case:
    """A network of the given widths, a random batch, and its gradient."""

    def __init__(self, *widths: int, samples: int = 4, loss: str = "cross_entropy", seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = drawn_network(widths, self.rng)
        self.x, self.y = drawn_batch("randn", samples, widths[0], widths[-1], self.rng, loss)
        self.loss = loss
        self.gradient = autograd(self.model, self.x, self.y, loss)

    def rows(self, size: int, count: int) -> np.ndarray:
        """A mask of ``count`` of ``size`` rows."""
        mask = np.zeros(size, dtype=bool)
        mask[self.rng.permutation(size)[:count]] = True
        return mask

    def attack(self, release: Release, **options: object) -> Attack:
        return attack(self.model, self.gradient, loss=self.loss, release=release, **options)

    def off(self, found: Attack, x: torch.Tensor | None = None) -> float:
        """The largest error of a sample found, each the nearest of another of the batch."""
        distance = torch.cdist(found.x, self.x if x is None else x, p=torch.inf)
        nearest = distance.argmin(dim=1)
        assert len(set(nearest.tolist())) == len(found.x)
        assert torch.equal(found.y, self.y[nearest])
        return float(distance.amin(dim=1).max())


def test_264_of_512_random_rows_give_the_whole_batch():
    network, (x, y) = initialised_network((784, 512, 10), 3), mnist_batch(16, 3)
    name = next(name for name, _ in network.named_parameters())
    mask = np.zeros(512, dtype=bool)
    mask[np.random.default_rng(3).permutation(512)[:264]] = True
    truth = torch.tensor(np.asarray(x, dtype=np.float64)).flatten(1)
    found = attack(network, autograd(network, truth, torch.tensor(y)), release=Release(rows={name: mask}))
    assert found.complete
    assert float(torch.cdist(found.x, truth, p=torch.inf).amin(dim=1).max()) < 1e-9


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
@pytest.mark.parametrize("depth", [1, 2])
def test_masked_rows_are_masked_neurons(loss, depth):
    case = Case(20, *[150] * depth, 4, samples=5, loss=loss, seed=depth)
    release = Release(rows={name: case.rows(150, 120) for name in ("0.weight", "0.bias")})
    found = case.attack(release, batch_size=5)
    assert found.complete
    assert found.count(Tier.CONFIRMED) == 5 or depth > 1
    assert case.off(found) < 1e-9
    assert found.release == release
    assert any("rows of 0.weight" in note for note in found.notes)


@pytest.mark.parametrize("method", ["peel", "lift", "assign"])
def test_methods_do_with_the_rows_there_are(method):
    case = Case(20, 200, 5, samples=5, seed=4)
    release = Release(rows={name: case.rows(200, 140) for name in ("0.weight", "0.bias")})
    found = case.attack(release, method=method)
    assert found.complete
    assert case.off(found) < 1e-9


def test_without_most_biases_scales_come_from_what_is_left():
    case = Case(20, 150, 4, samples=5, seed=5)
    some = case.rows(150, 110)
    for rows in (
        {"0.bias": case.rows(150, 20)},
        {"0.bias": case.rows(150, 3)},
        {"0.bias": case.rows(150, 0)},
        {"0.weight": some, "0.bias": some & case.rows(150, 12)},
    ):
        found = case.attack(Release(rows=rows))
        assert found.complete
        assert {one.tier for one in found.status} == {Tier.CONSISTENT}
        # by their own equations, not only as a batch that fits
        assert all(one.isolation > 0 for one in found.status)
        assert case.off(found) < 1e-9


def test_entries_of_a_bias_gradient_give_scales_that_nothing_else_does():
    case = Case(20, 150, 3, samples=3, loss="mse", seed=1)
    options = {"method": "lift", "batch_size": 3, "labels": "real"}
    assert not case.attack(Release(tensors=["0.weight"]), **options).complete
    few = {"0.bias": case.rows(150, 20)}
    found = case.attack(Release(tensors=["0.weight", "0.bias"], rows=few), **options)
    assert found.complete
    assert float(torch.cdist(found.x, case.x, p=torch.inf).amin(dim=1).max()) < 1e-9


def test_biases_of_rows_that_are_not_sent_are_still_tests():
    case = Case(20, 150, 4, samples=5, seed=6)
    mask = case.rows(150, 120)
    release = Release(rows={"0.weight": mask})
    assert case.attack(release, method="lift").complete
    case.gradient["0.bias"] = case.gradient["0.bias"] + 1e-3 * torch.tensor(~mask)
    assert not case.attack(release, method="lift").complete


def test_rows_of_a_layer_above_are_tests_too():
    case = Case(20, 150, 12, 4, samples=4, seed=7)
    rows = case.rows(12, 7)
    release = Release(rows={"2.weight": rows}, tensors=["0.weight", "0.bias", "2.weight"])
    assert case.attack(release, method="lift").complete
    wrong = case.gradient["2.weight"].clone()
    wrong[int(np.flatnonzero(rows)[0])] *= 1.5
    case.gradient["2.weight"] = wrong
    assert not case.attack(release, method="lift").complete


def test_an_unknown_weight_per_sample_is_the_releases():
    case = Case(20, 150, 4, samples=3, seed=8)
    parts = [autograd(case.model, case.x[m : m + 1], case.y[m : m + 1]) for m in range(3)]
    case.gradient = {n: sum((m + 1) * p[n] for m, p in enumerate(parts)) for n in case.gradient}
    found = case.attack(Release(weights="positive", rows={"0.weight": case.rows(150, 120)}), batch_size=3)
    assert found.complete
    assert case.off(found) < 1e-9


def test_the_last_layer_in_part_shows_features_of_one_sample():
    case = Case(6, 30, 5, samples=1, seed=9)
    mask = np.array([True, True, False, True, False])
    mask[int(case.y[0])] = True
    release = Release(tensors=["2.weight", "2.bias"], rows={"2.weight": mask, "2.bias": mask})
    found = case.attack(release, batch_size=1)
    hidden = case.model[:2](case.x).detach()
    shown = found.hidden
    assert shown is not None
    assert float((shown.values - hidden).abs().max()) < 1e-9
    assert shown.labels.tolist() == case.y.tolist()


@pytest.mark.parametrize("labels", ["one_hot", "real"])
def test_a_target_is_open_where_a_row_is_missing(labels):
    case = Case(6, 4, samples=1, loss="mse", seed=10)
    mask = np.array([True, True, False, True])
    release = Release(rows={"0.weight": mask, "0.bias": mask})
    found = case.attack(release, batch_size=1, labels=labels)
    assert not len(found.x)
    (one,) = found.candidates
    assert one.label is None
    assert float((one.x - case.x).abs().max()) < 1e-9


def test_what_is_proved_unique_is_what_is_confirmed():
    proved = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = default_network([10, 80, 3], seed=seed)
        x, y = rng.normal(size=(3, 10)), rng.integers(3, size=3)
        mask = rng.random(80) < rng.uniform(0.1, 0.9)
        release = Release(rows={"0.weight": mask})
        verdict = certify(network, batch=(x, y), release=release, engine="lifting")
        batch = Batch.of(x, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
        given = gradient(network, batch, Loss.CROSS_ENTROPY, Reduction.MEAN)
        try:
            found = attack(network, given, batch_size=3, release=release, method="lift")
        except (RangeError, GradientError):
            continue
        near = torch.cdist(found.x, torch.tensor(x), p=torch.inf).amin(dim=1)
        assert all(
            float(off) <= one.error_bound
            for off, one in zip(near, found.status, strict=True)
            if one.tier == Tier.CONFIRMED or verdict.outcome is Outcome.UNIQUE
        )
        proved += verdict.outcome is Outcome.UNIQUE and found.count(Tier.CONFIRMED) == 3
    assert proved > 2


class Projected:
    """A model of ``project_inputs``, and the gradients that are sent and that the one on x would have."""

    def __init__(self, features: int, rank: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        model = drawn_network((features, 120, 4), rng)
        self.basis = rng.integers(-8, 9, (features, rank)) / 8
        self.model = project_inputs(model, self.basis)
        self.x, self.y = drawn_batch("randn", 4, features, 4, rng)
        self.sent = autograd(self.model, self.x, self.y)
        wide = model[0]
        assert isinstance(wide, nn.Linear)
        wide.weight.data = self.model[0].weight.data @ torch.tensor(self.basis).T
        self.wide, self.whole = model, autograd(model, self.x, self.y)
        self.truth = self.x @ torch.tensor(self.basis)


def test_through_a_basis_its_numbers_are_found_by_every_door():
    case = Projected(24, 9)
    release = Release(input_basis=case.basis)
    network = to_network(case.wide)
    for model, given in (
        (case.model, case.sent),
        (case.wide, case.sent),
        (case.wide, case.whole),
        (case.model, {**case.sent, "0.weight": case.whole["0.weight"]}),
        (network, case.whole),
    ):
        found = attack(model, given, release=release)
        assert found.complete
        assert found.x.shape == (4, 9)
        assert float(torch.cdist(found.x, case.truth, p=torch.inf).amin(dim=1).max()) < 1e-9
        assert found.release == release
        assert any("9 numbers B^T x" in note for note in found.notes)


def test_a_basis_and_rows_together():
    case = Projected(24, 9, seed=1)
    mask = np.random.default_rng(1).random(120) < 0.8
    release = Release(input_basis=case.basis, rows={"0.weight": mask, "0.bias": mask})
    whole = {**case.whole}
    whole["0.weight"] = torch.where(torch.tensor(mask)[:, None], whole["0.weight"], torch.nan)
    found = attack(case.wide, whole, release=release)
    assert found.complete
    sent = {n: g[torch.tensor(mask)] if n in ("0.weight", "0.bias") else g for n, g in case.sent.items()}
    again = attack(case.model, sent, release=release)
    assert float(torch.cdist(again.x, found.x, p=torch.inf).amin(dim=1).max()) < 1e-9


def test_contradictions_are_one_error_each():
    case = Case(6, 30, 3, seed=10)
    sent = {n: g for n, g in case.gradient.items() if n != "0.bias"}

    def refused(kind, named, release, given=None, model=None):
        with pytest.raises(kind, match=named) as raised:
            attack(model or case.model, given or case.gradient, release=release)
        assert "\n" not in str(raised.value)

    refused(InputError, "fc.weight", Release(tensors=["fc.weight"]))
    refused(InputError, "mask of '0.weight' has 2 entries", Release(rows={"0.weight": [True, False]}))
    refused(InputError, "give Release", "layer 1")
    rows = np.arange(30) < 20
    refused(GradientError, "'0.bias'.*the release sends it", Release(rows={"0.weight": rows}), sent)
    refused(GradientError, "'0.bias'.*missing", Release(), sent)
    assert attack(case.model, sent, release=Release(tensors=list(sent))).missing == ("0.bias",)
    short_of = {**case.gradient, "0.weight": case.gradient["0.weight"][:7]}
    refused(GradientError, "all rows or the 20 that are sent", Release(rows={"0.weight": rows}), short_of)
    none = {name: np.zeros(len(g), dtype=bool) for name, g in case.gradient.items()}
    refused(InputError, "sends no row", Release(rows=none))
    refused(GradientError, "nothing of what the release sends", Release(tensors=["0.bias"]), sent)
    refused(InputError, "not V B\\^T", Release(input_basis=np.eye(6)[:, :2]))
    refused(InputError, "5 rows", Release(input_basis=np.eye(5)[:, :2]))
    refused(InputError, "fully connected", Release(), {"x": torch.zeros(1)}, strided_cnn(seed=0))
    other = Projected(24, 9)
    refused(InputError, "the model's own", Release(input_basis=2 * other.basis), other.sent, other.model)


def test_sums_over_the_batch_leave_nothing_to_attack():
    case = Case(6, 30, 3, seed=11)
    found = case.attack(Release(tensors=["0.bias", "2.bias"]))
    assert_nothing(found, "sums over the batch")


def test_a_release_that_holds_nothing_back_changes_nothing():
    case = Case(12, 60, 3, samples=3, seed=12)
    plain = attack(case.model, case.gradient)
    found = case.attack(Release(rows={"0.weight": [True] * 60}))
    assert torch.equal(found.x, plain.x)
    assert found.release is None
    assert found.status == plain.status
    assert replace(found, seconds=0.0).notes == plain.notes
