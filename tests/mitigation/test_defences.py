"""Each defence does what its name says, on drawn networks and batches, and refuses what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify.api.attack_own_batch import batch_gradient
from exan_verify.core.arrays import fractions
from exan_verify.core.question import Box
from exan_verify.errors import InputError, ShapeError
from exan_verify.exact.backprop import forward
from exan_verify.exclusivity import exclusivity
from exan_verify.mitigation.case import Case, Released, equal_rows
from exan_verify.mitigation.defences import NAMES, defence, sent_exans
from exan_verify.mitigation.steps import step_of
from tests.support.mitigation_cases import drawn_case

SEEDS = range(4)


def released(name: str, case: Case) -> Released:
    return defence(name).release(case)


def exans(case: Case, done: Released) -> int:
    return sum(sum(layer) for layer in exclusivity(done.network, done.batch).counts)


def same(sent: dict, of: dict) -> bool:
    return sent.keys() == of.keys() and all(torch.equal(sent[name], of[name]) for name in of)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("widths", [(12, 40, 3), (10, 24, 16, 4)])
def test_a_step_is_what_autograd_says(widths, seed):
    case = drawn_case(widths, seed=seed)
    own = step_of(case.network, case.batch, case.question).gradient
    reference = batch_gradient(case.network, case.x, case.batch.labels, case.question)
    assert own.keys() == reference.keys()
    for name in own:
        torch.testing.assert_close(own[name], reference[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clipped_step_is_the_mean_of_clipped_gradients_of_samples(seed):
    case = drawn_case((10, 24, 16, 4), size=5, seed=seed)
    clip = 0.5
    total: dict[str, torch.Tensor] = {}
    for m in range(5):
        own = batch_gradient(case.network, case.x[m : m + 1], case.batch.labels[m : m + 1], case.question)
        norm = float(torch.cat([g.flatten() for g in own.values()]).norm())
        for name, g in own.items():
            total[name] = total.get(name, torch.zeros_like(g)) + g * min(1.0, clip / norm) / 5
    sent = step_of(case.network, case.batch, case.question, clip=clip).gradient
    for name in total:
        torch.testing.assert_close(sent[name], total[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("seed", SEEDS)
def test_regrouping_never_adds_exclusive_neurons(seed):
    case = drawn_case(pool=30, seed=seed)
    before = sum(sum(layer) for layer in exclusivity(case.network, case.batch).counts)
    done = released("regroup", case)
    assert exans(case, done) <= before
    assert done.batch.size == case.batch.size
    everyone = np.concatenate([case.x, case.pool[0]])
    assert equal_rows(done.subjects, everyone).all()
    assert len(np.unique(done.subjects, axis=0)) == case.batch.size


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("widths", [(30, 40, 3), (40, 24, 12, 4)])
def test_the_smallest_perturbation_leaves_no_exclusive_neuron_inside_the_domain(widths, seed):
    case = drawn_case(widths, seed=seed, domain=Box(0, 1))
    done = released("perturb", case)
    assert exans(case, done) == 0
    moved = np.asarray(done.batch.inputs)
    assert (moved >= 0).all()
    assert (moved <= 1).all()
    assert np.abs(moved - case.x).max() == done.facts["largest change of an input"] > 0
    assert (done.subjects == case.x).all()


def test_a_perturbation_is_the_smallest_for_one_neuron_to_switch():
    """With one exclusive neuron: a hyperplane's distance in L-infinity is |z| over the L1 norm of its row."""
    case = drawn_case((6, 2, 3), size=2, seed=9)
    weight, bias = case.network.layers[0].weight.astype(float), case.network.layers[0].bias.astype(float)
    z = case.x @ weight.T + bias
    pattern = z > 0
    lone = np.flatnonzero(pattern.sum(axis=0) == 1)
    assert len(lone) == 1, "choose a seed with one exclusive neuron"
    expected = np.abs(z[:, lone[0]]).min() / np.abs(weight[lone[0]]).sum()
    assert released("perturb", case).facts["largest change of an input"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_inducing_meets_the_published_condition(seed):
    case = drawn_case((40, 40, 24, 4), seed=seed)
    done = released("induce", case)
    assert exclusivity(done.network, done.batch).published


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("few", [1, 2])
def test_masked_rows_are_those_of_neurons_that_few_samples_activate(few, seed):
    case = drawn_case((12, 40, 20, 3), seed=seed)
    done = released("mask-exan" if few == 1 else f"mask-few:{few}", case)
    whole = step_of(case.network, case.batch, case.question).gradient
    patterns = forward(case.network, case.batch).patterns
    for number, pattern in enumerate(patterns):
        layer = case.network.layers[number]
        masked = (pattern.sum(axis=1) >= 1) & (pattern.sum(axis=1) <= few)
        assert masked.any()
        for name, _ in layer.parameters():
            assert (done.sent[name][torch.tensor(masked)] == 0).all()
            assert torch.equal(done.sent[name][torch.tensor(~masked)], whole[name][torch.tensor(~masked)])
            assert not done.kept[name][masked].any()
            assert done.kept[name][~masked].all()
    assert sum(sent_exans(done, patterns)) == 0
    last = case.network.layers[-1].name
    assert torch.equal(done.sent[f"{last}.weight"], whole[f"{last}.weight"])
    assert sorted(done.release.rows) == sorted(done.kept)
    assert done.release.rows[name] == tuple(done.kept[name].reshape(len(done.kept[name]), -1)[:, 0])


@pytest.mark.parametrize("seed", SEEDS)
def test_topk_keeps_the_largest_share_of_every_tensor(seed):
    case = drawn_case(seed=seed)
    done = released("topk:0.25", case)
    for name, whole in step_of(case.network, case.batch, case.question).gradient.items():
        kept = torch.tensor(done.kept[name])
        assert int(kept.sum()) >= max(1, round(0.25 * whole.numel()))
        if (~kept).any():
            assert whole.abs()[kept].min() >= whole.abs()[~kept].max()
        assert torch.equal(done.sent[name], torch.where(kept, whole, 0.0))
    assert done.release is None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["project-pca:3", "project-dct:3", "project-random:3"])
def test_a_projected_step_depends_on_the_projection_only(name, seed):
    """Inputs that differ along what B^T does not see send the same, entry by entry in exact arithmetic."""
    case = drawn_case(public=20, seed=seed)
    done = released(name, case)
    basis = done.projected
    assert basis.integers.shape == (12, 3)
    near = basis.columns.T @ basis.columns
    np.testing.assert_allclose(near, np.eye(3), atol=5e-3)
    seen = np.asarray(done.batch.inputs, float)
    np.testing.assert_allclose(seen, case.x @ basis.columns, atol=1e-12)
    hidden = np.linalg.svd(basis.columns.T)[2][3:]
    moved = case.x + hidden[0]
    np.testing.assert_allclose(
        np.asarray(basis.see(moved), float), np.asarray(done.batch.inputs, float), atol=1e-12
    )
    assert done.network.widths == (3, 40, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_averages_are_of_samples_of_one_class_and_of_each_once(seed):
    case = drawn_case(size=4, pool=30, seed=seed)
    done = released("average:3", case)
    means = done.averages
    assert means.rows == (0, 1, 2, 3)
    exact = fractions(means.members).sum(axis=1)
    assert (fractions(done.batch.inputs) * 3 == exact).all()
    np.testing.assert_allclose(np.asarray(done.batch.inputs, float), means.members.mean(axis=1), atol=1e-15)
    pool_x, pool_y = case.pool
    used = means.members[:, 1:].reshape(-1, 12)
    assert len(np.unique(used, axis=0)) == len(used)
    for m, label in enumerate(case.classes):
        assert (means.members[m, 0] == case.x[m]).all()
        for partner in means.members[m, 1:]:
            (place,) = np.flatnonzero((pool_x == partner).all(axis=1))
            assert pool_y[place] == label


def test_averages_without_a_pool_group_the_batch():
    case = drawn_case((12, 40, 2), size=4)
    done = released("average:2", case)
    assert done.averages.rows == (0, 1, 0, 1)
    assert done.averages.places == (0, 2, 1, 3)
    members = done.averages.members.reshape(4, 12)
    assert (members[list(done.averages.places)] == case.x).all()
    np.testing.assert_allclose(
        np.asarray(done.batch.inputs, float), (case.x[:2] + case.x[2:]) / 2, atol=1e-15
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_has_the_size_that_it_says(seed):
    case = drawn_case((12, 400, 3), seed=seed)
    whole = step_of(case.network, case.batch, case.question).gradient
    entries = torch.cat([g.flatten() for g in whole.values()])
    done = released("noise:0.5", case)
    added = torch.cat([(done.sent[n] - g).flatten() for n, g in whole.items()])
    assert float(added.std()) == pytest.approx(0.5 * float(entries.square().mean().sqrt()), rel=0.1)
    clipped = step_of(case.network, case.batch, case.question, clip=0.1).gradient
    done = released("clip-noise:0.1:2", case)
    added = torch.cat([(done.sent[n] - g).flatten() for n, g in clipped.items()])
    assert float(added.std()) == pytest.approx(2 * 0.1 / 4, rel=0.1)
    assert done.release is None, "no exact question can be asked of noise"


def test_larger_batches_narrower_layers_no_biases_and_tensors_withheld():
    case = drawn_case(pool=20)
    larger = released("batch-size:9", case)
    assert larger.batch.size == 9
    assert (larger.subjects[:4] == case.x).all()
    narrow = released("width:7", case)
    assert narrow.network.widths == (12, 7, 3)
    assert (narrow.network.layers[0].weight == case.network.layers[0].weight[:7]).all()
    bare = released("no-bias", case)
    assert [n for n, _ in bare.network.parameters()] == ["0.weight", "2.weight"]
    withheld = released("withhold:0.bias", case)
    assert withheld.missing == ("0.bias",)
    assert withheld.release.tensors == ("0.weight", "2.weight", "2.bias")
    assert larger.release.is_whole(larger.network)


def test_the_same_seed_draws_the_same_and_another_does_not():
    first, again, other = (released("noise:1", drawn_case(seed=s)) for s in (0, 0, 1))
    assert same(first.sent, again.sent)
    assert not same(first.sent, other.sent)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "project-pca:r"),
        ("project-pca", "write it as 'project-pca:r'"),
        ("project-pca:", "write it as"),
        ("project-pca:0", "an integer from 1"),
        ("project-pca:1.5", "an integer from 1"),
        ("average:1", "an integer from 2"),
        ("noise:nan", "a number above 0"),
        ("noise:-1", "a number above 0"),
        ("noise:inf", "a number above 0"),
        ("topk:2", "at most 1"),
        ("clip-noise:1", "write it as 'clip-noise:c:s'"),
        ("perturb:1", "write it as 'perturb'"),
    ],
)
def test_a_name_that_is_none_is_refused(name, says):
    with pytest.raises(InputError, match=says):
        defence(name)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("regroup", {}, "--pool"),
        ("regroup", {"pool": 3}, "the pool has 3 samples"),
        ("batch-size:3", {"pool": 3}, "no larger than the batch"),
        ("batch-size:9", {"pool": 3}, "the pool has 3 samples"),
        ("average:2", {}, "multiple of 2"),
        ("average:5", {"pool": 12}, "too few samples of class"),
        ("project-pca:3", {}, "public samples"),
        ("project-pca:9", {"public": 4}, "at least 9 public samples"),
        ("project-random:12", {}, "rank below 12"),
        ("width:40", {}, "smaller width"),
        ("no-bias", {"bias": False}, "no biases"),
        ("withhold:1.weight", {}, "'0.weight'"),
        ("induce", {"widths": (12, 6, 3)}, "smaller batch"),
        ("induce", {"widths": (12, 3)}, "need a hidden layer"),
        ("perturb", {"widths": (12, 3)}, "need a hidden layer"),
        ("width:2", {"widths": (12, 3)}, "smaller width"),
    ],
)
def test_what_a_defence_cannot_do_is_said(name, options, says):
    with pytest.raises(InputError, match=says):
        released(name, drawn_case(**options))


def test_a_perturbation_that_the_domain_does_not_admit_is_refused():
    case = drawn_case(seed=1)
    tight = Case(
        network=case.network,
        batch=case.batch,
        question=drawn_case(seed=1, domain=Box(case.x[0] - 1e-9, case.x[0] + 1e-9)).question,
    )
    assert exans(case, released("mask-exan", case)) > 0
    with pytest.raises(InputError, match="wider domain"):
        released("perturb", tight)


def test_every_name_has_a_meaning_and_every_basis_a_shape():
    assert all(NAMES.values())
    with pytest.raises(ShapeError):
        released("project-dct:40", drawn_case())
