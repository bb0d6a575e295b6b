"""certify, audit and check on networks with convolutions (CV1, CV3)."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Box, Outcome, Release, attack, audit, certify, check
from exan_verify.core.arrays import fractions
from exan_verify.core.certificate import StageMotions
from exan_verify.core.network import Batch
from exan_verify.core.question import Loss, Question
from exan_verify.core.staged import Entry, StagedNetwork
from exan_verify.core.verdict import SampleStatus
from exan_verify.decide import stages
from exan_verify.errors import CertificateRejected, InputError, ShapeError, UnsupportedLayerError
from exan_verify.exact.backprop import backward, forward
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.pictures import convolved, forward_stages, sees
from exan_verify.exact.rational import product
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel import stages as kernel
from exan_verify.models.pictures.staged import to_staged
from tests.support.cases import batch_of
from tests.support.certificate_cases import assert_rejected, certify_as, change, plain
from tests.support.staged_cases import (
    dense_system,
    module,
    moving_case,
    pictures,
    staged_gradient,
    unique_case,
)
from tests.support.torch_reference import autograd, initialised

ALONE = {"cross_entropy": [0, 2], "mse": [0, 2], "hinge": [0, 2], "bce": [[0, 1, 0], [1, 1, 0]]}


@pytest.mark.parametrize("loss", ALONE)
def test_unique_with_a_certificate_that_the_kernel_accepts(loss: str):
    network, (x, _) = unique_case(2)
    verdict = certify_as(Outcome.UNIQUE, network, batch=(x, ALONE[loss]), loss=loss)
    assert "leave one picture for each" in verdict.reason
    assert "54 unknowns" in str(verdict.attempts) or loss != "cross_entropy"
    claim = check(json.dumps(verdict.certificate), network, batch=(x, ALONE[loss]))
    assert claim.outcome is Outcome.UNIQUE
    inside = certify_as(Outcome.UNIQUE, network, batch=(x, ALONE[loss]), loss=loss, domain=Box(-9, 9))
    assert check(inside.certificate, network, batch=(x, ALONE[loss])).outcome is Outcome.UNIQUE


def test_a_module_and_what_was_understood_of_it():
    made = module(6, [nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3)], (24, 3), seed=0)
    network, (x, y) = unique_case(0)
    verdict = certify_as(Outcome.UNIQUE, made, batch=(x, y))
    assert "Conv2d and ReLU 6x6x6 to 8x4x4, then 128-24-3" in verdict.architecture
    assert verdict.certificate["model_sha256"] == network.digest
    assert check(verdict.certificate, made, batch=(x, y)).outcome is Outcome.UNIQUE
    flat = x.reshape(len(x), -1)
    assert (
        certify(network, batch=(flat, y)).certificate["batch_sha256"] == verdict.certificate["batch_sha256"]
    )


def deltas(network: StagedNetwork, batch: Batch) -> np.ndarray:
    """Of the last stage for mse, reduction sum, as Fractions."""
    passed = forward_stages(network, batch)
    inputs = passed.values[-1].T.fractions()
    inputs.setflags(write=False)
    upper = forward(network.head, Batch(inputs=inputs, labels=batch.labels))
    vectors = loss_vectors(Loss.MSE, upper.logits, batch.labels, 1)
    first = backward(network.head, upper, vectors).at(1)
    return product(network.head.layers[0].weight.T, first).masked(passed.patterns[-1]).fractions()


def test_motions_keep_the_gradient_and_are_never_unique():
    found = 0
    for seed in range(6):
        network, (x, y) = moving_case(seed)
        verdict = certify_as(Outcome.AMBIGUOUS, network, batch=(x, y), loss="mse", reduction="sum")
        assert SampleStatus.DETERMINED not in verdict.samples
        claim = check(json.dumps(verdict.certificate), network, batch=(x, y))
        assert claim.outcome is Outcome.AMBIGUOUS
        batch = batch_of(network, x, y)
        passed = forward_stages(network, batch)
        dense = dense_rational(network, passed.patterns[0], deltas(network, batch))
        basis = nullspace(dense)
        assert basis.shape[1] >= verdict.witness.dimension > 0
        # shortened until no pattern changes, a motion keeps every entry of the exact gradient
        step = basis[:, seed % basis.shape[1]].reshape(batch.inputs.shape)
        largest = max(abs(value) for value in step.reshape(-1))
        moved = np.vectorize(Fraction)(batch.inputs) + step / largest / 4096
        second = batch_of(network, moved, y)
        if (forward_stages(network, second).patterns[0] != passed.patterns[0]).any():
            continue
        one, other = staged_gradient(network, batch), staged_gradient(network, second)
        assert all((one[name] == other[name]).all() for name in one)
        found += 1
    assert found >= 4


def dense_rational(network: StagedNetwork, active: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """:func:`dense_system` with rational deltas, cleared of their denominators: the same null space."""
    common = int(np.lcm.reduce([int(v.denominator) for v in delta.reshape(-1)], dtype=object))
    return dense_system(network.stages[0], active, delta * common)


def test_planted_batches_are_never_unique():
    """Pixels that no tap takes, pixels that only inactive outputs take, equal pictures."""
    cases: list[tuple[StagedNetwork, np.ndarray, list[int]]] = []
    unseen = module(6, [nn.Conv2d(1, 8, 2, stride=3)], (40, 3), seed=1)
    cases.append((to_staged(unseen, (1, 6, 6)), pictures(2, (1, 6, 6), 1), [0, 1]))
    dark = module(5, [nn.Conv2d(1, 9, 3), nn.Conv2d(9, 4, 2)], (40, 3), seed=2)
    dark[0].bias.data.sub_(50)
    cases.append((to_staged(dark, (1, 5, 5)), pictures(2, (1, 5, 5), 2), [0, 1]))
    network, (x, y) = unique_case(0)
    cases.append((network, x[[0, 0]], [y[0], y[0]]))
    for network, x, y in cases:
        verdict = certify(network, batch=(x, y))
        assert verdict.outcome is not Outcome.UNIQUE
        assert SampleStatus.DETERMINED not in verdict.samples


def test_features_may_be_known_where_pictures_are_not():
    """More active outputs than coordinates, but none of them sees one column of pixels."""
    made = module(6, [nn.Conv2d(1, 40, 3, stride=(1, 2))], (60, 3), seed=5)
    x = pictures(2, (1, 6, 6), 5)
    verdict = certify_as(Outcome.UNKNOWN, made, batch=(x, [0, 1]))
    assert verdict.samples == (SampleStatus.FEATURES,) * 2
    assert "the features and the label of every sample are in every batch" in verdict.reason
    assert "convolution '0'" in verdict.reason
    claim = check(json.dumps(verdict.certificate), made, batch=(x, [0, 1]))
    assert claim.samples == verdict.samples
    # they are claimed, and no more
    for samples, outcome in ((["determined"] * 2, "unique"), (["features", "unknown"], "unknown")):
        forged = plain(verdict.certificate)
        forged["claim"] |= {"samples": samples, "outcome": outcome}
        assert_rejected(forged, made, batch=(x, [0, 1]))
    found = audit(made, (x, [0, 1]))
    assert found.gate("determined") == "hit"
    assert found.radius == (None, None)


def test_the_kernel_takes_every_rank_itself(monkeypatch: pytest.MonkeyPatch):
    made = module(6, [nn.Conv2d(1, 40, 3, stride=(1, 2))], (60, 3), seed=5)
    x, y = pictures(2, (1, 6, 6), 5), [0, 1]
    monkeypatch.setattr(stages, "_full", lambda *_: (True, 0))
    forged = certify_as(Outcome.UNIQUE, made, batch=(x, y))
    assert_rejected(forged.certificate, made, "full column rank", batch=(x, y))


def test_what_a_certificate_says_is_compared():
    network, (x, y) = unique_case(0)
    certificate = plain(certify(network, batch=(x, y)).certificate)

    def rejected(**changes: Any) -> str:
        forged = copy.deepcopy(certificate)
        forged["evidence"][0] |= changes
        with pytest.raises(CertificateRejected) as caught:
            check(forged, network, batch=(x, y))
        return str(caught.value)

    (part,) = certificate["evidence"]
    assert "unknowns" in rejected(unknowns=[part["unknowns"][0]])
    assert "unknowns" in rejected(unknowns=[part["unknowns"][0] - 1, *part["unknowns"][1:]])
    assert "no evidence" in rejected(head=[])
    assert "features" not in certificate["claim"]["samples"]
    assert "the evidence shows" in rejected(unknowns=[])
    wrong = copy.deepcopy(part["head"])
    wrong[0]["layers"][0]["rank"] -= 1
    assert "rank" in rejected(head=wrong)
    other, (x2, y2) = unique_case(1)
    assert_rejected(certificate, other, "another model", batch=(x, y))
    assert_rejected(certificate, network, "another batch", batch=(x2, y2))
    lifted = certificate | {"evidence": part["head"]}
    assert_rejected(lifted, network, "no evidence about a network with convolutions", batch=(x, y))
    twice = certificate | {"evidence": [part, part]}
    assert_rejected(twice, network, "one piece of evidence", batch=(x, y))
    # the other way round: a fully connected network's certificate is none of a network with stages
    on_head = certificate | {"model_sha256": network.head.digest}
    features = forward_stages(network, batch_of(network, x, y)).values[-1].T.fractions()
    assert_rejected(on_head, network.head, batch=(features, y))


def grouped_case(seed: int) -> tuple[nn.Sequential, tuple[np.ndarray, list[int]]]:
    """Each channel by itself, then two groups of channels."""
    layers = [nn.Conv2d(2, 16, 3, padding=1, groups=2), nn.Conv2d(16, 32, 3, groups=2)]
    made = module(6, layers, (40, 3), seed=seed)
    return made, (pictures(2, (2, 6, 6), seed), [0, 2])


def test_groups_are_determined_each_by_its_own_system():
    outcomes = Counter()
    for seed in range(2):
        made, (x, y) = grouped_case(seed)
        network = to_staged(made, (2, 6, 6))
        batch = batch_of(network, x, y)
        found = staged_gradient(network, batch)
        targets = torch.eye(3, dtype=torch.float64)[y]
        for name, value in autograd(made, torch.tensor(x), targets, "mse", "sum").items():
            scale = float(value.abs().max())
            assert np.abs(found[name].astype(float) - value.numpy()).max() <= 1e-12 * scale, name
        verdict = certify(made, batch=(x, y))
        outcomes[verdict.outcome] += 1
        assert "in 2 groups" in verdict.architecture
        assert check(json.dumps(verdict.certificate), made, batch=(x, y)).outcome is verdict.outcome
        # the same map as one group with zeros between them, whose weights are others
        passed = forward_stages(network, batch)
        last, dense = network.stages[1], np.zeros((32, 16, 3, 3))
        for g in range(2):
            dense[16 * g : 16 * g + 16, 8 * g : 8 * g + 8] = last.weight[16 * g : 16 * g + 16]
        one = replace(last, weight=dense, groups=1)
        maps = (convolved(stage, passed.values[1]).fractions() for stage in (last, one))
        assert (next(maps) == next(maps)).all()
        assert replace(network, stages=(network.stages[0], one)).digest != network.digest
    assert outcomes[Outcome.UNIQUE] >= 2


def test_a_group_that_sees_too_little_leaves_its_pictures_open():
    """The second group's convolution is dark: its inputs move, and only those of one channel are known."""
    made, (x, y) = grouped_case(0)
    made[0].bias.data[8:] -= 100
    verdict = certify(made, batch=(x, y))
    assert verdict.outcome is not Outcome.UNIQUE
    assert SampleStatus.DETERMINED not in verdict.samples
    forged = certify(grouped_case(0)[0], batch=(x, y)).certificate | {
        "model_sha256": to_staged(made, (2, 6, 6)).digest
    }
    with pytest.raises(CertificateRejected):
        check(forged, made, batch=(x, y))


def test_dimensions_are_counted_by_the_kernel():
    network, (x, y) = moving_case(0)
    certificate = plain(certify(network, batch=(x, y)).certificate)
    (part,) = certificate["evidence"]
    for other in ({"dimension": part["dimension"] + 1}, {"stage": 2}, {"stage": 0}):
        forged = certificate | {"evidence": [part | other]}
        assert_rejected(forged, network, batch=(x, y))
    # a pre-activation at zero, and a pixel on a face, take a motion each
    batch = batch_of(network, x, y)
    question = Question(loss=Loss.MSE, batch_size=2)
    subject = kernel.Pictures(network=network, batch=batch, question=question)
    passed = subject.passed
    for at_zero in (1, 3):
        zeros = np.zeros_like(passed.zeros[0])
        inactive = np.argwhere(~passed.patterns[0])[:at_zero]
        zeros[tuple(inactive.T)] = True
        spoiled = kernel.Pictures(network=network, batch=batch, question=question)
        spoiled.__dict__["passed"] = replace(passed, zeros=(zeros,))
        fewer = StageMotions(stage=1, dimension=part["dimension"] - at_zero)
        assert kernel.facts(fewer, spoiled).ambiguous
        with pytest.raises(CertificateRejected):
            kernel.facts(StageMotions(stage=1, dimension=part["dimension"]), spoiled)
    low, high = float(x.min()), float(x.max())
    boxed = certify_as(Outcome.AMBIGUOUS, network, batch=(x, y), domain=Box(low, high))
    assert boxed.witness.dimension == part["dimension"] - 2
    tight = certify(network, batch=(np.sign(x), y), domain=Box(-1, 1))
    assert tight.outcome is not Outcome.AMBIGUOUS


def half_dark_case(seed: int) -> tuple[StagedNetwork, tuple[np.ndarray, list[int]]]:
    """Six channels see bright pixels, one sees dark ones: more outputs than pixels, of the bright half."""
    rng = np.random.default_rng(seed)
    made = module(8, [nn.Conv2d(1, 6, 2, stride=2)], (24, 3), seed=seed)
    made[0].weight.data = torch.from_numpy(rng.uniform(0.5, 1, (6, 1, 2, 2)))
    made[0].bias.data = torch.tensor([0.5, -0.5, -0.5, -0.5, -0.5, -0.5], dtype=torch.float64)
    x = rng.uniform(-0.01, 0.01, (2, 1, 8, 8))
    x[..., :4] += 1
    return to_staged(made, (1, 8, 8)), (x, [0, 2])


def test_pixels_that_too_many_outputs_see_are_held_still():
    for seed in range(3):
        network, (x, y) = half_dark_case(seed)
        batch = batch_of(network, x, y)
        passed = forward_stages(network, batch)
        assert 2 * 64 - passed.patterns[0].sum() - 24 < 0
        verdict = certify_as(Outcome.AMBIGUOUS, network, batch=(x, y), loss="mse", reduction="sum")
        assert verdict.witness.dimension == 2 * (32 - 8) - 24
        assert "held still" in verdict.reason
        basis = nullspace(dense_rational(network, passed.patterns[0], deltas(network, batch)))
        assert basis.shape[1] >= verdict.witness.dimension
    certificate = plain(verdict.certificate)
    (part,) = certificate["evidence"]
    left, right = part["moving"]
    assert check(json.dumps(verdict.certificate), network, batch=(x, y)).outcome is Outcome.AMBIGUOUS
    bright = next(pixel for pixel in range(64) if pixel not in left)
    for other in (
        {"moving": []},
        {"moving": [[*left, bright], right]},
        {"moving": [left[1:], right]},
        {"moving": [left]},
        {"moving": [[*left, 64], right]},
        {"dimension": part["dimension"] + 1},
        {"dimension": 0},
    ):
        assert_rejected(certificate | {"evidence": [part | other]}, network, batch=(x, y))
    assert check(certificate | {"evidence": [part | {"dimension": 1}]}, network, batch=(x, y))
    # in the box whose faces the bright pixels stand on, their outputs are kept for nothing
    x = np.where(x > 0.5, 1.0, x)
    boxed = certify_as(Outcome.AMBIGUOUS, network, batch=(x, y), domain=Box(-1, 1))
    assert boxed.witness.dimension == 24
    assert plain(boxed.certificate)["evidence"][0]["moving"] == []


def test_no_choice_of_pixels_leaves_more_than_equal_shares_do():
    rng = np.random.default_rng(4)
    for seed in range(20):
        options = {"padding": 1, "stride": int(rng.integers(1, 3)), "groups": int(rng.integers(1, 3))}
        made = module(6, [nn.Conv2d(2, 4, 3, **options)], (4, 3), seed=seed)
        (stage,) = to_staged(made, (2, 6, 6)).stages
        inside = rng.random((72, 2)) < 0.9
        kept = sees(stage, inside) & (
            rng.random((int(np.prod(stage.output_shape)), 2)) < rng.uniform(0.1, 0.9)
        )
        pixels, surplus = stages._held(stage, inside, kept)
        most = stages._surplus_at_most(stage, inside, kept)
        assert surplus.sum() <= most + 1e-9
        for m in range(2):
            # what is left is at least what all pixels leave, and none
            assert surplus[m] >= max(0, int(inside[:, m].sum() - kept[:, m].sum()))
            assert inside[list(pixels[m]), m].all()


def test_what_an_output_sees_is_what_its_taps_take():
    rng = np.random.default_rng(0)
    options = {"padding": 1, "dilation": 2, "stride": 2, "groups": 2}
    made = module(7, [nn.Conv2d(4, 6, 2, **options)], (4, 3), seed=0)
    (stage,) = to_staged(made, (4, 7, 7)).stages
    moving = rng.random((4 * 49, 3)) < 0.03
    counted = nn.functional.conv2d(
        torch.from_numpy(moving.T.reshape(3, 4, 7, 7).astype(float)),
        torch.ones_like(made[0].weight),
        **options,
    )
    assert (sees(stage, moving) == (counted.numpy() > 0).reshape(3, -1).T).all()
    assert 0 < sees(stage, moving).mean() < 1


def test_black_borders_without_biases_stand_at_zero():
    """Outputs that see zeros only are exactly zero; they are kept, and motions of the rest are counted."""
    made = module(8, [nn.Conv2d(1, 2, 2, stride=2, bias=False)], (24, 3), seed=3)
    x = pictures(2, (1, 8, 8), 3)
    x[:, :, :4] = 0
    network = to_staged(made, (1, 8, 8))
    passed = forward_stages(network, batch_of(network, x, [0, 1]))
    assert passed.zeros[0].sum() == 2 * 2 * 2 * 4
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=(x, [0, 1]))
    own = passed.patterns[0].sum() + passed.zeros[0].sum()
    assert verdict.witness.dimension == 2 * 64 - own - made[0].weight.numel()
    assert check(verdict.certificate, network, batch=(x, [0, 1])).outcome is Outcome.AMBIGUOUS


class Normalised(nn.Module):
    """``(x - mean) / .25`` for each channel, then convolutions that pad, and a head."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor([0.2, 0.6]).reshape(1, 2, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body((x - self.mean) / 0.25)


def test_pictures_that_are_normalised_as_they_enter():
    """The answer, its domain and what the attack returns are about the pictures before that."""
    body = module(5, [nn.Conv2d(2, 12, 3, padding=1)], (40, 3), seed=0)
    model = Normalised(body).double()
    x, y = np.random.default_rng(0).uniform(size=(2, 2, 5, 5)), [0, 2]
    network = to_staged(model, (2, 5, 5))
    assert network.architecture.startswith("constant shift and scale, Conv2d")
    batch = batch_of(network, x, y)
    exact = staged_gradient(network, batch)
    known = autograd(model, torch.tensor(x), torch.eye(3, dtype=torch.float64)[y], "mse", "sum")
    for name, wanted in known.items():
        value = exact[name.removeprefix("body.")] if name not in exact else exact[name]
        assert np.abs(value.astype(float) - wanted.numpy()).max() <= 1e-12 * wanted.abs().max().item()
    verdict = certify(model, batch=(x, y), domain=Box(0, 1))
    assert verdict.outcome is Outcome.UNIQUE, verdict.reason
    assert check(json.dumps(verdict.certificate), model, batch=(x, y)).outcome is Outcome.UNIQUE
    with pytest.raises(CertificateRejected, match="another model"):
        check(verdict.certificate, replace(network, entry=None), batch=(x, y))
    with pytest.raises(ShapeError, match="scale of the pictures is zero"):
        replace(network, entry=Entry(factor=fractions(np.zeros(2)), shift=fractions(np.ones(2))))
    found = attack(model, autograd(model, torch.tensor(x), torch.tensor(y)), picture_iterations=0)
    order = np.argsort(found.y.numpy())
    assert np.abs(found.x.numpy()[order] - x).max() < 1e-9
    # motions of one narrow convolution, inside the box alone
    narrow = Normalised(module(8, [nn.Conv2d(2, 2, 2, stride=2)], (24, 3), seed=0)).double()
    x = np.random.default_rng(1).uniform(size=(2, 2, 8, 8))
    x[:, 0, :5] = 0
    free = certify(narrow, batch=(x, y))
    inside = certify(narrow, batch=(x, y), domain=Box(0, 1))
    assert free.witness.dimension - inside.witness.dimension == 2 * 5 * 8
    for moved in (free, inside):
        assert check(moved.certificate, narrow, batch=(x, y)).outcome is Outcome.AMBIGUOUS


REFUSED = {
    "'0' (MaxPool) before any": [
        nn.MaxPool2d(2),
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 3),
    ],
    "without a ReLU right": [
        nn.Conv2d(1, 4, 3),
        nn.AvgPool2d(2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 3),
    ],
    "with padding or": [
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=1),
        nn.Flatten(),
        nn.Linear(36, 3),
    ],
    "without a ReLU": [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_taken_is_named(message: str):
    model = nn.Sequential(*REFUSED[message])
    channels = getattr(model[0], "in_channels", 1)
    with pytest.raises(UnsupportedLayerError) as caught:
        certify(model, batch=(pictures(2, (channels, 6, 6), 1), [0, 1]))
    said = str(caught.value)
    assert message in said
    assert "exan audit" in said


AVERAGED = {
    "plain": ([nn.Conv2d(1, 12, 2), nn.AvgPool2d(2, stride=1)], 5),
    "strided": ([nn.Conv2d(1, 9, 3, stride=2, padding=(1, 2), dilation=(1, 2)), nn.AvgPool2d((2, 1))], 7),
    "groups": ([nn.Conv2d(2, 8, 2, groups=2, padding=1), nn.AvgPool2d(2, stride=(2, 1))], 4),
    "adaptive": ([nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2)], 6),
}


def averaged_model(kind: str, seed: int) -> tuple[nn.Sequential, tuple[int, int, int]]:
    layers, size = copy.deepcopy(AVERAGED[kind])
    shape = layers[0].in_channels, size, size
    features = nn.Sequential(*layers, nn.Flatten())(torch.zeros(1, *shape)).shape[1]
    head = [nn.Flatten(), nn.Linear(features, 40), nn.ReLU(), nn.Linear(40, 3)]
    return initialised(nn.Sequential(*layers, nn.ReLU(), *head).double(), seed), shape


@pytest.mark.parametrize("kind", AVERAGED)
def test_means_before_an_activation_are_part_of_the_weights(kind: str):
    """The own gradient is linear in that of the weights with the mean, by autograd; verdicts are checked."""
    model, shape = averaged_model(kind, 3)
    network = to_staged(model, shape)
    assert "mean, ReLU" in network.architecture
    x, y = pictures(2, shape, 3), [0, 2]
    found = staged_gradient(network, batch_of(network, x, y))
    known = autograd(model, torch.tensor(x), torch.eye(3, dtype=torch.float64)[y], "mse", "sum")
    wide, convolution = found.pop("0.weight").astype(float), AVERAGED[kind][0][0]
    area = convolution.weight[0, 0].numel()
    kernel, stride, dilation = (network.stages[0].kernel, convolution.stride, convolution.dilation)
    own = np.zeros(convolution.weight.shape)
    spans = [(size - 1) * step for size, step in zip(convolution.kernel_size, dilation, strict=True)]
    window = [(k - 1 - span) // jump + 1 for k, span, jump in zip(kernel, spans, stride, strict=True)]
    for a, b in np.ndindex(*window):
        rows = slice(a * stride[0], a * stride[0] + spans[0] + 1, dilation[0])
        columns = slice(b * stride[1], b * stride[1] + spans[1] + 1, dilation[1])
        own += wide[..., rows, columns] / np.prod(window)
    assert own.shape[2:] == convolution.weight.shape[2:]
    assert area == network.stages[0].trained // (len(own) * own.shape[1])
    for name, value in {**found, "0.weight": own}.items():
        wanted = known[name].numpy()
        assert np.abs(value.astype(float) - wanted).max() <= 1e-12 * np.abs(wanted).max(), name
    verdict = certify(model, batch=(x, y))
    assert verdict.certificate is not None
    claim = check(json.dumps(verdict.certificate), model, batch=(x, y))
    assert (claim.outcome, claim.samples) == (verdict.outcome, verdict.samples)
    plain = replace(network, stages=(replace(network.stages[0], trained=None),))
    with pytest.raises(CertificateRejected, match="another model"):
        check(verdict.certificate, plain, batch=(x, y))


def test_motions_keep_the_own_weights_below_a_mean_alone():
    layers = [nn.Conv2d(1, 2, 2), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(18, 24), nn.ReLU(), nn.Linear(24, 3)).double()
    x, y = pictures(2, (1, 8, 8), 0), [0, 2]
    network = to_staged(initialised(model, 0), (1, 8, 8))
    active = forward_stages(network, batch_of(network, x, y)).patterns[0].sum()
    verdict = certify_as(Outcome.AMBIGUOUS, network, batch=(x, y))
    assert network.stages[0].weight.size == 2 * 9
    assert verdict.witness.dimension == 2 * 64 - active - 2 * 4
    assert check(json.dumps(verdict.certificate), network, batch=(x, y)).outcome is Outcome.AMBIGUOUS


def test_the_gradient_of_weights_with_a_mean_is_not_used(monkeypatch: pytest.MonkeyPatch):
    """With it a stage would have full rank; it is not part of the model's gradient."""
    undecided = 0
    for seed in range(3):
        model, shape = averaged_model("plain", seed)
        network = to_staged(model, shape)
        x, y = pictures(2, shape, seed), [0, 2]
        verdict = certify(network, batch=(x, y))
        wrong = replace(network, stages=(replace(network.stages[0], trained=None),))
        if certify(wrong, batch=(x, y)).outcome is not Outcome.UNIQUE or verdict.outcome is Outcome.UNIQUE:
            continue
        undecided += 1
        with monkeypatch.context() as patched:
            patched.setattr(stages, "_full", lambda *_: (True, 0))
            forged = certify(network, batch=(x, y))
        if forged.outcome is Outcome.UNIQUE:
            assert_rejected(forged.certificate, network, "full column rank", batch=(x, y))
    assert undecided >= 1


POOLS = {
    "max": nn.MaxPool2d(2),
    "overlapping": nn.MaxPool2d(3, stride=2, padding=1),
    "mean": nn.AvgPool2d((1, 2)),
    "adaptive": nn.AdaptiveAvgPool2d(3),
}


@pytest.mark.parametrize("kind", POOLS)
def test_behind_pooling_features_and_labels_are_known(kind: str):
    made = module(8, [nn.Conv2d(1, 30, 3)], (40, 3), seed=6)
    body = nn.Sequential(*made[:2], POOLS[kind], nn.Flatten())
    x, y = pictures(3, (1, 8, 8), 6), [0, 1, 1]
    features = body(torch.tensor(x)).detach().numpy()
    head = module(8, [nn.Conv2d(1, 1, 1)], (60, 3), seed=7)[3:]
    head[0] = nn.Linear(features.shape[1], 60).double()
    initialised(head, 7)
    model = nn.Sequential(*body, *head)
    network = to_staged(model, (1, 8, 8))
    assert network.pooled
    values = forward_stages(network, batch_of(network, x, y)).values[-1].T.fractions().astype(float)
    assert np.abs(values - features).max() < 1e-12
    verdict = certify(model, batch=(x, y))
    assert verdict.samples == (SampleStatus.FEATURES,) * 3, verdict.reason
    claim = check(json.dumps(verdict.certificate), model, batch=(x, y))
    assert claim.samples == verdict.samples
    forged = change(verdict.certificate, ("evidence", 0, "unknowns"), [3 * 64])
    forged["claim"] |= {"samples": ["determined"] * 3, "outcome": "unique"}
    assert_rejected(forged, model, "pooling hides", batch=(x, y))
    assert audit(model, (x, y)).gate("determined") == "hit"


def test_pictures_move_below_what_is_pooled_too():
    """A motion that keeps the first convolution's outputs keeps all that is pooled of them, ties included."""
    body = nn.Sequential(nn.Conv2d(1, 2, 2, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model = initialised(nn.Sequential(*body, nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 3)).double(), 1)
    x, y = pictures(2, (1, 8, 8), 1), [0, 2]
    verdict = certify_as(Outcome.AMBIGUOUS, model, batch=(x, y))
    assert check(verdict.certificate, model, batch=(x, y)).outcome is Outcome.AMBIGUOUS


def test_only_whole_gradients_of_batches_are_asked():
    network, (x, y) = unique_case(0)
    zero = {name: np.ones(array.shape) for name, array in network.parameters()}
    with pytest.raises(InputError, match="give batch"):
        certify(network, gradient=zero, loss="mse", exact=True)
    assert certify(network, batch=(x, y), batch_size=3).outcome is Outcome.UNKNOWN
    assert certify(network, batch=(x, y), release=Release(tensors=["0.weight"])).outcome is Outcome.UNKNOWN
    with pytest.raises(InputError, match="outside the domain"):
        certify(network, batch=(x, y), domain=Box(0, 1))
    with pytest.raises(InputError, match="release"):
        audit(network, (x, y), release=Release(tensors=["0.weight"]))


def test_audit_shows_the_answer():
    made = module(6, [nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3)], (24, 3), seed=0)
    _, (x, y) = unique_case(0)
    found = audit(made, (x, y))
    assert found.verdict.outcome is Outcome.UNIQUE
    assert found.gate("determined") == "hit"
    assert found.gate("exan") == "undecided"
    assert "fully connected" in found.no_exclusivity
    assert found.widths == (36, 216, 128, 24, 3)
    both = audit(made, (x, y), attack=True)
    assert both.verdict.outcome is Outcome.UNIQUE
    assert both.attack is not None
    assert Counter(both.verdict.samples) == {SampleStatus.DETERMINED: 2}


def test_no_defence_is_offered_for_a_model_that_mitigate_refuses():
    from exan_verify import mitigate
    from exan_verify.cli.audit import _mitigable
    from exan_verify.errors import ExanError

    def connected(*between: nn.Module) -> nn.Sequential:
        layers = [nn.Flatten(), nn.Linear(16, 24), *between, nn.Linear(24, 3)]
        return initialised(nn.Sequential(*layers).double(), 0).eval()

    x, y = pictures(2, (1, 4, 4), 0), [0, 2]
    models = {
        "": connected(nn.ReLU()),
        "BatchNorm beside layer '1'": connected(nn.BatchNorm1d(24), nn.ReLU()),
        "LeakyReLU of slope": connected(nn.LeakyReLU()),
        "layer '0' (Conv2d)": module(4, [nn.Conv2d(1, 6, 3)], (24, 3), seed=0),
    }
    for said, model in models.items():
        assert _mitigable(model, audit(model, (x, y))) == (not said)
        if said:
            with pytest.raises(ExanError) as caught:
                mitigate(model, (x, y))
            assert said in str(caught.value)


def test_unique_means_that_the_attack_agrees():
    """Where CV1 holds the attack's pictures are the batch's, in float64."""
    agreed = 0
    for seed in range(3):
        made = module(6, [nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 9, 3)], (40, 3), seed=seed, spread=1.5)
        x, y = pictures(2, (1, 6, 6), seed), [0, 2]
        found = audit(made, (x, y), attack=True)
        if found.verdict.outcome is not Outcome.UNIQUE:
            continue
        assert found.attack is not None
        for recovery in found.attack.recoveries:
            if recovery is not None:
                assert recovery.rmse < 1e-6
                agreed += 1
    assert agreed >= 2
