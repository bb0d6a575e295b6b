"""Factors of the gradient and of samples, and smoothed labels, on every path: without a hidden layer, the
last layer alone, missing tensors, missing biases, convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exan_verify import attack
from exan_verify.numeric.convolution.records import ImageAttack
from exan_verify.numeric.problem.records import Attack
from tests.support.numeric_cases import drawn_batch, drawn_network

SEEDS = 20
LOSSES = ("cross_entropy", "bce", "mse", "hinge")
Gradient = dict[str, Tensor]
KINDS = ("told factor", "unknown factor", "own factors", "smoothing")


def each(loss: str, logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """The loss of every sample, divided as torch's mean does it but for the number of samples."""
    if loss == "cross_entropy":
        return functional.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
    if loss == "hinge":
        return functional.multi_margin_loss(logits, y, reduction="none")
    function = functional.mse_loss if loss == "mse" else functional.binary_cross_entropy_with_logits
    return function(logits, y, reduction="none").mean(dim=1)


def sent(
    kind: str, model: nn.Module, x: Tensor, y: Tensor, loss: str, rng: np.random.Generator
) -> tuple[Gradient, dict[str, object], list[float]]:
    """A gradient spoiled in a way, the options that say so, and the factors of the samples."""
    factor, own, smoothing = 1.0, np.ones(len(x)), 0.0
    options: dict[str, object] = {}
    if kind in ("told factor", "unknown factor"):
        factor = float(rng.choice([-1, 1])) * 10 ** rng.uniform(-3, 3)
        options = {"scale": factor if kind == "told factor" else "unknown"}
    elif kind == "own factors":
        own = rng.uniform(0.05, 3, len(x))
        options = {"weights": "positive"}
    else:
        smoothing = float(rng.uniform(0.02, 0.3))
        options = {"smoothing": smoothing}
    model.zero_grad()
    (factor * (each(loss, model(x), y, smoothing) * torch.tensor(own)).mean()).backward()
    given = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return given, options, own.tolist()


def target(loss: str, y: Tensor, classes: int) -> Tensor:
    return functional.one_hot(y, classes).double() if loss in ("mse", "bce") else y


def right(rows: Tensor, labels: Tensor, bounds: list[float], x: Tensor, y: Tensor) -> int:
    """How many rows are claimed: each is one sample's, within its bound and with its label."""
    for row, label, bound in zip(rows, labels, bounds, strict=True):
        distance = (x - row).abs().flatten(1).amax(dim=1)
        assert float(distance.min()) <= bound < 1e-3
        assert torch.equal(label.to(y.dtype), y[distance.argmin()])
    return len(rows)


def claimed(found: Attack, x: Tensor, y: Tensor) -> int:
    return right(found.x, found.y, [one.error_bound for one in found.status], x, y)


def cases(kinds: tuple[str, ...] = KINDS) -> list[tuple[str, str]]:
    return [(kind, loss) for kind in kinds for loss in LOSSES if kind != "smoothing" or loss == LOSSES[0]]


@pytest.mark.parametrize(("kind", "loss"), cases())
def test_one_sample_without_a_hidden_layer_or_with_one(kind: str, loss: str):
    found = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, 41])
        widths = (
            int(rng.integers(2, 12)),
            *([int(rng.integers(3, 9))] * (seed % 2)),
            int(rng.integers(3, 6)),
        )
        model = drawn_network(widths, rng)
        x, classes = drawn_batch("randn", 1, widths[0], widths[-1], rng)
        y = target(loss, classes, widths[-1])
        given, options, own = sent(kind, model, x, y, loss, rng)
        if not any(bool(g.any()) for g in given.values()) or not bool(next(iter(given.values())).any()):
            continue
        one = attack(model, given, loss=loss, batch_size=1, **options)  # type: ignore[arg-type]
        found += claimed(one, x, y)
        if one.complete and kind == "own factors" and loss != "bce":
            assert one.status[0].weight == pytest.approx(own[0], rel=1e-6)
        if one.complete and "scale" in options and options["scale"] != "unknown":
            assert one.scale == pytest.approx(options["scale"])
        if not one.complete:
            assert one.reason
            assert float((one.candidates[0].x - x[0]).abs().max()) < 1e-9
        # where its size is not told, a loss vector of unknown size tells one sample from none of several
        untold = attack(model, given, loss=loss, **options)  # type: ignore[arg-type]
        claimed(untold, x, y)
    assert found >= 0.8 * SEEDS * (0.9 if loss == "hinge" else 1)


@pytest.mark.parametrize(("kind", "loss"), cases())
def test_one_sample_from_the_last_layer_alone(kind: str, loss: str):
    found = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, 42])
        model = drawn_network((4, 14, 5), rng)
        x, classes = drawn_batch("randn", 1, 4, 5, rng)
        y = target(loss, classes, 5)
        given, options, _ = sent(kind, model, x, y, loss, rng)
        given = {name: g for name, g in given.items() if name.startswith("2.")}
        if not any(bool(g.any()) for g in given.values()):
            continue
        one = attack(model, given, loss=loss, partial=True, batch_size=1, **options)  # type: ignore[arg-type]
        if one.hidden is not None:
            bounds = [s.error_bound for s in one.hidden.status]
            found += right(one.hidden.values, one.hidden.labels, bounds, model[:2](x).detach(), y)
        claimed(one, x, y)
        assert one.last_layer is not None
        assert set(one.last_layer.present) <= set(classes.tolist())
    assert found >= 0.7 * SEEDS


@pytest.mark.parametrize(("kind", "loss"), cases())
@pytest.mark.parametrize("names", [("0.",), ("0.weight", "2."), ("0.bias", "2.", "4.")])
def test_batches_of_gradients_with_missing_tensors(kind: str, loss: str, names: tuple[str, ...]):
    found = tried = 0
    for seed in range(SEEDS // 4):
        rng = np.random.default_rng([seed, 43])
        model = drawn_network((10, 40, 36, 4), rng)
        x, classes = drawn_batch("rand", 3, 10, 4, rng)
        y = target(loss, classes, 4)
        given, options, _ = sent(kind, model, x, y, loss, rng)
        given = {name: g for name, g in given.items() if name.startswith(names)}
        some = attack(model, given, loss=loss, partial=True, batch_size=3, **options)  # type: ignore[arg-type]
        claimed(some, x, y)
        tried += 3
        if some.hidden is None:
            found += len(some.x)
        else:
            bounds = [s.error_bound for s in some.hidden.status]
            found += right(some.hidden.values, some.hidden.labels, bounds, model[:2](x).detach(), y)
    assert found >= 0.6 * tried


def small_cnn(rng: np.random.Generator, head: tuple[int, ...], classes: int = 4) -> nn.Module:
    """A convolution whose 36 features at 16 pixels determine the picture, and a head."""
    model = nn.Sequential(
        nn.Conv2d(1, 9, 2, stride=1, padding=0),
        nn.ReLU(),
        nn.Flatten(),
        drawn_network((81, *head, classes), rng),
    ).double()
    for parameter in model[0].parameters():
        parameter.data = torch.tensor(rng.uniform(-1, 1, tuple(parameter.shape))) / 2
    return model


@pytest.mark.parametrize("head", [(), (60,)])
@pytest.mark.parametrize(("kind", "loss"), cases())
def test_convolutions_give_features_and_pictures(kind: str, loss: str, head: tuple[int, ...]):
    found = shown = tried = 0
    samples = 3 if head else 1
    for seed in range(SEEDS // 4):
        rng = np.random.default_rng([seed, 44])
        model = small_cnn(rng, head)
        x, y = (
            torch.tensor(rng.random((samples, 1, 4, 4))),
            target(loss, torch.tensor(rng.integers(4, size=samples)), 4),
        )
        given, options, _ = sent(kind, model, x, y, loss, rng)
        some = attack(
            model,
            given,
            loss=loss,
            batch_size=samples,
            picture_iterations=0,
            **options,  # type: ignore[arg-type]
        )
        assert isinstance(some, ImageAttack)
        bounds = [s.error_bound for s in some.feature_status]
        found += right(some.features, some.feature_labels, bounds, model[:3](x).detach(), y)
        shown += claimed(some, x, y)
        tried += samples
    assert (found, shown) == (tried, tried)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [(k, one) for k in KINDS[:3] for one in ("cross_entropy", "mse")] + [("smoothing", LOSSES[0])],
)
def test_without_biases_directions_and_labels_leave_one_scale(kind: str, loss: str):
    found = tried = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, 45])
        model = drawn_network((6, 40, 4), rng)
        for part in (model[0], model[2]):
            part.register_parameter("bias", None)
        x, classes = drawn_batch("randn", 2, 6, 4, rng)
        y = target(loss, classes, 4)
        given, options, _ = sent(kind, model, x, y, loss, rng)
        some = attack(model, given, loss=loss, batch_size=2, **options)  # type: ignore[arg-type]
        found, tried = found + claimed(some, x, y), tried + 2
    assert found >= 0.8 * tried
