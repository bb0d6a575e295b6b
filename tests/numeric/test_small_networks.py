"""Small and special networks: one sample, one neuron per sample, layers without biases, no hidden layer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify import attack, audit, certify
from exan_verify.core.verdict import Outcome
from exan_verify.numeric.problem.records import Tier
from tests.support.attack_cases import LOSSES, assert_nothing
from tests.support.certificate_cases import assert_rejected, certify_as
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd, trained

KINDS = list(product(LOSSES, ("mean", "sum")))


def one_hot_targets(y: Tensor, classes: int, loss: str, rng: np.random.Generator) -> Tensor:
    if loss not in ("mse", "bce"):
        return y
    if loss == "bce" or classes == 1:
        return torch.tensor(rng.integers(2, size=(len(y), classes))).double()
    return nn.functional.one_hot(y, classes).double()


def without_biases(model: nn.Sequential, kept: tuple[bool, ...]) -> nn.Sequential:
    """The same network with biases in the ``kept`` layers only."""
    parts: list[nn.Module] = []
    for linear, keep in zip((part for part in model if isinstance(part, nn.Linear)), kept, strict=True):
        if not keep:
            linear.register_parameter("bias", None)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("loss", "reduction"), KINDS)
def test_one_sample_is_found_by_division_at_any_width(loss: str, reduction: str, told: bool):
    found = tried = 0
    for seed in range(25):
        rng = np.random.default_rng([seed, 31])
        classes = int(rng.integers(1 if loss in ("mse", "bce") else 2, 5))
        widths = (
            int(rng.integers(1, 9)),
            *(int(n) for n in rng.integers(1, 9, int(rng.integers(0, 3)))),
            classes,
        )
        model = drawn_network(widths, rng)
        x, y = drawn_batch("randn", 1, widths[0], classes, rng)
        target = one_hot_targets(y, classes, loss, rng)
        given = autograd(model, x, target, loss, reduction)
        first = next(iter(given.values()))
        if not bool(first.any()):  # a dead sample shows nothing
            continue
        tried += 1
        result = attack(model, given, loss=loss, reduction=reduction, batch_size=1 if told else None)
        if not result.complete:
            # the constants of hinge would fit several samples of one region as well
            assert loss == "hinge"
            assert not told
            assert "batch_size=1" in result.reason
            assert "batch_size=1" in result.hint
            assert float((result.candidates[0].x - x[0]).abs().max()) <= result.candidates[0].error_estimate
            continue
        found += 1
        assert result.status[0].tier is Tier.CONFIRMED
        assert float((result.x - x).abs().max()) <= result.status[0].error_bound < 1e-10
        assert torch.equal(result.y.double(), target.double())
    assert tried >= 10
    assert found == (tried if told or loss != "hinge" else 0)


def test_a_real_target_is_named_by_reason_and_hint():
    rng = np.random.default_rng(5)
    model = drawn_network((14, 32, 1), rng)
    x, y = torch.tensor(rng.normal(size=(1, 14))), torch.tensor([[0.37]]).double()
    given = autograd(model, x, y, "mse", "mean")
    found = attack(model, given, loss="mse")
    for said in (found.reason, found.hint):
        assert "labels='real'" in said
        assert "batch_size=1" in said
    assert float((found.candidates[0].x - x[0]).abs().max()) < 1e-12
    again = attack(model, given, loss="mse", labels="real", batch_size=1)
    assert again.complete
    assert float((again.y - y).abs().max()) < 1e-12


def test_several_samples_are_not_taken_for_one():
    for seed in range(20):
        rng = np.random.default_rng([seed, 33])
        model = drawn_network((6, 8, 3), rng)
        x, y = drawn_batch("rand", 2, 6, 3, rng)
        found = attack(model, autograd(model, x, y, "cross_entropy", "mean"))
        distance = torch.cdist(found.x, x).amin(dim=1) if len(found.x) else found.x.new_zeros(0)
        assert all(float(d) < 1e-6 for d in distance)


def test_without_a_hidden_layer_many_samples_stay_mixed():
    rng = np.random.default_rng(0)
    model = drawn_network((40, 9), rng)
    x, y = drawn_batch("randn", 5, 40, 9, rng)
    found = attack(model, autograd(model, x, y, "cross_entropy", "mean"))
    assert_nothing(found, "up to a mixing of the 5 samples", "descent is for 2 to 4 samples")
    assert found.last_layer is not None
    assert found.last_layer.rank == 5


FEW = [("cross_entropy", range(3)), ("bce", range(2)), ("mse", range(1, 2))]
MANY = [("cross_entropy", range(3, 12)), ("bce", range(2, 8)), ("mse", [0, *range(2, 6)])]


@pytest.mark.parametrize(
    ("loss", "seeds"), [*FEW, *(pytest.param(*many, marks=pytest.mark.campaign) for many in MANY)]
)
def test_without_a_hidden_layer_a_few_samples_are_found_by_their_labels(loss: str, seeds: Iterable[int]):
    found = tried = 0
    for seed in seeds:
        rng = np.random.default_rng([seed, 52])
        samples, classes, features = 2 + (seed == 0), int(rng.integers(4, 6)), int(rng.integers(3, 12))
        model = drawn_network((features, classes), rng)
        x, y = drawn_batch("randn", samples, features, classes, rng)
        target = one_hot_targets(y, classes, loss, rng)
        reduction, size = ("sum", samples) if seed % 2 else ("mean", None)
        given = autograd(model, x, target, loss, reduction)
        result = attack(model, given, loss=loss, reduction=reduction, batch_size=size)
        assert result.count(Tier.CONFIRMED) == 0
        for row, label, status in zip(result.x, result.y, result.status, strict=True):
            distance = (x - row).abs().amax(dim=1)
            assert float(distance.min()) <= status.error_bound < 1e-3
            assert torch.equal(label.to(target.dtype), target[distance.argmin()])
        # samples of one label have affine loss vectors under mse, and mix among themselves
        alone = [int((y == one).sum()) == 1 or loss != "mse" for one in y]
        tried += sum(alone)
        found += len(result.x)
        assert result.complete == (len(result.x) == samples)
    assert found >= 0.9 * tried


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 4), marks=pytest.mark.campaign)])
def test_more_samples_than_the_rank_are_not_taken_for_fewer(seeds: range):
    for seed in seeds:
        rng = np.random.default_rng([seed, 53])
        loss = ("cross_entropy", "bce")[seed % 2]
        classes = int(rng.integers(3, 5))
        model = drawn_network((8, classes), rng)
        x, y = drawn_batch("randn", classes + 1, 8, classes, rng)
        target = one_hot_targets(y, classes, loss, rng)
        found = attack(model, autograd(model, x, target, loss, "mean"), loss=loss)
        assert not len(found.x)


@pytest.mark.parametrize("depth", [2, 3])
def test_layers_without_biases_anywhere(depth: int):
    for kept in product((True, False), repeat=depth):
        rng = np.random.default_rng(7)
        model = without_biases(drawn_network((12, 40, 30, 5) if depth == 3 else (12, 40, 5), rng), kept)
        x, y = drawn_batch("rand", 4, 12, 5, rng)
        found = attack(model, autograd(model, x, y, "cross_entropy", "mean"))
        assert found.complete, (kept, found.reason)
        assert not found.missing
        for row, status in zip(found.x, found.status, strict=True):
            assert float((x - row).abs().amax(dim=1).min()) <= status.error_bound < 1e-9


def test_biases_in_some_layers_only_are_undecided_by_exact_arguments_and_said_so():
    rng = np.random.default_rng(3)
    model = without_biases(drawn_network((6, 20, 3), rng), (False, True))
    x, y = drawn_batch("rand", 2, 6, 3, rng)
    verdict = certify_as(Outcome.UNKNOWN, model, batch=(x, y))
    assert "['0'] have no bias" in verdict.reason
    assert "attack" in verdict.reason
    assert not any(audit(model, (x, y)).exclusivity.peelable)
    biased = drawn_network((6, 20, 3), np.random.default_rng(3))
    certificate = certify(biased, batch=(x, y)).certificate
    assert certificate is not None
    assert_rejected(certificate, model, batch=(x, y))


def test_deep_narrow_networks_whose_deltas_leave_loss_vectors_open():
    # labels are told by the last layer's gradient and the features, and the batch as a whole is consistent
    rng = np.random.default_rng([2, 9])
    model = drawn_network((5, 50, 50, 50, 50, 3), rng)
    points, classes = torch.tensor(rng.normal(size=(60, 5))), torch.tensor(rng.integers(3, size=60))
    trained(model, points, classes, 100, 3e-3)
    x, y = points[:3], classes[:3]
    found = attack(model, autograd(model, x, y, "cross_entropy", "mean"))
    assert found.complete, found.reason
    for row, label, status in zip(found.x, found.y, found.status, strict=True):
        distance = (x - row).abs().amax(dim=1)
        assert float(distance.min()) <= status.error_bound
        assert int(label) == int(y[distance.argmin()])


def test_two_samples_that_float32_cannot_tell_from_one_are_not_taken_for_it_unless_they_are_near():
    """Small weights: the loss vectors of one label differ little, whatever the samples."""
    merged = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 74])
        loss = ("mse", "bce", "cross_entropy")[seed % 3]
        features = int(rng.integers(1, 5))
        model = drawn_network((features, 8, 2), rng).float()
        for parameter in model.parameters():
            parameter.data *= 0.1
        x, y = drawn_batch("rand", 2, features, 2, rng)
        x, y = x.float(), y[:1].expand(2)
        target = one_hot_targets(y, 2, "cross_entropy" if loss == "cross_entropy" else "mse", rng)
        target = target if loss == "cross_entropy" else target.float()
        given = autograd(model, x, target, loss, "mean")
        if not bool(given["0.weight"].any()):
            continue
        found = attack(model, given, loss=loss)
        for row in found.x:
            assert float((x - row).abs().amax(dim=1).min()) < 0.02
        merged += found.batch_size == 1 and len(found.candidates) == 1
        one = autograd(model, x[:1], target[:1], loss, "mean")
        if bool(one["0.weight"].any()):
            assert attack(model, one, loss=loss, batch_size=1).count(Tier.CONFIRMED) == 1
    assert merged > 5


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "mse"])
def test_without_biases_a_scale_is_found_where_no_twin_has_the_gradient(loss: str):
    """One equation for the scale (one logit, two classes): both kinds occur, and each is said truly."""
    outcomes = {True: 0, False: 0}
    for seed in range(20):
        rng = np.random.default_rng([seed, 82])
        classes = 2 if loss == "cross_entropy" else 1
        model = without_biases(drawn_network((6, 30, classes), rng), (False, False))
        x, y = drawn_batch("randn", 2, 6, 2, rng)
        target = y if classes == 2 else y[:, None].double()
        found = attack(
            model, autograd(model, x, target, loss, "sum"), loss=loss, reduction="sum", batch_size=2
        )
        logits = model(x).detach()
        margins = (logits[:, 1] - logits[:, 0] if classes == 2 else logits[:, 0]) * (2 * y - 1)
        # t / (1 + e^(t margin)) takes a value twice where the margin is positive; of the quadratics of mse's
        # two labels one has another solution
        twin = loss == "mse" or bool((margins > 0).any())
        outcomes[twin] += 1
        if twin:
            assert_nothing(found, "two inputs explain the gradient alike")
        else:
            assert found.complete, found.reason
        for row, status in zip(found.x, found.status, strict=True):
            assert float((x - row).abs().amax(dim=1).min()) <= status.error_bound < 1e-6
    assert outcomes[True] > 2
    assert (outcomes[False] > 2) == (loss != "mse")


@pytest.mark.parametrize("loss", LOSSES)
def test_without_biases_several_equations_leave_one_scale(loss: str):
    found = tried = 0
    for seed in range(6 if loss in ("cross_entropy", "hinge") else 20):
        rng = np.random.default_rng([seed, 83])
        classes, reduction = int(rng.integers(3, 6)), ("sum", "mean")[seed % 2]
        model = without_biases(drawn_network((6, 40, classes), rng), (False, False))
        x, y = drawn_batch("randn", 2, 6, classes, rng)
        target = one_hot_targets(y, classes, loss, rng)
        given = autograd(model, x, target, loss, reduction)
        result = attack(model, given, loss=loss, reduction=reduction, batch_size=2)
        for row, label, status in zip(result.x, result.y, result.status, strict=True):
            distance = (x - row).abs().amax(dim=1)
            assert float(distance.min()) <= status.error_bound < 1e-6
            assert torch.equal(label.to(target.dtype), target[distance.argmin()])
        found, tried = found + len(result.x), tried + 2
    assert found >= 0.9 * tried


@pytest.mark.parametrize(
    ("loss", "classes", "options"),
    [
        ("bce", 1, {"scale": "unknown"}),
        ("bce", 3, {"weights": "positive"}),
        ("cross_entropy", 2, {"weights": "positive"}),
        ("mse", 1, {"scale": "unknown"}),
        ("mse", 3, {"labels": "real"}),
    ],
)
def test_without_biases_what_no_gradient_shows_is_said(loss: str, classes: int, options: dict[str, object]):
    rng = np.random.default_rng([84, classes])
    model = without_biases(drawn_network((6, 40, classes), rng), (False, False))
    x, y = drawn_batch("randn", 2, 6, max(classes, 2), rng)
    target = y[:, None].double() if classes == 1 else one_hot_targets(y, classes, loss, rng)
    given = autograd(model, x, target, loss, "sum")
    found = attack(model, given, loss=loss, reduction="sum", batch_size=2, **options)  # type: ignore[arg-type]
    assert_nothing(found, "every multiple of an input")
